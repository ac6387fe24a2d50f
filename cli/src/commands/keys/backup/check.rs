//! `gitseal keys backup --check`.

use serde_json::{Value, json};

use super::BackupArgs;
use crate::commands::keys::encryption::Decryption;
use crate::commands::keys::restore::keys_in;
use crate::commands::keys::secret::KeyFacts;
use crate::commands::keys::shown_fingerprint;
use crate::commands::keys::store::Store;
use crate::commands::seal::read_file;
use crate::global::Global;
use crate::output::{self, Hint};

/// Checks every key of a backup, and finds the keys of the cluster that are not in the backup, if the cluster's keys
/// can be read.
pub(super) async fn run(args: BackupArgs, global: &Global) -> anyhow::Result<()> {
    let name = args.file.display().to_string();
    let decryption = Decryption::with(args.identity, &args.encryption);
    let plaintext = decryption.open(&name, read_file(&args.file)?)?;
    let keys = keys_in(&name, &plaintext, &args.key_prefix);
    let keys = keys.map_err(|error| {
        error.context(Hint::new(format!("{name} is not a usable backup"), "make another one: `gitseal keys backup`"))
    })?;
    drop(plaintext);
    let in_file: Vec<_> = keys.into_iter().map(|(secret, facts)| (secret.metadata.name, facts)).collect();
    let of_cluster = of_cluster(&args.key_prefix, global).await;
    let missing = of_cluster.as_ref().map(|all| {
        let is_missing =
            |(_, facts): &&(String, KeyFacts)| !in_file.iter().any(|(_, key)| key.fingerprint == facts.fingerprint);
        all.iter().filter(is_missing).collect::<Vec<_>>()
    });
    if let Some(format) = global.output {
        let names = |all: &Vec<&(String, KeyFacts)>| all.iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        let keys: Vec<Value> = in_file.iter().map(described).collect();
        let missing = missing.as_ref().ok().map(names);
        output::print(format.text(&json!({ "file": args.file, "keys": keys, "missing": missing }))?)?;
    } else {
        let row = |(name, facts): &(String, KeyFacts)| {
            let KeyFacts { state, fingerprint, not_after, .. } = facts;
            vec![name.clone(), state.clone(), not_after.to_string(), shown_fingerprint(fingerprint)]
        };
        output::print_table(&["NAME", "STATE", "VALID UNTIL", "FINGERPRINT"], in_file.iter().map(row).collect())?;
    }
    let missing = match missing {
        Ok(missing) => missing,
        Err(error) => {
            output::warn(format_args!(
                "it is not known whether a key of the cluster is missing from the backup: {}",
                output::one_line(error)
            ));
            return Ok(());
        }
    };
    if missing.is_empty() {
        output::note(format_args!("{name} has every sealing key of the cluster"));
        return Ok(());
    }
    let names: Vec<_> = missing.iter().map(|(name, _)| name.as_str()).collect();
    Err(Hint::error(
        format!("{name} lacks keys of the cluster: {}", names.join(", ")),
        "make another backup: `gitseal keys backup`",
    ))
}

fn described((name, facts): &(String, KeyFacts)) -> Value {
    json!({
        "name": name, "fingerprint": facts.fingerprint, "state": facts.state,
        "notBefore": facts.not_before.to_string(), "notAfter": facts.not_after.to_string(),
    })
}

/// The names and fingerprints of the keys in the cluster, as far as they can be read.
async fn of_cluster(prefix: &str, global: &Global) -> anyhow::Result<Vec<(String, KeyFacts)>> {
    let store = Store::open(global).await?;
    let all = store.all(prefix).await?;
    Ok(all.iter().filter_map(|key| Some((key.metadata.name.clone(), key.check(prefix).ok()?))).collect())
}
