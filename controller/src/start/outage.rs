//! Notices that the API server does not answer.

use std::time::Duration;

use crate::{cluster::Api, http::Readiness};

/// The gate of `/readyz` that is closed while the API server does not answer.
pub(super) const GATE: &str = "api-server";
/// A shorter outage is not reported.
const SHORT: Duration = Duration::from_secs(10);
/// How often an API server that does not answer is asked.
const PAUSE: Duration = Duration::from_secs(2);

/// Notices when the API server does not answer, reports it, and asks it until it answers. The reconcilers wait for
/// that.
pub(super) async fn follow(api: Api, readiness: Readiness) {
    let mut told = false;
    loop {
        tokio::time::sleep(PAUSE).await;
        let reach = api.leadership().reach();
        match reach.away_for() {
            None if told => {
                tracing::info!("the API server answers again");
                readiness.open(GATE);
                told = false;
            }
            None => {}
            Some(away) => {
                if away >= SHORT && !told {
                    tracing::error!(
                        ?away,
                        "the API server does not answer; nothing is applied or unsealed until it does"
                    );
                    readiness.close(GATE);
                    told = true;
                }
                // The client itself records whether there was an answer.
                let _ = api.read::<serde_json::Value>("/version").await;
            }
        }
    }
}
