//! Our controller behind the Service.

use anyhow::Result;
use harness::network;

use super::{Proxied, secret};

#[test]
fn kubeseal_and_gitseal_find_our_controller() -> Result<()> {
    network::of_its_own(async || {
        let proxied = Proxied::ours().await?;
        let certificate = proxied.controller.fetch("/v1/cert.pem").await?;
        let theirs = proxied.kubeseal(&["--fetch-cert"], "")?.is(0, &[])?;
        assert_eq!(theirs.out.trim(), certificate.trim());
        let ours = proxied.gitseal(&["cert"], "")?.is(0, &[])?;
        assert_eq!(ours.out.trim(), certificate.trim());

        let by_kubeseal = secret("by-kubeseal", &[("password", "sealed-by-kubeseal")]).to_string();
        let sealed = proxied.kubeseal(&["--format=json"], &by_kubeseal)?.is(0, &[])?;
        proxied.unseals(&sealed.out, "sealed-by-kubeseal").await?;
        let by_gitseal = secret("by-gitseal", &[("password", "sealed-by-gitseal")]).to_string();
        let sealed = proxied.gitseal(&["seal", "--output=json"], &by_gitseal)?.is(0, &[])?;
        proxied.unseals(&sealed.out, "sealed-by-gitseal").await
    })
}
