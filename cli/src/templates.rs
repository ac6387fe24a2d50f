//! `spec.template.data` of a SealedSecret, rendered as the controller does.

use anyhow::{bail, ensure};
use gotemplate::{Limits, Renderer, Salts};
use sealing::SecretBytes;
use serde_json::Value;

/// What the templates in `spec` render to over the unsealed `values`. Every failure is told, with the key and the line
/// of the template and without a value.
pub fn render<'a>(
    namespace: &str,
    name: &str,
    spec: &Value,
    values: impl IntoIterator<Item = (&'a str, &'a [u8])>,
) -> anyhow::Result<Vec<(String, SecretBytes)>> {
    let Some(templates) = spec.pointer("/template/data").and_then(Value::as_object) else { return Ok(Vec::new()) };
    // As in the controller: the sealed values in the order of their keys.
    let mut sealed: Vec<(&str, &str)> = spec["encryptedData"]
        .as_object()
        .into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), value.as_str()?)))
        .collect();
    sealed.sort_unstable();
    let mut renderer = Renderer::new(values, Salts::new(namespace, name, sealed), Limits::default());
    let mut rendered = Vec::new();
    let mut failures = Vec::new();
    for (key, template) in templates {
        let Some(text) = template.as_str() else { bail!("spec.template.data.{key} is not a string") };
        match renderer.render(key, text) {
            Ok(value) => rendered.push((key.clone(), SecretBytes::from(value))),
            Err(error) => failures.push(format!("spec.template.data.{key}: {error}")),
        }
    }
    ensure!(failures.is_empty(), "{}", failures.join("; "));
    Ok(rendered)
}
