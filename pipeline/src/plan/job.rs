//! Jobs that Kubernetes deletes some time after their end.

use super::{Content, Step};

/// Whether the step is a Job that Kubernetes deletes some time after its end. If such a Job is missing, it need not be
/// created again.
pub(super) fn expires(step: &Step) -> bool {
    let Content::Manifest(body) = &step.content else { return false };
    let is_job = step.id.group == "batch" && step.id.kind == "Job";
    let time = body.get("spec").and_then(|spec| spec.get("ttlSecondsAfterFinished"));
    is_job && time.is_some_and(|time| !time.is_null())
}
