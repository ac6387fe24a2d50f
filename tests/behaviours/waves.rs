//! The annotation `gitseal.dev/wave`: how Git sets the order, and which values are refused.

use anyhow::{Result, ensure};
use harness::{Plane, Scene, eventually};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::api::{DeleteParams, Patch, PatchParams};
use localcluster::AuditEvent;
use serde_json::json;

use crate::{
    objects::{config_map, deployment, sealed_secret},
    traces::inventory,
};

/// A manifest from the module `objects`, with the wave `number`.
pub(crate) fn in_wave(number: &str, yaml: &str) -> String {
    let annotation = format!("annotations: {{{}: '{number}'}}", crds::names::WAVE);
    let yaml = yaml.replacen("metadata: {", &format!("metadata: {{{annotation}, "), 1);
    yaml.replacen("metadata:\n", &format!("metadata:\n  {annotation}\n"), 1)
}

/// A Deployment that needs the Secret.
fn user_of(secret: &str, name: &str) -> String {
    let image = "image: example.invalid/c";
    deployment(name, 0).replace(image, &format!("{image}, envFrom: [{{secretRef: {{name: {secret}}}}}]"))
}

/// A ConfigMap that the API server refuses.
fn refused(name: &str) -> String {
    config_map(name, "1").replace("value:", "'no key':")
}

/// Waits until the controller has made exactly these requests, each written as `resource name`.
async fn have_been_made(scene: &Scene, expected: &[&str], which: impl Fn(&AuditEvent) -> bool) -> Result<()> {
    eventually("the requests in their order", || async {
        let requests = Plane::shared().await?.cluster.requests()?;
        let of_scene = requests.iter().filter(|request| request.namespace == scene.namespace && which(request));
        let made: Vec<_> = of_scene.map(|request| format!("{} {}", request.resource, request.name)).collect();
        ensure!(made == expected, "{made:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn numbers_say_the_order_and_heals_know_it() -> Result<()> {
    let scene = Scene::new("wave-order").await?;
    scene.tree.write("app/a.yaml", in_wave("5", &config_map("last", "1")))?;
    scene.tree.write("app/b.yaml", config_map("usual", "1"))?;
    scene.tree.write("app/c.yaml", in_wave("2", &sealed_secret("login", &scene.seal("login", b"x").await?)))?;
    scene.tree.write("app/d.yaml", in_wave("-5", &deployment("first", 0)))?;
    let revision = scene.publish("in waves").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    let expected = ["deployments first", "configmaps usual", "sealedsecrets login", "secrets login", "configmaps last"];
    have_been_made(&scene, &expected, |request| request.uri.contains("fieldManager=gitseal&")).await?;

    let edited = json!({"data": {"password": "ZWRpdGVk"}});
    scene.api::<Secret>().patch("login", &PatchParams::default(), &Patch::Merge(&edited)).await?;
    scene.api::<ConfigMap>().delete("last", &DeleteParams::default()).await?;
    scene.has("v1", "ConfigMap", "last", json!({"data": {"value": "1"}})).await?;
    scene.has("v1", "Secret", "login", json!({"data": {"password": "eA=="}})).await?;
    scene.is_applied("app", &revision).await.map(drop)
}

#[tokio::test]
async fn a_wave_waits_until_the_one_before_is_applied() -> Result<()> {
    let scene = Scene::new("wave-waits").await?;
    scene.tree.write("app/a.yaml", in_wave("2", &config_map("later", "1")))?;
    scene.tree.write("app/b.yaml", in_wave("1", &refused("broken")))?;
    scene.tree.write("app/c.yaml", in_wave("1", &config_map("beside", "1")))?;
    scene.tree.write("app/d.yaml", config_map("before", "1"))?;
    scene.publish("one of them is refused").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    assert!(message.contains("app/b.yaml:1: ConfigMap") && message.contains("no key"), "{message}");
    for there in ["before", "beside"] {
        scene.has("v1", "ConfigMap", there, json!({})).await?;
    }
    assert!(scene.get("v1", "ConfigMap", "later").await?.is_none(), "the later wave did not wait");

    scene.tree.write("app/b.yaml", in_wave("1", &config_map("broken", "1")))?;
    let mended = scene.publish("mended").await?;
    scene.is_applied("app", &mended).await?;
    scene.has("v1", "ConfigMap", "later", json!({})).await.map(drop)
}

#[tokio::test]
async fn what_is_needed_comes_with_its_first_user() -> Result<()> {
    let scene = Scene::new("wave-needs").await?;
    let inner = format!("{}-inner", scene.namespace);
    let namespace = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {inner}}}\n");
    let in_it = config_map("in-it", "1").replace("name: in-it", &format!("name: in-it\n  namespace: {inner}"));
    scene.tree.write("app/a.yaml", in_wave("-2", &in_it))?;
    scene.tree.write("app/b.yaml", in_wave("-1", &user_of("login", "web")))?;
    scene.tree.write("app/c.yaml", &namespace)?;
    scene.tree.write("app/d.yaml", sealed_secret("login", &scene.seal("login", b"x").await?))?;
    scene.tree.write("app/e.yaml", config_map("usual", "1"))?;
    let revision = scene.publish("needed").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    let expected = ["sealedsecrets login", "secrets login", "deployments web", "configmaps usual"];
    have_been_made(&scene, &expected, |request| request.uri.contains("fieldManager=gitseal&")).await?;

    // The controller never changes a wave that Git sets. If the waves contradict what objects need, it applies nothing.
    scene.tree.write("app/c.yaml", in_wave("3", &namespace))?;
    scene.tree.write("app/e.yaml", config_map("usual", "2"))?;
    scene.publish("the Namespace comes later than what is in it").await?;
    let message = scene.is_not_ready("app", "InvalidWave").await?;
    for text in
        ["guard: app/a.yaml:1: ConfigMap ", "of wave -2", &format!("Namespace {inner} at app/c.yaml:1"), "of wave 3"]
    {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    scene.has("v1", "ConfigMap", "usual", json!({"data": {"value": "1"}})).await?;
    scene.tree.write("app/c.yaml", &namespace)?;
    let back = scene.publish("never mind").await?;
    scene.is_applied("app", &back).await.map(drop)
}

#[tokio::test]
async fn what_uses_a_secret_that_cannot_be_made_is_held_in_every_later_wave() -> Result<()> {
    let scene = Scene::new("wave-held").await?;
    let elsewhere = scene.seal("another-name", b"x").await?;
    scene.tree.write("app/a.yaml", in_wave("1", &sealed_secret("login", &elsewhere)))?;
    scene.tree.write("app/b.yaml", in_wave("2", &user_of("login", "web")))?;
    scene.tree.write("app/c.yaml", in_wave("3", &config_map("last", "1")))?;
    scene.publish("sealed for another name").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "UnsealFailed").await?;
    assert!(
        message.contains("app/a.yaml:1: ")
            && message.contains("the objects that use it stay as they are, or are not made: Deployment "),
        "{message}"
    );
    scene.has("v1", "ConfigMap", "last", json!({})).await?;
    assert!(scene.get("apps/v1", "Deployment", "web").await?.is_none(), "it was made without its Secret");

    scene.tree.write("app/a.yaml", in_wave("1", &sealed_secret("login", &scene.seal("login", b"x").await?)))?;
    let mended = scene.publish("sealed anew").await?;
    scene.is_applied("app", &mended).await?;
    scene.has("apps/v1", "Deployment", "web", json!({})).await.map(drop)
}

#[tokio::test]
async fn what_leaves_git_goes_in_the_opposite_order() -> Result<()> {
    let scene = Scene::new("wave-prune").await?;
    scene.tree.write("app/a.yaml", in_wave("4", &config_map("late", "1")))?;
    scene.tree.write("app/b.yaml", config_map("usual", "1"))?;
    scene.tree.write("app/c.yaml", in_wave("-4", &deployment("early", 0)))?;
    scene.tree.write("app/d.yaml", in_wave("-4", &config_map("early", "1")))?;
    scene.tree.write("kept/kept.yaml", config_map("kept", "1"))?;
    let first = scene.publish("in waves").await?;
    scene.sync("app", "./", json!({"pruneLimit": "100%"})).await?;
    let sync = scene.is_applied("app", &first).await?;
    let waves = sync.status.unwrap_or_default().inventory;
    let of = |id: &str| waves.iter().find(|entry| entry.id == format!("{}_{id}", scene.namespace)).map(|entry| entry.w);
    assert_eq!((of("late__ConfigMap"), of("usual__ConfigMap")), (Some(Some(4)), Some(None)), "{waves:?}");

    scene.tree.remove("app")?;
    let second = scene.publish("they leave Git").await?;
    let sync = scene.is_applied("app", &second).await?;
    assert_eq!(inventory(sync).len(), 1);
    let expected = ["configmaps late", "configmaps usual", "deployments early", "configmaps early"];
    have_been_made(&scene, &expected, |request| {
        request.verb == "delete" && matches!(request.resource.as_str(), "configmaps" | "deployments")
    })
    .await
}

#[tokio::test]
async fn what_is_no_number_is_refused_with_its_place() -> Result<()> {
    let scene = Scene::new("wave-odd").await?;
    scene.tree.write("app/a.yaml", in_wave("1", &config_map("a", "1")))?;
    let good = scene.publish("good").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &good).await?;
    for (number, shown) in [("first", "\"first\""), ("1001", "\"1001\""), ("1.5", "\"1.5\"")] {
        scene.tree.write("app/a.yaml", in_wave(number, &config_map("a", "2")))?;
        scene.publish(number).await?;
        let expected = format!("app/a.yaml:1: ConfigMap a: gitseal.dev/wave is {shown}; ");
        scene
            .sync_when("app", &expected, |_, ready| ready.reason == "InvalidWave" && ready.message.contains(&expected))
            .await?;
    }
    // Meanwhile, drift of the applied objects is still healed.
    scene.api::<ConfigMap>().delete("a", &DeleteParams::default()).await?;
    scene.has("v1", "ConfigMap", "a", json!({"data": {"value": "1"}})).await.map(drop)
}
