//! Owners of fields, rewritten where an apply alone cannot do what Git says: an object that another tool made, and one
//! whose kind has a new version.

use ::fields::Managers;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use manifests::ObjectId;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use pipeline::Resource;

use super::{
    Applied,
    api::{Api, ApiError},
};

/// How often it is begun again when somebody writes to the object meanwhile, and how many versions are taken over.
const TRIES: usize = 8;

/// An object as it stands in Git.
#[derive(Clone, Copy)]
pub struct AsInGit<'a> {
    /// What it is.
    pub id: &'a ObjectId,
    /// Its kind.
    pub resource: &'a Resource,
    /// What is applied.
    pub body: &'a Map<String, Value>,
    /// JSON pointers to what is left to others.
    pub left_to_others: &'a [String],
}

impl AsInGit<'_> {
    /// The body of a request.
    pub fn json(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(serde_json::to_vec(self.body).expect("JSON serialises"))
    }
}

impl Api {
    /// Takes over from other tools the object that was just `applied` for the first time: what they own of it and Git does
    /// not say goes. Nothing is asked when nobody else made it. When the API server refuses that, the tools get their
    /// fields back.
    pub async fn take_over(&self, object: AsInGit<'_>, applied: Applied) -> Result<Applied, ApiError> {
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
                // Somebody wrote meanwhile: the apply tells what there is now.
                Err(error) if error.is_conflict() => {
                    applied = Applied { created, ..self.apply_object(object).await? };
                    continue;
                }
                Err(error) => return Err(error),
            }
            match self.apply_object(object).await {
                Ok(next) => applied = Applied { created, ..next },
                Err(error) => {
                    self.give_back(object, &applied.managed_fields, &taken.entries).await;
                    return Err(error);
                }
            }
        }
        Err(ApiError::Busy)
    }

    /// Moves everybody's fields of an object to the version in which it stands in Git; whether there were any of another.
    /// To apply, the API server turns the object into every version that somebody owns fields in, and refuses when a field
    /// is not known there.
    pub async fn move_to_version(&self, object: AsInGit<'_>) -> Result<bool, ApiError> {
        let api_version = object.resource.api_version();
        for _ in 0..TRIES {
            let meta = match self.get_metadata(object.resource, object.id.namespace.as_deref(), &object.id.name).await {
                // Nobody owns a field of what is not there.
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

    async fn apply_object(&self, object: AsInGit<'_>) -> Result<Applied, ApiError> {
        self.apply(object.resource, object.id.namespace.as_deref(), &object.id.name, object.json()).await
    }

    /// Undoes a take-over that cannot be completed. What fails here is told of by what failed before.
    async fn give_back(&self, object: AsInGit<'_>, before: &[ManagedFieldsEntry], taken: &[ManagedFieldsEntry]) {
        let namespace = object.id.namespace.as_deref();
        let Ok(meta) = self.get_metadata(object.resource, namespace, &object.id.name).await else { return };
        let is_as_taken = meta.managed_fields.as_deref().is_some_and(|now| same(now, taken));
        if let (true, Some(version)) = (is_as_taken, meta.resource_version)
            && let Err(error) = self.write_entries(object, &version, before).await
        {
            tracing::debug!(object = %object.id, %error, "its fields are ours, though it cannot be applied");
        }
    }

    /// Refused when somebody wrote since `version`.
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

/// Whether the main entries are the same but for their times.
fn same(now: &[ManagedFieldsEntry], taken: &[ManagedFieldsEntry]) -> bool {
    let of_object = |entries: &[ManagedFieldsEntry]| {
        let own = entries.iter().filter(|entry| entry.subresource.as_deref().unwrap_or_default().is_empty());
        let mut own: Vec<_> = own.map(|entry| ManagedFieldsEntry { time: None, ..entry.clone() }).collect();
        own.sort_by(|a, b| (&a.manager, &a.operation).cmp(&(&b.manager, &b.operation)));
        own
    };
    of_object(now) == of_object(taken)
}

/// Which managers objects are taken over from; see [`Managers`].
pub(super) type TakesOverFrom = std::sync::Arc<Managers>;
