//! SealedSecrets that are meant to do harm. Each is refused with a reason, and the controller keeps working for others.

use std::fmt::Write as _;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::ConditionStatus;
use harness::{Plane, Scene, eventually, kubernetes};
use serde_json::{Map, Value, json};

const SEALED: &str = "bitnami.com/v1alpha1";

fn sealed(name: &str, annotations: Value, spec: Value) -> Value {
    json!({"apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": name, "annotations": annotations}, "spec": spec})
}

/// Waits until the condition `Synced` is `status`, and returns its message.
async fn synced(scene: &Scene, name: &str, status: &str) -> Result<String> {
    eventually(&format!("SealedSecret {name} to be Synced={status}"), || async {
        let sealed = scene.get(SEALED, "SealedSecret", name).await?.context("it is gone")?;
        let (status_, generation) = (&sealed["status"], &sealed["metadata"]["generation"]);
        ensure!(status_["observedGeneration"] == *generation, "not looked at yet");
        let condition = &status_["conditions"][0];
        ensure!(condition["type"] == "Synced" && condition["status"] == status, "{condition}");
        Ok(condition["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// Checks that a SealedSecret is refused: the message contains `texts`, there is no Secret, and another SealedSecret that is
/// created later is unsealed.
async fn refused(scene: &Scene, name: &str, object: Value, texts: &[&str]) -> Result<()> {
    kubernetes::apply(&scene.client, &scene.namespace, object).await?;
    let message = synced(scene, name, "False").await?;
    for text in texts {
        assert!(message.contains(text), "{name}: no {text:?} in: {message}");
    }
    assert!(message.len() < 2000, "{name}: {message}");
    assert!(!message.contains("s3cret"), "{name}: {message}");
    assert_eq!(scene.get("v1", "Secret", name).await?, None, "{name}");
    Ok(())
}

/// Checks that another SealedSecret is unsealed, and that the controller answers.
async fn others_go_on(scene: &Scene, name: &str) -> Result<()> {
    let value = scene.seal(name, b"quiet-value").await?;
    let neighbour = sealed(name, json!({}), json!({"encryptedData": {"a": value}}));
    kubernetes::apply(&scene.client, &scene.namespace, neighbour).await?;
    scene.has("v1", "Secret", name, json!({"data": {"a": STANDARD.encode("quiet-value")}})).await?;
    let plane = Plane::shared().await?;
    let controller = plane.controller.lock().await;
    controller.as_ref().context("a controller")?.fetch("/readyz").await.map(drop)?;
    drop(controller);
    assert!(!plane.log().await.contains("panicked"), "the controller panicked");
    Ok(())
}

/// The value with one bit changed.
fn flipped(value: &str, byte: usize) -> Result<String> {
    let mut bytes = STANDARD.decode(value)?;
    bytes[byte] ^= 1;
    Ok(STANDARD.encode(bytes))
}

#[tokio::test]
async fn values_that_are_broken_or_sealed_for_another_place_are_refused() -> Result<()> {
    let scene = Scene::new("hostile-values").await?;
    let good = scene.seal("x", b"s3cret-value").await?;
    let elsewhere = scene.seal("y", b"s3cret-value").await?;
    let bytes = STANDARD.decode(&good)?.len();
    let cut = |at: usize| STANDARD.encode(&STANDARD.decode(&good).unwrap_or_default()[..at]);
    let large = STANDARD.encode(vec![0xa5; 786_432]);
    let long_head = STANDARD.encode([&[0xff, 0xff][..], &[1; 300]].concat());
    let cases = [
        ("empty", String::new(), "spec.encryptedData.a: "),
        ("text", "plain s3cret".into(), "spec.encryptedData.a: "),
        ("one-byte", cut(1), "spec.encryptedData.a: "),
        ("head-only", cut(2), "spec.encryptedData.a: "),
        ("cut-in-key", cut(200), "spec.encryptedData.a: "),
        ("cut-in-text", cut(bytes - 1), "spec.encryptedData.a: "),
        ("cut-base64", good[..good.len() - 3].into(), "spec.encryptedData.a: "),
        ("flipped-length", flipped(&good, 0)?, "spec.encryptedData.a: "),
        ("flipped-key", flipped(&good, 100)?, "spec.encryptedData.a: no key could decrypt secret"),
        ("flipped-text", flipped(&good, bytes - 20)?, "spec.encryptedData.a: "),
        ("flipped-tag", flipped(&good, bytes - 1)?, "spec.encryptedData.a: "),
        ("long-head", long_head, "spec.encryptedData.a: "),
        ("large", large, "spec.encryptedData.a: "),
        ("other-name", elsewhere, "spec.encryptedData.a: no key could decrypt secret"),
    ];
    for (what, value, text) in cases {
        let object = sealed("x", json!({}), json!({"encryptedData": {"a": value}}));
        refused(&scene, "x", object, &[text]).await.with_context(|| what.to_owned())?;
    }
    // The value is right, but the scope is wrong, or the right scope is only in the template, where it has no effect.
    let wide = "sealedsecrets.bitnami.com/cluster-wide";
    let object = sealed("x", json!({wide: "true"}), json!({"encryptedData": {"a": good}}));
    refused(&scene, "x", object, &["no key could decrypt secret"]).await?;
    let certificate = sealing::Certificate::from_pem(Plane::shared().await?.certificate.as_bytes())?;
    let binding = sealing::Scope::ClusterWide.binding(&scene.namespace, "x", "a");
    let unbound = sealing::seal(&certificate, binding, harness::hunt::known(b"s3cret-value"))?;
    let template = json!({"metadata": {"annotations": {wide: "true"}}});
    let object = sealed("x", json!({wide: null}), json!({"encryptedData": {"a": unbound}, "template": template}));
    refused(&scene, "x", object, &["no key could decrypt secret"]).await?;
    others_go_on(&scene, "neighbour").await
}

/// The message for a template that fails because of the values. This message is always the same, because the real error
/// depends on the values and could reveal them.
const AT_RUN_TIME: &str = "spec.template.data: a template fails with the unsealed values";

/// The message for a template whose error is `text`. The message contains `text` only if the template is wrong whatever
/// the values are.
fn told(text: &str) -> String {
    match text {
        "blocks are nested too deeply"
        | "parentheses are nested too deeply"
        | "the template sets too many variables" => {
            format!("spec.template.data.t: line 1: {text}")
        }
        _ => AT_RUN_TIME.to_owned(),
    }
}

#[tokio::test]
async fn templates_without_end_are_refused() -> Result<()> {
    let scene = Scene::new("hostile-templates").await?;
    let value = scene.seal("x", b"s3cret-value").await?;
    let nested = format!("{}{}", "{{ if true }}".repeat(2000), "{{ end }}".repeat(2000));
    let parentheses = format!("{{{{ {}1{} }}}}", "(".repeat(5000), ")".repeat(5000));
    let variables: String = (0..2000).fold(String::new(), |mut text, number| {
        let _ = write!(text, "{{{{ $v{number} := 1 }}}}");
        text
    });
    let cases: [(&str, &str, &str); 16] = [
        ("loop", "{{ range 999999999 }}{{ end }}", "too many steps"),
        ("loops", "{{ range 99999 }}{{ range 99999 }}{{ end }}{{ end }}", "too many steps"),
        ("list", "{{ range until 999999999 }}{{ end }}", "too many values"),
        ("growth", "{{ range 99999 }}{{ repeat 99 $.a }}{{ end }}", "larger than a Secret can be"),
        ("repeat", "{{ repeat 999999999999 .a }}", "grows too large"),
        ("doubling", "{{ $x := .a }}{{ range 99 }}{{ $x = print $x $x }}{{ end }}", "grows too large"),
        ("indent", "{{ indent 999999999999 .a }}", "grows too large"),
        ("pad", "{{ printf \"%999999d%999999d%999999d\" 1 1 1 }}", "grows too large"),
        ("replace", "{{ replace \"\" (repeat 9999 .a) (repeat 9999 .a) }}", "grows too large"),
        ("itself", "{{ define \"l\" }}{{ template \"l\" }}{{ end }}{{ template \"l\" }}", "too deeply"),
        ("cycle", "{{ $d := dict }}{{ $_ := set $d \"d\" $d }}{{ $d }}", "too deeply"),
        ("nested", &nested, "blocks are nested too deeply"),
        ("parentheses", &parentheses, "parentheses are nested too deeply"),
        ("variables", &variables, "the template sets too many variables"),
        ("hashes", "{{ range 999 }}{{ bcrypt $.a }}{{ end }}", "too many steps"),
        ("regex", "{{ mustRegexMatch \"((a{1000}){1000}){1000}\" .a }}", "malformed or too large"),
    ];
    for (what, template, text) in cases {
        let value = scene.seal(what, b"s3cret-value").await?;
        let spec = json!({"encryptedData": {"a": value}, "template": {"data": {"t": template}}});
        refused(&scene, what, sealed(what, json!({}), spec), &[told(text).as_str()])
            .await
            .with_context(|| what.to_owned())?;
    }
    // The error does not quote the value.
    let spec = json!({"encryptedData": {"a": value}, "template": {"data": {"t": "\n{{ fail .a }}", "u": "{{ .a | mustFromJson }}"}}});
    refused(&scene, "x", sealed("x", json!({}), spec), &[AT_RUN_TIME]).await?;
    others_go_on(&scene, "neighbour").await
}

#[tokio::test]
async fn ten_thousand_keys_are_looked_at_and_told_of_briefly() -> Result<()> {
    let scene = Scene::new("hostile-keys").await?;
    let broken: Map<String, Value> = (0..10_000).map(|number| (format!("key-{number:05}"), "AgAA".into())).collect();
    let object = sealed("x", json!({}), json!({"encryptedData": broken}));
    refused(&scene, "x", object, &["10000 sealed values: a SealedSecret may have at most 2500"]).await?;
    let broken: Map<String, Value> = (0..2500).map(|number| (format!("key-{number:05}"), "AgAA".into())).collect();
    let object = sealed("y", json!({}), json!({"encryptedData": broken}));
    refused(&scene, "y", object, &["spec.encryptedData.key-00000", "and 2480 more"]).await?;
    let texts: Map<String, Value> =
        (0..10_000).map(|number| (format!("key-{number:05}"), "{{ len . }}".into())).collect();
    let spec = json!({"encryptedData": {}, "template": {"data": texts}});
    kubernetes::apply(&scene.client, &scene.namespace, sealed("many", json!({}), spec)).await?;
    let made = scene.has("v1", "Secret", "many", json!({"data": {"key-09999": STANDARD.encode("0")}})).await?;
    assert_eq!(made["data"].as_object().map(Map::len), Some(10_000));
    others_go_on(&scene, "neighbour").await
}

/// Keys that a Secret cannot have. The API server accepts such keys in a SealedSecret, and a file in Git can contain
/// anything.
#[tokio::test]
async fn odd_names_are_refused_wherever_they_come_from() -> Result<()> {
    let scene = Scene::new("hostile-names").await?;
    for (round, key) in ["a b", "../../x", "ключ\u{202e}", "\u{1b}[31m", "a\nb"].into_iter().enumerate() {
        let object = sealed("x", json!({}), json!({"encryptedData": {key: scene.seal("x", b"s3cret-value").await?}}));
        let name = "x";
        kubernetes::apply(&scene.client, &scene.namespace, object).await?;
        let message = synced(&scene, name, "False").await?;
        assert!(!message.contains(['\u{1b}', '\n', '\u{202e}']), "{round}: {message:?}");
        assert_eq!(scene.get("v1", "Secret", name).await?, None, "{round}");
        kubernetes::objects(&scene.client, &scene.namespace, SEALED, "SealedSecret")
            .delete(name, &kube::api::DeleteParams::default())
            .await?;
    }
    // A file in Git can also have a key that is not text, or null or a number in the place of a value.
    let value = scene.seal("x", b"s3cret-value").await?;
    let head = b"apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: x}\nspec:\n  encryptedData:\n";
    let bytes = [&head[..], b"    \xff\xfe: ", value.as_bytes(), b"\n"].concat();
    let null = [&head[..], b"    a: null\n"].concat();
    let number = [&head[..], b"    a: 7\n"].concat();
    for (what, file) in [("bytes", bytes), ("null", null), ("number", number)] {
        scene.tree.write("tenant/x.yaml", &file)?;
        let revision = scene.publish(what).await?;
        scene.sync("tenant", "./tenant", json!({})).await?;
        let attempted = scene
            .sync_when("tenant", &format!("{what} to be refused"), |sync, ready| {
                let status = sync.status.as_ref().unwrap();
                status.last_attempted_revision.as_ref() == Some(&revision) && ready.status == ConditionStatus::False
            })
            .await?;
        let status = attempted.status.unwrap();
        let ready = crds::find_condition(&status.conditions, "Ready").context("no Ready")?;
        assert!(ready.message.contains("tenant/x.yaml"), "{what}: {}", ready.message);
        assert!(!ready.message.contains("s3cret"), "{what}: {}", ready.message);
    }
    others_go_on(&scene, "neighbour").await
}
