use clap_complete::Shell;

/// Print a shell's completion script
///
/// The script completes commands, flags, and the names of Syncs, Repositories, namespaces and other objects. It runs
/// `gitseal`, which gets the names from the cluster. For example for bash, in ~/.bashrc:
///
///     source <(gitseal completions bash)
///
/// If you write the script to a file, write it again after an upgrade.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionsArgs {
    /// The shell to complete for
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    crate::output::print(crate::completion::script(args.shell)?)
}
