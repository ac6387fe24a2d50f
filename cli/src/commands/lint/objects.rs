//! Checks the names and annotations of objects.

use crds::names;
use manifests::{Manifest, ObjectId};
use schemas::{Severity, nearest};
use serde_json::Value;

use super::report::Finding;

/// The annotations of gitseal that are written in Git, each with the only values that have an effect; without values if
/// others have an effect, too.
const ANNOTATIONS: [(&str, &[&str]); 20] = [
    (names::PRUNE, &[names::PRUNE_DISABLED]),
    (names::CHANGE, &[names::CHANGE_DISABLED]),
    (names::REPLACE, &[names::REPLACE_ALLOWED]),
    (names::RESTART_ON_SECRET_CHANGE, &["true", "false"]),
    (names::SUBSTITUTE, &[names::SUBSTITUTE_DISABLED]),
    (names::DELETE_HOOKS, &[names::DELETE_HOOKS_SKIP]),
    (names::RUN_TESTS, &[]),
    (names::INSTALLED, &[names::INSTALLED_TRUE]),
    // The guard checks the values of these seven.
    (names::RUN_WHEN, &[]),
    (names::ONLY_ON, &[]),
    (names::WAVE, &[]),
    (names::WAVE_AGAIN, &[]),
    (names::WAIT, &[]),
    (names::DELETE_WHEN, &[]),
    (names::ON_DELETE, &[]),
    (names::TEMPLATE_INPUTS, &[]),
    (names::SUSPEND_REASON, &[]),
    (names::RECONCILE_REQUESTED_AT, &[]),
    (names::CONFIRM_PRUNE, &[]),
    (names::ACCEPT_MOVED, &[]),
];

/// Annotations with gitseal's prefix that have no effect.
pub(super) fn annotations(object: &Manifest) -> Vec<Finding> {
    let all = object.body.get("metadata").and_then(|metadata| metadata.get("annotations")).and_then(Value::as_object);
    let own = all.into_iter().flatten().filter(|(name, _)| name.starts_with("gitseal.dev/"));
    own.filter_map(|(name, value)| {
        let message = if let Some((_, values)) = ANNOTATIONS.iter().find(|(known, _)| known == name) {
            let is_effective = values.is_empty() || value.as_str().is_some_and(|value| values.contains(&value));
            let quoted: Vec<_> = values.iter().map(|value| format!("\"{value}\"")).collect();
            (!is_effective).then(|| format!("the value has no effect; use {}", quoted.join(" or ")))
        } else {
            let meant = nearest(name, ANNOTATIONS.iter().map(|(known, _)| *known));
            let meant = meant.map(|meant| format!("; did you mean {meant}?")).unwrap_or_default();
            Some(format!("gitseal has no such annotation{meant}"))
        };
        Some(Finding {
            severity: Severity::Warning,
            field: format!("metadata.annotations[{name:?}]"),
            ..Finding::error("annotation", &object.origin, Some(&object.id), message?)
        })
    })
    .collect()
}

/// A name that the API server refuses.
pub(super) fn name(object: &Manifest) -> Option<Finding> {
    let ObjectId { group, kind, name, .. } = &object.id;
    let (rule, is_allowed) = match (group.as_str(), kind.as_str()) {
        // These names may have almost any character.
        (
            "rbac.authorization.k8s.io"
            | "certificates.k8s.io"
            | "apiregistration.k8s.io"
            | "internal.apiserver.k8s.io",
            _,
        ) => {
            return None;
        }
        ("", "Namespace" | "Service") => {
            let rule = "at most 63 lower-case letters, digits and '-', with a letter or digit at both ends";
            (rule, name.len() <= 63 && is_label(name))
        }
        _ => {
            let rule = "at most 253 lower-case letters, digits, '-' and '.', with a letter or digit at both ends of each \
                part between dots";
            (rule, name.len() <= 253 && name.split('.').all(is_label))
        }
    };
    let message = || format!("'{name}' cannot be the name of a {kind}: it must have {rule}");
    let found = || Finding::error("impossible-name", &object.origin, Some(&object.id), message());
    (!is_allowed).then(|| Finding { field: "metadata.name".to_owned(), ..found() })
}

fn is_label(text: &str) -> bool {
    let is_inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    !text.is_empty() && text.chars().all(is_inner) && !text.starts_with('-') && !text.ends_with('-')
}
