//! The daemon's answer, believed only after a check: exactly `count` strings, each with its NUL, names valid and in
//! strictly ascending order. The strings stay where they are.

use core::ffi::{CStr, c_char};
use core::fmt;

use devbox_launch_proto::{is_name, leading_name};

/// The strings are not what the protocol promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidPayload {
    /// There are fewer or more strings than the header says, or the last has no NUL.
    Count,
    /// A string does not start with a valid name.
    Name,
    /// Names are not in strictly ascending order.
    Order,
    /// The daemon wiped them meanwhile.
    Withdrawn,
}

impl fmt::Display for InvalidPayload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Count => "there are not as many variables as it says",
            Self::Name => "a variable's name is invalid",
            Self::Order => "the variables are not in order",
            Self::Withdrawn => "the secrets were withdrawn while this launch was starting",
        })
    }
}

impl core::error::Error for InvalidPayload {}

/// The name of an environment string: what is before its `=`, or all of it.
#[must_use]
pub fn name_of(string: &[u8]) -> &[u8] {
    let end = string.iter().position(|byte| *byte == b'=').unwrap_or(string.len());
    &string[..end]
}

/// Checks `payload`, writes the address of each `NAME=VALUE` into `table` (one entry a string), and answers the length
/// of the longest, in bytes with its NUL.
///
/// # Errors
/// [`InvalidPayload`]; `table` may be half filled.
pub fn index_variables(payload: &[u8], table: &mut [*const c_char]) -> Result<usize, InvalidPayload> {
    let index = || {
        let mut strings = Strings { rest: payload, previous: b"" };
        let mut longest = 0;
        for entry in table {
            let string = strings.take(variable_name)?;
            *entry = string.as_ptr();
            longest = longest.max(string.count_bytes() + 1);
        }
        strings.finish().map(|()| longest)
    };
    index().map_err(|error| if is_wiped(payload) { InvalidPayload::Withdrawn } else { error })
}

/// Whether the daemon has wiped the payload, or a part of it: no string is empty otherwise. It does so if a secret is changed
/// or revoked between the answer and the moment when the launcher reads it.
fn is_wiped(payload: &[u8]) -> bool {
    payload.first() == Some(&0) || payload.windows(2).any(|pair| pair == [0, 0])
}

/// Checks that `payload` is `count` strings `NAME\0`.
///
/// # Errors
/// [`InvalidPayload`].
pub fn check_names(payload: &[u8], count: usize) -> Result<(), InvalidPayload> {
    let mut strings = Strings { rest: payload, previous: b"" };
    for _ in 0..count {
        strings.take(|string| Some(string).filter(|name| is_name(name)))?;
    }
    strings.finish()
}

struct Strings<'a> {
    rest: &'a [u8],
    previous: &'a [u8],
}

impl<'a> Strings<'a> {
    fn take(&mut self, name: impl Fn(&'a [u8]) -> Option<&'a [u8]>) -> Result<&'a CStr, InvalidPayload> {
        // The search goes word by word, in the standard library's own memchr.
        let string = CStr::from_bytes_until_nul(self.rest).map_err(|_| InvalidPayload::Count)?;
        let name = name(string.to_bytes()).ok_or(InvalidPayload::Name)?;
        if name <= self.previous {
            return Err(InvalidPayload::Order);
        }
        self.previous = name;
        self.rest = &self.rest[string.count_bytes() + 1..];
        Ok(string)
    }

    const fn finish(&self) -> Result<(), InvalidPayload> {
        if self.rest.is_empty() { Ok(()) } else { Err(InvalidPayload::Count) }
    }
}

fn variable_name(string: &[u8]) -> Option<&[u8]> {
    leading_name(string).filter(|name| string.get(name.len()) == Some(&b'='))
}

#[cfg(test)]
mod tests {
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn index(payload: &[u8], count: usize) -> Result<Vec<usize>, InvalidPayload> {
        let mut table = vec![core::ptr::null(); count];
        index_variables(payload, &mut table)?;
        Ok(table.iter().map(|entry| entry.addr() - payload.as_ptr().addr()).collect())
    }

    #[test]
    fn each_string_is_found_where_it_lies() {
        assert_eq!(index(b"A=1\0B=\0C=x=\ny\0", 3), Ok(vec![0, 4, 7]));
        assert_eq!(index(b"", 0), Ok(vec![]));
    }

    #[test]
    fn the_longest_string_counts_its_nul() {
        assert_eq!(index_variables(b"A=1\0LONG=12345\0", &mut [core::ptr::null(); 2]), Ok(11));
    }

    #[test]
    fn each_broken_promise_has_its_error() {
        assert_eq!(index(b"A=1\0", 2), Err(InvalidPayload::Count));
        assert_eq!(index(b"A=1\0B=2\0", 1), Err(InvalidPayload::Count));
        assert_eq!(index(b"A=1", 1), Err(InvalidPayload::Count));
        assert_eq!(index(b"A\0", 1), Err(InvalidPayload::Name));
        assert_eq!(index(b"=1\0", 1), Err(InvalidPayload::Name));
        assert_eq!(index(b"9A=1\0", 1), Err(InvalidPayload::Name));
        assert_eq!(index(b"A-B=1\0", 1), Err(InvalidPayload::Name));
        assert_eq!(index(b"B=1\0A=2\0", 2), Err(InvalidPayload::Order));
        assert_eq!(index(b"A=1\0A=2\0", 2), Err(InvalidPayload::Order));
    }

    #[test]
    fn order_is_by_name_not_by_string() {
        assert_eq!(index(b"A=2\0A1=1\0", 2), Ok(vec![0, 4]));
        assert_eq!(index(b"A1=1\0A=2\0", 2), Err(InvalidPayload::Order));
    }

    #[test]
    fn a_payload_wiped_up_to_any_byte_is_known_as_withdrawn() {
        let payload = b"ALPHA=1\0BETA=two\0C=3\0";
        for wiped in 1..=payload.len() {
            let mut bytes = Vec::from(payload);
            bytes[..wiped].fill(0);
            assert_eq!(
                index_variables(&bytes, &mut [core::ptr::null(); 3]),
                Err(InvalidPayload::Withdrawn),
                "{wiped}"
            );
        }
    }

    #[test]
    fn names_are_checked_as_variables_are() {
        assert_eq!(check_names(b"A\0B\0", 2), Ok(()));
        assert_eq!(check_names(b"A\0B", 2), Err(InvalidPayload::Count));
        assert_eq!(check_names(b"A\0\x1b[2J\0", 2), Err(InvalidPayload::Name));
        assert_eq!(check_names(b"B\0A\0", 2), Err(InvalidPayload::Order));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_check_panic(
            bytes in proptest::collection::vec(prop_oneof![Just(0u8), Just(b'='), Just(b'A'), any::<u8>()], 0..200),
            count in 0usize..40,
        ) {
            let _ = check_names(&bytes, count);
            if let Ok(offsets) = index(&bytes, count) {
                prop_assert_eq!(offsets.len(), bytes.iter().filter(|byte| **byte == 0).count());
            }
        }

        #[test]
        fn an_answer_that_follows_the_protocol_is_accepted(
            map in proptest::collection::btree_map("[A-Za-z_][A-Za-z0-9_]{0,20}", "[^\0]{0,60}", 0..50),
        ) {
            let payload: Vec<u8> =
                map.iter().flat_map(|(name, value)| std::format!("{name}={value}\0").into_bytes()).collect();
            prop_assert_eq!(index(&payload, map.len()).map(|offsets| offsets.len()), Ok(map.len()));
        }
    }
}
