//! The master key in use. A rotation by another program is noticed and followed without a restart.

use std::sync::{Arc, PoisonError, RwLock};

use super::MasterKey;

/// The one key that this process has.
#[derive(Debug)]
pub(crate) struct Keyring(RwLock<Arc<MasterKey>>);

impl Keyring {
    pub(crate) fn new(master: MasterKey) -> Self {
        Self(RwLock::new(Arc::new(master)))
    }

    pub(crate) fn current(&self) -> Arc<MasterKey> {
        Arc::clone(&self.0.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// The key that `record` was wrapped under: this one, or the one with which a rotation replaced
    /// it. The old one is then dropped.
    pub(crate) fn of(&self, record: &[u8]) -> Option<Arc<MasterKey>> {
        let current = self.current();
        if current.has_wrapped(record) {
            return Some(current);
        }
        let found = Arc::new(current.reload(record)?);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&found);
        tracing::info!("the master key was rotated: the new one is in use");
        Some(found)
    }
}
