//! The devbox listener's certificates and whom it believes, while the CAs change.

use rcgen::{BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::{Error, RootCertStore};
use tempfile::TempDir;
use x509_parser::prelude::{FromDer, X509Certificate};

use super::super::verifier::DevboxVerifier;
use super::*;
use crate::app::{KeyPolicy, init, open_registry};
use crate::config::StateConfig;
use crate::crypto::MasterKey;
use crate::registry::{Registry, Settings};
use crate::store::sqlite::{SqliteStore, StateDirectory};
use crate::store::{Actor, Authorities as _};

const DAY: Duration = Duration::from_secs(86_400);

struct World {
    registry: Registry,
    config: StateConfig,
    _directory: TempDir,
}

impl World {
    async fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let config = StateConfig::in_directory(&directory.path().join("state"));
        init(&config, Settings::default(), KeyPolicy::Own).await.unwrap();
        let registry = open_registry(&config, Settings::default()).await.unwrap();
        Self { registry, config, _directory: directory }
    }

    async fn rotate(&self) {
        self.registry.rotate_ca(&Actor::Server).await.unwrap();
    }

    fn verifier(&self) -> DevboxVerifier {
        DevboxVerifier::new(Arc::clone(self.registry.current_authorities()))
    }

    /// The key of the CA that issues, in wrong hands.
    async fn stolen(&self) -> Issuer<'static, KeyPair> {
        let directory = StateDirectory::open(&self.config.directory).unwrap();
        let authority = SqliteStore::open(&directory).await.unwrap().authorities().await.unwrap().remove(0);
        let master = MasterKey::load(&self.config.master_key_file).unwrap();
        let key = master.unwrap("devbox CA key", &authority.wrapped_key).unwrap();
        let key = KeyPair::try_from(&PrivatePkcs8KeyDer::from(key.expose_secret())).unwrap();
        Issuer::from_ca_cert_der(&authority.certificate.into(), key).unwrap()
    }
}

fn listener_certificates(registry: &Registry) -> ListenerCertificates {
    let authorities = Arc::clone(registry.current_authorities());
    let metrics = Arc::clone(registry.metrics());
    ListenerCertificates::issue(authorities, metrics, vec!["localhost".to_owned()]).unwrap()
}

fn client(issuer: &Issuer<'_, KeyPair>) -> CertificateDer<'static> {
    let mut params = CertificateParams::default();
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    params.signed_by(&KeyPair::generate().unwrap(), issuer).unwrap().der().clone()
}

fn in_(span: Duration) -> UnixTime {
    UnixTime::since_unix_epoch(SystemTime::now().duration_since(UNIX_EPOCH).unwrap() + span)
}

#[tokio::test]
async fn the_devbox_listeners_certificate_is_issued_anew_in_its_last_third() {
    let registry = World::new().await.registry;
    let ca = registry.ca();
    let certificates = listener_certificates(&registry);
    let at = |time| certificates.at(&ca, time).unwrap();
    let now = SystemTime::now();
    let first = at(now);
    assert!(Arc::ptr_eq(&first, &at(now + 4 * DAY)));
    let second = at(now + 5 * DAY);
    assert!(!Arc::ptr_eq(&first, &second));
    assert!(Arc::ptr_eq(&second, &at(now)), "and serves from then on");
}

#[tokio::test]
async fn a_listeners_certificate_of_a_clock_that_was_ahead_is_replaced_once_the_clock_is_right() {
    let registry = World::new().await.registry;
    let ca = registry.ca();
    let certificates = listener_certificates(&registry);
    let at = |time| certificates.at(&ca, time).unwrap();
    let first = at(SystemTime::now());
    assert!(Arc::ptr_eq(&first, &at(SystemTime::now() - CLOCK_SKEW / 2)), "it is valid for that long before");
    assert!(!Arc::ptr_eq(&first, &at(SystemTime::now() - DAY)));
}

#[tokio::test]
async fn a_client_of_the_old_ca_is_accepted_until_its_time_and_not_a_moment_longer() {
    let world = World::new().await;
    // Its certificate lives for a thousand years.
    let client = client(&world.stolen().await);
    let verifier = world.verifier();
    world.rotate().await;
    let verify = |span| verifier.verify_client_cert(&client, &[], in_(span));
    verify(Duration::ZERO).unwrap();
    verify(DAY).unwrap();
    let refused = verify(DAY + Duration::from_secs(3600)).unwrap_err();
    assert_eq!(refused, Error::InvalidCertificate(rustls::CertificateError::UnknownIssuer));
}

#[tokio::test]
async fn a_client_is_accepted_only_if_a_trusted_ca_signed_its_certificate_itself() {
    let world = World::new().await;
    let old = world.stolen().await;
    world.rotate().await;
    // As if it were the new CA, whose name it bears: its certificates would outlive the old one's
    // retirement.
    let new = world.registry.ca();
    let (_, new) = X509Certificate::from_der(new.certificate_der()).unwrap();
    let name = new.subject().iter_common_name().next().unwrap().as_str().unwrap();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let between = params.signed_by(&key, &old).unwrap().der().clone();
    let leaf = client(&Issuer::new(params, key));
    let refused = world.verifier().verify_client_cert(&leaf, &[between], in_(Duration::ZERO));
    assert!(refused.is_err());
    world.verifier().verify_client_cert(&client(&old), &[], in_(Duration::ZERO)).unwrap();
}

#[tokio::test]
async fn the_newest_ca_that_the_client_trusts_is_chosen_by_name_or_fingerprint_and_else_the_one_that_issues()
{
    let world = World::new().await;
    let old = world.registry.ca();
    world.rotate().await;
    let new = world.registry.ca();
    let authorities = world.registry.authorities();
    let by_name = |ca: &DevboxCa| subject(ca);
    let by_fingerprint = |ca: &DevboxCa| DistinguishedName::in_sequence(&ca_name(ca.fingerprint()));
    let is_chosen = |named: &[DistinguishedName], ca: &DevboxCa| {
        chosen(&authorities, named, unix_time_ms(UnixTime::now())).fingerprint() == ca.fingerprint()
    };
    for named in [by_name(&old), by_fingerprint(&old)] {
        assert!(is_chosen(&[named], &old));
    }
    assert!(is_chosen(&[by_name(&old), by_fingerprint(&new)], &new));
    assert!(is_chosen(&[], &new));
    assert!(is_chosen(&[DistinguishedName::in_sequence(&ca_name(&[7; 32]))], &new));
    let later = unix_time_ms(in_(2 * DAY));
    assert_eq!(chosen(&authorities, &[by_name(&old)], later).fingerprint(), new.fingerprint());
}

fn subject(ca: &DevboxCa) -> DistinguishedName {
    let mut roots = RootCertStore::empty();
    roots.add(ca.certificate_der().clone()).unwrap();
    roots.subjects().remove(0)
}
