//! Charts that look something up in the cluster.

use anyhow::{Context as _, Result, ensure};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    kubernetes,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, Patch, PatchParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use super::inputs::{Reader, chart, reads};
use crate::{
    cli::gitseal,
    objects::{apply_cluster_wide, change_by_hand, define, is_value, widgets},
    renders::rendered,
    traces::event,
};

/// A template of a ConfigMap `NAME-map` with the result of an expression.
fn map_with(expression: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: \"{{{{ .Release.Name }}}}-map\"}}\ndata:\n  value: {{{{ {expression} \
         | quote }}}}\n"
    )
}

/// A template of a ConfigMap `NAME-map` with the names of the objects that `lookup` finds, each with a space behind it.
fn map_with_names(lookup: &str) -> String {
    format!(
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: \"{{{{ .Release.Name }}}}-map\"}}\ndata:\n  value: \"{{{{ range \
         ({lookup}).items }}}}{{{{ .metadata.name }}}} {{{{ end }}}}\"\n"
    )
}

/// The region in the ConfigMap `cluster`, or `none`.
const REGION: &str = "lookup \"v1\" \"ConfigMap\" .Release.Namespace \"cluster\" | dig \"data\" \"region\" \"none\"";

/// `spec` of a Sync whose chart may look up these entries.
fn looking_up(entries: &Value) -> Value {
    json!({"helm": {"lookup": entries}})
}

fn the_map() -> Value {
    json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "cluster"}])
}

/// Makes or changes the ConfigMap `cluster`, which nobody applies from Git.
async fn cluster(scene: &Scene, region: &str) -> Result<()> {
    let map =
        json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "cluster"}, "data": {"region": region}});
    kubernetes::apply(&scene.client, &scene.namespace, map).await.map(drop)
}

#[tokio::test]
async fn a_chart_finds_what_its_sync_lists_and_is_rendered_again_when_it_changes() -> Result<()> {
    let options = ClusterOptions { controller_manager: false, audit: true, ..Default::default() };
    let plane = Plane::without_controller(options).await?;
    let folder = plane.folder();
    let options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let scene = Scene::on(&plane, "lookups", ServerOptions::default()).await?;
    chart(&scene, "charts/web", &[("map", &map_with(REGION))])?;
    scene.repository(json!({})).await?;
    let revision = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", looking_up(&the_map())).await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "none").await?;
    for region in ["north", "south"] {
        cluster(&scene, region).await?;
        is_value(&scene, "app-map", region).await?;
    }
    scene.is_ready("app").await?;
    assert_eq!(rendered(&controller, "helm").await?, 3);

    // A write that changes nothing for a chart: another program writes what is there already.
    let before = reads(&plane, &scene, "cluster")?.len();
    let same = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"region": "south"}});
    let another = PatchParams::apply("another-program").force();
    scene.api::<ConfigMap>().patch("cluster", &another, &Patch::Apply(&same)).await?;
    eventually("the ConfigMap to be read again", || async {
        ensure!(reads(&plane, &scene, "cluster")?.len() > before);
        Ok(())
    })
    .await?;
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "south").await?;
    assert_eq!(rendered(&controller, "helm").await?, 3);

    // After a restart, nothing is rendered, and a change by hand is noticed and put back all the same.
    controller.stop()?;
    controller = Controller::start(&options)?;
    controller.ready().await?;
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "south").await?;
    assert_eq!(rendered(&controller, "helm").await?, 0);
    controller.stop()?;
    cluster(&scene, "west").await?;
    controller = Controller::start(&options)?;
    controller.ready().await?;
    is_value(&scene, "app-map", "west").await?;
    scene.api::<ConfigMap>().delete("cluster", &DeleteParams::default()).await?;
    is_value(&scene, "app-map", "none").await
}

#[tokio::test]
async fn a_lookup_without_a_name_finds_all_objects_of_the_namespace() -> Result<()> {
    let scene = Scene::new("lookup-all").await?;
    let names = map_with_names("lookup \"v1\" \"ServiceAccount\" .Release.Namespace \"\"");
    chart(&scene, "charts/web", &[("map", &names)])?;
    let revision = scene.publish("a chart").await?;
    for name in ["b", "a"] {
        scene.account(name, json!([])).await?;
    }
    scene.sync("app", "./charts/web", looking_up(&json!([{"apiVersion": "v1", "kind": "ServiceAccount"}]))).await?;
    scene.is_applied("app", &revision).await?;
    let map = scene.api::<ConfigMap>().get("app-map").await?;
    let first = map.data.unwrap_or_default()["value"].clone();
    ensure!(first.starts_with("a b "), "{first}");
    // The command line shows what the controller would do.
    gitseal(&scene, &["diff", "charts/web", "--sync", "app"]).await?.is(0, &[])?;
    scene.account("c", json!([])).await?;
    is_value(&scene, "app-map", &first.replace("a b ", "a b c ")).await?;

    // A chart finds only as many objects as it may read.
    let account = |name: String| json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}});
    for number in 0..100 {
        kubernetes::apply(&scene.client, &scene.namespace, account(format!("many-{number}"))).await?;
    }
    let message = scene.is_not_ready("app", "TooLarge").await?;
    ensure!(message.contains("spec.helm.lookup[0] stands for all v1 ServiceAccount in "), "{message}");
    // What was applied last stays.
    let map = scene.api::<ConfigMap>().get("app-map").await?;
    let last = map.data.unwrap_or_default()["value"].clone();
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", &last).await
}

#[tokio::test]
async fn a_lookup_may_find_the_objects_of_all_namespaces() -> Result<()> {
    let scene = Scene::new("lookup-b").await?;
    let other = Scene::new("lookup-a").await?;
    let version = widgets(&scene).await?;
    let widget = |name: &str| json!({"apiVersion": version, "kind": "Widget", "metadata": {"name": name}});
    let add = async |to: &Scene, name: &str| {
        eventually("the kind to be served", || async {
            kubernetes::apply(&to.client, &to.namespace, widget(name)).await.map(drop)
        })
        .await
    };
    add(&scene, "here").await?;
    add(&other, "there").await?;
    chart(&scene, "charts/web", &[("map", &map_with_names(&format!("lookup \"{version}\" \"Widget\" \"\" \"\"")))])?;
    let revision = scene.publish("a chart").await?;
    let entry = json!([{"apiVersion": version, "kind": "Widget"}]);
    scene.sync("app", "./charts/web", looking_up(&entry)).await?;
    let message = scene.is_not_ready("app", "NotReproducible").await?;
    let told = format!("add {{apiVersion: {version}, kind: Widget, allNamespaces: true}} to helm.lookup of the Sync");
    ensure!(message.contains(&told), "{message}");

    let rules = json!([{"apiGroups": [""], "resources": ["configmaps"], "verbs": ["create", "patch", "delete"]}]);
    scene.account("writer", rules).await?;
    let entry = json!([{"apiVersion": version, "kind": "Widget", "allNamespaces": true}]);
    let mut spec = looking_up(&entry);
    spec["serviceAccountName"] = "writer".into();
    scene.sync("app", "./charts/web", spec).await?;
    let message = scene.is_not_ready("app", "Forbidden").await?;
    let told = format!("may not read all {version} Widget in all namespaces, which spec.helm.lookup[0] names");
    ensure!(message.contains(&told) && message.contains("`list`"), "{message}");
    let (group, _) = version.split_once('/').context("no group")?;
    let rbac = "rbac.authorization.k8s.io";
    let (api_version, name) = (format!("{rbac}/v1"), &scene.namespace);
    for object in [
        json!({
            "apiVersion": api_version, "kind": "ClusterRole", "metadata": {"name": name},
            "rules": [{"apiGroups": [group], "resources": ["widgets"], "verbs": ["list"]}],
        }),
        json!({
            "apiVersion": api_version, "kind": "ClusterRoleBinding", "metadata": {"name": name},
            "roleRef": {"apiGroup": rbac, "kind": "ClusterRole", "name": name},
            "subjects": [{"kind": "ServiceAccount", "name": "writer", "namespace": name}],
        }),
    ] {
        apply_cluster_wide(&scene.client, object).await?;
    }
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "there here ").await?;
    gitseal(&scene, &["diff", "charts/web", "--sync", "app"]).await?.is(0, &[])?;
    add(&other, "here").await?;
    is_value(&scene, "app-map", "here there here ").await?;

    // Whoever may make these objects somewhere can stop the Sync. Its message says who that was.
    for number in 0..98 {
        add(&other, &format!("many-{number}")).await?;
    }
    let message = scene.is_not_ready("app", "TooLarge").await?;
    let told = format!(
        "(of the first 101: 100 in {}, 1 in {}): instead of allNamespaces, name",
        other.namespace, scene.namespace
    );
    ensure!(message.contains(&told), "{message}");

    let mut named = entry.clone();
    named[0]["name"] = "here".into();
    let refused = scene.sync("app", "./charts/web", looking_up(&named));
    let message = format!("{:#}", refused.await.err().context("the API server accepts a name in all namespaces")?);
    ensure!(message.contains("allNamespaces can only be set without namespace and name"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_lookup_that_the_sync_does_not_list_is_refused_with_its_place() -> Result<()> {
    let scene = Scene::new("lookup-refused").await?;
    cluster(&scene, "north").await?;
    chart(&scene, "charts/web", &[("map", &map_with(REGION))])?;
    let secret = "lookup \"v1\" \"Secret\" .Release.Namespace \"db\" | dig \"data\" \"password\" \"none\"";
    chart(&scene, "charts/secret", &[("map", &map_with(secret))])?;
    let revision = scene.publish("charts").await?;
    let entry = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "other"}]);
    scene.sync("app", "./charts/web", looking_up(&entry)).await?;
    let message = scene.is_not_ready("app", "NotReproducible").await?;
    let told = format!(
        "charts/web/templates/map.yaml:5 looks up v1 ConfigMap {0}/cluster in the cluster, and helm.lookup of the Sync does not \
         have it: add {{apiVersion: v1, kind: ConfigMap, namespace: {0}, name: cluster}} there",
        scene.namespace
    );
    ensure!(message.contains(&told), "{message}");
    scene.sync("app", "./charts/web", looking_up(&the_map())).await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "north").await?;

    // There is no entry for a Secret.
    scene.sync("secret", "./charts/secret", json!({"helm": {}})).await?;
    let message = scene.is_not_ready("secret", "NotReproducible").await?;
    ensure!(message.contains("/db in the cluster, and Secrets cannot be looked up"), "{message}");
    ensure!(message.contains("a sealed value (helm.valuesFrom with sealedSecret)"), "{message}");
    let entry = json!([{"apiVersion": "v1", "kind": "Secret", "name": "db"}]);
    let refused = scene.sync("secret", "./charts/secret", looking_up(&entry)).await;
    let message = format!("{:#}", refused.err().context("the API server accepts an entry for a Secret")?);
    ensure!(message.contains("a Secret cannot be looked up"), "{message}");
    Ok(())
}

#[tokio::test]
async fn kinds_that_are_not_served_or_stand_for_secrets_are_refused() -> Result<()> {
    let scene = Scene::new("lookup-kinds").await?;
    let group = format!("{}.example.com", scene.namespace);
    chart(&scene, "charts/web", &[("map", &map_with("\"x\""))])?;
    let revision = scene.publish("a chart").await?;
    let entry = |kind: &str| looking_up(&json!([{"apiVersion": format!("{group}/v1"), "kind": kind, "name": "a"}]));
    scene.sync("app", "./charts/web", entry("Thing")).await?;
    let message = scene.is_not_ready("app", "ValuesNotRead").await?;
    let told = format!("the cluster does not serve {group}/v1 Thing, which spec.helm.lookup[0] names: install its");
    ensure!(message.contains(&told), "{message}");
    define(&scene.client, &group, "Thing", "things").await?;
    scene.is_applied("app", &revision).await?;

    let other = format!("secrets.{group}");
    define(&scene.client, &other, "Vault", "secrets").await?;
    let entry = json!([{"apiVersion": format!("{other}/v1"), "kind": "Vault", "name": "a"}]);
    scene.sync("app", "./charts/web", looking_up(&entry)).await?;
    let is_refused = |_: &crds::Sync, ready: &crds::Condition| {
        ready.reason == "NotReproducible" && ready.message.contains("Secrets cannot be looked up")
    };
    scene.sync_when("app", "Secrets to be refused", is_refused).await.map(drop)
}

#[tokio::test]
async fn what_a_chart_looks_up_is_read_with_the_rights_of_the_sync() -> Result<()> {
    let scene = Scene::new("lookup-rights").await?;
    cluster(&scene, "hidden").await?;
    chart(&scene, "charts/web", &[("map", &map_with(REGION))])?;
    let revision = scene.publish("a chart").await?;
    let mut spec = looking_up(&the_map());
    let reader = Reader {
        scene: &scene,
        path: "./charts/web",
        spec: &spec,
        field: "spec.helm.lookup[0]",
        kind: "v1 ConfigMap",
        reads: "cluster",
        makes: "app-map",
    };
    reader.needs_the_right_to_read(&revision).await?;

    // To find all objects, another right is needed.
    spec["serviceAccountName"] = "writer".into();
    spec["helm"]["lookup"] = json!([{"apiVersion": "v1", "kind": "ConfigMap"}]);
    scene.sync("app", "./charts/web", spec).await?;
    let message = scene.is_not_ready("app", "Forbidden").await?;
    ensure!(message.contains("may not read all v1 ConfigMap in") && message.contains("`list`"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_chart_that_changes_what_it_looks_up_is_rendered_less_and_less_often() -> Result<()> {
    let scene = Scene::new("lookup-own").await?;
    let count =
        "lookup \"v1\" \"ConfigMap\" .Release.Namespace \"app-map\" | dig \"data\" \"value\" \"0\" | int | add1";
    chart(&scene, "charts/web", &[("map", &map_with(count))])?;
    scene.publish("a chart that counts its renders").await?;
    let entry = json!([{"apiVersion": "v1", "kind": "ConfigMap", "name": "app-map"}]);
    scene.sync("app", "./charts/web", looking_up(&entry)).await?;
    let told = format!(
        "v1 ConfigMap {0}/app-map (spec.helm.lookup[0]) has changed after each of the last renders, and this Sync itself applies \
         ConfigMap {0}/app-map; until it stays the same, each render waits longer than the one before, up to spec.interval. Let the \
         result stay the same when it is rendered with its own object",
        scene.namespace
    );
    let is_told = |_: &crds::Sync, ready: &crds::Condition| ready.message.contains(&told);
    let sync = scene.sync_when("app", "the object to be named", is_told).await?;
    let ready = crds::find_condition(&sync.status.context("no status")?.conditions, "Ready").cloned();
    ensure!(ready.as_ref().is_some_and(|ready| ready.reason == "Applied"), "{ready:?}");
    event(&scene, "app", "Unsettled", &[&told]).await?;

    // When the chart no longer does that, the Sync is as any other.
    chart(&scene, "charts/web", &[("map", &map_with("\"settled\""))])?;
    let revision = scene.publish("it counts no more").await?;
    scene.is_applied("app", &revision).await?;
    is_value(&scene, "app-map", "settled").await?;
    scene.sync("app", "./charts/web", json!({"helm": {}})).await?;
    let is_quiet = |_: &crds::Sync, ready: &crds::Condition| {
        ready.status == crds::ConditionStatus::True && !ready.message.contains("spec.helm.lookup")
    };
    scene.sync_when("app", "nothing to be told", is_quiet).await.map(drop)
}
