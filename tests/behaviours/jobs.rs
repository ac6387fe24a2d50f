//! Jobs and other objects that cannot be changed in place. The message in the status is short, the object is replaced
//! if an annotation in Git allows it, and a finished Job is not run again.

use anyhow::{Context, Result, ensure};
use harness::{
    Plane, Scene, kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    objects::config_map,
    traces::{applies, event, events, handled, uid},
};

pub(crate) const BATCH: &str = "batch/v1";

pub(crate) fn job(name: &str, image: &str, annotations: &str, spec: &str) -> String {
    format!(
        "apiVersion: {BATCH}\nkind: Job\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec:\n  \
         suspend: false\n{spec}  template:\n    spec:\n      restartPolicy: Never\n      \
         containers: [{{name: m, image: \"example.invalid/{image}\", env: [{{name: A, value: b}}]}}]\n"
    )
}

pub(crate) async fn job_uid(scene: &Scene, name: &str) -> Result<String> {
    let found = scene.has(BATCH, "Job", name, json!({})).await?;
    Ok(found.pointer("/metadata/uid").and_then(Value::as_str).context("no uid")?.to_owned())
}

#[tokio::test]
async fn a_job_that_git_changes_says_what_to_do_and_recovers() -> Result<()> {
    let scene = Scene::new("job").await?;
    let write = |revision: &str| {
        scene.tree.write("app/c.yaml", config_map("c", revision))?;
        scene.tree.write("app/job.yaml", format!("# migrates\n{}", job("migrate", revision, "", "")))
    };
    write("1")?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &first).await?;
    let old = job_uid(&scene, "migrate").await?;

    write("2")?;
    let second = scene.publish("second").await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    for text in
        ["app/job.yaml:2: Job", "migrate: spec.template cannot be changed in place", "gitseal.dev/replace: allowed"]
    {
        ensure!(message.contains(text), "no {text:?} in: {message}");
    }
    ensure!(message.len() < 400, "{message}");
    scene.has("v1", "ConfigMap", "c", json!({"data": {"value": "2"}})).await?;
    assert_eq!(job_uid(&scene, "migrate").await?, old);

    scene.api::<Job>().delete("migrate", &DeleteParams::background()).await?;
    scene.is_applied("app", &second).await?;
    let image = json!("example.invalid/2");
    let found = scene.has(BATCH, "Job", "migrate", json!({})).await?;
    assert_eq!(found.pointer("/spec/template/spec/containers/0/image"), Some(&image));
    Ok(())
}

#[tokio::test]
async fn what_may_be_replaced_is_after_a_dry_run() -> Result<()> {
    let scene = Scene::new("replaced").await?;
    let allowed = "gitseal.dev/replace: allowed";
    let frozen = |value: &str, more: &str| {
        format!("{}immutable: true\n{more}", config_map("frozen", value))
            .replace("metadata:\n", &format!("metadata:\n  annotations: {{{allowed}}}\n"))
    };
    scene.tree.write("app/job.yaml", job("migrate", "1", allowed, ""))?;
    scene.tree.write("app/frozen.yaml", frozen("1", ""))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &first).await?;
    let before = (job_uid(&scene, "migrate").await?, uid(&scene, "ConfigMap", "frozen").await?);

    // A Job is not deleted if the API server would refuse the new one.
    scene.tree.write("app/job.yaml", job("migrate", "2", allowed, "  completionMode: Sometimes\n"))?;
    scene.publish("a replacement that is none").await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    ensure!(message.contains("completionMode") && message.contains("Job"), "{message}");
    assert_eq!(job_uid(&scene, "migrate").await?, before.0);

    scene.tree.write("app/job.yaml", job("migrate", "2", allowed, ""))?;
    scene.tree.write("app/frozen.yaml", frozen("2", ""))?;
    let third = scene.publish("both change").await?;
    scene.is_applied("app", &third).await?;
    ensure!(before.0 != job_uid(&scene, "migrate").await?);
    ensure!(before.1 != uid(&scene, "ConfigMap", "frozen").await?);
    scene.has("v1", "ConfigMap", "frozen", json!({"data": {"value": "2"}, "immutable": true})).await?;
    assert_eq!(events(&scene, "app", "Drifted").await?, Vec::<String>::new());

    // If the old Job has a finalizer, the message says so, and the new Job is made when the old one is gone.
    let hold = json!({"metadata": {"finalizers": ["example.com/hold"]}});
    let maps = scene.api::<ConfigMap>();
    maps.patch("frozen", &PatchParams::default(), &Patch::Merge(hold)).await?;
    scene.tree.write("app/frozen.yaml", frozen("4", ""))?;
    let fourth = scene.publish("it is held").await?;
    let message = scene.is_not_ready("app", "ObjectTerminating").await?;
    ensure!(message.contains("waits for its finalizers example.com/hold"), "{message}");
    let free = json!({"metadata": {"finalizers": null}});
    maps.patch("frozen", &PatchParams::default(), &Patch::Merge(free)).await?;
    scene.is_applied("app", &fourth).await?;
    scene.has("v1", "ConfigMap", "frozen", json!({"data": {"value": "4"}})).await?;
    Ok(())
}

/// Marks the Job as complete, as its controller would.
pub(crate) async fn completes(scene: &Scene, name: &str) -> Result<()> {
    let at = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| json!({"type": kind, "status": "True", "lastProbeTime": at, "lastTransitionTime": at});
    let status = json!({"status": {
        "conditions": [condition("SuccessCriteriaMet"), condition("Complete")],
        "startTime": at, "completionTime": at, "succeeded": 1, "active": 0, "ready": 0, "terminating": 0,
        "uncountedTerminatedPods": {}}});
    let by = PatchParams { field_manager: Some("kube-controller-manager".into()), ..PatchParams::default() };
    scene.api::<Job>().patch_status(name, &by, &Patch::Merge(status)).await?;
    Ok(())
}

#[tokio::test]
async fn a_job_that_its_time_to_live_removed_does_not_run_again() -> Result<()> {
    let scene = Scene::new("ttl").await?;
    let managed_by_nobody = "  managedBy: example.com/nobody\n  ttlSecondsAfterFinished: ";
    for (name, seconds) in [("once", 1), ("cut-short", 3600), ("kept", 3600)] {
        let spec = format!("{managed_by_nobody}{seconds}\n");
        scene.tree.write(&format!("app/{name}.yaml"), job(name, "once:1", "", &spec))?;
    }
    scene.tree.write("app/marker.yaml", config_map("marker", "from-git"))?;
    let first = scene.publish("a Job").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.has(BATCH, "Job", "once", json!({})).await?;
    for name in ["cut-short", "kept"] {
        scene.has(BATCH, "Job", name, json!({})).await?;
    }
    completes(&scene, "once").await?;
    scene.is_gone(BATCH, "Job", "once").await?;
    completes(&scene, "kept").await?;

    // A Job that is deleted before it ended is drift, so it is made again.
    let cut = job_uid(&scene, "cut-short").await?;
    scene.api::<Job>().delete("cut-short", &DeleteParams::background()).await?;
    event(&scene, "app", "Drifted", &["cut-short", "was deleted"]).await?;
    ensure!(cut != job_uid(&scene, "cut-short").await?);
    completes(&scene, "cut-short").await?;
    scene.is_applied("app", &first).await?;

    let by_hand = json!({"data": {"value": "by hand"}});
    scene.api::<ConfigMap>().patch("marker", &PatchParams::default(), &Patch::Merge(by_hand)).await?;
    event(&scene, "app", "Drifted", &["/marker "]).await?;
    handled(&scene, "app").await?;
    ensure!(scene.get(BATCH, "Job", "once").await?.is_none(), "it runs again");
    assert_eq!(applies(&scene, "once").await?, 1);

    // If Git changes the Job, it is another Job and runs.
    scene.tree.write("app/once.yaml", job("once", "once:2", "", &format!("{managed_by_nobody}3600\n")))?;
    scene.publish("another one").await?;
    scene.has(BATCH, "Job", "once", json!({})).await?;
    Ok(())
}

#[tokio::test]
async fn a_restart_runs_no_job_again() -> Result<()> {
    let plane = Plane::start(localcluster::ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "ttl-restart", harness::git::ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    let spec = "  managedBy: example.com/nobody\n  ttlSecondsAfterFinished: 1\n";
    scene.tree.write("app/once.yaml", job("once", "once:1", "", spec))?;
    scene.tree.write("app/marker.yaml", config_map("marker", "from-git"))?;
    let first = scene.publish("a Job").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &first).await?;
    plane.controller.lock().await.take().context("no controller")?.stop()?;
    completes(&scene, "once").await?;
    scene.is_gone(BATCH, "Job", "once").await?;
    let by_hand = json!({"data": {"value": "by hand"}});
    let maps = kubernetes::objects(&scene.client, &scene.namespace, "v1", "ConfigMap");
    maps.patch("marker", &PatchParams::default(), &Patch::Merge(by_hand)).await?;
    let folder = plane.folder();
    let mut again = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    again.ready().await?;
    scene.has("v1", "ConfigMap", "marker", json!({"data": {"value": "from-git"}})).await?;
    handled(&scene, "app").await?;
    scene.is_ready("app").await?;
    ensure!(scene.get(BATCH, "Job", "once").await?.is_none(), "it runs again");
    again.stop()
}
