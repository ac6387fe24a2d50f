//! The order in which kinds are applied, and in reverse pruned.

use manifests::ObjectId;

/// Objects of one wave are applied concurrently; the next wave begins when all of them are.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Wave {
    /// Namespaces and CustomResourceDefinitions: others live in them or are of their kinds.
    Foundations,
    /// Service accounts, RBAC, quotas, classes: what others need to be admitted.
    Access,
    /// SealedSecrets: their UIDs own the Secrets.
    SealedSecrets,
    /// Secrets: those of the SealedSecrets are unsealed here.
    Secrets,
    /// ConfigMaps: what workloads start with. What uses a Secret of the same revision comes no earlier.
    Configuration,
    /// Everything else.
    Workloads,
    /// Webhooks, admission policies and API services: they can refuse what comes before them.
    Admission,
}

impl Wave {
    /// The wave of an object.
    pub fn of(id: &ObjectId) -> Self {
        match (id.group.as_str(), id.kind.as_str()) {
            ("", "Namespace") | ("apiextensions.k8s.io", "CustomResourceDefinition") => Self::Foundations,
            ("", "ServiceAccount" | "ResourceQuota" | "LimitRange")
            | ("scheduling.k8s.io" | "storage.k8s.io" | "node.k8s.io" | "rbac.authorization.k8s.io", _)
            | ("networking.k8s.io", "IngressClass") => Self::Access,
            ("bitnami.com", "SealedSecret") => Self::SealedSecrets,
            ("", "Secret") => Self::Secrets,
            ("", "ConfigMap") => Self::Configuration,
            ("admissionregistration.k8s.io" | "apiregistration.k8s.io", _) => Self::Admission,
            _ => Self::Workloads,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_come_before_what_uses_them_and_after_what_owns_them() {
        let wave = |group: &str, kind: &str| {
            Wave::of(&ObjectId { group: group.into(), kind: kind.into(), namespace: None, name: "x".into() })
        };
        let order = [
            wave("", "Namespace"),
            wave("rbac.authorization.k8s.io", "Role"),
            wave("bitnami.com", "SealedSecret"),
            wave("", "Secret"),
            wave("apps", "Deployment"),
            wave("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ];
        assert!(order.is_sorted_by(|a, b| a < b));
        assert_eq!(wave("example.com", "Namespace"), Wave::Workloads);
    }
}
