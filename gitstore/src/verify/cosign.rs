//! Signatures of cosign, which are made with a key and checked without a network. What Fulcio (keyless signatures) or Rekor
//! (the transparency log) say is not asked for.
//!
//! There are two formats:
//! - [Simple signing](https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md): a text that names the digest of
//!   the manifest, and the signature of this text.
//! - [Bundles](https://docs.sigstore.dev/about/bundle/), the default since cosign 3: an [in-toto statement][statement] about the
//!   digest of the manifest, in a [DSSE envelope][dsse].
//!
//! [statement]: https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md
//! [dsse]: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;

use super::{TrustedKeys, Verdict};

/// The type of a text of simple signing.
pub(crate) const SIMPLE_SIGNING: &str = "application/vnd.dev.cosign.simplesigning.v1+json";
/// The annotation with the signature of such a text.
pub(crate) const SIGNATURE: &str = "dev.cosignproject.cosign/signature";
/// How the type of a bundle begins; its version follows, for example `.v0.3+json`.
pub(crate) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle";
/// The annotation of a bundle's manifest with the predicate, so that a reader knows it without the bundle.
pub(crate) const PREDICATE: &str = "dev.sigstore.bundle.predicateType";
/// The types that simple signing has for the signature of an artifact.
const SIMPLE_TYPES: [&str; 2] = ["cosign container image signature", "atomic container signature"];
/// The type of what an envelope holds.
const STATEMENT: &str = "application/vnd.in-toto+json";
/// How the types of statements begin.
const STATEMENT_TYPE: &str = "https://in-toto.io/Statement/v";
/// The predicate of a signature. Other predicates are attestations, for example a list of what an image consists of: they are signed
/// by the same keys, but do not say that the artifact may be used.
pub(crate) const SIGN: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
struct Simple {
    critical: Critical,
}

#[derive(Deserialize)]
struct Critical {
    image: Image,
    #[serde(rename = "type")]
    kind: String,
}

#[derive(Deserialize)]
struct Image {
    #[serde(rename = "docker-manifest-digest")]
    digest: String,
}

/// Judges a text of simple signing with its signature in base64. `digest` is that of the manifest, in hex digits.
pub(crate) fn simple(text: &[u8], signature: &str, digest: &str, trusted: &TrustedKeys) -> Verdict {
    let (Ok(Simple { critical }), Ok(signature)) = (serde_json::from_slice(text), STANDARD.decode(signature)) else {
        return Verdict::Other;
    };
    let is_about_it = critical.image.digest.strip_prefix("sha256:") == Some(digest);
    if !is_about_it || !SIMPLE_TYPES.contains(&critical.kind.as_str()) {
        return Verdict::Other;
    }
    verdict(trusted.have_signed(text, &signature))
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Bundle {
    dsse_envelope: Envelope,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Envelope {
    payload: String,
    payload_type: String,
    signatures: Vec<Signature>,
}

#[derive(Deserialize)]
struct Signature {
    sig: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Statement {
    #[serde(rename = "_type")]
    kind: String,
    predicate_type: String,
    subject: Vec<Subject>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digests,
}

#[derive(Deserialize)]
struct Digests {
    sha256: Option<String>,
}

/// Judges a bundle. `digest` is that of the manifest, in hex digits.
pub(crate) fn bundle(text: &[u8], digest: &str, trusted: &TrustedKeys) -> Verdict {
    let Ok(Bundle { dsse_envelope: envelope }) = serde_json::from_slice(text) else {
        return Verdict::Other;
    };
    let Ok(payload) = STANDARD.decode(&envelope.payload) else {
        return Verdict::Other;
    };
    let Ok(statement) = serde_json::from_slice::<Statement>(&payload) else {
        return Verdict::Other;
    };
    let is_about_it = statement.subject.iter().any(|subject| subject.digest.sha256.as_deref() == Some(digest));
    let is_signature = envelope.payload_type == STATEMENT
        && statement.kind.starts_with(STATEMENT_TYPE)
        && statement.predicate_type == SIGN;
    if !is_about_it || !is_signature {
        return Verdict::Other;
    }
    let signed = authenticated(&envelope.payload_type, &payload);
    let decoded =
        envelope.signatures.iter().take(SIGNATURES).filter_map(|signature| STANDARD.decode(&signature.sig).ok());
    verdict(decoded.into_iter().any(|signature| trusted.have_signed(&signed, &signature)))
}

/// The most signatures of one envelope that are checked.
const SIGNATURES: usize = 20;

/// What a signature of an envelope is made of: DSSE's pre-authentication encoding.
fn authenticated(kind: &str, payload: &[u8]) -> Vec<u8> {
    let mut all = format!("DSSEv1 {} {kind} {} ", kind.len(), payload.len()).into_bytes();
    all.extend_from_slice(payload);
    all
}

fn verdict(is_valid: bool) -> Verdict {
    if is_valid { Verdict::Valid } else { Verdict::Untrusted }
}

#[cfg(test)]
mod tests;
