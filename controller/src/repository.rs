//! Fetches Repositories to snapshots on disk. Syncs whose folder changed are put into the queue.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use crds::{
    ConditionStatus, GitReference, ObjectKey, Repository, RepositorySpec, RepositoryStatus, Sync, Verification,
    VerificationMode, VersionDigest, conditions, find_condition,
};
use flags::duration;
use gitstore::{
    Credentials, FetchError, FetchRequest, FetchedVersion, GitStore, Reference, RepositoryKey, Revision, RevisionId,
    Snapshot, SnapshotError, TrustedKeys,
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use pipeline::{Resource, Target, other_files, repository_of};
use zeroize::{Zeroize, Zeroizing};

use crate::{
    backoff,
    cluster::ApiError,
    context::{Context, InStore as _},
    events::EventType,
    fetches::{self, Fetch},
    remotes,
    sources::{FirstFetch, Keeps, Users},
    status::{self, Progress, reference, requested_at, resource_of, set_progress},
    sync::content_of,
};

/// The pause after the first failure. The pause doubles with each further failure, up to the Repository's interval.
const FIRST_RETRY: Duration = Duration::from_secs(2);
/// If a first fetch takes longer than this, the Repository and its Syncs report it.
const SLOW: Duration = Duration::from_secs(5);
/// The shortest time between two fetches of a Repository.
const SHORTEST_INTERVAL: Duration = Duration::from_secs(1);

/// How many versions the status records. Each takes up to 2.5 KiB.
const VERSIONS: usize = 32;

/// Why a Repository has no new revision.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RepositoryError {
    #[error("{0}")]
    Fetch(#[from] FetchError),
    #[error("there is no Secret {name} in namespace {namespace}: make it, or name another one in {field}")]
    NoSecret { namespace: String, name: String, field: &'static str },
    #[error("Secret {name} ({field}) could not be read: {source}")]
    Secret { name: String, field: &'static str, source: ApiError },
    #[error(
        "spec.verify.mode Head is not supported yet, and an unverified commit is not applied; set mode None to trust every commit"
    )]
    Verify,
    #[error("{0}")]
    Duration(String),
    #[error("the fetch was interrupted: {0}")]
    Interrupted(String),
    #[error("the version was fetched, but its digest could not be written to the status, and is not used before: {0}")]
    NotRecorded(#[source] ApiError),
    #[error("the revision was fetched, but cannot be read: {0}")]
    Unreadable(#[source] SnapshotError),
}

impl RepositoryError {
    fn reason(&self) -> &'static str {
        match self {
            Self::Fetch(error) => error.reason(),
            Self::NoSecret { .. } => "SecretNotFound",
            Self::Secret { .. } => "SecretUnreadable",
            Self::Verify => "Unsupported",
            Self::Duration(_) => "InvalidSpec",
            Self::Interrupted(_) => "FetchInterrupted",
            Self::NotRecorded(_) => "VersionNotRecorded",
            Self::Unreadable(error) => error.reason(),
        }
    }

    fn is_terminal(&self) -> bool {
        match self {
            Self::Fetch(error) => error.is_terminal(),
            Self::Verify | Self::Duration(_) => true,
            Self::NoSecret { .. }
            | Self::Secret { .. }
            | Self::Interrupted(_)
            | Self::NotRecorded(_)
            | Self::Unreadable(_) => false,
        }
    }
}

/// What a fetch found.
struct Fetched {
    revision: Revision,
    /// Whether the revision is a chart that says of itself that it is deprecated.
    is_deprecated: bool,
}

/// Fetches a Repository.
pub(crate) async fn reconcile(ctx: Arc<Context>, key: ObjectKey) {
    // The fetch is noted before the spec is read, so that a later edit cancels this fetch.
    let running = ctx.fetches.begin(&key);
    let Some(repository) = ctx.repositories.get(&key.to_ref()) else {
        ctx.fetches.forget(&key);
        ctx.sources.remove(&key);
        ctx.remotes.forget(&key);
        ctx.metrics.forget_repository(&key);
        ctx.queues.repositories.forget(&key);
        ctx.failing_fetches.forget(&key);
        enqueue_syncs(&ctx, &key, |_| true);
        let (git, git_key) = (ctx.git.clone(), git_key(&key));
        // A new Repository of the same name waits in the queue until the files are removed. Otherwise the new
        // Repository could find files that are being deleted.
        if let Err(error) = tokio::task::spawn_blocking(move || git.remove(&git_key)).await {
            tracing::error!(repository = %key, %error, "the files of the deleted Repository could not be removed");
        }
        return;
    };
    ctx.sources.add(&key);
    if ctx.sources.snapshot(&key).is_none() {
        restore(&ctx, &key, &repository).await;
    }
    let (mut old, mut unsure) = (repository.status.clone().unwrap_or_default(), BTreeSet::new());
    attach_remotes(&ctx, &key, &repository, &mut old, &mut unsure).await;
    if repository.spec.suspend {
        return;
    }
    let occasion = remotes::occasion(&repository);
    let is_damaged = ctx.sources.snapshot(&key).is_some_and(|snapshot| snapshot.is_damaged());
    if let Some(pause) = ctx.fetches.waits(&key, &occasion).filter(|_| !is_damaged) {
        // Only what it uses of other repositories is new.
        ctx.queues.repositories.add_after(key, pause);
        return;
    }
    // This fetch replaces the fetch that is due later. The later time is removed from the queue, so that the next fetch
    // is not too early if the server asks for a longer pause after this fetch.
    ctx.queues.repositories.forget(&key);
    let result = {
        let mut fetching = std::pin::pin!(fetch(&ctx, &key, &repository, &running));
        tokio::select! {
            result = &mut fetching => result,
            () = tokio::time::sleep(SLOW) => {
                tell_slow(&ctx, &key, &repository, &mut old, &mut unsure).await;
                fetching.await
            }
        }
    };
    if matches!(result, Err(RepositoryError::Fetch(FetchError::Cancelled))) {
        tracing::debug!(repository = %key, "the fetch was cancelled");
        return;
    }
    ctx.fetches.was_slow(&key, matches!(result, Err(RepositoryError::Fetch(FetchError::Timeout { .. }))));
    let result = match result {
        Ok(fetched) => {
            use_revision(&ctx, &key, &repository, &fetched.revision, &mut old, &mut unsure).await.map(|()| fetched)
        }
        Err(error) => Err(error),
    };
    ctx.metrics.git_fetch(result.as_ref().map_or_else(RepositoryError::reason, |_| "ok"));
    let interval = duration(&repository.spec.interval).unwrap_or(Duration::from_secs(60)).max(SHORTEST_INTERVAL);
    let next = match &result {
        Ok(_) => {
            ctx.failing_fetches.forget(&key);
            interval
        }
        Err(error) => {
            if status::says(&old.conditions, error.reason(), &error.to_string()) {
                tracing::debug!(repository = %key, reason = error.reason(), %error, "fetch failed again");
            } else {
                tracing::warn!(repository = %key, reason = error.reason(), %error, "fetch failed");
            }
            if ctx.sources.no_snapshot_yet(&key, FirstFetch::Failed) {
                enqueue_syncs(&ctx, &key, |_| true);
            }
            ctx.events.publish(&reference(&*repository), EventType::Warning, error.reason(), error.to_string());
            let tried = repository.metadata.generation.unwrap_or_default().to_string();
            let failures = ctx.failing_fetches.note(&key, &tried, error.to_string());
            let asked = match error {
                RepositoryError::Fetch(error) => error.retry_after().unwrap_or_default(),
                _ => Duration::ZERO,
            };
            backoff::pause(failures, FIRST_RETRY, interval).max(asked)
        }
    };
    if result.is_ok() {
        ctx.remotes.ask(&key, requested_at(&*repository) != old.last_handled_reconcile_at.as_deref());
    }
    let is_told = report(&ctx, &key, &repository, (old, unsure), result).await;
    let next = if is_told { next } else { next.min(FIRST_RETRY) };
    ctx.fetches.wait(&key, occasion, next);
    ctx.queues.repositories.add_after(key, next);
}

async fn fetch(
    ctx: &Context,
    key: &ObjectKey,
    repository: &Repository,
    running: &Fetch,
) -> Result<Fetched, RepositoryError> {
    let spec = &repository.spec;
    if spec.verify.as_ref().is_some_and(|verify| verify.mode == VerificationMode::Head) {
        return Err(RepositoryError::Verify);
    }
    let timeout = duration(&spec.timeout).map_err(RepositoryError::Duration)?.min(fetches::LONGEST);
    let url = stored_url(spec);
    let turn = ctx.fetches.turn(running, &gitstore::host_of(&url)).await.ok_or(FetchError::Cancelled)?;
    let request = FetchRequest {
        key: git_key(key),
        url,
        reference: git_reference(spec.reference.as_ref()),
        credentials: credentials(ctx, key, repository).await?,
        fetched: fetched_versions(repository),
        trusted: trusted(ctx, key, repository).await?,
        timeout,
        cancel: running.cancel(),
    };
    let git = ctx.git.clone();
    // The turn to fetch lasts as long as the thread works, even if the caller no longer waits for the result.
    let work = move || -> Result<Fetched, RepositoryError> {
        let _turn = turn;
        let revision = git.fetch(&request)?;
        let is_chart = matches!(revision.id, RevisionId::Archive(_));
        let snapshot = is_chart.then(|| git.snapshot(&request.key, &request.url, &revision).ok()).flatten();
        let is_deprecated = snapshot.is_some_and(|snapshot| snapshot.has_deprecated_chart());
        Ok(Fetched { revision, is_deprecated })
    };
    tokio::task::spawn_blocking(work).await.map_err(|error| RepositoryError::Interrupted(error.to_string()))?
}

/// Reports in the Repository and its Syncs that the first fetch takes long.
async fn tell_slow(
    ctx: &Context,
    key: &ObjectKey,
    repository: &Repository,
    old: &mut RepositoryStatus,
    unsure: &mut BTreeSet<String>,
) {
    let generation = repository.metadata.generation;
    let ready = find_condition(&old.conditions, conditions::READY);
    if ready.is_none_or(|ready| ready.observed_generation != generation) {
        let host = gitstore::host_of(&stored_url(&repository.spec));
        let message = format!(
            "not fetched from {host} yet: the fetch waits for its turn or for the server; when its turn has come, it may \
             take as long as spec.timeout"
        );
        let mut new = old.clone();
        new.observed_generation = generation;
        set_progress(&mut new.conditions, Progress::Working, "Fetching", &message, generation);
        ctx.metrics.repository_ready(key, ConditionStatus::Unknown, "Fetching");
        if let Err(error) = status::write(&ctx.api, &resource_of::<Repository>(), key, old, unsure, new).await {
            tracing::warn!(repository = %key, %error, "the status could not be written");
        }
    }
    if ctx.sources.no_snapshot_yet(key, FirstFetch::Slow) {
        enqueue_syncs(ctx, key, |_| true);
    }
}

async fn credentials(ctx: &Context, key: &ObjectKey, repository: &Repository) -> Result<Credentials, RepositoryError> {
    let Some(secret) = &repository.spec.secret_ref else {
        return Ok(Credentials::none());
    };
    let data = secret_data(ctx, key, &secret.name, "spec.secretRef").await?;
    Ok(Credentials::from_secret(&repository.spec.url, |name| data.get(name).map(|bytes| bytes.as_slice()))?)
}

/// How the fetched artifact must be signed with cosign; `None` if it needs no such signature.
fn signed_by(repository: &Repository) -> Option<&Verification> {
    let is_checked = |mode| matches!(mode, VerificationMode::Cosign | VerificationMode::Provenance);
    repository.spec.verify.as_ref().filter(|verify| is_checked(verify.mode))
}

/// The public keys, one of which must have signed the fetched artifact.
async fn trusted(
    ctx: &Context,
    key: &ObjectKey,
    repository: &Repository,
) -> Result<Option<TrustedKeys>, RepositoryError> {
    let Some(verify) = signed_by(repository) else {
        return Ok(None);
    };
    let name = verify.secret_ref.as_ref().map_or("", |secret| &secret.name);
    let data = secret_data(ctx, key, name, "spec.verify.secretRef").await?;
    let keys = data.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
    Ok(Some(match verify.mode {
        VerificationMode::Provenance => TrustedKeys::of_openpgp(keys)?,
        _ => TrustedKeys::from_secret(keys)?,
    }))
}

/// What a Secret of the Repository's namespace holds. `field` is the field of the Repository that names the Secret.
pub(crate) async fn secret_data(
    ctx: &Context,
    key: &ObjectKey,
    name: &str,
    field: &'static str,
) -> Result<BTreeMap<String, Zeroizing<Vec<u8>>>, RepositoryError> {
    let path = Resource::secrets().path(Some(&key.namespace), Some(name));
    let answer: Secret = ctx.api.read(&path).await.map_err(|source| {
        let name = name.to_owned();
        if source.is_not_found() {
            return RepositoryError::NoSecret { namespace: key.namespace.clone(), name, field };
        }
        RepositoryError::Secret { name, field, source }
    })?;
    Ok(answer
        .data
        .unwrap_or_default()
        .into_iter()
        .map(|(name, ByteString(mut bytes))| {
            let kept = Zeroizing::new(bytes.clone());
            bytes.zeroize();
            (name, kept)
        })
        .collect())
}

/// Loads the last good revision from the disk after a start, so that drift is healed even if the Git server does not
/// answer. If the status names another revision, the revision on disk is not used: another replica fetched in the
/// meantime, and Syncs must not go back to an older revision.
pub(crate) async fn restore(ctx: &Arc<Context>, key: &ObjectKey, repository: &Repository) {
    let (git, git_key, url) = (ctx.git.clone(), git_key(key), stored_url(&repository.spec));
    let (remotes, of) = (ctx.remotes.clone(), key.clone());
    let recorded = repository.status.as_ref().map(|status| status.remotes.clone()).unwrap_or_default();
    let last = tokio::task::spawn_blocking(move || {
        remotes.load(&git, &of, &recorded);
        let revision = git.last(&git_key, &url)?;
        git.snapshot(&git_key, &url, &revision).ok()
    })
    .await
    .ok()
    .flatten();
    let newest = repository.status.as_ref().and_then(|status| status.revision.as_deref());
    let is_newest = |snapshot: &Snapshot| newest.is_none_or(|newest| newest == snapshot.revision().to_string());
    if let Some(snapshot) = last.filter(is_newest) {
        tracing::info!(repository = %key, revision = %snapshot.revision(), "the last good revision is on disk");
        let snapshot = snapshot.with_remotes(ctx.remotes.of(key, &repository.spec.remotes));
        if let Err(error) = install(ctx, key, snapshot).await {
            tracing::error!(repository = %key, %error, "the stored revision could not be read");
        }
    }
}

/// Puts what was fetched of remote repositories, and what `spec.remotes` allows now, into the current snapshot.
async fn attach_remotes(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    repository: &Repository,
    old: &mut RepositoryStatus,
    unsure: &mut BTreeSet<String>,
) {
    let Some(snapshot) = ctx.sources.snapshot(key) else { return };
    ctx.sources.are_used(key, users_of(key, ctx.syncs.state()));
    let forgotten = ctx.remotes.make_room(key, |remote| ctx.sources.uses(key, &remote.root()));
    if !forgotten.is_empty() {
        remotes::forget(ctx, key, forgotten).await;
    }
    ctx.remotes.fetch_again(repository);
    let annotations = repository.metadata.annotations.as_ref();
    let accepted = annotations.and_then(|all| all.get(crds::names::ACCEPT_MOVED));
    ctx.remotes.accept(key, accepted.map_or("", String::as_str));
    let before = old.remotes.clone();
    let new = RepositoryStatus { remotes: ctx.remotes.record(key), ..old.clone() };
    match status::write(&ctx.api, &resource_of::<Repository>(), key, old, unsure, new).await {
        Ok(()) => {
            ctx.remotes.was_recorded(key, &old.remotes);
            remotes::tell(ctx, key, repository, (&before, &old.remotes));
        }
        // What is not recorded is not used yet.
        Err(error) => {
            tracing::warn!(repository = %key, %error, "the status could not be written");
            ctx.queues.repositories.add_after(key.clone(), FIRST_RETRY);
        }
    }
    let remotes = ctx.remotes.of(key, &repository.spec.remotes);
    if snapshot.remotes().identity() == remotes.identity() && !snapshot.remotes().is_damaged() {
        return;
    }
    if let Err(error) = install(ctx, key, snapshot.with_remotes(remotes)).await {
        tracing::error!(repository = %key, %error, "the remote bases could not be used");
    }
}

/// Records the digest of a version, and then makes `revision` the revision that Syncs are rendered from. What is not recorded is not
/// used: otherwise, it would be forgotten if the controller ended now.
async fn use_revision(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    repository: &Repository,
    revision: &Revision,
    old: &mut RepositoryStatus,
    unsure: &mut BTreeSet<String>,
) -> Result<(), RepositoryError> {
    let new = RepositoryStatus { versions: with_version(&old.versions, &repository.spec, revision), ..old.clone() };
    let written = status::write(&ctx.api, &resource_of::<Repository>(), key, old, unsure, new).await;
    written.map_err(RepositoryError::NotRecorded)?;
    publish(ctx, key, repository, revision).await
}

/// The versions that the status of a Repository records for the chart or artifact that its spec names now.
fn fetched_versions(repository: &Repository) -> Vec<FetchedVersion> {
    let recorded = repository.status.iter().flat_map(|status| &status.versions);
    let of_spec = recorded.filter(|version| is_of(version, &repository.spec));
    of_spec
        .filter_map(|VersionDigest { version, digest, fetched_at, .. }| {
            let digest = digest.strip_prefix("sha256:")?.to_owned();
            Some(FetchedVersion { version: version.clone(), digest, since: fetched_at.clone() })
        })
        .collect()
}

/// The versions to record when `revision` was fetched. The one that was used last is the first one, so that it is forgotten last: a
/// version that is in use, or was a moment ago, must keep its digest.
fn with_version(recorded: &[VersionDigest], spec: &RepositorySpec, revision: &Revision) -> Vec<VersionDigest> {
    let mut all = recorded.to_vec();
    let Some((version, _)) = revision.as_version() else { return all };
    let digest = revision.id.to_string();
    let is_same = |one: &VersionDigest| is_of(one, spec) && one.version == version;
    if let Some(index) = all.iter().position(|one| is_same(one) && one.digest == digest) {
        all[..=index].rotate_right(1);
        return all;
    }
    all.retain(|one| !is_same(one));
    let (url, chart, version) = (spec.url.clone(), spec.chart.clone(), version.to_owned());
    all.insert(0, VersionDigest { url, chart, version, digest, fetched_at: status::now() });
    all.truncate(VERSIONS);
    all
}

/// Whether this is a version of the chart or artifact that the spec names.
fn is_of(version: &VersionDigest, spec: &RepositorySpec) -> bool {
    version.url == spec.url && version.chart == spec.chart
}

/// Makes `revision` the revision that Syncs are rendered from.
async fn publish(
    ctx: &Arc<Context>,
    key: &ObjectKey,
    repository: &Repository,
    revision: &Revision,
) -> Result<(), RepositoryError> {
    let mut was_damaged = false;
    if let Some(snapshot) = ctx.sources.snapshot(key) {
        was_damaged = snapshot.is_damaged();
        if snapshot.revision() == revision && !was_damaged {
            return Ok(());
        }
    }
    let snapshot = open(ctx.git.clone(), key, &stored_url(&repository.spec), revision).await?;
    let snapshot = snapshot.with_remotes(ctx.remotes.of(key, &repository.spec.remotes));
    install(ctx, key, snapshot).await?;
    if was_damaged {
        retry_failed(ctx, key);
    }
    tracing::info!(repository = %key, %revision, "fetched");
    Ok(())
}

async fn open(
    git: Arc<GitStore>,
    key: &ObjectKey,
    url: &str,
    revision: &Revision,
) -> Result<Snapshot, RepositoryError> {
    let (git_key, url, wanted) = (git_key(key), url.to_owned(), revision.clone());
    tokio::task::spawn_blocking(move || git.snapshot(&git_key, &url, &wanted))
        .await
        .map_err(|error| RepositoryError::Interrupted(error.to_string()))?
        .map_err(RepositoryError::Unreadable)
}

async fn install(ctx: &Arc<Context>, key: &ObjectKey, snapshot: Snapshot) -> Result<(), RepositoryError> {
    let before: Vec<_> = syncs_of(ctx, key).into_iter().map(|sync| (content_of(ctx, &sync), sync)).collect();
    let (sources, repository, users) = (ctx.sources.clone(), key.clone(), users_of(key, ctx.syncs.state()));
    tokio::task::spawn_blocking(move || {
        sources.update(&repository, Arc::new(snapshot), &users);
    })
    .await
    .map_err(|error| RepositoryError::Interrupted(error.to_string()))?;
    // Only Syncs whose folder, or whose files with Helm values, changed have work to do.
    for (content, sync) in before {
        if content.is_none() || content != content_of(ctx, &sync) {
            ctx.queues.syncs.add(ObjectKey::of(&*sync));
        }
    }
    Ok(())
}

/// The folders of the Repository that `syncs` render, and what is kept for them.
fn users_of(key: &ObjectKey, syncs: impl IntoIterator<Item = Arc<Sync>>) -> Users {
    let mut users = Users::new();
    for sync in syncs.into_iter().filter(|sync| repository_of(sync) == *key) {
        let keeps = match (sync.metadata.namespace.as_ref() == Some(&key.namespace), sync.spec.suspend) {
            (true, _) => Keeps::Possible,
            (false, false) => Keeps::Known,
            (false, true) => Keeps::None,
        };
        let known = users.entry(Target::of(&sync)).or_insert(keeps);
        *known = keeps.max(*known);
    }
    users
}

/// Tries Syncs again that failed because Git objects on disk could not be read. These objects can be read again now,
/// although the Syncs' folders did not change.
fn retry_failed(ctx: &Context, key: &ObjectKey) {
    for sync in syncs_of(ctx, key) {
        let sync = ObjectKey::of(&*sync);
        // A Sync whose record is locked is being worked on, and tries again by itself.
        if let Some(record) = ctx.records.get(&sync)
            && let Ok(mut record) = record.try_lock()
            && record.content.is_none()
        {
            record.retry_at = Some(tokio::time::Instant::now());
            ctx.queues.syncs.add(sync);
        }
    }
}

/// The Syncs whose folder is in the Repository, and those whose chart gets values from it.
fn syncs_of(ctx: &Context, key: &ObjectKey) -> Vec<Arc<Sync>> {
    let uses =
        |sync: &Arc<Sync>| repository_of(sync) == *key || other_files(sync).any(|file| file.repository() == *key);
    ctx.syncs.state().into_iter().filter(uses).collect()
}

fn enqueue_syncs(ctx: &Context, key: &ObjectKey, wanted: impl Fn(&Sync) -> bool) {
    for sync in syncs_of(ctx, key).into_iter().filter(|sync| wanted(sync)) {
        ctx.queues.syncs.add(ObjectKey::of(&*sync));
    }
}

/// Writes the status. Returns whether it was written.
async fn report(
    ctx: &Context,
    key: &ObjectKey,
    repository: &Repository,
    (mut old, mut unsure): (RepositoryStatus, BTreeSet<String>),
    result: Result<Fetched, RepositoryError>,
) -> bool {
    let generation = repository.metadata.generation;
    let (before, mut new) = (old.remotes.clone(), old.clone());
    new.observed_generation = generation;
    new.remotes = ctx.remotes.record(key);
    new.last_handled_reconcile_at = requested_at(repository).map(str::to_owned);
    match result {
        Ok(Fetched { revision, is_deprecated }) => {
            let revision = revision.to_string();
            if old.revision.as_ref() != Some(&revision) {
                new.revision = Some(revision.clone());
                new.fetched_at = Some(status::now());
            }
            let signed = if signed_by(repository).is_some() { ", and its signature is by a trusted key" } else { "" };
            let mut message = format!("fetched {revision}{signed}");
            if let Some(moved) = remotes::in_short(&new.remotes) {
                message = format!("{message}; {moved}");
            }
            if is_deprecated {
                message.push_str("; the chart says that it is deprecated: look for what replaces it");
                if !status::says(&old.conditions, "Fetched", &message) {
                    ctx.events.publish(&reference(repository), EventType::Warning, "DeprecatedChart", message.clone());
                }
            }
            set_progress(&mut new.conditions, Progress::Ready, "Fetched", &message, generation);
            ctx.metrics.repository_ready(key, ConditionStatus::True, "Fetched");
        }
        Err(error) => {
            let progress = if error.is_terminal() { Progress::Stalled } else { Progress::Retrying };
            set_progress(&mut new.conditions, progress, error.reason(), &error.to_string(), generation);
            ctx.metrics.repository_ready(key, ConditionStatus::False, error.reason());
        }
    }
    match status::write(&ctx.api, &resource_of::<Repository>(), key, &mut old, &mut unsure, new).await {
        Ok(()) => {
            remotes::tell(ctx, key, repository, (&before, &old.remotes));
            if ctx.remotes.was_recorded(key, &old.remotes) {
                ctx.queues.repositories.add(key.clone());
            }
            true
        }
        Err(error) => {
            tracing::warn!(repository = %key, %error, "the status could not be written");
            false
        }
    }
}

pub(crate) fn git_key(key: &ObjectKey) -> RepositoryKey {
    RepositoryKey { namespace: key.namespace.clone(), name: key.name.clone() }
}

/// The URL under which the Git store keeps what the Repository fetches.
pub(crate) fn stored_url(spec: &RepositorySpec) -> String {
    match &spec.chart {
        Some(chart) => gitstore::chart_url(&spec.url, chart),
        None => spec.url.clone(),
    }
}

fn git_reference(reference: Option<&GitReference>) -> Reference {
    let Some(reference) = reference.cloned() else {
        return Reference::Head;
    };
    if let Some(digest) = reference.digest {
        let digest = digest.strip_prefix("sha256:").unwrap_or_default().to_owned();
        return Reference::Digest { tag: reference.tag.unwrap_or_default(), digest };
    }
    match (reference.branch, reference.tag, reference.semver, reference.commit) {
        (_, _, _, Some(commit)) => Reference::Commit(commit),
        (_, _, Some(range), _) => Reference::Semver(range),
        (_, Some(tag), ..) => Reference::Tag(tag),
        (Some(branch), ..) => Reference::Branch(branch),
        _ => Reference::Head,
    }
}

#[cfg(test)]
mod tests {
    use gitstore::StoreOptions;

    use super::*;

    #[test]
    fn the_digest_of_each_version_is_recorded_once() {
        let spec = |url: &str| -> RepositorySpec { serde_json::from_value(serde_json::json!({"url": url})).unwrap() };
        let (one, other) = (spec("oci://registry.example/one"), spec("oci://registry.example/other"));
        let revision =
            |version: &str, digit: &str| format!("{version}@sha256:{}", digit.repeat(64)).parse::<Revision>().unwrap();
        let all = with_version(&[], &one, &revision("1.0.0", "1"));
        assert_eq!(with_version(&all, &one, &revision("1.0.0", "1")), all);
        // A tag that is no version, and a commit, go on following.
        assert_eq!(with_version(&all, &one, &revision("main", "1")), all);
        let commit = format!("v1.0.0@sha1:{}", "1".repeat(40)).parse().unwrap();
        assert_eq!(with_version(&all, &one, &commit), all);
        // An accepted digest takes the place of the one before. Another chart has versions of its own.
        let all = with_version(&all, &one, &revision("1.0.0", "2"));
        let all = with_version(&all, &other, &revision("1.0.0", "3"));
        let of = |spec: &RepositorySpec| {
            let status = RepositoryStatus { versions: all.clone(), ..RepositoryStatus::default() };
            let repository = Repository { status: Some(status), ..Repository::new("repo", spec.clone()) };
            fetched_versions(&repository).into_iter().map(|one| (one.version, one.digest)).collect::<Vec<_>>()
        };
        assert_eq!(of(&one), [("1.0.0".to_owned(), "2".repeat(64))]);
        assert_eq!(of(&other), [("1.0.0".to_owned(), "3".repeat(64))]);
        // The oldest is forgotten first.
        let many =
            (0..VERSIONS).fold(all, |all, minor| with_version(&all, &one, &revision(&format!("2.{minor}.0"), "4")));
        assert_eq!((many.len(), &*many[0].version), (VERSIONS, &*format!("2.{}.0", VERSIONS - 1)));
        assert!(many.iter().all(|one| one.version != "1.0.0"));
        // A version that is used again is not the oldest any more.
        let back = with_version(&many, &one, &revision("2.0.0", "4"));
        assert_eq!(
            (back.len(), &*back[0].version, &back[0].fetched_at),
            (VERSIONS, "2.0.0", &many[VERSIONS - 1].fetched_at)
        );
        let next = with_version(&back, &one, &revision("3.0.0", "4"));
        let versions: Vec<_> = next.iter().map(|one| &*one.version).collect();
        assert_eq!((versions[..2].to_vec(), versions.contains(&"2.1.0")), (vec!["3.0.0", "2.0.0"], false));
    }

    #[test]
    fn a_suspended_sync_of_another_namespace_keeps_nothing() {
        let key = ObjectKey::new("team", "fleet");
        let sync = |namespace: &str, path: &str, suspend: bool| -> Arc<Sync> {
            let repository = serde_json::json!({"name": "fleet", "namespace": "team"});
            let spec = serde_json::json!({"repository": repository, "path": path, "suspend": suspend});
            let metadata = serde_json::json!({"name": "app", "namespace": namespace});
            Arc::new(serde_json::from_value(serde_json::json!({"metadata": metadata, "spec": spec})).unwrap())
        };
        let keeps = |syncs: &[Arc<Sync>]| users_of(&key, syncs.to_vec()).into_values().collect::<Vec<_>>();
        assert_eq!(keeps(&[sync("team", "a", true), sync("other", "b", false)]), [Keeps::Possible, Keeps::Known]);
        assert_eq!(keeps(&[sync("other", "a", true)]), [Keeps::None]);
        let all = [sync("other", "a", true), sync("team", "a", true), sync("other", "a", false)];
        assert_eq!(keeps(&all), [Keeps::Possible]);
        assert_eq!(keeps(&all[..1].iter().chain(&all[2..]).cloned().collect::<Vec<_>>()), [Keeps::Known]);
    }

    #[tokio::test]
    async fn a_revision_that_cannot_be_opened_is_no_success() {
        let folder = tempfile::tempdir().unwrap();
        let git = Arc::new(GitStore::new(folder.path().join("store"), StoreOptions::default()).unwrap());
        let revision: Revision = format!("main@sha1:{}", "a".repeat(40)).parse().unwrap();
        let key = ObjectKey::new("team", "app");
        let error = open(git, &key, "https://git.example.com/app", &revision).await.err().expect("an error");
        assert_eq!((error.reason(), error.is_terminal()), ("RevisionNotStored", false));
    }
}
