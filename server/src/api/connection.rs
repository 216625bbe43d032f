//! One HTTP connection: its peer, whether it is in use, and when it has to close.
//!
//! hyper keeps a connection's read buffer, and in it the bytes of past requests, for as long as the
//! connection lives. So a connection that carried a secret closes after its response: that frees
//! the buffers, and the allocator wipes freed memory. HTTP/1.1 clients get `connection: close`,
//! HTTP/2 clients GOAWAY (RFC 9113 section 6.8).

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::header::CONNECTION;
use axum::http::{HeaderValue, Request, Version};
use axum::response::Response;
use hyper::body::{Body, Incoming};
use hyper::rt::{Read, Write};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use rustls::pki_types::CertificateDer;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep_until};

use super::load::Load;
use crate::shutdown::Shutdown;

/// Longest time from a connection's start to its first request, and to the end of each request's
/// header.
const HEADER_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest time between two requests of an HTTP/2 connection.
const IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// The longest time from the decision to close a connection to its close. A request in it ends
/// earlier: see [`BODY_TIMEOUT`](super::body::BODY_TIMEOUT).
const CLOSE_TIMEOUT: Duration = Duration::from_secs(40);
/// HTTP/1.1: most bytes of a request's header, and of what is read ahead.
const MAX_HEADER_LEN: usize = 64 * 1024;
/// HTTP/2: most requests at once in one connection.
const MAX_STREAMS: u32 = 128;
/// Most body bytes that cannot carry a value: an empty JSON object.
const HARMLESS_BODY_LEN: u64 = 2;

/// The requests after which a listener closes the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BodyPrivacy {
    /// Every request with a body: it may hold a value.
    Secret,
    /// Only requests whose handler asks for it: bodies hold no secret.
    Open,
}

/// The connection of a request, as an extension of the request.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) remote: SocketAddr,
    /// The client's certificate, which a devbox CA signed. `None` if the client sent none.
    pub(super) certificate: Option<CertificateDer<'static>>,
    /// Dropped with the connection, so a `Weak` to it shows whether the connection is open.
    pub(super) alive: Arc<()>,
    pub(super) load: Arc<Load>,
    closing: AtomicBool,
    close: Notify,
    in_flight: AtomicUsize,
    last_use: Mutex<Option<Instant>>,
}

struct InFlight(Arc<Connection>);

impl Connection {
    pub(super) fn new(
        remote: SocketAddr,
        certificate: Option<CertificateDer<'static>>,
        load: Arc<Load>,
    ) -> Arc<Self> {
        Arc::new(Self {
            remote,
            certificate,
            alive: Arc::new(()),
            load,
            closing: AtomicBool::new(false),
            close: Notify::new(),
            in_flight: AtomicUsize::new(0),
            last_use: Mutex::new(None),
        })
    }

    /// Closes the connection after the requests in flight, which frees all its buffers.
    pub(super) fn close_after_answer(&self) {
        self.closing.store(true, Ordering::Relaxed);
        self.close.notify_one();
    }

    fn begin(self: &Arc<Self>) -> InFlight {
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(Arc::clone(self))
    }

    /// The time of the next idle check. `None` if the connection has been idle for too long.
    fn next_look(&self, now: Instant) -> Option<Instant> {
        if self.in_flight.load(Ordering::Relaxed) > 0 {
            return Some(now + IDLE_TIMEOUT);
        }
        let last_use = *self.last_use.lock().unwrap_or_else(PoisonError::into_inner);
        last_use.map(|last_use| last_use + IDLE_TIMEOUT).filter(|deadline| *deadline > now)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        *self.0.last_use.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Serves `router` on one connection, to its end.
pub(super) async fn serve<I>(
    io: I,
    router: Router,
    connection: Arc<Connection>,
    privacy: BodyPrivacy,
    shutdown: &Shutdown,
) where
    I: Read + Write + Unpin + Send + 'static,
{
    let service = ConnectionService {
        router: TowerToHyperService::new(router),
        connection: connection.clone(),
        privacy,
    };
    let builder = builder();
    let mut serving = pin!(builder.serve_connection(io, service));
    let mut deadline = Instant::now() + HEADER_TIMEOUT;
    let mut closing = false;
    loop {
        let close = tokio::select! {
            result = serving.as_mut() => return report_end(result, &connection),
            () = connection.close.notified(), if !closing => true,
            () = shutdown.requested(), if !closing => true,
            () = sleep_until(deadline), if closing => return,
            () = sleep_until(deadline), if !closing => match connection.next_look(Instant::now()) {
                Some(look) => {
                    deadline = look;
                    false
                }
                None => true,
            },
        };
        if close {
            closing = true;
            deadline = Instant::now() + CLOSE_TIMEOUT;
            serving.as_mut().graceful_shutdown();
        }
    }
}

fn builder() -> auto::Builder<TokioExecutor> {
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder.http1().timer(TokioTimer::new()).header_read_timeout(HEADER_TIMEOUT).max_buf_size(MAX_HEADER_LEN);
    builder
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .keep_alive_interval(HEADER_TIMEOUT)
        .keep_alive_timeout(HEADER_TIMEOUT);
    builder
}

/// A connection that fails is the client's concern, so it is logged for `debug` only.
fn report_end(result: Result<(), Box<dyn std::error::Error + Send + Sync>>, connection: &Connection) {
    if let Err(error) = result {
        tracing::debug!(remote = %connection.remote, %error, "connection ended early");
    }
}

/// Gives each request its connection, and closes the connection after a request that may hold a
/// value.
#[derive(Clone)]
struct ConnectionService {
    router: TowerToHyperService<Router>,
    connection: Arc<Connection>,
    privacy: BodyPrivacy,
}

impl hyper::service::Service<Request<Incoming>> for ConnectionService {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: Request<Incoming>) -> Self::Future {
        let in_flight = self.connection.begin();
        if self.privacy == BodyPrivacy::Secret && may_hold_a_value(request.body()) {
            self.connection.close_after_answer();
        }
        let version = request.version();
        request.extensions_mut().insert(Arc::clone(&self.connection));
        let answer = self.router.call(request);
        Box::pin(async move {
            let mut response = answer.await?;
            let closing = in_flight.0.closing.load(Ordering::Relaxed);
            if closing && version < Version::HTTP_2 {
                response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(response)
        })
    }
}

fn may_hold_a_value(body: &Incoming) -> bool {
    !body.is_end_stream() && body.size_hint().upper().is_none_or(|len| len > HARMLESS_BODY_LEN)
}
