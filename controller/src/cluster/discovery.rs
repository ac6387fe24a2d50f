//! Which kinds the API server serves, by group and version. The API server is asked once for each group and version,
//! and again only for a kind that was not found.
//!
//! Groups and versions come from manifests and inventories, so anybody may have made them up. Only groups and versions
//! that the API server lists are asked for and remembered. So thousands of invented groups cost only a few requests,
//! and no invented name becomes part of a URL.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{APIGroupList, APIResourceList};

use pipeline::Resource;

use super::{Api, ApiError, api::SharedResource};

/// When a kind was not found, the API server is asked again only after this time.
const MISS_IS_BELIEVED: Duration = Duration::from_secs(2);
/// How long the list of groups is used to say that a group does not exist. So Syncs that ask for groups that never
/// exist cause few requests. The time is short, so that a new group is found soon.
const LIST_IS_BELIEVED: Duration = Duration::from_millis(200);

/// Why a kind could not be found.
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
    /// The request to the API server failed.
    #[error("cannot ask the API server for the kinds of {api_version}: {source}")]
    Request {
        /// Group and version as in `apiVersion`.
        api_version: String,
        /// What went wrong.
        source: ApiError,
    },
}

/// The kinds that were found so far.
#[derive(Clone)]
pub struct Discovery {
    api: Api,
    seen: Arc<Mutex<Seen>>,
    /// This lock is held while the list of groups is requested. Callers that need the list at the same time wait for
    /// the same answer.
    listing: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Default)]
struct Seen {
    /// The kinds of each group and version, which is written as in `apiVersion`.
    kinds: HashMap<String, GroupVersion>,
    served: Option<Served>,
}

struct GroupVersion {
    asked: Instant,
    kinds: HashMap<String, SharedResource>,
}

/// All groups and versions, except those of the core group.
struct Served {
    asked: Instant,
    api_versions: HashSet<String>,
}

impl Discovery {
    /// Makes no request before the first [`Discovery::find`].
    pub fn new(api: Api) -> Self {
        Self { api, seen: Arc::default(), listing: Arc::default() }
    }

    /// The resource that serves `kind` in `group`/`version`.
    pub async fn find(&self, group: &str, version: &str, kind: &str) -> Result<SharedResource, DiscoveryError> {
        let api_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
        let unknown = || DiscoveryError::UnknownKind { api_version: api_version.clone(), kind: kind.to_owned() };
        if let Some(known) = self.seen().kinds.get(&api_version) {
            if let Some(resource) = known.kinds.get(kind) {
                return Ok(resource.clone());
            }
            if known.asked.elapsed() < MISS_IS_BELIEVED {
                return Err(unknown());
            }
        }
        if !self.is_served(group, version, &api_version).await? {
            return Err(unknown());
        }
        let kinds = self.ask(group, version, &api_version).await?;
        let found = kinds.get(kind).cloned();
        self.seen().kinds.insert(api_version.clone(), GroupVersion { asked: Instant::now(), kinds });
        found.ok_or_else(unknown)
    }

    /// Like [`Discovery::find`], but finds the kind in another version of the group if `version` is no longer served.
    /// An object can be read and deleted in any version of its kind.
    pub async fn find_in_any_version(
        &self,
        group: &str,
        version: &str,
        kind: &str,
    ) -> Result<SharedResource, DiscoveryError> {
        let error = match self.find(group, version, kind).await {
            Err(error @ DiscoveryError::UnknownKind { .. }) => error,
            found => return found,
        };
        for (_, version) in self.versions_instead(group).into_iter().filter(|(of, _)| of == group) {
            match self.find(group, &version, kind).await {
                Err(DiscoveryError::UnknownKind { .. }) => {}
                found => return found,
            }
        }
        Err(error)
    }

    /// The versions in which a kind of this name is served, for the message about a version that is not served. Empty
    /// if the API server does not answer.
    pub async fn served_instead(&self, group: &str, kind: &str) -> Vec<String> {
        let mut found = Vec::new();
        for (group, version) in self.versions_instead(group) {
            if self.find(&group, &version, kind).await.is_ok() {
                found.push(format!("{group}/{version}"));
            }
        }
        found
    }

    /// The groups and versions in which a kind of `group` may be served. Empty if the list of groups is not known.
    fn versions_instead(&self, group: &str) -> Vec<(String, String)> {
        let seen = self.seen();
        let served = seen.served.iter().flat_map(|served| &served.api_versions);
        pipeline::versions_instead(group, served.map(String::as_str))
    }

    /// Forgets the kinds of a group, because one of its CustomResourceDefinitions was just applied or deleted.
    pub fn forget(&self, group: &str) {
        let prefix = format!("{group}/");
        let mut seen = self.seen();
        seen.kinds.retain(|key, _| !key.starts_with(&prefix));
        seen.served = None;
    }

    async fn is_served(&self, group: &str, version: &str, api_version: &str) -> Result<bool, DiscoveryError> {
        if group.is_empty() {
            // The core group has only the version `v1`.
            return Ok(version == "v1");
        }
        let known = || {
            let seen = self.seen();
            let served = seen.served.as_ref()?;
            let is_served = served.api_versions.contains(api_version);
            (is_served || served.asked.elapsed() < LIST_IS_BELIEVED).then_some(is_served)
        };
        if let Some(known) = known() {
            return Ok(known);
        }
        let _listing = self.listing.lock().await;
        if let Some(known) = known() {
            return Ok(known);
        }
        let groups = self.api.read::<APIGroupList>("/apis").await;
        let groups = groups.map_err(|source| DiscoveryError::Request { api_version: api_version.into(), source })?;
        let versions = groups.groups.into_iter().flat_map(|group| group.versions);
        let api_versions: HashSet<_> = versions.map(|version| version.group_version).collect();
        let is_served = api_versions.contains(api_version);
        self.seen().served = Some(Served { asked: Instant::now(), api_versions });
        Ok(is_served)
    }

    fn seen(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sync::fake_server::FakeServer;

    fn is_unknown(found: &Result<SharedResource, DiscoveryError>) -> bool {
        matches!(found, Err(DiscoveryError::UnknownKind { .. }))
    }

    #[tokio::test]
    async fn made_up_groups_cost_a_few_requests_and_no_memory() {
        let (server, client) = FakeServer::start().await;
        let version = json!({"groupVersion": "example.com/v1", "version": "v1"});
        let group = json!({"name": "example.com", "versions": [version]});
        let list = json!({"kind": "APIGroupList", "apiVersion": "v1", "groups": [group]});
        server.answer("GET /apis", 200, list);
        let thing = json!({"kind": "Thing", "name": "things", "singularName": "", "namespaced": true, "verbs": []});
        let things = json!({"groupVersion": "example.com/v1", "resources": [thing]});
        server.answer("GET /apis/example.com/v1", 200, things);
        let discovery = client.discovery;
        for number in 0..1000 {
            let (group, version) = (format!("made-up-{number}.example.com"), format!("v9{number}"));
            for (group, version) in [(group.as_str(), "v1"), ("example.com", &version), ("", &version)] {
                assert!(is_unknown(&discovery.find(group, version, "Thing").await));
            }
        }
        assert_eq!(discovery.served_instead("example.com", "Thing").await, ["example.com/v1"]);
        assert!(discovery.served_instead("example.com", "Gone").await.is_empty());
        assert!(is_unknown(&discovery.find("../api", "v1/secrets?", "Thing").await));
        assert!(discovery.find("example.com", "v1", "Thing").await.is_ok());
        assert!(is_unknown(&discovery.find("example.com", "v1", "Other").await));
        let asked = |path: &str| server.requests().iter().filter(|request| *request == &format!("GET {path}")).count();
        assert_eq!(asked("/apis/example.com/v1"), 1);
        assert!(server.requests().len() < 20, "{:?}", server.requests());
        assert_eq!(discovery.seen().kinds.len(), 1);
        discovery.forget("example.com");
        assert!(discovery.find("example.com", "v1", "Thing").await.is_ok());
        assert_eq!(asked("/apis/example.com/v1"), 2, "a group that changed is asked for again");
    }
}
