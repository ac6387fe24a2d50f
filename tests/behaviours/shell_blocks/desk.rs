//! The machine of a reader of the documentation: a home directory, the programs that the pages use, and a clone of a
//! repository.

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
pub(crate) struct Desk {
    pub(crate) home: TempDir,
    pub(crate) server: GitServer,
    /// The folder in which every command runs.
    pub(crate) tree: WorkTree,
    /// The age recipient for backups. The identity is in `me.txt` in the work tree.
    pub(crate) recipient: String,
}

impl Desk {
    /// Makes a machine whose kubectl uses this cluster.
    pub(crate) fn new(plane: &Plane) -> Result<Self> {
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

    /// Adds a program to the machine, as a shell script.
    fn program(&self, name: &str, script: &str) -> Result<()> {
        let path = self.home.path().join("tools").join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n"))?;
        Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
    }

    /// A command that runs in the work tree, without the environment of the user who runs the tests.
    pub(crate) fn command(&self, program: &str) -> Command {
        let home = self.home.path();
        let path = format!("{0}/bin:{0}/tools:/usr/local/bin:/usr/bin:/bin", home.display());
        // `env` looks for the program in the PATH that it sets, and not in that of the test.
        let mut command = Command::new("/usr/bin/env");
        command.args(["-i", &format!("PATH={path}"), &format!("HOME={}", home.display()), "LANG=C.UTF-8", "TERM=dumb"]);
        command.arg(program).current_dir(self.tree.path());
        command
    }

    /// Runs a line of shell that is not from the documentation. Returns its output.
    pub(crate) async fn sh(&self, line: &str) -> Result<String> {
        let mut command = self.command("bash");
        command.args(["-eu", "-o", "pipefail", "-c", line]);
        tokio::task::spawn_blocking(move || programs::run(&mut command)).await?
    }

    /// The path of a file in the home directory.
    pub(crate) fn in_home(&self, name: &str) -> String {
        self.home.path().join(name).display().to_string()
    }

    /// The text of a file in the work tree.
    pub(crate) fn read(&self, name: &str) -> Result<String> {
        let path: PathBuf = self.tree.path().join(name);
        fs::read_to_string(&path).with_context(|| Path::display(&path).to_string())
    }
}
