//! What the controller fetches from elsewhere, or looks up in the cluster, is applied as the real programs render it: `helm template
//! oci://…`, `helm template --repo …`, `helm template --dry-run=server`, and `kustomize build` with a remote base.

use std::{env, fs, path::Path, process::Command};

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::{
    Plane, Scene,
    chart_repository::ChartServer,
    charts::package,
    git::ServerOptions,
    kubernetes,
    registry::{Login, Registry, digest_of},
    web::Access,
};
use serde_json::{Value, json};

use crate::{
    after_rendering::applied::is_applied_as,
    cli::gitseal,
    objects::{config_map, deployment},
    render_cases::text,
};

/// What a program prints.
async fn printed(mut command: Command) -> Result<String> {
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    ensure!(output.status.success(), "{}", text(&output.stderr));
    Ok(text(&output.stdout))
}

/// The real `helm`, with a home of its own.
fn helm(home: &Path) -> Result<Command> {
    let mut command = Command::new(localcluster::parts::helm()?);
    command.env_clear().env("HOME", home);
    Ok(command)
}

/// Packages a chart with helpers, files, a chart that it depends on, and values of both.
fn shop(into: &Path, version: &str) -> Result<std::path::PathBuf> {
    let helpers = "{{- define \"shop.labels\" -}}\napp: {{ .Release.Name }}\nchart: {{ .Chart.Name }}-{{ .Chart.Version }}\n\
        {{- end }}\n";
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {{ .Release.Name }}-settings\n  namespace: {{ .Release.Namespace }}\n  \
        labels: {{- include \"shop.labels\" . | nindent 4 }}\ndata:\n  mode: '0644'\n  level: {{ .Values.level | quote }}\n  \
        banner: {{ .Files.Get \"files/banner.txt\" | quote }}\n  first: {{ .Release.IsInstall | quote }}\n  \
        major: {{ .Capabilities.APIVersions.Has \"apps/v1\" | quote }}\n";
    let cache = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: '{{ .Release.Name }}-{{ .Chart.Name }}', annotations: {note: 'on'}}\n\
        data: {size: {{ .Values.size | quote }}, of: {{ .Values.global.team | quote }}}\n";
    let files = [
        ("templates/_helpers.tpl", helpers),
        ("templates/map.yaml", map),
        ("templates/web.yaml", &deployment("web", 0)),
        ("templates/NOTES.txt", "Hello {{ .Release.Name }}"),
        ("files/banner.txt", "two\nlines\n"),
        ("values.yaml", "level: info\nglobal: {team: none}\ncache: {size: 1}\n"),
        ("charts/cache/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 0.1.0\n"),
        ("charts/cache/values.yaml", "size: 0\n"),
        ("charts/cache/templates/map.yaml", cache),
    ];
    package(into, "shop", version, &files)
}

#[tokio::test]
async fn charts_from_elsewhere_are_applied_as_helm_renders_them() -> Result<()> {
    let scene = Scene::on(Plane::shared().await?, "real-helm", ServerOptions::default()).await?;
    let (registry, server) = (Registry::start(Login::Anonymous).await?, ChartServer::start(Access::Anonymous)?);
    let folder = tempfile::tempdir()?;
    let digest = registry.push(&shop(folder.path(), "1.2.3")?, "charts")?;
    let archive = shop(server.folder(), "1.2.4")?;
    let (of_registry, of_server) = (format!("1.2.3@{digest}"), format!("1.2.4@{}", digest_of(&fs::read(archive)?)));
    server.publish(None)?;
    let values = json!({"level": "debug", "global": {"team": "shop"}});
    fs::write(folder.path().join("values.yaml"), values.to_string())?;
    let (registry_url, server_url) = (registry.url("charts/shop"), server.url());
    let authorities = [registry.certificate_authority(), server.certificate_authority().to_owned()];
    let charts = [(vec![registry_url.as_str()], "1.2.3"), (vec!["shop", "--repo", &server_url], "1.2.4")];
    let specs = [
        (json!({"url": registry_url, "chart": null}), of_registry),
        (json!({"url": server_url, "chart": "shop"}), of_server),
    ];
    for (((mut spec, revision), (chart, version)), authority) in specs.into_iter().zip(charts).zip(authorities) {
        let data = json!({"ca.crt": STANDARD.encode(&authority)});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "charts"}, "data": data});
        kubernetes::apply(&scene.client, &scene.namespace, secret).await?;
        spec["secretRef"] = json!({"name": "charts"});
        spec["ref"] = json!({"branch": null, "tag": version});
        scene.repository(spec).await?;
        scene.sync("app", "./", json!({"helm": {"values": values}, "wait": false})).await?;
        scene.is_applied("app", &revision).await?;
        let ca = folder.path().join("ca.crt");
        fs::write(&ca, &authority)?;
        let mut real = helm(folder.path())?;
        real.args(["template", "app"]).args(&chart).args(["--version", version, "--namespace", &scene.namespace]);
        real.arg("--ca-file").arg(&ca).arg("--values").arg(folder.path().join("values.yaml"));
        let theirs = printed(real).await?;
        ensure!(theirs.contains(&format!("shop-{version}")) && theirs.contains("of: \"shop\""), "{theirs}");
        ensure!(is_applied_as(&scene, "app", &theirs).await? == 3, "{theirs}");
    }
    Ok(())
}

#[tokio::test]
async fn a_remote_base_is_applied_as_kustomize_renders_it() -> Result<()> {
    let scene = Scene::new("real-kustomize").await?;
    let library = scene.server.create("lib")?;
    let base = "resources: [../shared, web.yaml]\ncomponents: [../part]\nnamePrefix: b-\nconfigMapGenerator: [{name: made, files: \
        [text.txt], literals: [a=b]}]\n";
    library.write("deploy/base/kustomization.yaml", base)?;
    library.write("deploy/base/web.yaml", deployment("web", 0))?;
    library.write("deploy/shared/kustomization.yaml", "resources: [map.yaml]\ncommonLabels: {of: lib}\n")?;
    library.write("deploy/shared/map.yaml", config_map("map", "one"))?;
    library.write("deploy/base/text.txt", "two\nlines\n")?;
    let part = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\npatches: [{patch: '[{\"op\": \"add\", \"path\": \
        \"/spec/paused\", \"value\": true}]', target: {kind: Deployment}}]\n";
    library.write("deploy/part/kustomization.yaml", part)?;
    library.publish("a base")?;
    library.git(["tag", "v1"])?;
    library.git(["push", "origin", "refs/tags/v1"])?;
    let url = scene.server.url("lib");
    let overlay = format!(
        "buildMetadata: [originAnnotations]\nresources: ['{url}//deploy/base?ref=v1', own.yaml]\nnameSuffix: -s\nimages: [{{name: \
         example.invalid/c, newTag: '2'}}]\nconfigMapGenerator: [{{name: made, behavior: merge, literals: [c=d]}}]\n"
    );
    scene.tree.write("app/kustomization.yaml", overlay)?;
    scene.tree.write("app/own.yaml", config_map("own", "1"))?;
    scene.repository(json!({"remotes": [{"url": url}]})).await?;
    let revision = scene.publish("an overlay").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &revision).await?;

    let home = tempfile::tempdir()?;
    let mut real = Command::new(localcluster::parts::kustomize()?);
    real.args(["build", "--load-restrictor", "LoadRestrictionsNone", "app"]).current_dir(scene.tree.path());
    // Kustomize runs git.
    real.env_clear().env("HOME", home.path()).env("PATH", env::var_os("PATH").unwrap_or_default());
    let theirs = printed(real).await?;
    ensure!(theirs.contains("ref: v1") && theirs.contains("paused: true") && theirs.contains("c: d"), "{theirs}");
    ensure!(is_applied_as(&scene, "app", &theirs).await? == 4, "{theirs}");
    let copy = format!("--remote={url}//deploy/base?ref=v1={}", library.path().display());
    let ours = gitseal(&scene, &["build", "app", &copy]).await?.is(0, &[])?.out;
    ensure!(ours == theirs, "ours is\n{ours}\ntheirs is\n{theirs}");
    Ok(())
}

/// A template with what a lookup finds: fields of an object, and of all objects of a kind.
const LOOKUPS: &str = "{{- $cluster := lookup \"v1\" \"ConfigMap\" .Release.Namespace \"cluster\" }}\n\
    {{- $none := lookup \"v1\" \"ConfigMap\" .Release.Namespace \"none\" }}\n\
    {{- $all := lookup \"v1\" \"Service\" .Release.Namespace \"\" }}\n\
    {{- $class := lookup \"scheduling.k8s.io/v1\" \"PriorityClass\" \"\" \"system-node-critical\" }}\n\
    apiVersion: v1\nkind: ConfigMap\nmetadata: {name: found}\ndata:\n  region: {{ $cluster.data.region | quote }}\n  \
    kind: {{ $cluster.kind }} {{ $cluster.apiVersion }}\n  metadata: {{ omit $cluster.metadata \"managedFields\" \"resourceVersion\" | toJson | \
    quote }}\n  data: {{ toJson $cluster.data | quote }}\n  none: {{ if $none }}there{{ else }}nothing{{ end }}\n  length: {{ len $none | \
    quote }}\n  class: {{ $class.value | quote }}\n  list: {{ $all.kind }} {{ $all.apiVersion }}\n  services: \"{{ range \
    $all.items }}{{ .kind }} {{ .apiVersion }} {{ .metadata.name }} {{ (first .spec.ports).port }} {{ .spec.type }};{{ end }}\"\n";

#[tokio::test]
async fn what_is_looked_up_is_found_as_helm_finds_it() -> Result<()> {
    let scene = Scene::new("real-lookup").await?;
    let map = json!({"apiVersion": "v1", "kind": "ConfigMap", "data": {"region": "north", "number": "1"},
        "metadata": {"name": "cluster", "labels": {"a": "b"}, "annotations": {"note": "on"}}});
    kubernetes::apply(&scene.client, &scene.namespace, map).await?;
    for (name, port) in [("web", 80), ("api", 8080)] {
        let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name},
            "spec": {"selector": {"app": name}, "ports": [{"port": port}]}});
        kubernetes::apply(&scene.client, &scene.namespace, service).await?;
    }
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/found.yaml", LOOKUPS)?;
    let revision = scene.publish("a chart").await?;
    let lookup: Value = json!([
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "cluster"},
        {"apiVersion": "v1", "kind": "ConfigMap", "name": "none"},
        {"apiVersion": "v1", "kind": "Service"},
        {"apiVersion": "scheduling.k8s.io/v1", "kind": "PriorityClass", "name": "system-node-critical"},
    ]);
    // Helm refuses to render what exists already, so it comes first.
    let home = tempfile::tempdir()?;
    let mut real = helm(home.path())?;
    real.args(["template", "app", "chart", "--dry-run=server", "--namespace", &scene.namespace]);
    real.arg("--kubeconfig").arg(Plane::shared().await?.cluster.kubeconfig()).current_dir(scene.tree.path());
    let theirs = printed(real).await?;
    for part in ["region: \"north\"", "none: nothing", "Service v1 api 8080 ClusterIP;Service v1 web 80 ClusterIP;"] {
        ensure!(theirs.contains(part), "{part}: {theirs}");
    }
    scene.sync("app", "./chart", json!({"helm": {"lookup": lookup}})).await?;
    scene.is_applied("app", &revision).await?;
    let compared = is_applied_as(&scene, "app", &theirs).await.context(theirs)?;
    ensure!(compared == 1);
    Ok(())
}
