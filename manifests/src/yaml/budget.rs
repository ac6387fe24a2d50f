use serde_json::Value;

use crate::error::ErrorKind;
use crate::limits::Limits;

/// The size of a value in a collection, with the space that a growing collection keeps free, and the allocator's
/// overhead for a text.
const VALUE_BYTES: usize = 160;
/// The size of a sequence when it gets its first element, with space for four.
pub(super) const SEQUENCE_BYTES: usize = 300;
/// The size of a mapping when it gets its first key, with space for some more, and with its index.
pub(super) const MAPPING_BYTES: usize = 520;

/// What is left of the [`Limits`] for the rest of the file.
pub(crate) struct Budget {
    pub(super) limits: Limits,
    nodes: usize,
    memory: usize,
    alias_nodes: usize,
    alias_bytes: usize,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self {
            limits: *limits,
            nodes: limits.nodes,
            memory: limits.memory,
            alias_nodes: limits.alias_nodes,
            alias_bytes: limits.alias_bytes,
        }
    }

    /// How much memory the objects that were read so far take.
    pub(crate) fn memory(&self) -> usize {
        self.limits.memory - self.memory
    }

    /// Uses up memory.
    pub(super) fn hold(&mut self, bytes: usize) -> Result<(), ErrorKind> {
        self.memory = self.memory.checked_sub(bytes).ok_or(ErrorKind::TooMuchMemory(self.limits.memory))?;
        Ok(())
    }

    /// Uses up nodes.
    pub(super) fn node(&mut self, count: usize) -> Result<(), ErrorKind> {
        self.nodes = self.nodes.checked_sub(count).ok_or(ErrorKind::TooManyNodes(self.limits.nodes))?;
        self.hold(count.saturating_mul(VALUE_BYTES))
    }

    /// Uses up what a copy of a value costs.
    pub(super) fn copy(&mut self, size: &Size) -> Result<(), ErrorKind> {
        self.alias_nodes = self.alias_nodes.checked_sub(size.nodes).ok_or(ErrorKind::AliasExpansion)?;
        self.alias_bytes = self.alias_bytes.checked_sub(size.bytes).ok_or(ErrorKind::AliasExpansion)?;
        // The collections in the copy count as small ones, because their real sizes are not known.
        self.hold(size.bytes.saturating_add(size.nodes.saturating_mul(VALUE_BYTES + MAPPING_BYTES)))
    }
}

/// The cost of copying a value.
pub(super) struct Size {
    pub(super) nodes: usize,
    pub(super) bytes: usize,
    pub(super) depth: usize,
}

impl Size {
    /// Recurses no deeper than [`Limits::depth`].
    pub(super) fn of(value: &Value) -> Self {
        let leaf = |bytes| Size { nodes: 1, bytes, depth: 0 };
        let inside = |own: usize, children: &mut dyn Iterator<Item = Size>| {
            let mut sum = Size { nodes: 1, bytes: own, depth: 0 };
            for child in children {
                sum.nodes += child.nodes;
                sum.bytes += child.bytes;
                sum.depth = sum.depth.max(child.depth);
            }
            sum.depth += 1;
            sum
        };
        match value {
            Value::String(text) => leaf(text.len()),
            Value::Array(items) => inside(0, &mut items.iter().map(Size::of)),
            Value::Object(map) => inside(map.keys().map(String::len).sum(), &mut map.values().map(Size::of)),
            _ => leaf(8),
        }
    }
}
