//! A pass that takes its time says so in the status while it is under way.

use std::time::Duration;

use crds::{ConditionStatus, ObjectKey, Sync};
use serde_json::json;

use super::report::Stored;
use crate::{
    context::Context,
    passes,
    status::{Progress, resource_of, set_progress},
};

/// Most passes are over sooner, and one status is enough for them.
const SOON: Duration = Duration::from_secs(5);

/// Runs a pass. When it is not over soon, the conditions `before` give way to the news that it is under way: what was
/// Ready is not what Git says any more. Answers with the conditions that were sent, and whether they are stored.
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
    let message = format!("applying {revision}: at the stage {stage} for now");
    set_progress(&mut before, Progress::Working, "Progressing", &message, sync.metadata.generation);
    ctx.metrics.sync_ready(key, ConditionStatus::Unknown, "Progressing");
    let patch = json!({"status": {"conditions": before, "observedGeneration": sync.metadata.generation}});
    let resource = resource_of::<Sync>();
    let told = ctx.api.merge(&resource, Some(&key.namespace), &key.name, Some("status"), &patch);
    let mut told = std::pin::pin!(told);
    // The pass goes on meanwhile, and its end is told after this: two writes of one status do not overtake each other.
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
