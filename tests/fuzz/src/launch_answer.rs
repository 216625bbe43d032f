//! The daemon's answer, as `devbox-exec` reads it: the header, then the strings that it says are there.

use std::ffi::CStr;
use std::ptr;

use devbox_exec::line::{Line, Text};
use devbox_exec::payload::{check_names, index_variables, name_of};
use devbox_launch_proto::{Answer, AnswerHeader, HEADER_LEN};
use devbox_secrets_proto::name::check_name;

/// Reads a header and everything after it.
///
/// # Panics
/// If a believed answer breaks a promise of the protocol, or a printed line is more than one.
pub fn check(bytes: &[u8]) {
    let Some((header, payload)) = bytes.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(decoded) = AnswerHeader::decode(header) else { return };
    assert_eq!(decoded.encode(), *header, "a header has two forms");
    match decoded.answer {
        Answer::Error(_) => check_line(payload),
        Answer::Names => check_name_list(payload, decoded.count),
        Answer::Descriptor | Answer::Inline => check_variables(payload, decoded.count),
    }
}

/// The daemon's text on the user's terminal.
fn check_line(text: &[u8]) {
    let line = Line::new(&Text(text));
    let printed = std::str::from_utf8(line.as_bytes()).expect("a line is UTF-8");
    let body = printed.strip_suffix('\n').expect("a line ends with a line feed");
    assert!(!body.chars().any(char::is_control), "control characters reach the terminal: {body:?}");
}

fn check_name_list(payload: &[u8], count: u32) {
    // A string takes two bytes: a larger count was refused with the header, but for its own length field.
    let count = (count as usize).min(payload.len() + 1);
    let accepted = check_names(payload, count).is_ok();
    assert_eq!(accepted, model(payload, count, |string| Some(string)), "{payload:?}");
}

fn check_variables(payload: &[u8], count: u32) {
    let count = (count as usize).min(payload.len() + 1);
    let mut table = vec![ptr::null(); count];
    let indexed = index_variables(payload, &mut table);
    assert_eq!(indexed.is_ok(), model(payload, count, before_equals), "{payload:?}");
    let Ok(longest) = indexed else { return };
    let strings: Vec<&[u8]> = payload.split_inclusive(|byte| *byte == 0).collect();
    let places = strings.iter().map(|string| string.as_ptr().addr());
    assert!(table.iter().map(|entry| entry.addr()).eq(places), "an entry points elsewhere than its string");
    assert_eq!(longest, strings.iter().map(|string| string.len()).max().unwrap_or(0));
}

/// The protocol's promise, word for word: `count` strings, valid names, strictly ascending.
fn model(payload: &[u8], count: usize, name: fn(&[u8]) -> Option<&[u8]>) -> bool {
    let strings: Vec<&[u8]> = payload.split_inclusive(|byte| *byte == 0).collect();
    let strings: Option<Vec<&CStr>> =
        strings.into_iter().map(|string| CStr::from_bytes_with_nul(string).ok()).collect();
    let names: Option<Vec<&[u8]>> =
        strings.and_then(|strings| strings.into_iter().map(|string| name(string.to_bytes())).collect());
    names.is_some_and(|names| {
        let valid = |name: &&[u8]| std::str::from_utf8(name).is_ok_and(|name| check_name(name).is_ok());
        names.len() == count && names.iter().all(valid) && names.windows(2).all(|pair| pair[0] < pair[1])
    })
}

fn before_equals(string: &[u8]) -> Option<&[u8]> {
    string.contains(&b'=').then(|| name_of(string))
}
