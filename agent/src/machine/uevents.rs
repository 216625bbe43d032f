//! What the kernel tells of its devices (`NETLINK_KOBJECT_UEVENT`, netlink(7)), of which only one thing counts: the vmgenid
//! driver says `NEW_VMGENID=1` when the hypervisor has given the machine another VM generation ID (Linux 6.10 or later), as it does
//! when a snapshot is started.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::sockopt::RcvBuf;
use nix::sys::socket::{
    AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recvfrom, setsockopt, socket,
};
use tracing::warn;

/// The kernel's own messages; udev's are another group's.
const KERNEL_GROUP: u32 = 1;
/// Port of the kernel.
const KERNEL: u32 = 0;
/// Longest message, in bytes: the kernel makes none of more than 2 KiB and a path.
const MAX_MESSAGE: usize = 8 * 1024;
/// Room for what a machine has to tell at once when it is started from a snapshot, in bytes.
const BUFFER: usize = 1 << 20;
const NEW_GENERATION: &[u8] = b"NEW_VMGENID=1";
/// The driver, on machines with ACPI and with a device tree.
const DRIVERS: [&str; 2] = ["/sys/bus/acpi/drivers/vmgenid", "/sys/bus/platform/drivers/vmgenid"];

/// A socket that hears them.
#[derive(Debug)]
pub(super) struct Uevents(OwnedFd);

impl Uevents {
    /// None where the sandbox allows no such socket.
    pub(super) fn listen() -> Option<Self> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let protocol = SockProtocol::NetlinkKObjectUEvent;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, protocol).ok()?;
        // Best effort: the kernel gives as much as its own limit.
        let _ = setsockopt(&socket, RcvBuf, &BUFFER);
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_GROUP)).ok()?;
        Some(Self(socket))
    }

    /// Reads what has arrived. One system call where nothing has.
    pub(super) fn tell_of_a_new_generation(&self) -> bool {
        let mut message = [0; MAX_MESSAGE];
        let mut found = false;
        loop {
            match recvfrom::<NetlinkAddr>(self.0.as_raw_fd(), &mut message) {
                Ok((len, from)) => found |= is_kernel(from) && is_new_generation(&message[..len]),
                // The kernel is asked again: it has messages, and dropped some.
                Err(Errno::ENOBUFS) => {
                    warn!("the kernel dropped events: a new VM generation could be missed")
                }
                Err(Errno::EINTR) => {}
                Err(_) => return found,
            }
        }
    }
}

/// Others need a capability to send, and are not believed with it.
fn is_kernel(from: Option<NetlinkAddr>) -> bool {
    from.is_some_and(|from| from.pid() == KERNEL)
}

/// A message is a summary and `KEY=VALUE` strings, each with a NUL after it.
fn is_new_generation(message: &[u8]) -> bool {
    message.split(|byte| *byte == 0).skip(1).any(|field| field == NEW_GENERATION)
}

/// Whether there is a device whose driver would tell.
pub(super) fn has_generation() -> bool {
    DRIVERS.iter().any(|driver| {
        let devices = fs::read_dir(driver).into_iter().flatten().flatten();
        devices.into_iter().any(|entry| entry.file_name().to_string_lossy().contains(':'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_drivers_own_word_is_a_new_generation() {
        let told = |text: &str| is_new_generation(text.replace('|', "\0").as_bytes());
        let path = "change@/devices/LNXSYSTM:00/QEMUVGID:00";
        assert!(told(&format!("{path}|ACTION=change|SUBSYSTEM=acpi|NEW_VMGENID=1|SEQNUM=4711|")));
        assert!(told(&format!("{path}|NEW_VMGENID=1")));
        assert!(!told(&format!("{path}|ACTION=change|XNEW_VMGENID=1|NEW_VMGENID=10|")));
        assert!(!told("NEW_VMGENID=1") && !told("") && !told("libudev|"));
    }

    #[test]
    fn nobody_but_the_kernel_is_believed() {
        assert!(is_kernel(Some(NetlinkAddr::new(0, KERNEL_GROUP))));
        assert!(!is_kernel(Some(NetlinkAddr::new(4711, KERNEL_GROUP))) && !is_kernel(None));
    }

    #[test]
    fn silence_is_no_new_generation() {
        let Some(uevents) = Uevents::listen() else { return println!("SKIPPED: no netlink here") };
        assert!(!uevents.tell_of_a_new_generation());
    }
}
