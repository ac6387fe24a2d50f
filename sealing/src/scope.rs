//! Scopes: to which names and namespaces a sealed value may be moved.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::Binding;

/// Annotation of a SealedSecret (and of its template) that marks the cluster-wide scope.
pub const CLUSTER_WIDE_ANNOTATION: &str = "sealedsecrets.bitnami.com/cluster-wide";
/// Annotation of a SealedSecret (and of its template) that marks the namespace-wide scope.
pub const NAMESPACE_WIDE_ANNOTATION: &str = "sealedsecrets.bitnami.com/namespace-wide";

/// Where a sealed value can be unsealed. The encryption enforces this: a value cannot be unsealed with another name,
/// namespace or scope than it was sealed for. See [`Binding`].
///
/// The text form (`Display`, `FromStr`, serde) is that of kubeseal's `--scope`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Scope {
    /// Only in the Secret of the name and namespace that the value was sealed for.
    #[default]
    Strict,
    /// In any Secret of the namespace that the value was sealed for.
    NamespaceWide,
    /// In any Secret of the cluster.
    ClusterWide,
}

impl Scope {
    /// The scope that an object's annotations declare. `annotation` gives an annotation's value by its key. Only the value
    /// `true`, spelled exactly so, counts; cluster-wide wins over namespace-wide.
    pub fn from_annotations<'a>(annotation: impl Fn(&str) -> Option<&'a str>) -> Self {
        let is_set = |key| annotation(key) == Some("true");
        if is_set(CLUSTER_WIDE_ANNOTATION) {
            Self::ClusterWide
        } else if is_set(NAMESPACE_WIDE_ANNOTATION) {
            Self::NamespaceWide
        } else {
            Self::Strict
        }
    }

    /// The annotation to set to `true` on an object of this scope; the strict scope has none.
    pub fn annotation(self) -> Option<&'static str> {
        match self {
            Self::Strict => None,
            Self::NamespaceWide => Some(NAMESPACE_WIDE_ANNOTATION),
            Self::ClusterWide => Some(CLUSTER_WIDE_ANNOTATION),
        }
    }

    /// The binding, with this scope, of the value `key` in the Secret `name`.
    pub const fn binding<'a>(self, namespace: &'a str, name: &'a str, key: &'a str) -> Binding<'a> {
        Binding { scope: self, namespace, name, key }
    }

    fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::NamespaceWide => "namespace-wide",
            Self::ClusterWide => "cluster-wide",
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.as_str())
    }
}

/// A text that is not the name of a scope.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown scope {0:?}: it must be one of strict, namespace-wide, cluster-wide")]
pub struct UnknownScope(String);

impl FromStr for Scope {
    type Err = UnknownScope;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        [Self::Strict, Self::NamespaceWide, Self::ClusterWide]
            .into_iter()
            .find(|scope| scope.as_str() == text)
            .ok_or_else(|| UnknownScope(text.to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn scope_of(annotations: &[(&str, &'static str)]) -> Scope {
        Scope::from_annotations(|key| annotations.iter().find(|(k, _)| *k == key).map(|(_, v)| *v))
    }

    #[test]
    fn annotations_declare_the_scope() {
        assert_eq!(scope_of(&[]), Scope::Strict);
        assert_eq!(scope_of(&[(NAMESPACE_WIDE_ANNOTATION, "true")]), Scope::NamespaceWide);
        assert_eq!(scope_of(&[(CLUSTER_WIDE_ANNOTATION, "true")]), Scope::ClusterWide);
        let both = [(NAMESPACE_WIDE_ANNOTATION, "true"), (CLUSTER_WIDE_ANNOTATION, "true")];
        assert_eq!(scope_of(&both), Scope::ClusterWide);
    }

    #[test]
    fn only_the_exact_word_true_counts() {
        for value in ["True", "TRUE", "1", "yes", " true", "", "false"] {
            assert_eq!(scope_of(&[(CLUSTER_WIDE_ANNOTATION, value)]), Scope::Strict, "{value:?}");
        }
    }

    #[test]
    fn text_goes_both_ways() {
        for scope in [Scope::Strict, Scope::NamespaceWide, Scope::ClusterWide] {
            assert_eq!(scope.to_string().parse(), Ok(scope));
            let json = serde_json::to_string(&scope).unwrap();
            assert_eq!(json, format!("\"{scope}\""));
            assert_eq!(serde_json::from_str::<Scope>(&json).unwrap(), scope);
        }
        assert!("Strict".parse::<Scope>().is_err());
        assert!("".parse::<Scope>().is_err());
    }

    #[test]
    fn the_annotation_of_a_scope_declares_it() {
        for scope in [Scope::Strict, Scope::NamespaceWide, Scope::ClusterWide] {
            let annotations: Vec<_> = scope.annotation().map(|key| (key, "true")).into_iter().collect();
            assert_eq!(scope_of(&annotations), scope);
        }
    }
}
