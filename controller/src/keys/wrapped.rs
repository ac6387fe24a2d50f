//! Values of Secrets of the cluster, on their way into other Secrets: they are wrapped when they are read, and sealed when they are put
//! into a Secret. In between, nothing has a value in plain text.

use aws_lc_rs::aead::{AES_256_GCM, Aad, NONCE_LEN, Nonce, RandomizedNonceKey};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use renderer::{Sealer, WrappedValue};
use sealing::Binding;
use zeroize::Zeroizing;

use super::{Keyring, digest::DigestKey};

/// The key that values are wrapped with. It is in the memory of this process only, and is made anew at each start.
pub(super) struct WrappingKey(RandomizedNonceKey);

impl WrappingKey {
    pub(super) fn random() -> Self {
        let key = DigestKey::random_bytes();
        Self(RandomizedNonceKey::new(&AES_256_GCM, &*key).expect("the key has the length of an AES-256 key"))
    }

    /// The text that [`WrappingKey::unwrap`] makes the value of.
    fn wrap(&self, value: &[u8]) -> String {
        // Has room for everything from the start: a buffer that grows would leave plaintext in memory.
        let mut bytes = Zeroizing::new(Vec::with_capacity(value.len() + AES_256_GCM.tag_len()));
        bytes.extend_from_slice(value);
        let nonce = self.0.seal_in_place_append_tag(Aad::empty(), &mut *bytes).expect("a Secret is not too long");
        STANDARD.encode([nonce.as_ref().as_slice(), bytes.as_slice()].concat())
    }

    /// `None` if the text was not made with this key.
    fn unwrap(&self, wrapped: &str) -> Option<Zeroizing<Vec<u8>>> {
        let bytes = STANDARD.decode(wrapped).ok()?;
        let (nonce, sealed) = bytes.split_first_chunk::<NONCE_LEN>()?;
        let mut value = Zeroizing::new(sealed.to_vec());
        let length = self.0.open_in_place(Nonce::from(nonce), Aad::empty(), &mut value).ok()?.len();
        value.truncate(length);
        Some(value)
    }
}

impl Keyring {
    /// Wraps a value of a Secret. `place` is the namespace and name of the Secret, and the key of the value.
    pub(crate) fn wrap(&self, place: [&str; 3], value: &[u8]) -> WrappedValue {
        let [namespace, name, key] = place.map(str::as_bytes);
        let digest = self.digest("value of a Secret", [namespace, name, key, value]);
        WrappedValue { digest, wrapped: self.0.wrapping_key.wrap(value) }
    }

    /// Identifies the key that wrapped values are sealed with now.
    pub(crate) fn seals_with(&self) -> String {
        self.key_set().newest().unwrap_or_default().to_owned()
    }
}

impl Sealer for Keyring {
    /// The randomness of the sealed text is computed from the value, the place that it comes from, its new place and the sealing key,
    /// with the cluster's key for digests. So a render that is repeated gives the same text, also after a restart; and the text does not
    /// show whether a value of another Secret is the same.
    fn seal(&self, wrapped: &WrappedValue, binding: Binding<'_>) -> Result<String, String> {
        let value = self.0.wrapping_key.unwrap(&wrapped.wrapped).ok_or("it was wrapped by another process")?;
        let keys = self.key_set();
        let key = keys.certificate().ok_or("there is no sealing key yet")?.public_key();
        let fingerprint = key.fingerprint();
        let scope = binding.scope.to_string();
        // The digest is of the value and the place that it comes from.
        let parts = [&fingerprint, &scope, binding.namespace, binding.name, binding.key, &wrapped.digest];
        let parts = parts.map(str::as_bytes).into_iter().chain([&value[..]]);
        let seed = self.0.digest_key.seed("sealed value of a Secret", parts);
        key.seal_with_seed(&seed, binding, &value).map_err(|error| error.to_string())
    }
}
