//! `gitseal keys list`.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::Context;
use crds::SealedSecret;
use crds::endpoints::{KeyReport, WhichItem};
use jiff::Timestamp;
use kube::api::ListParams;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use super::shown_fingerprint;
use crate::controller::{Controller, ControllerAddress, to_ask};
use crate::global::Global;
use crate::output::{self, BAD, FAINT, GOOD, OutputFormat, styled};
use crate::time;
use manifests::printable;

/// Show the sealing keys, and how many values need each key
///
/// VALUES is the number of sealed values in the cluster that only this key can unseal; SEALEDSECRETS is
/// the number of SealedSecrets that contain them. To count them, the controller tries its keys on each
/// value; it never shows a value.
///
///     gitseal keys list
///     gitseal keys list --values -A       which key sealed which SealedSecret
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct ListArgs {
    /// Show which key sealed which value, for the SealedSecrets in --namespace
    #[arg(long)]
    values: bool,

    /// With --values: for all namespaces
    #[arg(short = 'A', long, requires = "values")]
    all_namespaces: bool,

    #[command(flatten)]
    address: ControllerAddress,
}

pub(super) async fn run(args: ListArgs, global: &Global) -> anyhow::Result<()> {
    let controller = Controller::find(&args.address, global).await?;
    let report = controller.keys().await?;
    if !args.values {
        return match global.output {
            Some(OutputFormat::Name) => print_names("v1", "Secret", report.keys.iter().map(|key| key.name.as_str())),
            Some(format) => output::print(format.text(&report)?),
            None => print_keys(&report),
        };
    }
    let sealed = sealed_secrets(&args, global).await?;
    let which = controller.which(&sealed).await.map_err(|refused| controller.error("/v1/which", refused))?;
    match global.output {
        Some(OutputFormat::Name) => {
            print_names("bitnami.com/v1alpha1", "SealedSecret", which.items.iter().map(|item| item.name.as_str()))
        }
        Some(format) => output::print(format.text(&values(&report, &which.items))?),
        None => print_values(&report, &which.items, &args, global),
    }
}

/// Prints the names of objects in the form that kubectl prints and accepts.
fn print_names<'n>(api_version: &str, kind: &str, names: impl Iterator<Item = &'n str>) -> anyhow::Result<()> {
    let object = |name| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    let items: Vec<Value> = names.map(object).collect();
    output::print(OutputFormat::Name.text(&json!({ "items": items }))?)
}

async fn sealed_secrets(args: &ListArgs, global: &Global) -> anyhow::Result<Vec<Value>> {
    let client = global.client().await?;
    let api: Api<SealedSecret> =
        if args.all_namespaces { Api::all(client) } else { Api::namespaced(client, &global.default_namespace()) };
    let mut sealed = Vec::new();
    let mut page = ListParams::default().limit(500);
    loop {
        let list = api.list(&page).await.context("cannot list SealedSecrets")?;
        for item in &list.items {
            let annotations = json!(item.annotations());
            let mut spec = json!({ "encryptedData": item.spec.encrypted_data });
            if let Some(data) = &item.spec.data {
                spec["data"] = data.as_str().into();
            }
            sealed.push(to_ask(&item.namespace().unwrap_or_default(), &item.name_any(), Some(&annotations), spec));
        }
        match list.metadata.continue_.filter(|token| !token.is_empty()) {
            Some(token) => page = page.continue_token(&token),
            None => return Ok(sealed),
        }
    }
}

fn print_keys(report: &KeyReport) -> anyhow::Result<()> {
    let head = ["NAME", "STATE", "SEALS", "VALUES", "SEALEDSECRETS", "CREATED", "EXPIRES", "FINGERPRINT"];
    let now = Timestamp::now();
    let rows = report.keys.iter().map(|key| {
        vec![
            key.name.clone(),
            key.state.clone(),
            if key.seals { styled(GOOD, "yes") } else { "no".into() },
            key.values.to_string(),
            key.sealed_secrets.to_string(),
            age(&key.created, now),
            key.not_after.as_deref().map_or_else(|| styled(FAINT, "none"), |end| until(end, now)),
            shown_fingerprint(&key.fingerprint),
        ]
    });
    output::print_table(&head, rows.collect())?;
    if report.undecryptable > 0 {
        let values = output::counted(report.undecryptable, "sealed value");
        output::warn(format_args!(
            "{values} of the cluster cannot be unsealed with any of these keys: `gitseal keys list --values -A` shows where"
        ));
    }
    for name in &report.malformed {
        output::warn(format_args!("the Secret {name} is not a usable key: restore it from a backup"));
    }
    Ok(())
}

/// How long ago `time` was; the text itself if it is not a time.
fn age(time: &str, now: Timestamp) -> String {
    time.parse::<Timestamp>().map_or_else(|_| time.to_owned(), |time| time::short(now.duration_since(time)))
}

fn until(time: &str, now: Timestamp) -> String {
    match time.parse::<Timestamp>() {
        Ok(end) if end <= now => styled(BAD, "expired"),
        Ok(end) => time::short(end.duration_since(now)),
        Err(_) => time.to_owned(),
    }
}

/// Names of the keys by fingerprint.
fn names(report: &KeyReport) -> BTreeMap<&str, &str> {
    report.keys.iter().map(|key| (key.fingerprint.as_str(), key.name.as_str())).collect()
}

fn values(report: &KeyReport, items: &[WhichItem]) -> Value {
    let names = names(report);
    let items = items.iter().map(|item| {
        let values: BTreeMap<&str, Value> = item
            .values
            .iter()
            .map(|(key, sealed_with)| {
                let name = sealed_with.as_deref().map(|fingerprint| names.get(fingerprint).copied());
                (key.as_str(), json!({ "key": name.flatten(), "fingerprint": sealed_with }))
            })
            .collect();
        json!({ "namespace": item.namespace, "name": item.name, "values": values })
    });
    json!({ "items": items.collect::<Vec<_>>() })
}

fn print_values(report: &KeyReport, items: &[WhichItem], args: &ListArgs, global: &Global) -> anyhow::Result<()> {
    if items.is_empty() {
        output::note(if args.all_namespaces {
            "No SealedSecret in the cluster.".to_owned()
        } else {
            format!("No SealedSecret in {}; --all-namespaces looks everywhere.", global.told_namespace())
        });
        return Ok(());
    }
    let names = names(report);
    let mut rows = Vec::new();
    for item in items {
        // One line for each key that sealed a value of the SealedSecret.
        let mut by_key: BTreeMap<Option<&str>, BTreeSet<String>> = BTreeMap::new();
        for (value, sealed_with) in &item.values {
            by_key.entry(sealed_with.as_deref()).or_default().insert(printable(value));
        }
        for (sealed_with, values) in by_key {
            let key = match sealed_with {
                None => styled(BAD, "none unseals it"),
                Some(fingerprint) => {
                    names.get(fingerprint).map_or_else(|| fingerprint.to_owned(), |name| (*name).to_owned())
                }
            };
            let mut row = vec![item.name.clone(), key, values.into_iter().collect::<Vec<_>>().join(", ")];
            if args.all_namespaces {
                row.insert(0, item.namespace.clone());
            }
            rows.push(row);
        }
    }
    let head = ["NAMESPACE", "NAME", "KEY", "VALUES"];
    output::print_table(if args.all_namespaces { &head } else { &head[1..] }, rows)
}
