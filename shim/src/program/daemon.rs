//! Asks the daemon for the secrets: one request, one answer, and nothing believed before it is checked.

use devbox_exec::address::SocketAddress;
use devbox_exec::failure::SecretsFailure;
use devbox_exec::options::{Arguments, Options};
use devbox_exec::payload::check_names;
use devbox_launch_proto::{Answer, AnswerHeader, HEADER_LEN, MAX_REQUEST_BODY};
use syscalls::Errno;

use super::kernel::{self, Descriptor, Direction, Socket};

type Result<T> = core::result::Result<T, SecretsFailure<'static>>;

/// How long the daemon may take to its first secrets where the user does not say, in milliseconds.
const DEFAULT_WAIT_MS: u32 = 5_000;
/// How much longer than it was asked to wait the daemon may take for an answer, in milliseconds.
const GRACE_MS: u32 = 10_000;
/// The pauses between two tries to connect, in milliseconds.
const FIRST_PAUSE_MS: u32 = 10;
const LONGEST_PAUSE_MS: u32 = 100;
/// Room for a request that names few variables. A longer one gets pages of its own.
const USUAL_REQUEST: usize = 1_024;

const NO_DESCRIPTOR: &str = "comes without its descriptor";
const TWO_DESCRIPTORS: &str = "comes with more than one descriptor";
const STRAY_DESCRIPTOR: &str = "comes with a descriptor that it should not have";
const SHORT_DESCRIPTOR: &str = "comes with a descriptor that is shorter than it says";
const UNASKED: &str = "is to another question than was asked";

/// The secrets of one launch: `count` strings `NAME=VALUE\0`, in pages that the daemon filled.
#[derive(Clone, Copy)]
pub(crate) struct Secrets {
    pub(crate) payload: &'static [u8],
    pub(crate) count: usize,
}

impl Secrets {
    pub(crate) const NONE: Self = Self { payload: &[], count: 0 };

    /// The strings, without their NULs.
    pub(crate) fn variables(self) -> impl Iterator<Item = &'static [u8]> {
        self.payload.split(|byte| *byte == 0).take(self.count)
    }
}

/// Fetches the secrets. Their strings are not checked yet: that happens where they are indexed.
pub(crate) fn fetch<'a>(options: &Options<'a, impl Arguments<'a>>, socket: &'static [u8]) -> Result<Secrets> {
    let reply = ask(options, socket, false)?;
    let descriptor = match (reply.header.answer, &reply.descriptor) {
        (Answer::Inline, None) => return reply.inline(),
        (Answer::Descriptor, Some(descriptor)) => descriptor,
        (Answer::Descriptor, None) => return Err(SecretsFailure::Descriptor(NO_DESCRIPTOR)),
        _ => return Err(SecretsFailure::Descriptor(UNASKED)),
    };
    match map(descriptor, reply.len()) {
        // The limit of locked memory: this process's or its user's, and neither is the daemon's.
        Err(SecretsFailure::Talk(_, Errno::EAGAIN | Errno::EPERM | Errno::ENOMEM)) => {
            let reply = ask(options, socket, true)?;
            match (reply.header.answer, &reply.descriptor) {
                (Answer::Inline, None) => reply.inline(),
                _ => Err(SecretsFailure::Descriptor(UNASKED)),
            }
        }
        mapped => Ok(Secrets { payload: mapped?, count: reply.count() }),
    }
}

/// Fetches the variables' names, a line each.
pub(crate) fn names<'a>(
    options: &Options<'a, impl Arguments<'a>>,
    socket: &'static [u8],
) -> Result<&'static [u8]> {
    let mut reply = ask(options, socket, false)?;
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

/// Maps the first `len` bytes behind the descriptor. Only what the file really has is touched later.
fn map(descriptor: &Descriptor, len: usize) -> Result<&'static [u8]> {
    if len == 0 {
        return Ok(&[]);
    }
    let size = descriptor.size().map_err(|error| SecretsFailure::Talk("fstat", error))?;
    if size < len as u64 {
        return Err(SecretsFailure::Descriptor(SHORT_DESCRIPTOR));
    }
    descriptor.map(len).map_err(|error| SecretsFailure::Talk("mmap", error))
}

/// An answer without its payload.
struct Reply {
    connection: Connection,
    header: AnswerHeader,
    descriptor: Option<Descriptor>,
}

impl Reply {
    const fn len(&self) -> usize {
        self.header.len as usize
    }

    const fn count(&self) -> usize {
        self.header.count as usize
    }

    fn inline(mut self) -> Result<Secrets> {
        let count = self.count();
        Ok(Secrets { payload: self.payload()?, count })
    }

    /// Receives the payload into pages of its own, straight from the socket.
    fn payload(&mut self) -> Result<&'static mut [u8]> {
        let pages =
            kernel::allocate_hidden(self.len()).map_err(|error| SecretsFailure::Talk("mmap", error))?;
        self.connection.receive_exactly(pages)?;
        Ok(pages)
    }

    /// Makes of a refusal the failure that it is.
    fn accepted(mut self) -> Result<Self> {
        let Answer::Error(code) = self.header.answer else { return Ok(self) };
        let text = self.payload()?;
        Err(SecretsFailure::Refused(code, text))
    }
}

fn ask<'a>(options: &Options<'a, impl Arguments<'a>>, path: &'static [u8], inline: bool) -> Result<Reply> {
    let (connection, wait_ms) = connect(path, options.wait_ms)?;
    let mut usual = [0; USUAL_REQUEST];
    if let Ok(request) = options.request(inline, wait_ms, &mut usual) {
        connection.send(request)?;
    } else {
        let room = kernel::allocate(HEADER_LEN + MAX_REQUEST_BODY)
            .map_err(|error| SecretsFailure::Talk("mmap", error))?;
        let request = options.request(inline, wait_ms, room).map_err(|_| SecretsFailure::RequestTooLarge)?;
        connection.send(request)?;
    }
    connection.reply()?.accepted()
}

/// Connects. With a wait that the user asked for, a daemon that is not there yet is waited for; what is left of it is
/// the daemon's, for its first secrets.
fn connect(path: &'static [u8], wait_ms: Option<u32>) -> Result<(Connection, u32)> {
    let address = SocketAddress::new(path).map_err(|_| SecretsFailure::SocketPath(path))?;
    let socket = Socket::new().map_err(|error| SecretsFailure::Talk("socket", error))?;
    let left_ms = wait_ms.unwrap_or(DEFAULT_WAIT_MS);
    limit(socket, Direction::Send, left_ms + GRACE_MS)?;
    let left_ms = match socket.connect(&address) {
        Ok(()) => left_ms,
        Err(error) => connect_later(socket, &address, wait_ms.unwrap_or(0), error)
            .map_err(|error| SecretsFailure::Connect(path, error))?,
    };
    let patience_ms = left_ms + GRACE_MS;
    limit(socket, Direction::Receive, patience_ms)?;
    Ok((Connection { socket, patience_ms, deadline_ms: None }, left_ms))
}

/// Tries again until the wait is over; answers what is left of it, in milliseconds.
fn connect_later(
    socket: Socket,
    address: &SocketAddress,
    wait_ms: u32,
    mut error: Errno,
) -> core::result::Result<u32, Errno> {
    // The clock's fraction of a millisecond is cut off: one more, so that no wait is shorter than was asked for.
    let deadline_ms = kernel::now_ms() + u64::from(wait_ms) + u64::from(wait_ms > 0);
    let left_ms = || u32::try_from(deadline_ms.saturating_sub(kernel::now_ms())).unwrap_or(wait_ms);
    let mut pause_ms = FIRST_PAUSE_MS;
    while matches!(error, Errno::ENOENT | Errno::ECONNREFUSED) && left_ms() > 0 {
        kernel::sleep_ms(pause_ms.min(left_ms()));
        pause_ms = (pause_ms * 2).min(LONGEST_PAUSE_MS);
        match socket.connect(address) {
            Ok(()) => return Ok(left_ms()),
            Err(again) => error = again,
        }
    }
    Err(error)
}

fn limit(socket: Socket, direction: Direction, milliseconds: u32) -> Result<()> {
    socket.limit(direction, milliseconds).map_err(|error| SecretsFailure::Talk("setsockopt", error))
}

/// A connection, and how long it may take.
struct Connection {
    socket: Socket,
    patience_ms: u32,
    deadline_ms: Option<u64>,
}

impl Connection {
    /// Sends the request. A daemon that takes no more launches answers and hangs up before it reads: the answer says so.
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
    fn reply(mut self) -> Result<Reply> {
        let mut bytes = [0; HEADER_LEN];
        let first = self
            .socket
            .receive_with_descriptor(&mut bytes)
            .map_err(|error| self.failure("recvmsg", error))?;
        if first.truncated {
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
        Ok(Reply { connection: self, header, descriptor: first.descriptor })
    }

    /// Receives until `room` is full. A peer that sends byte by byte gets no more time than one that sends nothing.
    fn receive_exactly(&mut self, mut room: &mut [u8]) -> Result<()> {
        while !room.is_empty() {
            self.check_deadline()?;
            let received = self.socket.receive(room).map_err(|error| self.failure("recvfrom", error))?;
            if received == 0 {
                return Err(SecretsFailure::Closed);
            }
            room = &mut room[received..];
        }
        Ok(())
    }

    /// Starts the clock at the first call: an answer that comes in one piece needs none.
    fn check_deadline(&mut self) -> Result<()> {
        let now_ms = kernel::now_ms();
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
