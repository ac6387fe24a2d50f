//! Writes a Secret with get, create and update only, because the roles that the Sealed Secrets project installs do not
//! allow patch.
//!
//! The result is the same as that of a server-side apply: the same content, owned by the same field manager. So the
//! rest of the controller (drift, digests, values of others) need not know how the Secret was written. This takes three
//! requests instead of one: a read, a write of the content, and a write of the ownership. The third request is needed
//! because an update makes the writer the owner only of the fields that it changes.
//!
//! # Caveats
//! As with Sealed Secrets, the next write removes labels and annotations that others added to the Secret of a
//! SealedSecret; a server-side apply would keep them. If values are merged into a Secret with the annotation `patch`, a
//! value that is removed from the SealedSecret stays in the Secret.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use pipeline::Resource;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use unsealing::secret_json;
use zeroize::Zeroizing;

use super::{
    Written,
    answer::{ApiError, MetadataOnly},
    api::Api,
};

/// A Secret, whose values are in memory that is wiped afterwards.
#[derive(Default, Deserialize)]
struct Document {
    #[serde(default)]
    metadata: Map<String, Value>,
    #[serde(rename = "type")]
    type_: Option<String>,
    immutable: Option<bool>,
    #[serde(default)]
    data: BTreeMap<String, Bytes>,
}

struct Bytes(Zeroizing<Vec<u8>>);

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = Zeroizing::new(String::deserialize(deserializer)?);
        let bytes = STANDARD.decode(text.as_bytes()).map_err(|_| serde::de::Error::custom("not base64"))?;
        Ok(Self(Zeroizing::new(bytes)))
    }
}

impl Api {
    /// Like [`Api::apply`], but needs only the rights to get, create and update Secrets, not the right to patch them.
    pub(super) async fn replace_secret(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        body: &[u8],
    ) -> Result<Written, ApiError> {
        // The error has only the position, because the parser's own message may quote a value.
        let ours: Document = serde_json::from_slice(body)
            .map_err(|error| ApiError::Answer(format!("line {} column {}", error.line(), error.column())))?;
        let path = resource.path(namespace, Some(name));
        let existing = match self.read::<Document>(&path).await {
            Ok(existing) => Some(existing),
            Err(error) if error.is_not_found() => None,
            Err(error) => return Err(error),
        };
        // Without this check, a Secret that was deleted would be created with a resource version, which the API server
        // does not allow.
        let version = |secret: &Document| secret.metadata.get("resourceVersion").cloned();
        if version(&ours).is_some() && version(&ours) != existing.as_ref().and_then(version) {
            return Err(ApiError::changed());
        }
        let is_new = existing.is_none();
        let owned = ours.fields();
        let mut wanted = existing.map_or_else(|| ours.renewed(None), |existing| existing.with(&ours));
        let first = if is_new {
            self.write_secret(Method::POST, &resource.path(namespace, None), &wanted).await?
        } else {
            self.write_secret(Method::PUT, &path, &wanted).await?
        };
        wanted.metadata.insert("resourceVersion".into(), json!(first.resource_version));
        wanted.metadata.insert("managedFields".into(), managed_fields(&first, &wanted, owned));
        let meta = self.write_secret(Method::PUT, &path, &wanted).await?;
        Ok(Written::of(resource, &meta, is_new))
    }

    async fn write_secret(&self, method: Method, path: &str, secret: &Document) -> Result<ObjectMeta, ApiError> {
        let path = format!("{path}?fieldManager={}&fieldValidation=Strict", crds::FIELD_MANAGER);
        let (_, written) = self.send_json::<MetadataOnly>(method, &path, secret.json()).await?;
        Ok(written.metadata)
    }
}

impl Document {
    /// This Secret after `ours` has replaced it or, if it has the annotation `patch`, was merged into it.
    fn with(self, ours: &Self) -> Self {
        if !self.is_merged_into() {
            return ours.renewed(Some(&self));
        }
        let mut merged = self;
        for part in ["labels", "annotations"] {
            let Some(Value::Object(more)) = ours.metadata.get(part) else { continue };
            if let Value::Object(map) = merged.metadata.entry(part).or_insert_with(|| json!({})) {
                map.extend(more.clone());
            }
        }
        if let Some(owners) = ours.metadata.get("ownerReferences") {
            merged.metadata.insert("ownerReferences".into(), owners.clone());
        }
        merged.data.extend(ours.data.iter().map(|(key, value)| (key.clone(), Bytes(value.0.clone()))));
        merged
    }

    /// `self` with the metadata that it needs to replace `existing`.
    fn renewed(&self, existing: Option<&Self>) -> Self {
        let mut metadata = self.metadata.clone();
        for kept in ["resourceVersion", "uid", "finalizers"] {
            if let Some(value) = existing.and_then(|existing| existing.metadata.get(kept)) {
                metadata.entry(kept).or_insert_with(|| value.clone());
            }
        }
        Self {
            metadata,
            type_: self.type_.clone(),
            immutable: self.immutable,
            data: self.data.iter().map(|(key, value)| (key.clone(), Bytes(value.0.clone()))).collect(),
        }
    }

    fn is_merged_into(&self) -> bool {
        let annotations = self.metadata.get("annotations").and_then(Value::as_object);
        annotations.is_some_and(|all| all.get(crds::names::PATCH).and_then(Value::as_str) == Some("true"))
    }

    /// The set of the Secret's fields, in the form of `managedFields`.
    fn fields(&self) -> Value {
        let keys = |map: &Map<String, Value>| -> Map<String, Value> {
            map.keys().map(|key| (format!("f:{key}"), json!({}))).collect()
        };
        let mut metadata = Map::new();
        for part in ["labels", "annotations"] {
            if let Some(Value::Object(map)) = self.metadata.get(part).filter(|map| **map != json!({})) {
                metadata.insert(format!("f:{part}"), keys(map).into());
            }
        }
        if let Some(Value::Array(owners)) = self.metadata.get("ownerReferences") {
            let owners = owners.iter().map(|owner| (format!("k:{}", json!({"uid": owner["uid"]})), json!({})));
            metadata.insert("f:ownerReferences".into(), owners.collect::<Map<_, _>>().into());
        }
        if let Some(Value::Array(finalizers)) = self.metadata.get("finalizers") {
            let finalizers = finalizers.iter().map(|finalizer| (format!("v:{finalizer}"), json!({})));
            metadata.insert("f:finalizers".into(), finalizers.collect::<Map<_, _>>().into());
        }
        let data: Map<_, _> = self.data.keys().map(|key| (format!("f:{key}"), json!({}))).collect();
        let mut fields = json!({"f:metadata": metadata, "f:data": data});
        for (name, is_set) in [("f:type", self.type_.is_some()), ("f:immutable", self.immutable.is_some())] {
            if is_set {
                fields[name] = json!({});
            }
        }
        fields
    }

    fn json(&self) -> Zeroizing<Vec<u8>> {
        let mut head = json!({"apiVersion": "v1", "kind": "Secret", "metadata": self.metadata});
        if let Some(type_) = &self.type_ {
            head["type"] = json!(type_);
        }
        if let Some(immutable) = self.immutable {
            head["immutable"] = json!(immutable);
        }
        let values: Vec<(&str, &[u8])> = self.data.iter().map(|(key, value)| (key.as_str(), &value.0[..])).collect();
        secret_json(&head, &values)
    }
}

/// `managedFields` in which our fields look as if we had applied them. Entries of others are kept only if our values
/// were merged into their Secret.
fn managed_fields(written: &ObjectMeta, wanted: &Document, owned: Value) -> Value {
    let is_ours = |manager: Option<&str>| manager == Some(crds::FIELD_MANAGER);
    let others = written.managed_fields.iter().flatten().filter(|entry| !is_ours(entry.manager.as_deref()));
    let merged_into = others.filter(|_| wanted.is_merged_into());
    let mut entries: Vec<Value> = merged_into.map(|entry| json!(entry)).collect();
    entries.push(json!({
        "manager": crds::FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1",
        "fieldsType": "FieldsV1", "fieldsV1": owned,
    }));
    entries.into()
}
