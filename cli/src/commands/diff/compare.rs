//! Compares one object in the cluster with the object that would result from an apply, according to a dry run.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow};
use crds::FIELD_MANAGER;
use fields::{LeftToOthers, leave_out, owned_by};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Status;
use kube::{
    Client,
    api::{GetParams, Patch, PatchParams, PostParams},
    core::Request,
};
use manifests::ObjectId;
use pipeline::{
    Resource,
    refusal::{immutable, in_short, not_of_its_kind},
    replacement::{may_replace, under_another_name},
};
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::{
    kinds::Found,
    shown::{Comparable, Plain, Secret, difference},
    taking_over::{TakingOver, entries},
};

/// What applying would do to an object.
#[derive(Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The object would be created, with these keys of secret or sealed values.
    Created { keys: Vec<String> },
    /// Nothing would change.
    Unchanged,
    /// Some fields would change.
    Changed {
        /// Unified diff of the live and the applied object as YAML, without secret and sealed values; may be empty.
        diff: String,
        /// Keys of secret and sealed values that would change.
        keys: BTreeMap<String, KeyChange>,
    },
    /// The Secret would be written again from its SealedSecret. Only the cluster's keys can show whether its values
    /// would change.
    Unsealed,
    /// The object would be deleted and created again, because the part of it that is named here cannot be changed in
    /// place.
    Replaced(String),
    /// The object would be deleted.
    Pruned,
    /// The object would be deleted after somebody confirms the large prune.
    Unconfirmed,
    /// The object would be handed over to another Sync, which is named here.
    Moved(String),
    /// The object would not be applied and would keep its last version, for this reason.
    Held(String),
    /// The object left the folder and stays in the cluster, for this reason.
    Kept(String),
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
            Self::Unsealed => "unsealed",
            Self::Replaced(_) => "replaced",
            Self::Pruned => "pruned",
            Self::Unconfirmed => "unconfirmed",
            Self::Moved(_) => "moved",
            Self::Held(_) => "held",
            Self::Kept(_) => "kept",
        }
    }

    pub fn is_change(&self) -> bool {
        !matches!(self, Self::Unchanged | Self::Kept(_))
    }

    /// Why the object is replaced, held back or kept, or the Sync that gets it.
    pub fn because(&self) -> Option<&str> {
        match self {
            Self::Replaced(text) | Self::Moved(text) | Self::Held(text) | Self::Kept(text) => Some(text),
            _ => None,
        }
    }
}

/// An object as the Sync would apply it.
#[derive(Clone, Copy)]
pub struct InGit<'a> {
    pub id: &'a ObjectId,
    pub resource: &'a Resource,
    pub body: &'a Map<String, Value>,
    /// What the Sync leaves to others (`ignoreDifferences`).
    pub left_to_others: LeftToOthers<'a>,
    /// The object as it is created if it does not exist: with the values that Git has for the fields at the paths in
    /// `left_to_others`. `None` if Git has no such fields.
    pub first: Option<&'a Map<String, Value>>,
    /// JSON pointer to the digest that the controller writes into the Pod template of a workload with the annotation
    /// `gitseal.dev/restart-on-secret-change`. Only the controller can compute this digest, so a comparison without a
    /// Sync leaves it as it is. `None` in a comparison with a Sync, and for objects without the annotation.
    pub stamp: Option<&'static str>,
}

/// Compares the live object with the result of applying `object`. `in_folder` are all objects that would be applied
/// with it.
///
/// # Errors
/// The API server refuses the dry run. For a Secret, the error does not contain the server's text, which may quote
/// values.
pub async fn compare(
    client: &Client,
    found: &Found,
    in_folder: &BTreeSet<ObjectId>,
    taking_over: &TakingOver<'_>,
    object: InGit<'_>,
) -> anyhow::Result<Outcome> {
    if !found.is_served(object.resource) {
        // The cluster does not serve the kind yet, because its CustomResourceDefinition is in the folder.
        return Ok(Outcome::Created { keys: Vec::new() });
    }
    let path = object.resource.path(object.id.namespace.as_deref(), None);
    let requests = Requests { client, path, object, taking_over };
    if object.id.is_secret() {
        let of_secret = |error: kube::Error| match error {
            kube::Error::Api(status) => {
                anyhow!("the API server refuses the Secret: {} ({})", status.reason, status.code)
            }
            kube::Error::SerdeError(_) => anyhow!("the API server's answer is not a Secret"),
            other => anyhow!(other),
        };
        return requests.outcome::<Secret>(in_folder, of_secret).await;
    }
    let of_others = |error: kube::Error| {
        let told = if let kube::Error::Api(status) = &error { not_of_its_kind(&status.message) } else { None };
        told.map_or_else(|| anyhow::Error::new(error), anyhow::Error::msg)
    };
    requests.outcome::<Plain>(in_folder, of_others).await
}

struct Requests<'a> {
    client: &'a Client,
    path: String,
    object: InGit<'a>,
    taking_over: &'a TakingOver<'a>,
}

impl Requests<'_> {
    async fn outcome<T: Comparable>(
        &self,
        in_folder: &BTreeSet<ObjectId>,
        explain: impl Fn(kube::Error) -> anyhow::Error,
    ) -> anyhow::Result<Outcome> {
        let live: Option<T> = self.live().await.map_err(&explain).context("cannot read the live object")?;
        let body = self.body(live.as_ref().and_then(Comparable::object));
        match (live, self.dry_run::<T>(&body).await) {
            (Some(live), Ok(applied)) => {
                let Some(left) = self.taking_over.leaves(self.object, &live, &applied) else {
                    return Ok(difference(live.shown(), applied.shown()));
                };
                match self.dry_replace(&left).await {
                    Ok(taken_over) => Ok(difference(live.shown(), T::shown(taken_over))),
                    Err(error) => {
                        self.instead(error, explain, "the dry run of the takeover of the object failed").await
                    }
                }
            }
            (None, Ok(applied)) => Ok(Outcome::Created { keys: applied.shown().into_keys() }),
            (None, Err(kube::Error::Api(status))) if status.is_not_found() && self.comes_with_namespace(in_folder) => {
                Ok(Outcome::Created { keys: Vec::new() })
            }
            (_, Err(error)) => self.instead(error, explain, "the dry run failed").await,
        }
    }

    /// The body that is applied. Fields that are left to others have their live values in it, because the Sync gives
    /// these fields up before it applies.
    fn body(&self, live: Option<&Map<String, Value>>) -> Value {
        let Some(live) = live else {
            return Value::Object(self.object.first.unwrap_or(self.object.body).clone());
        };
        let mut body = Value::Object(self.object.body.clone());
        for pointer in self.object.left_to_others.paths.iter().map(String::as_str).chain(self.object.stamp) {
            put_back(&mut body, live, pointer);
        }
        let managers = self.object.left_to_others.managers;
        if let (Some(body), false) = (body.as_object_mut(), managers.is_empty()) {
            leave_out(body, &owned_by(&entries(live), managers));
        }
        body
    }

    /// What the controller would do with an object that the API server refused because a field cannot be changed.
    async fn instead(
        &self,
        error: kube::Error,
        explain: impl Fn(kube::Error) -> anyhow::Error,
        otherwise: &'static str,
    ) -> anyhow::Result<Outcome> {
        let Some(what) = what_is_immutable(&error).filter(|_| !self.object.id.is_secret()) else {
            return Err(explain(error)).context(otherwise);
        };
        may_replace(self.object.id, self.object.body, &what)?;
        let parameters = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.into()) };
        let body = serde_json::to_vec(&under_another_name(self.object.id, self.object.body))?;
        let request = Request::new(&self.path).create(&parameters, body)?;
        match self.client.request::<Value>(request).await {
            Ok(_) => Ok(Outcome::Replaced(what)),
            Err(error) => Err(explain(error)).with_context(|| {
                format!(
                    "{what} cannot be changed in place. The object would not be replaced, because the API server \
                     refuses the new one"
                )
            }),
        }
    }

    async fn live<T: DeserializeOwned>(&self) -> Result<Option<T>, kube::Error> {
        let request = Request::new(&self.path)
            .get(&self.object.id.name, &GetParams::default())
            .map_err(kube::Error::BuildRequest)?;
        match self.client.request(request).await {
            Ok(object) => Ok(Some(object)),
            Err(kube::Error::Api(status)) if status.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    async fn dry_run<T: DeserializeOwned>(&self, body: &Value) -> Result<T, kube::Error> {
        // The controller uses the same field validation.
        let parameters = PatchParams::apply(FIELD_MANAGER).force().dry_run().validation_strict();
        let request = Request::new(&self.path)
            .patch(&self.object.id.name, &parameters, &Patch::Apply(body))
            .map_err(kube::Error::BuildRequest)?
            // The API server reads the body as YAML.
            .map(|body| manifests::json_for_yaml(body.into()).to_vec());
        self.client.request(request).await
    }

    /// Replaces the live object with `object` in a dry run. Returns the object that the API server would store.
    async fn dry_replace<T: DeserializeOwned>(&self, object: &Value) -> Result<T, kube::Error> {
        let parameters = PostParams { dry_run: true, field_manager: Some(FIELD_MANAGER.into()) };
        let body = serde_json::to_vec(object).map_err(kube::Error::SerdeError)?;
        let request = Request::new(&self.path)
            .replace(&self.object.id.name, &parameters, body)
            .map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }

    /// Whether the folder has the manifest of the namespace that the object is in. Then the namespace may not exist
    /// yet, so a dry run in it fails.
    fn comes_with_namespace(&self, in_folder: &BTreeSet<ObjectId>) -> bool {
        self.object.id.namespace.as_ref().is_some_and(|namespace| {
            in_folder.contains(&ObjectId {
                group: String::new(),
                kind: "Namespace".into(),
                namespace: None,
                name: namespace.clone(),
            })
        })
    }
}

/// The field that cannot be changed in place, if the object was refused for this reason.
fn what_is_immutable(error: &kube::Error) -> Option<String> {
    let kube::Error::Api(status) = error else { return None };
    let status: Status = serde_json::from_value(json!(status)).ok()?;
    immutable(status.code.and_then(|code| u16::try_from(code).ok())?, &in_short(&status)?)
}

/// Sets the value at `pointer` in `body` to that in `live`. Pointers into lists are ignored.
fn put_back(body: &mut Value, live: &Map<String, Value>, pointer: &str) {
    let names: Vec<_> = pointer.split('/').skip(1).map(|name| name.replace("~1", "/").replace("~0", "~")).collect();
    let Some((last, parents)) = names.split_last() else { return };
    let (mut from, mut to) = (live, body);
    for name in parents {
        let Some(Value::Object(map)) = from.get(name) else { return };
        from = map;
    }
    let Some(value) = from.get(last) else { return };
    for name in parents {
        let Value::Object(map) = to else { return };
        to = map.entry(name).or_insert_with(|| json!({}));
    }
    if let Value::Object(map) = to {
        map.insert(last.clone(), value.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_to_others_stays_as_it_is() {
        let Value::Object(live) = json!({"spec": {"replicas": 5, "a/b": {"c": 1}, "list": [{"d": 1}]}}) else {
            panic!()
        };
        let mut body = json!({"spec": {"paused": true}});
        for pointer in ["/spec/replicas", "/spec/a~1b/c", "/spec/list/0/d", "/status/none", "nonsense", ""] {
            put_back(&mut body, &live, pointer);
        }
        assert_eq!(body, json!({"spec": {"paused": true, "replicas": 5, "a/b": {"c": 1}}}));
    }
}
