//! What the kernel writes into its log (`/dev/kmsg`, syslog(2)), of which one line counts: since Linux 5.18 its random number
//! generator says there that the vmgenid driver found another VM generation ID. Processes are told in no other way.
//!
//! A line that was overwritten before it was read is told of and taken for none: a daemon that was stopped for a while misses
//! some, and who can make the kernel talk could have every secret wiped. The control plane still tells such a copy apart.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _, Seek as _, SeekFrom};
use std::os::fd::AsFd as _;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, OpenOptionsExt as _};

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::libc::{EPIPE, O_NONBLOCK};
use nix::sys::stat::makedev;
use tracing::warn;

const PATH: &str = "/dev/kmsg";
/// Its major and minor number. In containers the path is often something else: a pipe, or `/dev/null`.
const DEVICE: (u64, u64) = (1, 11);
/// Longest record, in bytes: a read of less than one fails.
const MAX_RECORD: usize = 8 * 1024;
/// The kernel's own lines have facility 0, which no process can write: their number is the severity alone.
const SEVERITIES: u8 = 8;
const NEW_GENERATION: &[u8] = b"random: crng reseeded due to virtual machine fork";

/// The log from here on.
#[derive(Debug)]
pub(super) struct KernelLog(File);

impl KernelLog {
    /// By its path or, where the sandbox keeps that from this process, by standard input, if that is the log. None where
    /// neither is, or CAP_SYSLOG is missing.
    pub(super) fn open() -> Option<Self> {
        by_path()
            .or_else(|| passed(File::from(io::stdin().as_fd().try_clone_to_owned().ok()?)))
            .and_then(Self::from_here)
    }

    fn from_here(mut log: File) -> Option<Self> {
        log.seek(SeekFrom::End(0)).ok()?;
        Some(Self(log))
    }

    /// The same log, read to the same line: something to wait for.
    pub(super) fn another_handle(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Reads what was written since. One system call where nothing was.
    pub(super) fn tells_of_a_new_generation(&self) -> bool {
        let mut record = [0; MAX_RECORD];
        let mut found = false;
        loop {
            match (&self.0).read(&mut record) {
                Ok(len) => found |= is_new_generation(&record[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(EPIPE) => {
                    warn!("the kernel's log was overwritten unread: a new VM generation could be missed")
                }
                Err(_) => return found,
            }
        }
    }
}

fn by_path() -> Option<File> {
    File::options().read(true).custom_flags(O_NONBLOCK).open(PATH).ok().filter(is_log)
}

/// Anything but the log is left as it is.
fn passed(input: File) -> Option<File> {
    let log = Some(input).filter(is_log)?;
    fcntl(&log, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).ok()?;
    Some(log)
}

fn is_log(file: &File) -> bool {
    let (major, minor) = DEVICE;
    file.metadata()
        .is_ok_and(|file| file.file_type().is_char_device() && file.rdev() == makedev(major, minor))
}

/// A record is `severity and facility,number,time,flags;text`, and more lines.
fn is_new_generation(record: &[u8]) -> bool {
    let mut parts = record.splitn(2, |byte| *byte == b';');
    let (head, text) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let by_kernel = matches!(head, [level, b',', ..] if level.wrapping_sub(b'0') < SEVERITIES);
    by_kernel && text.split(|byte| *byte == b'\n').next() == Some(NEW_GENERATION)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use devbox_secrets_tests::needs::skipped;

    const LINE: &str = "random: crng reseeded due to virtual machine fork";

    /// None, aloud, where this process may not.
    fn log() -> Option<KernelLog> {
        let log = KernelLog::open();
        if log.is_none() {
            skipped("a kernel log that this user may read (root, outside of most containers)");
        }
        log
    }

    #[test]
    fn only_the_kernels_own_line_is_a_new_generation() {
        let told =
            |head: &str, text: &str| is_new_generation(format!("{head};{text}\n SUBSYSTEM=x\n").as_bytes());
        assert!(told("5,347,8396540,-", LINE) && told("5,347,8396540,-,caller=T1", LINE));
        assert!(!told("13,347,8396540,-", LINE), "a process wrote it");
        assert!(!told("5,347,8396540,-", &format!("{LINE} not")));
        assert!(!is_new_generation(b"") && !is_new_generation(b"5;"));
    }

    #[test]
    fn what_a_process_writes_into_the_log_is_not_believed_though_it_says_that_it_is_the_kernel() {
        let (Some(log), Some(again)) = (log(), log()) else { return };
        if fs::write(PATH, format!("<5>{LINE}\n")).is_err() {
            return skipped("a kernel log that this user may write (root)");
        }
        let mut record = [0; MAX_RECORD];
        let said = std::iter::from_fn(|| {
            let len = (&again.0).read(&mut record).ok()?;
            Some(String::from_utf8_lossy(&record[..len]).into_owned())
        });
        let forged = said.into_iter().find(|record| record.contains(LINE)).unwrap();
        assert!(!log.tells_of_a_new_generation(), "{forged}");
        let (_, rest) = forged.split_once(',').unwrap();
        assert!(is_new_generation(format!("5,{rest}").as_bytes()), "the kernel's own would be: {forged}");
    }

    #[test]
    fn an_input_that_is_the_log_is_read_without_waiting() {
        let Some(_) = log() else { return };
        let log = passed(File::open(PATH).unwrap()).and_then(KernelLog::from_here).unwrap();
        assert!(!log.tells_of_a_new_generation());
    }

    #[test]
    fn an_input_that_is_not_the_log_is_left_as_it_is() {
        assert!(passed(File::open("/dev/null").unwrap()).is_none());
        let (reader, _writer) = io::pipe().unwrap();
        let input = File::from(std::os::fd::OwnedFd::from(reader));
        assert!(passed(input.try_clone().unwrap()).is_none());
        let flags = fcntl(&input, FcntlArg::F_GETFL).unwrap();
        assert!(!OFlag::from_bits_retain(flags).contains(OFlag::O_NONBLOCK));
    }
}
