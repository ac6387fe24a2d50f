//! Finds the addresses that API servers connect from: the addresses behind the Service `kubernetes`.

use std::{collections::BTreeMap, net::IpAddr, pin::pin};

use flags::TrustedProxies;
use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, ResourceExt as _,
    runtime::watcher::{self, Event},
};

use super::access::is_allowed;
use crate::{cluster, http::Proxies};

/// The namespace in which every cluster has the Service `kubernetes`.
const NAMESPACE: &str = "default";
const OF_THE_SERVICE: &str = "kubernetes.io/service-name=kubernetes";

/// Keeps the addresses in `proxies` up to date, for ever.
pub(super) async fn follow(client: kube::Client, trusted: TrustedProxies, proxies: Proxies) {
    match trusted {
        TrustedProxies::Networks(networks) => proxies.set(networks),
        TrustedProxies::OfTheService if may_watch(&client).await => watch(client, &proxies).await,
        TrustedProxies::OfTheService => tracing::info!(
            "all clients that come through the API server share one --rate-limit: the controller's role does not \
             allow it to list endpointslices in the namespace default; name the API servers with --trusted-proxies, \
             or add the rights: gitseal install --apply"
        ),
    }
    std::future::pending::<()>().await;
}

async fn may_watch(client: &kube::Client) -> bool {
    let right = |verb| ("discovery.k8s.io", "endpointslices", "", verb);
    is_allowed(client, right("list"), Some(NAMESPACE)).await
        && is_allowed(client, right("watch"), Some(NAMESPACE)).await
}

async fn watch(client: kube::Client, proxies: &Proxies) {
    let slices: Api<EndpointSlice> = Api::namespaced(client, NAMESPACE);
    let config = watcher::Config::default().labels(OF_THE_SERVICE);
    let mut events = pin!(cluster::follow(slices, config.clone(), config));
    let mut known: BTreeMap<String, Vec<IpNet>> = BTreeMap::new();
    let mut listed = BTreeMap::new();
    while let Some(event) = events.next().await {
        match event {
            Ok(Event::Init) => listed.clear(),
            Ok(Event::InitApply(slice)) => drop(listed.insert(slice.name_any(), addresses(&slice))),
            Ok(Event::InitDone) => known = std::mem::take(&mut listed),
            Ok(Event::Apply(slice)) => drop(known.insert(slice.name_any(), addresses(&slice))),
            Ok(Event::Delete(slice)) => drop(known.remove(&slice.name_any())),
            Err(error) => {
                let why = apiclient::words::of_watch(&error);
                tracing::warn!(
                    error = why,
                    "the watch on the API servers' addresses is interrupted; it begins again by itself"
                );
            }
        }
        proxies.set(known.values().flatten().copied());
    }
}

fn addresses(slice: &EndpointSlice) -> Vec<IpNet> {
    let all = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    all.filter_map(|address| address.parse::<IpAddr>().ok()).map(IpNet::from).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use axum::{Router, extract::RawQuery, http::StatusCode, response::IntoResponse};
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    static LISTS: AtomicUsize = AtomicUsize::new(0);

    /// The fake API server's answer: every list shows a new address, and every watch fails.
    async fn answer(RawQuery(query): RawQuery) -> axum::response::Response {
        if query.unwrap_or_default().contains("watch=") {
            return StatusCode::INTERNAL_SERVER_ERROR.into_response();
        }
        let number = LISTS.fetch_add(1, Ordering::Relaxed);
        let slice = json!({"metadata": {"name": "kubernetes"}, "addressType": "IPv4",
            "endpoints": [{"addresses": [format!("10.0.0.{number}")]}], "ports": []});
        let list = json!({"kind": "EndpointSliceList", "apiVersion": "discovery.k8s.io/v1",
            "metadata": {"resourceVersion": "1000"}, "items": [slice]});
        list.to_string().into_response()
    }

    #[tokio::test]
    async fn after_a_watch_that_failed_the_addresses_are_those_of_a_fresh_list() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, Router::new().fallback(answer)).await.unwrap() });
        let mut config = kube::Config::new(url.parse().unwrap());
        config.default_retry = false;
        let client = kube::Client::try_from(config).unwrap();
        let proxies = Proxies::default();
        let watching = tokio::spawn({
            let proxies = proxies.clone();
            async move { watch(client, &proxies).await }
        });
        while !proxies.contains("10.0.0.1".parse().unwrap()) {
            tokio::task::yield_now().await;
        }
        assert!(!proxies.contains("10.0.0.0".parse().unwrap()), "that was the list before");
        watching.abort();
    }
}
