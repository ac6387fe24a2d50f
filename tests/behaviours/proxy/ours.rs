//! kubeseal and `gitseal` with our controller behind the Service that they look for.

use anyhow::{Context, Result};
use harness::network;
use serde_json::Value;

use super::{Proxied, UNLIMITED, secret};

#[test]
fn kubeseal_and_gitseal_find_our_controller() -> Result<()> {
    network::of_its_own(async || {
        let proxied = Proxied::ours(&[]).await?;
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

#[test]
fn kubeseal_validates_and_seals_again_with_our_controller() -> Result<()> {
    network::of_its_own(async || {
        let proxied = Proxied::ours(&UNLIMITED).await?;
        let plain = secret("db", &[("password", "sealed-twice"), ("username", "admin")]).to_string();
        let sealed = proxied.kubeseal(&["--format=json"], &plain)?.is(0, &[])?.out;
        let said = proxied.kubeseal(&["--validate"], &sealed)?.is(0, &[])?;
        assert_eq!((said.out.as_str(), said.err.as_str()), ("", ""));
        for (what, changed) in [
            ("another name", sealed.replace(r#""name": "db""#, r#""name": "moved""#)),
            ("another namespace", sealed.replace(r#""namespace": "default""#, r#""namespace": "moved""#)),
            (
                "another scope",
                sealed.replace(
                    r#""name": "db","#,
                    r#""name": "db", "annotations": {"sealedsecrets.bitnami.com/cluster-wide": "true"},"#,
                ),
            ),
        ] {
            assert_ne!(changed, sealed, "{what}");
            proxied.kubeseal(&["--validate"], &changed)?.is(1, &["error: unable to decrypt sealed secret: "])?;
            proxied.kubeseal(&["--re-encrypt"], &changed)?.is(1, &["error: cannot re-encrypt secret: "])?;
        }

        // A value that is sealed for the newest key stays as it is. When there is a newer key, the value is sealed again for
        // that key.
        let parsed = |text: &str| serde_json::from_str::<Value>(text).with_context(|| text.to_owned());
        let again = proxied.kubeseal(&["--re-encrypt"], &sealed)?.is(0, &[])?.out;
        assert_eq!(parsed(&again)?, parsed(&sealed)?);
        proxied.gitseal(&["keys", "rotate", "--key-size=2048"], "")?.is(0, &[])?;
        let again = proxied.kubeseal(&["--re-encrypt"], &sealed)?.is(0, &[])?.out;
        let (mut newer, mut older) = (parsed(&again)?, parsed(&sealed)?);
        for key in ["password", "username"] {
            assert_ne!(newer["spec"]["encryptedData"][key].take(), older["spec"]["encryptedData"][key].take(), "{key}");
        }
        assert_eq!(newer, older, "only the values are sealed again");
        for either in [&sealed, &again] {
            proxied.kubeseal(&["--validate"], either)?.is(0, &[])?;
        }
        proxied.unseals(&again, "sealed-twice").await
    })
}
