use std::path::PathBuf;

use anyhow::Context;

/// Print the manual, or write one page per command
#[derive(clap::Args)]
pub struct ManArgs {
    /// Write gitseal.1 and a page per command into this folder
    #[arg(long, value_name = "FOLDER")]
    dir: Option<PathBuf>,
}

pub fn run(args: &ManArgs) -> anyhow::Result<()> {
    let command = crate::command_line();
    if let Some(dir) = &args.dir {
        let pages = || {
            std::fs::create_dir_all(dir)?;
            clap_mangen::generate_to(command, dir)
        };
        return pages().with_context(|| format!("cannot write the manual to {}", dir.display()));
    }
    let mut page = Vec::new();
    clap_mangen::Man::new(command).render(&mut page)?;
    crate::output::print(String::from_utf8(page)?)
}
