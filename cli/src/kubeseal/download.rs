//! A certificate from a URL, as kubeseal fetches it: redirects are followed, the environment's proxy is used.
//!
//! No credentials are sent: not the cluster's, none of a `.netrc`.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use ureq::tls::{Certificate, RootCerts, TlsConfig};

/// How many hops lead to the certificate at most.
const REDIRECTS: u32 = 10;
/// How long all of it may take. kubeseal waits for ever.
const TIMEOUT: Duration = Duration::from_secs(60);
/// No certificate, not even with its chain, comes near this size.
const LARGEST: u64 = 1 << 20;

/// The body of a successful answer. Blocks.
pub(super) fn download(url: &str) -> anyhow::Result<Vec<u8>> {
    let answer = agent().get(url).call().with_context(|| format!("Get {url:?}"))?;
    let status = answer.status();
    if status != ureq::http::StatusCode::OK {
        bail!("cannot fetch {url:?}: {status}");
    }
    answer.into_body().into_with_config().limit(LARGEST).read_to_vec().with_context(|| format!("Get {url:?}"))
}

fn agent() -> ureq::Agent {
    let trusted = rustls_native_certs::load_native_certs().certs;
    let trusted: Vec<_> = trusted.iter().map(|der| Certificate::from_der(der).to_owned()).collect();
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&trusted))
        .unversioned_rustls_crypto_provider(Arc::new(rustls::crypto::aws_lc_rs::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(REDIRECTS)
        .timeout_global(Some(TIMEOUT))
        .build();
    config.new_agent()
}
