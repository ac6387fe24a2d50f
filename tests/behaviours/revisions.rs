//! Applying one revision: which objects are refused and with which message, which wait for others, and in which order they
//! are applied.

use anyhow::{Result, ensure};
use crds::{ConditionStatus, find_condition};
use harness::{Plane, Scene, eventually, kubernetes};
use serde_json::{Value, json};

use crate::{
    objects::{apply_cluster_wide, config_map, deployment, sealed_secret},
    traces::handled,
};

fn custom_resource_definition(group: &str) -> Value {
    json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("widgets.{group}")},
        "spec": {
            "group": group, "scope": "Namespaced",
            "names": {"kind": "Widget", "listKind": "WidgetList", "plural": "widgets", "singular": "widget"},
            "versions": [{
                "name": "v1", "served": true, "storage": true,
                "schema": {"openAPIV3Schema": {
                    "type": "object",
                    "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
                }},
            }],
        },
    })
}

fn widget(group: &str) -> String {
    format!("apiVersion: {group}/v1\nkind: Widget\nmetadata: {{name: wheel}}\nspec: {{size: 3}}\n")
}

fn version(object: &Value) -> String {
    object["metadata"]["resourceVersion"].to_string()
}

#[tokio::test]
async fn a_broken_manifest_says_where_and_changes_nothing() -> Result<()> {
    let scene = Scene::new("broken").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "good"))?;
    let first = scene.publish("good").await?;
    scene.sync("app", "./app", json!({})).await?;
    let sync = scene.is_applied("app", &first).await?;
    let inventory = sync.status.unwrap().inventory;
    let good = json!({"data": {"value": "good"}});
    let before = scene.has("v1", "ConfigMap", "settings", good.clone()).await?;

    let changed = config_map("settings", "changed");
    let cases = [
        (
            "not YAML",
            format!("{changed}---\nkind: ConfigMap\n  apiVersion: [\n"),
            "InvalidManifest",
            vec!["render: app/settings.yaml:9: not valid YAML"],
        ),
        (
            "no name",
            format!("{changed}---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{labels: {{a: b}}}}\n"),
            "InvalidManifest",
            vec!["render: app/settings.yaml:8: metadata.name is missing"],
        ),
        (
            "unknown field",
            format!("{changed}dta: {{value: typo}}\n"),
            "ApplyFailed",
            vec!["apply: app/settings.yaml:1: ConfigMap", "settings", "dta"],
        ),
    ];
    for (what, file, reason, texts) in cases {
        scene.tree.write("app/settings.yaml", file)?;
        let bad = scene.publish(what).await?;
        let sync = scene
            .sync_when("app", what, |sync, ready| {
                let status = sync.status.as_ref().unwrap();
                status.last_attempted_revision.as_ref() == Some(&bad) && ready.status == ConditionStatus::False
            })
            .await?;
        let message = scene.is_not_ready("app", reason).await?;
        for text in texts {
            assert!(message.contains(text), "{what}: no {text:?} in: {message}");
        }
        let status = sync.status.unwrap();
        assert_eq!(status.last_applied_revision.as_ref(), Some(&first), "{what}");
        assert_eq!(status.inventory, inventory, "{what}");
        assert_eq!(status.history[0].revision, bad, "{what}");
        assert_eq!(status.history[0].outcome, reason, "{what}");
        let after = scene.has("v1", "ConfigMap", "settings", good.clone()).await?;
        assert_eq!(version(&before), version(&after), "{what}: it was written to");
    }

    scene.tree.write("app/settings.yaml", config_map("settings", "better"))?;
    let fixed = scene.publish("fixed").await?;
    scene.is_applied("app", &fixed).await?;
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": "better"}})).await?;
    Ok(())
}

#[tokio::test]
async fn a_revert_of_a_broken_commit_is_a_revision_like_any_other() -> Result<()> {
    let scene = Scene::new("revert").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "good"))?;
    let first = scene.publish("good").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.write("app/settings.yaml", "{")?;
    scene.publish("bad").await?;
    scene.is_not_ready("app", "InvalidManifest").await?;
    scene.tree.remove("app/settings.yaml")?;
    scene.tree.write("elsewhere.yaml", "")?;
    scene.publish("the folder is gone").await?;
    scene.is_not_ready("app", "PathNotFound").await?;
    scene.has("v1", "ConfigMap", "settings", json!({})).await?;

    // The folder is again as it was last applied.
    scene.tree.write("app/settings.yaml", config_map("settings", "good"))?;
    let back = scene.publish("back").await?;
    let sync = scene.is_applied("app", &back).await?;
    let newest = sync.status.unwrap().history.remove(0);
    assert_eq!((newest.revision, newest.outcome.as_str()), (back, "Applied"));
    Ok(())
}

#[tokio::test]
async fn an_unknown_kind_waits_for_its_definition() -> Result<()> {
    let scene = Scene::new("unknown").await?;
    let group = format!("{}.example.com", scene.namespace);
    scene.tree.write("app/a.yaml", config_map("settings", "1"))?;
    scene.tree.write("app/b.yaml", format!("# a widget\n---\n{}", widget(&group)))?;
    let revision = scene.publish("a kind that nobody knows").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "UnknownKind").await?;
    for text in ["app/b.yaml:3: Widget", "wheel", &group, "CustomResourceDefinition"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    assert!(scene.get("v1", "ConfigMap", "settings").await?.is_none());

    apply_cluster_wide(&scene.client, custom_resource_definition(&group)).await?;
    scene.is_applied("app", &revision).await?;
    scene.has(&format!("{group}/v1"), "Widget", "wheel", json!({"spec": {"size": 3}})).await?;
    scene.has("v1", "ConfigMap", "settings", json!({})).await?;
    Ok(())
}

#[tokio::test]
async fn a_kind_and_a_namespace_come_with_what_needs_them() -> Result<()> {
    let scene = Scene::new("together").await?;
    let group = format!("{}.example.com", scene.namespace);
    let other = format!("{}-other", scene.namespace);
    // The names are chosen so that the needed object would be last in alphabetical order.
    scene.tree.write("app/a.yaml", widget(&group))?;
    scene.tree.write(
        "app/b.yaml",
        config_map("inside", "1").replace("name: inside", &format!("name: inside\n  namespace: {other}")),
    )?;
    scene.tree.write("app/y.json", custom_resource_definition(&group).to_string())?;
    scene.tree.write("app/z.yaml", format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {other}}}\n"))?;
    let revision = scene.publish("everything at once").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    scene.has(&format!("{group}/v1"), "Widget", "wheel", json!({"spec": {"size": 3}})).await?;
    let inside = kubernetes::objects(&scene.client, &other, "v1", "ConfigMap");
    inside.get("inside").await?;
    // No object was applied too early.
    let requests = Plane::shared().await?.cluster.requests()?;
    let refused = requests.iter().find(|request| {
        let is_ours = request.namespace == scene.namespace || request.namespace == other;
        is_ours && request.uri.contains("fieldManager=gitseal&") && request.code >= 400
    });
    assert_eq!(refused, None);
    Ok(())
}

#[tokio::test]
async fn a_field_that_a_custom_resource_lacks_is_refused() -> Result<()> {
    let scene = Scene::new("schema").await?;
    let group = format!("{}.example.com", scene.namespace);
    apply_cluster_wide(&scene.client, custom_resource_definition(&group)).await?;
    let misspelt = widget(&group).replace("size: 3", "size: 3, colour: red");
    scene.tree.write("app/a.yaml", format!("{}---\n{misspelt}", config_map("settings", "1")))?;
    scene.publish("a field too many").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    for text in ["app/a.yaml:8: Widget", "wheel", "colour"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    assert!(scene.get(&format!("{group}/v1"), "Widget", "wheel").await?.is_none());
    scene.tree.write("app/a.yaml", widget(&group))?;
    let fixed = scene.publish("fixed").await?;
    scene.is_applied("app", &fixed).await.map(drop)
}

#[tokio::test]
async fn a_plaintext_secret_is_refused_and_shown_nowhere() -> Result<()> {
    const VALUE: &str = "correct-horse-battery-staple";
    const ENCODED: &str = "Y29ycmVjdC1ob3JzZS1iYXR0ZXJ5LXN0YXBsZQ==";
    let scene = Scene::new("plaintext").await?;
    scene.tree.write("app/a.yaml", config_map("settings", "1"))?;
    scene.sync("app", "./app", json!({})).await?;
    for values in [
        format!("stringData: {{password: {VALUE}}}"),
        format!("data: {{password: {ENCODED}}}"),
        // This is not a valid Secret, but it was meant as one.
        format!("data: {VALUE}"),
    ] {
        scene
            .tree
            .write("app/login.yaml", format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: login}}\n{values}\n"))?;
        let revision = scene.publish("oops").await?;
        scene
            .sync_when("app", "it to be refused", |sync, ready| {
                let status = sync.status.as_ref().unwrap();
                status.last_attempted_revision.as_ref() == Some(&revision) && ready.reason == "PlaintextSecret"
            })
            .await?;
        let message = scene.is_not_ready("app", "PlaintextSecret").await?;
        for text in ["app/login.yaml:1: Secret", "login", "gitseal seal -i app/login.yaml"] {
            assert!(message.contains(text), "no {text:?} in: {message}");
        }
        assert!(scene.get("v1", "Secret", "login").await?.is_none());
        assert!(scene.get("v1", "ConfigMap", "settings").await?.is_none());
    }
    let events = events_about(&scene, "PlaintextSecret").await?;
    let status = scene.get("gitseal.dev/v1alpha1", "Sync", "app").await?;
    let log = Plane::shared().await?.log().await;
    for (place, text) in [("events", events.to_string()), ("status", json!(status).to_string()), ("log", log)] {
        assert!(!text.is_empty(), "{place}");
        assert!(!text.contains(VALUE) && !text.contains(ENCODED), "the value is in the {place}");
    }
    Ok(())
}

/// All events of the namespace, as soon as one of them has this reason.
async fn events_about(scene: &Scene, reason: &str) -> Result<Value> {
    eventually("the event", || async {
        let events = kubernetes::objects(&scene.client, &scene.namespace, "events.k8s.io/v1", "Event");
        let events = serde_json::to_value(events.list(&kube::api::ListParams::default()).await?.items)?;
        let is_there = events.as_array().is_some_and(|all| all.iter().any(|event| event["reason"] == reason));
        ensure!(is_there, "{events:#}");
        Ok(events)
    })
    .await
}

#[tokio::test]
async fn what_is_needed_is_applied_before_what_needs_it() -> Result<()> {
    /// More workloads than are written at the same time, so that the order cannot be right by chance.
    const WORKLOADS: usize = 20;
    let scene = Scene::new("waves").await?;
    let image = "image: example.invalid/c";
    let with_secret = format!("{image}, envFrom: [{{secretRef: {{name: login}}}}]");
    let workloads = (0..WORKLOADS).map(|number| deployment(&format!("web-{number}"), 0).replace(image, &with_secret));
    // The names are chosen so that the needed object would be last in alphabetical order.
    scene.tree.write("app/a.yaml", workloads.collect::<Vec<_>>().join("---\n"))?;
    scene.tree.write("app/b.yaml", sealed_secret("login", &scene.seal("login", b"x").await?))?;
    scene.tree.write("app/c.yaml", "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: web}\n")?;
    let revision = scene.publish("workloads and their Secret").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    let mut expected = vec!["serviceaccounts", "sealedsecrets", "secrets"];
    expected.extend(["deployments"; WORKLOADS]);
    eventually("every write to be in the audit log", || async {
        let requests = Plane::shared().await?.cluster.requests()?;
        let writes: Vec<_> = requests
            .iter()
            .filter(|request| request.namespace == scene.namespace && request.uri.contains("fieldManager=gitseal&"))
            .map(|request| request.resource.as_str())
            .collect();
        ensure!(writes == expected, "{writes:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_refused_object_is_named_with_its_place() -> Result<()> {
    let scene = Scene::new("refused").await?;
    let frozen = |value| format!("# frozen\n{}immutable: true\n", config_map("frozen", value));
    scene.tree.write("app/frozen.yaml", frozen("1"))?;
    let first = scene.publish("frozen").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.write("app/frozen.yaml", frozen("2"))?;
    scene.tree.write("app/other.yaml", config_map("other", "1"))?;
    scene.publish("thawed").await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    for text in ["app/frozen.yaml:2: ConfigMap", "frozen", "immutable"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    scene.has("v1", "ConfigMap", "frozen", json!({"data": {"value": "1"}})).await?;
    // The objects that were applied are tracked: when they are deleted from Git, they are pruned.
    scene.has("v1", "ConfigMap", "other", json!({})).await?;
    scene.tree.remove("app/other.yaml")?;
    scene.tree.write("app/frozen.yaml", frozen("1"))?;
    let back = scene.publish("never mind").await?;
    scene.is_applied("app", &back).await?;
    scene.is_gone("v1", "ConfigMap", "other").await
}

#[tokio::test]
async fn history_keeps_ten_revisions() -> Result<()> {
    let scene = Scene::new("history").await?;
    scene.sync("app", "./app", json!({})).await?;
    let mut revisions = Vec::new();
    for round in 0..12 {
        scene.tree.write("app/settings.yaml", config_map("settings", &format!("v{round}")))?;
        let revision = scene.publish("again").await?;
        scene.is_applied("app", &revision).await?;
        revisions.push(revision);
    }
    let sync = scene.is_ready("app").await?;
    let history = sync.status.unwrap().history;
    let kept: Vec<_> = history.iter().map(|entry| &entry.revision).collect();
    let newest: Vec<_> = revisions.iter().rev().take(10).collect();
    assert_eq!(kept, newest);
    assert!(history.iter().all(|entry| entry.outcome == "Applied"));
    Ok(())
}

#[tokio::test]
async fn who_asks_is_told_the_newest_revision_in_field_and_message_alike() -> Result<()> {
    let scene = Scene::new("asked").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    scene.tree.write("elsewhere/other.yaml", config_map("other", "1"))?;
    let second = scene.publish("beside it").await?;
    let status = handled(&scene, "app").await?.status.unwrap();
    ensure!(status.last_applied_revision.as_ref() == Some(&second), "{status:#?}");
    let ready = find_condition(&status.conditions, "Ready").unwrap();
    ensure!(
        ready.status == ConditionStatus::True && ready.message == format!("applied {second}: 1 object"),
        "{ready:?}"
    );
    Ok(())
}
