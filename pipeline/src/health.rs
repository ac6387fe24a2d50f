//! Whether an applied object is healthy, by the rules of kstatus, from the object's own status.
//!
//! The rules are those of the `kstatus` library, which Flux and Helm use: an object is current when the status says
//! that the object's controller has seen the last generation and is done with it. gitseal's rules differ in some
//! points:
//! - A Pod that cannot be scheduled is waited for, because a node may be added; a Pod that failed counts as failed.
//! - A ReplicationController has the same rule as a ReplicaSet. An APIService is healthy when its condition `Available`
//!   is True. A PodDisruptionBudget and objects of gitseal's own kinds are healthy only when their controller has seen
//!   them; the library counts them as healthy earlier.

pub mod apart;
mod expressions;
mod library;
pub mod pods;
pub mod rules;

use crds::Sync;
use manifests::{Location, ObjectId};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{Stage, StageError};

/// Health of one object.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Health {
    /// The object is healthy (kstatus calls this "current").
    Current,
    /// The object is not healthy yet. The text says what the object waits for.
    InProgress(String),
    /// The object will not become healthy until somebody changes something. The text says why.
    Failed(String),
}

/// Objects that are not healthy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HealthError {
    /// At least one object failed.
    #[error("{}{id} failed: {why}{}", place(.origin.as_ref()), and_more(*.more))]
    Failed {
        /// The file in Git that has the object, and the line, if they are known.
        origin: Option<Location>,
        /// The object.
        id: ObjectId,
        /// The reason.
        why: String,
        /// How many other objects failed, too.
        more: usize,
        /// Whether the object is a test.
        is_test: bool,
    },
    /// At least one object was still not healthy after the Sync's timeout.
    #[error("{}{id} is not healthy after {after}: {why}{}", place(.origin.as_ref()), and_more(*.more))]
    TimedOut {
        /// The file in Git that has the object, and the line, if they are known.
        origin: Option<Location>,
        /// The object.
        id: ObjectId,
        /// What this object waits for.
        why: String,
        /// `spec.timeout`.
        after: String,
        /// How many other objects were not healthy in time either.
        more: usize,
        /// Whether the object is a test.
        is_test: bool,
    },
}

fn place(origin: Option<&Location>) -> String {
    origin.map(|origin| format!("{origin}: ")).unwrap_or_default()
}

fn and_more(more: usize) -> String {
    if more == 0 { String::new() } else { format!("; and {more} more") }
}

impl StageError for HealthError {
    const STAGE: Stage = Stage::Health;

    fn reason(&self) -> &'static str {
        match self {
            Self::Failed { is_test: true, .. } | Self::TimedOut { is_test: true, .. } => "TestFailed",
            Self::Failed { .. } => "HealthCheckFailed",
            Self::TimedOut { .. } => "HealthCheckTimedOut",
        }
    }

    /// Trying again does not help. The objects are still watched, and the Sync becomes Ready when they are healthy.
    fn is_terminal(&self) -> bool {
        true
    }
}

/// Whether objects of the kind are healthy as soon as they exist, so that no request is needed.
pub fn is_born_healthy(id: &ObjectId) -> bool {
    match id.group.as_str() {
        // A Service has its addresses when the API server answers the request that creates it. Its load balancer is not
        // waited for, because it may never come, and the Sync would never become Ready.
        "" => !matches!(id.kind.as_str(), "Pod" | "ReplicationController" | "PersistentVolumeClaim" | "Namespace"),
        // For a CustomResourceDefinition, the stage apply has waited until the API server serves the new kind.
        "apiextensions.k8s.io"
        | "bitnami.com"
        | "autoscaling"
        | "rbac.authorization.k8s.io"
        | "scheduling.k8s.io"
        | "storage.k8s.io"
        | "node.k8s.io"
        | "coordination.k8s.io"
        | "admissionregistration.k8s.io" => true,
        "networking.k8s.io" => matches!(id.kind.as_str(), "IngressClass" | "NetworkPolicy" | "Ingress"),
        "batch" => id.kind == "CronJob",
        _ => false,
    }
}

/// Whether objects of the kind are healthy for `sync` as soon as they exist.
pub fn is_healthy_at_once(sync: &Sync, id: &ObjectId) -> bool {
    is_born_healthy(id) && apart::own_check(sync, id).is_none()
}

/// The reason for an object whose controller has not written a status yet.
const UNSEEN: &str = "its controller has not seen it yet";

/// The health of an object that was just created and that nobody has written since. Only for kinds whose controller
/// must first write a status, this is known without a request; for all others, the result is `None`.
pub fn as_made(id: &ObjectId) -> Option<Health> {
    let is_waiting = match id.group.as_str() {
        "apps" => matches!(id.kind.as_str(), "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet"),
        "" => id.kind == "ReplicationController",
        "policy" => id.kind == "PodDisruptionBudget",
        _ => false,
    };
    is_waiting.then(|| waiting(UNSEEN))
}

/// The health of `object`, if the rule for its kind does not matter, for example because the object is being deleted.
pub fn before_its_rule(id: &ObjectId, object: &Value) -> Option<Health> {
    if text(object, "/metadata/deletionTimestamp").is_some() {
        return Some(waiting("it is being deleted"));
    }
    if id.group == OURS && flag(object, "/spec/suspend") {
        return Some(Health::Current);
    }
    let generation = number(object, "/metadata/generation");
    let observed = number(object, "/status/observedGeneration");
    let is_seen = generation.is_none() || observed.is_none() || generation == observed;
    (!is_seen).then(|| waiting("its controller has not seen the last change yet"))
}

/// The group of gitseal's own kinds.
const OURS: &str = "gitseal.dev";

/// Health of `object`, which is of the kind of `id`.
pub fn assess(id: &ObjectId, object: &Value) -> Health {
    if let Some(health) = before_its_rule(id, object) {
        return health;
    }
    if let Some(said) = by_standard_conditions(object) {
        return said;
    }
    match (id.group.as_str(), id.kind.as_str()) {
        ("apps", "Deployment") => with_refusal(object, deployment(object)),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => replica_set(object),
        ("batch", "Job") => job(object),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => phase(object, "Bound"),
        ("", "Namespace") => phase(object, "Active"),
        ("policy", "PodDisruptionBudget") => seen(object),
        ("apiextensions.k8s.io", "CustomResourceDefinition") => definition(object),
        ("apiregistration.k8s.io", "APIService") => by_condition(object, "Available"),
        (OURS, _) => match seen(object) {
            Health::Current => by_condition(object, "Ready"),
            unseen => unseen,
        },
        _ => library::health(id, object).unwrap_or_else(|| by_condition(object, "Ready")),
    }
}

/// Why the API server refuses to create the Pods of a workload, for example because of a quota or a webhook. The Pods
/// do not exist then, so only the workload's status shows the cause.
fn refusal(object: &Value) -> Option<String> {
    let (_, reason, message) = condition(object, "ReplicaFailure").filter(|(status, ..)| *status == "True")?;
    Some(format!("{reason}: {}", pods::shortened(message)))
}

/// `health`. If the API server refuses to create the Pods of the workload `object`, the text of `health` also gives the
/// reason.
fn with_refusal(object: &Value, health: Health) -> Health {
    let Some(refusal) = refusal(object) else { return health };
    match health {
        Health::Current => Health::Current,
        Health::InProgress(why) => Health::InProgress(format!("{why} ({refusal})")),
        Health::Failed(why) => Health::Failed(format!("{why} ({refusal})")),
    }
}

/// The value of `spec.progressDeadlineSeconds` that means "no deadline".
const NO_DEADLINE: i64 = i32::MAX as i64;

fn waiting(why: impl Into<String>) -> Health {
    Health::InProgress(why.into())
}

fn too_many(more: i64) -> Health {
    waiting(match more {
        1 => "one surplus replica is still there".to_owned(),
        more => format!("{more} surplus replicas are still there"),
    })
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

fn flag(object: &Value, pointer: &str) -> bool {
    object.pointer(pointer).and_then(Value::as_bool) == Some(true)
}

fn text<'a>(object: &'a Value, pointer: &str) -> Option<&'a str> {
    object.pointer(pointer).and_then(Value::as_str)
}

fn count(object: &Value, pointer: &str) -> i64 {
    number(object, pointer).unwrap_or(0)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions.iter().find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
    Some((text("status"), text("reason"), text("message")))
}

/// The health of an object whose controller always sets `observedGeneration`. If this field is missing, the controller
/// has not seen the object yet.
fn seen(object: &Value) -> Health {
    match number(object, "/status/observedGeneration") {
        Some(_) => Health::Current,
        None => waiting(UNSEEN),
    }
}

fn deployment(object: &Value) -> Health {
    let progressing = condition(object, "Progressing");
    if let Some((_, "ProgressDeadlineExceeded", message)) = progressing {
        return Health::Failed(format!("progress deadline exceeded: {message}"));
    }
    if let pending @ Health::InProgress(_) = seen(object) {
        return pending;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let (updated, total) = (count(object, "/status/updatedReplicas"), count(object, "/status/replicas"));
    let available = count(object, "/status/availableReplicas");
    if updated < wanted {
        return waiting(format!("{updated} of {wanted} replicas are updated"));
    }
    if total > wanted {
        return waiting(match total - wanted {
            1 => "one old replica is still there".to_owned(),
            more => format!("{more} old replicas are still there"),
        });
    }
    if available < wanted {
        return waiting(format!("{available} of {wanted} replicas are available"));
    }
    // [`NO_DEADLINE`] means that the Deployment has no deadline. Without a deadline, Kubernetes does not set the
    // condition `Progressing`.
    let deadline = number(object, "/spec/progressDeadlineSeconds").unwrap_or(NO_DEADLINE);
    let is_rolled_out = matches!(progressing, Some(("True", "NewReplicaSetAvailable", _)));
    if deadline != NO_DEADLINE && !is_rolled_out {
        return waiting(match progressing {
            Some((_, "DeploymentPaused", _)) => "its rollout is paused",
            _ => "its rollout is not complete",
        });
    }
    match condition(object, "Available") {
        Some(("True", ..)) => Health::Current,
        _ => waiting("it is not available"),
    }
}

fn stateful_set(object: &Value) -> Health {
    if let pending @ Health::InProgress(_) = seen(object) {
        return pending;
    }
    if text(object, "/spec/updateStrategy/type") == Some("OnDelete") {
        return Health::Current;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let ready = count(object, "/status/readyReplicas");
    if ready < wanted {
        return waiting(format!("{ready} of {wanted} replicas are ready"));
    }
    let total = count(object, "/status/replicas");
    if total > wanted {
        return too_many(total - wanted);
    }
    let partition = count(object, "/spec/updateStrategy/rollingUpdate/partition");
    let updated = count(object, "/status/updatedReplicas");
    if updated < wanted - partition {
        return waiting(format!("{updated} of {} replicas are updated", wanted - partition));
    }
    let is_one_revision = text(object, "/status/currentRevision") == text(object, "/status/updateRevision");
    if partition == 0 && !is_one_revision {
        return waiting("the last replicas are being updated");
    }
    Health::Current
}

fn daemon_set(object: &Value) -> Health {
    if let pending @ Health::InProgress(_) = seen(object) {
        return pending;
    }
    let wanted = count(object, "/status/desiredNumberScheduled");
    let updated = count(object, "/status/updatedNumberScheduled");
    let available = count(object, "/status/numberAvailable");
    if updated < wanted {
        return waiting(format!("{updated} of {wanted} pods are updated"));
    }
    if available < wanted {
        return waiting(format!("{available} of {wanted} pods are available"));
    }
    Health::Current
}

fn replica_set(object: &Value) -> Health {
    if let pending @ Health::InProgress(_) = seen(object) {
        return pending;
    }
    if let Some(refusal) = refusal(object) {
        return waiting(refusal);
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let available = count(object, "/status/availableReplicas");
    if available < wanted {
        return waiting(format!("{available} of {wanted} replicas are available"));
    }
    let total = count(object, "/status/replicas");
    if total > wanted {
        return too_many(total - wanted);
    }
    Health::Current
}

fn job(object: &Value) -> Health {
    if let Some(("True", reason, message)) = condition(object, "Failed") {
        return Health::Failed(format!("{reason}: {message}"));
    }
    if let Some(("True", ..)) = condition(object, "Complete") {
        return Health::Current;
    }
    if flag(object, "/spec/suspend") {
        return Health::Current;
    }
    // A Job that has not completed is waited for, because objects that depend on this Sync may need its result.
    match object.pointer("/status/startTime") {
        Some(_) => waiting("it has not completed"),
        None => waiting("it has not started"),
    }
}

fn pod(object: &Value) -> Health {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    let status = object.get("status").unwrap_or(&Value::Null);
    let trouble = || pods::of(namespace.unwrap_or_default(), name.unwrap_or_default(), status);
    match text(object, "/status/phase") {
        Some("Succeeded") => Health::Current,
        Some("Failed") => Health::Failed(trouble().unwrap_or_else(|| "its containers failed".into())),
        Some("Running") => {
            if let Some(("True", ..)) = condition(object, "Ready") {
                return if has_to_end(object) { waiting("it has not ended yet") } else { Health::Current };
            }
            match trouble() {
                Some(why) if is_crashing(object) => Health::Failed(why),
                why => waiting(why.unwrap_or_else(|| "it is not ready".into())),
            }
        }
        _ => match condition(object, "PodScheduled") {
            Some(("False", "Unschedulable", message)) => waiting(format!("it cannot be scheduled: {message}")),
            _ => waiting(trouble().unwrap_or_else(|| "it is pending".into())),
        },
    }
}

/// Whether the Pod is a hook of Helm or a test, which succeeds only when it ends.
fn has_to_end(object: &Value) -> bool {
    let annotations = object.pointer("/metadata/annotations").and_then(Value::as_object);
    annotations.is_some_and(|all| all.contains_key(crds::names::HELM_HOOK) || all.contains_key(crds::names::RUN_WHEN))
}

fn is_crashing(object: &Value) -> bool {
    let containers = object.pointer("/status/containerStatuses");
    let mut containers = containers.and_then(Value::as_array).into_iter().flatten();
    containers.any(|container| text(container, "/state/waiting/reason") == Some("CrashLoopBackOff"))
}

fn definition(object: &Value) -> Health {
    if let Some(("False", reason, message)) = condition(object, "NamesAccepted") {
        return Health::Failed(said(reason, message));
    }
    match condition(object, "Established") {
        Some(("True", ..)) => Health::Current,
        Some(("False", reason, message)) if reason != "Installing" => Health::Failed(said(reason, message)),
        _ => waiting("it is being installed"),
    }
}

fn phase(object: &Value, wanted: &str) -> Health {
    match text(object, "/status/phase") {
        Some(phase) if phase == wanted => Health::Current,
        phase => waiting(format!("it is {}", phase.unwrap_or("new"))),
    }
}

/// The rules for conditions that any kind may have.
fn by_standard_conditions(object: &Value) -> Option<Health> {
    if let Some(("True", reason, message)) = condition(object, "Stalled") {
        return Some(Health::Failed(said(reason, message)));
    }
    match condition(object, "Reconciling") {
        Some(("True", reason, message)) => Some(waiting(said(reason, message))),
        _ => None,
    }
}

/// The health of an object whose kind has no rule of its own: current, unless its condition of the type `kind` is False
/// or Unknown.
fn by_condition(object: &Value, kind: &str) -> Health {
    match condition(object, kind) {
        Some(("False" | "Unknown", reason, message)) => waiting(said(reason, message)),
        _ => Health::Current,
    }
}

/// What the status of an object says about the object's state in the conditions and fields that many kinds use for
/// this.
fn description(object: &Value) -> Option<String> {
    /// Conditions that are True if something is wrong, and those that are True if all is well.
    const BAD: [&str; 2] = ["NotReady", "InvalidSpec"];
    const GOOD: [&str; 11] = [
        "Ready",
        "Synced",
        "Available",
        "Healthy",
        "Installed",
        "Accepted",
        "Programmed",
        "Reconciled",
        "ReconcileSuccess",
        "AllReplicasReady",
        "Succeeded",
    ];
    let first = |pointers: &[&str]| {
        let texts = pointers.iter().filter_map(|pointer| text(object, pointer));
        texts.filter(|text| !text.is_empty()).map(pods::shortened).next()
    };
    let phase = first(&["/status/phase", "/status/state", "/status/updateStatus", "/status/PostgresClusterStatus"]);
    let message = first(&["/status/message", "/status/phaseReason", "/status/failureMessage", "/status/error/message"]);
    let message = message.or_else(|| first(&["/status/reason"]));
    if let (Some(phase), Some(message)) = (&phase, &message) {
        return Some(format!("it is {phase}: {message}"));
    }
    let said_of = |kind: &&str, wrong: fn(&str) -> bool| condition(object, kind).filter(|(status, ..)| wrong(status));
    let bad = BAD.iter().find_map(|kind| said_of(kind, |status| status == "True"));
    // A condition with a message says more than the one before it without.
    let good = || GOOD.iter().filter_map(|kind| said_of(kind, |status| status != "True"));
    let told = bad.or_else(|| good().find(|(.., message)| !message.is_empty())).or_else(|| good().next());
    let told = told.map(|(_, reason, message)| pods::shortened(&said(reason, message)));
    told.or(message).or_else(|| Some(format!("it is {}", phase?)))
}

/// `reason: message`; if one of the two is empty, only the other.
fn said(reason: &str, message: &str) -> String {
    match (reason, message) {
        ("", "") => "its controller does not say why".into(),
        (reason, "") => reason.into(),
        ("", message) => message.into(),
        (reason, message) => format!("{reason}: {message}"),
    }
}

#[cfg(test)]
mod tests;
