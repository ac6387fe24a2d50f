//! What the metadata of a Job show. The controller watches only the metadata of Jobs.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use crate::set_of;

/// Whether this is a Job with a time to live (`spec.ttlSecondsAfterFinished`) that is complete or that Kubernetes is
/// deleting. If such a Job disappears, nobody deleted it by hand.
///
/// In the metadata, a complete Job can be recognised by the field for its time of completion; a failed Job looks like a
/// running one. But when the time to live of a failed Job is over, Kubernetes deletes the Job with the finalizer
/// `foregroundDeletion`. A deletion by hand sets this finalizer only if foreground deletion is requested.
pub fn is_expiring_job(meta: &ObjectMeta) -> bool {
    let entries = meta.managed_fields.iter().flatten();
    let of_job =
        entries.filter(|entry| entry.api_version.as_deref().is_some_and(|version| version.starts_with("batch/")));
    let fields: Vec<&Value> = of_job.filter_map(set_of).collect();
    let has = |pointer: &str| fields.iter().any(|fields| fields.pointer(pointer).is_some());
    let mut finalizers = meta.finalizers.iter().flatten();
    let is_taken_away = meta.deletion_timestamp.is_some() && finalizers.any(|name| name == "foregroundDeletion");
    has("/f:spec/f:ttlSecondsAfterFinished") && (is_taken_away || has("/f:status/f:completionTime"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn is(version: &str, spec: Value, status: Value, more: Value) -> bool {
        let mut meta = json!({"name": "a", "managedFields": [
            {"manager": "gitseal", "operation": "Apply", "apiVersion": version, "fieldsV1": {"f:spec": spec}},
            {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status", "apiVersion": version,
             "fieldsV1": {"f:status": status}},
        ]});
        meta.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        is_expiring_job(&serde_json::from_value(meta).unwrap())
    }

    #[test]
    fn a_job_expires_when_it_is_complete_or_taken_away_and_has_a_time_to_live() {
        let short = || json!({"f:ttlSecondsAfterFinished": {}});
        let complete = || json!({"f:conditions": {}, "f:completionTime": {}});
        let running = || json!({"f:conditions": {}, "f:active": {}});
        let at = "2026-01-01T00:00:00Z";
        let taken_away = || json!({"deletionTimestamp": at, "finalizers": ["foregroundDeletion"]});
        assert!(is("batch/v1", short(), complete(), json!({})));
        assert!(is("batch/v1", short(), running(), taken_away()));
        assert!(!is("batch/v1", short(), running(), json!({})));
        assert!(!is("batch/v1", short(), running(), json!({"deletionTimestamp": at, "finalizers": ["a.dev/hold"]})));
        assert!(!is("batch/v1", json!({"f:suspend": {}}), complete(), taken_away()));
        assert!(!is("example.com/v1", short(), complete(), json!({})));
        assert!(!is_expiring_job(&ObjectMeta::default()));
    }
}
