//! `gitseal seal`: Secrets with a type that has rules for their values.

use serde_json::json;

use crate::workplace::{Workplace, certificate, key};
use crate::{stderr, stdout};

fn secret(kind: &str, values: serde_json::Value) -> String {
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "web", "namespace": "shop"},
        "type": format!("kubernetes.io/{kind}"), "stringData": values})
    .to_string()
}

#[test]
fn a_certificate_goes_with_its_own_key_only() {
    let here = Workplace::new();
    let (own, other) = (key().to_pem().unwrap(), sealing::PrivateKey::generate(2048).unwrap().to_pem().unwrap());
    let certificate = certificate(-1, 24);
    here.write("a.json", &secret("tls", json!({"tls.crt": certificate, "tls.key": own.as_str()})));
    assert!(stdout(&here.seal(&["a.json"])).contains("SealedSecret"));
    for (crt, private, message) in [
        (certificate.as_str(), other.as_str(), "tls.key is not the private key of the first certificate in tls.crt"),
        ("hunter2", own.as_str(), "tls.crt holds no certificate"),
        (certificate.as_str(), "hunter2", "tls.key holds no private key"),
        (own.as_str(), certificate.as_str(), "tls.crt holds no certificate"),
    ] {
        here.write("a.json", &secret("tls", json!({"tls.crt": crt, "tls.key": private})));
        let output = here.seal(&["a.json"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains("Secret shop/web") && said.contains(message) && said.contains("hint: "), "{said}");
        assert!(!said.contains("hunter2") && !said.contains("PRIVATE KEY-----\n"), "{said}");
        // In a Secret of another type, the same keys have no special meaning.
        here.write(
            "a.json",
            &secret("tls", json!({"tls.crt": crt, "tls.key": private})).replace("kubernetes.io/tls", "Opaque"),
        );
        assert!(stdout(&here.seal(&["a.json"])).contains("SealedSecret"));
    }
}

#[test]
fn a_configuration_of_registries_is_one() {
    let here = Workplace::new();
    let write = |text: &str| here.write("a.json", &secret("dockerconfigjson", json!({".dockerconfigjson": text})));
    write(r#"{"auths": {"registry.example": {"auth": "aHVudGVyMg=="}}}"#);
    assert!(stdout(&here.seal(&["a.json"])).contains("SealedSecret"));
    for wrong in ["hunter2", "{}", r#"{"auths": {}}"#, r#"{"auths": "hunter2"}"#, r#"{"credsStore": "hunter2"}"#] {
        write(wrong);
        let output = here.seal(&["a.json"]);
        let said = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.contains(".dockerconfigjson is not a configuration") && said.contains("kubectl create secret"),
            "{said}"
        );
        assert!(!said.contains("hunter2"), "{said}");
    }
}

#[test]
fn a_namespace_of_the_kubeconfig_is_said() {
    const SAID: &str = "its namespace is that of the kubeconfig's context";
    let here = Workplace::new();
    here.write("kubeconfig", "apiVersion: v1\nkind: Config\ncurrent-context: c\ncontexts: [{name: c, context: {cluster: c, namespace: team}}]\n");
    here.write("a.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {a: b}\n");
    let said = stderr(&here.seal(&["a.yaml", "--kubeconfig", "kubeconfig"]));
    assert!(said.contains("Secret team/db") && said.contains(SAID), "{said}");
    let said = stderr(&here.seal(&["a.yaml", "-n", "team", "--kubeconfig", "kubeconfig"]));
    assert!(!said.contains(SAID), "{said}");
}
