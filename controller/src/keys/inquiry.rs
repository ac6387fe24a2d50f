//! Answers questions about sealed values for people who may not see the values.
//!
//! # Guarantees
//! - No answer contains a plaintext or depends on one. If a value is sealed again, it is unsealed and sealed for the
//!   same name, namespace and scope, in one step on one thread. Between the unsealing and the sealing, nothing is
//!   parsed or rendered, so no value can get a wider scope.
//! - All inquiries together get as many turns as one namespace, and use at most half of the limited places for
//!   concurrent decryptions. An inquiry that fails as a whole if one value fails ends at the first such value.

use std::sync::Arc;

use sealing::{Binding, SealError, UnsealError};
use unsealing::{SealedTexts, UnsealValueError};

use super::{
    Keyring,
    pool::{Favourite, unseal},
    set::KeySet,
};
use crate::fair::Asker;

/// A value because of which an inquiry fails.
#[derive(Debug, thiserror::Error)]
#[error("{field}: {reason}")]
pub struct InquiryError {
    /// The field that has the value, for example `spec.encryptedData.password`.
    pub field: String,
    /// What is wrong with the value.
    pub reason: InquiryFailure,
}

/// What is wrong with the value.
#[derive(Debug, thiserror::Error)]
pub enum InquiryFailure {
    /// The value cannot be unsealed.
    #[error(transparent)]
    Unseal(#[from] UnsealValueError),
    /// The value cannot be sealed again.
    #[error(transparent)]
    Seal(#[from] SealError),
    /// There is no sealing key yet.
    #[error("there is no active sealing key yet: try again in a moment")]
    NoKey,
}

impl From<UnsealError> for InquiryFailure {
    fn from(error: UnsealError) -> Self {
        Self::Unseal(error.into())
    }
}

/// The keys that values were sealed with.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct SealedWith {
    /// Fingerprint of the public key that new values are sealed with.
    pub newest: String,
    /// For each [`SealedTexts`] and each of its values, in the same order: the fingerprint of the public key that the
    /// value was sealed with; `None` if no key unseals the value.
    pub fingerprints: Vec<Vec<Option<String>>>,
}

impl Keyring {
    /// Checks whether every value can be unsealed. If not, the error is about the first value that cannot be unsealed.
    pub async fn verify(&self, sealed: SealedTexts) -> Result<(), InquiryError> {
        self.of_each(sealed, |keys, favourite, binding, value| {
            unseal(keys, favourite, binding, value)?;
            Ok(())
        })
        .await
        .map(drop)
    }

    /// The values, sealed again with the newest key for the same name, namespace and scope. Values that were sealed
    /// with this key stay as they are.
    pub async fn reseal(&self, sealed: SealedTexts) -> Result<Vec<String>, InquiryError> {
        self.of_each(sealed, reseal).await
    }

    /// The results of `work` for all values. If `work` fails for a value, the first such error is the result, and the
    /// work ends.
    async fn of_each<T: Send + 'static>(
        &self,
        sealed: SealedTexts,
        work: fn(&KeySet, &Favourite, Binding<'_>, &str) -> Result<T, InquiryFailure>,
    ) -> Result<Vec<T>, InquiryError> {
        let keys = self.key_set();
        let (sealed, favourite) = (Arc::new(sealed), Arc::new(Favourite::default()));
        let mut results = Vec::with_capacity(sealed.texts.len());
        for index in 0..sealed.texts.len() {
            let (keys, favourite, job) = (Arc::clone(&keys), Arc::clone(&favourite), Arc::clone(&sealed));
            let work = move || {
                let (binding, value) = job.get(index);
                work(&keys, &favourite, binding, value)
            };
            let result = self.0.pool.run(Asker::Inquiry, work).await;
            match result.unwrap_or(Err(InquiryFailure::Unseal(UnsealValueError::Interrupted))) {
                Ok(result) => results.push(result),
                Err(reason) => return Err(InquiryError { field: sealed.field(index), reason }),
            }
        }
        Ok(results)
    }

    /// Which keys the values were sealed with.
    pub async fn which(&self, all: Vec<SealedTexts>) -> SealedWith {
        let keys = self.key_set();
        let mut fingerprints = Vec::with_capacity(all.len());
        for sealed in all {
            let (sealed, favourite) = (Arc::new(sealed), Arc::default());
            let mut found = Vec::with_capacity(sealed.texts.len());
            for index in 0..sealed.texts.len() {
                let fingerprint = self.fingerprint(&keys, &favourite, Arc::clone(&sealed), index).await;
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
        sealed: Arc<SealedTexts>,
        index: usize,
    ) -> Option<Arc<str>> {
        let (keyring, keys, favourite) = (self.clone(), Arc::clone(keys), Arc::clone(favourite));
        let work = move || {
            keyring.0.store.metrics().value_tried();
            let (binding, value) = sealed.get(index);
            let (index, _) = unseal(&keys, &favourite, binding, value).ok()?;
            Some(Arc::clone(&keys.key(index).fingerprint))
        };
        self.0.pool.run(Asker::Inquiry, work).await.ok().flatten()
    }
}

fn reseal(keys: &KeySet, favourite: &Favourite, binding: Binding<'_>, value: &str) -> Result<String, InquiryFailure> {
    let (index, plaintext) = unseal(keys, favourite, binding, value)?;
    let certificate = keys.certificate().ok_or(InquiryFailure::NoKey)?;
    if Some(&*keys.key(index).fingerprint) == keys.newest() {
        return Ok(value.to_owned());
    }
    Ok(sealing::seal(certificate, binding, plaintext.expose())?)
}
