//! The replies to requests that hyper cannot parse. hyper writes those itself, with an empty body,
//! and has no hook for them. This module recognises them on their way out, replaces them with the
//! error format of every other response, and counts them.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use devbox_secrets_proto::devbox::ErrorBody;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::observe::Observer;

const END: &[u8] = b"\r\n\r\n";
/// Longest reply of hyper's own, in bytes.
const MAX_REPLY_LEN: usize = 256;
/// The line of hyper's replies that is replaced.
const EMPTY_BODY: &[u8] = b"content-length: 0\r\n";
/// After a refusal the rest of the request is read for this long: a close with unread bytes resets
/// the connection, and the client may lose the reply (RFC 9112 section 9.6).
const LINGER: Duration = Duration::from_secs(2);
/// Most bytes of it that are read.
const MAX_DROPPED: usize = 1024 * 1024;

/// A connection whose parse errors become JSON.
#[derive(Debug)]
pub(super) struct ParseErrors<S> {
    stream: S,
    observer: Observer,
    reply: Option<Reply>,
    /// Set once a reply was replaced, which is the last of its connection.
    linger: Option<Pin<Box<Sleep>>>,
    left_to_drop: usize,
}

/// The bytes that replace hyper's reply.
#[derive(Debug)]
struct Reply {
    bytes: Vec<u8>,
    sent: usize,
    replaced_len: usize,
}

impl<S> ParseErrors<S> {
    pub(super) fn new(stream: S, observer: Observer) -> Self {
        Self { stream, observer, reply: None, linger: None, left_to_drop: MAX_DROPPED }
    }
}

impl<S: AsyncWrite + Unpin> ParseErrors<S> {
    fn poll_reply(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let Some(reply) = &mut self.reply else { return Poll::Ready(Ok(0)) };
        while reply.sent < reply.bytes.len() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &reply.bytes[reply.sent..]))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            reply.sent += written;
        }
        let replaced_len = reply.replaced_len;
        self.reply = None;
        Poll::Ready(Ok(replaced_len))
    }

    /// Prepares to replace `head`, which is a whole reply of hyper's.
    fn replace(&mut self, head: &[u8], error: &ParseError) {
        self.observer.count_unparsed(error.status, error.code);
        self.reply = Some(Reply { bytes: error.reply(head), sent: 0, replaced_len: head.len() });
        self.linger = Some(Box::pin(sleep(LINGER)));
    }
}

impl<S: AsyncRead + Unpin> ParseErrors<S> {
    /// Reads the rest of a refused request, and drops it.
    fn poll_linger(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(linger) = &mut self.linger else { return Poll::Ready(()) };
        // On the heap, because the allocator wipes what it frees, and the rest may hold a value.
        let mut scratch = vec![0; 8 * 1024];
        while linger.as_mut().poll(cx).is_pending() {
            let mut buffer = ReadBuf::new(&mut scratch);
            let read = ready!(Pin::new(&mut self.stream).poll_read(cx, &mut buffer));
            self.left_to_drop = self.left_to_drop.saturating_sub(buffer.filled().len());
            if read.is_err() || buffer.filled().is_empty() || self.left_to_drop == 0 {
                break;
            }
        }
        Poll::Ready(())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ParseErrors<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.reply.is_none() {
            match ParseError::find(bytes) {
                None => return Pin::new(&mut self.stream).poll_write(cx, bytes),
                Some((0, error)) => self.replace(bytes, error),
                Some((start, _)) => return Pin::new(&mut self.stream).poll_write(cx, &bytes[..start]),
            }
        }
        self.poll_reply(cx)
    }

    /// hyper puts a header into the first slice, alone or behind what is left of the answer before.
    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let first = slices.iter().find(|slice| !slice.is_empty()).map_or(&[][..], |slice| slice);
        if self.reply.is_some() || ParseError::find(first).is_some() {
            return self.poll_write(cx, first);
        }
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(Pin::new(&mut self.stream).poll_shutdown(cx))?;
        self.poll_linger(cx).map(Ok)
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for ParseErrors<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

/// A reply of hyper's own.
#[derive(Debug)]
struct ParseError {
    status: u16,
    code: &'static str,
    message: &'static str,
}

/// All of them (`Server::on_error` of hyper 1.12), but for 414: a path that long is over the limit
/// of a header first.
const PARSE_ERRORS: [ParseError; 2] = [
    ParseError {
        status: 400,
        code: "malformed_request",
        message: "this is no HTTP request that RFC 9112 allows: check its request line and header fields",
    },
    ParseError {
        status: 431,
        code: "header_too_large",
        message: "a request's header has at most 64 KiB and 100 fields",
    },
];

impl ParseError {
    /// A reply of hyper's that `bytes` end with, and where in them it starts. No answer of ours
    /// looks like it: those have a body or a request id.
    fn find(bytes: &[u8]) -> Option<(usize, &'static Self)> {
        if !bytes.ends_with(END) {
            return None;
        }
        let tail = bytes.len().saturating_sub(MAX_REPLY_LEN);
        let start = tail + bytes[tail..].windows(7).rposition(|window| window == b"HTTP/1.")?;
        let head = &bytes[start..];
        let status = std::str::from_utf8(head.get(9..12)?).ok()?;
        let has = |line: &[u8]| head.windows(line.len()).any(|window| window == line);
        let is_hypers = has(EMPTY_BODY) && !has(b"x-request-id:");
        let error = PARSE_ERRORS.iter().find(|error| status.parse() == Ok(error.status))?;
        is_hypers.then_some((start, error))
    }

    /// `head` with a body.
    fn reply(&self, head: &[u8]) -> Vec<u8> {
        let body = ErrorBody { code: self.code.to_owned(), message: self.message.to_owned() };
        let body = serde_json::to_string(&body).unwrap_or_default();
        let head = String::from_utf8_lossy(head);
        let lines = head.trim_end().split("\r\n").filter(|line| !line.starts_with("content-length:"));
        let head: Vec<&str> = lines.collect();
        let own = format!(
            "content-type: application/json\r\ncache-control: no-store\r\ncontent-length: {}",
            body.len()
        );
        format!("{}\r\n{own}\r\n\r\n{body}", head.join("\r\n")).into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const REPLY: &[u8] =
        b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\ndate: x\r\n\r\n";

    #[test]
    fn a_reply_of_hypers_is_found_also_behind_another_answer() {
        assert_eq!(ParseError::find(REPLY).map(|(start, error)| (start, error.status)), Some((0, 431)));
        let older = [b"HTTP/1.0", &REPLY[8..]].concat();
        assert_eq!(ParseError::find(&older).map(|(start, error)| (start, error.status)), Some((0, 431)));
        let behind = [b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\n\r\nx", REPLY].concat();
        assert_eq!(ParseError::find(&behind).map(|(start, _)| start), Some(behind.len() - REPLY.len()));
    }

    #[test]
    fn our_own_responses_are_left_alone() {
        for answer in [
            &b"HTTP/1.1 204 No Content\r\nx-request-id: a\r\n\r\n"[..],
            b"HTTP/1.1 400 Bad Request\r\nx-request-id: a\r\ncontent-length: 0\r\n\r\n",
            b"HTTP/1.1 400 Bad Request\r\ncontent-length: 20\r\n\r\n",
            b"0\r\n\r\n",
            b"",
        ] {
            assert!(ParseError::find(answer).is_none(), "{}", String::from_utf8_lossy(answer));
        }
    }
}
