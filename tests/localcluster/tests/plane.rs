//! Tests a control plane from start to end: it answers requests, its controllers work, and it ends with its owner.

#![allow(clippy::unwrap_used, missing_docs)]

use std::{
    io::{BufRead as _, BufReader},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace},
};
use kube::{
    Api, Client,
    api::{DeleteParams, PostParams},
};
use localcluster::{Cluster, ClusterOptions, Program};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::json;

const LIMIT: Duration = Duration::from_secs(60);

async fn eventually<T>(what: &str, mut attempt: impl AsyncFnMut() -> Option<T>) -> T {
    let until = Instant::now() + LIMIT;
    loop {
        if let Some(value) = attempt().await {
            return value;
        }
        assert!(Instant::now() < until, "not after {} s: {what}", LIMIT.as_secs());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn create<K>(api: &Api<K>, object: serde_json::Value) -> K
where
    K: Clone + std::fmt::Debug + Serialize + DeserializeOwned,
{
    api.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await.unwrap()
}

async fn namespace(client: &Client, name: &str) -> Api<Namespace> {
    let api = Api::all(client.clone());
    create(&api, json!({"metadata": {"name": name}})).await;
    api
}

#[tokio::test]
async fn a_plane_serves_and_its_controllers_work() {
    let cluster = Cluster::start(ClusterOptions { audit: true, ..ClusterOptions::default() }).unwrap();
    let client = cluster.client().await.unwrap();
    let namespaces = namespace(&client, "plane").await;

    let configs: Api<ConfigMap> = Api::namespaced(client.clone(), "plane");
    create(&configs, json!({"metadata": {"name": "a"}, "data": {"key": "value"}})).await;
    assert_eq!(configs.get("a").await.unwrap().data.unwrap()["key"], "value");

    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "plane");
    let labels = json!({"app": "a"});
    create(
        &deployments,
        json!({
            "metadata": {"name": "a"},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{"name": "a", "image": "a"}]},
                },
            },
        }),
    )
    .await;
    eventually("the Deployment is observed", async || deployments.get("a").await.unwrap().status?.observed_generation)
        .await;

    users_are_known_by_their_certificates(&cluster, &configs).await;

    namespaces.delete("plane", &DeleteParams::default()).await.unwrap();
    eventually("the namespace is gone", async || namespaces.get_opt("plane").await.unwrap().is_none().then_some(()))
        .await;
}

async fn users_are_known_by_their_certificates(cluster: &Cluster, as_admin: &Api<ConfigMap>) {
    let grant = |resource: &str, object| {
        let path = format!("/apis/rbac.authorization.k8s.io/v1/namespaces/plane/{resource}");
        http::Request::post(path).body(serde_json::to_vec(&object).unwrap()).unwrap()
    };
    let admin: Client = as_admin.clone().into_client();
    let role = json!({
        "metadata": {"name": "readers"},
        "rules": [{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}],
    });
    let binding = json!({
        "metadata": {"name": "readers"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": "readers"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "Group", "name": "second"}],
    });
    for (resource, object) in [("roles", role), ("rolebindings", binding)] {
        admin.request_text(grant(resource, object)).await.unwrap();
    }

    let reader = cluster.client_for("team:ann,\"quoted\"", &["first", "second"]).await.unwrap();
    let as_reader: Api<ConfigMap> = Api::namespaced(reader, "plane");
    eventually("the role is granted", async || as_reader.get("a").await.ok()).await;
    let denied = as_reader.delete("a", &DeleteParams::default()).await.unwrap_err();
    assert!(denied.to_string().contains("forbidden"), "{denied}");

    eventually("the audit log has the request", async || {
        let requests = cluster.requests().unwrap();
        requests.into_iter().find(|request| {
            request.user == "team:ann,\"quoted\""
                && (request.verb.as_str(), request.resource.as_str()) == ("delete", "configmaps")
                && request.code == 403
        })
    })
    .await;
}

#[test]
fn a_plane_that_cannot_start_says_why() {
    let error = Cluster::start(ClusterOptions {
        api_server_args: vec!["--no-such-flag".to_owned()],
        ..ClusterOptions::default()
    })
    .unwrap_err()
    .to_string();
    assert!(error.contains("kube-apiserver ended") && error.contains("--no-such-flag"), "{error}");
}

#[test]
fn planes_run_side_by_side_and_end_when_they_are_dropped() {
    let options = ClusterOptions { controller_manager: false, ..ClusterOptions::default() };
    let [one, two] = [Cluster::start(options.clone()).unwrap(), Cluster::start(options).unwrap()];
    assert_ne!(one.url(), two.url());

    let (address, pid) = (address(one.url()), one.program(Program::Etcd).unwrap().pid());
    let folder = one.kubeconfig().parent().unwrap().to_path_buf();
    assert!(listens(&address));
    drop(one);
    assert!(!listens(&address) && !runs(pid) && !folder.exists());
    assert!(listens(&self::address(two.url())));
}

#[tokio::test]
async fn a_plane_dies_with_an_owner_that_is_killed() {
    let mut owner = Command::new(env!("CARGO_BIN_EXE_localcluster"))
        .args(["up", "--scheduler"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines: Vec<String> = BufReader::new(owner.stdout.take().unwrap())
        .lines()
        .map(Result::unwrap)
        .take_while(|line| line != "ready")
        .collect();
    let url = address(lines.iter().find_map(|line| line.strip_prefix("url: ")).unwrap());
    let pids: Vec<u32> =
        lines.iter().filter_map(|line| line.strip_prefix("process: ")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(pids.len(), 4);
    assert!(listens(&url) && pids.iter().all(|pid| runs(*pid)));

    // This is SIGKILL, so the owner cannot clean up.
    owner.kill().unwrap();
    owner.wait().unwrap();

    eventually("all processes are gone", async || (!pids.iter().any(|pid| runs(*pid))).then_some(())).await;
    assert!(!listens(&url));
}

/// The host and port of a URL.
fn address(url: &str) -> String {
    url.strip_prefix("https://").unwrap().to_owned()
}

fn listens(address: &str) -> bool {
    TcpStream::connect(address).is_ok()
}

fn runs(pid: u32) -> bool {
    Path::new(&format!("/proc/{pid}")).exists()
}

#[tokio::test]
async fn a_store_that_is_restored_is_as_it_was_and_counts_on_from_there() {
    let mut cluster =
        Cluster::start(ClusterOptions { controller_manager: false, ..ClusterOptions::default() }).unwrap();
    let client = cluster.client().await.unwrap();
    namespace(&client, "plane").await;
    let configs: Api<ConfigMap> = Api::namespaced(client, "plane");
    let before = create(&configs, json!({"metadata": {"name": "before"}})).await;
    let backup = cluster.back_up().unwrap();
    let after = create(&configs, json!({"metadata": {"name": "after"}})).await;
    cluster.restore(&backup).unwrap();
    let names: Vec<_> = configs.list(&kube::api::ListParams::default()).await.unwrap().items;
    let names: Vec<_> = names.into_iter().filter_map(|config| config.metadata.name).collect();
    assert!(names.contains(&"before".to_owned()) && !names.contains(&"after".to_owned()), "{names:?}");
    let version = |config: &ConfigMap| config.metadata.resource_version.as_deref().unwrap().parse::<u64>().unwrap();
    let again = create(&configs, json!({"metadata": {"name": "again"}})).await;
    assert!(version(&again) > version(&before));
    assert!(version(&again) <= version(&after) + 200, "{} {}", version(&again), version(&after));
}
