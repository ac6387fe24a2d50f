//! The CustomResourceDefinitions, generated from the types.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;

/// Every CustomResourceDefinition that gitseal needs, in the order of their names.
pub fn custom_resource_definitions() -> Vec<CustomResourceDefinition> {
    vec![crate::Repository::crd(), crate::SealedSecret::crd(), crate::Sync::crd()]
}

/// Name of the file under `crds/yaml/` that holds `crd`.
pub fn file_name(crd: &CustomResourceDefinition) -> String {
    format!("{}_{}.yaml", crd.spec.group, crd.spec.names.plural)
}

/// `crd` as YAML.
pub fn to_yaml(crd: &CustomResourceDefinition) -> String {
    let value = serde_json::to_value(crd).expect("a CRD serialises to JSON");
    serde_saphyr::to_string(&value).expect("JSON serialises to YAML")
}

/// The file of `crd` under `crds/yaml/`: the YAML, and above it how the file is made.
pub fn file_text(crd: &CustomResourceDefinition) -> String {
    format!("# Generated from the types in crds/src: do not edit, run `cargo run -p gitseal-crds`.\n{}", to_yaml(crd))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::*;

    /// `kubectl explain` shows the descriptions to people who do not know Rust.
    #[test]
    fn descriptions_are_no_rust() {
        fn check(value: &serde_json::Value) {
            match value {
                serde_json::Value::Object(map) => {
                    if let Some(serde_json::Value::String(text)) = map.get("description") {
                        assert!(!["[`", "`]", "](", "::"].iter().any(|part| text.contains(part)), "{text}");
                    }
                    map.values().for_each(check);
                }
                serde_json::Value::Array(items) => items.iter().for_each(check),
                _ => {}
            }
        }
        for crd in custom_resource_definitions() {
            check(&serde_json::to_value(crd).unwrap());
        }
    }

    #[test]
    fn the_committed_yaml_is_current() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("yaml");
        for crd in custom_resource_definitions() {
            let committed = fs::read_to_string(folder.join(file_name(&crd))).unwrap();
            assert!(committed == file_text(&crd), "{} is stale: run `cargo run -p gitseal-crds`", file_name(&crd));
        }
    }
}
