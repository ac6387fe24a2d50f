//! Statuses as the operators write them: of a healthy object, of one that is not ready yet, and of one that somebody
//! has to repair.

use serde_json::json;

use super::*;
use crate::health::assess;

fn id(group: &str, kind: &str) -> ObjectId {
    ObjectId { group: group.into(), kind: kind.into(), namespace: Some("ns".into()), name: "x".into() }
}

fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
    json!({"type": kind, "status": status, "reason": reason, "message": message})
}

fn conditions(all: &[(&str, &str, &str, &str)]) -> Value {
    let all: Vec<_> =
        all.iter().map(|(kind, status, reason, message)| condition(kind, status, reason, message)).collect();
    json!({"conditions": all})
}

fn with(mut status: Value, more: Value) -> Value {
    status.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    status
}

/// Checks some kinds with three statuses: with `healthy`, the object is healthy; with `waits`, it is not healthy yet;
/// with `stuck`, something is wrong with it. The texts of `waits` and `stuck` are parts of the expected message. If the
/// text of `stuck` begins with `!`, the result must be `Failed`, otherwise `InProgress`.
fn check(group: &str, kinds: &[&str], spec: &Value, healthy: &Value, waits: (&Value, &str), stuck: (&Value, &str)) {
    for kind in kinds {
        let health = |status: &Value| {
            assess(
                &id(group, kind),
                &json!({"kind": kind, "metadata": {"generation": 2}, "spec": spec, "status": status}),
            )
        };
        assert_eq!(health(healthy), Health::Current, "{group} {kind}: {healthy}");
        let (status, part) = waits;
        let Health::InProgress(why) = health(status) else {
            panic!("{group} {kind}: {:?} with {status}", health(status))
        };
        assert!(why.contains(part), "{group} {kind}: {why}");
        let (status, part) = stuck;
        let health = health(status);
        match (part.strip_prefix('!'), &health) {
            (Some(part), Health::Failed(why)) => assert!(why.contains(part), "{group} {kind}: {why}"),
            (None, Health::InProgress(why)) => assert!(why.contains(part), "{group} {kind}: {why}"),
            _ => panic!("{group} {kind}: {health:?} with {status}"),
        }
        // An object without a status was not seen by its controller yet, so it is in progress. (Kinds that never have a
        // status are not checked here.)
        let new = assess(&id(group, kind), &json!({"kind": kind, "metadata": {"generation": 1}, "spec": spec}));
        assert!(matches!(new, Health::InProgress(_)), "{group} {kind}: {new:?} without a status");
    }
}

#[test]
fn every_expression_can_be_read() {
    for Entry { group, kinds, current, in_progress, failed } in TABLE {
        if let Err(why) = Rule::read(current, *in_progress, *failed) {
            panic!("{group} {kinds:?}: {why}");
        }
    }
}

#[test]
fn the_page_has_every_kind_of_the_table() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/health.md")).unwrap();
    for Entry { group, kinds, .. } in TABLE {
        let row = page
            .lines()
            .find(|line| line.contains(&format!("`{group}`")) && kinds.iter().all(|kind| line.contains(kind)));
        assert!(row.is_some(), "docs/health.md has no row with {group} and {kinds:?}");
    }
}

#[test]
fn argo() {
    let none = json!({});
    check(
        "argoproj.io",
        &["Application"],
        &none,
        &json!({"sync": {"status": "Synced"}, "health": {"status": "Healthy"}}),
        (&json!({"sync": {"status": "OutOfSync"}, "health": {"status": "Missing"}}), "not true"),
        (&json!({"sync": {"status": "Synced"}, "health": {"status": "Degraded"}}), "!"),
    );
    let aborted = json!({"phase": "Degraded", "message": "RolloutAborted: metric failed", "observedGeneration": "2"});
    check(
        "argoproj.io",
        &["Rollout"],
        &none,
        &json!({"phase": "Healthy", "observedGeneration": "2"}),
        (
            &json!({"phase": "Paused", "message": "CanaryPauseStep", "observedGeneration": "2"}),
            "it is Paused: CanaryPauseStep",
        ),
        (&aborted, "!it is Degraded: RolloutAborted: metric failed"),
    );
    let rollout = |observed: &str| {
        let status = json!({"phase": "Healthy", "observedGeneration": observed});
        assess(&id("argoproj.io", "Rollout"), &json!({"metadata": {"generation": 2}, "status": status}))
    };
    assert!(matches!(rollout("1"), Health::InProgress(_)));
    assert_eq!((rollout("7c9f6d5b4"), rollout("2")), (Health::Current, Health::Current), "a digest in old versions");
    check(
        "argoproj.io",
        &["Workflow"],
        &none,
        &json!({"phase": "Succeeded"}),
        (&json!({"phase": "Running"}), "it is Running"),
        (&json!({"phase": "Failed", "message": "child failed"}), "!it is Failed: child failed"),
    );
}

#[test]
fn cert_manager() {
    let none = json!({});
    check(
        "cert-manager.io",
        &["Certificate"],
        &none,
        &conditions(&[("Ready", "True", "Ready", "Certificate is up to date and has not expired")]),
        (
            &conditions(&[
                ("Issuing", "True", "DoesNotExist", "Issuing certificate as Secret does not exist"),
                ("Ready", "False", "DoesNotExist", "Issuing certificate as Secret does not exist"),
            ]),
            "DoesNotExist: Issuing certificate",
        ),
        (
            &conditions(&[
                ("Ready", "False", "DoesNotExist", "the Secret does not exist"),
                ("Issuing", "False", "Failed", "the order is invalid"),
            ]),
            "!the Secret does not exist",
        ),
    );
    check(
        "cert-manager.io",
        &["CertificateRequest"],
        &none,
        &conditions(&[("Approved", "True", "cert-manager.io", ""), ("Ready", "True", "Issued", "")]),
        (&conditions(&[("Ready", "False", "Pending", "waiting for the order")]), "Pending: waiting"),
        (&conditions(&[("Ready", "False", "Failed", "the order failed")]), "!Failed: the order failed"),
    );
    check(
        "cert-manager.io",
        &["Issuer", "ClusterIssuer"],
        &none,
        &conditions(&[("Ready", "True", "ACMEAccountRegistered", "")]),
        (&json!({"acme": {}}), "not true"),
        (
            &conditions(&[("Ready", "False", "ErrRegisterACMEAccount", "404 page not found")]),
            "ErrRegisterACMEAccount: 404",
        ),
    );
}

#[test]
fn databases() {
    let none = json!({});
    check(
        "postgresql.cnpg.io",
        &["Cluster"],
        &none,
        &with(json!({"phase": "Cluster in healthy state"}), conditions(&[("Ready", "True", "ClusterIsReady", "")])),
        (
            &with(
                json!({"phase": "Setting up primary", "phaseReason": "Creating primary instance x-1"}),
                conditions(&[("Ready", "False", "ClusterIsNotReady", "Cluster Is Not Ready")]),
            ),
            "it is Setting up primary: Creating primary instance x-1",
        ),
        (
            &json!({"phase": "Cluster cannot proceed to reconciliation due to an unknown plugin being required",
                "phaseReason": "plugin x"}),
            "!plugin x",
        ),
    );
    check(
        "postgresql.cnpg.io",
        &["Backup"],
        &none,
        &json!({"phase": "completed"}),
        (&json!({"phase": "running"}), "running"),
        (&json!({"phase": "failed"}), "!failed"),
    );
    check(
        "postgresql.cnpg.io",
        &["Database", "Publication", "Subscription"],
        &none,
        &json!({"applied": true, "observedGeneration": 2}),
        (&json!({"observedGeneration": 1}), "last change"),
        (&json!({"applied": false, "observedGeneration": 2, "message": "permission denied"}), "permission denied"),
    );
    check(
        "acid.zalan.do",
        &["postgresql"],
        &none,
        &json!({"PostgresClusterStatus": "Running"}),
        (&json!({"PostgresClusterStatus": "Creating"}), ""),
        (&json!({"PostgresClusterStatus": "CreateFailed"}), "!"),
    );
    check(
        "elasticsearch.k8s.elastic.co",
        &["Elasticsearch"],
        &none,
        &json!({"phase": "Ready", "health": "green", "observedGeneration": 2}),
        (&json!({"phase": "ApplyingChanges", "health": "red"}), "ApplyingChanges"),
        (&json!({"phase": "Invalid", "health": "unknown"}), "!Invalid"),
    );
    check(
        "kibana.k8s.elastic.co",
        &["Kibana"],
        &none,
        &json!({"health": "green"}),
        (&json!({"health": "red"}), ""),
        (&json!({"health": "red", "message": "no licence", "phase": "Stuck"}), "no licence"),
    );
    check(
        "rabbitmq.com",
        &["RabbitmqCluster"],
        &none,
        &conditions(&[("AllReplicasReady", "True", "", ""), ("ReconcileSuccess", "True", "Success", "")]),
        (
            &conditions(&[("AllReplicasReady", "False", "NotAllPodsReady", ""), ("ReconcileSuccess", "True", "", "")]),
            "",
        ),
        (&conditions(&[("AllReplicasReady", "True", "", ""), ("ReconcileSuccess", "False", "Error", "")]), ""),
    );
    check(
        "ceph.rook.io",
        &["CephCluster", "CephBlockPool", "CephFilesystem", "CephObjectStore"],
        &none,
        &json!({"phase": "Ready"}),
        (&json!({"phase": "Progressing", "message": "Configuring Ceph Mons"}), "Configuring Ceph Mons"),
        (&json!({"phase": "Failure", "message": "no disks"}), "!no disks"),
    );
    check(
        "kafka.strimzi.io",
        &["Kafka", "KafkaBridge", "KafkaConnect", "KafkaConnector", "KafkaMirrorMaker2", "KafkaTopic", "KafkaUser"],
        &none,
        &with(json!({"observedGeneration": 2}), conditions(&[("Ready", "True", "", "")])),
        (
            &conditions(&[("NotReady", "True", "Creating", "Kafka cluster is being deployed")]),
            "Creating: Kafka cluster",
        ),
        (
            &conditions(&[("NotReady", "True", "TimeoutException", "Exceeded timeout of 300000ms")]),
            "!TimeoutException: Exceeded",
        ),
    );
}

#[test]
fn cluster_api() {
    let none = json!({});
    let ready = |kind: &str, status: &str, why: &str| conditions(&[(kind, status, why, "the message")]);
    check(
        "cluster.x-k8s.io",
        &["Cluster"],
        &none,
        &with(json!({"phase": "Provisioned"}), ready("Available", "True", "Available")),
        (
            &with(json!({"phase": "Provisioning"}), ready("Ready", "False", "WaitingForInfrastructure")),
            "WaitingForInfra",
        ),
        (&json!({"phase": "Failed", "failureReason": "CreateError", "failureMessage": "no quota"}), "!Failed"),
    );
    check(
        "cluster.x-k8s.io",
        &["Machine", "MachineDeployment", "MachinePool"],
        &none,
        &with(json!({"phase": "Running"}), ready("Ready", "True", "")),
        (&with(json!({"phase": "Running"}), ready("Ready", "False", "NodeNotFound")), "NodeNotFound"),
        (&json!({"phase": "Failed"}), "!Failed"),
    );
    let replicas = json!({"replicas": 3});
    check(
        "cluster.x-k8s.io",
        &["MachineSet"],
        &replicas,
        &json!({"readyReplicas": 3}),
        (&json!({"readyReplicas": 1}), ""),
        (&json!({"failureReason": "InvalidConfiguration"}), "!"),
    );
    check(
        "controlplane.cluster.x-k8s.io",
        &["KubeadmControlPlane"],
        &replicas,
        &with(json!({"readyReplicas": 3}), ready("Ready", "True", "")),
        (&with(json!({"readyReplicas": 3}), ready("Ready", "False", "RollingUpdateInProgress")), "RollingUpdate"),
        (&json!({"readyReplicas": 3, "failureReason": "UpdateError"}), "!"),
    );
}

#[test]
fn crossplane() {
    let none = json!({});
    let managed = |ready: (&str, &str), synced: (&str, &str, &str)| {
        conditions(&[("Ready", ready.0, ready.1, ""), ("Synced", synced.0, synced.1, synced.2)])
    };
    for (group, kind) in [("s3.aws.upbound.io", "Bucket"), ("database.gcp.crossplane.io", "CloudSQLInstance")] {
        check(
            group,
            &[kind],
            &none,
            &managed(("True", "Available"), ("True", "ReconcileSuccess", "")),
            (&managed(("False", "Creating"), ("True", "ReconcileSuccess", "")), "Creating"),
            (
                &managed(("True", "Available"), ("False", "ReconcileError", "no credentials")),
                "ReconcileError: no credentials",
            ),
        );
        let new = |kind: &str| assess(&id(group, kind), &json!({"metadata": {"generation": 1}}));
        assert_eq!(new("ProviderConfig"), Health::Current, "it has no such conditions");
    }
    check(
        "pkg.crossplane.io",
        &["Provider", "Configuration", "Function"],
        &none,
        &conditions(&[
            ("Installed", "True", "ActivePackageRevision", ""),
            ("Healthy", "True", "HealthyPackageRevision", ""),
        ]),
        (
            &conditions(&[
                ("Installed", "True", "ActivePackageRevision", ""),
                ("Healthy", "Unknown", "UnknownPackageRevisionHealth", ""),
            ]),
            "UnknownPackage",
        ),
        (
            &conditions(&[
                ("Installed", "True", "", ""),
                ("Healthy", "False", "UnhealthyPackageRevision", "cannot pull"),
            ]),
            "cannot pull",
        ),
    );
    check(
        "apiextensions.crossplane.io",
        &["CompositeResourceDefinition"],
        &none,
        &conditions(&[("Established", "True", "WatchingCompositeResource", "")]),
        (&conditions(&[]), ""),
        (&conditions(&[("Established", "False", "TerminatingCompositeResource", "")]), ""),
    );
    for kind in ["Composition", "CompositionRevision", "EnvironmentConfig"] {
        assert_eq!(assess(&id("apiextensions.crossplane.io", kind), &json!({"metadata": {}})), Health::Current);
    }
    let specs = [
        json!({"crossplane": {"compositionRef": {"name": "a"}}}),
        json!({"compositionUpdatePolicy": "Automatic"}),
        json!({"compositionSelector": {"matchLabels": {"a": "b"}}}),
    ];
    for spec in specs {
        check(
            "example.org",
            &["Database"],
            &spec,
            &managed(("True", "Available"), ("True", "ReconcileSuccess", "")),
            (&managed(("False", "Creating"), ("True", "ReconcileSuccess", "")), "Creating"),
            (
                &managed(("True", "Available"), ("False", "ReconcileError", "no composition")),
                "ReconcileError: no composition",
            ),
        );
    }
    let other = json!({"metadata": {"generation": 1}, "spec": {"resourceRef": {"name": "a"}}});
    assert_eq!(assess(&id("example.org", "Database"), &other), Health::Current, "it is not known to be one");
}

#[test]
fn flux() {
    let none = json!({});
    for (group, kinds) in [
        (
            "source.toolkit.fluxcd.io",
            &["HelmRepository", "GitRepository", "OCIRepository", "HelmChart", "Bucket", "ExternalArtifact"][..],
        ),
        ("kustomize.toolkit.fluxcd.io", &["Kustomization"]),
        ("helm.toolkit.fluxcd.io", &["HelmRelease"]),
        ("image.toolkit.fluxcd.io", &["ImageRepository", "ImagePolicy", "ImageUpdateAutomation"]),
        ("notification.toolkit.fluxcd.io", &["Receiver"]),
    ] {
        check(
            group,
            kinds,
            &none,
            &with(json!({"observedGeneration": 2}), conditions(&[("Ready", "True", "Succeeded", "")])),
            (
                &with(
                    json!({"observedGeneration": 2}),
                    conditions(&[
                        ("Reconciling", "True", "Progressing", "building"),
                        ("Ready", "Unknown", "Progressing", "building"),
                    ]),
                ),
                "Progressing: building",
            ),
            (
                &with(
                    json!({"observedGeneration": 2}),
                    conditions(&[
                        ("Stalled", "True", "RetriesExceeded", "install failed"),
                        ("Ready", "False", "InstallFailed", ""),
                    ]),
                ),
                "!RetriesExceeded: install failed",
            ),
        );
        let suspended =
            json!({"metadata": {"generation": 2}, "spec": {"suspend": true}, "status": {"observedGeneration": 2}});
        assert_eq!(assess(&id(group, kinds[0]), &suspended), Health::Current);
    }
    let charts = json!({"metadata": {"generation": 1}, "spec": {"type": "oci"}});
    assert_eq!(assess(&id("source.toolkit.fluxcd.io", "HelmRepository"), &charts), Health::Current);
}

#[test]
fn networks() {
    let none = json!({});
    let seen = |generation: i64, all: &[(&str, &str, &str)]| {
        let all: Vec<_> = all
            .iter()
            .map(|(kind, status, reason)| json!({"type": kind, "status": status, "reason": reason, "message": "", "observedGeneration": generation}))
            .collect();
        json!({ "conditions": all })
    };
    check(
        "gateway.networking.k8s.io",
        &["GatewayClass"],
        &none,
        &seen(2, &[("Accepted", "True", "Accepted")]),
        (&seen(1, &[("Accepted", "True", "Accepted")]), ""),
        (&seen(2, &[("Accepted", "False", "InvalidParameters")]), "InvalidParameters"),
    );
    check(
        "gateway.networking.k8s.io",
        &["Gateway"],
        &none,
        &seen(2, &[("Accepted", "True", "Accepted"), ("Programmed", "True", "Programmed")]),
        (
            &seen(2, &[("Accepted", "True", "Accepted"), ("Programmed", "False", "AddressNotAssigned")]),
            "AddressNotAssigned",
        ),
        (&seen(2, &[("Accepted", "False", "ListenersNotValid")]), "ListenersNotValid"),
    );
    check(
        "gateway.networking.k8s.io",
        &["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"],
        &none,
        &json!({"parents": [seen(2, &[("Accepted", "True", "Accepted"), ("ResolvedRefs", "True", "ResolvedRefs")])]}),
        (&json!({"parents": [seen(1, &[("Accepted", "True", "Accepted")])]}), ""),
        (&json!({"parents": [seen(2, &[("Accepted", "True", ""), ("ResolvedRefs", "False", "BackendNotFound")])]}), ""),
    );
}

#[test]
fn knative() {
    let none = json!({});
    for (group, kinds) in [
        ("serving.knative.dev", &["Service", "Route", "Configuration", "Revision", "DomainMapping"][..]),
        ("eventing.knative.dev", &["Broker", "Trigger"]),
        ("messaging.knative.dev", &["Channel", "InMemoryChannel", "Subscription"]),
        ("sources.knative.dev", &["PingSource"]),
    ] {
        check(
            group,
            kinds,
            &none,
            &with(json!({"observedGeneration": 2}), conditions(&[("Ready", "True", "", "")])),
            (&conditions(&[("Ready", "Unknown", "Deploying", "waiting for the revision")]), "Deploying: waiting"),
            (&conditions(&[("Ready", "False", "RevisionFailed", "no image")]), "!RevisionFailed: no image"),
        );
    }
}

#[test]
fn others() {
    let none = json!({});
    let ready = |status: &str, reason: &str, message: &str| conditions(&[("Ready", status, reason, message)]);
    check(
        "external-secrets.io",
        &["ExternalSecret"],
        &none,
        &with(json!({"syncedResourceVersion": "2-abc"}), ready("True", "SecretSynced", "secret synced")),
        (&with(json!({"syncedResourceVersion": "1-abc"}), ready("True", "SecretSynced", "")), ""),
        (&ready("False", "SecretSyncedError", "could not get secret data"), "SecretSyncedError: could not get"),
    );
    check(
        "external-secrets.io",
        &["SecretStore", "ClusterSecretStore", "ClusterExternalSecret", "PushSecret", "ClusterPushSecret"],
        &none,
        &ready("True", "Valid", "store validated"),
        (&json!({}), ""),
        (&ready("False", "InvalidProviderConfig", "no credentials"), "InvalidProviderConfig: no credentials"),
    );
    check(
        "keda.sh",
        &["ScaledObject", "ScaledJob"],
        &none,
        &conditions(&[("Ready", "True", "ScaledObjectReady", ""), ("Active", "False", "ScalerNotActive", "")]),
        (&ready("Unknown", "", ""), ""),
        (
            &ready("False", "ScaledObjectCheckFailed", "the target does not exist"),
            "ScaledObjectCheckFailed: the target",
        ),
    );
    check(
        "karpenter.sh",
        &["NodePool", "NodeClaim"],
        &none,
        &ready("True", "Ready", ""),
        (&ready("Unknown", "AwaitingReconciliation", ""), "AwaitingReconciliation"),
        (&ready("False", "NodeClassNotReady", "no subnet"), "NodeClassNotReady: no subnet"),
    );
    check(
        "karpenter.k8s.aws",
        &["EC2NodeClass"],
        &none,
        &ready("True", "Ready", ""),
        (&ready("Unknown", "AwaitingReconciliation", ""), ""),
        (&ready("False", "SubnetsNotFound", ""), "SubnetsNotFound"),
    );
    let both = |available: &str, reconciled: &str| {
        conditions(&[("Available", available, "NotAllPodsReady", "1 of 2"), ("Reconciled", reconciled, "", "")])
    };
    let kinds = ["Prometheus", "PrometheusAgent", "Alertmanager", "ThanosRuler"];
    check(
        "monitoring.coreos.com",
        &kinds,
        &none,
        &both("True", "True"),
        (&both("Degraded", "True"), "NotAllPodsReady: 1 of 2"),
        (
            &conditions(&[
                ("Available", "True", "", ""),
                ("Reconciled", "False", "ReconciliationFailed", "bad config"),
            ]),
            "ReconciliationFailed: bad config",
        ),
    );
    let paused = json!({"metadata": {"generation": 2}, "spec": {"paused": true}});
    assert_eq!(assess(&id("monitoring.coreos.com", kinds[0]), &paused), Health::Current);
    check(
        "bitnami.com",
        &["SealedSecret"],
        &none,
        &with(json!({"observedGeneration": 2}), conditions(&[("Synced", "True", "", "")])),
        (&with(json!({"observedGeneration": 1}), conditions(&[("Synced", "True", "", "")])), "last change"),
        (&conditions(&[("Synced", "False", "", "no key could decrypt secret")]), "!no key could decrypt"),
    );
    check(
        "snapshot.storage.k8s.io",
        &["VolumeSnapshot"],
        &none,
        &json!({"readyToUse": true}),
        (&json!({"readyToUse": false}), ""),
        (&json!({"readyToUse": false, "error": {"message": "no driver"}}), ""),
    );
    check(
        "tekton.dev",
        &["PipelineRun", "TaskRun", "CustomRun"],
        &none,
        &conditions(&[("Succeeded", "True", "Succeeded", "")]),
        (&conditions(&[("Succeeded", "Unknown", "Running", "Tasks Completed: 1")]), "Running: Tasks"),
        (&conditions(&[("Succeeded", "False", "Failed", "1 failed")]), "!Failed: 1 failed"),
    );
    check(
        "velero.io",
        &["Backup", "Restore"],
        &none,
        &json!({"phase": "Completed"}),
        (&json!({"phase": "InProgress"}), "InProgress"),
        (&json!({"phase": "PartiallyFailed"}), "!PartiallyFailed"),
    );
    check(
        "velero.io",
        &["BackupStorageLocation"],
        &none,
        &json!({"phase": "Available"}),
        (&json!({}), ""),
        (&json!({"phase": "Unavailable", "message": "no bucket"}), "no bucket"),
    );
    check(
        "velero.io",
        &["Schedule"],
        &none,
        &json!({"phase": "Enabled"}),
        (&json!({"phase": "New"}), "New"),
        (&json!({"phase": "FailedValidation"}), "!FailedValidation"),
    );
    check(
        "operator.victoriametrics.com",
        &["VMAgent", "VMAlert", "VMAlertmanager", "VMAuth", "VMCluster", "VMSingle"],
        &none,
        &json!({"updateStatus": "operational"}),
        (&json!({"updateStatus": "expanding"}), ""),
        (&json!({"updateStatus": "failed", "reason": "bad config"}), "!bad config"),
    );
}

#[test]
fn a_status_of_any_form_and_size_is_judged() {
    let many: Vec<_> = (0..300).map(|number| condition(&format!("C{number}"), "True", "", "")).collect();
    let odd = [
        json!({"conditions": "none"}),
        json!({"conditions": [1, null, {"type": 2}]}),
        json!([1]),
        json!({"phase": 1}),
        json!({"conditions": many}),
    ];
    for Entry { group, kinds, .. } in TABLE {
        let group = group.replace('*', "a");
        for status in &odd {
            let object = json!({"metadata": {"generation": 1}, "spec": {}, "status": status});
            assess(&id(&group, kinds.first().unwrap_or(&"Any")), &object);
        }
    }
}
