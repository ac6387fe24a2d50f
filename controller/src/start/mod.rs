//! From the command line to running reconcilers, and the orderly shutdown.
//!
//! # Flow
//! A replica first *prepares*: it connects to the API server, checks which kinds the API server serves, and reads the
//! sealing keys. After that, the replica *stands by*: it watches objects and answers HTTP requests, but writes nothing.
//! When it holds the lease, it *leads*: it lists everything again, because a watch may not show the last writes of the
//! previous leader yet, takes over what is on disk and in the statuses, and reconciles. A replica that runs without a
//! lease leads at once.

mod access;
mod connection;
mod outage;
mod parts;
mod proxies;
mod requirements;
mod restore;
mod signals;
mod work;

use std::{
    sync::{Arc, OnceLock},
    time::{Duration, Instant},
};

use crds::ObjectKey;
use flags::{Config, Keys};
use gitstore::{Damaged, GitStore, Indexing, RepositoryKey, StoreError, StoreOptions};
use kube::runtime::reflector;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use worker::Worker;

pub(crate) use self::requirements::Work;
use self::{
    access::Access,
    connection::{Connection, connect},
    parts::Parts,
    signals::{asked_to_stop, renew_when_asked},
    work::{Writers, finish, start_reconcilers, start_watches},
};
use crate::{
    attempts::Attempts,
    backoff::Failing,
    cluster::{Api, ApiError, Change, Cluster, Discovery, Live, Namespaces, Reviews, Served},
    context::{Context, Queues},
    drift::Drift,
    events::Events,
    expressions::Expressions,
    fair::Places,
    fetches::Fetches,
    http::{self, HttpState, Inquiries, Listen, ListenError, Proxies, Readiness, Timeouts},
    inputs::Texts,
    keys::{KeyError, KeyOptions, Keyring},
    leader::{Candidacy, Leadership, LeaseLost},
    memory::{Memory, Plaintexts},
    metrics::Metrics,
    remotes::Remotes,
    render::{self, Renderer},
    retries::Retries,
    sealed_secret::{self, Marks},
    sources::Sources,
    sync::{self, ReadInputs, Records, StageObserver, Wants},
    watches::{self, Listed},
};

/// How many whole objects are read at the same time to check their health.
const HEALTH_READS: usize = 2;
/// If the API server does not answer at the start, how long the controller waits before it asks again.
const RETRY: Duration = Duration::from_secs(2);
/// The time after which a Repository is fetched again if its Git objects on disk are damaged.
const FETCHED_AGAIN: Duration = Duration::from_secs(3);

/// Why the controller did not start, or why it ended.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// There is no usable configuration for the API server.
    #[error("no usable cluster configuration: {0}; pass --kubeconfig or set KUBECONFIG, or run in a cluster")]
    Kubeconfig(String),
    /// A CustomResourceDefinition is missing.
    #[error("the cluster lacks the CustomResourceDefinition {0}; install gitseal's CRDs: gitseal install --apply")]
    MissingCrd(String),
    /// A CustomResourceDefinition with the needed name is too old, or comes from another project.
    #[error("the CustomResourceDefinition {crd} does not serve {version}; update it: gitseal install --apply")]
    CrdVersion {
        /// Name of the CustomResourceDefinition.
        crd: String,
        /// The version that is needed.
        version: String,
    },
    /// The API server did not answer.
    #[error("asking the API server for {what}: {source}")]
    Api {
        /// What was requested.
        what: String,
        /// The error.
        source: ApiError,
    },
    /// The sealing keys could not be read or made.
    #[error("sealing keys: {0}")]
    Keys(#[from] KeyError),
    /// The folder for Git objects cannot be used.
    #[error("--storage: {0}")]
    Storage(#[from] StoreError),
    /// The controller could not listen on an address.
    #[error("{0}")]
    Listen(#[from] ListenError),
    /// This replica lost the lease. Another replica leads, or will lead.
    #[error("{0}; another replica works now, and this one ends so that it can start again")]
    LeaseLost(#[from] LeaseLost),
    /// A part of the controller ended by itself.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs the controller until SIGTERM or SIGINT, or until it loses its lease.
pub async fn run(config: Config, observer: Arc<dyn StageObserver>) -> Result<(), StartError> {
    let (stop, shutdown) = (asked_to_stop(), CancellationToken::new());
    let metrics = Metrics::new(crate::VERSION);
    let readiness = Readiness::new(["crds", "keys", "watches"]);
    readiness.open(outage::GATE);
    let keyring_slot = Arc::new(OnceLock::new());
    renew_when_asked(keyring_slot.clone());
    let network = &config.network;
    let inquiries =
        Arc::new(Inquiries::new(network.rate_limit, network.rate_limit_burst, config.keys.accept_deprecated_v1_data));
    let proxies = Proxies::default();
    let state = HttpState {
        keyring: keyring_slot.clone(),
        readiness: readiness.clone(),
        metrics: metrics.clone(),
        timeouts: Timeouts { read: network.read_timeout, write: network.write_timeout },
        inquiries: inquiries.clone(),
        proxies: proxies.clone(),
    };
    let listen = Listen {
        api: &network.listen_addr,
        metrics: &network.listen_metrics_addr,
        probes: &network.listen_probes_addr,
    };
    let servers = http::serve(listen, state, shutdown.clone()).await?;
    let (address, metrics_address) = (servers.address, servers.metrics_address);
    tracing::info!(%address, metrics = %metrics_address, probes = %servers.probes_address, version = crate::VERSION, "listening");

    let candidacy = Candidacy::new(&config.election);
    let leadership = candidacy.leadership().clone();
    let Connection { client, urgent, namespace } = connect(&config, &leadership).await?;
    let mut election = candidacy.start(urgent, &namespace, metrics.clone());
    let replica = Replica {
        config,
        client,
        namespace,
        metrics,
        readiness,
        inquiries,
        proxies,
        leadership,
        keyring_slot,
        stop,
        shutdown,
        observer,
    };
    let ended = tokio::select! {
        // Running work is stopped at once, because another replica may lead now.
        lost = election.lost() => return Err(lost.into()),
        ended = replica.run() => ended,
    };
    replica.shutdown.cancel();
    // The lease is released only after the last write, so that the next leader finds no work half done.
    election.release().await;
    servers.ended().await;
    ended
}

/// One replica from its start to its end.
struct Replica {
    config: Config,
    client: kube::Client,
    namespace: String,
    metrics: Metrics,
    readiness: Readiness,
    inquiries: Arc<Inquiries>,
    proxies: Proxies,
    leadership: Leadership,
    keyring_slot: Arc<OnceLock<Keyring>>,
    /// Cancelled when somebody asks the controller to end.
    stop: CancellationToken,
    /// Cancelled when all parts of the controller have to end.
    shutdown: CancellationToken,
    observer: Arc<dyn StageObserver>,
}

/// The parts of a replica that exist before it begins to watch.
struct Prepared {
    ctx: Arc<Context>,
    changes: mpsc::UnboundedReceiver<Change>,
    writers: Writers,
    work: Work,
}

impl Replica {
    async fn run(&self) -> Result<(), StartError> {
        let Prepared { ctx, mut changes, writers, work } = tokio::select! {
            () = self.stop.cancelled() => return Ok(()),
            prepared = self.prepare() => prepared?,
        };
        let mut parts = Parts::default();
        let listed = Listed::default();
        start_watches(&ctx, writers, &listed, work, &mut parts);
        parts
            .start("the check whether the API server answers", outage::follow(ctx.api.clone(), self.readiness.clone()));
        parts.start("the watch on sealing keys", ctx.keyring.clone().run(self.shutdown.clone()));
        let trusted = self.config.network.trusted_proxies.clone();
        parts.start("the watch on API servers", proxies::follow(self.client.clone(), trusted, self.proxies.clone()));
        tokio::select! {
            ended = parts.first_to_end() => return Err(StartError::Ended(ended)),
            () = self.stop.cancelled() => return Ok(()),
            leading = self.stand_by(&ctx, &mut changes, &listed, work) => leading?,
        }
        tracing::info!(syncs = ctx.syncs.len(), repositories = ctx.repositories.len(), "ready");

        parts.start("the reaction to new sealing keys", watches::keys(ctx.clone()));
        parts.start(
            "the report of values that no sealing key unseals",
            sealed_secret::undecryptable::follow(ctx.clone()),
        );
        parts.start("the renewal of Secrets that older versions made", sealed_secret::renew_old(ctx.clone()));
        parts.start("the reaction to changes in the cluster", sync::changes::follow(ctx.clone(), changes));
        start_reconcilers(&ctx, &self.config, work, &mut parts);
        let ended = tokio::select! {
            ended = parts.first_to_end() => Err(StartError::Ended(ended)),
            () = self.stop.cancelled() => Ok(()),
            () = requirements::more_work(&ctx, work, self.asked_in(&ctx.namespaces)) => Ok(()),
        };
        tracing::info!("shutting down");
        self.readiness.close("watches");
        self.shutdown.cancel();
        finish(&ctx).await;
        ended
    }

    /// Prepares everything that must exist before the replica begins to watch.
    async fn prepare(&self) -> Result<Prepared, StartError> {
        let (client, metrics) = (self.client.clone(), self.metrics.clone());
        let config = &self.config;
        let flags = &config.sealed_secrets;
        let namespaces = Namespaces::new(flags.all_namespaces, &flags.additional_namespaces, &self.namespace);
        let mut api = Api::new(client.clone(), self.leadership.clone(), metrics.clone())
            .taking_over_from(config.take_over_from.clone());
        let discovery = Discovery::new(api.clone());
        let mut work = requirements::work(&api, &discovery).await?;
        let access = Access::ask(&client, self.asked_in(&namespaces).as_deref(), work == Work::Everything).await;
        access.tell();
        if !access.may_apply() {
            work = Work::SealedSecretsOnly;
        }
        if !access.may_patch_secrets() {
            api = api.without_patch_of_secrets();
        }
        self.readiness.open("crds");

        let events = Events::start(api.clone(), metrics.clone(), self.shutdown.clone());
        let options = key_options(&self.config.keys, self.namespace.clone());
        let keyring = loop {
            match Keyring::start(api.clone(), options.clone(), metrics.clone(), events.clone()).await {
                // If the process ended here, Kubernetes would restart it again and again, with longer and longer
                // pauses. So the controller waits instead.
                Err(KeyError::Read { source, .. } | KeyError::Write { source, .. }) if source.is_transient() => {
                    tracing::warn!(error = %source, "the sealing keys cannot be read or made; the controller tries again");
                    tokio::time::sleep(RETRY).await;
                }
                keyring => break keyring?,
            }
        };
        let _ = self.keyring_slot.set(keyring.clone());
        self.readiness.open("keys");

        let (live, changes) = Live::new(client, metrics.clone(), namespaces.clone());
        let (repositories, repository_writer) = reflector::store();
        let (syncs, sync_writer) = reflector::store();
        let (sealed_secrets, sealed_writer) = reflector::store();
        let writers = Writers { repositories: repository_writer, syncs: sync_writer, sealed_secrets: sealed_writer };
        let remotes = Arc::<Remotes>::default();
        let (queues, memory) = (Queues::default(), Memory::new(config.memory_budget));
        let input_texts = Arc::new(Texts::new(memory.of_inputs()));
        self.metrics.show_memory(memory.gate(), input_texts.clone());
        let syncs_to_do = queues.syncs.clone();
        events.wait_for(move || syncs_to_do.is_behind());
        let attempts = match work {
            Work::Everything => Attempts::new(&config.storage),
            Work::SealedSecretsOnly => Attempts::default(),
        };
        let sources = Arc::new(Sources::default());
        let served = Served::new(api.clone());
        let ctx = Context {
            tenancy: config.tenancy.clone(),
            keys: config.keys.clone(),
            unsealing: config.sealed_secrets.clone(),
            namespaces,
            cluster: Cluster { api: api.clone(), discovery, live, reviews: Reviews::default() },
            api,
            drift: Drift::default(),
            fetches: self.fetches(),
            failing_fetches: Failing::default(),
            failing_secrets: Failing::default(),
            marks: Marks::default(),
            unsealed: std::sync::Mutex::default(),
            git: Arc::new(open_store(config, work, &memory, &queues).await?),
            plaintexts: Plaintexts::new(),
            renderer: Renderer::new(render::Parts {
                memory,
                attempts,
                metrics: metrics.clone(),
                sources: sources.clone(),
                remotes: remotes.clone(),
                repositories: queues.repositories.clone(),
                program: config.renderer.clone().unwrap_or_else(renderer::program),
                process_memory: config.renderer_memory,
                served,
            }),
            sources,
            remotes,
            keyring,
            events,
            metrics,
            repositories,
            syncs,
            sealed_secrets,
            records: Records::default(),
            retries: Retries::default(),
            wants: Wants::default(),
            inputs: ReadInputs::default(),
            input_texts,
            queues,
            writes: Places::new(config.concurrent_writes.into()),
            health_reads: Places::new(HEALTH_READS),
            expressions: Expressions::new(),
            observer: self.observer.clone(),
        };
        Ok(Prepared { ctx: Arc::new(ctx), changes, writers, work })
    }

    /// An empty set of fetches, whose state the metrics and `/readyz` show.
    fn fetches(&self) -> Fetches {
        let fetches = Fetches::default();
        self.metrics.show_fetches(fetches.gate());
        fetches.show_in(&self.readiness, Instant::now);
        fetches
    }

    /// The controller's rights are checked in this one of its namespaces, as an example of all of them. If possible, it
    /// is not the controller's own namespace. `None` if the controller works in all namespaces.
    fn asked_in(&self, namespaces: &Namespaces) -> Option<String> {
        let mut names = namespaces.each().into_iter().flatten().collect::<Vec<_>>();
        names.sort_by_key(|name| *name == self.namespace);
        names.into_iter().next()
    }

    /// Waits until this replica leads and knows what the previous leader left.
    async fn stand_by(
        &self,
        ctx: &Arc<Context>,
        changes: &mut mpsc::UnboundedReceiver<Change>,
        listed: &Listed,
        work: Work,
    ) -> Result<(), StartError> {
        restore::warm_up(ctx, work).await?;
        self.inquiries.count(ctx.sealed_secrets.clone());
        if !self.leadership.leads() {
            self.readiness.open("watches");
            // Until this replica leads, changes are ignored, because the replica that leads now sees them, too.
            let ignored = async { while changes.recv().await.is_some() {} };
            tokio::select! {
                () = self.leadership.begun() => {}
                () = ignored => {}
            }
        }
        // All inventories must be known before the first pass. Otherwise, two Syncs could claim the same object.
        listed.all(work).await;
        restore::take_over(ctx).await;
        self.readiness.open("watches");
        Ok(())
    }
}

async fn open_store(config: &Config, work: Work, memory: &Memory, queues: &Queues) -> Result<GitStore, StartError> {
    let (first, most) = memory.of_the_indexer();
    let indexing = Indexing::Apart { worker: Worker::default(), first, most, admission: Arc::new(memory.clone()) };
    let repositories = queues.repositories.clone();
    let damaged = move |key: &RepositoryKey| {
        // The fetch comes after a pause. So if the disk damages objects again and again, the network is not busy all
        // the time.
        repositories.add_after(ObjectKey::new(&key.namespace, key.of_repository()), FETCHED_AGAIN);
    };
    let options = StoreOptions {
        allow_file_urls: config.tenancy.allow_file_urls,
        indexing,
        damaged: Damaged::told(damaged),
        ..StoreOptions::default()
    };
    if work == Work::SealedSecretsOnly {
        // Nothing is fetched, and there may be no volume for Git objects.
        return Ok(GitStore::unused(options));
    }
    let root = config.storage.clone();
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
        renew_period: keys.renew_period(),
        cutoff: keys.key_cutoff_time,
        ..KeyOptions::new(namespace)
    }
}
