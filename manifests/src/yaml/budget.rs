use serde_json::Value;

use crate::error::ErrorKind;
use crate::limits::Limits;

/// What is left of [`Limits`] for the rest of the file.
pub(crate) struct Budget {
    pub(super) limits: Limits,
    nodes: usize,
    alias_nodes: usize,
    alias_bytes: usize,
}

impl Budget {
    pub(crate) fn new(limits: &Limits) -> Self {
        Self { limits: *limits, nodes: limits.nodes, alias_nodes: limits.alias_nodes, alias_bytes: limits.alias_bytes }
    }

    /// Takes nodes off.
    pub(super) fn node(&mut self, count: usize) -> Result<(), ErrorKind> {
        self.nodes = self.nodes.checked_sub(count).ok_or(ErrorKind::TooManyNodes(self.limits.nodes))?;
        Ok(())
    }

    /// Takes a copy of a value off.
    pub(super) fn copy(&mut self, size: &Size) -> Result<(), ErrorKind> {
        self.alias_nodes = self.alias_nodes.checked_sub(size.nodes).ok_or(ErrorKind::AliasExpansion)?;
        self.alias_bytes = self.alias_bytes.checked_sub(size.bytes).ok_or(ErrorKind::AliasExpansion)?;
        Ok(())
    }
}

/// What copying a value costs.
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
