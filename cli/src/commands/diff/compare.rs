//! One object: live, and as a dry run would leave it.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow};
use crds::FIELD_MANAGER;
use kube::{
    Client, Resource,
    api::{DynamicObject, GetParams, Patch, PatchParams, PostParams},
    core::Request,
};
use manifests::{Manifest, ObjectId};
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{
    kinds::Kinds,
    shown::{Comparable, Plain, Secret, difference},
    taking_over::TakingOver,
};

/// What applying would do to an object.
#[derive(Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It would be made, with these keys of secret or sealed values.
    Created { keys: Vec<String> },
    /// Nothing.
    Unchanged,
    /// Some fields would change.
    Changed {
        /// Unified difference of the two as YAML, without secret and sealed values; may be empty.
        diff: String,
        /// Keys of secret and sealed values that differ.
        keys: BTreeMap<String, KeyChange>,
    },
    /// It would be deleted.
    Pruned,
    /// It left the folder and stays in the cluster, for a reason.
    Kept(&'static str),
}

/// How a secret or sealed value differs.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeyChange {
    Added,
    Removed,
    Changed,
}

impl KeyChange {
    pub fn name(self) -> &'static str {
        match self {
            Self::Added => "added",
            Self::Removed => "removed",
            Self::Changed => "changed",
        }
    }
}

impl Outcome {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Created { .. } => "created",
            Self::Unchanged => "unchanged",
            Self::Changed { .. } => "changed",
            Self::Pruned => "pruned",
            Self::Kept(_) => "kept",
        }
    }

    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Unchanged | Self::Kept(_))
    }
}

/// Compares the live object with what applying `manifest` would make of it. `in_folder` is everything that would be
/// applied with it.
///
/// # Errors
/// The kind is not known, or the API server refuses the dry run; for a Secret without the server's words, which may
/// quote values.
pub async fn compare(
    client: &Client,
    kinds: &Kinds,
    in_folder: &BTreeSet<ObjectId>,
    taking_over: &TakingOver<'_>,
    manifest: &Manifest,
) -> anyhow::Result<Outcome> {
    let id = &manifest.id;
    let Some(resource) = kinds.resource(manifest) else {
        if kinds.is_defined(manifest) {
            return Ok(Outcome::Created { keys: Vec::new() });
        }
        return Err(anyhow!("the cluster does not know the kind {} of {}", id.kind, manifest.api_version()));
    };
    let requests =
        Requests { client, path: DynamicObject::url_path(resource, id.namespace.as_deref()), manifest, taking_over };
    if id.is_secret() {
        let of_secret = |error: kube::Error| match error {
            kube::Error::Api(status) => {
                anyhow!("the API server refuses the Secret: {} ({})", status.reason, status.code)
            }
            kube::Error::SerdeError(_) => anyhow!("the API server's answer is not a Secret"),
            other => anyhow!(other),
        };
        return requests.outcome::<Secret>(in_folder, of_secret).await;
    }
    requests.outcome::<Plain>(in_folder, anyhow::Error::new).await
}

struct Requests<'a> {
    client: &'a Client,
    path: String,
    manifest: &'a Manifest,
    taking_over: &'a TakingOver<'a>,
}

impl Requests<'_> {
    async fn outcome<T: Comparable>(
        &self,
        in_folder: &BTreeSet<ObjectId>,
        explain: impl Fn(kube::Error) -> anyhow::Error,
    ) -> anyhow::Result<Outcome> {
        let live: Option<T> = self.live().await.map_err(&explain).context("cannot read the live object")?;
        match (live, self.dry_run::<T>().await) {
            (Some(live), Ok(applied)) => {
                let taken_over = match self.taking_over.leaves(self.manifest, &live, &applied) {
                    Some(left) => self
                        .dry_replace(&left)
                        .await
                        .map_err(&explain)
                        .context("the dry run of the take-over failed")?,
                    None => applied,
                };
                Ok(difference(live.shown(), taken_over.shown()))
            }
            (None, Ok(applied)) => Ok(Outcome::Created { keys: applied.shown().into_keys() }),
            (None, Err(kube::Error::Api(status))) if status.is_not_found() && self.comes_with_namespace(in_folder) => {
                Ok(Outcome::Created { keys: Vec::new() })
            }
            (_, Err(error)) => Err(explain(error)).context("the dry run failed"),
        }
    }

    async fn live<T: DeserializeOwned>(&self) -> Result<Option<T>, kube::Error> {
        let request = Request::new(&self.path)
            .get(&self.manifest.id.name, &GetParams::default())
            .map_err(kube::Error::BuildRequest)?;
        match self.client.request(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn dry_run<T: DeserializeOwned>(&self) -> Result<T, kube::Error> {
        // As strict as the controller.
        let parameters = PatchParams::apply(FIELD_MANAGER).force().dry_run().validation_strict();
        let request = Request::new(&self.path)
            .patch(&self.manifest.id.name, &parameters, &Patch::Apply(&self.manifest.body))
            .map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }

    /// The object as the API server completes it.
    async fn dry_replace<T: DeserializeOwned>(&self, object: &Value) -> Result<T, kube::Error> {
        let parameters = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.into()) };
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = Request::new(&self.path)
            .replace(&self.manifest.id.name, &parameters, body)
            .map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }

    /// A dry run in a namespace that is still to be made finds no namespace.
    fn comes_with_namespace(&self, in_folder: &BTreeSet<ObjectId>) -> bool {
        self.manifest.id.namespace.as_ref().is_some_and(|namespace| {
            in_folder.contains(&ObjectId {
                group: String::new(),
                kind: "Namespace".into(),
                namespace: None,
                name: namespace.clone(),
            })
        })
    }
}
