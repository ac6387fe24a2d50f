//! Workloads whose Pods are restarted when a value that they use changes. A digest of these values is written into the
//! Pod template of the workload as an annotation, so that the Pod template changes when the values change.

use std::{
    cell::RefCell,
    collections::{BTreeMap, HashMap},
};

use crds::Sync;
use manifests::{Manifest, ObjectId};
use serde::Deserialize as _;
use serde_json::{Map, Value};

use super::{Sealed, id_in_cluster, object_at};
use crate::{
    Inventory, Kinds,
    references::{Uses, pod_template, uses},
};

/// A function that makes digests which nobody can make or check without the key of the cluster.
pub type KeyedDigest<'a> = dyn Fn(&[&[u8]]) -> String + Send + std::marker::Sync + 'a;

/// The digest that is written into a Pod template, and what it was made of.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Stamp {
    /// The digest.
    pub digest: String,
    /// The ConfigMaps and Secrets whose values the digest is made of, each with a text that changes with its values.
    /// This map is empty if no digest could be made and an earlier one was kept.
    pub of: BTreeMap<ObjectId, String>,
}

impl Stamp {
    /// The stamp of the ConfigMaps and Secrets `of`, with a digest of their texts.
    pub fn new(of: BTreeMap<ObjectId, String>, keyed: &KeyedDigest<'_>) -> Self {
        let texts: Vec<_> = of.iter().map(|(id, values)| (id.to_inventory(), values)).collect();
        let parts: Vec<_> = texts.iter().flat_map(|(id, values)| [id.as_bytes(), values.as_bytes()]).collect();
        Self { digest: keyed(&parts), of }
    }

    /// Writes the digest into the Pod template of `body`.
    pub fn write(&self, body: &mut Map<String, Value>) {
        let template = object_at(object_at(body, "spec"), "template");
        let annotations = object_at(object_at(template, "metadata"), "annotations");
        annotations.insert(crds::names::VALUES_DIGEST.into(), Value::String(self.digest.clone()));
    }
}

/// The JSON pointer to a stamp in a workload.
const POINTER: &str = "/spec/template/metadata/annotations/gitseal.dev~1values-digest";

/// Whether a stamp is in one of the fields at these `pointers`, which a Sync leaves to others. If so, the Sync must not
/// write the stamp.
pub(super) fn is_left_to_others(pointers: &[String]) -> bool {
    pointers.iter().any(|pointer| {
        POINTER.strip_prefix(pointer.as_str()).is_some_and(|rest| matches!(rest.bytes().next(), None | Some(b'/')))
    })
}

/// The JSON pointer to the stamp that the controller writes into this object, if the object is a workload whose annotation asks
/// for restarts.
pub fn stamp_of(id: &ObjectId, body: &Map<String, Value>) -> Option<&'static str> {
    is_restarted(id, body, false).then_some(POINTER)
}

/// Whether the object is a workload that is restarted when values change: if its annotation asks for this or, without
/// the annotation, if the Sync does (`by_default`).
fn is_restarted(id: &ObjectId, body: &Map<String, Value>, by_default: bool) -> bool {
    let annotations = body.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let is_workload = id.group == "apps"
        && matches!(id.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet")
        && pod_template(body).is_some();
    let asked = annotations.and_then(|all| all.get(crds::names::RESTART_ON_SECRET_CHANGE)).and_then(Value::as_str);
    is_workload
        && match asked {
            Some("true") => true,
            Some("false") => false,
            _ => by_default,
        }
}

/// The ConfigMaps and SealedSecrets of a folder. Empty if no workload of the folder is restarted when values change.
#[derive(Default)]
pub(super) struct Values<'m> {
    manifests: HashMap<ObjectId, &'m Manifest>,
    /// The texts that [`Values::text`] has made. They are kept because many workloads may use the same values.
    texts: RefCell<HashMap<ObjectId, Option<String>>>,
    /// Whether workloads without the annotation are restarted.
    by_default: bool,
}

impl<'m> Values<'m> {
    /// The ConfigMaps and SealedSecrets in `manifests`.
    pub(super) fn new(sync: &Sync, manifests: &'m [Manifest], kinds: &Kinds) -> Self {
        let by_default = sync.spec.restart_on_secret_change;
        if !manifests.iter().any(|manifest| is_restarted(&manifest.id, &manifest.body, by_default)) {
            return Self::default();
        }
        let has_values = |manifest: &&Manifest| manifest.id.is_sealed_secret() || is_config_map(&manifest.id);
        let all = manifests.iter().filter(has_values);
        let known = all.filter_map(|manifest| Some((id_in_cluster(sync, manifest, kinds.of(manifest)?), manifest)));
        Self { manifests: known.collect(), texts: RefCell::default(), by_default }
    }

    /// The stamp for the workload `manifest`, if the workload is restarted when values change. `manifest` has the id that the
    /// workload has in the cluster. Without `keyed`, the workload keeps the digest that it has in the inventory
    /// `current`.
    pub(super) fn stamp(
        &self,
        manifest: &Manifest,
        current: &Inventory,
        keyed: Option<&KeyedDigest<'_>>,
    ) -> Option<Stamp> {
        if self.manifests.is_empty() || !is_restarted(&manifest.id, &manifest.body, self.by_default) {
            return None;
        }
        let Some(keyed) = keyed else {
            let digest = current.get(&manifest.id)?.values.clone()?;
            return Some(Stamp { digest, of: BTreeMap::new() });
        };
        let Uses { secrets, config_maps } = uses(manifest);
        let id = |kind: &str, name: String| ObjectId {
            group: String::new(),
            kind: kind.into(),
            namespace: manifest.id.namespace.clone(),
            name,
        };
        let secrets = secrets.into_iter().map(|name| id("Secret", name));
        let config_maps = config_maps.into_iter().map(|name| id("ConfigMap", name));
        let of: BTreeMap<_, _> =
            secrets.chain(config_maps).filter_map(|id| Some((id.clone(), self.text(&id, current)?))).collect();
        (!of.is_empty()).then(|| Stamp::new(of, keyed))
    }

    /// A text that changes with the values of the ConfigMap or Secret `id`; `None` if the folder does not have this
    /// object. The text is made only once for all workloads.
    fn text(&self, id: &ObjectId, current: &Inventory) -> Option<String> {
        let mut texts = self.texts.borrow_mut();
        texts.entry(id.clone()).or_insert_with(|| self.new_text(id, current)).clone()
    }

    fn new_text(&self, id: &ObjectId, current: &Inventory) -> Option<String> {
        if is_config_map(id) {
            let Manifest { id, version, origin, body } = self.manifests.get(id)?;
            let values = body.iter().filter(|(field, _)| matches!(field.as_str(), "data" | "binaryData"));
            let body = values.map(|(field, values)| (field.clone(), values.clone())).collect();
            return Some(Manifest { id: id.clone(), version: version.clone(), origin: origin.clone(), body }.digest());
        }
        let owner = id.sealed_secret();
        let sealed = Sealed::deserialize(Value::Object(self.manifests.get(&owner)?.body.clone())).ok()?;
        let digest = sealed.digest(&owner);
        let known = current.get(id).filter(|known| known.manifest.as_ref() == Some(&digest));
        Some(known.and_then(|known| known.values.clone()).unwrap_or(digest))
    }
}

fn is_config_map(id: &ObjectId) -> bool {
    id.group.is_empty() && id.kind == "ConfigMap"
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, sync::Arc};

    use crds::ObjectKey;
    use manifests::{Limits, parse};
    use serde_json::json;

    use super::*;
    use crate::{
        Plan, Resource,
        plan::{Content, LiveView, Scope, plan},
    };

    /// A cluster in which nobody has changed an applied object.
    struct AsApplied;

    impl LiveView for AsApplied {
        fn exists(&self, _: &ObjectId) -> bool {
            true
        }

        fn is_untouched(&self, _: &ObjectId) -> bool {
            true
        }

        fn is_touched(&self, _: &ObjectId) -> bool {
            false
        }

        fn owner(&self, _: &ObjectId) -> Option<ObjectKey> {
            None
        }

        fn is_expired_job(&self, _: &ObjectId) -> bool {
            false
        }
    }

    /// Stands for the keyed digest. It returns its input as text, so that a test can read what the digest is made of.
    fn keyed(parts: &[&[u8]]) -> String {
        let texts: Vec<_> = parts.iter().map(|part| String::from_utf8_lossy(part)).collect();
        texts.join(" ")
    }

    fn sync(spec: &Value) -> Sync {
        let mut full = json!({"repository": {"name": "repo"}, "path": "app"});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        serde_json::from_value(json!({"metadata": {"name": "app", "namespace": "team"}, "spec": full})).unwrap()
    }

    /// A folder with a Deployment that uses two ConfigMaps and two Secrets. The folder has the first ConfigMap and the
    /// SealedSecret of the first Secret.
    fn folder(asks: &str, value: &str, label: &str, sealed: &str) -> String {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web{asks}}}\nspec:\n  template:\n    spec:\n      \
             containers:\n      - name: c\n        envFrom: [{{configMapRef: {{name: settings}}}}, {{configMapRef: {{name: gone}}}}, \
             {{secretRef: {{name: db}}}}, {{secretRef: {{name: theirs}}}}]\n---\n\
             {{apiVersion: v1, kind: ConfigMap, metadata: {{name: settings, labels: {{a: {label}}}}}, data: {{b: '1', a: {value}}}}}\n---\n\
             {{apiVersion: v1, kind: ConfigMap, metadata: {{name: gone, namespace: elsewhere}}, data: {{a: b}}}}\n---\n\
             {{apiVersion: bitnami.com/v1alpha1, kind: SealedSecret, metadata: {{name: db}}, spec: {{encryptedData: {{a: {sealed}}}}}}}\n"
        )
    }

    const ASKS: &str = ", annotations: {gitseal.dev/restart-on-secret-change: 'true'}";

    fn planned(spec: &Value, yaml: &str, current: &Inventory, keyed: Option<&KeyedDigest<'_>>) -> Plan {
        let manifests = parse("a.yaml", yaml.as_bytes(), &Limits::default()).unwrap();
        let mut kinds = Kinds::default();
        for manifest in &manifests {
            let ObjectId { group, kind, .. } = &manifest.id;
            let (version, plural) = (manifest.version.clone(), format!("{}s", kind.to_lowercase()));
            let (group, kind) = (group.clone(), kind.clone());
            kinds.insert(
                manifest,
                Arc::new(Resource { group, version, kind, plural, namespaced: true, watchable: true }),
            );
        }
        plan(&sync(spec), &manifests, &kinds, current, &AsApplied, Scope::Folder, keyed).unwrap()
    }

    /// The inventory after `plan` was applied.
    fn applied(plan: &Plan) -> Inventory {
        let mut inventory = plan.inventory.clone();
        for step in plan.waves.values().flatten() {
            inventory.applied(&step.id, step.digest.clone(), None);
            inventory.set_values(&step.id, step.stamp.as_ref().map(|stamp| stamp.digest.clone()));
        }
        inventory
    }

    fn kinds_of(plan: &Plan) -> BTreeSet<&str> {
        plan.waves.values().flatten().map(|step| step.id.kind.as_str()).collect()
    }

    /// The annotation in the Pod template of the Deployment, if the plan has the Deployment.
    fn annotation(plan: &Plan) -> Option<String> {
        let step = plan.waves.values().flatten().find(|step| step.id.kind == "Deployment")?;
        let Content::Manifest(body) = &step.content else { return None };
        let body = Value::Object(body.clone());
        Some(body.pointer(POINTER)?.as_str()?.to_owned())
    }

    #[test]
    fn a_workload_that_asks_for_it_changes_with_the_values_that_it_uses_and_with_nothing_else() {
        let (nothing, spec) = (Inventory::default(), json!({}));
        let of = |yaml: &str, current: &Inventory| planned(&spec, yaml, current, Some(&keyed));
        let first = of(&folder(ASKS, "one", "x", "AgA"), &nothing);
        let before = annotation(&first).unwrap();
        assert!(before.starts_with("team_settings__ConfigMap ") && before.contains(" team_db__Secret "), "{before}");
        assert!(!before.contains("gone") && !before.contains("theirs"), "the folder does not have them: {before}");
        let current = applied(&first);
        assert_eq!(kinds_of(&of(&folder(ASKS, "one", "x", "AgA"), &current)), [].into());
        assert_eq!(kinds_of(&of(&folder(ASKS, "one", "y", "AgA"), &current)), ["ConfigMap"].into());
        let reordered = folder(ASKS, "one", "x", "AgA").replace("b: '1', a: one", "a: one, b: '1'");
        assert_eq!(kinds_of(&of(&reordered, &current)), [].into());
        let changed = of(&folder(ASKS, "two", "x", "AgA"), &current);
        assert_eq!(kinds_of(&changed), ["ConfigMap", "Deployment"].into());
        assert_ne!(annotation(&changed).unwrap(), before);
        let changed = of(&folder(ASKS, "one", "x", "AgB"), &current);
        assert_eq!(kinds_of(&changed), ["Deployment", "SealedSecret", "Secret"].into());
        assert_ne!(annotation(&changed).unwrap(), before);
        // The Secret was sealed again with the same values.
        let mut current = applied(&changed);
        let (db, web) = (id("db"), id("web"));
        current
            .set_values(&db, first.waves.values().flatten().find(|step| step.id == db).map(|step| step.digest.clone()));
        current.set_values(&web, Some(before));
        assert_eq!(kinds_of(&of(&folder(ASKS, "one", "x", "AgB"), &current)), [].into());
    }

    fn id(name: &str) -> ObjectId {
        let (group, kind) = if name == "web" { ("apps", "Deployment") } else { ("", "Secret") };
        ObjectId { group: group.into(), kind: kind.into(), namespace: Some("team".into()), name: name.into() }
    }

    #[test]
    fn a_secret_that_many_workloads_use_is_read_once() {
        let sealed = "A".repeat(1 << 20);
        let mut yaml = folder(ASKS, "one", "x", &sealed);
        let (deployment, rest) = yaml.split_once("---\n").unwrap();
        let many: String =
            (0..1000).map(|n| deployment.replace("name: web", &format!("name: web-{n}")) + "---\n").collect();
        yaml = many + rest;
        let since = std::time::Instant::now();
        let plan = planned(&json!({}), &yaml, &Inventory::default(), Some(&keyed));
        assert_eq!(plan.waves.values().flatten().filter(|step| step.stamp.is_some()).count(), 1000);
        assert!(since.elapsed().as_secs() < 5, "{:?}", since.elapsed());
    }

    #[test]
    fn a_workload_that_does_not_ask_for_it_stays() {
        let (nothing, spec) = (Inventory::default(), json!({}));
        for asks in ["", ", annotations: {gitseal.dev/restart-on-secret-change: 'false'}"] {
            assert_eq!(annotation(&planned(&spec, &folder(asks, "one", "x", "AgA"), &nothing, Some(&keyed))), None);
        }
        let job = folder(ASKS, "one", "x", "AgA").replace("kind: Deployment", "kind: Gadget");
        assert!(planned(&spec, &job, &nothing, Some(&keyed)).waves.values().flatten().all(|step| step.stamp.is_none()));
        for path in [POINTER, "/spec/template/metadata", "/spec/template/metadata/annotations"] {
            let spec = json!({"ignoreDifferences": [{"target": {"kind": "Deployment"}, "paths": [path]}]});
            assert_eq!(
                annotation(&planned(&spec, &folder(ASKS, "one", "x", "AgA"), &nothing, Some(&keyed))),
                None,
                "{path}"
            );
        }
        let other = json!({"ignoreDifferences": [{"target": {"kind": "Deployment"}, "paths": ["/spec/temp"]}]});
        assert!(annotation(&planned(&other, &folder(ASKS, "one", "x", "AgA"), &nothing, Some(&keyed))).is_some());
    }

    #[test]
    fn without_the_key_a_workload_keeps_what_it_has() {
        let spec = json!({});
        let first = planned(&spec, &folder(ASKS, "one", "x", "AgA"), &Inventory::default(), Some(&keyed));
        let current = applied(&first);
        let yaml = folder(ASKS, "two", "x", "AgA");
        assert_eq!(kinds_of(&planned(&spec, &yaml, &current, None)), ["ConfigMap"].into());
        let yaml = yaml.replace("name: c\n", "name: d\n");
        assert_eq!(annotation(&planned(&spec, &yaml, &current, None)), annotation(&first));
    }
}
