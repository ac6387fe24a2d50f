//! `gitseal build`: what a folder becomes, without a cluster.

use std::{
    fs,
    io::{self, ErrorKind, IsTerminal as _},
    path::{Component, Path, PathBuf},
};

use anyhow::{Context, anyhow};
use manifests::{Limits, Manifest, in_one_line, is_kustomization};
use pipeline::guard;
use renderer::{At, Renderer, RendererError, Repository, Unrendered, located};
use serde_json::{Value, json};
use worker::Cancel;

use super::diff::nobodys;
use crate::{
    folder,
    global::Global,
    output::{self, Hint, OutputFormat},
};

/// Print the objects that a folder of a repository becomes
///
/// A folder with a kustomization.yaml is rendered as `kustomize build` does it; of any other folder, all manifests are
/// printed, without what .gitsealignore excludes. No cluster is needed, and nothing is fetched. Kustomize may read files of
/// the whole repository that the folder is in, and no others.
///
///     gitseal build clusters/production
///     gitseal build clusters/production -o json | jq .
///     gitseal build clusters/production | kubectl diff -f -
///
/// The controller does not render Kustomize yet: commit what this command prints, and give the Sync that folder.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct BuildArgs {
    /// The folder
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,
}

pub fn run(args: &BuildArgs, global: &Global) -> anyhow::Result<()> {
    let (manifests, text) = if has_kustomization(&args.path) {
        let (manifests, text) = kustomize(&args.path)?;
        (manifests, Some(text))
    } else {
        (folder::read(&args.path)?.manifests, None)
    };
    // A folder has no Sync here: what is refused whatever the Sync is told.
    if let Err(error) = guard(&nobodys("default"), &manifests) {
        output::warn(format_args!("the controller refuses this folder: {}", in_one_line(&error.to_string())));
    }
    match (global.output, text) {
        (None | Some(OutputFormat::Yaml), Some(text)) => print(&text),
        (None | Some(OutputFormat::Yaml), None) => {
            let documents: anyhow::Result<Vec<_>> =
                manifests.iter().map(|manifest| OutputFormat::Yaml.text(&manifest.body)).collect();
            print(&documents?.join("---\n"))
        }
        (Some(format), _) => {
            let items: Vec<Value> = manifests.into_iter().map(|manifest| Value::Object(manifest.body)).collect();
            output::print(format.text(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?)
        }
    }
}

/// A pipe gets every byte; a terminal gets none that it would obey.
fn print(text: &str) -> anyhow::Result<()> {
    if io::stdout().is_terminal() { output::print(text) } else { output::print_raw(text.as_bytes()) }
}

fn has_kustomization(folder: &Path) -> bool {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.into_iter().any(|name| name.to_str().is_some_and(is_kustomization))
}

/// The objects, and the text that `kustomize build` prints.
fn kustomize(path: &Path) -> anyhow::Result<(Vec<Manifest>, String)> {
    let (root, inside) = folder::place(path)?;
    let repository = WorkingCopy { root };
    let renderer = Renderer::beside_this_program(renderer::Limits::default()).context("cannot find the renderer")?;
    let objects = renderer.kustomize(&inside, &repository, &Cancel::new()).map_err(|error| match error {
        Unrendered::Repository(error) => error,
        Unrendered::Renderer(RendererError::Start { program, error }) => Hint::error(
            format!("{} could not be started: {error}", program.display()),
            "it belongs beside the program gitseal: both come from the same build",
        ),
        Unrendered::Renderer(error) => anyhow!("{}", in_one_line(&error.to_string())),
    });
    let objects = objects.with_context(|| format!("cannot render {}", path.display()))?;
    let manifests = located(&objects, &inside, &repository, &Limits::default())
        .map_err(|error| anyhow!(error).context("what was rendered is not accepted by Kubernetes"))?;
    let texts: Vec<_> = objects.into_iter().map(|object| object.yaml).collect();
    Ok((manifests, texts.join("---\n")))
}

/// The files of a working copy, or of a folder that is in none.
struct WorkingCopy {
    /// Its top, without symbolic links.
    root: PathBuf,
}

impl Repository for WorkingCopy {
    type Error = anyhow::Error;

    fn at(&self, path: &str) -> anyhow::Result<At> {
        let named = self.root.join(path);
        let cannot_read = || format!("cannot read {}", named.display());
        let real = match fs::canonicalize(&named) {
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
                return Ok(At::Nothing);
            }
            real => real.with_context(cannot_read)?,
        };
        if !real.starts_with(&self.root) {
            return Err(Hint::error(
                format!("{} leads out of the repository", named.display()),
                "only files of the repository are read, as in the cluster",
            ));
        }
        // Git's own files are none of the repository, and may have credentials. A link of the repository can lead to them.
        let is_gits = |part: Component<'_>| part.as_os_str().eq_ignore_ascii_case(folder::GIT);
        if real.strip_prefix(&self.root).is_ok_and(|inside| inside.components().any(is_gits)) {
            return Ok(At::Nothing);
        }
        if !real.is_dir() {
            return Ok(At::File(fs::read(&real).with_context(cannot_read)?));
        }
        let mut names = Vec::new();
        for entry in fs::read_dir(&real).with_context(cannot_read)? {
            // Nobody can ask for a name that is not UTF-8.
            names.extend(entry.with_context(cannot_read)?.file_name().to_str().map(str::to_owned));
        }
        Ok(At::Directory(names))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn gits_own_files_are_not_read_whatever_leads_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for path in [".git/config", "nested/.git/config", "apps/a.yaml"] {
            fs::create_dir_all(root.join(path).parent().unwrap()).unwrap();
            fs::write(root.join(path), "token: hunter2").unwrap();
        }
        for (link, target) in [("apps/link", "../.git/config"), ("apps/folder", "../.git"), ("b.yaml", "apps/a.yaml")] {
            std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        }
        let copy = WorkingCopy { root };
        for path in
            [".git", ".git/config", "apps/../.git/config", "nested/.git/config", "apps/link", "apps/folder/config"]
        {
            assert!(matches!(copy.at(path), Ok(At::Nothing)), "{path}");
        }
        assert!(matches!(copy.at("b.yaml"), Ok(At::File(bytes)) if bytes == b"token: hunter2"));
    }
}
