//! The credential and the unit that systemd asks for, from the address that it connects from.
//!
//! The address is abstract, `\0<random>/unit/<unit>/<credential>` (systemd.exec(5),
//! `LoadCredential=`). Any process can bind such an address, so it proves nothing about its peer.

use thiserror::Error;

use crate::access::peer::UnitName;

/// Longest credential name, in bytes: a file's (`NAME_MAX`).
const MAX_CREDENTIAL_LEN: usize = 255;

/// A request for one credential.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    /// The unit.
    pub unit: UnitName,
    /// The credential's name in that unit.
    pub credential: String,
}

/// The peer's address is not one of systemd's.
#[derive(Debug, Error, PartialEq, Eq, Clone, Copy)]
#[error("the peer did not connect from an address of systemd's: only LoadCredential= may ask here")]
pub struct InvalidAddress;

impl Question {
    /// Reads an abstract address, without its leading NUL.
    ///
    /// # Errors
    /// [`InvalidAddress`].
    pub fn parse(address: &[u8]) -> Result<Self, InvalidAddress> {
        let text = std::str::from_utf8(address).map_err(|_| InvalidAddress)?;
        let mut parts = text.split('/');
        let parts = [parts.next(), parts.next(), parts.next(), parts.next(), parts.next()];
        let [Some(random), Some("unit"), Some(unit), Some(credential), None] = parts else {
            return Err(InvalidAddress);
        };
        if !is_random(random) || !is_credential(credential) {
            return Err(InvalidAddress);
        }
        let unit = UnitName::new(unit).map_err(|_| InvalidAddress)?;
        Ok(Self { unit, credential: credential.to_owned() })
    }
}

/// 64 bits in hexadecimal digits.
fn is_random(text: &str) -> bool {
    (1..=16).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit())
}

/// systemd's rule: a file name of printable ASCII without `:`.
fn is_credential(text: &str) -> bool {
    let printable = text.bytes().all(|b| b.is_ascii_graphic() && b != b':');
    (1..=MAX_CREDENTIAL_LEN).contains(&text.len()) && printable && text != "." && text != ".."
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<(String, String), InvalidAddress> {
        Question::parse(text.as_bytes()).map(|question| (question.unit.to_string(), question.credential))
    }

    #[test]
    fn systemds_addresses_are_understood() {
        let expected = Ok(("app@1.service".to_owned(), "db_password".to_owned()));
        assert_eq!(parse("9f1c4d0000aa7b3e/unit/app@1.service/db_password"), expected);
        assert_eq!(parse("0/unit/app@1.service/db_password"), expected);
    }

    #[test]
    fn other_addresses_are_refused() {
        for bad in [
            "",
            "/unit/app.service/x",
            "9f/unit/app.service",
            "9f/unit/app.service/",
            "9f/unit/app.service/x/y",
            "9f/unit//x",
            "9f/unit/app/x",
            "9f/user/app.service/x",
            "xyz/unit/app.service/x",
            "11112222333344445/unit/app.service/x",
            "9f/unit/app.service/..",
            "9f/unit/app.service/a:b",
            "9f/unit/app.service/a b",
            "9f/unit/app.service/a\0",
            "9f/unit/../x.service",
        ] {
            assert_eq!(parse(bad), Err(InvalidAddress), "{bad:?}");
        }
        assert_eq!(Question::parse(b"9f/unit/app.service/\xff"), Err(InvalidAddress));
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_parser_panic(bytes in proptest::collection::vec(any::<u8>(), 0..108)) {
            let _ = Question::parse(&bytes);
        }

        #[test]
        fn a_parsed_address_is_what_was_written(unit in "[a-z@_.\\\\:-]{1,20}\\.service", credential in "[!-.0-9;-~]{1,30}") {
            let address = format!("1f/unit/{unit}/{credential}");
            if let Ok(question) = Question::parse(address.as_bytes()) {
                prop_assert_eq!(question.unit.as_str(), unit);
                prop_assert_eq!(question.credential, credential);
            }
        }
    }
}
