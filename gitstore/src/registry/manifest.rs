//! Reads the manifest of an artifact, and finds the layer that is the archive.

use serde::Deserialize;

use super::place_of;
use crate::archive::{ARCHIVE_BYTES, Layout};
use crate::transport::presentable;
use remotes::is_digest;

/// The types of manifests that are asked for.
pub(super) const TYPES: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
                                application/vnd.docker.distribution.manifest.v2+json";

/// The type of the archive of a chart.
const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
/// How the types of other archives end, for example that of Flux (`application/vnd.cncf.flux.content.v1.tar+gzip`), and that of
/// ORAS (`application/vnd.oci.image.layer.v1.tar+gzip`).
const ARCHIVE: &str = "tar+gzip";
/// How many types of layers an error lists.
const SHOWN: usize = 5;

/// The layer that is the archive.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Layer {
    /// SHA-256, in hex digits.
    pub(super) digest: String,
    pub(super) layout: Layout,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    #[serde(default)]
    layers: Vec<Descriptor>,
    /// An index has these instead of layers.
    #[serde(default)]
    manifests: Vec<serde::de::IgnoredAny>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Descriptor {
    #[serde(default)]
    media_type: String,
    digest: String,
    #[serde(default)]
    size: u64,
}

/// The archive of a manifest, or why there is none.
pub(super) fn layer(manifest: &[u8]) -> Result<Layer, String> {
    let manifest: Manifest = serde_json::from_slice(manifest)
        .map_err(|error| format!("its manifest cannot be read: {}", place_of(&error)))?;
    if !manifest.manifests.is_empty() {
        return Err("it is a list of images for several platforms".to_owned());
    }
    // A signature of the chart may be another layer.
    let chart = manifest.layers.iter().find(|layer| layer.media_type == CHART);
    let (layer, layout) = match (chart, manifest.layers.as_slice()) {
        (Some(chart), _) => (chart, Layout::Chart),
        (None, [only]) if only.media_type.ends_with(ARCHIVE) => (only, Layout::Files),
        (None, []) => return Err("it has no layer".to_owned()),
        (None, layers) => {
            let types: Vec<_> = layers.iter().take(SHOWN).map(|layer| presentable(&layer.media_type)).collect();
            let more = if layers.len() > SHOWN { ", …" } else { "" };
            return Err(format!("it has {} layers: {}{more}", layers.len(), types.join(", ")));
        }
    };
    let digest = layer.digest.strip_prefix("sha256:").filter(|digest| is_digest(digest));
    let digest =
        digest.ok_or_else(|| format!("the digest of its layer is not of SHA-256: {}", presentable(&layer.digest)))?;
    if layer.size > ARCHIVE_BYTES {
        return Err(format!("its archive has {} bytes, but at most {ARCHIVE_BYTES} are allowed", layer.size));
    }
    Ok(Layer { digest: digest.to_owned(), layout })
}
