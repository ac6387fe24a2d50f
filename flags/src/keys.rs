//! Flags about sealing keys.

use std::{collections::BTreeMap, time::Duration};

use clap::{ArgAction, Args};
use crds::names;
use jiff::{Timestamp, fmt::rfc2822::DateTimeParser};

use super::values::{bool_of_go, duration, pairs};

/// Sealing keys.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sealing keys")]
pub struct Keys {
    /// Prefix of the names of sealing key Secrets.
    #[arg(long, env = "SEALED_SECRETS_KEY_PREFIX", default_value = names::KEY_PREFIX, value_name = "PREFIX",
        value_parser = key_prefix)]
    pub key_prefix: String,
    /// Size of new sealing keys.
    #[arg(long, env = "SEALED_SECRETS_KEY_SIZE", default_value_t = 4096, value_name = "BITS", value_parser = key_size)]
    pub key_size: usize,
    /// How long certificates of new sealing keys are valid.
    #[arg(long, env = "SEALED_SECRETS_KEY_TTL", default_value = "87600h0m0s", value_name = "DURATION",
        value_parser = key_ttl, allow_hyphen_values = true)]
    pub key_ttl: Duration,
    /// Common name in certificates of new sealing keys.
    #[arg(long, env = "SEALED_SECRETS_MY_CN", default_value = "", value_name = "NAME")]
    pub my_cn: String,
    /// Age of the newest key at which a new one is made; 0 for never.
    #[arg(long, env = "SEALED_SECRETS_KEY_RENEW_PERIOD", default_value = "720h0m0s", value_name = "DURATION",
        value_parser = duration, allow_hyphen_values = true)]
    pub key_renew_period: Duration,
    /// The old name of --key-renew-period.
    #[arg(long, env = "SEALED_SECRETS_ROTATE_PERIOD", value_name = "DURATION", value_parser = duration, hide = true,
        allow_hyphen_values = true, overrides_with = "key_renew_period")]
    pub rotate_period: Option<Duration>,
    /// Which key is the newest: by the start of its certificate (CertNotBefore) or by the creation of its Secret
    /// (SecretCreationTimestamp).
    #[arg(long, env = "SEALED_SECRETS_KEY_ORDER_PRIORITY", default_value = "CertNotBefore", value_name = "ORDER",
        value_parser = key_order)]
    pub key_order_priority: KeyOrder,
    /// At the start, make a new key if the newest one is older than this time, for example 'Fri, 02 Jan 2026 15:04:05
    /// -0700'.
    #[arg(long, env = "SEALED_SECRETS_KEY_CUTOFF_TIME", default_value = "", value_name = "TIME",
        value_parser = key_cutoff_time)]
    pub key_cutoff_time: CutoffTime,
    /// Annotations of new sealing key Secrets: KEY=VALUE,…
    #[arg(long, env = "SEALED_SECRETS_PRIVATEKEY_ANNOTATIONS", default_value = "", value_name = "PAIRS",
        value_parser = pairs)]
    pub privatekey_annotations: BTreeMap<String, String>,
    /// Labels of new sealing key Secrets: KEY=VALUE,…
    #[arg(long, env = "SEALED_SECRETS_PRIVATEKEY_LABELS", default_value = "", value_name = "PAIRS",
        value_parser = pairs)]
    pub privatekey_labels: BTreeMap<String, String>,
    /// Unseal `spec.data`, the deprecated first form of a SealedSecret.
    #[arg(long, env = "SEALED_SECRETS_ACCEPT_DEPRECATED_V1_DATA", default_value_t = true, action = ArgAction::Set,
        num_args = 0..=1, require_equals = true, default_missing_value = "true", value_name = "BOOL",
        value_parser = bool_of_go)]
    pub accept_deprecated_v1_data: bool,
}

/// Which key is the newest: `--key-order-priority`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum KeyOrder {
    /// By the start of the certificate's validity.
    #[default]
    CertNotBefore,
    /// By the creation of the Secret.
    SecretCreationTimestamp,
}

/// `--key-cutoff-time`: a time, or none.
pub type CutoffTime = Option<Timestamp>;

impl Keys {
    /// A new key is made when the newest key has this age. `None` if no key is ever renewed.
    pub fn renew_period(&self) -> Option<Duration> {
        let period = self.rotate_period.unwrap_or(self.key_renew_period);
        (!period.is_zero()).then_some(period)
    }
}

fn key_size(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(bits @ (2048 | 3072 | 4096 | 8192)) => Ok(bits),
        _ => Err("2048, 3072, 4096 or 8192".into()),
    }
}

fn key_ttl(text: &str) -> Result<Duration, String> {
    match duration(text)? {
        Duration::ZERO => Err("a certificate must be valid for some time".into()),
        valid_for => Ok(valid_for),
    }
}

/// A prefix that Sealed Secrets accepts, and that the name of a Secret can begin with.
fn key_prefix(text: &str) -> Result<String, String> {
    const LONGEST: usize = 245;
    if text.len() > LONGEST {
        return Err(format!("longer than {LONGEST} characters"));
    }
    match text.chars().find(|c| !matches!(c, 'a'..='z' | '0'..='9' | '-')) {
        Some(wrong) => Err(format!("{wrong:?} cannot be in the name of a Secret: use a-z, 0-9 and -")),
        None => Ok(text.into()),
    }
}

fn key_order(text: &str) -> Result<KeyOrder, String> {
    match text {
        "CertNotBefore" => Ok(KeyOrder::CertNotBefore),
        "SecretCreationTimestamp" => Ok(KeyOrder::SecretCreationTimestamp),
        _ => Err("CertNotBefore or SecretCreationTimestamp".into()),
    }
}

/// A time in RFC 1123 with a numeric zone, Go's `time.RFC1123Z`. As in Go, the day of the week is not checked.
fn key_cutoff_time(text: &str) -> Result<CutoffTime, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let parsed = DateTimeParser::new().relaxed_weekday(true).parse_timestamp(text);
    parsed.map(Some).map_err(|error| format!("{error}; write it as 'Fri, 02 Jan 2026 15:04:05 -0700'"))
}
