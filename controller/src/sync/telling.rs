//! If a pass takes long, says so in the status while the pass runs.

use std::time::Duration;

use crds::{ConditionStatus, ObjectKey, Sync};
use serde_json::json;

use super::report::Stored;
use crate::{
    context::Context,
    passes,
    status::{Progress, resource_of, set_progress},
};

/// The time after which a pass is reported while it runs. Most passes end sooner, and are reported only at their end.
const SOON: Duration = Duration::from_secs(5);

/// Runs a pass. If the pass takes long, the status gets conditions that say that the pass is running, because the old
/// conditions `before` may no longer be true. Also returns the conditions that were sent, and whether they were stored.
pub(super) async fn while_it_runs<T>(
    ctx: &Context,
    sync: &Sync,
    key: &ObjectKey,
    revision: &str,
    mut before: Vec<crds::Condition>,
    pass: impl Future<Output = T>,
) -> (T, Option<(Vec<crds::Condition>, Stored)>) {
    let mut pass = std::pin::pin!(pass);
    if let Ok(result) = tokio::time::timeout(SOON, &mut pass).await {
        return (result, None);
    }
    let stage = passes::stage().map_or("begin", pipeline::Stage::as_str);
    tracing::info!(sync = %key, revision, stage, "the pass is still running");
    let waits = passes::waits_for().map(|what| format!(", where it waits for {what}")).unwrap_or_default();
    let message = format!("applying {revision}: now at the stage {stage}{waits}");
    set_progress(&mut before, Progress::Working, "Progressing", &message, sync.metadata.generation);
    ctx.metrics.sync_ready(key, ConditionStatus::Unknown, "Progressing");
    let patch = json!({"status": {"conditions": before, "observedGeneration": sync.metadata.generation}});
    let resource = resource_of::<Sync>();
    let told = ctx.api.merge(&resource, Some(&key.namespace), &key.name, Some("status"), &patch);
    let mut told = std::pin::pin!(told);
    // The pass continues while this status is written. The result of the pass is reported only after this write, so the
    // two writes cannot overtake each other.
    let (result, told) = tokio::join!(pass, &mut told);
    let stored = told.map_or_else(
        |error| {
            tracing::warn!(sync = %key, %error, "the status could not be written while the pass is running");
            Stored::No
        },
        |_| Stored::Yes,
    );
    (result, Some((before, stored)))
}
