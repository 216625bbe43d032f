//! The nonces that link each request to the last one, so that the control plane detects two machines with one identity
//! ([`Continuity`]).

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand;
use data_encoding::HEXLOWER;
use devbox_secrets_proto::devbox::{Continuity, STEP_LEN};

use crate::machine;

#[derive(Debug)]
pub(super) struct Steps {
    boot: String,
    answered: Option<String>,
    /// The nonce of the next request, reused until it is answered.
    asking: Option<String>,
}

impl Steps {
    pub(super) fn begin() -> Self {
        Self { boot: boot(), answered: None, asking: None }
    }

    /// The continuity of the next request: the same until [`Self::answered`].
    ///
    /// # Errors
    /// There are no random numbers. With a predictable nonce a clone would pass for this machine.
    pub(super) fn next(&mut self) -> Result<Continuity, Unspecified> {
        let step = match self.asking.take() {
            Some(asking) => asking,
            None => random()?,
        };
        self.asking = Some(step.clone());
        Ok(Continuity { boot: self.boot.clone(), after: self.answered.clone(), step })
    }

    pub(super) fn answered(&mut self) {
        self.answered = self.asking.take();
    }
}

/// A digest of machine id and boot id. Without either, the nonces alone detect a clone.
fn boot() -> String {
    let mut digest = Context::new(&SHA256);
    for part in machine::identity() {
        digest.update(part.unwrap_or_default().as_bytes());
        digest.update(b"\0");
    }
    HEXLOWER.encode(digest.finish().as_ref())
}

fn random() -> Result<String, Unspecified> {
    let mut bytes = [0; STEP_LEN / 2];
    rand::fill(&mut bytes)?;
    Ok(HEXLOWER.encode(&bytes))
}

#[cfg(test)]
mod tests {
    use devbox_secrets_proto::devbox::BOOT_LEN;

    use super::*;

    #[test]
    fn a_step_is_repeated_until_it_is_answered_and_then_followed_by_another() {
        let mut steps = Steps::begin();
        let first = steps.next().unwrap();
        assert_eq!((first.boot.len(), first.after.as_ref(), first.step.len()), (BOOT_LEN, None, STEP_LEN));
        assert_eq!(steps.next().unwrap(), first);
        steps.answered();
        let second = steps.next().unwrap();
        assert_eq!(second.after, Some(first.step.clone()));
        assert_ne!(second.step, first.step);
    }
}
