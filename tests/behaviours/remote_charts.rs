//! Charts that other charts depend on, that are in no `charts/`, and that `Chart.lock` names.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::Repository;
use harness::{
    Plane, Scene,
    chart_repository::ChartServer,
    charts::{Helm, package},
    eventually,
    git::ServerOptions,
    kubernetes,
    registry::{Login, Registry, USERNAME},
    web::{Access, LoggedRequest},
};
use serde_json::{Value, json};

use crate::{cli::gitseal, objects::is_value};

const PASSWORD: &str = "password-of-charts-5e1f";

/// A chart with the ConfigMap `RELEASE-NAME`.
fn part(into: &Path, name: &str, version: &str, value: &str) -> Result<std::path::PathBuf> {
    let map = format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: \"{{{{ .Release.Name }}}}-{{{{ .Chart.Name }}}}\"}}\n\
         data: {{value: {value}-{{{{ .Values.level }}}}}}\n"
    );
    package(into, name, version, &[("templates/map.yaml", &map), ("values.yaml", "level: info\n")])
}

/// Writes the chart `shop`, which depends on other charts, with the `Chart.lock` that the real `helm` makes.
fn shop(scene: &Scene, dependencies: &Value, authority: &str) -> Result<()> {
    let chart = json!({"apiVersion": "v2", "name": "shop", "version": "1.0.0", "dependencies": dependencies});
    scene.tree.write("shop/Chart.yaml", chart.to_string())?;
    scene.tree.write("shop/values.yaml", "cache: {level: own}\n")?;
    let folder = tempfile::tempdir()?;
    let ca = folder.path().join("ca.crt");
    fs::write(&ca, authority)?;
    let (helm, path) = (Helm::new()?, scene.tree.path().join("shop"));
    let trusting = ["--ca-file", &ca.display().to_string(), "--username", USERNAME, "--password", PASSWORD];
    // Helm trusts the server of a chart repository only if it knows the chart repository.
    let mut of_charts = dependencies.as_array().into_iter().flatten().filter_map(|one| one["repository"].as_str());
    if let Some(url) = of_charts.find(|url| url.starts_with("https://")) {
        helm.run(&[&["repo", "add", "stable", url], &trusting[..]].concat())?;
    }
    helm.run(&[&["dependency", "update", &path.display().to_string()], &trusting[..]].concat())?;
    ensure!(path.join("Chart.lock").is_file());
    fs::remove_dir_all(path.join("charts")).context("charts/ of helm")
}

async fn secret(scene: &Scene, authority: &str, password: bool) -> Result<()> {
    let mut data = json!({"ca.crt": STANDARD.encode(authority)});
    if password {
        data["username"] = json!(STANDARD.encode(USERNAME));
        data["password"] = json!(STANDARD.encode(PASSWORD));
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "charts"}, "data": data});
    kubernetes::apply(&scene.client, &scene.namespace, secret).await.map(drop)
}

#[tokio::test]
async fn charts_that_are_locked_are_fetched_if_the_repository_allows_it() -> Result<()> {
    let access = Access::Basic { username: USERNAME.into(), password: PASSWORD.into() };
    let (scene, server) = (Scene::new("remote-charts").await?, ChartServer::start(access)?);
    part(server.folder(), "cache", "1.0.0", "one")?;
    part(server.folder(), "queue", "2.0.0", "queue")?;
    server.publish(None)?;
    let dependencies = json!([
        {"name": "cache", "version": "1.x", "repository": server.url()},
        {"name": "queue", "version": "2.0.0", "repository": server.url(), "alias": "jobs", "condition": "jobs.enabled"},
    ]);
    shop(&scene, &dependencies, server.certificate_authority())?;
    scene.publish("a chart with dependencies").await?;
    scene.sync("shop", "./shop", json!({"helm": {}})).await?;
    let message = scene.is_not_ready("shop", "BuildFailed").await?;
    for text in ["shop/Chart.yaml: the dependency 'cache': ", "#cache@1.0.0", "spec.remotes of the Repository"] {
        ensure!(message.contains(text), "no {text:?} in: {message}");
    }
    let folder = scene.tree.path().join("shop").display().to_string();
    gitseal(&scene, &["build", &folder])
        .await?
        .is(1, &["cache-1.0.0.tgz is remote, and this command fetches nothing"])?;

    secret(&scene, server.certificate_authority(), true).await?;
    scene.repository(json!({"remotes": [{"url": server.url(), "secretRef": {"name": "charts"}}]})).await?;
    scene.is_ready("shop").await?;
    is_value(&scene, "shop-cache", "one-own").await?;
    is_value(&scene, "shop-jobs", "queue-info").await?;
    let recorded = scene.api::<Repository>().get("repo").await?.status.unwrap_or_default().remotes;
    let of_cache = recorded.iter().find(|one| one.chart.as_deref() == Some("cache")).context("cache")?;
    ensure!(of_cache.url == server.url() && of_cache.revision.starts_with("sha256:"), "{recorded:?}");

    // A condition.
    scene.sync("shop", "./shop", json!({"helm": {"values": {"jobs": {"enabled": false}}}})).await?;
    scene.is_gone("v1", "ConfigMap", "shop-jobs").await?;

    // The same version with other content is not used, also by a render that is new.
    part(server.folder(), "cache", "1.0.0", "changed")?;
    server.publish(None)?;
    scene.tree.write("shop/values.yaml", "cache: {level: other}\n")?;
    let revision = scene.publish("another value").await?;
    scene.is_applied("shop", &revision).await?;
    is_value(&scene, "shop-cache", "one-other").await?;
    // It is used when somebody accepts it.
    let moved = eventually("the other content to be told", || async {
        let remotes = scene.api::<Repository>().get("repo").await?.status.unwrap_or_default().remotes;
        let of_cache = remotes.iter().find(|one| one.chart.as_deref() == Some("cache")).context("cache")?;
        of_cache.moved.clone().with_context(|| format!("{remotes:?}"))
    })
    .await?;
    scene.annotate::<Repository>("repo", crds::names::ACCEPT_MOVED, &moved).await?;
    is_value(&scene, "shop-cache", "changed-other").await?;

    // A newer version, and a lock that does not fit.
    part(server.folder(), "cache", "1.1.0", "two")?;
    server.publish(None)?;
    shop(&scene, &dependencies, server.certificate_authority())?;
    let revision = scene.publish("a newer version").await?;
    scene.is_applied("shop", &revision).await?;
    is_value(&scene, "shop-cache", "two-own").await?;
    let chart = fs::read_to_string(scene.tree.path().join("shop/Chart.yaml"))?;
    scene.tree.write("shop/Chart.yaml", chart.replace("1.x", ">=1"))?;
    scene.publish("another range").await?;
    let message = scene.is_not_ready("shop", "BuildFailed").await?;
    ensure!(message.contains("Chart.lock does not belong to these dependencies"), "{message}");
    scene.tree.remove("shop/Chart.lock")?;
    scene.publish("no lock").await?;
    let found =
        scene.sync_when("shop", "the missing lock", |_, ready| ready.message.contains("there is no Chart.lock"));
    found.await?;
    let log = Plane::shared().await?.log().await;
    ensure!(!log.contains(PASSWORD), "a password is in the log");
    is_value(&scene, "shop-cache", "two-own").await
}

#[tokio::test]
async fn an_index_or_a_redirect_takes_no_credentials_to_another_host_or_path() -> Result<()> {
    let access = || Access::Basic { username: USERNAME.into(), password: PASSWORD.into() };
    let scene = Scene::new("remote-charts-moved").await?;
    // The same credentials would open both, and every path.
    let (server, elsewhere) = (ChartServer::start(access())?, ChartServer::start(access())?);
    let archive = part(server.folder(), "cache", "1.0.0", "one")?;
    fs::copy(&archive, elsewhere.folder().join("cache-1.0.0.tgz"))?;
    elsewhere.publish(None)?;
    server.publish(None)?;
    shop(
        &scene,
        &json!([{"name": "cache", "version": "1.x", "repository": server.url()}]),
        server.certificate_authority(),
    )?;
    let own = server.requests().len();
    secret(&scene, &format!("{}{}", server.certificate_authority(), elsewhere.certificate_authority()), true).await?;
    let host = |server: &ChartServer| server.web().base().trim_start_matches("https://").to_owned();
    let told = async |to: &ChartServer, what: &str| -> Result<()> {
        let texts = [
            format!("cannot fetch from {}: the server answers with status 401", host(to)),
            format!("the credentials of secretRef in spec.remotes are sent only to {}/stable/", host(&server)),
        ];
        let found = scene.sync_when("shop", what, |_, ready| {
            ready.reason == "RemoteNotFetched" && texts.iter().all(|text| ready.message.contains(text))
        });
        found.await.map(drop)
    };

    // The index leads to a path that the entry does not allow.
    server.publish(Some(&format!("{}/private", server.web().base())))?;
    scene.repository(json!({"remotes": [{"url": server.url(), "secretRef": {"name": "charts"}}]})).await?;
    scene.publish("a chart with a dependency").await?;
    scene.sync("shop", "./shop", json!({"helm": {}})).await?;
    told(&server, "the other path").await?;
    let asked: Vec<_> = server.requests().into_iter().skip(own).collect();
    ensure!(asked.iter().any(|request| request.target.starts_with("/private/")), "{asked:?}");
    let is_right = |request: &LoggedRequest| request.with_credentials == request.target.starts_with("/stable/");
    ensure!(asked.iter().all(is_right), "{asked:?}");

    // The index leads to another host. After that, a redirect of the index, or of the archive that it names, does.
    let told_elsewhere = async |what: &str| -> Result<()> {
        let before = elsewhere.requests().len();
        scene.fetch().await?;
        eventually(what, || async {
            let asked = elsewhere.requests();
            ensure!(asked.len() > before, "nothing was asked for");
            ensure!(asked.iter().all(|request| !request.with_credentials), "{asked:?}");
            Ok(())
        })
        .await?;
        told(&elsewhere, what).await
    };
    server.publish(Some(&elsewhere.url()))?;
    told_elsewhere("the other host").await?;
    server.publish(Some(&format!("{}/files", server.web().base())))?;
    for status in [301, 302, 307] {
        server.web().move_with(status, "files", &elsewhere.url());
        told_elsewhere(&format!("the archive with {status}")).await?;
        server.web().move_with(status, "stable", &elsewhere.url());
        told_elsewhere(&format!("the index with {status}")).await?;
        server.web().stay("stable");
    }

    // It is back.
    server.publish(None)?;
    scene.fetch().await?;
    is_value(&scene, "shop-cache", "one-own").await
}

#[tokio::test]
async fn charts_of_a_registry_are_fetched() -> Result<()> {
    let scene = Scene::on(Plane::shared().await?, "remote-registry", ServerOptions::default()).await?;
    let registry = Registry::start(Login::Anonymous).await?;
    let folder = tempfile::tempdir()?;
    registry.push(&part(folder.path(), "cache", "1.0.0", "one")?, "charts")?;
    secret(&scene, &registry.certificate_authority(), false).await?;
    let repository = registry.url("charts");
    shop(
        &scene,
        &json!([{"name": "cache", "version": "1.x", "repository": repository}]),
        &registry.certificate_authority(),
    )?;
    let remotes = json!([{"url": format!("{repository}/"), "secretRef": {"name": "charts"}}]);
    scene.repository(json!({"remotes": remotes})).await?;
    let first = scene.publish("a chart with a dependency").await?;
    scene.sync("shop", "./shop", json!({"helm": {}})).await?;
    scene.is_applied("shop", &first).await?;
    is_value(&scene, "shop-cache", "one-own").await?;

    // A template that fails is named with its chart.
    let wrong = "{{ fail \"no\" }}";
    registry.push(&package(folder.path(), "cache", "1.1.0", &[("templates/wrong.yaml", wrong)])?, "charts")?;
    let json = json!([{"name": "cache", "version": "1.1.0", "repository": repository}]);
    shop(&scene, &json, &registry.certificate_authority())?;
    scene.publish("a template that fails").await?;
    let message = scene.is_not_ready("shop", "BuildFailed").await?;
    ensure!(message.contains("/charts/cache@1.1.0//templates/wrong.yaml:1"), "{message}");
    ensure!(!message.contains(".gitseal-"), "{message}");
    is_value(&scene, "shop-cache", "one-own").await
}
