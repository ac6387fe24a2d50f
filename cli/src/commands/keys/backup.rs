//! `gitseal keys backup`.

mod check;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::json;

use super::PREFIX;
use super::encryption::{Encryption, Lock};
use super::secret::{KeySecret, list};
use super::store::Store;
use crate::edit;
use crate::global::Global;
use crate::output::{self, Hint};

/// Write every sealing key into one encrypted file
///
/// The file is encrypted with age and holds a `v1 List` of the key Secrets in YAML, so you can use it
/// without gitseal:
///
///     gitseal keys backup keys.age --recipient age1…
///     gitseal keys backup keys.age --passphrase
///     age -d -i me.txt keys.age | kubectl apply -f -
///
/// The file holds all keys: active, compromised and retired ones. The plaintext is never written to a disk.
///
/// With --check, nothing is written. The command decrypts the file, checks every key in it, and says
/// whether a key of the cluster is missing from it.
///
///     gitseal keys backup --check keys.age --identity me.txt
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub(super) struct BackupArgs {
    /// The file to write, or to check; `-` is standard output
    #[arg(value_name = "FILE")]
    file: PathBuf,

    #[command(flatten)]
    encryption: Encryption,

    /// Write nothing: check the backup in this file
    #[arg(long, conflicts_with_all = ["recipient", "recipients_file", "armor", "force"])]
    check: bool,

    /// Decrypt with the age identities in this file, for --check; can be given several times
    #[arg(short, long, value_name = "FILE", requires = "check", conflicts_with_all = ["passphrase", "passphrase_file"])]
    identity: Vec<PathBuf>,

    /// Replace the file if it exists
    #[arg(long)]
    force: bool,

    /// Prefix of the names of the key Secrets: the value of the controller's flag --key-prefix
    #[arg(long, value_name = "PREFIX", default_value = PREFIX)]
    key_prefix: String,
}

pub(super) async fn run(args: BackupArgs, global: &Global) -> anyhow::Result<()> {
    if args.check {
        return check::run(args, global).await;
    }
    let backup = Backup::prepare(&args.file, &args.encryption, args.force)?;
    let store = Store::open(global).await?;
    let keys = store.all(&args.key_prefix).await?;
    if keys.is_empty() {
        return Err(Hint::error(
            format!("namespace {} has no sealing keys", store.namespace),
            "name the controller's namespace: --controller-namespace",
        ));
    }
    for key in &keys {
        if let Err(error) = key.check(&args.key_prefix) {
            output::warn(format_args!(
                "{}: {}; the key is in the backup anyway",
                key.metadata.name,
                output::one_line(&error)
            ));
        }
    }
    backup.write(&keys, &store.namespace)?;
    match global.output {
        Some(format) if args.file.as_os_str() != "-" => {
            let names: Vec<_> =
                keys.iter().map(|key| json!({ "name": key.metadata.name, "state": key.state() })).collect();
            output::print(format.text(&json!({ "file": args.file, "keys": names }))?)
        }
        _ => {
            let count = keys.len();
            let keys = if count == 1 { "key" } else { "keys" };
            output::note(format_args!("{count} {keys} of namespace {} in {}", store.namespace, args.file.display()));
            Ok(())
        }
    }
}

/// A file that can be written, and the recipients that can decrypt it.
pub(super) struct Backup<'f> {
    file: &'f Path,
    lock: Lock,
    armor: bool,
}

impl<'f> Backup<'f> {
    /// Checks everything that could make the backup fail, before a key is read.
    pub(super) fn prepare(file: &'f Path, encryption: &Encryption, force: bool) -> anyhow::Result<Self> {
        let is_stdout = file.as_os_str() == "-";
        if is_stdout && !encryption.armor && std::io::stdout().is_terminal() {
            return Err(Hint::error("an age file is binary and cannot be written to a terminal", "add --armor"));
        }
        if !is_stdout && !force && file.exists() {
            return Err(Hint::error(
                format!("{} exists already, and is not replaced without --force", file.display()),
                "choose another name, or add --force",
            ));
        }
        let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        if !is_stdout && !folder.is_dir() {
            return Err(Hint::error(format!("there is no folder {}", folder.display()), "make it first"));
        }
        Ok(Self { file, lock: encryption.lock()?, armor: encryption.armor })
    }

    /// Encrypts and writes the keys. The file is written completely or not at all.
    pub(super) fn write(self, keys: &[KeySecret], namespace: &str) -> anyhow::Result<()> {
        let plaintext = list(keys, namespace)?;
        let encrypted = self.lock.encrypt(plaintext.as_bytes(), self.armor)?;
        if self.file.as_os_str() == "-" {
            let mut out = std::io::stdout().lock();
            return out.write_all(&encrypted).and_then(|()| out.flush()).context("cannot write the backup");
        }
        edit::create(self.file, &encrypted)
    }
}
