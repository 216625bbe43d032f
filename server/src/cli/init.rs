//! `init`: creates the state, or migrates an older one to the current schema.

use super::output::print_line;
use super::{Failure, StateArgs};
use crate::app::{self, KeyPolicy};
use crate::registry::Settings;

pub(super) async fn run(state: &StateArgs) -> Result<(), Failure> {
    let (location, settings, keys) = match &state.config {
        Some(_) => {
            let config = state.config()?;
            let settings = app::settings(&config);
            (config.state, settings, KeyPolicy::Load)
        }
        None => (state.location()?, Settings::default(), KeyPolicy::Own),
    };
    app::init(&location, settings, keys).await.map_err(Failure::Start)?;
    print_line(format!("the state in {} is set up\n", location.directory.display()).as_bytes())
}
