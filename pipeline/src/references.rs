//! Which Secrets and ConfigMaps an object uses. If one of the Secrets cannot be unsealed, the object is held back.

use std::collections::BTreeSet;

use manifests::Manifest;
use serde_json::{Map, Value};

/// Names of the objects that an object uses in its own namespace.
#[derive(Debug, Default, Eq, PartialEq)]
pub struct Uses {
    /// Secrets: through env, envFrom, volumes, imagePullSecrets, Ingress TLS or a ServiceAccount.
    pub secrets: BTreeSet<String>,
    /// ConfigMaps: through env, envFrom or volumes.
    pub config_maps: BTreeSet<String>,
}

/// Names of the Secrets that the object uses in its own namespace.
pub fn secrets_used(manifest: &Manifest) -> BTreeSet<String> {
    uses(manifest).secrets
}

/// Names of the Secrets and ConfigMaps that the object uses in its own namespace.
pub fn uses(manifest: &Manifest) -> Uses {
    let mut uses = Uses::default();
    let (body, names) = (&manifest.body, &mut uses.secrets);
    match (manifest.id.group.as_str(), manifest.id.kind.as_str()) {
        ("", "Pod") => pod_spec(body.get("spec"), &mut uses),
        ("", "ServiceAccount") => {
            named(body.get("secrets"), "name", names);
            named(body.get("imagePullSecrets"), "name", names);
        }
        ("networking.k8s.io", "Ingress") => {
            named(body.get("spec").and_then(|spec| spec.get("tls")), "secretName", names);
        }
        _ => {
            if let Some(template) = pod_template(body) {
                pod_spec(template.get("spec"), &mut uses);
            }
        }
    }
    uses
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

fn pod_spec(spec: Option<&Value>, uses: &mut Uses) {
    let Some(spec) = spec else { return };
    let Uses { secrets: names, config_maps } = uses;
    named(spec.get("imagePullSecrets"), "name", names);
    for list in ["containers", "initContainers", "ephemeralContainers"] {
        for container in items(spec.get(list)) {
            for source in items(container.get("envFrom")) {
                name(source.get("secretRef"), "name", names);
                name(source.get("configMapRef"), "name", config_maps);
            }
            for variable in items(container.get("env")) {
                let from = variable.get("valueFrom");
                name(from.and_then(|from| from.get("secretKeyRef")), "name", names);
                name(from.and_then(|from| from.get("configMapKeyRef")), "name", config_maps);
            }
        }
    }
    for volume in items(spec.get("volumes")) {
        name(volume.get("secret"), "secretName", names);
        name(volume.get("configMap"), "name", config_maps);
        for source in items(volume.get("projected").and_then(|projected| projected.get("sources"))) {
            name(source.get("secret"), "name", names);
            name(source.get("configMap"), "name", config_maps);
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
    fn every_way_a_workload_uses_a_secret_or_a_config_map() {
        let manifests = parse(
            "x.yaml",
            br"
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
          env:
            - {name: A, valueFrom: {secretKeyRef: {name: variable, key: k}}}
            - {name: B, value: plain}
            - {name: C, valueFrom: {configMapKeyRef: {name: one, key: k}}}
          envFrom: [{secretRef: {name: all}}, {configMapRef: {name: settings}}]
      volumes:
        - {name: v, secret: {secretName: volume}}
        - {name: m, configMap: {name: mounted}}
        - {name: p, projected: {sources: [{secret: {name: projected}}, {configMap: {name: mixed}}]}}
",
            &Limits::default(),
        );
        let Uses { secrets, config_maps } = uses(&manifests.unwrap()[0]);
        assert_eq!(Vec::from_iter(secrets), ["all", "init", "projected", "pull", "variable", "volume"]);
        assert_eq!(Vec::from_iter(config_maps), ["mixed", "mounted", "one", "settings"]);
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
