//! Another Sync acts, or another commit arrives, while a pass (one reconcile of a Sync) runs. The proxy holds back a
//! request of the pass until this has happened.

use anyhow::{Result, ensure};
use crds::Sync;
use harness::{
    Scene, eventually,
    faults::{Fault, Injected, Which},
};
use serde_json::json;

use super::{mapping, owner, uid};
use crate::{
    faults::Faulty,
    traces::{events, handled},
};

/// The Sync `one` has the ConfigMap `moves` and does nothing while the Sync `gate` is not Ready. The suspended Sync
/// `third` has an account of its own. So a pass that gives `third` an object asks the API server for the rights of this
/// account. Returns the UID of the ConfigMap, too.
async fn with_a_gate(name: &str) -> Result<(Faulty, String)> {
    let faulty = Faulty::without_work(name).await?;
    let scene = &faulty.scene;
    scene.repository(json!({})).await?;
    scene.account("third", json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}])).await?;
    for path in ["one/stays", "one/moves", "two/stays-two", "two/leaves", "gate/gate", "third/own"] {
        let (_, object) = path.split_once('/').unwrap_or_default();
        scene.tree.write(&format!("{path}.yaml"), mapping(object))?;
    }
    let revision = scene.publish("before").await?;
    scene.sync("gate", "./gate", json!({})).await?;
    scene.sync("one", "./one", json!({"dependsOn": [{"name": "gate"}]})).await?;
    scene.sync("two", "./two", json!({})).await?;
    scene.sync("third", "./third", json!({"serviceAccountName": "third", "suspend": true})).await?;
    for sync in ["gate", "one", "two"] {
        scene.is_applied(sync, &revision).await?;
    }
    let before = uid(scene, "ConfigMap", "moves").await?;
    Ok((faulty, before))
}

fn open_gate(scene: &Scene) -> Result<()> {
    scene.tree.write("gate/gate.yaml", mapping("gate") + &mapping("open"))
}

fn close_gate(scene: &Scene) -> Result<()> {
    scene.tree.write("gate/gate.yaml", "kind: [broken\n")
}

fn move_from(scene: &Scene, from: &str, to: &str, object: &str) -> Result<()> {
    scene.tree.remove(&format!("{from}/{object}.yaml"))?;
    scene.tree.write(&format!("{to}/{object}.yaml"), mapping(object))
}

/// Waits until a pass of a Sync has asked the API server for the rights of an account. The proxy holds back this
/// request.
async fn asks(held: &Injected) -> Result<()> {
    eventually("a pass to ask for the rights of an account", || async {
        ensure!(held.hits() > 0);
        Ok(())
    })
    .await
}

/// Moves the ConfigMap `moves` from the Sync `one`, which waits for `gate`, to the Sync `two`. Returns when the pass of
/// `two` has made its plan. The proxy holds back the next request of this pass.
async fn two_is_held(faulty: &Faulty) -> Result<Injected> {
    let scene = &faulty.scene;
    let held = faulty.proxy.inject(Which::all().path("selfsubjectaccessreviews"), Fault::Hold);
    move_from(scene, "one", "two", "moves")?;
    move_from(scene, "two", "third", "leaves")?;
    close_gate(scene)?;
    scene.publish("moved, and the owner waits for something else").await?;
    scene.is_not_ready("one", "DependencyNotReady").await?;
    asks(&held).await?;
    Ok(held)
}

async fn has(scene: &Scene, sync: &str, before: &str) -> Result<()> {
    eventually(&format!("{sync} to have what moved"), || async {
        let owner = owner(scene, "ConfigMap", "moves").await?;
        ensure!(owner == sync, "{owner}");
        Ok(())
    })
    .await?;
    for sync in ["one", "two"] {
        scene.is_ready(sync).await?;
        let told = events(scene, sync, "ObjectOwnedByAnotherSync").await?;
        ensure!(told.is_empty(), "{sync}: {told:?}");
    }
    ensure!(uid(scene, "ConfigMap", "moves").await? == before, "it was made anew");
    Ok(())
}

#[tokio::test]
async fn what_is_released_during_a_pass_is_no_conflict() -> Result<()> {
    let (faulty, before) = with_a_gate("released-meanwhile").await?;
    let scene = &faulty.scene;
    let held = two_is_held(&faulty).await?;
    open_gate(scene)?;
    scene.publish("the gate is open").await?;
    scene.sync_when("one", "it to hand the object over", |_, ready| ready.reason == "HandingOver").await?;
    held.lift();
    has(scene, "two", &before).await
}

#[tokio::test]
async fn what_moves_back_keeps_its_uid_though_the_watch_is_late() -> Result<()> {
    let (faulty, before) = with_a_gate("late-status").await?;
    let scene = &faulty.scene;
    // The controller has seen that `one` has applied its folder as it is now.
    handled(scene, "one").await?;
    let late = faulty.proxy.inject(Which::watches().path("/syncs"), Fault::Hold);
    move_from(scene, "one", "two", "moves")?;
    let there = scene.publish("moved").await?;
    for sync in ["one", "two"] {
        scene.is_applied(sync, &there).await?;
    }
    // Now the folder of `one` has again the content that was applied according to the old status of `one`. The
    // controller has seen no newer status. While the gate is closed, the controller does nothing for `one`.
    move_from(scene, "two", "one", "moves")?;
    close_gate(scene)?;
    scene.publish("moved back").await?;
    let hands_over = |sync: &Sync, ready: &crds::Condition| {
        let _ = sync;
        ready.reason == "HandingOver" && ready.message.contains("/one")
    };
    scene.sync_when("two", "it to hand the object over", hands_over).await?;
    late.lift();
    open_gate(scene)?;
    scene.publish("the gate is open").await?;
    has(scene, "one", &before).await
}
