//! Secret values go all the way from a person's file into the cluster, and must not appear anywhere else.

mod charts;

use std::{fmt::Write as _, fs, path::Path, process::Command};

use anyhow::{Context, Result, bail, ensure};
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD},
};
use crds::{Repository, SealedSecret, Sync};
use harness::{
    Plane, Scene,
    git::ServerOptions,
    kubernetes,
    programs::{self, Controller, ControllerOptions},
};
use k8s_openapi::api::{core::v1::ConfigMap, events::v1::Event};
use kube::{Api, api::ListParams};
use localcluster::{ClusterOptions, Program};
use serde::Serialize;
use serde_json::json;

/// The values in the order of their use: the first one, an update, one that the API server refuses because the type of a
/// Secret cannot change, one that it refuses because of the value itself, and one that is sealed for another name.
const VALUES: [&str; 5] = [
    "Zaphod-first-4711-plaintext",
    "Zaphod-second-4712-plaintext",
    "Zaphod-third-4713-plaintext",
    "{\"Zaphod-fourth-4714-plaintext",
    "Zaphod-fifth-4715-plaintext",
];

/// The forms in which a value could appear: as it is, in JSON, in hexadecimal, and in base64, also inside of a longer text.
fn traces() -> Vec<String> {
    let mut traces = Vec::new();
    for value in VALUES {
        let core = value.trim_start_matches("{\"");
        traces.push(core.to_owned());
        traces.push(core.bytes().fold(String::new(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        }));
        for skipped in 0..3 {
            let whole = &value.as_bytes()[skipped..];
            traces.push(STANDARD_NO_PAD.encode(&whole[..whole.len() / 3 * 3]));
        }
    }
    traces
}

/// Everything that is searched for the values.
#[derive(Default)]
struct Places(Vec<(String, Vec<u8>)>);

impl Places {
    fn add(&mut self, name: impl Into<String>, content: impl Into<Vec<u8>>) {
        self.0.push((name.into(), content.into()));
    }

    /// Adds every file below `folder`, and the decompressed content of every Git object in it.
    fn add_folder(&mut self, folder: &Path) -> Result<()> {
        if folder.join("objects").is_dir() && folder.join("HEAD").is_file() {
            let mut command = Command::new("git");
            command.arg("--git-dir").arg(folder).args(["cat-file", "--batch", "--batch-all-objects", "--unordered"]);
            let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output()?;
            ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            self.add(format!("Git objects in {}", folder.display()), output.stdout);
        }
        for entry in fs::read_dir(folder)? {
            let path = entry?.path();
            if path.is_dir() {
                self.add_folder(&path)?;
            } else {
                self.add(path.display().to_string(), fs::read(&path)?);
            }
        }
        Ok(())
    }

    async fn add_objects<K>(&mut self, scene: &Scene) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + Serialize
            + std::fmt::Debug,
    {
        let objects = scene.api::<K>().list(&ListParams::default()).await?;
        ensure!(objects.iter().next().is_some(), "there is no {}", K::kind(&()));
        self.add(K::kind(&()).into_owned(), serde_json::to_string(&objects.items)?);
        Ok(())
    }

    fn mentioning(&self, text: &str) -> Vec<&str> {
        let contains = |content: &[u8]| content.windows(text.len()).any(|window| window == text.as_bytes());
        self.0.iter().filter(|(_, content)| contains(content)).map(|(name, _)| name.as_str()).collect()
    }
}

/// Seals a Secret with the CLI, from a file outside of the repository to a file in it. Returns what the CLI prints.
fn seal(scene: &Scene, plane: &Plane, certificate: &Path, secret: &str, to: &str) -> Result<Vec<u8>> {
    let folder = tempfile::tempdir()?;
    let from = folder.path().join("secret.yaml");
    fs::write(&from, secret)?;
    let target = scene.tree.path().join(to);
    fs::create_dir_all(target.parent().context("a folder")?)?;
    let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
    command.args(["seal", "--namespace", &scene.namespace, "--cert"]).arg(certificate);
    // `--force` replaces the file even if the SealedSecret in it has another type.
    let output = command.arg("--force").arg("--output-file").arg(&target).arg(&from).output()?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok([output.stdout, output.stderr].concat())
}

fn secret(name: &str, type_: &str, key: &str, value: &str) -> String {
    let value = STANDARD.encode(value);
    format!("apiVersion: v1\nkind: Secret\ntype: {type_}\nmetadata: {{name: {name}}}\ndata:\n  {key}: {value}\n")
}

#[tokio::test]
async fn a_value_stands_in_its_secret_and_nowhere_else() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions { audit: true, ..ClusterOptions::default() }).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.push("--log-level=trace".into());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let certificate = folder.join("cert.pem");
    fs::write(&certificate, controller.fetch("/v1/cert.pem").await?)?;
    let scene = Scene::on(&plane, "hygiene", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    let mut printed = Vec::new();
    let mut commit = |name: &str, type_: &str, key: &str, value: &str| -> Result<()> {
        let file = format!("app/{name}.yaml");
        printed.extend(seal(&scene, &plane, &certificate, &secret(name, type_, key, value), &file)?);
        Ok(())
    };

    // The first value and its update do arrive in the Secret. Otherwise, the search below might find nothing only
    // because nothing was unsealed.
    for value in &VALUES[..2] {
        commit("db", "Opaque", "password", value)?;
        let revision = scene.publish("seal").await?;
        scene.sync("app", "./app", json!({})).await?;
        scene.is_applied("app", &revision).await?;
        let wanted = json!({"data": {"password": STANDARD.encode(value)}});
        scene.has("v1", "Secret", "db", wanted).await?;
    }
    // The API server refuses the Secret of a SealedSecret, both if a Sync applied the SealedSecret and if somebody
    // applied it by hand.
    commit("db", "example.com/other", "password", VALUES[2])?;
    let refused = async |revision: String| -> Result<String> {
        let is_refused = |sync: &Sync, ready: &crds::Condition| {
            let status = sync.status.as_ref();
            let attempted = status.and_then(|status| status.last_attempted_revision.as_ref());
            attempted == Some(&revision) && ready.reason == "ApplyFailed"
        };
        scene.sync_when("app", "it to be refused", is_refused).await?;
        scene.is_not_ready("app", "ApplyFailed").await
    };
    let message = refused(scene.publish("another type").await?).await?;
    assert!(message.contains("app/db.yaml:1: ") && message.contains("Invalid (422)"), "{message}");
    commit("db", "Opaque", "password", VALUES[1])?;
    let certificate = sealing::Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?;
    // This Secret is sealed without the CLI, because `gitseal seal` would refuse it.
    let of_registry = |name: &str, sealed_for: &str, value: &str| -> Result<serde_json::Value> {
        let binding = sealing::Scope::Strict.binding(&scene.namespace, sealed_for, ".dockerconfigjson");
        let sealed = sealing::seal(&certificate, binding, harness::hunt::known(value.as_bytes()))?;
        Ok(json!({
            "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": name},
            "spec": {"encryptedData": {".dockerconfigjson": sealed}, "template": {"type": "kubernetes.io/dockerconfigjson"}},
        }))
    };
    let registry = of_registry("registry", "registry", VALUES[3])?;
    scene.tree.write("app/registry.yaml", registry.to_string())?;
    let message = refused(scene.publish("not what its type asks for").await?).await?;
    assert!(message.contains("app/registry.yaml:1: ") && message.contains("Invalid (422)"), "{message}");
    for (name, value, reason) in
        [("alone", VALUES[3], "refused the Secret"), ("another", VALUES[4], "spec.encryptedData..dockerconfigjson")]
    {
        let object = of_registry("alone", name, value)?;
        kubernetes::apply(&scene.client, &scene.namespace, object).await?;
        harness::eventually(reason, || async {
            let found = scene.get("bitnami.com/v1alpha1", "SealedSecret", "alone").await?.context("it is gone")?;
            ensure!(
                found["status"]["conditions"][0]["message"].as_str().is_some_and(|m| m.contains(reason)),
                "{found:#}"
            );
            Ok(())
        })
        .await?;
    }

    let mut places = Places::default();
    for name in ["db", "alone"] {
        let sealed = scene.get("bitnami.com/v1alpha1", "SealedSecret", name).await?.context("it is gone")?;
        for path in ["/v1/verify", "/v1/rotate", "/v1/which"] {
            let (_, answer) = controller.post(path, &sealed).await?;
            places.add(format!("{path} of {name}"), answer);
        }
    }
    places.add("/v1/keys", controller.fetch("/v1/keys").await?);
    places.add("metrics", controller.fetch("/metrics").await?);
    places.add_objects::<Event>(&scene).await?;
    places.add_objects::<Sync>(&scene).await?;
    places.add_objects::<Repository>(&scene).await?;
    places.add_objects::<SealedSecret>(&scene).await?;
    places.add_objects::<ConfigMap>(&scene).await?;
    let kube_system = Api::<Event>::namespaced(scene.client.clone(), "kube-system");
    places.add("events elsewhere", serde_json::to_string(&kube_system.list(&ListParams::default()).await?.items)?);
    let status = ["status", "--output", "json", "--namespace", &scene.namespace];
    places.add("gitseal status", programs::run(programs::gitseal(plane.cluster.kubeconfig())?.args(status))?);
    let pid = controller.process().pid();
    places.add("command line", fs::read(format!("/proc/{pid}/cmdline"))?);
    places.add("environment", fs::read(format!("/proc/{pid}/environ"))?);
    places.add("audit log", fs::read(plane.cluster.audit_log().context("an audit log")?)?);
    places.add("API server's log", fs::read(plane.cluster.log(Program::ApiServer))?);
    places.add("what gitseal seal printed", printed);
    // Stop the controller first, so that it has written everything.
    drop(controller);
    places.add_folder(&folder)?;
    places.add_folder(scene.tree.bare())?;
    places.add_folder(scene.tree.path())?;

    // Check that the search works: it finds a text that exists.
    let text = fs::read_to_string(scene.tree.path().join("app/db.yaml"))?;
    let sealed = text.lines().find_map(|line| line.trim().strip_prefix("password: ")).context("a sealed value")?;
    let sealed = sealed.trim_matches(['\'', '"']).to_owned();
    let mentioning = places.mentioning(&sealed);
    let count = |text: &str| mentioning.iter().filter(|name| name.contains(text)).count();
    assert!(count("Git objects in") >= 2, "the repository and the controller's copy: {mentioning:?}");
    assert!(count("app/db.yaml") >= 1 && count("SealedSecret") == 1, "{mentioning:?}");
    for (text, place) in [("unsealed", "controller.log"), ("/secrets/db", "audit log"), ("ErrUpdateFailed", "Event")] {
        assert!(places.mentioning(text).iter().any(|name| name.contains(place)), "no {text} in {place}");
    }
    for trace in traces() {
        let found = places.mentioning(&trace);
        assert!(found.is_empty(), "'{trace}' stands in {found:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_a_test_sealed_is_found_wherever_it_is_told() -> Result<()> {
    let scene = Scene::new("hunt").await?;
    let value = "Zaphod-told-4716-plaintext";
    scene.seal("db", value.as_bytes()).await?;
    let told = format!("a template said {}", STANDARD.encode(format!("in it: {value}")));
    let object = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tells", "annotations": {"example.com/why": told}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, object).await?;
    let found = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| drop(scene)));
    let found = found.err().context("the search at the end of a scene found nothing")?;
    let text = found.downcast_ref::<String>().context("a text")?;
    ensure!(text.contains(value) && text.contains("ConfigMap hunt-"), "{text}");
    Ok(())
}
