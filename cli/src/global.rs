//! Flags that every command has, and what follows from them: a client, a namespace, the sealing certificate.

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use http::Uri;
use k8s_openapi::api::core::v1::Service;
use kube::{
    Api, Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};

use crate::output::{Hint, OutputFormat};
use crate::service_proxy::proxy_path;

/// How long a certificate may take to come from a URL or the cluster.
const CERTIFICATE_TIMEOUT: Duration = Duration::from_secs(30);

/// Flags that every command has.
#[derive(clap::Args)]
#[command(next_help_heading = "Global options")]
pub struct Global {
    /// Kubeconfig file; $KUBECONFIG or ~/.kube/config when absent
    #[arg(long, global = true, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,

    /// Context of the kubeconfig; its current one when absent
    #[arg(long, global = true, value_name = "NAME")]
    pub context: Option<String>,

    /// Namespace; that of the kubeconfig's context when absent
    #[arg(short, long, global = true, value_name = "NAMESPACE")]
    namespace: Option<String>,

    /// Machine-readable output
    #[arg(short, long, global = true, value_name = "json|yaml", hide_possible_values = true)]
    pub output: Option<OutputFormat>,

    /// Namespace of the controller
    #[arg(
        long,
        global = true,
        value_name = "NAMESPACE",
        env = "SEALED_SECRETS_CONTROLLER_NAMESPACE",
        default_value = "kube-system"
    )]
    pub controller_namespace: String,

    /// Name of the controller's Service
    #[arg(
        long,
        global = true,
        value_name = "NAME",
        env = "SEALED_SECRETS_CONTROLLER_NAME",
        default_value = "sealed-secrets-controller"
    )]
    pub controller_name: String,
}

impl Global {
    /// The namespace that was given as a flag.
    pub fn namespace(&self) -> Option<String> {
        self.namespace.clone()
    }

    /// The namespace to work in: the flag, else that of the kubeconfig's context, else `default`. Needs no cluster.
    pub fn default_namespace(&self) -> String {
        self.namespace().or_else(|| self.context_namespace()).unwrap_or_else(|| "default".into())
    }

    fn context_namespace(&self) -> Option<String> {
        let kubeconfig = self.kubeconfig().ok()?;
        let wanted = self.context.as_ref().or(kubeconfig.current_context.as_ref())?;
        let context = kubeconfig.contexts.iter().find(|c| &c.name == wanted)?;
        context.context.as_ref()?.namespace.clone().filter(|namespace| !namespace.is_empty())
    }

    fn kubeconfig(&self) -> Result<Kubeconfig, kube::config::KubeconfigError> {
        match &self.kubeconfig {
            Some(file) => Kubeconfig::read_from(file),
            None => Kubeconfig::read(),
        }
    }

    /// A client of the cluster that the flags name.
    ///
    /// # Errors
    /// There is no kubeconfig, it cannot be read, or it lacks the context.
    pub async fn client(&self) -> anyhow::Result<Client> {
        apiclient::for_people(self.config().await?).context("cannot set up the connection to the cluster")
    }

    /// How to reach the cluster that the flags name.
    ///
    /// # Errors
    /// As for [`Global::client`].
    pub async fn config(&self) -> anyhow::Result<Config> {
        let config = if self.kubeconfig.is_none() && self.context.is_none() {
            Config::infer().await.map_err(anyhow::Error::from)
        } else {
            let options = KubeConfigOptions { context: self.context.clone(), ..KubeConfigOptions::default() };
            async { Ok(Config::from_custom_kubeconfig(self.kubeconfig()?, &options).await?) }.await
        };
        config.with_context(|| {
            Hint::new(
                "cannot tell which cluster to talk to",
                "name a kubeconfig with --kubeconfig or $KUBECONFIG, and a context with --context",
            )
        })
    }

    /// The certificate to seal with: from a file or URL, else from the controller in the cluster.
    ///
    /// # Errors
    /// It cannot be fetched, or is not a certificate. An expired one is returned: the caller decides.
    pub async fn certificate(&self, cert: Option<&str>) -> anyhow::Result<sealing::Certificate> {
        let (pem, from) = match cert {
            Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
                let pem = tokio::time::timeout(CERTIFICATE_TIMEOUT, download(url))
                    .await
                    .with_context(|| format!("{url} did not answer within {} s", CERTIFICATE_TIMEOUT.as_secs()))?
                    .with_context(|| {
                        Hint::new(
                            format!("cannot fetch the certificate from {url}"),
                            "the address must answer with the certificate itself: redirects are not followed",
                        )
                    })?;
                (pem, url.to_owned())
            }
            Some(file) => {
                let pem = std::fs::read(file).with_context(|| format!("cannot read the certificate {file}"))?;
                (pem, file.to_owned())
            }
            None => {
                let from = format!("service {}/{}", self.controller_namespace, self.controller_name);
                let pem = tokio::time::timeout(CERTIFICATE_TIMEOUT, self.certificate_of_controller())
                    .await
                    .map_err(|_| anyhow::anyhow!("no answer within {} s", CERTIFICATE_TIMEOUT.as_secs()))
                    .flatten()
                    .with_context(|| {
                        Hint::new(
                            format!("cannot fetch the certificate from the controller ({from})"),
                            "name the controller with --controller-namespace and --controller-name, \
                             or seal without a cluster: --cert FILE-OR-URL",
                        )
                    })?;
                (pem, from)
            }
        };
        sealing::Certificate::from_pem(&pem).with_context(|| {
            Hint::new(
                format!("{from} holds no usable certificate"),
                "a certificate is PEM text that starts with -----BEGIN CERTIFICATE-----; `gitseal cert` prints the cluster's",
            )
        })
    }

    /// Through the API server's service proxy, by the name of the Service's first port, as kubeseal does.
    async fn certificate_of_controller(&self) -> anyhow::Result<Vec<u8>> {
        // A Service without a running controller answers 503: said at once instead of tried for half a minute.
        let mut config = self.config().await?;
        config.default_retry = false;
        let client = apiclient::for_people(config)?;
        let (namespace, name) = (&self.controller_namespace, &self.controller_name);
        let service = Api::<Service>::namespaced(client.clone(), namespace).get(name).await?;
        let port = service.spec.and_then(|spec| spec.ports).and_then(|ports| ports.into_iter().next());
        let port = port.and_then(|port| port.name).unwrap_or_default();
        let path = format!("{}/v1/cert.pem", proxy_path(namespace, name, &port));
        Ok(client.request_text(http::Request::get(path).body(Vec::new())?).await?.into_bytes())
    }
}

/// Fetches `url` with the HTTP client that talks to the cluster, without any of the cluster's credentials.
async fn download(url: &str) -> anyhow::Result<Vec<u8>> {
    let url: Uri = url.parse().context("not a URL")?;
    let path = url.path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let mut base = url.into_parts();
    base.path_and_query = Some(http::uri::PathAndQuery::from_static("/"));
    let mut config = Config::new(Uri::from_parts(base)?);
    config.default_retry = false;
    let client = apiclient::for_people(config)?;
    let text = client.request_text(http::Request::get(path).body(Vec::new())?).await?;
    Ok(text.into_bytes())
}
