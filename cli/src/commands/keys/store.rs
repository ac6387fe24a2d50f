//! Key Secrets in the cluster.
//!
//! # Caveats
//! The buffers of the HTTP client hold values for a moment, and are not wiped.

use anyhow::Context;
use crds::names::SEALING_KEY;
use http::{Method, Request, StatusCode, header};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, PartialObjectMeta};
use kube::{Api, Client, ResourceExt as _};
use serde::Deserialize;
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::secret::KeySecret;
use crate::global::Global;
use crate::output::Hint;

/// The field manager in `managedFields`.
const MANAGER: &str = "gitseal-cli";
/// The answer to a write contains metadata only, because no values are needed.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// Reads and writes the key Secrets in the controller's namespace.
pub(super) struct Store {
    client: Client,
    pub(super) namespace: String,
}

#[derive(Deserialize)]
struct List {
    items: Vec<KeySecret>,
}

impl Store {
    pub(super) async fn open(global: &Global) -> anyhow::Result<Self> {
        Ok(Self { client: global.client().await?, namespace: global.controller_namespace().to_owned() })
    }

    /// All Secrets that have the label of sealing keys, whatever its value is, and the key Secret without this label
    /// that the first releases of Sealed Secrets made.
    pub(super) async fn all(&self, prefix: &str) -> anyhow::Result<Vec<KeySecret>> {
        let selector = SEALING_KEY.replace('/', "%2F");
        let path = format!("{}?labelSelector={selector}", self.path(None));
        let text =
            self.ask(Method::GET, &path, None).await.map_err(|error| self.failed("list the sealing keys", error))?;
        let List { items: mut keys } = read(&text)?;
        if let Some(legacy) = self.get(prefix).await?
            && !legacy.metadata.labels.contains_key(SEALING_KEY)
        {
            keys.push(legacy);
        }
        Ok(keys)
    }

    /// One Secret.
    pub(super) async fn get(&self, name: &str) -> anyhow::Result<Option<KeySecret>> {
        match self.ask(Method::GET, &self.path(Some(name)), None).await {
            Ok(text) => Ok(Some(read(&text)?)),
            Err(kube::Error::Api(status)) if status.code == StatusCode::NOT_FOUND.as_u16() => Ok(None),
            Err(error) => Err(self.failed(&format!("read the Secret {name}"), error)),
        }
    }

    /// Creates a Secret; `false` when its name is taken.
    pub(super) async fn create(&self, secret: &KeySecret) -> anyhow::Result<bool> {
        let path = format!("{}?fieldManager={MANAGER}", self.path(None));
        let body = secret.json(&self.namespace)?;
        match self.ask(Method::POST, &path, Some(("application/json", body))).await {
            Ok(_) => Ok(true),
            Err(kube::Error::Api(status)) if status.reason == "AlreadyExists" => Ok(false),
            Err(kube::Error::Api(status)) if status.code == 404 => Err(Hint::error(
                format!("there is no namespace {}", self.namespace),
                "make the namespace first, or name that of the controller with --controller-namespace",
            )),
            Err(error) => Err(self.failed(&format!("create the Secret {}", secret.metadata.name), error)),
        }
    }

    /// Sets the label [`SEALING_KEY`] to `state`, or removes it. With a `version`, this fails if the Secret has another
    /// resource version by now.
    pub(super) async fn label(&self, name: &str, state: Option<&str>, version: Option<&str>) -> anyhow::Result<()> {
        let mut patch = json!({ "metadata": { "labels": { SEALING_KEY: state } } });
        if let Some(version) = version {
            patch["metadata"]["resourceVersion"] = version.into();
        }
        let path = format!("{}?fieldManager={MANAGER}", self.path(Some(name)));
        let body = Zeroizing::new(Value::to_string(&patch));
        let answer = self.ask(Method::PATCH, &path, Some(("application/merge-patch+json", body))).await;
        answer.map(drop).map_err(|error| self.failed(&format!("label the Secret {name}"), error))
    }

    fn path(&self, name: Option<&str>) -> String {
        let path = format!("/api/v1/namespaces/{}/secrets", self.namespace);
        name.map_or_else(|| path.clone(), |name| format!("{path}/{name}"))
    }

    async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Option<(&str, Zeroizing<String>)>,
    ) -> Result<Zeroizing<String>, kube::Error> {
        let mut request = Request::builder().method(method).uri(path);
        let mut bytes = Vec::new();
        if let Some((content_type, body)) = body {
            request = request.header(header::CONTENT_TYPE, content_type).header(header::ACCEPT, METADATA_ONLY);
            bytes = body.as_bytes().to_vec();
        }
        let request = request.body(bytes).map_err(kube::Error::HttpError)?;
        self.client.request_text(request).await.map(Zeroizing::new)
    }

    fn failed(&self, what: &str, error: kube::Error) -> anyhow::Error {
        let what = format!("cannot {what} in namespace {}", self.namespace);
        // If a Secret is refused, the text of the API server, a policy or a webhook may quote values. The API server
        // reports a missing right before it reads the Secret, so the text of such a report is safe.
        let error = match error {
            kube::Error::Api(mut status) if !is_about_rights(&status.message) => {
                status.message = format!("the API server refused the Secret ({})", status.code);
                status.reason = String::new();
                status.details = None;
                kube::Error::Api(status)
            }
            error => error,
        };
        let is_forbidden = matches!(&error, kube::Error::Api(status) if status.code == StatusCode::FORBIDDEN.as_u16());
        let error = anyhow::Error::new(error);
        if is_forbidden {
            return error.context(Hint::new(
                what,
                "docs/keys.md names the rights that are needed; set --controller-namespace to the namespace of the \
                 keys",
            ));
        }
        error.context(what)
    }
}

fn is_about_rights(message: &str) -> bool {
    let said_by_others = ["admission webhook", "ValidatingAdmissionPolicy"];
    message.contains("is forbidden: User \"") && !said_by_others.iter().any(|name| message.contains(name))
}

/// Parses an answer. The parser's own message may quote a value.
fn read<T: for<'de> Deserialize<'de>>(text: &str) -> anyhow::Result<T> {
    serde_json::from_str(text).ok().context("the API server's answer is not the requested object")
}

/// The names of the keys in use. Only their metadata is read.
pub(super) async fn names(client: &Client, global: &Global, _: &str) -> anyhow::Result<Vec<String>> {
    let secrets = Api::<Secret>::namespaced(client.clone(), global.controller_namespace());
    let in_use = ListParams::default().labels(&format!("{SEALING_KEY} in (active,compromised)"));
    Ok(secrets.list_metadata(&in_use).await?.items.iter().map(PartialObjectMeta::name_any).collect())
}

/// Checks a text that becomes a part of a URL and the name of a Secret.
pub(super) fn name(text: &str) -> Result<String, String> {
    let is_name = (1..=253).contains(&text.len())
        && text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'-' | b'.'));
    if is_name { Ok(text.to_owned()) } else { Err("a Secret's name has small letters, digits, `-` and `.`".into()) }
}
