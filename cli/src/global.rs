//! Flags that every command has, and what follows from them: a client and a namespace.

use std::path::PathBuf;
use std::sync::OnceLock;

use anyhow::Context;
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};

use crate::completion;
use crate::output::{Hint, OutputFormat};

/// Flags that every command has.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Kubeconfig file, by default $KUBECONFIG or ~/.kube/config
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig, by default its current one
    #[arg(long, global = true, value_name = "NAME", add = completion::contexts())]
    pub context: Option<String>,

    /// Namespace, by default that of the kubeconfig's context
    #[arg(short, long, global = true, value_name = "NAMESPACE", add = completion::namespaces())]
    namespace: Option<String>,

    /// Machine-readable output; `name` prints only the names of objects
    #[arg(short, long, global = true, value_name = "json|yaml|name", hide_possible_values = true)]
    pub output: Option<OutputFormat>,

    /// Namespace of the controller [default: kube-system]
    #[arg(
        long,
        global = true,
        value_name = "NAMESPACE",
        env = "SEALED_SECRETS_CONTROLLER_NAMESPACE",
        add = completion::namespaces()
    )]
    controller_namespace: Option<String>,

    /// Name of the controller's Service [default: sealed-secrets-controller]
    #[arg(long, global = true, value_name = "NAME", env = "SEALED_SECRETS_CONTROLLER_NAME")]
    controller_name: Option<String>,

    /// The kubeconfig, which is read once.
    #[arg(skip)]
    read: OnceLock<Kubeconfig>,
}

/// The namespace in which kubeseal looks for the controller.
pub const CONTROLLER_NAMESPACE: &str = "kube-system";
/// The name under which kubeseal looks for the controller's Service.
pub const CONTROLLER_NAME: &str = "sealed-secrets-controller";

impl Global {
    /// The controller's namespace.
    pub fn controller_namespace(&self) -> &str {
        self.chosen_controller_namespace().unwrap_or(CONTROLLER_NAMESPACE)
    }

    /// The controller's namespace, if the user named one.
    pub fn chosen_controller_namespace(&self) -> Option<&str> {
        self.controller_namespace.as_deref()
    }

    /// The name of the controller's Service.
    pub fn controller_name(&self) -> &str {
        self.chosen_controller_name().unwrap_or(CONTROLLER_NAME)
    }

    /// The name of the controller's Service, if the user named it.
    pub fn chosen_controller_name(&self) -> Option<&str> {
        self.controller_name.as_deref()
    }

    /// The namespace that was given as a flag.
    pub fn namespace(&self) -> Option<String> {
        self.namespace.clone()
    }

    /// The namespace to work in: that of the flag, or of the kubeconfig's context, or `default`. Needs no cluster.
    pub fn default_namespace(&self) -> String {
        self.namespace().or_else(|| self.context_namespace()).unwrap_or_else(|| "default".into())
    }

    /// [`Global::default_namespace`] for messages. If the user did not name a namespace, the text says where this
    /// namespace comes from.
    pub fn told_namespace(&self) -> String {
        let from = match (&self.namespace, self.context_namespace()) {
            (Some(_), _) => "",
            (None, Some(_)) => " (that of the kubeconfig's context)",
            (None, None) => " (the kubeconfig's context names none)",
        };
        format!("namespace {}{from}", self.default_namespace())
    }

    /// Whether the user named a kubeconfig, or there is one with a context.
    pub fn has_kubeconfig(&self) -> bool {
        self.kubeconfig().is_ok_and(|kubeconfig| self.kubeconfig.is_some() || !kubeconfig.contexts.is_empty())
    }

    fn context_namespace(&self) -> Option<String> {
        let kubeconfig = self.kubeconfig().ok()?;
        let wanted = self.context_name()?;
        let context = kubeconfig.contexts.iter().find(|c| c.name == wanted)?;
        context.context.as_ref()?.namespace.clone().filter(|namespace| !namespace.is_empty())
    }

    /// The content of the kubeconfig.
    ///
    /// # Errors
    /// There is none, or it cannot be read.
    pub fn kubeconfig(&self) -> Result<&Kubeconfig, KubeconfigError> {
        if let Some(read) = self.read.get() {
            return Ok(read);
        }
        let read = match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        }?;
        Ok(self.read.get_or_init(|| read))
    }

    /// A client of the cluster that the flags name.
    ///
    /// # Errors
    /// There is no kubeconfig, it cannot be read, or it lacks the context.
    pub async fn client(&self) -> anyhow::Result<Client> {
        self.client_of(self.config().await?)
    }

    /// A client for `config`, which is that of [`Global::config`], perhaps with changes.
    ///
    /// # Errors
    /// A certificate, a key or a proxy in `config` cannot be used.
    pub fn client_of(&self, config: Config) -> anyhow::Result<Client> {
        let server = server_of(&config, self.context_name().as_deref());
        apiclient::for_people(config, &server).context("cannot set up the connection to the cluster")
    }

    /// Like [`Global::client`], for callers that try requests again themselves.
    ///
    /// # Errors
    /// The same as those of [`Global::client`].
    pub async fn client_without_retries(&self) -> anyhow::Result<Client> {
        let mut config = self.config().await?;
        config.default_retry = false;
        self.client_of(config)
    }

    /// The context of the kubeconfig that is used, if there is one.
    fn context_name(&self) -> Option<String> {
        self.context.clone().or_else(|| self.kubeconfig().ok()?.current_context.clone()).filter(|name| !name.is_empty())
    }

    /// A hint that lists the contexts of the kubeconfig.
    fn other_contexts(&self) -> String {
        let contexts = self.kubeconfig().map(|kubeconfig| kubeconfig.contexts.clone()).unwrap_or_default();
        let names: Vec<_> = contexts.iter().map(|context| context.name.as_str()).collect();
        if names.is_empty() {
            return "name a kubeconfig with --kubeconfig or $KUBECONFIG, and a context with --context".into();
        }
        format!("--context names one of the kubeconfig's contexts: {}", names.join(", "))
    }

    /// How to reach the cluster that the flags name.
    ///
    /// # Errors
    /// As for [`Global::client`].
    pub async fn config(&self) -> anyhow::Result<Config> {
        let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
        let mut config =
            async { Ok(Config::from_custom_kubeconfig(self.kubeconfig()?.clone(), &options).await?) }.await;
        if config.is_err() && self.kubeconfig.is_none() && self.context.is_none() {
            // In a Pod there may be no kubeconfig: then the Pod's service account is used.
            config = Config::infer().await.map_err(anyhow::Error::from);
        }
        config.with_context(|| Hint::new("cannot tell which cluster to talk to", self.other_contexts()))
    }
}

/// The name of the API server of `config` in messages: its address, and the context.
pub fn server_of(config: &Config, context: Option<&str>) -> String {
    let url = &config.cluster_url;
    // The message does not get the whole authority of the URL, because it may contain a password.
    let host = url.host().unwrap_or_default();
    let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
    let scheme = url.scheme_str().unwrap_or("https");
    let context = context.map(|name| format!(" (context {name})")).unwrap_or_default();
    format!("the API server {scheme}://{host}{port}{}{context}", url.path().trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        global: Global,
    }

    #[test]
    fn a_namespace_that_nobody_named_is_told_with_where_it_came_from() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("config");
        let context =
            |name: &str, namespace: &str| format!("- {{name: {name}, context: {{cluster: c, user: u{namespace}}}}}\n");
        let contexts = context("shop", ", namespace: shop") + &context("none", "");
        std::fs::write(&file, format!("apiVersion: v1\nkind: Config\ncurrent-context: shop\ncontexts:\n{contexts}"))
            .unwrap();
        let told = |more: &[&str]| {
            let arguments = ["gitseal", "--kubeconfig", file.to_str().unwrap()].into_iter().chain(more.iter().copied());
            Flags::parse_from(arguments).global.told_namespace()
        };
        assert_eq!(told(&[]), "namespace shop (that of the kubeconfig's context)");
        assert_eq!(told(&["--context", "none"]), "namespace default (the kubeconfig's context names none)");
        assert_eq!(told(&["--namespace", "shop"]), "namespace shop");
    }

    #[test]
    fn a_server_is_named_by_its_address_and_context_and_without_a_password() {
        let named = |url: &str, context| server_of(&Config::new(url.parse().unwrap()), context);
        assert_eq!(
            named("https://a:b@10.0.0.1:6443/k8s/c1/", Some("prod")),
            "the API server https://10.0.0.1:6443/k8s/c1 (context prod)"
        );
        assert_eq!(named("https://k.example", None), "the API server https://k.example");
    }
}
