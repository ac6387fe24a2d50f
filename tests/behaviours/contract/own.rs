//! A controller for one test, with its own flags. Its sealing key and its lease are in the test's namespace.

use std::path::{Path, PathBuf};

use anyhow::Result;
use harness::{
    Plane, Scene,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use localcluster::ClusterOptions;
use sealing::Certificate;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::side::Side;

/// The controller, and its namespace.
pub(super) struct Own {
    pub(super) side: Side,
    pub(super) controller: Controller,
    folder: TempDir,
    arguments: Vec<String>,
    kubeconfig: PathBuf,
}

/// A shared control plane without a controller. Each test starts a controller of its own, which must not serve the
/// namespaces of other tests.
pub(super) async fn plane() -> Result<&'static Plane> {
    static SHARED: OnceCell<Plane> = OnceCell::const_new();
    let options = ClusterOptions { controller_manager: false, audit: true, ..ClusterOptions::default() };
    SHARED.get_or_try_init(|| Plane::without_controller(options)).await
}

impl Own {
    /// Starts a controller with these arguments, in the namespace of a new scene.
    pub(super) async fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let plane = plane().await?;
        let scene = Scene::on(plane, name, ServerOptions::default()).await?;
        Self::start_in(scene, plane.cluster.kubeconfig().to_owned(), arguments).await
    }

    /// Starts a controller with these arguments, in the namespace of this scene, as the user of this kubeconfig.
    pub(super) async fn start_in(scene: Scene, kubeconfig: PathBuf, arguments: &[&str]) -> Result<Self> {
        let own = format!("--namespace={}", scene.namespace);
        let fixed = ["--key-size=2048", &own].into_iter();
        let arguments: Vec<String> = fixed.chain(arguments.iter().copied()).map(str::to_owned).collect();
        let folder = tempfile::tempdir()?;
        let controller = run(&kubeconfig, &folder, &arguments).await?;
        let certificate = certificate(&controller).await?;
        Ok(Self { side: Side { scene, certificate }, controller, folder, arguments, kubeconfig })
    }

    /// Makes a [`Side`] for another namespace that this controller serves.
    pub(super) async fn beside(&self, scene: Scene) -> Result<Side> {
        Ok(Side { scene, certificate: certificate(&self.controller).await? })
    }

    /// Stops the controller with SIGTERM, and starts it again.
    pub(super) async fn restart(self) -> Result<Self> {
        self.restart_after(async |_| Ok(())).await
    }

    /// Stops the controller with SIGTERM, calls `done`, and starts the controller again.
    pub(super) async fn restart_after(self, done: impl AsyncFnOnce(&Side) -> Result<()>) -> Result<Self> {
        let Self { side, controller, folder, arguments, kubeconfig } = self;
        controller.stop()?;
        done(&side).await?;
        let controller = run(&kubeconfig, &folder, &arguments).await?;
        Ok(Self { side, controller, folder, arguments, kubeconfig })
    }
}

async fn certificate(controller: &Controller) -> Result<Certificate> {
    Ok(Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?)
}

async fn run(kubeconfig: &Path, folder: &TempDir, arguments: &[String]) -> Result<Controller> {
    let mut options = ControllerOptions::new(kubeconfig, folder.path());
    options.arguments = arguments.to_vec();
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    Ok(controller)
}
