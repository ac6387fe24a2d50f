//! All keys at one moment, in the order in which they are tried.

use std::sync::Arc;

use jiff::Timestamp;
use sealing::{Certificate, PrivateKey};

use super::KeyOrder;

/// All usable keys, newest first.
pub(super) struct KeySet {
    keys: Vec<Arc<SealingKey>>,
    /// Index of the newest key that seals; `None` at the first start, until a key is made.
    sealing: Option<usize>,
    /// Malformed key Secrets.
    malformed: Vec<MalformedSecret>,
}

/// A malformed key Secret.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct MalformedSecret {
    /// Name of the Secret.
    pub(super) name: String,
    /// UID of the Secret.
    pub(super) uid: Option<String>,
    /// Resource version of the Secret when it was read.
    pub(super) resource_version: String,
    /// What is wrong with the Secret.
    pub(super) reason: String,
    /// What the Secret cannot be used for.
    pub(super) harm: Harm,
}

/// What a malformed key Secret cannot be used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Harm {
    /// The Secret cannot be used at all, because it has no key.
    LeftOut,
    /// The Secret cannot be used for sealing, because it does not have the certificate of its key.
    UnsealsOnly,
}

/// A key pair, and the Secret that it was read from.
pub(super) struct SealingKey {
    /// Name of the Secret.
    pub(super) name: String,
    /// Resource version of the Secret when it was read.
    pub(super) resource_version: String,
    /// When the Secret was created.
    pub(super) created: Timestamp,
    /// What the key may be used for.
    pub(super) purpose: Purpose,
    /// The certificate in the Secret, if it belongs to this key.
    pub(super) certificate: Option<Certificate>,
    pub(super) private: PrivateKey,
    /// [`PublicKey::fingerprint`](sealing::PublicKey::fingerprint).
    pub(super) fingerprint: Arc<str>,
}

/// What a key may be used for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// Sealing and unsealing: `active`.
    Seal,
    /// Unsealing only: `compromised`.
    UnsealOnly,
}

impl SealingKey {
    /// The certificate to seal with; `None` for a key that only unseals.
    pub(super) fn sealing_certificate(&self) -> Option<&Certificate> {
        self.certificate.as_ref().filter(|_| self.purpose == Purpose::Seal)
    }

    /// The time by which `order` orders keys.
    pub(super) fn time(&self, order: KeyOrder) -> Timestamp {
        match (order, &self.certificate) {
            (KeyOrder::CertNotBefore, Some(certificate)) => certificate.not_before(),
            _ => self.created,
        }
    }
}

impl KeySet {
    pub(super) fn new(mut keys: Vec<Arc<SealingKey>>, malformed: Vec<MalformedSecret>, order: KeyOrder) -> Self {
        // Keys with the same time are ordered by name, so that all replicas have the same order.
        keys.sort_by(|a, b| b.time(order).cmp(&a.time(order)).then_with(|| b.name.cmp(&a.name)));
        let sealing = keys.iter().position(|key| key.sealing_certificate().is_some());
        Self { keys, sealing, malformed }
    }

    /// The newest key that seals.
    pub(super) fn sealing(&self) -> Option<&SealingKey> {
        self.sealing.map(|index| &*self.keys[index])
    }

    /// The newest active key's certificate.
    pub(super) fn certificate(&self) -> Option<&Certificate> {
        self.sealing()?.sealing_certificate()
    }

    /// Fingerprint of the newest active key.
    pub(super) fn newest(&self) -> Option<&str> {
        self.sealing().map(|key| &*key.fingerprint)
    }

    pub(super) fn key(&self, index: usize) -> &SealingKey {
        &self.keys[index]
    }

    /// Every key, newest first.
    pub(super) fn iter(&self) -> impl Iterator<Item = &SealingKey> {
        self.keys.iter().map(|key| &**key)
    }

    /// Malformed key Secrets.
    pub(super) fn malformed(&self) -> &[MalformedSecret] {
        &self.malformed
    }

    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// The key that was read from this version of the Secret `name`.
    pub(super) fn find(&self, name: &str, resource_version: &str) -> Option<&Arc<SealingKey>> {
        self.keys.iter().find(|key| key.name == name && key.resource_version == resource_version)
    }

    /// Every private key with its index: first the key with the index `first`, then the others, newest first.
    pub(super) fn starting_with(&self, first: usize) -> impl Iterator<Item = (usize, &PrivateKey)> {
        let all = || self.keys.iter().enumerate().map(|(index, key)| (index, &key.private));
        all().filter(move |(index, _)| *index == first).chain(all().filter(move |(index, _)| *index != first))
    }

    /// Whether both sets have the same keys for the same purposes.
    pub(super) fn same_keys(&self, other: &Self) -> bool {
        let identities = |set: &Self| -> Vec<(Arc<str>, Option<String>)> {
            let identity =
                |key: &SealingKey| (key.fingerprint.clone(), key.sealing_certificate().map(Certificate::fingerprint));
            set.iter().map(identity).collect()
        };
        self.newest() == other.newest() && identities(self) == identities(other)
    }
}
