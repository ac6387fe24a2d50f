//! Whether the controller does its work.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Named gates that all have to be open; clones share them.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Gates that are all closed.
    pub fn new(gates: impl IntoIterator<Item = &'static str>) -> Self {
        Self(Arc::new(Mutex::new(gates.into_iter().map(|gate| (gate, false)).collect())))
    }

    /// The part of the work named `gate` goes on.
    pub fn open(&self, gate: &'static str) {
        self.set(gate, true);
    }

    /// The part of the work named `gate` stands still.
    pub fn close(&self, gate: &'static str) {
        self.set(gate, false);
    }

    /// Gates that are closed, in the order of their names.
    pub fn missing(&self) -> Vec<&'static str> {
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        gates.iter().filter(|(_, open)| !**open).map(|(gate, _)| *gate).collect()
    }

    /// Whether every gate is open.
    pub fn is_ready(&self) -> bool {
        self.missing().is_empty()
    }

    fn set(&self, gate: &'static str, open: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(gate, open);
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("missing", &self.missing()).finish()
    }
}
