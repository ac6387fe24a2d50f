//! Kills the controller with SIGKILL at the beginning of every stage. No object is missing in the inventories, none is
//! deleted by mistake, and after the next start everything is as in Git.

use std::collections::BTreeSet;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{Sync, names::FIRST_INVENTORY};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{handover::Sealer, objects::sealed_secret};

const STAGES: [&str; 11] =
    ["source", "render", "guard", "plan", "allow", "widen", "apply", "unseal", "prune", "health", "report"];

fn map(name: &str, value: &str) -> String {
    format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndata: {{value: '{value}'}}\n")
}

fn workload(name: &str) -> String {
    format!(
        "---\napiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: 0\n  \
         selector: {{matchLabels: {{a: {name}}}}}\n  template:\n    metadata: {{labels: {{a: {name}}}}}\n    \
         spec: {{containers: [{{name: c, image: example/c}}]}}\n"
    )
}

/// The plaintext of a sealed value. It is easy to search for.
fn sealed_value(version: &str) -> String {
    format!("crash-value-{version}")
}

fn sealed(sealer: &Sealer, name: &str, version: &str) -> Result<String> {
    Ok(format!("---\n{}", sealed_secret(name, &sealer.seal(name, &sealed_value(version))?)))
}

/// The objects of the Sync `prefix` before the interrupted commit; [`after`] gives those after the commit.
fn before(sealer: &Sealer, prefix: &str) -> Result<String> {
    Ok(map(&format!("{prefix}-goes"), "1")
        + &map(&format!("{prefix}-changes"), "1")
        + &sealed(sealer, &format!("{prefix}-secret"), "1")?
        + &workload(&format!("{prefix}-old")))
}

fn after(sealer: &Sealer, prefix: &str) -> Result<String> {
    Ok(map(&format!("{prefix}-changes"), "2")
        + &map(&format!("{prefix}-comes"), "2")
        + &sealed(sealer, &format!("{prefix}-secret"), "2")?
        + &workload(&format!("{prefix}-new")))
}

fn start(plane: &Plane, crash: Option<(&str, String)>) -> Result<Controller> {
    let (kubeconfig, folder) = (plane.cluster.kubeconfig(), plane.folder());
    let mut options = ControllerOptions::new(kubeconfig, &folder);
    if let Some((stage, sync)) = crash {
        options.program = "crashing-controller";
        options.environment = vec![("CRASH_AT".into(), stage.into()), ("CRASH_SYNC".into(), sync)];
    }
    Controller::start(&options)
}

/// The ids in a Sync's inventory. In the Sync's first pass, the inventory is in an annotation, and later in the status.
fn inventory(sync: Sync) -> Result<BTreeSet<String>> {
    let mut entries = sync.status.clone().unwrap_or_default().inventory;
    if let Some(text) = sync.annotations().get(FIRST_INVENTORY) {
        let (_, json) = text.split_once('.').context("no digest")?;
        let first: Value = serde_json::from_str(json)?;
        entries.append(&mut serde_json::from_value(first["inventory"].clone())?);
    }
    Ok(entries.into_iter().map(|entry| entry.id).collect())
}

/// Checks that every object with the labels of a Sync is in that Sync's inventory.
pub(crate) async fn nothing_is_orphaned(scene: &Scene) -> Result<()> {
    let mut known = BTreeSet::new();
    for sync in scene.api::<Sync>().list(&ListParams::default()).await? {
        known.extend(inventory(sync)?);
    }
    let labelled = ListParams::default().labels(crds::names::SYNC_NAME);
    let namespace = &scene.namespace;
    for object in scene.api::<ConfigMap>().list(&labelled).await? {
        let id = format!("{namespace}_{}__ConfigMap", object.name_any());
        ensure!(known.contains(&id), "{id} is in no inventory: {known:?}");
    }
    for object in scene.api::<Secret>().list(&labelled).await? {
        let id = format!("{namespace}_{}__Secret", object.name_any());
        ensure!(known.contains(&id), "{id} is in no inventory: {known:?}");
    }
    for object in scene.api::<Deployment>().list(&labelled).await? {
        let id = format!("{namespace}_{}_apps_Deployment", object.name_any());
        ensure!(known.contains(&id), "{id} is in no inventory: {known:?}");
    }
    Ok(())
}

async fn names(scene: &Scene) -> Result<BTreeSet<String>> {
    let mut names = BTreeSet::new();
    for object in scene.api::<ConfigMap>().list(&ListParams::default()).await? {
        names.insert(object.name_any());
    }
    for object in scene.api::<Deployment>().list(&ListParams::default()).await? {
        names.insert(object.name_any());
    }
    names.remove("kube-root-ca.crt");
    Ok(names)
}

#[tokio::test]
async fn a_crash_before_any_stage_orphans_nothing_and_deletes_nothing_wrongly() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "crash", ServerOptions::default()).await?;
    scene.repository(json!({"interval": "1s"})).await?;
    kubernetes::apply(
        &scene.client,
        &scene.namespace,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "not-ours"}, "data": {"a": "b"}}),
    )
    .await?;
    let mut controller = start(&plane, None)?;
    controller.ready().await?;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &controller).await?;
    for stage in STAGES {
        scene.tree.write(&format!("{stage}/all.yaml"), before(&sealer, stage)?)?;
        scene.tree.write(&format!("{stage}-first/all.yaml"), after(&sealer, &format!("{stage}-first"))?)?;
    }
    scene.publish("before").await?;
    for stage in STAGES {
        scene.sync(stage, stage, json!({})).await?;
    }
    for stage in STAGES {
        scene.is_ready(stage).await?;
    }
    controller.kill()?;

    for stage in STAGES {
        // This commit creates, changes and prunes objects.
        scene.tree.write(&format!("{stage}/all.yaml"), after(&sealer, stage)?)?;
        scene.tree.publish(&format!("the change that is interrupted at {stage}"))?;
        crash(&plane, &scene, stage, stage).await?;
        // Now interrupt the first pass of a Sync.
        let first = format!("{stage}-first");
        scene.sync(&first, &first, json!({})).await?;
        crash(&plane, &scene, stage, &first).await?;
    }

    let mut controller = start(&plane, None)?;
    controller.ready().await?;
    let mut expected = BTreeSet::from(["not-ours".to_owned()]);
    for stage in STAGES {
        for sync in [stage.to_owned(), format!("{stage}-first")] {
            expected.extend(["changes", "comes", "new"].map(|end| format!("{sync}-{end}")));
        }
    }
    eventually("every Sync to have exactly what Git says", || async {
        let names = names(&scene).await?;
        if names == expected {
            Ok(())
        } else {
            bail!("too many: {:?}, missing: {:?}", &names - &expected, &expected - &names)
        }
    })
    .await?;
    for stage in STAGES {
        for sync in [stage.to_owned(), format!("{stage}-first")] {
            let sync = scene.is_ready(&sync).await?;
            assert_eq!(sync.status.unwrap().inventory.len(), 5);
        }
        scene.has("v1", "ConfigMap", &format!("{stage}-changes"), json!({"data": {"value": "2"}})).await?;
        scene
            .has(
                "v1",
                "Secret",
                &format!("{stage}-secret"),
                json!({"data": {"password": STANDARD.encode(sealed_value("2"))}}),
            )
            .await?;
    }
    nothing_is_orphaned(&scene).await?;
    // The objects of the deleted Sync are pruned. The others stay.
    Api::<Sync>::namespaced(scene.client.clone(), &scene.namespace).delete("apply", &DeleteParams::default()).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "apply").await?;
    let left = names(&scene).await?;
    assert_eq!(left.len(), expected.len() - 3, "{left:?}");
    Ok(())
}

/// The stages that take part in handing over an object. `report` is the first stage after the old Sync has released the
/// object.
const WRITING: [&str; 7] = ["allow", "widen", "apply", "unseal", "prune", "hand-over", "report"];

/// The stages that run when the controller heals drift after a start.
const HEALING: [&str; 7] = ["source", "render", "plan", "allow", "apply", "unseal", "report"];

#[tokio::test]
async fn a_crash_during_a_hand_over_or_a_heal_loses_nothing() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "crash-moves", ServerOptions::default()).await?;
    let stays = |name: &str| map(&format!("{name}-stays"), "1") + &map(&format!("{name}-stays-too"), "1");
    let syncs = || WRITING.iter().flat_map(|stage| [format!("{stage}-from"), format!("{stage}-to")]);
    scene.repository(json!({"interval": "1s"})).await?;
    let mut controller = start(&plane, None)?;
    controller.ready().await?;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &controller).await?;
    let mut moving = Vec::new();
    for stage in WRITING {
        moving.push(map(&format!("{stage}-moves"), "1") + &sealed(&sealer, &format!("{stage}-sealed"), "1")?);
    }
    for (stage, moving) in WRITING.into_iter().zip(&moving) {
        scene.tree.write(&format!("{stage}-from/all.yaml"), stays(&format!("{stage}-from")) + moving)?;
        scene.tree.write(&format!("{stage}-to/all.yaml"), stays(&format!("{stage}-to")))?;
    }
    scene.publish("before").await?;
    for sync in syncs() {
        scene.sync(&sync, &sync, json!({})).await?;
    }
    for sync in syncs() {
        scene.is_ready(&sync).await?;
    }
    let uid = async |kind: &str, name: String| -> Result<String> {
        let object = scene.get("v1", kind, &name).await?.with_context(|| format!("{kind} {name} is gone"))?;
        Ok(object["metadata"]["uid"].as_str().unwrap_or_default().to_owned())
    };
    let mut before = Vec::new();
    for stage in WRITING {
        before
            .push((uid("ConfigMap", format!("{stage}-moves")).await?, uid("Secret", format!("{stage}-sealed")).await?));
    }
    controller.kill()?;
    for (stage, moving) in WRITING.into_iter().zip(&moving) {
        scene.tree.write(&format!("{stage}-from/all.yaml"), stays(&format!("{stage}-from")))?;
        scene.tree.write(&format!("{stage}-to/all.yaml"), stays(&format!("{stage}-to")) + moving)?;
        scene.tree.publish(&format!("the move that is interrupted at {stage}"))?;
        // At the stages from `allow` to `unseal`, the controller crashes in a pass of the new Sync, and from `prune` on
        // in a pass of the old Sync.
        let lets_go = ["prune", "hand-over", "report"].contains(&stage);
        let sync = if lets_go { format!("{stage}-from") } else { format!("{stage}-to") };
        crash(&plane, &scene, stage, &sync).await?;
    }
    let mut controller = start(&plane, None)?;
    controller.ready().await?;
    for ((moved, secret), stage) in before.iter().zip(WRITING) {
        for sync in [format!("{stage}-from"), format!("{stage}-to")] {
            scene.is_ready(&sync).await?;
        }
        eventually(&format!("what moved at {stage} to be the other Sync's"), || async {
            let object = scene.get("v1", "ConfigMap", &format!("{stage}-moves")).await?.context("it is gone")?;
            ensure!(object["metadata"]["labels"][crds::names::SYNC_NAME] == format!("{stage}-to"), "{object}");
            ensure!(object["metadata"]["uid"] == *moved, "it was made anew");
            Ok(())
        })
        .await?;
        assert_eq!(uid("Secret", format!("{stage}-sealed")).await?, *secret, "{stage}");
    }
    nothing_is_orphaned(&scene).await?;
    controller.kill()?;

    // Somebody deletes an object while no controller runs. Then the heal of this object is interrupted.
    for (stage, sync) in HEALING.into_iter().zip(WRITING) {
        scene.api::<Secret>().delete(&format!("{sync}-sealed"), &DeleteParams::default()).await?;
        crash(&plane, &scene, stage, &format!("{sync}-to")).await?;
    }
    let mut controller = start(&plane, None)?;
    controller.ready().await?;
    for sync in WRITING {
        scene
            .has(
                "v1",
                "Secret",
                &format!("{sync}-sealed"),
                json!({"data": {"password": STANDARD.encode(sealed_value("1"))}}),
            )
            .await?;
        scene.is_ready(&format!("{sync}-to")).await?;
    }
    nothing_is_orphaned(&scene).await
}

/// Syncs whose first pass is interrupted. Each is named after what happens to it after the interruption.
const SYNCS: [&str; 3] = ["changes", "is-deleted", "is-forged"];

#[tokio::test]
async fn what_an_interrupted_first_pass_made_is_pruned_all_the_same() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "crash-first", ServerOptions::default()).await?;
    scene.repository(json!({"interval": "1s"})).await?;
    for name in SYNCS {
        scene.tree.write(
            &format!("{name}/all.yaml"),
            map(&format!("{name}-goes"), "1") + &map(&format!("{name}-stays"), "1"),
        )?;
    }
    scene.tree.publish("first")?;
    for name in SYNCS {
        scene.sync(name, name, json!({})).await?;
        // All objects are applied, but the status does not show this yet.
        crash(&plane, &scene, "prune", name).await?;
        let sync = scene.api::<Sync>().get(name).await?;
        let status = sync.status.clone().unwrap_or_default();
        ensure!(status.inventory.is_empty() && status.last_attempted_revision.is_none(), "{status:#?}");
        ensure!(sync.finalizers() == [crds::names::FINALIZER]);
        ensure!(inventory(sync)?.len() == 2);
        ensure!(scene.get("v1", "ConfigMap", &format!("{name}-goes")).await?.is_some());
    }
    let syncs = scene.api::<Sync>();
    for name in SYNCS {
        scene.tree.write(&format!("{name}/all.yaml"), map(&format!("{name}-stays"), "1"))?;
    }
    scene.tree.publish("one object less")?;
    syncs.delete("is-deleted", &DeleteParams::default()).await?;
    // Replaces an object's name in the inventory by that of another object. Then the inventory's digest no longer fits.
    kubernetes::apply(
        &scene.client,
        &scene.namespace,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "not-ours"}, "data": {"a": "b"}}),
    )
    .await?;
    let text = syncs.get("is-forged").await?.annotations()[FIRST_INVENTORY].replace("is-forged-goes", "not-ours");
    let forged = json!({"metadata": {"annotations": {FIRST_INVENTORY: text}}});
    syncs.patch("is-forged", &PatchParams::default(), &Patch::Merge(&forged)).await?;

    let mut controller = start(&plane, None)?;
    controller.ready().await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "is-deleted").await?;
    for name in ["is-deleted-goes", "is-deleted-stays", "changes-goes"] {
        scene.is_gone("v1", "ConfigMap", name).await?;
    }
    for name in ["changes", "is-forged"] {
        scene.is_ready(name).await?;
        eventually("the annotation to go, which is of no use any more", || async {
            let sync = syncs.get(name).await?;
            ensure!(!sync.annotations().contains_key(FIRST_INVENTORY));
            ensure!(inventory(sync)? == BTreeSet::from([format!("{}_{name}-stays__ConfigMap", scene.namespace)]));
            Ok(())
        })
        .await?;
    }
    ensure!(scene.get("v1", "ConfigMap", "not-ours").await?.is_some(), "nobody may make an inventory");
    Ok(())
}

/// Runs a controller that kills itself when `stage` begins for the Sync.
async fn crash(plane: &Plane, scene: &Scene, stage: &str, sync: &str) -> Result<()> {
    let mut controller = start(plane, Some((stage, format!("{}/{sync}", scene.namespace))))?;
    let code = eventually(&format!("the crash at {stage} of {sync}"), || {
        let code = controller.process().try_wait();
        let log = controller.log();
        async move {
            match code? {
                Some(code) => Ok(code),
                None => bail!("it still runs:\n{log}"),
            }
        }
    })
    .await?;
    ensure!(code == 128 + 9, "it ended with {code}, not by SIGKILL:\n{}", controller.log());
    nothing_is_orphaned(scene).await
}
