//! Text from outside, made fit for one line of a log or terminal.

/// `text` on one line: every control character, which a terminal might obey, becomes a space.
#[must_use]
pub fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}
