//! Events, compared with those of the other controller.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Event;
use sealing::Scope;
use serde_json::{Value, json};

use super::side::Side;

/// Everything of an event but what every object has of its own, times and counts; and its message.
fn comparable(event: Event, namespace: &str) -> Result<(Value, String)> {
    let mut event = serde_json::to_value(event)?;
    let metadata = event["metadata"].as_object_mut().context("metadata")?;
    assert_eq!(metadata["namespace"], namespace);
    for own in ["name", "namespace", "uid", "resourceVersion", "creationTimestamp", "managedFields"] {
        assert!(metadata.remove(own).is_some_and(|value| !value.is_null()), "{own}");
    }
    let object = event["involvedObject"].as_object_mut().context("involvedObject")?;
    for own in ["uid", "resourceVersion", "namespace"] {
        assert!(object.remove(own).is_some_and(|value| value.is_string()), "{own}");
    }
    let event = event.as_object_mut().context("an event")?;
    for time in ["firstTimestamp", "lastTimestamp"] {
        assert!(event.insert(time.to_owned(), "a time".into()).is_some_and(|time| time.is_string()), "{time}");
    }
    assert!(event.remove("count").is_some_and(|count| count.as_u64() >= Some(1)), "{event:?}");
    let message = event.remove("message").context("message")?;
    let message = message.as_str().context("message")?.to_owned();
    assert!(!message.is_empty() && message.len() <= 1024);
    Ok((event.clone().into(), message))
}

#[tokio::test]
async fn events_are_those_of_the_other_controller() -> Result<()> {
    let mut all = Vec::new();
    for side in [Side::ours("events").await?, Side::theirs("events").await?] {
        side.put("good", &[("a", "one")], json!({})).await?;
        let mut bad = side.sealed("bad", &[], json!({}))?;
        bad["spec"]["encryptedData"]["a"] = side.seal_for(Scope::Strict, "elsewhere", "x")?.into();
        side.apply(bad).await?;
        side.create_secret("foreign", json!({})).await?;
        side.put("foreign", &[("a", "one")], json!({})).await?;
        side.put("immutable", &[("a", "one")], json!({"immutable": true})).await?;
        side.synced("immutable", "True").await?;
        side.put("immutable", &[("a", "two")], json!({"immutable": true})).await?;
        let mut events = Vec::new();
        for (name, reason) in [
            ("good", "Unsealed"),
            ("bad", "ErrUnsealFailed"),
            ("foreign", "ErrUpdateFailed"),
            ("immutable", "ErrUpdateFailed"),
        ] {
            events.push(comparable(side.event(name, reason).await?, &side.scene.namespace)?);
        }
        all.push(events);
    }
    let words = [
        "SealedSecret unsealed successfully",
        "Failed to unseal: ",
        "Resource \"foreign\" already exists and is not managed by SealedSecret",
        "the target Secret is immutable",
    ];
    for (index, words) in words.into_iter().enumerate() {
        let [(our, our_message), (their, their_message)] = [&all[0][index], &all[1][index]];
        assert_eq!(our, their);
        for message in [our_message, their_message] {
            assert!(message.contains(words), "no {words:?} in {message:?}");
        }
    }
    for events in &all {
        assert!(events[1].1.contains("no key could decrypt secret"), "{events:?}");
    }
    assert_eq!(all[0][0].0["source"], json!({"component": "sealed-secrets"}));
    Ok(())
}
