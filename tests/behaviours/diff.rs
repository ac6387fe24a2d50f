//! Checks that the controller does what `gitseal diff` said before.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, bail, ensure};
use harness::{Plane, Scene, eventually, kubernetes};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    cli::gitseal,
    objects::{config_map, deployment, sealed_secret},
    traces::handled,
};

/// An object of the scene's namespace: its API version, kind and name.
type Object = (String, String, String);

/// The output of `diff --output json`, by object.
async fn foretold(scene: &Scene, code: i32) -> Result<BTreeMap<Object, Value>> {
    let said = gitseal(scene, &["diff", "app", "--sync", "app", "--output", "json"]).await?.is(code, &[])?;
    let entries: Vec<Value> = serde_json::from_str(&said.out)?;
    let text = |entry: &Value, key: &str| entry[key].as_str().unwrap_or_default().to_owned();
    let object = |entry: Value| {
        let kind = text(&entry, "kind");
        let version = match kind.as_str() {
            "Deployment" => "apps/v1",
            "Job" => "batch/v1",
            "SealedSecret" => "bitnami.com/v1alpha1",
            _ => "v1",
        };
        ((version.to_owned(), kind, text(&entry, "name")), entry)
    };
    Ok(entries.into_iter().map(object).collect())
}

/// The current state in the cluster of each of `objects`.
async fn live(scene: &Scene, objects: &BTreeMap<Object, Value>) -> Result<BTreeMap<Object, Option<Value>>> {
    let mut live = BTreeMap::new();
    for object in objects.keys() {
        live.insert(object.clone(), scene.get(&object.0, &object.1, &object.2).await?);
    }
    Ok(live)
}

/// Whether the change of an object from `before` to `after` is what `outcome` says.
fn has_come_true(outcome: &str, before: Option<&Value>, after: Option<&Value>) -> Result<bool> {
    let same = |pointer: &str| match (before, after) {
        (Some(before), Some(after)) => before.pointer(pointer) == after.pointer(pointer),
        _ => false,
    };
    let is_same_object = same("/metadata/uid");
    let is_untouched = is_same_object && same("/metadata/resourceVersion");
    Ok(match outcome {
        "created" => before.is_none() && after.is_some(),
        "unchanged" | "kept" | "unconfirmed" => is_untouched,
        "held" => is_untouched || before.is_none() && after.is_none(),
        "changed" | "unsealed" => is_same_object && !is_untouched,
        "replaced" => before.is_some() && after.is_some() && !is_same_object,
        "pruned" => before.is_some() && after.is_none(),
        "moved" => is_same_object && !same("/metadata/labels/gitseal.dev~1sync-name"),
        other => bail!("{other}?"),
    })
}

/// Waits until all announced changes have happened.
async fn comes_true(
    scene: &Scene,
    foretold: &BTreeMap<Object, Value>,
    before: &BTreeMap<Object, Option<Value>>,
) -> Result<()> {
    eventually("what was foretold", || async {
        let after = live(scene, foretold).await?;
        for (object, entry) in foretold {
            let outcome = entry["outcome"].as_str().context("outcome")?;
            let (before, after) = (before[object].as_ref(), after[object].as_ref());
            ensure!(has_come_true(outcome, before, after)?, "{entry:#}\nwas {before:#?}\nis {after:#?}");
        }
        Ok(())
    })
    .await
}

fn job(image: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: migrate, annotations: {{gitseal.dev/replace: allowed}}}}\n\
         spec:\n  managedBy: example.com/nobody\n  template:\n    spec:\n      restartPolicy: Never\n      \
         containers: [{{name: m, image: \"example.invalid/{image}\"}}]\n"
    )
}

#[tokio::test]
async fn every_kind_of_decision_is_foretold() -> Result<()> {
    let scene = Scene::new("foretold").await?;
    let (tree, kept) = (&scene.tree, "metadata:\n  annotations: {gitseal.dev/prune: disabled}\n");
    tree.write("app/settings.yaml", config_map("settings", "1"))?;
    tree.write("app/same.yaml", config_map("same", "1"))?;
    tree.write("app/theirs.yaml", config_map("theirs", "1") + "  own: '1'\n")?;
    tree.write("app/old.yaml", config_map("old", "1"))?;
    tree.write("app/kept.yaml", config_map("kept", "1").replace("metadata:\n", kept))?;
    tree.write("app/moves.yaml", config_map("moves", "1"))?;
    tree.write("app/job.yaml", job("1"))?;
    for name in ["db", "calm"] {
        tree.write(&format!("app/{name}.yaml"), sealed_secret(name, &scene.seal(name, b"first").await?))?;
    }
    tree.write("other/taken.yaml", config_map("taken", "1"))?;
    let first = scene.publish("first").await?;
    let ignored = json!([{"target": {"kind": "ConfigMap", "name": "theirs"}, "paths": ["/data/value"]}]);
    scene.sync("app", "./app", json!({"wait": false, "ignoreDifferences": ignored})).await?;
    scene.sync("other", "./other", json!({"wait": false})).await?;
    for name in ["app", "other"] {
        scene.is_applied(name, &first).await?;
    }
    let all = foretold(&scene, 0).await?;
    ensure!(all.values().all(|entry| entry["outcome"] == "unchanged") && all.len() == 11, "{all:#?}");
    // A Secret that was made by hand and has no SealedSecret.
    let by_hand = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "mine"}, "stringData": {"a": "b"}});
    kubernetes::apply(&scene.client, &scene.namespace, by_hand).await?;

    tree.write("app/settings.yaml", config_map("settings", "2"))?;
    tree.write("app/theirs.yaml", config_map("theirs", "2") + "  own: '1'\n")?;
    tree.write("app/new.yaml", config_map("new", "1"))?;
    for gone in ["old", "kept", "moves"] {
        tree.remove(&format!("app/{gone}.yaml"))?;
    }
    tree.write("other/moves.yaml", config_map("moves", "1"))?;
    tree.write("app/job.yaml", job("2"))?;
    for name in ["db", "mine", "made"] {
        tree.write(&format!("app/{name}.yaml"), sealed_secret(name, &scene.seal(name, b"second").await?))?;
    }
    tree.write("app/taken.yaml", config_map("taken", "2"))?;
    let uses = "envFrom: [{secretRef: {name: mine}}], name: c";
    tree.write("app/user.yaml", deployment("user", 0).replace("name: c,", &format!("{uses},")))?;

    let foretold = foretold(&scene, 2).await?;
    let outcomes: BTreeSet<_> = foretold.values().filter_map(|entry| entry["outcome"].as_str()).collect();
    let every = ["changed", "created", "held", "kept", "moved", "pruned", "replaced", "unchanged", "unsealed"];
    assert_eq!(outcomes, BTreeSet::from(every), "{foretold:#?}");
    let because = |kind: &str, name: &str| {
        let found = foretold.iter().find(|((_, of, is), _)| of == kind && is == name);
        found.and_then(|(_, entry)| entry["because"].as_str()).unwrap_or_default().to_owned()
    };
    let taken = because("ConfigMap", "taken");
    ensure!(taken.contains(&format!("it belongs to Sync {}/other", scene.namespace)), "{taken}");
    ensure!(because("Secret", "mine").contains("is not managed by SealedSecret"), "{foretold:#?}");
    ensure!(because("Deployment", "user").contains("it uses Secret 'mine'"), "{foretold:#?}");
    assert_eq!(because("ConfigMap", "moves"), format!("{}/other", scene.namespace));
    let before = live(&scene, &foretold).await?;
    scene.publish("second").await?;
    let message = scene.is_not_ready("app", "ObjectOwnedByAnotherSync").await?;
    ensure!(message.contains(&taken), "{message}");
    comes_true(&scene, &foretold, &before).await
}

#[tokio::test]
async fn a_prune_that_waits_or_is_not_wanted_is_foretold() -> Result<()> {
    let scene = Scene::new("foretold-prune").await?;
    for name in ["a", "b", "c"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "1"))?;
    }
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"pruneLimit": "1"})).await?;
    scene.is_applied("app", &first).await?;
    for name in ["a", "b"] {
        scene.tree.remove(&format!("app/{name}.yaml"))?;
    }
    let warning = "2 of 3 objects would be pruned, more than pruneLimit 1 of Sync";
    gitseal(&scene, &["diff", "app", "--sync", "app"])
        .await?
        .is(1, &[warning, "gitseal sync --confirm-prune", "2 would be pruned after a confirmation"])?;
    let waits = foretold(&scene, 1).await?;
    let before = live(&scene, &waits).await?;
    scene.publish("two go").await?;
    scene.is_not_ready("app", "PruneNeedsConfirmation").await?;
    comes_true(&scene, &waits, &before).await?;

    scene.sync("app", "./app", json!({"pruneLimit": "1", "prune": false})).await?;
    let ready = scene.is_ready("app").await?;
    ensure!(!ready.spec.prune);
    gitseal(&scene, &["diff", "app", "--sync", "app"])
        .await?
        .is(0, &["kept, because the Sync does not prune", "2 kept, 1 unchanged"])?;
    Ok(())
}

/// Discovery is requested only once for a kind, no matter how many objects of it there are.
#[tokio::test]
async fn a_kind_is_asked_for_once() -> Result<()> {
    const USER: &str = "whoever-diffs";
    let scene = Scene::new("foretold-kinds").await?;
    for name in ["a", "b", "c", "stays"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "1"))?;
    }
    let revision = scene.publish("four").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    for name in ["a", "b", "c"] {
        scene.tree.remove(&format!("app/{name}.yaml"))?;
    }
    let cluster = &Plane::shared().await?.cluster;
    let kubeconfig = cluster.kubeconfig_for(USER, &["system:masters"])?;
    let kubeconfig = kubeconfig.to_str().context("a path")?;
    gitseal(&scene, &["diff", "app", "--sync", "app", "--kubeconfig", kubeconfig])
        .await?
        .is(1, &["3 would be pruned after a confirmation"])?;
    eventually("what was asked to be in the audit log", || async {
        let mut asked = cluster.requests()?;
        asked.retain(|request| request.user == USER);
        let looks = asked.iter().filter(|request| request.resource == "configmaps" && request.verb == "get").count();
        ensure!(looks >= 4, "{asked:#?}");
        let discoveries = asked.iter().filter(|request| request.uri == "/api/v1").count();
        // A wrong number here cannot become right by waiting.
        assert_eq!(discoveries, 1, "{asked:#?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_folder_that_is_refused_is_refused_in_the_same_words() -> Result<()> {
    let scene = Scene::new("foretold-refusal").await?;
    scene.tree.write("app/a.yaml", config_map("a", "1"))?;
    scene.sync("app", "./app", json!({})).await?;
    let plaintext = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {a: b}\n".to_owned();
    let duplicate =
        config_map("a", "2").replace("metadata:\n", &format!("metadata:\n  namespace: {}\n", scene.namespace));
    let unknown = "apiVersion: example.com/v1\nkind: Unheard\nmetadata: {name: x}\n".to_owned();
    let twice = sealed_secret("db", "AgA=") + "---\napiVersion: v1\nkind: Secret\nmetadata: {name: db}\n";
    for (text, reason) in [
        (plaintext, "PlaintextSecret"),
        (duplicate, "DuplicateObject"),
        (twice, "DuplicateObject"),
        (unknown, "UnknownKind"),
    ] {
        scene.tree.write("app/refused.yaml", text)?;
        let said = gitseal(&scene, &["diff", "app", "--sync", "app"]).await?.is(2, &["app/refused.yaml:"])?;
        scene.publish(reason).await?;
        // Two cases have the same reason, so wait for the message, too.
        eventually("the same words", || async {
            let message = scene.is_not_ready("app", reason).await?;
            let (_, words) = message.split_once(": ").context("no stage")?;
            ensure!(said.err.contains(words), "{message}\n{}", said.err);
            Ok(())
        })
        .await?;
        ensure!(said.out.is_empty(), "{}", said.out);
    }
    Ok(())
}

#[tokio::test]
async fn what_somebody_touched_and_what_is_left_to_others_is_foretold() -> Result<()> {
    let scene = Scene::new("foretold-drift").await?;
    for name in ["touched", "beside", "left"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "1"))?;
    }
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    // From now on, the Sync ignores this value. While it is suspended, it still owns the field.
    let ignored = json!([{"target": {"name": "left"}, "paths": ["/data/value"]}]);
    scene.sync("app", "./app", json!({"suspend": true, "ignoreDifferences": ignored.clone()})).await?;
    // Without this wait, the controller might not have seen the suspension, and would put everything back.
    handled(&scene, "app").await?;
    let maps = scene.api::<ConfigMap>();
    let by_hand = |data: Value| Patch::Merge(json!({"data": data}));
    maps.patch("touched", &PatchParams::default(), &by_hand(json!({"value": "by hand"}))).await?;
    maps.patch("beside", &PatchParams::default(), &by_hand(json!({"more": "by hand"}))).await?;
    gitseal(&scene, &["diff", "app", "--sync", "app"])
        .await?
        .is(1, &["-  value: by hand", "is suspended", "1 would be changed, 2 unchanged"])?;

    scene.sync("app", "./app", json!({"suspend": null, "ignoreDifferences": ignored})).await?;
    scene.has("v1", "ConfigMap", "touched", json!({"data": {"value": "1"}})).await?;
    scene.is_ready("app").await?;
    scene.has("v1", "ConfigMap", "left", json!({"data": {"value": "1"}})).await?;
    scene.has("v1", "ConfigMap", "beside", json!({"data": {"value": "1", "more": "by hand"}})).await?;
    gitseal(&scene, &["diff", "app", "--sync", "app"]).await?.is(0, &["3 unchanged"])?;
    Ok(())
}

#[tokio::test]
async fn what_only_an_inventory_says_is_another_syncs_is_foretold_as_ones_own() -> Result<()> {
    let scene = Scene::new("foretold-forged").await?;
    scene.account("nobody", json!([])).await?;
    for name in ["goes", "stays", "more"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "1"))?;
    }
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    scene.sync("forger", "./app", json!({"serviceAccountName": "nobody", "suspend": true})).await?;
    let ids = ["goes", "stays", "comes"].map(|name| format!("{}_{name}__ConfigMap", scene.namespace));
    let inventory = ids.map(|id| json!({"id": id, "v": "v1"}));
    let patch = json!({"status": {"inventory": inventory}});
    scene.api::<crds::Sync>().patch_status("forger", &PatchParams::default(), &Patch::Merge(&patch)).await?;

    scene.tree.remove("app/goes.yaml")?;
    scene.tree.write("app/comes.yaml", config_map("comes", "1"))?;
    scene.tree.write("app/stays.yaml", config_map("stays", "2"))?;
    let foretold = foretold(&scene, 1).await?;
    for (name, outcome) in [("goes", "pruned"), ("stays", "changed"), ("more", "unchanged"), ("comes", "created")] {
        let said = &foretold[&("v1".to_owned(), "ConfigMap".to_owned(), name.to_owned())];
        ensure!(said["outcome"] == outcome, "{said}");
    }
    let before = live(&scene, &foretold).await?;
    scene.publish("second").await?;
    comes_true(&scene, &foretold, &before).await
}

#[tokio::test]
async fn what_moves_in_the_working_copy_is_no_conflict() -> Result<()> {
    let scene = Scene::new("diff-moves").await?;
    scene.tree.write("base/all.yaml", format!("{}---\n{}", config_map("shared", "1"), config_map("stays", "1")))?;
    scene.tree.write("app/own.yaml", config_map("own", "1"))?;
    let first = scene.publish("two folders").await?;
    for name in ["base", "app"] {
        scene.sync(name, &format!("./{name}"), json!({})).await?;
        scene.is_applied(name, &first).await?;
    }
    // An object in both folders is a conflict.
    scene.tree.write("app/shared.yaml", config_map("shared", "1"))?;
    let entries = foretold(&scene, 2).await?;
    let shared = entries.values().find(|entry| entry["name"] == "shared").context("shared")?;
    ensure!(shared["outcome"] == "held", "{shared}");
    // An object that left the other folder is handed over.
    scene.tree.write("base/all.yaml", config_map("stays", "1"))?;
    let said = gitseal(&scene, &["diff", "app", "--sync", "app"]).await?.is(0, &[])?;
    let note = format!("left the folder of Sync {}/base, which would hand it over to this Sync", scene.namespace);
    ensure!(said.err.contains(&note) && !said.out.contains("held back"), "{}\n{}", said.err, said.out);
    let second = scene.publish("moved").await?;
    for name in ["base", "app"] {
        scene.is_applied(name, &second).await?;
    }
    Ok(())
}
