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
    creation_timestamp: String,
    deletion_timestamp: Option<String>,
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

/// What is wrong with the newest Pod that has a problem: `Pod web-1: container app: ImagePullBackOff: Back-off pulling
/// image "x"`.
pub fn trouble(pods: Pods) -> Option<String> {
    let there = pods.items.into_iter().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    let troubled = there.filter_map(|pod| Some((pod.metadata, of(&json!({"status": pod.status}))?)));
    let (pod, why) = troubled.max_by(|(a, _), (b, _)| a.creation_timestamp.cmp(&b.creation_timestamp))?;
    Some(format!("Pod {}: {why}", pod.name))
}

fn of(pod: &Value) -> Option<String> {
    if let Some(("False", reason, message)) = condition(pod, "PodScheduled") {
        return Some(format!("{reason}: {}", shortened(message)));
    }
    let statuses = ["/status/initContainerStatuses", "/status/containerStatuses"];
    let mut containers =
        statuses.iter().filter_map(|list| pod.pointer(list)?.as_array()).flatten().filter_map(of_container);
    containers.next().or_else(|| {
        let failed = text(pod, "/status/phase") == Some("Failed");
        let said = [text(pod, "/status/reason"), text(pod, "/status/message")];
        let said: Vec<&str> = said.into_iter().flatten().collect();
        (failed && !said.is_empty()).then(|| shortened(&said.join(": ")))
    })
}

fn of_container(status: &Value) -> Option<String> {
    let name = text(status, "/name").unwrap_or_default();
    let last = ended(status, "/lastState/terminated");
    let waiting = text(status, "/state/waiting/reason").unwrap_or_default();
    let why = match waiting {
        "" => ended(status, "/state/terminated")?,
        // The container is still being created.
        "ContainerCreating" | "PodInitializing" => return None,
        // This reason only says that the container is restarted later. How the container ended last is more helpful.
        "CrashLoopBackOff" => last.map_or_else(|| waiting.to_owned(), |last| format!("{waiting}: {last}")),
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
        let trouble = |pods: &[&Value]| super::trouble(serde_json::from_value(json!({"items": pods})).unwrap());
        let pod = |name: &str, created: &str, status: Value| json!({"metadata": {"name": name, "creationTimestamp": created}, "status": status});
        let waiting = |reason: &str, message: &str| json!({"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": reason, "message": message}}}]});
        let pull = pod("web-2", "2026-01-02T00:00:00Z", waiting("ImagePullBackOff", "Back-off pulling image \"x\""));
        let old = pod("web-1", "2026-01-01T00:00:00Z", waiting("ErrImagePull", "no"));
        let new = pod("web-3", "2026-01-03T00:00:00Z", waiting("ContainerCreating", ""));
        assert_eq!(
            trouble(&[&old, &pull, &new]).as_deref(),
            Some("Pod web-2: container app: ImagePullBackOff: Back-off pulling image \"x\"")
        );
        assert_eq!(trouble(&[&new]), None);
        let crash = json!({"containerStatuses": [{"name": "app", "state": {"waiting": {"reason": "CrashLoopBackOff"}},
            "lastState": {"terminated": {"exitCode": 137, "reason": "OOMKilled", "message": "secret"}}}]});
        let crashing = trouble(&[&pod("web-1", "", crash)]);
        assert_eq!(crashing.as_deref(), Some("Pod web-1: container app: CrashLoopBackOff: OOMKilled, exit code 137"));
        let full = json!({"conditions": [{"type": "PodScheduled", "status": "False", "reason": "Unschedulable",
            "message": "0/3 nodes are available"}]});
        let full = trouble(&[&pod("web-1", "", full)]);
        assert_eq!(full.as_deref(), Some("Pod web-1: Unschedulable: 0/3 nodes are available"));
        let long = trouble(&[&pod("web-1", "", waiting("CreateContainerError", &"x".repeat(10_000)))]).unwrap();
        assert!(long.chars().count() < 400, "{long}");
    }
}
