//! Whether the controller leaves Repositories and Syncs alone, and why.

use std::process::ExitCode;

use crds::{FIELD_MANAGER, names};
use kube::{
    Client, ResourceExt,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    found::{Choice, Found, api},
    global::Global,
    managed::{self, CLI_MANAGER, Managed},
    output::{self, Hint},
};

/// Which Repositories and Syncs to suspend or to resume: never all of them by accident.
#[derive(clap::Args)]
pub struct Which {
    #[command(flatten)]
    choice: Choice,

    /// Every Repository and Sync of the namespace
    #[arg(long, conflicts_with_all = ["targets", "selector"])]
    all: bool,
}

/// Suspends what was chosen for this `reason`, or resumes it where there is none.
///
/// # Errors
/// Nothing was chosen, or the cluster does not answer. What cannot be changed is reported, and ends with an exit code of 1.
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
    // Whoever chooses by labels means something that is there.
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
    /// Changes one object; tells whether it is as it should be now.
    async fn make<K: Managed>(&mut self, object: &mut K) -> bool {
        let namespace = object.namespace().unwrap_or_default();
        let place = if self.with_namespace { format!("{namespace} ") } else { String::new() };
        let shown = format!("{place}{}", object.reference());
        let (was_suspended, to_be) = (object.is_suspended(), self.reason.is_some());
        let same = was_suspended == to_be
            && object.annotations().get(names::SUSPEND_REASON).map(String::as_str) == self.reason;
        if !same {
            let patch = patch(self.reason);
            let parameters = PatchParams { field_manager: Some(CLI_MANAGER.into()), ..PatchParams::default() };
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
                    "{shown}: its manifest in Git says `suspend`, too, and is applied again: change it there"
                ));
            }
        }
        if self.says {
            let said = match (was_suspended, to_be) {
                (false, true) => "suspended",
                (true, true) => "was suspended already; this is the reason now",
                (true, false) => "resumed",
                (false, false) => "was not suspended",
            };
            // A closed standard output is noticed by whoever prints next.
            let _ = output::print(format_args!("{shown} {said}\n"));
        }
        true
    }
}

/// The merge patch that suspends for this `reason`, or resumes where there is none.
pub fn patch(reason: Option<&str>) -> Value {
    json!({
        "metadata": {"annotations": {names::SUSPEND_REASON: reason}},
        "spec": {"suspend": reason.is_some()},
    })
}

/// Whether another Sync applies the object, `spec.suspend` included.
fn is_in_git(object: &impl Managed) -> bool {
    let entries = object.meta().managed_fields.iter().flatten();
    let by_gitseal = entries.filter(|entry| entry.manager.as_deref() == Some(FIELD_MANAGER));
    let mut fields = by_gitseal.filter_map(|entry| entry.fields_v1.as_ref());
    fields.any(|fields| fields.0.pointer("/f:spec/f:suspend").is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_resume_takes_the_reason_away() {
        let gone =
            json!({"metadata": {"annotations": {"gitseal.dev/suspend-reason": null}}, "spec": {"suspend": false}});
        assert_eq!(patch(None), gone);
        assert_eq!(patch(Some("freeze"))["metadata"]["annotations"]["gitseal.dev/suspend-reason"], "freeze");
    }
}
