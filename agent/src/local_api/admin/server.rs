//! Serves the admin socket: a few short connections at once, from root or the daemon's own user.

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
use tokio::time::timeout;
use tracing::debug;

use super::Admin;
use super::reply::stranger;
use crate::access::peer::Peer;
use crate::local_api::accept::{Acceptor, Slots, in_runtime};
use crate::telemetry::audit::{Kind, audit};
use crate::telemetry::chain;

/// Connections that are served at once; more wait.
const MAX_CONNECTIONS: u32 = 16;
/// Time for a whole connection, from its acceptance.
const DEADLINE: Duration = Duration::from_secs(10);
/// Time for a request's header.
const HEADER_DEADLINE: Duration = Duration::from_secs(1);
/// Longest header, in bytes: the shortest limit that hyper takes.
const MAX_HEADER: usize = 8 * 1024;

/// Serves `listener` until it is dropped.
pub(crate) async fn serve(listener: UnixListener, admin: Arc<Admin>) {
    let Some(acceptor) = Acceptor::new(listener, "admin") else { return };
    let slots = Slots::new(MAX_CONNECTIONS);
    loop {
        let Some((stream, slot)) = acceptor.accept(slots.take()).await else { continue };
        let admin = Arc::clone(&admin);
        tokio::spawn(async move {
            match in_runtime(stream) {
                Ok(stream) => converse(stream, admin).await,
                Err(error) => debug!(%error, "an admin connection failed"),
            }
            drop(slot);
        });
    }
}

async fn converse(stream: UnixStream, admin: Arc<Admin>) {
    let asker = authorized_peer(&stream);
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
        .header_read_timeout(HEADER_DEADLINE)
        .max_buf_size(MAX_HEADER)
        .keep_alive(false)
        .serve_connection(TokioIo::new(stream), service);
    match timeout(DEADLINE, connection).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(error = %chain(&error), "an admin connection failed"),
        Err(_) => debug!("an admin connection took too long"),
    }
}

/// The socket's mode grants the same; this check holds even if somebody widened it.
fn authorized_peer(stream: &UnixStream) -> Option<Peer> {
    let peer = Peer::of(stream).ok();
    let allowed = peer.filter(|peer| peer.uid == 0 || peer.uid == geteuid().as_raw());
    if allowed.is_none() {
        audit!(warn, Kind::AdminRefusal, maybe_peer = peer, "another user was refused at the admin socket");
    }
    allowed
}
