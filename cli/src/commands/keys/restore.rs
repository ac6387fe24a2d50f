//! `gitseal keys restore`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use jiff::SignedDuration;
use serde_json::{Value, json};

use super::encryption::Decryption;
use super::secret::{KeyFacts, KeySecret};
use super::store::Store;
use super::{PREFIX, wait_for};
use crate::commands::seal::{read_file, read_stdin};
use crate::commands::unseal::documents::documents;
use crate::controller::{Controller, ControllerAddress};
use crate::global::Global;
use crate::output::{self, GOOD, Hint, WARN, styled};
use crate::time;

/// Restore the keys of a backup into the cluster
///
/// Reads a file that `gitseal keys backup` wrote, or key Secrets in plain YAML or JSON. First it checks that
/// everything in the file is a sealing key with the certificate that belongs to it, and that no other key in the
/// cluster has the same name; otherwise nothing is written. Then it shows which keys it will create, and which of them
/// will seal new values, and asks for confirmation. Everybody who has a copy of such a new key can read the values that
/// it seals. After the confirmation, the command creates the missing keys in the controller's namespace, and waits
/// until the controller uses them. Keys that are already in the cluster stay as they are. The file is decrypted in
/// memory.
///
///     gitseal keys restore keys.age --identity me.txt --dry-run
///     gitseal keys restore keys.age --passphrase
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RestoreArgs {
    /// The backup; `-` is standard input
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    decryption: Decryption,

    /// Restore a key under a new name if another key in the cluster has its name
    #[arg(long)]
    rename: bool,

    /// Create nothing; say what would be created
    #[arg(long)]
    dry_run: bool,

    /// Do not ask for confirmation
    #[arg(long)]
    yes: bool,

    /// Prefix of the names of the key Secrets: the value of the controller's flag --key-prefix
    #[arg(long, value_name = "PREFIX", default_value = PREFIX)]
    key_prefix: String,

    /// Do not wait until the controller has the keys
    #[arg(long)]
    no_wait: bool,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = time::parse_duration)]
    timeout: SignedDuration,

    #[command(flatten)]
    address: ControllerAddress,
}

/// What is done with a key of the backup.
#[derive(Clone, Copy, PartialEq)]
enum Plan {
    Create,
    /// The cluster has the same key under the same name.
    Unchanged,
    /// The cluster has another key under the same name.
    Conflict,
}

struct Entry {
    secret: KeySecret,
    facts: KeyFacts,
    plan: Plan,
}

pub(super) async fn run(args: RestoreArgs, global: &Global) -> anyhow::Result<()> {
    let keys = read(&args)?;
    let store = Store::open(global).await?;
    let mut entries = Vec::new();
    for (mut secret, facts) in keys {
        let mut plan = plan(&store, &secret, &facts).await?;
        if plan == Plan::Conflict && args.rename {
            // The new name is the same every time, so that a second run finds the key that the first run restored.
            secret.metadata.name = format!("{}{}", args.key_prefix, facts.name_letters);
            plan = self::plan(&store, &secret, &facts).await?;
        }
        entries.push(Entry { secret, facts, plan });
    }
    report(&entries, &store, &args, global)?;
    if let Some(entry) = entries.iter().find(|entry| entry.plan == Plan::Conflict) {
        return Err(Hint::error(
            format!("the Secret {} in namespace {} holds another key", entry.secret.metadata.name, store.namespace),
            "nothing was restored; with --rename, the backup's key gets another name, and both keys are used",
        ));
    }
    if args.dry_run {
        return Ok(());
    }
    let new: Vec<&Entry> = entries.iter().filter(|entry| entry.plan == Plan::Create).collect();
    if !new.is_empty() {
        show(&new, &store, &args.key_prefix).await?;
        let instead = "nothing was restored; --yes restores without asking";
        if !args.yes && !output::confirm("Restore these keys?", instead)? {
            return Err(Hint::error("nothing was restored", "you answered no"));
        }
    }
    let mut created = Vec::new();
    for entry in new {
        if !store.create(&entry.secret).await? {
            anyhow::bail!(
                "the Secret {} was created by somebody else meanwhile; run the command again",
                entry.secret.metadata.name
            );
        }
        created.push(entry);
    }
    if args.no_wait || created.is_empty() {
        return Ok(());
    }
    wait(&created, &args, global).await
}

/// The keys of the backup, all of them checked.
fn read(args: &RestoreArgs) -> anyhow::Result<Vec<(KeySecret, KeyFacts)>> {
    let is_stdin = args.file.as_os_str() == "-";
    let name = if is_stdin { "standard input".to_owned() } else { args.file.display().to_string() };
    let bytes = if is_stdin { read_stdin()? } else { read_file(Path::new(&args.file))? };
    // If the user says how the file is decrypted, it must be encrypted.
    let plaintext = if args.decryption.is_given() {
        args.decryption.decrypt(&name, &bytes)?
    } else {
        args.decryption.open(&name, bytes)?
    };
    let keys = keys_in(&name, &plaintext, &args.key_prefix);
    keys.map_err(|error| error.context(Hint::new("nothing was restored", "a backup may contain only sealing keys")))
}

/// The keys in the plaintext of a backup, all of them checked.
pub(super) fn keys_in(name: &str, plaintext: &[u8], prefix: &str) -> anyhow::Result<Vec<(KeySecret, KeyFacts)>> {
    let mut keys: BTreeMap<String, (KeySecret, KeyFacts)> = BTreeMap::new();
    let found = documents(name, plaintext).with_context(|| format!("{name} holds no list of Secrets"))?;
    for document in found {
        let place = document.place.clone();
        let check = KeySecret::take(document).and_then(|secret| {
            let facts = secret.check(prefix)?;
            super::store::name(&secret.metadata.name).map_err(anyhow::Error::msg)?;
            Ok((secret, facts))
        });
        let (secret, facts) = check.with_context(|| format!("{place} cannot be used"))?;
        if let Some((_, other)) = keys.get(&secret.metadata.name)
            && other.fingerprint != facts.fingerprint
        {
            anyhow::bail!("{place}: the backup has two different keys of this name");
        }
        keys.insert(secret.metadata.name.clone(), (secret, facts));
    }
    anyhow::ensure!(!keys.is_empty(), "{name} holds no keys");
    Ok(keys.into_values().collect())
}

async fn plan(store: &Store, secret: &KeySecret, facts: &KeyFacts) -> anyhow::Result<Plan> {
    let Some(live) = store.get(&secret.metadata.name).await? else {
        return Ok(Plan::Create);
    };
    // If the Secret in the cluster cannot be read as a key, it is not known whether it holds the same key. So the
    // Secret is not changed.
    let same = live.check(&secret.metadata.name).is_ok_and(|live| live.fingerprint == facts.fingerprint);
    Ok(if same { Plan::Unchanged } else { Plan::Conflict })
}

fn report(entries: &[Entry], store: &Store, args: &RestoreArgs, global: &Global) -> anyhow::Result<()> {
    let word = |plan| match (plan, args.dry_run) {
        (Plan::Create, true) => "would create",
        (Plan::Create, false) => "create",
        (Plan::Unchanged, _) => "unchanged",
        (Plan::Conflict, _) => "conflict",
    };
    if let Some(format) = global.output {
        let keys: Vec<Value> = entries
            .iter()
            .map(|Entry { secret, facts, plan }| {
                json!({
                    "name": secret.metadata.name, "state": facts.state, "fingerprint": facts.fingerprint,
                    "notBefore": facts.not_before.to_string(), "notAfter": facts.not_after.to_string(),
                    "plan": match plan { Plan::Create => "create", Plan::Unchanged => "unchanged", Plan::Conflict => "conflict" },
                })
            })
            .collect();
        return output::print(
            format.text(&json!({ "namespace": store.namespace, "dryRun": args.dry_run, "keys": keys }))?,
        );
    }
    for Entry { secret, facts, plan } in entries {
        let style = match plan {
            Plan::Create => GOOD,
            Plan::Unchanged => output::FAINT,
            Plan::Conflict => WARN,
        };
        let elsewhere = secret.metadata.namespace.as_ref().filter(|namespace| **namespace != store.namespace);
        output::note(format_args!(
            "{} Secret {}/{} ({}, sealing since {}{})",
            styled(style, word(*plan)),
            store.namespace,
            secret.metadata.name,
            facts.state,
            facts.not_before,
            elsewhere.map(|namespace| format!("; the backup is from namespace {namespace}")).unwrap_or_default()
        ));
    }
    Ok(())
}

/// Shows the keys that are about to be created, and which key will seal from then on.
async fn show(new: &[&Entry], store: &Store, prefix: &str) -> anyhow::Result<()> {
    for Entry { secret, facts, .. } in new {
        output::note(format_args!(
            "  {}  sha256:{}  valid until {}  ({})",
            facts.state, facts.fingerprint, facts.not_after, secret.metadata.name
        ));
    }
    let of_cluster = store.all(prefix).await?;
    let of_cluster: Vec<KeyFacts> = of_cluster.iter().filter_map(|secret| secret.check(prefix).ok()).collect();
    let is_active = |facts: &&KeyFacts| facts.state == "active";
    let newest = |facts: &&KeyFacts| facts.not_before;
    let sealing = of_cluster.iter().filter(is_active).max_by_key(newest);
    match new.iter().map(|entry| &entry.facts).filter(is_active).max_by_key(newest) {
        Some(restored) if sealing.is_none_or(|sealing| sealing.not_before < restored.not_before) => {
            output::warn(format_args!(
                "new values will be sealed with sha256:{}, a key of the backup: its certificate is the newest, and anybody who has its private key can read these values",
                restored.fingerprint
            ));
        }
        _ => output::note(match sealing {
            Some(sealing) => format!("new values are sealed with the key sha256:{}, as before", sealing.fingerprint),
            None => "none of the restored keys is active: the controller makes a key to seal with".to_owned(),
        }),
    }
    Ok(())
}

/// Waits until the controller lists every created key that is not retired.
async fn wait(created: &[&Entry], args: &RestoreArgs, global: &Global) -> anyhow::Result<()> {
    let in_use: Vec<&str> = created
        .iter()
        .filter(|entry| matches!(entry.facts.state.as_str(), "active" | "compromised"))
        .map(|entry| entry.facts.fingerprint.as_str())
        .collect();
    let hint = "the Secrets were created; with --no-wait, the command does not ask the controller";
    let controller = Controller::find(&args.address, global).await.map_err(|error| {
        error.context(Hint::new("the keys were restored, but the controller cannot be found", hint))
    })?;
    let listed = wait_for(args.timeout, async || {
        let report = controller.keys().await?;
        let has = |fingerprint: &&str| report.keys.iter().any(|key| key.fingerprint == **fingerprint);
        Ok(in_use.iter().all(has).then(|| report.keys.iter().find(|key| key.seals).map(|key| key.name.clone())))
    });
    match listed.await {
        Ok(Some(sealing)) => {
            output::note(format_args!(
                "the controller has the keys; {} seals new values",
                sealing.as_deref().unwrap_or("none of the keys")
            ));
            Ok(())
        }
        Ok(None) => Err(Hint::error(
            "the keys were restored, but the controller does not list them yet",
            "the controller's log says why",
        )),
        Err(error) => Err(error.context(Hint::new(
            "the keys were restored, but the controller could not be asked whether it has them",
            hint,
        ))),
    }
}
