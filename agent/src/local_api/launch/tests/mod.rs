//! Launches over real sockets, with sealed bundles and locked memory.

mod answers;
mod hostile;
mod rules;
mod unread;
mod waiting;

use std::io::{IoSliceMut, Read};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream as BlockingStream;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use devbox_launch_proto::{Answer, AnswerHeader, ErrorCode, Flags, HEADER_LEN, Item, RequestBuilder};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::geteuid;
use tempfile::TempDir;
use tokio::net::UnixListener;
use tokio::sync::oneshot;

use super::{LaunchState, serve};
use crate::access::peer::{Cgroups, Examiner};
use crate::access::policy::{Policy, RuleConfig};
use crate::memory::Vault;
use crate::memory::test_support::SealedBundle;
use crate::metrics::NoGauges;
use crate::sys::test_support::{LIMIT, adopt, wait_until};
use crate::sys::{Backing, BootTime, LockedPages, MemoryError, Requirement, SecretMemory};
use devbox_secrets_tests::needs::skipped;

/// More than any answer or deadline takes.
const PATIENCE: Duration = Duration::from_secs(20);

/// A launch server on a thread of its own, as in the daemon: one current-thread runtime.
struct Server {
    directory: TempDir,
    memory: SecretMemory,
    vault: Arc<Vault>,
    state: Arc<LaunchState>,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// A whole answer.
#[derive(Debug, PartialEq, Eq)]
enum Got {
    /// By descriptor, with its used bytes.
    Descriptor(Vec<u8>),
    Inline(Vec<u8>),
    Names(Vec<u8>),
    Refused(ErrorCode, String),
}

impl Server {
    fn start() -> Self {
        Self::with(SecretMemory::probe(Requirement::Any, LIMIT).unwrap(), own_uid_policy())
    }

    fn with(memory: SecretMemory, policy: Policy) -> Self {
        Self::in_units(memory, policy, Cgroups::of_this_machine())
    }

    fn in_units(memory: SecretMemory, policy: Policy, cgroups: Cgroups) -> Self {
        Self::examined_by(memory, policy, Examiner::new(cgroups))
    }

    fn examined_by(memory: SecretMemory, policy: Policy, examiner: Examiner) -> Self {
        let directory = tempfile::tempdir().unwrap();
        open_to_all(directory.path());
        let vault = Arc::new(Vault::new("still enrolling: wait"));
        let state = LaunchState::new(Arc::clone(&vault), memory.clone(), policy).unwrap();
        let state = Arc::new(state.examined_by(examiner));
        let (stop, stopped) = oneshot::channel::<()>();
        let path = directory.path().join("launch.sock");
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        open_to_all(&path);
        listener.set_nonblocking(true).unwrap();
        let shared = Arc::clone(&state);
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let listener = UnixListener::from_std(listener).unwrap();
                serve(listener, shared, async { drop(stopped.await) }).await;
            });
        });
        Self { directory, memory, vault, state, stop: Some(stop), thread: Some(thread) }
    }

    /// A server in memory without descriptors to pass.
    fn with_fallback() -> Self {
        let memory = SecretMemory::mlock(LIMIT, MemoryError::Unavailable).unwrap();
        Self::with(memory, own_uid_policy())
    }

    fn holding(self, variables: &[(&str, &[u8])]) -> Self {
        self.hold(1, variables);
        self
    }

    fn hold(&self, revision: u64, variables: &[(&str, &[u8])]) {
        let generation = SealedBundle::new(revision, variables).open(&self.memory).unwrap();
        self.vault.replace(generation, BootTime::now() + Duration::from_secs(3_600));
    }

    fn path(&self) -> PathBuf {
        self.directory.path().join("launch.sock")
    }

    fn connect(&self) -> BlockingStream {
        let stream = BlockingStream::connect(self.path()).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream
    }

    fn launch(&self, flags: Flags, wait_ms: u32, items: &[Item<'_>]) -> Got {
        let stream = self.connect();
        send(&stream, &request(flags, wait_ms, items));
        receive(&stream)
    }

    /// The simplest launch.
    fn everything(&self) -> Got {
        self.launch(Flags::default(), 0, &[])
    }

    fn wait_for_connections(&self, count: usize) {
        wait_until("as many connections as expected", || self.state.counts().connections == count);
    }

    fn wait_until_nothing_is_locked(&self) {
        wait_until("no locked memory", || self.memory.bytes_locked() == 0);
    }

    /// A launch with an unread answer.
    fn unread(&self, flags: Flags) -> BlockingStream {
        let stream = self.connect();
        send(&stream, &request(flags, 0, &[]));
        wait_until("an answer", || has_bytes(&stream));
        stream
    }

    fn metric(&self, line: &str) -> bool {
        self.state.metrics.text(NoGauges).unwrap().contains(line)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

/// Whether bytes wait to be read.
fn has_bytes(stream: &BlockingStream) -> bool {
    let flags = MsgFlags::MSG_PEEK | MsgFlags::MSG_DONTWAIT;
    nix::sys::socket::recv(stream.as_raw_fd(), &mut [0], flags).is_ok()
}

fn holding_one() -> Server {
    Server::start().holding(&[("A", b"one")])
}

fn has_descriptors(server: &Server) -> bool {
    let has = server.memory.backing() == Backing::MemfdSecret;
    if !has {
        skipped("memfd_secret");
    }
    has
}

fn own_uid_policy() -> Policy {
    Policy::own_uid_only(geteuid().as_raw())
}

fn policy(rules: &[&str]) -> Policy {
    let rules = rules.iter().map(|rule| toml::from_str::<RuleConfig>(rule).unwrap()).collect();
    Policy::from_config(rules).unwrap()
}

fn open_to_all(path: &std::path::Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o777)).unwrap();
}

fn request(flags: Flags, wait_ms: u32, items: &[Item<'_>]) -> Vec<u8> {
    let mut buffer = vec![0; 128 << 10];
    let mut builder = RequestBuilder::new(&mut buffer, flags, wait_ms).unwrap();
    for item in items {
        builder.push(*item).unwrap();
    }
    builder.finish().to_vec()
}

fn send(mut stream: &BlockingStream, bytes: &[u8]) {
    std::io::Write::write_all(&mut stream, bytes).unwrap();
}

/// Receives a header and the descriptor that may come with it.
fn receive_header(stream: &BlockingStream) -> std::io::Result<(AnswerHeader, Option<OwnedFd>)> {
    let mut header = [0; HEADER_LEN];
    let mut room = nix::cmsg_space!([std::os::fd::RawFd; 4]);
    let mut slices = [IoSliceMut::new(&mut header)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC | MsgFlags::MSG_WAITALL;
    let message = recvmsg::<()>(stream.as_raw_fd(), &mut slices, Some(&mut room), flags)?;
    let bytes = message.bytes;
    let mut descriptors: Vec<OwnedFd> = Vec::new();
    for control in message.cmsgs()? {
        if let ControlMessageOwned::ScmRights(received) = control {
            descriptors.extend(received.into_iter().map(adopt));
        }
    }
    if bytes != HEADER_LEN {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    assert!(descriptors.len() <= 1);
    Ok((AnswerHeader::decode(&header).unwrap(), descriptors.pop()))
}

fn receive(stream: &BlockingStream) -> Got {
    let (header, descriptor) = receive_header(stream).unwrap();
    let mut payload = Vec::new();
    assert_eq!(descriptor.is_some(), header.answer == Answer::Descriptor);
    if header.answer != Answer::Descriptor {
        let mut reader = stream;
        reader.read_to_end(&mut payload).unwrap();
    }
    if let Some(descriptor) = descriptor {
        let pages = LockedPages::received(&descriptor, header.len as usize).unwrap();
        payload = pages.bytes().to_vec();
    }
    assert_eq!(payload.len(), header.len as usize);
    let strings = payload.iter().filter(|byte| **byte == 0).count();
    match header.answer {
        Answer::Error(code) => return Got::Refused(code, String::from_utf8(payload).unwrap()),
        _ => assert_eq!(strings, header.count as usize),
    }
    match header.answer {
        Answer::Descriptor => Got::Descriptor(payload),
        Answer::Inline => Got::Inline(payload),
        _ => Got::Names(payload),
    }
}

impl Got {
    /// The strings of an answer with variables.
    fn strings(self) -> Vec<u8> {
        match self {
            Self::Descriptor(bytes) | Self::Inline(bytes) => bytes,
            other => panic!("{other:?}"),
        }
    }

    fn code(&self) -> ErrorCode {
        match self {
            Self::Refused(code, _) => *code,
            other => panic!("{other:?}"),
        }
    }
}
