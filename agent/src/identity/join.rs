//! Joining: redeems the token, and retries while a retry can help.

use devbox_secrets_proto::join_token::JoinToken;
use tokio::time::sleep;
use tracing::warn;

use super::Identity;
use super::enroll::{EnrollError, redeem};
use crate::control_plane::{Backoff, ServerUrl};
use crate::telemetry::chain;

/// Redeems `token`, which is wiped at the end. `failed` is called before each retry.
///
/// # Errors
/// [`EnrollError`] that a retry cannot cure: a used or expired token, another server than the token's.
pub(crate) async fn join(
    url: &ServerUrl,
    token: JoinToken,
    failed: impl Fn(&EnrollError),
) -> Result<Identity, EnrollError> {
    let mut backoff = Backoff::new();
    loop {
        let error = match redeem(url, &token).await {
            Ok(identity) => return Ok(identity),
            Err(error) if error.is_permanent() => return Err(error),
            Err(error) => error,
        };
        failed(&error);
        let delay = backoff.next_delay();
        warn!(error = %chain(&error), retry_in_ms = u64::try_from(delay.as_millis()).ok(), "not joined yet");
        sleep(delay).await;
    }
}
