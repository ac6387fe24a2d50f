//! Whether an object that left Git may be deleted, and how many objects may be deleted at once.

use std::collections::BTreeSet;

use crds::{ObjectKey, Sync};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use manifests::{Location, ObjectId, in_one_line};
use sha2::{Digest as _, Sha256};

use crate::{FieldsDigest, Inventory, secret_facts::sealed_secret_of};

/// Why an object that left Git stays in the cluster.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Stays {
    /// The object does not have the labels of the Sync.
    #[error("its labels do not name this Sync")]
    NotOurs,
    /// The object has the annotation [`crds::names::PRUNE`], which keeps it.
    #[error("its annotation {PRUNE} has the value disabled", PRUNE = crds::names::PRUNE)]
    AsksToBeKept,
    /// The object is a Secret without an owner: either it was made to stay when its SealedSecret is deleted, or values
    /// were merged into a Secret that belongs to somebody else.
    #[error(
        "the template of its SealedSecret says that the Secret outlives the SealedSecret, or its values were merged \
         into a Secret of somebody else"
    )]
    Outlives,
}

/// Whether the object still belongs to `sync` and may be deleted. `is_derived` says that the object is the Secret of a
/// SealedSecret in the Sync's inventory; `sealed` is the metadata of the SealedSecret of the same name, see [`is_of`].
pub fn verdict(
    sync: &ObjectKey,
    id: &ObjectId,
    meta: &ObjectMeta,
    is_derived: bool,
    sealed: Option<&ObjectMeta>,
) -> Result<(), Stays> {
    may_go(id, meta, is_derived)?;
    if is_of(sync, id, meta, sealed) { Ok(()) } else { Err(Stays::NotOurs) }
}

/// Whether the object has the annotation [`crds::names::PRUNE`] with the value that keeps it from being deleted.
pub fn asks_to_be_kept(meta: &ObjectMeta) -> bool {
    meta.annotations
        .as_ref()
        .and_then(|all| all.get(crds::names::PRUNE))
        .is_some_and(|value| value == crds::names::PRUNE_DISABLED)
}

/// Whether the object may be deleted, except that it is not checked here which Sync the object belongs to.
fn may_go(id: &ObjectId, meta: &ObjectMeta, is_derived: bool) -> Result<(), Stays> {
    let annotation = |key: &str| meta.annotations.as_ref().and_then(|all| all.get(key));
    if asks_to_be_kept(meta) {
        return Err(Stays::AsksToBeKept);
    }
    let is_unsealed =
        is_derived || annotation(crds::names::SEALED_DIGEST).is_some() || annotation(crds::names::PATCH).is_some();
    let has_owner = meta.owner_references.iter().flatten().next().is_some();
    if id.is_secret() && is_unsealed && !has_owner { Err(Stays::Outlives) } else { Ok(()) }
}

/// Whether the object belongs to `sync`. This is decided by its labels or, if a SealedSecret owns the object, by the
/// labels of the SealedSecret: a Secret made from a SealedSecret has no labels of ours. `sealed` is the metadata of the
/// SealedSecret of the same name, if that exists. It is needed only if [`made_by`] returns a UID.
pub fn is_of(sync: &ObjectKey, id: &ObjectId, meta: &ObjectMeta, sealed: Option<&ObjectMeta>) -> bool {
    match made_by(id, meta) {
        Some(uid) => sealed
            .filter(|sealed| sealed.uid.as_deref() == Some(uid))
            .is_some_and(|sealed| carries_labels_of(sealed, sync)),
        None => carries_labels_of(meta, sync),
    }
}

/// UID of the SealedSecret that owns the object, if the object is a Secret that was made from a SealedSecret.
pub fn made_by<'a>(id: &ObjectId, meta: &'a ObjectMeta) -> Option<&'a str> {
    if id.is_secret() { sealed_secret_of(meta).map(|owner| owner.uid.as_str()) } else { None }
}

/// Whether the object belongs to `sync` by its labels.
fn carries_labels_of(meta: &ObjectMeta, sync: &ObjectKey) -> bool {
    let label = |key: &str| meta.labels.as_ref().and_then(|labels| labels.get(key));
    label(crds::names::SYNC_NAME) == Some(&sync.name) && label(crds::names::SYNC_NAMESPACE) == Some(&sync.namespace)
}

/// The Sync that the object's labels name, if a prune by that Sync would delete the object. For this, the metadata must
/// show that we applied the object, that it is not being deleted yet, and that there is no other reason why it stays
/// ([`Stays`]). A Secret that a SealedSecret owns has no labels of a Sync: it belongs to the Sync of the SealedSecret,
/// see [`made_by`].
pub fn said_by(id: &ObjectId, meta: &ObjectMeta) -> Option<ObjectKey> {
    let label = |key: &str| meta.labels.as_ref()?.get(key).cloned();
    if made_by(id, meta).is_some() || may_go(id, meta, false).is_err() || meta.deletion_timestamp.is_some() {
        return None;
    }
    FieldsDigest::of(meta.managed_fields.as_deref())?;
    Some(ObjectKey { namespace: label(crds::names::SYNC_NAMESPACE)?, name: label(crds::names::SYNC_NAME)? })
}

/// The message about an object that stays because it is at `at`, in a hidden file of the folder `folder`.
pub fn stays_in_hidden_file(folder: &str, at: &Location) -> String {
    let inside = at.file.strip_prefix(folder).unwrap_or(&at.file).trim_matches('/');
    let mut names = inside.split('/');
    let hidden = names.find(|name| name.starts_with('.')).unwrap_or(inside);
    let slash = if names.next().is_some() { "/" } else { "" };
    format!(
        "it is in {at}, and hidden files are left out by default: to apply the object, list !{}{slash} in .gitsealignore; to \
         have it pruned, delete it from Git",
        in_one_line(hidden)
    )
}

/// A prune that is larger than the Sync allows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct TooMany {
    /// How many objects would be deleted.
    pub count: usize,
    /// How many objects the Sync has.
    pub all: usize,
}

/// Whether a prune is larger than the Sync allows. `applied` is the number of objects of the last revision that was
/// applied as a whole. The inventory `current` may also have objects that later, failed passes created: if the limit
/// were a percentage of its size, it would grow with each such pass.
pub fn exceeds_limit(
    sync: &Sync,
    current: &Inventory,
    applied: Option<usize>,
    prune: &BTreeSet<ObjectId>,
) -> Option<TooMany> {
    let count = prune.iter().filter(|id| !current.is_derived(id)).count();
    // Objects that were done or had failed are in the inventory, but not in the cluster.
    let over = current.iter().filter(|(id, _)| current.is_over(id) && !current.is_derived(id)).count();
    let total = current.len_in_git().min(applied.unwrap_or(usize::MAX)).saturating_sub(over);
    let allowed = prune_allowance(&sync.spec.prune_limit, total);
    (count > allowed).then_some(TooMany { count, all: total.max(count) })
}

/// Reason of the condition of a Sync whose prune waits.
pub const NEEDS_CONFIRMATION: &str = "PruneNeedsConfirmation";

/// A message names at most this many of the objects that would be deleted.
const NAMED: usize = 10;

/// A prune that is larger than the Sync allows without a confirmation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LargePrune {
    /// Whether it is confirmed.
    pub is_confirmed: bool,
    /// What would be deleted, and how to go on.
    pub message: String,
    /// The value of the annotation [`crds::names::CONFIRM_PRUNE`] that confirms this prune.
    pub confirmation: String,
}

/// The prune at `revision`, if it is larger than the Sync allows without a confirmation; see [`exceeds_limit`]. `wanted` are the
/// objects of the Sync in Git, and `confirmed` is the number of confirmed prunes so far.
pub fn large_prune<'a>(
    sync: &Sync,
    (confirmed, revision, wanted): (i64, &str, impl Iterator<Item = &'a ObjectId>),
    current: &Inventory,
    applied: Option<usize>,
    prune: &BTreeSet<ObjectId>,
) -> Option<LargePrune> {
    let TooMany { count, all } = exceeds_limit(sync, current, applied, prune)?;
    let confirmation = confirmation(sync, (confirmed, revision), wanted);
    let is_confirmed = is_confirmed(sync, &confirmation);
    let goes = prune.iter().filter(|id| !current.is_derived(id));
    let mut named: Vec<String> = goes.take(NAMED).map(ToString::to_string).collect();
    if count > named.len() {
        named.push(format!("and {} more", count - named.len()));
    }
    let name = sync.metadata.name.as_deref().unwrap_or_default();
    let namespace = sync.metadata.namespace.as_deref().unwrap_or_default();
    let message = format!(
        "{revision} removes {count} of {all} {objects}, more than pruneLimit {limit} allows: {named}; nothing was pruned. \
         Restore them in Git, or confirm with: gitseal sync -n {namespace} {name} --confirm-prune {confirmation} (or set the annotation \
         {annotation} to this value)",
        objects = if all == 1 { "object" } else { "objects" },
        limit = sync.spec.prune_limit,
        named = named.join(", "),
        annotation = crds::names::CONFIRM_PRUNE,
    );
    Some(LargePrune { is_confirmed, message, confirmation })
}

/// Whether the annotation of the Sync confirms the prune that has this `confirmation`.
pub fn is_confirmed(sync: &Sync, confirmation: &str) -> bool {
    let annotations = sync.metadata.annotations.as_ref();
    annotations.and_then(|all| all.get(crds::names::CONFIRM_PRUNE)).is_some_and(|confirmed| confirmed == confirmation)
}

/// Identifies a prune: the revision, the Sync's `spec`, the objects that stay, and how many prunes were `confirmed`
/// before. The objects that would be deleted do not count, because a prune that fails halfway deletes some of them.
fn confirmation<'a>(
    sync: &Sync,
    (confirmed, revision): (i64, &str),
    wanted: impl Iterator<Item = &'a ObjectId>,
) -> String {
    let wanted: BTreeSet<_> = wanted.collect();
    let mut digest = Sha256::new_with_prefix(sync.metadata.generation.unwrap_or_default().to_be_bytes());
    digest.update(confirmed.to_be_bytes());
    for id in wanted {
        digest.update(id.to_string());
        digest.update("\n");
    }
    let digest = digest.finalize();
    digest[..16].iter().fold(format!("{revision}+"), |text, byte| format!("{text}{byte:02x}"))
}

/// How many of `total` objects may be deleted without a confirmation. A percentage is rounded up and allows at least
/// one. An invalid limit, or 0, allows none.
fn prune_allowance(limit: &str, total: usize) -> usize {
    let Some(percent) = limit.strip_suffix('%') else {
        return limit.parse().unwrap_or(0);
    };
    match percent.parse::<usize>().unwrap_or(0) {
        0 => 0,
        percent => total.saturating_mul(percent).div_ceil(100).max(1),
    }
}

#[cfg(test)]
mod tests;
