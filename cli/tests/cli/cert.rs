//! `gitseal cert` with a certificate in a file, and from a web server.

use std::{
    fs,
    io::{Read, Write},
    net::TcpListener,
    path::Path,
    thread,
};

use jiff::{SignedDuration, Timestamp};

use crate::{gitseal_in, stderr, stdout};

/// Writes `cert.pem`, with a certificate that is valid for `length` hours and becomes valid `start` hours from now.
fn certificate(folder: &Path, start: i64, length: i64) -> String {
    let key = sealing::PrivateKey::generate(2048).expect("a key");
    let not_before = Timestamp::now() + SignedDuration::from_hours(start);
    let certificate =
        sealing::self_signed(&key, "test", not_before, SignedDuration::from_hours(length)).expect("a certificate");
    let pem = certificate.to_pem();
    fs::write(folder.join("cert.pem"), &pem).expect("a file");
    pem
}

#[test]
fn a_certificate_is_shown_and_checked() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let pem = certificate(folder, -1, 24 * 365);
    assert_eq!(stdout(&gitseal_in(folder, &["cert", "--cert", "cert.pem"])), pem);
    let text = stdout(&gitseal_in(folder, &["cert", "--cert", "cert.pem", "--show"]));
    assert!(text.contains("CN=test") && text.contains("RSA, 2048 bits") && text.contains("valid until"), "{text}");
    let json = stdout(&gitseal_in(folder, &["cert", "--cert", "cert.pem", "-o", "json"]));
    let json: serde_json::Value = serde_json::from_str(&json).expect("JSON");
    assert_eq!(json["subject"], "CN=test");
    assert_eq!(json["state"], "Valid");
    let check =
        |within: &str| gitseal_in(folder, &["cert", "--cert", "cert.pem", "--check", "--within", within]).status.code();
    assert_eq!(check("30d"), Some(0));
    assert_eq!(check("400d"), Some(1));
}

#[test]
fn an_expired_certificate_fails_the_check() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    certificate(folder.path(), -48, 24);
    let output = gitseal_in(folder.path(), &["cert", "--cert", "cert.pem", "--check"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stdout).starts_with("expired since"));
}

#[test]
fn a_certificate_that_is_none_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    fs::write(folder.path().join("cert.pem"), "hello").expect("a file");
    let output = gitseal_in(folder.path(), &["cert", "--cert", "cert.pem"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).starts_with("error: cert.pem holds no usable certificate"), "{}", stderr(&output));
    let output = gitseal_in(folder.path(), &["cert", "--cert", "missing.pem"]);
    assert!(stderr(&output).contains("missing.pem"), "{}", stderr(&output));
}

#[test]
fn a_certificate_comes_from_a_url() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pem = certificate(folder.path(), -1, 24 * 365);
    let (url, server) = serve(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pem}", pem.len()));
    let url = format!("{url}/keys/production.pem?v=1");
    let output = gitseal_in(folder.path(), &["cert", "--cert", &url, "--allow-http-cert"]);
    assert_eq!(stdout(&output), pem);
    assert!(stderr(&output).contains("came over plain http://"), "{}", stderr(&output));
    let request = server.join().expect("a request");
    assert!(request.starts_with("GET /keys/production.pem?v=1 HTTP/1.1\r\n"), "{request}");
    assert!(!request.to_ascii_lowercase().contains("authorization"), "{request}");
}

/// The server is on this machine, like a port that is forwarded to the controller. So plain HTTP is allowed.
#[test]
fn a_certificate_comes_from_the_controllers_address() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pem = certificate(folder.path(), -1, 24 * 365);
    let answer = || format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pem}", pem.len());
    let (url, server) = serve(answer());
    let output = gitseal_in(folder.path(), &["cert", "--controller-url", &url]);
    let request = server.join().expect("a request");
    assert_eq!((stdout(&output), stderr(&output)), (pem.clone(), String::new()));
    assert!(request.starts_with("GET /v1/cert.pem HTTP/1.1\r\n"), "{request}");

    let (url, server) = serve(answer());
    let other = format!("sha256:{}", "0".repeat(64));
    let output = gitseal_in(folder.path(), &["cert", "--controller-url", &url, "--cert-fingerprint", &other]);
    server.join().expect("a request");
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty() && stderr(&output).contains("is not the expected certificate"));
    // At an address of another machine, plain HTTP is refused, as for --cert.
    let output = gitseal_in(folder.path(), &["cert", "--controller-url", "http://controller.example"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("is plain http://"), "{}", stderr(&output));
}

#[test]
fn the_advice_for_a_url_fits_what_went_wrong() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let output = gitseal_in(folder.path(), &["cert", "--cert", "https://127.0.0.1:1/cert.pem"]);
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains("hint: check the URL"), "{}", stderr(&output));
    let output = gitseal_in(folder.path(), &["cert", "--cert", "http://127.0.0.1:1/cert.pem"]);
    assert!(stderr(&output).contains("hint: use https://"), "{}", stderr(&output));
}

#[test]
fn a_url_that_does_not_answer_well_is_named() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let (url, server) = serve("HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".into());
    let output = gitseal_in(folder.path(), &["cert", "--cert", &url, "--allow-http-cert"]);
    server.join().expect("a request");
    assert_eq!(output.status.code(), Some(1));
    assert!(stderr(&output).contains(&url), "{}", stderr(&output));
}

#[test]
fn over_plain_http_a_certificate_needs_a_flag_or_a_pin() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let folder = folder.path();
    let pem = certificate(folder, -1, 24 * 365);
    // `reseal` fetches the certificate only if there is a private key, and a value to seal again.
    let key = sealing::PrivateKey::generate(2048).expect("a key");
    fs::write(folder.join("old.pem"), key.to_pem().expect("PEM").as_str()).expect("a file");
    let binding = sealing::Scope::Strict.binding("b", "a", "c");
    let value = sealing::seal(key.public_key(), binding, b"d").expect("a value");
    let kind = "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret";
    let sealed = format!("{kind}\nmetadata: {{name: a, namespace: b}}\nspec: {{encryptedData: {{c: {value}}}}}\n");
    fs::create_dir(folder.join("sealed")).expect("a folder");
    fs::write(folder.join("sealed/a.yaml"), &sealed).expect("a file");
    fs::write(
        folder.join("secret.yaml"),
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a, namespace: b}\nstringData: {c: d}\n",
    )
    .expect("a file");
    let own = stdout(&gitseal_in(folder, &["cert", "--cert", "cert.pem", "-o", "json"]));
    let own: serde_json::Value = serde_json::from_str(&own).expect("JSON");
    let (pin, other) = (own["fingerprint"].as_str().expect("a fingerprint"), format!("sha256:{}", "0".repeat(64)));
    let answer = || format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pem}", pem.len());

    // With neither `--allow-http-cert` nor `--cert-fingerprint`, no command sends a request over plain HTTP.
    let nobody = TcpListener::bind("127.0.0.1:0").expect("a port");
    nobody.set_nonblocking(true).expect("a socket");
    let url = format!("http://{}/cert.pem", nobody.local_addr().expect("an address"));
    let reseal = ["reseal", "sealed", "--private-key", "old.pem"];
    for command in [&["cert"][..], &["seal", "secret.yaml"], &["validate", "."], &reseal] {
        let output = gitseal_in(folder, &[command, &["--cert", &url]].concat());
        let said = stderr(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{command:?}: {said}");
        assert!(said.contains("plain http://") && said.contains("--allow-http-cert"), "{command:?}: {said}");
        assert!(nobody.accept().is_err(), "{command:?} asked");
    }
    assert_eq!(fs::read_to_string(folder.join("sealed/a.yaml")).expect("a file"), sealed);
    // With `--allow-http-cert`, the certificate is fetched, and the value is resealed.
    let (asked, server) = serve(answer());
    stdout(&gitseal_in(folder, &[&reseal[..], &["--cert", &asked, "--allow-http-cert"]].concat()));
    server.join().expect("a request");
    assert_ne!(fs::read_to_string(folder.join("sealed/a.yaml")).expect("a file"), sealed);

    // The fingerprint is enough, in any form and without `--allow-http-cert`. The fingerprint is checked.
    let bare = pin.trim_start_matches("sha256:").to_uppercase();
    for pin in [pin, &bare] {
        let (url, server) = serve(answer());
        let output = gitseal_in(folder, &["seal", "secret.yaml", "--cert", &url, "--cert-fingerprint", pin]);
        assert!(stdout(&output).contains("kind: SealedSecret"));
        assert!(!stderr(&output).contains("http://"), "{}", stderr(&output));
        server.join().expect("a request");
    }
    let (url, server) = serve(answer());
    for place in [url.as_str(), "cert.pem"] {
        let output = gitseal_in(folder, &["seal", "secret.yaml", "--cert", place, "--cert-fingerprint", &other]);
        let said = stderr(&output);
        assert!(!output.status.success() && output.stdout.is_empty(), "{place}");
        assert!(said.contains(pin) && said.contains(&other), "{place}: {said}");
    }
    server.join().expect("a request");
}

#[test]
fn redirects_are_followed() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    let pem = certificate(folder.path(), -1, 24 * 365);
    let (url, there) = serve(format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{pem}", pem.len()));
    let (url, here) = serve(format!("HTTP/1.1 302 Found\r\nlocation: {url}/cert.pem\r\ncontent-length: 0\r\n\r\n"));
    let output = gitseal_in(folder.path(), &["cert", "--cert", &url, "--allow-http-cert"]);
    assert_eq!(stdout(&output), pem);
    here.join().expect("a request");
    assert!(there.join().expect("a request").starts_with("GET /cert.pem HTTP/1.1\r\n"));
}

/// Serves `answer` for one request. Returns the URL, and a thread whose result is the head of the request.
fn serve(answer: String) -> (String, thread::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let server = thread::spawn(move || {
        let (mut stream, _) = listener.accept().expect("a connection");
        let mut head = Vec::new();
        let mut buffer = [0; 1024];
        while !head.windows(4).any(|end| end == b"\r\n\r\n") {
            let read = stream.read(&mut buffer).expect("a request");
            assert!(read > 0, "the request ended early");
            head.extend_from_slice(&buffer[..read]);
        }
        stream.write_all(answer.as_bytes()).expect("an answer");
        String::from_utf8(head).expect("UTF-8")
    });
    (url, server)
}
