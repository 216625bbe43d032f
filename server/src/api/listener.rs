//! The accept loop of both listeners. A slow or hostile client costs nobody else anything: connections are counted,
//! in all and from one address, each runs in its own task, and each of its steps has a deadline.

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::{Admission, Place};
use super::connection::{self, Connection};
use super::liveness;
use super::observe::Observer;
use super::parse_errors::ParseErrors;
use crate::metrics::Metrics;
use crate::shutdown::Shutdown;
use crate::tls::TlsSource;

pub use super::connection::BodyPrivacy;

/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in flight may take to end once the server stops.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after the kernel refused a connection, most likely for want of file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// What is between TCP and HTTP.
pub enum Transport {
    /// Nothing: for a loopback address.
    Plain,
    /// TLS; the client's certificate, where there is one, names a devbox.
    Tls(TlsSource),
}

impl fmt::Debug for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Plain => "Plain",
            Self::Tls(_) => "Tls",
        })
    }
}

/// A bound listener, ready to serve.
#[derive(Debug)]
pub struct Listener {
    /// Its name in the log.
    pub name: &'static str,
    /// The bound socket.
    pub tcp: TcpListener,
    /// TLS or not.
    pub transport: Transport,
    /// What it serves.
    pub router: Router,
    /// Whether its requests' bodies are secret.
    pub privacy: BodyPrivacy,
    /// Where it counts.
    pub metrics: Arc<Metrics>,
}

impl Listener {
    /// Serves until `shutdown`, then lets requests in flight end, for at most five seconds.
    pub async fn serve(self, shutdown: Shutdown) {
        let admission = Admission::new();
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, remote)) => match admission.admit(remote.ip()) {
                        Some(place) => drop(connections.spawn(self.connection(stream, remote, place, &shutdown))),
                        None => tracing::warn!(listener = self.name, %remote, "too many connections: closed at once"),
                    },
                    Err(error) => self.pause_after(&error).await,
                },
            }
        }
        // No new connection is queued for a server that is leaving.
        drop(self.tcp);
        if timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(listener = self.name, left = connections.len(), "stopped with requests in flight");
        }
    }

    async fn pause_after(&self, error: &io::Error) {
        tracing::warn!(listener = self.name, %error, "a connection was not accepted; too few file descriptors?");
        sleep(ACCEPT_PAUSE).await;
    }

    /// The whole life of one connection.
    fn connection(
        &self,
        stream: TcpStream,
        remote: SocketAddr,
        place: Place,
        shutdown: &Shutdown,
    ) -> impl Future<Output = ()> + Send + 'static {
        let (name, router, privacy, shutdown) =
            (self.name, self.router.clone(), self.privacy, shutdown.clone());
        let observer = Observer { listener: name, metrics: Arc::clone(&self.metrics) };
        let acceptor = match &self.transport {
            Transport::Plain => None,
            Transport::Tls(source) => Some(source.acceptor()),
        };
        async move {
            let _place = place;
            // Without it an answer may wait 40 ms for an acknowledgement; a socket that refuses is about to fail anyway.
            let _ = stream.set_nodelay(true);
            let _ = liveness::end_when_unheard(&stream);
            let Some(acceptor) = acceptor else {
                let state = Connection::new(remote, None);
                return connection::serve(
                    TokioIo::new(ParseErrors::new(stream, observer)),
                    router,
                    state,
                    privacy,
                    &shutdown,
                )
                .await;
            };
            if let Some(stream) = handshake(name, &acceptor, stream, remote).await {
                let state = Connection::new(remote, certificate(&stream));
                connection::serve(
                    TokioIo::new(ParseErrors::new(stream, observer)),
                    router,
                    state,
                    privacy,
                    &shutdown,
                )
                .await;
            }
        }
    }
}

async fn handshake(
    listener: &'static str,
    acceptor: &TlsAcceptor,
    stream: TcpStream,
    remote: SocketAddr,
) -> Option<TlsStream<TcpStream>> {
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => Some(stream),
        Ok(Err(error)) => {
            tracing::warn!(listener, %remote, %error, "TLS handshake refused");
            None
        }
        Err(_) => {
            tracing::warn!(listener, %remote, "TLS handshake took too long");
            None
        }
    }
}

/// The client's own certificate: the handshake has verified it already.
fn certificate(stream: &TlsStream<TcpStream>) -> Option<CertificateDer<'static>> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().and_then(|chain| chain.first()).cloned()
}
