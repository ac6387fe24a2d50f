//! Requests to the controller, in the manner of kubeseal: through the API server, by the name of the Service's first port.

use std::time::Duration;

use anyhow::{Context, bail};
use http::{Method, Request, StatusCode, header};
use kube::{Client, client::Body};
use serde_json::Value;

use super::ClusterFlags;
use crate::kubeseal::flags::Flags;
use crate::service_proxy::{proxy_path, service_path};

/// How often a request is made again that was put off (`Retry-After`), as the client library of kubeseal does.
const MOST_RETRIES: usize = 10;

/// The controller's Service.
pub(in crate::kubeseal) struct Controller {
    client: Client,
    /// Path before `/v1/…`.
    base: String,
}

/// What the controller, or the API server before it, answered.
pub(in crate::kubeseal) struct Answer {
    pub(in crate::kubeseal) status: StatusCode,
    pub(in crate::kubeseal) body: Vec<u8>,
}

impl Controller {
    /// Finds the Service.
    ///
    /// # Errors
    /// There is no cluster, or no such Service in it.
    pub(in crate::kubeseal) async fn find(flags: &Flags) -> anyhow::Result<Self> {
        let config = ClusterFlags::new(flags).config().await?;
        let client = apiclient::for_people(config).context("cannot set up the connection to the cluster")?;
        let (namespace, name) = (flags.text("controller-namespace"), flags.text("controller-name"));
        let port = first_port(&client, namespace, name).await.map_err(|error| {
            anyhow::anyhow!(
                "cannot get sealed secret service: {}.\nPlease, use the flag --controller-name and \
                 --controller-namespace to set up the name and namespace of the sealed secrets controller",
                crate::output::one_line(&error)
            )
        })?;
        Ok(Self { client, base: proxy_path(namespace, name, &port) })
    }

    /// Reads a resource of the controller.
    pub(in crate::kubeseal) async fn get(&self, path: &str, accept: &str) -> anyhow::Result<Answer> {
        self.send(&Method::GET, path, accept, None).await
    }

    /// Sends JSON to the controller.
    pub(in crate::kubeseal) async fn post(&self, path: &str, body: &str) -> anyhow::Result<Answer> {
        self.send(&Method::POST, path, "application/json, */*", Some(body)).await
    }

    async fn send(&self, method: &Method, path: &str, accept: &str, body: Option<&str>) -> anyhow::Result<Answer> {
        send(&self.client, method, &format!("{}{path}", self.base), accept, body).await
    }
}

impl Answer {
    /// What is wrong, if something is: the message of a Kubernetes status, else the first line of the body.
    pub(in crate::kubeseal) fn failure(&self) -> Option<String> {
        if self.status.is_success() {
            return None;
        }
        let status = serde_json::from_slice::<Value>(&self.body).ok().filter(|status| status["kind"] == "Status");
        let message = status.and_then(|status| status["message"].as_str().map(str::to_owned));
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().next().unwrap_or_default().trim();
        Some(match message.filter(|message| !message.is_empty()) {
            Some(message) => message,
            None if line.is_empty() => format!("the server answered {}", self.status),
            None => format!("the server answered {} ({line:?})", self.status),
        })
    }
}

async fn first_port(client: &Client, namespace: &str, name: &str) -> anyhow::Result<String> {
    let path = service_path(namespace, name);
    let answer = send(client, &Method::GET, &path, "application/json", None).await?;
    if let Some(failure) = answer.failure() {
        bail!(failure);
    }
    let service: Value = serde_json::from_slice(&answer.body).context("the Service is no JSON")?;
    let ports = service["spec"]["ports"].as_array().filter(|ports| !ports.is_empty());
    let ports = ports.with_context(|| format!("the service {namespace}/{name} has no ports"))?;
    Ok(ports[0]["name"].as_str().unwrap_or_default().to_owned())
}

async fn send(
    client: &Client,
    method: &Method,
    path: &str,
    accept: &str,
    body: Option<&str>,
) -> anyhow::Result<Answer> {
    for retries_left in (0..=MOST_RETRIES).rev() {
        let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        let body = body.unwrap_or_default().as_bytes().to_vec();
        let response = client.send(request.body(Body::from(body))?).await?;
        let status = response.status();
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let is_put_off = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        if let (Some(seconds), true, true) = (wait, is_put_off, retries_left > 0) {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
            continue;
        }
        let body = response.into_body().collect_bytes().await?.to_vec();
        return Ok(Answer { status, body });
    }
    bail!("no answer after {MOST_RETRIES} retries")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_is_told_by_its_status_or_its_body() {
        let failure = |status, body: &str| Answer { status, body: body.as_bytes().to_vec() }.failure();
        assert_eq!(failure(StatusCode::OK, "x"), None);
        let status = r#"{"kind": "Status", "message": "services \"x\" not found"}"#;
        assert_eq!(failure(StatusCode::NOT_FOUND, status).unwrap(), "services \"x\" not found");
        let text = failure(StatusCode::CONFLICT, "no\nway").unwrap();
        assert_eq!(text, "the server answered 409 Conflict (\"no\")");
        assert_eq!(failure(StatusCode::BAD_GATEWAY, "").unwrap(), "the server answered 502 Bad Gateway");
    }
}
