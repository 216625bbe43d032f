//! Text for logs and terminals: always one line, whatever it quotes.

use std::error::Error;

/// The characters of `text` on one line: every control character, which a terminal might obey,
/// becomes a space.
pub fn one_line(text: &str) -> impl Iterator<Item = char> {
    text.chars().map(|c| if c.is_control() { ' ' } else { c })
}

/// An error and its causes on one line, for the one place that reports it.
#[must_use]
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let line = error.to_string();
        // Some errors quote their cause already.
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        cause = error.source();
    }
    one_line(&text).collect()
}

#[cfg(test)]
mod tests {
    use std::io;

    use thiserror::Error;

    use super::*;

    #[derive(Debug, Error)]
    #[error("the thing: the remedy")]
    struct Outer(#[source] io::Error);

    #[derive(Debug, Error)]
    #[error("quoted: {0}")]
    struct Quoting(#[source] io::Error);

    #[test]
    fn an_error_is_printed_with_its_causes_on_one_line() {
        let error = Outer(io::Error::other("the kernel's\nerror"));
        assert_eq!(chain(&error), "the thing: the remedy: the kernel's error");
    }

    #[test]
    fn a_cause_that_is_quoted_already_is_not_repeated() {
        assert_eq!(chain(&Quoting(io::Error::other("the cause"))), "quoted: the cause");
    }
}
