//! Git over SSH with the real server of OpenSSH, if this machine has it: each algorithm alone.

use std::{fs, net::Ipv4Addr, path::Path, process::Command, time::Duration};

use anyhow::{Context, Result, ensure};
use gitstore::{Cancel, Credentials, FetchRequest, GitStore, Reference, RepositoryKey, StoreOptions};
use harness::{eventually, git::WorkTree, programs, ssh::KeyPair};
use localcluster::{ChildGuard, Output, ReservedPort, spawn_supervised};

/// Where Debian, Fedora, Alpine and Arch have the program. It must be started by its whole path.
const PROGRAMS: [&str; 2] = ["/usr/sbin/sshd", "/usr/bin/sshd"];

struct Sshd {
    _running: ChildGuard,
    port: ReservedPort,
}

impl Sshd {
    async fn start(program: &str, folder: &Path, setting: &str) -> Result<Self> {
        let port = ReservedPort::new()?;
        let path = |name: &str| folder.join(name).display().to_string();
        let settings = format!(
            "{setting}\nListenAddress 127.0.0.1\nPort {}\nHostKey {}\nHostKey {}\nHostKey {}\nAuthorizedKeysFile {}\n\
             PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\n",
            port.number(),
            path("ed25519"),
            path("ecdsa"),
            path("rsa"),
            path("authorized"),
        );
        fs::write(folder.join("settings"), settings)?;
        let mut command = Command::new(program);
        command.args(["-D", "-e", "-f"]).arg(folder.join("settings"));
        let running = spawn_supervised(&command, Output::Log(folder.join("log")))?;
        let server = Self { _running: running, port };
        eventually("sshd to listen", || async {
            tokio::net::TcpStream::connect((Ipv4Addr::LOCALHOST, server.port.number())).await?;
            Ok(())
        })
        .await
        .with_context(|| fs::read_to_string(folder.join("log")).unwrap_or_default())?;
        Ok(server)
    }
}

#[tokio::test]
async fn each_algorithm_of_openssh_is_enough_alone() -> Result<()> {
    let Some(program) = PROGRAMS.into_iter().find(|program| Path::new(program).exists()) else {
        return harness::skip("it has no sshd");
    };
    let folder = tempfile::tempdir()?;
    let path = |name: &str| folder.path().join(name);
    // If root runs it, sshd needs this folder.
    let _ = fs::create_dir("/run/sshd");
    let key = KeyPair::ed25519()?;
    fs::write(path("authorized"), &key.public)?;
    let mut public = Vec::new();
    for kind in ["ed25519", "ecdsa", "rsa"] {
        let pair = KeyPair::new(&["-t", kind], "")?;
        fs::write(path(kind), &pair.private)?;
        programs::run(Command::new("chmod").arg("600").arg(path(kind)))?;
        public.push(pair.public);
    }
    let tree = WorkTree::create(path("app.git"))?;
    tree.write("a.txt", "text")?;
    let commit = tree.publish("one")?;
    let user = programs::run(Command::new("id").arg("-un"))?;
    let options = StoreOptions { ssh: programs::folder()?.join("gitseal-ssh"), ..Default::default() };
    for (number, setting) in [
        "KexAlgorithms curve25519-sha256",
        "KexAlgorithms ecdh-sha2-nistp256",
        "KexAlgorithms ecdh-sha2-nistp521",
        "KexAlgorithms diffie-hellman-group14-sha256",
        "KexAlgorithms diffie-hellman-group16-sha512",
        "KexAlgorithms diffie-hellman-group-exchange-sha256",
        "HostKeyAlgorithms ssh-ed25519",
        "HostKeyAlgorithms ecdsa-sha2-nistp256",
        "HostKeyAlgorithms rsa-sha2-512",
        "HostKeyAlgorithms rsa-sha2-256",
        "Ciphers aes256-gcm@openssh.com",
        "Ciphers chacha20-poly1305@openssh.com",
        "Ciphers aes256-ctr\nMACs hmac-sha2-256-etm@openssh.com",
        "Ciphers aes128-ctr\nMACs hmac-sha2-512",
        "AcceptEnv GIT_PROTOCOL",
        "MaxSessions 1",
    ]
    .into_iter()
    .enumerate()
    {
        let server = Sshd::start(program, folder.path(), setting).await?;
        let port = server.port.number().to_string();
        let url = format!("ssh://{}@127.0.0.1:{port}{}", user.trim(), path("app.git").display());
        let hosts: String = public.iter().map(|key| format!("[127.0.0.1]:{port} {key}")).collect();
        let credentials = Credentials::from_secret(&url, |name| match name {
            "identity" => Some(key.private.as_bytes()),
            "known_hosts" => Some(hosts.as_bytes()),
            _ => None,
        })?;
        let store = GitStore::new(path(&format!("store-{number}")), options.clone())?;
        let fetched = store.fetch(&FetchRequest {
            key: RepositoryKey { namespace: "team".into(), name: "app".into() },
            url,
            reference: Reference::Branch("main".into()),
            credentials,
            fetched: Vec::new(),
            trusted: None,
            timeout: Duration::from_secs(60),
            cancel: Cancel::new(),
        });
        let fetched =
            fetched.with_context(|| format!("{setting}: {}", fs::read_to_string(path("log")).unwrap_or_default()))?;
        ensure!(fetched.to_string() == format!("main@sha1:{commit}"), "{setting}: {fetched}");
    }
    Ok(())
}
