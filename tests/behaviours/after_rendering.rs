//! The fields of a Sync that change what was rendered.

pub(crate) mod applied;
mod equal;

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::Sync;
use harness::{Plane, Scene, git::ServerOptions, programs::Controller};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use localcluster::ClusterOptions;
use sealing::Scope;
use serde_json::{Value, json};

use crate::{
    cli::gitseal,
    objects::{change_by_hand, config_map, deployment, is_value, sealed_secret},
    renders::rendered,
};

const COMPONENT: &str = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [map.yaml]\n";

/// How often something was rendered by Kustomize, and how often it was read from disk.
async fn renders(controller: &Controller) -> Result<(u64, u64)> {
    Ok((rendered(controller, "kustomize").await?, rendered(controller, "disk").await?))
}

/// The text of a Sync, for `gitseal build --sync`.
pub(crate) fn sync_file(scene: &Scene, name: &str, path: &str, spec: &Value) -> Result<String> {
    let mut full = json!({"repository": {"name": "repo"}, "path": path});
    full.as_object_mut().context("a spec")?.extend(spec.as_object().context("fields")?.clone());
    let metadata = json!({"name": name, "namespace": scene.namespace});
    let sync = json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": metadata, "spec": full});
    Ok(sync.to_string())
}

#[tokio::test]
async fn the_fields_of_a_sync_change_what_is_applied() -> Result<()> {
    let scene = Scene::new("overlay").await?;
    scene.tree.write("app/web.yaml", deployment("web", 0))?;
    scene.tree.write("app/map.yaml", config_map("map", "1"))?;
    scene.tree.write("parts/one/kustomization.yaml", COMPONENT)?;
    scene.tree.write("parts/one/map.yaml", config_map("part", "2"))?;
    let spec = json!({
        "components": ["../parts/one"],
        "namePrefix": "p-",
        "nameSuffix": "-s",
        "commonLabels": {"team": "a"},
        "commonAnnotations": {"example.com/owner": "b"},
        "images": [{"name": "example.invalid/c", "newTag": "2"}],
        "patches": [
            {"patch": "- {op: add, path: /spec/revisionHistoryLimit, value: 3}", "target": {"kind": "Deployment"}},
            {"patch": "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {value: patched}\n"},
        ],
    });
    scene.tree.write("sync.yaml", sync_file(&scene, "app", "./app", &spec)?)?;
    let first = scene.publish("an app and a component").await?;
    scene.sync("app", "./app", spec.clone()).await?;
    scene.is_applied("app", &first).await?;
    is_value(&scene, "p-map-s", "patched").await?;
    is_value(&scene, "p-part-s", "2").await?;
    let wanted = json!({
        "metadata": {"labels": {"team": "a"}, "annotations": {"example.com/owner": "b"}},
        "spec": {
            "revisionHistoryLimit": 3, "selector": {"matchLabels": {"app": "web", "team": "a"}},
            "template": {"metadata": {"labels": {"app": "web", "team": "a"}, "annotations": {"example.com/owner": "b"}}},
        },
    });
    let web = scene.has("apps/v1", "Deployment", "p-web-s", wanted).await?;
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["image"], "example.invalid/c:2");
    ensure!(scene.get("v1", "ConfigMap", "map").await?.is_none(), "the object without prefix is there, too");

    // The command line makes the same objects.
    let built = gitseal(&scene, &["build", "--sync", "sync.yaml", "-o", "name"]).await?;
    let names = "configmap/p-map-s\nconfigmap/p-part-s\ndeployment.apps/p-web-s\n";
    ensure!(built.is(0, &[])?.out == names, "other objects");
    gitseal(&scene, &["diff", "app", "--sync", "app"]).await?.is(0, &[])?;

    // Without the fields, the objects have their own names again.
    scene.sync("app", "./app", json!({"pruneLimit": "100%", "commonLabels": {"team": "a"}})).await?;
    scene.has("v1", "ConfigMap", "map", json!({"metadata": {"labels": {"team": "a"}}, "data": {"value": "1"}})).await?;
    for name in ["p-map-s", "p-part-s"] {
        scene.is_gone("v1", "ConfigMap", name).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_component_is_a_reason_to_render_only_for_those_who_use_it() -> Result<()> {
    let (plane, mut controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "components", ServerOptions::default()).await?;
    scene.tree.write("plain/map.yaml", config_map("map", "1"))?;
    scene.tree.write("over/kustomization.yaml", "resources: [map.yaml]\n")?;
    scene.tree.write("over/map.yaml", config_map("map", "1"))?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/map.yaml", config_map("map", "1"))?;
    scene.tree.write("part/kustomization.yaml", COMPONENT)?;
    scene.tree.write("part/map.yaml", config_map("part", "1"))?;
    scene.repository(json!({})).await?;
    let first = scene.publish("three folders and a component").await?;
    let uses = |prefix: &str| json!({"namePrefix": prefix, "components": ["../part"]});
    scene.sync("plain", "./plain", uses("plain-")).await?;
    scene.sync("over", "./over", uses("over-")).await?;
    scene.sync("none", "./over", json!({"namePrefix": "none-"})).await?;
    let chart = json!({"helm": {}, "namePrefix": "chart-", "components": ["../part"]});
    scene.sync("chart", "./chart", chart).await?;
    for sync in ["plain", "over", "none", "chart"] {
        scene.is_applied(sync, &first).await?;
        is_value(&scene, &format!("{sync}-map"), "1").await?;
    }
    assert_eq!(renders(&controller).await?, (3, 0), "the chart counts as rendered by Helm");

    scene.tree.write("docs/other.yaml", "x: 1\n")?;
    scene.publish("elsewhere").await?;
    scene.tree.write("part/map.yaml", config_map("part", "2"))?;
    let second = scene.publish("the component").await?;
    for sync in ["plain", "over", "chart"] {
        scene.is_applied(sync, &second).await?;
        is_value(&scene, &format!("{sync}-part"), "2").await?;
    }
    let none = scene.api::<Sync>().get("none").await?;
    assert_eq!(none.status.and_then(|status| status.last_applied_revision), Some(first));
    assert_eq!(renders(&controller).await?, (5, 0));

    // Drift is put back without a render, also after a restart.
    change_by_hand(&scene, "plain-part").await?;
    is_value(&scene, "plain-part", "2").await?;
    let (kustomize, _) = renders(&controller).await?;
    assert_eq!(kustomize, 5);
    controller.stop()?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    for sync in ["plain", "chart"] {
        change_by_hand(&scene, &format!("{sync}-map")).await?;
        is_value(&scene, &format!("{sync}-map"), "1").await?;
    }
    assert_eq!(renders(&controller).await?, (0, 2));

    // If a commit changes only a plain manifest, the Sync is rendered again, too.
    scene.tree.write("plain/map.yaml", config_map("map", "3"))?;
    let third = scene.publish("a plain file").await?;
    scene.is_applied("plain", &third).await?;
    is_value(&scene, "plain-map", "3").await
}

/// A Deployment that uses the Secret `db`.
fn uses_db() -> String {
    deployment("web", 0)
        .replace("image: example.invalid/c", "image: example.invalid/c, envFrom: [{secretRef: {name: db}}]")
}

fn wide(sealed: &str) -> String {
    let annotations = "metadata: {annotations: {sealedsecrets.bitnami.com/namespace-wide: 'true'}, ";
    sealed.replace("metadata: {", annotations)
}

#[tokio::test]
async fn a_sealed_secret_gets_a_new_name_together_with_those_who_use_it() -> Result<()> {
    let scene = Scene::new("overlay-sealed").await?;
    let value = scene.seal_for(Scope::NamespaceWide, "any", b"Under-Any-Name").await?;
    for folder in ["plain", "over"] {
        scene.tree.write(&format!("{folder}/db.yaml"), wide(&sealed_secret("db", &value)))?;
        scene.tree.write(&format!("{folder}/web.yaml"), uses_db())?;
    }
    scene.tree.write("over/kustomization.yaml", "resources: [db.yaml, web.yaml]\n")?;
    // `gitseal seal` writes the namespace into the SealedSecret. The Deployment names none.
    let in_namespace = format!("metadata: {{namespace: {}, ", scene.namespace);
    let with_namespace = wide(&sealed_secret("db", &value)).replace("metadata: {", &in_namespace);
    for folder in ["named", "moved", "chart/templates"] {
        scene.tree.write(&format!("{folder}/db.yaml"), &with_namespace)?;
        scene.tree.write(&format!("{folder}/web.yaml"), uses_db())?;
    }
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    let first = scene.publish("a secret and its user").await?;
    for (folder, more) in [
        ("plain", json!({})),
        ("over", json!({})),
        ("named", json!({})),
        ("moved", json!({"targetNamespace": scene.namespace})),
        ("chart", json!({"helm": {}})),
    ] {
        let mut spec = json!({"namePrefix": format!("{folder}-")});
        spec.as_object_mut().context("a spec")?.extend(more.as_object().context("fields")?.clone());
        scene.tree.write("sync.yaml", sync_file(&scene, folder, &format!("./{folder}"), &spec)?)?;
        scene.sync(folder, &format!("./{folder}"), spec).await?;
        scene.is_applied(folder, &first).await?;
        let data = json!({"data": {"password": STANDARD.encode("Under-Any-Name")}});
        scene.has("v1", "Secret", &format!("{folder}-db"), data).await?;
        let web = scene.has("apps/v1", "Deployment", &format!("{folder}-web"), json!({})).await?;
        let used = &web["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"];
        assert_eq!(*used, json!(format!("{folder}-db")));
        // The command line makes the same objects.
        let built = gitseal(&scene, &["build", "--sync", "sync.yaml"]).await?.is(0, &[])?;
        let uses = format!("secretRef:\n            name: {folder}-db\n");
        ensure!(built.out.contains(&uses), "{folder}: {}", built.out);
        gitseal(&scene, &["diff", folder, "--sync", folder]).await?.is(0, &[])?;
    }
    Ok(())
}

#[tokio::test]
async fn a_change_that_keeps_a_value_from_being_unsealed_is_refused_with_its_place() -> Result<()> {
    let scene = Scene::new("overlay-strict").await?;
    let strict = scene.seal("db", b"Only-Under-Its-Name").await?;
    let of_final_name = scene.seal("inner-db", b"Under-The-Final-Name").await?;
    scene.tree.write("plain/first.yaml", config_map("first", "1"))?;
    scene.tree.write("plain/db.yaml", format!("# a secret\n{}", sealed_secret("db", &strict)))?;
    scene.tree.write("over/kustomization.yaml", "resources: [db.yaml]\nnamePrefix: inner-\n")?;
    scene.tree.write("over/db.yaml", sealed_secret("db", &of_final_name))?;
    let generator = "secretGenerator:\n- {name: db, files: [password], options: {disableNameSuffixHash: true}}\n";
    scene.tree.write("made/kustomization.yaml", generator)?;
    scene.tree.write("made/password", &strict)?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    scene.tree.write("chart/templates/db.yaml", sealed_secret("db", &strict))?;
    let first = scene.publish("strict values").await?;
    let prefix = json!({"namePrefix": "p-"});
    let rename = json!({"patches": [{
        "patch": "- {op: replace, path: /metadata/name, value: other}", "target": {"kind": "SealedSecret"},
    }]});
    let elsewhere = json!({"patches": [{
        "patch": "- {op: add, path: /metadata/namespace, value: other}", "target": {"kind": "SealedSecret"},
    }]});
    let scope = json!({"commonAnnotations": {"sealedsecrets.bitnami.com/cluster-wide": "true"}});
    let chart = json!({"namePrefix": "p-", "helm": {}});
    for (name, path, spec, parts) in [
        (
            "prefix",
            "./plain",
            prefix.clone(),
            ["plain/db.yaml:2: SealedSecret.bitnami.com p-db", "--scope namespace-wide"],
        ),
        ("rename", "./plain", rename, ["sealed for the name db", "it is called other"]),
        ("elsewhere", "./plain", elsewhere, ["in the namespace other", "--scope cluster-wide"]),
        ("scope", "./plain", scope, ["sealed with the scope strict", "leave the annotation as it is"]),
        ("over", "./over", prefix.clone(), ["over/db.yaml:1", "sealed for the name inner-db"]),
        ("made", "./made", prefix, ["made/kustomization.yaml:1", "sealed for the name db"]),
        ("chart", "./chart", chart, ["chart/templates/db.yaml:1", "sealed for the name db"]),
    ] {
        scene.sync(name, path, spec).await?;
        let message = scene.is_not_ready(name, "SealedValue").await.with_context(|| name.to_owned())?;
        for part in parts {
            ensure!(message.contains(part), "{name}: '{part}' is not in: {message}");
        }
    }
    // Other changes keep the name for which the value was sealed, also if the folder's own kustomization gives the
    // SealedSecret its name.
    for name in ["over", "prefix"] {
        let patch = "- {op: add, path: /metadata/labels, value: {team: a}}";
        let spec = json!({"patches": [{"patch": patch, "target": {"kind": ".*"}}]});
        scene.sync(name, if name == "over" { "./over" } else { "./plain" }, spec).await?;
        scene.is_applied(name, &first).await?;
    }
    let data = |value: &str| json!({"data": {"password": STANDARD.encode(value)}});
    scene.has("v1", "Secret", "inner-db", data("Under-The-Final-Name")).await?;
    scene.has("v1", "Secret", "db", data("Only-Under-Its-Name")).await.map(drop)
}

#[tokio::test]
async fn sealed_values_of_a_chart_reach_its_secrets_after_the_changes() -> Result<()> {
    let scene = Scene::new("overlay-chart").await?;
    let value = scene.seal_for(Scope::NamespaceWide, "any", b"Value-Of-The-Chart").await?;
    scene.tree.write("chart/Chart.yaml", "apiVersion: v2\nname: chart\nversion: 1.0.0\n")?;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {url: 'db://{{ .Values.auth.password }}@db'}\n---\n";
    scene.tree.write("chart/templates/all.yaml", format!("{secret}{}", uses_db()))?;
    scene.tree.write("values.yaml", wide(&sealed_secret("any", &value)))?;
    let first = scene.publish("a chart").await?;
    let helm = json!({"valuesFrom": [{"sealedSecret": "values.yaml", "path": "auth"}]});
    let more = |to: &str| {
        let annotates = "- {op: add, path: /metadata/annotations, value: {a: b}}";
        let patch = format!("{annotates}\n- {{op: copy, from: /stringData/url, path: {to}}}");
        json!({"helm": helm, "namePrefix": "p-", "commonLabels": {"team": "a"}, "patches": [{"patch": patch, "target": {"kind": "Secret"}}]})
    };
    scene.sync("app", "./chart", more("/stringData/copy")).await?;
    scene.is_applied("app", &first).await?;
    let url = STANDARD.encode("db://Value-Of-The-Chart@db");
    let wanted = json!({"metadata": {"labels": {"team": "a"}}, "data": {"url": url, "copy": url}});
    scene.has("v1", "Secret", "p-db", wanted).await?;
    let web = scene.has("apps/v1", "Deployment", "p-web", json!({})).await?;
    assert_eq!(web["spec"]["template"]["spec"]["containers"][0]["envFrom"][0]["secretRef"]["name"], "p-db");
    // A patch must not copy a value from the Secret into the metadata.
    scene.sync("out", "./chart", more("/metadata/annotations/a")).await?;
    let message = scene.is_not_ready("out", "SealedValue").await?;
    ensure!(message.contains("chart/templates/all.yaml:1: Secret p-db: metadata.annotations.a contains"), "{message}");
    Ok(())
}

#[tokio::test]
async fn a_field_that_cannot_be_applied_says_which_and_why() -> Result<()> {
    let scene = Scene::new("overlay-refused").await?;
    scene.tree.write("app/map.yaml", config_map("map", "1"))?;
    scene.tree.write("twice/one.yaml", config_map("map", "1"))?;
    scene.tree.write("twice/two.yaml", format!("# again\n{}", config_map("map", "1")))?;
    scene.tree.write("app-two/kustomization.yaml", "resources: [map.yaml]\n")?;
    scene.tree.write("app-two/map.yaml", config_map("map", "1"))?;
    let first = scene.publish("a map").await?;
    let patch = |patch: &str, target: Value| json!({"patches": [{"patch": patch, "target": target}]});
    let removes = "- {op: remove, path: /data/gone}";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\nstringData: {password: Of-A-Patch-1}\n";
    let nested = format!("a: {}{}", "[".repeat(50_000), "]".repeat(50_000));
    let cases = [
        (
            "gone",
            "./app",
            json!({"components": ["../gone"]}),
            "components: '../gone' does not exist: the repository has no folder 'gone'",
        ),
        (
            "no-component",
            "./app",
            json!({"components": ["../app-two"]}),
            "expected kind 'Component' for path 'app-two'",
        ),
        (
            "no-path",
            "./app",
            patch(removes, json!({"kind": "ConfigMap"})),
            "patches[0]: error in remove for path: 'data/gone'",
        ),
        (
            "no-object",
            "./app",
            json!({"patches": [{"patch": secret}]}),
            "patches[0]: a patch without target names Secret s, which does not exist",
        ),
        ("pattern", "./app", patch(removes, json!({"name": "(("})), "a regular expression is not valid"),
        (
            "nested",
            "./app",
            patch(&nested, json!({"kind": "ConfigMap"})),
            "a patch is neither a strategic merge patch nor a JSON patch",
        ),
        ("twice", "./twice", json!({"namePrefix": "p-"}), "twice/two.yaml:2: there is another ConfigMap map"),
    ];
    for (name, path, spec, part) in cases {
        scene.sync(name, path, spec).await?;
        let message = scene.is_not_ready(name, "BuildFailed").await.with_context(|| name.to_owned())?;
        ensure!(message.contains(part) && !message.contains("Of-A-Patch-1"), "{name}: '{part}' is not in: {message}");
    }
    // The API server refuses the name of an image that Kustomize would read as a regular expression.
    let refused = scene.sync("image", "./app", json!({"images": [{"name": "a((a+)+)+$", "newTag": "1"}]})).await;
    ensure!(format!("{:?}", refused.err()).contains("spec.images[0].name"), "the name is accepted");
    // A patch whose target matches no object of the Sync, for example one in another tenant's namespace, changes
    // nothing.
    let nothing = patch("- {op: remove, path: /metadata}", json!({"kind": "Secret", "namespace": "kube-system"}));
    scene.sync("nothing", "./app", nothing).await?;
    scene.is_applied("nothing", &first).await?;
    is_value(&scene, "map", "1").await?;
    // A patch that writes a plaintext into a Secret is refused like a Secret in Git.
    scene.tree.write("secret/s.yaml", "apiVersion: v1\nkind: Secret\nmetadata: {name: s}\n")?;
    scene.publish("a Secret without values").await?;
    scene.sync("plaintext", "./secret", json!({"patches": [{"patch": secret}]})).await?;
    let message = scene.is_not_ready("plaintext", "PlaintextSecret").await?;
    ensure!(message.contains("secret/s.yaml:1") && !message.contains("Of-A-Patch-1"), "{message}");
    Ok(())
}

#[tokio::test]
async fn what_is_hidden_is_not_pruned_under_its_new_name() -> Result<()> {
    let scene = Scene::new("overlay-hidden").await?;
    scene.tree.write("app/map.yaml", config_map("map", "1"))?;
    scene.tree.write("app/other.yaml", config_map("other", "1"))?;
    let first = scene.publish("two maps").await?;
    scene.sync("app", "./app", json!({"namePrefix": "p-", "nameSuffix": "-s"})).await?;
    scene.is_applied("app", &first).await?;
    scene.tree.remove("app/other.yaml")?;
    scene.tree.write("app/.other.yaml", config_map("other", "1"))?;
    let second = scene.publish("one is hidden").await?;
    scene.is_applied("app", &second).await?;
    is_value(&scene, "p-other-s", "1").await?;
    let api: Api<ConfigMap> = scene.api();
    ensure!(api.get("p-other-s").await?.metadata.deletion_timestamp.is_none());
    Ok(())
}
