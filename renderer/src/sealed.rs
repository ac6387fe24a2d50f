//! Sealed values for charts.
//!
//! Templates see neither a value nor its sealed form. They see a placeholder, which is a word of letters and digits. After the
//! render, each Secret that contains placeholders becomes a SealedSecret. Its own templates put the values where the
//! placeholders were. So rendering needs no key, and these values are unsealed like all others.
//!
//! A placeholder contains a digest of the sealed value, which everybody who can read the repository knows. So a digest that a
//! chart computes, for example for an annotation `checksum/secret`, changes when the value is sealed again.

use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::names::TEMPLATE_INPUTS;
use manifests::Manifest;
use sealing::{Scope, SealedValue};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    Values,
    generated::{replace, sealed_secret},
};

/// Sealed values of a file for a chart.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedValues {
    /// The file in the repository. It contains one SealedSecret.
    pub file: String,
    /// The key of the value; `None` for all values of the SealedSecret.
    pub key: Option<String>,
    /// The name of the value in the chart, as for `helm --set`. If there is no `key`, the name of a table: each value gets its
    /// own key there.
    pub path: String,
}

/// The beginning of each placeholder. Where it is found in other letters or with another end, a template changed a placeholder.
const BEGINS_WITH: &str = "gitsealvalue";

/// A sealed value, and the word that stands for it.
struct Placeholder {
    word: String,
    /// Its name in the chart.
    path: String,
    file: String,
    key: String,
    text: String,
    scope: Scope,
    /// The namespace and the name of its SealedSecret.
    namespace: Option<String>,
    name: String,
    /// Whether a Secret contains it.
    is_used: Cell<bool>,
}

/// The length of every placeholder, in bytes.
const LENGTH: usize = BEGINS_WITH.len() + 32;

/// The placeholders of one render. Errors are texts that say what is wrong and what to do.
#[derive(Default)]
pub(crate) struct Placeholders {
    all: Vec<Placeholder>,
    /// Where each word is in `all`. There may be many words, and texts with many of them.
    by_word: HashMap<String, usize>,
}

/// A part of a text.
#[derive(Debug)]
enum Part<'t> {
    Text(&'t str),
    /// The placeholder with this index.
    Value(usize),
    /// Parts of a text in base64.
    Base64(Vec<OwnedPart>),
}

/// A part of a text that was decoded.
#[derive(Debug)]
enum OwnedPart {
    Text(String),
    Value(usize),
}

impl Placeholders {
    /// Adds the values of the file that contains `manifests`. Returns the values that the chart gets instead.
    pub(crate) fn add(&mut self, wanted: &SealedValues, manifests: &[Manifest]) -> Result<Vec<Values>, String> {
        let SealedValues { file, key, path } = wanted;
        let [sealed] = manifests else {
            return Err(format!(
                "{file} has {} objects: a file with sealed values has one SealedSecret",
                manifests.len()
            ));
        };
        if !sealed.id.is_sealed_secret() {
            return Err(format!("{} is not a SealedSecret, but {}", sealed.origin, sealed.id));
        }
        let body = &sealed.body;
        let annotations = body.get("metadata").and_then(|metadata| metadata.get("annotations"));
        let scope = Scope::from_annotations(|name| annotations?.get(name)?.as_str());
        let none = Map::new();
        let data = body.get("spec").and_then(|spec| spec.get("encryptedData")).and_then(Value::as_object);
        let data = data.unwrap_or(&none);
        let wanted: Vec<(&String, &Value)> = match key {
            None => data.iter().collect(),
            Some(key) => data.get_key_value(key).into_iter().collect(),
        };
        if wanted.is_empty() {
            let keys: Vec<_> = data.keys().map(String::as_str).collect();
            let there_is =
                if keys.is_empty() { "it has no values".to_owned() } else { format!("it has {}", keys.join(", ")) };
            let key = key.as_deref().unwrap_or_default();
            return Err(format!("{} has no sealed value {key}: {there_is}", sealed.origin));
        }
        let mut values = Vec::new();
        for (of, text) in wanted {
            let text = text.as_str().unwrap_or_default().trim();
            SealedValue::parse(text)
                .map_err(|error| format!("{}: {of} is not a sealed value: {error}", sealed.origin))?;
            let path = if key.is_some() { path.clone() } else { format!("{path}.{}", of.replace('.', "\\.")) };
            let namespace = sealed.id.namespace.clone();
            let bound = json!([scope, namespace, sealed.id.name, of, text]).to_string();
            let digest =
                Sha256::digest(bound)[..16].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            let word = format!("{BEGINS_WITH}{digest}");
            values.push(Values::SetString(format!("{path}={word}")));
            self.by_word.insert(word.clone(), self.all.len());
            self.all.push(Placeholder {
                word,
                path,
                file: file.clone(),
                key: of.clone(),
                text: text.to_owned(),
                scope,
                namespace,
                name: sealed.id.name.clone(),
                is_used: Cell::new(false),
            });
        }
        Ok(values)
    }

    /// Makes a SealedSecret of a Secret with placeholders, and returns the YAML of it. Fails if another object contains a
    /// placeholder. `namespace` is where the object is applied.
    pub(crate) fn resolve(&self, manifest: &mut Manifest, namespace: &str) -> Result<Option<String>, String> {
        if self.all.is_empty() {
            return Ok(None);
        }
        Ok(self.resolved(manifest, namespace)?.and_then(|body| replace(manifest, body)))
    }

    fn resolved(&self, manifest: &Manifest, namespace: &str) -> Result<Option<Map<String, Value>>, String> {
        let Manifest { id, body, .. } = manifest;
        let is_value = |field: &str| id.is_secret() && matches!(field, "data" | "stringData");
        for (field, value) in body.iter().filter(|(field, _)| !is_value(field)) {
            if let Some(place) = place_of_word(field, value) {
                return Err(self.outside(&place, value));
            }
        }
        if !id.is_secret() {
            return Ok(None);
        }
        let values = values_of(body);
        let mut parts = BTreeMap::new();
        for (key, (field, text)) in &values {
            let Some(text) = text else { continue };
            parts.insert(key.as_str(), (field, std::str::from_utf8(text).ok().map(|text| self.parts(text))));
        }
        let has_value = |parts: &Vec<Part<'_>>| parts.iter().any(|part| !matches!(part, Part::Text(_)));
        if !parts.values().any(|(_, parts)| matches!(parts, Some(Ok(parts)) if has_value(parts))) {
            // Nothing of it is sealed, unless a template changed a placeholder.
            return match parts
                .iter()
                .find_map(|(key, (field, parts))| Some((key, field, parts.as_ref()?.as_ref().err()?)))
            {
                Some((key, field, ())) => Err(changed(field, key)),
                None => Ok(None),
            };
        }
        let mut all = Vec::new();
        for (key, (field, _)) in &values {
            match parts.remove(key.as_str()) {
                Some((_, Some(Ok(parts)))) => all.push((key.as_str(), parts)),
                Some((field, Some(Err(())))) => return Err(changed(field, key)),
                Some((_, None)) | None => {
                    return Err(format!(
                        "{field}.{key} is not text, and a Secret with a sealed value can only have text beside it: \
                         give it a Secret of its own"
                    ));
                }
            }
        }
        self.sealed(manifest, namespace, all).map(Some)
    }

    /// The SealedSecret for a Secret with these values.
    fn sealed(
        &self,
        secret: &Manifest,
        namespace: &str,
        values: Vec<(&str, Vec<Part<'_>>)>,
    ) -> Result<Map<String, Value>, String> {
        let taken: BTreeSet<&str> = values.iter().map(|(key, _)| *key).collect();
        let (mut encrypted, mut names, mut inputs) = (Map::new(), BTreeMap::new(), Vec::new());
        for (key, parts) in &values {
            if let [Part::Value(index)] = parts[..] {
                encrypted.insert((*key).to_owned(), self.all[index].text.clone().into());
                names.entry(index).or_insert((*key).to_owned());
            }
        }
        let mut scope: Option<&Placeholder> = None;
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for index in values.iter().flat_map(|(_, parts)| parts).flat_map(Part::values) {
            let one = &self.all[index];
            one.fits(namespace, &secret.id.name)?;
            one.is_used.set(true);
            if let Some(other) = scope.replace(one).filter(|other| other.scope != one.scope) {
                return Err(format!(
                    "it contains sealed values of {} ({}) and of {} ({}), and a SealedSecret has one scope: seal both \
                     with the same --scope",
                    other.file, other.scope, one.file, one.scope
                ));
            }
            if names.contains_key(&index) {
                continue;
            }
            let number = numbers.entry(one.key.as_str()).or_insert(1);
            let mut name = one.key.clone();
            while taken.contains(name.as_str()) || encrypted.contains_key(&name) {
                *number += 1;
                name = format!("{}-{number}", one.key);
            }
            encrypted.insert(name.clone(), one.text.clone().into());
            inputs.push(name.clone());
            names.insert(index, name);
        }
        let mut templates = Map::new();
        for (key, parts) in &values {
            if !matches!(parts[..], [Part::Value(_)]) {
                templates.insert((*key).to_owned(), template(parts, &names).into());
            }
        }
        let scope = scope.map_or(Scope::Strict, |one| one.scope);
        let mut sealed = sealed_secret(&secret.body, encrypted, templates, scope).unwrap_or_default();
        if !inputs.is_empty()
            && let Some(Value::Object(metadata)) = sealed.get_mut("metadata")
        {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            annotations[TEMPLATE_INPUTS] = inputs.join(",").into();
        }
        Ok(sealed)
    }

    /// Fails if a value is in no Secret.
    pub(crate) fn all_used(&self) -> Result<(), String> {
        let Some(unused) = self.all.iter().find(|one| !one.is_used.get()) else { return Ok(()) };
        Err(format!(
            "no Secret of the chart contains {}, the sealed value {} of {}: either the chart does not use it with these values, \
             or its templates compute something from it, for example a hash. Templates do not see sealed values: they can \
             only place them in Secrets, combine them with other text, and encode them with b64enc",
            unused.path, unused.key, unused.file
        ))
    }

    /// The error for a placeholder in `value` that is not a value of a Secret.
    fn outside(&self, place: &str, value: &Value) -> String {
        let text = value.to_string();
        let which = self.all.iter().find(|one| text.contains(&one.word)).map(|one| format!(" {}", one.path));
        format!(
            "{place} contains the sealed value{}: a sealed value can only be in data or stringData of a Secret. Give the \
             chart the name of a Secret instead, for example in a value `existingSecret`",
            which.unwrap_or_default()
        )
    }

    /// The parts of a text. Fails if a template changed a placeholder.
    fn parts<'t>(&self, text: &'t str) -> Result<Vec<Part<'t>>, ()> {
        let mut parts = Vec::new();
        let mut rest = text;
        while let Some((before, word, after)) = self.next_word(rest) {
            self.texts(before, &mut parts)?;
            parts.push(Part::Value(word));
            rest = after;
        }
        self.texts(rest, &mut parts)?;
        Ok(parts)
    }

    /// The text before the next placeholder, its index, and the text after it.
    fn next_word<'t>(&self, text: &'t str) -> Option<(&'t str, usize, &'t str)> {
        text.match_indices(BEGINS_WITH).find_map(|(at, _)| {
            let end = at + LENGTH;
            let index = *self.by_word.get(text.get(at..end)?)?;
            Some((&text[..at], index, &text[end..]))
        })
    }

    /// The parts of a text without a placeholder, except in base64.
    fn texts<'t>(&self, text: &'t str, parts: &mut Vec<Part<'t>>) -> Result<(), ()> {
        if has_word(text) {
            return Err(());
        }
        let is_base64 = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/' | b'=');
        let (mut from, mut start) = (0, 0);
        for end in 0..=text.len() {
            if text.as_bytes().get(end).is_some_and(|byte| is_base64(*byte)) {
                continue;
            }
            if let Some(decoded) = text.get(start..end).and_then(|run| self.decoded(run)) {
                push_text(parts, &text[from..start]);
                parts.push(Part::Base64(decoded?));
                from = end;
            }
            start = end + 1;
        }
        push_text(parts, &text[from..]);
        Ok(())
    }

    /// The parts of a text in base64, if it contains a placeholder.
    fn decoded(&self, run: &str) -> Option<Result<Vec<OwnedPart>, ()>> {
        // Shorter ones cannot contain a placeholder.
        if run.len() < BEGINS_WITH.len() {
            return None;
        }
        let text = String::from_utf8(STANDARD.decode(run).ok()?).ok()?;
        if !has_word(&text) {
            return None;
        }
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, word, after)) = self.next_word(rest) {
            parts.extend([OwnedPart::Text(before.to_owned()), OwnedPart::Value(word)]);
            rest = after;
        }
        parts.push(OwnedPart::Text(rest.to_owned()));
        let is_changed = |part: &OwnedPart| matches!(part, OwnedPart::Text(text) if has_word(text));
        Some(if parts.iter().any(is_changed) { Err(()) } else { Ok(parts) })
    }
}

impl Placeholder {
    /// Fails if the value cannot be unsealed in the Secret `name` of `namespace`.
    fn fits(&self, namespace: &str, name: &str) -> Result<(), String> {
        let own = self.namespace.as_deref().unwrap_or(namespace);
        let fits = match self.scope {
            Scope::ClusterWide => true,
            Scope::NamespaceWide => own == namespace,
            Scope::Strict => own == namespace && self.name == name,
        };
        if fits {
            return Ok(());
        }
        let (sealed_for, remedy) = match self.scope {
            Scope::Strict => (format!("the Secret {own}/{}", self.name), "--scope namespace-wide"),
            _ => (format!("the namespace {own}"), "--scope cluster-wide"),
        };
        Err(format!(
            "it contains {}, the sealed value {} of {}, which is sealed for {sealed_for} and cannot be unsealed here: seal it \
             for the Secret {namespace}/{name}, or with {remedy}",
            self.path, self.key, self.file
        ))
    }
}

impl Part<'_> {
    /// The placeholders in it.
    fn values(&self) -> Vec<usize> {
        match self {
            Self::Text(_) => Vec::new(),
            Self::Value(index) => vec![*index],
            Self::Base64(parts) => parts.iter().filter_map(OwnedPart::value).collect(),
        }
    }
}

impl OwnedPart {
    fn value(&self) -> Option<usize> {
        match self {
            Self::Text(_) => None,
            Self::Value(index) => Some(*index),
        }
    }
}

fn push_text<'t>(parts: &mut Vec<Part<'t>>, text: &'t str) {
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
}

/// The values of a Secret, each with the field that it is in; `None` if it is not in base64. As for the API server,
/// `stringData` replaces `data`.
fn values_of(secret: &Map<String, Value>) -> BTreeMap<String, (&'static str, Option<Vec<u8>>)> {
    let entries = |field: &str| secret.get(field).and_then(Value::as_object).into_iter().flatten();
    let decode = |value: &Value| {
        let text: String = value.as_str().unwrap_or_default().split_ascii_whitespace().collect();
        STANDARD.decode(text).ok()
    };
    let data = entries("data").map(|(key, value)| (key.clone(), ("data", decode(value))));
    let texts = entries("stringData").map(|(key, value)| {
        (key.clone(), ("stringData", Some(value.as_str().unwrap_or_default().as_bytes().to_vec())))
    });
    data.chain(texts).collect()
}

/// A Go template for a text with these parts. `names` are the keys of the values.
fn template(parts: &[Part<'_>], names: &BTreeMap<usize, String>) -> String {
    let value = |index: &usize| format!("index . {}", json!(names[index]));
    let mut text = String::new();
    for (number, part) in parts.iter().enumerate() {
        match part {
            Part::Text(literal) => {
                let is_last = number + 1 == parts.len();
                text.push_str(&escaped(literal, is_last));
            }
            Part::Value(index) => text.push_str(&format!("{{{{ {} }}}}", value(index))),
            Part::Base64(parts) => {
                let arguments = parts.iter().map(|part| match part {
                    OwnedPart::Text(text) => json!(text).to_string(),
                    OwnedPart::Value(index) => format!("({})", value(index)),
                });
                let arguments: Vec<_> = arguments.collect();
                let format = json!("%s".repeat(arguments.len()));
                text.push_str(&format!("{{{{ printf {format} {} | b64enc }}}}", arguments.join(" ")));
            }
        }
    }
    text
}

/// A text that a Go template prints as it is. Two braces begin an action there; so would one brace before an action.
fn escaped(literal: &str, is_last: bool) -> String {
    let mut text = literal.replace("{{", r#"{{ "{{" }}"#);
    if !is_last && literal.ends_with('{') && !literal.ends_with("{{") {
        text.pop();
        text.push_str(r#"{{ "{" }}"#);
    }
    text
}

/// Whether a text contains a placeholder, even in other letters.
fn has_word(text: &str) -> bool {
    let (text, word) = (text.as_bytes(), BEGINS_WITH.as_bytes());
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// Where in a value a placeholder is, as a path of fields.
fn place_of_word(field: &str, value: &Value) -> Option<String> {
    match value {
        Value::String(text) => has_word(text).then(|| field.to_owned()),
        Value::Array(items) => {
            items.iter().enumerate().find_map(|(at, item)| place_of_word(&format!("{field}[{at}]"), item))
        }
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            if has_word(name) { Some(field.to_owned()) } else { place_of_word(&format!("{field}.{name}"), value) }
        }),
        _ => None,
    }
}

fn changed(field: &str, key: &str) -> String {
    format!(
        "{field}.{key} contains a sealed value that a template changed, for example with trunc or upper: templates can only \
         place sealed values, combine them with other text, and encode them with b64enc"
    )
}

#[cfg(test)]
mod tests {
    use manifests::Limits;

    use super::*;

    /// As long as a value under a key of 2,048 bits, in its form.
    fn sealed_text(fill: u8) -> String {
        STANDARD.encode([&[1, 0][..], &[fill; 300]].concat())
    }

    fn parsed(text: &str) -> Vec<Manifest> {
        manifests::parse("secrets/db.yaml", text.as_bytes(), &Limits::default()).unwrap()
    }

    fn file(scope: &str) -> String {
        let annotations = if scope.is_empty() { String::new() } else { format!(", annotations: {{{scope}: 'true'}}") };
        format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop{annotations}}}\n\
             spec:\n  encryptedData:\n    password: {}\n    tls.key: {}\n",
            sealed_text(7),
            sealed_text(8)
        )
    }

    const WIDE: &str = "sealedsecrets.bitnami.com/namespace-wide";

    fn placeholders(scope: &str) -> (Placeholders, Vec<String>) {
        let mut all = Placeholders::default();
        let wanted = SealedValues { file: "secrets/db.yaml".into(), key: None, path: "auth".into() };
        let values = all.add(&wanted, &parsed(&file(scope))).unwrap();
        let words = values.into_iter().map(|value| match value {
            Values::SetString(text) => text.split_once('=').unwrap().1.to_owned(),
            other => panic!("{other:?}"),
        });
        let words = words.collect();
        (all, words)
    }

    fn resolve(all: &Placeholders, text: &str) -> Result<Option<Value>, String> {
        let [manifest] = &parsed(text)[..] else { panic!("{text}") };
        all.resolved(manifest, manifest.id.namespace.as_deref().unwrap_or("shop")).map(|made| made.map(Value::Object))
    }

    fn secret(values: &str) -> String {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: web, labels: {{app: web}}}}\ntype: Opaque\n{values}")
    }

    #[test]
    fn values_become_words_with_their_names_in_the_chart() {
        let mut all = Placeholders::default();
        let wanted = |key: Option<&str>| SealedValues {
            file: "secrets/db.yaml".into(),
            key: key.map(str::to_owned),
            path: "auth".into(),
        };
        let of_all = all.add(&wanted(None), &parsed(&file(WIDE))).unwrap();
        let names = of_all.iter().map(|value| match value {
            Values::SetString(text) => text.split_once('=').unwrap().0,
            other => panic!("{other:?}"),
        });
        assert_eq!(names.collect::<Vec<_>>(), ["auth.password", "auth.tls\\.key"]);
        assert_eq!(all.add(&wanted(Some("password")), &parsed(&file(WIDE))).unwrap().len(), 1);
        let none = all.add(&wanted(Some("user")), &parsed(&file(WIDE))).unwrap_err();
        assert_eq!(none, "secrets/db.yaml:1 has no sealed value user: it has password, tls.key");
        let two = file(WIDE) + "---\n" + &file(WIDE);
        assert!(all.add(&wanted(None), &parsed(&two)).unwrap_err().contains("has 2 objects"));
        let other = all.add(&wanted(None), &parsed(&secret("stringData: {}\n"))).unwrap_err();
        assert!(other.contains("is not a SealedSecret, but Secret"), "{other}");
    }

    #[test]
    fn a_secret_with_words_becomes_a_sealed_secret() {
        let (all, words) = placeholders(WIDE);
        let (password, key) = (&words[0], &words[1]);
        let encoded = STANDARD.encode(format!("me:{password}"));
        let url = STANDARD.encode(format!("postgres://me:{password}@db/{{{key}}} {{{{ x }}}}"));
        let text = secret(&format!(
            "data:\n  url: {url}\n  plain: {}\nstringData:\n  password: {password}\n  auth: '{{\"a\": \"{encoded}\"}}'\n",
            STANDARD.encode("user")
        ));
        let made = resolve(&all, &text).unwrap().unwrap();
        let expected = json!({
            "apiVersion": "bitnami.com/v1alpha1",
            "kind": "SealedSecret",
            "metadata": {"name": "web", "annotations": {WIDE: "true", "gitseal.dev/template-inputs": "tls.key"}},
            "spec": {
                "encryptedData": {"password": sealed_text(7), "tls.key": sealed_text(8)},
                "template": {
                    "type": "Opaque",
                    "metadata": {"labels": {"app": "web"}},
                    "data": {
                        "auth": r#"{"a": "{{ printf "%s%s%s" "me:" (index . "password") "" | b64enc }}"}"#,
                        "plain": "user",
                        "url": r#"postgres://me:{{ index . "password" }}@db/{{ "{" }}{{ index . "tls.key" }}} {{ "{{" }} x }}"#,
                    },
                },
            },
        });
        assert_eq!(made, expected);
        assert_eq!(all.all_used(), Ok(()));
    }

    #[test]
    fn what_no_secret_contains_is_refused() {
        let (all, words) = placeholders(WIDE);
        let word = &words[0];
        assert_eq!(resolve(&all, &secret("stringData: {a: b}\n")), Ok(None));
        let refused = |text: &str| resolve(&all, text).unwrap_err();
        let map =
            |value: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: web}}\ndata:\n  a: [{value}]\n");
        let told = refused(&map(&format!("x{word}y")));
        assert!(
            told.starts_with("data.a[0] contains the sealed value auth.password: a sealed value can only"),
            "{told}"
        );
        assert!(refused(&map(&word.to_uppercase())).starts_with("data.a[0] contains the sealed value: "));
        let labelled = secret("stringData: {}\n").replace("app: web", &format!("app: {word}"));
        assert!(refused(&labelled).starts_with("metadata.labels.app contains"));
        for changed in [word[..20].to_owned(), word.to_uppercase(), STANDARD.encode(word.to_uppercase())] {
            let told = refused(&secret(&format!("stringData: {{a: {changed}, b: {word}}}\n")));
            assert!(told.starts_with("stringData.a contains a sealed value that a template changed"), "{told}");
            let told = refused(&secret(&format!("stringData: {{a: {changed}}}\n")));
            assert!(told.starts_with("stringData.a contains a sealed value that a template changed"), "{told}");
        }
        let binary = secret(&format!("data: {{a: {}}}\nstringData: {{b: {word}}}\n", STANDARD.encode([0xff, 0xfe])));
        assert!(refused(&binary).starts_with("data.a is not text"));
        let (fresh, _) = placeholders(WIDE);
        assert!(
            fresh
                .all_used()
                .unwrap_err()
                .starts_with("no Secret of the chart contains auth.password, the sealed value")
        );
    }

    #[test]
    fn thousands_of_values_in_one_text_all_get_a_key() {
        let values: String = (0..20_000).map(|number| format!("    v{number}: {}\n", sealed_text(7))).collect();
        let text = format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop, annotations: {{{WIDE}: \
             'true'}}}}\nspec:\n  encryptedData:\n{values}"
        );
        let mut all = Placeholders::default();
        let wanted = SealedValues { file: "secrets/db.yaml".into(), key: None, path: "auth".into() };
        let limits = Limits { memory: 1 << 30, ..Limits::default() };
        let manifests = manifests::parse("secrets/db.yaml", text.as_bytes(), &limits).unwrap();
        all.add(&wanted, &manifests).unwrap();
        let words: String = all.all.iter().map(|one| one.word.clone() + " ").collect();
        let secret = secret(&format!("stringData: {{a: '{words}'}}\n"));
        let [secret] = &manifests::parse("", secret.as_bytes(), &limits).unwrap()[..] else { panic!() };
        let made = all.resolved(secret, "shop").unwrap().unwrap();
        assert_eq!(made["spec"]["encryptedData"].as_object().map(Map::len), Some(20_000));
    }

    #[test]
    fn a_value_is_only_put_where_it_can_be_unsealed() {
        let refused = |scope: &str, metadata: &str| {
            let (all, words) = placeholders(scope);
            let text = secret(&format!("stringData: {{a: {}}}\n", words[0])).replace("name: web", metadata);
            resolve(&all, &text).map(|made| made.is_some())
        };
        assert_eq!(refused("", "name: db"), Ok(true));
        let told = refused("", "name: web").unwrap_err();
        let expected = "it contains auth.password, the sealed value password of secrets/db.yaml, which is sealed for the Secret \
                        shop/db and cannot be unsealed here: seal it for the Secret shop/web, or with --scope namespace-wide";
        assert_eq!(told, expected);
        assert!(refused(WIDE, "name: web").is_ok());
        assert!(refused(WIDE, "name: web, namespace: other").unwrap_err().contains("sealed for the namespace shop"));
        assert!(refused("sealedsecrets.bitnami.com/cluster-wide", "name: web, namespace: other").is_ok());
    }
}
