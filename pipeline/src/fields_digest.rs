//! Digest of the fields that gitseal owns on a live object: what drift is told by.

use std::fmt;

/// 64 bits of a SHA-256 over our entry in an object's `managedFields`; the controller computes it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FieldsDigest(u64);

impl FieldsDigest {
    /// One that takes as much room as any.
    pub(crate) const LONGEST: Self = Self(u64::MAX);

    /// A digest of these bits.
    pub fn new(bits: u64) -> Self {
        Self(bits)
    }

    /// Reads what [`fmt::Display`] wrote.
    pub fn parse(text: &str) -> Option<Self> {
        (text.len() == 16).then(|| u64::from_str_radix(text, 16).ok().map(Self))?
    }
}

impl fmt::Display for FieldsDigest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}
