//! Waves that wait until objects of earlier waves are healthy: `gitseal.dev/wait: healthy`, and `waves: healthy` of a Sync.
//!
//! No controller runs the Jobs (their `managedBy` names one that does not exist), so each stays as it is until the test
//! writes its status.

use anyhow::{Context, Result, ensure};
use crds::{Sync, find_condition};
use harness::{
    Plane, Scene,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::{batch::v1::Job, core::v1::ConfigMap};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::{
    cli::gitseal,
    jobs::{BATCH, completes, job, job_uid},
    objects::{config_map, deployment, sealed_secret},
    traces::{applies, event, handled, inventory, uid},
    waves::in_wave,
};

/// A Job that the later waves wait for; `spec` are more lines of its spec.
fn awaited(wave: i32, name: &str, spec: &str) -> String {
    let annotations = format!(
        "{}: '{wave}', {}: {}, {}: {}",
        crds::names::WAVE,
        crds::names::WAIT,
        crds::names::WAIT_HEALTHY,
        crds::names::REPLACE,
        crds::names::REPLACE_ALLOWED
    );
    job(name, "image:1", &annotations, &format!("  managedBy: example.com/nobody\n{spec}"))
}

/// Marks the Job as failed, as its controller would.
pub(crate) async fn fails(scene: &Scene, name: &str) -> Result<()> {
    let at = "2026-01-01T00:00:00Z";
    let condition = |kind: &str| {
        json!({
            "type": kind, "status": "True", "lastProbeTime": at, "lastTransitionTime": at,
            "reason": "BackoffLimitExceeded", "message": "it has failed too often",
        })
    };
    let status = json!({"status": {
        "conditions": [condition("FailureTarget"), condition("Failed")], "startTime": at, "failed": 1, "active": 0,
        "ready": 0, "terminating": 0, "uncountedTerminatedPods": {}}});
    scene.api::<Job>().patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await?;
    Ok(())
}

/// Waits until the Sync says that its later waves wait for this object.
pub(crate) async fn waits(scene: &Scene, sync: &str, name: &str) -> Result<Sync> {
    scene
        .sync_when(sync, &format!("later waves to wait for {name}"), |_, ready| {
            let message = &ready.message;
            ready.reason == "WaitingForHealth" && message.contains("the later waves wait for") && message.contains(name)
        })
        .await
}

/// A Sync whose ConfigMap `web` waits for the Job `second`, which waits for the Job `once`. Kubernetes removes `once` when it is
/// complete. Returns the revision.
pub(crate) async fn waits_for_the_first_of_two_jobs(scene: &Scene) -> Result<String> {
    scene.repository(json!({})).await?;
    scene.tree.write("app/once.yaml", awaited(-2, "once", "  ttlSecondsAfterFinished: 1\n"))?;
    scene.tree.write("app/second.yaml", awaited(-1, "second", ""))?;
    scene.tree.write("app/web.yaml", config_map("web", "1"))?;
    let revision = scene.publish("two Jobs").await?;
    scene.sync("app", "./app", json!({})).await?;
    waits(scene, "app", "once").await?;
    Ok(revision)
}

fn message(sync: &Sync) -> Result<String> {
    let conditions = &sync.status.as_ref().context("no status")?.conditions;
    Ok(find_condition(conditions, "Ready").context("no Ready")?.message.clone())
}

pub(crate) async fn is_missing(scene: &Scene, name: &str) -> Result<()> {
    ensure!(scene.get("v1", "ConfigMap", name).await?.is_none(), "{name} is there");
    Ok(())
}

/// Waits until a ConfigMap has this value.
pub(crate) async fn has_value(scene: &Scene, name: &str, value: &str) -> Result<()> {
    scene.has("v1", "ConfigMap", name, json!({"data": {"value": value}})).await.map(drop)
}

async fn edit(scene: &Scene, name: &str) -> Result<()> {
    let edited = json!({"data": {"value": "edited"}});
    scene.api::<ConfigMap>().patch(name, &PatchParams::default(), &Patch::Merge(&edited)).await?;
    Ok(())
}

async fn delete_map(scene: &Scene, name: &str) -> Result<()> {
    scene.api::<ConfigMap>().delete(name, &DeleteParams::default()).await?;
    Ok(())
}

#[tokio::test]
async fn a_wave_begins_when_the_job_before_is_complete_and_the_prune_comes_last() -> Result<()> {
    let scene = Scene::new("wait-job").await?;
    scene.tree.write("app/old.yaml", config_map("old", "1"))?;
    scene.tree.write("app/kept.yaml", config_map("kept", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.remove("app/old.yaml")?;
    scene.tree.write("app/kept.yaml", config_map("kept", "2"))?;
    scene.tree.write("app/early.yaml", in_wave("-2", &config_map("early", "1")))?;
    scene.tree.write("app/job.yaml", format!("# migrates\n{}", awaited(-1, "migrate", "")))?;
    scene.tree.write("app/last.yaml", in_wave("2", &config_map("last", "1")))?;
    let second = scene.publish("second").await?;
    let sync = waits(&scene, "app", "migrate").await?;
    let told = message(&sync)?;
    for text in [&second, "up to wave -1", "app/job.yaml:2: Job ", "migrate: it has not started"] {
        ensure!(told.contains(text), "no {text:?} in: {told}");
    }
    gitseal(&scene, &["status", "app"]).await?.is(0, &["the later waves wait for app/job.yaml:2: Job "])?;
    event(&scene, "app", "WaitingForHealth", &[&second, "up to wave -1", "app/job.yaml:2: Job "]).await?;
    has_value(&scene, "early", "1").await?;
    has_value(&scene, "kept", "1").await?;
    has_value(&scene, "old", "1").await?;
    is_missing(&scene, "last").await?;
    let status = sync.status.clone().context("no status")?;
    assert_eq!(status.last_applied_revision.as_ref(), Some(&first));
    assert_eq!(status.last_attempted_revision.as_ref(), Some(&second));
    let newest = status.history.first().context("no history")?;
    assert_eq!((newest.revision.as_str(), newest.outcome.as_str()), (second.as_str(), "WaitingForHealth"));
    ensure!(!inventory(sync).contains(&format!("{}_last__ConfigMap", scene.namespace)), "it is not about to be made");

    completes(&scene, "migrate").await?;
    let sync = scene.is_applied("app", &second).await?;
    for (name, value) in [("kept", "2"), ("last", "1")] {
        has_value(&scene, name, value).await?;
    }
    scene.is_gone("v1", "ConfigMap", "old").await?;
    assert_eq!((applies(&scene, "migrate").await?, applies(&scene, "early").await?), (1, 1));
    let history = sync.status.context("no status")?.history;
    let newest = history.first().context("no history")?;
    assert_eq!((newest.outcome.as_str(), newest.summary.as_str()), ("Applied", "3 created, 1 changed, 1 pruned"));
    Ok(())
}

#[tokio::test]
async fn a_failed_job_is_told_and_a_newer_commit_overtakes_what_is_stuck() -> Result<()> {
    let scene = Scene::new("wait-fails").await?;
    scene.tree.write("app/job.yaml", awaited(-1, "migrate", ""))?;
    scene.tree.write("app/web.yaml", config_map("web", "1"))?;
    scene.publish("it fails").await?;
    scene.sync("app", "./app", json!({})).await?;
    let old = job_uid(&scene, "migrate").await?;
    fails(&scene, "migrate").await?;
    let told = scene.is_not_ready("app", "HealthCheckFailed").await?;
    for text in ["app/job.yaml:1: Job ", "BackoffLimitExceeded", "; the waves after -1 wait until Job "] {
        ensure!(told.contains(text), "no {text:?} in: {told}");
    }
    is_missing(&scene, "web").await?;

    // A newer revision begins with its first wave.
    scene.tree.write("app/early.yaml", in_wave("-2", &config_map("early", "2")))?;
    scene.tree.write("app/job.yaml", awaited(-1, "migrate", "").replace("image:1", "image:2"))?;
    let second = scene.publish("another one").await?;
    has_value(&scene, "early", "2").await?;
    waits(&scene, "app", "migrate").await?;
    ensure!(old != job_uid(&scene, "migrate").await?);
    is_missing(&scene, "web").await?;
    completes(&scene, "migrate").await?;
    scene.is_applied("app", &second).await?;
    has_value(&scene, "web", "1").await?;

    // A Job that never ends does not keep the next revision back either.
    scene.tree.write("app/job.yaml", awaited(-1, "migrate", "").replace("image:1", "image:3"))?;
    scene.tree.write("app/web.yaml", config_map("web", "3"))?;
    scene.publish("it never ends").await?;
    waits(&scene, "app", "migrate").await?;
    scene.tree.remove("app/job.yaml")?;
    scene.tree.write("app/web.yaml", config_map("web", "4"))?;
    let fourth = scene.publish("without it").await?;
    scene.is_applied("app", &fourth).await?;
    has_value(&scene, "web", "4").await?;
    scene.is_gone(BATCH, "Job", "migrate").await
}

#[tokio::test]
async fn a_restart_goes_on_with_the_wave_and_runs_no_job_again() -> Result<()> {
    let plane = Plane::start(localcluster::ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "wait-restart", harness::git::ServerOptions::default()).await?;
    let revision = waits_for_the_first_of_two_jobs(&scene).await?;
    plane.controller.lock().await.take().context("no controller")?.stop()?;
    completes(&scene, "once").await?;
    scene.is_gone(BATCH, "Job", "once").await?;

    let folder = plane.folder();
    let start = || Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder));
    let mut again = start()?;
    again.ready().await?;
    let second = job_uid(&scene, "second").await?;
    waits(&scene, "app", "second").await?;
    ensure!(scene.get(BATCH, "Job", "once").await?.is_none(), "it runs again");
    is_missing(&scene, "web").await?;
    again.kill()?;

    let mut again = start()?;
    again.ready().await?;
    completes(&scene, "second").await?;
    scene.is_applied("app", &revision).await?;
    has_value(&scene, "web", "1").await?;
    ensure!(scene.get(BATCH, "Job", "once").await?.is_none(), "it runs again");
    assert_eq!(job_uid(&scene, "second").await?, second, "it runs again");
    again.stop()
}

#[tokio::test]
async fn drift_is_healed_while_waves_wait() -> Result<()> {
    let scene = Scene::new("wait-drift").await?;
    let write = |value: &str| -> Result<()> {
        scene.tree.write("app/early.yaml", in_wave("-2", &config_map("early", value)))?;
        scene.tree.write("app/last.yaml", in_wave("1", &config_map("last", value)))?;
        scene.tree.write("app/usual.yaml", config_map("usual", "1"))
    };
    write("1")?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    write("2")?;
    scene.tree.write("app/job.yaml", awaited(-1, "migrate", ""))?;
    let second = scene.publish("second").await?;
    waits(&scene, "app", "migrate").await?;
    // An edited object of an applied wave is set to the new revision. An edited object of a wave that waits is set to
    // what was last applied.
    for name in ["early", "last", "usual"] {
        edit(&scene, name).await?;
    }
    let expected = [("early", "2"), ("last", "1"), ("usual", "1")];
    for (name, value) in expected {
        has_value(&scene, name, value).await?;
    }
    for name in ["early", "last", "usual"] {
        delete_map(&scene, name).await?;
    }
    for (name, value) in expected {
        has_value(&scene, name, value).await?;
    }
    waits(&scene, "app", "migrate").await?;
    let uid_of_early = uid(&scene, "ConfigMap", "early").await?;
    completes(&scene, "migrate").await?;
    scene.is_applied("app", &second).await?;
    has_value(&scene, "last", "2").await?;
    assert_eq!(uid(&scene, "ConfigMap", "early").await?, uid_of_early);
    Ok(())
}

#[tokio::test]
async fn a_commit_to_a_later_wave_asks_nothing_about_the_earlier_ones() -> Result<()> {
    let scene = Scene::new("wait-later").await?;
    scene.tree.write("app/web.yaml", deployment("web", 0))?;
    scene.tree.write("app/last.yaml", in_wave("1", &config_map("last", "1")))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"waves": "healthy"})).await?;
    scene.is_applied("app", &first).await?;
    // The requests of the control plane's own programs, which read the Deployment as well, are left out.
    let about_web = || async {
        let requests = Plane::shared().await?.cluster.requests()?;
        let of_web = requests.into_iter().filter(|request| {
            request.namespace == scene.namespace && request.name == "web" && !request.user.starts_with("system:")
        });
        anyhow::Ok(of_web.map(|request| format!("{} {}", request.verb, request.uri)).collect::<Vec<_>>())
    };
    let before = about_web().await?;
    ensure!(before.iter().any(|request| request.starts_with("get ")), "its health was read: {before:?}");
    scene.tree.write("app/last.yaml", in_wave("1", &config_map("last", "2")))?;
    let second = scene.publish("only the later wave").await?;
    scene.is_applied("app", &second).await?;
    has_value(&scene, "last", "2").await?;
    assert_eq!(about_web().await?, before);
    Ok(())
}

#[tokio::test]
async fn waves_wait_although_the_sync_does_not_until_it_is_edited_or_deleted() -> Result<()> {
    let scene = Scene::new("wait-false").await?;
    let write = |replicas: u32, value: &str| -> Result<()> {
        // The control plane has no nodes, so a replica never runs.
        scene.tree.write("app/web.yaml", deployment("web", replicas))?;
        scene.tree.write("app/last.yaml", in_wave("1", &config_map("last", value)))
    };
    write(1, "1")?;
    scene.publish("it never becomes available").await?;
    let spec = |waves: &str| json!({"wait": false, "timeout": "3s", "waves": waves});
    scene.sync("app", "./app", spec("healthy")).await?;
    let told = scene.is_not_ready("app", "HealthCheckTimedOut").await?;
    ensure!(told.contains("0 of 1 replicas") && told.contains("; the waves after 0 wait until Deployment"), "{told}");
    is_missing(&scene, "last").await?;

    write(0, "1")?;
    let second = scene.publish("no replicas").await?;
    scene.is_applied("app", &second).await?;
    has_value(&scene, "last", "1").await?;

    write(1, "2")?;
    let third = scene.publish("it never becomes available").await?;
    scene.is_not_ready("app", "HealthCheckTimedOut").await?;
    scene.sync("app", "./app", spec("applied")).await?;
    scene.is_applied("app", &third).await?;
    has_value(&scene, "last", "2").await?;

    scene.sync("app", "./app", spec("healthy")).await?;
    scene.is_applied("app", &third).await?;
    write(2, "3")?;
    scene.publish("again").await?;
    scene.is_not_ready("app", "HealthCheckTimedOut").await?;
    has_value(&scene, "last", "2").await?;
    scene.api::<Sync>().delete("app", &DeleteParams::default()).await?;
    scene.is_gone("apps/v1", "Deployment", "web").await?;
    scene.is_gone("v1", "ConfigMap", "last").await
}

#[tokio::test]
async fn a_secret_that_cannot_be_made_does_not_keep_later_waves_back() -> Result<()> {
    let scene = Scene::new("wait-held").await?;
    let elsewhere = scene.seal("another-name", b"waves-wait-value").await?;
    scene.tree.write("app/bad.yaml", in_wave("-1", &sealed_secret("bad", &elsewhere)))?;
    scene.tree.write("app/job.yaml", awaited(-1, "migrate", ""))?;
    scene.tree.write("app/web.yaml", config_map("web", "1"))?;
    scene.publish("sealed for another name").await?;
    scene.sync("app", "./app", json!({})).await?;
    let told = scene.is_not_ready("app", "UnsealFailed").await?;
    let waiting = "; everything else up to wave -1 is applied; the waves after -1 wait until Job ";
    ensure!(told.contains("app/bad.yaml:1: ") && told.contains(waiting), "{told}");
    is_missing(&scene, "web").await?;
    completes(&scene, "migrate").await?;
    has_value(&scene, "web", "1").await?;
    let all = "; everything else is applied";
    scene.sync_when("app", all, |_, ready| ready.reason == "UnsealFailed" && ready.message.ends_with(all)).await?;

    // A Job that cannot be applied is not healthy.
    let uses = awaited(-1, "migrate", "").replace("env: [", "envFrom: [{secretRef: {name: bad}}], env: [");
    scene.tree.write("app/job.yaml", uses)?;
    scene.tree.write("app/web.yaml", config_map("web", "2"))?;
    scene.publish("the Job needs the Secret").await?;
    scene.sync_when("app", waiting, |_, ready| ready.message.contains(waiting)).await?;
    has_value(&scene, "web", "1").await?;
    scene
        .tree
        .write("app/bad.yaml", in_wave("-1", &sealed_secret("bad", &scene.seal("bad", b"waves-wait-value").await?)))?;
    let mended = scene.publish("sealed anew").await?;
    waits(&scene, "app", "migrate").await?;
    completes(&scene, "migrate").await?;
    scene.is_applied("app", &mended).await?;
    has_value(&scene, "web", "2").await
}

#[tokio::test]
async fn a_suspended_sync_begins_no_wave() -> Result<()> {
    let scene = Scene::new("wait-suspended").await?;
    scene.tree.write("app/job.yaml", awaited(-1, "migrate", ""))?;
    scene.tree.write("app/web.yaml", config_map("web", "1"))?;
    let revision = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    waits(&scene, "app", "migrate").await?;
    scene.sync("app", "./app", json!({"suspend": true})).await?;
    completes(&scene, "migrate").await?;
    handled(&scene, "app").await?;
    is_missing(&scene, "web").await?;
    scene.sync("app", "./app", json!({"suspend": false})).await?;
    scene.is_applied("app", &revision).await?;
    has_value(&scene, "web", "1").await
}

#[tokio::test]
async fn what_moves_is_handed_over_while_waves_wait() -> Result<()> {
    let scene = Scene::new("wait-moves").await?;
    scene.tree.write("one/moves.yaml", config_map("moves", "1"))?;
    scene.tree.write("one/stays.yaml", config_map("stays", "1"))?;
    scene.tree.write("two/other.yaml", config_map("other", "1"))?;
    let first = scene.publish("first").await?;
    for sync in ["one", "two"] {
        scene.sync(sync, sync, json!({})).await?;
        scene.is_applied(sync, &first).await?;
    }
    let before = uid(&scene, "ConfigMap", "moves").await?;
    scene.tree.remove("one/moves.yaml")?;
    scene.tree.write("two/moves.yaml", config_map("moves", "2"))?;
    scene.tree.write("one/job.yaml", awaited(-1, "migrate", ""))?;
    scene.tree.write("one/stays.yaml", config_map("stays", "2"))?;
    let second = scene.publish("it moves").await?;
    scene.is_applied("two", &second).await?;
    has_value(&scene, "moves", "2").await?;
    waits(&scene, "one", "migrate").await?;
    has_value(&scene, "stays", "1").await?;
    completes(&scene, "migrate").await?;
    scene.is_applied("one", &second).await?;
    has_value(&scene, "stays", "2").await?;
    assert_eq!(uid(&scene, "ConfigMap", "moves").await?, before);
    Ok(())
}
