//! What may be asked about sealed values by somebody who may not see what is in them.
//!
//! # Guarantees
//! - No answer holds a plaintext, or depends on one: a value is unsealed, and sealed again, under one and the same label,
//!   in one step on one thread. Nothing is parsed and nothing rendered in between, so no scope can become wider.
//! - All of it together takes turns with the namespaces whose Secrets are to be written, in half of the places, and ends at the first value that fails where
//!   one is enough to know the answer.

use std::sync::Arc;

use sealing::SealError;

use super::{
    Keyring, UnsealValueError,
    pool::{Favourite, unseal},
    set::KeySet,
};
use crate::fair::Asker;

/// Sealed values that are for one place.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SealedValues {
    /// What they were sealed for: [`Scope::label`](sealing::Scope::label).
    pub label: String,
    /// The values, each with the name of its field, for messages.
    pub values: Vec<(String, String)>,
}

/// One value that stands in the way of an answer.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InquiryError {
    /// Name of the value's field.
    pub field: String,
    /// What is wrong with it.
    pub reason: InquiryFailure,
}

/// Why a value stands in the way of an answer.
#[derive(Debug, thiserror::Error)]
pub enum InquiryFailure {
    /// It is not unsealed.
    #[error(transparent)]
    Unseal(#[from] UnsealValueError),
    /// It is not sealed again.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// There is no key to seal with yet.
    #[error("there is no active sealing key yet: try again in a moment")]
    NoKey,
}

/// Which keys values were sealed with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SealedWith {
    /// Fingerprint of the public key that seals now.
    pub newest: String,
    /// For each [`SealedValues`] and each of its values, in their order: fingerprint of the public key that it was sealed
    /// with; none where no key opens it.
    pub fingerprints: Vec<Vec<Option<String>>>,
}

impl Keyring {
    /// Whether every value is unsealed; the first one that is not.
    pub async fn verify(&self, sealed: SealedValues) -> Result<(), InquiryError> {
        let keys = self.key_set();
        let (label, favourite) = shared(sealed.label);
        for (field, value) in sealed.values {
            let (keys, label, favourite) = (Arc::clone(&keys), Arc::clone(&label), Arc::clone(&favourite));
            let work = move || unseal(&keys, &favourite, &label, &value).map(drop);
            match self.0.pool.run(Asker::Inquiry, work).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => return Err(InquiryError { field, reason: UnsealValueError::from(error).into() }),
                Err(_) => return Err(InquiryError { field, reason: UnsealValueError::Interrupted.into() }),
            }
        }
        Ok(())
    }

    /// The values, sealed for the same place with the newest key. Those that already are stay as they are.
    pub async fn reseal(&self, sealed: SealedValues) -> Result<Vec<String>, InquiryError> {
        let keys = self.key_set();
        let (label, favourite) = shared(sealed.label);
        let mut resealed = Vec::with_capacity(sealed.values.len());
        for (field, value) in sealed.values {
            let (keys, label, favourite) = (Arc::clone(&keys), Arc::clone(&label), Arc::clone(&favourite));
            let work = move || reseal(&keys, &favourite, &label, value);
            let result = self.0.pool.run(Asker::Inquiry, work).await;
            match result.unwrap_or(Err(InquiryFailure::Unseal(UnsealValueError::Interrupted))) {
                Ok(value) => resealed.push(value),
                Err(reason) => return Err(InquiryError { field, reason }),
            }
        }
        Ok(resealed)
    }

    /// Which keys the values were sealed with.
    pub async fn which(&self, sealed: Vec<SealedValues>) -> SealedWith {
        let keys = self.key_set();
        let mut fingerprints = Vec::with_capacity(sealed.len());
        for SealedValues { label, values } in sealed {
            let (label, favourite) = shared(label);
            let mut found = Vec::with_capacity(values.len());
            for (_, value) in values {
                let fingerprint = self.fingerprint(&keys, &favourite, &label, value).await;
                found.push(fingerprint.map(|fingerprint| fingerprint.to_string()));
            }
            fingerprints.push(found);
        }
        SealedWith { newest: keys.newest().unwrap_or_default().to_owned(), fingerprints }
    }

    /// Fingerprint of the key among `keys` that a value was sealed with.
    pub(super) async fn fingerprint(
        &self,
        keys: &Arc<KeySet>,
        favourite: &Arc<Favourite>,
        label: &Arc<str>,
        value: String,
    ) -> Option<Arc<str>> {
        let (keys, label, favourite) = (Arc::clone(keys), Arc::clone(label), Arc::clone(favourite));
        let work = move || {
            let (index, _) = unseal(&keys, &favourite, &label, &value).ok()?;
            Some(Arc::clone(&keys.key(index).fingerprint))
        };
        self.0.pool.run(Asker::Inquiry, work).await.ok().flatten()
    }
}

fn shared(label: String) -> (Arc<str>, Arc<Favourite>) {
    (label.into(), Arc::default())
}

fn reseal(keys: &KeySet, favourite: &Favourite, label: &str, value: String) -> Result<String, InquiryFailure> {
    let (index, plaintext) = unseal(keys, favourite, label, &value).map_err(UnsealValueError::from)?;
    let certificate = keys.certificate().ok_or(InquiryFailure::NoKey)?;
    if Some(&*keys.key(index).fingerprint) == keys.newest() {
        return Ok(value);
    }
    Ok(sealing::seal(certificate.public_key(), label, plaintext.expose())?)
}
