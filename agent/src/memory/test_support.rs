//! For tests: bundles sealed for real.

use devbox_secrets_proto::bundle::Bundle;
use devbox_secrets_proto::seal::{BundleKey, Context};
use devbox_secrets_tests::bundle;

use super::{Generation, GenerationError};
use crate::sys::SecretMemory;

const DEVBOX: &str = "dbx_test";

/// A bundle as it comes over the wire, and the key that opens it.
pub(crate) struct SealedBundle {
    key: BundleKey,
    message: Vec<u8>,
}

impl SealedBundle {
    /// Seals `variables`, in any order, each under its own name as the secret's, id `sec_<name>`, version 1.
    pub(crate) fn new(revision: u64, variables: &[(&str, &[u8])]) -> Self {
        let key = BundleKey::generate();
        let message = bundle::seal(key.public_key(), DEVBOX, revision, variables.iter().copied());
        Self { key, message }
    }

    pub(crate) fn flip_last_byte(&mut self) {
        *self.message.last_mut().unwrap() ^= 1;
    }

    pub(crate) fn open(&self, memory: &SecretMemory) -> Result<Generation, GenerationError> {
        let bundle = Bundle::parse(&self.message).unwrap();
        let count = u32::try_from(bundle.entries.len()).unwrap();
        let context = Context { devbox_id: DEVBOX, revision: bundle.revision, count };
        let opener = self.key.opener(bundle.encapped_key, context).unwrap();
        Generation::open(memory, &bundle, opener)
    }
}
