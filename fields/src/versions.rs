//! Entries of `managedFields` that were written in another version of the same kind.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;

/// `entries`, changed as if all had been written in `api_version`, which is in the same group. `None` if all were
/// written in this version.
///
/// For an apply, the API server converts the object into the version of every entry. The API server refuses the apply
/// if the new version of a custom resource has fields that an old version does not have. So no entry may be left in the
/// old version.
pub fn with_version(entries: &[ManagedFieldsEntry], api_version: &str) -> Option<Vec<ManagedFieldsEntry>> {
    let group = |version: &str| version.split_once('/').map_or("", |(group, _)| group).to_owned();
    let is_old = |entry: &ManagedFieldsEntry| {
        let version = entry.api_version.as_deref().unwrap_or_default();
        version != api_version && group(version) == group(api_version)
    };
    if !entries.iter().any(is_old) {
        return None;
    }
    let mut migrated: Vec<ManagedFieldsEntry> = Vec::with_capacity(entries.len());
    for entry in entries {
        let mut entry = entry.clone();
        if is_old(&entry) {
            entry.api_version = Some(api_version.to_owned());
        }
        // A manager may have written in both versions. The two entries of such a manager become one.
        let key =
            |entry: &ManagedFieldsEntry| (entry.manager.clone(), entry.operation.clone(), entry.subresource.clone());
        let same =
            migrated.iter_mut().find(|other| key(other) == key(&entry) && other.api_version == entry.api_version);
        match (same, entry.fields_v1.as_ref()) {
            (Some(same), Some(more)) => match &mut same.fields_v1 {
                Some(fields) => crate::set::unite(&mut fields.0, &more.0),
                none => *none = Some(more.clone()),
            },
            (Some(_), None) => {}
            (None, _) => migrated.push(entry),
        }
    }
    Some(migrated)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn entry(manager: &str, version: &str, field: &str) -> Value {
        json!({"manager": manager, "operation": "Update", "apiVersion": version, "fieldsV1": {field: {}}})
    }

    #[test]
    fn everybodys_entries_are_of_the_new_version() {
        let before =
            json!([entry("a", "x.dev/v1beta1", "f:a"), entry("b", "x.dev/v1", "f:b"), entry("a", "x.dev/v1", "f:c")]);
        let before: Vec<ManagedFieldsEntry> = serde_json::from_value(before).unwrap();
        let after = with_version(&before, "x.dev/v1").unwrap();
        let both = json!({"manager": "a", "operation": "Update", "apiVersion": "x.dev/v1", "fieldsV1": {"f:a": {}, "f:c": {}}});
        assert_eq!(json!(after), json!([both, entry("b", "x.dev/v1", "f:b")]));
        assert_eq!(with_version(&after, "x.dev/v1"), None);
        assert_eq!(with_version(&after, "y.dev/v2"), None, "of another group");
    }
}
