//! A controller of a test's own, with flags of its own: it has its sealing key and its lease in the test's namespace.

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

/// The controller, and the namespace that it is in.
pub(super) struct Own {
    pub(super) side: Side,
    pub(super) controller: Controller,
    folder: TempDir,
    arguments: Vec<String>,
    kubeconfig: PathBuf,
}

/// A plane without a controller: each test has its own, and none may serve the namespaces of others.
pub(super) async fn plane() -> Result<&'static Plane> {
    static SHARED: OnceCell<Plane> = OnceCell::const_new();
    let options = ClusterOptions { controller_manager: false, audit: true, ..ClusterOptions::default() };
    SHARED.get_or_try_init(|| Plane::without_controller(options)).await
}

impl Own {
    /// Starts it with these arguments, in the namespace of a new scene.
    pub(super) async fn start(name: &str, arguments: &[&str]) -> Result<Self> {
        let plane = plane().await?;
        let scene = Scene::on(plane, name, ServerOptions::default()).await?;
        Self::start_in(scene, plane.cluster.kubeconfig().to_owned(), arguments).await
    }

    /// Starts it with these arguments, in the namespace of this scene, as the user of this kubeconfig.
    pub(super) async fn start_in(scene: Scene, kubeconfig: PathBuf, arguments: &[&str]) -> Result<Self> {
        let own = format!("--namespace={}", scene.namespace);
        let fixed = ["--key-size=2048", &own].into_iter();
        let arguments: Vec<String> = fixed.chain(arguments.iter().copied()).map(str::to_owned).collect();
        let folder = tempfile::tempdir()?;
        let controller = run(&kubeconfig, &folder, &arguments).await?;
        let certificate = certificate(&controller).await?;
        Ok(Self { side: Side { scene, certificate }, controller, folder, arguments, kubeconfig })
    }

    /// Another namespace that it serves.
    pub(super) async fn beside(&self, scene: Scene) -> Result<Side> {
        Ok(Side { scene, certificate: certificate(&self.controller).await? })
    }

    /// Ends it in order, and starts it once more.
    pub(super) async fn restart(self) -> Result<Self> {
        self.restart_after(async |_| Ok(())).await
    }

    /// Ends it in order, and starts it once more when that has been done.
    pub(super) async fn restart_after(self, done: impl AsyncFnOnce(&Side) -> Result<()>) -> Result<Self> {
        let Self { side, controller, folder, arguments, kubeconfig } = self;
        controller.stop()?;
        done(&side).await?;
        let controller = run(&kubeconfig, &folder, &arguments).await?;
        Ok(Self { side, controller, folder, arguments, kubeconfig })
    }

    /// The value of a metric with these labels; none while it has none.
    pub(super) async fn metric(&self, name_and_labels: &str) -> Result<Option<f64>> {
        let text = self.controller.fetch("/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(name_and_labels));
        Ok(value.map(|value| value.trim().parse()).transpose()?)
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
