//! Confines itself exactly as the daemon does, and then does one thing: so that `tests/confinement.rs` sees from outside what
//! becomes of a daemon that somebody took over. No part of any package.
//!
//! `confined CONFIG SOCKET SERVER DEED [ARGUMENT]`: 0 if the deed was done, 1 and the system's error on standard error if it
//! was refused, `SIGSYS` if the kernel ended the process.
#![allow(clippy::unwrap_used, reason = "a broken expectation is a failed test")]

use std::fs::{self, File};
use std::io;
use std::net::{TcpListener, TcpStream, ToSocketAddrs};
use std::num::NonZeroUsize;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use devbox_secretsd::harden::{self, Mode, Reach};
use devbox_secretsd::sys::{Requirement, SecretMemory};
use devbox_secretsd::telemetry::stderr;
use nix::sched::{CloneFlags, unshare};
use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
use nix::sys::ptrace;
use nix::sys::resource::{Resource, setrlimit};
use nix::sys::signal::{Signal, kill, raise};
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::{Pid, Uid, User, getppid, getuid, setuid};

fn main() -> io::Result<()> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [config, socket, server, deed, rest @ ..] = &arguments[..] else {
        panic!("see the head of this file")
    };
    // Asked now: afterwards the question alone would be the end.
    let parent = getppid();
    // As at the start of a daemon whose rules name users: the name service's modules are loaded.
    let _ = User::from_name("nobody-has-this-name");
    let hardening = harden::process();
    let memory = SecretMemory::probe(Requirement::Any, 4_096).unwrap();
    let server = server.parse().unwrap();
    let reach =
        Reach { config: Path::new(config), identity: &[], sockets: &[Path::new(socket)], server: &server };
    hardening.drop_privileges(false).confine(&reach, &memory, Mode::BestEffort).unwrap();
    perform(deed, rest.first().map_or("", String::as_str), parent)
}

fn perform(deed: &str, argument: &str, parent: Pid) -> io::Result<()> {
    match deed {
        "read" => fs::read(argument).map(drop),
        "write" => File::create(argument).map(drop),
        "remove" => fs::remove_file(argument),
        "connect" => TcpStream::connect(argument).map(drop),
        "find a user" => User::from_name(argument)?.map(drop).ok_or(io::ErrorKind::NotFound.into()),
        "look up" => (argument, 1).to_socket_addrs().map(drop),
        "listen" => TcpListener::bind(argument).map(drop),
        "start a thread" => std::thread::spawn(|| ()).join().map_err(|_| io::Error::other("it panicked")),
        "start a process" => Command::new(argument).spawn().map(drop),
        "panic" => {
            stderr::take_panics("confined");
            panic!("as it was asked to")
        }
        "execute" => Err(Command::new(argument).exec()),
        _ => Ok(attack(deed, parent)?),
    }
}

fn attack(deed: &str, parent: Pid) -> nix::Result<()> {
    let raw = |family| socket(family, SockType::Raw, SockFlag::empty(), None).map(drop);
    match deed {
        "trace" => ptrace::attach(parent),
        "signal another" => kill(parent, None),
        "signal itself" => raise(Signal::SIGURG),
        "read another's memory" => {
            process_vm_readv(parent, &mut [], &[RemoteIoVec { base: 0, len: 0 }]).map(drop)
        }
        "new namespace" => unshare(CloneFlags::CLONE_NEWUSER),
        "raw socket" => raw(AddressFamily::Inet),
        "packet socket" => raw(AddressFamily::Packet),
        "netlink socket" => raw(AddressFamily::Netlink),
        "become another user" => setuid(Uid::from_raw(getuid().as_raw() + 1)),
        "raise a limit" => setrlimit(Resource::RLIMIT_CORE, 1, 1),
        "map code" => map(ProtFlags::PROT_READ | ProtFlags::PROT_EXEC),
        "map writable code" => map(ProtFlags::PROT_WRITE | ProtFlags::PROT_EXEC),
        _ => panic!("there is no {deed}"),
    }
}

#[allow(unsafe_code, reason = "mapping memory is")]
fn map(protection: ProtFlags) -> nix::Result<()> {
    let page = NonZeroUsize::MIN;
    // SAFETY: the kernel chooses a free place, and nobody uses it.
    unsafe { mmap_anonymous(None, page, protection, MapFlags::MAP_PRIVATE) }.map(drop)
}
