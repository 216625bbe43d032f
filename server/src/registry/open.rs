//! Opening a state: the check that this is its master key, and the devbox CA, made at the first
//! start.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use thiserror::Error;

use super::audit_limit::AuditLimiter;
use super::budgets::Rates;
use super::changes::Changes;
use super::expected::Expected;
use super::identity_sessions::IdentitySessions;
use super::in_flight::InFlight;
use super::{Parts, Registry, Settings};
use crate::crypto::{CryptoError, Keyring, MasterKey, MasterKeyError};
use crate::metrics::Metrics;
use crate::pki::{Authorities, CaError, CurrentAuthorities, DevboxCa, LoadError};
use crate::store::{Location, MetaKey, ServeClaim, StateError, Store, StoreError};

/// The plaintext of the key check's record.
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
        /// The reason.
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
    /// There is nothing to open.
    #[error("there is no state in {place}: `init` sets a new state up")]
    Empty {
        /// Where the state should be.
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
        /// The missing part.
        missing: &'static str,
    },
    /// A key could not be made.
    #[error("the state's keys could not be set up")]
    Crypto(#[from] CryptoError),
    /// The devbox CA could not be made or read.
    #[error("the devbox CA could not be set up")]
    Ca(#[from] CaError),
}

/// How far a program may change the state that it opens.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Access<'a> {
    /// Beside a server, perhaps of another version: the state is there, with this program's schema.
    Shared,
    /// Instead of every other server: an older schema is brought up to date.
    Owner(&'a ServeClaim),
    /// As [`Access::Owner`]; if there is no state, a new one is set up.
    Founder(&'a ServeClaim),
}

impl Access<'_> {
    fn may_begin(self) -> bool {
        matches!(self, Self::Founder(_))
    }
}

async fn open_store(
    state: &dyn Location,
    access: Access<'_>,
) -> Result<Result<Arc<dyn Store>, StoreError>, StateError> {
    Ok(match access {
        Access::Shared => state.open().await,
        Access::Owner(claim) => state.set_up(claim).await,
        Access::Founder(claim) => {
            state.prepare()?;
            state.set_up(claim).await
        }
    })
}

impl Registry {
    /// Opens the state in `state`, as far as `access` reaches. Waits while another program opens
    /// it.
    ///
    /// # Errors
    /// [`OpenError`]; nothing is written under a master key that is not the state's.
    pub(crate) async fn open(
        state: &dyn Location,
        master: MasterKey,
        settings: Settings,
        access: Access<'_>,
    ) -> Result<Self, OpenError> {
        // The lock covers opening and setting up, so that two processes do not both create a CA.
        let _lock = state.lock()?;
        let place = state.name();
        let store = match open_store(state, access).await? {
            Ok(store) => store,
            Err(source) => return Err(OpenError::Store { place, source }),
        };
        Self::over(store, place, master, settings, access.may_begin()).await
    }

    /// As [`Registry::open`] with the master key in the file `key`, which is made with a new state.
    ///
    /// # Errors
    /// [`OpenError`]; a state without its key gets no new one.
    pub(crate) async fn open_with_own_key(
        state: &dyn Location,
        key: &Path,
        settings: Settings,
        access: Access<'_>,
    ) -> Result<Self, OpenError> {
        // A new key could open no record of the existing state, so none is made.
        if state.has_state() && !key.exists() {
            return Err(OpenError::LostMasterKey { path: key.to_owned() });
        }
        let master = if access.may_begin() { MasterKey::load_or_create(key)? } else { MasterKey::load(key)? };
        Self::open(state, master, settings, access).await
    }

    /// Over any store, which is set up if it is empty and `may_begin`. `place` names it in errors;
    /// hold whatever keeps other programs from setting it up meanwhile.
    pub(crate) async fn over(
        store: Arc<dyn Store>,
        place: String,
        master: MasterKey,
        settings: Settings,
        may_begin: bool,
    ) -> Result<Self, OpenError> {
        let keyring = Keyring::new(master);
        let authorities = match store.meta(MetaKey::KeyCheck).await {
            Ok(Some(check)) => {
                let master = keyring.of(&check).unwrap_or_else(|| keyring.current());
                check_master_key(&master, &check, &place)?;
                load_authorities(&*store, &keyring, &settings, &place).await?
            }
            Ok(None) if !may_begin => return Err(OpenError::Empty { place }),
            Ok(None) => set_up(&*store, &keyring.current(), &settings, &place).await?,
            Err(source) => return Err(OpenError::Store { place, source }),
        };
        let metrics = Arc::<Metrics>::default();
        let changes = Changes::new(Arc::clone(&metrics));
        metrics.ca_ends(authorities.issuing().end_time());
        let authorities = Arc::new(CurrentAuthorities::new(authorities));
        let limits = settings.limits;
        Ok(Self(Arc::new(Parts {
            store,
            keyring,
            authorities,
            changes,
            sessions: IdentitySessions::default(),
            audit_limiter: AuditLimiter::default(),
            expected: Expected::default(),
            rates: Rates::default(),
            in_flight: InFlight::new(limits.bytes_in_flight, limits.bundle_bytes),
            limits: RwLock::new(limits),
            metrics,
            settings,
        })))
    }
}

fn check_master_key(master: &MasterKey, check: &[u8], place: &str) -> Result<(), OpenError> {
    match master.unwrap(KEY_CHECK_PURPOSE, check) {
        Ok(opened) if opened.expose_secret() == KEY_CHECK => Ok(()),
        _ => Err(OpenError::OtherMasterKey { place: place.to_owned() }),
    }
}

/// The master key that `store` is under, `master` or the one that a rotation put in its place, if
/// the key check and every devbox CA's key open under it.
pub(crate) async fn check_keys(
    store: &impl Store,
    master: MasterKey,
) -> Result<Option<Arc<MasterKey>>, StoreError> {
    let check =
        store.meta(MetaKey::KeyCheck).await?.ok_or(StoreError::Damaged("the key check is missing"))?;
    let keyring = Keyring::new(master);
    let Some(master) = keyring.of(&check) else { return Ok(None) };
    master.unwrap(KEY_CHECK_PURPOSE, &check).map_err(StoreError::Seal)?;
    // The trust domain does not matter for this check.
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
    let number = store.create_state(&check, ca.certificate_der(), &wrapped_key).await.map_err(failed)?;
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
