//! Objects of any kind, as JSON.

use std::path::Path;

use anyhow::{Context, Result, bail};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, Patch, PatchParams},
};
use serde_json::Value;

/// The resource for `api_version` and `kind`. The plural is formed as Kubernetes does it for the kinds in these tests.
pub fn resource(api_version: &str, kind: &str) -> ApiResource {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind))
}

/// The API for objects of a kind in a namespace.
pub fn objects(client: &Client, namespace: &str, api_version: &str, kind: &str) -> Api<DynamicObject> {
    Api::namespaced_with(client.clone(), namespace, &resource(api_version, kind))
}

/// The API for cluster-wide objects of a kind.
pub fn cluster_wide(client: &Client, api_version: &str, kind: &str) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &resource(api_version, kind))
}

/// Applies `object` with server-side apply, as a person would do with kubectl.
pub async fn apply(client: &Client, namespace: &str, object: Value) -> Result<DynamicObject> {
    let (Some(api_version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
        bail!("no apiVersion or kind")
    };
    let name = object["metadata"]["name"].as_str().context("no name")?;
    let params = PatchParams::apply("kubectl").force();
    Ok(objects(client, namespace, api_version, kind).patch(name, &params, &Patch::Apply(&object)).await?)
}

/// Applies a cluster-wide object with server-side apply, as a person would do with kubectl.
pub async fn apply_cluster_wide(client: &Client, object: Value) -> Result<DynamicObject> {
    let (Some(api_version), Some(kind)) = (object["apiVersion"].as_str(), object["kind"].as_str()) else {
        bail!("no apiVersion or kind")
    };
    let name = object["metadata"]["name"].as_str().context("no name")?;
    let params = PatchParams::apply("kubectl").force();
    Ok(cluster_wide(client, api_version, kind).patch(name, &params, &Patch::Apply(&object)).await?)
}

/// Applies the CustomResourceDefinitions and waits until their kinds are served.
pub async fn install_crds(client: &Client) -> Result<()> {
    let api = Api::<CustomResourceDefinition>::all(client.clone());
    for crd in crds::custom_resource_definitions() {
        let name = crd.metadata.name.clone().context("a CRD has a name")?;
        api.patch(&name, &PatchParams::apply("kubectl").force(), &Patch::Apply(&crd)).await?;
        is_served(&api, &name).await?;
    }
    Ok(())
}

/// Applies the CustomResourceDefinition in a YAML file unchanged, and waits until its kind is served.
pub async fn install_crd_file(client: &Client, name: &str, file: &Path) -> Result<()> {
    let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}?fieldManager=kubectl");
    let request = http::Request::patch(path)
        .header("content-type", "application/apply-patch+yaml")
        .body(std::fs::read(file).with_context(|| file.display().to_string())?)?;
    client.request_text(request).await?;
    is_served(&Api::all(client.clone()), name).await
}

async fn is_served(api: &Api<CustomResourceDefinition>, name: &str) -> Result<()> {
    crate::eventually("the CRD to be served", || async {
        let crd = api.get(name).await?;
        let conditions = crd.status.and_then(|status| status.conditions).unwrap_or_default();
        match conditions.iter().find(|condition| condition.type_ == "Established") {
            Some(condition) if condition.status == "True" => Ok(()),
            _ => bail!("{conditions:?}"),
        }
    })
    .await
}
