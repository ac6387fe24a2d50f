pub(crate) mod fake_api;
mod renewal;

use std::{path::Path, sync::Mutex};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pipeline::Resource;
use serde_json::{Value, json};

use self::fake_api::FakeApi;
use super::*;
use crate::leader::Leadership;
use renderer::Sealer as _;
use sealing::{Binding, PrivateKey, Scope};
use unsealing::{SealedInput, SealedTexts};

const NAMESPACE: &str = "sealing";
const SECRETS: &str = "/api/v1/namespaces/sealing/secrets";

/// A file of the sealing crate's test vectors, made by the Sealed Secrets project's own programs.
pub(crate) fn vector(name: &str) -> Vec<u8> {
    std::fs::read(Path::new(VECTORS).join(name)).unwrap()
}

const VECTORS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../sealing/tests/vectors");

/// A key Secret as Sealed Secrets writes it. If `label` is empty, the Secret has no label.
fn key_secret(name: &str, certificate: &[u8], private: &[u8], label: &str) -> Value {
    let mut secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name},
        "data": {"tls.crt": STANDARD.encode(certificate), "tls.key": STANDARD.encode(private)},
    });
    if !label.is_empty() {
        secret["metadata"]["labels"] = json!({crds::names::SEALING_KEY: label});
    }
    secret
}

fn put_vector(api: &FakeApi, name: &str, key: &str, label: &str) {
    let secret = key_secret(name, &vector(&format!("{key}.crt")), &vector(&format!("{key}.key")), label);
    api.put(&format!("{SECRETS}/{name}"), secret);
}

fn options() -> KeyOptions {
    KeyOptions { size_bits: 2048, ..KeyOptions::new(NAMESPACE) }
}

async fn start(client: kube::Client) -> Keyring {
    begin(client, options(), Metrics::new("test")).await.unwrap()
}

async fn begin(client: kube::Client, options: KeyOptions, metrics: Metrics) -> Result<Keyring, KeyError> {
    let api = Api::new(client, Leadership::alone(), metrics.clone());
    let events = Events::start(api.clone(), metrics.clone(), CancellationToken::new());
    Keyring::start(api, options, metrics, events).await
}

/// A keyring whose only key is the vector `rsa-2048`.
pub(crate) async fn keyring_of_vectors() -> Keyring {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    start(client).await
}

/// A keyring that seals with the vector `rsa-4096` and also unseals with `rsa-2048`, and the certificates of both.
pub(crate) async fn keyring_of_two() -> (Keyring, Certificate, Certificate) {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "old", "rsa-2048", "compromised");
    put_vector(&api, "new", "rsa-4096", "active");
    let certificate = |name| Certificate::from_pem(&vector(name)).unwrap();
    (start(client).await, certificate("rsa-2048.crt"), certificate("rsa-4096.crt"))
}

fn common_name(keyring: &Keyring) -> Option<String> {
    keyring.certificate()?.common_name().map(str::to_owned)
}

/// The binding of values of the SealedSecret `a/b`.
const AB: Binding<'static> = Scope::Strict.binding("a", "b", "any");

/// Values of the SealedSecret `name` in namespace `a`.
fn texts<const N: usize>(name: &str, texts: [String; N]) -> SealedTexts {
    let texts = texts.into_iter().map(|text| (Some("any".to_owned()), text)).collect();
    SealedTexts { scope: Scope::Strict, namespace: "a".into(), name: name.into(), texts }
}

fn seal(keyring: &Keyring, text: &str) -> String {
    sealing::seal(&keyring.certificate().unwrap(), AB, text.as_bytes()).unwrap()
}

async fn unseal(keyring: &Keyring, value: &str) -> Result<Vec<u8>, String> {
    let mut results = keyring.unseal(texts("b", [value.to_owned()])).await.values;
    results.pop().unwrap().map(|value| value.expose().to_vec()).map_err(|error| error.to_string())
}

/// Waits for a new generation of keys, at most as long as a slow machine may need.
async fn next_generation(changes: &mut watch::Receiver<u64>) {
    tokio::time::timeout(Duration::from_secs(60), changes.changed()).await.expect("the keys change").unwrap();
}

#[tokio::test]
async fn the_first_start_makes_a_key_that_the_second_one_uses() {
    let (api, client) = FakeApi::start().await;
    let mut options = options();
    options.common_name = "gitseal".into();
    options.labels.insert("team".into(), "platform".into());
    options.annotations.insert("why".into(), "first".into());
    let first = begin(client.clone(), options, Metrics::new("test")).await.unwrap();
    let sealed = seal(&first, "hunter2");

    let made = api.objects(&format!("{SECRETS}/sealed-secrets-key")).remove(0);
    assert_eq!(made["type"], "kubernetes.io/tls");
    assert_eq!(made["metadata"]["generateName"], "sealed-secrets-key");
    assert_eq!(made["metadata"]["labels"], json!({crds::names::SEALING_KEY: "active", "team": "platform"}));
    assert_eq!(made["metadata"]["annotations"], json!({"why": "first"}));
    let pem = STANDARD.decode(made["data"]["tls.key"].as_str().unwrap()).unwrap();
    assert!(pem.starts_with(b"-----BEGIN RSA PRIVATE KEY-----\n"), "PKCS#1, as Sealed Secrets reads it");
    let certificate = first.certificate().unwrap();
    assert_eq!(certificate.common_name(), Some("gitseal"));
    assert!(certificate.not_before() <= jiff::Timestamp::now());
    let days = certificate.not_after().duration_since(certificate.not_before()).as_hours() / 24;
    assert_eq!(days, 3650);

    let second = start(client).await;
    assert_eq!(second.certificate().unwrap(), certificate);
    assert_eq!(unseal(&second, &sealed).await, Ok(b"hunter2".to_vec()));
    assert_eq!(api.objects(SECRETS).len(), 2, "one sealing key and one digest key");
}

#[tokio::test]
async fn the_newest_active_certificate_seals_and_every_key_unseals() {
    let (api, client) = FakeApi::start().await;
    // One run of a program made both vectors, so the test reads from their certificates which one is newer.
    put_vector(&api, "one", "rsa-2048", "active");
    put_vector(&api, "two", "rsa-4096", "active");
    let keyring = start(client.clone()).await;
    let old = Certificate::from_pem(&vector("rsa-2048.crt")).unwrap();
    let new = Certificate::from_pem(&vector("rsa-4096.crt")).unwrap();
    let newest = if new.not_before() >= old.not_before() { &new } else { &old };
    assert_eq!(&keyring.certificate().unwrap(), newest);
    for certificate in [&old, &new] {
        let value = sealing::seal(certificate.public_key(), AB, b"value").unwrap();
        assert_eq!(unseal(&keyring, &value).await, Ok(b"value".to_vec()));
    }

    put_vector(&api, "one", "rsa-2048", "compromised");
    let keyring = start(client.clone()).await;
    assert_eq!(keyring.certificate().unwrap(), new, "a compromised key does not seal");
    let value = sealing::seal(old.public_key(), AB, b"value").unwrap();
    assert_eq!(unseal(&keyring, &value).await, Ok(b"value".to_vec()), "but it unseals");

    put_vector(&api, "one", "rsa-2048", "retired");
    let keyring = start(client).await;
    assert!(unseal(&keyring, &value).await.is_err(), "any other label takes a key out of use");
}

#[tokio::test]
async fn keys_are_ordered_by_the_creation_of_their_secrets_if_asked_to() {
    let older = Certificate::from_pem(&vector("rsa-2048.crt")).unwrap();
    let key = |name: &str, created: &str| {
        let private = sealing::PrivateKey::from_pem(&vector("rsa-2048.key")).unwrap();
        let certificate = sealing::self_signed(
            &private,
            name,
            if name == "late certificate" { jiff::Timestamp::now() } else { older.not_before() },
            jiff::SignedDuration::from_hours(24),
        );
        Arc::new(set::SealingKey {
            name: name.into(),
            resource_version: "1".into(),
            created: created.parse().unwrap(),
            purpose: set::Purpose::Seal,
            certificate: Some(certificate.unwrap()),
            fingerprint: private.public_key().fingerprint().into(),
            private,
        })
    };
    let keys = || vec![key("late certificate", "2026-01-01T00:00:00Z"), key("late secret", "2026-02-01T00:00:00Z")];
    let newest = |order| {
        let set = KeySet::new(keys(), Vec::new(), order);
        set.certificate()?.common_name().map(str::to_owned)
    };
    assert_eq!(newest(KeyOrder::CertNotBefore).as_deref(), Some("late certificate"));
    assert_eq!(newest(KeyOrder::SecretCreationTimestamp).as_deref(), Some("late secret"));
}

#[tokio::test]
async fn a_secret_named_as_the_prefix_is_a_key_without_a_label() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "sealed-secrets-key", "rsa-2048", "");
    put_vector(&api, "somebody-elses", "rsa-4096", "");
    let keyring = start(client).await;
    assert_eq!(common_name(&keyring).as_deref(), Some("gitseal test key"));
    assert_eq!(keyring.0.keys.borrow().len(), 1);
}

#[tokio::test]
async fn malformed_keys_are_counted_and_left_out() {
    let (api, client) = FakeApi::start().await;
    let good = vector("rsa-2048.key");
    let certificate = vector("rsa-2048.crt");
    let malformed = [
        ("no-pem", key_secret("no-pem", &certificate, b"not a key", "active")),
        ("cut", key_secret("cut", &certificate, &good[..good.len() / 2], "active")),
        ("not-rsa", key_secret("not-rsa", &certificate, &certificate, "active")),
        ("empty", key_secret("empty", b"", b"", "active")),
        ("no-base64", json!({"metadata": {"labels": {crds::names::SEALING_KEY: "active"}}, "data": {"tls.key": "%%"}})),
        ("no-data", json!({"metadata": {"labels": {crds::names::SEALING_KEY: "active"}}})),
    ];
    for (name, mut secret) in malformed.clone() {
        secret["metadata"]["name"] = json!(name);
        secret["type"] = json!("kubernetes.io/tls");
        api.put(&format!("{SECRETS}/{name}"), secret);
    }
    put_vector(&api, "good", "rsa-2048", "active");
    let metrics = Metrics::new("test");
    let keyring = begin(client, options(), metrics.clone()).await.unwrap();
    assert_eq!(keyring.0.keys.borrow().len(), 1);
    let text = metrics.encode();
    assert!(text.contains(&format!("gitseal_sealing_keys{{state=\"malformed\"}} {}\n", malformed.len())), "{text}");
    assert!(text.contains("gitseal_sealing_keys{state=\"active\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_key_that_unsealing_made_or_could_have_made_is_left_out() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "good", "rsa-2048", "active");
    let put = |name: &str, change: &dyn Fn(&mut Value)| {
        let mut secret = key_secret(name, &vector("rsa-4096.crt"), &vector("rsa-4096.key"), "active");
        change(&mut secret);
        api.put(&format!("{SECRETS}/{name}"), secret);
    };
    let owner = json!([{"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "name": "x", "uid": "1"}]);
    put("opaque", &|secret| secret["type"] = json!("Opaque"));
    put("untyped", &|secret| drop(secret.as_object_mut().unwrap().remove("type")));
    put("owned", &|secret| secret["metadata"]["ownerReferences"] = owner.clone());
    put("written", &|secret| secret["metadata"]["annotations"] = json!({crds::names::SEALED_DIGEST: "merged-1"}));
    put("merged", &|secret| {
        secret["metadata"]["managedFields"] = json!([{
            "manager": crds::FIELD_MANAGER, "operation": "Apply", "apiVersion": "v1", "fieldsType": "FieldsV1",
            "fieldsV1": {"f:data": {"f:tls.key": {}}},
        }]);
    });
    // With this old name, a Secret would count as a key even without a label.
    put("sealed-secrets-key", &|secret| {
        secret["metadata"] = json!({"name": "sealed-secrets-key", "ownerReferences": owner});
    });
    let keyring = start(client).await;
    let keys = keyring.key_set();
    assert_eq!(keys.iter().map(|key| key.name.as_str()).collect::<Vec<_>>(), ["good"]);
    let mut told: Vec<_> = keys.malformed().iter().map(|secret| (&*secret.name, secret.harm)).collect();
    told.sort_by_key(|(name, _)| *name);
    assert_eq!(
        told,
        ["merged", "opaque", "owned", "sealed-secrets-key", "untyped", "written"]
            .map(|name| (name, set::Harm::LeftOut))
    );
}

#[tokio::test]
async fn a_digest_key_that_unsealing_made_is_not_used() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "good", "rsa-2048", "active");
    let secret = json!({
        "metadata": {"name": "gitseal-digest-key", "annotations": {crds::names::SEALED_DIGEST: "1"}},
        "data": {"key": STANDARD.encode([7; 32])},
    });
    api.put(&format!("{SECRETS}/gitseal-digest-key"), secret);
    let error = begin(client, options(), Metrics::new("test")).await.err().unwrap().to_string();
    assert!(error.contains("it was made by a SealedSecret"), "{error}");
}

#[tokio::test]
async fn nobody_seals_with_the_certificate_of_another_key() {
    let (api, client) = FakeApi::start().await;
    let secret = key_secret("mixed", &vector("rsa-4096.crt"), &vector("rsa-2048.key"), "active");
    api.put(&format!("{SECRETS}/mixed"), secret);
    let keyring = start(client).await;
    let wrong = Certificate::from_pem(&vector("rsa-4096.crt")).unwrap();
    assert_ne!(keyring.certificate().unwrap(), wrong, "a new key was made");
    let right = Certificate::from_pem(&vector("rsa-2048.crt")).unwrap();
    let value = sealing::seal(right.public_key(), AB, b"value").unwrap();
    assert_eq!(unseal(&keyring, &value).await, Ok(b"value".to_vec()), "the private key is of use all the same");
    for _ in 0..2 {
        keyring.reload().await.unwrap();
        let keys = keyring.key_set();
        let told: Vec<_> = keys.malformed().iter().map(|secret| (secret.name.as_str(), secret.harm)).collect();
        assert_eq!(told, [("mixed", set::Harm::UnsealsOnly)]);
    }
    assert!(keyring.report(Vec::new()).await.malformed.is_empty(), "it is not left out");
}

#[tokio::test]
async fn a_key_that_comes_or_goes_counts_without_a_restart() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let keyring = start(client).await;
    let mut changes = keyring.changes();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(keyring.clone().run(shutdown.clone()));

    let new = Certificate::from_pem(&vector("rsa-4096.crt")).unwrap();
    let value = sealing::seal(new.public_key(), AB, b"value").unwrap();
    assert!(unseal(&keyring, &value).await.is_err());
    put_vector(&api, "two", "rsa-4096", "active");
    next_generation(&mut changes).await;
    assert_eq!(keyring.generation(), 1);
    assert_eq!(unseal(&keyring, &value).await, Ok(b"value".to_vec()));

    api.delete(&format!("{SECRETS}/two"));
    next_generation(&mut changes).await;
    assert!(unseal(&keyring, &value).await.is_err());

    // If the only key is compromised, a new key is made at once.
    let before = keyring.certificate().unwrap();
    put_vector(&api, "one", "rsa-2048", "compromised");
    while keyring.certificate().is_none_or(|now| now == before) {
        next_generation(&mut changes).await;
    }
    let old = sealing::seal(before.public_key(), AB, b"old").unwrap();
    assert_eq!(unseal(&keyring, &old).await, Ok(b"old".to_vec()));

    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn the_keys_stay_while_the_api_server_fails() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let keyring = start(client.clone()).await;
    let value = seal(&keyring, "value");
    api.refuse("GET", 503);
    let error = keyring.reload().await.unwrap_err();
    assert!(error.to_string().contains("reading the sealing keys in namespace sealing failed"), "{error}");
    assert_eq!(unseal(&keyring, &value).await, Ok(b"value".to_vec()));

    let error = begin(client, options(), Metrics::new("test")).await.err().unwrap();
    assert!(matches!(error, KeyError::Read { .. }), "{error}");
}

#[tokio::test]
async fn a_key_that_cannot_be_written_is_not_used() {
    let (api, client) = FakeApi::start().await;
    api.refuse("POST", 403);
    let error = begin(client, options(), Metrics::new("test")).await.err().unwrap();
    let text = error.to_string();
    assert!(matches!(error, KeyError::Write { .. }), "{text}");
    assert!(text.contains("must allow create of secrets"), "{text}");
    assert!(!text.contains("PRIVATE"), "{text}");
    assert_eq!(api.objects(SECRETS).len(), 0);
}

#[tokio::test]
async fn unchanged_secrets_are_not_parsed_again() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let keyring = start(client).await;
    let in_memory = || -> Vec<*const sealing::PrivateKey> {
        let keys = keyring.0.keys.borrow();
        keys.starting_with(0).map(|(_, key)| std::ptr::from_ref(key)).collect()
    };
    let before = in_memory();
    put_vector(&api, "two", "rsa-4096", "active");
    keyring.reload().await.unwrap();
    let after = in_memory();
    assert_eq!((before.len(), after.len()), (1, 2));
    assert!(after.contains(&before[0]), "the very same key");
    keyring.reload().await.unwrap();
    assert_eq!(keyring.generation(), 1, "nothing changed, nobody is told");
}

#[tokio::test]
async fn values_come_back_in_their_order_whatever_fails() {
    let keyring = keyring_of_vectors().await;
    let values = [seal(&keyring, "a"), "not base64 %".into(), seal(&keyring, "b"), String::new()];
    let results = keyring.unseal(texts("b", values)).await.values;
    let unsealed: Vec<_> =
        results.iter().map(|value| value.as_ref().ok().map(|value| value.expose().to_vec())).collect();
    assert_eq!(unsealed, [Some(b"a".to_vec()), None, Some(b"b".to_vec()), None]);
    let moved = keyring.unseal(texts("other", [seal(&keyring, "a")])).await.values;
    assert!(moved[0].is_err(), "a value for a/b is not for a/other");
}

#[tokio::test]
async fn no_more_decryptions_than_processors_at_once() {
    let pool = Pool::new(2);
    let running = Arc::new(Mutex::new((0, 0)));
    // Two may start at the same moment, and both must be counted.
    let started = Arc::new(tokio::sync::Semaphore::new(0));
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let jobs: Vec<_> = (0..6)
        .map(|_| {
            let (running, released, started) = (Arc::clone(&running), Arc::clone(&released), Arc::clone(&started));
            pool.run(Asker::Namespace("a"), move || {
                {
                    let mut count = running.lock().unwrap();
                    count.0 += 1;
                    count.1 = count.1.max(count.0);
                }
                started.add_permits(1);
                let _ = released.lock().unwrap().recv();
                running.lock().unwrap().0 -= 1;
            })
        })
        .collect();
    let all = futures::future::join_all(jobs);
    let release_all = async {
        for _ in 0..6 {
            started.acquire().await.unwrap().forget();
            release.send(()).unwrap();
        }
        drop(release);
    };
    let (results, ()) = tokio::join!(all, release_all);
    assert_eq!(results.len(), 6);
    assert!(running.lock().unwrap().1 <= 2);
}

#[tokio::test]
async fn who_asks_leaves_places_for_secrets() {
    let pool = Pool::new(4);
    let (release, released) = std::sync::mpsc::channel::<()>();
    let released = Arc::new(Mutex::new(released));
    let started = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let inquiry = || {
        let (released, started) = (Arc::clone(&released), Arc::clone(&started));
        pool.run(Asker::Inquiry, move || {
            started.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let _ = released.lock().unwrap().recv();
        })
    };
    let inquiries = futures::future::join_all((0..10).map(|_| inquiry()));
    let secrets = async {
        let secrets = (0..10).map(|_| pool.run(Asker::Namespace("a"), || ()));
        assert!(futures::future::join_all(secrets).await.iter().all(Result::is_ok), "they do not wait for inquiries");
        assert!(started.load(std::sync::atomic::Ordering::Relaxed) <= 2, "half of the places");
        for _ in 0..10 {
            release.send(()).unwrap();
        }
    };
    tokio::join!(inquiries, secrets);
}

#[tokio::test]
async fn namespaces_take_turns() {
    let pool = Pool::new(1);
    let order = Arc::new(Mutex::new(Vec::new()));
    let job = |namespace: &'static str| {
        let order = Arc::clone(&order);
        pool.run(Asker::Namespace(namespace), move || order.lock().unwrap().push(namespace))
    };
    let mut jobs: Vec<_> = (0..200).map(|_| job("much")).collect();
    jobs.push(job("little"));
    jobs.push(job("less"));
    futures::future::join_all(jobs).await;
    let order = order.lock().unwrap();
    let place = |namespace| order.iter().position(|whose| *whose == namespace).unwrap();
    assert!(place("little") <= 3 && place("less") <= 4, "{:?}", &order[..10]);
}

fn spec(values: impl IntoIterator<Item = (String, String)>) -> crds::SealedSecretSpec {
    crds::SealedSecretSpec { encrypted_data: values.into_iter().collect(), data: None, template: None }
}

fn in_namespace_a(name: &str, spec: crds::SealedSecretSpec) -> crds::SealedSecret {
    let mut sealed = crds::SealedSecret::new(name, spec);
    sealed.metadata.namespace = Some("a".into());
    sealed
}

/// A SealedSecret with one value.
fn with_password(name: &str, certificate: &Certificate) -> Arc<crds::SealedSecret> {
    let value = sealing::seal(certificate, Scope::Strict.binding("a", name, "password"), b"value").unwrap();
    Arc::new(in_namespace_a(name, spec([("password".to_owned(), value)])))
}

fn no_marks() -> Arc<KeyMarks> {
    Arc::new(|_| None)
}

/// How many values the controller tried to decrypt.
fn tried(metrics: &Metrics) -> u64 {
    let text = metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix("gitseal_values_tried_total "));
    line.unwrap().parse().unwrap()
}

#[tokio::test]
async fn what_was_refused_is_decrypted_again_when_it_or_the_keys_change() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let metrics = Metrics::new("test");
    let keyring = begin(client, options(), metrics.clone()).await.unwrap();
    let other = Certificate::from_pem(&vector("rsa-4096.crt")).unwrap();
    let good = seal(&keyring, "good");
    let bad = sealing::seal(other.public_key(), AB, b"bad").unwrap();
    let spec = spec([("good".to_owned(), good), ("bad".to_owned(), bad)]);
    let annotations = BTreeMap::new();
    let unseal = async |spec: &crds::SealedSecretSpec| {
        let input =
            SealedInput { namespace: "a", name: "b", annotations: &annotations, spec, accept_deprecated_v1_data: true };
        keyring
            .acting_for("a")
            .unseal_secret(&input, &unsealing::digest(&input))
            .await
            .map(drop)
            .map_err(|error| error.to_string())
    };
    let refused = unseal(&spec).await.unwrap_err();
    assert!(refused.contains("spec.encryptedData.bad: no key could decrypt secret"), "{refused}");
    assert_eq!(tried(&metrics), 2);
    for _ in 0..5 {
        assert_eq!(unseal(&spec).await.unwrap_err(), refused);
    }
    assert_eq!(tried(&metrics), 2, "nothing changed");

    let mut edited = spec.clone();
    edited.encrypted_data.remove("good");
    unseal(&edited).await.unwrap_err();
    assert_eq!(tried(&metrics), 3, "it changed");

    put_vector(&api, "two", "rsa-4096", "active");
    keyring.reload().await.unwrap();
    unseal(&spec).await.unwrap();
    assert_eq!(tried(&metrics), 5, "the keys changed");
}

#[tokio::test]
async fn more_values_than_an_object_can_have_are_refused_before_any_is_tried() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let metrics = Metrics::new("test");
    let keyring = begin(client, options(), metrics.clone()).await.unwrap();
    let value = seal(&keyring, "good");
    let spec = spec((0..=2500).map(|number| (format!("key-{number}"), value.clone())));
    let annotations = BTreeMap::new();
    let input = SealedInput {
        namespace: "a",
        name: "b",
        annotations: &annotations,
        spec: &spec,
        accept_deprecated_v1_data: true,
    };
    let error = keyring.unseal_secret(&input, &unsealing::digest(&input)).await.map(drop).unwrap_err().to_string();
    assert_eq!(error, "2501 sealed values: a SealedSecret may have at most 2500; split it into several");
    assert_eq!(tried(&metrics), 0);
}

#[tokio::test]
async fn values_whose_key_goes_are_known_without_trying_them_again() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    put_vector(&api, "two", "rsa-4096", "active");
    let keyring = start(client).await;
    let other = Certificate::from_pem(&vector("rsa-4096.crt")).unwrap();
    let old = Certificate::from_pem(&vector("rsa-2048.crt")).unwrap();
    let all = vec![with_password("lost", &other), with_password("kept", &old)];
    let no_marks = no_marks();
    let undecryptable = async |effort| -> Vec<String> {
        let found = keyring.undecryptable(all.clone(), &no_marks, effort).await;
        found
            .into_iter()
            .map(|found| {
                format!("{}: {}", found.sealed_secret.metadata.name.as_deref().unwrap(), found.fields.join(", "))
            })
            .collect()
    };
    assert_eq!(undecryptable(Effort::All).await, [""; 0]);
    api.delete(&format!("{SECRETS}/two"));
    keyring.reload().await.unwrap();
    assert_eq!(undecryptable(Effort::Known).await, [""; 0], "not looked at");
    assert_eq!(undecryptable(Effort::All).await, ["lost: spec.encryptedData.password"]);
    assert_eq!(undecryptable(Effort::Known).await, ["lost: spec.encryptedData.password"]);
    assert_eq!(keyring.report(all.clone()).await.undecryptable, 1);
    put_vector(&api, "two", "rsa-4096", "active");
    keyring.reload().await.unwrap();
    assert_eq!(undecryptable(Effort::All).await, [""; 0]);
}

#[tokio::test]
async fn what_no_key_unseals_is_told_before_a_slow_look_ends() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let keyring = start(client).await;
    let marks: Arc<KeyMarks> = Arc::new(|_| None);
    // There are more values than are tried at the same time.
    let all: Vec<_> = (0..40)
        .map(|number| {
            let value = (format!("key-{number}"), "AAAA".to_owned());
            Arc::new(in_namespace_a(&format!("lost-{number}"), spec([value])))
        })
        .collect();
    let mut look = std::pin::pin!(keyring.undecryptable(all.clone(), &marks, Effort::AllSlowly));
    tokio::select! {
        _ = &mut look => panic!("it told nothing before it was done"),
        () = keyring.undecryptable_changed() => {}
    }
    let known = keyring.undecryptable(all.clone(), &marks, Effort::Known).await.len();
    assert!((1..40).contains(&known), "{known}");
    assert_eq!(look.await.len(), 40);
}

#[tokio::test]
async fn no_key_is_tried_on_values_whose_secret_tells_the_key() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    put_vector(&api, "two", "rsa-4096", "active");
    let before = start(client.clone()).await;
    let spec = |certificate: &str, place: &'static str| {
        let certificate = Certificate::from_pem(&vector(certificate)).unwrap();
        let value = |key| sealing::seal(&certificate, Scope::Strict.binding("a", place, key), b"value").unwrap();
        spec(["password", "user"].map(|key| (key.to_owned(), value(key))))
    };
    let unsealed = async |spec: &crds::SealedSecretSpec| {
        let annotations = BTreeMap::new();
        let input =
            SealedInput { namespace: "a", name: "b", annotations: &annotations, spec, accept_deprecated_v1_data: true };
        let digest = unsealing::digest(&input);
        let unsealed = before.unseal_secret(&input, &digest).await.ok()?;
        Some((digest, unsealed.key))
    };
    let (old, new) = (spec("rsa-2048.crt", "b"), spec("rsa-4096.crt", "b"));
    let (digest, old_key) = unsealed(&old).await.unwrap();
    let (_, new_key) = unsealed(&new).await.unwrap();
    assert_ne!(old_key, new_key, "each has its own mark");
    let mut of_two_keys = old.clone();
    of_two_keys.encrypted_data.insert("user".into(), new.encrypted_data["user"].clone());
    assert_eq!(unsealed(&of_two_keys).await.unwrap().1, None);

    let found = async |spec: &crds::SealedSecretSpec, digest: &str, key: Option<String>| {
        let metrics = Metrics::new("test");
        let keyring = begin(client.clone(), options(), metrics.clone()).await.unwrap();
        let (sealed, digest) = (in_namespace_a("b", spec.clone()), digest.to_owned());
        let marks: Arc<KeyMarks> = Arc::new(move |_| key.clone().map(|key| KeyMark { digest: digest.clone(), key }));
        let undecryptable = keyring.undecryptable(vec![Arc::new(sealed.clone())], &marks, Effort::AllSlowly).await;
        let tried = tried(&metrics);
        let report = keyring.report(vec![Arc::new(sealed)]).await;
        let counted = report.keys.iter().map(|key| (key.name.as_str(), key.values)).collect::<BTreeMap<_, _>>();
        (undecryptable.len(), tried, counted["one"], counted["two"])
    };
    assert_eq!(found(&old, &digest, old_key.clone()).await, (0, 0, 2, 0));
    assert_eq!(found(&old, &digest, None).await, (0, 2, 2, 0), "a Secret without a mark");
    let forged = Some("0".repeat(32));
    assert_eq!(found(&old, &digest, forged).await, (0, 2, 2, 0));
    assert_eq!(found(&old, &digest, new_key).await, (0, 2, 2, 0), "the mark of another SealedSecret");
    assert_eq!(found(&spec("rsa-2048.crt", "elsewhere"), "of-another", old_key.clone()).await, (1, 2, 0, 0));
    api.delete(&format!("{SECRETS}/one"));
    let lost = async |key| {
        let keyring = start(client.clone()).await;
        let (sealed, digest) = (in_namespace_a("b", old.clone()), digest.clone());
        let marks: Arc<KeyMarks> =
            Arc::new(move |_| Some(KeyMark { digest: digest.clone(), key: String::clone(&key) }));
        keyring.undecryptable(vec![Arc::new(sealed)], &marks, Effort::All).await.len()
    };
    assert_eq!(lost(old_key.unwrap()).await, 1, "the key is gone");
}

#[tokio::test]
async fn keys_that_change_during_a_report_are_counted() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let keyring = start(client).await;
    let new = Certificate::from_pem(&vector("rsa-4096.crt")).unwrap();
    let report = keyring.report((0..64).map(|number| with_password(&format!("s{number}"), &new)).collect());
    // The report begins with the old keys. It can try no value until the lock is released, and then there is a new key.
    let turn = keyring.0.usage.scan.lock().await;
    let (report, ()) = tokio::join!(report, async {
        put_vector(&api, "two", "rsa-4096", "active");
        keyring.reload().await.unwrap();
        drop(turn);
    });
    let values: BTreeMap<_, _> = report.keys.iter().map(|key| (key.name.as_str(), key.values)).collect();
    assert_eq!((values, report.undecryptable), (BTreeMap::from([("one", 0), ("two", 64)]), 0));
}

#[tokio::test]
async fn what_another_scan_forgets_during_a_report_is_counted() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-4096", "active");
    let metrics = Metrics::new("test");
    let keyring = begin(client, options(), metrics.clone()).await.unwrap();
    let certificate = Certificate::from_pem(&vector("rsa-4096.crt")).unwrap();
    let report = keyring.report((0..64).map(|number| with_password(&format!("s{number}"), &certificate)).collect());
    let (report, ()) = tokio::join!(report, async {
        while tried(&metrics) < 8 {
            tokio::task::yield_now().await;
        }
        keyring.undecryptable(Vec::new(), &no_marks(), Effort::Known).await;
    });
    assert_eq!((report.keys[0].values, report.undecryptable), (64, 0));
}

#[tokio::test]
async fn a_panic_in_a_decryption_stays_there() {
    let pool = Pool::new(1);
    let result = pool.run(Asker::Namespace("a"), || -> () { panic!("hostile input") }).await;
    assert!(matches!(result, Err(pool::Interrupted)));
    assert!(pool.run(Asker::Namespace("a"), || ()).await.is_ok(), "the place is free again");
}

#[tokio::test]
async fn digests_outlive_restarts_and_new_keys_and_are_this_clusters_own() {
    let (api, client) = FakeApi::start().await;
    let digest = |keyring: &Keyring| keyring.digest("test", [b"a".as_slice(), b"b".as_slice()]);
    let first = start(client.clone()).await;
    let before = digest(&first);
    assert_eq!(before.len(), 32);
    for sealing_key in api.objects(&format!("{SECRETS}/sealed-secrets-key")) {
        api.delete(&format!("{SECRETS}/{}", sealing_key["metadata"]["name"].as_str().unwrap()));
    }
    let second = start(client).await;
    assert_ne!(second.certificate(), first.certificate());
    assert_eq!(digest(&second), before);
    assert_ne!(digest(&keyring_of_vectors().await), before, "another cluster, another digest");
    assert_ne!(second.digest("other", [b"a".as_slice(), b"b".as_slice()]), before);
    assert_ne!(second.digest("test", [b"ab".as_slice()]), before);
    assert_ne!(second.digest("test", [b"ab".as_slice(), b"".as_slice()]), before);
}

#[tokio::test]
async fn values_of_secrets_are_sealed_in_the_same_way_after_a_restart_and_anew_with_a_new_key() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let first = start(client.clone()).await;
    let place = ["shop", "db", "password"];
    let wrapped = first.wrap(place, b"Only-Wrapped-1");
    let again = first.wrap(place, b"Only-Wrapped-1");
    assert!(wrapped.digest == again.digest && wrapped.wrapped != again.wrapped, "each wrapping has a nonce of its own");
    for other in [first.wrap(place, b"Only-Wrapped-2"), first.wrap(["web", "db", "password"], b"Only-Wrapped-1")] {
        assert_ne!(other.digest, wrapped.digest);
    }
    let binding = |name| Scope::Strict.binding("shop", name, "url");
    let sealed = first.seal(&wrapped, binding("app")).unwrap();
    let guess = first.wrap(["shop", "guess", "password"], b"Only-Wrapped-1");
    assert_ne!(
        first.seal(&guess, binding("app")).as_ref(),
        Ok(&sealed),
        "the text would show whether a guess is right"
    );
    assert_eq!(first.seal(&again, binding("app")).as_ref(), Ok(&sealed));
    assert_ne!(first.seal(&wrapped, binding("other")).as_ref(), Ok(&sealed));
    let key = PrivateKey::from_pem(&vector("rsa-2048.key")).unwrap();
    assert!(sealing::unseal([&key], binding("app"), &sealed).unwrap().expose() == b"Only-Wrapped-1");
    assert!(sealing::unseal([&key], binding("other"), &sealed).is_err());

    let second = start(client.clone()).await;
    let after = second.wrap(place, b"Only-Wrapped-1");
    assert_eq!(after.digest, wrapped.digest);
    assert_eq!(second.seal(&after, binding("app")).as_ref(), Ok(&sealed));
    let told = second.seal(&wrapped, binding("app")).unwrap_err();
    assert!(told.contains("another process"), "{told}");

    let before = second.seals_with();
    put_vector(&api, "two", "rsa-4096", "active");
    second.reload().await.unwrap();
    assert_ne!(second.seals_with(), before);
    let anew = second.seal(&after, binding("app")).unwrap();
    let key = PrivateKey::from_pem(&vector("rsa-4096.key")).unwrap();
    assert!(sealing::unseal([&key], binding("app"), &anew).unwrap().expose() == b"Only-Wrapped-1");
}

#[tokio::test]
async fn a_broken_digest_key_says_what_to_do() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    for (data, reason) in [
        (json!({}), "data.key is missing or is not base64"),
        (json!({"key": "%%"}), "data.key is missing or is not base64"),
        (json!({"key": STANDARD.encode("short")}), "shorter than 32 bytes"),
    ] {
        let secret =
            json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gitseal-digest-key"}, "data": data});
        api.put(&format!("{SECRETS}/gitseal-digest-key"), secret);
        let error = begin(client.clone(), options(), Metrics::new("test")).await.err().unwrap().to_string();
        assert!(error.contains("sealing/gitseal-digest-key") && error.contains(reason), "{error}");
    }
}

#[tokio::test]
async fn the_api_server_is_asked_for_no_more_than_needed() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    start(client).await;
    let digest_key = Resource::secrets().path(Some(NAMESPACE), Some("gitseal-digest-key"));
    assert_eq!(
        api.requests(),
        [
            format!("GET {SECRETS}?labelSelector=sealedsecrets.bitnami.com%2Fsealed-secrets-key"),
            format!("GET {SECRETS}/sealed-secrets-key"),
            format!("GET {digest_key}"),
            format!("POST {SECRETS}?fieldManager=gitseal-controller"),
        ]
    );
}

#[test]
fn retries_slow_down_to_a_minute() {
    let delays: Vec<_> = (1..=9).map(|failures| retry_delay(failures).as_secs()).collect();
    assert_eq!(delays, [1, 2, 4, 8, 16, 32, 60, 60, 60]);
}
