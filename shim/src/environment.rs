//! The command's environment: a table of pointers to strings that the kernel and the daemon wrote. No string is copied.

use core::ffi::{CStr, c_char};
use core::ptr;

use crate::payload::{InvalidPayload, index_variables, name_of};

/// An environment, ready for `execve(2)`.
#[derive(Debug)]
pub struct Environment<'t> {
    /// Pointers to the strings, with a NULL at the end.
    pub table: &'t [*const c_char],
    /// The length of the strings, in bytes with their NULs.
    pub bytes: usize,
    /// The longest injected string, in bytes with its NUL.
    pub longest: usize,
}

/// The number of entries that the table needs.
#[must_use]
pub const fn table_len(inherited: usize, injected: usize) -> usize {
    inherited + injected + 1
}

/// Builds the environment in `table`: the `inherited` strings whose name is not injected, in their order, then the
/// `count` strings of `payload`, in theirs.
///
/// # Errors
/// [`InvalidPayload`].
///
/// # Panics
/// If `table` has fewer than [`table_len`] entries.
pub fn build<'t, 'a>(
    inherited: impl DoubleEndedIterator<Item = &'a CStr>,
    payload: &'t [u8],
    count: usize,
    table: &'t mut [*const c_char],
) -> Result<Environment<'t>, InvalidPayload> {
    let mut start = table.len() - count - 1;
    let (kept, rest) = table.split_at_mut(start);
    let (injected, end) = rest.split_at_mut(count);
    end[0] = ptr::null();
    let longest = index_variables(payload, injected)?;
    let mut bytes = payload.len();
    // From the end, so that the kept strings lie against the injected ones, wherever they start.
    for string in inherited.rev() {
        if !is_injected(name_of(string.to_bytes()), payload, injected) {
            start -= 1;
            kept[start] = string.as_ptr();
            bytes += string.count_bytes() + 1;
        }
    }
    Ok(Environment { table: &table[start..], bytes, longest })
}

/// Whether `payload` has the name; `injected` points into it, in order of name.
fn is_injected(name: &[u8], payload: &[u8], injected: &[*const c_char]) -> bool {
    let offset = |entry: &*const c_char| entry.addr() - payload.as_ptr().addr();
    injected.binary_search_by(|entry| name_of(&payload[offset(entry)..]).cmp(name)).is_ok()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::ffi::CString;
    use std::format;
    use std::string::String;
    use std::vec;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn payload_of(variables: &[&str]) -> Vec<u8> {
        variables.iter().flat_map(|variable| format!("{variable}\0").into_bytes()).collect()
    }

    /// The strings that the table points to, found again by address.
    fn built(inherited: &[&str], injected: &[&str]) -> Vec<String> {
        let inherited: Vec<CString> = inherited.iter().map(|string| CString::new(*string).unwrap()).collect();
        let payload = payload_of(injected);
        let mut table = vec![ptr::null(); table_len(inherited.len(), injected.len())];
        let strings = || inherited.iter().map(CString::as_c_str);
        let environment = build(strings(), &payload, injected.len(), &mut table).unwrap();
        let read = |entry: &*const c_char| match strings().find(|string| string.as_ptr() == *entry) {
            Some(string) => String::from_utf8_lossy(string.to_bytes()).into_owned(),
            None => {
                let offset = entry.addr() - payload.as_ptr().addr();
                let string = CStr::from_bytes_until_nul(&payload[offset..]).unwrap();
                String::from_utf8_lossy(string.to_bytes()).into_owned()
            }
        };
        let (end, entries) = environment.table.split_last().unwrap();
        assert!(end.is_null());
        let strings: Vec<String> = entries.iter().map(read).collect();
        assert_eq!(environment.bytes, strings.iter().map(|string| string.len() + 1).sum::<usize>());
        strings
    }

    #[test]
    fn inherited_strings_come_first_and_injected_ones_win() {
        let strings = built(&["PATH=/bin", "KEY=old", "HOME=/root", "KEY=older"], &["API=1", "KEY=new"]);
        assert_eq!(strings, ["PATH=/bin", "HOME=/root", "API=1", "KEY=new"]);
    }

    #[test]
    fn a_string_without_a_value_is_replaced_too() {
        assert_eq!(built(&["KEY", "KEYS=1", "", "=x"], &["KEY=new"]), ["KEYS=1", "", "=x", "KEY=new"]);
    }

    #[test]
    fn an_environment_without_strings_is_empty() {
        assert_eq!(built(&[], &[]), Vec::<String>::new());
    }

    #[test]
    fn a_payload_that_lies_builds_nothing() {
        let mut table = [ptr::null(); 3];
        let error = build([c"A=1"].into_iter(), b"B=1", 1, &mut table).err();
        assert_eq!(error, Some(InvalidPayload::Count));
    }

    proptest! {
        #[test]
        fn merging_agrees_with_a_map(
            inherited in proptest::collection::vec(("[A-F]{1,2}", "[a-z=]{0,5}"), 0..30),
            injected in proptest::collection::btree_map("[A-F]{1,2}", "[a-z=]{0,5}", 0..30),
        ) {
            let string = |(name, value): (&String, &String)| format!("{name}={value}");
            let inherited_strings: Vec<String> = inherited.iter().map(|(n, v)| string((n, v))).collect();
            let injected_strings: Vec<String> = injected.iter().map(string).collect();
            let strings = built(
                &inherited_strings.iter().map(String::as_str).collect::<Vec<_>>(),
                &injected_strings.iter().map(String::as_str).collect::<Vec<_>>(),
            );
            let expected: Vec<String> = inherited
                .iter()
                .filter(|(name, _)| !BTreeMap::contains_key(&injected, name))
                .map(|(n, v)| string((n, v)))
                .chain(injected_strings)
                .collect();
            prop_assert_eq!(strings, expected);
        }
    }
}
