//! `gitseal install --apply` over an existing installation. Earlier choices are kept.

use anyhow::{Context, Result, ensure};
use harness::{Plane, Scene, eventually, git::ServerOptions, programs};
use kube::{
    Api, Client,
    api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::{Map, Value, json};

use crate::cli::Said;

const IMAGE: &str = "registry.example/gitseal-controller";
const LABEL: &str = "app.kubernetes.io/name=gitseal";
/// The kinds of all objects that `install` creates.
const KINDS: [(&str, &str); 10] = [
    ("v1", "ServiceAccount"),
    ("v1", "Service"),
    ("v1", "PersistentVolumeClaim"),
    ("apps/v1", "Deployment"),
    ("networking.k8s.io/v1", "NetworkPolicy"),
    ("policy/v1", "PodDisruptionBudget"),
    ("rbac.authorization.k8s.io/v1", "ClusterRole"),
    ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
];

const DEFINITION: (&str, &str) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
const NAMESPACE: (&str, &str) = ("v1", "Namespace");

/// A cluster in which only the tests change anything.
pub(crate) async fn plane() -> Result<Plane> {
    Plane::without_controller(ClusterOptions { controller_manager: false, ..ClusterOptions::default() }).await
}

pub(crate) fn install(plane: &Plane, arguments: &[&str]) -> Result<Said> {
    let mut command = programs::gitseal(plane.cluster.kubeconfig())?;
    Ok(command.arg("install").args(arguments).output()?.into())
}

fn api(client: &Client, (api_version, kind): (&str, &str)) -> Api<DynamicObject> {
    Api::all_with(client.clone(), &harness::kubernetes::resource(api_version, kind))
}

/// All installed objects, by kind, namespace and name, without the fields that the API server writes.
pub(crate) async fn installed(client: &Client) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    for kind in KINDS {
        all.extend(written(client, kind, &ListParams::default().labels(LABEL)).await?);
    }
    Ok(all)
}

/// The objects that [`remove_all`] leaves: the namespaces and the CustomResourceDefinitions.
async fn shared_by_all(client: &Client) -> Result<Map<String, Value>> {
    let mut all = written(client, DEFINITION, &ListParams::default()).await?;
    ensure!(all.contains_key("CustomResourceDefinition /syncs.gitseal.dev"), "{:?}", all.keys());
    all.extend(written(client, NAMESPACE, &ListParams::default()).await?);
    Ok(all)
}

/// All objects of a kind, without the fields that the API server writes.
async fn written(client: &Client, kind: (&str, &str), list: &ListParams) -> Result<Map<String, Value>> {
    let mut all = Map::new();
    for object in api(client, kind).list(list).await? {
        let meta = &object.metadata;
        let of = meta.namespace.clone().unwrap_or_default();
        let name = format!("{} {of}/{}", kind.1, meta.name.clone().unwrap_or_default());
        let mut body = object.data.clone();
        body["metadata"] = json!({"labels": meta.labels, "annotations": meta.annotations, "uid": meta.uid});
        body.as_object_mut().context("an object")?.remove("status");
        all.insert(name, body);
    }
    Ok(all)
}

async fn remove_all(client: &Client) -> Result<()> {
    for kind in KINDS {
        for object in api(client, kind).list(&ListParams::default().labels(LABEL)).await? {
            let namespace = object.metadata.namespace.clone();
            let resource = harness::kubernetes::resource(kind.0, kind.1);
            let api: Api<DynamicObject> = match &namespace {
                Some(namespace) => Api::namespaced_with(client.clone(), namespace, &resource),
                None => Api::all_with(client.clone(), &resource),
            };
            let name = object.metadata.name.unwrap_or_default();
            // Without a controller manager, nobody removes the finalizer of a PersistentVolumeClaim.
            api.patch(&name, &PatchParams::default(), &Patch::Merge(json!({"metadata": {"finalizers": null}}))).await?;
            api.delete(&name, &DeleteParams::background()).await?;
        }
    }
    Ok(())
}

/// Edits an object as people do with kubectl.
pub(crate) async fn edit(client: &Client, kind: (&str, &str), name: &str, patch: Value) -> Result<()> {
    let by = PatchParams { field_manager: Some("kubectl-edit".into()), ..PatchParams::default() };
    let objects = match kind {
        ROLE => api(client, kind),
        _ => harness::kubernetes::objects(client, "kube-system", kind.0, kind.1),
    };
    objects.patch(name, &by, &Patch::Strategic(patch)).await?;
    Ok(())
}

const DEPLOYMENT: (&str, &str) = ("apps/v1", "Deployment");
const CONTROLLER: &str = "gitseal-controller";

async fn deployment(client: &Client) -> Result<Value> {
    let api = harness::kubernetes::objects(client, "kube-system", DEPLOYMENT.0, DEPLOYMENT.1);
    Ok(serde_json::to_value(api.get(CONTROLLER).await?)?)
}

fn container(deployment: &Value) -> &Value {
    &deployment["spec"]["template"]["spec"]["containers"][0]
}

/// Changes some installed objects by hand.
async fn change_by_hand(client: &Client) -> Result<()> {
    let mut arguments = container(&deployment(client).await?)["args"].as_array().context("args")?.clone();
    arguments.push("--memory-budget=300Mi".into());
    let limits = json!({"limits": {"memory": "700Mi"}});
    let container = json!({"name": "controller", "args": arguments, "resources": limits});
    let pod = json!({"containers": [container], "nodeSelector": {"disk": "fast"}});
    edit(client, DEPLOYMENT, CONTROLLER, json!({"spec": {"template": {"spec": pod}}})).await?;
    let only_http = json!([{"ports": [{"port": "http"}], "from": [{"ipBlock": {"cidr": "10.0.0.0/28"}}]}]);
    edit(client, ("networking.k8s.io/v1", "NetworkPolicy"), CONTROLLER, json!({"spec": {"ingress": only_http}})).await
}

/// Changes the objects as if an earlier version had made them.
async fn make_older(client: &Client) -> Result<()> {
    let by = PatchParams { field_manager: Some(crds::FIELD_MANAGER.into()), ..PatchParams::default() };
    let patch = json!({"metadata": {"labels": {"app.kubernetes.io/version": "0.0.9"}}});
    let api = harness::kubernetes::objects(client, "kube-system", DEPLOYMENT.0, DEPLOYMENT.1);
    api.patch(CONTROLLER, &by, &Patch::Merge(patch)).await?;
    Ok(())
}

#[tokio::test]
async fn a_plain_upgrade_changes_nothing_but_the_version() -> Result<()> {
    let plane = plane().await?;
    let client = plane.cluster.client().await?;
    let version = env!("CARGO_PKG_VERSION");
    for number in 0..8 {
        let mut chosen = vec!["--apply", "--no-wait", "--image"];
        let old = format!("{IMAGE}:0.0.9");
        chosen.push(&old);
        chosen.extend((number & 1 != 0).then_some("--multi-tenant"));
        chosen.extend(["--replicas", if number & 2 == 0 { "1" } else { "3" }]);
        chosen.extend((number & 4 != 0).then_some(["--controller-name", "sealed-secrets"]).into_iter().flatten());
        install(&plane, &chosen)?.is(0, &[])?;
        change_by_hand(&client).await?;
        make_older(&client).await?;

        let (mut before, shared) = (installed(&client).await?, shared_by_all(&client).await?);
        install(&plane, &["--apply", "--no-wait"])?
            .is(0, &["Deployment kube-system/gitseal-controller", &format!(":0.0.9 → {IMAGE}:{version}")])
            .with_context(|| format!("{chosen:?}"))?;
        let after = installed(&client).await?;
        let deployment = &mut before["Deployment kube-system/gitseal-controller"];
        deployment["metadata"]["labels"]["app.kubernetes.io/version"] = version.into();
        deployment["spec"]["template"]["spec"]["containers"][0]["image"] = format!("{IMAGE}:{version}").into();
        for (name, object) in &before {
            ensure!(after.get(name) == Some(object), "{chosen:?}: {name}\n{object:#}\n{:#}", after[name]);
        }
        ensure!(after.len() == before.len(), "{chosen:?}: {:?}", after.keys());
        ensure!(shared_by_all(&client).await? == shared, "{chosen:?}");
        // A second run changes nothing.
        install(&plane, &["--apply", "--no-wait"])?.is(0, &["nothing changes"])?;
        ensure!(installed(&client).await? == after, "{chosen:?}");
        remove_all(&client).await?;
    }
    Ok(())
}

#[tokio::test]
async fn flags_change_what_was_chosen_and_more_rights_are_asked_for() -> Result<()> {
    let plane = plane().await?;
    let client = plane.cluster.client().await?;
    let image = format!("{IMAGE}:7");
    let always = ["--apply", "--no-wait"];
    let with = |more: &[&str]| install(&plane, &[&always, more].concat());
    // Without the name of an image, nothing can be installed.
    with(&[])?.is(1, &["no image was named", "nothing was applied", "--image"])?;
    ensure!(installed(&client).await?.is_empty());
    with(&["--image", &image])?.is(0, &["create Deployment kube-system/gitseal-controller"])?;

    let admin = "ClusterRoleBinding /gitseal-controller-cluster-admin";
    with(&["--multi-tenant"])?.is(0, &["remove ClusterRoleBinding gitseal-controller-cluster-admin"])?;
    let tenants = installed(&client).await?;
    ensure!(!tenants.contains_key(admin), "{:?}", tenants.keys());
    let arguments = container(&tenants["Deployment kube-system/gitseal-controller"])["args"].to_string();
    ensure!(arguments.contains("--default-service-account=default"), "{arguments}");

    // The command cannot ask, because there is no terminal.
    with(&["--multi-tenant=false"])?.is(1, &["cluster-admin", "nothing was applied", "--yes"])?;
    ensure!(installed(&client).await? == tenants);
    with(&["--multi-tenant=false", "--yes"])?.is(0, &["create ClusterRoleBinding gitseal-controller-cluster-admin"])?;
    let single = installed(&client).await?;
    ensure!(single.contains_key(admin) && !single.contains_key("ClusterRole /gitseal-controller-watch"));
    ensure!(!single.values().any(|object| object.to_string().contains("--default-service-account")));

    // Changes to three replicas and back to one. Each of these changes also sets the strategy of the Deployment.
    let strategy = async || -> Result<Value> { Ok(deployment(&client).await?["spec"]["strategy"].clone()) };
    with(&["--replicas", "3"])?.is(0, &["spec.replicas: 1 → 3", "create PodDisruptionBudget"])?;
    ensure!(strategy().await?["type"] == "RollingUpdate");
    with(&[])?.is(0, &["nothing changes"])?;
    let budget = harness::kubernetes::objects(&client, "kube-system", "policy/v1", "PodDisruptionBudget");
    ensure!(budget.get_opt(CONTROLLER).await?.is_some());
    let removed = "remove PodDisruptionBudget kube-system/gitseal-controller";
    with(&["--replicas", "1"])?.is(0, &["spec.replicas: 3 → 1", "spec.strategy", removed])?;
    ensure!(budget.get_opt(CONTROLLER).await?.is_none());
    ensure!(strategy().await? == json!({"type": "Recreate"}), "as a new installation of one: {}", strategy().await?);
    with(&[])?.is(0, &["nothing changes"])?;
    with(&["--", "--memory-budget=300Mi"])?.is(0, &["+--memory-budget=300Mi"])?;
    let one = deployment(&client).await?;
    ensure!(one["spec"]["replicas"] == 1, "{one:#}");
    ensure!(container(&one)["image"] == image.as_str());
    with(&["--ephemeral-storage=false"])?.is(0, &["change Deployment"])?;
    let volumes = deployment(&client).await?["spec"]["template"]["spec"]["volumes"].to_string();
    ensure!(volumes.contains("persistentVolumeClaim"), "{volumes}");
    // A strategy that was set by hand is kept. A persistent volume cannot be used with this strategy.
    with(&["--ephemeral-storage"])?.is(0, &["Deployment"])?;
    edit(&client, DEPLOYMENT, CONTROLLER, json!({"spec": {"strategy": {"type": "RollingUpdate"}}})).await?;
    with(&["--replicas", "1"])?.is(0, &["nothing changes"])?;
    ensure!(strategy().await?["type"] == "RollingUpdate");
    with(&["--ephemeral-storage=false"])?
        .is(1, &["only one Pod at a time can use the volume", "kubectl delete deployment"])?;
    with(&["--", "memory"])?.is(1, &["not a flag of the controller"])?;

    // A cluster can have only one controller, so another namespace is refused.
    with(&["--controller-namespace", "gitops"])?.is(1, &["installed in the namespace kube-system"])?;
    Ok(())
}

const ROLE: (&str, &str) = ("rbac.authorization.k8s.io/v1", "ClusterRole");
const BINDING: (&str, &str) = ("rbac.authorization.k8s.io/v1", "ClusterRoleBinding");
const TO_EDIT: &str = "rbac.authorization.k8s.io/aggregate-to-edit";

pub(crate) async fn aggregated_to_edit(client: &Client) -> Result<Value> {
    let role = serde_json::to_value(api(client, ROLE).get("gitseal-edit").await?)?;
    Ok(role["metadata"]["labels"][TO_EDIT].clone())
}

/// Applies the output of `install` with these arguments by `kubectl apply --server-side`.
fn kubectl_apply(plane: &Plane, arguments: &[&str]) -> Result<()> {
    let printed = install(plane, arguments)?.is(0, &[])?.out;
    let file = plane.folder().join("printed.yaml");
    std::fs::write(&file, printed)?;
    let mut kubectl = std::process::Command::new(localcluster::parts::kubectl()?);
    kubectl.arg("--kubeconfig").arg(plane.cluster.kubeconfig()).args(["apply", "--server-side", "-f"]).arg(&file);
    Said::from(kubectl.output()?).is(0, &["gitseal-edit"])?;
    Ok(())
}

#[tokio::test]
async fn nobody_edits_syncs_that_have_the_controllers_own_rights() -> Result<()> {
    let plane = plane().await?;
    let client = plane.cluster.client().await?;
    let always = ["--apply", "--no-wait"];
    let with = |more: &[&str]| install(&plane, &[&always, more].concat());

    // gitseal is installed with kubectl for several teams, and is then changed to an installation for a single team.
    // kubectl owns the field that holds the label.
    kubectl_apply(&plane, &["--image", "a:1", "--multi-tenant"])?;
    ensure!(aggregated_to_edit(&client).await? == "true");
    with(&["--multi-tenant=false", "--yes"])?.is(0, &[])?;
    ensure!(aggregated_to_edit(&client).await? == "false");

    // Change to several teams. The label that makes the role a part of `edit` must not be set before a controller with
    // a default service account runs. In this cluster, nothing reports that a controller runs.
    with(&["--multi-tenant"])?.is(0, &["not a part of `edit` yet"])?;
    ensure!(aggregated_to_edit(&client).await? == "false");
    // Report that the controller runs.
    let deployments = harness::kubernetes::objects(&client, "kube-system", DEPLOYMENT.0, DEPLOYMENT.1);
    let generation = deployments.get(CONTROLLER).await?.metadata.generation;
    let runs = json!({"status": {"observedGeneration": generation, "replicas": 1, "updatedReplicas": 1,
        "readyReplicas": 1, "availableReplicas": 1}});
    deployments.patch_status(CONTROLLER, &PatchParams::default(), &Patch::Merge(&runs)).await?;
    with(&[])?.is(1, &["everybody who may `edit` a namespace", "nothing was applied", "--yes"])?;
    ensure!(aggregated_to_edit(&client).await? == "false");
    with(&["--yes"])?.is(0, &[])?;
    ensure!(aggregated_to_edit(&client).await? == "true");

    // If an administrator removed the label, it is set again only if the user confirms this.
    for taken in [json!("false"), Value::Null] {
        edit(&client, ROLE, "gitseal-edit", json!({"metadata": {"labels": {TO_EDIT: taken}}})).await?;
        with(&[])?.is(1, &["everybody who may `edit` a namespace", "nothing was applied"])?;
        ensure!(aggregated_to_edit(&client).await? == taken);
    }
    with(&["--yes"])?.is(0, &[])?;

    // The label is also removed if `--default-service-account` is empty, or was never set, as in a cluster that was set
    // up by hand.
    for (argument, said) in [("--default-service-account=", 0), ("--default-service-account=default", 1)] {
        with(&["--", argument])?.is(said, &[])?;
        ensure!(aggregated_to_edit(&client).await? == "false", "{argument}");
    }
    let container = json!({"name": "controller", "args": ["--storage=/var/lib/gitseal"]});
    edit(&client, DEPLOYMENT, CONTROLLER, json!({"spec": {"template": {"spec": {"containers": [container]}}}})).await?;
    edit(&client, ROLE, "gitseal-edit", json!({"metadata": {"labels": {TO_EDIT: "true"}}})).await?;
    with(&[])?.is(0, &["--default-service-account"])?;
    ensure!(aggregated_to_edit(&client).await? == "false");
    Ok(())
}

#[tokio::test]
async fn cluster_admin_is_asked_for_again_where_somebody_took_it_away() -> Result<()> {
    let plane = plane().await?;
    let client = plane.cluster.client().await?;
    install(&plane, &["--apply", "--no-wait", "--image", "a:1"])?.is(0, &[])?;
    let bindings = api(&client, BINDING);
    for subjects in [Value::Null, json!([{"kind": "ServiceAccount", "name": "other", "namespace": "kube-system"}])] {
        let patch = Patch::Merge(json!({"subjects": subjects}));
        bindings.patch("gitseal-controller-cluster-admin", &PatchParams::default(), &patch).await?;
        let before = installed(&client).await?;
        install(&plane, &["--apply", "--no-wait"])?
            .is(1, &["cluster-admin: it may do everything", "nothing was applied"])?;
        ensure!(installed(&client).await? == before);
    }
    // The command also asks again before it grants the rights of an installation for several teams.
    install(&plane, &["--apply", "--no-wait", "--multi-tenant", "--yes"])?.is(0, &[])?;
    let nobody = Patch::Merge(json!({"subjects": null}));
    bindings.patch("gitseal-controller-watch", &PatchParams::default(), &nobody).await?;
    install(&plane, &["--apply", "--no-wait"])?.is(1, &["watch *.* in every namespace", "nothing was applied"])?;
    Ok(())
}

#[tokio::test]
async fn syncs_that_exist_already_get_the_controllers_rights_only_after_a_question() -> Result<()> {
    let plane = plane().await?;
    let client = plane.cluster.client().await?;
    let sync = json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "old"},
        "spec": {"repository": {"name": "r"}, "path": "./"}});
    harness::kubernetes::apply(&client, "default", sync).await?;
    let first = ["--apply", "--no-wait", "--image", "a:1"];
    install(&plane, &first)?.is(1, &["cluster-admin", "1 existing Sync", "nothing was applied", "--yes"])?;
    ensure!(installed(&client).await?.is_empty());
    install(&plane, &[&first[..], &["--multi-tenant"]].concat())?.is(0, &[])?;
    // An upgrade that removes the default service account asks, too, even if the controller is cluster-admin already.
    let with = |more: &[&str]| install(&plane, &[&["--apply", "--no-wait"], more].concat());
    let empty = ["--", "--default-service-account="];
    with(&["--multi-tenant=false"])?
        .is(1, &["cluster-admin", "1 existing Sync without a service account", "nothing was applied"])?;
    with(&empty)?.is(1, &["1 existing Sync", "every Secret", "nothing was applied"])?;
    with(&["--multi-tenant=false", "--yes", "--", "--default-service-account=other"])?.is(0, &[])?;
    with(&empty)?.is(1, &["1 existing Sync", "cluster-admin", "nothing was applied"])?;
    with(&["--yes", "--", "--default-service-account="])?.is(0, &[])?;
    with(&[])?.is(0, &[])?;
    Ok(())
}

#[tokio::test]
async fn new_rights_of_an_upgrade_are_asked_for() -> Result<()> {
    let plane = plane().await?;
    let client = plane.cluster.client().await?;
    install(&plane, &["--apply", "--no-wait", "--multi-tenant", "--image", "a:1"])?.is(0, &[])?;
    // An earlier version needed fewer rights.
    let roles = api(&client, ("rbac.authorization.k8s.io/v1", "ClusterRole"));
    let mut rules = serde_json::to_value(roles.get(CONTROLLER).await?)?["rules"].take();
    rules.as_array_mut().context("rules")?.retain(|rule| rule["resources"][0] != "namespaces");
    let by = PatchParams { field_manager: Some(crds::FIELD_MANAGER.into()), ..PatchParams::default() };
    roles.patch(CONTROLLER, &by, &Patch::Merge(json!({"rules": rules}))).await?;
    let before = installed(&client).await?;
    install(&plane, &["--apply", "--no-wait"])?.is(1, &["get namespaces in every namespace", "nothing was applied"])?;
    ensure!(installed(&client).await? == before);
    install(&plane, &["--apply", "--no-wait", "--yes"])?.is(0, &["change ClusterRole gitseal-controller: rules"])?;
    Ok(())
}

#[tokio::test]
async fn nothing_is_applied_when_a_part_would_be_refused() -> Result<()> {
    let options = ClusterOptions { controller_manager: false, ..ClusterOptions::default() };
    let plane = Plane::bare(options).await?;
    let client = plane.cluster.client().await?;
    // A Service of somebody else, to which our ports cannot be added.
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "taken"},
        "spec": {"clusterIP": "None", "type": "ClusterIP", "ports": [{"name": "http", "port": 1}]}});
    harness::kubernetes::apply(&client, "kube-system", service).await?;
    let arguments = ["--apply", "--no-wait", "--image", "a:1", "--controller-name", "taken"];
    install(&plane, &arguments)?.is(1, &["Service kube-system/taken", "nothing was applied"])?;
    ensure!(installed(&client).await?.is_empty());
    let definitions = api(&client, DEFINITION);
    ensure!(definitions.list(&ListParams::default()).await?.items.is_empty(), "the kinds were applied");

    // Install into a namespace that does not exist yet, together with objects of kinds that do not exist yet.
    let url = "https://git.example/fleet.git";
    let fresh = ["--apply", "--no-wait", "--image", "a:1", "--controller-namespace", "gitops", "--git-url"];
    for wrong in
        ["git@git.example:fleet.git", "ssh://git@git.example/fleet.git", "https://me:word@git.example/fleet.git"]
    {
        let said = install(&plane, &[&fresh[..], &[wrong]].concat())?.is(1, &["--git-url", "nothing was applied"])?;
        ensure!(!(said.out + &said.err).contains("word@"));
    }
    let bad = install(&plane, &[&fresh[..], &[url, "--sync-name", "Not a name"]].concat())?;
    bad.is(1, &["nothing was applied"])?;
    ensure!(installed(&client).await?.is_empty());
    install(&plane, &[&fresh[..], &[url]].concat())?.is(0, &["create Sync.gitseal.dev gitops/cluster"])?;
    // A controller in another namespace is found without a flag.
    install(&plane, &["--apply", "--no-wait"])?.is(0, &["nothing changes"])?;
    let syncs = harness::kubernetes::objects(&client, "gitops", "gitseal.dev/v1alpha1", "Sync");
    ensure!(syncs.get("cluster").await?.data["spec"]["path"] == "./");
    let with_path = [&fresh[..], &[url, "--path", "apps"]].concat();
    install(&plane, &with_path)?.is(0, &["spec.path: ./ → apps"])?;
    install(&plane, &[&fresh[..], &[url]].concat())?.is(0, &["nothing changes"])?;
    Ok(())
}

#[tokio::test]
async fn several_teams_get_a_first_sync_that_works() -> Result<()> {
    // This plane has a controller manager, which combines the rights of the ClusterRole `admin` from several roles.
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "first", ServerOptions::default()).await?;
    scene.tree.write("app/settings.yaml", crate::objects::config_map("settings", "1"))?;
    scene.tree.publish("first")?;
    let url = scene.server.url("repo");
    let first = ["--apply", "--no-wait", "--image", "a:1", "--multi-tenant", "--git-url", &url, "--branch", "main"];
    let with = |more: &[&str]| install(&plane, &[&first[..], more].concat());
    with(&[])?.is(1, &["--service-account", "nothing was applied"])?;
    with(&["--service-account", "deployer"])?.is(1, &["sealing keys", "--namespace", "nothing was applied"])?;
    with(&["--service-account", "deployer", "--path", "app", "--namespace", "fleet"])?.is(
        0,
        &["create Namespace fleet", "create ServiceAccount fleet/deployer", "create Sync.gitseal.dev fleet/cluster"],
    )?;

    let account = "system:serviceaccount:kube-system:gitseal-controller";
    let kubeconfig = plane.cluster.kubeconfig_for(account, &["system:serviceaccounts", "system:authenticated"])?;
    let folder = plane.folder();
    let mut options = programs::ControllerOptions::new(&kubeconfig, &folder);
    options.arguments.push("--default-service-account=default".into());
    let mut controller = programs::Controller::start(&options)?;
    controller.ready().await?;
    let objects = harness::kubernetes::objects(&scene.client, "fleet", "v1", "ConfigMap");
    eventually("what is in Git", || async { Ok(objects.get("settings").await?) }).await?;
    Ok(())
}
