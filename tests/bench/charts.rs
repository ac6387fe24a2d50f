//! Measures N Syncs, each with its own values for the same chart of 60 objects: the first sync, a commit that concerns
//! none of them, and a commit that changes the chart. The rendering is compared with `helm template` in a loop.

use std::{
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use harness::{
    Plane,
    git::{GitServer, ServerOptions, WorkTree},
    programs::{self, Controller, ControllerOptions},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::{
    process,
    rendering::{applied, children, cpu, cpu_of_renderers, fetch, renders, settle},
    workload,
};

/// Options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// Number of Syncs.
    #[arg(long, default_value_t = 100)]
    count: usize,
}

/// How many objects the chart has.
const OBJECTS: usize = 60;
const HELM: &str = "helm";
const CHART: &str = "charts/shop";

/// Runs all measurements and prints a Markdown table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let count = options.count;
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let client = plane.cluster.client().await?;
    let server = tokio::task::spawn_blocking(|| GitServer::new(ServerOptions::default())).await??;
    let tree = server.create("repo")?;
    write_chart(&tree, "first")?;
    let first = format!("main@sha1:{}", tree.publish("a chart")?);
    workload::create_syncs(&client, &server, "1h", std::iter::empty()).await?;
    let syncs = (0..count).map(|app| {
        json!({
            "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": format!("app-{app}")},
            "spec": {"repository": {"name": "repo"}, "path": CHART, "helm": {"values": {"size": app}}},
        })
    });
    workload::apply_all(&client, syncs).await?;
    let (peer, peer_cpu) = helm_in_a_loop(&tree, count)?;

    eprintln!("{count} Syncs of one chart: gitseal …");
    let folder = plane.folder();
    let options = ControllerOptions::usual(plane.cluster.kubeconfig(), &folder);
    programs::folder()?;
    let start = Instant::now();
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    let pid = controller.process().pid();
    applied(&client, 0..count, &first).await?;
    let (cold, cold_renders) = (start.elapsed(), renders(&controller, HELM).await?);
    settle(pid).await?;
    let (cold_cpu, of_renderers) = (cpu(pid)?, cpu_of_renderers(pid)?);

    tree.write("docs/notes.yaml", "nothing: that is applied\n")?;
    let elsewhere = format!("main@sha1:{}", tree.publish("elsewhere")?);
    let before = cpu(pid)?;
    fetch(&client, &elsewhere).await?;
    settle(pid).await?;
    let (none_cpu, none) = (cpu(pid)?.saturating_sub(before), renders(&controller, HELM).await? - cold_renders);
    write_chart(&tree, "second")?;
    let second = format!("main@sha1:{}", tree.publish("the chart")?);
    let start = Instant::now();
    fetch(&client, &second).await?;
    applied(&client, 0..count, &second).await?;
    let (all, all_renders) = (start.elapsed(), renders(&controller, HELM).await? - cold_renders - none);
    let memory = process::peak_memory(pid)?;
    let renderers: f64 = children(pid).into_iter().filter_map(|child| process::peak_memory(child).ok()).sum();
    controller.stop()?;

    let seconds = |duration: Duration| format!("{:.2} s", duration.as_secs_f64());
    println!(
        "| {count} Syncs of one chart with {OBJECTS} objects | took | processor time | renders |\n|---|---|---|---|"
    );
    println!("| peer: `helm template` in a loop | {} | {} | {count} |", seconds(peer), seconds(peer_cpu));
    println!("| gitseal: the processes that render | | {} | {cold_renders} |", seconds(of_renderers));
    println!(
        "| … with everything else: until all {} objects are applied and Ready | {} | {} | |",
        count * OBJECTS,
        seconds(cold),
        seconds(cold_cpu)
    );
    println!("| a commit outside the chart | | {} | {none} |", seconds(none_cpu));
    println!("| a commit to the chart, until all are applied | {} | | {all_renders} |", seconds(all));
    println!(
        "\nrendering: 1/{:.1} of the peer's processor time",
        peer_cpu.as_secs_f64() / of_renderers.as_secs_f64().max(0.01)
    );
    println!("peak memory: controller {memory:.1} MiB, processes that render {renderers:.1} MiB");
    Ok(())
}

/// Makes COUNT ConfigMaps.
const TEMPLATE: &str = r#"{{- range $i := until COUNT }}
---
apiVersion: v1
kind: ConfigMap
metadata:
  name: {{ $.Release.Name }}-NUMBER-{{ $i }}
  labels: {{- include "labels" $ | nindent 4 }}
data:
  note: NOTE
  size: {{ $.Values.size | quote }}
  config.yaml: |
    {{- toYaml $.Values | nindent 4 }}
{{- end }}
"#;

/// A chart with 60 ConfigMaps from 6 templates, and with a few helpers as in generated charts.
fn write_chart(tree: &WorkTree, note: &str) -> Result<()> {
    tree.write(&format!("{CHART}/Chart.yaml"), "apiVersion: v2\nname: shop\nversion: 1.0.0\n")?;
    tree.write(&format!("{CHART}/values.yaml"), "size: 0\nlabels: {team: shop, tier: web}\n")?;
    tree.write(
        &format!("{CHART}/templates/_helpers.tpl"),
        "{{- define \"labels\" -}}\napp.kubernetes.io/instance: {{ .Release.Name }}\n{{ toYaml .Values.labels }}\n{{- end }}\n",
    )?;
    for template in 0..6 {
        let number = template.to_string();
        let text =
            TEMPLATE.replace("NUMBER", &number).replace("NOTE", note).replace("COUNT", &(OBJECTS / 6).to_string());
        tree.write(&format!("{CHART}/templates/maps-{template}.yaml"), text)?;
    }
    Ok(())
}

/// How long `helm template` takes for every Sync, one after the other, and its processor time.
fn helm_in_a_loop(tree: &WorkTree, count: usize) -> Result<(Duration, Duration)> {
    let program = localcluster::parts::helm()?;
    let home = tempfile::tempdir()?;
    eprintln!("{count} Syncs of one chart: helm template …");
    let (start, before) = (Instant::now(), process::cpu_of_ended()?);
    for app in 0..count {
        let mut command = Command::new(&program);
        command.args(["template", &format!("app-{app}"), CHART, "--set", &format!("size={app}")]);
        let status =
            command.current_dir(tree.path()).env_clear().env("HOME", home.path()).stdout(Stdio::null()).status()?;
        ensure!(status.success(), "helm template ended with {status}");
    }
    Ok((start.elapsed(), process::cpu_of_ended()?.saturating_sub(before)))
}
