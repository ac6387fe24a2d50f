//! Kubeconfig files.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::json;

use crate::pki::Pair;

/// A kubeconfig that contains the certificates and the key, so that it can be copied anywhere. It is JSON, which is also
/// valid YAML.
pub(crate) fn render(url: &str, authority: &str, user: &str, pair: &Pair) -> String {
    let name = "localcluster";
    let config = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": name, "cluster": {
            "server": url,
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{"name": user, "user": {
            "client-certificate-data": STANDARD.encode(&pair.certificate),
            "client-key-data": STANDARD.encode(&pair.key),
        }}],
        "contexts": [{"name": name, "context": {"cluster": name, "user": user, "namespace": "default"}}],
        "current-context": name,
    });
    format!("{config:#}\n")
}
