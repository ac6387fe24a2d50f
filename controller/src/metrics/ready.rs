//! Whether each object of a kind is Ready, with the reason. There is one sample per object, also after the reason
//! changed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use crds::{ConditionStatus, ObjectKey};
use prometheus_client::metrics::{family::Family, gauge::Gauge};

use super::labels::ReadyLabels;

/// Gauges with the reason of the condition as a label. The value is 1 if the object is Ready, 0 if not, and −1 while
/// this is unknown.
#[derive(Clone, Default)]
pub(super) struct Ready {
    gauges: Family<ReadyLabels, Gauge>,
    reasons: Arc<Mutex<HashMap<ObjectKey, String>>>,
}

impl Ready {
    /// The family to register.
    pub(super) fn family(&self) -> Family<ReadyLabels, Gauge> {
        self.gauges.clone()
    }

    pub(super) fn set(&self, key: &ObjectKey, ready: ConditionStatus, reason: &str) {
        let value = match ready {
            ConditionStatus::True => 1,
            ConditionStatus::False => 0,
            ConditionStatus::Unknown => -1,
        };
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let before = reasons.insert(key.clone(), reason.to_owned());
        if let Some(before) = before.filter(|before| before != reason) {
            self.gauges.remove(&labels(key, before));
        }
        self.gauges.get_or_create(&labels(key, reason.to_owned())).set(value);
    }

    pub(super) fn forget(&self, key: &ObjectKey) {
        let before = self.reasons.lock().unwrap_or_else(PoisonError::into_inner).remove(key);
        if let Some(before) = before {
            self.gauges.remove(&labels(key, before));
        }
    }
}

fn labels(key: &ObjectKey, reason: String) -> ReadyLabels {
    ReadyLabels { namespace: key.namespace.clone(), name: key.name.clone(), reason }
}
