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

use super::report::{LastError, Launches, Memory, Report, Restart, State, Timings, Variable};
use super::scrape::{metrics, reload};
use super::{explain, token};
use crate::control_plane::ServerUrl;
use crate::harden::Hardening;
use crate::launch::LaunchState;
use crate::machine::Machine;
use crate::memory::{Holding, Loss, SecretMemory, Vault};
use crate::peer::Peer;
use crate::reload::Reload;
use crate::restart::WaitingRoom;
use crate::sync::{Orders, Progress};
use crate::telemetry::audit::{Kind, TARGET};
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

/// Each path and its one method.
const ROUTES: [(&str, &str); 7] = [
    ("/healthz", "GET"),
    ("/status", "GET"),
    ("/explain", "GET"),
    ("/metrics", "GET"),
    ("/reload", "POST"),
    ("/quiesce", "POST"),
    ("/resume", "POST"),
];

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
    /// Quiesces and resumes.
    pub life: Orders,
    /// What tells this machine from a copy of it.
    pub machine: Arc<Machine>,
    /// Takes up changed rules.
    pub reload: Reload,
    /// When the daemon started, in milliseconds since the epoch.
    pub started_ms: i64,
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
    let asker = who_asks(&stream);
    let service = service_fn(|request: Request<Incoming>| {
        let admin = Arc::clone(&admin);
        async move {
            let (head, body) = request.into_parts();
            let response = match asker {
                Some(peer) => admin.answer(peer, &head, body).await,
                None => stranger(),
            };
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
fn who_asks(stream: &UnixStream) -> Option<Peer> {
    let peer = Peer::of(stream).ok();
    let allowed = peer.filter(|peer| peer.uid == 0 || peer.uid == geteuid().as_raw());
    if allowed.is_none() {
        warn!(
            target: TARGET,
            event = Kind::AdminRefusal.word(),
            uid = peer.map(|peer| peer.uid),
            gid = peer.map(|peer| peer.gid),
            pid = peer.map(|peer| peer.pid),
            "a stranger asked the admin socket and was refused"
        );
    }
    allowed
}

impl Admin {
    async fn answer(&self, asker: Peer, head: &Parts, body: Incoming) -> Response<Full<Bytes>> {
        match (head.uri.path(), &head.method) {
            ("/healthz", &Method::GET) => self.health(),
            ("/status", &Method::GET) => json(StatusCode::OK, &self.report()),
            ("/explain", &Method::GET) => self.explain(head.uri.query().unwrap_or_default()).await,
            ("/metrics", &Method::GET) => metrics(self),
            ("/reload", &Method::POST) => reload(&self.reload, asker),
            ("/quiesce", &Method::POST) => self.quiesce().await,
            ("/resume", &Method::POST) => self.resume(body).await,
            (path, _) => astray(path),
        }
    }

    async fn explain(&self, query: &str) -> Response<Full<Bytes>> {
        match explain::parse(query) {
            Some(peer) => json(StatusCode::OK, &self.launches.explain(peer).await),
            None => refusal(StatusCode::BAD_REQUEST, "query", "ask with pid, uid and gid, each a number"),
        }
    }

    async fn quiesce(&self) -> Response<Full<Bytes>> {
        match self.life.quiesce().await {
            Ok(()) => json(StatusCode::OK, &serde_json::json!({"state": State::Quiesced})),
            Err(error) => refusal(StatusCode::SERVICE_UNAVAILABLE, "quiesce", &chain(&error)),
        }
    }

    /// Answers when joining has begun; how it goes is in `/status`.
    async fn resume(&self, body: Incoming) -> Response<Full<Bytes>> {
        let resumed = match token::receive(body).await {
            Ok(token) => self.life.resume(token).await,
            Err(error) => return refusal(StatusCode::BAD_REQUEST, "token", &chain(&error)),
        };
        match resumed {
            Ok(()) => json(StatusCode::ACCEPTED, &serde_json::json!({"state": State::Starting})),
            Err(error) => refusal(StatusCode::CONFLICT, "resume", &chain(&error)),
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
            clone_detection: self.machine.watched(),
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

pub(super) fn state_of(loss: Loss) -> State {
    match loss {
        Loss::Starting => State::Starting,
        Loss::Stale => State::Stale,
        Loss::Quiesced => State::Quiesced,
        Loss::Cloned => State::Cloned,
        Loss::Revoked | Loss::Stopping => State::Lost,
    }
}

/// Another method than the path's own, or no path at all.
fn astray(path: &str) -> Response<Full<Bytes>> {
    let Some((_, method)) = ROUTES.iter().find(|(served, _)| *served == path) else {
        let paths: Vec<&str> = ROUTES.iter().map(|(path, _)| *path).collect();
        return refusal(StatusCode::NOT_FOUND, "path", &format!("the paths are {}", paths.join(", ")));
    };
    let mut response =
        refusal(StatusCode::METHOD_NOT_ALLOWED, "method", &format!("only {method} is served here"));
    response.headers_mut().insert(ALLOW, hyper::header::HeaderValue::from_static(method));
    response
}

fn stranger() -> Response<Full<Bytes>> {
    refusal(StatusCode::FORBIDDEN, "forbidden", "only root and the daemon's own user may ask here")
}

pub(super) fn refusal(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    json(status, &serde_json::json!({"code": code, "message": message}))
}

/// Text, numbers and lists of them: always serialisable.
pub(super) fn json(status: StatusCode, body: &impl Serialize) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(serde_json::to_vec(body).unwrap_or_default())));
    *response.status_mut() = status;
    let value = hyper::header::HeaderValue::from_static;
    response.headers_mut().insert(CONTENT_TYPE, value("application/json"));
    response.headers_mut().insert(CACHE_CONTROL, value("no-store"));
    response
}
