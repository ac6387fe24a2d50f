//! Makes the Syncs of a benchmark and the objects of each Sync, and waits for all of them.

use std::{collections::HashSet, fmt::Debug, time::Duration};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use harness::{git::GitServer, kubernetes};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

/// A Deployment without replicas, a Service and two ConfigMaps.
pub(crate) fn objects(namespace: &str, app: usize, note: &str) -> Vec<Value> {
    let name = format!("app-{app}");
    let labels = json!({"app.kubernetes.io/name": name});
    vec![
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{
                        "name": "web", "image": "registry.example/web:1.0",
                        "ports": [{"containerPort": 8080}],
                        "envFrom": [{"configMapRef": {"name": format!("{name}-settings")}}],
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                    }]},
                },
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("{name}-settings"), "namespace": namespace, "labels": labels},
            "data": {"LOG_LEVEL": "info", "NOTE": note},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("{name}-files"), "namespace": namespace, "labels": labels},
            "data": {"app.conf": "listen = 8080\nworkers = 4\ntimeout = 30\n"},
        }),
    ]
}

/// The file that holds the objects in Git.
pub(crate) fn file(namespace: &str, app: usize, note: &str) -> String {
    objects(namespace, app, note).iter().map(|object| format!("---\n{object}\n")).collect()
}

/// The folder of an app.
pub(crate) fn folder(app: usize) -> String {
    format!("apps/app-{app}")
}

/// Creates the Repository `repo`, which is fetched at each `interval`, and a Sync for each app.
pub(crate) async fn create_syncs(
    client: &Client,
    server: &GitServer,
    interval: &str,
    folders: impl Iterator<Item = String>,
) -> Result<()> {
    let repository = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "repo"},
        "spec": {"url": server.url("repo"), "ref": {"branch": "main"}, "interval": interval},
    });
    kubernetes::apply(client, "default", repository).await?;
    let syncs = folders.enumerate().map(|(app, folder)| {
        json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": format!("app-{app}")},
            "spec": {"repository": {"name": "repo"}, "path": folder},
        })
    });
    apply_all(client, syncs).await
}

/// Applies the objects, 32 at a time.
pub(crate) async fn apply_all(client: &Client, objects: impl Iterator<Item = Value>) -> Result<()> {
    stream::iter(objects)
        .map(|object| kubernetes::apply(client, "default", object))
        .buffer_unordered(32)
        .try_for_each(|_| async { Ok(()) })
        .await
}

/// Waits until `is_done` was true of `count` objects. It watches and does not poll, because polling 1,000 objects would
/// itself be a load.
pub(crate) async fn wait_for<K>(client: &Client, count: usize, is_done: impl Fn(&K) -> bool) -> Result<()>
where
    K: Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>,
    K: Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api = Api::<K>::namespaced(client.clone(), "default");
    let mut done = HashSet::new();
    let mut stream = std::pin::pin!(watcher(api, watcher::Config::default()).applied_objects());
    let mut limit = std::pin::pin!(tokio::time::sleep(Duration::from_secs(1800)));
    while done.len() < count {
        tokio::select! {
            () = &mut limit => bail!("{} of {count} {} are done after 30 minutes", done.len(), K::plural(&())),
            object = stream.next() => {
                let object = object.context("the watch ended")??;
                if is_done(&object) {
                    done.insert(object.name_any());
                }
            }
        }
    }
    Ok(())
}
