//! A status as a table.

use std::fmt::{self, Display, Write};

use devbox_secrets_common::config::print_size;

use super::{Status, Variable};
use crate::access::policy::table::columns;
use crate::harden::Step;
use crate::machine::CloneDetection;
use crate::restart::Stored;
use crate::sys::now_ms;

/// Prints a status as aligned lines, then one line a variable.
#[must_use]
pub fn print(status: &Status) -> String {
    let mut out = String::new();
    // Writing to a String does not fail.
    let _ = write_status(&mut out, status);
    out
}

fn write_status(out: &mut String, status: &Status) -> fmt::Result {
    let state = status.reason.as_ref().map_or_else(
        || status.state.word().to_owned(),
        |reason| format!("{}: {reason}", status.state.word()),
    );
    line(out, "state", state)?;
    line(out, "devbox", status.devbox_id.as_deref().unwrap_or("not joined yet"))?;
    line(out, "server", &status.server)?;
    line(out, "revision", or_none(status.revision))?;
    line(
        out,
        "last sync",
        status.last_sync_age.map_or("never".to_owned(), |age| format!("{} ago", span(age.as_secs()))),
    )?;
    if let Some(error) = &status.last_error {
        let since = u64::try_from((now_ms() - error.since_ms) / 1_000).unwrap_or(0);
        line(out, "failing", format!("for {}: {}", span(since), error.message))?;
    }
    line(out, "lease left", status.lease_left.map_or("none".to_owned(), |left| span(left.as_secs())))?;
    line(out, "certificate", status.certificate_expires_ms.map_or("none".to_owned(), expiry))?;
    write_process(out, status)?;
    write_variables(out, &status.secrets)
}

fn write_process(out: &mut String, status: &Status) -> fmt::Result {
    let memory = &status.memory;
    let locked = format!("{}, {} locked", memory.backing, print_size(memory.bytes_locked));
    let fallback = memory.fallback_reason.as_ref().map_or_else(String::new, |reason| format!(" ({reason})"));
    line(out, "memory", locked + &fallback)?;
    status.hardening.steps().try_for_each(|(name, found)| line(out, name, step(found)))?;
    line(out, "clones", clones(&status.clone_detection))?;
    line(out, "restart", restart(status.restart))?;
    line(out, "launches", format!("{} served, {} refused", status.launches.served, status.launches.refused))?;
    line(out, "version", &status.version)
}

fn write_variables(out: &mut String, variables: &[Variable]) -> fmt::Result {
    let row = |v: &Variable| [v.env.clone(), v.secret.clone(), v.version.to_string()];
    let rows: Vec<[String; 3]> = variables.iter().map(row).collect();
    write!(out, "\n{}", columns(["NAME", "SECRET", "VERSION"], &rows))
}

fn line(out: &mut String, name: &str, value: impl Display) -> fmt::Result {
    writeln!(out, "{name:<12} {value}")
}

fn or_none(number: Option<u64>) -> String {
    number.map_or_else(|| "none".to_owned(), |number| number.to_string())
}

fn step(step: &Step) -> String {
    match (&step.reason, &step.detail) {
        (Some(reason), _) => format!("NOT: {reason}"),
        (None, Some(detail)) => format!("yes: {detail}"),
        (None, None) => "yes".to_owned(),
    }
}

fn clones(detection: &CloneDetection) -> String {
    let CloneDetection { machine_id, boot_id, vm_generation } = *detection;
    let words = [(machine_id, "machine id"), (boot_id, "boot id"), (vm_generation, "VM generation")];
    let watched: Vec<&str> = words.iter().filter(|(is, _)| *is).map(|(_, word)| *word).collect();
    match watched.as_slice() {
        [] => "noticed by the control plane only".to_owned(),
        watched => format!("noticed by {}, and by the control plane", watched.join(", ")),
    }
}

fn restart(restart: Stored) -> String {
    match (restart.identity, restart.secrets_revision) {
        (false, None) => "needs the control plane: nothing waits in the file-descriptor store".to_owned(),
        (true, None) => "identity waits in the file-descriptor store".to_owned(),
        (false, Some(revision)) => {
            format!("secrets of revision {revision} wait in the file-descriptor store")
        }
        (true, Some(revision)) => {
            format!("identity and secrets of revision {revision} wait in the file-descriptor store")
        }
    }
}

fn expiry(at_ms: i64) -> String {
    match u64::try_from((at_ms - now_ms()) / 1_000) {
        Ok(left) => format!("expires in {}", span(left)),
        Err(_) => "expired".to_owned(),
    }
}

fn span(seconds: u64) -> String {
    let units = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];
    let first = units.iter().position(|(_, unit)| seconds >= *unit).unwrap_or(units.len() - 1);
    let parts = units[first..].iter().take(2).scan(seconds, |rest, (name, unit)| {
        let count = *rest / unit;
        *rest %= unit;
        Some(format!("{count} {name}"))
    });
    parts.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_have_their_two_largest_units() {
        assert_eq!(span(0), "0 s");
        assert_eq!(span(59), "59 s");
        assert_eq!(span(3_600), "1 h 0 m");
        assert_eq!(span(90_061), "1 d 1 h");
    }

    #[test]
    fn the_state_for_a_restart_is_shown() {
        let told = |identity, secrets_revision| restart(Stored { identity, secrets_revision });
        assert!(told(false, None).contains("nothing waits"));
        assert!(told(true, None).starts_with("identity waits"));
        assert!(told(true, Some(7)).starts_with("identity and secrets of revision 7 wait"));
    }
}
