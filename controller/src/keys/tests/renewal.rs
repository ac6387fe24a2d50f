use std::sync::atomic::{AtomicI64, Ordering};

use jiff::SignedDuration;

use super::*;
use crate::keys::renewal::{Outcome, Reason, Schedule};

const DAY: i64 = 24 * 3600;
const PERIOD: Duration = Duration::from_secs(30 * 24 * 3600);

/// A key. Its certificate begins at `not_before`, and its Secret was created at `created`, both in seconds since 1970.
fn key(not_before: i64, created: i64, purpose: set::Purpose) -> Arc<set::SealingKey> {
    let private = sealing::PrivateKey::from_pem(&vector("rsa-2048.key")).unwrap();
    let start = Timestamp::from_second(not_before).unwrap();
    let certificate = sealing::self_signed(&private, "", start, SignedDuration::from_hours(24)).unwrap();
    Arc::new(set::SealingKey {
        name: format!("key-{not_before}-{created}"),
        resource_version: "1".into(),
        created: Timestamp::from_second(created).unwrap(),
        purpose,
        certificate: Some(certificate),
        fingerprint: private.public_key().fingerprint().into(),
        private,
    })
}

fn schedule(cutoff: Option<i64>) -> Schedule {
    let cutoff = cutoff.map(|seconds| Timestamp::from_second(seconds).unwrap());
    Schedule { period: Some(PERIOD), cutoff, order: KeyOrder::CertNotBefore }
}

/// When the next key is due if the time is `now`. Both times are in seconds since 1970.
fn due(schedule: Schedule, keys: Vec<Arc<set::SealingKey>>, now: i64) -> Option<i64> {
    let set = KeySet::new(keys, Vec::new(), schedule.order);
    schedule.due(&set, Timestamp::from_second(now).unwrap()).map(Timestamp::as_second)
}

#[test]
fn a_key_is_due_a_period_after_the_newest_one() {
    use set::Purpose::{Seal, UnsealOnly};
    let now = 100 * DAY;
    assert_eq!(due(schedule(None), vec![], now), Some(now), "without a key at once");
    assert_eq!(due(schedule(None), vec![key(now, now, UnsealOnly)], now), Some(now));
    assert_eq!(due(schedule(None), vec![key(50 * DAY, 60 * DAY, Seal)], now), Some(80 * DAY));
    let two = vec![key(90 * DAY, 90 * DAY, Seal), key(50 * DAY, 95 * DAY, Seal)];
    assert_eq!(due(schedule(None), two.clone(), now), Some(120 * DAY));
    let by_secret = Schedule { order: KeyOrder::SecretCreationTimestamp, ..schedule(None) };
    assert_eq!(due(by_secret, two.clone(), now), Some(125 * DAY));
    let never = Schedule { period: None, ..schedule(None) };
    assert_eq!(due(never, two, now), None);
    assert_eq!(due(never, vec![], now), Some(now), "but there always is one");
}

#[test]
fn a_key_from_before_the_cutoff_is_replaced_once() {
    let now = 100 * DAY;
    let old = || vec![key(90 * DAY, 90 * DAY, set::Purpose::Seal)];
    assert_eq!(due(schedule(Some(95 * DAY)), old(), now), Some(95 * DAY), "at once");
    assert_eq!(due(schedule(Some(90 * DAY)), old(), now), Some(120 * DAY), "it is not older");
    assert_eq!(due(schedule(Some(110 * DAY)), old(), now), Some(110 * DAY), "when that time comes");
    let made_now = key(now, now, set::Purpose::Seal);
    assert_eq!(due(schedule(Some(now)), vec![made_now], now), Some(130 * DAY), "the new one is not");
}

#[test]
fn keys_from_the_future_are_as_old_as_their_secrets() {
    let now = 100 * DAY;
    let future = || key(9000 * DAY, 80 * DAY, set::Purpose::Seal);
    assert_eq!(due(schedule(None), vec![future()], now), Some(110 * DAY));
    // The certificate of the next key begins even later than the certificate of this key.
    let keys = KeySet::new(vec![future()], Vec::new(), KeyOrder::CertNotBefore);
    let start = Schedule::not_before(&keys, Timestamp::from_second(now).unwrap()).as_second();
    assert_eq!(start, 9000 * DAY + 1);
    assert_eq!(due(schedule(None), vec![future(), key(start, now, set::Purpose::Seal)], now), Some(130 * DAY));
    // The age of this key is not known, so it counts as new.
    let both = key(9000 * DAY, 9000 * DAY, set::Purpose::Seal);
    assert_eq!(due(schedule(None), vec![both], now), Some(130 * DAY));
}

/// A clock that stands still until it is set.
fn clock(seconds: i64) -> (Arc<AtomicI64>, Clock) {
    let time = Arc::new(AtomicI64::new(seconds));
    let read = Arc::clone(&time);
    (time, Clock::new(move || Timestamp::from_second(read.load(Ordering::Relaxed)).unwrap()))
}

fn sealing_keys(api: &FakeApi) -> Vec<Value> {
    let labelled = |secret: &Value| !secret["metadata"]["labels"][crds::names::SEALING_KEY].is_null();
    api.objects(SECRETS).into_iter().filter(labelled).collect()
}

#[tokio::test]
async fn a_key_that_is_due_is_made_once_and_the_old_one_still_unseals() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let made = Certificate::from_pem(&vector("rsa-2048.crt")).unwrap().not_before();
    let (_, clock) = clock(made.as_second() + 31 * DAY);
    let keyring = begin(client, KeyOptions { clock, ..options() }, Metrics::new("test")).await.unwrap();
    let value = seal(&keyring, "value");
    let mut changes = keyring.changes();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(keyring.clone().run(shutdown.clone()));
    next_generation(&mut changes).await;
    let new = keyring.certificate().unwrap();
    assert_eq!(new.not_before().as_second(), made.as_second() + 31 * DAY);
    assert_eq!(unseal(&keyring, &value).await, Ok(b"value".to_vec()));

    // A new key is made on request.
    keyring.renew_now();
    next_generation(&mut changes).await;
    assert_ne!(keyring.certificate().unwrap(), new);
    assert_eq!(sealing_keys(&api).len(), 3);
    for secret in sealing_keys(&api).iter().filter(|secret| secret["metadata"]["name"] != "one") {
        let name = secret["metadata"]["name"].as_str().unwrap();
        let end = name.strip_prefix("sealed-secrets-key").unwrap();
        assert!(end.len() == 8 && end.bytes().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit()), "{name}");
        assert_eq!(secret["metadata"]["generateName"], "sealed-secrets-key");
    }
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(60), running).await.expect("it ends").unwrap();
}

#[tokio::test]
async fn replicas_that_start_together_make_one_key() {
    let (api, client) = FakeApi::start().await;
    let replicas = futures::future::join_all((0..4).map(|_| start(client.clone()))).await;
    assert_eq!(sealing_keys(&api).len(), 1);
    let certificate = replicas[0].certificate();
    assert!(replicas.iter().all(|replica| replica.certificate() == certificate));

    // Replicas that renew the key at the same time also make only one key.
    let made = certificate.unwrap().not_before().as_second();
    let renewals = (0..4).map(|_| async {
        let (_, clock) = clock(made + 31 * DAY);
        let replica = begin(client.clone(), KeyOptions { clock, ..options() }, Metrics::new("test")).await.unwrap();
        let shutdown = CancellationToken::new();
        let mut changes = replica.changes();
        let is_renewed = || replica.certificate().unwrap().not_before().as_second() > made;
        let running = tokio::spawn(replica.clone().run(shutdown.clone()));
        while !is_renewed() {
            next_generation(&mut changes).await;
        }
        shutdown.cancel();
        running.await.unwrap();
    });
    futures::future::join_all(renewals).await;
    assert_eq!(sealing_keys(&api).len(), 2);
}

fn names(api: &FakeApi) -> Vec<String> {
    sealing_keys(api).iter().map(|secret| secret["metadata"]["name"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_name_of_a_deleted_key_is_not_given_again() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let keyring = start(client).await;
    let make = async || keyring.make(keyring.schedule(), Reason::Asked).await.unwrap();
    make().await;
    let deleted = keyring.key_set().sealing().unwrap().name.clone();
    let path = format!("{SECRETS}/{deleted}");
    let backup = api.objects(&path).remove(0);
    let of_deleted = seal(&keyring, "before");
    api.delete(&path);
    make().await;
    let meanwhile = seal(&keyring, "meanwhile");
    assert!(!names(&api).contains(&deleted), "{:?}", names(&api));

    // The deleted key is restored from the backup. It does not replace the key that was made meanwhile.
    api.put(&path, backup);
    keyring.reload().await.unwrap();
    assert_eq!(unseal(&keyring, &of_deleted).await, Ok(b"before".to_vec()));
    assert_eq!(unseal(&keyring, &meanwhile).await, Ok(b"meanwhile".to_vec()));
    assert!(api.objects(&format!("{SECRETS}/gitseal-new-key")).is_empty(), "the claim is removed");
}

/// How many requests to create a Secret were sent so far.
fn posts(api: &FakeApi) -> usize {
    api.requests().iter().filter(|request| request.starts_with(&format!("POST {SECRETS}"))).count()
}

#[tokio::test]
async fn a_key_takes_two_writes_its_claim_and_its_secret() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let keyring = start(client).await;
    let before = posts(&api);
    assert_eq!(keyring.make(keyring.schedule(), Reason::Asked).await.unwrap(), Outcome::Made);
    assert_eq!(posts(&api) - before, 2, "{:?}", api.requests());
}

/// A key's name is computed from its certificate. So the name can be taken only if the key was written before.
#[tokio::test]
async fn a_key_whose_name_is_taken_overwrites_nothing() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let keyring = start(client).await;
    let new = keyring.0.store.generate(Timestamp::now()).await.unwrap();
    keyring.0.store.write(&new).await.unwrap();
    let (keys, before) = (sealing_keys(&api), posts(&api));
    let refused = keyring.0.store.write(&new).await.unwrap_err();
    assert!(matches!(refused, KeyError::Write { .. }), "{refused}");
    assert_eq!(posts(&api) - before, 1, "and no other name is tried");
    assert_eq!(sealing_keys(&api), keys);
    // The next key has another name.
    keyring.make(keyring.schedule(), Reason::Asked).await.unwrap();
    assert_eq!(sealing_keys(&api).len(), 3);
}

#[tokio::test]
async fn who_was_killed_while_it_made_a_key_keeps_no_others_from_it() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "one", "rsa-2048", "active");
    let options = KeyOptions { claim_respected: Duration::from_secs(4), ..options() };
    let keyring = begin(client, options, Metrics::new("test")).await.unwrap();
    let claim = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gitseal-new-key"}});
    api.put(&format!("{SECRETS}/gitseal-new-key"), claim);
    while keyring.make(keyring.schedule(), Reason::Asked).await.unwrap() == Outcome::NotMade {}
    assert_eq!(sealing_keys(&api).len(), 2);
    assert!(api.objects(&format!("{SECRETS}/gitseal-new-key")).is_empty(), "the claim is removed");
}

#[tokio::test]
async fn a_malformed_key_is_told_of_on_its_secret_once() {
    let (api, client) = FakeApi::start().await;
    put_vector(&api, "good", "rsa-2048", "active");
    let secret = key_secret("bad", &vector("rsa-2048.crt"), b"not a key", "active");
    api.put(&format!("{SECRETS}/bad"), secret);
    let keyring = start(client).await;
    let events = || api.objects("/api/v1/namespaces/sealing/events/");
    let limit = Instant::now() + Duration::from_secs(60);
    while events().is_empty() && Instant::now() < limit {
        tokio::task::yield_now().await;
    }
    let event = events().pop().expect("an event");
    assert_eq!(event["reason"], "MalformedKey");
    assert_eq!(event["type"], "Warning");
    assert_eq!(event["involvedObject"]["kind"], "Secret");
    assert_eq!(event["involvedObject"]["name"], "bad");
    assert!(event["message"].as_str().unwrap().contains("not an RSA private key in PEM form"), "{event}");
    keyring.reload().await.unwrap();
    assert_eq!(keyring.key_set().malformed().len(), 1);
    api.delete(&format!("{SECRETS}/bad"));
    keyring.reload().await.unwrap();
    assert_eq!(keyring.key_set().malformed().len(), 0);
    assert_eq!(keyring.generation(), 0, "the keys are the same");
}
