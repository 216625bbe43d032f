//! A machine as the control plane sees it: one connection, and the steps by which its bundle requests follow on each other.

use std::io;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, Ordering};

use devbox_secrets_proto::devbox::{BOOT_LEN, BUNDLE_PATH, Continuity, STEP_LEN};
use http_body_util::Full;
use hyper::Request;
use hyper::header::{CONTENT_TYPE, HOST};
use tokio::net::{TcpSocket, TcpStream};

use crate::client::{Answer, Connection, Outgoing, Protocol};
use crate::devbox::{Listener, bundle_request_after};

/// No two steps of a test are alike.
static STEPS: AtomicU64 = AtomicU64::new(1);

/// A machine with a devbox's identity. Its connection ends when it is dropped.
#[derive(Debug)]
pub struct Machine {
    listener: Listener,
    protocol: Protocol,
    connection: Connection,
    link: Continuity,
}

impl Machine {
    /// Connects from `from`, a loopback address. `boot`, a hexadecimal digit, tells boots apart.
    ///
    /// # Panics
    /// If the server does not take the connection.
    pub async fn start(listener: &Listener, protocol: Protocol, from: Ipv4Addr, boot: char) -> Self {
        let stream = connect_from(listener, from).await.expect("the devbox listener listens");
        Self::start_over(listener, protocol, stream, boot).await
    }

    /// The same over a connection that is there already.
    ///
    /// # Panics
    /// If the server does not take the connection.
    pub async fn start_over(listener: &Listener, protocol: Protocol, stream: TcpStream, boot: char) -> Self {
        let link = Continuity { boot: boot.to_string().repeat(BOOT_LEN), after: None, step: fresh_step() };
        Self::connected(listener, protocol, stream, link).await
    }

    /// A copy of it, as its memory in another machine, connected from `from`.
    ///
    /// # Panics
    /// If the server does not take the connection.
    pub async fn copied(&self, from: Ipv4Addr) -> Self {
        let stream = connect_from(&self.listener, from).await.expect("the devbox listener listens");
        Self::connected(&self.listener, self.protocol, stream, self.link.clone()).await
    }

    async fn connected(listener: &Listener, protocol: Protocol, stream: TcpStream, link: Continuity) -> Self {
        let stream =
            listener.client.shake_hands(stream, listener.address).await.expect("the server shakes hands");
        let connection = Connection::new(stream, protocol).await.expect("the server speaks HTTP");
        Self { listener: listener.clone(), protocol, connection, link }
    }

    /// Asks for the bundle, to be held for `wait_ms` if the revision is `known`. An answer is a step on.
    ///
    /// # Errors
    /// A connection that is closed instead of an answer.
    pub async fn ask(&mut self, known: Option<u64>, wait_ms: u32) -> io::Result<Answer> {
        let answer = self.ask_in_vain(known, wait_ms).await?;
        if answer.status.is_success() {
            self.link.after = Some(std::mem::replace(&mut self.link.step, fresh_step()));
        }
        Ok(answer)
    }

    /// The same, but the answer is lost: the machine does not know of it.
    ///
    /// # Errors
    /// A connection that is closed instead of an answer.
    pub async fn ask_in_vain(&mut self, known: Option<u64>, wait_ms: u32) -> io::Result<Answer> {
        let request = self.request(bundle_request_after(&self.link, known, wait_ms).to_string());
        self.connection.send(request).await.map_err(io::Error::other)
    }

    /// The daemon in it starts anew: same boot, nothing remembered.
    pub fn restart_daemon(&mut self) {
        self.link = Continuity { after: None, step: fresh_step(), ..self.link.clone() };
    }

    fn request(&self, body: String) -> Outgoing {
        let address = self.listener.address;
        let request = match self.protocol {
            Protocol::Http1 => Request::post(BUNDLE_PATH).header(HOST, address.to_string()),
            Protocol::Http2 => Request::post(format!("https://{address}{BUNDLE_PATH}")),
        };
        let request = request.header(CONTENT_TYPE, "application/json");
        request.body(Full::from(body)).expect("the request is well-formed")
    }
}

async fn connect_from(listener: &Listener, from: Ipv4Addr) -> io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(listener.address).await
}

fn fresh_step() -> String {
    format!("{:0width$x}", STEPS.fetch_add(1, Ordering::Relaxed), width = STEP_LEN)
}
