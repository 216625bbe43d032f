//! One identity in one place. Platforms start many machines from one snapshot, and all of them show one certificate. So each
//! bundle request says how it follows on the last one ([`Continuity`]): two machines that go on with one identity differ
//! from their first step apart, the first of them is believed, and the other is refused from then on.
//!
//! A step is no secret that lets anybody in: that is the certificate's part.

use std::net::IpAddr;

use devbox_secrets_proto::devbox::{BOOT_LEN, CONTINUED_ELSEWHERE, Continuity, IN_USE_ELSEWHERE, STEP_LEN};

use super::Refusal;

/// A step in binary.
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
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digit = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(bytes)
}

/// Where an identity was last seen to go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct LastUse {
    pub(super) link: Link,
    pub(super) remote: Option<IpAddr>,
}

/// Why a request is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// Another machine has gone on.
    Continued,
    /// Another machine has the identity in use. It may be the same one before its reset.
    InUse,
}

impl Elsewhere {
    pub(super) fn refusal(self) -> Refusal {
        match self {
            Self::Continued => Refusal::forbidden(
                CONTINUED_ELSEWHERE,
                "another machine goes on with this devbox's identity, so this one is a copy: register a devbox for it, or move \
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

/// Whether the request `new` may go on, given who was believed last and whether that one's connection lives.
///
/// A daemon's restart is known by its boot and its address: a copy of the memory has the boot too.
pub(super) fn judge(known: Option<&LastUse>, in_use: bool, new: &LastUse) -> Result<(), Elsewhere> {
    let Some(known) = known else { return Ok(()) };
    let (old, link) = (&known.link, &new.link);
    let same_machine = old.boot == link.boot && known.remote == new.remote;
    match link.after {
        // The same step again: its answer was lost.
        after if after == old.after && link.step == old.step => Ok(()),
        Some(after) if after == old.step => Ok(()),
        Some(_) => Err(Elsewhere::Continued),
        None if in_use && !same_machine => Err(Elsewhere::InUse),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests;
