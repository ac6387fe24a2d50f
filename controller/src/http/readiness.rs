//! Whether the controller is ready.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

/// Named gates, one for each part of the controller that must work. The controller is ready when all gates are open.
/// Clones share the gates.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<Gates>>);

type IsOpen = Box<dyn Fn() -> bool + Send>;

#[derive(Default)]
struct Gates {
    open: BTreeMap<&'static str, bool>,
    /// Gates with a function that says whether they are open. The function is called each time that the state is
    /// needed.
    watched: Vec<(&'static str, IsOpen)>,
}

impl Readiness {
    /// Gates with these names, all closed.
    pub fn new(gates: impl IntoIterator<Item = &'static str>) -> Self {
        let open = gates.into_iter().map(|gate| (gate, false)).collect();
        Self(Arc::new(Mutex::new(Gates { open, watched: Vec::new() })))
    }

    /// Opens the gate `gate`: this part of the controller works.
    pub fn open(&self, gate: &'static str) {
        self.set(gate, true);
    }

    /// Closes the gate `gate`: this part of the controller does not work.
    pub fn close(&self, gate: &'static str) {
        self.set(gate, false);
    }

    /// Adds a gate that is open whenever `is_open` returns true.
    pub fn watch(&self, gate: &'static str, is_open: impl Fn() -> bool + Send + 'static) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).watched.push((gate, Box::new(is_open)));
    }

    /// The closed gates, by name; those of [`Readiness::watch`] come last.
    pub fn missing(&self) -> Vec<&'static str> {
        let gates = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let closed = gates.open.iter().filter(|(_, open)| !**open).map(|(gate, _)| *gate);
        let watched = gates.watched.iter().filter(|(_, is_open)| !is_open()).map(|(gate, _)| *gate);
        closed.chain(watched).collect()
    }

    fn set(&self, gate: &'static str, open: bool) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).open.insert(gate, open);
    }
}

impl fmt::Debug for Readiness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readiness").field("missing", &self.missing()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::*;

    #[test]
    fn a_part_that_stands_still_is_named_while_it_does() {
        let readiness = Readiness::new(["keys"]);
        let goes_on = Arc::new(AtomicBool::new(true));
        let watched = goes_on.clone();
        readiness.watch("git", move || watched.load(Ordering::Relaxed));
        assert_eq!(readiness.missing(), ["keys"]);
        readiness.open("keys");
        assert!(readiness.missing().is_empty());
        goes_on.store(false, Ordering::Relaxed);
        assert_eq!(readiness.missing(), ["git"]);
        goes_on.store(true, Ordering::Relaxed);
        assert!(readiness.missing().is_empty());
    }
}
