//! Servers that do not answer as a Git server does.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc;

use zeroize::Zeroizing;

use super::*;

/// Starts a server that answers every connection with these bytes. Returns its address, and a receiver for the first line of
/// each request.
fn answering(answer: &str) -> (SocketAddr, mpsc::Receiver<String>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, lines) = mpsc::channel();
    let answer = answer.to_owned();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let (mut request, mut part) = (Vec::new(), [0; 4096]);
            // The head of an HTTP request may arrive in several parts. Anything else, such as TLS, is answered after its
            // first part.
            loop {
                let length = stream.read(&mut part).unwrap_or(0);
                request.extend_from_slice(&part[..length]);
                let is_http = request.first().is_some_and(u8::is_ascii_uppercase);
                if length == 0 || !is_http || request.windows(4).any(|end| end == b"\r\n\r\n") {
                    break;
                }
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let _ = sender.send(text.lines().next().unwrap_or_default().to_owned());
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    (address, lines)
}

fn response(status: &str, headers: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\nConnection: close\r\n\r\n{body}")
}

fn fetch(fixture: &Fixture, url: String, credentials: Credentials) -> FetchError {
    let request = FetchRequest { url, credentials, ..fixture.request(Reference::Head) };
    fixture.store.fetch(&request).unwrap_err()
}

#[test]
fn a_server_that_refuses_is_told_in_its_own_words_and_left_alone_as_it_asks() {
    let fixture = Fixture::new();
    let plain = "Content-Type: text/plain\r\n";
    let long = "x".repeat(100_000);
    for (status, headers, body, reason, told, pause) in [
        (
            "429 Too Many Requests",
            format!("{plain}Retry-After: 120\r\n"),
            "slow \"down\"\u{1b}[1m\n",
            "TooManyRequests",
            "too many requests (status 429); it says \"slow \\\"down\\\" [1m\"; it asks for a pause of 120 s",
            Some(120),
        ),
        (
            "403 Forbidden",
            plain.to_owned(),
            "your plan has no Git",
            "AuthenticationFailed",
            "asks for credentials (status 403): name a Secret with them in spec.secretRef; it says \"your plan has no Git\"",
            None,
        ),
        (
            "503 Unavailable",
            format!("{plain}Retry-After: 99999\r\n"),
            "upgrading",
            "NetworkError",
            "status 503; it says \"upgrading\"; it asks for a pause of 3600 s",
            Some(3600),
        ),
        (
            "500 Oops",
            "Content-Type: text/html\r\n".to_owned(),
            "<html>",
            "NetworkError",
            "answers with status 500",
            None,
        ),
        ("429 Too Many Requests", plain.to_owned(), &long, "TooManyRequests", "xxx…\"", None),
    ] {
        let (address, _lines) = answering(&response(status, &headers, body));
        let error = fetch(&fixture, format!("http://{address}/a.git"), Credentials::none());
        assert_eq!(error.reason(), reason, "{error}");
        let text = error.to_string();
        assert!(text.contains(told) && text.len() < 600, "{text}");
        assert_eq!(error.retry_after(), pause.map(Duration::from_secs));
        assert!(!error.is_terminal());
    }
}

/// Anybody who chooses the URL of a Repository can read its status. They must not be able to read answers of other servers
/// in this way.
#[test]
fn only_a_short_plain_refusal_of_the_own_host_is_repeated() {
    const INTERNAL: &str = "internal-5f2c";
    let fixture = Fixture::new();
    let (plain, json, page) = ("text/plain", "application/json", "text/html");
    let said =
        |address: SocketAddr| fetch(&fixture, format!("http://{address}/a.git"), Credentials::none()).to_string();
    for (status, kind, is_told) in [
        ("401 Who", plain, true),
        ("403 No", "text/plain; charset=utf-8", true),
        ("429 Slow", plain, true),
        ("503 Later", plain, true),
        ("400 What", plain, false),
        ("404 Gone", plain, false),
        ("500 Oops", plain, false),
        ("502 Behind", plain, false),
        ("403 No", json, false),
        ("403 No", page, false),
    ] {
        let body = format!("{{\"message\": \"{INTERNAL}\"}}");
        let (address, _lines) = answering(&response(status, &format!("Content-Type: {kind}\r\n"), &body));
        let text = said(address);
        assert_eq!(text.contains(INTERNAL), is_told, "{status} {kind}: {text}");
        let code = &status[..3];
        assert!(text.contains(code) || code == "404", "{text}");

        // A server on another port counts as another server.
        let to = format!("Location: http://{address}/a.git/info/refs?service=git-upload-pack\r\n");
        let (redirecting, _lines) = answering(&response("302 There", &to, ""));
        let text = said(redirecting);
        assert!(!text.contains(INTERNAL) && (text.contains(code) || code == "404"), "{text}");
    }
    let (address, _lines) = answering(&response("403 No", "Content-Type: text/plain\r\n", &"é".repeat(500)));
    let text = said(address);
    assert_eq!(text.matches('é').count(), 300, "{text}");
}

#[test]
fn https_to_a_port_that_speaks_http_says_so() {
    let fixture = Fixture::new();
    let (address, _lines) = answering(&response("400 Bad Request", "", "Client sent an HTTP request"));
    let password = Credentials::basic("me", Zeroizing::new(b"hunter2".to_vec()));
    let error = fetch(&fixture, format!("https://{address}/a.git"), password);
    assert_eq!(error.reason(), "NetworkError");
    assert!(error.to_string().contains("does not speak TLS: correct the port"), "{error}");
}

#[test]
fn a_default_branch_that_is_not_there_is_named() {
    let fixture = Fixture::new();
    fixture.write("a.yaml", "one").push();
    git(&fixture.folder.path().join("remote.git"), &["symbolic-ref", "HEAD", "refs/heads/master"]);
    let error = fixture.fetch(Reference::Head).unwrap_err();
    assert_eq!(error.reason(), "ReferenceNotFound", "{error}");
    assert_eq!(
        error.to_string(),
        "the default branch \"master\" was not found; the branches are: main; name one in spec.ref.branch, or set another \
         default branch on the server"
    );
    assert_eq!(Fixture::new().fetch(Reference::Head).unwrap_err().reason(), "EmptyRepository");
}

#[test]
fn objects_that_are_named_by_sha_256_are_told() {
    let fixture = Fixture::new();
    for folder in ["remote.git", "work"] {
        fs::remove_dir_all(fixture.folder.path().join(folder)).unwrap();
    }
    let init = ["init", "--quiet", "--object-format=sha256", "--initial-branch=main"];
    git(fixture.folder.path(), &[&init[..], &["--bare", "remote.git"]].concat());
    git(fixture.folder.path(), &[&init[..], &["work"]].concat());
    git(&fixture.work(), &["remote", "add", "origin", "../remote.git"]);
    fixture.write("a.yaml", "one").push();
    let error = fixture.fetch(branch("main")).unwrap_err();
    assert_eq!(error.reason(), "ObjectFormatNotSupported", "{error}");
    assert!(error.to_string().contains("only SHA-1 is supported"), "{error}");
}

const URL: &str = "GITSTORE_TEST_URL";

/// This test does nothing by itself. The test below runs it in a separate process, because environment variables belong
/// to a process.
#[test]
fn fetches_with_the_environment_of_another_test() {
    if let Ok(url) = std::env::var(URL) {
        fetch(&Fixture::new(), url, Credentials::none());
    }
}

#[test]
fn the_environment_names_a_proxy_and_who_is_asked_without_it() {
    let (address, lines) = answering(&response("403 Forbidden", "", ""));
    let proxy = format!("http://{address}");
    for (url, variable, without, asked) in [
        ("https://git.invalid/a.git", "HTTPS_PROXY", "", Some("CONNECT git.invalid:443 HTTP/1.1")),
        ("https://git.invalid/a.git", "https_proxy", "", Some("CONNECT git.invalid:443 HTTP/1.1")),
        ("https://git.invalid/a.git", "ALL_PROXY", "other.invalid", Some("CONNECT git.invalid:443 HTTP/1.1")),
        ("http://git.invalid/a.git", "HTTP_PROXY", "", Some("CONNECT git.invalid:80 HTTP/1.1")),
        ("https://git.invalid/a.git", "HTTPS_PROXY", "other.invalid,git.invalid", None),
        ("https://git.invalid/a.git", "HTTPS_PROXY", ".invalid", None),
        ("https://git.invalid/a.git", "HTTPS_PROXY", "*", None),
        ("https://10.0.0.1:1/a.git", "HTTPS_PROXY", "10.0.0.0/8", Some("CONNECT 10.0.0.1:1 HTTP/1.1")),
    ] {
        let status = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "tests::refusals::fetches_with_the_environment_of_another_test"])
            .env_clear()
            .envs([("PATH", std::env::var("PATH").unwrap().as_str()), (URL, url)])
            .envs([(variable, proxy.as_str()), ("NO_PROXY", without)])
            .stdout(Stdio::null())
            .status()
            .unwrap();
        assert!(status.success(), "{url}");
        let told: Vec<String> = lines.try_iter().collect();
        assert_eq!(told.first().map(String::as_str), asked, "{url} {variable} NO_PROXY={without}");
    }
}

/// Reads an HTTP request with its body.
fn request(stream: &mut std::net::TcpStream) -> String {
    let (mut request, mut part) = (Vec::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut part).unwrap_or(0);
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let is_whole = text.split_once("\r\n\r\n").is_some_and(|(head, body)| {
            let size = head.split_once("content-length: ").map(|(_, rest)| rest.lines().next().unwrap_or_default());
            let size: usize = size.and_then(|size| size.parse().ok()).unwrap_or(0);
            if head.contains("transfer-encoding: chunked") { body.ends_with("0\r\n\r\n") } else { body.len() >= size }
        });
        if length == 0 || is_whole {
            return text;
        }
    }
}

#[test]
fn a_branch_that_is_pushed_while_the_server_is_asked_is_found() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, commands) = mpsc::channel();
    let line = |text: &str| format!("{:04x}{text}\n", text.len() + 5);
    let refused = response("500 Internal Server Error", "", "");
    std::thread::spawn(move || {
        let main = line(&format!("{} refs/heads/main", "a".repeat(40)));
        let mut lists = 0;
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let request = request(&mut stream);
            let is_list = request.contains("command=ls-refs");
            let answer = if request.starts_with("get ") {
                let lines = ["version 2", "ls-refs=unborn", "fetch=shallow", "object-format=sha1"].map(line).concat();
                let body = format!("{}0000{lines}0000", line("# service=git-upload-pack"));
                response("200 OK", "Content-Type: application/x-git-upload-pack-advertisement\r\n", &body)
            } else if is_list {
                lists += 1;
                let body = if lists == 1 { "0000".to_owned() } else { format!("{main}0000") };
                response("200 OK", "Content-Type: application/x-git-upload-pack-result\r\n", &body)
            } else {
                refused.clone()
            };
            let _ = sender.send(if is_list { "list" } else { "other" });
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    let fixture = Fixture::new();
    let request = FetchRequest { url: format!("http://{address}/repo"), ..fixture.request(branch("main")) };
    // The server refuses to send the commit. So the branch was found, and the fetch of its commit had begun.
    let error = fixture.store.fetch(&request).unwrap_err();
    assert_ne!(error.reason(), "ReferenceNotFound", "{error}");
    assert!(error.to_string().contains("500"), "{error}");
    assert_eq!(commands.try_iter().filter(|command| *command == "list").count(), 3);
}
