//! Syncs that wait for other Syncs or for the health of their own objects, and Syncs with a target namespace.

use anyhow::{Context, Result, ensure};
use crds::{ConditionStatus, Sync, find_condition};
use harness::{Scene, kubernetes};
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::objects::{apply_cluster_wide, config_map, deployment};

#[tokio::test]
async fn a_sync_waits_for_those_it_depends_on() -> Result<()> {
    let scene = Scene::new("depends").await?;
    scene.tree.write("base/a.yaml", "kind: [")?;
    scene.tree.write("app/a.yaml", config_map("app", "1"))?;
    scene.publish("a broken base").await?;
    scene.sync("app", "./app", json!({"dependsOn": [{"name": "base"}]})).await?;
    let message = scene.is_not_ready("app", "DependencyNotReady").await?;
    assert!(message.contains("base") && message.contains("does not exist"), "{message}");

    scene.sync("base", "./base", json!({})).await?;
    scene.is_not_ready("base", "InvalidManifest").await?;
    scene
        .sync_when("app", "it to wait for a Sync that exists", |_, ready| {
            ready.reason == "DependencyNotReady" && ready.message.contains("is not Ready")
        })
        .await?;
    assert!(scene.get("v1", "ConfigMap", "app").await?.is_none());

    scene.tree.write("base/a.yaml", config_map("base", "1"))?;
    let fixed = scene.publish("a good base").await?;
    scene.is_applied("base", &fixed).await?;
    scene.is_ready("app").await?;

    // A commit changes both folders. The dependent Sync is applied second, after the new base.
    scene.tree.write("base/a.yaml", config_map("base", "2"))?;
    scene.tree.write("app/a.yaml", config_map("app", "2"))?;
    let both = scene.publish("both").await?;
    scene.is_applied("app", &both).await?;
    let version = |object: serde_json::Value| -> Result<u64> {
        let version = object["metadata"]["resourceVersion"].as_str().context("no version")?;
        Ok(version.parse()?)
    };
    let second = json!({"data": {"value": "2"}});
    let base = version(scene.has("v1", "ConfigMap", "base", second.clone()).await?)?;
    let app = version(scene.has("v1", "ConfigMap", "app", second).await?)?;
    assert!(base < app, "base was written at {base}, app at {app}");
    Ok(())
}

#[tokio::test]
async fn syncs_that_wait_for_each_other_say_so_until_one_is_taken_out() -> Result<()> {
    let scene = Scene::new("cycle").await?;
    for name in ["one", "two"] {
        scene.tree.write(&format!("{name}/a.yaml"), config_map(name, "1"))?;
    }
    scene.publish("two folders").await?;
    let waits_for = |name: &str| json!({"dependsOn": [{"name": name}]});
    scene.sync("one", "./one", waits_for("two")).await?;
    scene.sync("two", "./two", waits_for("one")).await?;
    let message = scene.is_not_ready("one", "DependencyCycle").await?;
    let ns = &scene.namespace;
    ensure!(message.contains(&format!("{ns}/one waits for {ns}/two waits for {ns}/one")), "{message}");
    scene.is_not_ready("two", "DependencyCycle").await?;
    // The Sync that still waits begins as soon as the other Sync is Ready. It does not wait for its next retry.
    scene
        .api::<Sync>()
        .patch("two", &PatchParams::default(), &Patch::Merge(json!({"spec": {"dependsOn": null}})))
        .await?;
    scene.is_ready("two").await?;
    scene.is_ready("one").await?;
    Ok(())
}

#[tokio::test]
async fn a_dependency_that_is_suspended_is_told_as_that() -> Result<()> {
    let scene = Scene::new("suspended-base").await?;
    scene.tree.write("base/a.yaml", config_map("base", "1"))?;
    let first = scene.publish("a base").await?;
    scene.sync("base", "./base", json!({})).await?;
    scene.is_applied("base", &first).await?;
    let suspend = |suspend: bool| Patch::Merge(json!({"spec": {"suspend": suspend}}));
    let api = scene.api::<Sync>();
    api.patch("base", &PatchParams::default(), &suspend(true)).await?;
    scene.tree.write("base/a.yaml", config_map("base", "2"))?;
    scene.tree.write("app/a.yaml", config_map("app", "1"))?;
    scene.publish("a new base").await?;
    scene.sync("app", "./app", json!({"dependsOn": [{"name": "base"}]})).await?;
    scene
        .sync_when("app", "it to say what it waits for", |_, ready| {
            ready.reason == "DependencyNotReady" && ready.message.contains("which is suspended: resume that one")
        })
        .await?;
    api.patch("base", &PatchParams::default(), &suspend(false)).await?;
    scene.is_ready("app").await?;
    Ok(())
}

#[tokio::test]
async fn the_target_namespace_is_where_everything_goes() -> Result<()> {
    let scene = Scene::new("target").await?;
    let target = format!("{}-target", scene.namespace);
    apply_cluster_wide(&scene.client, json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": target}}))
        .await?;
    let role = format!("{target}-role");
    scene.tree.write("app/a.yaml", config_map("plain", "1"))?;
    scene.tree.write(
        "app/b.yaml",
        config_map("elsewhere", "1").replace("name: elsewhere", "name: elsewhere\n  namespace: default"),
    )?;
    scene.tree.write(
        "app/c.yaml",
        format!("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {{name: {role}}}\nrules: []\n"),
    )?;
    let revision = scene.publish("three objects").await?;
    scene.sync("app", "./app", json!({"targetNamespace": target})).await?;
    let sync = scene.is_applied("app", &revision).await?;
    let maps = kubernetes::objects(&scene.client, &target, "v1", "ConfigMap");
    for name in ["plain", "elsewhere"] {
        maps.get(name).await.context(name)?;
        assert!(scene.get("v1", "ConfigMap", name).await?.is_none(), "{name}");
    }
    let ids: Vec<_> = sync.status.unwrap().inventory.into_iter().map(|entry| entry.id).collect();
    assert!(ids.contains(&format!("_{role}_rbac.authorization.k8s.io_ClusterRole")), "{ids:?}");
    let default = kubernetes::objects(&scene.client, "default", "v1", "ConfigMap");
    assert!(default.get_opt("elsewhere").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_workload_that_never_becomes_available_is_reported() -> Result<()> {
    let scene = Scene::new("health").await?;
    // The control plane has no nodes, so the replica never runs.
    scene.tree.write("app/web.yaml", deployment("web", 1))?;
    let first = scene.publish("one replica").await?;
    scene.sync("app", "./app", json!({"timeout": "3s"})).await?;
    let waiting =
        scene.sync_when("app", "it to wait for health", |_, ready| ready.reason == "WaitingForHealth").await?;
    let conditions = waiting.status.unwrap().conditions;
    let ready = find_condition(&conditions, "Ready").context("no Ready")?;
    assert_eq!(ready.status, ConditionStatus::Unknown);
    for text in [&first, "Deployment", "web", "0 of 1 replicas"] {
        assert!(ready.message.contains(text), "no {text:?} in: {}", ready.message);
    }
    let message = scene.is_not_ready("app", "HealthCheckTimedOut").await?;
    for text in ["Deployment", "web", "3s", "0 of 1 replicas"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }

    scene.tree.write("app/web.yaml", deployment("web", 0))?;
    let second = scene.publish("no replicas").await?;
    scene.is_applied("app", &second).await?;
    Ok(())
}

#[tokio::test]
async fn without_wait_applied_is_enough() -> Result<()> {
    let scene = Scene::new("nowait").await?;
    scene.tree.write("app/web.yaml", deployment("web", 1))?;
    let revision = scene.publish("one replica").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &revision).await?;
    let web = scene.has("apps/v1", "Deployment", "web", json!({"status": {"observedGeneration": 1}})).await?;
    assert!(web["status"]["availableReplicas"].is_null(), "{web:#}");
    Ok(())
}
