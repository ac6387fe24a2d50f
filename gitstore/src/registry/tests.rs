use super::manifest::{Layer, layer};
use super::*;

#[test]
fn tags_stand_for_versions() {
    for (version, tag) in [("6.5.0", "6.5.0"), ("1.0.0+a.b", "1.0.0_a.b"), ("v1.0.0-rc.1+a", "v1.0.0-rc.1_a")] {
        assert_eq!((tag_of(version).as_str(), version_of(tag).as_str()), (tag, version));
    }
    assert_eq!(version_of("my_tag"), "my_tag");
    for (text, expected) in [
        ("6.5.0", true),
        ("_a", true),
        ("", false),
        (".a", false),
        ("-a", false),
        ("a/b", false),
        ("a:b", false),
        ("a?b", false),
        ("ä", false),
        (&"a".repeat(129), false),
    ] {
        assert_eq!(is_tag(text), expected, "{text}");
    }
}

#[test]
fn the_query_of_a_token_service_is_encoded() {
    assert_eq!(encoded("repository:a/b-c:pull"), "repository:a/b-c:pull");
    assert_eq!(encoded("a&b=c d#ä"), "a%26b%3Dc%20d%23%C3%A4");
}

fn manifest(layers: &[(&str, &str)]) -> Vec<u8> {
    let layers: Vec<_> = layers
        .iter()
        .map(|(kind, digest)| serde_json::json!({"mediaType": kind, "digest": digest, "size": 10}))
        .collect();
    serde_json::json!({"schemaVersion": 2, "layers": layers}).to_string().into_bytes()
}

#[test]
fn the_archive_is_one_of_the_layers() {
    const CHART: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";
    const SIGNATURE: &str = "application/vnd.cncf.helm.chart.provenance.v1.prov";
    const FLUX: &str = "application/vnd.cncf.flux.content.v1.tar+gzip";
    let digest = "4f1c".repeat(16);
    let named = format!("sha256:{digest}");
    let of = |layout| Ok(Layer { digest: digest.clone(), layout });
    assert_eq!(layer(&manifest(&[(SIGNATURE, "sha256:1"), (CHART, &named)])), of(Layout::Chart));
    assert_eq!(layer(&manifest(&[(FLUX, &named)])), of(Layout::Files));
    for (layers, why) in [
        (&[][..], "it has no layer"),
        (&[(FLUX, named.as_str()), (FLUX, &named)], "it has 2 layers"),
        (&[("application/wasm", &named)], "it has 1 layers: application/wasm"),
        (&[(FLUX, "sha512:1234")], "not of SHA-256: sha512:1234"),
        (&[(FLUX, "sha256:../../../x")], "not of SHA-256"),
        (&[(CHART, "")], "not of SHA-256"),
    ] {
        let told = layer(&manifest(layers)).unwrap_err();
        assert!(told.contains(why), "{told}");
    }
    let list = serde_json::json!({"schemaVersion": 2, "manifests": [{"digest": named}]}).to_string();
    assert!(layer(list.as_bytes()).unwrap_err().contains("several platforms"));
    let large = serde_json::json!({"layers": [{"mediaType": FLUX, "digest": named, "size": 1 << 30}]}).to_string();
    assert!(layer(large.as_bytes()).unwrap_err().contains("are allowed"));
    assert!(layer(b"<html>").unwrap_err().contains("cannot be read"));
}
