//! Starts a control plane, gives access to it, and stops it.

mod flags;
mod outage;
mod ready;

use std::{
    net::Ipv4Addr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

pub use self::outage::Backup;
use crate::{
    audit::{self, AuditEvent},
    error::{At, Error, Result},
    kubeconfig, parts,
    pki::{self, Authority},
    ports::ReservedPort,
    run_dir::RunDir,
    supervised::{ChildGuard, Output, spawn_supervised},
};

/// Options for starting a cluster.
#[derive(Clone, Debug)]
pub struct ClusterOptions {
    /// Runs kube-controller-manager: Deployments, garbage collection, namespace deletion, service accounts.
    pub controller_manager: bool,
    /// Runs kube-scheduler. This is useful only if there are nodes.
    pub scheduler: bool,
    /// Writes an audit log; see [`Cluster::requests`].
    pub audit: bool,
    /// More flags for kube-apiserver. They come last, so they win over the flags that are always set.
    pub api_server_args: Vec<String>,
    /// How long the API server may take to become ready.
    pub ready_within: Duration,
}

impl Default for ClusterOptions {
    fn default() -> Self {
        Self {
            controller_manager: true,
            scheduler: false,
            audit: false,
            api_server_args: Vec::new(),
            ready_within: Duration::from_secs(120),
        }
    }
}

/// The programs of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Program {
    /// The store.
    Etcd,
    /// The API server.
    ApiServer,
    /// The controller manager.
    ControllerManager,
    /// The scheduler.
    Scheduler,
}

impl Program {
    fn name(self) -> &'static str {
        match self {
            Self::Etcd => "etcd",
            Self::ApiServer => "kube-apiserver",
            Self::ControllerManager => "kube-controller-manager",
            Self::Scheduler => "kube-scheduler",
        }
    }
}

/// A running control plane. It ends when its `Cluster` is dropped, and also when this process ends in any way.
#[derive(Debug)]
pub struct Cluster {
    // Fields are dropped in this order: first the programs (the clients of the API server, the API server, etcd), then their
    // directory.
    programs: Vec<(Program, ChildGuard)>,
    /// The program file and the arguments with which each program was started.
    commands: Vec<(Program, PathBuf, Vec<String>)>,
    backups: usize,
    url: String,
    kubeconfig: PathBuf,
    authority: Authority,
    audit: bool,
    dir: RunDir,
    ports: [ReservedPort; 2],
}

impl Cluster {
    /// Starts a control plane, and waits until it answers requests. This takes a few seconds. The first time, the programs
    /// have to be built, which takes minutes.
    ///
    /// The call blocks its thread. It is allowed in asynchronous code, too.
    pub fn start(options: ClusterOptions) -> Result<Self> {
        let parts = parts::kubernetes()?;
        let dir = RunDir::new()?;
        let [api_port, etcd_port] = [ReservedPort::new()?, ReservedPort::new()?];
        let url = format!("https://127.0.0.1:{}", api_port.number());

        let authority = Authority::new()?;
        let admin = authority.client("localcluster-admin", &["system:masters"])?;
        let kubeconfig = dir.write("kubeconfig", kubeconfig::render(&url, authority.pem(), "admin", &admin))?;
        let mut cluster = Self {
            programs: Vec::new(),
            commands: Vec::new(),
            backups: 0,
            url,
            kubeconfig,
            authority,
            audit: options.audit,
            dir,
            ports: [api_port, etcd_port],
        };
        cluster.write_files()?;

        cluster.run(Program::Etcd, &parts.etcd, &flags::etcd(&cluster))?;
        let mut flags = flags::api_server(&cluster);
        flags.extend(options.api_server_args);
        cluster.run(Program::ApiServer, &parts.kube_apiserver, &flags)?;
        ready::wait(&mut cluster, options.ready_within)?;

        if options.controller_manager {
            let identity = cluster.kubeconfig_for("system:kube-controller-manager", &[])?;
            let flags = flags::controller_manager(&cluster, &identity);
            cluster.run(Program::ControllerManager, &parts.kube_controller_manager()?, &flags)?;
        }
        if options.scheduler {
            let identity = cluster.kubeconfig_for("system:kube-scheduler", &[])?;
            cluster.run(Program::Scheduler, &parts.kube_scheduler()?, &flags::scheduler(&identity))?;
        }
        Ok(cluster)
    }

    /// The URL of the API server.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The certificate authority that signed the API server's certificate, as PEM.
    pub fn ca_pem(&self) -> &str {
        self.authority.pem()
    }

    /// The kubeconfig of a user with all rights. It contains the certificates and the key, so it can be copied.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// Makes a kubeconfig with a new client certificate for this user in these groups. RBAC decides what the user may do.
    pub fn kubeconfig_for(&self, user: &str, groups: &[&str]) -> Result<PathBuf> {
        let pair = self.authority.client(user, groups)?;
        // The file's name is random, because a user's name may have characters that file names should not have, and there
        // may be several kubeconfigs for one user, with different groups.
        let name = format!("kubeconfig-{:016x}", rand_core::RngCore::next_u64(&mut rand_core::OsRng));
        self.dir.write(&name, kubeconfig::render(&self.url, self.authority.pem(), user, &pair))
    }

    /// A client with all rights.
    pub async fn client(&self) -> Result<Client> {
        client(&self.kubeconfig).await
    }

    /// A client for this user in these groups; see [`Cluster::kubeconfig_for`].
    pub async fn client_for(&self, user: &str, groups: &[&str]) -> Result<Client> {
        client(&self.kubeconfig_for(user, groups)?).await
    }

    /// The path of the audit log, if the cluster was started with one.
    pub fn audit_log(&self) -> Option<PathBuf> {
        self.audit.then(|| self.file("audit.log"))
    }

    /// All requests so far, in the order of the audit log. Empty without [`ClusterOptions::audit`].
    pub fn requests(&self) -> Result<Vec<AuditEvent>> {
        self.audit_log().map_or(Ok(Vec::new()), |log| audit::read(&log))
    }

    /// One of the running programs, for example to pause it.
    pub fn program(&self, program: Program) -> Option<&ChildGuard> {
        self.programs.iter().find(|(candidate, _)| *candidate == program).map(|(_, child)| child)
    }

    /// The path of the log of one of the programs.
    pub fn log(&self, program: Program) -> PathBuf {
        self.file(&format!("{}.log", program.name()))
    }

    /// Makes a directory that is deleted with the cluster. If this process is killed, the next cluster that starts deletes
    /// it.
    pub fn make_folder(&self, name: &str) -> Result<PathBuf> {
        let folder = self.file(name);
        std::fs::create_dir(&folder).at("cannot create", &folder)?;
        Ok(folder)
    }

    fn file(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn api_port(&self) -> u16 {
        self.ports[0].number()
    }

    fn etcd_port(&self) -> u16 {
        self.ports[1].number()
    }

    fn write_files(&self) -> Result<()> {
        // The API server's own Service has the first address of the range for Services.
        let addresses = [Ipv4Addr::LOCALHOST, Ipv4Addr::new(10, 0, 0, 1)];
        let names = ["localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc"];
        let server = self.authority.server(&addresses, &names)?;
        let (private, public) = pki::service_account_keys()?;
        for (name, content) in [
            ("ca.crt", self.authority.pem()),
            ("server.crt", &server.certificate),
            ("server.key", &server.key),
            ("service-account.key", &private),
            ("service-account.pub", &public),
            ("audit-policy.json", audit::POLICY),
        ] {
            self.dir.write(name, content)?;
        }
        Ok(())
    }

    fn run(&mut self, program: Program, path: &Path, flags: &[String]) -> Result<()> {
        self.commands.push((program, path.to_owned(), flags.to_vec()));
        self.launch(program, path, flags)
    }

    fn launch(&mut self, program: Program, path: &Path, flags: &[String]) -> Result<()> {
        let mut command = Command::new(path);
        command.args(flags).current_dir(self.dir.path());
        let child = spawn_supervised(&command, Output::Log(self.log(program)))?;
        self.programs.insert(0, (program, child));
        Ok(())
    }
}

async fn client(path: &Path) -> Result<Client> {
    let attempt = async || -> Result<Client, Box<dyn std::error::Error>> {
        let config =
            Config::from_custom_kubeconfig(Kubeconfig::read_from(path)?, &KubeConfigOptions::default()).await?;
        Ok(Client::try_from(config)?)
    };
    attempt().await.map_err(|error| Error::Client { path: path.into(), reason: error.to_string() })
}
