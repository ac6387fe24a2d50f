//! Attacks with the content of the tenant's Git: names that are paths, and labels or owners of others.

use anyhow::{Context, Result, ensure};
use harness::kubernetes;
use kube::{Api, api::DeleteParams};
use serde_json::{Value, json};

use super::{Case, SEALED, seal, sealed_secret};

fn file(objects: &[Value]) -> String {
    objects.iter().map(|object| format!("---\n{object}\n")).collect()
}

#[tokio::test]
async fn names_that_are_paths_lead_nowhere() -> Result<()> {
    let case = Case::new("escape-names").await?;
    let theirs = &case.victim.namespace;
    let map = |name: &str, namespace: Option<&str>| {
        let mut object =
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": "taken"}});
        if let Some(namespace) = namespace {
            object["metadata"]["namespace"] = namespace.into();
        }
        object
    };
    let names = [
        format!("../../{theirs}/configmaps/settings"),
        format!("..%2F..%2F{theirs}%2Fconfigmaps%2Fsettings"),
        "..".into(),
        ".".into(),
        "settings/status".into(),
        "settings?fieldManager=x&dryRun=All".into(),
        "settings#".into(),
        "SETTINGS".into(),
        "settings\u{0000}".into(),
        "settings\r\nImpersonate-User: admin".into(),
        "sеttings".into(),
        "settings\u{202e}".into(),
        " settings".into(),
    ];
    for name in &names {
        let ended = case.tries(&format!("the name {name:?}"), &file(&[map(name, None)])).await?;
        ensure!(ended.reason != "Applied", "{name:?} was applied");
        ensure!(!ended.message.contains(['\r', '\n', '\u{202e}', '\0']), "{name:?}: {:?}", ended.message);
    }
    let namespaces = [
        format!("{theirs}/configmaps/settings?"),
        format!("x/../{theirs}"),
        format!("../namespaces/{theirs}"),
        format!("{theirs}?"),
        format!("{theirs}#"),
        format!("{theirs}."),
        format!(" {theirs}"),
        theirs.to_uppercase(),
        format!("%{:02x}{}", theirs.as_bytes()[0], &theirs[1..]),
        "..".into(),
    ];
    for namespace in &namespaces {
        for object in [
            map("settings", Some(namespace)),
            json!({"apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "db", "namespace": namespace},
                "spec": {"encryptedData": {"password": case.sealed}}}),
        ] {
            let kind = object["kind"].clone();
            let ended = case.tries(&format!("{kind} in the namespace {namespace:?}"), &file(&[object])).await?;
            ensure!(ended.reason != "Applied", "{kind} in {namespace:?} was applied");
        }
    }
    case.victim_goes_on().await
}

/// Labels that the tenant puts on its own objects have no effect on objects of others.
#[tokio::test]
async fn labels_owners_and_finalizers_of_ones_own_objects_touch_nobody_elses() -> Result<()> {
    let case = Case::new("escape-labels").await?;
    let (theirs, own) = (&case.victim.namespace, &case.tenant.namespace);
    let labels = json!({"gitseal.dev/sync-name": "shop", "gitseal.dev/sync-namespace": theirs});
    let ours = json!({"gitseal.dev/sync-name": "app", "gitseal.dev/sync-namespace": own});
    let victims = case.before.get("Secret db").context("the victim's Secret")?["metadata"]["ownerReferences"].clone();

    let manifest = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "labels": labels},
        "data": {"value": "mine"},
    });
    let ended = case.tries("the victim's labels in a manifest", &file(&[manifest])).await?;
    ensure!(ended.reason == "Applied", "{}: {}", ended.reason, ended.message);
    case.tenant.has("v1", "ConfigMap", "settings", json!({"metadata": {"labels": ours}})).await?;

    let sealed = json!({"a": seal(&case.plane.certificate, own, "db", "own-value")?});
    let template = json!({"metadata": {
        "labels": labels, "ownerReferences": victims, "name": "settings", "namespace": theirs,
        "annotations": {
            "gitseal.dev/sealed-digest": "0", "sealedsecrets.bitnami.com/managed": "true",
            "sealedsecrets.bitnami.com/patch": "true",
        },
        "finalizers": ["example.com/stays"],
    }});
    let ended = case
        .tries("the victim's labels and owners in a template", &sealed_secret("db", &json!({}), &sealed, &template))
        .await?;
    if ended.reason == "Applied" {
        let secret = case.tenant.has("v1", "Secret", "db", json!({})).await?;
        ensure!(secret["metadata"]["labels"].is_null(), "{secret:#}");
        let owners = &secret["metadata"]["ownerReferences"];
        ensure!(owners.as_array().is_some_and(|owners| owners.len() == 1), "{owners}");
        ensure!(owners[0]["uid"] != victims[0]["uid"], "{owners}");
    } else {
        ensure!(ended.message.contains("ownerReferences"), "{}: {}", ended.reason, ended.message);
        let mut template = template;
        template["metadata"].as_object_mut().context("metadata")?.remove("ownerReferences");
        let text = sealed_secret("db", &json!({}), &sealed, &template);
        let ended = case.tries("the victim's labels in a template", &text).await?;
        ensure!(ended.reason == "Applied", "{}: {}", ended.reason, ended.message);
        let secret = case.tenant.has("v1", "Secret", "db", json!({})).await?;
        ensure!(secret["metadata"]["labels"].is_null(), "{secret:#}");
    }

    // An object of the tenant in the cluster that looks as if it was applied for the victim's Sync, by gitseal's own field
    // manager.
    let live = json!({
        "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "claimed", "namespace": own, "labels": labels},
        "data": {"value": "bait"},
    });
    let api = kubernetes::objects(&case.tenant.client, own, "v1", "ConfigMap");
    let params = kube::api::PatchParams::apply(crds::FIELD_MANAGER).force();
    api.patch("claimed", &params, &kube::api::Patch::Apply(&live)).await?;
    case.tenant.tree.remove("app/bad.yaml")?;
    let revision = case.tenant.publish("without it").await?;
    let ended = case.ended(&revision).await?;
    case.is_harmless(&format!("a live object with the victim's labels ({})", ended.reason)).await?;

    case.victim_goes_on().await?;
    case.tenant.has("v1", "ConfigMap", "claimed", json!({"metadata": {"labels": labels}})).await?;
    // Remove the finalizer, so that the namespace can be deleted.
    let secrets = Api::<k8s_openapi::api::core::v1::Secret>::namespaced(case.tenant.client.clone(), own);
    let patch = json!({"metadata": {"finalizers": null}});
    let _ = secrets.patch("db", &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&patch)).await;
    api.delete("claimed", &DeleteParams::default()).await?;
    Ok(())
}
