//! Metrics of fetches and of the memory budget. Their numbers are read at every scrape from the two gates, which limit
//! the fetches that run and the memory that is taken.

use std::{
    fmt,
    sync::{Arc, OnceLock},
    time::Instant,
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _},
    metrics::gauge::ConstGauge,
};

use super::saturating;
use crate::{admission::Gate, inputs::Texts};

/// The gates of fetches and of the memory budget, and what Syncs have read from the cluster, as soon as they exist.
#[derive(Clone, Default)]
pub(super) struct Fetches {
    fetches: Arc<OnceLock<Gate>>,
    memory: Arc<OnceLock<(Gate, Arc<Texts>)>>,
}

impl Fetches {
    pub(super) fn show(&self, gate: Gate) {
        // The gate is set only once, because there is one controller in a process.
        let _ = self.fetches.set(gate);
    }

    pub(super) fn show_memory(&self, gate: Gate, inputs: Arc<Texts>) {
        let _ = self.memory.set((gate, inputs));
    }
}

impl fmt::Debug for Fetches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Fetches").finish_non_exhaustive()
    }
}

impl Collector for Fetches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut gauge = |name: &str, help: &str, value: i64| {
            let gauge = ConstGauge::new(value);
            gauge.encode(encoder.encode_descriptor(name, help, None, gauge.metric_type())?)
        };
        let saturated = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        if let Some((memory, inputs)) = self.memory.get() {
            gauge(
                "gitseal_memory_taken_bytes",
                "How much memory of --memory-budget is reserved, also for what Syncs have read from the cluster",
                saturated(memory.taken() + inputs.taken()),
            )?;
            gauge("gitseal_memory_waiting", "Folders and packs that wait for memory", saturating(memory.waiting()))?;
        }
        let Some(gate) = self.fetches.get() else { return Ok(()) };
        let starved = gate.starved_for(Instant::now()).map_or(0, |time| saturated(time.as_secs()));
        gauge("gitseal_git_fetches_under_way", "Fetches from Git that are running", saturated(gate.taken()))?;
        gauge(
            "gitseal_git_fetches_waiting",
            "Fetches from Git that are waiting for their turn",
            saturating(gate.waiting()),
        )?;
        gauge(
            "gitseal_git_fetches_starved_seconds",
            "How long a fetch has waited although its own namespace and host are below their limits",
            starved,
        )
    }
}
