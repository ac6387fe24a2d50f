//! What a Sync would prune: its inventory without what is in the folder.

use std::collections::BTreeSet;

use anyhow::Context;
use crds::{Sync, names};
use kube::{
    Api, Client, ResourceExt,
    api::DynamicObject,
    core::GroupVersionKind,
    discovery::{Scope, oneshot::pinned_kind},
};
use manifests::ObjectId;

use super::{Entry, Outcome};

/// An entry for every object of the inventory that is live and not in the folder.
pub async fn prune(client: &Client, sync: &Sync, in_folder: &BTreeSet<ObjectId>) -> Vec<Entry> {
    let mut entries = Vec::new();
    for (id, version) in left(sync, in_folder) {
        let outcome = match fate(client, sync, &id, &version).await.context("cannot tell whether it would be pruned") {
            Ok(None) => continue,
            Ok(Some(outcome)) => Ok(outcome),
            Err(error) => Err(error),
        };
        entries.push(Entry { id, origin: String::new(), outcome });
    }
    entries
}

/// What is in the inventory but not in the folder, with its version. The Secret of a SealedSecret stays with it.
fn left(sync: &Sync, in_folder: &BTreeSet<ObjectId>) -> Vec<(ObjectId, String)> {
    let secrets: BTreeSet<ObjectId> =
        in_folder.iter().filter(|id| id.is_sealed_secret()).map(ObjectId::secret).collect();
    let inventory = sync.status.iter().flat_map(|status| &status.inventory);
    inventory
        .filter_map(|entry| Some((ObjectId::from_inventory(&entry.id)?, entry.v.clone())))
        .filter(|(id, _)| !in_folder.contains(id) && !secrets.contains(id))
        .collect()
}

/// `None`: it is gone already. Only its metadata is read.
async fn fate(client: &Client, sync: &Sync, id: &ObjectId, version: &str) -> anyhow::Result<Option<Outcome>> {
    let (resource, capabilities) = pinned_kind(client, &GroupVersionKind::gvk(&id.group, version, &id.kind)).await?;
    let api: Api<DynamicObject> = match (&id.namespace, capabilities.scope) {
        (Some(namespace), Scope::Namespaced) => Api::namespaced_with(client.clone(), namespace, &resource),
        _ => Api::all_with(client.clone(), &resource),
    };
    let Some(live) = api.get_metadata_opt(&id.name).await? else {
        return Ok(None);
    };
    Ok(Some(if !sync.spec.prune {
        Outcome::Kept("the Sync does not prune")
    } else if live.annotations().get(names::PRUNE).is_some_and(|value| value == "disabled") {
        Outcome::Kept("its annotation gitseal.dev/prune is disabled")
    } else {
        Outcome::Pruned
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_secret_of_a_sealed_secret_stays_with_it() {
        let id = |group: &str, kind: &str, name: &str| ObjectId {
            group: group.into(),
            kind: kind.into(),
            namespace: Some("team".into()),
            name: name.into(),
        };
        let sealed = id("bitnami.com", "SealedSecret", "db");
        let (secret, old) = (id("", "Secret", "db"), id("", "ConfigMap", "old"));
        let inventory: Vec<_> = [&sealed, &secret, &old].map(|id| json!({"id": id.to_inventory(), "v": "v1"})).into();
        let sync: Sync = serde_json::from_value(json!({"metadata": {"name": "web", "namespace": "team"},
            "spec": {"repository": {"name": "fleet"}}, "status": {"inventory": inventory}}))
        .unwrap();
        assert_eq!(left(&sync, &BTreeSet::from([sealed.clone()])), [(old.clone(), "v1".to_owned())]);
        assert_eq!(left(&sync, &BTreeSet::from([old])).len(), 2);
    }
}
