//! The settings in a Sync's spec that concern its folder.

use std::fmt;

use crds::{ObjectKey, ObjectReference, Sync};
use sha2::{Digest, Sha256};

use crate::Resource;

/// The key of the Repository that `sync` names.
pub fn repository_of(sync: &Sync) -> ObjectKey {
    let own = sync.metadata.namespace.clone().unwrap_or_default();
    let reference = &sync.spec.repository;
    ObjectKey::new(reference.namespace.clone().unwrap_or(own), reference.name.clone())
}

/// An entry of a Sync that names an input: something that its folder is rendered with and that is not in its repository.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub enum Entry {
    /// The entry of `spec.helm.valuesFrom` with this index.
    Values(usize),
    /// The entry of `spec.substituteFrom` with this index.
    Variables(usize),
    /// The entry of `spec.helm.lookup` with this index.
    Lookup(usize),
}

/// The field of the Sync.
impl fmt::Display for Entry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Values(index) => write!(f, "spec.helm.valuesFrom[{index}]"),
            Self::Variables(index) => write!(f, "spec.substituteFrom[{index}]"),
            Self::Lookup(index) => write!(f, "spec.helm.lookup[{index}]"),
        }
    }
}

/// A file with values or variables for a Sync, in another Repository than its own.
#[derive(Clone, Copy, Debug)]
pub struct OtherFile<'a> {
    /// The entry that names the file.
    pub entry: Entry,
    repository: &'a ObjectReference,
    own_namespace: &'a str,
    /// The path of the file in that Repository.
    pub path: &'a str,
}

impl OtherFile<'_> {
    /// The Repository with the file.
    pub fn repository(&self) -> ObjectKey {
        let ObjectReference { name, namespace } = self.repository;
        ObjectKey::new(namespace.as_deref().unwrap_or(self.own_namespace), name.as_str())
    }

    /// How messages name the file.
    pub fn name(&self) -> String {
        format!("Repository {}: {}", self.repository(), self.path)
    }
}

/// The files in other Repositories that `sync` gets values and variables from.
pub fn other_files(sync: &Sync) -> impl Iterator<Item = OtherFile<'_>> {
    let own_namespace = sync.metadata.namespace.as_deref().unwrap_or_default();
    let values = sync.spec.helm.iter().flat_map(|helm| &helm.values_from).enumerate();
    let values = values.map(|(index, entry)| (Entry::Values(index), entry.repository.as_ref(), entry.path_of_file()));
    let variables = sync.spec.substitution.substitute_from.iter().enumerate();
    let variables =
        variables.map(|(index, entry)| (Entry::Variables(index), entry.repository.as_ref(), entry.path_of_file()));
    values.chain(variables).filter_map(move |(entry, repository, path)| {
        Some(OtherFile { entry, repository: repository?, own_namespace, path })
    })
}

/// A ConfigMap or Secret with values or variables for a Sync.
#[derive(Clone, Copy, Debug)]
pub struct InputMap<'a> {
    /// The entry that names the ConfigMap or Secret.
    pub entry: Entry,
    /// Whether it is a Secret.
    pub is_secret: bool,
    /// Its namespace, which is that of the Sync.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// The key whose text has the values. `None` if each key is a variable. For a Secret, `None` if each key is a value.
    pub key: Option<&'a str>,
    /// Whether it may be missing.
    pub is_optional: bool,
}

impl InputMap<'_> {
    /// The kind.
    pub fn kind(&self) -> &'static str {
        if self.is_secret { "Secret" } else { "ConfigMap" }
    }

    /// The same kind, for requests.
    pub fn resource(&self) -> Resource {
        if self.is_secret { Resource::secrets() } else { Resource::config_maps() }
    }

    /// How messages name the ConfigMap or Secret.
    pub fn map(&self) -> String {
        format!("{} {}/{}", self.kind(), self.namespace, self.name)
    }

    /// How messages name the values or variables.
    pub fn place(&self) -> String {
        match self.key {
            Some(key) => format!("{}: {key}", self.map()),
            None => self.map(),
        }
    }
}

/// The ConfigMaps and Secrets that `sync` gets values and variables from.
pub fn input_maps(sync: &Sync) -> impl Iterator<Item = InputMap<'_>> {
    let namespace = sync.metadata.namespace.as_deref().unwrap_or_default();
    let values = sync.spec.helm.iter().flat_map(|helm| &helm.values_from).enumerate();
    let values = values.filter_map(move |(index, from)| {
        let (is_secret, name) = map_or_secret(from.config_map.as_deref(), from.secret.as_deref())?;
        let is_optional = from.optional == Some(true);
        let key = if is_secret { from.key.as_deref() } else { Some(from.key.as_deref().unwrap_or("values.yaml")) };
        Some(InputMap { entry: Entry::Values(index), is_secret, namespace, name, key, is_optional })
    });
    let variables = sync.spec.substitution.substitute_from.iter().enumerate();
    let variables = variables.filter_map(move |(index, from)| {
        let (is_secret, name) = map_or_secret(from.config_map.as_deref(), from.secret.as_deref())?;
        let is_optional = from.optional == Some(true);
        Some(InputMap { entry: Entry::Variables(index), is_secret, namespace, name, key: None, is_optional })
    });
    values.chain(variables)
}

/// Whether an entry names a Secret, and the name of its ConfigMap or Secret; `None` if it names neither.
fn map_or_secret<'a>(config_map: Option<&'a str>, secret: Option<&'a str>) -> Option<(bool, &'a str)> {
    config_map.map(|name| (false, name)).or(secret.map(|name| (true, name)))
}

/// What the templates of a chart may look up in the cluster: an object, or all objects of a kind in one or all namespaces.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Looked<'a> {
    /// The entry that names it.
    pub entry: Entry,
    /// The API version.
    pub api_version: &'a str,
    /// The kind.
    pub kind: &'a str,
    /// The namespace, if the kind has namespaces; `None` for all namespaces.
    pub namespace: Option<&'a str>,
    /// The name; `None` for all objects of the kind in the namespace.
    pub name: Option<&'a str>,
}

impl Looked<'_> {
    /// The API group and the version.
    pub fn group_and_version(&self) -> (&str, &str) {
        self.api_version.split_once('/').unwrap_or(("", self.api_version))
    }

    /// The object in messages, if the kind has namespaces or if it has none.
    pub fn what(&self, is_namespaced: bool) -> String {
        let Self { api_version, kind, namespace, .. } = self;
        match (self.name, namespace.filter(|_| is_namespaced)) {
            (Some(name), Some(namespace)) => format!("{api_version} {kind} {namespace}/{name}"),
            (Some(name), None) => format!("{api_version} {kind} {name}"),
            (None, Some(namespace)) => format!("all {api_version} {kind} in {namespace}"),
            (None, None) if is_namespaced => format!("all {api_version} {kind} in all namespaces"),
            (None, None) => format!("all {api_version} {kind}"),
        }
    }

    /// What to do if the entry stands for too many objects.
    pub fn fewer(&self, is_namespaced: bool) -> &'static str {
        if is_namespaced && self.namespace.is_none() {
            "instead of allNamespaces, name the namespaces that the chart needs, each in an entry of its own, and look the \
             objects up in each of them; then objects in other namespaces do not count"
        } else {
            "name one object there, or a namespace with fewer of them"
        }
    }
}

/// What the templates of the chart of `sync` may look up.
pub fn lookups(sync: &Sync) -> impl Iterator<Item = Looked<'_>> {
    let entries = sync.spec.helm.iter().flat_map(|helm| &helm.lookup).enumerate();
    entries.map(move |(index, crds::Lookup { api_version, kind, namespace, name, all_namespaces })| Looked {
        entry: Entry::Lookup(index),
        api_version,
        kind,
        namespace: (!all_namespaces).then(|| namespace.as_deref().unwrap_or_else(|| namespace_for(sync, None))),
        name: name.as_deref(),
    })
}

/// Whether a render of `sync` needs something that is not in its repository.
pub fn has_inputs(sync: &Sync) -> bool {
    chart_has_inputs(sync) || variables_have_inputs(sync)
}

fn chart_has_inputs(sync: &Sync) -> bool {
    let is_elsewhere = |helm: &crds::Helm| helm.values_from.iter().any(crds::ValuesFrom::is_elsewhere);
    sync.spec.helm.as_ref().is_some_and(|helm| !helm.lookup.is_empty() || is_elsewhere(helm))
}

fn variables_have_inputs(sync: &Sync) -> bool {
    sync.spec.substitution.substitute_from.iter().any(crds::SubstituteFrom::is_elsewhere)
}

/// The folder of `sync`, as a path inside the repository without `./` and trailing slashes.
pub fn path_of(sync: &Sync) -> &str {
    let path = sync.spec.path.trim_start_matches("./").trim_end_matches('/');
    if path == "." { "" } else { path }
}

/// What a Sync renders. If two Syncs have the same folder, they share the result only if they render the folder in the
/// same way.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Target {
    /// The folder, as [`path_of`] gives it.
    pub path: String,
    /// If the folder is rendered as a chart: a digest of the settings of the render, which include the name and the
    /// namespace of the release.
    pub chart: Option<String>,
    /// If the Sync changes what is rendered: a digest of these changes.
    pub changes: Option<String>,
}

impl Target {
    /// What `sync` renders.
    pub fn of(sync: &Sync) -> Self {
        let chart = sync.spec.helm.as_ref().map(|helm| {
            let mut settings = vec![
                serde_json::json!(release_name(sync)),
                serde_json::json!(namespace_for(sync, None)),
                serde_json::json!(sync.spec.target_namespace),
                serde_json::json!(helm),
            ];
            // Syncs of different namespaces may mean different Repositories and ConfigMaps by the same name.
            if chart_has_inputs(sync) {
                settings.push(serde_json::json!(sync.metadata.namespace));
            }
            digest_of(&settings.into())
        });
        let overlay = &sync.spec.overlay;
        let namespaces = [Some(namespace_for(sync, None)), sync.spec.target_namespace.as_deref()];
        let mut changes = serde_json::json!([namespaces, overlay]);
        let substitution = Some(&sync.spec.substitution).filter(|substitution| substitution.is_wanted());
        // The substitution is added only if the Sync has one, so that other Syncs have the same digest as in older
        // versions.
        if let (Some(substitution), Some(changes)) = (substitution, changes.as_array_mut()) {
            // The version is a part of the digest, because another release of gitseal may know the types of more
            // fields.
            changes.push(serde_json::json!([substitution, env!("CARGO_PKG_VERSION")]));
            if variables_have_inputs(sync) {
                changes.push(serde_json::json!(sync.metadata.namespace));
            }
        }
        let is_changed = !overlay.is_empty() || substitution.is_some();
        let changes = is_changed.then(|| digest_of(&changes));
        Self { path: path_of(sync).to_owned(), chart, changes }
    }

    /// The folder `path` for a Sync that renders no chart and changes none of the objects.
    pub fn folder(path: &str) -> Self {
        Self { path: path.to_owned(), chart: None, changes: None }
    }
}

/// The name of the release, if `sync` renders a chart.
pub fn release_name(sync: &Sync) -> &str {
    let named = sync.spec.helm.as_ref().and_then(|helm| helm.release_name.as_deref());
    named.or(sync.metadata.name.as_deref()).unwrap_or_default()
}

/// The namespace of an object of a namespaced kind: the Sync's target, or else the object's own, or else the Sync's
/// own.
pub fn namespace_for<'a>(sync: &'a Sync, own: Option<&'a str>) -> &'a str {
    let target = sync.spec.target_namespace.as_deref();
    target.or(own).unwrap_or_else(|| sync.metadata.namespace.as_deref().unwrap_or_default())
}

/// Digest of the settings of the Sync that change what is applied. It is compared like the content of the folder, so a
/// change of these settings causes a pass as a commit does.
pub fn settings_digest(sync: &Sync) -> String {
    let spec = &sync.spec;
    let mut settings = vec![
        serde_json::json!(path_of(sync)),
        serde_json::json!(spec.target_namespace),
        serde_json::json!(spec.service_account_name),
        serde_json::json!(spec.ignore_differences),
        serde_json::json!(spec.prune),
    ];
    // These are added only if they are set, so that Syncs without them have the same digest as in older versions.
    settings.extend(spec.helm.as_ref().map(|helm| serde_json::json!(helm)));
    settings.extend((!spec.overlay.is_empty()).then(|| serde_json::json!({ "overlay": spec.overlay })));
    settings.extend(spec.restart_on_secret_change.then(|| serde_json::json!("restartOnSecretChange")));
    settings.extend(spec.substitution.is_wanted().then(|| serde_json::json!(spec.substitution)));
    hex(&Sha256::digest(serde_json::Value::from(settings).to_string())[..4])
}

fn digest_of(settings: &serde_json::Value) -> String {
    hex(&Sha256::digest(settings.to_string())[..16])
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::fixtures;

    /// A Sync of a namespace whose chart gets values from this entry of `valuesFrom`.
    fn sync(namespace: &str, entry: &serde_json::Value) -> Sync {
        let helm = json!({"releaseName": "web", "valuesFrom": [{"file": "own.yaml"}, entry]});
        let spec = json!({"repository": {"name": "fleet"}, "path": "chart", "targetNamespace": "shop", "helm": helm});
        let metadata = json!({"name": "web", "namespace": namespace});
        serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap()
    }

    #[test]
    fn a_repository_without_a_namespace_is_one_of_the_sync() {
        let of = |entry: serde_json::Value| {
            let sync = sync("team", &entry);
            other_files(&sync).map(|file| (file.name(), file.entry.to_string())).collect::<Vec<_>>()
        };
        let field = "spec.helm.valuesFrom[1]".to_owned();
        let entry = json!({"repository": {"name": "config"}, "file": "./a.yaml"});
        assert_eq!(of(entry), [("Repository team/config: a.yaml".to_owned(), field.clone())]);
        let entry =
            json!({"repository": {"name": "config", "namespace": "other"}, "sealedSecret": "b.yaml", "path": "a"});
        assert_eq!(of(entry), [("Repository other/config: b.yaml".to_owned(), field)]);
        assert_eq!(of(json!({"file": "a.yaml"})), []);
    }

    #[test]
    fn the_same_chart_with_the_same_settings_is_another_one_in_another_namespace_if_it_has_inputs() {
        let are_equal = |entry| Target::of(&sync("one", &entry)) == Target::of(&sync("two", &entry));
        assert!(are_equal(json!({"file": "a.yaml"})));
        assert!(!are_equal(json!({"repository": {"name": "config"}, "file": "a.yaml"})));
        assert!(!are_equal(json!({"configMap": "settings"})));
        assert!(!are_equal(json!({"secret": "settings"})));
    }

    #[test]
    fn variables_of_another_namespace_are_others() {
        let target = |namespace: &str, entry: serde_json::Value| {
            let spec = json!({"repository": {"name": "fleet"}, "substituteFrom": [entry], "targetNamespace": "shop"});
            let metadata = json!({"name": "web", "namespace": namespace});
            let sync: Sync = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            (Target::of(&sync), has_inputs(&sync), input_maps(&sync).count() + other_files(&sync).count())
        };
        let are_equal = |entry: serde_json::Value| target("one", entry.clone()) == target("two", entry);
        let (own, map) = (json!({"file": "a.env"}), json!({"configMap": "settings"}));
        let other = json!({"repository": {"name": "config"}, "file": "a.env"});
        assert!(are_equal(own.clone()) && !are_equal(map.clone()) && !are_equal(other.clone()));
        let secret = json!({"secret": "settings"});
        assert!(!are_equal(secret.clone()));
        for (entry, inputs) in [(own, 0), (map, 1), (secret, 1), (other, 1)] {
            let (_, has_inputs, count) = target("one", entry);
            assert_eq!((has_inputs, count), (inputs > 0, inputs));
        }
    }

    #[test]
    fn an_object_without_a_namespace_is_looked_up_where_the_chart_is_rendered_for() {
        let entries = json!([
            {"apiVersion": "v1", "kind": "Service", "name": "a"},
            {"apiVersion": "apps/v1", "kind": "Deployment", "namespace": "other"},
            {"apiVersion": "v1", "kind": "Pod", "allNamespaces": true},
        ]);
        let of = |target: Option<&str>| {
            let spec = json!({"repository": {"name": "fleet"}, "targetNamespace": target, "helm": {"lookup": entries}});
            let metadata = json!({"name": "web", "namespace": "team"});
            let sync: Sync = serde_json::from_value(json!({"metadata": metadata, "spec": spec})).unwrap();
            let found: Vec<_> = lookups(&sync).map(|one| format!("{}: {}", one.entry, one.what(true))).collect();
            assert!(has_inputs(&sync));
            found
        };
        let others = "spec.helm.lookup[1]: all apps/v1 Deployment in other";
        let all = "spec.helm.lookup[2]: all v1 Pod in all namespaces";
        assert_eq!(of(None), ["spec.helm.lookup[0]: v1 Service team/a", others, all]);
        assert_eq!(of(Some("shop")), ["spec.helm.lookup[0]: v1 Service shop/a", others, all]);
    }

    #[test]
    fn variables_are_a_part_of_the_settings_only_if_there_are_any() {
        let (plain, prefixed) = (fixtures::sync(json!({})), fixtures::sync(json!({"namePrefix": "p-"})));
        assert_eq!(Target::of(&plain).changes, None);
        // This is the digest that an earlier version made.
        let changes = digest_of(&json!([["team", null], prefixed.spec.overlay]));
        assert_eq!(Target::of(&prefixed).changes, Some(changes));
        let with = [
            json!({"substitute": {}}),
            json!({"substitute": {"a": "b"}}),
            json!({"substitute": {"a": "c"}}),
            json!({"substituteFrom": [{"file": "a"}]}),
            json!({"substituteFrom": [{"sealedSecret": "a"}]}),
            json!({"substitute": {"a": "b"}, "namePrefix": "p-"}),
        ];
        let with = with.map(fixtures::sync);
        let mut targets: Vec<_> = [&plain, &prefixed].into_iter().chain(&with).map(Target::of).collect();
        let mut digests: Vec<_> = [&plain, &prefixed].into_iter().chain(&with).map(settings_digest).collect();
        targets.sort();
        targets.dedup();
        digests.sort();
        digests.dedup();
        assert_eq!((targets.len(), digests.len()), (8, 8));
    }
}
