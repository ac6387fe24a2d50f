//! Which values of a release are secret: those that the release's Secrets contain, and its other objects do not
//! contain.

use std::collections::{BTreeMap, BTreeSet};

use manifests::{Manifest, ObjectId, printable};
use sealing::SecretBytes;
use serde_json::{Map, Value};
use zeroize::Zeroizing;

use crate::edit::decode_base64;

/// The values of a release, split into plain and secret ones.
#[derive(Default)]
pub(super) struct Split {
    /// Values that may be in Git in plaintext.
    pub(super) plain: Map<String, Value>,
    /// Values that are secret.
    pub(super) secret: Vec<SecretValue>,
    /// Values that are in a Secret and in an object that is not a Secret, with this object. They count as plain.
    pub(super) in_both: Vec<(String, ObjectId)>,
    /// Values that are in no Secret, but whose name sounds secret. They count as plain.
    pub(super) suspicious: Vec<String>,
    /// Secret values in lists. This command cannot seal them.
    pub(super) in_lists: Vec<String>,
}

/// A value that has to be sealed.
pub(super) struct SecretValue {
    /// Its name, as for `helm --set`.
    pub(super) path: String,
    /// Its key in the SealedSecret.
    pub(super) key: String,
    pub(super) value: SecretBytes,
}

/// A value whose name contains one of these words is probably secret.
const SOUNDS_SECRET: [&str; 8] =
    ["password", "passwd", "secret", "token", "apikey", "credential", "privatekey", "passphrase"];

/// Values with such names say where a secret is, and are not secret themselves.
const NAMES_ONLY: [&str; 6] = ["name", "ref", "existingsecret", "secretkey", "enabled", "create"];

/// Splits the values of a release into secret ones and others. The `objects` of the release show which are secret.
pub(super) fn split(values: &Value, objects: &[Manifest]) -> Split {
    let mut split = Split::default();
    let texts = Texts::of(objects);
    if let Value::Object(fields) = values {
        split.plain = split.mapping(fields, "", &texts, false);
    }
    let mut keys = BTreeSet::new();
    for value in &mut split.secret {
        let mut key = value.key.clone();
        while !keys.insert(key.clone()) {
            key.push('-');
        }
        value.key = key;
    }
    split
}

/// The values in Secrets of a release that none of its own values sets, for example because the chart generated them: the kind,
/// name and key of each.
pub(super) fn not_given(values: &Value, objects: &[Manifest]) -> Vec<String> {
    let mut given = Vec::new();
    texts_of(values, &mut given);
    let mut found = Vec::new();
    for object in objects.iter().filter(|object| object.id.is_secret()) {
        for field in ["data", "stringData"] {
            let data = object.body.get(field).and_then(Value::as_object);
            for (key, value) in data.into_iter().flatten() {
                let Some(text) = value.as_str().map(str::as_bytes) else { continue };
                let text = match field {
                    "data" => decode_base64(text),
                    _ => Some(SecretBytes::new(text.to_vec())),
                };
                let is_given = |text: &SecretBytes| given.iter().any(|one| contains(text.expose(), one));
                if text.is_some_and(|text| !text.expose().is_empty() && !is_given(&text)) {
                    found.push(format!("{} of Secret {}", printable(key), printable(&object.id.name)));
                }
            }
        }
    }
    found
}

/// The texts and numbers in values.
fn texts_of(value: &Value, into: &mut Vec<Zeroizing<String>>) {
    match value {
        Value::String(text) if !text.is_empty() => into.push(Zeroizing::new(text.clone())),
        Value::Number(number) => into.push(Zeroizing::new(number.to_string())),
        Value::Array(items) => items.iter().for_each(|item| texts_of(item, into)),
        Value::Object(fields) => fields.values().for_each(|field| texts_of(field, into)),
        _ => {}
    }
}

impl Split {
    fn mapping(
        &mut self,
        fields: &Map<String, Value>,
        above: &str,
        texts: &Texts<'_>,
        in_list: bool,
    ) -> Map<String, Value> {
        let mut plain = Map::new();
        for (name, value) in fields {
            let path = if above.is_empty() { escaped(name) } else { format!("{above}.{}", escaped(name)) };
            if let Some(value) = self.value(value, &path, name, texts, in_list) {
                plain.insert(name.clone(), value);
            }
        }
        plain
    }

    /// The plain part of the value, if there is one. Secret parts are noted in `self`.
    fn value(&mut self, value: &Value, path: &str, name: &str, texts: &Texts<'_>, in_list: bool) -> Option<Value> {
        match value {
            Value::Object(fields) => {
                let plain = self.mapping(fields, path, texts, in_list);
                // If all values of a mapping are secret, the mapping is left out, so that it does not replace the
                // sealed values in it.
                (!plain.is_empty() || fields.is_empty()).then_some(Value::Object(plain))
            }
            Value::Array(items) => {
                let items = items.iter().enumerate().map(|(index, item)| {
                    self.value(item, &format!("{path}[{index}]"), name, texts, true).unwrap_or_default()
                });
                Some(Value::Array(items.collect()))
            }
            Value::Null | Value::Bool(_) => Some(value.clone()),
            Value::String(text) => self.scalar(value, text, path, name, texts, in_list),
            Value::Number(number) => {
                let text = Zeroizing::new(number.to_string());
                self.scalar(value, &text, path, name, texts, in_list)
            }
        }
    }

    fn scalar(
        &mut self,
        value: &Value,
        text: &str,
        path: &str,
        name: &str,
        texts: &Texts<'_>,
        in_list: bool,
    ) -> Option<Value> {
        if text.is_empty() {
            return Some(value.clone());
        }
        if !texts.is_in_secret(text) {
            let name = name.to_ascii_lowercase().replace(['-', '_'], "");
            let sounds_secret = SOUNDS_SECRET.iter().any(|word| name.contains(word));
            if sounds_secret && !NAMES_ONLY.iter().any(|word| name.ends_with(word) || name == *word) {
                self.suspicious.push(path.to_owned());
            }
            return Some(value.clone());
        }
        if let Some(id) = texts.elsewhere(text) {
            self.in_both.push((path.to_owned(), id.clone()));
            return Some(value.clone());
        }
        if in_list {
            self.in_lists.push(path.to_owned());
            return None;
        }
        let is_key = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        let key = path.chars().map(|c| if is_key(c) { c } else { '-' }).collect();
        let value = SecretBytes::new(text.as_bytes().to_vec());
        self.secret.push(SecretValue { path: path.to_owned(), key, value });
        None
    }
}

/// A name, escaped for a path of `helm --set`.
fn escaped(name: &str) -> String {
    name.replace('\\', "\\\\").replace('.', "\\.")
}

/// A text that is only a part of a value of a Secret counts as secret if it has at least this length: a shorter text
/// may be there by chance.
const SHORTEST_PART: usize = 6;

/// The texts of a release's objects.
struct Texts<'o> {
    of_secrets: Vec<SecretBytes>,
    others: BTreeMap<&'o ObjectId, Vec<&'o str>>,
}

impl<'o> Texts<'o> {
    fn of(objects: &'o [Manifest]) -> Self {
        let mut texts = Self { of_secrets: Vec::new(), others: BTreeMap::new() };
        for object in objects {
            for (field, value) in &object.body {
                match (object.id.is_secret(), field.as_str(), value) {
                    (true, "data", Value::Object(data)) => {
                        let decoded = data.values().filter_map(Value::as_str).map(str::as_bytes).map(decode_base64);
                        texts.of_secrets.extend(decoded.flatten());
                    }
                    (true, "stringData", Value::Object(data)) => {
                        let given = data.values().filter_map(Value::as_str);
                        texts.of_secrets.extend(given.map(|text| SecretBytes::new(text.as_bytes().to_vec())));
                    }
                    _ => strings(value, texts.others.entry(&object.id).or_default()),
                }
            }
        }
        texts
    }

    fn is_in_secret(&self, text: &str) -> bool {
        self.of_secrets.iter().any(|value| contains(value.expose(), text))
    }

    fn elsewhere(&self, text: &str) -> Option<&'o ObjectId> {
        let has = |texts: &Vec<&str>| texts.iter().any(|one| contains(one.as_bytes(), text));
        self.others.iter().find(|(_, texts)| has(texts)).map(|(id, _)| *id)
    }
}

fn contains(whole: &[u8], text: &str) -> bool {
    if text.len() < SHORTEST_PART {
        return whole == text.as_bytes();
    }
    whole.windows(text.len()).any(|window| window == text.as_bytes())
}

fn strings<'v>(value: &'v Value, into: &mut Vec<&'v str>) {
    match value {
        Value::String(text) => into.push(text),
        Value::Array(items) => items.iter().for_each(|item| strings(item, into)),
        Value::Object(fields) => fields.values().for_each(|field| strings(field, into)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use manifests::{Limits, parse};
    use serde_json::json;

    use super::*;

    #[test]
    fn values_in_secrets_are_secret_unless_other_objects_have_them_too() {
        let manifest = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ndata: {{password: {}, url: {}, pin: {}}}\nstringData: {{key: \
             from-a-list, user: somebody}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: b}}\ndata: {{user: somebody}}\n",
            STANDARD.encode("correct-horse"),
            STANDARD.encode("db://me:battery-staple@db:5432"),
            STANDARD.encode("1234"),
        );
        let objects = parse("m", manifest.as_bytes(), &Limits::default()).unwrap();
        let values = json!({
            "auth": {"password": "correct-horse", "user": "somebody", "existingSecret": "", "pin": 1234},
            "url.password": "battery-staple",
            "port": 5432,
            "replicas": 2,
            "adminToken": "unused-token",
            "tokenSecretName": "a-name",
            "keys": [{"value": "from-a-list"}],
            "only": {"password": "correct-horse"},
            "empty": {},
        });
        let split = split(&values, &objects);
        let secret: Vec<_> = split
            .secret
            .iter()
            .map(|one| (one.path.as_str(), one.key.as_str(), std::str::from_utf8(one.value.expose()).unwrap()))
            .collect();
        assert_eq!(
            secret,
            [
                ("auth.password", "auth.password", "correct-horse"),
                ("auth.pin", "auth.pin", "1234"),
                ("url\\.password", "url-.password", "battery-staple"),
                ("only.password", "only.password", "correct-horse"),
            ]
        );
        let plain = json!({
            "auth": {"user": "somebody", "existingSecret": ""}, "port": 5432, "replicas": 2, "adminToken": "unused-token",
            "tokenSecretName": "a-name", "keys": [null], "empty": {},
        });
        assert_eq!(Value::Object(split.plain), plain);
        assert_eq!(
            split.in_both.iter().map(|(path, id)| (path.as_str(), id.name.as_str())).collect::<Vec<_>>(),
            [("auth.user", "b")]
        );
        assert_eq!(split.suspicious, ["adminToken"]);
        assert_eq!(split.in_lists, ["keys[0].value"]);
    }

    #[test]
    fn values_that_the_chart_made_are_named() {
        let manifest = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: a}}\ndata: {{password: {}, url: {}, made: {}, none: ''}}\nstringData: \
             {{key: also-made}}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: b}}\ndata: {{user: somebody}}\n",
            STANDARD.encode("correct-horse"),
            STANDARD.encode("db://me:correct-horse@db:5432"),
            STANDARD.encode("xKcD0123"),
        );
        let objects = parse("m", manifest.as_bytes(), &Limits::default()).unwrap();
        let found = not_given(&json!({"auth": [{"password": "correct-horse"}], "empty": ""}), &objects);
        assert_eq!(found, ["made of Secret a", "key of Secret a"]);
        assert_eq!(not_given(&Value::Null, &objects).len(), 4);
    }

    #[test]
    fn keys_of_the_sealed_secret_differ() {
        let objects = parse(
            "m",
            b"{apiVersion: v1, kind: Secret, metadata: {name: a}, stringData: {a: first-value}}",
            &Limits::default(),
        );
        let split = split(&json!({"a b": "first-value", "a-b": "first-value"}), &objects.unwrap());
        assert_eq!(split.secret.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["a-b", "a-b-"]);
    }
}
