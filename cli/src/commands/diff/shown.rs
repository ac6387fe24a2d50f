//! The part of an object that is compared and shown.
//!
//! The values of a Secret are compared, and are never shown. They are read into memory that is wiped when it is
//! dropped.

use std::collections::BTreeMap;

use crds::names;
use manifests::SERVER_METADATA;
use serde::{Deserialize, Deserializer, de::DeserializeOwned};
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::compare::{KeyChange, Outcome};

/// In this annotation, `kubectl apply` stores a copy of the object that it applied, including the values of a Secret.
const KUBECTL_COPY: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// An object for the comparison: the part that is shown, and separately the values that are not shown.
pub struct Shown {
    object: Value,
    values: BTreeMap<String, Hidden>,
}

impl Shown {
    /// Keys of the values that are not shown.
    pub fn into_keys(self) -> Vec<String> {
        self.values.into_keys().collect()
    }
}

/// A value that is compared and never shown. Its memory is wiped.
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

/// An object that can be compared with another version of itself.
pub trait Comparable: DeserializeOwned {
    /// The object without the fields that do not matter for the comparison, and separately its values.
    fn shown(self) -> Shown;
    /// The object itself; `None` if it has values that must not be shown.
    fn object(&self) -> Option<&Map<String, Value>> {
        None
    }
}

/// Any object except a Secret.
#[derive(Deserialize)]
#[serde(transparent)]
pub struct Plain(Map<String, Value>);

impl Comparable for Plain {
    fn object(&self) -> Option<&Map<String, Value>> {
        Some(&self.0)
    }

    fn shown(self) -> Shown {
        let Self(mut object) = self;
        let mut values = BTreeMap::new();
        if object.get("kind").and_then(Value::as_str) == Some("SealedSecret") {
            // Sealing the same value twice gives different texts. So for sealed values, only the fact that they
            // differ is shown.
            if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
                for field in ["encryptedData", "data"] {
                    match spec.remove(field) {
                        Some(Value::Object(sealed)) => {
                            let texts = sealed
                                .into_iter()
                                .map(|(key, value)| (format!("{field}.{key}"), Hidden::from(value.to_string())));
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
        Shown { object: without_noise(object), values }
    }
}

/// A Secret whose values are in memory that is wiped.
#[derive(Deserialize)]
pub struct Secret {
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
        let values = self.data.into_iter().map(|(key, value)| (format!("data.{key}"), value)).collect();
        Shown { object: without_noise(object), values }
    }
}

/// Removes what nobody wants to see in a diff: fields that only the API server writes, the labels with the name of the Sync, and
/// kubectl's copy of the object.
fn without_noise(mut object: Map<String, Value>) -> Value {
    object.remove("status");
    if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
        for field in SERVER_METADATA {
            metadata.remove(field);
        }
        for (field, keys) in [
            ("labels", &[names::SYNC_NAME, names::SYNC_NAMESPACE][..]),
            ("annotations", &[KUBECTL_COPY, names::MADE_FROM]),
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

/// What applying would change, if anything.
pub fn difference(live: Shown, applied: Shown) -> Outcome {
    let mut keys = BTreeMap::new();
    for (key, value) in &applied.values {
        match live.values.get(key) {
            None => _ = keys.insert(key.clone(), KeyChange::Added),
            Some(old) if old != value => _ = keys.insert(key.clone(), KeyChange::Changed),
            Some(_) => {}
        }
    }
    let removed = live.values.keys().filter(|key| !applied.values.contains_key(*key));
    keys.extend(removed.map(|key| (key.clone(), KeyChange::Removed)));
    if keys.is_empty() && live.object == applied.object {
        return Outcome::Unchanged;
    }
    Outcome::Changed { diff: super::text::unified(&live.object, &applied.object), keys }
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
        let live = secret(json!({"password": "aHVudGVyMg==", "user": "YQ==", "old": "bw=="}), copy);
        let applied = secret(json!({"password": "c2VjcmV0", "user": "YQ==", "new": "bg=="}), json!({"team": "shop"}));
        let Outcome::Changed { diff, keys } = difference(live, applied) else { panic!("it changed") };
        let expected =
            [("data.new", KeyChange::Added), ("data.old", KeyChange::Removed), ("data.password", KeyChange::Changed)];
        assert!(keys.iter().map(|(key, change)| (key.as_str(), *change)).eq(expected), "{keys:?}");
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
        let Outcome::Changed { diff, keys } = difference(object("AgX"), object("AgY")) else { panic!("it changed") };
        assert_eq!(diff, "");
        assert_eq!(keys, BTreeMap::from([("encryptedData.a".to_owned(), KeyChange::Changed)]));
    }
}
