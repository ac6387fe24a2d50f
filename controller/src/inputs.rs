//! What charts get from outside of their own repositories: files with values in other Repositories, ConfigMaps, and what
//! templates look up in the cluster.

use std::sync::Arc;

use crds::Sync;
use gitstore::{At, ContentId, Limits, Snapshot, SnapshotError};
use pipeline::{
    Entry, Room, has_inputs,
    render::{NotRendered, RenderError, reserve},
};
use renderer::Input;

use crate::keys::Keyring;

/// How many bytes the inputs of one chart may have together.
const MOST_BYTES: usize = 4 << 20;

/// What the chart of one Sync gets from outside of its repository.
#[derive(Clone, Default)]
pub(crate) struct Inputs {
    /// Identifies the contents of all inputs. `None` if the chart gets nothing from elsewhere.
    digest: Option<String>,
    /// The inputs; `None` if only their digest is known.
    all: Option<Arc<[OneInput]>>,
}

/// One thing from outside of the repository of the chart.
#[derive(Clone)]
pub(crate) struct OneInput {
    /// The entry of the Sync that names it.
    pub(crate) entry: Entry,
    /// The name in messages.
    pub(crate) name: String,
    /// The values, or what was looked up.
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
        text: Arc<[u8]>,
        /// A keyed digest of the text.
        digest: String,
    },
}

impl Content {
    /// A text from the cluster.
    pub(crate) fn text(keyring: &Keyring, text: &str) -> Self {
        let digest = keyring.digest("input of a chart", [text.as_bytes()]);
        Self::Text { text: text.as_bytes().into(), digest }
    }

    fn identity(&self) -> String {
        match self {
            Self::File { id, .. } => id.to_string(),
            Self::Text { digest, .. } => digest.clone(),
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

    /// Identifies the contents of all inputs. `None` if the chart gets nothing from elsewhere.
    pub(crate) fn digest(&self) -> Option<&str> {
        self.digest.as_deref()
    }

    /// Reads the inputs. Makes sure that there is memory for them.
    pub(crate) fn read(
        &self,
        folder: &str,
        room: &mut dyn Room,
    ) -> Result<renderer::Inputs, RenderError<SnapshotError>> {
        let wrong = |reason, message| {
            let why = NotRendered { tool: "Helm", reason, message, is_terminal: true };
            RenderError::NotRendered { folder: folder.to_owned(), why }
        };
        if self.digest.is_some() && self.all.is_none() {
            let message =
                "what this revision was rendered with from other Repositories or from the cluster is no longer known";
            return Err(wrong("ValuesNotRead", message.to_owned()));
        }
        let (mut inputs, mut bytes) = (renderer::Inputs::new(), 0);
        for OneInput { entry, name, content } in self.all.iter().flat_map(|all| all.iter()) {
            let content: Arc<[u8]> = match content {
                Content::Text { text, .. } => text.clone(),
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
                    "{name}: what the chart gets from other Repositories and from the cluster has more than {most} MiB together"
                );
                return Err(wrong("TooLarge", message));
            }
            reserve(room, name, bytes as u64)?;
            inputs.insert(*entry, Input { name: name.clone(), content });
        }
        Ok(inputs)
    }
}

/// A text identifies the content of a folder, its settings and its inputs. This character separates the parts of the
/// text.
pub(crate) const SEPARATOR: char = '+';
