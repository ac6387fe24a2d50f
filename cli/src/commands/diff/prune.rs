//! Objects that left the folder of a Sync: which of them would be pruned, which are wanted by other Syncs, and which
//! stay.

use std::collections::{BTreeMap, HashMap};

use crds::{ObjectKey, Sync};
use futures::{StreamExt, stream};
use kube::{Client, core::GroupVersionKind};
use manifests::{ObjectId, printable};
use pipeline::{
    Inventory, Plan, Resource,
    prune::{Stays, TooMany, exceeds_limit, made_by, stays_in_hidden_file, verdict},
};

use super::{
    CONCURRENCY, Entry, Outcome,
    kinds::Found,
    live::{Live, Syncs, metadata},
    moves::folders_of_others,
};
use crate::{folder::Folder, output};

/// What would happen to an object that left the folder, if no other Sync wants it.
enum Look {
    /// The object stays. `by_wish` is true if the object's annotation asks for that.
    Stays { because: String, by_wish: bool },
    /// The object would be deleted.
    Goes,
}

/// What must be known to tell which objects a Sync would prune.
pub struct Pruning<'a> {
    pub client: &'a Client,
    pub found: &'a Found,
    pub sync: &'a Sync,
    /// The inventory of the Sync.
    pub inventory: &'a Inventory,
    pub live: &'a Live,
    pub syncs: &'a Syncs,
    pub folder: &'a Folder,
}

/// Finds the kinds of the objects that left the folder, and reads those objects that are also in the inventory of
/// another Sync.
pub async fn look_at_what_left(
    client: &Client,
    found: &mut Found,
    live: &mut Live,
    syncs: &Syncs,
    inventory: &Inventory,
    plan: &Plan,
) {
    found.ask(client, plan.left.iter().map(|id| kind_of(id, inventory))).await;
    let others = plan.left.iter().filter(|id| live.other(id).is_some());
    // An object whose kind is not found is left out here. Its entry in the output says why.
    let objects = others.filter_map(|id| Some((id.clone(), found.served(&kind_of(id, inventory)).ok()??)));
    let objects: Vec<_> = objects.collect();
    live.read_metadata(client, objects.clone()).await;
    live.weigh_claims(client, syncs, &objects).await;
}

/// The kind of an object, in the version that it was last applied in.
fn kind_of(id: &ObjectId, inventory: &Inventory) -> GroupVersionKind {
    let version = inventory.get(id).map(|known| known.version.as_str()).unwrap_or_default();
    GroupVersionKind::gvk(&id.group, version, &id.kind)
}

impl Pruning<'_> {
    /// An entry for every object that left the folder and is in the cluster.
    pub async fn entries(&self, plan: &Plan) -> Vec<Entry> {
        let wanted = self.wanted_by_others(plan);
        let mut prune = plan.prune.clone();
        prune.retain(|id| !wanted.contains_key(id));
        let hidden = self.folder.hidden(self.sync, &prune).unwrap_or_else(|error| {
            output::warn(format_args!("{}", printable(&output::one_line(&error))));
            BTreeMap::new()
        });
        prune.retain(|id| !hidden.contains_key(id));
        let applied = self.sync.status.as_ref().and_then(|status| status.applied_objects);
        let applied = applied.map(|count| usize::try_from(count).unwrap_or(0));
        let looks = stream::iter(&plan.left).map(|id| async move { (id, self.look_at(id).await) });
        let mut looks: HashMap<_, _> = looks.buffer_unordered(CONCURRENCY).collect().await;
        // Objects with the annotation that keeps them are released, and not deleted. Objects that were never applied
        // need no confirmation.
        let was_applied = |id: &ObjectId| self.inventory.get(id).is_some_and(|known| known.manifest.is_some());
        let stays = |id: &ObjectId| match looks.get(id) {
            Some(Ok(Some(Look::Stays { by_wish, .. }))) => *by_wish,
            Some(Ok(None)) => !was_applied(id),
            _ => false,
        };
        let goes = prune.iter().filter(|id| !stays(id)).cloned().collect();
        let too_many = exceeds_limit(self.sync, self.inventory, applied, &goes);
        if let Some(too_many) = too_many {
            warn_of(self.sync, too_many);
        }
        let entries = plan.left.iter().filter_map(|id| {
            let (wanted, hidden) = (wanted.get(id), hidden.get(id));
            let outcome = match looks.remove(id)? {
                Ok(None) => return None,
                Ok(Some(_)) if wanted.is_some() => Ok(Outcome::Moved(wanted?.to_string())),
                Ok(Some(_)) if hidden.is_some() => {
                    Ok(Outcome::Kept(stays_in_hidden_file(&self.folder.path.to_string_lossy(), hidden?)))
                }
                Ok(Some(_)) if !prune.contains(id) => Ok(Outcome::Kept("the Sync does not prune".into())),
                Ok(Some(Look::Stays { because, .. })) => Ok(Outcome::Kept(because)),
                Ok(Some(Look::Goes)) if too_many.is_some() => Ok(Outcome::Unconfirmed),
                Ok(Some(Look::Goes)) => Ok(Outcome::Pruned),
                Err(error) => Err(error.context("cannot tell whether the object would be pruned")),
            };
            Some(Entry { id: id.clone(), origin: String::new(), outcome })
        });
        entries.collect()
    }

    /// Whether the object would stay; `None` if it does not exist. Only its metadata is read.
    async fn look_at(&self, id: &ObjectId) -> anyhow::Result<Option<Look>> {
        let Some(resource) = self.found.served(&kind_of(id, self.inventory))? else {
            return Ok(Some(Look::Stays { because: "the cluster does not serve its kind".into(), by_wish: false }));
        };
        let Some(meta) = metadata(self.client, &resource, id).await? else { return Ok(None) };
        let sealed = match made_by(id, &meta) {
            Some(_) => metadata(self.client, &Resource::sealed_secrets(), &id.sealed_secret()).await?,
            None => None,
        };
        let is_derived = self.inventory.is_derived(id);
        let verdict = verdict(&ObjectKey::of(self.sync), id, &meta, is_derived, sealed.as_ref());
        Ok(Some(match verdict {
            Ok(()) => Look::Goes,
            Err(stays) => Look::Stays { because: stays.to_string(), by_wish: stays == Stays::AsksToBeKept },
        }))
    }

    /// The objects that other Syncs have now, or will have because they are in the folders of these Syncs in the
    /// working copy.
    fn wanted_by_others(&self, plan: &Plan) -> BTreeMap<ObjectId, ObjectKey> {
        let had = plan.left.iter().filter_map(|id| Some((id.clone(), self.live.other(id)?.clone())));
        let mut wanted: BTreeMap<_, _> = had.collect();
        if plan.left.is_empty() {
            return wanted;
        }
        for (other, ids) in folders_of_others(self.sync, self.syncs, self.folder) {
            for id in ids.intersection(&plan.left) {
                wanted.entry(id.clone()).or_insert_with(|| ObjectKey::of(other));
            }
        }
        wanted
    }
}

fn warn_of(sync: &Sync, TooMany { count, all }: TooMany) {
    let (limit, key) = (&sync.spec.prune_limit, ObjectKey::of(sync));
    let all = output::counted(all, "object");
    output::warn(format_args!(
        "{count} of {all} would be pruned, more than pruneLimit {limit} of Sync {key} allows: nothing is pruned until \
         this is confirmed with `gitseal sync --confirm-prune`"
    ));
}
