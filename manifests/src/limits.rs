/// Limits of one call of [`parse`](crate::parse). A text beyond one of them is refused; the error names the limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the file.
    pub file_bytes: usize,
    /// Levels of mappings and sequences. Must be below 128, where `serde_json` refuses to read.
    pub depth: usize,
    /// Scalars, mappings and sequences in the whole file. An alias counts like a copy of what it stands for.
    pub nodes: usize,
    /// Documents of the file, empty ones included.
    pub documents: usize,
    /// Nodes that anchors and aliases may copy, in the whole file.
    pub alias_nodes: usize,
    /// Bytes of memory for all objects. Each value, key and collection counts with its real size in memory. For small
    /// ones, this size is many times that of their text.
    pub memory: usize,
    /// Bytes of keys and strings that anchors and aliases may copy, in the whole file.
    pub alias_bytes: usize,
}

impl Default for Limits {
    /// Enough for the largest CRD bundles in use (about 4 MB, 100,000 nodes, depth below 60).
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
