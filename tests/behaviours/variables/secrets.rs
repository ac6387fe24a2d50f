//! Variables, and values of charts, from Secrets of the cluster.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::{Repository, SealedSecret, Sync, find_condition, names::SEALING_KEY};
use harness::{Plane, Scene, eventually, hunt::known, kubernetes};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt as _, api::DeleteParams};
use sealing::PrivateKey;
use serde_json::{Value, json};

use super::map;
use crate::{
    after_rendering::sync_file,
    cli::gitseal,
    objects::{change_by_hand, config_map, is_value},
};

/// A Secret that puts the variable `db_password` into two of its values.
const APP: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: '${name}'}\n\
    stringData: {url: 'db://shop:${db_password}@db', only: '${db_password}', host: '${host:=db}'}\n";

/// Makes or changes a Secret that nobody applies from Git. Its values are searched for where they must not be.
async fn secret(scene: &Scene, name: &str, values: &[(&str, &str)]) -> Result<()> {
    let data: serde_json::Map<_, _> =
        values.iter().map(|(key, value)| ((*key).to_owned(), STANDARD.encode(known(*value)).into())).collect();
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
    kubernetes::apply(&scene.client, &scene.namespace, secret).await.map(drop)
}

/// Waits until a Secret has these values, and others or not.
async fn has(scene: &Scene, name: &str, values: &[(&str, &str)]) -> Result<()> {
    let data: serde_json::Map<_, _> =
        values.iter().map(|(key, value)| ((*key).to_owned(), STANDARD.encode(value).into())).collect();
    scene.has("v1", "Secret", name, json!({"data": data})).await.map(drop)
}

#[tokio::test]
async fn values_of_a_secret_get_into_secrets_and_nothing_else() -> Result<()> {
    let scene = Scene::new("secret-variables").await?;
    scene.tree.write("app/db.yaml", APP)?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/db.yaml", APP)?;
    let of_chart = APP
        .replace("${name}", "of-chart")
        .replace("${db_password}", "{{ .Values.auth.password }}")
        .replace("${host:=db}", "{{ .Values.auth.host | default \"db\" }}");
    scene.tree.write("values/Chart.yaml", "apiVersion: v2\nname: values\nversion: 1.0.0\n")?;
    scene.tree.write("values/templates/db.yaml", of_chart)?;
    let first = scene.publish("Secrets with variables").await?;
    secret(&scene, "db", &[("db_password", "Of-The-Cluster-1"), ("tls.key", "Is-No-Variable-1")]).await?;
    let from = json!([{"secret": "db"}, {"secret": "extra", "optional": true}]);
    let entry = |name: &str| json!({"secret": name, "key": "db_password", "path": "auth.password"});
    let mut optional = entry("extra");
    optional["optional"] = true.into();
    optional["key"] = "host".into();
    optional["path"] = "auth.host".into();
    for (sync, path, mut spec) in [
        ("plain", "./app", json!({})),
        ("prefixed", "./app", json!({"namePrefix": "p-"})),
        ("chart", "./chart", json!({"helm": {}})),
        ("changed", "./chart", json!({"helm": {}, "namePrefix": "c-"})),
        ("values", "./values", json!({"helm": {"valuesFrom": [entry("db"), optional]}})),
    ] {
        if sync != "values" {
            spec["substitute"] = json!({"name": sync});
            spec["substituteFrom"] = from.clone();
        }
        scene.sync(sync, path, spec).await?;
        scene.is_applied(sync, &first).await.with_context(|| sync.to_owned())?;
    }
    let all = ["plain", "p-prefixed", "chart", "c-changed", "of-chart"];
    let have = |password: &'static str, host: &'static str| {
        let scene = &scene;
        async move {
            for name in all {
                let url = format!("db://shop:{password}@db");
                has(scene, name, &[("url", &url), ("only", password), ("host", host)]).await?;
            }
            anyhow::Ok(())
        }
    };
    have("Of-The-Cluster-1", "db").await?;
    secret(&scene, "db", &[("db_password", "Of-The-Cluster-2")]).await?;
    have("Of-The-Cluster-2", "db").await?;
    secret(&scene, "extra", &[("host", "Other-Host-1")]).await?;
    have("Of-The-Cluster-2", "Other-Host-1").await?;
    scene.api::<Secret>().delete("extra", &DeleteParams::default()).await?;
    have("Of-The-Cluster-2", "db").await?;

    // A commit that changes another object renders the folder again, and gives the same sealed values.
    let sealed = scene.api::<SealedSecret>().get("plain").await?;
    scene.tree.write("app/map.yaml", config_map("beside", "1"))?;
    let second = scene.publish("a map beside the Secret").await?;
    scene.is_applied("plain", &second).await?;
    assert_eq!(scene.api::<SealedSecret>().get("plain").await?.resource_version(), sealed.resource_version());

    // Without the Secret, the last good objects stay, and drift is put back to them.
    scene.api::<Secret>().delete("db", &DeleteParams::default()).await?;
    for (sync, field) in [("plain", "spec.substituteFrom[0]"), ("values", "spec.helm.valuesFrom[0]")] {
        let message = scene.is_not_ready(sync, "ValuesNotFound").await?;
        let told = format!("there is no Secret {}/db: create it, or correct {field}", scene.namespace);
        ensure!(message.contains(&told), "{message}");
    }
    let by_hand =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "plain"}, "stringData": {"only": "x"}});
    kubernetes::apply(&scene.client, &scene.namespace, by_hand).await?;
    have("Of-The-Cluster-2", "db").await?;
    change_by_hand(&scene, "beside").await?;
    is_value(&scene, "beside", "1").await?;
    secret(&scene, "db", &[("host", "Other-Host-2")]).await?;
    let told = format!("Secret {}/db: db_password: there is no such key; the Secret has other keys", scene.namespace);
    scene.sync_when("values", "to miss a key", |_, ready| ready.message.contains(&told)).await?;
    secret(&scene, "db", &[("db_password", "Of-The-Cluster-3")]).await?;
    have("Of-The-Cluster-3", "db").await
}

#[tokio::test]
async fn a_value_of_a_secret_outside_of_secrets_is_refused_with_its_place() -> Result<()> {
    let scene = Scene::new("secret-misplaced").await?;
    scene.tree.write("map/map.yaml", format!("# a comment\n{}", map("map", "${db_password}")))?;
    scene.tree.write("changed/db.yaml", APP.replace("${db_password}@", "${db_password^^}@"))?;
    scene.tree.write("data/db.yaml", APP.replace("stringData: ", "data: "))?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/map.yaml", map("map", "{{ .Values.db_password }}"))?;
    scene.publish("values in wrong places").await?;
    secret(&scene, "db", &[("db_password", "Never-In-A-Map-1")]).await?;
    let variables = json!({"substitute": {"name": "a"}, "substituteFrom": [{"secret": "db"}]});
    let values = json!({"helm": {"valuesFrom": [{"secret": "db"}]}});
    for (name, path, spec, reason, part) in [
        (
            "map",
            "./map",
            &variables,
            "SubstituteFailed",
            "map/map.yaml:2: ConfigMap map: data.value: the variable db_password is secret, so it can only be in stringData of a \
             Secret",
        ),
        ("changed", "./changed", &variables, "SubstituteFailed", "use it without an operator, as ${db_password}"),
        ("data", "./data", &variables, "SubstituteFailed", "write the key below stringData instead"),
        (
            "chart",
            "./chart",
            &values,
            "SealedValue",
            "chart/templates/map.yaml:4: ConfigMap map: data.value contains the value db_password of Secret ",
        ),
    ] {
        scene.sync(name, path, spec.clone()).await?;
        let message = scene.is_not_ready(name, reason).await.with_context(|| name.to_owned())?;
        ensure!(message.contains(part), "{name}: '{part}' is not in: {message}");
    }
    assert!(scene.get("v1", "ConfigMap", "map").await?.is_none());
    // The command line reads no Secrets.
    scene.tree.write("sync.yaml", sync_file(&scene, "map", "./map", &variables)?)?;
    let told = format!("spec.substituteFrom[0] of the Sync names Secret {}/db", scene.namespace);
    gitseal(&scene, &["build", "--sync", "sync.yaml"])
        .await?
        .is(1, &[&told, "let only the controller render this Sync"])?;
    gitseal(&scene, &["lint"]).await?.is(0, &[&told, "1 Sync was not rendered"])?;
    gitseal(&scene, &["lint", "--strict"]).await?.is(1, &[&told])?;
    Ok(())
}

#[tokio::test]
async fn a_secret_is_read_with_the_rights_of_the_sync() -> Result<()> {
    let scene = Scene::new("secret-rights").await?;
    scene.tree.write("app/db.yaml", APP)?;
    let revision = scene.publish("a Secret with a variable").await?;
    secret(&scene, "db", &[("db_password", "Only-For-Readers-1")]).await?;
    let may = async |verbs: &[&str]| {
        let rules = json!([
            {"apiGroups": [""], "resources": ["secrets"], "verbs": verbs},
            {"apiGroups": ["bitnami.com"], "resources": ["sealedsecrets"], "verbs": ["*"]},
        ]);
        scene.account("writer", rules).await
    };
    let is_refused = async || {
        let message = scene.is_not_ready("app", "Forbidden").await?;
        for part in ["may not read Secret", "spec.substituteFrom[0]", "the right to `get` it", ":writer"] {
            ensure!(message.contains(part), "no {part:?} in {message}");
        }
        anyhow::Ok(())
    };
    let writes = ["create", "patch", "delete"];
    let reads = ["get", "create", "patch", "delete"];
    may(&writes).await?;
    let spec = json!({
        "substitute": {"name": "app"}, "substituteFrom": [{"secret": "db"}], "serviceAccountName": "writer", "interval": "10s",
    });
    scene.sync("app", "./app", spec).await?;
    is_refused().await?;
    assert!(scene.get("v1", "Secret", "app").await?.is_none());
    may(&reads).await?;
    scene.is_applied("app", &revision).await?;
    has(&scene, "app", &[("only", "Only-For-Readers-1")]).await?;
    // A right that was taken away is noticed although nothing changes.
    may(&writes).await?;
    is_refused().await?;
    may(&reads).await?;
    scene.is_applied("app", &revision).await?;
    // Who may read the Secret but write none gets nothing.
    may(&["get"]).await?;
    scene.tree.write("app/db.yaml", APP.replace("'${name}'", "other"))?;
    scene.publish("another name").await?;
    scene.is_not_ready("app", "Forbidden").await?;
    assert!(scene.get("v1", "Secret", "other").await?.is_none());
    Ok(())
}

#[tokio::test]
async fn a_sealing_key_is_never_read() -> Result<()> {
    const OWN: &str = "kube-system";
    let scene = Scene::new("secret-keys").await?;
    scene.tree.write("app/db.yaml", APP)?;
    scene.publish("a Secret with a variable").await?;
    let labelled = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "retired", "labels": {SEALING_KEY: "retired"}},
        "stringData": {"db_password": known("Of-A-Retired-Key-1")},
    });
    kubernetes::apply(&scene.client, &scene.namespace, labelled).await?;
    let spec = json!({"substitute": {"name": "app"}, "substituteFrom": [{"secret": "retired"}]});
    scene.sync("app", "./app", spec).await?;
    let message = scene.is_not_ready("app", "Forbidden").await?;
    let told = format!("spec.substituteFrom[0] names Secret {}/retired, which is a sealing key", scene.namespace);
    ensure!(message.contains(&told), "{message}");
    assert!(scene.get("v1", "Secret", "app").await?.is_none());

    // With a token of Kubernetes, somebody could act as another account, or join a node to the cluster.
    let token = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "token"}, "type": "bootstrap.kubernetes.io/token",
        "stringData": {"db_password": "Never-Of-A-Token-1"}});
    kubernetes::apply(&scene.client, &scene.namespace, token).await?;
    scene.sync("app", "./app", json!({"substituteFrom": [{"secret": "token"}]})).await?;
    let refused = |_: &Sync, ready: &crds::Condition| {
        ready.reason == "Forbidden"
            && ready.message.contains("holds a token of Kubernetes (type bootstrap.kubernetes.io/token)")
    };
    scene.sync_when("app", "the token to be refused", refused).await?;

    // The names of the controller's own Secrets are refused in its namespace, also for a Sync that writes with its rights.
    let name = scene.namespace.as_str();
    let repository = scene.api::<Repository>().get("repo").await?;
    let repository = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Repository", "metadata": {"name": name}, "spec": repository.spec,
    });
    kubernetes::apply(&scene.client, OWN, repository).await?;
    let sync = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": name},
        "spec": {
            "repository": {"name": name}, "path": "./app", "targetNamespace": name,
            "substitute": {"name": "app"}, "substituteFrom": [{"secret": "gitseal-digest-key"}],
        },
    });
    kubernetes::apply(&scene.client, OWN, sync).await?;
    let syncs = Api::<Sync>::namespaced(scene.client.clone(), OWN);
    let refused = eventually("the Sync to be refused", || async {
        let status = syncs.get(name).await?.status.unwrap_or_default();
        let ready = find_condition(&status.conditions, "Ready").context("no condition")?;
        ensure!(ready.reason == "Forbidden", "{ready:?}");
        Ok(ready.message.clone())
    })
    .await;
    syncs.delete(name, &DeleteParams::default()).await?;
    Api::<Repository>::namespaced(scene.client.clone(), OWN).delete(name, &DeleteParams::default()).await?;
    let message = refused?;
    ensure!(message.contains("names Secret kube-system/gitseal-digest-key, which is a sealing key"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_sync_that_changes_the_secret_that_it_reads_is_rendered_less_and_less_often() -> Result<()> {
    let scene = Scene::new("secret-own").await?;
    scene.tree.write(
        "app/loop.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: loop}\nstringData: {value: '${value}+'}\n",
    )?;
    scene.publish("a Secret that grows").await?;
    let grows = json!({
        "apiVersion": "v1", "kind": "Secret", "stringData": {"value": "grows"},
        "metadata": {"name": "loop", "annotations": {"sealedsecrets.bitnami.com/managed": "true"}},
    });
    kubernetes::apply(&scene.client, &scene.namespace, grows).await?;
    scene.sync("app", "./app", json!({"substituteFrom": [{"secret": "loop"}]})).await?;
    let told = format!(
        "Secret {0}/loop (spec.substituteFrom[0]) has changed after each of the last renders, and this Sync itself applies",
        scene.namespace
    );
    scene.sync_when("app", "to say what changes", |_, ready| ready.message.contains(&told)).await?;
    Ok(())
}

#[tokio::test]
async fn every_sync_that_names_a_secret_wrongly_is_refused_by_the_api_server() -> Result<()> {
    let scene = Scene::new("secret-rules").await?;
    let one = "set exactly one of file, configMap, secret and sealedSecret";
    for (entry, told) in [
        (json!({"secret": "a", "configMap": "a"}), one),
        (json!({"secret": "a", "repository": {"name": "b"}}), "repository can only be set with file or sealedSecret"),
        (json!({"file": "a", "optional": true}), "optional can only be set with configMap or secret"),
    ] {
        for spec in [json!({"substituteFrom": [entry]}), json!({"helm": {"valuesFrom": [entry]}})] {
            let refused: Result<()> = scene.sync("app", "./app", spec).await;
            let error = format!("{:#}", refused.err().context("it was accepted")?);
            ensure!(error.contains(told), "{error}");
        }
    }
    let values: Value = json!({"helm": {"valuesFrom": [{"secret": "a", "key": "b"}]}});
    let error = format!("{:#}", scene.sync("app", "./app", values).await.err().context("it was accepted")?);
    ensure!(error.contains("path can only be set with secret or sealedSecret"), "{error}");
    Ok(())
}

#[tokio::test]
async fn the_new_key_seals_the_values_of_secrets_anew() -> Result<()> {
    let (plane, _controller) = Plane::alone(localcluster::ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "secret-new-key", harness::git::ServerOptions::default()).await?;
    scene.tree.write("app/db.yaml", APP)?;
    scene.repository(json!({})).await?;
    let revision = scene.publish("a Secret with a variable").await?;
    secret(&scene, "db", &[("db_password", "Sealed-Anew-1")]).await?;
    let spec = json!({"substitute": {"name": "app"}, "substituteFrom": [{"secret": "db"}], "interval": "10s"});
    scene.sync("app", "./app", spec).await?;
    scene.is_applied("app", &revision).await?;
    let sealed = async || anyhow::Ok(serde_json::to_value(scene.api::<SealedSecret>().get("app").await?.spec)?);
    let before = sealed().await?;
    let secret = scene.api::<Secret>().get("app").await?;
    let key = PrivateKey::generate(2048)?;
    let start = jiff::Timestamp::now() + jiff::SignedDuration::from_secs(60);
    let certificate = sealing::self_signed(&key, "newest", start, sealing::DEFAULT_VALIDITY)?;
    let newest = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": "sealed-secrets-key-newest", "labels": {SEALING_KEY: "active"}},
        "stringData": {"tls.key": known(&*key.to_pem()?), "tls.crt": certificate.to_pem()},
    });
    kubernetes::apply(&scene.client, "kube-system", newest).await?;
    eventually("the values to be sealed with the new key", || async {
        ensure!(sealed().await? != before, "they are not");
        Ok(())
    })
    .await?;
    scene.is_applied("app", &revision).await?;
    assert_eq!(scene.api::<Secret>().get("app").await?.resource_version(), secret.resource_version());
    has(&scene, "app", &[("only", "Sealed-Anew-1")]).await
}
