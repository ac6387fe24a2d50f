//! Objects and files that are renamed, moved or removed. No object is orphaned, and no other object is changed.

use std::collections::BTreeSet;

use anyhow::Result;
use crds::Sync;
use harness::{Scene, kubernetes};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams};
use serde_json::{Value, json};

use crate::{
    objects::{config_map, deployment, sealed_secret},
    traces::{applies, inventory, labelled},
};

const SYNC: (&str, &str) = ("gitseal.dev/v1alpha1", "Sync");

fn ids(scene: &Scene, objects: &[(&str, &str, &str)]) -> BTreeSet<String> {
    let namespace = &scene.namespace;
    let id = |(name, group, kind): &(&str, &str, &str)| format!("{namespace}_{name}_{group}_{kind}");
    objects.iter().map(id).collect()
}

/// Makes a scene whose Sync `app` has applied a ConfigMap, a Deployment, and a SealedSecret with its Secret.
async fn scene_with_one_of_each(name: &str, spec: Value) -> Result<Scene> {
    let scene = Scene::new(name).await?;
    let password = scene.seal("db", b"correct horse").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "first"))?;
    scene.tree.write("app/web.yaml", deployment("web", 0))?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &password))?;
    scene.tree.write("app/other.yaml", config_map("other", "first"))?;
    let first = scene.publish("one of each").await?;
    scene.sync("app", "./app", spec).await?;
    scene.is_applied("app", &first).await?;
    Ok(scene)
}

#[tokio::test]
async fn a_renamed_object_is_there_under_its_new_name_only() -> Result<()> {
    let scene = scene_with_one_of_each("renamed", json!({})).await?;
    let password = scene.seal("database", b"correct horse").await?;
    scene.tree.write("app/settings.yaml", config_map("preferences", "first"))?;
    scene.tree.write("app/db.yaml", sealed_secret("database", &password))?;
    let second = scene.publish("renamed").await?;
    let sync = scene.is_applied("app", &second).await?;

    let expected = ids(
        &scene,
        &[
            ("preferences", "", "ConfigMap"),
            ("other", "", "ConfigMap"),
            ("web", "apps", "Deployment"),
            ("database", "bitnami.com", "SealedSecret"),
            ("database", "", "Secret"),
        ],
    );
    for (api_version, kind, name) in
        [("v1", "ConfigMap", "settings"), ("v1", "Secret", "db"), ("bitnami.com/v1alpha1", "SealedSecret", "db")]
    {
        scene.is_gone(api_version, kind, name).await?;
    }
    assert_eq!(inventory(sync), expected);
    // A Secret has no label of the Sync. Only its SealedSecret has this label.
    let secret = ids(&scene, &[("database", "", "Secret")]);
    assert_eq!(labelled(&scene, "app").await?, &expected - &secret);
    let secret = scene.has("v1", "Secret", "database", json!({})).await?;
    assert_eq!(secret["data"]["password"], "Y29ycmVjdCBob3JzZQ==");
    Ok(())
}

#[tokio::test]
async fn an_object_in_another_file_is_not_written() -> Result<()> {
    let scene = scene_with_one_of_each("moved", json!({})).await?;
    let names = ["settings", "web", "db", "other"];
    let mut before = Vec::new();
    for name in names {
        before.push(applies(&scene, name).await?);
    }
    assert!(before.iter().all(|count| *count > 0), "{before:?}");

    scene.tree.git(["mv", "app/settings.yaml", "app/z.yaml"])?;
    std::fs::create_dir(scene.tree.path().join("app/deep"))?;
    scene.tree.git(["mv", "app/web.yaml", "app/deep/w.yml"])?;
    scene.tree.git(["mv", "app/db.yaml", "app/deep/0.yaml"])?;
    let second = scene.publish("moved").await?;
    scene.is_applied("app", &second).await?;

    let mut after = Vec::new();
    for name in names {
        after.push(applies(&scene, name).await?);
    }
    assert_eq!(before, after, "{names:?}");
    Ok(())
}

#[tokio::test]
async fn an_object_that_asks_to_be_kept_stays_when_it_leaves_git() -> Result<()> {
    let scene = scene_with_one_of_each("kept", json!({})).await?;
    let annotated = config_map("kept", "first")
        .replace("  name: kept\n", "  name: kept\n  annotations: {gitseal.dev/prune: disabled}\n");
    scene.tree.write("app/kept.yaml", annotated)?;
    let second = scene.publish("kept").await?;
    scene.is_applied("app", &second).await?;

    scene.tree.remove("app/kept.yaml")?;
    scene.tree.remove("app/settings.yaml")?;
    let third = scene.publish("two leave").await?;
    let sync = scene.is_applied("app", &third).await?;
    scene.is_gone("v1", "ConfigMap", "settings").await?;
    let kept = scene.has("v1", "ConfigMap", "kept", json!({})).await?;
    assert_eq!(kept["metadata"].get("deletionTimestamp"), None);
    let inventory = inventory(sync);
    assert_eq!(inventory.len(), 4, "{inventory:?}");
    assert!(inventory.iter().all(|id| !id.contains("kept_")));
    Ok(())
}

#[tokio::test]
async fn a_secret_goes_with_its_sealed_secret() -> Result<()> {
    let scene = scene_with_one_of_each("unsealed", json!({})).await?;
    scene.has("v1", "Secret", "db", json!({})).await?;
    scene.tree.remove("app/db.yaml")?;
    let second = scene.publish("no database").await?;
    let sync = scene.is_applied("app", &second).await?;
    scene.is_gone("v1", "Secret", "db").await?;
    scene.is_gone("bitnami.com/v1alpha1", "SealedSecret", "db").await?;
    let inventory = inventory(sync);
    assert_eq!(inventory.len(), 3, "{inventory:?}");
    Ok(())
}

#[tokio::test]
async fn a_deleted_sync_takes_its_objects_along_and_nothing_else() -> Result<()> {
    let scene = scene_with_one_of_each("deleted", json!({})).await?;
    let by_hand = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-hand"}, "data": {"a": "b"}});
    kubernetes::apply(&scene.client, &scene.namespace, by_hand).await?;
    scene.api::<Sync>().delete("app", &DeleteParams::default()).await?;
    scene.is_gone(SYNC.0, SYNC.1, "app").await?;
    assert_eq!(labelled(&scene, "app").await?, BTreeSet::new());
    let left = scene.api::<ConfigMap>().list(&ListParams::default()).await?;
    let left: Vec<_> =
        left.into_iter().filter_map(|map| map.metadata.name).filter(|name| name != "kube-root-ca.crt").collect();
    assert_eq!(left, ["by-hand"]);
    Ok(())
}

#[tokio::test]
async fn a_deleted_sync_that_does_not_prune_leaves_everything() -> Result<()> {
    let scene = scene_with_one_of_each("left", json!({"prune": false})).await?;
    let before = labelled(&scene, "app").await?;
    assert_eq!(before.len(), 4, "{before:?}");

    // An object that leaves Git stays, too.
    scene.tree.remove("app/settings.yaml")?;
    let second = scene.publish("no settings").await?;
    scene.is_applied("app", &second).await?;
    scene.api::<Sync>().delete("app", &DeleteParams::default()).await?;
    scene.is_gone(SYNC.0, SYNC.1, "app").await?;
    assert_eq!(labelled(&scene, "app").await?, before);
    for (api_version, kind, name) in
        [("v1", "ConfigMap", "settings"), ("v1", "Secret", "db"), ("apps/v1", "Deployment", "web")]
    {
        let object = scene.has(api_version, kind, name, json!({})).await?;
        assert_eq!(object["metadata"].get("deletionTimestamp"), None, "{name}");
    }
    Ok(())
}
