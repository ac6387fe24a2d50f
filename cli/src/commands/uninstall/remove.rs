//! Removes the controller, its rights, and the CustomResourceDefinitions of gitseal.

use std::fmt::Debug;

use anyhow::{Context, bail};
use futures::future::join_all;
use jiff::SignedDuration;
use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        coordination::v1::Lease,
        core::v1::{Pod, Service},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client, ResourceExt,
    api::{ApiResource, DeleteParams, DynamicObject, GroupVersionKind, ListParams},
    runtime::wait::{await_condition, conditions},
};
use manifests::{Limits, parse};
use serde::de::DeserializeOwned;

use super::undone::Undone;
use crate::{
    commands::install::{
        bundle::{self, DEPLOYMENT_NAME, LABEL, POD_LABELS},
        choices::{Choices, Rollout, Storage, Tenancy},
        live::{Live, is_of_an_installation},
        plan,
    },
    found::or_gone,
    global::Global,
    output::Hint,
    time,
};

/// One object of an installation.
pub struct Part {
    api: Api<DynamicObject>,
    name: String,
    shown: String,
}

impl std::fmt::Display for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.shown)
    }
}

impl Part {
    /// Deletes the object. It is no error if the object does not exist.
    pub async fn remove(&self) -> anyhow::Result<()> {
        or_gone(self.api.delete(&self.name, &DeleteParams::background()).await)
            .with_context(|| format!("cannot delete {self}"))
    }
}

/// Everything in the cluster that `gitseal install` may have made: the controller first, the rights last.
pub async fn parts(client: &Client, live: &Live, global: &Global) -> anyhow::Result<Vec<Part>> {
    let choices = Choices {
        namespace: live.namespace.clone(),
        service: live.service.clone().unwrap_or_else(|| global.controller_name().to_owned()),
        image: bundle::image(),
        arguments: bundle::arguments(),
        tenancy: Tenancy { cluster_admin: true, watch: true },
        storage: Storage::volume(),
        replicas: 2,
        rollout: Rollout::Rolling,
    };
    let text = bundle::documents(&choices).join("---\n");
    let mut objects =
        parse("gitseal install", text.as_bytes(), &Limits::default()).context("cannot read the generated manifests")?;
    objects.reverse();
    let mut parts = Vec::new();
    for object in objects {
        let Some(api) = plan::api(client, &object).await? else { continue };
        let found = api.get_opt(&object.id.name).await.with_context(|| format!("cannot read {}", object.id))?;
        // An object that is being deleted needs no second delete.
        let found = found.filter(|found| found.metadata.deletion_timestamp.is_none());
        if found.is_some_and(|found| is_of_an_installation(&found)) {
            parts.push(Part { api, name: object.id.name.clone(), shown: object.id.to_string() });
        }
    }
    // Services with earlier names, and the lease, which the controller created, are parts of the installation, too.
    let (services, label) = (namespaced::<Service>(client, live), format!("{}={}", LABEL.0, LABEL.1));
    let services = services.list(&ListParams::default().labels(&label)).await?.items.into_iter();
    let earlier = services.map(|service| service.name_any()).filter(|name| *name != choices.service);
    parts.extend(earlier.map(|name| part_of::<Service>(client, live, name)));
    let lease = namespaced::<Lease>(client, live).get_opt(DEPLOYMENT_NAME).await?;
    parts.extend(lease.map(|lease| part_of::<Lease>(client, live, lease.name_any())));
    Ok(parts)
}

/// Objects of a kind in the controller's namespace.
fn namespaced<K>(client: &Client, live: &Live) -> Api<K>
where
    K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
{
    Api::namespaced(client.clone(), &live.namespace)
}

/// The object of this name in the controller's namespace.
fn part_of<K: kube::Resource<DynamicType = ()>>(client: &Client, live: &Live, name: String) -> Part {
    let api = Api::namespaced_with(client.clone(), &live.namespace, &ApiResource::erase::<K>(&()));
    Part { api, shown: format!("{} {}/{name}", K::kind(&()), live.namespace), name }
}

/// Deletes the Deployment and waits until no controller runs.
pub async fn controller(client: &Client, live: &Live, timeout: SignedDuration) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &live.namespace);
    or_gone(deployments.delete(DEPLOYMENT_NAME, &DeleteParams::background()).await)
        .with_context(|| format!("cannot delete the Deployment {}/{DEPLOYMENT_NAME}", live.namespace))?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), &live.namespace);
    let of_ours = ListParams::default().labels(POD_LABELS);
    for pod in pods.list(&of_ours).await.context("cannot list the controller's Pods")? {
        let name = pod.name_any();
        wait_until_gone(pods.clone(), &name, &format!("Pod {}/{name}", live.namespace), timeout).await?;
    }
    Ok(())
}

/// Whether the cluster has any of our CustomResourceDefinitions.
pub async fn has_definitions(client: &Client) -> anyhow::Result<bool> {
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    for definition in crds::custom_resource_definitions() {
        let name = definition.name_any();
        let found = all.get_metadata_opt(&name).await;
        if found.with_context(|| format!("cannot read the CustomResourceDefinition {name}"))?.is_some() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Deletes the kinds, with all their objects, and waits until they are gone. If a kind is not gone in time, `undone`
/// says which of its objects have finalizers, and how to remove the finalizers.
pub async fn definitions(client: &Client, timeout: SignedDuration, undone: &mut Undone) -> anyhow::Result<()> {
    let all: Api<CustomResourceDefinition> = Api::all(client.clone());
    let definitions = crds::custom_resource_definitions();
    for definition in &definitions {
        let name = definition.name_any();
        or_gone(all.delete(&name, &DeleteParams::background()).await)
            .with_context(|| format!("cannot delete the CustomResourceDefinition {name}"))?;
    }
    // All kinds are waited for at the same time, so that a kind that takes long does not use up the time of the others.
    let all = &all;
    let gone = join_all(definitions.iter().map(|definition| async move {
        let name = definition.name_any();
        let what = format!("the CustomResourceDefinition {name}");
        wait_until_gone(all.clone(), &name, &what, timeout).await
    }));
    for (definition, gone) in definitions.iter().zip(gone.await) {
        if gone.is_err() {
            undone.note(gone);
            held_up_by(client, definition, undone).await;
        }
    }
    Ok(())
}

/// Notes the objects of a kind that are not deleted because of their finalizers.
async fn held_up_by(client: &Client, definition: &CustomResourceDefinition, undone: &mut Undone) {
    let (group, kind, plural) = (&definition.spec.group, &definition.spec.names.kind, &definition.spec.names.plural);
    let Some(version) = definition.spec.versions.iter().find(|version| version.storage) else { return };
    let version = GroupVersionKind::gvk(group, &version.name, kind);
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &ApiResource::from_gvk_with_plural(&version, plural));
    // If the objects cannot be listed, the failure that was noted before says what to look at.
    let Ok(objects) = api.list_metadata(&ListParams::default()).await else { return };
    for object in objects.items.iter().filter(|object| !object.finalizers().is_empty()) {
        let (namespace, name) = (object.namespace().unwrap_or_default(), object.name_any());
        undone.add(format!(
            "{kind} {namespace}/{name} is not deleted before its finalizers are removed ({}): kubectl patch \
             {plural}.{group} -n {namespace} {name} --type=merge -p '{{\"metadata\":{{\"finalizers\":null}}}}'",
            object.finalizers().join(", ")
        ));
    }
}

/// Waits until an object is gone.
pub async fn wait_until_gone<K>(api: Api<K>, name: &str, what: &str, timeout: SignedDuration) -> anyhow::Result<()>
where
    K: kube::Resource + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let Some(uid) = api.get_metadata_opt(name).await?.and_then(|object| object.metadata.uid) else { return Ok(()) };
    let gone = await_condition(api, name, conditions::is_deleted(&uid));
    match tokio::time::timeout(timeout.unsigned_abs(), gone).await {
        Ok(gone) => gone.map(drop).with_context(|| format!("cannot watch {what}")),
        Err(_) => bail!(Hint::error(
            format!("{what} was not deleted within {}", time::short(timeout)),
            "look at its finalizers (metadata.finalizers), then run the command again",
        )),
    }
}
