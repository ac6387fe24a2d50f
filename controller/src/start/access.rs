//! Checks at the start which rights the controller's role gives, so that missing rights are reported once and by name.

use std::collections::BTreeMap;

use futures::{StreamExt, stream};
use k8s_openapi::api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec};
use kube::{Api, api::PostParams};

/// A right: group, resource, subresource and verb.
pub(super) type Right = (&'static str, &'static str, &'static str, &'static str);

/// The rights that the controller needs to unseal SealedSecrets, and to report about them in statuses and events.
const UNSEALING: [Right; 11] = [
    ("bitnami.com", "sealedsecrets", "", "list"),
    ("bitnami.com", "sealedsecrets", "", "watch"),
    ("bitnami.com", "sealedsecrets", "status", "update"),
    ("", "secrets", "", "get"),
    ("", "secrets", "", "list"),
    ("", "secrets", "", "watch"),
    ("", "secrets", "", "create"),
    ("", "secrets", "", "update"),
    ("", "events", "", "create"),
    ("", "events", "", "patch"),
    PATCH_SECRETS,
];
/// The right to write a Secret with a single request. Such a request keeps the fields that others added.
const PATCH_SECRETS: Right = ("", "secrets", "", "patch");
/// The rights that the controller needs to apply anything from Git.
const APPLYING: [Right; 4] = [
    ("gitseal.dev", "repositories", "", "list"),
    ("gitseal.dev", "repositories", "", "watch"),
    ("gitseal.dev", "syncs", "", "list"),
    ("gitseal.dev", "syncs", "", "watch"),
];
/// How many questions about rights are sent to the API server at the same time.
const AT_ONCE: usize = 8;

/// The rights that are missing.
#[derive(Debug, Default, Eq, PartialEq)]
pub(super) struct Access {
    missing: Vec<Right>,
}

impl Access {
    /// Asks whether the controller has the rights to unseal in `namespace` (`None` for all namespaces) and, if
    /// `applies` is true, the rights to apply. If the API server does not answer, a right counts as given. The first
    /// request that needs a missing right shows that it is missing.
    pub(super) async fn ask(client: &kube::Client, namespace: Option<&str>, applies: bool) -> Self {
        let unsealing = UNSEALING.into_iter().map(|right| (right, namespace));
        let applying = APPLYING.into_iter().filter(|_| applies).map(|right| (right, namespace));
        let missing = stream::iter(unsealing.chain(applying))
            .map(|(right, namespace)| async move { (!is_allowed(client, right, namespace).await).then_some(right) })
            .buffered(AT_ONCE)
            .filter_map(async |missing| missing)
            .collect()
            .await;
        Self { missing }
    }

    /// Whether Repositories and Syncs can be watched.
    pub(super) fn may_apply(&self) -> bool {
        !self.missing.iter().any(|right| APPLYING.contains(right))
    }

    /// Whether Secrets can be applied.
    pub(super) fn may_patch_secrets(&self) -> bool {
        !self.missing.contains(&PATCH_SECRETS)
    }

    /// Logs which rights are missing, and what to do about it.
    pub(super) fn tell(&self) {
        if !self.may_apply() {
            let missing = text(self.missing.iter().filter(|right| APPLYING.contains(right)));
            tracing::warn!(
                missing,
                "SealedSecrets are unsealed, but nothing is applied from Git: the controller's role does not allow \
                 it; to add the rights: gitseal install --apply"
            );
        }
        let needed = |right: &&Right| UNSEALING.contains(right) && **right != PATCH_SECRETS;
        let missing = text(self.missing.iter().filter(needed));
        if !missing.is_empty() {
            tracing::error!(
                missing,
                "the controller's role lacks rights that are needed to unseal; to add them: gitseal install --apply"
            );
        }
        if !self.may_patch_secrets() {
            tracing::warn!(
                missing = "patch secrets",
                "Secrets are replaced as a whole, as the Sealed Secrets controller does it, because the role of \
                 gitseal-controller does not allow it to patch them; to add the rights: gitseal install --apply"
            );
        }
    }
}

/// The rights as text: `list, watch syncs.gitseal.dev; create secrets`.
fn text<'a>(rights: impl Iterator<Item = &'a Right>) -> String {
    let mut verbs: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    for (group, resource, subresource, verb) in rights {
        let mut name = (*resource).to_owned();
        for (mark, part) in [('/', subresource), ('.', group)] {
            if !part.is_empty() {
                name.push(mark);
                name.push_str(part);
            }
        }
        verbs.entry(name).or_default().push(verb);
    }
    let all: Vec<_> = verbs.iter().map(|(name, verbs)| format!("{} {name}", verbs.join(", "))).collect();
    all.join("; ")
}

/// Whether the controller has a right in a namespace, or in all of them. If the API server does not answer, the right
/// counts as given.
pub(super) async fn is_allowed(client: &kube::Client, right: Right, namespace: Option<&str>) -> bool {
    let (group, resource, subresource, verb) = right;
    let attributes = ResourceAttributes {
        group: Some(group.into()),
        resource: Some(resource.into()),
        subresource: Some(subresource.into()),
        verb: Some(verb.into()),
        namespace: namespace.map(str::to_owned),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..SelfSubjectAccessReview::default()
    };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await;
    answer.ok().and_then(|review| review.status).is_none_or(|status| status.allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_told_by_name() {
        let sealed_secrets_role = Access { missing: vec![PATCH_SECRETS] };
        assert!(sealed_secrets_role.may_apply() && !sealed_secrets_role.may_patch_secrets());
        let none = Access { missing: UNSEALING.into_iter().chain(APPLYING).collect() };
        assert!(!none.may_apply());
        assert_eq!(
            text(none.missing.iter()),
            "create, patch events; list, watch repositories.gitseal.dev; list, watch sealedsecrets.bitnami.com; update \
             sealedsecrets/status.bitnami.com; get, list, watch, create, update, patch secrets; list, watch \
             syncs.gitseal.dev"
        );
        assert_eq!(text([].iter()), "");
    }
}
