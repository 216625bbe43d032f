//! Connections to a listener, by TCP or a Unix socket, blocking and with deadlines.

use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, bind, connect as connect_socket, socket,
};

/// Longer than any deadline of a listener for who has said everything.
const PATIENCE: Duration = Duration::from_secs(20);

/// Where a listener is.
#[derive(Debug, Clone)]
pub enum Target {
    /// A Unix socket.
    Path(PathBuf),
    /// TCP.
    Address(SocketAddr),
}

impl Target {
    /// Reads what `Display` writes: an address, else a path.
    pub(super) fn parse(text: &str) -> Self {
        text.parse().map_or_else(|_| Self::Path(text.into()), Self::Address)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Path(path) => path.display().fmt(f),
            Self::Address(address) => address.fmt(f),
        }
    }
}

/// A connection.
pub(super) trait Stream: Read + Write {
    /// Closes the sending side.
    fn say_no_more(&self) -> io::Result<()>;
}

impl Stream for UnixStream {
    fn say_no_more(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

impl Stream for TcpStream {
    fn say_no_more(&self) -> io::Result<()> {
        self.shutdown(Shutdown::Write)
    }
}

/// Connects; to a Unix socket from an abstract address, if one is named.
pub(super) fn connect(target: &Target, name: Option<&[u8]>) -> io::Result<Box<dyn Stream>> {
    match target {
        Target::Address(address) => {
            let stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Box::new(stream))
        }
        Target::Path(path) => {
            let stream = match name {
                None => UnixStream::connect(path)?,
                Some(name) => connect_from(name, path)?,
            };
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(Box::new(stream))
        }
    }
}

/// The standard library binds listeners only.
fn connect_from(name: &[u8], path: &Path) -> io::Result<UnixStream> {
    let stream = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    bind(stream.as_raw_fd(), &UnixAddr::new_abstract(name)?)?;
    connect_socket(stream.as_raw_fd(), &UnixAddr::new(path)?)?;
    Ok(stream.into())
}

/// The answer to a peer with the abstract name `name` at `socket`.
///
/// # Panics
/// If it is not let in, or not answered.
#[must_use]
pub fn ask_as(name: &str, socket: &Path) -> Vec<u8> {
    let target = Target::Path(socket.to_owned());
    let mut stream = connect(&target, Some(name.as_bytes())).expect("the socket is there");
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).expect("there is an answer");
    answer
}

/// Whether a read ended with nothing said and nothing closed.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut)
}
