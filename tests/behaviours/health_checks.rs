//! `spec.healthChecks` and `readyExpr`: expressions of the Sync that say when an object is as it should be.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use crds::{Sync, find_condition};
use harness::{Scene, eventually, kubernetes};
use kube::api::{ListParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    objects::{config_map, widgets},
    waves::in_wave,
};

/// Writes the status of Widget `w`, as its controller would.
async fn says(scene: &Scene, api_version: &str, status: Value) -> Result<()> {
    let widgets = kubernetes::objects(&scene.client, &scene.namespace, api_version, "Widget");
    let status = json!({"status": status});
    eventually("the Widget to be there", || async {
        widgets.patch_status("w", &PatchParams::default(), &Patch::Merge(&status)).await?;
        Ok(())
    })
    .await
}

async fn waits(scene: &Scene, sync: &str, reason: &str, parts: &[&str]) -> Result<()> {
    scene
        .sync_when(sync, &format!("{reason} with {parts:?}"), |_, ready| {
            ready.reason == reason && parts.iter().all(|part| ready.message.contains(part))
        })
        .await
        .map(drop)
}

#[tokio::test]
async fn objects_are_healthy_when_the_expressions_of_the_sync_say_so() -> Result<()> {
    let scene = Scene::new("checks").await?;
    let api_version = widgets(&scene).await?;
    let widget = |size: u32| {
        format!(
            "# the widget\napiVersion: {api_version}\nkind: Widget\nmetadata: {{name: w}}\nspec: {{size: {size}}}\n"
        )
    };
    scene.tree.write("app/w.yaml", widget(1))?;
    scene.tree.write("app/last.yaml", in_wave("1", &config_map("last", "1")))?;
    let first = scene.publish("a widget").await?;
    let check = json!({"apiVersion": api_version, "kind": "Widget", "current": "status.phase == 'Done'",
        "failed": "status.phase == 'Broken'"});
    scene.sync("app", "./app", json!({"waves": "healthy", "healthChecks": [check]})).await?;
    // By the built-in rules, an object without a status would be healthy. The Sync's own health check counts instead.
    waits(
        &scene,
        "app",
        "WaitingForHealth",
        &["app/w.yaml:2: Widget", "`failed` cannot be evaluated: there is no field 'phase'"],
    )
    .await?;
    says(&scene, &api_version, json!({"phase": "Working", "message": "half of it"})).await?;
    waits(&scene, "app", "WaitingForHealth", &["it is Working: half of it"]).await?;
    says(&scene, &api_version, json!({"phase": "Broken", "message": "a wheel is missing"})).await?;
    waits(&scene, "app", "HealthCheckFailed", &["app/w.yaml:2: Widget", "failed: it is Broken: a wheel is missing"])
        .await?;
    ensure!(scene.get("v1", "ConfigMap", "last").await?.is_none());

    // A newer revision overtakes the one that is stuck.
    scene.tree.write("app/w.yaml", widget(2))?;
    scene.publish("another size").await?;
    scene.has(&api_version, "Widget", "w", json!({"spec": {"size": 2}})).await?;
    says(&scene, &api_version, json!({"phase": "Done", "message": null})).await?;
    scene.has("v1", "ConfigMap", "last", json!({"data": {"value": "1"}})).await?;
    let sync = scene.is_ready("app").await?;
    ensure!(sync.status.is_some_and(|status| status.last_applied_revision.is_some_and(|revision| revision != first)));

    // Changed expressions count at once, also for objects that are already applied.
    let check = json!({"apiVersion": api_version, "kind": "Widget", "current": "self.status.phase == 'Perfect'"});
    scene.sync("app", "./app", json!({"healthChecks": [check]})).await?;
    waits(&scene, "app", "WaitingForHealth", &["it is Done"]).await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_ready("app").await?;
    Ok(())
}

#[tokio::test]
async fn an_expression_that_is_wrong_is_told_with_its_place_until_it_is_corrected() -> Result<()> {
    let scene = Scene::new("checks-wrong").await?;
    scene.tree.write("app/a.yaml", config_map("app", "1"))?;
    let first = scene.publish("an app").await?;
    let check =
        |current: &str| json!({"healthChecks": [{"apiVersion": "v1", "kind": "ConfigMap", "current": current}]});
    for (current, parts) in [
        ("data.value ==", ["spec.healthChecks[0].current: line 1, column", "mismatched input"]),
        (
            "dat.value == '1'",
            ["spec.healthChecks[0].current: line 1, column 1: 'dat' is not known", "use self (the object)"],
        ),
    ] {
        scene.sync("app", "./app", check(current)).await?;
        let message = scene.is_not_ready("app", "InvalidExpression").await?;
        ensure!(parts.iter().all(|part| message.contains(part)), "{message}");
        let sync = scene.api::<Sync>().get("app").await?;
        let conditions = sync.status.context("no status")?.conditions;
        ensure!(find_condition(&conditions, "Stalled").is_some(), "{conditions:?}");
    }
    ensure!(scene.get("v1", "ConfigMap", "app").await?.is_none());
    let secret = json!({"healthChecks": [{"apiVersion": "v1", "kind": "Secret", "current": "data.a != ''"}]});
    let refusal = format!("{:#}", scene.sync("app", "./app", secret).await.err().context("a Secret is accepted")?);
    ensure!(refusal.contains("expressions about Secrets are not evaluated"), "{refusal}");
    scene.sync("app", "./app", check("data.value == '1'")).await?;
    scene.is_applied("app", &first).await?;
    Ok(())
}

#[tokio::test]
async fn a_sync_waits_until_the_expression_about_an_object_is_true() -> Result<()> {
    let scene = Scene::new("ready-expr").await?;
    scene.tree.write("app/a.yaml", config_map("app", "1"))?;
    let revision = scene.publish("an app").await?;
    let gate = |value: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gate"}, "data": {"for": value}});
    kubernetes::apply(&scene.client, &scene.namespace, gate("nobody")).await?;
    let expression = "dep.data['for'] == self.metadata.name";
    let on = json!({"apiVersion": "v1", "kind": "ConfigMap", "name": "gate", "readyExpr": expression});
    scene.sync("app", "./app", json!({"dependsOn": [on]})).await?;
    let named = format!("it waits for ConfigMap {}/gate: its readyExpr is not true", scene.namespace);
    waits(&scene, "app", "DependencyNotReady", &[&named]).await?;
    kubernetes::apply(
        &scene.client,
        &scene.namespace,
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "gate"}}),
    )
    .await?;
    waits(&scene, "app", "DependencyNotReady", &["its readyExpr cannot be evaluated: there is no field 'data'"])
        .await?;
    kubernetes::apply(&scene.client, &scene.namespace, gate("app")).await?;
    scene.is_applied("app", &revision).await?;

    // A `readyExpr` can use all fields of a Sync, as of any other object.
    scene.tree.write("other/a.yaml", config_map("other", "1"))?;
    let revision = scene.publish("another one").await?;
    let on = json!({"name": "app", "readyExpr": "dep.spec.path == './app' && dep.status.observedGeneration > 0"});
    scene.sync("other", "./other", json!({"dependsOn": [on]})).await?;
    scene.is_applied("other", &revision).await?;
    Ok(())
}

/// An expression with loops in loops, which takes billions of steps.
fn endless() -> String {
    let numbers = "[0,1,2,3,4,5,6,7,8,9]";
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i", "j", "k"];
    names.iter().rev().fold("true".to_owned(), |inner, name| format!("{numbers}.all({name}, {inner})"))
}

/// An expression that doubles a text until the text has gigabytes.
fn huge() -> String {
    format!("['xxxxxxxxxxxxxxxx']{}.size() == 2", ".map(a, a + a)".repeat(28))
}

#[tokio::test]
async fn a_hostile_expression_is_stopped_and_delays_nobody_else() -> Result<()> {
    let (hostile, other) = (Scene::new("checks-hostile").await?, Scene::new("checks-other").await?);
    let syncs: Vec<_> = (0..12).map(|number| format!("app-{number}")).collect();
    for sync in &syncs {
        hostile.tree.write(&format!("{sync}/a.yaml"), config_map(sync, "1"))?;
    }
    hostile.publish("many").await?;
    let check =
        |current: &str| json!({"healthChecks": [{"apiVersion": "v1", "kind": "ConfigMap", "current": current}]});
    for (number, sync) in syncs.iter().enumerate() {
        let current = if number == 0 { huge() } else { endless() };
        hostile.sync(sync, sync, check(&current)).await?;
    }
    let told = || async {
        let all = hostile.api::<Sync>().list(&ListParams::default()).await?;
        let told = all.items.iter().filter(|sync| {
            let conditions = sync.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            find_condition(conditions, "Ready").is_some_and(|ready| ready.reason == "HealthCheckFailed")
        });
        anyhow::Ok(told.filter_map(|sync| sync.metadata.name.clone()).collect::<BTreeSet<_>>())
    };
    // At least one of the hostile expressions has been evaluated, or is being evaluated.
    eventually("the first hostile expression to be stopped", || async {
        ensure!(!told().await?.is_empty());
        Ok(())
    })
    .await?;
    other.tree.write("app/a.yaml", config_map("app", "1"))?;
    let revision = other.publish("an app").await?;
    other.sync("app", "./app", check("data.value == '1'")).await?;
    other.is_applied("app", &revision).await?;
    ensure!(told().await?.len() < syncs.len(), "all hostile expressions were evaluated before the other one");

    let message = hostile.is_not_ready("app-1", "HealthCheckFailed").await?;
    let parts = ["spec.healthChecks[0] could not be evaluated: it took longer than 3 s", "make the expression simpler"];
    ensure!(parts.iter().all(|part| message.contains(part)), "{message}");
    let message = hostile.is_not_ready("app-0", "HealthCheckFailed").await?;
    ensure!(message.contains("it needs more than 128 MiB of memory"), "{message}");
    Ok(())
}
