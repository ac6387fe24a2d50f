//! How the controller starts and stops: what it needs, what it serves, and how it ends.

use std::{process::Command, time::Duration};

use anyhow::{Result, bail};
use harness::{
    Plane, eventually, kubernetes,
    programs::{self, Controller, ControllerOptions},
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, api::DeleteParams};
use localcluster::{ClusterOptions, Signal};

async fn ends_with(controller: &mut Controller, what: &str) -> Result<i32> {
    eventually(what, || {
        let (code, log) = (controller.process().try_wait(), controller.log());
        async move {
            match code? {
                Some(code) => Ok(code),
                None => bail!("it still runs:\n{log}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn it_says_what_is_missing_serves_its_endpoints_and_leaves_in_order() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let client = plane.cluster.client().await?;
    let folder = plane.folder();
    let options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());

    crds.delete("sealedsecrets.bitnami.com", &DeleteParams::default()).await?;
    eventually("the CRD to be gone", || async {
        match crds.get_opt("sealedsecrets.bitnami.com").await? {
            None => Ok(()),
            Some(_) => bail!("it is still there"),
        }
    })
    .await?;
    let mut controller = Controller::start(&options)?;
    assert_eq!(ends_with(&mut controller, "the controller to refuse").await?, 1);
    let log = controller.log();
    assert!(log.contains("error: the cluster lacks the CustomResourceDefinition sealedsecrets.bitnami.com"), "{log}");
    assert!(log.contains("gitseal install --apply"), "{log}");

    kubernetes::install_crds(&client).await?;
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    assert_eq!(controller.fetch("/healthz").await?.trim(), "ok");
    let certificate = controller.fetch("/v1/cert.pem").await?;
    assert!(sealing::Certificate::from_pem(certificate.as_bytes()).is_ok());
    let metrics = controller.fetch("/metrics").await?;
    assert!(metrics.contains("sealed_secrets_controller_build_info"), "{metrics}");
    controller.process().signal(Signal::Terminate)?;
    assert_eq!(ends_with(&mut controller, "the controller to end").await?, 0);
    assert!(controller.log().contains("shutting down"), "{}", controller.log());

    // The key is stored, so the next process serves the same certificate.
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    assert_eq!(controller.fetch("/v1/cert.pem").await?, certificate);
    Ok(())
}

#[tokio::test]
async fn a_cluster_that_is_not_there_is_an_error_and_no_hang() -> Result<()> {
    let program = programs::folder()?.join("gitseal-controller");
    let version = programs::run(Command::new(&program).arg("--version"))?;
    assert!(version.starts_with("controller version: v"), "{version}");
    let folder = tempfile::tempdir()?;
    let output = tokio::time::timeout(
        Duration::from_secs(60),
        tokio::process::Command::new(program)
            .args([
                "--kubeconfig",
                "/nonexistent/kubeconfig",
                "--listen-addr=127.0.0.1:0",
                "--listen-metrics-addr=127.0.0.1:0",
            ])
            .arg("--storage")
            .arg(folder.path())
            .kill_on_drop(true)
            .output(),
    )
    .await??;
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("error: no usable cluster configuration"), "{said}");
    Ok(())
}

/// Runs the controller without a cluster, until it fails because there is none.
async fn without_a_cluster(arguments: &[&str], environment: &[(&str, &str)]) -> Result<(String, String)> {
    let folder = tempfile::tempdir()?;
    let mut command = tokio::process::Command::new(programs::folder()?.join("gitseal-controller"));
    command
        .args([
            "--kubeconfig=/nonexistent",
            "--listen-addr=127.0.0.1:0",
            "--listen-metrics-addr=127.0.0.1:0",
            "--storage",
        ])
        .arg(folder.path())
        .args(arguments)
        .envs(environment.iter().copied())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(60), command.output()).await??;
    Ok((String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?))
}

#[tokio::test]
async fn it_logs_where_and_how_the_flags_of_sealed_secrets_say() -> Result<()> {
    let (out, err) = without_a_cluster(&[], &[]).await?;
    assert!(out.contains("INFO") && out.contains("listening"), "{out}");
    assert!(!err.contains("INFO") && err.contains("error: no usable cluster"), "{err}");
    let (out, err) = without_a_cluster(&["--log-info-stdout=false"], &[]).await?;
    assert!(out.is_empty() && err.contains("listening"), "{out}{err}");
    let (out, err) = without_a_cluster(&["--log-level", "ERROR"], &[]).await?;
    assert!(out.is_empty() && !err.contains("listening"), "{out}{err}");
    let given = ["--rotate-period=1h", "--old-gc-behavior"];
    let (out, err) = without_a_cluster(&given, &[("SEALED_SECRETS_LOG_FORMAT", "json")]).await?;
    assert!(out.lines().all(|line| line.starts_with('{')) && out.contains("listening"), "{out}");
    for warning in ["--rotate-period is deprecated", "--old-gc-behavior has no effect"] {
        assert!(err.contains(warning) && err.contains("\"WARN\""), "{err}");
    }
    Ok(())
}
