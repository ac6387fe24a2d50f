//! Suspends and resumes Repositories and Syncs.

use std::process::ExitCode;

use crds::{FIELD_MANAGER, names};
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use kube::{
    Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    found::{Choice, Found, api},
    global::Global,
    managed::{self, Managed},
    output::{self, Hint},
    time,
};

/// Field manager of suspending and resuming. It owns only `spec.suspend` and the annotation with the reason, so its
/// time in `managedFields` is the time of the suspension.
pub const SUSPEND_MANAGER: &str = "gitseal-suspend";

/// Which Repositories and Syncs to suspend or to resume. Without names or a selector, `--all` is required, so that nobody
/// chooses all objects by accident.
#[derive(clap::Args)]
pub struct Which {
    #[command(flatten)]
    choice: Choice,

    /// Every Repository and Sync of the namespace
    #[arg(long, conflicts_with_all = ["targets", "selector"])]
    all: bool,
}

/// Suspends what was chosen, for this `reason`, or resumes it if there is no reason.
///
/// # Errors
/// Nothing was chosen, or the cluster does not answer. Objects that cannot be changed are reported, and the exit code
/// is 1.
pub async fn set(which: &Which, reason: Option<&str>, global: &Global) -> anyhow::Result<ExitCode> {
    let choice = &which.choice;
    if choice.targets.is_empty() && choice.selector.is_none() && !which.all {
        return Err(Hint::wrong_usage(
            "no Sync and no Repository was named",
            "name one (`sync/web`), choose some with --selector, or all of the namespace with --all",
        ));
    }
    let client = global.client().await?;
    let mut found = choice.read(&client, global).await?;
    if found.is_empty() {
        output::note(found.nothing());
    }
    // If nothing has the labels that the user gave, that is a failure: the user expects that there are such objects.
    let mut all_changed = !(found.is_empty() && choice.selector.is_some());
    let mut change = Change { client, reason, says: global.output.is_none(), with_namespace: choice.all_namespaces };
    for repository in &mut found.repositories {
        all_changed &= change.make(repository).await;
    }
    for sync in &mut found.syncs {
        all_changed &= change.make(sync).await;
    }
    if let Some(format) = global.output {
        let Found { repositories, syncs, .. } = &found;
        output::print(format.text(&managed::list(repositories, syncs)?)?)?;
    }
    Ok(if all_changed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

struct Change<'a> {
    client: Client,
    reason: Option<&'a str>,
    says: bool,
    with_namespace: bool,
}

impl Change<'_> {
    /// Changes one object. Returns whether the object is now suspended or resumed, as it should be.
    async fn make<K: Managed>(&mut self, object: &mut K) -> bool {
        let namespace = object.namespace().unwrap_or_default();
        let place = if self.with_namespace { format!("{namespace} ") } else { String::new() };
        let shown = format!("{place}{}", object.reference());
        let (was_suspended, to_be) = (object.is_suspended(), self.reason.is_some());
        let same = was_suspended == to_be
            && object.annotations().get(names::SUSPEND_REASON).map(String::as_str) == self.reason;
        if !same {
            let patch = patch(self.reason);
            let parameters = PatchParams { field_manager: Some(SUSPEND_MANAGER.into()), ..PatchParams::default() };
            let api = api::<K>(&self.client, Some(&namespace));
            match api.patch(&object.name_any(), &parameters, &Patch::Merge(patch)).await {
                Ok(changed) => *object = changed,
                Err(error) => {
                    let verb = if to_be { "suspend" } else { "resume" };
                    output::report(&anyhow::Error::new(error).context(format!("cannot {verb} {shown}")));
                    return false;
                }
            }
            if is_in_git(object) {
                output::warn(format_args!(
                    "{shown}: its manifest in Git also sets `suspend`, and will be applied again: change `suspend` \
                    in Git"
                ));
            }
        }
        if self.says {
            let said = match (was_suspended, to_be) {
                (false, true) => "suspended",
                (true, true) => "was suspended already; the reason was replaced",
                (true, false) => "resumed",
                (false, false) => "was not suspended",
            };
            // If standard output is closed, the next print reports it.
            let _ = output::print(format_args!("{shown} {said}\n"));
        }
        true
    }
}

/// The merge patch that suspends for this `reason`, or resumes if there is none.
pub fn patch(reason: Option<&str>) -> Value {
    json!({
        "metadata": {"annotations": {names::SUSPEND_REASON: reason}},
        "spec": {"suspend": reason.is_some()},
    })
}

/// Whether a Sync applies the object from Git, together with its `spec.suspend`.
fn is_in_git(object: &impl Managed) -> bool {
    owners(object).any(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER))
}

/// The entries in `managedFields` that own `spec.suspend`.
fn owners(object: &impl Managed) -> impl Iterator<Item = &ManagedFieldsEntry> {
    let owns = |entry: &&ManagedFieldsEntry| {
        entry.fields_v1.as_ref().is_some_and(|fields| fields.0.pointer("/f:spec/f:suspend").is_some())
    };
    object.meta().managed_fields.iter().flatten().filter(owns)
}

/// Who suspended an object, as far as its `managedFields` show: the program, not the person.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SuspendedBy {
    manager: String,
    /// When it was suspended. This is known only if the program owns no other field of the object, because Kubernetes
    /// records one time for all fields of a program.
    at: Option<Timestamp>,
}

impl SuspendedBy {
    /// `None` if the object is not suspended, or if several programs may have suspended it.
    pub fn of(object: &impl Managed) -> Option<Self> {
        let mut owners = owners(object).filter(|_| object.is_suspended());
        let (entry, None) = (owners.next()?, owners.next()) else { return None };
        let at = entry.time.as_ref().map(|time| time.0).filter(|_| owns_nothing_else(entry));
        Some(Self { manager: entry.manager.clone()?, at })
    }

    /// `by gitseal-suspend, 5m ago`.
    pub fn told(&self, now: Timestamp) -> String {
        let ago =
            |at| format!(", {} ago", time::short(SignedDuration::max(now.duration_since(at), SignedDuration::ZERO)));
        format!("by {}{}", self.manager, self.at.map(ago).unwrap_or_default())
    }
}

fn owns_nothing_else(entry: &ManagedFieldsEntry) -> bool {
    let Some(fields) = &entry.fields_v1 else { return false };
    let only = |pointer: &str, known: &[&str]| {
        let keys = fields.0.pointer(pointer).and_then(Value::as_object).into_iter().flatten();
        keys.map(|(key, _)| key.as_str()).all(|key| known.contains(&key))
    };
    let reason = format!("f:{}", names::SUSPEND_REASON);
    only("", &["f:metadata", "f:spec"])
        && only("/f:spec", &["f:suspend"])
        && only("/f:metadata", &["f:annotations"])
        && only("/f:metadata/f:annotations", &[".", &reason])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::Sync;

    #[test]
    fn what_is_told_of_who_suspended_is_only_what_is_known() {
        let entry = |manager: &str, more: Value| {
            let mut fields = json!({"f:spec": {"f:suspend": {}}});
            fields["f:metadata"] = json!({"f:annotations": {".": {}, "f:gitseal.dev/suspend-reason": {}}});
            fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            json!({"manager": manager, "operation": "Update", "apiVersion": "gitseal.dev/v1alpha1",
                "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1", "fieldsV1": fields})
        };
        let told = |suspend: bool, entries: Value| {
            let sync: Sync = serde_json::from_value(json!({
                "metadata": {"name": "web", "managedFields": entries},
                "spec": {"repository": {"name": "fleet"}, "suspend": suspend},
            }))
            .unwrap();
            SuspendedBy::of(&sync).map(|by| by.told("2026-01-01T00:05:00Z".parse().unwrap()))
        };
        let ours = entry("gitseal-suspend", json!({}));
        assert_eq!(told(true, json!([ours])).as_deref(), Some("by gitseal-suspend, 5m ago"));
        // The time in this entry may be the time of a change to another field.
        let other = entry("kubectl-edit", json!({"f:spec": {"f:suspend": {}, "f:path": {}}}));
        assert_eq!(told(true, json!([other])).as_deref(), Some("by kubectl-edit"));
        assert_eq!(told(true, json!([ours, other])), None);
        assert_eq!(told(false, json!([ours])), None);
        assert_eq!(told(true, json!([])), None);
    }

    #[test]
    fn a_resume_takes_the_reason_away() {
        let gone =
            json!({"metadata": {"annotations": {"gitseal.dev/suspend-reason": null}}, "spec": {"suspend": false}});
        assert_eq!(patch(None), gone);
        assert_eq!(patch(Some("freeze"))["metadata"]["annotations"]["gitseal.dev/suspend-reason"], "freeze");
    }
}
