//! A Git store whose files are damaged, or whose disk is full.

use std::{
    fs,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Result, ensure};
use harness::{
    Plane, Scene,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::objects::config_map;

/// All pack files in a folder and below it.
fn packs(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(packs(&path));
        } else if path.extension().is_some_and(|extension| extension == "pack") {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn what_was_damaged_is_fetched_again_and_applied() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "damaged", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    scene.tree.write("app/a.yaml", config_map("settings", &"x".repeat(2000)))?;
    let revision = scene.publish("first").await?;
    for pack in packs(&plane.folder().join("git").join(&scene.namespace)) {
        let file = fs::File::options().write(true).open(&pack)?;
        let length = usize::try_from(file.metadata()?.len())?;
        // Overwrites all bytes except the header. The file is not replaced, because the controller has mapped it into
        // memory.
        file.write_all_at(&vec![0xa5; length - 12], 12)?;
    }
    scene.sync("app", "./app", json!({"interval": "1h"})).await?;
    // The controller recovers by itself: no fetch and no reconcile is requested, and the next poll would be in an hour.
    scene.is_applied("app", &revision).await?;
    scene.has("v1", "ConfigMap", "settings", json!({})).await.map(drop)
}

/// A file system of one megabyte. It is removed when its `SmallDisk` is dropped.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn at(folder: &Path) -> Result<Option<Self>> {
        fs::create_dir_all(folder)?;
        let mount = ["-t", "tmpfs", "-o", "size=1m", "tmpfs"];
        let mounted = Command::new("mount").args(mount).arg(folder).output().is_ok_and(|done| done.status.success());
        Ok(mounted.then(|| Self(folder.to_owned())))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

#[tokio::test]
async fn a_full_disk_is_told_as_a_full_disk() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let Some(_disk) = SmallDisk::at(&folder.join("git"))? else {
        return harness::skip("no file system can be mounted here");
    };
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "full", ServerOptions::default()).await?;
    let noise: Vec<u8> = (0..1_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    scene.tree.write("noise.bin", &noise)?;
    scene.tree.write("app/a.yaml", config_map("settings", "1"))?;
    scene.tree.publish("larger than the disk")?;
    scene.repository(json!({})).await?;
    let message = scene.repository_fails("DiskFull").await?;
    ensure!(message.contains("the disk of the Git store is full"), "{message}");
    ensure!(message.contains("enlarge the volume"), "{message}");
    // The incomplete files were deleted, so there is room for a smaller commit.
    scene.tree.remove("noise.bin")?;
    let revision = scene.publish("smaller").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    ensure!(controller.process().try_wait()?.is_none(), "the controller ended");
    Ok(())
}
