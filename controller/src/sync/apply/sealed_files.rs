//! Where in Git a sealed value of a chart or of a variable is. The SealedSecret that is applied was made from a Secret of the
//! folder, so its own place does not say which file has the value that must be sealed again.

use std::{collections::BTreeSet, sync::Arc};

use crds::SealedSecretSpec;
use gitstore::{At, Limits, Snapshot};
use manifests::printable;
use pipeline::{Entry, other_files};
use unsealing::UnsealError;

use super::{Applier, Because};
use crate::sources::Lookup;

/// How many values that cannot be unsealed get the place of their file.
const SHOWN: usize = 3;
/// In how many files a value that cannot be unsealed is searched for.
const FILES: usize = 20;
/// How large a file may be that is searched, in bytes.
const FILE_BYTES: u64 = 2 << 20;

/// A file that a Sync gets sealed values from.
struct SealedFile {
    /// The name in messages.
    name: String,
    path: String,
    snapshot: Arc<Snapshot>,
}

impl Applier<'_> {
    /// The cause that says why `spec` could not be unsealed, and in which files the values are that failed.
    pub(super) async fn with_places(&self, error: UnsealError, spec: &SealedSecretSpec) -> Because {
        let fields: BTreeSet<_> = error.failures().iter().map(|failure| failure.field.as_str()).collect();
        let of = |(key, text): (&String, &String)| {
            let field = unsealing::field(Some(key));
            fields.contains(field.as_str()).then(|| (field, text.trim().to_owned()))
        };
        let failed: Vec<_> = spec.encrypted_data.iter().filter_map(of).take(SHOWN).collect();
        let files = if failed.is_empty() { Vec::new() } else { self.sealed_files() };
        let mut because = Because::from(error);
        if files.is_empty() {
            return because;
        }
        // If the search fails, only the places are missing.
        let found = tokio::task::spawn_blocking(move || places(&files, &failed)).await.unwrap_or_default();
        if let (Because::Unseal { message, .. }, false) = (&mut because, found.is_empty()) {
            message.push_str("; ");
            message.push_str(&found.join("; "));
        }
        because
    }

    /// The files that the Sync gets sealed values from, for its chart and its variables.
    fn sealed_files(&self) -> Vec<SealedFile> {
        let sync = self.pass.sync;
        let values = sync.spec.helm.iter().flat_map(|helm| &helm.values_from).enumerate();
        let values = values.map(|(index, entry)| {
            (Entry::Values(index), &entry.sealed_secret, &entry.repository, entry.path_of_file())
        });
        let variables = sync.spec.substitution.substitute_from.iter().enumerate();
        let variables = variables.map(|(index, entry)| {
            (Entry::Variables(index), &entry.sealed_secret, &entry.repository, entry.path_of_file())
        });
        let others: Vec<_> = other_files(sync).collect();
        let sealed = values.chain(variables).filter(|(_, sealed, ..)| sealed.is_some());
        let found = sealed.filter_map(|(entry, _, repository, path)| {
            let own = || SealedFile { name: path.to_owned(), path: path.to_owned(), snapshot: self.snapshot.clone() };
            if repository.is_none() {
                return Some(own());
            }
            let file = others.iter().find(|file| file.entry == entry)?;
            match self.pass.ctx.sources.file(&file.repository(), file.path) {
                Lookup::Found { snapshot, .. } => {
                    Some(SealedFile { name: file.name(), path: file.path.to_owned(), snapshot })
                }
                Lookup::NoRepository | Lookup::NotFetched(_) => None,
            }
        });
        found.take(FILES).collect()
    }
}

/// Says of each value in which of the files it is, if it is in one. The values are given with the names of their fields.
fn places(files: &[SealedFile], values: &[(String, String)]) -> Vec<String> {
    let mut found = Vec::new();
    for (field, text) in values.iter().filter(|(_, text)| !text.is_empty()) {
        // Only one file is in memory at a time.
        let place = files.iter().find_map(|SealedFile { name, path, snapshot }| {
            let limits = Limits { file_bytes: FILE_BYTES, ..Limits::default() };
            let Ok(At::File(content)) = snapshot.paths(limits).at(path) else { return None };
            place_in(name, std::str::from_utf8(&content).ok()?, text)
        });
        found.extend(place.map(|place| format!("the value of {field} is in {place}: seal it again there")));
    }
    found
}

/// The place of a sealed value in the text of a file: `secrets/shop.yaml:9 (password)`.
fn place_in(file: &str, content: &str, sealed: &str) -> Option<String> {
    let before = &content[..content.find(sealed)?];
    let line = before.matches('\n').count() + 1;
    let quotes = ['"', '\''];
    let in_line = before.rsplit('\n').next().unwrap_or_default().trim_end_matches(quotes).trim_end();
    let key = in_line.strip_suffix(':').map(|text| text.trim_end().trim_end_matches(quotes));
    let key = key.and_then(|text| text.rsplit([' ', '{', ',', '"', '\'']).next()).filter(|key| !key.is_empty());
    let key = key.map(|key| format!(" ({})", printable(key))).unwrap_or_default();
    Some(format!("{}:{line}{key}", printable(file)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sealed_value_is_found_with_its_line_and_key() {
        for (content, place) in [
            ("spec:\n  encryptedData:\n    password: AgB1==\n", "a.yaml:3 (password)"),
            ("spec:\n  encryptedData:\n    'tls.key' : \"AgB1==\"\n", "a.yaml:3 (tls.key)"),
            ("{\"spec\": {\"encryptedData\": {\"a\": \"AgB0\",\"b\":\"AgB1==\"}}}", "a.yaml:1 (b)"),
            ("spec: {encryptedData: {b: AgB1==}}", "a.yaml:1 (b)"),
            ("spec:\n  encryptedData:\n    b: |\n      AgB1==\n", "a.yaml:4"),
        ] {
            assert_eq!(place_in("a.yaml", content, "AgB1==").as_deref(), Some(place), "{content}");
        }
        assert_eq!(place_in("a.yaml", "spec: {}", "AgB1=="), None);
    }
}
