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
use crate::crypto::id::DevboxId;
use crate::crypto::{ApiToken, JoinSecret};
use crate::store::{Store, StoreError, UsableToken};

/// Shortest time from one read to the next.
const PAUSE: Duration = Duration::from_secs(1);
/// The same, in multiples of the last read's time.
const REST: u32 = 10;

#[derive(Debug, Default)]
pub(super) struct Expected(Mutex<Snapshot>);

#[derive(Debug, Default)]
struct Snapshot {
    tokens: HashSet<UsableToken>,
    /// The read that found them.
    read: Option<Read>,
    /// The earliest time of the next read.
    next: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Read {
    start: Instant,
    /// Until then its tokens are those of a moment ago.
    end: Instant,
}

impl Expected {
    /// Whether `token` was usable in a read that started after this call, or a moment before it.
    async fn has(&self, token: &UsableToken, store: &dyn Store) -> Result<bool, StoreError> {
        let asked = Instant::now();
        // Callers queue here, so that the first one reads for all that wait.
        let mut snapshot = self.0.lock().await;
        let found = snapshot.tokens.contains(token);
        // An older read must not let a revoked token pass for as long as no other one is guessed.
        if found && snapshot.read.is_some_and(|read| asked < read.end) {
            return Ok(true);
        }
        if snapshot.read.is_none_or(|read| read.start < asked) {
            snapshot.renew(store).await?;
        }
        Ok(snapshot.tokens.contains(token))
    }
}

impl Snapshot {
    /// A caller that hangs up meanwhile leaves the last read as it was.
    async fn renew(&mut self, store: &dyn Store) -> Result<(), StoreError> {
        if let Some(next) = self.next {
            sleep_until(next).await;
        }
        let start = Instant::now();
        self.next = Some(start + PAUSE);
        let found = store.usable_tokens(now_ms()).await;
        let end = start + PAUSE.max(start.elapsed() * REST);
        // A read that fails counts too.
        self.next = Some(end);
        self.read = Some(Read { start, end });
        self.tokens.clear();
        self.tokens = found?;
        Ok(())
    }
}

impl Registry {
    /// Whether `bearer` is an API token that may be used. It takes up to a second or two, and
    /// proves nothing: authenticate then.
    pub(crate) async fn expects_api_token(&self, bearer: &SecretBytes) -> bool {
        match ApiToken::hash_presented(bearer) {
            Ok(hash) => self.expects(&UsableToken::Api(hash)).await,
            Err(_) => false,
        }
    }

    /// As [`Self::expects_api_token`], for a join token. One of another devbox does not count.
    pub(crate) async fn expects_join_token(&self, bearer: &SecretBytes) -> bool {
        match JoinToken::parse(bearer.expose_secret()) {
            Ok(token) => {
                let hash = JoinSecret::hash_presented(token.secret());
                self.expects(&UsableToken::Join(DevboxId::new(token.devbox_id()), hash)).await
            }
            Err(_) => false,
        }
    }

    async fn expects(&self, token: &UsableToken) -> bool {
        self.0.expected.has(token, self.store()).await.unwrap_or_else(|error| {
            tracing::warn!(
                error = &error as &dyn std::error::Error,
                "could not read which tokens are usable"
            );
            false
        })
    }
}
