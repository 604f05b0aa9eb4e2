//! `config show`, `config check`: what a node started here and now would work with.

use triad_server::config::{ConfigError, Loaded, Loader};

use crate::args::{ConfigCommand, SettingArgs};
use crate::exit::{Exit, Failure};
use crate::output::{Console, json, text};

pub(super) fn run(command: &ConfigCommand, console: Console) -> Result<Exit, Failure> {
    match command {
        ConfigCommand::Show { origin, settings } => {
            let loaded = load(settings)?;
            console.result(&json::settings(&loaded.settings), || {
                text::settings(&loaded.settings, *origin)
            })?;
        }
        ConfigCommand::Check { settings } => check(settings, console)?,
    }
    Ok(Exit::Ok)
}

/// Succeeds, saying so, or fails with everything that is wrong.
pub(super) fn check(settings: &SettingArgs, console: Console) -> Result<(), Failure> {
    load(settings)?;
    console.result(&json::Done { ok: true }, || "OK\n".to_owned())
}

/// Defaults, file, environment and flags of this process.
pub(super) fn load(settings: &SettingArgs) -> Result<Loaded, Failure> {
    let mut loader = Loader::new().process_env();
    if let Some(path) = &settings.config {
        loader = loader.file(path);
    }
    for (key, value) in settings.flags() {
        loader = loader.flag(key, value);
    }
    loader.load().map_err(|error| failure(&error))
}

pub(super) fn failure(error: &ConfigError) -> Failure {
    Failure::usage(error.to_string())
}
