//! The audit's events about this devbox's identity and secrets.

use std::fmt::Display;

use crate::access::peer::Peer;
use crate::identity::Identity;
use crate::memory::Generation;
use crate::telemetry::audit::{Kind, audit};

/// Longest list of names in one event, in bytes: a longer one takes several.
const MAX_NAMES: usize = 16 * 1024;

/// Logs that `generation` is held from now on, and its names. `source`: the control plane, or a
/// predecessor's state.
pub(super) fn report_bundle(generation: &Generation, source: &dyn Display) {
    let names: Vec<&str> = generation.variables().map(|variable| variable.name).collect();
    let parts = parts(&names);
    for (index, part) in parts.iter().enumerate() {
        audit!(
            info,
            Kind::Bundle,
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

/// As few parts as hold the names, in order; one if there are no names.
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
    audit!(
        info,
        Kind::Join,
        devbox = identity.devbox_id(),
        not_after_ms = identity.validity().not_after_ms,
        source = %server,
        "joined"
    );
}

pub(super) fn report_renewal(identity: &Identity) {
    audit!(
        info,
        Kind::Renewal,
        devbox = identity.devbox_id(),
        not_after_ms = identity.validity().not_after_ms,
        "certificate renewed"
    );
}

/// Logs a command of `asker`, once it is done: a [`Kind`] of its own, and a sentence.
pub(super) fn report_command(kind: Kind, asker: Peer, done: &str) {
    audit!(info, kind, peer = asker, "{done}");
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
