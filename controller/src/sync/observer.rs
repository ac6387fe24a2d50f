//! Who is told of every stage that begins.

use crds::ObjectKey;
use pipeline::Stage;

use crate::passes::Patience;

/// Told of every stage that begins; for measurements, and for tests that end the process at a given point.
pub trait StageObserver: Send + Sync {
    /// `stage` is about to begin for the Sync `namespace/name`.
    fn begins(&self, stage: Stage, sync: &ObjectKey);
    /// How long a pass may take and stand still.
    fn patience(&self) -> Patience {
        Patience::default()
    }
}

/// Observes nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl StageObserver for Unobserved {
    fn begins(&self, _: Stage, _: &ObjectKey) {}
}
