//! Which keys the cluster's SealedSecrets need.

use std::{
    collections::{HashMap, HashSet},
    iter,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crds::{
    SealedSecret,
    endpoints::{KeyReport, KeyUse},
};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::ResourceExt as _;
use sealing::Binding;
use sha2::{Digest as _, Sha256};
use tokio::{sync::Notify, task::spawn_blocking, time::sleep};
use unsealing::{SealedTexts, field, scope};

use super::{
    Keyring,
    pool::Favourite,
    set::{Harm, KeySet, Purpose, SealingKey},
};

/// Values asked for at once; the pool has places for fewer.
const AHEAD: usize = 16;

/// Values that are remembered without being asked for: about 10 MB.
const MOST_NOTED: usize = 1 << 17;

/// Which key each value was sealed with, as far as that is known: it was unsealed, or somebody asked.
#[derive(Default)]
pub(super) struct Usage {
    known: Mutex<Known>,
    /// One scan at a time.
    scan: tokio::sync::Mutex<()>,
    /// A value that no key opens came, or one was opened after all.
    news: Notify,
}

/// How much is done to find values that no key opens.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effort {
    /// Only what is known already is told.
    Known,
    /// The keys are tried on every value of which nobody knows the key.
    All,
    /// The same, a few values a second: nobody waits for it.
    AllSlowly,
}

/// Values tried at a time, and the pause after them, with [`Effort::AllSlowly`].
const SLOWLY: (usize, Duration) = (16, Duration::from_secs(1));

/// A SealedSecret with values that no key opens.
#[derive(Clone, Debug, PartialEq)]
pub struct Unopened {
    /// The SealedSecret.
    pub sealed_secret: Arc<SealedSecret>,
    /// The fields of these values, for example `spec.encryptedData.password`.
    pub fields: Vec<String>,
}

#[derive(Default)]
struct Known {
    /// [`Keyring::generation`] that values without a key were tried at.
    generation: u64,
    /// Fingerprint of the key by the digest of place and value; none where no key opens it.
    keys: HashMap<ValueId, Option<Arc<str>>>,
}

pub(super) type ValueId = [u8; 16];

/// What a value is remembered by: its text, and as much of its place as its scope binds. What is copied to places that the
/// scope leaves open is tried once.
pub(super) fn value_id(binding: Binding<'_>, value: &str) -> ValueId {
    let mut hash = Sha256::new();
    let scope = binding.scope.to_string();
    for part in iter::once(scope.as_str()).chain(binding.bound()) {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    hash.update(value);
    let digest = hash.finalize();
    let (id, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
    *id
}

/// A value that occurs in the cluster.
struct Occurrence {
    id: ValueId,
    /// Index of its SealedSecret.
    sealed_secret: usize,
    /// Key in `encryptedData`; none for `spec.data`.
    key: Option<String>,
}

impl Usage {
    /// A value was tried with `keys` of `generation`: `fingerprint` is that of the key that opened it, if any did.
    pub(super) fn note(&self, generation: u64, keys: &KeySet, id: ValueId, fingerprint: Option<Arc<str>>) {
        let mut known = self.known();
        known.follow(keys, generation);
        if known.generation != generation || known.keys.len() >= MOST_NOTED {
            return;
        }
        let is_open = fingerprint.is_some();
        let was_open = known.keys.insert(id, fingerprint).is_none_or(|before| before.is_some());
        drop(known);
        if is_open != was_open {
            self.news.notify_one();
        }
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keyring {
    /// How many values of `sealed_secrets` each key is needed for. What was found out stays known for the next call, also
    /// when this one is dropped before its end.
    pub async fn report(&self, sealed_secrets: Vec<Arc<SealedSecret>>) -> KeyReport {
        let scan = self.scan(sealed_secrets).await;
        let _turn = self.0.usage.scan.lock().await;
        self.learn(&scan, scan.unknown(&self.0.usage)).await;
        report(&scan.keys, &self.0.usage.known(), &scan.occurrences)
    }

    /// SealedSecrets with values that no key opens. What was found out stays known, also when this is dropped before its
    /// end.
    pub async fn unopened(&self, sealed_secrets: Vec<Arc<SealedSecret>>, effort: Effort) -> Vec<Unopened> {
        let scan = self.scan(sealed_secrets).await;
        let (at_once, pause) = match effort {
            Effort::Known => return scan.unopened(&self.0.usage),
            Effort::All => (usize::MAX, Duration::ZERO),
            Effort::AllSlowly => SLOWLY,
        };
        loop {
            let turn = self.0.usage.scan.lock().await;
            let mut unknown = scan.unknown(&self.0.usage);
            unknown.truncate(at_once);
            if unknown.is_empty() || self.generation() != scan.generation {
                break;
            }
            self.learn(&scan, unknown).await;
            drop(turn);
            sleep(pause).await;
        }
        scan.unopened(&self.0.usage)
    }

    /// Waits until [`Keyring::unopened`] may have another answer though the keys are the same.
    pub async fn unopened_changed(&self) {
        self.0.usage.news.notified().await;
    }

    async fn scan(&self, sealed_secrets: Vec<Arc<SealedSecret>>) -> Scan {
        // In this order: keys that come in between make the next call look again.
        let generation = self.generation();
        let keys = self.key_set();
        // Digests of megabytes are no work for an async thread.
        let (sealed_secrets, occurrences) = spawn_blocking(move || {
            let occurrences = occurrences(&sealed_secrets);
            (sealed_secrets, occurrences)
        })
        .await
        .unwrap_or_default();
        let mut known = self.0.usage.known();
        known.follow(&keys, generation);
        let current: HashSet<ValueId> = occurrences.iter().map(|occurrence| occurrence.id).collect();
        known.keys.retain(|id, _| current.contains(id));
        drop(known);
        Scan { generation, keys, sealed_secrets, occurrences }
    }

    /// Asks which keys open these values of the scan.
    async fn learn(&self, scan: &Scan, unknown: Vec<Question>) {
        let favourite = Arc::new(Favourite::default());
        let questions = unknown.into_iter().map(|Question { id, sealed, key }| {
            let (keyring, keys, favourite) = (self.clone(), Arc::clone(&scan.keys), Arc::clone(&favourite));
            async move {
                let text = value(&sealed, key.as_deref()).unwrap_or_default().to_owned();
                let sealed = SealedTexts {
                    scope: scope(sealed.annotations()),
                    namespace: sealed.namespace().unwrap_or_default(),
                    name: sealed.name_any(),
                    texts: vec![(key, text)],
                };
                (id, keyring.fingerprint(&keys, &favourite, Arc::new(sealed), 0).await)
            }
        });
        let mut answers = stream::iter(questions).buffer_unordered(AHEAD);
        while let Some((id, fingerprint)) = answers.next().await {
            let mut known = self.0.usage.known();
            if known.generation == scan.generation {
                known.keys.insert(id, fingerprint);
            }
        }
    }
}

/// A value of which nobody knows the key.
struct Question {
    id: ValueId,
    sealed: Arc<SealedSecret>,
    key: Option<String>,
}

/// The values of the cluster at one moment.
struct Scan {
    generation: u64,
    keys: Arc<KeySet>,
    sealed_secrets: Vec<Arc<SealedSecret>>,
    occurrences: Vec<Occurrence>,
}

impl Scan {
    /// Values of which nobody knows the key, each once.
    fn unknown(&self, usage: &Usage) -> Vec<Question> {
        let known = usage.known();
        let mut asked = HashSet::new();
        let is_unknown =
            |occurrence: &&Occurrence| !known.keys.contains_key(&occurrence.id) && asked.insert(occurrence.id);
        let unknown = self.occurrences.iter().filter(is_unknown);
        let question = |Occurrence { id, sealed_secret, key }: &Occurrence| Question {
            id: *id,
            sealed: Arc::clone(&self.sealed_secrets[*sealed_secret]),
            key: key.clone(),
        };
        unknown.map(question).collect()
    }

    fn unopened(&self, usage: &Usage) -> Vec<Unopened> {
        let known = usage.known();
        let mut all: Vec<(usize, Unopened)> = Vec::new();
        for Occurrence { id, sealed_secret: index, key } in &self.occurrences {
            if known.keys.get(id) != Some(&None) {
                continue;
            }
            let field = field(key.as_deref());
            match all.last_mut() {
                Some((last, unopened)) if last == index => unopened.fields.push(field),
                _ => {
                    let sealed_secret = Arc::clone(&self.sealed_secrets[*index]);
                    all.push((*index, Unopened { sealed_secret, fields: vec![field] }));
                }
            }
        }
        all.into_iter().map(|(_, unopened)| unopened).collect()
    }
}

impl Known {
    /// Forgets what newer keys may have changed: values without a key, and those whose key is gone.
    fn follow(&mut self, keys: &KeySet, generation: u64) {
        if self.generation >= generation {
            return;
        }
        let there: HashSet<&str> = keys.iter().map(|key| &*key.fingerprint).collect();
        self.keys.retain(|_, key| key.as_deref().is_some_and(|fingerprint| there.contains(fingerprint)));
        self.generation = generation;
    }
}

fn occurrences(sealed_secrets: &[Arc<SealedSecret>]) -> Vec<Occurrence> {
    let mut all = Vec::new();
    for (index, sealed) in sealed_secrets.iter().enumerate() {
        let (scope, namespace, name) =
            (scope(sealed.annotations()), sealed.namespace().unwrap_or_default(), sealed.name_any());
        let values = sealed.spec.encrypted_data.iter().map(|(key, value)| (Some(key.clone()), value));
        let whole = sealed.spec.data.iter().map(|value| (None, value));
        all.extend(values.chain(whole).map(|(key, value)| Occurrence {
            id: value_id(scope.binding(&namespace, &name, key.as_deref().unwrap_or_default()), value),
            sealed_secret: index,
            key,
        }));
    }
    all
}

fn value<'a>(sealed: &'a SealedSecret, key: Option<&str>) -> Option<&'a str> {
    match key {
        Some(key) => sealed.spec.encrypted_data.get(key).map(String::as_str),
        None => sealed.spec.data.as_deref(),
    }
}

fn report(keys: &KeySet, known: &Known, occurrences: &[Occurrence]) -> KeyReport {
    let mut uses: HashMap<&str, (usize, HashSet<usize>)> = HashMap::new();
    let mut unopened = 0;
    for occurrence in occurrences {
        match known.keys.get(&occurrence.id).and_then(Option::as_deref) {
            Some(fingerprint) => {
                let (values, sealed_secrets) = uses.entry(fingerprint).or_default();
                *values += 1;
                sealed_secrets.insert(occurrence.sealed_secret);
            }
            None => unopened += 1,
        }
    }
    let newest = keys.sealing().map(|key| key.name.as_str());
    let describe = |key: &SealingKey| {
        let (values, sealed_secrets) = uses.get(&*key.fingerprint).map_or((0, 0), |(n, all)| (*n, all.len()));
        let time = |time: Timestamp| time.to_string();
        KeyUse {
            name: key.name.clone(),
            fingerprint: key.fingerprint.to_string(),
            state: match key.purpose {
                Purpose::Seal => "active".into(),
                Purpose::UnsealOnly => "compromised".into(),
            },
            seals: Some(key.name.as_str()) == newest,
            not_before: key.certificate.as_ref().map(|certificate| time(certificate.not_before())),
            not_after: key.certificate.as_ref().map(|certificate| time(certificate.not_after())),
            created: time(key.created),
            values,
            sealed_secrets,
        }
    };
    let left_out = keys.malformed().iter().filter(|secret| secret.harm == Harm::LeftOut);
    KeyReport {
        keys: keys.iter().map(describe).collect(),
        unopened,
        malformed: left_out.map(|secret| secret.name.clone()).collect(),
    }
}
