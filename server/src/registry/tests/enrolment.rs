use rcgen::{CertificateParams, DnType, KeyPair, SanType, SigningKey};
use tokio::task::JoinSet;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use super::*;
use crate::clock::now_ms;
use crate::crypto::JoinSecret;
use crate::crypto::id::DevboxId;
use crate::store::JoinGrant;

#[tokio::test]
async fn a_join_token_becomes_a_short_lived_client_certificate() {
    let (world, _, devbox, token) = World::with_devbox().await;
    assert_eq!(token.ca_fingerprint(), world.registry.ca().fingerprint());
    let identity = world.enrol(&token).await.unwrap();
    assert_eq!(identity.devbox_id, devbox.id.as_str());
    assert_eq!(identity.ca, world.registry.ca().certificate_pem());

    let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let (_, leaf) = X509Certificate::from_der(&der).unwrap();
    let names = &leaf.subject_alternative_name().unwrap().unwrap().value.general_names;
    let expected = format!("spiffe://devbox-secrets.internal/devbox/{}", devbox.id);
    assert_eq!(names, &[GeneralName::URI(&expected)]);
    let usage = leaf.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !leaf.is_ca());
    let validity = leaf.validity();
    let lifetime = validity.not_after.timestamp() - validity.not_before.timestamp();
    assert!((24 * 3600..=24 * 3600 + 301).contains(&lifetime), "{lifetime}");
    assert_eq!(world.peer(&identity).devbox_id(), &devbox.id);
    assert_eq!(world.newest().await.0, "devbox.enroll");
}

#[tokio::test]
async fn a_join_token_redeemed_by_twenty_at_once_works_for_one() {
    let (world, caller, _, token) = World::with_devbox().await;
    let mut attempts = JoinSet::new();
    for _ in 0..20 {
        let registry = world.registry.clone();
        let text = token.expose_token();
        let csr = csr(token.devbox_id());
        attempts.spawn(async move { registry.enroll(&bytes(&text), &csr, None).await });
    }
    let outcomes = attempts.join_all().await;
    assert_eq!(outcomes.iter().filter(|outcome| outcome.is_ok()).count(), 1);
    for refused in outcomes.into_iter().filter(Result::is_err) {
        assert_eq!(refusal(refused), (RefusalKind::Unauthenticated, "used_join_token"));
    }
    let audit = world.registry.audit(Some(caller.account()), 20).await.unwrap();
    assert_eq!(audit.iter().filter(|entry| entry.outcome == "refused").count(), 19);
}

#[tokio::test]
async fn an_expired_join_token_is_refused_and_audited() {
    let (world, caller, devbox, _) = World::with_devbox().await;
    let row = world.registry.store().devbox(caller.account(), &devbox.id).await.unwrap().unwrap();
    let id = DevboxId::generate().unwrap();
    let secret = JoinSecret::generate().unwrap();
    let expired = crate::store::Devbox { id: id.clone(), ..row };
    let grant = JoinGrant { hash: secret.hash(), expire_time_ms: now_ms() };
    let audit = caller.done(crate::store::Action::DevboxCreate, id.as_str());
    world
        .registry
        .store()
        .insert_devbox(
            caller.account(),
            &expired,
            &|_| Ok(grant),
            &crate::config::Limits::default(),
            &audit,
            None,
        )
        .await
        .unwrap();
    let fingerprint = *world.registry.ca().fingerprint();
    let token = JoinToken::new(id.as_str(), secret.into_secret(), fingerprint).unwrap();
    world
        .audited_refusal(
            world.enrol(&token).await,
            "devbox.enroll",
            RefusalKind::Unauthenticated,
            "expired_join_token",
        )
        .await;
}

#[tokio::test]
async fn a_guessed_or_swapped_join_token_is_refused() {
    let (world, caller, _, first) = World::with_devbox().await;
    let (_, second) = world.devbox(&caller, &[]).await;
    let swapped = JoinToken::new(
        first.devbox_id(),
        bytes(std::str::from_utf8(second.secret().expose_secret()).unwrap()),
        *first.ca_fingerprint(),
    )
    .unwrap();
    let unknown = (RefusalKind::Unauthenticated, "unknown_join_token");
    world
        .audited_refusal(
            world.enrol(&swapped).await,
            "devbox.enroll",
            RefusalKind::Unauthenticated,
            "unknown_join_token",
        )
        .await;
    let nobody = JoinToken::new("dbx_none", bytes("guess"), [0; 32]).unwrap();
    assert_eq!(refusal(world.enrol(&nobody).await), unknown);
    let malformed = world.registry.enroll(&bytes("no token"), "", None).await;
    assert_eq!(refusal(malformed), (RefusalKind::Unauthenticated, "invalid_join_token"));
    assert!(world.enrol(&first).await.is_ok());
}

#[tokio::test]
async fn a_request_for_another_devbox_is_refused_and_leaves_the_token_usable() {
    let (world, caller, _, token) = World::with_devbox().await;
    let (other, _) = world.devbox(&caller, &[]).await;
    let bearer = bytes(&token.expose_token());
    let own = token.devbox_id();
    let uri =
        |id: &str| SanType::URI(format!("spiffe://devbox-secrets.internal/devbox/{id}").try_into().unwrap());
    let dns = SanType::DnsName("server.example".try_into().unwrap());
    let requests = [
        csr(other.id.as_str()),
        csr(""),
        Applicant::new(own).request_with(vec![uri(other.id.as_str())]),
        Applicant::new(own).request_with(vec![uri(own), dns]),
    ];
    for request in requests {
        let refused = world.registry.enroll(&bearer, &request, None).await;
        world.audited_refusal(refused, "devbox.enroll", RefusalKind::Forbidden, "other_devbox").await;
    }
    let request = Applicant::new(own).request_with(vec![uri(own)]);
    assert!(world.registry.enroll(&bearer, &request, None).await.is_ok());
}

#[tokio::test]
async fn a_request_without_a_valid_signature_is_refused() {
    let (world, _, _, token) = World::with_devbox().await;
    let bearer = bytes(&token.expose_token());
    let forged = forged_csr(token.devbox_id());
    for request in ["", "-----BEGIN CERTIFICATE REQUEST-----", &"x".repeat(20_000), &forged] {
        let refused = world.registry.enroll(&bearer, request, None).await;
        assert_eq!(refusal(refused), (RefusalKind::Invalid, "invalid_certificate_request"));
    }
}

/// A request for a key that the requester does not have.
fn forged_csr(devbox: &str) -> String {
    struct Forger(KeyPair, KeyPair);
    impl rcgen::PublicKeyData for Forger {
        fn der_bytes(&self) -> &[u8] {
            self.0.der_bytes()
        }
        fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
            rcgen::PublicKeyData::algorithm(&self.0)
        }
    }
    impl SigningKey for Forger {
        fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
            self.1.sign(message)
        }
    }
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, devbox);
    let forger = Forger(KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
    params.serialize_request(&forger).unwrap().pem().unwrap()
}

#[tokio::test]
async fn a_certificate_is_renewed_for_its_own_devbox_only() {
    let (world, caller, devbox, peer) = World::with_joined().await;
    let (other, _) = world.joined(&caller, &[]).await;
    let renewed = world.registry.renew(&peer, &csr(devbox.id.as_str())).await.unwrap();
    let renewed = world.peer(&renewed);
    assert_eq!(renewed.devbox_id(), &devbox.id);
    assert!(world.registry.renew(&renewed, &csr(devbox.id.as_str())).await.is_ok());
    let refused = world.registry.renew(&renewed, &csr(other.id.as_str())).await;
    world.audited_refusal(refused, "devbox.renew", RefusalKind::Forbidden, "other_devbox").await;
}

#[tokio::test]
async fn a_devbox_that_is_shut_down_neither_joins_nor_renews() {
    let (world, caller, joined, peer) = World::with_joined().await;
    let (waiting, token) = world.devbox(&caller, &[]).await;
    for id in [&joined.id, &waiting.id] {
        world.registry.shutdown_devbox(&caller, id.as_str()).await.unwrap();
    }
    world
        .audited_refusal(
            world.registry.renew(&peer, &csr(joined.id.as_str())).await,
            "devbox.renew",
            RefusalKind::Forbidden,
            "devbox_shutdown",
        )
        .await;
    world
        .audited_refusal(
            world.enrol(&token).await,
            "devbox.enroll",
            RefusalKind::Forbidden,
            "devbox_shutdown",
        )
        .await;
}

#[tokio::test]
async fn a_strangers_certificate_is_refused_and_audited() {
    let world = World::new().await;
    let elsewhere = World::new().await;
    let (caller, other) = (world.caller("acme").await, elsewhere.caller("acme").await);
    let (devbox, _) = world.joined(&caller, &[]).await;
    let (_, stranger) = elsewhere.joined(&other, &[]).await;
    let unknown = (RefusalKind::Forbidden, "unknown_certificate");
    let refused = world.registry.renew(&stranger, &csr(stranger.devbox_id().as_str())).await;
    world.audited_refusal(refused, "devbox.renew", RefusalKind::Forbidden, "unknown_certificate").await;

    // The CA's own signature, for a known devbox, but a serial number that was never handed out.
    let request = world.registry.check_request(&csr(devbox.id.as_str()), &devbox.id).unwrap();
    let forged =
        world.registry.ca().issue_devbox(&devbox.id, &request, Settings::default().certificate_lifetime);
    let der = CertificateDer::from_pem_slice(forged.unwrap().pem.as_bytes()).unwrap();
    let forged = world.registry.peer(&der, None).unwrap();
    assert_eq!(refusal(world.registry.renew(&forged, &csr(devbox.id.as_str())).await), unknown);
}

#[tokio::test]
async fn a_certificate_of_another_trust_domain_names_no_devbox() {
    let (world, _, _, token) = World::with_devbox().await;
    let identity = world.enrol(&token).await.unwrap();
    let settings = Settings { trust_domain: "elsewhere.example".to_owned(), ..Settings::default() };
    let moved =
        Registry::open_with_own_key(&world.state, &world.state.master_key(), settings, Access::Shared)
            .await
            .unwrap();
    let der = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    let unknown = (RefusalKind::Unauthenticated, "unknown_certificate");
    assert_eq!(refusal(moved.peer(&der, None)), unknown);
    assert_eq!(refusal(moved.peer(moved.ca().certificate_der(), None)), unknown);
    assert_eq!(refusal(moved.peer(b"garbage", None)), unknown);
}

#[tokio::test]
async fn a_certificate_that_has_ended_is_refused_on_a_connection_that_outlived_it() {
    let world = World::new().await;
    let settings = Settings { certificate_lifetime: std::time::Duration::ZERO, ..Settings::default() };
    let brief =
        Registry::open_with_own_key(&world.state, &world.state.master_key(), settings, Access::Shared)
            .await
            .unwrap();
    let caller = world.caller("acme").await;
    let (devbox, token) = world.devbox(&caller, &[]).await;
    let csr = csr(devbox.id.as_str());
    let identity = brief.enroll(&bytes(&token.expose_token()), &csr, None).await.unwrap();
    let refused = brief.renew(&world.peer(&identity), &csr).await;
    assert_eq!(refusal(refused), (RefusalKind::Forbidden, "certificate_expired"));
}

#[tokio::test]
async fn guessing_at_a_devboxs_join_token_does_not_fill_the_audit() {
    let (world, _, devbox, token) = World::with_devbox().await;
    let guess = JoinToken::new(devbox.id.as_str(), bytes(&"g".repeat(43)), [7; 32]).unwrap();
    for _ in 0..100 {
        assert_eq!(refusal(world.enrol(&guess).await), (RefusalKind::Unauthenticated, "unknown_join_token"));
    }
    let audit = world.registry.audit(None, 1000).await.unwrap();
    assert_eq!(audit.iter().filter(|entry| entry.outcome == "refused").count(), 60);
    world.registry.set_devbox_capability(&Actor::Server, "acme", false).await.unwrap();
    assert_eq!(
        refusal(world.enrol(&guess).await).1,
        "unknown_join_token",
        "no property of the account is revealed"
    );
    world.registry.set_devbox_capability(&Actor::Server, "acme", true).await.unwrap();
    assert!(world.enrol(&token).await.is_ok());
}

#[tokio::test]
async fn no_devbox_joins_an_account_without_the_capability() {
    let (world, _, _, token) = World::with_devbox().await;
    world.registry.set_devbox_capability(&Actor::Server, "acme", false).await.unwrap();
    let refused = world.enrol(&token).await;
    world.audited_refusal(refused, "devbox.enroll", RefusalKind::Forbidden, "no_devbox_capability").await;
    world.registry.set_devbox_capability(&Actor::Server, "acme", true).await.unwrap();
    assert!(world.enrol(&token).await.is_ok(), "the token was not used up");
}
