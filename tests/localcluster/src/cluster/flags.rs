//! The flags with which the programs of a control plane are started.

use std::path::Path;

use super::Cluster;

fn flag(name: &str, value: impl AsRef<Path>) -> String {
    format!("--{name}={}", value.as_ref().display())
}

fn flags(fixed: &[&str]) -> Vec<String> {
    fixed.iter().map(|flag| (*flag).to_owned()).collect()
}

pub(super) fn etcd_url(cluster: &Cluster) -> String {
    format!("http://127.0.0.1:{}", cluster.etcd_port())
}

pub(super) fn etcd(cluster: &Cluster) -> Vec<String> {
    let mut etcd = flags(&[
        // The data need not survive a crash of the machine.
        "--unsafe-no-fsync",
        // There is only one etcd, so nobody connects to this port. Any free port will do.
        "--listen-peer-urls=http://127.0.0.1:0",
        "--log-level=warn",
    ]);
    etcd.extend([
        flag("data-dir", cluster.file("etcd")),
        flag("listen-client-urls", etcd_url(cluster)),
        flag("advertise-client-urls", etcd_url(cluster)),
    ]);
    etcd
}

pub(super) fn api_server(cluster: &Cluster) -> Vec<String> {
    let mut server = flags(&[
        "--bind-address=127.0.0.1",
        // Without this flag, the API server derives its address from the default route, and there may be none. The value
        // does not matter, because nobody connects to the Endpoints of the API server's Service.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        "--authorization-mode=RBAC",
        // The default, a /24, is full after 254 Services.
        "--service-cluster-ip-range=10.0.0.0/16",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--allow-privileged=true",
        // The API server should not throttle the program under test. Only the program's own limits should slow it down.
        "--max-requests-inflight=4000",
        "--max-mutating-requests-inflight=2000",
    ]);
    server.extend([
        flag("etcd-servers", etcd_url(cluster)),
        flag("secure-port", cluster.api_port().to_string()),
        flag("client-ca-file", cluster.file("ca.crt")),
        flag("tls-cert-file", cluster.file("server.crt")),
        flag("tls-private-key-file", cluster.file("server.key")),
        flag("service-account-key-file", cluster.file("service-account.pub")),
        flag("service-account-signing-key-file", cluster.file("service-account.key")),
    ]);
    if let Some(log) = cluster.audit_log() {
        server.extend([
            flag("audit-policy-file", cluster.file("audit-policy.json")),
            flag("audit-log-path", log),
            // The size is in megabytes, and is more than a benchmark writes. If the file were rotated, the first
            // requests would not be counted.
            flag("audit-log-maxsize", "8000"),
        ]);
    }
    server
}

pub(super) fn controller_manager(cluster: &Cluster, identity: &Path) -> Vec<String> {
    let mut manager = flags(&[
        "--use-service-account-credentials",
        "--leader-elect=false",
        "--secure-port=0",
        // With more requests per second, namespaces that tests delete are gone sooner.
        "--kube-api-qps=500",
        "--kube-api-burst=1000",
    ]);
    manager.extend([
        flag("kubeconfig", identity),
        flag("service-account-private-key-file", cluster.file("service-account.key")),
        flag("root-ca-file", cluster.file("ca.crt")),
    ]);
    manager
}

pub(super) fn scheduler(identity: &Path) -> Vec<String> {
    let mut scheduler = flags(&["--leader-elect=false", "--secure-port=0"]);
    scheduler.push(flag("kubeconfig", identity));
    scheduler
}
