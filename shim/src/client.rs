//! The client of the launch protocol: one request and one answer, over a [`Transport`].
//!
//! The answer is checked before it is used, and never copied: it is received into, or mapped as,
//! pages of the transport.

use core::marker::PhantomData;
use core::sync::atomic::{AtomicU8, Ordering, fence};

use devbox_launch_proto::{Answer, AnswerHeader, HEADER_LEN, MAX_REQUEST_BODY, marked_len};

use crate::Errno;
use crate::address::SocketAddress;
use crate::failure::{Failure, SecretsFailure};
use crate::options::{Arguments, Options};
use crate::payload::check_names;
use crate::wait::{Attempt, Wait};

type Result<T> = core::result::Result<T, SecretsFailure<'static>>;
type Call<T> = core::result::Result<T, Errno>;

/// A Unix stream socket, and the other system calls of a launch. Errors are those of the calls in
/// section 2 of the manual. A call that a signal interrupts is repeated.
///
/// Memory is never freed, because the client's strings point into it. `execve(2)` or the exit frees
/// it.
pub trait Transport: Sized {
    /// A descriptor that came with an answer, closed on drop.
    type Descriptor;

    /// A new socket, close-on-exec.
    ///
    /// # Errors
    /// socket(2).
    fn open() -> Call<Self>;

    /// Lets calls of `connect` and `send` that take longer fail with `EAGAIN`. 0 would mean no
    /// limit.
    ///
    /// # Errors
    /// setsockopt(2).
    fn limit_sending(&self, milliseconds: u32) -> Call<()>;

    /// Connects to the daemon.
    ///
    /// # Errors
    /// connect(2).
    fn connect(&self, address: &SocketAddress) -> Call<()>;

    /// Sends as much as the socket takes at once, and returns the number of bytes. Raises no
    /// SIGPIPE.
    ///
    /// # Errors
    /// send(2).
    fn send(&self, bytes: &[u8]) -> Call<usize>;

    /// Waits until bytes or the end can be received; fails with `EAGAIN` if that takes longer.
    ///
    /// # Errors
    /// ppoll(2).
    fn wait(&self, milliseconds: u32) -> Call<()>;

    /// Receives the bytes that have arrived, and returns their number, 0 at the end. Descriptors
    /// are dropped.
    ///
    /// # Errors
    /// recv(2).
    fn receive(&self, room: &mut [u8]) -> Call<usize>;

    /// Receives the bytes that have arrived, and at most one descriptor, close-on-exec.
    ///
    /// # Errors
    /// recvmsg(2).
    fn receive_with_descriptor(&self, room: &mut [u8]) -> Call<Received<Self::Descriptor>>;

    /// The file's size in bytes.
    ///
    /// # Errors
    /// fstat(2).
    fn size(descriptor: &Self::Descriptor) -> Call<u64>;

    /// Maps the first `len` bytes, not 0 and not more than the file has, read-only and shared.
    ///
    /// # Errors
    /// mmap(2). The client then asks for an inline answer.
    fn map(descriptor: &Self::Descriptor, len: usize) -> Call<&'static [u8]>;

    /// As [`Self::map`], and the byte after those, which the daemon may write to.
    ///
    /// # Errors
    /// mmap(2). The client then asks for an inline answer.
    fn map_marked(descriptor: &Self::Descriptor, len: usize) -> Call<(&'static [u8], &'static AtomicU8)>;

    /// New pages of zeros, of at least `len` bytes.
    ///
    /// # Errors
    /// mmap(2).
    fn allocate(len: usize) -> Call<&'static mut [u8]>;

    /// Like [`Self::allocate`], for secrets: in no core dump, and locked if this process's limit
    /// allows it.
    ///
    /// # Errors
    /// mmap(2).
    fn allocate_hidden(len: usize) -> Call<&'static mut [u8]>;

    /// The monotonic clock in milliseconds.
    fn now_ms() -> u64;

    /// Sleeps so long, or until a signal.
    fn sleep_ms(milliseconds: u32);
}

/// The result of one receive.
#[derive(Debug)]
pub struct Received<D> {
    /// Number of bytes.
    pub len: usize,
    /// The descriptor that came with them.
    pub descriptor: Option<D>,
    /// More than one descriptor came; or the only one was dropped, because the process has reached
    /// its limit of open files or a security module forbids it.
    pub truncated: bool,
}

/// The daemon's time for an answer beyond the requested wait, in milliseconds.
const GRACE_MS: u32 = 10_000;
/// Room for a request that names few variables. A longer one gets pages of its own.
const USUAL_REQUEST: usize = 256;

const NO_DESCRIPTOR: &str = "comes without its descriptor";
const TWO_DESCRIPTORS: &str = "comes with more than one descriptor";
const STRAY_DESCRIPTOR: &str = "comes with a descriptor that it should not have";
const SHORT_DESCRIPTOR: &str = "comes with a descriptor that is shorter than it says";
const UNASKED: &str = "is to another question than was asked";

/// The secrets of one launch: `count` strings `NAME=VALUE\0`, in pages that the daemon filled.
#[derive(Clone, Copy)]
#[allow(missing_debug_implementations, reason = "it holds values")]
pub struct Secrets {
    /// The strings, one after the other, unchecked.
    pub payload: &'static [u8],
    /// Their number, as the daemon sent it.
    pub count: usize,
    /// The strings' mark; `None` if they are this process's own copy, or come from a daemon that
    /// sets none.
    mark: Option<&'static AtomicU8>,
}

impl Secrets {
    /// No secrets.
    pub const NONE: Self = Self { payload: &[], count: 0, mark: None };

    /// Whether the daemon withdraws the strings, so that it may have wiped them. Asked after they
    /// were received, the answer holds for good: a daemon that sets the mark later finds the answer
    /// read, and wipes nothing.
    #[must_use]
    pub fn are_withdrawn(self) -> bool {
        // The launcher's half of the launch protocol's section on withdrawing: receive, fence, read
        // the mark.
        fence(Ordering::SeqCst);
        // Relaxed, because the page is read-only; the fence orders it.
        self.mark.is_some_and(|mark| mark.load(Ordering::Relaxed) != 0)
    }

    /// The strings, without their NULs.
    pub fn variables(self) -> impl Iterator<Item = &'static [u8]> {
        self.payload.split(|byte| *byte == 0).take(self.count)
    }
}

/// Attempts until one succeeds or fails for good, or until the wait is over.
///
/// # Errors
/// The last attempt's.
pub fn patiently<S: Transport, T>(
    wait_ms: Option<u32>,
    mut attempt: impl FnMut(Attempt) -> core::result::Result<T, Failure<'static>>,
) -> core::result::Result<T, Failure<'static>> {
    let mut wait = Wait::new(wait_ms, S::now_ms);
    loop {
        let this = wait.attempt();
        let reason = match attempt(this) {
            Err(Failure::Secrets(reason)) => reason,
            done => return done,
        };
        match wait.pause_ms(this, &reason) {
            Some(pause_ms) => S::sleep_ms(pause_ms),
            None => return Err(reason.into()),
        }
    }
}

/// The request of one launch, however often it is sent.
#[allow(missing_debug_implementations, reason = "the arguments need not print")]
pub struct Client<'o, A, S> {
    options: &'o Options<'static, A>,
    path: &'static [u8],
    /// Pages for a request that is longer than usual: the same for each attempt.
    room: Option<&'static mut [u8]>,
    transport: PhantomData<S>,
}

impl<'o, A: Arguments<'static>, S: Transport> Client<'o, A, S> {
    /// A client of the daemon whose socket is at `path`.
    #[must_use]
    pub const fn new(options: &'o Options<'static, A>, path: &'static [u8]) -> Self {
        Self { options, path, room: None, transport: PhantomData }
    }

    /// Fetches the secrets. Their strings are not checked yet: that happens when they are indexed.
    ///
    /// # Errors
    /// [`SecretsFailure`].
    pub fn fetch(&mut self, attempt: Attempt) -> Result<Secrets> {
        match self.ask(attempt, false)?.secrets()? {
            Some(secrets) => Ok(secrets),
            None => self.ask(attempt, true)?.secrets()?.ok_or(SecretsFailure::Descriptor(UNASKED)),
        }
    }

    /// Fetches the variables' names, a line each.
    ///
    /// # Errors
    /// [`SecretsFailure`].
    pub fn names(&mut self, attempt: Attempt) -> Result<&'static [u8]> {
        let mut reply = self.ask(attempt, false)?;
        if reply.header.answer != Answer::Names || reply.descriptor.is_some() {
            return Err(SecretsFailure::Descriptor(UNASKED));
        }
        let names = reply.payload()?;
        check_names(names, reply.count())?;
        for byte in names.iter_mut().filter(|byte| **byte == 0) {
            *byte = b'\n';
        }
        Ok(names)
    }

    fn ask(&mut self, attempt: Attempt, inline: bool) -> Result<Reply<S>> {
        let connection = Connection::<S>::open(self.path, attempt.wait_ms)?;
        self.send(&connection, attempt, inline)?;
        connection.reply()?.accepted(attempt)
    }

    fn send(&mut self, connection: &Connection<S>, attempt: Attempt, inline: bool) -> Result<()> {
        let mut usual = [0; USUAL_REQUEST];
        if let Ok(request) = self.options.request(inline, attempt, &mut usual) {
            return connection.send(request);
        }
        let room = match &mut self.room {
            Some(room) => room,
            none => none.insert(
                S::allocate(HEADER_LEN + MAX_REQUEST_BODY)
                    .map_err(|error| SecretsFailure::Talk("mmap", error))?,
            ),
        };
        let request =
            self.options.request(inline, attempt, room).map_err(|_| SecretsFailure::RequestTooLarge)?;
        connection.send(request)
    }
}

struct Reply<S: Transport> {
    connection: Connection<S>,
    header: AnswerHeader,
    descriptor: Option<S::Descriptor>,
    /// The kernel could not give this process the answer's descriptor.
    dropped: bool,
}

impl<S: Transport> Reply<S> {
    const fn len(&self) -> usize {
        self.header.len as usize
    }

    const fn count(&self) -> usize {
        self.header.count as usize
    }

    /// The secrets; `None` if they are in a descriptor that this process cannot receive or map, so
    /// that it has to ask for them inline. Reasons are the limits of open files and of locked
    /// memory, and security modules.
    fn secrets(mut self) -> Result<Option<Secrets>> {
        let count = self.count();
        let (payload, mark) = match (self.header.answer, &self.descriptor) {
            (Answer::Inline, None) => (&*self.payload()?, None),
            (Answer::Descriptor, Some(descriptor)) => match map::<S>(descriptor, self.len()) {
                Err(SecretsFailure::Talk(..)) => return Ok(None),
                mapped => mapped?,
            },
            (Answer::Descriptor, None) if self.dropped => return Ok(None),
            (Answer::Descriptor, None) => return Err(SecretsFailure::Descriptor(NO_DESCRIPTOR)),
            _ => return Err(SecretsFailure::Descriptor(UNASKED)),
        };
        Ok(Some(Secrets { payload, count, mark }))
    }

    /// Receives the payload into pages of its own, straight from the socket.
    fn payload(&mut self) -> Result<&'static mut [u8]> {
        let pages = S::allocate_hidden(self.len()).map_err(|error| SecretsFailure::Talk("mmap", error))?;
        self.connection.receive_exactly(pages)?;
        Ok(pages)
    }

    /// Turns a refusal into a failure. Its text needs pages that are never freed, so it is read
    /// only if no other attempt follows.
    fn accepted(mut self, attempt: Attempt) -> Result<Self> {
        let Answer::Error(code) = self.header.answer else { return Ok(self) };
        if attempt.patient && code.may_pass() {
            return Err(SecretsFailure::Refused(code, b""));
        }
        let text = self.payload()?;
        Err(SecretsFailure::Refused(code, text))
    }
}

/// Maps the first `len` bytes behind the descriptor, and their mark if the file has one. Only what
/// the file really has is touched later.
fn map<S: Transport>(
    descriptor: &S::Descriptor,
    len: usize,
) -> Result<(&'static [u8], Option<&'static AtomicU8>)> {
    if len == 0 {
        return Ok((&[], None));
    }
    let size = S::size(descriptor).map_err(|error| SecretsFailure::Talk("fstat", error))?;
    if size < len as u64 {
        return Err(SecretsFailure::Descriptor(SHORT_DESCRIPTOR));
    }
    let mapped = match size >= marked_len(len) as u64 {
        true => S::map_marked(descriptor, len).map(|(strings, mark)| (strings, Some(mark))),
        false => S::map(descriptor, len).map(|strings| (strings, None)),
    };
    mapped.map_err(|error| SecretsFailure::Talk("mmap", error))
}

/// A connection, and how long it may take.
struct Connection<S> {
    socket: S,
    patience_ms: u32,
    deadline_ms: Option<u64>,
}

impl<S: Transport> Connection<S> {
    /// Connects. The daemon may hold the request for `wait_ms`.
    fn open(path: &'static [u8], wait_ms: u32) -> Result<Self> {
        let address = SocketAddress::new(path).map_err(|_| SecretsFailure::SocketPath(path))?;
        let socket = S::open().map_err(|error| SecretsFailure::Talk("socket", error))?;
        let patience_ms = wait_ms + GRACE_MS;
        socket.limit_sending(patience_ms).map_err(|error| SecretsFailure::Talk("setsockopt", error))?;
        socket.connect(&address).map_err(|error| SecretsFailure::Connect(path, error))?;
        Ok(Self { socket, patience_ms, deadline_ms: None })
    }

    /// Sends the request. A daemon that is busy answers and closes the connection before it reads;
    /// the answer has the reason.
    fn send(&self, mut request: &[u8]) -> Result<()> {
        while !request.is_empty() {
            match self.socket.send(request) {
                Ok(sent) => request = &request[sent..],
                Err(Errno::EPIPE | Errno::ECONNRESET) => return Ok(()),
                Err(error) => return Err(self.failure("sendto", error)),
            }
        }
        Ok(())
    }

    /// Receives the header. A descriptor comes with its first byte, or not at all.
    fn reply(mut self) -> Result<Reply<S>> {
        let mut bytes = [0; HEADER_LEN];
        self.wait()?;
        let first = self
            .socket
            .receive_with_descriptor(&mut bytes)
            .map_err(|error| self.failure("recvmsg", error))?;
        if first.truncated && first.descriptor.is_some() {
            return Err(SecretsFailure::Descriptor(TWO_DESCRIPTORS));
        }
        if first.len == 0 {
            return Err(SecretsFailure::Closed);
        }
        self.receive_exactly(&mut bytes[first.len..])?;
        let header = AnswerHeader::decode(&bytes).map_err(SecretsFailure::Answer)?;
        if first.descriptor.is_some() && header.answer != Answer::Descriptor {
            return Err(SecretsFailure::Descriptor(STRAY_DESCRIPTOR));
        }
        Ok(Reply { connection: self, header, descriptor: first.descriptor, dropped: first.truncated })
    }

    /// Receives until `room` is full. A peer that sends byte by byte gets no more time than one
    /// that sends nothing.
    fn receive_exactly(&mut self, mut room: &mut [u8]) -> Result<()> {
        while !room.is_empty() {
            self.check_deadline()?;
            self.wait()?;
            let received = self.socket.receive(room).map_err(|error| self.failure("recvfrom", error))?;
            if received == 0 {
                return Err(SecretsFailure::Closed);
            }
            room = &mut room[received..];
        }
        Ok(())
    }

    fn wait(&self) -> Result<()> {
        self.socket.wait(self.patience_ms).map_err(|error| self.failure("ppoll", error))
    }

    /// Starts the clock at the first call: an answer that comes in one piece needs none.
    fn check_deadline(&mut self) -> Result<()> {
        let now_ms = S::now_ms();
        let deadline_ms = *self.deadline_ms.get_or_insert(now_ms + u64::from(self.patience_ms));
        if now_ms > deadline_ms { Err(SecretsFailure::Silent(self.patience_ms)) } else { Ok(()) }
    }

    fn failure(&self, call: &'static str, error: Errno) -> SecretsFailure<'static> {
        match error {
            Errno::EAGAIN => SecretsFailure::Silent(self.patience_ms),
            Errno::EPIPE | Errno::ECONNRESET => SecretsFailure::Closed,
            _ => SecretsFailure::Talk(call, error),
        }
    }
}
