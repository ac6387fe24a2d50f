//! Versions of kinds: a custom resource that changes to a new version, and the messages for versions that are not
//! served and for values of a wrong type.

use anyhow::{Result, ensure};
use harness::{Scene, kubernetes};
use kube::api::{Patch, PatchParams};
use serde_json::{Value, json};

use crate::cli::gitseal;

const SIZE: &str = "size: {type: integer}";
const MORE: &str = "size: {type: integer}, colour: {type: string}, policy: {type: string, default: deny}";

fn crd(group: &str, versions: &[(&str, bool, &str)]) -> String {
    let versions: String = versions
        .iter()
        .map(|(name, storage, fields)| {
            format!(
                "  - name: {name}\n    served: true\n    storage: {storage}\n    schema: {{openAPIV3Schema: {{type: object, \
                 properties: {{spec: {{type: object, properties: {{{fields}}}}}}}}}}}\n"
            )
        })
        .collect();
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: widgets.{group}}}\nspec:\n  \
         group: {group}\n  scope: Namespaced\n  names: {{kind: Widget, plural: widgets, singular: widget}}\n  \
         versions:\n{versions}"
    )
}

fn widget(group: &str, version: &str, spec: &str) -> String {
    format!("apiVersion: {group}/{version}\nkind: Widget\nmetadata: {{name: w}}\nspec: {{{spec}}}\n---\n")
}

#[tokio::test]
async fn a_custom_resource_moves_to_a_new_version_with_a_field_of_it() -> Result<()> {
    let scene = Scene::new("versions").await?;
    let group = &format!("{}.example.test", scene.namespace);
    let write = |widget: String, crd: String| scene.tree.write("app/all.yaml", widget + &crd);
    write(widget(group, "v1beta1", "size: 1"), crd(group, &[("v1beta1", true, SIZE)]))?;
    let first = scene.publish("the resource before its definition").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    let api =
        |version: &str| kubernetes::objects(&scene.client, &scene.namespace, &format!("{group}/{version}"), "Widget");
    let uid = api("v1beta1").get("w").await?.metadata.uid;
    // An entry of another field manager in `metadata.managedFields` that names the old version would prevent the change
    // to the new version, too, as our own entry would.
    let by = PatchParams { field_manager: Some("a-controller".into()), ..PatchParams::default() };
    let note = json!({"metadata": {"annotations": {"note": "theirs"}}});
    api("v1beta1").patch("w", &by, &Patch::Merge(note)).await?;

    let both = crd(group, &[("v1beta1", false, SIZE), ("v1", true, MORE)]);
    write(widget(group, "v1", "size: 1, colour: red"), both.clone())?;
    let second = scene.publish("a new version with a field more").await?;
    scene.is_applied("app", &second).await?;
    let found = api("v1").get("w").await?;
    assert_eq!(found.data["spec"], json!({"size": 1, "colour": "red", "policy": "deny"}));
    assert_eq!(found.metadata.uid, uid);
    let entries = found.metadata.managed_fields.unwrap_or_default();
    let all_new = entries.iter().all(|entry| entry.api_version == Some(format!("{group}/v1")));
    ensure!(all_new && entries.len() >= 2, "{entries:#?}");

    // Fields that leave Git afterwards are removed, and drift is healed.
    write(widget(group, "v1", "size: 2"), both)?;
    let third = scene.publish("without the field").await?;
    scene.is_applied("app", &third).await?;
    assert_eq!(api("v1").get("w").await?.data["spec"], json!({"size": 2, "policy": "deny"}));
    api("v1").patch("w", &by, &Patch::Merge(json!({"spec": {"size": 9}}))).await?;
    crate::traces::event(&scene, "app", "Drifted", &["/w ", "spec.size by a-controller"]).await?;
    assert_eq!(api("v1").get("w").await?.data["spec"]["size"], Value::from(2));

    // A CustomResourceDefinition that lacks a version in which objects are stored is refused, with file and line.
    write(widget(group, "v1", "size: 2"), crd(group, &[("v1", true, MORE)]))?;
    scene.publish("the old version goes").await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    for text in ["app/all.yaml:6: CustomResourceDefinition", "storedVersions", "v1beta1"] {
        ensure!(message.contains(text), "no {text:?} in: {message}");
    }
    Ok(())
}

#[tokio::test]
async fn a_number_or_a_boolean_for_a_text_says_quote_it() -> Result<()> {
    let scene = Scene::new("old-quotes").await?;
    let object = |metadata: &str, data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{{metadata}}}\ndata: {{{data}}}\n")
    };
    for (metadata, data, reason) in [
        ("name: y", "", "InvalidManifest"),
        ("name: 123", "", "InvalidManifest"),
        ("name: a, namespace: no", "", "InvalidManifest"),
        ("name: a, labels: {x: on}", "", "ApplyFailed"),
        ("name: a, annotations: {x: 1}", "", "ApplyFailed"),
        ("name: a", "x: true", "ApplyFailed"),
    ] {
        scene.tree.write("app/a.yaml", object(metadata, data))?;
        let revision = scene.publish(&format!("{metadata}; {data}")).await?;
        scene.sync("app", "./app", json!({})).await?;
        let fits = |sync: &crds::Sync, ready: &crds::Condition| {
            let tried = sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_ref());
            tried == Some(&revision) && ready.reason == reason && ready.message.contains("quote ")
        };
        scene.sync_when("app", metadata, fits).await?;
    }
    Ok(())
}

#[tokio::test]
async fn an_old_version_is_told_with_those_that_are_served() -> Result<()> {
    let scene = Scene::new("old-version").await?;
    for (api_version, kind, served) in
        [("extensions/v1beta1", "Ingress", "networking.k8s.io/v1"), ("apps/v1beta1", "Deployment", "apps/v1")]
    {
        let text = format!("apiVersion: {api_version}\nkind: {kind}\nmetadata: {{name: web}}\n");
        scene.tree.write("app/a.yaml", text)?;
        scene.publish(api_version).await?;
        scene.sync("app", "./app", json!({})).await?;
        let told = format!("no kind {kind} in {api_version}; it serves {kind} in {served}: change apiVersion");
        scene
            .sync_when("app", &told, |_, ready| ready.reason == "UnknownKind" && ready.message.contains(&told))
            .await?;
        gitseal(&scene, &["diff", "app"]).await?.is(2, &[&told])?;
    }
    Ok(())
}
