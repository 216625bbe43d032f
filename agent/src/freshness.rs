//! Freshness: whether the vault's secrets are those that the control plane would send now. Checked before each answer to a launch
//! or a unit.
//!
//! A process may be stopped: SIGSTOP, a frozen cgroup, a machine without processor time. Meanwhile the control plane's answer
//! waits unread in the connection's buffer, and more may change after that answer was sent. When the process continues, a
//! launch may be scheduled before the poller. So a launch checks first:
//!
//! - a poll is held by the server, and its connection has no unread byte: the secrets are current. This check is one system
//!   call, and the usual case;
//! - otherwise, if the last answer is known to be recent, they are as well;
//! - otherwise the launch waits until the poller has read the answer and a poll without a wait has confirmed it;
//! - if the control plane is unavailable, or does not confirm in time, the lease alone decides, as for any disconnected devbox.
//!
//! An answer does not contain its age. Its upper bound is the time since the connection was last seen without unread bytes.

use std::os::fd::RawFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv};
use tokio::sync::{Notify, watch};
use tokio::time::timeout;

use crate::memory::{Generation, Unavailable, Vault};
use crate::sys::BootTime;

/// An answer of at most this age needs no confirmation: promise P6 allows a second from a deletion to its effect.
const RECENT: Duration = Duration::from_secs(1);
/// Longest wait of a launch for the confirmation. Afterwards the control plane counts as unavailable.
const PATIENCE: Duration = Duration::from_millis(1_500);
/// Pause between two confirming polls, if the first one's answer was too slow to confirm.
const AFTER_SLOW: Duration = Duration::from_millis(500);
/// Consecutive confirming polls that were too slow, after which the network counts as slow and the lease alone decides.
const MAX_SLOW: u32 = 2;

/// The state of the last exchange with the control plane. Written by the poller and its connection, read by launches.
#[derive(Debug)]
pub struct Freshness {
    state: Mutex<State>,
    changes: watch::Sender<()>,
    wanted: Notify,
}

#[derive(Debug)]
struct State {
    phase: Phase,
    /// The connection, while there is one. Its owner removes it before it is closed.
    socket: Option<RawFd>,
    /// When the connection was last seen without unread bytes.
    empty_at: Option<BootTime>,
    /// The same, before the bytes that were read last.
    heard_after: Option<BootTime>,
    /// The same, before the header of the answer that is being read.
    arrived_after: Option<BootTime>,
    /// The vault's secrets were current at this time or later.
    known_at: Option<BootTime>,
    /// Consecutive confirming polls whose answers were too slow.
    slow: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// No poll is in progress.
    Between,
    /// The server holds a poll, and answers it by `due` at the latest.
    Held { due: BootTime },
    /// An answer is being read, or a poll without a wait is in progress.
    Asking,
    /// The control plane is unavailable: the lease decides.
    Away,
}

impl Default for Freshness {
    /// Without a poller: the lease decides.
    fn default() -> Self {
        Self::in_phase(Phase::Away)
    }
}

impl Freshness {
    /// Before the first poll: a launch waits for it, if the vault has a predecessor's secrets.
    #[must_use]
    pub(crate) fn new() -> Self {
        Self::in_phase(Phase::Between)
    }

    fn in_phase(phase: Phase) -> Self {
        let state = State {
            phase,
            socket: None,
            empty_at: None,
            heard_after: None,
            arrived_after: None,
            known_at: None,
            slow: 0,
        };
        Self { state: Mutex::new(state), changes: watch::Sender::new(()), wanted: Notify::new() }
    }

    /// Returns the secrets of `vault` once they are known to be current or the control plane is known to be unavailable.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub(crate) async fn current(&self, vault: &Vault) -> Result<Arc<Generation>, Unavailable> {
        let held = vault.current()?;
        if self.state().is_current() {
            return Ok(held);
        }
        // Dropped, because it would keep revoked pages alive during the wait.
        drop(held);
        self.settled().await;
        vault.current()
    }

    /// Whether `held` is still what a launch would get. One look, without waiting.
    #[must_use]
    pub(crate) fn is_still_current(&self, held: &Arc<Generation>, vault: &Vault) -> bool {
        self.state().is_current() && vault.current().is_ok_and(|current| Arc::ptr_eq(&current, held))
    }

    /// Waits until the secrets are current, or the control plane is unavailable.
    async fn settled(&self) {
        let mut changes = self.changes.subscribe();
        loop {
            let started = BootTime::now();
            self.wanted.notify_one();
            let settled = async {
                while !self.state().is_current() {
                    // Never an error: the sender is in `self`.
                    let _ = changes.changed().await;
                }
            };
            if timeout(PATIENCE, settled).await.is_ok() {
                return;
            }
            // If more time has passed, the process was stopped again: the poller had no time either, so the wait is repeated.
            if BootTime::now().since(started) < 2 * PATIENCE {
                return self.away();
            }
        }
    }

    /// Waits until a launch needs a confirmation: the pause before the next poll ends then.
    pub(crate) async fn wanted(&self) {
        self.wanted.notified().await;
    }

    /// A new poller starts; the secrets are a predecessor's.
    pub(crate) fn begin(&self) {
        self.change(|state| {
            state.phase = Phase::Between;
            state.known_at = None;
            state.slow = 0;
        });
    }

    /// A poll is about to be sent over an open connection. Returns how long the server may hold it: not at all if it is to
    /// confirm the secrets, `wait` otherwise.
    pub(crate) fn asks(&self, wait: Duration) -> Duration {
        let now = BootTime::now();
        let mut state = self.state();
        state.empty_at = Some(now);
        state.heard_after = Some(now);
        state.arrived_after = Some(now);
        if state.is_recent(now) {
            state.phase = Phase::Held { due: now + wait + RECENT };
            return wait;
        }
        // A slow network would never confirm, and each try would cost the server a poll.
        if state.slow >= MAX_SLOW {
            return wait;
        }
        if state.phase != Phase::Away {
            state.phase = Phase::Asking;
        }
        Duration::ZERO
    }

    /// The answer's header has been read.
    pub(crate) fn arrives(&self) {
        self.change(|state| {
            // An answer that is read after the deadline may have been sent after a stall.
            state.arrived_after = state.heard_after;
            if let Phase::Held { .. } = state.phase {
                state.knows(state.arrived_after);
                state.phase = Phase::Asking;
            }
        });
    }

    /// The vault has the answer's secrets. `as_of`: the server answered at this time or later; `None` if unknown. Returns the
    /// pause, which a waiting launch cuts short ([`Self::wanted`]).
    pub(crate) fn answered(&self, as_of: Option<BootTime>, usual: Duration) -> Duration {
        let mut pause = usual;
        self.change(|state| {
            state.knows(as_of.or(state.arrived_after));
            if state.is_recent(BootTime::now()) {
                state.phase = Phase::Between;
                state.slow = 0;
                return;
            }
            // Only an unsuccessful confirming poll counts: the answer to a held one may be old anyway.
            let has_confirmed_nothing = as_of.is_some();
            state.slow = if has_confirmed_nothing { state.slow.saturating_add(1) } else { 0 };
            if (1..MAX_SLOW).contains(&state.slow) {
                pause = AFTER_SLOW;
            }
            if state.phase != Phase::Away {
                state.phase = if state.slow < MAX_SLOW { Phase::Between } else { Phase::Away };
            }
        });
        pause
    }

    /// The connection broke during a poll. If it was seen open and empty a moment ago, it broke now, so the control plane is
    /// unavailable. Otherwise it may have broken long ago, and the next attempt shows whether the control plane is available.
    pub(crate) fn broke(&self) {
        self.change(|state| {
            if let Phase::Held { .. } = state.phase {
                state.knows(state.heard_after);
                let is_recent = state.is_recent(BootTime::now());
                state.phase = if is_recent { Phase::Away } else { Phase::Between };
            } else {
                state.phase = Phase::Away;
            }
        });
    }

    /// The control plane was asked and did not confirm the secrets.
    pub(crate) fn away(&self) {
        self.change(|state| state.phase = Phase::Away);
    }

    /// A poll failed. [`Self::broke`] may have recorded that already.
    pub(crate) fn failed(&self) {
        self.change(|state| {
            if state.phase != Phase::Between {
                state.phase = Phase::Away;
            }
        });
    }

    /// A connection was made. Its owner calls [`Self::disconnected`] before it is closed. A poll that was about to be sent over
    /// the previous one does not count as held: a launch must not take a silent handshake for an unchanged bundle.
    pub(crate) fn connected(&self, socket: RawFd) {
        let mut state = self.state();
        if let Phase::Held { .. } = state.phase {
            state.phase = Phase::Between;
        }
        state.socket = Some(socket);
        // The old connection's times prove nothing about the new one.
        state.empty_at = None;
        state.heard_after = None;
    }

    /// The connection is about to be closed.
    pub(crate) fn disconnected(&self) {
        self.state().socket = None;
    }

    /// A read from the connection returned nothing. The runtime may have returned early, so the kernel is asked.
    pub(crate) fn is_silent(&self) {
        let mut state = self.state();
        if state.socket.is_some_and(has_nothing_unread) {
            state.empty_at = Some(BootTime::now());
        }
    }

    /// Bytes, or the end of the stream, were read from the connection.
    pub(crate) fn is_heard(&self) {
        let mut state = self.state();
        state.heard_after = state.empty_at;
    }

    fn change(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state());
        // The lock is free again here, so that a woken launch does not wait for it.
        self.changes.send_replace(());
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// At most one system call.
    fn is_current(&mut self) -> bool {
        // The clock first: `empty_at` must not be later than the look at the socket.
        let now = BootTime::now();
        match (self.phase, self.socket) {
            (Phase::Away, _) => true,
            (Phase::Held { due }, Some(socket)) if now <= due && has_nothing_unread(socket) => {
                self.empty_at = Some(now);
                true
            }
            (Phase::Held { .. }, Some(_)) => false,
            _ => self.is_recent(now),
        }
    }

    fn is_recent(&self, now: BootTime) -> bool {
        self.known_at.is_some_and(|known| now.since(known) <= RECENT)
    }

    fn knows(&mut self, at: Option<BootTime>) {
        self.known_at = self.known_at.max(at);
    }
}

/// The end of the stream and an error count as unread bytes.
fn has_nothing_unread(socket: RawFd) -> bool {
    recv(socket, &mut [0], MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT) == Err(Errno::EAGAIN)
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{TcpListener, TcpStream};
    use std::os::fd::AsRawFd;

    use super::*;

    const WAIT: Duration = Duration::from_secs(60);

    fn is_current(freshness: &Freshness) -> bool {
        freshness.state().is_current()
    }

    fn ago(time: Duration) -> BootTime {
        BootTime::from_millis(BootTime::now().as_millis() - u64::try_from(time.as_millis()).unwrap())
    }

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let ours = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (ours, listener.accept().unwrap().0)
    }

    /// With a poll that the server holds since the secrets were confirmed.
    fn held() -> (Freshness, TcpStream, TcpStream) {
        let (ours, server) = connection();
        let freshness = Freshness::new();
        freshness.connected(ours.as_raw_fd());
        assert_eq!(freshness.asks(WAIT), Duration::ZERO, "the secrets are not confirmed yet");
        assert!(!is_current(&freshness));
        assert_eq!(freshness.answered(Some(BootTime::now()), WAIT), WAIT);
        assert!(is_current(&freshness));
        assert_eq!(freshness.asks(WAIT), WAIT);
        assert!(is_current(&freshness));
        (freshness, ours, server)
    }

    fn until_readable(stream: &TcpStream) {
        assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
    }

    #[test]
    fn unread_bytes_and_a_closed_connection_need_a_confirmation() {
        let (freshness, ours, mut server) = held();
        server.write_all(b"x").unwrap();
        until_readable(&ours);
        assert!(!is_current(&freshness));
        let (freshness, ours, server) = held();
        drop(server);
        assert_eq!(ours.peek(&mut [0]).unwrap(), 0);
        assert!(!is_current(&freshness));
    }

    #[test]
    fn an_answer_of_unknown_age_is_confirmed_before_it_counts() {
        let (freshness, mut ours, mut server) = held();
        server.write_all(b"x").unwrap();
        ours.read_exact(&mut [0]).unwrap();
        let stale = ago(2 * RECENT);
        freshness.state().known_at = Some(stale);
        freshness.state().empty_at = Some(stale);
        freshness.is_heard();
        freshness.arrives();
        assert!(!is_current(&freshness));
        // The rest of a long answer is sent once its start has been read.
        freshness.is_silent();
        freshness.is_heard();
        assert_eq!(freshness.answered(None, WAIT), WAIT);
        assert!(!is_current(&freshness));
        assert_eq!(freshness.asks(WAIT), Duration::ZERO);
        freshness.answered(Some(BootTime::now()), WAIT);
        assert!(is_current(&freshness));
    }

    #[test]
    fn an_answer_that_arrives_during_launches_needs_no_confirmation() {
        let (freshness, _ours, _server) = held();
        freshness.state().known_at = Some(ago(WAIT));
        assert!(is_current(&freshness));
        freshness.is_heard();
        freshness.arrives();
        assert_eq!(freshness.answered(None, WAIT), WAIT);
        assert!(is_current(&freshness));
    }

    #[test]
    fn a_new_connection_has_no_held_poll_yet() {
        let (freshness, ours, _server) = held();
        freshness.state().known_at = Some(ago(2 * RECENT));
        assert!(is_current(&freshness), "the server holds a poll");
        freshness.disconnected();
        drop(ours);
        let (ours, _server) = connection();
        freshness.connected(ours.as_raw_fd());
        assert!(!is_current(&freshness));
    }

    #[test]
    fn an_overdue_poll_needs_a_confirmation() {
        let (freshness, _ours, _server) = held();
        freshness.state().phase = Phase::Held { due: ago(RECENT) };
        assert!(!is_current(&freshness));
    }

    #[test]
    fn a_connection_that_breaks_now_leaves_the_lease_and_one_that_broke_unseen_needs_a_confirmation() {
        let (freshness, _ours, _server) = held();
        freshness.is_heard();
        freshness.broke();
        assert!(is_current(&freshness));
        let (freshness, _ours, _server) = held();
        let stale = Some(ago(2 * RECENT));
        freshness.state().known_at = stale;
        freshness.state().empty_at = stale;
        freshness.is_heard();
        freshness.broke();
        freshness.failed();
        assert!(!is_current(&freshness));
        freshness.away();
        assert!(is_current(&freshness));
    }

    #[test]
    fn a_network_too_slow_to_confirm_is_not_asked_for_ever() {
        let freshness = Freshness::new();
        let slow = || Some(ago(2 * RECENT));
        assert_eq!(freshness.asks(WAIT), Duration::ZERO);
        assert_eq!(freshness.answered(slow(), WAIT), AFTER_SLOW);
        assert_eq!(freshness.asks(WAIT), Duration::ZERO);
        assert_eq!(freshness.answered(slow(), WAIT), WAIT);
        assert!(is_current(&freshness), "the lease decides");
        assert_eq!(freshness.asks(WAIT), WAIT);
        freshness.answered(Some(BootTime::now()), WAIT);
        assert_eq!(freshness.asks(WAIT), WAIT);
    }

    #[tokio::test]
    async fn a_launch_waits_for_the_confirmation_with_a_limit() {
        let freshness = Freshness::new();
        tokio::join!(freshness.settled(), async { freshness.answered(Some(BootTime::now()), WAIT) });
        freshness.begin();
        freshness.settled().await;
        assert!(is_current(&freshness), "the control plane is away, and no launch waits again");
    }
}
