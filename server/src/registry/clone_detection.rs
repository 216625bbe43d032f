//! Only one machine may use an identity. Platforms start many machines from one snapshot, all with
//! the same certificate. So each bundle request carries a nonce of its own and the last
//! acknowledged one ([`Continuity`]). The chains of two machines diverge at their first separate
//! step: the first machine to advance keeps the identity, and the other is refused.
//!
//! A step does not authenticate a devbox; its certificate does.

use std::net::IpAddr;

use data_encoding::HEXLOWER_PERMISSIVE;
use devbox_secrets_proto::devbox::{BOOT_LEN, CONTINUED_ELSEWHERE, Continuity, IN_USE_ELSEWHERE, STEP_LEN};

use super::Refusal;

type Step = [u8; STEP_LEN / 2];

/// A well-formed [`Continuity`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Link {
    boot: [u8; BOOT_LEN / 2],
    after: Option<Step>,
    step: Step,
}

impl Link {
    /// # Errors
    /// 400, which names the field.
    pub(super) fn parse(continuity: &Continuity) -> Result<Self, Refusal> {
        let after = continuity.after.as_deref().map(|after| binary("after", after)).transpose()?;
        let boot = binary("boot", &continuity.boot)?;
        Ok(Self { boot, after, step: binary("step", &continuity.step)? })
    }
}

fn binary<const N: usize>(field: &'static str, text: &str) -> Result<[u8; N], Refusal> {
    from_hex(text).ok_or_else(|| {
        let message = format!("continuity.{field} is not {} hexadecimal digits", 2 * N);
        Refusal::invalid("invalid_continuity", message)
    })
}

fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    if text.len() != 2 * N {
        return None;
    }
    HEXLOWER_PERMISSIVE.decode_mut(text.as_bytes(), &mut bytes).ok()?;
    Some(bytes)
}

/// The last accepted use of an identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastUse {
    pub(super) link: Link,
    pub(super) remote: Option<IpAddr>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// Another machine has continued the chain.
    Continued,
    /// Another machine has the identity in use. It may be the same one before its reset.
    InUse,
}

impl Elsewhere {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Continued => Refusal::forbidden(
                CONTINUED_ELSEWHERE,
                "another machine has continued with this devbox's identity, so this one is a copy: register a devbox for it, or move \
                 the identity here with a new join token (devbox-secrets-server devbox join-token ID)",
            ),
            Self::InUse => in_use(),
        }
    }
}

pub(super) fn in_use() -> Refusal {
    Refusal::forbidden(
        IN_USE_ELSEWHERE,
        "another machine has this devbox's identity in use: if it is this one before its reset, this passes within half a \
         minute; else register a devbox for each machine",
    )
}

/// Whether the request `new` is accepted, given the last accepted use and whether its connection is
/// open.
///
/// A restarted daemon has the same boot id and address. The boot id alone is not enough, because a
/// copy of the memory has it too.
pub(super) fn judge(known: Option<&LastUse>, in_use: bool, new: &LastUse) -> Result<(), Elsewhere> {
    let Some(known) = known else { return Ok(()) };
    let old = &known.link;
    let link = &new.link;
    let same_machine = old.boot == link.boot && known.remote == new.remote;
    match link.after {
        // The same step again: its response was lost.
        after if after == old.after && link.step == old.step => Ok(()),
        Some(after) if after == old.step => Ok(()),
        Some(_) => Err(Elsewhere::Continued),
        None if in_use && !same_machine => Err(Elsewhere::InUse),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
