#![doc = include_str!("../README.md")]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod base64_text;
mod binding;
mod certificate;
mod format;
mod pem;
mod public_key;
mod rsa_value;
mod scope;
mod seal;
mod secret;

#[cfg(feature = "unseal")]
mod private_key;
#[cfg(feature = "unseal")]
mod self_signed;
#[cfg(feature = "unseal")]
mod unseal;

pub use binding::Binding;
pub use certificate::{Certificate, CertificateError};
pub use format::{Format, FormatError, MAX_PLAINTEXT_BYTES, SealedValue, is_sealed};
pub use pem::PemError;
pub use public_key::{PublicKey, PublicKeyError};
pub use rsa_value::SEED_BYTES;
pub use scope::{CLUSTER_WIDE_ANNOTATION, NAMESPACE_WIDE_ANNOTATION, Scope, UnknownScope};
pub use seal::{Plaintext, Recipient, SealError, seal};
pub use secret::SecretBytes;

#[cfg(feature = "unseal")]
pub use private_key::{DEFAULT_KEY_BITS, PrivateKey, PrivateKeyError};
#[cfg(feature = "unseal")]
pub use self_signed::{DEFAULT_VALIDITY, SelfSignedError, self_signed};
#[cfg(feature = "unseal")]
pub use unseal::{Identity, UnsealError, unseal};
