//! The messages if an API server cannot be reached, closes the connection, or refuses a request.

use std::{
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    process::Output,
    thread,
};

use crate::{stderr, workplace::Workplace};

/// Runs `gitseal` with a kubeconfig for this server.
fn run(address: &str, arguments: &[&str]) -> Output {
    let workplace = Workplace::new();
    let cluster = format!("clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n");
    let context = "contexts: [{name: lost, context: {cluster: c, user: ''}}]\ncurrent-context: lost\n";
    workplace.write("config", &format!("apiVersion: v1\nkind: Config\n{cluster}{context}"));
    workplace.run(&[arguments, &["--kubeconfig", "config"]].concat())
}

/// Runs `gitseal status`, which must fail, and returns its message.
fn said(address: &str) -> String {
    let output = run(address, &["status"]);
    assert_eq!(output.status.code(), Some(1));
    stderr(&output)
}

/// Reads a whole request, and returns its first line. The rest must be read, too: unread bytes would end the connection with
/// another error.
fn request(connection: &mut TcpStream) -> String {
    let (mut request, mut part) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        match connection.read(&mut part) {
            Ok(0) | Err(_) => break,
            Ok(count) => request.extend_from_slice(&part[..count]),
        }
    }
    String::from_utf8_lossy(&request).lines().next().unwrap_or_default().to_owned()
}

/// Starts a server that gives each request this answer and then closes the connection. Returns its address.
fn server(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    thread::spawn(move || {
        for mut connection in server.incoming().map_while(Result::ok) {
            let request = request(&mut connection);
            let _ = connection.write_all(answer(&request).as_bytes());
        }
    });
    address
}

#[test]
fn a_refused_connection_names_the_server_and_the_context() {
    // Nobody listens at this address any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let said = said(&address);
    let named = format!("because: no connection to the API server http://{address} (context lost)\n");
    assert!(said.contains(&named) && said.contains("refused") && said.contains("--context"), "{said}");
}

#[test]
fn an_answer_that_breaks_off_names_the_server_and_the_context() {
    let address = server(|_| "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"kind\"".to_owned());
    let said = said(&address);
    let named = format!("because: no connection to the API server http://{address} (context lost)\n");
    assert!(said.contains(&named), "{said}");
}

#[test]
fn who_may_not_read_namespaces_or_the_lease_is_told_nothing_of_them() {
    let address = server(|request| {
        // Requests for a list in a namespace have a path that ends with the kind. They get an empty list. All other requests
        // are forbidden.
        let path = request.split([' ', '?']).nth(1).unwrap_or_default();
        let is_list = ["/repositories", "/syncs", "/events"].iter().any(|kind| path.ends_with(kind));
        let (status, body) = if is_list {
            ("200 OK", r#"{"kind": "List", "apiVersion": "v1", "metadata": {}, "items": []}"#)
        } else {
            (
                "403 Forbidden",
                r#"{"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no", "code": 403}"#,
            )
        };
        let length = body.len();
        format!(
            "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n{body}"
        )
    });
    let nothing = "No Repository and no Sync in namespace team; --all-namespaces looks everywhere.\n";
    for (arguments, expected) in [
        (&["status"][..], nothing),
        (&["events", "web"], "No event of gitseal in namespace team; the API server forgets events after a while.\n"),
    ] {
        let output = run(&address, &[arguments, &["-n", "team"]].concat());
        assert_eq!(stderr(&output), expected, "{arguments:?}");
        assert_eq!(output.status.code(), Some(0), "{arguments:?}");
    }
}

#[test]
fn a_context_that_does_not_exist_is_told_with_those_that_do() {
    let output = run("127.0.0.1:1", &["status", "--context", "nope"]);
    let said = stderr(&output);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("nope") && said.contains("--context names one of the kubeconfig's contexts: lost"), "{said}");
}
