//! From the Sealed Secrets controller to ours and back with live Secrets, as docs/migration.md tells it.

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

use crate::proxy::kubeseal;

const SEALED: &str = "bitnami.com/v1alpha1";
const NAMESPACE: &str = "shop";
/// Who our controller is to the API server, and who the other one is.
const OURS: &str = "our-controller";
const THEIRS: &str = "system:serviceaccount:kube-system:sealed-secrets-controller";

/// A cluster in which either controller runs.
struct Shop {
    plane: Plane,
    client: Client,
}

impl Shop {
    async fn open() -> Result<Self> {
        let plane = Plane::without_controller(ClusterOptions { audit: true, ..ClusterOptions::default() }).await?;
        let client = plane.cluster.client().await?;
        let namespace = serde_json::from_value(json!({"metadata": {"name": NAMESPACE}}))?;
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await?;
        Ok(Self { plane, client })
    }

    /// The real controller, behind the Service.
    async fn theirs(&self, arguments: &[&str]) -> Result<SealedSecretsController> {
        let arguments = [&["--key-size=2048"], arguments].concat();
        let theirs = SealedSecretsController::start_on(&self.plane, network::POD, &arguments).await?;
        service::lead_to(&self.client, theirs.port()).await?;
        Ok(theirs)
    }

    /// Our controller, behind the Service.
    async fn ours(&self) -> Result<Controller> {
        let kubeconfig = self.plane.cluster.kubeconfig_for(OURS, &["system:masters"])?;
        let folder = self.plane.folder();
        let options = ControllerOptions { address: network::POD, ..ControllerOptions::new(&kubeconfig, &folder) };
        let mut ours = Controller::start(&options)?;
        ours.ready().await?;
        service::lead_to(&self.client, ours.port).await?;
        Ok(ours)
    }

    /// What kubeseal makes of a Secret, with the certificate of the controller that runs.
    fn seal(&self, secret: &Value, scope: &str) -> Result<Value> {
        let arguments = ["--format=json", "--scope", scope];
        let sealed = kubeseal(&self.plane, &arguments, &secret.to_string())?.is(0, &[])?;
        Ok(serde_json::from_str(&sealed.out)?)
    }

    async fn apply(&self, object: Value) -> Result<()> {
        kubernetes::apply(&self.client, NAMESPACE, object).await.map(drop)
    }

    async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Value> {
        let object = kubernetes::objects(&self.client, NAMESPACE, api_version, kind).get(name).await?;
        Ok(serde_json::to_value(object)?)
    }

    /// Waits until the Secret has these fields and its SealedSecret, as it is now, is Synced.
    async fn has(&self, name: &str, wanted: Value) -> Result<()> {
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
    async fn names(&self) -> Result<BTreeSet<String>> {
        let sealed = kubernetes::objects(&self.client, NAMESPACE, SEALED, "SealedSecret");
        Ok(sealed.list(&ListParams::default()).await?.into_iter().map(|sealed| sealed.name_any()).collect())
    }

    /// Everything about SealedSecrets, Secrets and sealing keys that a change of controllers has to leave as it is.
    async fn state(&self) -> Result<Value> {
        let mut state = json!({});
        for name in self.names().await? {
            let sealed = self.get(SEALED, "SealedSecret", &name).await?;
            let mut secret = self.get("v1", "Secret", &name).await?;
            if let Some(annotations) = secret["metadata"]["annotations"].as_object_mut() {
                annotations.remove(crds::names::SEALED_DIGEST);
            }
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

    /// Waits until our controller made every Secret its own.
    async fn taken_over_by_ours(&self) -> Result<()> {
        for name in self.names().await? {
            let by_us = json!({"metadata": {"annotations": {}}});
            self.has(&name, by_us).await?;
            eventually(&format!("Secret {name} to be ours"), || async {
                let secret = self.get("v1", "Secret", &name).await?;
                let annotations = &secret["metadata"]["annotations"];
                ensure!(annotations[crds::names::SEALED_DIGEST].is_string(), "{annotations}");
                Ok(())
            })
            .await?;
        }
        Ok(())
    }

    /// Waits until their controller looked at every SealedSecret, and found nothing wrong with any.
    async fn taken_over_by_theirs(&self, theirs: &SealedSecretsController) -> Result<()> {
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

    /// Every Secret whose deletion somebody asked for.
    fn deletions(&self) -> Result<Vec<AuditEvent>> {
        let mut requests = self.plane.cluster.requests()?;
        requests.retain(|request| request.resource == "secrets" && request.verb.starts_with("delete"));
        Ok(requests)
    }
}

/// What is kept of an object's metadata.
fn kept(metadata: &Value) -> Value {
    let fields = ["uid", "creationTimestamp", "generation", "labels", "annotations", "ownerReferences", "finalizers"];
    let kept = fields.into_iter().map(|field| (field.to_owned(), metadata[field].clone()));
    // No annotations and an empty map of them are the same.
    kept.filter(|(_, value)| !value.as_object().is_some_and(serde_json::Map::is_empty)).collect()
}

/// Asserts that nothing changed; says what did.
fn same(after: &Value, before: &Value) {
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

fn secret(name: &str, values: &[(&str, &str)], more: Value) -> Value {
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

fn data(values: &[(&str, &str)]) -> Value {
    let values: Value = values.iter().map(|(key, value)| ((*key).to_owned(), json!(STANDARD.encode(value)))).collect();
    json!({"data": values})
}

/// Secrets that somebody else made, which a SealedSecret may take over or merge into.
async fn others(shop: &Shop) -> Result<()> {
    for (name, annotation) in [("managed", crds::names::MANAGED), ("merged", crds::names::PATCH)] {
        let metadata = json!({"metadata": {"annotations": {annotation: "true"}, "labels": {"theirs": "kept"}}});
        let object = secret(name, &[("theirs", "by-hand")], metadata);
        let secrets = Api::<Secret>::namespaced(shop.client.clone(), NAMESPACE);
        secrets.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    Ok(())
}

/// What is sealed with the older key: all scopes, labels, annotations, types, immutable, templates, owners.
async fn first_generation(shop: &Shop) -> Result<()> {
    others(shop).await?;
    let labelled = json!({
        "type": "kubernetes.io/basic-auth",
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}},
    });
    let without_owner = json!({"metadata": {"annotations": {
        crds::names::SKIP_SET_OWNER_REFERENCES: "true", crds::names::MANAGED: "true",
    }}});
    for (name, scope, more) in [
        ("strict", "strict", labelled),
        ("wide", "namespace-wide", json!({})),
        ("everywhere", "cluster-wide", json!({})),
        ("managed", "strict", json!({"metadata": {"labels": {"ours": "x"}}})),
        ("merged", "strict", json!({"metadata": {"labels": {"ours": "x"}}})),
        ("ownerless", "strict", without_owner),
        ("immutable", "strict", json!({"immutable": true})),
        ("several", "strict", json!({})),
        ("templated", "strict", json!({})),
    ] {
        let values = [("username", "admin"), ("password", name)];
        let mut sealed = shop.seal(&secret(name, &values, more), scope)?;
        if name == "templated" {
            sealed["spec"]["template"]["data"] = json!({"config": "log: debug\n"});
        }
        shop.apply(sealed).await?;
        shop.has(name, data(&values)).await?;
    }
    shop.has("merged", data(&[("theirs", "by-hand")])).await
}

/// What is sealed with the newer key: a value of a SealedSecret that has older ones, and a whole one.
async fn second_generation(shop: &Shop) -> Result<()> {
    let added = shop.seal(&secret("several", &[("token", "newer")], json!({})), "strict")?;
    let mut several = shop.get(SEALED, "SealedSecret", "several").await?;
    several["spec"]["encryptedData"]["token"] = added["spec"]["encryptedData"]["token"].clone();
    let object = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "several"}, "spec": several["spec"],
    });
    shop.apply(object).await?;
    shop.has("several", data(&[("username", "admin"), ("password", "several"), ("token", "newer")])).await?;
    lives(shop, "newest").await
}

/// Whoever is in charge unseals a new SealedSecret, and follows a change of it without making the Secret anew.
async fn lives(shop: &Shop, name: &str) -> Result<()> {
    shop.apply(shop.seal(&secret(name, &[("a", "first"), ("b", "goes")], json!({})), "strict")?).await?;
    shop.has(name, data(&[("a", "first"), ("b", "goes")])).await?;
    let before = shop.get("v1", "Secret", name).await?;
    changes(shop, name, "second").await?;
    let after = shop.get("v1", "Secret", name).await?;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{name} was made anew");
    assert!(after["data"]["b"].is_null(), "{name} keeps a value that was taken out");
    Ok(())
}

/// Seals another value for a SealedSecret, and waits until its Secret has it.
async fn changes(shop: &Shop, name: &str, value: &str) -> Result<()> {
    shop.apply(shop.seal(&secret(name, &[("a", value)], json!({})), "strict")?).await?;
    shop.has(name, data(&[("a", value)])).await
}

/// The real controller with an older and a newer key, and everything that lives with them.
async fn with_sealed_secrets(shop: &Shop) -> Result<SealedSecretsController> {
    let theirs = shop.theirs(&[]).await?;
    first_generation(shop).await?;
    let older = theirs.certificate().to_owned();
    theirs.stop()?;
    // Which of two keys is the newer one is told by the second in which they were made.
    let made = sealing::Certificate::from_pem(older.as_bytes())?.not_before();
    eventually("the second to pass", || async {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        ensure!(i64::try_from(now)? > made.as_second(), "{now}");
        Ok(())
    })
    .await?;
    // Every key that exists is older than this date: a new one is made.
    let theirs = shop.theirs(&["--key-cutoff-time=Fri, 01 Jan 2100 00:00:00 +0000"]).await?;
    assert_ne!(theirs.certificate(), older);
    second_generation(shop).await?;
    shop.taken_over_by_theirs(&theirs).await?;
    Ok(theirs)
}

#[test]
fn from_sealed_secrets_to_gitseal_and_back_nothing_is_sealed_again_and_no_secret_goes() -> Result<()> {
    network::of_its_own(async || {
        let shop = Shop::open().await?;
        let theirs = with_sealed_secrets(&shop).await?;
        let before = shop.state().await?;
        assert_eq!(before["keys"].as_object().map(serde_json::Map::len), Some(2), "{before:#}");

        let certificate = theirs.certificate().trim().to_owned();
        theirs.stop()?;
        let ours = shop.ours().await?;
        shop.taken_over_by_ours().await?;
        same(&shop.state().await?, &before);
        let fetched = kubeseal(&shop.plane, &["--fetch-cert"], "")?.is(0, &[])?;
        assert_eq!(fetched.out.trim(), certificate, "it seals with the same key");
        lives(&shop, "made-with-ours").await?;
        changes(&shop, "newest", "changed-with-ours").await?;

        let before = shop.state().await?;
        ours.stop()?;
        let theirs = shop.theirs(&[]).await?;
        shop.taken_over_by_theirs(&theirs).await?;
        same(&shop.state().await?, &before);
        assert_eq!(theirs.certificate().trim(), certificate, "it seals with the same key");
        lives(&shop, "made-with-theirs").await?;
        changes(&shop, "made-with-ours", "changed-with-theirs").await?;

        assert_eq!(shop.deletions()?, []);
        Ok(())
    })
}
