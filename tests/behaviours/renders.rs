//! How often a folder is read: once for each version of its files, and once more at the first drift of one of its
//! objects.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Result;
use crds::Sync;
use harness::{Plane, Scene, git::ServerOptions, kubernetes, programs::Controller};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::objects::config_map;

/// How often a pass got the objects of a folder from `from`: for example, from `git`, `helm` or `memory`.
pub(crate) async fn rendered(controller: &Controller, from: &str) -> Result<u64> {
    let rendered = controller.metric(&format!("gitseal_folders_rendered_total{{from=\"{from}\"}}")).await?;
    Ok(rendered.unwrap_or(0))
}

/// The processes that the process `pid` started for rendering.
pub(crate) fn renderers(pid: u32) -> Vec<u32> {
    let parent = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let is_renderer = |process: &u32| {
        let text = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).unwrap_or_default();
        parent(&text("stat")) == Some(pid) && text("cmdline").contains("gitseal-renderer")
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_renderer).collect()
}

/// The files in all folders named `renders` below `folder`.
pub(crate) fn renders(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.path());
    let (folders, files): (Vec<_>, Vec<_>) = entries.partition(|path| path.is_dir());
    let own = files.into_iter().filter(|_| folder.ends_with("renders"));
    own.chain(folders.iter().flat_map(|folder| renders(folder))).collect()
}

#[tokio::test]
async fn what_drifts_again_is_put_back_without_reading_its_folder() -> Result<()> {
    let (plane, controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "renders", ServerOptions::default()).await?;
    for name in ["one", "two", "three"] {
        scene.tree.write(&format!("app/{name}.yaml"), config_map(name, "from-git"))?;
    }
    scene.repository(json!({})).await?;
    let revision = scene.publish("all").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    assert_eq!(rendered(&controller, "git").await?, 1);

    let api: Api<ConfigMap> = scene.api();
    for name in ["one", "two", "three"] {
        let patch = Patch::Merge(json!({"data": {"value": "by hand"}}));
        api.patch(name, &PatchParams::default(), &patch).await?;
        scene.has("v1", "ConfigMap", name, json!({"data": {"value": "from-git"}})).await?;
    }
    assert_eq!(rendered(&controller, "git").await?, 2, "by the pass and by the first heal");
    assert_eq!(rendered(&controller, "memory").await?, 2);

    // A changed folder is read again, and drift is healed to its new content.
    scene.tree.write("app/one.yaml", config_map("one", "newer"))?;
    let revision = scene.publish("one of them").await?;
    scene.is_applied("app", &revision).await?;
    let patch = Patch::Merge(json!({"data": {"value": "by hand"}}));
    api.patch("one", &PatchParams::default(), &patch).await?;
    scene.has("v1", "ConfigMap", "one", json!({"data": {"value": "newer"}})).await?;
    Ok(())
}

#[tokio::test]
async fn the_end_of_a_sync_whose_labels_name_another_one_is_no_work_for_that_one() -> Result<()> {
    let (plane, controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "labels", ServerOptions::default()).await?;
    scene.tree.write("app/one.yaml", config_map("one", "1"))?;
    scene.tree.write("after/two.yaml", config_map("two", "1"))?;
    scene.repository(json!({})).await?;
    let revision = scene.publish("all").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;

    // Anybody who creates a Sync can choose its labels. This Sync is suspended, so it has no finalizer.
    let labels = json!({crds::names::SYNC_NAMESPACE: scene.namespace, crds::names::SYNC_NAME: "app"});
    let stray = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "stray", "labels": labels},
        "spec": {"repository": {"name": "repo"}, "path": "./app", "suspend": true},
    });
    kubernetes::apply(&scene.client, &scene.namespace, stray).await?;
    scene.api::<Sync>().delete("stray", &DeleteParams::default()).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "stray").await?;
    // The watch shows the new Sync `after` later than it shows the other Sync. So when `after` is applied, the
    // controller has seen the other Sync, too.
    scene.sync("after", "./after", json!({})).await?;
    scene.is_applied("after", &revision).await?;
    assert_eq!(rendered(&controller, "git").await?, 2, "each folder once");
    Ok(())
}

#[tokio::test]
async fn what_other_programs_keep_in_the_folder_is_left_out() -> Result<()> {
    let scene = Scene::new("others").await?;
    let others = [
        (".github/workflows/ci.yml", "on: [push]\njobs: {}\n"),
        (".yamllint.yaml", "extends: default\n"),
        ("docker-compose.yml", "services: {web: {image: nginx}}\n"),
        ("package.json", "{\"name\": \"tools\"}\n"),
        ("tsconfig.json", "{\n  // comment\n  \"strict\": true,\n}\n"),
        ("values.yaml", "replicaCount: 2\n"),
        ("todo.yaml", "# nothing yet\n"),
        ("empty.yaml", ""),
    ];
    for (path, text) in others {
        scene.tree.write(path, text)?;
    }
    scene.tree.write("app.yaml", config_map("app", "1"))?;
    scene.tree.write("values-prod.yaml", config_map("prod", "1"))?;
    scene.tree.write("README.md", "read")?;
    scene.tree.symlink("LICENSE", "README.md")?;
    scene.repository(json!({})).await?;
    let revision = scene.publish("all").await?;
    scene.sync("all", "./", json!({})).await?;
    scene.is_applied("all", &revision).await?;
    for name in ["app", "prod"] {
        scene.has("v1", "ConfigMap", name, json!({"data": {"value": "1"}})).await?;
    }
    Ok(())
}
