//! Operators' commands: quiesce wipes everything before a snapshot, resume joins again.

use std::future::pending;
use std::io;
use std::sync::Arc;

use devbox_secrets_proto::join_token::JoinToken;
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};

use crate::access::peer::Peer;
use crate::identity::{self, InitialIdentity, InitialIdentityError, Source};
use crate::memory::{Holding, Vault};
use crate::sys::off_thread;

/// Commands that wait for the one before.
const QUEUED: usize = 4;

#[derive(Debug, Error)]
pub(crate) enum CommandError {
    #[error("the daemon is stopping: start it again")]
    Stopping,
    #[error("everything is wiped except the values of launches in progress: quiesce again")]
    LaunchesInProgress,
    #[error(
        "everything is wiped, but the service manager does not confirm that it has closed the stored descriptors, whose keys \
         are gone: quiesce again"
    )]
    Stored(#[source] io::Error),
    #[error("the daemon is serving secrets: to join again, quiesce it first (devbox-secretsd quiesce)")]
    Serving,
    #[error("the first join token came from standard input: pass a fresh one (--join-token-file)")]
    NoToken,
    #[error("the configured identity is unavailable: pass a fresh join token (--join-token-file)")]
    Identity(#[from] InitialIdentityError),
}

pub(super) struct Command {
    pub(super) action: Action,
    pub(super) asker: Peer,
    pub(super) reply: Reply,
}

pub(super) enum Action {
    Quiesce,
    Resume(InitialIdentity),
}

/// Returns a command's outcome to the operator.
pub(super) struct Reply(oneshot::Sender<Result<(), CommandError>>);

impl Reply {
    pub(super) fn send(self, outcome: Result<(), CommandError>) {
        // The operator may have gone: the command is carried out all the same.
        let _ = self.0.send(outcome);
    }
}

/// Sends commands to the [`Lifecycle`](super::Lifecycle) that has the other end.
#[derive(Debug, Clone)]
pub(crate) struct Commands {
    sender: mpsc::Sender<Command>,
    vault: Arc<Vault>,
    source: Arc<Source>,
}

#[derive(Debug)]
pub(crate) struct CommandQueue {
    receiver: mpsc::Receiver<Command>,
    vault: Arc<Vault>,
}

impl Commands {
    /// Both ends. `source`: the identity to resume with when no token is passed.
    #[must_use]
    pub(crate) fn new(vault: Arc<Vault>, source: Source) -> (Self, CommandQueue) {
        let (sender, receiver) = mpsc::channel(QUEUED);
        let queue = CommandQueue { receiver, vault: Arc::clone(&vault) };
        (Self { sender, vault, source: Arc::new(source) }, queue)
    }

    /// Wipes every value and every key, here and in the file-descriptor store. They are gone when this returns. `asker` is for
    /// the audit.
    ///
    /// # Errors
    /// [`CommandError::LaunchesInProgress`], [`CommandError::Stored`], [`CommandError::Stopping`].
    pub(crate) async fn quiesce(&self, asker: Peer) -> Result<(), CommandError> {
        self.send(asker, Action::Quiesce).await
    }

    /// Joins with `token`, or without one with the configured identity, in any state but serving. Returns once joining has
    /// started. `asker` is for the audit.
    ///
    /// # Errors
    /// [`CommandError`].
    pub(crate) async fn resume(&self, asker: Peer, token: Option<JoinToken>) -> Result<(), CommandError> {
        if serves(&self.vault) {
            return Err(CommandError::Serving);
        }
        let identity = match (token, &*self.source) {
            (Some(token), _) => InitialIdentity::Token(token),
            (None, Source::JoinToken(None)) => return Err(CommandError::NoToken),
            (None, _) => {
                let source = Arc::clone(&self.source);
                off_thread(move || identity::read_again(&source)).await?
            }
        };
        self.send(asker, Action::Resume(identity)).await
    }

    async fn send(&self, asker: Peer, action: Action) -> Result<(), CommandError> {
        let (reply, outcome) = oneshot::channel();
        let command = Command { action, asker, reply: Reply(reply) };
        // An error here means that the lifecycle has ended, and the daemon with it.
        self.sender.send(command).await.map_err(|_| CommandError::Stopping)?;
        outcome.await.unwrap_or(Err(CommandError::Stopping))
    }
}

impl CommandQueue {
    /// Waits for the next command; for ever once no sender is left. Cancel-safe.
    pub(super) async fn next(&mut self) -> Command {
        loop {
            let Some(command) = self.receiver.recv().await else { return pending().await };
            // The resume waited in the queue and the secrets arrived meanwhile: joining again would interrupt service.
            if matches!(command.action, Action::Resume(_)) && serves(&self.vault) {
                command.reply.send(Err(CommandError::Serving));
                continue;
            }
            return command;
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
    use devbox_secrets_tests::wait::yielding;

    use super::*;
    use crate::memory::test_support::SealedBundle;
    use crate::sys::BootTime;
    use crate::sys::test_support::memories;

    const OPERATOR: Peer = Peer { uid: 0, gid: 0, pid: 1 };

    #[tokio::test]
    async fn a_resume_that_is_overtaken_by_the_secrets_does_not_interrupt_service() {
        let vault = Arc::new(Vault::new("joining"));
        let (commands, mut queue) = Commands::new(Arc::clone(&vault), Source::JoinToken(None));
        let token = JoinToken::new("dbx_1", SecretBytes::new(b"secret".to_vec()), [0; 32]).unwrap();
        let given = tokio::spawn(async move { commands.resume(OPERATOR, Some(token)).await });
        yielding("the command to arrive", || !queue.receiver.is_empty()).await;
        let generation = SealedBundle::new(1, &[("A", b"one")]).open(&memories()[0]).unwrap();
        vault.replace(generation, BootTime::now() + Duration::from_secs(60));
        let outcome = tokio::select! {
            outcome = given => outcome.unwrap(),
            _ = queue.next() => panic!("the daemon would drop the secrets that it serves"),
        };
        assert!(matches!(outcome, Err(CommandError::Serving)), "{outcome:?}");
    }
}
