//! The peer on the devbox listener: the devbox that a verified client certificate names.

use std::net::IpAddr;
use std::sync::{Arc, Weak};

use super::audit::Attempt;
use super::caller::no_devbox_capability;
use super::network::network;
use super::{Refusal, Registry};
use crate::clock::now_ms;
use crate::crypto::id::{AccountId, DevboxId};
use crate::pki::ClientCertificate;
use crate::store::{Action, Actor, AdmissionState, DevboxStatus};

/// A devbox on one connection, by its verified client certificate.
#[derive(Debug, Clone)]
pub struct DevboxPeer {
    certificate: ClientCertificate,
    remote: Option<IpAddr>,
    connection: Weak<()>,
}

/// One certificate at one network address.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Source {
    serial: String,
    remote: Option<IpAddr>,
}

impl DevboxPeer {
    /// The same peer on a connection that is open for as long as `connection` lives: until then the
    /// identity is in use.
    pub(crate) fn on(self, connection: &Arc<()>) -> Self {
        Self { connection: Arc::downgrade(connection), ..self }
    }

    pub(crate) fn devbox_id(&self) -> &DevboxId {
        &self.certificate.devbox
    }

    pub(super) fn attempt(&self, account: Option<AccountId>, action: Action) -> Attempt {
        let (actor, object) =
            (Actor::Devbox(self.certificate.devbox.clone()), self.certificate.devbox.to_string());
        Attempt { account, actor, action, object, remote: self.remote }
    }

    /// Its certificate's, lowercase hexadecimal.
    pub(super) fn serial(&self) -> &str {
        &self.certificate.serial
    }

    pub(super) fn source(&self) -> Source {
        Source { serial: self.certificate.serial.clone(), remote: self.remote.map(network) }
    }

    pub(super) fn remote(&self) -> Option<IpAddr> {
        self.remote
    }

    pub(super) fn connection(&self) -> &Weak<()> {
        &self.connection
    }
}

impl Registry {
    /// The devbox that a client certificate names. The TLS handshake has verified the certificate
    /// against the devbox CAs.
    ///
    /// # Errors
    /// 401 if it names no devbox of this server's trust domain.
    pub fn peer(&self, leaf: &[u8], remote: Option<IpAddr>) -> Result<DevboxPeer, Refusal> {
        let certificate = ClientCertificate::parse(leaf, &self.settings().trust_domain);
        let certificate = certificate.ok_or_else(|| {
            let message = "the client certificate names no devbox of this server: enrol with a join token";
            Refusal::unauthenticated("unknown_certificate", message)
        })?;
        Ok(DevboxPeer { certificate, remote, connection: Weak::new() })
    }

    /// The admission state of a peer whose certificate is valid and whose devbox may have its
    /// bundle.
    ///
    /// # Errors
    /// 403, audited, for any other peer.
    pub(super) async fn admit(&self, peer: &DevboxPeer, action: Action) -> Result<AdmissionState, Refusal> {
        let admission = self.store().admission_state(peer.devbox_id(), peer.serial()).await?;
        let account = admission.as_ref().map(|admission| admission.account.clone());
        match admission.ok_or_else(strange_certificate).and_then(entitled) {
            Ok(_) if !self.trusts_issuer(&peer.certificate.issuer) => {
                self.refuse(peer.attempt(account, action), retired_ca()).await
            }
            Ok(admission) => Ok(admission),
            Err(refusal) => self.refuse(peer.attempt(account, action), refusal).await,
        }
    }
}

/// Whether a devbox may have its bundle, the strongest reason against it first.
fn entitled(admission: AdmissionState) -> Result<AdmissionState, Refusal> {
    match admission.certificate_not_after_time_ms {
        None => Err(strange_certificate()),
        Some(end) if end <= now_ms() => Err(expired_certificate()),
        Some(_) if admission.status == DevboxStatus::Shutdown => Err(shut_down()),
        Some(_) if !admission.devbox_capability => Err(no_devbox_capability()),
        Some(_) => Ok(admission),
    }
}

pub(super) fn shut_down() -> Refusal {
    Refusal::forbidden(
        "devbox_shutdown",
        "the devbox is shut down: register a new one and join with its token",
    )
}

fn expired_certificate() -> Refusal {
    Refusal::forbidden("certificate_expired", "the client certificate has ended: join with a new join token")
}

fn retired_ca() -> Refusal {
    let message = "the CA of the client certificate was retired: join with a new join token";
    Refusal::forbidden("retired_ca", message)
}

fn strange_certificate() -> Refusal {
    let message =
        "the client certificate was not issued by this server to this devbox: join with a join token";
    Refusal::forbidden("unknown_certificate", message)
}
