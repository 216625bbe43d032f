//! The audit's events about what this devbox is, and what it holds.

use std::fmt::Display;

use tracing::info;

use crate::access::peer::Peer;
use crate::identity::Identity;
use crate::memory::Generation;
use crate::telemetry::audit::{Kind, TARGET};

/// Longest list of names in one event, in bytes: a longer one takes several.
const MAX_NAMES: usize = 16 * 1024;

/// Tells that `generation` is held from now on, and which names it has. `source`: the control plane, or what a predecessor
/// left.
pub(super) fn report_bundle(generation: &Generation, source: &dyn Display) {
    let names: Vec<&str> = generation.variables().map(|variable| variable.name).collect();
    let parts = parts(&names);
    for (index, part) in parts.iter().enumerate() {
        info!(
            target: TARGET,
            event = Kind::Bundle.word(),
            revision = generation.revision(),
            names = part.join(" "),
            count = names.len(),
            part = index + 1,
            parts = parts.len(),
            source = %source,
            "secrets taken up"
        );
    }
}

/// As few parts as hold the names, in order; one where there are none.
fn parts<'a, 'n>(names: &'a [&'n str]) -> Vec<&'a [&'n str]> {
    let mut parts = Vec::new();
    let (mut start, mut len) = (0, 0);
    for (index, name) in names.iter().enumerate() {
        if len + name.len() > MAX_NAMES {
            parts.push(&names[start..index]);
            (start, len) = (index, 0);
        }
        len += name.len() + 1;
    }
    parts.push(&names[start..]);
    parts
}

pub(super) fn report_join(identity: &Identity, server: &dyn Display) {
    info!(
        target: TARGET,
        event = Kind::Join.word(),
        devbox = identity.devbox_id(),
        not_after_ms = identity.validity().not_after_ms,
        source = %server,
        "joined"
    );
}

pub(super) fn report_renewal(identity: &Identity) {
    info!(
        target: TARGET,
        event = Kind::Renewal.word(),
        devbox = identity.devbox_id(),
        not_after_ms = identity.validity().not_after_ms,
        "certificate renewed"
    );
}

/// Tells what `asker` ordered, once it is done: a [`Kind`] of its own, and a sentence.
pub(super) fn report_command(kind: Kind, asker: Peer, done: &str) {
    let Peer { uid, gid, pid } = asker;
    info!(target: TARGET, event = kind.word(), uid, gid, pid, "{done}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_in_one_part_and_no_part_is_too_long() {
        let names: Vec<String> = (0..5_000).map(|number| format!("NAME_{number:0>20}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let parts = parts(&names);
        assert!(parts.len() > 1 && parts.iter().all(|part| part.join(" ").len() <= MAX_NAMES));
        assert_eq!(parts.concat(), names);
        assert_eq!(super::parts(&[]), [&[] as &[&str]]);
    }
}
