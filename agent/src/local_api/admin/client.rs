//! The client of a running daemon's admin socket, for the command line.

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

const REQUEST_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for `quiesce` and `resume`, which wait for running launches.
const COMMAND_TIMEOUT: Duration = Duration::from_secs(9);
/// Longest response, in bytes: some 10,000 names.
const MAX_RESPONSE: usize = 8 << 20;

/// Why a request failed.
#[derive(Debug, Error)]
pub enum AskError {
    /// No daemon accepts this user's connection.
    #[error("no daemon accepts connections at {}: is devbox-secretsd running, and is this its user or root?", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: io::Error,
    },
    /// It does not respond in time.
    #[error("the daemon at {} does not respond: restart it", .0.display())]
    Timeout(PathBuf),
    /// It refuses this user.
    #[error("the daemon refuses ({0}): ask as root or as the daemon's user")]
    Refused(StatusCode),
    /// It reports why it cannot comply.
    #[error("{0}")]
    NotDone(String),
    /// The response is not a daemon's.
    #[error("the program at {} is not devbox-secretsd: check --admin-socket", path.display())]
    Answer {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// The daemon's status as JSON (`GET /status`).
///
/// # Errors
/// [`AskError`].
pub async fn status(path: &Path) -> Result<Bytes, AskError> {
    ask(path, REQUEST_TIMEOUT, get("/status")).await
}

/// The decision about `peer` as JSON (`GET /explain`).
///
/// # Errors
/// [`AskError`].
pub async fn explain(path: &Path, peer: Peer) -> Result<Bytes, AskError> {
    ask(path, REQUEST_TIMEOUT, get(&explain::target(peer))).await
}

/// Makes the daemon wipe everything (`POST /quiesce`).
///
/// # Errors
/// [`AskError`].
pub async fn quiesce(path: &Path) -> Result<Bytes, AskError> {
    ask(path, COMMAND_TIMEOUT, post("/quiesce", Bytes::new())).await
}

/// Makes the daemon join with `token`, or with its configured identity (`POST /resume`). Returns
/// when joining has started.
///
/// # Errors
/// [`AskError`].
pub async fn resume(path: &Path, token: Option<&JoinToken>) -> Result<Bytes, AskError> {
    let body = token.map_or_else(Bytes::new, |token| Bytes::copy_from_slice(token.expose_token().as_bytes()));
    ask(path, COMMAND_TIMEOUT, post("/resume", body)).await
}

/// Makes the daemon reload its rules (`POST /reload`). Returns their number as JSON.
///
/// # Errors
/// [`AskError`], with every mistake.
pub async fn reload(path: &Path) -> Result<Bytes, AskError> {
    ask(path, REQUEST_TIMEOUT, post("/reload", Bytes::new())).await
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

async fn ask(path: &Path, limit: Duration, request: Request<Full<Bytes>>) -> Result<Bytes, AskError> {
    let answered = timeout(limit, exchange(path, request)).await;
    answered.unwrap_or_else(|_| Err(AskError::Timeout(path.to_owned())))
}

async fn exchange(path: &Path, request: Request<Full<Bytes>>) -> Result<Bytes, AskError> {
    let stream = UnixStream::connect(path)
        .await
        .map_err(|source| AskError::Connect { path: path.to_owned(), source })?;
    let response = send(stream, request).await.map_err(|error| not_a_daemon(path, error))?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_RESPONSE).collect().await;
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
