//! Where a reader sits: a home of his own, the programs that the pages name, and a clone of his repository.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result};
use harness::{
    Plane,
    git::{GitServer, ServerOptions, WorkTree},
    programs,
};
use localcluster::parts;
use tempfile::TempDir;

/// A reader's machine.
pub(super) struct Desk {
    pub(super) home: TempDir,
    pub(super) server: GitServer,
    /// Where every command is run.
    pub(super) tree: WorkTree,
    /// Who backups are encrypted to; the identity is `me.txt` of the work tree.
    pub(super) recipient: String,
}

impl Desk {
    /// A desk whose kubectl talks to this cluster.
    pub(super) fn new(plane: &Plane) -> Result<Self> {
        let home = tempfile::tempdir()?;
        let server = GitServer::new(ServerOptions::default())?;
        let tree = server.create("fleet")?;
        for folder in ["bin", "tools", ".kube"] {
            fs::create_dir(home.path().join(folder))?;
        }
        let age = parts::age()?;
        let gitseal = programs::folder()?.join("gitseal");
        for (name, program) in [
            ("bin/gitseal", gitseal),
            ("tools/kubectl", parts::kubectl()?),
            ("tools/kubeseal", parts::kubeseal()?),
            ("tools/age", age.join("age")),
            ("tools/age-keygen", age.join("age-keygen")),
        ] {
            symlink(program, home.path().join(name))?;
        }
        fs::copy(plane.cluster.kubeconfig(), home.path().join(".kube/config"))?;
        fs::write(home.path().join(".gitconfig"), "[user]\nname = Reader\nemail = reader@example.com\n")?;
        let desk = Self { home, server, tree, recipient: String::new() };
        desk.program("aws", "cat > uploaded.age")?;
        programs::run(desk.command("age-keygen").args(["-o", "me.txt"]))?;
        let recipient = programs::run(desk.command("age-keygen").args(["-y", "me.txt"]))?.trim().to_owned();
        desk.tree.write("team.txt", &recipient)?;
        Ok(Self { recipient, ..desk })
    }

    /// A program of the machine, in the words of a shell.
    fn program(&self, name: &str, script: &str) -> Result<()> {
        let path = self.home.path().join("tools").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    /// A command of the reader, in his work tree, with nothing of whoever runs the tests.
    pub(super) fn command(&self, program: &str) -> Command {
        let home = self.home.path();
        let path = format!("{0}/bin:{0}/tools:/usr/local/bin:/usr/bin:/bin", home.display());
        // `env`, so that the program is looked for where the reader has it.
        let mut command = Command::new("/usr/bin/env");
        command.args(["-i", &format!("PATH={path}"), &format!("HOME={}", home.display()), "LANG=C.UTF-8", "TERM=dumb"]);
        command.arg(program).current_dir(self.tree.path());
        command
    }

    /// Runs a line of shell that no page has; what it prints.
    pub(super) async fn sh(&self, line: &str) -> Result<String> {
        let mut command = self.command("bash");
        command.args(["-eu", "-o", "pipefail", "-c", line]);
        tokio::task::spawn_blocking(move || programs::run(&mut command)).await?
    }

    /// The path of a file in the home.
    pub(super) fn in_home(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// The text of a file in the work tree.
    pub(super) fn read(&self, name: &str) -> Result<String> {
        let path: PathBuf = self.tree.path().join(name);
        fs::read_to_string(&path).with_context(|| Path::display(&path).to_string())
    }
}
