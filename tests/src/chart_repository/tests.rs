//! The controller's store with servers that claim to be a chart repository. A stranger may run them, or a tenant who wants to read
//! in the status of a Repository what other servers answer to the controller.

use std::time::Duration;

use gitstore::{Credentials, FetchError, Reference, Revision, chart_url};
use zeroize::Zeroizing;

use super::*;
use crate::charts::archive;
use crate::fake::{Client, Fake, PASSWORD, Said, with_credentials};
use crate::registry::USERNAME;

const INDEX: &str = "/stable/index.yaml";

fn url(server: &Fake) -> String {
    chart_url(&format!("{}/stable", server.web.base()), "hello")
}

fn fetch(client: &Client, server: &Fake) -> Result<Revision, FetchError> {
    client.fetch_from(url(server), Reference::Head)
}

/// Fetches the chart, which must fail. Returns the reason and the message of the failure.
fn refused(client: &Client, server: &Fake) -> (&'static str, String) {
    Client::told(fetch(client, server))
}

/// A version of the chart in an index.
fn version(name: &str, content: &[u8], urls: &[&str]) -> String {
    let digest = digest_of(content);
    format!("  - version: {name}\n    digest: {digest}\n    urls: {}\n", serde_json::json!(urls))
}

fn index(versions: &[String]) -> Said {
    Said::Bytes(format!("apiVersion: v1\nentries:\n  hello:\n{}", versions.concat()).into())
}

fn chart(version: &str) -> Vec<u8> {
    archive(&[("hello/Chart.yaml", &format!("apiVersion: v2\nname: hello\nversion: {version}\n"))]).unwrap()
}

fn elsewhere(server: &Fake, path: &str) -> String {
    format!("{}{path}", server.web.base())
}

fn password(right: bool) -> Credentials {
    Credentials::basic(USERNAME, Zeroizing::new(if right { PASSWORD } else { "wrong" }.as_bytes().to_vec()))
}

#[test]
fn credentials_stay_at_the_host_of_the_repository() {
    let access = Access::Basic { username: USERNAME.into(), password: PASSWORD.into() };
    let (server, storage) = (Fake::with(access, true), Fake::new());
    let chart = chart("1.0.0");
    server.say(INDEX, index(&[version("1.0.0", &chart, &["hello.tgz"])]));
    server.say("/stable/hello.tgz", Said::Elsewhere(elsewhere(&storage, "/bucket/a?signature=1")));
    storage.say("/bucket/a", Said::Bytes(chart.clone()));
    let mut client = Client::of(&[&server, &storage]);
    client.with_password = true;
    assert_eq!(fetch(&client, &server).unwrap().to_string(), format!("1.0.0@{}", digest_of(&chart)));
    assert_eq!((with_credentials(&server), with_credentials(&storage)), (vec![true, true], vec![false]));

    // The URL of the index redirects to another host. A relative URL in the index is still resolved against the URL of
    // the Repository.
    server.say(INDEX, Said::Elsewhere(elsewhere(&storage, "/index.yaml")));
    let next = self::chart("2.0.0");
    storage.say("/index.yaml", index(&[version("2.0.0", &next, &["next.tgz"])]));
    server.say("/stable/next.tgz", Said::Bytes(next));
    fetch(&client, &server).unwrap();
    assert!(with_credentials(&storage).iter().all(|sent| !sent) && with_credentials(&server).iter().all(|sent| *sent));

    // The other host wants credentials of its own.
    storage.say("/index.yaml", Said::Refusal(401, "content-type", "text/plain".into()));
    let (reason, message) = refused(&client, &server);
    assert!(
        reason == "NetworkError" && message.contains("are sent only to") && !message.contains("it says"),
        "{message}"
    );
}

#[test]
fn a_password_or_a_token_opens_and_a_wrong_one_says_so() {
    let basic = Access::Basic { username: USERNAME.into(), password: PASSWORD.into() };
    let token = || Credentials::bearer(Zeroizing::new(PASSWORD.as_bytes().to_vec()));
    let accesses: [(Access, &dyn Fn() -> Credentials); 2] =
        [(basic, &|| password(true)), (Access::Bearer(PASSWORD.into()), &token)];
    for (access, right) in accesses {
        let server = Fake::with(access, true);
        let chart = chart("1.0.0");
        server.say(INDEX, index(&[version("1.0.0", &chart, &["hello.tgz"])]));
        server.say("/stable/hello.tgz", Said::Bytes(chart));
        let client = Client::of(&[&server]);
        for (credentials, hint) in [
            (Credentials::none(), "name a Secret with them in spec.secretRef"),
            (password(false), "the credentials in spec.secretRef"),
        ] {
            let (reason, message) = Client::told(client.fetch_with(url(&server), Reference::Head, credentials));
            assert!(reason == "AuthenticationFailed" && message.contains(hint), "{message}");
        }
        client.fetch_with(url(&server), Reference::Head, right()).unwrap();
    }
}

#[test]
fn plain_http_is_for_what_everybody_may_read() {
    let (server, other) = (Fake::with(Access::Anonymous, false), Fake::new());
    let (chart, next) = (chart("1.0.0"), chart("2.0.0"));
    server.say(INDEX, index(&[version("1.0.0", &chart, &["hello.tgz"])]));
    server.say("/stable/hello.tgz", Said::Bytes(chart.clone()));
    let client = Client::of(&[&server, &other]);
    fetch(&client, &server).unwrap();
    let (reason, message) = Client::told(client.fetch_with(url(&server), Reference::Head, password(true)));
    assert!(reason == "CredentialsOverHttp" && message.contains("use https"), "{message}");
    assert!(with_credentials(&server).iter().all(|sent| !sent));

    // A repository under http may lead to https, but a repository under https may not lead to http.
    other.say("/next.tgz", Said::Bytes(next.clone()));
    server.say(INDEX, index(&[version("2.0.0", &next, &[&elsewhere(&other, "/next.tgz")])]));
    fetch(&client, &server).unwrap();
    other.say(INDEX, index(&[version("3.0.0", &chart, &[&elsewhere(&server, "/stable/hello.tgz")])]));
    assert!(refused(&client, &other).1.contains("leads away from https"));
    other.say(INDEX, Said::Elsewhere(elsewhere(&server, INDEX)));
    assert!(refused(&client, &other).1.contains("leads away from https"));
}

#[test]
fn urls_that_lead_astray_are_not_asked() {
    let server = Fake::new();
    let client = Client::of(&[&server]);
    for (url, why) in [
        ("file:///etc/passwd", "it does not begin with https://"),
        ("ftp://charts.example.com/a.tgz", "it does not begin with https://"),
        ("oci://registry.example.com/charts/hello", "set spec.url to the chart's oci:// URL"),
        ("http://169.254.169.254/latest/meta-data", "it leads away from https"),
        ("https://169.254.169.254/latest/meta-data", "no requests are sent to such addresses"),
        ("https://[fe80::1]/a.tgz", "no requests are sent to such addresses"),
        ("https://[::ffff:a9fe:a9fe]/a.tgz", "no requests are sent to such addresses"),
        ("//169.254.169.254/a.tgz", "no requests are sent to such addresses"),
        ("https://me:x@localhost/a.tgz", "it names a user"),
        ("https:hello.tgz", "was not found"),
    ] {
        server.say(INDEX, index(&[version("1.0.0", b"a", &[url])]));
        let (_, message) = refused(&client, &server);
        let is_missing = url == "https:hello.tgz" && message.contains("has no archive");
        assert!(message.contains(why) || is_missing, "{url}: {message}");
        // The same address in a redirect is refused, too: a redirect of the index, and one of the archive.
        if url.starts_with("https://") || url.starts_with("http://") || url.starts_with("file") {
            server.say(INDEX, Said::Elsewhere(url.to_owned()));
            let (reason, message) = refused(&client, &server);
            assert!(reason == "NetworkError" && !message.contains("passwd"), "{url}: {reason}: {message}");
            server.say(INDEX, index(&[version("1.0.0", b"a", &["a.tgz"])]));
            server.say("/stable/a.tgz", Said::Elsewhere(url.to_owned()));
            assert_eq!(refused(&client, &server).0, "NetworkError", "{url}");
        }
    }
    server.say(INDEX, index(&[version("1.0.0", b"a", &["a.tgz"])]));
    server.say("/stable/a.tgz", Said::Elsewhere(elsewhere(&server, "/stable/a.tgz")));
    assert!(refused(&client, &server).1.contains("in a row"));
}

#[test]
fn the_first_url_that_works_is_used() {
    let (server, closed) = (Fake::new(), Fake::new());
    let chart = chart("1.0.0");
    let away = elsewhere(&closed, "/hello.tgz");
    let client = Client::of(&[&server, &closed]);
    closed.web.stop();
    server.say("/stable/other.tgz", Said::Bytes(b"other bytes".into()));
    server.say("/stable/hello.tgz", Said::Bytes(chart.clone()));
    let broken = ["ftp://x/a.tgz", &away, "missing.tgz", "other.tgz"];
    server.say(INDEX, index(&[version("1.0.0", &chart, &[&broken[..], &["hello.tgz"]].concat())]));
    fetch(&client, &server).unwrap();

    // If none of the first five URLs works, the error is about the first one. The sixth URL would work, but is not
    // tried.
    let next = self::chart("2.0.0");
    server.say("/stable/hello.tgz", Said::Bytes(next.clone()));
    server.say(INDEX, index(&[version("2.0.0", &next, &[&broken[1..], &["m", "n", "hello.tgz"]].concat())]));
    let (reason, message) = refused(&client, &server);
    assert!(reason == "NetworkError" && message.contains(&away["https://".len()..away.len() - 10]), "{message}");
    server.say(INDEX, index(&[version("2.0.0", &next, &[])]));
    assert!(refused(&client, &server).1.contains("names no URL"));
}

#[test]
fn bytes_with_another_digest_are_not_used() {
    let (server, internal) = (Fake::new(), Fake::new());
    let client = Client::of(&[&server, &internal]);
    server.say(INDEX, index(&[version("1.0.0", b"promised", &["hello.tgz"])]));
    server.say("/stable/hello.tgz", Said::Bytes(b"1234".into()));
    let (reason, message) = refused(&client, &server);
    let told = [digest_of(b"promised"), digest_of(b"1234"), "4 bytes".to_owned()];
    assert!(reason == "DigestMismatch" && told.iter().all(|part| message.contains(part)), "{message}");

    // If the bytes came from another server, the message does not show even their digest: a short secret can be guessed
    // from its digest.
    internal.say("/pin", Said::Bytes(b"1234".into()));
    for said in [Said::Elsewhere(elsewhere(&internal, "/pin")), Said::Refusal(404, "x-none", "1".into())] {
        server.say("/stable/hello.tgz", said);
        server.say(INDEX, index(&[version("1.0.0", b"promised", &[&elsewhere(&internal, "/pin"), "hello.tgz"])]));
        let (reason, message) = refused(&client, &server);
        assert!(reason == "DigestMismatch" && message.contains("has another digest"), "{message}");
        assert!(!message.contains(&told[1]) && !message.contains(&told[2]), "{message}");
    }
}

#[test]
fn answers_of_other_servers_are_not_repeated() {
    const INTERNAL: &str = "internal-5f2c";
    let (server, internal) = (Fake::new(), Fake::new());
    let client = Client::of(&[&server, &internal]);
    server.say(INDEX, Said::Elsewhere(elsewhere(&internal, "/secret")));
    let of = |text: String| {
        internal.say("/secret", Said::Bytes(text.into()));
        let (reason, message) = refused(&client, &server);
        assert!(!message.contains(INTERNAL), "{message}");
        reason
    };
    assert_eq!(of(INTERNAL.to_owned()), "NotAChartRepository");
    assert_eq!(of(format!("{INTERNAL}: [")), "NotAChartRepository");
    assert_eq!(of(format!("entries: {{{INTERNAL}: []}}")), "ReferenceNotFound");
    assert_eq!(of(format!("entries: {{hello: [{{version: {INTERNAL}}}]}}")), "ReferenceNotFound");
    for status in [401, 403, 429, 503] {
        internal.say("/secret", Said::Refusal(status, "content-type", "text/plain".into()));
        assert!(!refused(&client, &server).1.contains("it says"), "{status}");
        server.say("/stable/a.tgz", Said::Elsewhere(elsewhere(&internal, "/secret")));
    }
}

#[test]
fn names_cannot_control_a_terminal() {
    let server = Fake::new();
    let client = Client::of(&[&server]);
    // `refused` fails if the message has a control character.
    server.say(INDEX, Said::Bytes(b"entries: {\"\\e]0;evil\\a\": []}".into()));
    let (reason, message) = refused(&client, &server);
    assert!(reason == "ReferenceNotFound" && message.contains("]0;evil"), "{message}");
    let evil = version("\"1.0.0-a\\e[2J\"", b"a", &["\u{1b}.tgz"]);
    server.say(INDEX, index(&[evil, version("1.0.0-rc.1", b"a", &["a\u{7}.tgz"])]));
    assert!(refused(&client, &server).1.ends_with("the versions are: 1.0.0-rc.1"));
    let of = |version: &str| Client::told(client.fetch_from(url(&server), Reference::Tag(version.to_owned())));
    assert!(of("1.0.0-rc.1").1.contains("it is not a URL"));
    assert!(of("1.0.0-a\u{1b}[2J").0 == "ReferenceNotFound");
    // An archive has the digest that the index names, but a file in it has a path that leads out of the archive and
    // contains a control character.
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("a"), "a").unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.args(["-cz", "-P", "--transform=s,a,hello/../../\x1b[2J,", "-f", "climbs.tgz", "a"]);
    crate::programs::run(tar.current_dir(folder.path())).unwrap();
    let climbs = fs::read(folder.path().join("climbs.tgz")).unwrap();
    server.say(INDEX, index(&[version("1.0.0", &climbs, &["hello.tgz"])]));
    server.say("/stable/hello.tgz", Said::Bytes(climbs));
    let (reason, message) = refused(&client, &server);
    assert!(reason == "InvalidArchive" && message.contains("leads upwards with '..'"), "{message}");
}

#[test]
fn what_has_no_end_is_stopped() {
    let server = Fake::new();
    let mut client = Client::of(&[&server]);
    let chart = chart("1.0.0");
    server.say(INDEX, index(&[version("1.0.0", &chart, &["hello.tgz"])]));
    server.say("/stable/hello.tgz", Said::Endless);
    let (reason, message) = refused(&client, &server);
    assert!(reason == "TooLarge" && message.contains("its archive takes more than 64 MiB"), "{message}");
    server.say(INDEX, Said::Endless);
    assert_eq!(refused(&client, &server).0, "NotAChartRepository");
    server.say(INDEX, Said::Refusal(304, "x-none", "1".into()));
    let (reason, message) = refused(&client, &server);
    assert!(reason == "NetworkError" && message.contains("304"), "{message}");

    client.timeout = Duration::from_secs(1);
    for said in [Said::Stalls, Said::Drips] {
        server.say(INDEX, said.clone());
        let (reason, message) = refused(&client, &server);
        assert!(reason == "Timeout" && message.contains("within 1 s"), "{message}");
        server.say(INDEX, index(&[version("1.0.0", &chart, &["hello.tgz", "hello.tgz"])]));
        server.say("/stable/hello.tgz", said);
        assert_eq!(refused(&client, &server).0, "Timeout");
    }

    // A fetch that is no longer needed ends at once.
    client.timeout = Duration::from_secs(600);
    server.say(INDEX, Said::Drips);
    let cancel = client.cancel.clone();
    let asked = server.web.request_count();
    std::thread::scope(|scope| {
        let fetch = scope.spawn(|| fetch(&client, &server));
        while server.web.request_count() == asked {
            std::thread::yield_now();
        }
        cancel.cancel();
        assert!(matches!(fetch.join().unwrap(), Err(FetchError::Cancelled)));
    });
}

#[test]
fn an_index_is_sent_again_only_if_it_changed_or_something_else_is_wanted() {
    let server = ChartServer::start(Access::Anonymous).unwrap();
    let versions = ["1.0.0", "2.0.0"].map(|name| {
        fs::write(server.folder().join(format!("{name}.tgz")), chart(name)).unwrap();
        version(name, &chart(name), &[&format!("{name}.tgz")])
    });
    let write = |versions: &[String]| {
        let text = format!("entries:\n  hello:\n{}", versions.concat());
        fs::write(server.index(), text).unwrap();
    };
    write(&versions[..1]);
    let mut client = Client::of(&[]);
    client.authorities = server.certificate_authority().into();
    let found = |reference: Reference| {
        let revision = client.fetch_from(chart_url(&server.url(), "hello"), reference).unwrap();
        (revision.reference, server.downloads())
    };
    for _ in 0..3 {
        assert_eq!(found(Reference::Head), ("1.0.0".to_owned(), 1));
    }
    write(&versions);
    for _ in 0..3 {
        assert_eq!(found(Reference::Head), ("2.0.0".to_owned(), 2));
    }
    for _ in 0..2 {
        assert_eq!(found(Reference::Tag("1.0.0".into())), ("1.0.0".to_owned(), 3));
    }
    assert_eq!(found(Reference::Semver(">1".into())), ("2.0.0".to_owned(), 4));
}
