//! The everyday commands: status, trace, history, events, suspend, resume.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Stdio},
};

use anyhow::{Context, Result, bail, ensure};
use crds::Sync;
use harness::{Plane, Scene, eventually, kubernetes, programs};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Pod},
};
use kube::{
    ResourceExt,
    api::{ListParams, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    cli::{Said, gitseal},
    objects::{config_map, deployment, sealed_secret},
};

async fn json_of(scene: &Scene, arguments: &[&str]) -> Result<Value> {
    let said = gitseal(scene, arguments).await?.is(0, &[])?;
    serde_json::from_str(&said.out).with_context(|| said.out)
}

#[tokio::test]
async fn who_suspends_says_why_and_everybody_sees_it() -> Result<()> {
    let scene = Scene::new("suspend").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    for name in ["web", "db"] {
        scene.sync(name, if name == "web" { "app" } else { "db" }, json!({})).await?;
    }
    scene.is_applied("web", &first).await?;
    scene.annotate::<Sync>("web", "note", "kept").await?;

    // Nothing is suspended by accident.
    gitseal(&scene, &["suspend", "--reason", "x"]).await?.is(2, &["no Sync and no Repository was named", "--all"])?;
    gitseal(&scene, &["suspend", "web"]).await?.is(2, &["--reason"])?;
    gitseal(&scene, &["suspend", "wbe", "--reason", "x"]).await?.is(1, &["sync/web"])?;
    gitseal(&scene, &["suspend", "web", "--reason", "freeze until Monday"]).await?.is(0, &["sync/web suspended"])?;
    gitseal(&scene, &["status", "web"]).await?.is(0, &["suspended: freeze until Monday (by gitseal-suspend, "])?;
    gitseal(&scene, &["sync", "web"])
        .await?
        .is(1, &["sync/web is suspended: freeze until Monday", "gitseal resume"])?;
    let again = ["suspend", "sync/web", "--reason", "freeze until Tuesday", "--output", "name"];
    assert_eq!(gitseal(&scene, &again).await?.is(0, &[])?.out, "sync.gitseal.dev/web\n");

    scene.tree.write("app/settings.yaml", config_map("settings", "2"))?;
    let second = scene.publish("second").await?;
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": "1"}})).await?;
    gitseal(&scene, &["resume", "sync.gitseal.dev/web"]).await?.is(0, &["sync/web resumed"])?;
    let sync = scene.is_applied("web", &second).await?;
    assert_eq!(sync.annotations().get("gitseal.dev/suspend-reason"), None);
    assert_eq!(sync.annotations().get("note").map(String::as_str), Some("kept"));
    gitseal(&scene, &["resume", "web"]).await?.is(0, &["was not suspended"])?;

    // `suspend` selects Syncs by their labels or, with --all, the Repository and every Sync.
    kubernetes::apply(
        &scene.client,
        &scene.namespace,
        json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "db", "labels": {"tier": "data"}},
            "spec": {"repository": {"name": "repo"}, "path": "db"}}),
    )
    .await?;
    // It is an error if nothing has these labels.
    let labels = &format!("No Repository and no Sync in namespace {} has the labels tier=dta", scene.namespace);
    gitseal(&scene, &["suspend", "-l", "tier=dta", "--reason", "x"]).await?.is(1, &[labels])?;
    gitseal(&scene, &["resume", "-l", "tier=dta"]).await?.is(1, &[labels])?;
    let labelled = gitseal(&scene, &["suspend", "-l", "tier=data", "--reason", "x"]).await?.is(0, &["sync/db"])?;
    ensure!(!labelled.out.contains("sync/web"), "{}", labelled.out);
    let labelled = gitseal(&scene, &["status", "-l", "tier=data", "-o", "name"]).await?.is(0, &[])?;
    assert_eq!(labelled.out, "sync.gitseal.dev/db\n");
    gitseal(&scene, &["suspend", "--all", "--reason", "x"]).await?.is(0, &["repository/repo suspended", "sync/web"])?;
    gitseal(&scene, &["resume", "--all"]).await?.is(0, &["repository/repo resumed", "sync/web resumed"])?;
    Ok(())
}

#[tokio::test]
async fn status_of_one_tells_more_of_it() -> Result<()> {
    let scene = Scene::new("status-one").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("web", "./app", json!({})).await?;
    scene.is_applied("web", &first).await?;
    let told = gitseal(&scene, &["status", "web"]).await?.is(0, &["Repository:  repo", "./app", "1: 1 ConfigMap"])?;
    ensure!(!told.out.contains("repository/repo"), "{}", told.out);
    gitseal(&scene, &["status", "repository/repo"])
        .await?
        .is(0, &["Follows:  branch main", &scene.server.url("repo")])?;
    let list = json_of(&scene, &["status", "web", "-o", "json"]).await?;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    assert_eq!(list["items"][0]["metadata"]["name"], "web");
    gitseal(&scene, &["status", "web", "-A"]).await?.is(2, &["cannot be used with"])?;

    // Names can have a kind before them, but a kind alone is no name.
    gitseal(&scene, &["status", "syncs/web", "Repositories.gitseal.dev/repo"]).await?.is(0, &["sync/web"])?;
    for kind in [&["syncs"][..], &["Repositories"], &["sync", "web"]] {
        let told = ["this is a kind: leave it out", "sync/NAME"];
        gitseal(&scene, &[&["status"], kind].concat()).await?.is(1, &told)?;
    }
    // Without `--namespace`, the message says which namespace was used, and why.
    let from = "namespace default (that of the kubeconfig's context)";
    let told = [format!("{from} has no Sync web"), format!("there is no ConfigMap settings in {from}")];
    for (arguments, told) in [["status", "sync/web"], ["sync", "sync/web"], ["trace", "cm/settings"]]
        .iter()
        .zip([&told[0], &told[0], &told[1]])
    {
        let mut command = programs::gitseal(Plane::shared().await?.cluster.kubeconfig())?;
        command.args(arguments);
        Said::from(tokio::task::spawn_blocking(move || command.output()).await??).is(1, &[told])?;
    }
    Ok(())
}

#[tokio::test]
async fn an_object_is_traced_to_its_line_in_git() -> Result<()> {
    let scene = Scene::new("trace").await?;
    let tree = &scene.tree;
    tree.write("app/settings.yaml", format!("{}---\n{}", config_map("one", "1"), config_map("two", "2")))?;
    tree.write("app/web.yaml", deployment("web", 1))?;
    tree.write("app/db.yaml", format!("# sealed\n{}", sealed_secret("db", &scene.seal("db", b"trace-value").await?)))?;
    let revision = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &revision).await?;
    let commit = revision.rsplit(':').next().context("commit")?;

    let object = json_of(&scene, &["trace", "cm/two", "-o", "json"]).await?;
    let namespace = &scene.namespace;
    let expected = json!({
        "object": {"apiVersion": "v1", "kind": "ConfigMap", "namespace": namespace, "name": "two"},
        "madeBy": [], "health": {"state": "healthy", "message": null}, "asApplied": true,
        "sync": {"namespace": namespace, "name": "app", "state": "ready"},
        "repository": {"namespace": namespace, "name": "repo", "url": scene.server.url("repo")},
        "revision": revision, "commit": commit, "file": {"path": "app/settings.yaml", "line": 8},
        "lastWriter": {"manager": "gitseal", "operation": "Apply"},
    });
    ensure!(harness::scene::contains(&object, &expected), "{object:#}");

    // A Secret is traced to its SealedSecret, and no value is shown.
    for secret in ["secret/db", "sealedsecrets.bitnami.com/db", "SealedSecrets.v1alpha1.bitnami.com/db"] {
        let told = gitseal(&scene, &["trace", secret]).await?.is(0, &["app/db.yaml:2", "healthy", commit])?;
        ensure!(!told.out.contains("trace-value"), "{}", told.out);
    }
    for web in ["deploy/web", "deployments.apps/web", "deployments.v1.apps/web"] {
        gitseal(&scene, &["trace", web]).await?.is(0, &["app/web.yaml:1"])?;
    }
    gitseal(&scene, &["trace", "deployments.v2.apps/web"]).await?.is(1, &["serves no kind deployments.v2.apps"])?;
    // A Pod is traced to its Deployment.
    let pods = scene.api::<Pod>();
    let pod = eventually("a Pod", || async {
        let found = pods.list(&ListParams::default().labels("app=web")).await?;
        found.items.first().map(ResourceExt::name_any).context("there is none")
    })
    .await?;
    let made_by = format!("Made by:      Deployment {namespace}/web");
    gitseal(&scene, &["trace", "pod", &pod])
        .await?
        .is(0, &["ReplicaSet", &made_by, "app/web.yaml:1", "in progress"])?;

    // While the Sync is suspended, drift is not healed. `trace` says that the object differs from Git, and who wrote it
    // last.
    gitseal(&scene, &["suspend", "app", "--reason", "look"]).await?.is(0, &[])?;
    let told = ["somebody changed fields in the cluster", "suspended: look", "Last writer"];
    eventually("the controller to leave it alone", || async {
        let meta = json!({"name": "one"});
        let changed = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": {"value": "mine"}});
        kubernetes::apply(&scene.client, namespace, changed).await?;
        gitseal(&scene, &["trace", "configmap/one"]).await?.is(0, &told).map(|_| ())
    })
    .await?;

    let by_hand = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "by-hand"}});
    kubernetes::apply(&scene.client, namespace, by_hand).await?;
    gitseal(&scene, &["trace", "configmap/by-hand"]).await?.is(1, &["none: the object is not from Git"])?;
    gitseal(&scene, &["trace", "configmap/nothing"]).await?.is(1, &["there is no ConfigMap nothing"])?;
    gitseal(&scene, &["trace", "unheard/nothing"]).await?.is(1, &["serves no kind unheard", "as kubectl does"])?;
    Ok(())
}

#[tokio::test]
async fn what_a_pass_applied_in_part_is_traced_to_its_own_commit() -> Result<()> {
    let scene = Scene::new("trace-part").await?;
    let frozen = |value: &str| format!("{}immutable: true\n", config_map("frozen", value));
    let write = async |value: &str| -> Result<String> {
        scene.tree.write("app/frozen.yaml", format!("# {value}\n{}", frozen(value)))?;
        scene.tree.write("app/other.yaml", format!("# {value}\n# and\n{}", config_map("other", value)))?;
        let sealed = sealed_secret("db", &scene.seal("db", value.as_bytes()).await?);
        scene.tree.write("app/db.yaml", format!("# {value}\n{sealed}"))?;
        scene.tree.write("app/same.yaml", config_map("same", "1"))?;
        scene.publish(value).await
    };
    let first = write("1").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let second = write("2").await?;
    scene.is_not_ready("app", "ApplyFailed").await?;
    for (object, revision, file, line) in [
        ("cm/frozen", &first, "app/frozen.yaml", 2),
        ("cm/other", &second, "app/other.yaml", 3),
        ("cm/same", &first, "app/same.yaml", 1),
        ("secret/db", &second, "app/db.yaml", 2),
        ("sealedsecret/db", &second, "app/db.yaml", 2),
    ] {
        let commit = revision.rsplit(':').next();
        let expected = json!({"revision": revision, "commit": commit, "file": {"path": file, "line": line}});
        let traced = json_of(&scene, &["trace", object, "-o", "json"]).await?;
        ensure!(harness::scene::contains(&traced, &expected), "{object}: {traced:#}\nnot {expected:#}");
    }
    // Without a local clone, it is not known which of the two commits the object is from.
    let mut command = programs::gitseal(Plane::shared().await?.cluster.kubeconfig())?;
    let outside = tempfile::tempdir()?;
    command.current_dir(outside.path()).args(["--namespace", &scene.namespace, "trace", "cm/other"]);
    let told = ["at least one of them was applied only in part", "only known inside a clone"];
    Said::from(tokio::task::spawn_blocking(move || command.output()).await??).is(0, &told)?;
    Ok(())
}

#[tokio::test]
async fn who_scaled_it_is_told_among_the_last_writers() -> Result<()> {
    let scene = Scene::new("trace-scale").await?;
    scene.tree.write("app/web.yaml", deployment("web", 0))?;
    let revision = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    gitseal(&scene, &["suspend", "app", "--reason", "look"]).await?.is(0, &[])?;
    let by = PatchParams { field_manager: Some("kubectl".into()), ..PatchParams::default() };
    eventually("the controller to leave it alone", || async {
        let patch = Patch::Merge(json!({"spec": {"replicas": 2}}));
        scene.api::<Deployment>().patch_scale("web", &by, &patch).await?;
        let told = ["or kubectl (Update of subresource scale)", "somebody changed fields in the cluster"];
        gitseal(&scene, &["trace", "deploy/web"]).await?.is(0, &told).map(|_| ())
    })
    .await?;
    let traced = json_of(&scene, &["trace", "deploy/web", "-o", "json"]).await?;
    let expected = json!([{"manager": "kubectl", "operation": "Update", "subresource": "scale", "time": null}]);
    assert_eq!(traced["undatedWriters"], expected);
    Ok(())
}

#[tokio::test]
async fn history_and_events_are_told_and_followed() -> Result<()> {
    let scene = Scene::new("history").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("web", "app", json!({})).await?;
    scene.is_applied("web", &first).await?;
    let entries = json_of(&scene, &["history", "web", "-o", "json"]).await?;
    let entry = json!({"namespace": scene.namespace, "sync": "web", "revision": first, "outcome": "Applied",
        "summary": "1 created"});
    ensure!(harness::scene::contains(&entries[0], &entry), "{entries:#}");
    eventually("the event", || async {
        let said = gitseal(&scene, &["events", "web"]).await?;
        said.is(0, &["LAST SEEN", "Applied", "sync/web"]).map(|_| ())
    })
    .await?;
    let events = json_of(&scene, &["events", "sync/web", "-o", "json"]).await?;
    assert_eq!(events["items"][0]["regarding"]["name"], "web");

    let mut history = Followed::start(&scene, &["history", "--watch", "repo"]).await?;
    let mut events = Followed::start(&scene, &["events", "--watch"]).await?;
    let mut status = Followed::start(&scene, &["status", "--watch", "web", "-o", "name"]).await?;
    history.says("1 created").await?;
    events.says("sync/web").await?;
    status.says("sync.gitseal.dev/web").await?;
    let mut table = Followed::start(&scene, &["status", "--watch"]).await?;
    table.says("sync/web").await?;
    let by_hand = Patch::Merge(json!({"data": {"value": "by hand"}}));
    let by = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    scene.api::<ConfigMap>().patch("settings", &by, &by_hand).await?;
    table.says("was changed outside of Git (data.value by kubectl-edit)").await?;
    scene.tree.write("app/settings.yaml", "data: [")?;
    scene.publish("broken").await?;
    history.says("InvalidManifest").await?;
    events.says("InvalidManifest").await?;
    gitseal(&scene, &["history"]).await?.is(0, &["sync/web", "InvalidManifest", "1 created"])?;
    gitseal(&scene, &["events", "-A"]).await?.is(0, &["NAMESPACE", &scene.namespace])?;
    Ok(())
}

#[tokio::test]
async fn namespaces_labels_and_formats_are_chosen_as_in_kubectl() -> Result<()> {
    let (scene, other) = (Scene::new("habits").await?, Scene::new("habits-other").await?);
    for (scene, names) in [(&scene, &["web", "db"][..]), (&other, &["elsewhere"])] {
        for name in names {
            scene.tree.write(&format!("{name}/settings.yaml"), config_map(&format!("of-{name}"), "1"))?;
        }
        let revision = scene.publish("first").await?;
        for name in names {
            scene.sync(name, name, json!({})).await?;
            scene.is_applied(name, &revision).await?;
        }
    }
    let labels = Patch::Merge(json!({"metadata": {"labels": {"tier": "data"}}}));
    scene.api::<Sync>().patch("db", &PatchParams::default(), &labels).await?;
    let (db, web, elsewhere) = ("sync/db", "sync/web", "sync/elsewhere");
    let table: [(&[&str], &str, &str); 10] = [
        (&["status", "-A", "-l", "tier!=data"], elsewhere, db),
        (&["status", "-l", "tier=data"], db, web),
        (&["status", "-o", "yaml"], "name: db", "name: elsewhere"),
        (&["history", "-A", "-l", "tier!=data"], elsewhere, db),
        (&["history", "-l", "tier=data"], db, web),
        (&["history", "-o", "yaml"], "sync: db", "sync: elsewhere"),
        (&["events", "-A", "-l", "tier!=data"], elsewhere, db),
        (&["events", "-l", "tier=data"], db, web),
        (&["events", "-o", "yaml"], "name: db", "name: elsewhere"),
        (&["trace", "cm/of-db", "-o", "yaml"], "name: of-db", "name: of-web"),
    ];
    for (arguments, present, absent) in table {
        // Events arrive with a delay.
        eventually(&format!("{arguments:?}"), || async {
            let told = gitseal(&scene, arguments).await?.is(0, &[present])?;
            ensure!(!told.out.contains(absent), "{}", told.out);
            Ok(())
        })
        .await?;
        if !arguments.contains(&"-A") {
            let told = gitseal(&scene, arguments).await?.is(0, &[present])?;
            ensure!(!told.out.contains("elsewhere"), "{arguments:?}: {}", told.out);
        }
    }
    // A single object has a namespace and a name, so these flags are refused.
    for more in [&["-A"][..], &["-l", "tier=data"]] {
        gitseal(&scene, &[&["trace", "cm/of-db"], more].concat()).await?.is(2, &["unexpected argument"])?;
    }
    Ok(())
}

/// A command that keeps running.
struct Followed {
    child: Child,
    lines: tokio::sync::mpsc::UnboundedReceiver<String>,
}

impl Followed {
    async fn start(scene: &Scene, arguments: &[&str]) -> Result<Self> {
        let mut command = programs::gitseal(Plane::shared().await?.cluster.kubeconfig())?;
        command.args(["--namespace", &scene.namespace]).args(arguments).stdout(Stdio::piped());
        let mut child = command.spawn()?;
        let (lines, told) = tokio::sync::mpsc::unbounded_channel();
        let out = BufReader::new(child.stdout.take().context("no output")?);
        std::thread::spawn(move || out.lines().map_while(Result::ok).try_for_each(|line| lines.send(line)));
        Ok(Self { child, lines: told })
    }

    async fn says(&mut self, part: &str) -> Result<()> {
        let limit = std::time::Duration::from_secs(60);
        let line = async {
            while let Some(line) = self.lines.recv().await {
                if line.contains(part) {
                    return Ok(());
                }
            }
            bail!("it ended without {part:?}")
        };
        tokio::time::timeout(limit, line).await.with_context(|| format!("it did not say {part:?}"))?
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
