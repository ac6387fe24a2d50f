//! Plan → applied: server-side apply, wave after wave, concurrently inside a wave.

mod object;

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use manifests::{Location, ObjectId};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::{
    Stage, StageError,
    inventory::Inventory,
    plan::{Content, Plan, Step},
};
use crate::{
    cluster::{Api, ApiError, Applied as Written, Discovery, Live, LiveObject, Resource, SecretFacts, WatchError},
    key::ObjectKey,
    opened::{OpenedSecret, Owner, digest_mark, may_write, was_merged},
};

/// How long a new CustomResourceDefinition may take until its kind is served.
const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);

/// What applying needs.
pub struct Applier<'a> {
    /// The API, as the identity that the Sync writes with.
    pub api: &'a Api,
    /// Kinds.
    pub discovery: &'a Discovery,
    /// Live objects.
    pub live: &'a Live,
    /// Bounds the writes of all Syncs together.
    pub writes: &'a Arc<Semaphore>,
}

/// What was applied.
#[derive(Default)]
pub struct Applied {
    /// The inventory, with what is known of every object now.
    pub inventory: Inventory,
    /// Objects that were made.
    pub created: Vec<ObjectId>,
    /// Objects that were changed.
    pub changed: Vec<ObjectId>,
    /// Objects of the two above that somebody had changed, and that are put back.
    pub healed: Vec<ObjectId>,
    /// Objects that the cluster had already.
    pub unchanged: usize,
    /// Objects that left Git, still to be pruned.
    pub prune: BTreeSet<ObjectId>,
    /// Objects that were certainly not written: refused, or their turn never came.
    pub not_written: Vec<ObjectId>,
    /// Secrets that were written, and the digests of their sealed input.
    pub secrets: Vec<(ObjectId, String)>,
    /// Secrets that were refused, the digests of their sealed input, and why.
    pub refused_secrets: Vec<(ObjectId, String, Because)>,
}

/// Objects that could not be applied.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The API server refused some of them.
    #[error("{}", list(.0))]
    Refused(Vec<Refused>),
    /// A kind of this revision cannot be watched.
    #[error("{0}")]
    Watch(#[from] WatchError),
}

/// One object that could not be applied.
#[derive(Clone, Debug)]
pub struct Refused {
    /// Where it stands.
    pub origin: Location,
    /// Which.
    pub id: ObjectId,
    /// Why.
    pub because: Because,
}

/// See [`Refused::because`].
#[derive(Clone, Debug, thiserror::Error)]
pub enum Because {
    /// The API server said no.
    #[error("{0}")]
    Api(#[from] ApiError),
    /// The Secret belongs to somebody else.
    #[error(
        "Secret '{0}' exists and no SealedSecret manages it; to let this one take it over: kubectl annotate secret {0} {MANAGED}=true"
    , MANAGED = crds::names::MANAGED)]
    Unmanaged(String),
    /// The owner of a Secret is not there.
    #[error("its SealedSecret is not in the cluster yet")]
    NoOwner,
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
            Self::Unmanaged(_) | Self::NoOwner => true,
            Self::NotEstablished | Self::Unasked(_) => false,
        }
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
            Self::Refused(refused) => match refused.first().map(|refused| &refused.because) {
                Some(Because::Unmanaged(_)) => "SecretNotManaged",
                Some(Because::Api(error)) if error.code() == Some(403) => "Forbidden",
                Some(Because::Api(error)) if error.code().is_none() => "ApiServerUnreachable",
                _ => "ApplyFailed",
            },
        }
    }

    fn is_terminal(&self) -> bool {
        false
    }
}

impl Applier<'_> {
    /// Applies `plan`. The inventory in `applied` is right whatever the result: what was written is recorded. A wave
    /// with a failure is finished, and the waves after it are not begun.
    pub async fn apply(&self, plan: Plan, applied: &mut Applied) -> Result<(), ApplyError> {
        applied.inventory = plan.inventory;
        applied.unchanged = plan.unchanged;
        applied.prune = plan.prune;
        let mut waves = plan.waves.into_iter();
        while let Some((wave, steps)) = waves.next() {
            self.watch_kinds(&steps).await?;
            let results: Vec<_> = stream::iter(steps)
                .map(|step| {
                    let known = applied.inventory.get(&step.id).and_then(|known| known.manifest.as_ref());
                    let turn = if known.is_none() { Turn::First } else { Turn::Later };
                    async move {
                        let result = self.step(&step, turn).await;
                        (step, result)
                    }
                })
                .buffer_unordered(self.writes.available_permits().clamp(4, 16))
                .collect()
                .await;
            let mut refused = Vec::new();
            for (step, result) in results {
                match result {
                    Ok(written) => record(applied, step, &written),
                    Err(because) => {
                        if step.id.is_secret() {
                            applied.refused_secrets.push((step.id.clone(), step.digest, because.clone()));
                        }
                        refused.push(Refused { origin: step.origin, id: step.id, because });
                    }
                }
            }
            if !refused.is_empty() {
                let not_written = refused.iter().filter(|refused| refused.because.is_certain());
                let not_begun = waves.flat_map(|(_, steps)| steps).map(|step| step.id);
                applied.not_written = not_written.map(|refused| refused.id.clone()).chain(not_begun).collect();
                refused.sort_by(|a, b| (&a.origin.file, a.origin.line).cmp(&(&b.origin.file, b.origin.line)));
                return Err(ApplyError::Refused(refused));
            }
            tracing::debug!(?wave, "applied");
        }
        Ok(())
    }

    /// Kinds that came with an earlier wave are watched before their first object is written.
    async fn watch_kinds(&self, steps: &[Step]) -> Result<(), WatchError> {
        for step in steps {
            self.live.watch(&step.resource, step.id.namespace.as_deref()).await?;
        }
        Ok(())
    }

    async fn step(&self, step: &Step, turn: Turn) -> Result<Written, Because> {
        let _permit = self.writes.acquire().await.expect("the semaphore is never closed");
        let written = match &step.content {
            Content::Manifest(body) => {
                // Giving a field up is our own doing, too: the watch must not take it for somebody else's.
                let _releasing = self.live.begin(&step.id);
                if !step.left_to_others.is_empty() && self.live.get(&step.id).is_some() {
                    let (namespace, name) = (step.id.namespace.as_deref(), &step.id.name);
                    self.api.release(&step.resource, namespace, name, &step.left_to_others).await?;
                }
                self.object(step, body, turn).await?
            }
            Content::Secret { secret, owner } => {
                let body = self.secret_body(step, secret, owner)?;
                take_over(self.api, &step.resource, &step.id, self.live.get(&step.id).as_ref(), secret).await?;
                self.write(step, body).await?
            }
        };
        if step.id.kind == "CustomResourceDefinition" && step.id.group == "apiextensions.k8s.io" {
            self.wait_until_established(step).await?;
        }
        Ok(written)
    }

    async fn write(&self, step: &Step, body: Zeroizing<Vec<u8>>) -> Result<Written, ApiError> {
        let writing = self.live.begin(&step.id);
        let written = self.api.apply(&step.resource, step.id.namespace.as_deref(), &step.id.name, body).await?;
        writing.applied(&written);
        Ok(written)
    }

    fn secret_body(&self, step: &Step, secret: &OpenedSecret, owner: &ObjectId) -> Result<Zeroizing<Vec<u8>>, Because> {
        let sealed = self.live.get(owner).ok_or(Because::NoOwner)?;
        let facts = self.live.get(&step.id).and_then(|live| live.secret);
        let owner = Owner { uid: &sealed.uid, name: &owner.name };
        let sync = self.live.owner(&step.id);
        secret_body(secret, owner, facts.as_deref(), &step.digest, sync.as_ref())
            .ok_or_else(|| Because::Unmanaged(step.id.name.clone()))
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
                self.discovery.forget(group);
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
            if self.discovery.find(group, name, kind).await.is_err() {
                self.discovery.forget(group);
                return false;
            }
        }
        true
    }
}

/// The apply body of an unsealed Secret; `None` when the Secret that is there belongs to somebody else.
pub fn secret_body(
    secret: &OpenedSecret,
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
pub async fn take_over(
    api: &Api,
    resource: &Resource,
    id: &ObjectId,
    live: Option<&LiveObject>,
    secret: &OpenedSecret,
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

fn record(applied: &mut Applied, step: Step, written: &Written) {
    applied.inventory.applied(&step.id, step.digest.clone(), written.fields);
    if let Content::Secret { .. } = step.content {
        applied.secrets.push((step.id.clone(), step.digest));
    }
    if step.is_heal {
        applied.healed.push(step.id.clone());
    }
    if written.created {
        applied.created.push(step.id);
    } else {
        applied.changed.push(step.id);
    }
}
