//! Which Secrets an object uses. If one of them cannot be unsealed, the object is held back.

use std::collections::BTreeSet;

use manifests::Manifest;
use serde_json::{Map, Value};

/// Names of the Secrets that the object uses in its own namespace: through env, envFrom, volumes, imagePullSecrets,
/// Ingress TLS or a ServiceAccount.
pub fn secrets_used(manifest: &Manifest) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    let body = &manifest.body;
    match (manifest.id.group.as_str(), manifest.id.kind.as_str()) {
        ("", "Pod") => pod_spec(body.get("spec"), &mut names),
        ("", "ServiceAccount") => {
            named(body.get("secrets"), "name", &mut names);
            named(body.get("imagePullSecrets"), "name", &mut names);
        }
        ("networking.k8s.io", "Ingress") => {
            named(body.get("spec").and_then(|spec| spec.get("tls")), "secretName", &mut names);
        }
        _ => {
            if let Some(template) = pod_template(body) {
                pod_spec(template.get("spec"), &mut names);
            }
        }
    }
    names
}

/// The Pod template of a workload, also of a kind that gitseal does not know (`spec.template.spec.containers`).
pub fn pod_template(body: &Map<String, Value>) -> Option<&Value> {
    let spec = body.get("spec")?;
    let template = match spec.get("jobTemplate") {
        Some(job) => job.get("spec")?.get("template")?,
        None => spec.get("template")?,
    };
    template.get("spec")?.get("containers").map(|_| template)
}

fn pod_spec(spec: Option<&Value>, names: &mut BTreeSet<String>) {
    let Some(spec) = spec else { return };
    named(spec.get("imagePullSecrets"), "name", names);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec.get(list)) {
            for source in items(container.get("envFrom")) {
                name(source.get("secretRef"), "name", names);
            }
            for variable in items(container.get("env")) {
                name(variable.get("valueFrom").and_then(|from| from.get("secretKeyRef")), "name", names);
            }
        }
    }
    for volume in items(spec.get("volumes")) {
        name(volume.get("secret"), "secretName", names);
        for source in items(volume.get("projected").and_then(|projected| projected.get("sources"))) {
            name(source.get("secret"), "name", names);
        }
        name(volume.get("csi").and_then(|csi| csi.get("nodePublishSecretRef")), "name", names);
    }
}

fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    list.and_then(Value::as_array).into_iter().flatten()
}

fn named(list: Option<&Value>, key: &str, names: &mut BTreeSet<String>) {
    for item in items(list) {
        name(Some(item), key, names);
    }
}

fn name(object: Option<&Value>, key: &str, names: &mut BTreeSet<String>) {
    if let Some(name) = object.and_then(|object| object.get(key)).and_then(Value::as_str) {
        names.insert(name.to_owned());
    }
}

#[cfg(test)]
mod tests {
    use manifests::{Limits, parse};

    use super::*;

    fn used(yaml: &str) -> Vec<String> {
        let manifests = parse("x.yaml", yaml.as_bytes(), &Limits::default()).unwrap();
        secrets_used(&manifests[0]).into_iter().collect()
    }

    #[test]
    fn every_way_a_workload_uses_a_secret() {
        let names = used(
            r"
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  template:
    spec:
      imagePullSecrets: [{name: pull}]
      initContainers:
        - {name: i, envFrom: [{secretRef: {name: init}}]}
      containers:
        - name: c
          env: [{name: A, valueFrom: {secretKeyRef: {name: variable, key: k}}}, {name: B, value: plain}]
          envFrom: [{secretRef: {name: all}}, {configMapRef: {name: settings}}]
      volumes:
        - {name: v, secret: {secretName: volume}}
        - {name: p, projected: {sources: [{secret: {name: projected}}, {configMap: {name: settings}}]}}
",
        );
        assert_eq!(names, ["all", "init", "projected", "pull", "variable", "volume"]);
    }

    #[test]
    fn cron_jobs_ingresses_and_service_accounts() {
        let cron = "{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {jobTemplate: {spec: {template: {spec: {containers: [{envFrom: [{secretRef: {name: s}}]}]}}}}}}";
        assert_eq!(used(cron), ["s"]);
        let ingress =
            "{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a}, spec: {tls: [{secretName: cert}]}}";
        assert_eq!(used(ingress), ["cert"]);
        let account = "{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}, imagePullSecrets: [{name: pull}]}";
        assert_eq!(used(account), ["pull"]);
        assert!(used("{apiVersion: v1, kind: ConfigMap, metadata: {name: a}, data: {secretName: no}}").is_empty());
    }
}
