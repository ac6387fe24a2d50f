//! Gives the same SealedSecrets to both controllers, and compares the whole Secrets.

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::STANDARD};
use sealing::Scope;
use serde_json::{Value, json};

use super::{
    side::{SEALED, data, one_more_is_served},
    whole::{both, of_secret, same_event, same_secret, same_status, same_status_of_a_sync},
};

/// Templates, with the name of each case.
fn templates() -> Vec<(&'static str, Value)> {
    // Without `managed`, the Sealed Secrets controller does not recognise the Secret that it has just made.
    let skip = json!({
        "sealedsecrets.bitnami.com/skip-set-owner-references": "true", "sealedsecrets.bitnami.com/managed": "true",
    });
    vec![
        ("nothing", json!({})),
        ("null-metadata", json!({"metadata": null, "data": null})),
        ("type", json!({"type": "kubernetes.io/basic-auth"})),
        ("own-type", json!({"type": "example.com/kind"})),
        ("immutable", json!({"immutable": true})),
        ("mutable", json!({"immutable": false})),
        (
            "metadata",
            json!({"metadata": {
                "name": "ignored", "namespace": "ignored", "creationTimestamp": null,
                "labels": {"team": "a", "app.kubernetes.io/managed-by": "x"}, "annotations": {"note": "kept", "empty": ""},
                "finalizers": ["example.com/keep"],
            }}),
        ),
        (
            "scope-of-the-template",
            json!({"metadata": {"annotations": {"sealedsecrets.bitnami.com/cluster-wide": "true"}}}),
        ),
        (
            "managed-in-the-template",
            json!({"metadata": {"annotations": {"sealedsecrets.bitnami.com/managed": "true"}}}),
        ),
        ("without-owner", json!({"metadata": {"annotations": skip}})),
        (
            "rendered",
            json!({"data": {
                "url": "https://{{ .username | upper }}:{{ .password | b64enc }}@x?{{ len .empty }}",
                "lines": "{{- range $key, $value := . }}\n{{ $key }}={{ $value | quote }}{{ end }}\n",
            }}),
        ),
        ("data", json!({"data": {"hint": "as it is", "password": "the template's"}})),
    ]
}

#[tokio::test]
async fn every_field_of_the_secret_is_the_same() -> Result<()> {
    let sides = both("same").await?;
    let values = [("username", "admin"), ("password", "s3cret one\n✓"), ("empty", "")];
    for side in &sides {
        for (name, template) in templates() {
            side.put(name, &values, template).await?;
        }
        side.put("no-values", &[], json!({})).await?;
        for (name, scope) in [("namespace-wide", Scope::NamespaceWide), ("cluster-wide", Scope::ClusterWide)] {
            let annotation = format!("sealedsecrets.bitnami.com/{name}");
            side.apply(json!({
                "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": name, "annotations": {annotation: "true"}},
                "spec": {"encryptedData": {"a": side.seal_for(scope, name, "one")?}},
            }))
            .await?;
        }
        let whole = json!({
            "apiVersion": "v1", "kind": "Secret", "type": "example.com/kind", "data": {"a": STANDARD.encode("first-form")},
            "metadata": {"name": "first-form", "labels": {"team": "a"}, "annotations": {"note": "kept"}, "creationTimestamp": null},
        });
        side.apply(json!({
            "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "first-form"},
            "spec": {"data": side.seal_for(Scope::Strict, "first-form", &whole.to_string())?, "encryptedData": {}},
        }))
        .await?;
    }
    let names = templates().into_iter().map(|(name, _)| name);
    for name in names.chain(["no-values", "namespace-wide", "cluster-wide", "first-form"]) {
        same_status(&sides, name, "True").await?;
        same_secret(&sides, name).await?;
    }
    // Check that the compared Secrets have the fields that this test is for.
    let metadata = of_secret(sides[0].secret("metadata").await?)?;
    assert_eq!(metadata["metadata"]["finalizers"], json!(["example.com/keep"]));
    assert_eq!(metadata["metadata"]["ownerReferences"][0]["controller"], true);
    assert_eq!(sides[0].secret("data").await?["data"]["password"], data(&[("a", "the template's")])["a"]);
    assert!(sides[0].secret("without-owner").await?["metadata"]["ownerReferences"].is_null());
    Ok(())
}

/// Both controllers make the same Secret, even if gitseal's SealedSecret was applied by a Sync.
#[tokio::test]
async fn the_secret_of_a_sync_is_the_same() -> Result<()> {
    let sides = both("same-sync").await?;
    let [ours, theirs] = &sides;
    let template = json!({"metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}}});
    for (name, template) in [("plain", json!({})), ("labelled", template)] {
        theirs.put(name, &[("a", "one")], template.clone()).await?;
        theirs.synced(name, "True").await?;
        let sealed = ours.sealed(name, &[("a", "one")], template)?;
        ours.scene.tree.write(&format!("app/{name}.yaml"), sealed.to_string())?;
    }
    ours.scene.repository(json!({})).await?;
    let revision = ours.scene.publish("SealedSecrets").await?;
    ours.scene.sync("app", "./app", json!({})).await?;
    ours.scene.is_applied("app", &revision).await?;
    for name in ["plain", "labelled"] {
        same_status_of_a_sync(&sides, name, "True").await?;
        same_secret(&sides, name).await?;
    }
    // When the SealedSecret leaves Git, its Secret is pruned, although it has no label of the Sync.
    ours.scene.tree.remove("app/plain.yaml")?;
    ours.scene.publish("one less").await?;
    ours.scene.is_gone("v1", "Secret", "plain").await
}

#[tokio::test]
async fn existing_secrets_end_the_same() -> Result<()> {
    const MANAGED: &str = "sealedsecrets.bitnami.com/managed";
    const PATCH: &str = "sealedsecrets.bitnami.com/patch";
    let sides = both("existing").await?;
    let cases = [
        ("untouched", json!({})),
        ("other-value", json!({MANAGED: "yes", PATCH: "1"})),
        ("managed", json!({MANAGED: "true"})),
        ("patch", json!({PATCH: "true"})),
        ("both", json!({PATCH: "true", MANAGED: "true"})),
    ];
    let template = json!({"metadata": {"labels": {"ours": "x", "shared": "ours"}, "annotations": {"ours": "x"}}});
    for side in &sides {
        // The owner must exist. Otherwise, garbage collection deletes the Secret.
        let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "owner"}});
        side.apply(map).await?;
        let owner = side.scene.get("v1", "ConfigMap", "owner").await?.context("ConfigMap")?;
        let owner =
            json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}]);
        for (name, annotations) in &cases {
            let mut annotations = annotations.clone();
            annotations["theirs"] = "kept".into();
            let metadata = json!({
                "labels": {"theirs": "kept", "shared": "theirs"}, "annotations": annotations, "ownerReferences": owner,
            });
            side.create_secret(
                name,
                json!({"metadata": metadata, "stringData": {"theirs": "kept", "shared": "theirs"}}),
            )
            .await?;
            side.put(name, &[("a", "one"), ("shared", "ours")], template.clone()).await?;
        }
    }
    for (name, values) in
        [("first", [("a", "one"), ("shared", "ours")]), ("second", [("a", "two"), ("shared", "ours")])]
    {
        for (case, _) in &cases {
            let status = if ["untouched", "other-value"].contains(case) { "False" } else { "True" };
            same_status(&sides, case, status).await.with_context(|| name)?;
            let same = same_secret(&sides, case).await?;
            if status == "True" {
                assert_eq!(same["data"]["a"], data(&values)["a"], "{case}, {name}");
            }
        }
        for side in &sides {
            for (case, _) in &cases {
                side.put(case, &[("a", "two"), ("shared", "ours")], template.clone()).await?;
            }
        }
    }
    let [ours, _] = &sides;
    let owners = |secret: Value| secret["metadata"]["ownerReferences"][0]["kind"].clone();
    assert_eq!(owners(ours.secret("managed").await?), "SealedSecret");
    assert_eq!(owners(ours.secret("both").await?), "SealedSecret");
    assert_eq!(owners(ours.secret("patch").await?), "ConfigMap");
    assert_eq!(
        ours.secret("patch").await?["metadata"]["labels"],
        json!({"theirs": "kept", "ours": "x", "shared": "ours"})
    );
    Ok(())
}

/// A Secret that somebody creates just before the SealedSecret is not overwritten, even if the controller's watch has not
/// shown it yet.
#[tokio::test]
async fn a_secret_that_was_just_made_stays_as_it_is() -> Result<()> {
    let sides = both("just-made").await?;
    let names: Vec<_> = (0..20).map(|number| format!("db-{number}")).collect();
    for side in &sides {
        one_more_is_served(side, "first").await?;
        futures::future::try_join_all(names.iter().map(|name| async {
            side.create_secret(name, json!({"stringData": {"theirs": "kept"}})).await?;
            side.put(name, &[("a", "one")], json!({})).await
        }))
        .await?;
    }
    for name in &names {
        same_status(&sides, name, "False").await?;
        assert_eq!(same_secret(&sides, name).await?["data"], data(&[("theirs", "kept")]));
    }
    Ok(())
}

/// SealedSecrets that cannot be unsealed: the name and the values of each. `good` is a value that was sealed for another
/// name.
fn broken(good: &str) -> Result<[(&'static str, Value); 6]> {
    let mut flipped = STANDARD.decode(good)?;
    *flipped.last_mut().context("not empty")? ^= 1;
    Ok([
        ("another-name", json!({"encryptedData": {"a": good}})),
        ("flipped", json!({"encryptedData": {"a": STANDARD.encode(flipped)}})),
        ("no-base64", json!({"encryptedData": {"a": "§"}})),
        ("short", json!({"encryptedData": {"a": "AAAA"}})),
        ("empty", json!({"encryptedData": {"a": ""}})),
        ("both-forms", json!({"encryptedData": {"a": good}, "data": "AAAA"})),
    ])
}

#[tokio::test]
async fn what_fails_fails_in_both() -> Result<()> {
    let sides = both("fails").await?;
    let mut names = Vec::new();
    for side in &sides {
        side.put("before", &[("a", "good")], json!({})).await?;
        side.synced("before", "True").await?;
        let cases = broken(&side.seal_for(Scope::Strict, "before", "good")?)?;
        names = cases.each_ref().map(|(name, _)| *name).to_vec();
        for (name, spec) in cases {
            let object =
                json!({"apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": name}, "spec": spec});
            side.apply(object).await?;
        }
        // A Secret that existed before stays as it is.
        let mut broken = side.sealed("before", &[("b", "new")], json!({}))?;
        broken["spec"]["encryptedData"]["a"] = side.seal_for(Scope::Strict, "elsewhere", "x")?.into();
        side.apply(broken).await?;
        side.synced("before", "False").await?;
        assert_eq!(side.secret("before").await?["data"], data(&[("a", "good")]));
    }
    // All values are tried, and the message names only those that fail.
    for side in &sides {
        let mut several = side.sealed("several", &[("fine", "good")], json!({}))?;
        for key in ["first-bad", "second-bad"] {
            several["spec"]["encryptedData"][key] = side.seal_for(Scope::Strict, "elsewhere", "x")?.into();
        }
        side.apply(several).await?;
    }
    names.push("several");
    for message in same_status(&sides, "several", "False").await? {
        let is_told = ["first-bad", "second-bad"].iter().all(|key| message.contains(key));
        assert!(is_told && !message.contains("fine"), "{message}");
    }
    for name in names {
        for message in same_status(&sides, name, "False").await? {
            assert!(!message.is_empty(), "{name}");
        }
        same_event(&sides, name, "ErrUnsealFailed").await?;
        for side in &sides {
            assert_eq!(side.scene.get("v1", "Secret", name).await?, None, "{name}");
        }
    }
    same_status(&sides, "before", "False").await?;
    same_event(&sides, "before", "ErrUnsealFailed").await?;
    same_secret(&sides, "before").await.map(drop)
}
