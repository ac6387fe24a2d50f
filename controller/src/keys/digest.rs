//! Keyed digests. A digest shows whether values changed, and nothing else about the values.

use aws_lc_rs::{
    hmac::{self, HMAC_SHA256},
    rand,
};
use zeroize::Zeroizing;

/// A key of this cluster that is used only for digests. The key has a Secret of its own and is not derived from a
/// sealing key, so that digests do not change when sealing keys are added or removed.
pub(super) struct DigestKey(hmac::Key);

impl DigestKey {
    /// Length of the key in bytes.
    pub(super) const LENGTH: usize = 32;

    pub(super) fn new(bytes: &[u8]) -> Self {
        Self(hmac::Key::new(HMAC_SHA256, bytes))
    }

    pub(super) fn random_bytes() -> Zeroizing<[u8; Self::LENGTH]> {
        let mut bytes = Zeroizing::new([0; Self::LENGTH]);
        rand::fill(&mut *bytes).expect("the operating system has random numbers");
        bytes
    }

    /// HMAC over the purpose and the parts. In the input, the length of each part comes before the part, so that two
    /// different lists of parts never have the same input.
    pub(super) fn digest<'a>(&self, purpose: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> String {
        let tag = self.tag(purpose, parts);
        let (half, _) = tag.as_ref().split_first_chunk().expect("SHA-256 has 32 bytes");
        format!("{:032x}", u128::from_be_bytes(*half))
    }

    /// The whole HMAC, for use as a key. It must not leave memory.
    pub(super) fn seed<'a>(
        &self,
        purpose: &str,
        parts: impl IntoIterator<Item = &'a [u8]>,
    ) -> Zeroizing<[u8; Self::LENGTH]> {
        let mut seed = Zeroizing::new([0; Self::LENGTH]);
        seed.copy_from_slice(self.tag(purpose, parts).as_ref());
        seed
    }

    fn tag<'a>(&self, purpose: &str, parts: impl IntoIterator<Item = &'a [u8]>) -> hmac::Tag {
        let mut context = hmac::Context::with_key(&self.0);
        let mut add = |part: &[u8]| {
            context.update(&(part.len() as u64).to_be_bytes());
            context.update(part);
        };
        add(purpose.as_bytes());
        parts.into_iter().for_each(&mut add);
        context.sign()
    }
}
