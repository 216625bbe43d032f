//! `check`, `backup`, `restore` and `keys`: what is about the whole state.

use std::path::Path;

use super::{Failure, absolute, load, print_line};
use crate::app::{self, KeyPolicy};
use crate::cli::Place;
use crate::config::{Config, StateConfig};
use crate::crypto::MasterKey;
use crate::registry::Settings;
use crate::{operator, tls, upkeep};

pub(super) async fn init(place: &Place) -> Result<(), Failure> {
    let (state, settings, keys) = match &place.config {
        Some(_) => {
            let config = load(place)?;
            let settings = app::settings(&config);
            (config.state, settings, KeyPolicy::Load)
        }
        None => (state(place)?, Settings::default(), KeyPolicy::Own),
    };
    app::init(&state, settings, keys).await.map_err(Failure::Start)?;
    print_line(format!("the state in {} is set up\n", state.directory.display()).as_bytes())
}

pub(super) async fn check(place: &Place, deep: bool) -> Result<(), Failure> {
    if place.config.is_some() {
        check_configuration(&load(place)?)?;
    }
    if place.config.is_none() || deep {
        check_state(&state(place)?).await?;
    }
    Ok(())
}

/// Reads the configuration's files and no database: it takes no longer when the state grows.
fn check_configuration(config: &Config) -> Result<(), Failure> {
    if let Some(files) = &config.api.tls {
        tls::check_public(files).map_err(Failure::Tls)?;
    }
    MasterKey::load(&config.state.master_key_file).map_err(Failure::MasterKey)?;
    print_line(b"the configuration is good\n")?;
    match config.state.has_state() {
        true => Ok(()),
        false => print_line(b"there is no state yet: `init` sets it up\n"),
    }
}

async fn check_state(state: &StateConfig) -> Result<(), Failure> {
    let summary = upkeep::check(state).await.map_err(Failure::Upkeep)?;
    print_line(format!("the state is good: {summary}\n").as_bytes())
}

pub(super) async fn backup(place: &Place, to: &Path) -> Result<(), Failure> {
    upkeep::backup(&state(place)?, to, &operator::actor()).await.map_err(Failure::Upkeep)?;
    print_line(
        format!("wrote {}: the master key is not in it, back that up elsewhere\n", to.display()).as_bytes(),
    )
}

pub(super) async fn restore(place: &Place, from: &Path) -> Result<(), Failure> {
    let summary = upkeep::restore(&state(place)?, from, &operator::actor()).await.map_err(Failure::Upkeep)?;
    let line = format!("restored {summary}: revoke again what was revoked since the backup\n");
    print_line(line.as_bytes())
}

pub(super) async fn rotate(place: &Place, new: &Path, rekey: bool) -> Result<(), Failure> {
    let (state, new, actor) = (state(place)?, absolute(new)?, operator::actor());
    let done = if rekey {
        let rekeyed = upkeep::rotate_and_rekey(&state, &new, &actor).await.map_err(Failure::Upkeep)?;
        format!("made {} account keys and sealed {} values anew", rekeyed.0, rekeyed.1)
    } else {
        let count = upkeep::rotate(&state, &new, &actor).await.map_err(Failure::Upkeep)?;
        format!("wrapped {count} records anew")
    };
    let line = format!(
        "{done}: back {} up and remove it there; keep the old key as long as backups from before\n",
        new.display()
    );
    print_line(line.as_bytes())
}

pub(super) fn make_master_key(place: &Place) -> Result<(), Failure> {
    let config = load(place)?;
    MasterKey::create(&config.state.master_key_file).map_err(Failure::NoMasterKeyMade)?;
    print_line(format!("made {}: back it up\n", config.state.master_key_file.display()).as_bytes())
}

/// Where the state is, by configuration or directory.
fn state(place: &Place) -> Result<StateConfig, Failure> {
    match (&place.config, &place.state) {
        (Some(_), _) => Ok(load(place)?.state),
        (None, Some(directory)) => Ok(StateConfig::in_directory(&absolute(directory)?)),
        (None, None) => Err(Failure::Place("--config FILE or --state DIR")),
    }
}
