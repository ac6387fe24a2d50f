//! Our controller replaces the Sealed Secrets controller, and only the image is changed. So it has only the
//! CustomResourceDefinition and exactly the role of Sealed Secrets.

use anyhow::{Result, bail, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::{ConditionStatus, SealedSecret};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::{
    api::core::v1::{Event, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use localcluster::{AuditEvent, ClusterOptions};
use serde_json::{Value, json};

use crate::{handover::Sealer, objects::apply_cluster_wide};

const USER: &str = "their-controller";

/// Creates the role with the rules of `controller.jsonnet` and of the Helm chart at v0.36.6.
async fn their_role(client: &Client) -> Result<()> {
    let rbac = "rbac.authorization.k8s.io";
    let rule = |group: &str, resource: &str, verbs: &[&str]| json!({"apiGroups": [group], "resources": [resource], "verbs": verbs});
    let role = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "ClusterRole", "metadata": {"name": "secrets-unsealer"},
        "rules": [
            rule("bitnami.com", "sealedsecrets", &["get", "list", "watch"]),
            rule("bitnami.com", "sealedsecrets/status", &["update"]),
            rule("", "secrets", &["get", "list", "create", "update", "delete", "watch"]),
            rule("", "events", &["create", "patch"]),
            rule("", "namespaces", &["get"]),
        ],
    });
    apply_cluster_wide(client, role).await?;
    let keys = json!({
        "apiVersion": format!("{rbac}/v1"), "kind": "Role", "metadata": {"name": "sealed-secrets-key-admin"},
        "rules": [rule("", "secrets", &["create", "list"])],
    });
    kubernetes::apply(client, "kube-system", keys).await?;
    let subjects = json!([{"apiGroup": rbac, "kind": "User", "name": USER}]);
    let binding = |kind: &str, role_kind: &str, role: &str| {
        json!({
            "apiVersion": format!("{rbac}/v1"), "kind": kind, "metadata": {"name": "sealed-secrets-controller"},
            "roleRef": {"apiGroup": rbac, "kind": role_kind, "name": role}, "subjects": subjects,
        })
    };
    apply_cluster_wide(client, binding("ClusterRoleBinding", "ClusterRole", "secrets-unsealer")).await?;
    kubernetes::apply(client, "kube-system", binding("RoleBinding", "Role", "sealed-secrets-key-admin")).await?;
    Ok(())
}

async fn remove_crds(client: &Client) -> Result<()> {
    let crds = Api::<CustomResourceDefinition>::all(client.clone());
    for name in ["repositories.gitseal.dev", "syncs.gitseal.dev"] {
        crds.delete(name, &DeleteParams::default()).await?;
        eventually("the CRD to be gone", || async {
            ensure!(crds.get_opt(name).await?.is_none(), "{name} is still there");
            Ok(())
        })
        .await?;
    }
    Ok(())
}

async fn put(scene: &Scene, sealer: &Sealer, name: &str, values: &[(&str, &str)]) -> Result<()> {
    let mut sealed = serde_json::Map::new();
    for (key, value) in values {
        sealed.insert((*key).into(), sealer.seal(name, value)?.into());
    }
    let object = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": name},
        "spec": {"encryptedData": sealed, "template": {"metadata": {"labels": {"team": "a"}}, "immutable": false}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, object).await.map(|_| ())
}

/// Waits until the Secret has exactly these values, and the SealedSecret is Synced.
async fn is_unsealed(scene: &Scene, name: &str, values: &[(&str, &str)]) -> Result<Value> {
    let data: serde_json::Map<_, _> =
        values.iter().map(|(key, value)| ((*key).to_owned(), json!(STANDARD.encode(value)))).collect();
    let secret = eventually(&format!("Secret {name} with {data:?}"), || async {
        let secret = scene.get("v1", "Secret", name).await?.unwrap_or_default();
        ensure!(secret["data"] == json!(data), "{secret:#}");
        Ok(secret)
    })
    .await?;
    eventually(&format!("SealedSecret {name} to be Synced"), || async {
        let sealed = scene.api::<SealedSecret>().get(name).await?;
        let status = sealed.status.unwrap_or_default();
        let is_synced = status.condition("Synced").is_some_and(|synced| synced.status == ConditionStatus::True);
        ensure!(is_synced && status.observed_generation == sealed.metadata.generation, "{status:?}");
        Ok(())
    })
    .await?;
    Ok(secret)
}

async fn edit(scene: &Scene, name: &str, change: Value) -> Result<()> {
    scene.api::<Secret>().patch(name, &PatchParams::default(), &Patch::Merge(&change)).await?;
    Ok(())
}

/// Creates a Secret by hand, with an annotation for the controller.
async fn plain(scene: &Scene, name: &str, annotation: &str) -> Result<()> {
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"theirs": "kept", "a": "one"},
        "metadata": {"name": name, "annotations": {annotation: "true"}, "labels": {"theirs": "kept"}},
    });
    scene.api::<Secret>().create(&PostParams::default(), &serde_json::from_value(secret)?).await?;
    Ok(())
}

fn requests(plane: &Plane) -> Result<Vec<AuditEvent>> {
    let mut requests = plane.cluster.requests()?;
    requests.retain(|request| request.user == USER);
    Ok(requests)
}

#[tokio::test]
async fn sealed_secrets_work_in_full_with_the_role_and_the_kind_of_sealed_secrets_alone() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions { audit: true, ..ClusterOptions::default() }).await?;
    let scene = Scene::on(&plane, "their-role", ServerOptions::default()).await?;
    remove_crds(&scene.client).await?;
    their_role(&scene.client).await?;
    let kubeconfig = plane.cluster.kubeconfig_for(USER, &[])?;
    let folder = plane.folder();
    let options = ControllerOptions::new(&kubeconfig, &folder);
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    // The log says which features are off because of missing rights, and how to get them.
    let log = controller.log();
    for text in ["nothing is applied from Git", "works without a lease", "Secrets are replaced as a whole"] {
        let line = log.lines().find(|line| line.contains(text));
        ensure!(line.is_some_and(|line| line.contains("gitseal install --apply")), "no {text:?} in:\n{log}");
    }
    ensure!(!log.contains("ERROR"), "{log}");
    ensure!(!folder.join("git").exists(), "there may be no volume in that Deployment");

    let sealer = Sealer::new(scene.client.clone(), &scene.namespace, &controller).await?;
    all_of_it(&scene, &sealer).await?;

    // No request was forbidden except those for leases, and nothing was written again and again.
    let all = requests(&plane)?;
    let forbidden: Vec<_> = all.iter().filter(|request| request.code == 403 && request.resource != "leases").collect();
    ensure!(forbidden.is_empty(), "{forbidden:#?}");
    put(&scene, &sealer, "once", &[("a", "one"), ("b", "two")]).await?;
    is_unsealed(&scene, "once", &[("a", "one"), ("b", "two")]).await?;
    put(&scene, &sealer, "later", &[("a", "one")]).await?;
    is_unsealed(&scene, "later", &[("a", "one")]).await?;
    let all = requests(&plane)?;
    let writes = |resource: &str, verb: &str| {
        // A conflict (409) does not count as a write: the controller may send another status before the watch has shown
        // the first status to it.
        let is_written = |request: &&AuditEvent| {
            (request.resource.as_str(), request.verb.as_str()) == (resource, verb)
                && request.name == "once"
                && request.code == 200
        };
        all.iter().filter(is_written).count()
    };
    assert_eq!((writes("secrets", "update"), writes("sealedsecrets/status", "update")), (1, 1), "{all:#?}");

    // After a restart, the controller writes nothing that is already written.
    controller.kill()?;
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    put(&scene, &sealer, "last", &[("a", "one")]).await?;
    is_unsealed(&scene, "last", &[("a", "one")]).await?;
    let after = requests(&plane)?.split_off(all.len());
    let rewritten = |request: &&AuditEvent| {
        request.resource.starts_with("se") && request.verb == "update" && request.name != "last"
    };
    let rewritten: Vec<_> = after.iter().filter(rewritten).collect();
    ensure!(rewritten.is_empty(), "{rewritten:#?}");

    // When the controller gets more rights and the kinds of gitseal exist, it ends, so that it is started again with
    // all features. From then on, Syncs are applied.
    kubernetes::install_crds(&scene.client).await?;
    let admin = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding", "metadata": {"name": "more"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "cluster-admin"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}],
    });
    apply_cluster_wide(&scene.client, admin).await?;
    let code = eventually("the controller to end", || {
        let code = controller.process().try_wait();
        async move { code?.map_or_else(|| bail!("it still runs"), Ok) }
    })
    .await?;
    assert_eq!(code, 0, "{}", controller.log());
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    put(&scene, &sealer, "once", &[("a", "changed")]).await?;
    is_unsealed(&scene, "once", &[("a", "changed")]).await?;
    Ok(())
}

/// Takes a SealedSecret through everything that can happen to it.
async fn all_of_it(scene: &Scene, sealer: &Sealer) -> Result<()> {
    put(scene, sealer, "db", &[("a", "one"), ("b", "two")]).await?;
    let made = is_unsealed(scene, "db", &[("a", "one"), ("b", "two")]).await?;
    assert_eq!(made["metadata"]["labels"], json!({"team": "a"}));
    assert_eq!(made["metadata"]["ownerReferences"][0]["name"], "db");
    let uid = made["metadata"]["uid"].clone();
    put(scene, sealer, "db", &[("a", "changed"), ("c", "three")]).await?;
    let changed = is_unsealed(scene, "db", &[("a", "changed"), ("c", "three")]).await?;
    assert_eq!(changed["metadata"]["uid"], uid, "it was changed, not made anew");

    // Changes by others are undone.
    let now = [("a", "changed"), ("c", "three")];
    for change in [
        json!({"stringData": {"a": "edited"}}),
        json!({"data": {"c": null}}),
        json!({"stringData": {"more": "by hand"}}),
        json!({"metadata": {"labels": {"team": "b"}, "ownerReferences": null}}),
    ] {
        edit(scene, "db", change).await?;
        is_unsealed(scene, "db", &now).await?;
        scene.has("v1", "Secret", "db", json!({"metadata": {"labels": {"team": "a"}, "uid": uid}})).await?;
    }
    scene.api::<Secret>().delete("db", &DeleteParams::default()).await?;
    is_unsealed(scene, "db", &now).await?;

    // A Secret of somebody else is left as it is, is taken over, or gets more values, depending on its annotations.
    plain(scene, "foreign", "example.com/nothing").await?;
    put(scene, sealer, "foreign", &[("a", "one")]).await?;
    eventually("it to be refused", || async {
        let status = scene.api::<SealedSecret>().get("foreign").await?.status.unwrap_or_default();
        let is_refused =
            status.condition("Synced").is_some_and(|synced| synced.message.contains("is not managed by SealedSecret"));
        ensure!(is_refused, "{status:?}");
        Ok(())
    })
    .await?;
    plain(scene, "managed", crds::names::MANAGED).await?;
    put(scene, sealer, "managed", &[("a", "one")]).await?;
    let managed = is_unsealed(scene, "managed", &[("a", "one")]).await?;
    assert_eq!(managed["metadata"]["ownerReferences"][0]["name"], "managed");
    plain(scene, "merged", crds::names::PATCH).await?;
    put(scene, sealer, "merged", &[("a", "one"), ("b", "two")]).await?;
    let merged = is_unsealed(scene, "merged", &[("a", "one"), ("b", "two"), ("theirs", "kept")]).await?;
    assert_eq!(merged["metadata"]["labels"], json!({"team": "a", "theirs": "kept"}));
    assert!(merged["metadata"]["ownerReferences"].is_null(), "{merged:#}");

    let events = scene.api::<Event>();
    eventually("the events", || async {
        let all = events.list(&ListParams::default()).await?;
        let reasons: std::collections::BTreeSet<_> = all.iter().filter_map(|event| event.reason.as_deref()).collect();
        ensure!(reasons.is_superset(&["Unsealed", "ErrUpdateFailed"].into()), "{reasons:?}");
        Ok(())
    })
    .await?;
    scene.api::<SealedSecret>().delete("db", &DeleteParams::default()).await?;
    scene.is_gone("v1", "Secret", "db").await
}
