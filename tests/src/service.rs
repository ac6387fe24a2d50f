//! Creates a Service of the cluster for a program outside of it, so that the API server's service proxy reaches the program;
//! see [`crate::network`].

use anyhow::Result;
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::json;

use crate::{kubernetes, network::POD};

/// The namespace in which kubeseal looks for the controller.
pub const NAMESPACE: &str = "kube-system";
/// The Service that kubeseal looks for.
pub const CONTROLLER: &str = "sealed-secrets-controller";

/// Creates the Service that kubeseal looks for. It leads to the program that listens on `port` of [`POD`]. This starts
/// nothing: it only creates a Service without a selector, its Endpoints, and a Pod whose status says that it runs.
pub async fn lead_to(client: &Client, port: u16) -> Result<()> {
    let name = CONTROLLER;
    // The API server admits no Pod without a service account.
    let account = json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name},
        "spec": {
            "serviceAccountName": name, "automountServiceAccountToken": false,
            "containers": [{"name": "controller", "image": "runs-on-the-machine"}],
        },
    });
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
        "spec": {"ports": [{"name": "http", "port": 8080}]},
    });
    let endpoints = json!({
        "apiVersion": "v1", "kind": "Endpoints", "metadata": {"name": name},
        "subsets": [{
            "addresses": [{"ip": POD, "targetRef": {"kind": "Pod", "namespace": NAMESPACE, "name": name}}],
            "ports": [{"name": "http", "port": port}],
        }],
    });
    for object in [account, pod, service, endpoints] {
        kubernetes::apply(client, NAMESPACE, object).await?;
    }
    let pods: Api<DynamicObject> = kubernetes::objects(client, NAMESPACE, "v1", "Pod");
    let runs = json!({"status": {"phase": "Running", "podIP": POD, "podIPs": [{"ip": POD}]}});
    pods.patch_status(name, &PatchParams::default(), &Patch::Merge(&runs)).await?;
    Ok(())
}
