//! `gitseal keys`.

mod backup;
pub(in crate::commands) mod encryption;
mod list;
mod restore;
mod retire;
mod rotate;
mod secret;
mod store;

use jiff::{SignedDuration, Timestamp};

use crate::global::Global;

/// Manage the sealing keys
///
/// The controller unseals values with these keys. Each is a Secret in the controller's namespace (--controller-namespace).
/// See docs/keys.md.
#[derive(clap::Args)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct KeysArgs {
    #[command(subcommand)]
    command: KeysCommand,
}

#[derive(clap::Subcommand)]
enum KeysCommand {
    List(list::ListArgs),
    Rotate(rotate::RotateArgs),
    Backup(backup::BackupArgs),
    Restore(restore::RestoreArgs),
    Retire(retire::RetireArgs),
}

impl KeysArgs {
    /// Whether the command prints objects of the cluster, so that it can print their names (`-o name`).
    pub fn prints_names(&self) -> bool {
        matches!(self.command, KeysCommand::List(_))
    }
}

pub async fn run(args: KeysArgs, global: &Global) -> anyhow::Result<()> {
    match args.command {
        KeysCommand::List(args) => list::run(args, global).await,
        KeysCommand::Rotate(args) => rotate::run(args, global).await,
        KeysCommand::Backup(args) => backup::run(args, global).await,
        KeysCommand::Restore(args) => restore::run(args, global).await,
        KeysCommand::Retire(args) => retire::run(args, global).await,
    }
}

/// Prefix of the name of a key's Secret. It is also the whole name of the only key in the first releases of Sealed
/// Secrets.
const PREFIX: &str = "sealed-secrets-key";

/// The beginning of a fingerprint, as tables show it. It is enough to distinguish keys. `-o json` has the whole
/// fingerprint.
fn shown_fingerprint(fingerprint: &str) -> String {
    format!("sha256:{}", fingerprint.get(..16).unwrap_or(fingerprint))
}

/// Asks every half second until there is a result or the time is over.
async fn wait_for<T>(
    timeout: SignedDuration,
    mut ask: impl AsyncFnMut() -> anyhow::Result<Option<T>>,
) -> anyhow::Result<Option<T>> {
    const PAUSE: std::time::Duration = std::time::Duration::from_millis(500);
    let start = Timestamp::now();
    loop {
        let answer = ask().await;
        let is_over = Timestamp::now().duration_since(start) >= timeout;
        match answer {
            Ok(None) | Err(_) if !is_over => tokio::time::sleep(PAUSE).await,
            answer => return answer,
        }
    }
}
