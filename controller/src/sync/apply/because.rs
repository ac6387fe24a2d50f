//! Why an object is not applied.

use manifests::{Location, ObjectId};
use pipeline::{Cause, Stage, StageError};
use unsealing::UnsealError;

use super::established::ESTABLISHED_WITHIN;
use crate::{
    cluster::{ApiError, WatchError},
    metrics::UnsealFailure,
};

/// Objects that could not be applied.
#[derive(Debug, thiserror::Error)]
pub(in crate::sync) enum ApplyError {
    /// The API server refused some of them.
    #[error("{}", list(.0))]
    Refused(Vec<Refused>),
    /// A kind of this revision cannot be watched.
    #[error("{0}")]
    Watch(#[from] WatchError),
}

/// One object that could not be applied.
#[derive(Clone, Debug)]
pub(in crate::sync) struct Refused {
    /// Where it stands.
    pub origin: Location,
    /// Which.
    pub id: ObjectId,
    /// Why.
    pub because: Because,
}

/// See [`Refused::because`].
#[derive(Clone, Debug, thiserror::Error)]
pub(crate) enum Because {
    /// The API server said no.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The Secret belongs to somebody else.
    #[error(
        "Secret '{0}' exists and no SealedSecret manages it; to let this one take it over: kubectl annotate secret {0} {MANAGED}=true"
    , MANAGED = crds::names::MANAGED)]
    Unmanaged(String),
    /// The identity of the Sync may not write it; nothing was sent.
    #[error("{0}")]
    NotAllowed(String),
    /// The SealedSecret was not accepted in this pass, so nothing is unsealed for it.
    #[error("its SealedSecret was not accepted by the API server")]
    NotAccepted,
    /// The API server stored another SealedSecret than the one that was sent.
    #[error(
        "the cluster holds another SealedSecret than Git says, so nothing is unsealed from it: an admission webhook changes it, or another field manager has a part of it (kubectl get sealedsecret {0} -o yaml --show-managed-fields)"
    )]
    Altered(String),
    /// It cannot be unsealed.
    #[error("{message}")]
    Unseal {
        /// What is wrong; no value is in it.
        message: String,
        /// Another try is all that it takes.
        transient: bool,
    },
    /// It was applied; what other tools own of it could not be made ours.
    #[error("it was applied, but what other tools wrote into it could not be taken over: {0}")]
    NotTakenOver(ApiError),
    /// What Git changes of it cannot be changed.
    #[error(
        "{0} cannot be changed in place. Delete the object and it is made anew; or let gitseal do both: annotate it in Git with {REPLACE}: {ALLOWED}"
    , REPLACE = crds::names::REPLACE, ALLOWED = crds::names::REPLACE_ALLOWED)]
    Immutable(String),
    /// The same, and it is a kind that holds others.
    #[error("{0} cannot be changed in place, and gitseal replaces no {1}: everything in it would be deleted, too")]
    Irreplaceable(String, String),
    /// The same, and what is to take its place would be refused.
    #[error("{0} cannot be changed in place. It was not replaced, because the API server refuses the new one: {1}")]
    NotReplaced(String, ApiError),
    /// It goes, to be made anew.
    #[error("it is being deleted to be made anew, and waits for {}", waits_for(.0))]
    Going(Vec<String>),
    /// A CustomResourceDefinition is not served.
    #[error("the kind it defines was not served within {} s; its status says why", ESTABLISHED_WITHIN.as_secs())]
    NotEstablished,
    /// It was written; whether its kind is served could not be asked.
    #[error("whether the kind it defines is served could not be asked: {0}")]
    Unasked(ApiError),
}

impl Because {
    /// Whether nothing was written for certain; an answer that never came says nothing.
    pub(super) fn is_certain(&self) -> bool {
        match self {
            Self::Api(error) => error.code().is_some_and(|code| code < 500),
            Self::Unmanaged(_) | Self::NotAllowed(_) | Self::NotAccepted | Self::Altered(_) | Self::Unseal { .. } => {
                true
            }
            // The one that was to be changed is there, and may have been written to before.
            Self::NotTakenOver(_)
            | Self::Immutable(_)
            | Self::Irreplaceable(..)
            | Self::NotReplaced(..)
            | Self::Going(_)
            | Self::NotEstablished
            | Self::Unasked(_) => false,
        }
    }
}

impl Because {
    /// Condition reason.
    fn reason(&self) -> &'static str {
        match self {
            Self::Unmanaged(_) => "SecretNotManaged",
            Self::NotAllowed(_) => "Forbidden",
            Self::Api(error) if error.code() == Some(403) => "Forbidden",
            Self::Api(error) if error.code().is_none() => "ApiServerUnreachable",
            Self::Unseal { .. } => "UnsealFailed",
            Self::Altered(_) => "SealedSecretAltered",
            _ => "ApplyFailed",
        }
    }

    /// Why the Secret could not be made.
    pub(super) fn cause(&self) -> Cause {
        let (stage, terminal) = match self {
            Self::Unseal { transient, .. } => (Stage::Unseal, !transient),
            _ => (Stage::Apply, false),
        };
        Cause { stage, reason: self.reason(), terminal }
    }

    /// How the Sealed Secrets controller counts it.
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

fn waits_for(finalizers: &[String]) -> String {
    if finalizers.is_empty() {
        return "what depends on it".into();
    }
    format!("its finalizers {}", finalizers.join(", "))
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
            Self::Refused(refused) => refused.first().map_or("ApplyFailed", |refused| refused.because.reason()),
        }
    }

    fn is_terminal(&self) -> bool {
        false
    }
}
