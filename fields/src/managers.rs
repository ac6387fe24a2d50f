//! The field managers whose fields gitseal takes over.

use std::{convert::Infallible, str::FromStr};

/// Names of field managers that write what is in manifests: tools that apply manifests, and people with `kubectl`.
/// Controllers are not among these managers, because the fields that controllers set are in no manifest.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Managers(Vec<String>);

impl Managers {
    /// All names that `kubectl` uses, and those of Helm, of Flux (with its Helm controller), and of old and new
    /// versions of Argo CD.
    pub const DEFAULT: &str =
        "kubectl,kubectl-*,helm,helm-controller,kustomize-controller,argocd-controller,argocd-application-controller";

    /// Whether `manager` is one of these managers.
    pub fn contain(&self, manager: &str) -> bool {
        // gitseal's own fields need not be taken over.
        manager != crds::FIELD_MANAGER
            && self.0.iter().any(|name| match name.strip_suffix('*') {
                Some(prefix) => manager.starts_with(prefix),
                None => manager == name,
            })
    }
}

impl Default for Managers {
    fn default() -> Self {
        let Ok(managers) = Self::DEFAULT.parse();
        managers
    }
}

/// Reads names separated by commas. A `*` at the end of a name stands for any text. An empty text means no names.
impl FromStr for Managers {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(Self(text.split(',').map(str::trim).filter(|name| !name.is_empty()).map(str::to_owned).collect()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_beginnings_of_names() {
        let managers = Managers::default();
        for name in ["kubectl", "kubectl-client-side-apply", "kubectl-create", "helm", "kustomize-controller"] {
            assert!(managers.contain(name), "{name}");
        }
        for name in ["kube-controller-manager", "kubectlx", "helm-operator", "gitseal", "", "before-first-apply"] {
            assert!(!managers.contain(name), "{name}");
        }
        let Ok(all) = " a , *".parse::<Managers>();
        assert!(all.contain("anybody") && !all.contain("gitseal"), "never from ourselves");
        let Ok(none) = "".parse::<Managers>();
        assert!(!none.contain("kubectl") && !none.contain(""));
    }
}
