//! The controller's command line.
//!
//! The flags that the Sealed Secrets controller has too have its names, defaults, spelling (that of Go's pflag) and
//! environment variables (`SEALED_SECRETS_` and the flag's name), so that the arguments of a Deployment stay as they are
//! when its image is swapped.

mod keys;
mod logs;
mod sealed_secrets;
#[cfg(test)]
mod tests;
mod values;

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, Parser};
use fields::Managers;

use self::values::{bool_of_go, memory_budget, timeout, trusted_proxies};
pub use self::{
    keys::{CutoffTime, Keys},
    logs::{LogFormat, Logs},
    sealed_secrets::SealedSecrets,
    values::{TrustedProxies, duration},
};

/// Applies what Git says to the cluster it runs in, and unseals SealedSecrets on the way.
#[derive(Clone, Debug, Parser)]
#[command(name = "gitseal-controller", disable_version_flag = true, args_override_self = true)]
pub struct Config {
    /// Print the version and exit.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true, value_parser = bool_of_go)]
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
    /// Memory for what is in Git while it is indexed, read and applied; the memory limit of the Pod has to be at least
    /// 192Mi larger.
    #[arg(long, default_value = "256Mi", value_name = "SIZE", value_parser = memory_budget)]
    pub memory_budget: u64,
    /// How many Syncs are worked on at a time. A namespace of which none is worked on does not wait for others, up to as
    /// many again.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrent: u16,
    /// How many objects are written at a time, by all Syncs together.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrent_writes: u16,
    /// Field managers that objects are taken over from when a Sync applies them for the first time, with commas between
    /// them: what they wrote and Git does not say goes. A `*` at the end stands for any ending; an empty list for nobody.
    #[arg(long, default_value = Managers::DEFAULT, value_name = "NAMES")]
    pub take_over_from: Managers,
    /// What tenants may do.
    #[command(flatten)]
    pub tenancy: Tenancy,
    /// Sealing keys.
    #[command(flatten)]
    pub keys: Keys,
    /// Several replicas.
    #[command(flatten)]
    pub election: crate::leader::ElectionFlags,
    /// SealedSecrets.
    #[command(flatten)]
    pub sealed_secrets: SealedSecrets,
    /// Connections to and from the controller.
    #[command(flatten)]
    pub network: Network,
    /// Logs.
    #[command(flatten)]
    pub logs: Logs,
}

impl Config {
    /// What is given and probably not meant, and what to do about it.
    pub fn warnings(&self) -> Vec<&'static str> {
        let rotate_period = "--rotate-period is deprecated: use --key-renew-period";
        let old_gc_behavior = "--old-gc-behavior has no effect: the garbage collector of Kubernetes deletes Secrets whose SealedSecret is gone";
        let short = "--key-ttl is shorter than --key-renew-period: kubeseal refuses a certificate that has expired";
        let mut warnings = Vec::new();
        warnings.extend(self.keys.rotate_period.map(|_| rotate_period));
        let is_short = self.keys.renew_period().is_some_and(|period| self.keys.key_ttl < period);
        warnings.extend(is_short.then_some(short));
        warnings.extend(self.sealed_secrets.old_gc_behavior.then_some(old_gc_behavior));
        warnings
    }
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

/// Connections to and from the controller.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Connections")]
pub struct Network {
    /// Address of /healthz, /readyz and /v1.
    #[arg(long, env = "SEALED_SECRETS_LISTEN_ADDR", default_value = ":8080", value_name = "ADDRESS")]
    pub listen_addr: String,
    /// Address of /healthz and /readyz alone, for the kubelet: what happens at --listen-addr is then no reason to restart
    /// the controller.
    #[arg(long, env = "GITSEAL_LISTEN_PROBES_ADDR", default_value = ":8082", value_name = "ADDRESS")]
    pub listen_probes_addr: String,
    /// Address of /metrics.
    #[arg(long, env = "SEALED_SECRETS_LISTEN_METRICS_ADDR", default_value = ":8081", value_name = "ADDRESS")]
    pub listen_metrics_addr: String,
    /// How long a client may take to send a request; 0 for no limit. Its head may take ten seconds at most.
    #[arg(long, env = "SEALED_SECRETS_READ_TIMEOUT", default_value = "2m0s", value_name = "DURATION",
        value_parser = timeout, allow_hyphen_values = true)]
    pub read_timeout: Duration,
    /// How long a client may take to read an answer; 0 for no limit.
    #[arg(long, env = "SEALED_SECRETS_WRITE_TIMEOUT", default_value = "2m0s", value_name = "DURATION",
        value_parser = timeout, allow_hyphen_values = true)]
    pub write_timeout: Duration,
    /// Requests a second to each of /v1/verify, /v1/rotate, /v1/which and /v1/keys, for each client.
    #[arg(long, env = "SEALED_SECRETS_RATE_LIMIT", default_value_t = 2, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_limit: u32,
    /// Requests beyond --rate-limit that may come at once.
    #[arg(long, env = "SEALED_SECRETS_RATE_LIMIT_BURST", default_value_t = 2, value_name = "N")]
    pub rate_limit_burst: u32,
    /// Addresses and networks (CIDR) of API servers, whose X-Forwarded-For says who the client is: NETWORK,… or `none`.
    /// `auto` takes the addresses of the Service kubernetes, which are not the ones that API servers connect from in every
    /// cluster. Everybody else is known by the address that connects.
    #[arg(long, env = "GITSEAL_TRUSTED_PROXIES", default_value = "auto", value_name = "NETWORKS",
        value_parser = trusted_proxies)]
    pub trusted_proxies: TrustedProxies,
    /// Requests a second to the API server. Without it, or below zero, there is no limit but the API server's own.
    #[arg(long, env = "SEALED_SECRETS_KUBECLIENT_QPS", value_name = "N", allow_hyphen_values = true)]
    pub kubeclient_qps: Option<f32>,
    /// Requests to the API server that may go out at once under --kubeclient-qps; 10 without it.
    #[arg(long, env = "SEALED_SECRETS_KUBECLIENT_BURST", value_name = "N", allow_hyphen_values = true)]
    pub kubeclient_burst: Option<i32>,
}
