//! `[limits]`: how much of the server one account, devbox or API token may use.
//!
//! A use beyond a budget is refused by the budget's name. A state that was written under larger
//! budgets can still be read and cleared.

use std::time::Duration;

use devbox_secrets_common::config::Section;

/// A token bucket: `burst` at once, then one every `interval`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// How long one use takes to come back.
    pub interval: Duration,
    /// Most uses at once, at least 1.
    pub burst: u32,
}

impl Rate {
    /// `count` uses in `period`, and `burst` at once.
    pub(crate) fn per(period: Duration, count: u32, burst: u32) -> Self {
        Self { interval: period / count.max(1), burst: burst.max(1) }
    }
}

/// The budgets. Sizes are in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Secrets of an account.
    pub secrets: u64,
    /// Stored bytes of an account's values: each value has 29 more than its own.
    pub value_bytes: u64,
    /// Running devboxes of an account.
    pub devboxes: u64,
    /// API tokens of an account that are neither revoked nor expired.
    pub tokens: u64,
    /// Bindings of one devbox.
    pub bindings: u64,
    /// One devbox's bundle: a secret under many names counts each time.
    pub bundle_bytes: u64,
    /// Metadata of one devbox, keys and values.
    pub metadata_bytes: u64,
    /// Requests with one API token.
    pub requests: Rate,
    /// Bundle requests of one devbox.
    pub bundles: Rate,
    /// Certificate renewals of one devbox.
    pub renewals: Rate,
    /// Values that are being sealed or sent, of all devboxes together. One account gets at most a
    /// sixteenth, or one bundle.
    pub bytes_in_flight: u64,
    /// Audit rows of one account's deliveries in a minute; further deliveries are counted in one
    /// row.
    pub delivery_rows: u32,
}

const MIB: u64 = 1024 * 1024;
const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

impl Default for Limits {
    fn default() -> Self {
        Self {
            secrets: 10_000,
            value_bytes: 256 * MIB,
            devboxes: 10_000,
            tokens: 1_000,
            bindings: 1_000,
            bundle_bytes: 8 * MIB,
            metadata_bytes: 16 * 1024,
            requests: Rate::per(SECOND, 200, 2_000),
            bundles: Rate::per(SECOND, 10, 100),
            renewals: Rate::per(HOUR, 60, 10),
            bytes_in_flight: 128 * MIB,
            delivery_rows: 600,
        }
    }
}

pub(super) fn limits(section: &mut Section<'_, '_>) -> Limits {
    let default = Limits::default();
    let limits = Limits {
        secrets: section.number("secrets_per_account", default.secrets),
        value_bytes: section.number("value_bytes_per_account", default.value_bytes),
        devboxes: section.number("devboxes_per_account", default.devboxes),
        tokens: section.number("tokens_per_account", default.tokens),
        bindings: section.number("bindings_per_devbox", default.bindings),
        bundle_bytes: section.number("bundle_bytes", default.bundle_bytes),
        metadata_bytes: section.number("metadata_bytes_per_devbox", default.metadata_bytes),
        requests: rate(section, SECOND, ["requests_per_second", "requests_burst"], default.requests),
        bundles: rate(section, SECOND, ["bundles_per_second", "bundles_burst"], default.bundles),
        renewals: rate(section, HOUR, ["renewals_per_hour", "renewals_burst"], default.renewals),
        bytes_in_flight: section.number("bytes_in_flight", default.bytes_in_flight),
        delivery_rows: section.number("delivery_rows_per_minute", default.delivery_rows),
    };
    if limits.bytes_in_flight / 4 < limits.bundle_bytes {
        section.mistake(
            "bytes_in_flight",
            "at least 4 times bundle_bytes, so that an account's quarter holds a whole bundle",
        );
    }
    limits
}

fn rate(section: &mut Section<'_, '_>, period: Duration, keys: [&'static str; 2], default: Rate) -> Rate {
    let [count, burst] = keys;
    let usual = u32::try_from(period.as_nanos() / default.interval.as_nanos().max(1)).unwrap_or(u32::MAX);
    Rate::per(period, section.number(count, usual), section.number(burst, default.burst))
}
