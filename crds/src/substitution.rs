//! The variables of a Sync.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{
    ObjectReference,
    helm::{ONE, OPTIONAL, REPOSITORY, path_of_file},
};

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
    /// More variables, from files of the same repository or of other Repositories, and from ConfigMaps and Secrets. A variable of a later entry replaces the variable of the same
    /// name of an earlier entry.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub substitute_from: Vec<SubstituteFrom>,
}

/// Variables: a file, a ConfigMap, a Secret, or sealed values. A file is in the repository of the Sync, or in another Repository.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.file), has(self.configMap), has(self.secret), has(self.sealedSecret)].filter(is, is).size() == 1").message(ONE))]
#[x_kube(validation = Rule::new("!has(self.repository) || !has(self.configMap) && !has(self.secret)").message(REPOSITORY))]
#[x_kube(validation = Rule::new("!has(self.optional) || has(self.configMap) || has(self.secret)").message(OPTIONAL))]
pub struct SubstituteFrom {
    /// The Repository that contains the file. Default: the Repository of the Sync. A new commit of this Repository has
    /// an effect only if it changes the file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub repository: Option<ObjectReference>,
    /// A file with variables, by its path in the repository: a YAML mapping of names to texts, a ConfigMap, or lines
    /// `name=value` in a file whose name ends with `.env`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub file: Option<String>,
    /// A ConfigMap in the namespace of the Sync, by its name. Each of its keys is a variable, if it can be the name of one. It
    /// is read with the rights of the Sync. A change of it has an effect at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub config_map: Option<String>,
    /// A Secret in the namespace of the Sync, by its name. Each of its keys is a variable, if it can be the name of one. Only the
    /// `stringData` of Secrets can have these variables. It is read with the rights of the Sync. A change of it has an effect at once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub secret: Option<String>,
    /// With `configMap` or `secret`: whether the object may be missing. Then it has no variables.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub optional: Option<bool>,
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
        let Self { repository, file, config_map, secret, optional, sealed_secret } = self;
        let is_in_cluster = config_map.is_some() || secret.is_some();
        if [file, config_map, secret, sealed_secret].into_iter().flatten().count() != 1 {
            Some(ONE)
        } else if repository.is_some() && is_in_cluster {
            Some(REPOSITORY)
        } else if optional.is_some() && !is_in_cluster {
            Some(OPTIONAL)
        } else {
            None
        }
    }

    /// Whether the variables are not in the repository of the Sync.
    pub fn is_elsewhere(&self) -> bool {
        self.repository.is_some() || self.config_map.is_some() || self.secret.is_some()
    }

    /// The path of the file in its repository, without `./`.
    pub fn path_of_file(&self) -> &str {
        path_of_file(self.sealed_secret.as_deref(), self.file.as_deref())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn an_entry_without_what_it_needs_is_a_mistake() {
        let mistake = |entry: Value| serde_json::from_value::<SubstituteFrom>(entry).unwrap().mistake();
        let other = json!({"name": "config"});
        for entry in [
            json!({"file": "a.env"}),
            json!({"file": "a.env", "repository": other}),
            json!({"sealedSecret": "a.yaml", "repository": other}),
            json!({"configMap": "a"}),
            json!({"configMap": "a", "optional": true}),
            json!({"secret": "a"}),
            json!({"secret": "a", "optional": true}),
        ] {
            assert_eq!(mistake(entry.clone()), None, "{entry}");
        }
        assert_eq!(mistake(json!({})), Some(ONE));
        assert_eq!(mistake(json!({"file": "a.env", "configMap": "a"})), Some(ONE));
        assert_eq!(mistake(json!({"file": "a.env", "secret": "a"})), Some(ONE));
        assert_eq!(mistake(json!({"configMap": "a", "repository": other})), Some(REPOSITORY));
        assert_eq!(mistake(json!({"secret": "a", "repository": other})), Some(REPOSITORY));
        assert_eq!(mistake(json!({"file": "a.env", "optional": true})), Some(OPTIONAL));
    }
}
