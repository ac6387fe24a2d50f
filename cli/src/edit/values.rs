//! Finds the sealed values in a text, and replaces them. Every other byte stays as it is.

use std::collections::BTreeMap;
use std::ops::Range;

use manifests::{Content, Document, Limits, Manifest, ParseError, printable};
use sealing::Scope;
use serde_json::{Map, Value};

use super::sealed::own_scope;
use super::tree::{Kind, Node, Scalar};
use crate::output;

/// A text with SealedSecrets in it.
pub struct SealedText<'a> {
    text: &'a str,
    documents: Vec<Document<'a>>,
    /// The trees of the documents with SealedSecrets, by the index of the document.
    trees: BTreeMap<usize, Node>,
    pub sealed: Vec<SealedObject>,
    /// Documents that cannot be read and name the kind SealedSecret.
    pub unreadable: Vec<ParseError>,
}

/// One SealedSecret of a text.
pub struct SealedObject {
    pub manifest: Manifest,
    /// Index of its document.
    document: usize,
    /// Index of the object in its list; `None` if it is not in a list.
    item: Option<usize>,
    pub values: Vec<ValueInText>,
}

/// One sealed value in a text.
pub struct ValueInText {
    /// Key in `spec.encryptedData`; `None` for `spec.data`, the deprecated form.
    pub key: Option<String>,
    pub value: String,
    /// Line in the text, from 1.
    pub line: u32,
    /// Where the value is written; `None` if it comes from an alias or a merge.
    place: Option<Scalar>,
}

/// A value that replaces another one.
pub struct Replacement {
    /// Index in [`SealedText::sealed`].
    pub object: usize,
    /// Index in [`SealedObject::values`].
    pub value: usize,
    pub text: String,
}

impl<'a> SealedText<'a> {
    /// Finds the SealedSecrets of a text.
    pub fn read(file: &str, text: &'a str) -> Self {
        let mut read =
            Self { text, documents: Vec::new(), trees: BTreeMap::new(), sealed: Vec::new(), unreadable: Vec::new() };
        for document in manifests::split(text) {
            let index = read.documents.len();
            read.documents.push(document);
            match manifests::parse_document(file, &document, &Limits::default()) {
                Ok(Content::Object(manifest)) if manifest.id.is_sealed_secret() => {
                    let tree = Node::of(document.text);
                    read.add(*manifest, index, None, tree.as_ref());
                    read.trees.extend(tree.map(|tree| (index, tree)));
                }
                Ok(Content::List(items)) => {
                    if items.iter().any(|item| item.id.is_sealed_secret()) {
                        let tree = Node::of(document.text);
                        let nodes = tree.as_ref().and_then(|tree| tree.get("items")).map_or(&[][..], Node::items);
                        for (item, manifest) in
                            items.into_iter().enumerate().filter(|(_, item)| item.id.is_sealed_secret())
                        {
                            read.add(manifest, index, Some(item), nodes.get(item));
                        }
                        read.trees.extend(tree.map(|tree| (index, tree)));
                    }
                }
                Err(error) if names_kind(document.text, "SealedSecret") => read.unreadable.push(error),
                Ok(Content::Nothing | Content::Object(_)) | Err(_) => {}
            }
        }
        read
    }

    fn add(&mut self, manifest: Manifest, document: usize, item: Option<usize>, node: Option<&Node>) {
        let first_line = self.documents[document].line;
        let in_file = |line: u32| line.saturating_add(first_line - 1);
        let spec_node = node.and_then(|node| node.get("spec"));
        let data_node = spec_node.and_then(|spec| spec.get("encryptedData"));
        let fallback = manifest.origin.line;
        let value = |key: Option<&String>, value: &Value, node: Option<&Node>, line: Option<u32>| {
            Some(ValueInText {
                key: key.cloned(),
                value: value.as_str()?.to_owned(),
                line: line.map_or(fallback, in_file),
                place: node.and_then(|node| match &node.kind {
                    Kind::Scalar(scalar) => Some(scalar.clone()),
                    _ => None,
                }),
            })
        };
        let spec = manifest.body.get("spec").and_then(Value::as_object);
        let encrypted = spec.and_then(|spec| spec.get("encryptedData")?.as_object()).into_iter().flatten();
        // Values are matched by position, because a key such as `y` has another text in the object (`true`) than in
        // the file.
        let count = spec.and_then(|spec| spec.get("encryptedData")?.as_object()).map_or(0, Map::len);
        let entries = data_node.map(Node::entries).filter(|entries| entries.len() == count);
        let values = encrypted.enumerate().filter_map(|(index, (key, text))| {
            let entry = entries.and_then(|entries| entries.get(index));
            let line = entry.map(|(_, line, _)| *line).or_else(|| data_node.map(|data| data.line_of(key)));
            value(Some(key), text, entry.map(|(.., node)| node), line)
        });
        let whole = spec.and_then(|spec| spec.get("data")).and_then(|text| {
            value(None, text, spec_node.and_then(|spec| spec.get("data")), spec_node.map(|spec| spec.line_of("data")))
        });
        let values = values.chain(whole).collect();
        self.sealed.push(SealedObject { manifest, document, item, values });
    }

    /// The line of the key at this path of a SealedSecret; if the key does not exist, the line of the last key of the
    /// path that exists.
    pub fn line(&self, object: &SealedObject, path: &[&str]) -> u32 {
        let tree = self.trees.get(&object.document);
        let node = match object.item {
            None => tree,
            Some(item) => tree.and_then(|tree| tree.get("items")?.items().get(item)),
        };
        match node {
            Some(node) => node.line_at(path).saturating_add(self.documents[object.document].line - 1),
            None => object.manifest.origin.line,
        }
    }

    /// The text with these values instead of the old ones. Also returns the indices of replacements that are not
    /// possible, because the value comes from a YAML alias, or because an alias uses the value elsewhere, too. Such
    /// replacements are not made.
    pub fn replace(&self, replacements: &[Replacement]) -> (String, Vec<usize>) {
        let mut text = String::with_capacity(self.text.len());
        let mut refused = Vec::new();
        for (index, document) in self.documents.iter().enumerate() {
            let of_document: Vec<usize> =
                (0..replacements.len()).filter(|at| self.sealed[replacements[*at].object].document == index).collect();
            let (placed, unplaced): (Vec<usize>, Vec<usize>) =
                of_document.iter().partition(|at| self.place(&replacements[**at]).is_some());
            refused.extend(unplaced);
            let edited = self.edited(document, replacements, &placed);
            if placed.is_empty() {
                text.push_str(document.text);
            } else if self.says(document, &edited, replacements, &placed) {
                text.push_str(&edited);
            } else {
                // One of the replacements changes more than its value. So the replacements are tried one by one, and
                // only those that change nothing else are kept.
                let mut kept: Vec<usize> = Vec::new();
                for at in placed {
                    kept.push(at);
                    if !self.says(document, &self.edited(document, replacements, &kept), replacements, &kept) {
                        kept.pop();
                        refused.push(at);
                    }
                }
                text.push_str(&self.edited(document, replacements, &kept));
            }
        }
        refused.sort_unstable();
        (text, refused)
    }

    fn place(&self, replacement: &Replacement) -> Option<&Scalar> {
        self.sealed[replacement.object].values[replacement.value].place.as_ref()
    }

    fn edited(&self, document: &Document<'_>, replacements: &[Replacement], chosen: &[usize]) -> String {
        let mut edits: Vec<(Range<usize>, String)> = chosen
            .iter()
            .filter_map(|at| {
                let place = self.place(&replacements[*at])?;
                Some((place.range.clone(), place.rewritten(document.text, &replacements[*at].text)))
            })
            .collect();
        edits.sort_by_key(|(range, _)| range.start);
        let (mut text, mut end) = (String::with_capacity(document.text.len()), 0);
        for (range, new) in edits {
            text.push_str(&document.text[end..range.start]);
            text.push_str(&new);
            end = range.end;
        }
        text + &document.text[end..]
    }

    /// Whether an edited document means the same as the old one, except for the chosen values.
    fn says(&self, old: &Document<'_>, new: &str, replacements: &[Replacement], chosen: &[usize]) -> bool {
        let mut documents = manifests::split(new);
        let (Some(document), None) = (documents.next(), documents.next()) else {
            return false;
        };
        let (Some(mut meant), Some(mut found)) = (bodies(old), bodies(&document)) else {
            return false;
        };
        for replacement in chosen.iter().map(|at| &replacements[*at]) {
            let object = &self.sealed[replacement.object];
            let key = object.values[replacement.value].key.as_deref();
            let index = object.item.unwrap_or_default();
            let (Some(meant), Some(found)) = (
                meant.get_mut(index).and_then(|body| value_of(body, key)),
                found.get_mut(index).and_then(|body| value_of(body, key)),
            ) else {
                return false;
            };
            // Line breaks in a block scalar do not matter, because they are ignored in base64.
            if found.as_str().is_none_or(|text| text.replace(['\r', '\n'], "") != replacement.text) {
                return false;
            }
            (*meant, *found) = (Value::Null, Value::Null);
        }
        meant == found
    }
}

impl SealedObject {
    /// The scope that the values of the SealedSecret are sealed for.
    pub fn scope(&self) -> Scope {
        self.manifest.body.get("metadata").and_then(Value::as_object).map(own_scope).unwrap_or_default()
    }

    /// `SealedSecret namespace/name`
    pub fn title(&self) -> String {
        output::title(&self.manifest.id)
    }

    /// The annotations of the SealedSecret.
    pub fn annotations(&self) -> Option<&Value> {
        self.manifest.body.get("metadata")?.get("annotations")
    }
}

impl ValueInText {
    /// `encryptedData.KEY`
    pub fn field(&self) -> String {
        self.key.as_ref().map_or_else(|| "data".to_owned(), |key| format!("encryptedData.{}", printable(key)))
    }
}

/// Whether a text that is not a valid manifest (a template, or broken YAML) may have been meant as an object of this
/// kind.
pub fn names_kind(text: &str, kind: &str) -> bool {
    text.lines().any(|line| {
        let line = line.trim_start_matches([' ', '\t', '-', '{', '"', '\'', ',']);
        let Some(rest) = line.strip_prefix("kind") else {
            return false;
        };
        let named = rest.trim_start_matches(['"', '\'', ' ', ':']);
        named.strip_prefix(kind).is_some_and(|rest| !rest.starts_with(|c: char| c.is_ascii_alphanumeric()))
    })
}

fn bodies(document: &Document<'_>) -> Option<Vec<Map<String, Value>>> {
    match manifests::parse_document("", document, &Limits::default()) {
        Ok(Content::Object(manifest)) => Some(vec![manifest.body]),
        Ok(Content::List(items)) => Some(items.into_iter().map(|item| item.body).collect()),
        _ => None,
    }
}

fn value_of<'b>(body: &'b mut Map<String, Value>, key: Option<&str>) -> Option<&'b mut Value> {
    let spec = body.get_mut("spec")?;
    match key {
        Some(key) => spec.get_mut("encryptedData")?.get_mut(key),
        None => spec.get_mut("data"),
    }
}

#[cfg(test)]
mod tests;
