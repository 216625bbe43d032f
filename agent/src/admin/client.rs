//! Asks a running daemon for its status, or for the reasons of a decision.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use http_body_util::{BodyExt, Empty, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::explain;
use crate::peer::Peer;

/// Time for the whole question.
const PATIENCE: Duration = Duration::from_secs(5);
/// Longest answer, in bytes: some 10,000 names.
const MAX_ANSWER: usize = 8 << 20;

/// Why there is no status.
#[derive(Debug, Error)]
pub enum AskError {
    /// Nobody listens, or not for this user.
    #[error("no daemon answers at {}: is devbox-secretsd running, and is this its user or root?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not answer in time.
    #[error("the daemon at {} does not answer: restart it", .0.display())]
    Timeout(PathBuf),
    /// It refuses.
    #[error("the daemon refuses ({0}): ask as root or as the daemon's user")]
    Refused(StatusCode),
    /// What answers is no daemon.
    #[error("what answers at {} is no devbox-secretsd: check --admin-socket", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The JSON that the daemon at `path` answers to `GET /status`.
///
/// # Errors
/// [`AskError`].
pub async fn status(path: &Path) -> Result<Bytes, AskError> {
    timeout(PATIENCE, ask(path, "/status")).await.unwrap_or_else(|_| Err(AskError::Timeout(path.to_owned())))
}

/// The JSON that the daemon at `path` answers to `GET /explain` about `peer`.
///
/// # Errors
/// [`AskError`].
pub async fn explain(path: &Path, peer: Peer) -> Result<Bytes, AskError> {
    let asked = timeout(PATIENCE, ask(path, &explain::target(peer))).await;
    asked.unwrap_or_else(|_| Err(AskError::Timeout(path.to_owned())))
}

async fn ask(path: &Path, target: &str) -> Result<Bytes, AskError> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| AskError::Connect { path: path.to_owned(), source })?;
    let response = send(stream, target).await.map_err(|error| not_a_daemon(path, error))?;
    if response.status() != StatusCode::OK {
        return Err(AskError::Refused(response.status()));
    }
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    Ok(body.map_err(|error| not_a_daemon(path, error))?.to_bytes())
}

async fn send(stream: UnixStream, target: &str) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::new(Empty::<Bytes>::new());
    *request.uri_mut() = target.parse().unwrap_or_default();
    request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static("localhost"));
    sender.send_request(request).await
}

fn not_a_daemon(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AskError {
    AskError::Answer { path: path.to_owned(), source: error.into() }
}
