//! A launch by its protocol, values inline.

use std::path::Path;

use devbox_launch_proto::{Answer, AnswerHeader, ErrorCode, Flags, HEADER_LEN, RequestBuilder};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::PATIENCE;

/// Launches with everything and returns its variables (`NAME=VALUE`, each followed by a NUL), or the refusal.
pub async fn launch(socket: &Path) -> Result<String, ErrorCode> {
    let mut stream = connect(socket).await;
    timeout(PATIENCE, answer(&mut stream)).await.expect("a launch gets no answer")
}

/// A launch that has sent its request.
pub async fn connect(socket: &Path) -> UnixStream {
    let mut stream = UnixStream::connect(socket).await.unwrap();
    let mut room = [0; 64];
    let flags = Flags { inline: true, ..Flags::default() };
    stream.write_all(RequestBuilder::new(&mut room, flags, 0).unwrap().finish()).await.unwrap();
    stream
}

/// Returns the variables, or the refusal.
pub async fn answer(stream: &mut UnixStream) -> Result<String, ErrorCode> {
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await.unwrap();
    let (header, body) = answer.split_first_chunk::<HEADER_LEN>().expect("the daemon hung up");
    match AnswerHeader::decode(header).unwrap().answer {
        Answer::Error(code) => Err(code),
        _ => Ok(String::from_utf8(body.to_vec()).unwrap()),
    }
}
