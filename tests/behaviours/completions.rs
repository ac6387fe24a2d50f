//! Shell completions that offer names from a real cluster.

use std::{path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use harness::{Plane, Scene, kubernetes, programs};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, ResourceExt, api::ListParams};
use serde_json::json;

/// The completions of the last word of a line, requested as the completion script for fish requests them. Checks that
/// nothing is written to stderr.
async fn offered(kubeconfig: &Path, line: &[&str]) -> Result<Vec<String>> {
    let mut command = programs::gitseal(kubeconfig)?;
    command.args(["--", "gitseal"]).args(line).env("GITSEAL_COMPLETE", "fish");
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(words(&String::from_utf8(output.stdout)?))
}

/// The content of COMPREPLY for the last word of a line, after bash has sourced the script.
async fn in_bash(kubeconfig: &Path, line: &[&str]) -> Result<Vec<String>> {
    const SCRIPT: &str = r#"
        source <(gitseal completions bash) || exit
        [[ $(complete -p gitseal) =~ -F\ ([^ ]+) ]] || exit
        COMP_WORDS=(gitseal "$@") COMP_CWORD=$# COMP_TYPE=9
        "${BASH_REMATCH[1]}" gitseal "${COMP_WORDS[COMP_CWORD]}" "${COMP_WORDS[COMP_CWORD - 1]}"
        printf '%s\n' "${COMPREPLY[@]}"
    "#;
    let path = std::env::join_paths(
        std::iter::once(programs::folder()?.to_owned())
            .chain(std::env::split_paths(&std::env::var_os("PATH").context("a PATH")?)),
    )?;
    let mut command = Command::new("bash");
    command.args(["--norc", "-c", SCRIPT, "bash"]).args(line).env("PATH", path).env("KUBECONFIG", kubeconfig);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    Ok(words(&String::from_utf8(output.stdout)?))
}

/// The first word of each line. The rest of the line is its description.
fn words(text: &str) -> Vec<String> {
    text.lines().filter_map(|line| line.split('\t').next()).filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

#[tokio::test]
async fn names_are_those_of_the_cluster_and_namespace_of_the_line() -> Result<()> {
    let scene = Scene::new("complete").await?;
    let plane = Plane::shared().await?;
    let (kubeconfig, namespace) = (plane.cluster.kubeconfig(), scene.namespace.as_str());
    for name in ["web", "worker", "repo"] {
        scene.sync(name, "./none", json!({"suspend": true})).await?;
    }
    let settings = json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}});
    kubernetes::apply(&scene.client, namespace, settings).await?;
    let sealed = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "db"},
        "spec": {"encryptedData": {"password": scene.seal("db", b"hunter2").await?}},
    });
    kubernetes::apply(&scene.client, namespace, sealed).await?;

    let all = ["repo", "repository/repo", "web", "worker"];
    for command in ["status", "sync", "suspend", "resume", "history"] {
        assert_eq!(offered(kubeconfig, &["-n", namespace, command, ""]).await?, all, "{command}");
    }
    let with = |words: &[&'static str]| [&["status", "--namespace", namespace], words].concat();
    assert_eq!(offered(kubeconfig, &with(&["w"])).await?, ["web", "worker"]);
    assert_eq!(offered(kubeconfig, &with(&["web", "repo"])).await?, ["repo", "repository/repo"]);
    assert_eq!(offered(kubeconfig, &with(&["sync/w"])).await?, ["sync/web", "sync/worker"]);
    assert_eq!(offered(kubeconfig, &["diff", ".", "-n", namespace, "--sync", "we"]).await?, ["web"]);
    assert_eq!(offered(kubeconfig, &["events", "-n", namespace, "sealed"]).await?, ["sealedsecret/db"]);
    assert_eq!(offered(kubeconfig, &["status", "-n", &namespace[..namespace.len() - 1]]).await?, [namespace]);
    assert_eq!(offered(kubeconfig, &["trace", "-n", namespace, "cm/set"]).await?, ["cm/settings"]);
    assert_eq!(offered(kubeconfig, &["trace", "configm"]).await?, ["configmap/"]);

    let secrets = Api::<Secret>::namespaced(scene.client.clone(), "kube-system");
    let active = ListParams::default().labels("sealedsecrets.bitnami.com/sealed-secrets-key=active");
    let mut keys: Vec<_> = secrets.list_metadata(&active).await?.iter().map(ResourceExt::name_any).collect();
    keys.sort();
    ensure!(!keys.is_empty(), "the controller has a key");
    assert_eq!(offered(kubeconfig, &["keys", "retire", "--controller-namespace", "kube-system", ""]).await?, keys);

    // Flags on the line that choose the cluster are used, too.
    let none = scene.tree.path().join("none");
    assert!(offered(&none, &with(&["w"])).await?.is_empty());
    let kubeconfig = kubeconfig.to_str().context("UTF-8")?;
    let line = ["--kubeconfig", kubeconfig, "status", "-n", namespace, "w"];
    assert_eq!(offered(&none, &line).await?, ["web", "worker"]);
    Ok(())
}

#[tokio::test]
async fn bash_offers_them() -> Result<()> {
    let scene = Scene::new("complete-bash").await?;
    let (kubeconfig, namespace) = (Plane::shared().await?.cluster.kubeconfig(), scene.namespace.as_str());
    scene.sync("web", "./none", json!({"suspend": true})).await?;
    scene.sync("worker", "./none", json!({"suspend": true})).await?;
    assert_eq!(in_bash(kubeconfig, &["status", "-n", namespace, "w"]).await?, ["web", "worker"]);
    assert_eq!(in_bash(kubeconfig, &["status", "-n", namespace, ""]).await?, ["repo", "web", "worker"]);
    assert_eq!(in_bash(kubeconfig, &["-n", namespace, "sus"]).await?, ["suspend"]);
    assert!(in_bash(kubeconfig, &["status", "-n", namespace, "none"]).await?.is_empty());
    Ok(())
}

#[tokio::test]
async fn who_may_not_see_names_is_offered_none_in_silence() -> Result<()> {
    let scene = Scene::new("complete-rights").await?;
    let namespace = scene.namespace.as_str();
    scene.sync("web", "./none", json!({"suspend": true})).await?;
    scene.account("viewer", json!([{"apiGroups": ["gitseal.dev"], "resources": ["syncs"], "verbs": ["list"]}])).await?;
    let user = format!("system:serviceaccount:{namespace}:viewer");
    let kubeconfig = Plane::shared().await?.cluster.kubeconfig_for(&user, &[])?;
    assert_eq!(offered(&kubeconfig, &["status", "-n", namespace, ""]).await?, ["web"], "no Repository");
    for line in [&["status", "-n", ""][..], &["keys", "retire", ""], &["trace", "-n", namespace, "secret/"]] {
        let offered = offered(&kubeconfig, line).await?;
        ensure!(offered.iter().all(|word| word.starts_with('-')), "{line:?}: {offered:?}");
    }
    Ok(())
}
