//! Which kinds the API server serves, by group and version: asked once, and again only for a kind that is missing.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::APIResourceList;

use pipeline::Resource;

use super::{Api, ApiError, api::SharedResource};

/// A miss is believed for this long before the API server is asked again.
const MISS_IS_BELIEVED: Duration = Duration::from_secs(2);

/// A kind that could not be found.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DiscoveryError {
    /// The API server does not serve the kind.
    #[error("the cluster has no kind {kind} in {api_version}; is its CustomResourceDefinition installed?")]
    UnknownKind {
        /// Group and version as in `apiVersion`.
        api_version: String,
        /// Kind.
        kind: String,
    },
    /// The API server could not be asked.
    #[error("asking the API server for the kinds of {api_version}: {source}")]
    Request {
        /// Group and version as in `apiVersion`.
        api_version: String,
        /// What went wrong.
        source: ApiError,
    },
}

/// The kinds that were seen so far.
#[derive(Clone)]
pub struct Discovery {
    api: Api,
    seen: Arc<Mutex<HashMap<String, GroupVersion>>>,
}

struct GroupVersion {
    asked: Instant,
    kinds: HashMap<String, SharedResource>,
}

impl Discovery {
    /// Nothing is asked until the first [`Discovery::find`].
    pub fn new(api: Api) -> Self {
        Self { api, seen: Arc::default() }
    }

    /// The resource that serves `kind` in `group`/`version`.
    pub async fn find(&self, group: &str, version: &str, kind: &str) -> Result<SharedResource, DiscoveryError> {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let unknown = || DiscoveryError::UnknownKind { api_version: api_version.clone(), kind: kind.to_owned() };
        {
            let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = seen.get(&api_version) {
                if let Some(resource) = known.kinds.get(kind) {
                    return Ok(resource.clone());
                }
                if known.asked.elapsed() < MISS_IS_BELIEVED {
                    return Err(unknown());
                }
            }
        }
        let kinds = self.ask(group, version, &api_version).await?;
        let found = kinds.get(kind).cloned();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        seen.insert(api_version.clone(), GroupVersion { asked: Instant::now(), kinds });
        found.ok_or_else(unknown)
    }

    /// Forgets a group: one of its CustomResourceDefinitions was just applied or deleted.
    pub fn forget(&self, group: &str) {
        let prefix = format!("{group}/");
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).retain(|key, _| !key.starts_with(&prefix));
    }

    async fn ask(
        &self,
        group: &str,
        version: &str,
        api_version: &str,
    ) -> Result<HashMap<String, SharedResource>, DiscoveryError> {
        let path = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
        let list = match self.api.read::<APIResourceList>(&path).await {
            Ok(list) => list,
            Err(error) if error.is_not_found() => return Ok(HashMap::new()),
            Err(source) => {
                return Err(DiscoveryError::Request { api_version: api_version.into(), source });
            }
        };
        Ok(list
            .resources
            .into_iter()
            .filter(|resource| !resource.name.contains('/'))
            .map(|resource| {
                let shared = Resource {
                    group: group.into(),
                    version: version.into(),
                    kind: resource.kind.clone(),
                    plural: resource.name,
                    namespaced: resource.namespaced,
                    watchable: ["list", "watch"].iter().all(|verb| resource.verbs.iter().any(|v| v == verb)),
                };
                (resource.kind, Arc::new(shared))
            })
            .collect())
    }
}
