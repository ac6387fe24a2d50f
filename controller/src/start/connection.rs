//! Connects to the API server.

use std::{fmt::Display, sync::Arc};

use apiclient::{Builder, Deadlines};
use flags::{Config, Network};
use futures::future::BoxFuture;
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use tower::util::MapFutureLayer;

use super::StartError;
use crate::{leader::Leadership, rate::Turns};

/// Clients of one API server.
pub(super) struct Connection {
    /// The client for all work, which is limited by `--kubeclient-qps`.
    pub(super) client: Client,
    /// The client for requests that must not wait because of this limit.
    pub(super) urgent: Client,
    /// The namespace of the controller.
    pub(super) namespace: String,
}

/// Connects to the API server that the command line, the environment or the surrounding cluster names.
pub(super) async fn connect(config: &Config, leadership: &Leadership) -> Result<Connection, StartError> {
    let unusable = |error: &dyn Display| StartError::Kubeconfig(error.to_string());
    let kube_config = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| unusable(&error))?
        }
        None => kube::Config::infer().await.map_err(|error| unusable(&error))?,
    };
    let namespace = config.namespace.clone().unwrap_or_else(|| kube_config.default_namespace.clone());
    // The client does not try failed requests again: the work queues do this.
    let leadership = leadership.clone();
    let deadlines = Deadlines::for_controllers(move || leadership.leads());
    let builder = || apiclient::builder(kube_config.clone(), deadlines.clone()).map_err(|error| unusable(&error));
    let urgent = builder()?.build();
    let client = match limit(&config.network) {
        None => urgent.clone(),
        Some((per_second, burst)) => {
            tracing::info!(per_second, burst, "requests to the API server are limited by --kubeclient-qps");
            limited(builder()?, Arc::new(Turns::new(per_second, burst)))
        }
    };
    Ok(Connection { client, urgent, namespace })
}

/// The limit of requests: how many per second, and how many more may be sent at once. `None` means no limit. As in
/// client-go, zero means the default of client-go, and a negative number means no limit.
fn limit(network: &Network) -> Option<(f64, u32)> {
    let per_second = match network.kubeclient_qps? {
        0.0 => 5.0,
        per_second if per_second > 0.0 => per_second,
        _ => return None,
    };
    let at_once = match network.kubeclient_burst {
        None | Some(0) => 10,
        Some(burst) => u32::try_from(burst).unwrap_or(1),
    };
    Some((per_second.into(), at_once.saturating_sub(1)))
}

/// A client whose requests wait for their turns. The deadline of a request begins at its turn.
fn limited(builder: Builder, turns: Arc<Turns>) -> Client {
    builder.with_layer(&MapFutureLayer::new(later(turns))).build()
}

/// A function that delays a request until its turn. This is possible because a request is sent only when its future is
/// polled.
fn later<F>(turns: Arc<Turns>) -> impl Fn(F) -> BoxFuture<'static, F::Output> + Clone
where
    F: Future + Send + 'static,
{
    move |answer| {
        let turns = Arc::clone(&turns);
        Box::pin(async move {
            turns.next().await;
            answer.await
        })
    }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;

    use clap::Parser as _;
    use futures::future::{Either, select};

    use super::*;
    use crate::keys::tests::fake_api::FakeApi;

    fn limit_of(arguments: &[&str]) -> Option<(f64, u32)> {
        limit(&Config::try_parse_from([&["gitseal-controller"], arguments].concat()).unwrap().network)
    }

    #[test]
    fn limits_are_those_of_client_go_if_there_are_any() {
        assert_eq!(limit_of(&[]), None);
        assert_eq!(limit_of(&["--kubeclient-burst=50"]), None);
        assert_eq!(limit_of(&["--kubeclient-qps=-1"]), None);
        assert_eq!(limit_of(&["--kubeclient-qps=NaN"]), None);
        assert_eq!(limit_of(&["--kubeclient-qps=0", "--kubeclient-burst=0"]), Some((5.0, 9)));
        assert_eq!(limit_of(&["--kubeclient-qps=20.5", "--kubeclient-burst=30"]), Some((20.5, 29)));
        assert_eq!(limit_of(&["--kubeclient-qps=20", "--kubeclient-burst=-5"]), Some((20.0, 0)));
    }

    #[tokio::test]
    async fn requests_beyond_the_burst_wait() {
        let (api, url) = FakeApi::listening().await;
        let builder = apiclient::builder(kube::Config::new(url), Deadlines::for_controllers(|| true)).unwrap();
        let client = limited(builder, Arc::new(Turns::new(0.001, 1)));
        for _ in 0..2 {
            assert!(client.apiserver_version().await.is_err(), "the fake API server has none");
        }
        let third = pin!(client.apiserver_version());
        let fourth = pin!(client.apiserver_version());
        // Gives both requests enough time to arrive, in case they were sent.
        let others = async {
            for _ in 0..1000 {
                tokio::task::yield_now().await;
            }
        };
        assert!(matches!(select(select(third, fourth), pin!(others)).await, Either::Right(_)), "they wait");
        assert_eq!(api.requests().len(), 2);
    }
}
