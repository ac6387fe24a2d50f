//! Syncs whose chart is an archive in the repository, packaged by the real `helm package`.

use std::fs;

use anyhow::{Context as _, Result, ensure};
use harness::{Scene, charts::package};
use serde_json::json;

use super::synced::MAP;
use crate::{
    cli::gitseal,
    objects::{change_by_hand, is_value},
};

/// Packages a chart with this value, and commits it as `charts/web.tgz`.
async fn publish(scene: &Scene, level: &str) -> Result<String> {
    let folder = tempfile::tempdir()?;
    let files = [("templates/map.yaml", MAP), ("values.yaml", &*format!("level: {level}\n"))];
    let archive = package(folder.path(), "web", "1.0.0", &files)?;
    scene.tree.write("charts/web.tgz", fs::read(archive)?)?;
    scene.publish(level).await
}

#[tokio::test]
async fn an_archive_in_the_repository_is_applied_as_its_folder_would_be() -> Result<()> {
    let scene = Scene::new("chart-archive").await?;
    let first = publish(&scene, "one").await?;
    scene.sync("app", "./charts/web.tgz", json!({"helm": {}})).await?;
    scene.sync("mine", "charts/web.tgz", json!({"helm": {"values": {"level": "mine"}}})).await?;
    for (sync, value) in [("app", "one"), ("mine", "mine")] {
        scene.is_applied(sync, &first).await?;
        is_value(&scene, &format!("{sync}-map"), value).await?;
    }
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "one").await?;

    let second = publish(&scene, "two").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "app-map", "two").await?;

    // The command line renders the same.
    let sync = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "app"},
        "spec": {"repository": {"name": "repo"}, "path": "./charts/web.tgz", "helm": {}},
    });
    scene.tree.write("clusters/app.yaml", sync.to_string())?;
    gitseal(&scene, &["build", "--sync", "clusters/app.yaml"]).await?.is(0, &["name: app-map", "value: two"])?;

    // The archive leaves the repository: nothing is deleted.
    scene.tree.remove("charts/web.tgz")?;
    scene.tree.write("charts/other.yaml", "a: b\n")?;
    scene.publish("no archive").await?;
    let message = scene.is_not_ready("app", "PathNotFound").await?;
    ensure!(message.contains("charts/web.tgz"), "{message}");
    is_value(&scene, "app-map", "two").await
}

#[tokio::test]
async fn what_is_no_archive_of_a_chart_is_refused() -> Result<()> {
    let scene = Scene::new("chart-archives-refused").await?;
    publish(&scene, "one").await?;
    scene.tree.write("charts/text.tgz", "no archive")?;
    // Compressed, it is small; unpacked, it is larger than all archives of a chart may be.
    let folder = tempfile::tempdir()?;
    let zeros = "0".repeat(4 << 20);
    let names: Vec<_> = (0..9).map(|number| format!("files/{number}")).collect();
    let files: Vec<_> = names.iter().map(|name| (name.as_str(), zeros.as_str())).collect();
    let large = package(folder.path(), "large", "1.0.0", &files)?;
    ensure!(fs::metadata(&large)?.len() < 1 << 20, "it is not small");
    scene.tree.write("charts/large.tgz", fs::read(large)?)?;
    std::os::unix::fs::symlink("web.tgz", scene.tree.path().join("charts/link.tgz"))?;
    scene.publish("files").await?;
    let helm = json!({"helm": {}});
    for (name, path, spec, reason, part) in [
        ("plain", "charts/web.tgz", json!({}), "NotAFolder", "with spec.helm, the archive of a chart (.tgz)"),
        ("inside", "charts/web.tgz/web", helm.clone(), "NotAFolder", "\"charts/web.tgz\" is a file"),
        ("text", "charts/text.tgz", helm.clone(), "BuildFailed", "charts/text.tgz is not an archive of a chart"),
        ("large", "charts/large.tgz", helm.clone(), "BuildFailed", "more than 32 MiB together"),
        ("link", "charts/link.tgz", helm, "NotAFolder", "is a symbolic link"),
    ] {
        scene.sync(name, path, spec).await?;
        let message = scene.is_not_ready(name, reason).await.with_context(|| name.to_owned())?;
        ensure!(message.contains(part), "{name}: '{part}' is not in: {message}");
    }
    Ok(())
}
