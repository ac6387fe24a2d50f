//! Names and texts from tenants or servers that contain control characters. They must not control anybody's terminal, log or
//! dashboard.

use anyhow::{Context, Result, ensure};
use harness::{Plane, Scene, eventually, programs};
use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;
use serde_json::json;

use crate::{cli::Said, objects::config_map};

/// On a terminal, this would clear the screen, move to the first line, reverse the text after it, and look like a new log
/// line.
const HOSTILE: &str = "te\u{1b}[2J\u{9b}1;1H\u{7f}\u{202e}am\u{2028}\nERROR forged";
/// The form in which it must be shown.
const SHOWN: &str = "te\\u{1b}[2J\\u{9b}1;1H\\u{7f}\\u{202e}am\\u{2028}\\nERROR forged";

/// Checks that a text contains no control characters, and that it shows the hostile name in the right form.
fn is_harmless(what: &str, text: &str) -> Result<()> {
    ensure!(!text.contains(|c| manifests::is_no_text(c) && c != '\n' && c != '\t'), "{what} obeys: {text:?}");
    ensure!(!text.lines().any(|line| line.starts_with("ERROR forged")), "{what} has a forged line: {text}");
    ensure!(text.contains(SHOWN), "{what} does not show the name: {text}");
    Ok(())
}

async fn gitseal(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let mut command = programs::gitseal(Plane::shared().await?.cluster.kubeconfig())?;
    command.args(["--namespace", &scene.namespace]).args(arguments).current_dir(scene.tree.path());
    let said: Said = tokio::task::spawn_blocking(move || command.output()).await??.into();
    Ok(said.out + &said.err)
}

#[tokio::test]
async fn a_file_name_is_told_everywhere_and_obeyed_nowhere() -> Result<()> {
    let scene = Scene::new("hostile-texts").await?;
    let file = format!("app/{HOSTILE}.yaml");
    scene.tree.write(&file, "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {a: b}\n")?;
    scene.publish("a file with a name").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "PlaintextSecret").await?;
    is_harmless("the status", &message)?;
    ensure!(!message.contains('\n'), "{message:?}");

    let plane = Plane::shared().await?;
    eventually("the event", || async {
        let events = scene.api::<Event>().list(&ListParams::default()).await?;
        let note = events.items.into_iter().find_map(|event| event.note.filter(|note| note.contains("forged")));
        is_harmless("the event", &note.context("there is none yet")?)
    })
    .await?;
    eventually("the log", || async { is_harmless("the log", &plane.log().await) }).await?;
    is_harmless("gitseal status", &gitseal(&scene, &["status"]).await?)?;
    is_harmless("gitseal sync", &gitseal(&scene, &["sync", "app"]).await?)?;
    is_harmless("gitseal validate", &gitseal(&scene, &["validate", "app"]).await?)?;

    // An object that is not a Secret is compared with the cluster. The output names its file, which has the hostile
    // name.
    scene.tree.remove(&file)?;
    scene.tree.write(&file, config_map("settings", "1"))?;
    is_harmless("gitseal diff", &gitseal(&scene, &["diff", "app"]).await?)
}

#[tokio::test]
async fn a_namespace_that_git_names_is_no_label() -> Result<()> {
    let scene = Scene::new("labels").await?;
    let sealed = |name: &str| {
        format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: {name}, namespace: from-git-{name}}}\n\
             spec: {{encryptedData: {{a: AAAA}}}}\n"
        )
    };
    for name in ["one", "two", "three"] {
        scene.tree.write(&format!("app/{name}.yaml"), sealed(name))?;
    }
    scene.publish("three namespaces that do not exist").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.sync_when("app", "not Ready", |_, ready| ready.status == crds::ConditionStatus::False).await?;
    let controller = Plane::shared().await?.controller.lock().await;
    let metrics = controller.as_ref().context("a controller")?.fetch("/metrics").await?;
    ensure!(!metrics.contains("from-git-"), "{metrics}");
    Ok(())
}
