//! An object deleted and made anew, because what Git changes of it cannot be changed in place.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::{
    AsInGit,
    api::{Api, ApiError, MetadataOnly},
};

/// How long an object that is deleted may take to go: finalizers are done first.
const GONE_WITHIN: Duration = Duration::from_secs(20);
/// The longest name that is tried: some kinds allow no more.
const NAME: usize = 50;

/// How deleting an object for its replacement ended.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Deleted {
    /// It is gone.
    Gone,
    /// It is on its way and waits for these finalizers.
    Going(Vec<String>),
}

impl Api {
    /// Whether the API server would make the object if it were not there: a dry run of its creation, under another name
    /// because the object is there.
    pub async fn would_make(&self, object: AsInGit<'_>) -> Result<(), ApiError> {
        let path = format!(
            "{}?dryRun=All&fieldManager={}&fieldValidation=Strict",
            object.resource.path(object.id.namespace.as_deref(), None),
            crds::FIELD_MANAGER
        );
        let body = serde_json::to_vec(&under_another_name(object)).expect("JSON serialises");
        self.send_json::<MetadataOnly>(http::Method::POST, &path, Zeroizing::new(body)).await.map(|_| ())
    }

    /// Deletes the object, with its dependents in the background, and waits until it is gone. What is not there is gone.
    pub async fn delete_for_replacement(&self, object: AsInGit<'_>) -> Result<Deleted, ApiError> {
        let (namespace, name) = (object.id.namespace.as_deref(), object.id.name.as_str());
        let deadline = tokio::time::Instant::now() + GONE_WITHIN;
        let mut pause = Duration::from_millis(20);
        let mut deleted: Option<String> = None;
        loop {
            let meta = match self.get_metadata(object.resource, namespace, name).await {
                Err(error) if error.is_not_found() => return Ok(Deleted::Gone),
                found => found?,
            };
            let uid = meta.uid.clone().unwrap_or_default();
            match &deleted {
                // Somebody else made it again meanwhile: what is there now is not what was refused.
                Some(old) if *old != uid => return Ok(Deleted::Gone),
                None if meta.deletion_timestamp.is_none() => {
                    let seen = ObjectMeta { uid: meta.uid, ..ObjectMeta::default() };
                    self.delete(object.resource, namespace, name, &seen).await?;
                }
                _ => {}
            }
            deleted = Some(uid);
            if tokio::time::Instant::now() > deadline {
                return Ok(Deleted::Going(meta.finalizers.unwrap_or_default()));
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }
}

/// The object under a name that nobody has, and without what only one object can have at a time.
fn under_another_name(object: AsInGit<'_>) -> Map<String, Value> {
    let mut body = object.body.clone();
    let digest = Sha256::digest(object.id.to_inventory());
    let ending: String = digest.iter().take(4).map(|byte| format!("{byte:02x}")).collect();
    let start: String = object.id.name.chars().take(NAME - 1 - ending.len()).collect();
    if let Some(Value::Object(metadata)) = body.get_mut("metadata") {
        metadata.insert("name".into(), format!("{}-{ending}", start.trim_end_matches(['.', '-'])).into());
    }
    let is_service = object.id.group.is_empty() && object.id.kind == "Service";
    if let Some(Value::Object(spec)) = body.get_mut("spec").filter(|_| is_service) {
        for only_one in ["clusterIP", "clusterIPs", "healthCheckNodePort"] {
            // A headless Service is told by this word.
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
    use manifests::ObjectId;
    use serde_json::json;

    use super::*;
    use pipeline::Resource;

    fn renamed(kind: &str, name: &str, body: Value) -> Value {
        let Value::Object(body) = body else { panic!("an object") };
        let id = ObjectId { group: String::new(), kind: kind.into(), namespace: Some("a".into()), name: name.into() };
        let resource = Resource::secrets();
        under_another_name(AsInGit { id: &id, resource: &resource, body: &body, left_to_others: &[] }).into()
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
