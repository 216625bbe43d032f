//! Opening a state: the check that this is its master key, and the devbox CA, made at the first start.

use std::path::PathBuf;
use std::sync::Arc;

use thiserror::Error;

use super::authorities::{Authorities, InUse, LoadError};
use super::changes::Changes;
use super::keyring::Keyring;
use super::notices::Notices;
use super::places::Places;
use super::{CaError, DevboxCa, Parts, Registry, Settings};
use crate::crypto::{CryptoError, MasterKey, MasterKeyError};
use crate::metrics::Metrics;
use crate::store::{MetaKey, SqliteStore, StateDirectory, StateError, Store, StoreError};

/// What the key check's record holds.
const KEY_CHECK: &[u8] = b"devbox-secrets";

pub(super) const KEY_CHECK_PURPOSE: &str = "master key check";

/// Why a state cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// The state directory cannot be used.
    #[error(transparent)]
    State(#[from] StateError),
    /// The master key cannot be used.
    #[error(transparent)]
    MasterKey(#[from] MasterKeyError),
    /// The database cannot be used.
    #[error("the state in {place} cannot be opened")]
    Store {
        /// Where the state is.
        place: String,
        /// What went wrong.
        #[source]
        source: StoreError,
    },
    /// The state belongs to another master key.
    #[error(
        "the state in {place} was written under another master key: restore that key's file from its backup \
         (without it the values are lost; nothing was changed)"
    )]
    OtherMasterKey {
        /// Where the state is.
        place: String,
    },
    /// The state is there, its master key is not.
    #[error(
        "there is a state but no master key {path}: restore the file from its backup (nothing was changed)"
    )]
    LostMasterKey {
        /// Where the key should be.
        path: PathBuf,
    },
    /// The state lacks a part that is written at the first start.
    #[error("the state in {place} is damaged ({missing} is missing): restore it from a backup")]
    Damaged {
        /// Where the state is.
        place: String,
        /// What is missing.
        missing: &'static str,
    },
    /// A key could not be made.
    #[error("the state's keys could not be set up")]
    Crypto(#[from] CryptoError),
    /// The devbox CA could not be made or read.
    #[error("the devbox CA could not be set up")]
    Ca(#[from] CaError),
}

impl Registry {
    /// Opens the SQLite state in `state`, and sets it up at the first start. Waits while another program does.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is written under a master key that is not the state's.
    pub async fn open(
        state: &StateDirectory,
        master: MasterKey,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let _lock = state.lock()?;
        state.touch_database()?;
        let place = state.path().display().to_string();
        let store = match SqliteStore::open(state).await {
            Ok(store) => Arc::new(store),
            Err(source) => return Err(OpenError::Store { place, source }),
        };
        Self::over(store, place, master, settings).await
    }

    /// As [`Registry::open`] with the master key inside `state`, made at the first start.
    ///
    /// # Errors
    /// [`OpenError`]; a state without its key gets no new one.
    pub async fn open_with_own_key(state: &StateDirectory, settings: Settings) -> Result<Self, OpenError> {
        let path = state.master_key();
        if state.has_database() && !path.exists() {
            return Err(OpenError::LostMasterKey { path });
        }
        Self::open(state, MasterKey::load_or_create(&path)?, settings).await
    }

    /// Over any store. `place` names it in errors; hold whatever keeps other programs from setting it up meanwhile.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn over(
        store: Arc<dyn Store>,
        place: String,
        master: MasterKey,
        settings: Settings,
    ) -> Result<Self, OpenError> {
        let keyring = Keyring::new(master);
        let authorities = match store.meta(MetaKey::KeyCheck).await {
            Ok(Some(check)) => {
                let master = keyring.of(&check).unwrap_or_else(|| keyring.current());
                check_master_key(&master, &check, &place)?;
                load_authorities(&*store, &keyring, &settings, &place).await?
            }
            Ok(None) => set_up(&*store, &keyring.current(), &settings, &place).await?,
            Err(source) => return Err(OpenError::Store { place, source }),
        };
        let metrics = Arc::<Metrics>::default();
        let changes = Changes::new(Arc::clone(&metrics));
        metrics.ca_ends(authorities.issuing().end_time());
        let authorities = InUse::new(authorities);
        let (places, notices) = (Places::default(), Notices::default());
        Ok(Self(Arc::new(Parts { store, keyring, authorities, changes, places, notices, metrics, settings })))
    }
}

fn check_master_key(master: &MasterKey, check: &[u8], place: &str) -> Result<(), OpenError> {
    match master.unwrap(KEY_CHECK_PURPOSE, check) {
        Ok(opened) if opened.expose_secret() == KEY_CHECK => Ok(()),
        _ => Err(OpenError::OtherMasterKey { place: place.to_owned() }),
    }
}

/// The master key that `store` is under, `master` or the one that a rotation put in its place, if the key check and
/// every devbox CA's key open under it.
pub(crate) async fn check_keys(
    store: &impl Store,
    master: MasterKey,
) -> Result<Option<Arc<MasterKey>>, StoreError> {
    let check =
        store.meta(MetaKey::KeyCheck).await?.ok_or(StoreError::Damaged("the key check is missing"))?;
    let keyring = Keyring::new(master);
    let Some(master) = keyring.of(&check) else { return Ok(None) };
    master.unwrap(KEY_CHECK_PURPOSE, &check).map_err(StoreError::Seal)?;
    // Which trust domain they issue for is no matter here.
    match Authorities::load(store.authorities().await?, &keyring, "") {
        Ok(_) => Ok(Some(master)),
        Err(LoadError::NoneIssues) => Err(StoreError::Damaged("the devbox CA is missing")),
        Err(LoadError::Ca(CaError::Crypto(error))) => Err(StoreError::Seal(error)),
        Err(LoadError::Ca(CaError::Certificate(_))) => Err(StoreError::Damaged("a devbox CA's certificate")),
    }
}

async fn set_up(
    store: &dyn Store,
    master: &MasterKey,
    settings: &Settings,
    place: &str,
) -> Result<Authorities, OpenError> {
    let (ca, wrapped_key) = DevboxCa::create(master, &settings.trust_domain)?;
    let check = master.wrap(KEY_CHECK_PURPOSE, KEY_CHECK)?;
    let failed = |source| OpenError::Store { place: place.to_owned(), source };
    let number = store.begin_state(&check, ca.certificate_der(), &wrapped_key).await.map_err(failed)?;
    Ok(Authorities::first(ca, number))
}

async fn load_authorities(
    store: &dyn Store,
    keyring: &Keyring,
    settings: &Settings,
    place: &str,
) -> Result<Authorities, OpenError> {
    let stored = store.authorities().await;
    let stored = stored.map_err(|source| OpenError::Store { place: place.to_owned(), source })?;
    Authorities::load(stored, keyring, &settings.trust_domain).map_err(|error| match error {
        LoadError::NoneIssues => {
            OpenError::Damaged { place: place.to_owned(), missing: "the devbox CA that issues" }
        }
        LoadError::Ca(error) => OpenError::Ca(error),
    })
}
