//! Flags about logs.

use clap::{ArgAction, Args, ValueEnum};
use tracing_subscriber::EnvFilter;

use super::values::bool_of_go;

/// What is logged, in which format, and where.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Logs")]
pub struct Logs {
    /// What is logged: ERROR, WARN, INFO, DEBUG, or a filter such as `info,controller::git=debug`.
    #[arg(long, env = "SEALED_SECRETS_LOG_LEVEL", default_value = "INFO", value_name = "FILTER", value_parser = level)]
    pub log_level: String,
    /// Format of the log.
    #[arg(long, env = "SEALED_SECRETS_LOG_FORMAT", default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
    /// Log warnings and errors to standard error, and the rest to standard output. If false, log everything to standard
    /// error.
    #[arg(long, env = "SEALED_SECRETS_LOG_INFO_STDOUT", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = bool_of_go)]
    pub log_info_stdout: bool,
}

/// See [`Logs::log_format`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// Lines for people.
    Text,
    /// One JSON object per line.
    Json,
}

/// Reads a log filter. It may also be a level as in Go's `log/slog`: `INFO`, `warn`, `ERROR-4`.
fn level(text: &str) -> Result<String, String> {
    let name_end = text.find(['+', '-']).unwrap_or(text.len());
    let (name, offset) = text.split_at(name_end);
    let base = match name.to_ascii_uppercase().as_str() {
        "DEBUG" => Some(-4_i32),
        "INFO" => Some(0),
        "WARN" => Some(4),
        "ERROR" => Some(8),
        _ => None,
    };
    let offset = if offset.is_empty() { Some(0) } else { offset.parse::<i32>().ok() };
    let filter = match (base, offset) {
        // A level between two of these levels means the more severe one.
        (Some(base), Some(offset)) => match base.saturating_add(offset) {
            ..=-5 => "trace",
            -4 => "debug",
            -3..=0 => "info",
            1..=4 => "warn",
            5..=8 => "error",
            9.. => "off",
        },
        _ => text,
    };
    EnvFilter::try_new(filter).map_err(|error| error.to_string())?;
    Ok(filter.into())
}
