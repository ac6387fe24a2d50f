/// Bounds of one call of [`parse`](crate::parse). A text beyond one of them is refused, with the bound in the error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub file_bytes: usize,
    /// Mappings and sequences inside each other. Must stay below 128, where `serde_json` stops reading back.
    pub depth: usize,
    /// Scalars, mappings and sequences of the whole file, aliases counted as what they stand for.
    pub nodes: usize,
    /// Documents of the file, empty ones included.
    pub documents: usize,
    /// Nodes that anchors and aliases may copy, in the whole file.
    pub alias_nodes: usize,
    /// Bytes of memory that the objects may take, all in all: each value, key and collection at what it costs, which is
    /// many times its text for small ones.
    pub memory: usize,
    /// Bytes of keys and strings that anchors and aliases may copy, in the whole file.
    pub alias_bytes: usize,
}

impl Default for Limits {
    /// Wide enough for the largest CRD bundles in use (some 4 MB, 100,000 nodes, depth below 60).
    fn default() -> Self {
        Self {
            file_bytes: 10 << 20,
            depth: 100,
            nodes: 500_000,
            memory: 512 << 20,
            documents: 10_000,
            alias_nodes: 100_000,
            alias_bytes: 4 << 20,
        }
    }
}
