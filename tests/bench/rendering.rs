//! What the benchmarks of rendering share.

use std::{collections::HashSet, fs, time::Duration};

use anyhow::{Result, ensure};
use crds::{ConditionStatus, Sync, find_condition};
use harness::programs::Controller;
use kube::{Api, Client};
use serde_json::json;

use crate::{process, workload};

/// Requests a fetch of the Repository, and waits until it has `revision`.
pub(crate) async fn fetch(client: &Client, revision: &str) -> Result<()> {
    let api = Api::<crds::Repository>::namespaced(client.clone(), "default");
    let patch = json!({"metadata": {"annotations": {crds::names::RECONCILE_REQUESTED_AT: revision}}});
    api.patch("repo", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await?;
    harness::eventually("the fetch", || async {
        let status = api.get("repo").await?.status.unwrap_or_default();
        ensure!(status.revision.as_deref() == Some(revision), "{:?}", status.revision);
        Ok(())
    })
    .await
}

/// Waits until the Syncs of these apps are Ready at `revision`.
pub(crate) async fn applied(client: &Client, apps: impl Iterator<Item = usize>, revision: &str) -> Result<()> {
    let waiting: HashSet<_> = apps.map(|app| format!("app-{app}")).collect();
    let is_applied = |sync: &Sync| {
        let Some(status) = &sync.status else { return false };
        let is_ready = find_condition(&status.conditions, "Ready").is_some_and(|c| c.status == ConditionStatus::True);
        let is_waited_for = sync.metadata.name.as_ref().is_some_and(|name| waiting.contains(name));
        is_waited_for && is_ready && status.last_applied_revision.as_deref() == Some(revision)
    };
    workload::wait_for(client, waiting.len(), is_applied).await
}

/// How often a folder was rendered with `tool`: `kustomize` or `helm`.
pub(crate) async fn renders(controller: &Controller, tool: &str) -> Result<u64> {
    let series = format!("gitseal_folders_rendered_total{{from=\"{tool}\"}}");
    Ok(controller.metric(&series).await?.unwrap_or(0))
}

/// Processor time of the controller and of its processes that render.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    Ok(process::cpu(pid)? + cpu_of_renderers(pid)?)
}

/// Processor time of the processes that render.
pub(crate) fn cpu_of_renderers(pid: u32) -> Result<Duration> {
    let running: Duration = children(pid).into_iter().filter_map(|child| process::cpu(child).ok()).sum();
    Ok(process::cpu_of_children(pid)? + running)
}

/// The processes that `pid` started.
pub(crate) fn children(pid: u32) -> Vec<u32> {
    let parent = |stat: &str| stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse::<u32>().ok();
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok())
        .filter(|child| fs::read_to_string(format!("/proc/{child}/stat")).ok().as_deref().and_then(parent) == Some(pid))
        .collect()
}

/// Waits until the controller and its processes have used no processor time for two seconds.
pub(crate) async fn settle(pid: u32) -> Result<()> {
    process::quiet(Duration::from_secs(2), Duration::from_millis(20), || cpu(pid)).await
}
