//! Applies the manifests for a tenant as docs/tenant.md shows them, with the roles of an installation.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use harness::{Plane, Scene, eventually, kubernetes, programs};
use k8s_openapi::api::{authorization::v1::SubjectAccessReview, core::v1::Pod};
use kube::{Api, api::PostParams};
use serde_json::{Value, json};

use crate::objects::{config_map, deployment, sealed_secret};

/// Whether members of this group may do this in the namespace.
async fn may(scene: &Scene, group: &str, verb: &str, resource: &str) -> Result<bool> {
    let (resource, subresource) = resource.split_once('/').unwrap_or((resource, ""));
    let review = json!({"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "metadata": {}, "spec": {
        "user": "anna", "groups": [group], "resourceAttributes": {"namespace": scene.namespace, "verb": verb,
        "group": "gitseal.dev", "resource": resource, "subresource": subresource}}});
    let review: SubjectAccessReview = serde_json::from_value(review)?;
    let answer = Api::all(scene.client.clone()).create(&PostParams::default(), &review).await?;
    Ok(answer.status.context("no answer")?.allowed)
}

#[tokio::test]
async fn the_tenant_of_the_page_works_as_it_stands() -> Result<()> {
    let scene = Scene::on(Plane::shared().await?, "page", harness::git::ServerOptions::default()).await?;
    scene.tree.write("deploy/settings.yaml", config_map("settings", "1"))?;
    scene.tree.write("deploy/web.yaml", deployment("web", 0))?;
    scene.tree.write("deploy/db.yaml", sealed_secret("db", &scene.seal("db", b"page-value").await?))?;
    let commit = scene.tree.publish("first")?;

    let mut install = programs::gitseal(Plane::shared().await?.cluster.kubeconfig())?;
    install.args(["install", "--multi-tenant", "--output", "json"]);
    let list: Value = serde_json::from_str(&programs::run(&mut install)?)?;
    let roles = list["items"].as_array().context("items")?.iter().filter(|object| {
        object["kind"] == "ClusterRole"
            && ["gitseal-view", "gitseal-edit"].iter().any(|name| object["metadata"]["name"] == *name)
    });
    let roles: Vec<_> = roles.cloned().collect();
    assert_eq!(roles.len(), 2);
    for role in roles {
        kubernetes::apply_cluster_wide(&scene.client, role).await?;
    }

    let page = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/tenant.md"))?;
    let (_, after) = page.split_once("```yaml\n").context("no YAML")?;
    let (yaml, _) = after.split_once("```").context("no end")?;
    let yaml = yaml.replace("https://git.example/shop.git", "URL").replace("shop", &scene.namespace);
    let yaml = yaml.replace("URL", &scene.server.url("repo"));
    let objects = manifests::parse("docs/tenant.md", yaml.as_bytes(), &manifests::Limits::default())?;
    ensure!(objects.len() > 5, "{objects:?}");
    for object in objects {
        let body = Value::Object(object.body);
        if object.id.kind == "Namespace" {
            kubernetes::apply_cluster_wide(&scene.client, body).await?;
        } else {
            kubernetes::apply(&scene.client, &scene.namespace, body).await?;
        }
    }
    scene.is_applied(&scene.namespace, &format!("main@sha1:{commit}")).await?;
    scene.has("v1", "Secret", "db", json!({})).await?;

    // A Pod without resource requests fits into the quota.
    let pods = Api::<Pod>::namespaced(scene.client.clone(), &scene.namespace);
    let pod: Pod = serde_json::from_value(json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "plain"},
        "spec": {"containers": [{"name": "app", "image": "a:1"}]}}))?;
    eventually("a plain Pod to be taken", || async {
        Ok(pods.create(&PostParams { dry_run: true, ..PostParams::default() }, &pod).await?)
    })
    .await?;

    let group = format!("team-{}", scene.namespace);
    eventually("the roles to be aggregated", || async {
        for (verb, resource) in [("create", "syncs"), ("delete", "repositories"), ("get", "syncs/status")] {
            ensure!(may(&scene, &group, verb, resource).await?, "{verb} {resource}");
        }
        Ok(())
    })
    .await?;
    for (verb, resource) in [("patch", "syncs/status"), ("update", "syncs/status"), ("update", "repositories/status")] {
        ensure!(!may(&scene, &group, verb, resource).await?, "{verb} {resource}");
    }
    ensure!(!may(&scene, "others", "get", "syncs").await?);
    Ok(())
}

#[tokio::test]
async fn a_sync_says_why_pods_are_refused() -> Result<()> {
    let scene = Scene::new("quota").await?;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "team"},
        "spec": {"hard": {"requests.memory": "1Gi"}}});
    kubernetes::apply(&scene.client, &scene.namespace, quota).await?;
    scene.tree.write("app/web.yaml", deployment("web", 1))?;
    scene.publish("no requests").await?;
    scene.sync("app", "./app", json!({"timeout": "3s"})).await?;
    eventually("the refusal to be told", || async {
        let sync: crds::Sync = scene.api().get("app").await?;
        let conditions = sync.status.unwrap_or_default().conditions;
        let told = conditions.iter().any(|condition| {
            ["app/web.yaml:1: ", "FailedCreate", "failed quota: team"]
                .iter()
                .all(|part| condition.message.contains(part))
        });
        ensure!(told, "{conditions:#?}");
        Ok(())
    })
    .await
}
