use std::path::{Path, PathBuf};

use sealing::PrivateKey;
use serde_json::Value;
use zeroize::Zeroizing;

use super::documents::documents;
use crate::commands::keys::encryption::{Decryption, is_encrypted};
use crate::commands::seal::read_file;
use crate::edit::decode_base64;
use crate::output::Hint;

const BEGIN: &str = "-----BEGIN ";

/// The private keys of all files, without duplicates. A backup is decrypted as `decryption` says.
pub(in crate::commands) fn read(files: &[PathBuf], decryption: &Decryption) -> anyhow::Result<Vec<PrivateKey>> {
    let mut keys: Vec<PrivateKey> = Vec::new();
    for file in files {
        let bytes = decryption.open(&file.display().to_string(), read_file(file)?)?;
        for key in keys_of(file, &bytes)? {
            if !keys.iter().any(|known| known.public_key().fingerprint() == key.public_key().fingerprint()) {
                keys.push(key);
            }
        }
    }
    Ok(keys)
}

/// The private keys in a file's bytes: all keys of a PEM text, or those of key Secrets in YAML or JSON.
///
/// # Errors
/// There is no private key in the file, or one of its private keys cannot be used.
pub fn keys_of(file: &Path, bytes: &[u8]) -> anyhow::Result<Vec<PrivateKey>> {
    let name = file.display().to_string();
    if is_encrypted(bytes) {
        // As in kubeseal, this error has one line and no hint.
        anyhow::bail!(
            "{name} is an encrypted backup (age): instead of the file, give its decrypted content (in bash: \
             <(age -d -i IDENTITY FILE)), or use gitseal unseal --identity"
        );
    }
    let Ok(text) = std::str::from_utf8(bytes) else {
        return Err(no_keys(&name, "it is not text"));
    };
    // In a YAML or JSON text, the first line of a PEM block is never at the beginning of a line.
    let is_pem = text.lines().any(|line| line.starts_with(BEGIN));
    let keys = if is_pem { of_pem(&name, text)? } else { of_secrets(&name, text.as_bytes())? };
    if keys.is_empty() {
        return Err(no_keys(&name, "it has neither PEM text of a private key nor a Secret with tls.key"));
    }
    Ok(keys)
}

fn no_keys(name: &str, why: &str) -> anyhow::Error {
    Hint::error(
        format!("{name} holds no private keys: {why}"),
        "a key file is PEM text, key Secrets in YAML or JSON as `kubectl get secret -o yaml` prints them, or what `gitseal keys \
         backup` wrote",
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
    let mut keys = Vec::new();
    for mut document in documents(name, bytes)? {
        if !document.is_secret() {
            continue;
        }
        for (field, is_base64) in [("data", true), ("stringData", false)] {
            let Some(Value::String(value)) = document.body.get_mut(field).and_then(|data| data.get_mut("tls.key"))
            else {
                continue;
            };
            let value = Zeroizing::new(std::mem::take(value));
            let place = &document.place;
            if is_base64 {
                let pem = decode_base64(value.as_bytes());
                let pem = pem.ok_or_else(|| anyhow::anyhow!("{place}: tls.key is not base64"))?;
                keys.extend(of_pem(place, &String::from_utf8_lossy(pem.expose()))?);
            } else {
                keys.extend(of_pem(place, &value)?);
            }
        }
        document.wipe_last_applied();
    }
    Ok(keys)
}
