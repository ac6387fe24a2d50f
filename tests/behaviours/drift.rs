//! Drift: which changes are healed at once, and which changes are no drift.

use anyhow::{Context, Result, ensure};
use harness::{Plane, Scene, kubernetes};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Resource, ResourceExt,
    api::{DeleteParams, DynamicObject, Patch, PatchParams, PostParams},
    core::NamespaceResourceScope,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    cli::gitseal,
    objects::{change_by_hand, config_map, deployment, is_value, sealed_secret},
    traces::{applies, event, handled, uid},
};

/// Lets the Sync `app` apply ConfigMaps and Deployments with these names. The Deployments have no replicas.
async fn scene_of(name: &str, maps: &[&str], workloads: &[&str]) -> Result<Scene> {
    let scene = Scene::new(name).await?;
    for name in maps {
        let path = format!("app/{name}-map.yaml");
        scene.tree.write(&path, config_map(name, "from-git"))?;
    }
    for name in workloads {
        let path = format!("app/{name}.yaml");
        scene.tree.write(&path, deployment(name, 0))?;
    }
    let revision = scene.publish("all").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    Ok(scene)
}

fn by(manager: &str) -> PatchParams {
    PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() }
}

async fn json_patch<K>(scene: &Scene, name: &str, operations: Value) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned,
    K: std::fmt::Debug,
{
    let patch = Patch::Json::<()>(serde_json::from_value(operations)?);
    let api: Api<K> = scene.api();
    api.patch(name, &by("kubectl-edit"), &patch).await?;
    Ok(())
}

/// Reads the object, changes it with `change`, and writes the whole object.
async fn put<K>(scene: &Scene, name: &str, change: impl Fn(&mut K)) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + DeserializeOwned,
    K: std::fmt::Debug + Serialize,
{
    let api: Api<K> = scene.api();
    let params = PostParams { field_manager: Some("kubectl-replace".into()), ..PostParams::default() };
    // Try again if the control plane has written the object's status in between.
    harness::eventually(&format!("{name} to be written as a whole"), || async {
        let mut object = api.get(name).await?;
        change(&mut object);
        Ok(api.replace(name, &params, &object).await.map(drop)?)
    })
    .await
}

/// Does the same as `kubectl scale`.
async fn scale(scene: &Scene, name: &str, replicas: u32) -> Result<()> {
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    let api: Api<Deployment> = scene.api();
    api.patch_scale(name, &by("kubectl"), &patch).await?;
    Ok(())
}

/// Waits for the event that an object was healed, and returns its message.
async fn drifted(scene: &Scene, sync: &str, kind: &str, name: &str) -> Result<String> {
    let name = format!("/{name} ");
    event(scene, sync, "Drifted", &[kind, &name]).await
}

/// Changes the ConfigMap or Deployment `marker`, and waits until it is healed. After this, the controller has also handled
/// all earlier changes of objects of that kind.
async fn marker_is_healed(scene: &Scene, sync: &str, kind: &str) -> Result<()> {
    if kind == "ConfigMap" {
        json_patch::<ConfigMap>(scene, "marker", json!([{"op": "replace", "path": "/data/value", "value": "by hand"}]))
            .await?;
    } else {
        scale(scene, "marker", 2).await?;
    }
    drifted(scene, sync, kind, "marker").await.map(|_| ())
}

#[tokio::test]
async fn every_way_to_change_an_object_is_undone() -> Result<()> {
    let maps = ["deleted", "stripped", "replaced", "unlabelled", "disowned"];
    let workloads = ["scaled", "imaged", "patched", "removed"];
    let scene = scene_of("healed", &maps, &workloads).await?;
    let image =
        json!({"spec": {"template": {"spec": {"containers": [{"name": "c", "image": "example.invalid/evil"}]}}}});
    let container = "/spec/template/spec/containers/0/image";
    let first = uid(&scene, "ConfigMap", "deleted").await?;

    scale(&scene, "scaled", 3).await?;
    let deployments: Api<Deployment> = scene.api();
    deployments.patch("imaged", &by("kubectl-set"), &Patch::Strategic(&image)).await?;
    let replace = json!([{"op": "replace", "path": container, "value": "example.invalid/evil"}]);
    json_patch::<Deployment>(&scene, "patched", replace).await?;
    deployments.delete("removed", &DeleteParams::foreground()).await?;
    scene.api::<ConfigMap>().delete("deleted", &DeleteParams::default()).await?;
    let remove = |path: &str| json!([{"op": "remove", "path": path}]);
    json_patch::<ConfigMap>(&scene, "stripped", remove("/data/value")).await?;
    put::<ConfigMap>(&scene, "replaced", |map| {
        let data = map.data.get_or_insert_default();
        data.insert("value".into(), "by hand".into());
    })
    .await?;
    let label = "/metadata/labels/gitseal.dev~1sync-name";
    json_patch::<ConfigMap>(&scene, "unlabelled", remove(label)).await?;
    // This is a server-side apply with force.
    let theirs = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "disowned"}, "data": {"value": "by hand"}});
    kubernetes::apply(&scene.client, &scene.namespace, theirs).await?;

    let labels = json!({"gitseal.dev/sync-name": "app", "gitseal.dev/sync-namespace": scene.namespace});
    for name in maps {
        let wanted = json!({"metadata": {"labels": labels}, "data": {"value": "from-git"}});
        drifted(&scene, "app", "ConfigMap", name).await?;
        scene.has("v1", "ConfigMap", name, wanted).await?;
    }
    for name in workloads {
        let wanted = json!({"metadata": {"labels": labels}, "spec": {"replicas": 0}});
        drifted(&scene, "app", "Deployment", name).await?;
        let found = scene.has("apps/v1", "Deployment", name, wanted).await?;
        assert_eq!(found.pointer(container), Some(&json!("example.invalid/c")));
    }
    ensure!(first != uid(&scene, "ConfigMap", "deleted").await?);
    scene.is_ready("app").await?;
    Ok(())
}

#[tokio::test]
async fn the_field_and_its_manager_are_told() -> Result<()> {
    let scene = scene_of("told", &["edited", "emptied", "deleted"], &["scaled"]).await?;
    scale(&scene, "scaled", 3).await?;
    let by_hand = json!([{"op": "replace", "path": "/data/value", "value": "by hand"}]);
    json_patch::<ConfigMap>(&scene, "edited", by_hand).await?;
    json_patch::<ConfigMap>(&scene, "emptied", json!([{"op": "remove", "path": "/data/value"}])).await?;
    scene.api::<ConfigMap>().delete("deleted", &DeleteParams::default()).await?;
    for (kind, name, told) in [
        ("Deployment", "scaled", "was changed outside of Git (spec.replicas by kubectl (scale)) and is put back"),
        ("ConfigMap", "edited", "was changed outside of Git (data.value by kubectl-edit) and is put back"),
        ("ConfigMap", "emptied", "was changed outside of Git (data.value removed) and is put back"),
        ("ConfigMap", "deleted", "was deleted outside of Git and is put back"),
    ] {
        let note = drifted(&scene, "app", kind, name).await?;
        ensure!(note.contains(told), "{note}");
        // `gitseal status` has this message, too, below the line of the Sync.
        let status = gitseal(&scene, &["status"]).await?.is(0, &[])?;
        let below = status.out.lines().skip_while(|line| !line.starts_with("sync/app")).skip(1);
        let line = below.take_while(|line| line.starts_with("    ")).find(|line| line.contains(&format!("/{name} ")));
        let line = line.with_context(|| status.out.clone())?;
        ensure!(line.contains("    drifted ") && line.ends_with(&note), "{line}\n{note}");
    }
    let list = gitseal(&scene, &["status", "--output", "json"]).await?.is(0, &[])?;
    ensure!(!list.out.contains("drifted"), "{}", list.out);
    Ok(())
}

#[tokio::test]
async fn a_secret_and_its_sealed_secret_are_put_back() -> Result<()> {
    let scene = Scene::new("secrets").await?;
    for name in ["changed", "deleted", "unsealed"] {
        let password = scene.seal(name, b"correct horse").await?;
        let path = format!("app/{name}.yaml");
        scene.tree.write(&path, sealed_secret(name, &password))?;
    }
    let revision = scene.publish("secrets").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;

    let by_hand = json!([{"op": "replace", "path": "/data/password", "value": "YnkgaGFuZA=="}]);
    json_patch::<Secret>(&scene, "changed", by_hand).await?;
    let first = uid(&scene, "Secret", "deleted").await?;
    let delete = DeleteParams::default();
    scene.api::<Secret>().delete("deleted", &delete).await?;
    scene.api::<crds::SealedSecret>().delete("unsealed", &delete).await?;

    let good = json!({"data": {"password": "Y29ycmVjdCBob3JzZQ=="}});
    for name in ["changed", "deleted"] {
        let note = drifted(&scene, "app", "Secret", name).await?;
        assert!(!note.contains("horse") && !note.contains("Y29y"), "{note}");
        scene.has("v1", "Secret", name, good.clone()).await?;
    }
    ensure!(first != uid(&scene, "Secret", "deleted").await?);
    drifted(&scene, "app", "SealedSecret", "unsealed").await?;
    let sealed = scene.api::<crds::SealedSecret>().get("unsealed").await?;
    // The garbage collector deletes the Secret of the deleted SealedSecret. The new SealedSecret gets a Secret of its
    // own.
    let owner = json!([{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "unsealed", "controller": true, "uid": sealed.uid()}]);
    harness::eventually("the new SealedSecret to own its Secret", || async {
        let secret = scene.get("v1", "Secret", "unsealed").await?.context("none")?;
        let is_owned = (&owner.as_array().unwrap()[0], &secret["metadata"]["ownerReferences"][0]);
        ensure!(harness::scene::contains(is_owned.1, is_owned.0), "{}", is_owned.1);
        ensure!(harness::scene::contains(&secret, &good), "another value");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn what_others_add_is_no_drift() -> Result<()> {
    let maps = ["quiet", "marker"];
    let workloads = ["calm", "marker"];
    let scene = scene_of("others", &maps, &workloads).await?;
    let before = (applies(&scene, "quiet").await?, applies(&scene, "calm").await?);

    let deployments: Api<Deployment> = scene.api();
    let status =
        json!({"status": {"conditions": [{"type": "Tested", "status": "True", "reason": "A", "message": "B"}]}});
    deployments.patch_status("calm", &by("a-controller"), &Patch::Merge(&status)).await?;
    let restart = json!({
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "theirs"}},
        "spec": {"minReadySeconds": 7, "template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}}}},
    });
    deployments.patch("calm", &by("kubectl-rollout"), &Patch::Strategic(&restart)).await?;
    let same = json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "calm"},
        "spec": {"replicas": 0, "minReadySeconds": 8},
    });
    kubernetes::apply(&scene.client, &scene.namespace, same).await?;
    put::<Deployment>(&scene, "calm", |_| {}).await?;
    let more = json!({"metadata": {"labels": {"team": "a"}, "finalizers": ["example.com/theirs"]}, "data": {"more": "theirs"}});
    scene.api::<ConfigMap>().patch("quiet", &by("a-controller"), &Patch::Merge(&more)).await?;
    put::<ConfigMap>(&scene, "quiet", |map| {
        map.annotations_mut().insert("note".into(), "theirs".into());
    })
    .await?;

    marker_is_healed(&scene, "app", "Deployment").await?;
    marker_is_healed(&scene, "app", "ConfigMap").await?;
    let after = (applies(&scene, "quiet").await?, applies(&scene, "calm").await?);
    assert_eq!(before, after, "(quiet, calm) were written to");
    let theirs = json!({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "theirs"}}, "spec": {"minReadySeconds": 8}});
    scene.has("apps/v1", "Deployment", "calm", theirs).await?;
    let theirs =
        json!({"metadata": {"annotations": {"note": "theirs"}}, "data": {"more": "theirs", "value": "from-git"}});
    scene.has("v1", "ConfigMap", "quiet", theirs).await?;

    // The next commit does not undo these changes, either.
    let path = "app/quiet-map.yaml";
    scene.tree.write(path, config_map("quiet", "second"))?;
    let second = scene.publish("second").await?;
    scene.is_applied("app", &second).await?;
    let both = json!({"data": {"more": "theirs", "value": "second"}});
    scene.has("v1", "ConfigMap", "quiet", both).await?;
    json_patch::<ConfigMap>(&scene, "quiet", json!([{"op": "remove", "path": "/metadata/finalizers"}])).await
}

#[tokio::test]
async fn two_writers_that_fight_slow_down() -> Result<()> {
    let scene = scene_of("fight", &["fought-over"], &[]).await?;
    let by_hand = json!([{"op": "replace", "path": "/data/value", "value": "by hand"}]);
    for times in 1..=5 {
        json_patch::<ConfigMap>(&scene, "fought-over", by_hand.clone()).await?;
        let good = json!({"data": {"value": "from-git"}});
        scene.has("v1", "ConfigMap", "fought-over", good).await?;
        let note = if times == 1 { "is put back".to_owned() } else { format!("{times} times now") };
        event(&scene, "app", "Drifted", &["fought-over", &note]).await?;
    }
    // The fourth and the fifth heal were delayed. Each delay is twice the one before.
    let log = Plane::shared().await?.log().await;
    let pauses: Vec<_> = log
        .lines()
        .filter(|line| line.contains(&scene.namespace) && line.contains("keeps changing the object"))
        .collect();
    assert_eq!(pauses.len(), 2, "{pauses:#?}");
    Ok(())
}

/// Somebody changes the ConfigMap `fought-over` so often that its next heal waits for eight seconds.
async fn seventh_change(scene: &Scene) -> Result<Api<ConfigMap>> {
    let (by_hand, good) = (json!({"data": {"value": "by hand"}}), json!({"data": {"value": "from-git"}}));
    let maps: Api<ConfigMap> = scene.api();
    for times in 1..=7 {
        maps.patch("fought-over", &by("a-rival"), &Patch::Merge(&by_hand)).await?;
        if times < 7 {
            scene.has("v1", "ConfigMap", "fought-over", good.clone()).await?;
        }
    }
    Ok(maps)
}

#[tokio::test]
async fn what_waits_to_be_put_back_is_told_until_it_is() -> Result<()> {
    let scene = scene_of("waits", &["fought-over"], &[]).await?;
    seventh_change(&scene).await?;
    let told =
        ["ConfigMap", "/fought-over ", "was changed again", "is put back after a pause of 8 s", "`gitseal sync app`"];
    event(&scene, "app", "Drifted", &told).await?;
    let said = "/fought-over differs from Git";
    let message = async || {
        let sync = scene.api::<crds::Sync>().get("app").await?;
        let conditions = sync.status.unwrap_or_default().conditions;
        let ready = crds::find_condition(&conditions, crds::conditions::READY).context("not Ready")?;
        Ok::<_, anyhow::Error>(ready.message.clone())
    };
    harness::eventually("the status to say that it waits", || async {
        let message = message().await?;
        ensure!(message.contains(said), "{message}");
        Ok(())
    })
    .await?;
    gitseal(&scene, &["status"]).await?.is(0, &[said, "is put back after a pause of 8 s"])?;
    scene.has("v1", "ConfigMap", "fought-over", json!({"data": {"value": "from-git"}})).await?;
    harness::eventually("the status to say it no more", || async {
        let message = message().await?;
        ensure!(!message.contains(said), "{message}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn who_asks_for_a_sync_does_not_wait_for_the_end_of_a_pause() -> Result<()> {
    let scene = scene_of("hastened", &["fought-over"], &[]).await?;
    let maps = seventh_change(&scene).await?;
    event(&scene, "app", "Drifted", &["ConfigMap", "fought-over", "is put back after a pause of 8 s"]).await?;
    gitseal(&scene, &["sync", "app"]).await?.is(0, &["sync/app"])?;
    let data = maps.get("fought-over").await?.data.unwrap_or_default();
    assert_eq!(data.get("value").map(String::as_str), Some("from-git"), "it differs after the sync");
    // The requested sync does not reset the delays.
    maps.patch("fought-over", &by("a-rival"), &Patch::Merge(&json!({"data": {"value": "by hand"}}))).await?;
    event(&scene, "app", "Drifted", &["fought-over", "is put back after a pause of 16 s"]).await?;
    // A request by annotation ends the delay, too.
    handled(&scene, "app").await?;
    let data = maps.get("fought-over").await?.data.unwrap_or_default();
    assert_eq!(data.get("value").map(String::as_str), Some("from-git"), "it differs after the request");
    Ok(())
}

/// A tenant can make a Sync so large that the API server cannot store in its status that a request was handled.
#[tokio::test]
async fn a_request_that_cannot_be_answered_ends_a_pause_only_once() -> Result<()> {
    let scene = scene_of("unanswered", &["fought-over", "other"], &[]).await?;
    let maps = seventh_change(&scene).await?;
    let syncs = scene.api::<crds::Sync>();
    let mut room = 4_000;
    while !fill(&syncs, 1_572_864 - room).await? {
        room += 2_000;
        ensure!(room < 100_000, "no such Sync can be stored");
    }
    let (by_hand, good) = (json!({"data": {"value": "by hand"}}), json!({"data": {"value": "from-git"}}));
    scene.has("v1", "ConfigMap", "fought-over", good.clone()).await?;
    maps.patch("fought-over", &by("a-rival"), &Patch::Merge(&by_hand)).await?;
    maps.patch("other", &by("a-rival"), &Patch::Merge(&by_hand)).await?;
    scene.has("v1", "ConfigMap", "other", good).await?;
    let data = maps.get("fought-over").await?.data.unwrap_or_default();
    assert_eq!(data.get("value").map(String::as_str), Some("by hand"), "the same request ended the next pause, too");
    Ok(())
}

/// Requests a reconcile of the Sync `app`, and adds this number of bytes to its spec. Returns whether the API server
/// could store the Sync.
async fn fill(syncs: &Api<crds::Sync>, bytes: usize) -> Result<bool> {
    let difference = json!({"target": {"kind": "ConfigMap", "namespace": "x".repeat(bytes)}, "paths": ["/data/other"]});
    let patch = Patch::Merge(json!({
        "metadata": {"annotations": {crds::names::RECONCILE_REQUESTED_AT: "x".repeat(6_000)}},
        "spec": {"ignoreDifferences": [difference]},
    }));
    match syncs.patch_metadata("app", &by("a-tenant"), &patch).await {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.message.contains("too large") => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn a_commit_of_something_else_does_not_restart_a_fight() -> Result<()> {
    let scene = scene_of("unmoved", &["fought-over", "other"], &[]).await?;
    let maps = seventh_change(&scene).await?;
    // The heal waits for eight seconds, even if something is published meanwhile.
    scene.tree.write("app/other-map.yaml", config_map("other", "second"))?;
    let second = scene.publish("of the other one").await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "fought-over", json!({"data": {"value": "from-git"}})).await?;
    let (theirs, ours) = harness::eventually("both writes to be in the audit log", || async {
        let requests = Plane::shared().await?.cluster.requests()?;
        let last = |manager: &str| {
            let manager = format!("fieldManager={manager}");
            let mut of_map = requests.iter().rev().filter(|request| {
                request.namespace == scene.namespace && request.name == "fought-over" && request.verb == "patch"
            });
            of_map
                .find(|request| request.uri.contains(&manager))
                .map(|request| request.received.parse::<jiff::Timestamp>())
        };
        let (theirs, ours) = (last("a-rival").context("none")??, last("gitseal&").context("none")??);
        ensure!(ours > theirs);
        Ok((theirs, ours))
    })
    .await?;
    assert!(ours.duration_since(theirs).as_secs() >= 7, "it was put back after {}", ours.duration_since(theirs));

    // A commit that changes the object itself is applied without delay.
    maps.patch("fought-over", &by("a-rival"), &Patch::Merge(&json!({"data": {"value": "by hand"}}))).await?;
    scene.tree.write("app/fought-over-map.yaml", config_map("fought-over", "third"))?;
    let third = scene.publish("of the one that is fought over").await?;
    scene.is_applied("app", &third).await?;
    scene.has("v1", "ConfigMap", "fought-over", json!({"data": {"value": "third"}})).await.map(drop)
}

#[tokio::test]
async fn a_heal_takes_what_others_put_into_a_secret_out_in_the_same_pass() -> Result<()> {
    let scene = Scene::new("foreign-keys").await?;
    let names = ["more", "both", "instead"];
    for name in names {
        scene
            .tree
            .write(&format!("app/{name}.yaml"), sealed_secret(name, &scene.seal(name, b"correct horse").await?))?;
    }
    let revision = scene.publish("secrets").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    // A SealedSecret and its Secret have the same name, so each name counts two applies.
    for name in names {
        assert_eq!(applies(&scene, name).await?, 2);
    }
    let secrets: Api<Secret> = scene.api();
    for (name, change) in [
        ("more", json!({"data": {"theirs": "eA=="}})),
        ("both", json!({"data": {"theirs": "eA==", "password": "eA=="}})),
        ("instead", json!({"stringData": {"theirs": "x", "another": "y"}, "data": {"password": null}})),
    ] {
        secrets.patch(name, &by("kubectl-edit"), &Patch::Merge(&change)).await?;
        let data = json!({"password": "Y29ycmVjdCBob3JzZQ=="});
        harness::eventually(&format!("Secret {name} to be as Git says, and nothing else"), || async {
            let secret = scene.get("v1", "Secret", name).await?.context("none")?;
            // A value that is not from Git must not be printed.
            ensure!(
                secret["data"] == data,
                "{:?}",
                secret["data"].as_object().map(|data| data.keys().cloned().collect::<Vec<_>>())
            );
            Ok(())
        })
        .await?;
        drifted(&scene, "app", "Secret", name).await?;
    }
    handled(&scene, "app").await?;
    for name in names {
        assert_eq!(applies(&scene, name).await?, 4, "{name}: one heal is all that it takes");
    }
    Ok(())
}

#[tokio::test]
async fn ignored_differences_are_left_to_others() -> Result<()> {
    let scene = Scene::new("ignored").await?;
    scene.tree.write("app/web.yaml", deployment("web", 0))?;
    scene.tree.write("app/marker.yaml", deployment("marker", 0))?;
    let first = scene.publish("first").await?;
    let ignored = json!({"kind": "Deployment", "name": "web"});
    let spec = json!({"wait": false, "ignoreDifferences": [{"target": ignored, "paths": ["/spec/replicas"]}]});
    scene.sync("app", "./app", spec).await?;
    scene.is_applied("app", &first).await?;
    let before = applies(&scene, "web").await?;

    scale(&scene, "web", 3).await?;
    marker_is_healed(&scene, "app", "Deployment").await?;
    assert_eq!(applies(&scene, "web").await?, before);
    let scaled = json!({"spec": {"replicas": 3}});
    scene.has("apps/v1", "Deployment", "web", scaled.clone()).await?;

    // A commit does not change the ignored field, even if it changes the field in Git.
    let other = deployment("web", 1).replace("example.invalid/c", "example.invalid/d");
    scene.tree.write("app/web.yaml", other)?;
    let second = scene.publish("another image").await?;
    scene.is_applied("app", &second).await?;
    let found = scene.has("apps/v1", "Deployment", "web", scaled).await?;
    let image = found.pointer("/spec/template/spec/containers/0/image");
    assert_eq!(image, Some(&json!("example.invalid/d")));
    Ok(())
}

#[tokio::test]
async fn a_field_that_is_left_to_others_later_keeps_its_value() -> Result<()> {
    let scene = Scene::new("left-later").await?;
    scene.tree.write("app/web.yaml", deployment("web", 3))?;
    let first = scene.publish("three replicas").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &first).await?;
    let three = json!({"spec": {"replicas": 3}});
    scene.has("apps/v1", "Deployment", "web", three.clone()).await?;

    let applied = applies(&scene, "web").await?;
    let ignored = json!([{"target": {"kind": "Deployment"}, "paths": ["/spec/replicas"]}]);
    scene.sync("app", "./app", json!({"wait": false, "ignoreDifferences": ignored})).await?;
    scene.is_ready("app").await?;
    assert!(applies(&scene, "web").await? > applied, "the object was not applied without the field");
    scene.has("apps/v1", "Deployment", "web", three).await?;

    scale(&scene, "web", 5).await?;
    scene.tree.write("app/web.yaml", deployment("web", 2).replace("example.invalid/c", "example.invalid/d"))?;
    let second = scene.publish("another image").await?;
    scene.is_applied("app", &second).await?;
    scene.has("apps/v1", "Deployment", "web", json!({"spec": {"replicas": 5}})).await?;
    Ok(())
}

#[tokio::test]
async fn a_suspended_sync_heals_nothing_until_it_is_resumed() -> Result<()> {
    let scene = scene_of("suspended", &["settings"], &[]).await?;
    scene.tree.write("other/marker.yaml", config_map("marker", "from-git"))?;
    scene.publish("a marker").await?;
    scene.sync("other", "./other", json!({})).await?;
    scene.is_ready("other").await?;

    scene.sync("app", "./app", json!({"suspend": true})).await?;
    handled(&scene, "app").await?;
    let by_hand = json!([{"op": "replace", "path": "/data/value", "value": "by hand"}]);
    json_patch::<ConfigMap>(&scene, "settings", by_hand).await?;
    scene.tree.write("app/new.yaml", config_map("new", "first"))?;
    let commit = scene.publish("new").await?;
    marker_is_healed(&scene, "other", "ConfigMap").await?;
    handled(&scene, "app").await?;
    let found = kubernetes::objects(&scene.client, &scene.namespace, "v1", "ConfigMap");
    let settings: DynamicObject = found.get("settings").await?;
    assert_eq!(settings.data["data"]["value"], "by hand");
    assert_eq!(scene.get("v1", "ConfigMap", "new").await?, None);

    scene.sync("app", "./app", json!({"suspend": null})).await?;
    let good = json!({"data": {"value": "from-git"}});
    scene.has("v1", "ConfigMap", "settings", good).await?;
    scene.is_applied("app", &commit).await?;
    scene.has("v1", "ConfigMap", "new", json!({})).await?;
    Ok(())
}

#[tokio::test]
async fn what_is_never_changed_is_made_again_at_once_when_it_is_deleted() -> Result<()> {
    let scene = Scene::new("drift-only-made").await?;
    let made = |value: &str| {
        let annotations = "  name: made\n  annotations: {gitseal.dev/change: disabled}\n";
        config_map("made", value).replace("  name: made\n", annotations)
    };
    scene.tree.write("app/made.yaml", made("1"))?;
    let first = scene.publish("an object").await?;
    // The test does not wait as long as this interval.
    scene.sync("app", "./app", json!({"interval": "24h"})).await?;
    scene.is_applied("app", &first).await?;
    is_value(&scene, "made", "1").await?;
    let maps: Api<ConfigMap> = scene.api();
    maps.delete("made", &DeleteParams::default()).await?;
    is_value(&scene, "made", "1").await?;

    // It is made as it is in Git now, also if it differed before.
    change_by_hand(&scene, "made").await?;
    scene.tree.write("app/made.yaml", made("2"))?;
    scene.tree.write("app/other.yaml", config_map("other", "2"))?;
    let second = scene.publish("another content").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "other", "2").await?;
    is_value(&scene, "made", "by hand").await?;
    maps.delete("made", &DeleteParams::default()).await?;
    is_value(&scene, "made", "2").await
}
