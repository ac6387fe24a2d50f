//! What the metadata of a Job show. The controller watches only the metadata of Jobs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::set_of;

/// How a Job with a time to live ended that disappears, or is about to.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Expired {
    /// It is complete.
    Complete,
    /// It is being deleted and is not complete, so it failed.
    Failed,
    /// Nobody saw how it ended. The metadata of a Job never say this.
    Unseen,
}

/// How the Job ended, if it has a time to live (`spec.ttlSecondsAfterFinished`) and is complete or is being deleted by
/// Kubernetes. If such a Job disappears, nobody deleted it by hand.
///
/// In the metadata, a complete Job can be recognised by the field for its time of completion; a failed Job looks like a
/// running one. But when the time to live of a failed Job is over, Kubernetes deletes the Job with the finalizer
/// `foregroundDeletion`. A deletion by hand sets this finalizer only if foreground deletion is requested.
pub fn expired_job(meta: &ObjectMeta) -> Option<Expired> {
    let entries = meta.managed_fields.iter().flatten();
    let of_job =
        entries.filter(|entry| entry.api_version.as_deref().is_some_and(|version| version.starts_with("batch/")));
    let fields: Vec<&Value> = of_job.filter_map(set_of).collect();
    let has = |pointer: &str| fields.iter().any(|fields| fields.pointer(pointer).is_some());
    let mut finalizers = meta.finalizers.iter().flatten();
    let is_taken_away = meta.deletion_timestamp.is_some() && finalizers.any(|name| name == "foregroundDeletion");
    if !has("/f:spec/f:ttlSecondsAfterFinished") {
        None
    } else if has("/f:status/f:completionTime") {
        Some(Expired::Complete)
    } else {
        is_taken_away.then_some(Expired::Failed)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn ended(version: &str, spec: Value, status: Value, more: Value) -> Option<Expired> {
        let mut meta = json!({"name": "a", "managedFields": [
            {"manager": "gitseal", "operation": "Apply", "apiVersion": version, "fieldsV1": {"f:spec": spec}},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "apiVersion": version,
             "fieldsV1": {"f:status": status}},
        ]});
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        expired_job(&serde_json::from_value(meta).unwrap())
    }

    #[test]
    fn a_job_expires_when_it_is_complete_or_taken_away_and_has_a_time_to_live() {
        let short = || json!({"f:ttlSecondsAfterFinished": {}});
        let complete = || json!({"f:conditions": {}, "f:completionTime": {}});
        let running = || json!({"f:conditions": {}, "f:active": {}});
        let at = "2026-01-01T00:00:00Z";
        let taken_away = || json!({"deletionTimestamp": at, "finalizers": ["foregroundDeletion"]});
        assert_eq!(ended("batch/v1", short(), complete(), json!({})), Some(Expired::Complete));
        assert_eq!(ended("batch/v1", short(), complete(), taken_away()), Some(Expired::Complete));
        assert_eq!(ended("batch/v1", short(), running(), taken_away()), Some(Expired::Failed));
        assert_eq!(ended("batch/v1", short(), running(), json!({})), None);
        let held = json!({"deletionTimestamp": at, "finalizers": ["a.dev/hold"]});
        assert_eq!(ended("batch/v1", short(), running(), held), None);
        assert_eq!(ended("batch/v1", json!({"f:suspend": {}}), complete(), taken_away()), None);
        assert_eq!(ended("example.com/v1", short(), complete(), json!({})), None);
        assert_eq!(expired_job(&ObjectMeta::default()), None);
    }
}
