//! The HTTP endpoints for SealedSecrets: what the controller answers, and what it does not reveal.

use anyhow::{Context, Result, ensure};
use harness::{Plane, Scene, eventually, kubernetes, programs::Controller};
use serde_json::{Value, json};

const SEALED: &str = "bitnami.com/v1alpha1";

/// A SealedSecret with this name in the scene's namespace.
fn sealed_secret(scene: &Scene, name: &str, values: Value) -> Value {
    json!({
        "apiVersion": SEALED, "kind": "SealedSecret",
        "metadata": {"name": name, "namespace": scene.namespace},
        "spec": {"encryptedData": values, "template": {"metadata": {"name": name, "namespace": scene.namespace}}},
    })
}

/// Sends an object to the shared controller. Tries again if other tests have made too many requests.
async fn post(path: &str, object: &Value) -> Result<(u16, String)> {
    let controller = Plane::shared().await?.controller.lock().await;
    let controller: &Controller = controller.as_ref().context("a controller")?;
    eventually(&format!("{path} to answer"), || async {
        let answer = controller.post(path, object).await?;
        ensure!(answer.0 != 429, "too many at once");
        Ok(answer)
    })
    .await
}

async fn post_json(path: &str, object: &Value) -> Result<Value> {
    let (status, body) = post(path, object).await?;
    ensure!(status == 200, "{status}: {body}");
    Ok(serde_json::from_str(&body)?)
}

#[tokio::test]
async fn verify_and_rotate_go_by_the_place_that_a_value_is_for() -> Result<()> {
    let scene = Scene::on(Plane::shared().await?, "endpoints", harness::git::ServerOptions::default()).await?;
    let sealed = sealed_secret(&scene, "db", json!({"password": scene.seal("db", b"plain").await?}));
    assert_eq!(post("/v1/verify", &sealed).await?, (200, String::new()));
    assert_eq!(post_json("/v1/rotate", &sealed).await?, sealed, "the newest key seals already");

    let mut moved = sealed.clone();
    moved["metadata"]["name"] = json!("other");
    let (status, message) = post("/v1/verify", &moved).await?;
    assert!(
        status == 409 && message.starts_with("spec.encryptedData.password: no key could decrypt secret"),
        "{message}"
    );
    let (status, message) = post("/v1/rotate", &moved).await?;
    assert!(
        status == 500 && message.starts_with("spec.encryptedData.password: no key could decrypt secret"),
        "{message}"
    );
    Ok(())
}

/// Two known attacks: a scope in the annotations of the template (CVE-2026-22728), and a template whose result depends on
/// the unsealed value.
#[tokio::test]
async fn nothing_is_an_oracle() -> Result<()> {
    let scene = Scene::on(Plane::shared().await?, "oracle", harness::git::ServerOptions::default()).await?;
    let value = scene.seal("db", b"plain").await?;
    let mut widened = sealed_secret(&scene, "db", json!({"password": value}));
    let cluster_wide = json!({"sealedsecrets.bitnami.com/cluster-wide": "true"});
    widened["spec"]["template"]["metadata"]["annotations"] = cluster_wide.clone();
    let rotated = post_json("/v1/rotate", &widened).await?;
    let mut elsewhere = sealed_secret(&scene, "mine", rotated["spec"]["encryptedData"].clone());
    elsewhere["metadata"]["annotations"] = cluster_wide.clone();
    elsewhere["metadata"]["namespace"] = json!("default");
    assert_eq!(post("/v1/verify", &elsewhere).await?.0, 409, "it is no more for everywhere than it was");
    let mut own = sealed_secret(&scene, "db", json!({"password": value}));
    own["metadata"]["annotations"] = cluster_wide;
    assert_eq!(post("/v1/rotate", &own).await?.0, 500);

    for template in [
        r#"{{ if eq .password "plain" }}{{ fail "yes" }}{{ end }}"#,
        r#"{{ if ne .password "plain" }}{{ fail "no" }}{{ end }}"#,
        "{{ .password }}",
    ] {
        let mut asking = sealed_secret(&scene, "db", json!({"password": value}));
        asking["spec"]["template"]["data"] = json!({"guess": template});
        assert_eq!(post("/v1/verify", &asking).await?.0, 200, "{template}");
        assert_eq!(post_json("/v1/rotate", &asking).await?, asking, "{template}");
    }
    Ok(())
}

#[tokio::test]
async fn keys_in_use_are_counted_over_the_cluster() -> Result<()> {
    let scene = Scene::on(Plane::shared().await?, "keys", harness::git::ServerOptions::default()).await?;
    let good = scene.seal("db", b"plain").await?;
    let sealed = sealed_secret(&scene, "db", json!({"good": good, "broken": "AAAA"}));
    let which = post_json("/v1/which", &sealed).await?;
    let values = &which["items"][0]["values"];
    assert_eq!((&values["good"], &values["broken"]), (&which["newest"], &Value::Null));

    kubernetes::apply(&scene.client, &scene.namespace, sealed).await?;
    let controller = Plane::shared().await?.controller.lock().await;
    let controller = controller.as_ref().context("a controller")?;
    eventually("the values to be counted", || async {
        let report: Value = serde_json::from_str(&controller.fetch("/v1/keys").await?)?;
        let newest = report["keys"].as_array().into_iter().flatten().find(|key| key["seals"] == true);
        let newest = newest.context("a key that seals")?;
        ensure!(newest["fingerprint"] == which["newest"], "{report}");
        ensure!(newest["values"].as_u64() >= Some(1) && newest["sealedSecrets"].as_u64() >= Some(1), "{report}");
        ensure!(report["undecryptable"].as_u64() >= Some(1), "{report}");
        Ok(())
    })
    .await
}
