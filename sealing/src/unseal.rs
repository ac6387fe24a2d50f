//! Unsealing: the part that all formats share.

use crate::{
    Binding, SecretBytes,
    format::{Format, FormatError, SealedValue},
};

/// Something that unseals sealed values.
pub trait Identity {
    /// Tries to unseal `value` for `binding`.
    ///
    /// `None` means that the value is not for this identity, and that another identity may unseal it. An error ends the
    /// search: the value is for this identity but broken, or unsealing is not possible at all. If only the private key
    /// can tell a broken value from a value for another identity, both give `None`, because the difference would tell
    /// strangers something about the key.
    fn unseal(&self, binding: Binding<'_>, value: &SealedValue) -> Option<Result<SecretBytes, UnsealError>>;
}

/// Why a value was not unsealed.
///
/// The error does not say which step refused the value. People who send values must not learn whether a private key
/// could decrypt the first part of a value, the session key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum UnsealError {
    /// The text does not have the structure of a sealed value.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// An age value.
    #[error(
        "values that are sealed with age are not supported yet: seal the value with the cluster's certificate instead"
    )]
    AgeNotSupported,
    /// No private key was given.
    #[error("there is no private key to unseal with: check that the sealing keys exist and are readable")]
    NoKeys,
    /// No key unseals the value for this name, namespace and scope.
    #[error(
        "no key could decrypt secret: it was sealed for another cluster, or for another namespace, name or scope, \
         or it was altered; seal it again for this cluster, namespace, name and scope"
    )]
    Refused,
    /// The operating system gave no random bytes.
    #[error("the operating system's random number generator failed")]
    Random,
}

/// Unseals a value of `spec.encryptedData` for `binding`, with the first of `identities` that can. Line breaks inside `value`
/// are ignored.
///
/// The identities are tried in the given order. An RSA value does not name its key, so each key of its size costs one
/// RSA operation, until one fits. Put the most likely identity first.
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
