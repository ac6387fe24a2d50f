//! How a Sync renders a chart.

use kube::KubeSchema;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ObjectReference;

/// How the chart in the Sync's folder is rendered.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Helm {
    /// The name of the release. Default: the name of the Sync.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 53), regex(pattern = r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$"))]
    pub release_name: Option<String>,
    /// Values for the chart. They replace values of the same name from `valuesFrom` and from the chart.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    #[schemars(schema_with = "any_values")]
    pub values: Map<String, Value>,
    /// More values for the chart, from files of the same repository or of other Repositories, and from ConfigMaps and Secrets. A
    /// value of a later entry replaces the value of the same name of an earlier entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub values_from: Vec<ValuesFrom>,
    /// What templates may read from the cluster with the function `lookup`. It is read with the rights of the Sync. A change
    /// of it renders the chart again. Every other call of `lookup` is refused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub lookup: Vec<Lookup>,
    /// Whether the CustomResourceDefinitions in the chart's folder `crds/` are applied, also when the chart changes them (`Apply`);
    /// whether only those are made that do not exist, and none is changed (`Create`); or whether all are left out (`Skip`).
    #[serde(default)]
    pub crds: ChartCrds,
    /// Whether the chart's tests (`helm.sh/hook: test`) run for each revision, when all other objects are healthy. The Sync is
    /// Ready only when they have succeeded, also with `wait: false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub test: bool,
}

/// The mistakes of an entry that names a file, a ConfigMap, or a file with sealed values.
pub(crate) const ONE: &str = "set exactly one of file, configMap, secret and sealedSecret";
pub(crate) const REPOSITORY: &str = "repository can only be set with file or sealedSecret";
pub(crate) const OPTIONAL: &str = "optional can only be set with configMap or secret";
const PATH: &str = "path can only be set with secret or sealedSecret, and is required with a key of them";
const KEY: &str = "key can only be set with configMap, secret or sealedSecret";

/// Values for a chart: a file with values, a ConfigMap, a Secret, or sealed values. A file is in the repository of the chart, or in
/// another Repository.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.file), has(self.configMap), has(self.secret), has(self.sealedSecret)].filter(is, is).size() == 1").message(ONE))]
#[x_kube(validation = Rule::new("!has(self.repository) || !has(self.configMap) && !has(self.secret)").message(REPOSITORY))]
#[x_kube(validation = Rule::new("has(self.secret) || has(self.sealedSecret) ? has(self.path) || !has(self.key) : !has(self.path)").message(PATH))]
#[x_kube(validation = Rule::new("!has(self.file) || !has(self.key)").message(KEY))]
#[x_kube(validation = Rule::new("!has(self.optional) || has(self.configMap) || has(self.secret)").message(OPTIONAL))]
pub struct ValuesFrom {
    /// The Repository that contains the file. Default: the Repository of the Sync. A new commit of this Repository has
    /// an effect only if it changes the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<ObjectReference>,
    /// A YAML file with values, by its path in the repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub file: Option<String>,
    /// A ConfigMap in the namespace of the Sync, by its name. It is read with the rights of the Sync. A change of it has
    /// an effect at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map: Option<String>,
    /// A Secret in the namespace of the Sync, by its name. It is read with the rights of the Sync. A change of it has an effect at
    /// once. The chart's templates get a placeholder for each value and never see the value. In the chart's Secrets, the values take
    /// the places of their placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
    /// With `configMap` or `secret`: whether the object may be missing. Then it has no values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
    /// A file with one SealedSecret, by its path in the repository. The chart's templates get a placeholder for each
    /// value and never see the value. In the chart's Secrets, the values take the places of their placeholders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub sealed_secret: Option<String>,
    /// With `configMap`: the key whose text has the values. Default: `values.yaml`. With `secret` or `sealedSecret`: the key of one
    /// value. Default: all keys, each below `path`. Without `path`, each key is the name of a value in the chart, for example
    /// `auth.password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub key: Option<String>,
    /// With `secret` or `sealedSecret`: the name of the value in the chart, as for Helm's `--set`, for example `auth.password`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^={},]+$"))]
    pub path: Option<String>,
}

impl ValuesFrom {
    /// Why the API server would refuse the entry. Without a cluster, only this function refuses it.
    pub fn mistake(&self) -> Option<&'static str> {
        let Self { repository, file, config_map, secret, optional, sealed_secret, key, path } = self;
        let is_secret = secret.is_some() || sealed_secret.is_some();
        if [file, config_map, secret, sealed_secret].into_iter().flatten().count() != 1 {
            Some(ONE)
        } else if repository.is_some() && (config_map.is_some() || secret.is_some()) {
            Some(REPOSITORY)
        } else if path.is_some() && !is_secret || is_secret && key.is_some() && path.is_none() {
            Some(PATH)
        } else if key.is_some() && file.is_some() {
            Some(KEY)
        } else if optional.is_some() && config_map.is_none() && secret.is_none() {
            Some(OPTIONAL)
        } else {
            None
        }
    }

    /// Whether the values are not in the repository of the chart.
    pub fn is_elsewhere(&self) -> bool {
        self.repository.is_some() || self.config_map.is_some() || self.secret.is_some()
    }

    /// The path of the file in its repository, without `./`.
    pub fn path_of_file(&self) -> &str {
        path_of_file(self.sealed_secret.as_deref(), self.file.as_deref())
    }
}

/// The path, without `./`, of the file that an entry names in one of two ways.
pub(crate) fn path_of_file<'a>(sealed_secret: Option<&'a str>, file: Option<&'a str>) -> &'a str {
    sealed_secret.or(file).unwrap_or_default().trim_start_matches("./")
}

const SECRET: &str = "a Secret cannot be looked up, because what is rendered must not have its values; seal the value, and give it \
    to the chart with helm.valuesFrom and sealedSecret";

const ALL_NAMESPACES: &str = "allNamespaces can only be set without namespace and name";

/// An object of the cluster that templates may look up, or all objects of a kind in one namespace or in all of them.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.kind != 'Secret'").message(SECRET))]
#[x_kube(validation = Rule::new("!has(self.allNamespaces) || !self.allNamespaces || !has(self.namespace) && !has(self.name)").message(ALL_NAMESPACES))]
pub struct Lookup {
    /// API version of the object, as in the call of `lookup`.
    #[schemars(length(min = 1, max = 317), regex(pattern = r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?v[a-z0-9]+$"))]
    pub api_version: String,
    /// Kind of the object. Any kind except Secret is allowed.
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Z][A-Za-z0-9]*$"))]
    pub kind: String,
    /// Namespace of the object. Default: the namespace that the chart is rendered for (`.Release.Namespace`). It has no
    /// meaning for a kind without namespaces.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[^/%]+$"))]
    pub namespace: Option<String>,
    /// Name of the object. Default: all objects of the kind in the namespace, at most 100.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = r"^[^/%]+$"))]
    pub name: Option<String>,
    /// All objects of the kind in all namespaces, at most 100. The service account of the Sync needs a ClusterRole with the
    /// right to `list` them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub all_namespaces: bool,
}

impl Lookup {
    /// Why the API server would refuse the entry. Without a cluster, only this function refuses it.
    pub fn mistake(&self) -> Option<&'static str> {
        let is_named = self.namespace.is_some() || self.name.is_some();
        let all_namespaces = (self.all_namespaces && is_named).then_some(ALL_NAMESPACES);
        (self.kind == "Secret").then_some(SECRET).or(all_namespaces)
    }
}

/// See [`Helm::crds`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum ChartCrds {
    /// The definitions are applied, and applied again when the chart changes them.
    #[default]
    Apply,
    /// The definitions that do not exist are made. Those that exist are never changed, whoever made them.
    Create,
    /// The definitions are left out.
    Skip,
}

fn any_values(_: &mut SchemaGenerator) -> Schema {
    json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn an_entry_without_what_it_needs_is_a_mistake() {
        let mistake = |entry: Value| serde_json::from_value::<ValuesFrom>(entry).unwrap().mistake();
        assert_eq!(mistake(json!({"file": "a.yaml"})), None);
        assert_eq!(mistake(json!({"sealedSecret": "a.yaml", "path": "auth"})), None);
        assert_eq!(mistake(json!({"sealedSecret": "a.yaml"})), None);
        assert_eq!(mistake(json!({"repository": {"name": "config"}, "file": "a.yaml"})), None);
        assert_eq!(mistake(json!({"repository": {"name": "config"}})), Some(ONE));
        assert_eq!(mistake(json!({"sealedSecret": "a.yaml", "path": "auth.password", "key": "password"})), None);
        assert_eq!(mistake(json!({})), Some(ONE));
        assert_eq!(mistake(json!({"file": "a.yaml", "sealedSecret": "b.yaml", "path": "auth"})), Some(ONE));
        assert_eq!(mistake(json!({"sealedSecret": "a.yaml", "key": "password"})), Some(PATH));
        assert_eq!(mistake(json!({"file": "a.yaml", "path": "auth"})), Some(PATH));
        assert_eq!(mistake(json!({"file": "a.yaml", "key": "password"})), Some(KEY));
        assert_eq!(mistake(json!({"configMap": "a"})), None);
        assert_eq!(mistake(json!({"configMap": "a", "key": "prod.yaml"})), None);
        assert_eq!(mistake(json!({"configMap": "a", "file": "a.yaml"})), Some(ONE));
        assert_eq!(mistake(json!({"configMap": "a", "repository": {"name": "config"}})), Some(REPOSITORY));
        assert_eq!(mistake(json!({"configMap": "a", "path": "auth"})), Some(PATH));
        assert_eq!(mistake(json!({"configMap": "a", "optional": true})), None);
        assert_eq!(mistake(json!({"secret": "a"})), None);
        assert_eq!(mistake(json!({"secret": "a", "key": "password", "path": "auth.password", "optional": true})), None);
        assert_eq!(mistake(json!({"secret": "a", "key": "password"})), Some(PATH));
        assert_eq!(mistake(json!({"secret": "a", "configMap": "a"})), Some(ONE));
        assert_eq!(mistake(json!({"secret": "a", "repository": {"name": "config"}})), Some(REPOSITORY));
        assert_eq!(mistake(json!({"file": "a.yaml", "optional": true})), Some(OPTIONAL));
        let lookup = |kind: &str| Lookup { api_version: "v1".into(), kind: kind.into(), ..Lookup::default() }.mistake();
        assert_eq!((lookup("ConfigMap"), lookup("Secret")), (None, Some(SECRET)));
        let lookup = |entry: Value| serde_json::from_value::<Lookup>(entry).unwrap().mistake();
        let entry = json!({"apiVersion": "v1", "kind": "Pod", "allNamespaces": true});
        assert_eq!(lookup(entry.clone()), None);
        for field in ["namespace", "name"] {
            let mut entry = entry.clone();
            entry[field] = "a".into();
            assert_eq!(lookup(entry), Some(ALL_NAMESPACES), "{field}");
        }
    }
}
