//! The devbox listener, with scripted answers.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use data_encoding::BASE64;
use devbox_secrets_proto::devbox::{
    BUNDLE_PATH, BundleRequest, ENROLL_PATH, EnrollRequest, IssuedIdentity, RENEW_PATH,
};
use devbox_secretsd::control_plane::ServerUrl;
use http_body_util::{BodyExt, Full};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use rustls::server::WebPkiClientVerifier;
use rustls::{NamedGroup, ServerConfig};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;

use devbox_secrets_tests::authority::{Authority, DEVBOX, Validity};

/// The answer of the bundle endpoint.
#[derive(Debug, Clone)]
pub enum Script {
    /// The secrets at a revision, or 204 after the wait if the daemon has them.
    Bundle(u64, BTreeMap<String, Vec<u8>>),
    /// An error with a message.
    Refuse(StatusCode, &'static str),
    /// 403 with a code.
    Forbid(&'static str),
    /// 200 with bytes that are no bundle.
    Garbage,
    /// 200 with a bundle that ends too early.
    Truncated(u64, BTreeMap<String, Vec<u8>>),
    /// 200 with a bundle sealed for another devbox.
    ForAnother(u64, BTreeMap<String, Vec<u8>>),
    /// Closes the connection without an answer.
    HangUp,
}

pub fn bundle(revision: u64, secrets: &[(&str, &str)]) -> Script {
    Script::Bundle(revision, variables(secrets))
}

pub fn variables(secrets: &[(&str, &str)]) -> BTreeMap<String, Vec<u8>> {
    secrets.iter().map(|(name, value)| ((*name).to_owned(), value.as_bytes().to_vec())).collect()
}

/// The requests of the daemon so far.
#[derive(Debug, Default, Clone)]
pub struct Seen {
    pub enrolled: usize,
    pub renewed: usize,
    pub bundles: Vec<Option<u64>>,
    pub keys: Vec<String>,
    /// Polls that have been answered.
    pub answered: usize,
    /// The key exchange of each connection.
    pub exchanges: Vec<NamedGroup>,
    /// Connections that are open.
    pub open: usize,
}

pub struct ControlPlane {
    pub authority: Authority,
    pub address: SocketAddr,
    script: watch::Sender<Script>,
    /// The refusal of enrolment, instead of a certificate.
    pub enrol_refusal: Mutex<Option<(StatusCode, &'static str)>>,
    /// Validity of the certificates that enrolment issues.
    pub issued_validity: Mutex<Validity>,
    seen: watch::Sender<Seen>,
}

impl ControlPlane {
    pub async fn start(script: Script) -> Arc<Self> {
        Self::start_as("127.0.0.1", Validity::NORMAL, script).await
    }

    /// `name` is the one in its certificate.
    pub async fn start_as(name: &str, validity: Validity, script: Script) -> Arc<Self> {
        let authority = Authority::generate();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(tls(&authority, name, validity)));
        let plane = Arc::new(Self {
            authority,
            address: listener.local_addr().unwrap(),
            script: watch::Sender::new(script),
            enrol_refusal: Mutex::new(None),
            issued_validity: Mutex::new(Validity::NORMAL),
            seen: watch::Sender::new(Seen::default()),
        });
        tokio::spawn(Arc::clone(&plane).accept(listener, acceptor));
        plane
    }

    pub fn url(&self) -> ServerUrl {
        format!("https://{}", self.address).parse().unwrap()
    }

    /// A join token of its devbox, as text.
    pub fn token(&self) -> String {
        self.authority.token().expose_token().to_string()
    }

    pub fn answer(&self, script: Script) {
        self.script.send_replace(script);
    }

    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits until the requests satisfy `condition`.
    pub async fn until(&self, condition: impl FnMut(&Seen) -> bool) -> Seen {
        let mut seen = self.seen.subscribe();
        timeout(super::PATIENCE, seen.wait_for(condition)).await.unwrap().unwrap().clone()
    }

    async fn accept(self: Arc<Self>, listener: TcpListener, acceptor: TlsAcceptor) {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            tokio::spawn(Arc::clone(&self).connection(stream, acceptor.clone()));
        }
    }

    async fn connection(self: Arc<Self>, stream: TcpStream, acceptor: TlsAcceptor) {
        let Ok(stream) = acceptor.accept(stream).await else { return };
        let exchange = stream.get_ref().1.negotiated_key_exchange_group().unwrap().name();
        self.note(|seen| seen.exchanges.push(exchange));
        self.note(|seen| seen.open += 1);
        let has_identity = stream.get_ref().1.peer_certificates().is_some();
        let plane = Arc::clone(&self);
        let service = service_fn(move |request| Arc::clone(&plane).respond(request, has_identity));
        let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        self.note(|seen| seen.open -= 1);
    }

    async fn respond(
        self: Arc<Self>,
        request: Request<Incoming>,
        has_identity: bool,
    ) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let path = request.uri().path().to_owned();
        let authorization = request.headers().get("authorization").cloned();
        let body = request.into_body().collect().await.unwrap().to_bytes();
        Ok(match path.as_str() {
            ENROLL_PATH => {
                let token = self.authority.token();
                let expected = format!("Bearer {}", *token.expose_token());
                assert_eq!(authorization.unwrap().as_bytes(), expected.as_bytes());
                self.note(|seen| seen.enrolled += 1);
                self.issue(&body)
            }
            RENEW_PATH if has_identity => {
                self.note(|seen| seen.renewed += 1);
                self.issue(&body)
            }
            BUNDLE_PATH if has_identity => {
                let answer = self.bundle(&body).await;
                self.note(|seen| seen.answered += 1);
                return answer;
            }
            _ => refuse(StatusCode::UNAUTHORIZED, "a client certificate is needed here"),
        })
    }

    fn note(&self, change: impl FnOnce(&mut Seen)) {
        self.seen.send_modify(change);
    }

    fn issue(&self, body: &[u8]) -> Response<Full<Bytes>> {
        if let Some((status, message)) = *self.enrol_refusal.lock().unwrap() {
            return refuse(status, message);
        }
        let request: EnrollRequest = serde_json::from_slice(body).unwrap();
        let validity = *self.issued_validity.lock().unwrap();
        let certificate = self.authority.certify(&request.csr, DEVBOX, validity);
        let issued =
            IssuedIdentity { devbox_id: DEVBOX.to_owned(), certificate, ca: self.authority.pem.clone() };
        Response::new(Full::from(serde_json::to_vec(&issued).unwrap()))
    }

    async fn bundle(&self, body: &[u8]) -> Result<Response<Full<Bytes>>, std::io::Error> {
        let request: BundleRequest = serde_json::from_slice(body).unwrap();
        self.note(|seen| {
            seen.bundles.push(request.known_revision);
            seen.keys.push(request.hpke_public_key.clone());
        });
        let mut script = self.script.subscribe();
        let known =
            |script: &Script| matches!(script, Script::Bundle(at, _) if Some(*at) == request.known_revision);
        let wait = Duration::from_millis(request.wait_ms.into());
        let changed = timeout(wait, script.wait_for(|script| !known(script))).await;
        let Ok(script) = changed.map(|script| script.unwrap().clone()) else {
            return Ok(status(StatusCode::NO_CONTENT));
        };
        let key = BASE64.decode(request.hpke_public_key.as_bytes()).unwrap();
        perform(script, &key)
    }
}

fn perform(script: Script, key: &[u8]) -> Result<Response<Full<Bytes>>, std::io::Error> {
    Ok(match script {
        Script::Bundle(revision, secrets) => ok(seal(key, DEVBOX, revision, &secrets)),
        Script::ForAnother(revision, secrets) => ok(seal(key, "dbx_other", revision, &secrets)),
        Script::Truncated(revision, secrets) => {
            let mut message = seal(key, DEVBOX, revision, &secrets);
            message.truncate(message.len() - 1);
            ok(message)
        }
        Script::Garbage => ok(b"<html>not a bundle</html>".to_vec()),
        Script::Refuse(status, message) => refuse(status, message),
        Script::Forbid(code) => error(StatusCode::FORBIDDEN, code, "told apart by its steps"),
        Script::HangUp => return Err(std::io::Error::other("hung up by script")),
    })
}

fn seal(key: &[u8], devbox_id: &str, revision: u64, secrets: &BTreeMap<String, Vec<u8>>) -> Vec<u8> {
    let variables = secrets.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
    devbox_secrets_tests::bundle::seal(key, devbox_id, revision, variables)
}

fn tls(authority: &Authority, name: &str, validity: Validity) -> ServerConfig {
    let provider = devbox_secretsd::control_plane::tls::provider();
    let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots(), Arc::clone(&provider))
        .allow_unauthenticated()
        .build()
        .unwrap();
    let (chain, key) = authority.server(name, validity);
    ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(chain, key)
        .unwrap()
}

fn ok(body: Vec<u8>) -> Response<Full<Bytes>> {
    Response::new(Full::from(body))
}

fn status(status: StatusCode) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::default());
    *response.status_mut() = status;
    response
}

fn refuse(status: StatusCode, message: &str) -> Response<Full<Bytes>> {
    error(status, "test", message)
}

fn error(status: StatusCode, code: &str, message: &str) -> Response<Full<Bytes>> {
    let body = serde_json::json!({"code": code, "message": message}).to_string();
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = status;
    response
}
