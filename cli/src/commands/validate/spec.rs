//! Checks the `spec` of a SealedSecret, field by field.

use crds::names::KEY_LABELS;
use manifests::{Manifest, printable};
use schemas::nearest;
use serde_json::{Map, Value};

use super::checks::Found;
use crate::edit::is_field_name;

/// Fields of the template's metadata that need no warning: the Secret gets them, or they only repeat fields of the
/// SealedSecret's metadata.
const TEMPLATE_METADATA: [&str; 6] = ["name", "namespace", "labels", "annotations", "finalizers", "creationTimestamp"];

pub(super) fn check(manifest: &Manifest, found: &mut Found<'_>) {
    unknown_fields(&manifest.body, &["apiVersion", "kind", "metadata", "spec", "status"], &[], found);
    let spec = match manifest.body.get("spec") {
        Some(Value::Object(spec)) => spec,
        Some(Value::Null) | None => return found.error("structure", &[], "spec is missing"),
        Some(_) => return found.error("structure", &["spec"], "spec is not a mapping"),
    };
    unknown_fields(spec, &["encryptedData", "data", "template"], &["spec"], found);
    let encrypted = texts(spec, "encryptedData", &["spec"], found);
    let template = mapping(spec, "template", &["spec"], found);
    let path = ["spec", "template"];
    let plain = template.and_then(|template| texts(template, "data", &path, found));
    let is_empty = |values: Option<&Map<String, Value>>| values.is_none_or(Map::is_empty);
    match spec.get("data") {
        None | Some(Value::Null) => {
            if is_empty(encrypted) && is_empty(plain) {
                found.warning("no-values", &["spec"], "the SealedSecret has no values");
            }
        }
        Some(Value::String(_)) if is_empty(encrypted) => {
            let message = "spec.data is the deprecated first form of a SealedSecret; `gitseal reseal` keeps this form, \
                sealing the Secret again replaces it";
            found.warning("deprecated", &["spec", "data"], message);
        }
        Some(Value::String(_)) => {
            found.error("structure", &["spec", "data"], "spec has both data and encryptedData: remove one of the two");
        }
        Some(_) => found.error("structure", &["spec", "data"], "spec.data is not a string"),
    }
    for key in encrypted.into_iter().flatten().map(|(key, _)| key) {
        if plain.is_some_and(|plain| plain.contains_key(key)) {
            let message = format!("template.data.{} takes the place of the sealed value of that name", printable(key));
            found.warning("shadowed", &["spec", "template", "data", key], message);
        }
    }
    for (key, text) in plain.into_iter().flatten().filter_map(|(key, text)| Some((key, text.as_str()?))) {
        if let Err(error) = gotemplate::check(key, text) {
            let message = format!("template.data.{} is a template that cannot be rendered: {error}", printable(key));
            found.error("template", &["spec", "template", "data", key], message);
        }
    }
    if let Some(template) = template {
        self::template(manifest, template, found);
        let has = |key: &str| [encrypted, plain].into_iter().flatten().any(|values| values.contains_key(key));
        let is_whole = spec.get("data").is_some_and(Value::is_string);
        if let (Some(Value::String(type_)), false) = (template.get("type"), is_whole) {
            required_keys(type_, has, found);
        }
    }
}

fn template(manifest: &Manifest, template: &Map<String, Value>, found: &mut Found<'_>) {
    let path = ["spec", "template"];
    unknown_fields(template, &["metadata", "type", "immutable", "data"], &path, found);
    if template.get("type").is_some_and(|type_| !type_.is_null() && !type_.is_string()) {
        found.error("structure", &["spec", "template", "type"], "template.type is not a string");
    }
    if template.get("immutable").is_some_and(|immutable| !immutable.is_null() && !immutable.is_boolean()) {
        found.error("structure", &["spec", "template", "immutable"], "template.immutable is neither true nor false");
    }
    let Some(metadata) = mapping(template, "metadata", &path, found) else {
        return;
    };
    let path = ["spec", "template", "metadata"];
    let labels = texts(metadata, "labels", &path, found);
    texts(metadata, "annotations", &path, found);
    for label in KEY_LABELS {
        if labels.is_some_and(|labels| labels.contains_key(label)) {
            let message = format!(
                "the label {label} would make the Secret a sealing key: such a SealedSecret is \
                refused"
            );
            found.error("structure", &["spec", "template", "metadata", "labels", label], message);
        }
    }
    for (field, value) in metadata {
        if !TEMPLATE_METADATA.contains(&field.as_str()) {
            let path = ["spec", "template", "metadata", field];
            found.warning(
                "dropped",
                &path,
                format!("template.metadata.{} is dropped: the Secret does not get it", printable(field)),
            );
        }
        let own = match field.as_str() {
            "name" => Some(manifest.id.name.as_str()),
            "namespace" => manifest.id.namespace.as_deref(),
            _ => continue,
        };
        if let (Some(own), Value::String(text)) = (own, value)
            && !text.is_empty()
            && text != own
        {
            let message =
                format!("template.metadata.{field} is dropped: the Secret gets the SealedSecret's {field} ({own})");
            found.warning("dropped", &["spec", "template", "metadata", field], message);
        }
    }
}

/// Checks that there are the keys that the API server requires for a Secret's type.
fn required_keys(type_: &str, has: impl Fn(&str) -> bool, found: &mut Found<'_>) {
    let path = ["spec", "template", "type"];
    let needs: &[&str] = match type_ {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/dockercfg" => &[".dockercfg"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/basic-auth" if !has("username") && !has("password") => {
            return found.error("type", &path, "a Secret of this type needs the key username or the key password");
        }
        _ => &[],
    };
    for key in needs.iter().filter(|key| !has(key)) {
        found.error("type", &path, format!("a Secret of the type {type_} needs the key {key}"));
    }
}

fn unknown_fields(map: &Map<String, Value>, known: &[&str], path: &[&str], found: &mut Found<'_>) {
    for field in map.keys().filter(|field| !known.contains(&field.as_str())) {
        let path = [path, &[field]].concat();
        // What looks like a field may be a value in the wrong place, which a message must not show.
        let name = if is_field_name(field) { path.join(".") } else { "a field".to_owned() };
        let meant = nearest(field, known.iter().copied())
            .map(|meant| format!("; {meant} is probably meant"))
            .unwrap_or_default();
        let message = format!(
            "{name} is not a known field, so no Sync applies the SealedSecret (strict field validation){meant}"
        );
        found.error("unknown-field", &path, message);
    }
}

fn mapping<'m>(
    map: &'m Map<String, Value>,
    field: &str,
    path: &[&str],
    found: &mut Found<'_>,
) -> Option<&'m Map<String, Value>> {
    match map.get(field) {
        None | Some(Value::Null) => None,
        Some(Value::Object(inner)) => Some(inner),
        Some(_) => {
            let path = [path, &[field]].concat();
            found.error("structure", &path, format!("{} is not a mapping", path.join(".")));
            None
        }
    }
}

/// The mapping in this field; `None` if the field has no mapping. Checks that the values of the mapping are strings.
fn texts<'m>(
    map: &'m Map<String, Value>,
    field: &str,
    path: &[&str],
    found: &mut Found<'_>,
) -> Option<&'m Map<String, Value>> {
    let texts = mapping(map, field, path, found)?;
    for (key, value) in texts {
        if !value.is_string() {
            let path = [path, &[field, key]].concat();
            let message = format!("{}: a value is not a string: quote it", path[..path.len() - 1].join("."));
            found.error("structure", &path, message);
        }
    }
    Some(texts)
}
