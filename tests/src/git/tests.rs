//! Tests the tests' own Git server with the `git` program, and the controller's Git store with this server.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use gitstore::{
    Cancel, Credentials, FetchError, FetchRequest, GitStore, Limits, Reference, RepositoryKey, SnapshotError,
    StoreOptions,
};
use manifests::{Tree as _, TreeEntry};
use zeroize::Zeroizing;

use super::*;
use crate::web::{Access, FullPort};

const PASSWORD: &str = "hunter2-is-not-a-password";

fn basic() -> Access {
    Access::Basic { username: "git".into(), password: PASSWORD.into() }
}

fn server(access: Access, tls: bool) -> (GitServer, WorkTree) {
    let server = GitServer::new(ServerOptions { access, tls, dumb: false }).unwrap();
    let tree = server.create("app").unwrap();
    tree.write("a.yaml", "one").unwrap();
    tree.publish("first").unwrap();
    (server, tree)
}

fn password(password: &str) -> Credentials {
    Credentials::basic("git", Zeroizing::new(password.as_bytes().to_vec()))
}

struct Client {
    _folder: tempfile::TempDir,
    store: GitStore,
}

impl Client {
    fn new() -> Self {
        Self::with(StoreOptions::default())
    }

    fn with(options: StoreOptions) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = GitStore::new(folder.path().join("store"), options).unwrap();
        Self { _folder: folder, store }
    }

    /// The commit that is fetched from `url`.
    fn fetch(&self, url: &str, credentials: Credentials) -> Result<String, FetchError> {
        let reference = Reference::Branch("main".into());
        let request = FetchRequest { reference, credentials, ..request(url, Cancel::new()) };
        self.store.fetch(&request).map(|revision| revision.id.hash().to_owned())
    }

    /// The condition's reason. Whatever the error is, its text must not contain a password.
    fn refused(&self, url: &str, credentials: Credentials) -> &'static str {
        let error = self.fetch(url, credentials).unwrap_err();
        let text = format!("{error} {error:?}");
        assert!(!text.contains(PASSWORD) && !text.contains("Basic") && !text.contains("Bearer "), "{text}");
        error.reason()
    }
}

fn key() -> RepositoryKey {
    RepositoryKey { namespace: "team".into(), name: "app".into() }
}

/// Asks for the default branch, without credentials.
fn request(url: &str, cancel: Cancel) -> FetchRequest {
    let (credentials, timeout) = (Credentials::none(), Duration::from_secs(30));
    let (url, reference, fetched) = (url.to_owned(), Reference::Head, Vec::new());
    FetchRequest { key: key(), url, reference, credentials, fetched, trusted: None, timeout, cancel }
}

fn trust(credentials: Credentials, servers: &[&GitServer]) -> Credentials {
    let authorities: Vec<_> = servers.iter().filter_map(|server| server.certificate_authority()).collect();
    credentials.with_certificate_authorities(authorities.concat().into_bytes())
}

#[test]
fn git_itself_can_clone_and_push() {
    let (server, tree) = server(Access::Anonymous, false);
    let folder = tempfile::tempdir().unwrap();
    let clone = folder.path().join("clone").display().to_string();
    tree.git(["clone", "--quiet", "--depth=1", &server.url("app"), &clone]).unwrap();
    tree.git(["-C", &clone, "commit", "--quiet", "--allow-empty", "--message=over http"]).unwrap();
    tree.git(["-C", &clone, "push", "--quiet", "origin", "HEAD"]).unwrap();
    let pushed = tree.git(["-C", &clone, "rev-parse", "HEAD"]).unwrap();
    assert_eq!(tree.git(["ls-remote", "origin", "main"]).unwrap().split_whitespace().next(), Some(pushed.as_str()));
}

#[test]
fn a_work_tree_reverts_resets_and_tags() {
    let (_server, tree) = server(Access::Anonymous, false);
    let first = tree.head().unwrap();
    tree.write("b/c.yaml", "two").unwrap();
    tree.symlink("b/link", "c.yaml").unwrap();
    let second = tree.publish("second").unwrap();
    tree.revert(&second).unwrap();
    assert!(!tree.path().join("b").exists());
    tree.reset(&first).unwrap();
    tree.remove("a.yaml").unwrap();
    tree.commit("other").unwrap();
    assert!(tree.push().is_err(), "not without force");
    tree.tag("v1").unwrap();
    tree.force_push().unwrap();
    let there = tree.git(["ls-remote", "origin"]).unwrap();
    assert!(there.contains("refs/tags/v1") && !there.contains(&second), "{there}");
}

#[test]
fn fetches_over_http_and_asks_two_questions_when_nothing_is_new() {
    let (server, tree) = server(Access::Anonymous, false);
    let client = Client::new();
    let url = server.url("app");
    assert_eq!(client.fetch(&url, Credentials::none()).unwrap(), tree.head().unwrap());
    let before = server.request_count();
    assert_eq!(client.fetch(&url, Credentials::none()).unwrap(), tree.head().unwrap());
    let asked: Vec<_> = server.requests().split_off(before);
    let asked: Vec<_> = asked.iter().map(|request| (request.method.as_str(), request.target.as_str())).collect();
    assert_eq!(asked, [("GET", "/app.git/info/refs?service=git-upload-pack"), ("POST", "/app.git/git-upload-pack")]);

    tree.write("a.yaml", "two").unwrap();
    let second = tree.publish("second").unwrap();
    assert_eq!(client.fetch(&url, Credentials::none()).unwrap(), second);
    let revision = client.store.last(&key(), &url).unwrap();
    let snapshot = client.store.snapshot(&key(), &url, &revision).unwrap();
    let mut contents = Vec::new();
    let folder = snapshot.folder("", Limits::default());
    let read: Result<(), SnapshotError> = folder.each_entry(
        |_, _| Ok(()),
        |entry| {
            if let TreeEntry::File(file) = entry {
                contents.push(file.bytes.to_vec());
            }
            Ok(())
        },
    );
    read.unwrap();
    assert_eq!(contents, [b"two"]);
}

#[test]
fn a_password_or_a_token_opens_the_door_over_tls() {
    for (access, credentials) in [
        (basic(), password(PASSWORD)),
        (Access::Bearer(PASSWORD.into()), Credentials::bearer(Zeroizing::new(PASSWORD.as_bytes().to_vec()))),
    ] {
        let (server, tree) = server(access, true);
        let fetched = Client::new().fetch(&server.url("app"), trust(credentials, &[&server]));
        assert_eq!(fetched.unwrap(), tree.head().unwrap());
        assert!(server.requests().iter().all(|request| request.with_credentials), "no request is wasted on a 401");
    }
}

#[test]
fn wrong_missing_or_exposed_credentials_are_refused() {
    let (server, _tree) = server(basic(), true);
    let url = server.url("app");
    let client = Client::new();
    assert_eq!(client.refused(&url, trust(password("wrong"), &[&server])), "AuthenticationFailed");
    let error = client.fetch(&url, trust(Credentials::none(), &[&server])).unwrap_err();
    assert!(error.to_string().contains("name a Secret with them in spec.secretRef"), "{error}");
    let error = client.fetch(&url, password(PASSWORD)).unwrap_err();
    assert_eq!(error.reason(), "NetworkError", "nobody vouches for the certificate");
    assert!(error.to_string().ends_with("put its certificate authority into ca.crt of spec.secretRef"), "{error}");
    let junk = password(PASSWORD).with_certificate_authorities(b"junk".to_vec());
    assert_eq!(client.refused(&url, junk), "InvalidCredentials");

    let before = server.request_count();
    let plain = url.replace("https://", "http://");
    assert_eq!(client.refused(&plain, trust(password(PASSWORD), &[&server])), "CredentialsOverHttp");
    assert_eq!(server.request_count(), before);
}

#[test]
fn a_redirect_on_the_same_server_keeps_the_credentials() {
    let (server, tree) = server(basic(), true);
    server.redirect("old", &server.url("app"));
    let client = Client::new();
    assert_eq!(client.fetch(&server.url("old"), trust(password(PASSWORD), &[&server])).unwrap(), tree.head().unwrap());
}

#[test]
fn a_redirect_to_another_server_does_not_carry_the_credentials() {
    let (first, _tree) = server(basic(), true);
    let (other, other_tree) = server(Access::Anonymous, true);
    first.redirect("app", &other.url("app"));
    let credentials = || trust(password(PASSWORD), &[&first, &other]);
    let client = Client::new();
    assert_eq!(client.fetch(&first.url("app"), credentials()).unwrap(), other_tree.head().unwrap());
    assert!(other.request_count() >= 3);
    assert!(other.requests().iter().all(|request| !request.with_credentials), "{:?}", other.requests());

    let (closed, _tree) = server(basic(), true);
    first.redirect("app", &closed.url("app"));
    let error = client.fetch(&first.url("app"), trust(password(PASSWORD), &[&first, &closed])).unwrap_err();
    let host = |server: &GitServer| server.base().trim_start_matches("https://").to_owned();
    assert_eq!(error.reason(), "NetworkError");
    let told = format!(
        "cannot fetch from {}: the server answers with status 401, and the credentials of spec.secretRef are sent only to {}",
        host(&closed),
        host(&first)
    );
    assert_eq!(error.to_string(), told);
}

#[test]
fn redirects_that_lead_astray_are_not_followed() {
    let (secure, _tree) = server(Access::Anonymous, true);
    let (plain, _plain_tree) = server(Access::Anonymous, false);
    let client = Client::new();
    secure.redirect("app", &plain.url("app"));
    assert_eq!(client.refused(&secure.url("app"), trust(Credentials::none(), &[&secure])), "NetworkError");
    assert_eq!(plain.request_count(), 0);
    plain.redirect("app", &plain.url("app"));
    let error = client.fetch(&plain.url("app"), Credentials::none()).unwrap_err();
    assert!(error.to_string().contains("more than 5 in a row"), "{error}");
    plain.redirect("app", &format!("{}/login?next=", plain.url("x").trim_end_matches("/x.git")));
    let error = client.fetch(&plain.url("app"), Credentials::none()).unwrap_err();
    assert_eq!(error.reason(), "RepositoryNotFound", "{error}");
}

#[test]
fn what_is_not_there_or_not_smart_is_named() {
    let (server, _tree) = server(Access::Anonymous, false);
    let client = Client::new();
    assert_eq!(client.refused(&server.url("nothing"), Credentials::none()), "RepositoryNotFound");
    let dumb = GitServer::new(ServerOptions { dumb: true, ..ServerOptions::default() }).unwrap();
    let tree = dumb.create("app").unwrap();
    tree.publish("first").unwrap();
    tree.git(["--git-dir", &tree.bare().display().to_string(), "update-server-info"]).unwrap();
    let error = client.fetch(&dumb.url("app"), Credentials::none()).unwrap_err();
    assert_eq!(error.reason(), "NotAGitServer", "{error}");
    assert!(error.to_string().contains("dumb"), "{error}");
}

#[test]
fn a_commit_is_fetched_by_its_hash_alone() {
    let (server, tree) = server(Access::Anonymous, false);
    let first = tree.head().unwrap();
    tree.write("a.yaml", "two").unwrap();
    tree.publish("second").unwrap();
    let client = Client::new();
    let fetch = |commit: &str| {
        let reference = Reference::Commit(commit.to_owned());
        client.store.fetch(&FetchRequest { reference, ..request(&server.url("app"), Cancel::new()) })
    };
    assert_eq!(fetch(&first).unwrap().to_string(), format!("sha1:{first}"));
    let before = server.request_count();
    fetch(&first).unwrap();
    assert_eq!(server.request_count(), before, "it cannot change");
    let error = fetch(&"1".repeat(40)).unwrap_err();
    assert_eq!(error.reason(), "CommitNotFound", "{error}");
    // The message is in plain words, not in the words of the Git protocol.
    let (host, text) = ("127.0.0.1", error.to_string());
    assert!(text.starts_with(host) && text.contains(&format!(" did not send commit {}", "1".repeat(40))), "{text}");
    assert!(text.contains("Check the hash") && !text.contains("ref ") && !text.contains("upload"), "{text}");
}

#[test]
fn a_server_that_is_away_takes_nothing_with_it() {
    let (server, tree) = server(Access::Anonymous, false);
    let client = Client::new();
    let url = server.url("app");
    let first = client.fetch(&url, Credentials::none()).unwrap();
    server.stop();
    tree.write("a.yaml", "two").unwrap();
    let second = tree.publish("while the server is away").unwrap();
    assert_eq!(client.refused(&url, Credentials::none()), "NetworkError");
    assert_eq!(client.store.last(&key(), &url).unwrap().id.hash(), first);
    server.start().unwrap();
    assert_eq!(client.fetch(&url, Credentials::none()).unwrap(), second);
}

#[test]
fn a_server_that_does_not_answer_is_given_up() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/app.git", silent.local_addr().unwrap());
    let client = Client::new();
    let request = FetchRequest { timeout: Duration::from_secs(1), ..request(&url, Cancel::new()) };
    let error = client.store.fetch(&request).unwrap_err();
    assert_eq!(error.reason(), "Timeout", "{error}");
    assert!(error.to_string().ends_with("within 1 s (spec.timeout)"), "{error}");
}

#[test]
fn a_fetch_that_nobody_wants_any_more_ends() {
    let silent = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let url = format!("http://{}/app.git", silent.local_addr().unwrap());
    let client = Client::new();
    let cancel = Cancel::new();
    let request = FetchRequest { timeout: Duration::from_secs(3600), ..request(&url, cancel.clone()) };
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| client.store.fetch(&request));
        let _connection = silent.accept().unwrap();
        cancel.cancel();
        assert_eq!(fetching.join().unwrap().unwrap_err().reason(), "FetchCancelled");
    });
    // The cancellation does not end the next fetch.
    let (server, tree) = server(Access::Anonymous, false);
    assert_eq!(client.fetch(&server.url("app"), Credentials::none()).unwrap(), tree.head().unwrap());
}

#[test]
fn a_fetch_that_cannot_even_connect_ends_when_nobody_wants_it_any_more() {
    /// Less than the time that a connection may take.
    const SOON: Duration = Duration::from_secs(5);
    let (full, client, cancel) = (FullPort::new().unwrap(), Client::new(), Cancel::new());
    let url = format!("{}/app.git", full.base().unwrap());
    let request = FetchRequest { timeout: Duration::from_secs(3600), ..request(&url, cancel.clone()) };
    std::thread::scope(|scope| {
        let fetching = scope.spawn(|| client.store.fetch(&request));
        while !full.is_tried().unwrap() {
            std::thread::sleep(Duration::from_millis(10));
        }
        cancel.cancel();
        let cancelled = Instant::now();
        assert_eq!(fetching.join().unwrap().unwrap_err().reason(), "FetchCancelled");
        assert!(cancelled.elapsed() < SOON, "{:?}", cancelled.elapsed());
    });
}

#[test]
fn a_transfer_beyond_the_bound_is_broken_off() {
    let (server, tree) = server(Access::Anonymous, false);
    let noise: Vec<u8> = (0..500_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect();
    tree.write("noise.bin", &noise).unwrap();
    tree.publish("large").unwrap();
    let client = Client::with(StoreOptions { transfer_bytes: 1 << 20, ..StoreOptions::default() });
    assert_eq!(client.refused(&server.url("app"), Credentials::none()), "TooLarge");
    assert_eq!(client.store.last(&key(), &server.url("app")), None);
}

#[tokio::test]
async fn a_server_can_be_used_where_tests_await() {
    let (server, tree) = server(Access::Anonymous, false);
    server.stop();
    server.start().unwrap();
    let (url, head) = (server.url("app"), tree.head().unwrap());
    let fetched = tokio::task::spawn_blocking(move || Client::new().fetch(&url, Credentials::none())).await.unwrap();
    assert_eq!(fetched.unwrap(), head);
}
