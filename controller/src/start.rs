//! From the command line to running reconcilers, and back down in order.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    sync::{Arc, OnceLock},
    time::Duration,
};

use crds::Sync;
use futures::{FutureExt, StreamExt, future::BoxFuture, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    config::{KubeConfigOptions, Kubeconfig},
    runtime::reflector,
};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use crate::{
    backoff::Failing,
    cluster::{Api, ApiError, Discovery, FieldsDigest, Live, Namespaces},
    config::{Config, Keys},
    context::{Context, Queues},
    drift::Drift,
    events::Events,
    git::{GitStore, StoreError, StoreOptions},
    http::{self, HttpState, ListenError, Readiness, Timeouts},
    key::ObjectKey,
    keys::{KeyError, KeyOptions, Keyring},
    metrics::Metrics,
    pipeline::StageObserver,
    reconcile::{self, Record, Records},
    sources::Sources,
    watches,
};

/// How long work under way may take to end after a shutdown was asked for.
const GRACE: Duration = Duration::from_secs(20);
/// Repositories that are fetched at a time.
const FETCHES: usize = 4;
/// SealedSecrets that are worked on at a time; decryption itself is bounded by the processors.
const UNSEALS: usize = 32;
/// Watches that begin at a time.
const FIRST_LISTS: usize = 64;
/// SealedSecret statuses that are written at a time.
const STATUSES: usize = 8;

/// Why the controller did not start, or ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// No cluster to talk to.
    #[error("no usable cluster configuration: {0}; pass --kubeconfig or set KUBECONFIG, or run in a cluster")]
    Kubeconfig(String),
    /// The CRDs are not there.
    #[error("the cluster lacks the CustomResourceDefinition {0}; install gitseal's CRDs: gitseal install --apply")]
    MissingCrd(String),
    /// A CRD is there but too old, or not ours.
    #[error("the CustomResourceDefinition {crd} does not serve {version}; update it: gitseal install --apply")]
    CrdVersion {
        /// Its name.
        crd: String,
        /// The version that is needed.
        version: String,
    },
    /// The API server cannot be asked.
    #[error("asking the API server for {what}: {source}")]
    Api {
        /// What was asked for.
        what: String,
        /// Why there is no answer.
        source: ApiError,
    },
    /// No sealing keys.
    #[error("sealing keys: {0}")]
    Keys(#[from] KeyError),
    /// No place for Git objects.
    #[error("--storage: {0}")]
    Storage(#[from] StoreError),
    /// No port.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// A part of the controller ended by itself.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs the controller until SIGTERM or SIGINT.
pub async fn run(config: Config, observer: Arc<dyn StageObserver>) -> Result<(), StartError> {
    let shutdown = CancellationToken::new();
    let metrics = Metrics::new(crate::VERSION);
    let readiness = Readiness::new(["crds", "keys", "watches"]);
    let keyring_slot = Arc::new(OnceLock::new());
    let state = HttpState {
        keyring: keyring_slot.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        timeouts: Timeouts { read: config.network.read_timeout, write: config.network.write_timeout },
    };
    let network = &config.network;
    let servers = http::serve(&network.listen_addr, &network.listen_metrics_addr, state, shutdown.clone()).await?;
    tracing::info!(address = %servers.address, metrics = %servers.metrics_address, version = crate::VERSION, "listening");

    let (client, namespace) = connect(&config).await?;
    let api = Api::new(client.clone(), metrics.clone());
    check_crds(&api).await?;
    readiness.open("crds");

    let keyring = Keyring::start(client.clone(), key_options(&config.keys, namespace.clone()), metrics.clone()).await?;
    let _ = keyring_slot.set(keyring.clone());
    readiness.open("keys");

    let storage = config.storage.clone();
    let options = StoreOptions { allow_file_urls: config.tenancy.allow_file_urls, ..StoreOptions::default() };
    let git = open_store(storage, options).await?;
    let events = Events::start(client.clone(), metrics.clone(), shutdown.clone());
    let flags = &config.sealed_secrets;
    let namespaces = Namespaces::new(flags.all_namespaces, &flags.additional_namespaces, &namespace);
    let (live, changes) = Live::new(client.clone(), metrics.clone(), namespaces.clone());
    let (repositories, repository_writer) = reflector::store();
    let (syncs, sync_writer) = reflector::store();
    let (sealed_secrets, sealed_writer) = reflector::store();
    let ctx = Arc::new(Context {
        tenancy: config.tenancy.clone(),
        keys: config.keys.clone(),
        unsealing: config.sealed_secrets.clone(),
        namespaces,
        discovery: Discovery::new(api.clone()),
        api,
        live,
        drift: Drift::default(),
        failing_fetches: Failing::default(),
        failing_secrets: Failing::default(),
        unsealed: std::sync::Mutex::default(),
        git: Arc::new(git),
        sources: Arc::new(Sources::default()),
        keyring: keyring.clone(),
        events,
        metrics,
        repositories,
        syncs,
        sealed_secrets,
        records: Records::default(),
        queues: Queues::default(),
        writes: Arc::new(Semaphore::new(config.concurrent_writes.into())),
        observer,
    });

    // The stores fill first: a pass must know every inventory, or two Syncs could claim one object.
    let mut parts = Parts::default();
    parts.start("the watch on Repositories", watches::repositories(ctx.clone(), repository_writer));
    parts.start("the watch on Syncs", watches::syncs(ctx.clone(), sync_writer));
    parts.start("the watch on SealedSecrets", watches::sealed_secrets(ctx.clone(), sealed_writer));
    let result = tokio::select! {
        ended = parts.first_to_end() => Err(StartError::Ended(ended)),
        () = terminated() => Ok(false),
        restored = restore(&ctx) => restored.map(|()| true),
    };
    if !result? {
        return Ok(());
    }
    readiness.open("watches");
    tracing::info!(syncs = ctx.syncs.len(), repositories = ctx.repositories.len(), "ready");

    parts.start("the sealing keys' watch", keyring.clone().run(shutdown.clone()));
    parts.start("the key follower", watches::keys(ctx.clone()));
    parts.start("the follower of changes", reconcile::changes::follow(ctx.clone(), changes));
    start_reconcilers(&ctx, &config, &mut parts);
    let ended = tokio::select! {
        ended = parts.first_to_end() => Err(StartError::Ended(ended)),
        () = terminated() => Ok(()),
    };
    tracing::info!("shutting down");
    readiness.close("watches");
    shutdown.cancel();
    finish(&ctx, parts).await;
    servers.ended().await;
    ended
}

fn start_reconcilers(ctx: &Arc<Context>, config: &Config, parts: &mut Parts) {
    let queues = &ctx.queues;
    let c = ctx.clone();
    let repositories = move |key| reconcile::repository::reconcile(c.clone(), key);
    parts.start("the Repository reconciler", queues.repositories.clone().run(FETCHES, repositories));
    let c = ctx.clone();
    let syncs = move |key| reconcile::sync::reconcile(c.clone(), key);
    parts.start("the Sync reconciler", queues.syncs.clone().run(config.concurrent.into(), syncs));
    let c = ctx.clone();
    let sealed = move |key| reconcile::sealed_secret::reconcile(c.clone(), key);
    parts.start("the SealedSecret reconciler", queues.sealed_secrets.clone().run(UNSEALS, sealed));
    let c = ctx.clone();
    let statuses = move |key| reconcile::synced::report(c.clone(), key);
    parts.start("the SealedSecret reporter", queues.sealed_statuses.clone().run(STATUSES, statuses));
}

/// Loads every inventory and watches every kind in it, so that drift during the downtime is seen.
async fn restore(ctx: &Arc<Context>) -> Result<(), StartError> {
    let lost = |_| StartError::Ended("a watch");
    ctx.repositories.wait_until_ready().await.map_err(lost)?;
    ctx.syncs.wait_until_ready().await.map_err(lost)?;
    ctx.sealed_secrets.wait_until_ready().await.map_err(lost)?;
    for repository in ctx.repositories.state() {
        reconcile::repository::restore(ctx, &ObjectKey::of(&*repository), &repository).await;
    }
    let mut kinds = BTreeSet::new();
    for sync in ctx.syncs.state() {
        restore_inventory(ctx, &sync, &mut kinds).await;
    }
    if !ctx.unsealing.skip_recreate {
        let secrets = |namespace| (String::new(), "v1".to_owned(), "Secret".to_owned(), namespace);
        kinds.extend(ctx.namespaces.each().into_iter().map(secrets));
    }
    stream::iter(kinds).for_each_concurrent(FIRST_LISTS, |kind| watch(ctx, kind)).await;
    Ok(())
}

/// Group, version, kind and namespace of something to watch.
type Watched = (String, String, String, Option<String>);

async fn watch(ctx: &Context, (group, version, kind, namespace): Watched) {
    let watched = match ctx.discovery.find(&group, &version, &kind).await {
        Ok(resource) => ctx.live.watch(&resource, namespace.as_deref()).await.map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    if let Err(error) = watched {
        tracing::warn!(error, ?namespace, "drift of this kind is not seen for now");
    }
}

async fn restore_inventory(ctx: &Context, sync: &Sync, kinds: &mut BTreeSet<Watched>) {
    let key = ObjectKey::of(sync);
    let record = match ctx.records.get_or_load(&key, || Record::load(sync)) {
        Ok(record) => record,
        Err(entry) => {
            tracing::error!(sync = %key, entry, "the inventory in the status is not understood; nothing is done for it");
            return;
        }
    };
    let record = record.lock().await;
    for (id, known) in record.inventory.iter() {
        let expected: Option<FieldsDigest> = known.fields;
        ctx.live.restore(&key, id, expected);
        // One watch is enough where it shows all namespaces.
        let namespace = id.namespace.clone().filter(|_| ctx.namespaces != Namespaces::All);
        kinds.insert((id.group.clone(), known.version.clone(), id.kind.clone(), namespace));
    }
}

/// Work under way gets its time; what does not end by then is safe to cut anywhere.
async fn finish(ctx: &Context, parts: Parts) {
    let idle = async {
        tokio::join!(
            ctx.queues.syncs.drained(),
            ctx.queues.sealed_secrets.drained(),
            ctx.queues.sealed_statuses.drained()
        );
    };
    for queue in [&ctx.queues.repositories, &ctx.queues.syncs, &ctx.queues.sealed_secrets, &ctx.queues.sealed_statuses]
    {
        queue.close();
    }
    if tokio::time::timeout(GRACE, idle).await.is_err() {
        tracing::warn!("work under way is cut short; the next start takes it up");
    }
    drop(parts);
}

async fn connect(config: &Config) -> Result<(kube::Client, String), StartError> {
    let unusable = |error: &dyn std::fmt::Display| StartError::Kubeconfig(error.to_string());
    let mut kube_config = match &config.kubeconfig {
        Some(path) => {
            let kubeconfig = Kubeconfig::read_from(path).map_err(|error| unusable(&error))?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
                .await
                .map_err(|error| unusable(&error))?
        }
        None => kube::Config::infer().await.map_err(|error| unusable(&error))?,
    };
    // A watch may be silent for as long as nothing happens.
    kube_config.read_timeout = None;
    // The queues retry, with backoff and with what they know; a request that hides its failures only hangs.
    kube_config.default_retry = false;
    let namespace = config.namespace.clone().unwrap_or_else(|| kube_config.default_namespace.clone());
    let client = kube::Client::try_from(kube_config).map_err(|error| unusable(&error))?;
    Ok((client, namespace))
}

/// Our own kinds must be there before anything else makes sense.
async fn check_crds(api: &Api) -> Result<(), StartError> {
    for wanted in crds::custom_resource_definitions() {
        let name = wanted.metadata.name.clone().unwrap_or_default();
        let path = format!("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/{name}");
        let found: CustomResourceDefinition = match api.read(&path).await {
            Ok(found) => found,
            Err(error) if error.is_not_found() => return Err(StartError::MissingCrd(name)),
            Err(source) => {
                return Err(StartError::Api { what: format!("CustomResourceDefinition {name}"), source });
            }
        };
        let version = wanted.spec.versions.first().map(|version| version.name.clone()).unwrap_or_default();
        if !found.spec.versions.iter().any(|offered| offered.name == version && offered.served) {
            return Err(StartError::CrdVersion { crd: name, version });
        }
    }
    Ok(())
}

async fn open_store(root: PathBuf, options: StoreOptions) -> Result<GitStore, StartError> {
    let opened = tokio::task::spawn_blocking(move || GitStore::new(root, options)).await;
    Ok(opened.map_err(|_| StartError::Ended("opening the Git store"))??)
}

fn key_options(keys: &Keys, namespace: String) -> KeyOptions {
    KeyOptions {
        prefix: keys.key_prefix.clone(),
        size_bits: keys.key_size,
        valid_for: keys.key_ttl,
        common_name: keys.my_cn.clone(),
        order: keys.key_order_priority,
        labels: keys.privatekey_labels.clone(),
        annotations: keys.privatekey_annotations.clone(),
        ..KeyOptions::new(namespace)
    }
}

async fn terminated() {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).expect("signal handlers can be installed");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signal handlers can be installed");
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

/// The endless parts of the controller: when one ends, the controller does.
#[derive(Default)]
struct Parts {
    running: Vec<(&'static str, tokio::task::JoinHandle<()>)>,
}

impl Parts {
    fn start(&mut self, name: &'static str, part: impl Future<Output = ()> + Send + 'static) {
        self.running.push((name, tokio::spawn(part)));
    }

    async fn first_to_end(&mut self) -> &'static str {
        let parts: Vec<BoxFuture<'_, &'static str>> = self
            .running
            .iter_mut()
            .map(|(name, task)| {
                let name = *name;
                task.map(move |_| name).boxed()
            })
            .collect();
        futures::future::select_all(parts).await.0
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        for (_, task) in &self.running {
            task.abort();
        }
    }
}
