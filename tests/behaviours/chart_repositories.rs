//! Charts from an HTTP chart repository, made by the real `helm package` and `helm repo index`.

use std::{fs, path::Path};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::Repository;
use harness::{
    Plane, Scene, chart_repository::ChartServer, charts::package, git::ServerOptions, kubernetes, programs::run,
    registry::digest_of, web::Access,
};
use serde_json::{Value, json};

use crate::{
    adopt::helm,
    cli::gitseal,
    remote::is_fetched,
    traces::{event, events},
};

/// A chart with one ConfigMap, `NAME-settings`. Returns the revision that it becomes.
fn add(into: &Path, name: &str, version: &str, level: &str) -> Result<String> {
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"{{ .Release.Name }}-settings\"}\n\
                    data: {value: \"{{ .Values.level }}\", version: \"{{ .Chart.Version }}\"}\n";
    let values = format!("level: {level}\n");
    let files = [("templates/settings.yaml", settings), ("values.yaml", &*values)];
    let archive = package(into, name, version, &files)?;
    Ok(format!("{version}@{}", digest_of(&fs::read(archive)?)))
}

fn settings(level: &str, version: &str) -> Value {
    json!({"data": {"value": level, "version": version}})
}

async fn scene_with(name: &str, access: Access, keys: &[(&str, &str)]) -> Result<(Scene, ChartServer)> {
    let scene = Scene::on(Plane::shared().await?, name, ServerOptions::default()).await?;
    let server = ChartServer::start(access)?;
    secret(&scene, server.certificate_authority(), keys).await?;
    Ok((scene, server))
}

/// Makes the Secret `charts`.
async fn secret(scene: &Scene, authority: &str, keys: &[(&str, &str)]) -> Result<()> {
    let keys = keys.iter().copied().chain([("ca.crt", authority)]);
    let data: serde_json::Map<_, _> =
        keys.map(|(key, value)| (key.to_owned(), Value::from(STANDARD.encode(value)))).collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "charts"}, "data": data});
    kubernetes::apply(&scene.client, &scene.namespace, secret).await.map(drop)
}

async fn repository(scene: &Scene, server: &ChartServer, chart: &str, reference: Value) -> Result<()> {
    let mut full = json!({"branch": null, "tag": null, "semver": null, "digest": null});
    for (field, value) in reference.as_object().into_iter().flatten() {
        full[field] = value.clone();
    }
    let full = if reference.is_null() { Value::Null } else { full };
    scene.repository(json!({"url": server.url(), "chart": chart, "secretRef": {"name": "charts"}, "ref": full})).await
}

#[tokio::test]
async fn a_chart_follows_the_index() -> Result<()> {
    let (scene, server) = scene_with("index", Access::Anonymous, &[]).await?;
    let first = add(server.folder(), "hello", "1.0.0", "one")?;
    add(server.folder(), "hello", "2.0.0-rc.1", "next")?;
    let other = add(server.folder(), "other", "3.0.0", "other")?;
    server.publish(None)?;
    repository(&scene, &server, "hello", json!({"semver": "1.x"})).await?;
    is_fetched(&scene, &first).await?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    scene.is_applied("app", &first).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("one", "1.0.0")).await?;

    // Nothing new: the index is not sent again.
    let (requests, downloads) = (server.requests().len(), server.downloads());
    scene.fetch().await?;
    ensure!(server.requests().len() == requests + 1 && server.downloads() == downloads, "{:?}", server.requests());

    let second = add(server.folder(), "hello", "1.1.0", "two")?;
    server.publish(None)?;
    scene.fetch().await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("two", "1.1.0")).await?;

    // The same version with other content is not used, until somebody accepts its digest.
    let moved = add(server.folder(), "hello", "1.1.0", "three")?;
    server.publish(None)?;
    scene.fetch().await?;
    let message = scene.repository_fails("DigestChanged").await?;
    for digest in [&second, &moved] {
        ensure!(message.contains(&digest["1.1.0@".len()..]), "{message}");
    }
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("two", "1.1.0")).await?;
    repository(&scene, &server, "hello", json!({"tag": "1.1.0", "digest": &moved["1.1.0@".len()..]})).await?;
    scene.is_applied("app", &moved).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("three", "1.1.0")).await?;
    repository(&scene, &server, "hello", json!({"semver": "1.x"})).await?;
    is_fetched(&scene, &moved).await?;

    // The archive has other bytes than those whose digest is in the index.
    add(server.folder(), "hello", "1.2.0", "four")?;
    server.publish(None)?;
    add(server.folder(), "hello", "1.2.0", "changed")?;
    scene.fetch().await?;
    let message = scene.repository_fails("DigestMismatch").await?;
    ensure!(message.contains("the archive of 1.2.0@sha256:"), "{message}");

    // A version that the index does not have.
    repository(&scene, &server, "hello", json!({"tag": "9.9.9"})).await?;
    let message = scene.repository_fails("ReferenceNotFound").await?;
    ensure!(message.contains("the versions are: 2.0.0-rc.1, 1.2.0, 1.1.0, 1.0.0"), "{message}");
    scene.is_applied("app", &moved).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("three", "1.1.0")).await?;

    // Another chart of the same index, the newest version.
    repository(&scene, &server, "other", Value::Null).await?;
    scene.is_applied("app", &other).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("other", "3.0.0")).await?;
    repository(&scene, &server, "nothing", Value::Null).await?;
    let message = scene.repository_fails("ReferenceNotFound").await?;
    ensure!(message.contains("the charts are: hello, other"), "{message}");

    fs::write(server.index(), "<html><body>hello</body></html>")?;
    scene.fetch().await?;
    let message = scene.repository_fails("NotAChartRepository").await?;
    ensure!(message.contains("index.yaml is no mapping"), "{message}");
    fs::write(server.index(), format!("entries: {{}}\na:\n{}", format!("- {}\n", "x".repeat(1020)).repeat(33 << 10)))?;
    scene.fetch().await?;
    let message = scene.repository_fails("TooLarge").await?;
    ensure!(message.contains("its index.yaml has more than 32 MiB: remove old versions"), "{message}");
    Ok(())
}

#[tokio::test]
async fn the_password_stays_at_the_host_of_the_index() -> Result<()> {
    const PASSWORD: &str = "hunter2-of-the-charts";
    let access = Access::Basic { username: "reader".to_owned(), password: PASSWORD.to_owned() };
    let (scene, server) = scene_with("chart-login", access, &[("username", "reader"), ("password", PASSWORD)]).await?;
    let first = add(server.folder(), "hello", "1.0.0", "one")?;
    server.publish(None)?;
    repository(&scene, &server, "hello", Value::Null).await?;
    is_fetched(&scene, &first).await?;
    ensure!(server.requests().iter().all(|request| request.with_credentials), "{:?}", server.requests());

    let elsewhere = ChartServer::start(Access::Anonymous)?;
    let authorities = format!("{}{}", server.certificate_authority(), elsewhere.certificate_authority());
    secret(&scene, &authorities, &[("username", "reader"), ("password", PASSWORD)]).await?;
    let second = add(server.folder(), "hello", "1.1.0", "two")?;
    fs::copy(server.folder().join("hello-1.1.0.tgz"), elsewhere.folder().join("hello-1.1.0.tgz"))?;
    server.publish(Some(&elsewhere.url()))?;
    scene.fetch().await?;
    is_fetched(&scene, &second).await?;
    let asked = elsewhere.requests();
    ensure!(asked.len() == 1 && !asked[0].with_credentials, "{asked:?}");
    let log = Plane::shared().await?.log().await;
    ensure!(!log.contains(PASSWORD), "a password is shown");
    Ok(())
}

#[tokio::test]
async fn a_redirect_takes_no_password_to_another_host() -> Result<()> {
    const PASSWORD: &str = "hunter2-of-moved-charts";
    let access = || Access::Basic { username: "reader".to_owned(), password: PASSWORD.to_owned() };
    let keys = [("username", "reader"), ("password", PASSWORD)];
    let (scene, server) = scene_with("chart-moved", access(), &keys).await?;
    // The same password would open this, too.
    let elsewhere = ChartServer::start(access())?;
    secret(&scene, &format!("{}{}", server.certificate_authority(), elsewhere.certificate_authority()), &keys).await?;
    let first = add(server.folder(), "hello", "1.0.0", "one")?;
    server.publish(None)?;
    repository(&scene, &server, "hello", Value::Null).await?;
    is_fetched(&scene, &first).await?;
    let host = |server: &ChartServer| server.web().base().trim_start_matches("https://").to_owned();
    let told = async || -> Result<()> {
        let before = elsewhere.requests().len();
        scene.fetch().await?;
        let asked = elsewhere.requests();
        ensure!(asked.len() > before && asked.iter().all(|request| !request.with_credentials), "{asked:?}");
        let message = scene.repository_fails("NetworkError").await?;
        let told = format!(
            "cannot fetch from {}: the server answers with status 401, and the credentials of spec.secretRef are sent only to {}",
            host(&elsewhere),
            host(&server)
        );
        ensure!(message == told, "{message}");
        Ok(())
    };
    for status in [301, 302, 307] {
        // The index.
        server.web().move_with(status, "stable", &elsewhere.url());
        told().await?;
        server.web().stay("stable");
        // The archive that the index names.
        add(server.folder(), "hello", &format!("1.1.{status}"), "two")?;
        server.publish(Some(&format!("{}/files", server.web().base())))?;
        server.web().move_with(status, "files", &elsewhere.url());
        told().await?;
    }
    let log = Plane::shared().await?.log().await;
    ensure!(!log.contains(PASSWORD), "a password is shown");
    Ok(())
}

#[tokio::test]
async fn what_a_chart_says_of_itself_is_told() -> Result<()> {
    let (scene, server) = scene_with("chart-says", Access::Anonymous, &[]).await?;
    let chart = |version: &str, says: &str| {
        let head = format!("apiVersion: v2\nname: hello\nversion: {version}\n{says}\n");
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app-map}\n";
        let archive =
            package(server.folder(), "hello", version, &[("Chart.yaml", &head), ("templates/map.yaml", map)])?;
        server.publish(None)?;
        anyhow::Ok(format!("{version}@{}", digest_of(&fs::read(archive)?)))
    };
    let ready = async || -> Result<String> {
        let status = scene.api::<Repository>().get("repo").await?.status.unwrap_or_default();
        Ok(crds::find_condition(&status.conditions, "Ready").map(|ready| ready.message.clone()).unwrap_or_default())
    };
    let first = chart("1.0.0", "deprecated: true")?;
    repository(&scene, &server, "hello", Value::Null).await?;
    is_fetched(&scene, &first).await?;
    let told = "the chart says that it is deprecated: look for what replaces it";
    assert_eq!(ready().await?, format!("fetched {first}; {told}"));
    event(&scene, "repo", "DeprecatedChart", &[told, &first]).await?;
    // It is applied, and told again neither at the next fetch nor by another event.
    scene.sync("app", "./", json!({"helm": {}})).await?;
    scene.is_applied("app", &first).await?;
    scene.fetch().await?;
    assert_eq!(ready().await?, format!("fetched {first}; {told}"));
    assert_eq!(events(&scene, "repo", "DeprecatedChart").await?.len(), 1);

    let second = chart("1.1.0", "kubeVersion: '>=99.0.0-0'")?;
    scene.fetch().await?;
    is_fetched(&scene, &second).await?;
    assert_eq!(ready().await?, format!("fetched {second}"));
    let message = scene.is_not_ready("app", "BuildFailed").await?;
    ensure!(
        message.contains("Chart.yaml requires Kubernetes '>=99.0.0-0', but the chart is rendered for Kubernetes v"),
        "{message}"
    );
    scene.has("v1", "ConfigMap", "app-map", json!({})).await.map(drop)
}

#[tokio::test]
async fn the_command_line_knows_such_charts() -> Result<()> {
    let (scene, server) = scene_with("chart-cli", Access::Anonymous, &[]).await?;
    add(server.folder(), "hello", "1.0.0", "one")?;
    server.publish(None)?;
    repository(&scene, &server, "hello", Value::Null).await?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    scene.is_ready("app").await?;

    let second = add(server.folder(), "hello", "1.1.0", "two")?;
    server.publish(None)?;
    gitseal(&scene, &["sync", "app"]).await?.is(0, &["1.1.0@"])?;
    scene.is_applied("app", &second).await?;
    let digest = second.split_once('@').context("a digest")?.1;
    let traced = gitseal(&scene, &["trace", "configmap/app-settings"]).await?;
    traced.is(0, &[digest, "downloaded as an archive"])?;
    gitseal(&scene, &["status", "repository/repo"]).await?.is(0, &[&server.url(), "hello"])?;

    // The pulled chart gives what the Sync applies, also with a file of the chart as values.
    let archive = server.folder().join("hello-1.1.0.tgz");
    run(std::process::Command::new("tar").arg("-xzf").arg(archive).current_dir(scene.tree.path()))?;
    let values = json!({"valuesFrom": [{"file": "values.yaml"}], "values": {"level": "three"}});
    let sync = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "app"},
        "spec": {"repository": {"name": "repo"}, "path": "./", "helm": values},
    });
    scene.tree.write("clusters/app.yaml", sync.to_string())?;
    scene.sync("app", "./", json!({"helm": values})).await?;
    let built = gitseal(&scene, &["build", "hello", "--sync", "clusters/app.yaml", "-o", "json"]).await?.is(0, &[])?;
    let built: Value = serde_json::from_str(&built.out)?;
    let map = built["items"][0].as_object().context("an object")?;
    assert_eq!((&map["metadata"]["name"], &map["data"]["value"]), (&json!("app-settings"), &json!("three")));
    scene.has("v1", "ConfigMap", "app-settings", json!({"data": map["data"]})).await?;
    gitseal(&scene, &["build", "--sync", "clusters/app.yaml"]).await?.is(1, &[])?;

    // A release of the chart becomes a Sync of this Repository.
    helm(&scene, &["install", "release", "hello", "--set", "level=four"]).await?;
    let adopt = ["adopt", "helm", "release", "--path", "hello", "--repository", "repo"];
    let adopted = gitseal(&scene, &adopt).await?.is(0, &["path: ./\n", "level: four", "applies 1 of them"])?;
    let adopted = manifests::parse("sync.yaml", adopted.out.as_bytes(), &manifests::Limits::default())?.remove(0);
    scene.sync("release", "./", Value::Object(adopted.body)["spec"].take()).await?;
    scene.is_ready("release").await?;
    gitseal(&scene, &["adopt", "helm", "release", "--finish", "--yes"]).await?.is(0, &["removed 1 stored revision"])?;
    scene.has("v1", "ConfigMap", "release-settings", settings("four", "1.1.0")).await.map(drop)
}
