//! Reads one request, and no byte beyond its announced length.

use devbox_launch_proto::{ErrorCode, HEADER_LEN, InvalidRequest, RequestHeader};

use super::nonblocking::{Stream, receive};
use super::refusal::{Failure, Refusal};

/// Most requests fit here, without an allocation.
const SMALL: usize = 512;
/// Room for a longer request grows as its bytes come, so that announcing a long one costs the
/// daemon no memory.
const STEP: usize = 4_096;

#[derive(Debug)]
pub(super) struct Request {
    pub(super) header: RequestHeader,
    small: [u8; SMALL],
    large: Vec<u8>,
}

impl Request {
    pub(super) fn body(&self) -> &[u8] {
        let len = self.header.body_len as usize;
        if self.large.is_empty() { &self.small[HEADER_LEN..HEADER_LEN + len] } else { &self.large }
    }

    pub(super) async fn read(stream: &Stream) -> Result<Self, Failure> {
        let mut small = [0; SMALL];
        let mut filled = 0;
        let header = loop {
            filled += read_some(stream, &mut small[filled..]).await?;
            if let Some(header) = small[..filled].first_chunk::<HEADER_LEN>() {
                break RequestHeader::decode(header).map_err(|error| refused(&error))?;
            }
        };
        let body_len = header.body_len as usize;
        if filled > HEADER_LEN + body_len {
            return Err(Refusal::invalid("the launch request is longer than it says it is").into());
        }
        if HEADER_LEN + body_len > SMALL {
            let large = read_large(stream, &small[HEADER_LEN..filled], body_len).await?;
            return Ok(Self { header, small, large });
        }
        while filled < HEADER_LEN + body_len {
            filled += read_some(stream, &mut small[filled..HEADER_LEN + body_len]).await?;
        }
        Ok(Self { header, small, large: Vec::new() })
    }
}

async fn read_large(stream: &Stream, start: &[u8], len: usize) -> Result<Vec<u8>, Failure> {
    let mut body = start.to_vec();
    while body.len() < len {
        let filled = body.len();
        body.resize(len.min(filled + filled.max(STEP)), 0);
        let read = read_some(stream, &mut body[filled..]).await?;
        body.truncate(filled + read);
    }
    Ok(body)
}

async fn read_some(stream: &Stream, room: &mut [u8]) -> Result<usize, Failure> {
    match receive(stream, room).await? {
        0 => Err(Failure::Gone),
        read => Ok(read),
    }
}

fn refused(error: &InvalidRequest) -> Refusal {
    let code = match error {
        InvalidRequest::Version(_) => ErrorCode::Version,
        _ => ErrorCode::Invalid,
    };
    Refusal::new(code, &error.to_string())
}
