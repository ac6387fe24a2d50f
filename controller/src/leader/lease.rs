//! The Lease object: taking, renewing and releasing it.

use std::time::Duration;

use futures::{StreamExt, pin_mut};
use jiff::Timestamp;
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
};
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{ElectionFlags, LeaseLost, Reach, Term, identity};
use crate::metrics::Metrics;

/// If other replicas have not seen a renewal of the lease for this time, one of them takes it. This duration,
/// [`DEADLINE`] and [`RETRY`] have the default values of client-go.
pub(super) const DURATION: Duration = Duration::from_secs(15);
/// The replica that holds the lease stops working if its last successful renewal is this long ago.
pub(super) const DEADLINE: Duration = Duration::from_secs(10);
/// The longest duration that is accepted from a lease. A longer duration in a lease counts as this one.
const LONGEST: Duration = Duration::from_secs(60);
/// The time between two renewals, and between two tries of a failed renewal.
const RETRY: Duration = Duration::from_secs(2);
/// The longest time that one try may take. This is short, because the connection of a try may be dead while a new
/// connection would work.
const REQUEST: Duration = Duration::from_secs(3);

/// A replica that wants the lease.
pub(super) struct Candidate {
    api: Api<Lease>,
    namespace: String,
    name: String,
    identity: String,
    reach: Reach,
}

/// Why this replica no longer leads.
enum Over {
    /// The replica was asked to end.
    Released,
    /// The writes of this replica are not answered, so it gives the lease back to another replica.
    GivenUp(String),
    /// Another replica may hold the lease.
    Lost(String),
}

/// Why the lease could not be written.
enum Refused {
    /// Somebody else wrote to the lease in the meantime.
    Conflict,
    /// The controller's role does not allow the write.
    Forbidden(String),
    /// Another error. Another try may help.
    Failed(String),
}

impl Refused {
    fn from(error: kube::Error) -> Self {
        match error {
            kube::Error::Api(status) if status.code == 409 => Self::Conflict,
            kube::Error::Api(status) if status.code == 403 => Self::Forbidden(status.message.clone()),
            other => Self::Failed(other.to_string()),
        }
    }
}

/// A lease that this replica holds.
struct Held {
    lease: Lease,
    /// When the request was sent that took or last renewed the lease.
    since: Instant,
}

impl Held {
    /// Whether this process still holds the lease, which has been read as `found`. The process may have written this
    /// state itself, with a renewal whose answer was lost. The name of the holder alone does not show who holds the
    /// lease, because another process may have the same name. So the time at which the lease was taken is compared,
    /// too.
    fn is_still(&self, found: &Lease) -> bool {
        let term =
            |lease: &Lease| lease.spec.as_ref().map(|spec| (spec.holder_identity.clone(), spec.acquire_time.clone()));
        term(found) == term(&self.lease)
    }
}

/// The lease as it was last seen.
struct Seen {
    lease: Option<Lease>,
    /// The time, by our own clock, from which on no other replica can still believe that it holds the lease.
    expires: Instant,
}

impl Seen {
    /// Stores the lease that was found. If the lease is unchanged, it was not renewed. A lease that was deleted still
    /// counts as held until it would have expired, because its holder creates it again.
    fn note(&mut self, found: Option<Lease>) {
        if let Some(lease) = &found
            && version(found.as_ref()) != version(self.lease.as_ref())
        {
            self.expires = Instant::now() + duration(lease);
        }
        self.lease = found;
    }

    fn is_free(&self, identity: &str) -> bool {
        let is_ours = self.lease.as_ref().map(holder).is_some_and(|holder| holder.is_empty() || holder == identity);
        is_ours || Instant::now() >= self.expires
    }
}

impl Candidate {
    pub(super) fn new(client: kube::Client, namespace: &str, flags: &ElectionFlags, reach: Reach) -> Self {
        let api = Api::namespaced(client, namespace);
        let name = flags.leader_elect_lease_name.clone();
        Self { api, namespace: namespace.into(), name, identity: identity(flags), reach }
    }

    /// Waits for the lease, holds it until `release`, and reports the state in `term`. Returns why the lease was lost;
    /// `None` if it was released.
    pub(super) async fn run(
        self,
        term: &watch::Sender<Term>,
        release: &CancellationToken,
        metrics: &Metrics,
    ) -> Option<LeaseLost> {
        metrics.leads(false);
        let acquired = tokio::select! {
            () = release.cancelled() => return None,
            acquired = self.acquire() => acquired,
        };
        metrics.leads(true);
        let mut held = match acquired {
            Ok(held) => held,
            Err(reason) => {
                tracing::warn!(
                    lease = %self.path(), reason,
                    "this replica works without a lease; never run a second replica until the controller's role allows get, \
                     list, watch, create and update of leases (coordination.k8s.io) in {}: run gitseal install --apply",
                    self.namespace
                );
                term.send_replace(Term::Alone);
                release.cancelled().await;
                return None;
            }
        };
        term.send_replace(Term::Until(held.since + DEADLINE));
        tracing::info!(lease = %self.path(), identity = self.identity, "leading");
        let over = self.hold(&mut held, term, release).await;
        term.send_replace(Term::Over);
        metrics.leads(false);
        match over {
            Over::Released => {
                self.give_back(&held.lease).await;
                None
            }
            Over::GivenUp(reason) => {
                self.give_back(&held.lease).await;
                Some(LeaseLost { lease: self.path(), reason })
            }
            Over::Lost(reason) => Some(LeaseLost { lease: self.path(), reason }),
        }
    }

    /// Takes the lease as soon as it is free. An error means that the controller's role does not allow this.
    async fn acquire(&self) -> Result<Held, String> {
        let mut seen = Seen { lease: None, expires: Instant::now() };
        let mut told = None;
        loop {
            let result = match self.read().await {
                Ok(found) => {
                    seen.note(found);
                    match seen.is_free(&self.identity) {
                        true if self.writes_are_answered().await => self.take(seen.lease.as_ref()).await.map(Some),
                        true => Err(Refused::Failed("the API server does not answer writes of this replica".into())),
                        false => Ok(None),
                    }
                }
                Err(error) => Err(error),
            };
            match result {
                Ok(Some(held)) => return Ok(held),
                Ok(None) => {
                    let leader = seen.lease.as_ref().map_or("", holder).to_owned();
                    if told.as_ref() != Some(&leader) {
                        tracing::info!(lease = %self.path(), leader, "standing by");
                        told = Some(leader);
                    }
                    self.wait(&mut seen).await;
                }
                Err(Refused::Forbidden(reason)) => return Err(reason),
                // Another replica was faster, as the next read will show.
                Err(Refused::Conflict) => {}
                Err(Refused::Failed(error)) => {
                    tracing::warn!(lease = %self.path(), error, "the lease cannot be taken; this replica tries again");
                    sleep(RETRY).await;
                }
            }
        }
    }

    /// Watches the lease until it may be free.
    async fn wait(&self, seen: &mut Seen) {
        let started = Instant::now();
        // The API server ends watches from time to time, and perhaps the role does not allow watches. So there is a
        // pause before the next watch.
        let again = |seen: &Seen| sleep_until(seen.expires.min(started + RETRY));
        let Some(lease) = &seen.lease else { return again(seen).await };
        let only = WatchParams::default().fields(&format!("metadata.name={}", self.name));
        let Ok(Ok(events)) = timeout(REQUEST, self.api.watch(&only, &version(Some(lease)))).await else {
            return again(seen).await;
        };
        pin_mut!(events);
        loop {
            let event = tokio::select! {
                () = sleep_until(seen.expires) => return,
                event = events.next() => event,
            };
            match event {
                Some(Ok(WatchEvent::Added(next) | WatchEvent::Modified(next))) => {
                    let changed_hands = seen.lease.as_ref().map(holder) != Some(holder(&next));
                    seen.note(Some(next));
                    if changed_hands {
                        return;
                    }
                }
                Some(Ok(WatchEvent::Bookmark(_))) => {}
                Some(Ok(WatchEvent::Deleted(_))) => return,
                Some(Ok(WatchEvent::Error(_)) | Err(_)) | None => return again(seen).await,
            }
        }
    }

    /// Keeps the lease until `release`.
    async fn hold(&self, held: &mut Held, term: &watch::Sender<Term>, release: &CancellationToken) -> Over {
        let mut pause = RETRY;
        let mut doubted = None;
        let mut last_error = String::from("no answer");
        loop {
            let end = held.since + DEADLINE;
            tokio::select! {
                biased;
                () = release.cancelled() => return Over::Released,
                () = sleep_until(end.min(Instant::now() + pause)) => {}
            }
            if Instant::now() >= end {
                return Over::Lost(format!("no renewal succeeded for {} seconds: {last_error}", DEADLINE.as_secs()));
            }
            pause = RETRY;
            match timeout_at(end, self.renew(&held.lease)).await {
                Ok(Ok(renewed)) => {
                    *held = renewed;
                    term.send_replace(Term::Until(held.since + DEADLINE));
                    if !self.reach.doubts_writes() || self.writes_are_answered().await {
                        doubted = None;
                    } else if doubted.get_or_insert_with(Instant::now).elapsed() >= DEADLINE {
                        return Over::GivenUp(format!(
                            "the lease could be renewed, but other writes of this replica got no answer for {} seconds",
                            DEADLINE.as_secs()
                        ));
                    }
                }
                Ok(Err(Refused::Conflict)) => match self.read().await {
                    Ok(Some(found)) if held.is_still(&found) => {
                        held.lease = found;
                        pause = Duration::ZERO;
                    }
                    Ok(Some(found)) if holder(&found) == self.identity => {
                        return Over::Lost(format!(
                            "another process with the name {} took the lease: two replicas must not have the same --leader-elect-identity",
                            self.identity
                        ));
                    }
                    Ok(Some(found)) => return Over::Lost(format!("{} holds the lease", holder(&found))),
                    // Somebody deleted the lease, so this replica creates it again, unless another replica is faster.
                    Ok(None) => {
                        held.lease.metadata = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
                        pause = Duration::ZERO;
                    }
                    Err(Refused::Failed(error) | Refused::Forbidden(error)) => last_error = error,
                    Err(Refused::Conflict) => {}
                },
                Ok(Err(Refused::Failed(error) | Refused::Forbidden(error))) => {
                    tracing::warn!(lease = %self.path(), error, "the lease could not be renewed; this replica tries again");
                    last_error = error;
                }
                Err(_) => {}
            }
        }
    }

    /// Whether the API server answers a write. To find out, a write is sent that changes nothing. If the role does not
    /// allow this write, the refusal counts as an answer.
    async fn writes_are_answered(&self) -> bool {
        let params = PatchParams { dry_run: true, ..PatchParams::default() };
        let nothing = Patch::Merge(serde_json::json!({"metadata": {}}));
        match timeout(REQUEST, self.api.patch(&self.name, &params, &nothing)).await {
            Ok(Ok(_) | Err(kube::Error::Api(_))) => {
                self.reach.answered(true);
                true
            }
            Ok(Err(_)) | Err(_) => false,
        }
    }

    async fn give_back(&self, lease: &Lease) {
        let mut lease = lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.holder_identity = Some(String::new());
        spec.lease_duration_seconds = Some(1);
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        match self.write(&lease).await {
            Ok(_) => tracing::info!(lease = %self.path(), "the lease is released"),
            Err(Refused::Failed(error) | Refused::Forbidden(error)) => {
                tracing::warn!(lease = %self.path(), error, "the lease could not be released; it expires by itself");
            }
            Err(Refused::Conflict) => {}
        }
    }

    async fn read(&self) -> Result<Option<Lease>, Refused> {
        match timeout(REQUEST, self.api.get_opt(&self.name)).await {
            Ok(found) => found.map_err(Refused::from),
            Err(_) => Err(Refused::Failed(no_answer())),
        }
    }

    /// Takes the lease, unless it was changed since it was read as `found`.
    async fn take(&self, found: Option<&Lease>) -> Result<Held, Refused> {
        let transitions = found.and_then(|found| found.spec.as_ref()).map(|spec| {
            let count = spec.lease_transitions.unwrap_or_default();
            count.saturating_add(i32::from(spec.holder_identity.as_ref() != Some(&self.identity)))
        });
        let named = ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() };
        let lease = Lease {
            metadata: found.map_or(named, |found| found.metadata.clone()),
            spec: Some(LeaseSpec {
                holder_identity: Some(self.identity.clone()),
                acquire_time: Some(MicroTime(Timestamp::now())),
                lease_transitions: Some(transitions.unwrap_or_default()),
                ..LeaseSpec::default()
            }),
        };
        self.renew(&lease).await
    }

    /// Renews our lease, unless somebody else wrote to it.
    async fn renew(&self, lease: &Lease) -> Result<Held, Refused> {
        let mut lease = lease.clone();
        let spec = lease.spec.get_or_insert_default();
        spec.lease_duration_seconds = i32::try_from(DURATION.as_secs()).ok();
        spec.renew_time = Some(MicroTime(Timestamp::now()));
        let since = Instant::now();
        Ok(Held { lease: self.write(&lease).await?, since })
    }

    async fn write(&self, lease: &Lease) -> Result<Lease, Refused> {
        let params = PostParams { field_manager: Some("gitseal-controller".into()), ..PostParams::default() };
        let request = async {
            match &lease.metadata.resource_version {
                Some(_) => self.api.replace(&self.name, &params, lease).await,
                None => self.api.create(&params, lease).await,
            }
        };
        match timeout(REQUEST, request).await {
            Ok(Err(kube::Error::Api(status))) if status.code == 404 && lease.metadata.resource_version.is_some() => {
                Err(Refused::Conflict)
            }
            Ok(written) => written.map_err(Refused::from),
            Err(_) => Err(Refused::Failed(no_answer())),
        }
    }

    fn path(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

fn no_answer() -> String {
    format!("no answer within {} seconds", REQUEST.as_secs())
}

fn version(lease: Option<&Lease>) -> String {
    lease.and_then(|lease| lease.metadata.resource_version.clone()).unwrap_or_default()
}

fn holder(lease: &Lease) -> &str {
    lease.spec.as_ref().and_then(|spec| spec.holder_identity.as_deref()).unwrap_or_default()
}

/// How long the lease is valid after a renewal: the duration that its holder wrote, but at least [`DURATION`] and at
/// most [`LONGEST`].
pub(super) fn duration(lease: &Lease) -> Duration {
    let seconds = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
    let seconds = seconds.and_then(|seconds| u64::try_from(seconds).ok());
    seconds.map_or(DURATION, Duration::from_secs).clamp(DURATION, LONGEST)
}
