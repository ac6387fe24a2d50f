//! `gitseal build`: renders a folder without a cluster.

mod chart;
mod explain;

use std::{
    io::{self, IsTerminal as _},
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use crds::ObjectKey;
use manifests::{Manifest, in_one_line};
use pipeline::{guard, render::Unlimited};
use renderer::Built;
use serde_json::{Value, json};
use worker::Cancel;

use self::chart::ChartArgs;
use super::diff::nobodys;
use crate::{
    chart_inputs::{InputArgs, Surroundings},
    copies::{Copies, WithCopies},
    fleet::Fleet,
    folder,
    global::Global,
    output::{self, OutputFormat},
    scopes::Scopes,
    sync_file::SyncFile,
    working_copy::WorkingCopy,
};

/// Print the objects of a folder, rendered with Kustomize or Helm if needed
///
/// If the folder has a kustomization.yaml, it is rendered as by `kustomize build`. If it has a Chart.yaml, it is rendered as
/// by `helm template`. Otherwise all its manifests are printed, except those that .gitsealignore excludes; folders below it
/// that have a kustomization.yaml are rendered with Kustomize. A kustomization.yaml that .gitsealignore excludes is not
/// rendered. No cluster is needed, and nothing is fetched. Kustomize and Helm can read all files of the repository, and no
/// others.
///
///     gitseal build clusters/production
///     gitseal build clusters/production -o json | jq .
///     gitseal build clusters/production | kubectl diff -f -
///     gitseal build charts/shop --release-name shop -f production.yaml
///     gitseal build --sync clusters/production/shop.yaml
///     gitseal build --sync clusters/production/shop.yaml --explain
///     gitseal build --sync podinfo.yaml --remote shop/podinfo=podinfo.tgz
///
/// With --sync, the command prints the objects that the controller applies for that Sync. It reads the folder in the
/// Sync's spec.path, uses the values in its spec.helm, and changes the objects as its spec says, for example in
/// spec.patches. With --explain, it prints these changes instead of the objects: the fields of the spec in the order in
/// which they take effect, and below each field the objects that it changes. The values of Secrets are not shown there.
/// With --sync and PATH, the command reads the folder PATH instead of spec.path, as if PATH were the whole repository.
///
/// With --remote, the command reads local copies of what is elsewhere: the chart of a Sync whose Repository is a registry or
/// a chart repository, the remote bases of kustomizations, and charts that Chart.lock names and charts/ does not have.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct BuildArgs {
    /// The folder, or the archive of a chart (.tgz) [default: .]
    #[arg(value_name = "PATH")]
    path: Option<PathBuf>,

    /// Build what the Sync in this file applies; the file must be in a clone of the repository
    #[arg(long, value_name = "FILE")]
    sync: Option<PathBuf>,

    /// Print what each field of the Sync changes, instead of the objects
    #[arg(long, requires = "sync", conflicts_with = "path")]
    explain: bool,

    #[command(flatten)]
    chart: ChartArgs,

    #[command(flatten)]
    inputs: InputArgs,
}

pub fn run(args: &BuildArgs, global: &Global) -> anyhow::Result<()> {
    if let Some(file) = &args.sync {
        return of_sync(file, args, global);
    }
    let path = args.path.as_deref().unwrap_or(Path::new("."));
    let copies = args.inputs.clones()?.copies;
    let is_rendered = folder::is_rendered(path)?;
    let is_chart = !is_rendered && chart::is_chart(path);
    if !is_chart {
        args.chart.refuse_without_chart(path)?;
    }
    let (manifests, text) = if is_chart {
        let (manifests, text) = chart::render(path, &args.chart, &copies, global)?;
        (manifests, Some(text))
    } else if is_rendered {
        let (manifests, text) = kustomize(path, &copies)?;
        (manifests, Some(text))
    } else {
        (folder::read_with(path, &copies)?.manifests, None)
    };
    // The folder is built without a Sync, so this reports only what is refused for every Sync.
    let mut sync = nobodys("default");
    sync.spec.helm = is_chart.then(crds::Helm::default);
    if let Err(error) = guard(&sync, &manifests) {
        output::warn(format_args!("the controller refuses this folder: {}", in_one_line(&error.to_string())));
    }
    match (global.output, text) {
        (None | Some(OutputFormat::Yaml), Some(text)) => print(&text),
        (_, _) => print_objects(manifests, global),
    }
}

/// Prints what the controller applies for the Sync in a file.
fn of_sync(file: &Path, args: &BuildArgs, global: &Global) -> anyhow::Result<()> {
    let namespace = global.namespace().unwrap_or_else(|| "default".to_owned());
    let mut file = SyncFile::read(file, &namespace)?;
    args.chart.refuse_values_beside_sync()?;
    let (clones, capabilities) = (args.inputs.clones()?, args.chart.capabilities());
    let fleet = Fleet::find(&file.root, &namespace, clones.clone(), None)?;
    if let Some((changed, by)) = fleet.as_changed(&file.origin, &capabilities) {
        if changed != file.sync {
            output::note(format_args!(
                "Sync {by} changes this Sync and applies it as Sync {}; the objects are those of the changed Sync",
                ObjectKey::of(&changed)
            ));
        }
        file.sync = changed;
    }
    if args.explain {
        let explanation = explain::explain(&file.sync, |sync| fleet.folder_of(sync, &capabilities))?;
        return match global.output {
            None => output::print(explanation.text()),
            Some(format) => output::print(format.text(&explanation)?),
        };
    }
    let folder = match &args.path {
        Some(path) => folder::read_whole(path, &file.sync, Surroundings { capabilities, clones })?,
        None => fleet.folder_of(&file.sync, &capabilities)?,
    };
    if let Err(error) = guard(&file.sync, &folder.manifests) {
        output::warn(format_args!("the controller refuses this folder: {}", in_one_line(&error.to_string())));
    }
    let mut scopes = Scopes::of(fleet.definitions.iter().chain(&folder.manifests));
    let objects = scopes.as_applied(&file.sync, folder.manifests);
    scopes.tell();
    print_objects(objects, global)
}

fn print_objects(manifests: Vec<Manifest>, global: &Global) -> anyhow::Result<()> {
    match global.output {
        None | Some(OutputFormat::Yaml) => print(&output::yaml_of(&manifests)?),
        Some(format) => {
            let items: Vec<Value> = manifests.into_iter().map(|manifest| Value::Object(manifest.body)).collect();
            output::print(format.text(&json!({"apiVersion": "v1", "kind": "List", "items": items}))?)
        }
    }
}

/// A pipe or a file gets the text unchanged. For a terminal, control characters are escaped.
fn print(text: &str) -> anyhow::Result<()> {
    if io::stdout().is_terminal() { output::print(text) } else { output::print_raw(text.as_bytes()) }
}

/// The objects, and the text that `kustomize build` prints.
fn kustomize(path: &Path, copies: &Copies) -> anyhow::Result<(Vec<Manifest>, String)> {
    let (root, inside) = folder::place(path)?;
    let copy = WorkingCopy { root };
    let files = WithCopies::new(&copy, copies);
    let built = folder::renderer().build(&inside, &files, &mut Unlimited, &Cancel::new());
    let built = built.map_err(|error| folder::explained(files.explained(error), &copy));
    let Built { objects, manifests } = built.with_context(|| format!("cannot render {}", path.display()))?;
    let texts: Vec<_> = objects.into_iter().map(|object| object.yaml).collect();
    Ok((manifests, texts.join("---\n")))
}
