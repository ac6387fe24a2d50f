//! Much work from one namespace must not delay the Secrets of another.

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{Sync, find_condition};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{ListParams, Patch, PatchParams};
use localcluster::ClusterOptions;
use sealing::{Certificate, Scope};
use serde_json::{Map, Value, json};

use crate::objects::{config_map, sealed_secret};

const LARGE: usize = 16;

/// A SealedSecret with this number of values, which are all the same.
fn large(name: &str, value: &str, values: usize) -> Value {
    let values: Map<String, Value> = (0..values).map(|number| (format!("key-{number}"), value.into())).collect();
    json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
        "metadata": {"name": name, "annotations": {"sealedsecrets.bitnami.com/namespace-wide": "true"}},
        "spec": {"encryptedData": values},
    })
}

#[tokio::test]
async fn a_neighbours_secret_does_not_wait_for_thousands_of_values() -> Result<()> {
    let tenant = Scene::new("many-values").await?;
    let neighbour = Scene::new("few-values").await?;
    let certificate = Certificate::from_pem(Plane::shared().await?.certificate.as_bytes())?;
    let binding = Scope::NamespaceWide.binding(&tenant.namespace, "any", "any");
    let value = sealing::seal(&certificate, binding, harness::hunt::known(b"much"))?;
    let few = neighbour.seal("few", b"little").await?;
    let few: Value = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "few"},
        "spec": {"encryptedData": {"a": few}},
    });
    let all = (0..LARGE).map(|number| {
        let object = large(&format!("large-{number}"), &value, 1000);
        kubernetes::apply(&tenant.client, &tenant.namespace, object)
    });
    futures::future::try_join_all(all).await?;
    kubernetes::apply(&neighbour.client, &neighbour.namespace, few).await?;
    neighbour.has("v1", "Secret", "few", json!({"data": {"a": STANDARD.encode("little")}})).await?;
    let done = tenant.api::<Secret>().list(&ListParams::default()).await?.items.len();
    // With one common queue, the small SealedSecret would be unsealed after all large ones.
    assert!(done + 3 < LARGE, "it was there when the last of the large ones were: {done}");
    eventually("the large ones", || async {
        let done = tenant.api::<Secret>().list(&ListParams::default()).await?.items.len();
        ensure!(done == LARGE, "{done} of them");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn more_values_than_there_is_room_for_are_refused_with_a_reason() -> Result<()> {
    let scene = Scene::new("too-many-values").await?;
    let text = large("large", "AgA=", 2501).to_string();
    scene.tree.write("app/large.yaml", text)?;
    scene.tree.write("app/map.yaml", config_map("settings", "1"))?;
    scene.publish("too many values").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "UnsealFailed").await?;
    assert!(
        message.contains("app/large.yaml:1: ") && message.contains("a SealedSecret may have at most 2500"),
        "{message}"
    );
    scene.has("v1", "ConfigMap", "settings", json!({})).await?;
    Ok(())
}

/// How many values the controller tried to decrypt.
async fn tried(controller: &Controller) -> Result<u64> {
    controller.metric("gitseal_values_tried_total").await?.context("no such metric")
}

#[tokio::test]
async fn who_waits_for_finalizers_keeps_nobody_from_writing() -> Result<()> {
    let slow = Scene::new("slow-finalizers").await?;
    let neighbour = Scene::new("slow-neighbour").await?;
    let map = |name: &str, value: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "immutable": true, "data": {"value": value},
            "metadata": {"name": name, "finalizers": ["example.com/hold"], "annotations": {"gitseal.dev/replace": "allowed"}},
        })
    };
    let folders = ["one", "two", "three"];
    let write = |value: &str| -> Result<()> {
        for folder in folders {
            let maps = (0..14).map(|number| map(&format!("{folder}-{number}"), value).to_string());
            slow.tree.write(&format!("{folder}/maps.json"), maps.collect::<Vec<_>>().join("\n"))?;
        }
        Ok(())
    };
    write("1")?;
    let first = slow.publish("as many as may write at a time").await?;
    for folder in folders {
        slow.sync(folder, &format!("./{folder}"), json!({"timeout": "10s"})).await?;
    }
    for folder in folders {
        slow.is_applied(folder, &first).await?;
    }
    write("2")?;
    slow.publish("all are to be replaced").await?;
    let going = || async {
        let maps = slow.api::<ConfigMap>().list(&ListParams::default()).await?;
        let count = maps.iter().filter(|map| map.metadata.deletion_timestamp.is_some()).count();
        ensure!(count == 42, "{count} are being deleted");
        Ok(())
    };
    eventually("all to be on their way", going).await?;

    neighbour.tree.write("app/map.yaml", config_map("settings", "1"))?;
    let revision = neighbour.publish("a map").await?;
    neighbour.sync("app", "./app", json!({})).await?;
    neighbour.is_applied("app", &revision).await?;
    for folder in folders {
        let sync = slow.api::<Sync>().get(folder).await?;
        let ready = sync.status.and_then(|status| find_condition(&status.conditions, "Ready").cloned());
        let reason = ready.map(|ready| ready.reason);
        ensure!(reason.as_deref() != Some("ObjectTerminating"), "the neighbour waited until {folder} gave up");
    }

    for map in slow.api::<ConfigMap>().list(&ListParams::default()).await? {
        let free = Patch::Merge(json!({"metadata": {"finalizers": null}}));
        let name = map.metadata.name.unwrap_or_default();
        slow.api::<ConfigMap>().patch(&name, &PatchParams::default(), &free).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_was_refused_is_not_decrypted_again() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    let certificate = Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?;
    let scene = Scene::on(&plane, "refused-once", ServerOptions::default()).await?;
    let seal = |name: &str, value: &str| {
        let binding = Scope::Strict.binding(&scene.namespace, name, "any");
        sealing::seal(&certificate, binding, harness::hunt::known(value.as_bytes()))
    };
    scene.tree.write("app/db.yaml", sealed_secret("db", &seal("another", "moved")?))?;
    scene.repository(json!({})).await?;
    scene.publish("sealed for another name").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_not_ready("app", "UnsealFailed").await?;
    let object = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "alone"},
        "spec": {"encryptedData": {"a": seal("another", "moved")?}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, object).await?;
    let requests = async || -> Result<u64> {
        let name = "sealed_secrets_controller_unseal_requests_total";
        controller.metric(name).await?.context("no such metric")
    };
    eventually("both to be refused", || async {
        ensure!(tried(&controller).await? >= 2, "not yet");
        Ok(())
    })
    .await?;
    let before = requests().await?;
    for _ in 0..3 {
        scene.request::<crds::Sync>("app").await?;
    }
    eventually("more tries", || async {
        ensure!(requests().await? >= before + 4, "not yet");
        Ok(())
    })
    .await?;
    assert_eq!(tried(&controller).await?, 2);

    // A changed value is tried again.
    scene.tree.write("app/db.yaml", sealed_secret("db", &seal("db", "right")?))?;
    let revision = scene.publish("sealed for this name").await?;
    scene.is_applied("app", &revision).await?;
    assert_eq!(tried(&controller).await?, 3);
    Ok(())
}
