//! What the API server answers, and the errors of requests to it.

use ::fields::Expired;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use pipeline::{FieldsDigest, Resource, prune::asks_to_be_kept};
use serde::Deserialize;
use serde_json::Value;

use super::SecretFacts;

/// What the API server answered to an apply: metadata only, so that no Secret's value ever comes back.
#[derive(Clone, Debug)]
pub struct Written {
    /// The object's UID.
    pub uid: String,
    /// The object's resource version.
    pub resource_version: u64,
    /// Digest of the fields of the object that gitseal owns after the apply.
    pub fields: Option<FieldsDigest>,
    /// Only for a Secret: the facts that decide whether a SealedSecret may write the Secret.
    pub secret: Option<Box<SecretFacts>>,
    /// Whether the apply created the object.
    pub created: bool,
    /// If the object is a Job that has a time to live, and that is complete or being deleted: how it ended.
    pub expires: Option<Expired>,
    /// If the object is being deleted: the finalizers that the deletion waits for.
    pub going: Option<Vec<String>>,
    /// Whether the object has the annotation that keeps it from being pruned.
    pub kept: bool,
    /// The `managedFields` of the object.
    pub managed_fields: Vec<ManagedFieldsEntry>,
}

impl Written {
    /// The answer, with the digest for an object in which everything that `managers` own is left to them.
    pub fn beside(self, managers: &[String]) -> Self {
        let fields = FieldsDigest::beside(Some(&self.managed_fields), managers);
        Self { fields, ..self }
    }

    pub(super) fn of(resource: &Resource, meta: &ObjectMeta, created: bool) -> Self {
        Self {
            uid: meta.uid.clone().unwrap_or_default(),
            resource_version: resource_version(meta),
            fields: FieldsDigest::of(meta.managed_fields.as_deref()),
            secret: resource.is_secrets().then(|| Box::new(SecretFacts::of(meta))),
            created,
            expires: ::fields::expired_job(meta),
            going: meta.deletion_timestamp.as_ref().map(|_| meta.finalizers.clone().unwrap_or_default()),
            kept: asks_to_be_kept(meta),
            managed_fields: meta.managed_fields.clone().unwrap_or_default(),
        }
    }
}

/// Why a request to the API server failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum ApiError {
    /// The API server refused the request.
    #[error("{message}")]
    Refused {
        /// HTTP status code.
        code: u16,
        /// The API server's reason, for example `NotFound`.
        reason: String,
        /// The API server's message. For a Secret, only the parts that are known not to contain a value of the Secret.
        message: String,
    },
    /// The API server did not answer.
    #[error("the API server did not answer: {0}")]
    Transport(String),
    /// The answer does not have the form that the API promises.
    #[error("the API server's answer was not understood: {0}")]
    Answer(String),
    /// The answer has more than this many bytes, which is the most that is read.
    #[error("the API server's answer is longer than {0} bytes")]
    TooLong(usize),
    /// Other programs write to the object so often that each try of our write was a conflict.
    #[error("other programs keep changing the object; the write is tried again")]
    Busy,
    /// The API server has just started, and does not list all of its kinds yet.
    #[error("the API server is not ready yet")]
    NotReady,
    /// A write was not sent, because this replica is not the leader.
    #[error("this replica does not lead, so it writes nothing")]
    NotLeading,
}

impl ApiError {
    /// A name that no object can have. It is refused before it is sent, because it would change what the request is about.
    pub(super) fn invalid_name() -> Self {
        let message = "a name or a namespace is empty, '.' or '..', or contains '/' or '%': no object has such a name";
        Self::Refused { code: 422, reason: "Invalid".into(), message: message.into() }
    }

    /// HTTP status code, if there was an answer.
    pub fn code(&self) -> Option<u16> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            Self::Transport(_)
            | Self::Answer(_)
            | Self::TooLong(_)
            | Self::Busy
            | Self::NotReady
            | Self::NotLeading => None,
        }
    }

    /// Whether the object or its kind does not exist.
    pub fn is_not_found(&self) -> bool {
        self.code() == Some(404)
    }

    /// Whether the object does not exist although the API server serves its kind. If the API server does not serve the
    /// kind or version, it also answers with 404, but without a reason. Such an answer says nothing about the object.
    pub fn is_gone(&self) -> bool {
        matches!(self, Self::Refused { code: 404, reason, .. } if reason == "NotFound")
    }

    /// The error for a write that was meant for an earlier version of the object: a conflict, as the API server would
    /// answer.
    pub fn changed() -> Self {
        Self::Refused {
            code: 409,
            reason: "Conflict".into(),
            message: "somebody has changed the object in the meantime".into(),
        }
    }

    /// Whether the request conflicts with a write of somebody else.
    pub fn is_conflict(&self) -> bool {
        self.code() == Some(409)
    }

    /// Whether the same request may succeed later: there was no answer, a server error, too many requests, or a
    /// timeout.
    pub fn is_transient(&self) -> bool {
        match self.code() {
            None => true,
            Some(code) => code >= 500 || matches!(code, 408 | 409 | 429),
        }
    }
}

/// An object's metadata.
#[derive(Deserialize)]
pub(super) struct MetadataOnly {
    #[serde(default)]
    pub(super) metadata: ObjectMeta,
}

/// The metadata of several objects.
#[derive(Deserialize)]
pub(super) struct MetadataList {
    pub(super) items: Vec<MetadataOnly>,
}

/// An object's metadata and spec.
#[derive(Deserialize)]
pub(super) struct Stored {
    pub(super) metadata: ObjectMeta,
    #[serde(default)]
    pub(super) spec: Value,
}

/// The resource version as a number. Of two versions of the same resource, the greater one is newer, unless the store
/// was restored in between.
pub(super) fn resource_version(meta: &ObjectMeta) -> u64 {
    meta.resource_version.as_deref().and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The error for a request that got no answer, with its causes.
pub(super) fn transport(error: kube::Error) -> ApiError {
    let error: Box<dyn std::error::Error + Send + Sync> = match error {
        kube::Error::Service(error) => error,
        other => other.into(),
    };
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    ApiError::Transport(text)
}
