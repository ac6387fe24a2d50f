//! The condition `Synced`: it has the same fields as that of the Sealed Secrets controller, and it is never wrong.

use anyhow::{Context, Result, ensure};
use axum::http::{Request, header};
use crds::names::MANAGED;
use harness::{Scene, eventually};
use k8s_openapi::api::core::v1::Secret;
use kube::client::Body;
use sealing::Scope;
use serde_json::{Value, json};

use super::{
    side::{SEALED, Side, data},
    whole::{both, same_status, says_the_same},
};
use crate::objects;

async fn put_good_and_bad(side: &Side) -> Result<()> {
    side.put("good", &[("a", "one")], json!({})).await?;
    let mut bad = side.sealed("bad", &[], json!({}))?;
    bad["spec"]["encryptedData"]["a"] = side.seal_for(Scope::Strict, "elsewhere", "x")?.into();
    side.apply(bad).await?;
    side.synced("good", "True").await?;
    side.synced("bad", "False").await.map(drop)
}

#[tokio::test]
async fn the_status_is_theirs() -> Result<()> {
    let sides = both("status").await?;
    for side in &sides {
        put_good_and_bad(side).await?;
    }
    for (name, synced) in [("good", "True"), ("bad", "False")] {
        says_the_same(&same_status(&sides, name, synced).await?)?;
    }
    let [ours, _] = &sides;
    // `lastTransitionTime` changes only if the status of the condition changes.
    let before = ours.synced("good", "True").await?;
    ours.put("good", &[("a", "two")], json!({})).await?;
    ours.has("good", &[("a", "two")]).await?;
    let after = ours.synced("good", "True").await?;
    assert_eq!(after["lastTransitionTime"], before["lastTransitionTime"]);
    Ok(())
}

/// Deletes a Secret and creates another one with its name by hand. Tries again if the controller has already made the
/// deleted Secret again.
async fn take_away(side: &Side, name: &str) -> Result<()> {
    eventually("a Secret of somebody else's", || async {
        side.delete_secret(name).await?;
        side.create_secret(name, json!({"stringData": {"theirs": "kept"}})).await.map(drop)
    })
    .await
}

/// The output of `kubectl get sealedsecrets`: the names of the columns, and the rows.
async fn table(side: &Side) -> Result<(Vec<Value>, Vec<Value>)> {
    let uri = format!("/apis/{SEALED}/namespaces/{}/sealedsecrets", side.scene.namespace);
    let request =
        Request::get(uri).header(header::ACCEPT, "application/json;as=Table;g=meta.k8s.io;v=v1").body(Body::empty())?;
    let answer = side.scene.client.send(request).await?.into_body().collect_bytes().await?;
    let table: Value = serde_json::from_slice(&answer)?;
    let list = |field: &str| table[field].as_array().cloned().with_context(|| format!("{table:#}"));
    let names = list("columnDefinitions")?.iter().map(|column| column["name"].clone()).collect();
    Ok((names, list("rows")?.iter().map(|row| row["cells"].clone()).collect()))
}

#[tokio::test]
async fn the_columns_are_theirs() -> Result<()> {
    let sides = both("columns").await?;
    let mut tables = Vec::new();
    for side in &sides {
        put_good_and_bad(side).await?;
        let (names, rows) = table(side).await?;
        assert_eq!(names, ["Name", "Status", "Synced", "Age"]);
        // The rows are compared without their age.
        let row = |name: &str| {
            let row = rows.iter().find(|row| row[0] == name).with_context(|| format!("{rows:?}"))?;
            Ok::<_, anyhow::Error>([0, 1, 2].map(|cell| row[cell].clone()))
        };
        let (good, bad) = (row("good")?, row("bad")?);
        assert_eq!((&bad[0], &bad[2]), (&json!("bad"), &json!("False")));
        let message = bad[1].as_str().context("a message")?.to_owned();
        tables.push((names, good, message));
    }
    let [(our_names, our_good, our_message), (their_names, their_good, their_message)] =
        tables.try_into().ok().context("two")?;
    assert_eq!((our_names, our_good), (their_names, their_good));
    says_the_same(&[our_message, their_message])
}

/// Reads the condition, and whether the Secret exists with this value. These are two requests, so the answers may not be of
/// the same moment.
async fn look(side: &Side, name: &str, values: &[(&str, &str)]) -> Result<(Value, bool)> {
    let secret = side.scene.get("v1", "Secret", name).await?;
    let sealed = side.scene.get(SEALED, "SealedSecret", name).await?.context("SealedSecret")?;
    Ok((sealed["status"]["conditions"][0].clone(), secret.is_some_and(|secret| secret["data"] == data(values))))
}

#[tokio::test]
async fn synced_is_never_true_without_its_secret() -> Result<()> {
    let side = Side::ours("true").await?;
    side.put("db", &[("a", "one")], json!({})).await?;
    side.synced("db", "True").await?;
    // If somebody keeps changing the Secret, the controller waits longer and longer before it puts the Secret back.
    // While it waits, `Synced` is not True.
    let unknown = eventually("Unknown while the Secret waits to be put back", || async {
        side.patch_secret("db", json!({"data": data(&[("a", "edited")])})).await?;
        let (condition, is_there) = look(&side, "db", &[("a", "one")]).await?;
        ensure!(condition["status"] == "Unknown" && !is_there, "{condition}");
        Ok(condition)
    })
    .await?;
    assert!(unknown["message"].as_str().is_some_and(|message| message.contains("puts it back")), "{unknown}");
    side.has("db", &[("a", "one")]).await?;
    side.synced("db", "True").await?;

    // Somebody deletes the Secret, and creates another one with its name at once.
    side.put("taken", &[("a", "one")], json!({})).await?;
    side.synced("taken", "True").await?;
    take_away(&side, "taken").await?;
    assert!(side.message("taken", "False").await?.contains("Resource \"taken\" already exists"));
    side.patch_secret("taken", json!({"metadata": {"annotations": {MANAGED: "true"}}})).await?;
    side.synced("taken", "True").await?;
    side.has("taken", &[("a", "one")]).await.map(drop)
}

#[tokio::test]
async fn an_updated_message_is_written() -> Result<()> {
    let side = Side::ours("message").await?;
    side.create_secret("db", json!({"immutable": true, "stringData": {"theirs": "kept"}})).await?;
    side.put("db", &[("a", "one")], json!({})).await?;
    let first = side.synced("db", "False").await?;
    assert!(
        first["message"].as_str().is_some_and(|message| message.contains("Resource \"db\" already exists")),
        "{first}"
    );
    // The condition is still False, for the same generation, but its message changes.
    side.patch_secret("db", json!({"metadata": {"annotations": {MANAGED: "true"}}})).await?;
    eventually("another message", || async {
        let now = side.synced("db", "False").await?;
        ensure!(now["message"].as_str().is_some_and(|message| message.contains("delete the Secret")), "{now}");
        ensure!(now["lastTransitionTime"] == first["lastTransitionTime"], "{now} after {first}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_sealed_secret_of_a_sync_says_why_its_secret_is_refused() -> Result<()> {
    let scene = Scene::new("status-sync").await?;
    let side = Side { certificate: Side::ours("unused").await?.certificate, scene };
    let scene = &side.scene;
    side.create_secret("db", json!({"stringData": {"theirs": "kept"}})).await?;
    let value = scene.seal("db", b"sealed-in-git").await?;
    scene.tree.write("app/db.yaml", objects::sealed_secret("db", &value))?;
    let revision = scene.publish("a SealedSecret").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_not_ready("app", "SecretNotManaged").await?;
    assert!(side.message("db", "False").await?.contains("Resource \"db\" already exists"));
    side.event("db", "ErrUpdateFailed").await?;
    scene.annotate::<Secret>("db", MANAGED, "true").await?;
    scene.is_applied("app", &revision).await?;
    side.has("db", &[("password", "sealed-in-git")]).await?;
    side.synced("db", "True").await?;

    // A Secret that is deleted while its Sync is suspended is not made again, and the condition shows this.
    scene.sync("app", "./app", json!({"suspend": true})).await?;
    eventually("Unknown", || async {
        // The controller makes the Secret again until it has seen that the Sync is suspended.
        if scene.get("v1", "Secret", "db").await?.is_some() {
            side.delete_secret("db").await?;
        }
        let (condition, is_there) = look(&side, "db", &[("password", "sealed-in-git")]).await?;
        ensure!(condition["status"] == "Unknown" && !is_there, "{condition}");
        Ok(())
    })
    .await?;
    scene.sync("app", "./app", json!({"suspend": false})).await?;
    side.has("db", &[("password", "sealed-in-git")]).await?;
    side.synced("db", "True").await.map(drop)
}

#[tokio::test]
async fn a_message_is_about_the_generation_that_was_observed() -> Result<()> {
    let side = Side::ours("generation").await?;
    for round in 0..20 {
        let key = format!("round-{round}");
        let mut sealed = side.sealed("db", &[], json!({}))?;
        sealed["spec"]["encryptedData"] = json!({&key: side.seal_for(Scope::Strict, "elsewhere", "x")?});
        side.apply(sealed).await?;
        let message = eventually("the new generation to be observed", || async {
            let sealed = side.scene.get(SEALED, "SealedSecret", "db").await?.context("it is there")?;
            let status = &sealed["status"];
            ensure!(status["observedGeneration"] == sealed["metadata"]["generation"], "{status}");
            Ok(status["conditions"][0]["message"].as_str().unwrap_or_default().to_owned())
        })
        .await?;
        // The first message that is seen for a generation must be right already; it must not be the message of the
        // generation before.
        ensure!(message.contains(&key), "observed generation of {key}, and: {message}");
    }
    Ok(())
}
