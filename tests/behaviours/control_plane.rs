//! Changes and refusals by the control plane itself: aggregated roles, and webhooks that refuse.

use anyhow::{Result, ensure};
use harness::{Plane, Scene, eventually, kubernetes};
use kube::{
    Api,
    api::{DynamicObject, Patch, PatchParams},
};
use serde_json::{Value, json};

use crate::{
    objects::config_map,
    traces::{event, events},
};

/// Objects of a cluster-wide kind.
fn cluster_wide(scene: &Scene, api_version: &str, kind: &str) -> Api<DynamicObject> {
    Api::all_with(scene.client.clone(), &kubernetes::resource(api_version, kind))
}

/// How often the controller applied the cluster-wide object.
async fn applies(name: &str) -> Result<usize> {
    let requests = Plane::shared().await?.cluster.requests()?;
    let ours = format!("fieldManager={}&", crds::FIELD_MANAGER);
    Ok(requests.iter().filter(|request| request.name == name && request.uri.contains(&ours)).count())
}

#[tokio::test]
async fn an_aggregated_role_is_left_to_its_aggregator() -> Result<()> {
    let scene = Scene::new("aggregated").await?;
    let (namespace, rbac) = (&scene.namespace, "rbac.authorization.k8s.io/v1");
    let role = |name: &str, more: &str| {
        format!("---\napiVersion: {rbac}\nkind: ClusterRole\nmetadata: {{name: {namespace}-{name}{more}}}\n")
    };
    let rule = format!("aggregationRule: {{clusterRoleSelectors: [{{matchLabels: {{{namespace}: sum}}}}]}}\n");
    let roles = [
        role("without", "") + &rule,
        role("empty", "") + &rule + "rules: []\n",
        role("wrong", "") + &rule + "rules: [{apiGroups: [''], resources: [nodes], verbs: [get]}]\n",
        role("part", &format!(", labels: {{{namespace}: sum}}"))
            + "rules: [{apiGroups: [''], resources: [pods], verbs: [get]}]\n",
    ];
    scene.tree.write("app/roles.yaml", roles.concat())?;
    scene.tree.write("app/marker.yaml", config_map("marker", "from-git"))?;
    let first = scene.publish("roles").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    let api = cluster_wide(&scene, rbac, "ClusterRole");
    let names = ["without", "empty", "wrong"].map(|name| format!("{namespace}-{name}"));
    let filled = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get"]}]);
    for name in &names {
        eventually("the role to be filled in", || async {
            let role = api.get(name).await?;
            ensure!(role.data["rules"] == filled, "{:#}", role.data);
            Ok(())
        })
        .await?;
    }
    // This later change is seen as drift. So the aggregator's change was seen before, and was not taken for drift.
    let by_hand = json!({"aggregationRule": {"clusterRoleSelectors": [{"matchLabels": {"by": "hand"}}]}});
    let part = json!({"rules": []});
    api.patch(&names[0], &PatchParams::default(), &Patch::Merge(by_hand)).await?;
    event(&scene, "app", "Drifted", &[&names[0]]).await?;
    api.patch(&format!("{namespace}-part"), &PatchParams::default(), &Patch::Merge(part)).await?;
    event(&scene, "app", "Drifted", &["-part "]).await?;
    for name in &names {
        eventually("the role to be filled in again", || async {
            let role = api.get(name).await?;
            ensure!(role.data["rules"] == filled, "{:#}", role.data);
            Ok(())
        })
        .await?;
    }
    scene.tree.write("app/marker.yaml", config_map("marker", "second"))?;
    let second = scene.publish("a commit that leaves them alone").await?;
    scene.is_applied("app", &second).await?;
    assert_eq!(applies(&names[1]).await?, 1);
    assert_eq!(applies(&names[2]).await?, 1);
    let drifted = events(&scene, "app", "Drifted").await?;
    ensure!(drifted.iter().all(|note| !note.contains(&names[1]) && !note.contains(&names[2])), "{drifted:#?}");
    Ok(())
}

fn webhook(name: &str, namespace: &str) -> String {
    format!(
        "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: {name}}}\n\
         webhooks:\n- name: gate.example.test\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  \
         failurePolicy: Fail\n  timeoutSeconds: 1\n  \
         namespaceSelector: {{matchLabels: {{kubernetes.io/metadata.name: {namespace}}}}}\n  \
         rules: [{{apiGroups: [''], apiVersions: [v1], resources: [configmaps], operations: [CREATE, UPDATE, DELETE]}}]\n  \
         clientConfig: {{service: {{namespace: {namespace}, name: nobody}}}}\n"
    )
}

#[tokio::test]
async fn a_webhook_that_refuses_the_commit_that_removes_it_goes_first() -> Result<()> {
    let scene = Scene::new("gate").await?;
    let name = format!("{}-gate", scene.namespace);
    for map in ["changed", "gone"] {
        let path = format!("app/{map}.yaml");
        scene.tree.write(&path, config_map(map, "first"))?;
    }
    scene.tree.write("app/gate.yaml", webhook(&name, &scene.namespace))?;
    let first = scene.publish("a webhook that nobody serves").await?;
    scene.sync("app", "./app", json!({"pruneLimit": "100%"})).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.write("app/changed.yaml", config_map("changed", "second"))?;
    scene.publish("it refuses this").await?;
    let message = scene.is_not_ready("app", "ApplyFailed").await?;
    ensure!(message.contains("gate.example.test"), "{message}");

    scene.tree.remove("app/gate.yaml")?;
    scene.tree.remove("app/gone.yaml")?;
    let third = scene.publish("no webhook").await?;
    scene.is_applied("app", &third).await?;
    scene.has("v1", "ConfigMap", "changed", json!({"data": {"value": "second"}})).await?;
    scene.is_gone("v1", "ConfigMap", "gone").await?;
    let gate = cluster_wide(&scene, "admissionregistration.k8s.io/v1", "ValidatingWebhookConfiguration");
    assert_eq!(gate.get_opt(&name).await?.map(|found| found.data), None::<Value>);
    Ok(())
}
