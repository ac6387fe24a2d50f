//! The health of Kubernetes' own kinds, compared with what the real library `kstatus` says of the same objects.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use manifests::ObjectId;
use pipeline::health::{Health, assess};
use serde_json::{Value, json};

/// An object, and whether gitseal says of it what the library says.
struct Case {
    what: &'static str,
    object: Value,
    ours: Ours,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Ours {
    /// It says the same.
    Same,
    /// It says this instead; docs/health.md lists these differences.
    Differs(&'static str),
}
use Ours::{Differs, Same};

/// An object of a kind with generation 2, as its controller leaves it.
fn object(api_version: &str, kind: &str, spec: &Value, status: &Value) -> Value {
    json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": "x", "namespace": "ns", "generation": 2,
        "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": spec, "status": status})
}

fn condition(kind: &str, status: &str, reason: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": "because"})
}

fn with(mut status: Value, conditions: &[Value]) -> Value {
    status["conditions"] = json!(conditions);
    status
}

fn case(what: &'static str, object: Value) -> Case {
    Case { what, object, ours: Same }
}

fn but(what: &'static str, object: Value, ours: &'static str) -> Case {
    Case { what, object, ours: Differs(ours) }
}

fn deployments() -> Vec<Case> {
    let spec = json!({"replicas": 3, "progressDeadlineSeconds": 600});
    let of = |spec: &Value, status: Value| object("apps/v1", "Deployment", spec, &status);
    let counts = |observed: u32, total: u32, updated: u32, available: u32| {
        json!({"observedGeneration": observed, "replicas": total, "updatedReplicas": updated, "readyReplicas": available,
            "availableReplicas": available})
    };
    let done = [
        condition("Progressing", "True", "NewReplicaSetAvailable"),
        condition("Available", "True", "MinimumReplicasAvailable"),
    ];
    let going = [
        condition("Progressing", "True", "ReplicaSetUpdated"),
        condition("Available", "True", "MinimumReplicasAvailable"),
    ];
    let late = [condition("Progressing", "False", "ProgressDeadlineExceeded")];
    let one = json!({"progressDeadlineSeconds": 600});
    let none = json!({"replicas": 0, "progressDeadlineSeconds": 600});
    let no_deadline = json!({"replicas": 3, "progressDeadlineSeconds": 2_147_483_647});
    vec![
        case("a Deployment that is rolled out", of(&spec, with(counts(2, 3, 3, 3), &done))),
        case("a Deployment without a status", of(&spec, json!({}))),
        case("a Deployment whose last change was not seen", of(&spec, with(counts(1, 3, 3, 3), &done))),
        case("a Deployment with old replicas", of(&spec, with(counts(2, 4, 3, 3), &going))),
        case("a Deployment with replicas that are not updated", of(&spec, with(counts(2, 3, 1, 3), &going))),
        case("a Deployment with replicas that are not available", of(&spec, with(counts(2, 3, 3, 2), &going))),
        case("a Deployment that is too late", of(&spec, with(counts(2, 3, 1, 1), &late))),
        case("a Deployment whose rollout is not complete", of(&spec, with(counts(2, 3, 3, 3), &going))),
        case("a Deployment without the condition Available", of(&spec, with(counts(2, 3, 3, 3), &done[..1]))),
        case("a Deployment with one replica by default", of(&one, with(counts(2, 1, 1, 1), &done))),
        case("a Deployment without replicas", of(&none, with(counts(2, 0, 0, 0), &done))),
        case("a Deployment without a deadline", of(&no_deadline, with(counts(2, 3, 3, 3), &done[1..]))),
    ]
}

fn sets() -> Vec<Case> {
    let of_stateful = |spec: Value, status: Value| object("apps/v1", "StatefulSet", &spec, &status);
    let rolling = || json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate"}});
    let partition = |number: u32| json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": number}}});
    let stateful = |total: u32, ready: u32, updated: u32, revision: &str| {
        json!({"observedGeneration": 2, "replicas": total, "readyReplicas": ready, "currentReplicas": total, "updatedReplicas": updated,
            "currentRevision": revision, "updateRevision": "new"})
    };
    let of_daemon =
        |status: Value| object("apps/v1", "DaemonSet", &json!({"updateStrategy": {"type": "RollingUpdate"}}), &status);
    let daemon = |observed: u32, wanted: u32, updated: u32, available: u32, ready: u32| {
        json!({"observedGeneration": observed, "desiredNumberScheduled": wanted, "currentNumberScheduled": wanted, "updatedNumberScheduled": updated,
            "numberAvailable": available, "numberReady": ready})
    };
    let of_replicas = |status: Value| object("apps/v1", "ReplicaSet", &json!({"replicas": 2}), &status);
    let replicas = |total: u32, available: u32| json!({"observedGeneration": 2, "replicas": total, "readyReplicas": available, "availableReplicas": available, "fullyLabeledReplicas": total});
    let of_controller = |status: Value| object("v1", "ReplicationController", &json!({"replicas": 2}), &status);
    vec![
        case("a StatefulSet that is ready", of_stateful(rolling(), stateful(3, 3, 3, "new"))),
        case("a StatefulSet without a status", of_stateful(rolling(), json!({}))),
        case("a StatefulSet with too few replicas", of_stateful(rolling(), stateful(2, 2, 2, "new"))),
        case("a StatefulSet with replicas that are not ready", of_stateful(rolling(), stateful(3, 2, 3, "new"))),
        case("a StatefulSet with surplus replicas", of_stateful(rolling(), stateful(4, 4, 4, "new"))),
        case("a StatefulSet that is being updated", of_stateful(rolling(), stateful(3, 3, 1, "old"))),
        case(
            "a StatefulSet with a partition, whose other replicas are updated",
            of_stateful(partition(2), stateful(3, 3, 1, "old")),
        ),
        case(
            "a StatefulSet with a partition, whose other replicas are not updated",
            of_stateful(partition(1), stateful(3, 3, 1, "old")),
        ),
        case(
            "a StatefulSet that is updated when its Pods are deleted",
            of_stateful(json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}}), stateful(3, 1, 0, "old")),
        ),
        case(
            "a StatefulSet without replicas",
            of_stateful(json!({"replicas": 0, "updateStrategy": {"type": "RollingUpdate"}}), stateful(0, 0, 0, "new")),
        ),
        case("a DaemonSet that is ready", of_daemon(daemon(2, 3, 3, 3, 3))),
        case("a DaemonSet without a status", of_daemon(json!({}))),
        case("a DaemonSet that is being updated", of_daemon(daemon(2, 3, 1, 3, 3))),
        case("a DaemonSet with Pods that are not available", of_daemon(daemon(2, 3, 3, 1, 3))),
        case("a DaemonSet without nodes", of_daemon(daemon(2, 0, 0, 0, 0))),
        case("a DaemonSet whose last change was not seen", of_daemon(daemon(1, 3, 3, 3, 3))),
        case("a ReplicaSet that is ready", of_replicas(replicas(2, 2))),
        case("a ReplicaSet with replicas that are not available", of_replicas(replicas(2, 1))),
        case("a ReplicaSet with surplus replicas", of_replicas(replicas(3, 3))),
        case(
            "a ReplicaSet whose Pods are refused",
            of_replicas(with(replicas(0, 0), &[condition("ReplicaFailure", "True", "FailedCreate")])),
        ),
        case("a ReplicationController that is ready", of_controller(replicas(2, 2))),
        but(
            "a ReplicationController with replicas that are not available",
            of_controller(replicas(2, 1)),
            "InProgress",
        ),
    ]
}

fn pods() -> Vec<Case> {
    let of = |status: Value| object("v1", "Pod", &json!({"containers": [{"name": "c"}]}), &status);
    let ready = condition("Ready", "True", "");
    let not_ready = condition("Ready", "False", "ContainersNotReady");
    let crashing = json!([{"name": "c", "restartCount": 4, "state": {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off"}},
        "lastState": {"terminated": {"exitCode": 1}}}]);
    let full = condition("PodScheduled", "False", "Unschedulable");
    vec![
        case("a Pod that is ready", of(with(json!({"phase": "Running"}), &[ready]))),
        case("a Pod that is not ready", of(with(json!({"phase": "Running"}), std::slice::from_ref(&not_ready)))),
        case(
            "a Pod whose container keeps crashing",
            of(with(json!({"phase": "Running", "containerStatuses": crashing}), &[not_ready])),
        ),
        case("a Pod that succeeded", of(json!({"phase": "Succeeded"}))),
        but("a Pod that failed", of(json!({"phase": "Failed"})), "Failed"),
        case("a Pod that is pending", of(json!({"phase": "Pending"}))),
        // The library waits 15 s for a node, and gitseal as long as for everything else.
        but("a Pod without a node", of(with(json!({"phase": "Pending"}), &[full])), "InProgress"),
        case("a Pod without a status", of(json!({}))),
    ]
}

fn jobs() -> Vec<Case> {
    let of = |spec: Value, status: Value| object("batch/v1", "Job", &spec, &status);
    vec![
        case(
            "a Job that is complete",
            of(
                json!({}),
                with(
                    json!({"startTime": "2026-01-01T00:00:00Z", "succeeded": 1}),
                    &[condition("Complete", "True", "")],
                ),
            ),
        ),
        case(
            "a Job that failed",
            of(
                json!({}),
                with(
                    json!({"startTime": "2026-01-01T00:00:00Z", "failed": 1}),
                    &[condition("Failed", "True", "BackoffLimitExceeded")],
                ),
            ),
        ),
        but("a Job that runs", of(json!({}), json!({"startTime": "2026-01-01T00:00:00Z", "active": 1})), "InProgress"),
        case("a Job that has not started", of(json!({}), json!({}))),
        but(
            "a Job that is suspended",
            of(json!({"suspend": true}), with(json!({}), &[condition("Suspended", "True", "JobSuspended")])),
            "Current",
        ),
        case("a CronJob", object("batch/v1", "CronJob", &json!({"schedule": "* * * * *"}), &json!({}))),
    ]
}

fn others() -> Vec<Case> {
    let phase =
        |api_version: &str, kind: &str, phase: &str| object(api_version, kind, &json!({}), &json!({"phase": phase}));
    let definition = |conditions: &[Value]| {
        object("apiextensions.k8s.io/v1", "CustomResourceDefinition", &json!({}), &with(json!({}), conditions))
    };
    let budget = |status: Value| object("policy/v1", "PodDisruptionBudget", &json!({"minAvailable": 1}), &status);
    let service = |spec: Value, status: Value| object("v1", "Service", &spec, &status);
    let registered = |status: &str| {
        object(
            "apiregistration.k8s.io/v1",
            "APIService",
            &json!({}),
            &with(json!({}), &[condition("Available", status, "a")]),
        )
    };
    let mut all = vec![
        case("a volume claim that is bound", phase("v1", "PersistentVolumeClaim", "Bound")),
        case("a volume claim that is pending", phase("v1", "PersistentVolumeClaim", "Pending")),
        case("a volume claim whose volume is lost", phase("v1", "PersistentVolumeClaim", "Lost")),
        case("a namespace that is active", phase("v1", "Namespace", "Active")),
        case(
            "a definition that is established",
            definition(&[
                condition("NamesAccepted", "True", "NoConflicts"),
                condition("Established", "True", "InitialNamesAccepted"),
            ]),
        ),
        case(
            "a definition that is being installed",
            definition(&[
                condition("NamesAccepted", "True", "NoConflicts"),
                condition("Established", "False", "Installing"),
            ]),
        ),
        case(
            "a definition whose names are taken",
            definition(&[condition("NamesAccepted", "False", "ListKindConflict")]),
        ),
        case("a definition that is not established", definition(&[condition("Established", "False", "NotAccepted")])),
        case("a definition without a status", definition(&[])),
        case("a disruption budget", budget(json!({"observedGeneration": 2, "currentHealthy": 2, "desiredHealthy": 1}))),
        case(
            "a disruption budget that is not met",
            budget(json!({"observedGeneration": 2, "currentHealthy": 0, "desiredHealthy": 1})),
        ),
        but("a disruption budget that was not seen", budget(json!({})), "InProgress"),
        case("a Service", service(json!({"type": "ClusterIP", "clusterIP": "10.0.0.1"}), json!({"loadBalancer": {}}))),
        case("a headless Service", service(json!({"clusterIP": "None"}), json!({}))),
        case("an APIService that is available", registered("True")),
        but("an APIService that is not available", registered("False"), "InProgress"),
    ];
    // Kinds that are healthy as soon as they exist.
    for (api_version, kind) in [
        ("v1", "ConfigMap"),
        ("v1", "ServiceAccount"),
        ("v1", "ResourceQuota"),
        ("v1", "LimitRange"),
        ("v1", "Endpoints"),
        ("v1", "PersistentVolume"),
        ("networking.k8s.io/v1", "Ingress"),
        ("networking.k8s.io/v1", "IngressClass"),
        ("networking.k8s.io/v1", "NetworkPolicy"),
        ("rbac.authorization.k8s.io/v1", "Role"),
        ("rbac.authorization.k8s.io/v1", "ClusterRole"),
        ("rbac.authorization.k8s.io/v1", "RoleBinding"),
        ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
        ("storage.k8s.io/v1", "StorageClass"),
        ("storage.k8s.io/v1", "CSIDriver"),
        ("scheduling.k8s.io/v1", "PriorityClass"),
        ("node.k8s.io/v1", "RuntimeClass"),
        ("autoscaling/v2", "HorizontalPodAutoscaler"),
        ("admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration"),
        ("admissionregistration.k8s.io/v1", "MutatingWebhookConfiguration"),
        ("admissionregistration.k8s.io/v1", "ValidatingAdmissionPolicy"),
        ("discovery.k8s.io/v1", "EndpointSlice"),
        ("coordination.k8s.io/v1", "Lease"),
        ("flowcontrol.apiserver.k8s.io/v1", "FlowSchema"),
    ] {
        all.push(case("a kind that is healthy at once", object(api_version, kind, &json!({}), &json!({}))));
    }
    // The rules for all kinds.
    let deleted = |mut object: Value| {
        object["metadata"]["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
        object
    };
    let stated = |conditions: &[Value]| {
        object("v1", "ConfigMap", &json!({}), &with(json!({"observedGeneration": 2}), conditions))
    };
    all.push(case("an object that is being deleted", deleted(stated(&[]))));
    all.push(case(
        "an object whose last change was not seen",
        object("v1", "ConfigMap", &json!({}), &json!({"observedGeneration": 1})),
    ));
    all.push(case("an object with the condition Stalled", stated(&[condition("Stalled", "True", "a")])));
    all.push(case("an object with the condition Reconciling", stated(&[condition("Reconciling", "True", "a")])));
    let custom = |status: &str| {
        object("example.com/v1", "Widget", &json!({}), &with(json!({}), &[condition("Ready", status, "a")]))
    };
    for status in ["True", "False", "Unknown"] {
        all.push(case("a custom resource with the condition Ready", custom(status)));
    }
    all.push(case("a custom resource without a condition", object("example.com/v1", "Widget", &json!({}), &json!({}))));
    all
}

/// What the library says of these objects.
fn of_kstatus(objects: &[&Value]) -> Result<Vec<String>> {
    let mut program =
        Command::new(localcluster::parts::kstatus()?).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    program.stdin.take().context("no input")?.write_all(&serde_json::to_vec(objects)?)?;
    let output = program.wait_with_output()?;
    ensure!(output.status.success(), "{output:?}");
    Ok(serde_json::from_slice(&output.stdout)?)
}

fn ours(object: &Value) -> &'static str {
    let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
    let api_version = text("/apiVersion");
    let group = api_version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let id = ObjectId { group, kind: text("/kind"), namespace: Some("ns".into()), name: "x".into() };
    match assess(&id, object) {
        Health::Current => "Current",
        Health::InProgress(_) => "InProgress",
        Health::Failed(_) => "Failed",
    }
}

#[test]
fn built_in_kinds_are_healthy_when_the_library_says_so() -> Result<()> {
    let cases: Vec<_> = [deployments(), sets(), pods(), jobs(), others()].into_iter().flatten().collect();
    ensure!(cases.len() >= 60, "{} objects", cases.len());
    let said = of_kstatus(&cases.iter().map(|case| &case.object).collect::<Vec<_>>())?;
    let mut wrong = Vec::new();
    for (Case { what, object, ours: expected }, said) in cases.iter().zip(said) {
        // The library has a word of its own for objects that are being deleted; gitseal waits for these, too.
        let said = if said == "Terminating" { "InProgress" } else { said.as_str() };
        let found = ours(object);
        let is_right = match expected {
            Same => found == said,
            Differs(expected) => found == *expected && found != said,
        };
        if !is_right {
            wrong.push(format!("{what} ({}): gitseal {found}, kstatus {said}, expected {expected:?}", object["kind"]));
        }
    }
    ensure!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), cases.len(), wrong.join("\n"));
    Ok(())
}
