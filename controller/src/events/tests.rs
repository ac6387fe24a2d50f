use std::sync::atomic::{AtomicBool, Ordering};

use jiff::SignedDuration;
use serde_json::Value;

use super::*;
use crate::{keys::tests::fake_api::FakeApi, leader::Leadership};

fn api_of(client: kube::Client) -> Api {
    Api::new(client, Leadership::alone(), Metrics::new("test"))
}

const EVENTS: &str = "/apis/events.k8s.io/v1/namespaces/team-a/events";

fn reference(kind: &str, name: &str) -> ObjectReference {
    ObjectReference {
        api_version: Some("v1".into()),
        kind: Some(kind.into()),
        namespace: Some("team-a".into()),
        name: Some(name.into()),
        uid: Some("1".into()),
        ..ObjectReference::default()
    }
}

fn occurrence(note: &str) -> Occurrence {
    Occurrence {
        regarding: reference("Sync", "apps"),
        type_: EventType::Warning,
        reason: "ApplyFailed".into(),
        note: note.into(),
    }
}

fn at(seconds: i64) -> Timestamp {
    Timestamp::UNIX_EPOCH + SignedDuration::from_secs(seconds)
}

#[test]
fn repetitions_count_up_one_event() {
    let mut series = Series::default();
    assert_eq!(series.step(&occurrence("a"), at(0)), Step::Create);
    series.created(&occurrence("a"), "e1".into(), at(0));
    let update = |count| Step::Update { name: "e1".into(), count };
    assert_eq!(series.step(&occurrence("a"), at(1)), update(2), "the first repetition is told at once");
    assert_eq!(series.step(&occurrence("a"), at(2)), Step::CountOnly, "the next ones once a minute");
    assert_eq!(series.step(&occurrence("a"), at(60)), Step::CountOnly);
    assert_eq!(series.step(&occurrence("a"), at(61)), update(5));
    assert_eq!(series.step(&occurrence("b"), at(62)), Step::Create, "another note is another event");
    assert_eq!(series.step(&occurrence("a"), at(61 + 600)), update(6));
    assert_eq!(series.step(&occurrence("a"), at(61 + 1201)), Step::Create, "ten quiet minutes end a series");
}

#[test]
fn the_memory_of_series_is_bounded() {
    let mut series = Series::default();
    for n in 0..10_000 {
        let note = n.to_string();
        assert_eq!(series.step(&occurrence(&note), at(0)), Step::Create);
        series.created(&occurrence(&note), note, at(0));
        assert!(series.len() <= 4096);
    }
    assert!(matches!(series.step(&occurrence("9999"), at(1)), Step::Update { .. }));
}

/// Publishes events, and waits until everything is written.
async fn published(api: &FakeApi, client: kube::Client, publish: impl FnOnce(&Events)) -> (Vec<Value>, String) {
    let metrics = Metrics::new("test");
    let shutdown = CancellationToken::new();
    let (events, writer) = Events::with_writer(api_of(client), metrics.clone(), shutdown);
    publish(&events);
    drop(events);
    tokio::time::timeout(Duration::from_secs(60), writer).await.expect("the queue is worked off");
    (api.objects(EVENTS), metrics.encode())
}

#[tokio::test]
async fn an_event_says_who_what_and_where() {
    let (api, client) = FakeApi::start().await;
    let (events, text) = published(&api, client, |events| {
        events.publish(&reference("SealedSecret", "db"), EventType::Normal, "Unsealed", "SealedSecret unsealed");
        events.publish(&reference("SealedSecret", "db"), EventType::Normal, "Unsealed", "SealedSecret unsealed");
        events.publish(&reference("Sync", "apps"), EventType::Warning, "ApplyFailed", "a");
        events.publish(&reference("Sync", "apps"), EventType::Warning, "ApplyFailed", "a");
        events.publish(&reference("Sync", "apps"), EventType::Warning, "ApplyFailed", "a");
    })
    .await;
    assert_eq!(events.len(), 1, "{events:?}");
    let sync = &events[0];
    assert_eq!(sync["reportingController"], "gitseal-controller");
    assert_eq!(sync["regarding"]["kind"], "Sync");
    assert_eq!((&sync["type"], &sync["reason"]), (&json!("Warning"), &json!("ApplyFailed")));
    assert_eq!(sync["note"], "a");
    assert_eq!(sync["metadata"]["namespace"], "team-a");
    for required in ["action", "eventTime", "reportingInstance"] {
        assert!(sync[required].is_string(), "{required}: {sync}");
    }
    assert_eq!(sync["series"]["count"], 2);
    assert!(sync["series"]["lastObservedTime"].is_string());

    let sealed = &api.objects("/api/v1/namespaces/team-a/events")[0];
    assert_eq!(sealed["source"], json!({"component": "sealed-secrets"}));
    assert_eq!(sealed["reportingComponent"], "sealed-secrets");
    assert_eq!(sealed["involvedObject"]["kind"], "SealedSecret");
    assert_eq!((&sealed["type"], &sealed["reason"]), (&json!("Normal"), &json!("Unsealed")));
    assert_eq!((&sealed["message"], &sealed["count"]), (&json!("SealedSecret unsealed"), &json!(2)));
    assert!(sealed["firstTimestamp"].is_string() && sealed["lastTimestamp"].is_string(), "{sealed}");
    assert!(sealed["eventTime"].is_null(), "the API server wants the fields of one form or of the other: {sealed}");
    assert!(text.contains("gitseal_events_total{outcome=\"written\"} 2\n"), "{text}");
    assert!(text.contains("gitseal_events_total{outcome=\"aggregated\"} 3\n"), "{text}");
}

#[tokio::test]
async fn an_event_that_the_api_server_forgot_is_written_again() {
    let (api, client) = FakeApi::start().await;
    let metrics = Metrics::new("test");
    let mut writer = Writer {
        api: api_of(client),
        metrics,
        series: Series::default(),
        instance: "test".into(),
        busy: Busy::default(),
        later: VecDeque::new(),
    };
    writer.write(occurrence("a")).await;
    let name = api.objects(EVENTS)[0]["metadata"]["name"].as_str().unwrap().to_owned();
    api.delete(&format!("{EVENTS}/{name}"));
    writer.write(occurrence("a")).await;
    assert_eq!(api.objects(EVENTS).len(), 1);
}

#[tokio::test]
async fn a_refused_event_is_counted_and_nothing_else() {
    let (api, client) = FakeApi::start().await;
    api.refuse("POST", 403);
    let (events, text) = published(&api, client, |events| {
        events.publish(&reference("Sync", "apps"), EventType::Normal, "Applied", "a");
    })
    .await;
    assert!(events.is_empty());
    assert!(text.contains("gitseal_events_total{outcome=\"failed\"} 1\n"), "{text}");
}

#[tokio::test]
async fn a_normal_event_waits_for_work_and_a_warning_does_not() {
    let (api, client) = FakeApi::start().await;
    let (events, writer) = Events::with_writer(api_of(client), Metrics::new("test"), CancellationToken::new());
    let is_busy = Arc::new(AtomicBool::new(true));
    events.wait_for({
        let is_busy = is_busy.clone();
        move || is_busy.load(Ordering::Relaxed)
    });
    let writer = tokio::spawn(writer);
    events.publish(&reference("Sync", "apps"), EventType::Normal, "Applied", "a");
    events.publish(&reference("Sync", "apps"), EventType::Warning, "ApplyFailed", "b");
    let reasons = || api.objects(EVENTS).iter().map(|event| event["reason"].clone()).collect::<Vec<_>>();
    let wait = async |count: usize| {
        let there = async {
            while reasons().len() < count {
                tokio::task::yield_now().await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), there).await.expect("the event");
    };
    wait(1).await;
    assert_eq!(reasons(), ["ApplyFailed"]);
    is_busy.store(false, Ordering::Relaxed);
    wait(2).await;
    assert!(reasons().contains(&"Applied".into()));
    drop(events);
    writer.await.unwrap();
}

#[tokio::test]
async fn what_does_not_fit_the_queue_is_dropped_without_waiting() {
    let (_api, client) = FakeApi::start().await;
    let metrics = Metrics::new("test");
    // The writer is never polled, so the queue fills up.
    let (events, _writer) = Events::with_writer(api_of(client), metrics.clone(), CancellationToken::new());
    for n in 0..QUEUE + 3 {
        events.publish(&reference("Sync", "apps"), EventType::Normal, "Applied", n.to_string());
    }
    assert!(metrics.encode().contains("gitseal_events_total{outcome=\"dropped\"} 3\n"));
}

#[tokio::test]
async fn the_last_events_are_written_after_the_shutdown() {
    let (api, client) = FakeApi::start().await;
    let shutdown = CancellationToken::new();
    let (events, writer) = Events::with_writer(api_of(client), Metrics::new("test"), shutdown.clone());
    events.publish(&reference("Sync", "apps"), EventType::Normal, "Applied", "a");
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(60), writer).await.expect("it ends");
    assert_eq!(api.objects(EVENTS).len(), 1);
}

#[test]
fn notes_are_cut_between_characters() {
    assert_eq!(readable("short"), "short");
    let long = readable(&"ä".repeat(2000));
    assert!(long.len() <= NOTE_BYTES && long.ends_with(" …"), "{}", long.len());
}

#[test]
fn notes_are_one_line_that_no_terminal_obeys() {
    assert_eq!(readable("a\u{1b}[2J\nb\u{202e}"), "a\\u{1b}[2J\\nb\\u{202e}");
    assert!(readable(&"\u{1b}".repeat(1000)).len() <= NOTE_BYTES, "it is escaped before it is cut");
}

#[test]
fn every_object_can_have_an_event() {
    let name = |name: &str| event_name(&reference("ClusterRole", name), at(1));
    assert_eq!(name("apps"), "apps.3b9aca00");
    assert_eq!(name("system:Node"), "system--ode.3b9aca00");
    assert_eq!(name(":::"), "object.3b9aca00");
    assert!(name(&"x".repeat(253)).len() <= 253);
    let mut cluster_scoped = occurrence("a");
    cluster_scoped.regarding.namespace = None;
    assert_eq!(namespace(&cluster_scoped), "default");
}
