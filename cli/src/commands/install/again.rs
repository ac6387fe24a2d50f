//! The `gitseal install` command that would install again what is installed now.

use super::{
    arguments, bundle,
    choices::{Storage, Tenancy},
    live::Live,
};
use crate::global::{CONTROLLER_NAME, CONTROLLER_NAMESPACE};

/// A `gitseal install` command with flags for all choices of the existing installation. If the existing controller is
/// not cluster-admin, the command does not make it cluster-admin.
pub fn command(live: &Live) -> String {
    let mut words: Vec<String> = ["gitseal", "install", "--apply", "--image"].map(str::to_owned).into();
    words.push(live.image().unwrap_or("IMAGE").to_owned());
    let is_shared = live.tenancy.is_some_and(|Tenancy { cluster_admin, .. }| !cluster_admin);
    if is_shared {
        words.push("--multi-tenant".into());
    }
    if live.namespace != CONTROLLER_NAMESPACE {
        words.extend(["--controller-namespace".into(), live.namespace.clone()]);
    }
    if let Some(service) = live.service.as_ref().filter(|service| *service != CONTROLLER_NAME) {
        words.extend(["--controller-name".into(), service.clone()]);
    }
    let replicas = live.replicas().filter(|replicas| *replicas > 1);
    match replicas {
        Some(replicas) => words.extend(["--replicas".into(), replicas.to_string()]),
        None if live.storage() == Some(Storage::Ephemeral) => words.push("--ephemeral-storage".into()),
        None => {}
    }
    let chosen = arguments::chosen(live.arguments().unwrap_or_default(), &bundle::arguments(), is_shared);
    if !chosen.is_empty() {
        words.push("--".into());
        words.extend(chosen);
    }
    words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" ")
}

/// The word with quotes if a shell needs them.
fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "-_=.,/:@+%".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn a_word_is_quoted_for_the_shell() {
        assert_eq!(quoted("--log-level=debug"), "--log-level=debug");
        assert_eq!(quoted("--my-cn=a b'$c"), r"'--my-cn=a b'\''$c'");
        assert_eq!(quoted(""), "''");
    }
}
