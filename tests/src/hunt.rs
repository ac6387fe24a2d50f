//! The plaintext hunt: what a test seals may stand in the data of its Secret and nowhere else.
//!
//! A test calls [`known`] with each value that it seals. These values are searched for, as they are and in the usual
//! encodings ([`traces`]),
//! - in the log of a controller, which logs as much as it can, and in its Git store, when the controller has ended;
//! - in the objects and events of a scene's namespace, when the scene ends. The plane that all tests share is never
//!   ended, so its log and the scene's part of its Git store are searched when the scene ends, too.
//!
//! If a value is found, the search panics, so that the test fails.

use std::{
    collections::BTreeSet,
    fmt::Write as _,
    fs::{self, File},
    io::{Read as _, Seek as _, SeekFrom},
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use aho_corasick::AhoCorasick;
use anyhow::{Context, Result, bail};
use base64::{Engine as _, engine::general_purpose::STANDARD_NO_PAD};
use kube::{
    Api, Client, Config,
    api::{DynamicObject, ListParams},
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::kubernetes;

/// Values with fewer bytes are not searched for.
const SHORTEST: usize = 8;

/// What controllers log in tests: everything from our own crates, and debug messages from dependencies.
pub const EVERYTHING: &str = "debug,controller=trace,gitseal_controller=trace,gitstore=trace,apiclient=trace,\
     worker=trace,pipeline=trace,unsealing=trace,sealing=trace,manifests=trace,gotemplate=trace,crds=trace";

/// The kinds whose objects are searched in a scene's namespace. In a Secret, everything except its data is searched.
const KINDS: [(&str, &str); 9] = [
    ("v1", "Event"),
    ("v1", "ConfigMap"),
    ("v1", "Secret"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("batch/v1", "Job"),
    ("bitnami.com/v1alpha1", "SealedSecret"),
    ("gitseal.dev/v1alpha1", "Sync"),
    ("gitseal.dev/v1alpha1", "Repository"),
];

static KNOWN: Mutex<BTreeSet<Vec<u8>>> = Mutex::new(BTreeSet::new());

/// Registers a value that a test seals, so that it is searched for. Returns the value.
pub fn known<V: AsRef<[u8]> + ?Sized>(value: &V) -> &V {
    let bytes = value.as_ref();
    if is_unmistakable(bytes) {
        KNOWN.lock().unwrap_or_else(PoisonError::into_inner).insert(bytes.to_vec());
    }
    value
}

/// A short value or a single word may also be in other texts, so it is not searched for.
fn is_unmistakable(value: &[u8]) -> bool {
    value.len() >= SHORTEST && !value.iter().all(u8::is_ascii_lowercase)
}

/// The ways in which a value could be written down: as it is, escaped, in hexadecimal, and in base64, also as a part of
/// a longer text.
pub fn traces(value: &[u8]) -> Vec<Vec<u8>> {
    let mut hexadecimal = String::new();
    for byte in value {
        let _ = write!(hexadecimal, "{byte:02x}");
    }
    let text = String::from_utf8_lossy(value);
    let mut traces = vec![value.to_vec(), hexadecimal.into_bytes()];
    traces.extend([text.escape_debug().to_string(), text.escape_default().to_string()].map(String::into_bytes));
    for skipped in 0..3.min(value.len()) {
        let whole = &value[skipped..];
        traces.push(STANDARD_NO_PAD.encode(&whole[..whole.len() / 3 * 3]).into_bytes());
    }
    traces.retain(|trace| trace.len() >= SHORTEST);
    traces
}

/// A search for the values that are known by now.
struct Hunt {
    values: Vec<(Vec<u8>, usize)>,
    search: AhoCorasick,
}

impl Hunt {
    /// `None` as long as no value is known.
    fn new() -> Result<Option<Self>> {
        let known = KNOWN.lock().unwrap_or_else(PoisonError::into_inner).clone();
        Self::of(known)
    }

    fn of(known: impl IntoIterator<Item = Vec<u8>>) -> Result<Option<Self>> {
        let known: Vec<_> = known.into_iter().collect();
        if known.is_empty() {
            return Ok(None);
        }
        let (mut values, mut all) = (Vec::new(), Vec::new());
        for value in known {
            for trace in traces(&value) {
                values.push((value.clone(), trace.len()));
                all.push(trace);
            }
        }
        Ok(Some(Self { values, search: AhoCorasick::new(all)? }))
    }

    /// Fails if `text` contains a value.
    fn search(&self, place: &str, text: &[u8]) -> Result<()> {
        let Some(found) = self.search.find(text) else { return Ok(()) };
        let (value, _) = &self.values[found.pattern().as_usize()];
        let is_break = |byte: &u8| *byte == b'\n';
        let begin = text[..found.start()]
            .iter()
            .rposition(is_break)
            .map_or(0, |at| at + 1)
            .max(found.start().saturating_sub(300));
        let rest = &text[found.end()..];
        let end = found.end() + rest.iter().position(is_break).unwrap_or(rest.len()).min(300);
        bail!(
            "the plaintext hunt: the sealed value '{}' stands in {place}: {}",
            String::from_utf8_lossy(value),
            String::from_utf8_lossy(&text[begin..end])
        )
    }

    /// Searches every file below `folder`, and the decompressed content of every Git object in it.
    fn search_folder(&self, folder: &Path) -> Result<()> {
        if folder.join("objects").is_dir() && folder.join("HEAD").is_file() {
            let mut command = Command::new("git");
            command.arg("--git-dir").arg(folder).args(["cat-file", "--batch", "--batch-all-objects", "--unordered"]);
            // If the controller was ended before a repository was complete, only a part of the objects can be read, or
            // none.
            let output = command.env("GIT_CONFIG_GLOBAL", "/dev/null").output().context("git")?;
            self.search(&format!("the Git objects in {}", folder.display()), &output.stdout)?;
        }
        // Files that are deleted in the meantime are skipped.
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => self.search_folder(&path)?,
                Ok(kind) if kind.is_file() => {
                    self.search(&path.display().to_string(), &fs::read(&path).unwrap_or_default())?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    async fn search_objects(&self, client: &Client, namespace: &str) -> Result<()> {
        for (api_version, kind) in KINDS {
            let api: Api<DynamicObject> = kubernetes::objects(client, namespace, api_version, kind);
            // The plane may have ended, or may not serve the kind.
            let Ok(list) = api.list(&ListParams::default()).await else { continue };
            for mut object in list {
                let name = object.metadata.name.clone().unwrap_or_default();
                if kind == "Secret"
                    && let Some(fields) = object.data.as_object_mut()
                {
                    fields.remove("data");
                }
                self.search(&format!("{kind} {namespace}/{name}"), &serde_json::to_vec(&object)?)?;
            }
        }
        Ok(())
    }
}

/// A log, and how many of its bytes were already searched.
#[derive(Clone)]
struct Log {
    path: PathBuf,
    searched: Arc<Mutex<u64>>,
}

impl Log {
    fn search(&self, hunt: &Hunt) -> Result<()> {
        let mut searched = self.searched.lock().unwrap_or_else(PoisonError::into_inner);
        let Ok(mut file) = File::open(&self.path) else { return Ok(()) };
        file.seek(SeekFrom::Start(*searched))?;
        let mut text = Vec::new();
        file.read_to_end(&mut text)?;
        // The last line may not be complete yet, so it is searched again the next time.
        let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        *searched += whole as u64;
        hunt.search(&format!("the log {}", self.path.display()), &text)
    }
}

/// The places in which a controller may leave a value: its log and its Git store. These places are searched when this
/// value is dropped.
pub struct OfController {
    log: Log,
    store: PathBuf,
}

impl OfController {
    /// Prepares the search for a controller that is about to start. Text that is already in the log was written by an
    /// earlier controller, and is not searched.
    pub fn begin(log: &Path, store: &Path) -> Self {
        let searched = fs::metadata(log).map_or(0, |file| file.len());
        let log = Log { path: log.to_owned(), searched: Arc::new(Mutex::new(searched)) };
        Self { log, store: store.to_owned() }
    }

    /// The same log, and the part of the same Git store that belongs to a namespace, for a controller that goes on
    /// running.
    pub(crate) fn of_namespace(&self, namespace: &str) -> Self {
        Self { log: self.log.clone(), store: self.store.join(namespace) }
    }

    fn search(&self) -> Result<()> {
        let Some(hunt) = Hunt::new()? else { return Ok(()) };
        self.log.search(&hunt)?;
        hunt.search_folder(&self.store)
    }
}

impl Drop for OfController {
    fn drop(&mut self) {
        tell(self.search());
    }
}

/// The objects and events of a namespace. They are searched when this value is dropped.
pub struct OfNamespace {
    kubeconfig: PathBuf,
    namespace: String,
}

impl OfNamespace {
    /// Prepares the search in a namespace that a test has made.
    pub fn begin(kubeconfig: &Path, namespace: &str) -> Self {
        Self { kubeconfig: kubeconfig.to_owned(), namespace: namespace.to_owned() }
    }

    fn search(&self) -> Result<()> {
        let Some(hunt) = Hunt::new()? else { return Ok(()) };
        // The plane may have ended.
        let Ok(kubeconfig) = Kubeconfig::read_from(&self.kubeconfig) else { return Ok(()) };
        let search = async {
            let config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await?;
            hunt.search_objects(&Client::try_from(config)?, &self.namespace).await
        };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        // A control plane that a test has stopped does not answer.
        runtime.block_on(async { tokio::time::timeout(Duration::from_secs(10), search).await.unwrap_or(Ok(())) })
    }
}

impl Drop for OfNamespace {
    fn drop(&mut self) {
        // The search needs a thread of its own: the test's thread runs a Tokio runtime, and a runtime cannot run inside
        // of another one.
        let search = std::thread::scope(|scope| scope.spawn(|| self.search()).join());
        match search {
            Ok(found) => tell(found),
            Err(_) => tell(Err(anyhow::anyhow!("the search for plaintext panicked"))),
        }
    }
}

/// Fails the test, unless it fails already.
fn tell(found: Result<()>) {
    match found {
        Ok(()) => {}
        Err(found) if std::thread::panicking() => eprintln!("{found:#}"),
        Err(found) => panic!("{found:#}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use base64::engine::general_purpose::STANDARD;

    use super::*;

    fn tells(text: impl AsRef<[u8]>) -> bool {
        let hunt = Hunt::of([b"a \"known\" value".to_vec()]).unwrap().unwrap();
        hunt.search("here", text.as_ref()).is_err()
    }

    #[test]
    fn a_value_is_found_however_it_is_written_down() {
        let value = "a \"known\" value";
        assert!(!tells("a known value") && !tells("YSBrbm93biB2YWx1ZQ==") && !tells(""));
        assert!(tells(value) && tells(format!("a line\nbefore: {value}\nafter")));
        assert!(tells(format!("{value:?}")) && tells(serde_json::to_string(value).unwrap()));
        for before in ["", "x", "xy", "xyz"] {
            assert!(tells(STANDARD.encode(format!("{before}{value}"))), "{before}");
            assert!(tells(STANDARD.encode(format!("{before}{value}more"))), "{before}");
        }
        assert!(tells(value.bytes().fold(String::new(), |text, byte| format!("{text}{byte:02x}"))));
    }

    #[test]
    fn short_values_and_single_words_are_not_searched_for() {
        for (value, is) in [("installed", false), ("one-two", false), ("value-12", true), ("Installed", true)] {
            assert_eq!(is_unmistakable(value.as_bytes()), is, "{value}");
        }
    }

    #[test]
    fn a_log_is_searched_once_and_to_its_end() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log");
        fs::write(&path, "of another controller: a-value-that-is-logged\n").unwrap();
        known("a-value-that-is-logged");
        let place = OfController::begin(&path, folder.path().join("git").as_path());
        place.search().unwrap();
        fs::write(&path, format!("{}one line\nand half", fs::read_to_string(&path).unwrap())).unwrap();
        place.search().unwrap();
        fs::write(&path, format!("{} a-value-that-is-logged", fs::read_to_string(&path).unwrap())).unwrap();
        let found = place.search().unwrap_err().to_string();
        assert!(found.contains("and half a-value-that-is-logged"), "{found}");
        std::panic::catch_unwind(|| drop(place)).unwrap_err();
    }

    #[test]
    fn git_objects_are_read() {
        let folder = tempfile::tempdir().unwrap();
        let git = |arguments: &[&str]| {
            let mut command = Command::new("git");
            command.arg("-C").arg(folder.path()).args(["-c", "user.name=a", "-c", "user.email=a@example.com"]);
            assert!(command.args(arguments).output().unwrap().status.success(), "{arguments:?}");
        };
        git(&["init", "--quiet"]);
        let hunt = Hunt::of([b"a-value-in-a-commit".to_vec()]).unwrap().unwrap();
        hunt.search_folder(folder.path()).unwrap();
        git(&["commit", "--quiet", "--allow-empty", "-m", "one", "-m", "a-value-in-a-commit"]);
        fs::remove_file(folder.path().join(".git/COMMIT_EDITMSG")).unwrap();
        let found = hunt.search_folder(folder.path()).unwrap_err().to_string();
        assert!(found.contains("the Git objects in"), "{found}");
    }
}
