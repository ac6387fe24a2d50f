//! Finds the file and line in Git that a rendered object comes from.

use std::collections::HashMap;

use manifests::{Limits, Location, Manifest, ParseError};

use crate::{At, Object, Repository};

/// Returns the objects, each with the file and line in Git of the object or of its generator. `folder` is the folder that
/// was rendered. It is given as the place of an object whose file is not known.
///
/// # Errors
/// Kubernetes would not accept an object. The error says which one and why.
pub fn located<'o, R: Repository>(
    objects: impl IntoIterator<Item = &'o Object>,
    folder: &str,
    repository: &R,
    limits: &Limits,
) -> Result<Vec<Manifest>, ParseError> {
    let mut files = Files { repository, known: HashMap::new() };
    let mut manifests = Vec::new();
    for object in objects {
        let file = if object.origin.is_empty() { folder } else { &object.origin };
        for mut manifest in manifests::parse(file, object.yaml.as_bytes(), limits)? {
            let line = files.at(file).line_of(&manifest, object.generated);
            manifest.origin = Location { file: file.into(), line };
            manifests.push(manifest);
        }
    }
    Ok(manifests)
}

struct Files<'r, R> {
    repository: &'r R,
    known: HashMap<String, Source>,
}

/// A file that objects come from.
#[derive(Default)]
struct Source {
    text: String,
    manifests: Vec<Manifest>,
}

impl<R: Repository> Files<'_, R> {
    fn at(&mut self, file: &str) -> &Source {
        if !self.known.contains_key(file) {
            let source = match self.repository.at(file) {
                Ok(At::File(bytes)) => Source {
                    manifests: manifests::parse(file, &bytes, &Limits::default()).unwrap_or_default(),
                    text: String::from_utf8_lossy(&bytes).into_owned(),
                },
                // The file was read for the render. If it cannot be read again, only the line numbers are unknown.
                _ => Source::default(),
            };
            self.known.insert(file.to_owned(), source);
        }
        &self.known[file]
    }
}

impl Source {
    /// The line at which the object starts, or 1 if that is not known. Kustomize may have added a prefix or suffix to the
    /// object's name, so a name that only contains the one in the file counts, too.
    fn line_of(&self, object: &Manifest, generated: bool) -> u32 {
        if generated {
            let field = if object.id.is_secret() { "secretGenerator:" } else { "configMapGenerator:" };
            let line = self.text.lines().position(|line| line.starts_with(field));
            return line.and_then(|line| u32::try_from(line + 1).ok()).unwrap_or(1);
        }
        let of_kind = || self.manifests.iter().filter(|known| known.id.kind == object.id.kind);
        let same = of_kind().find(|known| known.id.name == object.id.name);
        let longest =
            || of_kind().filter(|known| object.id.name.contains(&known.id.name)).max_by_key(|k| k.id.name.len());
        let known = same.or_else(longest).or_else(|| of_kind().next()).map(|known| known.origin.line);
        known.or_else(|| self.line_of_kind(&object.id.kind)).unwrap_or(1)
    }

    /// The line at which the first object of a kind starts, in a text that is not YAML: a template.
    fn line_of_kind(&self, kind: &str) -> Option<u32> {
        let mut start = None;
        for (line, text) in (1..).zip(self.text.lines()) {
            let text = text.trim_end();
            if text == "---" {
                start = None;
            } else if start.is_none() && !text.is_empty() && !text.starts_with('#') && !text.starts_with("{{") {
                start = Some(line);
            }
            if text.strip_prefix("kind:").is_some_and(|named| named.trim() == kind) {
                return start;
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, convert::Infallible};

    use super::*;

    struct Texts(BTreeMap<&'static str, &'static str>);

    impl Repository for Texts {
        type Error = Infallible;

        fn at(&self, path: &str) -> Result<At, Infallible> {
            Ok(self.0.get(path).map_or(At::Nothing, |text| At::File(text.as_bytes().to_vec())))
        }
    }

    fn object(origin: &str, generated: bool, kind: &str, name: &str) -> Object {
        let yaml = format!("apiVersion: v1\nkind: {kind}\nmetadata: {{name: {name}}}\n");
        Object { origin: origin.into(), generated, yaml }
    }

    #[test]
    fn an_object_is_found_in_its_template() {
        let template = "{{- if .Values.map }}\n# a map\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n---\n\n\
            {{- end }}\n\napiVersion: v1\nkind: Service\nmetadata:\n  name: {{ .Release.Name }}\n";
        let texts = Texts([("web/templates/all.yaml", template)].into());
        let of = |kind| object("web/templates/all.yaml", false, kind, "web");
        let found = located(&[of("ConfigMap"), of("Service"), of("Pod")], "web", &texts, &Limits::default()).unwrap();
        let lines: Vec<_> = found.iter().map(|manifest| manifest.origin.line).collect();
        assert_eq!(lines, [3, 10, 1]);
    }

    #[test]
    fn an_object_is_found_in_its_file_whatever_it_is_called_now() {
        let maps = "# two maps\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\n---\n\
            apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web-files}\n";
        let kustomization = "resources: [maps.yaml]\nsecretGenerator:\n- name: db\nconfigMapGenerator:\n- name: env\n";
        let texts = Texts([("base/maps.yaml", maps), ("base/kustomization.yaml", kustomization)].into());
        let objects = [
            object("base/maps.yaml", false, "ConfigMap", "prod-web"),
            object("base/maps.yaml", false, "ConfigMap", "prod-web-files"),
            object("base/kustomization.yaml", true, "ConfigMap", "env-5tb4"),
            object("base/kustomization.yaml", true, "Secret", "db-2kg9"),
            object("base/gone.yaml", false, "Service", "web"),
            object("", false, "Service", "web"),
        ];
        let found = located(&objects, "over", &texts, &Limits::default()).unwrap();
        let places: Vec<_> = found.iter().map(|manifest| manifest.origin.to_string()).collect();
        let expected = [
            "base/maps.yaml:2",
            "base/maps.yaml:6",
            "base/kustomization.yaml:4",
            "base/kustomization.yaml:2",
            "base/gone.yaml:1",
            "over:1",
        ];
        assert_eq!(places, expected);
    }
}
