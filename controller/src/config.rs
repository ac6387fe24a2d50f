//! The controller's command line.

use std::{path::PathBuf, time::Duration};

use clap::{Args, Parser, ValueEnum};

/// Applies what Git says to the cluster it runs in, and unseals SealedSecrets on the way.
#[derive(Clone, Debug, Parser)]
#[command(name = "gitseal-controller", disable_version_flag = true)]
pub struct Config {
    /// Print the version and exit.
    #[arg(long)]
    pub version: bool,
    /// Kubeconfig file; KUBECONFIG, ~/.kube/config and the in-cluster configuration are tried without it.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the sealing keys; the controller's own.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// Folder for the Git objects of every Repository.
    #[arg(long, default_value = "/var/lib/gitseal", value_name = "DIR")]
    pub storage: PathBuf,
    /// Address of /healthz, /readyz and /v1/cert.pem.
    #[arg(long, default_value = ":8080", value_name = "ADDRESS")]
    pub listen_addr: String,
    /// Address of /metrics.
    #[arg(long, default_value = ":8081", value_name = "ADDRESS")]
    pub listen_metrics_addr: String,
    /// How many Syncs are worked on at a time.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrent: u16,
    /// How many objects are written at a time, by all Syncs together.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrent_writes: u16,
    /// What tenants may do.
    #[command(flatten)]
    pub tenancy: Tenancy,
    /// Sealing keys.
    #[command(flatten)]
    pub keys: Keys,
    /// What is logged: error, warn, info, debug, or a filter such as `info,controller::git=debug`.
    #[arg(long, default_value = "info", value_name = "FILTER")]
    pub log_level: String,
    /// How it is logged.
    #[arg(long, default_value = "text", value_name = "FORMAT")]
    pub log_format: LogFormat,
}

/// What tenants may do.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Tenancy")]
pub struct Tenancy {
    /// Allow `file://` repositories: every Sync's author can then read any Git repository on the controller's disk.
    #[arg(long)]
    pub allow_file_urls: bool,
    /// Allow a Sync to name a Repository of another namespace.
    #[arg(long)]
    pub allow_cross_namespace: bool,
    /// Service account that a Sync without `serviceAccountName` writes as, in the Sync's own namespace. Without it,
    /// such a Sync writes with the controller's own rights.
    #[arg(long, value_name = "NAME")]
    pub default_service_account: Option<String>,
}

/// Sealing keys.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sealing keys")]
pub struct Keys {
    /// Prefix of the names of sealing key Secrets.
    #[arg(long, default_value = "sealed-secrets-key", value_name = "PREFIX")]
    pub key_prefix: String,
    /// Size of new sealing keys.
    #[arg(long, default_value_t = 4096, value_name = "BITS", value_parser = key_size)]
    pub key_size: usize,
    /// How long the certificates of new sealing keys are valid.
    #[arg(long, default_value = "87600h0m0s", value_name = "DURATION", value_parser = duration)]
    pub key_ttl: Duration,
    /// Common name in the certificates of new sealing keys.
    #[arg(long, default_value = "", value_name = "NAME")]
    pub my_cn: String,
    /// Unseal `spec.data`, the deprecated first form of a SealedSecret.
    #[arg(long, default_value_t = true, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub accept_deprecated_v1_data: bool,
}

/// See [`Config::log_format`].
#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// One line for a person.
    Text,
    /// One JSON object a line.
    Json,
}

fn key_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bits @ (2048 | 3072 | 4096 | 8192)) => Ok(bits),
        _ => Err("2048, 3072, 4096 or 8192".into()),
    }
}

/// A duration as Go and Kubernetes write it: `300ms`, `1h30m`, `1.5h`.
pub fn duration(text: &str) -> Result<Duration, String> {
    let invalid = || format!("'{text}' is not a duration such as 30s, 5m or 1h30m");
    let mut rest = text;
    let mut seconds = 0.0;
    if rest.is_empty() {
        return Err(invalid());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let number: f64 = rest[..digits].parse().map_err(|_| invalid())?;
        rest = &rest[digits..];
        let unit_end = rest.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(rest.len());
        seconds += number
            * match &rest[..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return Err(invalid()),
            };
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| invalid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        Config::command().debug_assert();
    }

    #[test]
    fn durations_are_those_of_go() {
        assert_eq!(duration("87600h0m0s"), Ok(Duration::from_secs(87600 * 3600)));
        assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
        assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
        assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
        for bad in ["", "5", "m", "5d", "5m x", "-5m"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }
}
