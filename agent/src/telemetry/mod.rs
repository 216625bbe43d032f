//! What the daemon tells: log lines on stderr, for people, programs or the journal; the audit; its state to the service
//! manager.
//!
//! No secret reaches either: what holds one cannot be printed (`SecretBytes`, redacted `Debug`).

pub mod audit;
pub mod journal;
pub mod log;
pub mod service_manager;
pub mod stderr;
#[cfg(test)]
pub(crate) mod test_support;

use std::error::Error;

/// An error and its causes on one line: what is told once, at the edge.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        // A cause that its effect already quotes is told once.
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("the thing: the remedy")]
    struct Outer(#[source] io::Error);

    #[test]
    fn an_error_is_told_with_its_causes_on_one_line() {
        let error = Outer(io::Error::other("what the\nsystem said"));
        assert_eq!(chain(&error), "the thing: the remedy: what the system said");
    }
}
