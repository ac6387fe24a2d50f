use clap_complete::Shell;

/// Print a shell's completion script
///
/// Commands and flags are completed, and names: of Syncs, Repositories, namespaces and others, which
/// the script asks `gitseal` for, and that the cluster. For example for bash, in ~/.bashrc:
///
///     source <(gitseal completions bash)
///
/// In a file of its own it has to be written anew after an upgrade.
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionsArgs {
    /// The shell to complete for
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    crate::output::print(crate::completion::script(args.shell)?)
}
