//! Checks the health of objects. A watch shows when an object should be checked again, so objects are not polled.

use std::{collections::BTreeMap, time::Duration};

use crds::{conditions, find_condition};
use flags::duration;
use futures::{StreamExt, stream};
use manifests::ObjectId;
use serde_json::Value;
use tokio::time::Instant;

use ::fields::Expired;
use pipeline::{
    Failure, Stage, escape_segment,
    health::{
        self, Health, HealthError,
        apart::own_check,
        pods::{self, Said},
    },
    plan::{Wave, runs_once},
};

use super::{Pass, Record, carry_out::Outcome, finished::finished, record::SeenPods, report::WAITING_FOR_HEALTH};
use crate::{
    cluster::Api,
    events::EventType,
    fair::Asker,
    status::{Progress, reference},
};

/// The time after which a status that says "waiting" is written. Objects often become healthy sooner, so that this
/// status is not needed.
const SETTLES_WITHIN: Duration = Duration::from_secs(2);

/// The time after which an object that could not be read is read again.
pub(super) const READS_AGAIN: Duration = Duration::from_secs(5);

/// As long as the wait for health has not lasted longer than this, an object is not read if the watch shows that nobody
/// has written to it since it was created.
const UNREAD: Duration = Duration::from_secs(30);

/// The message about an object that has failed and was deleted.
const DELETED: &str =
    "it was deleted because it failed; it runs again when it changes in Git, or when a sync is requested";

/// The message about a Job that has failed and was deleted by Kubernetes.
const REMOVED: &str = "Kubernetes has deleted it after its time to live";
/// When such a Job runs again.
const RUNS_AGAIN: &str = "it runs again when it changes in Git, or when a sync is requested";

/// How many Pods of one object are read. There may be thousands of Pods, and each may be as large as the API server
/// allows for an object.
const PODS: usize = 10;
/// How many events of one object are read. There is one for each reason and message.
const EVENTS: usize = 50;
/// The shortest time between two reads of the Pods of an object.
const PODS_AGAIN: Duration = Duration::from_secs(5);
/// The longest time between two reads of the Pods of an object that is waited for.
const PODS_WITHIN: Duration = Duration::from_secs(15);

/// An object that is not healthy.
#[derive(Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Unhealthy {
    pub(super) id: ObjectId,
    pub(super) why: String,
    pub(super) facts: Facts,
}

/// Where more can be found out about an object that is not healthy.
#[derive(Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Facts {
    /// The selector of the object's Pods, if it has any.
    pods: Option<String>,
    uid: String,
    /// Whether the object may become healthy although it has failed: a Pod whose containers are restarted.
    may_recover: bool,
}

impl Facts {
    pub(super) fn of(id: &ObjectId, object: &Value) -> Self {
        let uid = object.pointer("/metadata/uid").and_then(Value::as_str).unwrap_or_default();
        let is_pod = id.group.is_empty() && id.kind == "Pod";
        let may_recover = is_pod && object.pointer("/status/phase").is_none_or(|phase| phase != "Failed");
        Self { pods: pods::selector(id, object), uid: uid.to_owned(), may_recover }
    }

    /// Whether the object was read.
    fn is_read(&self) -> bool {
        !self.uid.is_empty()
    }

    /// Whether the Pods or the events of the object may say what is wrong with it. A watch on the object does not show
    /// them.
    fn is_elsewhere(&self, id: &ObjectId) -> bool {
        self.pods.is_some() || pods::has_events(id)
    }
}

impl Pass<'_> {
    /// Makes each change of a pending object put the Sync into the queue.
    pub(super) fn await_health(&self, record: &mut Record) {
        record.pending_since.get_or_insert_with(Instant::now);
        for id in record.pending.keys() {
            self.ctx.cluster.live.await_health(id, true);
        }
    }

    /// Checks the objects whose health is awaited, except objects of waves that still wait. The watch shows when to
    /// check again. If the next wave no longer waits for anything, another pass begins.
    pub(super) async fn poll_health(&self, record: &mut Record, revision: &str) {
        let Self { ctx, sync, key, .. } = *self;
        let _timer = self.begin(Stage::Health);
        let api = self.identity();
        let (barrier, inventory) = (record.barrier.as_ref(), &record.inventory);
        let is_due = |id: &ObjectId| barrier.is_none_or(|barrier| inventory.wave_of(id).number <= barrier.number);
        let pending = record.pending.iter().filter(|(id, _)| is_due(id));
        let pending = pending.map(|(id, pending)| (id.clone(), pending.resource.clone()));
        let pending: Vec<_> = pending.collect();
        let since = *record.pending_since.get_or_insert_with(Instant::now);
        let is_new = since.elapsed() < UNREAD;
        let results: Vec<_> = stream::iter(pending)
            .map(|(id, resource)| {
                let api = &api;
                async move {
                    let why = inventory.why_failed(&id);
                    if inventory.has_failed(&id) {
                        let why = why.unwrap_or(DELETED).to_owned();
                        return (id, Health::Failed(why), Facts::default());
                    }
                    if is_new
                        && own_check(sync, &id).is_none()
                        && ctx.cluster.live.is_as_made(&id)
                        && let Some(health) = health::as_made(&id)
                    {
                        return (id, health, Facts::default());
                    }
                    let turn = match self.turn_for(&id).await {
                        Ok(turn) => turn,
                        Err(health) => return (id, health, Facts::default()),
                    };
                    let place = ctx.health_reads.take(Asker::Namespace(&key.namespace)).await;
                    let mut facts = Facts::default();
                    let seen = ctx.cluster.live.version(&id);
                    let read = api.get_since(&resource, id.namespace.as_deref(), &id.name, seen).await;
                    let health = match read {
                        Ok(object) => {
                            facts = Facts::of(&id, &object);
                            // If the object has a health expression, another process evaluates it. The place for reads
                            // is given back before, so that others can read meanwhile.
                            let _place = turn.is_none().then_some(place);
                            self.assess(&id, object, &turn).await
                        }
                        Err(error) if error.is_not_found() => {
                            match ctx.cluster.live.expired(&id).map(|how| ended(how, why)) {
                                Some(Health::Failed(why)) => Health::Failed(format!("{why}; {RUNS_AGAIN}")),
                                Some(health) => health,
                                None => Health::InProgress("it does not exist".into()),
                            }
                        }
                        Err(error) => {
                            // No watch shows when the object can be read again, so the Sync comes back after a pause.
                            if error.is_transient() {
                                self.come_back(Some(Instant::now() + READS_AGAIN));
                            }
                            Health::InProgress(error.to_string())
                        }
                    };
                    (id, health, facts)
                }
            })
            .buffer_unordered(8)
            .collect()
            .await;
        let (mut failed, mut waiting) = (Vec::new(), Vec::new());
        for (id, health, facts) in results {
            match health {
                Health::Current => {
                    record.became_healthy(&id);
                    ctx.cluster.live.await_health(&id, false);
                }
                Health::InProgress(why) => {
                    if facts.is_read() {
                        record.inventory.set_failed(&id, None);
                    }
                    waiting.push(Unhealthy { id, why, facts });
                }
                Health::Failed(why) => {
                    record.has_become_failed(&id, &why, ctx.cluster.live.expired(&id).is_some());
                    failed.push(Unhealthy { id, why, facts });
                }
            }
        }
        if record.barrier.is_some() && !record.next_wave_waits() {
            // The objects of the next wave get as much time to become healthy as the objects of this wave.
            record.pending_since = None;
            ctx.retries.wake(key);
            return ctx.queues.syncs.add(key.clone());
        }
        if record.failed_content.is_none() && !finished(record).is_empty() {
            // Another pass deletes them.
            ctx.retries.wake(key);
            return ctx.queues.syncs.add(key.clone());
        }
        if record.content.is_none() {
            // The last pass failed. Its failure stays in the status.
            return;
        }
        // Objects that the next wave waits for are reported first.
        let holds = |object: &Unhealthy| record.barrier.as_ref().is_some_and(|all| all.awaited.contains(&object.id));
        failed.sort_by(|a, b| holds(b).cmp(&holds(a)).then_with(|| a.cmp(b)));
        waiting.sort_by(|a, b| holds(b).cmp(&holds(a)).then_with(|| a.cmp(b)));
        let timeout = duration(&sync.spec.timeout).unwrap_or(Duration::from_secs(300));
        let more = (failed.len() + waiting.len()).saturating_sub(1);
        let waited = since.elapsed();
        let has_failed = !failed.is_empty();
        let is_deleted = |id: &ObjectId| {
            record.pending.get(id).is_some_and(|pending| pending.deleted_when_failed)
                && !record.inventory.has_failed(id)
        };
        let due = failed.iter().filter(|object| is_deleted(&object.id) && !object.facts.may_recover);
        let mut due: BTreeMap<_, _> =
            due.map(|object| (object.id.clone(), format!("{}; {DELETED}", object.why))).collect();
        let Some(first) = failed.into_iter().chain(waiting).next() else {
            record.pending_since = None;
            // A map that was emptied would keep its memory, so a new one replaces it.
            record.pending = BTreeMap::new();
            return self.ready(record, revision).await;
        };
        let is_over = has_failed || waited >= timeout;
        if !is_over && waited < SETTLES_WITHIN {
            ctx.queues.syncs.add_after(key.clone(), SETTLES_WITHIN.saturating_sub(waited));
            return;
        }
        let origin = record.pending.get(&first.id).and_then(|pending| pending.origin.clone());
        let is_elsewhere = first.facts.is_elsewhere(&first.id);
        let why = match self.trouble_elsewhere(record, &api, &first, has_failed).await {
            Some(trouble) => format!("{} ({trouble})", first.why),
            None => first.why,
        };
        let id = first.id;
        let why = match due.get_mut(&id) {
            None => why,
            Some(of_it) => {
                *of_it = format!("{why}; {DELETED}");
                of_it.clone()
            }
        };
        if has_failed && runs_once(&id) {
            record.inventory.set_failed(&id, Some(&why));
        }
        if !is_over {
            // No watch shows changes of the Pods or events, so they are read from time to time, with growing pauses.
            let left = timeout.saturating_sub(waited);
            let pause = if is_elsewhere { left.min(waited).min(PODS_WITHIN) } else { left };
            ctx.queues.syncs.add_after(key.clone(), pause);
            let more = if more > 0 { format!("; and {more} more") } else { String::new() };
            let place = origin.map(|origin| format!("{origin}: ")).unwrap_or_default();
            let applied = match &record.barrier {
                None => format!("applied {revision}; waiting"),
                Some(barrier) if barrier.number == *Wave::NUMBERS.end() => {
                    format!("applied {revision}; the tests wait")
                }
                Some(barrier) => format!("applied {revision} up to wave {}; the later waves wait", barrier.number),
            };
            let message = format!("{applied} for {place}{id}: {why}{more}");
            // One event for each revision and wave says that the later waves wait. After that, only the status says
            // which object they wait for.
            if record.barrier.is_some() && !is_said(record, &applied) {
                ctx.events.publish(&reference(sync), EventType::Normal, WAITING_FOR_HEALTH, message.clone());
            }
            self.state(record, Progress::Working, WAITING_FOR_HEALTH, &message).await;
            return;
        }
        let is_test = record.inventory.wave_of(&id).is_of_tests();
        let problem = if has_failed {
            HealthError::Failed { origin, id, why, more, is_test }
        } else {
            HealthError::TimedOut { origin, id, why, after: sync.spec.timeout.clone(), more, is_test }
        };
        // If the failure was already reported, no status is written, so no watch would bring the Sync back. It is put
        // into the queue here.
        self.come_back(record.compared_at.map(|at| at + self.interval()));
        let mut failure = Failure::from(problem);
        if let Some(barrier) = &record.barrier {
            failure.message.push_str(&format!("; {barrier}"));
        }
        if !is_known(record, failure.reason) {
            ctx.metrics.health_failed(failure.reason);
        }
        self.failure(record, None, &failure, &Outcome::default()).await;
        if !due.is_empty() {
            self.delete_failed(record, due).await;
        }
    }

    /// What the status of an unhealthy object does not say: what is wrong with its Pods, or why there are none. The Sync
    /// must have the right to list Pods or events. They are read only from time to time, even if the object changes
    /// often; but they are read at once when the object has failed, because a Job that failed does not change any more.
    pub(super) async fn trouble_elsewhere(
        &self,
        record: &mut Record,
        api: &Api,
        object: &Unhealthy,
        failed: bool,
    ) -> Option<String> {
        let Unhealthy { id, facts, .. } = object;
        let namespace = id.namespace.as_ref().filter(|_| facts.is_elsewhere(id))?;
        let seen = record.pods.take_if(|seen| seen.of == *id);
        let is_recent = |seen: &SeenPods| seen.at.elapsed() < PODS_AGAIN && (seen.failed || !failed);
        if let Some(recent) = seen.as_ref().filter(|seen| is_recent(seen)) {
            let trouble = recent.trouble.clone();
            record.pods = seen;
            return trouble;
        }
        let namespace = escape_segment(namespace);
        let place = self.ctx.health_reads.take(Asker::Namespace(&self.key.namespace)).await;
        let about = |uid: &str| {
            let selector = escape_segment(&format!("involvedObject.uid={uid}"));
            format!("/api/v1/namespaces/{namespace}/events?limit={EVENTS}&fieldSelector={selector}")
        };
        // If the Sync may not list Pods or events, only the object's own status is reported.
        let said = match &facts.pods {
            None => Said::NoPods,
            Some(selector) => {
                let selector = escape_segment(selector);
                let path = format!("/api/v1/namespaces/{namespace}/pods?limit={PODS}&labelSelector={selector}");
                api.read(&path).await.map_or(Said::Ready, pods::said)
            }
        };
        let has_no_pods = facts.pods.is_some() && said == Said::NoPods;
        let trouble = match said {
            Said::Trouble(why) => Some(why),
            Said::Nothing { name, uid } => {
                let events = api.read(&about(&uid)).await.unwrap_or_default();
                pods::newest(events).map(|why| format!("Pod {name}: {why}"))
            }
            Said::NoPods => pods::newest(api.read(&about(&facts.uid)).await.unwrap_or_default()),
            Said::Ready => None,
        };
        drop(place);
        // The status of a workload may say the same already.
        let trouble = trouble.filter(|trouble| !object.why.contains(trouble.as_str()));
        // When a Job fails, its Pods may be deleted. Then what they said before is told.
        let before = seen.filter(|_| failed && has_no_pods).and_then(|seen| seen.trouble);
        let trouble = before.or(trouble);
        record.pods = Some(SeenPods { of: id.clone(), at: Instant::now(), failed, trouble: trouble.clone() });
        trouble
    }
}

/// The health of a Job that Kubernetes deleted after its time to live. `how` is what is known about its end, and `why` says why it
/// failed, if it was seen to fail.
pub(super) fn ended(how: Expired, why: Option<&str>) -> Health {
    match (how, why) {
        // If nothing shows that it failed, it counts as complete: it ended, because otherwise it would still exist.
        (Expired::Complete, _) | (Expired::Unseen, None) => Health::Current,
        (_, why) => Health::Failed(format!("{}; {REMOVED}", why.unwrap_or("it did not complete"))),
    }
}

/// Whether the status already says that the Sync waits, in a message that begins with `applied`.
fn is_said(record: &Record, applied: &str) -> bool {
    let ready = find_condition(&record.status.conditions, conditions::READY);
    ready.is_some_and(|ready| ready.reason == WAITING_FOR_HEALTH && ready.message.starts_with(applied))
}

/// Whether the status already reports the Sync as unhealthy with this reason, perhaps with another message.
fn is_known(record: &Record, reason: &str) -> bool {
    find_condition(&record.status.conditions, conditions::READY).is_some_and(|ready| ready.reason == reason)
}
