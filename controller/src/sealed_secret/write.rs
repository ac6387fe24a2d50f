//! Writes the Secret of a SealedSecret.
//!
//! What the watch showed of the Secret decides whether the Secret may be written, and how. But the watch may be late,
//! so the write names the version of the Secret that was seen. If the Secret has another version, the API server
//! refuses the write. After that, the Secret is read, and everything is decided again.

use crds::ObjectKey;
use manifests::ObjectId;
use pipeline::{Made, Resource, Unmanaged, may_write};
use serde_json::{Map, Value, json};
use unsealing::{Owner, UnsealedSecret};

use super::{facts_of, made, read_secret, secret_id};
use crate::{
    cluster::{Api, ApiError, LiveObject, Written},
    context::Context,
    keys::Unsealed,
};

/// How many times the Secret is read and written, at most, before the write counts as failed.
const TRIES: usize = 5;

/// Why a Secret was not written.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The Secret belongs to somebody else.
    #[error(transparent)]
    Unmanaged(#[from] Unmanaged),
    /// The write was refused.
    #[error("{0}")]
    Write(ApiError),
    /// The Secret could not be read again after somebody had changed it.
    #[error("{0}")]
    Read(ApiError),
}

/// A Secret that is to be written.
#[derive(Clone, Copy)]
pub(crate) struct ToWrite<'a> {
    pub(crate) key: &'a ObjectKey,
    pub(crate) resource: &'a Resource,
    /// The SealedSecret of the Secret.
    pub(crate) owner: Owner<'a>,
    pub(crate) unsealed: &'a Unsealed,
    /// The digest of the sealed input that the Secret is made from.
    pub(crate) digest: &'a str,
}

impl ToWrite<'_> {
    /// Writes the Secret as the identity of `api`. Also returns the state of the Secret before the write.
    pub(crate) async fn write(self, ctx: &Context, api: &Api) -> Result<(Written, Option<LiveObject>), WriteError> {
        let id = secret_id(self.key);
        for _ in 0..TRIES {
            if ctx.cluster.live.get(&id).is_some() && ctx.cluster.live.version(&id).is_none() {
                read_secret(ctx, self.key).await.map_err(WriteError::Read)?;
            }
            let live = ctx.cluster.live.get(&id);
            let before = made(ctx, self.key, live.as_ref());
            let is_owned =
                may_write(facts_of(live.as_ref()), before, self.owner.uid).ok_or_else(|| Unmanaged::of(&id))?;
            match self.write_over(ctx, api, (&id, live.as_ref()), before, is_owned).await {
                Ok(written) => return Ok((written, live)),
                Err(error) if error.is_conflict() => read_secret(ctx, self.key).await.map_err(WriteError::Read)?,
                Err(error) => return Err(WriteError::Write(error)),
            }
        }
        Err(WriteError::Write(ApiError::Busy))
    }

    /// Writes over the Secret `live`. If the Secret has changed since it was seen, the result is a conflict.
    async fn write_over(
        &self,
        ctx: &Context,
        api: &Api,
        (id, live): (&ObjectId, Option<&LiveObject>),
        before: Option<Made>,
        is_owned: bool,
    ) -> Result<Written, ApiError> {
        let version = take_over(api, self.resource, id, live, &self.unsealed.secret, before).await?;
        let body = self.unsealed.secret.body(is_owned.then_some(self.owner), version.as_deref());
        let writing = ctx.cluster.live.begin(id);
        let written = api.apply(self.resource, id.namespace.as_deref(), &id.name, body).await?;
        let made = if is_owned { Made::Whole } else { Made::Merged };
        let sealing_key = self.unsealed.key.as_deref();
        ctx.marks.wrote(&ctx.keyring, self.key.clone(), &written, (made, self.digest, sealing_key));
        writing.applied(&written);
        Ok(written)
    }
}

/// Prepares an existing Secret for the apply, so that afterwards the Secret belongs completely to the SealedSecret.
/// What others wrote into it (the Sealed Secrets controller, or whoever added the annotation `managed`) is removed,
/// except what the apply writes again. If the Secret already belonged completely to the SealedSecret, only values of
/// others are removed; labels and annotations of others stay. If the Secret has the annotation `patch`, nothing is
/// removed. `made` says how the controller last wrote the Secret; `None` if it did not.
///
/// Returns the resource version of the Secret that is to be written over; `None` if there is no Secret.
async fn take_over(
    api: &Api,
    resource: &Resource,
    id: &ObjectId,
    live: Option<&LiveObject>,
    secret: &UnsealedSecret,
    made: Option<Made>,
) -> Result<Option<String>, ApiError> {
    let Some(live) = live else { return Ok(None) };
    let mut version = Some(live.version.to_string());
    let Some(facts) = &live.secret else { return Ok(version) };
    let namespace = id.namespace.as_deref();
    // With [`Api::replaces_secrets`], the write itself replaces the whole Secret, so nothing has to be prepared.
    if api.replaces_secrets() {
        return Ok(version);
    }
    if facts.managed && facts.owned_by_others && facts.sealed_secret.is_none() {
        // The other owners are removed, because only one owner can have `controller: true`, and because a Secret that
        // was taken over has to be deleted together with its SealedSecret.
        let nobodys = json!({"metadata": {"resourceVersion": version, "ownerReferences": null}});
        version = api.merge(resource, namespace, &id.name, None, &nobodys).await?.resource_version;
    }
    if facts.patch {
        return Ok(version);
    }
    if live.fields.is_none() || made == Some(Made::Merged) {
        return api.adopt(resource, namespace, &id.name, version).await;
    }
    if facts.foreign_values.is_empty() {
        return Ok(version);
    }
    version = api.disown_string_data(namespace, &id.name, version).await?;
    let is_applied = |key: &str| secret.keys().any(|applied| applied == key);
    let foreign = facts.foreign_values.iter().filter(|key| !is_applied(key));
    let removed: Map<_, _> = foreign.map(|key| (key.to_string(), Value::Null)).collect();
    if removed.is_empty() {
        return Ok(version);
    }
    let without = json!({"metadata": {"resourceVersion": version}, "data": removed});
    Ok(api.merge(resource, namespace, &id.name, None, &without).await?.resource_version)
}
