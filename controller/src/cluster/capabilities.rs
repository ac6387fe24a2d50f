//! What the API server serves, as the templates of charts see it.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::apimachinery::pkg::version::Info;
use renderer::{Capabilities, ServedKinds};
use tokio::sync::Mutex;

use super::{Api, ApiError};

/// How long an answer of the API server is used. A shorter time would not help: whether the cluster serves other kinds
/// than at the last render is checked only when the whole folder of a Sync is compared with the cluster.
const IS_BELIEVED: Duration = Duration::from_secs(30);

/// The version of Kubernetes and the API versions of a cluster. They are requested when a chart is rendered, and then
/// kept for a short time.
#[derive(Clone)]
pub struct Served {
    api: Api,
    known: Arc<Mutex<Option<Answer>>>,
}

struct Answer {
    asked: Instant,
    capabilities: Arc<Capabilities>,
}

impl Served {
    /// Makes no request before the first [`Served::get`].
    pub fn new(api: Api) -> Self {
        Self { api, known: Arc::default() }
    }

    /// What the API server serves. Callers that ask at the same time wait for the same answer.
    ///
    /// # Errors
    /// The API server did not answer, or it is not ready. While it is not ready, its lists may lack some kinds: charts
    /// would then not render objects of these kinds, and the objects would be pruned.
    pub async fn get(&self) -> Result<Arc<Capabilities>, ApiError> {
        let mut known = self.known.lock().await;
        if let Some(answer) = known.as_ref().filter(|answer| answer.asked.elapsed() < IS_BELIEVED) {
            return Ok(answer.capabilities.clone());
        }
        if !self.api.is_ready().await? {
            return Err(ApiError::NotReady);
        }
        let version: Info = self.api.read("/version").await?;
        let core: ServedKinds = self.api.discover("/api").await?;
        let others: ServedKinds = self.api.discover("/apis").await?;
        let capabilities = Arc::new(Capabilities::new(version.git_version, [core, others]));
        *known = Some(Answer { asked: Instant::now(), capabilities: capabilities.clone() });
        Ok(capabilities)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::sync::fake_server::FakeServer;

    #[tokio::test]
    async fn groups_versions_and_kinds_are_listed_with_four_requests() {
        let (server, client) = FakeServer::start().await;
        let kind = |kind: &str| json!({"resource": "x", "responseKind": {"group": "", "version": "", "kind": kind}});
        let group = |name: &str, version: &str, kinds: &[&str]| {
            let resources: Vec<_> = kinds.iter().map(|name| kind(name)).collect();
            json!({"metadata": {"name": name}, "versions": [{"version": version, "resources": resources}]})
        };
        server.answer("GET /version", 200, json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.1", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": ""
        }));
        server.answer(
            "GET /api",
            200,
            json!({"items": [{"versions": [
                {"version": "v1", "resources": [kind("Pod"), {"resource": "bindings"}]}
            ]}]}),
        );
        server.answer(
            "GET /apis",
            200,
            json!({"items": [
                group("apps", "v1", &["Deployment"]), group("example.com", "v1beta1", &[])
            ]}),
        );
        let served = Served::new(client.api);
        for _ in 0..3 {
            let found = served.get().await.unwrap();
            assert_eq!(found.kube_version.as_deref(), Some("v1.36.1"));
            assert_eq!(found.api_versions, ["apps/v1", "apps/v1/Deployment", "example.com/v1beta1", "v1", "v1/Pod"]);
        }
        assert_eq!(server.requests().len(), 4, "{:?}", server.requests());
    }

    #[tokio::test]
    async fn an_api_server_that_has_just_started_is_not_asked_for_its_kinds() {
        let (server, client) = FakeServer::start().await;
        server.answer("GET /readyz", 500, json!("[-]poststarthook/crd-informer-synced failed"));
        let served = Served::new(client.api);
        assert!(matches!(served.get().await, Err(ApiError::NotReady)));
        assert_eq!(server.requests(), ["GET /readyz"]);
    }

    #[tokio::test]
    async fn an_answer_without_kinds_is_an_error_and_not_a_cluster_without_kinds() {
        let (server, client) = FakeServer::start().await;
        server.answer("GET /version", 200, json!({
            "major": "1", "minor": "36", "gitVersion": "v1.36.1", "gitCommit": "", "gitTreeState": "", "buildDate": "",
            "goVersion": "", "compiler": "", "platform": ""
        }));
        server.answer("GET /api", 200, json!({"kind": "APIVersions", "versions": ["v1"]}));
        server.answer("GET /apis", 200, json!({"kind": "APIGroupList", "groups": [{"name": "apps"}]}));
        let served = Served::new(client.api);
        assert!(matches!(served.get().await, Err(ApiError::Answer(_))), "an API server that is too old, or a proxy");
    }
}
