//! The variables of a Sync: from its spec, from files of repositories, and from ConfigMaps and Secrets of the cluster.

use std::collections::BTreeMap;

use crds::Substitution;
use manifests::{Limits, Manifest, TreeFile, json_for_yaml, parse_mapping, printable, split};
use pipeline::{
    Entry, Room,
    render::{ParseFailure, RenderError, parse_beside, reserve},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use zeroize::Zeroizing;

use super::{
    language::{Known, is_name},
    not_substituted,
};
use crate::{At, Inputs, Repository, sealed::Placeholders, wrapped::ClusterSecret};

/// The variables of a Sync.
#[derive(Default)]
pub(crate) struct Variables(BTreeMap<String, Variable>);

struct Variable {
    /// The value, or the placeholder of a sealed value or of a value of a Secret.
    text: String,
    is_secret: bool,
}

/// The most bytes of a file with variables.
const FILE_BYTES: usize = 1 << 20;

/// The content of the [`Input`](crate::Input) of a ConfigMap with variables, which has this `data`.
pub fn variables_in(data: &impl Serialize) -> String {
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": data});
    String::from_utf8_lossy(&json_for_yaml(Zeroizing::new(map.to_string().into_bytes()))).into_owned()
}

impl Variables {
    /// Reads the variables of a Sync. Those that are sealed are added to `placeholders`.
    pub(crate) fn read<R: Repository>(
        Substitution { substitute, substitute_from }: &Substitution,
        inputs: &Inputs,
        folder: &str,
        repository: &R,
        room: &mut dyn Room,
        placeholders: &mut Placeholders,
    ) -> Result<Self, RenderError<R::Error>> {
        let mut all = BTreeMap::new();
        for (index, entry) in substitute_from.iter().enumerate() {
            let refused = |why: String| not_substituted(folder, format!("substituteFrom[{index}]: {why}"));
            if let Some(mistake) = entry.mistake() {
                return Err(refused(mistake.to_owned()));
            }
            let of_repository;
            let mut of_secret = None;
            let (path, bytes): (&str, &[u8]) = if entry.is_elsewhere() {
                let input = inputs.get(&Entry::Variables(index));
                let input = input.ok_or_else(|| refused("it was not read".to_owned()))?;
                of_secret = ClusterSecret::of(input, None, None);
                if of_secret.is_some() != entry.secret.is_some() {
                    return Err(refused("it was not read".to_owned()));
                }
                (&input.name, &input.content)
            } else {
                let path = entry.path_of_file();
                let At::File(bytes) = repository.at(path).map_err(RenderError::Files)? else {
                    return Err(refused(format!(
                        "the repository has no file '{}'; a path begins at the root of the repository",
                        printable(path)
                    )));
                };
                of_repository = bytes;
                (path, &of_repository)
            };
            let is_secret = entry.sealed_secret.is_some() || of_secret.is_some();
            if bytes.len() > FILE_BYTES {
                return Err(refused(format!("{path} has more than {} MiB", FILE_BYTES >> 20)));
            }
            let found = if let Some(secret) = of_secret {
                reserve(room, path, 3 * bytes.len() as u64)?;
                placeholders.add_secret_variables(&secret).map_err(refused)?
            } else if is_secret {
                let manifests = sealed_in(path, bytes, room).map_err(|failure| match failure {
                    ParseFailure::Wrong(error) => refused(format!("{error}; {}", error.hint())),
                    ParseFailure::NoRoom { had_most } => RenderError::NoRoom { path: path.to_owned(), had_most },
                })?;
                placeholders.add_variables(path, &manifests).map_err(refused)?
            } else {
                // The file is in memory as bytes, as text, and as a mapping.
                reserve(room, path, 16 * bytes.len() as u64)?;
                let is_file = entry.file.is_some();
                if is_file { in_file(path, bytes) } else { in_map(path, bytes) }.map_err(refused)?
            };
            let bytes = found.iter().map(|(name, text)| 64 + name.len() + text.len()).sum::<usize>() as u64;
            reserve(room, path, bytes)?;
            room.use_up(bytes);
            all.extend(found.into_iter().map(|(name, text)| (name, Variable { text, is_secret })));
        }
        for (name, text) in substitute.iter().flatten() {
            named(name).map_err(|why| not_substituted(folder, format!("substitute: {why}")))?;
            all.insert(name.clone(), Variable { text: text.clone(), is_secret: false });
        }
        Ok(Self(all))
    }

    /// What the variable stands for, if it is set.
    pub(crate) fn get(&self, name: &str) -> Option<Known<'_>> {
        let Variable { text, is_secret } = self.0.get(name)?;
        Some(if *is_secret { Known::Sealed(text) } else { Known::Plain(text) })
    }

    /// The names of all variables, sorted.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.keys().map(String::as_str)
    }

    #[cfg(test)]
    pub(crate) fn of(plain: &[(&str, &str)], sealed: &[(&str, &str)]) -> Self {
        let variable = |is_secret| {
            move |(name, text): &(&str, &str)| ((*name).to_owned(), Variable { text: (*text).to_owned(), is_secret })
        };
        Self(plain.iter().map(variable(false)).chain(sealed.iter().map(variable(true))).collect())
    }
}

fn sealed_in(path: &str, bytes: &[u8], room: &mut dyn Room) -> Result<Vec<Manifest>, ParseFailure> {
    parse_beside(TreeFile { path, bytes }, 0, room).map(|parsed| parsed.manifests)
}

/// The variables in a file.
fn in_file(path: &str, bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    let text = text_in(path, bytes)?;
    let name = path.rsplit('/').next().unwrap_or_default();
    let has_lines = name.rsplit_once('.').is_some_and(|(_, ending)| ending == "env");
    if has_lines { in_lines(path, text) } else { in_mapping(path, text) }
}

/// The variables in lines `name=value`. Everything after the first `=` is the value.
fn in_lines(path: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let mut found = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.trim().is_empty() || line.trim_start().starts_with('#') {
            continue;
        }
        let (name, value) =
            line.split_once('=').ok_or_else(|| format!("{path}:{number}: the line is not name=value"))?;
        named(name).map_err(|why| format!("{path}:{number}: {why}"))?;
        found.push((name.to_owned(), value.to_owned()));
    }
    Ok(found)
}

const FORMS: &str = "a file with variables is a YAML mapping of names to texts, one ConfigMap, or a file .env with lines \
    name=value";

/// The variables in a YAML mapping, or in the data of a ConfigMap.
fn in_mapping(path: &str, text: &str) -> Result<Vec<(String, String)>, String> {
    let documents: Vec<_> = split(text).filter(|document| !document.is_empty()).collect();
    let document = match documents[..] {
        [] => return Ok(Vec::new()),
        [document] => document,
        _ => return Err(format!("{path} has {} documents: {FORMS}", documents.len())),
    };
    let mapping = parse_mapping(path, &document, &Limits { file_bytes: FILE_BYTES, ..Limits::default() });
    let mapping = mapping.map_err(|error| format!("{error}: {FORMS}"))?.unwrap_or_default();
    let line = |name: &str| document.line + line_of(document.text, name);
    let is = |field: &str, value: &str| mapping.get(field).and_then(Value::as_str) == Some(value);
    let is_object = mapping.contains_key("apiVersion") && mapping.contains_key("kind");
    if is_object && !(is("apiVersion", "v1") && is("kind", "ConfigMap")) {
        return Err(format!("{path}:{} is another object: {FORMS}", document.line));
    }
    let (mapping, is_data) = match (is_object, mapping.get("data")) {
        (false, _) => (mapping, false),
        (true, Some(Value::Object(data))) => (data.clone(), true),
        (true, _) => (Map::new(), true),
    };
    let mut found = Vec::new();
    for (name, value) in mapping {
        match named(&name) {
            Ok(()) => {}
            // A ConfigMap may also have files.
            Err(_) if is_data => continue,
            Err(why) => return Err(format!("{path}:{}: {why}", line(&name))),
        }
        let Value::String(text) = value else {
            return Err(format!(
                "{path}:{}: the value of {name} is not a text: write numbers, true and false in quotes, as in a ConfigMap",
                line(&name)
            ));
        };
        found.push((name, text));
    }
    Ok(found)
}

/// How many lines of a mapping are before this key.
fn line_of(text: &str, key: &str) -> u32 {
    let is_line = |line: &str| {
        let rest = line.trim_start().trim_start_matches(['"', '\'']).strip_prefix(key);
        rest.is_some_and(|rest| rest.trim_start_matches(['"', '\'']).trim_start().starts_with(':'))
    };
    text.lines().position(is_line).map_or(0, |line| u32::try_from(line).unwrap_or_default())
}

fn named(name: &str) -> Result<(), String> {
    if is_name(name) {
        return Ok(());
    }
    Err(format!(
        "'{}' cannot be the name of a variable: it has other characters than letters, digits and _, or begins with a digit",
        printable(name)
    ))
}

/// The variables in a ConfigMap of the cluster.
fn in_map(name: &str, bytes: &[u8]) -> Result<Vec<(String, String)>, String> {
    in_mapping(name, text_in(name, bytes)?)
}

fn text_in<'b>(path: &str, bytes: &'b [u8]) -> Result<&'b str, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| format!("{path} is not a text in UTF-8"))?;
    Ok(text.strip_prefix('\u{feff}').unwrap_or(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(path: &str, text: &str) -> Result<String, String> {
        let found = in_file(path, text.as_bytes())?;
        Ok(found.iter().map(|(name, text)| format!("{name}={text};")).collect())
    }

    #[test]
    fn each_form_of_a_file_is_read() {
        for (path, text, found) in [
            ("a.yaml", "# names\nb: \"3\"\na: text\n", "b=3;a=text;"),
            ("a.json", r#"{"b": "3", "_a1": ""}"#, "b=3;_a1=;"),
            ("a.yaml", "", ""),
            ("a.yaml", "---\n# nothing\n", ""),
            ("a.yaml", "\u{feff}a: |\n  one\n  two\n", "a=one\ntwo\n;"),
            ("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: b\n  tls.crt: c\n", "a=b;"),
            ("a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\n", ""),
            // It is a mapping of names if it is no object.
            ("a.yaml", "kind: web\nversion: '1.10'\n", "kind=web;version=1.10;"),
            ("x/.env", "# names\n\na=b=c d # e\r\n_x=\"1\"\nempty=\n", "a=b=c d # e;_x=\"1\";empty=;"),
            ("production.env", "a=b", "a=b;"),
        ] {
            assert_eq!(read(path, text).as_deref(), Ok(found), "{path}: {text}");
        }
    }

    #[test]
    fn a_config_map_of_the_cluster_has_variables_and_other_keys() {
        let text = variables_in(&json!({"a": "x: [\n\u{7f}\u{fffe}\t\"", "tls.crt": "c", "_b": ""}));
        let found = in_map("ConfigMap shop/settings.env", text.as_bytes()).unwrap();
        let expected = [("a", "x: [\n\u{7f}\u{fffe}\t\""), ("_b", "")];
        assert_eq!(found, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
        // One that is missing has none.
        assert_eq!(in_map("ConfigMap shop/settings", b""), Ok(Vec::new()));
    }

    #[test]
    fn what_is_wrong_with_a_file_is_said_with_its_line() {
        for (path, text, part) in [
            ("a.yaml", "a: b\n\nc: 3\n", "a.yaml:3: the value of c is not a text: write numbers"),
            ("a.yaml", "---\na: [b]\n", "a.yaml:2: the value of a is not a text"),
            ("a.yaml", "a:\n", "a.yaml:1: the value of a is not a text"),
            ("a.yaml", "x: web\n'a-b': c\n", "a.yaml:2: 'a-b' cannot be the name of a variable"),
            ("a.yaml", "1a: c\n", "a.yaml:1: '1a' cannot be the name of a variable"),
            ("a.yaml", "- a\n", "a.yaml:1"),
            ("a.yaml", "- a\n", "is a YAML mapping of names to texts, one ConfigMap"),
            ("a.yaml", "a: b\na: c\n", "a.yaml:2"),
            ("a.yaml", "a: b\n---\nc: d\n", "a.yaml has 2 documents"),
            ("a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: x}\n", "a.yaml:1 is another object"),
            (
                "a.yaml",
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: x}\ndata:\n  a: 3\n",
                "a.yaml:5: the value of a is not a text",
            ),
            ("a.env", "a=b\nc\n", "a.env:2: the line is not name=value"),
            ("a.env", "export a=b\n", "a.env:1: 'export a' cannot be the name"),
        ] {
            let told = read(path, text).expect_err(text);
            assert!(told.contains(part), "{text}: {told}");
        }
        assert!(in_file("a.yaml", b"a: \xff").unwrap_err().contains("not a text in UTF-8"));
    }
}
