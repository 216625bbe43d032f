//! The admin socket: a few connections at once, each short, each from root or the daemon's own user.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use nix::unistd::geteuid;
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tracing::{debug, warn};

use super::Admin;
use super::reply::stranger;
use crate::access::peer::Peer;
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
