//! Replaces the variables in one object.

use std::fmt;

use crds::names;
use manifests::{Manifest, printable};
use schemas::Field;
use serde_json::{Map, Value};

use super::{
    Variables,
    language::{Budget, Expanded, Mistake, expand, may_have_variables},
    typed::{fields_of, value_of},
};

/// What came of the variables of an object.
#[derive(Default)]
pub(super) struct Found {
    /// What is wrong, with the field: as many as are named.
    pub(super) mistakes: Vec<String>,
    /// How many other mistakes there are.
    pub(super) more: usize,
    /// Whether a variable is not set.
    pub(super) is_not_set: bool,
    /// How many bytes were put into the object.
    pub(super) bytes: u64,
}

/// Replaces the variables in all texts and names of fields of an object. CustomResourceDefinitions, and objects that ask for
/// it, stay as they are. At most `named` mistakes are told, because an object of a few megabytes can have millions.
pub(super) fn substituted_in(
    manifest: &mut Manifest,
    variables: &Variables,
    budget: &mut Budget,
    named: usize,
) -> Found {
    if is_left_alone(manifest) {
        return Found::default();
    }
    let Manifest { id, version, body, .. } = manifest;
    let mut walk =
        Walk { variables, budget, named, is_secret: id.is_secret(), is_changed: false, found: Found::default() };
    walk.fields(body, fields_of(id, version), None);
    let Walk { is_changed, mut found, .. } = walk;
    if !is_changed {
        return found;
    }
    let (group, kind, version) = (manifest.id.group.clone(), manifest.id.kind.clone(), manifest.version.clone());
    match manifest.identify() {
        Err(error) => found.mistakes.push(format!("after its variables are replaced: {}", error.kind())),
        Ok(()) if (&manifest.id.group, &manifest.id.kind, &manifest.version) != (&group, &kind, &version) => {
            found.mistakes.push("apiVersion and kind cannot have variables".to_owned());
        }
        Ok(()) => {}
    }
    found
}

/// How many characters of a mistake are told. The path of a field can be very long.
const LONGEST_MISTAKE: usize = 500;

fn is_left_alone(Manifest { id, body, .. }: &Manifest) -> bool {
    if id.group == "apiextensions.k8s.io" && id.kind == "CustomResourceDefinition" {
        return true;
    }
    let metadata = body.get("metadata");
    let marks = ["annotations", "labels"].into_iter().filter_map(|field| metadata?.get(field));
    let mut values = marks.flat_map(|marks| [names::SUBSTITUTE, names::FLUX_SUBSTITUTE].map(|name| marks.get(name)));
    values.any(|value| value.and_then(Value::as_str) == Some(names::SUBSTITUTE_DISABLED))
}

struct Walk<'a> {
    variables: &'a Variables,
    budget: &'a mut Budget,
    named: usize,
    is_secret: bool,
    is_changed: bool,
    found: Found,
}

/// The place of a value in an object. Its text is put together only for a message, because names of fields may be long.
#[derive(Clone, Copy)]
struct Place<'a> {
    above: Option<&'a Place<'a>>,
    step: Step<'a>,
}

#[derive(Clone, Copy)]
enum Step<'a> {
    Field(&'a str),
    Item(usize),
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(above) = self.above {
            above.fmt(f)?;
        }
        match self.step {
            Step::Field(name) if self.above.is_none() => f.write_str(&printable(name)),
            Step::Field(name) => write!(f, ".{}", printable(name)),
            Step::Item(index) => write!(f, "[{index}]"),
        }
    }
}

impl Place<'_> {
    /// Whether this is the value of a key in the field `field` of the object.
    fn is_key_of(&self, field: &str) -> bool {
        self.above
            .is_some_and(|above| above.above.is_none() && matches!(above.step, Step::Field(name) if name == field))
    }
}

impl Walk<'_> {
    fn fields(&mut self, fields: &mut Map<String, Value>, of: Field<'_>, above: Option<&Place<'_>>) {
        for (name, value) in fields.iter_mut() {
            let place = Place { above, step: Step::Field(name) };
            self.value(value, of.field(name), &place);
        }
        if !fields.keys().any(|name| may_have_variables(name)) {
            return;
        }
        for (name, value) in std::mem::take(fields) {
            let place = Place { above, step: Step::Field(&name) };
            let renamed = match self.expanded(&name, &place) {
                Some(Expanded { sealed: Some(variable), .. }) => {
                    self.sealed_elsewhere(&variable, &place);
                    name
                }
                Some(Expanded { text, .. }) => text,
                None => name,
            };
            if fields.contains_key(&renamed) {
                let place = Place { above, step: Step::Field(&renamed) };
                self.mistake(&place, &"there would be two fields with this name");
            }
            fields.insert(renamed, value);
        }
    }

    fn value(&mut self, value: &mut Value, of: Field<'_>, place: &Place<'_>) {
        match value {
            Value::Object(fields) => self.fields(fields, of, Some(place)),
            Value::Array(items) => {
                for (index, item) in items.iter_mut().enumerate() {
                    self.value(item, of.item(), &Place { above: Some(place), step: Step::Item(index) });
                }
            }
            Value::String(text) => {
                let Some(Expanded { text, had_variable, is_one_variable, sealed }) = self.expanded(text, place) else {
                    return;
                };
                if let Some(variable) = sealed.filter(|_| !(self.is_secret && place.is_key_of("stringData"))) {
                    return self.sealed_elsewhere(&variable, place);
                }
                if !had_variable {
                    *value = text.into();
                    return;
                }
                match value_of(text, of.field_type(), is_one_variable) {
                    Ok(read) => *value = read,
                    Err(takes) => self.mistake(place, &format!("{takes}, but its variables give another text")),
                }
            }
            _ => {}
        }
    }

    /// The text with its variables replaced; `None` if there are none, or after a mistake.
    fn expanded(&mut self, text: &str, place: &Place<'_>) -> Option<Expanded> {
        if !may_have_variables(text) {
            return None;
        }
        self.is_changed = true;
        let variables = self.variables;
        match expand(text, &|name| variables.get(name), self.budget) {
            Ok(expanded) => {
                self.found.bytes += expanded.text.len() as u64;
                Some(expanded)
            }
            Err(mistake) => {
                self.found.is_not_set |= matches!(mistake, Mistake::NotSet(_));
                self.mistake(place, &mistake);
                None
            }
        }
    }

    fn mistake(&mut self, place: &Place<'_>, what: &dyn fmt::Display) {
        if self.found.mistakes.len() >= self.named {
            self.found.more += 1;
            return;
        }
        let mut text = format!("{place}: {what}");
        if let Some((end, _)) = text.char_indices().nth(LONGEST_MISTAKE) {
            text.truncate(end);
            text.push('…');
        }
        self.found.mistakes.push(text);
    }

    fn sealed_elsewhere(&mut self, variable: &str, place: &Place<'_>) {
        let why = if self.is_secret && place.is_key_of("data") {
            format!("the variable {variable} is secret, and data takes base64: write the key below stringData instead")
        } else {
            format!("the variable {variable} is secret, so it can only be in stringData of a Secret")
        };
        self.mistake(place, &why);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const WORD: &str = "gitsealvalue00112233445566778899aabbccddeeff";

    fn variables() -> Variables {
        let plain = [("n", "3"), ("name", "web"), ("on", "true"), ("list", "[a, b]"), ("port", "8080"), ("v", "1.10")];
        Variables::of(&plain, &[("password", WORD)])
    }

    fn parsed(text: &str) -> Manifest {
        let parsed = manifests::parse("app/a.yaml", text.as_bytes(), &manifests::Limits::default());
        parsed.unwrap().into_iter().next().unwrap()
    }

    fn substituted(text: &str) -> (Manifest, Found) {
        let mut manifest = parsed(text);
        let found = substituted_in(&mut manifest, &variables(), &mut Budget::new(1 << 20), 100);
        (manifest, found)
    }

    #[test]
    fn fields_get_values_of_their_types() {
        let (web, found) = substituted(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: 'a-${name}', namespace: '${name}', labels: {count: '${n}', \
             v: '${v}'}}\nspec: {replicas: '${n}', paused: '${on}', template: {spec: {containers: [{name: c, args: '${list}', \
             env: [{name: COUNT, value: '${n}'}], readinessProbe: {httpGet: {port: '${port}'}}, resources: {limits: {cpu: \
             '${n}'}}}]}}}\n",
        );
        assert_eq!(found.mistakes, Vec::<String>::new());
        assert_eq!((web.id.name.as_str(), web.id.namespace.as_deref()), ("a-web", Some("web")));
        assert_eq!(web.body["metadata"]["labels"], json!({"count": "3", "v": "1.10"}));
        assert_eq!(web.body["spec"]["replicas"], json!(3));
        assert_eq!(web.body["spec"]["paused"], json!(true));
        let container = &web.body["spec"]["template"]["spec"]["containers"][0];
        assert_eq!(
            *container,
            json!({"name": "c", "args": ["a", "b"], "env": [{"name": "COUNT", "value": "3"}],
                "readinessProbe": {"httpGet": {"port": 8080}}, "resources": {"limits": {"cpu": "3"}}})
        );
        let (other, _) = substituted(
            "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w, annotations: {count: '${n}'}}\nspec: {size: '${n}', \
             name: '${name}-${n}', text: '\"${n}\"', list: '${list}'}\n",
        );
        assert_eq!(other.body["spec"], json!({"size": 3, "name": "web-3", "text": "3", "list": ["a", "b"]}));
        assert_eq!(other.body["metadata"]["annotations"], json!({"count": "3"}));
    }

    #[test]
    fn names_of_fields_and_escapes_are_replaced() {
        let (map, found) = substituted(
            "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {'${name}.conf': 'port=${port} $${HOME} $1', b: c}\n",
        );
        assert!(found.mistakes.is_empty());
        assert_eq!(map.body["data"], json!({"web.conf": "port=8080 ${HOME} $1", "b": "c"}));
        let keys: Vec<_> = map.body["data"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["web.conf", "b"]);
        for data in ["{'${name}': a, web: b}", "{web: b, '${name}': a}"] {
            let (_, found) =
                substituted(&format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {data}\n"));
            assert_eq!(found.mistakes.len(), 1, "{data}: {:?}", found.mistakes);
        }
    }

    #[test]
    fn some_objects_stay_as_they_are() {
        let left = |metadata: &str| {
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, {metadata}}}\ndata: {{a: '${{gone}}'}}\n")
        };
        for text in [
            left("annotations: {gitseal.dev/substitute: disabled}"),
            left("labels: {gitseal.dev/substitute: disabled}"),
            left("annotations: {kustomize.toolkit.fluxcd.io/substitute: disabled}"),
            left("labels: {kustomize.toolkit.fluxcd.io/substitute: disabled}"),
            "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: a.b}\nspec: {a: '${gone}'}\n"
                .to_owned(),
        ] {
            let (manifest, found) = substituted(&text);
            assert!(found.mistakes.is_empty() && manifest == parsed(&text), "{text}: {:?}", found.mistakes);
        }
        let (_, found) = substituted(&left("labels: {gitseal.dev/substitute: enabled}"));
        assert!(found.is_not_set, "{:?}", found.mistakes);
    }

    #[test]
    fn mistakes_name_their_field() {
        let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: a}\nspec: ";
        for (text, said) in [
            (format!("{deployment}{{replicas: '${{gone}}'}}"), "spec.replicas: the variable gone is not set"),
            (
                format!("{deployment}{{replicas: '${{name}}'}}"),
                "spec.replicas: takes a whole number, but its variables give another text",
            ),
            (
                format!("{deployment}{{template: {{spec: {{containers: [{{image: 'a:${{'}}]}}}}}}"),
                "spec.template.spec.containers[0].image: `${` is not understood",
            ),
            (
                "apiVersion: v1\nkind: 'Config${name}'\nmetadata: {name: a}".to_owned(),
                "apiVersion and kind cannot have variables",
            ),
            (
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: 'a${list}'}".to_owned(),
                "after its variables are replaced: ",
            ),
            (
                "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {p: '${password}'}".to_owned(),
                "data.p: the variable password is secret, so it can only be in stringData of a Secret",
            ),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {p: '${password}'}".to_owned(),
                "data.p: the variable password is secret, and data takes base64: write the key below stringData",
            ),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: a, labels: {p: '${password}'}}".to_owned(),
                "metadata.labels.p: the variable password is secret",
            ),
            (
                "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {'${password}': b}".to_owned(),
                "the variable password is secret, so it can only be in stringData",
            ),
        ] {
            let (_, found) = substituted(&text);
            assert!(found.mistakes.len() == 1 && found.mistakes[0].contains(said), "{text}: {:?}", found.mistakes);
        }
        let (secret, found) =
            substituted("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {url: 'db://${password}@db'}");
        assert!(found.mistakes.is_empty());
        assert_eq!(secret.body["stringData"]["url"], json!(format!("db://{WORD}@db")));
    }

    /// An object of one megabyte can have a hundred thousand mistakes, each with a path of 25,000 characters.
    #[test]
    fn only_a_few_mistakes_are_told_and_each_of_them_briefly() {
        let name = "n".repeat(200);
        let deep =
            (0..60).fold("[".to_owned() + &"\"${\",".repeat(50_000) + "]", |inner, _| format!("{{{name}: {inner}}}"));
        let text = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata: {deep}\n");
        let mut manifest = parsed(&text);
        let found = substituted_in(&mut manifest, &variables(), &mut Budget::new(1 << 23), 20);
        assert_eq!((found.mistakes.len(), found.more), (20, 49_980));
        assert!(found.mistakes.iter().all(|mistake| mistake.chars().count() <= LONGEST_MISTAKE + 1));
    }
}
