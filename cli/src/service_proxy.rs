//! Reaches the controller through the API server's service proxy, at the first port of the controller's Service: one
//! client for `gitseal` and for kubeseal.
//!
//! # Guarantees
//! - If an answer asks to try again later (`Retry-After`, with 429 or 5xx), the request is sent again, for as long as
//!   [`Patience`] says.
//! - Nothing else is tried again: a Service without a running controller answers 503 at once, and this is reported.
//! - Redirects are not followed, so nobody in a cluster can lead a request elsewhere.

use std::time::Duration;

use anyhow::Context;
use http::{Method, Request, StatusCode, header};
use kube::{Client, Config, client::Body, core::Status};
use pipeline::escape_segment;
use serde_json::Value;
use tokio::time::{Instant, sleep, timeout};

/// How long an answer may take: trying all keys on thousands of values takes a while.
const LONGEST: Duration = Duration::from_secs(120);

/// How often, or for how long, a request is sent again.
#[derive(Clone, Copy, Debug)]
pub enum Patience {
    /// This many times, as in kubeseal's client library.
    Times(u32),
    /// For this long, which is also how long one answer may take.
    Time(Duration),
}

impl Default for Patience {
    fn default() -> Self {
        Self::Time(LONGEST)
    }
}

impl Patience {
    fn for_one_answer(self) -> Duration {
        match self {
            Self::Times(_) => LONGEST,
            Self::Time(longest) => longest,
        }
    }
}

/// The controller's endpoints.
pub struct ServiceProxy {
    client: Client,
    /// Path before `/v1/…`.
    base: String,
    patience: Patience,
}

/// The answer of the controller, or of the API server in front of the controller.
pub struct Answer {
    /// The status code.
    pub status: StatusCode,
    /// Whether the answer asks to try again later.
    pub is_put_off: bool,
    body: Vec<u8>,
}

impl ServiceProxy {
    /// The controller behind this Service. `client` must not send requests again by itself, because this type decides
    /// when a request is sent again.
    ///
    /// # Errors
    /// There is no cluster or no such Service in it, or the Service has no ports.
    pub async fn find(client: Client, namespace: &str, name: &str, patience: Patience) -> anyhow::Result<Self> {
        let api_server = Self { client, base: String::new(), patience };
        let service = api_server.send(Method::GET, &service_path(namespace, name), "application/json", None).await?;
        let service: Value = serde_json::from_slice(&service.body()?).context("the answer is not a Service in JSON")?;
        let ports = service["spec"]["ports"].as_array().filter(|ports| !ports.is_empty());
        let ports = ports.with_context(|| format!("the service {namespace}/{name} has no ports"))?;
        let base = proxy_path(namespace, name, ports[0]["name"].as_str().unwrap_or_default());
        Ok(Self { base, ..api_server })
    }

    /// A controller at a URL, without an API server in front of it.
    ///
    /// # Errors
    /// `url` is not a URL.
    pub fn at(url: &str) -> anyhow::Result<Self> {
        let mut config = Config::new(url.parse()?);
        config.default_retry = false;
        let client = apiclient::for_people(config, "the controller").context("cannot set up the connection")?;
        Ok(Self { client, base: String::new(), patience: Patience::default() })
    }

    /// Sends a GET request for `path` to the controller.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn get(&self, path: &str) -> anyhow::Result<Answer> {
        self.send(Method::GET, &format!("{}{path}", self.base), "*/*", None).await
    }

    /// Sends JSON to the controller.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn post(&self, path: &str, json: &[u8]) -> anyhow::Result<Answer> {
        self.send(Method::POST, &format!("{}{path}", self.base), "application/json, */*", Some(json)).await
    }

    async fn send(&self, method: Method, path: &str, accept: &str, json: Option<&[u8]>) -> anyhow::Result<Answer> {
        let (start, mut times) = (Instant::now(), 0);
        loop {
            let longest = self.patience.for_one_answer();
            let (answer, wait) = timeout(longest, self.send_once(method.clone(), path, accept, json))
                .await
                .with_context(|| format!("no answer within {} s", longest.as_secs_f32()))??;
            let may_wait = match self.patience {
                Patience::Times(most) => times < most,
                Patience::Time(longest) => start.elapsed() < longest,
            };
            match wait {
                Some(wait) if may_wait => sleep(wait).await,
                _ => return Ok(answer),
            }
            times += 1;
        }
    }

    /// Sends the request once. Returns the answer, and after how long to try again.
    async fn send_once(
        &self,
        method: Method,
        path: &str,
        accept: &str,
        json: Option<&[u8]>,
    ) -> anyhow::Result<(Answer, Option<Duration>)> {
        // Like the requests of kubeseal, this one has no content type.
        let request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        let body = Body::from(json.unwrap_or_default().to_vec());
        let response = self.client.send(request.body(body)?).await?;
        let status = response.status();
        let wait = response.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let is_put_off = status == StatusCode::TOO_MANY_REQUESTS || status.is_server_error();
        let wait = wait.filter(|_| is_put_off).map(Duration::from_secs);
        let body = response.into_body().collect_bytes().await?.to_vec();
        Ok((Answer { status, is_put_off: wait.is_some(), body }, wait))
    }
}

impl Answer {
    /// The body of the answer.
    ///
    /// # Errors
    /// The status is not a success: a [`kube::Error::Api`] with the message of the API server or of the controller.
    pub fn body(self) -> anyhow::Result<Vec<u8>> {
        if self.status.is_success() {
            return Ok(self.body);
        }
        let mut status = self.api_status().unwrap_or_default();
        status.code = self.status.as_u16();
        if status.message.is_empty() {
            status.message = self.failure().unwrap_or_default();
        }
        Err(kube::Error::Api(Box::new(status)).into())
    }

    /// What is wrong, if the status is not a success: the message of a Kubernetes status, or the first line of the
    /// body.
    pub fn failure(&self) -> Option<String> {
        if self.status.is_success() {
            return None;
        }
        let text = String::from_utf8_lossy(&self.body);
        let line = text.lines().next().unwrap_or_default().trim();
        Some(match self.api_status().map(|status| status.message).filter(|message| !message.is_empty()) {
            Some(message) => message,
            None if line.is_empty() => format!("the server answered {}", self.status),
            None => format!("the server answered {} ({line:?})", self.status),
        })
    }

    /// The message of a Kubernetes status, or the whole body.
    pub fn message(&self) -> String {
        let message = self.api_status().map(|status| status.message).filter(|message| !message.is_empty());
        message.unwrap_or_else(|| String::from_utf8_lossy(&self.body).trim().to_owned())
    }

    /// The Kubernetes status in the body, if the API server itself answered with one.
    fn api_status(&self) -> Option<Status> {
        let value: Value = serde_json::from_slice(&self.body).ok()?;
        let text = |field: &str| value[field].as_str().unwrap_or_default().to_owned();
        let code = self.status.as_u16();
        (value["kind"] == "Status").then(|| Status {
            message: text("message"),
            reason: text("reason"),
            code,
            ..Status::default()
        })
    }
}

/// What to do about a controller that does not answer. `of_name` is the hint for the case that the Service's name is
/// wrong, which is only one possible reason.
pub fn remedy(error: &anyhow::Error, of_name: &str) -> String {
    let code = error.chain().find_map(|cause| match cause.downcast_ref::<kube::Error>()? {
        kube::Error::Api(status) => Some(status.code),
        _ => None,
    });
    match code {
        Some(401) => {
            "the cluster does not know who you are: log in again (a token may have expired), or use another --context"
        }
        Some(403) => "you need the right to get services and services/proxy in that namespace: ask for it, or use another --context",
        Some(503) => {
            "the Service exists, but none of its Pods is ready: is the controller running? kubectl get pods shows \
            the Pods"
        }
        _ => of_name,
    }
    .to_owned()
}

/// The Service itself.
fn service_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{}/services/{}", escape_segment(namespace), escape_segment(name))
}

/// The root of the controller's HTTP endpoints, behind the API server's proxy; `port` is the name of the Service's
/// port, or empty if the port has no name.
fn proxy_path(namespace: &str, name: &str, port: &str) -> String {
    format!("{}/proxy", service_path(namespace, &format!("http:{name}:{port}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_never_answers_is_not_waited_for_longer_than_asked() {
        let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", silent.local_addr().unwrap());
        let patience = Patience::Time(Duration::from_millis(250));
        let proxy = ServiceProxy { patience, ..ServiceProxy::at(&url).unwrap() };
        let error = proxy.get("/v1/cert.pem").await.err().unwrap();
        assert!(error.to_string().starts_with("no answer within 0.25 s"), "{error:#}");
    }

    /// If another key exchange were offered first, the API server would ask to retry each handshake, which costs one more
    /// round trip.
    #[test]
    fn the_key_exchange_that_api_servers_choose_is_offered_first() {
        let first = rustls::crypto::aws_lc_rs::default_provider().kx_groups.first().map(|group| group.name());
        assert_eq!(first, Some(rustls::NamedGroup::X25519MLKEM768));
    }

    #[test]
    fn the_remedy_is_for_the_reason() {
        let of = |code: u16| {
            let status = Status { code, message: "no".into(), ..Status::default() };
            remedy(&anyhow::Error::new(kube::Error::Api(Box::new(status))).context("cannot fetch"), "name it")
        };
        assert!(of(503).contains("is the controller running") && of(401).contains("log in again"));
        assert!(of(403).contains("services/proxy"));
        assert_eq!((of(404).as_str(), remedy(&anyhow::anyhow!("no"), "name it").as_str()), ("name it", "name it"));
    }

    #[test]
    fn the_controller_is_reached_by_its_port_s_name() {
        let service = "/api/v1/namespaces/kube-system/services/sealed-secrets-controller";
        assert_eq!(service_path("kube-system", "sealed-secrets-controller"), service);
        let proxy = |port| proxy_path("kube-system", "sealed-secrets-controller", port);
        let root = "/api/v1/namespaces/kube-system/services/http:sealed-secrets-controller";
        assert_eq!(proxy("http"), format!("{root}:http/proxy"));
        assert_eq!(proxy(""), format!("{root}:/proxy"));
    }

    #[test]
    fn a_failure_is_told_by_its_status_or_its_body() {
        let answer = |status, body: &str| Answer { status, is_put_off: false, body: body.as_bytes().to_vec() };
        let failure = |status, body| answer(status, body).failure();
        assert_eq!(failure(StatusCode::OK, "x"), None);
        let status = r#"{"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": "services \"x\" not found", "reason": "NotFound", "details": {"name": "x", "kind": "services"}, "code": 404}"#;
        assert_eq!(failure(StatusCode::NOT_FOUND, status).unwrap(), "services \"x\" not found");
        let text = failure(StatusCode::CONFLICT, "no\nway").unwrap();
        assert_eq!(text, "the server answered 409 Conflict (\"no\")");
        assert_eq!(failure(StatusCode::BAD_GATEWAY, "").unwrap(), "the server answered 502 Bad Gateway");
        let error = answer(StatusCode::FORBIDDEN, "no").body().unwrap_err();
        assert!(matches!(error.downcast_ref(), Some(kube::Error::Api(status)) if status.code == 403), "{error:?}");
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(service_path("../a", "b?c#d"), "/api/v1/namespaces/..%2Fa/services/b%3Fc%23d");
    }
}
