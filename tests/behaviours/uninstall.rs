//! `gitseal uninstall`, and `kubectl delete -f` with the output of `gitseal install`. Objects that people created are
//! kept.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use harness::{
    Plane, Scene,
    faults::{Fault, FaultProxy, Which},
    git::ServerOptions,
    programs,
    scene::contains,
};
use http::Method;
use kube::api::{Patch, PatchParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{cli::Said, objects::config_map, rollout, upgrade};

const SYNC: &str = "gitseal.dev/v1alpha1";

fn uninstall(plane: &Plane, arguments: &[&str]) -> Result<Said> {
    let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
    Ok(command.arg("uninstall").args(arguments).output()?.into())
}

/// Runs `gitseal uninstall` at a terminal. The question that ends with `question` gets `answer`.
fn at_terminal(plane: &Plane, arguments: &[&str], question: &str, answer: &str) -> Result<(Option<i32>, String)> {
    let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
    command.arg("uninstall").args(arguments);
    programs::at_terminal(&command, question, answer)
}

/// A scene with a ConfigMap and a SealedSecret in its work tree.
async fn scene_with_a_secret(plane: &Plane, name: &str) -> Result<Scene> {
    let scene = Scene::on(plane, name, ServerOptions::default()).await?;
    let certificate = sealing::Certificate::from_pem(plane.certificate.as_bytes())?;
    let binding = sealing::Scope::Strict.binding(&scene.namespace, "db", "password");
    let sealed = sealing::seal(&certificate, binding, harness::hunt::known(b"kept"))?;
    scene.tree.write("app/db.yaml", crate::objects::sealed_secret("db", &sealed))?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    Ok(scene)
}

/// Creates the Sync `app`, waits until it is applied, and then installs gitseal.
async fn install_and_apply(plane: &Plane, scene: &Scene) -> Result<()> {
    scene.repository(json!({})).await?;
    let revision = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    upgrade::install(plane, &["--apply", "--no-wait", "--image", "a:1", "--yes"])?.is(0, &[])?;
    Ok(())
}

async fn uid(scene: &Scene, kind: &str, name: &str) -> Result<Value> {
    let found = scene.get("v1", kind, name).await?.with_context(|| format!("{kind} {name} is gone"))?;
    Ok(found["metadata"]["uid"].clone())
}

#[tokio::test]
async fn what_people_made_stays_and_comes_back() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = scene_with_a_secret(&plane, "uninstall").await?;
    install_and_apply(&plane, &scene).await?;
    let (secret, settings) = (uid(&scene, "Secret", "db").await?, uid(&scene, "ConfigMap", "settings").await?);

    let before = upgrade::installed(&scene.client).await?;
    uninstall(&plane, &[])?.is(
        1,
        &[
            "suspend 1 Sync",
            "make 1 Secret independent of its SealedSecret",
            "cannot ask: there is no terminal",
            "--yes",
        ],
    )?;
    uninstall(&plane, &["--crds", "--yes"])?.is(1, &["cannot ask: there is no terminal"])?;
    ensure!(upgrade::installed(&scene.client).await?.len() == before.len());

    plane.controller.lock().await.take().context("a controller")?.stop()?;
    let back = "to install gitseal again: gitseal install --apply --image a:1, then gitseal resume";
    let said =
        uninstall(&plane, &["--yes"])?.is(0, &["keep the sealing keys in kube-system", "is uninstalled", back])?;
    for left in [
        "left: 3 objects that Syncs applied",
        "left: 1 Sync (suspended), 1 Repository, 1 SealedSecret, and the CustomResourceDefinitions",
        "left: 1 sealing key in kube-system",
    ] {
        ensure!(said.err.contains(left), "{left}:\n{}", said.err);
    }
    ensure!(!said.err.contains("left: the namespace") && !said.err.contains("service accounts"), "{}", said.err);
    let sync = scene.get(SYNC, "Sync", "app").await?.context("the Sync is gone")?;
    ensure!(sync["spec"]["suspend"] == true && sync["metadata"].get("finalizers").is_none(), "{sync:#}");
    let released = scene.get("v1", "Secret", "db").await?.context("the Secret is gone")?;
    ensure!(released["metadata"].get("ownerReferences").is_none(), "{released:#}");
    // A moment later, the control plane deletes the PersistentVolumeClaim, because no Pod uses it.
    let mut left = upgrade::installed(&scene.client).await?;
    left.remove("PersistentVolumeClaim kube-system/gitseal-controller");
    ensure!(left.is_empty(), "{:?}", left.keys());
    let said = uninstall(&plane, &["--yes"])?.is(0, &["there is nothing to remove"])?;
    ensure!(!said.err.contains("suspend") && !said.err.contains("done"), "{}", said.err);

    // After another installation, the SealedSecret owns its Secret again, and the Secret is deleted with it as before.
    upgrade::install(&plane, &["--apply", "--no-wait", "--image", "a:1", "--yes"])?.is(0, &[])?;
    let folder = plane.folder();
    let mut controller =
        programs::Controller::start(&programs::ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    let resume = json!({"spec": {"suspend": false}});
    scene.api::<crds::Sync>().patch("app", &PatchParams::default(), &Patch::Merge(&resume)).await?;
    let owner = json!([{"kind": "SealedSecret"}]);
    harness::eventually("the Secret to be taken over", || async {
        let found = scene.get("v1", "Secret", "db").await?.context("it is gone")?;
        let owners = &found["metadata"]["ownerReferences"];
        ensure!(owners.is_array() && contains(&owners[0], &owner[0]), "{found:#}");
        Ok(())
    })
    .await?;
    ensure!(uid(&scene, "Secret", "db").await? == secret);
    controller.stop()?;

    // The CustomResourceDefinitions are deleted only if the user types the word `crds`. No Secret is deleted with them.
    let (code, said) = at_terminal(&plane, &["--crds"], "to go on: ", "yes\n")?;
    ensure!(code == Some(1) && said.contains("nothing was changed"), "{code:?} {said}");
    let (code, said) = at_terminal(&plane, &["--crds"], "to go on: ", "crds\n")?;
    ensure!(code == Some(0), "{code:?} {said}");
    ensure!(said.contains("1 SealedSecret and 1 Sync will be deleted"), "{said}");
    ensure!(said.contains("left: 1 sealing key") && !said.contains("CustomResourceDefinitions of these"), "{said}");
    let said = uninstall(&plane, &["--yes"])?.is(0, &["there is nothing to remove"])?;
    ensure!(!said.err.contains("CustomResourceDefinitions"), "{}", said.err);
    // The kind does not exist any more.
    ensure!(scene.get(SYNC, "Sync", "app").await.is_err());
    ensure!(uid(&scene, "Secret", "db").await? == secret && uid(&scene, "ConfigMap", "settings").await? == settings);
    Ok(())
}

#[tokio::test]
async fn deleting_what_was_printed_takes_nothing_with_it() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = scene_with_a_secret(&plane, "delete").await?;
    scene.tree.publish("first")?;
    let url = scene.server.url("repo");
    let first = ["--git-url", &url, "--path", "app", "--branch", "main", "--namespace", &scene.namespace];
    upgrade::install(&plane, &[&["--apply", "--no-wait", "--image", "a:1"], &first[..]].concat())?.is(0, &[])?;
    scene.is_ready("cluster").await?;
    let secret = uid(&scene, "Secret", "db").await?;

    let printed =
        upgrade::install(&plane, &first)?.is(0, &["printed with the settings of the installed controller"])?;
    let file = plane.folder().join("printed.yaml");
    std::fs::write(&file, printed.out)?;
    let mut kubectl = Command::new(localcluster::parts::kubectl()?);
    kubectl.arg("--kubeconfig").arg(plane.cluster.kubeconfig()).args(["delete", "--timeout=60s", "-f"]).arg(&file);
    Said::from(kubectl.output()?).is(0, &["gitseal-controller"])?;
    ensure!(scene.get(SYNC, "Sync", "cluster").await?.is_none());
    for name in ["kube-system", &scene.namespace] {
        let namespaces = kube::Api::<k8s_openapi::api::core::v1::Namespace>::all(scene.client.clone());
        ensure!(namespaces.get(name).await?.metadata.deletion_timestamp.is_none());
    }
    ensure!(scene.get("bitnami.com/v1alpha1", "SealedSecret", "db").await?.is_some(), "the SealedSecret is gone");
    ensure!(uid(&scene, "Secret", "db").await? == secret);
    uid(&scene, "ConfigMap", "settings").await?;
    Ok(())
}

#[tokio::test]
async fn what_was_applied_goes_only_for_who_types_the_word() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = scene_with_a_secret(&plane, "prune").await?;
    for number in 0..12 {
        let name = format!("many-{number}");
        scene.tree.write(format!("app/{name}.yaml").as_str(), config_map(&name, "1"))?;
    }
    scene.tree.write("kept/other.yaml", config_map("other", "1"))?;
    install_and_apply(&plane, &scene).await?;
    // This Sync has the annotation that keeps its objects from being pruned.
    let kept = json!({"metadata": {"annotations": {crds::names::PRUNE: "disabled"}}});
    scene.sync("kept", "./kept", json!({})).await?;
    scene.is_ready("kept").await?;
    scene.api::<crds::Sync>().patch("kept", &PatchParams::default(), &Patch::Merge(&kept)).await?;
    let many: Vec<_> = (0..12).map(|number| format!("ConfigMap {}/many-{number}", scene.namespace)).collect();
    let said = uninstall(&plane, &["--prune", "--yes"])?.is(1, &["cannot ask: there is no terminal"])?.err;
    // The 15 objects are the SealedSecret, its Secret, and all ConfigMaps of the Sync `app`.
    ensure!(said.contains("DELETE 1 Sync, and with it 15 objects:"), "{said}");
    ensure!(said.contains("and 5 more") && many.iter().any(|name| said.contains(name.as_str())), "{said}");
    ensure!(said.contains("suspend 1 Sync and remove its finalizer"), "{said}");
    ensure!(!said.contains("ConfigMap other"), "{said}");
    // The Sync itself has a finalizer that nobody removes. The objects that it applied are deleted all the same.
    let held = json!({"metadata": {"finalizers": [crds::names::FINALIZER, "example.com/hold"]}});
    scene.api::<crds::Sync>().patch("app", &PatchParams::default(), &Patch::Merge(&held)).await?;
    let (code, said) = at_terminal(&plane, &["--prune"], "to go on: ", "prune\n")?;
    ensure!(code == Some(0), "{code:?} {said}");
    ensure!(scene.get("v1", "ConfigMap", "settings").await?.is_none());
    ensure!(scene.get("v1", "Secret", "db").await?.is_none());
    ensure!(scene.get("v1", "ConfigMap", "other").await?.is_some());
    Ok(())
}

#[tokio::test]
async fn the_command_to_install_again_has_what_was_chosen() -> Result<()> {
    let plane = upgrade::plane().await?;
    let chosen =
        ["--multi-tenant", "--controller-namespace", "gitops", "--controller-name", "sealed", "--replicas", "3"];
    let argument = ["--", "--my-cn=it's us"];
    let all = [&["--apply", "--no-wait", "--image", "a:1"], &chosen[..], &argument].concat();
    upgrade::install(&plane, &all)?.is(0, &[])?;
    let sync = json!({"apiVersion": SYNC, "kind": "Sync", "metadata": {"name": "app"},
        "spec": {"repository": {"name": "r"}, "path": "./", "serviceAccountName": "deployer"}});
    harness::kubernetes::apply(&plane.cluster.client().await?, "default", sync).await?;
    let back = format!("gitseal install --apply --image a:1 {} -- '--my-cn=it'\\''s us', then", chosen.join(" "));
    let left = [
        "left: the namespace gitops",
        "left: the service accounts that Syncs wrote as, with their rights: default/deployer",
    ];
    uninstall(&plane, &["--yes"])?.is(0, &[&back, left[0], left[1]])?;
    Ok(())
}

#[tokio::test]
async fn what_others_prevent_is_listed_and_the_rest_is_done() -> Result<()> {
    let plane = Plane::start(ClusterOptions::default()).await?;
    let scene = scene_with_a_secret(&plane, "prevented").await?;
    install_and_apply(&plane, &scene).await?;
    scene.sync("held", "./held", json!({"suspend": true})).await?;
    let held = json!({"metadata": {"finalizers": [crds::names::FINALIZER, "example.com/hold"]}});
    scene.api::<crds::Sync>().patch("held", &PatchParams::default(), &Patch::Merge(&held)).await?;
    plane.controller.lock().await.take().context("a controller")?.stop()?;

    // Every patch of these two objects gets a conflict, as if somebody else were always faster.
    let proxy = FaultProxy::start(plane.cluster.kubeconfig()).await?;
    let faults = ["/syncs/held", "/secrets/db"]
        .map(|path| proxy.inject(Which::method(Method::PATCH).path(path), Fault::Refuse(409)));
    let mut command = programs::gitseal(proxy.kubeconfig())?;
    command.args(["uninstall", "--yes"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let (sync, secret) =
        (format!("not done: Sync {}/held", scene.namespace), format!("not done: Secret {}/db", scene.namespace));
    let said = Said::from(output).is(1, &[&sync, &secret, "2 steps could not be done", "run the command again"])?;
    ensure!(!said.err.contains("is uninstalled"), "{}", said.err);
    let mut left = upgrade::installed(&scene.client).await?;
    left.remove("PersistentVolumeClaim kube-system/gitseal-controller");
    ensure!(left.is_empty(), "{:?}", left.keys());
    let sync = scene.get(SYNC, "Sync", "app").await?.context("the Sync is gone")?;
    ensure!(sync["spec"]["suspend"] == true && sync["metadata"].get("finalizers").is_none(), "{sync:#}");

    // The CRDs are not deleted while a Secret would be deleted with them.
    let with_kinds = async || {
        let mut command = programs::gitseal(proxy.kubeconfig())?;
        command.args(["uninstall", "--crds", "--timeout", "2s"]);
        tokio::task::spawn_blocking(move || programs::at_terminal(&command, "to go on: ", "crds\n")).await?
    };
    let (code, said) = with_kinds().await?;
    ensure!(
        code == Some(1) && said.contains("the CustomResourceDefinitions are not deleted before"),
        "{code:?} {said}"
    );
    uid(&scene, "Secret", "db").await?;

    // Now the CustomResourceDefinitions are deleted, except one: an object of its kind has a finalizer of somebody
    // else.
    drop(faults);
    let (code, said) = with_kinds().await?;
    ensure!(code == Some(1) && said.contains("is not deleted before its finalizers are removed"), "{code:?} {said}");
    let mend = said
        .lines()
        .find_map(|line| line.strip_prefix("not done: ")?.split_once("(example.com/hold): "))
        .map(|(_, mend)| mend);
    let mend = mend.with_context(|| said.clone())?.trim_end();
    ensure!(mend.starts_with("kubectl patch syncs.gitseal.dev "), "{mend}");
    let kubectl = localcluster::parts::kubectl()?;
    let script = mend.replacen(
        "kubectl",
        &format!("{} --kubeconfig {}", kubectl.display(), plane.cluster.kubeconfig().display()),
        1,
    );
    Said::from(Command::new("sh").args(["-c", &script]).output()?).is(0, &[])?;
    harness::eventually("the kinds to be gone", || async {
        ensure!(scene.get(SYNC, "Sync", "held").await.is_err());
        Ok(())
    })
    .await?;
    uid(&scene, "Secret", "db").await?;
    Ok(())
}

#[tokio::test]
async fn it_ends_although_others_write_meanwhile() -> Result<()> {
    let plane = upgrade::plane().await?;
    let client = plane.cluster.client().await?;
    upgrade::install(&plane, &["--apply", "--no-wait", "--image", "a:1"])?.is(0, &[])?;
    let syncs = kube::Api::<crds::Sync>::namespaced(client.clone(), "default");
    let names: Vec<_> = (0..5).map(|number| format!("busy-{number}")).collect();
    for name in &names {
        let sync = json!({"apiVersion": SYNC, "kind": "Sync", "metadata": {"name": name, "finalizers": [crds::names::FINALIZER]},
            "spec": {"repository": {"name": "r"}, "path": "./"}});
        harness::kubernetes::apply(&client, "default", sync).await?;
    }
    // One Pod of the controller is still running. Meanwhile, one of the Syncs is no longer suspended, as if it were in
    // Git and another Sync applied it again.
    let pods = rollout::pod(&client, "controller").await?;
    rollout::begin_to_delete(&pods, "controller").await?;

    let busy = tokio::spawn({
        let (syncs, names) = (syncs.clone(), names.clone());
        async move {
            for number in 0_u64.. {
                for name in &names {
                    let note = json!({"metadata": {"annotations": {"example.com/number": number.to_string()}}});
                    let _ = syncs.patch(name, &PatchParams::default(), &Patch::Merge(&note)).await;
                }
            }
        }
    });
    let uninstalled = {
        let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
        command.args(["uninstall", "--yes"]);
        tokio::task::spawn_blocking(move || command.output())
    };
    harness::eventually("the Syncs to be suspended", || async {
        for name in &names {
            ensure!(syncs.get(name).await?.spec.suspend, "{name} is not");
        }
        Ok(())
    })
    .await?;
    let resumed = json!({"spec": {"suspend": false}});
    syncs.patch("busy-0", &PatchParams::default(), &Patch::Merge(&resumed)).await?;
    rollout::let_go(&pods, "controller").await?;
    Said::from(uninstalled.await??).is(0, &["is uninstalled"])?;
    busy.abort();
    for name in &names {
        let sync = syncs.get(name).await?;
        ensure!(sync.spec.suspend && sync.metadata.finalizers.is_none(), "{sync:?}");
    }
    let left = upgrade::installed(&client).await?;
    ensure!(left.keys().all(|name| name.starts_with("PersistentVolumeClaim")), "{:?}", left.keys());
    Ok(())
}
