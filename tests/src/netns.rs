//! A network of a test's own: the test and its server in one network namespace, a daemon in another, one wire between them,
//! and what can happen to a wire.
//!
//! It touches nothing outside, and both namespaces are gone with the test (network_namespaces(7)). Needs root, `ip` and `nft`.

use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsRawFd as _;
use std::process::{Command, Stdio};

use nix::sched::{CloneFlags, setns, unshare};
use tokio::runtime;

use crate::needs;
use crate::process::becoming;

/// Where a server listens in the test's namespace.
pub const SERVER: &str = "10.0.0.1";
const DEVBOX: &str = "10.0.0.2";
const NETWORK: &str = "10.0.0.0/30";

/// The two ends of the wire.
const SERVERS_END: &str = "server";
const DEVBOXS_END: &str = "devbox";

/// Whether this test can have a network of its own.
#[must_use]
pub fn can_be_made() -> bool {
    let made = || std::thread::spawn(|| unshare(CloneFlags::CLONE_NEWNET).is_ok()).join().unwrap_or(false);
    needs::root()
        && needs::met(made(), "network namespaces, which a container may forbid (CAP_SYS_ADMIN)")
        && needs::program("nft", "nftables")
        && needs::program_says("ip", "-V", "iproute2")
}

/// Skips the test, with a line of output, unless it can have a network of its own.
#[macro_export]
macro_rules! require_netns {
    () => {
        if !$crate::netns::can_be_made() {
            return;
        }
    };
}

/// A fault of the wire.
#[derive(Debug, Clone, Copy)]
pub enum Fault {
    /// Packets vanish in both directions.
    Drop,
    /// A firewall answers the devbox's packets with a reset.
    Reject,
    /// The server's end is down.
    LinkDown,
    /// The devbox has no route to the server.
    NoRoute,
}

/// The wire, and the namespace at its far end.
#[derive(Debug)]
pub struct Wire {
    devbox: File,
}

/// Runs `test` in a namespace of its own: a server that it starts can listen at [`SERVER`].
///
/// # Panics
/// If `test` does, or the namespaces cannot be made.
pub fn apart(test: impl AsyncFnOnce(Wire) + Send + 'static) {
    let body = move || {
        let wire = Wire::new();
        let runtime = runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime can be made").block_on(test(wire));
    };
    // A thread has its namespaces for itself, and so have the programs that it starts.
    let name = std::thread::current().name().unwrap_or_default().to_owned();
    let thread = std::thread::Builder::new().name(name).spawn(body).expect("a thread can be made");
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

impl Wire {
    fn new() -> Self {
        let devbox = std::thread::spawn(enter_new_namespace).join().expect("root can make a namespace");
        let wire = Self { devbox };
        enter_new_namespace();
        let there = wire.devbox_path();
        ip(&["link", "add", SERVERS_END, "type", "veth", "peer", "name", DEVBOXS_END, "netns", &there]);
        ip(&["addr", "add", &format!("{SERVER}/30"), "dev", SERVERS_END]);
        wire.ip_there(&["addr", "add", &format!("{DEVBOX}/30"), "dev", DEVBOXS_END]);
        for link in ["lo", SERVERS_END] {
            ip(&["link", "set", link, "up"]);
        }
        wire.ip_there(&["link", "set", DEVBOXS_END, "up"]);
        wire
    }

    /// The same program at the devbox's end. Standard input and output are nowhere.
    #[must_use]
    pub fn at_devbox(&self, command: &Command) -> Command {
        let mut enter = Command::new("nsenter");
        enter.arg(format!("--net={}", self.devbox_path())).arg("--");
        let mut there = becoming(enter, command);
        there.stdin(Stdio::null()).stdout(Stdio::null());
        there
    }

    /// From now on the wire has this fault.
    pub fn fault(&self, fault: Fault) {
        match fault {
            Fault::Drop => nft("drop", "drop"),
            Fault::Reject => nft("meta l4proto tcp reject with tcp reset", "accept"),
            Fault::LinkDown => ip(&["link", "set", SERVERS_END, "down"]),
            Fault::NoRoute => self.ip_there(&["route", "del", NETWORK]),
        }
    }

    /// Takes the fault away again.
    pub fn heal(&self, fault: Fault) {
        match fault {
            Fault::Drop | Fault::Reject => run(Command::new("nft").args(["delete", "table", "fault"])),
            Fault::LinkDown => ip(&["link", "set", SERVERS_END, "up"]),
            Fault::NoRoute => self.ip_there(&["route", "add", NETWORK, "dev", DEVBOXS_END]),
        }
    }

    /// A connection from the devbox's end.
    ///
    /// # Panics
    /// If nobody listens at `address`.
    #[must_use]
    pub fn connect_from_devbox(&self, address: SocketAddr) -> TcpStream {
        let connect = || {
            setns(&self.devbox, CloneFlags::CLONE_NEWNET).expect("root may enter its own namespace");
            TcpStream::connect(address).expect("the server listens")
        };
        std::thread::scope(|scope| scope.spawn(connect).join().expect("the thread does not panic"))
    }

    fn ip_there(&self, arguments: &[&str]) {
        run(&mut self.at_devbox(Command::new("ip").args(arguments)));
    }

    fn devbox_path(&self) -> String {
        format!("/proc/{}/fd/{}", std::process::id(), self.devbox.as_raw_fd())
    }
}

/// Sets the fate of packets at the server's end, by nft(8).
fn nft(incoming: &str, outgoing: &str) {
    let table = format!(
        "table ip fault {{
            chain incoming {{ type filter hook input priority 0; iifname {SERVERS_END} {incoming}; }}
            chain outgoing {{ type filter hook output priority 0; oifname {SERVERS_END} {outgoing}; }}
        }}"
    );
    run(Command::new("nft").arg(table));
}

/// Moves this thread into a new network namespace.
fn enter_new_namespace() -> File {
    unshare(CloneFlags::CLONE_NEWNET).expect("root can make a network namespace");
    File::open("/proc/thread-self/ns/net").expect("/proc is mounted")
}

fn ip(arguments: &[&str]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) {
    let output = command.output().expect("the program is there");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
}
