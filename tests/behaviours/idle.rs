//! Without work, the controller makes no requests.

use anyhow::{Result, ensure};
use crds::{Repository, Sync, names::FIRST_INVENTORY};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use localcluster::{AuditEvent, ClusterOptions};
use serde_json::json;

use crate::objects::{config_map, deployment, sealed_secret};

/// The controller's user name, which tells its requests from others in the audit log.
const USER: &str = "the-controller";

/// The controller's requests so far, without watches and without the requests for its lease.
fn requests(plane: &Plane) -> Result<Vec<AuditEvent>> {
    let mut requests = plane.cluster.requests()?;
    requests.retain(|request| request.user == USER && request.verb != "watch" && request.resource != "leases");
    Ok(requests)
}

/// Waits until the controller has sent `times` more requests to the Git server.
async fn polls(scene: &Scene, times: usize) -> Result<()> {
    let until = scene.server.request_count() + times;
    eventually("Git to be asked again", || async {
        let count = scene.server.request_count();
        ensure!(count >= until, "{count} of {until} requests");
        Ok(())
    })
    .await
}

/// Waits until the controller's metrics count `times` more reconciles of Syncs. The controller reconciles each Sync at
/// the Sync's interval.
async fn looks(controller: &Controller, times: u64) -> Result<()> {
    let until = passes(controller).await? + times;
    eventually("the Syncs to be looked at again", || async {
        let count = passes(controller).await?;
        ensure!(count >= until, "{count} of {until} passes");
        Ok(())
    })
    .await
}

async fn passes(controller: &Controller) -> Result<u64> {
    let metrics = controller.fetch("/metrics").await?;
    let passes = metrics.lines().find_map(|line| {
        line.strip_prefix("gitseal_reconcile_total{")?.split_once("} ").filter(|(labels, _)| labels.contains("Sync"))
    });
    Ok(passes.map_or(Ok(0), |(_, count)| count.parse())?)
}

#[tokio::test]
async fn when_nothing_happens_nothing_is_asked_of_the_api_server() -> Result<()> {
    let options = ClusterOptions { audit: true, ..ClusterOptions::default() };
    let plane = Plane::without_controller(options).await?;
    let kubeconfig = plane.cluster.kubeconfig_for(USER, &["system:masters"])?;
    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::new(&kubeconfig, &folder))?;
    let scene = Scene::on(&plane, "idle", ServerOptions::default()).await?;
    scene.repository(json!({"interval": "1s"})).await?;
    controller.ready().await?;
    let certificate = sealing::Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?;
    let binding = sealing::Scope::Strict.binding(&scene.namespace, "db", "password");
    let password = sealing::seal(&certificate, binding, harness::hunt::known(b"correct horse"))?;
    for sync in ["one", "two"] {
        scene.tree.write(&format!("{sync}/map.yaml"), config_map(sync, "first"))?;
        scene.tree.write(&format!("{sync}/web.yaml"), deployment(sync, 0))?;
    }
    scene.tree.write("one/db.yaml", sealed_secret("db", &password))?;
    for (path, text) in [
        ("chart/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n"),
        ("chart/templates/map.yaml", &config_map("three", "{{ .Values.value }}")),
        ("values/three.yaml", "value: first\n"),
    ] {
        scene.tree.write(path, text)?;
    }
    let config = json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "config"},
        "spec": {"url": scene.server.url("repo"), "interval": "1s", "ref": {"branch": "main"}}});
    kubernetes::apply(&scene.client, &scene.namespace, config).await?;
    let revision = scene.publish("everything").await?;
    let of_map = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "one", "readyExpr": "dep.data.value != ''"});
    let check = json!({"apiVersion": "v1", "kind": "ConfigMap", "current": "data.value == 'first'"});
    let waiting = json!({"interval": "10s", "dependsOn": [of_map], "healthChecks": [check], "waves": "healthy"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"},
        "data": {"values.yaml": "other: value\n"}});
    kubernetes::apply(&scene.client, &scene.namespace, map).await?;
    let values = json!([{"repository": {"name": "config"}, "file": "values/three.yaml"}, {"configMap": "settings"}]);
    let lookup = json!([
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "settings"},
        {"apiVersion": "v1", "kind": "Service"},
        {"apiVersion": "v1", "kind": "Namespace", "name": "default"},
    ]);
    let chart = json!({"path": "chart", "interval": "10s", "helm": {"valuesFrom": values, "lookup": lookup}});
    for (sync, settings) in [("one", json!({"interval": "10s"})), ("two", waiting), ("three", chart)] {
        scene.sync(sync, sync, settings).await?;
        scene.is_applied(sync, &revision).await?;
    }
    scene.has("v1", "Secret", "db", json!({})).await?;
    scene.tree.write("elsewhere/readme.md", "no Sync applies this")?;
    scene.publish("a commit that is nobody's").await?;
    ensure!(!requests(&plane)?.is_empty(), "the audit log has none of its requests");

    // The controller writes its last events and statuses after the Sync is Ready.
    eventually("the work to end", || async {
        let before = requests(&plane)?.len();
        polls(&scene, 2).await?;
        looks(&controller, 2).await?;
        let after = requests(&plane)?;
        ensure!(after.len() == before, "{:#?}", &after[before..]);
        Ok(())
    })
    .await?;
    let before = requests(&plane)?.len();
    polls(&scene, 6).await?;
    looks(&controller, 2).await?;
    let after = requests(&plane)?;
    ensure!(after.len() == before, "asked while idle: {:#?}", &after[before..]);

    // A new commit is still applied, so the controller was idle and not stuck.
    scene.tree.write("one/map.yaml", config_map("one", "second"))?;
    scene.tree.publish("a change")?;
    let changed = json!({"data": {"value": "second"}});
    scene.has("v1", "ConfigMap", "one", changed).await?;
    Ok(())
}

#[tokio::test]
async fn a_commit_elsewhere_touches_neither_a_sync_nor_its_objects() -> Result<()> {
    let scene = Scene::new("untouched").await?;
    for sync in ["touched", "untouched"] {
        scene.tree.write(&format!("{sync}/map.yaml"), config_map(sync, "first"))?;
    }
    let first = scene.publish("first").await?;
    for sync in ["touched", "untouched"] {
        scene.sync(sync, sync, json!({})).await?;
        scene.is_applied(sync, &first).await?;
        // The annotation with the first inventory is removed by the pass after the one that stored the status.
        let has_first = |sync: &Sync| sync.metadata.annotations.iter().any(|all| all.contains_key(FIRST_INVENTORY));
        scene.sync_when(sync, "its first inventory to be dropped", |sync, _| !has_first(sync)).await?;
    }
    let plane = Plane::shared().await?;
    // From here on, nobody but the controller writes to the Sync `untouched` and its ConfigMap.
    let writes = || -> Result<Vec<AuditEvent>> {
        let mut requests = plane.cluster.requests()?;
        let reads = ["get", "list", "watch"];
        requests.retain(|request| {
            request.namespace == scene.namespace
                && request.name == "untouched"
                && !reads.contains(&request.verb.as_str())
        });
        Ok(requests)
    };
    let before = writes()?.len();
    ensure!(before > 0);
    for value in ["second", "third", "fourth"] {
        scene.tree.write("touched/map.yaml", config_map("touched", value))?;
        let revision = scene.publish(value).await?;
        scene.is_applied("touched", &revision).await?;
    }
    let repository = scene.api::<Repository>().get("repo").await?;
    ensure!(repository.status.is_some_and(|status| status.revision != Some(first)));
    let after = writes()?;
    ensure!(after.len() == before, "written to: {:#?}", &after[before..]);
    Ok(())
}
