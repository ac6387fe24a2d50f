//! One metadata-only watch per kind.

use std::collections::HashSet;

use futures::{StreamExt, pin_mut};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    api::{ApiResource, DynamicObject},
    core::PartialObjectMeta,
    runtime::watcher::{self, Event},
};
use manifests::ObjectId;
use pipeline::{
    FieldsDigest, Resource,
    prune::{asks_to_be_kept, said_by},
};
use tokio::sync::watch;

use super::{Live, LiveObject};
use crate::cluster::{self, SecretFacts, answer::resource_version, api::SharedResource};

/// A running watch. The watch ends when this value is dropped.
pub(super) struct Watch {
    plural: String,
    listed: watch::Receiver<bool>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    /// Starts a watch that reports the objects of a kind to `live`, in one namespace or in all.
    pub(super) fn start(live: Live, resource: SharedResource, namespace: Option<String>) -> Self {
        let plural = resource.plural.clone();
        let (sender, listed) = watch::channel(false);
        let task = tokio::spawn(async move { follow(&live, &resource, namespace.as_deref(), &sender).await });
        Self { plural, listed, task }
    }

    /// The kind's name in URLs.
    pub(super) fn plural(&self) -> &str {
        &self.plural
    }

    /// Whether the first list has arrived.
    pub(super) fn listed(&self) -> watch::Receiver<bool> {
        self.listed.clone()
    }
}

async fn follow(live: &Live, resource: &SharedResource, namespace: Option<&str>, listed: &watch::Sender<bool>) {
    let api_resource = api_resource(resource);
    let client = live.inner.client.clone();
    let api: kube::Api<PartialObjectMeta<DynamicObject>> = match namespace {
        Some(namespace) => kube::Api::namespaced_with(client, namespace, &api_resource),
        None => kube::Api::all_with(client, &api_resource),
    };
    let secrets = resource.is_secrets();
    // Secrets are watched without a selector, because the controller must know whether a Secret exists before it writes
    // the Secret of a SealedSecret.
    let config = watcher::Config::default();
    let config = if secrets { config } else { config.labels(crds::names::SYNC_NAME) };
    let stream = cluster::follow(api, config.clone().streaming_lists(), config);
    pin_mut!(stream);
    let mut seen = HashSet::new();
    let (mut writes, mut went_back) = (0, false);
    while let Some(event) = stream.next().await {
        match event {
            Ok(Event::Init) => {
                seen.clear();
                writes = live.writes();
            }
            Ok(Event::InitApply(object)) => {
                let (id, meta) = (id_of(resource, &object.metadata), &object.metadata);
                seen.insert(id.clone());
                if *listed.borrow() {
                    let said = said_by(&id, meta);
                    went_back |= live.relist(id, resource_version(meta), live_object(meta, secrets), said, writes);
                } else {
                    // The first list may come from a cache, so an old version in it does not mean that the API server's
                    // store went back.
                    observe(live, resource, meta, secrets);
                }
            }
            Ok(Event::InitDone) => {
                live.sweep((&resource.group, &resource.kind, namespace), &seen, writes);
                if std::mem::take(&mut went_back) {
                    live.distrust();
                }
                seen = HashSet::new();
                listed.send_replace(true);
            }
            Ok(Event::Apply(object)) => observe(live, resource, &object.metadata, secrets),
            Ok(Event::Delete(object)) => {
                live.observe(id_of(resource, &object.metadata), resource_version(&object.metadata), None, None);
            }
            Err(error) => {
                let why = apiclient::words::of_watch(&error);
                tracing::warn!(kind = %resource.kind, group = %resource.group, error = why, "the watch was interrupted; it begins again by itself");
                live.inner.metrics.watch_interrupted(&resource.kind);
            }
        }
    }
}

/// The kind as the library `kube` describes kinds.
pub(super) fn api_resource(resource: &Resource) -> ApiResource {
    ApiResource {
        group: resource.group.clone(),
        version: resource.version.clone(),
        api_version: resource.api_version(),
        kind: resource.kind.clone(),
        plural: resource.plural.clone(),
    }
}

fn observe(live: &Live, resource: &SharedResource, meta: &ObjectMeta, secret: bool) {
    let id = id_of(resource, meta);
    let said = said_by(&id, meta);
    live.observe(id, resource_version(meta), Some(live_object(meta, secret)), said);
}

fn id_of(resource: &SharedResource, meta: &ObjectMeta) -> ObjectId {
    ObjectId {
        group: resource.group.clone(),
        kind: resource.kind.clone(),
        namespace: meta.namespace.clone(),
        name: meta.name.clone().unwrap_or_default(),
    }
}

pub(super) fn live_object(meta: &ObjectMeta, secret: bool) -> LiveObject {
    LiveObject {
        uid: meta.uid.as_deref().unwrap_or_default().into(),
        version: resource_version(meta),
        fields: FieldsDigest::of(meta.managed_fields.as_deref()),
        secret: secret.then(|| Box::new(SecretFacts::of(meta))),
        expires: ::fields::expired_job(meta),
        going: meta.deletion_timestamp.is_some(),
        kept: asks_to_be_kept(meta),
        owners: meta.managed_fields.as_deref().map(Into::into),
    }
}
