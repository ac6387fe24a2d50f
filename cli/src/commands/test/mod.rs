//! `gitseal test`: compares what the Syncs of a repository apply with stored files.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt, fs,
    io::ErrorKind,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::{Context as _, anyhow};
use manifests::in_one_line;
use pipeline::guard;
use serde_json::{Value, json};
use similar::TextDiff;

use crate::{
    chart_inputs::{InputArgs, capabilities},
    edit,
    fleet::{Fleet, Found, NotHere, Rendered},
    folder,
    global::Global,
    output::{self, BAD, GOOD, Hint, counted, styled},
    scopes::Scopes,
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
/// golden file has, and 2 if something could not be read or rendered. The other Syncs are compared all the same.
///
/// Nothing is fetched. A Sync that needs something remote is named and left out, and its golden file stays as it is, unless
/// --remote gives a local copy.
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

    /// Fail if a Sync needs something remote and is left out
    #[arg(long)]
    strict: bool,

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
    let mut fleet = Fleet::find(&args.path, &namespace, args.inputs.clones()?, args.golden.as_deref())?;
    if fleet.syncs.is_empty() && fleet.not_here.is_empty() && fleet.wrong.is_empty() {
        return Err(Hint::error(
            format!("{} has no files of Syncs", args.path.display()),
            "to see what a folder without a Sync contains, use `gitseal build`",
        ));
    }
    let golden = args.golden.clone().unwrap_or_else(|| fleet.root.join(".gitseal/golden"));
    let capabilities = capabilities(args.kube_version.as_deref(), &args.api_versions);
    let mut wanted = BTreeMap::new();
    let mut failed = Vec::new();
    // The golden files of Syncs that could not be rendered. It is not known whether these files are up to date.
    let mut unknown = BTreeSet::new();
    let rendered = fleet.render(&capabilities);
    let all = rendered.iter().flat_map(|one| &one.objects).flat_map(|objects| objects.iter());
    let mut scopes = Scopes::of(fleet.definitions.iter().chain(all));
    for Rendered { sync, objects } in rendered {
        let found = &fleet.syncs[sync];
        let (key, file) = (found.key(), golden_file(found));
        let objects = objects.and_then(|objects| {
            let checked = guard(&found.sync, &objects);
            checked.map_err(|error| anyhow!("the controller refuses this: {}", in_one_line(&error.to_string())))?;
            output::yaml_of(&scopes.as_applied(&found.sync, objects.to_vec()))
        });
        match objects {
            Err(error) => {
                failed.push(error.context(format!("{}: Sync {key} cannot be rendered", found.origin)));
                unknown.insert(file);
            }
            Ok(text) if wanted.get(&file).is_some_and(|other| *other != text) => {
                failed.push(Hint::error(
                    format!("{}: two Syncs {key} from this folder apply different objects", found.origin),
                    "put the Syncs of each cluster into a folder of its own",
                ));
            }
            Ok(text) => drop(wanted.insert(file, text)),
        }
    }
    scopes.tell();
    for one in &fleet.not_here {
        unknown.insert(golden_file(&one.found));
        if args.strict {
            let (origin, key) = (&one.found.origin, one.found.key());
            failed.push(Hint::error(format!("{origin}: Sync {key} cannot be rendered: {}", one.why), &*one.hint));
        }
    }
    if !args.strict {
        fleet.tell_not_here();
    }
    let wrong: BTreeSet<_> = fleet.wrong.iter().map(|wrong| format!("{}: {}", wrong.origin, wrong.why)).collect();
    failed.extend(wrong.into_iter().map(anyhow::Error::msg));
    let failed = output::all("the Syncs from being compared", failed);
    if let (Some(error), true) = (&failed, args.update) {
        return Err(anyhow!("{error:#}; no golden file was written"));
    }
    refuse_links(&fleet.root, &golden)?;
    let mut stored = stored(&golden)?;
    // If only a part of the repository was read, the golden files of the other parts are not compared.
    let part = args.path.canonicalize().ok().and_then(|path| path.strip_prefix(&fleet.root).ok().map(Path::to_owned));
    let part = part.unwrap_or_default();
    stored.retain(|file, _| !unknown.contains(file) && (file.starts_with(&part) || wanted.contains_key(file)));
    let files: BTreeSet<_> = wanted.keys().chain(stored.keys()).collect();
    let mut differences = Vec::new();
    for file in files {
        let place = golden.join(file);
        let (old, new) = (stored.get(file), wanted.get(file));
        if old == new {
            continue;
        }
        match (new, args.update) {
            (Some(new), true) => {
                let folder = place.parent().unwrap_or(&golden);
                refuse_links(&golden, &place)?;
                fs::create_dir_all(folder).with_context(|| format!("cannot create {}", folder.display()))?;
                edit::create(&place, new.as_bytes())?;
            }
            (None, true) => fs::remove_file(&place).with_context(|| format!("cannot remove {}", place.display()))?,
            (_, false) => {}
        }
        differences.push(Difference { file: folder::from_here(place), old, new });
    }
    let changed = differences.len();
    let equal = wanted.len() - differences.iter().filter(|difference| difference.new.is_some()).count();
    let summary = if args.update { "updated" } else { "different" };
    match global.output {
        Some(format) => output::print(format.text(&json!({
            "syncs": wanted.len(),
            "equal": equal,
            "notRendered": fleet.not_here.iter().map(NotHere::as_json).collect::<Vec<_>>(),
            summary: differences.iter().map(Difference::as_json).collect::<Vec<_>>(),
        }))?)?,
        None if !args.update => {
            output::print(differences.iter().map(Difference::to_string).collect::<String>())?;
        }
        None => {}
    }
    output::note(format_args!(
        "{} in {}: {changed} {summary}, {equal} equal",
        counted(wanted.len(), "Sync"),
        fleet.root.display()
    ));
    if changed > 0 && !args.update {
        output::note("if the changes are wanted, run `gitseal test --update`, and commit the golden files");
    }
    match failed {
        Some(error) => Err(error),
        None if changed > 0 && !args.update => Ok(ExitCode::FAILURE),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// The path of the golden file of a Sync in the folder of the golden files.
fn golden_file(found: &Found) -> PathBuf {
    let key = found.key();
    let folder = Path::new(&*found.origin.file).parent().unwrap_or(Path::new(""));
    folder.join(format!("{}.{}.yaml", key.namespace, key.name))
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

/// A golden file that has something else than its Sync applies.
struct Difference<'a> {
    file: PathBuf,
    /// What the file has.
    old: Option<&'a String>,
    /// What the Sync applies.
    new: Option<&'a String>,
}

impl Difference<'_> {
    fn unified(&self) -> Option<String> {
        let (old, new) = self.old.zip(self.new)?;
        Some(TextDiff::from_lines(old.as_str(), new.as_str()).unified_diff().context_radius(3).to_string())
    }

    fn state(&self) -> &'static str {
        match (self.old, self.new) {
            (None, _) => "missing",
            (_, None) => "left over",
            _ => "different",
        }
    }

    fn as_json(&self) -> Value {
        json!({"file": self.file.display().to_string(), "state": self.state(), "difference": self.unified()})
    }
}

impl fmt::Display for Difference<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = self.file.display().to_string();
        write!(f, "{} {}", styled(BAD, self.state()), in_one_line(&file))?;
        if self.new.is_none() {
            write!(f, ": no Sync applies it")?;
        }
        writeln!(f)?;
        let Some(text) = self.unified() else { return Ok(()) };
        for line in text.lines() {
            match line.as_bytes().first() {
                Some(b'+') => writeln!(f, "{}", styled(GOOD, line))?,
                Some(b'-') => writeln!(f, "{}", styled(BAD, line))?,
                _ => writeln!(f, "{line}")?,
            }
        }
        Ok(())
    }
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
