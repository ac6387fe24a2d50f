//! Sealed → opened: every SealedSecret is decrypted beside the object it came from.

use std::collections::BTreeMap;

use crds::{SealedSecretSpec, Sync};
use futures::{StreamExt, stream};
use manifests::{Manifest, ObjectId};
use serde::Deserialize;

use super::{Held, Manifests, Object, Opened, Unsealed, render::namespace_for};
use crate::{
    keys::Keyring,
    opened::{self, SealedInput},
};

/// How many SealedSecrets of one Sync are in work at a time; the keyring bounds the decryptions themselves.
const AT_ONCE: usize = 16;

/// Sealed values of one Sync's folder. To open so many takes a processor a minute or two.
pub const MOST_VALUES: usize = 50_000;

/// Opens every SealedSecret, except those for which `is_current(secret, digest)` says that the cluster already has the
/// Secret made of the same sealed input. What cannot be opened is held, with the reason; nothing else fails.
pub async fn unseal(
    keyring: &Keyring,
    sync: &Sync,
    manifests: Manifests,
    accept_deprecated_v1_data: bool,
    is_current: impl Fn(&ObjectId, &str) -> bool,
) -> Opened {
    let is_current = &is_current;
    // What the Sync brings is for its own namespace, wherever it goes: it has one turn.
    let keyring = &keyring.acting_for(sync.metadata.namespace.as_deref().unwrap_or_default());
    let mut values = 0;
    let results: Vec<_> = stream::iter(manifests.objects)
        .map(|manifest| {
            values += sealed_values(&manifest);
            let is_too_many = values > MOST_VALUES && sealed_values(&manifest) > 0;
            async move {
                if is_too_many {
                    return Err(too_many(sync, manifest));
                }
                open(keyring, sync, manifest, accept_deprecated_v1_data, is_current).await
            }
        })
        .buffered(AT_ONCE)
        .collect()
        .await;
    let mut opened = Opened { objects: Vec::with_capacity(results.len()), held: Vec::new() };
    for result in results {
        match result {
            Ok(object) => opened.objects.push(object),
            Err(held) => opened.held.push(held),
        }
    }
    opened
}

/// How many sealed values a manifest has.
fn sealed_values(manifest: &Manifest) -> usize {
    if !manifest.id.is_sealed_secret() {
        return 0;
    }
    let values = manifest.body.get("spec").and_then(|spec| spec.get("encryptedData"));
    // At least one, in the deprecated form.
    values.and_then(|values| values.as_object()).map_or(1, |values| values.len().max(1))
}

fn too_many(sync: &Sync, manifest: Manifest) -> Held {
    let mut id = manifest.id;
    id.namespace = Some(namespace_for(sync, id.namespace.as_deref()).to_owned());
    let because = format!(
        "the folder has more than {MOST_VALUES} sealed values, which is the most that one Sync unseals: split it into \
         the folders of several Syncs"
    );
    Held { id, origin: manifest.origin, because, is_cause: true }
}

async fn open(
    keyring: &Keyring,
    sync: &Sync,
    mut manifest: Manifest,
    accept_deprecated_v1_data: bool,
    is_current: impl Fn(&ObjectId, &str) -> bool,
) -> Result<Object, Held> {
    if !manifest.id.is_sealed_secret() {
        return Ok(Object::Plain(manifest));
    }
    let namespace = namespace_for(sync, manifest.id.namespace.as_deref()).to_owned();
    manifest.id.namespace = Some(namespace.clone());
    let held =
        |because: String| Held { id: manifest.id.clone(), origin: manifest.origin.clone(), because, is_cause: true };
    let sealed = Sealed::deserialize(serde_json::Value::Object(manifest.body.clone()))
        .map_err(|_| held("its spec is not that of a SealedSecret; `gitseal seal` writes one that is".into()))?;
    let input = SealedInput {
        namespace: &namespace,
        name: &manifest.id.name,
        annotations: &sealed.metadata.annotations,
        spec: &sealed.spec,
        accept_deprecated_v1_data,
    };
    let digest = opened::digest(&input);
    if is_current(&manifest.id.secret(), &digest) {
        return Ok(Object::Sealed { manifest, secret: Unsealed::Current { digest } });
    }
    match keyring.open(&input).await {
        Ok(secret) => Ok(Object::Sealed { manifest, secret: Unsealed::Opened { secret: Box::new(secret), digest } }),
        Err(error) => Err(held(error.to_string())),
    }
}

#[derive(Deserialize)]
struct Sealed {
    #[serde(default)]
    metadata: SealedMetadata,
    spec: SealedSecretSpec,
}

#[derive(Default, Deserialize)]
struct SealedMetadata {
    #[serde(default, deserialize_with = "null_is_empty")]
    annotations: BTreeMap<String, String>,
}

fn null_is_empty<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error> {
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}
