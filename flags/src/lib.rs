//! The controller's command line.
//!
//! Flags that the Sealed Secrets controller has, too, have the same names, defaults, spelling (that of Go's pflag) and
//! environment variables (`SEALED_SECRETS_` and the flag's name). So the arguments of a Deployment need no change when
//! its image is replaced.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod election;
mod keys;
mod logs;
mod sealed_secrets;
#[cfg(test)]
mod tests;
mod values;

use std::{path::PathBuf, time::Duration};

use clap::{ArgAction, Args, CommandFactory as _, Parser};
use fields::Managers;

pub use self::values::bytes;
use self::values::{bool_of_go, budget, renderer_memory, timeout, trusted_proxies};
pub use self::{
    election::ElectionFlags,
    keys::{CutoffTime, KeyOrder, Keys},
    logs::{LogFormat, Logs},
    sealed_secrets::SealedSecrets,
    values::{TrustedProxies, duration},
};

/// Applies what is in Git to the cluster that it runs in, and unseals SealedSecrets.
#[derive(Clone, Debug, Parser)]
#[command(name = "gitseal-controller", disable_version_flag = true, args_override_self = true, max_term_width = 80)]
pub struct Config {
    /// Print the version and exit.
    #[arg(long, action = ArgAction::Set, num_args = 0..=1, require_equals = true, default_value_t = false,
        default_missing_value = "true", hide_default_value = true, hide_possible_values = true, value_parser = bool_of_go)]
    pub version: bool,
    /// Kubeconfig file. Default: $KUBECONFIG, ~/.kube/config, or the in-cluster configuration.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// Namespace of the sealing keys. Default: the controller's own namespace.
    #[arg(long, env = "POD_NAMESPACE", value_name = "NAME")]
    pub namespace: Option<String>,
    /// Folder for the Git objects of all Repositories.
    #[arg(long, default_value = "/var/lib/gitseal", value_name = "DIR")]
    pub storage: PathBuf,
    /// Memory for the contents of Git repositories while they are unpacked, read and applied. The memory limit of the
    /// Pod must be at least the sum of this budget, twice --renderer-memory, and 192Mi.
    #[arg(long, default_value = "256Mi", value_name = "SIZE", value_parser = budget)]
    pub memory_budget: u64,
    /// Memory for each of the two processes that render Kustomizations and charts. The processes are started when they
    /// are needed. The memory limit of the Pod must have room for both.
    #[arg(long, default_value = "288Mi", value_name = "SIZE", value_parser = renderer_memory)]
    pub renderer_memory: u64,
    /// Program that renders Kustomizations and charts. Default: gitseal-renderer in the folder of the controller.
    #[arg(long, value_name = "FILE")]
    pub renderer: Option<PathBuf>,
    /// How many Syncs are reconciled at the same time. When this number is reached, up to the same number of further
    /// Syncs are reconciled, but only in namespaces in which no Sync is being reconciled.
    #[arg(long, default_value_t = 16, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrent: u16,
    /// How many objects are written at the same time, by all Syncs together.
    #[arg(long, default_value_t = 32, value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    pub concurrent_writes: u16,
    /// Field managers whose objects are taken over when a Sync applies them for the first time, separated by commas:
    /// fields that they wrote and that are not in Git are removed. A name may end in `*`, which stands for any text. An
    /// empty list takes nothing over. Default: kubectl, kubectl-*, helm, helm-controller, kustomize-controller,
    /// argocd-controller, argocd-application-controller.
    #[arg(long, default_value = Managers::DEFAULT, hide_default_value = true, value_name = "NAMES")]
    pub take_over_from: Managers,
    /// What tenants may do.
    #[command(flatten)]
    pub tenancy: Tenancy,
    /// Sealing keys.
    #[command(flatten)]
    pub keys: Keys,
    /// Several replicas.
    #[command(flatten)]
    pub election: ElectionFlags,
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
    /// Warnings about flags that are deprecated, have no effect, or do not fit together, with what to do about them.
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

/// How many processes render at the same time.
pub const RENDERERS: u64 = 2;

/// Checks that the controller starts with these arguments. Environment variables, which may set flags as well, are
/// not looked at.
///
/// # Errors
/// The controller would refuse an argument. The error says why in one line, with the words of the controller itself.
pub fn check(arguments: &[String]) -> Result<(), String> {
    let command = Config::command().disable_help_flag(true).mut_args(|argument| argument.env(None::<&str>));
    let given = std::iter::once("gitseal-controller").chain(arguments.iter().map(String::as_str));
    let text = match command.try_get_matches_from(given) {
        Ok(given) if given.get_one("version") == Some(&true) => {
            return Err("with --version, the controller only prints its version and ends".into());
        }
        Ok(_) => return Ok(()),
        Err(error) => error.to_string(),
    };
    let is_usage = |line: &&str| line.starts_with("Usage:") || line.starts_with("For more");
    let reasons: Vec<_> =
        text.lines().map(str::trim).take_while(|line| !is_usage(line)).filter(|line| !line.is_empty()).collect();
    Err(reasons.join("; ").trim_start_matches("error: ").to_owned())
}

/// How much memory a controller with these arguments may take for its work on repositories, in bytes:
/// `--memory-budget`, and what the processes that render may take. `None` if the controller would refuse the arguments.
pub fn memory(arguments: &[String]) -> Option<u64> {
    let command = Config::command().disable_help_flag(true).mut_args(|argument| argument.env(None::<&str>));
    let given = std::iter::once("gitseal-controller").chain(arguments.iter().map(String::as_str));
    let given = command.try_get_matches_from(given).ok()?;
    let (budget, renderer): (&u64, &u64) = (given.get_one("memory_budget")?, given.get_one("renderer_memory")?);
    Some(budget.saturating_add(renderer.saturating_mul(RENDERERS)))
}

/// What tenants may do.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Tenancy")]
pub struct Tenancy {
    /// Allow `file://` repositories. Everybody who may create a Repository can then read any Git repository on the
    /// controller's disk.
    #[arg(long)]
    pub allow_file_urls: bool,
    /// Allow Syncs to name Repositories and dependencies of other namespaces.
    #[arg(long)]
    pub allow_cross_namespace: bool,
    /// Service account of Syncs without `serviceAccountName`, in the Sync's own namespace. Without this flag, such
    /// Syncs write with the controller's own rights.
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
    /// Address with only /healthz and /readyz, for the kubelet. So problems at --listen-addr do not restart the
    /// controller.
    #[arg(long, env = "GITSEAL_LISTEN_PROBES_ADDR", default_value = ":8082", value_name = "ADDRESS")]
    pub listen_probes_addr: String,
    /// Address of /metrics.
    #[arg(long, env = "SEALED_SECRETS_LISTEN_METRICS_ADDR", default_value = ":8081", value_name = "ADDRESS")]
    pub listen_metrics_addr: String,
    /// How long a client may take to send a request; 0 for no limit. The headers may take ten seconds at most.
    #[arg(long, env = "SEALED_SECRETS_READ_TIMEOUT", default_value = "2m0s", value_name = "DURATION",
        value_parser = timeout, allow_hyphen_values = true)]
    pub read_timeout: Duration,
    /// How long a client may take to read an answer; 0 for no limit.
    #[arg(long, env = "SEALED_SECRETS_WRITE_TIMEOUT", default_value = "2m0s", value_name = "DURATION",
        value_parser = timeout, allow_hyphen_values = true)]
    pub write_timeout: Duration,
    /// How many requests per second a client may send to each of /v1/verify, /v1/rotate, /v1/which and /v1/keys.
    #[arg(long, env = "SEALED_SECRETS_RATE_LIMIT", default_value_t = 2, value_name = "N",
        value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_limit: u32,
    /// How many requests beyond --rate-limit may come at once.
    #[arg(long, env = "SEALED_SECRETS_RATE_LIMIT_BURST", default_value_t = 2, value_name = "N")]
    pub rate_limit_burst: u32,
    /// Addresses and networks (CIDR) of API servers: NETWORK,…, `none` or `auto`. On connections from these
    /// addresses, the client is the one that X-Forwarded-For names; on all other connections, it is the address that
    /// connects. `auto` means the addresses behind the Service kubernetes; in some clusters, API servers connect from
    /// other addresses.
    #[arg(long, env = "GITSEAL_TRUSTED_PROXIES", default_value = "auto", value_name = "NETWORKS",
        value_parser = trusted_proxies)]
    pub trusted_proxies: TrustedProxies,
    /// How many requests per second the controller may send to the API server. Without this flag, or if N is negative,
    /// there is no limit.
    #[arg(long, env = "SEALED_SECRETS_KUBECLIENT_QPS", value_name = "N", allow_hyphen_values = true)]
    pub kubeclient_qps: Option<f32>,
    /// How many requests may be sent to the API server at once before --kubeclient-qps limits their rate; 10 by
    /// default.
    #[arg(long, env = "SEALED_SECRETS_KUBECLIENT_BURST", value_name = "N", allow_hyphen_values = true)]
    pub kubeclient_burst: Option<i32>,
}
