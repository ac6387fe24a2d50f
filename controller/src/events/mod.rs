//! Kubernetes events: what happened to an object, for `kubectl describe`.
//!
//! # Guarantees
//! [`Events::publish`] never waits and never fails. One request at a time is sent to the API server. If there are more
//! events than the API server can take, events are dropped and counted. If the same event happens to an object again
//! within ten minutes, the count of the first event is increased. Normal events wait while there is more work than
//! workers, because each of them is a write that nobody waits for. A normal event waits for [`LATEST`] at most.
//!
//! Events about SealedSecrets have the form that the Sealed Secrets controller gives them: core events whose `source`
//! is `sealed-secrets`. So people find these events by the same fields, and the roles of the Sealed Secrets controller
//! give all rights that these events need. All other events are of the group `events.k8s.io`.
//!
//! # Caveats
//! Everybody who may read events in the object's namespace sees the note of an event. A note names fields, and never
//! contains values.

mod series;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    env, fmt,
    sync::{Arc, OnceLock},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{Event as CoreEvent, EventSource, ObjectReference},
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time},
};
use manifests::in_one_line;
use pipeline::Resource;
use serde_json::json;
use tokio::{
    sync::mpsc,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::debug;
use zeroize::Zeroizing;

use self::series::{Occurrence, Series, Step};
use crate::{
    cluster::{Api, ApiError},
    metrics::Metrics,
};

/// The type of an event.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum EventType {
    /// The event tells of normal progress.
    Normal,
    /// The event tells of a problem that somebody should look at.
    Warning,
}

impl EventType {
    fn as_str(self) -> &'static str {
        match self {
            Self::Normal => "Normal",
            Self::Warning => "Warning",
        }
    }
}

/// Writes events in the background. Clones share the queue.
#[derive(Clone)]
pub struct Events {
    queue: mpsc::Sender<Occurrence>,
    metrics: Metrics,
    busy: Busy,
}

/// A function that returns whether there is more work than workers. It is set when the queues of work exist.
type Busy = Arc<OnceLock<Box<dyn Fn() -> bool + Send + Sync>>>;

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").finish_non_exhaustive()
    }
}

/// How many events may wait for the API server. Further events are dropped.
const QUEUE: usize = 1024;
/// The longest time that a normal event waits for other work.
const LATEST: Duration = Duration::from_secs(30);
/// How often a waiting event checks whether there still is more work than workers.
const LOOK: Duration = Duration::from_millis(200);
/// How long events in the queue may still be written after the shutdown began.
const LAST_EVENTS: Duration = Duration::from_secs(2);
/// The longest note, in bytes, that the API server accepts.
const NOTE_BYTES: usize = 1024;

impl Events {
    /// Starts the background task that writes events. The task ends after `shutdown`.
    pub fn start(api: Api, metrics: Metrics, shutdown: CancellationToken) -> Self {
        let (events, writer) = Self::with_writer(api, metrics, shutdown);
        tokio::spawn(writer);
        events
    }

    fn with_writer(
        api: Api,
        metrics: Metrics,
        shutdown: CancellationToken,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let (queue, occurrences) = mpsc::channel(QUEUE);
        let busy = Busy::default();
        let writer = Writer {
            api,
            metrics: metrics.clone(),
            series: Series::default(),
            instance: instance(),
            busy: busy.clone(),
            later: VecDeque::new(),
        };
        (Self { queue, metrics, busy }, writer.run(occurrences, shutdown))
    }

    /// Makes normal events wait while `busy` returns true, that is, while there is more work than workers.
    pub fn wait_for(&self, busy: impl Fn() -> bool + Send + Sync + 'static) {
        let _ = self.busy.set(Box::new(busy));
    }

    /// Reports that `reason` (CamelCase, at most 128 characters) happened to the object. `note` is a text for people.
    /// In the event, the note is one line without characters that control a terminal.
    pub fn publish(&self, regarding: &ObjectReference, type_: EventType, reason: &str, note: impl Into<String>) {
        let occurrence =
            Occurrence { regarding: regarding.clone(), type_, reason: reason.into(), note: readable(&note.into()) };
        if self.queue.try_send(occurrence).is_err() {
            self.metrics.event("dropped");
        }
    }
}

struct Writer {
    api: Api,
    metrics: Metrics,
    series: Series,
    instance: String,
    busy: Busy,
    /// Normal events that wait, each with the time at which it began to wait.
    later: VecDeque<(Occurrence, Instant)>,
}

impl Writer {
    async fn run(mut self, mut occurrences: mpsc::Receiver<Occurrence>, shutdown: CancellationToken) {
        loop {
            tokio::select! {
                biased;
                () = shutdown.cancelled() => break,
                next = occurrences.recv() => match next {
                    Some(occurrence) if self.can_wait(&occurrence) => {
                        self.later.push_back((occurrence, Instant::now()));
                    }
                    Some(occurrence) => self.write(occurrence).await,
                    None => break,
                },
                () = sleep(if self.is_next() { Duration::ZERO } else { LOOK }), if !self.later.is_empty() => {
                    if let Some((occurrence, _)) = self.is_next().then(|| self.later.pop_front()).flatten() {
                        self.write(occurrence).await;
                    }
                    if self.later.is_empty() {
                        // The queue is replaced by a new one, because a queue that was long once keeps its memory.
                        self.later = VecDeque::new();
                    }
                }
            }
        }
        occurrences.close();
        let rest = async {
            while let Some((occurrence, _)) = self.later.pop_front() {
                self.write(occurrence).await;
            }
            while let Some(occurrence) = occurrences.recv().await {
                self.write(occurrence).await;
            }
        };
        if shutdown.is_cancelled() {
            let _ = timeout(LAST_EVENTS, rest).await;
        } else {
            rest.await;
        }
    }

    fn is_busy(&self) -> bool {
        self.busy.get().is_some_and(|busy| busy())
    }

    /// Whether the event has to wait: because of other work, or because other events wait already.
    fn can_wait(&self, occurrence: &Occurrence) -> bool {
        let is_room = self.later.len() < QUEUE;
        occurrence.type_ == EventType::Normal && is_room && (self.is_busy() || !self.later.is_empty())
    }

    /// Whether the first event that waits may be written now.
    fn is_next(&self) -> bool {
        !self.is_busy() || self.later.front().is_some_and(|(_, since)| since.elapsed() >= LATEST)
    }

    async fn write(&mut self, occurrence: Occurrence) {
        let now = Timestamp::now();
        let outcome = match self.series.step(&occurrence, now) {
            Step::CountOnly => Ok("aggregated"),
            Step::Update { name, count } => match self.update(&occurrence, &name, count, now).await {
                // The API server deletes events after an hour. If the event is gone, a new one is created.
                Err(error) if error.is_not_found() => self.create(&occurrence, now).await.map(|()| "written"),
                other => other.map(|()| "aggregated"),
            },
            Step::Create => self.create(&occurrence, now).await.map(|()| "written"),
        };
        let outcome = outcome.unwrap_or_else(|error| {
            self.series.forget(&occurrence);
            let ObjectReference { kind, namespace, name, .. } = &occurrence.regarding;
            let [kind, namespace, name] = [kind, namespace, name].map(|part| part.as_deref().unwrap_or_default());
            debug!(%error, kind, namespace, name, reason = occurrence.reason, "an event could not be written");
            "failed"
        });
        self.metrics.event(outcome);
    }

    async fn create(&mut self, occurrence: &Occurrence, now: Timestamp) -> Result<(), ApiError> {
        let body = if is_core(occurrence) {
            serde_json::to_vec(&core_event(occurrence, now))
        } else {
            serde_json::to_vec(&event(occurrence, &self.instance, now))
        };
        let body = Zeroizing::new(body.expect("every map in an event has strings as keys"));
        let created = self.api.create(&resource(occurrence), Some(namespace(occurrence)), body).await?;
        self.series.created(occurrence, created.name.unwrap_or_default(), now);
        Ok(())
    }

    async fn update(&self, occurrence: &Occurrence, name: &str, count: i32, now: Timestamp) -> Result<(), ApiError> {
        let patch = if is_core(occurrence) {
            json!({"count": count, "lastTimestamp": Time(now)})
        } else {
            json!({"series": EventSeries { count, last_observed_time: MicroTime(now) }})
        };
        self.api.merge(&resource(occurrence), Some(namespace(occurrence)), name, None, &patch).await.map(|_| ())
    }
}

/// Whether the event is about a SealedSecret or a sealing key. Such events are written in the form of the Sealed
/// Secrets controller, because the role of that controller allows no other form.
fn is_core(occurrence: &Occurrence) -> bool {
    matches!(occurrence.regarding.kind.as_deref(), Some("SealedSecret" | "Secret"))
}

fn core_event(occurrence: &Occurrence, now: Timestamp) -> CoreEvent {
    CoreEvent {
        metadata: metadata(occurrence, now),
        involved_object: occurrence.regarding.clone(),
        reason: Some(reason(occurrence)),
        message: Some(occurrence.note.clone()),
        source: Some(EventSource { component: Some(SEALED_SECRETS.into()), host: None }),
        reporting_component: Some(SEALED_SECRETS.into()),
        // Events of the Sealed Secrets controller name no instance.
        reporting_instance: Some(String::new()),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        count: Some(1),
        type_: Some(occurrence.type_.as_str().into()),
        ..CoreEvent::default()
    }
}

fn event(occurrence: &Occurrence, instance: &str, now: Timestamp) -> Event {
    Event {
        metadata: metadata(occurrence, now),
        event_time: Some(MicroTime(now)),
        reporting_controller: Some("gitseal-controller".into()),
        reporting_instance: Some(instance.into()),
        action: Some("Reconcile".into()),
        reason: Some(reason(occurrence)),
        regarding: Some(occurrence.regarding.clone()),
        note: Some(occurrence.note.clone()),
        type_: Some(occurrence.type_.as_str().into()),
        ..Event::default()
    }
}

fn metadata(occurrence: &Occurrence, now: Timestamp) -> ObjectMeta {
    ObjectMeta {
        name: Some(event_name(&occurrence.regarding, now)),
        namespace: Some(namespace(occurrence).into()),
        ..ObjectMeta::default()
    }
}

fn reason(occurrence: &Occurrence) -> String {
    occurrence.reason.chars().take(128).collect()
}

/// The source of events about SealedSecrets, by which people find them.
const SEALED_SECRETS: &str = "sealed-secrets";

/// Events about objects without a namespace are in `default`.
fn namespace(occurrence: &Occurrence) -> &str {
    occurrence.regarding.namespace.as_deref().filter(|name| !name.is_empty()).unwrap_or("default")
}

/// The name of an event: the object's name and the time, as in the events of other programs. Characters in the object's
/// name that the name of an event cannot have are replaced.
fn event_name(regarding: &ObjectReference, now: Timestamp) -> String {
    let name = regarding.name.as_deref().unwrap_or_default();
    let safe: String =
        name.chars().take(200).map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '-' }).collect();
    let safe = match safe.trim_matches('-') {
        "" => "object",
        trimmed => trimmed,
    };
    format!("{safe}.{:x}", now.as_nanosecond())
}

/// A note as one line, without characters that control a terminal, cut to the length that the API server accepts.
fn readable(note: &str) -> String {
    const MORE: &str = " …";
    let mut note = in_one_line(note).into_owned();
    if note.len() > NOTE_BYTES {
        let mut end = NOTE_BYTES - MORE.len();
        while !note.is_char_boundary(end) {
            end -= 1;
        }
        note.truncate(end);
        note.push_str(MORE);
    }
    note
}

/// The name of the Pod that this process runs in, which is also the Pod's host name.
fn instance() -> String {
    let name = ["POD_NAME", "HOSTNAME"].into_iter().find_map(|name| env::var(name).ok());
    let name: String = name.unwrap_or_default().chars().take(128).collect();
    if name.is_empty() { "gitseal-controller".into() } else { name }
}

fn resource(occurrence: &Occurrence) -> Resource {
    Resource {
        group: if is_core(occurrence) { String::new() } else { "events.k8s.io".into() },
        version: "v1".into(),
        kind: "Event".into(),
        plural: "events".into(),
        namespaced: true,
        watchable: true,
    }
}
