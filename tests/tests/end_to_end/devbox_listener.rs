//! The devbox listener: who is let in, who is not, and that a refusal is on record.

use devbox_secrets_proto::join_token::JoinToken;
use devbox_secrets_tests::client::exchange;
use devbox_secrets_tests::devbox::{Applicant, Listener};
use devbox_secrets_tests::server::Server;
use devbox_secrets_tests::tls::{self, Client, Trust};
use devbox_secrets_tests::wait;
use devbox_secrets_tests::world::World;
use rustls::{NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

fn listener(world: &World) -> Listener {
    Listener::new(world.server.ready.devbox_address())
}

/// The audit has a refused record about this devbox.
async fn refusal_is_on_record(server: &Server, devbox_id: &str) {
    wait::until("the refusal in the audit", async || {
        let records = server.operator_json(&["audit"]).await.to_string();
        let refused = |record: &&str| record.contains(devbox_id) && record.contains("refused");
        records.split("},").find(refused).map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn the_handshake_is_tls_1_3_with_a_post_quantum_key_and_the_pinned_ca() {
    let world = World::start().await;
    let devbox = world.devbox("box").await;
    let address = world.server.ready.devbox_address();
    let stream = Client::new(Trust::Anything).connect(address).await.unwrap();
    let session = stream.get_ref().1;
    assert_eq!(session.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    let group = session.negotiated_key_exchange_group().map(|group| group.name());
    assert_eq!(group, Some(NamedGroup::X25519MLKEM768));

    let chain = session.peer_certificates().unwrap();
    assert_eq!(chain.len(), 2, "leaf and CA");
    let ca = chain[1].clone().into_owned();
    let fingerprint = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &ca);
    let token = JoinToken::parse(devbox.join_token.as_bytes()).unwrap();
    assert_eq!(fingerprint.as_ref(), token.ca_fingerprint(), "the token pins the CA that the server shows");
    Client::new(Trust::Ca(ca)).connect(address).await.unwrap();
}

#[tokio::test]
async fn twenty_at_once_with_one_token_make_one_identity() {
    let world = World::start().await;
    let devbox = world.devbox("box").await;
    let mut attempts = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let (listener, devbox) = (listener(&world), devbox.clone());
        attempts.spawn(async move {
            listener.enroll(&devbox.join_token, &Applicant::new(&devbox.id)).await.status
        });
    }
    let statuses = attempts.join_all().await;
    assert_eq!(statuses.iter().filter(|status| **status == 200).count(), 1, "{statuses:?}");
}

#[tokio::test]
async fn a_shut_down_devbox_is_refused_although_its_certificate_is_good() {
    let world = World::start().await;
    let devbox = world.devbox("box").await;
    let enrolled = listener(&world).enrolled(&devbox.join_token, &devbox.id).await;
    world.api().post_empty(&format!("/v1/devboxes/{}/shutdown", devbox.id)).await.expect(200);
    enrolled.bundle(None).await.unwrap().refusal(403);
    enrolled.renew(&Applicant::new(&devbox.id)).await.unwrap().refusal(403);
    refusal_is_on_record(&world.server, &devbox.id).await;
}

#[tokio::test]
async fn a_strangers_certificate_does_not_pass_the_handshake() {
    let world = World::start().await;
    let devbox = world.devbox("box").await;
    let uri = format!("spiffe://devbox-secrets.internal/devbox/{}", devbox.id);
    let stranger = Applicant::new(&devbox.id).issued_by_a_stranger(&uri);
    let refused = listener(&world).identity(stranger).bundle(None).await;
    assert!(refused.is_err(), "{refused:?}");
    listener(&world).enrolled(&devbox.join_token, &devbox.id).await;
}

/// RFC 8446 section 6.2.
const FATAL_PROTOCOL_VERSION: [u8; 2] = [2, 70];

#[tokio::test]
async fn tls_1_2_is_refused() {
    let world = World::start().await;
    let mut stream = TcpStream::connect(world.server.ready.devbox_address()).await.unwrap();
    stream.write_all(&tls::client_hello_of_tls_1_2()).await.unwrap();
    let mut record = [0; 7];
    wait::within("an alert", stream.read_exact(&mut record)).await.unwrap();
    assert_eq!((record[0], &record[5..]), (tls::ALERT, &FATAL_PROTOCOL_VERSION[..]));
}

#[tokio::test]
async fn a_plaintext_client_gets_nothing_and_harms_nobody() {
    let world = World::start().await;
    let address = world.server.ready.devbox_address();
    let stream = TcpStream::connect(address).await.unwrap();
    let answer = exchange(stream, b"POST /v1/devbox/enroll HTTP/1.1\r\nHost: x\r\n\r\n").await;
    assert!(!answer.starts_with(b"HTTP"), "{answer:?}");
    let devbox = world.devbox("box").await;
    listener(&world).enrolled(&devbox.join_token, &devbox.id).await;
}

#[tokio::test]
async fn clients_that_never_finish_their_handshake_harm_nobody() {
    let world = World::start().await;
    let address = world.server.ready.devbox_address();
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(TcpStream::connect(address).await.unwrap());
    }
    let devbox = world.devbox("box").await;
    listener(&world).enrolled(&devbox.join_token, &devbox.id).await;
    drop(silent);
}
