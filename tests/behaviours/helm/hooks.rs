//! When hooks of charts run, also at the deletion of their Sync, when they are deleted, and what stays of them when the controller ends
//! in the middle of them.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use crds::{Condition, Sync};
use harness::{
    Scene, eventually,
    faults::{Fault, FaultProxy, Which},
};
use http::Method;
use k8s_openapi::api::{batch::v1::Job, core::v1::Pod};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use super::synced::{CHART, MAP, write_chart};
use crate::{
    cli::gitseal,
    faults::Faulty,
    handover::Sealer,
    jobs::{self, BATCH, completes, job_uid},
    objects::{config_map, deployment, is_value, sealed_secret},
    traces::{event, handled, uid},
    waves_wait::fails,
};

/// A Job that is a hook of `events`. Nobody but the test sets its status.
fn job(name: &str, events: &str, weight: i32, more: &str) -> String {
    hook(
        "batch/v1\nkind: Job",
        name,
        events,
        weight,
        &format!(
            "spec:\n  managedBy: example.com/nobody\n  template:\n    spec:\n      restartPolicy: Never\n      \
             containers: [{{name: c, image: 'example.invalid/c'{more}}}]\n"
        ),
    )
}

fn hook(kind: &str, name: &str, events: &str, weight: i32, rest: &str) -> String {
    format!(
        "apiVersion: {kind}\nmetadata:\n  name: {name}\n  annotations: {{helm.sh/hook: '{events}', helm.sh/hook-weight: \
         '{weight}'}}\n{rest}"
    )
}

/// Applies a chart with the ConfigMap `app-map` and these templates.
async fn applied(scene: &Scene, templates: &[(&str, &str)]) -> Result<()> {
    scene.repository(json!({})).await?;
    write_chart(scene, templates)?;
    scene.tree.write("charts/web/templates/map.yaml", MAP)?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"helm": {}})).await?;
    scene.is_applied("app", &first).await.map(drop)
}

async fn delete(scene: &Scene) -> Result<()> {
    scene.api::<Sync>().delete("app", &DeleteParams::default()).await?;
    Ok(())
}

/// Waits until the Sync waits for this hook.
async fn waits_for(scene: &Scene, hook: &str) -> Result<()> {
    scene
        .sync_when("app", &format!("the hook {hook}"), |_, ready| {
            ready.reason == "DeleteHooksRunning" && ready.message.contains(hook)
        })
        .await
        .map(drop)
}

async fn is_there(scene: &Scene, version: &str, kind: &str, name: &str) -> Result<bool> {
    Ok(scene.get(version, kind, name).await?.is_some())
}

/// Checks that none of these objects, each a version, a kind and a name, exists.
async fn none_is_there(scene: &Scene, objects: [(&str, &str, &str); 3]) -> Result<()> {
    for (version, kind, name) in objects {
        ensure!(!is_there(scene, version, kind, name).await?, "{kind} {name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_restart_ends_no_hook_after_the_deletion_and_repeats_none_before_it() -> Result<()> {
    let mut faulty = Faulty::without_work("hook-restart").await?;
    let sealer = Sealer::new(faulty.scene.client.clone(), &faulty.scene.namespace, &faulty.controller).await?;
    let sealed = sealed_secret("db", &sealer.seal("db", "Of-A-Hook-1")?);
    let sealed =
        sealed.replace("{name: db}", "{name: db, annotations: {helm.sh/hook: pre-delete, helm.sh/hook-weight: '-5'}}");
    let from = ", envFrom: [{secretRef: {name: db}}]";
    let (backup, clean) = (job("backup", "pre-delete", 0, from), job("clean", "post-delete", 0, ""));
    applied(&faulty.scene, &[("db", &sealed), ("backup", &backup), ("clean", &clean)]).await?;
    delete(&faulty.scene).await?;
    waits_for(&faulty.scene, "backup").await?;
    ensure!(is_there(&faulty.scene, "v1", "Secret", "db").await?);
    let uid = job_uid(&faulty.scene, "backup").await?;
    faulty.restart().await?;
    handled(&faulty.scene, "app").await?;
    assert_eq!(job_uid(&faulty.scene, "backup").await?, uid);

    completes(&faulty.scene, "backup").await?;
    waits_for(&faulty.scene, "clean").await?;
    let uid = job_uid(&faulty.scene, "clean").await?;
    let are_gone = async |scene: &Scene| -> Result<()> {
        for (version, kind, name) in [
            (BATCH, "Job", "backup"),
            ("bitnami.com/v1alpha1", "SealedSecret", "db"),
            ("v1", "Secret", "db"),
            ("v1", "ConfigMap", "app-map"),
        ] {
            ensure!(!is_there(scene, version, kind, name).await?, "{kind} {name}");
        }
        Ok(())
    };
    are_gone(&faulty.scene).await?;
    faulty.restart().await?;
    handled(&faulty.scene, "app").await?;
    assert_eq!(job_uid(&faulty.scene, "clean").await?, uid);
    are_gone(&faulty.scene).await?;

    completes(&faulty.scene, "clean").await?;
    faulty.scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    ensure!(!is_there(&faulty.scene, BATCH, "Job", "clean").await?);
    are_gone(&faulty.scene).await
}

#[tokio::test]
async fn hooks_after_the_deletion_stay_until_all_of_them_have_succeeded() -> Result<()> {
    let mut faulty = Faulty::without_work("hook-waves").await?;
    let account = hook("v1\nkind: ServiceAccount", "cleaner", "post-delete", -5, "");
    let (first, last) = (job("first", "post-delete", 0, ""), job("last", "post-delete", 5, ""));
    applied(&faulty.scene, &[("account", &account), ("first", &first), ("last", &last)]).await?;
    delete(&faulty.scene).await?;
    waits_for(&faulty.scene, "first").await?;
    ensure!(!is_there(&faulty.scene, BATCH, "Job", "last").await?);
    completes(&faulty.scene, "first").await?;
    waits_for(&faulty.scene, "last").await?;
    let (uid, earlier) = (job_uid(&faulty.scene, "last").await?, job_uid(&faulty.scene, "first").await?);
    let account = faulty.scene.get("v1", "ServiceAccount", "cleaner").await?;
    ensure!(account.is_some(), "the last hook may use it");
    faulty.restart().await?;
    handled(&faulty.scene, "app").await?;
    assert_eq!((job_uid(&faulty.scene, "last").await?, job_uid(&faulty.scene, "first").await?), (uid, earlier));
    completes(&faulty.scene, "last").await?;
    faulty.scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    let hooks = [("v1", "ServiceAccount", "cleaner"), (BATCH, "Job", "first"), (BATCH, "Job", "last")];
    none_is_there(&faulty.scene, hooks).await
}

#[tokio::test]
async fn a_sealed_secret_among_the_hooks_after_the_deletion_does_not_stay() -> Result<()> {
    let scene = Scene::new("hook-sealed").await?;
    let sealed = sealed_secret("last-db", &scene.seal("last-db", b"Of-A-Hook-2").await?);
    let sealed = sealed.replace("{name: last-db}", "{name: last-db, annotations: {helm.sh/hook: post-delete}}");
    let clean = job("clean", "post-delete", 5, ", envFrom: [{secretRef: {name: last-db}}]");
    applied(&scene, &[("db", &sealed), ("clean", &clean)]).await?;
    ensure!(!is_there(&scene, "v1", "Secret", "last-db").await?);
    delete(&scene).await?;
    waits_for(&scene, "clean").await?;
    ensure!(is_there(&scene, "v1", "Secret", "last-db").await?);
    completes(&scene, "clean").await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    let hooks =
        [("bitnami.com/v1alpha1", "SealedSecret", "last-db"), ("v1", "Secret", "last-db"), (BATCH, "Job", "clean")];
    none_is_there(&scene, hooks).await
}

#[tokio::test]
async fn a_hook_for_the_deletion_whose_secret_cannot_be_made_says_so() -> Result<()> {
    let scene = Scene::new("hook-unsealed").await?;
    let sealed = sealed_secret("db", &scene.seal("another-name", b"Of-A-Hook-3").await?);
    let sealed = sealed.replace("{name: db}", "{name: db, annotations: {helm.sh/hook: pre-delete}}");
    let backup = job("backup", "pre-delete", 5, ", envFrom: [{secretRef: {name: db}}]");
    applied(&scene, &[("db", &sealed), ("backup", &backup)]).await?;
    delete(&scene).await?;
    let message = scene.is_not_ready("app", "UnsealFailed").await?;
    ensure!(
        message.contains("charts/web/templates/db.yaml:1") && message.contains("gitseal.dev/delete-hooks=skip"),
        "{message}"
    );
    ensure!(is_there(&scene, "v1", "ConfigMap", "app-map").await? && !is_there(&scene, BATCH, "Job", "backup").await?);
    scene.annotate::<Sync>("app", crds::names::DELETE_HOOKS, crds::names::DELETE_HOOKS_SKIP).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    ensure!(!is_there(&scene, "bitnami.com/v1alpha1", "SealedSecret", "db").await?);
    Ok(())
}

#[tokio::test]
async fn a_hook_for_the_deletion_that_failed_runs_again_when_it_is_deleted() -> Result<()> {
    let scene = Scene::new("hook-again").await?;
    applied(&scene, &[("backup", &job("backup", "pre-delete", 0, ""))]).await?;
    delete(&scene).await?;
    waits_for(&scene, "backup").await?;
    let uid = job_uid(&scene, "backup").await?;
    fails(&scene, "backup").await?;
    let message = scene.is_not_ready("app", "DeleteHookFailed").await?;
    let delete = format!("delete it to run it again: kubectl delete job.batch -n {} backup", scene.namespace);
    ensure!(message.contains(&delete), "{message}");
    scene.api::<Job>().delete("backup", &DeleteParams::background()).await?;
    eventually("the hook to run again", || async {
        ensure!(job_uid(&scene, "backup").await? != uid);
        Ok(())
    })
    .await?;
    ensure!(is_there(&scene, "v1", "ConfigMap", "app-map").await?);
    completes(&scene, "backup").await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    ensure!(!is_there(&scene, BATCH, "Job", "backup").await?);
    Ok(())
}

#[tokio::test]
async fn a_finished_hook_is_deleted_even_if_the_controller_was_killed_before() -> Result<()> {
    let mut faulty = Faulty::without_work("hook-killed").await?;
    let seed = with_policy(&job("seed", "post-install,post-upgrade", 0, ""), "hook-succeeded");
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    write_chart(scene, &[("map", MAP), ("seed", &seed)])?;
    scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"helm": {}})).await?;
    scene.has(BATCH, "Job", "seed", json!({})).await?;
    let deletion = stall_deletion(&faulty.proxy);
    completes(scene, "seed").await?;
    eventually("the deletion", || async {
        ensure!(deletion.hits() > 0);
        Ok(())
    })
    .await?;
    let status = scene.api::<Sync>().get("app").await?.status.context("no status")?;
    ensure!(status.inventory.iter().any(|entry| entry.d == Some(crds::Deletion::Done)), "{status:#?}");
    ensure!(is_there(scene, BATCH, "Job", "seed").await?);
    faulty.restart().await?;
    let scene = &faulty.scene;
    scene.is_gone(BATCH, "Job", "seed").await?;
    scene.is_ready("app").await?;
    handled(scene, "app").await?;
    ensure!(!is_there(scene, BATCH, "Job", "seed").await?, "it runs again");
    Ok(())
}

/// Makes the controller wait for the answer to the deletion of the Job `seed`, which never comes.
fn stall_deletion(proxy: &FaultProxy) -> harness::faults::Injected {
    proxy.inject_times(1, Which::method(Method::DELETE).path("/jobs/seed"), Fault::Stall)
}

#[tokio::test]
async fn a_hook_that_failed_is_deleted_if_its_policy_says_so_and_runs_again_at_a_request() -> Result<()> {
    let mut faulty = Faulty::without_work("hook-failed").await?;
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    let migrate = with_policy(&job("migrate", "pre-install,pre-upgrade", 0, ""), "hook-failed");
    write_chart(scene, &[("map", MAP), ("migrate", &migrate)])?;
    scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"timeout": "1h", "helm": {}})).await?;
    scene.has(BATCH, "Job", "migrate", json!({})).await?;
    fails(scene, "migrate").await?;
    let message = scene.is_not_ready("app", "HealthCheckFailed").await?;
    for text in ["charts/web/templates/migrate.yaml:1", "migrate", "failed too often", "deleted because it failed"] {
        ensure!(message.contains(text), "no {text:?} in: {message}");
    }
    scene.is_gone(BATCH, "Job", "migrate").await?;
    event(scene, "app", "Finished", &["has failed", "migrate"]).await?;

    // Neither a restart nor another commit runs it again, and the later waves still wait for it.
    faulty.restart().await?;
    let scene = &faulty.scene;
    scene.tree.write("charts/web/templates/more.yaml", MAP.replace("-map", "-more"))?;
    let second = scene.publish("another object").await?;
    let is_second =
        |sync: &Sync| sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_ref()) == Some(&second);
    scene
        .sync_when("app", "the commit", |sync, ready| {
            let says =
                ["failed too often", "deleted because it failed"].iter().all(|text| ready.message.contains(text));
            is_second(sync) && ready.reason == "HealthCheckFailed" && says
        })
        .await?;
    ensure!(!is_there(scene, BATCH, "Job", "migrate").await?, "it runs again");
    for map in ["app-map", "app-more"] {
        ensure!(!is_there(scene, "v1", "ConfigMap", map).await?, "{map}");
    }

    scene.request::<Sync>("app").await?;
    scene.has(BATCH, "Job", "migrate", json!({})).await?;
    completes(scene, "migrate").await?;
    scene.is_applied("app", &second).await?;
    // It has succeeded, so it stays.
    ensure!(is_there(scene, BATCH, "Job", "migrate").await?);
    Ok(())
}

/// The Sync waits until the object is healthy.
async fn is_awaited(scene: &Scene, name: &str) -> Result<()> {
    let waits = |_: &Sync, ready: &Condition| ready.reason == "WaitingForHealth" && ready.message.contains(name);
    scene.sync_when("app", &format!("the wait for {name}"), waits).await.map(drop)
}

#[tokio::test]
async fn hooks_are_awaited_and_deleted_even_if_the_sync_does_not_wait() -> Result<()> {
    let scene = Scene::new("hook-no-wait").await?;
    let policies = "before-hook-creation,hook-succeeded";
    let migrate = with_policy(&job("migrate", "pre-install,pre-upgrade", 0, ""), policies);
    let migrate = migrate.replace("annotations: {", "annotations: {tag: '{{ .Values.tag }}', ");
    let seed = with_policy(&job("seed", "post-install,post-upgrade", 0, ""), policies);
    // The control plane has no nodes, so this Deployment never becomes available.
    let web = deployment("web", 1);
    write_chart(&scene, &[("map", MAP), ("web", &web), ("migrate", &migrate), ("seed", &seed)])?;
    let first = scene.publish("a chart").await?;
    let with = |tag: &str| json!({"timeout": "1h", "wait": false, "helm": {"values": {"tag": tag}}});
    scene.sync("app", "./charts/web", with("1")).await?;
    is_awaited(&scene, "migrate").await?;
    ensure!(!is_there(&scene, "v1", "ConfigMap", "app-map").await?);
    completes(&scene, "migrate").await?;
    is_awaited(&scene, "seed").await?;
    scene.is_gone(BATCH, "Job", "migrate").await?;
    completes(&scene, "seed").await?;
    scene.is_applied("app", &first).await?;
    scene.is_gone(BATCH, "Job", "seed").await?;

    // Only the first hook changes, so no later wave waits for it.
    scene.sync("app", "./charts/web", with("2")).await?;
    scene.has(BATCH, "Job", "migrate", json!({"metadata": {"annotations": {"tag": "2"}}})).await?;
    is_awaited(&scene, "migrate").await?;
    completes(&scene, "migrate").await?;
    scene.is_ready("app").await?;
    scene.is_gone(BATCH, "Job", "migrate").await?;
    ensure!(!is_there(&scene, BATCH, "Job", "seed").await?, "it runs again");
    scene.sync("app", "./charts/web", with("3")).await?;
    scene.has(BATCH, "Job", "migrate", json!({"metadata": {"annotations": {"tag": "3"}}})).await?;
    fails(&scene, "migrate").await?;
    scene.is_not_ready("app", "HealthCheckFailed").await.map(drop)
}

#[tokio::test]
async fn an_object_is_deleted_when_it_is_healthy_even_if_the_sync_does_not_wait() -> Result<()> {
    let scene = Scene::new("delete-no-wait").await?;
    let spec = "  managedBy: example.com/nobody\n";
    scene.tree.write("app/once.yaml", jobs::job("once", "once:1", "gitseal.dev/delete-when: healthy", spec))?;
    scene.tree.write("app/web.yaml", deployment("web", 1))?;
    let first = scene.publish("a Job").await?;
    scene.sync("app", "./app", json!({"timeout": "1h", "wait": false})).await?;
    is_awaited(&scene, "once").await?;
    completes(&scene, "once").await?;
    scene.is_applied("app", &first).await?;
    scene.is_gone(BATCH, "Job", "once").await
}

#[tokio::test]
async fn a_job_that_changed_runs_again_even_if_it_could_be_changed_in_place() -> Result<()> {
    let scene = Scene::new("hook-anew").await?;
    let with_tag = |text: &str| text.replace("annotations: {", "annotations: {tag: '{{ .Values.tag }}', ");
    let migrate = with_tag(&job("migrate", "pre-install,pre-upgrade", 0, ""));
    let account = with_tag(&hook("v1\nkind: ServiceAccount", "migrator", "pre-install,pre-upgrade", -5, ""));
    write_chart(&scene, &[("map", MAP), ("migrate", &migrate), ("account", &account)])?;
    scene.publish("a chart").await?;
    let with = |tag: &str| json!({"timeout": "1h", "helm": {"values": {"tag": tag}}});
    scene.sync("app", "./charts/web", with("1")).await?;
    let first = job_uid(&scene, "migrate").await?;
    completes(&scene, "migrate").await?;
    scene.is_ready("app").await?;
    let account = uid(&scene, "ServiceAccount", "migrator").await?;

    scene.sync("app", "./charts/web", with("2")).await?;
    let tagged = json!({"metadata": {"annotations": {"tag": "2"}}});
    eventually("the hook to run again", || async {
        scene.has(BATCH, "Job", "migrate", tagged.clone()).await?;
        ensure!(job_uid(&scene, "migrate").await? != first);
        Ok(())
    })
    .await?;
    let second = job_uid(&scene, "migrate").await?;
    completes(&scene, "migrate").await?;
    scene.is_ready("app").await?;
    scene.has("v1", "ServiceAccount", "migrator", tagged).await?;
    assert_eq!(uid(&scene, "ServiceAccount", "migrator").await?, account, "what does not run is changed in place");
    assert_eq!(job_uid(&scene, "migrate").await?, second);
    Ok(())
}

#[tokio::test]
async fn a_hook_for_the_installation_and_the_deletion_runs_at_both() -> Result<()> {
    let mut faulty = Faulty::without_work("hook-both").await?;
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    let both = job("both", "post-install,post-upgrade,pre-delete", 0, "");
    let tidy = with_policy(&job("tidy", "pre-install,post-delete", 0, ""), "hook-succeeded");
    let backup = job("backup", "pre-delete", 5, "");
    write_chart(scene, &[("map", MAP), ("both", &both), ("tidy", &tidy), ("backup", &backup)])?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"timeout": "1h", "helm": {}})).await?;
    let before = job_uid(scene, "tidy").await?;
    completes(scene, "tidy").await?;
    let installed = job_uid(scene, "both").await?;
    completes(scene, "both").await?;
    scene.is_applied("app", &first).await?;
    scene.is_gone(BATCH, "Job", "tidy").await?;

    delete(scene).await?;
    waits_for(scene, "both").await?;
    let at_deletion = job_uid(scene, "both").await?;
    ensure!(at_deletion != installed, "it does not run again");
    ensure!(!is_there(scene, BATCH, "Job", "backup").await?, "its weight is larger");
    faulty.restart().await?;
    let scene = &faulty.scene;
    handled(scene, "app").await?;
    assert_eq!(job_uid(scene, "both").await?, at_deletion);
    completes(scene, "both").await?;
    waits_for(scene, "backup").await?;
    ensure!(is_there(scene, "v1", "ConfigMap", "app-map").await?);
    completes(scene, "backup").await?;
    waits_for(scene, "tidy").await?;
    ensure!(job_uid(scene, "tidy").await? != before && !is_there(scene, "v1", "ConfigMap", "app-map").await?);
    completes(scene, "tidy").await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    for name in ["both", "backup", "tidy"] {
        ensure!(!is_there(scene, BATCH, "Job", name).await?, "{name}");
    }
    Ok(())
}

fn with_policy(hook: &str, policy: &str) -> String {
    hook.replace("helm.sh/hook-weight", &format!("helm.sh/hook-delete-policy: '{policy}', helm.sh/hook-weight"))
}

/// A Pod that is a test of the chart. No kubelet runs, so the test sets its status.
fn test_pod(name: &str, weight: i32, policy: &str) -> String {
    let pod = hook(
        "v1\nkind: Pod",
        name,
        "test",
        weight,
        "spec: {restartPolicy: Never, containers: [{name: c, image: example.invalid/c}]}\n",
    );
    with_policy(&pod, policy)
}

/// Sets what a kubelet would say about the Pod.
async fn pod_says(scene: &Scene, name: &str, phase: &str) -> Result<()> {
    let ready = json!([{"type": "Ready", "status": "True"}]);
    let ended = json!([{"name": "c", "ready": false, "restartCount": 0, "image": "example.invalid/c", "imageID": "",
        "state": {"terminated": {"exitCode": 3, "reason": "Error"}}}]);
    let status = match phase {
        "Running" => json!({"phase": phase, "conditions": ready}),
        "Failed" => json!({"phase": phase, "containerStatuses": ended}),
        _ => json!({"phase": phase}),
    };
    scene.api::<Pod>().patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(())
}

async fn pod_uid(scene: &Scene, name: &str) -> Result<String> {
    uid(scene, "Pod", name).await
}

async fn is_made_again(scene: &Scene, pod: &str, before: &str) -> Result<String> {
    eventually(&format!("Pod {pod} to be made again"), || async {
        let now = pod_uid(scene, pod).await?;
        ensure!(now != before, "the same Pod");
        Ok(now)
    })
    .await
}

#[tokio::test]
async fn tests_of_a_chart_run_for_each_revision_when_everything_else_is_healthy() -> Result<()> {
    let scene = Scene::new("chart-tests").await?;
    // An object of the chart that is no hook, and that no wave waits for.
    let work = job("work", "x", 0, "")
        .replace("{helm.sh/hook: 'x', helm.sh/hook-weight: '0'}", "{gitseal.dev/replace: allowed}");
    let (quick, last) = (test_pod("quick", -5, "before-hook-creation"), test_pod("last", 5, "hook-succeeded"));
    write_chart(&scene, &[("map", MAP), ("work", &work), ("quick", &quick), ("last", &last)])?;
    let first = scene.publish("a chart").await?;
    // Without the field, no test runs.
    scene.sync("app", "./charts/web", json!({"timeout": "1h", "helm": {}})).await?;
    scene.has(BATCH, "Job", "work", json!({})).await?;
    completes(&scene, "work").await?;
    scene.is_applied("app", &first).await?;
    ensure!(!is_there(&scene, "v1", "Pod", "quick").await?);

    scene.sync("app", "./charts/web", json!({"timeout": "1h", "wait": false, "helm": {"test": true}})).await?;
    let uid_of_first = pod_uid(&scene, "quick").await?;
    pod_says(&scene, "quick", "Running").await?;
    scene
        .sync_when("app", "the first test", |_, ready| {
            let message = &ready.message;
            ready.reason == "WaitingForHealth" && message.contains("quick: it has not ended yet")
        })
        .await?;
    ensure!(!is_there(&scene, "v1", "Pod", "last").await?, "its weight is larger");
    pod_says(&scene, "quick", "Succeeded").await?;
    scene.has("v1", "Pod", "last", json!({})).await?;
    pod_says(&scene, "last", "Succeeded").await?;
    scene.is_ready("app").await?;
    scene.is_gone("v1", "Pod", "last").await?;
    assert_eq!(pod_uid(&scene, "quick").await?, uid_of_first, "it stays for its log");

    // Somebody removes the Pod: it has done its work.
    scene.api::<Pod>().delete("quick", &DeleteParams::default().grace_period(0)).await?;
    handled(&scene, "app").await?;
    scene.is_ready("app").await?;
    ensure!(!is_there(&scene, "v1", "Pod", "quick").await?, "it runs again");

    // A new revision is tested when its other objects are healthy.
    scene.tree.write("charts/web/values.yaml", "level: warn\n")?;
    scene.tree.write("charts/web/templates/work.yaml", work.replace("example.invalid/c", "example.invalid/d"))?;
    let second = scene.publish("another level").await?;
    is_value(&scene, "app-map", "warn").await?;
    scene
        .sync_when("app", "the Job", |_, ready| {
            let message = &ready.message;
            ready.reason == "WaitingForHealth" && message.contains("the tests wait for") && message.contains("work")
        })
        .await?;
    ensure!(!is_there(&scene, "v1", "Pod", "quick").await?);
    completes(&scene, "work").await?;
    let uid_of_second = pod_uid(&scene, "quick").await?;
    pod_says(&scene, "quick", "Succeeded").await?;
    scene.has("v1", "Pod", "last", json!({})).await?;
    pod_says(&scene, "last", "Succeeded").await?;
    scene.is_applied("app", &second).await?;

    // A commit beside the chart runs no test. A request for tests does.
    scene.tree.write("README.md", "beside")?;
    scene.publish("beside the chart").await?;
    handled(&scene, "app").await?;
    assert_eq!(pod_uid(&scene, "quick").await?, uid_of_second);
    gitseal(&scene, &["sync", "app", "--test", "--no-wait"]).await?.is(0, &[])?;
    is_made_again(&scene, "quick", &uid_of_second).await?;
    pod_says(&scene, "quick", "Succeeded").await?;
    scene.has("v1", "Pod", "last", json!({})).await?;
    pod_says(&scene, "last", "Succeeded").await?;
    scene.is_ready("app").await?;

    // Without the field, tests leave the cluster like other objects that leave the chart.
    scene.sync("app", "./charts/web", json!({"timeout": "1h", "wait": true, "helm": {"test": false}})).await?;
    scene.is_gone("v1", "Pod", "quick").await?;
    gitseal(&scene, &["sync", "app", "--test"]).await?.is(2, &["spec.helm.test"])?;
    Ok(())
}

#[tokio::test]
async fn a_test_of_a_chart_that_fails_is_named_with_its_template_and_runs_again() -> Result<()> {
    let mut faulty = Faulty::without_work("chart-test-fails").await?;
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    write_chart(scene, &[("map", MAP), ("smoke", &test_pod("smoke", 0, "before-hook-creation"))])?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"timeout": "1h", "helm": {"test": true}})).await?;
    let before = pod_uid(scene, "smoke").await?;
    is_value(scene, "app-map", "info").await?;
    pod_says(scene, "smoke", "Failed").await?;
    let message = scene.is_not_ready("app", "TestFailed").await?;
    for text in ["charts/web/templates/smoke.yaml:1", "Pod", "smoke failed", "exit code 3"] {
        ensure!(message.contains(text), "no {text:?} in: {message}");
    }
    let sync = scene.api::<Sync>().get("app").await?.status.context("no status")?;
    assert_eq!(sync.last_applied_revision.as_deref(), Some(first.as_str()));

    // A restart runs no test. A request for tests does.
    faulty.restart().await?;
    let scene = &faulty.scene;
    handled(scene, "app").await?;
    scene.is_not_ready("app", "TestFailed").await?;
    assert_eq!(pod_uid(scene, "smoke").await?, before);
    for annotation in [crds::names::RUN_TESTS, crds::names::RECONCILE_REQUESTED_AT] {
        scene.annotate::<Sync>("app", annotation, "again").await?;
    }
    let again = is_made_again(scene, "smoke", &before).await?;
    pod_says(scene, "smoke", "Failed").await?;
    scene.is_not_ready("app", "TestFailed").await?;

    // The commit that mends the chart is tested, too.
    scene.tree.write("charts/web/values.yaml", "level: warn\n")?;
    let second = scene.publish("mended").await?;
    is_made_again(scene, "smoke", &again).await?;
    pod_says(scene, "smoke", "Succeeded").await?;
    scene.is_applied("app", &second).await.map(drop)
}

/// Lets Kubernetes delete the Job one second after its end.
fn short_lived(job: &str) -> String {
    job.replace("  managedBy", "  ttlSecondsAfterFinished: 1\n  managedBy")
}

#[tokio::test]
async fn a_hook_that_failed_does_not_count_as_complete_when_its_time_to_live_is_over() -> Result<()> {
    let mut faulty = Faulty::without_work("hook-ttl").await?;
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    let migrate = short_lived(&job("migrate", "pre-install,pre-upgrade", 0, ""));
    let backup = short_lived(&job("backup", "pre-delete", 0, ""));
    write_chart(scene, &[("map", MAP), ("migrate", &migrate), ("backup", &backup)])?;
    scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"timeout": "1h", "helm": {}})).await?;
    scene.has(BATCH, "Job", "migrate", json!({})).await?;
    fails(scene, "migrate").await?;
    scene.is_gone(BATCH, "Job", "migrate").await?;
    // Whether the message says why the Job failed, or that Kubernetes deleted it, depends on what the controller read last.
    let has_failed = |_: &Sync, ready: &Condition| ready.reason == "HealthCheckFailed";
    scene.sync_when("app", "the Job that is over", has_failed).await?;
    faulty.restart().await?;
    let scene = &faulty.scene;
    scene.tree.write("charts/web/templates/more.yaml", MAP.replace("-map", "-more"))?;
    let second = scene.publish("another object").await?;
    let is_second =
        |sync: &Sync| sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_ref()) == Some(&second);
    scene.sync_when("app", "the commit", |sync, ready| is_second(sync) && ready.reason == "HealthCheckFailed").await?;
    for map in ["app-map", "app-more"] {
        ensure!(!is_there(scene, "v1", "ConfigMap", map).await?, "{map}");
    }

    scene.request::<Sync>("app").await?;
    scene.has(BATCH, "Job", "migrate", json!({})).await?;
    completes(scene, "migrate").await?;
    scene.is_applied("app", &second).await?;

    delete(scene).await?;
    waits_for(scene, "backup: it has not").await?;
    fails(scene, "backup").await?;
    scene.is_gone(BATCH, "Job", "backup").await?;
    let has_failed = |_: &Sync, ready: &Condition| ready.reason == "DeleteHookFailed";
    scene.sync_when("app", "the hook that is over", has_failed).await?;
    faulty.restart().await?;
    let scene = &faulty.scene;
    handled(scene, "app").await?;
    let skip = format!("kubectl annotate sync -n {} app gitseal.dev/delete-hooks=skip", scene.namespace);
    scene
        .sync_when("app", "the hook that failed, and what to do", |_, ready| {
            let says = ["backup", &skip].iter().all(|text| ready.message.contains(text));
            ready.reason == "DeleteHookFailed" && says && !ready.message.contains("delete it")
        })
        .await?;
    ensure!(is_there(scene, "v1", "ConfigMap", "app-map").await?);
    scene.annotate::<Sync>("app", crds::names::DELETE_HOOKS, crds::names::DELETE_HOOKS_SKIP).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    Ok(())
}

#[tokio::test]
async fn a_hook_for_both_times_of_an_installation_runs_before_and_after_the_other_objects() -> Result<()> {
    let mut faulty = Faulty::without_work("hook-twice").await?;
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    let events = "pre-install,pre-upgrade,post-install,post-upgrade";
    let check = job("check", events, 0, "").replace("annotations: {", "annotations: {tag: '{{ .Values.tag }}', ");
    // It is deleted after each time, and the Job may need it at both.
    let account = with_policy(&hook("v1\nkind: ServiceAccount", "checker", events, -5, ""), "hook-succeeded");
    let seed = job("seed", "post-install,post-upgrade", 5, "");
    write_chart(scene, &[("map", MAP), ("check", &check), ("account", &account), ("seed", &seed)])?;
    let first = scene.publish("a chart").await?;
    let with = |tag: &str| json!({"timeout": "1h", "helm": {"values": {"tag": tag}}});
    scene.sync("app", "./charts/web", with("1")).await?;
    let before = job_uid(scene, "check").await?;
    ensure!(is_there(scene, "v1", "ServiceAccount", "checker").await?);
    ensure!(!is_there(scene, "v1", "ConfigMap", "app-map").await?);
    completes(scene, "check").await?;
    let after = runs_again(scene, &before).await?;
    ensure!(is_there(scene, "v1", "ConfigMap", "app-map").await?);
    ensure!(is_there(scene, "v1", "ServiceAccount", "checker").await?, "the Job needs it");
    ensure!(!is_there(scene, BATCH, "Job", "seed").await?, "its weight is larger");
    faulty.restart().await?;
    let scene = &faulty.scene;
    handled(scene, "app").await?;
    assert_eq!(job_uid(scene, "check").await?, after, "it ran three times");
    completes(scene, "check").await?;
    scene.has(BATCH, "Job", "seed", json!({})).await?;
    completes(scene, "seed").await?;
    scene.is_applied("app", &first).await?;
    scene.is_gone("v1", "ServiceAccount", "checker").await?;
    assert_eq!(job_uid(scene, "check").await?, after, "it stays for its log");

    // Only the hook changes: it runs twice, although nothing is applied in between.
    scene.sync("app", "./charts/web", with("2")).await?;
    let before = runs_again(scene, &after).await?;
    completes(scene, "check").await?;
    let after = runs_again(scene, &before).await?;
    completes(scene, "check").await?;
    scene.is_ready("app").await?;
    assert_eq!(job_uid(scene, "check").await?, after);
    Ok(())
}

/// Waits until there is another Job `check` than the one with this UID, and returns its UID.
async fn runs_again(scene: &Scene, before: &str) -> Result<String> {
    eventually("the hook to run again", || async {
        let now = job_uid(scene, "check").await?;
        ensure!(now != before, "the same Job");
        Ok(now)
    })
    .await
}

/// Ends the time to live of a Job, and waits until Kubernetes has deleted it.
async fn expires(scene: &Scene, job: &str) -> Result<()> {
    let over = json!({"spec": {"ttlSecondsAfterFinished": 0}});
    scene.api::<Job>().patch(job, &PatchParams::default(), &Patch::Merge(over)).await?;
    scene.is_gone(BATCH, "Job", job).await
}

#[tokio::test]
async fn all_hooks_and_tests_that_failed_are_known_with_their_reasons_after_a_restart() -> Result<()> {
    let mut faulty = Faulty::without_work("hook-reasons").await?;
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    // The Jobs fail at a fixed time in the past, so the time to live that outlasts the test is long.
    let lasting = |name: &str, events: &str| {
        job(name, events, 0, "").replace("  managedBy", "  ttlSecondsAfterFinished: 2000000000\n  managedBy")
    };
    let (first, second) = (lasting("first", "pre-install,pre-upgrade"), lasting("second", "pre-install,pre-upgrade"));
    write_chart(scene, &[("map", MAP), ("first", &first), ("second", &second)])?;
    scene.tree.write("charts/tested/Chart.yaml", CHART)?;
    scene.tree.write("charts/tested/templates/smoke.yaml", lasting("smoke", "test"))?;
    scene.publish("two charts").await?;
    scene.sync("app", "./charts/web", json!({"timeout": "1h", "helm": {}})).await?;
    scene.sync("tested", "./charts/tested", json!({"timeout": "1h", "helm": {"test": true}})).await?;
    for name in ["first", "second", "smoke"] {
        scene.has(BATCH, "Job", name, json!({})).await?;
        fails(scene, name).await?;
    }
    let both =
        |_: &Sync, ready: &Condition| ready.reason == "HealthCheckFailed" && ready.message.contains("and 1 more");
    scene.sync_when("app", "both hooks", both).await?;
    scene.is_not_ready("tested", "TestFailed").await?;
    let why = why_failed(scene, "app").await?;
    ensure!(why.len() == 2 && why.iter().all(|why| why.contains("failed too often")), "{why:?}");

    // While no controller runs, Kubernetes deletes them.
    faulty.controller.process().signal(localcluster::Signal::Kill)?;
    for name in ["first", "second", "smoke"] {
        expires(scene, name).await?;
    }
    faulty.start_again().await?;
    let scene = &faulty.scene;
    let says = |ready: &Condition, reason: &str, texts: &[&str]| {
        ready.reason == reason && texts.iter().all(|text| ready.message.contains(text))
    };
    let texts = ["charts/web/templates/first.yaml:1", "failed too often", "its time to live", "and 1 more"];
    scene.sync_when("app", "both hooks", |_, ready| says(ready, "HealthCheckFailed", &texts)).await?;
    let texts = ["charts/tested/templates/smoke.yaml:1", "failed too often", "its time to live"];
    scene.sync_when("tested", "the test", |_, ready| says(ready, "TestFailed", &texts)).await?;
    ensure!(!is_there(scene, "v1", "ConfigMap", "app-map").await?, "the hooks have failed");

    scene.request::<Sync>("app").await?;
    for name in ["first", "second"] {
        scene.has(BATCH, "Job", name, json!({})).await?;
        completes(scene, name).await?;
    }
    scene.is_ready("app").await?;
    assert_eq!(why_failed(scene, "app").await?, [""; 0]);
    Ok(())
}

/// What the inventory of the Sync says about objects that have failed.
async fn why_failed(scene: &Scene, sync: &str) -> Result<Vec<String>> {
    let sync = scene.get("gitseal.dev/v1alpha1", "Sync", sync).await?.context("no Sync")?;
    let entries = sync.pointer("/status/inventory").and_then(Value::as_array);
    Ok(entries.into_iter().flatten().filter_map(|entry| Some(entry.get("e")?.as_str()?.to_owned())).collect())
}

/// A folder with a Repository and its Sync `app`, the account and the rights of this Sync, and a ConfigMap.
fn write_fleet(scene: &Scene) -> Result<()> {
    const RBAC: &str = "rbac.authorization.k8s.io";
    let any = json!([{"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}]);
    let spec = json!({"repository": {"name": "shop"}, "path": "./charts/web", "serviceAccountName": "deployer",
        "timeout": "1h", "helm": {}});
    let objects = json!([
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "deployer"}},
        {"apiVersion": format!("{RBAC}/v1"), "kind": "Role", "metadata": {"name": "deployer"}, "rules": any},
        {"apiVersion": format!("{RBAC}/v1"), "kind": "RoleBinding", "metadata": {"name": "deployer"},
            "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": "deployer"},
            "subjects": [{"kind": "ServiceAccount", "name": "deployer"}]},
        {"apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "shop"},
            "spec": {"url": scene.server.url("repo"), "interval": "1h", "ref": {"branch": "main"}}},
        {"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "app"}, "spec": spec},
    ]);
    let all: Vec<_> = objects.as_array().into_iter().flatten().map(ToString::to_string).collect();
    scene.tree.write("fleet/shop.yaml", all.join("\n---\n"))?;
    scene.tree.write("fleet/stays.yaml", config_map("stays", "1"))
}

/// Checks that a Sync that leaves Git together with its Repository and its rights can still run its hooks for the deletion. The first
/// hook runs for this long.
async fn removed_with_its_repository(name: &str, runs_for: Duration) -> Result<()> {
    let scene = Scene::new(name).await?;
    scene.repository(json!({})).await?;
    let (backup, clean) = (job("backup", "pre-delete", 0, ""), job("clean", "post-delete", 0, ""));
    write_chart(&scene, &[("map", MAP), ("backup", &backup), ("clean", &clean)])?;
    write_fleet(&scene)?;
    let first = scene.publish("a fleet").await?;
    scene.sync("fleet", "./fleet", json!({"timeout": "1h", "pruneLimit": "100%"})).await?;
    scene.is_applied("fleet", &first).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.remove("fleet/shop.yaml")?;
    let second = scene.publish("without the shop").await?;
    let needed = async || -> Result<()> {
        let (gitseal, rbac) = ("gitseal.dev/v1alpha1", "rbac.authorization.k8s.io/v1");
        for (version, kind, name) in [
            (gitseal, "Repository", "shop"),
            ("v1", "ServiceAccount", "deployer"),
            (rbac, "Role", "deployer"),
            (rbac, "RoleBinding", "deployer"),
        ] {
            let object = scene.get(version, kind, name).await?.with_context(|| format!("no {kind}"))?;
            ensure!(object["metadata"]["deletionTimestamp"].is_null(), "{kind} is being deleted");
        }
        Ok(())
    };
    waits_for(&scene, "backup").await?;
    tokio::time::sleep(runs_for).await;
    handled(&scene, "fleet").await?;
    let waits = |_: &Sync, ready: &Condition| ready.reason == "PruneWaitsForSync" && ready.message.contains("/app");
    scene.sync_when("fleet", "the other Sync", waits).await?;
    needed().await?;
    ensure!(is_there(&scene, "v1", "ConfigMap", "app-map").await?);
    completes(&scene, "backup").await?;
    waits_for(&scene, "clean").await?;
    ensure!(!is_there(&scene, "v1", "ConfigMap", "app-map").await?);
    needed().await?;
    completes(&scene, "clean").await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    scene.is_applied("fleet", &second).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Repository", "shop").await?;
    scene.is_gone("v1", "ServiceAccount", "deployer").await?;
    for job in ["backup", "clean"] {
        ensure!(!is_there(&scene, BATCH, "Job", job).await?, "{job}");
    }
    Ok(())
}

#[tokio::test]
async fn a_sync_that_leaves_git_with_its_repository_and_rights_runs_its_hooks() -> Result<()> {
    removed_with_its_repository("hook-fleet", Duration::ZERO).await
}

#[tokio::test]
#[ignore = "takes more than two minutes: for the night"]
async fn a_hook_may_take_longer_than_a_prune_waits_for_other_syncs() -> Result<()> {
    // The time is what is tested: a prune waits two minutes for a Sync without hooks.
    removed_with_its_repository("hook-slow", Duration::from_secs(130)).await
}

#[tokio::test]
async fn a_hook_that_changed_runs_again_even_if_its_deletion_failed_once() -> Result<()> {
    let faulty = Faulty::without_work("hook-delete").await?;
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    let migrate = job("migrate", "pre-install,pre-upgrade", 0, "");
    let migrate = migrate.replace("annotations: {", "annotations: {tag: '{{ .Values.tag }}', ");
    write_chart(scene, &[("map", MAP), ("migrate", &migrate)])?;
    scene.publish("a chart").await?;
    let with = |tag: &str| json!({"timeout": "1h", "helm": {"values": {"tag": tag}}});
    scene.sync("app", "./charts/web", with("1")).await?;
    let first = job_uid(scene, "migrate").await?;
    completes(scene, "migrate").await?;
    scene.is_ready("app").await?;

    let refused = faulty.proxy.inject_times(1, Which::method(Method::DELETE).path("/jobs/migrate"), Fault::Refuse(500));
    scene.sync("app", "./charts/web", with("2")).await?;
    eventually("the hook to run again", || async {
        ensure!(job_uid(scene, "migrate").await? != first);
        Ok(())
    })
    .await?;
    assert_eq!(refused.hits(), 1);
    completes(scene, "migrate").await?;
    scene.is_ready("app").await?;
    Ok(())
}

#[tokio::test]
async fn a_commit_that_failed_takes_no_hook_from_the_deletion() -> Result<()> {
    let scene = Scene::new("hook-kept").await?;
    applied(&scene, &[("backup", &job("backup", "pre-delete", 0, ""))]).await?;
    let (other, wrong) =
        (MAP.replace("-map", "-more"), MAP.replace("-map", "-wrong").replace("value:", "'not a key': a, value:"));
    write_chart(&scene, &[("backup", &other), ("wrong", &wrong)])?;
    scene.publish("it removes the hook and cannot be applied").await?;
    scene.is_not_ready("app", "ApplyFailed").await?;
    delete(&scene).await?;
    waits_for(&scene, "backup").await?;
    completes(&scene, "backup").await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await
}
