//! A workload with the annotation `gitseal.dev/restart-on-secret-change` is restarted when a value that it uses
//! changes.

use anyhow::{Context, Result, ensure};
use harness::{
    Plane, Scene, eventually,
    faults::{Fault, Which},
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use http::Method;
use k8s_openapi::api::apps::v1::Deployment;
use kube::{
    ResourceExt as _,
    api::{Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::{
    cli::gitseal,
    faults::Faulty,
    handover::Sealer,
    objects::{config_map, deployment, sealed_secret},
    traces::{applies, handled},
};

/// A Deployment that uses the ConfigMap `settings` and the Secret `db`. `asks` is the value of its annotation
/// `gitseal.dev/restart-on-secret-change`.
fn workload(name: &str, asks: Option<&str>) -> String {
    let annotation = asks.map(|asks| format!(", annotations: {{gitseal.dev/restart-on-secret-change: '{asks}'}}"));
    let uses = "image: example.invalid/c, envFrom: [{secretRef: {name: db}}], \
                env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: value}}}]";
    deployment(name, 0)
        .replacen(&format!("{{name: {name}}}"), &format!("{{name: {name}{}}}", annotation.unwrap_or_default()), 1)
        .replace("image: example.invalid/c", uses)
}

/// The generation of a Deployment, and the digest in its Pod template.
async fn stamp(scene: &Scene, name: &str) -> Result<(i64, Option<String>)> {
    let found = scene.api::<Deployment>().get(name).await?;
    let template = found.spec.as_ref().and_then(|spec| spec.template.metadata.as_ref());
    let stamp = template.and_then(|meta| meta.annotations.as_ref()?.get(crds::names::VALUES_DIGEST).cloned());
    Ok((found.metadata.generation.context("a generation")?, stamp))
}

async fn publish(scene: &Scene, message: &str) -> Result<()> {
    let revision = scene.publish(message).await?;
    scene.is_applied("app", &revision).await.map(drop)
}

#[tokio::test]
async fn a_workload_is_restarted_once_for_each_change_of_its_values() -> Result<()> {
    let scene = Scene::new("restarts").await?;
    for (name, asks) in [("asks", Some("true")), ("declines", Some("false")), ("silent", None)] {
        scene.tree.write(&format!("app/{name}.yaml"), workload(name, asks))?;
    }
    scene.tree.write("app/settings.yaml", config_map("settings", "first"))?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &scene.seal("db", b"value-of-restarts-one").await?))?;
    scene.sync("app", "./app", json!({})).await?;
    publish(&scene, "all").await?;
    let (_, first) = stamp(&scene, "asks").await?;
    let first = first.context("no digest in the Pod template")?;
    ensure!(first.len() == 32 && first.bytes().all(|byte| byte.is_ascii_hexdigit()), "{first}");
    ensure!(applies(&scene, "asks").await? == 1, "it is applied once when it is made");
    let others = [stamp(&scene, "declines").await?, stamp(&scene, "silent").await?];

    let mut seen = vec![first];
    scene.tree.write("app/settings.yaml", config_map("settings", "second"))?;
    publish(&scene, "another value in the ConfigMap").await?;
    seen.extend(stamp(&scene, "asks").await?.1);
    scene.tree.write("app/db.yaml", sealed_secret("db", &scene.seal("db", b"value-of-restarts-two").await?))?;
    publish(&scene, "another value in the Secret").await?;
    seen.extend(stamp(&scene, "asks").await?.1);
    ensure!(seen.len() == 3 && seen[0] != seen[1] && seen[1] != seen[2] && seen[0] != seen[2], "{seen:?}");
    ensure!(applies(&scene, "asks").await? == 3, "{} applies", applies(&scene, "asks").await?);

    // A change elsewhere in the folder does not restart the workload, and neither does a pass that compares all
    // objects of the folder with the cluster.
    let before = stamp(&scene, "asks").await?;
    scene.tree.write("app/other.yaml", config_map("other", "1"))?;
    publish(&scene, "something else").await?;
    handled(&scene, "app").await?;
    ensure!(stamp(&scene, "asks").await? == before && applies(&scene, "asks").await? == 3);
    ensure!([stamp(&scene, "declines").await?, stamp(&scene, "silent").await?] == others);
    ensure!(others.iter().all(|(_, stamp)| stamp.is_none()), "{others:?}");
    // `gitseal diff` does not show the digest in the Pod template as a difference.
    gitseal(&scene, &["diff", "app"]).await?.is(0, &[])?;
    Ok(())
}

/// What [`stamp`] says of a Deployment, for a workload of any kind: the digest in its Pod template.
async fn stamp_of(scene: &Scene, kind: &str, name: &str) -> Result<Option<String>> {
    let found = scene.get("apps/v1", kind, name).await?.with_context(|| format!("no {kind} {name}"))?;
    let stamp = &found["spec"]["template"]["metadata"]["annotations"][crds::names::VALUES_DIGEST];
    Ok(stamp.as_str().map(str::to_owned))
}

#[tokio::test]
async fn a_sync_asks_for_all_its_workloads_and_each_of_them_may_decline() -> Result<()> {
    const KINDS: [&str; 3] = ["Deployment", "StatefulSet", "DaemonSet"];
    const ASKS: [(&str, Option<&str>); 4] =
        [("asks", Some("true")), ("declines", Some("false")), ("silent", None), ("unclear", Some("yes"))];
    let scene = Scene::new("restarts-of-all").await?;
    for kind in KINDS {
        for (name, asks) in ASKS {
            let text = workload(name, asks).replace("kind: Deployment", &format!("kind: {kind}"));
            let text = if kind == "DaemonSet" { text.replace("  replicas: 0\n", "") } else { text };
            scene.tree.write(&format!("app/{kind}-{name}.yaml"), text)?;
        }
    }
    let write = async |value: &str| -> Result<()> {
        scene.tree.write("app/settings.yaml", config_map("settings", value))?;
        let sealed = scene.seal("db", format!("value-of-all-{value}").as_bytes()).await?;
        scene.tree.write("app/db.yaml", sealed_secret("db", &sealed))
    };
    write("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    publish(&scene, "all").await?;
    // For each field of the Sync: which workloads have a digest.
    for (field, restarted) in
        [(json!({}), ["asks"].as_slice()), (json!({"restartOnSecretChange": true}), &["asks", "silent", "unclear"])]
    {
        scene.sync("app", "./app", field.clone()).await?;
        scene.is_ready("app").await?;
        let mut before = Vec::new();
        for kind in KINDS {
            for (name, _) in ASKS {
                let stamp = stamp_of(&scene, kind, name).await?;
                ensure!(stamp.is_some() == restarted.contains(&name), "{field}: {kind} {name}: {stamp:?}");
                before.push((kind, name, stamp));
            }
        }
        write(&format!("another with {}", restarted.len())).await?;
        publish(&scene, "other values").await?;
        for (kind, name, before) in before {
            let now = stamp_of(&scene, kind, name).await?;
            ensure!((now != before) == restarted.contains(&name), "{field}: {kind} {name}: {before:?}, then {now:?}");
        }
    }
    // Without the field, only those with the annotation keep a digest.
    scene.sync("app", "./app", json!({"restartOnSecretChange": false})).await?;
    scene.is_ready("app").await?;
    for kind in KINDS {
        for (name, _) in ASKS {
            ensure!(stamp_of(&scene, kind, name).await?.is_some() == (name == "asks"), "{kind} {name}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn who_removes_the_digest_is_put_back_to_the_same_one() -> Result<()> {
    let scene = Scene::new("restart-drift").await?;
    scene.tree.write("app/web.yaml", workload("web", Some("true")))?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &scene.seal("db", b"before-the-drift").await?))?;
    scene.sync("app", "./app", json!({})).await?;
    publish(&scene, "all").await?;
    let (_, before) = stamp(&scene, "web").await?;
    ensure!(before.is_some());
    let removed = json!({"spec": {"template": {"metadata": {"annotations": {crds::names::VALUES_DIGEST: null}}}}});
    scene.api::<Deployment>().patch("web", &PatchParams::default(), &Patch::Merge(&removed)).await?;
    eventually("the digest to be put back", || async {
        let (_, now) = stamp(&scene, "web").await?;
        ensure!(now == before, "{now:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_value_that_is_only_sealed_again_restarts_nothing() -> Result<()> {
    let plane = Plane::start(ClusterOptions { audit: true, ..ClusterOptions::default() }).await?;
    let scene = Scene::on(&plane, "resealed", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    let sealer = {
        let controller = plane.controller.lock().await;
        Sealer::new(scene.client.clone(), &scene.namespace, controller.as_ref().context("a controller")?).await?
    };
    let seal = |value: &str| anyhow::Ok(sealed_secret("db", &sealer.seal("db", value)?));
    scene.tree.write("app/web.yaml", workload("web", Some("true")))?;
    scene.tree.write("app/db.yaml", seal("value-sealed-again")?)?;
    scene.sync("app", "./app", json!({})).await?;
    publish(&scene, "all").await?;
    let before = stamp(&scene, "web").await?;
    for again in ["once", "twice"] {
        scene.tree.write("app/db.yaml", seal("value-sealed-again")?)?;
        publish(&scene, again).await?;
        ensure!(stamp(&scene, "web").await? == before, "sealed again {again}");
    }
    // The status says what the Secret was made from.
    eventually("the status", || async {
        let sealed = scene.get("bitnami.com/v1alpha1", "SealedSecret", "db").await?.context("db")?;
        let is_told = sealed["status"]["observedGeneration"] == sealed["metadata"]["generation"];
        ensure!(is_told && sealed["status"]["madeFrom"].is_string(), "{sealed}");
        Ok(())
    })
    .await?;
    // A new process knows nothing of what the old one had in memory. A change of another file makes the new process
    // plan all objects of the folder again.
    plane.controller.lock().await.take().context("a controller")?.kill()?;
    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    *plane.controller.lock().await = Some(controller);
    scene.tree.write("app/other.yaml", config_map("other", "1"))?;
    publish(&scene, "something else").await?;
    ensure!(stamp(&scene, "web").await? == before, "after a restart");
    // Now the same value is sealed again, and the workload itself is changed, too.
    scene.tree.write("app/db.yaml", seal("value-sealed-again")?)?;
    scene
        .tree
        .write("app/web.yaml", workload("web", Some("true")).replace("example.invalid/c", "example.invalid/d"))?;
    publish(&scene, "another image").await?;
    let (generation, digest) = stamp(&scene, "web").await?;
    ensure!(generation == before.0 + 1 && digest == before.1, "{generation} {digest:?} {before:?}");
    // A Secret that is put back has the same value, so the workload is not restarted.
    let by_hand = json!({"stringData": {"password": "value-by-hand"}});
    let secrets = scene.api::<k8s_openapi::api::core::v1::Secret>();
    let changed = secrets.patch("db", &PatchParams::default(), &Patch::Merge(&by_hand)).await?;
    eventually("the Secret to be put back", || async {
        let now = secrets.get("db").await?;
        ensure!(now.data != changed.data && now.resource_version() != changed.resource_version());
        Ok(())
    })
    .await?;
    handled(&scene, "app").await?;
    ensure!(stamp(&scene, "web").await? == (generation, digest), "after drift");
    // Another value still restarts the workload.
    scene.tree.write("app/db.yaml", seal("value-quite-another")?)?;
    publish(&scene, "another value").await?;
    ensure!(stamp(&scene, "web").await?.1 != before.1);
    Ok(())
}

#[tokio::test]
async fn a_crash_after_the_secret_was_written_forgets_no_restart() -> Result<()> {
    let mut faulty = Faulty::start("restart-crash").await?;
    let sealer = Sealer::new(faulty.scene.client.clone(), &faulty.scene.namespace, &faulty.controller).await?;
    faulty.scene.tree.write("app/web.yaml", workload("web", Some("true")))?;
    faulty.scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "value-before-crash")?))?;
    publish(&faulty.scene, "all").await?;
    let (_, before) = stamp(&faulty.scene, "web").await?;
    let written =
        async |scene: &Scene| anyhow::Ok(scene.get("v1", "Secret", "db").await?.context("db")?["data"].clone());
    let old = written(&faulty.scene).await?;

    let stalled = faulty.proxy.inject(Which::method(Method::PATCH).path("/deployments/web"), Fault::Stall);
    faulty.scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "value-after-crash")?))?;
    let revision = faulty.scene.publish("another value").await?;
    eventually("the Deployment to be written after the Secret", || async {
        ensure!(stalled.hits() > 0 && written(&faulty.scene).await? != old);
        Ok(())
    })
    .await?;
    faulty.restart().await?;
    stalled.lift();
    faulty.scene.is_applied("app", &revision).await?;
    let (_, after) = stamp(&faulty.scene, "web").await?;
    ensure!(after.is_some() && after != before, "its Pods have the old value");
    Ok(())
}
