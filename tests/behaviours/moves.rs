//! An object that moves from the folder of one Sync to that of another is handed over and not deleted, so it keeps its UID.

mod meanwhile;

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{
    objects::{config_map, sealed_secret},
    traces::{events, handled, inventory},
};

fn mapping(name: &str) -> String {
    format!("---\n{}", config_map(name, "1"))
}

/// The name of the Sync in the object's labels; for a Secret, in the labels of its SealedSecret.
async fn owner(scene: &Scene, kind: &str, name: &str) -> Result<String> {
    let kind = if kind == "Secret" { "SealedSecret" } else { kind };
    let object = scene.get(version(kind), kind, name).await?.with_context(|| format!("{kind} {name} is gone"))?;
    Ok(object["metadata"]["labels"][crds::names::SYNC_NAME].as_str().unwrap_or_default().to_owned())
}

async fn uid(scene: &Scene, kind: &str, name: &str) -> Result<String> {
    let object = scene.get(version(kind), kind, name).await?.with_context(|| format!("{kind} {name} is gone"))?;
    Ok(object["metadata"]["uid"].as_str().context("no uid")?.to_owned())
}

fn version(kind: &str) -> &'static str {
    if kind == "SealedSecret" { "bitnami.com/v1alpha1" } else { "v1" }
}

/// Waits until both Syncs have applied the revision, and their inventories have these numbers of objects.
async fn both_applied(scene: &Scene, revision: &str, counts: [(&str, usize); 2]) -> Result<()> {
    for (name, count) in counts {
        scene.is_applied(name, revision).await?;
        eventually(&format!("{name} to have {count} objects"), || async {
            let inventory = inventory(scene.api::<Sync>().get(name).await?);
            ensure!(inventory.len() == count, "{inventory:?}");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn what_moves_between_two_folders_in_one_commit_keeps_its_uid() -> Result<()> {
    let scene = Scene::new("moves").await?;
    let value = scene.seal("db", b"moves-along").await?;
    // Moves the object there and back, so that each of the two Syncs gives it up once.
    for (file, stays) in [("one/stays.yaml", "stays-one"), ("two/stays.yaml", "stays-two")] {
        scene.tree.write(file, mapping(stays) + &mapping(&format!("{stays}-b")))?;
    }
    let moving = || mapping("moves") + "---\n" + &sealed_secret("db", &value);
    scene.tree.write("one/moves.yaml", moving())?;
    let first = scene.publish("in one").await?;
    scene.sync("one", "./one", json!({})).await?;
    scene.sync("two", "./two", json!({})).await?;
    both_applied(&scene, &first, [("one", 5), ("two", 2)]).await?;
    let kinds = [("ConfigMap", "moves"), ("SealedSecret", "db"), ("Secret", "db")];
    let mut before = Vec::new();
    for (kind, name) in kinds {
        before.push(uid(&scene, kind, name).await?);
    }
    for (from, to) in [("one", "two"), ("two", "one"), ("one", "two")] {
        scene.tree.remove(&format!("{from}/moves.yaml"))?;
        scene.tree.write(&format!("{to}/moves.yaml"), moving())?;
        let revision = scene.publish(&format!("from {from} to {to}")).await?;
        both_applied(&scene, &revision, [(from, 2), (to, 5)]).await?;
        for ((kind, name), before) in kinds.iter().zip(&before) {
            assert_eq!(uid(&scene, kind, name).await?, *before, "{kind} {name} was made anew");
            assert_eq!(owner(&scene, kind, name).await?, to);
        }
    }
    for sync in ["one", "two"] {
        assert_eq!(events(&scene, sync, "ObjectOwnedByAnotherSync").await?, Vec::<String>::new(), "of {sync}");
    }
    // The new owner prunes the object when it leaves Git.
    scene.tree.remove("two/moves.yaml")?;
    let last = scene.publish("gone").await?;
    both_applied(&scene, &last, [("two", 2), ("two", 2)]).await?;
    scene.is_gone("v1", "ConfigMap", "moves").await?;
    scene.is_gone("v1", "Secret", "db").await
}

#[tokio::test]
async fn a_namespace_and_a_definition_keep_what_strangers_put_there() -> Result<()> {
    let scene = Scene::new("moved-ns").await?;
    let precious = format!("{}-precious", scene.namespace);
    let group = format!("{}.example.com", scene.namespace);
    let definition = format!(
        "---\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: things.{group}}}\n\
         spec:\n  group: {group}\n  scope: Namespaced\n  names: {{kind: Thing, plural: things, singular: thing}}\n  \
         versions:\n    - {{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, \
         x-kubernetes-preserve-unknown-fields: true}}}}}}\n"
    );
    let moving = format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {precious}}}\n{definition}");
    for sync in ["one", "two"] {
        scene
            .tree
            .write(&format!("{sync}/own.yaml"), mapping(&format!("{sync}-a")) + &mapping(&format!("{sync}-b")))?;
    }
    scene.tree.write("one/moves.yaml", &moving)?;
    let first = scene.publish("in one").await?;
    scene.sync("one", "./one", json!({})).await?;
    scene.sync("two", "./two", json!({})).await?;
    both_applied(&scene, &first, [("one", 4), ("two", 2)]).await?;
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "theirs"}, "data": {"a": "b"}});
    kubernetes::apply(&scene.client, &precious, theirs).await?;
    let thing = json!({"apiVersion": format!("{group}/v1"), "kind": "Thing", "metadata": {"name": "theirs"}, "spec": {"a": "b"}});
    kubernetes::apply(&scene.client, &scene.namespace, thing).await?;
    let before = scene.get(&format!("{group}/v1"), "Thing", "theirs").await?.context("the thing")?;

    scene.tree.remove("one/moves.yaml")?;
    scene.tree.write("two/moves.yaml", &moving)?;
    let second = scene.publish("tidied up").await?;
    both_applied(&scene, &second, [("one", 2), ("two", 4)]).await?;
    let namespace = Api::<Namespace>::all(scene.client.clone()).get(&precious).await?;
    assert!(namespace.metadata.deletion_timestamp.is_none());
    assert_eq!(namespace.labels()[crds::names::SYNC_NAME], "two");
    Api::<ConfigMap>::namespaced(scene.client.clone(), &precious).get("theirs").await?;
    let after = scene.get(&format!("{group}/v1"), "Thing", "theirs").await?.context("the thing is gone")?;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    Ok(())
}

/// A Sync as a manifest.
fn sync_object(name: &str, path: &str) -> String {
    format!(
        "---\napiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {{name: {name}}}\nspec:\n  \
         repository: {{name: repo}}\n  path: {path}\n  interval: 1h\n"
    )
}

#[tokio::test]
async fn a_renamed_sync_hands_everything_to_its_successor() -> Result<()> {
    let scene = Scene::new("renamed").await?;
    scene.tree.write("app/all.yaml", mapping("a") + &mapping("b"))?;
    scene.tree.write("fleet/app.yaml", sync_object("old", "./app") + &mapping("fleet"))?;
    let first = scene.publish("under the old name").await?;
    scene.sync("fleet", "./fleet", json!({})).await?;
    scene.is_applied("fleet", &first).await?;
    scene.is_applied("old", &first).await?;
    let before = uid(&scene, "ConfigMap", "a").await?;

    scene.tree.write("fleet/app.yaml", sync_object("new", "./app") + &mapping("fleet"))?;
    let second = scene.publish("under the new name").await?;
    scene.is_applied("fleet", &second).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "old").await?;
    scene.is_ready("new").await?;
    assert_eq!(uid(&scene, "ConfigMap", "a").await?, before, "it was deleted with the old Sync");
    assert_eq!(owner(&scene, "ConfigMap", "b").await?, "new");
    Ok(())
}

#[tokio::test]
async fn a_folder_that_is_given_to_a_sync_of_its_own_is_handed_over() -> Result<()> {
    let scene = Scene::new("child").await?;
    scene.tree.write("all/base/base.yaml", mapping("base"))?;
    scene.tree.write("all/child/own.yaml", mapping("own"))?;
    let first = scene.publish("one Sync for all").await?;
    scene.sync("parent", "./all", json!({"pruneLimit": "0"})).await?;
    scene.is_applied("parent", &first).await?;
    let before = uid(&scene, "ConfigMap", "own").await?;

    scene.sync("child", "./all/child", json!({})).await?;
    let message = scene.is_not_ready("child", "ObjectOwnedByAnotherSync").await?;
    assert!(message.contains("all/child/own.yaml"), "{message}");
    scene.sync("parent", "./all/base", json!({"pruneLimit": "0"})).await?;
    both_applied(&scene, &first, [("parent", 1), ("child", 1)]).await?;
    assert_eq!(uid(&scene, "ConfigMap", "own").await?, before);
    assert_eq!(owner(&scene, "ConfigMap", "own").await?, "child", "what is handed over is no prune beyond the limit");
    Ok(())
}

#[tokio::test]
async fn a_folder_that_cannot_be_read_delays_a_prune() -> Result<()> {
    let scene = Scene::new("unreadable").await?;
    scene.tree.write("one/all.yaml", mapping("moves") + &mapping("one"))?;
    scene.tree.write("two/all.yaml", mapping("two"))?;
    let first = scene.publish("in one").await?;
    scene.sync("one", "./one", json!({})).await?;
    scene.sync("two", "./two", json!({})).await?;
    both_applied(&scene, &first, [("one", 2), ("two", 1)]).await?;
    let before = uid(&scene, "ConfigMap", "moves").await?;

    scene.tree.write("one/all.yaml", mapping("one"))?;
    scene.tree.write("two/all.yaml", mapping("two") + &mapping("moves") + "---\nkind: [broken\n")?;
    scene.publish("moved, and broken").await?;
    scene.is_not_ready("two", "InvalidManifest").await?;
    let waits = |sync: &Sync, ready: &crds::Condition| {
        let _ = sync;
        ready.reason == "PruneWaitsForSync" && ready.message.contains("/two")
    };
    scene.sync_when("one", "it to wait for the folder of two", waits).await?;
    assert_eq!(uid(&scene, "ConfigMap", "moves").await?, before);
    assert_eq!(events(&scene, "one", "PruneWaitsForSync").await?.len(), 0, "nobody has to look");

    scene.tree.write("two/all.yaml", mapping("two") + &mapping("moves"))?;
    let fixed = scene.publish("fixed").await?;
    both_applied(&scene, &fixed, [("two", 2), ("two", 2)]).await?;
    scene.is_ready("one").await?;
    assert_eq!(uid(&scene, "ConfigMap", "moves").await?, before);
    assert_eq!(owner(&scene, "ConfigMap", "moves").await?, "two");
    Ok(())
}

#[tokio::test]
async fn a_sync_of_another_repository_gets_what_it_was_refused() -> Result<()> {
    let scene = Scene::new("two-repos").await?;
    let other = Scene::new("two-repos-other").await?;
    scene.tree.write("app/all.yaml", shared_in(&scene) + &mapping("own"))?;
    let first = scene.publish("in the first repository").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let before = uid(&scene, "ConfigMap", "shared").await?;
    other.tree.write("app/all.yaml", shared_in(&scene) + &mapping("own"))?;
    let theirs = other.publish("in the second, too").await?;
    other.sync("app", "./app", json!({})).await?;
    other.is_not_ready("app", "ObjectOwnedByAnotherSync").await?;

    scene.tree.write("app/all.yaml", mapping("own"))?;
    let second = scene.publish("only in the second").await?;
    other.is_applied("app", &theirs).await?;
    scene.is_applied("app", &second).await?;
    assert_eq!(uid(&scene, "ConfigMap", "shared").await?, before);
    let labels = scene.get("v1", "ConfigMap", "shared").await?.context("shared")?["metadata"]["labels"].clone();
    assert_eq!(labels[crds::names::SYNC_NAMESPACE], other.namespace);
    Ok(())
}

#[tokio::test]
async fn who_may_not_write_an_object_keeps_nobody_from_pruning_it() -> Result<()> {
    let scene = Scene::new("no-say").await?;
    let tenant = Scene::new("no-say-tenant").await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "tenant"}});
    kubernetes::apply(&tenant.client, &tenant.namespace, account).await?;
    scene.tree.write("app/all.yaml", mapping("goes") + &mapping("stays"))?;
    let first = scene.publish("both").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let wants = mapping("goes").replace("name: goes", &format!("name: goes\n  namespace: {}", scene.namespace));
    tenant.tree.write("app/all.yaml", wants)?;
    tenant.publish("what is not theirs").await?;
    tenant.sync("app", "./app", json!({"serviceAccountName": "tenant"})).await?;
    let message = tenant.is_not_ready("app", "Forbidden").await?;
    assert!(!message.contains(&format!("Sync {}", scene.namespace)), "it tells who has it: {message}");

    scene.tree.write("app/all.yaml", mapping("stays"))?;
    let second = scene.publish("one goes").await?;
    scene.is_applied("app", &second).await?;
    scene.is_gone("v1", "ConfigMap", "goes").await
}

#[tokio::test]
async fn a_deleted_sync_that_prunes_leaves_what_another_one_wants() -> Result<()> {
    let scene = Scene::new("successor").await?;
    scene.tree.write("app/all.yaml", mapping("a"))?;
    let first = scene.publish("all").await?;
    scene.sync("first", "./app", json!({})).await?;
    scene.is_applied("first", &first).await?;
    let before = uid(&scene, "ConfigMap", "a").await?;
    scene.sync("second", "./app", json!({"suspend": true})).await?;
    let api = scene.api::<Sync>();
    api.delete("first", &DeleteParams::default()).await?;
    let resume: Value = json!({"spec": {"suspend": false}});
    api.patch("second", &PatchParams::default(), &Patch::Merge(&resume)).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "first").await?;
    scene.is_ready("second").await?;
    assert_eq!(uid(&scene, "ConfigMap", "a").await?, before);
    assert_eq!(owner(&scene, "ConfigMap", "a").await?, "second");
    Ok(())
}

/// Makes a scene in which the Sync `one` has the ConfigMap `moves` and other objects, and the Sync `two` exists, too.
async fn about_to_move(name: &str) -> Result<(Scene, String)> {
    let scene = Scene::new(name).await?;
    scene.tree.write("one/all.yaml", mapping("one-a") + &mapping("one-b"))?;
    scene.tree.write("one/moves.yaml", mapping("moves"))?;
    scene.tree.write("two/all.yaml", mapping("two"))?;
    let first = scene.publish("in one").await?;
    scene.sync("one", "./one", json!({})).await?;
    scene.sync("two", "./two", json!({})).await?;
    both_applied(&scene, &first, [("one", 3), ("two", 1)]).await?;
    let before = uid(&scene, "ConfigMap", "moves").await?;
    Ok((scene, before))
}

fn moves(scene: &Scene) -> Result<()> {
    scene.tree.remove("one/moves.yaml")?;
    scene.tree.write("two/moves.yaml", mapping("moves"))
}

async fn suspend(scene: &Scene, sync: &str, suspend: bool) -> Result<()> {
    let patch = json!({"spec": {"suspend": suspend}});
    scene.api::<Sync>().patch(sync, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

#[tokio::test]
async fn a_suspended_sync_gets_its_object_when_it_resumes_and_nobody_waits_for_it() -> Result<()> {
    let (scene, before) = about_to_move("to-suspended").await?;
    suspend(&scene, "two", true).await?;
    moves(&scene)?;
    let second = scene.publish("to a suspended Sync").await?;
    let left = |ready: &crds::Condition| ready.message.contains("/two, which is suspended");
    let is_left = |sync: &Sync, ready: &crds::Condition| {
        let applied = sync.status.as_ref().and_then(|status| status.last_applied_revision.as_ref());
        ready.status == crds::ConditionStatus::True && applied == Some(&second) && left(ready)
    };
    let one = scene.sync_when("one", "it to be Ready and to tell what is left for two", is_left).await?;
    assert_eq!(inventory(one).len(), 3, "somebody has to have it until two does");
    // Another pass changes nothing.
    let one = handled(&scene, "one").await?;
    assert_eq!(inventory(one).len(), 3);
    scene.tree.write("one/more.yaml", mapping("one-c"))?;
    let third = scene.publish("something else").await?;
    let one = scene.is_applied("one", &third).await?;
    assert_eq!(inventory(one).len(), 4);
    assert_eq!(uid(&scene, "ConfigMap", "moves").await?, before, "it was deleted");
    assert_eq!(events(&scene, "one", "Orphaned").await?.len(), 0);

    suspend(&scene, "two", false).await?;
    both_applied(&scene, &third, [("one", 3), ("one", 3)]).await?;
    let two = scene.is_ready("two").await?;
    assert_eq!(inventory(two).len(), 2);
    scene.sync_when("one", "nothing to be left", |_, ready| !left(ready)).await?;
    assert_eq!(uid(&scene, "ConfigMap", "moves").await?, before);
    assert_eq!(owner(&scene, "ConfigMap", "moves").await?, "two");
    Ok(())
}

/// A manifest of the ConfigMap `shared` that names the scene's namespace, so that it can be used in any repository.
fn shared_in(scene: &Scene) -> String {
    mapping("shared").replace("name: shared", &format!("name: shared\n  namespace: {}", scene.namespace))
}

/// Lets the Sync of `scene` apply the ConfigMap `shared`. The Sync of `other`, which has another repository, tries to
/// apply it, too; this is refused, and then that Sync is suspended. Returns the UID of the ConfigMap.
async fn wanted_by_a_suspended_one(scene: &Scene, other: &Scene) -> Result<String> {
    scene.tree.write("app/all.yaml", shared_in(scene) + &mapping("own") + &mapping("more"))?;
    let first = scene.publish("in the first repository").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    other.tree.write("app/all.yaml", shared_in(scene))?;
    other.publish("in the second, too").await?;
    other.sync("app", "./app", json!({})).await?;
    other.is_not_ready("app", "ObjectOwnedByAnotherSync").await?;
    suspend(other, "app", true).await?;
    uid(scene, "ConfigMap", "shared").await
}

#[tokio::test]
async fn a_suspended_sync_of_another_repository_does_not_lose_what_it_waits_for() -> Result<()> {
    let scene = Scene::new("two-repos-later").await?;
    let other = Scene::new("two-repos-later-other").await?;
    let before = wanted_by_a_suspended_one(&scene, &other).await?;

    scene.tree.write("app/all.yaml", mapping("own") + &mapping("more"))?;
    let second = scene.publish("only in the second").await?;
    scene.is_applied("app", &second).await?;
    // Every pass checks again which Sync wants the object.
    for label in ["1", "2"] {
        scene.tree.write("app/all.yaml", mapping("own") + &mapping("more") + &mapping(&format!("more-{label}")))?;
        let revision = scene.publish(label).await?;
        scene.is_applied("app", &revision).await?;
    }
    assert_eq!(uid(&scene, "ConfigMap", "shared").await?, before, "it was deleted");
    suspend(&other, "app", false).await?;
    other.is_ready("app").await?;
    assert_eq!(uid(&scene, "ConfigMap", "shared").await?, before);
    Ok(())
}

#[tokio::test]
async fn a_heal_forgets_nobody_who_waits_for_what_left_git() -> Result<()> {
    let scene = Scene::new("heal-waits").await?;
    let other = Scene::new("heal-waits-other").await?;
    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}]);
    other.account("deployer", rules.clone()).await?;
    scene.allow("deployer", &other.namespace, rules).await?;
    let shared = shared_in(&scene);
    scene.tree.write("app/all.yaml", shared.clone() + &mapping("own"))?;
    let first = scene.publish("in the first repository").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let before = uid(&scene, "ConfigMap", "shared").await?;

    // This Sync has the rights of a tenant. For a hand-over, the folder of such a Sync is read only if the Sync waits
    // for an object.
    other.tree.write("app/all.yaml", mapping("own"))?;
    let theirs = other.publish("their own").await?;
    other.sync("app", "./app", json!({"serviceAccountName": "deployer"})).await?;
    other.is_applied("app", &theirs).await?;
    other.tree.write("app/all.yaml", shared + &mapping("own"))?;
    other.publish("in the second, too").await?;
    other.is_not_ready("app", "ObjectOwnedByAnotherSync").await?;
    let api = other.api::<Sync>();
    let depend = |on: Value| Patch::Merge(json!({"spec": {"dependsOn": on}}));
    api.patch("app", &PatchParams::default(), &depend(json!([{"name": "missing"}]))).await?;
    other.is_not_ready("app", "DependencyNotReady").await?;
    let drift = Patch::Merge(json!({"data": {"value": "by hand"}}));
    other.api::<ConfigMap>().patch("own", &PatchParams::default(), &drift).await?;
    other.has("v1", "ConfigMap", "own", json!({"data": {"value": "1"}})).await?;

    scene.tree.write("app/all.yaml", mapping("own"))?;
    let second = scene.publish("only in the second").await?;
    scene.sync_when("app", "it to hand the object over", |_, ready| ready.reason == "HandingOver").await?;
    api.patch("app", &PatchParams::default(), &depend(Value::Null)).await?;
    other.is_ready("app").await?;
    scene.is_applied("app", &second).await?;
    assert_eq!(uid(&scene, "ConfigMap", "shared").await?, before);
    Ok(())
}

#[tokio::test]
async fn a_restart_forgets_nobody_who_waits_for_what_left_git() -> Result<()> {
    let plane = Plane::start(ClusterOptions { controller_manager: false, ..ClusterOptions::default() }).await?;
    let scene = Scene::on(&plane, "restart", ServerOptions::default()).await?;
    let other = Scene::on(&plane, "restart-other", ServerOptions::default()).await?;
    for scene in [&scene, &other] {
        scene.repository(json!({})).await?;
    }
    let before = wanted_by_a_suspended_one(&scene, &other).await?;
    plane.controller.lock().await.take().context("a controller")?.kill()?;

    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    *plane.controller.lock().await = Some(controller);
    scene.tree.write("app/all.yaml", mapping("own") + &mapping("more"))?;
    let second = scene.publish("only in the second").await?;
    scene.is_applied("app", &second).await?;
    assert_eq!(uid(&scene, "ConfigMap", "shared").await?, before, "it was deleted");
    suspend(&other, "app", false).await?;
    other.is_ready("app").await?;
    assert_eq!(uid(&scene, "ConfigMap", "shared").await?, before);
    Ok(())
}

#[tokio::test]
async fn what_moves_is_handed_over_although_the_rest_of_the_folder_is_refused() -> Result<()> {
    let (scene, before) = about_to_move("refused-rest").await?;
    moves(&scene)?;
    scene.tree.write("one/refused.yaml", config_map("refused", "1").replace("value:", "\"not a key\":"))?;
    let second = scene.publish("moved, and refused").await?;
    both_applied(&scene, &second, [("two", 2), ("two", 2)]).await?;
    assert_eq!(uid(&scene, "ConfigMap", "moves").await?, before);
    assert_eq!(owner(&scene, "ConfigMap", "moves").await?, "two");
    let message = scene.is_not_ready("one", "ApplyFailed").await?;
    assert!(message.contains("one/refused.yaml"), "{message}");
    eventually("one to let go of it", || async {
        let inventory = inventory(scene.api::<Sync>().get("one").await?);
        ensure!(inventory.len() == 2, "{inventory:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn who_looks_before_the_other_one_let_go_waits_and_tells_no_conflict() -> Result<()> {
    let (scene, before) = about_to_move("looks-first").await?;
    scene.tree.write("gate/all.yaml", mapping("gate"))?;
    let second = scene.publish("a gate").await?;
    scene.sync("gate", "./gate", json!({})).await?;
    scene.is_applied("gate", &second).await?;
    scene.sync("one", "./one", json!({"dependsOn": [{"name": "gate"}]})).await?;
    scene.is_ready("one").await?;

    moves(&scene)?;
    scene.tree.write("gate/all.yaml", "kind: [broken\n")?;
    scene.publish("moved, and the owner waits for something else").await?;
    scene.is_not_ready("one", "DependencyNotReady").await?;
    let waits = |_: &Sync, ready: &crds::Condition| {
        ready.status == crds::ConditionStatus::Unknown && ready.reason == "WaitingForHandOver"
    };
    let two = scene.sync_when("two", "it to wait for one", waits).await?;
    let conditions = two.status.unwrap_or_default().conditions;
    let message = crds::find_condition(&conditions, "Ready").map(|ready| ready.message.clone()).unwrap_or_default();
    for text in ["two/moves.yaml", "moves", "/one"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }

    scene.tree.write("gate/all.yaml", mapping("gate"))?;
    scene.publish("the gate is open").await?;
    scene.is_ready("two").await?;
    scene.is_ready("one").await?;
    assert_eq!(uid(&scene, "ConfigMap", "moves").await?, before);
    assert_eq!(owner(&scene, "ConfigMap", "moves").await?, "two");
    for reason in ["ObjectOwnedByAnotherSync", "WaitingForHandOver"] {
        assert_eq!(events(&scene, "two", reason).await?, Vec::<String>::new());
    }
    Ok(())
}

/// So many objects that a second folder of this size cannot be read at the same time: a namespace may use only half of
/// the memory budget of 128 MiB.
fn large() -> String {
    let values: String = (0..4000).map(|number| format!("  k{number}: ''\n")).collect();
    let object =
        |number| format!("---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: large-{number}}}\ndata:\n{values}");
    (0..24).map(object).collect()
}

#[tokio::test]
async fn want_of_memory_deletes_nothing_that_another_sync_wants() -> Result<()> {
    let plane =
        Plane::without_controller(ClusterOptions { controller_manager: false, ..ClusterOptions::default() }).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.push("--memory-budget=128Mi".into());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "moves-large", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    scene.tree.write("one/large.yaml", large())?;
    scene.tree.write("one/moves.yaml", mapping("moves"))?;
    scene.tree.write("two/two.yaml", mapping("two"))?;
    let first = scene.publish("in one").await?;
    scene.sync("one", "./one", json!({})).await?;
    scene.sync("two", "./two", json!({})).await?;
    both_applied(&scene, &first, [("one", 25), ("two", 1)]).await?;
    let before = uid(&scene, "ConfigMap", "moves").await?;
    // The Sync is suspended, so no pass of its own shows which objects its folder has.
    suspend(&scene, "two", true).await?;

    moves(&scene)?;
    let many = vec!["{}"; 300_000].join(",");
    scene.tree.write(
        "two/many.yaml",
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: many}}\nmany: [{many}]\n"),
    )?;
    let second = scene.publish("moved, and large").await?;
    let one = scene.is_applied("one", &second).await?;
    assert_eq!(inventory(one).len(), 25, "it is kept for two");
    let metrics = controller.fetch("/metrics").await?;
    assert!(metrics.contains("PruneWaitsForSync"), "there was memory for both: {metrics}");
    assert_eq!(uid(&scene, "ConfigMap", "moves").await?, before, "it was deleted");
    Ok(())
}
