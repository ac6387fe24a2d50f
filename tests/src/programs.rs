//! The programs under test. They are built once, and end with the test.

mod sealed_secrets;

pub use sealed_secrets::SealedSecretsController;

use std::{
    io::{Read as _, Write as _},
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    str::FromStr,
    sync::OnceLock,
};

use anyhow::{Context, Result, anyhow, bail};
use localcluster::{ChildGuard, Output, ReservedPort, spawn_supervised};

use crate::hunt;

/// Folder of the built programs. If they are missing or out of date, they are built with the profile of this program.
pub fn folder() -> Result<&'static Path> {
    static FOLDER: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    let built = FOLDER.get_or_init(|| build().map_err(|error| format!("{error:#}")));
    built.as_deref().map_err(|error| anyhow!("{error}"))
}

fn build() -> Result<PathBuf> {
    // Use programs that were built before, for example to measure a release.
    if let Some(folder) = std::env::var_os("GITSEAL_PROGRAMS") {
        return Ok(folder.into());
    }
    // Cargo's output is shown, because the first build takes long and somebody waits for it.
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command
        .args(["build", "--workspace", "--bin", "gitseal", "--bin", "gitseal-controller"])
        .current_dir(env!("CARGO_MANIFEST_DIR"));
    let profile = if cfg!(debug_assertions) { "debug" } else { "release" };
    if profile == "release" {
        command.arg("--release");
    }
    // Variables that `cargo test` sets for this package must not affect the build of other packages.
    for name in ["CARGO_MANIFEST_DIR", "CARGO_PKG_NAME", "CARGO_PKG_VERSION"] {
        command.env_remove(name);
    }
    let status = command.status().context("cargo could not be started")?;
    if !status.success() {
        bail!("the programs under test could not be built");
    }
    let current = std::env::current_exe()?;
    let folder = current.ancestors().find(|folder| folder.file_name().is_some_and(|name| name == profile));
    folder.map(Path::to_path_buf).with_context(|| format!("{} is not in a folder '{profile}'", current.display()))
}

/// The program `gitseal` with this kubeconfig, whatever the user's own settings are.
pub fn gitseal(kubeconfig: &Path) -> Result<Command> {
    let mut command = Command::new(folder()?.join("gitseal"));
    command.env("KUBECONFIG", kubeconfig).env("NO_COLOR", "1");
    Ok(command)
}

/// Runs a command and returns its standard output, or an error with its whole output.
pub fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    if !output.status.success() {
        bail!("{command:?} ended with {}\n{out}\n{err}", output.status);
    }
    Ok(out.into_owned())
}

/// Runs a command at a terminal. When it asks a question that ends with `question`, it gets `answer`; if `answer` is
/// empty, the input ends. Returns the exit code and everything that was shown.
pub fn at_terminal(command: &Command, question: &str, answer: &str) -> Result<(Option<i32>, String)> {
    answering(command, &[(question, answer)])
}

/// Like [`at_terminal`], for several questions with their answers, in this order.
pub fn answering(command: &Command, answers: &[(&str, &str)]) -> Result<(Option<i32>, String)> {
    let words: Vec<_> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| format!("'{}'", word.to_string_lossy().replace('\'', r"'\''")))
        .collect();
    // `script` of util-linux runs the command at a terminal of its own, and ends with the command's exit code.
    let mut terminal = Command::new("script");
    terminal.args(["--quiet", "--return", "--command", &words.join(" "), "/dev/null"]);
    terminal.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env("SHELL", "/bin/sh");
    if let Some(folder) = command.get_current_dir() {
        terminal.current_dir(folder);
    }
    let mut child = terminal.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().context("script of util-linux")?;
    let (mut input, mut output) = (child.stdin.take().context("stdin")?, child.stdout.take().context("stdout")?);
    let mut shown = Vec::new();
    for (question, answer) in answers {
        let mut byte = [0];
        while !shown.ends_with(question.as_bytes()) && output.read(&mut byte)? > 0 {
            shown.extend(byte);
        }
        input.write_all(answer.as_bytes())?;
    }
    drop(input);
    output.read_to_end(&mut shown)?;
    Ok((child.wait()?.code(), String::from_utf8_lossy(&shown).into_owned()))
}

/// A running controller.
pub struct Controller {
    child: ChildGuard,
    address: Ipv4Addr,
    /// Port of `/healthz`, `/readyz` and `/v1/cert.pem`.
    pub port: u16,
    /// Port of `/metrics`.
    pub metrics_port: u16,
    /// Port that serves only `/healthz` and `/readyz`.
    pub probes_port: u16,
    log: PathBuf,
    // This field is dropped after the process, so that everything that the process wrote is searched for secret values.
    hunt: hunt::OfController,
}

/// Options for starting a controller.
pub struct ControllerOptions<'a> {
    /// The cluster.
    pub kubeconfig: &'a Path,
    /// Folder of the Git store and the log.
    pub folder: &'a Path,
    /// Name of the program in [`folder`].
    pub program: &'a str,
    /// The address that the controller listens on.
    pub address: Ipv4Addr,
    /// The ports for HTTP, metrics and probes; by default free ones.
    pub ports: Option<[u16; 3]>,
    /// More arguments.
    pub arguments: Vec<String>,
    /// The log level of the controller, unless the arguments set it.
    pub log_level: &'a str,
    /// Environment.
    pub environment: Vec<(String, String)>,
}

impl<'a> ControllerOptions<'a> {
    /// The real program, with small keys, `--allow-file-urls`, and the most detailed log.
    pub fn new(kubeconfig: &'a Path, folder: &'a Path) -> Self {
        let arguments = ["--key-size=2048", "--namespace=kube-system", "--allow-file-urls"].map(str::to_owned).into();
        let (program, address) = ("gitseal-controller", Ipv4Addr::LOCALHOST);
        let log_level = hunt::EVERYTHING;
        Self { kubeconfig, folder, program, address, ports: None, arguments, log_level, environment: Vec::new() }
    }

    /// The same program, but with its default log level, for measurements and for the demo.
    pub fn usual(kubeconfig: &'a Path, folder: &'a Path) -> Self {
        Self { log_level: "", ..Self::new(kubeconfig, folder) }
    }
}

impl Controller {
    /// Starts a controller. It may not be ready yet.
    pub fn start(options: &ControllerOptions<'_>) -> Result<Self> {
        let free = [ReservedPort::new()?, ReservedPort::new()?, ReservedPort::new()?];
        let [port, metrics_port, probes_port] =
            options.ports.unwrap_or_else(|| free.each_ref().map(ReservedPort::number));
        let log = options.folder.join("controller.log");
        let store = options.folder.join("git");
        let mut command = Command::new(folder()?.join(options.program));
        if !options.log_level.is_empty()
            && !options.arguments.iter().any(|argument| argument.starts_with("--log-level"))
        {
            command.arg(format!("--log-level={}", options.log_level));
        }
        command
            .arg("--kubeconfig")
            .arg(options.kubeconfig)
            .arg("--storage")
            .arg(&store)
            .arg(format!("--listen-addr={}:{}", options.address, port))
            .arg(format!("--listen-metrics-addr={}:{}", options.address, metrics_port))
            .arg(format!("--listen-probes-addr={}:{}", options.address, probes_port))
            .args(&options.arguments)
            .envs(options.environment.iter().map(|(key, value)| (key, value)));
        let hunt = hunt::OfController::begin(&log, &store);
        let child = spawn_supervised(&command, Output::Log(log.clone()))?;
        Ok(Self { child, address: options.address, port, metrics_port, probes_port, log, hunt })
    }

    /// The whole log, and the part of the Git store that belongs to this namespace, to search both for plaintexts while
    /// the controller goes on running.
    pub(crate) fn hunt_of(&self, namespace: &str) -> hunt::OfController {
        self.hunt.of_namespace(namespace)
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// The process.
    pub fn process(&mut self) -> &mut ChildGuard {
        &mut self.child
    }

    /// Ends the controller with SIGTERM, as Kubernetes ends a Pod.
    pub fn stop(self) -> Result<()> {
        self.child.terminate(crate::wait::LIMIT)?;
        Ok(())
    }

    /// Kills the controller with SIGKILL.
    pub fn kill(self) -> Result<()> {
        self.child.kill()?;
        Ok(())
    }

    /// Waits until `/readyz` answers with success.
    pub async fn ready(&mut self) -> Result<()> {
        let start = std::time::Instant::now();
        loop {
            if let Some(code) = self.child.try_wait()? {
                bail!("the controller ended with {code}:\n{}", self.log());
            }
            match http_get(self.address, self.port, "/readyz").await {
                Ok((200, _)) => return Ok(()),
                answer if start.elapsed() > crate::wait::LIMIT => {
                    bail!("the controller is not ready: {answer:?}\n{}", self.log())
                }
                _ => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    /// Body of one of the controller's HTTP endpoints.
    pub async fn fetch(&self, path: &str) -> Result<String> {
        let port = if path == "/metrics" { self.metrics_port } else { self.port };
        match http_get(self.address, port, path).await? {
            (200, body) => Ok(body),
            (code, body) => bail!("{path} answered {code}: {body}"),
        }
    }

    /// The value of the metric whose name with its labels is `series`, written as in `/metrics`. `None` if there is no
    /// such metric.
    pub async fn metric<T>(&self, series: &str) -> Result<Option<T>>
    where
        T: FromStr<Err: std::error::Error + Send + Sync + 'static>,
    {
        let text = self.fetch("/metrics").await?;
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
        value.map(|value| value.parse().with_context(|| format!("{series} is {value}"))).transpose()
    }

    /// The answer of one of the controller's ports to a request for `path`: status code and body.
    pub async fn get(&self, port: u16, path: &str) -> Result<(u16, String)> {
        http_get(self.address, port, path).await
    }

    /// A connection to one of the controller's ports, on which nothing has been sent.
    pub async fn connect(&self, port: u16) -> Result<tokio::net::TcpStream> {
        Ok(tokio::net::TcpStream::connect((self.address, port)).await?)
    }

    /// The controller's answer to an object that is sent to it: status code and body.
    pub async fn post(&self, path: &str, object: &serde_json::Value) -> Result<(u16, String)> {
        http(self.address, self.port, "POST", path, "", &object.to_string()).await
    }
}

async fn http_get(address: Ipv4Addr, port: u16, path: &str) -> Result<(u16, String)> {
    http(address, port, "GET", path, "", "").await
}

/// Sends a request, and returns the status code and the body of the answer. Each line of `headers` ends with CR LF.
pub(crate) async fn http(
    address: Ipv4Addr,
    port: u16,
    method: &str,
    path: &str,
    headers: &str,
    body: &str,
) -> Result<(u16, String)> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut stream = tokio::net::TcpStream::connect((address, port)).await?;
    let length = body.len();
    // Answers in HTTP/1.0 are never chunked, so they are easy to read.
    let request =
        format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\n{headers}Content-Length: {length}\r\n\r\n{body}");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).await?;
    let answer = String::from_utf8_lossy(&answer).into_owned();
    let (head, body) = answer.split_once("\r\n\r\n").context("no HTTP answer")?;
    let code = head.split_whitespace().nth(1).and_then(|code| code.parse().ok()).context("no status")?;
    Ok((code, body.to_owned()))
}
