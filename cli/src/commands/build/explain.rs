//! `gitseal build --explain`: what each field of a Sync changes in the rendered objects.

use std::{collections::HashMap, fmt::Write as _};

use anyhow::Context as _;
use crds::{Overlay, Patch, Sync};
use manifests::{Manifest, ObjectId, in_one_line};
use pipeline::namespace_for;
use serde::Serialize;
use serde_json::{Map, Value, json};
use similar::TextDiff;

use crate::{
    folder::Folder,
    output::{BAD, FAINT, GOOD, STRONG, WARN, diff_line, styled},
};

/// What one field of the Sync changed.
#[derive(Serialize)]
pub struct Step {
    /// The field, for example `images` or `patches[0]`.
    field: String,
    changes: Vec<ChangedObject>,
    /// How many objects are as they were before.
    unchanged: usize,
}

/// An object that a field changed.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ChangedObject {
    change: Kind,
    api_version: String,
    kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<String>,
    /// The name after the change.
    name: String,
    /// `file:line` of the manifest.
    origin: String,
    /// A unified difference of the object as YAML. Values of Secrets are left out.
    #[serde(skip_serializing_if = "String::is_empty")]
    diff: String,
    #[serde(skip)]
    id: ObjectId,
}

#[derive(Clone, Copy, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Added,
    Changed,
    Removed,
}

/// What each field of a Sync changes, in the order in which the fields take effect.
#[derive(Serialize)]
pub struct Explanation {
    /// How many objects were rendered before any change.
    rendered: usize,
    steps: Vec<Step>,
}

/// A field that changes objects, and the Sync with this field and the fields before it.
type UpTo = (String, Sync);

/// Renders the folder of a Sync without the fields of the Sync that change objects, and then again with one more of these fields
/// each time.
///
/// # Errors
/// One of these renders fails. If a field was added for this render, the error names the field.
pub fn explain(of: &Sync, read: impl FnOnce(&Sync) -> anyhow::Result<Folder>) -> anyhow::Result<Explanation> {
    let folder = read(&Sync { spec: without_changes(of), ..of.clone() })?;
    let (rendered, mut steps) = (folder.manifests.len(), Vec::new());
    let mut before: Option<Vec<Manifest>> = None;
    let before_target = not_moved(of);
    for (field, sync) in steps_of(of) {
        let failed = || format!("with {field}");
        let manifests = folder.read_again(&sync).with_context(failed)?.manifests;
        let earlier = before.as_deref().unwrap_or(&folder.manifests);
        // A pass sets the namespace last of all. But no variable depends on the namespace, so `targetNamespace` is
        // shown where it stands among the fields of a Sync.
        if field == "substitute" {
            steps.extend(in_namespace(of, earlier));
        }
        let place = if field == "substitute" { of } else { &before_target };
        steps.push(compare(field, place, earlier, &manifests));
        before = Some(manifests);
    }
    if !steps.iter().any(|step| step.field == TARGET_NAMESPACE) {
        steps.extend(in_namespace(of, before.as_deref().unwrap_or(&folder.manifests)));
    }
    Ok(Explanation { rendered, steps })
}

const TARGET_NAMESPACE: &str = "targetNamespace";

fn without_changes(sync: &Sync) -> crds::SyncSpec {
    let (overlay, substitution) = Default::default();
    crds::SyncSpec { overlay, substitution, ..sync.spec.clone() }
}

/// The fields of a Sync that change objects, each with a copy of the Sync that has this field and the fields before it,
/// but no later ones.
fn steps_of(sync: &Sync) -> Vec<UpTo> {
    let all = sync.spec.overlay.clone();
    let mut steps = Vec::new();
    let mut so_far = Sync { spec: without_changes(sync), ..sync.clone() };
    let mut add = |field: &str, set: &dyn Fn(&mut Overlay)| {
        let before = so_far.spec.overlay.clone();
        set(&mut so_far.spec.overlay);
        if so_far.spec.overlay != before {
            steps.push((field.to_owned(), so_far.clone()));
        }
    };
    add("components", &|overlay| overlay.components.clone_from(&all.components));
    add("namePrefix", &|overlay| overlay.name_prefix.clone_from(&all.name_prefix));
    add("nameSuffix", &|overlay| overlay.name_suffix.clone_from(&all.name_suffix));
    add("commonLabels", &|overlay| overlay.common_labels.clone_from(&all.common_labels));
    add("commonAnnotations", &|overlay| overlay.common_annotations.clone_from(&all.common_annotations));
    add("images", &|overlay| overlay.images.clone_from(&all.images));
    for (index, patch) in all.patches.iter().enumerate() {
        add(&format!("patches[{index}]"), &|overlay| overlay.patches.push(Patch::clone(patch)));
    }
    if sync.spec.substitution.is_wanted() {
        let mut last = so_far;
        last.spec.substitution = sync.spec.substitution.clone();
        steps.push(("substitute".to_owned(), last));
    }
    steps
}

/// The Sync without `targetNamespace`.
fn not_moved(sync: &Sync) -> Sync {
    Sync { spec: crds::SyncSpec { target_namespace: None, ..sync.spec.clone() }, ..sync.clone() }
}

/// What the field `targetNamespace` changes; `None` if the Sync does not have this field.
fn in_namespace(sync: &Sync, manifests: &[Manifest]) -> Option<Step> {
    sync.spec.target_namespace.as_ref()?;
    let elsewhere = not_moved(sync);
    let placed = |sync: &Sync| -> Vec<Manifest> {
        let place = |manifest: &Manifest| {
            let mut manifest = manifest.clone();
            if is_namespaced(&manifest) {
                let namespace = namespace_for(sync, manifest.id.namespace.as_deref()).to_owned();
                if let Some(Value::Object(metadata)) = manifest.body.get_mut("metadata") {
                    metadata.insert("namespace".to_owned(), namespace.clone().into());
                }
                manifest.id.namespace = Some(namespace);
            }
            manifest
        };
        manifests.iter().map(place).collect()
    };
    Some(compare(TARGET_NAMESPACE.to_owned(), sync, &placed(&elsewhere), &placed(sync)))
}

/// Kinds of Kubernetes that have no namespace.
const CLUSTER_WIDE: [&str; 33] = [
    "APIService",
    "CSIDriver",
    "CSINode",
    "CertificateSigningRequest",
    "ClusterRole",
    "ClusterRoleBinding",
    "ClusterTrustBundle",
    "ComponentStatus",
    "CustomResourceDefinition",
    "DeviceClass",
    "DeviceTaintRule",
    "FlowSchema",
    "IPAddress",
    "IngressClass",
    "MutatingAdmissionPolicy",
    "MutatingAdmissionPolicyBinding",
    "MutatingWebhookConfiguration",
    "Namespace",
    "Node",
    "PersistentVolume",
    "PriorityClass",
    "PriorityLevelConfiguration",
    "ResourceSlice",
    "RuntimeClass",
    "ServiceCIDR",
    "StorageClass",
    "StorageVersion",
    "StorageVersionMigration",
    "ValidatingAdmissionPolicy",
    "ValidatingAdmissionPolicyBinding",
    "ValidatingWebhookConfiguration",
    "VolumeAttachment",
    "VolumeAttributesClass",
];

/// Whether an object has a namespace, as far as this is known without a cluster: of kinds that are neither Kubernetes' nor
/// gitseal's own, only those objects count whose manifest has a namespace.
fn is_namespaced(Manifest { id, .. }: &Manifest) -> bool {
    let is_of_kubernetes = !id.group.contains('.') || id.group.ends_with(".k8s.io");
    let is_ours = id.is_sealed_secret() || id.group == "gitseal.dev";
    if is_ours {
        return true;
    }
    if is_of_kubernetes { !CLUSTER_WIDE.contains(&id.kind.as_str()) } else { id.namespace.is_some() }
}

/// The id of an object with the namespace in which `sync` applies it: two objects of one name may be in two namespaces.
fn with_namespace(sync: &Sync, manifest: &Manifest) -> ObjectId {
    let namespace = namespace_for(sync, manifest.id.namespace.as_deref()).to_owned();
    ObjectId { namespace: is_namespaced(manifest).then_some(namespace), ..manifest.id.clone() }
}

/// The objects that differ.
fn compare(field: String, sync: &Sync, before: &[Manifest], after: &[Manifest]) -> Step {
    let pairs = paired(before, after);
    let (mut changes, mut unchanged) = (Vec::new(), 0);
    for (before, after) in pairs {
        let change = match (before, after) {
            (Some(before), Some(after)) if before.body == after.body => {
                unchanged += 1;
                continue;
            }
            (Some(_), Some(_)) => Kind::Changed,
            (None, _) => Kind::Added,
            (_, None) => Kind::Removed,
        };
        let Some(shown) = after.or(before) else { continue };
        let diff =
            if let (Some(before), Some(after)) = (before, after) { difference(before, after) } else { String::new() };
        let id = with_namespace(sync, shown);
        changes.push(ChangedObject {
            change,
            api_version: shown.api_version(),
            kind: id.kind.clone(),
            namespace: id.namespace.clone(),
            name: id.name.clone(),
            origin: shown.origin.to_string(),
            diff,
            id,
        });
    }
    Step { field, changes, unchanged }
}

/// Each object with its earlier form. Objects may have other names than before. Two forms belong to the same object if
/// they have the same id, or else if they come from the same place and have the same kind.
fn paired<'m>(before: &'m [Manifest], after: &'m [Manifest]) -> Vec<(Option<&'m Manifest>, Option<&'m Manifest>)> {
    type Place<'m> = (&'m str, u32, &'m str);
    fn place(manifest: &Manifest) -> Place<'_> {
        // The renderer can make a SealedSecret of a Secret with sealed values, so both count as the same kind.
        let kind = if manifest.id.is_sealed_secret() { "Secret" } else { &manifest.id.kind };
        (&manifest.origin.file, manifest.origin.line, kind)
    }
    let ids: HashMap<&ObjectId, &Manifest> = after.iter().map(|manifest| (&manifest.id, manifest)).collect();
    let known: HashMap<&ObjectId, &Manifest> = before.iter().map(|manifest| (&manifest.id, manifest)).collect();
    let mut others: HashMap<Place<'_>, Vec<&Manifest>> = HashMap::new();
    for manifest in before.iter().rev().filter(|manifest| !ids.contains_key(&manifest.id)) {
        others.entry(place(manifest)).or_default().push(manifest);
    }
    let mut pairs = Vec::new();
    for manifest in after {
        let earlier = known.get(&manifest.id).copied();
        let earlier = earlier.or_else(|| others.get_mut(&place(manifest)).and_then(Vec::pop));
        pairs.push((earlier, Some(manifest)));
    }
    let mut gone: Vec<_> = others.into_values().flatten().collect();
    gone.sort_by(|a, b| (&a.origin.file, a.origin.line, &a.id).cmp(&(&b.origin.file, b.origin.line, &b.id)));
    pairs.extend(gone.into_iter().map(|manifest| (Some(manifest), None)));
    pairs
}

/// A unified difference of two forms of an object as YAML.
fn difference(before: &Manifest, after: &Manifest) -> String {
    let (mut old, mut new) = (before.body.clone(), after.body.clone());
    hide(&mut old, &mut new);
    let yaml = |body: Map<String, Value>| serde_saphyr::to_string(&Value::Object(body)).unwrap_or_default();
    let (old, new) = (yaml(old), yaml(new));
    TextDiff::from_lines(&old, &new).unified_diff().context_radius(1).to_string()
}

/// Replaces the values of Secrets and SealedSecrets. Values that differ are replaced by different texts.
fn hide(old: &mut Map<String, Value>, new: &mut Map<String, Value>) {
    for pointer in [&["data"][..], &["stringData"], &["spec", "encryptedData"], &["spec", "data"]] {
        let [of_old, of_new] = [&mut *old, &mut *new].map(|body| values_at(body, pointer));
        let Some(of_new) = of_new else {
            of_old.into_iter().flat_map(Map::values_mut).for_each(|value| *value = json!(HIDDEN));
            continue;
        };
        let mut none = Map::new();
        let of_old = of_old.unwrap_or(&mut none);
        for (key, value) in of_new.iter_mut() {
            let is_same = of_old.get(key) == Some(value);
            *value = json!(if is_same || !of_old.contains_key(key) { HIDDEN } else { HIDDEN_OTHER });
        }
        of_old.values_mut().for_each(|value| *value = json!(HIDDEN));
    }
}

const HIDDEN: &str = "(not shown)";
const HIDDEN_OTHER: &str = "(not shown, another value)";

/// The values in a field of a Secret or SealedSecret. A value of this field that is not a mapping is replaced by an
/// empty mapping.
fn values_at<'b>(body: &'b mut Map<String, Value>, pointer: &[&str]) -> Option<&'b mut Map<String, Value>> {
    let kind = body.get("kind").and_then(Value::as_str).unwrap_or_default();
    let is_wanted = if pointer.len() == 1 { kind == "Secret" } else { kind == "SealedSecret" };
    let (last, above) = pointer.split_last()?;
    let mut fields = Some(body).filter(|_| is_wanted)?;
    for name in above {
        fields = fields.get_mut(*name)?.as_object_mut()?;
    }
    if fields.get(*last).is_some_and(|value| !value.is_object()) {
        fields.insert((*last).to_owned(), json!({}));
    }
    fields.get_mut(*last)?.as_object_mut()
}

impl Explanation {
    /// The text for people.
    pub fn text(&self) -> String {
        let mut text = String::new();
        let objects = |count: usize| if count == 1 { "1 object".to_owned() } else { format!("{count} objects") };
        let _ = writeln!(text, "{} {}", styled(STRONG, "rendered:"), objects(self.rendered));
        if self.steps.is_empty() {
            let _ = writeln!(text, "The Sync changes nothing.");
        }
        for Step { field, changes, unchanged } in &self.steps {
            let count = |wanted: fn(&Kind) -> bool| changes.iter().filter(|change| wanted(&change.change)).count();
            let counts = [
                (count(|kind| matches!(kind, Kind::Added)), "added"),
                (count(|kind| matches!(kind, Kind::Changed)), "changed"),
                (count(|kind| matches!(kind, Kind::Removed)), "removed"),
                (*unchanged, "unchanged"),
            ];
            let counts: Vec<_> =
                counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
            let _ = writeln!(text, "\n{} {}", styled(STRONG, format!("{field}:")), counts.join(", "));
            for ChangedObject { change, origin, diff, id, .. } in changes {
                let (style, what) = match change {
                    Kind::Added => (GOOD, "added"),
                    Kind::Changed => (WARN, "changed"),
                    Kind::Removed => (BAD, "removed"),
                };
                let origin = styled(FAINT, in_one_line(origin));
                let _ = writeln!(text, "{} {id}  {origin}", styled(style, what));
                for line in diff.lines() {
                    let _ = writeln!(text, "{}", diff_line(line));
                }
            }
        }
        text
    }
}
