//! `spec.template.data`: Go templates that use the unsealed values.

use std::collections::BTreeMap;

use crds::SealedSecretSpec;
use gotemplate::{Limits, Renderer, Salts};
use sealing::SecretBytes;

use crate::{RenderFailure, SealedInput, ValueFailure, Values};

/// What is wrong with the templates themselves, whatever the values are.
pub(crate) fn check(spec: &SealedSecretSpec) -> impl Iterator<Item = ValueFailure> {
    let texts = spec.template.iter().flat_map(|template| &template.data).flatten();
    texts.filter(|(_, text)| has_action(text)).filter_map(|(key, text)| {
        let error = gotemplate::check(key, text).err()?;
        Some(ValueFailure::template(key, &error))
    })
}

fn has_action(text: &str) -> bool {
    text.contains("{{")
}

/// The texts in `spec.template.data`, before they are rendered with the values.
pub(crate) struct Templates {
    /// Texts with a template action.
    active: BTreeMap<String, String>,
    /// Texts without a template action, which stay as they are.
    plain: BTreeMap<String, String>,
    salts: Salts,
}

impl Templates {
    pub(crate) fn of(sealed: &SealedInput<'_>, texts: BTreeMap<String, String>) -> Self {
        let (active, plain) = texts.into_iter().partition(|(_, text)| has_action(text));
        let encrypted = sealed.spec.encrypted_data.iter().map(|(key, value)| (key.as_str(), value.as_str()));
        Self { active, plain, salts: Salts::new(sealed.namespace, sealed.name, encrypted) }
    }

    /// Whether there is a template for the value of this key.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.active.contains_key(key) || self.plain.contains_key(key)
    }

    /// Whether any text has a template action.
    pub(crate) fn is_active(&self) -> bool {
        !self.active.is_empty()
    }

    /// `values`, with the results of the templates. All templates are tried, even if one fails.
    pub(crate) fn render(self, mut values: Values) -> Result<Values, RenderFailure> {
        if self.is_active() {
            let data = values.iter().map(|(key, value)| (key.as_str(), value.expose()));
            let mut renderer = Renderer::new(data, self.salts, Limits::default());
            let mut failures = Vec::new();
            for (key, text) in &self.active {
                match renderer.render(key, text) {
                    Ok(value) => drop(values.insert(key.clone(), SecretBytes::from(value))),
                    Err(error) => failures.push(ValueFailure::template(key, &error)),
                }
            }
            if !failures.is_empty() {
                return Err(RenderFailure::new(failures));
            }
        }
        values.extend(self.plain.into_iter().map(|(key, text)| (key, SecretBytes::new(text.into_bytes()))));
        Ok(values)
    }
}
