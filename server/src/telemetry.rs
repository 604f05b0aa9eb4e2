//! Logs: structured events from `tracing`, written to stderr as text for people or JSON for machines.
//!
//! stdout is never touched: it belongs to the data that commands print.

use std::io::IsTerminal;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::EnvFilter;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

use crate::config::{LogFormat, Telemetry};

/// Why logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// `telemetry.log_level` is not a filter. Nothing was changed.
    #[error("telemetry.log_level: {0}")]
    Filter(String),
    /// This process already has a global subscriber; it stays.
    #[error("logging is already set up: {0}")]
    AlreadySet(#[from] TryInitError),
}

/// Sends this process's events to stderr as `settings` say. Once per process: all nodes of one process share it.
///
/// Colours only on a terminal, and not when `NO_COLOR` is set to anything.
///
/// # Errors
/// The filter is malformed, or logging is already set up.
pub fn init(settings: &Telemetry) -> Result<(), TelemetryError> {
    let filter = parse_filter(&settings.log_level).map_err(TelemetryError::Filter)?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match settings.log_format {
        LogFormat::Json => builder.json().flatten_event(true).finish().try_init()?,
        LogFormat::Text => {
            let no_color = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
            builder.with_ansi(std::io::stderr().is_terminal() && !no_color).finish().try_init()?;
        }
    }
    Ok(())
}

/// Reads a filter such as `info` or `warn,triad_server::peers=debug`.
///
/// A bare word must be a level: the filter language would take `debgu` for a module's name and then log nothing at
/// all.
pub(crate) fn parse_filter(text: &str) -> Result<EnvFilter, String> {
    const EXPECTED: &str =
        "expected off, error, warn, info, debug, trace, or module=level, separated by commas";
    let directives: Vec<&str> = text.split(',').map(str::trim).collect();
    for directive in &directives {
        let level = directive.rsplit_once('=').map_or(*directive, |(_, level)| level);
        if level.is_empty() || level.parse::<LevelFilter>().is_err() {
            return Err(format!("{level:?} is not a level: {EXPECTED}"));
        }
    }
    EnvFilter::builder().parse(directives.join(",")).map_err(|error| format!("{error}: {EXPECTED}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn levels_and_levels_by_module_are_filters_and_anything_else_is_explained() {
        for good in ["info", "OFF", "warn,triad_server=debug", "info, triad_ring::join=trace"] {
            assert!(parse_filter(good).is_ok(), "{good}");
        }
        for bad in ["", "loud", "info,", "triad_server=loud"] {
            let problem = parse_filter(bad).unwrap_err();
            assert!(
                problem.contains("expected off, error, warn, info, debug, trace"),
                "{bad}: {problem}"
            );
        }
    }
}
