//! If Git changes a field that cannot be changed in place, the object would have to be deleted and made again. This
//! module says whether that is allowed, and helps to find out whether the API server would accept the new object.

use manifests::ObjectId;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Why an object is not deleted and made again.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NotReplaced {
    /// The object in Git does not have the annotation that allows gitseal to do so.
    #[error(
        "{0} cannot be changed in place. Delete the object, and it is made again; or let gitseal do both: annotate it in Git with {REPLACE}: {ALLOWED}"
    , REPLACE = crds::names::REPLACE, ALLOWED = crds::names::REPLACE_ALLOWED)]
    NotAllowed(String),
    /// Objects of this kind contain other objects.
    #[error(
        "{0} cannot be changed in place, and gitseal never replaces a {1}, because everything in it would be deleted, too"
    )]
    HoldsOthers(String, String),
}

/// Whether the object may be deleted and made again if its field `what` cannot be changed in place.
pub fn may_replace(id: &ObjectId, body: &Map<String, Value>, what: &str) -> Result<(), NotReplaced> {
    let annotation = body.get("metadata").and_then(|metadata| metadata.get("annotations")?.get(crds::names::REPLACE));
    if annotation.is_none_or(|value| value != crds::names::REPLACE_ALLOWED) {
        return Err(NotReplaced::NotAllowed(what.to_owned()));
    }
    if matches!(id.kind.as_str(), "Namespace" | "CustomResourceDefinition") {
        return Err(NotReplaced::HoldsOthers(what.to_owned(), id.kind.clone()));
    }
    Ok(())
}

/// The longest name that is used for a dry run, because some kinds do not allow longer names.
const NAME: usize = 50;

/// The object under an unused name, for a dry run, without the fields whose values only one object can have at a time.
pub fn under_another_name(id: &ObjectId, body: &Map<String, Value>) -> Map<String, Value> {
    let mut body = body.clone();
    let digest = Sha256::digest(id.to_inventory());
    let ending: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let start: String = id.name.chars().take(NAME - 1 - ending.len()).collect();
    if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
        metadata.insert("name".into(), format!("{}-{ending}", start.trim_end_matches(['.', '-'])).into());
    }
    let is_service = id.group.is_empty() && id.kind == "Service";
    if let Some(Value::Object(spec)) = body.get_mut("spec").filter(|_| is_service) {
        for only_one in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            // The value "None" means a headless Service.
            if spec.get(only_one).is_some_and(|value| value != "None" && *value != serde_json::json!(["None"])) {
                spec.remove(only_one);
            }
        }
        for port in spec.get_mut("ports").and_then(Value::as_array_mut).into_iter().flatten() {
            port.as_object_mut().map(|port| port.remove("nodePort"));
        }
    }
    body
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn renamed(kind: &str, name: &str, body: Value) -> Value {
        let Value::Object(body) = body else { panic!("an object") };
        let id = ObjectId { group: String::new(), kind: kind.into(), namespace: Some("a".into()), name: name.into() };
        under_another_name(&id, &body).into()
    }

    #[test]
    fn the_dry_run_is_under_a_name_that_fits_every_kind() {
        let name = |name: &str| {
            let body = renamed("Job", name, json!({"metadata": {"name": name}}));
            body["metadata"]["name"].as_str().unwrap().to_owned()
        };
        assert!(name("migrate").starts_with("migrate-") && name("migrate").len() == "migrate-".len() + 8);
        let long = name(&format!("{}.{}", "a".repeat(40), "b".repeat(200)));
        assert!(long.len() <= NAME && !long.contains(".-"), "{long}");
    }

    #[test]
    fn what_only_one_service_can_have_is_left_out() {
        let spec =
            json!({"clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ports": [{"port": 80, "nodePort": 30080}]});
        assert_eq!(renamed("Service", "a", json!({"spec": spec}))["spec"], json!({"ports": [{"port": 80}]}));
        let headless = json!({"clusterIP": "None", "clusterIPs": ["None"]});
        assert_eq!(renamed("Service", "a", json!({"spec": headless.clone()}))["spec"], headless);
    }
}
