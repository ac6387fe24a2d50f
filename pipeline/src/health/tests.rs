use serde_json::json;

use super::*;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Is {
    Current,
    InProgress,
    Failed,
}
use Is::{Current, Failed, InProgress};

fn id(group: &str, kind: &str) -> ObjectId {
    ObjectId { group: group.into(), kind: kind.into(), namespace: Some("ns".into()), name: "x".into() }
}

/// The health of an object with generation 2 and this `spec` and `status`. `observedGeneration` is 2 if `status` does
/// not set it.
fn health(group: &str, kind: &str, spec: &Value, status: &Value) -> Health {
    let mut object = json!({
        "metadata": {"name": "x", "namespace": "ns", "generation": 2},
        "spec": spec, "status": {"observedGeneration": 2},
    });
    let fields = object["status"].as_object_mut().unwrap();
    fields.extend(status.as_object().unwrap().clone());
    fields.retain(|_, value| !value.is_null());
    assess(&id(group, kind), &object)
}

/// Checks cases. Each case has a name, a `spec`, a `status`, the expected result, and a part of the expected reason.
fn check(group: &str, kind: &str, cases: &[(&str, Value, Value, Is, &str)]) {
    for (name, spec, status, expected, part) in cases {
        let health = health(group, kind, spec, status);
        let (is, why) = match &health {
            Health::Current => (Current, ""),
            Health::InProgress(why) => (InProgress, why.as_str()),
            Health::Failed(why) => (Failed, why.as_str()),
        };
        assert_eq!(is, *expected, "{kind}, {name}: {health:?}");
        assert!(why.contains(part), "{kind}, {name}: '{why}' without '{part}'");
    }
}

fn condition_of(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

#[test]
fn deployments() {
    let rolled_out = |replicas: i64| {
        json!({
            "replicas": replicas, "updatedReplicas": replicas, "readyReplicas": replicas, "availableReplicas": replicas,
            "conditions": [
                condition_of("Available", "True", "MinimumReplicasAvailable", ""),
                condition_of("Progressing", "True", "NewReplicaSetAvailable", ""),
            ],
        })
    };
    let with = |mut status: Value, changes: Value| {
        let fields = status.as_object_mut().unwrap();
        fields.extend(changes.as_object().unwrap().clone());
        status
    };
    let three = json!({"replicas": 3, "progressDeadlineSeconds": 600});
    let progressing = |status: &str, reason: &str| {
        json!({"conditions": [
            condition_of("Available", "True", "MinimumReplicasAvailable", ""),
            condition_of("Progressing", status, reason, "the message"),
        ]})
    };
    check(
        "apps",
        "Deployment",
        &[
            ("new", three.clone(), json!({"observedGeneration": null}), InProgress, "not seen it"),
            (
                "of an older generation",
                three.clone(),
                with(rolled_out(3), json!({"observedGeneration": 1})),
                InProgress,
                "not seen the last change",
            ),
            ("done", three.clone(), rolled_out(3), Current, ""),
            ("one replica by default", json!({}), rolled_out(1), Current, ""),
            ("one replica by default, none yet", json!({}), rolled_out(0), InProgress, "0 of 1 replicas are updated"),
            ("scaled to zero", json!({"replicas": 0, "progressDeadlineSeconds": 600}), rolled_out(0), Current, ""),
            ("scaling to zero", json!({"replicas": 0}), rolled_out(2), InProgress, "2 old replicas"),
            (
                "updating",
                three.clone(),
                with(rolled_out(3), json!({"updatedReplicas": 1})),
                InProgress,
                "1 of 3 replicas are updated",
            ),
            (
                "old replicas left",
                three.clone(),
                with(rolled_out(3), json!({"replicas": 4})),
                InProgress,
                "one old replica is",
            ),
            (
                "not available",
                three.clone(),
                with(rolled_out(3), json!({"availableReplicas": 2})),
                InProgress,
                "2 of 3 replicas are available",
            ),
            (
                "not complete",
                three.clone(),
                with(rolled_out(3), progressing("True", "ReplicaSetUpdated")),
                InProgress,
                "not complete",
            ),
            (
                "without a deadline nobody says complete",
                json!({"replicas": 3, "progressDeadlineSeconds": i32::MAX}),
                with(rolled_out(3), progressing("True", "ReplicaSetUpdated")),
                Current,
                "",
            ),
            (
                "paused",
                three.clone(),
                with(rolled_out(3), progressing("Unknown", "DeploymentPaused")),
                InProgress,
                "paused",
            ),
            (
                "available, says nobody",
                json!({"replicas": 3}),
                with(rolled_out(3), json!({"conditions": []})),
                InProgress,
                "not available",
            ),
            (
                "too late",
                three.clone(),
                with(rolled_out(1), progressing("False", "ProgressDeadlineExceeded")),
                Failed,
                "progress deadline exceeded: the message",
            ),
            (
                "refused its pods",
                three.clone(),
                json!({"conditions": [condition_of("ReplicaFailure", "True", "FailedCreate", "exceeded quota")]}),
                InProgress,
                "0 of 3 replicas are updated (FailedCreate: exceeded quota)",
            ),
            (
                "refused its pods for too long",
                three.clone(),
                json!({"conditions": [
                    condition_of("Progressing", "False", "ProgressDeadlineExceeded", "the message"),
                    condition_of("ReplicaFailure", "True", "FailedCreate", "exceeded quota"),
                ]}),
                Failed,
                "the message (FailedCreate: exceeded quota)",
            ),
            (
                "done, and a Pod of the old one was refused",
                three.clone(),
                json!({"replicas": 3, "updatedReplicas": 3, "availableReplicas": 3, "conditions": [
                    condition_of("Available", "True", "MinimumReplicasAvailable", ""),
                    condition_of("Progressing", "True", "NewReplicaSetAvailable", ""),
                    condition_of("ReplicaFailure", "True", "FailedCreate", "exceeded quota"),
                ]}),
                Current,
                "",
            ),
            (
                "refused its pods at length",
                three.clone(),
                json!({"conditions": [condition_of("ReplicaFailure", "True", "FailedCreate", &"x".repeat(10_000))]}),
                InProgress,
                "xxx…)",
            ),
            (
                "too late for an older generation",
                three,
                with(progressing("False", "ProgressDeadlineExceeded"), json!({"observedGeneration": 1})),
                InProgress,
                "not seen the last change",
            ),
        ],
    );
}

#[test]
fn stateful_sets() {
    let done = |more: Value| {
        let mut status = json!({
            "replicas": 3, "readyReplicas": 3, "currentReplicas": 3, "updatedReplicas": 3,
            "currentRevision": "b", "updateRevision": "b",
        });
        let fields = status.as_object_mut().unwrap();
        fields.extend(more.as_object().unwrap().clone());
        status
    };
    let rolling = |partition: i64| json!({"replicas": 3, "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": partition}}});
    check(
        "apps",
        "StatefulSet",
        &[
            ("new", rolling(0), json!({"observedGeneration": null}), InProgress, "not seen it"),
            ("done", rolling(0), done(json!({})), Current, ""),
            (
                "starting",
                rolling(0),
                done(json!({"replicas": 1, "readyReplicas": 1})),
                InProgress,
                "1 of 3 replicas are ready",
            ),
            (
                "rolling",
                rolling(0),
                done(json!({"updatedReplicas": 2, "currentReplicas": 1, "currentRevision": "a"})),
                InProgress,
                "2 of 3 replicas are updated",
            ),
            (
                "all updated, not yet all over",
                rolling(0),
                done(json!({"currentRevision": "a"})),
                InProgress,
                "last replicas",
            ),
            (
                "scaling down",
                rolling(0),
                done(json!({"replicas": 4, "readyReplicas": 4})),
                InProgress,
                "one surplus replica",
            ),
            (
                "a part of it",
                rolling(2),
                done(json!({"updatedReplicas": 1, "currentReplicas": 2, "currentRevision": "a"})),
                Current,
                "",
            ),
            (
                "not even a part of it",
                rolling(1),
                done(json!({"updatedReplicas": 1, "currentRevision": "a"})),
                InProgress,
                "1 of 2 replicas are updated",
            ),
            (
                "updated by hand",
                json!({"replicas": 3, "updateStrategy": {"type": "OnDelete"}}),
                done(json!({"readyReplicas": 0, "updatedReplicas": 0})),
                Current,
                "",
            ),
            ("scaled to zero", json!({"replicas": 0}), json!({"replicas": 0}), Current, ""),
        ],
    );
}

#[test]
fn daemon_sets() {
    let status = |wanted: i64, updated: i64, available: i64| json!({"desiredNumberScheduled": wanted, "updatedNumberScheduled": updated, "numberAvailable": available});
    check(
        "apps",
        "DaemonSet",
        &[
            ("new", json!({}), json!({"observedGeneration": null}), InProgress, "not seen it"),
            ("done", json!({}), status(3, 3, 3), Current, ""),
            ("no node fits", json!({}), status(0, 0, 0), Current, ""),
            ("updating", json!({}), status(3, 1, 3), InProgress, "1 of 3 pods are updated"),
            ("not available", json!({}), status(3, 3, 2), InProgress, "2 of 3 pods are available"),
        ],
    );
}

#[test]
fn replica_sets_and_replication_controllers() {
    for (group, kind) in [("apps", "ReplicaSet"), ("", "ReplicationController")] {
        let two = json!({"replicas": 2});
        check(
            group,
            kind,
            &[
                ("new", two.clone(), json!({"observedGeneration": null}), InProgress, "not seen it"),
                ("done", two.clone(), json!({"replicas": 2, "availableReplicas": 2}), Current, ""),
                ("starting", two.clone(), json!({"replicas": 2, "availableReplicas": 1}), InProgress, "1 of 2"),
                (
                    "scaling down",
                    two.clone(),
                    json!({"replicas": 3, "availableReplicas": 3}),
                    InProgress,
                    "one surplus replica",
                ),
                (
                    "refused its pods",
                    two,
                    json!({"replicas": 0, "conditions": [condition_of("ReplicaFailure", "True", "FailedCreate", "quota")]}),
                    InProgress,
                    "FailedCreate: quota",
                ),
            ],
        );
    }
}

#[test]
fn jobs() {
    let said = |kind: &str, status: &str| json!({"startTime": "2026-01-01T00:00:00Z", "conditions": [condition_of(kind, status, "BackoffLimitExceeded", "too often")]});
    let none = json!({"observedGeneration": null});
    check(
        "batch",
        "Job",
        &[
            ("new", json!({}), none.clone(), InProgress, "not started"),
            (
                "running",
                json!({}),
                json!({"startTime": "2026-01-01T00:00:00Z", "active": 1}),
                InProgress,
                "not completed",
            ),
            ("complete", json!({}), said("Complete", "True"), Current, ""),
            ("failed", json!({}), said("Failed", "True"), Failed, "BackoffLimitExceeded: too often"),
            ("not failed", json!({}), said("Failed", "False"), InProgress, "not completed"),
            ("suspended", json!({"suspend": true}), none, Current, ""),
        ],
    );
}

#[test]
fn pods() {
    let phase =
        |phase: &str, conditions: Value| json!({"phase": phase, "conditions": conditions, "observedGeneration": null});
    let ready = |status: &str| json!([condition_of("Ready", status, "ContainersNotReady", "")]);
    let mut crashing = phase("Running", ready("False"));
    crashing["containerStatuses"] = json!([
        {"name": "web", "state": {"waiting": {"reason": "CrashLoopBackOff"}}},
        {"name": "proxy", "state": {"running": {}}},
    ]);
    let mut pulling = crashing.clone();
    pulling["containerStatuses"][0]["state"]["waiting"]["reason"] = json!("PodInitializing");
    let mut without_image = phase("Pending", json!([]));
    without_image["containerStatuses"] =
        json!([{"name": "web", "state": {"waiting": {"reason": "ErrImagePull", "message": "not found"}}}]);
    let mut recovered = crashing.clone();
    recovered["conditions"] = ready("True");
    let unschedulable = json!([condition_of("PodScheduled", "False", "Unschedulable", "0/3 nodes are available")]);
    check(
        "",
        "Pod",
        &[
            ("new", json!({}), json!({"observedGeneration": null}), InProgress, "pending"),
            ("pending", json!({}), phase("Pending", json!([])), InProgress, "pending"),
            (
                "without a node",
                json!({}),
                phase("Pending", unschedulable),
                InProgress,
                "cannot be scheduled: 0/3 nodes",
            ),
            ("running", json!({}), phase("Running", ready("False")), InProgress, "not ready"),
            ("ready", json!({}), phase("Running", ready("True")), Current, ""),
            (
                "crashing",
                json!({}),
                crashing,
                Failed,
                "container web: CrashLoopBackOff (its log: kubectl logs -n ns x -c web --previous)",
            ),
            ("without its image", json!({}), without_image, InProgress, "container web: ErrImagePull: not found"),
            ("initialising", json!({}), pulling, InProgress, "not ready"),
            ("ready again", json!({}), recovered, Current, ""),
            ("succeeded", json!({}), phase("Succeeded", ready("False")), Current, ""),
            ("failed", json!({}), phase("Failed", ready("False")), Failed, "failed"),
        ],
    );
}

#[test]
fn claims_and_namespaces() {
    let phase = |phase: &str| json!({"phase": phase, "observedGeneration": null});
    let none = json!({"observedGeneration": null});
    check(
        "",
        "PersistentVolumeClaim",
        &[
            ("new", json!({}), none.clone(), InProgress, "new"),
            ("pending", json!({}), phase("Pending"), InProgress, "Pending"),
            ("bound", json!({}), phase("Bound"), Current, ""),
            ("lost", json!({}), phase("Lost"), InProgress, "Lost"),
        ],
    );
    check(
        "",
        "Namespace",
        &[
            ("new", json!({}), none, InProgress, "new"),
            ("active", json!({}), phase("Active"), Current, ""),
            ("going", json!({}), phase("Terminating"), InProgress, "Terminating"),
        ],
    );
}

#[test]
fn disruption_budgets_wait_for_their_controller() {
    check(
        "policy",
        "PodDisruptionBudget",
        &[
            ("new", json!({}), json!({"observedGeneration": null}), InProgress, "not seen it"),
            (
                "nothing may be disrupted",
                json!({}),
                json!({"disruptionsAllowed": 0, "conditions": [condition_of("DisruptionAllowed", "False", "InsufficientPods", "")]}),
                Current,
                "",
            ),
        ],
    );
}

#[test]
fn api_services_wait_until_they_are_available() {
    let said = |status: &str| json!({"observedGeneration": null, "conditions": [condition_of("Available", status, "MissingEndpoints", "no endpoints")]});
    check(
        "apiregistration.k8s.io",
        "APIService",
        &[
            ("available", json!({}), said("True"), Current, ""),
            ("not available", json!({}), said("False"), InProgress, "MissingEndpoints: no endpoints"),
        ],
    );
}

#[test]
fn definitions_wait_until_they_are_established() {
    let said = |kind: &str, status: &str, reason: &str| json!({"observedGeneration": null, "conditions": [condition_of(kind, status, reason, "the message")]});
    check(
        "apiextensions.k8s.io",
        "CustomResourceDefinition",
        &[
            ("new", json!({}), json!({"observedGeneration": null}), InProgress, "being installed"),
            ("installing", json!({}), said("Established", "False", "Installing"), InProgress, "being installed"),
            ("established", json!({}), said("Established", "True", "InitialNamesAccepted"), Current, ""),
            ("refused", json!({}), said("Established", "False", "NotAccepted"), Failed, "NotAccepted: the message"),
            (
                "with names of another",
                json!({}),
                said("NamesAccepted", "False", "ListKindConflict"),
                Failed,
                "ListKind",
            ),
        ],
    );
}

#[test]
fn custom_resources_by_their_conditions() {
    let said = |kind: &str, status: &str| json!({"conditions": [condition_of(kind, status, "Because", "the message")]});
    let two = |first: Value, second: Value| json!({"conditions": [first, second]});
    let ready = condition_of("Ready", "True", "Done", "");
    check(
        "example.com",
        "Gadget",
        &[
            ("without a status", json!({}), json!({"observedGeneration": null}), Current, ""),
            ("without conditions", json!({}), json!({}), Current, ""),
            (
                "conditions that are none",
                json!({}),
                json!({"conditions": [1, null, "Ready", {"type": 2}]}),
                Current,
                "",
            ),
            (
                "of an older generation",
                json!({}),
                json!({"observedGeneration": 1, "conditions": [ready]}),
                InProgress,
                "not seen the last change",
            ),
            ("of another life", json!({}), json!({"observedGeneration": 9}), InProgress, "not seen the last change"),
            ("ready", json!({}), said("Ready", "True"), Current, ""),
            ("not ready", json!({}), said("Ready", "False"), InProgress, "Because: the message"),
            ("ready, perhaps", json!({}), said("Ready", "Unknown"), InProgress, "Because: the message"),
            ("stalled", json!({}), said("Stalled", "True"), Failed, "Because: the message"),
            ("not stalled", json!({}), said("Stalled", "False"), Current, ""),
            ("reconciling", json!({}), said("Reconciling", "True"), InProgress, "Because: the message"),
            ("not reconciling", json!({}), said("Reconciling", "False"), Current, ""),
            (
                "ready and still reconciling",
                json!({}),
                two(ready.clone(), condition_of("Reconciling", "True", "", "")),
                InProgress,
                "does not say why",
            ),
            (
                "ready and stalled",
                json!({}),
                two(ready.clone(), condition_of("Stalled", "True", "", "only a message")),
                Failed,
                "only a message",
            ),
            ("other conditions mean what they mean", json!({}), said("Available", "False"), Current, ""),
        ],
    );
}

#[test]
fn the_standard_conditions_count_for_kinds_with_rules_too() {
    let stalled = json!({"phase": "Bound", "conditions": [condition_of("Stalled", "True", "Because", "")]});
    check("", "PersistentVolumeClaim", &[("stalled", json!({}), stalled, Failed, "Because")]);
}

#[test]
fn our_own_kinds_wait_until_they_were_looked_at() {
    for kind in ["Sync", "Repository"] {
        let ready = |status: &str| json!({"conditions": [condition_of("Ready", status, "Because", "the message")]});
        check(
            "gitseal.dev",
            kind,
            &[
                ("new", json!({}), json!({"observedGeneration": null}), InProgress, "not seen it"),
                ("ready", json!({}), ready("True"), Current, ""),
                ("not ready", json!({}), ready("False"), InProgress, "Because: the message"),
                ("suspended", json!({"suspend": true}), json!({"observedGeneration": 1}), Current, ""),
            ],
        );
    }
}

#[test]
fn what_is_being_deleted_is_not_current() {
    let mut object = json!({"metadata": {"name": "x", "deletionTimestamp": "2026-01-01T00:00:00Z"},
                            "status": {"phase": "Bound"}});
    let being_deleted = Health::InProgress("it is being deleted".into());
    for (group, kind) in
        [("", "PersistentVolumeClaim"), ("", "ConfigMap"), ("gitseal.dev", "Sync"), ("example.com", "Gadget")]
    {
        assert_eq!(assess(&id(group, kind), &object), being_deleted, "{kind}");
    }
    object["metadata"]["deletionTimestamp"] = Value::Null;
    assert_eq!(assess(&id("", "PersistentVolumeClaim"), &object), Health::Current);
}

#[test]
fn only_what_has_a_health_is_asked_for() {
    let born_healthy = [
        ("", "ConfigMap"),
        ("", "Secret"),
        ("", "Service"),
        ("", "ServiceAccount"),
        ("", "ResourceQuota"),
        ("rbac.authorization.k8s.io", "ClusterRole"),
        ("networking.k8s.io", "NetworkPolicy"),
        ("networking.k8s.io", "Ingress"),
        ("batch", "CronJob"),
        ("autoscaling", "HorizontalPodAutoscaler"),
        ("storage.k8s.io", "StorageClass"),
        ("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"),
        ("apiextensions.k8s.io", "CustomResourceDefinition"),
        ("bitnami.com", "SealedSecret"),
    ];
    let to_be_judged = [
        ("", "Pod"),
        ("", "Namespace"),
        ("", "PersistentVolumeClaim"),
        ("", "ReplicationController"),
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("apps", "ReplicaSet"),
        ("batch", "Job"),
        ("policy", "PodDisruptionBudget"),
        ("apiregistration.k8s.io", "APIService"),
        ("gitseal.dev", "Sync"),
        ("example.com", "Gadget"),
        ("example.com", "ConfigMap"),
        ("gateway.networking.k8s.io", "Gateway"),
    ];
    for (group, kind) in born_healthy {
        assert!(is_born_healthy(&id(group, kind)), "{group}/{kind}");
    }
    for (group, kind) in to_be_judged {
        assert!(!is_born_healthy(&id(group, kind)), "{group}/{kind}");
    }
}

#[test]
fn a_pod_that_is_a_hook_or_a_test_has_to_end() {
    let pod = |annotation: &str, phase: &str| {
        let ready = json!([{"type": "Ready", "status": "True"}]);
        let metadata = json!({"name": "x", "namespace": "ns", "annotations": {annotation: "x"}});
        assess(&id("", "Pod"), &json!({"metadata": metadata, "status": {"phase": phase, "conditions": ready}}))
    };
    assert_eq!(pod("a", "Running"), Health::Current);
    for annotation in ["helm.sh/hook", "gitseal.dev/run-when"] {
        assert_eq!(pod(annotation, "Running"), Health::InProgress("it has not ended yet".into()));
        assert_eq!(pod(annotation, "Succeeded"), Health::Current);
    }
}

#[test]
fn the_error_names_the_first_and_counts_the_others() {
    let failed = |more| HealthError::Failed {
        origin: None,
        id: id("apps", "Deployment"),
        why: "it crashed".into(),
        more,
        is_test: false,
    };
    assert_eq!(failed(0).to_string(), "Deployment ns/x failed: it crashed");
    assert_eq!(failed(2).to_string(), "Deployment ns/x failed: it crashed; and 2 more");
    let timed_out = HealthError::TimedOut {
        is_test: false,
        origin: Some(manifests::Location { file: "app/web.yaml".into(), line: 3 }),
        id: id("apps", "Deployment"),
        why: "0 of 1 replicas are updated".into(),
        after: "5m".into(),
        more: 0,
    };
    assert_eq!(
        timed_out.to_string(),
        "app/web.yaml:3: Deployment ns/x is not healthy after 5m: 0 of 1 replicas are updated"
    );
    assert_eq!((failed(0).reason(), timed_out.reason()), ("HealthCheckFailed", "HealthCheckTimedOut"));
}

#[test]
fn what_nobody_has_written_since_it_was_made_is_judged_as_if_it_were_read() {
    let kinds = [
        ("apps", "Deployment"),
        ("apps", "StatefulSet"),
        ("apps", "DaemonSet"),
        ("apps", "ReplicaSet"),
        ("", "ReplicationController"),
        ("policy", "PodDisruptionBudget"),
    ];
    for (group, kind) in kinds {
        for spec in [json!({}), json!({"replicas": 0}), json!({"updateStrategy": {"type": "OnDelete"}})] {
            let made =
                json!({"metadata": {"name": "x", "namespace": "ns", "generation": 1}, "spec": spec, "status": {}});
            let id = id(group, kind);
            assert_eq!(as_made(&id), Some(assess(&id, &made)), "{kind} with {spec}");
        }
    }
    for (group, kind) in [("batch", "Job"), ("", "Pod"), ("example.com", "Widget"), ("gitseal.dev", "Sync")] {
        assert_eq!(as_made(&id(group, kind)), None, "{kind}");
    }
}
