//! What happens if the process that renders lies, dies, hangs or needs too much memory, and how this process is confined.

use std::{fmt::Write as _, fs, os::unix::fs::PermissionsExt as _, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use kube::api::DeleteParams;
use localcluster::ClusterOptions;
use serde_json::json;

use crate::{
    objects::{config_map, is_value},
    renders::{renderers, renders},
};

const CHART: &str = "apiVersion: v2\nname: web\nversion: 1.0.0\n";

/// A template that is rendered without end.
const ENDLESS: &str = "{{ range until 100000 }}{{ range until 100000 }}{{ end }}{{ end }}";

/// Writes the kustomization `app` with one ConfigMap of the same name, and the chart `chart` with one template.
fn write(scene: &Scene, template: &str) -> Result<()> {
    scene.tree.write("app/kustomization.yaml", "resources: [map.yaml]\n")?;
    scene.tree.write("app/map.yaml", config_map("app", "1"))?;
    scene.tree.write("chart/Chart.yaml", CHART)?;
    scene.tree.write("chart/templates/map.yaml", template)
}

#[tokio::test]
async fn what_a_process_that_lies_gives_is_neither_applied_nor_stored() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions { controller_manager: false, ..Default::default() }).await?;
    let folder = plane.folder();
    let program = folder.join("renderer");
    let behave = |script: &str| -> Result<()> {
        // The program is replaced in one step, because it may be running.
        let new = folder.join("renderer.new");
        fs::write(&new, format!("#!/bin/sh\n{script}\n"))?;
        fs::set_permissions(&new, fs::Permissions::from_mode(0o755))?;
        Ok(fs::rename(new, &program)?)
    };
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.push(format!("--renderer={}", program.display()));
    behave("exit 1")?;
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "lies", ServerOptions::default()).await?;
    write(&scene, &config_map("chart", "1"))?;
    scene.repository(json!({})).await?;
    scene.publish("a kustomization and a chart").await?;

    let forged = |origin: &str| {
        let object = json!({"origin": origin, "yaml": config_map("forged", "1")});
        json!({"objects": [object], "lookups": [], "nondeterministic": []}).to_string()
    };
    let (nothing, unread) = (forged(""), forged("app/map.yaml"));
    let helm = json!({"helm": {}});
    for (count, (path, spec, frames, lie)) in [
        ("app", json!({}), vec![('M', nothing.as_str())], "it has not read 'app/kustomization.yaml'"),
        (
            "app",
            json!({}),
            vec![('Q', "chart/Chart.yaml"), ('M', &nothing)],
            "it has not read 'app/kustomization.yaml'",
        ),
        (
            "app",
            json!({}),
            vec![('Q', "app/kustomization.yaml"), ('M', &unread)],
            "an object is said to be from 'app/map.yaml', which it has not read",
        ),
        ("chart", helm.clone(), vec![('M', &nothing)], "it has not read 'chart/Chart.yaml'"),
        (
            "chart",
            helm.clone(),
            vec![('Q', "chart/Chart.yaml"), ('M', &unread)],
            "an object is said to be from 'app/map.yaml', which it has not read",
        ),
    ]
    .into_iter()
    .enumerate()
    {
        let mut bytes = Vec::new();
        for (kind, body) in frames {
            bytes.extend(u32::try_from(body.len() + 1)?.to_be_bytes());
            bytes.push(u8::try_from(kind)?);
            bytes.extend(body.as_bytes());
        }
        let file = folder.join(format!("frames-{count}"));
        fs::write(&file, bytes)?;
        behave(&format!("cat '{}'; cat >/dev/null", file.display()))?;
        let sync = format!("lie-{count}");
        scene.sync(&sync, &format!("./{path}"), spec).await?;
        let message = scene.is_not_ready(&sync, "RendererFailed").await?;
        ensure!(message.contains("a result that cannot be right") && message.contains(lie), "{message}");
        scene.api::<Sync>().delete(&sync, &DeleteParams::default()).await?;
        scene.is_gone("gitseal.dev/v1alpha1", "Sync", &sync).await?;
    }
    ensure!(scene.get("v1", "ConfigMap", "forged").await?.is_none());
    let stored = renders(&folder);
    ensure!(stored.is_empty(), "{stored:?}");

    behave(&format!("exec {} \"$@\"", harness::programs::folder()?.join("gitseal-renderer").display()))?;
    scene.sync("app", "./app", json!({})).await?;
    scene.sync("chart", "./chart", helm).await?;
    for name in ["app", "chart"] {
        scene.is_ready(name).await?;
        is_value(&scene, name, "1").await?;
    }
    eventually("both to be stored", || async {
        let stored = renders(&folder);
        ensure!(stored.len() == 2, "{stored:?}");
        Ok(())
    })
    .await
}

/// The only process of the controller that renders, after it has worked for a while.
async fn busy(controller: &mut Controller) -> Result<u32> {
    let controller = controller.process().pid();
    eventually("a process that renders", || async {
        let all = renderers(controller);
        let [process] = all[..] else { anyhow::bail!("{all:?}") };
        let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
        // The processor time in its own code, in hundredths of a second. It starts in much less.
        let (_, fields) = stat.rsplit_once(')').context("no name")?;
        let time: u32 = fields.split_whitespace().nth(11).context("no time")?.parse()?;
        ensure!(time > 30, "{time}");
        Ok(process)
    })
    .await
}

fn is_running(process: u32) -> bool {
    fs::exists(format!("/proc/{process}/exe")).unwrap_or(false)
}

#[tokio::test]
async fn a_process_that_is_killed_or_hangs_again_and_again_delays_no_other_namespace() -> Result<()> {
    let (plane, mut controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "endless", ServerOptions::default()).await?;
    let neighbour = Scene::on(&plane, "neighbour", ServerOptions::default()).await?;
    for one in [&scene, &neighbour] {
        write(one, ENDLESS)?;
        one.repository(json!({})).await?;
        one.publish("an endless chart").await?;
    }
    scene.sync("endless", "./chart", json!({"helm": {}})).await?;
    for round in 0..2 {
        let process = busy(&mut controller).await?;
        let sync = format!("app-{round}");
        neighbour.sync(&sync, "./app", json!({"namePrefix": format!("{round}-")})).await?;
        neighbour.is_ready(&sync).await?;
        ensure!(is_running(process), "the neighbour waited until the other render ended");
        ensure!(Command::new("kill").args(["-9", &process.to_string()]).status()?.success());
        let killed =
            |_: &Sync, ready: &crds::Condition| ready.reason == "RendererFailed" && ready.message.contains("signal: 9");
        scene.sync_when("endless", "its process to be killed", killed).await?;
        // The process that the neighbour used waits for the next render, which may be that of `endless`.
        for idle in renderers(controller.process().pid()) {
            let _ = Command::new("kill").args(["-9", &idle.to_string()]).status()?;
        }
    }
    let message = scene.is_not_ready("endless", "RenderTimedOut").await?;
    ensure!(message.contains("render: chart: Helm: rendering took longer than 30 s"), "{message}");

    // Another Sync of the same namespace has to wait, and is told why. The time of one render is its longest wait.
    busy(&mut controller).await?;
    scene.sync("app", "./app", json!({})).await?;
    let waits = |_: &Sync, ready: &crds::Condition| {
        ready.reason == "Progressing"
            && ready.message.contains("now at the stage render, where it waits for a process that renders")
            && ready.message.contains("each namespace uses at most one at a time")
    };
    scene.sync_when("app", "its turn to be waited for", waits).await?;
    scene.is_ready("app").await?;
    is_value(&scene, "app", "1").await?;

    scene.tree.write("chart/templates/map.yaml", config_map("chart", "1"))?;
    let good = scene.publish("the chart ends").await?;
    scene.is_applied("endless", &good).await.map(drop)
}

#[tokio::test]
async fn two_namespaces_that_hang_give_a_third_one_its_turn() -> Result<()> {
    let (plane, mut controller) = Plane::alone(ClusterOptions::default()).await?;
    let mut hanging = Vec::new();
    for name in ["hangs-one", "hangs-two", "third"] {
        let scene = Scene::on(&plane, name, ServerOptions::default()).await?;
        write(&scene, ENDLESS)?;
        scene.repository(json!({})).await?;
        scene.publish("an endless chart").await?;
        hanging.push(scene);
    }
    let third = hanging.pop().context("three scenes")?;
    for scene in &hanging {
        for sync in ["one", "two", "three"] {
            scene.sync(sync, "./chart", json!({"helm": {"releaseName": sync}})).await?;
        }
    }
    let controller = controller.process().pid();
    eventually("both to hang", || async {
        let all = renderers(controller);
        ensure!(all.len() == 2, "{all:?}");
        Ok(())
    })
    .await?;
    third.sync("app", "./app", json!({})).await?;
    third.is_ready("app").await?;
    is_value(&third, "app", "1").await
}

#[tokio::test]
async fn a_folder_that_needs_all_memory_is_told_and_its_process_is_confined() -> Result<()> {
    const MEMORY: u64 = 128 << 20;
    // Go's runtime reads from /sys/fs/cgroup how many processors it may use.
    const OPEN: [&str; 4] = ["pipe:", "anon_inode:[eventpoll]", "anon_inode:[eventfd]", "/sys/fs/cgroup/"];
    let plane = Plane::without_controller(ClusterOptions { controller_manager: false, ..Default::default() }).await?;
    let mut options = plane.options();
    options.arguments.push("--renderer-memory=128Mi".to_owned());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "large", ServerOptions::default()).await?;
    let mut large = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: app}\ndata:\n".to_owned();
    for key in 0..400_000 {
        writeln!(large, "  k{key}: v")?;
    }
    write(&scene, "{{ repeat 1000000000 \"0123456789\" }}")?;
    scene.tree.write("app/map.yaml", &large)?;
    scene.tree.write("small/kustomization.yaml", "resources: [map.yaml]\n")?;
    scene.tree.write("small/map.yaml", config_map("small", "1"))?;
    scene.repository(json!({})).await?;
    let first = scene.publish("folders that need much memory").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.sync("chart", "./chart", json!({"helm": {}})).await?;
    for (sync, tool) in [("app", "app: Kustomize"), ("chart", "chart: Helm")] {
        let message = scene.is_not_ready(sync, "TooLarge").await?;
        assert_eq!(message, format!("render: {tool}: rendering needs more than 128 MiB of memory"));
    }
    scene.sync("small", "./small", json!({})).await?;
    scene.is_applied("small", &first).await?;
    is_value(&scene, "small", "1").await?;

    // The process that rendered this waits for the next render.
    let all = renderers(controller.process().pid());
    let [process] = all[..] else { anyhow::bail!("{all:?}") };
    let text = |file: &str| fs::read_to_string(format!("/proc/{process}/{file}")).context(file.to_owned());
    let status = text("status")?;
    for line in ["NoNewPrivs:\t1", "Seccomp:\t2"] {
        ensure!(status.lines().any(|is| is == line), "no {line} in {status}");
    }
    let limits = text("limits")?;
    for (name, most) in [
        ("Max cpu time", 3600),
        ("Max file size", 0),
        ("Max data size", MEMORY),
        ("Max core file size", 0),
        ("Max open files", 16),
    ] {
        let line = limits.lines().find_map(|line| line.strip_prefix(name)).context(name)?;
        let values: Vec<_> = line.split_whitespace().take(2).map(str::parse::<u64>).collect();
        assert_eq!(values, [Ok(most), Ok(most)], "{name}: {limits}");
    }
    assert_eq!(text("environ")?, "", "the environment");
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let entry = entry?;
        let open = fs::read_link(entry.path())?;
        // Whoever started the tests may have left files open for all programs.
        if fs::read_link(Path::new("/proc/self/fd").join(entry.file_name())).is_ok_and(|ours| ours == open) {
            continue;
        }
        let open = open.to_string_lossy();
        ensure!(OPEN.iter().any(|kind| open.starts_with(kind)), "it has {open} open");
    }

    write(&scene, &config_map("chart", "1"))?;
    let second = scene.publish("small ones").await?;
    for sync in ["app", "chart"] {
        scene.is_applied(sync, &second).await?;
        is_value(&scene, sync, "1").await?;
    }
    Ok(())
}
