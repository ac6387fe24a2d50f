//! Kinds that only the tenant's folder defines.

use anyhow::{Result, ensure};
use serde_json::json;

use super::Case;

#[tokio::test]
async fn a_kind_that_only_a_folder_defines_is_watched_for_nobody() -> Result<()> {
    let case = Case::new("escape-kinds").await?;
    // This definition has no group, so it looks like one of Kubernetes' own kinds, in a version that does not exist.
    // Because of its wave, it is applied last.
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "podtemplates.example.com", "annotations": {crds::names::WAVE: "1000"}},
        "spec": {
            "names": {"kind": "PodTemplate", "plural": "podtemplates"}, "scope": "Namespaced",
            "versions": [{"name": "v9", "served": true}],
        },
    });
    let object = json!({"apiVersion": "v9", "kind": "PodTemplate", "metadata": {"name": "own"}});
    let ended = case.tries("a kind in a version that nobody serves", &format!("{definition}\n---\n{object}\n")).await?;
    ensure!(ended.reason == "ApplyFailed" && ended.message.contains("own"), "{}: {}", ended.reason, ended.message);

    let template = json!({
        "apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "theirs"},
        "template": {"spec": {"containers": [{"name": "a", "image": "a"}]}},
    });
    case.victim.tree.write("app/template.yaml", format!("{template}\n"))?;
    let revision = case.victim.publish("the kind in the version that is served").await?;
    case.victim.is_applied("shop", &revision).await?;
    case.victim.has("v1", "PodTemplate", "theirs", json!({})).await?;
    case.victim_goes_on().await
}

#[tokio::test]
async fn kinds_that_there_are_not_cost_no_request_each() -> Result<()> {
    let case = Case::new("escape-made-up").await?;
    let thing = |number: usize| {
        let version = match number % 3 {
            0 => format!("nowhere-{number}.example.com/v1"),
            1 => format!("apps/nowhere-{number}"),
            _ => format!("nowhere-{number}"),
        };
        let name = format!("a-{number}");
        format!("---\n{}\n", json!({"apiVersion": version, "kind": "Thing", "metadata": {"name": name}}))
    };
    case.is_refused("a thousand kinds", &(0..1000).map(thing).collect::<String>(), "UnknownKind").await?;
    let mut asked = case.plane.cluster.requests()?;
    asked.retain(|request| request.uri.contains("nowhere"));
    ensure!(asked.is_empty(), "{asked:#?}");
    case.victim_goes_on().await
}
