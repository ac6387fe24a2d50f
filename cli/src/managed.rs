//! The common parts of Repositories and Syncs, for the command line.

use std::fmt;

use anyhow::Context;
use crds::{Condition, ConditionStatus, Repository, Sync, conditions, find_condition, names};
use k8s_openapi::NamespaceResourceScope;
use kube::{Resource, ResourceExt};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};

/// Field manager of what people change with this program.
pub const CLI_MANAGER: &str = "gitseal-cli";

/// A kind that the controller reconciles and reports on with conditions.
pub trait Managed:
    Resource<DynamicType = (), Scope = NamespaceResourceScope>
    + Clone
    + DeserializeOwned
    + Serialize
    + fmt::Debug
    + Send
    + 'static
{
    /// The kind in references such as `sync/web`.
    const KIND: &'static str;

    /// Ready, Reconciling, Stalled.
    fn conditions(&self) -> &[Condition];
    /// The generation that the conditions are about.
    fn observed_generation(&self) -> Option<i64>;
    /// The last request for a reconcile that was handled: the value that the annotation had then.
    fn last_handled_request(&self) -> Option<&str>;
    /// The revision that was fetched or applied.
    fn revision(&self) -> Option<&str>;
    /// Whether the object is suspended.
    fn is_suspended(&self) -> bool;
    /// The reason of the suspension, if there is one.
    fn suspend_reason(&self) -> Option<&str> {
        self.annotations().get(names::SUSPEND_REASON).map(String::as_str).filter(|_| self.is_suspended())
    }
    /// When the revision was fetched or applied (RFC 3339), and the word `fetched` or `applied`.
    fn last_success(&self) -> Option<(&'static str, &str)>;

    /// `sync/web`.
    fn reference(&self) -> String {
        format!("{}/{}", Self::KIND, self.name_any())
    }
}

impl Managed for Repository {
    const KIND: &'static str = "repository";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
    fn observed_generation(&self) -> Option<i64> {
        self.status.as_ref()?.observed_generation
    }
    fn last_handled_request(&self) -> Option<&str> {
        self.status.as_ref()?.last_handled_reconcile_at.as_deref()
    }
    fn revision(&self) -> Option<&str> {
        self.status.as_ref()?.revision.as_deref()
    }
    fn is_suspended(&self) -> bool {
        self.spec.suspend
    }
    fn last_success(&self) -> Option<(&'static str, &str)> {
        Some(("fetched", self.status.as_ref()?.fetched_at.as_deref()?))
    }
}

impl Managed for Sync {
    const KIND: &'static str = "sync";

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
    fn observed_generation(&self) -> Option<i64> {
        self.status.as_ref()?.observed_generation
    }
    fn last_handled_request(&self) -> Option<&str> {
        self.status.as_ref()?.last_handled_reconcile_at.as_deref()
    }
    fn revision(&self) -> Option<&str> {
        self.status.as_ref()?.last_applied_revision.as_deref()
    }
    fn is_suspended(&self) -> bool {
        self.spec.suspend
    }
    fn last_success(&self) -> Option<(&'static str, &str)> {
        let history = &self.status.as_ref()?.history;
        let applied = history.iter().find(|entry| entry.outcome == "Applied")?;
        Some(("applied", &applied.time))
    }
}

/// The state of a Repository or Sync.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum State {
    /// Everything was fetched or applied.
    Ready,
    /// The last fetch or pass failed.
    Failed {
        /// The condition's reason.
        reason: String,
        /// The condition's message.
        message: String,
        /// Whether retries do not help until somebody changes something.
        stalled: bool,
    },
    /// The controller is working.
    Working {
        /// What the controller is doing.
        message: String,
    },
    /// The object is suspended.
    Suspended,
}

impl State {
    /// The state of `object`, from its conditions.
    pub fn of(object: &impl Managed) -> Self {
        let condition = |type_| find_condition(object.conditions(), type_);
        let holds = |type_| condition(type_).filter(|c| c.status == ConditionStatus::True);
        let failed =
            |c: &Condition, stalled| Self::Failed { reason: c.reason.clone(), message: c.message.clone(), stalled };
        if object.is_suspended() {
            return Self::Suspended;
        }
        if object.observed_generation() != object.meta().generation {
            return Self::Working { message: "waiting for the controller".into() };
        }
        if let Some(stalled) = holds(conditions::STALLED) {
            return failed(stalled, true);
        }
        match condition(conditions::READY) {
            // The state is Failed even while the condition Reconciling is True: the last try failed, although the
            // controller tries again by itself.
            Some(ready) if ready.status == ConditionStatus::False => failed(ready, false),
            ready => match holds(conditions::RECONCILING) {
                Some(reconciling) => Self::Working { message: reconciling.message.clone() },
                None if ready.is_some_and(|ready| ready.status == ConditionStatus::True) => Self::Ready,
                None => Self::Working { message: ready.map(|c| c.message.clone()).unwrap_or_default() },
            },
        }
    }
}

/// Shortens a revision: `main@sha1:4f1c2d3a…` becomes `main@4f1c2d3a`, and `6.5.0@sha256:4f1c2d3a…` becomes `6.5.0@4f1c2d3a`.
pub fn short_revision(revision: &str) -> String {
    let (reference, commit) = revision.rsplit_once('@').map_or(("", revision), |(r, c)| (r, c));
    let hash = commit.rsplit_once(':').map_or(commit, |(_, hash)| hash);
    let hash = hash.get(..8).unwrap_or(hash);
    if reference.is_empty() { hash.to_owned() } else { format!("{reference}@{hash}") }
}

/// `text`, with every revision in it shortened.
pub fn with_short_revisions(text: &str) -> String {
    let words = text.split_inclusive(char::is_whitespace).map(|word| {
        let end = word.trim_end_matches(|c: char| !c.is_ascii_alphanumeric()).len();
        let (revision, rest) = word.split_at(end);
        let id = revision.rsplit_once('@').and_then(|(_, id)| id.split_once(':'));
        match id {
            Some(("sha1", hash)) if hash.len() == 40 => short_revision(revision) + rest,
            Some(("sha256", hash)) if hash.len() == 64 => short_revision(revision) + rest,
            _ => word.to_owned(),
        }
    });
    words.collect()
}

/// The objects as `kubectl get -o` shows several objects, without their managed fields.
pub fn list(repositories: &[Repository], syncs: &[Sync]) -> anyhow::Result<Value> {
    let items = repositories.iter().map(as_shown).chain(syncs.iter().map(as_shown));
    let items: Vec<Value> = items.collect::<Result<_, _>>()?;
    Ok(json!({"apiVersion": "v1", "kind": "List", "items": items}))
}

/// The object as `kubectl get -o yaml` shows it: without its managed fields.
pub fn as_shown<K: Managed>(object: &K) -> anyhow::Result<Value> {
    let mut object = object.clone();
    object.meta_mut().managed_fields = None;
    serde_json::to_value(object).context("cannot represent the object as JSON")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sync(status: serde_json::Value) -> Sync {
        serde_json::from_value(json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync",
            "metadata": {"name": "web", "namespace": "team", "generation": 2},
            "spec": {"repository": {"name": "fleet"}, "path": "./web"}, "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_state_of_an_older_generation_is_not_believed() {
        let ready = json!([{"type": "Ready", "status": "True", "reason": "Applied"}]);
        let old = sync(json!({"observedGeneration": 1, "conditions": ready}));
        assert!(matches!(State::of(&old), State::Working { .. }));
        let current = sync(json!({"observedGeneration": 2, "conditions": ready}));
        assert_eq!(State::of(&current), State::Ready);
    }

    #[test]
    fn a_failure_is_one_while_it_is_tried_again() {
        let reconciling = json!({"type": "Reconciling", "status": "True", "message": "applying"});
        let ready = |status: &str| json!({"type": "Ready", "status": status, "reason": "ApplyFailed", "message": "no"});
        let stalled = json!({"type": "Stalled", "status": "True", "reason": "InvalidPath", "message": "gone"});
        let state = |conditions| State::of(&sync(json!({"observedGeneration": 2, "conditions": conditions})));
        let working = State::Working { message: "applying".into() };
        assert_eq!(state(json!([ready("Unknown"), reconciling])), working);
        assert_eq!(state(json!([ready("True"), reconciling])), working);
        assert!(matches!(state(json!([ready("False"), reconciling])), State::Failed { stalled: false, .. }));
        assert!(matches!(state(json!([ready("False"), stalled])), State::Failed { stalled: true, .. }));
        assert!(matches!(state(json!([ready("False")])), State::Failed { stalled: false, .. }));
    }

    #[test]
    fn a_later_failure_does_not_hide_the_last_success() {
        let history = json!([
            {"revision": "main@sha1:2222", "time": "2026-01-02T00:00:00Z", "outcome": "ApplyFailed"},
            {"revision": "main@sha1:1111", "time": "2026-01-01T00:00:00Z", "outcome": "Applied"},
        ]);
        let sync = sync(json!({"lastAppliedRevision": "main@sha1:1111", "history": history}));
        assert_eq!(sync.last_success(), Some(("applied", "2026-01-01T00:00:00Z")));
    }

    #[test]
    fn revisions_are_short() {
        assert_eq!(short_revision("main@sha1:0123456789abcdef0123456789abcdef01234567"), "main@01234567");
        assert_eq!(short_revision("feature/a@b@sha1:0123456789"), "feature/a@b@01234567");
        assert_eq!(short_revision("sha1:0123456789"), "01234567");
        assert_eq!(short_revision(""), "");
        assert_eq!(
            with_short_revisions("applied main@sha1:0123456789abcdef0123456789abcdef01234567: 2 objects\n"),
            "applied main@01234567: 2 objects\n"
        );
        let of_chart = format!("fetched 6.5.0@sha256:{}", "0123456789abcdef".repeat(4));
        assert_eq!(with_short_revisions(&of_chart), "fetched 6.5.0@01234567");
        assert_eq!(with_short_revisions("me@sha1:x is no revision"), "me@sha1:x is no revision");
    }
}
