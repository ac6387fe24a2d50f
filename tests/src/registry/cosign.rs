//! Signatures of artifacts in a registry, in the two formats in which cosign stores them.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::json;

use super::{INDEX, MANIFEST, Registry};

pub(super) const BUNDLE: &str = "application/vnd.dev.sigstore.bundle.v0.3+json";

/// Signs with a key as cosign uses it: ECDSA with P-256.
pub struct Signer(KeyPair);

impl Signer {
    /// A signer with a new key.
    pub fn new() -> Result<Self> {
        Ok(Self(KeyPair::generate()?))
    }

    /// The public key in PEM.
    pub fn public_key(&self) -> String {
        self.0.public_key_pem()
    }

    fn sign(&self, bytes: &[u8]) -> Result<String> {
        Ok(STANDARD.encode(self.0.sign(bytes)?))
    }

    /// A bundle with a signed statement about the artifact with this digest (`sha256:…`).
    pub(super) fn bundle(&self, digest: &str, predicate: &str) -> Result<String> {
        let kind = "application/vnd.in-toto+json";
        let hex = digest.trim_start_matches("sha256:");
        let statement = json!({
            "_type": "https://in-toto.io/Statement/v1",
            "subject": [{"digest": {"sha256": hex}}],
            "predicateType": predicate,
            "predicate": {},
        })
        .to_string();
        let signed = format!("DSSEv1 {} {kind} {} {statement}", kind.len(), statement.len());
        let signatures = json!([{"sig": self.sign(signed.as_bytes())?}]);
        let envelope = json!({"payload": STANDARD.encode(&statement), "payloadType": kind, "signatures": signatures});
        Ok(json!({"mediaType": BUNDLE, "verificationMaterial": {}, "dsseEnvelope": envelope}).to_string())
    }
}

impl Registry {
    /// Signs the artifact with this digest (`sha256:…`) in the format "simple signing", as cosign 2 does.
    pub async fn sign_simply(&self, name: &str, digest: &str, signer: &Signer) -> Result<()> {
        let text = json!({"critical": {
            "identity": {"docker-reference": format!("{}/{name}", self.host())},
            "image": {"docker-manifest-digest": digest},
            "type": "cosign container image signature",
        }, "optional": null})
        .to_string();
        let signature = json!({"dev.cosignproject.cosign/signature": signer.sign(text.as_bytes())?});
        let layer = ("application/vnd.dev.cosign.simplesigning.v1+json", text.as_bytes(), signature);
        let tag = format!("{}.sig", digest.replace(':', "-"));
        self.push_manifest(name, &tag, json!({}), &[layer]).await.map(drop)
    }

    /// Signs an in-toto statement about the artifact with this digest, and pushes it in a bundle that refers to the
    /// artifact, as cosign 3 does with a registry that does not list referrers. For a signature, `predicate` is
    /// `https://sigstore.dev/cosign/sign/v1`.
    pub async fn state(&self, name: &str, digest: &str, predicate: &str, signer: &Signer) -> Result<()> {
        let hex = digest.trim_start_matches("sha256:");
        let bundle = signer.bundle(digest, predicate)?;
        let subject = json!({"mediaType": MANIFEST, "digest": digest, "size": 1});
        let fields = json!({"artifactType": BUNDLE, "subject": subject});
        let tag = format!("bundle-{}", &hex[..8]);
        let of_bundle = self.push_manifest(name, &tag, fields, &[(BUNDLE, bundle.as_bytes(), json!({}))]).await?;
        let size = self.manifest(name, &of_bundle).await?.len();
        let listed = json!({"mediaType": MANIFEST, "artifactType": BUNDLE, "digest": of_bundle, "size": size});
        let list = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": [listed]});
        self.put_manifest(name, &digest.replace(':', "-"), INDEX, &list).await.map(drop)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;
