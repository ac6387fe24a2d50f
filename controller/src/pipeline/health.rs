//! Applied → healthy: the rules of kstatus, over the object's own status.
//!
//! The rules are those that the `kstatus` library documents and that `kubectl wait`, Flux and Argo CD users know:
//! an object is current when its controller has seen the last generation and says that it is done.

use manifests::ObjectId;
use serde_json::Value;

use super::{Stage, StageError};

/// Health of one object.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Health {
    /// Done.
    Current,
    /// On its way; what it waits for.
    InProgress(String),
    /// It will not get there by itself; why.
    Failed(String),
}

/// Objects that are not healthy.
#[derive(Clone, Debug, thiserror::Error)]
pub enum HealthError {
    /// They failed.
    #[error("{id} failed: {why}{}", and_more(*.more))]
    Failed {
        /// The first of them.
        id: ObjectId,
        /// Why.
        why: String,
        /// How many others.
        more: usize,
    },
    /// They took longer than the Sync's timeout.
    #[error("{id} is not healthy after {after}: {why}{}", and_more(*.more))]
    TimedOut {
        /// The first of them.
        id: ObjectId,
        /// What it waits for.
        why: String,
        /// `spec.timeout`.
        after: String,
        /// How many others.
        more: usize,
    },
}

fn and_more(more: usize) -> String {
    if more == 0 {
        String::new()
    } else {
        format!("; and {more} more")
    }
}

impl StageError for HealthError {
    const STAGE: Stage = Stage::Health;

    fn reason(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "HealthCheckFailed",
            Self::TimedOut { .. } => "HealthCheckTimedOut",
        }
    }

    /// The objects go on being watched: the Sync becomes Ready when they do.
    fn is_terminal(&self) -> bool {
        true
    }
}

/// Whether objects of the kind are done as soon as they exist, so that nothing has to be asked.
pub fn is_born_healthy(id: &ObjectId) -> bool {
    match id.group.as_str() {
        "" => !matches!(
            id.kind.as_str(),
            "Pod" | "ReplicationController" | "PersistentVolumeClaim" | "Service" | "Namespace"
        ),
        "rbac.authorization.k8s.io"
        | "scheduling.k8s.io"
        | "storage.k8s.io"
        | "node.k8s.io"
        | "coordination.k8s.io"
        | "admissionregistration.k8s.io" => true,
        "networking.k8s.io" => matches!(
            id.kind.as_str(),
            "IngressClass" | "NetworkPolicy" | "Ingress"
        ),
        "batch" => id.kind == "CronJob",
        "autoscaling" => true,
        // The apply stage waited until the kind was served.
        "apiextensions.k8s.io" => true,
        "bitnami.com" => true,
        _ => false,
    }
}

/// Health of `object`, which is of the kind of `id`.
pub fn assess(id: &ObjectId, object: &Value) -> Health {
    if object.pointer("/metadata/deletionTimestamp").is_some() {
        return Health::InProgress("it is being deleted".into());
    }
    let generation = number(object, "/metadata/generation");
    if let (Some(generation), Some(observed)) =
        (generation, number(object, "/status/observedGeneration"))
        && observed < generation
    {
        return waiting("its controller has not seen the last change yet");
    }
    match (id.group.as_str(), id.kind.as_str()) {
        ("apps", "Deployment") => deployment(object),
        ("apps", "StatefulSet") => stateful_set(object),
        ("apps", "DaemonSet") => daemon_set(object),
        ("apps", "ReplicaSet") | ("", "ReplicationController") => replica_set(object),
        ("batch", "Job") => job(object),
        ("", "Pod") => pod(object),
        ("", "PersistentVolumeClaim") => phase(object, "Bound"),
        ("", "Namespace") => phase(object, "Active"),
        ("", "Service") => service(object),
        ("policy", "PodDisruptionBudget") => seen(object),
        _ => by_conditions(object),
    }
}

fn waiting(why: impl Into<String>) -> Health {
    Health::InProgress(why.into())
}

fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

fn count(object: &Value, pointer: &str) -> i64 {
    number(object, pointer).unwrap_or(0)
}

fn condition<'a>(object: &'a Value, kind: &str) -> Option<(&'a str, &'a str, &'a str)> {
    let conditions = object.pointer("/status/conditions")?.as_array()?;
    let found = conditions
        .iter()
        .find(|condition| condition["type"] == kind)?;
    let text = |key: &str| found.get(key).and_then(Value::as_str).unwrap_or_default();
    Some((text("status"), text("reason"), text("message")))
}

/// For kinds whose controller always sets `observedGeneration`: without it, it has not looked yet.
fn seen(object: &Value) -> Health {
    match number(object, "/status/observedGeneration") {
        Some(_) => Health::Current,
        None => waiting("its controller has not seen it yet"),
    }
}

fn deployment(object: &Value) -> Health {
    if let Some((_, "ProgressDeadlineExceeded", message)) = condition(object, "Progressing") {
        return Health::Failed(format!("progress deadline exceeded: {message}"));
    }
    if let pending @ Health::InProgress(_) = seen(object) {
        return pending;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let (updated, total) = (
        count(object, "/status/updatedReplicas"),
        count(object, "/status/replicas"),
    );
    let available = count(object, "/status/availableReplicas");
    if updated < wanted {
        return waiting(format!("{updated} of {wanted} replicas are updated"));
    }
    if total > updated {
        return waiting(format!("{} old replicas are still there", total - updated));
    }
    if available < wanted {
        return waiting(format!("{available} of {wanted} replicas are available"));
    }
    Health::Current
}

fn stateful_set(object: &Value) -> Health {
    if let pending @ Health::InProgress(_) = seen(object) {
        return pending;
    }
    if object
        .pointer("/spec/updateStrategy/type")
        .and_then(Value::as_str)
        == Some("OnDelete")
    {
        return Health::Current;
    }
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let ready = count(object, "/status/readyReplicas");
    if ready < wanted {
        return waiting(format!("{ready} of {wanted} replicas are ready"));
    }
    let partition = count(object, "/spec/updateStrategy/rollingUpdate/partition");
    let updated = count(object, "/status/updatedReplicas");
    if updated < wanted - partition {
        return waiting(format!(
            "{updated} of {} replicas are updated",
            wanted - partition
        ));
    }
    let revision = |key: &str| object.pointer(key).and_then(Value::as_str);
    if partition == 0 && revision("/status/currentRevision") != revision("/status/updateRevision") {
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
    let wanted = number(object, "/spec/replicas").unwrap_or(1);
    let available = count(object, "/status/availableReplicas");
    if available < wanted {
        return waiting(format!("{available} of {wanted} replicas are available"));
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
    if object.pointer("/spec/suspend").and_then(Value::as_bool) == Some(true) {
        return Health::Current;
    }
    match object.pointer("/status/startTime") {
        // A Job that runs for hours must not hold back a revision: it is enough that it runs.
        Some(_) => Health::Current,
        None => waiting("it has not started"),
    }
}

fn pod(object: &Value) -> Health {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some("Succeeded") => Health::Current,
        Some("Failed") => Health::Failed("its containers failed".into()),
        Some("Running") => match condition(object, "Ready") {
            Some(("True", ..)) => Health::Current,
            _ => waiting("it is not ready"),
        },
        _ => waiting("it is pending"),
    }
}

fn phase(object: &Value, wanted: &str) -> Health {
    match object.pointer("/status/phase").and_then(Value::as_str) {
        Some(phase) if phase == wanted => Health::Current,
        phase => waiting(format!("it is {}", phase.unwrap_or("new"))),
    }
}

fn service(object: &Value) -> Health {
    if object.pointer("/spec/type").and_then(Value::as_str) != Some("LoadBalancer") {
        return Health::Current;
    }
    let assigned = object
        .pointer("/status/loadBalancer/ingress")
        .and_then(Value::as_array);
    if assigned.is_some_and(|ingress| !ingress.is_empty()) {
        Health::Current
    } else {
        waiting("it has no load balancer address yet")
    }
}

/// Kinds that gitseal does not know: the conditions that most controllers set.
fn by_conditions(object: &Value) -> Health {
    if let Some(("True", reason, message)) = condition(object, "Stalled") {
        return Health::Failed(format!("{reason}: {message}"));
    }
    if let Some(("True", _, message)) = condition(object, "Reconciling") {
        return waiting(if message.is_empty() {
            "it is reconciling"
        } else {
            message
        });
    }
    match condition(object, "Ready").or_else(|| condition(object, "Available")) {
        Some(("False", reason, message)) => waiting(format!("{reason}: {message}")),
        Some(("Unknown", _, message)) => waiting(message),
        _ => Health::Current,
    }
}

#[cfg(test)]
mod tests;
