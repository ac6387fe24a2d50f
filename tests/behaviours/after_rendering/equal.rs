//! Checks that the fields of a Sync have the same effect as kustomizations that mean the same and are rendered by
//! `kustomize build`.

use std::{
    fs,
    path::Path,
    process::{Command, Output},
};

use anyhow::{Context, Result, ensure};
use harness::programs;
use manifests::Limits;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::render_cases::text;

const WEB: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web, labels: {app: web}}\nspec:\n  replicas: 1\n  \
    selector: {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec:\n      containers:\n      \
    - {name: web, image: 'registry.example/web:1.0', env: [{name: A, valueFrom: {configMapKeyRef: {name: settings, key: a}}}]}\n      \
    - {name: proxy, image: proxy}\n      volumes: [{name: v, configMap: {name: settings}}]\n---\n\
    apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}\n";
const SETTINGS: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings, annotations: {note: 'on'}}\n\
    data: {a: '0644', b: 'yes', text: \"two\\nlines\\t\\u2028\\u00e9 \\U0001F600\"}\n";
const ROLE: &str = "apiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {name: web, namespace: other}\n\
    roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: web}\nsubjects: [{kind: ServiceAccount, name: web}]\n---\n\
    apiVersion: rbac.authorization.k8s.io/v1\nkind: Role\nmetadata: {name: web, namespace: other}\nrules: []\n---\n\
    apiVersion: v1\nkind: Namespace\nmetadata: {name: other}\n---\n\
    apiVersion: example.com/v1\nkind: Thing\nmetadata: {name: thing}\nspec: {size: 3, ratio: 1.5, enabled: true, none: null}\n";
const PART: &str = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nresources: [more.yaml]\n\
    configMapGenerator: [{name: made, literals: [a=b]}]\npatches:\n- patch: |\n    - {op: add, path: /spec/paused, value: true}\n  \
    target: {kind: Deployment}\n";

/// Where the objects come from.
#[derive(Clone, Copy, Debug)]
enum Of {
    Plain,
    Kustomization,
    Chart,
}

/// The combinations of fields.
fn combinations() -> Vec<(&'static str, Value)> {
    let component = json!(["../part"]);
    let names = json!({"namePrefix": "p-", "nameSuffix": "-s"});
    let image = json!([{"name": "registry.example/web", "newName": "other.example/web", "newTag": "2.0"}, {"name": "proxy", "digest": "sha256:00"}]);
    let json_patch = json!({"patch": "- op: replace\n  path: /spec/replicas\n  value: 3\n", "target": {"kind": "Deployment", "name": "w.*"}});
    let merge_patch = json!({"patch": "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {template: {spec: {containers: [{name: proxy, image: patched}]}}}\n"});
    let with = |mut fields: Value, more: Value| {
        if let (Value::Object(fields), Value::Object(more)) = (&mut fields, more) {
            fields.extend(more);
        }
        fields
    };
    let all = json!({
        "components": component, "commonLabels": {"team": "a"}, "commonAnnotations": {"owner": "b"}, "images": image,
        "patches": [json_patch, merge_patch],
    });
    vec![
        ("a component", json!({"components": component})),
        ("a prefix", json!({"namePrefix": "p-"})),
        ("a suffix", json!({"nameSuffix": "-s"})),
        ("names", names.clone()),
        ("labels", json!({"commonLabels": {"team": "a", "app": "other"}})),
        ("annotations", json!({"commonAnnotations": {"owner": "b", "note": "1", "text": "a: b\n# c"}})),
        ("images", json!({"images": image})),
        ("a JSON patch", json!({"patches": [json_patch]})),
        ("a merge patch", json!({"patches": [merge_patch]})),
        (
            "a patch by labels",
            json!({"patches": [{"patch": "kind: any\nmetadata: {name: any, annotations: {a: b}}", "target": {"labelSelector": "app=web"}}]}),
        ),
        (
            "a patch of a group",
            json!({"patches": [{"patch": "- {op: remove, path: /metadata/namespace}", "target": {"group": "rbac.authorization.k8s.io", "version": "v1"}}]}),
        ),
        (
            "a patch that deletes",
            json!({"patches": [{"patch": "$patch: delete\napiVersion: v1\nkind: Service\nmetadata: {name: web}\n"}]}),
        ),
        (
            "a patch that matches nothing",
            json!({"patches": [{"patch": "- {op: remove, path: /spec}", "target": {"kind": "Nothing"}}]}),
        ),
        ("names and images", with(names.clone(), json!({"images": image}))),
        (
            "names, labels and a patch of the old name",
            with(names.clone(), json!({"commonLabels": {"team": "a"}, "patches": [merge_patch]})),
        ),
        (
            "an image that a patch replaces",
            json!({"images": [{"name": "proxy", "newTag": "9"}], "patches": [merge_patch]}),
        ),
        ("everything but names", all.clone()),
        ("everything", with(all, names)),
    ]
}

/// A repository with the same objects in all three forms, and with a component.
fn repository() -> Result<TempDir> {
    let folder = tempfile::tempdir()?;
    fs::create_dir(folder.path().join(".git"))?;
    let objects = [("web", WEB), ("settings", SETTINGS), ("role", ROLE)];
    for (name, text) in objects {
        write(folder.path(), &format!("all/plain/{name}.yaml"), text)?;
        write(folder.path(), &format!("all/base/{name}.yaml"), text)?;
        write(folder.path(), &format!("all/chart/templates/{name}.yaml"), text)?;
    }
    let kustomization = "resources: [../base]\nnamePrefix: o-\nconfigMapGenerator: [{name: own, literals: [c=d]}]\n";
    write(folder.path(), "all/base/kustomization.yaml", "resources: [web.yaml, settings.yaml, role.yaml]\n")?;
    write(folder.path(), "all/over/kustomization.yaml", kustomization)?;
    write(folder.path(), "all/chart/Chart.yaml", "apiVersion: v2\nname: all\nversion: 1.0.0\n")?;
    write(folder.path(), "all/part/kustomization.yaml", PART)?;
    write(folder.path(), "all/part/more.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: more}\n")?;
    Ok(folder)
}

fn write(top: &Path, path: &str, text: &str) -> Result<()> {
    let path = top.join(path);
    fs::create_dir_all(path.parent().context("a folder")?)?;
    Ok(fs::write(path, text)?)
}

/// Writes kustomizations that mean the same as the fields, each on top of the one before. Returns the folder of the
/// last one.
fn write_layers(top: &Path, resources: &Value, fields: &Map<String, Value>) -> Result<&'static str> {
    let _ = fs::remove_dir_all(top.join("all/layers"));
    let mut first = json!({"resources": resources});
    if let Some(components) = fields.get("components").and_then(Value::as_array) {
        let up = |component: &Value| json!(format!("../{}", component.as_str().unwrap_or_default()));
        first["components"] = components.iter().map(up).collect();
    }
    let mut second = json!({"resources": ["../one"]});
    for field in ["namePrefix", "nameSuffix", "commonAnnotations", "images"] {
        second[field] = fields.get(field).cloned().unwrap_or_default();
    }
    if let Some(labels) = fields.get("commonLabels") {
        second["labels"] = json!([{"pairs": labels, "includeSelectors": true}]);
    }
    let third = json!({"resources": ["../two"], "patches": fields.get("patches").cloned().unwrap_or_default()});
    for (name, layer) in [("one", first), ("two", second), ("three", third)] {
        write(top, &format!("all/layers/{name}/kustomization.yaml"), &layer.to_string())?;
    }
    Ok("all/layers/three")
}

fn run(program: &Path, arguments: &[&str], top: &Path) -> Result<Output> {
    let output = Command::new(program).args(arguments).current_dir(top).env_clear().env("HOME", top).output()?;
    ensure!(output.status.success(), "{arguments:?}: {}", text(&output.stderr));
    Ok(output)
}

/// The objects that a program printed.
fn objects(output: &Output) -> Result<Vec<Value>> {
    let parsed = manifests::parse("printed", &output.stdout, &Limits::default())?;
    Ok(parsed.into_iter().map(|manifest| Value::Object(manifest.body)).collect())
}

/// The object with the namespace that the controller gives it. Whether `Thing` has one is not known without a cluster.
fn in_namespace(mut object: Value) -> Value {
    let is_namespaced = !matches!(object["kind"].as_str(), Some("Namespace" | "Thing"));
    if is_namespaced && object["metadata"]["namespace"].is_null() {
        object["metadata"]["namespace"] = "shop".into();
    }
    object
}

#[test]
fn the_fields_change_what_kustomize_changes() -> Result<()> {
    let repository = repository()?;
    let top = repository.path();
    let (kustomize, gitseal) = (localcluster::parts::kustomize()?, programs::folder()?.join("gitseal"));
    let of_chart = run(&localcluster::parts::helm()?, &["template", "all", "all/chart"], top)?;
    write(top, "all/of-chart.yaml", &text(&of_chart.stdout))?;
    let combinations = combinations();
    ensure!(combinations.len() >= 12);
    for of in [Of::Plain, Of::Kustomization, Of::Chart] {
        let (path, resources, helm) = match of {
            Of::Plain => {
                let files: Vec<_> = ["role", "settings", "web"].map(|name| format!("../../plain/{name}.yaml")).into();
                ("all/plain", json!(files), json!(null))
            }
            Of::Kustomization => ("all/over", json!(["../../over"]), json!(null)),
            Of::Chart => ("all/chart", json!(["../../of-chart.yaml"]), json!({})),
        };
        for (name, fields) in &combinations {
            let mut spec = json!({"repository": {"name": "repo"}, "path": path});
            if !helm.is_null() {
                spec["helm"] = helm.clone();
            }
            let fields = fields.as_object().context("fields")?;
            spec.as_object_mut().context("a spec")?.extend(fields.clone());
            let sync = json!({"apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "all", "namespace": "shop"}, "spec": spec});
            write(top, "sync.yaml", &sync.to_string())?;
            let ours = objects(&run(&gitseal, &["build", "--sync", "sync.yaml"], top).context(*name)?)?;
            let layers = write_layers(top, &resources, fields)?;
            let arguments = ["build", "--load-restrictor", "LoadRestrictionsNone", layers];
            let theirs = objects(&run(&kustomize, &arguments, top).context(*name)?)?;
            // Each combination changes something, except the patch that matches nothing.
            let before = objects(&run(&gitseal, &["build", path], top)?)?;
            ensure!(before != theirs || *name == "a patch that matches nothing", "{of:?}: {name} changes nothing");
            let theirs: Vec<_> = theirs.into_iter().map(in_namespace).collect();
            ensure!(ours.len() >= 6 && ours == theirs, "{of:?}: {name}: ours is\n{ours:#?}\ntheirs is\n{theirs:#?}");
        }
    }
    Ok(())
}
