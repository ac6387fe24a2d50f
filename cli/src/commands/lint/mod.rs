//! `gitseal lint`: checks what the Syncs of a repository apply, without a cluster.

mod definitions;
mod objects;
mod report;
mod sealed;
mod syncs;

use std::{collections::HashSet, path::PathBuf, process::ExitCode};

use crds::Sync;
use manifests::{Location, Manifest};
use pipeline::{guard, plan::check_waves};
use renderer::Capabilities;
use schemas::KubernetesVersion;

use self::{
    definitions::Definitions,
    report::{Finding, Report},
    sealed::SealedFiles,
};
use super::diff::nobodys;
use crate::{
    chart_inputs::{InputArgs, Surroundings, capabilities},
    fleet::{Fleet, Rendered, Wrong},
    folder,
    global::Global,
    output::{self, Hint},
    scopes::Scopes,
};

/// Check what the Syncs of a repository apply, without a cluster
///
/// Use it in CI. Finds the Syncs in the files of PATH, renders the folder of each as the controller does, and checks
/// the objects: would the controller refuse them, and does Kubernetes know their kinds, fields and types? Custom
/// resources are checked, too, if the repository has their CustomResourceDefinition. If PATH has no Sync, its objects
/// are checked as they are.
///
///     gitseal lint
///     gitseal lint clusters/production --kubernetes 1.35,1.36
///
/// Each problem is printed as a line FILE:LINE: error|warning: …; docs/lint.md lists the checks. The exit code is 0
/// without errors (there may be warnings), 1 with errors, and 2 if something could not be checked.
///
/// Nothing is fetched. A Sync that needs something remote is named and left out, unless --remote gives a local copy.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct LintArgs {
    /// Folder with Syncs, or with manifests
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,

    /// Versions of Kubernetes to check for, for example 1.35,1.36 [default: the newest that gitseal knows]
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    kubernetes: Vec<KubernetesVersion>,

    /// Further API version that templates of charts see as available, for example `cert-manager.io/v1`
    #[arg(short, long, value_name = "VERSION", value_delimiter = ',')]
    api_versions: Vec<String>,

    /// Report as an error what cannot be checked: kinds without a schema, and Syncs that need something remote
    #[arg(long)]
    strict: bool,

    #[command(flatten)]
    inputs: InputArgs,
}

pub fn run(args: &LintArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut versions = args.kubernetes.clone();
    if versions.is_empty() {
        versions.push(KubernetesVersion::newest());
    }
    versions.sort();
    versions.dedup();
    let namespace = global.namespace().unwrap_or_else(|| "default".to_owned());
    let mut fleet = Fleet::find(&args.path, &namespace, args.inputs.clones()?, None)?;
    let mut report = Report::new(versions.clone(), args.strict);
    let mut sealed = SealedFiles::new(&fleet.root);
    let is_plain = fleet.syncs.is_empty() && fleet.not_here.is_empty() && fleet.wrong.is_empty();
    for version in versions {
        let capabilities = capabilities(Some(&format!("v{version}.0")), &args.api_versions);
        if is_plain {
            let (sync, objects) = without_syncs(args, &namespace, capabilities)?;
            report.objects = objects.len();
            let given: Vec<_> = fleet.definitions.iter().chain(&objects).map(|one| (one, None)).collect();
            let definitions = Definitions::new(version, &given, &mut report);
            let mut checks = Checks { definitions, sealed: &mut sealed };
            let scopes = Scopes::of(fleet.definitions.iter().chain(&objects));
            refused(&sync, &objects, &scopes, &mut report);
            for object in &objects {
                checks.check(object, None, &mut report);
            }
            continue;
        }
        let rendered = fleet.render(&capabilities);
        report.syncs = rendered.len();
        report.objects = rendered.iter().flat_map(|one| &one.objects).map(|objects| objects.len()).sum();
        let all = || rendered.iter().flat_map(|one| &one.objects).flat_map(|objects| objects.iter());
        let of_syncs = rendered.iter().flat_map(|one| {
            let by = &fleet.syncs[one.sync].origin;
            one.objects.iter().flat_map(|objects| objects.iter()).map(move |object| (object, Some(by)))
        });
        let given: Vec<_> = fleet.definitions.iter().map(|one| (one, None)).chain(of_syncs).collect();
        let definitions = Definitions::new(version, &given, &mut report);
        let mut checks = Checks { definitions, sealed: &mut sealed };
        let scopes = Scopes::of(fleet.definitions.iter().chain(all()));
        let of_rendered = rendered.iter().map(|one| &fleet.syncs[one.sync]);
        let found: Vec<_> = of_rendered.chain(fleet.not_here.iter().map(|one| &one.found)).collect();
        // Of an object that a Sync applies, only the rendered form is checked, because the Sync may have changed the
        // object.
        let applied: HashSet<_> = all().map(|object| &object.origin).collect();
        let beside = fleet.repositories.iter().chain(&fleet.beside).filter(|object| !applied.contains(&object.origin));
        for manifest in found.iter().map(|found| &found.manifest).chain(beside) {
            checks.check(manifest, None, &mut report);
        }
        report.add_all(syncs::of_all(&found));
        report.add_all(found.iter().flat_map(|found| syncs::refused(found)));
        for Rendered { sync, objects } in &rendered {
            let found = &fleet.syncs[*sync];
            match objects {
                Err(error) => {
                    let id = Some(&found.manifest.id);
                    let (place, why) = fleet.place_of(&found.sync, error);
                    report.sync = place.as_ref().map(|_| found.place());
                    let place = place.unwrap_or_else(|| found.origin.clone());
                    report.add(Finding::error("not-rendered", &place, id, why));
                }
                Ok(objects) => {
                    report.sync = Some(found.place());
                    refused(&found.sync, objects, &scopes, &mut report);
                    for object in objects.iter() {
                        checks.check(object, Some(&found.origin), &mut report);
                    }
                }
            }
            report.sync = None;
        }
    }
    for Wrong { origin, object, check, why } in &fleet.wrong {
        report.add(Finding::error(check, origin, object.as_ref(), why.clone()));
    }
    for one in fleet.not_here.iter().filter(|_| args.strict) {
        let id = Some(&one.found.manifest.id);
        report.add(Finding::error("not-rendered", &one.found.origin, id, one.message()));
    }
    if !args.strict {
        fleet.tell_not_here();
    }
    report.print(&fleet.not_here, global)?;
    Ok(if report.errors() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The objects of a folder without Syncs, and a Sync that would apply them. A chart is rendered as `gitseal build` does it.
fn without_syncs(
    args: &LintArgs,
    namespace: &str,
    capabilities: Capabilities,
) -> anyhow::Result<(Sync, Vec<Manifest>)> {
    let path = &args.path;
    let mut sync = nobodys(namespace);
    if path.join("Chart.yaml").is_file() && !folder::is_rendered(path)? {
        let release_name = Some("release-name".to_owned());
        sync.spec.helm = Some(crds::Helm { release_name, ..crds::Helm::default() });
        output::note(format_args!("{} is a chart: it is rendered with its own values", path.display()));
    }
    let objects =
        folder::read_for(path, &sync, Surroundings { capabilities, clones: args.inputs.clones()? })?.manifests;
    if objects.is_empty() {
        return Err(Hint::error(
            format!("{} has no Syncs and no manifests, so there is nothing to check", path.display()),
            "give the path of a folder with Syncs or manifests",
        ));
    }
    Ok((sync, objects))
}

/// Reports what the controller would refuse.
fn refused(sync: &Sync, objects: &[Manifest], scopes: &Scopes, report: &mut Report) {
    if let Err(error) = guard(sync, objects) {
        for (origin, message) in error.each() {
            report.add(Finding::error("refused", origin, None, message));
        }
    }
    if let Err(late) = check_waves(sync, objects, &scopes.kinds(objects)) {
        let text = late.to_string();
        let message = text.strip_prefix(&format!("{}: ", late.origin)).unwrap_or(&text);
        report.add(Finding::error("refused", &late.origin, None, message.to_owned()));
    }
}

/// What objects are checked with.
struct Checks<'m> {
    definitions: Definitions,
    sealed: &'m mut SealedFiles,
}

impl Checks<'_> {
    /// Reports what is wrong with an object, which the Sync at `sync` applies.
    fn check(&mut self, object: &Manifest, sync: Option<&Location>, report: &mut Report) {
        let own =
            objects::annotations(object).into_iter().chain(objects::name(object)).chain(syncs::broken_rules(object));
        report.add_all(own.chain(self.sealed.check(object)));
        self.definitions.check(object, sync, report);
    }
}
