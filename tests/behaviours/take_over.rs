//! A Sync takes over objects that other tools made. Fields that leave Git are removed from the object, and fields that a
//! controller set stay.

use anyhow::{Context, Result, ensure};
use harness::{
    Plane, Scene,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::PersistentVolume};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams, PostParams},
};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{cli::gitseal, objects::deployment};

const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// For each tool: a name for its object, its field manager, and whether it uses server-side apply.
const TOOLS: [(&str, &str, bool); 7] = [
    ("by-kubectl-apply", "kubectl-client-side-apply", false),
    ("by-kubectl-create", "kubectl-create", false),
    ("by-kubectl-server-side", "kubectl", true),
    ("by-helm", "helm", false),
    ("by-flux", "kustomize-controller", true),
    ("by-argo", "argocd-controller", true),
    ("by-argo-client-side", "argocd-controller", false),
];

/// Creates an object as the tool with the field manager `manager` does: with a server-side apply or without.
async fn made_by(scene: &Scene, manager: &str, applies: bool, object: &Value) -> Result<()> {
    let text = |key: &str| object[key].as_str().context("no type");
    let api = kubernetes::objects(&scene.client, &scene.namespace, text("apiVersion")?, text("kind")?);
    let name = object["metadata"]["name"].as_str().context("no name")?;
    if applies {
        api.patch(name, &PatchParams::apply(manager).force(), &Patch::Apply(object)).await?;
    } else {
        let params = PostParams { field_manager: Some(manager.into()), ..PostParams::default() };
        let object: DynamicObject = serde_json::from_value(object.clone())?;
        api.create(&params, &object).await?;
    }
    Ok(())
}

async fn changed_by(scene: &Scene, manager: &str, kind: (&str, &str), name: &str, patch: Value) -> Result<()> {
    let params = PatchParams { field_manager: Some(manager.into()), ..PatchParams::default() };
    kubernetes::objects(&scene.client, &scene.namespace, kind.0, kind.1)
        .patch(name, &params, &Patch::Merge(patch))
        .await?;
    Ok(())
}

fn map(name: &str, data: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": {"team": "a"}}, "data": data})
}

fn without_label(mut object: Value) -> Value {
    object["metadata"]["labels"] = json!({});
    object
}

const CONFIG_MAP: (&str, &str) = ("v1", "ConfigMap");

#[tokio::test]
async fn what_leaves_git_leaves_the_cluster_whoever_made_the_object() -> Result<()> {
    let scene = Scene::new("taken").await?;
    let full = json!({"key": "value", "legacy": "unused"});
    for (name, manager, applies) in TOOLS {
        for when in ["later", "direct"] {
            let mut object = map(&format!("{name}-{when}"), full.clone());
            if !applies {
                object["metadata"]["annotations"] = json!({LAST_APPLIED: "{}", "note": "its own"});
            }
            made_by(&scene, manager, applies, &object).await?;
            let theirs = json!({"data": {"theirs": "a controller's"}});
            changed_by(&scene, "a-controller", CONFIG_MAP, &format!("{name}-{when}"), theirs).await?;
        }
        let later = map(&format!("{name}-later"), full.clone());
        scene.tree.write(&format!("app/{name}-later.json"), later.to_string())?;
        let direct = without_label(map(&format!("{name}-direct"), json!({"key": "value"})));
        scene.tree.write(&format!("app/{name}-direct.json"), direct.to_string())?;
    }
    let first = scene.publish("as it was made, and without what left already").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let is_clean = async |name: &str| {
        let found = scene.get("v1", "ConfigMap", name).await?.context("none")?;
        let data = json!({"key": "value", "theirs": "a controller's"});
        ensure!(found["data"] == data, "{name}: {found:#}");
        ensure!(found["metadata"]["labels"].get("team").is_none(), "{name}: {found:#}");
        ensure!(found["metadata"].get("annotations").is_none(), "{name}: {found:#}");
        Ok(())
    };
    for (name, ..) in TOOLS {
        is_clean(&format!("{name}-direct")).await?;
        let full = json!({"data": {"key": "value", "legacy": "unused"}, "metadata": {"labels": {"team": "a"}}});
        scene.has("v1", "ConfigMap", &format!("{name}-later"), full).await?;
        let later = without_label(map(&format!("{name}-later"), json!({"key": "value"})));
        scene.tree.write(&format!("app/{name}-later.json"), later.to_string())?;
    }
    let second = scene.publish("without a key and a label").await?;
    scene.is_applied("app", &second).await?;
    for (name, ..) in TOOLS {
        is_clean(&format!("{name}-later")).await?;
    }
    Ok(())
}

/// A Deployment without Pods, with the environment variable `KEEP` and those in `more`.
fn web(name: &str, more: &[&str], args: bool) -> Value {
    let env: Vec<_> = ["KEEP"].iter().chain(more).map(|name| json!({"name": name, "value": "1"})).collect();
    let mut container = json!({"name": "c", "image": "example.invalid/x:1", "env": env});
    if args {
        container["args"] = json!(["serve"]);
    }
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {
        "replicas": 0, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [container]}}}})
}

#[tokio::test]
async fn items_of_lists_go_and_defaults_stay() -> Result<()> {
    let scene = Scene::new("taken-items").await?;
    for (name, manager, applies) in TOOLS {
        made_by(&scene, manager, applies, &web(name, &["OLD"], true)).await?;
        scene.tree.write(&format!("app/{name}.json"), web(name, &[], false).to_string())?;
        changed_by(
            &scene,
            "kubectl-rollout",
            ("apps/v1", "Deployment"),
            name,
            json!({"spec": {"template": {"metadata": {"annotations": {"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"}}}}}),
        )
        .await?;
    }
    let first = scene.publish("without a variable and arguments").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    for (name, ..) in TOOLS {
        let restarted = json!({"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"});
        let wanted =
            json!({"spec": {"revisionHistoryLimit": 10, "template": {"metadata": {"annotations": restarted}}}});
        let found = scene.has("apps/v1", "Deployment", name, wanted).await?;
        let container = found.pointer("/spec/template/spec/containers/0").context("no container")?;
        ensure!(container["env"] == json!([{"name": "KEEP", "value": "1"}]), "{name}: {container:#}");
        ensure!(container.get("args").is_none(), "{name}: {container:#}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_a_controllers_stays() -> Result<()> {
    let scene = Scene::new("controllers").await?;
    // In Git, the Deployments do not have the field `replicas`. In one case an autoscaler has set this field, and in
    // the other case nobody has changed it since the object was created.
    let without_replicas = |name: &str| deployment(name, 0).replace("  replicas: 0\n", "");
    for name in ["autoscaled", "left-out"] {
        let mut object = web(name, &[], false);
        object["spec"]["replicas"] = json!(3);
        object["spec"]["paused"] = json!(true);
        object["spec"]["template"]["spec"]["containers"] = json!([{"name": "c", "image": "example.invalid/c"}]);
        made_by(&scene, "kubectl-client-side-apply", false, &object).await?;
        scene.tree.write(&format!("app/{name}.yaml"), without_replicas(name))?;
    }
    let scale = json!({"spec": {"replicas": 4}});
    let by = PatchParams { field_manager: Some("kube-controller-manager".into()), ..PatchParams::default() };
    scene.api::<Deployment>().patch_scale("autoscaled", &by, &Patch::Merge(scale)).await?;

    // There are two volume claims: one that the control plane has bound, and one that somebody exported and applied
    // again.
    let volume = |name: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolume", "metadata": {"name": format!("{}-{name}", scene.namespace)},
               "spec": {"capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "hostPath": {"path": "/none"},
                        "claimRef": {"namespace": scene.namespace, "name": name}, "storageClassName": "none"}})
    };
    let claim = |name: &str| {
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": name, "labels": {"team": "a"}},
               "spec": {"accessModes": ["ReadWriteOnce"], "storageClassName": "none",
                        "resources": {"requests": {"storage": "1Gi"}}}})
    };
    for name in ["bound", "written-back"] {
        let volume: PersistentVolume = serde_json::from_value(volume(name))?;
        Api::all(scene.client.clone()).create(&PostParams::default(), &volume).await?;
        made_by(&scene, "kubectl-create", false, &claim(name)).await?;
        let bound =
            json!({"spec": {"volumeName": format!("{}-{name}", scene.namespace)}, "status": {"phase": "Bound"}});
        let mut found = scene.has("v1", "PersistentVolumeClaim", name, bound).await?;
        if name == "written-back" {
            found["metadata"]["managedFields"] = json!(null);
            found["metadata"]["resourceVersion"] = json!(null);
            made_by(&scene, "kubectl", true, &found).await?;
        }
        scene.tree.write(&format!("app/{name}.json"), without_label(claim(name)).to_string())?;
    }
    let first = scene.publish("everything").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &first).await?;
    for (name, replicas) in [("autoscaled", 4), ("left-out", 3)] {
        let found = scene.has("apps/v1", "Deployment", name, json!({"spec": {"replicas": replicas}})).await?;
        ensure!(found["spec"].get("paused").is_none(), "{found:#}");
    }
    for name in ["bound", "written-back"] {
        let bound =
            json!({"spec": {"volumeName": format!("{}-{name}", scene.namespace)}, "status": {"phase": "Bound"}});
        let found = scene.has("v1", "PersistentVolumeClaim", name, bound).await?;
        ensure!(found["metadata"]["labels"].get("team").is_none(), "{found:#}");
    }
    Ok(())
}

#[tokio::test]
async fn a_controller_takes_over_from_the_tools_that_its_flag_names() -> Result<()> {
    let plane =
        Plane::without_controller(ClusterOptions { controller_manager: false, ..ClusterOptions::default() }).await?;
    let scene = Scene::on(&plane, "taken-flag", ServerOptions::default()).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.push("--take-over-from=mytool".into());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    scene.repository(json!({})).await?;
    for (name, manager) in [("named", "mytool"), ("not-named", "kubectl")] {
        made_by(&scene, manager, true, &map(name, json!({"key": "value", "legacy": "unused"}))).await?;
        scene.tree.write(&format!("app/{name}.json"), map(name, json!({"key": "value"})).to_string())?;
    }
    let first = scene.publish("without a key").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    for (name, data) in [("named", json!({"key": "value"})), ("not-named", json!({"key": "value", "legacy": "unused"}))]
    {
        let found = scene.get("v1", "ConfigMap", name).await?.with_context(|| format!("{name} is gone"))?;
        ensure!(found["data"] == data, "{name}: {found:#}");
    }
    Ok(())
}

#[tokio::test]
async fn an_object_that_nobody_else_made_costs_one_request() -> Result<()> {
    let scene = Scene::new("one-request").await?;
    scene.tree.write("app/new.json", map("new", json!({"key": "value"})).to_string())?;
    scene.tree.write("app/old.json", map("old", json!({"key": "value"})).to_string())?;
    made_by(&scene, "kubectl-create", false, &map("old", json!({"key": "value", "legacy": "unused"}))).await?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    scene.tree.write("app/new.json", map("new", json!({"key": "second"})).to_string())?;
    scene.tree.write("app/old.json", map("old", json!({"key": "second"})).to_string())?;
    // A field that somebody adds later stays, whichever tool they use.
    changed_by(&scene, "kubectl-edit", CONFIG_MAP, "old", json!({"data": {"added": "later"}})).await?;
    let second = scene.publish("second").await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "old", json!({"data": {"key": "second", "added": "later"}})).await?;
    let requests = Plane::shared().await?.cluster.requests()?;
    let of = |name: &str| {
        let of_controller = requests.iter().filter(|request| request.uri.contains("fieldManager=gitseal"));
        of_controller.filter(|request| request.namespace == scene.namespace && request.name == name).count()
    };
    assert_eq!((of("new"), of("old")), (2, 4), "an apply each, and two requests for the take-over");
    Ok(())
}

#[tokio::test]
async fn diff_shows_what_a_take_over_takes_away() -> Result<()> {
    let scene = Scene::new("taken-diff").await?;
    for (name, manager, applies) in TOOLS {
        made_by(&scene, manager, applies, &web(name, &["OLD"], true)).await?;
        scene.tree.write(&format!("app/{name}.json"), web(name, &[], false).to_string())?;
    }
    // Wait until Kubernetes' controllers have written the objects. Otherwise, their later writes would look like
    // differences.
    for (name, ..) in TOOLS {
        let done = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}},
                          "status": {"observedGeneration": 1}});
        scene.has("apps/v1", "Deployment", name, done).await?;
    }
    scene.sync("app", "./app", json!({"suspend": true})).await?;
    for arguments in [&["diff", "app", "--sync", "app"][..], &["diff", "app"]] {
        let said = gitseal(&scene, arguments).await?.is(1, &["7 would be changed"])?;
        for (text, count) in [("-        - name: OLD", 7), ("-        - serve", 7), ("KEEP", 7)] {
            ensure!(said.out.matches(text).count() == count, "not {count} times {text:?} in:\n{}", said.out);
        }
        for default in ["revisionHistoryLimit", "terminationGracePeriodSeconds", "managedFields"] {
            ensure!(!said.out.contains(&format!("-  {default}")), "{default} in:\n{}", said.out);
        }
    }
    let nobody = ["diff", "app", "--take-over-from", ""];
    gitseal(&scene, &nobody).await?.is(0, &["7 unchanged"])?;

    let first = scene.publish("as it is").await?;
    scene.sync("app", "./app", json!({"suspend": null})).await?;
    scene.is_applied("app", &first).await?;
    gitseal(&scene, &["diff", "app", "--sync", "app"]).await?.is(0, &["7 unchanged"])?;
    Ok(())
}
