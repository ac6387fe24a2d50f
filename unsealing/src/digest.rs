//! Digests that identify the content of a SealedSecret.

use sha2::{Digest as _, Sha256};

use crate::SealedInput;

/// Digest of everything that decides what the Secret becomes: name, scope, sealed values and template. 32 hexadecimal
/// digits. It is computed only from the SealedSecret, never from a plaintext, so it needs no key. If two digests are equal,
/// unsealing again would give the same Secret.
pub fn digest(sealed: &SealedInput<'_>) -> String {
    // Change this number when the same SealedSecret gives another Secret than before. Then every Secret is made again.
    digest_of(b"2", sealed)
}

/// The digest of the same content, as older versions of gitseal computed it. They wrote it into an annotation of the
/// Secret, and set labels of the Sync on the Secret.
pub fn old_digest(sealed: &SealedInput<'_>) -> String {
    digest_of(b"1", sealed)
}

fn digest_of(version: &[u8], sealed: &SealedInput<'_>) -> String {
    let mut hash = Sha256::new();
    let mut add = |part: &[u8]| {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    };
    add(version);
    add(sealed.namespace.as_bytes());
    add(sealed.name.as_bytes());
    add(sealed.scope().to_string().as_bytes());
    // Maps in the spec are sorted, and structs have a fixed order of fields. So equal specs give equal JSON.
    add(&serde_json::to_vec(sealed.spec).expect("every map in a spec has strings as keys"));
    // Template inputs are added only if there are some, so that the digests of SealedSecrets without them stay as they
    // are.
    if let Some(inputs) = sealed.annotations.get(crds::names::TEMPLATE_INPUTS) {
        add(inputs.as_bytes());
    }
    let digest = hash.finalize();
    let (half, _) = digest.split_first_chunk().expect("SHA-256 has 32 bytes");
    format!("{:032x}", u128::from_be_bytes(*half))
}
