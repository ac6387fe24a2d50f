//! Sealing keys. Private keys are read and used only in this module.
//!
//! A sealing key is a Secret of type `kubernetes.io/tls` in the controller's namespace with the label
//! `sealedsecrets.bitnami.com/sealed-secrets-key`. If the label has the value `active`, the key unseals values, and the
//! certificate of the newest active key seals them. If the label has the value `compromised`, the key only unseals, so
//! that values can be sealed again with another key. With any other value of the label, the key is not used. A Secret
//! without the label counts as `active` if its name is exactly the prefix for the names of keys: the first releases of
//! Sealed Secrets made such keys.
//!
//! No SealedSecret can make a key, because unsealing refuses the label and the names of keys ([`Keyring::reserved`]). A
//! Secret of another type, or a Secret that was written for a SealedSecret, is not used as a key.
//!
//! # Guarantees
//! - There is always a key that seals: if there is none, one is made. A new key is made when the newest one is due for
//!   replacement, see [`Keyring::run`].
//! - A key Secret that is malformed does no harm: it is not used, and a metric, a warning and an event report it.
//! - If a key is added, relabelled or deleted, the controller notices this within moments, without a restart; see
//!   [`Keyring::changes`].
//! - Decryption never runs on the async threads, and never uses more threads than there are processors. Namespaces take
//!   turns with their decryptions, value by value. A value that could not be unsealed is not decrypted again until the
//!   value or the keys change.

mod digest;
mod inquiry;
mod pool;
mod refusals;
mod renewal;
mod set;
mod store;
mod stored;
mod usage;
mod wrapped;

#[cfg(test)]
pub(crate) mod tests;

use std::{collections::BTreeMap, num::NonZero, sync::Arc, thread, time::Duration};

pub use flags::KeyOrder;
use futures::{StreamExt as _, future::join_all, stream};
use jiff::Timestamp;
use kube::runtime::watcher::{self, Event};
use manifests::ObjectId;
use sealing::{Binding, Certificate, SecretBytes, UnsealError};
use tokio::{
    sync::{Mutex, Notify, watch},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};
use unsealing::{ReservedNames, SealedTexts, UnsealValueError};

use self::{
    digest::DigestKey,
    pool::{Favourite, Pool},
    refusals::Refusals,
    set::KeySet,
    store::Store,
    usage::{Usage, value_id},
    wrapped::WrappingKey,
};
pub use self::{
    inquiry::{InquiryError, InquiryFailure},
    renewal::Clock,
};
pub(crate) use self::{
    refusals::Unsealed,
    stored::StoredSecret,
    usage::{Effort, KeyMark, KeyMarks, Undecryptable},
};
use crate::{
    cluster::{self, Api, ApiError},
    events::Events,
    fair::{Asker, Place, Places},
    metrics::Metrics,
};

/// Where the keys are, and how new ones are made.
#[derive(Clone, Debug)]
pub struct KeyOptions {
    /// The controller's namespace.
    pub namespace: String,
    /// Prefix of the name of a new key's Secret.
    pub prefix: String,
    /// Size of a new key in bits.
    pub size_bits: usize,
    /// How long a new key's certificate is valid.
    pub valid_for: Duration,
    /// Common name in a new key's certificate.
    pub common_name: String,
    /// What decides which key is the newest.
    pub order: KeyOrder,
    /// Labels of a new key's Secret, in addition to the label that makes the Secret a sealing key.
    pub labels: BTreeMap<String, String>,
    /// Annotations of a new key's Secret.
    pub annotations: BTreeMap<String, String>,
    /// The age of the newest key at which a new one is made; `None` for never.
    pub renew_period: Option<Duration>,
    /// If the newest key was made before this time, a new one is made.
    pub cutoff: Option<Timestamp>,
    /// The clock for ages.
    pub clock: Clock,
    /// How long this replica waits for another one that has claimed to make a key. The time begins when this replica first
    /// sees the claim.
    pub claim_respected: Duration,
}

impl KeyOptions {
    /// The defaults of Sealed Secrets: RSA-4096, valid for ten years, a new key every 30 days, names that begin with
    /// `sealed-secrets-key`.
    pub fn new(namespace: impl Into<String>) -> Self {
        Self {
            namespace: namespace.into(),
            prefix: "sealed-secrets-key".into(),
            size_bits: 4096,
            valid_for: sealing::DEFAULT_VALIDITY.unsigned_abs(),
            common_name: String::new(),
            order: KeyOrder::default(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            renew_period: Some(Duration::from_secs(30 * 24 * 3600)),
            cutoff: None,
            clock: Clock::default(),
            // Thirty seconds are enough: a replica makes only two requests between its claim and the write of its key.
            claim_respected: Duration::from_secs(30),
        }
    }
}

/// Why the sealing keys are not available.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The key Secrets could not be read.
    #[error(
        "reading the sealing keys in namespace {namespace} failed: {source}; the controller's role must allow get, list, watch and create of secrets there"
    )]
    Read {
        /// The controller's namespace.
        namespace: String,
        /// The error of the request.
        source: ApiError,
    },
    /// The Secret of a new key could not be written.
    #[error(
        "writing the Secret {name} in namespace {namespace} failed: {source}; the controller's role must allow create of secrets there"
    )]
    Write {
        /// The controller's namespace.
        namespace: String,
        /// Name of the Secret, or its prefix.
        name: String,
        /// The error of the request.
        source: ApiError,
    },
    /// There is no key yet, and only the leader, which is another replica, may make one.
    #[error("there is no sealing key yet, and only the leader makes one")]
    NotMade,
    /// Generating a key failed.
    #[error("making a sealing key of {bits} bits failed: {reason}; check --key-size, --key-ttl and --my-cn")]
    Generate {
        /// Requested size.
        bits: usize,
        /// What went wrong.
        reason: String,
    },
    /// The Secret with the key for digests exists, but it has no usable key.
    #[error(
        "the Secret {namespace}/{name} has no usable key: {reason}; delete the Secret, and the controller makes a new \
         key and unseals every value once more"
    )]
    DigestKey {
        /// The controller's namespace.
        namespace: String,
        /// Name of the Secret.
        name: String,
        /// What is wrong with the Secret.
        reason: String,
    },
}

/// [`PublicKey::fingerprint`](sealing::PublicKey::fingerprint) of a sealing key.
pub(crate) type Fingerprint = Arc<str>;

/// The result of unsealing the values of a SealedSecret.
pub struct UnsealedValues {
    /// The values, in the order of the texts.
    pub values: Vec<Result<SecretBytes, UnsealValueError>>,
    /// Fingerprint of the key that unsealed all values; `None` if a value could not be unsealed, or if several keys
    /// were needed.
    pub key: Option<Arc<str>>,
}

/// The sealing keys of this cluster, for work on behalf of one namespace. Clones share the keys.
#[derive(Clone)]
pub struct Keyring(Arc<Inner>, Arc<str>);

struct Inner {
    store: Store,
    keys: watch::Sender<Arc<KeySet>>,
    generation: watch::Sender<u64>,
    pool: Pool,
    renderings: Places,
    digest_key: DigestKey,
    wrapping_key: WrappingKey,
    usage: Usage,
    refusals: Refusals,
    reloading: Mutex<()>,
    /// Notified when somebody asks for a new key.
    asked: Notify,
}

impl Keyring {
    /// Reads the keys, and makes a key if there is none that seals. A replica that is not the leader waits until the
    /// leader has made the key.
    pub async fn start(api: Api, options: KeyOptions, metrics: Metrics, events: Events) -> Result<Self, KeyError> {
        let leadership = api.leadership().clone();
        // This waits only in the first moments of an installation, when the leader has not made the first key yet.
        let wait = || timeout(LOOK_AGAIN, leadership.begun());
        let store = Store::new(api, options, metrics, events);
        let keys = store.load(None).await?;
        let digest_key = loop {
            match store.digest_key().await {
                Err(KeyError::NotMade) => _ = wait().await,
                other => break other?,
            }
        };
        let keyring = Self::assemble(store, keys, digest_key);
        while keyring.certificate().is_none() {
            match keyring.make_first().await {
                Err(KeyError::NotMade) => _ = wait().await,
                other => other?,
            }
        }
        Ok(keyring)
    }

    /// Watches the key Secrets, and makes new keys when they are due, until `shutdown`.
    pub async fn run(self, shutdown: CancellationToken) {
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = self.follow() => {}
            () = self.renew() => {}
        }
    }

    async fn follow(&self) {
        let secrets = self.0.store.secrets_metadata();
        let labelled = watcher::Config::default().labels(crds::names::SEALING_KEY);
        let legacy = watcher::Config::default().fields(&format!("metadata.name={}", self.0.store.options().prefix));
        let events = stream::select(
            cluster::follow(secrets.clone(), labelled.clone(), labelled),
            cluster::follow(secrets, legacy.clone(), legacy),
        );
        let mut events = std::pin::pin!(events);
        // The watch begins with a list, which counts as an event. So changes that were made after `start` read the keys
        // are noticed.
        let mut due: Option<Instant> = None;
        let mut failures = 0;
        loop {
            tokio::select! {
                event = events.next() => match event {
                    Some(Ok(Event::Init | Event::InitApply(_))) => {}
                    Some(Ok(_)) => due = due.or_else(|| Some(Instant::now() + GATHER)),
                    Some(Err(error)) => {
                        let why = apiclient::words::of_watch(&error);
                        warn!(error = why, "watching the sealing keys failed; the controller tries again");
                    }
                    None => return,
                },
                () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = match self.reload().await {
                        Ok(()) => {
                            failures = 0;
                            None
                        }
                        Err(error) => {
                            warn!(%error, "the sealing keys could not be read again, so those in memory are still used; the controller tries again");
                            failures += 1;
                            Some(Instant::now() + retry_delay(failures))
                        }
                    };
                }
            }
        }
    }

    /// The certificate of the newest active key, with which new values are sealed.
    pub fn certificate(&self) -> Option<Certificate> {
        self.0.keys.borrow().certificate().cloned()
    }

    /// A number that grows whenever the keys change. When it has grown, values that could not be unsealed should be
    /// tried again.
    pub fn generation(&self) -> u64 {
        *self.0.generation.borrow()
    }

    /// Receives every new [`Keyring::generation`].
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.generation.subscribe()
    }

    /// Unseals the values of a SealedSecret in parallel. Each value is tried with every key, the newest first.
    pub async fn unseal(&self, sealed: SealedTexts) -> UnsealedValues {
        // The generation is read before the keys. If the keys change between the two reads, a refusal counts only for
        // the old generation.
        let generation = self.generation();
        let keys = self.key_set();
        let (sealed, favourite) = (Arc::new(sealed), Arc::new(Favourite::default()));
        let jobs = (0..sealed.texts.len()).map(|index| {
            let (keyring, keys) = (self.clone(), Arc::clone(&keys));
            let (sealed, favourite) = (Arc::clone(&sealed), Arc::clone(&favourite));
            let work = move || keyring.unseal_one(generation, &keys, &favourite, sealed.get(index));
            let asker = Asker::Namespace(&self.1);
            async move { self.0.pool.run(asker, work).await.unwrap_or(Err(UnsealValueError::Interrupted)) }
        });
        let (values, used) = join_all(jobs)
            .await
            .into_iter()
            .map(|result| result.map_or_else(|error| (Err(error), None), |(value, key)| (Ok(value), Some(key))))
            .unzip::<_, _, Vec<_>, Vec<_>>();
        let key = used.first().cloned().flatten().filter(|first| used.iter().all(|key| key.as_ref() == Some(first)));
        UnsealedValues { values, key }
    }

    fn unseal_one(
        &self,
        generation: u64,
        keys: &KeySet,
        favourite: &Favourite,
        (binding, value): (Binding<'_>, &str),
    ) -> Result<(SecretBytes, Fingerprint), UnsealValueError> {
        self.0.store.metrics().value_tried();
        let result = pool::unseal(keys, favourite, binding, value)
            .map(|(index, plaintext)| (plaintext, Arc::clone(&keys.key(index).fingerprint)));
        let fingerprint = match &result {
            Ok((_, fingerprint)) => Some(Arc::clone(fingerprint)),
            Err(UnsealError::Refused) => None,
            Err(error) => return Err((*error).into()),
        };
        self.0.usage.note(generation, keys, value_id(binding, value), fingerprint);
        Ok(result?)
    }

    /// The same keys, for work on behalf of `namespace`. This work takes turns with the decryptions and renderings of
    /// other namespaces.
    #[must_use]
    pub fn acting_for(&self, namespace: &str) -> Self {
        Self(Arc::clone(&self.0), namespace.into())
    }

    /// Waits for the turn to render templates. The turn ends when the returned place is dropped.
    pub(crate) async fn turn_to_render(&self) -> Place {
        self.0.renderings.take(Asker::Namespace(&self.1)).await
    }

    /// Keyed digest of `parts`, as 32 hexadecimal digits: HMAC-SHA-256, cut to 128 bits, with a random key of this
    /// cluster. The same parts have the same digest after restarts and after a renewal of the sealing keys. Without the
    /// key, nobody can find out the parts by computing the digests of likely values. Digests with different `purpose`s
    /// are different.
    pub fn digest<'a>(&self, purpose: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
        self.0.digest_key.digest(purpose, parts)
    }

    /// A text by which the controller recognises the sealing key that unsealed a Secret. Others learn nothing from this
    /// text, and cannot make one.
    fn key_mark(&self, digest: &str, fingerprint: &str) -> String {
        self.digest("sealing key", [digest.as_bytes(), fingerprint.as_bytes()])
    }

    /// The key among `keys` that `mark` was made with.
    fn marked_key(&self, keys: &KeySet, mark: &KeyMark) -> Option<Fingerprint> {
        let mut fingerprints = keys.iter().map(|key| &key.fingerprint);
        fingerprints.find(|key| self.key_mark(&mark.digest, key) == mark.key).cloned()
    }

    /// The names of the controller's own Secrets. No Secret with such a name is made from a SealedSecret.
    pub fn reserved(&self) -> ReservedNames<'_> {
        self.0.store.reserved()
    }

    /// Whether a Secret is one of the controller's own: by its name, or because it is in the controller's namespace and
    /// has the label of a sealing key (`is_labelled`). No Sync applies or prunes such a Secret, whatever its identity
    /// may do.
    pub fn has_as_its_own(&self, id: &ObjectId, is_labelled: bool) -> bool {
        let namespace = id.namespace.as_deref().unwrap_or_default();
        let is_labelled = is_labelled && self.0.store.options().namespace == namespace;
        id.is_secret() && (is_labelled || self.reserved().contain(namespace, &id.name))
    }

    fn key_set(&self) -> Arc<KeySet> {
        Arc::clone(&self.0.keys.borrow())
    }

    /// Reads the keys again. Only one caller reads them at a time, so that an older answer never replaces a newer one.
    async fn reload(&self) -> Result<(), KeyError> {
        let _turn = self.0.reloading.lock().await;
        let known = self.key_set();
        let keys = self.0.store.load(Some(&known)).await?;
        let is_new = !keys.same_keys(&known);
        let number = keys.len();
        self.0.keys.send_replace(Arc::new(keys));
        if is_new {
            info!(keys = number, "the sealing keys changed");
            self.0.generation.send_modify(|generation| *generation += 1);
        }
        Ok(())
    }

    fn assemble(store: Store, keys: KeySet, digest_key: DigestKey) -> Self {
        let processors = thread::available_parallelism().map_or(1, NonZero::get);
        let inner = Inner {
            store,
            keys: watch::Sender::new(Arc::new(keys)),
            generation: watch::Sender::new(0),
            pool: Pool::new(processors),
            renderings: Places::new(RENDERINGS),
            digest_key,
            wrapping_key: WrappingKey::random(),
            usage: Usage::default(),
            refusals: Refusals::default(),
            reloading: Mutex::default(),
            asked: Notify::new(),
        };
        Self(Arc::new(inner), "".into())
    }
}

/// How many SealedSecrets are rendered at the same time. The time of one rendering is limited, see
/// [`gotemplate::Limits`].
const RENDERINGS: usize = 4;
/// How often a replica that is not the leader looks for the first key, which the leader makes.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// How long the controller waits after a change before it reads the keys. Keys that are restored from a backup arrive
/// together. Because of this pause, they are read only once.
const GATHER: Duration = Duration::from_millis(100);

/// The pause after `failures` in a row: one second after the first, twice as long after each further one, at most one
/// minute.
fn retry_delay(failures: u32) -> Duration {
    Duration::from_secs((1 << failures.saturating_sub(1).min(6)).min(60))
}
