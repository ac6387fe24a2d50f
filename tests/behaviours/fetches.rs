//! Git servers that never answer. Other Repositories do not wait for them, and a fetch that is no longer needed is stopped
//! at once.

use anyhow::{Context, Result, ensure};
use crds::Repository;
use harness::{Plane, Scene, eventually, kubernetes};
use kube::api::DeleteParams;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::objects::config_map;

/// How many fetches the tests start: more than one namespace may run at the same time.
const HOLES: usize = 8;

/// Starts a server that accepts every connection and sends nothing. Returns its URL.
async fn black_hole() -> Result<String> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let url = format!("http://{}/repo.git", listener.local_addr()?);
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((connection, _)) = listener.accept().await {
            kept.push(connection);
        }
    });
    Ok(url)
}

fn repository(number: usize, url: &str) -> Value {
    json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": format!("hole-{number}")},
        "spec": {"url": url, "interval": "1h", "timeout": "10m"},
    })
}

/// Creates [`HOLES`] Repositories in the scene's namespace, all with the URL `url`.
async fn repositories(scene: &Scene, url: &str) -> Result<()> {
    for number in 0..HOLES {
        kubernetes::apply(&scene.client, &scene.namespace, repository(number, url)).await?;
    }
    Ok(())
}

/// Waits until the condition Ready has this reason and a message with this text.
async fn says(scene: &Scene, kind: &str, name: &str, reason: &str, text: &str) -> Result<()> {
    eventually(&format!("{kind} {name} to say {reason}"), || async {
        let object = scene.get("gitseal.dev/v1alpha1", kind, name).await?.context("it is not there")?;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready").unwrap_or_default();
        let message = ready["message"].as_str().unwrap_or_default();
        ensure!(ready["reason"] == reason && message.contains(text), "{ready}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn servers_that_never_answer_keep_nobody_else_waiting() -> Result<()> {
    let hole = black_hole().await?;
    let (hostile, neighbour) = (Scene::new("holes").await?, Scene::new("neighbour").await?);
    repositories(&hostile, &hole).await?;
    hostile.sync("waits", "./app", json!({"repository": {"name": "hole-0"}})).await?;
    // Some fetches run, and the others wait for their turn. No status says that the repository does not exist.
    for number in 0..HOLES {
        says(&hostile, "Repository", &format!("hole-{number}"), "Fetching", "waits for its turn").await?;
    }
    says(&hostile, "Sync", "waits", "RepositoryNotReady", "has not been fetched yet").await?;
    let controller = Plane::shared().await?.controller.lock().await;
    let waiting = controller.as_ref().context("a controller")?.metric::<u64>("gitseal_git_fetches_waiting").await?;
    drop(controller);
    ensure!(waiting > Some(0), "{waiting:?}");

    neighbour.tree.write("app/a.yaml", config_map("neighbour", "1"))?;
    let revision = neighbour.publish("while others hang").await?;
    neighbour.sync("app", "./app", json!({})).await?;
    neighbour.is_applied("app", &revision).await?;

    // An edit of the URL stops the fetch from the old URL.
    hostile.tree.write("app/a.yaml", config_map("own", "1"))?;
    hostile.tree.publish("its own")?;
    repositories(&hostile, &hostile.server.url("repo")).await?;
    for number in 0..HOLES {
        says(&hostile, "Repository", &format!("hole-{number}"), "Fetched", "main@sha1:").await?;
    }
    hostile.has("v1", "ConfigMap", "own", json!({"data": {"value": "1"}})).await.map(drop)
}

#[tokio::test]
async fn a_deleted_repository_gives_its_place_back() -> Result<()> {
    let hole = black_hole().await?;
    let scene = Scene::new("deleted").await?;
    repositories(&scene, &hole).await?;
    says(&scene, "Repository", "hole-0", "Fetching", hole.split('/').nth(2).unwrap_or_default()).await?;
    let api: kube::Api<Repository> = scene.api();
    for number in 0..HOLES {
        api.delete(&format!("hole-{number}"), &DeleteParams::default()).await?;
    }
    // The deleted Repositories had as many fetches in progress as this namespace may run at the same time. The fetch of
    // the next Repository can run only if these have ended.
    scene.tree.write("app/a.yaml", config_map("after", "1"))?;
    let revision = scene.publish("in their place").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await.map(drop)
}

#[tokio::test]
async fn no_fetch_may_take_for_ever() -> Result<()> {
    let scene = Scene::new("limits").await?;
    for (field, value, text) in [
        ("timeout", "11m", "between 1s and 10m"),
        ("timeout", "999999h", "between 1s and 10m"),
        ("timeout", "1ms", "between 1s and 10m"),
        ("interval", "10ms", "at least 1s"),
    ] {
        let mut object = repository(0, "https://git.example/repo.git");
        object["spec"][field] = value.into();
        let refused = kubernetes::apply(&scene.client, &scene.namespace, object).await.expect_err(value);
        ensure!(format!("{refused:#}").contains(text), "{field} {value}: {refused:#}");
    }
    Ok(())
}
