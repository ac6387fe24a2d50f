//! Objects and namespaces that are being deleted or do not exist: how a Sync waits for them, and when it continues.

use anyhow::{Context, Result};
use crds::Sync;
use harness::{Scene, kubernetes};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    objects::{apply_cluster_wide, config_map, deployment, sealed_secret},
    traces::inventory,
};

const HOLDS: &str = "example.com/holds";

async fn finalizers(api: &Api<ConfigMap>, name: &str, finalizers: Value) -> Result<()> {
    let patch = json!({"metadata": {"finalizers": finalizers}});
    api.patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

fn namespace(name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
}

/// Deletes the namespace. All its objects are deleted, except a ConfigMap with a finalizer, so the namespace stays, too.
async fn delete_held(scene: &Scene, name: &str) -> Result<Api<ConfigMap>> {
    let api: Api<ConfigMap> = Api::namespaced(scene.client.clone(), name);
    let holder =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "holder", "finalizers": [HOLDS]}});
    kubernetes::apply(&scene.client, name, holder).await?;
    Api::<Namespace>::all(scene.client.clone()).delete(name, &DeleteParams::default()).await?;
    Ok(api)
}

async fn is_not_ready(scene: &Scene, reason: &str, texts: &[&str]) -> Result<()> {
    let fits = |_: &Sync, ready: &crds::Condition| {
        ready.status == crds::ConditionStatus::False
            && ready.reason == reason
            && texts.iter().all(|text| ready.message.contains(text))
    };
    scene.sync_when("app", &format!("{reason} with {texts:?}"), fits).await.map(drop)
}

fn uid(object: &Value) -> String {
    object["metadata"]["uid"].to_string()
}

#[tokio::test]
async fn an_object_that_somebody_deleted_and_that_is_held_is_told_of() -> Result<()> {
    let scene = Scene::new("held-object").await?;
    scene.tree.write("app/held.yaml", config_map("held", "1"))?;
    scene.tree.write("app/other.yaml", config_map("other", "1"))?;
    scene.tree.write("app/web.yaml", deployment("web", 0))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let before = scene.has("v1", "ConfigMap", "held", json!({})).await?;

    let api = scene.api::<ConfigMap>();
    finalizers(&api, "held", json!([HOLDS])).await?;
    scene.is_ready("app").await?;
    api.delete("held", &DeleteParams::default()).await?;
    let texts = ["app/held.yaml:1: ConfigMap", "being deleted", HOLDS];
    is_not_ready(&scene, "ObjectTerminating", &texts).await?;
    // A commit cannot create the object again while it is being deleted. All other objects are applied.
    scene.tree.write("app/held.yaml", config_map("held", "2"))?;
    scene.tree.write("app/other.yaml", config_map("other", "2"))?;
    let second = scene.publish("second").await?;
    scene.has("v1", "ConfigMap", "other", json!({"data": {"value": "2"}})).await?;
    scene
        .sync_when("app", "the new revision to wait for the same", |sync, ready| {
            let status = sync.status.as_ref();
            status.and_then(|status| status.last_attempted_revision.as_ref()) == Some(&second)
                && ready.reason == "ObjectTerminating"
        })
        .await?;
    let held = scene.has("v1", "ConfigMap", "held", json!({})).await?;
    assert_eq!(uid(&held), uid(&before), "it was not let go of by us");

    finalizers(&api, "held", Value::Null).await?;
    scene.is_applied("app", &second).await?;
    let after = scene.has("v1", "ConfigMap", "held", json!({"data": {"value": "2"}})).await?;
    assert_ne!(uid(&after), uid(&before));
    Ok(())
}

#[tokio::test]
async fn a_finalizer_of_git_is_not_put_back_while_the_object_goes() -> Result<()> {
    let scene = Scene::new("held-by-git").await?;
    let held =
        |value| config_map("held", value).replace("  name: held", &format!("  name: held\n  finalizers: [{HOLDS}]"));
    scene.tree.write("app/held.yaml", held("1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let api = scene.api::<ConfigMap>();
    let both = json!([HOLDS, "example.com/another"]);
    finalizers(&api, "held", both).await?;
    api.delete("held", &DeleteParams::default()).await?;
    is_not_ready(&scene, "ObjectTerminating", &[HOLDS, "example.com/another"]).await?;
    // One of the two finalizers is removed, and the other stays.
    finalizers(&api, "held", json!(["example.com/another"])).await?;
    scene.tree.write("app/held.yaml", held("2"))?;
    let second = scene.publish("second").await?;
    scene
        .sync_when("app", "one finalizer to be left", |_, ready| {
            ready.reason == "ObjectTerminating" && !ready.message.contains(HOLDS)
        })
        .await?;
    finalizers(&api, "held", Value::Null).await?;
    scene.is_applied("app", &second).await?;
    // The finalizer is removed from Git, so that the namespace can be deleted.
    scene.tree.write("app/held.yaml", config_map("held", "3"))?;
    let third = scene.publish("third").await?;
    scene.is_applied("app", &third).await.map(drop)
}

#[tokio::test]
async fn a_namespace_that_goes_and_one_that_is_gone_are_told_apart() -> Result<()> {
    let scene = Scene::new("held-namespace").await?;
    let inner = format!("{}-inner", scene.namespace);
    apply_cluster_wide(&scene.client, namespace(&inner)).await?;
    scene.tree.write("app/a.yaml", config_map("a", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"targetNamespace": inner})).await?;
    scene.is_applied("app", &first).await?;

    let held = delete_held(&scene, &inner).await?;
    let goes = format!("namespace {inner} is being deleted");
    is_not_ready(&scene, "NamespaceTerminating", &["app/a.yaml:1: ConfigMap", &goes]).await?;
    // Nothing can be created in this namespace, not even a Secret.
    scene.tree.write("app/b.yaml", sealed_secret("b", "AgBn"))?;
    scene.publish("a SealedSecret").await?;
    is_not_ready(&scene, "NamespaceTerminating", &["app/b.yaml:1: SealedSecret", &goes]).await?;
    scene.tree.remove("app/b.yaml")?;
    let third = scene.publish("never mind").await?;
    finalizers(&held, "holder", Value::Null).await?;
    is_not_ready(&scene, "NamespaceNotFound", &["app/a.yaml:1: ConfigMap", &format!("no namespace {inner}")]).await?;

    apply_cluster_wide(&scene.client, namespace(&inner)).await?;
    scene.is_applied("app", &third).await?;
    held.get("a").await?;
    Ok(())
}

#[tokio::test]
async fn what_is_new_in_a_namespace_that_is_not_there_is_not_tracked_until_it_is() -> Result<()> {
    let scene = Scene::new("no-namespace").await?;
    let inner = format!("{}-inner", scene.namespace);
    scene.tree.write("app/a.yaml", config_map("a", "1"))?;
    scene.publish("first").await?;
    scene.sync("app", "./app", json!({"targetNamespace": inner})).await?;
    let missing = format!("no namespace {inner}");
    is_not_ready(&scene, "NamespaceNotFound", &["app/a.yaml:1: ConfigMap", &missing]).await?;
    let sync = scene.sync_when("app", "nothing to be tracked", |_, ready| ready.reason == "NamespaceNotFound").await?;
    assert!(inventory(sync).is_empty(), "it was never made");
    // Now the folder contains the namespace, too.
    scene.tree.write("app/namespace.yaml", namespace(&inner).to_string())?;
    let second = scene.publish("with its namespace").await?;
    let sync = scene.is_applied("app", &second).await?;
    assert_eq!(inventory(sync).len(), 2);

    // If somebody deletes the namespace, it is created again when it is gone, with its objects.
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    let before = namespaces.get(&inner).await?.metadata.uid.context("no uid")?;
    let held = delete_held(&scene, &inner).await?;
    is_not_ready(&scene, "NamespaceTerminating", &["app/namespace.yaml:1: Namespace", "being deleted"]).await?;
    finalizers(&held, "holder", Value::Null).await?;
    scene.is_applied("app", &second).await?;
    held.get("a").await?;
    assert_ne!(namespaces.get(&inner).await?.metadata.uid.context("no uid")?, before);
    Ok(())
}
