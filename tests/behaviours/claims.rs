//! An object belongs to one Sync: which Sync gets it, which is refused, and what happens when the owner gives it up.

use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{ConditionStatus, Sync, find_condition};
use harness::{Scene, eventually, kubernetes};
use kube::api::DeleteParams;
use serde_json::{Value, json};

use crate::{
    objects::{config_map, sealed_secret},
    traces::{event, handled, inventory, uid},
};

/// The Sync `first` applies `shared` and another object. The folder of the Sync `second` contains `shared`, too.
async fn contested(name: &str, first: Value) -> Result<Scene> {
    let scene = Scene::new(name).await?;
    scene.tree.write("first/all.yaml", config_map("shared", "first"))?;
    scene.tree.write("first/other.yaml", config_map("other", "first"))?;
    scene.tree.write("second/own.yaml", config_map("own", "second"))?;
    scene.tree.write("second/shared.yaml", format!("# from the second\n---\n{}", config_map("shared", "second")))?;
    let revision = scene.publish("contested").await?;
    scene.sync("first", "./first", first).await?;
    scene.is_applied("first", &revision).await?;
    scene.sync("second", "./second", json!({})).await?;
    refused(&scene).await?;
    Ok(scene)
}

/// Checks that `second` may not apply `shared`, and that its other object is applied.
async fn refused(scene: &Scene) -> Result<()> {
    let message = scene.is_not_ready("second", "ObjectOwnedByAnotherSync").await?;
    let owner = format!("belongs to Sync {}/first", scene.namespace);
    for text in ["second/shared.yaml:3", "ConfigMap", "shared", &owner] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    scene.has("v1", "ConfigMap", "own", json!({"data": {"value": "second"}})).await?;
    has_shared(scene, "first").await?;
    event(scene, "second", "ObjectOwnedByAnotherSync", &["second/shared.yaml:3", &owner]).await?;
    let second = scene.api::<Sync>().get("second").await?;
    assert_eq!(inventory(second).len(), 1);
    Ok(())
}

/// Waits until `shared` is as in the folder of `sync`.
async fn has_shared(scene: &Scene, sync: &str) -> Result<Value> {
    let labels = json!({"gitseal.dev/sync-name": sync, "gitseal.dev/sync-namespace": scene.namespace});
    let wanted = json!({"metadata": {"labels": labels}, "data": {"value": sync}});
    scene.has("v1", "ConfigMap", "shared", wanted).await
}

async fn second_has_it(scene: &Scene) -> Result<()> {
    let second = scene.is_ready("second").await?;
    assert_eq!(inventory(second).len(), 2);
    has_shared(scene, "second").await?;
    let own = json!({"data": {"value": "second"}});
    scene.has("v1", "ConfigMap", "own", own).await.map(|_| ())
}

#[tokio::test]
async fn what_leaves_the_first_folder_goes_to_the_second() -> Result<()> {
    let scene = contested("leaves", json!({})).await?;
    scene.tree.remove("first/all.yaml")?;
    let revision = scene.publish("let go").await?;
    scene.is_applied("first", &revision).await?;
    second_has_it(&scene).await
}

#[tokio::test]
async fn what_a_deleted_sync_had_goes_to_the_second() -> Result<()> {
    let scene = contested("takeover", json!({})).await?;
    scene.api::<Sync>().delete("first", &DeleteParams::default()).await?;
    second_has_it(&scene).await?;
    scene.is_gone("v1", "ConfigMap", "other").await
}

#[tokio::test]
async fn what_a_deleted_sync_leaves_is_taken_over_as_it_is() -> Result<()> {
    let scene = contested("handover", json!({"prune": false})).await?;
    let before = uid(&scene, "ConfigMap", "shared").await?;
    scene.api::<Sync>().delete("first", &DeleteParams::default()).await?;
    second_has_it(&scene).await?;
    assert_eq!(uid(&scene, "ConfigMap", "shared").await?, before);
    scene.has("v1", "ConfigMap", "other", json!({})).await?;
    Ok(())
}

/// Applies the SealedSecret `db` as a person would with kubectl.
async fn put_by_hand(scene: &Scene, value: &str) -> Result<()> {
    let object = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "db"},
        "spec": {"encryptedData": {"password": scene.seal("db", value.as_bytes()).await?}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, object).await.map(|_| ())
}

async fn has_password(scene: &Scene, value: &str) -> Result<()> {
    let wanted = json!({"data": {"password": STANDARD.encode(value)}});
    scene.has("v1", "Secret", "db", wanted).await.map(|_| ())
}

#[tokio::test]
async fn a_sealed_secret_that_a_deleted_sync_leaves_is_unsealed_by_itself() -> Result<()> {
    let scene = Scene::new("left-sealed").await?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &scene.seal("db", b"of Git").await?))?;
    let revision = scene.publish("a SealedSecret").await?;
    scene.sync("app", "./app", json!({"prune": false})).await?;
    scene.is_applied("app", &revision).await?;
    has_password(&scene, "of Git").await?;
    // While the SealedSecret belongs to the Sync, only the Sync unseals changes that people make to it. A suspended Sync
    // does nothing.
    scene.sync("app", "./app", json!({"prune": false, "suspend": true})).await?;
    handled(&scene, "app").await?;
    put_by_hand(&scene, "by hand").await?;
    scene.api::<Sync>().delete("app", &DeleteParams::default()).await?;
    has_password(&scene, "by hand").await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    // Later changes reach the Secret, too.
    put_by_hand(&scene, "by hand again").await?;
    has_password(&scene, "by hand again").await
}

#[tokio::test]
async fn of_two_at_the_same_moment_exactly_one_gets_it() -> Result<()> {
    let scene = Scene::new("race").await?;
    let syncs: Vec<String> = (0..4).map(|index| format!("sync-{index}")).collect();
    for name in &syncs {
        let path = format!("{name}/all.yaml");
        let file = format!("{}---\n{}", config_map(&format!("a-{name}"), name), config_map("shared", name));
        scene.tree.write(&path, file)?;
    }
    // All Syncs wait for the first fetch, and then begin at the same time.
    for name in &syncs {
        scene.sync(name, name, json!({})).await?;
    }
    scene.publish("all at once").await?;
    let answers = eventually("every Sync to have an answer", || async {
        let mut answers = Vec::new();
        for name in &syncs {
            let status = scene.api::<Sync>().get(name).await?.status;
            let conditions = status.map(|status| status.conditions).unwrap_or_default();
            let ready = find_condition(&conditions, "Ready").context("no answer yet")?;
            match (ready.status, ready.reason.as_str()) {
                (ConditionStatus::True, _) => answers.push((name, true)),
                (ConditionStatus::False, "ObjectOwnedByAnotherSync") => answers.push((name, false)),
                _ => bail!("{name}: {ready:?}"),
            }
        }
        Ok(answers)
    })
    .await?;
    let winners: Vec<_> = answers.iter().filter(|(_, won)| *won).collect();
    assert_eq!(winners.len(), 1, "{answers:?}");
    has_shared(&scene, winners[0].0).await?;
    for (name, _) in &answers {
        scene.has("v1", "ConfigMap", &format!("a-{name}"), json!({})).await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_was_made_by_hand_is_taken_over() -> Result<()> {
    let scene = Scene::new("by-hand").await?;
    let by_hand = json!({
        "apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "shared", "labels": {"team": "a"}}, "data": {"value": "by hand", "more": "goes"},
    });
    kubernetes::apply(&scene.client, &scene.namespace, by_hand).await?;
    let before = uid(&scene, "ConfigMap", "shared").await?;
    scene.tree.write("app/all.yaml", config_map("shared", "app"))?;
    let first = scene.publish("taken over").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let object = has_shared(&scene, "app").await?;
    assert_eq!(uid(&scene, "ConfigMap", "shared").await?, before);
    // Fields that were written by hand are removed, because the object is now as in Git.
    assert_eq!(object["data"].get("more"), None);
    assert_eq!(object["metadata"]["labels"].get("team"), None);

    // From now on, the object belongs to the Sync, which also prunes it.
    scene.tree.write("app/other.yaml", config_map("other", "app"))?;
    scene.tree.remove("app/all.yaml")?;
    let second = scene.publish("gone").await?;
    scene.is_applied("app", &second).await?;
    scene.is_gone("v1", "ConfigMap", "shared").await
}
