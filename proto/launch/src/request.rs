//! The request: the variables that a launch wants, and their names.

use core::fmt;

use crate::{HEADER_LEN, VERSION, u16_at, u32_at};

const MAGIC: [u8; 4] = *b"DXRQ";
const ITEM_HEADER_LEN: usize = 3;

/// Longest body, in bytes: a thousand names and more.
pub const MAX_REQUEST_BODY: usize = 65_536;

/// The kind of answer that the launcher wants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Flags {
    /// Only the names, no value (`--list`).
    pub list: bool,
    /// The bytes in the answer instead of a descriptor: the launcher could not map one.
    pub inline: bool,
    /// The user asked for the wait (`--wait`): it holds in every state that may pass, not only before the first secrets.
    pub patient: bool,
}

impl Flags {
    const LIST: u8 = 1;
    const INLINE: u8 = 2;
    const PATIENT: u8 = 4;

    const fn bits(self) -> u8 {
        (if self.list { Self::LIST } else { 0 })
            | (if self.inline { Self::INLINE } else { 0 })
            | (if self.patient { Self::PATIENT } else { 0 })
    }

    const fn from_bits(bits: u8) -> Option<Self> {
        if bits & !(Self::LIST | Self::INLINE | Self::PATIENT) != 0 {
            return None;
        }
        Some(Self {
            list: bits & Self::LIST != 0,
            inline: bits & Self::INLINE != 0,
            patient: bits & Self::PATIENT != 0,
        })
    }
}

/// One part of the selection. Texts are bytes as they came from the command line; the daemon checks them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Item<'a> {
    /// Take this variable, and no other that is not named so too. Absent or not granted: the launch fails.
    Only(&'a [u8]),
    /// Leave this variable out. Absent or not granted: the launch fails.
    Except(&'a [u8]),
    /// Fail the launch unless this variable is in it.
    Require(&'a [u8]),
    /// `NEW=NAME`: inject the variable `NAME` under the name `NEW` instead.
    Rename(&'a [u8]),
}

impl<'a> Item<'a> {
    const fn kind(self) -> u8 {
        match self {
            Self::Only(_) => 1,
            Self::Except(_) => 2,
            Self::Require(_) => 3,
            Self::Rename(_) => 4,
        }
    }

    const fn text(self) -> &'a [u8] {
        match self {
            Self::Only(text) | Self::Except(text) | Self::Require(text) | Self::Rename(text) => text,
        }
    }

    const fn new(kind: u8, text: &'a [u8]) -> Option<Self> {
        match kind {
            1 => Some(Self::Only(text)),
            2 => Some(Self::Except(text)),
            3 => Some(Self::Require(text)),
            4 => Some(Self::Rename(text)),
            _ => None,
        }
    }
}

/// The request does not fit the buffer or [`MAX_REQUEST_BODY`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestTooLarge;

/// Writes a request into a buffer that the caller owns.
#[derive(Debug)]
pub struct RequestBuilder<'b> {
    buffer: &'b mut [u8],
    len: usize,
}

impl<'b> RequestBuilder<'b> {
    /// Starts a request. `wait_ms`: how long the daemon may hold it until it has secrets, at most [`MAX_WAIT_MS`](crate::MAX_WAIT_MS).
    ///
    /// # Errors
    /// [`RequestTooLarge`] if `buffer` has no room for the header.
    pub fn new(buffer: &'b mut [u8], flags: Flags, wait_ms: u32) -> Result<Self, RequestTooLarge> {
        let header = buffer.first_chunk_mut::<HEADER_LEN>().ok_or(RequestTooLarge)?;
        header[..4].copy_from_slice(&MAGIC);
        header[4..8].copy_from_slice(&[VERSION, flags.bits(), 0, 0]);
        header[8..12].copy_from_slice(&wait_ms.to_le_bytes());
        Ok(Self { buffer, len: HEADER_LEN })
    }

    /// Appends one item.
    ///
    /// # Errors
    /// [`RequestTooLarge`]; the request is as before.
    pub fn push(&mut self, item: Item<'_>) -> Result<(), RequestTooLarge> {
        let text = item.text();
        let text_len = u16::try_from(text.len()).map_err(|_| RequestTooLarge)?;
        let end = self.len + ITEM_HEADER_LEN + text.len();
        if end > HEADER_LEN + MAX_REQUEST_BODY {
            return Err(RequestTooLarge);
        }
        let room = self.buffer.get_mut(self.len..end).ok_or(RequestTooLarge)?;
        let (header, body) = room.split_at_mut(ITEM_HEADER_LEN);
        header[0] = item.kind();
        header[1..].copy_from_slice(&text_len.to_le_bytes());
        body.copy_from_slice(text);
        self.len = end;
        Ok(())
    }

    /// The bytes to send.
    #[must_use]
    pub fn finish(self) -> &'b [u8] {
        let body_len = u32::try_from(self.len - HEADER_LEN).expect("push holds the body to MAX_REQUEST_BODY");
        self.buffer[12..HEADER_LEN].copy_from_slice(&body_len.to_le_bytes());
        &self.buffer[..self.len]
    }
}

/// Why bytes are not a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InvalidRequest {
    /// It does not start with this protocol's mark.
    Magic,
    /// It is of a version that this side does not speak.
    Version(u8),
    /// A reserved bit or field is set.
    Reserved,
    /// The body is longer than [`MAX_REQUEST_BODY`].
    Length(u32),
    /// An item is cut short or of an unknown kind.
    Item,
}

impl fmt::Display for InvalidRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Magic => {
                f.write_str("this is not a launch request; use devbox-exec to talk to this socket")
            }
            Self::Version(version) => write!(
                f,
                "the launcher speaks version {version} of the launch protocol, the daemon version {VERSION}: install both \
                 from one release"
            ),
            Self::Reserved => f.write_str("the launch request sets a bit that this version does not know"),
            Self::Length(length) => {
                write!(f, "the launch request has {length} bytes; at most {MAX_REQUEST_BODY} are taken")
            }
            Self::Item => f.write_str("the launch request has an item that is cut short or unknown"),
        }
    }
}

impl core::error::Error for InvalidRequest {}

/// A request's header, decoded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestHeader {
    /// The kind of answer that the launcher wants.
    pub flags: Flags,
    /// How long the daemon may hold the request until it has secrets, in milliseconds.
    pub wait_ms: u32,
    /// Length of the body that follows, in bytes; at most [`MAX_REQUEST_BODY`].
    pub body_len: u32,
}

impl RequestHeader {
    /// Decodes a header.
    ///
    /// # Errors
    /// [`InvalidRequest`].
    pub fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, InvalidRequest> {
        if bytes[..4] != MAGIC {
            return Err(InvalidRequest::Magic);
        }
        if bytes[4] != VERSION {
            return Err(InvalidRequest::Version(bytes[4]));
        }
        let flags = Flags::from_bits(bytes[5]).ok_or(InvalidRequest::Reserved)?;
        if u16_at(bytes, 6) != 0 {
            return Err(InvalidRequest::Reserved);
        }
        let body_len = u32_at(bytes, 12);
        if body_len as usize > MAX_REQUEST_BODY {
            return Err(InvalidRequest::Length(body_len));
        }
        Ok(Self { flags, wait_ms: u32_at(bytes, 8), body_len })
    }
}

/// Reads the items of a request's body.
#[derive(Debug, Clone)]
pub struct Items<'a>(&'a [u8]);

impl<'a> Items<'a> {
    /// Reads `body`, the bytes after the header.
    #[must_use]
    pub const fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    fn read(&mut self) -> Option<Item<'a>> {
        let (&[kind, low, high], rest) = self.0.split_first_chunk::<ITEM_HEADER_LEN>()?;
        let (text, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes([low, high])))?;
        self.0 = rest;
        Item::new(kind, text)
    }
}

impl<'a> Iterator for Items<'a> {
    type Item = Result<Item<'a>, InvalidRequest>;

    /// The next item; `None` after an error.
    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let item = self.read().ok_or(InvalidRequest::Item);
        if item.is_err() {
            self.0 = &[];
        }
        Some(item)
    }
}

#[cfg(test)]
mod tests {
    extern crate std;

    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;

    const ITEMS: [Item<'static>; 4] =
        [Item::Only(b"A"), Item::Except(b"B"), Item::Require(b""), Item::Rename(b"NEW=OLD")];

    fn split(message: &[u8]) -> (&[u8; HEADER_LEN], &[u8]) {
        message.split_first_chunk().unwrap()
    }

    #[test]
    fn a_built_request_is_read_back() {
        let mut buffer = [0; 256];
        let flags = Flags { inline: true, patient: true, ..Flags::default() };
        let mut builder = RequestBuilder::new(&mut buffer, flags, 5_000).unwrap();
        for item in ITEMS {
            builder.push(item).unwrap();
        }
        let (header, body) = split(builder.finish());
        let decoded = RequestHeader::decode(header).unwrap();
        assert_eq!((decoded.flags, decoded.wait_ms), (flags, 5_000));
        assert_eq!(decoded.body_len as usize, body.len());
        let items: Result<Vec<_>, _> = Items::new(body).collect();
        assert_eq!(items.unwrap(), ITEMS);
    }

    #[test]
    fn a_full_buffer_refuses_the_item_and_keeps_the_rest() {
        let mut buffer = [0; HEADER_LEN + 4];
        let mut builder = RequestBuilder::new(&mut buffer, Flags::default(), 0).unwrap();
        builder.push(Item::Only(b"A")).unwrap();
        assert_eq!(builder.push(Item::Only(b"B")), Err(RequestTooLarge));
        let (_, body) = split(builder.finish());
        assert_eq!(Items::new(body).next(), Some(Ok(Item::Only(b"A"))));
        assert_eq!(RequestBuilder::new(&mut [0; 3], Flags::default(), 0).err(), Some(RequestTooLarge));
    }

    #[test]
    fn a_request_longer_than_the_daemon_takes_is_never_built() {
        let mut buffer = [0; 2 * MAX_REQUEST_BODY];
        let mut builder = RequestBuilder::new(&mut buffer, Flags::default(), 0).unwrap();
        let name = [b'N'; 65_000];
        builder.push(Item::Only(&name)).unwrap();
        assert_eq!(builder.push(Item::Only(&name[..600])), Err(RequestTooLarge));
    }

    #[test]
    fn each_malformed_header_has_its_error() {
        let mut buffer = [0; 64];
        let good = RequestBuilder::new(&mut buffer, Flags::default(), 0).unwrap().finish();
        let good = *split(good).0;
        let with = |at: usize, byte: u8| {
            let mut bytes = good;
            bytes[at] = byte;
            RequestHeader::decode(&bytes).err()
        };
        assert_eq!(RequestHeader::decode(&good).err(), None);
        assert_eq!(with(0, b'X'), Some(InvalidRequest::Magic));
        assert_eq!(with(4, 9), Some(InvalidRequest::Version(9)));
        assert_eq!(with(5, 128), Some(InvalidRequest::Reserved));
        assert_eq!(with(6, 1), Some(InvalidRequest::Reserved));
        assert_eq!(with(15, 255), Some(InvalidRequest::Length(255 << 24)));
    }

    #[test]
    fn broken_items_end_the_reading_with_one_error() {
        for body in [&b"\x01"[..], b"\x01\x05\x00abc", b"\x09\x01\x00a"] {
            let items: Vec<_> = Items::new(body).collect();
            assert_eq!(items, [Err(InvalidRequest::Item)], "{body:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_readers_panic(bytes in proptest::collection::vec(any::<u8>(), 16..512)) {
            let (header, body) = split(&bytes);
            let _ = RequestHeader::decode(header);
            let _ = Items::new(body).count();
        }
    }
}
