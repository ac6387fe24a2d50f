//! Each change of a SealedSecret is decrypted only once, no matter which part of the controller saw it first.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{Plane, Scene, eventually, git::ServerOptions, programs::Controller};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::objects::sealed_secret;

const NAMES: [&str; 3] = ["one", "two", "three"];

async fn requests(controller: &Controller) -> Result<u64> {
    controller.metric("sealed_secrets_controller_unseal_requests_total").await?.context("no such metric")
}

/// Waits until the status of every SealedSecret is about its newest generation.
async fn reported(scene: &Scene) -> Result<()> {
    for name in NAMES {
        eventually(&format!("SealedSecret {name} to be Synced"), || async {
            let sealed = scene.get("bitnami.com/v1alpha1", "SealedSecret", name).await?.context("it is gone")?;
            let (status, generation) = (&sealed["status"], &sealed["metadata"]["generation"]);
            ensure!(status["observedGeneration"] == *generation, "{status}");
            ensure!(status["conditions"][0]["status"] == "True", "{status}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_sealed_secret_of_a_sync_is_unsealed_once() -> Result<()> {
    let (plane, controller) = Plane::alone(ClusterOptions::default()).await?;
    let certificate = sealing::Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?;
    let scene = Scene::on(&plane, "once", ServerOptions::default()).await?;
    let write = |name: &str, value: &str| -> Result<()> {
        let binding = sealing::Scope::Strict.binding(&scene.namespace, name, "password");
        let sealed = sealing::seal(&certificate, binding, harness::hunt::known(value.as_bytes()))?;
        scene.tree.write(&format!("app/{name}.yaml"), sealed_secret(name, &sealed))
    };
    let has = async |name: &str, value: &str| -> Result<()> {
        let wanted = json!({"data": {"password": STANDARD.encode(value)}});
        scene.has("v1", "Secret", name, wanted).await.map(drop)
    };
    for name in NAMES {
        write(name, "first")?;
    }
    scene.repository(json!({})).await?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    reported(&scene).await?;
    assert_eq!(requests(&controller).await?, 3);

    write("two", "second")?;
    scene.tree.write("app/readme.md", "not a manifest")?;
    let second = scene.publish("one of them changed").await?;
    scene.is_applied("app", &second).await?;
    has("two", "second").await?;
    reported(&scene).await?;
    assert_eq!(requests(&controller).await?, 4, "only what changed is unsealed");

    let edit = json!({"stringData": {"password": "edited"}});
    scene.api::<Secret>().patch("one", &PatchParams::default(), &Patch::Merge(&edit)).await?;
    has("one", "first").await?;
    reported(&scene).await?;
    assert_eq!(requests(&controller).await?, 5, "only what drifted is unsealed");

    drop(controller);
    let mut controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    write("three", "third")?;
    let third = scene.publish("one changed while a new controller began").await?;
    scene.is_applied("app", &third).await?;
    has("three", "third").await?;
    reported(&scene).await?;
    assert_eq!(requests(&controller).await?, 1, "a restart unseals nothing again");
    Ok(())
}
