//! The values that have to be unsealed.

use manifests::printable;
use sealing::{Binding, Scope};

/// The sealed values of one Secret.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SealedTexts {
    /// The scope that the values were sealed with.
    pub scope: Scope,
    /// Namespace of the Secret.
    pub namespace: String,
    /// Name of the Secret.
    pub name: String,
    /// The values, each with its key in `encryptedData`; `None` for `spec.data`.
    pub texts: Vec<(Option<String>, String)>,
}

impl SealedTexts {
    /// A value, and what it has to be bound to.
    ///
    /// # Panics
    /// If there is no value with this index.
    pub fn get(&self, index: usize) -> (Binding<'_>, &str) {
        let (key, text) = &self.texts[index];
        (self.scope.binding(&self.namespace, &self.name, key.as_deref().unwrap_or_default()), text)
    }

    /// How messages name the field of a value.
    ///
    /// # Panics
    /// If there is no value with this index.
    pub fn field(&self, index: usize) -> String {
        field(self.texts[index].0.as_deref())
    }
}

/// How messages name the field of the value with this key: `spec.encryptedData.password`, or `spec.data` without a key.
/// A very long key is cut.
pub fn field(key: Option<&str>) -> String {
    key.map_or_else(|| "spec.data".to_owned(), |key| format!("spec.encryptedData.{}", printable(key)))
}
