//! The repository in `examples/fleet`: two clusters apply it as it is, and changes are promoted from staging to production with
//! the commands of its page.

use std::{collections::BTreeSet, convert::Infallible, fs, path::Path, pin::pin};

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{ConditionStatus, Sync, find_condition};
use futures::TryStreamExt as _;
use harness::{Plane, eventually, hunt, kubernetes};
use k8s_openapi::api::core::v1::Pod;
use kube::{
    Api, Client, ResourceExt as _,
    api::{ListParams, Patch, PatchParams},
    config::Kubeconfig,
    runtime::{WatchStreamExt as _, watcher},
};
use localcluster::ClusterOptions;
use manifests::ObjectId;
use serde_json::{Value, json};

use crate::shell_blocks::{
    desk::Desk,
    page::{Page, root},
};

const EXAMPLE: &str = "examples/fleet";
/// The page of the example.
pub(crate) const PAGE: &str = "examples/fleet/README.md";
/// The Syncs of each cluster, in the namespace `fleet`.
const SYNCS: [&str; 6] = ["access", "edge", "namespaces", "orders", "status", "web"];

/// One of the two clusters of the example.
struct Cluster {
    name: &'static str,
    plane: Plane,
    client: Client,
    /// The port of the controller.
    port: u16,
    _hunts: Vec<hunt::OfNamespace>,
}

impl Cluster {
    /// Starts a cluster that can unseal the values of the example. `key` is a key pair in `sealing/tests/vectors`.
    async fn start(name: &'static str, key: &str) -> Result<Self> {
        let plane = Plane::start(ClusterOptions::default()).await?;
        let client = plane.cluster.client().await?;
        let file = |end: &str| fs::read(root().join(format!("sealing/tests/vectors/{key}.{end}")));
        let data = json!({"tls.crt": STANDARD.encode(file("crt")?), "tls.key": STANDARD.encode(file("key")?)});
        let metadata = json!({"name": "example", "labels": {"sealedsecrets.bitnami.com/sealed-secrets-key": "active"}});
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "kubernetes.io/tls", "data": data,
        });
        kubernetes::apply(&client, "kube-system", secret).await?;
        let port = plane.controller.lock().await.as_ref().context("no controller")?.port;
        let hunts = ["fleet", "orders", "web"].map(|name| hunt::OfNamespace::begin(plane.cluster.kubeconfig(), name));
        Ok(Self { name, plane, client, port, _hunts: hunts.into() })
    }

    /// Creates the Repository and the Sync that `gitseal install --git-url URL --path clusters/NAME` creates once the
    /// controller is installed.
    async fn begin(&self, url: &str) -> Result<()> {
        let (repository, path) = (json!({"name": "cluster"}), format!("clusters/{}", self.name));
        for (kind, spec) in [
            ("Repository", json!({"url": url, "ref": {"branch": "main"}})),
            ("Sync", json!({"repository": repository, "path": path})),
        ] {
            let object = json!({
                "apiVersion": "gitseal.dev/v1alpha1", "kind": kind, "metadata": {"name": "cluster"}, "spec": spec,
            });
            kubernetes::apply(&self.client, "kube-system", object).await?;
        }
        Ok(())
    }

    /// There is no node, so this reports Pods as a kubelet would: those of Jobs as succeeded, all others as ready.
    async fn run_pods(&self) -> Result<Infallible> {
        let pods = watcher(Api::<Pod>::all(self.client.clone()), watcher::Config::default()).default_backoff();
        let mut pods = pin!(pods.applied_objects());
        while let Some(pod) = pods.try_next().await? {
            let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
            if phase != Some("Pending") {
                continue;
            }
            let is_of_job = pod.owner_references().iter().any(|owner| owner.kind == "Job");
            let phase = if is_of_job { "Succeeded" } else { "Running" };
            let ready = json!({"type": "Ready", "status": if is_of_job { "False" } else { "True" }});
            let status = Patch::Strategic(json!({"status": {"phase": phase, "conditions": [ready]}}));
            let api = Api::<Pod>::namespaced(self.client.clone(), &pod.namespace().context("a namespace")?);
            match api.patch_status(&pod.name_any(), &PatchParams::default(), &status).await {
                Err(kube::Error::Api(gone)) if gone.code == 404 => {}
                patched => drop(patched?),
            }
        }
        anyhow::bail!("the watch on Pods ended")
    }

    /// Fetches and applies now, and waits until all Syncs are Ready.
    async fn sync(&self, desk: &Desk) -> Result<()> {
        let context = format!("--context {} --timeout 3m", self.name);
        desk.sh(&format!("gitseal sync cluster -n kube-system {context}\ngitseal sync --all -n fleet {context}"))
            .await?;
        let syncs = Api::<Sync>::namespaced(self.client.clone(), "fleet").list(&ListParams::default()).await?;
        let names: Vec<_> = syncs.iter().map(kube::ResourceExt::name_any).collect();
        ensure!(names == SYNCS, "{}: {names:?}", self.name);
        for sync in syncs {
            let conditions = sync.status.as_ref().map(|status| status.conditions.as_slice()).unwrap_or_default();
            let is_ready =
                find_condition(conditions, "Ready").is_some_and(|ready| ready.status == ConditionStatus::True);
            ensure!(is_ready, "{}: {}: {conditions:#?}", self.name, sync.name_any());
        }
        Ok(())
    }

    async fn get(&self, version: &str, kind: &str, namespace: &str, name: &str) -> Result<Value> {
        let found = kubernetes::objects(&self.client, namespace, version, kind).get(name).await;
        Ok(serde_json::to_value(found.with_context(|| format!("{}: {kind} {namespace}/{name}", self.name))?)?)
    }

    /// The value of the key `key` in a Secret.
    async fn secret(&self, namespace: &str, name: &str, key: &str) -> Result<String> {
        let secret = self.get("v1", "Secret", namespace, name).await?;
        let value = secret["data"][key].as_str().with_context(|| format!("no {key} in {namespace}/{name}"))?;
        Ok(String::from_utf8(STANDARD.decode(value)?)?)
    }

    /// The version of a Deployment's image, and the Deployment's number of replicas.
    async fn runs(&self, namespace: &str, name: &str) -> Result<(String, i64)> {
        let deployment = self.get("apps/v1", "Deployment", namespace, name).await?;
        let image = deployment["spec"]["template"]["spec"]["containers"][0]["image"].as_str().context("an image")?;
        let version = image.rsplit(':').next().unwrap_or_default().to_owned();
        Ok((version, deployment["spec"]["replicas"].as_i64().context("replicas")?))
    }

    /// Checks that `gitseal build` prints for each Sync exactly what the Sync has in the cluster.
    async fn is_as_built(&self, desk: &Desk) -> Result<()> {
        for name in SYNCS {
            let file = format!("clusters/{}/{name}.yaml", self.name);
            let built: Value = serde_json::from_str(&desk.sh(&format!("gitseal build --sync {file} -o json")).await?)?;
            let sync: Sync = Api::namespaced(self.client.clone(), "fleet").get(name).await?;
            let inventory = sync.status.unwrap_or_default().inventory;
            let ids = inventory.iter().filter_map(|entry| ObjectId::from_inventory(&entry.id));
            let ids: Vec<_> = ids.filter(|id| !id.is_secret()).collect();
            let mut seen = BTreeSet::new();
            for object in built["items"].as_array().context("a list")? {
                let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str);
                let version = text("/apiVersion").context("a version")?;
                let namespace = text("/metadata/namespace");
                let is_it = |id: &&ObjectId| {
                    (Some(id.kind.as_str()), Some(id.name.as_str())) == (text("/kind"), text("/metadata/name"))
                        && (namespace.is_none() || id.namespace.as_deref() == namespace)
                };
                let id = ids.iter().find(is_it).with_context(|| format!("{file}: not applied: {object:#}"))?;
                let api = match &id.namespace {
                    None => kubernetes::cluster_wide(&self.client, version, &id.kind),
                    Some(namespace) => kubernetes::objects(&self.client, namespace, version, &id.kind),
                };
                let live = serde_json::to_value(api.get(&id.name).await?)?;
                ensure!(holds(&live, object), "{file}: {object:#}\nis in the cluster:\n{live:#}");
                seen.insert(id);
            }
            ensure!(seen.len() == ids.len(), "{file}: built {seen:?}, applied {ids:?}");
        }
        Ok(())
    }
}

/// Whether every field of `wanted` has the same value in `found`. The API server adds defaults, also to the items of lists, and
/// leaves out fields without a value.
fn holds(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (_, Value::Null) => found.is_null(),
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(name, value)| holds(found.get(name).unwrap_or(&Value::Null), value))
        }
        (Value::Array(found), Value::Array(wanted)) => {
            found.len() == wanted.len() && found.iter().zip(wanted).all(|(found, wanted)| holds(found, wanted))
        }
        _ => found == wanted,
    }
}

/// Copies the example into the work tree.
fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let to = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &to)?;
        } else {
            fs::copy(entry.path(), to)?;
        }
    }
    Ok(())
}

/// A kubeconfig with one context for each cluster, named like the cluster.
fn kubeconfig(clusters: [&Cluster; 2]) -> Result<String> {
    let mut all = Kubeconfig::default();
    for cluster in clusters {
        let own = Kubeconfig::read_from(cluster.plane.cluster.kubeconfig())?;
        let name = cluster.name.to_owned();
        for mut one in own.clusters {
            one.name.clone_from(&name);
            all.clusters.push(one);
        }
        for mut one in own.auth_infos {
            one.name.clone_from(&name);
            all.auth_infos.push(one);
        }
        for mut one in own.contexts {
            one.name.clone_from(&name);
            let context = one.context.as_mut().context("an empty context")?;
            (context.cluster, context.user) = (name.clone(), Some(name.clone()));
            all.contexts.push(one);
        }
    }
    Ok(serde_json::to_string(&all)?)
}

#[tokio::test]
async fn two_clusters_apply_the_example_and_its_page_promotes_changes() -> Result<()> {
    for name in ["staging", "production"] {
        hunt::known(&format!("example-password-of-{name}"));
        hunt::known(&format!("example-session-key-of-{name}"));
        hunt::known(&format!("the password of the database in {name}"));
    }
    let (staging, production) =
        tokio::try_join!(Cluster::start("staging", "rsa-2048"), Cluster::start("production", "rsa-4096"))?;
    let desk = Desk::new(&staging.plane)?;
    fs::write(desk.in_home(".kube/config"), kubeconfig([&staging, &production])?)?;
    copy(&root().join(EXAMPLE), desk.tree.path())?;
    tokio::select! {
        done = live(&staging, &production, &desk) => done,
        broken = staging.run_pods() => broken.map(|never| match never {}),
        broken = production.run_pods() => broken.map(|never| match never {}),
    }
}

/// Works through the page.
async fn live(staging: &Cluster, production: &Cluster, desk: &Desk) -> Result<()> {
    let url = desk.server.url("fleet");
    let mut page = Page::open(PAGE, desk)?;
    page.replace("https://git.company.example/fleet.git", &url);
    page.run("grep -rl").await?;

    // The example as it is, with the SealedSecrets that are in it.
    desk.tree.publish("the example")?;
    desk.sh("git push origin main:production").await?;
    for cluster in [staging, production] {
        cluster.begin(&url).await?;
        // The Sync of `begin` applies the folder with the namespace `fleet` and the other Syncs.
        eventually("the Syncs of the cluster", || async {
            let syncs = Api::<Sync>::namespaced(cluster.client.clone(), "fleet").list(&ListParams::default()).await?;
            ensure!(syncs.items.len() == SYNCS.len(), "{} Syncs", syncs.items.len());
            Ok(())
        })
        .await?;
        cluster.sync(desk).await?;
        let name = cluster.name;
        assert_eq!(cluster.secret("web", "session", "SESSION_KEY").await?, format!("example-session-key-of-{name}"));
        let password = cluster.secret("orders", "orders-database", "PGPASSWORD").await?;
        assert_eq!(password, format!("example-password-of-{name}"));
        cluster.is_as_built(desk).await?;
    }
    assert_eq!(staging.secret("orders", "orders-database", "PGHOST").await?, "postgres.staging.example");
    assert_eq!(production.secret("orders", "orders-database", "PGHOST").await?, "postgres.example");
    assert_eq!(staging.runs("web", "web").await?, ("1.4.0".to_owned(), 1));
    assert_eq!(production.runs("web", "web").await?, ("1.4.0".to_owned(), 3));
    assert_eq!(production.runs("orders", "orders").await?, ("2.7.1".to_owned(), 4));

    // SealedSecrets of one's own.
    for Cluster { name, port, .. } in [staging, production] {
        let at_controller = format!("gitseal cert --controller-url http://127.0.0.1:{port}");
        page.replace(&format!("gitseal cert --context {name}"), at_controller);
    }
    page.run("gitseal cert").await?;
    page.run("gitseal seal").await?;
    page.run("git add .").await?;
    for cluster in [staging, production] {
        cluster.sync(desk).await?;
        let password = cluster.secret("orders", "orders-database", "PGPASSWORD").await?;
        assert_eq!(password, format!("the password of the database in {}", cluster.name));
        let key = STANDARD.decode(cluster.secret("web", "session", "SESSION_KEY").await?)?;
        assert_eq!(key.len(), 32);
    }

    // Promotion by folder. The migration runs again for the new version.
    let migration = async |cluster: &Cluster| cluster.get("batch/v1", "Job", "orders", "orders-migrate").await;
    let before = migration(production).await?["metadata"]["uid"].clone();
    page.run("newTag: 1.5.0").await?;
    staging.sync(desk).await?;
    production.sync(desk).await?;
    assert_eq!(staging.runs("web", "web").await?, ("1.5.0".to_owned(), 1));
    assert_eq!(staging.runs("orders", "orders").await?, ("2.8.0".to_owned(), 1));
    assert_eq!(production.runs("web", "web").await?, ("1.4.0".to_owned(), 3));
    assert_eq!(migration(production).await?["metadata"]["uid"], before);
    page.run("cp apps/web/staging/release").await?;
    production.sync(desk).await?;
    assert_eq!(production.runs("web", "web").await?, ("1.5.0".to_owned(), 3));
    assert_eq!(production.runs("orders", "orders").await?, ("2.8.0".to_owned(), 4));
    let job = migration(production).await?;
    ensure!(job["metadata"]["uid"] != before && job["status"]["succeeded"] == 1, "{job:#}");

    // Promotion by branch.
    page.run("status:0.9.4").await?;
    staging.sync(desk).await?;
    production.sync(desk).await?;
    assert_eq!(staging.runs("status", "status").await?.0, "0.9.4");
    assert_eq!(production.runs("status", "status").await?.0, "0.9.3");
    let said = page.run("git push origin main:production").await?;
    ensure!(said.contains("status 0.9.4") && !said.contains("web 1.5.0"), "{said}");
    production.sync(desk).await?;
    assert_eq!(production.runs("status", "status").await?.0, "0.9.4");

    staging.sync(desk).await?;
    for cluster in [staging, production] {
        cluster.is_as_built(desk).await?;
    }
    page.run("gitseal build --sync").await?;
    page.close()
}
