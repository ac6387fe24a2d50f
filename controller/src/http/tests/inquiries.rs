use kube::runtime::reflector;
use sealing::{Binding, Certificate, Scope};
use serde_json::{Value, json};

use super::*;
use crate::keys::tests::keyring_of_two;

struct Asked {
    status: u16,
    head: String,
    body: String,
}

impl Asked {
    fn json(&self) -> Value {
        assert_eq!(self.status, 200, "{}", self.body);
        assert!(self.head.contains("content-type: application/json\r\n"), "{}", self.head);
        serde_json::from_str(&self.body).unwrap()
    }
}

struct Endpoints {
    servers: Servers,
    inquiries: Arc<Inquiries>,
    old: Certificate,
    new: Certificate,
}

impl Endpoints {
    async fn start(inquiries: Inquiries) -> Self {
        let (keyring, old, new) = keyring_of_two().await;
        let state = HttpState { inquiries: Arc::new(inquiries), ..state() };
        assert!(state.keyring.set(keyring).is_ok());
        let inquiries = Arc::clone(&state.inquiries);
        let (servers, _) = serving(state).await;
        Self { servers, inquiries, old, new }
    }

    async fn ask_raw(&self, method: &str, path: &str, headers: &str, body: &[u8]) -> Asked {
        let mut stream = TcpStream::connect(self.servers.address).await.unwrap();
        let length = body.len();
        let head = format!(
            "{method} {path} HTTP/1.1\r\nHost: t\r\nConnection: close\r\nContent-Length: {length}\r\n{headers}\r\n"
        );
        stream.write_all(head.as_bytes()).await.unwrap();
        // The server may refuse the request before all of it is sent.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = timeout(LIMIT, stream.read_to_end(&mut answer)).await.expect("it answers");
        let answer = String::from_utf8(answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).unwrap().parse().unwrap();
        Asked { status, head: format!("{head}\r\n"), body: body.into() }
    }

    async fn post(&self, path: &str, object: &Value) -> Asked {
        self.ask_raw("POST", path, "", object.to_string().as_bytes()).await
    }
}

async fn endpoints() -> Endpoints {
    Endpoints::start(Inquiries::new(1000, 1000, true)).await
}

/// The bindings of values of the SealedSecrets `a/b` and `a/c`.
const B: Binding<'static> = Scope::Strict.binding("a", "b", "any");
const C: Binding<'static> = Scope::Strict.binding("a", "c", "any");

fn seal(certificate: &Certificate, binding: Binding<'_>, text: &str) -> String {
    sealing::seal(certificate, binding, text.as_bytes()).unwrap()
}

/// A SealedSecret `a/b` with these values and annotations.
fn sealed_secret(values: Value, annotations: Value) -> Value {
    json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
        "metadata": {"name": "b", "namespace": "a", "annotations": annotations},
        "spec": {"encryptedData": values, "template": {"metadata": {"name": "b", "namespace": "a"}}},
    })
}

fn unsealed(value: &Value, binding: Binding<'_>) -> Option<Vec<u8>> {
    let key = sealing::PrivateKey::from_pem(&crate::keys::tests::vector("rsa-4096.key")).unwrap();
    let plaintext = sealing::unseal([&key], binding, value.as_str().unwrap()).ok()?;
    Some(plaintext.expose().to_vec())
}

#[tokio::test]
async fn verify_tells_whether_every_value_is_unsealed() {
    let endpoints = endpoints().await;
    let (old, new) = (seal(&endpoints.old, B, "1"), seal(&endpoints.new, B, "2"));
    let good = sealed_secret(json!({"old": old, "new": new}), json!({}));
    let answer = endpoints.post("/v1/verify", &good).await;
    assert_eq!((answer.status, answer.body.as_str()), (200, ""));
    let mut moved = good.clone();
    moved["metadata"]["name"] = json!("c");
    let answer = endpoints.post("/v1/verify", &moved).await;
    assert_eq!(answer.status, 409);
    assert!(answer.body.starts_with("spec.encryptedData.new: no key could decrypt secret"), "{}", answer.body);
    for text in ["", "%%", "AAAA"] {
        let broken = sealed_secret(json!({"old": old, "broken": text}), json!({}));
        assert_eq!(endpoints.post("/v1/verify", &broken).await.status, 409, "{text}");
    }
    assert_eq!(endpoints.post("/v1/verify", &sealed_secret(json!({}), json!({}))).await.status, 200);
    let yaml = format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: b, namespace: a}}\nspec: {{encryptedData: {{x: {old}}}}}\n"
    );
    assert_eq!(endpoints.ask_raw("POST", "/v1/verify", "", yaml.as_bytes()).await.status, 200);
}

#[tokio::test]
async fn what_is_no_sealed_secret_is_refused() {
    let endpoints = endpoints().await;
    let good = sealed_secret(json!({}), json!({}));
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "b"}, "data": {"p": "aHVudGVyMg=="}});
    let malformed = sealed_secret(json!({"hunter2": {"hunter2": 1}}), json!({}));
    let two = json!({"apiVersion": "v1", "kind": "List", "items": [good, good]});
    for body in [
        String::new(),
        "{".into(),
        "[]".into(),
        "42".into(),
        "\0".into(),
        secret.to_string(),
        malformed.to_string(),
        two.to_string(),
    ] {
        for path in ["/v1/verify", "/v1/rotate"] {
            let answer = endpoints.ask_raw("POST", path, "", body.as_bytes()).await;
            assert_eq!(answer.status, 400, "{path} {body}");
            assert!(!answer.body.contains("hunter2") && !answer.body.contains("aHVudGVyMg"), "{}", answer.body);
        }
    }
    assert_eq!(endpoints.ask_raw("POST", "/v1/verify", "", &[0xff, 0xfe, 0x00]).await.status, 400);
    assert_eq!(endpoints.ask_raw("GET", "/v1/verify", "", b"").await.status, 405);
}

#[tokio::test]
async fn rotate_seals_again_what_is_not_sealed_with_the_newest_key() {
    let endpoints = endpoints().await;
    let (old, new) = (seal(&endpoints.old, B, "old value"), seal(&endpoints.new, B, "new value"));
    let mut sent = sealed_secret(json!({"z": old, "a": new}), json!({"note": "mine"}));
    sent["metadata"]["labels"] = json!({"app": "x"});
    sent["metadata"]["uid"] = json!("1234");
    sent["status"] = json!({"observedGeneration": 1});
    sent["spec"]["template"] = json!({"type": "Opaque", "data": {"config": "{{ .z }}"}, "unknown": [1]});
    let answer = endpoints.post("/v1/rotate", &sent).await;
    let rotated = answer.json();
    assert!(!answer.body.contains("old value"), "nothing in plaintext");
    assert_eq!(rotated["spec"]["encryptedData"]["a"], json!(new), "byte for byte");
    let z = &rotated["spec"]["encryptedData"]["z"];
    assert_ne!(z, &json!(old));
    assert_eq!(unsealed(z, B).as_deref(), Some(&b"old value"[..]));
    let mut rest = rotated.clone();
    rest["spec"]["encryptedData"]["z"] = json!(old);
    sent["metadata"].as_object_mut().unwrap().remove("uid");
    sent.as_object_mut().unwrap().remove("status");
    assert_eq!(rest, sent, "all else is as it was sent");
    assert!(answer.body.find("\"z\":") < answer.body.find("\"a\":"), "in its order");
    let again = endpoints.post("/v1/rotate", &rotated).await;
    assert_eq!(again.body, answer.body, "there is nothing left to do");
}

#[tokio::test]
async fn rotate_fails_as_in_sealed_secrets() {
    let endpoints = endpoints().await;
    let old = seal(&endpoints.old, B, "old value");
    let mut elsewhere = sealed_secret(json!({"z": old}), json!({}));
    elsewhere["metadata"]["namespace"] = json!("c");
    let answer = endpoints.post("/v1/rotate", &elsewhere).await;
    assert_eq!(answer.status, 500);
    assert!(answer.body.starts_with("spec.encryptedData.z: no key could decrypt secret"), "{}", answer.body);
    let mut nowhere = sealed_secret(json!({"z": old}), json!({}));
    nowhere["metadata"].as_object_mut().unwrap().remove("namespace");
    assert_eq!(endpoints.post("/v1/rotate", &nowhere).await.status, 500);
}

/// CVE-2026-22728: the Sealed Secrets controller sealed values again for the scope in the template's annotations. So
/// anybody could get any value unsealed in any namespace.
#[tokio::test]
async fn cve_2026_22728_template_annotations_widen_no_scope() {
    let endpoints = endpoints().await;
    for scope in [Scope::Strict, Scope::NamespaceWide] {
        let own = scope.annotation().map_or_else(|| json!({}), |annotation| json!({annotation: "true"}));
        let mut sent = sealed_secret(json!({"z": seal(&endpoints.old, Binding { scope, ..B }, "secret")}), own);
        let wider = json!({"sealedsecrets.bitnami.com/cluster-wide": "true", "sealedsecrets.bitnami.com/namespace-wide": "true"});
        sent["spec"]["template"]["metadata"]["annotations"] = wider;
        let rotated = endpoints.post("/v1/rotate", &sent).await.json();
        let value = &rotated["spec"]["encryptedData"]["z"];
        assert_eq!(unsealed(value, Binding { scope, ..B }).as_deref(), Some(&b"secret"[..]), "{scope}");
        let others = [Scope::Strict, Scope::NamespaceWide, Scope::ClusterWide].into_iter();
        for other in others.filter(|other| *other != scope) {
            assert_eq!(unsealed(value, Binding { scope: other, ..B }), None, "{scope}: {other}");
        }
        assert_eq!(rotated["metadata"]["annotations"], sent["metadata"]["annotations"]);
        assert_eq!(endpoints.post("/v1/verify", &sent).await.status, 200);
    }
    // Such annotations also do not help to unseal a value that was sealed for another scope.
    let mut stolen = sealed_secret(
        json!({"z": seal(&endpoints.old, Binding { scope: Scope::ClusterWide, ..B }, "secret")}),
        json!({}),
    );
    stolen["spec"]["template"]["metadata"]["annotations"] = json!({"sealedsecrets.bitnami.com/cluster-wide": "true"});
    assert_eq!(endpoints.post("/v1/verify", &stolen).await.status, 409);
    assert_eq!(endpoints.post("/v1/rotate", &stolen).await.status, 500);
    // The object's own annotations cannot widen the scope, either, because a value is sealed for one name, namespace
    // and scope.
    let annotations = json!({"sealedsecrets.bitnami.com/cluster-wide": "true"});
    let widened = sealed_secret(json!({"z": seal(&endpoints.old, B, "secret")}), annotations);
    assert_eq!(endpoints.post("/v1/rotate", &widened).await.status, 500);
}

/// If a template were rendered with the unsealed values, its failure or its result would reveal something about them.
#[tokio::test]
async fn verify_and_rotate_render_no_template() {
    let endpoints = endpoints().await;
    let value = seal(&endpoints.old, B, "secret");
    let templates = [
        r#"{{ if eq .z "secret" }}{{ fail "yes" }}{{ end }}"#,
        r#"{{ if ne .z "secret" }}{{ fail "no" }}{{ end }}"#,
        "{{ .z }}",
        "{{ no such syntax",
        "{{ range $i := until 1000000000 }}x{{ end }}",
    ];
    for template in templates {
        let mut sent = sealed_secret(json!({"z": value}), json!({}));
        sent["spec"]["template"]["data"] = json!({"guess": template});
        assert_eq!(endpoints.post("/v1/verify", &sent).await.status, 200, "{template}");
        let answer = endpoints.post("/v1/rotate", &sent).await;
        let rotated = answer.json();
        assert_eq!(rotated["spec"]["template"], sent["spec"]["template"], "as it was sent");
        let keys: Vec<_> = rotated["spec"]["encryptedData"].as_object().unwrap().keys().collect();
        assert_eq!(keys, ["z"], "{template}");
    }
    let mut odd = sealed_secret(json!({"z": value}), json!({}));
    odd["spec"]["template"] = json!("not even an object");
    assert_eq!(endpoints.post("/v1/verify", &odd).await.status, 200);
}

#[tokio::test]
async fn the_first_form_is_sealed_again_as_it_is() {
    let endpoints = endpoints().await;
    let mut sent = sealed_secret(json!({}), json!({}));
    sent["spec"] = json!({"data": seal(&endpoints.old, B, "not even a Secret")});
    assert_eq!(endpoints.post("/v1/verify", &sent).await.status, 200);
    let rotated = endpoints.post("/v1/rotate", &sent).await.json();
    assert_eq!(unsealed(&rotated["spec"]["data"], B).as_deref(), Some(&b"not even a Secret"[..]));
    assert!(rotated["spec"].get("encryptedData").is_none());
    sent["spec"]["encryptedData"] = json!({"x": "y"});
    assert_eq!(endpoints.post("/v1/verify", &sent).await.status, 409);
    assert_eq!(endpoints.post("/v1/rotate", &sent).await.status, 500);

    let strict = Endpoints::start(Inquiries::new(1000, 1000, false)).await;
    sent["spec"].as_object_mut().unwrap().remove("encryptedData");
    let answer = strict.post("/v1/verify", &sent).await;
    assert!(answer.status == 409 && answer.body.contains("deprecated"), "{}", answer.body);
    assert_eq!(strict.post("/v1/rotate", &sent).await.status, 500);
}

#[tokio::test]
async fn which_names_the_key_of_each_value() {
    let endpoints = endpoints().await;
    let (old, new) = (endpoints.old.public_key().fingerprint(), endpoints.new.public_key().fingerprint());
    let one = sealed_secret(
        json!({"old": seal(&endpoints.old, B, "1"), "new": seal(&endpoints.new, B, "2"), "no": "AAAA"}),
        json!({}),
    );
    let found = endpoints.post("/v1/which", &one).await.json();
    let values = json!({"new": new, "no": null, "old": old});
    assert_eq!(found, json!({"newest": new, "items": [{"namespace": "a", "name": "b", "values": values}]}));
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [one, one]});
    assert_eq!(endpoints.post("/v1/which", &list).await.json()["items"].as_array().unwrap().len(), 2);
    let mut bare = one.clone();
    bare.as_object_mut().unwrap().retain(|field, _| field == "metadata" || field == "spec");
    let list = json!({"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecretList", "items": [bare]});
    assert_eq!(endpoints.post("/v1/which", &list).await.json()["items"][0]["values"], values);
    let list = json!({"apiVersion": "v1", "kind": "List", "items": [one, {"kind": "Secret", "apiVersion": "v1"}]});
    assert_eq!(endpoints.post("/v1/which", &list).await.status, 400);
}

#[tokio::test]
async fn keys_counts_what_the_cluster_needs_and_asks_once() {
    let endpoints = endpoints().await;
    let answer = endpoints.ask_raw("GET", "/v1/keys", "", b"").await;
    assert_eq!(answer.status, 503);
    assert!(answer.head.contains("retry-after: 1\r\n"), "{}", answer.head);

    let (store, mut writer) = reflector::store();
    let mut put = |name: &str, values: Value| {
        let mut object = sealed_secret(values, json!({}));
        object["metadata"]["name"] = json!(name);
        let object = serde_json::from_value(object).unwrap();
        writer.apply_watcher_event(&kube::runtime::watcher::Event::Apply(object));
    };
    put("b", json!({"1": seal(&endpoints.old, B, "x"), "2": seal(&endpoints.old, B, "y"), "3": "AAAA"}));
    put("c", json!({"1": seal(&endpoints.new, C, "x"), "2": seal(&endpoints.old, C, "y")}));
    endpoints.inquiries.count(store);
    let report = endpoints.ask_raw("GET", "/v1/keys", "", b"").await.json();
    assert_eq!(report["undecryptable"], 1);
    let counts = |report: &Value| -> Vec<_> {
        let text = |key: &Value, field: &str| key[field].to_string();
        let keys = report["keys"].as_array().unwrap();
        keys.iter()
            .map(|key| ["name", "state", "seals", "values", "sealedSecrets"].map(|field| text(key, field)).join(" "))
            .collect()
    };
    let mut found = counts(&report);
    found.sort();
    assert_eq!(found, [r#""new" "active" true 1 1"#, r#""old" "compromised" false 3 2"#]);
    let newest = report["keys"].as_array().unwrap().iter().find(|key| key["name"] == "new").unwrap();
    assert_eq!(newest["fingerprint"], json!(endpoints.new.public_key().fingerprint()));
    assert_eq!(newest["notAfter"], json!(endpoints.new.not_after().to_string()));

    put("c", json!({"1": seal(&endpoints.new, C, "x")}));
    let report = endpoints.ask_raw("GET", "/v1/keys", "", b"").await.json();
    let mut found = counts(&report);
    found.sort();
    assert_eq!(found, [r#""new" "active" true 1 1"#, r#""old" "compromised" false 2 1"#]);
}

#[tokio::test]
async fn who_asks_too_often_waits_and_is_then_refused() {
    let endpoints = Endpoints::start(Inquiries::new(1, 0, true)).await;
    let sent = sealed_secret(json!({}), json!({})).to_string();
    let first = endpoints.ask_raw("POST", "/v1/rotate", "", sent.as_bytes()).await;
    assert_eq!(first.status, 200);
    for header in ["x-ratelimit-limit: 1\r\n", "x-ratelimit-remaining: 0\r\n", "x-ratelimit-reset: 1\r\n"] {
        assert!(first.head.contains(header), "{}", first.head);
    }
    let many = (0..10).map(|_| endpoints.ask_raw("POST", "/v1/rotate", "", sent.as_bytes()));
    let many = futures::future::join_all(many).await;
    let refused: Vec<_> = many.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty() && refused.len() < 10, "some wait, the others come again later");
    assert!(refused.iter().all(|answer| answer.head.contains("retry-after: ") && answer.body == "limit exceeded\n"));
    let other = endpoints.ask_raw("POST", "/v1/rotate", "X-Forwarded-For: 10.0.0.9\r\n", sent.as_bytes()).await;
    assert_eq!(other.status, 200, "another client has a limit of its own");
    let metrics = ask(endpoints.servers.metrics_address, "GET", "/metrics").await;
    let counted = format!(r#"{{path="/v1/rotate",code="429",method="post"}} {}"#, refused.len());
    assert!(metrics.contains(&counted), "{metrics}");
    assert!(
        metrics.contains(r#"http_request_duration_seconds_count{path="/v1/rotate",method="post"} 12"#),
        "{metrics}"
    );
}

#[tokio::test]
async fn requests_are_bounded() {
    let endpoints = endpoints().await;
    let huge = vec![b' '; (8 << 20) + 1];
    assert_eq!(endpoints.ask_raw("POST", "/v1/verify", "", &huge).await.status, 413);
    let mut stream = TcpStream::connect(endpoints.servers.address).await.unwrap();
    let head = "POST /v1/verify HTTP/1.1\r\nHost: t\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut chunk = b"100000\r\n".to_vec();
    chunk.resize(chunk.len() + 0x10_0000, b' ');
    chunk.extend_from_slice(b"\r\n");
    for _ in 0..9 {
        if stream.write_all(&chunk).await.is_err() {
            break;
        }
    }
    let mut answer = [0; 12];
    timeout(LIMIT, stream.read_exact(&mut answer)).await.expect("it answers").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
    let values: serde_json::Map<String, Value> = (0..10_001).map(|key| (key.to_string(), json!("x"))).collect();
    let many = sealed_secret(Value::Object(values), json!({}));
    assert_eq!(endpoints.post("/v1/which", &many).await.status, 413);
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(endpoints.ask_raw("POST", "/v1/verify", "", deep.as_bytes()).await.status, 400);
}

#[tokio::test]
async fn a_request_that_never_arrives_loses_its_place() {
    let timeouts = Timeouts { read: Duration::from_millis(50), ..Timeouts::default() };
    let state = HttpState { timeouts, ..state() };
    assert!(state.keyring.set(keyring_of_vectors().await).is_ok());
    let (servers, _shutdown) = serving(state).await;
    let mut stream = TcpStream::connect(servers.address).await.unwrap();
    let head = "POST /v1/verify HTTP/1.1\r\nHost: t\r\nContent-Length: 100\r\n\r\n{";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    timeout(LIMIT, stream.read_exact(&mut answer)).await.expect("it answers").unwrap();
    assert_eq!(&answer, b"HTTP/1.1 408");
}
