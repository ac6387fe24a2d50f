use std::time::Duration;

use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};

use super::{
    lease::{DEADLINE, DURATION, duration},
    *,
};
use crate::keys::tests::fake_api::FakeApi;

const PATH: &str = "/apis/coordination.k8s.io/v1/namespaces/sealing/leases";

fn flags(identity: &str) -> ElectionFlags {
    ElectionFlags {
        leader_elect: true,
        leader_elect_lease_name: "gitseal-controller".into(),
        leader_elect_identity: Some(identity.into()),
    }
}

fn lease(holder: &str) -> serde_json::Value {
    serde_json::json!({
        "apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "gitseal-controller"},
        "spec": {"holderIdentity": holder, "leaseDurationSeconds": 15},
    })
}

#[test]
fn a_term_ends_by_the_clock_whether_or_not_anybody_says_so() {
    let now = Instant::now();
    let (term, receiver) = watch::channel(Term::Waiting);
    let leadership = Leadership::new(receiver);
    assert!(!leadership.leads());
    term.send_replace(Term::Until(now + Duration::from_secs(3600)));
    assert!(leadership.leads());
    term.send_replace(Term::Until(now));
    assert!(!leadership.leads());
    term.send_replace(Term::Over);
    assert!(!leadership.leads());
    assert!(Leadership::alone().leads());
}

#[test]
fn nobody_leads_for_a_while_before_somebody_else_does() {
    assert!(DEADLINE + Duration::from_secs(5) <= DURATION);
    let of = |seconds| {
        let spec = LeaseSpec { lease_duration_seconds: seconds, ..LeaseSpec::default() };
        duration(&Lease { spec: Some(spec), ..Lease::default() })
    };
    assert_eq!((of(Some(30)), of(None), of(Some(-1))), (Duration::from_secs(30), DURATION, DURATION));
    assert_eq!((of(Some(0)), of(Some(1))), (DURATION, DURATION), "its holder leads for longer than that");
    assert_eq!(of(Some(i32::MAX)), Duration::from_secs(60), "nobody waits for 68 years");
}

/// Starts a replica that takes part in the election.
fn start(flags: &ElectionFlags, client: kube::Client, metrics: Metrics) -> (Leadership, Election) {
    let candidacy = Candidacy::new(flags);
    (candidacy.leadership().clone(), candidacy.start(client, "sealing", metrics))
}

#[tokio::test]
async fn the_first_one_makes_the_lease_and_leads() {
    let (api, client) = FakeApi::start().await;
    let metrics = Metrics::new("test");
    let (leadership, _election) = start(&flags("one"), client, metrics.clone());
    leadership.begun().await;
    assert!(leadership.leads());
    assert!(metrics.encode().contains("gitseal_leader 1\n"));
    let made = &api.objects(PATH)[0]["spec"];
    assert_eq!((&made["holderIdentity"], &made["leaseDurationSeconds"]), (&"one".into(), &15.into()));
}

#[tokio::test]
async fn another_ones_lease_is_not_touched() {
    let (api, client) = FakeApi::start().await;
    api.put(&format!("{PATH}/gitseal-controller"), lease("one"));
    let metrics = Metrics::new("test");
    let (leadership, election) = start(&flags("two"), client, metrics.clone());
    // The test waits until the replica watches the lease.
    while !api.requests().iter().any(|request| request.contains("watch=")) {
        tokio::task::yield_now().await;
    }
    assert!(!leadership.leads());
    assert!(metrics.encode().contains("gitseal_leader 0\n"));
    assert!(api.requests().iter().all(|request| request.starts_with("GET ")), "{:?}", api.requests());
    election.release().await;
    assert_eq!(api.objects(PATH)[0]["spec"]["holderIdentity"], "one");
}

/// Starts a replica that leads. Before the replica renews the lease, somebody else changes the lease with `change`.
async fn renewed_by_somebody(change: impl FnOnce(&mut serde_json::Value)) -> (FakeApi, Leadership, Election) {
    let (api, client) = FakeApi::start().await;
    let (leadership, election) = start(&flags("one"), client, Metrics::new("test"));
    leadership.begun().await;
    let mut lease = api.objects(PATH).remove(0);
    change(&mut lease);
    api.put(&format!("{PATH}/gitseal-controller"), lease);
    (api, leadership, election)
}

#[tokio::test]
async fn a_renewal_whose_answer_was_lost_is_its_own() {
    let (api, leadership, _election) =
        renewed_by_somebody(|lease| lease["spec"]["renewTime"] = "2026-01-01T00:00:00.000000Z".into()).await;
    let writes = || api.requests().iter().filter(|request| request.starts_with("PUT ")).count();
    // The first renewal conflicts with the changed lease. The second renewal is based on the changed lease.
    while writes() < 2 {
        tokio::task::yield_now().await;
    }
    assert!(leadership.leads());
}

#[tokio::test]
async fn another_process_of_its_name_is_another_holder() {
    let (_api, leadership, mut election) =
        renewed_by_somebody(|lease| lease["spec"]["acquireTime"] = "2026-01-01T00:00:00.000000Z".into()).await;
    let lost = election.lost().await;
    assert!(lost.reason.contains("another process with the name one"), "{lost}");
    assert!(!leadership.leads());
}

#[tokio::test]
async fn who_comes_back_under_its_name_goes_on_with_a_term_of_its_own() {
    let (api, client) = FakeApi::start().await;
    let mut left = lease("one");
    left["spec"]["acquireTime"] = "2026-01-01T00:00:00.000000Z".into();
    left["spec"]["leaseTransitions"] = 3.into();
    api.put(&format!("{PATH}/gitseal-controller"), left);
    let (leadership, _election) = start(&flags("one"), client, Metrics::new("test"));
    leadership.begun().await;
    let spec = &api.objects(PATH)[0]["spec"];
    assert_eq!((&spec["holderIdentity"], &spec["leaseTransitions"]), (&"one".into(), &3.into()));
    assert_ne!(spec["acquireTime"], "2026-01-01T00:00:00.000000Z");
}

#[tokio::test]
async fn a_role_without_leases_makes_it_the_only_replica() {
    for method in ["GET", "POST"] {
        let (api, client) = FakeApi::start().await;
        api.refuse(method, 403);
        let (leadership, election) = start(&flags("one"), client, Metrics::new("test"));
        leadership.begun().await;
        assert!(leadership.leads(), "{method}");
        election.release().await;
    }
}

#[tokio::test]
async fn without_an_election_nothing_is_asked() {
    let (api, client) = FakeApi::start().await;
    let alone = ElectionFlags { leader_elect: false, ..flags("one") };
    let (leadership, election) = start(&alone, client, Metrics::new("test"));
    assert!(leadership.leads());
    election.release().await;
    assert!(api.requests().is_empty());
}
