//! The vectors were signed with OpenSSL.

use serde_json::{Value, json};

use super::*;
use crate::FetchError;

fn vectors() -> Value {
    serde_json::from_str(include_str!("../vectors.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn keys(all: &[&Value]) -> Result<TrustedKeys, FetchError> {
    let named: Vec<_> = all.iter().enumerate().map(|(number, key)| (format!("{number}.pub"), text(key))).collect();
    TrustedKeys::from_secret(named.iter().map(|(name, key)| (name.as_str(), key.as_bytes())))
}

fn envelope(kind: &str, payload: &str, signatures: &[&Value]) -> Vec<u8> {
    let signatures: Vec<_> = signatures.iter().map(|signature| json!({"sig": signature, "keyid": ""})).collect();
    let envelope = json!({"payload": STANDARD.encode(payload), "payloadType": kind, "signatures": signatures});
    let bundle = json!({
        "mediaType": "application/vnd.dev.sigstore.bundle.v0.3+json",
        "verificationMaterial": {"publicKey": {"hint": "x"}},
        "dsseEnvelope": envelope,
    });
    bundle.to_string().into_bytes()
}

#[test]
fn signatures_of_every_kind_of_key_are_valid_for_this_key_only() {
    let vectors = vectors();
    let digest = text(&vectors["digest"]);
    let (simple_text, statement) = (text(&vectors["text"]), text(&vectors["statement"]));
    let all = vectors["keys"].as_array().unwrap();
    for signer in all {
        for key in all {
            let trusted = keys(&[&key["publicKey"]]).unwrap();
            let expected = if key == signer { Verdict::Valid } else { Verdict::Untrusted };
            let told = simple(simple_text.as_bytes(), text(&signer["simple"]), digest, &trusted);
            assert_eq!(told, expected, "{} {}", signer["kind"], key["kind"]);
            let told = bundle(&envelope(STATEMENT, statement, &[&signer["bundle"]]), digest, &trusted);
            assert_eq!(told, expected, "{} {}", signer["kind"], key["kind"]);
        }
        // One of several keys, and one of several signatures.
        let trusted = keys(&all.iter().map(|key| &key["publicKey"]).collect::<Vec<_>>()).unwrap();
        let signatures = [&json!("AAAA"), &json!("not base64"), &signer["bundle"]];
        assert_eq!(bundle(&envelope(STATEMENT, statement, &signatures), digest, &trusted), Verdict::Valid);
    }
}

#[test]
fn what_is_about_something_else_or_altered_is_no_signature() {
    let vectors = vectors();
    let digest = text(&vectors["digest"]);
    let (simple_text, statement) = (text(&vectors["text"]), text(&vectors["statement"]));
    let key = &vectors["keys"][0];
    let trusted = keys(&[&key["publicKey"]]).unwrap();
    let (of_text, of_statement) = (text(&key["simple"]), &key["bundle"]);
    let other = "00".repeat(32);
    assert_eq!(simple(simple_text.as_bytes(), of_text, &other, &trusted), Verdict::Other);
    assert_eq!(bundle(&envelope(STATEMENT, statement, &[of_statement]), &other, &trusted), Verdict::Other);

    // A text about another artifact that claims to be about this one.
    let altered = simple_text.replace("charts/hello", "charts/other");
    assert_eq!(simple(altered.as_bytes(), of_text, digest, &trusted), Verdict::Untrusted);
    let altered = statement.replace("\"predicate\":{}", "\"predicate\":{\"a\":1}");
    assert_eq!(bundle(&envelope(STATEMENT, &altered, &[of_statement]), digest, &trusted), Verdict::Untrusted);
    assert_eq!(bundle(&envelope(STATEMENT, statement, &[]), digest, &trusted), Verdict::Untrusted);

    // An attestation is signed by the same key, and says something else.
    let attestation = envelope(STATEMENT, text(&vectors["attestation"]), &[&key["attestation"]]);
    assert_eq!(bundle(&attestation, digest, &trusted), Verdict::Other);
    assert_eq!(bundle(&envelope("text/plain", statement, &[of_statement]), digest, &trusted), Verdict::Other);
    let kind = simple_text.replace("cosign container image signature", "something else");
    assert_eq!(simple(kind.as_bytes(), of_text, digest, &trusted), Verdict::Other);
    for broken in ["", "{}", "[]", "null", "{\"critical\":{}}", "{\"dsseEnvelope\":{\"payload\":\"%\"}}"] {
        assert_eq!(simple(broken.as_bytes(), of_text, digest, &trusted), Verdict::Other, "{broken}");
        assert_eq!(bundle(broken.as_bytes(), digest, &trusted), Verdict::Other, "{broken}");
    }
    assert_eq!(simple(simple_text.as_bytes(), "%%", digest, &trusted), Verdict::Other);
}

#[test]
fn keys_that_cannot_be_used_are_named() {
    let vectors = vectors();
    let good = &vectors["keys"][0]["publicKey"];
    for unusable in vectors["unusable"].as_array().unwrap() {
        let told = keys(&[good, unusable]).err().unwrap().to_string();
        assert!(told.contains("1.pub is a key of another kind than these"), "{told}");
    }
    let private =
        "-----BEGIN ENCRYPTED SIGSTORE PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED SIGSTORE PRIVATE KEY-----\n";
    let told = TrustedKeys::from_secret([("cosign.key", private.as_bytes()), ("cosign.password", b"x")]);
    let told = told.err().unwrap().to_string();
    assert!(told.contains("no entry whose name ends in .pub"), "{told}");
    let told = TrustedKeys::from_secret([("cosign.pub", private.as_bytes())]).err().unwrap().to_string();
    assert!(told.contains("cosign.pub is not a public key in PEM") && !told.contains("AAAA"), "{told}");

    let pair = [("cosign.key", private.as_bytes()), ("cosign.pub", text(good).as_bytes())];
    let (with, without) = (TrustedKeys::from_secret(pair).unwrap(), keys(&[good]).unwrap());
    assert_eq!(with.digest(), without.digest());
    assert_ne!(with.digest(), keys(&[&vectors["keys"][1]["publicKey"]]).unwrap().digest());
}
