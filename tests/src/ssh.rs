//! A server of Git over SSH on a loopback address, with deploy keys.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use localcluster::{ChildGuard, Output, ReservedPort, spawn_supervised};
use serde_json::json;

use crate::git::WorkTree;
use crate::programs::run;
use crate::{eventually, hunt};

/// A private key in a file's form, and its public key as one line.
pub struct KeyPair {
    /// The private key.
    pub private: String,
    /// The public key, with a line break at the end.
    pub public: String,
}

impl KeyPair {
    /// Makes a key with the real `ssh-keygen`. From now on, the plaintext hunt searches for the private key and its passphrase.
    pub fn new(arguments: &[&str], passphrase: &str) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let file = folder.path().join("identity");
        let mut command = Command::new("ssh-keygen");
        run(command.args(["-q", "-C", "", "-N", passphrase]).args(arguments).arg("-f").arg(&file))?;
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).context("read the key");
        let pair = Self { private: read("identity")?, public: read("identity.pub")? };
        for line in pair.private.lines().filter(|line| !line.starts_with('-')) {
            hunt::known(line);
        }
        hunt::known(passphrase);
        Ok(pair)
    }

    /// A key of the type ed25519 without a passphrase.
    pub fn ed25519() -> Result<Self> {
        Self::new(&["-t", "ed25519"], "")
    }
}

/// How a server behaves.
#[derive(Clone, Copy, Debug, Default)]
pub struct SshOptions {
    /// The server ignores all variables, as OpenSSH does by default. So it speaks the oldest version of Git's protocol.
    pub ignores_variables: bool,
    /// The keys of a connection are renewed after each 64 KiB.
    pub renews_keys: bool,
    /// What the server does instead of serving, as in `parts/sshgit/main.go`; empty for nothing.
    pub trouble: &'static str,
    /// The server shows a certificate for this name, and no plain key.
    pub certified_for: Option<&'static str>,
}

/// A running server. Its repositories are deleted when this is dropped.
pub struct SshServer {
    // Dropped first.
    _running: ChildGuard,
    port: ReservedPort,
    folder: tempfile::TempDir,
}

impl SshServer {
    /// Starts a server on a free port. Its host key is of the type ed25519.
    pub async fn start(options: SshOptions) -> Result<Self> {
        let program = tokio::task::spawn_blocking(localcluster::parts::sshgit).await??;
        let (folder, port) = (tempfile::tempdir()?, ReservedPort::new()?);
        let path = |name: &str| folder.path().join(name);
        for name in ["host", "authority"] {
            let mut command = Command::new("ssh-keygen");
            run(command.args(["-q", "-C", "", "-N", "", "-t", "ed25519", "-f"]).arg(path(name)))?;
        }
        if let Some(name) = options.certified_for {
            let mut command = Command::new("ssh-keygen");
            run(command
                .args(["-q", "-h", "-I", "a server", "-n", name, "-s"])
                .arg(path("authority"))
                .arg(path("host.pub")))?;
        }
        fs::write(path("authorized"), "")?;
        fs::create_dir(path("repositories"))?;
        let settings = json!({
            "address": format!("127.0.0.1:{}", port.number()), "hostKeys": [path("host")], "authorized": path("authorized"),
            "root": path("repositories"), "ignores": options.ignores_variables, "rekeys": options.renews_keys,
            "trouble": options.trouble,
        });
        fs::write(path("settings.json"), settings.to_string())?;
        let mut command = Command::new(program);
        command.arg(path("settings.json")).env("GIT_CONFIG_GLOBAL", "/dev/null").current_dir(folder.path());
        let running = spawn_supervised(&command, Output::Log(path("log")))?;
        let server = Self { _running: running, port, folder };
        eventually("the SSH server to listen", || async {
            tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server.port())).await?;
            Ok(())
        })
        .await?;
        Ok(server)
    }

    /// The port.
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// Makes an empty repository and a work tree, which pushes to the repository's folder.
    pub fn create(&self, name: &str) -> Result<WorkTree> {
        WorkTree::create(self.folder.path().join("repositories").join(format!("{name}.git")))
    }

    /// The URL of a repository, whether it exists or not.
    pub fn url(&self, name: &str) -> String {
        format!("ssh://git@127.0.0.1:{}/{name}.git", self.port())
    }

    /// From now on, only this public key may log in, and read this repository only.
    pub fn authorize(&self, public: &str, repository: &str) -> Result<()> {
        Ok(fs::write(self.folder.path().join("authorized"), format!("{} {repository}\n", public.trim()))?)
    }

    /// The line of `known_hosts` for this server.
    pub fn known_hosts(&self) -> Result<String> {
        Ok(format!("[127.0.0.1]:{} {}", self.port(), self.read("host.pub")?))
    }

    /// The line of `known_hosts` for the authority that signs the certificate of this server.
    pub fn authority(&self) -> Result<String> {
        Ok(format!("@cert-authority [127.0.0.1]:{} {}", self.port(), self.read("authority.pub")?))
    }

    /// How often the server did something, by the first words of the lines that it wrote: `connected`, `closed`, `login`, `refused`, `run`
    /// and `path`.
    pub fn count(&self, words: &str) -> Result<usize> {
        Ok(self.log()?.lines().filter(|line| line.starts_with(words)).count())
    }

    /// What the server wrote.
    pub fn log(&self) -> Result<String> {
        self.read("log")
    }

    /// A folder that is deleted with the server.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    fn read(&self, name: &str) -> Result<String> {
        let path: PathBuf = self.folder.path().join(name);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }
}
