//! What a Secret's metadata tells about it: enough to unseal without ever reading a value.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};

use super::fields;

/// Metadata of a Secret that unsealing needs to know.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SecretFacts {
    /// UID of the SealedSecret that controls it.
    pub sealed_secret: Option<Box<str>>,
    /// Whether something else than a SealedSecret owns it.
    pub owned_by_others: bool,
    /// Annotation `sealedsecrets.bitnami.com/managed: "true"`.
    pub managed: bool,
    /// Annotation `sealedsecrets.bitnami.com/patch: "true"`.
    pub patch: bool,
    /// Whether its labels make it a sealing key, in or out of use.
    pub is_sealing_key: bool,
    /// The digest of the sealed input that was applied last, as the Secret's annotation says.
    pub sealed_digest: Option<Box<str>>,
    /// How many of the Secret's values are ours: fewer than were applied when somebody changed or removed one.
    pub owned_values: usize,
    /// Keys that others put beside ours; empty for a Secret that has no value of ours.
    pub foreign_values: Box<[Box<str>]>,
}

impl SecretFacts {
    /// Reads the facts from the metadata of a Secret.
    pub(super) fn of(meta: &ObjectMeta) -> Self {
        let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key)).map(String::as_str);
        let is_controller = |owner: &&OwnerReference| {
            owner.controller == Some(true)
                && owner.kind == "SealedSecret"
                && owner.api_version.starts_with("bitnami.com/")
        };
        let owners = || meta.owner_references.iter().flatten();
        let labels = meta.labels.as_ref();
        let controller = owners().find(is_controller);
        let (owned, foreign) = fields::values(meta.managed_fields.as_deref());
        Self {
            sealed_secret: controller.map(|owner| owner.uid.as_str().into()),
            owned_by_others: owners().any(|owner| !is_controller(&owner)),
            managed: annotation(crds::names::MANAGED) == Some("true"),
            patch: annotation(crds::names::PATCH) == Some("true"),
            is_sealing_key: crds::names::KEY_LABELS
                .iter()
                .any(|label| labels.is_some_and(|all| all.contains_key(*label))),
            sealed_digest: annotation(crds::names::SEALED_DIGEST).map(Into::into),
            owned_values: owned,
            foreign_values: foreign.into_iter().map(Into::into).collect(),
        }
    }

    /// Whether others put values into a Secret that is a SealedSecret's as a whole.
    pub fn is_mixed(&self) -> bool {
        !self.patch && !self.foreign_values.is_empty()
    }
}
