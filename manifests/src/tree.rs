use std::error::Error;

/// The names that a kustomization file can have.
const KUSTOMIZATIONS: [&str; 3] = ["kustomization.yaml", "kustomization.yml", "Kustomization"];

/// A folder with manifests, in a commit, in an image or on a disk.
pub trait Tree {
    /// Why a file cannot be read, or why it must not be skipped silently.
    type Error: Error;

    /// Hands what is in the folder to `visit`, sorted by the bytes of the whole paths: its manifests ([`is_manifest_file`]), one at a
    /// time, and its kustomizations. What `.gitsealignore` files exclude, and what is left out by default
    /// ([`IgnoreRules::of_manifests`], [`is_of_another_program`]), is not visited. Before a file is read, `measured` is
    /// told its path and its size in bytes. Ends with the first error of the folder, of `measured` or of `visit`.
    ///
    /// [`is_manifest_file`]: crate::is_manifest_file
    /// [`IgnoreRules::of_manifests`]: crate::IgnoreRules::of_manifests
    /// [`is_of_another_program`]: crate::is_of_another_program
    fn each_entry<E: From<Self::Error>>(
        &self,
        measured: impl FnMut(&str, u64) -> Result<(), E>,
        visit: impl FnMut(TreeEntry<'_, Self::Error>) -> Result<(), E>,
    ) -> Result<(), E>;
}

/// One part of a [`Tree`].
pub enum TreeEntry<'a, E> {
    /// A file with manifests.
    File(TreeFile<'a>),
    /// A folder with a file of Kustomize; its path from the root of the tree, with `/`. Kustomize decides which files in it
    /// and below it count, so none of them is visited.
    Kustomization(&'a str),
    /// A file or folder that is not read and must not be skipped silently, for example a symbolic link.
    Refused {
        /// Why the file or folder is not read, with its path.
        error: E,
        /// The reason in the condition Ready of the Sync.
        reason: &'static str,
    },
}

/// One file of a [`Tree`]. It may contain a plaintext Secret by mistake, so treat its content as secret.
#[derive(Clone, Copy)]
pub struct TreeFile<'a> {
    /// Its path from the root of the tree, with `/`.
    pub path: &'a str,
    /// Its content.
    pub bytes: &'a [u8],
}

/// Whether the file is a kustomization file, by its name.
pub fn is_kustomization(path: &str) -> bool {
    KUSTOMIZATIONS.contains(&path.rsplit('/').next().unwrap_or(path))
}
