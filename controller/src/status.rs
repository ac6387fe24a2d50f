//! Writes statuses. A status is written only if it changes, and only the fields that changed are sent.

use std::{collections::BTreeSet, fmt::Debug};

use crds::{
    Condition, ConditionStatus, ObjectKey, SealedSecret, SealedSecretStatus, conditions, find_condition, set_condition,
};
use k8s_openapi::api::core::v1::ObjectReference;
use kube::ResourceExt;
use manifests::in_one_line;
use pipeline::Resource;
use serde::Serialize;
use serde_json::{Map, Value, json};

use crate::cluster::{Api, ApiError};

/// The current time in whole seconds (RFC 3339).
pub(crate) fn now() -> String {
    let now = jiff::Timestamp::now();
    jiff::Timestamp::from_second(now.as_second()).unwrap_or(now).to_string()
}

/// The state of one of gitseal's own objects.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Progress {
    /// Everything is done.
    Ready,
    /// The controller works on the object.
    Working,
    /// The work failed, and the controller tries again by itself.
    Retrying,
    /// Somebody has to change something.
    Stalled,
}

/// Sets the conditions Ready, Reconciling and Stalled so that kstatus understands them. The message may contain text of
/// a tenant or a server, so it is made one line, without characters that control a terminal.
pub(crate) fn set_progress(
    all: &mut Vec<Condition>,
    progress: Progress,
    reason: &str,
    message: &str,
    generation: Option<i64>,
) {
    let message = in_one_line(message);
    let condition = |type_: &str, status| Condition {
        type_: type_.into(),
        status,
        reason: reason.into(),
        message: message.clone().into_owned(),
        last_transition_time: Some(now()),
        observed_generation: generation,
    };
    let ready = match progress {
        Progress::Ready => ConditionStatus::True,
        Progress::Working => ConditionStatus::Unknown,
        Progress::Retrying | Progress::Stalled => ConditionStatus::False,
    };
    set_condition(all, condition(conditions::READY, ready));
    let also = match progress {
        Progress::Ready => None,
        Progress::Working | Progress::Retrying => Some(conditions::RECONCILING),
        Progress::Stalled => Some(conditions::STALLED),
    };
    let is_over = |type_: &str| [conditions::RECONCILING, conditions::STALLED].contains(&type_) && Some(type_) != also;
    all.retain(|condition| !is_over(&condition.type_));
    if let Some(type_) = also {
        set_condition(all, condition(type_, ConditionStatus::True));
    }
}

/// Whether the condition Ready already has this reason and message. So a failure is logged only once, however often the
/// work is tried again.
pub(crate) fn says(all: &[Condition], reason: &str, message: &str) -> bool {
    find_condition(all, conditions::READY)
        .is_some_and(|ready| ready.reason == reason && ready.message == in_one_line(message))
}

/// The fields of `new` that differ from `old`, and the fields in `unsure`, as a merge patch. In the patch, null removes
/// a field that `new` does not have.
fn changes<S: Serialize>(old: &S, unsure: &BTreeSet<String>, new: &S) -> Map<String, Value> {
    let fields = |status: &S| match serde_json::to_value(status) {
        Ok(Value::Object(map)) => map,
        _ => Map::new(),
    };
    let (mut before, now) = (fields(old), fields(new));
    let gone = unsure.iter().chain(before.keys()).filter(|key| !now.contains_key(*key));
    let mut patch: Map<_, _> = gone.map(|key| (key.clone(), Value::Null)).collect();
    for (key, value) in now {
        if before.remove(&key).as_ref() != Some(&value) || unsure.contains(&key) {
            patch.insert(key, value);
        }
    }
    patch
}

/// Writes the changed fields of a status, and the fields in `unsure`, whose last write failed but may have been stored
/// nevertheless. If the object does not exist, nothing is done.
pub(crate) async fn write<S: Serialize + Clone + Debug>(
    api: &Api,
    resource: &Resource,
    key: &ObjectKey,
    old: &mut S,
    unsure: &mut BTreeSet<String>,
    new: S,
) -> Result<(), ApiError> {
    let changes = changes(old, unsure, &new);
    if changes.is_empty() {
        return Ok(());
    }
    let patch = json!({ "status": &changes });
    match api.merge(resource, Some(&key.namespace), &key.name, Some("status"), &patch).await {
        Ok(_) => {}
        Err(error) if error.is_not_found() => {}
        Err(error) => {
            unsure.extend(changes.into_iter().map(|(field, _)| field));
            return Err(error);
        }
    }
    unsure.clear();
    *old = new;
    Ok(())
}

/// Writes the status of a SealedSecret as a whole, if it changed. If the object does not exist, nothing is done. If the
/// object was changed in the meantime, the error is a conflict ([`ApiError::is_conflict`]).
pub(crate) async fn replace(
    api: &Api,
    sealed: &SealedSecret,
    key: &ObjectKey,
    new: &SealedSecretStatus,
) -> Result<(), ApiError> {
    if sealed.status.as_ref() == Some(new) {
        return Ok(());
    }
    let version = sealed.metadata.resource_version.as_deref();
    let status = serde_json::to_value(new).expect("every map in a status has strings as keys");
    let resource = resource_of::<SealedSecret>();
    match api.replace_status(&resource, &key.namespace, &key.name, version, &status).await {
        Err(error) if !error.is_not_found() => Err(error),
        _ => Ok(()),
    }
}

/// The API resource of one of gitseal's own kinds.
pub(crate) fn resource_of<K: kube::Resource<DynamicType = ()>>() -> Resource {
    Resource {
        group: K::group(&()).into_owned(),
        version: K::version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        plural: K::plural(&()).into_owned(),
        namespaced: true,
        watchable: true,
    }
}

/// A reference to an object, for an event about it.
pub(crate) fn reference<K: kube::Resource<DynamicType = ()>>(object: &K) -> ObjectReference {
    ObjectReference { resource_version: object.resource_version(), ..object.object_ref(&()) }
}

/// The value of the annotation that requests a reconcile now. A new value is a new request.
pub(crate) fn requested_at<K: ResourceExt>(object: &K) -> Option<&str> {
    object.annotations().get(crds::names::RECONCILE_REQUESTED_AT).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use crds::{Sync, SyncStatus};

    use super::*;
    use crate::{keys::tests::fake_api::FakeApi, leader::Leadership, metrics::Metrics};

    #[test]
    fn only_what_is_new_is_written() {
        let old = SyncStatus {
            last_applied_revision: Some("a".into()),
            applied_content: Some("x".into()),
            ..SyncStatus::default()
        };
        let sure = BTreeSet::new();
        assert_eq!(changes(&old, &sure, &old), Map::new());
        let new = SyncStatus { last_applied_revision: Some("b".into()), ..SyncStatus::default() };
        assert_eq!(
            Value::from(changes(&old, &sure, &new)),
            json!({"lastAppliedRevision": "b", "appliedContent": null})
        );
    }

    #[tokio::test]
    async fn what_a_lost_answer_may_have_left_is_written_again() {
        let (server, client) = FakeApi::start().await;
        let path = "/apis/gitseal.dev/v1alpha1/namespaces/team/syncs/app/status";
        server.put(path, json!({}));
        let api = Api::new(client, Leadership::alone(), Metrics::new("test"));
        let key = ObjectKey::new("team", "app");
        let before =
            SyncStatus { applied_content: Some("x".into()), applied_objects: Some(1), ..SyncStatus::default() };
        let (mut known, mut unsure) = (before.clone(), BTreeSet::new());
        let now =
            SyncStatus { last_applied_revision: Some("a".into()), applied_objects: Some(1), ..SyncStatus::default() };
        server.refuse("PATCH", 403);
        write(&api, &resource_of::<Sync>(), &key, &mut known, &mut unsure, now).await.unwrap_err();
        // The patch sets the fields that the failed write may have changed back to their previous values.
        let again = json!({"appliedContent": "x", "lastAppliedRevision": null});
        assert_eq!(Value::from(changes(&known, &unsure, &before)), again);
        server.refuse("PATCH", 0);
        write(&api, &resource_of::<Sync>(), &key, &mut known, &mut unsure, before.clone()).await.unwrap();
        assert_eq!(changes(&known, &unsure, &before), Map::new());
    }

    #[test]
    fn kstatus_reads_every_state() {
        let mut all = Vec::new();
        let is = |all: &[Condition], kind: &str| find_condition(all, kind).map(|c| c.status);
        set_progress(&mut all, Progress::Retrying, "ApplyFailed", "no", Some(1));
        assert_eq!(is(&all, "Ready"), Some(ConditionStatus::False));
        assert_eq!(is(&all, "Reconciling"), Some(ConditionStatus::True));
        set_progress(&mut all, Progress::Stalled, "PlaintextSecret", "no", Some(1));
        assert_eq!((is(&all, "Reconciling"), is(&all, "Stalled")), (None, Some(ConditionStatus::True)));
        set_progress(&mut all, Progress::Ready, "Applied", "yes", Some(1));
        assert_eq!((is(&all, "Ready"), is(&all, "Stalled")), (Some(ConditionStatus::True), None));
    }

    #[test]
    fn a_message_is_one_line_that_no_terminal_obeys() {
        let mut all = Vec::new();
        set_progress(&mut all, Progress::Stalled, "InvalidManifest", "a\u{1b}[2J.yaml:1\nb\u{202e}", Some(1));
        assert_eq!(all.len(), 2);
        assert!(all.iter().all(|condition| condition.message == "a\\u{1b}[2J.yaml:1\\nb\\u{202e}"), "{all:?}");
    }
}
