//! Sealed values, and values of Secrets of the cluster, for charts and for variables.
//!
//! Templates see neither a value nor its sealed form. They see a placeholder, which is a word of letters and digits.
//! After the render, each Secret that contains placeholders becomes a SealedSecret. The Go templates in that
//! SealedSecret (`spec.template.data`) put the values where the placeholders were. So rendering needs no key, and these
//! values are unsealed like all others. A value of a Secret of the cluster is sealed when it is put into a Secret ([`crate::wrapped`]).
//!
//! A placeholder of a sealed value contains a digest of the sealed text. Everybody who can read the repository can compute this digest.
//! So a digest that a chart computes, for example for an annotation `checksum/secret`, changes when the value is sealed
//! again.

use std::{
    borrow::Cow,
    cell::Cell,
    collections::{BTreeMap, BTreeSet, HashMap},
    fmt,
    rc::Rc,
    sync::{Arc, LazyLock},
};

use aho_corasick::AhoCorasick;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::names::TEMPLATE_INPUTS;
use manifests::{Manifest, printable};
use sealing::{Binding, Scope, SealedValue};
use serde_json::{Map, Value, json};
use sha2::{Digest as _, Sha256};

use crate::{
    Values,
    generated::{replace, sealed_secret},
    substitute::is_name,
    wrapped::{ClusterSecret, Sealer, WrappedValue},
};

/// The sealed values that a chart gets from one file.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SealedValues {
    /// The file in the repository of the chart, or the name in messages of a file that is elsewhere. It contains one
    /// SealedSecret.
    pub file: String,
    /// The content of the file, if it is not in the repository of the chart.
    pub content: Option<Arc<[u8]>>,
    /// The key of the value; `None` for all values of the SealedSecret.
    pub key: Option<String>,
    /// The name of the value in the chart, as for `helm --set`. If there is no `key`, this is the name of a table in
    /// which each value has its own key. `None`: each key is the whole name of its value.
    pub path: Option<String>,
}

/// The beginning of each placeholder. If it is found in upper case, or without the rest of a placeholder, then a
/// template changed a placeholder.
pub(crate) const BEGINS_WITH: &str = "gitsealvalue";

/// Where values come from.
struct Source {
    /// The file, or the Secret of the cluster, in messages.
    name: String,
    kind: SourceKind,
}

enum SourceKind {
    /// A file with sealed values, and the scope, namespace and name that they are bound to.
    File { scope: Scope, namespace: Option<String>, name: String },
    /// A Secret of the cluster. Its values are sealed for each Secret that they are put into.
    Secret(Arc<dyn Sealer>),
}

/// A value that the templates of the chart see as a word.
struct Placeholder {
    /// The name of the value in the chart, or of the variable.
    path: String,
    source: Rc<Source>,
    key: String,
    /// The sealed text. For a value of a Secret of the cluster: the wrapped text.
    text: String,
    /// The digest in the placeholder.
    digest: String,
    /// Whether a Secret contains the placeholder, or none has to.
    is_used: Cell<bool>,
}

/// The length of every placeholder, in bytes.
const LENGTH: usize = BEGINS_WITH.len() + 32;

/// The placeholders of one render. Errors are texts that say what is wrong and what to do.
#[derive(Default)]
pub(crate) struct Placeholders {
    all: Vec<Placeholder>,
    /// How many values were added. A value that is added twice counts twice.
    added: usize,
    /// For each word, where its placeholder is in `all`. This is a map so that words are found fast: there may be many
    /// words, and texts that contain many of them.
    by_word: HashMap<String, usize>,
    /// For each name in the chart, where its placeholder is in `all`. A later placeholder replaces an earlier one of the same name.
    by_path: BTreeMap<String, usize>,
    /// How many values of Secrets of the cluster were sealed.
    sealed_here: Cell<usize>,
}

/// Why a Secret did not become a SealedSecret.
#[derive(Debug, Eq, PartialEq)]
pub(crate) enum Unsealable {
    /// What is wrong, and what to do.
    Wrong(String),
    /// The same, and which field is wrong.
    Misplaced(String, Field),
    /// There is not enough memory.
    NoRoom,
}

/// A field that contains a placeholder which cannot become a sealed value.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Field {
    /// The name of the field; `None` for an item of a list.
    pub(crate) key: Option<String>,
    /// The line of its text that contains the placeholder.
    pub(crate) line: String,
}

impl Field {
    fn new(key: Option<&str>, text: &str) -> Self {
        let line = text.lines().find(|line| has_any_word(line)).unwrap_or(text).trim();
        Self { key: key.map(str::to_owned), line: line.to_owned() }
    }
}

impl From<String> for Unsealable {
    fn from(why: String) -> Self {
        Self::Wrong(why)
    }
}

/// Reserves memory for a number of bytes; returns false if there is not enough.
pub(crate) type Take<'r> = &'r mut dyn FnMut(u64) -> bool;

/// The most sealed values and values of Secrets for one Sync, and the most places that values of Secrets of the cluster are sealed for.
/// Because of this limit, the memory for placeholders need not be counted, and to seal values takes at most a few seconds.
const MOST_VALUES: usize = 2500;

/// How many bytes of memory a sealed value in a SealedSecret needs besides its sealed text.
const PER_VALUE: usize = 1024;

/// The templates of a Secret, and their YAML, are at most this many times as long as the text of the Secret. The worst
/// case is a text of braces or control characters, which become actions or escapes.
const GROWTH: u64 = 16;

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
    /// Adds the sealed values of the file that contains `manifests`. Returns the values that the chart gets instead:
    /// the placeholders.
    pub(crate) fn add(&mut self, wanted: &SealedValues, manifests: &[Manifest]) -> Result<Vec<Values>, String> {
        let SealedValues { file, key, path, .. } = wanted;
        if let ([sealed], None) = (manifests, path) {
            let data = sealed.body.get("spec").and_then(|spec| spec.get("encryptedData")).and_then(Value::as_object);
            check_names(&sealed.origin, data.into_iter().flat_map(Map::keys).map(String::as_str).collect())?;
        }
        let (key, path) = (key.as_deref(), path.as_deref());
        let words = self.sealed_words(file, key, |of| path_in_chart(of, key, path), |_| true, manifests)?;
        Ok(self.named(words))
    }

    /// Adds values of a Secret of the cluster. Returns the values that the chart gets instead: the placeholders.
    pub(crate) fn add_secret(&mut self, wanted: &ClusterSecret) -> Result<Vec<Values>, String> {
        let ClusterSecret { name, sealer, key, path, .. } = wanted;
        let (key, path) = (key.as_deref(), path.as_deref());
        let values = wanted.read()?;
        if path.is_none() {
            check_names(name, values.keys().map(String::as_str).collect())?;
        }
        let values = values.iter().filter(|(of, _)| key.is_none_or(|key| key == *of));
        let words = self.secret_words((name, sealer), |of| path_in_chart(of, key, path), values)?;
        // The program that makes the Secret chooses its keys, and may add some that the chart does not use.
        for (_, word) in words.iter().filter(|_| key.is_none()) {
            self.all[self.by_word[word]].is_used.set(true);
        }
        Ok(self.named(words))
    }

    /// Notes which values of the chart have these names and placeholders.
    fn named(&mut self, words: Vec<(String, String)>) -> Vec<Values> {
        let mut values = Vec::new();
        for (path, word) in words {
            values.push(Values::SetString(format!("{path}={word}")));
            self.by_path.insert(path, self.by_word[&word]);
        }
        values
    }

    /// Adds the values of the file that contains `manifests` as variables. Returns the names and the placeholders of those whose
    /// keys can be names of variables. These values need not be in a Secret.
    pub(crate) fn add_variables(
        &mut self,
        file: &str,
        manifests: &[Manifest],
    ) -> Result<Vec<(String, String)>, String> {
        self.sealed_words(file, None, str::to_owned, is_name, manifests)
    }

    /// The same for the values of a Secret of the cluster.
    pub(crate) fn add_secret_variables(&mut self, wanted: &ClusterSecret) -> Result<Vec<(String, String)>, String> {
        let values = wanted.read()?;
        let named = values.iter().filter(|(key, _)| is_name(key));
        self.secret_words((&wanted.name, &wanted.sealer), str::to_owned, named)
    }

    /// Adds values of a Secret of the cluster. Returns the name that `path_of` makes of the key of each one, and its placeholder.
    fn secret_words<'v>(
        &mut self,
        (name, sealer): (&str, &Arc<dyn Sealer>),
        path_of: impl Fn(&str) -> String,
        values: impl Iterator<Item = (&'v String, &'v WrappedValue)>,
    ) -> Result<Vec<(String, String)>, String> {
        let source = Rc::new(Source { name: name.to_owned(), kind: SourceKind::Secret(sealer.clone()) });
        let mut words = Vec::new();
        for (key, WrappedValue { digest, wrapped }) in values {
            self.added += 1;
            words.push(self.word(&source, (key, wrapped), digest, path_of(key))?);
        }
        Ok(words)
    }

    /// Adds a value. Returns its name in the chart, and its placeholder.
    fn word(
        &mut self,
        source: &Rc<Source>,
        (key, text): (&str, &str),
        digest: &str,
        path: String,
    ) -> Result<(String, String), String> {
        if self.added > MOST_VALUES {
            return Err(format!(
                "{}: a Sync can use at most {MOST_VALUES} sealed values and values of Secrets for its chart and its variables",
                source.name
            ));
        }
        let word = format!("{BEGINS_WITH}{digest}");
        let index = *self.by_word.entry(word.clone()).or_insert(self.all.len());
        if index == self.all.len() {
            self.all.push(Placeholder {
                path: path.clone(),
                source: source.clone(),
                key: key.to_owned(),
                text: text.to_owned(),
                digest: digest.to_owned(),
                is_used: Cell::new(false),
            });
        }
        Ok((path, word))
    }

    /// Adds sealed values. Returns the name that `path_of` makes of the key of each one, and its placeholder.
    fn sealed_words(
        &mut self,
        file: &str,
        key: Option<&str>,
        path_of: impl Fn(&str) -> String,
        is_wanted: impl Fn(&str) -> bool,
        manifests: &[Manifest],
    ) -> Result<Vec<(String, String)>, String> {
        let [sealed] = manifests else {
            return Err(format!(
                "{file} has {} objects: a file with sealed values must have exactly one SealedSecret",
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
            None => data.iter().filter(|(key, _)| is_wanted(key)).collect(),
            Some(key) => data.get_key_value(key).into_iter().collect(),
        };
        if wanted.is_empty() {
            let keys: Vec<_> = data.keys().map(String::as_str).collect();
            let there_is =
                if keys.is_empty() { "it has no values".to_owned() } else { format!("it has {}", keys.join(", ")) };
            let wanted = key.map_or(String::new(), |key| format!(" {key}"));
            let fits = if key.is_none() && !data.is_empty() { " whose key can be the name of a variable" } else { "" };
            return Err(format!("{} has no sealed value{wanted}{fits}: {there_is}", sealed.origin));
        }
        self.added += wanted.len();
        let (namespace, name) = (sealed.id.namespace.clone(), sealed.id.name.clone());
        // The scope, namespace and name are hashed only once, because they may be long, and there may be many values.
        let place = Sha256::new_with_prefix(json!([scope, namespace, name]).to_string());
        let source = Rc::new(Source { name: file.to_owned(), kind: SourceKind::File { scope, namespace, name } });
        let mut words = Vec::new();
        for (of, text) in wanted {
            if !is_key(of) {
                return Err(format!("{}: '{}' cannot be a key of a Secret", sealed.origin, printable(of)));
            }
            let text = text.as_str().unwrap_or_default().trim();
            SealedValue::parse(text)
                .map_err(|error| format!("{}: {of} is not a sealed value: {error}", sealed.origin))?;
            let digest = place.clone().chain_update(json!([of, text]).to_string()).finalize();
            let digest = digest[..16].iter().fold(String::new(), |text, byte| format!("{text}{byte:02x}"));
            words.push(self.word(&source, (of, text), &digest, path_of(of))?);
        }
        Ok(words)
    }

    /// Makes a SealedSecret of a Secret with placeholders, and returns the YAML of the SealedSecret. Fails if another
    /// object contains a placeholder. `namespace` is where the object is applied.
    pub(crate) fn resolve(
        &self,
        manifest: &mut Manifest,
        namespace: &str,
        take: Take<'_>,
    ) -> Result<Option<String>, Unsealable> {
        if self.all.is_empty() {
            return Ok(None);
        }
        Ok(self.resolved(manifest, namespace, take)?.and_then(|body| replace(manifest, body)))
    }

    fn resolved(
        &self,
        manifest: &Manifest,
        namespace: &str,
        take: Take<'_>,
    ) -> Result<Option<Map<String, Value>>, Unsealable> {
        let Manifest { id, body, .. } = manifest;
        let is_value = |field: &str| id.is_secret() && matches!(field, "data" | "stringData");
        for (field, value) in body.iter().filter(|(field, _)| !is_value(field)) {
            if let Some((place, found)) = place_of_word(field, value) {
                return Err(Unsealable::Misplaced(self.outside(&place, value), found));
            }
        }
        if !id.is_secret() {
            return Ok(None);
        }
        let (values, not_texts) = values_of(body);
        if let Some((key, (field, _))) = values.iter().find(|(key, _)| has_any_word(key)) {
            return Err(self.outside(field, &key.as_str().into()).into());
        }
        let mut parts = BTreeMap::new();
        for (key, (field, text)) in &values {
            let Some(text) = text else { continue };
            parts.insert(key.as_str(), (field, std::str::from_utf8(text).ok().map(|text| self.parts(text))));
        }
        let has_value = |parts: &Vec<Part<'_>>| parts.iter().any(|part| !matches!(part, Part::Text(_)));
        if !parts.values().any(|(_, parts)| matches!(parts, Some(Ok(parts)) if has_value(parts))) {
            // Nothing in this Secret is sealed, unless a template changed a placeholder.
            return match parts
                .iter()
                .find_map(|(key, (field, parts))| Some((key, field, parts.as_ref()?.as_ref().err()?)))
            {
                Some((key, field, ())) => Err(changed(field, key)),
                None => Ok(None),
            };
        }
        if let Some(place) = not_texts {
            return Err(format!("{place} is not text, and the API server accepts only text there: quote it").into());
        }
        let mut all = Vec::new();
        for (key, (field, _)) in &values {
            match parts.remove(key.as_str()) {
                Some((_, Some(Ok(parts)))) => all.push((key.as_str(), parts)),
                Some((field, Some(Err(())))) => return Err(changed(field, key)),
                Some((_, None)) | None => {
                    return Err(format!(
                        "{field}.{key} is not text, but in a Secret with a sealed value, all values must be text: put \
                         this value into another Secret"
                    )
                    .into());
                }
            }
        }
        let texts = values.values().filter_map(|(_, text)| text.as_ref()).map(|text| text.len() as u64).sum::<u64>();
        let in_templates: BTreeSet<usize> = all.iter().flat_map(|(_, parts)| parts).flat_map(Part::values).collect();
        let alone =
            all.iter().filter_map(|(_, parts)| if let [Part::Value(index)] = parts[..] { Some(index) } else { None });
        let sealed_texts = in_templates.into_iter().chain(alone).map(|index| self.all[index].text.len() + PER_VALUE);
        // Every text is in memory twice: in the SealedSecret and in its YAML.
        if !take(GROWTH * texts + 2 * sealed_texts.sum::<usize>() as u64) {
            return Err(Unsealable::NoRoom);
        }
        Ok(Some(self.sealed(manifest, namespace, all)?))
    }

    /// The SealedSecret for a Secret with these values.
    fn sealed(
        &self,
        secret: &Manifest,
        namespace: &str,
        values: Vec<(&str, Vec<Part<'_>>)>,
    ) -> Result<Map<String, Value>, String> {
        let taken: BTreeSet<&str> = values.iter().map(|(key, _)| *key).collect();
        let indexes: Vec<_> = values.iter().flat_map(|(_, parts)| parts).flat_map(Part::values).collect();
        let scope = self.scope_of(&indexes)?;
        let text_of = |index: usize, key: &str| {
            let binding = Binding { scope, namespace, name: &secret.id.name, key };
            self.sealed_text(&self.all[index], binding)
        };
        let (mut encrypted, mut names, mut inputs) = (Map::new(), BTreeMap::new(), Vec::new());
        for (key, parts) in &values {
            if let [Part::Value(index)] = parts[..] {
                encrypted.insert((*key).to_owned(), text_of(index, key)?.into());
                names.entry(index).or_insert((*key).to_owned());
            }
        }
        let mut numbers: HashMap<&str, usize> = HashMap::new();
        for index in indexes {
            let one = &self.all[index];
            one.is_used.set(true);
            if names.contains_key(&index) {
                continue;
            }
            let number = numbers.entry(one.key.as_str()).or_insert(1);
            let mut name = one.key.clone();
            while taken.contains(name.as_str()) || encrypted.contains_key(&name) {
                *number += 1;
                name = format!("{}-{number}", one.key);
            }
            encrypted.insert(name.clone(), text_of(index, &name)?.into());
            inputs.push(name.clone());
            names.insert(index, name);
        }
        let mut templates = Map::new();
        for (key, parts) in &values {
            if !matches!(parts[..], [Part::Value(_)]) {
                templates.insert((*key).to_owned(), template(key, parts, &names).into());
            }
        }
        let mut sealed = sealed_secret(&secret.body, encrypted, templates, scope).unwrap_or_default();
        if !inputs.is_empty()
            && let Some(Value::Object(metadata)) = sealed.get_mut("metadata")
        {
            let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
            annotations[TEMPLATE_INPUTS] = inputs.join(",").into();
        }
        Ok(sealed)
    }

    /// The scope of a SealedSecret with these values. Values of Secrets of the cluster get the scope of the sealed values.
    fn scope_of(&self, indexes: &[usize]) -> Result<Scope, String> {
        let (mut found, mut of_secret): (Option<(Scope, &Placeholder)>, _) = (None, None);
        for one in indexes.iter().map(|index| &self.all[*index]) {
            let SourceKind::File { scope, .. } = one.source.kind else {
                of_secret = Some(one);
                continue;
            };
            if let Some((of_other, other)) = found.replace((scope, one)).filter(|(other, _)| *other != scope) {
                return Err(format!(
                    "it contains sealed values of {} ({of_other}) and of {} ({scope}), and a SealedSecret has one scope: seal both \
                     files with the same --scope",
                    other.source.name, one.source.name
                ));
            }
        }
        match (found, of_secret) {
            (Some((Scope::ClusterWide, other)), Some(one)) => Err(format!(
                "it contains sealed values of {} (cluster-wide) and {}, which must not be sealed cluster-wide, because others could \
                 unseal it in another namespace: seal the file with --scope namespace-wide",
                other.source.name,
                one.what()
            )),
            (found, _) => Ok(found.map_or(Scope::Strict, |(scope, _)| scope)),
        }
    }

    /// The sealed text of a value that is put into a Secret.
    fn sealed_text(&self, one: &Placeholder, binding: Binding<'_>) -> Result<String, String> {
        let SourceKind::Secret(sealer) = &one.source.kind else {
            one.fits(binding.namespace, binding.name)?;
            return Ok(one.text.clone());
        };
        self.sealed_here.set(self.sealed_here.get() + 1);
        if self.sealed_here.get() > MOST_VALUES {
            return Err(format!(
                "the Sync puts values of Secrets of the cluster into more than {MOST_VALUES} places: let more workloads use the same \
                 Secret, or use several Syncs"
            ));
        }
        let value = WrappedValue { digest: one.digest.clone(), wrapped: one.text.clone() };
        sealer.seal(&value, binding).map_err(|why| format!("{} could not be sealed: {why}", one.what()))
    }

    /// Fails if one of the values is in no Secret of the chart, except the values of a whole Secret of the cluster.
    pub(crate) fn all_used(&self) -> Result<(), String> {
        let mut named = self.by_path.iter().map(|(path, index)| (path, &self.all[*index]));
        let Some((path, unused)) = named.find(|(_, one)| !one.is_used.get()) else { return Ok(()) };
        Err(format!(
            "no Secret of the chart contains {path}, {}: either the chart does not use it with these values, \
             or its templates compute something from it, for example a hash. Templates get only \
             placeholders for sealed values: they can place them in Secrets, combine them with other text, and encode \
             them with b64enc",
            unused.what()
        ))
    }

    /// The notes of a chart, in which placeholders are replaced by the names of the sealed values. If a template changed
    /// a placeholder there, the notes are left out.
    pub(crate) fn in_notes(&self, notes: &str) -> String {
        let Ok(parts) = self.parts(notes) else {
            return "The notes of the chart are left out, because a template changed a sealed value in them."
                .to_owned();
        };
        let name = |index: usize| format!("(sealed value {})", self.all[index].path);
        let text = parts.iter().map(|part| match part {
            Part::Text(text) => Cow::Borrowed(*text),
            Part::Value(index) => name(*index).into(),
            Part::Base64(_) => "(sealed value in base64)".into(),
        });
        text.collect()
    }

    /// The error if `value` contains a placeholder and is not a value of a Secret. `place` says where it is.
    fn outside(&self, place: &str, value: &Value) -> String {
        let text = value.to_string();
        let one = self.next_word(&text).map(|(_, index, _)| &self.all[index]);
        let (which, such) = match one {
            Some(one) if matches!(one.source.kind, SourceKind::Secret(_)) => (one.what(), "a value of a Secret"),
            Some(one) => (format!("the sealed value {}", one.path), "a sealed value"),
            None => ("the sealed value".to_owned(), "a sealed value"),
        };
        format!(
            "{place} contains {which}: {such} can only be in data or stringData of a Secret. Give the \
             chart the name of a Secret instead, for example in a value `existingSecret`"
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

    /// Adds the parts of a text that has no placeholder, except perhaps inside of base64.
    fn texts<'t>(&self, text: &'t str, parts: &mut Vec<Part<'t>>) -> Result<(), ()> {
        let mut from = 0;
        for (start, run) in runs_of_base64(text).filter(|(_, run)| ENCODED.is_match(run)) {
            push_text(parts, &text[from..start])?;
            parts.push(Part::Base64(self.decoded(run).ok_or(())?));
            from = start + run.len();
        }
        push_text(parts, &text[from..])
    }

    /// The parts of a text in base64. `None` if a template changed a placeholder in it.
    fn decoded(&self, run: &str) -> Option<Vec<OwnedPart>> {
        let text = String::from_utf8(STANDARD.decode(run).ok()?).ok()?;
        let mut parts = Vec::new();
        let mut rest = text.as_str();
        while let Some((before, word, after)) = self.next_word(rest) {
            parts.extend([OwnedPart::Text(before.to_owned()), OwnedPart::Value(word)]);
            rest = after;
        }
        parts.push(OwnedPart::Text(rest.to_owned()));
        let is_changed = |part: &OwnedPart| matches!(part, OwnedPart::Text(text) if has_any_word(text));
        (!parts.iter().any(is_changed)).then_some(parts)
    }
}

/// What the beginning of a placeholder becomes in base64, and in base64 of base64. It may be in lower case, in upper
/// case, or begin with a capital letter.
static ENCODED: LazyLock<AhoCorasick> = LazyLock::new(|| {
    let capital = format!("{}{}", BEGINS_WITH[..1].to_uppercase(), &BEGINS_WITH[1..]);
    let once: Vec<_> = [BEGINS_WITH, &BEGINS_WITH.to_uppercase(), &capital].into_iter().flat_map(in_base64).collect();
    let twice: Vec<_> = once.iter().flat_map(|text| in_base64(text)).collect();
    AhoCorasick::new(once.into_iter().chain(twice)).expect("a few short patterns")
});

/// How a text looks in the base64 of a longer text. Base64 encodes groups of three bytes, so there are three results:
/// the text may begin at the first, second or third byte of a group.
fn in_base64(text: &str) -> [String; 3] {
    [0, 1, 2].map(|before| {
        let encoded = STANDARD.encode([&[0; 2][..before], text.as_bytes()].concat());
        // Left out: the first and the last character, if they also depend on the bytes beside the text.
        encoded[(before * 8usize).div_ceil(6)..(before + text.len()) * 8 / 6].to_owned()
    })
}

/// The longest parts of a text that may be base64, and where they begin. Padding ends a part.
fn runs_of_base64(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let is_base64 = |one: char| one.is_ascii_alphanumeric() || matches!(one, '+' | '/');
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + text[from..].find(is_base64)?;
        let rest = &text[start..];
        let length = rest.find(|one| !is_base64(one)).unwrap_or(rest.len());
        let padding = rest[length..].bytes().take_while(|byte| *byte == b'=').count();
        from = start + length + padding;
        Some((start, &text[start..from]))
    })
}

impl Placeholder {
    /// The value in messages.
    fn what(&self) -> String {
        let Self { source, key, .. } = self;
        match source.kind {
            SourceKind::File { .. } => format!("the sealed value {key} of {}", source.name),
            SourceKind::Secret(_) => format!("the value {key} of {}", source.name),
        }
    }

    /// Fails if the value was sealed for another Secret than `name` in `namespace`, so that it cannot be unsealed
    /// there.
    fn fits(&self, namespace: &str, name: &str) -> Result<(), String> {
        let SourceKind::File { scope, namespace: of, name: own_name } = &self.source.kind else { return Ok(()) };
        let own = of.as_deref().unwrap_or(namespace);
        let fits = match scope {
            Scope::ClusterWide => true,
            Scope::NamespaceWide => own == namespace,
            Scope::Strict => own == namespace && own_name == name,
        };
        if fits {
            return Ok(());
        }
        let (sealed_for, remedy) = match scope {
            Scope::Strict => (format!("the Secret {own}/{own_name}"), "--scope namespace-wide"),
            _ => (format!("the namespace {own}"), "--scope cluster-wide"),
        };
        Err(format!(
            "it contains the value of {}: {}, which is sealed for {sealed_for} and cannot be unsealed here: seal it \
             for the Secret {namespace}/{name}, or seal it with {remedy}",
            self.path,
            self.what()
        ))
    }
}

impl Part<'_> {
    /// The indexes of the placeholders in this part.
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

/// Fails if a template changed a placeholder in the text.
fn push_text<'t>(parts: &mut Vec<Part<'t>>, text: &'t str) -> Result<(), ()> {
    if has_any_word(text) {
        return Err(());
    }
    if !text.is_empty() {
        parts.push(Part::Text(text));
    }
    Ok(())
}

/// The values of a Secret: for each key, the field that the value is in, and its bytes.
type SecretValues = BTreeMap<String, (&'static str, Option<Vec<u8>>)>;

/// The values of a Secret, each with the field that it is in. The bytes are `None` if the value is not valid base64. As
/// for the API server, `stringData` replaces `data`, and `null` is an empty value. Also returns the field of a value
/// that is not a text, if there is one.
fn values_of(secret: &Map<String, Value>) -> (SecretValues, Option<String>) {
    let (mut values, mut not_text) = (BTreeMap::new(), None);
    for field in ["data", "stringData"] {
        let entries = match secret.get(field) {
            None | Some(Value::Null) => continue,
            Some(Value::Object(entries)) => entries,
            Some(_) => {
                not_text = Some(field.to_owned());
                continue;
            }
        };
        for (key, value) in entries {
            let text = match value {
                Value::String(text) => text.as_str(),
                Value::Null => "",
                _ => {
                    not_text = Some(format!("{field}.{key}"));
                    continue;
                }
            };
            let decoded = match field {
                "data" => STANDARD.decode(text.split_ascii_whitespace().collect::<String>()).ok(),
                _ => Some(text.as_bytes().to_vec()),
            };
            values.insert(key.clone(), (field, decoded));
        }
    }
    (values, not_text)
}

/// The name in the chart of the value with the key `of`, by the `key` and `path` of its entry.
fn path_in_chart(of: &str, key: Option<&str>, path: Option<&str>) -> String {
    match (key, path) {
        (Some(_), Some(path)) => path.to_owned(),
        (None, Some(path)) => format!("{path}.{}", of.replace('.', "\\.")),
        (_, None) => of.to_owned(),
    }
}

/// Refuses keys that cannot all be names of values in a chart. Helm's own message would name none of them.
fn check_names(origin: &dyn fmt::Display, keys: BTreeSet<&str>) -> Result<(), String> {
    for key in &keys {
        if key.split('.').any(str::is_empty) {
            return Err(format!(
                "{origin}: the key {} is no name of a value: a part of it between dots is empty",
                printable(key)
            ));
        }
        let mut above = key.match_indices('.').map(|(at, _)| &key[..at]);
        if let Some(above) = above.find(|above| keys.contains(above)) {
            let (above, key) = (printable(above), printable(key));
            return Err(format!(
                "{origin}: the keys {above} and {key} exclude each other: {above} would be a value and a table"
            ));
        }
    }
    Ok(())
}

/// Whether a Secret can have a value of this key.
fn is_key(key: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.');
    (1..=253).contains(&key.len()) && key.bytes().all(is_allowed)
}

/// The format of a text that sealed values are put into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Format {
    /// Values are put there as they are.
    Text,
    /// A JSON object or array. All values are inside of its strings: otherwise, it would not be JSON with the placeholders.
    Json,
    /// By its key, a file in YAML.
    Yaml,
}

impl Format {
    /// The format of the text that has this key in its Secret.
    fn of(key: &str, parts: &[Part<'_>]) -> Self {
        let text: String = parts.iter().map(|part| if let Part::Text(text) = part { text } else { "x" }).collect();
        if text.trim_start().starts_with(['{', '[']) && serde_json::from_str::<serde::de::IgnoredAny>(&text).is_ok() {
            Self::Json
        } else if [".yaml", ".yml"].iter().any(|end| key.ends_with(end)) {
            Self::Yaml
        } else {
            Self::Text
        }
    }
}

/// What a value must not contain in YAML outside of double quotes, as an expression of Go: it would end the text there, be a part of
/// the syntax, or be read as something else than a text.
const BREAKS_YAML: &str = r#"['"[:cntrl:]{}\[\],]|: | #|:$|^[-?:#&*!|>%@` ]|^$| $|^0[0-9]"#;

/// How many bytes of a line before a value are looked at.
const LINE: usize = 1024;

/// Whether the end of a line of YAML is inside of double quotes.
fn is_in_double_quotes(line: &str) -> bool {
    let begins = [": \"", "- \""].iter().filter_map(|begin| Some(line.rfind(begin)? + begin.len())).max();
    // What looks like double quotes may be part of a text in single quotes.
    begins.is_some_and(|begins| !line[begins..].contains('"') && !line[..begins].contains('\''))
}

/// A Go template for a text with these parts, which has this key in its Secret. `names` are the keys of the values.
fn template(key: &str, parts: &[Part<'_>], names: &BTreeMap<usize, String>) -> String {
    let value = |index: &usize| format!("index . {}", json!(names[index]));
    let in_quotes =
        |index: &usize| format!("{{{{ toRawJson ({}) | trimPrefix \"\\\"\" | trimSuffix \"\\\"\" }}}}", value(index));
    let format = Format::of(key, parts);
    let (mut text, mut line, mut checked) = (String::new(), String::new(), BTreeSet::new());
    for (number, part) in parts.iter().enumerate() {
        match part {
            Part::Text(literal) => {
                let is_last = number + 1 == parts.len();
                text.push_str(&escaped(literal, is_last));
                if let Some((_, last)) = literal.rsplit_once('\n') {
                    last.clone_into(&mut line);
                } else {
                    line.push_str(literal);
                }
                // Otherwise, many values in one long line would take long.
                if line.len() > LINE {
                    let from =
                        (line.len() - LINE..=line.len()).find(|from| line.is_char_boundary(*from)).unwrap_or_default();
                    line.drain(..from);
                }
            }
            Part::Value(index) if format == Format::Json => text.push_str(&in_quotes(index)),
            Part::Value(index) if format == Format::Yaml && is_in_double_quotes(&line) => {
                text.push_str(&in_quotes(index));
            }
            Part::Value(index) => {
                if format == Format::Yaml {
                    checked.insert(*index);
                }
                text.push_str(&format!("{{{{ {} }}}}", value(index)));
            }
            Part::Base64(parts) => {
                let arguments = parts.iter().map(|part| match part {
                    OwnedPart::Text(text) => json!(text).to_string(),
                    OwnedPart::Value(index) => format!("({})", value(index)),
                });
                let arguments: Vec<_> = arguments.collect();
                let verbs = json!("%s".repeat(arguments.len()));
                text.push_str(&format!("{{{{ printf {verbs} {} | b64enc }}}}", arguments.join(" ")));
            }
        }
    }
    let check = |index: usize| {
        let (breaks, value) = (json!(BREAKS_YAML), value(&index));
        format!(
            "{{{{ if regexMatch {breaks} ({value}) }}}}{{{{ fail \"the value would break the YAML\" }}}}{{{{ end }}}}"
        )
    };
    checked.into_iter().map(check).collect::<String>() + &text
}

/// A text that a Go template prints as it is. In a template, two braces begin an action, and so would one brace right
/// before an action.
fn escaped(literal: &str, is_last: bool) -> String {
    let mut text = literal.replace("{{", r#"{{ "{{" }}"#);
    if !is_last && text.ends_with('{') {
        text.pop();
        text.push_str(r#"{{ "{" }}"#);
    }
    text
}

/// Whether a text contains the beginning of a placeholder, in upper or lower case.
fn has_word(text: &str) -> bool {
    let (text, word) = (text.as_bytes(), BEGINS_WITH.as_bytes());
    text.windows(word.len()).any(|window| window.eq_ignore_ascii_case(word))
}

/// Whether a text contains the beginning of a placeholder, in upper or lower case or in base64.
fn has_any_word(text: &str) -> bool {
    has_word(text) || ENCODED.is_match(text)
}

/// Where in a value a placeholder is, as a path of fields, and the last field of this path.
fn place_of_word(field: &str, value: &Value) -> Option<(String, Field)> {
    if has_any_word(field) {
        return Some(("the name of a field".to_owned(), Field::new(None, field)));
    }
    place_in(Some(field), value).map(|(place, found)| (format!("{field}{place}"), found))
}

/// The path is put together only when a placeholder was found, because names of fields may be long. `key` is the name of the field
/// with this value.
fn place_in(key: Option<&str>, value: &Value) -> Option<(String, Field)> {
    match value {
        Value::String(text) => has_any_word(text).then(|| (String::new(), Field::new(key, text))),
        Value::Array(items) => items.iter().enumerate().find_map(|(at, item)| {
            let (place, found) = place_in(None, item)?;
            Some((format!("[{at}]{place}"), found))
        }),
        Value::Object(fields) => fields.iter().find_map(|(name, value)| {
            if has_any_word(name) {
                return Some((String::new(), Field::new(None, name)));
            }
            let (place, found) = place_in(Some(name), value)?;
            Some((format!(".{name}{place}"), found))
        }),
        _ => None,
    }
}

fn changed(field: &str, key: &str) -> Unsealable {
    let field_of_value = Field { key: Some(key.to_owned()), line: format!("{key}:") };
    let why = format!(
        "{field}.{key} contains a sealed value that a template changed, for example with trunc or upper: templates can only \
         place sealed values, combine them with other text, and encode them with b64enc"
    );
    Unsealable::Misplaced(why, field_of_value)
}

#[cfg(test)]
mod tests;
