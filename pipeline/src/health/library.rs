//! When objects of common operators are healthy: a table of kinds with CEL expressions. They mean the same as those of
//! a Sync's `healthChecks`. If a Sync has a check of its own for a kind, this check is used instead of the table.
//!
//! The expressions are evaluated in this process, so the time of each may grow only in proportion to the length of the
//! object: no loop inside a loop. [docs/health.md](../../../docs/health.md) describes the table for users.
//!
//! An object *failed* only if its operator says that somebody has to do something. If a problem may end by itself, the
//! controller waits for its end. For example, an object that is missing now may be in the same commit, and may be
//! applied soon. Until then, the message says what the operator reports.

use std::sync::{LazyLock, OnceLock};

use manifests::ObjectId;
use serde_json::Value;

use super::{Health, apart::Rule};

/// A rule for some kinds of a group.
struct Entry {
    /// The API group. If it begins with `*`, it stands for all groups that end with what follows the `*`.
    group: &'static str,
    /// The kinds. An empty list stands for every kind of the group.
    kinds: &'static [&'static str],
    current: &'static str,
    in_progress: Option<&'static str>,
    failed: Option<&'static str>,
}

impl Entry {
    /// Objects of these kinds are healthy if `current` is true.
    const fn new(group: &'static str, kinds: &'static [&'static str], current: &'static str) -> Self {
        Self { group, kinds, current, in_progress: None, failed: None }
    }

    /// Objects of these kinds have failed if `failed` is true.
    const fn fails(mut self, failed: &'static str) -> Self {
        self.failed = Some(failed);
        self
    }

    /// Objects of these kinds are not healthy yet if `in_progress` is true, whatever `failed` and `current` say.
    const fn waits(mut self, in_progress: &'static str) -> Self {
        self.in_progress = Some(in_progress);
        self
    }

    fn is_for(&self, id: &ObjectId) -> bool {
        let is_group = match self.group.strip_prefix('*') {
            Some(end) => id.group.ends_with(end),
            None => id.group == self.group,
        };
        is_group && (self.kinds.is_empty() || self.kinds.contains(&id.kind.as_str()))
    }
}

const READY: &str = "status.?conditions.orValue([]).exists(c, c.type == 'Ready' && c.status == 'True')";
const NOT_READY: &str = "status.?conditions.orValue([]).exists(c, c.type == 'Ready' && c.status == 'False')";
const SUCCEEDED: &str = "status.?conditions.orValue([]).exists(c, c.type == 'Succeeded' && c.status == 'True')";
const DID_NOT_SUCCEED: &str = "status.?conditions.orValue([]).exists(c, c.type == 'Succeeded' && c.status == 'False')";
/// Not suspended, and Ready. The controllers of Flux set `Stalled` if somebody has to do something.
const READY_OR_SUSPENDED: &str =
    "spec.?suspend.orValue(false) || status.?conditions.orValue([]).exists(c, c.type == 'Ready' && c.status == 'True')";
/// The `observedGeneration` of a condition is older than the generation of the object.
const IS_OLD: &str = "status.?conditions.orValue([]).exists(c, c.?observedGeneration.orValue(metadata.?generation.orValue(0)) < metadata.?generation.orValue(0))";
/// Managed resources of Crossplane: what they describe exists outside of the cluster, and is as their manifest says.
const READY_AND_SYNCED: &str =
    "['Ready', 'Synced'].all(t, status.?conditions.orValue([]).exists(c, c.type == t && c.status == 'True'))";
/// For Cluster API: older versions have the condition `Ready`, newer ones have `Available`.
const READY_OR_AVAILABLE: &str =
    "!status.?conditions.orValue([]).exists(c, c.type in ['Ready', 'Available'] && c.status != 'True')";
const FAILED_MACHINE: &str = "status.?phase.orValue('') == 'Failed' || has(status.failureReason)";

/// The table, sorted by the name of the operator.
static TABLE: &[Entry] = &[
    // Argo CD
    Entry::new("argoproj.io", &["Application"], "status.?sync.?status.orValue('') == 'Synced' && status.?health.?status.orValue('') == 'Healthy'")
        .fails("status.?health.?status.orValue('') == 'Degraded'"),
    // Argo Rollouts: `observedGeneration` is a text; in old versions, the text is a digest
    Entry::new("argoproj.io", &["Rollout"], "status.?phase.orValue('') == 'Healthy'")
        .waits("string(status.?observedGeneration.orValue('')).matches('^[0-9]{1,9}$') && int(status.observedGeneration) < metadata.generation")
        .fails("status.?phase.orValue('') == 'Degraded'"),
    // Argo Workflows
    Entry::new("argoproj.io", &["Workflow"], "status.?phase.orValue('') == 'Succeeded'")
        .fails("status.?phase.orValue('') in ['Failed', 'Error']"),
    // cert-manager
    Entry::new("cert-manager.io", &["Certificate"], READY)
        .waits("status.?conditions.orValue([]).exists(c, c.type == 'Issuing' && c.status == 'True')")
        .fails("status.?conditions.orValue([]).exists(c, c.type == 'Issuing' && c.status == 'False' && c.?reason.orValue('') == 'Failed')"),
    Entry::new("cert-manager.io", &["CertificateRequest"], READY)
        .fails("status.?conditions.orValue([]).exists(c, c.type == 'Ready' && c.status == 'False' && c.?reason.orValue('') in ['Failed', 'Denied'])"),
    Entry::new("cert-manager.io", &["Issuer", "ClusterIssuer"], READY),
    // CloudNativePG
    Entry::new("postgresql.cnpg.io", &["Cluster"], "status.?phase.orValue('') == 'Cluster in healthy state'")
        .fails("status.?phase.orValue('').startsWith('Cluster cannot ')"),
    Entry::new("postgresql.cnpg.io", &["Backup"], "status.?phase.orValue('') == 'completed'")
        .fails("status.?phase.orValue('') in ['failed', 'walArchivingFailing']"),
    Entry::new("postgresql.cnpg.io", &["Database", "Publication", "Subscription"], "status.?applied.orValue(false)"),
    // Cluster API
    Entry::new("cluster.x-k8s.io", &["Cluster"], READY_OR_AVAILABLE)
        .waits("!(status.?phase.orValue('') in ['Provisioned', 'Failed'])")
        .fails(FAILED_MACHINE),
    Entry::new("cluster.x-k8s.io", &["Machine", "MachineDeployment", "MachinePool"], READY_OR_AVAILABLE)
        .waits("!(status.?phase.orValue('') in ['Running', 'Failed'])")
        .fails(FAILED_MACHINE),
    Entry::new("cluster.x-k8s.io", &["MachineSet"], "status.?readyReplicas.orValue(0) >= spec.?replicas.orValue(1)").fails(FAILED_MACHINE),
    Entry::new("controlplane.cluster.x-k8s.io", &["KubeadmControlPlane"], READY_OR_AVAILABLE)
        .waits("status.?readyReplicas.orValue(0) < spec.?replicas.orValue(1)")
        .fails(FAILED_MACHINE),
    // Crossplane
    Entry::new("pkg.crossplane.io", &["Provider", "Configuration", "Function"], "['Installed', 'Healthy'].all(t, status.?conditions.orValue([]).exists(c, c.type == t && c.status == 'True'))"),
    Entry::new("apiextensions.crossplane.io", &["CompositeResourceDefinition"], "status.?conditions.orValue([]).exists(c, c.type == 'Established' && c.status == 'True')"),
    Entry::new("apiextensions.crossplane.io", &["Composition", "CompositionRevision", "EnvironmentConfig"], "true"),
    Entry::new("*.crossplane.io", &["ProviderConfig", "ClusterProviderConfig", "ProviderConfigUsage", "StoreConfig"], "true"),
    Entry::new("*.upbound.io", &["ProviderConfig", "ClusterProviderConfig", "ProviderConfigUsage", "StoreConfig"], "true"),
    Entry::new("*.crossplane.io", &[], READY_AND_SYNCED),
    Entry::new("*.upbound.io", &[], READY_AND_SYNCED),
    // ECK
    Entry::new("elasticsearch.k8s.elastic.co", &["Elasticsearch"], "status.?phase.orValue('') == 'Ready' && status.?health.orValue('') in ['green', 'yellow']")
        .fails("status.?phase.orValue('') == 'Invalid'"),
    Entry::new("kibana.k8s.elastic.co", &["Kibana"], "status.?health.orValue('') == 'green'"),
    // External Secrets
    Entry::new("external-secrets.io", &["ExternalSecret"], READY)
        .waits("has(status.syncedResourceVersion) && !status.syncedResourceVersion.startsWith(string(metadata.generation) + '-')"),
    Entry::new("external-secrets.io", &["SecretStore", "ClusterSecretStore", "ClusterExternalSecret", "PushSecret", "ClusterPushSecret"], READY),
    // Flux
    // A HelmRepository of OCI charts has no status.
    Entry::new("source.toolkit.fluxcd.io", &["HelmRepository"], "spec.?type.orValue('') == 'oci' || spec.?suspend.orValue(false) || status.?conditions.orValue([]).exists(c, c.type == 'Ready' && c.status == 'True')"),
    Entry::new("source.toolkit.fluxcd.io", &["GitRepository", "OCIRepository", "HelmChart", "Bucket", "ExternalArtifact"], READY_OR_SUSPENDED),
    Entry::new("kustomize.toolkit.fluxcd.io", &["Kustomization"], READY_OR_SUSPENDED),
    Entry::new("helm.toolkit.fluxcd.io", &["HelmRelease"], READY_OR_SUSPENDED),
    Entry::new("image.toolkit.fluxcd.io", &["ImageRepository", "ImagePolicy", "ImageUpdateAutomation"], READY_OR_SUSPENDED),
    Entry::new("notification.toolkit.fluxcd.io", &["Receiver"], READY_OR_SUSPENDED),
    // Gateway API
    Entry::new("gateway.networking.k8s.io", &["GatewayClass"], "status.?conditions.orValue([]).exists(c, c.type == 'Accepted' && c.status == 'True')").waits(IS_OLD),
    Entry::new("gateway.networking.k8s.io", &["Gateway"], "['Accepted', 'Programmed'].all(t, status.?conditions.orValue([]).exists(c, c.type == t && c.status == 'True'))")
        .waits(IS_OLD),
    Entry::new(
        "gateway.networking.k8s.io",
        &["HTTPRoute", "GRPCRoute", "TLSRoute", "TCPRoute", "UDPRoute"],
        "size(status.?parents.orValue([])) > 0 && status.parents.all(p, p.conditions.exists(c, c.type == 'Accepted' && c.status == 'True') && !p.conditions.exists(c, c.status == 'False'))",
    )
    .waits("status.?parents.orValue([]).exists(p, p.conditions.exists(c, c.?observedGeneration.orValue(metadata.generation) < metadata.generation))"),
    // KEDA
    Entry::new("keda.sh", &["ScaledObject", "ScaledJob"], READY),
    // Karpenter
    Entry::new("karpenter.sh", &["NodePool", "NodeClaim"], READY),
    Entry::new("karpenter.k8s.aws", &["EC2NodeClass"], READY),
    // Knative: a condition that is False is final; one that is Unknown may still become True
    Entry::new("serving.knative.dev", &["Service", "Route", "Configuration", "Revision", "DomainMapping"], READY).fails(NOT_READY),
    Entry::new("eventing.knative.dev", &["Broker", "Trigger"], READY).fails(NOT_READY),
    Entry::new("messaging.knative.dev", &["Channel", "InMemoryChannel", "Subscription"], READY).fails(NOT_READY),
    Entry::new("sources.knative.dev", &[], READY).fails(NOT_READY),
    // Prometheus operator
    Entry::new(
        "monitoring.coreos.com",
        &["Prometheus", "PrometheusAgent", "Alertmanager", "ThanosRuler"],
        "spec.?paused.orValue(false) || ['Available', 'Reconciled'].all(t, status.?conditions.orValue([]).exists(c, c.type == t && c.status == 'True'))",
    ),
    // RabbitMQ
    Entry::new("rabbitmq.com", &["RabbitmqCluster"], "['AllReplicasReady', 'ReconcileSuccess'].all(t, status.?conditions.orValue([]).exists(c, c.type == t && c.status == 'True'))"),
    // Rook
    Entry::new("ceph.rook.io", &["CephCluster", "CephBlockPool", "CephFilesystem", "CephObjectStore"], "status.?phase.orValue('') == 'Ready'")
        .fails("status.?phase.orValue('') in ['Failure', 'Error']"),
    // Sealed Secrets
    Entry::new("bitnami.com", &["SealedSecret"], "status.?conditions.orValue([]).exists(c, c.type == 'Synced' && c.status == 'True')")
        .fails("status.?conditions.orValue([]).exists(c, c.type == 'Synced' && c.status == 'False')"),
    // Snapshots of volumes
    Entry::new("snapshot.storage.k8s.io", &["VolumeSnapshot"], "status.?readyToUse.orValue(false)"),
    // Strimzi
    Entry::new("kafka.strimzi.io", &["Kafka", "KafkaBridge", "KafkaConnect", "KafkaConnector", "KafkaMirrorMaker2", "KafkaTopic", "KafkaUser"], READY)
        .fails("status.?conditions.orValue([]).exists(c, c.type == 'NotReady' && c.status == 'True' && c.?reason.orValue('') != 'Creating')"),
    // Tekton
    Entry::new("tekton.dev", &["PipelineRun", "TaskRun", "CustomRun"], SUCCEEDED).fails(DID_NOT_SUCCEED),
    // Velero
    Entry::new("velero.io", &["Backup", "Restore"], "status.?phase.orValue('') == 'Completed'")
        .fails("status.?phase.orValue('') in ['Failed', 'PartiallyFailed', 'FailedValidation']"),
    Entry::new("velero.io", &["BackupStorageLocation"], "status.?phase.orValue('') == 'Available'"),
    Entry::new("velero.io", &["Schedule"], "status.?phase.orValue('') == 'Enabled' || spec.?paused.orValue(false)").fails("status.?phase.orValue('') == 'FailedValidation'"),
    // VictoriaMetrics
    Entry::new("operator.victoriametrics.com", &["VMAgent", "VMAlert", "VMAlertmanager", "VMAuth", "VMCluster", "VMSingle"], "status.?updateStatus.orValue('') in ['operational', 'paused']")
        .fails("status.?updateStatus.orValue('') == 'failed'"),
    // Zalando's Postgres operator
    Entry::new("acid.zalan.do", &["postgresql"], "status.?PostgresClusterStatus.orValue('') == 'Running'")
        .fails("status.?PostgresClusterStatus.orValue('').endsWith('Failed') || status.?PostgresClusterStatus.orValue('') == 'Invalid'"),
];

/// Composite resources and claims of Crossplane have kinds and groups that their users choose, so they are told by the fields
/// that Crossplane adds to their spec: `crossplane` in its version 2, these in earlier versions.
const OF_COMPOSITES: [&str; 4] =
    ["compositionRef", "compositionSelector", "compositionRevisionRef", "compositionUpdatePolicy"];

fn is_composite(object: &Value) -> bool {
    let spec = &object["spec"];
    spec["crossplane"].is_object() || OF_COMPOSITES.iter().any(|field| spec.get(field).is_some())
}

static COMPOSITE: LazyLock<Rule> =
    LazyLock::new(|| Rule::read(READY_AND_SYNCED, None, None).expect("a test reads this expression"));

/// The rules of the table, which are read when they are first needed.
static RULES: LazyLock<Vec<OnceLock<Rule>>> = LazyLock::new(|| TABLE.iter().map(|_| OnceLock::new()).collect());

/// The health of an object, if the table has its kind, or if it is a composite resource.
pub(super) fn health(id: &ObjectId, object: &Value) -> Option<Health> {
    let Some(number) = TABLE.iter().position(|entry| entry.is_for(id)) else {
        return is_composite(object).then(|| COMPOSITE.health(object));
    };
    let Entry { current, in_progress, failed, .. } = TABLE[number];
    let rule = RULES[number]
        .get_or_init(|| Rule::read(current, in_progress, failed).expect("a test reads every expression of the table"));
    Some(rule.health(object))
}

#[cfg(test)]
mod tests;
