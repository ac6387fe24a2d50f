//! The controller makes its watches with its own rights, and they cost memory and load. So a watch on a kind begins only if
//! the tenant may write an object of that kind.

use anyhow::{Context, Result, ensure};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use kube::api::DeleteParams;
use localcluster::{AuditEvent, ClusterOptions};
use serde_json::{Value, json};

use super::{Case, SEALED, everything_in_its_namespace, seal, sealed_secret};
use crate::objects::config_map;

/// The lists and watches so far that match `fits`. Those of Kubernetes itself are left out, because its garbage collector
/// watches every kind.
fn looks(plane: &Plane, fits: impl Fn(&AuditEvent) -> bool) -> Result<Vec<AuditEvent>> {
    let mut requests = plane.cluster.requests()?;
    requests.retain(|request| {
        ["list", "watch"].contains(&request.verb.as_str()) && !request.user.starts_with("system:") && fits(request)
    });
    Ok(requests)
}

/// Creates a new kind `Thing` in this group, and waits until it is served.
async fn new_kind(scene: &Scene, group: &str, scope: &str) -> Result<()> {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("things.{group}")},
        "spec": {
            "group": group, "scope": scope, "names": {"kind": "Thing", "plural": "things", "singular": "thing"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    kubernetes::apply_cluster_wide(&scene.client, definition).await?;
    eventually("the kind to be served", || async {
        let list = scene.client.request_text(http::Request::get("/apis").body(Vec::new())?).await?;
        let things = scene.client.request_text(http::Request::get(format!("/apis/{group}/v1")).body(Vec::new())?);
        ensure!(list.contains(group) && things.await?.contains("Thing"), "not yet");
        Ok(())
    })
    .await
}

fn thing(group: &str, metadata: Value) -> String {
    format!(
        "{}\n",
        json!({"apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": metadata, "spec": {"a": "b"}})
    )
}

/// Deletes the object, and waits until the controller has created it again.
async fn is_put_back(scene: &Scene, group: &str, name: &str) -> Result<()> {
    let version = format!("{group}/v1");
    let before = scene.has(&version, "Thing", name, json!({"spec": {"a": "b"}})).await?;
    let things = kubernetes::objects(&scene.client, &scene.namespace, &version, "Thing");
    things.delete(name, &DeleteParams::default()).await?;
    eventually(&format!("Thing {name} to be put back"), || async {
        let now = scene.get(&version, "Thing", name).await?.context("it is not there")?;
        ensure!(now["metadata"]["uid"] != before["metadata"]["uid"], "not gone yet");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_tenant_without_rights_starts_no_watch() -> Result<()> {
    let case = Case::new("escape-watches").await?;
    let (theirs, own) = (&case.victim.namespace, &case.tenant.namespace);
    let (wide, group) = (format!("wide.{own}.example.com"), format!("{own}.example.com"));
    new_kind(&case.tenant, &wide, "Cluster").await?;
    new_kind(&case.tenant, &group, "Namespaced").await?;
    let watched = |group: &str| looks(case.plane, |request| request.group == group);
    for (escape, text) in [
        ("a kind of the whole cluster", thing(&wide, json!({"name": "a"}))),
        ("a kind in the victim's namespace", thing(&group, json!({"name": "a", "namespace": theirs}))),
        ("a kind in a namespace that is not there", thing(&group, json!({"name": "a", "namespace": "no-such"}))),
    ] {
        let message = case.is_refused(escape, &text, "Forbidden").await?;
        ensure!(message.contains("app/bad.yaml:1: Thing") && message.contains("cannot patch resource"), "{message}");
    }
    for group in [&wide, &group] {
        let watched = watched(group)?;
        ensure!(watched.is_empty(), "a watch began for who may write nothing of it: {watched:#?}");
    }
    // The controller still notices drift of objects that the tenant may write. Objects that the tenant may not write
    // are still refused.
    let text = thing(&group, json!({"name": "own"})) + "---\n" + &thing(&wide, json!({"name": "a"}));
    case.is_refused("what it may, and what it may not", &text, "Forbidden").await?;
    is_put_back(&case.tenant, &group, "own").await?;
    ensure!(!watched(&group)?.is_empty() && watched(&wide)?.is_empty());
    case.victim_goes_on().await
}

#[tokio::test]
async fn who_may_write_one_object_by_its_name_has_its_drift_seen() -> Result<()> {
    let scene = Scene::new("named-right").await?;
    let group = format!("{}.example.com", scene.namespace);
    new_kind(&scene, &group, "Namespaced").await?;
    let rule = json!([{"apiGroups": [group], "resources": ["things"], "resourceNames": ["own"], "verbs": ["*"]}]);
    scene.account("tenant", rule).await?;
    scene.tree.write("app/a.yaml", thing(&group, json!({"name": "not-own"})))?;
    scene.tree.write("app/b.yaml", thing(&group, json!({"name": "own"})))?;
    scene.publish("one of two").await?;
    scene.sync("app", "./app", json!({"serviceAccountName": "tenant", "wait": false})).await?;
    let message = scene.is_not_ready("app", "Forbidden").await?;
    ensure!(message.contains("app/a.yaml:1"), "{message}");
    is_put_back(&scene, &group, "own").await
}

/// The controller's user name, which tells its requests from others in the audit log.
const USER: &str = "the-controller";

#[tokio::test]
async fn where_each_namespace_is_watched_by_itself_a_tenant_starts_no_watch_in_anothers() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions {
        audit: true,
        controller_manager: false,
        ..ClusterOptions::default()
    })
    .await?;
    let victim = Scene::on(&plane, "watched-victim", ServerOptions::default()).await?;
    let tenant = Scene::on(&plane, "watched-tenant", ServerOptions::default()).await?;
    let kubeconfig = plane.cluster.kubeconfig_for(USER, &["system:masters"])?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(&kubeconfig, &folder);
    // With this flag, the controller does not make deleted Secrets again, so it does not watch Secrets.
    options.arguments.push("--skip-recreate".into());
    options.arguments.push(format!("--additional-namespaces={},{}", victim.namespace, tenant.namespace));
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let certificate = controller.fetch("/v1/cert.pem").await?;
    tenant.repository(json!({})).await?;
    everything_in_its_namespace(&tenant, "tenant").await?;

    let sealed = |namespace: &str| {
        let value = json!({"a": seal(&certificate, namespace, "db", "watched-value")?});
        anyhow::Ok(sealed_secret("db", &json!({"namespace": namespace}), &value, &json!({})))
    };
    tenant.tree.write("app/a.yaml", sealed(&victim.namespace)?)?;
    let elsewhere = format!("name: taken\n  namespace: {}", victim.namespace);
    tenant.tree.write("app/b.yaml", config_map("taken", "1").replace("name: taken", &elsewhere))?;
    tenant.publish("in the victim's namespace").await?;
    tenant.sync("app", "./app", json!({"serviceAccountName": "tenant"})).await?;
    tenant.is_not_ready("app", "Forbidden").await?;
    let watched = |namespace: &str, resource: &str| {
        looks(&plane, |request| request.user == USER && request.namespace == namespace && request.resource == resource)
    };
    for resource in ["configmaps", "secrets"] {
        let watched = watched(&victim.namespace, resource)?;
        ensure!(watched.is_empty(), "{watched:#?}");
    }

    tenant.tree.write("app/a.yaml", sealed(&tenant.namespace)?)?;
    tenant.tree.write("app/b.yaml", config_map("own", "1"))?;
    let revision = tenant.publish("in its own").await?;
    tenant.is_applied("app", &revision).await?;
    for (kind, name) in [("Secret", "db"), ("ConfigMap", "own")] {
        let before = tenant.has("v1", kind, name, json!({})).await?;
        let api = kubernetes::objects(&tenant.client, &tenant.namespace, "v1", kind);
        api.delete(name, &DeleteParams::default()).await?;
        eventually(&format!("{kind} {name} to be put back"), || async {
            let now = tenant.get("v1", kind, name).await?.context("it is not there")?;
            ensure!(now["metadata"]["uid"] != before["metadata"]["uid"], "not gone yet");
            Ok(())
        })
        .await?;
    }
    ensure!(tenant.get(SEALED, "SealedSecret", "db").await?.is_some());
    for resource in ["configmaps", "secrets"] {
        ensure!(!watched(&tenant.namespace, resource)?.is_empty(), "{resource}");
        ensure!(watched(&victim.namespace, resource)?.is_empty(), "{resource}");
    }
    Ok(())
}
