//! The CLI against a real API server and the controller.

use std::process::{Command, Output};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{Plane, Scene, eventually, git::ServerOptions, kubernetes, programs};
use k8s_openapi::api::{apps::v1::Deployment, core::v1::Secret, rbac::v1::ClusterRoleBinding};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::objects::config_map;

/// The output of the program, and its exit code.
pub(crate) struct Said {
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl From<Output> for Said {
    fn from(output: Output) -> Self {
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Self { code: output.status.code(), out: text(output.stdout), err: text(output.stderr) }
    }
}

impl Said {
    /// Checks that the exit code is `code`, and that the output contains each of `parts`.
    pub(crate) fn is(self, code: i32, parts: &[&str]) -> Result<Self> {
        let (out, err) = (&self.out, &self.err);
        ensure!(self.code == Some(code), "it ended with {:?}, not {code}\n{out}\n{err}", self.code);
        for part in parts {
            ensure!(out.contains(part) || err.contains(part), "it did not say {part:?}\n{out}\n{err}");
        }
        Ok(self)
    }
}

fn command(plane: &Plane, namespace: &str, arguments: &[&str]) -> Result<Command> {
    let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
    command.args(["--namespace", namespace]).args(arguments);
    Ok(command)
}

/// Runs gitseal against the shared control plane, in the folder of the work tree.
pub(crate) async fn gitseal(scene: &Scene, arguments: &[&str]) -> Result<Said> {
    let mut command = command(Plane::shared().await?, &scene.namespace, arguments)?;
    command.current_dir(scene.tree.path());
    Ok(tokio::task::spawn_blocking(move || command.output()).await??.into())
}

/// The URL of the certificate of the shared control plane's controller.
pub(crate) async fn certificate_url() -> Result<String> {
    let controller = Plane::shared().await?.controller.lock().await;
    let port = controller.as_ref().context("no controller")?.port;
    Ok(format!("http://127.0.0.1:{port}/v1/cert.pem"))
}

/// A plaintext Secret with one value.
fn plain_secret(name: &str, value: &str) -> String {
    let value = STANDARD.encode(value);
    format!("# mine\napiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\ndata:\n  password: {value}\n")
}

#[tokio::test]
async fn a_folder_is_sealed_committed_and_followed() -> Result<()> {
    let scene = Scene::new("cli-seal").await?;
    let url = certificate_url().await?;
    let certificate = gitseal(&scene, &["cert", "--cert", &url, "--allow-http-cert"])
        .await?
        .is(0, &["-----BEGIN CERTIFICATE-----"])?;
    assert_eq!(certificate.out.trim(), Plane::shared().await?.certificate.trim());
    gitseal(&scene, &["cert", "--cert", &url, "--allow-http-cert", "--check"]).await?.is(0, &[])?;
    // Without the Service, the controller cannot be reached through the API server. The message names other ways to get
    // the certificate, such as `--cert`.
    gitseal(&scene, &["cert"]).await?.is(1, &["kube-system/sealed-secrets-controller", "--cert"])?;

    scene.tree.write("app/db.yaml", plain_secret("db", "folder-one"))?;
    scene.tree.write("app/deep/api.yaml", plain_secret("api", "folder-two"))?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let plaintext = scene.publish("sealing was forgotten").await?;
    scene.sync("app", "./app", json!({})).await?;
    let refused = scene.is_not_ready("app", "PlaintextSecret").await?;
    for file in ["app/db.yaml", "app/deep/api.yaml"] {
        let (place, advice) = (format!("{file}:2: "), format!("gitseal seal -i {file}"));
        assert!(refused.contains(&place) && refused.contains(&advice), "{refused}");
    }

    let sealed = gitseal(&scene, &["seal", "--cert", &url, "--allow-http-cert", "app"])
        .await?
        .is(0, &["app/db.yaml", "app/deep/api.yaml"])?;
    assert!(!(sealed.out + &sealed.err).contains("folder-one"));
    let text = std::fs::read_to_string(scene.tree.path().join("app/db.yaml"))?;
    assert!(text.starts_with("# mine\n") && text.contains("kind: SealedSecret"), "{text}");
    assert!(!text.contains(&STANDARD.encode("folder-one")), "{text}");
    scene.tree.commit("sealed")?;
    scene.tree.push()?;

    // Without this command, the controller would not fetch the commit yet.
    let done = gitseal(&scene, &["sync", "app"]).await?.is(0, &["ready"])?;
    let head = scene.tree.head()?;
    assert!((done.out + &done.err).contains(&head[..8]), "no {head}, was at {plaintext}");
    for (name, value) in [("db", "folder-one"), ("api", "folder-two")] {
        let secret = scene.get("v1", "Secret", name).await?.context("it is there when the command ends")?;
        assert_eq!(secret["data"], json!({"password": STANDARD.encode(value)}));
    }
    // Sealing again changes nothing.
    gitseal(&scene, &["seal", "--cert", &url, "--allow-http-cert", "app"])
        .await?
        .is(0, &["nothing to seal (2 SealedSecrets found)"])?;
    assert_eq!(scene.tree.git(["status", "--porcelain"])?, "");
    Ok(())
}

#[tokio::test]
async fn status_and_sync_tell_what_is_wrong() -> Result<()> {
    let scene = Scene::new("cli-status").await?;
    scene.tree.write("good/settings.yaml", config_map("good", "1"))?;
    scene.tree.write("bad/settings.yaml", config_map("bad", "1"))?;
    let first = scene.publish("first").await?;
    for name in ["good", "bad"] {
        scene.sync(name, name, json!({})).await?;
        scene.is_applied(name, &first).await?;
    }
    let short = &first["main@sha1:".len()..][..8];
    let revision = format!("main@{short}");
    let all_well =
        gitseal(&scene, &["status", "--check"]).await?.is(0, &["repository/repo", "sync/good", "sync/bad"])?;
    for row in all_well.out.lines().skip(1) {
        assert!(row.contains(" True ") && row.contains(&revision), "{}", all_well.out);
    }

    scene.tree.write("bad/settings.yaml", config_map("bad", "1").replace("\ndata:\n", "\ndata: [\n"))?;
    scene.tree.commit("broken")?;
    scene.tree.push()?;
    let place = "bad/settings.yaml:";
    gitseal(&scene, &["sync", "bad"]).await?.is(1, &["failed", "sync/bad", place])?;
    // The other Sync's folder did not change, so the command ends at once.
    gitseal(&scene, &["sync", "good"]).await?.is(0, &["sync/good"])?;
    gitseal(&scene, &["sync", "--all"]).await?.is(1, &["sync/good", "sync/bad"])?;
    gitseal(&scene, &["sync", "no-such"]).await?.is(1, &["no-such"])?;
    let asked = gitseal(&scene, &["sync", "--no-wait", "bad"]).await?.is(0, &[])?;
    assert_eq!(asked.err, "repository/repo: requested\nsync/bad: requested\n");

    let table = gitseal(&scene, &["status", "--check"]).await?.is(1, &[place])?;
    let row = |name: &str| table.out.lines().find(|line| line.starts_with(name)).unwrap_or_default().to_owned();
    assert!(row("sync/good").contains(" True "), "{}", table.out);
    assert!(row("sync/bad").contains(" False ") && row("sync/bad").contains(&revision), "{}", table.out);
    let list = gitseal(&scene, &["status", "--output", "json"]).await?.is(0, &[])?;
    let list: Value = serde_json::from_str(&list.out)?;
    let items = list["items"].as_array().context("items")?;
    assert_eq!(items.len(), 3);
    let bad = items.iter().find(|item| item["metadata"]["name"] == "bad").context("bad")?;
    assert_eq!((&bad["kind"], &bad["status"]["lastAppliedRevision"]), (&json!("Sync"), &json!(first)));
    let elsewhere = gitseal(&scene, &["status", "--all-namespaces"]).await?.is(0, &["NAMESPACE"])?;
    assert!(elsewhere.out.contains(&scene.namespace), "{}", elsewhere.out);
    Ok(())
}

/// The API server answers with an empty list for a namespace that does not exist, and an empty list would look like success.
#[tokio::test]
async fn a_namespace_or_an_object_that_does_not_exist_is_an_error() -> Result<()> {
    let scene = Scene::new("cli-nothing").await?;
    let plane = Plane::shared().await?;
    let within = async |namespace: &str, arguments: &[&str]| -> Result<Said> {
        let mut command = command(plane, namespace, arguments)?;
        Ok(tokio::task::spawn_blocking(move || command.output()).await??.into())
    };
    let suspend = &["suspend", "--all", "--reason", "x"];
    for arguments in [&["status"][..], &["status", "-o", "json"], &["history"], &["events"], suspend] {
        let said = within("no-such-namespace", arguments).await?;
        let said = said.is(1, &["the cluster has no namespace no-such-namespace", "--all-namespaces"])?;
        assert_eq!(said.out, "", "{arguments:?}");
    }
    // It is no error if a namespace that exists is empty.
    within("kube-public", &["status"]).await?.is(0, &["No Repository and no Sync"])?;
    within("kube-public", &["events"]).await?.is(0, &["No event of gitseal"])?;

    for (target, what) in [("nosuch", "Sync, Repository or SealedSecret nosuch"), ("sync/nosuch", "Sync nosuch")] {
        for more in [None, Some("--watch")] {
            let arguments: Vec<&str> = ["events", target].into_iter().chain(more).collect();
            gitseal(&scene, &arguments).await?.is(1, &[&format!("namespace {} has no {what}", scene.namespace)])?;
        }
    }
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    gitseal(&scene, &["events", "app"]).await?.is(0, &["sync/app"])?;
    gitseal(&scene, &["events", "repository/app"]).await?.is(1, &["has no Repository app"])?;
    // A deleted object is still found by its events.
    scene.api::<crds::Sync>().delete("app", &kube::api::DeleteParams::default()).await?;
    eventually("the Sync to be gone", || async {
        ensure!(scene.api::<crds::Sync>().get_opt("app").await?.is_none(), "it is there");
        Ok(())
    })
    .await?;
    gitseal(&scene, &["events", "app"]).await?.is(0, &["sync/app"])?;
    Ok(())
}

/// Statuses do not show that the controller is gone, because nobody updates them. So `gitseal status` warns.
#[tokio::test]
async fn a_controller_that_is_gone_is_noticed() -> Result<()> {
    let scene = Scene::new("cli-gone").await?;
    let lease = async |renewed: jiff::Timestamp| {
        let spec = json!({"holderIdentity": "gone", "renewTime": format!("{renewed:.6}")});
        let lease = json!({"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "gitseal-controller"}, "spec": spec});
        kubernetes::apply(&scene.client, &scene.namespace, lease).await
    };
    let status = async |more: &[&str]| {
        let arguments = [&["status", "--controller-namespace", &scene.namespace], more].concat();
        gitseal(&scene, &arguments).await?.is(0, &[])
    };
    // Without a lease, it is not known whether a controller runs, so there is no warning.
    let said = status(&[]).await?;
    ensure!(said.err.is_empty(), "{}", said.err);
    lease(jiff::Timestamp::now() - jiff::SignedDuration::from_hours(2)).await?;
    let warning = format!("warning: no controller has renewed its lease {}/gitseal-controller for 2h", scene.namespace);
    let said = status(&[]).await?;
    ensure!(said.err.contains(&warning) && said.out.contains("repository/repo"), "{}", said.err);
    let said = status(&["-o", "json"]).await?;
    ensure!(said.err.contains(&warning), "{}", said.err);
    let sync = ["sync", "repo", "--no-wait", "--controller-namespace", &scene.namespace];
    gitseal(&scene, &sync).await?.is(0, &[&warning, "repository/repo: requested"])?;
    let list: Value = serde_json::from_str(&said.out)?;
    assert_eq!(list["items"].as_array().map(Vec::len), Some(1));
    lease(jiff::Timestamp::now()).await?;
    let said = status(&[]).await?;
    ensure!(said.err.is_empty(), "{}", said.err);
    Ok(())
}

#[tokio::test]
async fn diff_shows_what_would_change_and_no_value_of_a_secret() -> Result<()> {
    let scene = Scene::new("cli-diff").await?;
    let tree = &scene.tree;
    tree.write("app/settings.yaml", config_map("settings", "blue"))?;
    tree.write("app/old.yaml", config_map("old", "1"))?;
    let sealed = |value: String| crate::objects::sealed_secret("db", &value);
    tree.write("app/db.yaml", sealed(scene.seal("db", b"diff-live-value").await?))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let own = gitseal(&scene, &["diff", "app", "--sync", "app"]).await?.is(0, &["4 unchanged"])?;
    assert!(!own.err.contains("spec.path"), "{}", own.err);
    // A folder other than that of the Sync can be compared, too, with a warning.
    let warning =
        format!("warning: Sync {}/app applies `app` of its repository (spec.path), and you gave", scene.namespace);
    tree.write("other/settings.yaml", config_map("settings", "blue"))?;
    let pruned = format!("would be pruned ConfigMap {}/old", scene.namespace);
    gitseal(&scene, &["diff", "other", "--sync", "app"]).await?.is(1, &[&format!("{warning} `other`"), &pruned])?;
    gitseal(&scene, &["diff", "app/old.yaml", "--sync", "app"])
        .await?
        .is(1, &[&format!("{warning} `app/old.yaml`")])?;

    tree.write("app/settings.yaml", config_map("settings", "green"))?;
    tree.write("app/new.yaml", config_map("new", "1"))?;
    tree.remove("app/old.yaml")?;
    tree.write("app/db.yaml", sealed(scene.seal("db", b"diff-local-value").await?))?;
    let by_hand = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "plain"}, "stringData": {"password": "diff-plain-live"}});
    kubernetes::apply(&scene.client, &scene.namespace, by_hand).await?;
    let created = format!("would be created ConfigMap {}/new", scene.namespace);
    let changed = format!("would be changed ConfigMap {}/settings", scene.namespace);
    let always = [&changed[..], "-  value: blue", "+  value: green", &created, "encryptedData.password: changed"];
    let unsealed = format!("would be unsealed again Secret {}/db", scene.namespace);
    let of_sync = [&pruned[..], &unsealed];
    let of_nobody = ["data.password: changed", "the controller refuses this folder: app/plain.yaml:2: Secret plain is"];
    for (of_whom, also) in [(&["--sync", "app"][..], of_sync), (&[], of_nobody)] {
        for format in [None, Some("json"), Some("yaml")] {
            let mut arguments = vec!["diff", "app"];
            arguments.extend(of_whom);
            arguments.extend(format.iter().flat_map(|format| ["--output", *format]));
            let said = gitseal(&scene, &arguments).await?.is(1, &["settings", "green", "password"])?;
            let text = said.out + &said.err;
            for value in ["diff-live-value", "diff-local-value", "diff-plain-live", "diff-plain-local"] {
                ensure!(!text.contains(value) && !text.contains(&STANDARD.encode(value)), "{value} in:\n{text}");
            }
            for part in always.iter().chain(&also).filter(|_| format.is_none()) {
                ensure!(text.contains(part), "no {part:?} in:\n{text}");
            }
        }
        // In the second round, the folder has a plaintext Secret, so the controller would refuse it.
        tree.write("app/plain.yaml", plain_secret("plain", "diff-plain-local"))?;
    }
    // `gitseal diff` has written nothing.
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": "blue"}})).await?;
    assert!(scene.get("v1", "ConfigMap", "new").await?.is_none());
    let plain = scene.get("v1", "Secret", "plain").await?.context("Secret")?;
    assert_eq!(plain["data"]["password"], STANDARD.encode("diff-plain-live"));
    // If the controller could not apply an object, `gitseal diff` fails, too, and names the file and line.
    let misspelt = "kind: Repository\nmetadata: {name: new}\nspec: {url: 'https://git.example/a.git', intervall: 1m}\n";
    tree.write("app/new.yaml", format!("apiVersion: gitseal.dev/v1alpha1\n{misspelt}"))?;
    gitseal(&scene, &["diff", "app"]).await?.is(2, &["failed Repository", "app/new.yaml:1", "intervall"])?;
    Ok(())
}

#[tokio::test]
async fn an_installation_is_accepted_and_waited_for() -> Result<()> {
    // Without a controller manager, only this test writes the status of the Deployment.
    let plane = Plane::without_controller(ClusterOptions { controller_manager: false, ..Default::default() }).await?;
    let client = plane.cluster.client().await?;
    let printed = |arguments: &[&str]| -> Result<Vec<Value>> {
        let text = programs::run(&mut command(&plane, "default", arguments)?)?;
        let list: Value = serde_json::from_str(&text)?;
        Ok(list["items"].as_array().context("items")?.clone())
    };
    for variant in [
        &["--multi-tenant", "--ephemeral-storage"][..],
        &["--git-url", "https://git.example/fleet.git", "--branch", "main"],
    ] {
        let mut arguments = vec!["install", "--output", "json"];
        arguments.extend(variant);
        for object in printed(&arguments)? {
            accepted(&client, &object).await?;
        }
        let arguments = ["install", "--output", "json", "--crds"];
        for object in printed(&arguments)? {
            accepted(&client, &object).await?;
        }
    }

    let mut waits = command(&plane, "default", &["install", "--apply", "--image", "a:1", "--timeout", "1s"])?;
    Said::from(waits.output()?).is(1, &["not ready within 1s", "describe pods"])?;
    let binding = Api::<ClusterRoleBinding>::all(client.clone());
    binding.get("gitseal-controller-cluster-admin").await?;

    let mut waits = command(&plane, "default", &["install", "--apply", "--timeout", "90s"])?;
    let waiting = tokio::task::spawn_blocking(move || waits.output());
    let deployments = Api::<Deployment>::namespaced(client.clone(), "kube-system");
    let generation =
        eventually("the Deployment", || async { Ok(deployments.get("gitseal-controller").await?.metadata.generation) })
            .await?;
    ensure!(!waiting.is_finished(), "it did not wait");
    let status = json!({"status": {
        "observedGeneration": generation, "replicas": 1, "updatedReplicas": 1, "readyReplicas": 1, "availableReplicas": 1,
        "conditions": [{"type": "Progressing", "status": "True", "reason": "NewReplicaSetAvailable"}],
    }});
    deployments.patch_status("gitseal-controller", &PatchParams::default(), &Patch::Merge(&status)).await?;
    Said::from(waiting.await??).is(0, &["the controller runs"])?;

    // A controller with the rights of the installed manifests can do everything that this test needs.
    let account = "system:serviceaccount:kube-system:gitseal-controller";
    let kubeconfig = plane.cluster.kubeconfig_for(account, &["system:serviceaccounts", "system:authenticated"])?;
    let folder = plane.folder();
    let mut controller = programs::Controller::start(&programs::ControllerOptions::new(&kubeconfig, &folder))?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "installed", ServerOptions::default()).await?;
    let certificate = sealing::Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?;
    let binding = sealing::Scope::Strict.binding(&scene.namespace, "db", "password");
    let sealed = sealing::seal(&certificate, binding, harness::hunt::known(b"installed-value"))?;
    scene.tree.write("app/db.yaml", crate::objects::sealed_secret("db", &sealed))?;
    scene.repository(json!({})).await?;
    let revision = scene.publish("installed").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    assert!(scene.api::<Secret>().get_opt("db").await?.is_some());
    ensure!(!controller.log().contains("orbidden"), "it lacks rights:\n{}", controller.log());
    Ok(())
}

/// Checks with a dry run that the API server accepts the object and knows all of its fields.
async fn accepted(client: &kube::Client, object: &Value) -> Result<()> {
    let (Some(api_version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
        bail!("{object:#}")
    };
    let resource = kubernetes::resource(api_version, kind);
    let name = object["metadata"]["name"].as_str().context("no name")?;
    let api: Api<DynamicObject> = match object["metadata"]["namespace"].as_str() {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
        None => Api::all_with(client.clone(), &resource),
    };
    let params = PatchParams::apply("kubectl").dry_run().force().validation_strict();
    api.patch(name, &params, &Patch::Apply(object)).await.with_context(|| format!("{kind} {name}"))?;
    Ok(())
}
