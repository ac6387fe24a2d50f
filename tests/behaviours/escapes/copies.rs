//! The victim's SealedSecret is public, so a tenant can copy it and add templates whose result depends on the value. The
//! tenant must not learn anything from this, so nothing may be unsealed before the rights are checked.

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use super::{Case, GITSEAL, SEALED, plane_of_its_own, seal, sealed_secret, unseal_requests};

/// Templates that fail or succeed depending on whether the guess of the value is right.
fn oracles(value: &str, guess: Guess) -> Vec<(&'static str, Value)> {
    let (letter, length) = match guess {
        Guess::Right => (&value[..1], value.len()),
        Guess::Wrong => ("#", value.len() + 1),
    };
    let templates = [
        (
            "a text of fail",
            format!("{{{{ if eq (substr 0 1 .password) \"{letter}\" }}}}{{{{ fail .password }}}}{{{{ end }}}}"),
        ),
        (
            "a line of failure",
            format!("{{{{ if eq (substr 0 1 .password) \"{letter}\" }}}}\n\n{{{{ fail \"\" }}}}{{{{ end }}}}"),
        ),
        ("a division by a length", format!("{{{{ div 1 (sub (len .password) {length}) }}}}")),
        (
            "an output too long",
            format!(
                "{{{{ if eq (len .password) {length} }}}}{{{{ range 99999 }}}}{{{{ repeat 99 $.password }}}}{{{{ end }}}}{{{{ end }}}}"
            ),
        ),
        ("an index out of range", format!("{{{{ index (list 1) (sub (len .password) {length} | int) }}}}")),
    ];
    templates.into_iter().map(|(name, text)| (name, json!({"data": {"guess": text}}))).collect()
}

#[derive(Clone, Copy)]
enum Guess {
    Right,
    Wrong,
}

#[tokio::test]
async fn a_copied_sealed_secret_is_no_oracle() -> Result<()> {
    let (plane, certificate) = plane_of_its_own().await?;
    let case = Case::on(&plane, "escape-copies", &certificate).await?;
    let theirs = case.victim.namespace.clone();
    let copied = json!({"password": case.sealed});
    let before = unseal_requests(&plane).await?;

    // A SealedSecret that the API server refuses is not unsealed, no matter what its template is.
    let of_victim = |annotations: &[&str]| {
        let annotations: Value = annotations.iter().map(|name| ((*name).to_owned(), json!("true"))).collect();
        json!({"namespace": theirs, "annotations": annotations})
    };
    for (index, (name, _)) in oracles(&case.value, Guess::Right).into_iter().enumerate() {
        let escape = format!("copied with the victim's namespace: {name}");
        let mut told = Vec::new();
        for guess in [Guess::Right, Guess::Wrong] {
            let (_, template) = oracles(&case.value, guess).swap_remove(index);
            let text = sealed_secret("db", &of_victim(&[]), &copied, &template);
            told.push(case.is_refused(&escape, &text, "Forbidden").await?);
        }
        ensure!(told[0] == told[1], "{escape}: {told:?}");
    }
    let (_, oracle) = oracles(&case.value, Guess::Right).swap_remove(0);
    for wide in ["sealedsecrets.bitnami.com/namespace-wide", "sealedsecrets.bitnami.com/cluster-wide"] {
        let text = sealed_secret("db", &of_victim(&[wide]), &copied, &oracle);
        case.is_refused("copied with a scope widened", &text, "Forbidden").await?;
        let text = sealed_secret("another", &of_victim(&[wide]), &copied, &oracle);
        case.is_refused("copied under another name with a scope widened", &text, "Forbidden").await?;
    }
    let whole = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "db", "namespace": theirs},
        "spec": {"data": case.sealed, "template": oracle},
    });
    case.is_refused("copied into spec.data", &format!("{whole}\n"), "Forbidden").await?;
    let inner: Value = serde_json::from_str(&sealed_secret("db", &of_victim(&[]), &copied, &oracle))?;
    let nested = json!({"apiVersion": "v1", "kind": "List", "items": [
        {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "harmless"}}, inner,
    ]});
    case.is_refused("copied inside a List", &format!("{nested}\n"), "Forbidden").await?;

    let text = sealed_secret("db", &json!({}), &copied, &oracle);
    let spec = json!({"serviceAccountName": "tenant", "wait": false, "targetNamespace": theirs});
    case.tenant.sync("app", "./app", spec).await?;
    case.is_refused("copied by targetNamespace", &text, "Forbidden").await?;

    // In the tenant's own namespace, this SealedSecret would be unsealed. That is tested below.
    case.tenant.tree.remove("app/bad.yaml")?;
    let revision = case.tenant.publish("without it").await?;
    case.ended(&revision).await?;

    // A Sync from Git without a service account does not get the controller's own rights.
    case.tenant.sync("app", "./app", json!({"serviceAccountName": "tenant", "wait": false})).await?;
    case.tenant.tree.write("inner/all.yaml", sealed_secret("db", &of_victim(&[]), &copied, &oracle))?;
    let inner = json!({
        "apiVersion": GITSEAL, "kind": "Sync", "metadata": {"name": "inner"},
        "spec": {"repository": {"name": "repo"}, "path": "./inner"},
    });
    case.tries("a Sync out of Git without an account", &format!("{inner}\n")).await?;
    case.tenant.is_not_ready("inner", "Forbidden").await?;
    case.is_harmless("a Sync out of Git without an account").await?;
    ensure!(unseal_requests(&plane).await? == before, "a private key was used for what the API server refused");

    // In the tenant's own namespace, the controller tries to unseal the value for that namespace. This fails, so no template
    // is rendered.
    let own = json!({"namespace": case.tenant.namespace});
    let template = json!({"metadata": {"namespace": theirs, "name": "db"}, "data": oracle["data"]});
    let elsewhere = sealed_secret("db", &own, &copied, &template);
    let told =
        case.is_refused("copied with the victim's namespace in the template", &elsewhere, "UnsealFailed").await?;
    ensure!(told.contains("no key could decrypt secret"), "{told}");
    for wide in ["sealedsecrets.bitnami.com/namespace-wide", "sealedsecrets.bitnami.com/cluster-wide"] {
        let metadata = json!({"annotations": {wide: "true"}});
        let text = sealed_secret("db", &metadata, &copied, &oracle);
        let told = case.is_refused("copied into one's own namespace, widened", &text, "UnsealFailed").await?;
        ensure!(told.contains("no key could decrypt secret"), "{told}");
    }
    let mut whole = whole;
    whole["metadata"] = json!({"name": "db"});
    let told = case.is_refused("copied into one's own spec.data", &format!("{whole}\n"), "UnsealFailed").await?;
    ensure!(told.contains("no key could decrypt secret"), "{told}");
    ensure!(unseal_requests(&plane).await? > before, "the metric shows what is unsealed");
    ensure!(case.tenant.get("v1", "Secret", "db").await?.is_none(), "a Secret was made");

    case.victim_goes_on().await
}

/// These values are sealed for the tenant's own namespace. The tenant may have them unsealed, but may not read Secrets,
/// so the messages about its templates must tell nothing about the values.
#[tokio::test]
async fn spec_data_and_templates_end_in_one_way_whatever_the_value_is() -> Result<()> {
    let case = Case::new("escape-blind").await?;
    let certificate = &case.plane.certificate;
    let mut told = Vec::new();
    for plaintext in [
        "no JSON hunter2",
        "{\"hunter2\"",
        "{\"data\": {\"a\": \"hunter2!\"}}",
        "[\"hunter2\"]",
        "{\"kind\": \"hunter2\", \"data\": 7}",
    ] {
        let sealed = seal(certificate, &case.tenant.namespace, "mine", plaintext)?;
        let whole = json!({
            "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "mine"}, "spec": {"data": sealed},
        });
        let message = case.is_refused("a spec.data that is no Secret", &format!("{whole}\n"), "UnsealFailed").await?;
        ensure!(!message.contains("hunter2"), "{message}");
        told.push(message);
    }
    ensure!(told.iter().all(|message| *message == told[0]), "{told:#?}");

    let sealed = json!({"password": seal(certificate, &case.tenant.namespace, "mine", "s3same")?});
    let mut told = Vec::new();
    for (name, template) in oracles("s3same", Guess::Right) {
        if name == "an index out of range" {
            continue;
        }
        let text = sealed_secret("mine", &json!({}), &sealed, &template);
        let message = case.is_refused(&format!("a template that fails: {name}"), &text, "UnsealFailed").await?;
        ensure!(!message.contains("s3same"), "{message}");
        told.push(message);
    }
    ensure!(told.iter().all(|message| *message == told[0]), "{told:#?}");

    let huge = json!({"data": {"a": "x".repeat(900_000), "b": "{{ repeat 40000 .password }}"}});
    let text = sealed_secret("mine", &json!({}), &sealed, &huge);
    let ended = case.tries("a huge template", &text).await?;
    ensure!(ended.reason != "Applied" && ended.message.len() < 4000, "{}: {}", ended.reason, ended.message);
    case.victim_goes_on().await
}
