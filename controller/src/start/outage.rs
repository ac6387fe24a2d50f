//! Notices that the API server does not answer, or does not work.

use std::time::Duration;

use crate::{cluster::Api, http::Readiness};

/// The gate of `/readyz` that is closed while the API server does not answer.
pub(super) const GATE: &str = "api-server";
/// The length of the shortest outage that is reported.
const SHORT: Duration = Duration::from_secs(10);
/// How often an API server that does not answer is asked whether it works.
const PAUSE: Duration = Duration::from_secs(2);
/// How long the controller waits for the answer to this question before it asks again.
const PATIENCE: Duration = Duration::from_secs(4);

/// Notices when the API server does not answer, or fails requests because it cannot reach its store. Reports this, and
/// asks the API server until it works. While the API server does not answer, the reconcilers wait.
pub(super) async fn follow(api: Api, readiness: Readiness) {
    let mut told = false;
    loop {
        tokio::time::sleep(PAUSE).await;
        let reach = api.leadership().reach();
        let (away, failing) = (reach.away_for(), reach.failing_for());
        if away.is_none() && failing.is_none() {
            if told {
                tracing::info!("the API server answers again");
                readiness.open(GATE);
                told = false;
            }
            continue;
        }
        if !told && [away, failing].into_iter().flatten().any(|time| time >= SHORT) {
            if away.is_some() {
                tracing::error!(?away, "the API server does not answer; nothing is applied or unsealed until it does");
            } else {
                tracing::error!(
                    ?failing,
                    "the API server does not work: it answers requests and /livez with errors of its own, as it does \
                     without its store (etcd); until it works again, nothing can be applied"
                );
            }
            readiness.close(GATE);
            told = true;
        }
        // The client itself records whether there was an answer. While this question waits for its answer, other requests
        // may show that the API server works again.
        if let Ok(Ok(true)) = tokio::time::timeout(PATIENCE, api.is_healthy()).await {
            reach.healthy();
        }
    }
}
