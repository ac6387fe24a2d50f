//! The certificate to seal with: from a file, a URL, or the controller.
//!
//! Anybody who can replace the certificate can read everything that is sealed with it. So the certificate comes from
//! a file, through the API server of the kubeconfig, or over TLS. Over plain `http://`, it is accepted only if the
//! user allows this, or gives the certificate's fingerprint.

mod download;

use std::{fmt, fs::File, io::Read as _, str::FromStr, time::Duration};

use anyhow::Context;
use sealing::Certificate;
use serde::Deserialize;

pub use self::download::{PlainHttp, download};
use crate::{
    global::Global,
    output::{self, Hint},
    service_proxy::{Patience, ServiceProxy, remedy},
};

/// How long an answer with a certificate may take.
const ANSWER: Duration = Duration::from_secs(30);
/// No certificate is larger than this, not even with its chain.
const LARGEST: u64 = 1 << 20;

/// Environment variable with the fingerprint. kubeseal has no flag for the fingerprint, so if this program is started
/// under the name kubeseal, only this variable sets the fingerprint.
pub const FINGERPRINT: &str = "GITSEAL_CERT_FINGERPRINT";

/// Which certificates are accepted.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct CertificateTrust {
    /// Accept only the certificate with this SHA-256 fingerprint, as `gitseal cert --show` prints it: sha256:…
    #[arg(long, value_name = "FINGERPRINT", env = FINGERPRINT)]
    pub cert_fingerprint: Option<Fingerprint>,

    /// Accept a certificate over plain http://, where anybody on the way can replace it and read what is sealed with it
    #[arg(long)]
    pub allow_http_cert: bool,
}

impl CertificateTrust {
    /// # Errors
    /// The certificate, which came from the place `from`, has another fingerprint than the one that the user gave.
    pub fn check(&self, certificate: &Certificate, from: &str) -> anyhow::Result<()> {
        let Some(fingerprint) = &self.cert_fingerprint else { return Ok(()) };
        fingerprint.check(certificate).with_context(|| format!("{from} is not the expected certificate"))
    }
}

/// SHA-256 of a certificate in DER.
#[derive(Clone, Debug, Deserialize, Eq, Ord, PartialEq, PartialOrd)]
#[serde(try_from = "String")]
pub struct Fingerprint(String);

impl FromStr for Fingerprint {
    type Err = String;

    /// `sha256:` and 64 hexadecimal digits. `sha256:`, and colons between the digits, may be left out.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim().to_ascii_lowercase();
        let digits: String = text.strip_prefix("sha256:").unwrap_or(&text).chars().filter(|c| *c != ':').collect();
        if digits.len() == 64 && digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Ok(Self(digits));
        }
        Err("a fingerprint is `sha256:` and 64 hexadecimal digits".into())
    }
}

impl TryFrom<String> for Fingerprint {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.0)
    }
}

impl Fingerprint {
    /// # Errors
    /// The certificate has another fingerprint than this one.
    pub fn check(&self, certificate: &Certificate) -> anyhow::Result<()> {
        if certificate.fingerprint() == self.0 {
            return Ok(());
        }
        Err(Hint::error(
            format!("the certificate's fingerprint is sha256:{}, and not {self}", certificate.fingerprint()),
            "if the sealing key was renewed, get the new fingerprint, which `gitseal cert --show` prints, from \
            somebody you trust",
        ))
    }
}

/// The certificate to seal with: from a file or URL, or from the controller in the cluster.
///
/// # Errors
/// The certificate cannot be fetched or read, or must not be accepted. An expired certificate is no error: the caller
/// decides whether to use it.
pub async fn fetch(global: &Global, cert: Option<&str>, trust: &CertificateTrust) -> anyhow::Result<Certificate> {
    let (pem, from) = match cert {
        Some(url) if url.starts_with("http://") || url.starts_with("https://") => {
            (from_url(url, trust).await?, url.to_owned())
        }
        Some(file) => {
            // The file name may come from somebody else's repository, and may be that of a device whose content never
            // ends. So at most `LARGEST` bytes are read.
            let mut pem = Vec::new();
            File::open(file)
                .and_then(|file| file.take(LARGEST).read_to_end(&mut pem))
                .with_context(|| format!("cannot read the certificate {file}"))?;
            (pem, file.to_owned())
        }
        None => (
            of_controller(global).await?,
            format!("service {}/{}", global.controller_namespace(), global.controller_name()),
        ),
    };
    let certificate = Certificate::from_pem(&pem).with_context(|| {
        Hint::new(
            format!("{from} holds no usable certificate"),
            "a certificate is PEM text that starts with -----BEGIN CERTIFICATE-----; `gitseal cert` prints that of \
            the cluster",
        )
    })?;
    trust.check(&certificate, &from)?;
    Ok(certificate)
}

/// Whether the URL leads to this machine, for example to a port that is forwarded. Then nobody on the way can replace
/// the answer.
pub fn is_on_this_machine(url: &str) -> bool {
    let Ok(url) = url.parse::<http::Uri>() else { return false };
    if url.scheme().is_none() {
        return false;
    }
    let host = url.host().unwrap_or_default().trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

async fn from_url(url: &str, trust: &CertificateTrust) -> anyhow::Result<Vec<u8>> {
    // If the fingerprint is right, the certificate is the right one, also over plain `http://`.
    let is_fine = trust.allow_http_cert || trust.cert_fingerprint.is_some();
    let plain_http = if is_fine { PlainHttp::Taken } else { PlainHttp::Refused };
    let address = url.to_owned();
    let downloaded = tokio::task::spawn_blocking(move || download(&address, plain_http)).await?;
    let hint = if url.starts_with("http://") && !is_fine {
        "use https://; plain http:// needs --cert-fingerprint, which names the certificate to accept, or \
         --allow-http-cert, which accepts any"
    } else {
        "check the URL, and that this machine reaches it; `gitseal cert` prints the certificate of the cluster"
    };
    let downloaded = downloaded.with_context(|| Hint::new(format!("cannot fetch the certificate from {url}"), hint))?;
    if downloaded.came_over_http && trust.cert_fingerprint.is_none() {
        output::warn(format_args!(
            "the certificate of {url} came over plain http://, so anybody on the way may have replaced it: use \
            https://, or --cert-fingerprint"
        ));
    }
    Ok(downloaded.pem)
}

async fn of_controller(global: &Global) -> anyhow::Result<Vec<u8>> {
    let (namespace, name) = (global.controller_namespace(), global.controller_name());
    let fetched = async {
        let client = global.client_without_retries().await?;
        let proxy = ServiceProxy::find(client, namespace, name, Patience::Time(ANSWER)).await?;
        proxy.get("/v1/cert.pem").await?.body()
    };
    fetched.await.map_err(|error: anyhow::Error| {
        let of_name = "name the controller with --controller-namespace and --controller-name, or seal without a cluster: \
                       --cert FILE-OR-URL";
        let what = format!("cannot fetch the certificate from the controller (service {namespace}/{name})");
        let hint = remedy(&error, of_name);
        error.context(Hint::new(what, hint))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_loopback_address_is_on_this_machine() {
        for url in ["http://127.0.0.1:8080", "http://localhost:8080/", "http://[::1]:8080", "http://127.1.2.3"] {
            assert!(is_on_this_machine(url), "{url}");
        }
        for url in [
            "http://10.0.0.1",
            "http://localhost.example",
            "http://127.0.0.1.example",
            "http://127.0.0.1@example.com/",
            "http://localhost:1@example.com",
            "localhost",
            "",
            "http://[::2]",
        ] {
            assert!(!is_on_this_machine(url), "{url}");
        }
    }

    #[test]
    fn fingerprints_are_read_as_programs_print_them() {
        let digits = "0123456789abcdef".repeat(4);
        let colons = digits.as_bytes().chunks(2).map(|pair| String::from_utf8_lossy(pair).to_uppercase());
        let with_colons = colons.collect::<Vec<_>>().join(":");
        for text in [digits.clone(), format!("sha256:{digits}"), with_colons.clone(), format!("SHA256:{with_colons}")] {
            assert_eq!(text.parse::<Fingerprint>().unwrap().to_string(), format!("sha256:{digits}"), "{text}");
        }
        for text in ["", "sha256:", &digits[1..], &format!("sha1:{digits}"), &"g".repeat(64)] {
            assert!(text.parse::<Fingerprint>().is_err(), "{text}");
        }
    }
}
