//! The namespaces that the controller works in: `--all-namespaces`, `--additional-namespaces`.

use std::{collections::BTreeSet, sync::Arc};

/// The namespaces that the controller works in: all, or some.
///
/// # Guarantee
/// With [`Namespaces::Only`], nothing outside these namespaces is listed or watched, so Roles in these namespaces are
/// enough. A namespace need not exist yet.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Namespaces {
    /// Every namespace, with one watch per kind.
    All,
    /// Only these namespaces, with one watch per kind and namespace.
    Only(Arc<BTreeSet<String>>),
}

impl Namespaces {
    /// The namespaces that the flags choose: all, if `all` is true and there are no `additional` namespaces; else the
    /// controller's `own` namespace and the additional ones.
    pub fn new(all: bool, additional: &[String], own: &str) -> Self {
        if all && additional.is_empty() {
            return Self::All;
        }
        let names = additional.iter().map(|name| name.trim()).filter(|name| !name.is_empty());
        Self::Only(Arc::new(names.chain([own]).map(str::to_owned).collect()))
    }

    /// The namespaces in which a namespaced kind is listed and watched. A single `None` means all namespaces together.
    pub fn each(&self) -> Vec<Option<String>> {
        match self {
            Self::All => vec![None],
            Self::Only(names) => names.iter().cloned().map(Some).collect(),
        }
    }

    /// Whether the controller works in this namespace.
    pub fn contains(&self, namespace: &str) -> bool {
        match self {
            Self::All => true,
            Self::Only(names) => names.contains(namespace),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn flags_are_read_as_by_the_sealed_secrets_controller() {
        let names = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>();
        let only = |list: &[&str]| Namespaces::Only(Arc::new(names(list).into_iter().collect()));
        assert_eq!(Namespaces::new(true, &[], "own"), Namespaces::All);
        assert_eq!(Namespaces::new(false, &[], "own"), only(&["own"]));
        assert_eq!(Namespaces::new(true, &names(&["b", "a", "b", ""]), "own"), only(&["a", "b", "own"]));
        assert_eq!(only(&["a", "b"]).each(), [Some("a".into()), Some("b".into())]);
        assert!(only(&["a"]).contains("a") && !only(&["a"]).contains("b") && Namespaces::All.contains("b"));
    }
}
