//! What is said of an API server that cannot be reached, or that breaks off.

use std::{
    io::{Read as _, Write as _},
    net::TcpListener,
};

use crate::{stderr, workplace::Workplace};

/// What `gitseal status` says with a kubeconfig of this server.
fn said(address: &str) -> String {
    let workplace = Workplace::new();
    let cluster = format!("clusters: [{{name: c, cluster: {{server: 'http://{address}'}}}}]\n");
    let context = "contexts: [{name: lost, context: {cluster: c, user: ''}}]\ncurrent-context: lost\n";
    workplace.write("config", &format!("apiVersion: v1\nkind: Config\n{cluster}{context}"));
    let output = workplace.run(&["status", "--kubeconfig", "config"]);
    assert_eq!(output.status.code(), Some(1));
    stderr(&output)
}

#[test]
fn a_refused_connection_names_the_server_and_the_context() {
    // Nobody listens there any more.
    let address = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let said = said(&address);
    let named = format!("because: no connection to the API server http://{address} (context lost)\n");
    assert!(said.contains(&named) && said.contains("refused") && said.contains("--context"), "{said}");
}

#[test]
fn an_answer_that_breaks_off_names_the_server_and_the_context() {
    let server = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = server.local_addr().unwrap().to_string();
    std::thread::spawn(move || {
        for mut connection in server.incoming().map_while(Result::ok) {
            // The whole request comes first: what is left unread would end the connection in another way.
            let (mut request, mut part) = (Vec::new(), [0; 1024]);
            while !request.ends_with(b"\r\n\r\n") {
                match connection.read(&mut part) {
                    Ok(0) | Err(_) => break,
                    Ok(count) => request.extend_from_slice(&part[..count]),
                }
            }
            let _ = connection.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{\"kind\"");
        }
    });
    let said = said(&address);
    let named = format!("because: no connection to the API server http://{address} (context lost)\n");
    assert!(said.contains(&named), "{said}");
}
