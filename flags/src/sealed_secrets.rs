//! The controller's flags for how SealedSecrets are unsealed.

use clap::{ArgAction, Args};

use super::values::{bool_of_go, names};

/// Which SealedSecrets are unsealed, and how.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "SealedSecrets")]
pub struct SealedSecrets {
    /// Unseal in every namespace. If false, unseal only in the controller's own namespace and in those of
    /// --additional-namespaces.
    #[arg(long, env = "SEALED_SECRETS_ALL_NAMESPACES", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = bool_of_go)]
    pub all_namespaces: bool,
    /// Unseal only in the controller's own namespace and in these, even with --all-namespaces: NAME,…
    #[arg(long, env = "SEALED_SECRETS_ADDITIONAL_NAMESPACES", default_value = "", value_name = "NAMES",
        value_parser = names)]
    // For a field of type `Vec`, clap collects several values. The full path hides the type from clap, so the text is
    // one value, and `names` splits it.
    pub additional_namespaces: std::vec::Vec<String>,
    /// Unseal only SealedSecrets with these labels: a selector, written as for kubectl.
    #[arg(long, env = "SEALED_SECRETS_LABEL_SELECTOR", default_value = "", value_name = "SELECTOR")]
    pub label_selector: String,
    /// If a Secret was deleted or changed, leave it as it is until its SealedSecret changes.
    #[arg(long, env = "SEALED_SECRETS_SKIP_RECREATE", default_value_t = false, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = bool_of_go)]
    pub skip_recreate: bool,
    /// Write the status of SealedSecrets.
    #[arg(long, env = "SEALED_SECRETS_UPDATE_STATUS", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = bool_of_go)]
    pub update_status: bool,
    /// How many times a SealedSecret that cannot be unsealed is tried again, with growing pauses. By default without
    /// limit.
    #[arg(long, env = "SEALED_SECRETS_MAX_UNSEAL_RETRIES", value_name = "N", value_parser = retries,
        allow_hyphen_values = true)]
    pub max_unseal_retries: Option<u32>,
    /// Leave the names of SealedSecrets out of the metrics.
    #[arg(long, env = "SEALED_SECRETS_METRICS_OMIT_SECRET_LABELS", default_value_t = false, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = bool_of_go)]
    pub metrics_omit_secret_labels: bool,
    /// No effect: new sealing keys are always noticed, whoever makes them.
    #[arg(long, env = "SEALED_SECRETS_WATCH_FOR_SECRETS", default_value_t = false, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = bool_of_go)]
    pub watch_for_secrets: bool,
    /// No effect: Kubernetes deletes the Secret of a deleted SealedSecret.
    #[arg(long, env = "SEALED_SECRETS_OLD_GC_BEHAVIOR", default_value_t = false, action = ArgAction::Set, hide = true,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = bool_of_go)]
    pub old_gc_behavior: bool,
}

/// As in Sealed Secrets, a number below zero means no retries.
fn retries(text: &str) -> Result<u32, String> {
    let number: i64 = text.parse().map_err(|_| "a whole number".to_owned())?;
    Ok(u32::try_from(number.max(0)).unwrap_or(u32::MAX))
}
