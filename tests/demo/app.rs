//! The small app of the demo.

pub(crate) const WEB: &str = r"# The web server; its password comes from a sealed Secret.
apiVersion: apps/v1
kind: Deployment
metadata:
  name: web
  labels: {app: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
        - name: web
          image: registry.example/web:1.0
          env:
            - name: DB_PASSWORD
              valueFrom: {secretKeyRef: {name: db, key: password}}
          volumeMounts: [{name: settings, mountPath: /etc/web}]
      volumes:
        - {name: settings, configMap: {name: settings, defaultMode: 0644}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

pub(crate) const SETTINGS: &str = r"apiVersion: v1
kind: ConfigMap
metadata:
  name: settings
data:
  colour: blue
";

/// A plaintext Secret, as people keep it on their own disk and never in Git.
pub(crate) fn secret(password: &str) -> String {
    format!(
        "# The database's account.\napiVersion: v1\nkind: Secret\nmetadata:\n  name: db\n  namespace: default\nstringData:\n  username: app\n  password: {password}\n"
    )
}

/// The Repository and the Sync of the app.
pub(crate) fn repository_and_sync(url: &str) -> [serde_json::Value; 2] {
    [
        serde_json::json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": "shop"},
            "spec": {"url": url, "ref": {"branch": "main"}, "interval": "1m"},
        }),
        serde_json::json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "shop"},
            // This control plane has no nodes, so no pod becomes ready. Therefore the demo does not wait for health.
            "spec": {"repository": {"name": "shop"}, "path": "./app", "wait": false},
        }),
    ]
}
