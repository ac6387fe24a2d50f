//! Events, compared with those of the other controller.

use anyhow::{Context, Result};
use k8s_openapi::api::core::v1::Event;
use sealing::Scope;
use serde_json::{Value, json};

use super::side::Side;

/// What people and programs look for in an event.
fn comparable(event: Event, namespace: &str) -> Result<Value> {
    let mut event = serde_json::to_value(event)?;
    assert_eq!(event["metadata"]["namespace"], namespace);
    let message = event["message"].as_str().context("message")?;
    assert!(!message.is_empty() && message.len() <= 1024);
    for time in ["firstTimestamp", "lastTimestamp"] {
        assert!(event[time].is_string(), "{time}: {event}");
    }
    assert!(event["eventTime"].is_null(), "{event}");
    let object = event["involvedObject"].as_object_mut().context("involvedObject")?;
    for own in ["uid", "resourceVersion", "namespace"] {
        assert!(object.remove(own).is_some_and(|value| value.is_string()), "{own}");
    }
    let fields = ["involvedObject", "reason", "source", "type", "reportingComponent"];
    Ok(fields
        .iter()
        .map(|field| ((*field).to_owned(), event[*field].clone()))
        .collect::<serde_json::Map<_, _>>()
        .into())
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
        let mut events = Vec::new();
        for (name, reason) in [("good", "Unsealed"), ("bad", "ErrUnsealFailed"), ("foreign", "ErrUpdateFailed")] {
            events.push(comparable(side.event(name, reason).await?, &side.scene.namespace)?);
        }
        all.push(events);
    }
    assert_eq!(all[0], all[1]);
    assert_eq!(all[0][0]["source"], json!({"component": "sealed-secrets"}));
    Ok(())
}
