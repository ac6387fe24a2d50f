//! What the schemas of `gitseal lint` refuse, the API server refuses, too.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use futures::{StreamExt as _, stream};
use harness::{Scene, eventually, kubernetes};
use kube::{
    Api, Error,
    api::{DynamicObject, ListParams, Patch, PatchParams, ValidationDirective},
};
use manifests::{Limits, parse};
use schemas::{Checked, KubernetesVersion, Schemas, Severity};
use serde_json::{Value, json};

use crate::objects::apply_cluster_wide;

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
---
{apiVersion: v1, kind: Pod, metadata: {name: a}, spec: {restartPolicy: Always, hostAliases: [{ip: 10.0.0.1, hostnames: [a]}], dnsPolicy: \
ClusterFirst, containers: [{name: a, image: b, stdin: true, volumeDevices: [{name: w, devicePath: /w}], resources: {limits: {cpu: 1}}}], \
volumes: [{name: w, persistentVolumeClaim: {claimName: a, readOnly: true}}, {name: s, secret: {secretName: a, optional: true}}, {name: d, \
downwardAPI: {items: [{path: a, fieldRef: {fieldPath: metadata.name}}]}}]}}
---
{apiVersion: v1, kind: Secret, metadata: {name: a}, type: Opaque, data: {a: YQ==}, stringData: {b: c}, immutable: true}
---
{apiVersion: v1, kind: ReplicationController, metadata: {name: a}, spec: {replicas: 1, selector: {a: b}, template: {metadata: {labels: {a: \
b}}, spec: {containers: [{name: a, image: b}]}}}}
---
{apiVersion: v1, kind: PodTemplate, metadata: {name: a}, template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}
---
{apiVersion: v1, kind: Endpoints, metadata: {name: a}, subsets: [{addresses: [{ip: 10.1.2.3, hostname: a}], ports: [{name: http, port: 80, \
protocol: TCP}]}]}
---
{apiVersion: apps/v1, kind: ReplicaSet, metadata: {name: a}, spec: {replicas: 1, minReadySeconds: 5, selector: {matchLabels: {a: b}}, \
template: {metadata: {labels: {a: b}}, spec: {containers: [{name: a, image: b}]}}}}
---
{apiVersion: apps/v1, kind: ControllerRevision, metadata: {name: a}, revision: 3, data: {a: b}}
---
{apiVersion: storage.k8s.io/v1, kind: CSIStorageCapacity, metadata: {name: a}, storageClassName: fast, capacity: 1Gi, nodeTopology: \
{matchLabels: {a: b}}}
---
{apiVersion: resource.k8s.io/v1, kind: ResourceClaim, metadata: {name: a}, spec: {devices: {requests: [{name: a, exactly: {deviceClassName: \
b.example.org, allocationMode: ExactCount, count: 2}}]}}}
---
{apiVersion: resource.k8s.io/v1, kind: ResourceClaimTemplate, metadata: {name: a}, spec: {spec: {devices: {requests: [{name: a, exactly: \
{deviceClassName: b.example.org}}]}}}}
---
{apiVersion: resource.k8s.io/v1, kind: DeviceClass, metadata: {name: lint-a}, spec: {selectors: [{cel: {expression: 'device.driver == \
\"a.example.org\"'}}]}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: MutatingWebhookConfiguration, metadata: {name: lint-a}, webhooks: [{name: a.example.org, \
admissionReviewVersions: [v1], sideEffects: None, failurePolicy: Ignore, reinvocationPolicy: Never, matchPolicy: Exact, clientConfig: {url: \
'https://a.example.org/b'}, rules: [{apiGroups: [''], apiVersions: [v1], operations: [CREATE], resources: [pods]}], namespaceSelector: \
{matchLabels: {a: b}}, matchConditions: [{name: a, expression: 'true'}]}]}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicy, metadata: {name: lint-a}, spec: {failurePolicy: Ignore, \
matchConstraints: {resourceRules: [{apiGroups: [apps], apiVersions: [v1], operations: [CREATE], resources: [deployments]}]}, validations: \
[{expression: 'object.spec.replicas < 5', message: a, reason: Invalid}], variables: [{name: a, expression: 'true'}], auditAnnotations: [{key: \
a, valueExpression: \"'a'\"}]}}
---
{apiVersion: admissionregistration.k8s.io/v1, kind: ValidatingAdmissionPolicyBinding, metadata: {name: lint-a}, spec: {policyName: lint-a, \
validationActions: [Warn], matchResources: {namespaceSelector: {matchLabels: {a: b}}}}}
---
{apiVersion: apiregistration.k8s.io/v1, kind: APIService, metadata: {name: lint-a.example.org}, spec: {group: example.org, version: lint-a, \
groupPriorityMinimum: 100, versionPriority: 10, insecureSkipTLSVerify: true, service: {name: a, namespace: b, port: 443}}}
---
{apiVersion: node.k8s.io/v1, kind: RuntimeClass, metadata: {name: lint-a}, handler: a, overhead: {podFixed: {memory: 1Gi}}, scheduling: \
{nodeSelector: {a: b}, tolerations: [{key: a, operator: Exists}]}}
---
{apiVersion: storage.k8s.io/v1, kind: CSIDriver, metadata: {name: lint-a.example.org}, spec: {attachRequired: false, podInfoOnMount: true, \
fsGroupPolicy: File, volumeLifecycleModes: [Persistent], tokenRequests: [{audience: a, expirationSeconds: 3600}]}}
---
{apiVersion: storage.k8s.io/v1, kind: VolumeAttributesClass, metadata: {name: lint-a}, driverName: a.example.org, parameters: {a: b}}
---
{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: FlowSchema, metadata: {name: lint-a}, spec: {matchingPrecedence: 1000, \
priorityLevelConfiguration: {name: global-default}, distinguisherMethod: {type: ByUser}, rules: [{subjects: [{kind: User, user: {name: a}}], \
resourceRules: [{verbs: [get], apiGroups: [''], resources: [pods], namespaces: [a]}]}]}}
---
{apiVersion: flowcontrol.apiserver.k8s.io/v1, kind: PriorityLevelConfiguration, metadata: {name: lint-a}, spec: {type: Limited, limited: \
{nominalConcurrencyShares: 5, limitResponse: {type: Queue, queuing: {queues: 8, handSize: 2, queueLengthLimit: 5}}}}}
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

/// A dry run of an apply, as strict as that of the controller.
fn how() -> PatchParams {
    PatchParams {
        dry_run: true,
        force: true,
        field_manager: Some("lint".into()),
        field_validation: Some(ValidationDirective::Strict),
    }
}

/// What the schemas and the API server say of many objects.
#[derive(Default)]
struct Compared {
    /// How many objects both refuse.
    both: usize,
    /// Objects that only the schemas refuse.
    only_schemas: Vec<String>,
    /// Objects that only the API server refuses.
    only_server: Vec<String>,
}

impl Compared {
    /// Compares the variants of an object, which both must accept as it is.
    async fn variants_of(&mut self, scene: &Scene, schemas: &mut Schemas, object: &Value) -> Result<()> {
        let how = how();
        let part = |part: &str| object[part].as_str().context("apiVersion and kind");
        let (kind, name) = (part("kind")?, object["metadata"]["name"].as_str().context("a name")?);
        ensure!(problems(schemas, object)?.is_empty(), "{kind}: {:?}", problems(schemas, object)?);
        let resource = kubernetes::resource(part("apiVersion")?, kind);
        let api: Api<DynamicObject> = if name.starts_with("lint") {
            Api::all_with(scene.client.clone(), &resource)
        } else {
            Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource)
        };
        api.patch(name, &how, &Patch::Apply(object)).await.with_context(|| kind.to_owned())?;
        let variants = variants(object);
        let answers = stream::iter(&variants).map(|(what, variant)| {
            let (api, how) = (&api, &how);
            async move { (what, variant, api.patch(name, how, &Patch::Apply(variant)).await) }
        });
        let answers: Vec<_> = answers.buffer_unordered(8).collect().await;
        for (what, variant, answer) in answers {
            let found = problems(schemas, variant)?;
            let refused = match answer {
                Ok(_) => None,
                // The API server answers with status 500 if an object in a server-side apply has an unknown field or a
                // wrong type.
                Err(Error::Api(status)) if matches!(status.code, 400 | 422 | 500) => Some(status.message),
                Err(error) => return Err(error.into()),
            };
            match (found.is_empty(), refused) {
                (true, None) => {}
                (false, Some(_)) => self.both += 1,
                // The API server stores another number: it keeps only 32 bits.
                (false, None) if what.ends_with(" large") && found[0].contains("larger than 2147483647") => {}
                (false, None) => self.only_schemas.push(format!("{kind} {what}: {}", found.join(", "))),
                (true, Some(why)) => self.only_server.push(format!("{kind} {what}: {why}")),
            }
        }
        Ok(())
    }
}

/// Which of these lines have one of these texts.
fn with<'l>(lines: &'l [String], texts: &[&str]) -> Vec<&'l str> {
    lines.iter().map(String::as_str).filter(|line| texts.iter().any(|text| line.contains(text))).collect()
}

#[tokio::test]
async fn what_the_schemas_refuse_the_api_server_refuses_too() -> Result<()> {
    let scene = Scene::new("lint").await?;
    let version: KubernetesVersion = scene.client.apiserver_version().await?.git_version.parse()?;
    let (mut compared, mut schemas) = (Compared::default(), Schemas::new(version));
    let objects = parse("objects.yaml", OBJECTS.as_bytes(), &Limits::default())?;
    ensure!(objects.len() >= 45, "{} kinds", objects.len());
    for manifest in objects {
        compared.variants_of(&scene, &mut schemas, &Value::Object(manifest.body)).await?;
    }
    let Compared { both, only_schemas, only_server } = compared;
    let wrong = only_schemas.join("\n");
    ensure!(wrong.is_empty(), "{} that the API server accepts:\n{wrong}", only_schemas.len());
    let of_types = [
        "field not declared in schema",
        "unknown field \"",
        "cannot unmarshal",
        ": expected string, got",
        ": expected numeric",
        ": expected boolean",
        ": expected list",
        ": expected map",
    ];
    let only_types = with(&only_server, &of_types);
    ensure!(only_types.is_empty(), "types that only the API server checks:\n{}", only_types.join("\n"));
    ensure!(both > 1500, "only {both} variants were refused by both, {} by the API server alone", only_server.len());
    Ok(())
}

/// A CustomResourceDefinition with everything that lint checks in a schema.
const DEFINITION: &str = "
apiVersion: apiextensions.k8s.io/v1
kind: CustomResourceDefinition
metadata: {name: plans.lint.example.org}
spec:
  group: lint.example.org
  scope: Namespaced
  names: {kind: Plan, plural: plans, singular: plan}
  versions:
  - name: v1
    served: true
    storage: true
    subresources: {status: {}}
    schema:
      openAPIV3Schema:
        type: object
        required: [spec]
        properties:
          spec:
            type: object
            required: [name, size]
            properties:
              name: {type: string, minLength: 2, maxLength: 5, pattern: '^[a-z]+$'}
              size: {type: integer, minimum: 1, maximum: 9}
              ratio: {type: number, exclusiveMinimum: true, minimum: 0}
              small: {type: integer, format: int32}
              step: {type: integer, multipleOf: 5}
              tier: {type: string, enum: [front, back]}
              enabled: {type: boolean}
              port: {x-kubernetes-int-or-string: true}
              note: {type: string, nullable: true}
              tags: {type: array, minItems: 1, maxItems: 3, items: {type: string, minLength: 1}}
              parts:
                type: array
                items:
                  type: object
                  required: [id]
                  properties: {id: {type: string}, weight: {type: integer}}
              labels: {type: object, maxProperties: 3, additionalProperties: {type: string}}
              free: {type: object, x-kubernetes-preserve-unknown-fields: true}
              one:
                type: object
                properties: {a: {type: string}, b: {type: string}}
                oneOf: [{required: [a]}, {required: [b]}]
          status: {type: object, properties: {done: {type: boolean}}}
";

#[tokio::test]
async fn custom_resources_are_refused_as_the_api_server_refuses_them() -> Result<()> {
    let scene = Scene::new("lint-custom").await?;
    let version: KubernetesVersion = scene.client.apiserver_version().await?.git_version.parse()?;
    let [definition] = parse("crd.yaml", DEFINITION.as_bytes(), &Limits::default())?.try_into().ok().context("one")?;
    let mut schemas = Schemas::new(version);
    schemas.add(&definition)?;
    apply_cluster_wide(&scene.client, Value::Object(definition.body)).await?;
    let plan = json!({"apiVersion": "lint.example.org/v1", "kind": "Plan", "metadata": {"name": "a", "labels": {"a": "b"}}, "spec": {
        "name": "abc", "size": 3, "ratio": 0.5, "small": 4, "step": 10, "tier": "front", "enabled": true, "port": "http", "note": "a",
        "tags": ["a", "b"], "parts": [{"id": "a", "weight": 1}, {"id": "b"}], "labels": {"a": "b"}, "free": {"a": {"b": [1, "c"]}},
        "one": {"a": "b"},
    }});
    let resource = kubernetes::resource("lint.example.org/v1", "Plan");
    let api: Api<DynamicObject> = Api::namespaced_with(scene.client.clone(), &scene.namespace, &resource);
    eventually("the kind to be served", || async { Ok(api.list(&ListParams::default()).await.map(drop)?) }).await?;
    let mut compared = Compared::default();
    compared.variants_of(&scene, &mut schemas, &plan).await?;
    // Values that have the right type, and that a rule of the schema forbids or allows.
    let with = |field: &str, value: Value| {
        let mut other = plan.clone();
        other["spec"][field] = value;
        other
    };
    for (field, value, is_allowed) in [
        ("name", json!("ab"), true),
        ("name", json!("a"), false),
        ("name", json!("abcdef"), false),
        ("name", json!("aBc"), false),
        ("size", json!(9), true),
        ("size", json!(0), false),
        ("size", json!(10), false),
        ("size", json!(3.0), true),
        ("ratio", json!(0), false),
        ("ratio", json!(7), true),
        ("step", json!(7), false),
        ("tier", json!("side"), false),
        ("port", json!(80), true),
        ("note", Value::Null, true),
        ("tags", json!([]), false),
        ("tags", json!(["a", "b", "c", "d"]), false),
        ("tags", json!(["a", ""]), false),
        ("parts", json!([{"weight": 1}]), false),
        ("labels", json!({"a": "b", "c": "d", "e": "f", "g": "h"}), false),
        ("free", json!({"anything": [{"is": "allowed"}]}), true),
        ("one", json!({"a": "b", "b": "c"}), false),
        ("one", json!({}), false),
        ("gone", json!("a"), false),
    ] {
        let object = with(field, value.clone());
        let found = problems(&mut schemas, &object)?;
        ensure!(found.is_empty() == is_allowed, "{field}: {value}: {found:?}");
        let answer = api.patch("a", &how(), &Patch::Apply(&object)).await;
        ensure!(answer.is_ok() == is_allowed, "{field}: {value}: the API server says {answer:?}");
    }
    let Compared { both, only_schemas, only_server } = compared;
    ensure!(only_schemas.is_empty(), "the API server accepts:\n{}", only_schemas.join("\n"));
    ensure!(only_server.is_empty(), "only the API server refuses:\n{}", only_server.join("\n"));
    ensure!(both > 100, "only {both} variants were refused");
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
