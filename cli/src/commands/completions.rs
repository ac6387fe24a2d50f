use clap_complete::Shell;

/// Print a shell's completion script
///
/// For example, for the current user of bash:
///
///     cd ~/.local/share/bash-completion/completions
///     gitseal completions bash > gitseal
#[derive(clap::Args)]
#[command(verbatim_doc_comment)]
pub struct CompletionsArgs {
    /// The shell to complete for
    shell: Shell,
}

pub fn run(args: &CompletionsArgs) -> anyhow::Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut crate::command_line(), "gitseal", &mut script);
    crate::output::print(String::from_utf8(script)?)
}
