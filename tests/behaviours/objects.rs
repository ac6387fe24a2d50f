//! Manifests that several modules use.

use anyhow::{Context, Result};
use harness::kubernetes;
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use serde_json::Value;

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
