//! How the controller fetches artifacts from fake registries, some of them hostile.

use gitstore::{Credentials, FetchError, FetchedVersion, Reference, Revision};

use super::cosign::{BUNDLE, Signer};
use super::*;
use crate::charts::archive;
use crate::fake::{Client, Fake, PASSWORD, Said, with_credentials};
use crate::web::lock;

const KIND: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";

fn url(server: &Fake) -> String {
    format!("{}/team/app", server.web.base().replace("https://", "oci://"))
}

impl Fake {
    /// From now on, the server has an artifact under the tag `1.0.0`. Returns the digests of its manifest and its
    /// archive.
    fn has(&self, layer: &[u8]) -> (String, String) {
        let digest = digest_of(layer);
        let layers = json!([{"mediaType": KIND, "digest": digest, "size": layer.len()}]);
        let manifest = json!({"schemaVersion": 2, "layers": layers}).to_string().into_bytes();
        let of_manifest = digest_of(&manifest);
        for name in ["1.0.0", &of_manifest] {
            self.say(&format!("/v2/team/app/manifests/{name}"), Said::Bytes(manifest.clone()));
        }
        self.say(&blob(&digest), Said::Bytes(layer.to_vec()));
        self.say("/v2/team/app/tags/list", Said::Bytes(json!({"tags": ["1.0.0", "latest"]}).to_string().into()));
        (of_manifest, digest)
    }
}

fn blob(digest: &str) -> String {
    format!("/v2/team/app/blobs/{digest}")
}

fn layer() -> Vec<u8> {
    archive(&[("a.yaml", "a: b")]).unwrap()
}

impl Client {
    fn fetch(&self, server: &Fake, reference: Reference) -> Result<Revision, FetchError> {
        self.fetch_from(url(server), reference)
    }

    fn tag(&self, server: &Fake) -> Result<Revision, FetchError> {
        self.fetch(server, Reference::Tag("1.0.0".into()))
    }

    /// Fetches the tag, which must fail, and returns the reason and the message.
    fn refused(&self, server: &Fake) -> (&'static str, String) {
        Self::told(self.tag(server))
    }
}

#[test]
fn credentials_do_not_follow_to_the_host_that_has_the_archive() {
    let access = Access::Basic { username: USERNAME.into(), password: PASSWORD.into() };
    let (registry, storage) = (Fake::with(access, true), Fake::new());
    let layer = layer();
    let (manifest, digest) = registry.has(&layer);
    storage.say("/bucket/archive", Said::Bytes(layer));
    registry.say(&blob(&digest), Said::Elsewhere(format!("{}/bucket/archive?signature=1", storage.web.base())));
    let mut client = Client::of(&[&registry, &storage]);
    client.with_password = true;
    let revision = client.tag(&registry).unwrap();
    assert_eq!(revision.to_string(), format!("1.0.0@{manifest}"));
    assert_eq!(with_credentials(&storage), [false]);
    assert!(with_credentials(&registry).iter().any(|sent| *sent), "the password was needed");
    assert!(!with_credentials(&registry)[0], "it is sent only when it is asked for");

    // The other host wants credentials of its own.
    let mut client = Client::of(&[&registry, &storage]);
    client.with_password = true;
    storage.say("/bucket/archive", Said::Refusal(403, "x-none", "1".into()));
    registry.has(b"other");
    registry.say(&blob(&digest_of(b"other")), Said::Elsewhere(format!("{}/bucket/archive", storage.web.base())));
    let (reason, message) = client.refused(&registry);
    assert_eq!(reason, "NetworkError");
    assert!(
        message.contains(&storage.web.base()["https://".len()..]) && message.contains("are sent only to"),
        "{message}"
    );
}

#[test]
fn a_redirect_leads_to_https_only() {
    let registry = Fake::new();
    let (_, digest) = registry.has(&layer());
    let client = Client::of(&[&registry]);
    for (location, why) in [
        ("http://127.0.0.1/archive", "leads away from https"),
        ("https://me:x@127.0.0.1/archive", "names a user"),
        ("file:///etc/passwd", "a redirect is not followed"),
    ] {
        registry.say(&blob(&digest), Said::Elsewhere(location.to_owned()));
        let (reason, message) = client.refused(&registry);
        assert!(reason == "NetworkError" && message.contains(why), "{reason}: {message}");
    }
    registry.say(&blob(&digest), Said::Elsewhere(format!("{}{}", registry.web.base(), blob(&digest))));
    assert!(client.refused(&registry).1.contains("in a row"));
}

#[test]
fn a_password_goes_to_a_token_service_with_tls_only() {
    let registry = Fake::new();
    let mut client = Client::of(&[&registry]);
    client.with_password = true;
    let ask = |realm: &str| {
        let challenge = format!("Bearer realm=\"{realm}\",service=\"x\"");
        registry.say("/v2/team/app/manifests/1.0.0", Said::Refusal(401, "www-authenticate", challenge));
        client.refused(&registry)
    };
    for realm in ["http://127.0.0.1/token", "https://me@127.0.0.1/token", "token", ""] {
        let (reason, message) = ask(realm);
        assert!(
            reason == "NotARegistry" && message.contains("its token service cannot be used"),
            "{reason}: {message}"
        );
    }
    let service = Fake::new();
    let (reason, message) = ask(&format!("{}/token", service.web.base()));
    assert!(reason == "NetworkError" && message.contains("certificate"), "{reason}: {message}");
    assert!(with_credentials(&registry).iter().all(|sent| !sent), "the registry itself did not ask for them");

    // A service that gives no token.
    client.authorities.extend(service.web.certificate_authority().unwrap().bytes());
    service.say("/token", Said::Bytes(b"{}".into()));
    let challenge = format!("Bearer realm=\"{}/token\",service=\"x\"", service.web.base());
    registry.say("/v2/team/app/manifests/1.0.0", Said::Refusal(401, "www-authenticate", challenge));
    let (reason, message) = client.refused(&registry);
    assert!(reason == "NotARegistry" && message.contains("has no token"), "{reason}: {message}");
    let asked = service.web.requests();
    assert!(asked[0].target.contains("scope=repository:team/app:pull") && asked[0].with_credentials, "{asked:?}");
}

#[test]
fn bytes_with_another_digest_are_not_used() {
    let registry = Fake::new();
    let (manifest, digest) = registry.has(&layer());
    registry.say(&blob(&digest), Said::Bytes(b"other bytes".into()));
    let client = Client::of(&[&registry]);
    let (reason, message) = client.refused(&registry);
    assert!(reason == "DigestMismatch" && message.contains(&digest) && message.contains("not used"), "{message}");

    let (_, other) = registry.has(&layer());
    assert_eq!(other, digest);
    registry.say(&format!("/v2/team/app/manifests/{manifest}"), Said::Bytes(b"{\"layers\": []}".into()));
    let by_digest = Reference::Digest { tag: String::new(), digest: manifest["sha256:".len()..].to_owned() };
    let error = client.fetch(&registry, by_digest).unwrap_err();
    assert!(error.reason() == "DigestMismatch" && error.to_string().contains(&manifest), "{error}");
    assert!(client.tag(&registry).is_ok());
}

#[test]
fn what_has_no_end_is_stopped() {
    let registry = Fake::new();
    let (_, digest) = registry.has(&layer());
    let mut client = Client::of(&[&registry]);
    registry.say(&blob(&digest), Said::Endless);
    let (reason, message) = client.refused(&registry);
    assert!(reason == "TooLarge" && message.contains("its archive takes more than 64 MiB"), "{message}");
    registry.say("/v2/team/app/manifests/1.0.0", Said::Endless);
    assert_eq!(client.refused(&registry).0, "TooLarge");

    registry.has(&layer());
    client.timeout = Duration::from_secs(1);
    for path in [blob(&digest), "/v2/team/app/manifests/1.0.0".to_owned()] {
        registry.say(&path, Said::Stalls);
        let (reason, message) = client.refused(&registry);
        assert!(reason == "Timeout" && message.contains("within 1 s"), "{path}: {message}");
    }

    // A fetch that is no longer needed ends at once.
    client.timeout = Duration::from_secs(600);
    let cancel = client.cancel.clone();
    let asked = registry.web.request_count();
    std::thread::scope(|scope| {
        let fetch = scope.spawn(|| client.tag(&registry));
        while registry.web.request_count() == asked {
            std::thread::yield_now();
        }
        cancel.cancel();
        assert!(matches!(fetch.join().unwrap(), Err(FetchError::Cancelled)));
    });
}

#[test]
fn a_refusal_says_what_it_is() {
    let registry = Fake::new();
    registry.has(&layer());
    let client = Client::of(&[&registry]);
    registry.say("/v2/team/app/manifests/1.0.0", Said::Refusal(429, "retry-after", "7".into()));
    let error = client.tag(&registry).unwrap_err();
    assert_eq!((error.reason(), error.retry_after()), ("TooManyRequests", Some(Duration::from_secs(7))));
    registry.say("/v2/team/app/manifests/1.0.0", Said::Refusal(503, "x-none", "1".into()));
    assert_eq!(client.refused(&registry).0, "NetworkError");
    registry.say("/v2/team/app/manifests/1.0.0", Said::Refusal(404, "x-none", "1".into()));
    let (reason, message) = client.refused(&registry);
    assert!(reason == "ReferenceNotFound" && message.contains("the tags are: 1.0.0, latest"), "{message}");
    registry.say("/v2/team/app/tags/list", Said::Bytes(b"<html>".into()));
    assert_eq!(client.refused(&registry).0, "NotARegistry");
    let (_, digest) = registry.has(&layer());
    registry.say(&blob(&digest), Said::Refusal(404, "x-none", "1".into()));
    let (reason, message) = client.refused(&registry);
    assert!(reason == "ArchiveNotFound" && message.contains("push the archive again"), "{message}");
    let error = client.fetch(&registry, Reference::Head).unwrap_err();
    assert!(error.reason() == "InvalidReference" && error.is_terminal(), "{error}");
}

#[test]
fn tags_come_in_pages() {
    let registry = Fake::new();
    let (manifest, _) = registry.has(&layer());
    let said = registry.said.clone();
    let pages = Arc::new(move |request: Request<Body>| {
        let next = "</v2/team/app/tags/list?last=b&n=1>; rel=\"next\"";
        let answer = match (request.uri().path(), request.uri().query()) {
            ("/v2/team/app/tags/list", None) => Response::builder()
                .header(header::LINK, next)
                .body(Body::from(json!({"tags": ["0.9.0"]}).to_string()))
                .unwrap(),
            ("/v2/team/app/tags/list", Some("last=b&n=1")) => {
                Response::new(Body::from(json!({"tags": ["1.0.0"]}).to_string()))
            }
            (path, _) => lock(&said).get(path).cloned().unwrap().response(),
        };
        Box::pin(std::future::ready(answer)) as crate::web::Answer
    });
    let paged = Fake { web: WebServer::new(Access::Anonymous, true, pages).unwrap(), said: registry.said.clone() };
    let revision = Client::of(&[&paged]).fetch(&paged, Reference::Semver("*".into())).unwrap();
    assert_eq!(revision.to_string(), format!("1.0.0@{manifest}"));
}

/// A registry whose list of referrers has pages: `page` gives what the list has with this query, and the header `Link` of the answer.
fn with_referrers(
    registry: &Fake,
    manifest: &str,
    page: impl Fn(&str) -> (Value, String) + Send + Sync + 'static,
) -> Fake {
    let (said, list) = (registry.said.clone(), format!("/v2/team/app/referrers/{manifest}"));
    let pages = Arc::new(move |request: Request<Body>| {
        let answer = if request.uri().path() == list {
            let (manifests, link) = page(request.uri().query().unwrap_or_default());
            let body = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
            Response::builder().header(header::LINK, link).body(Body::from(body)).unwrap()
        } else {
            let known = lock(&said).get(request.uri().path()).cloned();
            known.unwrap_or(Said::Refusal(404, "x-none", "1".into())).response()
        };
        Box::pin(std::future::ready(answer)) as crate::web::Answer
    });
    Fake { web: WebServer::new(Access::Anonymous, true, pages).unwrap(), said: registry.said.clone() }
}

#[test]
fn a_signature_may_be_on_a_later_page() {
    let (registry, other, signer) = (Fake::new(), Fake::new(), Signer::new().unwrap());
    let (manifest, _) = registry.has(&layer());
    let bundle = signer.bundle(&manifest, "https://sigstore.dev/cosign/sign/v1").unwrap();
    let layers = json!([{"mediaType": BUNDLE, "digest": digest_of(bundle.as_bytes()), "size": bundle.len()}]);
    let of_bundle = json!({"schemaVersion": 2, "layers": layers}).to_string();
    let digest = digest_of(of_bundle.as_bytes());
    registry.say(&format!("/v2/team/app/manifests/{digest}"), Said::Bytes(of_bundle.into()));
    registry.say(&blob(&digest_of(bundle.as_bytes())), Said::Bytes(bundle.into()));
    let listed = json!([{"artifactType": BUNDLE, "digest": digest}]);
    let base = other.web.base();
    let paged = with_referrers(&registry, &manifest, move |query| match query {
        // Only the query of a link counts: no other server is asked, and no other list.
        "" => (json!([]), format!("<{base}/v2/team/app/tags/list?last=a&n=1>; rel=\"next\"")),
        "last=a&n=1" => (listed.clone(), String::new()),
        query => panic!("{query}"),
    });
    let mut client = Client::of(&[&paged, &other]);
    client.trusted = Some(signer.public_key());
    assert_eq!(client.tag(&paged).unwrap().to_string(), format!("1.0.0@{manifest}"));
    assert_eq!(other.web.request_count(), 0);

    // A list without an end.
    let endless = with_referrers(&registry, &manifest, |query| {
        let number: u32 = query.strip_prefix("page=").unwrap_or("0").parse().unwrap();
        (json!([]), format!("</x?page={}>; rel=\"next\"", number + 1))
    });
    let mut client = Client::of(&[&endless]);
    client.trusted = Some(signer.public_key());
    assert_eq!(client.refused(&endless).0, "Unsigned");
    let asked = endless.web.requests().iter().filter(|request| request.target.contains("/referrers/")).count();
    assert_eq!(asked, 20);
}

#[test]
fn lists_of_tags_do_not_fill_the_memory() {
    let registry = Fake::new();
    let (manifest, _) = registry.has(&layer());
    let large = json!({"tags": ["a".repeat(1 << 20), "b".repeat(129), "not a tag", "1.0.0"]}).to_string();
    registry.say("/v2/team/app/tags/list", Said::Bytes(large.into()));
    let client = Client::of(&[&registry]);
    let revision = client.fetch(&registry, Reference::Semver("*".into())).unwrap();
    assert_eq!(revision.to_string(), format!("1.0.0@{manifest}"));
    let error = client.fetch(&registry, Reference::Tag("2.0.0".into())).unwrap_err();
    let message = error.to_string();
    assert!(message.contains("the tags are: 1.0.0") && !message.contains("aaa") && !message.contains("not a tag"));

    let many = json!({"tags": vec!["a"; 100_001]}).to_string();
    registry.say("/v2/team/app/tags/list", Said::Bytes(many.into()));
    let error = client.fetch(&registry, Reference::Semver("*".into())).unwrap_err();
    assert!(error.reason() == "TooLarge" && error.to_string().contains("more than 100000 tags"), "{error}");
}

/// Somebody who chooses the registry must not be able to read the answers of other servers in the status of the
/// Repository.
#[test]
fn answers_of_other_servers_are_not_repeated() {
    const INTERNAL: &str = "internal-5f2c";
    let (registry, internal) = (Fake::new(), Fake::new());
    registry.has(&layer());
    let client = Client::of(&[&registry, &internal]);
    let elsewhere = format!("{}/secret", internal.web.base());
    for body in [json!(INTERNAL), json!({"layers": INTERNAL}), json!({"tags": INTERNAL})] {
        internal.say("/secret", Said::Bytes(body.to_string().into()));
        registry.say("/v2/team/app/manifests/1.0.0", Said::Elsewhere(elsewhere.clone()));
        let (reason, message) = client.refused(&registry);
        assert!(reason == "ArtifactNotSupported" && !message.contains(INTERNAL), "{reason}: {message}");
        registry.say("/v2/team/app/tags/list", Said::Elsewhere(elsewhere.clone()));
        let error = client.fetch(&registry, Reference::Semver("*".into())).unwrap_err();
        assert!(!error.to_string().contains(INTERNAL), "{error}");
    }
    // Not even the digest is told: a short secret can be guessed from it.
    let (_, digest) = registry.has(&layer());
    internal.say("/secret", Said::Bytes(INTERNAL.into()));
    let pinned = Reference::Digest { tag: "1.0.0".into(), digest: "1".repeat(64) };
    for path in [blob(&digest), "/v2/team/app/manifests/1.0.0".to_owned()] {
        registry.say(&path, Said::Elsewhere(elsewhere.clone()));
        let (reason, message) = Client::told(client.fetch(&registry, pinned.clone()));
        let (other, archive) = (client.refused(&registry), digest_of(INTERNAL.as_bytes()));
        assert!(reason == "DigestMismatch" && !message.contains(&archive) && !other.1.contains(&archive), "{message}");
    }
    // A server that the registry names as its token service.
    for status in [401, 403, 429, 503] {
        internal.say("/secret", Said::Refusal(status, "content-type", "text/plain".into()));
        let challenge = format!("Bearer realm=\"{elsewhere}\",service=\"x\"");
        registry.say("/v2/team/app/manifests/1.0.0", Said::Refusal(401, "www-authenticate", challenge));
        let message = client.refused(&registry).1;
        assert!(!message.contains("it says"), "{status}: {message}");
    }
}

#[test]
fn a_version_keeps_its_digest() {
    let (registry, elsewhere) = (Fake::new(), Fake::new());
    let (first, _) = registry.has(&layer());
    let mut client = Client::of(&[&registry, &elsewhere]);
    client.tag(&registry).unwrap();
    let (second, digest) = registry.has(&archive(&[("a.yaml", "a: c")]).unwrap());
    let (reason, message) = client.refused(&registry);
    let expected = format!(
        "version 1.0.0 has the digest {second} now, but it was fetched with the digest {first}: a version keeps its content, so \
         the new content is not used. Publish it as another version; or, if you trust it, set spec.ref.tag to \"1.0.0\" and \
         spec.ref.digest to its digest"
    );
    assert_eq!((reason, message), ("DigestChanged", expected));
    let key = client.request(url(&registry), Reference::Head, Credentials::none()).key;
    let last = |client: &Client| client.store.last(&key, &url(&registry)).map(|last| last.to_string());
    assert_eq!(last(&client), Some(format!("1.0.0@{first}")));

    // The digest of what another server sent is not shown.
    let layers = json!([{"mediaType": KIND, "digest": digest, "size": 10}]);
    let manifest = json!({"schemaVersion": 2, "layers": layers, "annotations": {"a": "b"}}).to_string().into_bytes();
    let of_manifest = digest_of(&manifest);
    elsewhere.say("/manifest", Said::Bytes(manifest));
    registry.say("/v2/team/app/manifests/1.0.0", Said::Elsewhere(format!("{}/manifest", elsewhere.web.base())));
    let (reason, message) = client.refused(&registry);
    assert!(reason == "DigestChanged" && message.contains("has another digest now"), "{message}");
    assert!(!message.contains(&of_manifest), "{message}");

    // The disk is lost, but the status of the Repository records the digest.
    registry.has(&archive(&[("a.yaml", "a: c")]).unwrap());
    let bare = |digest: &str| digest.trim_start_matches("sha256:").to_owned();
    let fetched = |digest: &str| {
        let (version, since) = ("1.0.0".to_owned(), "2026-01-02T03:04:05Z".to_owned());
        vec![FetchedVersion { version, digest: bare(digest), since }]
    };
    let mut fresh = Client::of(&[&registry]);
    fresh.fetched = fetched(&first);
    let (reason, message) = fresh.refused(&registry);
    let told = format!("it was fetched with the digest {first} at 2026-01-02T03:04:05Z: a version");
    assert!(reason == "DigestChanged" && message.contains(&told) && last(&fresh).is_none(), "{message}");

    // Whoever names the digest accepts it.
    let accepted = Reference::Digest { tag: "1.0.0".into(), digest: bare(&second) };
    assert_eq!(client.fetch(&registry, accepted).unwrap().to_string(), format!("1.0.0@{second}"));
    client.fetched = fetched(&second);
    client.tag(&registry).unwrap();
}
