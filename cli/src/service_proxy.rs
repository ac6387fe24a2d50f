//! Paths of the API server under which the controller's Service is found, and reached without a port of its own.

/// The Service itself.
pub fn service_path(namespace: &str, name: &str) -> String {
    format!("/api/v1/namespaces/{}/services/{}", segment(namespace), segment(name))
}

/// The root of the controller's HTTP endpoints, behind the API server's proxy; `port` is the name of the Service's port,
/// empty for one without a name.
pub fn proxy_path(namespace: &str, name: &str, port: &str) -> String {
    format!("{}/proxy", service_path(namespace, &format!("http:{name}:{port}")))
}

/// A text as one segment of a URL's path.
fn segment(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~' | b':') {
            escaped.push(byte.into());
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_controller_is_reached_by_its_port_s_name() {
        let service = "/api/v1/namespaces/kube-system/services/sealed-secrets-controller";
        assert_eq!(service_path("kube-system", "sealed-secrets-controller"), service);
        let proxy = |port| proxy_path("kube-system", "sealed-secrets-controller", port);
        let root = "/api/v1/namespaces/kube-system/services/http:sealed-secrets-controller";
        assert_eq!(proxy("http"), format!("{root}:http/proxy"));
        assert_eq!(proxy(""), format!("{root}:/proxy"));
    }

    #[test]
    fn names_cannot_leave_their_segment() {
        assert_eq!(service_path("../a", "b?c#d"), "/api/v1/namespaces/..%2Fa/services/b%3Fc%23d");
    }
}
