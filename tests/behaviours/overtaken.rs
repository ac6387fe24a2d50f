//! A newer revision overtakes an older one, whatever the older one waits for.

use std::{os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use crds::Sync;
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::{
    batch::v1::Job,
    core::v1::{ConfigMap, Event},
};
use kube::{
    Api, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{
    jobs::completes,
    objects::{config_map, define, is_value},
    renders::renderers,
};

/// Checks that no pass failed. A pass that waits until its time is over fails, and publishes an event.
async fn nothing_failed(scene: &Scene) -> Result<()> {
    let events = scene.api::<Event>().list(&ListParams::default()).await?.items;
    let warnings: Vec<_> = events
        .iter()
        .filter(|event| {
            event.type_.as_deref() == Some("Warning") && event.involved_object.kind.as_deref() == Some("Sync")
        })
        .collect();
    ensure!(warnings.is_empty(), "{warnings:#?}");
    Ok(())
}

/// Makes the program that renders behave like this shell script. The program is replaced in one step, because it may be
/// running. Processes that wait for the next render would go on as they are, so they are killed.
fn behave(controller: &mut Controller, program: &Path, script: &str) -> Result<()> {
    let new = program.with_extension("new");
    std::fs::write(&new, format!("#!/bin/sh\n{script}\n"))?;
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
    std::fs::rename(new, program)?;
    for idle in renderers(controller.process().pid()) {
        let _ = Command::new("kill").args(["-9", &idle.to_string()]).status()?;
    }
    Ok(())
}

/// The program that renders, and a control plane whose controller uses it.
async fn with_renderer() -> Result<(Plane, Controller, std::path::PathBuf)> {
    let plane = Plane::without_controller(ClusterOptions { controller_manager: false, ..Default::default() }).await?;
    let folder = plane.folder();
    let program = folder.join("renderer");
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.push(format!("--renderer={}", program.display()));
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    Ok((plane, controller, program))
}

#[tokio::test]
async fn a_render_that_hangs_is_given_up_for_a_newer_commit() -> Result<()> {
    let (plane, mut controller, program) = with_renderer().await?;
    let scene = Scene::on(&plane, "hanging-render", ServerOptions::default()).await?;
    let real = format!("exec {} \"$@\"", harness::programs::folder()?.join("gitseal-renderer").display());
    let begun = program.with_extension("begun");
    // This program writes a line, and never answers.
    let hangs = format!("echo begun >> {}; exec sleep 1000", begun.display());
    let has_begun = |times: usize| {
        let begun = &begun;
        async move {
            eventually("the render that hangs", || async {
                let text = std::fs::read_to_string(begun)?;
                ensure!(text.lines().count() == times, "{text}");
                Ok(())
            })
            .await
        }
    };
    let write = |prefix: &str, value: &str| {
        scene.tree.write("app/kustomization.yaml", format!("resources: [../base]\nnamePrefix: {prefix}-\n"))?;
        scene.tree.write("base/kustomization.yaml", "resources: [map.yaml]\n")?;
        scene.tree.write("base/map.yaml", config_map("map", value))
    };
    scene.repository(json!({})).await?;
    behave(&mut controller, &program, &hangs)?;
    write("first", "1")?;
    scene.publish("it was never rendered").await?;
    scene.sync("app", "./app", json!({})).await?;
    has_begun(1).await?;
    // As long as the folder was never rendered, it is not known that it depends on the base, so only a change of the folder
    // itself counts.
    behave(&mut controller, &program, &real)?;
    write("app", "2")?;
    let second = scene.publish("the folder and the base").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "app-map", "2").await?;

    behave(&mut controller, &program, &hangs)?;
    write("new", "2")?;
    scene.publish("it hangs again").await?;
    has_begun(2).await?;
    // A commit that changes nothing of what the folder depends on ends no render.
    scene.tree.write("other/README.md", "beside")?;
    scene.publish("beside the folder").await?;
    behave(&mut controller, &program, &real)?;
    write("app", "3")?;
    let last = scene.publish("it does not hang").await?;
    scene.is_applied("app", &last).await?;
    is_value(&scene, "app-map", "3").await?;
    ensure!(scene.get("v1", "ConfigMap", "new-map").await?.is_none(), "of the revision that was overtaken");
    has_begun(2).await?;

    // An edit of the Sync overtakes, too.
    behave(&mut controller, &program, &hangs)?;
    write("app", "4")?;
    scene.publish("it hangs once more").await?;
    has_begun(3).await?;
    scene.sync("app", "./app", json!({"suspend": true})).await?;
    eventually("the status of the suspended Sync", || async {
        let status = scene.api::<Sync>().get("app").await?.status.unwrap_or_default();
        let ready = crds::find_condition(&status.conditions, "Ready").context("no condition")?;
        ensure!(
            ready.message.contains("was suspended while") && ready.message.contains("at the stage render"),
            "{ready:?}"
        );
        Ok(())
    })
    .await?;
    nothing_failed(&scene).await?;
    let overtaken = controller.metric("gitseal_reconcile_total{kind=\"Sync\",outcome=\"Overtaken\"}").await?;
    ensure!(overtaken == Some(3), "{overtaken:?}");

    behave(&mut controller, &program, &real)?;
    scene.sync("app", "./app", json!({"suspend": false})).await?;
    is_value(&scene, "app-map", "4").await
}

/// A CustomResourceDefinition as a manifest.
fn definition(group: &str, plural: &str, kind: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: {plural}.{group}}}\nspec:\n  group: \
         {group}\n  scope: Namespaced\n  names: {{plural: {plural}, kind: {kind}}}\n  versions:\n  - name: v1\n    served: true\n    \
         storage: true\n    schema: {{openAPIV3Schema: {{type: object, x-kubernetes-preserve-unknown-fields: true}}}}\n"
    )
}

#[tokio::test]
async fn a_kind_that_is_never_served_is_given_up_for_a_newer_commit() -> Result<()> {
    let scene = Scene::new("never-served").await?;
    let group = format!("{}.example.test", scene.namespace);
    define(&scene.client, &group, "Widget", "widgets").await?;
    // Another definition of the group has the kind already, so this one is never established.
    scene.tree.write("app/definition.yaml", definition(&group, "others", "Widget"))?;
    scene.tree.write("app/map.yaml", config_map("map", "1"))?;
    scene.publish("a kind that is taken").await?;
    scene.sync("app", "./app", json!({"pruneLimit": "100%"})).await?;
    let name = format!("others.{group}");
    eventually("the definition, whose names are not accepted", || async {
        let found = cluster_wide(&scene, &name).await?.context("it is not there")?;
        let conditions = found["status"]["conditions"].as_array().context("no conditions")?;
        let refused = conditions.iter().any(|one| one["type"] == "NamesAccepted" && one["status"] == "False");
        ensure!(refused, "{conditions:?}");
        Ok(())
    })
    .await?;

    // What was applied of the older commit is in the inventory, so it is pruned when it leaves Git.
    scene.tree.remove("app/definition.yaml")?;
    scene.tree.write("app/second.yaml", definition(&group, "gadgets", "Gadget"))?;
    scene.tree.write("app/map.yaml", config_map("map", "2"))?;
    let second = scene.publish("a kind that is free").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "map", "2").await?;
    eventually("the definition to be pruned", || async {
        let found = cluster_wide(&scene, &name).await?;
        ensure!(found.is_none(), "{found:?}");
        Ok(())
    })
    .await?;
    nothing_failed(&scene).await
}

/// A CustomResourceDefinition in the cluster.
async fn cluster_wide(scene: &Scene, name: &str) -> Result<Option<Value>> {
    let resource = harness::kubernetes::resource("apiextensions.k8s.io/v1", "CustomResourceDefinition");
    let api = Api::<kube::api::DynamicObject>::all_with(scene.client.clone(), &resource);
    Ok(api.get_opt(name).await?.map(serde_json::to_value).transpose()?)
}

#[tokio::test]
async fn an_object_that_never_goes_is_given_up_for_a_newer_commit() -> Result<()> {
    const HOLDS: &str = "example.com/holds";
    let scene = Scene::new("never-goes").await?;
    let write = |file: &str, fixed: &str, other: &str| {
        let fixed = config_map("fixed", fixed).replace(
            "  name: fixed\n",
            "  name: fixed\n  annotations: {gitseal.dev/replace: allowed}\nimmutable: true\n",
        );
        scene.tree.write(file, fixed)?;
        scene.tree.write("app/other.yaml", config_map("other", other))
    };
    write("app/fixed.yaml", "1", "1")?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"interval": "1h"})).await?;
    scene.is_applied("app", &first).await?;
    let maps: Api<ConfigMap> = scene.api();
    let held = |finalizers: Value| json!({"metadata": {"finalizers": finalizers}});
    let patch = Patch::Merge(held(json!([HOLDS])));
    let uid = maps.patch("fixed", &PatchParams::default(), &patch).await?.uid();

    write("app/fixed.yaml", "2", "2")?;
    scene.publish("the object has to be replaced").await?;
    is_value(&scene, "other", "2").await?;
    eventually("the object to be deleted", || async {
        ensure!(maps.get("fixed").await?.metadata.deletion_timestamp.is_some());
        Ok(())
    })
    .await?;
    // The newer commit is applied before the object is gone. In this commit, the object is in another file.
    scene.tree.remove("app/fixed.yaml")?;
    write("app/moved.yaml", "3", "3")?;
    scene.tree.write("app/more.yaml", config_map("more", "3"))?;
    let third = scene.publish("newer").await?;
    is_value(&scene, "more", "3").await?;
    is_value(&scene, "other", "3").await?;
    assert_eq!(maps.get("fixed").await?.uid(), uid, "nobody has let go of it");
    let message = scene.is_not_ready("app", "ObjectTerminating").await?;
    ensure!(message.contains("app/moved.yaml") && message.contains(HOLDS), "{message}");
    let events = scene.api::<Event>().list(&ListParams::default()).await?.items;
    let of_older = |event: &&Event| event.message.as_deref().is_some_and(|message| message.contains("app/fixed.yaml"));
    let told: Vec<_> = events.iter().filter(of_older).collect();
    ensure!(told.is_empty(), "the older commit waited to the end: {told:#?}");

    maps.patch("fixed", &PatchParams::default(), &Patch::Merge(held(Value::Null))).await?;
    scene.is_applied("app", &third).await?;
    is_value(&scene, "fixed", "3").await?;
    assert_ne!(maps.get("fixed").await?.uid(), uid);
    Ok(())
}

#[tokio::test]
async fn a_test_of_a_chart_that_never_ends_is_given_up_for_a_newer_commit() -> Result<()> {
    let scene = Scene::new("never-ends").await?;
    // No controller runs this Job, so it ends only when the test says so.
    let smoke = "apiVersion: batch/v1\nkind: Job\nmetadata: {name: smoke, annotations: {helm.sh/hook: test}}\nspec:\n  managedBy: \
                 example.com/nobody\n  template: {spec: {restartPolicy: Never, containers: [{name: c, image: example.invalid/c}]}}\n";
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/map.yaml", config_map("app", "1"))?;
    scene.tree.write("chart/templates/smoke.yaml", smoke)?;
    scene.publish("a chart with a test").await?;
    scene.sync("app", "./chart", json!({"timeout": "1h", "helm": {"test": true}})).await?;
    let waits = |_: &Sync, ready: &crds::Condition| {
        ready.reason == "WaitingForHealth" && ready.message.contains("chart/templates/smoke.yaml:1: Job")
    };
    scene.has("batch/v1", "Job", "smoke", json!({})).await?;
    scene.sync_when("app", "it to wait for the test", waits).await?;
    let jobs: Api<Job> = scene.api();
    let first = jobs.get("smoke").await?.uid();

    scene.tree.write("chart/templates/map.yaml", config_map("app", "2"))?;
    let second = scene.publish("newer").await?;
    is_value(&scene, "app", "2").await?;
    // The test runs again for the newer revision, and the one that never ended is gone.
    eventually("the test to run again", || async {
        let now = jobs.get("smoke").await?.uid();
        ensure!(now != first, "{now:?}");
        Ok(())
    })
    .await?;
    completes(&scene, "smoke").await?;
    scene.is_applied("app", &second).await?;
    nothing_failed(&scene).await
}
