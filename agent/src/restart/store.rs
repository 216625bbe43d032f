//! The images in the service manager's store: stores, renews, removes them, and takes over a predecessor's.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustls::pki_types::PrivateKeyDer;
use thiserror::Error;
use tracing::warn;
use zeroize::Zeroizing;

use super::image::{Image, ImageId, InvalidImage, Kind, Parts};
use super::keyring::{ImageKey, Keyring, KeyringError};
use super::memfd::{self, MediumError};
use super::record::{self, IdentityRecord, InvalidRecord, SecretsRecord};
use super::stored::{Images, StoreView};
use crate::control_plane::ServerUrl;
use crate::identity::{Identity, InitialIdentity, InvalidIdentity};
use crate::machine;
use crate::memory::{Generation, GenerationError};
use crate::sys::{BootTime, SecretMemory, now_ms};
use crate::telemetry::{chain, service_manager};

#[derive(Debug, Error)]
enum StoreError {
    #[error(transparent)]
    Key(#[from] KeyringError),
    #[error(transparent)]
    Image(#[from] InvalidImage),
    #[error(transparent)]
    Medium(#[from] MediumError),
    #[error("the service manager refuses it")]
    Notify(#[source] io::Error),
    #[error("it is not of this version")]
    Record,
    #[error("it has expired")]
    Over,
    #[error("it was saved for a different server.url, or by the machine this one was cloned from")]
    Foreign,
    #[error("its secrets cannot be put into locked memory")]
    Generation(#[from] GenerationError),
    #[error("its identity is unusable")]
    Identity(#[from] InvalidIdentity),
}

impl From<InvalidRecord> for StoreError {
    fn from(_: InvalidRecord) -> Self {
        Self::Record
    }
}

#[derive(Debug, Default)]
pub(crate) struct Kept {
    /// Its identity, if still valid.
    pub identity: Option<Identity>,
    pub secrets: Option<KeptSecrets>,
}

impl Kept {
    /// Keeps `identity` unless there is one that is valid for longer. Returns whether it is kept.
    fn offer_identity(&mut self, identity: Identity) -> bool {
        let end = |identity: &Identity| identity.validity().not_after_ms;
        let is_newer = self.identity.as_ref().is_none_or(|other| end(&identity) >= end(other));
        if is_newer {
            self.identity = Some(identity);
        }
        is_newer
    }

    /// Keeps `secrets` unless there are some of a later revision, or lease. Returns whether they are kept.
    fn offer_secrets(&mut self, secrets: KeptSecrets) -> bool {
        let order = |secrets: &KeptSecrets| (secrets.generation.revision(), secrets.lease);
        let is_newer = self.secrets.as_ref().is_none_or(|other| order(&secrets) >= order(other));
        if is_newer {
            self.secrets = Some(secrets);
        }
        is_newer
    }
}

#[derive(Debug)]
pub(crate) struct KeptSecrets {
    pub devbox: String,
    pub generation: Generation,
    pub lease: BootTime,
}

/// The images of this daemon. Without a service manager, or without a keyring, each call does nothing.
#[derive(Debug)]
pub(crate) struct Store {
    memory: SecretMemory,
    server: String,
    keyring: Option<Keyring>,
    identity: Option<Slot>,
    secrets: Option<Slot>,
    view: Arc<StoreView>,
}

#[derive(Debug)]
struct Slot {
    kind: Kind,
    id: ImageId,
    key: ImageKey,
    until: BootTime,
    revision: Option<u64>,
}

impl Store {
    /// Opens the store and takes over the images that a predecessor left, if it ran on the same machine for the same server.
    /// `descriptors`: the images, by their names in the store. An image that cannot be taken over is logged and dropped.
    #[must_use]
    pub(crate) fn open(
        memory: &SecretMemory,
        server: &ServerUrl,
        descriptors: Vec<(String, OwnedFd)>,
    ) -> (Self, Kept) {
        let keyring = if std::env::var_os("NOTIFY_SOCKET").is_some() { keyring() } else { None };
        let (memory, server) = (memory.clone(), server.to_string());
        let mut store = Self { memory, server, keyring, identity: None, secrets: None, view: Arc::default() };
        let mut kept = Kept::default();
        for (name, descriptor) in descriptors {
            if let Err(error) = store.take_over(&name, descriptor, &mut kept) {
                warn!(name, "a predecessor's image is dropped: {}", chain(&error));
                store.drop_named(&name);
            }
        }
        (store, kept)
    }

    #[must_use]
    pub(crate) fn view(&self) -> Arc<StoreView> {
        Arc::clone(&self.view)
    }

    /// Drops secrets of another devbox than the one whose identity this daemon starts with.
    pub(crate) fn keep_only(&mut self, kept: &mut Kept, initial: &InitialIdentity) {
        let devbox = match initial {
            InitialIdentity::Ready(identity) => Some(identity.devbox_id()),
            InitialIdentity::Token(_) => None,
        };
        if kept.secrets.as_ref().is_some_and(|secrets| Some(secrets.devbox.as_str()) != devbox) {
            warn!("a predecessor's secrets are dropped: the identity that fetched them is gone");
            kept.secrets = None;
            self.forget_secrets();
        }
    }

    /// Stores `identity` for a successor until its certificate expires.
    pub(crate) fn keep_identity(&mut self, identity: &Identity) {
        // In boot time, because a change of the calendar clock must not revive an image.
        let until = BootTime::now() + identity.validity().left(now_ms());
        let notes = record::identity(&self.home(), identity).map_err(StoreError::from);
        let slot =
            notes.and_then(|notes| self.put(Kind::Identity, Parts { pages: &[], notes: &notes }, until));
        self.replace(Kind::Identity, slot);
    }

    /// Stores `generation` of `devbox` for a successor until `lease` expires.
    pub(crate) fn keep_secrets(&mut self, devbox: &str, generation: &Generation, lease: BootTime) {
        let notes = record::secrets(devbox, generation).map_err(StoreError::from);
        let slot = notes.and_then(|notes| {
            self.put(Kind::Secrets, Parts { pages: generation.strings(), notes: &notes }, lease)
        });
        let revision = Some(generation.revision());
        let slot = slot.map(|slot| slot.map(|slot| Slot { revision, ..slot }));
        self.replace(Kind::Secrets, slot);
    }

    pub(crate) fn renew_lease(&mut self, lease: BootTime) {
        if let Some(slot) = &mut self.secrets {
            slot.until = lease;
        }
        self.publish();
        self.tend();
    }

    /// Renews the images' keys. Call more often than every [`KEY_LIFE`](super::keyring::KEY_LIFE).
    pub(crate) fn tend(&self) {
        let Some(keyring) = &self.keyring else { return };
        for slot in [&self.identity, &self.secrets].into_iter().flatten().filter(|slot| !slot.is_over()) {
            if let Err(error) = keyring.put(&slot.id, &slot.key, slot.until) {
                warn!("a restart will need the control plane: {}", chain(&error));
            }
        }
    }

    pub(crate) fn forget_secrets(&mut self) {
        if let Some(slot) = self.secrets.take() {
            self.discard(&slot);
        }
        self.publish();
    }

    /// Removes secrets and identity. Their keys are gone when this returns.
    pub(crate) fn forget_everything(&mut self) {
        if let Some(slot) = self.identity.take() {
            self.discard(&slot);
        }
        self.forget_secrets();
    }

    /// Waits until the service manager has closed the removed images: pages of ciphertext, whose keys are gone already. Has no
    /// deadline.
    ///
    /// # Errors
    /// The service manager does not listen.
    pub(crate) async fn closed(&self) -> io::Result<()> {
        match self.keyring {
            Some(_) => service_manager::caught_up().await,
            None => Ok(()),
        }
    }

    fn put(&self, kind: Kind, parts: Parts<'_>, until: BootTime) -> Result<Option<Slot>, StoreError> {
        let Some(keyring) = &self.keyring else { return Ok(None) };
        let (slot, descriptor) = self.seal(kind, parts, until)?;
        // The key before the image: an image that was stored without a key would be useless.
        keyring.put(&slot.id, &slot.key, until)?;
        service_manager::store(&slot.name(), descriptor.as_fd()).map_err(StoreError::Notify)?;
        Ok(Some(slot))
    }

    fn seal(&self, kind: Kind, parts: Parts<'_>, until: BootTime) -> Result<(Slot, OwnedFd), StoreError> {
        let slot = Slot { kind, id: ImageId::generate()?, key: ImageKey::generate()?, until, revision: None };
        let fill = |image: &mut [u8]| parts.seal(kind, &slot.id, &slot.key, image);
        let descriptor = memfd::write(&self.memory, parts.image_len(), fill)?;
        Ok((slot, descriptor))
    }

    /// Replaces the image even if the new one could not be made: an old one must not be taken for the present state.
    fn replace(&mut self, kind: Kind, slot: Result<Option<Slot>, StoreError>) {
        let new = slot.unwrap_or_else(|error| {
            warn!("a restart will need the control plane: {}", chain(&error));
            None
        });
        if let Some(old) = std::mem::replace(self.slot(kind), new) {
            self.discard(&old);
        }
        self.publish();
    }

    fn publish(&self) {
        let identity = self.identity.as_ref().map(|slot| slot.until);
        let secrets = self.secrets.as_ref().and_then(|slot| Some((slot.revision?, slot.until)));
        self.view.holds(Images { identity, secrets });
    }

    fn slot(&mut self, kind: Kind) -> &mut Option<Slot> {
        match kind {
            Kind::Identity => &mut self.identity,
            Kind::Secrets => &mut self.secrets,
        }
    }

    fn discard(&self, slot: &Slot) {
        service_manager::remove(&slot.name());
        if let Some(keyring) = &self.keyring {
            keyring.forget(&slot.id);
        }
    }

    fn drop_named(&self, name: &str) {
        service_manager::remove(name);
        if let (Some(keyring), Some((_, id))) = (&self.keyring, parse_name(name)) {
            keyring.forget(&id);
        }
    }

    fn take_over(&mut self, name: &str, descriptor: OwnedFd, kept: &mut Kept) -> Result<(), StoreError> {
        let (kind, id) = parse_name(name).ok_or(StoreError::Record)?;
        let keyring = self.keyring.as_ref().ok_or(KeyringError::NoKey)?;
        let (key, until) = keyring.find(&id)?;
        // The kernel's timeout may be a moment late, and an expired lease is never revived.
        if until <= BootTime::now() {
            return Err(StoreError::Over);
        }
        let bytes = memfd::read(&self.memory, descriptor)?;
        let image = Image::parse(kind, &id, &bytes)?;
        // An identity's notes hold its private key.
        let mut notes = Zeroizing::new(vec![0; image.notes_len()]);
        image.open_notes(&key, &mut notes)?;
        let (is_newer, revision) = match kind {
            Kind::Identity => (kept.offer_identity(self.identity(&notes)?), None),
            Kind::Secrets => {
                let secrets = self.secrets(&image, &key, &notes, until)?;
                let revision = secrets.generation.revision();
                (kept.offer_secrets(secrets), Some(revision))
            }
        };
        // A predecessor that was killed between storing the new image and removing the old one left two, in any order.
        let slot = Slot { kind, id, key, until, revision };
        let older = if is_newer { self.slot(kind).replace(slot) } else { Some(slot) };
        older.iter().for_each(|older| self.discard(older));
        self.publish();
        Ok(())
    }

    /// Binds an identity to server and machine, so that a clone of the machine drops it.
    fn home(&self) -> String {
        format!("{} {}", self.server, machine::id().unwrap_or_default())
    }

    fn identity(&self, notes: &[u8]) -> Result<Identity, StoreError> {
        let record = IdentityRecord::read(notes)?;
        // Fail closed: another server, or a copy of the machine, must join by itself.
        if record.home != self.home() {
            return Err(StoreError::Foreign);
        }
        let key = PrivateKeyDer::try_from(record.key.to_vec()).map_err(|_| StoreError::Record)?;
        let identity = Identity::new(record.chain, key, record.ca)?.with_tried_tokens(record.tried);
        if identity.validity().has_expired(now_ms()) { Err(StoreError::Over) } else { Ok(identity) }
    }

    fn secrets(
        &self,
        image: &Image<'_>,
        key: &ImageKey,
        notes: &[u8],
        lease: BootTime,
    ) -> Result<KeptSecrets, StoreError> {
        let record = SecretsRecord::read(notes)?;
        let mut pages = Generation::blank(&self.memory, image.pages_len())?;
        image.open_pages(key, pages.bytes_mut())?;
        let generation = pages.described(record.revision, &record.variables).ok_or(StoreError::Record)?;
        Ok(KeptSecrets { devbox: record.devbox.to_owned(), generation, lease })
    }
}

impl Slot {
    fn is_over(&self) -> bool {
        self.until <= BootTime::now()
    }

    fn name(&self) -> String {
        format!("{}{}", prefix(self.kind), self.id)
    }
}

/// Whether a descriptor's name in the store is an image's.
#[must_use]
pub(crate) fn is_image(name: &str) -> bool {
    [Kind::Identity, Kind::Secrets].iter().any(|kind| name.starts_with(prefix(*kind)))
}

fn prefix(kind: Kind) -> &'static str {
    match kind {
        Kind::Identity => "identity.",
        Kind::Secrets => "secrets.",
    }
}

fn parse_name(name: &str) -> Option<(Kind, ImageId)> {
    [Kind::Identity, Kind::Secrets]
        .into_iter()
        .find_map(|kind| Some((kind, name.strip_prefix(prefix(kind))?.parse().ok()?)))
}

fn keyring() -> Option<Keyring> {
    Keyring::open().map_err(|error| warn!("a restart will need the control plane: {}", chain(&error))).ok()
}

#[cfg(test)]
mod tests;
