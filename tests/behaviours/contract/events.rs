//! Events, compared with those of the other controller.

use anyhow::{Result, ensure};
use sealing::Scope;
use serde_json::json;

use super::whole::{both, same_event};

#[tokio::test]
async fn events_are_those_of_the_other_controller() -> Result<()> {
    let sides = both("events").await?;
    for side in &sides {
        side.put("good", &[("a", "one")], json!({})).await?;
        let mut bad = side.sealed("bad", &[], json!({}))?;
        bad["spec"]["encryptedData"]["a"] = side.seal_for(Scope::Strict, "elsewhere", "x")?.into();
        side.apply(bad).await?;
        side.create_secret("foreign", json!({})).await?;
        side.put("foreign", &[("a", "one")], json!({})).await?;
        side.put("immutable", &[("a", "one")], json!({"immutable": true})).await?;
        side.synced("immutable", "True").await?;
        side.put("immutable", &[("a", "two")], json!({"immutable": true})).await?;
    }
    for (name, reason, words) in [
        ("good", "Unsealed", &["SealedSecret unsealed successfully"][..]),
        ("bad", "ErrUnsealFailed", &["Failed to unseal: ", "no key could decrypt secret"]),
        ("foreign", "ErrUpdateFailed", &["Resource \"foreign\" already exists and is not managed by SealedSecret"]),
        ("immutable", "ErrUpdateFailed", &["the target Secret is immutable"]),
    ] {
        for message in same_event(&sides, name, reason).await? {
            for words in words {
                ensure!(message.contains(words), "no {words:?} in {message:?}");
            }
        }
    }
    let source = sides[0].event("good", "Unsealed").await?.source;
    assert_eq!(serde_json::to_value(source)?, json!({"component": "sealed-secrets"}));
    Ok(())
}
