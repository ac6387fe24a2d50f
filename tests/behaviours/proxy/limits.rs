//! The rate limit per client: `X-Forwarded-For` is trusted only if the API server sent it.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context, Result, ensure};
use harness::{eventually, kubernetes, network};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpSocket,
};

use super::Proxied;

/// The limit is one request per second, and this many additional requests at once.
const BURST: u32 = 1000;
/// So many requests that at least two of them come within one second on any machine.
const MANY: usize = 50;

fn arguments(trusted: &str) -> [String; 3] {
    ["--rate-limit=1".to_owned(), format!("--rate-limit-burst={BURST}"), format!("--trusted-proxies={trusted}")]
}

async fn proxied(trusted: &str) -> Result<Proxied<harness::programs::Controller>> {
    let arguments = arguments(trusted);
    Proxied::ours(&arguments.each_ref().map(String::as_str)).await
}

/// Makes one request from this address with this `X-Forwarded-For`. Returns how many requests the client may still make.
async fn left(proxied: &Proxied<harness::programs::Controller>, from: Ipv4Addr, forwarded_for: &str) -> Result<u32> {
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::from((from, 0)))?;
    let mut stream = socket.connect(SocketAddr::from((network::POD, proxied.controller.port))).await?;
    let request = format!("GET /v1/keys HTTP/1.0\r\nHost: test\r\nX-Forwarded-For: {forwarded_for}\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await?;
    let left = answer.lines().find_map(|line| line.strip_prefix("x-ratelimit-remaining: "));
    Ok(left.with_context(|| answer.clone())?.parse()?)
}

/// Makes many requests from this address, each with another `X-Forwarded-For`. Each answer says how many further
/// requests the client may make at once. Returns the smallest of these numbers.
async fn least(proxied: &Proxied<harness::programs::Controller>, from: Ipv4Addr) -> Result<u32> {
    static PEOPLE: AtomicU32 = AtomicU32::new(0);
    let mut least = u32::MAX;
    for _ in 0..MANY {
        let person = PEOPLE.fetch_add(1, Ordering::Relaxed);
        least = least.min(left(proxied, from, &format!("2001:db8::{person:x}")).await?);
    }
    Ok(least)
}

#[test]
fn nobody_invents_clients() -> Result<()> {
    network::of_its_own(async || {
        let proxied = proxied(&network::POD.to_string()).await?;
        // If a client connects directly, its `X-Forwarded-For` is ignored. Only that of the API server is trusted.
        ensure!(least(&proxied, Ipv4Addr::LOCALHOST).await? < BURST, "every request was somebody else's");
        ensure!(least(&proxied, network::POD).await? == BURST, "what the API server says does not count");

        // Then requests go through the real API server, which appends the address of its client to the header.
        let path = format!(
            "/api/v1/namespaces/{}/services/http:{}:http/proxy/v1/keys",
            harness::service::NAMESPACE,
            harness::service::CONTROLLER
        );
        let client = proxied.plane.cluster.client().await?;
        let mut least = u32::MAX;
        for number in 0..MANY {
            let request = http::Request::get(&path).header("x-forwarded-for", format!("198.51.100.{number}"));
            let answer = client.send(request.body(Vec::new().into())?).await?;
            ensure!(answer.status().is_success(), "{}", answer.status());
            let left = answer.headers().get("x-ratelimit-remaining").context("no limit")?.to_str()?.parse()?;
            least = least.min(left);
        }
        ensure!(least < BURST, "the client of the API server chose who he is");
        Ok(())
    })
}

#[test]
fn api_servers_are_known_by_their_service() -> Result<()> {
    network::of_its_own(async || {
        let proxied = proxied("auto").await?;
        ensure!(least(&proxied, network::POD).await? < BURST, "nothing says that an API server is there");
        let slice = json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {"name": "another-one", "labels": {"kubernetes.io/service-name": "kubernetes"}},
            "addressType": "IPv4", "endpoints": [{"addresses": [network::POD]}],
            "ports": [{"name": "https", "port": 6443}],
        });
        kubernetes::apply(&proxied.plane.cluster.client().await?, "default", slice).await?;
        eventually("the API server to be known", || async {
            let least = least(&proxied, network::POD).await?;
            ensure!(least == BURST, "{least} left");
            Ok(())
        })
        .await
    })
}
