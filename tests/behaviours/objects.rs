//! Manifests and helpers that several test modules use.

use anyhow::{Context, Result};
use harness::{Scene, kubernetes};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

/// A ConfigMap with one value, six lines long.
pub(crate) fn config_map(name: &str, value: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\ndata:\n  value: '{value}'\n")
}

/// A Deployment. The control plane has no nodes, so only a Deployment without replicas becomes available.
pub(crate) fn deployment(name: &str, replicas: u32) -> String {
    format!(
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: {name}}}\nspec:\n  replicas: {replicas}\n  \
         selector: {{matchLabels: {{app: {name}}}}}\n  template:\n    metadata: {{labels: {{app: {name}}}}}\n    \
         spec: {{containers: [{{name: c, image: example.invalid/c}}]}}\n"
    )
}

/// A SealedSecret with one value, `password`.
pub(crate) fn sealed_secret(name: &str, password: &str) -> String {
    format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: {name}}}\nspec:\n  \
         encryptedData:\n    password: {password}\n"
    )
}

/// Applies an object of a cluster-wide kind as a person would with kubectl.
pub(crate) async fn apply_cluster_wide(client: &Client, object: Value) -> Result<()> {
    let text = |key: &str| object[key].as_str().context("no type");
    let resource = kubernetes::resource(text("apiVersion")?, text("kind")?);
    let name = object["metadata"]["name"].as_str().context("no name")?;
    Api::<kube::api::DynamicObject>::all_with(client.clone(), &resource)
        .patch(name, &PatchParams::apply("kubectl").force(), &Patch::Apply(&object))
        .await?;
    Ok(())
}

/// Defines the kind Widget, with a status of its own, in a group that belongs to this scene. Returns its API version.
pub(crate) async fn widgets(scene: &Scene) -> Result<String> {
    let group = format!("{}.example.test", scene.namespace);
    define(&scene.client, &group, "Widget", "widgets").await?;
    Ok(format!("{group}/v1"))
}

/// Defines a kind with namespaces and with a status of its own, in the version `v1` of a group.
pub(crate) async fn define(client: &Client, group: &str, kind: &str, plural: &str) -> Result<()> {
    apply_cluster_wide(client, definition(group, kind, plural)).await
}

/// The CustomResourceDefinition for [`define`].
pub(crate) fn definition(group: &str, kind: &str, plural: &str) -> Value {
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    json!({"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.{group}")},
        "spec": {"group": group, "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural, "singular": kind.to_lowercase()},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema,
                "subresources": {"status": {}}}]}})
}

/// Waits until a ConfigMap has this value.
pub(crate) async fn is_value(scene: &Scene, map: &str, value: &str) -> Result<()> {
    scene.has("v1", "ConfigMap", map, json!({"data": {"value": value}})).await.map(drop)
}

/// Changes the value of a ConfigMap, as a person would.
pub(crate) async fn change_by_hand(scene: &Scene, map: &str) -> Result<()> {
    let patch = Patch::Merge(json!({"data": {"value": "by hand"}}));
    scene.api::<ConfigMap>().patch(map, &PatchParams::default(), &patch).await?;
    Ok(())
}
