//! One object: live, and as a dry run would leave it.
//!
//! The values of a Secret are read into zeroizing strings, compared, and dropped; nothing that is shown is made of them.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, anyhow};
use crds::{FIELD_MANAGER, names};
use kube::{
    Client, Resource,
    api::{DynamicObject, GetParams, Patch, PatchParams},
    core::Request,
};
use manifests::{Manifest, ObjectId};
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{desired::SERVER_METADATA, kinds::Kinds};

/// `kubectl apply` keeps a copy of everything that it applied in this annotation, a Secret's values included.
const KUBECTL_COPY: &str = "kubectl.kubernetes.io/last-applied-configuration";

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

/// Whether an object is a core Secret.
pub fn is_secret(id: &ObjectId) -> bool {
    id.group.is_empty() && id.kind == "Secret"
}

/// Whether an object is a SealedSecret.
pub fn is_sealed_secret(id: &ObjectId) -> bool {
    id.group == "bitnami.com" && id.kind == "SealedSecret"
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
    manifest: &Manifest,
) -> anyhow::Result<Outcome> {
    let id = &manifest.id;
    let Some(resource) = kinds.resource(manifest) else {
        if kinds.is_defined(manifest) {
            return Ok(Outcome::Created { keys: Vec::new() });
        }
        return Err(anyhow!(
            "the cluster does not know the kind {} of {}",
            id.kind,
            manifest.api_version()
        ));
    };
    let requests = Requests {
        client,
        path: DynamicObject::url_path(resource, id.namespace.as_deref()),
        manifest,
    };
    if is_secret(id) {
        let of_secret = |error: kube::Error| match error {
            kube::Error::Api(status) => anyhow!(
                "the API server refuses the Secret: {} ({})",
                status.reason,
                status.code
            ),
            kube::Error::SerdeError(_) => anyhow!("the API server's answer is not a Secret"),
            other => anyhow!(other),
        };
        return requests.outcome::<Secret>(in_folder, of_secret).await;
    }
    requests
        .outcome::<Plain>(in_folder, anyhow::Error::new)
        .await
}

struct Requests<'a> {
    client: &'a Client,
    path: String,
    manifest: &'a Manifest,
}

impl Requests<'_> {
    async fn outcome<T: Comparable>(
        &self,
        in_folder: &BTreeSet<ObjectId>,
        explain: impl Fn(kube::Error) -> anyhow::Error,
    ) -> anyhow::Result<Outcome> {
        let live: Option<T> = self
            .live()
            .await
            .map_err(&explain)
            .context("cannot read the live object")?;
        match (live, self.dry_run::<T>().await) {
            (Some(live), Ok(applied)) => Ok(difference(live.shown(), applied.shown())),
            (None, Ok(applied)) => Ok(Outcome::Created {
                keys: applied.shown().values.into_keys().collect(),
            }),
            (None, Err(kube::Error::Api(status)))
                if status.is_not_found() && self.comes_with_namespace(in_folder) =>
            {
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
        let parameters = PatchParams {
            dry_run: true,
            ..PatchParams::apply(FIELD_MANAGER).force()
        };
        let request = Request::new(&self.path)
            .patch(
                &self.manifest.id.name,
                &parameters,
                &Patch::Apply(&self.manifest.body),
            )
            .map_err(kube::Error::BuildRequest)?;
        self.client.request(request).await
    }

    /// A dry run in a namespace that is still to be made finds no namespace.
    fn comes_with_namespace(&self, in_folder: &BTreeSet<ObjectId>) -> bool {
        self.manifest
            .id
            .namespace
            .as_ref()
            .is_some_and(|namespace| {
                in_folder.contains(&ObjectId {
                    group: String::new(),
                    kind: "Namespace".into(),
                    namespace: None,
                    name: namespace.clone(),
                })
            })
    }
}

/// An object as it is compared: what is shown, and apart from it the values that are not.
struct Shown {
    object: Value,
    values: BTreeMap<String, Hidden>,
}

/// A value that is compared and never shown; its memory is zeroed.
#[derive(PartialEq)]
struct Hidden(Zeroizing<String>);

impl From<String> for Hidden {
    fn from(value: String) -> Self {
        Self(Zeroizing::new(value))
    }
}

impl<'de> Deserialize<'de> for Hidden {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer).map(Self::from)
    }
}

trait Comparable: DeserializeOwned {
    fn shown(self) -> Shown;
}

/// Any object but a Secret.
#[derive(Deserialize)]
#[serde(transparent)]
struct Plain(Map<String, Value>);

impl Comparable for Plain {
    fn shown(self) -> Shown {
        let Self(mut object) = self;
        let mut values = BTreeMap::new();
        if object.get("kind").and_then(Value::as_str) == Some("SealedSecret") {
            // Sealing the same value twice gives two texts: that they differ is all that a reader can make of them.
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                for field in ["encryptedData", "data"] {
                    match spec.remove(field) {
                        Some(Value::Object(sealed)) => {
                            let texts = sealed.into_iter().map(|(key, value)| {
                                (format!("{field}.{key}"), Hidden::from(value.to_string()))
                            });
                            values.extend(texts);
                        }
                        Some(whole) => {
                            values.insert(field.to_owned(), Hidden::from(whole.to_string()));
                        }
                        None => {}
                    }
                }
            }
        }
        Shown {
            object: without_noise(object),
            values,
        }
    }
}

/// A Secret with its values in memory that is zeroed.
#[derive(Deserialize)]
struct Secret {
    metadata: Map<String, Value>,
    #[serde(rename = "type")]
    type_: Option<String>,
    immutable: Option<bool>,
    #[serde(default)]
    data: BTreeMap<String, Hidden>,
}

impl Comparable for Secret {
    fn shown(self) -> Shown {
        let mut object = Map::new();
        object.insert("metadata".into(), Value::Object(self.metadata));
        object.insert("type".into(), json!(self.type_));
        object.insert("immutable".into(), json!(self.immutable));
        object.retain(|_, value| !value.is_null());
        let values = self
            .data
            .into_iter()
            .map(|(key, value)| (format!("data.{key}"), value))
            .collect();
        Shown {
            object: without_noise(object),
            values,
        }
    }
}

/// Drops what only the API server writes, and the labels that say which Sync owns the object.
fn without_noise(mut object: Map<String, Value>) -> Value {
    object.remove("status");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in SERVER_METADATA {
            metadata.remove(field);
        }
        for (field, keys) in [
            ("labels", &[names::SYNC_NAME, names::SYNC_NAMESPACE][..]),
            ("annotations", &[KUBECTL_COPY]),
        ] {
            if let Some(map) = metadata.get_mut(field).and_then(Value::as_object_mut) {
                map.retain(|key, _| !keys.contains(&key.as_str()));
                if map.is_empty() {
                    metadata.remove(field);
                }
            }
        }
    }
    Value::Object(object)
}

fn difference(live: Shown, applied: Shown) -> Outcome {
    let mut keys = BTreeMap::new();
    for (key, value) in &applied.values {
        match live.values.get(key) {
            None => _ = keys.insert(key.clone(), KeyChange::Added),
            Some(old) if old != value => _ = keys.insert(key.clone(), KeyChange::Changed),
            Some(_) => {}
        }
    }
    let removed = live
        .values
        .keys()
        .filter(|key| !applied.values.contains_key(*key));
    keys.extend(removed.map(|key| (key.clone(), KeyChange::Removed)));
    if keys.is_empty() && live.object == applied.object {
        return Outcome::Unchanged;
    }
    Outcome::Changed {
        diff: super::text::unified(&live.object, &applied.object),
        keys,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(data: Value, annotations: Value) -> Shown {
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "type": "Opaque", "data": data,
            "metadata": {"name": "db", "uid": "1", "managedFields": [{"manager": "x"}], "annotations": annotations}});
        serde_json::from_value::<Secret>(secret).unwrap().shown()
    }

    #[test]
    fn of_a_secret_only_the_keys_are_shown() {
        let copy = json!({KUBECTL_COPY: "{\"data\":{\"password\":\"aHVudGVyMg==\"}}"});
        let live = secret(
            json!({"password": "aHVudGVyMg==", "user": "YQ==", "old": "bw=="}),
            copy,
        );
        let applied = secret(
            json!({"password": "c2VjcmV0", "user": "YQ==", "new": "bg=="}),
            json!({"team": "shop"}),
        );
        let Outcome::Changed { diff, keys } = difference(live, applied) else {
            panic!("it changed")
        };
        let expected = [
            ("data.new", KeyChange::Added),
            ("data.old", KeyChange::Removed),
            ("data.password", KeyChange::Changed),
        ];
        assert!(
            keys.iter()
                .map(|(key, change)| (key.as_str(), *change))
                .eq(expected),
            "{keys:?}"
        );
        assert!(diff.contains("+    team: shop"), "{diff}");
        for value in ["aHVudGVyMg", "c2VjcmV0", "YQ==", "bg==", "bw=="] {
            assert!(!diff.contains(value), "{diff}");
        }
    }

    #[test]
    fn what_only_the_server_writes_is_no_difference() {
        let object = |version: &str| {
            let object = json!({"kind": "ConfigMap", "metadata": {"name": "a", "resourceVersion": version,
                "labels": {names::SYNC_NAME: version}}, "data": {"a": "b"}, "status": {"x": version}});
            serde_json::from_value::<Plain>(object).unwrap().shown()
        };
        assert_eq!(difference(object("1"), object("2")), Outcome::Unchanged);
    }

    #[test]
    fn sealed_values_are_told_by_key() {
        let object = |value: &str| {
            let object = json!({"kind": "SealedSecret", "metadata": {"name": "a"},
                "spec": {"encryptedData": {"a": value, "b": "AgB"}, "template": {"type": "Opaque"}}});
            serde_json::from_value::<Plain>(object).unwrap().shown()
        };
        let Outcome::Changed { diff, keys } = difference(object("AgX"), object("AgY")) else {
            panic!("it changed")
        };
        assert_eq!(diff, "");
        assert_eq!(
            keys,
            BTreeMap::from([("encryptedData.a".to_owned(), KeyChange::Changed)])
        );
    }
}
