//! Charts that get values from outside of their own repository.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{Repository, Sync};
use harness::{
    Plane, Scene, eventually,
    git::{ServerOptions, WorkTree},
    kubernetes,
    programs::Controller,
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{ResourceExt as _, api::DeleteParams};
use localcluster::{AuditEvent, ClusterOptions};
use sealing::Scope;
use serde_json::{Value, json};

use super::synced::{CHART, MAP, SECRET, decoded, sealed_file};
use crate::{
    cli::gitseal,
    objects::{change_by_hand, config_map, is_value},
    renders::rendered,
};

/// Another Repository of a scene.
pub(crate) struct Other<'s> {
    scene: &'s Scene,
    name: &'static str,
    pub(crate) tree: WorkTree,
}

impl<'s> Other<'s> {
    /// Makes the repository, and commits these files. There is no Repository yet.
    pub(crate) fn with(scene: &'s Scene, name: &'static str, files: &[(&str, &str)]) -> Result<Self> {
        let other = Self { scene, name, tree: scene.server.create(name)? };
        for (path, text) in files {
            other.tree.write(path, text)?;
        }
        other.tree.publish("first")?;
        Ok(other)
    }

    /// Makes the Repository, and waits until it is fetched.
    pub(crate) async fn add(&self) -> Result<()> {
        let spec = json!({"url": self.scene.server.url(self.name), "interval": "1h", "ref": {"branch": "main"}});
        let repository = json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository",
            "metadata": {"name": self.name}, "spec": spec});
        kubernetes::apply(&self.scene.client, &self.scene.namespace, repository).await?;
        self.is_fetched().await
    }

    /// Commits the work tree, and waits until the controller has fetched it.
    pub(crate) async fn publish(&self, message: &str) -> Result<()> {
        self.tree.publish(message)?;
        self.scene.request::<Repository>(self.name).await?;
        self.is_fetched().await
    }

    async fn is_fetched(&self) -> Result<()> {
        let revision = format!("main@sha1:{}", self.tree.head()?);
        eventually(&format!("{revision} of {}", self.name), || async {
            let status = self.scene.api::<Repository>().get(self.name).await?.status.unwrap_or_default();
            ensure!(status.revision.as_ref() == Some(&revision), "{status:?}");
            Ok(())
        })
        .await
    }
}

/// Writes a chart with these templates to `folder`.
pub(super) fn chart(scene: &Scene, folder: &str, templates: &[(&str, &str)]) -> Result<()> {
    scene.tree.write(&format!("{folder}/Chart.yaml"), CHART)?;
    scene.tree.write(&format!("{folder}/values.yaml"), "level: info\n")?;
    for (name, text) in templates {
        scene.tree.write(&format!("{folder}/templates/{name}.yaml"), text)?;
    }
    Ok(())
}

/// `spec` of a Sync whose chart gets values from these entries.
fn from(entries: Value) -> Value {
    json!({"helm": {"valuesFrom": entries}})
}

fn of_config(file: &str) -> Value {
    from(json!([{"repository": {"name": "config"}, "file": file}]))
}

#[tokio::test]
async fn a_commit_of_the_repository_with_the_values_renders_those_who_use_them_and_nothing_else() -> Result<()> {
    let (plane, mut controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "other-values", ServerOptions::default()).await?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    scene.repository(json!({})).await?;
    let revision = scene.publish("a chart").await?;
    let config = Other::with(&scene, "config", &[("one.yaml", "level: debug\n"), ("two.yaml", "level: warn\n")])?;
    config.add().await?;
    scene.sync("one", "./charts/web", of_config("./one.yaml")).await?;
    scene.sync("two", "./charts/web", of_config("two.yaml")).await?;
    scene.sync("none", "./charts/web", json!({"helm": {}})).await?;
    for (sync, level) in [("one", "debug"), ("two", "warn"), ("none", "info")] {
        scene.is_applied(sync, &revision).await?;
        is_value(&scene, &format!("{sync}-map"), level).await?;
    }
    assert_eq!(rendered(&controller, "helm").await?, 3);

    config.tree.write("README.md", "read\n")?;
    config.publish("another file").await?;
    config.tree.write("one.yaml", "level: trace\n")?;
    config.publish("the values of one").await?;
    is_value(&scene, "one-map", "trace").await?;
    scene.is_ready("one").await?;
    assert_eq!(rendered(&controller, "helm").await?, 4, "only one is rendered again");
    is_value(&scene, "two-map", "warn").await?;

    // Drift is put back without a render, also after a restart.
    change_by_hand(&scene, "one-map").await?;
    is_value(&scene, "one-map", "trace").await?;
    assert_eq!(rendered(&controller, "helm").await?, 4);
    controller.stop()?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    change_by_hand(&scene, "one-map").await?;
    is_value(&scene, "one-map", "trace").await?;
    assert_eq!((rendered(&controller, "helm").await?, rendered(&controller, "disk").await?), (0, 1));
    Ok(())
}

#[tokio::test]
async fn sealed_values_come_from_another_repository_too() -> Result<()> {
    let scene = Scene::new("other-sealed").await?;
    chart(&scene, "charts/web", &[("secret", SECRET)])?;
    let revision = scene.publish("a chart with a secret").await?;
    let sealed = sealed_file(&scene, "Of-Other-Repo-1", "Token-Of-Other-1").await?;
    let config = Other::with(&scene, "config", &[("secrets/values.yaml", &sealed)])?;
    config.add().await?;
    let entry = json!([{"repository": {"name": "config"}, "sealedSecret": "secrets/values.yaml", "path": "auth"}]);
    scene.sync("app", "./charts/web", from(entry)).await?;
    scene.is_applied("app", &revision).await?;
    let secret = scene.api::<Secret>().get("app-db").await?;
    assert_eq!(decoded(&secret, "password")?, "Of-Other-Repo-1");

    // A value that cannot be unsealed is told with its place, too.
    let mut bytes = STANDARD.decode(scene.seal_for(Scope::NamespaceWide, "any", b"Of-Other-Repo-3").await?)?;
    *bytes.last_mut().context("empty")? ^= 1;
    let password = sealed.lines().find(|line| line.contains("password: ")).context("no password")?;
    let flipped = sealed.replace(password, &format!("    password: {}", STANDARD.encode(bytes)));
    config.tree.write("secrets/values.yaml", flipped)?;
    config.publish("a value that no key unseals").await?;
    let message = scene.is_not_ready("app", "UnsealFailed").await?;
    let place = format!("is in Repository {}/config: secrets/values.yaml:6 (password)", scene.namespace);
    ensure!(message.contains(&place), "{message}");

    // A mistake in that file is told with its place.
    let strict = scene.seal_for(Scope::Strict, "other", b"Of-Other-Repo-2").await?;
    config.tree.write("secrets/values.yaml", crate::objects::sealed_secret("other", &strict))?;
    config.publish("sealed for another Secret").await?;
    let message = scene.is_not_ready("app", "SealedValue").await?;
    let place = format!("Repository {}/config: secrets/values.yaml", scene.namespace);
    ensure!(message.contains(&place), "{message}");
    assert_eq!(decoded(&scene.api::<Secret>().get("app-db").await?, "password")?, "Of-Other-Repo-1");
    Ok(())
}

#[tokio::test]
async fn the_command_line_fetches_the_values_too_and_says_where_they_are_from() -> Result<()> {
    let scene = Scene::new("other-cli").await?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    let revision = scene.publish("a chart").await?;
    let config = Other::with(&scene, "config", &[("one.yaml", "level: debug\n")])?;
    config.add().await?;
    scene.sync("app", "./charts/web", of_config("one.yaml")).await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "debug").await?;

    // Nobody has told the controller of this commit, and it looks for commits once an hour.
    config.tree.write("one.yaml", "level: trace\n")?;
    config.tree.publish("other values")?;
    gitseal(&scene, &["sync", "app"]).await?.is(0, &["repository/config", "sync/app"])?;
    is_value(&scene, "app-map", "trace").await?;

    let clone = format!("config={}", config.tree.path().display());
    let values = format!("Repository {}/config: one.yaml, main@", scene.namespace);
    let told = gitseal(&scene, &["trace", "configmap/app-map"]).await?.is(0, &[&values, "--remote"])?;
    ensure!(!told.out.contains("charts/web/templates/map.yaml"), "{}", told.out);
    let place = ["charts/web/templates/map.yaml:1", values.as_str()];
    gitseal(&scene, &["trace", "configmap/app-map", "--remote", &clone]).await?.is(0, &place)?;
    let json = gitseal(&scene, &["trace", "configmap/app-map", "-o", "json"]).await?.is(0, &[])?;
    let json: Value = serde_json::from_str(&json.out)?;
    let field = &json["values"][0]["field"];
    assert_eq!(*field, "spec.helm.valuesFrom[0]");
    Ok(())
}

#[tokio::test]
async fn values_that_are_missing_are_told_and_nothing_is_pruned() -> Result<()> {
    let scene = Scene::new("no-values").await?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    let revision = scene.publish("a chart").await?;
    let config = Other::with(&scene, "config", &[("README.md", "nothing yet\n")])?;
    let entries = json!([{"file": "charts/web/values.yaml"}, {"repository": {"name": "config"}, "file": "app.yaml"}]);
    scene.sync("app", "./charts/web", from(entries)).await?;
    let message = scene.is_not_ready("app", "RepositoryNotFound").await?;
    ensure!(message.contains("/config; create it, or correct spec.helm.valuesFrom[1]"), "{message}");

    config.add().await?;
    let message = scene.is_not_ready("app", "ValuesNotFound").await?;
    let told = [
        format!("Repository {}/config: app.yaml: there is no such file at main@sha1:", scene.namespace),
        "push it, or correct spec.helm.valuesFrom[1]".to_owned(),
    ];
    ensure!(told.iter().all(|part| message.contains(part)), "{message}");
    ensure!(scene.get("v1", "ConfigMap", "app-map").await?.is_none(), "rendered without its values");

    config.tree.write("app.yaml", "level: debug\n")?;
    config.publish("the values").await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "debug").await?;
    let uid = scene.api::<ConfigMap>().get("app-map").await?.uid();

    // Without the values, the last good objects stay, and drift is put back to them.
    config.tree.remove("app.yaml")?;
    config.publish("without the values").await?;
    scene.is_not_ready("app", "ValuesNotFound").await?;
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "debug").await?;
    config.tree.write("app.yaml", "level: [\n")?;
    config.publish("no YAML").await?;
    let message = scene.is_not_ready("app", "BuildFailed").await?;
    ensure!(message.contains("/config: app.yaml:") && message.contains("is not YAML"), "{message}");
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "debug").await?;
    scene.api::<Repository>().delete("config", &DeleteParams::default()).await?;
    scene.is_not_ready("app", "RepositoryNotFound").await?;
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "debug").await?;

    config.tree.write("app.yaml", "level: error\n")?;
    config.tree.publish("values again")?;
    config.add().await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "error").await?;
    assert_eq!(scene.api::<ConfigMap>().get("app-map").await?.uid(), uid);
    Ok(())
}

#[tokio::test]
async fn an_object_that_moves_to_a_chart_whose_values_are_missing_is_not_pruned() -> Result<()> {
    let scene = Scene::new("values-move").await?;
    scene.tree.write("old/moved.yaml", config_map("moved", "1"))?;
    scene.tree.write("old/stays.yaml", config_map("stays", "1"))?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    let first = scene.publish("before").await?;
    let config = Other::with(&scene, "config", &[("app.yaml", "level: debug\n")])?;
    config.add().await?;
    scene.sync("old", "./old", json!({})).await?;
    scene.sync("app", "./charts/web", of_config("app.yaml")).await?;
    for sync in ["old", "app"] {
        scene.is_applied(sync, &first).await?;
    }
    let uid = scene.api::<ConfigMap>().get("moved").await?.uid();
    config.tree.remove("app.yaml")?;
    config.publish("without the values").await?;
    scene.is_not_ready("app", "ValuesNotFound").await?;

    scene.tree.remove("old/moved.yaml")?;
    scene.tree.write("charts/web/templates/moved.yaml", config_map("moved", "{{ .Values.level }}"))?;
    let second = scene.publish("moved").await?;
    let waits =
        |_: &Sync, ready: &crds::Condition| ready.reason == "PruneWaitsForSync" && ready.message.contains("app.yaml");
    scene.sync_when("old", "the prune to wait", waits).await?;
    ensure!(scene.get("v1", "ConfigMap", "moved").await?.is_some());

    config.tree.write("app.yaml", "level: warn\n")?;
    config.publish("the values").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "moved", "warn").await?;
    scene.is_applied("old", &second).await?;
    assert_eq!(scene.api::<ConfigMap>().get("moved").await?.uid(), uid, "it was handed over");
    Ok(())
}

#[tokio::test]
async fn values_of_another_namespace_need_the_flag_that_folders_need() -> Result<()> {
    let scene = Scene::new("values-theirs").await?;
    let theirs = Scene::new("values-owner").await?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    scene.publish("a chart").await?;
    theirs.tree.write("app.yaml", "level: theirs\n")?;
    theirs.publish("values").await?;
    let entry = json!([{"repository": {"name": "repo", "namespace": theirs.namespace}, "file": "app.yaml"}]);
    scene.sync("app", "./charts/web", from(entry)).await?;
    let message = scene.is_not_ready("app", "AccessDenied").await?;
    ensure!(message.contains("--allow-cross-namespace"), "{message}");
    ensure!(scene.get("v1", "ConfigMap", "app-map").await?.is_none());
    Ok(())
}

/// Makes or changes the ConfigMap `settings`, which nobody applies from Git.
async fn settings(scene: &Scene, text: &str) -> Result<()> {
    let data = json!({"web.yaml": text, "other": "x"});
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": data});
    kubernetes::apply(&scene.client, &scene.namespace, map).await.map(drop)
}

fn of_settings() -> Value {
    from(json!([{"configMap": "settings", "key": "web.yaml"}]))
}

/// The requests to read the ConfigMap `name` of the scene, except those of this test.
pub(super) fn reads(plane: &Plane, scene: &Scene, name: &str) -> Result<Vec<AuditEvent>> {
    let mut requests = plane.cluster.requests()?;
    requests.retain(|request| {
        (request.verb.as_str(), request.resource.as_str(), request.name.as_str()) == ("get", "configmaps", name)
            && request.namespace == scene.namespace
    });
    Ok(requests)
}

/// A Sync `app` that reads a ConfigMap, which has the value `hidden`, and makes another ConfigMap with this value.
pub(crate) struct Reader<'a> {
    pub(crate) scene: &'a Scene,
    /// The folder of the Sync.
    pub(crate) path: &'a str,
    /// Its spec, which names the ConfigMap.
    pub(crate) spec: &'a Value,
    /// The field that names the ConfigMap.
    pub(crate) field: &'a str,
    /// How messages name its kind.
    pub(crate) kind: &'a str,
    /// The ConfigMap that is read.
    pub(crate) reads: &'a str,
    /// The ConfigMap that the Sync makes.
    pub(crate) makes: &'a str,
}

impl Reader<'_> {
    /// Checks that the ConfigMap is read with the rights of the Sync's service account `writer`, as long as it has them.
    pub(crate) async fn needs_the_right_to_read(&self, revision: &str) -> Result<()> {
        let Self { scene, reads: name, .. } = *self;
        self.may(&["create", "patch", "delete"]).await?;
        let mut spec = self.spec.clone();
        spec["serviceAccountName"] = "writer".into();
        spec["interval"] = "10s".into();
        scene.sync("app", self.path, spec).await?;
        self.is_refused().await?;
        self.may(&["get", "create", "patch", "delete"]).await?;
        scene.is_applied("app", revision).await?;
        is_value(scene, self.makes, "hidden").await?;
        let plane = Plane::shared().await?;
        let by = reads(plane, scene, name)?;
        let account = format!("system:serviceaccount:{}:writer", scene.namespace);
        ensure!(!by.is_empty() && by.iter().all(|read| read.impersonated.as_ref() == Some(&account)), "{by:?}");

        // While nothing changes, the API server is asked about the right, and the ConfigMap is not read.
        let asked = || -> Result<usize> {
            let reviews = plane.cluster.requests()?.into_iter().filter(|request| {
                request.resource == "selfsubjectaccessreviews" && request.impersonated.as_ref() == Some(&account)
            });
            Ok(reviews.count())
        };
        let before = asked()?;
        eventually("the right to be checked again", || async {
            ensure!(asked()? > before);
            Ok(())
        })
        .await?;
        assert_eq!(reads(plane, scene, name)?.len(), by.len());

        // A right that was taken away is noticed although nothing changes.
        self.may(&["create", "patch", "delete"]).await?;
        self.is_refused().await?;
        is_value(scene, self.makes, "hidden").await?;
        self.may(&["get", "create", "patch", "delete"]).await?;
        scene.is_applied("app", revision).await.map(drop)
    }

    /// Gives the service account exactly these rights for ConfigMaps.
    async fn may(&self, verbs: &[&str]) -> Result<()> {
        let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": verbs}]);
        self.scene.account("writer", rules).await
    }

    async fn is_refused(&self) -> Result<()> {
        let message = self.scene.is_not_ready("app", "Forbidden").await?;
        let what = format!("may not read {}", self.kind);
        for part in [what.as_str(), self.field, "the right to `get` it", ":writer"] {
            ensure!(message.contains(part), "no {part:?} in {message}");
        }
        ensure!(!message.contains("hidden"), "{message}");
        Ok(())
    }
}

#[tokio::test]
async fn an_edited_config_map_renders_those_who_use_it_and_nothing_else() -> Result<()> {
    let own = ClusterOptions { audit: true, ..Default::default() };
    let (plane, mut controller) = Plane::alone(own).await?;
    let scene = Scene::on(&plane, "map-values", ServerOptions::default()).await?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    scene.repository(json!({})).await?;
    let revision = scene.publish("a chart").await?;
    settings(&scene, "level: debug\n").await?;
    scene.sync("one", "./charts/web", of_settings()).await?;
    scene.sync("none", "./charts/web", json!({"helm": {}})).await?;
    for (sync, level) in [("one", "debug"), ("none", "info")] {
        scene.is_applied(sync, &revision).await?;
        is_value(&scene, &format!("{sync}-map"), level).await?;
    }
    assert_eq!(rendered(&controller, "helm").await?, 2);

    settings(&scene, "level: trace\n").await?;
    is_value(&scene, "one-map", "trace").await?;
    scene.is_ready("one").await?;
    assert_eq!(rendered(&controller, "helm").await?, 3, "only one is rendered again");

    // A change of something else in the ConfigMap renders nothing.
    let before = reads(&plane, &scene, "settings")?.len();
    scene.annotate::<ConfigMap>("settings", "example.com/note", "another").await?;
    eventually("the ConfigMap to be read again", || async {
        ensure!(reads(&plane, &scene, "settings")?.len() > before);
        Ok(())
    })
    .await?;
    change_by_hand(&scene, "one-map").await?;
    is_value(&scene, "one-map", "trace").await?;
    assert_eq!(rendered(&controller, "helm").await?, 3);

    // After a restart, drift is put back without a render. A change meanwhile is noticed.
    controller.stop()?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    change_by_hand(&scene, "one-map").await?;
    is_value(&scene, "one-map", "trace").await?;
    assert_eq!(rendered(&controller, "helm").await?, 0);
    controller.stop()?;
    settings(&scene, "level: warn\n").await?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    is_value(&scene, "one-map", "warn").await
}

#[tokio::test]
async fn a_config_map_that_is_missing_is_told_and_nothing_is_pruned() -> Result<()> {
    let scene = Scene::new("no-map").await?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    let revision = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", of_settings()).await?;
    let message = scene.is_not_ready("app", "ValuesNotFound").await?;
    let told =
        format!("there is no ConfigMap {}/settings: create it, or correct spec.helm.valuesFrom[0]", scene.namespace);
    ensure!(message.contains(&told), "{message}");
    ensure!(scene.get("v1", "ConfigMap", "app-map").await?.is_none(), "rendered without its values");

    settings(&scene, "level: debug\n").await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "debug").await?;
    scene.api::<ConfigMap>().delete("settings", &DeleteParams::default()).await?;
    scene.is_not_ready("app", "ValuesNotFound").await?;
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "debug").await?;

    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}});
    kubernetes::apply(&scene.client, &scene.namespace, map).await?;
    let told = "settings: web.yaml: there is no such key; it has a. Add it";
    let has_told = |_: &Sync, ready: &crds::Condition| ready.reason == "ValuesNotFound" && ready.message.contains(told);
    scene.sync_when("app", told, has_told).await?;
    settings(&scene, "level: [\n").await?;
    let message = scene.is_not_ready("app", "BuildFailed").await?;
    ensure!(message.contains("settings: web.yaml:") && message.contains("is not YAML"), "{message}");
    settings(&scene, "level: error\n").await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "error").await
}

#[tokio::test]
async fn an_optional_config_map_has_no_values_while_it_is_missing() -> Result<()> {
    let scene = Scene::new("optional-map").await?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    let revision = scene.publish("a chart").await?;
    let entry = |entry: Value| from(json!([entry]));
    let optional = json!({"configMap": "settings", "key": "web.yaml", "optional": true});
    scene.sync("app", "./charts/web", entry(optional)).await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "info").await?;
    gitseal(&scene, &["diff", "--sync", "app"]).await?.is(0, &[])?;
    settings(&scene, "level: debug\n").await?;
    is_value(&scene, "app-map", "debug").await?;
    scene.api::<ConfigMap>().delete("settings", &DeleteParams::default()).await?;
    is_value(&scene, "app-map", "info").await?;

    // A ConfigMap that exists needs the key.
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"a": "b"}});
    kubernetes::apply(&scene.client, &scene.namespace, map).await?;
    let message = scene.is_not_ready("app", "ValuesNotFound").await?;
    ensure!(message.contains("settings: web.yaml: there is no such key"), "{message}");
    is_value(&scene, "app-map", "info").await?;

    let of_file = scene.sync("file", "./charts/web", entry(json!({"file": "a.yaml", "optional": true}))).await;
    let message = format!("{:#}", of_file.err().context("the API server accepts an optional file")?);
    ensure!(message.contains("optional can only be set with configMap"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_config_map_is_read_with_the_rights_of_the_sync() -> Result<()> {
    let scene = Scene::new("map-rights").await?;
    chart(&scene, "charts/web", &[("map", MAP)])?;
    let revision = scene.publish("a chart").await?;
    settings(&scene, "level: hidden\n").await?;
    let mut spec = of_settings();
    let reader = Reader {
        scene: &scene,
        path: "./charts/web",
        spec: &spec,
        field: "spec.helm.valuesFrom[0]",
        kind: "ConfigMap",
        reads: "settings",
        makes: "app-map",
    };
    reader.needs_the_right_to_read(&revision).await?;

    spec["serviceAccountName"] = "nobody".into();
    scene.sync("app", "./charts/web", spec).await?;
    let message = scene.is_not_ready("app", "ServiceAccountNotFound").await?;
    ensure!(message.contains("kubectl create serviceaccount"), "{message}");
    Ok(())
}
