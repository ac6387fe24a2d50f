//! Requests to the controller: to check whether it can unseal SealedSecrets, and to seal their values again.

use anyhow::{Context, bail};
use http::StatusCode;
use serde_json::{Map, Value};

use super::cluster;
use super::flags::Flags;
use super::output::Format;
use super::{API_VERSION, KIND, read, shape};

/// Asks whether the controller can unseal every SealedSecret of an input.
pub(super) async fn validate(flags: &Flags, input: &str, bytes: &[u8]) -> anyhow::Result<()> {
    let controller = cluster::controller(flags).await?;
    for sealed in sealed_secrets(input, bytes).context("unable to decrypt sealed secret")? {
        let answer = controller.post("/v1/verify", Value::Object(sealed.clone()).to_string().as_bytes()).await;
        let answer = answer.context("cannot validate sealed secret")?;
        if answer.status == StatusCode::CONFLICT {
            bail!("unable to decrypt sealed secret: {}", sealed["metadata"]["name"].as_str().unwrap_or_default());
        }
        if let Some(failure) = answer.failure() {
            bail!("cannot validate sealed secret: {failure}");
        }
    }
    Ok(())
}

/// The SealedSecrets of an input, sealed again by the controller, as text.
pub(super) async fn re_encrypt(flags: &Flags, input: &str, bytes: &[u8], format: &str) -> anyhow::Result<String> {
    let controller = cluster::controller(flags).await?;
    let mut text = String::new();
    for sealed in sealed_secrets(input, bytes)? {
        let answer = controller.post("/v1/rotate", Value::Object(sealed).to_string().as_bytes()).await;
        let answer = answer.context("cannot re-encrypt secret")?;
        if answer.status == StatusCode::CONFLICT {
            bail!("unable to rotate secret");
        }
        if let Some(failure) = answer.failure() {
            bail!("cannot re-encrypt secret: {failure}");
        }
        let rotated: Map<String, Value> =
            serde_json::from_slice(&answer.body()?).context("the controller's answer is not a JSON object")?;
        Format::of(format)?.write(&mut text, &without_server_fields(rotated)?)?;
    }
    Ok(text)
}

/// The SealedSecrets of an input. As in kubeseal, the kind is not checked here, because the controller checks it.
fn sealed_secrets(input: &str, bytes: &[u8]) -> anyhow::Result<Vec<Map<String, Value>>> {
    let objects = read::objects(input, bytes)?;
    objects.into_iter().map(|mut body| Ok(shape::sealed_secret(std::mem::take(&mut body.0))?)).collect()
}

fn without_server_fields(mut sealed: Map<String, Value>) -> anyhow::Result<Map<String, Value>> {
    if let Some(Value::Object(metadata)) = sealed.get_mut("metadata") {
        for field in ["creationTimestamp", "deletionTimestamp", "generation"] {
            metadata.shift_remove(field);
        }
    }
    sealed.insert("kind".to_owned(), KIND.into());
    sealed.insert("apiVersion".to_owned(), API_VERSION.into());
    Ok(shape::sealed_secret(sealed)?)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_controller_sealed_is_printed_without_its_server_s_fields() {
        let rotated = json!({
            "metadata": {"name": "db", "generation": 3, "creationTimestamp": "2020-01-01T00:00:00Z", "uid": "u"},
            "spec": {"encryptedData": {"a": "Ag"}, "template": {"metadata": {"creationTimestamp": null}}},
        });
        let body = without_server_fields(rotated.as_object().unwrap().clone()).unwrap();
        let expected = r#"{"kind":"SealedSecret","apiVersion":"bitnami.com/v1alpha1","metadata":{"name":"db","uid":"u"},"spec":{"template":{"metadata":{}},"encryptedData":{"a":"Ag"}}}"#;
        assert_eq!(Value::Object(body).to_string(), expected);
    }
}
