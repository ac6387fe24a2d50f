//! Finds out which keys the cluster's SealedSecrets need.

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
    Fingerprint, Keyring,
    pool::Favourite,
    set::{Harm, KeySet, Purpose, SealingKey},
};

/// How many values are put into the pool at the same time. This is more than the pool has places, so that no place is
/// unused.
const AHEAD: usize = 16;

/// When this many values are remembered (about 10 MB), only scans add more values; unsealing a value no longer does.
const MOST_NOTED: usize = 1 << 17;

/// The keys that values were sealed with. The key of a value is known if the value was unsealed, or if a scan has tried
/// the value.
#[derive(Default)]
pub(super) struct Usage {
    known: Mutex<Known>,
    /// Held while a scan tries a group of values, so that only one scan does so at a time.
    pub(super) scan: tokio::sync::Mutex<()>,
    /// Notified when a value is found that no key unseals, or when such a value can be unsealed after all.
    news: Notify,
}

/// How much work is done to find values that no key unseals.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Effort {
    /// No work: only what is already known is reported.
    Known,
    /// The keys are tried on every value whose key is not known.
    All,
    /// The keys are tried on every value whose key is not known, but only on a few values per second, because nobody
    /// waits for the result.
    AllSlowly,
}

/// How many values are in a group that is tried without a pause, and the pause after the group, for [`Effort::All`].
const AT_ONCE: (usize, Duration) = (usize::MAX, Duration::ZERO);
/// The size of a group and the pause after it, for [`Effort::AllSlowly`].
const SLOWLY: (usize, Duration) = (16, Duration::from_secs(1));

/// A SealedSecret with values that no key unseals.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Undecryptable {
    /// The SealedSecret.
    pub sealed_secret: Arc<SealedSecret>,
    /// The fields of these values, for example `spec.encryptedData.password`.
    pub fields: Vec<String>,
}

#[derive(Default)]
struct Known {
    /// For the values that no key unseals: the [`Keyring::generation`] of the keys that were tried on them.
    generation: u64,
    /// Fingerprint of the key that unseals a value, by the digest of the value and its binding; `None` if no key
    /// unseals the value.
    keys: HashMap<ValueId, Option<Fingerprint>>,
}

/// A record of the sealing key that unsealed a Secret.
pub(crate) struct KeyMark {
    /// [`unsealing::digest`] of the SealedSecret that the Secret was made from.
    pub(crate) digest: String,
    /// The keyed digest of `digest` and of the sealing key's fingerprint.
    pub(crate) key: String,
}

/// A function that returns the record for a SealedSecret, if the Secret was made from exactly this SealedSecret.
pub(crate) type KeyMarks = dyn Fn(&SealedSecret) -> Option<KeyMark> + Send + Sync;

pub(super) type ValueId = [u8; 16];

/// Identifies a value by its text and by what its scope binds it to. So if several SealedSecrets have the same value,
/// and its scope allows this, the keys are tried on it only once.
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

/// A sealed value in a SealedSecret of the cluster.
struct Occurrence {
    id: ValueId,
    /// Index of the SealedSecret that has the value.
    sealed_secret: usize,
    /// Key in `encryptedData`; `None` for `spec.data`.
    key: Option<String>,
}

impl Usage {
    /// Records that `keys`, which have this `generation`, were tried on a value. `fingerprint` is that of the key that
    /// unsealed the value; `None` if no key did.
    pub(super) fn note(&self, generation: u64, keys: &KeySet, id: ValueId, fingerprint: Option<Fingerprint>) {
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

    /// Records a result of a scan.
    fn learn(&self, scan: &Scan, id: ValueId, fingerprint: Option<Fingerprint>) {
        let mut known = self.known();
        if known.generation != scan.generation {
            return;
        }
        let is_news = fingerprint.is_none();
        known.keys.insert(id, fingerprint);
        drop(known);
        if is_news {
            self.news.notify_one();
        }
    }

    /// The values whose key is not known.
    fn unknown<'a>(&self, values: &'a [Occurrence]) -> Vec<&'a Occurrence> {
        let known = self.known();
        values.iter().filter(|value| !known.keys.contains_key(&value.id)).collect()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Keyring {
    /// How many values of `sealed_secrets` need each key. The counts must be right for the keys that exist at the end
    /// of the scan, because somebody may remove a key whose count is 0. The results of the scan are kept for the next
    /// call, even if this call is dropped before it ends.
    pub async fn report(&self, sealed_secrets: Vec<Arc<SealedSecret>>) -> KeyReport {
        let no_marks: Arc<KeyMarks> = Arc::new(|_| None);
        loop {
            let scan = Arc::new(self.scan(sealed_secrets.clone()).await);
            self.find_out(&scan, &no_marks, AT_ONCE).await;
            let known = self.0.usage.known();
            // If the key of a value is not known, the keys changed in the meantime, or another scan removed values that
            // it did not see. In both cases, the scan is done again.
            let is_whole = scan.occurrences.iter().all(|value| known.keys.contains_key(&value.id));
            if is_whole && known.generation == scan.generation && self.generation() == scan.generation {
                return report(&scan.keys, &known, &scan.occurrences);
            }
        }
    }

    /// SealedSecrets with values that no key unseals. If `marks` knows the key of a value, no keys are tried on it. The
    /// results of the tries are kept for the next call, even if this call is dropped before it ends.
    pub(crate) async fn undecryptable(
        &self,
        sealed_secrets: Vec<Arc<SealedSecret>>,
        marks: &Arc<KeyMarks>,
        effort: Effort,
    ) -> Vec<Undecryptable> {
        let scan = Arc::new(self.scan(sealed_secrets).await);
        match effort {
            Effort::Known => {}
            Effort::All => self.find_out(&scan, marks, AT_ONCE).await,
            Effort::AllSlowly => self.find_out(&scan, marks, SLOWLY).await,
        }
        scan.undecryptable(&self.0.usage)
    }

    /// Waits until [`Keyring::undecryptable`] may have another result although the keys are the same.
    pub async fn undecryptable_changed(&self) {
        self.0.usage.news.notified().await;
    }

    async fn scan(&self, sealed_secrets: Vec<Arc<SealedSecret>>) -> Scan {
        // The generation is read before the keys. So if keys are added in between, the next call tries them.
        let generation = self.generation();
        let keys = self.key_set();
        // Computing digests of megabytes would block an async thread.
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

    /// Finds out the key of every value. Values are tried in groups of `at_a_time`, with a `pause` after each group.
    /// Ends early if the keys change.
    async fn find_out(&self, scan: &Arc<Scan>, marks: &Arc<KeyMarks>, (at_a_time, pause): (usize, Duration)) {
        let mut from = 0;
        loop {
            let (keyring, looking, marks) = (self.clone(), Arc::clone(scan), Arc::clone(marks));
            // Computing digests of megabytes would block an async thread.
            let look = spawn_blocking(move || keyring.unknown(&looking, &*marks, from, at_a_time));
            let Ok((questions, next)) = look.await else { return };
            for questions in questions.chunks(at_a_time) {
                let turn = self.0.usage.scan.lock().await;
                if self.generation() != scan.generation {
                    return;
                }
                self.ask(scan, questions).await;
                drop(turn);
                sleep(pause).await;
            }
            if next == scan.occurrences.len() {
                return;
            }
            from = next;
        }
    }

    /// Values whose key is not known, each once, beginning with the value at index `from`; and the index to continue
    /// with. Returns at least `least` values if there are so many. Also records the keys that `marks` knows.
    fn unknown(&self, scan: &Scan, marks: &KeyMarks, from: usize, least: usize) -> (Vec<Question>, usize) {
        let (mut questions, mut asked, mut next) = (Vec::new(), HashSet::new(), from);
        for of_one in scan.occurrences[from..].chunk_by(|a, b| a.sealed_secret == b.sealed_secret) {
            next += of_one.len();
            let unknown = self.0.usage.unknown(of_one);
            let Some(first) = unknown.first() else { continue };
            let sealed = &scan.sealed_secrets[first.sealed_secret];
            if let Some(key) = marks(sealed).and_then(|mark| self.marked_key(&scan.keys, &mark)) {
                for value in unknown {
                    self.0.usage.learn(scan, value.id, Some(Arc::clone(&key)));
                }
                continue;
            }
            let new = unknown.into_iter().filter(|value| asked.insert(value.id));
            questions.extend(new.map(|Occurrence { id, key, .. }| Question {
                id: *id,
                sealed: Arc::clone(sealed),
                key: key.clone(),
            }));
            if questions.len() >= least {
                break;
            }
        }
        (questions, next)
    }

    /// Finds out which keys unseal the values of `questions`, except values whose key became known in the meantime.
    async fn ask(&self, scan: &Scan, questions: &[Question]) {
        let favourite = Arc::new(Favourite::default());
        let ask = |Question { id, sealed, key }: &Question| {
            let (keyring, keys, favourite) = (self.clone(), Arc::clone(&scan.keys), Arc::clone(&favourite));
            let (id, sealed, key) = (*id, Arc::clone(sealed), key.clone());
            async move {
                if keyring.0.usage.known().keys.contains_key(&id) {
                    return;
                }
                let text = value(&sealed, key.as_deref()).unwrap_or_default().to_owned();
                let texts = SealedTexts {
                    scope: scope(sealed.annotations()),
                    namespace: sealed.namespace().unwrap_or_default(),
                    name: sealed.name_any(),
                    texts: vec![(key, text)],
                };
                let fingerprint = keyring.fingerprint(&keys, &favourite, Arc::new(texts), 0).await;
                keyring.0.usage.learn(scan, id, fingerprint);
            }
        };
        stream::iter(questions.iter().map(ask)).buffer_unordered(AHEAD).collect::<()>().await;
    }
}

/// A value whose key is not known.
struct Question {
    id: ValueId,
    sealed: Arc<SealedSecret>,
    key: Option<String>,
}

/// The values and the keys in the cluster at one moment.
struct Scan {
    generation: u64,
    keys: Arc<KeySet>,
    sealed_secrets: Vec<Arc<SealedSecret>>,
    occurrences: Vec<Occurrence>,
}

impl Scan {
    fn undecryptable(&self, usage: &Usage) -> Vec<Undecryptable> {
        let known = usage.known();
        let mut all: Vec<(usize, Undecryptable)> = Vec::new();
        for Occurrence { id, sealed_secret: index, key } in &self.occurrences {
            if known.keys.get(id) != Some(&None) {
                continue;
            }
            let field = field(key.as_deref());
            match all.last_mut() {
                Some((last, undecryptable)) if last == index => undecryptable.fields.push(field),
                _ => {
                    let sealed_secret = Arc::clone(&self.sealed_secrets[*index]);
                    all.push((*index, Undecryptable { sealed_secret, fields: vec![field] }));
                }
            }
        }
        all.into_iter().map(|(_, undecryptable)| undecryptable).collect()
    }
}

impl Known {
    /// Forgets results that may be wrong now because the keys changed: for values that no key unsealed, and for values
    /// whose key is gone.
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
    let mut undecryptable = 0;
    for occurrence in occurrences {
        match known.keys.get(&occurrence.id).and_then(Option::as_deref) {
            Some(fingerprint) => {
                let (values, sealed_secrets) = uses.entry(fingerprint).or_default();
                *values += 1;
                sealed_secrets.insert(occurrence.sealed_secret);
            }
            None => undecryptable += 1,
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
        undecryptable,
        malformed: left_out.map(|secret| secret.name.clone()).collect(),
    }
}
