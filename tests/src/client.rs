//! A small HTTP client: HTTP/1.1, or HTTP/2 with prior knowledge, over any stream.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::client::conn::{http1, http2};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST, HeaderMap};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioExecutor, TokioIo};
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpStream, UnixStream};

use crate::wait;

/// A request, before it has its headers for the connection.
pub type Outgoing = Request<Full<Bytes>>;

/// Which HTTP to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// A response, read to its end.
#[derive(Debug)]
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    async fn read(response: Response<Incoming>) -> hyper::Result<Self> {
        let (head, body) = response.into_parts();
        Ok(Self { status: head.status, headers: head.headers, body: body.collect().await?.to_bytes() })
    }

    /// The body as text.
    #[must_use]
    pub fn body_text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    ///
    /// # Panics
    /// If it is not JSON.
    #[must_use]
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// A field of the body, which is a JSON object, as text.
    ///
    /// # Panics
    /// If there is no such field, or it is not text.
    #[must_use]
    #[track_caller]
    pub fn text(&self, field: &str) -> String {
        self.json()[field].as_str().unwrap_or_else(|| panic!("no {field} in {self:?}")).to_owned()
    }

    /// A header's value; empty if the header is missing.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// This answer, if its status is `status` and an error has the form that every error has.
    ///
    /// # Panics
    /// If not.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status, status, "{self:?}");
        if status >= 400 {
            let body = self.json();
            let object = body.as_object().expect("an error is an object");
            assert!(object.keys().eq(["code", "message"]), "{self:?}");
            let texts = object.values().filter_map(Value::as_str);
            assert_eq!(texts.filter(|text| !text.is_empty()).count(), 2, "{self:?}");
        }
        self
    }

    /// The message of an error with this status.
    ///
    /// # Panics
    /// If this is not such an error.
    #[track_caller]
    pub fn refusal(self, status: u16) -> String {
        self.expect(status).text("message")
    }
}

/// A connection that stays open until it is dropped or the server closes it.
#[derive(Debug)]
pub enum Connection {
    /// HTTP/1.1.
    Http1(http1::SendRequest<Full<Bytes>>),
    /// HTTP/2.
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Connection {
    /// Shakes hands over `stream`.
    ///
    /// # Errors
    /// A failed HTTP handshake.
    pub async fn new<S>(stream: S, protocol: Protocol) -> hyper::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(stream);
        match protocol {
            Protocol::Http1 => {
                let (sender, driver) = http1::handshake(io).await?;
                tokio::spawn(driver);
                Ok(Self::Http1(sender))
            }
            Protocol::Http2 => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
                tokio::spawn(driver);
                Ok(Self::Http2(sender))
            }
        }
    }

    /// Another handle of the same HTTP/2 connection, for requests at the same time.
    ///
    /// # Panics
    /// On an HTTP/1.1 connection, which takes one request after the other.
    #[must_use]
    pub fn multiplexed(&self) -> Self {
        match self {
            Self::Http1(_) => panic!("HTTP/1.1 takes one request after the other"),
            Self::Http2(sender) => Self::Http2(sender.clone()),
        }
    }

    /// Sends one request and reads the answer whole.
    ///
    /// # Errors
    /// A connection that the server closes.
    pub async fn send(&mut self, request: Outgoing) -> hyper::Result<Answer> {
        let exchange = async {
            let response = match self {
                Self::Http1(sender) => sender.send_request(request).await?,
                Self::Http2(sender) => sender.send_request(request).await?,
            };
            Answer::read(response).await
        };
        wait::within("an HTTP answer", exchange).await
    }
}

/// The public API, as one client sees it.
#[derive(Debug, Clone)]
pub struct Api {
    /// Where the listener is.
    pub address: SocketAddr,
    /// The token for `Authorization: Bearer`.
    pub token: Option<String>,
    /// Which HTTP to speak.
    pub protocol: Protocol,
}

impl Api {
    /// The same API with another token.
    #[must_use]
    pub fn with_token(&self, token: &str) -> Self {
        Self { token: Some(token.to_owned()), ..self.clone() }
    }

    /// The same API without a token.
    #[must_use]
    pub fn without_token(&self) -> Self {
        Self { token: None, ..self.clone() }
    }

    /// The same API by another HTTP.
    #[must_use]
    pub fn over(&self, protocol: Protocol) -> Self {
        Self { protocol, ..self.clone() }
    }

    /// A connection of its own.
    ///
    /// # Panics
    /// If the server does not take it.
    pub async fn connect(&self) -> Connection {
        let stream = TcpStream::connect(self.address).await.expect("the API listens");
        Connection::new(stream, self.protocol).await.expect("the API speaks HTTP")
    }

    /// A request with this client's token. `body`, if there is one, is JSON.
    ///
    /// # Panics
    /// If `path` is no path.
    #[must_use]
    pub fn request(&self, method: Method, path: &str, body: Option<&Value>) -> Outgoing {
        let mut request = Request::builder().method(method);
        request = match self.protocol {
            Protocol::Http1 => request.uri(path).header(HOST, self.address.to_string()),
            Protocol::Http2 => request.uri(format!("http://{}{path}", self.address)),
        };
        if let Some(token) = &self.token {
            request = request.header(AUTHORIZATION, format!("Bearer {token}"));
        }
        if body.is_some() {
            request = request.header(CONTENT_TYPE, "application/json");
        }
        let body = body.map(Value::to_string).unwrap_or_default();
        request.body(Full::from(body)).expect("a request that a test wrote is well-formed")
    }

    /// Sends a request on a connection of its own.
    ///
    /// # Panics
    /// If there is no answer.
    pub async fn send(&self, request: Outgoing) -> Answer {
        self.connect().await.send(request).await.expect("the API answers")
    }

    /// `GET path`.
    pub async fn get(&self, path: &str) -> Answer {
        self.send(self.request(Method::GET, path, None)).await
    }

    /// `POST path` with a JSON body.
    pub async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send(self.request(Method::POST, path, Some(body))).await
    }

    /// `POST path` without a body.
    pub async fn post_empty(&self, path: &str) -> Answer {
        self.send(self.request(Method::POST, path, None)).await
    }

    /// Creates a secret.
    pub async fn create(&self, name: &str, value: &str) -> Value {
        let body = serde_json::json!({ "name": name, "value": value });
        self.post("/v1/secrets", &body).await.expect(200).json()
    }

    /// Creates a secret, and sends the request again when its token's budget of requests is used up, after the time that the
    /// server names.
    pub async fn create_within_budget(&self, name: &str, value: &str) -> Value {
        let body = serde_json::json!({ "name": name, "value": value });
        loop {
            let answer = self.post("/v1/secrets", &body).await;
            if answer.status != 429 {
                return answer.expect(200).json();
            }
            let seconds = answer.header("retry-after").parse().expect("a 429 names the time");
            let pause = Duration::from_secs(seconds);
            tokio::time::sleep(pause).await;
        }
    }

    /// Gives a secret another value.
    pub async fn update(&self, name: &str, value: &str) -> Value {
        let body = serde_json::json!({ "value": value });
        self.post(&format!("/v1/secrets/{name}"), &body).await.expect(200).json()
    }

    /// Deletes a secret.
    pub async fn delete(&self, name: &str) -> Value {
        self.post_empty(&format!("/v1/secrets/{name}/delete")).await.expect(200).json()
    }
}

/// Sends `bytes` as they are, and returns all that the peer sends until it closes the connection.
///
/// # Panics
/// If the peer does not close it.
pub async fn exchange(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> Vec<u8> {
    // The peer may refuse, and close, before it has read everything.
    let _ = stream.write_all(bytes).await;
    let mut answer = Vec::new();
    let _ = wait::within("the peer to close the connection", stream.read_to_end(&mut answer)).await;
    answer
}

/// `GET path` on a Unix socket.
///
/// # Errors
/// If nobody answers there.
pub async fn get_unix(socket: &Path, path: &str) -> std::io::Result<Answer> {
    let stream = UnixStream::connect(socket).await?;
    let mut connection = Connection::new(stream, Protocol::Http1).await.map_err(std::io::Error::other)?;
    let request =
        Request::get(path).header(HOST, "localhost").body(Full::default()).expect("a path is a URI");
    connection.send(request).await.map_err(std::io::Error::other)
}
