//! A Helm release that the real `helm` installed is handed over to a Sync.

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use harness::{Plane, Scene};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret},
};
use kube::api::ListParams;
use localcluster::parts;
use serde_json::{Value, json};

use crate::cli::{certificate_url, gitseal};

const TEMPLATES: [(&str, &str); 4] = [
    (
        "secret",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: {{ .Release.Name }}-db}\ndata:\n  password: {{ .Values.auth.password | b64enc \
         }}\n  url: {{ printf \"db://%s:%s@db\" .Values.auth.user .Values.auth.password | b64enc }}\n",
    ),
    (
        "map",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-map}\ndata: {level: {{ .Values.level }}, user: {{ \
         .Values.auth.user }}}\n",
    ),
    (
        "web",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: {{ .Release.Name }}-web}\nspec:\n  replicas: 0\n  selector: \
         {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, image: web, \
         envFrom: [{secretRef: {name: {{ .Release.Name }}-db}}]}]}\n",
    ),
    (
        "hook",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }}-hook, annotations: {helm.sh/hook: 'post-install,post-upgrade'}}\n",
    ),
];

/// Runs the real `helm`.
pub(crate) async fn helm(scene: &Scene, arguments: &[&str]) -> Result<String> {
    let kubeconfig = Plane::shared().await?.cluster.kubeconfig().to_owned();
    let mut command = Command::new(tokio::task::spawn_blocking(parts::helm).await??);
    command
        .current_dir(scene.tree.path())
        .args(["--kubeconfig"])
        .arg(kubeconfig)
        .args(["-n", &scene.namespace])
        .args(arguments);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Ok(String::from_utf8(output.stdout)?)
}

#[tokio::test]
async fn a_release_becomes_a_sync_and_no_object_is_made_again() -> Result<()> {
    let scene = Scene::new("adopt").await?;
    scene.tree.write("charts/shop/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.2.0\n")?;
    scene.tree.write("charts/shop/values.yaml", "level: info\nauth: {user: nobody, password: ''}\n")?;
    for (name, text) in TEMPLATES {
        scene.tree.write(&format!("charts/shop/templates/{name}.yaml"), text)?;
    }
    scene.publish("a chart").await?;
    let values =
        ["--set", "level=debug", "--set", "auth.user=shopkeeper", "--set", "auth.password=correct-horse-battery"];
    helm(&scene, &[&["install", "shop", "charts/shop"], &values[..]].concat()).await?;
    helm(&scene, &[&["upgrade", "shop", "charts/shop"], &values[..]].concat()).await?;
    let uids = async || -> Result<Vec<Option<String>>> {
        let deployment = scene.api::<Deployment>().get("shop-web").await?.metadata;
        let rollouts = deployment.annotations.unwrap_or_default().remove("deployment.kubernetes.io/revision");
        let map = scene.api::<ConfigMap>().get("shop-map").await?.metadata.uid;
        let secret = scene.api::<Secret>().get("shop-db").await?.metadata.uid;
        Ok(vec![deployment.uid, rollouts, map, secret])
    };
    let is_rolled_out = json!({"metadata": {"annotations": {"deployment.kubernetes.io/revision": "1"}}});
    scene.has("apps/v1", "Deployment", "shop-web", is_rolled_out).await?;
    let before = uids().await?;

    // The password must be sealed, and is printed nowhere.
    let adopt = ["adopt", "helm", "shop", "--path", "charts/shop"];
    let refused = gitseal(&scene, &adopt).await?.is(1, &["auth.password", "--seal"])?;
    ensure!(!refused.err.contains("correct-horse") && refused.out.is_empty(), "{}", refused.err);
    let cert = certificate_url().await?;
    let adopt = [&adopt[..], &["--seal", "secrets/shop.yaml", "--cert", &cert, "--allow-http-cert"]].concat();
    let made = gitseal(&scene, &adopt).await?.is(
        0,
        &[
            "the value auth.user is in a Secret and in ConfigMap",
            "revision 2 of the release (chart shop-1.2.0) has 3 objects; the Sync applies 3 of them as they are",
            "the hook ConfigMap",
            "kubectl annotate secret",
            "next: commit the Sync and secrets/shop.yaml, and apply the Sync; when it is Ready: gitseal adopt helm shop -n ",
        ],
    )?;
    ensure!(!made.err.contains("warning: the chart in"), "{}", made.err);
    ensure!(made.out.contains("gitseal.dev/installed:"), "hooks for the installation would run: {}", made.out);
    ensure!(!made.out.contains("correct-horse") && !made.err.contains("correct-horse"), "{}\n{}", made.out, made.err);
    let again = gitseal(&scene, &adopt).await?;
    again.is(1, &["secrets/shop.yaml exists already"])?;
    scene.publish("the sealed values").await?;

    // The Sync that the command printed is applied. Only `wait` is changed.
    let manifest = manifests::parse("sync.yaml", made.out.as_bytes(), &manifests::Limits::default())?.remove(0);
    let mut spec = Value::Object(manifest.body)["spec"].take();
    spec["wait"] = json!(false);
    let managed = json!({"metadata": {"annotations": {"sealedsecrets.bitnami.com/managed": "true"}}});
    let how = kube::api::PatchParams::default();
    scene.api::<Secret>().patch("shop-db", &how, &kube::api::Patch::Merge(managed)).await?;
    let finish = ["adopt", "helm", "shop", "--finish", "--yes"];
    gitseal(&scene, &finish).await?.is(1, &["no Sync in the namespace"])?;
    scene.sync("shop", "./charts/shop", spec).await?;
    scene.is_ready("shop").await?;
    assert_eq!(uids().await?, before);
    let secret = scene.api::<Secret>().get("shop-db").await?;
    let data = secret.data.context("no data")?;
    assert_eq!(data["url"].0, b"db://shopkeeper:correct-horse-battery@db");
    ensure!(scene.has("v1", "ConfigMap", "shop-map", json!({"data": {"level": "debug"}})).await.is_ok());

    // Who asks for a Sync again is told the next step.
    gitseal(&scene, &adopt).await?.is(1, &["Sync ", "/shop renders this release already", "--finish"])?;

    // Helm forgets the release, and the objects stay.
    gitseal(&scene, &finish).await?.is(0, &["removed 2 stored revisions of the release"])?;
    ensure!(!helm(&scene, &["list"]).await?.contains("shop-1.2.0"));
    let stored = scene.api::<Secret>().list(&ListParams::default().labels("owner=helm")).await?;
    ensure!(stored.items.is_empty(), "{} are left", stored.items.len());
    assert_eq!(uids().await?, before);
    gitseal(&scene, &finish).await?.is(0, &["nothing to remove: Helm does not know the release"])?;
    gitseal(&scene, &["adopt", "helm", "none", "--finish"]).await?.is(1, &["there is no Helm release none"])?;
    Ok(())
}

#[tokio::test]
async fn what_the_chart_made_itself_is_named_with_what_to_do() -> Result<()> {
    let scene = Scene::new("adopt-made").await?;
    let chart = |version: &str, password: &str| -> Result<()> {
        scene.tree.write("charts/own/Chart.yaml", format!("apiVersion: v2\nname: own\nversion: {version}\n"))?;
        scene.tree.write("charts/own/values.yaml", "token: ''\npassword: ''\n")?;
        let secret = format!(
            "apiVersion: v1\nkind: Secret\nmetadata: {{name: own-db}}\ndata:\n  token: {{{{ .Values.token | b64enc }}}}\n  password: \
             {{{{ {password} | b64enc }}}}\n"
        );
        scene.tree.write("charts/own/templates/secret.yaml", secret)
    };
    chart("1.2.0", "randAlphaNum 20")?;
    scene.publish("a chart that makes a password").await?;
    helm(&scene, &["install", "own", "charts/own", "--set", "token=Given-Token-1"]).await?;
    let cert = certificate_url().await?;
    let adopt =
        ["adopt", "helm", "own", "--path", "charts/own", "--seal", "own.yaml", "--cert", &cert, "--allow-http-cert"];
    let parts = ["cannot render the chart", "randAlphaNum", "password of Secret own-db", "helm upgrade own"];
    let refused = gitseal(&scene, &adopt).await?.is(1, &parts)?;
    ensure!(refused.out.is_empty() && !refused.err.contains("Given-Token"), "{}{}", refused.out, refused.err);
    ensure!(!scene.tree.path().join("own.yaml").exists(), "the sealed values are left");
    // As the hint says: a value for the password. Then the command seals both.
    let value = ["--reuse-values", "--set", "password=Given-Password-1"];
    chart("1.2.0", ".Values.password")?;
    helm(&scene, &[&["upgrade", "own", "charts/own"], &value[..]].concat()).await?;
    chart("1.3.0", ".Values.password")?;
    let parts =
        ["the chart in charts/own is own-1.3.0, but the release has own-1.2.0", "sealed 2 values into own.yaml"];
    let made = gitseal(&scene, &adopt).await?.is(0, &parts)?;
    ensure!(!made.out.contains("Given-") && !made.err.contains("Given-"), "{}{}", made.out, made.err);
    Ok(())
}
