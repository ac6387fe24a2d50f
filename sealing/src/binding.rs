//! The place that a sealed value is bound to.

use crate::Scope;

/// The place that a value is sealed for: a namespace, the name of a Secret, and a key of it. The scope says which of these
/// a value is bound to: all of them (strict), only the namespace (namespace-wide), or none (cluster-wide).
///
/// Each format binds values in its own way, and may leave something out: the RSA format does not bind the key.
///
/// # Caveats
/// Callers must first check that the namespace and the names are valid. With an empty namespace, a namespace-wide value
/// would be bound to nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding<'a> {
    /// Which of the other fields a value is bound to.
    pub scope: Scope,
    /// Namespace of the Secret.
    pub namespace: &'a str,
    /// Name of the Secret.
    pub name: &'a str,
    /// Key of the value in the Secret; empty for `spec.data`, where one value is a whole Secret.
    pub key: &'a str,
}

impl Binding<'_> {
    /// Namespace, name and key; those that a value is not bound to are empty. A value that was sealed for one binding
    /// can be unsealed for another if this method returns the same for both.
    pub fn bound(&self) -> [&str; 3] {
        match self.scope {
            Scope::Strict => [self.namespace, self.name, self.key],
            Scope::NamespaceWide => [self.namespace, "", ""],
            Scope::ClusterWide => ["", "", ""],
        }
    }

    /// The OAEP label of the RSA format: `namespace/name`, `namespace`, or nothing.
    pub(crate) fn label(&self) -> String {
        match self.scope {
            Scope::Strict => format!("{}/{}", self.namespace, self.name),
            Scope::NamespaceWide => self.namespace.to_owned(),
            Scope::ClusterWide => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scope_says_how_much_binds() {
        let binding = |scope: Scope| scope.binding("ns", "name", "key");
        assert_eq!(binding(Scope::Strict).bound(), ["ns", "name", "key"]);
        assert_eq!(binding(Scope::NamespaceWide).bound(), ["ns", "", ""]);
        assert_eq!(binding(Scope::ClusterWide).bound(), ["", "", ""]);
    }

    #[test]
    fn labels_follow_the_scope() {
        let label = |scope: Scope| scope.binding("ns", "name", "key").label();
        assert_eq!(label(Scope::Strict), "ns/name");
        assert_eq!(label(Scope::NamespaceWide), "ns");
        assert_eq!(label(Scope::ClusterWide), "");
    }
}
