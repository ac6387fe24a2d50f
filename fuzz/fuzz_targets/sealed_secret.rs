//! Reads a SealedSecret as from Git (YAML, with limits) and as from the API server (JSON), and computes its digest.
#![no_main]

use std::collections::BTreeMap;

use unsealing::{SealedInput, digest};
use crds::{SealedSecret, SealedSecretSpec};
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

fuzz_target!(|data: &[u8]| {
    if let Ok(manifests) = manifests::parse("sealed.yaml", data, &manifests::Limits::default()) {
        for manifest in manifests {
            look(Value::Object(manifest.body));
        }
    }
    if let Ok(value) = serde_json::from_slice(data) {
        look(value);
    }
});

fn look(value: Value) {
    if let Some(Ok(spec)) = value.get("spec").cloned().map(serde_json::from_value::<SealedSecretSpec>) {
        digested(&spec, &BTreeMap::new());
    }
    let Ok(sealed) = serde_json::from_value::<SealedSecret>(value) else { return };
    digested(&sealed.spec, sealed.metadata.annotations.as_ref().unwrap_or(&BTreeMap::new()));
    let again = serde_json::to_value(&sealed).expect("a SealedSecret is written");
    let again: SealedSecret = serde_json::from_value(again).expect("and read again");
    assert!(again.spec == sealed.spec, "writing and reading changes the spec");
}

fn digested(spec: &SealedSecretSpec, annotations: &BTreeMap<String, String>) {
    let input =
        SealedInput { namespace: "team-a", name: "database", annotations, spec, accept_deprecated_v1_data: true };
    assert_eq!(digest(&input), digest(&input));
    for (key, text) in spec.template.iter().filter_map(|template| template.data.as_ref()).flatten() {
        drop(gotemplate::check(key, text));
    }
}
