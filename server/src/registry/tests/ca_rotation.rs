use std::time::Duration;

use super::*;
use crate::clock::{milliseconds, now_ms};

const OPERATOR: Actor = Actor::Server;

/// The name of who signed the certificate.
fn issuer(identity: &IssuedIdentity) -> Vec<u8> {
    use x509_parser::prelude::{FromDer, X509Certificate};
    let leaf = CertificateDer::from_pem_slice(identity.certificate.as_bytes()).unwrap();
    X509Certificate::from_der(&leaf).unwrap().1.issuer().as_raw().to_vec()
}

/// Another program over the same state.
async fn operator(world: &World) -> Registry {
    open(&world.state).await.unwrap()
}

#[tokio::test]
async fn after_a_rotation_the_new_ca_issues_and_every_answer_names_both() {
    let (world, caller, devbox, peer) = World::with_joined().await;
    let (_, from_before) = world.devbox(&caller, &[]).await;
    let old = world.registry.ca();
    world.registry.rotate_ca(&OPERATOR).await.unwrap();
    let new = world.registry.ca();
    assert_ne!(old.subject(), new.subject());
    let (_, from_after) = world.devbox(&caller, &[]).await;
    assert_eq!(from_before.ca_fingerprint(), old.fingerprint());
    assert_eq!(from_after.ca_fingerprint(), new.fingerprint());

    let renewed = world.registry.renew(&peer, &csr(devbox.id.as_str())).await.unwrap();
    for identity in
        [renewed, world.enrol(&from_before).await.unwrap(), world.enrol(&from_after).await.unwrap()]
    {
        assert_eq!(issuer(&identity), new.subject());
        assert_eq!(identity.ca, new.certificate_pem().to_owned() + old.certificate_pem());
    }
}

#[tokio::test]
async fn the_old_ca_is_trusted_until_everything_from_before_has_ended_and_then_no_more() {
    let world = World::new().await;
    let old = world.registry.ca();
    let before = now_ms();
    let trusted = world.registry.rotate_ca(&OPERATOR).await.unwrap();
    let until = trusted[1].trusted_until_time_ms.unwrap();
    let lifetime = milliseconds(world.registry.settings().certificate_lifetime);
    assert!(until > before + lifetime);
    let authorities = operator(&world).await.authorities();
    assert!(authorities.trusted(until - 1).any(|ca| ca.fingerprint() == old.fingerprint()));
    assert_eq!(authorities.trusted(until).count(), 1);
    assert_eq!(authorities.trusted_pem(until), world.registry.ca().certificate_pem());
    assert!(authorities.have_issuer(old.subject(), until - 1));
    assert!(!authorities.have_issuer(old.subject(), until));
}

#[tokio::test]
async fn with_brief_certificates_the_old_ca_outlives_the_join_tokens_that_pin_it() {
    let world = World::new().await;
    let settings = Settings { certificate_lifetime: Duration::from_secs(1), ..Settings::default() };
    let brief =
        Registry::open_with_own_key(&world.state, &world.state.master_key(), settings, Access::Shared)
            .await
            .unwrap();
    let before = now_ms();
    let trusted = brief.rotate_ca(&OPERATOR).await.unwrap();
    assert!(trusted[1].trusted_until_time_ms.unwrap() > before + JOIN_TOKEN_LIFETIME_MS);
}

#[tokio::test]
async fn a_certificate_of_a_retired_ca_is_refused_on_a_connection_from_before_and_audited() {
    let (world, _, devbox, peer) = World::with_joined().await;
    let old = world.registry.rotate_ca(&OPERATOR).await.unwrap().remove(1);
    let renewed = world.registry.renew(&peer, &csr(devbox.id.as_str())).await.unwrap();
    let left = world.registry.retire_ca(&OPERATOR, &old.fingerprint.to_uppercase()).await.unwrap();
    assert_eq!(left.len(), 1);
    let refused = world.registry.renew(&peer, &csr(devbox.id.as_str())).await;
    world.audited_refusal(refused, "devbox.renew", RefusalKind::Forbidden, "retired_ca").await;
    world.registry.renew(&world.peer(&renewed), &csr(devbox.id.as_str())).await.unwrap();
}

#[tokio::test]
async fn the_ca_that_issues_is_not_retired_and_neither_is_a_stranger() {
    let world = World::new().await;
    let issuing = world.registry.list_cas().remove(0);
    let refused = world.registry.retire_ca(&OPERATOR, &issuing.fingerprint).await;
    assert_eq!(refusal(refused), (RefusalKind::Invalid, "issuing_ca"));
    let refused = world.registry.retire_ca(&OPERATOR, &"a5".repeat(32)).await;
    assert_eq!(refusal(refused), (RefusalKind::NotFound, "not_found"));
    assert_eq!(world.registry.list_cas(), [issuing]);
}

#[tokio::test]
async fn rotations_may_follow_each_other_until_eight_are_trusted() {
    let world = World::new().await;
    for trusted in 2..=8 {
        assert_eq!(world.registry.rotate_ca(&OPERATOR).await.unwrap().len(), trusted);
    }
    let refused = world.registry.rotate_ca(&OPERATOR).await;
    assert_eq!(refusal(refused), (RefusalKind::Invalid, "too_many_cas"));
    let oldest = world.registry.list_cas().pop().unwrap();
    world.registry.retire_ca(&OPERATOR, &oldest.fingerprint).await.unwrap();
    world.registry.rotate_ca(&OPERATOR).await.unwrap();
}

#[tokio::test]
async fn both_ends_of_a_rotation_are_audited() {
    let world = World::new().await;
    let [new, old] = world.registry.rotate_ca(&OPERATOR).await.unwrap().try_into().unwrap();
    world.registry.retire_ca(&OPERATOR, &old.fingerprint).await.unwrap();
    let entries = world.registry.audit(None, 2).await.unwrap();
    let entries: Vec<_> = entries.into_iter().map(|entry| (entry.action, entry.object)).collect();
    assert_eq!(
        entries,
        [("ca.retire".to_owned(), old.fingerprint), ("ca.rotate".to_owned(), new.fingerprint)]
    );
}

/// A retired CA can still sign certificates, but no longer get them accepted.
#[tokio::test]
async fn a_certificate_that_a_retired_ca_signs_for_a_known_serial_number_is_refused() {
    let (world, _, devbox, joined) = World::with_joined().await;
    let old = world.registry.ca();
    let retired = world.registry.rotate_ca(&OPERATOR).await.unwrap().remove(1);
    world.registry.retire_ca(&OPERATOR, &retired.fingerprint).await.unwrap();
    let request = world.registry.check_request(&csr(devbox.id.as_str()), &devbox.id).unwrap();
    let forged = old.issue_devbox(&devbox.id, &request, Duration::from_secs(3600)).unwrap();
    let audit = upkeep_record(&OPERATOR, crate::store::Action::DevboxRenew, "");
    let store = world.registry.store();
    assert!(
        store
            .insert_certificate(&devbox.id, joined.serial(), &forged.record, &audit)
            .await
            .unwrap()
            .is_some()
    );
    let der = CertificateDer::from_pem_slice(forged.pem.as_bytes()).unwrap();
    let peer = world.registry.peer(&der, None).unwrap();
    let refused = world.registry.renew(&peer, &csr(devbox.id.as_str())).await;
    assert_eq!(refusal(refused), (RefusalKind::Forbidden, "retired_ca"));
}
