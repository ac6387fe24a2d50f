//! Kinds that the revision itself defines. Their CustomResourceDefinitions are applied in an earlier wave.

use std::{collections::HashMap, sync::Arc};

use manifests::Manifest;
use serde_json::Value;

use crate::Resource;

/// The kinds that the CustomResourceDefinitions among `manifests` define, by group, version and kind.
pub fn kinds_defined(manifests: &[Manifest]) -> HashMap<(String, String, String), Arc<Resource>> {
    let mut kinds = HashMap::new();
    for manifest in manifests {
        if manifest.id.group != "apiextensions.k8s.io" || manifest.id.kind != "CustomResourceDefinition" {
            continue;
        }
        let Some(spec) = manifest.body.get("spec") else {
            continue;
        };
        let text = |value: Option<&Value>| value.and_then(Value::as_str).unwrap_or_default().to_owned();
        let (group, names) = (text(spec.get("group")), spec.get("names"));
        let kind = text(names.and_then(|names| names.get("kind")));
        let plural = text(names.and_then(|names| names.get("plural")));
        let namespaced = spec.get("scope").and_then(Value::as_str) == Some("Namespaced");
        for version in spec
            .get("versions")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .filter(|version| version.get("served") == Some(&Value::Bool(true)))
        {
            let version = text(version.get("name"));
            let resource = Resource {
                group: group.clone(),
                version: version.clone(),
                kind: kind.clone(),
                plural: plural.clone(),
                namespaced,
                watchable: true,
            };
            kinds.insert((group.clone(), version, kind.clone()), Arc::new(resource));
        }
    }
    kinds
}
