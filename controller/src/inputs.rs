//! What Syncs are rendered with from outside of their own repositories: files with values and variables in other
//! Repositories, ConfigMaps, Secrets, and what templates look up in the cluster.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use crds::Sync;
use gitstore::{At, ContentId, Limits, Snapshot, SnapshotError};
use pipeline::{
    Entry, Room, has_inputs,
    render::{NotRendered, RenderError, reserve},
};
use renderer::{Input, Sealer};

use crate::{
    admission::{Claim, Gate, Group, Lease},
    keys::Keyring,
};

/// How many bytes the inputs of one Sync may have together.
const MOST_BYTES: usize = 4 << 20;

/// What one Sync gets from outside of its repository.
#[derive(Clone, Default)]
pub(crate) struct Inputs {
    /// Identifies the contents of all inputs. `None` if the Sync gets nothing from elsewhere.
    digest: Option<String>,
    /// The inputs; `None` if only their digest is known.
    all: Option<Arc<[OneInput]>>,
}

/// One thing from outside of the repository of the Sync.
#[derive(Clone)]
pub(crate) struct OneInput {
    /// The entry of the Sync that names it.
    pub(crate) entry: Entry,
    /// The name in messages.
    pub(crate) name: String,
    /// The values or variables, or what was looked up.
    pub(crate) content: Content,
}

/// Where an input is, and what identifies it.
#[derive(Clone)]
pub(crate) enum Content {
    /// In a file of a snapshot of another Repository.
    File {
        /// The snapshot with the file.
        snapshot: Arc<Snapshot>,
        /// The path of the file.
        path: String,
        /// The identity of the file.
        id: ContentId,
    },
    /// In a text that was read from the cluster.
    Text {
        /// The text.
        text: Arc<Text>,
        /// A keyed digest of the text.
        digest: String,
    },
    /// In a Secret. Its values are wrapped.
    Secret {
        /// The result of [`renderer::wrapped_values`].
        text: Arc<Text>,
        /// A keyed digest of the values.
        digest: String,
        /// The keys that the values are sealed with.
        keyring: Keyring,
    },
}

/// A text that was read from the cluster, and its share of the memory for such texts.
pub(crate) struct Text {
    bytes: Arc<[u8]>,
    /// `None` if the text is in the share that each namespace always has.
    room: Option<Lease>,
}

/// How many bytes of texts each namespace may always have, so that other namespaces cannot take all room.
const ALWAYS: u64 = 32 << 10;
/// How many bytes each text counts for besides its own length: the names under which it is known, and what is kept of it in the
/// Syncs that use it.
const PER_TEXT: u64 = 512;

/// The texts that were read from the cluster. They are kept until they change, because a watch says when they do. Syncs of one
/// namespace that read the same text share it.
pub struct Texts {
    gate: Gate,
    of_namespace: u64,
    always: u64,
    per_text: u64,
    /// By namespace and digest.
    known: Mutex<HashMap<(String, String), Weak<Text>>>,
}

impl Texts {
    /// Room for texts of `total` bytes. A namespace gets at most half of it.
    pub(crate) fn new(total: u64) -> Self {
        let (gate, known) = (Gate::new(total), Mutex::default());
        Self { gate, of_namespace: total / 2, always: ALWAYS, per_text: PER_TEXT, known }
    }

    /// How many bytes the texts of one namespace may have together.
    pub(crate) fn most(&self) -> u64 {
        self.of_namespace
    }

    /// How many bytes all texts have together, also those in the shares that namespaces always have.
    pub(crate) fn taken(&self) -> u64 {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.values().filter_map(Weak::upgrade).map(|text| self.counts(&text.bytes)).sum()
    }

    /// Keeps a text that a Sync of this namespace has read, as long as the result is used. `digest` is a keyed digest of the text.
    /// Each text counts for its length and [`PER_TEXT`] bytes. The first [`ALWAYS`] bytes of a namespace need no room.
    /// `None` if there is no room for the text.
    pub(crate) fn keep(&self, namespace: &str, digest: String, text: &str) -> Option<Content> {
        let key = (namespace.to_owned(), digest.clone());
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(text) = known.get(&key).and_then(Weak::upgrade) {
            return Some(Content::Text { text, digest });
        }
        known.retain(|_, text| text.strong_count() > 0);
        let always = |(of, text): (&(String, String), &Weak<Text>)| {
            (of.0 == namespace).then(|| text.upgrade()).flatten().filter(|text| text.room.is_none())
        };
        let in_use: u64 = known.iter().filter_map(always).map(|text| self.counts(&text.bytes)).sum();
        let bytes: Arc<[u8]> = text.as_bytes().into();
        let is_in_share = in_use + self.counts(&bytes) <= self.always;
        let room = if is_in_share { None } else { Some(self.room(namespace, &bytes)?) };
        let text = Arc::new(Text { bytes, room });
        known.insert(key, Arc::downgrade(&text));
        Some(Content::Text { text, digest })
    }

    /// Room for a text of this namespace; `None` if there is none.
    fn room(&self, namespace: &str, text: &[u8]) -> Option<Lease> {
        let half = Group { name: format!("namespace {namespace}"), most: self.of_namespace };
        let claim = Claim { namespace: namespace.to_owned(), amount: self.counts(text), groups: vec![half] };
        self.gate.try_admit(claim)
    }

    /// How many bytes a text counts for.
    fn counts(&self, text: &[u8]) -> u64 {
        self.per_text + text.len() as u64
    }
}

impl Content {
    /// Identifies the content. Values of a Secret are rendered with again when there is a new sealing key, so that the old one can be
    /// deleted some day.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::File { id, .. } => id.to_string(),
            Self::Text { digest, .. } => digest.clone(),
            Self::Secret { digest, keyring, .. } => format!("{digest} {}", keyring.seals_with()),
        }
    }
}

impl Inputs {
    /// These inputs.
    pub(crate) fn new(keyring: &Keyring, all: Vec<OneInput>) -> Self {
        if all.is_empty() {
            return Self::default();
        }
        let parts: Vec<_> = all.iter().flat_map(|one| [one.name.clone(), one.content.identity()]).collect();
        let digest = keyring.digest("inputs of a chart", parts.iter().map(String::as_bytes));
        Self { digest: Some(digest), all: Some(all.into()) }
    }

    /// The inputs that `sync` had when it applied `content`. Only their digest is still known, except if they equal
    /// `now`. Without their values, the chart cannot be rendered, but the objects that it was rendered to before are
    /// stored and are found by the digest.
    pub(crate) fn remembered(sync: &Sync, content: Option<&str>, now: Option<Self>) -> Self {
        if !has_inputs(sync) {
            return Self::default();
        }
        let digest = content.and_then(|content| content.split(SEPARATOR).nth(2)).map(str::to_owned);
        now.filter(|now| now.digest == digest).unwrap_or(Self { digest, all: None })
    }

    /// Identifies the contents of all inputs. `None` if the Sync gets nothing from elsewhere.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Reads the inputs. Makes sure that there is memory for them.
    pub(crate) fn read(
        &self,
        (tool, folder): (&'static str, &str),
        room: &mut dyn Room,
    ) -> Result<renderer::Inputs, RenderError<SnapshotError>> {
        let wrong = |reason, message| {
            let why = NotRendered { tool, reason, message, is_terminal: true };
            RenderError::NotRendered { folder: folder.to_owned(), why }
        };
        if self.digest.is_some() && self.all.is_none() {
            let message =
                "what this revision was rendered with from other Repositories or from the cluster is no longer known";
            return Err(wrong("ValuesNotRead", message.to_owned()));
        }
        let (mut inputs, mut bytes) = (renderer::Inputs::new(), 0);
        for OneInput { entry, name, content } in self.all.iter().flat_map(|all| all.iter()) {
            let sealer: Option<Arc<dyn Sealer>> = match content {
                Content::Secret { keyring, .. } => Some(Arc::new(keyring.clone())),
                Content::Text { .. } | Content::File { .. } => None,
            };
            let content: Arc<[u8]> = match content {
                Content::Text { text, .. } | Content::Secret { text, .. } => text.bytes.clone(),
                Content::File { snapshot, path, .. } => {
                    match snapshot.paths(Limits::default()).at(path).map_err(RenderError::Files)? {
                        At::File(content) => content.into(),
                        At::Folder(_) | At::Nothing => {
                            return Err(wrong("ValuesNotRead", format!("{name}: there is no such file")));
                        }
                    }
                }
            };
            bytes += content.len();
            if bytes > MOST_BYTES {
                let most = MOST_BYTES >> 20;
                let message = format!(
                    "{name}: what the Sync gets from other Repositories and from the cluster has more than {most} MiB together"
                );
                return Err(wrong("TooLarge", message));
            }
            reserve(room, name, bytes as u64)?;
            inputs.insert(*entry, Input { name: name.clone(), content, sealer });
        }
        Ok(inputs)
    }
}

/// A text identifies the content of a folder, its settings and its inputs. This character separates the parts of the
/// text.
pub(crate) const SEPARATOR: char = '+';

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn syncs_share_what_they_read_and_a_namespace_has_a_share() {
        let mut texts = Texts::new(100);
        (texts.always, texts.per_text) = (0, 0);
        let keep = |namespace: &str, text: &str| texts.keep(namespace, format!("digest of {text}"), text);
        let first = keep("greedy", &"a".repeat(40)).expect("room");
        let same: Vec<_> = (0..100).map(|_| keep("greedy", &"a".repeat(40)).expect("it is shared")).collect();
        assert_eq!(texts.gate.taken(), 40);
        assert!(keep("greedy", &"b".repeat(11)).is_none(), "more than the share of a namespace");
        let another = keep("greedy", &"b".repeat(10)).expect("room");
        let modest = keep("modest", &"a".repeat(40)).expect("another namespace shares nothing");
        assert_eq!(texts.gate.taken(), 90);
        drop((first, another));
        assert_eq!(texts.gate.taken(), 80, "others still use it");
        drop((same, modest));
        assert_eq!(texts.gate.taken(), 0);
        drop(keep("greedy", "c"));
        assert_eq!(texts.known.lock().unwrap().len(), 1, "what is not used is forgotten");
    }

    #[test]
    fn a_short_text_counts_for_more_than_its_length() {
        let texts = Texts::new(2 * ALWAYS);
        let keep = |number: u64| texts.keep("greedy", format!("digest of {number}"), "");
        // As many as fit into the share that a namespace always has, and into its half of the room.
        let most = 2 * ALWAYS / PER_TEXT;
        let all: Vec<_> = (0..most).map(|number| keep(number).expect("room")).collect();
        assert!(keep(most).is_none(), "empty texts take memory, too");
        assert_eq!((texts.gate.taken(), texts.taken()), (ALWAYS, 2 * ALWAYS));
        drop(all);
        assert_eq!((texts.gate.taken(), texts.taken()), (0, 0));
    }

    #[test]
    fn others_cannot_take_what_a_namespace_always_has() {
        let mut texts = Texts::new(100);
        (texts.always, texts.per_text) = (10, 0);
        let keep = |namespace: &str, text: &str| texts.keep(namespace, format!("digest of {text}"), text);
        let greedy: Vec<_> = ["a", "b"].map(|name| keep(name, &name.repeat(50)).expect("room")).into();
        assert!(keep("modest", &"c".repeat(11)).is_none(), "all room is taken");
        let modest = keep("modest", &"c".repeat(6)).expect("it needs no room");
        assert!(keep("modest", &"d".repeat(5)).is_none(), "more than a namespace always has");
        let more = keep("modest", &"d".repeat(4)).expect("it needs no room");
        drop(modest);
        assert!(keep("modest", &"e".repeat(6)).is_some(), "another text took this share, and is not used any more");
        drop((greedy, more));
    }
}
