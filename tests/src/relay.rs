//! A TCP relay between a daemon and its server, with one fault at a time.
//!
//! It ends no TLS: what it does to the bytes is what a bad network, a broken proxy, or a stranger at the server's address
//! can do to them.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;

/// Bytes that are read at once.
const CHUNK: usize = 4096;
/// Between two bytes of a server that trickles: a handshake of some kilobytes takes minutes.
const BETWEEN_BYTES: Duration = Duration::from_millis(50);

/// A fault of the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// No fault.
    None,
    /// Connections are taken, and nothing passes.
    Silent,
    /// The server's bytes come one by one, with pauses.
    Trickling,
    /// A byte of whatever the server sends is another.
    Damaged,
}

#[derive(Debug, Clone, Copy)]
struct State {
    target: SocketAddr,
    fault: Fault,
    /// Connections from before this number are over for [`Past`].
    now: u64,
    past: Past,
}

/// The state of the connections that there were.
#[derive(Debug, Clone, Copy)]
enum Past {
    /// Closed.
    Closed,
    /// Open at both ends, and neither hears of the other again.
    Stranded,
}

/// A listener in front of a server. Dropped, it is gone with all of its connections.
#[derive(Debug)]
pub struct Relay {
    address: SocketAddr,
    state: watch::Sender<State>,
    accepting: JoinHandle<()>,
}

impl Relay {
    /// A relay to `target` without a fault, on a free port of the loopback address.
    ///
    /// # Panics
    /// If there is no free port.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a port is free");
        let address = listener.local_addr().expect("a listener has an address");
        let state = watch::Sender::new(State { target, fault: Fault::None, now: 0, past: Past::Closed });
        let accepting = tokio::spawn(accept(listener, state.subscribe()));
        Self { address, state, accepting }
    }

    /// URL of the devbox listener behind it.
    #[must_use]
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// From now on, for the connections that there are and for new ones.
    pub fn fault(&self, fault: Fault) {
        self.state.send_modify(|state| state.fault = fault);
    }

    /// Closes what there is, and leads new connections to `target`.
    pub fn lead_to(&self, target: SocketAddr) {
        self.state.send_modify(|state| {
            *state = State { target, now: state.now + 1, past: Past::Closed, ..*state };
        });
    }

    /// Leaves the connections that there are half-open for good: no byte, no reset. New ones work.
    pub fn strand(&self) {
        self.state.send_modify(|state| *state = State { now: state.now + 1, past: Past::Stranded, ..*state });
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: watch::Receiver<State>) {
    let mut connections = tokio::task::JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        connections.spawn(carry(client, state.clone()));
    }
}

async fn carry(mut client: TcpStream, mut state: watch::Receiver<State>) {
    let born = state.borrow().now;
    let Ok(open) = state.wait_for(|state| state.fault != Fault::Silent).await.map(|state| *state) else {
        return;
    };
    let Ok(mut server) = TcpStream::connect(open.target).await else { return };
    let (from_client, to_client) = client.split();
    let (from_server, to_server) = server.split();
    let stranded = tokio::select! {
        () = pump(from_client, to_server, state.clone(), false) => false,
        () = pump(from_server, to_client, state.clone(), true) => false,
        past = ended(state, born) => matches!(past, Some(Past::Stranded)),
    };
    if stranded {
        // Both sockets stay open until the relay is dropped.
        std::future::pending().await
    }
}

async fn ended(mut state: watch::Receiver<State>, born: u64) -> Option<Past> {
    state.wait_for(|state| state.now > born).await.ok().map(|state| state.past)
}

/// Carries bytes until an end closes.
async fn pump(
    mut from: ReadHalf<'_>,
    mut to: WriteHalf<'_>,
    mut state: watch::Receiver<State>,
    answers: bool,
) {
    let mut chunk = [0; CHUNK];
    while let Ok(len @ 1..) = from.read(&mut chunk).await {
        let Ok(fault) = state.wait_for(|state| state.fault != Fault::Silent).await.map(|state| state.fault)
        else {
            return;
        };
        let sent = match fault {
            Fault::Trickling if answers => trickle(&mut to, &chunk[..len], &state).await,
            Fault::Damaged if answers => {
                chunk[len - 1] ^= 1;
                to.write_all(&chunk[..len]).await
            }
            _ => to.write_all(&chunk[..len]).await,
        };
        if sent.is_err() {
            return;
        }
    }
}

/// One by one, until the fault is gone.
async fn trickle(
    to: &mut WriteHalf<'_>,
    mut bytes: &[u8],
    state: &watch::Receiver<State>,
) -> std::io::Result<()> {
    while let Some((byte, rest)) = bytes.split_first().filter(|_| state.borrow().fault == Fault::Trickling) {
        to.write_all(&[*byte]).await?;
        sleep(BETWEEN_BYTES).await;
        bytes = rest;
    }
    to.write_all(bytes).await
}
