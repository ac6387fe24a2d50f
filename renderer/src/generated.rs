//! Secrets that a generator makes of sealed values become SealedSecrets.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use manifests::Manifest;
use sealing::{CLUSTER_WIDE_ANNOTATION, Format, NAMESPACE_WIDE_ANNOTATION, Scope, SealedValue};
use serde_json::{Map, Value, json};

/// Sizes of RSA keys that values are sealed with. Bytes that are not a sealed value rarely have the form of a value for
/// a key of one of these sizes.
const KEY_BITS: [usize; 4] = [2048, 3072, 4096, 8192];

/// The version of the kind SealedSecret.
const VERSION: &str = "v1alpha1";

/// If all values of a generated Secret are sealed, replaces the Secret by a SealedSecret, and returns the YAML of the
/// SealedSecret. Any other object stays as it is.
pub(crate) fn seal(generated: &mut Manifest) -> Option<String> {
    let body = sealed(generated)?;
    replace(generated, body)
}

/// Puts a SealedSecret with this body in the place of a Secret, and returns the YAML of the SealedSecret.
pub(crate) fn replace(secret: &mut Manifest, body: Map<String, Value>) -> Option<String> {
    let yaml = serde_saphyr::to_string(&body).ok()?;
    secret.id = secret.id.sealed_secret();
    VERSION.clone_into(&mut secret.version);
    secret.body = body;
    Some(yaml)
}

/// The SealedSecret for a Secret all of whose values are sealed; `None` for any other object. The Secret that is unsealed has
/// the type, the labels and the annotations that the generator wrote.
fn sealed(secret: &Manifest) -> Option<Map<String, Value>> {
    let Manifest { id, body, .. } = secret;
    let data = body.get("data").and_then(Value::as_object).filter(|data| !data.is_empty())?;
    if !id.is_secret() || body.contains_key("stringData") {
        return None;
    }
    let encrypted: Option<Map<String, Value>> =
        data.iter().map(|(key, value)| Some((key.clone(), Value::String(sealed_value(value.as_str()?)?)))).collect();
    let annotations = body.get("metadata")?.get("annotations");
    let scope = Scope::from_annotations(|name| annotations?.get(name)?.as_str());
    sealed_secret(body, encrypted?, Map::new(), scope)
}

/// The SealedSecret for the Secret in `body`, with the sealed values in `encrypted` and the Go templates in `data`,
/// which make the values. The Secret that is unsealed has the same type, labels and annotations. Annotations for
/// gitseal stay with the SealedSecret. `None` if the Secret has no metadata.
pub(crate) fn sealed_secret(
    body: &Map<String, Value>,
    encrypted: Map<String, Value>,
    data: Map<String, Value>,
    scope: Scope,
) -> Option<Map<String, Value>> {
    let mut metadata = body.get("metadata")?.as_object()?.clone();
    let (labels, annotations) = (metadata.remove("labels"), metadata.remove("annotations"));
    let mut own = Map::new();
    own.extend(scope.annotation().map(|annotation| (annotation.to_owned(), "true".into())));
    let mut of_secret = Map::new();
    of_secret.extend(labels.map(|labels| ("labels".to_owned(), labels)));
    if let Some(Value::Object(mut annotations)) = annotations {
        annotations.remove(CLUSTER_WIDE_ANNOTATION);
        annotations.remove(NAMESPACE_WIDE_ANNOTATION);
        let (for_gitseal, others): (Map<_, _>, Map<_, _>) =
            annotations.into_iter().partition(|(name, _)| name.starts_with("gitseal.dev/"));
        own.extend(for_gitseal);
        if !others.is_empty() {
            of_secret.insert("annotations".to_owned(), Value::Object(others));
        }
    }
    if !own.is_empty() {
        metadata.insert("annotations".to_owned(), Value::Object(own));
    }
    let mut template = Map::new();
    template.extend(body.get("type").map(|kind| ("type".to_owned(), kind.clone())));
    template.extend(body.get("immutable").map(|is| ("immutable".to_owned(), is.clone())));
    if !of_secret.is_empty() {
        template.insert("metadata".to_owned(), Value::Object(of_secret));
    }
    if !data.is_empty() {
        template.insert("data".to_owned(), Value::Object(data));
    }
    let mut spec = Map::from_iter([("encryptedData".to_owned(), Value::Object(encrypted))]);
    if !template.is_empty() {
        spec.insert("template".to_owned(), Value::Object(template));
    }
    let sealed = json!({
        "apiVersion": format!("bitnami.com/{VERSION}"), "kind": "SealedSecret", "metadata": metadata, "spec": spec,
    });
    match sealed {
        Value::Object(sealed) => Some(sealed),
        _ => None,
    }
}

/// The sealed value in `data`. `data` is the base64 of the sealed value, which is base64 itself.
fn sealed_value(data: &str) -> Option<String> {
    // Kustomize breaks long values into lines.
    let data: String = data.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(data).ok()?;
    let text = std::str::from_utf8(&bytes).ok()?.trim();
    let value = SealedValue::parse(text).ok()?;
    let is_likely = value.format() == Format::Age || value.rsa_bits().is_some_and(|bits| KEY_BITS.contains(&bits));
    is_likely.then(|| text.to_owned())
}

#[cfg(test)]
mod tests {
    use manifests::Limits;

    use super::*;

    /// A text with the form and the length of a value under a key of 2,048 bits.
    fn value() -> String {
        STANDARD.encode([&[1, 0][..], &[7; 300]].concat())
    }

    fn secret(values: &[(&str, &str)], more: &str) -> String {
        let lines: String =
            values.iter().map(|(key, value)| format!("  {key}: {}\n", STANDARD.encode(value))).collect();
        format!("apiVersion: v1\nkind: Secret\nmetadata:\n  name: db-5tb4\n{more}type: Opaque\ndata:\n{lines}")
    }

    /// The only object in `yaml`.
    fn read(yaml: &str) -> Manifest {
        let manifests = manifests::parse("base/kustomization.yaml", yaml.as_bytes(), &Limits::default()).unwrap();
        manifests.into_iter().next().unwrap()
    }

    #[test]
    fn a_secret_of_sealed_values_becomes_a_sealed_secret() {
        let sealed = value();
        let more = "  labels: {app: shop}\n  annotations:\n    sealedsecrets.bitnami.com/namespace-wide: 'true'\n    kept: 'yes'\n";
        let mut made = read(&secret(&[("password", &format!("{sealed}\n"))], more));
        let yaml = seal(&mut made).unwrap();
        let expected = json!({
            "apiVersion": "bitnami.com/v1alpha1",
            "kind": "SealedSecret",
            "metadata": {"name": "db-5tb4", "annotations": {"sealedsecrets.bitnami.com/namespace-wide": "true"}},
            "spec": {
                "encryptedData": {"password": sealed},
                "template": {
                    "type": "Opaque",
                    "metadata": {"labels": {"app": "shop"}, "annotations": {"kept": "yes"}},
                },
            },
        });
        assert_eq!(Value::Object(made.body.clone()), expected);
        assert!(made == read(&yaml), "the object is not that of its YAML: {yaml}");
    }

    #[test]
    fn one_plain_value_is_enough_to_leave_it_as_it_is() {
        let sealed = value();
        for values in [&[("a", sealed.as_str()), ("b", "plain")][..], &[("b", "aGVsbG8gd29ybGQgYWdhaW4=")], &[]] {
            let before = read(&secret(values, ""));
            let mut after = before.clone();
            assert_eq!(seal(&mut after), None, "{values:?}");
            assert!(after == before, "{values:?}");
        }
        assert_eq!(seal(&mut read("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")), None);
    }
}
