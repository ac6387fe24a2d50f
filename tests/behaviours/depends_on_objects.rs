//! `spec.dependsOn` with objects of any kind: a Sync waits until they are healthy.

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::{Plane, Scene, eventually, kubernetes};
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::{
    cli::gitseal,
    objects::{apply_cluster_wide, config_map, define, deployment, is_value, widgets},
};

/// How often the controller read a Deployment of the scene.
async fn reads(scene: &Scene, name: &str) -> Result<usize> {
    let requests = Plane::shared().await?.cluster.requests()?;
    let reads = requests.into_iter().filter(|request| {
        (request.verb.as_str(), request.namespace.as_str(), request.name.as_str()) == ("get", &scene.namespace, name)
            && request.resource == "deployments"
            && !request.user.starts_with("system:")
    });
    Ok(reads.count())
}

pub(crate) fn on(kind: &str, api_version: &str, name: &str) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "name": name})
}

/// A Deployment `db` that nobody applies from Git. The control plane has no nodes, so a replica never runs.
pub(crate) fn database(replicas: u32) -> Value {
    json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "db"}, "spec": {
        "replicas": replicas, "selector": {"matchLabels": {"app": "db"}},
        "template": {"metadata": {"labels": {"app": "db"}}, "spec": {"containers": [{"name": "c", "image": "example.invalid/c"}]}}}})
}

/// Waits until the Sync says, with these texts, that it waits.
async fn waits(scene: &Scene, sync: &str, parts: &[&str]) -> Result<()> {
    scene
        .sync_when(sync, &format!("it to wait for {parts:?}"), |_, ready| {
            ready.reason == "DependencyNotReady" && parts.iter().all(|part| ready.message.contains(part))
        })
        .await
        .map(drop)
}

#[tokio::test]
async fn a_sync_waits_for_an_object_and_reads_it_only_when_it_changes() -> Result<()> {
    let scene = Scene::new("depends-object").await?;
    scene.tree.write("app/a.yaml", config_map("app", "1"))?;
    let revision = scene.publish("an app").await?;
    let spec = json!({"dependsOn": [on("ConfigMap", "v1", "settings"), on("Deployment", "apps/v1", "db")]});
    kubernetes::apply(
        &scene.client,
        &scene.namespace,
        json!({"apiVersion": "v1", "kind": "ConfigMap",
        "metadata": {"name": "settings"}}),
    )
    .await?;
    scene.sync("app", "./app", spec).await?;
    let named = format!("Deployment {}/db", scene.namespace);
    waits(&scene, "app", &[&named, "does not exist; create it"]).await?;
    gitseal(&scene, &["status", "app"]).await?.is(0, &["ConfigMap settings, Deployment db", "does not exist"])?;
    assert_eq!(reads(&scene, "db").await?, 1);
    // The next tries do not read the Deployment, because a watch shows that it still does not exist.
    let token = scene.request::<Sync>("app").await?;
    scene
        .sync_when("app", "another try", |sync, _| {
            sync.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_ref()) == Some(&token)
        })
        .await?;
    assert_eq!(reads(&scene, "db").await?, 1);
    ensure!(scene.get("v1", "ConfigMap", "app").await?.is_none());

    kubernetes::apply(&scene.client, &scene.namespace, database(1)).await?;
    waits(&scene, "app", &[&named, "0 of 1 replicas"]).await?;
    ensure!(reads(&scene, "db").await? > 1);
    let none = json!({"spec": {"replicas": 0}});
    let deployments = kubernetes::objects(&scene.client, &scene.namespace, "apps/v1", "Deployment");
    deployments.patch("db", &PatchParams::default(), &Patch::Merge(&none)).await?;
    scene.is_applied("app", &revision).await?;

    // A Sync does not wait again for an object of `spec.dependsOn` with a revision that is applied, but with the next
    // revision.
    deployments.delete("db", &DeleteParams::default()).await?;
    let before = reads(&scene, "db").await?;
    scene.tree.write("app/a.yaml", config_map("app", "2"))?;
    scene.publish("another one").await?;
    waits(&scene, "app", &[&named, "does not exist"]).await?;
    scene.has("v1", "ConfigMap", "app", json!({"data": {"value": "1"}})).await?;
    assert_eq!(reads(&scene, "db").await?, before + 1);
    // A newer revision that no longer waits is applied at once.
    scene.tree.write("app/a.yaml", config_map("app", "3"))?;
    let third = scene.publish("a third one").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &third).await?;
    Ok(())
}

/// A Sync `app` that waits for one thing after the other.
struct App<'s> {
    scene: &'s Scene,
    edits: std::cell::Cell<u32>,
}

impl App<'_> {
    /// Makes the Sync wait for this dependency with another content, until it is tried again only after more than 20 minutes,
    /// unless something wakes it: the pause doubles with each try that fails, and each edit makes the Sync try again at once.
    async fn waits_long_for(&self, dependency: Value, parts: &[&str]) -> Result<()> {
        let edit = async || -> Result<()> {
            self.edits.set(self.edits.get() + 1);
            let timeout = format!("{}m", self.edits.get());
            let spec = json!({"interval": "24h", "timeout": timeout, "dependsOn": [dependency]});
            self.scene.sync("app", "./app", spec).await?;
            waits(self.scene, "app", parts).await
        };
        edit().await?;
        self.scene.tree.write("app/a.yaml", config_map("app", &self.edits.get().to_string()))?;
        self.scene.publish("another content").await?;
        for _ in 0..12 {
            edit().await?;
        }
        Ok(())
    }

    /// Waits until the Sync has applied its content.
    async fn goes_on(&self) -> Result<()> {
        self.scene.is_ready("app").await?;
        is_value(self.scene, "app", &(self.edits.get() - 12).to_string()).await
    }
}

#[tokio::test]
async fn a_sync_is_woken_by_what_it_waits_for() -> Result<()> {
    let (scene, elsewhere) = (Scene::new("woken").await?, Scene::new("woken-elsewhere").await?);
    scene.tree.write("app/a.yaml", config_map("app", "none"))?;
    scene.publish("an app").await?;
    let app = App { scene: &scene, edits: std::cell::Cell::new(0) };
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}});
    let missing = ["settings", "does not exist"];

    // An object that does not exist yet, here and in another namespace.
    app.waits_long_for(on("ConfigMap", "v1", "settings"), &missing).await?;
    kubernetes::apply(&scene.client, &scene.namespace, settings.clone()).await?;
    app.goes_on().await?;
    let mut other = on("ConfigMap", "v1", "settings");
    other["namespace"] = json!(elsewhere.namespace);
    app.waits_long_for(other, &missing).await?;
    kubernetes::apply(&elsewhere.client, &elsewhere.namespace, settings).await?;
    app.goes_on().await?;

    // An object that is not healthy.
    kubernetes::apply(&scene.client, &scene.namespace, database(1)).await?;
    app.waits_long_for(on("Deployment", "apps/v1", "db"), &["0 of 1 replicas"]).await?;
    let deployments = kubernetes::objects(&scene.client, &scene.namespace, "apps/v1", "Deployment");
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    deployments.patch("db", &PatchParams::default(), &none).await?;
    app.goes_on().await?;

    // An object of the cluster, and an object of a kind that is not served yet.
    let group = format!("{}.example.test", scene.namespace);
    let definition = on("CustomResourceDefinition", "apiextensions.k8s.io/v1", &format!("widgets.{group}"));
    app.waits_long_for(definition, &["widgets", "does not exist"]).await?;
    let api_version = widgets(&scene).await?;
    app.goes_on().await?;
    let gadgets = format!("gadgets.{group}");
    let not_served = ["a kind that the cluster does not serve"];
    app.waits_long_for(on("Gadget", &format!("{gadgets}/v1"), "g"), &not_served).await?;
    define(&scene.client, &gadgets, "Gadget", "gadgets").await?;
    waits(&scene, "app", &["Gadget", "/g", "does not exist"]).await?;
    let gadget = json!({"apiVersion": format!("{gadgets}/v1"), "kind": "Gadget", "metadata": {"name": "g"}});
    kubernetes::apply(&scene.client, &scene.namespace, gadget).await?;
    app.goes_on().await?;

    // An object with an expression.
    let widget = json!({"apiVersion": api_version, "kind": "Widget", "metadata": {"name": "w"}});
    kubernetes::apply(&scene.client, &scene.namespace, widget).await?;
    let mut ready = on("Widget", &api_version, "w");
    ready["readyExpr"] = json!("has(dep.status) && dep.status.phase == 'Done'");
    app.waits_long_for(ready, &["Widget"]).await?;
    let done = Patch::Merge(json!({"status": {"phase": "Done"}}));
    let all = kubernetes::objects(&scene.client, &scene.namespace, &api_version, "Widget");
    all.patch_status("w", &PatchParams::default(), &done).await?;
    app.goes_on().await?;

    // Another Sync.
    scene.tree.write("base/web.yaml", deployment("base", 1))?;
    scene.publish("a base").await?;
    scene.sync("base", "./base", json!({"timeout": "1h"})).await?;
    app.waits_long_for(json!({"name": "base"}), &["base", "not Ready"]).await?;
    scene.tree.write("base/web.yaml", deployment("base", 0))?;
    scene.publish("a base without replicas").await?;
    app.goes_on().await
}

#[tokio::test]
async fn a_kind_that_comes_later_is_noticed() -> Result<()> {
    let scene = Scene::new("depends-kind").await?;
    let group = format!("{}.example.test", scene.namespace);
    let api_version = format!("{group}/v1");
    scene.tree.write("app/a.yaml", config_map("app", "1"))?;
    let revision = scene.publish("an app").await?;
    scene.sync("app", "./app", json!({"dependsOn": [on("Widget", &api_version, "w")]})).await?;
    waits(&scene, "app", &[&format!("Widget w of {api_version}, a kind that the cluster does not serve")]).await?;

    assert_eq!(widgets(&scene).await?, api_version);
    let named = format!("Widget.{group} {}/w", scene.namespace);
    waits(&scene, "app", &[&named, "does not exist"]).await?;
    let widget = json!({"apiVersion": api_version, "kind": "Widget", "metadata": {"name": "w"}});
    let says = |status: &str| {
        let ready = json!({"type": "Ready", "status": status, "reason": "Because", "message": "of the weather"});
        Patch::Merge(json!({"status": {"conditions": [ready]}}))
    };
    let widgets = kubernetes::objects(&scene.client, &scene.namespace, &api_version, "Widget");
    eventually("the kind to be served", || async {
        let made = kubernetes::apply(&scene.client, &scene.namespace, widget.clone()).await?;
        made.metadata.uid.context("no UID").map(drop)
    })
    .await?;
    // Without a status, an object of an unknown kind counts as healthy.
    scene.is_applied("app", &revision).await?;

    widgets.patch_status("w", &PatchParams::default(), &says("False")).await?;
    scene.tree.write("app/a.yaml", config_map("app", "2"))?;
    let second = scene.publish("another one").await?;
    waits(&scene, "app", &[&named, "Because: of the weather"]).await?;
    widgets.patch_status("w", &PatchParams::default(), &says("True")).await?;
    scene.is_applied("app", &second).await?;
    Ok(())
}

#[tokio::test]
async fn an_object_is_read_with_the_rights_of_the_sync() -> Result<()> {
    let scene = Scene::new("depends-rights").await?;
    let own = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]});
    scene.account("deployer", json!([own])).await?;
    scene.tree.write("app/a.yaml", config_map("app", "1"))?;
    let revision = scene.publish("an app").await?;
    kubernetes::apply(&scene.client, &scene.namespace, database(0)).await?;
    let spec = json!({"serviceAccountName": "deployer", "dependsOn": [on("Deployment", "apps/v1", "db")]});
    scene.sync("app", "./app", spec).await?;
    let message = scene.is_not_ready("app", "Forbidden").await?;
    for part in ["may not read Deployment", "/db, which spec.dependsOn names", "cannot get resource"] {
        ensure!(message.contains(part), "no {part:?} in: {message}");
    }
    ensure!(!message.contains("replicas"), "{message}");
    let read = json!({"apiGroups": ["apps"], "resources": ["deployments"], "verbs": ["get"]});
    scene.allow("deployer", &scene.namespace, json!([own, read])).await?;
    scene.is_applied("app", &revision).await?;

    let secret = scene.sync("app", "./app", json!({"dependsOn": [on("Secret", "v1", "password")]})).await;
    let refusal = format!("{:#}", secret.err().context("a Secret is accepted")?);
    ensure!(refusal.contains("a Secret cannot be waited for"), "{refusal}");
    Ok(())
}

#[tokio::test]
async fn objects_of_the_cluster_and_of_other_namespaces_need_rights_of_their_own() -> Result<()> {
    let (scene, elsewhere) = (Scene::new("depends-cluster").await?, Scene::new("depends-elsewhere").await?);
    let config_maps = json!({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]});
    scene.account("deployer", json!([config_maps])).await?;
    let group = format!("{}.example.test", scene.namespace);
    let definition = format!("widgets.{group}");
    let crd = on("CustomResourceDefinition", "apiextensions.k8s.io/v1", &definition);
    let mut settings = on("ConfigMap", "v1", "settings");
    settings["namespace"] = json!(elsewhere.namespace);
    let spec = |dependency: &Value| json!({"serviceAccountName": "deployer", "dependsOn": [dependency]});
    let write = async |value: &str| -> Result<String> {
        scene.tree.write("app/a.yaml", config_map("app", value))?;
        scene.publish(value).await
    };
    write("1").await?;
    // A namespace of its own is no right in another one, and none on objects of the cluster.
    for (dependency, named) in [
        (&crd, format!("CustomResourceDefinition {definition}, which spec.dependsOn names")),
        (&settings, format!("ConfigMap {}/settings, which spec.dependsOn names", elsewhere.namespace)),
    ] {
        scene.sync("app", "./app", spec(dependency)).await?;
        scene
            .sync_when("app", &named, |_, ready| ready.reason == "Forbidden" && ready.message.contains(&named))
            .await?;
    }
    ensure!(scene.get("v1", "ConfigMap", "app").await?.is_none());

    let read = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}]);
    elsewhere.allow("deployer", &scene.namespace, read).await?;
    waits(&scene, "app", &[&format!("ConfigMap {}/settings", elsewhere.namespace), "does not exist"]).await?;
    let made = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}});
    kubernetes::apply(&elsewhere.client, &elsewhere.namespace, made).await?;
    scene.is_ready("app").await?;

    let rules = json!([{"apiGroups": ["apiextensions.k8s.io"], "resources": ["customresourcedefinitions"], "verbs": ["get"],
        "resourceNames": [definition]}]);
    let (version, name) = ("rbac.authorization.k8s.io/v1", format!("reads-{}", scene.namespace));
    let subject = json!({"kind": "ServiceAccount", "name": "deployer", "namespace": scene.namespace});
    let role = json!({"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name});
    for object in [
        json!({"apiVersion": version, "kind": "ClusterRole", "metadata": {"name": name}, "rules": rules}),
        json!({"apiVersion": version, "kind": "ClusterRoleBinding", "metadata": {"name": name}, "roleRef": role, "subjects": [subject]}),
    ] {
        apply_cluster_wide(&scene.client, object).await?;
    }
    let second = write("2").await?;
    scene.sync("app", "./app", spec(&crd)).await?;
    waits(&scene, "app", &[&definition, "does not exist"]).await?;
    widgets(&scene).await?;
    scene.is_applied("app", &second).await.map(drop)
}

#[tokio::test]
async fn a_cycle_through_an_object_of_a_sync_is_named() -> Result<()> {
    let scene = Scene::new("depends-cycle").await?;
    scene.tree.write("one/a.yaml", config_map("one", "1"))?;
    scene.tree.write("two/web.yaml", deployment("web", 1))?;
    scene.publish("two folders").await?;
    scene.sync("two", "./two", json!({"wait": false})).await?;
    scene.is_ready("two").await?;
    scene.sync("one", "./one", json!({"dependsOn": [on("Deployment", "apps/v1", "web")]})).await?;
    waits(&scene, "one", &["0 of 1 replicas"]).await?;
    scene.sync("two", "./two", json!({"wait": false, "dependsOn": [{"name": "one"}]})).await?;
    let ns = &scene.namespace;
    let message = scene.is_not_ready("two", "DependencyCycle").await?;
    ensure!(
        message.contains(&format!("{ns}/two waits for {ns}/one waits for Deployment {ns}/web of {ns}/two")),
        "{message}"
    );
    scene.sync("two", "./two", json!({"wait": false})).await?;
    scene.is_ready("two").await?;
    Ok(())
}
