//! `spec.dependsOn`: a Sync waits until the Syncs that it names are Ready.

use crds::{ConditionStatus, ObjectKey, Sync, conditions, find_condition};
use pipeline::{Stage, StageError};

use super::source::content_of;
use crate::context::Context;

/// A Sync that is waited for.
#[derive(Debug, thiserror::Error)]
pub(super) enum DependencyError {
    /// There is no such Sync.
    #[error("it waits for Sync {0}, which does not exist; create it, or correct spec.dependsOn")]
    Missing(ObjectKey),
    /// It is not Ready.
    #[error("it waits for Sync {0}, which is not Ready")]
    NotReady(ObjectKey),
    /// It is in another namespace.
    #[error("Sync {0} is in another namespace, and the controller was started without --allow-cross-namespace")]
    CrossNamespace(ObjectKey),
}

impl StageError for DependencyError {
    const STAGE: Stage = Stage::Source;

    fn reason(&self) -> &'static str {
        match self {
            Self::CrossNamespace(_) => "AccessDenied",
            Self::Missing(_) | Self::NotReady(_) => "DependencyNotReady",
        }
    }

    fn is_terminal(&self) -> bool {
        matches!(self, Self::CrossNamespace(_))
    }
}

/// The Syncs that `sync` waits for.
fn of(sync: &Sync) -> impl Iterator<Item = ObjectKey> + '_ {
    let own = sync.metadata.namespace.as_deref().unwrap_or_default();
    sync.spec
        .depends_on
        .iter()
        .map(move |reference| ObjectKey::new(reference.namespace.as_deref().unwrap_or(own), reference.name.as_str()))
}

/// Whether `sync` waits for `key`.
pub(crate) fn depends_on(sync: &Sync, key: &ObjectKey) -> bool {
    of(sync).any(|dependency| dependency == *key)
}

/// Whether everything that `sync` waits for is Ready, with the newest content of its own folder.
pub(super) fn check(ctx: &Context, sync: &Sync) -> Result<(), DependencyError> {
    for key in of(sync) {
        if !ctx.tenancy.allow_cross_namespace && sync.metadata.namespace.as_deref() != Some(key.namespace.as_str()) {
            return Err(DependencyError::CrossNamespace(key));
        }
        let Some(dependency) = ctx.syncs.get(&key.to_ref()) else {
            return Err(DependencyError::Missing(key));
        };
        let status = dependency.status.as_ref();
        let is_ready = status.is_some_and(|status| {
            status.observed_generation == dependency.metadata.generation
                && find_condition(&status.conditions, conditions::READY)
                    .is_some_and(|ready| ready.status == ConditionStatus::True)
        });
        let wanted = content_of(&ctx.sources, &dependency);
        let is_current = wanted.is_some() && status.and_then(|status| status.applied_content.clone()) == wanted;
        if !is_ready || !is_current {
            return Err(DependencyError::NotReady(key));
        }
    }
    Ok(())
}
