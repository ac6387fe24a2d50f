//! Key Secrets in the cluster: finding and making them.

use std::{collections::BTreeMap, sync::Arc};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::core::PartialObjectMeta;
use sealing::PrivateKey;
use serde::Serialize;
use tokio::task::spawn_blocking;
use tracing::{info, warn};

use super::{
    KeyError, KeyOptions,
    digest::DigestKey,
    set::{KeySet, MalformedSecret, Purpose, SealingKey},
    stored::{SecretList, StoredSecret, parse},
};
use crate::{
    cluster::{Api, ApiError, Resource},
    metrics::{KeyCounts, Metrics},
    opened::secret_json,
};

/// Name of the Secret with the key for digests, and of the value in it.
const DIGEST_KEY: (&str, &str) = ("gitseal-digest-key", "key");
/// Allowance for clocks of other machines that are a little slow: a new certificate is valid there at once.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_secs(60);

/// Access to the Secrets of the controller's namespace.
pub(super) struct Store {
    api: Api,
    options: KeyOptions,
    metrics: Metrics,
    secrets: Resource,
}

impl Store {
    pub(super) fn new(api: Api, options: KeyOptions, metrics: Metrics) -> Self {
        Self { api, options, metrics, secrets: Resource::secrets() }
    }

    pub(super) fn options(&self) -> &KeyOptions {
        &self.options
    }

    /// The Secrets without their values, for a watch.
    pub(super) fn secrets_metadata(&self) -> kube::Api<PartialObjectMeta<Secret>> {
        kube::Api::namespaced(self.api.client(), &self.options.namespace)
    }

    /// Reads every key; `known` keys whose Secret did not change are taken from there. Makes one when none seals.
    pub(super) async fn load(&self, known: Option<Arc<KeySet>>) -> Result<KeySet, KeyError> {
        let secrets = self.read().await.map_err(|source| self.reading(source))?;
        let (mut keys, malformed) = parse(secrets, known.as_deref()).await;
        if !keys.iter().any(|key| key.sealing_certificate().is_some()) {
            self.may_make()?;
            keys.push(Arc::new(self.generate().await?));
        }
        let is_known = |secret| known.as_ref().is_some_and(|known| known.malformed().contains(secret));
        for MalformedSecret { name, reason, .. } in malformed.iter().filter(|secret| !is_known(secret)) {
            warn!(
                secret = name,
                reason,
                "a sealing key is left out, and nothing sealed with it can be unsealed: restore the Secret from a backup"
            );
        }
        let sealing = keys.iter().filter(|key| key.sealing_certificate().is_some()).count();
        let counts = KeyCounts { active: sealing, compromised: keys.len() - sealing, malformed: malformed.len() };
        self.metrics.sealing_keys(counts);
        Ok(KeySet::new(keys, malformed, self.options.order))
    }

    /// The key for digests, made when there is none.
    pub(super) async fn digest_key(&self) -> Result<DigestKey, KeyError> {
        let (name, value) = DIGEST_KEY;
        let mut found = self.find(name).await.map_err(|source| self.reading(source))?;
        if found.is_none() {
            self.may_make()?;
            let fresh = DigestKey::random_bytes();
            let secret = NewSecret::new("Opaque", NewMeta { name: Some(name), ..NewMeta::default() });
            match self.create(&secret, &[(value, &fresh[..])]).await {
                Ok(_) => return Ok(DigestKey::new(&*fresh)),
                // Another replica was faster: its key is the one.
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
        let bytes = secret.value(value).ok_or_else(|| unusable("there is no base64 under data.key"))?;
        if bytes.len() < DigestKey::LENGTH {
            return Err(unusable("it is shorter than 32 bytes"));
        }
        Ok(DigestKey::new(&bytes))
    }

    fn may_make(&self) -> Result<(), KeyError> {
        if self.options.leadership.leads() { Ok(()) } else { Err(KeyError::NotMade) }
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

    async fn generate(&self) -> Result<SealingKey, KeyError> {
        let KeyOptions { size_bits: bits, valid_for, common_name, .. } = self.options.clone();
        let failed = |reason: String| KeyError::Generate { bits, reason };
        let job = spawn_blocking(move || -> Result<_, String> {
            let private = PrivateKey::generate(bits).map_err(|error| error.to_string())?;
            let pem = private.to_pem().map_err(|error| error.to_string())?;
            let valid_for = SignedDuration::try_from(valid_for).map_err(|error| error.to_string())?;
            let not_before = Timestamp::now() - CLOCK_SKEW;
            let certificate = sealing::self_signed(&private, &common_name, not_before, valid_for)
                .map_err(|error| error.to_string())?;
            Ok((private, pem, certificate))
        });
        let (private, pem, certificate) = job.await.map_err(|error| failed(error.to_string()))?.map_err(failed)?;
        let certificate_pem = certificate.to_pem();
        let values = [("tls.crt", certificate_pem.as_bytes()), ("tls.key", pem.as_bytes())];
        let mut labels = self.options.labels.clone();
        labels.insert(crds::names::SEALING_KEY.into(), "active".into());
        let meta = NewMeta {
            generate_name: Some(&self.options.prefix),
            labels,
            annotations: self.options.annotations.clone(),
            ..NewMeta::default()
        };
        let created = self
            .create(&NewSecret::new("kubernetes.io/tls", meta), &values)
            .await
            .map_err(|source| self.writing(&self.options.prefix, source))?;
        let name = created.name.unwrap_or_default();
        info!(
            namespace = self.options.namespace,
            name,
            certificate = certificate.fingerprint(),
            "a new sealing key was made; back it up"
        );
        Ok(SealingKey {
            name,
            resource_version: created.resource_version.unwrap_or_default(),
            created: created.creation_timestamp.map_or_else(Timestamp::now, |time| time.0),
            purpose: Purpose::Seal,
            certificate: Some(certificate),
            fingerprint: private.public_key().fingerprint(),
            private,
        })
    }

    async fn create(&self, secret: &NewSecret<'_>, values: &[(&str, &[u8])]) -> Result<ObjectMeta, ApiError> {
        let body = secret_json(secret, values);
        let created = self.api.create(&self.secrets, Some(&self.options.namespace), body).await;
        created.map_err(ApiError::without_content)
    }

    fn reading(&self, source: ApiError) -> KeyError {
        KeyError::Read { namespace: self.options.namespace.clone(), source }
    }

    fn writing(&self, name: &str, source: ApiError) -> KeyError {
        KeyError::Write { namespace: self.options.namespace.clone(), name: name.into(), source }
    }
}

/// A Secret to be made, but for its values.
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
