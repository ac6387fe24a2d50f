//! `gitseal test`: compares what the Syncs of a repository apply with stored files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use manifests::in_one_line;
use pipeline::guard;
use renderer::Capabilities;
use similar::TextDiff;

use crate::{
    chart_inputs::InputArgs,
    edit,
    fleet::{Fleet, Rendered},
    folder,
    global::Global,
    output::{self, BAD, GOOD, Hint, counted, styled},
};

/// Compare what the Syncs of a repository apply with stored files
///
/// Use it in CI, so that the review of a change to a base or a chart shows what changes in each Sync. Finds the Syncs
/// in the files of PATH, renders the folder of each as the controller does, and compares the objects with those in its
/// golden file. The golden file of a Sync in clusters/production/ is
/// .gitseal/golden/clusters/production/NAMESPACE.NAME.yaml. With --update, the golden files are written instead; commit
/// them.
///
///     gitseal test --update
///     gitseal test
///
/// The exit code is 0 if all Syncs apply what their golden files have, 1 if a Sync applies something else than its
/// golden file has, and 2 if something could not be rendered.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct TestArgs {
    /// Folder with Syncs
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,

    /// Write the golden files
    #[arg(long)]
    update: bool,

    /// Folder of the golden files [default: .gitseal/golden in the repository]
    #[arg(long, value_name = "FOLDER")]
    golden: Option<PathBuf>,

    /// Kubernetes version that templates of charts see [default: the version that Helm was built for]
    #[arg(long, value_name = "VERSION")]
    kube_version: Option<String>,

    /// Further API version that templates of charts see as available, for example `cert-manager.io/v1`
    #[arg(short, long, value_name = "VERSION", value_delimiter = ',')]
    api_versions: Vec<String>,

    #[command(flatten)]
    inputs: InputArgs,
}

pub fn run(args: &TestArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let namespace = global.namespace().unwrap_or_else(|| "default".to_owned());
    let mut fleet = Fleet::find(&args.path, &namespace, args.inputs.clones())?;
    if let Some((manifest, why)) = fleet.wrong.first() {
        anyhow::bail!("{}: {why}", manifest.origin);
    }
    if fleet.syncs.is_empty() {
        return Err(Hint::error(
            format!("{} has no files of Syncs", args.path.display()),
            "to see what a folder without a Sync contains, use `gitseal build`",
        ));
    }
    let golden = args.golden.clone().unwrap_or_else(|| fleet.root.join(".gitseal/golden"));
    let capabilities =
        Capabilities { kube_version: args.kube_version.clone(), api_versions: args.api_versions.clone() };
    let mut wanted = BTreeMap::new();
    let mut failed = Vec::new();
    for Rendered { sync, objects } in fleet.render(&capabilities) {
        let found = &fleet.syncs[sync];
        let key = found.key();
        let folder = Path::new(&*found.origin.file).parent().unwrap_or(Path::new(""));
        let file = folder.join(format!("{}.{}.yaml", key.namespace, key.name));
        let objects = objects.and_then(|objects| {
            let checked = guard(&found.sync, &objects);
            checked.map_err(|error| anyhow!("the controller refuses this: {}", in_one_line(&error.to_string())))?;
            output::yaml_of(&objects)
        });
        match objects {
            Err(error) => failed.push(error.context(format!("{}: Sync {key} cannot be rendered", found.origin))),
            Ok(text) if wanted.get(&file).is_some_and(|other| *other != text) => {
                failed.push(Hint::error(
                    format!("{}: two Syncs {key} from this folder apply different objects", found.origin),
                    "put the Syncs of each cluster into a folder of its own",
                ));
            }
            Ok(text) => drop(wanted.insert(file, text)),
        }
    }
    if let Some(error) = output::all("the Syncs from being compared", failed) {
        return Err(error);
    }
    refuse_links(&fleet.root, &golden)?;
    let mut stored = stored(&golden)?;
    // If only a part of the repository was read, a golden file without a Sync may belong to a Sync elsewhere.
    if args.path.canonicalize().is_ok_and(|path| path != fleet.root) {
        stored.retain(|file, _| wanted.contains_key(file));
    }
    let files: BTreeSet<_> = wanted.keys().chain(stored.keys()).collect();
    let mut changed = 0;
    for file in files {
        let place = golden.join(file);
        let (old, new) = (stored.get(file), wanted.get(file));
        if old == new {
            continue;
        }
        changed += 1;
        match (new, args.update) {
            (Some(new), true) => {
                let folder = place.parent().unwrap_or(&golden);
                refuse_links(&golden, &place)?;
                fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
                edit::create(&place, new.as_bytes())?;
            }
            (None, true) => fs::remove_file(&place).with_context(|| format!("cannot remove {}", place.display()))?,
            (_, false) => output::print(difference(&folder::from_here(place), old, new))?,
        }
    }
    let equal = wanted.len() - changed.min(wanted.len());
    let summary = if args.update { "updated" } else { "different" };
    output::note(format_args!(
        "{} in {}: {changed} {summary}, {equal} equal",
        counted(wanted.len(), "Sync"),
        fleet.root.display()
    ));
    if changed > 0 && !args.update {
        output::note("if the changes are wanted, run `gitseal test --update`, and commit the golden files");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// The golden files, by their paths in the folder.
fn stored(golden: &Path) -> anyhow::Result<BTreeMap<PathBuf, String>> {
    let mut stored = BTreeMap::new();
    let mut folders = vec![golden.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = match fs::read_dir(&folder) {
            Err(error) if error.kind() == ErrorKind::NotFound && folder == golden => return Ok(stored),
            entries => entries.with_context(|| format!("cannot read {}", folder.display()))?,
        };
        for entry in entries {
            let path = entry.with_context(|| format!("cannot read {}", folder.display()))?.path();
            refuse_links(&folder, &path)?;
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "yaml") {
                let text = fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
                stored.insert(path.strip_prefix(golden).unwrap_or(&path).to_owned(), text);
            }
        }
    }
    Ok(stored)
}

/// What changed in a golden file, for people.
fn difference(file: &Path, old: Option<&String>, new: Option<&String>) -> String {
    let file = in_one_line(&file.display().to_string()).into_owned();
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old.as_str(), new.as_str()),
        (None, _) => return format!("{} {file}\n", styled(BAD, "missing")),
        (_, None) => return format!("{} {file}: no Sync applies it\n", styled(BAD, "left over")),
    };
    let text = TextDiff::from_lines(old, new).unified_diff().context_radius(3).to_string();
    let lines = text.lines().map(|line| match line.as_bytes().first() {
        Some(b'+') => styled(GOOD, line),
        Some(b'-') => styled(BAD, line),
        _ => line.to_owned(),
    });
    format!("{} {file}\n{}\n", styled(BAD, "different"), lines.collect::<Vec<_>>().join("\n"))
}

/// Fails if a part of `path` below `root` is a symbolic link. In a repository that you do not trust, a link could
/// lead to another file of yours, which would then be printed or replaced.
fn refuse_links(root: &Path, path: &Path) -> anyhow::Result<()> {
    let below = path.ancestors().take_while(|part| *part != root && part.starts_with(root));
    match { below }.find(|part| part.is_symlink()) {
        None => Ok(()),
        Some(link) => Err(Hint::error(
            format!("{} is a symbolic link", link.display()),
            "remove the link: golden files and their folders must not be links",
        )),
    }
}
