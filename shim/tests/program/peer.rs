//! A daemon's end of the socket, which sends what a test asks for: one script a connection.

use std::fs::{Permissions, set_permissions};
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use devbox_launch_proto::{Answer, AnswerHeader, ErrorCode, Flags, HEADER_LEN, Item, Items, RequestHeader};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use tempfile::TempDir;

use crate::secret_file::secret_file;

/// The peer's actions on one connection, after its request.
pub(crate) type Script = Box<dyn FnOnce(UnixStream) + Send>;

/// A request, as the daemon sees it.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) flags: Flags,
    pub(crate) wait_ms: u32,
    body: Vec<u8>,
}

impl Request {
    pub(crate) fn items(&self) -> Vec<Item<'_>> {
        Items::new(&self.body).map(Result::unwrap).collect()
    }
}

/// A listening socket in a folder of its own, which any user may reach.
pub(crate) struct Peer {
    folder: TempDir,
    requests: Receiver<Request>,
}

impl Peer {
    /// Listens, and answers as many connections as there are scripts.
    pub(crate) fn new(scripts: Vec<Script>) -> Self {
        Self::listen_in(tempfile::tempdir().unwrap(), scripts)
    }

    pub(crate) fn listen_in(folder: TempDir, scripts: Vec<Script>) -> Self {
        set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
        // Renamed into place once it listens: a process that sees it can connect.
        let unfinished = folder.path().join("unfinished");
        let listener = UnixListener::bind(&unfinished).unwrap();
        set_permissions(&unfinished, Permissions::from_mode(0o666)).unwrap();
        std::fs::rename(&unfinished, socket_in(folder.path())).unwrap();
        let (sender, requests) = channel();
        std::thread::spawn(move || serve(&listener, scripts, &sender));
        Self { folder, requests }
    }

    pub(crate) fn socket(&self) -> PathBuf {
        socket_in(self.folder.path())
    }

    /// The next request that came.
    pub(crate) fn request(&self) -> Request {
        self.requests.recv_timeout(Duration::from_secs(60)).expect("the program sends a request")
    }

    /// Stops the peer, and returns its folder.
    pub(crate) fn end(self) -> TempDir {
        self.folder
    }

    /// Whether there was no further request.
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.try_recv().is_err()
    }
}

pub(crate) fn socket_in(folder: &Path) -> PathBuf {
    folder.join("launch.sock")
}

fn serve(listener: &UnixListener, scripts: Vec<Script>, requests: &Sender<Request>) {
    for script in scripts {
        let Ok((mut stream, _)) = listener.accept() else { return };
        let Some(request) = read_request(&mut stream) else { return };
        let _ = requests.send(request);
        script(stream);
    }
}

fn read_request(stream: &mut UnixStream) -> Option<Request> {
    let mut header = [0; HEADER_LEN];
    stream.read_exact(&mut header).ok()?;
    let header = RequestHeader::decode(&header).unwrap();
    let mut body = vec![0; header.body_len as usize];
    stream.read_exact(&mut body).ok()?;
    Some(Request { flags: header.flags, wait_ms: header.wait_ms, body })
}

/// The strings of an answer, in the order given.
pub(crate) fn payload<N: AsRef<str>, V: AsRef<[u8]>>(variables: &[(N, V)]) -> Vec<u8> {
    let string = |(name, value): &(N, V)| [name.as_ref().as_bytes(), b"=", value.as_ref(), b"\0"].concat();
    variables.iter().flat_map(string).collect()
}

/// An answer's header.
pub(crate) fn header(answer: Answer, count: usize, len: usize) -> [u8; HEADER_LEN] {
    let number = |n: usize| u32::try_from(n).unwrap();
    AnswerHeader { answer, count: number(count), len: number(len) }.encode()
}

/// The variables in a descriptor made for this launch.
pub(crate) fn descriptor<N: AsRef<str>, V: AsRef<[u8]>>(variables: &[(N, V)]) -> Script {
    let payload = payload(variables);
    let header = header(Answer::Descriptor, variables.len(), payload.len());
    raw(&header, vec![secret_file(&payload)])
}

/// The variables in the answer itself.
pub(crate) fn inline<N: AsRef<str>, V: AsRef<[u8]>>(variables: &[(N, V)]) -> Script {
    let payload = payload(variables);
    let header = header(Answer::Inline, variables.len(), payload.len());
    raw(&[&header[..], &payload].concat(), vec![])
}

/// A refusal.
pub(crate) fn refusal(code: ErrorCode, text: &str) -> Script {
    let header = header(Answer::Error(code), 0, text.len());
    raw(&[&header[..], text.as_bytes()].concat(), vec![])
}

/// Any bytes, with any descriptors.
pub(crate) fn raw(bytes: &[u8], descriptors: Vec<OwnedFd>) -> Script {
    let bytes = bytes.to_vec();
    Box::new(move |mut stream| {
        let numbers: Vec<i32> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&numbers)];
        let control = if numbers.is_empty() { &[][..] } else { &rights };
        let parts = [IoSlice::new(&bytes)];
        let sent = sendmsg::<()>(stream.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None);
        // The program closes the connection after an invalid answer, and may not read all of it.
        let _ = sent.map(|sent| stream.write_all(&bytes[sent..]));
    })
}
