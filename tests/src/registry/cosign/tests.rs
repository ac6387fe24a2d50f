//! What cosign 3.1.3 itself wrote to a registry: `cosign sign --key cosign.key --use-signing-config=false --tlog-upload=false`
//! for a bundle, the same with `--new-bundle-format=false` for simple signing, and `cosign attest` for an attestation.

use gitstore::{Credentials, Reference, Revision, TrustedKeys};
use serde_json::Value;

use super::*;
use crate::fake::{Client, Fake, Said};
use crate::registry::digest_of;

/// The artifact, its public key, and the documents that cosign wrote to the registry, one entry for each case.
fn written() -> Value {
    serde_json::from_str(include_str!("written-by-cosign-3.1.3.json")).unwrap()
}

/// Fetches the artifact from a registry that also has these documents of cosign.
fn fetch(written: &Value, documents: &[&str], public_key: &str) -> Result<Revision, &'static str> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let (registry, url) = (Fake::new(), "/v2/team/app");
    let (manifest, archive) = (text(&written["manifest"]), STANDARD.decode(text(&written["archive"])).unwrap());
    for name in ["1.0.0", &digest_of(manifest.as_bytes())] {
        registry.say(&format!("{url}/manifests/{name}"), Said::Bytes(manifest.clone().into()));
    }
    registry.say(&format!("{url}/blobs/{}", digest_of(&archive)), Said::Bytes(archive));
    for (path, document) in documents.iter().flat_map(|name| written[name].as_object().unwrap()) {
        registry.say(&format!("{url}{path}"), Said::Bytes(text(document).into()));
    }
    let client = Client::of(&[&registry]);
    let url = format!("{}/team/app", registry.web.base().replace("https://", "oci://"));
    let mut request = client.request(url, Reference::Tag("1.0.0".into()), Credentials::none());
    request.trusted = Some(TrustedKeys::from_secret([("cosign.pub", public_key.as_bytes())]).unwrap());
    client.store.fetch(&request).map_err(|error| error.reason())
}

#[test]
fn signatures_by_cosign_itself_are_valid_for_its_key_only() {
    let written = written();
    let own = written["publicKey"].as_str().unwrap();
    let other = Signer::new().unwrap().public_key();
    for documents in [&["bundle"][..], &["simple"], &["bundle", "simple"], &["several"]] {
        assert!(fetch(&written, documents, own).is_ok(), "{documents:?}");
        assert_eq!(fetch(&written, documents, &other), Err("SignatureUntrusted"), "{documents:?}");
    }
    // An attestation is signed with the same key, but it is no signature of the artifact.
    for documents in [&["attestation"][..], &[]] {
        assert_eq!(fetch(&written, documents, own), Err("Unsigned"), "{documents:?}");
    }
}
