//! SealedSecret → Secret, for those that no Sync brought; and the status of all of them.
//!
//! A SealedSecret of a Sync is unsealed by the Sync's own pass. Here it is only told, in its status, that this was
//! done: one decryption per value and revision, whoever saw it first.

use std::sync::{Arc, PoisonError};

use crds::{Condition, ConditionStatus, SealedSecret, SealedSecretStatus, conditions, find_condition, set_condition};
use kube::ResourceExt;
use manifests::ObjectId;
use tokio::time::Instant;

use super::status::{self, reference, resource_of};
use crate::{
    backoff::pause,
    cluster::{ApiError, LiveObject},
    context::Context,
    events::EventType,
    key::ObjectKey,
    metrics::UnsealFailure,
    opened::{self, OpenError, Owner, SealedInput},
    pipeline::apply::{secret_body, take_over},
};

/// The pause after a first failure; it doubles up to [`LONGEST_RETRY`] and never ends.
const FIRST_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
const LONGEST_RETRY: std::time::Duration = std::time::Duration::from_secs(300);
/// The longest that a status waits for Secrets of others.
const SECRETS_FIRST: std::time::Duration = std::time::Duration::from_secs(5);

/// Why a SealedSecret has no Secret.
#[derive(Debug, thiserror::Error)]
enum UnsealError {
    #[error("{0}")]
    Open(#[from] OpenError),
    #[error("Secret '{0}' exists and no SealedSecret manages it; to let this one take it over: kubectl annotate secret {0} {MANAGED}=true", MANAGED = crds::names::MANAGED)]
    Unmanaged(String),
    #[error("the Secret could not be written: {0}")]
    Write(ApiError),
    #[error("{0}")]
    Kind(#[from] crate::cluster::DiscoveryError),
    #[error("{0}")]
    Watch(#[from] crate::cluster::WatchError),
}

impl UnsealError {
    fn metric(&self) -> UnsealFailure {
        match self {
            Self::Open(_) => UnsealFailure::Unseal,
            Self::Unmanaged(_) => UnsealFailure::Unmanaged,
            Self::Write(_) | Self::Kind(_) | Self::Watch(_) => UnsealFailure::Update,
        }
    }

    fn reason(&self) -> &'static str {
        match self {
            Self::Open(_) => "ErrUnsealFailed",
            Self::Unmanaged(_) | Self::Write(_) | Self::Kind(_) | Self::Watch(_) => "ErrUpdateFailed",
        }
    }
}

/// Unseals one SealedSecret, unless a Sync does.
pub async fn reconcile(ctx: Arc<Context>, key: ObjectKey) {
    let Some(sealed) = ctx.sealed_secrets.get(&key.to_ref()) else {
        ctx.failing_secrets.forget(&key);
        return;
    };
    if sealed.metadata.deletion_timestamp.is_some() {
        return;
    }
    if ctx.live.owner(&sealed_id(&key)).is_some() || is_current(&ctx, &sealed, &key) {
        ctx.failing_secrets.forget(&key);
        ctx.queues.sealed_statuses.add(key);
        return;
    }
    let is_heal = is_synced(&sealed);
    let pause_left = ctx.drift.pause(&secret_id(&key), Instant::now());
    if is_heal && !pause_left.is_zero() {
        ctx.queues.sealed_secrets.add_after(key, pause_left);
        return;
    }
    ctx.metrics.unseal_request();
    match unseal(&ctx, &sealed, &key).await {
        Ok(()) => {
            ctx.failing_secrets.forget(&key);
            if is_heal {
                healed(&ctx, &sealed, &key);
            }
            ctx.unsealed.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
        }
        Err(error) => {
            tracing::warn!(sealed_secret = %key, reason = error.reason(), %error, "not unsealed");
            ctx.metrics.unseal_error(error.metric(), &key.namespace);
            ctx.events.publish(&reference(&*sealed), EventType::Warning, error.reason(), error.to_string());
            let failures = ctx.failing_secrets.note(&key, error.to_string());
            ctx.queues.sealed_secrets.add_after(key.clone(), pause(failures, FIRST_RETRY, LONGEST_RETRY));
        }
    }
    ctx.queues.sealed_statuses.add(key);
}

/// Whether the SealedSecret, as it is now, was unsealed before: its Secret was changed or went away since.
fn is_synced(sealed: &SealedSecret) -> bool {
    sealed.status.as_ref().is_some_and(|status| {
        status.observed_generation == sealed.metadata.generation
            && find_condition(&status.conditions, conditions::SYNCED)
                .is_some_and(|synced| synced.status == ConditionStatus::True)
    })
}

/// Two writers that fight over a Secret are told of, and slow down.
fn healed(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) {
    let id = secret_id(key);
    let times = ctx.drift.healed(&id, Instant::now());
    ctx.metrics.drift_healed(&id.kind);
    let again = if times > 1 { format!(" ({times} times now; who keeps changing it?)") } else { String::new() };
    let note = format!("{id} was changed and is put back{again}");
    tracing::info!(object = %id, times, "drift healed");
    ctx.events.publish(&reference(sealed), EventType::Warning, "Drifted", note);
}

async fn unseal(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) -> Result<(), UnsealError> {
    let annotations = sealed.annotations();
    let input = input(ctx, sealed, key, annotations);
    let digest = opened::digest(&input);
    let secret = opened::open(&ctx.keyring, &input).await?;
    let resource = ctx.discovery.find("", "v1", "Secret").await?;
    // Without the watch nobody knows whether the Secret that is there belongs to somebody else.
    ctx.live.watch(&resource).await?;
    let id = secret_id(key);
    let live = ctx.live.get(&id);
    let facts = live.as_ref().and_then(|live| live.secret.as_deref());
    let uid = sealed.uid().unwrap_or_default();
    let body = secret_body(&secret, Owner { uid: &uid, name: &key.name }, facts, &digest, None)
        .ok_or_else(|| UnsealError::Unmanaged(key.name.clone()))?;
    take_over(&ctx.api, &resource, &id, live.as_ref(), &secret).await.map_err(UnsealError::Write)?;
    let writing = ctx.live.begin(&id);
    let applied = ctx
        .api
        .apply(&resource, Some(&key.namespace), &key.name, body)
        .await
        .map_err(|error| UnsealError::Write(error.without_content()))?;
    writing.applied(&applied);
    Ok(())
}

/// Whether the Secret was made of this very input, by this SealedSecret, and nobody touched it since.
fn is_current(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) -> bool {
    let id = secret_id(key);
    let Some(LiveObject { secret: Some(facts), .. }) = ctx.live.get(&id) else {
        return false;
    };
    let digest = opened::digest(&input(ctx, sealed, key, sealed.annotations()));
    let Some(is_owned) = opened::may_write(Some(&facts), sealed.metadata.uid.as_deref().unwrap_or_default()) else {
        return false;
    };
    // After a restart nobody knows which fields were applied; that the values are ours can be seen all the same.
    facts.sealed_digest.as_deref() == Some(opened::digest_mark(&digest, is_owned).as_str())
        && facts.owned_values >= values(sealed)
        && (ctx.live.expected(&id).is_none() || ctx.live.is_untouched(&id))
}

/// How many values the Secret has, at least.
fn values(sealed: &SealedSecret) -> usize {
    if sealed.spec.data.is_some() {
        return 1;
    }
    let template = sealed.spec.template.as_ref().and_then(|template| template.data.as_ref());
    let plain = template.into_iter().flat_map(|data| data.keys());
    sealed.spec.encrypted_data.keys().chain(plain).collect::<std::collections::BTreeSet<_>>().len()
}

fn input<'a>(
    ctx: &Context,
    sealed: &'a SealedSecret,
    key: &'a ObjectKey,
    annotations: &'a std::collections::BTreeMap<String, String>,
) -> SealedInput<'a> {
    SealedInput {
        namespace: &key.namespace,
        name: &key.name,
        annotations,
        spec: &sealed.spec,
        accept_deprecated_v1_data: ctx.keys.accept_deprecated_v1_data,
    }
}

/// Brings the `Synced` condition up to date.
pub async fn report(ctx: Arc<Context>, key: ObjectKey) {
    // Workloads wait for Secrets and nobody waits for a status: while there are many to unseal, theirs come later.
    let _ = tokio::time::timeout(SECRETS_FIRST, ctx.queues.sealed_secrets.drained()).await;
    let Some(sealed) = ctx.sealed_secrets.get(&key.to_ref()) else {
        return;
    };
    let failure = ctx.failing_secrets.message(&key);
    let (status, message) = match &failure {
        Some(message) => (ConditionStatus::False, message.as_str()),
        None if is_current(&ctx, &sealed, &key) => (ConditionStatus::True, ""),
        // Not done yet, or a Sync holds it back and says why.
        None => return,
    };
    if ctx.unsealed.lock().unwrap_or_else(PoisonError::into_inner).remove(&key) {
        ctx.events.publish(&reference(&*sealed), EventType::Normal, "Unsealed", "SealedSecret unsealed successfully");
    }
    let instance = sealed.labels().get("app.kubernetes.io/instance").map_or("", String::as_str);
    ctx.metrics.sealed_secret_condition(&key.namespace, &key.name, instance, conditions::SYNCED, status);
    let mut old = sealed.status.clone().unwrap_or_default();
    let mut new = SealedSecretStatus { observed_generation: sealed.metadata.generation, ..old.clone() };
    let now = status::now();
    let condition = Condition {
        type_: conditions::SYNCED.into(),
        status,
        reason: String::new(),
        message: message.into(),
        last_transition_time: Some(now),
        observed_generation: None,
    };
    set_condition(&mut new.conditions, condition);
    if let Err(error) = status::write(&ctx.api, &resource_of::<SealedSecret>(), &key, &mut old, new).await {
        tracing::warn!(sealed_secret = %key, %error, "the status could not be written");
        ctx.metrics.unseal_error(UnsealFailure::Status, &key.namespace);
        ctx.queues.sealed_statuses.add_after(key, FIRST_RETRY);
    }
}

fn secret_id(key: &ObjectKey) -> ObjectId {
    ObjectId {
        group: String::new(),
        kind: "Secret".into(),
        namespace: Some(key.namespace.clone()),
        name: key.name.clone(),
    }
}

fn sealed_id(key: &ObjectKey) -> ObjectId {
    ObjectId { group: "bitnami.com".into(), kind: "SealedSecret".into(), ..secret_id(key) }
}
