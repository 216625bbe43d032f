//! Conditions with a deadline.

use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

/// How long anything in a test may take, on a loaded machine with programs that are not optimised.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// The same for another program's whole test run: an API fuzzer, an SDK.
pub const LONG_DEADLINE: Duration = Duration::from_secs(120);

const LOOK_AGAIN: Duration = Duration::from_millis(10);

/// Looks again and again until `probe` finds something.
///
/// # Panics
/// After [`DEADLINE`]; the message names `what`.
pub async fn until<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(Instant::now() < deadline, "waited {DEADLINE:?} for {what}, which did not come");
        sleep(LOOK_AGAIN).await;
    }
}

/// Yields to other tasks of the runtime until `probe` holds. For tests whose clock is paused, and for such as go on at the very
/// moment.
///
/// # Panics
/// After [`DEADLINE`] of real time; the message names `what`.
pub async fn yielding(what: &str, probe: impl Fn() -> bool) {
    let deadline = std::time::Instant::now() + DEADLINE;
    while !probe() {
        assert!(std::time::Instant::now() < deadline, "waited {DEADLINE:?} for {what}, which did not come");
        tokio::task::yield_now().await;
    }
}

/// Waits for `future`.
///
/// # Panics
/// After [`DEADLINE`]; the message names `what`.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    within_limit(DEADLINE, what, future).await
}

/// Waits for `future`.
///
/// # Panics
/// After `limit`; the message names `what`.
pub async fn within_limit<T>(limit: Duration, what: &str, future: impl Future<Output = T>) -> T {
    timeout(limit, future).await.unwrap_or_else(|_| panic!("waited {limit:?} for {what}, which did not come"))
}
