//! `gitseal keys rotate`.

use std::path::PathBuf;

use anyhow::Context;
use jiff::{SignedDuration, Timestamp};
use sealing::{Certificate, DEFAULT_KEY_BITS, PrivateKey};
use serde_json::json;

use super::backup::Backup;
use super::encryption::Encryption;
use super::secret::KeySecret;
use super::store::Store;
use super::{PREFIX, wait_for};
use crate::controller::{Controller, ControllerAddress};
use crate::global::Global;
use crate::output::{self, Hint};
use crate::time;

/// The certificate begins this long before now, so that it is also valid on machines whose clock is a little slow.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Make a new key, with which new values are sealed
///
/// The key is made on this machine. With --backup, it is first written to an encrypted backup. Then it
/// is created in the cluster, and the command waits until the controller seals with it. Older keys
/// stay, and unseal what was sealed with them.
///
///     gitseal keys rotate --backup keys.age --recipient age1…
///
/// The backup holds all keys, including the new one. Values that were sealed before stay as they are;
/// `gitseal reseal` seals them with the new key.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RotateArgs {
    /// Before the new key is used, write a backup of all keys, including the new one, to this file
    #[arg(long, value_name = "FILE")]
    backup: Option<PathBuf>,

    #[command(flatten)]
    encryption: Encryption,

    /// Replace the backup file if it exists
    #[arg(long, requires = "backup")]
    force: bool,

    /// Size of the new key in bits: 2048, 3072, 4096 or 8192
    #[arg(long, value_name = "BITS", default_value_t = DEFAULT_KEY_BITS)]
    key_size: usize,

    /// How long the new certificate is valid
    #[arg(long, value_name = "DURATION", default_value = "3650d", value_parser = time::parse_duration)]
    valid_for: SignedDuration,

    /// Common name in the new certificate
    #[arg(long, value_name = "NAME", default_value = "")]
    common_name: String,

    /// Prefix of the new Secret's name
    #[arg(long, value_name = "PREFIX", default_value = PREFIX, value_parser = super::store::name)]
    key_prefix: String,

    /// Do not wait until the controller seals with the new key
    #[arg(long)]
    no_wait: bool,

    /// How long to wait
    #[arg(long, value_name = "DURATION", default_value = "1m", value_parser = time::parse_duration)]
    timeout: SignedDuration,

    #[command(flatten)]
    address: ControllerAddress,
}

pub(super) async fn run(args: RotateArgs, global: &Global) -> anyhow::Result<()> {
    if args.backup.is_none() && args.encryption.is_given() {
        return Err(Hint::wrong_usage("no file is named for the backup", "name the file: --backup FILE"));
    }
    if args.backup.as_ref().is_some_and(|file| file.as_os_str() == "-") {
        return Err(Hint::wrong_usage(
            "`keys rotate --backup` needs a file",
            "`gitseal keys backup -` writes to standard output",
        ));
    }
    let backup = args.backup.as_deref().map(|file| Backup::prepare(file, &args.encryption, args.force)).transpose()?;
    // The controller is looked up before anything is written, so that nothing is written if it is not found.
    let controller = if args.no_wait { None } else { Some(Controller::find(&args.address, global).await?) };
    let current = match &controller {
        Some(controller) => Some(controller.certificate().await?),
        None => None,
    };
    let store = Store::open(global).await?;
    let (key, certificate) = generate(&args, current.as_ref())?;
    let mut secret = KeySecret::new(new_name(&args.key_prefix, &certificate), &args.key_prefix, &key, &certificate)?;
    drop(key);
    let keys = if backup.is_some() { store.all(&args.key_prefix).await? } else { Vec::new() };
    if let (Some(backup), Some(file)) = (backup, &args.backup) {
        let mut all = keys;
        all.push(secret);
        backup.write(&all, &store.namespace)?;
        let keys = output::counted(all.len(), "key");
        output::note(format_args!("wrote {keys}, the new one included, to {}", file.display()));
        secret = all.pop().context("the new key is the last one")?;
    }
    create(&store, &secret, args.backup.is_some()).await?;
    let name = secret.metadata.name.clone();
    drop(secret);
    output::note(format_args!("created Secret {}/{name}", store.namespace));
    if args.backup.is_none() {
        output::note("the new key is in no backup yet: run `gitseal keys backup`");
    }
    if let Some(controller) = controller {
        wait(&controller, &certificate, &name, &args).await?;
    }
    report(&name, &store.namespace, &certificate, global, !args.no_wait)
}

/// A new key and its certificate. The new certificate becomes valid after the current one, because the certificate that
/// begins last is used for sealing.
fn generate(args: &RotateArgs, current: Option<&Certificate>) -> anyhow::Result<(PrivateKey, Certificate)> {
    let key = PrivateKey::generate(args.key_size).context("cannot make a key")?;
    let mut not_before = Timestamp::now() - CLOCK_SKEW;
    if let Some(current) = current {
        not_before = not_before.max(current.not_before() + SignedDuration::from_secs(1));
    }
    let certificate = sealing::self_signed(&key, &args.common_name, not_before, args.valid_for)
        .context("cannot make a certificate: check --valid-for and --common-name")?;
    Ok((key, certificate))
}

/// The name that the controller would give the key. No other key ever has this name.
fn new_name(prefix: &str, certificate: &Certificate) -> String {
    format!("{prefix}{}", certificate.name_letters())
}

async fn create(store: &Store, secret: &KeySecret, has_backup: bool) -> anyhow::Result<()> {
    let created = store.create(secret).await;
    let failed = match created {
        Ok(true) => return Ok(()),
        Ok(false) => anyhow::anyhow!("a Secret {} exists", secret.metadata.name),
        Err(error) => error,
    };
    Err(if has_backup {
        failed.context(
            "no key was added; the backup holds a key that the cluster does not have, and nothing was \
                sealed with this key",
        )
    } else {
        failed
    })
}

async fn wait(controller: &Controller, new: &Certificate, name: &str, args: &RotateArgs) -> anyhow::Result<()> {
    let sealing = wait_for(args.timeout, async || {
        let sealing = controller.certificate().await?;
        Ok((sealing.fingerprint() == new.fingerprint()).then_some(()))
    });
    match sealing.await {
        Ok(Some(())) => Ok(()),
        Ok(None) => Err(Hint::error(
            format!("the Secret {name} is there, but the controller still seals with another certificate"),
            "a Sealed Secrets controller reads new keys when it is restarted; `gitseal cert --show` shows the key \
             that new values are sealed with",
        )),
        Err(error) => Err(error.context(format!(
            "the Secret {name} is there, but the controller could not be asked whether it has the key"
        ))),
    }
}

fn report(name: &str, namespace: &str, new: &Certificate, global: &Global, seals: bool) -> anyhow::Result<()> {
    if let Some(format) = global.output {
        return output::print(format.text(&json!({
            "name": name,
            "namespace": namespace,
            "seals": seals,
            "notBefore": new.not_before().to_string(),
            "notAfter": new.not_after().to_string(),
            "fingerprint": new.public_key().fingerprint(),
            "certificateFingerprint": new.fingerprint(),
        }))?);
    }
    let verb = if seals { "seals now" } else { "was created" };
    output::note(format_args!(
        "the new key {verb}: sha256:{}, valid until {}; next: `gitseal reseal`",
        new.public_key().fingerprint(),
        new.not_after()
    ));
    Ok(())
}
