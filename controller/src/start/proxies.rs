//! Where API servers connect from: the addresses that the Service `kubernetes` leads to.

use std::{collections::BTreeMap, net::IpAddr, pin::pin};

use futures::StreamExt as _;
use ipnet::IpNet;
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{
    Api, ResourceExt as _,
    runtime::{
        WatchStreamExt as _,
        watcher::{self, Event, watcher},
    },
};

use super::access::is_allowed;
use crate::{config::TrustedProxies, http::Proxies};

/// Where the Service `kubernetes` is, whatever else there is in a cluster.
const NAMESPACE: &str = "default";
const OF_THE_SERVICE: &str = "kubernetes.io/service-name=kubernetes";

/// Keeps `proxies` up to date, for ever.
pub(super) async fn follow(client: kube::Client, trusted: TrustedProxies, proxies: Proxies) {
    match trusted {
        TrustedProxies::Networks(networks) => proxies.set(networks),
        TrustedProxies::OfTheService if may_watch(&client).await => watch(client, &proxies).await,
        TrustedProxies::OfTheService => tracing::info!(
            "all that comes through the API server is one client to --rate-limit: the controller's role does not allow to \
             list endpointslices in the namespace default; name the API servers with --trusted-proxies, or give it what it \
             needs: gitseal install --apply"
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
    let mut events = pin!(watcher(slices, watcher::Config::default().labels(OF_THE_SERVICE)).default_backoff());
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
                tracing::warn!(%error, "the watch on the API servers' addresses is interrupted; it resumes by itself");
            }
        }
        proxies.set(known.values().flatten().copied());
    }
}

fn addresses(slice: &EndpointSlice) -> Vec<IpNet> {
    let all = slice.endpoints.iter().flat_map(|endpoint| &endpoint.addresses);
    all.filter_map(|address| address.parse::<IpAddr>().ok()).map(IpNet::from).collect()
}
