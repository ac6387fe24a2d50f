//! Checks that the controller applies exactly what `gitseal build --sync` prints, for Syncs with all fields that change what was
//! rendered, and with variables.

use anyhow::{Context, Result, ensure};
use crds::Sync;
use harness::Scene;
use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::PostParams};
use manifests::Limits;
use pipeline::{Inventory, plan::digest_as_applied};
use sealing::Scope;
use serde_json::json;

use super::{COMPONENT, sync_file, uses_db, wide};
use crate::{
    cli::gitseal,
    objects::{config_map, deployment, sealed_secret},
};

/// Texts that another YAML library, or another way to replace variables, might write differently.
const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, annotations: {note: 'on'}}\n\
    data:\n  a: '0644'\n  b: 'yes'\n  c: ${region}\n  d: '${region}: x'\n  e: \"two\\nlines\\t\\u2028\\u00e9 \\U0001F600\"\n  f: '1e3'\n  \
    g: $${HOME}\n";

/// The digests of the inventory must be those of the objects that `gitseal build --sync` prints.
async fn is_built_as_applied(scene: &Scene, name: &str) -> Result<usize> {
    let sync: Sync = scene.api().get(name).await?;
    let status = sync.status.as_ref().context("no status")?;
    let inventory = Inventory::read(&status.inventory).map_err(anyhow::Error::msg)?;
    let said = gitseal(scene, &["build", "--sync", "sync.yaml"]).await?.is(0, &[])?;
    let built = manifests::parse("built", said.out.as_bytes(), &Limits::default())?;
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
        let compared = is_built_as_applied(&scene, name).await?;
        ensure!(compared >= 6, "{name}: only {compared} objects");
        gitseal(&scene, &["diff", "--sync", "sync.yaml"]).await?.is(0, &[])?;
    }
    let api: Api<k8s_openapi::api::core::v1::ConfigMap> = Api::namespaced(scene.client.clone(), &other);
    let map = serde_json::to_value(api.get("plain-settings-s").await?)?;
    assert_eq!((&map["data"]["c"], &map["data"]["g"]), (&json!("north"), &json!("${HOME}")));
    assert_eq!(map["metadata"]["labels"]["tier"], "back");
    Ok(())
}
