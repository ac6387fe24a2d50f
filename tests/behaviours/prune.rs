//! Pruning: what is needed before an object is deleted, and what never leads to a deletion.

use anyhow::{Context, Result};
use crds::Sync;
use harness::{Plane, Scene, programs};
use serde_json::json;

use crate::{
    cli::gitseal,
    objects::{apply_cluster_wide, config_map, sealed_secret},
    traces::{applies, event, handled, inventory, labelled},
};

const NAMES: [&str; 4] = ["one", "two", "three", "four"];

/// Makes a scene whose Sync `app` has applied four ConfigMaps, each in its own file. Also returns the revision.
async fn scene_of_four(name: &str) -> Result<(Scene, String)> {
    let scene = Scene::new(name).await?;
    for name in NAMES {
        let path = format!("app/{name}.yaml");
        scene.tree.write(&path, config_map(name, "first"))?;
    }
    let revision = scene.publish("four").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    Ok((scene, revision))
}

async fn all_four_are_there(scene: &Scene) -> Result<()> {
    let found = labelled(scene, "app").await?;
    for name in NAMES {
        let id = format!("{}_{name}__ConfigMap", scene.namespace);
        assert!(found.contains(&id), "{id} was pruned: {found:?}");
    }
    Ok(())
}

/// Runs the command that the message shows.
async fn confirm(message: &str) -> Result<()> {
    let (_, command) = message.split_once("confirm with: gitseal ").context(message.to_owned())?;
    let (command, _) = command.split_once(" (").context(message.to_owned())?;
    let mut gitseal = programs::gitseal(Plane::shared().await?.cluster.kubeconfig())?;
    gitseal.args(command.split(' '));
    tokio::task::spawn_blocking(move || programs::run(&mut gitseal)).await??;
    Ok(())
}

#[tokio::test]
async fn a_large_prune_waits_until_this_very_revision_is_confirmed() -> Result<()> {
    let (scene, first) = scene_of_four("large").await?;
    for name in ["one", "two", "three"] {
        scene.tree.remove(&format!("app/{name}.yaml"))?;
    }
    scene.tree.write("app/four.yaml", config_map("four", "changed"))?;
    scene.tree.write("app/five.yaml", config_map("five", "first"))?;
    let second = scene.publish("three of four go").await?;
    let message = scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
    for text in ["removes 3 of 4 objects", "50%", "nothing was pruned", &second] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    all_four_are_there(&scene).await?;
    // Only the prune waits. The other changes are applied.
    let changed = json!({"data": {"value": "changed"}});
    scene.has("v1", "ConfigMap", "four", changed).await?;
    scene.has("v1", "ConfigMap", "five", json!({})).await?;

    for wrong in [first.as_str(), &second, "true", "main", ""] {
        scene.annotate::<Sync>("app", crds::names::CONFIRM_PRUNE, wrong).await?;
        handled(&scene, "app").await?;
        scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
        all_four_are_there(&scene).await?;
    }

    let confirm_first = ["sync", "app", "--confirm-prune", &first];
    gitseal(&scene, &confirm_first).await?.is(1, &[&format!("waits for a confirmation of {second}")])?;
    confirm(&message).await?;
    let sync = scene.is_applied("app", &second).await?;
    let confirmed = sync.metadata.annotations.as_ref().and_then(|all| all.get(crds::names::CONFIRM_PRUNE));
    assert!(confirmed.is_some_and(|confirmed| confirmed.starts_with(&format!("{second}+"))), "{confirmed:?}");
    assert_eq!(sync.status.as_ref().and_then(|status| status.prune_confirmation.as_ref()), None);
    gitseal(&scene, &["sync", "app", "--confirm-prune", &second])
        .await?
        .is(1, &["does not wait for a confirmation"])?;
    for name in ["one", "two", "three"] {
        scene.is_gone("v1", "ConfigMap", name).await?;
    }
    let left = inventory(sync);
    assert_eq!(left.len(), 2, "{left:?}");
    assert_eq!(labelled(&scene, "app").await?, left);
    Ok(())
}

/// The Sync is edited after a prune was confirmed. The prunes that follow at the same revision remove other objects,
/// and so the confirmation does not count for them.
#[tokio::test]
async fn a_confirmation_is_not_for_what_a_change_of_the_sync_removes() -> Result<()> {
    let (scene, revision) = scene_of_four("edited").await?;
    let spec = |prefix: &str| if prefix.is_empty() { json!({}) } else { json!({"namePrefix": prefix}) };
    let prefix = async |prefix: &str| scene.sync("app", "./app", spec(prefix)).await;
    let is_there = async |name: &str| scene.has("v1", "ConfigMap", name, json!({})).await.map(drop);
    prefix("green-").await?;
    let message = scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
    is_there("green-one").await?;
    confirm(&message).await?;
    scene.is_applied("app", &revision).await?;
    scene.is_gone("v1", "ConfigMap", "one").await?;

    // The confirmation is used up: not even the same prune is confirmed by it.
    let status = scene.is_ready("app").await?.status.unwrap_or_default();
    assert_eq!((status.confirmed_prunes, status.prune_confirmation), (Some(1), None));

    prefix("red-").await?;
    is_there("red-one").await?;
    let second = scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
    assert!(second.contains("green-one") && second != message, "{second}");
    handled(&scene, "app").await?;
    is_there("green-one").await?;
    // The prefix is removed. Then the first prefix (`green-`), whose prune was confirmed, is set again.
    prefix("").await?;
    is_there("one").await?;
    prefix("green-").await?;
    handled(&scene, "app").await?;
    let third = scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
    assert!(third.contains("ConfigMap") && third != message, "{third}");
    for name in ["one", "red-one", "green-one"] {
        is_there(name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_confirmation_holds_though_commits_elsewhere_go_on() -> Result<()> {
    let (scene, _) = scene_of_four("elsewhere").await?;
    for name in ["one", "two", "three"] {
        scene.tree.remove(&format!("app/{name}.yaml"))?;
    }
    let second = scene.publish("three of four go").await?;
    let message = scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
    assert!(message.contains(&second), "{message}");
    scene.tree.write("elsewhere/readme.md", "nothing of the Sync's")?;
    let third = scene.publish("another folder").await?;
    confirm(&message).await?;
    let sync = scene.is_ready("app").await?;
    assert_eq!(inventory(sync.clone()).len(), 1);
    // The command also requests a sync, so the status names the newest revision.
    assert_eq!(sync.status.unwrap().last_applied_revision, Some(third));
    for name in ["one", "two", "three"] {
        scene.is_gone("v1", "ConfigMap", name).await?;
    }
    Ok(())
}

/// The API server answers with status 500 both if an object does not fit its kind and if a webhook cannot be called.
#[tokio::test]
async fn objects_that_were_refused_and_never_made_need_no_confirmation() -> Result<()> {
    let scene = Scene::new("never-made").await?;
    scene.tree.write("app/good.yaml", config_map("good", "1"))?;
    let first = scene.publish("one").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    for name in ["wrong", "another"] {
        let wrong = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\ndatas: {{}}\n");
        scene.tree.write(&format!("app/{name}.yaml"), wrong)?;
    }
    scene.publish("two mistakes").await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    assert!(message.contains(".datas: field not declared in schema; is it misspelt?"), "{message}");
    assert!(!message.contains("typed patch"), "{message}");
    gitseal(&scene, &["diff", "app", "--sync", "app"])
        .await?
        .is(2, &[".datas: field not declared in schema; is it misspelt?"])?;
    scene
        .sync_when("app", "only what exists is in the inventory", |sync, _| inventory(sync.clone()).len() == 1)
        .await?;

    let webhook = json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": scene.namespace},
        "webhooks": [{
            "name": "away.example.com",
            "clientConfig": {"service": {"namespace": scene.namespace, "name": "nobody"}},
            "rules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}],
            "namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": scene.namespace}},
            "failurePolicy": "Fail",
            "sideEffects": "None",
            "admissionReviewVersions": ["v1"],
        }],
    });
    apply_cluster_wide(&scene.client, webhook).await?;
    for name in ["wrong", "another"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "1"))?;
    }
    scene.publish("a webhook is away").await?;
    scene.sync_when("app", "the webhook is why", |_, ready| ready.message.contains("failed calling webhook")).await?;
    for name in ["wrong", "another"] {
        scene.tree.remove(&format!("app/{name}.yaml"))?;
    }
    gitseal(&scene, &["diff", "app", "--sync", "app"]).await?.is(0, &["1 unchanged"])?;
    let last = scene.publish("without the two").await?;
    let sync = scene.is_applied("app", &last).await?;
    assert_eq!(inventory(sync).len(), 1);
    Ok(())
}

#[tokio::test]
async fn the_limit_is_the_syncs_to_set() -> Result<()> {
    let (scene, _) = scene_of_four("limit").await?;
    let limit = |limit: &str| json!({"pruneLimit": limit});
    scene.sync("app", "./app", limit("0")).await?;
    handled(&scene, "app").await?;
    scene.tree.remove("app/one.yaml")?;
    let second = scene.publish("one goes").await?;
    let message = scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
    assert!(message.contains("removes 1 of 4 objects"), "{message}");
    all_four_are_there(&scene).await?;

    scene.sync("app", "./app", limit("1")).await?;
    scene.is_applied("app", &second).await?;
    scene.is_gone("v1", "ConfigMap", "one").await?;

    scene.sync("app", "./app", limit("100%")).await?;
    scene.tree.remove("app/two.yaml")?;
    scene.tree.remove("app/three.yaml")?;
    let third = scene.publish("two of three go").await?;
    scene.is_applied("app", &third).await?;
    scene.is_gone("v1", "ConfigMap", "two").await?;
    scene.is_gone("v1", "ConfigMap", "three").await?;
    Ok(())
}

/// An applied object can be in a hidden file after an upgrade from a version that applied such files, or after the file
/// was moved.
#[tokio::test]
async fn what_stands_in_a_hidden_file_stays_until_git_says_that_it_goes() -> Result<()> {
    let scene = Scene::new("in-hidden").await?;
    let back = "!.k8s/\n";
    scene.tree.write("app/.gitsealignore", back)?;
    scene.tree.write("app/seen.yaml", config_map("seen", "1"))?;
    scene.tree.write("app/.k8s/a.yaml", config_map("a", "1"))?;
    scene.tree.write("app/.k8s/db.yaml", sealed_secret("db", &scene.seal("db", b"first").await?))?;
    scene.tree.write("app/.k8s/no-manifest.yaml", "on: [push]\napiVersion: none\n")?;
    scene.tree.write("app/.k8s/.gitsealignore", "no-manifest.yaml\n")?;
    let first = scene.publish("all three").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let before = labelled(&scene, "app").await?;
    let secret = scene.get("v1", "Secret", "db").await?;

    scene.tree.remove("app/.gitsealignore")?;
    scene.tree.remove("app/.k8s/.gitsealignore")?;
    scene.tree.write("app/seen.yaml", config_map("seen", "2"))?;
    gitseal(&scene, &["diff", "app", "--sync", "app"])
        .await?
        .is(1, &["app/.k8s/a.yaml:1", "list !.k8s/ in .gitsealignore"])?;
    let second = scene.publish("two of three are hidden").await?;
    let sync = scene.is_applied("app", &second).await?;
    let told = message(&sync);
    for text in
        ["/a (and 1 more) is not pruned", "app/.k8s/a.yaml:1", "list !.k8s/ in .gitsealignore", "delete it from Git"]
    {
        assert!(told.contains(text), "no {text:?} in: {told}");
    }
    event(&scene, "app", "NotPruned", &["app/.k8s/a.yaml:1"]).await?;
    assert_eq!(labelled(&scene, "app").await?, before);
    assert_eq!(scene.get("v1", "Secret", "db").await?, secret);

    // An object that is deleted from Git is pruned. The object that is still in a hidden file stays.
    scene.tree.remove("app/.k8s/a.yaml")?;
    let third = scene.publish("one of them is deleted").await?;
    let told = message(&scene.is_applied("app", &third).await?);
    assert!(told.contains("SealedSecret") && !told.contains("more"), "{told}");
    scene.is_gone("v1", "ConfigMap", "a").await?;
    assert_eq!(scene.get("v1", "Secret", "db").await?, secret);

    // When the file is no longer ignored, the object is applied as before.
    scene.tree.write("app/.gitsealignore", back)?;
    scene.tree.remove("app/.k8s/no-manifest.yaml")?;
    let fourth = scene.publish("taken back").await?;
    let told = message(&scene.is_applied("app", &fourth).await?);
    assert!(told.ends_with("2 objects"), "{told}");
    assert_eq!(scene.get("v1", "Secret", "db").await?, secret);
    Ok(())
}

#[tokio::test]
async fn hidden_files_that_can_never_be_read_let_nothing_be_pruned() -> Result<()> {
    let scene = Scene::new("hidden-large").await?;
    scene.tree.write("app/stays.yaml", config_map("stays", "1"))?;
    scene.tree.write("app/a.yaml", config_map("a", "1"))?;
    let first = scene.publish("both").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    // The object moves into a hidden file. Another hidden file is too large to be read.
    scene.tree.remove("app/a.yaml")?;
    scene.tree.write("app/.a.yaml", config_map("a", "1"))?;
    scene.tree.write("app/.cache/large.yaml", "# nothing\n".repeat(2 << 20))?;
    scene.publish("hidden").await?;
    let told = scene.is_not_ready("app", "TooLarge").await?;
    for text in ["nothing is pruned", "app/.cache/large.yaml", ".gitsealignore"] {
        assert!(told.contains(text), "no {text:?} in: {told}");
    }
    scene.has("v1", "ConfigMap", "a", json!({"data": {"value": "1"}})).await?;

    scene.tree.write("app/.gitsealignore", ".cache/\n")?;
    let third = scene.publish("the large one is left out").await?;
    let told = message(&scene.is_applied("app", &third).await?);
    assert!(told.contains("app/.a.yaml:1"), "{told}");
    scene.has("v1", "ConfigMap", "a", json!({"data": {"value": "1"}})).await.map(drop)
}

fn message(sync: &Sync) -> String {
    let conditions = sync.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
    crds::find_condition(conditions, "Ready").map(|ready| ready.message.clone()).unwrap_or_default()
}

#[tokio::test]
async fn what_asks_to_be_kept_does_not_count_for_the_limit() -> Result<()> {
    let scene = Scene::new("kept").await?;
    let kept = "metadata:\n  annotations: {gitseal.dev/prune: disabled}\n";
    for name in ["one", "two"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "first").replace("metadata:\n", kept))?;
    }
    for name in ["three", "four"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "first"))?;
    }
    let first = scene.publish("four, of which two stay").await?;
    scene.sync("app", "./app", json!({"pruneLimit": "1"})).await?;
    scene.is_applied("app", &first).await?;
    for name in ["one", "two", "three"] {
        scene.tree.remove(&format!("app/{name}.yaml"))?;
    }
    let said = gitseal(&scene, &["diff", "app", "--sync", "app"]).await?.is(1, &["kept, because its annotation"])?;
    assert!(!said.err.contains("pruneLimit"), "{}", said.err);
    let second = scene.publish("three of them leave Git").await?;
    let sync = scene.is_applied("app", &second).await?;
    scene.is_gone("v1", "ConfigMap", "three").await?;
    for name in ["one", "two"] {
        scene.has("v1", "ConfigMap", name, json!({"data": {"value": "first"}})).await?;
    }
    assert_eq!(inventory(sync).len(), 1, "what stays is let go of");
    Ok(())
}

#[tokio::test]
async fn a_vanished_folder_and_an_empty_one_prune_nothing() -> Result<()> {
    let (scene, _) = scene_of_four("vanished").await?;
    let mut before = Vec::new();
    for name in NAMES {
        before.push(applies(&scene, name).await?);
    }
    // With 100%, the limit cannot be the reason that nothing is pruned.
    let spec = json!({"pruneLimit": "100%"});
    scene.sync("app", "./app", spec).await?;
    handled(&scene, "app").await?;

    scene.tree.remove("app")?;
    scene.tree.write("elsewhere/readme.md", "")?;
    scene.publish("the folder is gone").await?;
    let message = scene.is_not_ready("app", "PathNotFound").await?;
    for text in ["app", "nothing is applied or deleted until the folder can be read"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    all_four_are_there(&scene).await?;

    scene.tree.write("app/readme.md", "no manifests here")?;
    scene.tree.write("app/empty.yaml", "# nothing\n---\n---\n")?;
    scene.publish("the folder is empty").await?;
    let message = scene.is_not_ready("app", "NothingRendered").await?;
    for text in ["'app' has no manifests", "never prunes", "4 objects"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    all_four_are_there(&scene).await?;

    // When the folder is back as it was, the Sync is Ready again, and no object is written.
    scene.tree.git(["checkout", "HEAD~2", "--", "app"])?;
    scene.tree.remove("app/readme.md")?;
    scene.tree.remove("app/empty.yaml")?;
    scene.publish("back").await?;
    scene.is_ready("app").await?;
    let mut after = Vec::new();
    for name in NAMES {
        after.push(applies(&scene, name).await?);
    }
    assert_eq!(before, after);

    scene.tree.remove("app/one.yaml")?;
    let last = scene.publish("one goes").await?;
    scene.is_applied("app", &last).await?;
    scene.is_gone("v1", "ConfigMap", "one").await?;
    assert_eq!(labelled(&scene, "app").await?.len(), 3);
    Ok(())
}

#[tokio::test]
async fn a_folder_that_vanishes_and_comes_back_unchanged_is_ready_again() -> Result<()> {
    let (scene, _) = scene_of_four("back").await?;
    scene.tree.git(["mv", "app", "renamed"])?;
    scene.publish("the folder is gone").await?;
    scene.is_not_ready("app", "PathNotFound").await?;
    scene.tree.git(["mv", "renamed", "app"])?;
    scene.publish("back").await?;
    scene.is_ready("app").await?;
    all_four_are_there(&scene).await
}
