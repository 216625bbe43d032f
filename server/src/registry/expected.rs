//! Tokens that were good a moment ago. A caller whose address failed too often is let through with
//! one of them, and is then authenticated like any other: a valid token is never refused for
//! guesses of strangers behind the same address.
//!
//! There is at most one read of the database a second, however many guesses arrive, and longer
//! pauses if a read takes long.

use std::collections::HashSet;
use std::time::Duration;

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use tokio::sync::Mutex;
use tokio::time::{Instant, sleep_until};

use super::Registry;
use crate::clock::now_ms;
use crate::crypto::{ApiToken, JoinSecret, TokenHash};
use crate::store::{Store, StoreError};

/// Shortest time from one read to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// The same, in multiples of the last read's time.
const REST: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct Expected(Mutex<Snapshot>);

#[derive(Debug, Default)]
struct Snapshot {
    hashes: HashSet<TokenHash>,
    read: Option<Read>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    start: Instant,
    next: Instant,
}

impl Expected {
    /// Whether a read that started after this call finds `token`, or an earlier one found it.
    async fn has(&self, token: TokenHash, store: &dyn Store) -> Result<bool, StoreError> {
        let asked = Instant::now();
        // Callers queue here, so that the first one reads for all that wait.
        let mut snapshot = self.0.lock().await;
        if snapshot.hashes.contains(&token) {
            return Ok(true);
        }
        if snapshot.read.is_none_or(|read| read.start < asked) {
            snapshot.renew(store).await?;
        }
        Ok(snapshot.hashes.contains(&token))
    }
}

impl Snapshot {
    async fn renew(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        if let Some(read) = self.read {
            sleep_until(read.next).await;
        }
        let start = Instant::now();
        // A read that fails counts too.
        self.read = Some(Read { start, next: start + PAUSE });
        self.hashes = store.usable_tokens(now_ms()).await?;
        self.read = Some(Read { start, next: start + PAUSE.max(start.elapsed() * REST) });
        Ok(())
    }
}

impl Registry {
    /// Whether `bearer` is an API token that may be used. It takes up to a second or two, and
    /// proves nothing: authenticate then.
    pub async fn expects_api_token(&self, bearer: &SecretBytes) -> bool {
        match ApiToken::hash_presented(bearer) {
            Ok(hash) => self.expects(hash).await,
            Err(_) => false,
        }
    }

    /// As [`Self::expects_api_token`], for a join token.
    pub async fn expects_join_token(&self, bearer: &SecretBytes) -> bool {
        match JoinToken::parse(bearer.expose_secret()) {
            Ok(token) => self.expects(JoinSecret::hash_presented(token.secret())).await,
            Err(_) => false,
        }
    }

    async fn expects(&self, token: TokenHash) -> bool {
        self.0.expected.has(token, self.store()).await.unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not read which tokens are usable"
            );
            false
        })
    }
}
