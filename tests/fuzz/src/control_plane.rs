//! A whole server in this process, with one account, one secret and one devbox.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_proto::secret::SecretBytes;
use devbox_secrets_server::app::{App, KeyPolicy};
use devbox_secrets_server::config::{Config, Rate};
use devbox_secrets_server::registry::{ApiToken, Caller, DevboxPeer, NewDevbox, Registry};
use devbox_secrets_server::shutdown::{ShutdownTrigger, shutdown_signal};
use devbox_secrets_tests::devbox::Applicant;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tempfile::TempDir;
use tokio::runtime::{Builder, Runtime};

use crate::{CANARY, scratch};

/// The one secret; its value is the canary.
pub(crate) const SECRET: &str = "STORED";

/// More than any fuzzer sends.
const UNLIMITED: Rate = Rate { interval: Duration::from_micros(1), burst: 1_000_000 };

thread_local! {
    /// Not a static: a test thread's end removes the state.
    static SERVER: ControlPlane = ControlPlane::start();
}

/// Hands the thread's server to `use_it`; the first time, that starts it.
pub(crate) fn with_server<T>(use_it: impl FnOnce(&ControlPlane) -> T) -> T {
    SERVER.with(use_it)
}

/// The server, and who may ask it what.
pub(crate) struct ControlPlane {
    /// Never ended: a thread that is going away cannot wait for others.
    runtime: &'static Runtime,
    registry: Registry,
    api: SocketAddr,
    token: ApiToken,
    /// A devbox that has not joined: its join token is good.
    pub(crate) join_token: JoinToken,
    /// A devbox that has.
    pub(crate) peer: DevboxPeer,
    _running: ShutdownTrigger,
    _state: TempDir,
}

/// An answer of the public listener.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: Vec<u8>,
}

impl ControlPlane {
    /// Starts it, on a free port.
    fn start() -> Self {
        let runtime =
            Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime starts");
        let runtime = &*Box::leak(Box::new(runtime));
        let state = scratch::directory().expect("/dev/shm or /tmp takes a directory");
        let free_port = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut config =
            Config::dev(&state.path().join("state"), free_port, free_port).expect("loopback is allowed");
        // A fuzzer sends more than a client may, and its findings must not depend on its speed.
        config.limits.requests = UNLIMITED;
        config.limits.bundles = UNLIMITED;
        config.limits.renewals = UNLIMITED;
        let (running, shutdown) = shutdown_signal();
        let app = runtime.block_on(App::start(&config, KeyPolicy::Own, shutdown)).expect("a server starts");
        let (registry, api) = (app.registry().clone(), app.bound().api);
        runtime.spawn(app.run());
        let (token, join_token, peer) = runtime.block_on(populate(&registry));
        Self { runtime, registry, api, token, join_token, peer, _running: running, _state: state }
    }

    /// The decisions of the server.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Runs `future` to its end.
    pub(crate) fn wait_for<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// One request of the account, on a connection of its own. `method` and `path` have to be what HTTP/1.1 can say.
    pub(crate) fn request(&self, method: &str, path: &str, body: &[u8]) -> Answer {
        let head = format!(
            "{method} {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {}\r\nconnection: close\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            self.token.expose_token(),
            body.len()
        );
        let mut stream = TcpStream::connect(self.api).expect("the server listens");
        // It may answer before it has read everything.
        let _ = stream.write_all(&[head.as_bytes(), body].concat());
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        Answer::parse(&answer)
    }
}

impl Answer {
    fn parse(bytes: &[u8]) -> Self {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n");
        let end = end.unwrap_or_else(|| panic!("no HTTP answer: {}", bytes.escape_ascii()));
        let status = bytes.get(9..12).and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok());
        Self { status: status.expect("a status line has three digits"), body: bytes[end + 4..].to_vec() }
    }
}

async fn populate(registry: &Registry) -> (ApiToken, JoinToken, DevboxPeer) {
    let account = registry.development_account().await.expect("a fresh server has no accounts");
    let token = SecretBytes::new(account.token.expose_token().as_bytes().to_vec());
    let caller = registry.authenticate(&token, None).await.expect("the token is new");
    let value = SecretBytes::new(CANARY.as_bytes().to_vec());
    registry.create_secret(&caller, SECRET, value).await.expect("a fresh account has no secrets");
    let peer = joined(registry, &caller).await;
    (account.token, register(registry, &caller).await, peer)
}

async fn register(registry: &Registry, caller: &Caller) -> JoinToken {
    registry.create_devbox(caller, NewDevbox::default()).await.expect("the account may have devboxes").1
}

/// A devbox with a certificate.
async fn joined(registry: &Registry, caller: &Caller) -> DevboxPeer {
    let token = register(registry, caller).await;
    let bearer = SecretBytes::new(token.expose_token().as_bytes().to_vec());
    let request = Applicant::new(token.devbox_id()).request();
    let issued = registry.enroll(&bearer, &request, None).await.expect("the token is new");
    let certificate =
        CertificateDer::from_pem_slice(issued.certificate.as_bytes()).expect("certificates are PEM");
    registry.peer(&certificate, None).expect("the certificate is the CA's own")
}
