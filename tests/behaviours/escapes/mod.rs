//! Attacks by a tenant who has all rights in one namespace and none elsewhere. Each attack (*escape*) has a name. After each
//! one, the victim's objects must have the same resource versions as before, and the victim's secret value must not appear
//! anywhere.

mod altered;
mod claims;
mod copies;
mod forged;
mod identity;
mod kinds;
mod smuggled;
mod tokens;
mod watches;
mod wrapped;

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{Condition, ConditionStatus, Sync, find_condition};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use kube::api::ListParams;
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{objects::config_map, traces::inventory};

const SEALED: &str = "bitnami.com/v1alpha1";
const GITSEAL: &str = "gitseal.dev/v1alpha1";
const RBAC: &str = "rbac.authorization.k8s.io";
/// The kinds whose objects are compared before and after an attack, and searched for the victim's value.
const KINDS: [(&str, &str); 8] = [
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    (SEALED, "SealedSecret"),
    (GITSEAL, "Sync"),
    (GITSEAL, "Repository"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
];

/// A victim with a Sync `shop` that has a ConfigMap `settings` and a sealed value `db`; and a tenant with a Sync `app`.
struct Case<'a> {
    plane: &'a Plane,
    victim: Scene,
    tenant: Scene,
    /// The plaintext value. Only the victim's Secret contains it.
    value: String,
    /// The sealed value, as everybody can read it in the victim's repository.
    sealed: String,
    before: BTreeMap<String, Value>,
}

/// The result of a commit of the tenant.
struct Ended {
    reason: String,
    message: String,
}

impl Case<'static> {
    async fn new(name: &str) -> Result<Self> {
        let plane = Plane::shared().await?;
        Self::on(plane, name, &plane.certificate).await
    }
}

impl<'a> Case<'a> {
    async fn on(plane: &'a Plane, name: &str, certificate: &str) -> Result<Self> {
        let victim = Scene::on(plane, &format!("{name}-victim"), ServerOptions::default()).await?;
        let tenant = Scene::on(plane, &format!("{name}-tenant"), ServerOptions::default()).await?;
        victim.repository(json!({})).await?;
        tenant.repository(json!({})).await?;
        let value = format!("hunter-{}", victim.namespace);
        let sealed = seal(certificate, &victim.namespace, "db", &value)?;
        everything_in_its_namespace(&victim, "deployer").await?;
        victim.tree.write("app/settings.yaml", config_map("settings", "1"))?;
        victim.tree.write("app/db.yaml", sealed_secret("db", &json!({}), &json!({"password": sealed}), &json!({})))?;
        let revision = victim.publish("what the victim has").await?;
        victim.sync("shop", "./app", json!({"serviceAccountName": "deployer"})).await?;
        victim.is_applied("shop", &revision).await?;
        is_synced(&victim, "db").await?;

        everything_in_its_namespace(&tenant, "tenant").await?;
        tenant.tree.write("app/own.yaml", config_map("own", "1"))?;
        let revision = tenant.publish("what the tenant has").await?;
        tenant.sync("app", "./app", json!({"serviceAccountName": "tenant", "wait": false})).await?;
        tenant.is_applied("app", &revision).await?;
        let mut case = Self { plane, victim, tenant, value, sealed, before: BTreeMap::new() };
        case.before = objects(&case.victim).await?;
        ensure!(case.before.contains_key("Secret db") && case.before.contains_key("Sync shop"), "{:?}", case.before);
        Ok(case)
    }

    /// Commits `text` for the tenant, and checks that nothing of the victim changes.
    async fn tries(&self, escape: &str, text: &str) -> Result<Ended> {
        self.tenant.tree.write("app/bad.yaml", text)?;
        let revision = self.tenant.publish(escape).await?;
        let ended = self.ended(&revision).await.with_context(|| escape.to_owned())?;
        self.is_harmless(escape).await?;
        Ok(ended)
    }

    /// Like `tries`, and also checks the reason with which the tenant's Sync fails.
    async fn is_refused(&self, escape: &str, text: &str, reason: &str) -> Result<String> {
        let ended = self.tries(escape, text).await?;
        ensure!(ended.reason == reason, "{escape}: {}: {}", ended.reason, ended.message);
        if reason == "Forbidden" {
            self.claims_only_its_own(escape).await?;
        }
        Ok(ended.message)
    }

    /// Checks that the inventory of the tenant's Sync names only objects in the tenant's namespace.
    async fn claims_only_its_own(&self, escape: &str) -> Result<()> {
        let own = format!("{}_", self.tenant.namespace);
        let claimed = inventory(self.tenant.api::<Sync>().get("app").await?);
        ensure!(claimed.iter().all(|id| id.starts_with(&own)), "{escape}: it claims {claimed:?}");
        Ok(())
    }

    async fn ended(&self, revision: &str) -> Result<Ended> {
        let is_over = |sync: &Sync, ready: &Condition| {
            let status = sync.status.as_ref();
            let attempted = status.and_then(|status| status.last_attempted_revision.as_deref());
            attempted == Some(revision) && ready.status != ConditionStatus::Unknown
        };
        let sync = self.tenant.sync_when("app", "the commit to be over", is_over).await?;
        let conditions = sync.status.map(|status| status.conditions).unwrap_or_default();
        let ready = find_condition(&conditions, "Ready").context("no Ready")?;
        Ok(Ended { reason: ready.reason.clone(), message: ready.message.clone() })
    }

    /// Checks that the victim's objects are unchanged, and that only the victim's Secret contains the value.
    async fn is_harmless(&self, escape: &str) -> Result<()> {
        let now = objects(&self.victim).await?;
        for (name, before) in &self.before {
            ensure!(now.get(name) == Some(before), "{escape}: {name} was {before:#}\nand is {:#?}", now.get(name));
        }
        let more: Vec<_> = now.keys().filter(|name| !self.before.contains_key(*name)).collect();
        ensure!(more.is_empty(), "{escape}: the victim has {more:?} now");
        self.tells_nothing(escape).await
    }

    async fn tells_nothing(&self, escape: &str) -> Result<()> {
        let mut places = objects(&self.tenant).await?;
        for scene in [&self.tenant, &self.victim] {
            for event in list(scene, "v1", "Event").await? {
                places.insert(format!("Event {}", event["metadata"]["name"]), event);
            }
        }
        let encoded = STANDARD.encode(&self.value);
        for (name, object) in &places {
            let text = object.to_string();
            ensure!(!text.contains(&self.value) && !text.contains(&encoded), "{escape}: {name} tells the value");
            for value in object["data"].as_object().into_iter().flatten().filter_map(|(_, value)| value.as_str()) {
                let decoded = STANDARD.decode(value).unwrap_or_default();
                ensure!(!String::from_utf8_lossy(&decoded).contains(&self.value), "{escape}: {name} has the value");
            }
        }
        let log = self.plane.log().await;
        ensure!(!log.contains(&self.value) && !log.contains(&encoded), "{escape}: the log tells the value");
        Ok(())
    }

    /// Checks that the victim's next commit is applied as usual.
    async fn victim_goes_on(&self) -> Result<()> {
        self.victim.tree.write("app/settings.yaml", config_map("settings", "next"))?;
        let revision = self.victim.publish("the victim goes on").await?;
        self.victim.is_applied("shop", &revision).await?;
        self.victim.has("v1", "ConfigMap", "settings", json!({"data": {"value": "next"}})).await?;
        let wanted = json!({"data": {"password": STANDARD.encode(&self.value)}});
        self.victim.has("v1", "Secret", "db", wanted).await?;
        self.tells_nothing("afterwards").await
    }
}

/// Starts a control plane for one test, so that the metrics count only what this test does. The controller logs
/// everything, and Syncs without a service account use a default account.
async fn plane_of_its_own() -> Result<(Plane, String)> {
    let plane = Plane::without_controller(ClusterOptions { audit: true, ..ClusterOptions::default() }).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.extend(["--log-level=trace", "--default-service-account=default"].map(str::to_owned));
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let certificate = controller.fetch("/v1/cert.pem").await?;
    *plane.controller.lock().await = Some(controller);
    Ok((plane, certificate))
}

/// How often the controller began to unseal something. The controller counts this in a metric, each time before it uses
/// a private key.
async fn unseal_requests(plane: &Plane) -> Result<u64> {
    let controller = plane.controller.lock().await;
    let controller = controller.as_ref().context("a controller")?;
    controller.metric("sealed_secrets_controller_unseal_requests_total").await?.context("no such metric")
}

/// All objects of the compared kinds, by kind and name, except those that Kubernetes itself creates.
async fn objects(scene: &Scene) -> Result<BTreeMap<String, Value>> {
    let mut all = BTreeMap::new();
    for (api_version, kind) in KINDS {
        for object in list(scene, api_version, kind).await? {
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            if !["kube-root-ca.crt", "default"].contains(&name) {
                all.insert(format!("{kind} {name}"), object);
            }
        }
    }
    Ok(all)
}

async fn list(scene: &Scene, api_version: &str, kind: &str) -> Result<Vec<Value>> {
    let api = kubernetes::objects(&scene.client, &scene.namespace, api_version, kind);
    let found = api.list(&ListParams::default()).await?.items;
    found.into_iter().map(|object| Ok(serde_json::to_value(object)?)).collect()
}

/// Creates a service account with all rights in the scene's namespace and none elsewhere.
async fn everything_in_its_namespace(scene: &Scene, name: &str) -> Result<()> {
    let rules = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    scene.account(name, rules).await
}

/// Waits until the SealedSecret's status is Synced. The status is written after the Sync's pass.
async fn is_synced(scene: &Scene, name: &str) -> Result<()> {
    eventually(&format!("SealedSecret {name} to be Synced"), || async {
        let sealed = scene.get(SEALED, "SealedSecret", name).await?.context("it is gone")?;
        let status = &sealed["status"];
        ensure!(status["observedGeneration"] == sealed["metadata"]["generation"], "{status}");
        if status["conditions"][0]["status"] == "True" { Ok(()) } else { bail!("{status}") }
    })
    .await
}

fn seal(certificate: &str, namespace: &str, name: &str, value: &str) -> Result<String> {
    let certificate = sealing::Certificate::from_pem(certificate.as_bytes())?;
    Ok(sealing::seal(
        &certificate,
        sealing::Scope::Strict.binding(namespace, name, "any"),
        harness::hunt::known(value.as_bytes()),
    )?)
}

/// The text of a SealedSecret. Its metadata are the name and `metadata`.
fn sealed_secret(name: &str, metadata: &Value, encrypted: &Value, template: &Value) -> String {
    let mut object = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": metadata,
        "spec": {"encryptedData": encrypted, "template": template},
    });
    object["metadata"]["name"] = name.into();
    format!("{object}\n")
}
