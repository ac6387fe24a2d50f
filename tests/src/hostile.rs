//! Repositories whose content is much larger in memory than on the disk.

use std::{
    io::Write as _,
    process::{Command, Stdio},
};

use anyhow::{Context, Result, ensure};

use crate::git::WorkTree;

/// Memory of the Pod in `deploy/manifests`, in bytes.
pub const POD: u64 = 512 << 20;

/// Writes 60 files of 1.4 MB into the folder `hostile`; their objects would take 2.7 GiB.
pub fn write_brackets(tree: &WorkTree) -> Result<()> {
    let list = vec!["{}"; 460_000].join(",");
    for number in 0..60 {
        let object = format!("apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: brackets-{number}\nbad: [{list}]\n");
        tree.write(&format!("hostile/{number}.yaml"), object)?;
    }
    Ok(())
}

/// Creates the branch `deltas`. Its pack of some hundred kilobytes has four files of 100 MB, three of them as deltas.
pub fn push_deltas(tree: &WorkTree) -> Result<()> {
    const BYTES: usize = 100_000_000;
    let mut git =
        Command::new("git").args(["fast-import", "--quiet"]).current_dir(tree.bare()).stdin(Stdio::piped()).spawn()?;
    let mut input = git.stdin.take().context("an input")?;
    let mut file = vec![0; BYTES];
    for number in 1..=4_u8 {
        file[BYTES - 1] = number;
        writeln!(input, "blob\nmark :{number}\ndata {BYTES}")?;
        input.write_all(&file)?;
        writeln!(input)?;
    }
    writeln!(input, "commit refs/heads/deltas\ncommitter Test <test@example.com> 0 +0000\ndata 1\nx")?;
    for number in 1..=4 {
        writeln!(input, "M 100644 :{number} {number}.bin")?;
    }
    drop(input);
    ensure!(git.wait()?.success(), "git fast-import");
    Ok(())
}
