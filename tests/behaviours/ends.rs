//! Syncs that are deleted together with something that they need: a kind, their namespace, or their rights.

use anyhow::{Context, Result, bail, ensure};
use harness::{Plane, Scene, eventually, git::ServerOptions, kubernetes};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Namespace},
        events::v1::Event,
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::objects::config_map;

const RBAC: &str = "rbac.authorization.k8s.io";

/// Lets the service account `tenant` of `namespace` do everything with ConfigMaps of `place`.
fn rights(namespace: &str, place: &str) -> Vec<serde_json::Value> {
    let version = format!("{RBAC}/v1");
    let meta = json!({"name": "tenant", "namespace": place});
    let rule = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]);
    vec![
        json!({"apiVersion": version, "kind": "Role", "metadata": meta, "rules": rule}),
        json!({
            "apiVersion": version, "kind": "RoleBinding", "metadata": meta,
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "tenant"},
            "subjects": [{"kind": "ServiceAccount", "name": "tenant", "namespace": namespace}],
        }),
    ]
}

fn in_namespace(namespace: &str, name: &str) -> String {
    config_map(name, "1").replace("metadata:\n", &format!("metadata:\n  namespace: {namespace}\n"))
}

async fn namespace_is_gone(scene: &Scene, name: &str) -> Result<()> {
    let namespaces = Api::<Namespace>::all(scene.client.clone());
    eventually("the namespace to be gone", || async {
        match namespaces.get_opt(name).await? {
            None => Ok(()),
            Some(found) => bail!("{:?}", found.status),
        }
    })
    .await
}

#[tokio::test]
async fn deleting_the_kind_sync_prunes_nothing() -> Result<()> {
    let plane = Plane::start(ClusterOptions { controller_manager: false, ..ClusterOptions::default() }).await?;
    let scene = Scene::on(&plane, "kind", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    scene.tree.write("app/map.yaml", config_map("map", "1"))?;
    let revision = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;

    let crds = Api::<CustomResourceDefinition>::all(scene.client.clone());
    crds.delete("syncs.gitseal.dev", &DeleteParams::default()).await?;
    eventually("the kind to be gone", || async {
        match crds.get_opt("syncs.gitseal.dev").await? {
            None => Ok(()),
            Some(found) => bail!("{:?}", found.status),
        }
    })
    .await?;
    ensure!(scene.get("v1", "ConfigMap", "map").await?.is_some(), "it was pruned");
    Ok(())
}

#[tokio::test]
async fn a_namespace_goes_though_its_sync_may_prune_nothing_any_more() -> Result<()> {
    let scene = Scene::new("going").await?;
    let elsewhere = Scene::new("elsewhere").await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tenant"}});
    kubernetes::apply(&scene.client, &scene.namespace, account).await?;
    for place in [&scene.namespace, &elsewhere.namespace] {
        for object in rights(&scene.namespace, place) {
            kubernetes::apply(&scene.client, place, object).await?;
        }
    }
    scene.tree.write("app/inside.yaml", config_map("inside", "1"))?;
    scene.tree.write("app/outside.yaml", in_namespace(&elsewhere.namespace, "outside"))?;
    let revision = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"serviceAccountName": "tenant"})).await?;
    scene.is_applied("app", &revision).await?;

    // The bindings are deleted first, as may happen when a namespace is deleted.
    for place in [&scene.namespace, &elsewhere.namespace] {
        let bindings = kubernetes::objects(&scene.client, place, &format!("{RBAC}/v1"), "RoleBinding");
        bindings.delete("tenant", &DeleteParams::default()).await?;
    }
    Api::<Namespace>::all(scene.client.clone()).delete(&scene.namespace, &DeleteParams::default()).await?;
    namespace_is_gone(&scene, &scene.namespace).await?;

    elsewhere.has("v1", "ConfigMap", "outside", json!({})).await?;
    let events = Api::<Event>::namespaced(scene.client.clone(), "default");
    eventually("the news of what is left", || async {
        let all = events.list(&ListParams::default()).await?;
        let is_ours = |event: &&Event| {
            let regarding = event.regarding.as_ref().and_then(|object| object.name.as_deref());
            event.reason.as_deref() == Some("NotPruned") && regarding == Some(&scene.namespace)
        };
        let note = all.iter().find(is_ours).and_then(|event| event.note.clone()).context("no event")?;
        ensure!(note.contains("outside") && !note.contains("inside"), "{note}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_tenant_leaves_git_in_one_commit() -> Result<()> {
    let scene = Scene::new("parent").await?;
    let elsewhere = Scene::new("outside").await?;
    let tenant = format!("{}-tenant", scene.namespace);
    let repository = scene.server.url("repo");
    let mut objects = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": tenant}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tenant", "namespace": tenant}}),
        json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "repo", "namespace": tenant},
            "spec": {"url": repository, "interval": "1h", "ref": {"branch": "main"}},
        }),
        json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "app", "namespace": tenant},
            "spec": {"repository": {"name": "repo"}, "path": "./app", "serviceAccountName": "tenant"},
        }),
    ];
    objects.extend(rights(&tenant, &tenant));
    objects.extend(rights(&tenant, &elsewhere.namespace));
    let documents: Vec<String> = objects.iter().map(ToString::to_string).collect();
    scene.tree.write("tenants/tenant.yaml", documents.join("\n---\n"))?;
    scene.tree.write("tenants/other.yaml", config_map("other", "1"))?;
    scene.tree.write("app/inside.yaml", config_map("inside", "1"))?;
    scene.tree.write("app/outside.yaml", in_namespace(&elsewhere.namespace, "outside"))?;
    let revision = scene.publish("a tenant").await?;
    scene.sync("tenants", "./tenants", json!({"pruneLimit": "100%"})).await?;
    scene.is_applied("tenants", &revision).await?;
    elsewhere.has("v1", "ConfigMap", "outside", json!({})).await?;

    scene.tree.remove("tenants/tenant.yaml")?;
    let revision = scene.publish("the tenant leaves").await?;
    scene.is_applied("tenants", &revision).await?;
    namespace_is_gone(&scene, &tenant).await?;
    let maps = Api::<ConfigMap>::namespaced(scene.client.clone(), &elsewhere.namespace);
    ensure!(maps.get_opt("outside").await?.is_none(), "what it applied outside of its namespace was left behind");
    Ok(())
}
