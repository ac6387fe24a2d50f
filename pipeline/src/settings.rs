//! The settings in a Sync's spec that concern its folder.

use crds::{ObjectKey, Sync};
use sha2::{Digest, Sha256};

/// The key of the Repository that `sync` names.
pub fn repository_of(sync: &Sync) -> ObjectKey {
    let own = sync.metadata.namespace.clone().unwrap_or_default();
    let reference = &sync.spec.repository;
    ObjectKey::new(reference.namespace.clone().unwrap_or(own), reference.name.clone())
}

/// The folder of `sync`, as a path inside the repository without `./` and trailing slashes.
pub fn path_of(sync: &Sync) -> &str {
    let path = sync.spec.path.trim_start_matches("./").trim_end_matches('/');
    if path == "." { "" } else { path }
}

/// The namespace of an object of a namespaced kind: the Sync's target, or else the object's own, or else the Sync's
/// own.
pub fn namespace_for<'a>(sync: &'a Sync, own: Option<&'a str>) -> &'a str {
    let target = sync.spec.target_namespace.as_deref();
    target.or(own).unwrap_or_else(|| sync.metadata.namespace.as_deref().unwrap_or_default())
}

/// Digest of the settings that change what is applied, so that an edit of the Sync causes a pass as a commit does.
pub fn settings_digest(sync: &Sync) -> String {
    let spec = &sync.spec;
    let settings = serde_json::json!([
        path_of(sync),
        spec.target_namespace,
        spec.service_account_name,
        spec.ignore_differences,
        spec.prune,
    ]);
    let digest = Sha256::digest(settings.to_string());
    digest[..4].iter().map(|byte| format!("{byte:02x}")).collect()
}
