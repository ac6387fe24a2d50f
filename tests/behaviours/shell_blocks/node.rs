//! A simulated node: runs the programs of Pods as processes of this machine.

use std::{
    collections::HashMap,
    convert::Infallible,
    net::Ipv4Addr,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::{
    Plane,
    programs::{Controller, ControllerOptions, SealedSecretsController},
};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

/// The ports of gitseal's controller and of the Sealed Secrets controller, as in their manifests.
const PORTS: [u16; 3] = [8080, 8081, 8082];

/// What runs in a Pod.
enum Program {
    Ours(Controller),
    Theirs(SealedSecretsController),
    /// Another image. Nothing runs, and the Pod is reported as ready.
    Nothing,
}

impl Program {
    fn stop(self) -> Result<()> {
        match self {
            Self::Ours(controller) => controller.stop(),
            Self::Theirs(controller) => controller.stop(),
            Self::Nothing => Ok(()),
        }
    }
}

/// The name of the node.
const NODE: &str = "machine";
/// How often the node renews its lease. Kubernetes takes a node for lost after 40 seconds without a renewal.
const HEARTBEAT: Duration = Duration::from_secs(5);

/// Runs the cluster's Pods. When the future is dropped, all their processes end.
pub(super) async fn run(plane: &Plane) -> Result<Infallible> {
    let client = plane.cluster.client().await?;
    let nodes = Api::<Node>::all(client.clone());
    nodes.create(&PostParams::default(), &serde_json::from_value(json!({"metadata": {"name": NODE}}))?).await?;
    let mut running: HashMap<String, Program> = HashMap::new();
    let mut addresses = 1..u8::MAX;
    let mut next_heartbeat = Instant::now();
    loop {
        if Instant::now() >= next_heartbeat {
            next_heartbeat = Instant::now() + HEARTBEAT;
            let now = jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
            let ready = json!({"type": "Ready", "status": "True", "lastHeartbeatTime": now});
            let status = Patch::Strategic(json!({"status": {"conditions": [ready]}}));
            nodes.patch_status(NODE, &PatchParams::default(), &status).await?;
        }
        let pods = Api::<Pod>::all(client.clone()).list(&ListParams::default()).await?.items;
        // Pods that are being deleted are ended before new ones begin, because a volume can belong to only one Pod at a
        // time.
        let (ending, wanted): (Vec<_>, Vec<_>) = pods.iter().partition(|pod| pod.metadata.deletion_timestamp.is_some());
        for pod in ending {
            running.remove(&uid(pod)).map(Program::stop).transpose()?;
            let now = DeleteParams { grace_period_seconds: Some(0), ..DeleteParams::default() };
            unless_gone(of(&client, pod).delete(&pod.name_any(), &now).await)?;
        }
        for pod in wanted.into_iter().filter(|pod| pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_none())) {
            let address = Ipv4Addr::new(10, 99, 0, addresses.next().context("no address is left")?);
            let link = Command::new("ip").args(["address", "add", &format!("{address}/32"), "dev", "lo"]).output()?;
            // The first address exists already: `harness::network` has added it.
            ensure!(link.status.success() || address == harness::network::POD, "{link:?}");
            running.insert(uid(pod), start(plane, pod, address).await?);
            is_well(&of(&client, pod), pod, address).await?;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn uid(pod: &Pod) -> String {
    pod.uid().unwrap_or_default()
}

/// Access to the Pods in the namespace of this Pod.
fn of(client: &Client, pod: &Pod) -> Api<Pod> {
    Api::namespaced(client.clone(), &pod.namespace().unwrap_or_default())
}

/// Ignores the error that an object does not exist, because it may have been deleted meanwhile.
fn unless_gone<T>(answer: kube::Result<T>) -> Result<()> {
    match answer {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        answer => Ok(answer.map(drop)?),
    }
}

async fn start(plane: &Plane, pod: &Pod, address: Ipv4Addr) -> Result<Program> {
    let spec = pod.spec.as_ref().context("a Pod has a spec")?;
    let container = spec.containers.first().context("a Pod has a container")?;
    let image = container.image.as_deref().unwrap_or_default();
    let arguments = container.args.clone().unwrap_or_default();
    if image.contains("/sealed-secrets-controller:") {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).chain(["--key-size=2048"]).collect();
        let ports = [PORTS[0], PORTS[1]];
        return Ok(Program::Theirs(SealedSecretsController::start_at(plane, address, ports, &arguments).await?));
    }
    if !image.contains("gitseal-controller:") {
        return Ok(Program::Nothing);
    }
    let namespace = pod.namespace().context("a Pod has a namespace")?;
    let account = spec.service_account_name.as_deref().unwrap_or("default");
    let groups = ["system:serviceaccounts", &format!("system:serviceaccounts:{namespace}"), "system:authenticated"];
    let user = format!("system:serviceaccount:{namespace}:{account}");
    let kubeconfig = plane.cluster.kubeconfig_for(&user, &groups)?;
    let folder = plane.cluster.make_folder(&pod.name_any())?;
    let mut options = ControllerOptions { address, ports: Some(PORTS), ..ControllerOptions::new(&kubeconfig, &folder) };
    // The last value of a flag counts. So the node's own flags for ports and storage come last.
    options.arguments = [arguments, options.arguments].concat();
    options.arguments.push(format!("--storage={}", folder.join("git").display()));
    let [http, metrics, probes] = PORTS;
    options.arguments.push(format!("--listen-addr={address}:{http}"));
    options.arguments.push(format!("--listen-metrics-addr={address}:{metrics}"));
    options.arguments.push(format!("--listen-probes-addr={address}:{probes}"));
    options.environment = vec![("POD_NAMESPACE".into(), namespace), ("POD_NAME".into(), pod.name_any())];
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    Ok(Program::Ours(controller))
}

/// Assigns the Pod to the node, and reports that it runs and is ready.
async fn is_well(pods: &Api<Pod>, pod: &Pod, address: Ipv4Addr) -> Result<()> {
    let name = pod.name_any();
    let binding = json!({"metadata": {"name": name}, "target": {"apiVersion": "v1", "kind": "Node", "name": NODE}});
    let bound = pods.create_subresource::<_, Value>("binding", &name, &PostParams::default(), &binding).await;
    unless_gone(bound)?;
    let conditions = ["Initialized", "ContainersReady", "Ready"].map(|name| json!({"type": name, "status": "True"}));
    let status = json!({"status": {
        "phase": "Running", "podIP": address, "podIPs": [{"ip": address}], "conditions": conditions,
    }});
    unless_gone(pods.patch_status(&name, &PatchParams::default(), &Patch::Merge(&status)).await)
}
