//! The whole memory of a control plane, seen from outside of it: a virtual machine with a server that stores a value and
//! sends it to a devbox.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use devbox_secrets_tests::canary::{Canary, random_letters};
use devbox_secrets_tests::client::{Api, Connection, Protocol};
use devbox_secrets_tests::daemon::{Daemon, Setup};
use devbox_secrets_tests::forensics::guest::{Boot, Guest, can_boot};
use devbox_secrets_tests::forensics::ram::{Copies, table};
use devbox_secrets_tests::process::say;
use devbox_secrets_tests::tls::{Client, Trust};
use devbox_secrets_tests::{wait, world};
use hyper::Method;
use rcgen::{CertificateParams, KeyPair, SanType};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;

const WHAT_HAPPENED: [&str; 6] = [
    "a request has come but for its end",
    "a client stores a value",
    "a devbox has fetched it",
    "the value is replaced",
    "the secret is deleted",
    "the server has stopped",
];

/// How often, and how long apart, a look is taken at what should have changed.
const LOOKS: usize = 25;
const BETWEEN_LOOKS: Duration = Duration::from_millis(200);

/// A control plane in a virtual machine, and the connections to its API: no client closes any.
struct ControlPlane {
    guest: Guest,
    api: Api,
    connections: Vec<Connection>,
}

impl ControlPlane {
    async fn boot(wipes_freed_pages: bool) -> Self {
        let boot = Boot { role: "control-plane", wipes_freed_pages, ports: &[8080, 8443], ..Boot::default() };
        let mut guest = Guest::boot(boot);
        guest.step("booted").await;
        send_certificate(&mut guest).await;
        let token: Value = serde_json::from_str(&guest.step("serving").await).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, guest.ports[0]));
        let token = token["token"].as_str().map(str::to_owned);
        let api = Api { address, token, protocol: Protocol::Http1 };
        let connection = wait::until("the API in the guest", async || connect(address).await).await;
        Self { guest, api, connections: vec![connection] }
    }

    /// Sends all of a value and not the end of the request, and looks while the server waits for it.
    async fn look_at_half_a_request(&self, canary: &Canary) -> Copies {
        let mut stream = Client::new(Trust::Anything).connect(self.api.address).await.unwrap();
        let token = self.api.token.as_deref().unwrap();
        let body = format!("{{\"name\":\"HALF\",\"value\":{}", json!(canary.value()));
        let head = format!(
            "POST /v1/secrets HTTP/1.1\r\nhost: guest\r\nauthorization: Bearer {token}\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n",
            body.len() + 1
        );
        stream.write_all((head + &body).as_bytes()).await.unwrap();
        stream.flush().await.unwrap();
        self.look_until(canary, |copies| !copies.is_empty()).await
    }

    async fn post(&mut self, path: &str, body: &Value) -> Value {
        let mut connection = connect(self.api.address).await.unwrap();
        let request = self.api.request(Method::POST, path, Some(body));
        let answer = connection.send(request).await.unwrap();
        self.connections.push(connection);
        answer.expect(200).json()
    }

    /// A daemon on this machine, which has fetched its secrets.
    async fn daemon(&mut self, directory: &tempfile::TempDir) -> Daemon {
        let devbox = self.post("/v1/devboxes", &json!({ "name": "box" })).await;
        let server = format!("https://127.0.0.1:{}", self.guest.ports[1]);
        Setup::new(directory.path(), &server, devbox["join_token"].as_str().unwrap()).start().await
    }

    /// The copies in its memory; then the script goes on to its next step.
    async fn look(&mut self, step: &str, canary: &Canary) -> Copies {
        self.guest.step(step).await;
        let copies = self.look_until(canary, Copies::is_empty).await;
        if step != "stopped" {
            self.guest.go("").await;
        }
        copies
    }

    /// Looks a few times, until it is as expected: an answer is on its way before the buffers of its request are wiped.
    async fn look_until(&self, canary: &Canary, expected: impl Fn(&Copies) -> bool) -> Copies {
        for _ in 0..LOOKS {
            if expected(&self.guest.ram().copies(canary)) {
                break;
            }
            tokio::time::sleep(BETWEEN_LOOKS).await;
        }
        self.guest.ram().copies(canary)
    }
}

async fn connect(address: SocketAddr) -> Option<Connection> {
    let stream = Client::new(Trust::Anything).connect(address).await.ok()?;
    Connection::new(stream, Protocol::Http1).await.ok()
}

async fn send_certificate(guest: &mut Guest) {
    let key = KeyPair::generate().unwrap();
    let mut parameters = CertificateParams::default();
    parameters.subject_alt_names = vec![SanType::IpAddress(Ipv4Addr::LOCALHOST.into())];
    let certificate = parameters.self_signed(&key).unwrap();
    guest.go("").await;
    for file in [certificate.pem(), key.serialize_pem()] {
        guest.go(&format!("{}\nend", file.trim_end())).await;
    }
}

struct Observed {
    copies: Vec<Copies>,
    /// Of the secret's name, which is no secret.
    name: Copies,
}

async fn observe(wipes_freed_pages: bool) -> Observed {
    let directory = world::directory();
    let (canary, name) = (Canary::random(), Canary::of(&random_letters(48)));
    let mut control_plane = ControlPlane::boot(wipes_freed_pages).await;
    control_plane.guest.go("").await;
    let mut copies = vec![control_plane.look_at_half_a_request(&canary).await];

    control_plane.post("/v1/secrets", &json!({ "name": name.value(), "value": canary.value() })).await;
    copies.push(control_plane.look("stored", &canary).await);
    let daemon = control_plane.daemon(&directory).await;
    copies.push(control_plane.look("delivered", &canary).await);
    let other = random_letters(64);
    control_plane.post(&format!("/v1/secrets/{}", name.value()), &json!({ "value": other })).await;
    copies.push(control_plane.look("updated", &canary).await);
    control_plane.post(&format!("/v1/secrets/{}/delete", name.value()), &json!({})).await;
    let name = control_plane.guest.ram().copies(&name);
    copies.push(control_plane.look("deleted", &canary).await);
    copies.push(control_plane.look("stopped", &canary).await);
    drop(daemon);
    Observed { copies, name }
}

#[tokio::test]
async fn once_a_request_is_answered_a_control_planes_whole_memory_holds_no_copy() {
    if !can_boot() {
        return;
    }
    let (by_default, wiping) = tokio::join!(observe(false), observe(true));
    let columns = by_default.copies.iter().zip(&wiping.copies);
    let lines = WHAT_HAPPENED.iter().zip(columns);
    let lines: Vec<_> =
        lines.map(|(step, (a, b))| ((*step).to_owned(), vec![a.clone(), b.clone()])).collect();
    say(&table("copies in a control plane's memory", &["kernel's defaults", "init_on_free=1"], &lines));

    for observed in [&by_default, &wiping] {
        assert!(observed.name["raw"] >= 1, "the search finds a name, which may stay");
        assert!(observed.copies[0]["raw"] >= 1, "and a value that the server is reading");
    }
    assert!(wiping.copies[1..].iter().all(Copies::is_empty), "{:?}", wiping.copies);
}
