//! `spec.template.data`: Go templates over the unsealed values.

use std::collections::BTreeMap;

use gotemplate::{Limits, Renderer, Salts};
use sealing::SecretBytes;
use tokio::task;

use super::{SealedInput, ValueFailure};
use crate::keys::Keyring;

type Values = BTreeMap<String, SecretBytes>;

/// `values` with what `texts` render to over them. Off the async threads.
pub(super) async fn render(
    keyring: &Keyring,
    sealed: &SealedInput<'_>,
    values: Values,
    texts: BTreeMap<String, String>,
) -> Result<Values, Vec<ValueFailure>> {
    // A text without an action is its own result.
    let (templates, plain): (BTreeMap<_, _>, BTreeMap<_, _>) =
        texts.into_iter().partition(|(_, text)| text.contains("{{"));
    let plain = plain.into_iter().map(|(key, text)| (key, SecretBytes::new(text.into_bytes())));
    if templates.is_empty() {
        return Ok(values.into_iter().chain(plain).collect());
    }
    let encrypted = sealed.spec.encrypted_data.iter().map(|(key, value)| (key.as_str(), value.as_str()));
    let salts = Salts::new(sealed.namespace, sealed.name, encrypted);
    let turn = keyring.turn_to_render().await;
    let rendered = task::spawn_blocking(move || {
        let _turn = turn;
        rendered(values, &templates, salts)
    });
    let values = match rendered.await {
        Ok(rendered) => rendered?,
        // It does not panic; if it did, this SealedSecret must not take the controller along.
        Err(_) => return Err(vec![ValueFailure::interrupted()]),
    };
    Ok(values.into_iter().chain(plain).collect())
}

/// What can be told of the templates without the values.
pub(super) fn check(texts: &BTreeMap<String, String>) -> impl Iterator<Item = ValueFailure> {
    let checked = texts.iter().filter_map(|(key, text)| Some((key, gotemplate::check(key, text).err()?)));
    checked.map(|(key, error)| ValueFailure::template(key, &error))
}

fn rendered(
    mut values: Values,
    templates: &BTreeMap<String, String>,
    salts: Salts,
) -> Result<Values, Vec<ValueFailure>> {
    let data = values.iter().map(|(key, value)| (key.as_str(), value.expose()));
    let mut renderer = Renderer::new(data, salts, Limits::default());
    let mut failures = Vec::new();
    for (key, text) in templates {
        match renderer.render(key, text) {
            Ok(value) => drop(values.insert(key.clone(), SecretBytes::from(value))),
            Err(error) => failures.push(ValueFailure::template(key, &error)),
        }
    }
    if failures.is_empty() { Ok(values) } else { Err(failures) }
}
