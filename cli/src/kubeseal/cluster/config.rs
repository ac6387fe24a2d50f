//! Finds the API server and the credentials from kubeconfig files and kubectl's flags, as kubectl does.

use std::env;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use kube::Config;
use kube::config::{AuthInfo, Cluster, KubeConfigOptions, Kubeconfig, NamedAuthInfo, NamedCluster, NamedContext};

use crate::kubeseal::errors::reason;
use crate::kubeseal::flags::Flags;

const NO_CONFIG: &str =
    "invalid configuration: no configuration has been provided, try setting KUBERNETES_MASTER environment variable";
const SERVICE_ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// How long connecting may take if no flag says it, as in kubectl.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Name of the only context, cluster and user after all flags are applied.
const CHOSEN: &str = "chosen";

/// The flags that choose the cluster and the kubeconfig files.
pub(in crate::kubeseal) struct ClusterFlags<'f> {
    flags: &'f Flags,
}

impl<'f> ClusterFlags<'f> {
    pub(in crate::kubeseal) fn new(flags: &'f Flags) -> Self {
        Self { flags }
    }

    /// The namespace to work in, and whether a flag named it.
    ///
    /// # Errors
    /// There is neither a flag nor a usable kubeconfig, and the program does not run in a Pod.
    pub(in crate::kubeseal) fn namespace(&self) -> anyhow::Result<(String, bool)> {
        if let Some(namespace) = self.flags.filled("namespace") {
            return Ok((namespace.to_owned(), true));
        }
        let kubeconfig = self.kubeconfig()?;
        let own = match self.chosen(&kubeconfig) {
            Ok(chosen) => chosen.namespace,
            Err(error) if is_no_config(&error) && is_in_cluster() => None,
            Err(error) => return Err(error),
        };
        Ok(match own {
            Some(namespace) => (namespace, false),
            None if is_in_cluster() => (namespace_of_pod(), false),
            None => ("default".to_owned(), false),
        })
    }

    /// How to reach the API server.
    ///
    /// # Errors
    /// The kubeconfig cannot be read or names no cluster.
    pub(in crate::kubeseal) async fn config(&self) -> anyhow::Result<Config> {
        let kubeconfig = self.kubeconfig()?;
        let mut config = match self.chosen(&kubeconfig) {
            Ok(chosen) => chosen.into_config().await?,
            Err(error) if is_no_config(&error) && is_in_cluster() => self.in_cluster()?,
            Err(error) => return Err(error),
        };
        let timeout = timeout(self.flags.text("request-timeout"))?;
        (config.read_timeout, config.write_timeout) = (timeout, timeout);
        config.connect_timeout = timeout.or(Some(CONNECT_TIMEOUT));
        // A Service without a running controller answers 503. This is reported at once, without trying again for half a
        // minute.
        config.default_retry = false;
        if let Some(uid) = self.flags.filled("as-uid") {
            let value = uid.parse().context("--as-uid has characters that an HTTP header cannot have")?;
            config.headers.push((http::HeaderName::from_static("impersonate-uid"), value));
        }
        Ok(config)
    }

    fn in_cluster(&self) -> anyhow::Result<Config> {
        let mut config = Config::incluster().context("cannot use the pod's service account")?;
        if let Some(token) = self.flags.filled("token") {
            config.auth_info.token_file = None;
            config.auth_info.token = Some(token.to_owned().into());
        }
        Ok(config)
    }

    /// All kubeconfig files, merged. A missing file is skipped; it is an error only if --kubeconfig names it.
    fn kubeconfig(&self) -> anyhow::Result<Kubeconfig> {
        if let Some(file) = self.flags.filled("kubeconfig") {
            std::fs::metadata(file).map_err(|error| anyhow::anyhow!("stat {file}: {}", reason(&error)))?;
            return read(Path::new(file));
        }
        let mut merged = Kubeconfig::default();
        for file in kubeconfig_files() {
            if file.exists() {
                merged = merged.merge(read(&file)?)?;
            }
        }
        Ok(merged)
    }

    /// The context, cluster and user that the flags choose, after other flags have replaced some of their fields.
    fn chosen(&self, kubeconfig: &Kubeconfig) -> anyhow::Result<Chosen> {
        let flag = |name: &str| self.flags.filled(name).map(str::to_owned);
        let asked_for = flag("context");
        let name = asked_for.clone().or_else(|| kubeconfig.current_context.clone()).filter(|name| !name.is_empty());
        let context = kubeconfig.contexts.iter().find(|context| Some(&context.name) == name.as_ref());
        if let (Some(name), None) = (&name, context) {
            if asked_for.is_some() {
                bail!("context {name:?} does not exist");
            }
            bail!("invalid configuration: context was not found for specified context: {name}");
        }
        let context = context.and_then(|context| context.context.clone()).unwrap_or_default();
        let cluster = pick(flag("cluster"), &context.cluster, &kubeconfig.clusters, "cluster", |cluster| {
            (&cluster.name, cluster.cluster.clone())
        })?;
        let user = context.user.clone().unwrap_or_default();
        let user = pick(flag("user"), &user, &kubeconfig.auth_infos, "auth info", |user| {
            (&user.name, user.auth_info.clone())
        })?;
        let cluster = self.with_cluster_flags(cluster.unwrap_or_default());
        if cluster.server.as_ref().is_none_or(String::is_empty) {
            bail!(NO_CONFIG);
        }
        let namespace = context.namespace.filter(|namespace| !namespace.is_empty());
        Ok(Chosen { cluster, user: self.with_user_flags(user.unwrap_or_default()), namespace })
    }

    fn with_cluster_flags(&self, mut cluster: Cluster) -> Cluster {
        let flag = |name: &str| self.flags.filled(name).map(str::to_owned);
        let (server, authority) = (flag("server"), flag("certificate-authority"));
        let is_insecure = self.flags.is_on("insecure-skip-tls-verify");
        if authority.is_some() || is_insecure {
            cluster.insecure_skip_tls_verify = Some(is_insecure);
            cluster.certificate_authority = authority;
            cluster.certificate_authority_data = None;
        }
        if server.is_some() || flag("tls-server-name").is_some() {
            cluster.tls_server_name = flag("tls-server-name");
        }
        cluster.server = server.or(cluster.server);
        cluster.proxy_url = flag("proxy-url").or(cluster.proxy_url);
        cluster
    }

    fn with_user_flags(&self, mut user: AuthInfo) -> AuthInfo {
        let flag = |name: &str| self.flags.filled(name).map(str::to_owned);
        if let Some(file) = flag("client-certificate") {
            (user.client_certificate, user.client_certificate_data) = (Some(file), None);
        }
        if let Some(file) = flag("client-key") {
            (user.client_key, user.client_key_data) = (Some(file), None);
        }
        user.token = flag("token").map(Into::into).or(user.token);
        user.username = flag("username").or(user.username);
        user.password = flag("password").map(Into::into).or(user.password);
        user.impersonate = flag("as").or(user.impersonate);
        let groups = self.flags.list("as-group");
        if !groups.is_empty() {
            user.impersonate_groups = Some(groups.to_vec());
        }
        user
    }
}

struct Chosen {
    cluster: Cluster,
    user: AuthInfo,
    namespace: Option<String>,
}

impl Chosen {
    async fn into_config(self) -> anyhow::Result<Config> {
        // As in kubectl, no credentials are sent over a connection that others can read.
        let is_tls = self.cluster.server.as_ref().is_some_and(|server| !server.starts_with("http://"));
        let user =
            if is_tls { self.user } else { AuthInfo { impersonate: self.user.impersonate, ..AuthInfo::default() } };
        let context = kube::config::Context {
            cluster: CHOSEN.to_owned(),
            user: Some(CHOSEN.to_owned()),
            namespace: self.namespace,
            ..kube::config::Context::default()
        };
        let mut cluster = self.cluster;
        cluster.server =
            cluster.server.map(|server| if server.contains("://") { server } else { format!("http://{server}") });
        let kubeconfig = Kubeconfig {
            current_context: Some(CHOSEN.to_owned()),
            contexts: vec![NamedContext { name: CHOSEN.to_owned(), context: Some(context), ..NamedContext::default() }],
            clusters: vec![NamedCluster { name: CHOSEN.to_owned(), cluster: Some(cluster), ..NamedCluster::default() }],
            auth_infos: vec![NamedAuthInfo {
                name: CHOSEN.to_owned(),
                auth_info: Some(user),
                ..NamedAuthInfo::default()
            }],
            ..Kubeconfig::default()
        };
        let options = KubeConfigOptions::default();
        Config::from_custom_kubeconfig(kubeconfig, &options).await.context("invalid configuration")
    }
}

/// The cluster or user that the flag names (an error if there is none); without the flag, that of the context.
fn pick<N, T>(
    flag: Option<String>,
    of_context: &str,
    entries: &[N],
    kind: &str,
    part: impl Fn(&N) -> (&String, Option<T>),
) -> anyhow::Result<Option<T>> {
    let name = flag.as_deref().unwrap_or(of_context);
    let found = entries.iter().map(part).find(|(known, _)| known.as_str() == name);
    if found.is_none() && flag.is_some() {
        bail!("{kind} {name:?} does not exist");
    }
    Ok(found.and_then(|(_, entry)| entry))
}

fn read(file: &Path) -> anyhow::Result<Kubeconfig> {
    Kubeconfig::read_from(file).with_context(|| format!("error loading config file {:?}", file.display().to_string()))
}

fn kubeconfig_files() -> Vec<PathBuf> {
    let listed = env::var_os("KUBECONFIG").filter(|files| !files.is_empty());
    match listed {
        Some(files) => env::split_paths(&files).filter(|file| !file.as_os_str().is_empty()).collect(),
        None => env::home_dir().map(|home| home.join(".kube/config")).into_iter().collect(),
    }
}

fn is_no_config(error: &anyhow::Error) -> bool {
    error.to_string() == NO_CONFIG
}

fn is_in_cluster() -> bool {
    let is_set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    is_set("KUBERNETES_SERVICE_HOST")
        && is_set("KUBERNETES_SERVICE_PORT")
        && Path::new(SERVICE_ACCOUNT).join("token").is_file()
}

fn namespace_of_pod() -> String {
    let named = env::var("POD_NAMESPACE").ok().filter(|namespace| !namespace.is_empty());
    let own = || std::fs::read_to_string(Path::new(SERVICE_ACCOUNT).join("namespace")).ok();
    let own = named.or_else(own).map(|namespace| namespace.trim().to_owned());
    own.filter(|namespace| !namespace.is_empty()).unwrap_or_else(|| "default".to_owned())
}

/// Reads a number of seconds, or numbers with units such as `1m30s`. Zero means that there is no timeout.
fn timeout(text: &str) -> anyhow::Result<Option<Duration>> {
    let seconds = text.parse().ok().map(Duration::from_secs);
    let duration = seconds.or_else(|| {
        let span: jiff::SignedDuration = text.parse().ok()?;
        Duration::try_from(span).ok()
    });
    let duration = duration.context(
        "Invalid timeout value. Timeout must be a single integer in seconds, or an integer followed by a corresponding \
         time unit (e.g. 1s | 2m | 3h)",
    )?;
    Ok(Some(duration).filter(|duration| !duration.is_zero()))
}

#[cfg(test)]
mod tests;
