//! Looks at processes on a thread of its own: the files that it reads may be long, or on a slow disk, and nobody else's
//! launch waits for them.
//!
//! The thread is started by [`Examiner::prepare`] or the first question, and never where no rule asks anything. Started
//! before the process is put into a Landlock domain, it stays outside: from inside, no process's executable can be seen.

use std::sync::OnceLock;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;

use super::digest::Remembered;
use super::{Cgroups, Facts, Obstacle, Peer, Process, Questions};

/// The thread's stack, in bytes.
const STACK: usize = 128 * 1024;

/// Longest wait for an answer. A file system that never answers must not hold up launches for ever.
const PATIENCE: Duration = Duration::from_secs(5);

/// Answers questions about processes, one after the other.
#[derive(Debug)]
pub struct Examiner {
    cgroups: Cgroups,
    patience: Duration,
    jobs: OnceLock<Option<Sender<Job>>>,
}

#[derive(Debug)]
struct Job {
    peer: Peer,
    process: Process,
    questions: Questions,
    answer: oneshot::Sender<Facts>,
}

impl Examiner {
    /// Not started yet. Units are those of `cgroups`.
    #[must_use]
    pub fn new(cgroups: Cgroups) -> Self {
        Self { cgroups, patience: PATIENCE, jobs: OnceLock::new() }
    }

    /// Starts the thread, if it is not running.
    pub fn prepare(&self) {
        self.jobs();
    }

    /// What is to be known of `process`; unknown, where it has ended meanwhile.
    pub async fn examine(&self, peer: Peer, process: Process, questions: Questions) -> Facts {
        let (answer, answered) = oneshot::channel();
        let job = Job { peer, process, questions, answer };
        if self.jobs().is_none_or(|jobs| jobs.send(job).is_err()) {
            return Facts::unknown(peer, Obstacle::NoExaminer);
        }
        match timeout(self.patience, answered).await {
            Ok(Ok(facts)) => facts,
            Ok(Err(_)) => Facts::unknown(peer, Obstacle::NoExaminer),
            Err(_) => Facts::unknown(peer, Obstacle::Slow),
        }
    }

    #[cfg(test)]
    pub(crate) fn is_started(&self) -> bool {
        self.jobs.get().is_some()
    }

    fn jobs(&self) -> Option<&Sender<Job>> {
        self.jobs.get_or_init(|| start(self.cgroups.clone())).as_ref()
    }
}

fn start(cgroups: Cgroups) -> Option<Sender<Job>> {
    let (jobs, queue) = channel();
    let thread = Builder::new().name("examiner".to_owned()).stack_size(STACK);
    thread.spawn(move || work(&queue, &cgroups)).ok().map(|_| jobs)
}

/// Until the examiner is dropped.
fn work(queue: &Receiver<Job>, cgroups: &Cgroups) {
    let mut remembered = Remembered::default();
    for job in queue {
        // Who asked may have gone.
        if job.answer.is_closed() {
            continue;
        }
        let facts = Facts::learn(job.peer, &job.process, &job.questions, cgroups, &mut remembered);
        let _ = job.answer.send(facts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_is_not_answered_in_time_is_not_known() {
        let (jobs, _nobody) = channel();
        let cgroups = Cgroups::of_this_machine();
        let examiner = Examiner { cgroups, patience: Duration::ZERO, jobs: OnceLock::from(Some(jobs)) };
        let process = Process::with_id(i32::try_from(std::process::id()).unwrap()).unwrap();
        let peer = process.owner().unwrap();
        let facts = examiner.examine(peer, process, Questions::default()).await;
        assert_eq!(facts, Facts::unknown(peer, Obstacle::Slow));
    }
}
