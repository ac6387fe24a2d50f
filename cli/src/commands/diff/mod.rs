//! `gitseal diff`: what a local folder would change in the cluster.

mod compare;
mod desired;
mod folder;
mod kinds;
mod prune;
mod shown;
mod taking_over;
mod text;

use std::{collections::BTreeSet, path::PathBuf, process::ExitCode};

use anyhow::Context;
use crds::Sync;
use fields::Managers;
use futures::{StreamExt, stream};
use kube::{Api, Client};
use manifests::{Manifest, ObjectId};
use serde_json::{Value, json};

use crate::{
    global::Global,
    output::{self, Hint},
};
use compare::Outcome;
use kinds::Kinds;
use taking_over::TakingOver;

/// How many objects are compared at a time.
const CONCURRENCY: usize = 8;

/// Show what a local folder would change in the cluster
///
/// Every manifest of the folder (.yaml, .yml, .json; .gitsealignore is obeyed) is applied as a server-side dry run and
/// compared with the live object: nothing is written. The values of Secrets are never shown, only which keys differ.
///
/// With --sync, the folder is compared as that Sync would apply it: in its target namespace, without the fields that it
/// leaves to others, and with what it would prune. The Secrets that SealedSecrets become are not part of the comparison:
/// a sealed value that differs is shown as changed.
///
/// An object that another tool made and that is applied for the first time is shown as it is when it was taken over:
/// without what that tool wrote and the folder does not say.
///
/// Exit code: 0 nothing would change, 1 something would, 2 an error.
#[derive(clap::Args)]
pub struct DiffArgs {
    /// Folder or file with manifests
    #[arg(value_name = "PATH")]
    path: PathBuf,

    /// The Sync that applies the folder
    #[arg(long, value_name = "NAME")]
    sync: Option<String>,

    /// Field managers that objects are taken over from, as the controller's flag of this name says
    #[arg(long, value_name = "NAMES", default_value = Managers::DEFAULT)]
    take_over_from: Managers,
}

/// What became of one object, with what to print of it.
struct Entry {
    id: ObjectId,
    /// `file:line`; empty for what is in the cluster only.
    origin: String,
    outcome: anyhow::Result<Outcome>,
}

pub async fn run(args: DiffArgs, global: &Global) -> anyhow::Result<ExitCode> {
    let mut manifests = folder::read(&args.path)?;
    let client = global.client().await?;
    let namespace = global.default_namespace();
    let sync = match &args.sync {
        Some(name) => Some(find_sync(&client, &namespace, name).await?),
        None => None,
    };
    if manifests.is_empty() {
        return Err(Hint::error(
            format!("{} holds no manifests", args.path.display()),
            "an empty folder never prunes; delete the Sync if its objects are to go",
        ));
    }
    warn_of_plaintext(&manifests);
    let kinds = Kinds::find(&client, &manifests).await?;
    for manifest in &mut manifests {
        desired::complete(manifest, kinds.scope_of(manifest), sync.as_ref(), &namespace);
    }
    let in_folder: BTreeSet<ObjectId> = manifests.iter().map(|manifest| manifest.id.clone()).collect();
    let taking_over = TakingOver::new(&args.take_over_from, sync.as_ref());
    let mut entries: Vec<Entry> = stream::iter(&manifests)
        .map(|manifest| async {
            let outcome = compare::compare(&client, &kinds, &in_folder, &taking_over, manifest).await;
            Entry { id: manifest.id.clone(), origin: manifest.origin.to_string(), outcome }
        })
        .buffered(CONCURRENCY)
        .collect()
        .await;
    if let Some(sync) = &sync {
        entries.extend(prune::prune(&client, sync, &in_folder).await);
    }
    match global.output {
        Some(format) => output::print(format.text(&list(&entries))?)?,
        None => output::print(text::report(&entries))?,
    }
    Ok(exit_code(&entries))
}

async fn find_sync(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Sync> {
    let api: Api<Sync> = Api::namespaced(client.clone(), namespace);
    let sync = api.get_opt(name).await.with_context(|| format!("cannot read Sync {namespace}/{name}"))?;
    sync.ok_or_else(|| {
        Hint::error(
            format!("namespace {namespace} has no Sync {name}"),
            "choose another with --namespace; `gitseal status --all-namespaces` shows all",
        )
    })
}

/// The controller refuses the whole revision for one of these.
fn warn_of_plaintext(manifests: &[Manifest]) {
    let has_values = |manifest: &Manifest, key: &str| manifest.body.get(key).is_some_and(|values| *values != json!({}));
    for manifest in manifests {
        if manifest.id.is_secret() && (has_values(manifest, "data") || has_values(manifest, "stringData")) {
            output::warn(format_args!(
                "{}: {} is a plaintext Secret, which the controller refuses: seal it with `gitseal seal`",
                manifest.origin, manifest.id
            ));
        }
    }
}

fn exit_code(entries: &[Entry]) -> ExitCode {
    if entries.iter().any(|entry| entry.outcome.is_err()) {
        ExitCode::from(2)
    } else if entries.iter().any(|entry| entry.outcome.as_ref().is_ok_and(Outcome::is_change)) {
        ExitCode::from(1)
    } else {
        ExitCode::SUCCESS
    }
}

fn list(entries: &[Entry]) -> Value {
    let entries = entries.iter().map(|entry| {
        let mut item = json!({
            "group": entry.id.group,
            "kind": entry.id.kind,
            "namespace": entry.id.namespace,
            "name": entry.id.name,
            "origin": (!entry.origin.is_empty()).then_some(&entry.origin),
        });
        match &entry.outcome {
            Ok(outcome) => {
                item["outcome"] = outcome.name().into();
                if let Outcome::Changed { diff, keys } = outcome {
                    item["diff"] = diff.clone().into();
                    item["keys"] = json!(
                        keys.iter().map(|(k, c)| (k.clone(), c.name().into())).collect::<serde_json::Map<_, Value>>()
                    );
                }
            }
            Err(error) => {
                item["outcome"] = "failed".into();
                item["error"] = output::one_line(error).into();
            }
        }
        item
    });
    Value::Array(entries.collect())
}
