//! Tenants: a Sync writes with the rights of its service account, and reads only from Repositories in its own namespace.

use std::fmt::Debug;

use anyhow::{Context, Result, ensure};
use crds::names::SYNC_NAME;
use harness::{
    Plane, Scene,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::{core::v1::ConfigMap, rbac::v1::ClusterRole};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use localcluster::{AuditEvent, Cluster, ClusterOptions};
use serde_json::{Value, json};

use crate::objects::{config_map, sealed_secret};

const RBAC: &str = "rbac.authorization.k8s.io";

/// Creates a service account with all rights on ConfigMaps, Secrets and SealedSecrets in its namespace, and no other rights.
async fn tenant(scene: &Scene, name: &str) -> Result<()> {
    let rule = json!([{
        "apiGroups": ["", "bitnami.com"], "resources": ["configmaps", "secrets", "sealedsecrets"], "verbs": ["*"],
    }]);
    scene.account(name, rule).await
}

/// The controller's write requests for this resource in this namespace.
fn writes(cluster: &Cluster, resource: &str, namespace: &str) -> Result<Vec<AuditEvent>> {
    let mut requests = cluster.requests()?;
    requests.retain(|request| {
        let is_write = ["create", "update", "patch", "delete"].contains(&request.verb.as_str());
        let is_ours = request.uri.contains("fieldManager=gitseal") || request.impersonated.is_some();
        is_write && is_ours && request.resource == resource && request.namespace == namespace
    });
    Ok(requests)
}

fn account(scene: &Scene, name: &str) -> String {
    format!("system:serviceaccount:{}:{name}", scene.namespace)
}

/// Waits until this revision is refused, and returns the message.
async fn refused(scene: &Scene, sync: &str, revision: &str, reason: &str) -> Result<String> {
    let is_refused = |sync: &crds::Sync, ready: &crds::Condition| {
        let attempted = sync.status.as_ref().and_then(|status| status.last_attempted_revision.as_deref());
        attempted == Some(revision) && ready.reason == reason
    };
    scene.sync_when(sync, &format!("{revision} to be refused with {reason}"), is_refused).await?;
    scene.is_not_ready(sync, reason).await
}

#[tokio::test]
async fn a_sync_writes_as_its_service_account() -> Result<()> {
    let scene = Scene::new("tenant").await?;
    tenant(&scene, "tenant").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    scene.tree.write("app/old.yaml", config_map("old", "1"))?;
    scene.tree.write("app/db.yaml", sealed_secret("db", &scene.seal("db", b"tenants-value").await?))?;
    let first = scene.publish("what the tenant may").await?;
    scene.sync("app", "./app", json!({"serviceAccountName": "tenant"})).await?;
    scene.is_applied("app", &first).await?;
    scene.has("v1", "Secret", "db", json!({})).await?;
    scene.tree.remove("app/old.yaml")?;
    let second = scene.publish("one goes").await?;
    scene.is_applied("app", &second).await?;
    scene.is_gone("v1", "ConfigMap", "old").await?;

    let cluster = &Plane::shared().await?.cluster;
    for (resource, least) in [("configmaps", 3), ("secrets", 1), ("sealedsecrets", 1)] {
        let writes = writes(cluster, resource, &scene.namespace)?;
        ensure!(writes.len() >= least, "{writes:?}");
        for write in writes {
            assert_eq!(write.impersonated, Some(account(&scene, "tenant")), "{write:?}");
        }
    }

    // When the Sync is deleted, its objects are deleted. For this, too, the controller uses the rights of the tenant.
    scene.api::<crds::Sync>().delete("app", &DeleteParams::default()).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    assert!(scene.get("v1", "ConfigMap", "settings").await?.is_none());
    for write in writes(cluster, "configmaps", &scene.namespace)? {
        assert_eq!(write.impersonated, Some(account(&scene, "tenant")), "{write:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_the_service_account_may_not_is_refused_with_its_place() -> Result<()> {
    let scene = Scene::new("tenant-refused").await?;
    let victim = Scene::new("tenant-victim").await?;
    tenant(&scene, "tenant").await?;
    let exists =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "exists"}, "stringData": {"a": "theirs"}});
    kubernetes::apply(&victim.client, &victim.namespace, exists.clone()).await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let first = scene.publish("what the tenant may").await?;
    scene.sync("app", "./app", json!({"serviceAccountName": "tenant"})).await?;
    scene.is_applied("app", &first).await?;

    let role = format!("taken-by-{}", scene.namespace);
    let wide = |name: &str| {
        let value = Plane::shared();
        let name = name.to_owned();
        let namespace = victim.namespace.clone();
        async move {
            let certificate = sealing::Certificate::from_pem(value.await?.certificate.as_bytes())?;
            let binding = sealing::Scope::Strict.binding(&namespace, &name, "password");
            let sealed = sealing::seal(&certificate, binding, harness::hunt::known(b"smuggled-value"))?;
            anyhow::Ok(sealed_secret(&name, &sealed).replace("{name: ", &format!("{{namespace: {namespace}, name: ")))
        }
    };
    let elsewhere = format!("name: taken\n  namespace: {}", victim.namespace);
    let binding = format!(
        "\napiVersion: {RBAC}/v1\nkind: RoleBinding\nmetadata: {{name: taken}}\nroleRef: {{apiGroup: {RBAC}, kind: \
         ClusterRole, name: cluster-admin}}\nsubjects: [{{kind: ServiceAccount, name: tenant, namespace: default}}]\n"
    );
    for (text, place, object) in [
        (
            format!("# a comment\napiVersion: {RBAC}/v1\nkind: ClusterRole\nmetadata: {{name: {role}}}\nrules: []\n"),
            "app/bad.yaml:2: ",
            format!("ClusterRole {role}"),
        ),
        (config_map("taken", "1").replace("name: taken", &elsewhere), "app/bad.yaml:1: ", "ConfigMap".to_owned()),
        (binding, "app/bad.yaml:2: ", "RoleBinding".to_owned()),
        (wide("new").await?, "app/bad.yaml:1: ", "SealedSecret".to_owned()),
        (wide("exists").await?, "app/bad.yaml:1: ", "SealedSecret".to_owned()),
    ] {
        scene.tree.write("app/bad.yaml", text)?;
        let revision = scene.publish("what the tenant may not").await?;
        let message = refused(&scene, "app", &revision, "Forbidden").await?;
        for part in [place, &object, &account(&scene, "tenant"), "cannot patch resource"] {
            assert!(message.contains(part), "no {part:?} in: {message}");
        }
        assert!(!message.contains("already exists and is not managed"), "it tells what others have: {message}");
        assert!(!message.contains("smuggled-value"), "{message}");
    }

    // None of these objects exists.
    assert!(Api::<ClusterRole>::all(scene.client.clone()).get_opt(&role).await?.is_none());
    let marked = ListParams::default().labels(SYNC_NAME);
    let maps = Api::<ConfigMap>::namespaced(scene.client.clone(), &victim.namespace).list(&marked).await?;
    assert!(maps.items.is_empty(), "{maps:?}");
    for (api_version, kind, name) in [
        ("v1", "ConfigMap", "taken"),
        ("bitnami.com/v1alpha1", "SealedSecret", "new"),
        ("bitnami.com/v1alpha1", "SealedSecret", "exists"),
        ("v1", "Secret", "new"),
    ] {
        assert!(victim.get(api_version, kind, name).await?.is_none(), "{kind} {name}");
    }
    let secret = victim.get("v1", "Secret", "exists").await?.context("Secret")?;
    assert!(secret["metadata"]["labels"].is_null() && secret["metadata"]["annotations"].is_null(), "{secret:#}");
    assert!(scene.get(&format!("{RBAC}/v1"), "RoleBinding", "taken").await?.is_none());

    // The tenant cannot prevent others from creating these objects: the owner of the namespace can still create them.
    victim.tree.write("app/taken.yaml", config_map("taken", "mine"))?;
    let theirs = victim.publish("its rightful owner").await?;
    victim.sync("app", "./app", json!({})).await?;
    victim.is_applied("app", &theirs).await?;

    // Objects that the tenant may write are still applied.
    scene.tree.remove("app/bad.yaml")?;
    scene.tree.write("app/settings.yaml", config_map("settings", "2"))?;
    let last = scene.publish("back to what the tenant may").await?;
    scene.is_applied("app", &last).await?;
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": "2"}})).await?;
    Ok(())
}

#[tokio::test]
async fn a_repository_of_another_namespace_is_out_of_reach() -> Result<()> {
    let owner = Scene::new("repo-owner").await?;
    let thief = Scene::new("repo-thief").await?;
    owner.tree.write("app/settings.yaml", config_map("stolen", "1"))?;
    owner.publish("private").await?;
    thief.sync("app", "./app", json!({"repository": {"name": "repo", "namespace": owner.namespace}})).await?;
    let message = thief.is_not_ready("app", "AccessDenied").await?;
    assert!(message.contains("--allow-cross-namespace"), "{message}");
    // The message is the same for a Repository that does not exist, so it does not reveal what others have.
    thief.sync("other", "./app", json!({"repository": {"name": "no-such", "namespace": owner.namespace}})).await?;
    assert_eq!(thief.is_not_ready("other", "AccessDenied").await?, message.replace("/repo ", "/no-such "));
    assert!(thief.get("v1", "ConfigMap", "stolen").await?.is_none());
    Ok(())
}

/// Tries to give a Sync an invalid name of a service account, and returns the error.
async fn hostile<P: serde::Serialize + Debug>(scene: &Scene, sync: &str, name: P) -> Result<String> {
    let patch = json!({"spec": {"serviceAccountName": name}});
    let api = scene.api::<crds::Sync>();
    let refused = api.patch(sync, &PatchParams::default(), &Patch::Merge(&patch)).await;
    let error = refused.err().with_context(|| format!("{name:?} was accepted"))?;
    Ok(error.to_string())
}

#[tokio::test]
async fn the_name_of_a_service_account_cannot_carry_more_than_a_name() -> Result<()> {
    let scene = Scene::new("tenant-hostile").await?;
    tenant(&scene, "tenant").await?;
    scene.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    let first = scene.publish("first").await?;
    scene.sync("app", "./app", json!({"serviceAccountName": "tenant"})).await?;
    scene.is_applied("app", &first).await?;
    for name in [
        "tenant\r\nImpersonate-Group: system:masters",
        "tenant\nImpersonate-Group: system:masters",
        "tenänt",
        "..:admin",
        "a/b",
        "",
    ] {
        let message = hostile(&scene, "app", name).await?;
        assert!(message.contains("serviceAccountName"), "{message}");
    }
    scene.tree.write("app/settings.yaml", config_map("settings", "2"))?;
    let second = scene.publish("second").await?;
    scene.is_applied("app", &second).await?;
    Ok(())
}

#[tokio::test]
async fn a_default_service_account_binds_every_sync_and_repositories_are_shared_on_demand() -> Result<()> {
    let options = ClusterOptions { audit: true, controller_manager: false, ..ClusterOptions::default() };
    let plane = Plane::without_controller(options).await?;
    let folder = plane.folder();
    let mut options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    options.arguments.extend(["--default-service-account=default", "--allow-cross-namespace"].map(str::to_owned));
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let owner = Scene::on(&plane, "shared-repo", ServerOptions::default()).await?;
    let tenants = Scene::on(&plane, "bound", ServerOptions::default()).await?;
    owner.tree.write("app/settings.yaml", config_map("settings", "1"))?;
    owner.repository(json!({})).await?;
    let revision = owner.publish("shared").await?;
    let spec = json!({"repository": {"name": "repo", "namespace": owner.namespace}});
    tenants.sync("app", "./app", spec.clone()).await?;
    // This control plane does not create the account `default` in each namespace, so the test does.
    tenants.account("default", json!([])).await?;
    let message = tenants.is_not_ready("app", "Forbidden").await?;
    for part in ["app/settings.yaml:1: ", "ConfigMap", &account(&tenants, "default")] {
        assert!(message.contains(part), "no {part:?} in: {message}");
    }
    assert!(tenants.get("v1", "ConfigMap", "settings").await?.is_none());

    tenant(&tenants, "default").await?;
    tenants.is_applied("app", &revision).await?;
    tenant(&tenants, "named").await?;
    let mut spec: Value = spec;
    spec["serviceAccountName"] = "named".into();
    tenants.sync("app", "./app", spec).await?;
    owner.tree.write("app/settings.yaml", config_map("settings", "2"))?;
    let revision = owner.publish("changed").await?;
    tenants.is_applied("app", &revision).await?;
    // Values of charts may come from a Repository of another namespace, too.
    for (path, text) in [
        ("chart/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n"),
        ("chart/templates/map.yaml", &config_map("of-chart", "{{ .Values.value }}")),
        ("values.yaml", "value: shared\n"),
    ] {
        owner.tree.write(path, text)?;
    }
    let revision = owner.publish("a chart").await?;
    let shared = json!({"name": "repo", "namespace": owner.namespace});
    let values = json!([{"repository": shared, "file": "values.yaml"}]);
    let chart = json!({"repository": shared, "serviceAccountName": "named", "helm": {"valuesFrom": values}});
    tenants.sync("chart", "./chart", chart).await?;
    tenants.is_applied("chart", &revision).await?;
    tenants.has("v1", "ConfigMap", "of-chart", json!({"data": {"value": "shared"}})).await?;
    let writes = writes(&plane.cluster, "configmaps", &tenants.namespace)?;
    let by: Vec<_> = writes.iter().filter(|write| write.code < 300).map(|write| write.impersonated.clone()).collect();
    assert_eq!(by.first(), Some(&Some(account(&tenants, "default"))), "{writes:?}");
    assert_eq!(by.last(), Some(&Some(account(&tenants, "named"))), "{writes:?}");
    assert!(by.iter().all(Option::is_some), "{writes:?}");
    Ok(())
}
