//! Git servers that cannot be reached, have a rewritten history, are empty, or need credentials; and every way to
//! choose a commit.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::{ConditionStatus, Repository, find_condition};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
    web::Access,
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::DeleteParams;
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::objects::config_map;

fn value(value: &str) -> Value {
    json!({"data": {"value": value}})
}

async fn delete(scene: &Scene, name: &str) -> Result<()> {
    let maps: kube::Api<ConfigMap> = scene.api();
    maps.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

/// Waits until the Repository is Ready at `revision`.
pub(crate) async fn is_fetched(scene: &Scene, revision: &str) -> Result<()> {
    let api: kube::Api<Repository> = scene.api();
    eventually(&format!("{revision} to be fetched"), || async {
        let repository = api.get("repo").await?;
        let status = repository.status.unwrap_or_default();
        let is_ready =
            find_condition(&status.conditions, "Ready").is_some_and(|ready| ready.status == ConditionStatus::True);
        if is_ready
            && status.revision.as_deref() == Some(revision)
            && status.observed_generation == repository.metadata.generation
        {
            return Ok(());
        }
        bail!("{status:?}")
    })
    .await
}

#[tokio::test]
async fn the_loop_goes_on_while_git_is_away() -> Result<()> {
    let scene = Scene::new("away").await?;
    scene.tree.write("app/a.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    scene.server.stop();
    scene.tree.write("app/a.yaml", config_map("settings", "2"))?;
    let second = format!("main@sha1:{}", scene.tree.publish("while the server is away")?);
    scene.fetch().await?;
    let message = scene.repository_fails("NetworkError").await?;
    assert!(message.contains("cannot fetch from 127.0.0.1:"), "{message}");
    delete(&scene, "settings").await?;
    scene.has("v1", "ConfigMap", "settings", value("1")).await?;
    scene.is_applied("app", &first).await?;

    // No fetch is requested: the Repository tries again by itself.
    scene.server.start()?;
    is_fetched(&scene, &second).await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "settings", value("2")).await.map(drop)
}

#[tokio::test]
async fn a_server_that_asks_for_a_pause_is_left_alone_that_long() -> Result<()> {
    // `PAUSE` is longer than the pause after a first failure.
    const PAUSE: u64 = 8;
    let scene = Scene::new("busy").await?;
    scene.tree.write("app/a.yaml", config_map("settings", "1"))?;
    scene.publish("first").await?;
    scene.server.be_busy(Some(PAUSE));
    let second = format!("main@sha1:{}", scene.tree.publish("second")?);
    scene.fetch().await?;
    let refused = scene.server.requests().last().context("a request")?.at;
    let asked = scene.server.request_count();
    let message = scene.repository_fails("TooManyRequests").await?;
    for text in ["it says \"come again later\"", &format!("it asks for a pause of {PAUSE} s")] {
        ensure!(message.contains(text), "no {text:?} in: {message}");
    }
    scene.server.be_busy(None);
    is_fetched(&scene, &second).await?;
    let next = scene.server.requests().get(asked).context("another request")?.at;
    let pause = next.duration_since(refused);
    ensure!(pause >= Duration::from_secs(PAUSE), "it was asked again after {pause:?}");

    // A requested fetch does not wait for the end of the pause.
    scene.server.be_busy(Some(3600));
    scene.fetch().await?;
    scene.repository_fails("TooManyRequests").await?;
    scene.server.be_busy(None);
    scene.tree.write("app/a.yaml", config_map("settings", "3"))?;
    let third = scene.publish("third").await?;
    is_fetched(&scene, &third).await
}

#[tokio::test]
async fn a_restart_without_git_heals_from_the_disk() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "restart", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    for name in ["drifted", "deleted", "left"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "1"))?;
    }
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    let old = plane.controller.lock().await.take().context("a controller")?;
    old.kill()?;
    scene.server.stop();
    delete(&scene, "deleted").await?;
    let drifted = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "drifted"}, "data": {"value": "9"},
    });
    kubernetes::apply(&scene.client, &scene.namespace, drifted).await?;
    let left = scene.get("v1", "ConfigMap", "left").await?;

    let folder = plane.folder();
    let options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    scene.has("v1", "ConfigMap", "deleted", value("1")).await?;
    scene.has("v1", "ConfigMap", "drifted", value("1")).await?;
    scene.repository_fails("NetworkError").await?;
    scene.is_applied("app", &first).await?;
    assert_eq!(scene.get("v1", "ConfigMap", "left").await?, left, "it needed nothing");

    scene.tree.write("app/left.yaml", config_map("left", "2"))?;
    scene.server.start()?;
    let second = scene.publish("Git is back").await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "left", value("2")).await.map(drop)
}

#[tokio::test]
async fn rewritten_history_is_followed() -> Result<()> {
    let scene = Scene::new("rewritten").await?;
    scene.tree.write("app/a.yaml", config_map("kept", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.tree.write("app/b.yaml", config_map("regretted", "1"))?;
    let second = scene.publish("regretted").await?;
    scene.is_applied("app", &second).await?;

    scene.tree.reset(first.rsplit(':').next().context("no hash")?)?;
    scene.tree.write("app/a.yaml", config_map("kept", "2"))?;
    let third = format!("main@sha1:{}", scene.tree.commit("as if nothing had been")?);
    scene.tree.force_push()?;
    scene.fetch().await?;
    scene.is_applied("app", &third).await?;
    scene.has("v1", "ConfigMap", "kept", value("2")).await?;
    scene.is_gone("v1", "ConfigMap", "regretted").await
}

#[tokio::test]
async fn a_deleted_branch_deletes_nothing() -> Result<()> {
    let scene = Scene::new("branch").await?;
    scene.tree.write("app/a.yaml", config_map("settings", "1"))?;
    scene.tree.publish("first")?;
    scene.tree.switch("feature")?;
    let first = format!("feature@sha1:{}", scene.tree.publish("the same")?);
    scene.repository(json!({"ref": {"branch": "feature"}})).await?;
    is_fetched(&scene, &first).await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.git(["push", "--quiet", "origin", ":feature"])?;
    scene.fetch().await?;
    let message = scene.repository_fails("ReferenceNotFound").await?;
    for text in ["feature", "was not found", "main"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    // The Sync continues with the stored revision.
    delete(&scene, "settings").await?;
    scene.has("v1", "ConfigMap", "settings", value("1")).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.write("app/a.yaml", config_map("settings", "2"))?;
    let second = format!("feature@sha1:{}", scene.tree.publish("and back")?);
    scene.fetch().await?;
    is_fetched(&scene, &second).await?;
    scene.is_applied("app", &second).await?;
    scene.has("v1", "ConfigMap", "settings", value("2")).await.map(drop)
}

#[tokio::test]
async fn tags_versions_and_commits_can_be_followed() -> Result<()> {
    let scene = Scene::new("reference").await?;
    let mut commits = Vec::new();
    for tag in ["v1.0.0", "v1.1.0", "v1.10.0", "v2.0.0"] {
        scene.tree.write("app/a.yaml", config_map("settings", tag))?;
        commits.push(scene.tree.commit(tag)?);
        scene.tree.tag(tag)?;
    }
    scene.tree.push()?;
    scene.sync("app", "./app", json!({})).await?;
    for (reference, revision, expected) in [
        (json!({"tag": "v1.0.0"}), format!("v1.0.0@sha1:{}", commits[0]), "v1.0.0"),
        (json!({"semver": ">=1.0 <2"}), format!("v1.10.0@sha1:{}", commits[2]), "v1.10.0"),
        (json!({"commit": commits[1]}), format!("sha1:{}", commits[1]), "v1.1.0"),
        (json!({"branch": "main"}), format!("main@sha1:{}", commits[3]), "v2.0.0"),
    ] {
        let mut spec = json!({"ref": {"branch": null}});
        for (key, value) in reference.as_object().context("a reference")? {
            spec["ref"][key] = value.clone();
        }
        scene.repository(spec).await?;
        is_fetched(&scene, &revision).await?;
        scene.is_applied("app", &revision).await?;
        scene.has("v1", "ConfigMap", "settings", value(expected)).await?;
    }

    // A new release is found by its tag.
    scene.repository(json!({"ref": {"branch": null, "semver": "^2"}})).await?;
    is_fetched(&scene, &format!("v2.0.0@sha1:{}", commits[3])).await?;
    scene.tree.write("app/a.yaml", config_map("settings", "v2.1.0"))?;
    let commit = scene.tree.commit("v2.1.0")?;
    scene.tree.tag("v2.1.0")?;
    scene.tree.push()?;
    scene.fetch().await?;
    scene.is_applied("app", &format!("v2.1.0@sha1:{commit}")).await?;

    let two = json!({"ref": {"branch": "main", "tag": "v1.0.0"}});
    let refused = scene.repository(two).await.expect_err("two references");
    assert!(refused.to_string().contains("set exactly one of branch, tag, semver, commit and digest"), "{refused}");
    Ok(())
}

#[tokio::test]
async fn an_empty_repository_says_so() -> Result<()> {
    let scene = Scene::new("empty").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.repository_fails("EmptyRepository").await?;
    assert!(message.contains("push a first commit"), "{message}");
    let message = scene.is_not_ready("app", "RepositoryNotReady").await?;
    assert!(message.contains("repo"), "{message}");
    scene.tree.write("app/a.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    scene.is_applied("app", &first).await.map(drop)
}

/// Gives the Repository these credentials, and requests a fetch. If `trust` is true, the server's certificate is trusted.
async fn unlock(scene: &Scene, credentials: &[(&str, &str)], trust: bool) -> Result<()> {
    let authority = scene.server.certificate_authority().filter(|_| trust);
    let authority = authority.map(|authority| ("ca.crt", authority));
    let data: Value = credentials
        .iter()
        .copied()
        .chain(authority)
        .map(|(key, value)| (key.to_owned(), Value::from(STANDARD.encode(value))))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "git"}, "data": data,
    });
    kubernetes::apply(&scene.client, &scene.namespace, secret).await?;
    scene.repository(json!({"secretRef": {"name": "git"}})).await?;
    scene.fetch().await
}

async fn locked_scene(name: &str, access: Access) -> Result<(Scene, String)> {
    let options = ServerOptions { access, tls: true, ..ServerOptions::default() };
    let scene = Scene::on(Plane::shared().await?, name, options).await?;
    scene.tree.write("app/a.yaml", config_map("settings", "1"))?;
    let revision = format!("main@sha1:{}", scene.tree.publish("first")?);
    scene.sync("app", "./app", json!({})).await?;
    Ok((scene, revision))
}

#[tokio::test]
async fn a_password_opens_and_a_wrong_one_says_so() -> Result<()> {
    const WRONG: &str = "wrong-hunter2";
    let access = Access::Basic { username: "reader".into(), password: "right-hunter2".into() };
    let (scene, revision) = locked_scene("basic", access).await?;
    scene.repository(json!({"secretRef": {"name": "git"}})).await?;
    let message = scene.repository_fails("SecretNotFound").await?;
    assert!(message.contains("git") && message.contains("spec.secretRef"), "{message}");

    let wrong = [("username", "reader"), ("password", WRONG)];
    unlock(&scene, &wrong, false).await?;
    let message = scene.repository_fails("NetworkError").await?;
    assert!(message.contains("certificate"), "{message}");
    unlock(&scene, &wrong, true).await?;
    let message = scene.repository_fails("AuthenticationFailed").await?;
    for text in ["localhost", "spec.secretRef"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    let log = Plane::shared().await?.log().await;
    assert!(!message.contains(WRONG) && !log.contains(WRONG), "the password is shown");

    // The password ends with a line break, as editors leave one.
    let right = [("username", "reader"), ("password", "right-hunter2\n")];
    unlock(&scene, &right, true).await?;
    is_fetched(&scene, &revision).await?;
    scene.is_applied("app", &revision).await.map(drop)
}

#[tokio::test]
async fn a_bearer_token_opens() -> Result<()> {
    let (scene, revision) = locked_scene("bearer", Access::Bearer("token-5f2c".into())).await?;
    unlock(&scene, &[("username", "reader")], true).await?;
    let message = scene.repository_fails("InvalidCredentials").await?;
    assert!(message.contains("no password"), "{message}");
    unlock(&scene, &[("bearerToken", "token-5f2c")], true).await?;
    is_fetched(&scene, &revision).await?;
    scene.is_applied("app", &revision).await.map(drop)
}

#[tokio::test]
async fn credentials_over_plain_http_are_refused_by_the_api() -> Result<()> {
    let scene = Scene::new("http").await?;
    let refused = scene.repository(json!({"secretRef": {"name": "git"}})).await.expect_err("http with credentials");
    assert!(refused.to_string().contains("credentials are not sent over plain http"), "{refused}");
    let refused = scene
        .repository(json!({"url": "https://me:hunter2@git.example.com/a"}))
        .await
        .expect_err("a password in the URL");
    assert!(refused.to_string().contains("would be stored in plain sight"), "{refused}");
    Ok(())
}
