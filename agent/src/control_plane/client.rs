//! One request at a time over one persistent connection. Each step has a deadline, each answer a size limit.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use devbox_secrets_common::tcp::close_when_silent;
use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request};
use rustls::ClientConfig;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::TransportError;
use super::link::{Failure, Link};
use super::reply::Reply;
use super::url::ServerUrl;
use super::watched::Watched;
use crate::freshness::Freshness;

/// Time for connection and TLS handshake.
pub(crate) const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Number of a host's addresses that are tried.
const MAX_ADDRESSES: u32 = 3;

/// A request.
#[derive(Debug)]
pub struct Post<'a> {
    /// The path.
    pub path: &'static str,
    /// The JSON body.
    pub body: Vec<u8>,
    /// `Authorization`, already marked as sensitive.
    pub authorization: Option<&'a HeaderValue>,
    /// Time until the complete answer has arrived, apart from the connection.
    pub patience: Duration,
    /// Longest answer, in bytes.
    pub limit: usize,
}

/// The connection to the control plane, closed when this is dropped.
pub struct Client {
    url: ServerUrl,
    tls: TlsConnector,
    kept: Option<Link>,
    freshness: Option<Arc<Freshness>>,
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("url", &self.url).finish_non_exhaustive()
    }
}

impl Client {
    /// Connects at the first request.
    #[must_use]
    pub fn new(url: ServerUrl, config: Arc<ClientConfig>) -> Self {
        Self { url, tls: TlsConnector::from(config), kept: None, freshness: None }
    }

    /// The same; `freshness` records when answers arrive.
    #[must_use]
    pub(crate) fn watched_by(self, freshness: Arc<Freshness>) -> Self {
        Self { freshness: Some(freshness), ..self }
    }

    #[must_use]
    pub(crate) fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Connects, unless connected.
    ///
    /// # Errors
    /// [`TransportError`].
    pub(crate) async fn connect(&mut self) -> Result<(), TransportError> {
        self.kept = Some(self.link().await?);
        Ok(())
    }

    /// Sends one request and reads the complete answer. A connection that failed is not used again.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn post(&mut self, post: Post<'_>) -> Result<Reply, TransportError> {
        let mut link = self.link().await?;
        let after = post.patience;
        let limit = post.limit;
        let request = self.request(post)?;
        let arrives = || self.freshness.iter().for_each(|freshness| freshness.arrives());
        let reply = match timeout(after, link.exchange(request, limit, arrives)).await {
            Ok(result) => result.map_err(|failure| self.failed(failure, limit))?,
            Err(_) => return Err(TransportError::Timeout { url: self.url.clone(), after }),
        };
        // Kept only after a complete answer: what is left of a broken one must not become the next.
        self.kept = Some(link);
        Ok(reply)
    }

    async fn link(&mut self) -> Result<Link, TransportError> {
        if let Some(mut link) = self.kept.take()
            && link.is_open().await
        {
            return Ok(link);
        }
        timeout(CONNECT_TIMEOUT, self.connect_anew()).await.unwrap_or_else(|_| {
            Err(TransportError::Timeout { url: self.url.clone(), after: CONNECT_TIMEOUT })
        })
    }

    async fn connect_anew(&self) -> Result<Link, TransportError> {
        let tcp = self.dial().await?;
        let stream = self.handshake(tcp).await?;
        Link::new(stream).await.map_err(|error| self.broken(error))
    }

    /// Tries a few addresses in turn. Each gets a share of the time, so that one that drops packets leaves time for the others.
    async fn dial(&self) -> Result<TcpStream, TransportError> {
        let addresses = self.addresses().await?;
        let share = CONNECT_TIMEOUT / (MAX_ADDRESSES + 1);
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return prepare(tcp).map_err(|error| self.unconnected(error)),
                Ok(Err(error)) => last = error,
                Err(elapsed) => last = elapsed.into(),
            }
        }
        Err(self.unconnected(last))
    }

    async fn addresses(&self) -> Result<Vec<SocketAddr>, TransportError> {
        let host = self.url.host();
        let addresses = lookup_host((host, self.url.port())).await;
        let addresses =
            addresses.map_err(|source| TransportError::Resolve { host: host.to_owned(), source })?;
        Ok(addresses.take(MAX_ADDRESSES as usize).collect())
    }

    async fn handshake(&self, tcp: TcpStream) -> Result<TlsStream<Watched>, TransportError> {
        let name = self.url.server_name().map_err(|error| self.broken(error))?;
        let tcp = Watched::new(tcp, self.freshness.clone());
        self.tls.connect(name, tcp).await.map_err(|error| self.not_trusted(error))
    }

    fn request(&self, post: Post<'_>) -> Result<Request<Full<Bytes>>, TransportError> {
        let mut request = Request::builder()
            .method(Method::POST)
            .uri(post.path)
            .header(HOST, self.url.authority())
            .header(CONTENT_TYPE, "application/json");
        if let Some(authorization) = post.authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        request.body(Full::new(Bytes::from(post.body))).map_err(|error| self.broken(error))
    }

    fn unconnected(&self, source: io::Error) -> TransportError {
        TransportError::Connect { url: self.url.clone(), source }
    }

    fn not_trusted(&self, error: io::Error) -> TransportError {
        let url = self.url.clone();
        match error.downcast::<rustls::Error>() {
            Ok(source) => TransportError::tls(url, source),
            Err(error) => self.broken(error),
        }
    }

    fn failed(&self, failure: Failure, limit: usize) -> TransportError {
        match failure {
            Failure::TooLarge => TransportError::TooLarge { url: self.url.clone(), limit },
            Failure::Http(error) => match rustls_cause(&error) {
                Some(source) => TransportError::tls(self.url.clone(), source),
                None => self.broken(error),
            },
        }
    }

    fn broken(&self, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> TransportError {
        TransportError::Broken { url: self.url.clone(), source: error.into() }
    }
}

fn prepare(tcp: TcpStream) -> io::Result<TcpStream> {
    // A request is one small write: Nagle's algorithm would only delay it.
    tcp.set_nodelay(true)?;
    // A peer that vanished without a word would otherwise hold a poll until its deadline.
    close_when_silent(&tcp)?;
    Ok(tcp)
}

/// In TLS 1.3 the server's refusal of our certificate arrives after the handshake, as an alert.
fn rustls_cause(error: &hyper::Error) -> Option<rustls::Error> {
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        let inner = error.downcast_ref::<io::Error>().and_then(io::Error::get_ref);
        if let Some(tls) = inner.and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            return Some(tls.clone());
        }
        cause = error.source();
    }
    None
}
