//! Downloads a certificate from a URL, in the same way for every command: redirects are followed, the environment's
//! proxy is used, and the system's certificate authorities are trusted.
//!
//! No credentials are sent, neither the cluster's nor those of a `.netrc`.

use std::sync::Arc;

use anyhow::{Context, bail};
use ureq::ResponseExt as _;
use ureq::tls::{Certificate, RootCerts, TlsConfig};

use super::{ANSWER, LARGEST};

/// How many redirects are followed at most.
const REDIRECTS: u32 = 10;

/// What to do if the first URL or a redirect uses plain http://, so that anybody on the way could replace the answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PlainHttp {
    /// Plain `http://` is an error.
    Refused,
    /// The answer is accepted.
    Taken,
}

/// The fetched text, and whether it came over plain `http://`.
pub struct Downloaded {
    /// The body of the answer.
    pub pem: Vec<u8>,
    /// Whether one of the URLs was plain `http://`.
    pub came_over_http: bool,
}

/// Downloads `url`, and returns the body of a successful answer. Blocks.
///
/// # Errors
/// The server does not answer in time (kubeseal would wait for ever), or the answer comes over plain `http://` and
/// `plain_http` does not allow that.
pub fn download(url: &str, plain_http: PlainHttp) -> anyhow::Result<Downloaded> {
    let agent = agent(plain_http);
    let answer = agent.get(url).call().map_err(|error| match error {
        ureq::Error::RequireHttpsOnly(at) => {
            anyhow::anyhow!("{at} is plain http://: anybody on the way can replace the certificate")
        }
        error => anyhow::Error::new(error),
    });
    let answer = answer.with_context(|| format!("Get {url:?}"))?;
    let status = answer.status();
    if status != ureq::http::StatusCode::OK {
        bail!("cannot fetch {url:?}: {status}");
    }
    let is_http = |hop: &ureq::http::Uri| hop.scheme_str() == Some("http");
    let came_over_http = url.starts_with("http://")
        || is_http(answer.get_uri())
        || answer.get_redirect_history().unwrap_or_default().iter().any(is_http);
    let pem =
        answer.into_body().into_with_config().limit(LARGEST).read_to_vec().with_context(|| format!("Get {url:?}"))?;
    Ok(Downloaded { pem, came_over_http })
}

fn agent(plain_http: PlainHttp) -> ureq::Agent {
    let trusted = rustls_native_certs::load_native_certs().certs;
    let trusted: Vec<_> = trusted.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&trusted))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .https_only(plain_http == PlainHttp::Refused)
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .save_redirect_history(true)
        .timeout_global(Some(ANSWER))
        .build();
    config.new_agent()
}
