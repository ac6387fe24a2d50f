//! Changes the ownership of fields where an apply alone cannot make the object as Git says: for an object that another
//! tool made, and for an object whose kind has a new version.

use ::fields::{LeftToOthers, Managers};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use manifests::ObjectId;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use pipeline::{Resource, plan::Step};

use super::{Written, answer::ApiError, api::Api};

/// How often a take-over, or a move to another API version, is tried if others write to the object in the meantime.
const TRIES: usize = 8;

/// An object as it is in Git.
#[derive(Clone, Copy)]
pub struct AsInGit<'a> {
    /// The id of the object.
    pub id: &'a ObjectId,
    /// The kind of the object.
    pub resource: &'a Resource,
    /// The manifest that is applied.
    pub body: &'a Map<String, Value>,
    /// What is left to others.
    pub left_to_others: LeftToOthers<'a>,
}

impl<'a> AsInGit<'a> {
    /// The object of `step`, with the manifest `body`.
    pub fn of(step: &'a Step, body: &'a Map<String, Value>) -> Self {
        let left_to_others = LeftToOthers { paths: &step.left_to_others, managers: &step.left_to_managers };
        Self { id: &step.id, resource: &step.resource, body, left_to_others }
    }

    /// The manifest as JSON: the body of the request that applies the object.
    pub fn json(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self.body).expect("JSON serialises"))
    }

    /// The manifest as JSON, for a request that the API server refuses if the object has another resource version than
    /// `version`.
    pub fn json_if_unchanged(&self, version: &str) -> Zeroizing<Vec<u8>> {
        let mut body = self.body.clone();
        body["metadata"]["resourceVersion"] = version.into();
        Zeroizing::new(serde_json::to_vec(&body).expect("JSON serialises"))
    }
}

impl Api {
    /// Takes an object over from other tools after it was `applied` for the first time: fields that the tools own and
    /// that are not in Git are removed. If no other tool wrote it, no request is made. If the API server refuses the
    /// removal, the tools get the ownership of their fields back.
    pub async fn take_over(&self, object: AsInGit<'_>, applied: Written) -> Result<Written, ApiError> {
        let managers = self.takes_over_from();
        let mut applied = applied;
        if self.replaces_secrets() && object.id.is_secret() {
            return Ok(applied);
        }
        for _ in 0..TRIES {
            let before = &applied.managed_fields;
            let Some(taken) = ::fields::take_over(before, managers, object.id, object.body, object.left_to_others)
            else {
                return Ok(applied);
            };
            let created = applied.created;
            match self.write_entries(object, &applied.resource_version.to_string(), &taken.entries).await {
                Ok(()) => {}
                // Somebody wrote in the meantime. Another apply shows how the object is now.
                Err(error) if error.is_conflict() => {
                    applied = Written { created, ..self.apply_object(object).await? };
                    continue;
                }
                Err(error) => return Err(error),
            }
            match self.apply_object(object).await {
                Ok(next) => applied = Written { created, ..next },
                Err(error) => {
                    self.give_back(object, &applied.managed_fields, &taken.entries).await;
                    return Err(error);
                }
            }
        }
        Err(ApiError::Busy)
    }

    /// Moves all field ownership of an object to the API version that the object has in Git. Returns whether somebody
    /// owned fields in another version. This is needed because, for an apply, the API server converts the object into
    /// every version in which somebody owns fields, and refuses the apply if a field does not exist in one of these
    /// versions.
    pub async fn move_to_version(&self, object: AsInGit<'_>) -> Result<bool, ApiError> {
        let api_version = object.resource.api_version();
        for _ in 0..TRIES {
            let meta = match self.get_metadata(object.resource, object.id.namespace.as_deref(), &object.id.name).await {
                // If the object does not exist, nobody owns fields of it.
                Err(error) if error.is_not_found() => return Ok(false),
                meta => meta?,
            };
            let entries = meta.managed_fields.unwrap_or_default();
            let Some(moved) = ::fields::with_version(&entries, &api_version) else { return Ok(false) };
            match self.write_entries(object, &meta.resource_version.unwrap_or_default(), &moved).await {
                Ok(()) => return Ok(true),
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Err(ApiError::Busy)
    }

    async fn apply_object(&self, object: AsInGit<'_>) -> Result<Written, ApiError> {
        self.apply(object.resource, object.id.namespace.as_deref(), &object.id.name, object.json()).await
    }

    /// Undoes a take-over that could not be completed. If this fails, too, only the failure of the take-over is
    /// reported.
    async fn give_back(&self, object: AsInGit<'_>, before: &[ManagedFieldsEntry], taken: &[ManagedFieldsEntry]) {
        let namespace = object.id.namespace.as_deref();
        let Ok(meta) = self.get_metadata(object.resource, namespace, &object.id.name).await else { return };
        let is_as_taken = meta.managed_fields.as_deref().is_some_and(|now| same(now, taken));
        if let (true, Some(version)) = (is_as_taken, meta.resource_version)
            && let Err(error) = self.write_entries(object, &version, before).await
        {
            tracing::debug!(object = %object.id, %error, "the fields that were taken over could not be given back");
        }
    }

    /// Writes `entries` as the `managedFields` of the object. The API server refuses this if somebody else wrote since
    /// `version`.
    async fn write_entries(
        &self,
        object: AsInGit<'_>,
        version: &str,
        entries: &[ManagedFieldsEntry],
    ) -> Result<(), ApiError> {
        let patch = json!({"metadata": {"resourceVersion": version, "managedFields": entries}});
        self.merge(object.resource, object.id.namespace.as_deref(), &object.id.name, None, &patch).await.map(|_| ())
    }
}

/// Whether the entries about the object itself, not about its subresources, are the same apart from their times.
fn same(now: &[ManagedFieldsEntry], taken: &[ManagedFieldsEntry]) -> bool {
    let of_object = |entries: &[ManagedFieldsEntry]| {
        let own = entries.iter().filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
        let mut own: Vec<_> = own.map(|entry| ManagedFieldsEntry { time: None, ..entry.clone() }).collect();
        own.sort_by(|a, b| (&a.manager, &a.operation).cmp(&(&b.manager, &b.operation)));
        own
    };
    of_object(now) == of_object(taken)
}

/// The field managers whose fields are taken over; see [`Managers`].
pub(super) type TakesOverFrom = std::sync::Arc<Managers>;
