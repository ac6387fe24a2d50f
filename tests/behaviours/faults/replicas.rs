//! Replicas that lose their connection while they lead, and leases with absurd content.

use anyhow::{Context, Result, bail};
use harness::{
    Plane, Scene, eventually,
    faults::{Fault, FaultProxy, Which},
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
    within,
};
use http::Method;
use k8s_openapi::api::coordination::v1::Lease;
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::json;

use super::LEASE;
use crate::objects::config_map;

/// One of several controllers, with its own proxy to the API server.
struct Replica {
    proxy: FaultProxy,
    controller: Controller,
}

impl Replica {
    async fn start(plane: &Plane, name: &str) -> Result<Self> {
        let proxy = FaultProxy::start(plane.cluster.kubeconfig()).await?;
        let folder = plane.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        let mut options = ControllerOptions::new(proxy.kubeconfig(), &folder);
        options.environment = vec![("POD_NAME".into(), name.into())];
        let mut controller = Controller::start(&options)?;
        controller.ready().await?;
        Ok(Self { proxy, controller })
    }

    /// Waits until the controller has ended, and returns the exit code.
    async fn ends(&mut self) -> Result<i32> {
        eventually("the replica to end", || {
            let (code, log) = (self.controller.process().try_wait(), self.controller.log());
            async move { code?.with_context(|| format!("it still runs:\n{log}")) }
        })
        .await
    }
}

fn leases(client: &Client) -> Api<Lease> {
    Api::namespaced(client.clone(), "kube-system")
}

async fn leads(client: &Client, name: &str) -> Result<()> {
    eventually(&format!("{name} to lead"), || async {
        let spec = leases(client).get("gitseal-controller").await?.spec.unwrap_or_default();
        match spec.holder_identity.as_deref() {
            Some(holder) if holder == name => Ok(()),
            _ => bail!("{spec:?}"),
        }
    })
    .await
}

/// Starts two replicas. The first leads, and has applied a Sync.
async fn two(name: &str) -> Result<(Plane, Scene, Replica, Replica)> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, name, ServerOptions::default()).await?;
    let first = Replica::start(&plane, "first").await?;
    leads(&scene.client, "first").await?;
    let second = Replica::start(&plane, "second").await?;
    scene.repository(json!({})).await?;
    scene.tree.write("app/map.yaml", config_map("map", "one"))?;
    scene.sync("app", "./app", json!({})).await?;
    let revision = scene.publish("one").await?;
    scene.is_applied("app", &revision).await?;
    Ok((plane, scene, first, second))
}

/// Checks that the next commit is applied by the current leader.
async fn goes_on(scene: &Scene) -> Result<()> {
    scene.tree.write("app/map.yaml", config_map("map", "two"))?;
    let revision = scene.publish("two").await?;
    scene.is_applied("app", &revision).await?;
    scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "two"}})).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_that_cannot_write_gives_the_lease_to_one_that_can() -> Result<()> {
    let (plane, scene, mut first, mut second) = two("cannot-write").await?;
    // Only PATCH requests get no answer. The lease can still be renewed.
    let stalled = first.proxy.inject(Which::method(Method::PATCH), Fault::Stall);
    scene.api::<k8s_openapi::api::core::v1::ConfigMap>().delete("map", &DeleteParams::default()).await?;
    within(LEASE, leads(&scene.client, "second")).await?;
    assert_eq!(first.ends().await?, 1);
    let log = first.controller.log();
    assert!(log.contains("other writes of this replica got no answer"), "{log}");
    goes_on(&scene).await?;

    // A replica that cannot write does not become leader, even if there is no other.
    let Replica { proxy, .. } = first;
    let folder = plane.folder().join("first");
    let mut options = ControllerOptions::new(proxy.kubeconfig(), &folder);
    options.environment = vec![("POD_NAME".into(), "first".into())];
    let mut back = Controller::start(&options)?;
    back.ready().await?;
    second.controller.process().signal(localcluster::Signal::Terminate)?;
    eventually("it to find out", || async {
        let log = back.log();
        if log.contains("the API server does not answer writes of this replica") { Ok(()) } else { bail!("{log}") }
    })
    .await?;
    let holder = leases(&scene.client).get("gitseal-controller").await?.spec.and_then(|spec| spec.holder_identity);
    assert_eq!(holder.as_deref(), Some(""), "nobody leads");
    stalled.lift();
    within(LEASE, leads(&scene.client, "first")).await?;
    scene.tree.write("app/map.yaml", config_map("map", "three"))?;
    let revision = scene.publish("three").await?;
    scene.is_applied("app", &revision).await?;
    Ok(())
}

#[tokio::test]
async fn a_leader_whose_network_swallows_everything_is_replaced() -> Result<()> {
    let (_plane, scene, mut first, _second) = two("blackholed").await?;
    let away = first.proxy.inject(Which::all(), Fault::Hold);
    within(LEASE, leads(&scene.client, "second")).await?;
    goes_on(&scene).await?;
    assert_eq!(first.ends().await?, 1);
    away.lift();
    scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "two"}})).await?;
    Ok(())
}

#[tokio::test]
async fn a_lease_that_says_nonsense_costs_a_minute_at_most() -> Result<()> {
    let (plane, scene, first, mut second) = two("absurd").await?;
    first.controller.kill()?;
    let absurd = json!({"spec": {"leaseDurationSeconds": 2_000_000_000}});
    leases(&scene.client).patch("gitseal-controller", &PatchParams::default(), &Patch::Merge(&absurd)).await?;
    leads(&scene.client, "second").await?;
    goes_on(&scene).await?;

    // The lease is deleted, and its holder is dead.
    second.controller.process().signal(localcluster::Signal::Kill)?;
    leases(&scene.client).patch("gitseal-controller", &PatchParams::default(), &Patch::Merge(&absurd)).await?;
    leases(&scene.client).delete("gitseal-controller", &DeleteParams::default()).await?;
    let third = Replica::start(&plane, "third").await?;
    leads(&scene.client, "third").await?;
    drop(third);
    Ok(())
}
