//! Checks that the controller applies exactly what `gitseal build --sync` prints, for Syncs with all fields that change what was
//! rendered, and with variables.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::{Plane, Scene, git::ServerOptions, kubernetes};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace};
use kube::{Api, api::PostParams};
use localcluster::ClusterOptions;
use manifests::Limits;
use pipeline::{Inventory, plan::digest_as_applied};
use sealing::Scope;
use serde_json::{Value, json};

use super::{COMPONENT, sync_file, uses_db, wide};
use crate::{
    cli::gitseal,
    helm::synced::sealed_file,
    objects::{config_map, definition, deployment, sealed_secret},
};

/// Texts that another YAML library, or another way to replace variables, might write differently.
const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, annotations: {note: 'on'}}\n\
    data:\n  a: '0644'\n  b: 'yes'\n  c: ${region}\n  d: '${region}: x'\n  e: \"two\\nlines\\t\\u2028\\u00e9 \\U0001F600\"\n  f: '1e3'\n  \
    g: $${HOME}\n";

/// The digests of the inventory must be those of the objects that `gitseal build --sync` prints.
async fn is_built_as_applied(scene: &Scene, name: &str, options: &[&str]) -> Result<usize> {
    let said = gitseal(scene, &[&["build", "--sync", "sync.yaml"], options].concat()).await?.is(0, &[])?;
    is_applied_as(scene, name, &said.out).await
}

/// The digests of the inventory must be those of the objects in a text, and there must be no other objects. Returns how many
/// objects were compared.
pub(crate) async fn is_applied_as(scene: &Scene, name: &str, text: &str) -> Result<usize> {
    let sync: Sync = scene.api().get(name).await?;
    let status = sync.status.as_ref().context("no status")?;
    let inventory = Inventory::read(&status.inventory).map_err(anyhow::Error::msg)?;
    let built = manifests::parse("built", text.as_bytes(), &Limits::default())?;
    let mut compared = 0;
    for (id, tracked) in inventory.iter() {
        let is_it = |kind: &str, group: &str, other: &manifests::ObjectId| {
            (other.kind.as_str(), other.group.as_str(), &other.name) == (kind, group, &id.name)
        };
        let manifest = built.iter().find(|manifest| is_it(&id.kind, &id.group, &manifest.id));
        let of_secret = || built.iter().find(|manifest| is_it("SealedSecret", "bitnami.com", &manifest.id));
        let manifest = manifest.or_else(|| of_secret().filter(|_| id.is_secret()));
        let manifest = manifest.with_context(|| format!("{name}: {id} is applied, but not built"))?;
        let digest = digest_as_applied(&sync, manifest.clone(), id);
        ensure!(
            digest.is_some() && digest == tracked.manifest,
            "{name}: {id} is applied in another form than\n{manifest:#?}"
        );
        compared += usize::from(!id.is_secret());
    }
    ensure!(compared == built.len(), "{name}: {compared} objects are applied, and {} are built", built.len());
    Ok(compared)
}

#[tokio::test]
async fn what_is_built_is_what_is_applied() -> Result<()> {
    let scene = Scene::new("built-applied").await?;
    let other = format!("{}-other", scene.namespace);
    let namespace = json!({"metadata": {"name": other}});
    let namespaces: Api<Namespace> = Api::all(scene.client.clone());
    namespaces.create(&PostParams::default(), &serde_json::from_value(namespace)?).await?;
    let value = scene.seal_for(Scope::ClusterWide, "any", b"Built-As-Applied-1").await?;
    let sealed = wide(&sealed_secret("db", &value)).replace("namespace-wide", "cluster-wide");
    let secret =
        "apiVersion: v1\nkind: Secret\nmetadata: {name: url}\nstringData: {url: 'db://${user}:${password}@db'}\n";
    for folder in ["plain", "over", "chart/templates"] {
        scene.tree.write(&format!("{folder}/web.yaml"), uses_db())?;
        let in_namespace = sealed.replace("metadata: {", &format!("metadata: {{namespace: {}, ", scene.namespace));
        scene.tree.write(&format!("{folder}/db.yaml"), in_namespace)?;
        scene.tree.write(&format!("{folder}/map.yaml"), MAP)?;
        scene.tree.write(&format!("{folder}/url.yaml"), secret)?;
        let counts = deployment("counts", 0).replace("replicas: 0", "replicas: ${replicas}");
        scene.tree.write(&format!("{folder}/counts.yaml"), counts)?;
    }
    let kustomization = "resources: [web.yaml, db.yaml, map.yaml, url.yaml, counts.yaml]\nnamePrefix: o-\n\
        configMapGenerator: [{name: made, literals: ['a=${region}']}]\n";
    scene.tree.write("over/kustomization.yaml", kustomization)?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("part/kustomization.yaml", COMPONENT)?;
    scene.tree.write("part/map.yaml", config_map("part", "2"))?;
    scene.tree.write("vars/common.yaml", "region: north\nreplicas: '0'\n")?;
    scene.tree.write("vars/secret.yaml", sealed.replace("{name: db", "{name: any"))?;
    let first = scene.publish("three ways, and variables").await?;
    for (name, path) in [("plain", "./plain"), ("over", "./over"), ("chart", "./chart")] {
        let mut spec = json!({
            "components": ["../part"],
            "namePrefix": format!("{name}-"),
            "nameSuffix": "-s",
            "commonLabels": {"team": "a"},
            "commonAnnotations": {"example.com/owner": "b: c"},
            "images": [{"name": "example.invalid/c", "newTag": "2"}],
            "patches": [
                {"patch": "- {op: add, path: /spec/revisionHistoryLimit, value: 3}", "target": {"kind": "Deployment"}},
                {"patch": "kind: any\nmetadata: {name: any, labels: {tier: '${tier:=back}'}}", "target": {"kind": "ConfigMap"}},
            ],
            "targetNamespace": other,
            "substitute": {"user": "shop"},
            "substituteFrom": [{"file": "vars/common.yaml"}, {"sealedSecret": "vars/secret.yaml"}],
            "wait": false,
        });
        if name == "chart" {
            spec["helm"] = json!({});
        }
        scene.tree.write("sync.yaml", sync_file(&scene, name, path, &spec)?)?;
        scene.sync(name, path, spec).await?;
        scene.is_applied(name, &first).await?;
        let compared = is_built_as_applied(&scene, name, &[]).await?;
        ensure!(compared >= 6, "{name}: only {compared} objects");
        gitseal(&scene, &["diff", "--sync", "sync.yaml"]).await?.is(0, &[])?;
    }
    let api: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(scene.client.clone(), &other);
    let map = serde_json::to_value(api.get("plain-settings-s").await?)?;
    assert_eq!((&map["data"]["c"], &map["data"]["g"]), (&json!("north"), &json!("${HOME}")));
    assert_eq!(map["metadata"]["labels"]["tier"], "back");
    Ok(())
}

/// A chart with everything that depends on more than its files and values.
fn write_chart(scene: &Scene, group: &str) -> Result<()> {
    let map = |name: &str, metadata: &str, data: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}{metadata}}}\ndata: {{{data}}}\n")
    };
    let hook =
        ", annotations: {helm.sh/hook: 'pre-install,pre-upgrade', helm.sh/hook-weight: '-3', example.com/a: 'on'}";
    let kept = ", labels: {tier: back}, annotations: {helm.sh/resource-policy: keep, gitseal.dev/wave: '2'}";
    let looked = "region: '{{ (lookup \"v1\" \"ConfigMap\" .Release.Namespace \"cluster\").data.region }}'";
    let seen = "version: '{{ .Capabilities.KubeVersion.Version }}', ingress: '{{ .Capabilities.APIVersions.Has \
        \"networking.k8s.io/v1/Ingress\" }}', budget: '{{ .Capabilities.APIVersions.Has \"policy/v1beta1\" }}', own: '{{ \
        .Capabilities.APIVersions.Has \"gitseal.dev/v1alpha1/Sync\" }}'";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db, annotations: {helm.sh/resource-policy: keep}, labels: {tier: back}}\n\
        stringData: {url: 'db://{{ .Values.auth.password }}:{{ .Values.auth.token }}@db', level: '{{ .Values.level }}'}\n";
    for (name, text) in [
        ("hook", map("hook", hook, "a: '0644'")),
        ("kept", map("kept", kept, "a: 'no'")),
        ("looked", map("looked", "", looked)),
        ("seen", map("seen", "", seen)),
        ("secret", secret.to_owned()),
    ] {
        scene.tree.write(&format!("full/templates/{name}.yaml"), text)?;
    }
    scene.tree.write("full/Chart.yaml", "apiVersion: v2\nname: full\nversion: 1.0.0\n")?;
    scene.tree.write("full/values.yaml", "level: info\n")?;
    scene.tree.write("full/crds/gadgets.yaml", definition(group, "Gadget", "gadgets").to_string())
}

#[tokio::test]
async fn what_templates_see_without_a_cluster_is_what_the_cluster_serves() -> Result<()> {
    let (plane, _controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "capabilities-built", ServerOptions::default()).await?;
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: all}\ndata:\n  version: '{{ .Capabilities.KubeVersion.Version \
        }}'\n  versions: '{{ .Capabilities.APIVersions | join \",\" }}'\n";
    scene.tree.write("seen/Chart.yaml", "apiVersion: v2\nname: seen\nversion: 1.0.0\n")?;
    scene.tree.write("seen/templates/all.yaml", template)?;
    scene.repository(json!({})).await?;
    let first = scene.publish("a chart").await?;
    let spec = json!({"helm": {}});
    scene.tree.write("sync.yaml", sync_file(&scene, "seen", "./seen", &spec)?)?;
    scene.sync("seen", "./seen", spec).await?;
    scene.is_applied("seen", &first).await?;
    let all = scene.api::<ConfigMap>().get("all").await?.data.unwrap_or_default();
    let (version, versions) = (&all["version"], &all["versions"]);
    let built = gitseal(&scene, &["build", "--sync", "sync.yaml", "--kube-version", version, "-o", "json"]).await?;
    let built: Value = serde_json::from_str(&built.is(0, &[])?.out)?;
    let known = built["items"][0]["data"]["versions"].as_str().context("versions")?;
    let (served, known): (BTreeSet<_>, BTreeSet<_>) = (versions.split(',').collect(), known.split(',').collect());
    let missing: Vec<_> = known.difference(&served).collect();
    ensure!(missing.is_empty(), "not served: {missing:?}");
    let more: Vec<_> = served.difference(&known).copied().collect();
    let is_own = |one: &str| ["gitseal.dev/", "bitnami.com/"].iter().any(|group| one.starts_with(group));
    ensure!(more.len() >= 4 && more.iter().all(|one| is_own(one)), "these are served, too: {more:?}");
    let options = ["--kube-version", version, "--api-versions", &more.join(",")];
    ensure!(is_built_as_applied(&scene, "seen", &options).await? == 1);
    Ok(())
}

#[tokio::test]
async fn a_chart_that_depends_on_the_cluster_is_built_as_it_is_applied() -> Result<()> {
    let scene = Scene::new("built-chart").await?;
    write_chart(&scene, &format!("{}.example.com", scene.namespace))?;
    scene.tree.write("secrets/values.yaml", sealed_file(&scene, "Built-In-A-Chart-1", "Built-In-A-Chart-2").await?)?;
    let map = |metadata: Value| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"region": "north"}});
    kubernetes::apply(&scene.client, &scene.namespace, map(json!({"name": "cluster"}))).await?;
    let file = tempfile::NamedTempFile::new()?;
    let in_namespace = map(json!({"name": "cluster", "namespace": scene.namespace}));
    std::fs::write(file.path(), in_namespace.to_string())?;
    scene.publish("a chart").await?;
    let version = scene.client.apiserver_version().await?.git_version;
    let own = "gitseal.dev/v1alpha1/Sync";
    let looked = file.path().display().to_string();
    let options = ["--kube-version", &version, "--api-versions", own, "--lookup", &looked];
    let spec = json!({
        "helm": {
            "values": {"level": "debug"},
            "valuesFrom": [{"sealedSecret": "secrets/values.yaml", "path": "auth"}],
            "lookup": [{"apiVersion": "v1", "kind": "ConfigMap", "name": "cluster"}],
        },
        "wait": false,
    });
    for changes in [json!({}), json!({"commonLabels": {"team": "a"}, "commonAnnotations": {"example.com/b": "yes"}})] {
        let mut spec = spec.clone();
        spec.as_object_mut().context("a spec")?.extend(changes.as_object().context("changes")?.clone());
        scene.tree.write("sync.yaml", sync_file(&scene, "full", "./full", &spec)?)?;
        scene.sync("full", "./full", spec).await?;
        scene.is_ready("full").await?;
        // One of the objects is the CustomResourceDefinition.
        let compared = is_built_as_applied(&scene, "full", &options).await?;
        ensure!(compared == 6, "{compared} objects");
    }
    let data = |map: ConfigMap| map.data.unwrap_or_default();
    let seen = data(scene.api::<ConfigMap>().get("seen").await?);
    let of = |key: &str| seen.get(key).map(String::as_str);
    assert_eq!((of("ingress"), of("budget"), of("own")), (Some("true"), Some("false"), Some("true")));
    assert_eq!(data(scene.api::<ConfigMap>().get("looked").await?)["region"], "north");
    let kept = scene.api::<ConfigMap>().get("kept").await?.metadata.annotations.unwrap_or_default();
    assert_eq!((kept["gitseal.dev/prune"].as_str(), kept["example.com/b"].as_str()), ("disabled", "yes"));
    Ok(())
}
