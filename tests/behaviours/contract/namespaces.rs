//! The flags `--all-namespaces` and `--additional-namespaces`, with which the controller works only in some namespaces.

use anyhow::{Context, Result, ensure};
use futures::{StreamExt, TryStreamExt, stream};
use harness::{Scene, eventually, git::ServerOptions, kubernetes};
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::{
    Api, ResourceExt,
    api::{ObjectMeta, PostParams},
};
use sealing::Scope;
use serde_json::{Value, json};

use super::{
    own::{self, Own},
    side::{SEALED, Side, one_more_is_served},
};
use crate::objects;

async fn scene(name: &str) -> Result<Scene> {
    Scene::on(own::plane().await?, name, ServerOptions::default()).await
}

/// Checks that the controller does nothing for a SealedSecret in a namespace that it does not serve, although it has
/// the key for the value.
async fn is_not_served(own: &Own, elsewhere: Scene) -> Result<()> {
    let side = own.beside(elsewhere).await?;
    side.put("db", &[("a", "one")], json!({})).await?;
    one_more_is_served(&own.side, "after").await?;
    let sealed = side.scene.get(SEALED, "SealedSecret", "db").await?.context("SealedSecret")?;
    ensure!(sealed["status"].is_null(), "{sealed:#}");
    ensure!(side.scene.get("v1", "Secret", "db").await?.is_none(), "it has a Secret");
    Ok(())
}

#[tokio::test]
async fn only_its_own_namespace() -> Result<()> {
    let elsewhere = scene("elsewhere").await?;
    let own = Own::start("own", &["--all-namespaces=false"]).await?;
    own.side.put("db", &[("a", "one")], json!({})).await?;
    own.side.has("db", &[("a", "one")]).await?;
    own.side.delete_secret("db").await?;
    own.side.has("db", &[("a", "one")]).await?;
    own.side.delete(SEALED, "SealedSecret", "db").await?;
    is_not_served(&own, elsewhere).await
}

#[tokio::test]
async fn a_namespace_that_comes_later() -> Result<()> {
    let elsewhere = scene("later-elsewhere").await?;
    let name = format!("{}-later", elsewhere.namespace);
    let own = Own::start("later", &[&format!("--additional-namespaces=,{name},{name}, ")]).await?;
    let client = own.side.scene.client.clone();
    let namespace =
        Namespace { metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() }, ..Namespace::default() };
    let created = Api::<Namespace>::all(client).create(&PostParams::default(), &namespace).await?;
    let mut there = scene("unused").await?;
    there.namespace = created.name_any();
    let side = own.beside(there).await?;
    side.put("db", &[("a", "one")], json!({})).await?;
    side.has("db", &[("a", "one")]).await?;
    side.synced("db", "True").await?;
    side.patch_secret("db", json!({"stringData": {"a": "edited"}})).await?;
    side.has("db", &[("a", "one")]).await?;
    is_not_served(&own, elsewhere).await
}

#[tokio::test]
async fn three_hundred_namespaces() -> Result<()> {
    const COUNT: usize = 300;
    let home = scene("home").await?;
    let names: Vec<String> = (0..COUNT).map(|n| format!("{}-{n}", home.namespace)).collect();
    let client = &home.client;
    let create = |name: String| async move {
        let namespace =
            Namespace { metadata: ObjectMeta { name: Some(name), ..ObjectMeta::default() }, ..Namespace::default() };
        Api::<Namespace>::all(client.clone()).create(&PostParams::default(), &namespace).await
    };
    stream::iter(names.clone()).map(create).buffer_unordered(16).try_collect::<Vec<_>>().await?;
    let additional = format!("--additional-namespaces={}", names.join(","));
    let kubeconfig = own::plane().await?.cluster.kubeconfig().to_owned();
    let mut own = Own::start_in(home, kubeconfig, &[&additional]).await?;
    // The value has the scope cluster-wide, so it can be used in all namespaces.
    let value = own.side.seal_for(Scope::ClusterWide, "db", "one")?;
    let sealed = json!({
        "apiVersion": SEALED, "kind": "SealedSecret",
        "metadata": {"name": "db", "annotations": {"sealedsecrets.bitnami.com/cluster-wide": "true"}},
        "spec": {"encryptedData": {"a": value}},
    });
    let client = own.side.scene.client.clone();
    let put = |name: String| kubernetes_apply(client.clone(), name, sealed.clone());
    stream::iter(names.clone()).map(put).buffer_unordered(16).try_collect::<Vec<_>>().await?;
    all_have_secrets(&own.side.scene, &names).await?;
    // The namespaces are checked again after a restart of the controller.
    let started = std::time::Instant::now();
    own = own.restart().await?;
    println!("{COUNT} namespaces: ready after {:?}", started.elapsed());
    let secrets = Api::<Secret>::namespaced(own.side.scene.client.clone(), &names[COUNT - 1]);
    secrets.delete("db", &kube::api::DeleteParams::default()).await?;
    all_have_secrets(&own.side.scene, &names).await
}

async fn kubernetes_apply(client: kube::Client, namespace: String, object: Value) -> Result<()> {
    kubernetes::apply(&client, &namespace, object).await.map(drop)
}

async fn all_have_secrets(scene: &Scene, names: &[String]) -> Result<()> {
    eventually("a Secret in every namespace", || async {
        let secrets = Api::<Secret>::all(scene.client.clone()).list(&kube::api::ListParams::default()).await?;
        let found = secrets.iter().filter(|secret| secret.name_any() == "db").filter_map(ResourceExt::namespace);
        let found: std::collections::BTreeSet<_> = found.collect();
        let missing: Vec<_> = names.iter().filter(|name| !found.contains(*name)).collect();
        ensure!(missing.is_empty(), "{} of them have none: {missing:?}", missing.len());
        Ok(())
    })
    .await
}

#[tokio::test]
async fn roles_in_the_namespaces_are_enough() -> Result<()> {
    let plane = own::plane().await?;
    let (home, there) = (scene("roles-home").await?, scene("roles-there").await?);
    let user = format!("controller-of-{}", home.namespace);
    let rules = json!([
        {"apiGroups": ["bitnami.com"], "resources": ["sealedsecrets"], "verbs": ["get", "list", "watch", "create", "patch"]},
        {"apiGroups": ["bitnami.com"], "resources": ["sealedsecrets/status"], "verbs": ["get", "update", "patch"]},
        {"apiGroups": ["gitseal.dev"], "resources": ["repositories", "syncs"], "verbs": ["get", "list", "watch", "update", "patch"]},
        {"apiGroups": ["gitseal.dev"], "resources": ["repositories/status", "syncs/status"], "verbs": ["get", "update", "patch"]},
        {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get", "list", "watch", "create", "update", "patch", "delete"]},
        {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]},
        {"apiGroups": ["", "events.k8s.io"], "resources": ["events"], "verbs": ["create", "patch"]},
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["*"]},
    ]);
    for scene in [&home, &there] {
        let version = "rbac.authorization.k8s.io/v1";
        let role = json!({"apiVersion": version, "kind": "Role", "metadata": {"name": "controller"}, "rules": rules});
        let binding = json!({
            "apiVersion": version, "kind": "RoleBinding", "metadata": {"name": "controller"},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "controller"},
            "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": user}],
        });
        kubernetes::apply(&scene.client, &scene.namespace, role).await?;
        kubernetes::apply(&scene.client, &scene.namespace, binding).await?;
    }
    let kubeconfig = plane.cluster.kubeconfig_for(&user, &["system:authenticated"])?;
    let additional = format!("--additional-namespaces={}", there.namespace);
    let own = Own::start_in(home, kubeconfig, &[&additional]).await?;
    let side = own.beside(there).await?;
    for side in [&own.side, &side] {
        side.put("db", &[("a", "one")], json!({})).await?;
        side.has("db", &[("a", "one")]).await?;
        side.synced("db", "True").await?;
        side.event("db", "Unsealed").await?;
        side.patch_secret("db", json!({"stringData": {"a": "edited"}})).await?;
        side.has("db", &[("a", "one")]).await?;
    }
    applies_from_git(&side).await?;
    for request in plane.cluster.requests()? {
        let is_listed = request.user == user && ["list", "watch"].contains(&request.verb.as_str());
        assert!(!is_listed || !request.namespace.is_empty(), "{request:?}");
    }
    Ok(())
}

/// Checks that objects from Git are applied in the served namespaces, that their drift is seen, and that objects in other
/// namespaces are refused.
async fn applies_from_git(side: &Side) -> Result<()> {
    let scene = &side.scene;
    scene.repository(json!({})).await?;
    scene.tree.write("app/map.yaml", objects::config_map("map", "one"))?;
    let value = side.seal_for(Scope::Strict, "git", "sealed-in-git")?;
    scene.tree.write("app/secret.yaml", objects::sealed_secret("git", &value))?;
    let revision = scene.publish("an app").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    side.has("git", &[("password", "sealed-in-git")]).await?;
    side.patch_secret("git", json!({"stringData": {"password": "edited"}})).await?;
    side.has("git", &[("password", "sealed-in-git")]).await?;
    side.delete("v1", "ConfigMap", "map").await?;
    scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "one"}})).await?;

    scene.sync("elsewhere", "./app", json!({"targetNamespace": "default"})).await?;
    let message = scene.is_not_ready("elsewhere", "WatchFailed").await?;
    assert!(message.contains("does not work in namespace 'default'"), "{message}");
    Ok(())
}
