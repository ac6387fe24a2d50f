//! A *plane* is a control plane with a controller; all tests of a binary share one. A *scene* is what belongs to one
//! test alone: a namespace and a Git repository.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, bail};
use crds::{Condition, Repository, Sync, find_condition};
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client, ResourceExt,
    api::{Patch, PatchParams, PostParams},
};
use localcluster::{Cluster, ClusterOptions};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

use crate::{
    eventually,
    git::{GitServer, ServerOptions, WorkTree},
    hunt, kubernetes,
    programs::{Controller, ControllerOptions},
};

/// A control plane with the CRDs and a controller.
pub struct Plane {
    // The fields are dropped in this order: the controller first, then the things that it uses.
    /// The controller. A test that restarts the controller takes it out of this field.
    pub controller: tokio::sync::Mutex<Option<Controller>>,
    /// The control plane.
    pub cluster: Cluster,
    /// Certificate to seal with, PEM.
    pub certificate: String,
    /// The plane's folder is inside the cluster's folder, so that both are deleted together. The shared plane is never
    /// dropped, so it could not delete its folder itself.
    folder: PathBuf,
}

impl Plane {
    /// The plane that all tests of this process share.
    pub async fn shared() -> Result<&'static Self> {
        static SHARED: OnceCell<Plane> = OnceCell::const_new();
        SHARED.get_or_try_init(|| Self::start(ClusterOptions { audit: true, ..ClusterOptions::default() })).await
    }

    /// A new plane with its own controller.
    pub async fn start(options: ClusterOptions) -> Result<Self> {
        let mut plane = Self::without_controller(options).await?;
        let mut controller = Controller::start(&plane.options())?;
        controller.ready().await?;
        plane.certificate = controller.fetch("/v1/cert.pem").await?;
        *plane.controller.lock().await = Some(controller);
        Ok(plane)
    }

    /// A plane for one test alone, without a controller manager, and a controller, which the test may stop and start again.
    pub async fn alone(options: ClusterOptions) -> Result<(Self, Controller)> {
        let plane = Self::without_controller(ClusterOptions { controller_manager: false, ..options }).await?;
        let mut controller = Controller::start(&plane.options())?;
        controller.ready().await?;
        Ok((plane, controller))
    }

    /// How a controller of this plane is started.
    pub fn options(&self) -> ControllerOptions<'_> {
        ControllerOptions::new(self.cluster.kubeconfig(), &self.folder)
    }

    /// A plane with the CRDs only.
    pub async fn without_controller(options: ClusterOptions) -> Result<Self> {
        let plane = Self::bare(options).await?;
        kubernetes::install_crds(&plane.cluster.client().await?).await?;
        Ok(plane)
    }

    /// A plane with only the Sealed Secrets project's own CRD.
    pub async fn of_sealed_secrets(options: ClusterOptions) -> Result<Self> {
        let plane = Self::bare(options).await?;
        let crd = tokio::task::spawn_blocking(localcluster::parts::sealed_secrets_crd).await??;
        kubernetes::install_crd_file(&plane.cluster.client().await?, "sealedsecrets.bitnami.com", &crd).await?;
        Ok(plane)
    }

    /// A plane without any CRD.
    pub async fn bare(options: ClusterOptions) -> Result<Self> {
        let cluster = tokio::task::spawn_blocking(move || Cluster::start(options)).await??;
        let folder = cluster.make_folder("plane")?;
        Ok(Self { controller: tokio::sync::Mutex::default(), cluster, certificate: String::new(), folder })
    }

    /// A folder that is deleted with the plane.
    pub fn folder(&self) -> PathBuf {
        self.folder.clone()
    }

    /// The log of the controller so far.
    pub async fn log(&self) -> String {
        self.controller.lock().await.as_ref().map(Controller::log).unwrap_or_default()
    }
}

/// A namespace, a Git server with a repository and its work tree.
pub struct Scene {
    /// A client with all rights.
    pub client: Client,
    /// The namespace of this test.
    pub namespace: String,
    /// The Git server.
    pub server: GitServer,
    /// The work tree; publish from it with [`Scene::publish`].
    pub tree: WorkTree,
    requests: AtomicU32,
    _hunt: (Option<hunt::OfController>, hunt::OfNamespace),
}

impl Scene {
    /// A scene on the shared plane, with a Repository named `repo`. The Repository is fetched only when [`Scene::publish`]
    /// or [`Scene::fetch`] requests it.
    pub async fn new(name: &str) -> Result<Self> {
        let scene = Self::on(Plane::shared().await?, name, ServerOptions::default()).await?;
        scene.repository(json!({})).await?;
        Ok(scene)
    }

    /// A scene on `plane`, without a Repository.
    pub async fn on(plane: &Plane, name: &str, options: ServerOptions) -> Result<Self> {
        let client = plane.cluster.client().await?;
        let namespace = Namespace {
            metadata: kube::api::ObjectMeta { generate_name: Some(format!("{name}-")), ..Default::default() },
            ..Default::default()
        };
        let namespace = Api::all(client.clone()).create(&PostParams::default(), &namespace).await?.name_any();
        let server = tokio::task::spawn_blocking(move || GitServer::new(options)).await??;
        let tree = server.create("repo")?;
        // The controller of the shared plane never ends, so its log and Git store are searched for plaintexts when the
        // scene ends.
        let of_controller = plane.controller.lock().await.as_ref().map(|controller| controller.hunt_of(&namespace));
        let hunt = (of_controller, hunt::OfNamespace::begin(plane.cluster.kubeconfig(), &namespace));
        Ok(Self { client, namespace, server, tree, requests: AtomicU32::new(0), _hunt: hunt })
    }

    /// Creates a service account with a Role of these rules in this namespace, or changes the rules of its Role.
    pub async fn account(&self, name: &str, rules: Value) -> Result<()> {
        let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
        kubernetes::apply(&self.client, &self.namespace, account).await?;
        self.allow(name, &self.namespace, rules).await
    }

    /// Binds a Role with these rules, in the namespace of the scene, to the service account `name`. `of` is the namespace of
    /// this service account.
    pub async fn allow(&self, name: &str, of: &str, rules: Value) -> Result<()> {
        const RBAC: &str = "rbac.authorization.k8s.io";
        let version = format!("{RBAC}/v1");
        for object in [
            json!({"apiVersion": version, "kind": "Role", "metadata": {"name": name}, "rules": rules}),
            json!({
                "apiVersion": version, "kind": "RoleBinding", "metadata": {"name": name},
                "roleRef": {"apiGroup": RBAC, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": of}],
            }),
        ] {
            kubernetes::apply(&self.client, &self.namespace, object).await?;
        }
        Ok(())
    }

    /// Makes or changes the Repository `repo`; `spec` is merged over the defaults.
    pub async fn repository(&self, spec: Value) -> Result<()> {
        let mut full = json!({"url": self.server.url("repo"), "interval": "1h", "ref": {"branch": "main"}});
        merge(&mut full, spec);
        let object = json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository",
            "metadata": {"name": "repo"}, "spec": full,
        });
        kubernetes::apply(&self.client, &self.namespace, object).await.map(|_| ())
    }

    /// Makes or changes a Sync of the Repository `repo`; `spec` is merged over the defaults.
    pub async fn sync(&self, name: &str, path: &str, spec: Value) -> Result<()> {
        let mut full = json!({"repository": {"name": "repo"}, "path": path});
        merge(&mut full, spec);
        let object =
            json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": name}, "spec": full});
        kubernetes::apply(&self.client, &self.namespace, object).await.map(|_| ())
    }

    /// Commits and pushes everything in the work tree, and makes the controller fetch it. Returns the commit's revision.
    pub async fn publish(&self, message: &str) -> Result<String> {
        let commit = self.tree.publish(message)?;
        let revision = format!("main@sha1:{commit}");
        self.fetch().await?;
        let api: Api<Repository> = self.api();
        eventually("the commit to be fetched", || async {
            let status = api.get("repo").await?.status.unwrap_or_default();
            if status.revision.as_ref() == Some(&revision) { Ok(()) } else { bail!("{status:?}") }
        })
        .await?;
        Ok(revision)
    }

    /// Requests a fetch, and waits until it was tried.
    pub async fn fetch(&self) -> Result<()> {
        let token = self.request::<Repository>("repo").await?;
        let api: Api<Repository> = self.api();
        eventually("the fetch", || async {
            let status = api.get("repo").await?.status.unwrap_or_default();
            if status.last_handled_reconcile_at.as_ref() == Some(&token) { Ok(()) } else { bail!("{status:?}") }
        })
        .await
    }

    /// Requests a reconcile of an object. Returns the token that its status will contain.
    pub async fn request<K>(&self, name: &str) -> Result<String>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let token = format!("request-{}", self.requests.fetch_add(1, Ordering::Relaxed));
        self.annotate::<K>(name, crds::names::RECONCILE_REQUESTED_AT, &token).await?;
        Ok(token)
    }

    /// Sets an annotation.
    pub async fn annotate<K>(&self, name: &str, key: &str, value: &str) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let patch = json!({"metadata": {"annotations": {key: value}}});
        self.api::<K>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    /// The API for objects of a kind that has a Rust type, in this namespace.
    pub fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// An object in this namespace as JSON; `None` if it does not exist.
    pub async fn get(&self, api_version: &str, kind: &str, name: &str) -> Result<Option<Value>> {
        let found = kubernetes::objects(&self.client, &self.namespace, api_version, kind).get_opt(name).await?;
        Ok(found.map(serde_json::to_value).transpose()?)
    }

    /// Waits until every field in `wanted` has the same value in the object.
    pub async fn has(&self, api_version: &str, kind: &str, name: &str, wanted: Value) -> Result<Value> {
        eventually(&format!("{kind} {name} with {wanted}"), || async {
            let found = self.get(api_version, kind, name).await?.context("it is not there")?;
            if contains(&found, &wanted) { Ok(found) } else { bail!("{found:#}") }
        })
        .await
    }

    /// Waits until an object no longer exists.
    pub async fn is_gone(&self, api_version: &str, kind: &str, name: &str) -> Result<()> {
        eventually(&format!("{kind} {name} to be gone"), || async {
            match self.get(api_version, kind, name).await? {
                None => Ok(()),
                Some(found) => bail!("{found:#}"),
            }
        })
        .await
    }

    /// Waits until the Sync is Ready with `revision` applied.
    pub async fn is_applied(&self, sync: &str, revision: &str) -> Result<Sync> {
        self.sync_when(sync, &format!("{revision} to be applied"), |sync, ready| {
            let applied = sync.status.as_ref().and_then(|status| status.last_applied_revision.as_deref());
            ready.status == crds::ConditionStatus::True && applied == Some(revision)
        })
        .await
    }

    /// Waits until the Sync is Ready.
    pub async fn is_ready(&self, sync: &str) -> Result<Sync> {
        self.sync_when(sync, "it to be Ready", |_, ready| ready.status == crds::ConditionStatus::True).await
    }

    /// Waits until the Sync is not Ready and its condition has this `reason`. Returns the message.
    pub async fn is_not_ready(&self, sync: &str, reason: &str) -> Result<String> {
        let found = self
            .sync_when(sync, &format!("Ready=False with {reason}"), |_, ready| {
                ready.status == crds::ConditionStatus::False && ready.reason == reason
            })
            .await?;
        let conditions = found.status.map(|status| status.conditions).unwrap_or_default();
        Ok(find_condition(&conditions, "Ready").map(|ready| ready.message.clone()).unwrap_or_default())
    }

    /// Waits until `fits` accepts the Sync and its Ready condition, for the Sync's current generation.
    pub async fn sync_when(&self, name: &str, what: &str, fits: impl Fn(&Sync, &Condition) -> bool) -> Result<Sync> {
        let api: Api<Sync> = self.api();
        eventually(&format!("Sync {name}: {what}"), || async {
            let sync = api.get(name).await?;
            let status = sync.status.clone().unwrap_or_default();
            let ready = find_condition(&status.conditions, "Ready");
            match ready.filter(|_| status.observed_generation == sync.metadata.generation) {
                Some(ready) if fits(&sync, ready) => Ok(sync),
                _ => bail!("{status:#?}"),
            }
        })
        .await
    }

    /// Waits until the Repository is not Ready and its condition has this `reason`. Returns the message.
    pub async fn repository_fails(&self, reason: &str) -> Result<String> {
        let api: Api<Repository> = self.api();
        eventually(&format!("the Repository to fail with {reason}"), || async {
            let status = api.get("repo").await?.status.unwrap_or_default();
            match find_condition(&status.conditions, "Ready") {
                Some(ready) if ready.reason == reason => Ok(ready.message.clone()),
                _ => bail!("{status:?}"),
            }
        })
        .await
    }

    /// A value sealed with the scope strict for a name in this namespace.
    pub async fn seal(&self, name: &str, value: &[u8]) -> Result<String> {
        self.seal_for(sealing::Scope::Strict, name, value).await
    }

    /// A value sealed with any scope for a name in this namespace.
    pub async fn seal_for(&self, scope: sealing::Scope, name: &str, value: &[u8]) -> Result<String> {
        let certificate = sealing::Certificate::from_pem(Plane::shared().await?.certificate.as_bytes())?;
        Ok(sealing::seal(&certificate, scope.binding(&self.namespace, name, "any"), hunt::known(value))?)
    }
}

/// Whether every field of `wanted` has the same value in `found`. Lists must be equal.
pub fn contains(found: &Value, wanted: &Value) -> bool {
    match (found, wanted) {
        (Value::Object(found), Value::Object(wanted)) => {
            wanted.iter().all(|(key, value)| found.get(key).is_some_and(|found| contains(found, value)))
        }
        _ => found == wanted,
    }
}

fn merge(base: &mut Value, over: Value) {
    match (base, over) {
        (Value::Object(base), Value::Object(over)) => {
            for (key, value) in over {
                match value {
                    Value::Null => {
                        base.remove(&key);
                    }
                    value => merge(base.entry(key).or_insert(Value::Null), value),
                }
            }
        }
        (base, over) => *base = over,
    }
}
