//! Tests in which the real Sealed Secrets controller is behind the Service that the proxy leads to.

use anyhow::Result;
use harness::network;

use super::{Proxied, secret};

#[test]
fn gitseal_finds_the_sealed_secrets_controller() -> Result<()> {
    network::of_its_own(async || {
        let proxied = Proxied::theirs(&[]).await?;
        let certificate = proxied.gitseal(&["cert"], "")?.is(0, &[])?;
        assert_eq!(certificate.out.trim(), proxied.controller.certificate().trim());
        let plain = secret("by-gitseal", &[("password", "sealed-by-gitseal")]).to_string();
        let sealed = proxied.gitseal(&["seal", "--output=json"], &plain)?.is(0, &[])?;
        proxied.unseals(&sealed.out, "sealed-by-gitseal").await
    })
}
