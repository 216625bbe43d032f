//! Standard error behind a bounded queue and a thread of its own.
//!
//! A reader of the log may stop: a container runtime under back-pressure, a paused pager, Ctrl-S on
//! a terminal. `write(2)` then blocks its caller. Here only the log's thread blocks: a line that
//! finds the queue full is dropped and counted, as is a line that cannot be written.
//!
//! `tracing-appender` has the same queue. It is not used because it starts its thread at once (a
//! daemon that confines itself must do so later: capabilities and Landlock belong to a thread),
//! ignores failed writes, and bounds lines, not bytes.

use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tracing_subscriber::fmt::MakeWriter;

/// Most bytes that wait for the thread. A longer line is dropped.
const MAX_QUEUED: usize = 1024 * 1024;
/// Time after a write in which lines wait, to be written together: a wake of the thread for each of many lines would take the
/// processor from its callers. A line that comes alone is written at once.
const PAUSE: Duration = Duration::from_millis(5);
/// So many bytes end the pause.
const MANY: usize = MAX_QUEUED / 4;
/// Stack of the thread, in bytes: it copies and writes.
const STACK: usize = 64 * 1024;

/// Where lines are written.
pub trait Sink: Write + AsFd + Send + 'static {}

impl<T: Write + AsFd + Send + 'static> Sink for T {}

/// A handle on the queue. Lines that its clones lose are counted together.
#[derive(Debug, Clone)]
pub struct LogWriter {
    shared: Arc<Shared>,
    lost: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
struct Shared {
    queue: Mutex<Queue>,
    /// Signalled when a line arrives, and when one has been written.
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    lines: VecDeque<Line>,
    bytes: usize,
    /// The thread has taken lines and not written them yet.
    writing: bool,
    /// The thread looks at the queue by itself in a moment.
    pausing: bool,
    /// The pause is to end.
    hurried: bool,
}

#[derive(Debug)]
struct Line {
    text: Vec<u8>,
    lost: Arc<AtomicU64>,
}

impl Default for LogWriter {
    fn default() -> Self {
        Self::new()
    }
}

impl LogWriter {
    /// An empty queue. Lines wait in it until [`Self::start`].
    #[must_use]
    pub fn new() -> Self {
        Self { shared: Arc::default(), lost: Arc::default() }
    }

    /// A handle on the same queue whose lost lines are counted apart.
    #[must_use]
    pub fn counted_apart(&self) -> Self {
        Self { shared: Arc::clone(&self.shared), lost: Arc::default() }
    }

    /// Starts the thread that writes to `sink`. Call once, after the process has confined itself:
    /// the thread inherits the caller's capabilities, Landlock domain and seccomp filter.
    ///
    /// # Errors
    /// If the thread does not start (`RLIMIT_NPROC`).
    pub fn start(&self, sink: impl Sink) -> io::Result<()> {
        let shared = Arc::clone(&self.shared);
        let thread = std::thread::Builder::new().name("log".to_owned()).stack_size(STACK);
        thread.spawn(move || shared.write_all_to(sink)).map(drop)
    }

    /// Queues `text`, which ends with a newline. Never blocks: a line that does not fit is dropped
    /// and counted.
    pub fn put(&self, text: Vec<u8>) {
        let mut queue = self.shared.lock();
        if queue.bytes + text.len() > MAX_QUEUED {
            drop(queue);
            self.lost.fetch_add(1, Ordering::Relaxed);
            return;
        }
        queue.bytes += text.len();
        queue.lines.push_back(Line { text, lost: Arc::clone(&self.lost) });
        queue.hurried |= queue.bytes >= MANY;
        let wakes = !queue.pausing || queue.hurried;
        drop(queue);
        if wakes {
            self.shared.changed.notify_all();
        }
    }

    /// How many lines of this handle and its clones were lost since the process started.
    #[must_use]
    pub fn lost(&self) -> u64 {
        self.lost.load(Ordering::Relaxed)
    }

    /// Waits until every queued line has been written, at most for `patience`: at the end of the
    /// process. Returns whether the queue is empty.
    #[must_use]
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut queue = self.shared.lock();
        queue.hurried = true;
        self.shared.changed.notify_all();
        while queue.writing || !queue.lines.is_empty() {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = self.shared.changed.wait_timeout(queue, left);
            queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }
}

/// One line of the log, queued when it is dropped.
#[derive(Debug)]
pub struct LineBuffer {
    writer: LogWriter,
    text: Vec<u8>,
}

impl LogWriter {
    /// A buffer for one line.
    #[must_use]
    pub fn line(&self) -> LineBuffer {
        LineBuffer { writer: self.clone(), text: Vec::new() }
    }
}

impl Write for LineBuffer {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(text);
        Ok(text.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl MakeWriter<'_> for LogWriter {
    type Writer = LineBuffer;

    fn make_writer(&self) -> LineBuffer {
        self.line()
    }
}

impl Drop for LineBuffer {
    fn drop(&mut self) {
        if !self.text.is_empty() {
            self.writer.put(std::mem::take(&mut self.text));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_all_to(&self, mut sink: impl Sink) {
        loop {
            let line = self.next();
            if write_whole(&mut sink, &line.text).is_err() {
                line.lost.fetch_add(1, Ordering::Relaxed);
            }
            self.lock().writing = false;
            self.changed.notify_all();
        }
    }

    fn next(&self) -> Line {
        if let Some(line) = self.lock().take() {
            return line;
        }
        let mut queue = self.pause();
        loop {
            if let Some(line) = queue.take() {
                return line;
            }
            queue = self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Lets lines gather.
    fn pause(&self) -> MutexGuard<'_, Queue> {
        let mut queue = self.lock();
        queue.pausing = true;
        let waited = self.changed.wait_timeout_while(queue, PAUSE, |queue| !queue.hurried);
        let mut queue = waited.unwrap_or_else(PoisonError::into_inner).0;
        queue.pausing = false;
        queue.hurried = false;
        queue
    }
}

impl Queue {
    /// The oldest line, which is being written from now on.
    fn take(&mut self) -> Option<Line> {
        let line = self.lines.pop_front()?;
        self.bytes -= line.text.len();
        self.writing = true;
        Some(line)
    }
}

/// As [`Write::write_all`], but waits if another process made the descriptor non-blocking:
/// O_NONBLOCK belongs to the open file description, which processes share (open(2)).
fn write_whole(sink: &mut impl Sink, mut text: &[u8]) -> io::Result<()> {
    while !text.is_empty() {
        match sink.write(text) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(written) => text = &text[written..],
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                poll(&mut [PollFd::new(sink.as_fd(), PollFlags::POLLOUT)], PollTimeout::NONE)?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs::{File, OpenOptions};
    use std::io::Read;

    use nix::fcntl::{FcntlArg, OFlag, fcntl};

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(30);

    #[test]
    fn lines_put_before_the_start_are_written_in_order() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let log = LogWriter::new();
        log.put(b"one\n".to_vec());
        writeln!(log.line(), "two {}", 2).unwrap();
        log.start(pipe).unwrap();
        assert!(log.flush(PATIENCE));
        let mut text = [0; 10];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"one\ntwo 2\n");
        assert_eq!(log.lost(), 0);
    }

    #[test]
    fn lines_that_follow_each_other_closely_are_all_written_without_another_wake() {
        let (mut reader, pipe) = io::pipe().unwrap();
        let log = LogWriter::new();
        log.start(pipe).unwrap();
        for _ in 0..10 {
            log.put(b"one\n".to_vec());
            log.put(b"two\n".to_vec());
            let mut text = [0; 8];
            reader.read_exact(&mut text).unwrap();
            assert_eq!(&text, b"one\ntwo\n");
        }
    }

    #[test]
    fn a_flush_and_a_full_queue_end_the_pause() {
        let log = LogWriter::new();
        log.start(File::create("/dev/null").unwrap()).unwrap();
        for _ in 0..8 * MAX_QUEUED / MANY {
            log.put(vec![b'x'; MANY / 2]);
            assert!(log.flush(PATIENCE));
        }
        for _ in 0..10 {
            log.put(vec![b'x'; MANY]);
            while log.shared.lock().bytes > 0 {
                std::thread::yield_now();
            }
        }
        assert_eq!(log.lost(), 0);
    }

    #[test]
    fn a_reader_that_does_not_read_blocks_no_caller_and_what_is_lost_is_counted() {
        let (reader, pipe) = io::pipe().unwrap();
        let log = LogWriter::new();
        let audit = log.counted_apart();
        log.start(pipe).unwrap();
        // The pipe, the queue and one line in the thread's hand: the rest has no place.
        for _ in 0..4 * MAX_QUEUED / 1_024 {
            log.put(vec![b'x'; 1_024]);
        }
        audit.put(vec![b'x'; 1_024]);
        assert!(log.lost() > 0);
        assert_eq!(audit.lost(), 1);
        assert!(!log.flush(Duration::from_millis(1)));
        drop(reader);
        assert!(log.flush(PATIENCE), "lines that nobody can read any more are lost, not kept");
    }

    #[test]
    fn failed_writes_are_counted() {
        let full = OpenOptions::new().write(true).open("/dev/full").unwrap();
        let log = LogWriter::new();
        log.start(full).unwrap();
        log.put(b"one\n".to_vec());
        log.put(b"two\n".to_vec());
        assert!(log.flush(PATIENCE));
        assert_eq!(log.lost(), 2);
    }

    #[test]
    fn a_descriptor_that_another_process_made_non_blocking_loses_nothing() {
        let (reader, pipe) = io::pipe().unwrap();
        fcntl(&pipe, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let log = LogWriter::new();
        log.start(pipe).unwrap();
        let lines = MAX_QUEUED / 2 / 1_024;
        for _ in 0..lines {
            log.put(vec![b'x'; 1_024]);
        }
        let read = std::thread::spawn(move || count(reader.take((lines * 1_024) as u64)));
        assert!(log.flush(PATIENCE));
        assert_eq!(read.join().unwrap(), lines * 1_024);
        assert_eq!(log.lost(), 0);
    }

    fn count(mut reader: impl Read) -> usize {
        let mut text = Vec::new();
        reader.read_to_end(&mut text).unwrap()
    }

    #[test]
    fn a_line_longer_than_the_queue_is_lost() {
        let log = LogWriter::new();
        log.put(vec![b'x'; MAX_QUEUED + 1]);
        assert_eq!(log.lost(), 1);
        log.start(File::create("/dev/null").unwrap()).unwrap();
        assert!(log.flush(PATIENCE));
    }
}
