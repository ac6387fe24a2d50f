//! Makes the Secrets of SealedSecrets that belong to no Sync.
//!
//! A SealedSecret that belongs to a Sync is unsealed by the pass of the Sync, so that each value is decrypted only once
//! per revision. `synced.rs` writes the status of all SealedSecrets.

mod mark;
pub(crate) mod synced;
pub(crate) mod undecryptable;
mod write;

use std::sync::{Arc, PoisonError};

use crds::{ObjectKey, SealedSecret};
use kube::ResourceExt;
use manifests::ObjectId;
use pipeline::{Made, Resource, SecretFacts, Unmanaged, may_write, plan::LiveView as _};
use tokio::time::Instant;
use unsealing::{Owner, SealedInput};

pub(crate) use self::mark::Marks;
pub(crate) use self::mark::renew_old;
use self::synced::{is_synced, was_synced};
pub(crate) use self::write::{ToWrite, WriteError};
use crate::{
    backoff::{outage, pause},
    cluster::{ApiError, DiscoveryError, LiveObject},
    context::{Context, InStore as _},
    events::EventType,
    metrics::UnsealFailure,
    status::{reference, resource_of},
    sync::Drifted,
};

/// The pause after the first failure. The pause doubles with each further failure, up to [`LONGEST_RETRY`].
pub(super) const FIRST_RETRY: std::time::Duration = std::time::Duration::from_secs(1);
const LONGEST_RETRY: std::time::Duration = std::time::Duration::from_secs(300);

/// Why the Secret of a SealedSecret could not be made.
#[derive(Debug, thiserror::Error)]
enum UnsealError {
    #[error(transparent)]
    Sealed(#[from] unsealing::UnsealError),
    #[error(transparent)]
    Unmanaged(#[from] Unmanaged),
    #[error("the Secret could not be written: {0}")]
    Write(ApiError),
    #[error("the controller could not read whether the Secret exists: {0}")]
    Read(ApiError),
    #[error(
        "the Secret is not put back yet, because the API server did not say whether the SealedSecret still exists: {0}"
    )]
    Own(ApiError),
    #[error(transparent)]
    Kind(#[from] DiscoveryError),
    #[error(transparent)]
    Watch(#[from] crate::cluster::WatchError),
}

impl From<WriteError> for UnsealError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::Unmanaged(unmanaged) => Self::Unmanaged(unmanaged),
            WriteError::Write(error) => Self::Write(error),
            WriteError::Read(error) => Self::Read(error),
        }
    }
}

impl UnsealError {
    fn metric(&self) -> UnsealFailure {
        match self {
            Self::Sealed(_) => UnsealFailure::Unseal,
            Self::Unmanaged(_) => UnsealFailure::Unmanaged,
            Self::Write(_) | Self::Read(_) | Self::Own(_) | Self::Kind(_) | Self::Watch(_) => UnsealFailure::Update,
        }
    }

    /// Whether the API server did not answer, or said that it cannot process the request now. Such an outage may end at
    /// any moment.
    fn is_outage(&self) -> bool {
        match self {
            Self::Write(error)
            | Self::Read(error)
            | Self::Own(error)
            | Self::Kind(DiscoveryError::Request { source: error, .. }) => error.is_transient() && !error.is_conflict(),
            Self::Sealed(_) | Self::Unmanaged(_) | Self::Kind(_) | Self::Watch(_) => false,
        }
    }

    fn reason(&self) -> &'static str {
        self.metric().event_reason()
    }
}

/// Unseals a SealedSecret, unless it belongs to a Sync.
pub(crate) async fn reconcile(ctx: Arc<Context>, key: ObjectKey) {
    let Some(sealed) = ctx.sealed_secrets.get(&key.to_ref()) else {
        ctx.failing_secrets.forget(&key);
        ctx.marks.forget(&key);
        if ctx.unsealing.skip_recreate {
            ctx.cluster.live.note_read(&secret_id(&key), None);
        }
        return;
    };
    if sealed.metadata.deletion_timestamp.is_some() {
        return;
    }
    if ctx.cluster.live.owner(&sealed_id(&key)).is_some() {
        if is_current(&ctx, &sealed, &key) {
            ctx.failing_secrets.forget(&key);
        }
        ctx.queues.sealed_statuses.add(key);
        return;
    }
    if ctx.unsealing.skip_recreate
        && let Err(error) = read_secret(&ctx, &key).await
    {
        return failed(&ctx, &sealed, &key, &UnsealError::Read(error));
    }
    let standing = standing(&ctx, &sealed, &key);
    // With `--skip-recreate`, Secrets are not watched, so [`mark::renew_old`] does not find Secrets that older versions
    // of gitseal made. These are renewed here.
    let is_renewal = standing == Standing::Old && (ctx.unsealing.skip_recreate || ctx.marks.take_renewal(&key));
    if standing != Standing::Behind && !is_renewal {
        ctx.failing_secrets.forget(&key);
        ctx.queues.sealed_statuses.add(key);
        return;
    }
    let is_heal = !is_renewal && was_synced(&sealed);
    if is_heal {
        let pause_left = ctx.drift.pause(&secret_id(&key), Instant::now());
        if !pause_left.is_zero() {
            ctx.queues.sealed_secrets.add_after(key.clone(), pause_left);
            ctx.queues.sealed_statuses.add(key);
            return;
        }
        // The status is updated at once, because it may take long until the Secret is put back.
        ctx.queues.sealed_statuses.add(key.clone());
        // The Secret may be gone because its SealedSecret was deleted, which the watch may not have shown yet.
        match is_going(&ctx, &sealed, &key).await {
            Ok(false) => {}
            Ok(true) => return,
            Err(error) => return failed(&ctx, &sealed, &key, &UnsealError::Own(error)),
        }
    }
    ctx.metrics.unseal_request();
    let drifted = match unseal(&ctx, &sealed, &key).await {
        Ok(drifted) => drifted,
        // The old Secret stays as it is, which does no harm.
        Err(error) if is_renewal => {
            let what = "the Secret, which an older version made, could not be made again, and stays as it is";
            tracing::info!(sealed_secret = %key, %error, "{what}");
            return;
        }
        Err(error) => return failed(&ctx, &sealed, &key, &error),
    };
    ctx.failing_secrets.forget(&key);
    if is_renewal {
        ctx.queues.sealed_statuses.add(key);
        return;
    }
    if is_heal {
        healed(&ctx, &sealed, &key, &drifted);
    }
    ctx.unsealed.lock().unwrap_or_else(PoisonError::into_inner).insert(key.clone());
    ctx.queues.sealed_statuses.add(key);
}

/// Whether the SealedSecret is being deleted, or was replaced by another one.
async fn is_going(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) -> Result<bool, ApiError> {
    match ctx.cluster.api.get_metadata(&resource_of::<SealedSecret>(), Some(&key.namespace), &key.name).await {
        Ok(meta) => Ok(meta.deletion_timestamp.is_some() || meta.uid != sealed.metadata.uid),
        Err(error) if error.is_gone() => Ok(true),
        Err(error) => Err(error),
    }
}

/// Reports a failure, and plans the next try. Without `--max-unseal-retries`, the number of tries is not limited. After
/// the last try, the SealedSecret is tried again only if the SealedSecret, its Secret or the sealing keys change.
fn failed(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey, error: &UnsealError) {
    let (tried, message) = (digest(ctx, sealed, key), error.to_string());
    if ctx.failing_secrets.message(key, &tried).is_some_and(|before| before == message) {
        tracing::debug!(sealed_secret = %key, reason = error.reason(), %error, "not unsealed again");
    } else {
        tracing::warn!(sealed_secret = %key, reason = error.reason(), %error, "not unsealed");
    }
    ctx.metrics.unseal_error(error.metric(), &key.namespace);
    ctx.events.publish(&reference(sealed), EventType::Warning, error.reason(), error.metric().event_note(error));
    let failures = ctx.failing_secrets.note(key, &tried, message);
    if ctx.unsealing.max_unseal_retries.is_some_and(|retries| failures > retries) {
        tracing::warn!(
            sealed_secret = %key, failures,
            "unsealing is given up until the SealedSecret, its Secret or the sealing keys change, because of \
             --max-unseal-retries"
        );
        ctx.failing_secrets.start_over(key);
    } else {
        let pause = if error.is_outage() { outage(failures) } else { pause(failures, FIRST_RETRY, LONGEST_RETRY) };
        ctx.queues.sealed_secrets.add_after(key.clone(), pause);
    }
    ctx.queues.sealed_statuses.add(key.clone());
}

/// Reads a Secret that no watch has shown. With `--skip-recreate`, there is no watch on Secrets; otherwise, the watch
/// may be late.
pub(crate) async fn read_secret(ctx: &Context, key: &ObjectKey) -> Result<(), ApiError> {
    match ctx.cluster.api.get_metadata(&Resource::secrets(), Some(&key.namespace), &key.name).await {
        Ok(meta) => ctx.cluster.live.note_read(&secret_id(key), Some(&meta)),
        Err(error) if error.is_not_found() => ctx.cluster.live.note_read(&secret_id(key), None),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Reports that a Secret was put back after others had changed it. The more often this happens, the longer is the pause
/// before the next time.
fn healed(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey, drifted: &Drifted) {
    let id = secret_id(key);
    let times = ctx.drift.healed(None, &id, Instant::now());
    ctx.metrics.drift_healed(&id.kind);
    let again = if times > 1 { format!(" ({times} times now; who keeps changing it?)") } else { String::new() };
    let drifted = drifted.outside_of("its SealedSecret");
    let note = format!("{id} {drifted} and is put back{again}");
    tracing::info!(object = %id, times, drifted, "drift healed");
    ctx.events.publish(&reference(sealed), EventType::Warning, "Drifted", note);
}

/// Unseals the SealedSecret and writes its Secret. Returns how others had changed the existing Secret.
async fn unseal(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) -> Result<Drifted, UnsealError> {
    let input = input(ctx, sealed, key);
    let digest = unsealing::digest(&input);
    let resource = ctx.cluster.discovery.find("", "v1", "Secret").await?;
    if !ctx.unsealing.skip_recreate {
        // Without the watch, it would not be known whether an existing Secret belongs to somebody else.
        ctx.cluster.live.watch(&resource, Some(&key.namespace)).await?;
        // The watches may show a SealedSecret earlier than a Secret that somebody made just before the SealedSecret.
        // Such a Secret must not be overwritten.
        if ctx.cluster.live.get(&secret_id(key)).is_none() {
            read_secret(ctx, key).await.map_err(UnsealError::Read)?;
        }
    }
    let (id, uid) = (secret_id(key), sealed.uid().unwrap_or_default());
    let unmanaged = || Unmanaged::of(&id);
    // The metadata show to whom the Secret belongs, so nothing is decrypted if it belongs to somebody else.
    let live = ctx.cluster.live.get(&id);
    may_write(facts_of(live.as_ref()), made(ctx, key, live.as_ref()), &uid).ok_or_else(unmanaged)?;
    let _room = ctx.plaintexts.room(&key.namespace, input.unsealed_bytes()).await;
    let unsealed = ctx.keyring.acting_for(&key.namespace).unseal_secret(&input, &digest).await?;
    // Somebody may have created or changed the Secret in the meantime. So the write checks again to whom it belongs.
    let owner = Owner { uid: &uid, name: &key.name };
    let secret = ToWrite { key, resource: &resource, owner, unsealed: &unsealed, digest: &digest };
    let (written, before) = secret.write(ctx, &ctx.cluster.api).await?;
    Ok(Drifted::of(before.as_ref(), &written))
}

fn facts_of(live: Option<&LiveObject>) -> Option<&SecretFacts> {
    live?.secret.as_deref()
}

/// How the controller last wrote the existing Secret; `None` if it did not.
pub(crate) fn made(ctx: &Context, key: &ObjectKey, live: Option<&LiveObject>) -> Option<Made> {
    let told = mark::of_secret(ctx, key, live?).map(|mark| mark.made);
    facts_of(live)?.made(told)
}

/// Whether the Secret `live` was certainly made from the sealed input with this digest, and is unchanged since then.
pub(crate) fn is_made_from(ctx: &Context, key: &ObjectKey, live: &LiveObject, digest: &str) -> bool {
    mark::is_certainly_of(ctx, key, live, digest)
}

/// Whether a Secret is as its SealedSecret says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Standing {
    /// The Secret was made from this SealedSecret as it is now, and nobody has changed the Secret since then.
    Current,
    /// As [`Standing::Current`], but an older version of gitseal made the Secret, with an annotation that is to be
    /// removed.
    Old,
    /// The Secret has to be made, or put back.
    Behind,
}

/// The value of the label `app.kubernetes.io/instance` of a SealedSecret, which its metrics have as a label; empty if
/// there is no such label.
pub(crate) fn instance(sealed: &SealedSecret) -> &str {
    sealed.labels().get("app.kubernetes.io/instance").map_or("", String::as_str)
}

/// Whether the Secret is as its SealedSecret says.
pub(super) fn is_current(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) -> bool {
    standing(ctx, sealed, key) != Standing::Behind
}

pub(super) fn standing(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) -> Standing {
    let id = secret_id(key);
    let Some(live) = ctx.cluster.live.get(&id) else { return Standing::Behind };
    let Some(facts) = &live.secret else { return Standing::Behind };
    let mark = mark::of_secret(ctx, key, &live);
    let told = facts.made(mark.as_ref().map(|mark| mark.made));
    let uid = sealed.metadata.uid.as_deref().unwrap_or_default();
    let Some(is_owned) = may_write(Some(facts), told, uid) else { return Standing::Behind };
    let made = if is_owned { Made::Whole } else { Made::Merged };
    // After a restart, it is not known which fields were applied. The number of values that gitseal owns is known
    // nevertheless.
    let is_as_applied = ctx.cluster.live.expected(&id).is_none() || ctx.cluster.live.is_untouched(&id);
    if facts.owned_values < values(&input(ctx, sealed, key)) || facts.is_mixed() || !is_as_applied {
        return Standing::Behind;
    }
    let input = input(ctx, sealed, key);
    let digest = unsealing::digest(&input);
    if mark.as_ref().is_some_and(|mark| mark.made == made && mark.is_of(&ctx.keyring, &digest, &live)) {
        return Standing::Current;
    }
    if let Some(old) = facts.old_mark() {
        let is_same = old.made == made && old.digest == unsealing::old_digest(&input);
        return if is_same { Standing::Old } else { Standing::Behind };
    }
    // With the CustomResourceDefinition of Sealed Secrets, the status has no field for a mark (see `mark.rs`), so the
    // condition `Synced` decides. If there is a mark, but it is not valid for the Secret as it is now, somebody has
    // written the Secret since then.
    let is_ours = live.fields.is_some() && facts.sealed_secret.as_deref() == Some(uid);
    if !mark::is_any(ctx, sealed, key) && is_ours && is_synced(sealed) { Standing::Current } else { Standing::Behind }
}

/// How many values the Secret must have at least.
fn values(sealed: &SealedInput<'_>) -> usize {
    if sealed.spec.data.is_some() {
        return 1;
    }
    sealed.keys().len()
}

/// Digest of everything that the Secret is made from.
pub(super) fn digest(ctx: &Context, sealed: &SealedSecret, key: &ObjectKey) -> String {
    unsealing::digest(&input(ctx, sealed, key))
}

fn input<'a>(ctx: &Context, sealed: &'a SealedSecret, key: &'a ObjectKey) -> SealedInput<'a> {
    SealedInput {
        namespace: &key.namespace,
        name: &key.name,
        annotations: sealed.annotations(),
        spec: &sealed.spec,
        accept_deprecated_v1_data: ctx.keys.accept_deprecated_v1_data,
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
    secret_id(key).sealed_secret()
}
