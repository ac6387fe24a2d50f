//! Compares whole objects that both controllers made from the same SealedSecret.

use anyhow::{Context, Result, ensure};
use crds::names::{SYNC_NAME, SYNC_NAMESPACE};
use k8s_openapi::api::core::v1::Event;
use serde_json::{Map, Value, json};

use super::side::{SEALED, Side, Theirs};

/// A namespace that our controller serves, and one that the Sealed Secrets controller serves.
pub(super) async fn both(name: &str) -> Result<[Side; 2]> {
    let (ours, theirs) = tokio::join!(Side::ours(name), Side::theirs(name));
    Ok([ours?, theirs?])
}

/// The part of a Secret that must be the same: all fields except those that differ in every object.
pub(super) fn of_secret(mut secret: Value) -> Result<Value> {
    let metadata = secret["metadata"].as_object_mut().context("metadata")?;
    without_own(metadata)?;
    for owner in metadata.get_mut("ownerReferences").and_then(Value::as_array_mut).into_iter().flatten() {
        ensure!(owner["uid"].as_str().is_some_and(|uid| uid.len() == 36), "{owner}");
        owner["uid"] = "its own".into();
    }
    Ok(secret)
}

/// The part of a SealedSecret that must be the same: all fields except the sealed values, those that differ in every object,
/// and the field of the status that only our controller has (`madeFrom`). Also returns the message of its condition.
pub(super) fn of_sealed_secret(mut sealed: Value) -> Result<(Value, String)> {
    let object = sealed.as_object_mut().context("an object")?;
    object.remove("spec");
    without_own(object["metadata"].as_object_mut().context("metadata")?)?;
    let status = object["status"].as_object_mut().context("status")?;
    status.remove("madeFrom");
    let condition = status["conditions"][0].as_object_mut().context("condition")?;
    for time in ["lastUpdateTime", "lastTransitionTime"] {
        let text = condition.insert(time.to_owned(), "a time".into());
        let text = text.as_ref().and_then(Value::as_str).with_context(|| format!("{time}: {condition:?}"))?;
        ensure!(text.len() == 20 && text.ends_with('Z'), "{text}");
    }
    let message = condition.get_mut("message").map(|message| std::mem::replace(message, "a message".into()));
    let message = message.as_ref().and_then(Value::as_str).unwrap_or_default().to_owned();
    Ok((sealed, message))
}

/// The part of an event that must be the same: all fields except those that differ in every object, times and counts. Also
/// returns its message.
pub(super) fn of_event(event: Event) -> Result<(Value, String)> {
    let mut event = serde_json::to_value(event)?;
    let metadata = event["metadata"].as_object_mut().context("metadata")?;
    without_own(metadata)?;
    ensure!(metadata.remove("name").is_some_and(|name| name.is_string()), "{metadata:?}");
    let object = event["involvedObject"].as_object_mut().context("involvedObject")?;
    for own in ["uid", "resourceVersion", "namespace"] {
        ensure!(object.remove(own).is_some_and(|value| value.is_string()), "{own}");
    }
    let event = event.as_object_mut().context("an event")?;
    for time in ["firstTimestamp", "lastTimestamp"] {
        ensure!(event.insert(time.to_owned(), "a time".into()).is_some_and(|time| time.is_string()), "{time}");
    }
    ensure!(event.remove("count").is_some_and(|count| count.as_u64() >= Some(1)), "{event:?}");
    let message = event.remove("message").context("message")?;
    let message = message.as_str().context("message")?.to_owned();
    ensure!(!message.is_empty() && message.len() <= 1024, "{message}");
    Ok((event.clone().into(), message))
}

fn without_own(metadata: &mut Map<String, Value>) -> Result<()> {
    for own in ["uid", "resourceVersion", "creationTimestamp", "managedFields", "namespace"] {
        ensure!(metadata.remove(own).is_some_and(|value| !value.is_null()), "{own}");
    }
    Ok(())
}

/// Checks that both Secrets with this name are the same, and returns our Secret.
pub(super) async fn same_secret(sides: &[Side; 2], name: &str) -> Result<Value> {
    same_secret_but(sides, name, |_| ()).await
}

/// Checks that both Secrets are the same after `better` has changed theirs. `better` makes the changes that only our
/// controller makes. Returns our Secret.
pub(super) async fn same_secret_but(sides: &[Side; 2], name: &str, better: impl Fn(&mut Value)) -> Result<Value> {
    let [ours, theirs] = sides;
    let (our, mut their) = (of_secret(ours.secret(name).await?)?, of_secret(theirs.secret(name).await?)?);
    better(&mut their);
    ensure!(our == their, "Secret {name}: ours {our:#}\ntheirs {their:#}");
    Ok(our)
}

/// Checks that both SealedSecrets with this name are the same, and that `Synced` has this status. Returns both messages,
/// ours first.
pub(super) async fn same_status(sides: &[Side; 2], name: &str, synced: &str) -> Result<[String; 2]> {
    let [ours, theirs] = status(sides, name, [synced; 2]).await?;
    same("SealedSecret", name, [ours, theirs])
}

/// Like [`same_status`], but the status of `Synced` may differ. `synced` has both statuses, ours first.
pub(super) async fn same_but_synced(sides: &[Side; 2], name: &str, synced: [&str; 2]) -> Result<[String; 2]> {
    let mut found = status(sides, name, synced).await?;
    for (sealed, _) in &mut found {
        let condition = sealed["status"]["conditions"][0].as_object_mut().context("condition")?;
        condition.remove("status");
        // A condition with the status True has no message.
        condition.remove("message");
    }
    same("SealedSecret", name, found)
}

/// Like [`same_status`], but our SealedSecret comes from the Sync `app`. This may make a difference only in its labels.
pub(super) async fn same_status_of_a_sync(sides: &[Side; 2], name: &str, synced: &str) -> Result<[String; 2]> {
    let [(mut our, message), theirs] = status(sides, name, [synced; 2]).await?;
    let labels = our["metadata"].as_object_mut().and_then(|metadata| metadata.remove("labels"));
    let of_sync = json!({SYNC_NAME: "app", SYNC_NAMESPACE: sides[0].scene.namespace});
    ensure!(labels == Some(of_sync), "{labels:?}");
    same("SealedSecret", name, [(our, message), theirs])
}

async fn status(sides: &[Side; 2], name: &str, synced: [&str; 2]) -> Result<[(Value, String); 2]> {
    let mut found = Vec::new();
    for ((side, synced), whose) in sides.iter().zip(synced).zip(["ours", "theirs"]) {
        if let Err(error) = side.synced(name, synced).await {
            let [our, their] = [sides[0].state(name).await?, sides[1].state(name).await?];
            let log = log_of(&sides[1], name).await?;
            let state = format!("{name}, {whose}: ours {our:#}\ntheirs {their:#}\ntheir log:\n{log}");
            return Err(error.context(state));
        }
        let sealed = side.scene.get(SEALED, "SealedSecret", name).await?.context("it is there")?;
        found.push(of_sealed_secret(sealed)?);
    }
    found.try_into().ok().context("two")
}

/// What the Sealed Secrets controller logged about this SealedSecret.
async fn log_of(side: &Side, name: &str) -> Result<String> {
    let key = format!("{}/{name}", side.scene.namespace);
    let log = Theirs::shared().await?.controller.log();
    Ok(log.lines().filter(|line| line.contains(&key)).collect::<Vec<_>>().join("\n"))
}

/// Checks that the events with this reason about this SealedSecret are the same. Returns both messages, ours first.
pub(super) async fn same_event(sides: &[Side; 2], name: &str, reason: &str) -> Result<[String; 2]> {
    let mut found = Vec::new();
    for side in sides {
        let event = side.event(name, reason).await?;
        ensure!(event.metadata.namespace.as_ref() == Some(&side.scene.namespace), "{event:?}");
        found.push(of_event(event)?);
    }
    same(&format!("event {reason} of"), name, found.try_into().ok().context("two")?)
}

fn same(what: &str, name: &str, found: [(Value, String); 2]) -> Result<[String; 2]> {
    let [(our, our_message), (their, their_message)] = found;
    ensure!(our == their, "{what} {name}: ours {our:#}\ntheirs {their:#}");
    Ok([our_message, their_message])
}

/// Checks that our message contains the text of theirs, up to the error that their message quotes in brackets.
pub(super) fn says_the_same([our, their]: &[String; 2]) -> Result<()> {
    let words = their.split(" (").next().unwrap_or_default();
    ensure!(our.contains(words), "{our:?} and {their:?}");
    Ok(())
}
