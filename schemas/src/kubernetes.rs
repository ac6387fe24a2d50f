//! The kinds of Kubernetes itself, from the table that `examples/generate.rs` writes.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    fmt,
    str::FromStr,
    sync::LazyLock,
};

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    problem::{Check, Problem},
    validate::closed,
};

/// A minor version of Kubernetes 1, for example 1.36.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct KubernetesVersion(u32);

/// There are no schemas for this version of Kubernetes.
#[derive(Debug, thiserror::Error)]
#[error(
    "Kubernetes {given:?} is not known: the known versions are {} to {}",
    KubernetesVersion::oldest(),
    KubernetesVersion::newest()
)]
pub struct UnknownVersion {
    given: String,
}

impl KubernetesVersion {
    /// The oldest version that is known.
    pub fn oldest() -> Self {
        Self(TABLES.kinds.values().filter_map(|kind| kind.from).min().unwrap_or_default())
    }

    /// The newest version that is known.
    pub fn newest() -> Self {
        Self(TABLES.kinds.values().filter_map(|kind| kind.to).max().unwrap_or_default())
    }

    /// What this version serves without further settings, for example `apps/v1` and `apps/v1/Deployment`, sorted. Alpha and beta
    /// versions are left out, because Kubernetes does not serve them unless somebody switches them on.
    pub fn api_versions(self) -> Vec<String> {
        let is_stable = |version: &str| !version.contains("alpha") && !version.contains("beta");
        let served = served(self).filter(|id| is_stable(&id.1) && !IS_NO_RESOURCE.contains(&id.2.as_str()));
        let versions = served.flat_map(|(group, version, kind)| {
            let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
            [format!("{api_version}/{kind}"), api_version]
        });
        versions.collect::<BTreeSet<_>>().into_iter().collect()
    }
}

/// Kinds of which there are no objects of their own: they are sent to other objects, for example to evict a Pod.
const IS_NO_RESOURCE: [&str; 3] = ["Eviction", "Scale", "TokenRequest"];

impl fmt::Display for KubernetesVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.0)
    }
}

impl FromStr for KubernetesVersion {
    type Err = UnknownVersion;

    /// Reads `1.36`, and also `v1.36.3`.
    fn from_str(text: &str) -> Result<Self, UnknownVersion> {
        let unknown = || UnknownVersion { given: text.to_owned() };
        let mut parts = text.strip_prefix('v').unwrap_or(text).split('.');
        let (major, minor, patch) = (parts.next(), parts.next(), parts.next());
        let is_patch = patch.is_none_or(|patch| patch.starts_with(|first: char| first.is_ascii_digit()));
        let minor = minor.filter(|_| major == Some("1") && is_patch).and_then(|minor| minor.parse().ok());
        let version = Self(minor.ok_or_else(unknown)?);
        if (Self::oldest()..=Self::newest()).contains(&version) { Ok(version) } else { Err(unknown()) }
    }
}

/// Group, version and kind.
pub(crate) type KindId = (String, String, String);

struct Tables {
    kinds: HashMap<KindId, Kind>,
    types: HashMap<String, Vec<Variant>>,
    groups: HashSet<String>,
}

#[derive(Deserialize)]
struct Stored {
    kinds: Vec<StoredKind>,
    types: HashMap<String, Vec<Variant>>,
}

#[derive(Deserialize)]
struct StoredKind {
    group: String,
    version: String,
    kind: String,
    #[serde(flatten)]
    rest: Kind,
}

#[derive(Deserialize)]
struct Kind {
    /// The first and the last known version that has the kind. `None` if no known version has it.
    from: Option<u32>,
    to: Option<u32>,
    #[serde(rename = "type")]
    schema: Option<String>,
    #[serde(default)]
    lifecycle: Lifecycle,
}

#[derive(Default, Deserialize)]
struct Lifecycle {
    /// The version since which the kind is deprecated.
    deprecated: Option<u32>,
    /// The first version without the kind.
    removed: Option<u32>,
    replacement: Option<String>,
}

/// The schema of a type in the versions `from` to `to` of Kubernetes.
#[derive(Deserialize)]
struct Variant {
    from: u32,
    to: u32,
    schema: Value,
}

static TABLES: LazyLock<Tables> = LazyLock::new(|| {
    let Stored { kinds, types } =
        serde_json::from_str(include_str!("kubernetes.json")).expect("a test reads the generated table");
    let groups = kinds.iter().map(|kind| kind.group.clone()).collect();
    let kinds = kinds.into_iter().map(|kind| ((kind.group, kind.version, kind.kind), kind.rest)).collect();
    Tables { kinds, types, groups }
});

/// What a version of Kubernetes says about a kind.
pub(crate) enum Known {
    /// Neither the kind nor its group is one of Kubernetes itself.
    Foreign,
    /// This version does not serve the kind.
    Not(Problem),
    /// This version serves the kind. This is its schema, and a warning if the kind is deprecated.
    Served(Value, Option<Problem>),
}

pub(crate) fn known(at: KubernetesVersion, id: &KindId) -> Known {
    let (group, version, name) = id;
    let api_version = if group.is_empty() { version.clone() } else { format!("{group}/{version}") };
    let Some(kind) = TABLES.kinds.get(id) else {
        if !TABLES.groups.contains(group) {
            return Known::Foreign;
        }
        let others = TABLES.kinds.iter().filter(|((other, _, kind), _)| other == group && kind == name);
        let others = others.filter(|(_, kind)| kind.is_served(at.0)).map(|((_, version, _), _)| version.as_str());
        let mut others: Vec<_> = others.collect();
        others.sort_unstable();
        let hint = if others.is_empty() { String::new() } else { format!("; it has {name} in {}", others.join(", ")) };
        let message = format!("Kubernetes has no {api_version} {name}{hint}");
        return Known::Not(Problem::error(Check::UnknownKind, String::new(), message));
    };
    let Lifecycle { deprecated, removed, replacement } = &kind.lifecycle;
    let use_instead = replacement.as_ref().map(|other| format!("; use {other}")).unwrap_or_default();
    if let (true, Some(schema)) = (kind.is_served(at.0), &kind.schema) {
        let until = removed.map(|minor| format!(", and not served from 1.{minor} on")).unwrap_or_default();
        let deprecated = deprecated.filter(|since| *since <= at.0).map(|since| {
            let message = format!("{api_version} {name} is deprecated since Kubernetes 1.{since}{until}{use_instead}");
            Problem::warning(Check::Deprecated, message)
        });
        return Known::Served(with_definitions(at.0, schema), deprecated);
    }
    let message = match (kind.from, removed, kind.to) {
        (Some(from), _, _) if at.0 < from => format!("{api_version} {name} is served from Kubernetes 1.{from} on"),
        (_, Some(removed), _) => {
            format!("{api_version} {name} is not served since Kubernetes 1.{removed}{use_instead}")
        }
        (_, None, Some(last)) => format!("{api_version} {name} is served until Kubernetes 1.{last}{use_instead}"),
        (_, None, None) => format!("{api_version} {name} is not served{use_instead}"),
    };
    Known::Not(Problem::error(Check::NotServed, String::new(), message))
}

/// The schema of a kind of Kubernetes as it is in the newest known version that has it. Of other kinds, the schema only has the
/// metadata.
pub(crate) fn newest(group: &str, version: &str, kind: &str) -> Option<&'static Value> {
    static OTHERS: LazyLock<Value> =
        LazyLock::new(|| json!({"properties": {"metadata": {"$ref": format!("{DEFINITIONS}{METADATA}")}}}));
    let id = (group.to_owned(), version.to_owned(), kind.to_owned());
    let name = TABLES.kinds.get(&id).and_then(|kind| kind.schema.as_deref());
    name.map_or(Some(&*OTHERS), newest_type)
}

/// The type `name` as it is in the newest known version that has it.
pub(crate) fn newest_type(name: &str) -> Option<&'static Value> {
    let variants = TABLES.types.get(name)?.iter();
    variants.max_by_key(|variant| variant.to).map(|variant| &variant.schema)
}

/// The kinds that a version serves.
pub(crate) fn served(at: KubernetesVersion) -> impl Iterator<Item = &'static KindId> {
    TABLES.kinds.iter().filter(move |(_, kind)| kind.is_served(at.0)).map(|(id, _)| id)
}

/// Whether objects of a kind of Kubernetes are in namespaces. `None` if Kubernetes has no such kind.
pub fn is_namespaced(group: &str, kind: &str) -> Option<bool> {
    TABLES.kinds.keys().find(|(of, _, name)| of == group && name == kind)?;
    Some(match group {
        "" => !matches!(kind, "ComponentStatus" | "Namespace" | "Node" | "PersistentVolume"),
        "admissionregistration.k8s.io"
        | "apiextensions.k8s.io"
        | "apiregistration.k8s.io"
        | "authentication.k8s.io"
        | "flowcontrol.apiserver.k8s.io"
        | "internal.apiserver.k8s.io"
        | "node.k8s.io"
        | "storagemigration.k8s.io" => false,
        "authorization.k8s.io" => kind == "LocalSubjectAccessReview",
        "certificates.k8s.io" => kind == "PodCertificateRequest",
        "networking.k8s.io" => matches!(kind, "Ingress" | "NetworkPolicy"),
        "policy" => kind != "PodSecurityPolicy",
        "rbac.authorization.k8s.io" => matches!(kind, "Role" | "RoleBinding"),
        "resource.k8s.io" => matches!(kind, "PodSchedulingContext" | "ResourceClaim" | "ResourceClaimTemplate"),
        "scheduling.k8s.io" => kind != "PriorityClass",
        "storage.k8s.io" => kind == "CSIStorageCapacity",
        _ => true,
    })
}

impl Kind {
    fn is_served(&self, minor: u32) -> bool {
        self.from.is_some_and(|from| from <= minor) && self.to.is_some_and(|to| minor <= to)
    }
}

/// The name of the type of every object's metadata.
pub(crate) const METADATA: &str = "apimachinery.pkg.apis.meta.v1.ObjectMeta";

/// A schema with the type `name`, and all types that it needs, as they are in the minor version.
pub(crate) fn with_definitions(minor: u32, name: &str) -> Value {
    json!({"$ref": format!("{DEFINITIONS}{name}"), "$defs": definitions(minor, name)})
}

/// The schema of the metadata of objects, and the schemas of the types that the metadata needs, as they are in the
/// version `at`.
pub(crate) fn metadata(at: KubernetesVersion) -> Map<String, Value> {
    definitions(at.0, METADATA)
}

pub(crate) const DEFINITIONS: &str = "#/$defs/";

fn definitions(minor: u32, name: &str) -> Map<String, Value> {
    let mut found = Map::new();
    let mut needed = vec![name.to_owned()];
    while let Some(name) = needed.pop() {
        if found.contains_key(&name) {
            continue;
        }
        let variants = TABLES.types.get(&name).map(Vec::as_slice).unwrap_or_default();
        let variant = variants.iter().find(|variant| variant.from <= minor && minor <= variant.to);
        let mut schema = variant.map(|variant| variant.schema.clone()).unwrap_or_default();
        require_less(minor, &name, &mut schema);
        schema = closed(schema, &mut needed);
        found.insert(name, schema);
    }
    found
}

/// A field that Kubernetes' OpenAPI document calls required, although the API server accepts objects without it.
struct NotRequired {
    /// The type that has the field, without the version of its API: the API server checks objects of all versions by the same
    /// rules.
    of: &'static str,
    field: &'static str,
    /// The first version whose API server accepts objects without the field.
    from: u32,
}

const fn not_required(of: &'static str, field: &'static str) -> NotRequired {
    NotRequired { of, field, from: 0 }
}

/// The document calls every field required that Kubernetes' own code always writes. The API server reads a missing field as an
/// empty value: zero, an empty text, list or object. So a field is not required if the API server accepts an empty value, or sets
/// a default. A test of the behaviours asks a real API server about each field that the document calls required.
const NOT_REQUIRED: [NotRequired; 25] = [
    // The API server sets a default.
    not_required("rbac.RoleRef", "apiGroup"),
    // The number may be zero.
    not_required("apps.ControllerRevision", "revision"),
    not_required("core.ISCSIPersistentVolumeSource", "lun"),
    not_required("core.ISCSIVolumeSource", "lun"),
    NotRequired { of: "core.SleepAction", field: "seconds", from: 33 },
    not_required("resource.Counter", "value"),
    not_required("resource.ResourcePool", "generation"),
    // It may be false.
    not_required("apiextensions-apiserver.pkg.apis.apiextensions.CustomResourceDefinitionVersion", "served"),
    // The text may be empty.
    not_required("core.HTTPHeader", "value"),
    not_required("core.Sysctl", "value"),
    not_required("discovery.ForZone", "name"),
    not_required("storage.TokenRequest", "audience"),
    // The list may be empty.
    not_required("batch.PodFailurePolicy", "rules"),
    not_required("core.LimitRangeSpec", "limits"),
    not_required("storage.CSINodeSpec", "drivers"),
    // The object may be empty.
    not_required("core.PreferredSchedulingTerm", "preference"),
    not_required("core.ScaleIOPersistentVolumeSource", "secretRef"),
    not_required("core.ScaleIOVolumeSource", "secretRef"),
    not_required("networking.NetworkPolicySpec", "podSelector"),
    not_required("resource.DeviceClass", "spec"),
    not_required("resource.ResourceClaim", "spec"),
    not_required("resource.ResourceClaimTemplate", "spec"),
    not_required("resource.ResourceClaimTemplateSpec", "spec"),
    not_required("storage.CSIDriver", "spec"),
    not_required("storage.CSINode", "spec"),
];

/// Removes what the API server of this minor version does not require from the required fields of a type.
fn require_less(minor: u32, name: &str, schema: &mut Value) {
    let Some(Value::Array(required)) = schema.get_mut("required") else { return };
    let name = without_version(name);
    let not_required = NOT_REQUIRED.iter().filter(|of| of.of == name && of.from <= minor);
    for NotRequired { field, .. } in not_required {
        required.retain(|name| name != field);
    }
}

/// The name of a type without the version of its API, for example `apps.Deployment` for `apps.v1.Deployment`.
fn without_version(name: &str) -> String {
    let is_version =
        |part: &&str| part.strip_prefix('v').is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()));
    name.split('.').filter(|part| !is_version(part)).collect::<Vec<_>>().join(".")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(group: &str, version: &str, kind: &str) -> KindId {
        (group.to_owned(), version.to_owned(), kind.to_owned())
    }

    fn said(at: &str, group: &str, version: &str, kind: &str) -> String {
        match known(at.parse().unwrap(), &id(group, version, kind)) {
            Known::Foreign => "foreign".to_owned(),
            Known::Not(problem) | Known::Served(_, Some(problem)) => {
                format!("{:?}: {}", problem.severity, problem.message)
            }
            Known::Served(_, None) => "served".to_owned(),
        }
    }

    #[test]
    fn versions_are_read_with_and_without_a_patch() {
        for (text, expected) in [("1.36", "1.36"), ("v1.36.3", "1.36"), ("1.34.0+k3s1", "1.34"), ("1.31", "1.31")] {
            assert_eq!(text.parse::<KubernetesVersion>().unwrap().to_string(), expected);
        }
        for text in ["", "1", "2.36", "1.99", "1.x", "1.36.x", "36", "1.36,1.37"] {
            let error = text.parse::<KubernetesVersion>().unwrap_err().to_string();
            assert!(error.contains("the known versions are 1.31 to 1."), "{text}: {error}");
        }
    }

    #[test]
    fn each_version_serves_what_is_neither_alpha_nor_beta() {
        let of = |version: &str| version.parse::<KubernetesVersion>().unwrap().api_versions();
        let (old, new) = (of("1.31"), of("1.36"));
        assert!(new.is_sorted() && new.len() > 80, "{new:?}");
        for (version, in_old, in_new) in [
            ("v1", true, true),
            ("v1/ConfigMap", true, true),
            ("apps/v1", true, true),
            ("networking.k8s.io/v1/Ingress", true, true),
            ("resource.k8s.io/v1/ResourceClaim", false, true),
            ("policy/v1beta1", false, false),
            ("flowcontrol.apiserver.k8s.io/v1beta3", false, false),
            ("autoscaling/v1/Scale", false, false),
            ("apps/v1/", false, false),
        ] {
            let has = |list: &[String]| list.iter().any(|one| one == version);
            assert_eq!((has(&old), has(&new)), (in_old, in_new), "{version}");
        }
    }

    #[test]
    fn each_kind_is_served_deprecated_or_gone() {
        for (at, group, version, kind, expected) in [
            ("1.36", "apps", "v1", "Deployment", "served"),
            ("1.36", "cert-manager.io", "v1", "Certificate", "foreign"),
            (
                "1.36",
                "extensions",
                "v1beta1",
                "Ingress",
                "Error: extensions/v1beta1 Ingress is not served since Kubernetes 1.22; use networking.k8s.io/v1 Ingress",
            ),
            (
                "1.36",
                "autoscaling",
                "v2beta2",
                "HorizontalPodAutoscaler",
                "Error: autoscaling/v2beta2 HorizontalPodAutoscaler is not served since Kubernetes 1.26; use autoscaling/v2 \
                 HorizontalPodAutoscaler",
            ),
            (
                "1.36",
                "storage.k8s.io",
                "v1beta1",
                "VolumeAttributesClass",
                "Warning: storage.k8s.io/v1beta1 VolumeAttributesClass is deprecated since Kubernetes 1.34, and not served from \
                 1.37 on; use storage.k8s.io/v1 VolumeAttributesClass",
            ),
            (
                "1.37",
                "storage.k8s.io",
                "v1beta1",
                "VolumeAttributesClass",
                "Error: storage.k8s.io/v1beta1 VolumeAttributesClass is not served since Kubernetes 1.37; use storage.k8s.io/v1 \
                 VolumeAttributesClass",
            ),
            (
                "1.31",
                "resource.k8s.io",
                "v1",
                "ResourceClaim",
                "Error: resource.k8s.io/v1 ResourceClaim is served from Kubernetes 1.34 on",
            ),
            ("1.32", "", "v1", "Endpoints", "served"),
            (
                "1.36",
                "",
                "v1",
                "Endpoints",
                "Warning: v1 Endpoints is deprecated since Kubernetes 1.33; use discovery.k8s.io/v1 EndpointSlice",
            ),
            (
                "1.36",
                "apps",
                "v2",
                "Deployment",
                "Error: Kubernetes has no apps/v2 Deployment; it has Deployment in v1",
            ),
            ("1.36", "", "v1", "Deployment", "Error: Kubernetes has no v1 Deployment"),
        ] {
            assert_eq!(said(at, group, version, kind), expected);
        }
    }

    #[test]
    fn what_has_an_empty_value_is_not_required() {
        for of in &NOT_REQUIRED {
            let mut types = TABLES.types.iter().filter(|(name, _)| without_version(name) == of.of);
            let is_listed =
                |variant: &Variant| variant.schema["required"].to_string().contains(&format!("\"{}\"", of.field));
            assert!(
                types.any(|(_, variants)| variants.iter().any(is_listed)),
                "no version requires {} {}",
                of.of,
                of.field
            );
        }
        for (minor, name, field, expected) in [
            (32, "core.v1.SleepAction", "seconds", true),
            (33, "core.v1.SleepAction", "seconds", false),
            (36, "resource.v1.ResourcePool", "generation", false),
            (36, "resource.v1beta1.ResourcePool", "generation", false),
            (36, "resource.v1.ResourcePool", "name", true),
        ] {
            let required = &definitions(minor, name)[name]["required"];
            assert_eq!(required.to_string().contains(field), expected, "1.{minor} {name} {field}");
        }
    }

    #[test]
    fn each_type_of_each_version_has_its_references() {
        let (oldest, newest) = (KubernetesVersion::oldest(), KubernetesVersion::newest());
        assert!(newest.0 - oldest.0 >= 6);
        for minor in oldest.0..=newest.0 {
            let served: Vec<_> = TABLES.kinds.values().filter(|kind| kind.is_served(minor)).collect();
            assert!(served.len() > 60, "1.{minor} serves {} kinds", served.len());
            for kind in served {
                for (name, schema) in definitions(minor, kind.schema.as_deref().unwrap()) {
                    assert!(!schema.is_null(), "1.{minor} has no {name}");
                }
            }
        }
    }
}
