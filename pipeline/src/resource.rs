//! Kinds of objects, as an API server serves them.

use std::{collections::HashMap, sync::Arc};

use manifests::Manifest;

/// A kind as the API server serves it.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Resource {
    /// API group; empty for the core group.
    pub group: String,
    /// Version without the group.
    pub version: String,
    /// Name of the kind.
    pub kind: String,
    /// Name in URLs, for example `deployments`.
    pub plural: String,
    /// Whether objects of the kind are in namespaces.
    pub namespaced: bool,
    /// Whether the kind can be listed and watched.
    pub watchable: bool,
}

impl Resource {
    /// The kind Secret.
    pub fn secrets() -> Self {
        Self::core("Secret", "secrets")
    }

    /// The kind ConfigMap.
    pub fn config_maps() -> Self {
        Self::core("ConfigMap", "configmaps")
    }

    /// The kind ServiceAccount.
    pub fn service_accounts() -> Self {
        Self::core("ServiceAccount", "serviceaccounts")
    }

    fn core(kind: &str, plural: &str) -> Self {
        Self {
            group: String::new(),
            version: "v1".into(),
            kind: kind.into(),
            plural: plural.into(),
            namespaced: true,
            watchable: true,
        }
    }

    /// The kind SealedSecret.
    pub fn sealed_secrets() -> Self {
        Self {
            group: "bitnami.com".into(),
            version: "v1alpha1".into(),
            kind: "SealedSecret".into(),
            plural: "sealedsecrets".into(),
            namespaced: true,
            watchable: true,
        }
    }

    /// Whether this is the kind Secret.
    pub fn is_secrets(&self) -> bool {
        self.group.is_empty() && self.kind == "Secret"
    }

    /// `group/version`, or `version` for the core group.
    pub fn api_version(&self) -> String {
        match self.group.as_str() {
            "" => self.version.clone(),
            group => format!("{group}/{}", self.version),
        }
    }

    /// URL path of the collection, or of the object `name`.
    pub fn path(&self, namespace: Option<&str>, name: Option<&str>) -> String {
        let mut path = match self.group.as_str() {
            "" => format!("/api/{}", self.version),
            group => format!("/apis/{group}/{}", self.version),
        };
        if let (true, Some(namespace)) = (self.namespaced, namespace) {
            path.push_str("/namespaces/");
            path.push_str(&escape_segment(namespace));
        }
        path.push('/');
        path.push_str(&self.plural);
        if let Some(name) = name {
            path.push('/');
            path.push_str(&escape_segment(name));
        }
        path
    }
}

/// Percent-encodes characters that must not be in one segment of a URL's path. This is needed because tenants choose
/// the names of objects.
pub fn escape_segment(segment: &str) -> String {
    let mut out = String::with_capacity(segment.len());
    for byte in segment.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' | b':' => out.push(char::from(byte)),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

/// The kinds of a folder's objects, by group, version and kind. They are looked up before the plan is made.
#[derive(Clone, Debug, Default)]
pub struct Kinds {
    known: HashMap<(String, String, String), Arc<Resource>>,
    /// For kinds that are not known: the versions in which the cluster serves a kind of the same name.
    instead: HashMap<(String, String, String), Vec<String>>,
}

impl Kinds {
    /// The kind of `manifest`, if it is known.
    pub fn of(&self, manifest: &Manifest) -> Option<&Arc<Resource>> {
        self.known.get(&name_of(manifest))
    }

    /// Records that the kind of `manifest` is `resource`.
    pub fn insert(&mut self, manifest: &Manifest, resource: Arc<Resource>) {
        self.known.insert(name_of(manifest), resource);
    }

    /// Records that the kind of `manifest` is not served in its version, but in these versions (as in `apiVersion`).
    pub fn insert_instead(&mut self, manifest: &Manifest, api_versions: Vec<String>) {
        self.instead.insert(name_of(manifest), api_versions);
    }

    /// The versions in which the cluster serves the kind of `manifest`, if it does not serve the version of `manifest`.
    pub fn instead_of(&self, manifest: &Manifest) -> &[String] {
        self.instead.get(&name_of(manifest)).map_or(&[], Vec::as_slice)
    }

    /// Adds kinds, by group, version and kind. Kinds that are known already stay as they are.
    pub fn extend(&mut self, kinds: impl IntoIterator<Item = ((String, String, String), Arc<Resource>)>) {
        for (name, resource) in kinds {
            self.known.entry(name).or_insert(resource);
        }
    }
}

/// Where else the cluster may serve a kind that it does not serve in one version of `group`, as groups and versions:
/// the other versions of `group`. If `group` is `extensions`, also the versions of the groups to which the kinds of
/// `extensions` moved. `served` is everything that the cluster serves, written as in `apiVersion`.
pub fn versions_instead<'a>(group: &str, served: impl IntoIterator<Item = &'a str>) -> Vec<(String, String)> {
    let heirs: &[&str] = if group == "extensions" { &["apps", "networking.k8s.io", "policy"] } else { &[] };
    let served = served.into_iter().filter_map(|api_version| api_version.split_once('/'));
    let may = served.filter(|(served, _)| *served == group || heirs.contains(served));
    let mut all: Vec<_> = may.map(|(group, version)| (group.to_owned(), version.to_owned())).collect();
    all.sort_unstable();
    all.dedup();
    all
}

fn name_of(manifest: &Manifest) -> (String, String, String) {
    (manifest.id.group.clone(), manifest.version.clone(), manifest.id.kind.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resource(group: &str, namespaced: bool) -> Resource {
        Resource {
            group: group.into(),
            version: "v1".into(),
            kind: "Thing".into(),
            plural: "things".into(),
            namespaced,
            watchable: true,
        }
    }

    #[test]
    fn paths_are_those_of_the_api() {
        assert_eq!(resource("", true).path(Some("a"), Some("b")), "/api/v1/namespaces/a/things/b");
        assert_eq!(resource("x.dev", false).path(Some("a"), Some("b")), "/apis/x.dev/v1/things/b");
        assert_eq!(resource("x.dev", true).path(None, None), "/apis/x.dev/v1/things");
    }

    #[test]
    fn other_versions_are_those_of_the_group_and_of_its_heirs() {
        let served = ["policy/v1", "apps/v1", "apps/v1beta2", "batch/v1", "x.apps/v1", "v1"];
        let instead = |group| {
            let versions = versions_instead(group, served).into_iter();
            versions.map(|(group, version)| format!("{group}/{version}")).collect::<Vec<_>>().join(" ")
        };
        assert_eq!(instead("apps"), "apps/v1 apps/v1beta2");
        assert_eq!(instead("extensions"), "apps/v1 apps/v1beta2 policy/v1");
        assert_eq!(instead(""), "");
    }

    #[test]
    fn a_hostile_name_stays_one_segment() {
        let path = resource("", true).path(Some("../../etc"), Some("a/b?c#d%2f"));
        assert_eq!(path, "/api/v1/namespaces/..%2F..%2Fetc/things/a%2Fb%3Fc%23d%252f");
    }
}
