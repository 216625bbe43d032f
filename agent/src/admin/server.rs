//! The admin socket: a few connections at once, each short, each from root or the daemon's own user.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE};
use hyper::http::request::Parts;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::geteuid;
use serde::Serialize;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::explain;
use super::report::{LastError, Launches, Memory, Report, Restart, State, Timings, Variable};
use crate::control_plane::ServerUrl;
use crate::harden::Hardening;
use crate::launch::LaunchState;
use crate::memory::{Holding, Loss, SecretMemory, Vault};
use crate::peer::Peer;
use crate::restart::WaitingRoom;
use crate::sync::Progress;
use crate::telemetry::chain;

/// Connections at once; more wait.
const MAX_CONNECTIONS: usize = 16;
/// Time for a whole connection, from its acceptance.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for a request's header.
const HEADER_PATIENCE: Duration = Duration::from_secs(1);
/// Longest header, in bytes; the least that hyper takes.
const MAX_HEADER: usize = 8 * 1024;
/// After a failed accept(2): descriptors are exhausted, and come back when others close.
const AFTER_FAILURE: Duration = Duration::from_millis(50);

/// What the answers are made of.
#[derive(Debug)]
pub struct Admin {
    /// The control plane.
    pub server: ServerUrl,
    /// What is held.
    pub vault: Arc<Vault>,
    /// Where it is held.
    pub memory: SecretMemory,
    /// How synchronisation goes.
    pub progress: Arc<Progress>,
    /// What protects the process.
    pub hardening: Hardening,
    /// Counts launches.
    pub launches: Arc<LaunchState>,
    /// What waits for a successor.
    pub waiting: Arc<WaitingRoom>,
}

/// Serves for ever.
pub async fn serve(listener: UnixListener, admin: Arc<Admin>) -> Infallible {
    let places = Arc::new(Semaphore::new(MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else {
            return std::future::pending().await;
        };
        match listener.accept().await {
            Ok((stream, _)) => {
                let admin = Arc::clone(&admin);
                tokio::spawn(async move {
                    converse(stream, admin).await;
                    drop(place);
                });
            }
            Err(error) => {
                warn!(%error, "the admin socket accepts nothing for a moment");
                sleep(AFTER_FAILURE).await;
            }
        }
    }
}

async fn converse(stream: UnixStream, admin: Arc<Admin>) {
    let allowed = may_ask(&stream);
    let service = service_fn(|request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move {
            let (head, _) = request.into_parts();
            let response = if allowed { admin.answer(&head).await } else { stranger() };
            Ok::<_, Infallible>(response)
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_PATIENCE)
        .max_buf_size(MAX_HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(PATIENCE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(error = %chain(&error), "an admin connection failed"),
        Err(_) => debug!("an admin connection took too long"),
    }
}

/// The socket's mode says the same; this holds also where somebody widened it.
fn may_ask(stream: &UnixStream) -> bool {
    let peer = Peer::of(stream);
    let allowed = peer.is_ok_and(|peer| peer.uid == 0 || peer.uid == geteuid().as_raw());
    if !allowed {
        warn!(uid = peer.map(|peer| peer.uid).ok(), "a stranger asked the admin socket and was refused");
    }
    allowed
}

impl Admin {
    async fn answer(&self, request: &Parts) -> Response<Full<Bytes>> {
        match (request.uri.path(), &request.method) {
            ("/healthz", &Method::GET) => self.health(),
            ("/status", &Method::GET) => json(StatusCode::OK, &self.report()),
            ("/explain", &Method::GET) => self.explain(request.uri.query().unwrap_or_default()).await,
            ("/healthz" | "/status" | "/explain", _) => {
                let mut response =
                    refusal(StatusCode::METHOD_NOT_ALLOWED, "method", "only GET is served here");
                response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static("GET"));
                response
            }
            _ => refusal(StatusCode::NOT_FOUND, "path", "the paths are /healthz, /status and /explain"),
        }
    }

    async fn explain(&self, query: &str) -> Response<Full<Bytes>> {
        match explain::parse(query) {
            Some(peer) => json(StatusCode::OK, &self.launches.explain(peer).await),
            None => refusal(StatusCode::BAD_REQUEST, "query", "ask with pid, uid and gid, each a number"),
        }
    }

    fn health(&self) -> Response<Full<Bytes>> {
        match self.vault.holding() {
            Holding::Ready { .. } => json(StatusCode::OK, &serde_json::json!({"state": State::Ready})),
            Holding::Without(unavailable) => {
                let state = state_of(unavailable.loss);
                let body = serde_json::json!({"state": state, "reason": &*unavailable.reason});
                json(StatusCode::SERVICE_UNAVAILABLE, &body)
            }
        }
    }

    /// Everything that may be known, at this moment.
    #[must_use]
    pub fn report(&self) -> Report {
        let progress = self.progress.snapshot();
        let held = Held::of(self.vault.holding());
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            devbox_id: progress.devbox_id,
            server: self.server.to_string(),
            state: held.state,
            reason: held.reason,
            revision: held.revision,
            last_sync_age_s: progress.last_sync_age.map(|age| age.as_secs()),
            last_error: progress
                .failure
                .map(|failure| LastError { message: failure.message, since_ms: failure.since_ms }),
            lease_left_s: held.lease_left_s,
            certificate_expires_ms: progress.certificate.map(|validity| validity.not_after_ms),
            memory: self.memory(),
            hardening: self.hardening.clone(),
            restart: self.restart(),
            launches: self.launches(),
            timings: Timings {
                enroll_ms: progress.timings.enroll.map(milliseconds),
                fetch_ms: progress.timings.fetch.map(milliseconds),
            },
            secrets: held.secrets,
        }
    }

    fn memory(&self) -> Memory {
        Memory {
            backing: self.memory.backing().word().to_owned(),
            fallback_reason: self.memory.fallback_reason().map(|reason| chain(reason)),
            bytes_locked: self.memory.bytes_locked(),
            limit: self.memory.limit(),
        }
    }

    fn restart(&self) -> Restart {
        let waiting = self.waiting.look();
        Restart { identity: waiting.identity, secrets_revision: waiting.secrets }
    }

    fn launches(&self) -> Launches {
        let counts = self.launches.counts();
        Launches { served: counts.served, refused: counts.refused }
    }
}

fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The part of a report that is about what is held.
struct Held {
    state: State,
    reason: Option<String>,
    revision: Option<u64>,
    lease_left_s: Option<u64>,
    secrets: Vec<Variable>,
}

impl Held {
    fn of(holding: Holding) -> Self {
        match holding {
            Holding::Ready { generation, lease_left } => Self {
                state: State::Ready,
                reason: None,
                revision: Some(generation.revision()),
                lease_left_s: Some(lease_left.as_secs()),
                secrets: generation.variables().map(variable).collect(),
            },
            Holding::Without(unavailable) => Self {
                state: state_of(unavailable.loss),
                reason: Some(unavailable.reason.to_string()),
                revision: None,
                lease_left_s: None,
                secrets: Vec::new(),
            },
        }
    }
}

fn variable(variable: crate::memory::Variable<'_>) -> Variable {
    Variable { env: variable.name.to_owned(), secret: variable.secret.to_owned(), version: variable.version }
}

fn state_of(loss: Loss) -> State {
    match loss {
        Loss::Starting => State::Starting,
        Loss::Stale => State::Stale,
        Loss::Revoked | Loss::Stopping => State::Lost,
    }
}

fn stranger() -> Response<Full<Bytes>> {
    refusal(StatusCode::FORBIDDEN, "forbidden", "only root and the daemon's own user may ask here")
}

fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({"code": code, "message": message}))
}

/// Text, numbers and lists of them: always serialisable.
fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(serde_json::to_vec(body).unwrap_or_default())));
    *response.status_mut() = status;
    let value = hyper::header::HeaderValue::from_static;
    response.headers_mut().insert(CONTENT_TYPE, value("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, value("no-store"));
    response
}
