//! What charts get from outside of their own repositories: files with values in other Repositories, and ConfigMaps.

use std::sync::Arc;

use crds::Sync;
use gitstore::{At, ContentId, Limits, Snapshot, SnapshotError};
use pipeline::{
    Room,
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
    /// The values; `None` if only their digest is known.
    values: Option<Arc<[InputValues]>>,
}

/// Values from outside of the repository of the chart.
#[derive(Clone)]
pub(crate) struct InputValues {
    /// The index of the entry in `spec.helm.valuesFrom`.
    pub(crate) index: usize,
    /// The name in messages.
    pub(crate) name: String,
    /// The values.
    pub(crate) content: Content,
}

/// Where values are, and what identifies them.
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
    /// These values.
    pub(crate) fn new(keyring: &Keyring, values: Vec<InputValues>) -> Self {
        if values.is_empty() {
            return Self::default();
        }
        let parts: Vec<_> = values.iter().flat_map(|one| [one.name.clone(), one.content.identity()]).collect();
        let digest = keyring.digest("inputs of a chart", parts.iter().map(String::as_bytes));
        Self { digest: Some(digest), values: Some(values.into()) }
    }

    /// The inputs that `sync` had when it applied `content`. They are no longer known, except if they equal `now`.
    /// Without the inputs, the chart cannot be rendered, but the objects that it was rendered to before are stored and
    /// are found by the digest.
    pub(crate) fn remembered(sync: &Sync, content: Option<&str>, now: Option<Self>) -> Self {
        let mut entries = sync.spec.helm.iter().flat_map(|helm| &helm.values_from);
        if !entries.any(crds::ValuesFrom::is_elsewhere) {
            return Self::default();
        }
        let digest = content.and_then(|content| content.split(SEPARATOR).nth(2)).map(str::to_owned);
        now.filter(|now| now.digest == digest).unwrap_or(Self { digest, values: None })
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
        if self.digest.is_some() && self.values.is_none() {
            let message = "the values from other Repositories or ConfigMaps that this revision was rendered with are no \
                           longer known";
            return Err(wrong("ValuesNotRead", message.to_owned()));
        }
        let (mut inputs, mut bytes) = (renderer::Inputs::new(), 0);
        for InputValues { index, name, content } in self.values.iter().flat_map(|values| values.iter()) {
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
                    "{name}: the values from other Repositories and ConfigMaps have more than {most} MiB together"
                );
                return Err(wrong("TooLarge", message));
            }
            reserve(room, name, bytes as u64)?;
            inputs.insert(*index, Input { name: name.clone(), content });
        }
        Ok(inputs)
    }
}

/// A text identifies the content of a folder, its settings and its inputs. This character separates the parts of the
/// text.
pub(crate) const SEPARATOR: char = '+';
