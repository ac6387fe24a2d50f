//! Unsealing: the part that all formats share.

use crate::{
    Binding, SecretBytes,
    format::{Format, FormatError, SealedValue},
};

/// Something that unseals sealed values.
pub trait Identity {
    /// Tries to unseal `value` in a place of `binding`.
    ///
    /// None says that the value is not for this identity, so that another one may unseal it. An error ends the search: it is
    /// for this identity, but broken, or nobody could try. A format whose values do not tell these apart without the
    /// private key says none for both, since the difference would tell strangers what the key does.
    fn unseal(&self, binding: Binding<'_>, value: &SealedValue) -> Option<Result<SecretBytes, UnsealError>>;
}

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
    /// No key unseals the value in this place.
    #[error(
        "no key could decrypt secret: it was sealed for another cluster, or for another namespace, name or scope, \
         or it was altered; seal it again for this place"
    )]
    Refused,
    /// The operating system gave no random bytes.
    #[error("the operating system's random number generator failed")]
    Random,
}

/// Unseals a value of `spec.encryptedData` with whichever of `identities` unseals it in a place of `binding`. Line breaks
/// inside `value` are ignored.
///
/// They are tried in the order given. An RSA value does not name its key: it costs one RSA operation for each key of its
/// size, until one fits. Put the likeliest first.
pub fn unseal<'i, I: Identity + ?Sized + 'i>(
    identities: impl IntoIterator<Item = &'i I>,
    binding: Binding<'_>,
    value: &str,
) -> Result<SecretBytes, UnsealError> {
    let value = SealedValue::parse(value)?;
    if value.format() == Format::Age {
        return Err(UnsealError::AgeNotSupported);
    }
    let mut identities = identities.into_iter().peekable();
    identities.peek().ok_or(UnsealError::NoKeys)?;
    identities.find_map(|identity| identity.unseal(binding, &value)).unwrap_or(Err(UnsealError::Refused))
}
