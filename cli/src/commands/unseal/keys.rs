use std::path::{Path, PathBuf};

use manifests::Limits;
use sealing::PrivateKey;
use serde_json::Value;
use zeroize::{Zeroize, Zeroizing};

use crate::commands::seal::read_file;
use crate::edit::decode_base64;
use crate::output::Hint;

const BEGIN: &str = "-----BEGIN ";

/// The private keys of all files, without those that are there twice.
pub(in crate::commands) fn read(files: &[PathBuf]) -> anyhow::Result<Vec<PrivateKey>> {
    let mut keys: Vec<PrivateKey> = Vec::new();
    for file in files {
        let bytes = read_file(file)?;
        for key in keys_of(file, &bytes)? {
            if !keys.iter().any(|known| known.public_key().fingerprint() == key.public_key().fingerprint()) {
                keys.push(key);
            }
        }
    }
    Ok(keys)
}

/// The private keys in a file's bytes: every one of a PEM text, or those of key Secrets in YAML or JSON.
///
/// # Errors
/// There is none, or one of them cannot be used.
pub fn keys_of(file: &Path, bytes: &[u8]) -> anyhow::Result<Vec<PrivateKey>> {
    let name = file.display().to_string();
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(no_keys(&name, "it is not text"));
    };
    let starts_with_pem = text.lines().find(|line| !line.trim().is_empty()).is_some_and(|line| line.starts_with(BEGIN));
    let keys = if starts_with_pem { of_pem(&name, text)? } else { of_secrets(&name, text.as_bytes())? };
    if keys.is_empty() {
        return Err(no_keys(&name, "no private key in it"));
    }
    Ok(keys)
}

fn no_keys(name: &str, why: &str) -> anyhow::Error {
    Hint::error(
        format!("{name} holds no private keys: {why}"),
        "a key file is PEM text, or key Secrets as `kubectl get secret -o yaml` prints them",
    )
}

/// Every private key of a PEM text.
fn of_pem(name: &str, text: &str) -> anyhow::Result<Vec<PrivateKey>> {
    let starts: Vec<usize> = text.match_indices(BEGIN).map(|(at, _)| at).collect();
    let ends = starts.iter().copied().skip(1).chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .map(|(&start, end)| &text[start..end])
        .filter(|block| block.lines().next().is_some_and(|line| line.contains("PRIVATE KEY")))
        .map(|block| {
            PrivateKey::from_pem(block.as_bytes())
                .map_err(|error| anyhow::Error::new(error).context(format!("cannot use a private key of {name}")))
        })
        .collect()
}

/// The `tls.key` of every Secret of a YAML or JSON text.
fn of_secrets(name: &str, bytes: &[u8]) -> anyhow::Result<Vec<PrivateKey>> {
    let found = manifests::parse(name, bytes, &Limits::default())
        .map_err(|error| Hint::error(error.to_string(), error.hint()))?;
    let mut keys = Vec::new();
    for mut manifest in found {
        if manifest.id.kind != "Secret" || !manifest.id.group.is_empty() {
            continue;
        }
        for (field, is_base64) in [("data", true), ("stringData", false)] {
            let Some(Value::String(value)) = manifest.body.get_mut(field).and_then(|data| data.get_mut("tls.key"))
            else {
                continue;
            };
            let value = Zeroizing::new(std::mem::take(value));
            let place = format!("{}: {}", manifest.origin, manifest.id);
            if is_base64 {
                let pem = decode_base64(value.as_bytes());
                let pem = pem.ok_or_else(|| anyhow::anyhow!("{place}: tls.key is not base64"))?;
                keys.extend(of_pem(&place, &String::from_utf8_lossy(pem.expose()))?);
            } else {
                keys.extend(of_pem(&place, &value)?);
            }
        }
        if let Some(Value::String(applied)) = manifest
            .body
            .get_mut("metadata")
            .and_then(|metadata| metadata.get_mut("annotations")?.get_mut(crate::edit::LAST_APPLIED))
        {
            applied.zeroize();
        }
    }
    Ok(keys)
}
