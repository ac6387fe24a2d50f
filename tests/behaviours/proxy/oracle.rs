//! Published attacks on `/v1/verify` and `/v1/rotate`, which every authenticated user may call. A user who has a
//! SealedSecret of somebody else must learn nothing about its values.

use anyhow::{Context, Result, ensure};
use harness::{eventually, kubernetes, network};
use serde_json::{Value, json};

use super::{Proxied, UNLIMITED, secret};

// `-` does not occur in base64, so no sealed value contains this text by chance.
const PASSWORD: &str = "q-z";
const ALPHABET: &str = "abcdefghijklmnopqrstuvwxyz-0123456789";
const ENDPOINTS: [&str; 2] = ["/v1/verify", "/v1/rotate"];

/// The SealedSecret that the attacker finds in Git, for `default/db`.
fn victim<C>(proxied: &Proxied<C>) -> Result<Value> {
    let plain = secret("db", &[("password", PASSWORD)]).to_string();
    let sealed = proxied.kubeseal(&["--format=json"], &plain)?.is(0, &[])?;
    Ok(serde_json::from_str(&sealed.out)?)
}

/// Tries to guess the value with templates that fail if a guess is right. Returns the part of the value that the endpoint's
/// answers give away.
async fn guessed<C>(proxied: &Proxied<C>, victim: &Value, endpoint: &str) -> Result<String> {
    let mut known = String::new();
    while known.len() < PASSWORD.len() {
        let mut answers = Vec::new();
        for next in ALPHABET.chars() {
            let guess = format!("{known}{next}");
            let mut asked = victim.clone();
            asked["spec"]["template"]["data"] = json!({
                "probe": format!("{{{{ if hasPrefix {guess:?} .password }}}}{{{{ fail \"yes\" }}}}{{{{ end }}}}"),
            });
            let (status, body) = proxied.post(endpoint, &asked).await?;
            ensure!(!body.contains(PASSWORD), "{endpoint} gave the value away: {body}");
            answers.push((next, status));
        }
        let differs = |status| answers.iter().filter(|(_, other)| *other == status).count() == 1;
        match answers.iter().find(|(_, status)| differs(*status)) {
            Some((next, _)) => known.push(*next),
            None => break,
        }
    }
    Ok(known)
}

#[test]
fn a_template_is_no_oracle_in_ours_and_is_one_in_theirs() -> Result<()> {
    network::of_its_own(async || {
        let theirs = Proxied::theirs(&UNLIMITED).await?;
        let sealed = victim(&theirs)?;
        for endpoint in ENDPOINTS {
            assert_eq!(guessed(&theirs, &sealed, endpoint).await?, PASSWORD, "the attack on {endpoint} is none");
        }
        drop(theirs);
        let ours = Proxied::ours(&UNLIMITED).await?;
        let sealed = victim(&ours)?;
        for endpoint in ENDPOINTS.into_iter().chain(["/v1/which"]) {
            assert_eq!(ours.post(endpoint, &sealed).await?.0, 200, "{endpoint} does its work");
            assert_eq!(guessed(&ours, &sealed, endpoint).await?, "", "{endpoint} is an oracle");
        }
        Ok(())
    })
}

/// Copies of the victim's SealedSecret that claim a wider scope than it was sealed for, in every field where a program
/// might read a scope.
fn widened(victim: &Value) -> Vec<Value> {
    let annotations = ["cluster-wide", "namespace-wide"].map(|scope| format!("sealedsecrets.bitnami.com/{scope}"));
    let wider = annotations.map(|annotation| json!({annotation: "true"}));
    let places = ["/spec/template/metadata", "/metadata"];
    let mut all = Vec::new();
    for wider in &wider {
        for place in places {
            let mut sealed = victim.clone();
            sealed.pointer_mut(place).expect("kubeseal writes it")["annotations"] = wider.clone();
            all.push(sealed);
        }
    }
    all
}

#[test]
fn rotating_never_widens_a_scope() -> Result<()> {
    network::of_its_own(async || {
        let ours = Proxied::ours(&UNLIMITED).await?;
        let victim = victim(&ours)?;
        let client = ours.plane.cluster.client().await?;
        // This is the attacker's own namespace.
        kubernetes::apply_cluster_wide(
            &client,
            json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "mallory"}}),
        )
        .await?;
        for (number, asked) in widened(&victim).into_iter().enumerate() {
            let (status, body) = ours.post("/v1/rotate", &asked).await?;
            if status != 200 {
                // The value was sealed with the scope strict, so it cannot be unsealed with another scope.
                ensure!(asked["metadata"]["annotations"].is_object(), "{status}: {body}");
                ensure!(serde_json::from_str::<Value>(&body).is_err() || !body.contains("encryptedData"), "{body}");
                continue;
            }
            let rotated: Value = serde_json::from_str(&body).with_context(|| body.clone())?;
            is_useless(&ours, &rotated, &format!("stolen-{number}")).await?;
        }
        Ok(())
    })
}

/// Checks that the attacker cannot unseal the rotated SealedSecret with any scope.
async fn is_useless<C>(proxied: &Proxied<C>, rotated: &Value, name: &str) -> Result<()> {
    let client = proxied.plane.cluster.client().await?;
    let stolen = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
        "metadata": {"name": name, "annotations": {"sealedsecrets.bitnami.com/cluster-wide": "true"}},
        "spec": {"encryptedData": rotated["spec"]["encryptedData"]},
    });
    kubernetes::apply(&client, "mallory", stolen).await?;
    let sealed = kubernetes::objects(&client, "mallory", "bitnami.com/v1alpha1", "SealedSecret");
    eventually(&format!("SealedSecret {name} to be refused"), || async {
        let found = serde_json::to_value(sealed.get(name).await?)?;
        let synced = &found["status"]["conditions"][0];
        ensure!(synced["status"] == "False", "{synced}");
        Ok(())
    })
    .await?;
    let secrets = kubernetes::objects(&client, "mallory", "v1", "Secret");
    ensure!(secrets.get_opt(name).await?.is_none(), "{name} was unsealed");
    Ok(())
}
