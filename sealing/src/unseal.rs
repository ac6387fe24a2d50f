//! Opening sealed values.

use crate::{
    SecretBytes,
    format::{self, Format, FormatError},
    private_key::PrivateKey,
    rsa_value::{Envelope, random_session_key},
};

/// Why a value was not unsealed.
///
/// It does not tell which step refused: whether a private key recognised the value but the rest was altered must not be
/// learnt by whoever submits values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsealError {
    /// The text has not the structure of a sealed value.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An age value.
    #[error("age sealed values are not supported yet: seal the value with the cluster's certificate instead")]
    AgeNotSupported,
    /// No private key was given.
    #[error("there is no private key to unseal with: check that the sealing keys exist and are readable")]
    NoKeys,
    /// No key opens the value under the label.
    #[error(
        "no private key opens this value: it was sealed for another cluster, or for another namespace, name or scope, \
         or it was altered; seal it again for this place"
    )]
    Refused,
    /// The operating system gave no random bytes.
    #[error("the operating system's random number generator failed")]
    Random,
}

/// Unseals a value of `spec.encryptedData` with whichever of `keys` opens it under `label`
/// (see [`Scope::label`](crate::Scope::label)).
///
/// A value does not name its key, so the keys are tried in the order given: one RSA operation for each key of the value's
/// size, until one fits. Put the likeliest first. Line breaks inside `value` are ignored.
///
/// # Guarantees
/// For a given key size, every refusal takes the same steps: where RSA-OAEP fails, the rest is authenticated all the same,
/// under a random key.
pub fn unseal<'k>(
    keys: impl IntoIterator<Item = &'k PrivateKey>,
    label: &str,
    value: &str,
) -> Result<SecretBytes, UnsealError> {
    let mut envelope = match format::decode(value)? {
        (Format::Rsa, bytes) => Envelope::parse(bytes)?,
        (Format::Age, _) => return Err(UnsealError::AgeNotSupported),
    };
    let mut keys = keys.into_iter().peekable();
    keys.peek().ok_or(UnsealError::NoKeys)?;
    let rsa_bytes = envelope.rsa().len();
    for key in keys.filter(|key| key.ciphertext_bytes() == rsa_bytes) {
        if let Some(plaintext) = open(key, label, &mut envelope)? {
            return Ok(plaintext);
        }
    }
    Err(UnsealError::Refused)
}

fn open(key: &PrivateKey, label: &str, envelope: &mut Envelope) -> Result<Option<SecretBytes>, UnsealError> {
    // Drawn in any case, so that a failed decryption costs what a successful one costs.
    let decoy = random_session_key().ok_or(UnsealError::Random)?;
    let decrypted = key.decrypt_session_key(envelope.rsa(), label);
    let is_genuine = decrypted.is_some();
    let plaintext = envelope.open(&decrypted.unwrap_or(decoy));
    Ok(plaintext.filter(|_| is_genuine))
}
