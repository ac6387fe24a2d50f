//! Several replicas: one leads, the others stand by, and nothing is lost when another one becomes leader.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
};

use anyhow::{Context, Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::SealedSecret;
use futures::{StreamExt, TryStreamExt, stream};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams},
    runtime::{WatchStreamExt, watcher},
};
use localcluster::{AuditEvent, ClusterOptions, Signal};
use serde_json::json;

use crate::{
    jobs::{BATCH, completes, job_uid},
    objects::{config_map, sealed_secret},
    waves_wait::{has_value, is_missing, waits, waits_for_the_first_of_two_jobs},
};

const READS: [&str; 3] = ["get", "list", "watch"];

/// One of several replicas of the controller, with its own user, identity and folder.
struct Replica {
    name: String,
    controller: Controller,
}

impl Replica {
    async fn start(plane: &Plane, name: &str) -> Result<Self> {
        let kubeconfig = plane.cluster.kubeconfig_for(name, &["system:masters"])?;
        let folder = plane.folder().join(name);
        std::fs::create_dir_all(&folder)?;
        let mut options = ControllerOptions::new(&kubeconfig, &folder);
        options.environment = vec![("POD_NAME".into(), name.into())];
        let mut controller = Controller::start(&options)?;
        controller.ready().await?;
        Ok(Self { name: name.into(), controller })
    }

    /// Waits until the controller has ended, and returns the exit code.
    async fn ends(&mut self) -> Result<i32> {
        eventually("the replica to end", || {
            let (code, log) = (self.controller.process().try_wait(), self.controller.log());
            async move { code?.with_context(|| format!("it still runs:\n{log}")) }
        })
        .await
    }

    /// The controller's write requests so far. Requests that only check rights are left out.
    fn writes(&self, plane: &Plane) -> Result<Vec<AuditEvent>> {
        let mut requests = plane.cluster.requests()?;
        requests.retain(|request| {
            request.user == self.name
                && !READS.contains(&request.verb.as_str())
                && request.resource != "selfsubjectaccessreviews"
        });
        Ok(requests)
    }
}

async fn replicas(plane: &Plane, count: usize) -> Result<Vec<Replica>> {
    let mut all = Vec::new();
    for number in 1..=count {
        all.push(Replica::start(plane, &format!("replica-{number}")).await?);
    }
    Ok(all)
}

fn audited() -> ClusterOptions {
    ClusterOptions { audit: true, ..ClusterOptions::default() }
}

/// Waits until somebody other than `not` holds the lease.
async fn leader(client: &Client, not: Option<&str>) -> Result<String> {
    let leases = Api::<Lease>::namespaced(client.clone(), "kube-system");
    eventually("a leader", || async {
        let spec = leases.get("gitseal-controller").await?.spec.unwrap_or_default();
        match spec.holder_identity.as_deref() {
            Some(holder) if !holder.is_empty() && Some(holder) != not => Ok(holder.to_owned()),
            _ => bail!("{spec:?}"),
        }
    })
    .await
}

fn take(replicas: &mut Vec<Replica>, name: &str) -> Result<Replica> {
    let index = replicas.iter().position(|replica| replica.name == name);
    Ok(replicas.swap_remove(index.with_context(|| format!("{name} is no replica"))?))
}

/// Makes SealedSecrets with one certificate in one namespace.
pub(crate) struct Sealer {
    client: Client,
    namespace: String,
    certificate: sealing::Certificate,
}

impl Sealer {
    pub(crate) async fn new(client: Client, namespace: &str, controller: &Controller) -> Result<Self> {
        let certificate = sealing::Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?;
        Ok(Self { client, namespace: namespace.into(), certificate })
    }

    pub(crate) fn seal(&self, name: &str, value: &str) -> Result<String> {
        let binding = sealing::Scope::Strict.binding(&self.namespace, name, "any");
        Ok(sealing::seal(&self.certificate, binding, harness::hunt::known(value.as_bytes()))?)
    }

    async fn put(&self, name: &str, value: &str) -> Result<()> {
        let object = json!({
            "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": name},
            "spec": {"encryptedData": {"value": self.seal(name, value)?}},
        });
        kubernetes::apply(&self.client, &self.namespace, object).await.map(|_| ())
    }

    async fn put_all(&self, numbers: std::ops::Range<usize>, version: &str) -> Result<()> {
        stream::iter(numbers)
            .map(|number| async move { self.put(&name(number), &value(number, version)).await })
            .buffer_unordered(16)
            .try_for_each(|()| async { Ok(()) })
            .await
    }
}

fn name(number: usize) -> String {
    format!("sealed-{number:03}")
}

fn value(number: usize, version: &str) -> String {
    format!("{version} value of {number}")
}

/// All contents that each Secret of a namespace had, in order.
#[derive(Clone, Default)]
struct Seen(Arc<Mutex<BTreeMap<String, Vec<String>>>>);

impl Seen {
    async fn follow(self, client: Client, namespace: String) -> Result<()> {
        let secrets = Api::<Secret>::namespaced(client, &namespace);
        let mut stream = std::pin::pin!(watcher(secrets, watcher::Config::default()).applied_objects());
        while let Some(secret) = stream.next().await {
            let secret = secret?;
            let data = secret.data.clone().unwrap_or_default();
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let content = data.iter().map(|(key, value)| format!("{key}={}", text(&value.0))).collect::<Vec<_>>();
            let mut all = self.0.lock().unwrap();
            let contents = all.entry(secret.name_any()).or_default();
            let content = content.join(",");
            if contents.last() != Some(&content) {
                contents.push(content);
            }
        }
        bail!("the watch ended")
    }

    async fn at_least(&self, count: usize) -> Result<()> {
        eventually(&format!("{count} Secrets"), || async {
            let seen = self.0.lock().unwrap().len();
            ensure!(seen >= count, "{seen} Secrets");
            Ok(())
        })
        .await
    }
}

#[tokio::test]
async fn two_leaders_are_killed_while_500_sealed_secrets_arrive() -> Result<()> {
    let plane = Plane::without_controller(audited()).await?;
    let scene = Scene::on(&plane, "handover", ServerOptions::default()).await?;
    let client = scene.client.clone();
    let mut alive = replicas(&plane, 3).await?;
    let sealer = Sealer::new(client.clone(), &scene.namespace, &alive[2].controller).await?;
    let seen = Seen::default();
    let watching = tokio::spawn(seen.clone().follow(client.clone(), scene.namespace.clone()));

    // The first leader is killed while it works on the first 200 SealedSecrets. The next 150 are created while nobody
    // leads.
    let first = leader(&client, None).await?;
    let arriving = async {
        seen.at_least(40).await?;
        take(&mut alive, &first)?.controller.kill()
    };
    tokio::try_join!(sealer.put_all(0..200, "first"), arriving)?;
    sealer.put_all(200..350, "first").await?;
    // Change some SealedSecrets that no controller has seen yet, and some that the first leader has unsealed already.
    sealer.put_all(0..20, "second").await?;
    sealer.put_all(300..320, "second").await?;

    // The second leader is killed while it works on these changes and on the last 150 SealedSecrets.
    let second = leader(&client, Some(&first)).await?;
    let arriving = async {
        seen.at_least(240).await?;
        take(&mut alive, &second)?.controller.kill()
    };
    tokio::try_join!(sealer.put_all(350..500, "first"), arriving)?;
    let third = leader(&client, Some(&second)).await?;
    assert_eq!(BTreeSet::from([&first, &second, &third]).len(), 3);

    let content = |number: usize, version: &str| format!("value={}", value(number, version));
    let versions = |number: usize| match number {
        0..20 | 300..320 => vec![content(number, "first"), content(number, "second")],
        _ => vec![content(number, "first")],
    };
    eventually("every Secret to be right", || async {
        let seen = seen.0.lock().unwrap();
        let wrong: Vec<_> = (0..500)
            .filter(|&number| seen.get(&name(number)).and_then(|all| all.last()) != versions(number).last())
            .collect();
        ensure!(wrong.is_empty(), "{} are not, such as {:?}", wrong.len(), &wrong[..wrong.len().min(10)]);
        Ok(())
    })
    .await?;
    eventually("every SealedSecret to be Synced", || async {
        let all = scene.api::<SealedSecret>().list(&ListParams::default()).await?;
        let missing = all.iter().filter(|sealed| !is_synced(sealed)).count();
        ensure!(missing == 0 && all.items.len() == 500, "{missing} of {} are not", all.items.len());
        Ok(())
    })
    .await?;

    // Over time, each Secret had only contents that the test requested, in the order in which it requested them.
    for number in 0..500 {
        let seen = seen.0.lock().unwrap().get(&name(number)).cloned().unwrap_or_default();
        let expected = versions(number);
        assert!(expected.ends_with(&seen), "{}: {seen:?}, not {expected:?}", name(number));
    }
    // Each of the three replicas did a part of the work.
    let mut writers: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for request in plane.cluster.requests()? {
        let is_write = request.resource == "secrets" && request.namespace == scene.namespace;
        if is_write && !READS.contains(&request.verb.as_str()) {
            writers.entry(request.user).or_default().insert(request.name);
        }
    }
    let names: BTreeSet<_> = writers.keys().collect();
    assert_eq!(names, BTreeSet::from([&first, &second, &third]), "{writers:#?}");
    watching.abort();
    Ok(())
}

fn is_synced(sealed: &SealedSecret) -> bool {
    let status = sealed.status.clone().unwrap_or_default();
    let synced = status.condition("Synced");
    status.observed_generation == sealed.metadata.generation
        && synced.is_some_and(|synced| synced.status == crds::ConditionStatus::True)
}

/// Creates a Sync with a ConfigMap and a SealedSecret, and a SealedSecret without a Sync.
async fn workload(scene: &Scene, sealer: &Sealer) -> Result<()> {
    scene.repository(json!({})).await?;
    scene.tree.write("app/map.yaml", config_map("map", "first"))?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &sealer.seal("db", "handed-from-git")?))?;
    scene.sync("app", "./app", json!({})).await?;
    let revision = scene.publish("first").await?;
    scene.is_applied("app", &revision).await?;
    sealer.put("alone", "handed-without-a-sync").await?;
    has_secrets(scene).await
}

async fn has_secrets(scene: &Scene) -> Result<()> {
    let db = json!({"data": {"password": STANDARD.encode("handed-from-git")}});
    scene.has("v1", "Secret", "db", db).await?;
    let alone = json!({"data": {"value": STANDARD.encode("handed-without-a-sync")}});
    scene.has("v1", "Secret", "alone", alone).await.map(|_| ())
}

#[tokio::test]
async fn a_leader_that_is_asked_to_end_hands_over_and_a_standby_writes_nothing() -> Result<()> {
    let plane = Plane::without_controller(audited()).await?;
    let scene = Scene::on(&plane, "graceful", ServerOptions::default()).await?;
    let mut leading = Replica::start(&plane, "replica-1").await?;
    assert_eq!(leader(&scene.client, None).await?, "replica-1");
    let standby = Replica::start(&plane, "replica-2").await?;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &standby.controller).await?;
    workload(&scene, &sealer).await?;

    // The standby answers requests, but makes no changes.
    assert_eq!(standby.controller.fetch("/healthz").await?.trim(), "ok");
    let certificate = leading.controller.fetch("/v1/cert.pem").await?;
    assert_eq!(standby.controller.fetch("/v1/cert.pem").await?, certificate);
    let leads = async |replica: &Replica| -> Result<bool> {
        Ok(replica.controller.metric::<u64>("gitseal_leader").await? == Some(1))
    };
    assert!(leads(&leading).await? && !leads(&standby).await?);
    let written = standby.writes(&plane)?;
    assert!(written.is_empty(), "{written:#?}");
    assert!(!leading.writes(&plane)?.is_empty());
    // Folders whose names begin with a dot belong to the controller itself: no namespace has such a name.
    let is_repository = |entry: std::io::Result<std::fs::DirEntry>| {
        entry.is_ok_and(|entry| !entry.file_name().to_string_lossy().starts_with('.'))
    };
    let mut stored = plane.folder().join("replica-2/git").read_dir()?;
    assert!(!stored.any(is_repository), "a standby fetches nothing");

    // If somebody deletes the lease, the leader keeps leading.
    let leases = Api::<Lease>::namespaced(scene.client.clone(), "kube-system");
    leases.delete("gitseal-controller", &DeleteParams::default()).await?;
    assert_eq!(leader(&scene.client, None).await?, "replica-1");

    // The leader gives the lease back when it stops, so the next one need not wait until it expires.
    let holders = Arc::new(Mutex::new(Vec::new()));
    let watching = tokio::spawn(holders_of(scene.client.clone(), holders.clone()));
    eventually("the watch on the lease", || async {
        ensure!(!holders.lock().unwrap().is_empty());
        Ok(())
    })
    .await?;
    leading.controller.process().signal(Signal::Terminate)?;
    assert_eq!(leading.ends().await?, 0);
    assert!(leading.controller.log().contains("the lease is released"), "{}", leading.controller.log());
    assert_eq!(leader(&scene.client, Some("replica-1")).await?, "replica-2");
    eventually("the hand-over", || async {
        let holders = holders.lock().unwrap().clone();
        ensure!(holders == ["replica-1", "", "replica-2"], "{holders:?}");
        Ok(())
    })
    .await?;
    watching.abort();
    assert!(leads(&standby).await?);

    // The new leader continues with everything: commits, drift, SealedSecrets.
    scene.tree.write("app/map.yaml", config_map("map", "second"))?;
    let revision = scene.publish("second").await?;
    scene.is_applied("app", &revision).await?;
    scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "second"}})).await?;
    for name in ["db", "alone"] {
        scene.api::<Secret>().delete(name, &DeleteParams::default()).await?;
    }
    has_secrets(&scene).await?;
    Ok(())
}

/// Records every holder of the lease from now on, in order.
async fn holders_of(client: Client, holders: Arc<Mutex<Vec<String>>>) -> Result<()> {
    let config = watcher::Config::default().fields("metadata.name=gitseal-controller");
    let leases = Api::<Lease>::namespaced(client, "kube-system");
    let mut stream = std::pin::pin!(watcher(leases, config).applied_objects());
    while let Some(lease) = stream.next().await {
        let holder = lease?.spec.and_then(|spec| spec.holder_identity).unwrap_or_default();
        let mut holders = holders.lock().unwrap();
        if holders.last() != Some(&holder) {
            holders.push(holder);
        }
    }
    bail!("the watch ended")
}

#[tokio::test]
async fn a_leader_that_was_frozen_writes_nothing_when_it_goes_on() -> Result<()> {
    let plane = Plane::without_controller(audited()).await?;
    let scene = Scene::on(&plane, "frozen", ServerOptions::default()).await?;
    let mut frozen = Replica::start(&plane, "replica-1").await?;
    assert_eq!(leader(&scene.client, None).await?, "replica-1");
    let next = Replica::start(&plane, "replica-2").await?;
    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &next.controller).await?;
    workload(&scene, &sealer).await?;
    // Wait until the leader writes nothing any more except its lease.
    eventually("the work to end", || async {
        let before = without_lease(frozen.writes(&plane)?).len();
        let leads = frozen.controller.metric::<u64>("gitseal_leader").await?;
        let after = without_lease(frozen.writes(&plane)?).len();
        ensure!(before == after && leads == Some(1));
        Ok(())
    })
    .await?;

    frozen.controller.process().signal(Signal::Stop)?;
    // These changes are work for any controller that believes it is the leader. Nobody sees them yet.
    let maps = scene.api::<ConfigMap>();
    maps.delete("map", &DeleteParams::default()).await?;
    for name in ["db", "alone"] {
        scene.api::<Secret>().delete(name, &DeleteParams::default()).await?;
    }
    sealer.put_all(0..50, "first").await?;
    assert_eq!(leader(&scene.client, Some("replica-1")).await?, "replica-2");
    let before = frozen.writes(&plane)?.len();
    // More work, which the new leader may not have done yet when the old one continues.
    sealer.put_all(0..50, "second").await?;
    frozen.controller.process().signal(Signal::Continue)?;
    assert_eq!(frozen.ends().await?, 1, "so that kubelet starts it anew");
    let log = frozen.controller.log();
    assert!(log.contains("error: the lease kube-system/gitseal-controller is lost: "), "{log}");
    let after = frozen.writes(&plane)?;
    assert_eq!(after.len(), before, "{:#?}", &after[before..]);

    scene.has("v1", "ConfigMap", "map", json!({"data": {"value": "first"}})).await?;
    has_secrets(&scene).await?;
    for number in 0..50 {
        let wanted = json!({"data": {"value": STANDARD.encode(value(number, "second"))}});
        scene.has("v1", "Secret", &name(number), wanted).await?;
    }
    // The first leader is started again, and is now a standby.
    let back = Replica::start(&plane, "replica-1").await?;
    assert_eq!(back.controller.metric::<u64>("gitseal_leader").await?, Some(0));
    Ok(())
}

#[tokio::test]
async fn waves_that_wait_go_on_with_the_next_leader_and_run_no_job_again() -> Result<()> {
    let plane = Plane::without_controller(audited()).await?;
    let scene = Scene::on(&plane, "handover-waves", ServerOptions::default()).await?;
    let killed = Replica::start(&plane, "replica-1").await?;
    assert_eq!(leader(&scene.client, None).await?, "replica-1");
    let mut frozen = Replica::start(&plane, "replica-2").await?;
    let revision = waits_for_the_first_of_two_jobs(&scene).await?;

    // The first leader is killed, and the Job that it waits for is complete and removed before there is another leader.
    killed.controller.kill()?;
    completes(&scene, "once").await?;
    scene.is_gone(BATCH, "Job", "once").await?;
    assert_eq!(leader(&scene.client, Some("replica-1")).await?, "replica-2");
    waits(&scene, "app", "second").await?;
    let second = job_uid(&scene, "second").await?;
    is_missing(&scene, "web").await?;

    // The second leader is frozen while it waits. The third leader begins the last wave. When the second leader runs
    // again, it writes nothing.
    let third = Replica::start(&plane, "replica-3").await?;
    frozen.controller.process().signal(Signal::Stop)?;
    assert_eq!(leader(&scene.client, Some("replica-2")).await?, "replica-3");
    let before = frozen.writes(&plane)?.len();
    completes(&scene, "second").await?;
    frozen.controller.process().signal(Signal::Continue)?;
    assert_eq!(frozen.ends().await?, 1);
    scene.is_applied("app", &revision).await?;
    has_value(&scene, "web", "1").await?;
    assert_eq!(frozen.writes(&plane)?.len(), before);
    let jobs = third.writes(&plane)?;
    let jobs: Vec<_> = jobs.iter().filter(|request| request.resource == "jobs" && request.name == "once").collect();
    ensure!(jobs.is_empty(), "the third leader writes the Job that is done: {jobs:#?}");
    ensure!(scene.get(BATCH, "Job", "once").await?.is_none(), "it runs again");
    assert_eq!(job_uid(&scene, "second").await?, second, "it runs again");
    Ok(())
}

fn without_lease(mut requests: Vec<AuditEvent>) -> Vec<AuditEvent> {
    requests.retain(|request| request.resource != "leases");
    requests
}
