//! A launch request, as the daemon answers it: over a real socket, by its own code, with a policy that grants some of its
//! variables.

use devbox_exec::payload::{check_names, index_variables, name_of};
use devbox_launch_proto::{
    Answer, AnswerHeader, HEADER_LEN, Item, Items, MAX_ERROR_LEN, RequestBuilder, RequestHeader,
};

use crate::daemon::{GRANTED, WITHHELD, exchange};
use crate::holds;

/// Sends `bytes` and reads the answer as `devbox-exec` does.
///
/// # Panics
/// If the daemon answers what the launcher would not believe, or with a variable that is not granted, or if a
/// refusal repeats a value.
pub fn check(bytes: &[u8]) {
    check_round_trip(bytes);
    let message = exchange(bytes);
    // A launcher that knows a value may be told what it said itself.
    let told = |value| holds(&message, value) && !holds(bytes, value);
    let withheld = WITHHELD.iter().find(|(_, value)| told(value));
    assert!(withheld.is_none(), "{withheld:?} was told to a launcher that it is not granted to");
    match message.split_first_chunk::<HEADER_LEN>() {
        Some((header, payload)) => check_answer(bytes, header, payload),
        // A launcher that hangs up in the middle of its request is told nothing.
        None => assert!(message.is_empty(), "half a header: {message:?}"),
    }
}

/// A request that is read has one form, and the builder writes it.
fn check_round_trip(bytes: &[u8]) {
    let Some((header, body)) = bytes.split_first_chunk::<HEADER_LEN>() else { return };
    let Ok(decoded) = RequestHeader::decode(header) else { return };
    let Some(body) = body.get(..decoded.body_len as usize) else { return };
    let items: Result<Vec<Item<'_>>, _> = Items::new(body).collect();
    let Ok(items) = items else { return };
    let mut buffer = vec![0; HEADER_LEN + body.len()];
    let mut builder =
        RequestBuilder::new(&mut buffer, decoded.flags, decoded.wait_ms).expect("there is room for a header");
    for item in items {
        builder.push(item).expect("there is room for what was read");
    }
    assert_eq!(builder.finish(), [header.as_slice(), body].concat(), "a request has two forms");
}

fn check_answer(request: &[u8], header: &[u8; HEADER_LEN], payload: &[u8]) {
    let answer = AnswerHeader::decode(header).expect("the launcher believes the header");
    let (count, len) = (answer.count as usize, answer.len as usize);
    match answer.answer {
        Answer::Error(_) => {
            assert!(len == payload.len() && len <= MAX_ERROR_LEN as usize);
            check_refusal(request, std::str::from_utf8(payload).expect("a refusal is UTF-8"));
        }
        Answer::Names => {
            assert_eq!(len, payload.len());
            assert_eq!(check_names(payload, count), Ok(()));
            strings(payload).for_each(|name| assert_granted(request, name));
        }
        Answer::Inline => {
            assert_eq!(len, payload.len());
            let mut table = vec![std::ptr::null(); count];
            index_variables(payload, &mut table).expect("the launcher believes the payload");
            strings(payload).for_each(|string| assert_granted(request, name_of(string)));
        }
        // The descriptor's content is tested with the launch answers.
        Answer::Descriptor => assert!(payload.is_empty()),
    }
}

fn check_refusal(request: &[u8], text: &str) {
    assert!(!text.is_empty() && !text.chars().any(char::is_control), "not one line: {text:?}");
    let value = GRANTED.iter().find(|(_, value)| text.contains(value) && !holds(request, value));
    assert!(value.is_none(), "a refusal repeats a value: {text}");
}

/// A variable has a granted name, or one that the request gave it by `NEW=NAME`.
fn assert_granted(request: &[u8], name: &[u8]) {
    let granted = GRANTED.iter().any(|(granted, _)| granted.as_bytes() == name);
    let renamed = || request.windows(name.len() + 1).any(|at| at.strip_prefix(name) == Some(b"="));
    assert!(granted || renamed(), "{} is not granted", name.escape_ascii());
}

fn strings(payload: &[u8]) -> impl Iterator<Item = &[u8]> {
    payload.split_inclusive(|byte| *byte == 0).map(|string| string.strip_suffix(b"\0").unwrap_or(string))
}
