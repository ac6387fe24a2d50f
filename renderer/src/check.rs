//! Checks that a result fits the files that the process got. The process may lie, because it works on files of people
//! who are not trusted.
//!
//! # What is checked
//! - The process got the files that every true result depends on: the kustomization, or the chart and the files with values.
//! - The process got each file that it names as the origin of an object.
//!
//! # What cannot be checked
//! Whether the objects are those that Kustomize or Helm would make of these files: this would take another render.

use std::collections::HashSet;

use serde::de::DeserializeOwned;

use crate::{Object, RenderedChart, RenderedKustomization, Request, helm::Values};

/// The names of the file that makes a folder a kustomization.
const KUSTOMIZATION_FILES: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// The paths of the files that a process got during one render, as it asked for them.
#[derive(Default)]
pub(crate) struct Got(HashSet<String>);

impl Got {
    /// Notes that the process gets the file at `path`.
    pub(crate) fn add(&mut self, path: String) {
        self.0.insert(path);
    }

    fn has(&self, path: &str) -> bool {
        self.0.contains(path)
    }

    /// Whether `path` is in an archive of a chart that the process got: the chart `top` itself, or a chart in a folder `charts`.
    fn has_archive_with(&self, path: &str, top: &str) -> bool {
        let mut ends = path.match_indices('/').map(|(end, _)| end);
        ends.any(|end| {
            let (file, below) = (&path[..end], &path[end + 1..]);
            (file == top || is_nested_archive(file)) && self.has(file) && crate::is_inside(below)
        })
    }
}

/// Whether Helm unpacks the file as a chart that another chart depends on: a `.tgz` in a folder `charts`, except if its name begins
/// with `.` or `_`.
fn is_nested_archive(file: &str) -> bool {
    let mut names = file.rsplit('/');
    let name = names.next().unwrap_or_default();
    let is_archive = name.rsplit_once('.').is_some_and(|(_, end)| end == "tgz") && !name.starts_with(['.', '_']);
    is_archive && names.next() == Some("charts")
}

/// The result of a render, as the process sends it.
pub(crate) trait Answer: DeserializeOwned {
    /// The rendered objects.
    fn objects(&self) -> impl Iterator<Item = &Object>;
}

impl Answer for RenderedKustomization {
    fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter()
    }
}

impl Answer for RenderedChart {
    fn objects(&self) -> impl Iterator<Item = &Object> {
        self.objects.iter().map(|one| &one.object)
    }
}

/// Checks the result of a process that got the files `got`.
///
/// # Errors
/// The result cannot be true. The error says why, as the end of a sentence about the process.
pub(crate) fn check(request: &Request<'_>, got: &Got, result: &impl Answer) -> Result<(), String> {
    for alternatives in needed(request) {
        if !alternatives.iter().any(|path| got.has(path)) {
            return Err(format!("it has not read '{}'", alternatives.first().map_or("", String::as_str)));
        }
    }
    let given = match request {
        Request::Kustomize(kustomization) => kustomization.overlay.as_ref().map_or(0, |overlay| overlay.objects.len()),
        Request::Helm(_) => 0,
    };
    let top = match request {
        Request::Kustomize(_) => None,
        Request::Helm(chart) => Some(cleaned(&chart.path)),
    };
    for Object { origin, index, .. } in result.objects() {
        let is_in_archive = || top.as_ref().is_some_and(|top| got.has_archive_with(origin, top));
        let is_read = || got.has(origin) || is_in_archive();
        if !origin.is_empty() && !is_read() {
            return Err(format!("an object is said to be from '{origin:.200}', which it has not read"));
        }
        if let Some(index) = index.filter(|index| *index >= given) {
            return Err(format!("an object is said to be object {index} of the request, which has {given} objects"));
        }
    }
    Ok(())
}

/// The files that every result depends on: of each list, one file.
fn needed(request: &Request<'_>) -> Vec<Vec<String>> {
    match request {
        Request::Kustomize(kustomization) => {
            let path = kustomization.path;
            let folders = match &kustomization.overlay {
                None => vec![cleaned(path)],
                Some(overlay) => {
                    let components = overlay.fields.components.iter();
                    let components = components.map(|component| cleaned(&format!("{path}/{component}")));
                    overlay.folders.iter().map(|folder| cleaned(folder)).chain(components).collect()
                }
            };
            let files = |folder: &String| KUSTOMIZATION_FILES.map(|name| below(folder, name)).to_vec();
            folders.iter().map(files).collect()
        }
        Request::Helm(chart) => {
            let path = cleaned(&chart.path);
            let values = chart.values.iter().filter_map(|values| match values {
                Values::File(file) => Some(vec![cleaned(file)]),
                Values::Yaml { .. } | Values::Set(_) | Values::SetString(_) | Values::SetJson(_) => None,
            });
            // The chart is a folder or an archive.
            std::iter::once(vec![below(&path, "Chart.yaml"), path]).chain(values).collect()
        }
    }
}

/// The path as the process asks for it: relative to the root, without `.` and `..`.
fn cleaned(path: &str) -> String {
    let mut names = Vec::new();
    for name in path.split('/') {
        match name {
            "" | "." => {}
            ".." => drop(names.pop()),
            name => names.push(name),
        }
    }
    names.join("/")
}

fn below(folder: &str, name: &str) -> String {
    if folder.is_empty() { name.to_owned() } else { format!("{folder}/{name}") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Chart, ChartObject, Kustomization, overlay::OverlayRequest};

    fn checked(request: &Request<'_>, files: &[&str], origins: &[&str]) -> Result<(), String> {
        let mut got = Got::default();
        for file in files {
            got.add((*file).to_owned());
        }
        let object = |origin: &&str| Object { origin: (*origin).to_owned(), ..Object::default() };
        let objects = origins.iter().map(object);
        if let Request::Kustomize(_) = request {
            return check(request, &got, &RenderedKustomization { objects: objects.collect() });
        }
        let of_chart = |object| ChartObject { object, source: String::new(), crd: false, hook: None };
        check(request, &got, &RenderedChart { objects: objects.map(of_chart).collect(), ..RenderedChart::default() })
    }

    #[test]
    fn paths_are_cleaned_as_the_process_cleans_them() {
        for (path, clean) in [("", ""), (".", ""), ("./a//b/", "a/b"), ("a/../../b/./c", "b/c"), ("/a", "a")] {
            assert_eq!(cleaned(path), clean, "{path}");
        }
    }

    #[test]
    fn the_kustomization_must_be_read_under_one_of_its_names() {
        for (path, file) in [
            ("app", "app/kustomization.yaml"),
            ("./app/", "app/kustomization.yml"),
            ("app", "app/Kustomization"),
            ("", "kustomization.yaml"),
        ] {
            let request = Request::Kustomize(Kustomization { path, overlay: None });
            assert_eq!(checked(&request, &[file, "base/a.yaml"], &["base/a.yaml", ""]), Ok(()), "{path}");
            let lie = checked(&request, &["base/a.yaml", "other/kustomization.yaml"], &[]).unwrap_err();
            assert!(lie.starts_with("it has not read '") && lie.contains("kustomization.yaml"), "{lie}");
        }
        let request = Request::Kustomize(Kustomization { path: "app", overlay: None });
        let files = ["app/kustomization.yaml", "https://git.example/a@v1//base/a.yaml"];
        assert_eq!(checked(&request, &files, &["https://git.example/a@v1//base/a.yaml"]), Ok(()));
        for origin in ["base/a.yaml", "app", "app/kustomization.yaml/a.yaml", "https://git.example/a@v2//base/a.yaml"] {
            let lie = checked(&request, &files, &[origin]).unwrap_err();
            assert!(lie.contains(&format!("'{origin}', which it has not read")), "{lie}");
        }
    }

    #[test]
    fn each_kustomization_and_component_of_a_sync_must_be_read() {
        let fields = crds::Overlay { components: vec!["../tls/".to_owned()], ..crds::Overlay::default() };
        let folders = ["app/a".to_owned(), "app/b".to_owned()];
        let request = |objects: &[&str]| {
            let overlay = OverlayRequest {
                folders: &folders,
                objects: objects.iter().map(|text| (*text).to_owned()).collect(),
                namespace: "",
                moves_all: false,
                fields: &fields,
            };
            Request::Kustomize(Kustomization { path: "app", overlay: Some(overlay) })
        };
        let all = ["app/a/kustomization.yaml", "app/b/kustomization.yml", "tls/kustomization.yaml"];
        assert_eq!(checked(&request(&[]), &all, &[]), Ok(()));
        for missing in 0..3 {
            let some: Vec<_> = all.into_iter().filter(|file| *file != all[missing]).collect();
            assert!(checked(&request(&[]), &some, &[]).is_err(), "without {}", all[missing]);
        }
        let mut got = Got::default();
        for file in all {
            got.add(file.to_owned());
        }
        let object =
            |index| RenderedKustomization { objects: vec![Object { index: Some(index), ..Object::default() }] };
        assert_eq!(check(&request(&["{}"]), &got, &object(0)), Ok(()));
        let lie = check(&request(&["{}"]), &got, &object(1)).unwrap_err();
        assert!(lie.contains("object 1 of the request, which has 1 objects"), "{lie}");
    }

    #[test]
    fn the_chart_and_its_values_must_be_read_and_archives_hold_what_is_in_them() {
        let chart = Chart {
            path: "./charts/web".to_owned(),
            values: vec![Values::File("./values/a.yaml".to_owned()), Values::Set("a=b".to_owned())],
            ..Chart::default()
        };
        let request = Request::Helm(&chart);
        let all = ["charts/web/Chart.yaml", "values/a.yaml", "charts/web/charts/db.tgz", "charts/web/templates/a.yaml"];
        let origins = ["charts/web/templates/a.yaml", "charts/web/charts/db.tgz/templates/b.yaml", ""];
        assert_eq!(checked(&request, &all, &origins), Ok(()));
        assert!(checked(&request, &all[1..], &[]).unwrap_err().contains("charts/web/Chart.yaml"));
        assert!(checked(&request, &all[..1], &[]).unwrap_err().contains("values/a.yaml"));
        for origin in ["charts/web/templates/b.yaml", "charts/web/charts/db.tgz/../b.yaml", "charts/web"] {
            assert!(checked(&request, &all, &[origin]).is_err(), "{origin}");
        }
        let no_archives = [
            "charts/web/templates/a.yaml",
            "values/a.yaml",
            "charts/web/files/a.tgz",
            "charts/web/charts/a.zip",
            "charts/web/charts/_a.tgz",
            "charts/web/charts/.a.tgz",
        ];
        for file in no_archives {
            let (all, origin) = ([&all[..], &[file]].concat(), format!("{file}/templates/b.yaml"));
            assert!(checked(&request, &all, &[&origin]).is_err(), "{origin}");
        }
        for file in ["charts/web/charts/db/charts/a.tgz", "https://charts.example#cache@1.2.3//charts/a.tgz"] {
            let (all, origin) = ([&all[..], &[file]].concat(), format!("{file}/charts/b.tgz/templates/b.yaml"));
            assert_eq!(checked(&request, &all, &[&origin]), Ok(()), "{origin}");
        }
        let archive = Chart { path: "web-1.0.0.tgz".to_owned(), ..Chart::default() };
        let request = Request::Helm(&archive);
        assert_eq!(checked(&request, &["web-1.0.0.tgz"], &["web-1.0.0.tgz/templates/a.yaml"]), Ok(()));
        assert!(checked(&request, &[], &[]).is_err());
    }
}
