//! The answer: an error, names, or variables.

use core::fmt;

use crate::{HEADER_LEN, VERSION, u16_at, u32_at};

const MAGIC: [u8; 4] = *b"DXAN";

/// Longest error text, in bytes.
pub const MAX_ERROR_LEN: u32 = 4_096;

/// The mark of withdrawn strings: the value of the byte after them in the descriptor's file, which is 0 before.
pub const WITHDRAWN: u8 = 1;

/// Bytes of a descriptor's file for strings of `len` bytes: the strings and their mark.
#[must_use]
pub const fn marked_len(len: usize) -> usize {
    len.saturating_add(1)
}

/// Why a launch was refused, for programs. The text beside it is for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum ErrorCode {
    /// The request is malformed, or contradicts itself.
    Invalid = 1,
    /// The launcher speaks another version of the protocol.
    Version = 2,
    /// No rule grants this peer the variables.
    Denied = 3,
    /// The daemon has no secrets yet, or is stopping.
    NotReady = 4,
    /// A variable that the request names does not exist.
    Missing = 5,
    /// The daemon lost the control plane for longer than its lease.
    Stale = 6,
    /// Too many launches at once.
    Busy = 7,
    /// The daemon failed.
    Internal = 8,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 8] = [
        Self::Invalid,
        Self::Version,
        Self::Denied,
        Self::NotReady,
        Self::Missing,
        Self::Stale,
        Self::Busy,
        Self::Internal,
    ];

    /// The code's number on the wire.
    #[must_use]
    pub const fn number(self) -> u16 {
        self as u16
    }

    /// Whether the same request may succeed later, without a change of the request, a rule or a secret.
    #[must_use]
    pub const fn may_pass(self) -> bool {
        matches!(self, Self::NotReady | Self::Stale | Self::Busy)
    }

    fn from_number(number: u16) -> Option<Self> {
        Self::ALL.into_iter().find(|code| code.number() == number)
    }

    /// A stable word for logs and metrics.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Invalid => "invalid",
            Self::Version => "version",
            Self::Denied => "denied",
            Self::NotReady => "not_ready",
            Self::Missing => "missing",
            Self::Stale => "stale",
            Self::Busy => "busy",
            Self::Internal => "internal",
        }
    }
}

/// The kind of an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Answer {
    /// A refusal; its text is the payload.
    Error(ErrorCode),
    /// The variables are in the descriptor that comes with the header.
    Descriptor,
    /// The variables are the payload.
    Inline,
    /// The variables' names are the payload.
    Names,
}

/// An answer's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AnswerHeader {
    /// The kind of the answer.
    pub answer: Answer,
    /// The number of variables or names; 0 in an error.
    pub count: u32,
    /// Length of the payload, or of the used part of the descriptor, in bytes.
    pub len: u32,
}

impl AnswerHeader {
    /// Encodes the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_LEN] {
        let (kind, error) = match self.answer {
            Answer::Error(code) => (0, code.number()),
            Answer::Descriptor => (1, 0),
            Answer::Inline => (2, 0),
            Answer::Names => (3, 0),
        };
        let mut bytes = [0; HEADER_LEN];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..6].copy_from_slice(&[VERSION, kind]);
        bytes[6..8].copy_from_slice(&error.to_le_bytes());
        bytes[8..12].copy_from_slice(&self.count.to_le_bytes());
        bytes[12..].copy_from_slice(&self.len.to_le_bytes());
        bytes
    }

    /// Decodes a header.
    ///
    /// # Errors
    /// [`InvalidAnswer`].
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, InvalidAnswer> {
        if bytes[..4] != MAGIC {
            return Err(InvalidAnswer::Magic);
        }
        if bytes[4] != VERSION {
            return Err(InvalidAnswer::Version(bytes[4]));
        }
        let answer = match (bytes[5], u16_at(bytes, 6)) {
            (0, number) => Answer::Error(ErrorCode::from_number(number).ok_or(InvalidAnswer::Kind)?),
            (1, 0) => Answer::Descriptor,
            (2, 0) => Answer::Inline,
            (3, 0) => Answer::Names,
            _ => return Err(InvalidAnswer::Kind),
        };
        let header = Self { answer, count: u32_at(bytes, 8), len: u32_at(bytes, 12) };
        header.check_counts()
    }

    /// A string takes at least two bytes (`A\0`), and an error text is short.
    const fn check_counts(self) -> Result<Self, InvalidAnswer> {
        let plausible = match self.answer {
            Answer::Error(_) => self.count == 0 && self.len <= MAX_ERROR_LEN,
            Answer::Descriptor | Answer::Inline | Answer::Names => {
                self.count <= self.len / 2 && (self.count == 0) == (self.len == 0)
            }
        };
        if plausible { Ok(self) } else { Err(InvalidAnswer::Counts) }
    }
}

/// Why bytes are not an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidAnswer {
    /// It does not start with this protocol's mark.
    Magic,
    /// It is of a version that this side does not speak.
    Version(u8),
    /// An unknown kind of answer or error.
    Kind,
    /// Counts and lengths contradict each other.
    Counts,
}

impl fmt::Display for InvalidAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => f.write_str("the answer is not of the launch protocol"),
            Self::Version(_) => f.write_str("the daemon speaks another version of the launch protocol"),
            Self::Kind => f.write_str("the daemon's answer is of an unknown kind"),
            Self::Counts => f.write_str("the counts in the daemon's answer contradict each other"),
        }
    }
}

impl core::error::Error for InvalidAnswer {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_encoded_answer_is_decoded() {
        let headers = [
            AnswerHeader { answer: Answer::Error(ErrorCode::Denied), count: 0, len: 40 },
            AnswerHeader { answer: Answer::Descriptor, count: 3, len: 100 },
            AnswerHeader { answer: Answer::Inline, count: 0, len: 0 },
            AnswerHeader { answer: Answer::Names, count: 1, len: 2 },
        ];
        for header in headers {
            assert_eq!(AnswerHeader::decode(&header.encode()), Ok(header));
        }
    }

    #[test]
    fn every_code_survives_the_wire() {
        for code in ErrorCode::ALL {
            let header = AnswerHeader { answer: Answer::Error(code), count: 0, len: 1 };
            assert_eq!(AnswerHeader::decode(&header.encode()), Ok(header), "{}", code.word());
        }
    }

    #[test]
    fn counts_that_cannot_be_true_are_refused() {
        let answers = [
            AnswerHeader { answer: Answer::Descriptor, count: 51, len: 100 },
            AnswerHeader { answer: Answer::Inline, count: 0, len: 1 },
            AnswerHeader { answer: Answer::Names, count: u32::MAX, len: u32::MAX },
            AnswerHeader { answer: Answer::Error(ErrorCode::Busy), count: 0, len: MAX_ERROR_LEN + 1 },
            AnswerHeader { answer: Answer::Error(ErrorCode::Busy), count: 1, len: 4 },
        ];
        for header in answers {
            assert_eq!(AnswerHeader::decode(&header.encode()), Err(InvalidAnswer::Counts), "{header:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes: [u8; HEADER_LEN]) {
            let _ = AnswerHeader::decode(&bytes);
        }

        #[test]
        fn a_header_with_the_right_mark_never_panics(mut bytes: [u8; HEADER_LEN]) {
            bytes[..5].copy_from_slice(b"DXAN\x01");
            let _ = AnswerHeader::decode(&bytes);
        }
    }
}
