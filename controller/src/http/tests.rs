mod inquiries;

use std::time::Duration;

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};

use super::*;
use crate::keys::tests::keyring_of_vectors;

/// A time that is longer than any answer takes.
const LIMIT: Duration = Duration::from_secs(60);

fn state() -> HttpState {
    HttpState {
        keyring: Arc::default(),
        readiness: Readiness::new(["keys", "watches"]),
        metrics: Metrics::new("v0.1.0"),
        timeouts: Timeouts::default(),
        inquiries: Arc::new(Inquiries::new(1000, 1000, true)),
        proxies: Proxies::default(),
    }
}

async fn serving(state: HttpState) -> (Servers, CancellationToken) {
    let shutdown = CancellationToken::new();
    let any = "127.0.0.1:0";
    let servers = serve(Listen { api: any, metrics: any, probes: any }, state, shutdown.clone()).await.unwrap();
    (servers, shutdown)
}

/// Sends a request, and returns the whole answer as text.
async fn ask(address: SocketAddr, method: &str, path: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let request = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer)).await.expect("it answers").unwrap();
    answer
}

fn status(answer: &str) -> &str {
    answer.split(' ').nth(1).unwrap_or_default()
}

#[tokio::test]
async fn it_is_alive_before_it_is_ready() {
    let state = state();
    let (servers, _shutdown) = serving(state.clone()).await;
    let answer = ask(servers.address, "GET", "/healthz").await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nok\n"), "{answer}");

    let answer = ask(servers.address, "GET", "/readyz").await;
    assert!(status(&answer) == "503" && answer.ends_with("not ready: keys, watches\n"), "{answer}");
    state.readiness.open("keys");
    let answer = ask(servers.address, "GET", "/readyz").await;
    assert!(answer.ends_with("not ready: watches\n"), "{answer}");
    state.readiness.open("watches");
    assert_eq!(status(&ask(servers.address, "GET", "/readyz").await), "200");
    state.readiness.close("keys");
    assert_eq!(status(&ask(servers.address, "GET", "/readyz").await), "503");
}

#[tokio::test]
async fn the_certificate_is_that_of_the_keyring() {
    let state = state();
    let (servers, _shutdown) = serving(state.clone()).await;
    assert_eq!(status(&ask(servers.address, "GET", "/v1/cert.pem").await), "503");
    let keyring = keyring_of_vectors().await;
    let pem = keyring.certificate().unwrap().to_pem();
    assert!(state.keyring.set(keyring).is_ok());
    let answer = ask(servers.address, "GET", "/v1/cert.pem").await;
    assert_eq!(status(&answer), "200");
    assert!(answer.contains("content-type: application/x-pem-file\r\n"), "{answer}");
    assert!(answer.ends_with(&format!("\r\n\r\n{pem}")), "{answer}");
    assert!(!answer.contains("PRIVATE"));
}

#[tokio::test]
async fn answers_are_counted_under_known_names_only() {
    let (servers, _shutdown) = serving(state()).await;
    ask(servers.address, "GET", "/healthz").await;
    assert_eq!(status(&ask(servers.address, "GET", "/nobody/knows?x=1").await), "404");
    assert_eq!(status(&ask(servers.address, "POST", "/healthz").await), "405");
    assert_eq!(status(&ask(servers.address, "BREW", "/healthz").await), "405");
    let text = ask(servers.metrics_address, "GET", "/metrics").await;
    assert!(text.contains("content-type: text/plain; version=0.0.4; charset=utf-8\r\n"), "{text}");
    for line in [
        r#"{path="/healthz",code="200",method="get"} 1"#,
        r#"{path="/healthz",code="405",method="post"} 1"#,
        r#"{path="/healthz",code="405",method="unknown"} 1"#,
        r#"{path="other",code="404",method="get"} 1"#,
    ] {
        assert!(text.contains(&format!("sealed_secrets_controller_http_requests_total{line}\n")), "{line} in {text}");
    }
    assert!(!text.contains("nobody"));
    assert_eq!(status(&ask(servers.metrics_address, "GET", "/healthz").await), "404");
}

#[tokio::test]
async fn a_client_that_sends_nothing_loses_its_place() {
    let timeouts = Timeouts { read: Duration::from_millis(50), write: Duration::from_millis(50) };
    let (servers, _shutdown) = serving(HttpState { timeouts, ..state() }).await;
    let mut stream = TcpStream::connect(servers.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
    let mut rest = Vec::new();
    // The server closes the connection, with an end of the stream or with a reset.
    let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
    assert!(!String::from_utf8_lossy(&rest).contains("200 OK"));
}

/// Opens a connection from 127.0.0.1, and sends nothing.
async fn idle(address: SocketAddr) -> TcpStream {
    TcpStream::connect(address).await.unwrap()
}

async fn is_closed(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let _ = timeout(LIMIT, stream.read_to_end(&mut rest)).await.expect("the connection is closed");
}

#[tokio::test]
async fn idle_connections_take_nobody_s_place() {
    let (servers, _shutdown) = serving(state()).await;
    let mut all = Vec::new();
    for number in 0..400 {
        let mut stream = idle(servers.address).await;
        if number % 2 == 0 {
            // Half of the clients have sent only a part of the headers.
            stream.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
        }
        all.push(stream);
    }
    assert_eq!(status(&ask(servers.address, "GET", "/healthz").await), "200");
    for path in ["/healthz", "/readyz"] {
        let answer = ask(servers.probes_address, "GET", path).await;
        assert_eq!(status(&answer), if path == "/healthz" { "200" } else { "503" }, "{answer}");
    }
    is_closed(&mut all[0]).await;
    is_closed(&mut all[1]).await;
    // The newest connection is still open.
    let newest = all.last_mut().unwrap();
    newest.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, newest.read_to_string(&mut answer)).await.expect("it answers").unwrap();
    assert_eq!(status(&answer), "200");
}

#[tokio::test]
async fn the_probes_listener_answers_nothing_else() {
    let (servers, _shutdown) = serving(state()).await;
    for path in ["/v1/cert.pem", "/v1/keys", "/metrics"] {
        assert_eq!(status(&ask(servers.probes_address, "GET", path).await), "404", "{path}");
    }
    assert_eq!(status(&ask(servers.probes_address, "POST", "/v1/verify").await), "404");
}

#[tokio::test]
async fn a_head_has_ten_seconds_whatever_the_timeouts_say() {
    let timeouts = Timeouts { read: Duration::ZERO, write: Duration::ZERO };
    let (servers, _shutdown) = serving(HttpState { timeouts, ..state() }).await;
    let mut silent = idle(servers.address).await;
    let mut slow = idle(servers.address).await;
    slow.write_all(b"GET /healthz HTTP/1.1\r\nHost:").await.unwrap();
    is_closed(&mut silent).await;
    is_closed(&mut slow).await;
}

#[tokio::test]
async fn a_shutdown_ends_idle_connections() {
    let (servers, shutdown) = serving(state()).await;
    let address = servers.address;
    let mut idle = TcpStream::connect(address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nHost: test\r\n\r\n").await.unwrap();
    let mut first = [0; 12];
    timeout(LIMIT, idle.read_exact(&mut first)).await.expect("it answers").unwrap();
    assert_eq!(&first, b"HTTP/1.1 200");
    shutdown.cancel();
    timeout(LIMIT, servers.ended()).await.expect("the servers end");
    assert!(TcpStream::connect(address).await.is_err(), "nobody listens any more");
}

#[tokio::test]
async fn addresses_are_those_of_go() {
    let (_listener, address) = listen::bind(":0").await.unwrap();
    assert!(address.ip().is_unspecified());
    assert_ne!(address.port(), 0);
    let (listener, address) = listen::bind("127.0.0.1:0").await.unwrap();
    assert!(address.ip().is_loopback());
    let error = listen::bind(&address.to_string()).await.err().unwrap().to_string();
    assert!(error.contains(&address.to_string()) && error.contains("another program"), "{error}");
    drop(listener);
    for wrong in ["", "8080", ":http", ":70000", "localhost"] {
        let error = listen::bind(wrong).await.err().unwrap();
        assert!(matches!(error, ListenError::Address { .. }), "{wrong}: {error}");
    }
}
