//! What an operator orders: to wipe everything before a snapshot, and to come back.

use std::sync::Arc;

use devbox_secrets_proto::join_token::JoinToken;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::identity::{self, Credentials, CredentialsError, Source};
use crate::memory::{Holding, Vault};

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

/// An order, and where its end is told.
pub(super) enum Order {
    /// To wipe everything.
    Quiesce(oneshot::Sender<Result<(), OrderError>>),
    /// To join with these.
    Resume(Credentials, oneshot::Sender<Result<(), OrderError>>),
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
pub struct Arriving(mpsc::Receiver<Order>);

impl Orders {
    /// Both ends. `source`: where an identity is read when nothing else is said.
    #[must_use]
    pub fn new(vault: Arc<Vault>, source: Source) -> (Self, Arriving) {
        let (sender, receiver) = mpsc::channel(WAITING);
        (Self { sender, vault, source: Arc::new(source) }, Arriving(receiver))
    }

    /// Has every value and every key wiped, here and in the file-descriptor store. They are gone when this returns.
    ///
    /// # Errors
    /// [`OrderError::Held`], [`OrderError::Stopping`].
    pub async fn quiesce(&self) -> Result<(), OrderError> {
        self.give(Order::Quiesce).await
    }

    /// Has the daemon join with `token`, or with the configured identity where there is none, whatever it did before, unless it
    /// serves. It has begun to when this returns.
    ///
    /// # Errors
    /// [`OrderError`].
    pub async fn resume(&self, token: Option<JoinToken>) -> Result<(), OrderError> {
        if matches!(self.vault.holding(), Holding::Ready { .. }) {
            return Err(OrderError::Serving);
        }
        let credentials = match (token, &*self.source) {
            (Some(token), _) => Credentials::Token(token),
            (None, Source::JoinToken(None)) => return Err(OrderError::NoToken),
            (None, source) => identity::read(source)?,
        };
        self.give(|done| Order::Resume(credentials, done)).await
    }

    async fn give(
        &self,
        order: impl FnOnce(oneshot::Sender<Result<(), OrderError>>) -> Order,
    ) -> Result<(), OrderError> {
        let (done, told) = oneshot::channel();
        self.sender.send(order(done)).await.map_err(|_| OrderError::Stopping)?;
        told.await.unwrap_or(Err(OrderError::Stopping))
    }
}

impl Arriving {
    /// The next one; never where nobody can give one any more.
    pub(super) async fn next(&mut self) -> Order {
        match self.0.recv().await {
            Some(order) => order,
            None => std::future::pending().await,
        }
    }
}
