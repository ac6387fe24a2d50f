//! Reasons in messages: the Pod of an unhealthy workload, a missing service account, the objects that a prune would delete.
//! Also checks what metrics and the log say.

use anyhow::{Context, Result, ensure};
use crds::Repository;
use harness::{Plane, Scene, eventually, git::ServerOptions, kubernetes};
use k8s_openapi::api::core::v1::{Event, Pod};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::{
    cli::gitseal,
    jobs::job,
    objects::{config_map, deployment},
    traces::{event, events},
};

async fn metrics() -> Result<String> {
    let controller = Plane::shared().await?.controller.lock().await;
    controller.as_ref().context("no controller")?.fetch("/metrics").await
}

/// The metric's sample for a Sync or Repository of the scene.
async fn sample(scene: &Scene, metric: &str, name: &str) -> Result<String> {
    let start = format!("{metric}{{namespace=\"{}\",name=\"{name}\"", scene.namespace);
    let all = metrics().await?;
    let found: Vec<_> = all.lines().filter(|line| line.starts_with(&start)).collect();
    ensure!(found.len() == 1, "{found:?}");
    Ok(found[0][start.len()..].to_owned())
}

/// The API server may show the controller the Sync before the Repository, although both were applied together.
#[tokio::test]
async fn a_repository_that_comes_a_moment_later_is_not_reported_as_missing() -> Result<()> {
    let scene = Scene::on(Plane::shared().await?, "moment", ServerOptions::default()).await?;
    scene.tree.write("app/a.yaml", config_map("a", "1"))?;
    let commit = scene.tree.publish("first")?;
    scene.sync("app", "./app", json!({})).await?;
    scene.repository(json!({})).await?;
    scene.is_applied("app", &format!("main@sha1:{commit}")).await?;
    event(&scene, "app", "Applied", &[]).await?;
    ensure!(events(&scene, "app", "RepositoryNotFound").await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn an_unhealthy_deployment_names_its_line_and_what_its_pod_says() -> Result<()> {
    let scene = Scene::new("image-pull").await?;
    scene.tree.write("app/web.yaml", format!("# the web\n{}", deployment("web", 1)))?;
    let revision = scene.publish("an image that is not there").await?;
    scene.sync("app", "./app", json!({"timeout": "2m"})).await?;
    scene.sync_when("app", "it to wait for health", |_, ready| ready.reason == "WaitingForHealth").await?;
    let pods = scene.api::<Pod>();
    let pod = eventually("a Pod", || async {
        let found = pods.list(&ListParams::default().labels("app=web")).await?;
        found.items.first().map(ResourceExt::name_any).context("there is none")
    })
    .await?;
    // This control plane has no kubelet, so the test writes the status.
    let waiting = json!({"reason": "ImagePullBackOff", "message": "Back-off pulling image \"example.invalid/c\""});
    let container = json!({"name": "c", "image": "example.invalid/c", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"waiting": waiting}});
    let status = json!({"status": {"phase": "Pending", "containerStatuses": [container]}});
    pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&status)).await?;
    let parts = ["app/web.yaml:2: Deployment", "container c: ImagePullBackOff: Back-off pulling image", &pod];
    // No reconcile is requested: the controller checks the health again by itself.
    scene
        .sync_when("app", "the Pod's reason", |_, ready| {
            ready.reason == "WaitingForHealth" && parts.iter().all(|part| ready.message.contains(part))
        })
        .await?;
    // For a container that keeps crashing, the message has the exit code, and says where the log is.
    let last = json!({"terminated": {"exitCode": 3, "reason": "Error", "startedAt": null, "finishedAt": null, "message": "confidential"}});
    let crashing = json!({"name": "c", "image": "example.invalid/c", "imageID": "", "ready": false, "restartCount": 4,
        "state": {"waiting": {"reason": "CrashLoopBackOff"}}, "lastState": last});
    let crash = json!({"status": {"phase": "Running", "containerStatuses": [crashing]}});
    pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&crash)).await?;
    let log = format!(
        "CrashLoopBackOff: Error, exit code 3, 4 restarts (its log: kubectl logs -n {} {pod} -c c --previous)",
        scene.namespace
    );
    scene
        .sync_when("app", "how the container ended", |_, ready| {
            ready.message.contains(&log) && !ready.message.contains("confidential")
        })
        .await?;
    pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&status)).await?;
    scene
        .sync_when("app", "why the image is missing", |_, ready| parts.iter().all(|part| ready.message.contains(part)))
        .await?;
    scene.sync("app", "./app", json!({"timeout": "3s"})).await?;
    let message = scene.is_not_ready("app", "HealthCheckTimedOut").await?;
    ensure!(parts.iter().all(|part| message.contains(part)), "{message}");
    eventually("the metrics", || async {
        ensure!(metrics().await?.contains("gitseal_health_failures_total{reason=\"HealthCheckTimedOut\"}"));
        assert_eq!(sample(&scene, "gitseal_sync_ready", "app").await?, ",reason=\"HealthCheckTimedOut\"} 0");
        Ok(())
    })
    .await?;
    // `gitseal history` shows this failure, too, until the object is healthy.
    let told = gitseal(&scene, &["history", "app"]).await?.is(0, &["HealthCheckTimedOut", "1 created"])?;
    ensure!(!told.out.contains("Applied"), "{}", told.out);
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"phase": "Running", "conditions": [ready], "containerStatuses": null}});
    pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&status)).await?;
    scene.is_applied("app", &revision).await?;
    let told = gitseal(&scene, &["history", "app"]).await?.is(0, &["Applied", "1 created"])?;
    ensure!(!told.out.contains("HealthCheckTimedOut"), "{}", told.out);
    Ok(())
}

/// A Job that failed does not change any more, so nothing brings the Sync back to read its Pods later.
#[tokio::test]
async fn a_job_that_fails_tells_at_once_what_its_pod_says() -> Result<()> {
    let scene = Scene::new("job-fails").await?;
    let migrate = job("migrate", "migrate", "", "  backoffLimit: 0\n");
    scene.tree.write("app/migrate.yaml", format!("# the migration\n{migrate}"))?;
    scene.publish("a migration").await?;
    scene.sync("app", "./app", json!({"timeout": "5m"})).await?;
    let pods = scene.api::<Pod>();
    let pod = eventually("a Pod", || async {
        let found = pods.list(&ListParams::default().labels("batch.kubernetes.io/job-name=migrate")).await?;
        found.items.first().map(ResourceExt::name_any).context("there is none")
    })
    .await?;
    // The Pods were read a moment ago, and nothing was wrong with them.
    scene.sync_when("app", "it to wait for the Job", |_, ready| ready.reason == "WaitingForHealth").await?;
    let ended = json!({"exitCode": 3, "reason": "Error", "startedAt": null, "finishedAt": null});
    let container = json!({"name": "m", "image": "example.invalid/migrate", "imageID": "", "ready": false, "restartCount": 0,
        "state": {"terminated": ended}});
    let status = json!({"status": {"phase": "Failed", "containerStatuses": [container]}});
    pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&status)).await?;
    let message = scene.is_not_ready("app", "HealthCheckFailed").await?;
    let log = format!("container m: Error, exit code 3 (its log: kubectl logs -n {} {pod} -c m)", scene.namespace);
    ensure!(message.contains("app/migrate.yaml:2: Job") && message.contains(&log), "{message}");
    Ok(())
}

/// Publishes an event about an object, as a program of the cluster does. `second` is the time of the event.
async fn happens(scene: &Scene, of: &Value, (kind, reason, message): (&str, &str, &str), second: u32) -> Result<()> {
    let (name, uid) = (&of["metadata"]["name"], &of["metadata"]["uid"]);
    let at = format!("2100-01-01T00:00:{second:02}Z");
    let event: Event = serde_json::from_value(json!({
        "metadata": {"generateName": "event-", "namespace": scene.namespace}, "type": kind, "reason": reason, "message": message,
        "involvedObject": {"apiVersion": "v1", "kind": of["kind"], "namespace": scene.namespace, "name": name, "uid": uid},
        "firstTimestamp": at, "lastTimestamp": at, "source": {"component": "test"},
    }))?;
    scene.api::<Event>().create(&PostParams::default(), &event).await?;
    Ok(())
}

/// Waits until the Sync waits for health with all these texts in its message.
async fn waits_with(scene: &Scene, parts: &[&str]) -> Result<()> {
    scene
        .sync_when("app", &format!("{parts:?}"), |_, ready| {
            ready.reason == "WaitingForHealth" && parts.iter().all(|part| ready.message.contains(part))
        })
        .await
        .map(drop)
}

#[tokio::test]
async fn why_a_pod_is_pending_is_told() -> Result<()> {
    let scene = Scene::new("pending-pod").await?;
    scene.tree.write("app/web.yaml", format!("# the web\n{}", deployment("web", 1)))?;
    let revision = scene.publish("a web").await?;
    scene.sync("app", "./app", json!({"timeout": "1h"})).await?;
    let pods = scene.api::<Pod>();
    let pod = eventually("a Pod", || async {
        let found = pods.list(&ListParams::default().labels("app=web")).await?;
        found.items.first().map(ResourceExt::name_any).context("there is none")
    })
    .await?;
    // What the scheduler writes.
    let place = format!("Pod {pod}: Unschedulable: 0/3 nodes are available: 3 Insufficient cpu.");
    let full = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: 3 Insufficient cpu."});
    let says = async |conditions: &[Value]| -> Result<()> {
        let status = json!({"status": {"phase": "Pending", "conditions": conditions}});
        pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    };
    says(&[full]).await?;
    waits_with(&scene, &["app/web.yaml:2: Deployment", &place]).await?;
    let claim = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
        "message": "0/3 nodes are available: pod has unbound immediate PersistentVolumeClaims."});
    says(&[claim]).await?;
    waits_with(&scene, &["pod has unbound immediate PersistentVolumeClaims"]).await?;
    // The Pod has a node, and its status no longer says what it waits for. Only an event of the kubelet does.
    says(&[json!({"type": "PodScheduled", "status": "True"})]).await?;
    let object = scene.get("v1", "Pod", &pod).await?.context("the Pod")?;
    let mount = "MountVolume.SetUp failed for volume \"data\": configmap \"settings\" not found";
    happens(&scene, &object, ("Warning", "FailedMount", mount), 1).await?;
    waits_with(&scene, &[&format!("Pod {pod}: FailedMount: {mount}")]).await?;
    let ready = json!({"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    let status = json!({"status": {"phase": "Running", "conditions": [ready]}});
    pods.patch_status(&pod, &PatchParams::default(), &Patch::Merge(&status)).await?;
    scene.is_applied("app", &revision).await.map(drop)
}

#[tokio::test]
async fn why_a_volume_claim_is_pending_is_told() -> Result<()> {
    let scene = Scene::new("pending-claim").await?;
    let claim = "# the data\napiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {name: data}\nspec:\n  storageClassName: ''\n  \
                 accessModes: [ReadWriteOnce]\n  resources: {requests: {storage: 1Gi}}\n";
    scene.tree.write("app/claim.yaml", claim)?;
    scene.publish("a claim").await?;
    scene.sync("app", "./app", json!({"timeout": "1h"})).await?;
    // The real controller of volumes says this: it is an event that is no warning.
    let place = format!("app/claim.yaml:2: PersistentVolumeClaim {}/data", scene.namespace);
    waits_with(&scene, &[&place, "it is Pending", "FailedBinding: no persistent volumes available for this claim"])
        .await?;
    let object = scene.get("v1", "PersistentVolumeClaim", "data").await?.context("the claim")?;
    // What a provisioner writes.
    for (second, kind, reason, message) in [
        (1, "Warning", "ProvisioningFailed", "failed to provision volume: quota of the project is used up"),
        (2, "Normal", "WaitForFirstConsumer", "waiting for first consumer to be created before binding"),
        (
            3,
            "Normal",
            "ExternalProvisioning",
            "Waiting for a volume to be created by the external provisioner 'ebs.csi.aws.com'",
        ),
    ] {
        happens(&scene, &object, (kind, reason, message), second).await?;
        waits_with(&scene, &[&place, &format!("{reason}: {message}")]).await?;
    }
    Ok(())
}

/// A StatefulSet has no condition for this: only its events say that its Pods are refused.
#[tokio::test]
async fn a_quota_that_leaves_no_room_for_pods_is_told() -> Result<()> {
    let scene = Scene::new("no-room").await?;
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"}, "spec": {"hard": {"pods": "0"}}});
    kubernetes::apply(&scene.client, &scene.namespace, quota).await?;
    let stateful = deployment("db", 1).replace("kind: Deployment", "kind: StatefulSet");
    scene.tree.write("app/db.yaml", format!("# the database\n{stateful}"))?;
    scene.publish("a database").await?;
    scene.sync("app", "./app", json!({"timeout": "2m"})).await?;
    let parts = ["app/db.yaml:2: StatefulSet", "FailedCreate: ", "exceeded quota: none"];
    scene
        .sync_when("app", "the event's reason", |_, ready| {
            ready.reason == "WaitingForHealth" && parts.iter().all(|part| ready.message.contains(part))
        })
        .await?;
    Ok(())
}

#[tokio::test]
async fn who_may_not_list_pods_is_told_what_the_deployment_says() -> Result<()> {
    let scene = Scene::new("no-pods").await?;
    let rules = json!([{"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["*"]}]);
    scene.account("deployer", rules).await?;
    scene.tree.write("app/web.yaml", deployment("web", 1))?;
    scene.publish("first").await?;
    scene.sync("app", "./app", json!({"timeout": "3s", "serviceAccountName": "deployer"})).await?;
    let message = scene.is_not_ready("app", "HealthCheckTimedOut").await?;
    ensure!(message.ends_with("0 of 1 replicas are available"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_service_account_that_is_missing_is_told_as_that() -> Result<()> {
    let scene = Scene::new("no-account").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"serviceAccountName": "deployer"})).await?;
    let message = scene.is_not_ready("app", "ServiceAccountNotFound").await?;
    let namespace = &scene.namespace;
    for part in ["there is no service account deployer", "spec.serviceAccountName", "RoleBinding"] {
        ensure!(message.contains(part), "{message}");
    }
    ensure!(message.contains(&format!("kubectl create serviceaccount -n {namespace} deployer")), "{message}");
    // If the account exists but lacks a right, the message names the right.
    scene.account("deployer", json!([])).await?;
    let message = scene.is_not_ready("app", "Forbidden").await?;
    ensure!(message.contains("cannot patch resource"), "{message}");
    // No reconcile is requested.
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]);
    scene.allow("deployer", namespace, rules).await?;
    scene.is_applied("app", &first).await?;
    Ok(())
}

#[tokio::test]
async fn a_prune_that_waits_names_what_would_go() -> Result<()> {
    let scene = Scene::new("prune-list").await?;
    for number in 0..15 {
        scene.tree.write(&format!("app/{number:02}.yaml"), config_map(&format!("map-{number:02}"), "1"))?;
    }
    let first = scene.publish("fifteen").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    for number in 0..12 {
        scene.tree.remove(&format!("app/{number:02}.yaml"))?;
    }
    scene.publish("three").await?;
    let message = scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
    let named = format!("ConfigMap {}/map-09, and 2 more", scene.namespace);
    ensure!(message.contains(&named) && !message.contains("map-10"), "{message}");
    Ok(())
}

#[tokio::test]
async fn who_waits_for_another_is_no_warning_and_a_failure_is_logged_once() -> Result<()> {
    let scene = Scene::new("waits").await?;
    scene.tree.write("base/settings.yaml", "data: [")?;
    scene.tree.write("app/settings.yaml", config_map("app", "1"))?;
    scene.publish("a broken base").await?;
    scene.sync("base", "./base", json!({"interval": "10s"})).await?;
    scene.is_not_ready("base", "InvalidManifest").await?;
    scene.sync("app", "./app", json!({"dependsOn": [{"name": "base"}]})).await?;
    scene.is_not_ready("app", "DependencyNotReady").await?;
    let events = scene.api::<Event>();
    let waits = eventually("the event", || async {
        let all = events.list(&ListParams::default().fields("reason=DependencyNotReady")).await?;
        all.items.into_iter().next().context("there is none")
    })
    .await?;
    assert_eq!(waits.type_.as_deref(), Some("Normal"));
    // The second try fails in the same way.
    for name in ["base", "app"] {
        let token = scene.request::<crds::Sync>(name).await?;
        scene
            .sync_when(name, "another try", |sync, _| {
                sync.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_ref()) == Some(&token)
            })
            .await?;
    }
    let log = Plane::shared().await?.log().await;
    let of = |name: &str| format!("sync={}/{name}", scene.namespace);
    let warnings = |name: &str| log.lines().filter(|line| line.contains("WARN") && line.contains(&of(name))).count();
    assert_eq!((warnings("base"), warnings("app")), (1, 0), "{log}");

    scene.repository(json!({"ref": {"branch": "nowhere"}})).await?;
    eventually("the Repository to fail", || async {
        let failed = sample(&scene, "gitseal_repository_ready", "repo").await?;
        ensure!(failed.ends_with("} 0"), "{failed}");
        Ok(())
    })
    .await?;
    // What is in the status already is not logged again.
    eventually("the status to say so", || async {
        let status = scene.api::<Repository>().get("repo").await?.status.context("no status")?;
        let ready = crds::find_condition(&status.conditions, "Ready").context("no condition")?;
        ensure!(ready.message.contains("nowhere"), "{ready:?}");
        Ok(())
    })
    .await?;
    let token = scene.request::<Repository>("repo").await?;
    eventually("another fetch", || async {
        let status = scene.api::<Repository>().get("repo").await?.status.context("no status")?;
        ensure!(status.last_handled_reconcile_at.as_ref() == Some(&token), "{status:?}");
        Ok(())
    })
    .await?;
    let sealed = json!({"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "bad"},
        "spec": {"encryptedData": {"password": "AgA"}}});
    kubernetes::apply(&scene.client, &scene.namespace, sealed).await?;
    let failures = format!(
        "sealed_secrets_controller_unseal_errors_total{{reason=\"unseal\",namespace=\"{}\"}} ",
        scene.namespace
    );
    eventually("two tries to unseal it", || async {
        let all = metrics().await?;
        let count = all.lines().find_map(|line| line.strip_prefix(&failures)).context("no failure")?;
        ensure!(count.parse::<u32>()? >= 2, "{count}");
        Ok(())
    })
    .await?;
    let log = Plane::shared().await?.log().await;
    let warnings = |object: &str, cause: &str| {
        let about = format!("{object} reason=");
        log.lines().filter(|line| ["WARN", &about, cause].iter().all(|part| line.contains(part))).count()
    };
    let (repository, sealed) =
        (format!("repository={}/repo", scene.namespace), format!("sealed_secret={}/bad", scene.namespace));
    // There is one warning for each of the two objects. Before the first push, the Repository may also have failed for
    // another reason.
    assert_eq!((warnings(&repository, "nowhere"), warnings(&sealed, "")), (1, 1), "{log}");
    Ok(())
}

#[tokio::test]
async fn all_files_that_are_no_manifests_are_named_at_once() -> Result<()> {
    let scene = Scene::new("several-wrong").await?;
    scene.tree.write("app/a.yaml", "data: [")?;
    scene.tree.write("app/deep/tools.json", r#"{"name": "tools"}"#)?;
    scene.tree.write("app/replicas.yaml", "replicas: 2\n")?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    scene.publish("three that are no manifests").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "InvalidManifest").await?;
    for file in ["app/a.yaml:1", "app/deep/tools.json:1", "app/replicas.yaml:1"] {
        assert!(message.contains(file), "{message}");
    }
    assert!(!message.contains("settings.yaml") && message.contains(".gitsealignore"), "{message}");
    Ok(())
}
