//! Plan → applied: server-side apply, wave after wave, concurrently inside a wave.
//!
//! SealedSecrets are unsealed between their own wave and that of the Secrets: the API server has accepted exactly that
//! SealedSecret from the Sync's identity, and the identity may write the Secret. The plaintext lives from here until the
//! Secret is written. What uses a Secret that could not be made is held back; everything else goes on.

mod drifted;
mod object;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{ObjectKey, SealedSecretSpec};
use futures::{StreamExt, stream};
use manifests::{Location, ObjectId};
use pipeline::{
    Cause, Held, Inventory, Plan, Resource, Stage, StageError,
    plan::{Content, Sealed, Step, Wave, Why},
};
use serde::Deserialize as _;
use serde_json::{Map, Value};
use unsealing::{Owner, SealedInput, UnsealError, UnsealedSecret};
use zeroize::Zeroizing;

pub(crate) use drifted::{Drifted, Healed};

use super::Pass;
use crate::{
    cluster::{Api, ApiError, Applied as Written, AsInGit, Live, LiveObject, SecretFacts, WatchError},
    metrics::UnsealFailure,
    unseal::{digest_mark, may_write, was_merged},
};

/// How long a new CustomResourceDefinition may take until its kind is served.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);

/// Applies a plan as the identity that the Sync writes with.
pub(super) struct Applier<'a> {
    pass: &'a Pass<'a>,
    api: &'a Api,
    /// Everything that the Sync had before the plan.
    before: &'a Inventory,
    /// The SealedSecrets that the API server accepted in this pass.
    accepted: Mutex<BTreeSet<ObjectId>>,
}

/// What was applied.
#[derive(Default)]
pub(crate) struct Applied {
    /// The inventory, with what is known of every object now.
    pub inventory: Inventory,
    /// Objects that were made.
    pub created: Vec<ObjectId>,
    /// Objects that were changed.
    pub changed: Vec<ObjectId>,
    /// Objects of the two above that somebody had changed, and that are put back.
    pub healed: Vec<Healed>,
    /// Objects that the cluster had already.
    pub unchanged: usize,
    /// Objects that left Git, still to be pruned.
    pub prune: BTreeSet<ObjectId>,
    /// Objects that were certainly not written: refused, or their turn never came.
    pub not_written: Vec<ObjectId>,
    /// Secrets that were written, and the digests of their sealed input.
    pub secrets: Vec<(ObjectId, String)>,
    /// Secrets that could not be made, the digests of their sealed input, and why.
    pub refused_secrets: Vec<(ObjectId, String, Because)>,
    /// Objects that keep their last good version, for want of a Secret or because theirs could not be made.
    pub held: Vec<Held>,
}

/// Objects that could not be applied.
#[derive(Debug, thiserror::Error)]
pub(super) enum ApplyError {
    /// The API server refused some of them.
    #[error("{}", list(.0))]
    Refused(Vec<Refused>),
    /// A kind of this revision cannot be watched.
    #[error("{0}")]
    Watch(#[from] WatchError),
}

/// One object that could not be applied.
#[derive(Clone, Debug)]
pub(super) struct Refused {
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
    fn is_certain(&self) -> bool {
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
    fn cause(&self) -> Cause {
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

/// Whether a Sync applies an object for the first time: what its inventory says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Turn {
    /// It never did.
    First,
    /// It did.
    Later,
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

impl<'a> Applier<'a> {
    /// Applies for `pass` as the identity of `api`; `before` is everything that the Sync had before the plan.
    pub(super) fn new(pass: &'a Pass<'a>, api: &'a Api, before: &'a Inventory) -> Self {
        Self { pass, api, before, accepted: Mutex::default() }
    }

    /// Applies `plan`. The inventory in `applied` is right whatever the result: what was written is recorded. A wave
    /// with a failure is finished, and the waves after it are not begun; `refused` fails its waves from the start. A
    /// Secret that cannot be made is no failure of its wave: it holds back itself and what uses it.
    pub(super) async fn apply(
        &self,
        plan: Plan,
        mut refused: BTreeMap<Wave, Vec<Refused>>,
        applied: &mut Applied,
    ) -> Result<(), ApplyError> {
        applied.inventory = plan.inventory;
        applied.unchanged = plan.unchanged;
        applied.prune = plan.prune;
        let mut missing: BTreeSet<_> =
            plan.held.iter().filter(|held| held.is_unsealable()).map(|held| secret_place(&held.id)).collect();
        if let Some(secrets) = refused.get_mut(&Wave::Secrets) {
            for refused in secrets.extract_if(.., |refused| plan.kinds.contains_key(&refused.id.sealed_secret())) {
                missing.insert(secret_place(&refused.id));
                self.hold(applied, refused);
            }
        }
        refused.retain(|_, refused| !refused.is_empty());
        let mut waves = plan.waves;
        let mut all: BTreeSet<Wave> = waves.keys().copied().collect();
        all.extend(refused.keys());
        for wave in all {
            let steps = hold_users(waves.remove(&wave).unwrap_or_default(), &missing, applied);
            self.watch_kinds(&steps).await?;
            let _timer = steps.iter().any(is_sealed).then(|| self.pass.begin(Stage::Unseal));
            let mut refused = refused.remove(&wave).unwrap_or_default();
            for (step, before, result) in self.steps(steps).await {
                match result {
                    Ok(written) => {
                        if step.why == Why::Heal {
                            let drifted = Drifted::of(before.as_ref(), &written);
                            applied.healed.push(Healed { id: step.id.clone(), drifted });
                        }
                        record(applied, step, &written);
                    }
                    Err(because) => {
                        let is_sealed = is_sealed(&step);
                        let refusal = Refused { origin: step.origin, id: step.id, because };
                        if is_sealed {
                            missing.insert(secret_place(&refusal.id));
                            applied.refused_secrets.push((refusal.id.clone(), step.digest, refusal.because.clone()));
                            self.hold(applied, refusal);
                        } else {
                            refused.push(refusal);
                        }
                    }
                }
            }
            if !refused.is_empty() {
                let certain = refused.iter().filter(|refused| refused.because.is_certain());
                applied.not_written.extend(certain.map(|refused| refused.id.clone()));
                applied.not_written.extend(waves.into_values().flatten().map(|step| step.id));
                refused.sort_by(|a, b| (&a.origin.file, a.origin.line).cmp(&(&b.origin.file, b.origin.line)));
                return Err(ApplyError::Refused(refused));
            }
            tracing::debug!(?wave, "applied");
        }
        Ok(())
    }

    /// Each with how its object looked before.
    async fn steps(&self, steps: Vec<Step>) -> Vec<(Step, Option<LiveObject>, Result<Written, Because>)> {
        stream::iter(steps)
            .map(|step| async move {
                let before = self.live().get(&step.id);
                let result = self.step(&step).await;
                (step, before, result)
            })
            .buffer_unordered(self.pass.ctx.writes.available_permits().clamp(4, 16))
            .collect()
            .await
    }

    /// A Secret that cannot be made: its SealedSecret is told of. Nothing of it is new in the cluster for certain.
    fn hold(&self, applied: &mut Applied, refused: Refused) {
        let Refused { origin, id, because } = refused;
        if because.is_certain() && !self.before.contains(&id) {
            applied.not_written.push(id.clone());
        }
        let cause = because.cause();
        let id = if cause.stage == Stage::Unseal { id.sealed_secret() } else { id };
        applied.held.push(Held { id, origin, because: because.to_string(), cause: Some(cause) });
    }

    /// Kinds that came with an earlier wave are watched before their first object is written.
    async fn watch_kinds(&self, steps: &[Step]) -> Result<(), WatchError> {
        for step in steps {
            self.pass.ctx.cluster.live.watch(&step.resource, step.id.namespace.as_deref()).await?;
        }
        Ok(())
    }

    fn live(&self) -> &'a Live {
        &self.pass.ctx.cluster.live
    }

    async fn step(&self, step: &Step) -> Result<Written, Because> {
        let _permit = self.pass.ctx.writes.acquire().await.expect("the semaphore is never closed");
        let body = match &step.content {
            Content::Sealed(sealed) => return self.unsealed(step, sealed).await,
            Content::Manifest(body) => body,
        };
        let known = self.before.get(&step.id).and_then(|known| known.manifest.as_ref());
        let turn = if known.is_none() { Turn::First } else { Turn::Later };
        // Giving a field up is our own doing, too: the watch must not take it for somebody else's.
        let _releasing = self.live().begin(&step.id);
        if !step.left_to_others.is_empty() && self.live().get(&step.id).is_some() {
            let (namespace, name) = (step.id.namespace.as_deref(), &step.id.name);
            self.api.release(&step.resource, namespace, name, &step.left_to_others).await?;
        }
        if step.id.is_sealed_secret() {
            return self.accept(step, body, turn).await;
        }
        let written = self.object(step, body, turn).await?;
        if step.id.kind == "CustomResourceDefinition" && step.id.group == "apiextensions.k8s.io" {
            self.wait_until_established(step).await?;
        }
        Ok(written)
    }

    async fn write(&self, step: &Step, body: Zeroizing<Vec<u8>>) -> Result<Written, ApiError> {
        let writing = self.live().begin(&step.id);
        let written = self.api.apply(&step.resource, step.id.namespace.as_deref(), &step.id.name, body).await?;
        writing.applied(&written);
        Ok(written)
    }

    /// Applies a SealedSecret, and remembers it as accepted if the cluster now holds what Git says and nothing else.
    async fn accept(&self, step: &Step, body: &Map<String, Value>, turn: Turn) -> Result<Written, Because> {
        let object = AsInGit { id: &step.id, resource: &step.resource, body, left_to_others: &step.left_to_others };
        let (mut written, mut stored) = self.write_sealed(step, object).await?;
        if turn == Turn::First {
            let writing = self.live().begin(&step.id);
            let taken_over = self.api.take_over(object, written.clone()).await?;
            let is_changed = taken_over.resource_version != written.resource_version;
            writing.applied(&taken_over);
            if is_changed {
                // What others had of it may be gone now.
                (written, stored) = self.write_sealed(step, object).await?;
            }
        }
        let sent = Sealed::deserialize(Value::Object(body.clone())).ok();
        let sent = sent.map(|sealed| unsealing::digest(&sealed.input(&step.id, true)));
        if sent.is_some() && sent == stored {
            self.accepted().insert(step.id.clone());
        } else {
            tracing::warn!(object = %step.id, "the API server stored another SealedSecret than it was sent");
        }
        Ok(written)
    }

    /// Applies a SealedSecret; also the digest of the one that is stored now.
    async fn write_sealed(&self, step: &Step, object: AsInGit<'_>) -> Result<(Written, Option<String>), ApiError> {
        let (namespace, name) = (step.id.namespace.as_deref(), &step.id.name);
        let writing = self.live().begin(&step.id);
        let (written, stored) =
            self.api.apply_spec::<SealedSecretSpec>(&step.resource, namespace, name, object.json()).await?;
        writing.applied(&written);
        let digest = stored.map(|(annotations, spec)| {
            unsealing::digest(&SealedInput {
                namespace: namespace.unwrap_or_default(),
                name,
                annotations: &annotations,
                spec: &spec,
                accept_deprecated_v1_data: true,
            })
        });
        Ok((written, digest))
    }

    fn accepted(&self) -> MutexGuard<'_, BTreeSet<ObjectId>> {
        self.accepted.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Unseals a SealedSecret that was accepted, and writes its Secret.
    async fn unsealed(&self, step: &Step, sealed: &Sealed) -> Result<Written, Because> {
        let ctx = self.pass.ctx;
        let owner = step.id.sealed_secret();
        let Some(live) = self.live().get(&owner) else { return Err(Because::NotAccepted) };
        if !self.accepted().contains(&owner) {
            return Err(Because::Altered(format!("-n {} {}", owner.namespace.unwrap_or_default(), owner.name)));
        }
        let owner = Owner { uid: &live.uid, name: &step.id.name };
        let facts = self.live().get(&step.id).and_then(|live| live.secret);
        // Whose Secret it is, is known without its plaintext.
        if may_write(facts.as_deref(), owner.uid).is_none() {
            return Err(Because::Unmanaged(step.id.name.clone()));
        }
        ctx.metrics.unseal_request();
        // What the Sync brings is for its own namespace, wherever it goes: it has one turn.
        let keyring = ctx.keyring.acting_for(&self.pass.key.namespace);
        let secret = keyring.unseal_secret(&sealed.input(&step.id, ctx.keys.accept_deprecated_v1_data)).await?;
        let body = secret_body(&secret, owner, facts.as_deref(), &step.digest, Some(self.pass.key))
            .ok_or_else(|| Because::Unmanaged(step.id.name.clone()))?;
        take_over(self.api, &step.resource, &step.id, self.live().get(&step.id).as_ref(), &secret).await?;
        drop(secret);
        Ok(self.write(step, body).await?)
    }

    /// A condition of the API server's own making: it is asked until it says yes.
    async fn wait_until_established(&self, step: &Step) -> Result<(), Because> {
        let deadline = tokio::time::Instant::now() + ESTABLISHED_WITHIN;
        let mut pause = Duration::from_millis(20);
        loop {
            let crd = self.api.get(&step.resource, None, &step.id.name).await.map_err(Because::Unasked)?;
            let group = crd.pointer("/spec/group").and_then(serde_json::Value::as_str).unwrap_or_default();
            let established = crd.pointer("/status/conditions").and_then(serde_json::Value::as_array);
            if established.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True") {
                self.pass.ctx.cluster.discovery.forget(group);
                let kind = crd.pointer("/spec/names/kind").and_then(serde_json::Value::as_str).unwrap_or_default();
                if self.is_served(&crd, group, kind).await {
                    return Ok(());
                }
            }
            if tokio::time::Instant::now() > deadline {
                return Err(Because::NotEstablished);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Established comes a moment before the kind is served.
    async fn is_served(&self, crd: &serde_json::Value, group: &str, kind: &str) -> bool {
        let versions = crd.pointer("/spec/versions").and_then(serde_json::Value::as_array);
        for version in versions.into_iter().flatten().filter(|version| version["served"] == true) {
            let Some(name) = version["name"].as_str() else {
                continue;
            };
            if self.pass.ctx.cluster.discovery.find(group, name, kind).await.is_err() {
                self.pass.ctx.cluster.discovery.forget(group);
                return false;
            }
        }
        true
    }
}

/// The apply body of an unsealed Secret; `None` when the Secret that is there belongs to somebody else.
pub(crate) fn secret_body(
    secret: &UnsealedSecret,
    owner: Owner<'_>,
    facts: Option<&SecretFacts>,
    digest: &str,
    sync: Option<&ObjectKey>,
) -> Option<Zeroizing<Vec<u8>>> {
    let is_owned = may_write(facts, owner.uid)?;
    let labels: Vec<(&str, &str)> = match sync {
        Some(sync) => vec![(crds::names::SYNC_NAME, &sync.name), (crds::names::SYNC_NAMESPACE, &sync.namespace)],
        None => Vec::new(),
    };
    Some(secret.body(is_owned.then_some(owner), &labels, &digest_mark(digest, is_owned)))
}

/// Makes the Secret that is there the SealedSecret's as a whole, before it is applied: what others wrote (the Sealed
/// Secrets controller before us, or whoever annotated it as `managed`) goes unless it is applied again. Into a Secret
/// that once was ours as a whole others may have put values: those go, labels and annotations stay. With `patch` it is
/// only merged into.
pub(crate) async fn take_over(
    api: &Api,
    resource: &Resource,
    id: &ObjectId,
    live: Option<&LiveObject>,
    secret: &UnsealedSecret,
) -> Result<(), ApiError> {
    let Some(LiveObject { fields, secret: Some(facts), .. }) = live else {
        return Ok(());
    };
    let namespace = id.namespace.as_deref();
    // What is replaced as a whole is the SealedSecret's own already.
    if api.replaces_secrets() {
        return Ok(());
    }
    if facts.managed && facts.owned_by_others && facts.sealed_secret.is_none() {
        // An object has one controller, and a Secret that is handed over goes with its SealedSecret.
        let nobodys = serde_json::json!({"metadata": {"ownerReferences": null}});
        api.merge(resource, namespace, &id.name, None, &nobodys).await?;
    }
    if facts.patch {
        return Ok(());
    }
    if fields.is_none() || was_merged(facts) {
        return api.adopt(resource, namespace, &id.name).await;
    }
    if facts.foreign_values.is_empty() {
        return Ok(());
    }
    api.disown_string_data(namespace, &id.name).await?;
    let is_applied = |key: &str| secret.keys().any(|applied| applied == key);
    let foreign = facts.foreign_values.iter().filter(|key| !is_applied(key));
    let removed: serde_json::Map<_, _> = foreign.map(|key| (key.to_string(), serde_json::Value::Null)).collect();
    if removed.is_empty() {
        return Ok(());
    }
    api.merge(resource, namespace, &id.name, None, &serde_json::json!({"data": removed})).await.map(|_| ())
}

fn is_sealed(step: &Step) -> bool {
    matches!(step.content, Content::Sealed(_))
}

/// Namespace and name of a Secret.
fn secret_place(id: &ObjectId) -> (String, String) {
    (id.namespace.clone().unwrap_or_default(), id.name.clone())
}

/// Takes out of `steps` what uses a Secret that could not be made: it keeps its last good version.
fn hold_users(steps: Vec<Step>, missing: &BTreeSet<(String, String)>, applied: &mut Applied) -> Vec<Step> {
    if missing.is_empty() {
        return steps;
    }
    let mut kept = Vec::with_capacity(steps.len());
    for step in steps {
        let namespace = step.id.namespace.clone().unwrap_or_default();
        match step.needs.iter().find(|name| missing.contains(&(namespace.clone(), (*name).clone()))) {
            None => kept.push(step),
            Some(secret) => {
                applied.not_written.push(step.id.clone());
                applied.held.push(Held::for_want_of(secret, step.id, step.origin));
            }
        }
    }
    kept
}

fn record(applied: &mut Applied, step: Step, written: &Written) {
    applied.inventory.applied(&step.id, step.digest.clone(), written.fields);
    if is_sealed(&step) {
        applied.secrets.push((step.id.clone(), step.digest));
    }
    if step.why == Why::Accept && !written.created {
        applied.unchanged += 1;
    } else if written.created {
        applied.created.push(step.id);
    } else {
        applied.changed.push(step.id);
    }
}
