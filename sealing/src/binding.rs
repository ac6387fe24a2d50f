//! What a sealed value is bound to.

use crate::Scope;

/// The place that a value is sealed for. The scope says how much of it binds: the namespace, the name of the Secret and
/// the key of the value in the strict scope, the namespace alone or nothing in the wider ones.
///
/// How a format binds a value is its own matter, and so is what it leaves out: the RSA format does not bind the key.
///
/// # Caveats
/// Callers check the names first: without a namespace, the namespace-wide scope would bind as little as the cluster-wide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Binding<'a> {
    /// How much of the rest binds.
    pub scope: Scope,
    /// Namespace of the Secret.
    pub namespace: &'a str,
    /// Name of the Secret.
    pub name: &'a str,
    /// Key of the value in the Secret; empty where one text is a whole Secret (`spec.data`).
    pub key: &'a str,
}

impl Binding<'_> {
    /// Namespace, name and key as far as they bind; empty where they do not. A value can be in all places of its scope in
    /// which these are the same.
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
