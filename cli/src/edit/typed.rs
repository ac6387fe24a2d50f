//! Checks the values to which the type of a Secret gives a meaning, for example a certificate and its key. Without this
//! check, wrong values would cause a failure only later, in the cluster.

use std::collections::BTreeMap;

use anyhow::Context;
use rustls::{
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    sign::CertifiedKey,
};
use serde::{Deserialize, de::IgnoredAny};
use zeroize::Zeroize as _;

use super::secret::PlainSecret;
use crate::output::Hint;

const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";

/// Checks that the values fit the type of the Secret.
///
/// # Errors
/// A certificate and a key that do not belong together, or a configuration of container registries that no kubelet can
/// read. The errors name keys, never values.
pub fn check(secret: &PlainSecret) -> anyhow::Result<()> {
    let value = |key: &str| secret.data.get(key).map(sealing::SecretBytes::expose);
    let checked = match secret.secret_type.as_deref() {
        // If the certificate or the key is missing, the API server reports that.
        Some("kubernetes.io/tls") => match (value(CERTIFICATE), value(KEY)) {
            (Some(certificate), Some(key)) if !certificate.is_empty() && !key.is_empty() => pair(certificate, key),
            _ => Ok(()),
        },
        Some("kubernetes.io/dockerconfigjson") => value(".dockerconfigjson").map_or(Ok(()), registries),
        _ => Ok(()),
    };
    checked.with_context(|| secret.place())
}

/// Whether the first certificate of a PEM text belongs to the private key.
fn pair(certificates: &[u8], key: &[u8]) -> anyhow::Result<()> {
    let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates).collect::<Result<_, _>>().unwrap_or_default();
    if chain.is_empty() {
        return Err(Hint::error(
            format!("{CERTIFICATE} holds no certificate"),
            "it must be PEM text that begins with -----BEGIN CERTIFICATE-----, the server's own certificate first",
        ));
    }
    let Ok(mut der) = PrivateKeyDer::from_pem_slice(key) else {
        return Err(Hint::error(
            format!("{KEY} holds no private key"),
            "it must be PEM text without a passphrase: -----BEGIN PRIVATE KEY-----, RSA PRIVATE KEY or EC PRIVATE KEY",
        ));
    };
    let signer = rustls::crypto::aws_lc_rs::sign::any_supported_type(&der);
    der.zeroize();
    // A kind of key that rustls does not know may be known to the program that uses the Secret.
    let Ok(signer) = signer else { return Ok(()) };
    match CertifiedKey::new(chain, signer).keys_match() {
        Err(rustls::Error::InconsistentKeys(rustls::InconsistentKeys::KeyMismatch)) => Err(Hint::error(
            format!("{KEY} is not the private key of the first certificate in {CERTIFICATE}"),
            "use a certificate and a key that belong together; in a chain, the server's own certificate comes first",
        )),
        // A certificate or key that rustls cannot compare may still be right for the program that uses the Secret.
        _ => Ok(()),
    }
}

/// The hosts of registries. Only they are read, because they are not secret; everything else is skipped and not copied.
#[expect(clippy::zero_sized_map_values, reason = "serde cannot read the keys of a map into a set")]
#[derive(Deserialize)]
struct Registries {
    auths: BTreeMap<String, IgnoredAny>,
}

fn registries(text: &[u8]) -> anyhow::Result<()> {
    match serde_json::from_slice::<Registries>(text) {
        Ok(registries) if !registries.auths.is_empty() => Ok(()),
        // The parser's own message may quote what it read.
        _ => Err(Hint::error(
            ".dockerconfigjson is not a configuration of container registries",
            r#"it has to be JSON with at least one registry: {"auths": {"registry.example": {"auth": "…"}}}, as `kubectl create secret docker-registry` makes it; a file that names only a credsStore holds no passwords"#,
        )),
    }
}
