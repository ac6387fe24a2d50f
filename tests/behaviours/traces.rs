//! Reads what the controller did: its requests in the audit log, its events, and its labels on objects.

use std::collections::BTreeSet;

use anyhow::{Result, bail};
use crds::Sync;
use harness::{Plane, Scene, eventually};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Secret},
        events::v1::Event,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Resource, ResourceExt, api::ListParams};
use serde_json::json;

/// How often the controller has applied objects with this name in the scene's namespace. This works only on the shared
/// control plane.
pub(crate) async fn applies(scene: &Scene, name: &str) -> Result<usize> {
    let requests = Plane::shared().await?.cluster.requests()?;
    let ours = format!("fieldManager={}&", crds::FIELD_MANAGER);
    let is_apply = |request: &&localcluster::AuditEvent| {
        request.namespace == scene.namespace
            && request.name == name
            && request.verb == "patch"
            && request.uri.contains(&ours)
    };
    Ok(requests.iter().filter(is_apply).count())
}

/// The messages of a Sync's events with this reason.
pub(crate) async fn events(scene: &Scene, sync: &str, reason: &str) -> Result<Vec<String>> {
    let events = scene.api::<Event>().list(&ListParams::default()).await?;
    let of_sync = events.into_iter().filter(|event| event.reason.as_deref() == Some(reason)).filter(|event| {
        let regarding = event.regarding.as_ref();
        regarding.is_some_and(|object| object.name.as_deref() == Some(sync))
    });
    Ok(of_sync.filter_map(|event| event.note).collect())
}

/// Waits for an event of a Sync whose message contains all of `texts`, and returns the message. A pass writes its events
/// after its other requests.
pub(crate) async fn event(scene: &Scene, sync: &str, reason: &str, texts: &[&str]) -> Result<String> {
    eventually(&format!("an event {reason} with {texts:?}"), || async {
        let notes = events(scene, sync, reason).await?;
        match notes.iter().find(|note| texts.iter().all(|text| note.contains(text))) {
            Some(note) => Ok(note.clone()),
            None => bail!("{notes:#?}"),
        }
    })
    .await
}

/// The objects with the label of the Sync, in the form of inventory ids. Only SealedSecrets, Secrets, ConfigMaps and
/// Deployments are listed.
pub(crate) async fn labelled(scene: &Scene, sync: &str) -> Result<BTreeSet<String>> {
    async fn list<K>(scene: &Scene, sync: &str, found: &mut BTreeSet<String>) -> Result<()>
    where
        K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + serde::de::DeserializeOwned
            + std::fmt::Debug,
    {
        let of_sync = ListParams::default().labels(&format!("{}={sync}", crds::names::SYNC_NAME));
        for object in scene.api::<K>().list(&of_sync).await? {
            let (namespace, name) = (&scene.namespace, object.name_any());
            found.insert(format!("{namespace}_{name}_{}_{}", K::group(&()), K::kind(&())));
        }
        Ok(())
    }
    let mut found = BTreeSet::new();
    list::<ConfigMap>(scene, sync, &mut found).await?;
    list::<Secret>(scene, sync, &mut found).await?;
    list::<crds::SealedSecret>(scene, sync, &mut found).await?;
    list::<k8s_openapi::api::apps::v1::Deployment>(scene, sync, &mut found).await?;
    Ok(found)
}

/// The ids in a Sync's inventory.
pub(crate) fn inventory(sync: Sync) -> BTreeSet<String> {
    let inventory = sync.status.unwrap_or_default().inventory;
    inventory.into_iter().map(|entry| entry.id).collect()
}

/// Requests a reconcile of the Sync, and waits until it is done. Then all earlier work of the Sync is done, too.
pub(crate) async fn handled(scene: &Scene, sync: &str) -> Result<Sync> {
    let token = scene.request::<Sync>(sync).await?;
    let api = scene.api::<Sync>();
    eventually("the request to be handled", || async {
        let sync = api.get(sync).await?;
        let status = sync.status.clone().unwrap_or_default();
        if status.last_handled_reconcile_at.as_ref() == Some(&token) { Ok(sync) } else { bail!("{status:#?}") }
    })
    .await
}

/// The object's UID. Another UID means that the object was deleted and created again.
pub(crate) async fn uid(scene: &Scene, kind: &str, name: &str) -> Result<String> {
    let object = scene.has("v1", kind, name, json!({})).await?;
    let meta: ObjectMeta = serde_json::from_value(object["metadata"].clone())?;
    Ok(meta.uid.unwrap_or_default())
}
