//! What charts get from outside of their own repositories: files with values in other Repositories.

use std::sync::Arc;

use crds::Sync;
use gitstore::{At, ContentId, Limits, Snapshot, SnapshotError};
use pipeline::{
    Room, other_files,
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
    /// The files; `None` if only their digest is known.
    files: Option<Arc<[InputFile]>>,
}

/// A file with values, in a snapshot of another Repository.
pub(crate) struct InputFile {
    /// The index of the entry in `spec.helm.valuesFrom`.
    pub(crate) index: usize,
    /// The name in messages.
    pub(crate) name: String,
    /// The snapshot with the file.
    pub(crate) snapshot: Arc<Snapshot>,
    /// The path of the file.
    pub(crate) path: String,
    /// The identity of the file.
    pub(crate) id: ContentId,
}

impl Inputs {
    /// These files.
    pub(crate) fn new(keyring: &Keyring, files: Vec<InputFile>) -> Self {
        if files.is_empty() {
            return Self::default();
        }
        let parts: Vec<_> = files.iter().flat_map(|file| [file.name.clone(), file.id.to_string()]).collect();
        let digest = keyring.digest("inputs of a chart", parts.iter().map(String::as_bytes));
        Self { digest: Some(digest), files: Some(files.into()) }
    }

    /// The inputs that `sync` had when it applied `content`. They are no longer known, except if they equal `now`.
    /// Without them, the chart cannot be rendered, but objects that were stored are found by the digest.
    pub(crate) fn remembered(sync: &Sync, content: Option<&str>, now: Option<Self>) -> Self {
        if other_files(sync).next().is_none() {
            return Self::default();
        }
        let digest = content.and_then(|content| content.split(SEPARATOR).nth(2)).map(str::to_owned);
        now.filter(|now| now.digest == digest).unwrap_or(Self { digest, files: None })
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
        if self.digest.is_some() && self.files.is_none() {
            let message = "the values from other Repositories that this revision was rendered with are no longer known";
            return Err(wrong("ValuesNotRead", message.to_owned()));
        }
        let (mut inputs, mut bytes) = (renderer::Inputs::new(), 0);
        for InputFile { index, name, snapshot, path, .. } in self.files.iter().flat_map(|files| files.iter()) {
            let At::File(content) = snapshot.paths(Limits::default()).at(path).map_err(RenderError::Files)? else {
                return Err(wrong("ValuesNotRead", format!("{name}: there is no such file")));
            };
            bytes += content.len();
            if bytes > MOST_BYTES {
                let most = MOST_BYTES >> 20;
                let message = format!("{name}: the values from other Repositories have more than {most} MiB together");
                return Err(wrong("TooLarge", message));
            }
            reserve(room, name, bytes as u64)?;
            inputs.insert(*index, Input { name: name.clone(), content: content.into() });
        }
        Ok(inputs)
    }
}

/// What is between the parts of the text that identifies the content of a folder, its settings and its inputs.
pub(crate) const SEPARATOR: char = '+';
