//! Why the Pods of a workload are not ready. The workload's own status does not say this.

use manifests::ObjectId;
use serde::Deserialize;
use serde_json::{Value, json};

use super::{condition, text};

/// How many characters of the message of a container or of a refused Pod are repeated.
const MESSAGE: usize = 300;

/// A list of Pods with only the fields that are used here, so that the other fields are not kept in memory.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Pods {
    items: Vec<Pod>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Pod {
    metadata: Metadata,
    status: Value,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Metadata {
    name: String,
    namespace: String,
    uid: String,
    creation_timestamp: String,
    deletion_timestamp: Option<String>,
}

/// What the Pods of a workload say.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Said {
    /// What is wrong with the newest Pod that has a problem: `Pod web-1: container app: ImagePullBackOff: Back-off pulling
    /// image "x"`.
    Trouble(String),
    /// The newest Pod that is not ready does not say why. Its events may.
    Nothing {
        /// Name of the Pod.
        name: String,
        /// UID of the Pod.
        uid: String,
    },
    /// There are no Pods. Events of the workload may say why.
    NoPods,
    /// All Pods are ready, or have ended.
    Ready,
}

/// A label selector, in the form for the API, that selects the Pods of `object`; `None` if the object has no Pods of
/// its own.
pub fn selector(id: &ObjectId, object: &Value) -> Option<String> {
    match (id.group.as_str(), id.kind.as_str()) {
        ("apps", "Deployment" | "StatefulSet" | "DaemonSet" | "ReplicaSet") | ("batch", "Job") => {}
        _ => return None,
    }
    let selector = object.pointer("/spec/selector")?;
    let mut parts: Vec<String> = Vec::new();
    for (key, value) in selector.get("matchLabels").and_then(Value::as_object).into_iter().flatten() {
        parts.push(format!("{key}={}", value.as_str()?));
    }
    for expression in selector.get("matchExpressions").and_then(Value::as_array).into_iter().flatten() {
        let (key, operator) = (text(expression, "/key")?, text(expression, "/operator")?);
        let values = expression.get("values").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let values: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
        parts.push(match operator {
            "In" => format!("{key} in ({})", values.join(",")),
            "NotIn" => format!("{key} notin ({})", values.join(",")),
            "Exists" => key.to_owned(),
            "DoesNotExist" => format!("!{key}"),
            _ => return None,
        });
    }
    (!parts.is_empty()).then(|| parts.join(","))
}

/// What these Pods say.
pub fn said(pods: Pods) -> Said {
    let mut there: Vec<_> = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none()).collect();
    there.sort_by(|a, b| b.metadata.creation_timestamp.cmp(&a.metadata.creation_timestamp));
    if there.is_empty() {
        return Said::NoPods;
    }
    let trouble =
        there.iter().find_map(|pod| Some((pod, of(&pod.metadata.namespace, &pod.metadata.name, &pod.status)?)));
    if let Some((pod, why)) = trouble {
        return Said::Trouble(format!("Pod {}: {why}", pod.metadata.name));
    }
    let silent = there.into_iter().find(|pod| !is_ready(&pod.status));
    silent.map_or(Said::Ready, |pod| Said::Nothing { name: pod.metadata.name, uid: pod.metadata.uid })
}

fn is_ready(status: &Value) -> bool {
    let pod = json!({ "status": status });
    text(status, "/phase") == Some("Succeeded") || matches!(condition(&pod, "Ready"), Some(("True", ..)))
}

/// What the status of a Pod says about a problem.
pub(super) fn of(namespace: &str, name: &str, status: &Value) -> Option<String> {
    if let Some(("False", reason, message)) = condition(&json!({ "status": status }), "PodScheduled") {
        return Some(format!("{reason}: {}", shortened(message)));
    }
    let statuses = ["/initContainerStatuses", "/containerStatuses"];
    let mut containers = statuses.iter().filter_map(|list| status.pointer(list)?.as_array()).flatten();
    containers.find_map(|container| of_container(namespace, name, container)).or_else(|| {
        let failed = text(status, "/phase") == Some("Failed");
        let said = [text(status, "/reason"), text(status, "/message")];
        let said: Vec<&str> = said.into_iter().flatten().collect();
        (failed && !said.is_empty()).then(|| shortened(&said.join(": ")))
    })
}

fn of_container(namespace: &str, pod: &str, status: &Value) -> Option<String> {
    let name = text(status, "/name").unwrap_or_default();
    // The log itself is not repeated, because it may contain anything.
    let log = |previous: &str| {
        let namespace = if namespace.is_empty() { String::new() } else { format!(" -n {namespace}") };
        format!("kubectl logs{namespace} {pod} -c {name}{previous}")
    };
    let waiting = text(status, "/state/waiting/reason").unwrap_or_default();
    let why = match waiting {
        "" => format!("{} (its log: {})", ended(status, "/state/terminated")?, log("")),
        // The container is still being created.
        "ContainerCreating" | "PodInitializing" => return None,
        // This reason only says that the container is restarted later. How the container ended last is more helpful.
        "CrashLoopBackOff" => {
            let last = ended(status, "/lastState/terminated").map(|last| format!(": {last}")).unwrap_or_default();
            let restarts = match status.pointer("/restartCount").and_then(Value::as_i64).unwrap_or(0) {
                0 => String::new(),
                1 => ", 1 restart".into(),
                more => format!(", {more} restarts"),
            };
            format!("{waiting}{last}{restarts} (its log: {})", log(" --previous"))
        }
        _ => match text(status, "/state/waiting/message").unwrap_or_default() {
            "" => waiting.to_owned(),
            message => format!("{waiting}: {}", shortened(message)),
        },
    };
    Some(format!("container {name}: {why}"))
}

/// How a container ended, if it failed. The container's own termination message is not repeated, because it may contain
/// anything.
fn ended(status: &Value, place: &str) -> Option<String> {
    let ended = status.pointer(place)?;
    let code = ended.get("exitCode").and_then(Value::as_i64).filter(|code| *code != 0)?;
    let reason = text(ended, "/reason").unwrap_or("Error");
    Some(format!("{reason}, exit code {code}"))
}

/// A list of events with only the fields that are used here.
#[derive(Default, Deserialize)]
#[serde(default)]
pub struct Events {
    items: Vec<Event>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Event {
    #[serde(rename = "type")]
    type_: Option<String>,
    reason: Option<String>,
    message: Option<String>,
    last_timestamp: Option<String>,
    #[serde(rename = "eventTime")]
    first: Option<String>,
    series: Option<Series>,
}

#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Series {
    last_observed_time: Option<String>,
}

impl Event {
    fn last(&self) -> &str {
        let series = self.series.as_ref().and_then(|series| series.last_observed_time.as_deref());
        series.or(self.last_timestamp.as_deref()).or(self.first.as_deref()).unwrap_or_default()
    }

    /// Whether the event says why its object makes no progress.
    fn is_reason(&self) -> bool {
        let waits = ["WaitForFirstConsumer", "FailedBinding", "ExternalProvisioning"];
        self.type_.as_deref() == Some("Warning") || self.reason.as_deref().is_some_and(|reason| waits.contains(&reason))
    }
}

/// Whether the events of an unhealthy object of this kind may say more than its status.
pub fn has_events(id: &ObjectId) -> bool {
    id.group.is_empty() && matches!(id.kind.as_str(), "PersistentVolumeClaim" | "Pod")
}

/// The reason and message of the newest event that says why its object makes no progress.
pub fn newest(events: Events) -> Option<String> {
    let reasons = events.items.into_iter().filter(Event::is_reason);
    let newest = reasons.max_by(|a, b| a.last().cmp(b.last()))?;
    let (reason, message) = (newest.reason.unwrap_or_default(), newest.message.unwrap_or_default());
    let message = if repeats_output(&reason) { before_colon(&message) } else { &message };
    Some(format!("{reason}: {}", shortened(message)))
}

/// Whether messages of events with this reason end with the output of a command that a container runs as a probe or as
/// a lifecycle hook. The output comes after the first colon.
fn repeats_output(reason: &str) -> bool {
    matches!(reason, "Unhealthy" | "ProbeWarning" | "FailedPostStartHook" | "FailedPreStopHook")
}

fn before_colon(message: &str) -> &str {
    message.split_once(':').map_or(message, |(before, _)| before)
}

/// A message that another program wrote, shortened for a status.
pub(super) fn shortened(message: &str) -> String {
    let mut short: String = message.chars().take(MESSAGE).collect();
    if short.len() < message.len() {
        short.push('…');
    }
    short
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn id(group: &str, kind: &str) -> ObjectId {
        ObjectId { group: group.into(), kind: kind.into(), namespace: Some("team".into()), name: "web".into() }
    }

    #[test]
    fn the_pods_are_found_by_the_workload_s_selector() {
        let object = json!({"spec": {"selector": {"matchLabels": {"app": "web"}, "matchExpressions": [
            {"key": "tier", "operator": "In", "values": ["a", "b"]}, {"key": "old", "operator": "DoesNotExist"}]}}});
        assert_eq!(selector(&id("apps", "Deployment"), &object).as_deref(), Some("app=web,tier in (a,b),!old"));
        assert_eq!(selector(&id("", "Service"), &object), None);
        assert_eq!(selector(&id("apps", "Deployment"), &json!({"spec": {"selector": {}}})), None, "every Pod");
    }

    #[test]
    fn the_newest_pod_with_trouble_is_told() {
        let said = |pods: &[&Value]| super::said(serde_json::from_value(json!({"items": pods})).unwrap());
        let trouble = |pods: &[&Value]| match said(pods) {
            Said::Trouble(why) => Some(why),
            _ => None,
        };
        let pod = |name: &str, created: &str, status: Value| json!({"metadata": {"name": name, "namespace": "team", "uid": "1", "creationTimestamp": created}, "status": status});
        let waiting = |reason: &str, message: &str| json!({"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": reason, "message": message}}}]});
        let pull = pod("web-2", "2026-01-02T00:00:00Z", waiting("ImagePullBackOff", "Back-off pulling image \"x\""));
        let old = pod("web-1", "2026-01-01T00:00:00Z", waiting("ErrImagePull", "no"));
        let new = pod("web-3", "2026-01-03T00:00:00Z", waiting("ContainerCreating", ""));
        assert_eq!(
            trouble(&[&old, &pull, &new]).as_deref(),
            Some("Pod web-2: container app: ImagePullBackOff: Back-off pulling image \"x\"")
        );
        assert_eq!(said(&[&new]), Said::Nothing { name: "web-3".into(), uid: "1".into() });
        assert_eq!(said(&[]), Said::NoPods);
        let ready = json!({"conditions": [{"type": "Ready", "status": "True"}]});
        assert_eq!(said(&[&pod("web-4", "", ready)]), Said::Ready);
        let crash = json!({"containerStatuses": [{"name": "app", "restartCount": 5, "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "secret"}}}]});
        let crashing = trouble(&[&pod("web-1", "", crash)]);
        assert_eq!(
            crashing.as_deref(),
            Some(
                "Pod web-1: container app: CrashLoopBackOff: OOMKilled, exit code 137, 5 restarts (its log: kubectl logs -n team web-1 -c app --previous)"
            )
        );
        let failed = json!({"containerStatuses": [{"name": "app", "state": {"terminated": {"exitCode": 1, "message": "secret"}}}]});
        let failed = trouble(&[&pod("job-1", "", failed)]);
        assert_eq!(
            failed.as_deref(),
            Some("Pod job-1: container app: Error, exit code 1 (its log: kubectl logs -n team job-1 -c app)")
        );
        let full = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available"}]});
        let full = trouble(&[&pod("web-1", "", full)]);
        assert_eq!(full.as_deref(), Some("Pod web-1: Unschedulable: 0/3 nodes are available"));
        let long = trouble(&[&pod("web-1", "", waiting("CreateContainerError", &"x".repeat(10_000)))]).unwrap();
        assert!(long.chars().count() < 400, "{long}");
    }

    #[test]
    fn the_newest_event_that_gives_a_reason_is_told() {
        let newest = |events: Value| super::newest(serde_json::from_value(json!({ "items": events })).unwrap());
        let event = |kind: &str, reason: &str, at: &str| json!({"type": kind, "reason": reason, "message": format!("at {at}"), "lastTimestamp": at, "series": null});
        assert_eq!(newest(json!([])), None);
        let mut events = json!([
            event("Warning", "FailedCreate", "2026-01-02"),
            event("Warning", "Old", "2026-01-01"),
            event("Normal", "Scheduled", "2026-01-05")
        ]);
        assert_eq!(newest(events.clone()).as_deref(), Some("FailedCreate: at 2026-01-02"));
        events[1]["series"] = json!({"lastObservedTime": "2026-01-03"});
        assert_eq!(newest(events).as_deref(), Some("Old: at 2026-01-01"));
        let claim = newest(json!([event("Normal", "WaitForFirstConsumer", "2026-01-01")]));
        assert_eq!(claim.as_deref(), Some("WaitForFirstConsumer: at 2026-01-01"));
        let probe =
            json!({"type": "Warning", "reason": "Unhealthy", "message": "Readiness probe failed: password is x"});
        assert_eq!(newest(json!([probe])).as_deref(), Some("Unhealthy: Readiness probe failed"));
    }
}
