//! Reading a value: every byte of standard input, or one line typed without echo.

use std::fs::File;
use std::io::{self, IsTerminal, Read, stdin};
use std::os::fd::AsFd;

use devbox_secrets_proto::name::MAX_ARG_STRLEN;
use devbox_secrets_proto::secret::SecretBytes;
use zeroize::{Zeroize, Zeroizing};

use super::{Failure, prompt};

/// Bytes of a value, wiped on drop.
pub(super) type LineBuffer = Zeroizing<Vec<u8>>;

/// How a value is taken from what comes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reading {
    /// Cut one line end off.
    pub(super) trim_newline: bool,
    /// An empty value is meant: else it is more likely a failed pipe.
    pub(super) allow_empty: bool,
}

impl Reading {
    /// Reads a value from standard input, or by a prompt if that is a terminal.
    pub(super) async fn read(self) -> Result<SecretBytes, Failure> {
        let mut bytes = self.bytes().await?;
        if bytes.is_empty() && !self.allow_empty {
            return Err(Failure::Empty);
        }
        Ok(SecretBytes::new(std::mem::take(&mut *bytes)))
    }

    async fn bytes(self) -> Result<LineBuffer, Failure> {
        let input = stdin();
        if input.is_terminal() {
            let mut typed = prompt::read_line("Value: ").await?;
            trim(&mut typed);
            return Ok(typed);
        }
        // Standard input's own buffer would keep a copy for the life of the process.
        let input = input.as_fd().try_clone_to_owned().map_err(Failure::Input)?;
        let mut bytes = read_all(File::from(input))?;
        if self.trim_newline {
            trim(&mut bytes);
        }
        Ok(bytes)
    }
}

/// Reads into a buffer that never moves.
fn read_all(mut input: impl Read) -> Result<LineBuffer, Failure> {
    let mut bytes = Zeroizing::new(vec![0; MAX_ARG_STRLEN]);
    let mut len = 0;
    while len < bytes.len() {
        match input.read(&mut bytes[len..]) {
            Ok(0) => {
                bytes.truncate(len);
                return Ok(bytes);
            }
            Ok(read) => len += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(Failure::Input(error)),
        }
    }
    Err(Failure::TooLong { max: MAX_ARG_STRLEN - 1 })
}

/// Cuts one line end off: `\n` or `\r\n`.
fn trim(bytes: &mut Vec<u8>) {
    for end in [b'\n', b'\r'] {
        if bytes.last() != Some(&end) {
            break;
        }
        let last = bytes.len() - 1;
        bytes[last].zeroize();
        bytes.truncate(last);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trimmed(text: &[u8]) -> Vec<u8> {
        let mut bytes = text.to_vec();
        trim(&mut bytes);
        bytes
    }

    #[test]
    fn bytes_are_kept_as_they_come() {
        for input in [&b""[..], b"line\n", b"a\r\n\n", &[0xff; 100_000]] {
            assert_eq!(*read_all(input).unwrap(), input);
        }
    }

    #[test]
    fn at_most_one_line_end_is_cut_off() {
        assert_eq!(trimmed(b"value\n"), b"value");
        assert_eq!(trimmed(b"value\r\n"), b"value");
        assert_eq!(trimmed(b"value\n\n"), b"value\n");
        assert_eq!(trimmed(b"value\r"), b"value\r");
        assert_eq!(trimmed(b""), b"");
    }

    #[test]
    fn more_than_any_variable_holds_is_refused() {
        let endless = io::repeat(b'x');
        assert!(matches!(read_all(endless), Err(Failure::TooLong { .. })));
        assert!(read_all(&vec![b'x'; MAX_ARG_STRLEN - 1][..]).is_ok());
    }
}
