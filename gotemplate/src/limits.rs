//! The limits of a rendering.

use crate::error::Failure;

/// Limits for all templates of one Secret together. Templates are hostile input, because tenants write them.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Steps: evaluated parts of templates, and the work inside functions that grows with their input.
    pub steps: u64,
    /// Bytes of all results together. Kubernetes allows one MiB for a Secret.
    pub output: usize,
    /// Bytes of one text during the rendering.
    pub text: usize,
    /// Bytes of all values that are made during the rendering.
    pub memory: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { steps: 2_000_000, output: 1 << 20, text: 2 << 20, memory: 32 << 20 }
    }
}

/// The rest of the [`Limits`] that is not used up yet.
pub(crate) struct Budget {
    limits: Limits,
    steps: u64,
    memory: usize,
    output: usize,
}

/// How deep blocks and parentheses may be nested in the text, and calls of templates during the rendering.
pub(crate) const NESTING: usize = 64;
/// How deep lists and dictionaries may be nested.
pub(crate) const VALUE_NESTING: usize = 64;

impl Budget {
    pub(crate) fn new(limits: Limits) -> Self {
        Self { steps: limits.steps, memory: limits.memory, output: limits.output, limits }
    }

    pub(crate) fn step(&mut self, steps: usize) -> Result<(), Failure> {
        let left = self.steps.checked_sub(steps as u64);
        self.steps = left.unwrap_or(0);
        left.map(drop).ok_or(Failure::Limit("the template takes too many steps: does every loop end?"))
    }

    pub(crate) fn memory(&mut self, bytes: usize) -> Result<(), Failure> {
        let left = self.memory.checked_sub(bytes);
        self.memory = left.unwrap_or(0);
        left.map(drop).ok_or(Failure::Limit("the template makes too many values"))
    }

    pub(crate) fn text(&self) -> usize {
        self.limits.text.min(self.memory)
    }

    pub(crate) fn output(&self) -> usize {
        self.output
    }

    pub(crate) fn written(&mut self, bytes: usize) {
        self.output = self.output.saturating_sub(bytes);
    }
}
