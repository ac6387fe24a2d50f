//! Compares our events with those of the Sealed Secrets controller.

use anyhow::{Result, ensure};
use sealing::Scope;
use serde_json::json;

use super::{
    side::one_more_is_served,
    whole::{both, same_event},
};

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
        side.synced("immutable", "False").await?;
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
    // There are no other events, and no others are still to come: a SealedSecret that is created afterwards already
    // has its own events.
    let (unsealed, not_written) = (("Normal", "Unsealed"), ("Warning", "ErrUpdateFailed"));
    for side in &sides {
        one_more_is_served(side, "later").await?;
        for (name, events) in [
            ("later", &[unsealed][..]),
            ("good", &[unsealed]),
            ("bad", &[("Warning", "ErrUnsealFailed")]),
            ("foreign", &[not_written]),
            ("immutable", &[unsealed, not_written]),
        ] {
            side.events(name, events).await?;
        }
    }
    let source = sides[0].event("good", "Unsealed").await?.source;
    assert_eq!(serde_json::to_value(source)?, json!({"component": "sealed-secrets"}));
    Ok(())
}

/// Our controller has one more event: for a Secret that somebody changed or deleted.
#[tokio::test]
async fn only_drift_is_told_besides() -> Result<()> {
    let sides = both("events-drift").await?;
    for side in &sides {
        side.put("db", &[("a", "one")], json!({})).await?;
        side.synced("db", "True").await?;
        let before = side.has("db", &[("a", "one")]).await?;
        side.delete_secret("db").await?;
        let after = side.has("db", &[("a", "one")]).await?;
        ensure!(after["metadata"]["uid"] != before["metadata"]["uid"], "it is made again");
    }
    let [ours, theirs] = &sides;
    for side in &sides {
        one_more_is_served(side, "later").await?;
        side.events("later", &[("Normal", "Unsealed")]).await?;
    }
    ours.events("db", &[("Normal", "Unsealed"), ("Warning", "Drifted")]).await?;
    theirs.events("db", &[("Normal", "Unsealed")]).await
}
