//! `gitseal keys retire`.

use std::path::PathBuf;

use crds::endpoints::{KeyReport, KeyUse};
use crds::names::SEALING_KEY;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::store::{self, Store};
use super::wait_for;
use crate::commands::seal::{self, inputs};
use crate::commands::sealed_files::{Place, question};
use crate::completion;
use crate::controller::{Controller, ControllerAddress};
use crate::edit::SealedText;
use crate::global::Global;
use crate::output::{self, Hint};

/// Take a key out of use, if no value needs it
///
/// Refuses if the controller counts values in the cluster that need this key, if a SealedSecret under
/// --path was sealed with this key, or if new values are sealed with this key. The Secret of the key stays, with the
/// label `retired`, so that you can undo this; the command says how.
///
///     gitseal keys retire sealed-secrets-keyq9dwl --path .
///
/// Other branches and repositories are not checked unless --path names their folders.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RetireArgs {
    /// Name of the key's Secret, as `gitseal keys list` shows it
    #[arg(value_name = "NAME", value_parser = store::name, add = completion::from_cluster(store::names))]
    name: String,

    /// Refuse if a SealedSecret in this file or folder was sealed with the key; can be given several times
    #[arg(long, value_name = "PATH")]
    path: Vec<PathBuf>,

    /// Retire the key even if values need it: these values can no longer be unsealed
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    address: ControllerAddress,
}

/// How long the controller may take to notice that the key was retired.
const NOTICED: SignedDuration = SignedDuration::from_secs(30);

pub(super) async fn run(args: RetireArgs, global: &Global) -> anyhow::Result<()> {
    let controller = Controller::find(&args.address, global).await?;
    let report = controller.keys().await.map_err(|error| {
        error.context(Hint::new(
            "it is not known whether the key is needed, so the key is not retired",
            "the command asks the controller how many values need the key; to choose the controller: \
             --controller-namespace, --controller-name or --controller-url",
        ))
    })?;
    let store = Store::open(global).await?;
    let key = find(&report, &args.name, &store).await?;
    let needs = needs(&controller, key, &args, global).await?;
    if !needs.is_empty() && !args.force {
        for need in &needs {
            output::warn(need);
        }
        return Err(Hint::error(
            format!("{} is still needed: it is not retired", args.name),
            "seal these values again: `gitseal reseal PATH…`, then commit and push",
        ));
    }
    let Some(secret) = store.get(&args.name).await? else {
        anyhow::bail!("the Secret {}/{} is gone", store.namespace, args.name);
    };
    let before = secret.metadata.labels.get(SEALING_KEY).cloned();
    store.label(&args.name, Some("retired"), secret.metadata.resource_version.as_deref()).await?;
    drop(secret);
    confirm(&controller, &store, &report, &args, before.as_deref()).await?;
    print(&args, &store, before.as_deref(), &needs, global)
}

/// The key, if it may be retired at all.
async fn find<'r>(report: &'r KeyReport, name: &str, store: &Store) -> anyhow::Result<&'r KeyUse> {
    let Some(key) = report.keys.iter().find(|key| key.name == name) else {
        let state = store.get(name).await?.map(|secret| secret.state().to_owned());
        return Err(match state.as_deref() {
            Some("active" | "compromised") => Hint::error(
                format!("the controller does not use the Secret {}/{name}", store.namespace),
                "it may be malformed (`gitseal keys list` warns), or the controller has not seen it yet",
            ),
            Some(state) => Hint::error(
                format!("the controller does not use {name}: its label says {state}"),
                format!("to delete it for good: kubectl delete secret -n {} {name}", store.namespace),
            ),
            None => Hint::error(format!("there is no sealing key {name}"), "`gitseal keys list` shows all keys"),
        });
    };
    if key.seals {
        return Err(Hint::error(
            format!("{name} is the key that new values are sealed with: it cannot be retired"),
            "make a new key first: `gitseal keys rotate`",
        ));
    }
    Ok(key)
}

/// The values that need the key: one message for the cluster, and one for each SealedSecret in the files.
async fn needs(
    controller: &Controller,
    key: &KeyUse,
    args: &RetireArgs,
    global: &Global,
) -> anyhow::Result<Vec<String>> {
    let mut needs = Vec::new();
    if key.values > 0 {
        needs.push(format!(
            "{} in {} of the cluster {} this key",
            output::counted(key.values, "value"),
            output::counted(key.sealed_secrets, "SealedSecret"),
            if key.values == 1 { "needs" } else { "need" },
        ));
    }
    if args.path.is_empty() {
        return Ok(needs);
    }
    let namespace = seal::namespace(global);
    let (mut questions, mut places) = (Vec::new(), Vec::new());
    for input in inputs::collect(&args.path)? {
        let (name, text) = (input.name(), input.read()?);
        let text = SealedText::read(&name, &text);
        if let Some(error) = text.unreadable.first() {
            return Err(Hint::error(
                format!("{error}, so it is not known which key the values in this file need"),
                error.hint(),
            ));
        }
        for object in &text.sealed {
            let origin = &object.manifest.origin;
            let place = Place::of(object, namespace.as_ref()).map_err(|error| anyhow::anyhow!("{origin}: {error}"))?;
            questions.push(question(object, &place, |_| true));
            places.push(format!("{origin}: {}", object.title()));
        }
    }
    let which = controller.which(&questions).await.map_err(|refused| controller.error("/v1/which", refused))?;
    for (place, item) in places.iter().zip(which.items) {
        let values = item.values.values().filter(|value| value.as_deref() == Some(&key.fingerprint)).count();
        if values > 0 {
            let values = if values == 1 { "1 value needs it".to_owned() } else { format!("{values} values need it") };
            needs.push(format!("{place}: {values}"));
        }
    }
    Ok(needs)
}

/// Waits until the controller no longer uses the key. If it turns out that values need the key after all, the change is
/// undone.
async fn confirm(
    controller: &Controller,
    store: &Store,
    before: &KeyReport,
    args: &RetireArgs,
    label: Option<&str>,
) -> anyhow::Result<()> {
    let after = wait_for(NOTICED, async || {
        let report = controller.keys().await?;
        Ok(report.keys.iter().all(|key| key.name != args.name).then_some(report))
    });
    let Ok(Some(after)) = after.await else {
        output::warn(
            "the controller has not confirmed yet that it no longer uses the key; `gitseal keys list` shows \
            whether it still uses it",
        );
        return Ok(());
    };
    if after.undecryptable <= before.undecryptable || args.force {
        return Ok(());
    }
    store.label(&args.name, label, None).await?;
    let lost = after.undecryptable - before.undecryptable;
    Err(Hint::error(
        format!(
            "{} that {} sealed meanwhile {} {}, so this key is in use again",
            output::counted(lost, "value"),
            if lost == 1 { "was" } else { "were" },
            if lost == 1 { "needs" } else { "need" },
            args.name
        ),
        "somebody still seals with an old certificate: give them the new one, which `gitseal cert` prints",
    ))
}

fn print(
    args: &RetireArgs,
    store: &Store,
    label: Option<&str>,
    needs: &[String],
    global: &Global,
) -> anyhow::Result<()> {
    let (namespace, name) = (&store.namespace, &args.name);
    let undo = match label {
        Some(state) => format!("kubectl label secret -n {namespace} {name} --overwrite {SEALING_KEY}={state}"),
        None => format!("kubectl label secret -n {namespace} {name} {SEALING_KEY}-"),
    };
    let delete = format!("kubectl delete secret -n {namespace} {name}");
    if let Some(format) = global.output {
        let needs: Vec<Value> = needs.iter().map(|need| need.as_str().into()).collect();
        let retired =
            json!({ "name": name, "namespace": namespace, "undo": undo, "delete": delete, "stillNeeded": needs });
        return output::print(format.text(&retired)?);
    }
    output::note(format_args!("retired {namespace}/{name}"));
    output::note(format_args!("to undo it:         {undo}"));
    output::note(format_args!("to delete the key:  {delete}    (first make a backup: `gitseal keys backup`)"));
    Ok(())
}
