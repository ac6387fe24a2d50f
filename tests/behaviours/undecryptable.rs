//! A value that cannot be unsealed: its Secret, and the objects that use it, keep their last good version. Everything else
//! is applied.

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use crds::names::SEALING_KEY;
use harness::{Plane, Scene, kubernetes};
use sealing::Scope;
use serde_json::{Value, json};

use crate::objects::{config_map, deployment, sealed_secret};

/// A Deployment that reads its environment from the Secret `db`.
fn user_of_db(version: &str) -> String {
    deployment("web", 0).replace(
        "image: example.invalid/c",
        &format!(
            "image: 'example.invalid/c:{version}', env: [{{name: P, valueFrom: {{secretKeyRef: {{name: db, key: password}}}}}}]"
        ),
    )
}

/// Writes the files of one revision. All objects contain `version`; `password` is the sealed password.
fn write(scene: &Scene, version: &str, password: &str) -> Result<()> {
    let tree = &scene.tree;
    tree.write("app/db.yaml", format!("# {version}\n---\n{}", sealed_secret("db", password)))?;
    tree.write("app/web.yaml", user_of_db(version))?;
    tree.write("app/settings.yaml", config_map("settings", version))?;
    tree.write(
        "app/other.yaml",
        deployment("other", 0).replace("example.invalid/c", &format!("'example.invalid/c:{version}'")),
    )
}

async fn image(scene: &Scene, deployment: &str) -> Result<String> {
    let found = scene.get("apps/v1", "Deployment", deployment).await?;
    let found = found.with_context(|| format!("Deployment {deployment} is gone"))?;
    let image = found.pointer("/spec/template/spec/containers/0/image");
    Ok(image.and_then(Value::as_str).unwrap_or_default().to_owned())
}

async fn has_password(scene: &Scene, password: &str) -> Result<()> {
    let wanted = json!({"data": {"password": STANDARD.encode(password)}});
    scene.has("v1", "Secret", "db", wanted).await.map(drop)
}

#[tokio::test]
async fn only_what_uses_it_waits() -> Result<()> {
    let scene = Scene::new("held").await?;
    write(&scene, "v1", &scene.seal("db", b"held-first").await?)?;
    let first = scene.publish("good").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;
    has_password(&scene, "held-first").await?;

    let elsewhere = scene.seal("another-name", b"held-moved").await?;
    let flipped = {
        let mut bytes = STANDARD.decode(scene.seal("db", b"held-flipped").await?)?;
        *bytes.last_mut().context("empty")? ^= 1;
        STANDARD.encode(bytes)
    };
    for (version, value) in
        [("v2", elsewhere.as_str()), ("v3", flipped.as_str()), ("v4", "AgBnYXJiYWdl"), ("v5", "'not base64 at all'")]
    {
        write(&scene, version, value)?;
        let revision = scene.publish(version).await?;
        scene
            .sync_when("app", "it to be held back", |sync, ready| {
                let status = sync.status.as_ref().unwrap();
                status.last_attempted_revision.as_ref() == Some(&revision) && ready.reason == "UnsealFailed"
            })
            .await?;
        let message = scene.is_not_ready("app", "UnsealFailed").await?;
        for text in [
            "app/db.yaml:3: SealedSecret",
            "spec.encryptedData.password: ",
            "; the objects that use it stay as they are, or are not made: Deployment ",
            "everything else is applied",
        ] {
            assert!(message.contains(text), "{version}: no {text:?} in: {message}");
        }
        // In the message, the reason is after the key, and before the objects that wait.
        let reason = message.split("password: ").nth(1).context("no reason")?;
        assert!(reason.find(';').is_some_and(|end| end > 10), "{version}: {message}");

        // When the status has this message, the rest of the revision has already been applied.
        let settings = scene.get("v1", "ConfigMap", "settings").await?;
        assert_eq!(settings.context("settings")?["data"]["value"], version);
        assert!(image(&scene, "other").await?.ends_with(version));
        assert!(image(&scene, "web").await?.ends_with(":v1"), "{version}");
        has_password(&scene, "held-first").await?;
        // The SealedSecret itself is applied, and its status says that it cannot be unsealed.
        let sealed = scene.get("bitnami.com/v1alpha1", "SealedSecret", "db").await?.context("SealedSecret")?;
        assert_eq!(sealed["spec"]["encryptedData"]["password"], value.trim_matches('\''), "{version}");
    }

    write(&scene, "v6", &scene.seal("db", b"held-second").await?)?;
    let fixed = scene.publish("fixed").await?;
    scene.is_applied("app", &fixed).await?;
    has_password(&scene, "held-second").await?;
    assert!(image(&scene, "web").await?.ends_with(":v6"));
    Ok(())
}

#[tokio::test]
async fn what_is_new_waits_as_a_whole_and_what_left_git_goes() -> Result<()> {
    let scene = Scene::new("heldnew").await?;
    scene.tree.write("app/old.yaml", config_map("old", "1"))?;
    scene.tree.write("app/older.yaml", config_map("older", "1"))?;
    let first = scene.publish("before").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &first).await?;

    scene.tree.remove("app/old.yaml")?;
    write(&scene, "v1", &scene.seal("another-name", b"held-moved").await?)?;
    scene.tree.write(
        "app/account.yaml",
        "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: puller}\nimagePullSecrets: [{name: db}]\n",
    )?;
    scene.publish("a new workload").await?;
    let message = scene.is_not_ready("app", "UnsealFailed").await?;
    let (web, puller) =
        (format!("Deployment {}/web", scene.namespace), format!("ServiceAccount {}/puller", scene.namespace));
    let held =
        message.split("; the objects that use it stay as they are, or are not made: ").nth(1).unwrap_or_default();
    assert!(held.contains(&web) && held.contains(&puller), "{message}");
    scene.has("v1", "ConfigMap", "settings", json!({})).await?;
    scene.is_gone("v1", "ConfigMap", "old").await?;
    for (api_version, kind, name) in
        [("v1", "Secret", "db"), ("apps/v1", "Deployment", "web"), ("v1", "ServiceAccount", "puller")]
    {
        assert!(scene.get(api_version, kind, name).await?.is_none(), "{kind} {name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_sealing_key_that_arrives_later_is_all_it_takes() -> Result<()> {
    let scene = Scene::new("latekey").await?;
    let key = tokio::task::spawn_blocking(|| sealing::PrivateKey::generate(2048)).await??;
    let binding = sealing::Scope::Strict.binding(&scene.namespace, "db", "password");
    write(&scene, "v1", &sealing::seal(key.public_key(), binding, harness::hunt::known(b"arrives-5f2c"))?)?;
    let revision = scene.publish("sealed for a cluster that was restored without its keys").await?;
    scene.sync("app", "./app", json!({})).await?;
    let message = scene.is_not_ready("app", "UnsealFailed").await?;
    assert!(message.contains("app/db.yaml:3"), "{message}");
    scene.has("v1", "ConfigMap", "settings", json!({})).await?;

    // This key is only for unsealing, so that other tests still seal with the plane's own key.
    let secret = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls",
        "metadata": {"name": format!("restored-{}", scene.namespace), "labels": {SEALING_KEY: "compromised"}},
        "stringData": {"tls.key": key.to_pem()?.as_str(), "tls.crt": ""},
    });
    kubernetes::apply(&scene.client, "kube-system", secret).await?;
    scene.is_applied("app", &revision).await?;
    has_password(&scene, "arrives-5f2c").await?;
    assert!(image(&scene, "web").await?.ends_with(":v1"));
    let log = Plane::shared().await?.log().await;
    assert!(!log.contains("arrives-5f2c"), "the value is in the log");
    Ok(())
}

#[tokio::test]
async fn a_folder_with_more_values_than_a_sync_unseals_holds_those_beyond() -> Result<()> {
    let scene = Scene::new("many-values").await?;
    scene.tree.write("app/a.yaml", sealed_secret("first", &scene.seal("first", b"held-one").await?))?;
    scene.tree.write("app/c.yaml", sealed_secret("db", &scene.seal("db", b"held-first").await?))?;
    scene.tree.write("app/web.yaml", user_of_db("v1"))?;
    let good = scene.publish("few").await?;
    scene.sync("app", "./app", json!({})).await?;
    scene.is_applied("app", &good).await?;

    // The SealedSecret is held back before any request is made for it.
    let many = pipeline::plan::MOST_VALUES;
    let values: serde_json::Map<_, _> = (0..many).map(|index| (format!("k{index}"), json!("AgA"))).collect();
    let huge = json!({"apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "huge"},
                      "spec": {"encryptedData": values}});
    scene.tree.write("app/b.yaml", huge.to_string())?;
    scene.tree.write("app/c.yaml", sealed_secret("db", &scene.seal("db", b"held-second").await?))?;
    scene.tree.write("app/web.yaml", user_of_db("v2"))?;
    scene.tree.write("app/settings.yaml", config_map("settings", "v2"))?;
    scene.publish("many").await?;
    let message = scene.is_not_ready("app", "UnsealFailed").await?;
    for text in [
        "app/b.yaml:1: SealedSecret",
        "more than 50000 sealed values",
        "; and 1 more: ",
        "; the objects that use it stay as they are, or are not made: Deployment ",
        "split it",
        "everything else is applied",
    ] {
        assert!(message.contains(text), "no {text:?} in: {message}");
    }
    scene.has("v1", "ConfigMap", "settings", json!({"data": {"value": "v2"}})).await?;
    scene.has("v1", "Secret", "first", json!({"data": {"password": STANDARD.encode("held-one")}})).await?;
    has_password(&scene, "held-first").await?;
    assert_eq!(image(&scene, "web").await?, "example.invalid/c:v1");
    assert!(scene.get("bitnami.com/v1alpha1", "SealedSecret", "huge").await?.is_none(), "it was sent");

    scene.tree.remove("app/b.yaml")?;
    let fewer = scene.publish("fewer").await?;
    scene.is_applied("app", &fewer).await?;
    has_password(&scene, "held-second").await?;
    assert_eq!(image(&scene, "web").await?, "example.invalid/c:v2");
    Ok(())
}

#[tokio::test]
async fn a_value_of_a_chart_or_a_variable_names_the_file_in_which_it_is_sealed() -> Result<()> {
    let scene = Scene::new("held-values").await?;
    let mut bytes = STANDARD.decode(scene.seal_for(Scope::NamespaceWide, "any", b"held-in-a-file").await?)?;
    *bytes.last_mut().context("empty")? ^= 1;
    let wide = "metadata: {annotations: {sealedsecrets.bitnami.com/namespace-wide: 'true'}, ";
    let values = sealed_secret("any", &STANDARD.encode(bytes)).replace("metadata: {", wide);
    scene.tree.write("secrets/values.yaml", format!("# of the database\n{values}"))?;
    let secret = |text: &str| {
        format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: db}}\nstringData: {{url: 'db://me:{text}@db'}}\n")
    };
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/db.yaml", secret("{{ .Values.auth.password }}"))?;
    scene.tree.write("app/db.yaml", secret("${password}").replace("name: db", "name: db-of-app"))?;
    scene.publish("a value that no key unseals").await?;
    let of_chart = json!({"helm": {"valuesFrom": [{"sealedSecret": "secrets/values.yaml", "path": "auth"}]}});
    let of_variable = json!({"substituteFrom": [{"sealedSecret": "./secrets/values.yaml"}]});
    for (name, path, spec, made_of) in [
        ("chart", "./chart", of_chart, "chart/templates/db.yaml:1: SealedSecret"),
        ("app", "./app", of_variable, "app/db.yaml:1: SealedSecret"),
    ] {
        scene.sync(name, path, spec).await?;
        let message = scene.is_not_ready(name, "UnsealFailed").await?;
        let place =
            "the value of spec.encryptedData.password is in secrets/values.yaml:7 (password): seal it again there";
        ensure!(message.contains(made_of) && message.contains(place), "{name}: {message}");
    }
    Ok(())
}
