//! A message of one line, whatever bytes it includes: no control characters, no second line, no allocation.

use core::fmt::{self, Write};

/// Room for the daemon's longest text and the words around it, in bytes.
const CAPACITY: usize = 5_120;

/// A line that is being written. Text that does not fit is cut off.
#[derive(Debug)]
pub struct Line {
    bytes: [u8; CAPACITY],
    len: usize,
}

impl Line {
    /// The line `devbox-exec: <what>`, with its line feed.
    #[must_use]
    pub fn new(what: &dyn fmt::Display) -> Self {
        let mut line = Self { bytes: [0; CAPACITY], len: 0 };
        // Only a Display that fails by itself stops this early; the text until then is still worth printing.
        let _ = write!(line, "devbox-exec: {what}");
        line.bytes[line.len] = b'\n';
        line.len += 1;
        line
    }

    /// The bytes to print.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

impl Write for Line {
    /// Takes as many whole characters as fit, and leaves room for the line feed.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let printed = if character.is_control() { '?' } else { character };
            let end = self.len + printed.len_utf8();
            if end >= CAPACITY {
                break;
            }
            printed.encode_utf8(&mut self.bytes[self.len..end]);
            self.len = end;
        }
        Ok(())
    }
}

/// Bytes from outside, as text: invalid UTF-8 becomes U+FFFD.
#[derive(Debug, Clone, Copy)]
pub struct Text<'a>(pub &'a [u8]);

impl fmt::Display for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_char(char::REPLACEMENT_CHARACTER)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::string::String;
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    fn line(bytes: &[u8]) -> String {
        String::from_utf8(Vec::from(Line::new(&Text(bytes)).as_bytes())).unwrap()
    }

    #[test]
    fn control_characters_and_broken_text_are_made_visible() {
        assert_eq!(line(b"a\n\x1b[2Jb\xffc"), "devbox-exec: a??[2Jb\u{fffd}c\n");
    }

    proptest! {
        #[test]
        fn any_bytes_make_exactly_one_line(bytes in proptest::collection::vec(any::<u8>(), 0..8_000)) {
            let line = line(&bytes);
            prop_assert!(line.len() <= CAPACITY);
            prop_assert_eq!(line.chars().filter(|c| c.is_control()).count(), 1);
            prop_assert!(line.ends_with('\n'));
        }
    }
}
