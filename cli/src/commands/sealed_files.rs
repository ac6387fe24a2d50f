//! What several commands need to know of the SealedSecrets in files.

use sealing::{Binding, Scope};
use serde_json::{Map, Value, json};

use crate::controller::to_ask;
use crate::edit::SealedObject;

/// The namespace and the scope that a SealedSecret's values are bound to.
pub(super) struct Place {
    pub(super) namespace: Option<String>,
    pub(super) scope: Scope,
}

impl Place {
    /// # Errors
    /// A message that says why the namespace that the values are bound to is not known.
    pub(super) fn of(object: &SealedObject, default_namespace: Option<&String>) -> Result<Self, String> {
        let scope = object.scope();
        let own = object.manifest.id.namespace.clone();
        let namespace = own.or_else(|| if scope == Scope::ClusterWide { None } else { default_namespace.cloned() });
        if namespace.is_none() && scope != Scope::ClusterWide {
            return Err(
                "the SealedSecret has no namespace, but its values are bound to a namespace: pass --namespace".into()
            );
        }
        Ok(Self { namespace, scope })
    }

    /// The binding of the value under `key` in the SealedSecret `name`. If there is no key, it is the binding of the
    /// value of `spec.data`.
    pub(super) fn binding<'a>(&'a self, name: &'a str, key: Option<&'a str>) -> Binding<'a> {
        self.scope.binding(self.namespace.as_deref().unwrap_or_default(), name, key.unwrap_or_default())
    }
}

/// The SealedSecret with only the chosen values, as the controller is asked about it.
pub(super) fn question(object: &SealedObject, place: &Place, is_chosen: impl Fn(usize) -> bool) -> Value {
    let mut encrypted = Map::new();
    let mut spec = json!({});
    for (_, value) in object.values.iter().enumerate().filter(|(index, _)| is_chosen(*index)) {
        match &value.key {
            Some(key) => {
                encrypted.insert(key.clone(), value.value.as_str().into());
            }
            None => spec["data"] = value.value.as_str().into(),
        }
    }
    spec["encryptedData"] = encrypted.into();
    to_ask(place.namespace.as_deref().unwrap_or_default(), &object.manifest.id.name, object.annotations(), spec)
}
