//! The floor: a bare client that server-side-applies the same objects over the same kind of connection.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures::{StreamExt, TryStreamExt, stream};
use harness::{Plane, kubernetes};
use kube::api::{Patch, PatchParams};
use localcluster::ClusterOptions;

use crate::workload;

/// Requests under way at a time: the same as the controller's default.
const AT_ONCE: usize = 32;

/// Applies the objects of `count` apps to a new control plane; how long that took.
pub(crate) async fn apply(count: usize) -> Result<Duration> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let client = plane.cluster.client().await?;
    let params = PatchParams::apply("floor").force();
    let all: Vec<_> = (0..count).flat_map(|app| workload::objects("default", app, "first")).collect();
    let start = Instant::now();
    stream::iter(all)
        .map(|object| {
            let (client, params) = (client.clone(), &params);
            async move {
                let text = |key: &str| object[key].as_str().unwrap_or_default().to_owned();
                let name = object["metadata"]["name"].as_str().unwrap_or_default().to_owned();
                kubernetes::objects(&client, "default", &text("apiVersion"), &text("kind"))
                    .patch(&name, params, &Patch::Apply(&object))
                    .await
            }
        })
        .buffer_unordered(AT_ONCE)
        .try_for_each(|_| async { Ok(()) })
        .await?;
    Ok(start.elapsed())
}
