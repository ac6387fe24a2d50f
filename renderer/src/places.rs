//! The places that sealed values are bound to: the scope, and the namespace, name and key for which a value was sealed.
//! They are compared, so that it is noticed if fields of a Sync that change rendered objects make a value impossible to
//! unseal.

use std::collections::HashMap;

use manifests::Manifest;
use sealing::{Format, Scope, SealedValue};
use serde_json::Value;
use sha2::{Digest as _, Sha256};

/// What a sealed value is bound to.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Place {
    scope: Scope,
    /// `None` if the manifest names no namespace.
    namespace: Option<String>,
    name: String,
    key: String,
    /// Whether the value is bound to the key, too. Only the age format does that.
    binds_key: bool,
}

/// The places of sealed values, by a digest of the sealed text.
#[derive(Debug, Default)]
pub(crate) struct Places(HashMap<[u8; 32], Vec<Place>>);

/// A sealed value that is now at another place than the one it was sealed for.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Moved {
    from: Place,
    to: Place,
}

impl Places {
    /// The places of all values of the SealedSecrets among some objects.
    pub(crate) fn of<'a>(manifests: impl IntoIterator<Item = &'a Manifest>) -> Self {
        let mut all = Self::default();
        for (text, place) in manifests.into_iter().flat_map(values) {
            all.0.entry(digest(text)).or_default().push(place);
        }
        all
    }

    /// Adds the values that `others` knows.
    pub(crate) fn extend(&mut self, others: Self) {
        for (text, places) in others.0 {
            self.0.entry(text).or_default().extend(places);
        }
    }

    /// The places of a value, by its sealed text; `None` if the value is not known.
    fn get(&self, text: &str) -> Option<&[Place]> {
        self.0.get(&digest(text)).map(Vec::as_slice)
    }
}

/// The sealed texts of a SealedSecret, each with its place.
fn values(manifest: &Manifest) -> impl Iterator<Item = (&str, Place)> {
    let Manifest { id, body, .. } = manifest;
    let annotations = body.get("metadata").and_then(|metadata| metadata.get("annotations"));
    let scope = Scope::from_annotations(|name| annotations?.get(name)?.as_str());
    let data = body.get("spec").and_then(|spec| spec.get("encryptedData")).and_then(Value::as_object);
    let data = data.filter(|_| id.is_sealed_secret());
    data.into_iter().flatten().filter_map(move |(key, text)| {
        let text = text.as_str()?.trim();
        let binds_key = SealedValue::parse(text).is_ok_and(|value| value.format() == Format::Age);
        let (namespace, name, key) = (id.namespace.clone(), id.name.clone(), key.clone());
        Some((text, Place { scope, namespace, name, key, binds_key }))
    })
}

fn digest(text: &str) -> [u8; 32] {
    Sha256::digest(text).into()
}

/// The first value of a SealedSecret that was sealed for another place. The first item of `known` that contains a value
/// says for which place the value was sealed. A value that no item contains counts as not moved. `namespace` takes the
/// namespace in the manifest of an object, and returns the namespace in which the object is applied.
pub(crate) fn moved(
    manifest: &Manifest,
    known: &[&Places],
    namespace: impl Fn(Option<&str>) -> String,
) -> Option<Moved> {
    values(manifest).find_map(|(text, to)| {
        let places = known.iter().find_map(|places| places.get(text))?;
        let is_same = |from: &Place| from.is_bound_as(&to, &namespace);
        if places.iter().any(is_same) { None } else { Some(Moved { from: places.first()?.clone(), to }) }
    })
}

/// Whether the SealedSecret has a value for which none of `known` says that it was sealed for the place where it is
/// now.
pub(crate) fn is_in_doubt(manifest: &Manifest, known: &[&Places], namespace: impl Fn(Option<&str>) -> String) -> bool {
    values(manifest).any(|(text, to)| {
        let mut places = known.iter().filter_map(|places| places.get(text)).flatten();
        !places.any(|from| from.is_bound_as(&to, &namespace))
    })
}

impl Place {
    /// Whether a value that is sealed for this place can be unsealed at another one.
    fn is_bound_as(&self, other: &Self, namespace: impl Fn(Option<&str>) -> String) -> bool {
        let in_same_namespace = || namespace(self.namespace.as_deref()) == namespace(other.namespace.as_deref());
        self.scope == other.scope
            && match self.scope {
                Scope::ClusterWide => true,
                Scope::NamespaceWide => in_same_namespace(),
                Scope::Strict => {
                    let in_same_key = !self.binds_key || self.key == other.key;
                    in_same_namespace() && self.name == other.name && in_same_key
                }
            }
    }
}

impl Moved {
    /// What is wrong, and what to do.
    pub(crate) fn in_words(&self, namespace: impl Fn(Option<&str>) -> String) -> String {
        let Self { from, to } = self;
        let (here, there) = (namespace(from.namespace.as_deref()), namespace(to.namespace.as_deref()));
        if from.scope != to.scope {
            return format!(
                "its value {} is sealed with the scope {}, but the Sync changes the scope annotation to {}, so the \
                 value could not be unsealed: leave the annotation as it is",
                from.key, from.scope, to.scope
            );
        }
        let (sealed_for, becomes, scope) = if here != there {
            (format!("the namespace {here}"), format!("in the namespace {there}"), "cluster-wide")
        } else if from.name != to.name {
            (format!("the name {}", from.name), format!("called {}", to.name), "namespace-wide")
        } else {
            (format!("the key {}", from.key), format!("at the key {}", to.key), "namespace-wide")
        };
        format!(
            "its value {} is sealed for {sealed_for}, but with the changes of the Sync it is {becomes}, so it could \
             not be unsealed: seal it again with --scope {scope}",
            from.key
        )
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    fn sealed(name: &str, scope: &str, data: &str) -> Manifest {
        let text = format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{{name}, annotations: {{{scope}: 'true'}}}}\n\
             spec: {{encryptedData: {{{data}}}}}\n"
        );
        let parsed = manifests::parse("a.yaml", text.as_bytes(), &manifests::Limits::default());
        parsed.unwrap().into_iter().next().unwrap()
    }

    fn namespace(own: Option<&str>) -> String {
        own.unwrap_or("shop").to_owned()
    }

    const WIDE: &str = "sealedsecrets.bitnami.com/namespace-wide";
    const CLUSTER: &str = "sealedsecrets.bitnami.com/cluster-wide";

    #[test]
    fn a_value_is_in_its_place_by_its_scope() {
        let places = |from: &Manifest| Places::of([from]);
        for (scope, name, data, is_moved) in [
            ("x", "name: db", "password: AgB1", false),
            ("x", "name: db, namespace: shop", "password: AgB1", false),
            ("x", "name: new-db", "password: AgB1", true),
            ("x", "name: db, namespace: other", "password: AgB1", true),
            ("x", "name: db", "token: AgB1", false),
            ("x", "name: new-db", "password: AgB2", false),
            (WIDE, "name: new-db", "token: AgB1", false),
            (WIDE, "name: db, namespace: other", "password: AgB1", true),
            (CLUSTER, "name: new-db, namespace: other", "token: AgB1", false),
        ] {
            let from = places(&sealed("name: db", scope, "password: AgB1"));
            let to = sealed(name, scope, data);
            assert_eq!(moved(&to, &[&from], namespace).is_some(), is_moved, "{scope} {name} {data}");
            let other_scope = sealed(name, "sealedsecrets.bitnami.com/other", data);
            assert!(scope == "x" || moved(&other_scope, &[&from], namespace).is_some(), "{scope}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do() {
        let from = Places::of([&sealed("name: db", "x", "password: AgB1")]);
        let said = |name: &str, scope: &str, data: &str| {
            moved(&sealed(name, scope, data), &[&from], namespace).unwrap().in_words(namespace)
        };
        assert_eq!(
            said("name: p-db", "x", "password: AgB1"),
            "its value password is sealed for the name db, but with the changes of the Sync it is called p-db, so it \
             could not be unsealed: seal it again with --scope namespace-wide"
        );
        let told = said("name: db, namespace: b", "x", "password: AgB1");
        assert!(told.contains("for the namespace shop") && told.ends_with("--scope cluster-wide"), "{told}");
        assert!(said("name: db", WIDE, "p: AgB1").contains("with the scope strict"));
    }

    #[test]
    fn a_value_in_the_age_format_is_bound_to_its_key() {
        let age = format!("password: {}", STANDARD.encode("age-encryption.org/v1\n-> X25519 a\n"));
        let from = Places::of([&sealed("name: db", "x", &age)]);
        let to = sealed("name: db", "x", &age.replace("password", "token"));
        let told = moved(&to, &[&from], namespace).unwrap().in_words(namespace);
        assert!(told.contains("sealed for the key password") && told.contains("is at the key token"), "{told}");
    }

    #[test]
    fn the_first_that_knows_a_value_decides() {
        let (first, second) = (sealed("name: a", "x", "k: AgB1"), sealed("name: b", "x", "k: AgB1"));
        let [a, b] = [&first, &second].map(|one| Places::of([one]));
        assert!(moved(&second, &[&a, &b], namespace).is_some() && moved(&second, &[&b, &a], namespace).is_none());
        assert!(!is_in_doubt(&second, &[&a, &b], namespace));
        assert!(is_in_doubt(&second, &[&a], namespace) && is_in_doubt(&second, &[], namespace));
    }
}
