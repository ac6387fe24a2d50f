//! Why objects are not applied.

use manifests::{Location, ObjectId};
use pipeline::{Cause, Stage, StageError, Unmanaged, replacement::NotReplaced};
use unsealing::UnsealError;

use super::{
    super::{account::FORBIDDEN, overtaken::Overtaken},
    established::ESTABLISHED_WITHIN,
};
use crate::{
    cluster::{ApiError, DiscoveryError, NoPlace, WatchError, no_place},
    metrics::UnsealFailure,
    sealed_secret::WriteError,
};

/// Why objects could not be applied.
#[derive(Debug, thiserror::Error)]
pub(in crate::sync) enum ApplyError {
    /// The API server refused some objects.
    #[error("{}{}", list(.refused), held_back(*.later))]
    Refused {
        /// The refused objects.
        refused: Vec<Refused>,
        /// Number of objects in later waves, which were not tried.
        later: usize,
    },
    /// A kind of this revision cannot be watched.
    #[error("{0}")]
    Watch(#[from] WatchError),
    /// The API server did not say which kinds it serves.
    #[error("{0}")]
    Discovery(#[from] DiscoveryError),
    /// There is something newer to apply.
    #[error("{0}")]
    Overtaken(#[from] Overtaken),
}

/// One object that could not be applied.
#[derive(Clone, Debug)]
pub(in crate::sync) struct Refused {
    /// Where the object is in Git.
    pub origin: Location,
    /// The object.
    pub id: ObjectId,
    /// Why the object could not be applied.
    pub because: Because,
}

/// See [`Refused::because`].
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Because {
    /// The API server refused the object or did not answer.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The Secret belongs to somebody else.
    #[error("{0}")]
    Unmanaged(#[from] Unmanaged),
    /// The identity of the Sync may not write the object. No write was sent.
    #[error("{0}")]
    NotAllowed(String),
    /// The object is one of the controller's own Secrets, for example a sealing key. No write was sent.
    #[error(
        "it is one of the controller's own Secrets (a sealing key, or a Secret with the name or label of one), which no \
         Sync writes or prunes: remove it from Git, or give it another name or namespace"
    )]
    ControllersOwn,
    /// The API server did not accept the SealedSecret in this pass, so it is not unsealed.
    #[error("the API server did not accept the SealedSecret of this Secret")]
    NotAccepted,
    /// The API server stored a SealedSecret that differs from the one that was sent.
    #[error(
        "the SealedSecret in the cluster differs from the one in Git, so it is not unsealed: an admission webhook \
         changes it, or another field manager owns a part of it (kubectl get sealedsecret {0} -o yaml \
         --show-managed-fields)"
    )]
    Altered(String),
    /// A value cannot be unsealed, or a template cannot be rendered.
    #[error("{message}")]
    Unseal {
        /// What is wrong with the value or template. The text contains no value.
        message: String,
        /// Whether another try may help.
        transient: bool,
    },
    /// The object was applied, but gitseal could not take over the fields that other tools own in it.
    #[error("it was applied, but the fields of other tools could not be taken over: {0}")]
    NotTakenOver(ApiError),
    /// The change in Git cannot be made to the existing object.
    #[error("{0}")]
    NotReplaceable(#[from] NotReplaced),
    /// The change cannot be made to the existing object, and the API server would refuse a new object.
    #[error(
        "{0} cannot be changed in place. The object was not replaced, because the API server refuses the new one: {1}"
    )]
    NotReplaced(String, ApiError),
    /// The change cannot be made to the existing object, and this object could not be deleted.
    #[error("{0} cannot be changed in place, and the object could not be deleted to make it again: {1}")]
    NotDeleted(String, ApiError),
    /// The object is being deleted so that it can be created again. The deletion waits for these finalizers.
    #[error("it is being deleted, so that it can be made again, and waits for {}", waits_for(.0))]
    Going(Vec<String>),
    /// Somebody deleted the object, and the deletion is not finished.
    #[error(
        "it is being deleted and waits for {}; when it is gone, it is made again as in Git. The program that set a finalizer removes it when its work is done",
        waits_for(.0)
    )]
    Terminating(Vec<String>),
    /// The object is a Namespace that somebody deleted, and the deletion is not finished.
    #[error(
        "it is being deleted with everything in it; when it is gone, it is made again as in Git. What it waits for: kubectl get namespace {0} -o yaml"
    )]
    TerminatingNamespace(String),
    /// The object is new, and its namespace is being deleted.
    #[error(
        "namespace {0} is being deleted, and nothing new can be made in it until it is gone and made again. What it waits for: kubectl get namespace {0} -o yaml"
    )]
    NamespaceGoes(String),
    /// The object is new, and its namespace does not exist.
    #[error(
        "there is no namespace {0}: add it to this folder, or create it; the controller looks for it again within seconds"
    )]
    NoNamespace(String),
    /// The kind of a CustomResourceDefinition is not served.
    #[error("the kind that this CustomResourceDefinition defines was not served within {} s; the status of the CustomResourceDefinition says why", ESTABLISHED_WITHIN.as_secs())]
    NotEstablished,
    /// The CustomResourceDefinition was written, but the API server did not say whether its kind is served.
    #[error("it was applied, but the API server did not say whether the new kind is served: {0}")]
    Unasked(ApiError),
    /// The pass no longer waits for this object, because there is something newer to apply.
    #[error("{0}")]
    Overtaken(#[from] Overtaken),
}

impl Because {
    /// The cause for an object that was written, but is being deleted.
    pub(super) fn terminating(id: &ObjectId, finalizers: Vec<String>) -> Self {
        if id.group.is_empty() && id.kind == "Namespace" {
            return Self::TerminatingNamespace(id.name.clone());
        }
        Self::Terminating(finalizers)
    }

    /// This cause; or, if the object `id` was refused because of its namespace, a cause that says so.
    pub(super) fn by_its_namespace(self, id: &ObjectId) -> Self {
        let (Self::Api(error), Some(namespace)) = (&self, &id.namespace) else { return self };
        match no_place(error) {
            Some(NoPlace::Missing) => Self::NoNamespace(namespace.clone()),
            Some(NoPlace::Going) => Self::NamespaceGoes(namespace.clone()),
            None => self,
        }
    }

    /// Whether another try may succeed after something happens that the controller gets no event about.
    fn may_pass(&self) -> bool {
        matches!(
            self,
            Self::Going(_)
                | Self::Terminating(_)
                | Self::TerminatingNamespace(_)
                | Self::NamespaceGoes(_)
                | Self::NoNamespace(_)
        )
    }

    /// Whether the object was certainly not written. If the API server did not answer, the object may have been
    /// written.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Self::Api(error) => error.code().is_some_and(|code| code < 500),
            Self::Unmanaged(_)
            | Self::NotAllowed(_)
            | Self::ControllersOwn
            | Self::NotAccepted
            | Self::Altered(_)
            | Self::Unseal { .. }
            | Self::NamespaceGoes(_)
            | Self::NoNamespace(_) => true,
            // In these cases, the object exists, and an earlier write of this pass may have changed it.
            Self::NotTakenOver(_)
            | Self::NotReplaceable(_)
            | Self::NotReplaced(..)
            | Self::NotDeleted(..)
            | Self::Going(_)
            | Self::Terminating(_)
            | Self::TerminatingNamespace(_)
            | Self::NotEstablished
            | Self::Unasked(_)
            | Self::Overtaken(_) => false,
        }
    }

    /// Whether the pass is given up.
    pub(super) fn overtaken(&self) -> Option<Overtaken> {
        if let Self::Overtaken(overtaken) = self { Some(*overtaken) } else { None }
    }

    /// Condition reason.
    fn reason(&self) -> &'static str {
        match self {
            Self::Unmanaged(_) => "SecretNotManaged",
            Self::NotAllowed(_) | Self::ControllersOwn => FORBIDDEN,
            Self::Api(error) | Self::NotDeleted(_, error) if error.code() == Some(403) => FORBIDDEN,
            Self::Api(ApiError::Transport(_)) => "ApiServerUnreachable",
            Self::Unseal { .. } => "UnsealFailed",
            Self::Altered(_) => "SealedSecretAltered",
            Self::Going(_) | Self::Terminating(_) => "ObjectTerminating",
            Self::TerminatingNamespace(_) | Self::NamespaceGoes(_) => "NamespaceTerminating",
            Self::NoNamespace(_) => "NamespaceNotFound",
            _ => "ApplyFailed",
        }
    }

    /// This cause in the form in which an object that is held back reports it.
    pub(in crate::sync) fn cause(&self) -> Cause {
        let (stage, terminal) = match self {
            Self::Unseal { transient, .. } => (Stage::Unseal, !transient),
            _ => (Stage::Apply, false),
        };
        Cause { stage, reason: self.reason(), terminal }
    }

    /// The reason under which the Sealed Secrets controller counts such a failure.
    pub(crate) fn metric(&self) -> UnsealFailure {
        match self {
            Self::Unseal { .. } => UnsealFailure::Unseal,
            Self::Unmanaged(_) => UnsealFailure::Unmanaged,
            _ => UnsealFailure::Update,
        }
    }
}

impl From<UnsealError> for Because {
    fn from(error: UnsealError) -> Self {
        Self::Unseal { message: error.to_string(), transient: error.is_transient() }
    }
}

impl From<WriteError> for Because {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Unmanaged(unmanaged) => unmanaged.into(),
            WriteError::Write(error) | WriteError::Read(error) => error.into(),
        }
    }
}

fn waits_for(finalizers: &[String]) -> String {
    /// How many finalizers are named. Anybody who may change the object can add any number of finalizers.
    const SHOWN: usize = 3;
    if finalizers.is_empty() {
        return "the objects that depend on it".into();
    }
    let shown = finalizers.iter().take(SHOWN).map(String::as_str).collect::<Vec<_>>().join(", ");
    match finalizers.len().saturating_sub(SHOWN) {
        0 => format!("its finalizers {shown}"),
        more => format!("its finalizers {shown} and {more} more"),
    }
}

fn held_back(later: usize) -> String {
    match later {
        0 => String::new(),
        1 => "; one object of a later wave waits until these are applied".into(),
        _ => format!("; {later} objects of later waves wait until these are applied"),
    }
}

fn list(refused: &[Refused]) -> String {
    const SHOWN: usize = 3;
    let mut text = refused
        .iter()
        .take(SHOWN)
        .map(|refused| format!("{}: {}: {}", refused.origin, refused.id, refused.because))
        .collect::<Vec<_>>()
        .join("; ");
    if refused.len() > SHOWN {
        text.push_str(&format!("; and {} more", refused.len() - SHOWN));
    }
    text
}

impl StageError for ApplyError {
    const STAGE: Stage = Stage::Apply;

    fn reason(&self) -> &'static str {
        match self {
            Self::Watch(_) => "WatchFailed",
            Self::Discovery(_) => "DiscoveryFailed",
            Self::Overtaken(overtaken) => overtaken.reason(),
            Self::Refused { refused, .. } => refused.first().map_or("ApplyFailed", |refused| refused.because.reason()),
        }
    }

    fn is_terminal(&self) -> bool {
        false
    }

    fn may_pass(&self) -> bool {
        matches!(self, Self::Refused { refused, .. } if refused.iter().all(|refused| refused.because.may_pass()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_finalizers_are_named() {
        let going = |count: usize| Because::Going((0..count).map(|number| format!("f/{number}")).collect()).to_string();
        assert!(going(3).ends_with(" its finalizers f/0, f/1, f/2"), "{}", going(3));
        assert!(going(40).ends_with(" its finalizers f/0, f/1, f/2 and 37 more"), "{}", going(40));
        assert!(going(0).ends_with(" the objects that depend on it"), "{}", going(0));
    }
}
