//! Syncs whose folder is rendered by Kustomize.

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{Api, ResourceExt as _, api::DeleteParams};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::{
    cli::gitseal,
    objects::{change_by_hand, config_map, deployment, is_value, sealed_secret},
    renders::{rendered, renders},
};

/// A base with a ConfigMap, and an overlay for each of `overlays`, which adds a prefix to the ConfigMap's name.
fn write_overlays(scene: &Scene, overlays: &[&str]) -> Result<()> {
    scene.tree.write("base/kustomization.yaml", "resources: [map.yaml]\n")?;
    scene.tree.write("base/map.yaml", config_map("map", "base"))?;
    for overlay in overlays {
        let kustomization = format!("resources: [../../base]\nnamePrefix: {overlay}-\n");
        scene.tree.write(&format!("overlays/{overlay}/kustomization.yaml"), kustomization)?;
    }
    Ok(())
}

#[tokio::test]
async fn only_what_a_folder_reads_is_a_reason_to_render_it() -> Result<()> {
    let (plane, mut controller) = Plane::alone(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let scene = Scene::on(&plane, "overlays", ServerOptions::default()).await?;
    write_overlays(&scene, &["one", "two"])?;
    // This one uses another base.
    scene.tree.write("other/kustomization.yaml", "resources: [map.yaml]\n")?;
    scene.tree.write("other/map.yaml", config_map("map", "newer"))?;
    scene.tree.write("overlays/apart/kustomization.yaml", "resources: [../../other]\nnamePrefix: apart-\n")?;
    scene.repository(json!({})).await?;
    let first = scene.publish("three overlays").await?;
    for (overlay, value) in [("one", "base"), ("two", "base"), ("apart", "newer")] {
        scene.sync(overlay, &format!("./overlays/{overlay}"), json!({})).await?;
        scene.is_applied(overlay, &first).await?;
        is_value(&scene, &format!("{overlay}-map"), value).await?;
    }
    assert_eq!(rendered(&controller, "kustomize").await?, 3);

    // Changes elsewhere in the repository, and in a file that the overlay does not read, cause no render. Only the new
    // name `deeper` in the folder of the overlay causes a render.
    scene.tree.write("docs/other.yaml", "x: 1\n")?;
    scene.tree.write("overlays/one/deeper/README.md", "read me\n")?;
    scene.publish("elsewhere, and a name more").await?;
    scene.tree.write("docs/other.yaml", "x: 2\n")?;
    scene.tree.write("overlays/one/deeper/README.md", "read this\n")?;
    scene.publish("nothing that is read").await?;
    eventually("the render", || async {
        ensure!(rendered(&controller, "kustomize").await? == 4);
        Ok(())
    })
    .await?;
    // The next commit changes one of the overlays.
    scene
        .tree
        .write("overlays/one/kustomization.yaml", "resources: [../../base]\nnamePrefix: one-\nnameSuffix: -x\n")?;
    let second = scene.publish("one overlay").await?;
    scene.is_applied("one", &second).await?;
    is_value(&scene, "one-map-x", "base").await?;
    scene.is_gone("v1", "ConfigMap", "one-map").await?;
    let renders = rendered(&controller, "kustomize").await?;
    ensure!(renders == 5, "{renders} renders");
    let applied = async |sync: &str| -> Result<Option<String>> {
        Ok(scene.api::<Sync>().get(sync).await?.status.and_then(|status| status.last_applied_revision))
    };
    assert_eq!(applied("two").await?, Some(first.clone()));

    // A change of the base renders each overlay that uses it once, and no other.

    scene.tree.write("base/map.yaml", config_map("map", "newer"))?;
    let third = scene.publish("the base").await?;
    for overlay in ["one", "two"] {
        scene.is_applied(overlay, &third).await?;
    }
    is_value(&scene, "one-map-x", "newer").await?;
    is_value(&scene, "two-map", "newer").await?;
    let renders = rendered(&controller, "kustomize").await?;
    ensure!(renders == 7, "{renders} renders");
    assert_eq!(applied("apart").await?, Some(first));

    // Drift is put back without a render, also after a restart.
    change_by_hand(&scene, "two-map").await?;
    is_value(&scene, "two-map", "newer").await?;
    assert_eq!(rendered(&controller, "kustomize").await?, renders);
    controller.stop()?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    change_by_hand(&scene, "one-map-x").await?;
    is_value(&scene, "one-map-x", "newer").await?;
    assert_eq!(rendered(&controller, "kustomize").await?, 0);
    assert_eq!(rendered(&controller, "disk").await?, 1);

    // If the stored result is damaged, the folder is rendered again.
    let damaged = change_renders(&folder, "\"newer\"", "\"older\"")?;
    ensure!(damaged == 3, "{damaged} files");
    controller.stop()?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    change_by_hand(&scene, "one-map-x").await?;
    is_value(&scene, "one-map-x", "newer").await?;
    assert_eq!(rendered(&controller, "kustomize").await?, 1);
    Ok(())
}

/// Replaces a text in every stored render, which must have it. Returns how many there are.
fn change_renders(folder: &std::path::Path, from: &str, to: &str) -> Result<usize> {
    let stored = renders(folder);
    for path in &stored {
        let text = std::fs::read_to_string(path)?;
        ensure!(text.contains(from), "no {from} in {text}");
        std::fs::write(path, text.replace(from, to))?;
    }
    Ok(stored.len())
}

/// Starts the controller again, and waits until a pass got the objects of two folders from `kustomize` or from `disk`.
async fn starts_again(options: &ControllerOptions<'_>, scene: &Scene, from: &str) -> Result<Controller> {
    let mut controller = Controller::start(options)?;
    controller.ready().await?;
    for overlay in ["one", "two"] {
        change_by_hand(scene, &format!("{overlay}-map")).await?;
        is_value(scene, &format!("{overlay}-map"), "base").await?;
    }
    let all = (rendered(&controller, "kustomize").await?, rendered(&controller, "disk").await?);
    let is_right = match from {
        "disk" => all == (0, 2),
        // After the pass that renders, the heal may find the result on the disk or in memory.
        _ => all.0 == 2,
    };
    ensure!(is_right, "{all:?} instead of two from {from}");
    Ok(controller)
}

#[tokio::test]
async fn what_another_format_renderer_or_program_stored_is_rendered_anew() -> Result<()> {
    let (plane, controller) = Plane::alone(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let scene = Scene::on(&plane, "programs", ServerOptions::default()).await?;
    write_overlays(&scene, &["one", "two"])?;
    scene.repository(json!({})).await?;
    let first = scene.publish("two overlays").await?;
    for overlay in ["one", "two"] {
        scene.sync(overlay, &format!("./overlays/{overlay}"), json!({})).await?;
        scene.is_applied(overlay, &first).await?;
    }
    assert_eq!(rendered(&controller, "kustomize").await?, 2);
    controller.stop()?;
    let mut options = plane.options();
    starts_again(&options, &scene, "disk").await?.stop()?;
    for (from, to) in [
        ("{\"format\":", "{\"format\":1"),
        ("\"renderer\":\"kustomize v", "\"renderer\":\"kustomize v1"),
        ("\"program\":\"", "\"program\":\"0"),
    ] {
        let changed = change_renders(&folder, from, to)?;
        ensure!(changed == 2, "{changed} files");
        starts_again(&options, &scene, "kustomize").await?.stop()?;
        starts_again(&options, &scene, "disk").await?.stop()?;
    }

    // The same program with one more byte, which has no meaning, stands for one whose own code was changed.
    let programs = harness::programs::folder()?;
    let other = folder.join("other-controller");
    std::fs::copy(programs.join(options.program), &other)?;
    std::io::Write::write_all(&mut std::fs::File::options().append(true).open(&other)?, b"x")?;
    let other = other.to_str().context("a path in UTF-8")?;
    options.program = other;
    options.arguments.push(format!("--renderer={}", programs.join("gitseal-renderer").display()));
    starts_again(&options, &scene, "kustomize").await?.stop()?;
    starts_again(&options, &scene, "disk").await?.stop()
}

#[tokio::test]
async fn what_has_a_plaintext_secret_is_not_stored() -> Result<()> {
    let (plane, controller) = Plane::alone(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let scene = Scene::on(&plane, "not-stored", ServerOptions::default()).await?;
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: token}\nstringData: {value: \"{{ .Values.token }}\"}\n";
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/secret.yaml", secret)?;
    scene.tree.write("chart/templates/map.yaml", config_map("chart", "1"))?;
    let generator = "secretGenerator:\n- name: token\n  literals: [value=published-by-mistake]\n";
    scene.tree.write("app/kustomization.yaml", format!("resources: [map.yaml]\n{generator}"))?;
    scene.tree.write("app/map.yaml", config_map("app", "1"))?;
    scene.repository(json!({})).await?;
    scene.publish("plaintext").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.sync("chart", "./chart", json!({"helm": {"values": {"token": "published-by-mistake"}}})).await?;
    for sync in ["app", "chart"] {
        scene.is_not_ready(sync, "PlaintextSecret").await?;
    }
    assert_eq!((rendered(&controller, "kustomize").await?, rendered(&controller, "helm").await?), (1, 1));
    let stored = renders(&folder);
    ensure!(stored.is_empty(), "{stored:?}");

    scene.tree.write("app/kustomization.yaml", "resources: [map.yaml]\n")?;
    scene.tree.remove("chart/templates/secret.yaml")?;
    let good = scene.publish("without it").await?;
    for sync in ["app", "chart"] {
        scene.is_applied(sync, &good).await?;
    }
    let stored = renders(&folder);
    ensure!(stored.len() == 2, "{stored:?}");
    for path in stored {
        let text = std::fs::read_to_string(&path)?;
        ensure!(text.contains("ConfigMap") && !text.contains("published-by-mistake"), "{text}");
    }
    Ok(())
}

#[tokio::test]
async fn a_mistake_outside_the_folder_is_named_and_its_correction_is_applied_at_once() -> Result<()> {
    let scene = Scene::new("mistake").await?;
    write_overlays(&scene, &["prod"])?;
    let first = scene.publish("good").await?;
    scene.sync("app", "./overlays/prod", json!({"interval": "1h"})).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.write("base/kustomization.yaml", "resources: [map.yaml, gone.yaml]\n")?;
    scene.publish("a file is missing").await?;
    let message = scene.is_not_ready("app", "BuildFailed").await?;
    assert_eq!(
        message,
        "render: overlays/prod: Kustomize: 'gone.yaml' does not exist: the repository has no 'base/gone.yaml'"
    );
    // The applied objects stay as they were.
    change_by_hand(&scene, "prod-map").await?;
    is_value(&scene, "prod-map", "base").await?;

    scene.tree.write("base/gone.yaml", config_map("second", "there"))?;
    let third = scene.publish("the file is there, far from the folder of the Sync").await?;
    scene.is_applied("app", &third).await?;
    is_value(&scene, "prod-second", "there").await?;

    scene.tree.write("base/gone.yaml", "kind: ConfigMap\nmetadata: {name: 'unclosed}\n")?;
    scene.publish("not YAML").await?;
    let message = scene.is_not_ready("app", "BuildFailed").await?;
    ensure!(message.contains("base/gone.yaml") && message.contains("is not YAML"), "{message}");
    scene.tree.write("base/gone.yaml", config_map("second", "again"))?;
    let last = scene.publish("good again").await?;
    scene.is_applied("app", &last).await?;
    is_value(&scene, "prod-second", "again").await
}

#[tokio::test]
async fn a_folder_may_have_manifests_and_kustomizations() -> Result<()> {
    let scene = Scene::new("mixed").await?;
    write_overlays(&scene, &[])?;
    scene.tree.write("app/plain.yaml", config_map("plain", "a"))?;
    scene.tree.write("app/sub/kustomization.yaml", "resources: [../../base, own.yaml]\nnamePrefix: sub-\n")?;
    scene.tree.write("app/sub/own.yaml", config_map("own", "b"))?;
    scene.tree.write("app/sub/not-a-resource.yaml", config_map("never", "c"))?;
    let first = scene.publish("both").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    for (map, value) in [("plain", "a"), ("sub-own", "b"), ("sub-map", "base")] {
        is_value(&scene, map, value).await?;
    }
    ensure!(scene.get("v1", "ConfigMap", "never").await?.is_none());

    scene.tree.write("base/map.yaml", config_map("map", "newer"))?;
    let second = scene.publish("what the kustomization reads").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "sub-map", "newer").await?;
    scene.tree.write("app/plain.yaml", config_map("plain", "newer"))?;
    let third = scene.publish("a plain file").await?;
    scene.is_applied("app", &third).await?;
    is_value(&scene, "plain", "newer").await?;

    // Next, the same folder is read as plain YAML.
    scene.tree.write("app/.gitsealignore", "kustomization.yaml\n")?;
    let fourth = scene.publish("without Kustomize").await?;
    scene.is_applied("app", &fourth).await?;
    for map in ["plain", "own", "never"] {
        ensure!(scene.get("v1", "ConfigMap", map).await?.is_some(), "{map}");
    }
    scene.is_gone("v1", "ConfigMap", "sub-map").await
}

#[tokio::test]
async fn an_object_that_moves_between_overlays_is_kept() -> Result<()> {
    let scene = Scene::new("moving").await?;
    for map in ["moves", "kept", "stays"] {
        scene.tree.write(&format!("{map}.yaml"), config_map(map, "1"))?;
    }
    let write = |overlay: &str, resources: &str| {
        scene.tree.write(&format!("{overlay}/kustomization.yaml"), format!("resources: [{resources}]\n"))
    };
    write("one", "../stays.yaml, ../moves.yaml")?;
    write("two", "../kept.yaml")?;
    let first = scene.publish("in one").await?;
    for overlay in ["one", "two"] {
        scene.sync(overlay, &format!("./{overlay}"), json!({"pruneLimit": "100%"})).await?;
        scene.is_applied(overlay, &first).await?;
    }
    let maps: Api<ConfigMap> = scene.api();
    let uid = maps.get("moves").await?.uid();
    write("one", "../stays.yaml")?;
    write("two", "../kept.yaml, ../moves.yaml")?;
    let second = scene.publish("in two").await?;
    scene.is_applied("two", &second).await?;
    scene.is_applied("one", &second).await?;
    eventually("the new owner", || async {
        let map = maps.get("moves").await?;
        ensure!(map.uid() == uid, "another object");
        ensure!(map.labels().get(crds::names::SYNC_NAME).is_some_and(|name| name == "two"), "{:?}", map.labels());
        Ok(())
    })
    .await?;

    write("one", "")?;
    let third = scene.publish("nothing is left").await?;
    let message = scene.is_not_ready("one", "NothingRendered").await?;
    ensure!(message.contains("an empty folder never prunes"), "{message}");
    ensure!(maps.get_opt("stays").await?.is_some());
    scene.tree.remove("one")?;
    scene.publish("no folder").await?;
    scene.is_not_ready("one", "PathNotFound").await?;
    ensure!(maps.get_opt("stays").await?.is_some(), "{third}");
    Ok(())
}

#[tokio::test]
async fn secrets_come_first_and_plaintext_is_refused() -> Result<()> {
    let scene = Scene::new("secrets").await?;
    let sealed = scene.seal("prod-db", b"hunter2").await?;
    let web = deployment("web", 0)
        .replace("image: example.invalid/c", "image: example.invalid/c, envFrom: [{secretRef: {name: db}}]");
    scene.tree.write("base/web.yaml", web)?;
    scene.tree.write("base/kustomization.yaml", "resources: [web.yaml]\n")?;
    // The value is sealed for the name `prod-db`, so the SealedSecret has this name in the overlay, and Kustomize does
    // not change it.
    scene.tree.write("prod/db.yaml", sealed_secret("prod-db", &sealed))?;
    scene.tree.write("prod/kustomization.yaml", "resources: [../base, db.yaml]\npatches:\n- target: {kind: Deployment}\n  patch: |\n    - {op: replace, path: /spec/template/spec/containers/0/envFrom/0/secretRef/name, value: prod-db}\n")?;
    let first = scene.publish("sealed").await?;
    scene.sync("app", "./prod", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let secret = scene.get("v1", "Secret", "prod-db").await?.context("the Secret")?;
    assert_eq!(secret["data"]["password"], "aHVudGVyMg==");

    let literal = "secretGenerator:\n- name: token\n  literals: [value=published-by-mistake]\n";
    let before = "resources: [../base, db.yaml]\n";
    scene.tree.write("prod/kustomization.yaml", format!("{before}{literal}"))?;
    scene.publish("a literal").await?;
    let message = scene.is_not_ready("app", "PlaintextSecret").await?;
    ensure!(message.starts_with("guard: prod/kustomization.yaml:2: Secret token-"), "{message}");
    ensure!(message.contains("secretGenerator") && !message.contains("seal -i"), "{message}");
    ensure!(!message.contains("published-by-mistake"), "{message}");

    for (what, resource, text) in [
        ("Git", "https://example.invalid/repo//base?ref=v1", "the Repository does not allow this"),
        ("a file", "https://example.invalid/a.yaml", "is a remote file"),
    ] {
        scene.tree.write("prod/kustomization.yaml", format!("resources: ['{resource}']\n"))?;
        scene.publish(what).await?;
        let message = scene.is_not_ready("app", "BuildFailed").await?;
        ensure!(message.contains(text), "{what}: {message}");
        scene.tree.write("prod/kustomization.yaml", before)?;
        let good = scene.publish("good again").await?;
        scene.is_applied("app", &good).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_generator_of_sealed_values_makes_a_sealed_secret_and_another_value_another_name() -> Result<()> {
    let scene = Scene::new("generator").await?;
    let certificate = sealing::Certificate::from_pem(Plane::shared().await?.certificate.as_bytes())?;
    // The name is known only after the render, so the value is bound to the namespace.
    let seal = |value: &[u8]| -> Result<String> {
        let binding = sealing::Scope::NamespaceWide.binding(&scene.namespace, "", "password");
        Ok(sealing::seal(&certificate, binding, value)? + "\n")
    };
    let web = deployment("web", 0)
        .replace("image: example.invalid/c", "image: example.invalid/c, envFrom: [{secretRef: {name: db}}]");
    scene.tree.write("app/web.yaml", web)?;
    scene.tree.write("app/password.sealed", seal(b"hunter2")?)?;
    scene.tree.write(
        "app/kustomization.yaml",
        "resources: [web.yaml]\nnamePrefix: prod-\nsecretGenerator:\n- name: db\n  files: [password=password.sealed]\n  options:\n    \
         labels: {app: web}\n    annotations: {sealedsecrets.bitnami.com/namespace-wide: 'true'}\n",
    )?;
    let used = async |value: &str| -> Result<String> {
        let revision = scene.publish("another value").await?;
        scene.is_applied("app", &revision).await?;
        let web = scene.get("apps/v1", "Deployment", "prod-web").await?.context("the Deployment")?;
        let name = &web["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"];
        let name = name.as_str().context("a name")?.to_owned();
        ensure!(name.starts_with("prod-db-"), "{name}");
        let secret = scene.get("v1", "Secret", &name).await?.context("the Secret")?;
        assert_eq!(secret["data"]["password"], value);
        assert_eq!(secret["metadata"]["labels"], json!({"app": "web"}));
        assert_eq!(secret["type"], "Opaque");
        Ok(name)
    };
    scene.sync("app", "./app", json!({"pruneLimit": "100%"})).await?;
    let first = used("aHVudGVyMg==").await?;
    scene.tree.write("app/password.sealed", seal(b"hunter3")?)?;
    let second = used("aHVudGVyMw==").await?;
    ensure!(first != second, "a new name restarts what uses it");
    scene.is_gone("v1", "Secret", &first).await
}

#[tokio::test]
async fn without_a_renderer_nothing_is_pruned_that_an_overlay_may_have_taken() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions { controller_manager: false, ..Default::default() }).await?;
    let folder = plane.folder();
    let program = folder.join("renderer");
    std::os::unix::fs::symlink(harness::programs::folder()?.join("gitseal-renderer"), &program)?;
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.push(format!("--renderer={}", program.display()));
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "missing", ServerOptions::default()).await?;
    for map in ["moves", "stays"] {
        scene.tree.write(&format!("plain/{map}.yaml"), config_map(map, "1"))?;
    }
    scene.tree.write("overlay/kept.yaml", config_map("kept", "1"))?;
    scene.tree.write("overlay/kustomization.yaml", "resources: [kept.yaml]\n")?;
    scene.repository(json!({})).await?;
    let first = scene.publish("first").await?;
    for sync in ["plain", "overlay"] {
        scene.sync(sync, &format!("./{sync}"), json!({"pruneLimit": "100%"})).await?;
        scene.is_applied(sync, &first).await?;
    }
    let maps: Api<ConfigMap> = scene.api();
    let uid = maps.get("moves").await?.uid();

    controller.stop()?;
    std::fs::remove_file(&program)?;
    controller = Controller::start(&options)?;
    controller.ready().await?;
    scene.tree.git(["mv", "plain/moves.yaml", "overlay/moves.yaml"])?;
    scene.tree.write("overlay/kustomization.yaml", "resources: [kept.yaml, moves.yaml]\n")?;
    let second = scene.publish("it moves").await?;
    let message = scene.is_not_ready("overlay", "RendererMissing").await?;
    ensure!(message.contains("could not be started"), "{message}");
    let waits =
        |ready: &crds::Condition| ready.reason == "PruneWaitsForSync" && ready.message.contains("tries again until");
    scene.sync_when("plain", "its prune to wait", |_, ready| waits(ready)).await?;
    assert_eq!(maps.get("moves").await?.uid(), uid);

    std::os::unix::fs::symlink(harness::programs::folder()?.join("gitseal-renderer"), &program)?;
    for sync in ["overlay", "plain"] {
        scene.request::<Sync>(sync).await?;
        scene.is_applied(sync, &second).await?;
    }
    assert_eq!(maps.get("moves").await?.uid(), uid, "it was handed over");
    Ok(())
}

#[tokio::test]
async fn a_process_that_fails_is_told_and_disturbs_nobody() -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;

    let plane = Plane::without_controller(ClusterOptions { controller_manager: false, ..Default::default() }).await?;
    let folder = plane.folder();
    let program = folder.join("renderer");
    let behave = |script: &str| -> Result<()> {
        // The program is replaced in one step, because it may be running.
        let new = folder.join("renderer.new");
        std::fs::write(&new, format!("#!/bin/sh\n{script}\n"))?;
        std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755))?;
        Ok(std::fs::rename(new, &program)?)
    };
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.push(format!("--renderer={}", program.display()));
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "failing", ServerOptions::default()).await?;
    write_overlays(&scene, &["app"])?;
    scene.tree.write("plain/a.yaml", config_map("plain", "1"))?;
    scene.repository(json!({})).await?;
    scene.publish("first").await?;
    for (count, (script, reason, text)) in [
        ("exit 3", "RendererFailed", "exit status: 3"),
        ("echo 'fatal error: out of memory' >&2; exit 2", "TooLarge", "more than"),
        // An incomplete frame.
        ("printf '\\000\\000\\001\\000M{'", "RendererFailed", "without an answer"),
        // A path that leads out of the repository.
        ("printf '\\000\\000\\000\\005Q../x'; exec sleep 100", "RendererFailed", "an invalid path"),
        // A frame that is not an object.
        ("printf '\\000\\000\\000\\003Mxx'; exec sleep 100", "RendererFailed", "was not understood"),
    ]
    .into_iter()
    .enumerate()
    {
        behave(script)?;
        let sync = format!("app-{count}");
        scene.sync(&sync, "./overlays/app", json!({})).await?;
        let message = scene.is_not_ready(&sync, reason).await?;
        ensure!(
            message.starts_with("render: overlays/app: Kustomize: ") && message.contains(text),
            "{script}: {message}"
        );
        scene.api::<Sync>().delete(&sync, &DeleteParams::default()).await?;
    }
    behave("exec sleep 1000")?;
    scene.sync("hangs", "./overlays/app", json!({})).await?;
    scene.sync("plain", "./plain", json!({})).await?;
    is_value(&scene, "plain", "1").await?;
    let message = scene.is_not_ready("hangs", "RenderTimedOut").await?;
    ensure!(message.contains("longer than 30 s"), "{message}");
    let real = harness::programs::folder()?.join("gitseal-renderer");
    behave(&format!("exec {} \"$@\"", real.display()))?;
    is_value(&scene, "app-map", "base").await?;
    scene.is_ready("hangs").await?;
    Ok(())
}

#[tokio::test]
async fn an_object_of_an_overlay_is_traced_to_its_line_in_the_base() -> Result<()> {
    let scene = Scene::new("overlay-trace").await?;
    write_overlays(&scene, &["one"])?;
    scene.tree.write("base/kustomization.yaml", "resources: [both.yaml]\n")?;
    scene.tree.remove("base/map.yaml")?;
    scene.tree.write("shared/both.yaml", format!("{}---\n{}", config_map("first", "1"), config_map("second", "1")))?;
    std::os::unix::fs::symlink("../shared/both.yaml", scene.tree.path().join("base/both.yaml"))?;
    // The folder has a kustomization with another one below it, plain files beside it, and a kustomization that is not used.
    scene.tree.write("overlays/plain.yaml", format!("# a comment\n{}", config_map("plain", "1")))?;
    scene.tree.write("overlays/one/nested/kustomization.yaml", "resources: [nothing.yaml]\n")?;
    scene.tree.write("overlays/off/kustomization.yaml", "resources: [nothing.yaml]\n")?;
    scene.tree.write("overlays/off/.gitsealignore", "kustomization.yaml\n")?;
    scene.tree.write("overlays/off/used.yaml", config_map("used", "1"))?;
    let first = scene.publish("an overlay").await?;
    scene.sync("app", "./overlays", json!({})).await?;
    scene.is_applied("app", &first).await?;
    // The path is that of the link. The line is that of the first commit: a later commit moves the object down in its
    // file, but the Sync is suspended.
    gitseal(&scene, &["suspend", "app", "--reason", "look"]).await?.is(0, &[])?;
    scene
        .tree
        .write("shared/both.yaml", format!("# more\n{}---\n{}", config_map("first", "1"), config_map("second", "2")))?;
    scene.publish("another value").await?;
    let commit = first.rsplit(':').next().context("a commit")?;
    let places = [
        ("one-first", "base/both.yaml:1"),
        ("one-second", "base/both.yaml:8"),
        ("plain", "overlays/plain.yaml:2"),
        ("used", "overlays/off/used.yaml:1"),
    ];
    for (name, place) in places {
        let told = gitseal(&scene, &["trace", "configmap", name]).await?.is(0, &[commit])?;
        ensure!(told.out.contains("File:") && told.out.contains(place), "{name}: {}", told.out);
    }
    Ok(())
}
