//! The *mark* in the status of a SealedSecret (`madeFrom`), with which the controller remembers what it made the Secret
//! from. After a restart, the controller does not make unchanged Secrets again, and sees which Secrets were changed
//! while it did not run. A mark that somebody else wrote has no effect.

use std::collections::BTreeMap;

use anyhow::{Context, Result, ensure};
use crds::{
    SealedSecretSpec, Sync,
    names::{PATCH as MAY_MERGE, SEALED_DIGEST, SKIP_SET_OWNER_REFERENCES},
};
use harness::{eventually, kubernetes};
use k8s_openapi::api::core::v1::Secret;
use kube::api::{Patch, PatchParams};
use pipeline::FieldsDigest;
use serde_json::{Value, json};
use unsealing::SealedInput;

use super::{
    own::Own,
    side::{SEALED, Side, data},
};

/// With this argument, the controller of each test serves only the namespace that it runs in.
const OWN_NAMESPACE: [&str; 1] = ["--all-namespaces=false"];
const REQUESTS: &str = "sealed_secrets_controller_unseal_requests_total";

async fn sealed(side: &Side, name: &str) -> Result<Value> {
    side.scene.get(SEALED, "SealedSecret", name).await?.with_context(|| format!("SealedSecret {name} is gone"))
}

/// Writes into the status of a SealedSecret, as any user with that right can.
async fn patch_status(side: &Side, name: &str, status: Value) -> Result<()> {
    let api = kubernetes::objects(&side.scene.client, &side.scene.namespace, SEALED, "SealedSecret");
    api.patch_status(name, &PatchParams::default(), &Patch::Merge(json!({"status": status}))).await?;
    Ok(())
}

/// Waits until the status has a mark, and returns it.
async fn mark(side: &Side, name: &str) -> Result<String> {
    eventually(&format!("the mark of {name}"), || async {
        let status = sealed(side, name).await?["status"].clone();
        status["madeFrom"].as_str().map(str::to_owned).with_context(|| format!("{status}"))
    })
    .await
}

/// Waits for the next second. An apply in the same second as the last one would have the same time in `managedFields`.
async fn next_second(side: &Side, name: &str) -> Result<()> {
    let last = side.secret(name).await?["metadata"]["managedFields"][0]["time"].clone();
    let last: jiff::Timestamp = last.as_str().context("a time")?.parse()?;
    eventually("another second", || async {
        let now = jiff::Timestamp::now();
        ensure!(now.as_second() > last.as_second(), "{now}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn a_restart_makes_nothing_again_and_sees_what_was_done_meanwhile() -> Result<()> {
    const NAMES: [&str; 6] = ["kept", "edited", "unlabelled", "anew", "applied", "with-more"];
    let own = Own::start("marks", &OWN_NAMESPACE).await?;
    let labels = json!({"metadata": {"labels": {"team": "a"}}});
    let mut uids = BTreeMap::new();
    for name in NAMES {
        own.side.put(name, &[("a", "one")], labels.clone()).await?;
        own.side.synced(name, "True").await?;
        mark(&own.side, name).await?;
        uids.insert(name, own.side.secret(name).await?["metadata"]["uid"].clone());
    }
    let own = own
        .restart_after(async |side: &Side| {
            side.patch_secret("edited", json!({"data": data(&[("a", "edited")])})).await?;
            side.patch_secret("unlabelled", json!({"metadata": {"labels": {"team": null}}})).await?;
            side.patch_secret("with-more", json!({"data": data(&[("theirs", "x")])})).await?;
            // Replaces our Secret by one with the same labels and owner.
            let before = side.secret("anew").await?["metadata"].clone();
            side.delete_secret("anew").await?;
            let metadata = json!({"labels": before["labels"], "ownerReferences": before["ownerReferences"]});
            side.create_secret("anew", json!({"metadata": metadata, "data": data(&[("a", "one")])})).await?;
            // Changes the Secret as our own field manager. The only trace of this change is the time of the apply, in
            // whole seconds.
            next_second(side, "applied").await?;
            let api = kubernetes::objects(&side.scene.client, &side.scene.namespace, "v1", "Secret");
            let before = side.secret("applied").await?["metadata"].clone();
            let metadata =
                json!({"name": "applied", "labels": before["labels"], "ownerReferences": before["ownerReferences"]});
            let other =
                json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "data": data(&[("a", "other")])});
            api.patch("applied", &PatchParams::apply(crds::FIELD_MANAGER), &Patch::Apply(&other)).await?;
            Ok(())
        })
        .await?;
    for name in NAMES {
        let secret = own.side.has(name, &[("a", "one")]).await?;
        own.side.synced(name, "True").await?;
        ensure!(name == "anew" || secret["metadata"]["uid"] == uids[name], "{name} was made anew: {secret:#}");
        eventually(&format!("the label of {name}"), || async {
            let labels = own.side.secret(name).await?["metadata"]["labels"].clone();
            ensure!(labels == json!({"team": "a"}), "{labels}");
            Ok(())
        })
        .await?;
    }
    // The controller makes every Secret once more except the one that nobody touched.
    eventually("five Secrets to be made once more", || async {
        let requests = own.controller.metric::<u64>(REQUESTS).await?;
        ensure!(requests == Some(5), "{requests:?}");
        Ok(())
    })
    .await?;
    let own = own.restart().await?;
    super::side::one_more_is_served(&own.side, "last").await?;
    ensure!(own.controller.metric(REQUESTS).await? == Some(1), "nothing but the new one");
    Ok(())
}

#[tokio::test]
async fn a_mark_of_somebody_else_is_worth_nothing() -> Result<()> {
    let own = Own::start("marks-forged", &OWN_NAMESPACE).await?;
    let skip = json!({"metadata": {"annotations": {crds::names::SKIP_SET_OWNER_REFERENCES: "true"}}});
    for (name, template) in [("ours", json!({})), ("free", skip.clone()), ("wiped", json!({}))] {
        own.side.put(name, &[("a", "one")], template).await?;
        own.side.synced(name, "True").await?;
    }
    let copied = mark(&own.side, "free").await?;
    // A mark that somebody removed comes back when the controller next writes the condition.
    let api = kubernetes::objects(&own.side.scene.client, &own.side.scene.namespace, SEALED, "SealedSecret");
    let wiped = mark(&own.side, "wiped").await?;
    api.patch_status("wiped", &PatchParams::default(), &Patch::Merge(json!({"status": null}))).await?;
    own.side.synced("wiped", "True").await?;
    ensure!(mark(&own.side, "wiped").await? == wiped, "it was made once more");

    // A forged mark does not make the controller take over a Secret of somebody else.
    own.side.create_secret("theirs", json!({"stringData": {"theirs": "kept"}})).await?;
    let before = own.side.secret("theirs").await?;
    own.side.put("theirs", &[("a", "one")], skip).await?;
    own.side.synced("theirs", "False").await?;
    let own = own
        .restart_after(async |side: &Side| {
            patch_status(side, "theirs", json!({"madeFrom": copied})).await?;
            patch_status(side, "ours", json!({"madeFrom": copied})).await
        })
        .await?;
    super::side::one_more_is_served(&own.side, "later").await?;
    own.side.synced("theirs", "False").await?;
    assert_eq!(own.side.secret("theirs").await?, before);
    // A forged mark does not keep a Secret from being updated.
    own.side.put("ours", &[("a", "two")], json!({})).await?;
    own.side.has("ours", &[("a", "two")]).await?;
    own.side.synced("ours", "True").await?;
    let told = sealed(&own.side, "ours").await?;
    ensure!(told["status"]["madeFrom"] != copied, "it is told anew: {told:#}");
    Ok(())
}

/// Makes a Secret as an older version of the controller did: with an annotation on the Secret, and no mark in the
/// status of the SealedSecret. The Secret has the Sync's `labels` if it came from a Sync. Returns the Secret, and the
/// digest in its annotation.
async fn make_old(side: &Side, name: &str, labels: Value) -> Result<(Secret, String)> {
    let object = sealed(side, name).await?;
    let spec: SealedSecretSpec = serde_json::from_value(object["spec"].clone())?;
    let digest = unsealing::old_digest(&SealedInput {
        namespace: &side.scene.namespace,
        name,
        annotations: &BTreeMap::new(),
        spec: &spec,
        accept_deprecated_v1_data: true,
    });
    let mut old = side.secret(name).await?;
    let owners = old["metadata"]["ownerReferences"].clone();
    old["metadata"] = json!({
        "name": name, "annotations": {SEALED_DIGEST: digest}, "labels": labels, "ownerReferences": owners,
    });
    let by = PatchParams::apply(crds::FIELD_MANAGER);
    let secret = side.scene.api::<Secret>().patch(name, &by, &Patch::Apply(&old)).await?;
    patch_status(side, name, json!({"madeFrom": null})).await?;
    Ok((secret, digest))
}

/// The Secret as others see it, without the fields that every write changes.
fn to_be_seen(mut secret: Value) -> Value {
    let metadata = &mut secret["metadata"];
    metadata["resourceVersion"].take();
    for entry in metadata["managedFields"].as_array_mut().into_iter().flatten() {
        entry["time"].take();
    }
    secret
}

#[tokio::test]
async fn what_an_older_version_left_on_a_secret_goes() -> Result<()> {
    let own = Own::start("marks-old", &OWN_NAMESPACE).await?;
    let skip = json!({"metadata": {"annotations": {crds::names::SKIP_SET_OWNER_REFERENCES: "true"}}});
    let all = [("owned", json!({})), ("free", skip)];
    let mut before = Vec::new();
    for (name, template) in &all {
        own.side.put(name, &[("a", "one")], template.clone()).await?;
        own.side.synced(name, "True").await?;
        mark(&own.side, name).await?;
        before.push(to_be_seen(own.side.secret(name).await?));
    }
    let own = own
        .restart_after(async |side: &Side| {
            for (name, _) in &all {
                make_old(side, name, json!({})).await?;
            }
            Ok(())
        })
        .await?;
    for ((name, _), before) in all.iter().zip(before) {
        mark(&own.side, name).await?;
        assert_eq!(to_be_seen(own.side.secret(name).await?), before);
        own.side.synced(name, "True").await?;
    }
    let drifted = own.controller.metric::<u64>("gitseal_drift_healed_total{kind=\"Secret\"}").await?;
    ensure!(drifted.is_none(), "nobody did anything to them: {drifted:?}");
    Ok(())
}

#[tokio::test]
async fn a_secret_that_may_not_be_merged_into_any_more_is_not_taken_over_whatever_the_status_tells() -> Result<()> {
    let own = Own::start("marks-withdrawn", &OWN_NAMESPACE).await?;
    let side = &own.side;
    let skip = json!({"metadata": {"annotations": {SKIP_SET_OWNER_REFERENCES: "true"}}});
    // All values of this Secret equal those of the SealedSecret, but the Secret belongs to somebody else.
    side.create_secret(
        "merged",
        json!({"metadata": {"annotations": {MAY_MERGE: "true"}}, "stringData": {"a": "theirs"}}),
    )
    .await?;
    side.put("merged", &[("a", "one")], skip.clone()).await?;
    side.has("merged", &[("a", "one")]).await?;
    mark(side, "merged").await?;
    // At first, the whole Secret is made from the SealedSecret. Later, values are only merged into the Secret.
    side.put("whole-once", &[("a", "one")], skip.clone()).await?;
    side.synced("whole-once", "True").await?;
    let old = mark(side, "whole-once").await?;
    next_second(side, "whole-once").await?;
    let theirs = json!({"metadata": {"annotations": {MAY_MERGE: "true"}}, "data": data(&[("admin", "precious")])});
    side.patch_secret("whole-once", theirs).await?;
    side.put("whole-once", &[("a", "two")], skip).await?;
    side.has("whole-once", &[("a", "two"), ("admin", "precious")]).await?;
    eventually("the mark of what was merged", || async {
        let now = mark(side, "whole-once").await?;
        ensure!(now != old && now.starts_with("merged-"), "{now}");
        Ok(())
    })
    .await?;
    let own = own
        .restart_after(async |side: &Side| {
            for name in ["merged", "whole-once"] {
                side.patch_secret(name, json!({"metadata": {"annotations": {MAY_MERGE: null}}})).await?;
            }
            patch_status(side, "merged", json!({"madeFrom": null})).await?;
            patch_status(side, "whole-once", json!({"madeFrom": old})).await
        })
        .await?;
    let side = &own.side;
    for (name, values) in [("merged", &[("a", "one")][..]), ("whole-once", &[("a", "two"), ("admin", "precious")])] {
        side.synced(name, "False").await?;
        let secret = side.has(name, values).await?;
        ensure!(secret["metadata"]["ownerReferences"].is_null(), "{secret:#}");
    }
    Ok(())
}

/// In older versions, the Secret of a Sync's SealedSecret had the Sync's labels, too. Such a Secret is made again in
/// the Sync's next full pass.
#[tokio::test]
async fn what_an_older_version_left_on_the_secret_of_a_sync_goes() -> Result<()> {
    let own = Own::start("marks-sync", &OWN_NAMESPACE).await?;
    let scene = &own.side.scene;
    scene.repository(json!({})).await?;
    let template = json!({"metadata": {"labels": {"team": "a"}}, "type": "example.com/password"});
    let object = own.side.sealed("db", &[("a", "one")], template)?;
    scene.tree.write("app/db.json", object.to_string())?;
    let revision = scene.publish("first").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &revision).await?;
    mark(&own.side, "db").await?;
    own.side.patch_secret("db", json!({"metadata": {"annotations": {"note": "theirs"}}})).await?;
    let before = to_be_seen(own.side.secret("db").await?);
    let own = own
        .restart_after(async |side: &Side| {
            let scene = &side.scene;
            let labels = json!({
                "team": "a", crds::names::SYNC_NAME: "app", crds::names::SYNC_NAMESPACE: scene.namespace,
            });
            let (secret, digest) = make_old(side, "db", labels).await?;
            // Changes the Sync's inventory so that it has the Secret as an older version made it.
            let mut status = scene.api::<Sync>().get("app").await?.status.context("a status")?;
            let of_secret = status.inventory.iter_mut().find(|entry| entry.id.ends_with("__Secret"));
            let entry = of_secret.context("the Secret is in the inventory")?;
            entry.m = Some(digest);
            entry.f = FieldsDigest::of(secret.metadata.managed_fields.as_deref()).map(|fields| fields.to_string());
            let status = json!({"status": {"inventory": status.inventory}});
            scene.api::<Sync>().patch_status("app", &PatchParams::default(), &Patch::Merge(status)).await?;
            Ok(())
        })
        .await?;
    let scene = &own.side.scene;
    // After an edit of the Sync, the next pass checks all objects.
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &revision).await?;
    mark(&own.side, "db").await?;
    assert_eq!(to_be_seen(own.side.secret("db").await?), before);
    own.side.synced("db", "True").await?;
    let drifted = own.controller.metric::<u64>("gitseal_drift_healed_total{kind=\"Secret\"}").await?;
    ensure!(drifted.is_none(), "nobody did anything to it: {drifted:?}");
    Ok(())
}
