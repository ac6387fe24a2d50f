//! A real Gitea on loopback: a forge with Git over HTTP and SSH, users, deploy keys and an API.

use std::fs;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use localcluster::{ChildGuard, Output, ReservedPort, spawn_supervised};
use serde_json::{Value, json};

use crate::eventually;
use crate::git::WorkTree;
use crate::programs::{http, run};

/// The user that owns all repositories.
const OWNER: &str = "team";
/// The owner's password.
const PASSWORD: &str = "only-for-tests-5Hq2";

/// A running Gitea. Its data are deleted when this is dropped.
pub struct Gitea {
    // Dropped first.
    _running: ChildGuard,
    http: ReservedPort,
    ssh: ReservedPort,
    folder: tempfile::TempDir,
}

impl Gitea {
    /// Starts Gitea on free ports.
    pub async fn start() -> Result<Self> {
        let (program, source) = tokio::task::spawn_blocking(localcluster::parts::gitea).await??;
        let (folder, http, ssh) = (tempfile::tempdir()?, ReservedPort::new()?, ReservedPort::new()?);
        fs::write(folder.path().join("app.ini"), settings(folder.path(), &source, http.number(), ssh.number()))?;
        let of = |arguments: &[&str]| command(&program, folder.path(), arguments);
        run(&mut of(&["migrate"]))?;
        let user =
            ["admin", "user", "create", "--username", OWNER, "--password", PASSWORD, "--email", "team@example.com"];
        run(of(&user).args(["--admin", "--must-change-password=false"]))?;
        let log = folder.path().join("gitea.log");
        let running = spawn_supervised(&of(&["web"]), Output::Log(log.clone()))?;
        let gitea = Self { _running: running, http, ssh, folder };
        eventually("Gitea to answer", || async {
            let ready = gitea.ask("GET", "version", &Value::Null).await;
            tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, gitea.ssh_port())).await?;
            ready.map(drop).with_context(|| fs::read_to_string(&log).unwrap_or_default())
        })
        .await?;
        Ok(gitea)
    }

    /// The port of SSH.
    pub fn ssh_port(&self) -> u16 {
        self.ssh.number()
    }

    /// The URL of a repository for Git over SSH.
    pub fn ssh_url(&self, name: &str) -> String {
        format!("ssh://git@127.0.0.1:{}/{OWNER}/{name}.git", self.ssh_port())
    }

    /// Makes a private repository, and a work tree that pushes to it over HTTP.
    pub async fn create(&self, name: &str) -> Result<WorkTree> {
        let asked = json!({"name": name, "private": true, "default_branch": "main"});
        self.ask("POST", "user/repos", &asked).await?;
        WorkTree::of(&format!("http://{OWNER}:{PASSWORD}@127.0.0.1:{}/{OWNER}/{name}.git", self.http.number()))
    }

    /// Lets a public key read a repository. Returns the number of the key.
    pub async fn add_deploy_key(&self, name: &str, public: &str) -> Result<u64> {
        // No two keys of a repository may have the same title, nor a long one.
        let public = public.trim();
        let title = &public[public.len().saturating_sub(40)..];
        let asked = json!({"title": title, "key": public, "read_only": true});
        let answer = self.ask("POST", &format!("repos/{OWNER}/{name}/keys"), &asked).await?;
        answer["id"].as_u64().context("the key has a number")
    }

    /// Takes a deploy key away.
    pub async fn remove_deploy_key(&self, name: &str, number: u64) -> Result<()> {
        self.ask("DELETE", &format!("repos/{OWNER}/{name}/keys/{number}"), &Value::Null).await.map(drop)
    }

    /// The public key that the SSH server shows, as a line of known_hosts.
    pub fn known_hosts(&self) -> Result<String> {
        let key = self.folder.path().join("data/ssh/gitea.rsa");
        let mut command = Command::new("ssh-keygen");
        let public = run(command.arg("-y").arg("-f").arg(key))?;
        Ok(format!("[127.0.0.1]:{} {}\n", self.ssh_port(), public.trim()))
    }

    /// Sends a request to the API as the owner, and returns the answer.
    async fn ask(&self, method: &str, path: &str, body: &Value) -> Result<Value> {
        let login = STANDARD.encode(format!("{OWNER}:{PASSWORD}"));
        let headers = format!("Authorization: Basic {login}\r\nContent-Type: application/json\r\n");
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let path = format!("/api/v1/{path}");
        let (status, text) = http(Ipv4Addr::LOCALHOST, self.http.number(), method, &path, &headers, &body).await?;
        ensure!((200..300).contains(&status), "{method} {path}: {status} {text}");
        Ok(serde_json::from_str(&text).unwrap_or_default())
    }
}

fn command(program: &Path, folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).arg("--config").arg(folder.join("app.ini")).arg("--work-path").arg(folder);
    // In a container, the tests run as root.
    command.env("GITEA_I_AM_BEING_UNSAFE_RUNNING_AS_ROOT", "true").env("HOME", folder).current_dir(folder);
    command
}

/// The file with the settings.
fn settings(folder: &Path, source: &Path, http: u16, ssh: u16) -> String {
    let path = |name: &str| folder.join(name).display().to_string();
    format!(
        "RUN_MODE = prod\n\
         RUN_USER = {user}\n\
         [server]\nHTTP_ADDR = 127.0.0.1\nHTTP_PORT = {http}\nROOT_URL = http://127.0.0.1:{http}/\nDOMAIN = 127.0.0.1\n\
         START_SSH_SERVER = true\nSSH_LISTEN_HOST = 127.0.0.1\nSSH_LISTEN_PORT = {ssh}\nSSH_PORT = {ssh}\n\
         BUILTIN_SSH_SERVER_USER = git\nSTATIC_ROOT_PATH = {source}\nAPP_DATA_PATH = {data}\nOFFLINE_MODE = true\n\
         [database]\nDB_TYPE = sqlite3\nPATH = {database}\n\
         [repository]\nROOT = {repositories}\n\
         [security]\nINSTALL_LOCK = true\nSECRET_KEY = only-for-tests\n\
         [webhook]\nALLOWED_HOST_LIST = loopback\n\
         [service]\nDISABLE_REGISTRATION = true\n\
         [log]\nMODE = console\nLEVEL = Warn\n\
         [cron.update_checker]\nENABLED = false\n",
        user = std::env::var("USER").unwrap_or_else(|_| "root".to_owned()),
        source = source.display(),
        data = path("data"),
        database = path("gitea.db"),
        repositories = path("repositories"),
    )
}
