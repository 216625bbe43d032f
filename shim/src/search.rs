//! The search for a command, as in execvp(3): a name with a slash is a path. Any other name is tried in each directory
//! of `PATH`, and an empty directory is the current one.

use core::ffi::CStr;

use syscalls::Errno;

/// The `PATH` to search if the environment has none.
pub const DEFAULT_PATH: &[u8] = b"/usr/local/bin:/usr/bin:/bin";

/// Longest path, in bytes with its NUL: `PATH_MAX`.
pub const PATH_MAX: usize = 4_096;

/// Whether `command` is a path itself. An empty one is not searched for.
#[must_use]
pub fn is_path(command: &CStr) -> bool {
    command.is_empty() || command.to_bytes().contains(&b'/')
}

/// The directories of a `PATH`, in order.
pub fn directories(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    path.split(|byte| *byte == b':')
}

/// Writes `directory/command` into `buffer`; `None` if it does not fit. Over [`PATH_MAX`] it cannot exist.
pub fn candidate<'b>(directory: &[u8], command: &CStr, buffer: &'b mut [u8]) -> Option<&'b CStr> {
    let command = command.to_bytes_with_nul();
    let slash = usize::from(!directory.is_empty());
    let start = directory.len() + slash;
    let end = start + command.len();
    buffer.get_mut(..end)?;
    buffer[..directory.len()].copy_from_slice(directory);
    buffer[directory.len()..start].fill(b'/');
    buffer[start..end].copy_from_slice(command);
    CStr::from_bytes_with_nul(&buffer[..end]).ok()
}

/// Whether the search continues after this error: the file is not there, or not for this user.
#[must_use]
pub fn goes_on(error: Errno) -> bool {
    matches!(
        error,
        Errno::ENOENT
            | Errno::ENOTDIR
            | Errno::EACCES
            | Errno::ENAMETOOLONG
            | Errno::ELOOP
            | Errno::ESTALE
            | Errno::ENODEV
            | Errno::ETIMEDOUT
    )
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use super::*;

    fn joined(directory: &[u8], command: &CStr) -> Option<Vec<u8>> {
        candidate(directory, command, &mut [0; PATH_MAX]).map(|path| path.to_bytes().to_vec())
    }

    #[test]
    fn only_a_name_without_slash_is_searched() {
        assert!(is_path(c"./x") && is_path(c"/bin/x") && is_path(c""));
        assert!(!is_path(c"x"));
    }

    #[test]
    fn an_empty_directory_is_the_current_one() {
        assert_eq!(directories(b":/bin:").collect::<Vec<_>>(), [&b""[..], b"/bin", b""]);
        assert_eq!(joined(b"", c"x").as_deref(), Some(&b"x"[..]));
        assert_eq!(joined(b"/bin", c"x").as_deref(), Some(&b"/bin/x"[..]));
    }

    #[test]
    fn a_candidate_is_no_longer_than_a_path_may_be() {
        let fits = [b'd'; PATH_MAX - 3];
        assert_eq!(joined(&fits, c"x").map(|path| path.len()), Some(PATH_MAX - 1));
        assert_eq!(joined(&[b'd'; PATH_MAX - 2], c"x"), None);
    }

    #[test]
    fn a_file_that_is_there_but_broken_ends_the_search() {
        assert!(goes_on(Errno::ENOENT) && goes_on(Errno::ENOTDIR) && goes_on(Errno::EACCES));
        assert!(!goes_on(Errno::ENOEXEC) && !goes_on(Errno::ETXTBSY) && !goes_on(Errno::E2BIG));
    }
}
