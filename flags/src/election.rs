//! Flags for several replicas.

use clap::{ArgAction, Args};

/// Flags for several replicas.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Replicas")]
pub struct ElectionFlags {
    /// Work only while holding the lease; the other replicas stand by. If you set it to false, run only one replica.
    #[arg(long, default_value_t = true, action = ArgAction::Set, num_args = 0..=1, require_equals = true,
        default_missing_value = "true", value_name = "BOOL")]
    pub leader_elect: bool,
    /// Name of the lease, in the controller's namespace.
    #[arg(long, default_value = "gitseal-controller", value_name = "NAME")]
    pub leader_elect_lease_name: String,
    /// Name of this replica; default: the host name. Two replicas must never have the same name. A replica that
    /// restarts under its old name leads again at once.
    #[arg(long, env = "POD_NAME", value_name = "NAME")]
    pub leader_elect_identity: Option<String>,
}
