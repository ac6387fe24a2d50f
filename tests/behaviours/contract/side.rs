//! A namespace that one of the two controllers serves, and what tests do in it.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{Plane, Scene, eventually, git::ServerOptions, kubernetes, programs::SealedSecretsController};
use k8s_openapi::api::core::v1::{Event, Secret};
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use localcluster::ClusterOptions;
use sealing::{Certificate, Scope};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

pub(super) const SEALED: &str = "bitnami.com/v1alpha1";

/// The real Sealed Secrets controller in its own control plane, with its own CustomResourceDefinition.
pub(super) struct Theirs {
    pub(super) plane: Plane,
    pub(super) controller: SealedSecretsController,
}

impl Theirs {
    /// The controller that all tests of this process share.
    pub(super) async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Theirs> = OnceCell::const_new();
        SHARED.get_or_try_init(Self::start).await
    }

    pub(super) async fn start() -> Result<Self> {
        let options = ClusterOptions { controller_manager: false, ..ClusterOptions::default() };
        let plane = Plane::of_sealed_secrets(options).await?;
        let controller = SealedSecretsController::start(&plane).await?;
        Ok(Self { plane, controller })
    }
}

/// A test's namespace that one of the two controllers serves.
pub(super) struct Side {
    pub(super) scene: Scene,
    pub(super) certificate: Certificate,
}

impl Side {
    /// A namespace that our controller serves.
    pub(super) async fn ours(name: &str) -> Result<Self> {
        let plane = Plane::shared().await?;
        Self::on(plane, name, &plane.certificate).await
    }

    /// A namespace that the Sealed Secrets controller serves.
    pub(super) async fn theirs(name: &str) -> Result<Self> {
        let theirs = Theirs::shared().await?;
        Self::on(&theirs.plane, name, theirs.controller.certificate()).await
    }

    pub(super) async fn on(plane: &Plane, name: &str, certificate: &str) -> Result<Self> {
        let scene = Scene::on(plane, name, ServerOptions::default()).await?;
        Ok(Self { scene, certificate: Certificate::from_pem(certificate.as_bytes())? })
    }

    pub(super) fn seal_for(&self, scope: Scope, name: &str, value: &str) -> Result<String> {
        let binding = scope.binding(&self.scene.namespace, name, "any");
        Ok(sealing::seal(&self.certificate, binding, harness::hunt::known(value.as_bytes()))?)
    }

    /// A SealedSecret whose values are sealed for it with the scope strict.
    pub(super) fn sealed(&self, name: &str, values: &[(&str, &str)], template: Value) -> Result<Value> {
        let sealed =
            values.iter().map(|(key, value)| Ok(((*key).into(), self.seal_for(Scope::Strict, name, value)?.into())));
        let encrypted = sealed.collect::<Result<serde_json::Map<String, Value>>>()?;
        Ok(json!({
            "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": name},
            "spec": {"encryptedData": encrypted, "template": template},
        }))
    }

    pub(super) async fn apply(&self, object: Value) -> Result<()> {
        kubernetes::apply(&self.scene.client, &self.scene.namespace, object).await.map(drop)
    }

    /// Makes or changes a SealedSecret.
    pub(super) async fn put(&self, name: &str, values: &[(&str, &str)], template: Value) -> Result<()> {
        self.apply(self.sealed(name, values, template)?).await
    }

    /// Creates a Secret that no SealedSecret has, as a person would.
    pub(super) async fn create_secret(&self, name: &str, secret: Value) -> Result<Value> {
        let mut object = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {}});
        for (field, value) in secret.as_object().context("an object")? {
            object[field] = value.clone();
        }
        object["metadata"]["name"] = name.into();
        let created =
            self.scene.api::<Secret>().create(&PostParams::default(), &serde_json::from_value(object)?).await?;
        Ok(serde_json::to_value(created)?)
    }

    pub(super) async fn patch_secret(&self, name: &str, patch: Value) -> Result<()> {
        self.scene.api::<Secret>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    pub(super) async fn patch_sealed(&self, name: &str, patch: Value) -> Result<()> {
        let api = kubernetes::objects(&self.scene.client, &self.scene.namespace, SEALED, "SealedSecret");
        api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    pub(super) async fn delete(&self, api_version: &str, kind: &str, name: &str) -> Result<()> {
        let api = kubernetes::objects(&self.scene.client, &self.scene.namespace, api_version, kind);
        api.delete(name, &DeleteParams::default()).await?;
        Ok(())
    }

    pub(super) async fn delete_secret(&self, name: &str) -> Result<()> {
        self.delete("v1", "Secret", name).await
    }

    pub(super) async fn secret(&self, name: &str) -> Result<Value> {
        self.scene.get("v1", "Secret", name).await?.with_context(|| format!("Secret {name} is not there"))
    }

    /// Waits until the Secret has exactly these values.
    pub(super) async fn has(&self, name: &str, values: &[(&str, &str)]) -> Result<Value> {
        let wanted = data(values);
        eventually(&format!("Secret {name} with {wanted}"), || async {
            let found = self.secret(name).await?;
            ensure!(found["data"] == wanted, "{found:#}");
            Ok(found)
        })
        .await
    }

    /// Waits until `Synced` is `status` for the newest generation, and returns the condition.
    pub(super) async fn synced(&self, name: &str, status: &str) -> Result<Value> {
        eventually(&format!("SealedSecret {name} to be Synced={status}"), || async {
            let sealed = self.scene.get(SEALED, "SealedSecret", name).await?.context("it is gone")?;
            let (conditions, generation) = (&sealed["status"]["conditions"], &sealed["metadata"]["generation"]);
            ensure!(sealed["status"]["observedGeneration"] == *generation, "{sealed:#}");
            ensure!(conditions.as_array().is_some_and(|all| all.len() == 1), "{conditions}");
            ensure!(conditions[0]["type"] == "Synced" && conditions[0]["status"] == status, "{conditions}");
            Ok(conditions[0].clone())
        })
        .await
    }

    /// Waits until `Synced` is `status`, and returns its message.
    pub(super) async fn message(&self, name: &str, status: &str) -> Result<String> {
        Ok(self.synced(name, status).await?["message"].as_str().unwrap_or_default().to_owned())
    }

    /// Waits for a core event about the SealedSecret.
    pub(super) async fn event(&self, name: &str, reason: &str) -> Result<Event> {
        eventually(&format!("event {reason} of {name}"), || async {
            let events = self.events_now(name).await?;
            let found = events.iter().find(|event| event.reason.as_deref() == Some(reason));
            found.cloned().with_context(|| format!("{:?}", types_and_reasons(&events)))
        })
        .await
    }

    /// Waits until the core events about the SealedSecret are exactly these types and reasons.
    pub(super) async fn events(&self, name: &str, wanted: &[(&str, &str)]) -> Result<()> {
        let wanted: BTreeSet<_> = wanted.iter().map(|(kind, reason)| ((*kind).into(), (*reason).into())).collect();
        eventually(&format!("the events {wanted:?} of {name} in {}", self.scene.namespace), || async {
            let found = types_and_reasons(&self.events_now(name).await?);
            ensure!(found == wanted, "{found:?}");
            Ok(())
        })
        .await
    }

    async fn events_now(&self, name: &str) -> Result<Vec<Event>> {
        let mut events = self.scene.api::<Event>().list(&ListParams::default()).await?.items;
        events.retain(|event| event.involved_object.name.as_deref() == Some(name));
        Ok(events)
    }

    /// Everything about a SealedSecret that helps to understand a failed test: its metadata and status, its Secret without
    /// values, and its events.
    pub(super) async fn state(&self, name: &str) -> Result<Value> {
        let sealed = self.scene.get(SEALED, "SealedSecret", name).await?.unwrap_or_default();
        let mut secret = self.scene.get("v1", "Secret", name).await?.unwrap_or_default();
        if let Some(values) = secret["data"].as_object_mut() {
            values.values_mut().for_each(|value| *value = "a value".into());
        }
        let events = self.events_now(name).await?;
        let events: Vec<_> = events
            .iter()
            .map(|event| json!([event.reason, event.count, event.last_timestamp, event.message]))
            .collect();
        let namespace = &self.scene.namespace;
        Ok(json!({
            "namespace": namespace, "metadata": sealed["metadata"], "status": sealed["status"], "secret": secret,
            "events": events,
        }))
    }
}

fn types_and_reasons(events: &[Event]) -> BTreeSet<(String, String)> {
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    events.iter().map(|event| (text(&event.type_), text(&event.reason))).collect()
}

/// `data` of a Secret as the API shows it.
pub(super) fn data(values: &[(&str, &str)]) -> Value {
    let encoded = values.iter().map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into()));
    Value::Object(encoded.collect())
}

/// Creates another SealedSecret, and waits until it is unsealed. Tests in which nothing may happen call this first, so
/// that the controller had time to do something.
pub(super) async fn one_more_is_served(side: &Side, name: &str) -> Result<()> {
    side.put(name, &[("a", "later")], json!({})).await?;
    side.has(name, &[("a", "later")]).await?;
    side.synced(name, "True").await.map(drop)
}
