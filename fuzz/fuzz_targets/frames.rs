//! Renders with a process that sends arbitrary frames, whatever it is sent. Nothing is believed that such a process cannot
//! know from the files that it got.
#![no_main]

use std::{cell::RefCell, collections::BTreeSet, convert::Infallible, time::Duration};

use libfuzzer_sys::fuzz_target;
use renderer::{At, Chart, Limits, Object, RemoteChart, RemoteFolder, Repository, Values, fuzzing};

const FILES: [(&str, &str); 5] = [
    ("app/kustomization.yaml", "resources: [a.yaml, 'https://git.example/base?ref=v1']\n"),
    ("app/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n"),
    ("app/Chart.yaml", "apiVersion: v2\nname: a\nversion: 1.0.0\n"),
    ("app/charts/b.tgz", "an archive"),
    ("values.yaml", "a: b\n"),
];

/// The name of the only remote repository.
const REMOTE: &str = "https://git.example/base@v1";

const LIMITS: Limits =
    Limits { memory: 1 << 20, time: Duration::from_secs(1), files: 4096, asks: 64, answer: 64 << 10 };

/// A repository with [`FILES`] that remembers which of them were read.
#[derive(Default)]
struct Files {
    read: RefCell<BTreeSet<String>>,
    asked: RefCell<usize>,
}

impl Files {
    fn count(&self) {
        *self.asked.borrow_mut() += 1;
    }

    fn found() -> RemoteFolder {
        let (url, reference) = ("https://git.example/base".to_owned(), "v1".to_owned());
        RemoteFolder::Found { root: REMOTE.to_owned(), folder: String::new(), url, reference }
    }
}

impl Repository for Files {
    type Error = Infallible;

    fn at(&self, path: &str) -> Result<At, Infallible> {
        self.count();
        assert!(!path.split('/').any(|part| part == ".." || part == "."), "'{path}' leads out of the repository");
        if let Some((_, text)) = FILES.iter().find(|(known, _)| *known == path) {
            self.read.borrow_mut().insert(path.to_owned());
            return Ok(At::File(text.as_bytes().to_vec()));
        }
        Ok(if ["", "app", "app/charts"].contains(&path) { At::Directory(vec!["a".to_owned()]) } else { At::Nothing })
    }

    fn at_remote(&self, root: &str, path: &str) -> Result<At, Infallible> {
        self.count();
        assert_eq!(root, REMOTE, "nobody has given it another one");
        self.read.borrow_mut().insert(format!("{root}//{path}"));
        Ok(At::File(b"kind: ConfigMap".to_vec()))
    }

    fn remote_base(&self, entry: &str) -> Result<RemoteFolder, Infallible> {
        self.count();
        Ok(if entry.len() % 2 == 0 { Self::found() } else { RemoteFolder::Refused("no".to_owned()) })
    }

    fn remote_chart(&self, _: &RemoteChart) -> Result<RemoteFolder, Infallible> {
        self.count();
        Ok(Self::found())
    }
}

fuzz_target!(|data: &[u8]| {
    look(data);
    look(&framed(data));
});

/// Makes frames of the parts between bytes that are not in UTF-8. The first byte of each part is the kind of the frame.
fn framed(data: &[u8]) -> Vec<u8> {
    let parts = data.split(|byte| *byte == 0xff).filter(|part| !part.is_empty());
    let frame = |part: &[u8]| [&u32::try_from(part.len()).unwrap_or(0).to_be_bytes()[..], part].concat();
    parts.flat_map(frame).collect()
}

fn look(frames: &[u8]) {
    let files = Files::default();
    if let Some(objects) = fuzzing::kustomize(frames, "./app", &files, &LIMITS) {
        let read = files.read.borrow();
        assert!(read.contains("app/kustomization.yaml"), "a result without the kustomization");
        believed(objects.iter(), |origin| read.contains(origin));
    }
    assert!(*files.asked.borrow() <= LIMITS.asks);

    let files = Files::default();
    let chart =
        Chart { path: "app".to_owned(), values: vec![Values::File("values.yaml".to_owned())], ..Chart::default() };
    if let Some(rendered) = fuzzing::helm(frames, &chart, &files, &LIMITS) {
        let read = files.read.borrow();
        assert!(read.contains("app/Chart.yaml") || read.contains("app"), "a result without the chart");
        assert!(read.contains("values.yaml"), "a result without the values");
        let in_archive = |origin: &str| read.iter().any(|file| origin.starts_with(&format!("{file}/")));
        believed(rendered.objects.iter().map(|one| &one.object), |origin| read.contains(origin) || in_archive(origin));
        drop(rendered.text());
    }
    assert!(*files.asked.borrow() <= LIMITS.asks);
}

fn believed<'o>(objects: impl Iterator<Item = &'o Object>, is_read: impl Fn(&str) -> bool) {
    for Object { origin, index, .. } in objects {
        assert!(origin.is_empty() || is_read(origin), "an object of '{origin}', which was not read");
        assert!(index.is_none(), "the request has no objects");
    }
}
