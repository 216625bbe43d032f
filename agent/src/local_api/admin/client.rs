//! Asks a running daemon for its status, or for the reasons of a decision; tells it to sleep and to wake.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use devbox_secrets_proto::devbox::ErrorBody;
use devbox_secrets_proto::join_token::JoinToken;
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use thiserror::Error;
use tokio::net::UnixStream;
use tokio::time::timeout;

use super::explain;
use crate::access::peer::Peer;

/// Time for the whole question.
const PATIENCE: Duration = Duration::from_secs(5);
/// The same for an order: launches under way end first.
const ORDER_PATIENCE: Duration = Duration::from_secs(9);
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
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It does not answer in time.
    #[error("the daemon at {} does not answer: restart it", .0.display())]
    Timeout(PathBuf),
    /// It refuses.
    #[error("the daemon refuses ({0}): ask as root or as the daemon's user")]
    Refused(StatusCode),
    /// It does not do what it is told, and says why.
    #[error("{0}")]
    NotDone(String),
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
    ask(path, PATIENCE, get("/status")).await
}

/// The JSON that the daemon at `path` answers to `GET /explain` about `peer`.
///
/// # Errors
/// [`AskError`].
pub async fn explain(path: &Path, peer: Peer) -> Result<Bytes, AskError> {
    ask(path, PATIENCE, get(&explain::target(peer))).await
}

/// Has the daemon at `path` wipe everything (`POST /quiesce`).
///
/// # Errors
/// [`AskError`].
pub async fn quiesce(path: &Path) -> Result<Bytes, AskError> {
    ask(path, ORDER_PATIENCE, post("/quiesce", Bytes::new())).await
}

/// Has the daemon at `path` begin to join with `token`, or with its configured identity (`POST /resume`).
///
/// # Errors
/// [`AskError`].
pub async fn resume(path: &Path, token: Option<&JoinToken>) -> Result<Bytes, AskError> {
    let body = token.map_or_else(Bytes::new, |token| Bytes::copy_from_slice(token.expose_token().as_bytes()));
    ask(path, ORDER_PATIENCE, post("/resume", body)).await
}

/// Has the daemon at `path` take up changed rules (`POST /reload`): the JSON of how many there are.
///
/// # Errors
/// [`AskError`], with every mistake.
pub async fn reload(path: &Path) -> Result<Bytes, AskError> {
    ask(path, PATIENCE, post("/reload", Bytes::new())).await
}

fn get(target: &str) -> Request<Full<Bytes>> {
    request(Method::GET, target, Bytes::new())
}

fn post(target: &str, body: Bytes) -> Request<Full<Bytes>> {
    request(Method::POST, target, body)
}

fn request(method: Method, target: &str, body: Bytes) -> Request<Full<Bytes>> {
    let mut request = Request::new(Full::new(body));
    *request.method_mut() = method;
    *request.uri_mut() = target.parse().unwrap_or_default();
    request.headers_mut().insert(HOST, hyper::header::HeaderValue::from_static("localhost"));
    request
}

async fn ask(path: &Path, patience: Duration, request: Request<Full<Bytes>>) -> Result<Bytes, AskError> {
    let answered = timeout(patience, exchange(path, request)).await;
    answered.unwrap_or_else(|_| Err(AskError::Timeout(path.to_owned())))
}

async fn exchange(path: &Path, request: Request<Full<Bytes>>) -> Result<Bytes, AskError> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| AskError::Connect { path: path.to_owned(), source })?;
    let response = send(stream, request).await.map_err(|error| not_a_daemon(path, error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let body = body.map_err(|error| not_a_daemon(path, error))?.to_bytes();
    if status.is_success() { Ok(body) } else { Err(refused(status, &body)) }
}

fn refused(status: StatusCode, body: &[u8]) -> AskError {
    match serde_json::from_slice::<ErrorBody>(body) {
        Ok(error) if status != StatusCode::FORBIDDEN => AskError::NotDone(error.message),
        _ => AskError::Refused(status),
    }
}

async fn send(
    stream: UnixStream,
    request: Request<Full<Bytes>>,
) -> Result<Response<hyper::body::Incoming>, hyper::Error> {
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    sender.send_request(request).await
}

fn not_a_daemon(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> AskError {
    AskError::Answer { path: path.to_owned(), source: error.into() }
}
