//! Which keys the cluster's SealedSecrets need.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crds::{
    SealedSecret,
    endpoints::{KeyReport, KeyUse},
};
use futures::{StreamExt as _, stream};
use jiff::Timestamp;
use kube::ResourceExt as _;
use sealing::Scope;
use sha2::{Digest as _, Sha256};
use tokio::sync::Mutex;

use super::{
    Keyring,
    pool::Favourite,
    set::{Harm, KeySet, Purpose, SealingKey},
};

/// Values asked for at once; the pool has places for fewer.
const AHEAD: usize = 16;

/// Which key each value was sealed with, as far as it was asked. Held while it is asked: one scan at a time.
#[derive(Default)]
pub(super) struct Usage(Mutex<Known>);

#[derive(Default)]
struct Known {
    /// [`Keyring::generation`] that values without a key were tried at.
    generation: u64,
    /// Fingerprint of the key by the digest of label and value; none where no key opens it.
    keys: HashMap<ValueId, Option<Arc<str>>>,
}

type ValueId = [u8; 16];

/// A value that occurs in the cluster.
struct Occurrence {
    id: ValueId,
    /// Index of its SealedSecret.
    sealed_secret: usize,
    /// Key in `encryptedData`; none for `spec.data`.
    key: Option<String>,
}

impl Keyring {
    /// How many values of `sealed_secrets` each key is needed for. What was found out stays known for the next call, also
    /// when this one is dropped before its end.
    pub async fn report(&self, sealed_secrets: Vec<Arc<SealedSecret>>) -> KeyReport {
        let mut known = self.0.usage.0.lock().await;
        // In this order: keys that come in between make the next call look again.
        let generation = self.generation();
        let keys = self.key_set();
        known.follow(&keys, generation);
        // Digests of megabytes are no work for an async thread.
        let (sealed_secrets, occurrences) = tokio::task::spawn_blocking(move || {
            let occurrences = occurrences(&sealed_secrets);
            (sealed_secrets, occurrences)
        })
        .await
        .unwrap_or_default();
        let current: HashSet<ValueId> = occurrences.iter().map(|occurrence| occurrence.id).collect();
        known.keys.retain(|id, _| current.contains(id));
        self.learn(&mut known, &keys, &sealed_secrets, &occurrences).await;
        report(&keys, &known, &occurrences)
    }

    async fn learn(
        &self,
        known: &mut Known,
        keys: &Arc<KeySet>,
        sealed_secrets: &[Arc<SealedSecret>],
        occurrences: &[Occurrence],
    ) {
        let favourite = Arc::new(Favourite::default());
        let mut asked = HashSet::new();
        let mut unknown = Vec::new();
        for Occurrence { id, sealed_secret, key } in occurrences {
            if !known.keys.contains_key(id) && asked.insert(id) {
                unknown.push((*id, Arc::clone(&sealed_secrets[*sealed_secret]), key.clone()));
            }
        }
        let questions = unknown.into_iter().map(|(id, sealed, key)| {
            let (keyring, keys, favourite) = (self.clone(), Arc::clone(keys), Arc::clone(&favourite));
            async move {
                let value = value(&sealed, key.as_deref()).unwrap_or_default().to_owned();
                let label: Arc<str> = label(&sealed).into();
                (id, keyring.fingerprint(&keys, &favourite, &label, value).await)
            }
        });
        let mut answers = stream::iter(questions).buffer_unordered(AHEAD);
        while let Some((id, fingerprint)) = answers.next().await {
            known.keys.insert(id, fingerprint);
        }
    }
}

impl Known {
    /// Forgets what other keys may have changed: values without a key, and those whose key is gone.
    fn follow(&mut self, keys: &KeySet, generation: u64) {
        if self.generation == generation {
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
        let label = label(sealed);
        let id = |value: &str| {
            let mut hash = Sha256::new();
            hash.update((label.len() as u64).to_be_bytes());
            hash.update(&label);
            hash.update(value);
            let digest = hash.finalize();
            let (id, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
            *id
        };
        let values = sealed.spec.encrypted_data.iter().map(|(key, value)| (Some(key.clone()), value));
        let whole = sealed.spec.data.iter().map(|value| (None, value));
        all.extend(values.chain(whole).map(|(key, value)| Occurrence { id: id(value), sealed_secret: index, key }));
    }
    all
}

fn value<'a>(sealed: &'a SealedSecret, key: Option<&str>) -> Option<&'a str> {
    match key {
        Some(key) => sealed.spec.encrypted_data.get(key).map(String::as_str),
        None => sealed.spec.data.as_deref(),
    }
}

fn label(sealed: &SealedSecret) -> String {
    let scope = Scope::from_annotations(|name| sealed.annotations().get(name).map(String::as_str));
    scope.label(&sealed.namespace().unwrap_or_default(), &sealed.name_any())
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
