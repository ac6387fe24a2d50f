//! Objects of common operators: the Sync that has them is Ready when their operator says that they are healthy, and otherwise
//! says what the operator says. Their kinds are defined here with nothing but a status, and the test writes each status as
//! the operator would.

use anyhow::{Context as _, Result};
use crds::ConditionStatus;
use harness::{Plane, Scene, git::ServerOptions, kubernetes};
use kube::api::{Patch, PatchParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::objects::define;

/// What the Sync says of an object with a status.
#[derive(Clone, Copy, Debug)]
enum Says {
    Ready,
    /// `WaitingForHealth`, with this text.
    Waits(&'static str),
    /// `HealthCheckFailed`, with this text.
    Failed(&'static str),
}

/// An object, and what its operator writes into its status, one after the other.
struct Case {
    group: &'static str,
    kind: &'static str,
    spec: Value,
    statuses: Vec<(Value, Says)>,
}

fn conditions(all: &[(&str, &str, &str, &str)]) -> Value {
    let all = all.iter().map(|(kind, status, reason, message)| {
        json!({"type": kind, "status": status, "reason": reason, "message": message, "observedGeneration": 1})
    });
    json!({"conditions": all.collect::<Vec<_>>()})
}

fn with(mut status: Value, more: &Value) -> Value {
    if let (Some(status), Some(more)) = (status.as_object_mut(), more.as_object()) {
        status.extend(more.clone());
    }
    status
}

fn case(group: &'static str, kind: &'static str, spec: Value, statuses: Vec<(Value, Says)>) -> Case {
    Case { group, kind, spec, statuses }
}

fn cases() -> Vec<Case> {
    use Says::{Failed, Ready, Waits};
    let managed = |ready: &str, why: &str, synced: &str, error: &str| {
        let reason = if synced == "True" { "ReconcileSuccess" } else { "ReconcileError" };
        conditions(&[("Ready", ready, why, ""), ("Synced", synced, reason, error)])
    };
    let of_crossplane = || {
        vec![
            (managed("False", "Creating", "True", ""), Waits("Creating")),
            (managed("False", "Creating", "False", "cannot assume the role"), Waits("cannot assume the role")),
            (managed("True", "Available", "True", ""), Ready),
        ]
    };
    vec![
        case(
            "cert-manager.io",
            "Certificate",
            json!({"secretName": "tls", "dnsNames": ["a.example.org"]}),
            vec![
                (
                    conditions(&[
                        ("Issuing", "True", "DoesNotExist", "Issuing certificate as Secret does not exist"),
                        ("Ready", "False", "DoesNotExist", "Issuing certificate as Secret does not exist"),
                    ]),
                    Waits("DoesNotExist: Issuing certificate as Secret does not exist"),
                ),
                (
                    conditions(&[
                        ("Ready", "False", "DoesNotExist", "Secret tls does not exist"),
                        ("Issuing", "False", "Failed", "The certificate request has failed to complete"),
                    ]),
                    Failed("Secret tls does not exist"),
                ),
                (conditions(&[("Ready", "True", "Ready", "Certificate is up to date and has not expired")]), Ready),
            ],
        ),
        case("s3.aws.upbound.io", "Bucket", json!({"forProvider": {"region": "eu-central-1"}}), of_crossplane()),
        case("platform.example.org", "Database", json!({"compositionUpdatePolicy": "Automatic"}), of_crossplane()),
        case(
            "platform.example.org",
            "Network",
            json!({"crossplane": {"compositionRef": {"name": "net"}}}),
            of_crossplane(),
        ),
        case(
            "argoproj.io",
            "Rollout",
            json!({"replicas": 2}),
            vec![
                (
                    json!({"phase": "Progressing", "message": "more replicas need to be updated", "observedGeneration": "1"}),
                    Waits("more replicas need to be updated"),
                ),
                (
                    json!({"phase": "Degraded", "message": "RolloutAborted: Rollout aborted update to revision 2", "observedGeneration": "1"}),
                    Failed("RolloutAborted: Rollout aborted update to revision 2"),
                ),
                (json!({"phase": "Healthy", "observedGeneration": "1"}), Ready),
            ],
        ),
        case(
            "keda.sh",
            "ScaledObject",
            json!({"scaleTargetRef": {"name": "web"}}),
            vec![
                (
                    conditions(&[
                        ("Ready", "Unknown", "Paused", "its target is being read"),
                        ("Active", "Unknown", "", ""),
                    ]),
                    Waits("its target is being read"),
                ),
                (
                    conditions(&[(
                        "Ready",
                        "False",
                        "ScaledObjectCheckFailed",
                        "ScaledObject doesn't have correct scaleTargetRef",
                    )]),
                    Waits("ScaledObjectCheckFailed: ScaledObject doesn't have correct scaleTargetRef"),
                ),
                (
                    conditions(&[
                        (
                            "Ready",
                            "True",
                            "ScaledObjectReady",
                            "ScaledObject is defined correctly and is ready for scaling",
                        ),
                        (
                            "Active",
                            "False",
                            "ScalerNotActive",
                            "Scaling is not performed because triggers are not active",
                        ),
                    ]),
                    Ready,
                ),
            ],
        ),
        case(
            "postgresql.cnpg.io",
            "Cluster",
            json!({"instances": 1}),
            vec![
                (
                    with(
                        json!({"phase": "Setting up primary", "phaseReason": "Creating primary instance x-1"}),
                        &conditions(&[("Ready", "False", "ClusterIsNotReady", "Cluster Is Not Ready")]),
                    ),
                    Waits("it is Setting up primary: Creating primary instance x-1"),
                ),
                (
                    json!({"phase": "Cluster cannot execute instance online upgrade due to missing architecture binary",
                        "phaseReason": "arm64"}),
                    Failed("arm64"),
                ),
                (
                    with(
                        json!({"phase": "Cluster in healthy state", "readyInstances": 1}),
                        &conditions(&[("Ready", "True", "ClusterIsReady", "Cluster is Ready")]),
                    ),
                    Ready,
                ),
            ],
        ),
        case(
            "kafka.strimzi.io",
            "Kafka",
            json!({"kafka": {"version": "4.0.0"}}),
            vec![
                (
                    with(
                        json!({"observedGeneration": 1}),
                        &conditions(&[("NotReady", "True", "Creating", "Kafka cluster is being deployed")]),
                    ),
                    Waits("Creating: Kafka cluster is being deployed"),
                ),
                (
                    with(
                        json!({"observedGeneration": 1}),
                        &conditions(&[(
                            "NotReady",
                            "True",
                            "TimeoutException",
                            "Exceeded timeout of 300000ms while waiting for Pods",
                        )]),
                    ),
                    Failed("TimeoutException: Exceeded timeout of 300000ms while waiting for Pods"),
                ),
                (with(json!({"observedGeneration": 1}), &conditions(&[("Ready", "True", "", "")])), Ready),
            ],
        ),
        case(
            "external-secrets.io",
            "ExternalSecret",
            json!({"secretStoreRef": {"name": "store"}}),
            vec![
                (
                    conditions(&[("Ready", "False", "SecretSyncedError", "could not get secret data from provider")]),
                    Waits("SecretSyncedError: could not get secret data from provider"),
                ),
                (
                    conditions(&[("Ready", "False", "SecretMissing", "could not get the Secret of the store")]),
                    Waits("SecretMissing: could not get the Secret of the store"),
                ),
                (
                    with(
                        json!({"syncedResourceVersion": "1-5c1f3b"}),
                        &conditions(&[("Ready", "True", "SecretSynced", "secret synced")]),
                    ),
                    Ready,
                ),
            ],
        ),
    ]
}

#[tokio::test]
async fn syncs_follow_what_operators_say_of_their_objects() -> Result<()> {
    let (plane, _controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "operators", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    let cases = cases();
    for Case { group, kind, spec, .. } in &cases {
        define(&scene.client, group, kind, &format!("{}s", kind.to_lowercase())).await?;
        let name = kind.to_lowercase();
        let text = format!("apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n");
        scene.tree.write(&format!("{name}/object.yaml"), text)?;
    }
    let revision = scene.publish("an object of each operator").await?;
    for Case { kind, .. } in &cases {
        let name = kind.to_lowercase();
        scene.sync(&name, &format!("./{name}"), json!({"timeout": "1h"})).await?;
    }
    for Case { group, kind, statuses, .. } in &cases {
        let (name, api_version) = (kind.to_lowercase(), format!("{group}/v1"));
        let says = async |says: Says, what: &str| {
            let what = format!("{says:?} with {what}");
            let sync = scene.sync_when(&name, &what, |_, ready| match says {
                Says::Ready => ready.status == ConditionStatus::True && ready.message.contains(&revision),
                Says::Waits(text) => ready.reason == "WaitingForHealth" && ready.message.contains(text),
                Says::Failed(text) => ready.reason == "HealthCheckFailed" && ready.message.contains(text),
            });
            sync.await.map(drop)
        };
        // The operator has not seen the object yet.
        let place = format!("{name}/object.yaml:1: {kind}");
        scene
            .sync_when(&name, "it to wait for the operator", |_, ready| {
                ready.reason == "WaitingForHealth" && ready.message.contains(&place)
            })
            .await?;
        let objects = kubernetes::objects(&scene.client, &scene.namespace, &api_version, kind);
        for (status, expected) in statuses {
            let replaced = json!([{"op": "add", "path": "/status", "value": status}]);
            let patch = Patch::Json::<()>(serde_json::from_value(replaced)?);
            objects.patch_status("x", &PatchParams::default(), &patch).await.context(*kind)?;
            says(*expected, &status.to_string()).await?;
        }
    }
    Ok(())
}
