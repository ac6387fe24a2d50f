//! Whatever fails between the controller and the API server ends with its cause, and is told truthfully meanwhile. One
//! file per fault.

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

/// The controller as it is.
const PROGRAM: &[&str] = &["gitseal-controller"];
/// The same, alone: it stays, however long the API server is away.
const ALONE: &[&str] = &["gitseal-controller", "--leader-elect=false"];

/// Everything recovers within 15 s after the cause is gone. The machine of a test may be busy with others: twice as long.
pub(super) const SOON: Duration = Duration::from_secs(30);
/// Another replica leads within this time.
pub(super) const LEASE: Duration = Duration::from_secs(60);

/// A scene whose controller works in the scene's namespace alone and reaches the API server through a proxy that fails
/// as it is told. All of them share one control plane.
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

    /// The same, with another program as the controller, or with more arguments.
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

    /// A scene with nothing in it.
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

    /// The controller is killed, and starts anew.
    pub(super) async fn restart(&mut self) -> Result<()> {
        let next = start_controller(&self.proxy, &self.scene.namespace, &self.folder, self.program);
        self.controller.process().signal(localcluster::Signal::Kill)?;
        self.controller = next.await?;
        Ok(())
    }

    /// Publishes another value of the ConfigMap.
    pub(super) async fn publish(&self, value: &str) -> Result<String> {
        self.scene.tree.write("app/map.yaml", config_map("map", value))?;
        self.scene.publish(value).await
    }

    /// Everything is as the revision with this value says.
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
