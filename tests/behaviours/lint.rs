//! What the schemas of `gitseal lint` refuse, the API server refuses, too.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use harness::{Scene, kubernetes};
use kube::{
    Api, Error,
    api::{DynamicObject, Patch, PatchParams, ValidationDirective},
};
use manifests::{Limits, parse};
use schemas::{Checked, KubernetesVersion, Schemas, Severity};
use serde_json::{Value, json};

/// One object of each kind whose schema the test checks, with many fields.
const OBJECTS: &str = "
{apiVersion: v1, kind: ConfigMap, metadata: {name: a, labels: {a: b}, annotations: {c: d}}, data: {a: b}, immutable: false}
---
{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {type: ClusterIP, selector: {a: b}, ports: [{name: http, port: 80, \
targetPort: http, protocol: TCP}, {name: two, port: 81, targetPort: 8081}], sessionAffinity: None}}
---
{apiVersion: v1, kind: ServiceAccount, metadata: {name: a}, automountServiceAccountToken: false, imagePullSecrets: [{name: b}]}
---
{apiVersion: v1, kind: PersistentVolumeClaim, metadata: {name: a}, spec: {accessModes: [ReadWriteOnce], resources: {requests: \
{storage: 1Gi}}, storageClassName: fast}}
---
{apiVersion: v1, kind: ResourceQuota, metadata: {name: a}, spec: {hard: {pods: 5}, scopes: [BestEffort]}}
---
{apiVersion: v1, kind: LimitRange, metadata: {name: a}, spec: {limits: [{type: Container, default: {cpu: 1}, max: {cpu: 2}}]}}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: a}
spec:
  replicas: 2
  revisionHistoryLimit: 3
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 1, maxUnavailable: 25%}}
  selector: {matchLabels: {a: b}, matchExpressions: [{key: a, operator: In, values: [b]}]}
  template:
    metadata: {labels: {a: b}, annotations: {c: d}}
    spec:
      serviceAccountName: a
      terminationGracePeriodSeconds: 5
      securityContext: {runAsNonRoot: true, runAsUser: 1000, fsGroup: 1000, seccompProfile: {type: RuntimeDefault}}
      nodeSelector: {a: b}
      tolerations: [{key: a, operator: Exists, effect: NoSchedule}]
      affinity: {podAntiAffinity: {requiredDuringSchedulingIgnoredDuringExecution: [{topologyKey: a, labelSelector: {matchLabels: {a: b}}}]}}
      topologySpreadConstraints: [{maxSkew: 1, topologyKey: a, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {a: b}}}]
      imagePullSecrets: [{name: b}]
      initContainers: [{name: init, image: c, command: [a], args: [b]}]
      containers:
      - name: a
        image: b
        imagePullPolicy: Always
        ports: [{name: http, containerPort: 80, protocol: TCP}]
        env: [{name: A, value: '1'}, {name: B, valueFrom: {secretKeyRef: {name: a, key: b, optional: true}}}]
        envFrom: [{prefix: a, configMapRef: {name: a}}]
        resources: {requests: {cpu: 100m, memory: 1Gi}, limits: {cpu: 1, memory: 2Gi}}
        livenessProbe: {httpGet: {path: /, port: http, scheme: HTTP}, periodSeconds: 5}
        readinessProbe: {tcpSocket: {port: 80}}
        lifecycle: {preStop: {exec: {command: [a]}}}
        securityContext: {allowPrivilegeEscalation: false, capabilities: {drop: [ALL]}}
        volumeMounts: [{name: v, mountPath: /v, readOnly: true, subPath: a}]
      volumes:
      - {name: v, configMap: {name: a, defaultMode: 420, items: [{key: a, path: b, mode: 256}]}}
      - {name: w, emptyDir: {sizeLimit: 1Gi}}
      - {name: x, projected: {sources: [{serviceAccountToken: {path: a, expirationSeconds: 3600}}]}}
---
{apiVersion: apps/v1, kind: StatefulSet, metadata: {name: a}, spec: {serviceName: a, replicas: 1, podManagementPolicy: Parallel, \
selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}, \
volumeClaimTemplates: [{metadata: {name: data}, spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 1Gi}}}}]}}
---
{apiVersion: apps/v1, kind: DaemonSet, metadata: {name: a}, spec: {selector: {matchLabels: {a: b}}, template: {metadata: {labels: {a: \
b}}, spec: {hostNetwork: true, containers: [{name: a, image: b}]}}, updateStrategy: {type: OnDelete}}}
---
{apiVersion: batch/v1, kind: Job, metadata: {name: a}, spec: {backoffLimit: 1, completions: 1, parallelism: 1, template: {spec: \
{restartPolicy: Never, containers: [{name: a, image: b}]}}, ttlSecondsAfterFinished: 60}}
---
{apiVersion: batch/v1, kind: CronJob, metadata: {name: a}, spec: {schedule: '0 1 * * *', suspend: false, concurrencyPolicy: Forbid, \
jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: a, image: b}]}}}}}}
---
{apiVersion: networking.k8s.io/v1, kind: Ingress, metadata: {name: a}, spec: {ingressClassName: a, tls: [{hosts: [a.example.org], \
secretName: b}], rules: [{host: a.example.org, http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: a, port: {number: \
80}}}}]}}]}}
---
{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {matchLabels: {a: b}}, policyTypes: \
[Ingress], ingress: [{from: [{namespaceSelector: {}}, {ipBlock: {cidr: 10.0.0.0/8, except: [10.1.0.0/16]}}], ports: [{port: 80, \
protocol: TCP}]}]}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: Role, metadata: {name: a}, rules: [{apiGroups: [''], resources: [pods], verbs: [get], \
resourceNames: [a]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: RoleBinding, metadata: {name: a}, roleRef: {apiGroup: rbac.authorization.k8s.io, kind: \
Role, name: a}, subjects: [{kind: ServiceAccount, name: a, namespace: b}]}
---
{apiVersion: policy/v1, kind: PodDisruptionBudget, metadata: {name: a}, spec: {minAvailable: 50%, selector: {matchLabels: {a: b}}}}
---
{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: a}, spec: {minReplicas: 1, maxReplicas: 3, scaleTargetRef: \
{apiVersion: apps/v1, kind: Deployment, name: a}, metrics: [{type: Resource, resource: {name: cpu, target: {type: Utilization, \
averageUtilization: 50}}}], behavior: {scaleDown: {stabilizationWindowSeconds: 60}}}}
---
{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {name: a}, spec: {holderIdentity: a, leaseDurationSeconds: 15}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a}, addressType: IPv4, endpoints: [{addresses: [10.1.2.3], \
conditions: {ready: true}}], ports: [{name: http, port: 80, protocol: TCP}]}
---
{apiVersion: v1, kind: Namespace, metadata: {name: lint-a, labels: {a: b}}, spec: {finalizers: [kubernetes]}}
---
{apiVersion: v1, kind: PersistentVolume, metadata: {name: lint-a}, spec: {capacity: {storage: 1Gi}, accessModes: [ReadWriteOnce], \
hostPath: {path: /a, type: Directory}, persistentVolumeReclaimPolicy: Retain}}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRole, metadata: {name: lint-a}, aggregationRule: {clusterRoleSelectors: \
[{matchLabels: {a: b}}]}, rules: [{apiGroups: [''], resources: [pods], verbs: [get]}, {nonResourceURLs: [/a], verbs: [get]}]}
---
{apiVersion: rbac.authorization.k8s.io/v1, kind: ClusterRoleBinding, metadata: {name: lint-a}, roleRef: {apiGroup: \
rbac.authorization.k8s.io, kind: ClusterRole, name: a}, subjects: [{apiGroup: rbac.authorization.k8s.io, kind: User, name: a}]}
---
{apiVersion: storage.k8s.io/v1, kind: StorageClass, metadata: {name: lint-a}, provisioner: a.example.org, parameters: {a: b}, \
allowVolumeExpansion: true, mountOptions: [a], volumeBindingMode: Immediate}
---
{apiVersion: scheduling.k8s.io/v1, kind: PriorityClass, metadata: {name: lint-a}, value: 10, globalDefault: false, description: a}
---
{apiVersion: networking.k8s.io/v1, kind: IngressClass, metadata: {name: lint-a}, spec: {controller: a.example.org/b, parameters: \
{apiGroup: a.example.org, kind: A, name: a, scope: Cluster}}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingWebhookConfiguration, metadata: {name: lint-a}, webhooks: [{name: \
a.example.org, admissionReviewVersions: [v1], sideEffects: None, failurePolicy: Ignore, timeoutSeconds: 5, clientConfig: {service: \
{name: a, namespace: b, path: /a, port: 443}}, rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods], \
scope: Namespaced}], objectSelector: {matchLabels: {a: b}}}]}
---
{apiVersion: apiextensions.k8s.io/v1, kind: CustomResourceDefinition, metadata: {name: lints.a.example.org}, spec: {group: \
a.example.org, scope: Namespaced, names: {kind: Lint, plural: lints, singular: lint, shortNames: [l]}, versions: [{name: v1, served: \
true, storage: true, additionalPrinterColumns: [{name: A, type: string, jsonPath: .spec.a}], schema: {openAPIV3Schema: {type: object, \
properties: {spec: {type: object, properties: {a: {type: string, default: b, enum: [b, c]}, d: {type: integer, minimum: 1}}}}}}}]}}
";

/// Copies of `object` that each differ from it in one place: a field has another name, a field is missing, or a value
/// has another type.
fn variants(object: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    let mut open = vec![String::new()];
    while let Some(place) = open.pop() {
        let at = object.pointer(&place).expect("a place of the object");
        let names: Vec<String> = match at {
            Value::Object(fields) => fields.keys().map(|name| name.replace('~', "~0").replace('/', "~1")).collect(),
            Value::Array(items) => (0..items.len()).map(|index| index.to_string()).collect(),
            _ => Vec::new(),
        };
        for name in names {
            let inner = format!("{place}/{name}");
            if matches!(inner.as_str(), "/apiVersion" | "/kind" | "/metadata" | "/metadata/name") {
                continue;
            }
            let mut changed = |what: &str, change: &dyn Fn(&mut Value)| {
                let mut other = object.clone();
                change(&mut other);
                found.insert(format!("{inner} {what}"), other);
            };
            if at.is_object() {
                let without = |other: &mut Value| {
                    let fields = other.pointer_mut(&place).and_then(Value::as_object_mut).expect("a mapping");
                    fields.shift_remove(&name)
                };
                changed("left out", &|other| drop(without(other)));
                changed("misspelt", &|other| {
                    let value = without(other).unwrap_or_default();
                    other
                        .pointer_mut(&place)
                        .and_then(Value::as_object_mut)
                        .expect("a mapping")
                        .insert(format!("{name}X"), value);
                });
            }
            let others =
                [("text", json!("7x")), ("number", json!(7)), ("fraction", json!(1.5)), ("large", json!(1_i64 << 40))];
            let more =
                [("truth", json!(true)), ("list", json!(["a"])), ("mapping", json!({"a": "b"})), ("null", Value::Null)];
            for (what, value) in others.into_iter().chain(more) {
                changed(what, &|other| *other.pointer_mut(&inner).expect("a field") = value.clone());
            }
            open.push(inner);
        }
    }
    found
}

fn problems(schemas: &mut Schemas, object: &Value) -> Result<Vec<String>> {
    let [manifest] =
        parse("a.json", object.to_string().as_bytes(), &Limits::default())?.try_into().ok().context("one object")?;
    let Checked::Problems(problems) = schemas.check(&manifest) else { anyhow::bail!("no schema") };
    let errors = problems.into_iter().filter(|problem| problem.severity == Severity::Error);
    Ok(errors.map(|problem| format!("{:?} {}: {}", problem.check, problem.field, problem.message)).collect())
}

#[tokio::test]
async fn what_the_schemas_refuse_the_api_server_refuses_too() -> Result<()> {
    let scene = Scene::new("lint").await?;
    let version = scene.client.apiserver_version().await?;
    let version: KubernetesVersion = version.git_version.parse()?;
    let how = PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some("lint".into()),
        field_validation: Some(ValidationDirective::Strict),
    };
    let (mut both, mut only_server, mut only_types) = (0, 0, Vec::new());
    let mut wrong = Vec::new();
    for manifest in parse("objects.yaml", OBJECTS.as_bytes(), &Limits::default())? {
        let object = Value::Object(manifest.body.clone());
        let mut schemas = Schemas::new(version);
        ensure!(problems(&mut schemas, &object)?.is_empty(), "{}: {:?}", manifest.id, problems(&mut schemas, &object)?);
        let name = manifest.id.name.as_str();
        let resource = kubernetes::resource(&manifest.api_version(), &manifest.id.kind);
        let api: Api<DynamicObject> = if name.starts_with("lint") {
            Api::all_with(scene.client.clone(), &resource)
        } else {
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource)
        };
        api.patch(name, &how, &Patch::Apply(&object)).await.with_context(|| manifest.id.to_string())?;
        let variants = variants(&object);
        let answers = stream::iter(&variants).map(|(what, variant)| {
            let (api, how) = (&api, &how);
            async move { (what, variant, api.patch(name, how, &Patch::Apply(variant)).await) }
        });
        let answers: Vec<_> = answers.buffer_unordered(8).collect().await;
        for (what, variant, answer) in answers {
            let found = problems(&mut schemas, variant)?;
            let refused = match answer {
                Ok(_) => None,
                // The API server answers with status 500 if an object in a server-side apply has an unknown field or a
                // wrong type.
                Err(Error::Api(status)) if matches!(status.code, 400 | 422 | 500) => Some(status.message),
                Err(error) => return Err(error.into()),
            };
            match (found.is_empty(), refused) {
                (true, None) => {}
                (false, Some(_)) => both += 1,
                // The API server stores another number: it keeps only 32 bits.
                (false, None) if what.ends_with(" large") && found[0].contains("larger than 2147483647") => {}
                (false, None) => wrong.push(format!("{} {what}: {}", manifest.id.kind, found.join(", "))),
                (true, Some(why)) => {
                    only_server += 1;
                    let is_of_types = [
                        "field not declared in schema",
                        "unknown field \"",
                        "cannot unmarshal",
                        ": expected string, got",
                        ": expected numeric",
                        ": expected boolean",
                        ": expected list",
                        ": expected map",
                    ];
                    if is_of_types.iter().any(|words| why.contains(words)) {
                        only_types.push(format!("{} {what}: {why}", manifest.id.kind));
                    }
                }
            }
        }
    }
    ensure!(wrong.is_empty(), "{} that the API server accepts:\n{}", wrong.len(), wrong.join("\n"));
    ensure!(
        only_types.is_empty(),
        "{} types that only the API server checks:\n{}",
        only_types.len(),
        only_types.join("\n")
    );
    ensure!(both > 1000, "only {both} variants were refused by both, {only_server} by the API server alone");
    Ok(())
}

/// The kinds that the API server lists at `path`, and whether each of them is namespaced.
async fn served(scene: &Scene, path: &str) -> Result<Vec<(String, bool)>> {
    let request = http::Request::get(path).body(Vec::new())?;
    let list: Value = scene.client.request(request).await?;
    let resources = list["resources"].as_array().context("a list of resources")?.iter();
    let kinds = resources.filter(|resource| !resource["name"].as_str().is_some_and(|name| name.contains('/')));
    let kinds = kinds.map(|resource| Some((resource["kind"].as_str()?.to_owned(), resource["namespaced"].as_bool()?)));
    kinds.collect::<Option<_>>().context("a kind and its scope")
}

#[tokio::test]
async fn the_scopes_of_kinds_are_those_of_the_api_server() -> Result<()> {
    let scene = Scene::new("lint-scopes").await?;
    let groups: Value = scene.client.request(http::Request::get("/apis").body(Vec::new())?).await?;
    let mut paths = vec![(String::new(), "/api/v1".to_owned())];
    for group in groups["groups"].as_array().context("groups")? {
        let name = group["name"].as_str().context("a group")?;
        for version in group["versions"].as_array().context("versions")? {
            let version = version["groupVersion"].as_str().context("a version")?;
            paths.push((name.to_owned(), format!("/apis/{version}")));
        }
    }
    let mut seen = 0;
    for (group, path) in paths {
        for (kind, namespaced) in served(&scene, &path).await? {
            if let Some(known) = schemas::is_namespaced(&group, &kind) {
                ensure!(known == namespaced, "{path} {kind}: the API server says {namespaced}");
                seen += 1;
            }
        }
    }
    ensure!(seen > 50, "only {seen} kinds are known");
    Ok(())
}
