//! The fields `substitute` and `substituteFrom` of a Sync, which replace variables in what was rendered.

mod flux;
mod inputs;
mod secrets;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::Sync;
use harness::{Plane, Scene, git::ServerOptions, programs::Controller};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use localcluster::ClusterOptions;
use sealing::Scope;
use serde_json::{Value, json};

use crate::{
    after_rendering::sync_file,
    cli::gitseal,
    objects::{change_by_hand, config_map, deployment, is_value, sealed_secret},
    renders::rendered,
};

/// A ConfigMap whose value is the text `text`.
fn map(name: &str, text: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: '{name}'}}\ndata: {{value: '{text}'}}\n")
}

/// A Deployment with variables, also in fields that are no texts.
fn web() -> String {
    deployment("web", 0)
        .replace("replicas: 0", "replicas: ${replicas:=0}\n  revisionHistoryLimit: ${limit}")
        .replace("image: example.invalid/c", "image: 'example.invalid/c:${tag}', ports: [{containerPort: '${port}'}]")
        .replace("spec: {containers", "spec: {enableServiceLinks: '${links}', containers")
        .replacen("metadata: {name: web", "metadata: {name: '${name}', labels: {version: '${version}'}", 1)
}

/// The objects that `gitseal build --sync` prints for a Sync in `sync.yaml`.
async fn built(scene: &Scene) -> Result<Vec<Value>> {
    let said = gitseal(scene, &["build", "--sync", "sync.yaml", "-o", "json"]).await?.is(0, &[])?;
    let list: Value = serde_json::from_str(&said.out)?;
    Ok(list["items"].as_array().context("no list")?.clone())
}

#[tokio::test]
async fn variables_are_replaced_wherever_objects_come_from() -> Result<()> {
    let scene = Scene::new("variables").await?;
    let all = format!("{}---\n{}", web(), map("${name}-map", "${cluster:=none} ${region} $${HOME} $HOME"));
    for folder in ["plain", "over"] {
        scene.tree.write(&format!("{folder}/all.yaml"), &all)?;
    }
    scene.tree.write("over/kustomization.yaml", "resources: [all.yaml]\n")?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/all.yaml", &all)?;
    scene.tree.write("vars/common.yaml", "region: north\nversion: \"1.10\"\ntag: \"1\"\nlimit: '3'\n")?;
    scene.tree.write("vars/more.yaml", config_map("settings", "1").replace("value:", "tag: '2'\n  value:"))?;
    scene.tree.write("vars/last.env", "# ports\nport=8080\nlinks=false\n")?;
    let from = json!([{"file": "vars/common.yaml"}, {"file": "./vars/more.yaml"}, {"file": "vars/last.env"}]);
    let first = scene.publish("three ways with variables").await?;
    for (sync, path, more) in [
        ("plain", "./plain", json!({})),
        ("plain-p", "./plain", json!({"namePrefix": "p-"})),
        ("over", "./over", json!({})),
        ("over-p", "./over", json!({"namePrefix": "p-"})),
        ("chart", "./chart", json!({"helm": {}})),
        ("chart-p", "./chart", json!({"helm": {}, "namePrefix": "p-"})),
    ] {
        let mut spec = json!({
            "substitute": {"name": sync, "region": "south"}, "substituteFrom": from, "wait": false,
        });
        spec.as_object_mut().context("a spec")?.extend(more.as_object().context("fields")?.clone());
        scene.tree.write("sync.yaml", sync_file(&scene, sync, path, &spec)?)?;
        scene.sync(sync, path, spec.clone()).await?;
        scene.is_applied(sync, &first).await.with_context(|| sync.to_owned())?;
        // A prefix is put before the name when the variable is still in it.
        let name = if sync.ends_with("-p") { format!("p-{sync}") } else { sync.to_owned() };
        let wanted = json!({
            "metadata": {"labels": {"version": "1.10"}},
            "spec": {"replicas": 0, "revisionHistoryLimit": 3, "template": {"spec": {"enableServiceLinks": false}}},
        });
        let web = scene.has("apps/v1", "Deployment", &name, wanted).await.with_context(|| sync.to_owned())?;
        let container = &web["spec"]["template"]["spec"]["containers"][0];
        ensure!(container["image"] == "example.invalid/c:2" && container["ports"][0]["containerPort"] == 8080, "{web}");
        is_value(&scene, &format!("{name}-map"), "none south ${HOME} $HOME").await?;
        // The command line makes the same objects.
        let objects = built(&scene).await?;
        let of_kind = |kind: &str| objects.iter().find(|object| object["kind"] == kind).context(kind.to_owned());
        let built = of_kind("Deployment")?;
        ensure!(
            built["metadata"]["name"] == json!(name) && built["metadata"]["labels"]["version"] == "1.10",
            "{built}"
        );
        ensure!(built["spec"]["template"]["spec"]["enableServiceLinks"] == false, "{built}");
        ensure!(of_kind("ConfigMap")?["data"]["value"] == "none south ${HOME} $HOME");
        gitseal(&scene, &["diff", "--sync", sync]).await?.is(0, &[]).with_context(|| sync.to_owned())?;
    }
    Ok(())
}

#[tokio::test]
async fn a_file_with_variables_is_a_part_of_the_folder() -> Result<()> {
    let (plane, mut controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "variable-files", ServerOptions::default()).await?;
    scene.tree.write("plain/map.yaml", map("${name}", "${value}"))?;
    scene.tree.write("vars.yaml", "value: \"1\"\n")?;
    scene.repository(json!({})).await?;
    let first = scene.publish("a file with variables").await?;
    let from = json!([{"file": "vars.yaml"}]);
    scene.sync("file", "./plain", json!({"substitute": {"name": "file"}, "substituteFrom": from})).await?;
    scene.sync("inline", "./plain", json!({"substitute": {"name": "inline", "value": "0"}})).await?;
    for (sync, value) in [("file", "1"), ("inline", "0")] {
        scene.is_applied(sync, &first).await?;
        is_value(&scene, sync, value).await?;
    }

    // The file changes one of the two Syncs.
    scene.tree.write("vars.yaml", "value: \"2\"\n")?;
    let second = scene.publish("another value").await?;
    scene.is_applied("file", &second).await?;
    is_value(&scene, "file", "2").await?;
    let inline = scene.api::<Sync>().get("inline").await?;
    assert_eq!(inline.status.and_then(|status| status.last_applied_revision), Some(first));
    // No process rendered anything.
    assert_eq!(rendered(&controller, "kustomize").await?, 0);

    // Drift is put back, also after a restart.
    change_by_hand(&scene, "file").await?;
    is_value(&scene, "file", "2").await?;
    controller.stop()?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    for (sync, value) in [("file", "2"), ("inline", "0")] {
        change_by_hand(&scene, sync).await?;
        is_value(&scene, sync, value).await?;
    }

    // Without its file, the Sync keeps what it has. When the file is there again, the Sync goes on.
    scene.tree.remove("vars.yaml")?;
    scene.publish("no file").await?;
    let message = scene.is_not_ready("file", "SubstituteFailed").await?;
    ensure!(message.contains("substituteFrom[0]: the repository has no file 'vars.yaml'"), "{message}");
    is_value(&scene, "file", "2").await?;
    scene.tree.write("vars.yaml", "value: \"3\"\n")?;
    let last = scene.publish("the file is back").await?;
    scene.is_applied("file", &last).await?;
    is_value(&scene, "file", "3").await?;

    // So is a changed variable in the Sync.
    scene.sync("inline", "./plain", json!({"substitute": {"name": "inline", "value": "4"}})).await?;
    is_value(&scene, "inline", "4").await
}

#[tokio::test]
async fn what_is_wrong_with_variables_is_said_with_its_place() -> Result<()> {
    let scene = Scene::new("variables-wrong").await?;
    scene.tree.write("app/first.yaml", map("first", "${a}"))?;
    scene.tree.write("app/web.yaml", format!("# a comment\n{}", web()))?;
    scene.tree.write("script/map.yaml", map("script", "echo ${HOME}"))?;
    let left = map("left", "echo ${HOME}")
        .replace("name: 'left'", "name: left, annotations: {gitseal.dev/substitute: disabled}");
    scene.tree.write("left/map.yaml", left)?;
    scene.tree.write("bad.yaml", "a: b\nc: 3\n")?;
    let first = scene.publish("texts with variables").await?;
    let known = json!({"name": "web", "version": "1", "tag": "1", "links": "x", "port": "80", "limit": "3"});
    for (name, path, spec, parts) in [
        (
            "none",
            "./app",
            json!({"substitute": {}}),
            vec![
                "app/first.yaml:1: ConfigMap first: data.value: the variable a is not set",
                "app/web.yaml:2: Deployment ${name}: metadata.name: the variable name is not set",
                "no variable is set",
                "give it a default (${name:=default})",
            ],
        ),
        (
            "type",
            "./app",
            json!({"substitute": known}),
            vec![
                "app/web.yaml:2: Deployment ${name}: spec.template.spec.enableServiceLinks: takes true or false",
                "set are limit, links, name",
            ],
        ),
        ("script", "./script", json!({"substitute": {}}), vec!["the variable HOME is not set", "write $${name}"]),
        (
            "file",
            "./app",
            json!({"substituteFrom": [{"file": "bad.yaml"}]}),
            vec!["substituteFrom[0]: bad.yaml:2: the value of c is not a text", "in quotes"],
        ),
        (
            "gone",
            "./app",
            json!({"substituteFrom": [{"file": "app"}]}),
            vec!["substituteFrom[0]: the repository has no file 'app'"],
        ),
        (
            "named",
            "./app",
            json!({"substitute": {"a-b": "c"}}),
            vec!["substitute: 'a-b' cannot be the name of a variable"],
        ),
    ] {
        scene.tree.write("sync.yaml", sync_file(&scene, name, path, &spec)?)?;
        scene.sync(name, path, spec).await?;
        let message = scene.is_not_ready(name, "SubstituteFailed").await.with_context(|| name.to_owned())?;
        for part in &parts {
            ensure!(message.contains(part), "{name}: '{part}' is not in: {message}");
        }
        // The command line says the same.
        gitseal(&scene, &["build", "--sync", "sync.yaml"]).await?.is(1, &parts[..1])?;
    }
    for entry in [json!({}), json!({"file": "a", "sealedSecret": "b"})] {
        let refused = scene.sync("either", "./app", json!({"substituteFrom": [entry]})).await;
        ensure!(
            format!("{:?}", refused.err()).contains("set exactly one of file, configMap, secret and sealedSecret"),
            "the entry is accepted"
        );
    }
    // An object that asks for it keeps its texts, and so does everything without the field.
    scene.sync("left", "./left", json!({"substitute": {}})).await?;
    scene.is_applied("left", &first).await?;
    is_value(&scene, "left", "echo ${HOME}").await?;
    scene.sync("script", "./script", json!({})).await?;
    scene.is_applied("script", &first).await?;
    is_value(&scene, "script", "echo ${HOME}").await
}

#[tokio::test]
async fn what_is_hidden_is_not_pruned_although_its_name_is_a_variable() -> Result<()> {
    let scene = Scene::new("variables-hidden").await?;
    scene.tree.write("app/map.yaml", map("map", "1"))?;
    scene.tree.write("app/other.yaml", map("${name}-other", "1"))?;
    scene.tree.write("vars.env", "name=shop\n")?;
    let first = scene.publish("two maps").await?;
    scene.sync("app", "./app", json!({"substituteFrom": [{"file": "vars.env"}]})).await?;
    scene.is_applied("app", &first).await?;
    scene.tree.remove("app/other.yaml")?;
    scene.tree.write("app/.other.yaml", map("${name}-other", "1"))?;
    let second = scene.publish("one is hidden").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "shop-other", "1").await?;
    let api: Api<ConfigMap> = scene.api();
    ensure!(api.get("shop-other").await?.metadata.deletion_timestamp.is_none());
    Ok(())
}

/// A SealedSecret with one value, whose scope is namespace-wide.
fn wide(key: &str, sealed: &str) -> String {
    let annotations = "metadata: {annotations: {sealedsecrets.bitnami.com/namespace-wide: 'true'}, ";
    sealed_secret("any", sealed).replace("metadata: {", annotations).replace("password:", &format!("{key}:"))
}

#[tokio::test]
async fn sealed_variables_reach_secrets_and_nothing_else() -> Result<()> {
    let scene = Scene::new("variables-sealed").await?;
    let value = scene.seal_for(Scope::NamespaceWide, "any", b"Sealed-As-Variable-1").await?;
    let strict = scene.seal("db", b"Sealed-For-Its-Name-1").await?;
    scene.tree.write("vars/wide.yaml", wide("db_password", &value))?;
    scene.tree.write("vars/strict.yaml", sealed_secret("db", &strict))?;
    let secret =
        |name: &str, fields: &str| format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: '{name}'}}\n{fields}\n");
    let url = secret("${name}", "stringData: {url: 'db://${user}:${db_password}@${name}', only: '${db_password}'}");
    scene.tree.write("app/db.yaml", &url)?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write(
        "chart/templates/db.yaml",
        url.replace("only: '${db_password}'", "only: '{{ .Values.auth.db_password }}'"),
    )?;
    scene.tree.write("data/db.yaml", secret("db", "data: {password: '${db_password}'}"))?;
    scene.tree.write("map/map.yaml", map("map", "${db_password}"))?;
    scene.tree.write("changed/db.yaml", secret("db", "stringData: {password: '${db_password^^}'}"))?;
    scene.tree.write("strict/db.yaml", secret("other", "stringData: {password: '${password}'}"))?;
    scene.tree.write("named/db.yaml", secret("db", "stringData: {password: '${password}'}"))?;
    let first = scene.publish("Secrets with variables").await?;
    let from = json!([{"sealedSecret": "vars/wide.yaml"}]);
    let fields = |name: &str| json!({"substitute": {"name": name, "user": "shop"}, "substituteFrom": from});
    let chart = |name: &str| {
        let mut fields = fields(name);
        fields["helm"] = json!({"valuesFrom": [{"sealedSecret": "vars/wide.yaml", "path": "auth"}]});
        fields
    };
    let mut prefixed = fields("plain");
    prefixed["namePrefix"] = json!("p-");
    for (sync, path, spec, name) in [
        ("plain", "./app", fields("plain"), "plain"),
        ("prefixed", "./app", prefixed, "p-plain"),
        ("chart", "./chart", chart("chart"), "chart"),
    ] {
        scene.tree.write("sync.yaml", sync_file(&scene, sync, path, &spec)?)?;
        scene.sync(sync, path, spec).await?;
        scene.is_applied(sync, &first).await.with_context(|| sync.to_owned())?;
        let of = if sync == "chart" { "chart" } else { "plain" };
        let url = STANDARD.encode(format!("db://shop:Sealed-As-Variable-1@{of}"));
        let data = json!({"data": {"url": url, "only": STANDARD.encode("Sealed-As-Variable-1")}});
        scene.has("v1", "Secret", name, data).await?;
        let built = built(&scene).await?;
        ensure!(built.len() == 1 && built[0]["kind"] == "SealedSecret", "{built:?}");
        gitseal(&scene, &["diff", "--sync", sync]).await?.is(0, &[]).with_context(|| sync.to_owned())?;
    }
    let strict = json!({"substituteFrom": [{"sealedSecret": "vars/strict.yaml"}]});
    for (name, path, spec, reason, part) in [
        (
            "data",
            "./data",
            fields("a"),
            "SubstituteFailed",
            "data/db.yaml:1: Secret db: data.password: the variable db_password is secret, and data takes base64: write \
             the key below stringData instead",
        ),
        (
            "map",
            "./map",
            fields("a"),
            "SubstituteFailed",
            "map/map.yaml:1: ConfigMap map: data.value: the variable db_password is secret, so it can only be in \
             stringData of a Secret",
        ),
        ("changed", "./changed", fields("a"), "SubstituteFailed", "use it without an operator, as ${db_password}"),
        (
            "strict",
            "./strict",
            strict.clone(),
            "SealedValue",
            "strict/db.yaml:1: Secret other: it contains the value of password: the sealed value",
        ),
        (
            "no-sealed",
            "./map",
            json!({"substituteFrom": [{"sealedSecret": "map/map.yaml"}]}),
            "SubstituteFailed",
            "substituteFrom[0]: map/map.yaml:1 is not a SealedSecret",
        ),
    ] {
        scene.sync(name, path, spec).await?;
        let message = scene.is_not_ready(name, reason).await.with_context(|| name.to_owned())?;
        ensure!(message.contains(part), "{name}: '{part}' is not in: {message}");
    }
    scene.sync("named", "./named", strict).await?;
    scene.is_applied("named", &first).await?;
    scene.has("v1", "Secret", "db", json!({"data": {"password": STANDARD.encode("Sealed-For-Its-Name-1")}})).await?;
    // A plain variable makes a Secret in Git no better.
    scene.sync("plaintext", "./app", json!({"substitute": {"name": "x", "user": "y", "db_password": "z"}})).await?;
    scene.is_not_ready("plaintext", "PlaintextSecret").await?;
    Ok(())
}

#[tokio::test]
async fn a_sealed_secret_may_have_variables_in_its_place() -> Result<()> {
    let scene = Scene::new("variables-places").await?;
    let value = scene.seal("web-db", b"Under-A-Variable-Name").await?;
    for folder in ["plain", "over"] {
        let sealed =
            sealed_secret("'${name}-db'", &value).replace("spec:\n", "spec:\n  template: {data: {user: '${user}'}}\n");
        scene.tree.write(&format!("{folder}/db.yaml"), sealed)?;
    }
    scene.tree.write("over/kustomization.yaml", "resources: [db.yaml]\n")?;
    let first = scene.publish("a secret with a variable in its name").await?;
    let data = json!({"data": {"password": STANDARD.encode("Under-A-Variable-Name"), "user": STANDARD.encode("7")}});
    for (path, more) in [
        ("./plain", json!({})),
        ("./plain", json!({"commonLabels": {"a": "b"}})),
        ("./over", json!({"commonLabels": {"a": "b"}})),
    ] {
        let mut spec = json!({"substitute": {"name": "web", "user": "7"}});
        spec.as_object_mut().context("a spec")?.extend(more.as_object().context("fields")?.clone());
        scene.sync("app", path, spec).await?;
        scene.is_applied("app", &first).await.with_context(|| path.to_owned())?;
        scene.has("v1", "Secret", "web-db", data.clone()).await?;
    }
    // A prefix moves the value, also with variables.
    scene.sync("moved", "./plain", json!({"namePrefix": "p-", "substitute": {"name": "web", "user": "7"}})).await?;
    let message = scene.is_not_ready("moved", "SealedValue").await?;
    ensure!(message.contains("sealed for the name web-db") && message.contains("called p-web-db"), "{message}");
    Ok(())
}
