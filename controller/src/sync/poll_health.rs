//! Waiting for health without polling: the watch says when an object is worth another look.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crds::{conditions, find_condition};
use futures::{StreamExt, stream};
use manifests::ObjectId;
use tokio::time::Instant;

use pipeline::{
    Failure, Plan, Resource, Stage,
    health::{self, Health, HealthError},
};

use super::{Pass, Record, carry_out::Outcome};
use crate::{config::duration, status::Progress};

/// Objects often become healthy at once: a status that says "waiting" is written only after this long.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// When an object that could not be read is read again.
const READS_AGAIN: Duration = Duration::from_secs(5);

/// After an end that was not clean every object is judged again, not just those that change now.
pub(super) fn kinds_to_judge(record: &Record, plan: &Plan) -> Vec<(ObjectId, Arc<Resource>)> {
    let ready = find_condition(&record.status.conditions, conditions::READY);
    let was_ready = ready.is_some_and(|ready| ready.status == crds::ConditionStatus::True);
    let changes: BTreeSet<&ObjectId> = plan.waves.values().flatten().map(|step| &step.id).collect();
    plan.kinds
        .iter()
        .filter(|(id, _)| !health::is_born_healthy(id) && (!was_ready || changes.contains(id)))
        .map(|(id, resource)| (id.clone(), resource.clone()))
        .collect()
}

impl Pass<'_> {
    /// From now on the watch enqueues the Sync when one of its pending objects changes.
    pub(super) fn await_health(&self, record: &mut Record) {
        record.pending_since.get_or_insert_with(Instant::now);
        for id in record.pending.keys() {
            self.ctx.cluster.live.await_health(id, true);
        }
    }

    /// Looks at the objects whose health is awaited; the watch says when to look again.
    pub(super) async fn poll_health(&self, record: &mut Record, revision: &str) {
        let Self { ctx, sync, key, .. } = *self;
        let _timer = self.begin(Stage::Health);
        let api = self.identity();
        let pending: Vec<_> = record.pending.iter().map(|(id, resource)| (id.clone(), resource.clone())).collect();
        let results: Vec<_> = stream::iter(pending)
            .map(|(id, resource)| {
                let api = &api;
                async move {
                    let health = match api.get(&resource, id.namespace.as_deref(), &id.name).await {
                        Ok(object) => health::assess(&id, &object),
                        // It ended, or it would not have gone. Whether well or badly, nobody can tell any more.
                        Err(error) if error.is_not_found() && ctx.cluster.live.has_expired(&id) => Health::Current,
                        Err(error) if error.is_not_found() => Health::InProgress("it is not there".into()),
                        Err(error) => {
                            // No watch says when it can be read again.
                            if error.is_transient() {
                                self.come_back(Some(Instant::now() + READS_AGAIN));
                            }
                            Health::InProgress(error.to_string())
                        }
                    };
                    (id, health)
                }
            })
            .buffer_unordered(8)
            .collect()
            .await;
        let (mut failed, mut waiting) = (Vec::new(), Vec::new());
        for (id, health) in results {
            match health {
                Health::Current => {
                    record.pending.remove(&id);
                    ctx.cluster.live.await_health(&id, false);
                }
                Health::InProgress(why) => waiting.push((id, why)),
                Health::Failed(why) => failed.push((id, why)),
            }
        }
        failed.sort();
        waiting.sort();
        let since = *record.pending_since.get_or_insert_with(Instant::now);
        let timeout = duration(&sync.spec.timeout).unwrap_or(Duration::from_secs(300));
        let more = (failed.len() + waiting.len()).saturating_sub(1);
        let problem = match (failed.into_iter().next(), waiting.into_iter().next()) {
            (Some((id, why)), _) => HealthError::Failed { id, why, more },
            (None, None) => {
                record.pending_since = None;
                // A map that was emptied keeps its room.
                record.pending = BTreeMap::new();
                return self.ready(record, revision).await;
            }
            (None, Some((id, why))) if since.elapsed() < timeout => {
                let waited = since.elapsed();
                if waited < SETTLES_WITHIN {
                    ctx.queues.syncs.add_after(key.clone(), SETTLES_WITHIN.saturating_sub(waited));
                    return;
                }
                ctx.queues.syncs.add_after(key.clone(), timeout.saturating_sub(waited));
                let more = if more > 0 { format!("; and {more} more") } else { String::new() };
                let message = format!("applied {revision}; waiting for {id}: {why}{more}");
                self.state(record, Progress::Working, "WaitingForHealth", &message).await;
                return;
            }
            (None, Some((id, why))) => HealthError::TimedOut { id, why, after: sync.spec.timeout.clone(), more },
        };
        // A failure that was told already is written to no status, and no watch brings the Sync back.
        self.come_back(record.looked_at.map(|at| at + self.interval()));
        let failure = Failure::from(problem);
        self.failure(record, None, &failure, &Outcome::default()).await;
    }
}
