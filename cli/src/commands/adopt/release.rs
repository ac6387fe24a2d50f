//! Releases as Helm stores them.
//!
//! Helm keeps each revision of a release in a Secret of the type `helm.sh/release.v1`, with the labels `owner=helm`,
//! `name`, `status` and `version`. The value of the Secret's key `release` is base64 of the gzip of JSON, as the
//! storage driver of Helm 3 and 4 writes it.

use std::io::Read as _;

use anyhow::{Context as _, anyhow};
use flate2::read::GzDecoder;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt as _, api::ListParams};
use manifests::{Limits, Manifest, parse};
use serde::Deserialize;
use serde_json::Value;
use zeroize::Zeroizing;

use crate::{
    edit::{decode_base64, wipe},
    output::Hint,
};

/// A release that is installed. Its values and objects may be secret, and are wiped when it is dropped.
pub(super) struct Release {
    /// The number of the revision.
    pub(super) revision: u64,
    /// Name and version of the chart.
    pub(super) chart: String,
    /// The values that were given when the release was installed.
    pub(super) values: Value,
    /// Its objects, without hooks.
    pub(super) objects: Vec<Manifest>,
}

impl Drop for Release {
    fn drop(&mut self) {
        wipe(&mut self.values);
        for object in &mut self.objects {
            object.body.values_mut().for_each(wipe);
        }
    }
}

#[derive(Deserialize)]
struct Stored {
    version: u64,
    chart: StoredChart,
    #[serde(default)]
    config: Value,
    #[serde(default)]
    manifest: String,
}

#[derive(Deserialize)]
struct StoredChart {
    metadata: ChartMetadata,
}

#[derive(Deserialize)]
struct ChartMetadata {
    name: String,
    version: String,
}

/// How large an unpacked release may be. A compressed release is at most 1 MiB, because Kubernetes limits its Secret
/// to this size.
const MOST_BYTES: u64 = 64 << 20;

/// Why the revisions of a release are not known.
pub(super) enum Unknown {
    /// There are none.
    NotThere(anyhow::Error),
    /// The Secrets cannot be read.
    NotRead(anyhow::Error),
}

impl From<Unknown> for anyhow::Error {
    fn from(unknown: Unknown) -> Self {
        match unknown {
            Unknown::NotThere(error) | Unknown::NotRead(error) => error,
        }
    }
}

/// The Secrets of all revisions of a release, newest first.
///
/// # Errors
/// The Secrets cannot be read, or there are none.
pub(super) async fn revisions(client: &Client, namespace: &str, name: &str) -> Result<Vec<Secret>, Unknown> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let wanted = ListParams::default().labels(&format!("owner=helm,name={name}"));
    let list = api.list(&wanted).await;
    let list = list.with_context(|| format!("cannot read the Secrets of the release {namespace}/{name}"));
    let mut found = list.map_err(Unknown::NotRead)?.items;
    found.retain(|secret| secret.type_.as_deref() == Some("helm.sh/release.v1"));
    found.sort_by_key(|secret| std::cmp::Reverse(number(secret)));
    if found.is_empty() {
        return Err(Unknown::NotThere(Hint::error(
            format!("there is no Helm release {name} in the namespace {namespace}"),
            "`helm list -A` shows all releases; -n chooses the namespace",
        )));
    }
    Ok(found)
}

fn number(secret: &Secret) -> u64 {
    secret.labels().get("version").and_then(|version| version.parse().ok()).unwrap_or_default()
}

/// The revision that is installed.
///
/// # Errors
/// No revision is installed, or its Secret does not have the form that Helm writes.
pub(super) fn deployed(revisions: &[Secret], name: &str) -> anyhow::Result<Release> {
    let status = |secret: &&Secret| secret.labels().get("status").map(String::as_str) == Some("deployed");
    let Some(secret) = revisions.iter().find(status) else {
        return Err(Hint::error(
            format!("no revision of the release {name} has the status deployed"),
            "`helm history` shows the revisions; finish or roll back a pending one, and try again",
        ));
    };
    let stored = secret.data.as_ref().and_then(|data| data.get("release"));
    let stored = stored.with_context(|| format!("the Secret {} has no key 'release'", secret.name_any()))?;
    // The error of the parser is dropped, because it could quote a value.
    read(&stored.0)
        .ok_or_else(|| anyhow!("the Secret {} does not contain a release in Helm's format", secret.name_any()))
}

fn read(stored: &[u8]) -> Option<Release> {
    let compressed = decode_base64(stored)?;
    let mut json = Zeroizing::new(Vec::with_capacity(4 << 20));
    GzDecoder::new(compressed.expose()).take(MOST_BYTES).read_to_end(&mut json).ok()?;
    let Stored { version, chart, mut config, manifest } = serde_json::from_slice(&json).ok()?;
    let manifest = Zeroizing::new(manifest);
    let Ok(objects) = parse("the release", manifest.as_bytes(), &Limits::default()) else {
        wipe(&mut config);
        return None;
    };
    let chart = format!("{}-{}", chart.metadata.name, chart.metadata.version);
    Some(Release { revision: version, chart, values: config, objects })
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use flate2::{Compression, write::GzEncoder};
    use serde_json::json;

    use super::*;

    fn stored(json: &Value) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(json.to_string().as_bytes()).unwrap();
        STANDARD.encode(encoder.finish().unwrap()).into_bytes()
    }

    #[test]
    fn a_release_is_read_as_helm_stores_it() {
        let release = read(&stored(&json!({
            "name": "shop", "namespace": "shop", "version": 3, "info": {"status": "deployed"},
            "chart": {"metadata": {"name": "shop", "version": "1.2.0"}, "templates": []},
            "config": {"replicas": 2},
            "manifest": "---\n# Source: shop/templates/a.yaml\napiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: a\n",
        })))
        .unwrap();
        assert_eq!((release.revision, release.chart.as_str()), (3, "shop-1.2.0"));
        assert_eq!(release.values, json!({"replicas": 2}));
        assert_eq!(release.objects[0].id.name, "a");
        let empty =
            read(&stored(&json!({"version": 1, "chart": {"metadata": {"name": "a", "version": "1"}}}))).unwrap();
        assert!(empty.values.is_null() && empty.objects.is_empty());
    }

    #[test]
    fn what_is_not_a_release_is_refused() {
        for bytes in [&b""[..], b"not base64!", b"bm90IGd6aXA=", &stored(&json!({"version": 1})), &stored(&json!(null))]
        {
            assert!(read(bytes).is_none());
        }
        let broken = json!({"version": 1, "chart": {"metadata": {"name": "a", "version": "1"}}, "manifest": "a: [b"});
        assert!(read(&stored(&broken)).is_none());
    }
}
