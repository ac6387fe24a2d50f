//! The floor to compare with: a minimal client that applies the same objects with server-side apply as fast as it can.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures::{StreamExt, TryStreamExt, stream};
use harness::kubernetes;
use k8s_openapi::api::core::v1::Namespace;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use localcluster::Cluster;
use serde_json::json;

use crate::{process, workload};

/// How many requests run at the same time. Which number is fastest depends on the machine, so all are tried.
const AT_ONCE: [usize; 5] = [4, 8, 16, 32, 64];

/// In the worst case, it takes minutes to delete a namespace with some thousand objects.
const LONGEST_DELETE: Duration = Duration::from_secs(900);

/// The result of the concurrency that was fastest.
pub(crate) struct Floor {
    pub(crate) took: Duration,
    /// How many requests ran at the same time.
    pub(crate) at_once: usize,
    /// Processor time that API server, etcd and controller manager used for these requests.
    pub(crate) plane_cpu: Duration,
}

/// Applies the objects of `count` apps with each concurrency, each time into a new namespace that is deleted afterwards. So
/// the control plane is idle and has the same number of objects before each measurement, also before the controller is
/// measured. This matters because the API server searches longer for a free Service address the more Services there
/// are.
pub(crate) async fn fastest(cluster: &Cluster, client: &Client, count: usize) -> Result<Floor> {
    let mut fastest: Option<Floor> = None;
    for at_once in AT_ONCE {
        process::idle(cluster).await?;
        let before = process::plane_cpu(cluster)?;
        let took = apply(client, count, at_once).await?;
        let plane_cpu = process::plane_cpu(cluster)?.saturating_sub(before);
        eprintln!("  {at_once} requests at a time: {:.2} s", took.as_secs_f64());
        process::idle(cluster).await?;
        delete(client, &namespace(at_once)).await?;
        if fastest.as_ref().is_none_or(|known| took < known.took) {
            fastest = Some(Floor { took, at_once, plane_cpu });
        }
    }
    process::idle(cluster).await?;
    fastest.context("no concurrency")
}

fn namespace(at_once: usize) -> String {
    format!("floor-{at_once}")
}

/// Deletes a namespace, and waits until everything in it is gone.
async fn delete(client: &Client, name: &str) -> Result<()> {
    let namespaces = Api::<Namespace>::all(client.clone());
    namespaces.delete(name, &DeleteParams::default()).await?;
    let start = Instant::now();
    while namespaces.get_opt(name).await?.is_some() {
        if start.elapsed() > LONGEST_DELETE {
            bail!("namespace {name} is still there after {LONGEST_DELETE:?}");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    Ok(())
}

/// Applies the objects of `count` apps, and returns how long this takes. Asks the API server to answer with metadata
/// only, which is the smallest answer that it can give.
async fn apply(client: &Client, count: usize, at_once: usize) -> Result<Duration> {
    let namespace = namespace(at_once);
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}});
    kubernetes::apply_cluster_wide(client, object).await?;
    let params = PatchParams::apply("floor").force();
    let all: Vec<_> = (0..count).flat_map(|app| workload::objects(&namespace, app, "first")).collect();
    let start = Instant::now();
    stream::iter(all)
        .map(|object| {
            let (client, params, namespace) = (client.clone(), &params, namespace.as_str());
            async move {
                let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                kubernetes::objects(&client, namespace, &text("apiVersion"), &text("kind"))
                    .patch_metadata(&name, params, &Patch::Apply(&object))
                    .await
            }
        })
        .buffer_unordered(at_once)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(start.elapsed())
}
