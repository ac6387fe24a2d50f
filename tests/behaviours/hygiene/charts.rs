//! The sealed values of a chart are searched for in the memory of the process that renders the chart, in the rendered
//! objects that the controller stores on disk, and in the log.

use std::{
    fs::{self, File},
    io,
    os::unix::fs::FileExt as _,
};

use aho_corasick::AhoCorasick;
use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::{
    Plane, Scene,
    git::ServerOptions,
    hunt,
    programs::{Controller, ControllerOptions},
    skip,
};
use localcluster::ClusterOptions;
use sealing::{Certificate, Scope};
use serde_json::json;

use crate::renders::{renderers, renders};

/// The sealed value at first, and after it is changed.
const VALUES: [&str; 2] = ["Trillian-first-4721-plaintext", "Trillian-second-4722-plaintext"];

/// A plain value of the chart. The search must find this value in the places where plain values may be. This shows that
/// it would also find a sealed value there.
const PLAIN: &str = "Trillian-plain-4723-of-the-chart";

const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData:\n  \
    password: {{ .Values.auth.password }}\n  url: \"db://me:{{ .Values.auth.password }}@db\"\n  \
    basic: Basic {{ printf \"me:%s\" .Values.auth.password | b64enc }}\n";
const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: plain}\n\
    data: {plain: \"{{ .Values.plain }}\", encoded: \"{{ .Values.plain | b64enc }}\"}\n";

/// All memory of a process that the process may write, one item per mapping.
fn memory(pid: u32) -> io::Result<Vec<Vec<u8>>> {
    let memory = File::open(format!("/proc/{pid}/mem"))?;
    let mut all = Vec::new();
    for line in fs::read_to_string(format!("/proc/{pid}/maps"))?.lines() {
        let mut words = line.split_whitespace();
        let (Some(range), Some(rights)) = (words.next(), words.next()) else { continue };
        // Memory that the process cannot write contains only the program file of the process.
        if !rights.starts_with("rw") {
            continue;
        }
        let number = |text| u64::from_str_radix(text, 16).map_err(io::Error::other);
        let (start, end) = range.split_once('-').ok_or_else(|| io::Error::other("a mapping without a range"))?;
        let (start, end) = (number(start)?, number(end)?);
        let mut bytes = vec![0; usize::try_from(end - start).map_err(io::Error::other)?];
        memory.read_exact_at(&mut bytes, start)?;
        all.push(bytes);
    }
    Ok(all)
}

#[tokio::test]
async fn a_sealed_value_is_neither_in_the_process_that_renders_nor_in_what_it_rendered() -> Result<()> {
    let options = ClusterOptions { controller_manager: false, ..ClusterOptions::default() };
    let plane = Plane::without_controller(options).await?;
    let folder = plane.folder();
    let mut controller = Controller::start(&ControllerOptions::new(plane.cluster.kubeconfig(), &folder))?;
    controller.ready().await?;
    let certificate = Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?;
    let scene = Scene::on(&plane, "hygiene-of-charts", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/secret.yaml", SECRET)?;
    scene.tree.write("chart/templates/map.yaml", MAP)?;
    let values_from = json!([{"sealedSecret": "secrets/db.yaml", "path": "auth"}]);
    scene.sync("app", "./chart", json!({"helm": {"valuesFrom": values_from, "values": {"plain": PLAIN}}})).await?;
    for value in VALUES {
        let binding = Scope::NamespaceWide.binding(&scene.namespace, "values", "password");
        let sealed = sealing::seal(&certificate, binding, hunt::known(value.as_bytes()))?;
        let file = json!({
            "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
            "metadata": {"name": "values", "annotations": {sealing::NAMESPACE_WIDE_ANNOTATION: "true"}},
            "spec": {"encryptedData": {"password": sealed}},
        });
        scene.tree.write("secrets/db.yaml", file.to_string())?;
        let revision = scene.publish("a sealed value of a chart").await?;
        scene.is_applied("app", &revision).await?;
        // The controller has unsealed the value, so the value was in the controller's own memory.
        let basic = format!("Basic {}", STANDARD.encode(format!("me:{value}")));
        let wanted = json!({"data": {"password": STANDARD.encode(value), "basic": STANDARD.encode(basic)}});
        scene.has("v1", "Secret", "db", wanted).await?;
    }

    let traces = AhoCorasick::new(VALUES.iter().flat_map(|value| hunt::traces(value.as_bytes())))?;
    let is_free = |place: &str, bytes: &[u8]| {
        let found = traces.find(bytes).map(|found| String::from_utf8_lossy(&bytes[found.range()]).into_owned());
        ensure!(found.is_none(), "{place} has a sealed value: {found:?}");
        Ok(())
    };
    let processes = renderers(controller.process().pid());
    ensure!(!processes.is_empty(), "the controller has no process that renders");
    let mut mappings = Vec::new();
    for process in processes {
        match memory(process) {
            Ok(found) => mappings.extend(found),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                return skip(
                    "this user may not read the memory of another process (perhaps because of Yama's ptrace_scope)",
                );
            }
            Err(error) => return Err(error).context("the memory of the process that renders"),
        }
    }
    let has = |text: &str| {
        let search = AhoCorasick::new([text])?;
        ensure!(mappings.iter().any(|mapping| search.is_match(mapping)), "the search does not find {text}");
        Ok(())
    };
    has(PLAIN)?;
    has(&STANDARD.encode(PLAIN))?;
    has("db://me:gitsealvalue")?;
    for mapping in &mappings {
        is_free("the memory of the process that renders", mapping)?;
    }

    let stored = renders(&folder);
    ensure!(!stored.is_empty(), "nothing is stored");
    for file in stored {
        let text = fs::read(&file)?;
        ensure!(AhoCorasick::new([PLAIN])?.is_match(&text), "{} is of another folder", file.display());
        is_free(&file.display().to_string(), &text)?;
    }
    let log = controller.log();
    ensure!(log.contains("ready sync"), "{log}");
    is_free("the log", log.as_bytes())
}
