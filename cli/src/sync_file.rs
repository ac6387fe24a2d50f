//! A Sync in a file of a repository.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use crds::Sync;
use manifests::{Limits, Location, is_manifest_file, parse};
use serde_json::Value;

use crate::{folder, output::Hint};

/// The only Sync in a file.
pub struct SyncFile {
    /// The Sync, with a namespace and without a status.
    pub sync: Sync,
    /// The top folder of the repository that the file is in.
    pub root: PathBuf,
    /// Where the Sync is, with a path from the root of the repository.
    pub origin: Location,
}

impl SyncFile {
    /// Reads the file. `namespace` is for a Sync that names none.
    ///
    /// # Errors
    /// The file cannot be read, or it does not have exactly one Sync, or the Sync is not valid.
    pub fn read(file: &Path, namespace: &str) -> anyhow::Result<Self> {
        let name = file.display().to_string();
        let bytes = fs::read(file).with_context(|| format!("cannot read {name}"))?;
        let mut syncs = parse(&name, &bytes, &Limits::default())?;
        syncs.retain(|one| one.id.kind == "Sync" && one.id.group == "gitseal.dev");
        let [sync] = syncs.as_slice() else {
            let hint = "give each Sync that you name with --sync a file of its own";
            return Err(Hint::error(
                format!("{name} has {} Syncs, but --sync needs a file with exactly one", syncs.len()),
                hint,
            ));
        };
        let line = sync.origin.line;
        let mut sync: Sync = serde_json::from_value(Value::Object(sync.body.clone()))
            .with_context(|| format!("{} is not a valid Sync", sync.origin))?;
        sync.metadata.namespace.get_or_insert_with(|| namespace.to_owned());
        sync.status = None;
        let parent = file.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let (root, inside) = folder::place(parent)?;
        let inside = Path::new(&inside).join(file.file_name().unwrap_or_default());
        Ok(Self { sync, root, origin: Location { file: inside.display().to_string().into(), line } })
    }
}

/// Whether `text` is the path of a file, and not the name of a Sync in the cluster.
pub fn is_file(text: &str) -> bool {
    text.contains('/') || is_manifest_file(text)
}
