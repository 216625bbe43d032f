//! A real server on free ports and a temporary state, and clients for both of its listeners.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use devbox_secrets_server::app::{App, KeyPolicy};
use devbox_secrets_server::config::Config;
use devbox_secrets_server::listeners::Bound;
use devbox_secrets_server::registry::Registry;
use devbox_secrets_server::shutdown::{ShutdownTrigger, shutdown_signal};
pub(crate) use devbox_secrets_tests::client::{Answer, Connection, Outgoing, Protocol};
use devbox_secrets_tests::tls::{Client, Identity, Trust};
use http_body_util::Full;
use hyper::Request;
use hyper::header::{HeaderName, HeaderValue};
use rustls::ClientConfig;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::{JoinHandle, JoinSet};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

/// A server in this process.
pub(crate) struct TestServer {
    pub(crate) bound: Bound,
    pub(crate) registry: Registry,
    pub(crate) token: String,
    pub(crate) account: String,
    pub(crate) state: TempDir,
    trigger: ShutdownTrigger,
    serving: JoinHandle<()>,
}

/// A request in the making.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) method: &'static str,
    pub(crate) path: String,
    pub(crate) headers: Vec<(&'static str, String)>,
    pub(crate) body: Vec<u8>,
}

impl TestServer {
    pub(crate) async fn start() -> Self {
        Self::start_with(|_| {}).await
    }

    /// As [`TestServer::start`], with another configuration.
    pub(crate) async fn start_with(change: impl FnOnce(&mut Config)) -> Self {
        let state = tempfile::tempdir().unwrap();
        let any: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let mut config = Config::dev(&state.path().join("state"), any, any).unwrap();
        change(&mut config);
        let (trigger, shutdown) = shutdown_signal();
        let app = App::start(&config, KeyPolicy::Own, shutdown).await.unwrap();
        let development = app.registry().development_account().await.unwrap();
        Self {
            bound: app.bound(),
            registry: app.registry().clone(),
            token: development.token.expose_token().to_owned(),
            account: development.account.id.to_string(),
            state,
            trigger,
            serving: tokio::spawn(app.run()),
        }
    }

    /// Sends an authorised request over a connection of its own, HTTP/1.1.
    pub(crate) async fn call(&self, call: Call) -> Answer {
        self.call_by(Protocol::Http1, call.header("authorization", &format!("Bearer {}", self.token))).await
    }

    /// Sends `call` as it is.
    pub(crate) async fn call_by(&self, protocol: Protocol, call: Call) -> Answer {
        let stream = TcpStream::connect(self.bound.api).await.unwrap();
        send(protocol, stream, call).await.unwrap()
    }

    /// Sends all of `calls` at once in one HTTP/2 connection.
    pub(crate) async fn together(&self, calls: Vec<Call>) -> Vec<Answer> {
        let stream = TcpStream::connect(self.bound.api).await.unwrap();
        let connection = Connection::new(stream, Protocol::Http2).await.unwrap();
        let mut answers = JoinSet::new();
        for call in calls {
            let mut connection = connection.multiplexed();
            answers.spawn(async move { connection.send(call.request("localhost")).await.unwrap() });
        }
        answers.join_all().await
    }

    pub(crate) async fn tls(&self, config: ClientConfig) -> std::io::Result<TlsStream<TcpStream>> {
        let stream = TcpStream::connect(self.bound.devbox).await.unwrap();
        let name = ServerName::try_from("localhost").unwrap();
        TlsConnector::from(Arc::new(config)).connect(name, stream).await
    }

    /// Sends `call` to the devbox listener.
    pub(crate) async fn devbox_call(&self, config: ClientConfig, call: Call) -> Result<Answer, String> {
        let stream = self.tls(config).await.map_err(|error| error.to_string())?;
        send(Protocol::Http1, stream, call).await.map_err(|error| error.to_string())
    }

    pub(crate) fn anonymous(&self) -> ClientConfig {
        trusting(self.registry.ca().certificate_der())
    }

    pub(crate) fn identified(&self, identity: Identity) -> ClientConfig {
        let trust = Trust::Ca(self.registry.ca().certificate_der().clone());
        Client::new(trust).identity(identity).config()
    }

    /// Stops it and waits for its end.
    pub(crate) async fn stop(self) {
        self.trigger.stop();
        self.serving.await.unwrap();
    }
}

/// A client without a certificate that trusts one CA.
pub(crate) fn trusting(ca: &CertificateDer<'static>) -> ClientConfig {
    Client::new(Trust::Ca(ca.clone())).config()
}

pub(crate) fn get(path: &str) -> Call {
    Call { method: "GET", path: path.to_owned(), headers: Vec::new(), body: Vec::new() }
}

pub(crate) fn post(path: &str, body: &str) -> Call {
    let call =
        Call { method: "POST", path: path.to_owned(), headers: Vec::new(), body: body.as_bytes().to_vec() };
    if body.is_empty() { call } else { call.header("content-type", "application/json") }
}

impl Call {
    pub(crate) fn method(mut self, method: &'static str) -> Self {
        self.method = method;
        self
    }

    /// Sets a header; an earlier one of that name goes.
    pub(crate) fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.retain(|(other, _)| *other != name);
        self.headers.push((name, value.to_owned()));
        self
    }

    pub(crate) fn request(self, host: &str) -> Outgoing {
        let uri = format!("http://{host}{}", self.path);
        let mut request =
            Request::builder().method(self.method).uri(uri).body(Full::from(self.body)).unwrap();
        request.headers_mut().insert("host", HeaderValue::from_str(host).unwrap());
        for (name, value) in self.headers {
            let value = HeaderValue::from_str(&value).unwrap();
            request.headers_mut().insert(HeaderName::from_static(name), value);
        }
        request
    }
}

/// Sends `call` over `stream`, on a connection of its own.
pub(crate) async fn send<S>(protocol: Protocol, stream: S, call: Call) -> hyper::Result<Answer>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    Connection::new(stream, protocol).await?.send(call.request("localhost")).await
}

/// Whether any file under `directory` holds `needle`.
pub(crate) fn on_disk(directory: &Path, needle: &[u8]) -> bool {
    std::fs::read_dir(directory).unwrap().any(|entry| {
        let path = entry.unwrap().path();
        if path.is_dir() {
            return on_disk(&path, needle);
        }
        let bytes = std::fs::read(&path).unwrap_or_default();
        bytes.windows(needle.len()).any(|window| window == needle)
    })
}
