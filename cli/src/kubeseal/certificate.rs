//! The certificate to seal with: from a file, a URL, or the controller.

use std::io::IsTerminal as _;

use anyhow::{Context, bail};
use jiff::Timestamp;
use sealing::{Certificate, CertificateError, PublicKey};

use super::cluster;
use super::errors::file_error;
use super::flags::Flags;
use crate::certificate::{FINGERPRINT, Fingerprint, PlainHttp, download};
use crate::output::warn;

/// The certificate as PEM text. If the environment variable [`FINGERPRINT`] names a fingerprint, the certificate must
/// have it.
pub(super) async fn fetch(flags: &Flags) -> anyhow::Result<Vec<u8>> {
    let fingerprint = std::env::var(FINGERPRINT).ok().filter(|text| !text.is_empty());
    let fingerprint = fingerprint.map(|text| text.parse::<Fingerprint>()).transpose();
    let fingerprint = fingerprint.map_err(|error| anyhow::anyhow!("${FINGERPRINT}: {error}"))?;
    let pem = find(flags, fingerprint.is_some()).await?;
    if let Some(fingerprint) = fingerprint {
        fingerprint.check(&Certificate::from_pem(&pem)?)?;
    }
    Ok(pem)
}

async fn find(flags: &Flags, is_pinned: bool) -> anyhow::Result<Vec<u8>> {
    let Some(place) = flags.filled("cert") else {
        let answer = cluster::controller(flags).await?.get("/v1/cert.pem").await;
        let answer = answer.context("cannot fetch certificate")?;
        if let Some(failure) = answer.failure() {
            bail!("cannot fetch certificate: {failure}");
        }
        return answer.body();
    };
    match scheme(place) {
        None => std::fs::read(place).map_err(|error| file_error(place, &error)),
        Some("http" | "https") => {
            let address = place.to_owned();
            let downloaded = tokio::task::spawn_blocking(move || download(&address, PlainHttp::Taken)).await??;
            // kubeseal prints no warning here. So that scripts get the same output, only a person at a terminal is
            // warned.
            if downloaded.came_over_http && !is_pinned && std::io::stderr().is_terminal() {
                warn(format_args!(
                    "the certificate came over plain http://, so anybody on the way may have replaced it: use \
                    https://, or name its fingerprint \
                     in ${FINGERPRINT}"
                ));
            }
            Ok(downloaded.pem)
        }
        Some("file") => {
            let file = file_of(place).with_context(|| format!("{place:?} names no file"))?;
            std::fs::read(&file).map_err(|error| file_error(&file, &error))
        }
        Some(scheme) => bail!("Get {place:?}: unsupported protocol scheme {scheme:?}"),
    }
}

/// The key of the first certificate of a PEM text.
///
/// # Errors
/// There is no certificate, or it has expired.
pub(super) fn key(pem: &[u8]) -> anyhow::Result<PublicKey> {
    let certificate = match Certificate::from_pem(pem) {
        Ok(certificate) => certificate,
        Err(CertificateError::Missing) => bail!("data does not contain any valid RSA or ECDSA certificates"),
        Err(error) => return Err(error.into()),
    };
    if certificate.is_expired(Timestamp::now()) {
        let day = certificate.not_after().strftime("%B %-d, %Y");
        bail!("failed to encrypt using an expired certificate on {day}");
    }
    Ok(certificate.public_key().clone())
}

/// The scheme of a URL; `None` for a file name. A single letter before the colon is a drive of Windows, not a scheme.
fn scheme(place: &str) -> Option<&str> {
    let (scheme, _) = place.split_once(':')?;
    let is_scheme = scheme.len() > 1
        && scheme.starts_with(|first: char| first.is_ascii_alphabetic())
        && scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.'));
    is_scheme.then_some(scheme)
}

/// The path of a `file://` URL.
fn file_of(url: &str) -> Option<String> {
    let rest = url.strip_prefix("file://")?;
    let mut bytes = rest[rest.find('/')?..].bytes();
    let mut path = Vec::with_capacity(rest.len());
    while let Some(byte) = bytes.next() {
        path.push(match byte {
            b'%' => u8::from_str_radix(std::str::from_utf8(&[bytes.next()?, bytes.next()?]).ok()?, 16).ok()?,
            byte => byte,
        });
    }
    String::from_utf8(path).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_and_urls_are_told_apart() {
        for file in ["cert.pem", "/a/b:c", "./a", "C:\\cert.pem", ":x", "1a:b"] {
            assert_eq!(scheme(file), None, "{file}");
        }
        assert_eq!(scheme("https://a/b"), Some("https"));
        assert_eq!(scheme("file:///a"), Some("file"));
        assert_eq!(file_of("file:///a%20b/c").unwrap(), "/a b/c");
        assert_eq!(file_of("file://localhost/c").unwrap(), "/c");
        assert_eq!(file_of("file:///a%2"), None);
    }
}
