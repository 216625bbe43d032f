//! One event and one count a launch. Names only at debug level, but for one that is denied; values never.
//!
//! The events of the target `audit` are for machines to read: their fields keep their names.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use devbox_launch_proto::Answer;
use tracing::{Level, debug, enabled, info, warn};

use super::LaunchCounts;
use super::answer::Reply;
use super::failure::Failure;
use crate::peer::Peer;

#[derive(Debug, Default)]
pub(super) struct Counters {
    served: AtomicU64,
    refused: AtomicU64,
    abandoned: AtomicU64,
}

impl Counters {
    pub(super) fn read(&self) -> LaunchCounts {
        LaunchCounts {
            served: self.served.load(Ordering::Relaxed),
            refused: self.refused.load(Ordering::Relaxed),
            abandoned: self.abandoned.load(Ordering::Relaxed),
        }
    }

    pub(super) fn count_refused(&self) {
        self.refused.fetch_add(1, Ordering::Relaxed);
    }
}

/// What a launch got.
#[derive(Debug)]
pub(super) struct Served {
    answer: Answer,
    count: usize,
    revision: u64,
    /// For the log at debug level only.
    names: Option<String>,
}

impl Served {
    pub(super) fn new(answer: Answer, reply: &Reply<'_>) -> Self {
        let names = enabled!(Level::DEBUG).then(|| {
            String::from_utf8_lossy(&reply.selection.names(reply.generation).join(&b' ')).into_owned()
        });
        let count = reply.selection.count(reply.generation);
        Self { answer, count, revision: reply.generation.revision(), names }
    }
}

pub(super) fn report(counters: &Counters, peer: Peer, duration: Duration, outcome: &Result<Served, Failure>) {
    let Peer { uid, gid, pid } = peer;
    let duration_us = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    match outcome {
        Ok(served) => {
            counters.served.fetch_add(1, Ordering::Relaxed);
            let (answer, count, revision) = (word(served.answer), served.count, served.revision);
            info!(target: "audit", uid, gid, pid, count, revision, answer, duration_us, "launch");
            if let Some(names) = &served.names {
                debug!(pid, names, "launch got these variables");
            }
        }
        Err(Failure::Refused(refusal)) => {
            counters.count_refused();
            let (code, reason) = (refusal.code.word(), refusal.text());
            let (name, rules) = (refusal.name(), refusal.reasons());
            // The journal shows people the message alone.
            let why = rules.unwrap_or(reason);
            warn!(target: "audit", uid, gid, pid, code, name, rules, reason, duration_us, "launch refused: {why}");
        }
        Err(Failure::Slow(reason)) => {
            counters.abandoned.fetch_add(1, Ordering::Relaxed);
            warn!(uid, gid, pid, reason, duration_us, "launch abandoned: its launcher is too slow");
        }
        Err(Failure::Gone) => {
            counters.abandoned.fetch_add(1, Ordering::Relaxed);
            debug!(uid, gid, pid, duration_us, "launch abandoned: its launcher went away");
        }
    }
}

const fn word(answer: Answer) -> &'static str {
    match answer {
        Answer::Descriptor => "descriptor",
        Answer::Inline => "inline",
        Answer::Names => "names",
        Answer::Error(_) => "error",
    }
}
