//! What an operator orders: to wipe everything before a snapshot, and to come back.

use std::future::pending;
use std::io;
use std::sync::Arc;

use devbox_secrets_proto::join_token::JoinToken;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::access::peer::Peer;
use crate::identity::{self, Credentials, CredentialsError, Source};
use crate::memory::{Holding, Vault};
use crate::sys::off_thread;

/// Orders that wait for the one before.
const WAITING: usize = 4;

/// Why an order is not carried out.
#[derive(Debug, Error)]
pub enum OrderError {
    /// There is nobody to carry it out.
    #[error("the daemon is stopping: start it again")]
    Stopping,
    /// A launch under way still has values.
    #[error("everything is wiped but for launches under way that still hold values: quiesce again")]
    Held,
    /// The service manager does not say that it has closed what it stored.
    #[error(
        "everything is wiped, but the service manager does not say that it has closed what it stored, whose keys are gone: quiesce \
         again"
    )]
    Stored(#[source] io::Error),
    /// Nothing is to be resumed.
    #[error("the daemon serves secrets as it is: to join anew, quiesce it first (devbox-secretsd quiesce)")]
    Serving,
    /// Standard input is read once.
    #[error("the first join token came from standard input: pass a fresh one (--join-token-file)")]
    NoToken,
    /// The configured identity is not there.
    #[error("the configured identity cannot be had: pass a fresh join token (--join-token-file)")]
    Credentials(#[from] CredentialsError),
}

/// What is ordered.
pub(super) enum Wanted {
    /// That everything is wiped.
    Quiesce,
    /// That the daemon joins with these.
    Resume(Credentials),
}

/// An order, who gave it, and where its end is told.
pub(super) struct Order {
    pub(super) wanted: Wanted,
    pub(super) asker: Peer,
    pub(super) end: End,
}

/// Tells how an order ended.
pub(super) struct End(oneshot::Sender<Result<(), OrderError>>);

impl End {
    /// Who gave the order may have gone.
    pub(super) fn tell(self, outcome: Result<(), OrderError>) {
        let _ = self.0.send(outcome);
    }
}

/// Gives orders to the [`Life`](super::Life) that has the other end.
#[derive(Debug, Clone)]
pub struct Orders {
    sender: mpsc::Sender<Order>,
    vault: Arc<Vault>,
    source: Arc<Source>,
}

/// Where orders arrive.
#[derive(Debug)]
pub struct Arriving {
    receiver: mpsc::Receiver<Order>,
    vault: Arc<Vault>,
}

impl Orders {
    /// Both ends. `source`: where an identity is read when nothing else is said.
    #[must_use]
    pub fn new(vault: Arc<Vault>, source: Source) -> (Self, Arriving) {
        let (sender, receiver) = mpsc::channel(WAITING);
        let arriving = Arriving { receiver, vault: Arc::clone(&vault) };
        (Self { sender, vault, source: Arc::new(source) }, arriving)
    }

    /// Has every value and every key wiped, here and in the file-descriptor store. They are gone when this returns. `asker` is for
    /// the audit.
    ///
    /// # Errors
    /// [`OrderError::Held`], [`OrderError::Stored`], [`OrderError::Stopping`].
    pub async fn quiesce(&self, asker: Peer) -> Result<(), OrderError> {
        self.give(asker, Wanted::Quiesce).await
    }

    /// Has the daemon join with `token`, or with the configured identity where there is none, whatever it did before, unless it
    /// serves. It has begun to when this returns. `asker` is for the audit.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn resume(&self, asker: Peer, token: Option<JoinToken>) -> Result<(), OrderError> {
        if serves(&self.vault) {
            return Err(OrderError::Serving);
        }
        let credentials = match (token, &*self.source) {
            (Some(token), _) => Credentials::Token(token),
            (None, Source::JoinToken(None)) => return Err(OrderError::NoToken),
            (None, _) => {
                let source = Arc::clone(&self.source);
                off_thread(move || identity::read_again(&source)).await?
            }
        };
        self.give(asker, Wanted::Resume(credentials)).await
    }

    async fn give(&self, asker: Peer, wanted: Wanted) -> Result<(), OrderError> {
        let (end, told) = oneshot::channel();
        let order = Order { wanted, asker, end: End(end) };
        self.sender.send(order).await.map_err(|_| OrderError::Stopping)?;
        told.await.unwrap_or(Err(OrderError::Stopping))
    }
}

impl Arriving {
    /// The next one that is to be carried out; never where nobody can give one any more. May be dropped at any time.
    pub(super) async fn next(&mut self) -> Order {
        loop {
            let Some(order) = self.receiver.recv().await else { return pending().await };
            // It waited, and the secrets have come meanwhile: as good as too late.
            if matches!(order.wanted, Wanted::Resume(_)) && serves(&self.vault) {
                order.end.tell(Err(OrderError::Serving));
                continue;
            }
            return order;
        }
    }
}

fn serves(vault: &Vault) -> bool {
    matches!(vault.holding(), Holding::Ready { .. })
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use devbox_secrets_proto::secret::SecretBytes;
    use tokio::task::yield_now;

    use super::*;
    use crate::memory::test_support::SealedBundle;
    use crate::sys::BootTime;
    use crate::sys::test_support::memories;

    const OPERATOR: Peer = Peer { uid: 0, gid: 0, pid: 1 };

    #[tokio::test]
    async fn a_resume_that_waited_until_the_secrets_came_disturbs_nobody() {
        let vault = Arc::new(Vault::new("joining"));
        let (orders, mut arriving) = Orders::new(Arc::clone(&vault), Source::JoinToken(None));
        let token = JoinToken::new("dbx_1", SecretBytes::new(b"secret".to_vec()), [0; 32]).unwrap();
        let given = tokio::spawn(async move { orders.resume(OPERATOR, Some(token)).await });
        while arriving.receiver.is_empty() {
            yield_now().await;
        }
        let generation = SealedBundle::new(1, &[("A", b"one")]).open(&memories()[0]).unwrap();
        vault.replace(generation, BootTime::now() + Duration::from_secs(60));
        let outcome = tokio::select! {
            outcome = given => outcome.unwrap(),
            _ = arriving.next() => panic!("the daemon would leave what it serves"),
        };
        assert!(matches!(outcome, Err(OrderError::Serving)), "{outcome:?}");
    }
}
