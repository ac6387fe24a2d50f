//! The variables of a Sync.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Variables that are replaced in the rendered objects, after all other changes.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Substitution {
    /// Variables and their values. Where the rendered objects have `${name}`, they get the value. A value given here replaces a
    /// value of the same name from `substituteFrom`. If this field is given, even without variables, every `${name}` must have
    /// a value or a default (`${name:=default}`), and `$${name}` becomes `${name}`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("maxProperties" = 1024))]
    pub substitute: Option<BTreeMap<String, String>>,
    /// More variables, from files of the same repository. A variable of a later entry replaces the variable of the same
    /// name of an earlier entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub substitute_from: Vec<SubstituteFrom>,
}

const EITHER: &str = "set either file or sealedSecret";

/// A file with variables.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("has(self.file) != has(self.sealedSecret)").message(EITHER))]
pub struct SubstituteFrom {
    /// A file with variables, by its path in the repository: a YAML mapping of names to texts, a ConfigMap, or lines
    /// `name=value` in a file whose name ends with `.env`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub file: Option<String>,
    /// A file with one SealedSecret, by its path in the repository. Each of its keys is a variable, which only the
    /// `stringData` of Secrets can have. The values stay sealed until the Secret is made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub sealed_secret: Option<String>,
}

impl Substitution {
    /// Whether variables are replaced.
    pub fn is_wanted(&self) -> bool {
        self.substitute.is_some() || !self.substitute_from.is_empty()
    }
}

impl SubstituteFrom {
    /// Why the API server would refuse the entry. Without a cluster, only this function refuses it.
    pub fn mistake(&self) -> Option<&'static str> {
        (self.file.is_some() == self.sealed_secret.is_some()).then_some(EITHER)
    }
}
