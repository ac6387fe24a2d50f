//! The real kubeseal and `gitseal` reach both controllers through the API server's service proxy.
//!
//! Each test runs a control plane in its own network namespace. There, the proxy can reach programs of this machine.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{
    Plane, eventually, kubernetes, network,
    programs::{self, Controller, ControllerOptions, SealedSecretsController},
    scene::contains,
    service,
};
use localcluster::{ClusterOptions, parts};
use serde_json::{Value, json};

use crate::cli::Said;

mod kubeseal;
mod limits;
mod oracle;
mod ours;
mod theirs;

/// Arguments for either controller that raise its rate limit so far that tests do not reach it.
const UNLIMITED: [&str; 2] = ["--rate-limit=100000", "--rate-limit-burst=100000"];

/// A control plane whose Service `sealed-secrets-controller` leads to `controller`.
struct Proxied<C> {
    // Rust drops the fields in this order, so the controller ends before its control plane.
    controller: C,
    plane: Plane,
}

impl Proxied<Controller> {
    /// Our controller behind the Service.
    async fn ours(arguments: &[&str]) -> Result<Self> {
        let plane = Plane::without_controller(ClusterOptions::default()).await?;
        let folder = plane.folder();
        let mut options =
            ControllerOptions { address: network::POD, ..ControllerOptions::new(plane.cluster.kubeconfig(), &folder) };
        options.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut controller = Controller::start(&options)?;
        controller.ready().await?;
        service::lead_to(&plane.cluster.client().await?, controller.port).await?;
        Ok(Self { controller, plane })
    }
}

impl Proxied<SealedSecretsController> {
    /// The real Sealed Secrets controller behind the Service.
    async fn theirs(arguments: &[&str]) -> Result<Self> {
        let plane = Plane::without_controller(ClusterOptions::default()).await?;
        let arguments = [&["--key-size=2048"], arguments].concat();
        let controller = SealedSecretsController::start_on(&plane, network::POD, &arguments).await?;
        service::lead_to(&plane.cluster.client().await?, controller.port()).await?;
        Ok(Self { controller, plane })
    }
}

impl<C> Proxied<C> {
    /// Runs the real kubeseal with only a kubeconfig.
    fn kubeseal(&self, arguments: &[&str], input: &str) -> Result<Said> {
        kubeseal(&self.plane, arguments, input)
    }

    /// Runs gitseal with only a kubeconfig.
    fn gitseal(&self, arguments: &[&str], input: &str) -> Result<Said> {
        said(programs::gitseal(self.plane.cluster.kubeconfig())?.args(arguments), input)
    }

    /// Posts an object to an endpoint of the controller. Returns the status and the body of the answer.
    async fn post(&self, endpoint: &str, object: &Value) -> Result<(u16, String)> {
        let service = format!("/api/v1/namespaces/{}/services/http:{}:http", service::NAMESPACE, service::CONTROLLER);
        let request = http::Request::post(format!("{service}/proxy{endpoint}"))
            .header("content-type", "application/json")
            .body(object.to_string().into_bytes().into())?;
        let answer = self.plane.cluster.client().await?.send(request).await?;
        let status = answer.status().as_u16();
        let body = answer.into_body().collect_bytes().await?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }

    /// Applies a SealedSecret in the namespace `default`, and waits until its Secret has this value.
    async fn unseals(&self, sealed: &str, value: &str) -> Result<()> {
        let client = self.plane.cluster.client().await?;
        let sealed: Value = serde_json::from_str(sealed).with_context(|| sealed.to_owned())?;
        let name = sealed["metadata"]["name"].as_str().context("a name")?.to_owned();
        kubernetes::apply(&client, "default", sealed).await?;
        let secrets = kubernetes::objects(&client, "default", "v1", "Secret");
        let wanted = json!({"data": {"password": STANDARD.encode(value)}});
        eventually(&format!("Secret {name}"), || async {
            let found = serde_json::to_value(secrets.get(&name).await?)?;
            if contains(&found, &wanted) { Ok(()) } else { bail!("{found:#}") }
        })
        .await
    }
}

/// Runs the real kubeseal with only a kubeconfig.
pub(crate) fn kubeseal(plane: &Plane, arguments: &[&str], input: &str) -> Result<Said> {
    let mut command = Command::new(parts::kubeseal()?);
    command.env("KUBECONFIG", plane.cluster.kubeconfig());
    said(command.args(arguments), input)
}

/// Runs a command to its end with this standard input.
fn said(command: &mut Command, input: &str) -> Result<Said> {
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("{command:?}"))?;
    // A command that does not read its whole input may end before the whole input is written.
    let _ = child.stdin.take().context("standard input")?.write_all(input.as_bytes());
    Ok(child.wait_with_output()?.into())
}

/// A plaintext Secret in the namespace `default` with these values.
fn secret(name: &str, values: &[(&str, &str)]) -> Value {
    let values: Value = values.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
        "stringData": values,
    })
}
