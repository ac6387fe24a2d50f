//! The objects of one Sync.

use serde_json::{Value, json};

/// A Deployment without replicas, a Service and two ConfigMaps.
pub(crate) fn objects(namespace: &str, app: usize, note: &str) -> Vec<Value> {
    let name = format!("app-{app}");
    let labels = json!({"app.kubernetes.io/name": name});
    vec![
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {
                "replicas": 0,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {"containers": [{
                        "name": "web", "image": "registry.example/web:1.0",
                        "ports": [{"containerPort": 8080}],
                        "envFrom": [{"configMapRef": {"name": format!("{name}-settings")}}],
                        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
                    }]},
                },
            },
        }),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace, "labels": labels},
            "spec": {"selector": labels, "ports": [{"port": 80, "targetPort": 8080}]},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("{name}-settings"), "namespace": namespace, "labels": labels},
            "data": {"LOG_LEVEL": "info", "NOTE": note},
        }),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {"name": format!("{name}-files"), "namespace": namespace, "labels": labels},
            "data": {"app.conf": "listen = 8080\nworkers = 4\ntimeout = 30\n"},
        }),
    ]
}

/// The file that holds the objects in Git.
pub(crate) fn file(namespace: &str, app: usize, note: &str) -> String {
    objects(namespace, app, note).iter().map(|object| format!("---\n{object}\n")).collect()
}

/// The folder of an app.
pub(crate) fn folder(app: usize) -> String {
    format!("apps/app-{app}")
}
