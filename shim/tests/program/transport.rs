//! A launch by another program: the library's client over the standard library's sockets.
#![allow(unsafe_code, reason = "a received descriptor and a mapping have no safe constructor")]

use std::ffi::CStr;
use std::io::{IoSliceMut, Read};
use std::num::NonZeroUsize;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStringExt;
use std::process::{Command, Stdio};
use std::slice;
use std::sync::LazyLock;
use std::sync::atomic::AtomicU8;
use std::thread::sleep;
use std::time::{Duration, Instant};

use devbox_exec::Errno;
use devbox_exec::address::SocketAddress;
use devbox_exec::client::{Client, Received, Secrets, Transport, patiently};
use devbox_exec::options::{Invocation, parse};
use devbox_launch_proto::{ErrorCode, marked_len};
use nix::cmsg_space;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::mman::{MapFlags, ProtFlags, mmap};
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, recvmsg, send,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};

use crate::peer::{Peer, descriptor, inline, refusal};

struct StdSocket(OwnedFd);

/// Repeats a call that a signal interrupts.
fn call<T>(mut call: impl FnMut() -> nix::Result<T>) -> Result<T, Errno> {
    loop {
        match call() {
            Err(nix::errno::Errno::EINTR) => {}
            result => return result.map_err(|error| Errno::new(error as i32)),
        }
    }
}

fn map(descriptor: &OwnedFd, len: usize) -> Result<usize, Errno> {
    let len = NonZeroUsize::new(len).unwrap();
    // SAFETY: a new mapping at an address of the kernel's choice touches no other memory.
    let address = unsafe { mmap(None, len, ProtFlags::PROT_READ, MapFlags::MAP_SHARED, descriptor, 0) };
    call(|| address).map(|address| address.as_ptr().expose_provenance())
}

impl Transport for StdSocket {
    type Descriptor = OwnedFd;

    fn open() -> Result<Self, Errno> {
        call(|| socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)).map(Self)
    }

    fn limit_sending(&self, milliseconds: u32) -> Result<(), Errno> {
        let limit = TimeVal::milliseconds(milliseconds.into());
        call(|| setsockopt(&self.0, sockopt::SendTimeout, &limit))
    }

    fn connect(&self, address: &SocketAddress) -> Result<(), Errno> {
        let address = UnixAddr::new(address.path()).unwrap();
        call(|| connect(self.0.as_raw_fd(), &address))
    }

    fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        call(|| send(self.0.as_raw_fd(), bytes, MsgFlags::MSG_NOSIGNAL))
    }

    fn wait(&self, milliseconds: u32) -> Result<(), Errno> {
        let limit = PollTimeout::try_from(milliseconds).unwrap();
        match call(|| poll(&mut [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)], limit))? {
            0 => Err(Errno::EAGAIN),
            _ => Ok(()),
        }
    }

    fn receive(&self, room: &mut [u8]) -> Result<usize, Errno> {
        call(|| recv(self.0.as_raw_fd(), room, MsgFlags::empty()))
    }

    fn receive_with_descriptor(&self, room: &mut [u8]) -> Result<Received<OwnedFd>, Errno> {
        call(|| {
            let mut parts = [IoSliceMut::new(room)];
            let mut control = cmsg_space!(RawFd);
            let flags = MsgFlags::MSG_CMSG_CLOEXEC;
            let message = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut control), flags)?;
            let number = message.cmsgs()?.find_map(|message| match message {
                ControlMessageOwned::ScmRights(numbers) => numbers.first().copied(),
                _ => None,
            });
            // SAFETY: the kernel has just made the descriptor for this process.
            let descriptor = number.map(|number| unsafe { OwnedFd::from_raw_fd(number) });
            let truncated = message.flags.contains(MsgFlags::MSG_CTRUNC);
            Ok(Received { len: message.bytes, descriptor, truncated })
        })
    }

    fn size(descriptor: &OwnedFd) -> Result<u64, Errno> {
        call(|| nix::sys::stat::fstat(descriptor)).map(|status| u64::try_from(status.st_size).unwrap())
    }

    fn map(descriptor: &OwnedFd, len: usize) -> Result<&'static [u8], Errno> {
        let address = map(descriptor, len)?;
        // SAFETY: `len` bytes of a mapping that is never unmapped, of a file that the test does not change.
        Ok(unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance(address), len) })
    }

    fn map_marked(descriptor: &OwnedFd, len: usize) -> Result<(&'static [u8], &'static AtomicU8), Errno> {
        let address = map(descriptor, marked_len(len))?;
        // SAFETY: as in `map`.
        let strings = unsafe { slice::from_raw_parts(std::ptr::with_exposed_provenance(address), len) };
        // SAFETY: one more byte of the same mapping, outside of `strings`.
        let mark = unsafe { AtomicU8::from_ptr(std::ptr::with_exposed_provenance_mut(address + len)) };
        Ok((strings, mark))
    }

    fn allocate(len: usize) -> Result<&'static mut [u8], Errno> {
        Ok(vec![0; len].leak())
    }

    fn allocate_hidden(len: usize) -> Result<&'static mut [u8], Errno> {
        Self::allocate(len)
    }

    fn now_ms() -> u64 {
        static START: LazyLock<Instant> = LazyLock::new(Instant::now);
        u64::try_from(START.elapsed().as_millis()).unwrap()
    }

    fn sleep_ms(milliseconds: u32) {
        sleep(Duration::from_millis(milliseconds.into()));
    }
}

fn fetch(peer: &Peer, arguments: &'static [&'static CStr]) -> Secrets {
    let Invocation::Launch(options, _) = parse(arguments.iter().copied()).unwrap() else {
        panic!("the arguments are a launch's")
    };
    let path = peer.socket().into_os_string().into_vec().leak();
    let mut client: Client<'_, _, StdSocket> = Client::new(&options, path);
    patiently::<StdSocket, _>(options.wait_ms, |attempt| Ok(client.fetch(attempt)?)).unwrap()
}

fn strings(secrets: Secrets) -> Vec<&'static str> {
    secrets.variables().map(|variable| std::str::from_utf8(variable).unwrap()).collect()
}

#[test]
fn a_program_with_its_own_sockets_runs_a_command_with_secrets_from_a_descriptor() {
    let peer = Peer::new(vec![descriptor(&[("A", "1"), ("B", "two")])]);
    let secrets = fetch(&peer, &[c"--only", c"A", c"env"]);
    assert!(!secrets.are_withdrawn());
    let variables = strings(secrets).into_iter().map(|variable| variable.split_once('=').unwrap());
    let mut command = Command::new("/usr/bin/env");
    let mut child = command.env_clear().envs(variables).stdout(Stdio::piped()).spawn().unwrap();
    let mut printed = String::new();
    child.stdout.take().unwrap().read_to_string(&mut printed).unwrap();
    assert!(child.wait().unwrap().success());
    assert_eq!(printed, "A=1\nB=two\n");
    assert_eq!(peer.request().items().len(), 1);
}

#[test]
fn a_program_with_its_own_sockets_waits_until_the_daemon_has_secrets() {
    let peer = Peer::new(vec![refusal(ErrorCode::NotReady, "not yet"), inline(&[("A", "1")])]);
    assert_eq!(strings(fetch(&peer, &[c"--wait", c"60", c"true"])), ["A=1"]);
}
