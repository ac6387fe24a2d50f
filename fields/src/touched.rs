//! Which of our fields somebody changed, and who did.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use manifests::printable;
use serde_json::{Map, Value};

use crate::{is_ours, set, set_of};

/// Our fields that one writer changed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Touched {
    /// Who owns the fields now; `None` if the fields were removed, because nobody owns a removed field.
    pub manager: Option<String>,
    /// The fields, as [`set::names`] names them.
    pub fields: Vec<String>,
}

/// The fields that others changed before our last apply, and who changed them. `before` are the entries just before
/// this apply, `applied` those after it. A field was changed if our entry in `applied` has it and our entry in `before`
/// does not.
pub fn touched(before: &[ManagedFieldsEntry], applied: &[ManagedFieldsEntry]) -> Vec<Touched> {
    let nothing = Value::Object(Map::new());
    let ours = |entries: &[ManagedFieldsEntry]| entries.iter().find(|entry| is_ours(entry)).and_then(set_of).cloned();
    let lost = set::without(&ours(applied).unwrap_or(nothing.clone()), &ours(before).unwrap_or(nothing));
    by_owner(before, lost)
}

/// The values of a Secret at `keys`, which others added beside our values, and who owns them.
pub fn touched_beside<'a>(entries: &[ManagedFieldsEntry], keys: impl Iterator<Item = &'a str>) -> Vec<Touched> {
    let keys: Map<_, _> = keys.map(|key| (format!("f:{key}"), Value::Object(Map::new()))).collect();
    let data = Map::from_iter([("f:data".to_owned(), Value::Object(keys))]);
    by_owner(entries, Value::Object(data)).into_iter().filter(|touched| touched.manager.is_some()).collect()
}

fn by_owner(before: &[ManagedFieldsEntry], mut lost: Value) -> Vec<Touched> {
    let mut all: Vec<Touched> = Vec::new();
    // The last writer comes first, because earlier writers may have owned the field together with us for a long time.
    let mut others: Vec<_> = before.iter().filter(|entry| !is_ours(entry)).collect();
    others.sort_by_key(|entry| std::cmp::Reverse(entry.time.clone()));
    for entry in others {
        let theirs = set_of(entry).map(|theirs| set::common(&lost, theirs)).unwrap_or_default();
        let fields = set::names(&theirs);
        if fields.is_empty() {
            continue;
        }
        lost = set::without(&lost, &theirs);
        let manager = entry.manager.clone().unwrap_or_default();
        let subresource = entry.subresource.as_deref().filter(|subresource| !subresource.is_empty());
        let manager = subresource.map_or_else(|| manager.clone(), |part| format!("{manager} ({part})"));
        all.push(Touched { manager: Some(manager), fields });
    }
    let removed = set::names(&lost);
    if !removed.is_empty() {
        all.push(Touched { manager: None, fields: removed });
    }
    all
}

/// How many fields of one writer a message names.
const NAMED: usize = 3;

/// For example `spec.replicas by kubectl (scale)`, `data.a removed`.
impl fmt::Display for Touched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let named: Vec<_> = self.fields.iter().take(NAMED).map(String::as_str).collect();
        f.write_str(&named.join(", "))?;
        if self.fields.len() > NAMED {
            write!(f, " and {} more", self.fields.len() - NAMED)?;
        }
        match &self.manager {
            Some(manager) => write!(f, " by {}", printable(manager)),
            None => f.write_str(" removed"),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn entries(value: Value) -> Vec<ManagedFieldsEntry> {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn the_field_and_who_wrote_it() {
        let ours =
            |fields: Value| json!({"manager": "gitseal", "operation": "Apply", "apiVersion": "v1", "fieldsV1": fields});
        let after =
            entries(json!([ours(json!({"f:data": {"f:a": {}, "f:b": {}, "f:c": {}}, "f:spec": {"f:replicas": {}}}))]));
        let before = entries(json!([
            {"manager": "old", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsV1": {"f:data": {".": {}, "f:a": {}}}},
            {"manager": "kubectl-edit", "operation": "Update", "time": "2026-02-01T00:00:00Z", "fieldsV1": {"f:data": {"f:a": {}, "f:x": {}}}},
            {"manager": "kubectl", "operation": "Update", "subresource": "scale", "fieldsV1": {"f:spec": {"f:replicas": {}}}},
            ours(json!({"f:data": {"f:b": {}}})),
        ]));
        let touched = touched(&before, &after);
        let text: Vec<_> = touched.iter().map(ToString::to_string).collect();
        assert_eq!(text, ["data.a by kubectl-edit", "spec.replicas by kubectl (scale)", "data.c removed"]);
        assert_eq!(super::touched(&after, &after), []);
        let beside = touched_beside(&before, ["x", "y"].into_iter());
        assert_eq!(beside.iter().map(ToString::to_string).collect::<Vec<_>>(), ["data.x by kubectl-edit"]);
        let many = Touched { manager: None, fields: ["a", "b", "c", "d", "e"].map(str::to_owned).into() };
        assert_eq!(many.to_string(), "a, b, c and 2 more removed");
    }
}
