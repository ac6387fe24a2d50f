//! Labels of the metrics, in the order in which they are written.

use prometheus_client::encoding::EncodeLabelSet;

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct ReconcileLabels {
    pub(super) kind: String,
    pub(super) outcome: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct StageLabels {
    pub(super) stage: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct KindLabels {
    pub(super) kind: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct VerbLabels {
    pub(super) verb: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct OutcomeLabels {
    pub(super) outcome: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct FromLabels {
    pub(super) from: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct StateLabels {
    pub(super) state: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct BuildLabels {
    pub(super) revision: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct ReadyLabels {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) reason: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct ReasonLabels {
    pub(super) reason: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct UnsealErrorLabels {
    pub(super) reason: &'static str,
    pub(super) namespace: String,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct ConditionLabels {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) condition: String,
    pub(super) ss_app_kubernetes_io_instance: String,
}

impl ConditionLabels {
    pub(super) fn new(namespace: &str, name: &str, instance: &str, condition: &str) -> Self {
        Self {
            namespace: namespace.into(),
            name: name.into(),
            condition: condition.into(),
            ss_app_kubernetes_io_instance: instance.into(),
        }
    }
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct HttpLabels {
    pub(super) path: &'static str,
    pub(super) code: u16,
    pub(super) method: &'static str,
}

#[derive(Clone, Debug, EncodeLabelSet, Eq, Hash, PartialEq)]
pub(super) struct HttpDurationLabels {
    pub(super) path: &'static str,
    pub(super) method: &'static str,
}
