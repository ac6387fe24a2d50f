//! Compares the metrics of gitseal's controller and of the Sealed Secrets controller after the same actions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, ensure};
use harness::{Plane, eventually, programs};
use sealing::Scope;
use serde_json::json;

use super::side::{Side, Theirs};

/// One scrape in the text format of Prometheus: types by metric, and samples.
struct Scrape {
    types: BTreeMap<String, String>,
    samples: Vec<Sample>,
}

#[derive(Debug)]
struct Sample {
    name: String,
    labels: BTreeMap<String, String>,
    value: f64,
}

impl Scrape {
    fn parse(text: &str) -> Result<Self> {
        let mut scrape = Self { types: BTreeMap::new(), samples: Vec::new() };
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, type_) = rest.split_once(' ').context("a type")?;
                scrape.types.insert(name.to_owned(), type_.to_owned());
            } else if !line.starts_with('#') {
                scrape.samples.push(Sample::parse(line).with_context(|| line.to_owned())?);
            }
        }
        Ok(scrape)
    }

    /// Names of the labels of a metric, in any of its samples.
    fn labels(&self, metric: &str) -> BTreeSet<&str> {
        let is_of = |sample: &&Sample| {
            let rest = sample.name.strip_prefix(metric);
            rest.is_some_and(|rest| ["", "_sum", "_count", "_bucket"].contains(&rest))
        };
        self.samples.iter().filter(is_of).flat_map(|sample| sample.labels.keys().map(String::as_str)).collect()
    }

    /// The samples of a metric in a namespace: a map from the labels of each sample, without the namespace, to its
    /// value.
    fn in_namespace(&self, metric: &str, namespace: &str) -> BTreeMap<Vec<String>, String> {
        let samples = self.samples.iter().filter(|sample| sample.name == metric);
        let of_namespace =
            samples.filter(|sample| sample.labels.get("namespace").is_some_and(|name| name == namespace));
        let without_namespace = |sample: &Sample| {
            let labels = sample.labels.iter().filter(|(name, _)| *name != "namespace");
            labels.map(|(name, value)| format!("{name}={value}")).collect()
        };
        of_namespace.map(|sample| (without_namespace(sample), sample.value.to_string())).collect()
    }
}

impl Sample {
    fn parse(line: &str) -> Result<Self> {
        let (head, value) = line.rsplit_once(' ').context("no value")?;
        let (name, labels) = match head.split_once('{') {
            Some((name, labels)) => (name, labels.strip_suffix('}').context("no end")?),
            None => (head, ""),
        };
        // In these tests, no label value contains a comma or a quote.
        let pairs = labels.split(',').filter(|pair| !pair.is_empty()).map(|pair| {
            let (name, value) = pair.split_once('=').context("no =")?;
            Ok((name.to_owned(), value.trim_matches('"').to_owned()))
        });
        let value = match value {
            "+Inf" => f64::INFINITY,
            value => value.parse()?,
        };
        Ok(Self { name: name.to_owned(), labels: pairs.collect::<Result<_>>()?, value })
    }
}

async fn our_text() -> Result<String> {
    let plane = Plane::shared().await?;
    let controller = plane.controller.lock().await;
    controller.as_ref().context("no controller")?.fetch("/metrics").await
}

/// Creates three SealedSecrets: one that is unsealed, one that cannot be unsealed, and one whose Secret belongs to somebody
/// else.
async fn scenario(side: &Side) -> Result<()> {
    let mut good = side.sealed("good", &[("a", "one")], json!({}))?;
    good["metadata"]["labels"] = json!({"app.kubernetes.io/instance": "shop"});
    side.apply(good).await?;
    let mut bad = side.sealed("bad", &[], json!({}))?;
    bad["spec"]["encryptedData"]["a"] = side.seal_for(Scope::Strict, "elsewhere", "x")?.into();
    side.apply(bad).await?;
    side.create_secret("foreign", json!({})).await?;
    side.put("foreign", &[("a", "one")], json!({})).await?;
    side.synced("good", "True").await?;
    side.synced("bad", "False").await?;
    side.synced("foreign", "False").await.map(drop)
}

#[tokio::test]
async fn names_labels_and_values_are_theirs() -> Result<()> {
    let (ours, theirs) = (Side::ours("metrics").await?, Side::theirs("metrics").await?);
    for side in [&ours, &theirs] {
        scenario(side).await?;
    }
    let their_controller = &Theirs::shared().await?.controller;
    // Both controllers update the metric of the conditions only after the status, so the test waits for it.
    eventually("the same series", || async {
        let (our, their) = (Scrape::parse(&our_text().await?)?, Scrape::parse(&their_controller.metrics().await?)?);
        let condition = "sealed_secrets_controller_condition_info";
        let (mine, other) = (
            our.in_namespace(condition, &ours.scene.namespace),
            their.in_namespace(condition, &theirs.scene.namespace),
        );
        ensure!(mine == other && mine.len() == 3, "{mine:?}\n{other:?}");
        let errors = "sealed_secrets_controller_unseal_errors_total";
        let reasons = |scrape: &Scrape, side: &Side| -> Vec<_> {
            scrape.in_namespace(errors, &side.scene.namespace).into_keys().collect()
        };
        let (mine, other) = (reasons(&our, &ours), reasons(&their, &theirs));
        ensure!(mine == other && mine.len() == 2, "{mine:?}\n{other:?}");
        Ok(())
    })
    .await?;
    let (our, their) = (Scrape::parse(&our_text().await?)?, Scrape::parse(&their_controller.metrics().await?)?);
    // These are metrics that only a Go program has.
    let of_go = |name: &str| name.starts_with("go_") || name.starts_with("promhttp_");
    let mut compared = Vec::new();
    for (name, type_) in their.types.iter().filter(|(name, _)| !of_go(name)) {
        assert_eq!(our.types.get(name), Some(type_), "type of {name}");
        assert_eq!(our.labels(name), their.labels(name), "labels of {name}");
        compared.push(name.as_str());
    }
    for expected in [
        "process_cpu_seconds_total",
        "process_max_fds",
        "process_network_receive_bytes_total",
        "process_open_fds",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_virtual_memory_bytes",
        "sealed_secrets_controller_build_info",
        "sealed_secrets_controller_condition_info",
        "sealed_secrets_controller_http_request_duration_seconds",
        "sealed_secrets_controller_http_requests_total",
        "sealed_secrets_controller_unseal_errors_total",
        "sealed_secrets_controller_unseal_requests_total",
    ] {
        assert!(compared.contains(&expected), "{expected} in {compared:?}");
    }
    // Both controllers served the certificate, and both have the same time series for these requests.
    let certificate = |scrape: &Scrape, name: &str| -> BTreeSet<String> {
        let samples = scrape.samples.iter().filter(|sample| sample.name == name);
        samples
            .filter(|sample| sample.labels["path"] == "/v1/cert.pem")
            .map(|sample| format!("{:?}", sample.labels))
            .collect()
    };
    for name in ["http_requests_total", "http_request_duration_seconds_bucket", "http_request_duration_seconds_count"] {
        let name = format!("sealed_secrets_controller_{name}");
        let (mine, other) = (certificate(&our, &name), certificate(&their, &name));
        assert!(!mine.is_empty() && mine == other, "{mine:?}\n{other:?}");
    }
    Ok(())
}

#[tokio::test]
async fn what_is_gone_leaves_no_series() -> Result<()> {
    let side = Side::ours("gone").await?;
    let series = async || -> Result<Vec<Vec<String>>> {
        let scrape = Scrape::parse(&our_text().await?)?;
        let all = scrape.in_namespace("sealed_secrets_controller_condition_info", &side.scene.namespace);
        Ok(all.into_keys().collect())
    };
    let becomes = async |wanted: Vec<&str>| {
        eventually(&format!("series of {wanted:?}"), || async {
            let all = series().await?;
            let instance = |labels: &Vec<String>| {
                labels.iter().find_map(|label| Some(label.strip_prefix("ss_app_kubernetes_io_instance=")?.to_owned()))
            };
            let instances: Vec<String> = all.iter().filter_map(instance).collect();
            ensure!(instances == wanted, "{all:?}");
            Ok(())
        })
        .await
    };
    let mut sealed = side.sealed("db", &[("a", "one")], json!({}))?;
    sealed["metadata"]["labels"] = json!({"app.kubernetes.io/instance": "shop"});
    side.apply(sealed).await?;
    becomes(vec!["shop"]).await?;
    side.patch_sealed("db", json!({"metadata": {"labels": {"app.kubernetes.io/instance": "renamed"}}})).await?;
    becomes(vec!["renamed"]).await?;
    side.delete("bitnami.com/v1alpha1", "SealedSecret", "db").await?;
    becomes(vec![]).await
}

/// The folder with the source of Sealed Secrets, in the module cache of Go.
fn their_source() -> Result<PathBuf> {
    localcluster::parts::sealed_secrets_controller()?;
    let cache = programs::run(Command::new("go").args(["env", "GOMODCACHE"]))?;
    Ok(Path::new(cache.trim()).join("github.com/bitnami-labs/sealed-secrets@v0.36.6"))
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    for entry in fs::read_dir(folder).with_context(|| folder.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { files(&path, found)? } else { found.push(path) }
    }
    Ok(())
}

#[tokio::test]
async fn their_dashboard_and_alerts_find_every_metric() -> Result<()> {
    let side = Side::ours("dashboard").await?;
    scenario(&side).await?;
    let source = tokio::task::spawn_blocking(their_source).await??;
    let mut paths = Vec::new();
    for folder in ["contrib/prometheus-mixin", "helm/sealed-secrets/dashboards"] {
        files(&source.join(folder), &mut paths)?;
    }
    let mut used = BTreeSet::new();
    for path in &paths {
        let text = fs::read_to_string(path)?;
        for part in text.split("sealed_secrets_controller_").skip(1) {
            let name: String = part.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect();
            used.insert(format!("sealed_secrets_controller_{name}"));
        }
    }
    assert!(used.contains("sealed_secrets_controller_unseal_requests_total"), "{used:?}");
    assert!(used.contains("sealed_secrets_controller_unseal_errors_total"), "{used:?}");
    let scrape = Scrape::parse(&our_text().await?)?;
    for name in used {
        assert!(scrape.samples.iter().any(|sample| sample.name == name), "nothing is named {name}");
    }
    Ok(())
}
