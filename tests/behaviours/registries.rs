//! Charts and other artifacts from a real OCI registry: versions, digests, logins, and what a registry should not have.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::Repository;
use harness::{
    Plane, Scene,
    charts::{archive, package},
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions, gitseal, run},
    registry::{Login, Registry, USERNAME, cosign::Signer},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{objects::config_map, remote::is_fetched, traces::event};

/// The type of an artifact with files that are no chart.
const FILES: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";

/// A chart `hello` with one ConfigMap, `NAME-settings`.
fn hello(into: &Path, version: &str, level: &str) -> Result<std::path::PathBuf> {
    let settings = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"{{ .Release.Name }}-settings\"}\n\
                    data: {value: \"{{ .Values.level }}\", version: \"{{ .Chart.Version }}\"}\n";
    package(
        into,
        "hello",
        version,
        &[("templates/settings.yaml", settings), ("values.yaml", &format!("level: {level}\n"))],
    )
}

fn settings(level: &str, version: &str) -> Value {
    json!({"data": {"value": level, "version": version}})
}

/// Makes the Secret `registry` with these keys, and with the certificate authorities of the registry.
async fn secret(scene: &Scene, registry: &Registry, keys: &[(&str, &str)]) -> Result<()> {
    let authority = registry.certificate_authority();
    let data: serde_json::Map<_, _> = keys
        .iter()
        .copied()
        .chain([("ca.crt", authority.as_str())])
        .map(|(key, value)| (key.to_owned(), Value::from(STANDARD.encode(value))))
        .collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "registry"}, "data": data});
    kubernetes::apply(&scene.client, &scene.namespace, secret).await.map(drop)
}

/// Makes the Repository `repo` name the artifact `name` of the registry.
async fn repository(scene: &Scene, registry: &Registry, name: &str, reference: Value) -> Result<()> {
    // Fields that an earlier call set are removed.
    let mut full = json!({"branch": null, "tag": null, "semver": null, "digest": null});
    for (field, value) in reference.as_object().context("fields")? {
        full[field] = value.clone();
    }
    let spec = json!({"url": registry.url(name), "secretRef": {"name": "registry"}, "ref": full});
    scene.repository(spec).await
}

async fn scene_with(name: &str, login: Login) -> Result<(Scene, Registry)> {
    let (scene, registry) =
        (Scene::on(Plane::shared().await?, name, ServerOptions::default()).await?, Registry::start(login).await?);
    secret(&scene, &registry, &[]).await?;
    Ok((scene, registry))
}

#[tokio::test]
async fn a_chart_follows_the_versions_of_a_registry() -> Result<()> {
    let (scene, registry) = scene_with("chart", Login::Anonymous).await?;
    let folder = tempfile::tempdir()?;
    let first = registry.push(&hello(folder.path(), "1.0.0", "one")?, "charts")?;
    registry.push(&hello(folder.path(), "2.0.0-rc.1", "next")?, "charts")?;
    repository(&scene, &registry, "charts/hello", json!({"semver": "1.x"})).await?;
    let revision = format!("1.0.0@{first}");
    is_fetched(&scene, &revision).await?;
    scene.sync("app", "./", json!({"helm": {"values": {"level": "mine"}}})).await?;
    scene.is_applied("app", &revision).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("mine", "1.0.0")).await?;

    // A version with build metadata, whose tag has an underscore, because a tag cannot have a plus sign.
    let second = registry.push(&hello(folder.path(), "1.1.0+build.7", "two")?, "charts")?;
    scene.fetch().await?;
    scene.is_applied("app", &format!("1.1.0+build.7@{second}")).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("mine", "1.1.0+build.7")).await?;

    // The tag is moved: the same version with other content, which is not used.
    let moved = registry.push(&hello(folder.path(), "1.1.0+build.7", "three")?, "charts")?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    scene.fetch().await?;
    let message = scene.repository_fails("DigestChanged").await?;
    for part in ["version 1.1.0+build.7 has", &moved, &second, "spec.ref.digest"] {
        ensure!(message.contains(part), "no {part:?} in: {message}");
    }
    event(&scene, "repo", "DigestChanged", &[&moved, &second]).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("two", "1.1.0+build.7")).await?;

    // The next version is used.
    let third = registry.push(&hello(folder.path(), "1.1.1", "three")?, "charts")?;
    scene.fetch().await?;
    let third = format!("1.1.1@{third}");
    scene.is_applied("app", &third).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("three", "1.1.1")).await?;

    // Nothing new: the manifest is not asked for again.
    let manifests = |registry: &Registry| registry.log().matches("GET /v2/charts/hello/manifests/").count();
    let before = manifests(&registry);
    scene.fetch().await?;
    ensure!(manifests(&registry) == before, "{}", registry.log());

    let kubeconfig = Plane::shared().await?.cluster.kubeconfig();
    let told = |arguments: &[&str]| run(gitseal(kubeconfig)?.args(["-n", &scene.namespace]).args(arguments));
    let short = &third[.."1.1.1@".len()];
    let digest = &third[short.len()..];
    let status = told(&["status", "app"])?;
    ensure!(status.contains(&format!("{short}{}", &digest["sha256:".len()..][..8])), "{status}");
    let repository = told(&["status", "repository/repo"])?;
    ensure!(repository.contains("versions 1.x") && repository.contains(&registry.url("charts/hello")), "{repository}");
    let trace = told(&["trace", "configmap/app-settings"])?;
    ensure!(trace.contains(digest) && trace.contains("this revision was downloaded as an archive"), "{trace}");

    // `gitseal diff` shows what another version would change, before that version is pushed.
    let next = hello(folder.path(), "1.2.0", "four")?;
    run(std::process::Command::new("tar").arg("-xzf").arg(next).arg("-C").arg(folder.path()))?;
    let chart = folder.path().join("hello").display().to_string();
    let diff = gitseal(kubeconfig)?.args(["-n", &scene.namespace, "diff", &chart, "--sync", "app"]).output()?;
    let diff = String::from_utf8_lossy(&diff.stdout);
    ensure!(diff.contains("+  value: four") && diff.contains("-  value: three"), "{diff}");
    let sync = folder.path().join("sync.yaml");
    let of_registry = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "app"},
        "spec": {"repository": {"name": "repo"}, "path": "./", "helm": {"values": {"level": "mine"}}},
    });
    std::fs::write(&sync, of_registry.to_string())?;
    let built = told(&["build", &chart, "--sync", &sync.display().to_string()])?;
    ensure!(built.contains("name: app-settings") && built.contains("value: mine"), "{built}");
    Ok(())
}

#[tokio::test]
async fn artifacts_with_plain_manifests_are_applied() -> Result<()> {
    let (scene, registry) = scene_with("artifact", Login::Anonymous).await?;
    let push = async |tag: &str, value: &str| -> Result<String> {
        let map = config_map("settings", value);
        let files = archive(&[("deploy/app.yaml", &map), ("README.md", "no manifest")])?;
        Ok(format!("{tag}@{}", registry.push_artifact("team/app", tag, FILES, &files).await?))
    };
    let first = push("latest", "1").await?;
    repository(&scene, &registry, "team/app", json!({"tag": "latest"})).await?;
    scene.sync("app", "./deploy", json!({})).await?;
    scene.is_applied("app", &first).await?;
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": "1"}})).await?;
    let second = push("latest", "2").await?;
    scene.fetch().await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": "2"}})).await?;

    // Other content in another folder: the Sync has nothing to do.
    let files = archive(&[("deploy/app.yaml", &config_map("settings", "2")), ("other/app.yaml", "a: b")])?;
    let third = registry.push_artifact("team/app", "latest", FILES, &files).await?;
    scene.fetch().await?;
    is_fetched(&scene, &format!("latest@{third}")).await?;
    scene.is_applied("app", &second).await.map(drop)
}

#[tokio::test]
async fn a_password_is_sent_as_the_registry_asks_for_it() -> Result<()> {
    const RIGHT: &str = "right-hunter2-of-the-registry";
    const WRONG: &str = "wrong-hunter2-of-the-registry";
    let folder = tempfile::tempdir()?;
    let chart = hello(folder.path(), "1.0.0", "one")?;
    for login in [Login::Password(RIGHT), Login::Token(RIGHT)] {
        let (scene, registry) = scene_with("login", login).await?;
        let revision = format!("1.0.0@{}", registry.push(&chart, "charts")?);
        repository(&scene, &registry, "charts/hello", json!({"tag": "1.0.0"})).await?;
        let message = scene.repository_fails("AuthenticationFailed").await?;
        ensure!(message.contains("name a Secret with them in spec.secretRef"), "{message}");

        secret(&scene, &registry, &[("username", USERNAME), ("password", WRONG)]).await?;
        scene.fetch().await?;
        let message = scene.repository_fails("AuthenticationFailed").await?;
        ensure!(message.contains("the credentials in spec.secretRef"), "{message}");

        let auths = json!({"auths": {"other.example.com": {"auth": "eDp5"}}}).to_string();
        secret(&scene, &registry, &[(".dockerconfigjson", &auths)]).await?;
        scene.fetch().await?;
        let message = scene.repository_fails("InvalidCredentials").await?;
        ensure!(message.contains("has no login for localhost:") && message.contains("other.example.com"), "{message}");

        let pair = STANDARD.encode(format!("{USERNAME}:{RIGHT}"));
        let auths = json!({"auths": {registry.host(): {"auth": pair}}}).to_string();
        secret(&scene, &registry, &[(".dockerconfigjson", &auths)]).await?;
        scene.fetch().await?;
        is_fetched(&scene, &revision).await?;
        let log = Plane::shared().await?.log().await;
        ensure!(!log.contains(WRONG) && !log.contains(RIGHT) && !log.contains(&pair), "a password is shown");
        let asked = registry.token_requests();
        ensure!((login == Login::Token(RIGHT)) == asked.iter().any(|request| request.with_credentials), "{asked:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_digest_pins_what_is_applied() -> Result<()> {
    let (scene, registry) = scene_with("pinned", Login::Anonymous).await?;
    let folder = tempfile::tempdir()?;
    let first = registry.push(&hello(folder.path(), "1.0.0", "one")?, "charts")?;
    let pinned = json!({"tag": "1.0.0", "digest": first});
    repository(&scene, &registry, "charts/hello", pinned.clone()).await?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    let revision = format!("1.0.0@{first}");
    scene.is_applied("app", &revision).await?;

    // Somebody moves the tag. The stored archive has the digest that the Repository pins, so the registry is not even
    // asked.
    let second = registry.push(&hello(folder.path(), "1.0.0", "two")?, "charts")?;
    let log = registry.log().len();
    scene.fetch().await?;
    is_fetched(&scene, &revision).await?;
    ensure!(!registry.log()[log..].contains("GET /v2/charts"), "{}", registry.log());

    // The digest of another version.
    registry.push(&hello(folder.path(), "1.1.0", "three")?, "charts")?;
    repository(&scene, &registry, "charts/hello", json!({"tag": "1.1.0", "digest": first})).await?;
    let message = scene.repository_fails("DigestMismatch").await?;
    ensure!(message.contains("\"1.1.0\" has the digest sha256:") && message.contains(&first), "{message}");
    scene.is_applied("app", &revision).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("one", "1.0.0")).await?;

    // The Repository names the version by its digest only, and then by the digest of the other version.
    repository(&scene, &registry, "charts/hello", json!({"digest": first})).await?;
    is_fetched(&scene, &first).await?;
    repository(&scene, &registry, "charts/hello", json!({"digest": second})).await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("two", "1.0.0")).await.map(drop)
}

/// The digests that the status of the Repository records for a version.
async fn recorded(scene: &Scene, version: &str) -> Result<Vec<String>> {
    let status = scene.api::<Repository>().get("repo").await?.status.unwrap_or_default();
    Ok(status.versions.into_iter().filter(|one| one.version == version).map(|one| one.digest).collect())
}

#[tokio::test]
async fn a_version_keeps_its_digest_also_after_a_restart_until_somebody_accepts_another_one() -> Result<()> {
    let (plane, controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "kept-digest", ServerOptions::default()).await?;
    let registry = Registry::start(Login::Anonymous).await?;
    secret(&scene, &registry, &[]).await?;
    let folder = tempfile::tempdir()?;
    let old = registry.push(&hello(folder.path(), "1.0.0", "old")?, "charts")?;
    repository(&scene, &registry, "charts/hello", json!({"semver": "1.x"})).await?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    scene.is_applied("app", &format!("1.0.0@{old}")).await?;
    let first = registry.push(&hello(folder.path(), "1.1.0", "one")?, "charts")?;
    scene.fetch().await?;
    scene.is_applied("app", &format!("1.1.0@{first}")).await?;
    assert_eq!((recorded(&scene, "1.0.0").await?, recorded(&scene, "1.1.0").await?), (vec![old], vec![first.clone()]));

    // The version gets other content while no controller runs. The last revision is on the disk.
    controller.kill()?;
    let second = registry.push(&hello(folder.path(), "1.1.0", "two")?, "charts")?;
    let maps: kube::Api<ConfigMap> = scene.api();
    maps.delete("app-settings", &DeleteParams::default()).await?;
    let mut controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("one", "1.1.0")).await?;
    scene.repository_fails("DigestChanged").await?;

    // The disk is lost, too: nothing is applied or deleted.
    controller.kill()?;
    std::fs::remove_dir_all(plane.folder().join("git"))?;
    let mut controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    scene.fetch().await?;
    let message = scene.repository_fails("DigestChanged").await?;
    ensure!(message.contains(&first) && message.contains(&second), "{message}");
    scene.has("v1", "ConfigMap", "app-settings", settings("one", "1.1.0")).await?;

    // An older version, too, has the digest that it had.
    registry.push(&hello(folder.path(), "1.0.0", "changed")?, "charts")?;
    repository(&scene, &registry, "charts/hello", json!({"tag": "1.0.0"})).await?;
    scene.fetch().await?;
    let message = scene.repository_fails("DigestChanged").await?;
    ensure!(message.contains("version 1.0.0 has") && message.contains(" at 20"), "{message}");

    // Somebody accepts the new content of 1.1.0. From then on, this is the digest of the version, whatever names it.
    repository(&scene, &registry, "charts/hello", json!({"tag": "1.1.0", "digest": second})).await?;
    scene.is_applied("app", &format!("1.1.0@{second}")).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("two", "1.1.0")).await?;
    assert_eq!(recorded(&scene, "1.1.0").await?, std::slice::from_ref(&second));
    repository(&scene, &registry, "charts/hello", json!({"semver": "1.x"})).await?;
    is_fetched(&scene, &format!("1.1.0@{second}")).await?;
    registry.push(&hello(folder.path(), "1.1.0", "one")?, "charts")?;
    scene.fetch().await?;
    scene.repository_fails("DigestChanged").await?;
    controller.stop()
}

#[tokio::test]
async fn what_is_gone_from_the_registry_deletes_nothing() -> Result<()> {
    let (scene, mut registry) = scene_with("gone", Login::Anonymous).await?;
    let folder = tempfile::tempdir()?;
    let first = registry.push(&hello(folder.path(), "1.0.0", "one")?, "charts")?;
    repository(&scene, &registry, "charts/hello", json!({"tag": "1.0.0"})).await?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    let revision = format!("1.0.0@{first}");
    scene.is_applied("app", &revision).await?;

    registry.push(&hello(folder.path(), "1.1.0", "two")?, "charts")?;
    registry.delete("charts/hello", &first).await?;
    registry.stop()?;
    registry.collect_garbage()?;
    registry.resume().await?;
    scene.fetch().await?;
    let message = scene.repository_fails("ReferenceNotFound").await?;
    ensure!(message.contains("tag \"1.0.0\" was not found; the tags are: 1.1.0"), "{message}");
    let maps: kube::Api<ConfigMap> = scene.api();
    maps.delete("app-settings", &DeleteParams::default()).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("one", "1.0.0")).await?;
    scene.is_applied("app", &revision).await?;

    repository(&scene, &registry, "charts/other", json!({"tag": "1.0.0"})).await?;
    let message = scene.repository_fails("RepositoryNotFound").await?;
    ensure!(message.contains("/charts/other was not found"), "{message}");
    repository(&scene, &registry, "charts/hello", json!({"semver": ">=2"})).await?;
    let message = scene.repository_fails("ReferenceNotFound").await?;
    ensure!(message.contains("the tags are: 1.1.0"), "{message}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_unpacked_is_refused_and_the_last_one_stays() -> Result<()> {
    let (scene, registry) = scene_with("hostile", Login::Anonymous).await?;
    let good = archive(&[("app/map.yaml", &config_map("settings", "1"))])?;
    let digest = registry.push_artifact("team/app", "latest", FILES, &good).await?;
    repository(&scene, &registry, "team/app", json!({"tag": "latest"})).await?;
    scene.sync("app", "./app", json!({})).await?;
    let revision = format!("latest@{digest}");
    scene.is_applied("app", &revision).await?;

    let outside = tempfile::tempdir()?;
    let path = outside.path();
    std::os::unix::fs::symlink("/etc/passwd", path.join("link.yaml"))?;
    std::fs::write(path.join("zeros"), vec![0; 200 << 20])?;
    let tar = |arguments: &[&str]| -> Result<Vec<u8>> {
        run(std::process::Command::new("tar")
            .arg("-czf")
            .arg(path.join("new.tgz"))
            .arg("-C")
            .arg(path)
            .args(arguments))?;
        Ok(std::fs::read(path.join("new.tgz"))?)
    };
    let link = tar(&["link.yaml"])?;
    let upwards = tar(&["--transform=s,^,../../../../,", "-P", "zeros"])?;
    let bomb = tar(&["zeros"])?;
    for (kind, layer, reason, text) in [
        (FILES, &link[..], "InvalidArchive", "\"link.yaml\" is a link"),
        (FILES, &upwards, "InvalidArchive", "leads upwards with '..'"),
        (FILES, &bomb, "TooLarge", "\"zeros\" has 209715200 bytes"),
        (FILES, b"no archive", "InvalidArchive", "cannot be unpacked"),
        ("application/wasm", &good, "ArtifactNotSupported", "application/wasm"),
        ("application/vnd.cncf.helm.chart.content.v1.tar+gzip", &good, "InvalidArchive", "no Chart.yaml"),
    ] {
        registry.push_artifact("team/app", "latest", kind, layer).await?;
        scene.fetch().await?;
        let message = scene.repository_fails(reason).await?;
        ensure!(message.contains(text), "no {text:?} in: {message}");
    }
    scene.is_applied("app", &revision).await?;
    let good = archive(&[("app/map.yaml", &config_map("settings", "2"))])?;
    let digest = registry.push_artifact("team/app", "latest", FILES, &good).await?;
    scene.fetch().await?;
    scene.is_applied("app", &format!("latest@{digest}")).await.map(drop)
}

#[tokio::test]
async fn a_restart_without_the_registry_heals_from_the_disk() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let (scene, mut registry) =
        (Scene::on(&plane, "restart", ServerOptions::default()).await?, Registry::start(Login::Anonymous).await?);
    secret(&scene, &registry, &[]).await?;
    let folder = tempfile::tempdir()?;
    let first = registry.push(&hello(folder.path(), "1.0.0", "one")?, "charts")?;
    repository(&scene, &registry, "charts/hello", json!({"semver": "1.x"})).await?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    let revision = format!("1.0.0@{first}");
    scene.is_applied("app", &revision).await?;

    plane.controller.lock().await.take().context("a controller")?.kill()?;
    registry.stop()?;
    let maps: kube::Api<ConfigMap> = scene.api();
    maps.delete("app-settings", &DeleteParams::default()).await?;
    let folder_of_plane = plane.folder();
    let options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder_of_plane);
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("one", "1.0.0")).await?;
    scene.repository_fails("NetworkError").await?;
    scene.is_applied("app", &revision).await?;

    registry.resume().await?;
    // This version is refused. Drift is still healed from the last good version, also after a restart, because the
    // archive of that version is still stored.
    let wrong = "apiVersion: v1\nkind: Secret\nmetadata: {name: plain}\nstringData: {a: b}\n";
    registry.push(&package(folder.path(), "hello", "1.1.0", &[("templates/secret.yaml", wrong)])?, "charts")?;
    scene.fetch().await?;
    scene.is_not_ready("app", "PlaintextSecret").await?;
    controller.kill()?;
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    scene.is_not_ready("app", "PlaintextSecret").await?;
    maps.delete("app-settings", &DeleteParams::default()).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("one", "1.0.0")).await.map(drop)
}

#[tokio::test]
async fn references_that_a_registry_does_not_have_are_refused_by_the_api() -> Result<()> {
    let scene = Scene::new("references").await?;
    let digest = format!("sha256:{}", "1".repeat(64));
    let (oci, git) = ("oci://registry.example.com/charts/hello", scene.server.url("repo"));
    let null = Value::Null;
    for (url, reference, text) in [
        (oci, null, "a registry has neither branches nor commits"),
        (oci, json!({"branch": "main"}), "a registry has neither branches nor commits"),
        (oci, json!({"branch": null, "commit": "1".repeat(40)}), "a registry has neither branches nor commits"),
        (oci, json!({"branch": null, "semver": "1.x", "digest": digest}), "set exactly one of"),
        (oci, json!({"branch": null, "tag": "a", "semver": "1.x"}), "set exactly one of"),
        (oci, json!({"branch": null, "tag": "a", "digest": "sha256:1"}), "spec.ref.digest"),
        (&git, json!({"branch": null, "digest": digest}), "ref.digest is only for charts and for oci:// URLs"),
    ] {
        let refused = scene.repository(json!({"url": url, "ref": reference})).await.expect_err("refused").to_string();
        ensure!(refused.contains(text), "no {text:?} in: {refused}");
    }
    scene.repository(json!({"url": format!("{oci}:1.0.0"), "ref": {"branch": null, "tag": "1.0.0"}})).await?;
    let message = scene.repository_fails("InvalidUrl").await?;
    ensure!(message.contains("written in spec.ref"), "{message}");
    Ok(())
}

/// Makes the Secret `trusted` with this public key, beside what `cosign generate-key-pair` also puts into its Secret.
async fn trust(scene: &Scene, signer: &Signer) -> Result<()> {
    let data = json!({"cosign.pub": STANDARD.encode(signer.public_key()), "cosign.key": STANDARD.encode("x")});
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "trusted"}, "data": data});
    kubernetes::apply(&scene.client, &scene.namespace, secret).await.map(drop)
}

#[tokio::test]
async fn a_chart_is_applied_once_a_trusted_key_of_cosign_signed_it() -> Result<()> {
    let (scene, registry) = scene_with("signed-chart", Login::Anonymous).await?;
    let (folder, owner) = (tempfile::tempdir()?, Signer::new()?);
    let digest = registry.push(&hello(folder.path(), "1.0.0", "one")?, "charts")?;
    trust(&scene, &owner).await?;
    let spec = json!({
        "url": registry.url("charts/hello"), "secretRef": {"name": "registry"}, "ref": {"branch": null, "tag": "1.0.0"},
        "verify": {"mode": "Cosign", "secretRef": {"name": "trusted"}},
    });
    scene.repository(spec).await?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    scene.repository_fails("Unsigned").await?;
    ensure!(scene.get("v1", "ConfigMap", "app-settings").await?.is_none(), "it is applied without a signature");
    registry.sign_simply("charts/hello", &digest, &owner).await?;
    scene.fetch().await?;
    scene.is_applied("app", &format!("1.0.0@{digest}")).await?;
    scene.has("v1", "ConfigMap", "app-settings", settings("one", "1.0.0")).await.map(drop)
}

#[tokio::test]
async fn only_what_a_trusted_key_of_cosign_signed_is_applied() -> Result<()> {
    const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";
    let (scene, registry) = scene_with("signed", Login::Anonymous).await?;
    let push = async |value: &str| -> Result<(String, String)> {
        let files = archive(&[("app.yaml", &config_map("settings", value))])?;
        let digest = registry.push_artifact("team/app", "latest", FILES, &files).await?;
        Ok((format!("latest@{digest}"), digest))
    };
    let has_value =
        async |value: &str| scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": value}})).await.map(drop);
    let (owner, stranger) = (Signer::new()?, Signer::new()?);
    let (first, digest) = push("1").await?;
    let spec = json!({
        "url": registry.url("team/app"), "secretRef": {"name": "registry"}, "ref": {"branch": null, "tag": "latest"},
        "verify": {"mode": "Cosign", "secretRef": {"name": "trusted"}},
    });
    scene.repository(spec).await?;
    scene.sync("app", "./", json!({})).await?;
    let message = scene.repository_fails("SecretNotFound").await?;
    ensure!(message.contains("spec.verify.secretRef"), "{message}");

    trust(&scene, &owner).await?;
    scene.fetch().await?;
    let message = scene.repository_fails("Unsigned").await?;
    ensure!(message.contains(&first) && message.contains("cosign sign --key"), "{message}");
    registry.sign_simply("team/app", &digest, &stranger).await?;
    scene.fetch().await?;
    let message = scene.repository_fails("SignatureUntrusted").await?;
    ensure!(message.contains("1 signature(s)") && message.contains("spec.verify.secretRef"), "{message}");
    ensure!(scene.get("v1", "ConfigMap", "settings").await?.is_none(), "it is applied without a trusted signature");

    // The first format, and then the second.
    registry.sign_simply("team/app", &digest, &owner).await?;
    scene.fetch().await?;
    scene.is_applied("app", &first).await?;
    has_value("1").await?;
    let (second, digest) = push("2").await?;
    registry.state("team/app", &digest, "https://slsa.dev/provenance/v1", &owner).await?;
    scene.fetch().await?;
    scene.repository_fails("Unsigned").await?;
    registry.state("team/app", &digest, SIGN, &owner).await?;
    scene.fetch().await?;
    is_fetched(&scene, &second).await?;
    scene.is_applied("app", &second).await?;
    has_value("2").await?;

    // What is known is not asked for again, until other keys are trusted. Then the last revision stays.
    let asked = |registry: &Registry| registry.log().matches("/v2/team/app/referrers/").count();
    let before = asked(&registry);
    scene.fetch().await?;
    ensure!(asked(&registry) == before, "{}", registry.log());
    trust(&scene, &stranger).await?;
    scene.fetch().await?;
    scene.repository_fails("SignatureUntrusted").await?;
    scene.api::<ConfigMap>().delete("settings", &DeleteParams::default()).await?;
    has_value("2").await
}
