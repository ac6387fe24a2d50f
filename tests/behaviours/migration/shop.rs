//! A cluster with SealedSecrets in use, for our controller and for the Sealed Secrets controller.

use std::collections::BTreeSet;

use anyhow::{Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{
    Plane, eventually, kubernetes, network,
    programs::{Controller, ControllerOptions, SealedSecretsController},
    scene::contains,
    service,
};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, Client, ResourceExt,
    api::{ListParams, PostParams},
};
use localcluster::{AuditEvent, ClusterOptions};
use serde_json::{Value, json};

use super::{OURS, SEALED};
use crate::proxy::kubeseal;

/// Flags with which the Helm chart of the Sealed Secrets project starts its controller.
const CHART: [&str; 7] =
    ["--update-status", "--key-prefix", "sealed-secrets-key", "--log-level", "INFO", "--log-format", "text"];

/// The namespace of all objects.
pub(super) const NAMESPACE: &str = "shop";

/// A cluster in which our controller can run, and the Sealed Secrets controller as well.
pub(super) struct Shop {
    pub(super) plane: Plane,
    pub(super) client: Client,
    /// More arguments for our controller.
    arguments: &'static [&'static str],
    /// The groups of the user that our controller runs as.
    groups: &'static [&'static str],
}

impl Shop {
    /// A cluster in which only the manifests of the Sealed Secrets project were applied: its CustomResourceDefinition
    /// and its rights. The Sealed Secrets controller and ours both run with these rights, and with the flags of the
    /// project's Helm chart.
    pub(super) async fn of_sealed_secrets() -> Result<Self> {
        let shop = Self::on(Plane::of_sealed_secrets(Self::options()).await?, &CHART, &[]).await?;
        for object in rights() {
            match object["metadata"]["namespace"].as_str() {
                Some(namespace) => kubernetes::apply(&shop.client, namespace, object.clone()).await?,
                None => kubernetes::apply_cluster_wide(&shop.client, object).await?,
            };
        }
        Ok(shop)
    }

    /// A cluster in which gitseal is installed beside the other controller.
    pub(super) async fn with_both() -> Result<Self> {
        Self::on(Plane::without_controller(Self::options()).await?, &[], &["system:masters"]).await
    }

    fn options() -> ClusterOptions {
        ClusterOptions { audit: true, ..ClusterOptions::default() }
    }

    async fn on(plane: Plane, arguments: &'static [&'static str], groups: &'static [&'static str]) -> Result<Self> {
        let client = plane.cluster.client().await?;
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(Self { plane, client, arguments, groups })
    }

    /// Starts the Sealed Secrets controller, and points the Service to it.
    pub(super) async fn theirs(&self, arguments: &[&str]) -> Result<SealedSecretsController> {
        let arguments = [&["--key-size=2048"], arguments].concat();
        let theirs = SealedSecretsController::start_on(&self.plane, network::POD, &arguments).await?;
        service::lead_to(&self.client, theirs.port()).await?;
        Ok(theirs)
    }

    /// Starts our controller, and points the Service to it.
    pub(super) async fn ours(&self) -> Result<Controller> {
        let kubeconfig = self.plane.cluster.kubeconfig_for(OURS, self.groups)?;
        let folder = self.plane.folder();
        let mut options = ControllerOptions { address: network::POD, ..ControllerOptions::new(&kubeconfig, &folder) };
        options.arguments.extend(self.arguments.iter().map(|argument| (*argument).to_owned()));
        let mut ours = Controller::start(&options)?;
        ours.ready().await?;
        service::lead_to(&self.client, ours.port).await?;
        Ok(ours)
    }

    /// Seals a Secret with kubeseal, with the certificate of the running controller.
    pub(super) fn seal(&self, secret: &Value, scope: &str) -> Result<Value> {
        let arguments = ["--format=json", "--scope", scope];
        let sealed = kubeseal(&self.plane, &arguments, &secret.to_string())?.is(0, &[])?;
        Ok(serde_json::from_str(&sealed.out)?)
    }

    pub(super) async fn apply(&self, object: Value) -> Result<()> {
        kubernetes::apply(&self.client, NAMESPACE, object).await.map(drop)
    }

    pub(super) async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Value> {
        let object = kubernetes::objects(&self.client, NAMESPACE, api_version, kind).get(name).await?;
        Ok(serde_json::to_value(object)?)
    }

    /// Waits until the Secret has these fields, and its SealedSecret is Synced at its current generation.
    pub(super) async fn has(&self, name: &str, wanted: Value) -> Result<()> {
        eventually(&format!("Secret {name} with {wanted}"), || async {
            let found = self.get("v1", "Secret", name).await?;
            ensure!(contains(&found, &wanted), "{found:#}");
            let sealed = self.get(SEALED, "SealedSecret", name).await?;
            let (status, generation) = (&sealed["status"], &sealed["metadata"]["generation"]);
            ensure!(status["observedGeneration"] == *generation, "{status:#}");
            let synced = json!({"type": "Synced", "status": "True"});
            ensure!(contains(&status["conditions"][0], &synced), "{status:#}");
            Ok(())
        })
        .await
    }

    /// Names of all SealedSecrets.
    pub(super) async fn names(&self) -> Result<BTreeSet<String>> {
        let sealed = kubernetes::objects(&self.client, NAMESPACE, SEALED, "SealedSecret");
        Ok(sealed.list(&ListParams::default()).await?.into_iter().map(|sealed| sealed.name_any()).collect())
    }

    /// Everything about SealedSecrets, Secrets and sealing keys that must not change when the other controller is started.
    pub(super) async fn state(&self) -> Result<Value> {
        let mut state = json!({});
        for name in self.names().await? {
            let sealed = self.get(SEALED, "SealedSecret", &name).await?;
            let secret = self.get("v1", "Secret", &name).await?;
            state[&name] = json!({
                "sealed": {"metadata": kept(&sealed["metadata"]), "spec": sealed["spec"]},
                "secret": {
                    "metadata": kept(&secret["metadata"]), "data": secret["data"], "type": secret["type"],
                    "immutable": secret["immutable"],
                },
            });
        }
        let keys = Api::<Secret>::namespaced(self.client.clone(), service::NAMESPACE);
        for key in keys.list(&ListParams::default().labels(crds::names::SEALING_KEY)).await? {
            state["keys"][key.name_any()] = json!(key.resource_version());
        }
        Ok(state)
    }

    /// Waits until our controller has taken over every Secret.
    pub(super) async fn taken_over_by_ours(&self) -> Result<()> {
        for name in self.names().await? {
            self.has(&name, json!({})).await?;
            eventually(&format!("Secret {name} to be ours"), || async {
                let secret = self.get("v1", "Secret", &name).await?;
                let writers = secret["metadata"]["managedFields"].as_array().cloned().unwrap_or_default();
                ensure!(writers.iter().any(|entry| entry["manager"] == crds::FIELD_MANAGER), "{writers:?}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until the Sealed Secrets controller has checked every SealedSecret without an error.
    pub(super) async fn taken_over_by_theirs(&self, theirs: &SealedSecretsController) -> Result<()> {
        for name in self.names().await? {
            eventually(&format!("SealedSecret {name} to be theirs"), || async {
                let log = theirs.log();
                let event = log.lines().rfind(|line| line.contains(&format!(r#"Name:\"{name}\""#)));
                ensure!(event.is_some_and(|event| event.contains("reason: 'Unsealed'")), "{event:?}");
                Ok(())
            })
            .await?;
            self.has(&name, json!({})).await?;
        }
        Ok(())
    }

    /// All requests to delete a Secret.
    pub(super) fn deletions(&self) -> Result<Vec<AuditEvent>> {
        let mut requests = self.plane.cluster.requests()?;
        requests.retain(|request| request.resource == "secrets" && request.verb.starts_with("delete"));
        Ok(requests)
    }
}

/// The rights that the manifests of the Sealed Secrets project give to its controller. Here, they are given to the user
/// that our controller runs as.
fn rights() -> [Value; 4] {
    const GROUP: &str = "rbac.authorization.k8s.io";
    let api_version = format!("{GROUP}/v1");
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let everywhere = json!({"name": "secrets-unsealer"});
    let keys = json!({"name": "sealed-secrets-key-admin", "namespace": service::NAMESPACE});
    let bound = |kind: &str, metadata: &Value| {
        json!({
            "apiVersion": api_version, "kind": format!("{kind}Binding"), "metadata": metadata,
            "roleRef": {"apiGroup": GROUP, "kind": kind, "name": metadata["name"]},
            "subjects": [{"apiGroup": GROUP, "kind": "User", "name": OURS}],
        })
    };
    [
        json!({"apiVersion": api_version, "kind": "ClusterRole", "metadata": everywhere, "rules": [
            rule("bitnami.com", "sealedsecrets", &["get", "list", "watch"]),
            rule("bitnami.com", "sealedsecrets/status", &["update"]),
            rule("", "secrets", &["get", "list", "create", "update", "delete", "watch"]),
            rule("", "events", &["create", "patch"]),
            rule("", "namespaces", &["get"]),
        ]}),
        json!({"apiVersion": api_version, "kind": "Role", "metadata": keys, "rules": [
            rule("", "secrets", &["create", "list"]),
        ]}),
        bound("ClusterRole", &everywhere),
        bound("Role", &keys),
    ]
}

/// The part of an object's metadata that must not change.
fn kept(metadata: &Value) -> Value {
    let fields = ["uid", "creationTimestamp", "generation", "labels", "annotations", "ownerReferences", "finalizers"];
    let kept = fields.into_iter().map(|field| (field.to_owned(), metadata[field].clone()));
    // An empty map of annotations is the same as no annotations.
    kept.filter(|(_, value)| !value.as_object().is_some_and(serde_json::Map::is_empty)).collect()
}

/// Asserts that nothing changed. Otherwise shows what changed.
pub(super) fn same(after: &Value, before: &Value) {
    let mut changes = Vec::new();
    differences("", after, before, &mut changes);
    assert!(changes.is_empty(), "{}", changes.join("\n"));
}

fn differences(path: &str, after: &Value, before: &Value, changes: &mut Vec<String>) {
    let (Value::Object(new), Value::Object(old)) = (after, before) else {
        if after != before {
            changes.push(format!("{path}: {before} → {after}"));
        }
        return;
    };
    let absent = Value::Null;
    for key in new.keys().chain(old.keys()).collect::<BTreeSet<_>>() {
        let (new, old) = (new.get(key).unwrap_or(&absent), old.get(key).unwrap_or(&absent));
        differences(&format!("{path}/{key}"), new, old, changes);
    }
}

/// A plaintext Secret with these values, and with the fields of `more`.
pub(super) fn secret(name: &str, values: &[(&str, &str)], more: Value) -> Value {
    let values: Value = values.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": NAMESPACE}, "stringData": values,
    });
    for (field, value) in more.as_object().into_iter().flatten() {
        match value.as_object() {
            Some(fields) => secret[field].as_object_mut().expect("metadata").extend(fields.clone()),
            None => secret[field] = value.clone(),
        }
    }
    secret
}

/// The field `data` of a Secret with these values.
pub(super) fn data(values: &[(&str, &str)]) -> Value {
    let values: Value = values.iter().map(|(key, value)| ((*key).to_owned(), json!(STANDARD.encode(value)))).collect();
    json!({"data": values})
}
