//! Answers that were sent and may be unread.
//!
//! The kernel keeps an answer until its launcher reads it or closes its end, and counts each
//! descriptor in it against the *daemon*: past `RLIMIT_NOFILE` of them it sends none to anybody
//! (`ETOOMANYREFS`, unix(7)). So an answer keeps its slot until it is read, and no user has more
//! unread answers than slots.
//!
//! Unread variables are withdrawn after a deadline, when their generation is gone, and when the daemon stops. The kernel takes no
//! descriptor back, but the pages behind it are marked and wiped ([`SentPages::withdraw`]). Bytes that were sent inline are out
//! of reach: they stay in the kernel until the launcher reads or closes.
//!
//! A launcher reads at once, so the daemon does not wait for each answer: it looks at all of them a moment after one is added, and
//! ten times a second while some stay unread. Letting an answer go unmaps and frees its pages, which would take the processor from
//! the launch that has just been answered, so that happens at once only if answers pile up.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use tokio::select;
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::answer::GRACE;
use super::report::report_withdrawn;
use super::slots::LaunchSlot;
use super::stream::Stream;
use crate::access::peer::Peer;
use crate::memory::{Generation, Vault};
use crate::metrics::Metrics;
use crate::sys::{SentPages, has_read_all};

const DEADLINE: Duration = Duration::from_secs(5);
/// Interval of checks of all answers while some can be withdrawn.
const INTERVAL: Duration = Duration::from_millis(100);
/// Interval of checks while only slots can be freed: connections without a slot check too.
const LONG_INTERVAL: Duration = Duration::from_secs(2);
/// The same while launches come, which have read their answers by then. One timer serves many
/// launches.
const BUSY_INTERVAL: Duration = Duration::from_millis(20);
/// Most answers that wait for that check.
const FEW: usize = 16;
/// Shortest interval between checks of more than [`FEW`] answers by launches without a slot or
/// memory: a flood must not occupy the daemon with them.
const PAUSE: Duration = Duration::from_millis(10);
/// Oldest answers that are checked when one is added to more than [`FEW`]: more than one, so that
/// they do not pile up.
const LOOKS: usize = 2;

#[derive(Debug, Default)]
pub(super) struct Unread {
    answers: Mutex<Answers>,
    added: Notify,
}

#[derive(Debug, Default)]
struct Answers {
    sent: VecDeque<Sent>,
    /// The last check of all of them for a launch without room.
    looked: Option<Instant>,
    /// Whether some were added since the last check by the watch.
    has_new: bool,
    /// Whether the next one has to wake the watch.
    idle: bool,
}

/// One answer. The slot is freed after the connection is closed, because fields drop in order.
#[derive(Debug)]
pub(super) struct Sent {
    stream: Stream,
    content: Content,
    peer: Peer,
    at: Instant,
    _slot: LaunchSlot,
}

#[derive(Debug)]
pub(super) enum Content {
    /// Variables, by descriptor.
    Pages {
        pages: SentPages,
        generation: Weak<Generation>,
        /// The time since which they are known to be outdated.
        outdated: Option<Instant>,
    },
    /// Variables, by value.
    Inline,
    /// The answer holds no secret, or its variables are withdrawn.
    Harmless,
}

impl Content {
    pub(super) fn pages(pages: SentPages, generation: &Arc<Generation>) -> Self {
        Self::Pages { pages, generation: Arc::downgrade(generation), outdated: None }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Why {
    Deadline,
    Outdated,
    Stopping,
}

impl Why {
    pub(super) const ALL: [Self; 3] = [Self::Deadline, Self::Outdated, Self::Stopping];

    /// A stable word for metrics.
    pub(super) const fn word(self) -> &'static str {
        match self {
            Self::Deadline => "deadline",
            Self::Outdated => "outdated",
            Self::Stopping => "stopping",
        }
    }

    pub(super) const fn reason(self) -> &'static str {
        match self {
            Self::Deadline => "its answer was not read in time, and is withdrawn",
            Self::Outdated => {
                "its secrets were replaced or revoked before it read its answer, which is withdrawn"
            }
            Self::Stopping => "the daemon stops before it read its answer, which is withdrawn",
        }
    }
}

impl Unread {
    pub(super) fn keep(
        &self,
        stream: Stream,
        peer: Peer,
        slot: LaunchSlot,
        content: Content,
        metrics: &Metrics,
    ) {
        // A refusal or a list that is read already needs no place in the queue.
        if matches!(content, Content::Harmless) && has_read_all(&stream) {
            return;
        }
        let sent = Sent { stream, content, peer, at: Instant::now(), _slot: slot };
        let mut answers = self.lock();
        let oldest = if answers.sent.len() < FEW { 0 } else { LOOKS };
        let rest: Vec<_> = answers.sent.drain(..oldest).collect();
        answers.sent.push_back(sent);
        let unread = rest.into_iter().filter_map(|sent| sent.unless_read(metrics));
        answers.sent.extend(unread);
        answers.has_new = true;
        let is_idle = std::mem::take(&mut answers.idle);
        drop(answers);
        // A wake costs a turn of the event loop, so only an idle watch gets one.
        if is_idle {
            self.added.notify_one();
        }
    }

    /// Frees the slots and the memory of answers that have been read. Returns `false` if there are
    /// many and that was tried just now.
    pub(super) fn make_room(&self, metrics: &Metrics) -> bool {
        let mut answers = self.lock();
        let is_due =
            answers.sent.len() <= FEW || answers.looked.is_none_or(|looked| looked.elapsed() >= PAUSE);
        if is_due {
            answers.look(metrics);
            answers.looked = Some(Instant::now());
        }
        is_due
    }

    /// Checks the answers at intervals, for ever, and when the secrets of `vault` change.
    pub(super) async fn watch(&self, vault: &Vault, metrics: &Metrics) {
        let mut changes = vault.changes();
        loop {
            select! {
                () = self.pause() => {}
                changed = changes.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.lock().outdate(vault.current().ok().as_ref());
                }
            }
            self.lock().look(metrics);
        }
    }

    async fn pause(&self) {
        let interval = self.lock().interval();
        if timeout(interval, self.added.notified()).await.is_ok() {
            self.lock().has_new = false;
            // Launchers have read by then, so one check lets go of many answers.
            sleep(BUSY_INTERVAL).await;
        }
    }

    /// Withdraws, at shutdown, all that is not read within [`GRACE`].
    pub(super) async fn close(&self, metrics: &Metrics) {
        let deadline = Instant::now() + GRACE;
        loop {
            self.lock().look(metrics);
            if !self.holds_pages() || Instant::now() >= deadline {
                break;
            }
            sleep(PAUSE).await;
        }
        // The deadline has passed: slow readers lose their answer, because the daemon ends now.
        for sent in &mut self.lock().sent {
            sent.withdraw(Why::Stopping, metrics);
        }
    }

    fn holds_pages(&self) -> bool {
        self.lock().sent.iter().any(|sent| matches!(sent.content, Content::Pages { .. }))
    }

    fn lock(&self) -> MutexGuard<'_, Answers> {
        self.answers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Answers {
    /// Time until the next check. A new answer shortens it if nothing else is urgent.
    fn interval(&mut self) -> Duration {
        let is_urgent =
            |sent: &Sent| !matches!(sent.content, Content::Harmless) || sent.at.elapsed() < DEADLINE;
        // More are likely to come: a wake and a timer for each of them would cost a turn of the event loop.
        if std::mem::take(&mut self.has_new) {
            return BUSY_INTERVAL;
        }
        let is_any_urgent = self.sent.iter().any(is_urgent);
        self.idle = !is_any_urgent;
        match (is_any_urgent, self.sent.is_empty()) {
            (true, _) => INTERVAL,
            (false, false) => LONG_INTERVAL,
            (false, true) => Duration::MAX,
        }
    }

    /// Starts the time that is left for answers with other secrets than those of `current`. Their
    /// generation may live on: a slow reader may be getting it inline.
    fn outdate(&mut self, current: Option<&Arc<Generation>>) {
        for sent in &mut self.sent {
            if let Content::Pages { generation, outdated, .. } = &mut sent.content
                && current.is_none_or(|current| generation.as_ptr() != Arc::as_ptr(current))
            {
                outdated.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Lets go of answers that are read, and withdraws those that may not wait any longer.
    fn look(&mut self, metrics: &Metrics) {
        let sent = std::mem::take(&mut self.sent);
        self.sent = sent.into_iter().filter_map(|sent| sent.unless_read(metrics)).collect();
    }
}

impl Sent {
    /// `None` if the launcher has read its answer or has gone.
    fn unless_read(mut self, metrics: &Metrics) -> Option<Self> {
        if has_read_all(&self.stream) {
            self.deliver();
            return None;
        }
        let is_kept = self.overdue().is_none_or(|why| self.withdraw(why, metrics));
        is_kept.then_some(self)
    }

    fn deliver(&mut self) {
        if let Content::Pages { pages, .. } = self.take_content() {
            pages.release();
        }
    }

    fn take_content(&mut self) -> Content {
        std::mem::replace(&mut self.content, Content::Harmless)
    }

    fn overdue(&mut self) -> Option<Why> {
        let is_late = self.at.elapsed() >= DEADLINE;
        match &mut self.content {
            Content::Pages { generation, outdated, .. }
                if outdated.is_some() || generation.strong_count() == 0 =>
            {
                // One that was added after the change.
                let outdated = outdated.get_or_insert_with(Instant::now);
                (outdated.elapsed() >= GRACE).then_some(Why::Outdated)
            }
            Content::Pages { .. } | Content::Inline => is_late.then_some(Why::Deadline),
            Content::Harmless => None,
        }
    }

    /// Wipes the pages unless the launcher reads its answer just now; returns `false` if it does. The slot stays, with its
    /// bytes: the kernel keeps the message, and with it the memory of the pages.
    fn withdraw(&mut self, why: Why, metrics: &Metrics) -> bool {
        let is_withdrawn = match self.take_content() {
            Content::Pages { pages, .. } => pages.withdraw(|| has_read_all(&self.stream)),
            Content::Inline => true,
            Content::Harmless => return true,
        };
        if is_withdrawn {
            report_withdrawn(metrics, self.peer, why);
        }
        is_withdrawn
    }
}

impl Drop for Sent {
    /// A launcher that has read its answer keeps it.
    fn drop(&mut self) {
        if let Content::Pages { pages, .. } = self.take_content() {
            pages.withdraw(|| has_read_all(&self.stream));
        }
    }
}
