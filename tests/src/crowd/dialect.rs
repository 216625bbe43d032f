//! The messages of a crowd: for each protocol a valid one, and its own kinds of invalid ones.

use std::fmt;
use std::sync::Arc;

use devbox_launch_proto::{Flags, HEADER_LEN, Item, RequestBuilder};
use rustls::ClientConnection;
use rustls::pki_types::ServerName;

use super::random::Random;
use crate::tls::{self, Client, Trust};

/// Longest run of random bytes.
const MAX_NOISE: usize = 4096;

/// A protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dialect {
    /// Launches.
    Launch,
    /// HTTP/1.1 and h2c.
    Http,
    /// TLS 1.3.
    Tls,
    /// Credentials of units, asked for by the address that one connects from; forged for this unit among others.
    Units(String),
}

/// One right message, and wrong ones.
#[derive(Debug)]
pub(super) struct Words {
    right: Vec<u8>,
    wrong: Vec<Vec<u8>>,
    names: Names,
}

/// From which address in the abstract namespace they connect.
#[derive(Debug)]
enum Names {
    None,
    /// The rest of a message after a random number.
    After(Vec<Vec<u8>>),
}

impl Dialect {
    /// Reads what `Display` writes.
    pub(super) fn parse(text: &str) -> Option<Self> {
        match text.split_once('=') {
            Some(("units", unit)) => Some(Self::Units(unit.to_owned())),
            _ => {
                [Self::Launch, Self::Http, Self::Tls].into_iter().find(|dialect| dialect.to_string() == text)
            }
        }
    }

    pub(super) fn words(&self) -> Words {
        let (right, wrong) = match self {
            Self::Launch => (launch_request(&[Item::Only(b"API_KEY")]), broken_launch_requests()),
            Self::Http => (http_request(""), broken_http_requests()),
            Self::Tls => (client_hello(), broken_tls_records()),
            // The listener reads nothing.
            Self::Units(_) => (http_request(""), vec![vec![0; MAX_NOISE]]),
        };
        let names = match self {
            Self::Units(unit) => Names::After(units_names(unit)),
            _ => Names::None,
        };
        Words { right, wrong, names }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Launch => f.write_str("launch"),
            Self::Http => f.write_str("http"),
            Self::Tls => f.write_str("tls"),
            Self::Units(unit) => write!(f, "units={unit}"),
        }
    }
}

impl Words {
    /// Never the right one alone.
    pub(super) fn message(&self, random: &mut Random) -> Vec<u8> {
        let noise = random.below(MAX_NOISE);
        match random.below(6) {
            0 => Vec::new(),
            1 => random.bytes(noise),
            2 => self.half(random),
            3 => [&self.right[..], &random.bytes(noise + 1)].concat(),
            4 => [self.half(random), random.bytes(noise + 1)].concat(),
            _ => random.one_of(&self.wrong).clone(),
        }
    }

    /// A message without its end, for which a listener waits.
    pub(super) fn half(&self, random: &mut Random) -> Vec<u8> {
        self.right[..random.below(self.right.len())].to_vec()
    }

    /// Which address a peer connects from.
    pub(super) fn name(&self, number: usize, random: &mut Random) -> Option<Vec<u8>> {
        let Names::After(names) = &self.names else { return None };
        let rest = random.one_of(names);
        (!rest.is_empty()).then(|| [format!("{number:x}").as_bytes(), rest].concat())
    }
}

/// A request of `devbox-exec`.
///
/// # Panics
/// If it is longer than 1024 bytes.
#[must_use]
pub fn launch_request(items: &[Item<'_>]) -> Vec<u8> {
    let mut buffer = [0; 1024];
    let mut builder = RequestBuilder::new(&mut buffer, Flags::default(), 0).expect("there is room");
    for item in items {
        builder.push(*item).expect("there is room");
    }
    builder.finish().to_vec()
}

/// Messages to the launch socket that are no requests.
#[must_use]
pub fn broken_launch_requests() -> Vec<Vec<u8>> {
    let altered = |at: usize, bytes: &[u8]| {
        let mut request = launch_request(&[Item::Only(b"API_KEY")]);
        request[at..at + bytes.len()].copy_from_slice(bytes);
        request
    };
    vec![
        http_request(""),
        vec![0; MAX_NOISE],
        altered(4, &[99]),
        altered(5, &[0xff]),
        altered(12, &u32::MAX.to_le_bytes()),
        altered(HEADER_LEN, &[77]),
        altered(HEADER_LEN + 1, &u16::MAX.to_le_bytes()),
        [launch_request(&[]), launch_request(&[])].concat(),
    ]
}

fn http_request(headers: &str) -> Vec<u8> {
    format!("GET /status HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n").into_bytes()
}

fn broken_http_requests() -> Vec<Vec<u8>> {
    let post =
        |headers: &str| format!("POST /v1/secrets HTTP/1.1\r\nHost: localhost\r\n{headers}").into_bytes();
    let preface = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
    vec![
        b"GET /status HTTP/9.9\r\nHost: localhost\r\n\r\n".to_vec(),
        b"GET /status HTTP/1.1\nHost localhost\n\n".to_vec(),
        b"GET /\0 HTTP/1.1\r\n\r\n".to_vec(),
        http_request(&format!("x: {}\r\n", "y".repeat(100_000))),
        http_request(&"x: y\r\n".repeat(2_000)),
        post("Content-Length: 18446744073709551615\r\n\r\n{"),
        post("Content-Length: -1\r\n\r\n"),
        post("Content-Length: 9\r\nContent-Length: 1\r\n\r\n{}"),
        post("Content-Length: 1000000\r\n\r\n{\"name\""),
        post("Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n{"),
        preface.to_vec(),
        // A frame of 16 MiB; SETTINGS of an odd length; HEADERS that no table decodes.
        [&preface[..], &[0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 1]].concat(),
        [&preface[..], &[0, 0, 5, 4, 0, 0, 0, 0, 0, 1, 2, 3, 4, 5]].concat(),
        [&preface[..], &[0, 0, 0, 4, 0, 0, 0, 0, 0, 0, 0, 4, 1, 5, 0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]]
            .concat(),
    ]
}

/// The first message of a client of the devbox listener.
fn client_hello() -> Vec<u8> {
    let config = Client::new(Trust::Anything).config();
    let name = ServerName::try_from("localhost").expect("a name");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut hello = Vec::new();
    client.write_tls(&mut hello).expect("memory takes what is written");
    hello
}

fn broken_tls_records() -> Vec<Vec<u8>> {
    vec![
        http_request(""),
        tls::client_hello_of_tls_1_2(),
        // A record of 64 KiB; a message of 16 MiB; one of no bytes; an alert; of a version that is not yet.
        vec![22, 3, 1, 0xff, 0xff, 1],
        vec![22, 3, 1, 0, 4, 1, 0xff, 0xff, 0xff],
        vec![22, 3, 1, 0, 0],
        vec![tls::ALERT, 3, 3, 0, 2, 2, 40],
        vec![22, 9, 9, 0, 4, 1, 0, 0, 0],
        vec![23, 3, 3, 0, 1, 0],
    ]
}

/// No address, garbage, and addresses like systemd's, from peers that are in no unit.
fn units_names(unit: &str) -> Vec<Vec<u8>> {
    let systemds = format!("/unit/{unit}/db_pass").into_bytes();
    let others =
        ["/unit/other.service/db_pass", "/unit/app/db_pass", "/unit//", "/user/app.service/x", "x", "\0"];
    let noise = vec![0xff; 90];
    let mut names: Vec<Vec<u8>> = others.iter().map(|name| name.as_bytes().to_vec()).collect();
    names.extend([
        Vec::new(),
        noise,
        systemds.clone(),
        [&systemds[..], b"/y"].concat(),
        [&systemds[..], b"\0"].concat(),
    ]);
    names
}
