//! One request at a time over one kept connection. Every step has a deadline; every answer has a bound.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Bytes, Incoming};
use hyper::client::conn::http1;
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue};
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use rustls::ClientConfig;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::error::TransportError;
use super::reply::Reply;
use super::url::ServerUrl;

/// Time to connect and to shake hands.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// How many of a host's addresses are tried.
const MAX_ADDRESSES: u32 = 3;

/// Bytes that a connection reads at once, and its longest header: what an idle connection keeps.
const READ_BUFFER: usize = 16 * 1024;

/// A request.
#[derive(Debug)]
pub struct Post<'a> {
    /// The path.
    pub path: &'static str,
    /// The JSON body.
    pub body: Vec<u8>,
    /// `Authorization`, marked sensitive by who made it.
    pub authorization: Option<&'a HeaderValue>,
    /// Time until the whole answer is there, the connecting aside.
    pub patience: Duration,
    /// Longest answer, in bytes.
    pub limit: usize,
}

type Sender = http1::SendRequest<Full<Bytes>>;

/// The connection to the control plane.
pub struct Client {
    url: ServerUrl,
    tls: TlsConnector,
    kept: Option<Sender>,
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
        Self { url, tls: TlsConnector::from(config), kept: None }
    }

    /// The server.
    #[must_use]
    pub fn url(&self) -> &ServerUrl {
        &self.url
    }

    /// Sends one request and reads its answer whole. A connection that failed is not used again.
    ///
    /// # Errors
    /// [`TransportError`].
    pub async fn post(&mut self, post: Post<'_>) -> Result<Reply, TransportError> {
        let mut sender = self.connection().await?;
        let (after, limit) = (post.patience, post.limit);
        let request = self.request(post)?;
        let reply = match timeout(after, exchange(&mut sender, request, limit)).await {
            Ok(result) => result.map_err(|failure| self.failed(failure, limit))?,
            Err(_) => return Err(TransportError::Timeout { url: self.url.clone(), after }),
        };
        self.kept = Some(sender);
        Ok(reply)
    }

    async fn connection(&mut self) -> Result<Sender, TransportError> {
        if let Some(mut sender) = self.kept.take()
            && sender.ready().await.is_ok()
        {
            return Ok(sender);
        }
        timeout(CONNECT_TIMEOUT, self.connect()).await.unwrap_or_else(|_| {
            Err(TransportError::Timeout { url: self.url.clone(), after: CONNECT_TIMEOUT })
        })
    }

    async fn connect(&self) -> Result<Sender, TransportError> {
        let tcp = self.dial().await?;
        let stream = self.handshake(tcp).await?;
        let (sender, connection) = http1::Builder::new()
            .max_buf_size(READ_BUFFER)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| self.broken(error))?;
        // Ends when the sender is dropped or the peer closes; a failure reaches the request that waits.
        tokio::spawn(async move { drop(connection.await) });
        Ok(sender)
    }

    /// Tries a few addresses in turn; one that swallows packets leaves time for the others and for the handshake.
    async fn dial(&self) -> Result<TcpStream, TransportError> {
        let addresses = self.addresses().await?;
        let share = CONNECT_TIMEOUT / (MAX_ADDRESSES + 1);
        let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(tcp)) => return tcp.set_nodelay(true).map(|()| tcp).map_err(|e| self.unconnected(e)),
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

    async fn handshake(&self, tcp: TcpStream) -> Result<TlsStream<TcpStream>, TransportError> {
        let name = self.url.server_name().map_err(|error| self.broken(error))?;
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

enum Failure {
    Http(hyper::Error),
    TooLarge,
}

async fn exchange(
    sender: &mut Sender,
    request: Request<Full<Bytes>>,
    limit: usize,
) -> Result<Reply, Failure> {
    let response = sender.send_request(request).await.map_err(Failure::Http)?;
    let status = response.status();
    let body = collect(response, limit).await?;
    Ok(Reply { status, body })
}

/// Reads the body into one buffer of its announced length.
async fn collect(response: Response<Incoming>, limit: usize) -> Result<Vec<u8>, Failure> {
    let mut incoming = response.into_body();
    let announced = usize::try_from(incoming.size_hint().lower()).unwrap_or(usize::MAX);
    if announced > limit {
        return Err(Failure::TooLarge);
    }
    let mut body = Vec::with_capacity(announced);
    while let Some(frame) = incoming.frame().await {
        let frame = frame.map_err(Failure::Http)?;
        let Some(data) = frame.data_ref() else { continue };
        if data.len() > limit - body.len() {
            return Err(Failure::TooLarge);
        }
        body.extend_from_slice(data);
    }
    Ok(body)
}
