//! What an SSH server that misbehaves can do to a fetch, and what the process that speaks SSH can do. No control plane is needed.

use std::{
    fs,
    io::Write as _,
    net::{Ipv4Addr, TcpListener},
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use gitstore::{
    Cancel, Credentials, FetchError, FetchRequest, GitStore, Reference, RepositoryKey, Revision, StoreOptions,
};
use harness::{
    eventually, programs,
    ssh::{KeyPair, SshOptions, SshServer},
};

/// A store, and a program to speak SSH that has a name of its own, so that its processes can be found.
struct Store {
    git: GitStore,
    program: PathBuf,
    folder: tempfile::TempDir,
    key: KeyPair,
}

impl Store {
    fn new(transfer_bytes: u64) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let program = folder.path().join("gitseal-ssh");
        symlink(programs::folder()?.join("gitseal-ssh"), &program)?;
        let options = StoreOptions { ssh: program.clone(), transfer_bytes, ..Default::default() };
        let git = GitStore::new(folder.path().join("store"), options)?;
        Ok(Self { git, program, folder, key: KeyPair::ed25519()? })
    }

    fn fetch(
        &self,
        url: &str,
        hosts: &str,
        timeout: Duration,
        cancel: &Cancel,
    ) -> std::result::Result<Revision, FetchError> {
        let credentials = Credentials::from_secret(url, |name| match name {
            "identity" => Some(self.key.private.as_bytes()),
            "known_hosts" => Some(hosts.as_bytes()),
            _ => None,
        })?;
        self.git.fetch(&FetchRequest {
            key: RepositoryKey { namespace: "team".into(), name: "app".into() },
            url: url.to_owned(),
            reference: Reference::Branch("main".into()),
            credentials,
            fetched: Vec::new(),
            trusted: None,
            timeout,
            cancel: cancel.clone(),
        })
    }

    /// Fetches from a server that lets the key of this store read `team/app`.
    fn fetch_from(&self, server: &SshServer, timeout: Duration) -> Result<std::result::Result<Revision, FetchError>> {
        server.authorize(&self.key.public, "team/app")?;
        Ok(self.fetch(&server.url("team/app"), &server.known_hosts()?, timeout, &Cancel::new()))
    }

    /// The running processes of the program.
    fn processes(&self) -> Vec<u32> {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let is_own = |process: &u32| {
            let line = fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
            line.strip_suffix(b"\0") == Some(self.program.as_os_str().as_encoded_bytes())
        };
        all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_own).collect()
    }
}

const SOON: Duration = Duration::from_secs(2);
const LATER: Duration = Duration::from_secs(600);

/// A server that sends a text, and then nothing, or the text again and again.
fn raw(text: &'static str, endless: bool) -> Result<String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    let url = format!("ssh://git@127.0.0.1:{}/team/app", listener.local_addr()?.port());
    thread::spawn(move || {
        let mut kept = Vec::new();
        while let Ok((mut client, _)) = listener.accept() {
            while client.write_all(text.as_bytes()).is_ok() && endless {}
            kept.push(client);
        }
    });
    Ok(url)
}

#[tokio::test]
async fn a_server_that_stops_or_goes_on_at_any_step_ends_a_fetch_in_time() -> Result<()> {
    let store = Store::new(1 << 30)?;
    let no_more = |url: &str, hosts: &str, what: &str| -> Result<FetchError> {
        let start = Instant::now();
        let Err(error) = store.fetch(url, hosts, SOON, &Cancel::new()) else { anyhow::bail!("{what}: it fetched") };
        ensure!(start.elapsed() < Duration::from_secs(20), "{what} took {:?}", start.elapsed());
        ensure!(store.processes().is_empty(), "{what}: the process goes on");
        Ok(error)
    };
    for (text, endless, reason) in [
        ("", false, "Timeout"),
        ("SSH-2.0-stops\r\n", false, "Timeout"),
        ("welcome, hunter2\r\n", true, "NotAGitServer"),
        ("hunter2", true, "NotAGitServer"),
        ("SSH-1.5-old\r\nhunter2hunter2hunter2hunter2", false, "NetworkError"),
        ("HTTP/1.1 400 Bad Request\r\n\r\n", false, "Timeout"),
        ("SSH-2.0-x\r\n\u{7f}\u{7f}\u{7f}\u{7f}hunter2", true, "NetworkError"),
    ] {
        let error = no_more(&raw(text, endless)?, "", text)?;
        ensure!(error.reason() == reason && !error.to_string().contains("hunter2"), "{text}: {error}");
    }
    for (trouble, reason) in [
        ("hangs at login", "Timeout"),
        ("hangs at channel", "Timeout"),
        ("hangs at command", "Timeout"),
        ("hangs at data", "Timeout"),
        ("endless banner", "Timeout"),
        ("endless errors", "Timeout"),
        ("endless references", "TooLarge"),
    ] {
        let server = SshServer::start(SshOptions { trouble, ..Default::default() }).await?;
        server.authorize(&store.key.public, "team/app")?;
        let error = no_more(&server.url("team/app"), &server.known_hosts()?, trouble)?;
        ensure!(error.reason() == reason, "{trouble}: {error}");
    }
    Ok(())
}

#[tokio::test]
async fn a_cancel_ends_every_step() -> Result<()> {
    let store = Store::new(1 << 30)?;
    for trouble in ["hangs at login", "hangs at channel", "hangs at command", "hangs at data", "endless errors"] {
        let server = SshServer::start(SshOptions { trouble, ..Default::default() }).await?;
        server.authorize(&store.key.public, "team/app")?;
        let (url, hosts, cancel) = (server.url("team/app"), server.known_hosts()?, Cancel::new());
        thread::scope(|scope| -> Result<()> {
            let fetch = scope.spawn(|| store.fetch(&url, &hosts, LATER, &cancel));
            let start = Instant::now();
            while store.processes().is_empty() && start.elapsed() < Duration::from_secs(60) {
                thread::yield_now();
            }
            cancel.cancel();
            let ended = fetch.join().expect("the fetch does not panic");
            ensure!(matches!(ended, Err(FetchError::Cancelled)), "{trouble}: {ended:?}");
            ensure!(store.processes().is_empty(), "{trouble}: the process goes on");
            Ok(())
        })?;
    }
    Ok(())
}

#[tokio::test]
async fn the_process_that_speaks_ssh_has_one_connection_and_nothing_else() -> Result<()> {
    let store = Store::new(1 << 30)?;
    let server = SshServer::start(SshOptions { trouble: "hangs at data", ..Default::default() }).await?;
    server.authorize(&store.key.public, "team/app")?;
    let (url, hosts, cancel) = (server.url("team/app"), server.known_hosts()?, Cancel::new());
    let looked = thread::scope(|scope| {
        let fetch = scope.spawn(|| store.fetch(&url, &hosts, LATER, &cancel));
        let start = Instant::now();
        while server.count("run").unwrap_or_default() == 0 && start.elapsed() < Duration::from_secs(60) {
            thread::yield_now();
        }
        let looked = look_at(&store.processes());
        cancel.cancel();
        let _ = fetch.join();
        looked
    });
    looked?;
    ensure!(store.processes().is_empty(), "the process goes on");
    // Nothing of the key is on the disk, either.
    let secret = store.key.private.lines().nth(3).context("a line of the key")?;
    ensure!(!has_text(store.folder.path(), secret)?, "the key is in a file");
    Ok(())
}

fn look_at(processes: &[u32]) -> Result<()> {
    let [process] = processes else { anyhow::bail!("these processes run: {processes:?}") };
    let read = |name: &str| fs::read_to_string(format!("/proc/{process}/{name}"));
    ensure!(read("environ")?.is_empty(), "it has an environment");
    let (status, limits) = (read("status")?, read("limits")?);
    for (text, line) in [
        (&status, "NoNewPrivs:\t1"),
        (&status, "Seccomp:\t2"),
        (&limits, "Max core file size        0 "),
        (&limits, "Max open files            16 "),
        (&limits, "Max file size             0 "),
        (&limits, "Max data size             100663296 "),
        (&limits, "Max cpu time              120 "),
    ] {
        ensure!(text.contains(line), "{line} is missing in {text}");
    }
    let mut sockets = 0;
    for entry in fs::read_dir(format!("/proc/{process}/fd"))? {
        let path = entry?.path();
        let target = fs::read_link(&path)?.display().to_string();
        // Whoever started this test may have left a file open for all processes.
        let own = Path::new("/proc/self/fd").join(path.file_name().context("a number")?);
        if fs::read_link(own).is_ok_and(|own| own.display().to_string() == target) && target != "/dev/null" {
            continue;
        }
        sockets += usize::from(target.starts_with("socket:"));
        // Go reads the limit of the processor time.
        let expected = ["/dev/null", "socket:", "anon_inode:", "/sys/fs/cgroup/"];
        ensure!(expected.iter().any(|start| target.starts_with(start)), "it has {target} open");
    }
    ensure!(sockets == 2, "it has {sockets} sockets");
    Ok(())
}

fn has_text(folder: &Path, text: &str) -> Result<bool> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let is_there = if path.is_dir() {
            has_text(&path, text)?
        } else {
            String::from_utf8_lossy(&fs::read(&path)?).contains(text)
        };
        if is_there {
            return Ok(true);
        }
    }
    Ok(false)
}

/// A file that cannot be compressed.
fn noise(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let next = |_| {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    (0..bytes).map(next).collect()
}

#[tokio::test]
async fn a_pack_larger_than_allowed_is_refused_and_one_login_serves_a_fetch() -> Result<()> {
    let (small, large) = (Store::new(1 << 20)?, Store::new(1 << 30)?);
    for options in [
        SshOptions::default(),
        SshOptions { ignores_variables: true, ..Default::default() },
        SshOptions { renews_keys: true, ..Default::default() },
    ] {
        let server = SshServer::start(options).await?;
        let tree = server.create("team/app")?;
        tree.write("noise", noise(3 << 20))?;
        tree.publish("three MiB")?;
        let refused = small.fetch_from(&server, LATER)?;
        ensure!(matches!(&refused, Err(FetchError::TooLarge(_))), "{options:?}: {refused:?}");
        let logins = server.count("login")?;
        for text in ["first", "second"] {
            tree.write("a.txt", text)?;
            let commit = tree.publish(text)?;
            let revision = large.fetch_from(&server, LATER)?.with_context(|| format!("{options:?}"))?;
            ensure!(revision.to_string() == format!("main@sha1:{commit}"), "{revision}");
        }
        ensure!(server.count("login")? == logins + 2, "{}", server.log()?);
        eventually("all connections to end", || async {
            ensure!(server.count("closed")? == server.count("connected")?, "{}", server.log()?);
            Ok(())
        })
        .await?;
        ensure!(small.processes().is_empty() && large.processes().is_empty());
    }
    Ok(())
}

#[tokio::test]
async fn a_path_is_one_word_for_the_shell_of_the_server() -> Result<()> {
    let (store, server) = (Store::new(1 << 30)?, SshServer::start(SshOptions::default()).await?);
    server.authorize(&store.key.public, "team/app")?;
    let hosts = server.known_hosts()?;
    for path in ["a';touch${IFS}pwned;'", "$(touch${IFS}pwned)", "`touch${IFS}pwned`", "a!!b", "a\"b", "a&b|c;d>e"] {
        let url = format!("ssh://git@127.0.0.1:{}/{path}", server.port());
        let refused = store.fetch(&url, &hosts, LATER, &Cancel::new());
        ensure!(matches!(refused, Err(FetchError::RepositoryNotFound { .. })), "{path}: {refused:?}");
        ensure!(server.count(&format!("path /{path}"))? == 1, "{}", server.log()?);
    }
    ensure!(!server.folder().join("pwned").exists(), "the server ran a part of a path");
    Ok(())
}

#[tokio::test]
async fn addresses_of_this_machine_are_asked_only_if_the_url_names_them() -> Result<()> {
    let store = Store::new(1 << 30)?;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    listener.set_nonblocking(true)?;
    let port = listener.local_addr()?.port();
    for host in ["127.1", "2130706433", "169.254.169.254", "[fe80::1]", "255.255.255.255"] {
        let error = store.fetch(&format!("ssh://git@{host}:{port}/a"), "", SOON, &Cancel::new());
        let text = error.expect_err(host).to_string();
        ensure!(text.contains("no requests are sent to such addresses"), "{host}: {text}");
    }
    ensure!(listener.accept().is_err(), "somebody has connected");
    Ok(())
}

#[tokio::test]
async fn a_repository_with_sha256_is_refused_over_ssh_too() -> Result<()> {
    let (store, server) = (Store::new(1 << 30)?, SshServer::start(SshOptions::default()).await?);
    let bare = server.folder().join("repositories/team/app.git");
    let tree = server.folder().join("tree");
    let git = |arguments: &[&str]| {
        let named = ["-c", "user.name=Test", "-c", "user.email=test@example.com", "-C"];
        let mut command = std::process::Command::new("git");
        programs::run(command.args(named).arg(&tree).args(arguments).env("GIT_CONFIG_GLOBAL", "/dev/null"))
    };
    fs::create_dir(&tree)?;
    fs::create_dir_all(&bare)?;
    let bare = bare.to_str().context("a path")?;
    git(&["init", "--quiet", "--bare", "--object-format=sha256", "--initial-branch=main", bare])?;
    git(&["init", "--quiet", "--object-format=sha256", "--initial-branch=main"])?;
    git(&["commit", "--quiet", "--allow-empty", "--message", "first"])?;
    git(&["push", "--quiet", bare, "main"])?;
    let refused = store.fetch_from(&server, LATER)?;
    ensure!(matches!(refused, Err(FetchError::ObjectFormat { .. })), "{refused:?}");
    Ok(())
}
