//! The address from which systemd asks for a credential. Anybody can bind such an address.

use devbox_secretsd::access::peer::{UnitName, UnitPattern};
use devbox_secretsd::local_api::credentials::address::Question;

use crate::assert_message;

/// Parses an abstract address, without its leading NUL.
///
/// # Panics
/// If a question is not exactly what the address says, or could be a path.
pub fn check(bytes: &[u8]) {
    match Question::parse(bytes) {
        Ok(question) => check_question(bytes, &question),
        Err(error) => assert_message(&error.to_string()),
    }
}

fn check_question(address: &[u8], question: &Question) {
    let Question { unit, credential } = question;
    assert!(address.ends_with(format!("/unit/{unit}/{credential}").as_bytes()), "{question:?}");
    for part in [unit.as_str(), credential] {
        assert!(!part.contains('/') && part != "." && part != ".." && !part.is_empty(), "{question:?}");
        assert!(part.bytes().all(|byte| byte.is_ascii_graphic()), "{question:?}");
    }
    assert_eq!(UnitName::new(unit.as_str()).as_ref(), Ok(unit));
    let itself = UnitPattern::new(unit.as_str());
    assert!(itself.is_ok_and(|pattern| pattern.matches(unit)), "{question:?}");
}
