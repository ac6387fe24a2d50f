//! SealedSecrets that belong to no Sync.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{Plane, Scene, eventually, kubernetes};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};

use crate::traces;

const SEALED: &str = "bitnami.com/v1alpha1";

/// The field `data` of a Secret with these values.
fn data(values: &[(&str, &str)]) -> Value {
    let encoded = values.iter().map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into()));
    json!({"data": encoded.collect::<serde_json::Map<_, _>>()})
}

/// A SealedSecret whose values are sealed for it with the scope strict.
async fn sealed(scene: &Scene, name: &str, values: &[(&str, &str)], template: Value) -> Result<Value> {
    let mut encrypted = serde_json::Map::new();
    for (key, value) in values {
        encrypted.insert((*key).into(), scene.seal(name, value.as_bytes()).await?.into());
    }
    Ok(json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": name},
        "spec": {"encryptedData": encrypted, "template": template},
    }))
}

/// Makes or changes a SealedSecret.
async fn put(scene: &Scene, name: &str, values: &[(&str, &str)], template: Value) -> Result<()> {
    let sealed = sealed(scene, name, values, template).await?;
    kubernetes::apply(&scene.client, &scene.namespace, sealed).await.map(drop)
}

async fn delete(scene: &Scene, api_version: &str, kind: &str, name: &str) -> Result<()> {
    let api = kubernetes::objects(&scene.client, &scene.namespace, api_version, kind);
    api.delete(name, &DeleteParams::default()).await?;
    Ok(())
}

async fn patch_secret(scene: &Scene, name: &str, patch: Value) -> Result<()> {
    scene.api::<Secret>().patch(name, &PatchParams::default(), &Patch::Merge(&patch)).await?;
    Ok(())
}

async fn secret(scene: &Scene, name: &str) -> Result<Value> {
    scene.get("v1", "Secret", name).await?.with_context(|| format!("Secret {name} is not there"))
}

/// Waits until `Synced` is `status` for the newest generation, and returns the message.
async fn synced(scene: &Scene, name: &str, status: &str) -> Result<String> {
    eventually(&format!("SealedSecret {name} to be Synced={status}"), || async {
        let sealed = scene.get(SEALED, "SealedSecret", name).await?.context("it is gone")?;
        let (conditions, generation) = (&sealed["status"]["conditions"], &sealed["metadata"]["generation"]);
        ensure!(sealed["status"]["observedGeneration"] == *generation, "{sealed:#}");
        ensure!(conditions.as_array().is_some_and(|all| all.len() == 1), "{conditions}");
        ensure!(conditions[0]["type"] == "Synced" && conditions[0]["status"] == status, "{conditions}");
        Ok(conditions[0]["message"].as_str().unwrap_or_default().to_owned())
    })
    .await
}

/// Waits for an event about the SealedSecret, and returns its message.
async fn event(scene: &Scene, name: &str, reason: &str) -> Result<String> {
    eventually(&format!("event {reason} of {name}"), || async {
        let events = scene.api::<Event>().list(&ListParams::default()).await?;
        let of_name =
            |event: &&Event| event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(name));
        let found = events.iter().filter(of_name).find(|event| event.reason.as_deref() == Some(reason));
        let found = found.with_context(|| format!("{:?}", events.iter().map(|e| &e.reason).collect::<Vec<_>>()))?;
        ensure!(found.reporting_controller.as_deref() == Some("sealed-secrets"), "{found:?}");
        Ok(found.note.clone().unwrap_or_default())
    })
    .await
}

/// The value of a metric of the shared controller, or 0 if it does not exist.
async fn metric(series: &str) -> Result<u64> {
    let controller = Plane::shared().await?.controller.lock().await;
    Ok(controller.as_ref().context("no controller")?.metric(series).await?.unwrap_or(0))
}

#[tokio::test]
async fn the_secret_is_as_the_template_says() -> Result<()> {
    let scene = Scene::new("standalone").await?;
    let template = json!({
        "type": "kubernetes.io/basic-auth", "immutable": true,
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}, "name": "ignored", "namespace": "ignored"},
        "data": {"hint": "written as it is"},
    });
    put(&scene, "db", &[("username", "admin"), ("password", "s3cret-one")], template).await?;
    let mut wanted = data(&[("username", "admin"), ("password", "s3cret-one"), ("hint", "written as it is")]);
    wanted["type"] = "kubernetes.io/basic-auth".into();
    wanted["immutable"] = true.into();
    let found = scene.has("v1", "Secret", "db", wanted.clone()).await?;
    assert_eq!(found["data"], wanted["data"], "and no other value");
    let owner = scene.get(SEALED, "SealedSecret", "db").await?.context("SealedSecret")?;
    assert_eq!(
        found["metadata"]["ownerReferences"],
        json!([{"apiVersion": SEALED, "kind": "SealedSecret", "name": "db", "controller": true, "uid": owner["metadata"]["uid"]}])
    );
    assert_eq!(found["metadata"]["labels"], json!({"team": "a"}));
    assert_eq!(found["metadata"]["annotations"]["note"], "kept");
    assert_eq!(synced(&scene, "db", "True").await?, "");
    assert!(event(&scene, "db", "Unsealed").await?.contains("unsealed"));

    // An immutable Secret cannot be changed. The message says so, and what to do.
    let immutable = json!({"type": "kubernetes.io/basic-auth", "immutable": true});
    put(&scene, "db", &[("username", "admin"), ("password", "s3cret-two")], immutable).await?;
    let message = synced(&scene, "db", "False").await?;
    assert!(message.contains("delete the Secret, and it is made again"), "{message}");
    assert_eq!(secret(&scene, "db").await?["data"], wanted["data"]);
    delete(&scene, "v1", "Secret", "db").await?;
    let found = scene.has("v1", "Secret", "db", data(&[("username", "admin"), ("password", "s3cret-two")])).await?;
    assert!(found["data"]["hint"].is_null(), "{found:#}");
    synced(&scene, "db", "True").await?;
    Ok(())
}

#[tokio::test]
async fn a_change_of_the_sealed_secret_reaches_the_secret() -> Result<()> {
    let scene = Scene::new("standalone-change").await?;
    let labels = |value: &str| json!({"metadata": {"labels": {value: "x"}}});
    put(&scene, "db", &[("a", "one"), ("b", "two")], labels("old")).await?;
    scene.has("v1", "Secret", "db", data(&[("a", "one"), ("b", "two")])).await?;
    synced(&scene, "db", "True").await?;
    let uid = secret(&scene, "db").await?["metadata"]["uid"].clone();

    put(&scene, "db", &[("a", "changed"), ("c", "three")], labels("new")).await?;
    let wanted = data(&[("a", "changed"), ("c", "three")]);
    let found = scene.has("v1", "Secret", "db", wanted.clone()).await?;
    assert_eq!(found["data"], wanted["data"], "a value that was taken out is gone");
    assert_eq!(found["metadata"]["labels"], json!({"new": "x"}));
    assert_eq!(found["metadata"]["uid"], uid, "it was changed, not made anew");
    synced(&scene, "db", "True").await?;
    Ok(())
}

#[tokio::test]
async fn what_was_done_to_the_secret_is_undone() -> Result<()> {
    let scene = Scene::new("standalone-drift").await?;
    let mut values = data(&[("a", "one"), ("b", "two")]);
    values["metadata"] = json!({"labels": {"team": "a"}});
    put(&scene, "db", &[("a", "one"), ("b", "two")], json!({"metadata": {"labels": {"team": "a"}}})).await?;
    let first = scene.has("v1", "Secret", "db", values.clone()).await?;
    values["metadata"]["ownerReferences"] = first["metadata"]["ownerReferences"].clone();
    synced(&scene, "db", "True").await?;

    delete(&scene, "v1", "Secret", "db").await?;
    let second = scene.has("v1", "Secret", "db", values.clone()).await?;
    assert_ne!(first["metadata"]["uid"], second["metadata"]["uid"]);
    // Each edit, with the texts that the message about it must contain: the edited keys and fields, and who wrote them.
    // The message never contains a value.
    let edits = [
        (json!({"stringData": {"a": "edited-value"}}), &["data.a by kubectl-edit"][..]),
        (json!({"data": {"b": null, "c": "ZWRpdGVkLXZhbHVl"}}), &["data.b removed", "data.c by kubectl-edit"]),
        (
            json!({"metadata": {"labels": {"team": "edited-value"}, "ownerReferences": null}}),
            &["metadata.labels.team by kubectl-edit", "metadata.ownerReferences"],
        ),
    ];
    let by_hand = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    for (edit, _) in &edits {
        scene.api::<Secret>().patch("db", &by_hand, &Patch::Merge(edit)).await?;
        let healed = scene.has("v1", "Secret", "db", values.clone()).await?;
        assert_eq!(healed["metadata"]["uid"], second["metadata"]["uid"]);
        synced(&scene, "db", "True").await?;
    }
    traces::event(&scene, "db", "Drifted", &["was deleted outside of its SealedSecret and is put back"]).await?;
    for (_, told) in edits {
        let told = [&["was changed outside of its SealedSecret ("], told].concat();
        traces::event(&scene, "db", "Drifted", &told).await?;
    }
    let notes = traces::events(&scene, "db", "Drifted").await?;
    ensure!(!notes.iter().any(|note| note.contains("edited-") || note.contains("ZWRp")), "{notes:#?}");
    Ok(())
}

#[tokio::test]
async fn what_cannot_be_unsealed_says_why_and_keeps_the_last_good_version() -> Result<()> {
    let scene = Scene::new("standalone-bad").await?;
    put(&scene, "db", &[("a", "good-value")], json!({})).await?;
    scene.has("v1", "Secret", "db", data(&[("a", "good-value")])).await?;
    synced(&scene, "db", "True").await?;

    let mut bad = sealed(&scene, "db", &[("a", "new-value")], json!({})).await?;
    bad["spec"]["encryptedData"]["b"] = scene.seal("another", b"moved-value").await?.into();
    kubernetes::apply(&scene.client, &scene.namespace, bad).await?;
    let message = synced(&scene, "db", "False").await?;
    assert!(message.contains("spec.encryptedData.b: "), "{message}");
    assert!(!message.contains("encryptedData.a"), "{message}");
    assert!(event(&scene, "db", "ErrUnsealFailed").await?.contains("spec.encryptedData.b: "));
    assert_eq!(secret(&scene, "db").await?["data"], data(&[("a", "good-value")])["data"]);
    let failures =
        format!("sealed_secrets_controller_unseal_errors_total{{reason=\"unseal\",namespace=\"{}\"}}", scene.namespace);
    assert!(metric(&failures).await? > 0, "{failures}");

    put(&scene, "db", &[("a", "new-value")], json!({})).await?;
    scene.has("v1", "Secret", "db", data(&[("a", "new-value")])).await?;
    synced(&scene, "db", "True").await?;
    Ok(())
}

#[tokio::test]
async fn the_secret_goes_with_its_sealed_secret_unless_it_was_somebody_elses() -> Result<()> {
    let scene = Scene::new("standalone-end").await?;
    let skip = json!({"metadata": {"annotations": {"sealedsecrets.bitnami.com/skip-set-owner-references": "true"}}});
    plain(&scene, "merged", json!({"sealedsecrets.bitnami.com/patch": "true"})).await?;
    put(&scene, "owned", &[("a", "one")], json!({})).await?;
    put(&scene, "free", &[("a", "one")], skip.clone()).await?;
    put(&scene, "merged", &[("a", "one"), ("b", "two")], json!({"metadata": {"labels": {"ours": "x"}}})).await?;
    scene.has("v1", "Secret", "owned", data(&[("a", "one")])).await?;
    let free = scene.has("v1", "Secret", "free", data(&[("a", "one")])).await?;
    assert!(free["metadata"]["ownerReferences"].is_null(), "{free:#}");
    let both = data(&[("a", "one"), ("b", "two"), ("theirs", "kept")]);
    let merged = scene.has("v1", "Secret", "merged", both).await?;
    assert!(merged["metadata"]["ownerReferences"].is_null(), "{merged:#}");
    assert_eq!(merged["metadata"]["labels"], json!({"theirs": "kept", "ours": "x"}));
    for name in ["owned", "free", "merged"] {
        synced(&scene, name, "True").await?;
    }

    // The Secrets `free` and `merged` still follow their SealedSecrets. A value that left the SealedSecret leaves the
    // Secret, too.
    put(&scene, "free", &[("a", "changed")], skip).await?;
    scene.has("v1", "Secret", "free", data(&[("a", "changed")])).await?;
    put(&scene, "merged", &[("b", "changed")], json!({})).await?;
    let wanted = data(&[("b", "changed"), ("theirs", "kept")]);
    let merged = scene.has("v1", "Secret", "merged", wanted.clone()).await?;
    assert_eq!(merged["data"], wanted["data"]);
    assert_eq!(merged["metadata"]["labels"], json!({"theirs": "kept"}));

    for name in ["free", "merged", "owned"] {
        delete(&scene, SEALED, "SealedSecret", name).await?;
    }
    scene.is_gone("v1", "Secret", "owned").await?;
    for name in ["free", "merged"] {
        scene.is_gone(SEALED, "SealedSecret", name).await?;
        assert!(secret(&scene, name).await?["metadata"]["deletionTimestamp"].is_null(), "{name}");
    }
    Ok(())
}

/// Creates a Secret by hand, with one value and one label.
async fn plain(scene: &Scene, name: &str, annotations: Value) -> Result<()> {
    let object = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"theirs": "kept"},
        "metadata": {"name": name, "labels": {"theirs": "kept"}, "annotations": annotations},
    });
    let secrets = Api::<Secret>::namespaced(scene.client.clone(), &scene.namespace);
    secrets.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    Ok(())
}

#[tokio::test]
async fn a_secret_of_somebody_else_is_only_touched_when_it_says_so() -> Result<()> {
    let scene = Scene::new("standalone-foreign").await?;
    plain(&scene, "db", json!({})).await?;
    let before = secret(&scene, "db").await?;
    put(&scene, "db", &[("a", "one")], json!({"metadata": {"labels": {"ours": "x"}}})).await?;
    let message = synced(&scene, "db", "False").await?;
    let ns = &scene.namespace;
    let command = format!("kubectl annotate secret -n {ns} db sealedsecrets.bitnami.com/managed=true");
    for text in ["Resource \"db\" already exists", &command] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    assert!(event(&scene, "db", "ErrUpdateFailed").await?.contains("Resource \"db\" already exists"));
    let failures = format!(
        "sealed_secrets_controller_unseal_errors_total{{reason=\"unmanaged\",namespace=\"{}\"}}",
        scene.namespace
    );
    assert!(metric(&failures).await? > 0, "{failures}");
    assert_eq!(secret(&scene, "db").await?, before);

    // With the annotation `managed`, which the message names, the whole Secret belongs to the SealedSecret.
    scene.annotate::<Secret>("db", crds::names::MANAGED, "true").await?;
    synced(&scene, "db", "True").await?;
    let after = secret(&scene, "db").await?;
    assert_eq!(after["data"], data(&[("a", "one")])["data"]);
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(after["metadata"]["labels"], json!({"ours": "x"}));
    assert_eq!(after["metadata"]["ownerReferences"][0]["name"], "db");
    Ok(())
}

#[tokio::test]
async fn a_secret_that_was_merged_into_stays_somebody_elses() -> Result<()> {
    let scene = Scene::new("standalone-merged").await?;
    plain(&scene, "db", json!({crds::names::PATCH: "true"})).await?;
    put(&scene, "db", &[("a", "one")], json!({})).await?;
    scene.has("v1", "Secret", "db", data(&[("a", "one"), ("theirs", "kept")])).await?;
    synced(&scene, "db", "True").await?;
    patch_secret(&scene, "db", json!({"metadata": {"annotations": {crds::names::PATCH: null}}})).await?;
    assert!(synced(&scene, "db", "False").await?.contains("Resource \"db\" already exists"));
    put(&scene, "db", &[("a", "two")], json!({})).await?;
    synced(&scene, "db", "False").await?;
    let found = secret(&scene, "db").await?;
    assert_eq!(found["data"], data(&[("a", "one"), ("theirs", "kept")])["data"]);
    assert!(found["metadata"]["ownerReferences"].is_null(), "{found:#}");
    // With the annotations `patch` and `managed`, the Secret belongs to the SealedSecret and keeps its other values.
    let both = json!({crds::names::PATCH: "true", crds::names::MANAGED: "true"});
    patch_secret(&scene, "db", json!({"metadata": {"annotations": both}})).await?;
    let wanted = data(&[("a", "two"), ("theirs", "kept")]);
    scene.has("v1", "Secret", "db", wanted.clone()).await?;
    synced(&scene, "db", "True").await?;
    let found = secret(&scene, "db").await?;
    assert_eq!(found["data"], wanted["data"]);
    assert_eq!(found["metadata"]["ownerReferences"][0]["name"], "db");
    Ok(())
}

#[tokio::test]
async fn a_secret_is_handed_over_to_a_sync_as_well() -> Result<()> {
    let scene = Scene::new("handed-over").await?;
    plain(&scene, "db", json!({})).await?;
    plain(&scene, "merged", json!({crds::names::PATCH: "true"})).await?;
    let before = secret(&scene, "db").await?;
    for name in ["db", "merged"] {
        let value = scene.seal(name, b"sealed-in-git").await?;
        scene.tree.write(&format!("app/{name}.yaml"), crate::objects::sealed_secret(name, &value))?;
    }
    let revision = scene.publish("a Secret that is there").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "SecretNotManaged").await?;
    for text in ["app/db.yaml:1: ", "Resource \"db\" already exists", "sealedsecrets.bitnami.com/managed=true"] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    assert_eq!(secret(&scene, "db").await?, before);
    let merged = data(&[("password", "sealed-in-git"), ("theirs", "kept")]);
    scene.has("v1", "Secret", "merged", merged.clone()).await?;

    scene.annotate::<Secret>("db", crds::names::MANAGED, "true").await?;
    scene.is_applied("app", &revision).await?;
    let db = secret(&scene, "db").await?;
    assert_eq!(db["data"], data(&[("password", "sealed-in-git")])["data"]);
    assert_eq!(db["metadata"]["uid"], before["metadata"]["uid"]);
    assert_eq!(db["metadata"]["ownerReferences"][0]["name"], "db");

    // When the Sync is deleted, its SealedSecrets and their Secrets are deleted, but not the Secret that a SealedSecret was
    // merged into.
    delete(&scene, "gitseal.dev/v1alpha1", "Sync", "app").await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    scene.is_gone("v1", "Secret", "db").await?;
    assert_eq!(secret(&scene, "merged").await?["data"]["theirs"], merged["data"]["theirs"]);
    Ok(())
}

#[tokio::test]
async fn changing_only_the_scope_takes_effect() -> Result<()> {
    let scene = Scene::new("standalone-scope").await?;
    let certificate = sealing::Certificate::from_pem(Plane::shared().await?.certificate.as_bytes())?;
    let binding = sealing::Scope::NamespaceWide.binding(&scene.namespace, "db", "any");
    let value = sealing::seal(&certificate, binding, harness::hunt::known(b"wide-value"))?;
    let object = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "db"}, "spec": {"encryptedData": {"a": value}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, object).await?;
    synced(&scene, "db", "False").await?;
    assert!(scene.get("v1", "Secret", "db").await?.is_none());
    let set = async |value: Value| -> Result<()> {
        let patch = json!({"metadata": {"annotations": {crds::names::NAMESPACE_WIDE: value}}});
        let api = kubernetes::objects(&scene.client, &scene.namespace, SEALED, "SealedSecret");
        api.patch("db", &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    };
    set("true".into()).await?;
    scene.has("v1", "Secret", "db", data(&[("a", "wide-value")])).await?;
    synced(&scene, "db", "True").await?;
    set(Value::Null).await?;
    synced(&scene, "db", "False").await?;
    Ok(())
}

#[tokio::test]
async fn the_deprecated_first_form_is_unsealed() -> Result<()> {
    let scene = Scene::new("standalone-v1").await?;
    let whole = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "example.com/kind",
        "metadata": {"name": "db", "namespace": scene.namespace, "labels": {"team": "a"}, "creationTimestamp": null},
        "data": {"a": STANDARD.encode("first-form")},
    });
    let object = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "db"},
        "spec": {"data": scene.seal("db", whole.to_string().as_bytes()).await?},
    });
    kubernetes::apply(&scene.client, &scene.namespace, object).await?;
    let found = scene.has("v1", "Secret", "db", data(&[("a", "first-form")])).await?;
    assert_eq!((&found["type"], &found["metadata"]["labels"]), (&json!("example.com/kind"), &json!({"team": "a"})));
    synced(&scene, "db", "True").await?;
    patch_secret(&scene, "db", json!({"stringData": {"a": "edited"}})).await?;
    scene.has("v1", "Secret", "db", data(&[("a", "first-form")])).await?;
    Ok(())
}
