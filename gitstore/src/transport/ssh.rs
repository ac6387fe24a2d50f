//! Git over SSH: connects to the server, and lets the process `gitseal-ssh` (the program in `gitstore/ssh`) speak SSH.
//!
//! This process opens the TCP connection, so the same rules hold for addresses as for HTTP. `gitseal-ssh` gets the connection
//! as its standard input, and a Unix socket to this process as its standard output. Over the socket it gets the private key.
//! The process has no access to files or to other addresses, and ends with the fetch.

use std::collections::BTreeSet;
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs as _};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use gix_transport::Protocol;
use gix_transport::client::git::ConnectMode;
use gix_transport::client::git::blocking_io::Connection;
use serde::{Deserialize, Serialize};
use worker::{Cancel, OnCancel};
use zeroize::Zeroizing;

use super::http::{Fault, Reach, unless_cancelled};
use super::smart::{FaultSlot, REFERENCES_BYTES};
use super::{BoxedTransport, presentable};
use crate::credentials::Key;
use crate::url::SshUrl;

/// The file name of the program.
pub(crate) const PROGRAM: &str = "gitseal-ssh";
/// A connection to one address takes this long at most.
const CONNECT: Duration = Duration::from_secs(10);
/// Looking up the name of a server and connecting takes this long at most, whatever number of addresses it has.
const CONNECT_ALL: Duration = Duration::from_secs(20);
/// The bytes of the largest frame.
const FRAME_BYTES: u32 = 1 << 20;
/// So many frames of a command are read after nobody wants its output any more.
const FRAMES_LEFT: usize = 64;

// The kinds of frames; see gitstore/ssh/frames.go.
const REQUEST: u8 = b'R';
const CONNECTED: u8 = b'K';
const FAILURE: u8 = b'F';
const OPEN: u8 = b'O';
const DATA: u8 = b'D';
const CLOSE: u8 = b'C';
const EXIT: u8 = b'X';

/// Whom to log in at, and how.
pub(crate) struct Login<'a> {
    pub(crate) program: PathBuf,
    pub(crate) url: &'a SshUrl,
    pub(crate) key: &'a Key,
    pub(crate) deadline: Instant,
    pub(crate) cancel: Cancel,
}

/// The server of a fetch. There is one connection at most, which is made for the first conversation.
pub(crate) struct Ssh<'a> {
    login: Login<'a>,
    fault: FaultSlot,
    /// How many bytes the server may still send in this conversation.
    budget: Arc<AtomicU64>,
    /// The most bytes of a pack.
    pack_bytes: u64,
    process: Mutex<Option<Arc<Mutex<Process>>>>,
}

impl<'a> Ssh<'a> {
    pub(crate) fn new(login: Login<'a>, pack_bytes: u64, fault: FaultSlot) -> Self {
        Self { login, fault, budget: Arc::default(), pack_bytes, process: Mutex::default() }
    }

    /// Begins a conversation with `git-upload-pack` on the server, which lists references.
    pub(crate) fn transport(&self) -> Result<BoxedTransport, Fault> {
        let mut kept = lock(&self.process);
        let process = match kept.as_ref().filter(|process| lock(process).is_free()) {
            Some(process) => process.clone(),
            None => kept.insert(Arc::new(Mutex::new(self.login.start()?))).clone(),
        };
        let path = self.login.url.path.as_str();
        let mut running = lock(&process);
        let opened = running.write(OPEN, format!("git-upload-pack {}", quoted(path)).as_bytes());
        opened.map_err(|error| running.fault(error))?;
        drop(running);
        self.fault.take();
        self.budget.store(REFERENCES_BYTES, Ordering::Relaxed);
        let output = Output {
            process: process.clone(),
            fault: self.fault.clone(),
            budget: self.budget.clone(),
            frame: Vec::new(),
            taken: 0,
            has_ended: false,
        };
        let input = Input { process, waiting: Vec::new() };
        let host: Option<(String, Option<u16>)> = None;
        Ok(Box::new(Connection::new(output, input, Protocol::V2, path, host, ConnectMode::Process, false)))
    }

    /// The server sends a pack next.
    pub(crate) fn expect_pack(&self) {
        self.budget.store(self.pack_bytes, Ordering::Relaxed);
    }
}

impl Login<'_> {
    /// Connects and logs in.
    fn start(&self) -> Result<Process, Fault> {
        let server = self.connect()?;
        let (ours, theirs) = UnixStream::pair().map_err(Fault::of_ssh)?;
        let (our_server, our_socket) =
            (server.try_clone().map_err(Fault::of_ssh)?, ours.try_clone().map_err(Fault::of_ssh)?);
        let child = Command::new(&self.program)
            .env_clear()
            .current_dir("/")
            .stdin(Stdio::from(OwnedFd::from(server.try_clone().map_err(Fault::of_ssh)?)))
            .stdout(Stdio::from(OwnedFd::from(theirs)))
            .stderr(Stdio::null())
            .spawn()
            .map_err(|error| {
                let program = self.program.display();
                unavailable(format!("the program {program}, which speaks SSH, cannot be started: {error}"))
            })?;
        let stop = self.cancel.on_cancel(move || {
            // The process then ends, and all that waits for it.
            let _ = (our_server.shutdown(Shutdown::Both), our_socket.shutdown(Shutdown::Both));
        });
        let mut process = Process {
            child,
            server,
            socket: ours,
            deadline: self.deadline,
            _stop: stop,
            is_busy: false,
            is_over: false,
        };
        let request = self.request()?;
        match process.write(REQUEST, &request).and_then(|()| process.read()) {
            Ok((CONNECTED, _)) => Ok(process),
            Ok((FAILURE, body)) => Err(self.explain(&body)),
            Ok((kind, _)) => Err(Fault::of_ssh(unexpected(kind))),
            Err(error) => Err(process.fault(error)),
        }
    }

    /// A TCP connection to the first address of the server that answers.
    fn connect(&self) -> Result<TcpStream, Fault> {
        let (host, port, deadline) = (self.url.host.clone(), self.url.port, self.deadline);
        let remaining = deadline.saturating_duration_since(Instant::now());
        let connected =
            unless_cancelled(&self.cancel, remaining.min(CONNECT_ALL), move || connect(&host, port, deadline));
        connected.map_err(|fault| match fault {
            Fault::Timeout if remaining > CONNECT_ALL => Fault::Unconnected(CONNECT_ALL),
            fault => fault,
        })
    }

    fn request(&self) -> Result<Zeroizing<Vec<u8>>, Fault> {
        let SshUrl { host, port, user, .. } = self.url;
        let encoded = |bytes: &[u8]| Zeroizing::new(STANDARD.encode(bytes));
        let (identity, passphrase) = (encoded(&self.key.identity), encoded(&self.key.passphrase));
        let known_hosts = encoded(&self.key.known_hosts);
        let (identity, passphrase, known_hosts) = (identity.as_str(), passphrase.as_str(), known_hosts.as_str());
        let request = Request { host, port: *port, user, identity, passphrase, known_hosts };
        // The buffer does not grow while the key is written to it, so there is one copy to wipe.
        let size = 1024 + 6 * (host.len() + user.len()) + identity.len() + passphrase.len() + known_hosts.len();
        let mut body = Zeroizing::new(Vec::with_capacity(size));
        serde_json::to_writer(&mut *body, &request).map_err(|error| Fault::of_ssh(io::Error::from(error)))?;
        Ok(body)
    }

    /// What a failure of the login means, and what to do.
    fn explain(&self, body: &[u8]) -> Fault {
        let Ok(failure) = serde_json::from_slice::<Failure>(body) else {
            return Fault::of_ssh(unexpected(FAILURE));
        };
        let (host, user) = (self.url.address(), &self.url.user);
        let Failure { kind, detail, key, fingerprint, line, known } = &failure;
        let detail = presentable(detail);
        let first = known.first();
        let known_line = first.map_or(0, |known| known.number);
        let known_print = first.map_or_else(String::new, |known| known.fingerprint.clone());
        let (reason, message) = match kind.as_str() {
            "HostKeyUnknown" => {
                let others: BTreeSet<_> = known.iter().map(|known| known.key.as_str()).collect();
                let others: Vec<_> = others.into_iter().collect();
                let what = match others.as_slice() {
                    [] => format!(
                        "known_hosts of spec.secretRef has no key for {host}. The server showed the key {fingerprint} ({key})."
                    ),
                    others => format!(
                        "known_hosts of spec.secretRef has keys of {host} ({}), and the server showed none of them, but the key \
                         {fingerprint} ({key}). Nothing was sent to it.",
                        others.join(", ")
                    ),
                };
                let message = format!(
                    "{what} Somebody else may answer in its place. So compare this fingerprint with the one that the operator of the \
                     server publishes. If they are equal, add this line to known_hosts: {line}"
                );
                ("HostKeyUnknown", message)
            }
            "HostKeyChanged" => {
                let message = format!(
                    "{host} showed another {key} key than line {known_line} of known_hosts has: {fingerprint} instead of \
                     {known_print}. Nothing was sent to it. Either its key was replaced, or somebody else answers in its place. Ask \
                     its operator; if the new key is genuine, replace line {known_line} of known_hosts by: {line}"
                );
                ("HostKeyChanged", message)
            }
            "HostKeyRevoked" => {
                let message = format!(
                    "{host} showed the key {fingerprint}, and line {known_line} of known_hosts revokes it or the authority that signed \
                     it: the server needs a new key"
                );
                ("HostKeyRevoked", message)
            }
            "HostCertificateRefused" => {
                let message = format!(
                    "the certificate of {host} is not accepted: {detail}. It certifies the key {fingerprint}; known_hosts must name \
                     its authority in a line that begins with @cert-authority"
                );
                ("HostCertificateRefused", message)
            }
            "NoCommonAlgorithm" => {
                let message = format!(
                    "{host} and gitseal have no common algorithm for {detail}. Algorithms with SHA-1 or DSA are not used: update the \
                     server, or use https"
                );
                ("NoCommonAlgorithm", message)
            }
            "KeyNotAccepted" => {
                let message = format!(
                    "{host} does not accept the key {fingerprint} ({key}) for the user {user}: add its public key as a deploy key of the \
                     repository, or correct spec.secretRef"
                );
                ("AuthenticationFailed", message)
            }
            "UnusableIdentity" | "UnusableKnownHosts" => {
                ("InvalidCredentials", format!("the credentials cannot be used: {detail}"))
            }
            "CannotConfine" => {
                let message = format!(
                    "the program {PROGRAM}, which speaks SSH, cannot give up its rights, so it was not used: {detail}. The kernel of the \
                     node must be able to filter system calls (seccomp)"
                );
                ("SshUnavailable", message)
            }
            "NotSSH" => ("NotAGitServer", format!("{host} is not an SSH server: {detail}")),
            _ => return Fault::Connection(detail),
        };
        Fault::Ssh(Box::new(SshError::of(reason, message)))
    }
}

/// Why a login over SSH, or the command on the server, failed.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct SshError {
    reason: &'static str,
    message: String,
}

impl SshError {
    fn of(reason: &'static str, message: String) -> Self {
        Self { reason, message }
    }

    /// The CamelCase reason for a condition.
    pub fn reason(&self) -> &'static str {
        self.reason
    }

    /// How long to wait before the next login. Newer releases of OpenSSH refuse all connections of an address after several
    /// failed logins, and all Repositories of a cluster share the address.
    pub fn retry_after(&self) -> Option<Duration> {
        let is_login = self.reason.starts_with("Host") || self.reason == "AuthenticationFailed";
        is_login.then_some(Duration::from_secs(20))
    }
}

/// The first frame; see `request` in gitstore/ssh/frames.go. Bytes are base64.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    host: &'a str,
    port: u16,
    user: &'a str,
    identity: &'a str,
    passphrase: &'a str,
    known_hosts: &'a str,
}

/// See `failure` in gitstore/ssh/frames.go.
#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Failure {
    kind: String,
    detail: String,
    key: String,
    fingerprint: String,
    line: String,
    known: Vec<Known>,
}

/// A line of known_hosts.
#[derive(Deserialize)]
struct Known {
    number: usize,
    key: String,
    fingerprint: String,
}

/// See `exit` in gitstore/ssh/frames.go.
#[derive(Deserialize)]
struct Exit {
    status: Option<i64>,
    #[serde(default)]
    said: String,
}

/// A running `gitseal-ssh`. When this is dropped, the process is killed and the connection closed.
struct Process {
    child: Child,
    server: TcpStream,
    socket: UnixStream,
    deadline: Instant,
    _stop: OnCancel,
    /// Whether the last command goes on, although nobody reads its output any more.
    is_busy: bool,
    /// Whether the process cannot run another command.
    is_over: bool,
}

impl Process {
    fn write(&mut self, kind: u8, body: &[u8]) -> io::Result<()> {
        let length = u32::try_from(body.len()).ok().filter(|length| *length <= FRAME_BYTES);
        let length = length.ok_or_else(|| io::Error::other("a frame would be too large"))?;
        let [a, b, c, d] = length.to_be_bytes();
        self.write_all(&[a, b, c, d, kind])?;
        self.write_all(body)
    }

    fn write_all(&mut self, mut rest: &[u8]) -> io::Result<()> {
        while !rest.is_empty() {
            self.socket.set_write_timeout(Some(self.left()?))?;
            match self.socket.write(rest) {
                Ok(written) => rest = &rest[written..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    fn read(&mut self) -> io::Result<(u8, Vec<u8>)> {
        let mut head = [0; 5];
        self.fill(&mut head)?;
        let [a, b, c, d, kind] = head;
        let length = u32::from_be_bytes([a, b, c, d]);
        if length > FRAME_BYTES {
            return Err(unexpected(kind));
        }
        let mut body = vec![0; length as usize];
        self.fill(&mut body)?;
        Ok((kind, body))
    }

    fn fill(&mut self, buffer: &mut [u8]) -> io::Result<()> {
        let mut filled = 0;
        while filled < buffer.len() {
            self.socket.set_read_timeout(Some(self.left()?))?;
            match self.socket.read(&mut buffer[filled..]) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What an error of the socket means.
    fn fault(&mut self, error: io::Error) -> Fault {
        if is_end(&error) {
            // The process has closed the socket, so it has ended, or is about to. A later signal does not change how.
            let _ = self.child.kill();
            if let Some(how) = self.child.wait().ok().and_then(how_ended) {
                return unavailable(format!(
                    "the program {PROGRAM}, which speaks SSH, {how} before the fetch was complete"
                ));
            }
        }
        Fault::of_ssh(error)
    }

    fn left(&self) -> io::Result<Duration> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        if left.is_zero() { Err(io::ErrorKind::TimedOut.into()) } else { Ok(left) }
    }

    /// Ends a command whose output nobody reads any more.
    fn end_command(&mut self, has_ended: bool) {
        self.is_busy = !has_ended;
        self.is_over |= self.write(CLOSE, &[]).is_err();
    }

    /// Whether the process can run another command. Waits for the end of the last one, but not for all of its output.
    fn is_free(&mut self) -> bool {
        for _ in 0..FRAMES_LEFT {
            if self.is_over || !self.is_busy {
                break;
            }
            match self.read() {
                Ok((kind, _)) => self.is_busy = kind != EXIT,
                Err(_) => self.is_over = true,
            }
        }
        !self.is_over && !self.is_busy
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = (self.server.shutdown(Shutdown::Both), self.child.kill(), self.child.wait());
    }
}

/// The standard output of a command.
struct Output {
    process: Arc<Mutex<Process>>,
    fault: FaultSlot,
    budget: Arc<AtomicU64>,
    frame: Vec<u8>,
    taken: usize,
    has_ended: bool,
}

impl Read for Output {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.taken == self.frame.len() && !self.has_ended {
            self.frame = self.next_data().map_err(|fault| self.fault.note(None, fault))?;
            self.taken = 0;
        }
        let rest = &self.frame[self.taken..];
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        self.taken += length;
        Ok(length)
    }
}

impl Output {
    /// The next data; nothing if the command has ended.
    fn next_data(&mut self) -> Result<Vec<u8>, Fault> {
        let (kind, body) = {
            let mut process = lock(&self.process);
            process.read().map_err(|error| process.fault(error))?
        };
        match kind {
            DATA => {
                let size = body.len() as u64;
                let spend = |left: u64| left.checked_sub(size);
                let spent = self.budget.fetch_update(Ordering::Relaxed, Ordering::Relaxed, spend);
                spent.map_err(|left| Fault::TooLarge(left + size)).map(|_| body)
            }
            EXIT => {
                self.has_ended = true;
                let exit: Exit = serde_json::from_slice(&body).map_err(|_| Fault::of_ssh(unexpected(EXIT)))?;
                match exit.status {
                    Some(0) => Ok(Vec::new()),
                    status => Err(Fault::Command { status, said: presentable(&exit.said) }),
                }
            }
            FAILURE => {
                let failure: Failure = serde_json::from_slice(&body).unwrap_or_default();
                Err(Fault::Connection(presentable(&failure.detail)))
            }
            _ => Err(Fault::of_ssh(unexpected(kind))),
        }
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        lock(&self.process).end_command(self.has_ended);
    }
}

/// The standard input of a command.
struct Input {
    process: Arc<Mutex<Process>>,
    waiting: Vec<u8>,
}

impl Write for Input {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.waiting.extend_from_slice(data);
        if self.waiting.len() > FRAME_BYTES as usize / 2 {
            self.flush()?;
        }
        Ok(data.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        for part in self.waiting.chunks(FRAME_BYTES as usize) {
            lock(&self.process).write(DATA, part)?;
        }
        self.waiting.clear();
        Ok(())
    }
}

impl Fault {
    /// What an error of the socket to `gitseal-ssh` means.
    fn of_ssh(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock => Self::Timeout,
            _ if is_end(&error) => Self::Connection("the connection ended early".to_owned()),
            _ => Self::Connection(error.to_string()),
        }
    }
}

/// Whether the other end of a socket was closed.
fn is_end(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

/// How a process ended; `None` if it ended well.
fn how_ended(status: ExitStatus) -> Option<String> {
    match (status.signal(), status.code()) {
        (Some(signal), _) => Some(format!(
            "was ended by signal {signal} (its memory or its processor time may have reached their limits, or the node has too little \
             memory)"
        )),
        (None, Some(0)) => None,
        (None, code) => Some(format!("ended with status {}", code.unwrap_or_default())),
    }
}

/// The program that speaks SSH does not do what it should.
fn unavailable(message: String) -> Fault {
    Fault::Ssh(Box::new(SshError::of("SshUnavailable", message)))
}

/// Connects to the first address that answers. Addresses that do not answer leave time for the next ones.
fn connect(host: &str, port: u16, deadline: Instant) -> Result<TcpStream, Fault> {
    let start = Instant::now();
    let addresses = (host, port).to_socket_addrs();
    let addresses =
        addresses.map_err(|error| Fault::Connection(format!("the name {host} cannot be looked up: {error}")))?;
    let reach = Reach::of_host(host);
    let mut last = Fault::Connection(Reach::REFUSED.to_owned());
    let addresses: Vec<_> = addresses.filter(|address| reach.includes(address.ip())).collect();
    for (number, address) in addresses.iter().enumerate() {
        let left = deadline.min(start + CONNECT_ALL).saturating_duration_since(Instant::now());
        let wait = share(left, addresses.len() - number);
        if wait.is_zero() {
            return Err(late(start, deadline));
        }
        match TcpStream::connect_timeout(address, wait) {
            Ok(server) => {
                // The messages of a conversation are short.
                let _ = server.set_nodelay(true);
                return Ok(server);
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => last = late(start, deadline),
            Err(error) => last = Fault::Connection(format!("port {port}: {error}")),
        }
    }
    Err(last)
}

/// How long to wait for an address, if so many are left.
fn share(left: Duration, addresses: usize) -> Duration {
    (left / u32::try_from(addresses).unwrap_or(u32::MAX).max(1)).min(CONNECT)
}

/// There is no connection yet, and no more time for it.
fn late(start: Instant, deadline: Instant) -> Fault {
    if Instant::now() < deadline { Fault::Unconnected(start.elapsed()) } else { Fault::Timeout }
}

fn unexpected(kind: u8) -> io::Error {
    io::Error::other(format!("{PROGRAM} sent an unexpected message ({:?})", char::from(kind)))
}

/// A word for the shell of the server, as Git quotes it.
fn quoted(path: &str) -> String {
    format!("'{}'", path.replace('\'', "'\\''").replace('!', "'\\!'"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use super::*;
    use crate::url::RemoteUrl;

    /// Calls `ask` with a login at this URL, with a program that speaks no SSH.
    fn with_login<T>(url: &str, program: &str, ask: impl FnOnce(&Login<'_>) -> T) -> T {
        let url = RemoteUrl::parse(url, false).unwrap();
        let key = Key { identity: Zeroizing::default(), passphrase: Zeroizing::default(), known_hosts: Vec::new() };
        let deadline = Instant::now() + Duration::from_secs(60);
        ask(&Login { program: program.into(), url: url.ssh().unwrap(), key: &key, deadline, cancel: Cancel::new() })
    }

    fn explained(failure: &serde_json::Value) -> (String, String) {
        let body = failure.to_string();
        match with_login("git@git.example:a", "/bin/false", |login| login.explain(body.as_bytes())) {
            Fault::Ssh(error) => (error.reason().to_owned(), error.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_server_that_shows_none_of_its_known_keys_may_be_somebody_else() {
        let known = |number, key| serde_json::json!({"number": number, "key": key, "fingerprint": "SHA256:x"});
        let unknown = |known: serde_json::Value| serde_json::json!({"kind": "HostKeyUnknown", "key": "ssh-rsa", "fingerprint": "SHA256:y", "line": "a b c", "known": known});
        let (reason, text) = explained(&unknown(serde_json::json!([
            known(1, "ssh-ed25519"),
            known(2, "ecdsa-sha2-nistp256"),
            known(3, "ssh-ed25519"),
        ])));
        assert_eq!(reason, "HostKeyUnknown");
        let start = "known_hosts of spec.secretRef has keys of git.example (ecdsa-sha2-nistp256, ssh-ed25519), and the server showed none of \
                     them, but the key SHA256:y (ssh-rsa)";
        assert!(text.starts_with(start) && text.contains("Somebody else may answer"), "{text}");
        let (_, text) = explained(&unknown(serde_json::json!([])));
        assert!(text.starts_with("known_hosts of spec.secretRef has no key for git.example."), "{text}");
    }

    #[test]
    fn a_program_that_cannot_be_used_is_not_taken_for_a_failure_of_the_server() {
        let (reason, text) = explained(&serde_json::json!({"kind": "CannotConfine", "detail": "no seccomp"}));
        assert!(reason == "SshUnavailable" && text.contains("no seccomp"), "{text}");
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = format!("ssh://git@127.0.0.1:{}/a", server.local_addr().unwrap().port());
        match with_login(&url, "/bin/false", |login| login.start().err()) {
            Some(Fault::Ssh(error)) => {
                assert_eq!(error.reason(), "SshUnavailable");
                assert!(error.to_string().contains("gitseal-ssh, which speaks SSH, ended with status 1"), "{error}");
            }
            other => panic!("{other:?}"),
        }
        assert!(how_ended(ExitStatus::from_raw(9)).unwrap().starts_with("was ended by signal 9"));
        assert_eq!(how_ended(ExitStatus::from_raw(0)), None);
    }

    #[test]
    fn an_exit_status_may_have_32_bits() {
        let exit: Exit = serde_json::from_str(r#"{"status": 4294967295, "said": "words"}"#).unwrap();
        assert_eq!((exit.status, exit.said.as_str()), (Some(4_294_967_295), "words"));
    }

    #[test]
    fn addresses_share_the_time_for_a_connection() {
        let seconds = Duration::from_secs;
        assert_eq!(share(seconds(20), 1), CONNECT);
        assert_eq!(share(seconds(20), 4), seconds(5));
        assert_eq!(share(seconds(3), 1), seconds(3));
        let (start, now) = (Instant::now(), Instant::now());
        assert!(matches!(late(start, now), Fault::Timeout));
        assert!(matches!(late(start, now + seconds(60)), Fault::Unconnected(_)));
    }

    #[test]
    fn a_path_is_one_word() {
        for (path, word) in [
            ("/team/app.git", "'/team/app.git'"),
            ("~me/a b", "'~me/a b'"),
            ("a';touch b;'", r"'a'\'';touch b;'\'''"),
            ("a!b", r"'a'\!'b'"),
        ] {
            assert_eq!(quoted(path), word);
        }
    }

    /// Runs the tests in Go of the program that speaks SSH.
    #[test]
    fn the_programs_own_tests_pass() {
        let mut go = Command::new("go");
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/ssh");
        let output =
            go.args(["test", "-trimpath", "./..."]).current_dir(folder).env("CGO_ENABLED", "0").output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        assert!(output.status.success(), "{text}");
    }
}
