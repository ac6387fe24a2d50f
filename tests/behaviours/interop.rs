//! The real kubeseal with our controller, our CLI with the real Sealed Secrets controller, and our controller in place of
//! the other one.

use std::{fs, process::Command};

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{self, Controller, ControllerOptions, SealedSecretsController},
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use localcluster::{ClusterOptions, parts};
use serde_json::{Value, json};

use crate::objects::sealed_secret;

const SEALED: &str = "bitnami.com/v1alpha1";
const SCOPES: [&str; 3] = ["strict", "namespace-wide", "cluster-wide"];

/// A value that is not text.
const BINARY: [u8; 6] = [0, 0xff, b'\n', 0xc3, 0x28, 0];

/// The values to seal: a text, several lines, bytes, and an empty value.
fn values() -> Value {
    json!({
        "password": STANDARD.encode("p4ss word\u{2713}"),
        "file": STANDARD.encode("a: b\nc: |\n  d\n"),
        "binary": STANDARD.encode(BINARY),
        "empty": "",
    })
}

fn plain_secret(namespace: &str, name: &str) -> Value {
    harness::hunt::known("p4ss word\u{2713}");
    json!({
        "apiVersion": "v1", "kind": "Secret", "type": "example.com/kind",
        "metadata": {"name": name, "namespace": namespace, "labels": {"team": "a"}, "annotations": {"note": "kept"}},
        "data": values(),
    })
}

/// The fields that the unsealed Secret must have.
fn unsealed() -> Value {
    json!({
        "type": "example.com/kind", "data": values(),
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}},
    })
}

/// Runs a sealing program on a Secret, and returns its output.
fn seal(mut command: Command, secret: &Value) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("secret.json");
    fs::write(&file, secret.to_string())?;
    programs::run(command.arg(&file))
}

/// kubeseal, which gets the certificate from our controller.
async fn kubeseal(scope: &str, format: &str) -> Result<Command> {
    let program = tokio::task::spawn_blocking(parts::kubeseal).await??;
    let plane = Plane::shared().await?;
    let port = plane.controller.lock().await.as_ref().context("no controller")?.port;
    let mut command = Command::new(program);
    command
        .env("KUBECONFIG", plane.cluster.kubeconfig())
        .args(["--scope", scope, "--format", format])
        .arg(format!("--cert=http://127.0.0.1:{port}/v1/cert.pem"));
    Ok(command)
}

fn renamed(sealed: &Value, namespace: &str, name: &str) -> Value {
    let mut sealed = sealed.clone();
    sealed["metadata"]["namespace"] = namespace.into();
    sealed["metadata"]["name"] = name.into();
    sealed
}

/// Applies the output of `seal(namespace, name, scope)` in every place where its scope allows it to be unsealed, and in
/// one place where the scope does not allow it.
async fn every_scope(here: &Scene, there: &Scene, seal: impl AsyncFn(&str, &str, &str) -> Result<Value>) -> Result<()> {
    for scope in SCOPES {
        let sealed = seal(&here.namespace, scope, scope).await?;
        let text = sealed.to_string();
        ensure!(!text.contains(&STANDARD.encode("p4ss word\u{2713}")), "{text}");
        kubernetes::apply(&here.client, &here.namespace, sealed.clone()).await?;
        here.has("v1", "Secret", scope, unsealed()).await?;
        here.has(SEALED, "SealedSecret", scope, json!({"status": {"observedGeneration": 1}})).await?;

        let other_name = format!("{scope}-renamed");
        kubernetes::apply(&here.client, &here.namespace, renamed(&sealed, &here.namespace, &other_name)).await?;
        kubernetes::apply(&there.client, &there.namespace, renamed(&sealed, &there.namespace, &other_name)).await?;
        for (scene, may) in [(here, scope != "strict"), (there, scope == "cluster-wide")] {
            if may {
                scene.has("v1", "Secret", &other_name, unsealed()).await?;
            } else {
                is_refused(scene, &other_name).await?;
                ensure!(scene.get("v1", "Secret", &other_name).await?.is_none(), "{scope}: it was moved");
            }
        }
    }
    Ok(())
}

async fn is_refused(scene: &Scene, name: &str) -> Result<()> {
    eventually(&format!("SealedSecret {name} to be refused"), || async {
        let sealed = scene.get(SEALED, "SealedSecret", name).await?.context("it is gone")?;
        let synced = &sealed["status"]["conditions"][0];
        ensure!(synced["type"] == "Synced" && synced["status"] == "False", "{synced}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_kubeseal_seals_is_unsealed() -> Result<()> {
    let here = Scene::new("kubeseal").await?;
    let there = Scene::new("kubeseal-other").await?;
    every_scope(&here, &there, async |namespace: &str, name: &str, scope: &str| {
        let mut command = kubeseal(scope, "json").await?;
        command.arg("--secret-file");
        Ok(serde_json::from_str(&seal(command, &plain_secret(namespace, name))?)?)
    })
    .await
}

#[tokio::test]
async fn what_kubeseal_prints_is_unsealed_from_git() -> Result<()> {
    let scene = Scene::new("kubeseal-git").await?;
    let folder = tempfile::tempdir()?;
    let value = folder.path().join("value");
    fs::write(&value, BINARY)?;
    for scope in SCOPES {
        let mut command = kubeseal(scope, "yaml").await?;
        command.arg("--secret-file");
        let sealed = seal(command, &plain_secret(&scene.namespace, scope))?;
        scene.tree.write(&format!("app/{scope}.yaml"), sealed)?;

        let mut command = kubeseal(scope, "yaml").await?;
        let raw = format!("raw-{scope}");
        command.arg("--raw").arg(format!("--from-file={}", value.display()));
        command.args(["--namespace", &scene.namespace, "--name", &raw]);
        let sealed = sealed_secret(&raw, programs::run(&mut command)?.trim());
        let annotated = format!("metadata: {{annotations: {{sealedsecrets.bitnami.com/{scope}: 'true'}}, name");
        scene.tree.write(&format!("app/{raw}.yaml"), sealed.replace("metadata: {name", &annotated))?;
    }
    let revision = scene.publish("sealed by kubeseal").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    for scope in SCOPES {
        scene.has("v1", "Secret", scope, unsealed()).await?;
        let raw = json!({"data": {"password": STANDARD.encode(BINARY)}});
        scene.has("v1", "Secret", &format!("raw-{scope}"), raw).await?;
    }
    Ok(())
}

/// The names and resource versions of the Secrets with the sealing keys.
async fn keys(scene: &Scene) -> Result<Vec<(String, Option<String>)>> {
    let secrets = Api::<Secret>::namespaced(scene.client.clone(), "kube-system");
    let keys = secrets.list(&ListParams::default().labels(crds::names::SEALING_KEY)).await?;
    Ok(keys.into_iter().map(|key| (key.name_any(), key.resource_version())).collect())
}

#[tokio::test]
async fn gitseal_seals_for_the_sealed_secrets_controller_and_ours_takes_its_place() -> Result<()> {
    let options = ClusterOptions { controller_manager: false, ..ClusterOptions::default() };
    let plane = Plane::without_controller(options).await?;
    let theirs = SealedSecretsController::start(&plane).await?;
    let here = Scene::on(&plane, "theirs", ServerOptions::default()).await?;
    let there = Scene::on(&plane, "theirs-other", ServerOptions::default()).await?;
    let certificate = plane.folder().join("cert.pem");
    fs::write(&certificate, theirs.certificate())?;
    let gitseal = async |namespace: &str, name: &str, scope: &str| {
        let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
        command.args(["seal", "--scope", scope, "--output", "json", "--cert"]).arg(&certificate);
        Ok(serde_json::from_str::<Value>(&seal(command, &plain_secret(namespace, name))?)?)
    };
    every_scope(&here, &there, gitseal).await?;
    let late = gitseal(&here.namespace, "late", "strict").await?;

    // Our controller takes the place of the other one, with the key that the other one made.
    let keys_before = keys(&here).await?;
    let before = here.get(SEALED, "SealedSecret", "strict").await?.context("SealedSecret")?;
    let untouched = here.get("v1", "Secret", "namespace-wide").await?.context("Secret")?;
    let certificate = theirs.certificate().trim().to_owned();
    drop(theirs);
    let folder = plane.folder();
    let mut ours = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    ours.ready().await?;
    assert_eq!(ours.fetch("/v1/cert.pem").await?.trim(), certificate, "it seals with the same key");
    kubernetes::apply(&here.client, &here.namespace, late).await?;
    here.has("v1", "Secret", "late", unsealed()).await?;
    here.api::<Secret>().delete("strict", &DeleteParams::default()).await?;
    let owner = json!([{
        "apiVersion": SEALED, "kind": "SealedSecret", "name": "strict", "controller": true,
        "uid": before["metadata"]["uid"],
    }]);
    let mut wanted = unsealed();
    wanted["metadata"]["ownerReferences"] = owner;
    here.has("v1", "Secret", "strict", wanted).await?;
    assert_eq!(keys(&here).await?, keys_before, "no key was made or changed");
    let after = here.get(SEALED, "SealedSecret", "strict").await?.context("SealedSecret")?;
    assert_eq!(after["spec"], before["spec"], "nothing was sealed again");
    let secret = here.get("v1", "Secret", "namespace-wide").await?.context("Secret")?;
    assert_eq!(secret["metadata"]["uid"], untouched["metadata"]["uid"]);
    assert_eq!(secret["data"], untouched["data"]);

    // If a value is removed from the SealedSecret, our controller also removes it from a Secret that the other
    // controller wrote.
    let without_file = json!([{"op": "remove", "path": "/spec/encryptedData/file"}]);
    let patch = Patch::Json::<()>(serde_json::from_value(without_file)?);
    let sealed = kubernetes::objects(&here.client, &here.namespace, SEALED, "SealedSecret");
    sealed.patch("namespace-wide", &PatchParams::default(), &patch).await?;
    eventually("the value to go", || async {
        let secret = here.get("v1", "Secret", "namespace-wide").await?.context("Secret")?;
        ensure!(secret["data"]["file"].is_null() && !secret["data"]["password"].is_null(), "{}", secret["metadata"]);
        Ok(())
    })
    .await?;
    drop(ours);
    and_back(&plane, &here).await
}

/// Going back works, too: the other controller continues with a key that our controller made.
async fn and_back(plane: &Plane, scene: &Scene) -> Result<()> {
    let secrets = Api::<Secret>::namespaced(scene.client.clone(), "kube-system");
    for (name, _) in keys(scene).await? {
        secrets.delete(&name, &DeleteParams::default()).await?;
    }
    let folder = plane.folder();
    let mut ours = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    ours.ready().await?;
    let certificate = ours.fetch("/v1/cert.pem").await?;
    drop(ours);
    let before = keys(scene).await?;
    let theirs = SealedSecretsController::start(plane).await?;
    assert_eq!(theirs.certificate().trim(), certificate.trim());
    assert_eq!(keys(scene).await?, before, "no key was made or changed");
    let file = folder.join("ours.pem");
    fs::write(&file, certificate)?;
    let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
    command.args(["seal", "--output", "json", "--cert"]).arg(&file);
    let sealed = seal(command, &plain_secret(&scene.namespace, "back"))?;
    kubernetes::apply(&scene.client, &scene.namespace, serde_json::from_str(&sealed)?).await?;
    scene.has("v1", "Secret", "back", unsealed()).await.map(drop)
}
