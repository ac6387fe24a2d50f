//! The controller's HTTP endpoints, for the command line.

use anyhow::Context;
use crds::endpoints::{KeyReport, Which, WhichItem};
use http::StatusCode;
use sealing::Certificate;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::global::Global;
use crate::output::Hint;
use crate::service_proxy::{Patience, ServiceProxy, remedy};

/// The most bytes of a request. The controller accepts twice as many.
const BATCH_BYTES: usize = 4 << 20;
/// The most values of a request. The controller accepts more, but might not have the time to unseal them all.
const BATCH_VALUES: usize = 500;
/// In the controller's answers, the name of the single value of a SealedSecret in the deprecated form `spec.data`.
const WHOLE: &str = "spec.data";

/// The address of the controller, if it is not reached through its Service.
#[derive(clap::Args)]
pub struct ControllerAddress {
    /// Ask the controller at this http(s) URL instead of through the API server
    #[arg(long, value_name = "URL", env = "GITSEAL_CONTROLLER_URL")]
    pub controller_url: Option<String>,
}

/// A connection to the controller's HTTP endpoints.
pub struct Controller {
    proxy: ServiceProxy,
    /// What messages call the controller: its URL or its Service.
    name: String,
}

/// Why a request to the controller failed.
pub enum Refused {
    /// The controller does not have the endpoint.
    Unknown,
    /// The controller answered with this status (4xx, 5xx) and text.
    Status(u16, String),
    /// The controller cannot give the answer yet: it has just started, or needs more time than one answer may take.
    NotYet(String),
    /// The controller did not answer.
    Failed(anyhow::Error),
}

impl Controller {
    /// Finds the controller: at the URL, or else, as kubeseal does, through the API server's proxy at the first port of
    /// its Service.
    ///
    /// # Errors
    /// There is no such Service, or it cannot be read. That the controller does not run is noticed only at the first
    /// request.
    pub async fn find(address: &ControllerAddress, global: &Global) -> anyhow::Result<Self> {
        if let Some(url) = &address.controller_url {
            let proxy = ServiceProxy::at(url).with_context(|| {
                Hint::new(format!("{url} is not a URL"), "give an address such as http://127.0.0.1:8080")
            })?;
            return Ok(Self { proxy, name: url.clone() });
        }
        let (namespace, service) = (global.controller_namespace(), global.controller_name());
        let name = format!("service {namespace}/{service}");
        let client = global.client_without_retries().await?;
        let proxy = ServiceProxy::find(client, namespace, service, Patience::default()).await.map_err(|error| {
            let of_name = "name it with --controller-namespace and --controller-name, or by --controller-url";
            let hint = remedy(&error, of_name);
            error.context(Hint::new(format!("cannot find the controller ({name})"), hint))
        })?;
        Ok(Self { proxy, name })
    }

    /// The sealing keys, each with the number of values in the cluster's SealedSecrets that only this key unseals.
    pub async fn keys(&self) -> anyhow::Result<KeyReport> {
        self.json("/v1/keys", None).await.map_err(|refused| self.error("/v1/keys", refused))
    }

    /// The certificate of the newest sealing key.
    pub async fn certificate(&self) -> anyhow::Result<Certificate> {
        let pem = self.ask("/v1/cert.pem", None).await.map_err(|refused| self.error("/v1/cert.pem", refused))?;
        Certificate::from_pem(&pem).with_context(|| format!("{} holds no usable certificate", self.name))
    }

    /// Which key sealed which value of these SealedSecrets, in their order. One request contains many SealedSecrets.
    pub async fn which(&self, sealed: &[Value]) -> Result<Which, Refused> {
        let mut answer = Which::default();
        for Batch { items, count, .. } in batches(sealed)? {
            let body = list(&items);
            let part: Which = self.json("/v1/which", Some(&body)).await?;
            if part.items.len() != count {
                return Err(Refused::Failed(anyhow::anyhow!(
                    "{} answered for {} of {count} SealedSecrets",
                    self.name,
                    part.items.len()
                )));
            }
            answer.newest = part.newest;
            answer.items.extend(part.items);
        }
        Ok(answer)
    }

    /// The SealedSecret with its values sealed with the newest key.
    pub async fn rotate(&self, sealed: &Value) -> Result<Value, Refused> {
        let body = serde_json::to_vec(sealed).map_err(|error| Refused::Failed(error.into()))?;
        self.json("/v1/rotate", Some(&body)).await
    }

    /// Whether every value of a SealedSecret can be unsealed.
    pub async fn verify(&self, sealed: &Value) -> Result<bool, Refused> {
        let body = serde_json::to_vec(sealed).map_err(|error| Refused::Failed(error.into()))?;
        match self.ask("/v1/verify", Some(&body)).await {
            Ok(_) => Ok(true),
            Err(Refused::Status(409, _)) => Ok(false),
            Err(refused) => Err(refused),
        }
    }

    /// The error for the user if a request to `path` failed.
    pub fn error(&self, path: &str, refused: Refused) -> anyhow::Error {
        let what = format!("cannot ask the controller ({}) for {path}", self.name);
        match refused {
            Refused::Unknown => Hint::error(
                format!("the controller ({}) has no {path}", self.name),
                "it is a Sealed Secrets controller or an older gitseal; gitseal-controller has this endpoint since \
                 version 0.1",
            ),
            Refused::Status(code, text) => {
                anyhow::anyhow!("the controller answered {code}: {text}").context(Hint::new(
                    what,
                    "is the controller running? its log says more; --controller-url asks it without the API server",
                ))
            }
            Refused::NotYet(text) => anyhow::anyhow!("the controller answered: {text}").context(Hint::new(
                what,
                "try \
                again later",
            )),
            Refused::Failed(error) => error.context(Hint::new(
                what,
                "name the controller with --controller-namespace and --controller-name, or by --controller-url",
            )),
        }
    }

    async fn json<T: DeserializeOwned>(&self, path: &str, body: Option<&[u8]>) -> Result<T, Refused> {
        let answer = self.ask(path, body).await?;
        serde_json::from_slice(&answer)
            .map_err(|_| Refused::Failed(anyhow::anyhow!("the controller's answer to the request {path} is not valid")))
    }

    /// Sends a GET, or a POST with JSON.
    async fn ask(&self, path: &str, body: Option<&[u8]>) -> Result<Vec<u8>, Refused> {
        let answer = match body {
            Some(body) => self.proxy.post(path, body).await,
            None => self.proxy.get(path).await,
        };
        let answer = answer.map_err(Refused::Failed)?;
        match answer.status {
            status if status.is_success() => answer.body().map_err(Refused::Failed),
            StatusCode::NOT_FOUND => Err(Refused::Unknown),
            StatusCode::SERVICE_UNAVAILABLE if answer.is_put_off => Err(Refused::NotYet(answer.message())),
            status => Err(Refused::Status(status.as_u16(), answer.message())),
        }
    }
}

/// The fingerprint of the sealing key that sealed a value. `key` is the value's key in `encryptedData`, or `None` for
/// `spec.data`. Returns `None` if no sealing key unseals the value.
pub fn sealed_with<'w>(which: &'w WhichItem, key: Option<&str>) -> Option<&'w str> {
    which.values.get(key.unwrap_or(WHOLE))?.as_deref()
}

/// The part of a SealedSecret that the controller needs to try to unseal its values: no template, no status.
pub fn to_ask(namespace: &str, name: &str, annotations: Option<&Value>, spec: Value) -> Value {
    let mut metadata = json!({ "namespace": namespace, "name": name });
    if let Some(annotations) = annotations {
        metadata["annotations"] = annotations.clone();
    }
    json!({ "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": metadata, "spec": spec })
}

/// The objects of one request.
struct Batch {
    /// The objects as JSON, joined by commas.
    items: Vec<u8>,
    count: usize,
    values: usize,
}

/// The objects in order, divided into requests that have as many objects as a request may have.
fn batches(objects: &[Value]) -> Result<Vec<Batch>, Refused> {
    let mut batches: Vec<Batch> = Vec::new();
    for object in objects {
        let text = serde_json::to_vec(object).map_err(|error| Refused::Failed(error.into()))?;
        let encrypted = object.get("spec").and_then(|spec| spec.get("encryptedData")?.as_object());
        let values = encrypted.map_or(1, |values| values.len().max(1));
        match batches.last_mut() {
            Some(batch) if batch.items.len() + text.len() < BATCH_BYTES && batch.values + values <= BATCH_VALUES => {
                batch.items.push(b',');
                batch.items.extend(text);
                batch.count += 1;
                batch.values += values;
            }
            _ => batches.push(Batch { items: text, count: 1, values }),
        }
    }
    // Even without objects there is one request, because its answer names the newest key.
    if batches.is_empty() {
        batches.push(Batch { items: Vec::new(), count: 0, values: 0 });
    }
    Ok(batches)
}

fn list(items: &[u8]) -> Vec<u8> {
    [br#"{"apiVersion":"v1","kind":"List","items":["#, items, b"]}"].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_hold_every_object_once_and_in_order() {
        let objects: Vec<Value> = (0..30).map(|n| json!({ "n": n, "text": "x".repeat(BATCH_BYTES / 7) })).collect();
        let batches = batches(&objects).ok().unwrap();
        assert!(batches.len() > 1 && batches.iter().all(|batch| batch.items.len() <= BATCH_BYTES));
        let mut all = Vec::new();
        for batch in &batches {
            let read: Value = serde_json::from_slice(&list(&batch.items)).unwrap();
            assert_eq!(read["items"].as_array().unwrap().len(), batch.count);
            all.extend(read["items"].as_array().unwrap().clone());
        }
        assert_eq!(all, objects);
        let values: serde_json::Map<_, _> = (0..200).map(|n| (n.to_string(), Value::from("x"))).collect();
        let objects = vec![json!({ "spec": { "encryptedData": values } }); 5];
        let batches = super::batches(&objects).ok().unwrap();
        assert_eq!(batches.iter().map(|batch| batch.count).collect::<Vec<_>>(), [2, 2, 1]);
    }
}
