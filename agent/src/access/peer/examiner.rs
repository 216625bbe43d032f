//! Examines processes on threads of its own, because the files that it reads may be long, or on a
//! file system that never responds. No other launch waits for them.
//!
//! The first thread starts with [`Examiner::prepare`] or the first question, and never if no rule
//! asks one. Started before the process enters a Landlock domain, it stays outside; from inside, no
//! executable of another process can be seen. Before a call to a file system it starts a spare,
//! which is outside too, so that a stuck call costs only its own launch. An idle examiner keeps one
//! thread: a second one that finds no work exits.
//!
//! A user can make its examinations hang on purpose. So it may have one more running, and one more
//! queued, only while it has fewer than are free: it gets half of them at most, and one is always
//! left for the next user.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::warn;

use super::digest::Remembered;
use super::namespace::household;
use super::{Cgroups, Executable, Facts, Obstacle, Peer, Process, Questions, UnitName};

/// A thread's stack, in bytes.
const STACK: usize = 128 * 1024;

/// Longest wait for the facts: a file system that never responds must not hold up a launch for
/// ever.
const MAX_EXAMINATION: Duration = Duration::from_secs(5);

/// Most threads. All but one may be stuck.
const MAX_WORKERS: usize = 8;

/// Most questions that wait for a thread, each with a descriptor. One user has half of them at
/// most.
const MAX_QUEUED: usize = 512;

#[derive(Debug)]
pub(crate) struct Examiner {
    cgroups: Cgroups,
    deadline: Duration,
    queue: OnceLock<Option<Arc<Queue>>>,
}

#[derive(Debug)]
struct Job {
    peer: Peer,
    process: Process,
    questions: Questions,
    answer: oneshot::Sender<Facts>,
}

#[derive(Debug)]
struct Queue {
    state: Mutex<State>,
    changed: Condvar,
    cgroups: Cgroups,
    remembered: Mutex<Remembered>,
}

#[derive(Debug, Default)]
struct State {
    jobs: VecDeque<Job>,
    workers: usize,
    idle: usize,
    under_way: HashMap<u32, usize>,
    is_closed: bool,
}

impl Examiner {
    /// An examiner that is not started yet. Units are those of `cgroups`.
    #[must_use]
    pub(crate) fn new(cgroups: Cgroups) -> Self {
        Self { cgroups, deadline: MAX_EXAMINATION, queue: OnceLock::new() }
    }

    pub(crate) fn prepare(&self) {
        self.queue();
    }

    /// Examines `process`. Its facts are unknown if it ends meanwhile.
    pub(crate) async fn examine(&self, peer: Peer, process: Process, questions: Questions) -> Facts {
        let Some(queue) = self.queue() else { return Facts::unknown(peer, Obstacle::NoExaminer) };
        let (answer, answered) = oneshot::channel();
        // Fail closed: a user who fills its share of the queue meets no condition beyond its ids.
        if !queue.push(Job { peer, process, questions, answer }) {
            return Facts::unknown(peer, Obstacle::Slow);
        }
        match timeout(self.deadline, answered).await {
            Ok(Ok(facts)) => facts,
            Ok(Err(_)) => Facts::unknown(peer, Obstacle::NoExaminer),
            Err(_) => {
                // The queue gives back descriptors at once, although the thread may be stuck for
                // long.
                let busy = queue.forget_abandoned();
                warn!(uid = peer.uid, pid = peer.pid, busy, "the examination of a process takes too long");
                Facts::unknown(peer, Obstacle::Slow)
            }
        }
    }

    /// Threads that examine a process right now, including those that are stuck.
    #[must_use]
    pub(crate) fn busy(&self) -> usize {
        self.queue.get().and_then(Option::as_ref).map_or(0, |queue| queue.lock().busy())
    }

    #[cfg(test)]
    pub(crate) fn is_started(&self) -> bool {
        self.queue.get().is_some()
    }

    fn queue(&self) -> Option<&Arc<Queue>> {
        self.queue.get_or_init(|| Queue::start(self.cgroups.clone())).as_ref()
    }
}

impl Drop for Examiner {
    fn drop(&mut self) {
        if let Some(Some(queue)) = self.queue.get() {
            queue.lock().is_closed = true;
            queue.changed.notify_all();
        }
    }
}

impl Queue {
    fn new(cgroups: Cgroups) -> Self {
        Self { state: Mutex::default(), changed: Condvar::new(), cgroups, remembered: Mutex::default() }
    }

    /// `None` if no thread can be started.
    fn start(cgroups: Cgroups) -> Option<Arc<Self>> {
        let queue = Arc::new(Self::new(cgroups));
        queue.start_spare();
        let is_started = queue.lock().workers > 0;
        is_started.then_some(queue)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn push(&self, job: Job) -> bool {
        let user = job.user();
        let mut state = self.lock();
        if !state.has_room(user) {
            state.forget_abandoned();
        }
        let has_room = state.has_room(user);
        if has_room {
            state.jobs.push_back(job);
            self.changed.notify_one();
        }
        has_room
    }

    /// Drops the jobs whose launch has gone, with their descriptors. Returns the number of busy
    /// threads.
    fn forget_abandoned(&self) -> usize {
        let mut state = self.lock();
        state.forget_abandoned();
        state.busy()
    }

    /// Starts one more thread unless one is idle or there are [`MAX_WORKERS`]. Without it, questions wait.
    fn start_spare(self: &Arc<Self>) {
        let mut state = self.lock();
        // One idle thread is enough: it starts the next one before it looks at a file.
        if state.idle > 0 || state.workers >= MAX_WORKERS {
            return;
        }
        state.workers += 1;
        drop(state);
        let queue = Arc::clone(self);
        let thread = Builder::new().name("examiner".to_owned()).stack_size(STACK);
        if thread.spawn(move || queue.work()).is_err() {
            self.lock().workers -= 1;
        }
    }

    fn work(self: Arc<Self>) {
        while let Some(job) = self.next() {
            let user = job.user();
            self.answer(job);
            self.lock().end(user);
        }
    }

    fn answer(self: &Arc<Self>, job: Job) {
        // The launch may have gone.
        if job.answer.is_closed() {
            return;
        }
        let Job { peer, process, questions, answer } = job;
        let before_file = || self.start_spare();
        let facts = learn(peer, &process, &questions, &self.cgroups, &self.remembered, before_file);
        let _ = answer.send(facts);
    }

    /// The next job; `None` if this thread has to exit, because the examiner is gone or another
    /// thread is idle.
    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.is_closed {
                state.workers -= 1;
                return None;
            }
            if let Some(job) = state.begin() {
                // A finished examination may have made room for two users.
                if !state.jobs.is_empty() {
                    self.changed.notify_one();
                }
                return Some(job);
            }
            if state.idle > 0 {
                state.workers -= 1;
                return None;
            }
            state.idle += 1;
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
            state.idle -= 1;
        }
    }
}

impl Job {
    fn user(&self) -> u32 {
        household(self.peer.uid)
    }
}

impl State {
    fn has_room(&self, user: u32) -> bool {
        let waiting = self.jobs.iter().filter(|job| job.user() == user).count();
        waiting < MAX_QUEUED - self.jobs.len()
    }

    /// Takes the oldest question whose user may have one more running.
    fn begin(&mut self) -> Option<Job> {
        // A user may have as many threads as are free, so one that blocks all of its own leaves
        // some.
        let free = MAX_WORKERS - self.under_way.values().sum::<usize>();
        let may_begin = |job: &Job| self.under_way.get(&job.user()).is_none_or(|mine| *mine < free);
        let at = if free > 0 { self.jobs.iter().position(may_begin)? } else { return None };
        let job = self.jobs.remove(at)?;
        *self.under_way.entry(job.user()).or_default() += 1;
        Some(job)
    }

    fn end(&mut self, user: u32) {
        if let Some(mine) = self.under_way.get_mut(&user) {
            *mine -= 1;
            if *mine == 0 {
                self.under_way.remove(&user);
            }
        }
    }

    fn busy(&self) -> usize {
        self.workers - self.idle
    }

    fn forget_abandoned(&mut self) {
        self.jobs.retain(|job| !job.answer.is_closed());
    }
}

/// Answers `questions` about `process`. It reads files, so it must not run on the event loop.
/// `before_file` is called before a call to a file system that may never return.
pub(super) fn learn(
    peer: Peer,
    process: &Process,
    questions: &Questions,
    cgroups: &Cgroups,
    remembered: &Mutex<Remembered>,
    before_file: impl FnOnce(),
) -> Facts {
    let mut facts = Facts::of(peer);
    // The kernel reports 0 for a peer outside this PID namespace: no process here is it.
    if process.pid() <= 0 {
        return Facts::unknown(peer, Obstacle::OtherNamespace);
    }
    if !questions.units.is_empty() {
        let is_asked = |unit: &UnitName| questions.units.iter().any(|pattern| pattern.matches(unit));
        facts.unit = Ok(cgroups.unit_of(process.pid(), is_asked));
    }
    if questions.any_executable || !questions.executables.is_empty() {
        facts.executable = Executable::of(process, questions, remembered, before_file);
    }
    // This check comes last: all that was read by PID was about this process only if it still
    // runs.
    if process.is_running() { facts } else { Facts::unknown(peer, Obstacle::Ended) }
}

/// An examiner without threads: the test answers its questions.
#[cfg(test)]
pub(crate) struct ByHand(Arc<Queue>);

#[cfg(test)]
impl ByHand {
    pub(crate) fn examiner() -> (Examiner, Self) {
        let cgroups = Cgroups::of_this_machine();
        let queue = Arc::new(Queue::new(cgroups.clone()));
        let mut examiner = Examiner::new(cgroups);
        examiner.queue = OnceLock::from(Some(Arc::clone(&queue)));
        (examiner, Self(queue))
    }

    pub(crate) fn waiting(&self) -> usize {
        self.0.lock().jobs.len()
    }

    /// Answers the next question. Returns whether there was one.
    pub(crate) fn look(&self) -> bool {
        let job = self.0.lock().jobs.pop_front();
        job.is_some_and(|Job { peer, process, questions, answer }| {
            let (cgroups, remembered) = (&self.0.cgroups, &self.0.remembered);
            answer.send(learn(peer, &process, &questions, cgroups, remembered, || {})).is_ok()
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{self, File, OpenOptions};
    use std::os::fd::AsRawFd;
    use std::path::Path;
    use std::process::{Child, Command};

    use nix::mount::{MntFlags, MsFlags, mount, umount2};

    use super::*;
    use crate::access::peer::ExecutableQuestion;
    use devbox_secrets_tests::needs::{self, skipped};

    /// A FUSE file system whose server never answers, over `folder`.
    struct Silent<'a> {
        folder: &'a Path,
        _server: File,
    }

    impl<'a> Silent<'a> {
        fn over(folder: &'a Path) -> Option<Self> {
            let server = OpenOptions::new().read(true).write(true).open("/dev/fuse").ok()?;
            let data = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", server.as_raw_fd());
            mount(Some("silent"), folder, Some("fuse"), MsFlags::empty(), Some(data.as_str())).ok()?;
            Some(Self { folder, _server: server })
        }
    }

    impl Drop for Silent<'_> {
        fn drop(&mut self) {
            let _ = umount2(self.folder, MntFlags::MNT_DETACH);
        }
    }

    struct Running(Child);

    impl Drop for Running {
        fn drop(&mut self) {
            let _ = self.0.kill();
            let _ = self.0.wait();
        }
    }

    impl Queue {
        /// Without a thread: every question waits.
        fn idle() -> Arc<Self> {
            let cgroups = Cgroups::of_this_machine();
            Arc::new(Self::new(cgroups))
        }
    }

    fn sleep_in(folder: &Path) -> (Running, Questions) {
        let path = folder.canonicalize().unwrap().join("sleep");
        fs::copy("/bin/sleep", &path).unwrap();
        let child = Running(Command::new(&path).arg("600").spawn().unwrap());
        let path = path.to_str().unwrap().to_owned();
        let executables = vec![ExecutableQuestion { path, digest: true }];
        (child, Questions { executables, ..Questions::default() })
    }

    async fn examine(examiner: &Examiner, child: &Running, questions: &Questions) -> Facts {
        let process = Process::with_id(child.0.id().try_into().unwrap()).unwrap();
        let peer = process.owner().unwrap();
        examiner.examine(peer, process, questions.clone()).await
    }

    fn threads(examiner: &Examiner) -> usize {
        examiner.queue().unwrap().lock().workers
    }

    #[tokio::test]
    async fn a_stuck_look_up_costs_its_own_launch_only() {
        if !needs::root() {
            return;
        }
        let (stuck, good) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (lost, ask_lost) = sleep_in(stuck.path());
        let (found, ask_found) = sleep_in(good.path());
        let mut examiner = Examiner::new(Cgroups::of_this_machine());
        examiner.deadline = Duration::from_millis(300);
        let Some(silent) = Silent::over(stuck.path()) else { return skipped("FUSE") };
        for _ in 0..3 {
            let facts = examine(&examiner, &lost, &ask_lost).await;
            assert_eq!(facts.executable, Err(Obstacle::Slow));
        }
        examiner.deadline = MAX_EXAMINATION * 4;
        let executable = examine(&examiner, &found, &ask_found).await.executable;
        assert!(executable.as_ref().is_ok_and(|found| found.digest.is_ok()), "{executable:?}");
        assert!(threads(&examiner) >= 4, "each stuck look-up has its thread");
        assert!(examiner.busy() >= 3, "each stuck look-up is counted");
        // Neither is asked of a file system that no rule names.
        let unnamed = examine(&examiner, &lost, &ask_found).await.executable;
        assert!(unnamed.is_ok_and(|found| found.digest == Err(Obstacle::NotAsked)));

        // The end of the mount's server ends what is stuck, and all threads but one.
        drop(silent);
        let ended = async {
            while threads(&examiner) > 1 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), ended).await.expect("the threads that were stuck end");
        let idle = async {
            while examiner.busy() > 0 {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        timeout(Duration::from_secs(60), idle).await.expect("no look-up is counted any more");
    }

    #[test]
    fn no_user_has_all_threads_and_the_questions_of_others_overtake_its_own() {
        let queue = Queue::idle();
        let process = || Process::with_id(i32::try_from(std::process::id()).unwrap()).unwrap();
        let peer = process().owner().unwrap();
        let mut waiting = Vec::new();
        // Two uids of one range of subordinate uids are one user.
        for uid in [[100_001; MAX_WORKERS], [100_002; MAX_WORKERS]].concat().into_iter().chain([7, 8]) {
            let (answer, answered) = oneshot::channel();
            waiting.push(answered);
            let peer = Peer { uid, ..peer };
            let questions = Questions::default();
            assert!(queue.push(Job { peer, process: process(), questions, answer }));
        }
        let begin = || queue.lock().begin().map(|job| job.peer.uid);
        let begun: Vec<_> = std::iter::from_fn(begin).collect();
        assert_eq!(begun, [100_001, 100_001, 100_001, 100_001, 7, 8]);
        for _ in 0..2 {
            queue.lock().end(household(100_001));
        }
        assert_eq!(begin(), Some(100_001), "look-ups that end make room for others");
    }

    #[tokio::test]
    async fn questions_that_wait_are_bounded_and_dropped_with_their_launch() {
        let queue = Queue::idle();
        let process = || Process::with_id(i32::try_from(std::process::id()).unwrap()).unwrap();
        let peer = process().owner().unwrap();
        let mut waiting = Vec::new();
        let mut push = |uid| {
            let (answer, answered) = oneshot::channel();
            waiting.push(answered);
            let peer = Peer { uid, ..peer };
            queue.push(Job { peer, process: process(), questions: Questions::default(), answer })
        };
        assert!((0..MAX_QUEUED / 2).all(|_| push(1)));
        assert!(!push(1), "there is no thread, so all of them wait");
        assert!(push(2), "another user's question has room");
        waiting.clear();
        queue.forget_abandoned();
        assert!(queue.lock().jobs.is_empty());
    }

    #[tokio::test]
    async fn a_process_that_is_not_examined_in_time_is_not_known() {
        let queue = Queue::idle();
        let mut examiner = Examiner::new(Cgroups::of_this_machine());
        (examiner.deadline, examiner.queue) = (Duration::ZERO, OnceLock::from(Some(queue)));
        let process = Process::with_id(i32::try_from(std::process::id()).unwrap()).unwrap();
        let peer = process.owner().unwrap();
        let facts = examiner.examine(peer, process, Questions::default()).await;
        assert_eq!(facts, Facts::unknown(peer, Obstacle::Slow));
    }
}
