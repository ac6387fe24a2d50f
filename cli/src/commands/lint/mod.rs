//! `gitseal lint`: checks what the Syncs of a repository apply, without a cluster.

mod report;

use std::{path::PathBuf, process::ExitCode};

use crds::{Sync, custom_resource_definitions};
use manifests::{Limits, Manifest, parse};
use pipeline::guard;
use renderer::Capabilities;
use schemas::{Checked, KubernetesVersion, Problem as Wrong, Schemas};

use self::report::{Finding, Report};
use super::diff::nobodys;
use crate::{
    chart_inputs::InputArgs,
    fleet::{Fleet, Rendered},
    folder,
    global::Global,
    output::{self, one_line},
};

/// Check what the Syncs of a repository apply, without a cluster
///
/// Use it in CI. Finds the Syncs in the files of PATH, renders the folder of each as the controller does, and checks the
/// objects: would the controller refuse them, and does Kubernetes know their kinds, fields and types? Kinds of
/// CustomResourceDefinitions in the repository are checked, too. If PATH has no Sync, its objects are checked as they are.
///
///     gitseal lint
///     gitseal lint clusters/production --kubernetes 1.35,1.36
///
/// Each problem is a line FILE:LINE: error|warning: …; docs/lint.md lists the checks. The exit code is 0 without errors (there
/// may be warnings), 1 with errors, and 2 if something could not be checked.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct LintArgs {
    /// Folder with Syncs, or with manifests
    #[arg(value_name = "PATH", default_value = ".")]
    path: PathBuf,

    /// Versions of Kubernetes, for example 1.35,1.36 [default: the newest that is known]
    #[arg(long, value_name = "VERSION", value_delimiter = ',')]
    kubernetes: Vec<KubernetesVersion>,

    /// Further API version that templates of charts see as available, for example `cert-manager.io/v1`
    #[arg(short, long, value_name = "VERSION", value_delimiter = ',')]
    api_versions: Vec<String>,

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
    let mut fleet = Fleet::find(&args.path, &namespace, args.inputs.clones())?;
    let mut report = Report::new(versions.clone());
    for (manifest, why) in &fleet.wrong {
        report.add(Finding::error("invalid-sync", &manifest.origin, Some(&manifest.id), why.clone()));
    }
    for key in &fleet.elsewhere {
        output::note(format_args!("Sync {key} is not checked: its Repository has another URL than this repository"));
    }
    let plain = if fleet.syncs.is_empty() { Some(folder::read(&args.path)?.manifests) } else { None };
    if let Some(objects) = &plain {
        refused(&nobodys(&namespace), objects, &mut report);
        report.objects = objects.len();
    }
    for version in versions {
        if let Some(objects) = &plain {
            let mut schemas = schemas(version, &fleet, objects.iter(), &mut report);
            for object in objects {
                check(&mut schemas, object, &mut report);
            }
            continue;
        }
        let capabilities =
            Capabilities { kube_version: Some(format!("v{version}.0")), api_versions: args.api_versions.clone() };
        let rendered = fleet.render(&capabilities);
        report.syncs = fleet.syncs.len();
        report.objects = rendered.iter().flat_map(|one| &one.objects).map(|objects| objects.len()).sum();
        let all = rendered.iter().flat_map(|one| &one.objects).flat_map(|objects| objects.iter());
        let mut schemas = schemas(version, &fleet, all, &mut report);
        for manifest in fleet.syncs.iter().map(|found| &found.manifest).chain(&fleet.repositories) {
            check(&mut schemas, manifest, &mut report);
        }
        for Rendered { sync, objects } in &rendered {
            let found = &fleet.syncs[*sync];
            match objects {
                Err(error) => {
                    let id = Some(&found.manifest.id);
                    report.add(Finding::error("not-rendered", &found.origin, id, one_line(error)));
                }
                Ok(objects) => {
                    refused(&found.sync, objects, &mut report);
                    for object in objects.iter() {
                        check(&mut schemas, object, &mut report);
                    }
                }
            }
        }
    }
    report.print(global)?;
    Ok(if report.errors() > 0 { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The schemas of the kinds that this version of Kubernetes serves, and of those that CustomResourceDefinitions define:
/// gitseal's own, those in the files, and those among the rendered objects.
fn schemas<'m>(
    version: KubernetesVersion,
    fleet: &'m Fleet,
    rendered: impl Iterator<Item = &'m Manifest>,
    report: &mut Report,
) -> Schemas {
    let mut schemas = Schemas::new(version);
    let mut add = |manifest: &Manifest| {
        if let Err(error) = schemas.add(manifest) {
            report.add(Finding::error("invalid-definition", &manifest.origin, Some(&manifest.id), error.to_string()));
        }
    };
    for definition in custom_resource_definitions() {
        let text = crds::to_yaml(&definition);
        parse("gitseal", text.as_bytes(), &Limits::default()).iter().flatten().for_each(&mut add);
    }
    fleet.definitions.iter().chain(rendered).for_each(add);
    schemas
}

/// Reports what the controller would refuse.
fn refused(sync: &Sync, objects: &[Manifest], report: &mut Report) {
    if let Err(error) = guard(sync, objects) {
        for (origin, message) in error.each() {
            report.add(Finding::error("refused", origin, None, message));
        }
    }
}

fn check(schemas: &mut Schemas, object: &Manifest, report: &mut Report) {
    match schemas.check(object) {
        Checked::NoSchema => report.unchecked(object),
        Checked::Problems(problems) => {
            for Wrong { severity, check, field, message } in problems {
                let at = schemas.version();
                report.add(Finding {
                    severity,
                    check: check.name(),
                    origin: object.origin.clone(),
                    object: Some(object.id.clone()),
                    field,
                    message,
                    kubernetes: Some(at),
                });
            }
        }
    }
}
