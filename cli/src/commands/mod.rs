//! The subcommands, one file each.

mod adopt;
mod build;
mod cert;
mod completions;
mod diff;
mod events;
mod history;
mod install;
mod keys;
mod lint;
mod man;
mod reseal;
mod resume;
mod seal;
mod sealed_files;
mod status;
mod suspend;
mod sync;
mod test;
mod trace;
mod uninstall;
mod unseal;
mod validate;
mod version;

use std::process::ExitCode;

use crate::global::Global;
use crate::kubeseal::KubesealArgs;

pub use diff::capabilities;
pub use unseal::keys_of;

/// A subcommand. The doc comments are the texts of `--help`.
#[derive(clap::Subcommand)]
pub enum Command {
    Seal(seal::SealArgs),
    Unseal(unseal::UnsealArgs),
    Reseal(reseal::ResealArgs),
    Validate(validate::ValidateArgs),
    Build(build::BuildArgs),
    Lint(lint::LintArgs),
    Test(test::TestArgs),
    Cert(cert::CertArgs),
    /// Do what kubeseal does, with its flags
    Kubeseal(KubesealArgs),
    Keys(keys::KeysArgs),
    Status(status::StatusArgs),
    Trace(trace::TraceArgs),
    History(history::HistoryArgs),
    Events(events::EventsArgs),
    Sync(sync::SyncArgs),
    Suspend(suspend::SuspendArgs),
    Resume(resume::ResumeArgs),
    Diff(diff::DiffArgs),
    Adopt(adopt::AdoptArgs),
    Install(install::InstallArgs),
    Uninstall(uninstall::UninstallArgs),
    Completions(completions::CompletionsArgs),
    Man(man::ManArgs),
    Version(version::VersionArgs),
}

impl Command {
    /// Runs the command to its end.
    pub async fn run(self, global: &Global) -> anyhow::Result<ExitCode> {
        let done = |()| ExitCode::SUCCESS;
        match self {
            Self::Seal(args) => seal::run(args, global).await.map(done),
            Self::Unseal(args) => unseal::run(&args, global).map(done),
            Self::Reseal(args) => reseal::run(args, global).await.map(done),
            Self::Validate(args) => validate::run(args, global).await,
            Self::Build(args) => build::run(&args, global).map(done),
            Self::Lint(args) => lint::run(&args, global),
            Self::Test(args) => test::run(&args, global),
            Self::Cert(args) => cert::run(args, global).await,
            Self::Kubeseal(_) => Err(KubesealArgs::refuse()),
            Self::Keys(args) => keys::run(args, global).await.map(done),
            Self::Status(args) => status::run(args, global).await,
            Self::Trace(args) => trace::run(args, global).await,
            Self::History(args) => history::run(args, global).await.map(done),
            Self::Events(args) => events::run(args, global).await.map(done),
            Self::Suspend(args) => suspend::run(args, global).await,
            Self::Resume(args) => resume::run(args, global).await,
            Self::Sync(args) => sync::run(args, global).await,
            Self::Diff(args) => diff::run(args, global).await,
            Self::Adopt(args) => Box::pin(adopt::run(args, global)).await.map(done),
            Self::Install(args) => Box::pin(install::run(args, global)).await.map(done),
            Self::Uninstall(args) => Box::pin(uninstall::run(args, global)).await.map(done),
            Self::Completions(args) => completions::run(&args).map(done),
            Self::Man(args) => man::run(&args).map(done),
            Self::Version(args) => version::run(&args, global).map(done),
        }
    }

    /// Whether `--output name` can be used with the command: it prints objects of the cluster, which have names.
    pub fn prints_names(&self) -> bool {
        match self {
            Self::Status(_)
            | Self::Sync(_)
            | Self::Suspend(_)
            | Self::Resume(_)
            | Self::Events(_)
            | Self::Build(_)
            | Self::Install(_) => true,
            Self::Keys(args) => args.prints_names(),
            _ => false,
        }
    }

    /// Exit code for an error.
    pub fn failure(&self) -> ExitCode {
        match self {
            // As for diff(1), 1 means that there are differences or problems.
            Self::Diff(_) | Self::Validate(_) | Self::Lint(_) | Self::Test(_) => ExitCode::from(2),
            _ => ExitCode::FAILURE,
        }
    }
}
