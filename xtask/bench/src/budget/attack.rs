//! One account's attacks on its server. Each is sent from an address of its own at a steady pace above its budget, so that what
//! is measured is the server, and not a client that takes both processors.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use devbox_secrets_proto::bundle::Bundle;
use devbox_secrets_proto::devbox::{BOOT_LEN, BUNDLE_PATH, BundleRequest, Continuity, STEP_LEN};
use devbox_secrets_proto::seal::BundleKey;
use devbox_secretsd::control_plane::{Client, Post, Reply, ServerUrl};
use devbox_secretsd::identity::Identity;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpSocket;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

use crate::fleet::devbox::join;
use xtask::programs::Server;

/// Where the attacker calls the API from. The measured account calls from 127.0.0.1.
const ADDRESS: Ipv4Addr = Ipv4Addr::new(127, 0, 0, 2);
/// Connections that send at once: as many as the budget of one certificate has.
const SENDERS: u32 = 8;
/// Secrets of the account, as many as the budget has; the large ones nearly use up its bytes.
const SECRETS: usize = 64;
const LARGE: usize = 10;
const LARGE_LEN: usize = 100_000;
/// One more than the budget.
const BINDINGS: usize = 1_001;
/// How long a bundle request asks to be held.
const HELD_MS: u32 = 30_000;
/// Until an answer has come; a held request is given up, and the next one supersedes it.
const PATIENCE: Duration = Duration::from_secs(10);
const HELD_PATIENCE: Duration = Duration::from_millis(500);
/// Longest bundle that is read, in bytes.
const MOST_BUNDLE: usize = 16 << 20;

/// A budget that one account uses up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Attack {
    Requests,
    Secrets,
    ValueBytes,
    Bindings,
    Held,
    Guesses,
    LargeBundle,
}

/// The attacking account, ready to attack.
pub(super) struct Attacker {
    api: SocketAddr,
    token: String,
    devbox: Devbox,
}

/// The account's devbox, without the daemon's patience.
#[derive(Clone)]
struct Devbox {
    url: ServerUrl,
    identity: Identity,
    /// Of the bundle that was delivered.
    revision: u64,
}

/// An attack until this is dropped.
pub(super) struct Running {
    _senders: JoinSet<()>,
}

impl Attack {
    /// In the order in which they are measured.
    pub(super) const ALL: [Self; 7] = [
        Self::Requests,
        Self::Secrets,
        Self::ValueBytes,
        Self::Bindings,
        Self::Held,
        Self::Guesses,
        Self::LargeBundle,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Requests => "requests of a token",
            Self::Secrets => "secrets",
            Self::ValueBytes => "bytes of values",
            Self::Bindings => "1,001 bindings",
            Self::Held => "held requests",
            Self::Guesses => "guessed tokens",
            Self::LargeBundle => "bundle over its limit",
        }
    }

    /// The sample of the server's metrics that counts what the budget refused.
    pub(super) fn counter(self) -> &'static str {
        match self {
            Self::Requests => "budget_refusals_total{budget=\"requests\"}",
            Self::Secrets => "budget_refusals_total{budget=\"secrets\"}",
            Self::ValueBytes => "budget_refusals_total{budget=\"value_bytes\"}",
            Self::Bindings => "budget_refusals_total{budget=\"bindings\"}",
            Self::Held => "budget_refusals_total{budget=\"bundles\"}",
            Self::Guesses => {
                "refusals_total{listener=\"api\",reason=\"max_failures_per_second_per_address\"}"
            }
            Self::LargeBundle => "budget_refusals_total{budget=\"bundle_bytes\"}",
        }
    }

    /// Requests a second. Writes stay under the token's 200, for over them another budget would refuse them first.
    fn pace(self) -> u32 {
        match self {
            Self::Requests | Self::Guesses => 1_000,
            Self::Secrets | Self::ValueBytes | Self::Bindings => 150,
            Self::Held => 100,
            // A devbox's 10 a second
            Self::LargeBundle => 10,
        }
    }
}

impl Attacker {
    /// Stores as many secrets as the account may have, and enrols a devbox that gets all of them.
    pub(super) async fn prepare(server: &Server, token: String) -> Result<Self> {
        let api = server.api.strip_prefix("http://").context("the API is not plain HTTP")?.parse()?;
        for i in 0..SECRETS {
            let value = "v".repeat(if i < LARGE { LARGE_LEN } else { 1 });
            let create = post(&token, "/v1/secrets", &json!({ "name": secret(i), "value": value }));
            let answer = ask(api, &create).await?;
            ensure!(answer.starts_with("HTTP/1.1 2"), "the attacker stores no secret: {answer}");
        }
        let answer = ask(api, &post(&token, "/v1/devboxes", &json!({ "name": "attacker" }))).await?;
        let (_, body) = answer.split_once("\r\n\r\n").context("the registration has no body")?;
        let devbox: Value = serde_json::from_str(body).with_context(|| answer.clone())?;
        let join_token = devbox["join_token"].as_str().context("no join_token in the answer")?;
        let devbox = Devbox::join(server.devbox.parse()?, join_token.to_owned()).await?;
        Ok(Self { api, token, devbox })
    }

    /// Attacks on `runtime`.
    pub(super) fn start(&self, runtime: &Runtime, attack: Attack) -> Running {
        let pace = Duration::from_secs(1) * SENDERS / attack.pace();
        let request: Option<Arc<str>> = self.request(attack).map(Arc::from);
        let mut senders = JoinSet::new();
        for _ in 0..SENDERS {
            match &request {
                Some(request) => {
                    senders.spawn_on(ask_at(pace, self.api, Arc::clone(request)), runtime.handle())
                }
                None => senders.spawn_on(self.devbox.clone().poll_at(pace, attack), runtime.handle()),
            };
        }
        Running { _senders: senders }
    }

    /// `None` for what a devbox asks.
    fn request(&self, attack: Attack) -> Option<String> {
        let token = &self.token;
        Some(match attack {
            Attack::Requests => get(token),
            Attack::Guesses => get("dbs_guess"),
            Attack::Secrets => post(token, "/v1/secrets", &json!({ "name": "ONE_MORE", "value": "v" })),
            Attack::ValueBytes => {
                let path = format!("/v1/secrets/{}", secret(SECRETS - 1));
                post(token, &path, &json!({ "value": "v".repeat(LARGE_LEN) }))
            }
            Attack::Bindings => {
                let bindings: Value =
                    (0..BINDINGS).map(|i| (format!("NAME_{i}"), json!(secret(0)))).collect();
                post(token, "/v1/devboxes", &json!({ "name": "bound", "secrets": bindings }))
            }
            Attack::Held | Attack::LargeBundle => return None,
        })
    }
}

impl Devbox {
    /// Enrols, and takes one bundle.
    async fn join(url: ServerUrl, join_token: String) -> Result<Self> {
        let identity = join(url.clone(), join_token).await?;
        let mut devbox = Self { url, identity, revision: 0 };
        let reply = devbox.poll(&mut devbox.client(), Attack::LargeBundle, 0).await?;
        ensure!(reply.status.is_success(), "the attacker has no bundle: {}", reply.status);
        devbox.revision = Bundle::parse(&reply.body)?.revision;
        Ok(devbox)
    }

    fn client(&self) -> Client {
        Client::new(self.url.clone(), self.identity.config())
    }

    /// Sends the second step again and again, as if no answer ever came.
    async fn poll_at(self, pace: Duration, attack: Attack) {
        let (mut client, mut ticks) = (self.client(), ticks(pace));
        loop {
            ticks.tick().await;
            // Refused, given up, or closed: the next request goes out all the same.
            let _ = self.poll(&mut client, attack, 1).await;
        }
    }

    async fn poll(&self, client: &mut Client, attack: Attack, number: u32) -> Result<Reply> {
        let key = BASE64.encode(BundleKey::generate().public_key());
        let after = number.checked_sub(1).map(step);
        let continuity = Continuity { boot: "0".repeat(BOOT_LEN), after, step: step(number) };
        let is_held = attack == Attack::Held;
        let request = BundleRequest {
            hpke_public_key: key,
            known_revision: is_held.then_some(self.revision),
            wait_ms: if is_held { HELD_MS } else { 0 },
            continuity,
        };
        let patience = if is_held { HELD_PATIENCE } else { PATIENCE };
        let body = serde_json::to_vec(&request)?;
        let post = Post { path: BUNDLE_PATH, body, authorization: None, patience, limit: MOST_BUNDLE };
        Ok(client.post(post).await?)
    }
}

fn step(number: u32) -> String {
    format!("{number:0STEP_LEN$}")
}

fn secret(index: usize) -> String {
    format!("ATTACK_{index:02}")
}

/// Does not catch up on what was late.
fn ticks(pace: Duration) -> Interval {
    let mut ticks = interval(pace);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn ask_at(pace: Duration, api: SocketAddr, request: Arc<str>) {
    let mut ticks = ticks(pace);
    loop {
        ticks.tick().await;
        // Refused, or not even connected: the next request goes out all the same.
        let _ = timeout(PATIENCE, ask(api, &request)).await;
    }
}

/// The whole answer, over a connection of its own from [`ADDRESS`].
async fn ask(api: SocketAddr, request: &str) -> Result<String> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((ADDRESS, 0).into())?;
    let mut stream = socket.connect(api).await?;
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    Ok(answer)
}

fn get(token: &str) -> String {
    format!(
        "GET /v1/secrets HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\r\n"
    )
}

fn post(token: &str, path: &str, body: &Value) -> String {
    let body = body.to_string();
    format!(
        "POST {path} HTTP/1.1\r\nhost: bench\r\nauthorization: Bearer {token}\r\nconnection: close\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    )
}
