//! Lets measurements and tests observe the stages of passes.

use crds::ObjectKey;
use pipeline::Stage;

use crate::passes::Patience;

/// An observer that is called when a stage begins. It is used for measurements, and for tests that kill the process at
/// a given stage.
pub trait StageObserver: Send + Sync {
    /// `stage` is about to begin for the Sync `namespace/name`.
    fn begins(&self, stage: Stage, sync: &ObjectKey);
    /// How long a pass may take, and how long it may go on without progress.
    fn patience(&self) -> Patience {
        Patience::default()
    }
}

/// An observer that does nothing.
#[derive(Clone, Copy, Debug, Default)]
pub struct Unobserved;

impl StageObserver for Unobserved {
    fn begins(&self, _: Stage, _: &ObjectKey) {}
}
