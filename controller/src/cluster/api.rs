//! The requests to the API server that the controller needs. Each request asks the API server to answer with as little
//! as possible.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use ::fields::Managers;
use http::{HeaderValue, Method, Request, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use kube::client::Body;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};
use tokio::time::Instant;
use zeroize::Zeroizing;

use manifests::json_for_yaml;
use pipeline::{Resource, escape_segment};

use super::{
    answer::{ApiError, MetadataList, MetadataOnly, Stored, Written, transport},
    fields,
    refusal::About,
    take_over::TakesOverFrom,
};
use crate::{leader::Leadership, metrics::Metrics, passes};

/// The query string of writes to the controller's own objects. The API server need not check these for unknown fields.
const OUR_OWN: &str = "?fieldManager=gitseal-controller&fieldValidation=Ignore";

/// Makes requests to the API server, as the controller itself or as an impersonated service account.
#[derive(Clone)]
pub struct Api {
    client: kube::Client,
    acting_as: Option<HeaderValue>,
    leadership: Leadership,
    replaces_secrets: bool,
    takes_over_from: TakesOverFrom,
    metrics: Metrics,
    most_bytes: usize,
}

impl fmt::Debug for Api {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Api").field("acting_as", &self.acting_as).finish_non_exhaustive()
    }
}

impl Api {
    /// Makes requests as the controller itself. Writes are sent only while this replica is the leader; this holds also
    /// for an API that was made from this one by [`Api::acting_as`].
    pub fn new(client: kube::Client, leadership: Leadership, metrics: Metrics) -> Self {
        Self {
            client,
            acting_as: None,
            most_bytes: MOST_BYTES,
            leadership,
            replaces_secrets: false,
            takes_over_from: TakesOverFrom::default(),
            metrics,
        }
    }

    /// Says whether this replica may write.
    pub fn leadership(&self) -> &Leadership {
        &self.leadership
    }

    /// The same API, but every request is made as a service account. Characters that cannot be in the name of a service
    /// account are escaped. So a name with such characters becomes the name of no account, and the requests have no
    /// rights.
    #[must_use]
    pub fn acting_as(&self, namespace: &str, service_account: &str) -> Self {
        let user = format!("system:serviceaccount:{}:{}", escape_segment(namespace), escape_segment(service_account));
        let mut api = self.clone();
        api.replaces_secrets = false;
        api.acting_as = Some(HeaderValue::from_str(&user).expect("an escaped name is ASCII"));
        api
    }

    /// The same API for a role that may not patch Secrets: Secrets are written with get, create and update.
    #[must_use]
    pub fn without_patch_of_secrets(mut self) -> Self {
        self.replaces_secrets = true;
        self
    }

    /// The same API, with the field managers whose fields [`Api::take_over`] takes over.
    #[must_use]
    pub fn taking_over_from(mut self, managers: Managers) -> Self {
        self.takes_over_from = managers.into();
        self
    }

    /// See [`Api::taking_over_from`].
    pub(super) fn takes_over_from(&self) -> &Managers {
        &self.takes_over_from
    }

    /// Whether a Secret is written as a whole; see [`Api::without_patch_of_secrets`].
    pub fn replaces_secrets(&self) -> bool {
        self.replaces_secrets
    }

    /// Server-side apply with force, under our field manager. The body is JSON, which the API server can read as YAML.
    /// The body is wiped after it was sent.
    pub async fn apply(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<Written, ApiError> {
        if self.replaces_secrets && resource.is_secrets() {
            return self.replace_secret(resource, namespace, name, &body).await;
        }
        let (status, object) = self.send_apply::<MetadataOnly>(resource, namespace, name, METADATA_ONLY, body).await?;
        Ok(Written::of(resource, &object.metadata, status == http::StatusCode::CREATED))
    }

    /// Like [`Api::apply`], for a kind that contains no secrets. Also returns the stored annotations, and the stored
    /// spec if it can be parsed.
    pub async fn apply_spec<S: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<(Written, Option<(BTreeMap<String, String>, S)>), ApiError> {
        let (status, mut object) = self.send_apply::<Stored>(resource, namespace, name, JSON, body).await?;
        let annotations = object.metadata.annotations.take().unwrap_or_default();
        let spec = serde_json::from_value(object.spec).ok();
        let applied = Written::of(resource, &object.metadata, status == http::StatusCode::CREATED);
        Ok((applied, spec.map(|spec| (annotations, spec))))
    }

    /// Sends an apply. The Accept header `accept` decides whether the answer contains the whole object or only its
    /// metadata.
    async fn send_apply<T: DeserializeOwned>(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        accept: &'static str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<(http::StatusCode, T), ApiError> {
        let path = format!(
            "{}?fieldManager={}&force=true&fieldValidation=Strict",
            resource.path(namespace, Some(name)),
            crds::FIELD_MANAGER
        );
        self.send(Method::PATCH, &path, APPLY, accept, json_for_yaml(body)).await
    }

    /// Asks what the identity of this API may do. `body` is a SelfSubjectAccessReview in JSON; the result is its
    /// status.
    pub async fn review(&self, body: Zeroizing<Vec<u8>>) -> Result<Value, ApiError> {
        const PATH: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
        Ok(self.send(Method::POST, PATH, JSON, JSON, body).await?.1)
    }

    /// The same, but an answer with more bytes is an error.
    pub fn reading_at_most(mut self, bytes: usize) -> Self {
        self.most_bytes = bytes;
        self
    }

    /// Name of the user that requests are made as; `None` for the controller itself.
    pub fn user(&self) -> Option<&str> {
        self.acting_as.as_ref().and_then(|user| user.to_str().ok())
    }

    /// Replaces the status of the object if its resource version still is `version`. The status is not patched, because
    /// the roles of Sealed Secrets do not allow that.
    pub async fn replace_status(
        &self,
        resource: &Resource,
        namespace: &str,
        name: &str,
        version: Option<&str>,
        status: &Value,
    ) -> Result<ObjectMeta, ApiError> {
        let path = format!("{}/status{OUR_OWN}", resource.path(Some(namespace), Some(name)));
        let object = json!({
            "apiVersion": resource.api_version(), "kind": resource.kind, "status": status,
            "metadata": {"namespace": namespace, "name": name, "resourceVersion": version},
        });
        let body = Zeroizing::new(object.to_string().into_bytes());
        Ok(self.send_json::<MetadataOnly>(Method::PUT, &path, body).await?.1.metadata)
    }

    /// Sends a JSON body, which is wiped afterwards. The answer contains only metadata.
    pub(super) async fn send_json<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<(http::StatusCode, T), ApiError> {
        self.send(method, path, JSON, METADATA_ONLY, body).await
    }

    /// The whole object.
    pub async fn get(&self, resource: &Resource, namespace: Option<&str>, name: &str) -> Result<Value, ApiError> {
        self.read(&resource.path(namespace, Some(name))).await
    }

    /// The object at `version` or later. The API server answers this from memory, without asking its store. Without a
    /// version, the object as it is now.
    pub async fn get_since(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        version: Option<u64>,
    ) -> Result<Value, ApiError> {
        let path = resource.path(namespace, Some(name));
        match version {
            Some(version) => self.read(&format!("{path}?resourceVersion={version}")).await,
            None => self.read(&path).await,
        }
    }

    /// Only the metadata of the object.
    pub async fn get_metadata(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
    ) -> Result<ObjectMeta, ApiError> {
        let path = resource.path(namespace, Some(name));
        let (_, object) =
            self.send::<MetadataOnly>(Method::GET, &path, JSON, METADATA_ONLY, Zeroizing::default()).await?;
        Ok(object.metadata)
    }

    /// Only the metadata of the first `most` objects of a kind in all namespaces.
    pub async fn list_metadata(&self, resource: &Resource, most: usize) -> Result<Vec<ObjectMeta>, ApiError> {
        let path = format!("{}?limit={most}", resource.path(None, None));
        let (_, list) =
            self.send::<MetadataList>(Method::GET, &path, JSON, METADATA_OF_ALL, Zeroizing::default()).await?;
        Ok(list.items.into_iter().map(|object| object.metadata).collect())
    }

    /// Creates an object from a JSON body, which is wiped after it was sent. Returns the metadata of the object.
    pub async fn create(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<ObjectMeta, ApiError> {
        let path = format!("{}?fieldManager=gitseal-controller", resource.path(namespace, None));
        let (_, object) = self.send::<MetadataOnly>(Method::POST, &path, JSON, METADATA_ONLY, body).await?;
        Ok(object.metadata)
    }

    /// Deletes the object. If `seen` has a UID or a resource version, and the object has another one, the result is a
    /// conflict. The objects that the deleted object owns are deleted in the background.
    pub async fn delete(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        seen: &ObjectMeta,
    ) -> Result<(), ApiError> {
        let options = json!({
            "apiVersion": "v1", "kind": "DeleteOptions", "propagationPolicy": "Background",
            "preconditions": {"uid": seen.uid, "resourceVersion": seen.resource_version},
        });
        let path = resource.path(namespace, Some(name));
        let body = Zeroizing::new(options.to_string().into_bytes());
        self.send::<Value>(Method::DELETE, &path, JSON, METADATA_ONLY, body).await.map(|_| ())
    }

    /// JSON merge patch of an object or, with `subresource`, of a part of it.
    pub async fn merge(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        subresource: Option<&str>,
        patch: &Value,
    ) -> Result<ObjectMeta, ApiError> {
        let mut path = resource.path(namespace, Some(name));
        if let Some(subresource) = subresource {
            path.push('/');
            path.push_str(subresource);
        }
        path.push_str(OUR_OWN);
        let body = Zeroizing::new(patch.to_string().into_bytes());
        let (_, object) = self
            .send::<MetadataOnly>(Method::PATCH, &path, "application/merge-patch+json", METADATA_ONLY, body)
            .await?;
        Ok(object.metadata)
    }

    /// Makes us the owner of all fields that others wrote into the object with an update. The next [`Api::apply`] then
    /// removes those fields that its body does not contain. If `version` is given and the object has another resource
    /// version, the result is a conflict. Returns the new resource version of the object; `None`, and no error, if the
    /// object does not exist.
    pub async fn adopt(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        version: Option<String>,
    ) -> Result<Option<String>, ApiError> {
        self.rewrite_owners(resource, namespace, name, version, fields::adopted).await
    }

    /// Gives up our ownership of the fields at the JSON `pointers`, which keep their values. So the next [`Api::apply`]
    /// may leave these fields out without removing their values. `whole` is the object in Git, including these fields.
    /// Returns whether the object exists.
    pub async fn release(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        pointers: &[String],
        whole: &Map<String, Value>,
    ) -> Result<bool, ApiError> {
        let released = |entries: &[ManagedFieldsEntry]| fields::released(entries, pointers, whole);
        Ok(self.rewrite_owners(resource, namespace, name, None, released).await?.is_some())
    }

    /// Gives up our ownership of the fields that `managers` own. Returns these fields, as `managedFields` has them, and the
    /// resource version of the object in which they own them. If the object does not exist, there are no fields and no version.
    pub async fn leave_to(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        managers: &[String],
    ) -> Result<(Value, Option<String>), ApiError> {
        let owned = Mutex::new(Value::Null);
        let left = |entries: &[ManagedFieldsEntry]| {
            let theirs = ::fields::owned_by(entries, managers);
            let left = ::fields::without_ours(entries, &theirs);
            *owned.lock().unwrap_or_else(PoisonError::into_inner) = theirs;
            left
        };
        let version = self.rewrite_owners(resource, namespace, name, None, left).await?;
        Ok((owned.into_inner().unwrap_or_else(PoisonError::into_inner), version))
    }

    /// Removes the ownership that others have of a Secret's `stringData`. The values stay as they are. If the Secret
    /// does not exist, nothing is done. For `version` and the result, see [`Api::adopt`].
    pub async fn disown_string_data(
        &self,
        namespace: Option<&str>,
        name: &str,
        version: Option<String>,
    ) -> Result<Option<String>, ApiError> {
        self.rewrite_owners(&Resource::secrets(), namespace, name, version, fields::without_string_data).await
    }

    async fn rewrite_owners(
        &self,
        resource: &Resource,
        namespace: Option<&str>,
        name: &str,
        version: Option<String>,
        rewrite: impl Fn(&[ManagedFieldsEntry]) -> Option<Vec<ManagedFieldsEntry>>,
    ) -> Result<Option<String>, ApiError> {
        let meta = match self.get_metadata(resource, namespace, name).await {
            Err(error) if error.is_not_found() => return Ok(None),
            found => found?,
        };
        if version.is_some() && version != meta.resource_version {
            return Err(ApiError::changed());
        }
        let Some(entries) = rewrite(meta.managed_fields.as_deref().unwrap_or_default()) else {
            return Ok(meta.resource_version);
        };
        // The patch has the resource version, so that it is refused if somebody else wrote in the meantime.
        let patch = json!({"metadata": {"resourceVersion": meta.resource_version, "managedFields": entries}});
        Ok(self.merge(resource, namespace, name, None, &patch).await?.resource_version)
    }

    /// Reads the resource at `path`, of any kind, from its JSON.
    pub async fn read<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        Ok(self.send(Method::GET, path, JSON, JSON, Zeroizing::default()).await?.1)
    }

    /// Reads all groups of `/api` or `/apis` with their kinds.
    pub(super) async fn discover<T: DeserializeOwned>(&self, path: &str) -> Result<T, ApiError> {
        Ok(self.send(Method::GET, path, JSON, renderer::ServedKinds::ACCEPT, Zeroizing::default()).await?.1)
    }

    /// Asks the API server whether it works. It answers no if something that it needs, for example its store, does not
    /// work.
    ///
    /// # Errors
    /// The API server did not answer.
    pub(crate) async fn is_healthy(&self) -> Result<bool, ApiError> {
        self.succeeds("/livez").await
    }

    /// Asks the API server whether it is ready. For a moment after its start, the API server answers requests although
    /// it is not ready: its lists of kinds may then lack the kinds of CustomResourceDefinitions.
    ///
    /// # Errors
    /// The API server did not answer.
    pub(super) async fn is_ready(&self) -> Result<bool, ApiError> {
        self.succeeds("/readyz").await
    }

    async fn succeeds(&self, path: &str) -> Result<bool, ApiError> {
        self.metrics.api_request(Method::GET.as_str());
        let request = Request::get(path).body(Body::empty());
        let request = request.map_err(|error| ApiError::Transport(error.to_string()))?;
        // Every answer that is no server error counts as success: the controller may have no right to ask, or a proxy
        // in front of the API server may have answered.
        Ok(!self.answer(request).await?.0.is_server_error())
    }

    /// The client for watches.
    pub fn client(&self) -> kube::Client {
        self.client.clone()
    }

    async fn send<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        content_type: &'static str,
        accept: &'static str,
        body: Zeroizing<Vec<u8>>,
    ) -> Result<(http::StatusCode, T), ApiError> {
        if !names_one_object(path) {
            return Err(ApiError::invalid_name());
        }
        self.metrics.api_request(method.as_str());
        let mut request = Request::builder().method(method).uri(path).header(header::ACCEPT, accept);
        if let Some(user) = &self.acting_as {
            request = request.header("Impersonate-User", user);
        }
        let sent = bytes::Bytes::from_owner(Owned(body));
        if !sent.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let body = if sent.is_empty() { Body::empty() } else { Body::from(sent.clone()) };
        let request = request.body(body).map_err(|error| ApiError::Transport(error.to_string()))?;
        let method = request.method().clone();
        if method != Method::GET && !self.leadership.leads() {
            return Err(ApiError::NotLeading);
        }
        let (status, answer) = self.answer(request).await?;
        if !status.is_success() {
            // Refusals of all requests are handled here, so that no caller can forget to remove the values of Secrets
            // from them.
            return Err(About::path(path).refused(&method, status.as_u16(), &answer, &sent));
        }
        let value = serde_json::from_slice(&answer)
            .map_err(|error| ApiError::Answer(format!("line {} column {}", error.line(), error.column())))?;
        Ok((status, value))
    }

    /// Sends a request, and records whether the API server answered.
    async fn answer(&self, request: Request<Body>) -> Result<(http::StatusCode, Zeroizing<Vec<u8>>), ApiError> {
        let (reach, is_write) = (self.leadership.reach(), request.method() != Method::GET);
        let since = Instant::now();
        let answer = async {
            let response = self.client.send(request).await.map_err(transport)?;
            let status = response.status();
            let body = Limited::new(response.into_body(), self.most_bytes).collect().await;
            let body = body.map_err(|error| {
                if error.is::<LengthLimitError>() {
                    return ApiError::TooLong(self.most_bytes);
                }
                transport(kube::Error::Service(error))
            })?;
            let body = body.to_bytes();
            Ok((status, Zeroizing::new(body.to_vec())))
        };
        let mut answer = std::pin::pin!(answer);
        let answer = if let Ok(answer) = tokio::time::timeout(LATE, &mut answer).await {
            answer
        } else {
            if is_write {
                reach.doubt_writes();
            }
            answer.await
        };
        match &answer {
            Ok((status, _)) if !status.is_server_error() && status.as_u16() != 429 => {
                reach.answered(is_write);
                passes::answered();
            }
            Ok((status, _)) => {
                passes::unanswered();
                match status.is_server_error() {
                    true => reach.failed(is_write, since),
                    // The API server has too much to do (status 429), but it answers.
                    false if is_write => reach.answered(true),
                    false => {}
                }
            }
            Err(_) => {
                passes::unanswered();
                reach.unanswered(is_write, since);
                self.metrics.api_unanswered();
            }
        }
        answer
    }
}

/// An answer longer than this is not read. An object has at most 1.5 MiB; a longer answer is a list, or comes from an
/// aggregated API server.
const MOST_BYTES: usize = 32 << 20;
/// A write without an answer counts as slow until this time, because admission webhooks may take long. After this time,
/// it counts as unanswered.
const LATE: Duration = Duration::from_secs(10);
const JSON: &str = "application/json";
/// The content type of a server-side apply. The API server reads a body of this type as YAML.
const APPLY: &str = "application/apply-patch+yaml";
/// Asks for only the metadata of an object.
const METADATA_ONLY: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";
/// Asks for only the metadata of the objects in a list.
const METADATA_OF_ALL: &str = "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// Whether every name in the path of a request is one segment for the API server, too. The API server decodes the path
/// before it splits it and checks rights. So a name with `%2F` would lead to an object of another kind, for example to
/// a Secret, or to a server behind a Service. No object has such a name.
fn names_one_object(path: &str) -> bool {
    let path = path.split('?').next().unwrap_or_default();
    let is_name =
        |segment: &str| !matches!(segment, "" | "." | "..") && !segment.contains("%2F") && !segment.contains("%25");
    path.strip_prefix('/').is_some_and(|path| path.split('/').all(is_name))
}

/// A request body that is wiped when it is dropped.
struct Owned(Zeroizing<Vec<u8>>);

impl AsRef<[u8]> for Owned {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// A kind shared by many objects.
pub(crate) type SharedResource = Arc<Resource>;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_leads_to_no_other_object() {
        let maps = Resource::config_maps();
        let path = |namespace, name| maps.path(Some(namespace), name);
        for (namespace, name) in [("team", Some("a.b-c")), ("team", Some("system:node")), ("team", None)] {
            assert!(names_one_object(&path(namespace, name)), "{namespace} {name:?}");
        }
        assert!(names_one_object("/api") && names_one_object("/apis/apps/v1/deployments?labelSelector=a%2Fb%25"));
        for (namespace, name) in [
            ("team/services/web/proxy", None),
            ("team", Some("../secrets/db")),
            ("team", Some("web/proxy/x")),
            ("team", Some("web%2Fproxy")),
            ("team", Some("..")),
            ("..", Some("a")),
            ("team", Some("")),
        ] {
            assert!(!names_one_object(&path(namespace, name)), "{namespace} {name:?}");
        }
    }
}
