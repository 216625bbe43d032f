//! What waits for a successor, as the store has it: for `status`.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::sys::BootTime;

/// What waits right now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Waiting {
    /// Whether an identity does, still valid.
    pub identity: bool,
    /// The revision of the secrets that do, within their lease.
    pub secrets: Option<u64>,
}

/// Written by the store, read by `status`.
#[derive(Debug, Default)]
pub struct WaitingRoom(Mutex<Images>);

/// Each image, and until when it is worth something.
#[derive(Debug, Default)]
pub(super) struct Images {
    pub(super) identity: Option<BootTime>,
    /// With their revision.
    pub(super) secrets: Option<(u64, BootTime)>,
}

impl WaitingRoom {
    /// What waits right now.
    #[must_use]
    pub fn look(&self) -> Waiting {
        let (images, now) = (self.images(), BootTime::now());
        Waiting {
            identity: images.identity.is_some_and(|until| now < until),
            secrets: images.secrets.filter(|(_, until)| now < *until).map(|(revision, _)| revision),
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
    fn what_is_over_does_not_wait() {
        let room = WaitingRoom::default();
        assert_eq!(room.look(), Waiting::default());
        let (now, later) = (BootTime::now(), BootTime::now() + Duration::from_secs(60));
        room.holds(Images { identity: Some(later), secrets: Some((7, now)) });
        assert_eq!(room.look(), Waiting { identity: true, secrets: None });
        room.holds(Images { identity: Some(later), secrets: Some((7, later)) });
        assert_eq!(room.look(), Waiting { identity: true, secrets: Some(7) });
    }
}
