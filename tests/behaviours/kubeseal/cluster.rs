//! Compares the requests of both programs to an API server. A simulated API server records them, and can return errors such
//! as "too many requests" when a test needs them.

use std::sync::{Arc, Mutex};

use anyhow::{Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use super::invocations::SECRET;
use super::pair::{Case, Like, Outcome, Pair, Program};

const SERVICE: &str = "/api/v1/namespaces/kube-system/services/sealed-secrets-controller";
const PROXY: &str = "/api/v1/namespaces/kube-system/services/http:sealed-secrets-controller:http/proxy";

/// A request: method, path and query, content type, body.
type Request = (String, String, Option<String>, Value);

#[derive(Clone)]
struct Server {
    requests: Arc<Mutex<Vec<Request>>>,
    /// The answers to requests through the service proxy. The last answer is repeated.
    answers: Arc<Mutex<Vec<(u16, String)>>>,
    certificate: String,
}

impl Server {
    /// Serves on a free port until the runtime ends. Returns its address.
    async fn start(self) -> Result<String> {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
        let address = format!("http://{}", listener.local_addr()?);
        let router = Router::new().fallback(answer).with_state(self);
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(address)
    }
}

async fn answer(State(server): State<Server>, method: Method, uri: Uri, headers: HeaderMap, body: Bytes) -> Response {
    let content_type = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()).into());
    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
    server.requests.lock().unwrap().push((method.to_string(), uri.to_string(), content_type, body.clone()));
    let path = uri.path();
    if path == SERVICE {
        let ports = json!([{"name": "http", "port": 8080}, {"name": "metrics", "port": 8081}]);
        let service = json!({
            "kind": "Service", "apiVersion": "v1", "metadata": {"name": "sealed-secrets-controller"}, "spec": {"ports": ports},
        });
        return in_json(StatusCode::OK, &service);
    }
    if path == format!("{PROXY}/v1/cert.pem") {
        return ([(header::CONTENT_TYPE, "application/x-pem-file")], server.certificate).into_response();
    }
    if !path.starts_with(PROXY) {
        let status = json!({
            "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404, "reason": "NotFound",
            "message": "services \"nope\" not found", "details": {"name": "nope", "kind": "services"},
        });
        return in_json(StatusCode::NOT_FOUND, &status);
    }
    let mut answers = server.answers.lock().unwrap();
    let (code, text) = if answers.len() > 1 { answers.remove(0) } else { answers[0].clone() };
    let text = if text == "echo" { rotated(body).to_string() } else { text };
    (StatusCode::from_u16(code).unwrap(), [(header::RETRY_AFTER, "0")], text).into_response()
}

fn in_json(status: StatusCode, body: &Value) -> Response {
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string()).into_response()
}

/// A SealedSecret as the endpoint `rotate` returns it.
fn rotated(mut sealed: Value) -> Value {
    sealed["metadata"]["generation"] = 2.into();
    sealed["metadata"]["creationTimestamp"] = Value::Null;
    sealed["spec"]["encryptedData"]["user"] = "rotated".into();
    sealed
}

/// Runs one program, and returns its result and its requests.
async fn watched(
    pair: &Arc<Pair>,
    program: Program,
    case: impl Fn(&str) -> Case,
    answers: &[(u16, &str)],
) -> Result<(Outcome, Vec<Request>)> {
    let requests = Arc::<Mutex<Vec<Request>>>::default();
    let answers = answers.iter().map(|(code, text)| (*code, (*text).to_owned())).collect();
    let server = Server {
        requests: Arc::clone(&requests),
        answers: Arc::new(Mutex::new(answers)),
        certificate: pair.certificate.clone(),
    };
    let case = case(&format!("--server={}", server.start().await?));
    let pair = Arc::clone(pair);
    let outcome = tokio::task::spawn_blocking(move || pair.run(program, &case)).await??;
    let requests = requests.lock().unwrap().clone();
    Ok((outcome, requests))
}

/// Runs both programs, compares their requests, and returns both results and the requests.
async fn both(
    pair: &Arc<Pair>,
    case: impl Fn(&str) -> Case,
    answers: &[(u16, &str)],
) -> Result<(Outcome, Outcome, Vec<Request>)> {
    let (ours, asked) = watched(pair, Program::Ours, &case, answers).await?;
    let (theirs, expected) = watched(pair, Program::Theirs, &case, answers).await?;
    ensure!(asked == expected, "{answers:?}:\n  ours:   {asked:?}\n  theirs: {expected:?}");
    Ok((ours, theirs, asked))
}

fn sealed(pair: &Pair) -> Result<String> {
    pair.run(Program::Theirs, &Case::new(&["--cert=cert.pem", "-oyaml"]).stdin(SECRET))?.text()
}

#[tokio::test]
async fn the_certificate_is_fetched_by_the_same_requests() -> Result<()> {
    let pair = Arc::new(Pair::new()?);
    let (ours, theirs, requests) = both(&pair, |server| Case::new(&[server, "--fetch-cert"]), &[]).await?;
    assert_eq!(ours, theirs);
    assert_eq!(ours.text()?, pair.certificate);
    let paths: Vec<_> = requests.iter().map(|(method, path, ..)| format!("{method} {path}")).collect();
    assert_eq!(paths, [format!("GET {SERVICE}"), format!("GET {PROXY}/v1/cert.pem")]);

    let case = |server: &str| Case::new(&[server, "--raw", "--scope=cluster-wide"]).stdin("x");
    let (ours, theirs, _) = both(&pair, case, &[]).await?;
    assert_eq!((ours.code, theirs.code), (0, 0), "{ours:?}");

    let case = |server: &str| Case::new(&[server, "--fetch-cert", "--controller-name=nope"]);
    let (ours, theirs, _) = both(&pair, case, &[]).await?;
    assert_eq!(ours, theirs, "no such Service");
    assert_eq!(ours.code, 1);
    Ok(())
}

#[tokio::test]
async fn the_controller_is_asked_in_the_same_way() -> Result<()> {
    let pair = Arc::new(Pair::new()?);
    let sealed = sealed(&pair)?;
    let two = format!("{sealed}{sealed}");
    let validate = |server: &str| Case::new(&[server, "--validate"]).stdin(&two);
    let (ours, theirs, requests) = both(&pair, validate, &[(200, "")]).await?;
    assert_eq!(ours, theirs);
    assert_eq!((ours.code, requests.len()), (0, 3), "the Service and two SealedSecrets");
    assert_eq!(requests[1].1, format!("{PROXY}/v1/verify"));

    let (ours, theirs, _) = both(&pair, validate, &[(409, "no")]).await?;
    assert_eq!(ours, theirs);
    assert_eq!((ours.code, ours.stderr.as_str()), (1, "error: unable to decrypt sealed secret: db\n"));

    // The first two requests get status 429, and the third is answered.
    let (ours, theirs, requests) = both(&pair, validate, &[(429, "slow"), (429, "slow"), (200, "")]).await?;
    assert_eq!(ours, theirs);
    assert_eq!((ours.code, requests.len()), (0, 5));

    for code in [400, 403, 404] {
        let (ours, theirs, _) = both(&pair, validate, &[(code, "wrong")]).await?;
        assert_eq!((ours.code, theirs.code), (1, 1));
        for outcome in [&ours, &theirs] {
            assert!(outcome.stderr.starts_with("error: cannot validate sealed secret: "), "{outcome:?}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn sealing_again_prints_or_replaces_the_same() -> Result<()> {
    let pair = Arc::new(Pair::new()?);
    let sealed = sealed(&pair)?;
    for arguments in [
        &["--re-encrypt"][..],
        &["--re-encrypt", "-oyaml"],
        &["--re-encrypt", "-w", "out.yaml"],
        &["--rotate=false", "--re-encrypt=true"],
    ] {
        let case = |server: &str| Case::new(&[&[server], arguments].concat()).stdin(&sealed);
        let (ours, theirs, requests) = both(&pair, case, &[(200, "echo")]).await?;
        assert_eq!(ours.code, 0, "{ours:?}");
        if arguments[0] == "--re-encrypt" {
            assert_eq!(ours, theirs, "{arguments:?}");
        }
        assert_eq!(requests[1].1, format!("{PROXY}/v1/rotate"));
    }
    let in_place = |server: &str| Case::new(&[server, "--re-encrypt", "-f", "a.yaml"]).file("a.yaml", &sealed);
    let (ours, theirs, _) = both(&pair, in_place, &[(200, "echo")]).await?;
    assert_eq!(ours, theirs);
    assert!(ours.file("a.yaml")?.contains("user: rotated"), "{ours:?}");

    let (ours, theirs, _) = both(&pair, in_place, &[(409, "no")]).await?;
    assert_eq!((ours.code, ours.stderr.as_str()), (1, "error: unable to rotate secret\n"));
    assert_eq!(ours.stderr, theirs.stderr);
    assert_eq!(ours.file("a.yaml")?, sealed, "the file is as it was");
    assert_eq!(ours.names(), ["a.yaml"], "nothing is left beside it");

    let (ours, _, _) = both(&pair, in_place, &[(200, "not JSON")]).await?;
    assert_eq!(ours.code, 1);
    assert_eq!(ours.file("a.yaml")?, sealed);
    assert_eq!(ours.names(), ["a.yaml"]);
    Ok(())
}

/// Fetches the certificate from a URL with a redirect.
#[tokio::test]
async fn a_url_is_followed() -> Result<()> {
    let pair = Arc::new(Pair::new()?);
    let certificate = pair.certificate.clone();
    let moved = |to: &'static str| move || async move { (StatusCode::FOUND, [(header::LOCATION, to)]) };
    let router = Router::new()
        .route("/a", axum::routing::get(moved("/b?x=1")))
        .route("/b", axum::routing::get(move || async move { certificate }))
        .route("/round", axum::routing::get(moved("/round")));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let address = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let case = |path: &str, like| Case::new(&["--fetch-cert", &format!("--cert={address}{path}")]).like(like);
    let cases =
        [case("/a", Like::Same), case("/b", Like::Same), case("/round", Like::Error), case("/missing", Like::Error)];
    tokio::task::spawn_blocking(move || cases.iter().try_for_each(|case| pair.difference(case))).await?
}

/// Reaches the API server through an HTTP proxy, by a CONNECT request, which a proxy needs for every server with TLS.
#[tokio::test]
async fn a_proxy_is_gone_through() -> Result<()> {
    let pair = Arc::new(Pair::new()?);
    let proxy = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let proxy_url = format!("--proxy-url=http://{}", proxy.local_addr()?);
    let tunnels = Arc::<Mutex<Vec<String>>>::default();
    let seen = Arc::clone(&tunnels);
    tokio::spawn(async move {
        while let Ok((client, _)) = proxy.accept().await {
            tokio::spawn(tunnel(client, Arc::clone(&seen)));
        }
    });
    let case = |server: &str| Case::new(&[server, "--fetch-cert", &proxy_url]);
    let (ours, requests) = watched(&pair, Program::Ours, case, &[]).await?;
    assert_eq!((ours.text()?, requests.len()), (pair.certificate.clone(), 2));
    assert!(tunnels.lock().unwrap()[0].starts_with("CONNECT 127.0.0.1:"), "{tunnels:?}");
    Ok(())
}

/// Serves one client of an HTTP proxy that asks for a tunnel.
async fn tunnel(mut client: tokio::net::TcpStream, tunnels: Arc<Mutex<Vec<String>>>) -> Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(client.read_u8().await?);
    }
    let head = String::from_utf8(head)?;
    tunnels.lock().unwrap().push(head.clone());
    let target = head.split(' ').nth(1).unwrap_or_default();
    let mut server = tokio::net::TcpStream::connect(target).await?;
    client.write_all(b"HTTP/1.1 200 OK\r\n\r\n").await?;
    tokio::io::copy_bidirectional(&mut client, &mut server).await?;
    Ok(())
}
