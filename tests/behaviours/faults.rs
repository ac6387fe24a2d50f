//! Faults between the controller and the API server. The controller recovers when the cause is gone, and meanwhile its
//! reports are true. There is one file per fault.

mod broken_connections;
mod delays;
mod half_answers;
mod lost_answers;
mod overrun_passes;
mod refusals;
mod replicas;
mod restored_store;
mod silent_watches;
mod stalled_heals;
mod stalled_reads;
mod stalled_writes;
mod stopped_store;
mod too_large;

use std::time::Duration;

use anyhow::Result;
use harness::{
    Plane, Scene,
    faults::FaultProxy,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use localcluster::ClusterOptions;
use serde_json::json;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use crate::objects::config_map;

/// The normal controller.
const PROGRAM: &[&str] = &["gitseal-controller"];
/// The controller without leader election. It keeps running even if the API server cannot be reached for long.
const ALONE: &[&str] = &["gitseal-controller", "--leader-elect=false"];

/// Everything recovers within this time after the fault has ended.
pub(super) const SOON: Duration = Duration::from_secs(15);
/// How long it may take until another replica leads. The lease is valid for 15 s. If somebody wrote a longer duration
/// into the lease, other replicas wait for up to 60 s.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// A scene with its own controller, which serves only the scene's namespace. The controller reaches the API server
/// through a proxy that can make requests fail. All these scenes share one control plane.
pub(super) struct Faulty {
    pub(super) scene: Scene,
    pub(super) proxy: FaultProxy,
    pub(super) controller: Controller,
    folder: TempDir,
    program: &'static [&'static str],
}

impl Faulty {
    /// A scene whose Sync `app` is applied, with the ConfigMap `map`.
    pub(super) async fn start(name: &str) -> Result<Self> {
        Self::start_program(name, PROGRAM).await
    }

    /// Like [`Self::start`], with another program as the controller, or with more arguments.
    pub(super) async fn start_program(name: &str, program: &'static [&'static str]) -> Result<Self> {
        let faulty = Self::program_without_work(name, program).await?;
        let scene = &faulty.scene;
        scene.repository(json!({})).await?;
        scene.tree.write("app/map.yaml", config_map("map", "first"))?;
        scene.sync("app", "./app", json!({})).await?;
        let revision = scene.publish("first").await?;
        scene.is_applied("app", &revision).await?;
        Ok(faulty)
    }

    /// A scene without a Sync.
    pub(super) async fn without_work(name: &str) -> Result<Self> {
        Self::program_without_work(name, PROGRAM).await
    }

    async fn program_without_work(name: &str, program: &'static [&'static str]) -> Result<Self> {
        static PLANE: OnceCell<Plane> = OnceCell::const_new();
        let plane = PLANE.get_or_try_init(|| Plane::without_controller(ClusterOptions::default())).await?;
        let scene = Scene::on(plane, name, ServerOptions::default()).await?;
        let proxy = FaultProxy::start(plane.cluster.kubeconfig()).await?;
        let folder = tempfile::tempdir()?;
        let controller = start_controller(&proxy, &scene.namespace, &folder, program).await?;
        Ok(Self { scene, proxy, controller, folder, program })
    }

    /// Kills the controller, and starts it again.
    pub(super) async fn restart(&mut self) -> Result<()> {
        self.controller.process().signal(localcluster::Signal::Kill)?;
        self.start_again().await
    }

    /// Starts the controller, which was killed.
    pub(super) async fn start_again(&mut self) -> Result<()> {
        self.controller = start_controller(&self.proxy, &self.scene.namespace, &self.folder, self.program).await?;
        Ok(())
    }

    /// Publishes another value of the ConfigMap.
    pub(super) async fn publish(&self, value: &str) -> Result<String> {
        self.scene.tree.write("app/map.yaml", config_map("map", value))?;
        self.scene.publish(value).await
    }

    /// Waits until the revision is applied and the ConfigMap has this value.
    pub(super) async fn is_applied(&self, revision: &str, value: &str) -> Result<()> {
        self.scene.is_applied("app", revision).await?;
        self.scene.has("v1", "ConfigMap", "map", json!({"data": {"value": value}})).await?;
        Ok(())
    }
}

async fn start_controller(
    proxy: &FaultProxy,
    namespace: &str,
    folder: &TempDir,
    program: &[&str],
) -> Result<Controller> {
    let mut options = ControllerOptions::new(proxy.kubeconfig(), folder.path());
    options.arguments = ["--key-size=2048", "--all-namespaces=false", "--allow-file-urls"].map(str::to_owned).into();
    options.arguments.push(format!("--namespace={namespace}"));
    if let [program, arguments @ ..] = program {
        options.program = program;
        options.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
    }
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    Ok(controller)
}
