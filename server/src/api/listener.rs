//! The accept loop of both listeners. A slow or hostile client does not hold up others: connections
//! are counted, in all and by address, each runs in its own task, and each of its steps has a
//! deadline.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use axum::Router;
use devbox_secrets_common::tcp::close_when_silent;
use hyper_util::rt::TokioIo;
use rustls::pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::admission::{Admission, ConnectionSlot, Full};
use super::connection::{self, Connection};
use super::load::Load;
use super::observe::Observer;
use super::parse_errors::ParseErrors;
use super::sampled::Sampled;
use crate::config::ListenerLimits;
use crate::metrics::Metrics;
use crate::pki::tls::TlsSource;
use crate::registry::network::network;
use crate::shutdown::Shutdown;

pub(crate) use super::connection::BodyPrivacy;

/// Longest TLS handshake.
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// How long requests in flight may take to finish after the server begins to stop.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after `accept` failed, most likely because the process has no file descriptors left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The response of a plain listener to a connection over its limit.
const TOO_MANY_CONNECTIONS: &[u8] =
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n\
connection: close\r\ncontent-length: 88\r\n\r\n\
{\"code\":\"too_many_connections\",\"message\":\"the server has no free connection: try again\"}";

/// The budgets of a listener, which a reload replaces.
pub(crate) type LimitSource = Arc<ArcSwap<ListenerLimits>>;

/// The layer between TCP and HTTP.
pub(crate) enum Transport {
    /// No TLS, for a loopback address.
    Plain,
    /// TLS; a client's certificate names a devbox.
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
pub(crate) struct Listener {
    pub(crate) name: &'static str,
    pub(crate) tcp: TcpListener,
    pub(crate) transport: Transport,
    pub(crate) router: Router,
    pub(crate) privacy: BodyPrivacy,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: LimitSource,
}

impl Listener {
    /// Serves until `shutdown`, then waits at most five seconds for requests in flight.
    pub(crate) async fn serve(self, shutdown: Shutdown) {
        let gate = Arc::new(Gate {
            name: self.name,
            transport: self.transport,
            router: self.router,
            privacy: self.privacy,
            metrics: self.metrics,
            load: Arc::new(Load::new(Arc::clone(&self.limits))),
            limits: self.limits,
            addresses: Admission::default(),
            certificates: Admission::default(),
            refusals: Sampled::default(),
            handshakes: Sampled::default(),
        });
        let mut connections = JoinSet::new();
        loop {
            tokio::select! {
                () = shutdown.requested() => break,
                Some(_) = connections.join_next() => {}
                accepted = self.tcp.accept() => match accepted {
                    Ok((stream, remote)) => if let Some(place) = gate.admit(&stream, remote) {
                        drop(connections.spawn(Arc::clone(&gate).connection(stream, remote, place, shutdown.clone())));
                    },
                    Err(error) => gate.pause_after(&error).await,
                },
            }
        }
        // The socket is closed first, so that the kernel queues no connection for a server that
        // stops.
        drop(self.tcp);
        if timeout(DRAIN_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await.is_err() {
            tracing::warn!(listener = gate.name, left = connections.len(), "stopped with requests in flight");
        }
    }
}

/// A listener that accepts connections: its limits and its routes.
struct Gate {
    name: &'static str,
    transport: Transport,
    router: Router,
    privacy: BodyPrivacy,
    metrics: Arc<Metrics>,
    limits: LimitSource,
    load: Arc<Load>,
    addresses: Admission<IpAddr>,
    certificates: Admission<CertificateDer<'static>>,
    refusals: Sampled,
    handshakes: Sampled,
}

impl Gate {
    /// A slot for a connection, unless all are taken. A plain listener sends the reason to the
    /// client.
    fn admit(&self, stream: &TcpStream, remote: SocketAddr) -> Option<ConnectionSlot<IpAddr>> {
        let limits = self.limits.load();
        let address = network(remote.ip());
        let key = (!limits.exempt.has(remote.ip())).then_some(address);
        match self.addresses.admit(key, limits.connections, limits.connections_per_address) {
            Ok(place) => Some(place),
            Err(full) => {
                let reason = match full {
                    Full::All => "max_connections",
                    Full::Key => "max_connections_per_address",
                };
                self.refuse(remote, reason);
                if matches!(self.transport, Transport::Plain) {
                    // Best effort: the connection is closed either way.
                    let _ = stream.try_write(TOO_MANY_CONNECTIONS);
                }
                None
            }
        }
    }

    fn refuse(&self, remote: SocketAddr, reason: &'static str) {
        self.metrics.connection_refused(self.name, reason);
        if let Some(left_out) = self.refusals.permit() {
            tracing::warn!(listener = self.name, %remote, reason, left_out, "connection refused");
        }
    }

    async fn pause_after(&self, error: &io::Error) {
        tracing::warn!(listener = self.name, %error, "a connection was not accepted; too few file descriptors?");
        sleep(ACCEPT_PAUSE).await;
    }

    /// Serves one connection, from the handshake to its close.
    async fn connection(
        self: Arc<Self>,
        stream: TcpStream,
        remote: SocketAddr,
        _slot: ConnectionSlot<IpAddr>,
        shutdown: Shutdown,
    ) {
        let _open = self.metrics.connection_opened(self.name);
        // Without TCP_NODELAY a response may wait 40 ms for an acknowledgement. A socket that
        // refuses the option is about to fail anyway.
        let _ = stream.set_nodelay(true);
        let _ = close_when_silent(&stream);
        let acceptor = match &self.transport {
            Transport::Plain => {
                return self
                    .converse(stream, Connection::new(remote, None, Arc::clone(&self.load)), &shutdown)
                    .await;
            }
            Transport::Tls(source) => source.acceptor(),
        };
        let Some(stream) = self.handshake(&acceptor, stream, remote).await else { return };
        let certificate = certificate(&stream);
        let limit = self.limits.load().connections_per_certificate;
        let place = certificate
            .clone()
            .map(|certificate| self.certificates.admit(Some(certificate), usize::MAX, limit));
        if matches!(place, Some(Err(_))) {
            return self.refuse(remote, "max_connections_per_certificate");
        }
        self.converse(stream, Connection::new(remote, certificate, Arc::clone(&self.load)), &shutdown).await;
    }

    async fn converse<S>(&self, stream: S, connection: Arc<Connection>, shutdown: &Shutdown)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let observer = Observer { listener: self.name, metrics: Arc::clone(&self.metrics) };
        let io = TokioIo::new(ParseErrors::new(stream, observer));
        connection::serve(io, self.router.clone(), connection, self.privacy, shutdown).await;
    }

    async fn handshake(
        &self,
        acceptor: &TlsAcceptor,
        stream: TcpStream,
        remote: SocketAddr,
    ) -> Option<TlsStream<TcpStream>> {
        let error = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => return Some(stream),
            Ok(Err(error)) => error.to_string(),
            Err(_) => "it took too long".to_owned(),
        };
        self.metrics.connection_refused(self.name, "tls_handshake");
        if let Some(left_out) = self.handshakes.permit() {
            tracing::warn!(listener = self.name, %remote, error, left_out, "TLS handshake failed");
        }
        None
    }
}

/// The client's own certificate: the handshake has verified it already.
fn certificate(stream: &TlsStream<TcpStream>) -> Option<CertificateDer<'static>> {
    let (_, session) = stream.get_ref();
    session.peer_certificates().and_then(|chain| chain.first()).cloned()
}
