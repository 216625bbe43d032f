//! The kernel's log (`/dev/kmsg`, syslog(2)). Since Linux 5.18 the kernel's random number generator logs a line when the vmgenid
//! driver finds another VM generation ID; there is no other way for a process to learn of it.
//!
//! If lines were overwritten before they were read, that is logged and not treated as a clone: a daemon that was stopped for a
//! while misses some, and a process that can fill the log could otherwise have every secret wiped. The control plane detects
//! such a copy.

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

#[derive(Debug)]
pub(super) struct KernelLog(File);

impl KernelLog {
    /// Opens it by its path or, if the sandbox hides that, takes standard input, if it is the log. `None` if neither is, or
    /// CAP_SYSLOG is missing.
    pub(super) fn open() -> Option<Self> {
        by_path()
            .or_else(|| passed(File::from(io::stdin().as_fd().try_clone_to_owned().ok()?)))
            .and_then(Self::from_here)
    }

    fn from_here(mut log: File) -> Option<Self> {
        log.seek(SeekFrom::End(0)).ok()?;
        Some(Self(log))
    }

    pub(super) fn another_handle(&self) -> io::Result<File> {
        self.0.try_clone()
    }

    /// Reads the new lines, and returns whether one reports a new VM generation. One system call if there are no lines.
    pub(super) fn reports_new_generation(&self) -> bool {
        let mut record = [0; MAX_RECORD];
        let mut found = false;
        loop {
            match (&self.0).read(&mut record) {
                Ok(len) => found |= is_new_generation(&record[..len]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.raw_os_error() == Some(EPIPE) => {
                    warn!(
                        "lines of the kernel's log were overwritten before they were read: a new VM generation could be missed"
                    )
                }
                Err(_) => return found,
            }
        }
    }
}

fn by_path() -> Option<File> {
    File::options().read(true).custom_flags(O_NONBLOCK).open(PATH).ok().filter(is_log)
}

/// The log on standard input. Any other input stays as it is.
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

    /// `None`, and the test is skipped, if this process may not read the log.
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
    fn a_line_that_a_process_forges_is_not_taken_for_the_kernels() {
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
        assert!(!log.reports_new_generation(), "{forged}");
        let (_, rest) = forged.split_once(',').unwrap();
        assert!(is_new_generation(format!("5,{rest}").as_bytes()), "the kernel's own would be: {forged}");
    }

    #[test]
    fn an_input_that_is_the_log_is_read_without_waiting() {
        let Some(_) = log() else { return };
        let log = passed(File::open(PATH).unwrap()).and_then(KernelLog::from_here).unwrap();
        assert!(!log.reports_new_generation());
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
