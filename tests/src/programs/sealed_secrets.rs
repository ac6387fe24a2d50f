//! The Sealed Secrets project's own controller.

use std::{fs, net::Ipv4Addr, path::PathBuf, process::Command, time::Duration};

use anyhow::{Context, Result, bail};
use k8s_openapi::api::{
    authentication::v1::{TokenRequest, TokenRequestSpec},
    core::v1::ServiceAccount,
};
use kube::{Api, api::PostParams};
use localcluster::{ChildGuard, Output, ReservedPort, spawn_supervised};
use serde_json::json;

use super::http_get;
use crate::{Plane, kubernetes, wait::LIMIT};

/// Where a program in a cluster finds its credentials. The Sealed Secrets controller looks nowhere else.
const IDENTITY: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// The Sealed Secrets project's own controller, running with a test's control plane. Its rate limit for API requests is set
/// so high that it has no effect.
///
/// It runs only if its service account's files are where they are in a Pod. So it gets its own mount namespace, in which
/// these files exist.
pub struct SealedSecretsController {
    child: ChildGuard,
    port: u16,
    metrics: (Ipv4Addr, u16),
    certificate: String,
    log: PathBuf,
}

impl SealedSecretsController {
    /// Starts the controller on loopback, and waits until it serves its certificate.
    ///
    /// # Errors
    /// The call also fails if the kernel does not let this user make namespaces. To find out, run `unshare --mount
    /// --map-root-user true`.
    pub async fn start(plane: &Plane) -> Result<Self> {
        Self::start_on(plane, Ipv4Addr::LOCALHOST, &[]).await
    }

    /// Starts the controller on an address, with additional arguments, and waits until it serves its certificate.
    ///
    /// # Errors
    /// See [`SealedSecretsController::start`].
    pub async fn start_on(plane: &Plane, address: Ipv4Addr, arguments: &[&str]) -> Result<Self> {
        let free = [ReservedPort::new()?, ReservedPort::new()?];
        Self::start_at(plane, address, free.each_ref().map(ReservedPort::number), arguments).await
    }

    /// Starts the controller on an address, with ports for HTTP and metrics, and waits until it serves its certificate.
    ///
    /// # Errors
    /// See [`SealedSecretsController::start`].
    pub async fn start_at(
        plane: &Plane,
        address: Ipv4Addr,
        [port, metrics]: [u16; 2],
        arguments: &[&str],
    ) -> Result<Self> {
        let program = tokio::task::spawn_blocking(localcluster::parts::sealed_secrets_controller).await??;
        let identity = identity(plane).await?;
        let (host, api_port) = plane
            .cluster
            .url()
            .strip_prefix("https://")
            .and_then(|address| address.rsplit_once(':'))
            .context("the plane's URL has a host and a port")?;
        // Each run has its own log, because its address or port is different.
        let log = plane.folder().join(format!("sealed-secrets-{address}-{port}.log"));
        let script = format!(
            "mount -t tmpfs none /var/run && mkdir -p {IDENTITY} && cp \"$1\"/* {IDENTITY}/ && shift && exec \"$@\""
        );
        let mut command = Command::new("unshare");
        command
            .args(["--mount", "--map-root-user", "sh", "-c", &script, "sh"])
            .arg(identity)
            .arg(program)
            .env("KUBERNETES_SERVICE_HOST", host)
            .env("KUBERNETES_SERVICE_PORT", api_port)
            .env("POD_NAMESPACE", "kube-system")
            .args(["--kubeclient-qps=100000", "--kubeclient-burst=100000"])
            .arg(format!("--listen-addr={address}:{port}"))
            .arg(format!("--listen-metrics-addr={address}:{metrics}"))
            .args(arguments);
        let mut child = spawn_supervised(&command, Output::Log(log.clone()))?;
        let start = std::time::Instant::now();
        loop {
            if let Some(code) = child.try_wait()? {
                bail!("it ended with {code}:\n{}", fs::read_to_string(&log).unwrap_or_default());
            }
            match http_get(address, port, "/v1/cert.pem").await {
                Ok((200, certificate)) => {
                    let metrics = (address, metrics);
                    return Ok(Self { child, port, metrics, certificate, log });
                }
                answer if start.elapsed() > LIMIT => bail!("no certificate: {answer:?}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Its newest certificate, PEM.
    pub fn certificate(&self) -> &str {
        &self.certificate
    }

    /// Everything that the controller logged in this run.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Ends the controller with SIGTERM, as Kubernetes ends a Pod.
    pub fn stop(self) -> Result<()> {
        self.child.terminate(LIMIT)?;
        Ok(())
    }

    /// Port of the controller's HTTP endpoints.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The controller's metrics, in the text format of Prometheus.
    pub async fn metrics(&self) -> Result<String> {
        let (address, port) = self.metrics;
        match http_get(address, port, "/metrics").await? {
            (200, body) => Ok(body),
            (code, body) => bail!("/metrics answered {code}: {body}"),
        }
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.child.pid()
    }
}

/// A folder with the files of a service account that has all rights.
async fn identity(plane: &Plane) -> Result<PathBuf> {
    const NAME: &str = "sealed-secrets-controller";
    const NAMESPACE: &str = "kube-system";
    let client = plane.cluster.client().await?;
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": NAME}});
    kubernetes::apply(&client, NAMESPACE, account).await?;
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": NAME},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"kind": "ServiceAccount", "name": NAME, "namespace": NAMESPACE}],
    });
    kubernetes::apply_cluster_wide(&client, binding).await?;
    let wanted = TokenRequest {
        spec: TokenRequestSpec { expiration_seconds: Some(6 * 3600), ..TokenRequestSpec::default() },
        ..TokenRequest::default()
    };
    let token = Api::<ServiceAccount>::namespaced(client, NAMESPACE)
        .create_token_request(NAME, &PostParams::default(), &wanted)
        .await?
        .status
        .context("the API server gives a token")?
        .token;
    let folder = plane.folder().join("service-account");
    fs::create_dir_all(&folder)?;
    for (name, content) in [("token", token.as_str()), ("ca.crt", plane.cluster.ca_pem()), ("namespace", NAMESPACE)] {
        fs::write(folder.join(name), content)?;
    }
    Ok(folder)
}
