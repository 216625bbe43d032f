//! One line typed at the terminal without echo. However the prompt ends, the terminal is as it was:
//! also after Ctrl-C and SIGTERM.

use std::fs::File;
use std::io::{self, Read, Write, stdin};
use std::os::fd::{AsFd, OwnedFd};

use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;
use zeroize::Zeroizing;

use super::Failure;
use super::value::LineBuffer;

/// Longest line that a terminal passes on, in bytes (termios(3), canonical mode).
const MAX_LINE: usize = 4096;

/// Prints `text` and reads one line from standard input, which is a terminal.
///
/// # Errors
/// [`Failure::Interrupted`] at a signal; [`Failure::Input`].
pub(super) async fn read_line(text: &str) -> Result<LineBuffer, Failure> {
    // The handlers are in place before the echo is off.
    let mut signals = Interruptions::new().map_err(Failure::Input)?;
    let terminal = SilentTerminal::new().map_err(Failure::Input)?;
    io::stderr().write_all(text.as_bytes()).map_err(Failure::Input)?;
    let line = spawn_reader(&terminal).map_err(Failure::Input)?;
    tokio::select! {
        line = line => line.unwrap_or_else(|_| Err(io::ErrorKind::BrokenPipe.into())).map_err(Failure::Input),
        () = signals.any() => Err(Failure::Interrupted),
    }
}

/// A detached thread, because a read of a terminal cannot be cancelled.
fn spawn_reader(terminal: &SilentTerminal) -> io::Result<oneshot::Receiver<io::Result<LineBuffer>>> {
    let (done, line) = oneshot::channel();
    let input = File::from(terminal.input.try_clone()?);
    std::thread::Builder::new().name("prompt".to_owned()).spawn(move || done.send(read(input)).ok())?;
    Ok(line)
}

/// Reads into a buffer that never moves.
fn read(mut input: impl Read) -> io::Result<LineBuffer> {
    let mut line = Zeroizing::new(vec![0; MAX_LINE]);
    let mut len = 0;
    while len < line.len() && !line[..len].contains(&b'\n') {
        match input.read(&mut line[len..]) {
            Ok(0) => break,
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    line.truncate(len);
    Ok(line)
}

/// Standard input without echo, until it is dropped.
struct SilentTerminal {
    input: OwnedFd,
    before: Termios,
}

impl SilentTerminal {
    fn new() -> io::Result<Self> {
        let input = stdin().as_fd().try_clone_to_owned()?;
        let before = tcgetattr(&input)?;
        let mut silent = before.clone();
        silent.local_flags.remove(LocalFlags::ECHO);
        silent.local_flags.insert(LocalFlags::ECHONL);
        tcsetattr(&input, SetArg::TCSAFLUSH, &silent)?;
        Ok(Self { input, before })
    }
}

impl Drop for SilentTerminal {
    fn drop(&mut self) {
        // Unread input is a part of the value: it does not go to the shell. A terminal that hung up
        // needs nothing.
        let _ = tcsetattr(&self.input, SetArg::TCSAFLUSH, &self.before);
    }
}

/// Signals that end a prompt.
struct Interruptions([Signal; 5]);

impl Interruptions {
    fn new() -> io::Result<Self> {
        // Ctrl-Z too: a stopped command would leave the terminal to the shell without echo.
        let stop = SignalKind::from_raw(nix::libc::SIGTSTP);
        Ok(Self([
            signal(SignalKind::interrupt())?,
            signal(SignalKind::terminate())?,
            signal(SignalKind::hangup())?,
            signal(SignalKind::quit())?,
            signal(stop)?,
        ]))
    }

    async fn any(&mut self) {
        let [interrupt, terminate, hangup, quit, stop] = &mut self.0;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
            _ = hangup.recv() => {}
            _ = quit.recv() => {}
            _ = stop.recv() => {}
        }
    }
}
