//! Where a registry has the signatures of an artifact, and whether one of them is by a trusted key.

use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use ureq::http::{Method, StatusCode};

use super::{MANIFEST_BYTES, Registry, next_page};
use crate::FetchError;
use crate::error::FoundDigest;
use crate::transport::hex;
use crate::verify::{TrustedKeys, Verdict, cosign};
use remotes::{Revision, is_digest};

/// The type of a manifest.
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// The type of a list of manifests.
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
/// The most bytes of one signature with what it signs.
const SIGNATURE_BYTES: u64 = 256 << 10;
/// The most signatures of one artifact that are looked at. Whoever may write to the registry can add signatures.
const SIGNATURES: usize = 40;
/// The most pages of the list of what refers to an artifact.
const PAGES: usize = 20;

/// A document, and the path of the next page.
type Page = (Vec<u8>, Option<String>);

#[derive(Default, Deserialize)]
struct List {
    #[serde(default)]
    manifests: Vec<Named>,
}

#[derive(Default, Deserialize)]
struct Layers {
    #[serde(default)]
    layers: Vec<Named>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Named {
    #[serde(default)]
    media_type: String,
    #[serde(default)]
    artifact_type: String,
    digest: String,
    #[serde(default)]
    annotations: std::collections::BTreeMap<String, String>,
}

impl Registry<'_> {
    /// Checks that the artifact has a signature of cosign by a trusted key.
    ///
    /// # Errors
    /// [`FetchError::Unsigned`] if there is no signature of it, [`FetchError::SignatureUntrusted`] if there are only others.
    pub(crate) fn verify(&mut self, revision: &Revision, trusted: &TrustedKeys) -> Result<(), FetchError> {
        let digest = revision.id.hash();
        let (bundles, simple) = (self.bundles(digest)?, self.simple(digest)?);
        let mut found = 0;
        for (layer, is_bundle) in
            bundles.iter().map(|layer| (layer, true)).chain(simple.iter().map(|layer| (layer, false)))
        {
            let text = match self.document(&format!("blobs/{}", layer.digest), "*/*", SIGNATURE_BYTES) {
                Ok(Some(text)) => text,
                // Anybody who may write to the registry can put this there, and it must not hide a good signature.
                Ok(None) | Err(FetchError::TooLarge(_) | FetchError::WrongBytes { .. }) => continue,
                Err(error) => return Err(error),
            };
            let verdict = match layer.annotations.get(cosign::SIGNATURE) {
                _ if is_bundle => cosign::bundle(&text, digest, trusted),
                Some(signature) => cosign::simple(&text, signature, digest, trusted),
                None => Verdict::Other,
            };
            match verdict {
                Verdict::Valid => return Ok(()),
                Verdict::Untrusted => found += 1,
                Verdict::Other => {}
            }
        }
        let (host, revision) = (self.requests.server.host(), revision.to_string());
        match found {
            0 => Err(FetchError::Unsigned { host, revision }),
            found => Err(FetchError::SignatureUntrusted { host, revision, found }),
        }
    }

    /// The layers of simple signing: cosign writes them to a tag that is made from the digest.
    fn simple(&mut self, digest: &str) -> Result<Vec<Named>, FetchError> {
        let manifest = self.json::<Layers>(&format!("manifests/sha256-{digest}.sig"), MANIFEST)?.unwrap_or_default();
        let of_cosign = manifest.layers.into_iter().filter(|layer| layer.media_type == cosign::SIMPLE_SIGNING);
        Ok(of_cosign.filter(Named::is_sha256).take(SIGNATURES).collect())
    }

    /// The layers of all bundles that refer to the artifact.
    fn bundles(&mut self, digest: &str) -> Result<Vec<Named>, FetchError> {
        let is_bundle = |kind: &str| kind.starts_with(cosign::BUNDLE);
        let mut layers = Vec::new();
        for Named { digest, .. } in self.referrers(digest)? {
            let manifest = self.json::<Layers>(&format!("manifests/{digest}"), MANIFEST)?.unwrap_or_default();
            layers.extend(manifest.layers.into_iter().find(|layer| is_bundle(&layer.media_type) && layer.is_sha256()));
        }
        Ok(layers)
    }

    /// The bundles that refer to the artifact, as the registry lists them, page by page.
    fn referrers(&mut self, digest: &str) -> Result<Vec<Named>, FetchError> {
        // A large list of what the artifact consists of is such a bundle, too.
        let is_attestation =
            |named: &Named| named.annotations.get(cosign::PREDICATE).is_some_and(|is| is != cosign::SIGN);
        let is_wanted = |named: &Named| {
            named.artifact_type.starts_with(cosign::BUNDLE) && named.is_sha256() && !is_attestation(named)
        };
        let (mut all, mut path) = (Vec::new(), format!("referrers/sha256:{digest}"));
        for number in 0..PAGES {
            let Some((page, next)) = self.page(&path, INDEX, MANIFEST_BYTES)? else {
                if number > 0 {
                    break;
                }
                // A registry without this endpoint has a tag with the list.
                let list = self.json::<List>(&format!("manifests/sha256-{digest}"), INDEX)?.unwrap_or_default();
                all.extend(list.manifests.into_iter().filter(is_wanted));
                break;
            };
            let list: List = serde_json::from_slice(&page).unwrap_or_default();
            all.extend(list.manifests.into_iter().filter(is_wanted));
            match next {
                Some(next) if next != path && all.len() < SIGNATURES => path = next,
                _ => break,
            }
        }
        all.truncate(SIGNATURES);
        Ok(all)
    }

    /// A document of the registry. What cannot be read is as good as empty: anybody who may write to the registry can put it there,
    /// and it must not hide a good signature.
    fn json<T: Default + for<'de> Deserialize<'de>>(
        &mut self,
        path: &str,
        accept: &str,
    ) -> Result<Option<T>, FetchError> {
        let document = self.document(path, accept, MANIFEST_BYTES)?;
        Ok(document.map(|document| serde_json::from_slice(&document).unwrap_or_default()))
    }

    /// The bytes at this path; `None` if there is nothing. If the path names the bytes by their digest, they have it.
    fn document(&mut self, path: &str, accept: &str, most: u64) -> Result<Option<Vec<u8>>, FetchError> {
        Ok(self.page(path, accept, most)?.map(|(document, _)| document))
    }

    /// As [`Registry::document`], with the path of the next page if there is one.
    fn page(&mut self, path: &str, accept: &str, most: u64) -> Result<Option<Page>, FetchError> {
        let answer = self.ask(Method::GET, path, accept)?;
        // Some registries refuse an endpoint that they do not know with 400 or 405.
        if matches!(answer.1.status(), StatusCode::NOT_FOUND | StatusCode::BAD_REQUEST | StatusCode::METHOD_NOT_ALLOWED)
        {
            return Ok(None);
        }
        let answer = self.requests.succeeded(answer)?;
        let (is_own, next) = (self.requests.session.is_own(&answer.0), next_page(&answer, path));
        let document = self.requests.read(answer, most)?;
        let named = path.rsplit_once("/sha256:").map(|(_, digest)| digest).filter(|_| !path.starts_with("referrers/"));
        if let Some(expected) = named {
            let found = hex(Sha256::new().chain_update(&document));
            if found != expected {
                let (host, what) = (self.requests.server.host(), "a signature".to_owned());
                return Err(FetchError::WrongBytes {
                    host,
                    what,
                    expected: expected.to_owned(),
                    found: FoundDigest(is_own.then_some(found)),
                });
            }
        }
        Ok(Some((document, next)))
    }
}

impl Named {
    fn is_sha256(&self) -> bool {
        self.digest.strip_prefix("sha256:").is_some_and(is_digest)
    }
}
