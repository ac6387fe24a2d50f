//! The cluster that kubeseal's flags name, and the controller in it behind the API server's service proxy.

mod config;

pub(super) use self::config::ClusterFlags;
use super::flags::Flags;
use crate::global::server_of;
use crate::output::one_line;
use crate::service_proxy::{Patience, ServiceProxy};

/// How often a request is sent again if the answer asks for it (`Retry-After`), as in kubeseal's client library.
const MOST_RETRIES: u32 = 10;

/// The controller that the flags name.
///
/// # Errors
/// The flags and the kubeconfig name no cluster, or the cluster has no such Service.
pub(super) async fn controller(flags: &Flags) -> anyhow::Result<ServiceProxy> {
    let config = ClusterFlags::new(flags).config().await?;
    let server = server_of(&config, flags.filled("context"));
    let client = apiclient::for_people(config, &server)?;
    let (namespace, name) = (flags.text("controller-namespace"), flags.text("controller-name"));
    let proxy = ServiceProxy::find(client, namespace, name, Patience::Times(MOST_RETRIES)).await;
    proxy.map_err(|error| {
        anyhow::anyhow!(
            "cannot get sealed secret service: {}.\nPlease, use the flag --controller-name and --controller-namespace to \
             set up the name and namespace of the sealed secrets controller",
            one_line(&error)
        )
    })
}
