//! Where an object is in Git, read from the user's clone at exactly the commit that was applied.
//!
//! # Guarantees
//! Nothing is fetched, checked out or written. The result is about that commit, even if the working copy differs.

use std::path::Path;

use crds::Sync;
use manifests::{Location, ObjectId};
use pipeline::{namespace_for, path_of, plan::digest_as_applied};
use renderer::Renderer;

use super::commit::Commit;
use crate::{
    chart_inputs::Surroundings,
    folder::{SyncFolder, unrendered},
    output,
};

/// Why it is not known where an object is.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub enum Unknown {
    /// There is no clone, or it does not have the commit.
    #[error(
        "the file is only known inside a clone of the repository that has the commit: run this command in such a clone, \
        if necessary after `git fetch`"
    )]
    NoClone,
    /// The Sync applies an archive of a registry.
    #[error(
        "the file is only known if it is in Git; this revision was downloaded as an archive from the Repository's URL"
    )]
    Archive,
    /// The folder cannot be read or rendered.
    #[error("the folder of the Sync cannot be read at that commit: {0}")]
    NotRead(String),
    /// The object is not in the files.
    #[error("no file of that commit contains the object")]
    NotThere,
    /// The object is in the files of several commits, and in none of them as it was applied.
    #[error("none of the commits that the Sync tried lately contains the object in the form that was applied")]
    NotAsApplied,
}

/// The result of the search in Git.
#[derive(Debug, Eq, PartialEq)]
pub struct Found {
    pub place: Location,
    /// The digest that the inventory has for the object if exactly this manifest was applied.
    pub digest: Option<String>,
}

/// What is needed to find the place of one object.
pub struct Search<'a> {
    /// A folder in the clone.
    pub folder: &'a Path,
    /// The Sync that applied the object.
    pub sync: &'a Sync,
    /// The object.
    pub id: &'a ObjectId,
    /// What charts are rendered with besides their files.
    pub surroundings: &'a Surroundings,
    /// What renders kustomizations and charts.
    pub renderer: &'a Renderer,
}

impl Search<'_> {
    /// Finds the file and line from which the Sync applied the object, in the commit of `revision`. This is the place of the
    /// object itself, or of the SealedSecret that it is made from. For an object that was rendered, it is the place of the
    /// template, the resource or the generator.
    ///
    /// # Errors
    /// See [`Unknown`].
    pub fn at(&self, revision: &str) -> Result<Found, Unknown> {
        let Self { folder, sync, id, surroundings, renderer } = *self;
        if digest_of(revision).is_some() {
            return Err(Unknown::Archive);
        }
        let commit = Commit::open(folder, commit_of(revision).ok_or(Unknown::NoClone)?).ok_or(Unknown::NoClone)?;
        let folder = SyncFolder { path: path_of(sync), sync, surroundings, renderer };
        let objects = folder.objects(|| commit.folder(folder.path), &commit);
        let objects = objects.map_err(|error| {
            let error = unrendered(error);
            let hint = output::hint(&error).map(|hint| format!("; {hint}")).unwrap_or_default();
            Unknown::NotRead(format!("{}{hint}", output::one_line(&error)))
        })?;
        let place_of = |id: &ObjectId| objects.iter().find(|manifest| is_same(sync, &manifest.id, id));
        let manifest = place_of(id).or_else(|| place_of(&id.is_secret().then(|| id.sealed_secret())?));
        let manifest = manifest.ok_or(Unknown::NotThere)?;
        Ok(Found { place: manifest.origin.clone(), digest: digest_as_applied(sync, manifest.clone(), id) })
    }
}

/// The commit of a revision such as `main@sha1:1234…`.
pub fn commit_of(revision: &str) -> Option<&str> {
    let commit = revision.rsplit_once("sha1:").map_or(revision, |(_, commit)| commit);
    // The text becomes an argument of git, so it must be the hash of a commit and nothing else.
    let is_hash = commit.len() == 40 && commit.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_hash.then_some(commit)
}

/// The digest of an archive, if that is what the revision is: `sha256:` and hex digits of `6.5.0@sha256:1234…`.
pub fn digest_of(revision: &str) -> Option<&str> {
    let digest = revision.rsplit_once('@').map_or(revision, |(_, digest)| digest);
    digest.starts_with("sha256:").then_some(digest)
}

/// Whether the manifest `written` becomes the object `id`.
fn is_same(sync: &Sync, written: &ObjectId, id: &ObjectId) -> bool {
    let namespace = id.namespace.as_ref().map(|_| namespace_for(sync, written.namespace.as_deref()));
    (&written.group, &written.kind, &written.name) == (&id.group, &id.kind, &id.name)
        && namespace == id.namespace.as_deref()
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;
    use crate::folder::renderer;
    use serde_json::json;

    fn find(folder: &Path, sync: &Sync, id: &ObjectId, revision: &str) -> Result<Found, Unknown> {
        let (surroundings, renderer) = (&Surroundings::default(), &renderer());
        Search { folder, sync, id, surroundings, renderer }.at(revision)
    }

    fn git(folder: &Path, arguments: &[&str]) -> String {
        let mut git = Command::new("git");
        let who = ["-c", "user.name=t", "-c", "user.email=t@example.com", "-c", "commit.gpgsign=false"];
        let output = git.current_dir(folder).args(who).args(arguments).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim().to_owned()
    }

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }

    fn id(name: &str) -> ObjectId {
        ObjectId { group: String::new(), kind: "ConfigMap".into(), namespace: Some("team".into()), name: name.into() }
    }

    #[test]
    fn the_line_is_that_of_the_commit_and_not_of_the_working_copy() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        let map = |name: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}}}\n");
        git(root, &["init", "--quiet"]);
        write(root, "web/a.yaml", &format!("{}---\n{}", map("one"), map("two")));
        write(root, "web/old/b.yaml", &map("ignored"));
        write(root, "web/.gitsealignore", "old\n");
        write(root, "web-2/c.yaml", &map("elsewhere"));
        write(root, "web/values.yaml", "not: a manifest\n");
        write(root, "web/.hidden/d.yaml", &map("hidden"));
        git(root, &["add", "."]);
        git(root, &["commit", "--quiet", "--message", "x"]);
        let revision = format!("main@sha1:{}", git(root, &["rev-parse", "HEAD"]));
        write(root, "web/a.yaml", &format!("# more\n# lines\n{}---\n{}", map("one"), map("two")));
        let sync: Sync = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "team"}, "spec": {"repository": {"name": "fleet"}, "path": "./web"},
        }))
        .unwrap();
        // This also works in a subfolder.
        let found =
            |name: &str| find(&root.join("web-2"), &sync, &id(name), &revision).map(|found| found.place.to_string());
        assert_eq!(found("one"), Ok("web/a.yaml:1".into()));
        assert_eq!(found("two"), Ok("web/a.yaml:5".into()));
        for name in ["ignored", "hidden", "elsewhere", "nowhere"] {
            assert_eq!(found(name), Err(Unknown::NotThere), "{name}");
        }
        let other = format!("main@sha1:{}", "1".repeat(40));
        assert_eq!(find(root, &sync, &id("one"), &other), Err(Unknown::NoClone));
        let outside = tempfile::tempdir().unwrap();
        assert_eq!(find(outside.path(), &sync, &id("one"), &revision), Err(Unknown::NoClone));
    }

    /// Two dangerous cases: a bare repository inside of a working copy, and a partial clone whose remote would run a
    /// program.
    #[test]
    fn a_hostile_folder_is_no_clone_and_runs_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let (root, full) = (folder.path(), folder.path().join("full"));
        let clone = |arguments: &[&str]| git(root, &[&["clone", "--quiet"], arguments].concat());
        std::fs::create_dir(&full).unwrap();
        git(&full, &["init", "--quiet"]);
        write(&full, "web/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: one}\n");
        git(&full, &["add", "."]);
        git(&full, &["commit", "--quiet", "--message", "x"]);
        git(&full, &["config", "uploadpack.allowFilter", "true"]);
        let revision = format!("main@sha1:{}", git(&full, &["rev-parse", "HEAD"]));
        let sync: Sync = serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "team"}, "spec": {"repository": {"name": "fleet"}, "path": "./web"},
        }))
        .unwrap();
        clone(&["--bare", "full", "bare"]);
        assert_eq!(find(&root.join("bare"), &sync, &id("one"), &revision), Err(Unknown::NoClone));
        let url = format!("file://{}", full.display());
        clone(&["--no-checkout", "--filter=blob:none", &url, "partial"]);
        let (partial, ran) = (root.join("partial"), root.join("ran"));
        git(&partial, &["config", "remote.origin.url", &format!("ext::touch {}", ran.display())]);
        git(&partial, &["config", "protocol.ext.allow", "always"]);
        assert!(find(&partial, &sync, &id("one"), &revision).is_err());
        assert!(!ran.exists(), "a program of the clone's settings ran");
    }

    #[test]
    fn only_a_commit_becomes_an_argument_of_git() {
        let hash = "0123456789abcdef0123456789abcdef01234567";
        assert_eq!(commit_of(&format!("main@sha1:{hash}")), Some(hash));
        let digest = format!("sha256:{}", "1".repeat(64));
        assert_eq!(digest_of(&format!("6.5.0@{digest}")), Some(digest.as_str()));
        assert_eq!(digest_of(&digest), Some(digest.as_str()));
        assert_eq!((commit_of(&digest), digest_of(&format!("main@sha1:{hash}"))), (None, None));
        for wrong in ["main@sha1:--upload-pack=x", "", "main@sha1:1234", "HEAD"] {
            assert_eq!(commit_of(wrong), None, "{wrong}");
        }
    }
}
