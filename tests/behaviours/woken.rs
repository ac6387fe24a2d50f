//! A Sync that waits is tried again as soon as what it waits for happens. The controller of this test never tries again by
//! itself, so the test fails if an event wakes nobody.

use anyhow::Result;
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use kube::api::{Patch, PatchParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{
    depends_on_objects::{database, on},
    objects::{config_map, define, deployment, is_value, widgets},
};

/// A Sync `app` that waits for one thing after the other.
struct App<'a> {
    scene: &'a Scene,
    commits: std::cell::Cell<u32>,
}

impl App<'_> {
    /// Publishes another revision, with `dependency` in the Sync, and waits until the Sync waits with this text.
    async fn waits_for(&self, dependency: Value, text: &str) -> Result<String> {
        self.commits.set(self.commits.get() + 1);
        // The Sync is edited before the commit, so the commit is not applied without the dependency.
        self.scene.sync("app", "./app", json!({"dependsOn": [dependency]})).await?;
        let value = self.commits.get().to_string();
        self.scene.tree.write("app/a.yaml", config_map("app", &value))?;
        let revision = self.scene.publish(&value).await?;
        self.scene
            .sync_when("app", &format!("it to wait: {text}"), |sync, ready| {
                let attempted = sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_ref());
                ready.reason == "DependencyNotReady" && ready.message.contains(text) && attempted == Some(&revision)
            })
            .await?;
        Ok(revision)
    }

    /// Waits until the Sync has applied this revision.
    async fn goes_on(&self, revision: &str) -> Result<()> {
        self.scene.is_applied("app", revision).await?;
        is_value(self.scene, "app", &self.commits.get().to_string()).await
    }
}

#[tokio::test]
async fn a_sync_is_woken_by_what_it_waits_for() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.program = "impatient-controller";
    options.environment.push(("GITSEAL_NO_RETRIES".to_owned(), "1".to_owned()));
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "woken", ServerOptions::default()).await?;
    let elsewhere = Scene::on(&plane, "elsewhere", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    let app = App { scene: &scene, commits: std::cell::Cell::new(0) };
    let map = |name: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}});

    // An object that does not exist yet, here and in another namespace.
    let revision = app.waits_for(on("ConfigMap", "v1", "settings"), "settings does not exist").await?;
    kubernetes::apply(&scene.client, &scene.namespace, map("settings")).await?;
    app.goes_on(&revision).await?;
    let mut other = on("ConfigMap", "v1", "settings");
    other["namespace"] = json!(elsewhere.namespace);
    let revision = app.waits_for(other, "settings does not exist").await?;
    kubernetes::apply(&elsewhere.client, &elsewhere.namespace, map("settings")).await?;
    app.goes_on(&revision).await?;

    // An object that is not healthy.
    kubernetes::apply(&scene.client, &scene.namespace, database(1)).await?;
    let revision = app.waits_for(on("Deployment", "apps/v1", "db"), "replicas").await?;
    let none = Patch::Merge(json!({"spec": {"replicas": 0}}));
    let deployments = kubernetes::objects(&scene.client, &scene.namespace, "apps/v1", "Deployment");
    deployments.patch("db", &PatchParams::default(), &none).await?;
    app.goes_on(&revision).await?;

    // An object of the cluster, and an object of a kind that is not served yet.
    let group = format!("{}.example.test", scene.namespace);
    let crd = on("CustomResourceDefinition", "apiextensions.k8s.io/v1", &format!("widgets.{group}"));
    let revision = app.waits_for(crd, "does not exist").await?;
    let api_version = widgets(&scene).await?;
    app.goes_on(&revision).await?;
    let gadgets = format!("gadgets.{group}");
    let revision =
        app.waits_for(on("Gadget", &format!("{gadgets}/v1"), "g"), "a kind that the cluster does not serve").await?;
    define(&scene.client, &gadgets, "Gadget", "gadgets").await?;
    let gadget = json!({"apiVersion": format!("{gadgets}/v1"), "kind": "Gadget", "metadata": {"name": "g"}});
    eventually("the Gadget", || async {
        kubernetes::apply(&scene.client, &scene.namespace, gadget.clone()).await.map(drop)
    })
    .await?;
    app.goes_on(&revision).await?;

    // An object with an expression.
    let widget = json!({"apiVersion": api_version, "kind": "Widget", "metadata": {"name": "w"}});
    kubernetes::apply(&scene.client, &scene.namespace, widget).await?;
    let mut ready = on("Widget", &api_version, "w");
    ready["readyExpr"] = json!("status.?phase.orValue('') == 'Done'");
    let revision = app.waits_for(ready, "Widget").await?;
    let done = Patch::Merge(json!({"status": {"phase": "Done"}}));
    let all = kubernetes::objects(&scene.client, &scene.namespace, &api_version, "Widget");
    all.patch_status("w", &PatchParams::default(), &done).await?;
    app.goes_on(&revision).await?;

    // Another Sync, which waits for health itself.
    scene.tree.write("base/web.yaml", deployment("base", 1))?;
    scene.publish("a base").await?;
    scene.sync("base", "./base", json!({"timeout": "1h"})).await?;
    let revision = app.waits_for(json!({"name": "base"}), "base").await?;
    scene.tree.write("base/web.yaml", deployment("base", 0))?;
    scene.publish("a base without replicas").await?;
    scene.is_ready("base").await?;
    app.goes_on(&revision).await
}
