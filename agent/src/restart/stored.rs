//! The content of the service manager's store, for `status`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use crate::sys::BootTime;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Stored {
    /// Whether there is an identity that is still valid.
    pub identity: bool,
    /// The revision of the secrets, if there are any within their lease.
    pub secrets_revision: Option<u64>,
}

/// A view of the store: written by the store, read by `status`.
#[derive(Debug, Default)]
pub(crate) struct StoreView(Mutex<Images>);

#[derive(Debug, Default)]
pub(super) struct Images {
    pub(super) identity: Option<BootTime>,
    pub(super) secrets: Option<(u64, BootTime)>,
}

impl StoreView {
    #[must_use]
    pub(crate) fn now(&self) -> Stored {
        let images = self.images();
        let now = BootTime::now();
        Stored {
            identity: images.identity.is_some_and(|until| now < until),
            secrets_revision: images.secrets.filter(|(_, until)| now < *until).map(|(revision, _)| revision),
        }
    }

    pub(super) fn holds(&self, images: Images) {
        *self.images() = images;
    }

    fn images(&self) -> MutexGuard<'_, Images> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn an_expired_image_is_not_shown() {
        let view = StoreView::default();
        assert_eq!(view.now(), Stored::default());
        let (now, later) = (BootTime::now(), BootTime::now() + Duration::from_secs(60));
        view.holds(Images { identity: Some(later), secrets: Some((7, now)) });
        assert_eq!(view.now(), Stored { identity: true, secrets_revision: None });
        view.holds(Images { identity: Some(later), secrets: Some((7, later)) });
        assert_eq!(view.now(), Stored { identity: true, secrets_revision: Some(7) });
    }
}
