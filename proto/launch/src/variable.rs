//! Environment variables: valid names, and the longest variable and environment.

/// Longest name, in bytes.
pub const MAX_NAME_LEN: usize = 255;

/// Longest `NAME=VALUE\0` that `execve(2)` takes, in bytes: `MAX_ARG_STRLEN`, 32 pages of 4 KiB.
pub const MAX_ARG_STRLEN: usize = 131_072;

/// The most that Linux takes for argv and envp together, whatever the stack limit, in bytes: three quarters of 8 MiB
/// (`bprm_stack_limits` in `fs/exec.c`). Counted are all strings with their NULs, and eight bytes for each pointer.
pub const LARGEST_ROOM: usize = 6 << 20;

/// Whether `name` matches `[A-Za-z_][A-Za-z0-9_]*` and has at most [`MAX_NAME_LEN`] bytes.
#[must_use]
pub fn is_name(name: &[u8]) -> bool {
    leading_name(name).is_some_and(|leading| leading.len() == name.len())
}

/// The valid name that `bytes` start with, as long as possible.
#[must_use]
pub fn leading_name(bytes: &[u8]) -> Option<&[u8]> {
    let belongs = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    let end = bytes.iter().position(|byte| !belongs(byte)).unwrap_or(bytes.len());
    let starts_well = bytes.first().is_some_and(|byte| belongs(byte) && !byte.is_ascii_digit());
    (starts_well && end <= MAX_NAME_LEN).then(|| &bytes[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_portable_environment_variables() {
        for good in [&b"A"[..], b"_", b"a9", b"DATABASE_PASSWORD", &[b'N'; MAX_NAME_LEN]] {
            assert!(is_name(good), "{good:?}");
        }
        for bad in
            [&b""[..], b"9A", b"A-B", b"A B", b"A=B", b"\xc3\x84", b"A\0", b"A\n", &[b'N'; MAX_NAME_LEN + 1]]
        {
            assert!(!is_name(bad), "{bad:?}");
        }
    }

    #[test]
    fn a_leading_name_ends_at_the_first_byte_that_belongs_to_none() {
        assert_eq!(leading_name(b"KEY=value"), Some(&b"KEY"[..]));
        assert_eq!(leading_name(b"=value"), None);
        assert_eq!(leading_name(&[b'N'; MAX_NAME_LEN + 1]), None);
    }
}
