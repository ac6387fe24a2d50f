//! Takes over an object that another tool made: gitseal becomes the owner of the fields that this tool wrote. So the
//! next apply removes those fields that are not in Git.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry};
use manifests::ObjectId;
use serde_json::{Map, Value};

use crate::{Managers, is_of_object, is_ours, set, set_of};

/// What is left to others in an object.
#[derive(Clone, Copy, Debug, Default)]
pub struct LeftToOthers<'a> {
    /// JSON pointers of fields.
    pub paths: &'a [String],
    /// Field managers. Everything that they own is left to them.
    pub managers: &'a [String],
}

/// The result of taking over an object.
#[derive(Clone, Debug, PartialEq)]
pub struct Taken {
    /// The object's `managedFields`, in which gitseal owns the taken fields.
    pub entries: Vec<ManagedFieldsEntry>,
    /// The taken fields: others owned them, and gitseal owns them from now on.
    pub fields: Value,
}

impl Taken {
    /// The fields that our next apply removes from the object, if this apply has the fields `ours`.
    pub fn goes(&self, ours: &Value) -> Value {
        let others = self.entries.iter().filter(|entry| !is_ours(entry)).filter_map(set_of);
        others.fold(set::without(&self.fields, ours), |goes, theirs| set::without(&goes, theirs))
    }
}

/// Takes over the fields that `managers` own in the object `id`, which we have just applied as `body`. `None` if there
/// are no such fields. A field can have another name in another API version, so each call takes over the entries of one
/// version only. The caller applies the object and calls again until the result is `None`.
///
/// The following are not taken over, even if one of `managers` wrote them:
/// - subresources (an autoscaler's `scale`), the status, finalizers, owners,
/// - fields that `left_to_others` names (JSON pointers), and those of its managers,
/// - `spec.replicas` if `body` does not set it, because an autoscaler probably sets it,
/// - fields that controllers of Kubernetes set (`FILLED_IN`), and certificates of webhooks (`caBundle`),
/// - the time of a `kubectl rollout restart`, because removing it would restart the Pods again,
/// - the values of Secrets.
pub fn take_over(
    entries: &[ManagedFieldsEntry],
    managers: &Managers,
    id: &ObjectId,
    body: &Map<String, Value>,
    left_to_others: LeftToOthers<'_>,
) -> Option<Taken> {
    let is_taken = |entry: &ManagedFieldsEntry| {
        let manager = entry.manager.as_deref().unwrap_or_default();
        let is_left = left_to_others.managers.iter().any(|left| left == manager);
        is_of_object(entry) && !is_ours(entry) && !is_left && managers.contain(manager)
    };
    let mut version: Option<Option<String>> = None;
    let mut taken = Value::Object(Map::new());
    let mut kept = Vec::with_capacity(entries.len());
    for entry in entries {
        let fields =
            is_taken(entry).then(|| set_of(entry)).flatten().map(|all| takeable(all, id, body, left_to_others.paths));
        let fields = fields.filter(|fields| !set::is_empty(fields));
        match fields.filter(|_| version.as_ref().is_none_or(|version| *version == entry.api_version)) {
            Some(fields) => {
                version = Some(entry.api_version.clone());
                let theirs = set::without(set_of(entry)?, &fields);
                set::unite(&mut taken, &fields);
                if !set::is_empty(&theirs) {
                    kept.push(ManagedFieldsEntry { fields_v1: Some(FieldsV1(theirs)), ..entry.clone() });
                }
            }
            None => kept.push(entry.clone()),
        }
    }
    let version = version?;
    let at = kept.iter().position(is_ours);
    let mut ours = at.map_or_else(ManagedFieldsEntry::default, |at| kept.remove(at));
    ours.manager = Some(crds::FIELD_MANAGER.into());
    ours.operation = Some("Apply".into());
    ours.fields_type = Some("FieldsV1".into());
    let mut all = taken.clone();
    // If our entry has another version, its fields may have other names, so they are left out. After the next apply, we
    // own them again.
    if let Some(fields) = ours.fields_v1.filter(|_| ours.api_version == version) {
        set::unite(&mut all, &fields.0);
    }
    ours.api_version = version;
    ours.fields_v1 = Some(FieldsV1(all));
    kept.push(ours);
    Some(Taken { entries: kept, fields: taken })
}

/// Fields that controllers of Kubernetes set, each as group, kind and path. Somebody who reads an object and writes it
/// back as a whole becomes an owner of these fields, too.
const FILLED_IN: [(&str, &str, &[&str]); 6] = [
    ("", "PersistentVolumeClaim", &["f:spec", "f:volumeName"]),
    ("", "PersistentVolumeClaim", &["f:spec", "f:storageClassName"]),
    ("", "PersistentVolumeClaim", &["f:spec", "f:volumeMode"]),
    ("", "PersistentVolume", &["f:spec", "f:claimRef"]),
    ("", "ServiceAccount", &["f:secrets"]),
    ("", "Pod", &["f:spec", "f:nodeName"]),
];

/// The part of `fields` that may be taken over.
fn takeable(fields: &Value, id: &ObjectId, body: &Map<String, Value>, left_to_others: &[String]) -> Value {
    let all = fields;
    let mut fields = fields.clone();
    set::remove(&mut fields, &["f:status"]);
    for path in ["f:finalizers", "f:ownerReferences"] {
        set::remove(&mut fields, &["f:metadata", path]);
    }
    let restarted = "f:kubectl.kubernetes.io/restartedAt";
    set::remove(&mut fields, &["f:spec", "f:template", "f:metadata", "f:annotations", restarted]);
    set::remove_everywhere(&mut fields, "f:caBundle");
    if body.get("spec").and_then(|spec| spec.get("replicas")).is_none() {
        set::remove(&mut fields, &["f:spec", "f:replicas"]);
    }
    for (group, kind, path) in FILLED_IN {
        if id.group == group && id.kind == kind {
            set::remove(&mut fields, path);
        }
    }
    if id.group == "rbac.authorization.k8s.io" && body.contains_key("aggregationRule") {
        set::remove(&mut fields, &["f:rules"]);
    }
    if id.is_secret() {
        set::remove(&mut fields, &["f:data"]);
        set::remove(&mut fields, &["f:stringData"]);
    }
    for pointer in left_to_others {
        let path = set::path_of(pointer, all, body);
        set::remove(&mut fields, &path.iter().map(String::as_str).collect::<Vec<_>>());
    }
    without_shells(&mut fields, all);
    fields
}

/// Removes a map from `fields` if `fields` has none of the map's fields, but `all` has some. Others keep these fields,
/// so they also keep the map itself (the entry `.`).
fn without_shells(fields: &mut Value, all: &Value) {
    let (Some(map), Some(all)) = (fields.as_object_mut(), all.as_object()) else { return };
    map.retain(|key, child| {
        let Some(whole) = all.get(key).filter(|whole| *whole != child) else { return true };
        without_shells(child, whole);
        child.as_object().is_some_and(|child| child.keys().any(|key| key != "."))
    });
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(value: Value) -> Vec<ManagedFieldsEntry> {
        serde_json::from_value(value).unwrap()
    }

    fn id(group: &str, kind: &str) -> ObjectId {
        ObjectId { group: group.into(), kind: kind.into(), namespace: Some("a".into()), name: "b".into() }
    }

    fn taken(before: &Value, id: &ObjectId, body: Value, left: &[&str]) -> Option<Taken> {
        let Value::Object(body) = body else { panic!("an object") };
        let left: Vec<_> = left.iter().map(|left| (*left).to_owned()).collect();
        let left = LeftToOthers { paths: &left, managers: &[] };
        take_over(&entries(before.clone()), &Managers::default(), id, &body, left)
    }

    fn ours(fields: Value) -> Value {
        json!({"manager": "gitseal", "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    fn by(manager: &str, operation: &str, fields: Value) -> Value {
        json!({"manager": manager, "operation": operation, "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": fields})
    }

    #[test]
    fn what_tools_wrote_becomes_ours_and_what_controllers_wrote_stays_theirs() {
        let map = id("", "ConfigMap");
        for (manager, operation) in [
            ("kubectl-client-side-apply", "Update"),
            ("kubectl-create", "Update"),
            ("kubectl", "Apply"),
            ("helm", "Update"),
            ("kustomize-controller", "Apply"),
            ("argocd-controller", "Apply"),
        ] {
            let before = json!([
                by(manager, operation, json!({"f:data": {".": {}, "f:key": {}, "f:legacy": {}}})),
                by("a-controller", "Update", json!({"f:data": {"f:theirs": {}}})),
                ours(json!({"f:data": {"f:key": {}}})),
            ]);
            let taken = taken(&before, &map, json!({"data": {"key": "a"}}), &[]).unwrap();
            assert_eq!(taken.entries.len(), 2, "{manager}");
            assert_eq!(taken.entries[0], entries(before)[1]);
            let all = json!({"f:data": {".": {}, "f:key": {}, "f:legacy": {}}});
            assert_eq!(taken.entries[1], entries(json!([ours(all)]))[0], "{manager}");
            assert_eq!(taken.goes(&json!({"f:data": {"f:key": {}}})), json!({"f:data": {".": {}, "f:legacy": {}}}));
            let Value::Array(left) = json!(taken.entries) else { panic!("a list") };
            assert_eq!(super::tests::taken(&json!(left), &map, json!({}), &[]), None, "once is enough");
        }
    }

    #[test]
    fn replicas_are_left_to_an_autoscaler_unless_git_sets_them() {
        let scaled = json!([
            by("kubectl-client-side-apply", "Update", json!({"f:spec": {"f:replicas": {}, "f:paused": {}}})),
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "scale", "apiVersion": "v1",
             "fieldsV1": {"f:spec": {"f:replicas": {}}}},
        ]);
        let web = id("apps", "Deployment");
        let kept = taken(&scaled, &web, json!({"spec": {}}), &[]).unwrap();
        assert_eq!(kept.fields, json!({"f:spec": {"f:paused": {}}}));
        assert_eq!(kept.entries.len(), 3);
        let set = taken(&scaled, &web, json!({"spec": {"replicas": 2}}), &[]).unwrap();
        assert_eq!(set.fields, json!({"f:spec": {"f:replicas": {}, "f:paused": {}}}));
        assert_eq!(set.goes(&json!({"f:spec": {"f:replicas": {}}})), json!({"f:spec": {"f:paused": {}}}));
        let ignored = taken(&scaled, &web, json!({"spec": {}}), &["/spec/paused"]);
        assert_eq!(ignored, None, "what the Sync leaves to others is left to them");
        let image = json!([by(
            "kubectl",
            "Update",
            json!({"f:spec": {"f:template": {"f:spec": {"f:containers": {
                "k:{\"name\":\"c\"}": {"f:image": {}},
            }}}}})
        )]);
        let body = json!({"spec": {"template": {"spec": {"containers": [{"name": "c"}]}}}});
        let ignored = taken(&image, &web, body, &["/spec/template/spec/containers/0/image"]);
        assert_eq!(ignored, None, "also in an item of a list");
    }

    #[test]
    fn what_the_control_plane_fills_in_is_never_taken() {
        let claim = json!([by(
            "kubectl-create",
            "Update",
            json!({"f:spec": {"f:volumeName": {}, "f:storageClassName": {}, "f:resources": {"f:requests": {"f:storage": {}}}}})
        )]);
        let fields = taken(&claim, &id("", "PersistentVolumeClaim"), json!({}), &[]).unwrap().fields;
        assert_eq!(fields, json!({"f:spec": {"f:resources": {"f:requests": {"f:storage": {}}}}}));
        let account = json!([by("helm", "Update", json!({"f:secrets": {".": {}, "k:{\"name\":\"t\"}": {}}}))]);
        assert_eq!(taken(&account, &id("", "ServiceAccount"), json!({}), &[]), None);
        let hook = json!([by(
            "kubectl-patch",
            "Update",
            json!({"f:webhooks": {"k:{\"name\":\"a\"}": {"f:clientConfig": {"f:caBundle": {}}}}})
        )]);
        let hooks = id("admissionregistration.k8s.io", "ValidatingWebhookConfiguration");
        assert_eq!(taken(&hook, &hooks, json!({}), &[]), None);
        let secret = json!([by(
            "kubectl",
            "Apply",
            json!({"f:data": {".": {}, "f:password": {}}, "f:metadata": {"f:labels": {"f:a": {}}}})
        )]);
        let fields = taken(&secret, &id("", "Secret"), json!({}), &[]).unwrap().fields;
        assert_eq!(fields, json!({"f:metadata": {"f:labels": {"f:a": {}}}}));
        let rest = json!([by(
            "kubectl-edit",
            "Update",
            json!({
                "f:status": {"f:a": {}},
                "f:metadata": {"f:finalizers": {"v:\"a\"": {}}, "f:ownerReferences": {}},
                "f:spec": {"f:template": {"f:metadata": {"f:annotations": {".": {}, "f:kubectl.kubernetes.io/restartedAt": {}}}}},
            })
        )]);
        assert_eq!(taken(&rest, &id("apps", "Deployment"), json!({}), &[]), None);
    }

    #[test]
    fn another_version_is_taken_by_itself() {
        let old = json!({"manager": "helm", "operation": "Update", "apiVersion": "x.dev/v1", "fieldsV1": {"f:spec": {"f:old": {}}}});
        let new = json!({"manager": "kubectl", "operation": "Apply", "apiVersion": "x.dev/v2", "fieldsV1": {"f:spec": {"f:new": {}}}});
        let ours = json!({"manager": "gitseal", "operation": "Apply", "apiVersion": "x.dev/v2", "fieldsV1": {"f:spec": {"f:a": {}}}});
        let thing = id("x.dev", "Thing");
        let first = taken(&json!([old, new, ours]), &thing, json!({}), &[]).unwrap();
        let entry = first.entries.last().unwrap();
        assert_eq!(entry.api_version.as_deref(), Some("x.dev/v1"));
        assert_eq!(set_of(entry), Some(&json!({"f:spec": {"f:old": {}}})));
        let second = taken(&json!([new, ours]), &thing, json!({}), &[]).unwrap();
        assert_eq!(set_of(second.entries.last().unwrap()), Some(&json!({"f:spec": {"f:new": {}, "f:a": {}}})));
    }
}
