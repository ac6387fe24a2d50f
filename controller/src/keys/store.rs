//! Reads and creates key Secrets in the cluster.

use std::{collections::BTreeMap, time::Duration};

use crds::names;
use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{ObjectReference, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::core::PartialObjectMeta;
use sealing::{Certificate, PrivateKey};
use serde::Serialize;
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep},
};
use tracing::{info, warn};
use unsealing::{ReservedNames, secret_json};
use zeroize::Zeroizing;

use super::{
    KeyError, KeyOptions,
    digest::DigestKey,
    set::{Harm, KeySet, MalformedSecret},
    stored::{KEY_TYPE, SecretList, StoredSecret, parse},
};
use crate::{
    cluster::{Api, ApiError},
    events::{EventType, Events},
    leader::Leadership,
    metrics::{KeyCounts, Metrics},
};
use pipeline::Resource;

/// Name of the Secret with the key for digests, and the name of the value in it.
const DIGEST_KEY: (&str, &str) = (names::DIGEST_KEY, "key");
/// Name of the Secret that exists while a key is made: see [`Store::claim`].
const CLAIM: &str = names::KEY_CLAIM;
/// How often other replicas check whether the key was made.
const CLAIM_PAUSE: Duration = Duration::from_millis(250);

/// See [`Store::claim`].
pub(super) struct Claim {
    uid: Option<String>,
    valid_until: Instant,
}

impl Claim {
    /// Whether this replica certainly still has the claim.
    pub(super) fn is_valid(&self) -> bool {
        Instant::now() < self.valid_until
    }
}

/// Access to the Secrets of the controller's namespace.
pub(super) struct Store {
    api: Api,
    options: KeyOptions,
    metrics: Metrics,
    events: Events,
    secrets: Resource,
}

/// A key pair that is not stored yet.
pub(super) struct NewKey {
    pem: Zeroizing<String>,
    certificate: Certificate,
}

impl Store {
    pub(super) fn new(api: Api, options: KeyOptions, metrics: Metrics, events: Events) -> Self {
        Self { api, options, metrics, events, secrets: Resource::secrets() }
    }

    pub(super) fn options(&self) -> &KeyOptions {
        &self.options
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The names of the controller's own Secrets.
    pub(super) fn reserved(&self) -> ReservedNames<'_> {
        ReservedNames { namespace: &self.options.namespace, key_prefix: &self.options.prefix }
    }

    /// An API for the metadata of the Secrets in the controller's namespace, for a watch.
    pub(super) fn secrets_metadata(&self) -> kube::Api<PartialObjectMeta<Secret>> {
        kube::Api::namespaced(self.api.client(), &self.options.namespace)
    }

    /// Reads every key. Keys in `known` whose Secret did not change are taken from there.
    pub(super) async fn load(&self, known: Option<&KeySet>) -> Result<KeySet, KeyError> {
        let secrets = self.read().await.map_err(|source| self.reading(source))?;
        let (keys, malformed) = parse(secrets, known).await;
        let is_known = |secret| known.is_some_and(|known| known.malformed().contains(secret));
        for secret in malformed.iter().filter(|secret| !is_known(secret)) {
            warn!(secret = secret.name, reason = secret.reason, "{}", harm(secret.harm));
            self.tell(secret);
        }
        let sealing = keys.iter().filter(|key| key.sealing_certificate().is_some()).count();
        let left_out = malformed.iter().filter(|secret| secret.harm == Harm::LeftOut).count();
        let counts = KeyCounts { active: sealing, compromised: keys.len() - sealing, malformed: left_out };
        self.metrics.sealing_keys(counts);
        Ok(KeySet::new(keys, malformed, self.options.order))
    }

    /// Whether this replica may make keys.
    pub(super) fn leadership(&self) -> &Leadership {
        self.api.leadership()
    }

    /// An error if this replica may not make keys.
    pub(super) fn may_make(&self) -> Result<(), KeyError> {
        if self.leadership().leads() { Ok(()) } else { Err(KeyError::NotMade) }
    }

    /// A new key pair, which is not stored yet.
    pub(super) async fn generate(&self, not_before: Timestamp) -> Result<NewKey, KeyError> {
        let KeyOptions { size_bits: bits, valid_for, common_name, .. } = self.options.clone();
        let failed = |reason: String| KeyError::Generate { bits, reason };
        let job = spawn_blocking(move || -> Result<_, String> {
            let private = PrivateKey::generate(bits).map_err(|error| error.to_string())?;
            let pem = private.to_pem().map_err(|error| error.to_string())?;
            let valid_for = SignedDuration::try_from(valid_for).map_err(|error| error.to_string())?;
            let certificate = sealing::self_signed(&private, &common_name, not_before, valid_for)
                .map_err(|error| error.to_string())?;
            Ok(NewKey { pem, certificate })
        });
        job.await.map_err(|error| failed(error.to_string()))?.map_err(failed)
    }

    /// Creates the Secret of a new key. The name of the Secret is computed from the key's certificate.
    pub(super) async fn write(&self, new: &NewKey) -> Result<(), KeyError> {
        let name = &format!("{}{}", self.options.prefix, new.certificate.name_letters());
        let certificate_pem = new.certificate.to_pem();
        let values = [("tls.crt", certificate_pem.as_bytes()), ("tls.key", new.pem.as_bytes())];
        let mut labels = self.options.labels.clone();
        labels.insert(crds::names::SEALING_KEY.into(), "active".into());
        let meta = NewMeta {
            name: Some(name),
            generate_name: Some(&self.options.prefix),
            labels,
            annotations: self.options.annotations.clone(),
        };
        let created = self.create(&NewSecret::new(KEY_TYPE, meta), &values).await;
        let created = created.map_err(|source| self.writing(name, source))?;
        let regarding = self.reference(name, created.uid, created.resource_version);
        self.events.publish(&regarding, EventType::Normal, "SealingKeyMade", MADE);
        info!(
            namespace = self.options.namespace,
            name,
            certificate = new.certificate.fingerprint(),
            "a new sealing key was made; back it up"
        );
        Ok(())
    }

    /// Waits until this replica has the claim: the right to make the next key, for a short time. Only one replica has
    /// the claim, even if the replicas do not know of each other.
    ///
    /// The claim is a Secret without values, because every role that may make keys can create Secrets. The replica that
    /// created the claim deletes it when the key is stored. If this replica was killed, another replica deletes the
    /// claim after it has seen the claim for [`KeyOptions::claim_respected`]. The replica that created the claim uses
    /// it only for half of this time, counted from the moment before it sent the claim.
    pub(super) async fn claim(&self) -> Result<Claim, KeyError> {
        let namespace = Some(self.options.namespace.as_str());
        let failed = |source| self.writing(CLAIM, source);
        let mut seen: Option<(Option<String>, Instant)> = None;
        loop {
            let valid_until = Instant::now() + self.options.claim_respected / 2;
            let claim = NewSecret::new("Opaque", NewMeta { name: Some(CLAIM), ..NewMeta::default() });
            match self.create(&claim, &[]).await {
                Ok(made) => return Ok(Claim { uid: made.uid, valid_until }),
                Err(source) if source.is_conflict() => {}
                Err(source) => return Err(failed(source)),
            }
            match self.api.get_metadata(&self.secrets, namespace, CLAIM).await {
                Ok(found) => match &seen {
                    Some((uid, since)) if *uid == found.uid => {
                        if since.elapsed() > self.options.claim_respected {
                            warn!(
                                secret = CLAIM,
                                "another replica began to make a sealing key and did not finish; this replica begins again"
                            );
                            self.remove_claim(found.uid.as_deref()).await.map_err(failed)?;
                        }
                    }
                    _ => seen = Some((found.uid, Instant::now())),
                },
                Err(source) if source.is_not_found() => continue,
                Err(source) => return Err(failed(source)),
            }
            sleep(CLAIM_PAUSE).await;
        }
    }

    /// Gives the claim up, so that others can make keys.
    pub(super) async fn release(&self, claim: Claim) {
        if let Err(error) = self.remove_claim(claim.uid.as_deref()).await {
            warn!(
                secret = CLAIM, %error,
                "this Secret, which exists while a sealing key is made, could not be removed; the next sealing key is \
                 made a little later"
            );
        }
    }

    async fn remove_claim(&self, uid: Option<&str>) -> Result<(), ApiError> {
        let seen = ObjectMeta { uid: uid.map(str::to_owned), ..ObjectMeta::default() };
        match self.api.delete(&self.secrets, Some(&self.options.namespace), CLAIM, &seen).await {
            // Another replica has deleted the claim, and may have made a new one.
            Err(error) if error.is_not_found() || error.is_conflict() => Ok(()),
            other => other,
        }
    }

    /// The key for digests, which is made if there is none.
    pub(super) async fn digest_key(&self) -> Result<DigestKey, KeyError> {
        let (name, value) = DIGEST_KEY;
        let mut found = self.find(name).await.map_err(|source| self.reading(source))?;
        if found.is_none() {
            self.may_make()?;
            let fresh = DigestKey::random_bytes();
            let secret = NewSecret::new("Opaque", NewMeta { name: Some(name), ..NewMeta::default() });
            match self.create(&secret, &[(value, &fresh[..])]).await {
                Ok(_) => return Ok(DigestKey::new(&*fresh)),
                // Another replica has just made a key for digests, which is used instead.
                Err(source) if source.is_conflict() => {
                    found = self.find(name).await.map_err(|source| self.reading(source))?;
                }
                Err(source) => return Err(self.writing(name, source)),
            }
        }
        let unusable = |reason: &str| KeyError::DigestKey {
            namespace: self.options.namespace.clone(),
            name: name.into(),
            reason: reason.into(),
        };
        let secret = found.ok_or_else(|| unusable("it was deleted while it was read"))?;
        if secret.is_made_by_unsealing() {
            return Err(unusable("it was made by a SealedSecret: delete that SealedSecret first"));
        }
        let bytes = secret.value(value).ok_or_else(|| unusable("data.key is missing or is not base64"))?;
        if bytes.len() < DigestKey::LENGTH {
            return Err(unusable("data.key is shorter than 32 bytes"));
        }
        Ok(DigestKey::new(&bytes))
    }

    async fn read(&self) -> Result<Vec<StoredSecret>, ApiError> {
        let path = self.secrets.path(Some(&self.options.namespace), None);
        let selector = crds::names::SEALING_KEY.replace('/', "%2F");
        let mut secrets = self.api.read::<SecretList>(&format!("{path}?labelSelector={selector}")).await?.items;
        let legacy = self.find(&self.options.prefix).await?;
        secrets.extend(legacy.filter(|secret| secret.label().is_none()));
        Ok(secrets)
    }

    async fn find(&self, name: &str) -> Result<Option<StoredSecret>, ApiError> {
        match self.api.read(&self.secrets.path(Some(&self.options.namespace), Some(name))).await {
            Ok(secret) => Ok(Some(secret)),
            Err(error) if error.is_not_found() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Reports a malformed key with an event on its Secret, if this replica is the leader.
    pub(super) fn tell(&self, secret: &MalformedSecret) {
        if !self.leadership().leads() {
            return;
        }
        let MalformedSecret { name, uid, resource_version, reason, harm: what } = secret;
        let regarding = self.reference(name, uid.clone(), Some(resource_version.clone()));
        self.events.publish(&regarding, EventType::Warning, "MalformedKey", format!("{}: {reason}", harm(*what)));
    }

    /// A Secret in the controller's namespace, as the object of an event.
    fn reference(&self, name: &str, uid: Option<String>, resource_version: Option<String>) -> ObjectReference {
        ObjectReference {
            api_version: Some("v1".into()),
            kind: Some("Secret".into()),
            namespace: Some(self.options.namespace.clone()),
            name: Some(name.to_owned()),
            uid,
            resource_version,
            field_path: None,
        }
    }

    async fn create(&self, secret: &NewSecret<'_>, values: &[(&str, &[u8])]) -> Result<ObjectMeta, ApiError> {
        let body = secret_json(secret, values);
        self.api.create(&self.secrets, Some(&self.options.namespace), body).await
    }

    fn reading(&self, source: ApiError) -> KeyError {
        KeyError::Read { namespace: self.options.namespace.clone(), source }
    }

    fn writing(&self, name: &str, source: ApiError) -> KeyError {
        KeyError::Write { namespace: self.options.namespace.clone(), name: name.into(), source }
    }
}

/// The text of the event about a new key.
const MADE: &str = "a new sealing key was made, and new values are sealed with it: back it up (gitseal keys backup FILE \
                    --recipient age1…); without a backup, nobody can unseal them if this Secret is lost";

/// A Secret that is to be created, without its values.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct NewSecret<'a> {
    api_version: &'static str,
    kind: &'static str,
    metadata: NewMeta<'a>,
    #[serde(rename = "type")]
    type_: &'static str,
}

impl<'a> NewSecret<'a> {
    fn new(type_: &'static str, metadata: NewMeta<'a>) -> Self {
        Self { api_version: "v1", kind: "Secret", metadata, type_ }
    }
}

#[derive(Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct NewMeta<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    generate_name: Option<&'a str>,
    labels: BTreeMap<String, String>,
    annotations: BTreeMap<String, String>,
}

fn harm(harm: Harm) -> &'static str {
    match harm {
        Harm::LeftOut => {
            "a sealing key cannot be used, and values that were sealed with it cannot be unsealed: restore the Secret from a backup"
        }
        Harm::UnsealsOnly => "a sealing key without its certificate is used for unsealing only",
    }
}
