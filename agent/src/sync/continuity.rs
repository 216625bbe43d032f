//! How one request follows on the last one, so that the control plane can tell two machines with one identity apart
//! ([`Continuity`]).

use aws_lc_rs::digest::{Context, SHA256};
use aws_lc_rs::rand;
use devbox_secrets_proto::devbox::{Continuity, STEP_LEN};

use crate::machine;

/// The steps of this process.
#[derive(Debug)]
pub(super) struct Steps {
    boot: String,
    answered: Option<String>,
    asking: String,
}

impl Steps {
    /// The first one.
    pub(super) fn begin() -> Self {
        Self { boot: boot(), answered: None, asking: random() }
    }

    /// What the next request says of itself: the same until [`Self::answered`].
    pub(super) fn next(&self) -> Continuity {
        Continuity { boot: self.boot.clone(), after: self.answered.clone(), step: self.asking.clone() }
    }

    /// The control plane has answered the request.
    pub(super) fn answered(&mut self) {
        self.answered = Some(std::mem::replace(&mut self.asking, random()));
    }
}

/// A machine that has none of the two is told apart by the steps alone.
fn boot() -> String {
    let mut digest = Context::new(&SHA256);
    for part in machine::identity() {
        digest.update(part.unwrap_or_default().as_bytes());
        digest.update(b"\0");
    }
    hex(digest.finish().as_ref())
}

/// Without random numbers the step is all zeros: the worst is that this machine is refused as a copy of itself.
fn random() -> String {
    let mut bytes = [0; STEP_LEN / 2];
    let _ = rand::fill(&mut bytes);
    hex(&bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use devbox_secrets_proto::devbox::BOOT_LEN;

    use super::*;

    #[test]
    fn a_step_is_repeated_until_it_is_answered_and_then_followed_by_another() {
        let mut steps = Steps::begin();
        let first = steps.next();
        assert_eq!((first.boot.len(), first.after.as_ref(), first.step.len()), (BOOT_LEN, None, STEP_LEN));
        assert_eq!(steps.next(), first);
        steps.answered();
        let second = steps.next();
        assert_eq!(second.after, Some(first.step.clone()));
        assert_ne!(second.step, first.step);
    }
}
