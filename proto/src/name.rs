//! Names of environment variables, and the room that the kernel leaves for their values.

use devbox_launch_proto::is_name;
pub use devbox_launch_proto::{MAX_ARG_STRLEN, MAX_NAME_LEN};
use thiserror::Error;

/// Why a name or a value cannot become an environment variable. Never repeats the value.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
pub enum InvalidVariable {
    /// The name does not match `[A-Za-z_][A-Za-z0-9_]*`.
    #[error("a name starts with a letter or '_' and continues with letters, digits and '_' (ASCII)")]
    NameCharacters,
    /// The name is longer than [`MAX_NAME_LEN`].
    #[error("a name has at most 255 bytes; this one has {0}")]
    NameLength(usize),
    /// The value has a NUL byte, which ends a C string.
    #[error("a value cannot contain a NUL byte: an environment variable ends there")]
    ValueNul,
    /// `NAME=VALUE\0` would be longer than [`MAX_ARG_STRLEN`].
    #[error(
        "the value has {len} bytes; under this name at most {max} fit into one environment variable \
         (Linux MAX_ARG_STRLEN): store it in parts"
    )]
    ValueLength {
        /// The value's length in bytes.
        len: usize,
        /// The longest value under this name, in bytes.
        max: usize,
    },
}

/// Checks that `name` matches `[A-Za-z_][A-Za-z0-9_]*` and has at most [`MAX_NAME_LEN`] bytes.
///
/// # Errors
/// [`InvalidVariable::NameLength`] or [`InvalidVariable::NameCharacters`].
pub fn check_name(name: &str) -> Result<(), InvalidVariable> {
    if name.len() > MAX_NAME_LEN {
        return Err(InvalidVariable::NameLength(name.len()));
    }
    if is_name(name.as_bytes()) { Ok(()) } else { Err(InvalidVariable::NameCharacters) }
}

/// Longest value under `name`, in bytes: the rest of [`MAX_ARG_STRLEN`] after `NAME=` and the final NUL.
#[must_use]
pub fn max_value_len(name: &str) -> usize {
    MAX_ARG_STRLEN.saturating_sub(name.len() + 2)
}

/// Checks that `value` can be the value of the environment variable `name`.
///
/// # Errors
/// [`InvalidVariable::ValueNul`] or [`InvalidVariable::ValueLength`].
pub fn check_value(name: &str, value: &[u8]) -> Result<(), InvalidVariable> {
    let max = max_value_len(name);
    if value.len() > max {
        return Err(InvalidVariable::ValueLength { len: value.len(), max });
    }
    if value.contains(&0) {
        return Err(InvalidVariable::ValueNul);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_portable_environment_variables() {
        for good in ["A", "_", "a9", "DATABASE_PASSWORD", &"N".repeat(255)] {
            assert_eq!(check_name(good), Ok(()), "{good}");
        }
        for bad in ["", "9A", "A-B", "A B", "A=B", "Ä", "A\0", "A\n"] {
            assert_eq!(check_name(bad), Err(InvalidVariable::NameCharacters), "{bad:?}");
        }
        assert_eq!(check_name(&"N".repeat(256)), Err(InvalidVariable::NameLength(256)));
    }

    #[test]
    fn a_value_and_its_name_fill_one_argument_string_exactly() {
        let max = max_value_len("KEY");
        assert_eq!("KEY=".len() + max + 1, MAX_ARG_STRLEN);
        assert_eq!(check_value("KEY", &vec![b'x'; max]), Ok(()));
        let error = InvalidVariable::ValueLength { len: max + 1, max };
        assert_eq!(check_value("KEY", &vec![b'x'; max + 1]), Err(error));
        assert_eq!(check_value("KEY", b"a\0b"), Err(InvalidVariable::ValueNul));
    }
}
