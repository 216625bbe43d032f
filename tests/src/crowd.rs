//! Peers that break a listener's protocol, thousands of them, from several threads: nothing, random bytes, half a request,
//! lengths that cannot be, other versions, garbage after what is right; they hang up, listen to the end, or hold on.
//!
//! They run in a process of their own (`devbox-secrets-test-peer`), so that they can be another user's. Each is made from its
//! number, so a crowd is the same at each run.

mod dialect;
mod random;
mod target;

use std::collections::VecDeque;
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use self::dialect::Words;
pub use self::dialect::{Dialect, broken_launch_requests, launch_request};
use self::random::Random;
use self::target::{Stream, connect};
pub use self::target::{Target, ask_as};
use crate::programs;

const THREADS: usize = 4;

/// A crowd before one listener.
#[derive(Debug, Clone)]
pub struct Crowd {
    /// The protocol that it breaks.
    pub dialect: Dialect,
    /// The listener.
    pub target: Target,
    /// How many they are.
    pub peers: usize,
    /// How many connections they hold open at a time, at most.
    pub held: usize,
    /// Text that no answer may contain.
    pub secret: String,
}

impl Crowd {
    /// The command that runs it, and fails if a peer is not let in, is not hung up on, or is told the secret.
    #[must_use]
    pub fn command(&self) -> Command {
        self.command_of(&programs::test_peer())
    }

    /// The same by a copy of `devbox-secrets-test-peer`.
    #[must_use]
    pub fn command_of(&self, program: &Path) -> Command {
        let mut command = Command::new(program);
        command.arg("crowd").args(self.arguments());
        command
    }

    /// The arguments that [`Self::from_arguments`] reads.
    #[must_use]
    pub fn arguments(&self) -> [String; 5] {
        let (peers, held) = (self.peers.to_string(), self.held.to_string());
        [self.dialect.to_string(), self.target.to_string(), peers, held, self.secret.clone()]
    }

    /// Reads a crowd from a command line.
    ///
    /// # Panics
    /// If it is none.
    #[must_use]
    pub fn from_arguments(arguments: &[&str]) -> Self {
        let [dialect, target, peers, held, secret] = arguments else { panic!("five arguments") };
        Self {
            dialect: Dialect::parse(dialect).expect("a dialect"),
            target: Target::parse(target),
            peers: peers.parse().expect("a number of peers"),
            held: held.parse().expect("a number of held connections"),
            secret: (*secret).to_owned(),
        }
    }

    /// All of them, one after the other in each of a few threads.
    ///
    /// # Panics
    /// If one is not let in, is not hung up on, or is told the secret.
    pub fn gather(&self) {
        let (words, next) = (self.dialect.words(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| self.queue(&words, &next));
            }
        });
    }

    fn queue(&self, words: &Words, next: &AtomicUsize) {
        let mut held = VecDeque::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.peers {
                return;
            }
            held.extend(self.visit(number, words));
            if held.len() > self.held / THREADS {
                held.pop_front();
            }
        }
    }

    /// One peer. Returns its connection if it holds on.
    fn visit(&self, number: usize, words: &Words) -> Option<Box<dyn Stream>> {
        let mut random = Random::of(number);
        let name = words.name(number, &mut random);
        let mut stream = connect(&self.target, name.as_deref())
            .unwrap_or_else(|error| panic!("peer {number} is not let in: {error}"));
        if random.below(4) == 0 {
            say(&mut *stream, &words.half(&mut random));
            return Some(stream);
        }
        say(&mut *stream, &words.message(&mut random));
        if random.below(2) == 0 {
            self.listen(number, &mut *stream);
        }
        None
    }

    /// Has said everything, and reads to the end.
    fn listen(&self, number: usize, stream: &mut dyn Stream) {
        let _ = stream.say_no_more();
        let mut answer = Vec::new();
        if let Err(error) = stream.read_to_end(&mut answer) {
            assert!(!target::is_timeout(&error), "peer {number} is not hung up on");
        }
        let told = memchr::memmem::find(&answer, self.secret.as_bytes()).is_some();
        assert!(!told, "peer {number} is told the secret");
    }
}

/// A listener may have closed its end before it has read everything.
fn say(stream: &mut dyn Stream, message: &[u8]) {
    let _ = stream.write_all(message);
}
