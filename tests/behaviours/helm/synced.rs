//! Syncs whose folder is rendered as a chart.

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::Sync;
use harness::{Plane, Scene, eventually, git::ServerOptions, kubernetes, programs::Controller};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Secret},
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, ResourceExt as _,
    api::{DeleteParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use sealing::Scope;
use serde_json::json;

use crate::{
    cli::gitseal,
    jobs::completes,
    objects::{change_by_hand, is_value, sealed_secret},
    renders::rendered,
    traces::event,
    waves_wait::fails,
};

pub(super) const CHART: &str = "apiVersion: v2\nname: web\nversion: 1.0.0\n";
pub(super) const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: \"{{ .Release.Name }}-map\"}\n\
    data: {value: \"{{ .Values.level }}\", namespace: \"{{ .Release.Namespace }}\"}\n";

/// Writes the chart `charts/web` with these templates.
pub(super) fn write_chart(scene: &Scene, templates: &[(&str, &str)]) -> Result<()> {
    scene.tree.write("charts/web/Chart.yaml", CHART)?;
    scene.tree.write("charts/web/values.yaml", "level: info\n")?;
    for (name, text) in templates {
        scene.tree.write(&format!("charts/web/templates/{name}.yaml"), text)?;
    }
    Ok(())
}

#[tokio::test]
async fn two_syncs_render_one_chart_with_their_own_values_and_only_when_these_change() -> Result<()> {
    let (plane, mut controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "charts", ServerOptions::default()).await?;
    write_chart(&scene, &[("map", MAP)])?;
    scene.tree.write("values/one.yaml", "level: debug\n")?;
    // A chart that neither of them uses.
    scene.tree.write("charts/other/Chart.yaml", CHART)?;
    scene.tree.write("charts/other/templates/map.yaml", MAP)?;
    scene.repository(json!({})).await?;
    let first = scene.publish("two charts").await?;
    scene.sync("other", "./charts/other", json!({"helm": {"values": {"level": "info"}}})).await?;
    scene.is_applied("other", &first).await?;
    let of_file = json!({"helm": {"valuesFrom": [{"file": "./values/one.yaml"}]}});
    scene.sync("one", "./charts/web", of_file).await?;
    scene.sync("two", "./charts/web", json!({"helm": {"releaseName": "blue", "values": {"level": "warn"}}})).await?;
    for sync in ["one", "two"] {
        scene.is_applied(sync, &first).await?;
    }
    let wanted = json!({"data": {"value": "debug", "namespace": scene.namespace}});
    scene.has("v1", "ConfigMap", "one-map", wanted).await?;
    is_value(&scene, "blue-map", "warn").await?;
    assert_eq!(rendered(&controller, "helm").await?, 3);

    // The commits change a file elsewhere, then the values of one Sync, then the chart.
    scene.tree.write("docs/other.yaml", "x: 1\n")?;
    scene.publish("elsewhere").await?;
    scene.tree.write("values/one.yaml", "level: trace\n")?;
    let second = scene.publish("the values of one").await?;
    scene.is_applied("one", &second).await?;
    is_value(&scene, "one-map", "trace").await?;
    assert_eq!(rendered(&controller, "helm").await?, 4);
    let applied = async |sync: &str| -> Result<Option<String>> {
        Ok(scene.api::<Sync>().get(sync).await?.status.and_then(|status| status.last_applied_revision))
    };
    assert_eq!(applied("two").await?, Some(first.clone()));
    // A change of the chart renders each Sync that uses it once, and no other.
    scene.tree.write("charts/web/templates/map.yaml", MAP.replace("-map", "-config"))?;
    let third = scene.publish("the chart").await?;
    for sync in ["one", "two"] {
        scene.is_applied(sync, &third).await?;
    }
    is_value(&scene, "one-config", "trace").await?;
    is_value(&scene, "blue-config", "warn").await?;
    scene.is_gone("v1", "ConfigMap", "blue-map").await?;
    let before = rendered(&controller, "helm").await?;
    assert_eq!(before, 6);
    assert_eq!(applied("other").await?, Some(first));

    // Drift is undone without a render, also after a restart.
    change_by_hand(&scene, "one-config").await?;
    is_value(&scene, "one-config", "trace").await?;
    assert_eq!(rendered(&controller, "helm").await?, before);
    controller.stop()?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    change_by_hand(&scene, "blue-config").await?;
    is_value(&scene, "blue-config", "warn").await?;
    assert_eq!((rendered(&controller, "helm").await?, rendered(&controller, "disk").await?), (0, 1));

    // An edit of the values in the Sync has the same effect as a commit.
    scene.sync("two", "./charts/web", json!({"helm": {"values": {"level": "error"}}})).await?;
    is_value(&scene, "two-config", "error").await?;
    scene.is_gone("v1", "ConfigMap", "blue-config").await
}

#[tokio::test]
async fn templates_see_the_version_and_the_kinds_of_the_cluster() -> Result<()> {
    let scene = Scene::new("capabilities").await?;
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: seen}\ndata:\n  \
        version: \"{{ .Capabilities.KubeVersion.Version }}\"\n  \
        served: \"{{ .Capabilities.APIVersions.Has \"gitseal.dev/v1alpha1/Sync\" }}\"\n  \
        removed: \"{{ .Capabilities.APIVersions.Has \"policy/v1beta1\" }}\"\n";
    write_chart(&scene, &[("map", template)])?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"helm": {}})).await?;
    scene.is_applied("app", &first).await?;
    let version = Plane::shared().await?.cluster.client().await?.apiserver_version().await?.git_version;
    let wanted = json!({"data": {"version": version, "served": "true", "removed": "false"}});
    scene.has("v1", "ConfigMap", "seen", wanted).await.map(drop)
}

/// A Secret that uses a sealed value in three ways, and a Deployment that restarts when the value changes.
pub(super) const SECRET: &str = "apiVersion: v1\nkind: Secret\nmetadata: {name: \"{{ .Release.Name }}-db\"}\ntype: example.com/db\n\
    stringData:\n  password: {{ .Values.auth.password | quote }}\n  url: \"db://me:{{ .Values.auth.password }}@db\"\n\
    data:\n  user: {{ \"me\" | b64enc }}\n  docker: {{ printf \"{\\\"auth\\\": %q}\" (printf \"me:%s\" .Values.auth.token | b64enc) | b64enc }}\n";
const CHECKSUM: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: checksum\n\
    data: {value: \"{{ include (print $.Template.BasePath \"/secret.yaml\") . | sha256sum }}\"}\n";

pub(crate) async fn sealed_file(scene: &Scene, password: &str, token: &str) -> Result<String> {
    let password = scene.seal_for(Scope::NamespaceWide, "any", password.as_bytes()).await?;
    let token = scene.seal_for(Scope::NamespaceWide, "any", token.as_bytes()).await?;
    let wide = "metadata: {annotations: {sealedsecrets.bitnami.com/namespace-wide: 'true'}, ";
    Ok(sealed_secret("values", &password).replace("metadata: {", wide) + &format!("    token: {token}\n"))
}

pub(super) fn decoded(secret: &Secret, key: &str) -> Result<String> {
    let value = secret.data.as_ref().and_then(|data| data.get(key)).with_context(|| format!("no {key}"))?;
    Ok(String::from_utf8(value.0.clone())?)
}

#[tokio::test]
async fn sealed_values_reach_the_secrets_of_a_chart_and_nothing_else() -> Result<()> {
    let scene = Scene::new("sealed-values").await?;
    write_chart(&scene, &[("secret", SECRET), ("checksum", CHECKSUM)])?;
    scene.tree.write("secrets/values.yaml", sealed_file(&scene, "Of-The-Chart-1", "Token-Of-It-1").await?)?;
    let first = scene.publish("a chart with a secret").await?;
    let values_from = json!([{"sealedSecret": "secrets/values.yaml", "path": "auth"}]);
    scene.sync("app", "./charts/web", json!({"helm": {"valuesFrom": values_from}})).await?;
    scene.is_applied("app", &first).await?;
    let secret = scene.api::<Secret>().get("app-db").await?;
    let keys: Vec<_> = secret.data.iter().flatten().map(|(key, _)| key.as_str()).collect();
    assert_eq!(keys, ["docker", "password", "url", "user"]);
    assert_eq!(secret.type_.as_deref(), Some("example.com/db"));
    assert_eq!(decoded(&secret, "password")?, "Of-The-Chart-1");
    assert_eq!(decoded(&secret, "url")?, "db://me:Of-The-Chart-1@db");
    assert_eq!(decoded(&secret, "user")?, "me");
    let auth = STANDARD.encode("me:Token-Of-It-1");
    assert_eq!(decoded(&secret, "docker")?, format!("{{\"auth\": \"{auth}\"}}"));
    let (uid, checksum) = (secret.uid(), scene.api::<ConfigMap>().get("checksum").await?.data);

    // Somebody changes the Secret, and removes a value: it is made again as it was.
    let patch = Patch::Merge(json!({"data": {"url": null, "password": "eA=="}}));
    scene.api::<Secret>().patch("app-db", &PatchParams::default(), &patch).await?;
    let url = STANDARD.encode("db://me:Of-The-Chart-1@db");
    scene
        .has("v1", "Secret", "app-db", json!({"data": {"url": url, "password": STANDARD.encode("Of-The-Chart-1")}}))
        .await?;

    // A new value changes the Secret and what the chart computes from it.
    scene.tree.write("secrets/values.yaml", sealed_file(&scene, "Of-The-Chart-2", "Token-Of-It-2").await?)?;
    let second = scene.publish("another password").await?;
    scene.is_applied("app", &second).await?;
    let secret = scene.api::<Secret>().get("app-db").await?;
    assert_eq!((decoded(&secret, "password")?, secret.uid()), ("Of-The-Chart-2".to_owned(), uid));
    ensure!(scene.api::<ConfigMap>().get("checksum").await?.data != checksum, "the checksum is the same");
    Ok(())
}

#[tokio::test]
async fn a_file_of_sealed_values_has_values_at_any_place_of_the_chart() -> Result<()> {
    let scene = Scene::new("sealed-file").await?;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: all}\nstringData:\n  top: {{ .Values.top | quote }}\n  \
        url: \"db://{{ .Values.database.user }}:{{ .Values.database.admin.password }}@db\"\n";
    write_chart(&scene, &[("secret", secret)])?;
    scene.tree.write("charts/web/values.yaml", "database: {user: me, admin: {password: none, name: root}}\n")?;
    let sealed = async |names: &[(&str, &str)]| -> Result<String> {
        let mut values = String::new();
        for (name, value) in names {
            let value = scene.seal_for(Scope::NamespaceWide, "any", value.as_bytes()).await?;
            values += &format!("    {name}: {value}\n");
        }
        Ok(format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: values, annotations: \
             {{sealedsecrets.bitnami.com/namespace-wide: 'true'}}}}\nspec:\n  encryptedData:\n{values}"
        ))
    };
    scene.tree.write(
        "secrets/values.yaml",
        sealed(&[("top", "At-The-Root-1"), ("database.admin.password", "Deep-Inside-1")]).await?,
    )?;
    let first = scene.publish("a file of sealed values").await?;
    let spec = json!({"helm": {"valuesFrom": [{"sealedSecret": "secrets/values.yaml"}]}});
    scene.sync("app", "./charts/web", spec).await?;
    scene.is_applied("app", &first).await?;
    let secret = scene.api::<Secret>().get("all").await?;
    assert_eq!(decoded(&secret, "top")?, "At-The-Root-1");
    assert_eq!(decoded(&secret, "url")?, "db://me:Deep-Inside-1@db");

    scene
        .tree
        .write("secrets/values.yaml", sealed(&[("top", "At-The-Root-2"), ("top.password", "Deep-Inside-2")]).await?)?;
    scene.publish("keys that exclude each other").await?;
    let message = scene.is_not_ready("app", "SealedValue").await?;
    ensure!(message.contains("secrets/values.yaml:1: the keys top and top.password exclude each other"), "{message}");
    // The API server refuses an entry with a key for which there is no name.
    let refused = json!({"helm": {"valuesFrom": [{"sealedSecret": "secrets/values.yaml", "key": "top"}]}});
    let refused = scene.sync("refused", "./charts/web", refused).await.expect_err("refused").to_string();
    ensure!(refused.contains("is required with a key of them"), "{refused}");
    Ok(())
}

/// Waits until the notes in the status of the Sync contain these texts, and returns them.
async fn has_notes(scene: &Scene, sync: &str, parts: &[&str]) -> Result<String> {
    let notes = |sync: &Sync| sync.status.as_ref().and_then(|status| status.notes.clone()).unwrap_or_default();
    let has = |sync: &Sync, _: &crds::Condition| parts.iter().all(|part| notes(sync).contains(part));
    Ok(notes(&scene.sync_when(sync, &format!("notes with {parts:?}"), has).await?))
}

#[tokio::test]
async fn the_notes_of_a_chart_are_in_the_status_without_sealed_values() -> Result<()> {
    let scene = Scene::new("notes").await?;
    write_chart(&scene, &[("secret", SECRET), ("map", MAP)])?;
    scene.tree.write("secrets/values.yaml", sealed_file(&scene, "Not-In-Notes-1", "Not-In-Notes-2").await?)?;
    let notes = |first: &str| {
        format!("\n{first} {{{{ .Release.Name }}}}\n  with {{{{ .Values.auth.password }}}} and \u{1b}[31mred\n")
    };
    scene.tree.write("charts/web/templates/NOTES.txt", notes("Visit"))?;
    let first = scene.publish("a chart with notes").await?;
    let values_from = json!([{"sealedSecret": "secrets/values.yaml", "path": "auth"}]);
    scene.sync("app", "./charts/web", json!({"helm": {"valuesFrom": values_from}})).await?;
    scene.is_applied("app", &first).await?;
    let told = has_notes(&scene, "app", &[]).await?;
    assert_eq!(told, "Visit app\n  with (sealed value auth.password) and \\u{1b}[31mred");

    // They stay when drift is put back, and a commit may change only them.
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "info").await?;
    assert_eq!(has_notes(&scene, "app", &[]).await?, told);
    scene.tree.write("charts/web/templates/NOTES.txt", notes("Open"))?;
    let second = scene.publish("other notes").await?;
    scene.is_applied("app", &second).await?;
    has_notes(&scene, "app", &["Open app"]).await?;
    // With changes after rendering, too.
    let spec = json!({"namePrefix": "my-", "helm": {"valuesFrom": values_from}});
    scene.sync("changed", "./charts/web", spec).await?;
    has_notes(&scene, "changed", &["Open changed"]).await?;

    scene.tree.write("charts/web/templates/NOTES.txt", "{{ upper .Values.auth.password }}")?;
    scene.publish("a changed placeholder").await?;
    has_notes(&scene, "app", &["The notes of the chart are left out"]).await?;
    scene.tree.write("charts/web/templates/NOTES.txt", "{{ repeat 5000 \"ab\" }}")?;
    scene.publish("long notes").await?;
    let told = has_notes(&scene, "app", &["abab"]).await?;
    ensure!(told.len() <= 4096 && told.ends_with("\n…"), "{}: {told}", told.len());
    scene.tree.remove("charts/web/templates/NOTES.txt")?;
    scene.publish("no notes").await?;
    let has_none = |sync: &Sync, _: &crds::Condition| sync.status.as_ref().is_some_and(|status| status.notes.is_none());
    scene.sync_when("app", "no notes", has_none).await.map(drop)
}

#[tokio::test]
async fn a_sealed_value_that_cannot_be_placed_is_refused_with_its_place() -> Result<()> {
    let scene = Scene::new("misplaced").await?;
    write_chart(&scene, &[("secret", SECRET)])?;
    scene.tree.write("secrets/values.yaml", sealed_file(&scene, "Misplaced-One", "Misplaced-Two").await?)?;
    let strict = sealed_secret("other", &scene.seal("other", b"Misplaced-Three").await?);
    scene.tree.write("secrets/strict.yaml", strict)?;
    let from = |file: &str, key: Option<&str>, path: &str| {
        let mut from = json!({"sealedSecret": file, "path": path});
        if let Some(key) = key {
            from["key"] = key.into();
        }
        json!({"helm": {"valuesFrom": [from], "values": {"auth": {"token": "x"}}}})
    };
    let outside = "{{- if .Values.outside }}\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: outside}\ndata:\n  \
        url: \"db://{{ .Values.outside.password }}\"\n{{- end }}\n";
    scene.tree.write("charts/web/templates/outside.yaml", outside)?;
    scene.publish("misplaced values").await?;
    let values = "secrets/values.yaml";
    let cases = [
        (
            "outside",
            from(values, Some("password"), "outside.password"),
            vec![
                "charts/web/templates/outside.yaml:",
                "ConfigMap",
                "data.url contains the sealed value outside.password",
                "existingSecret",
            ],
        ),
        ("unused", from(values, Some("password"), "nothing"), vec!["no Secret of the chart contains nothing", values]),
        ("no-key", from(values, Some("pin"), "auth.password"), vec!["has no sealed value pin: it has password, token"]),
        ("no-file", from("secrets/gone.yaml", None, "auth"), vec!["the repository has no file 'secrets/gone.yaml'"]),
        ("no-secret", from("charts/web/values.yaml", None, "auth"), vec!["charts/web/values.yaml:1"]),
        (
            "strict",
            from("secrets/strict.yaml", Some("password"), "auth.password"),
            vec!["charts/web/templates/secret.yaml:1", "sealed for the Secret", "--scope namespace-wide"],
        ),
    ];
    for (name, spec, parts) in cases {
        scene.sync(name, "./charts/web", spec).await?;
        let reason = if name == "no-secret" { "InvalidManifest" } else { "SealedValue" };
        let message = scene.is_not_ready(name, reason).await.with_context(|| name.to_owned())?;
        for part in parts {
            ensure!(message.contains(part), "{name}: '{part}' is not in: {message}");
        }
    }
    Ok(())
}

#[tokio::test]
async fn a_chart_that_cannot_be_applied_says_why() -> Result<()> {
    let scene = Scene::new("charts-refused").await?;
    write_chart(&scene, &[("map", MAP)])?;
    let with = |text: &str| MAP.replace("{{ .Values.level }}", text);
    for (name, text) in [
        ("random", "{{ randAlphaNum 8 }}"),
        ("lookup", "{{ (lookup `v1` `Secret` `a` `b`) }}"),
        // argoproj/argo-cd 5202: without an answer to the lookup, each render made another password.
        ("kept", "{{ with lookup `v1` `Secret` `a` `db` }}{{ .data.password }}{{ else }}{{ randAlphaNum 8 }}{{ end }}"),
    ] {
        scene.tree.write(&format!("charts/{name}/Chart.yaml"), CHART)?;
        scene.tree.write(&format!("charts/{name}/templates/map.yaml"), with(text))?;
    }
    let plain = "apiVersion: v1\nkind: Secret\nmetadata: {name: plain}\nstringData: {password: hunter2hunter2}\n";
    scene.tree.write("charts/plain/Chart.yaml", CHART)?;
    scene.tree.write("charts/plain/templates/secret.yaml", plain)?;
    scene.tree.write("none/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n")?;
    scene.publish("charts").await?;
    let helm = json!({"helm": {}});
    let cases = [
        (
            "as-a-folder",
            "./charts/web",
            json!({}),
            "IsChart",
            "charts/web: Helm: the folder has a Chart.yaml: to render it",
        ),
        ("random", "./charts/random", helm.clone(), "NotReproducible", "templates call randAlphaNum"),
        (
            "lookup",
            "./charts/lookup",
            helm.clone(),
            "NotReproducible",
            "looks up v1 Secret a/b in the cluster, and Secrets cannot be looked up",
        ),
        (
            "kept",
            "./charts/kept",
            helm.clone(),
            "NotReproducible",
            "looks up v1 Secret a/db in the cluster, and Secrets cannot be looked up",
        ),
        ("plain", "./charts/plain", helm.clone(), "PlaintextSecret", "charts/plain/templates/secret.yaml:1"),
        ("no-chart", "./none", helm.clone(), "BuildFailed", "none: Helm:"),
        ("no-path", "./gone", helm.clone(), "PathNotFound", "gone"),
    ];
    for (name, path, spec, reason, part) in cases {
        scene.sync(name, path, spec).await?;
        let message = scene.is_not_ready(name, reason).await.with_context(|| name.to_owned())?;
        ensure!(message.contains(part), "{name}: '{part}' is not in: {message}");
    }
    // `helm: {}` is enough to apply the chart.
    scene.sync("as-a-folder", "./charts/web", helm).await?;
    is_value(&scene, "as-a-folder-map", "info").await
}

/// The definition of a kind Thing.
fn definition_of_things(group: &str) -> String {
    format!(
        "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: things.{group}}}\n\
         spec:\n  group: {group}\n  scope: Namespaced\n  names: {{kind: Thing, plural: things, singular: thing}}\n  \
         versions:\n    - {{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, \
         x-kubernetes-preserve-unknown-fields: true}}}}}}\n"
    )
}

#[tokio::test]
async fn what_helm_keeps_is_not_pruned() -> Result<()> {
    let scene = Scene::new("chart-keeps").await?;
    let group = format!("{}.example.com", scene.namespace);
    let map = |name: &str, annotations: &str| {
        format!(
            "{{{{- if .Values.all }}}}\napiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}{annotations}}}\n{{{{- end }}}}\n"
        )
    };
    let kept = map("kept", ", annotations: {helm.sh/resource-policy: keep}");
    write_chart(&scene, &[("map", MAP), ("kept", &kept), ("goes", &map("goes", ""))])?;
    scene.tree.write("charts/web/crds/thing.yaml", definition_of_things(&group))?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"helm": {"values": {"all": true}}})).await?;
    scene.is_applied("app", &first).await?;
    scene.has("v1", "ConfigMap", "kept", json!({})).await?;
    scene.sync("app", "./charts/web", json!({"pruneLimit": "100%", "helm": {"crds": "Skip"}})).await?;
    scene.is_gone("v1", "ConfigMap", "goes").await?;
    scene.is_ready("app").await?;
    scene.has("v1", "ConfigMap", "kept", json!({})).await?;
    let definitions = Api::<CustomResourceDefinition>::all(scene.client.clone());
    let definition = definitions.get(&format!("things.{group}")).await.context("the definition")?;
    ensure!(definition.metadata.deletion_timestamp.is_none(), "it is being deleted");
    Ok(())
}

#[tokio::test]
async fn definitions_of_a_chart_come_first_unless_they_are_skipped() -> Result<()> {
    let scene = Scene::new("chart-crds").await?;
    let group = format!("{}.example.com", scene.namespace);
    let definition = definition_of_things(&group);
    let thing = format!("apiVersion: {group}/v1\nkind: Thing\nmetadata: {{name: one}}\n");
    write_chart(&scene, &[("thing", &thing)])?;
    scene.tree.write("charts/web/crds/thing.yaml", definition)?;
    let first = scene.publish("a chart with a definition").await?;
    scene.sync("skips", "./charts/web", json!({"helm": {"crds": "Skip"}})).await?;
    let message = scene.is_not_ready("skips", "UnknownKind").await?;
    ensure!(message.contains("Thing"), "{message}");
    scene.sync("app", "./charts/web", json!({"helm": {}})).await?;
    scene.is_applied("app", &first).await?;
    scene.has(&format!("{group}/v1"), "Thing", "one", json!({})).await.map(drop)
}

#[tokio::test]
async fn a_change_of_a_definition_is_applied_in_one_mode_only() -> Result<()> {
    let scene = Scene::new("chart-crds-modes").await?;
    let (definitions, space) = (Api::<CustomResourceDefinition>::all(scene.client.clone()), scene.namespace.as_str());
    let group = |of: &str| format!("{of}.{space}.example.com");
    let with = |of: &str, short: &str| {
        definition_of_things(&group(of)).replace("singular: thing", &format!("singular: thing, shortNames: [{short}]"))
    };
    // The short name of the definition; `None` if there is no definition.
    let short_name = async |of: &str| -> Result<Option<String>> {
        let found = definitions.get_opt(&format!("things.{}", group(of))).await?;
        Ok(found.map(|found| found.spec.names.short_names.unwrap_or_default().concat()))
    };
    let write = |mode: &str, of: &str, text: &str| {
        scene.tree.write(&format!("charts/{mode}/Chart.yaml"), CHART)?;
        scene.tree.write(&format!("charts/{mode}/templates/map.yaml"), MAP)?;
        scene.tree.write(&format!("charts/{mode}/crds/{of}.yaml"), text)
    };
    let modes = ["Apply", "Create", "Skip"].map(|mode| (mode, mode.to_lowercase()));
    for (_, name) in &modes {
        write(name, name, &with(name, "before"))?;
    }
    // Somebody has made this one without gitseal.
    kubernetes::apply_cluster_wide(&scene.client, json_of(&with("foreign", "foreign"))?).await?;
    write("create", "foreign", &with("foreign", "before"))?;
    let first = scene.publish("charts with definitions").await?;
    for (mode, name) in &modes {
        scene
            .sync(name, &format!("./charts/{name}"), json!({"helm": {"crds": mode, "values": {"level": "x"}}}))
            .await?;
        scene.is_applied(name, &first).await?;
    }
    let all = async || -> Result<Vec<Option<String>>> {
        Ok(vec![
            short_name("apply").await?,
            short_name("create").await?,
            short_name("skip").await?,
            short_name("foreign").await?,
        ])
    };
    let of = |names: [&str; 4]| names.map(|name| (!name.is_empty()).then(|| name.to_owned())).to_vec();
    assert_eq!(all().await?, of(["before", "before", "", "foreign"]));

    // The files change, and there is another one.
    for (_, name) in &modes {
        write(name, name, &with(name, "after"))?;
        write(name, "later", &with(&format!("later-{name}"), "later"))?;
    }
    write("create", "foreign", &with("foreign", "after"))?;
    let second = scene.publish("other definitions").await?;
    for (_, name) in &modes {
        scene.is_applied(name, &second).await?;
    }
    assert_eq!(all().await?, of(["after", "before", "", "foreign"]));
    for (name, there) in [("later-apply", true), ("later-create", true), ("later-skip", false)] {
        assert_eq!(short_name(name).await?.is_some(), there, "{name}");
    }

    // Somebody changes two of them.
    let by_hand = Patch::Merge(json!({"spec": {"names": {"shortNames": ["hand"]}}}));
    for name in ["create", "apply"] {
        definitions.patch(&format!("things.{}", group(name)), &PatchParams::default(), &by_hand).await?;
    }
    eventually("the definition to be put back", || async {
        ensure!(short_name("apply").await?.as_deref() == Some("after"));
        Ok(())
    })
    .await?;
    scene
        .sync(
            "create",
            "./charts/create",
            json!({"interval": "24h", "helm": {"crds": "Create", "values": {"level": "y"}}}),
        )
        .await?;
    is_value(&scene, "create-map", "y").await?;
    assert_eq!(short_name("create").await?.as_deref(), Some("hand"));

    // Somebody deletes one. It is made again, long before the interval of the Sync is over.
    definitions.delete(&format!("things.{}", group("create")), &DeleteParams::default()).await?;
    eventually("the definition to be made again", || async {
        ensure!(short_name("create").await?.as_deref() == Some("after"));
        Ok(())
    })
    .await
}

/// The object of a manifest.
fn json_of(manifest: &str) -> Result<serde_json::Value> {
    let objects = manifests::parse("a.yaml", manifest.as_bytes(), &manifests::Limits::default())?;
    Ok(serde_json::Value::Object(objects.into_iter().next().context("an object")?.body))
}

#[tokio::test]
async fn a_hook_runs_before_the_other_objects_and_again_when_it_changes() -> Result<()> {
    let scene = Scene::new("chart-hooks").await?;
    let hook = |event: &str, name: &str| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: {name}\n  annotations:\n    helm.sh/hook: {event}\n    \
             helm.sh/hook-weight: '-5'\nspec:\n  managedBy: example.com/nobody\n  template:\n    spec:\n      \
             restartPolicy: Never\n      containers: [{{name: c, image: 'example.invalid/c:{{{{ .Values.tag }}}}'}}]\n"
        )
    };
    let (migrate, test, bye) =
        (hook("pre-install,pre-upgrade", "migrate"), hook("test", "test"), hook("pre-delete", "bye"));
    write_chart(&scene, &[("map", MAP), ("migrate", &migrate), ("test", &test), ("bye", &bye)])?;
    let first = scene.publish("a chart with hooks").await?;
    let with = |tag: &str| json!({"timeout": "1h", "helm": {"values": {"tag": tag}}});
    scene.sync("app", "./charts/web", with("1")).await?;
    let before =
        scene.has("batch/v1", "Job", "migrate", json!({"metadata": {"annotations": {"gitseal.dev/wave": "-505"}}}));
    let before = before.await?["metadata"]["uid"].clone();
    scene
        .sync_when("app", "the hook", |_, ready| {
            ready.reason == "WaitingForHealth" && ready.message.contains("charts/web/templates/migrate.yaml:1")
        })
        .await?;
    assert!(scene.get("v1", "ConfigMap", "app-map").await?.is_none());
    completes(&scene, "migrate").await?;
    scene.is_applied("app", &first).await?;
    is_value(&scene, "app-map", "info").await?;
    for left_out in ["test", "bye"] {
        assert!(scene.get("batch/v1", "Job", left_out).await?.is_none(), "{left_out}");
    }
    // A change of a value that only other objects use does not run the Job again; a change of a value that the Job uses
    // does.
    scene.sync("app", "./charts/web", json!({"helm": {"values": {"tag": "1", "level": "warn"}}})).await?;
    is_value(&scene, "app-map", "warn").await?;
    let uid = |job: Option<serde_json::Value>| job.map(|job| job["metadata"]["uid"].clone());
    assert_eq!(uid(scene.get("batch/v1", "Job", "migrate").await?), Some(before.clone()));
    scene.sync("app", "./charts/web", with("2")).await?;
    eventually("the hook to run again", || async {
        let now = uid(scene.get("batch/v1", "Job", "migrate").await?).context("no Job")?;
        ensure!(now != before, "the same Job");
        Ok(())
    })
    .await?;
    completes(&scene, "migrate").await?;
    scene.is_ready("app").await.map(drop)
}

#[tokio::test]
async fn hooks_that_succeeded_are_deleted_and_run_again_only_when_one_of_them_changes() -> Result<()> {
    let scene = Scene::new("hook-policies").await?;
    let hook = |kind: &str, name: &str, event: &str, weight: i32, rest: &str| {
        format!(
            "apiVersion: {kind}\nmetadata:\n  name: {name}\n  annotations:\n    helm.sh/hook: {event}\n    helm.sh/hook-weight: \
             '{weight}'\n    helm.sh/hook-delete-policy: before-hook-creation,hook-succeeded\n{rest}"
        )
    };
    let job = |name: &str, event: &str| {
        let spec = format!(
            "spec:\n  managedBy: example.com/nobody\n  template:\n    spec:\n      restartPolicy: Never\n      containers: \
             [{{name: c, image: 'example.invalid/c:{{{{ .Values.{name} }}}}', envFrom: [{{secretRef: {{name: db}}}}]}}]\n"
        );
        hook("batch/v1\nkind: Job", name, event, 5, &spec)
    };
    let account = hook("v1\nkind: ServiceAccount", "migrator", "pre-install,pre-upgrade", -5, "");
    let (migrate, seed) = (job("migrate", "pre-install,pre-upgrade"), job("seed", "post-install,post-upgrade"));
    // The Secret of the hooks is an object of the chart that is no hook.
    let sealed = sealed_secret("db", &scene.seal("db", b"Of-The-Hooks-1").await?);
    write_chart(
        &scene,
        &[("map", MAP), ("account", &account), ("migrate", &migrate), ("seed", &seed), ("db", &sealed)],
    )?;
    let first = scene.publish("a chart with hooks").await?;
    let with = |migrate: &str, level: &str| json!({"timeout": "1h", "helm": {"values": {"migrate": migrate, "seed": "1", "level": level}}});
    scene.sync("app", "./charts/web", with("1", "info")).await?;
    let is_there = async |kind: &str, name: &str| -> Result<bool> {
        let version = if kind == "Job" { "batch/v1" } else { "v1" };
        Ok(scene.get(version, kind, name).await?.is_some())
    };
    scene.has("batch/v1", "Job", "migrate", json!({})).await?;
    scene.has("v1", "Secret", "db", json!({})).await?;
    ensure!(is_there("ServiceAccount", "migrator").await? && !is_there("ConfigMap", "app-map").await?);
    completes(&scene, "migrate").await?;

    // All hooks that run before the other objects are deleted when all of them have succeeded.
    is_value(&scene, "app-map", "info").await?;
    scene.is_gone("batch/v1", "Job", "migrate").await?;
    scene.is_gone("v1", "ServiceAccount", "migrator").await?;
    scene.has("batch/v1", "Job", "seed", json!({})).await?;
    completes(&scene, "seed").await?;
    scene.is_applied("app", &first).await?;
    scene.is_gone("batch/v1", "Job", "seed").await?;
    event(&scene, "app", "Finished", &["Job", "seed"]).await?;
    let done = async || -> Result<usize> {
        let status = scene.api::<Sync>().get("app").await?.status.unwrap_or_default();
        Ok(status.inventory.iter().filter(|entry| entry.d == Some(crds::Deletion::Done)).count())
    };
    assert_eq!(done().await?, 3);

    // Nothing runs again: not at a request, at a change of another object, or at a heal of one.
    let token = scene.request::<Sync>("app").await?;
    scene
        .sync_when("app", "the request", |sync, _| {
            sync.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_ref()) == Some(&token)
        })
        .await?;
    scene.sync("app", "./charts/web", with("1", "warn")).await?;
    is_value(&scene, "app-map", "warn").await?;
    change_by_hand(&scene, "app-map").await?;
    is_value(&scene, "app-map", "warn").await?;
    scene.is_ready("app").await?;
    for (kind, name) in [("Job", "migrate"), ("Job", "seed"), ("ServiceAccount", "migrator")] {
        ensure!(!is_there(kind, name).await?, "{kind} {name}");
    }

    // The Job changes, and needs its service account again. The later hook does not run.
    scene.sync("app", "./charts/web", with("2", "warn")).await?;
    scene.has("batch/v1", "Job", "migrate", json!({})).await?;
    ensure!(is_there("ServiceAccount", "migrator").await?);
    completes(&scene, "migrate").await?;
    scene.is_ready("app").await?;
    scene.is_gone("batch/v1", "Job", "migrate").await?;
    scene.is_gone("v1", "ServiceAccount", "migrator").await?;
    ensure!(!is_there("Job", "seed").await?);
    assert_eq!(done().await?, 3);

    // Hooks that leave the chart leave the inventory, and need no confirmation.
    for name in ["account", "migrate", "seed"] {
        std::fs::remove_file(scene.tree.path().join(format!("charts/web/templates/{name}.yaml")))?;
    }
    let last = scene.publish("no hooks").await?;
    scene.is_applied("app", &last).await?;
    assert_eq!(done().await?, 0);
    Ok(())
}

/// A chart with hooks for its deletion: an account and a Job before it, and a Job after it.
async fn chart_with_delete_hooks(scene: &Scene) -> Result<()> {
    let job = |name: &str, event: &str, weight: i32| {
        format!(
            "apiVersion: batch/v1\nkind: Job\nmetadata:\n  name: {name}\n  annotations: {{helm.sh/hook: {event}, \
             helm.sh/hook-weight: '{weight}'}}\nspec:\n  managedBy: example.com/nobody\n  template:\n    spec:\n      \
             restartPolicy: Never\n      containers: [{{name: c, image: example.invalid/c}}]\n"
        )
    };
    let account = "apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: keeper, annotations: {helm.sh/hook: pre-delete, \
                   helm.sh/hook-weight: '-5'}}\n";
    let (backup, clean) = (job("backup", "pre-delete", 5), job("clean", "post-delete", 0));
    write_chart(scene, &[("map", MAP), ("account", account), ("backup", &backup), ("clean", &clean)])?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"helm": {}})).await?;
    scene.is_applied("app", &first).await?;
    for (version, kind, name) in
        [("batch/v1", "Job", "backup"), ("batch/v1", "Job", "clean"), ("v1", "ServiceAccount", "keeper")]
    {
        ensure!(scene.get(version, kind, name).await?.is_none(), "{kind} {name}");
    }
    Ok(())
}

#[tokio::test]
async fn hooks_for_the_deletion_run_before_and_after_it() -> Result<()> {
    let scene = Scene::new("hooks-on-delete").await?;
    chart_with_delete_hooks(&scene).await?;
    scene.api::<Sync>().delete("app", &DeleteParams::default()).await?;
    scene.has("batch/v1", "Job", "backup", json!({})).await?;
    scene.has("v1", "ServiceAccount", "keeper", json!({})).await?;
    scene.sync_when("app", "the hook", |_, ready| ready.reason == "DeleteHooksRunning").await?;
    is_value(&scene, "app-map", "info").await?;
    completes(&scene, "backup").await?;

    scene.has("batch/v1", "Job", "clean", json!({})).await?;
    for (version, kind, name) in
        [("v1", "ConfigMap", "app-map"), ("batch/v1", "Job", "backup"), ("v1", "ServiceAccount", "keeper")]
    {
        scene.is_gone(version, kind, name).await?;
    }
    completes(&scene, "clean").await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    scene.is_gone("batch/v1", "Job", "clean").await
}

#[tokio::test]
async fn a_hook_that_fails_keeps_a_sync_until_it_is_skipped() -> Result<()> {
    let scene = Scene::new("hook-fails").await?;
    chart_with_delete_hooks(&scene).await?;
    scene.api::<Sync>().delete("app", &DeleteParams::default()).await?;
    scene.has("batch/v1", "Job", "backup", json!({})).await?;
    fails(&scene, "backup").await?;
    let message = scene.is_not_ready("app", "DeleteHookFailed").await?;
    ensure!(message.contains("backup") && message.contains("gitseal.dev/delete-hooks=skip"), "{message}");
    is_value(&scene, "app-map", "info").await?;
    scene.annotate::<Sync>("app", crds::names::DELETE_HOOKS, crds::names::DELETE_HOOKS_SKIP).await?;
    scene.is_gone("gitseal.dev/v1alpha1", "Sync", "app").await?;
    for (version, kind, name) in
        [("v1", "ConfigMap", "app-map"), ("batch/v1", "Job", "backup"), ("v1", "ServiceAccount", "keeper")]
    {
        scene.is_gone(version, kind, name).await?;
    }
    ensure!(scene.get("batch/v1", "Job", "clean").await?.is_none(), "the hooks are skipped");
    Ok(())
}

#[tokio::test]
async fn build_prints_what_the_controller_applies_for_a_sync() -> Result<()> {
    let scene = Scene::new("chart-build").await?;
    write_chart(&scene, &[("map", MAP), ("secret", SECRET)])?;
    scene.tree.write("secrets/values.yaml", sealed_file(&scene, "Of-The-Build-1", "Of-The-Build-2").await?)?;
    let values_from = json!([{"sealedSecret": "secrets/values.yaml", "path": "auth"}]);
    let spec = json!({"helm": {"releaseName": "blue", "valuesFrom": values_from, "values": {"level": "warn"}}});
    let sync = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": "app"},
        "spec": {"repository": {"name": "repo"}, "path": "./charts/web", "helm": spec["helm"]},
    });
    scene.tree.write("clusters/app.yaml", sync.to_string())?;
    let first = scene.publish("a chart and its Sync").await?;
    scene.sync("app", "./charts/web", spec).await?;
    scene.is_applied("app", &first).await?;
    let built = gitseal(&scene, &["build", "--sync", "clusters/app.yaml", "-o", "json"]).await?.is(0, &[])?;
    let built: serde_json::Value = serde_json::from_str(&built.out)?;
    for object in built["items"].as_array().context("a list")? {
        let text = |field: &str| object[field].as_str().context("a text");
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let mut wanted = object.clone();
        // The API server adds defaults to the metadata and removes what is null.
        wanted["metadata"] = json!({"name": name});
        scene.has(text("apiVersion")?, text("kind")?, name, wanted).await?;
    }
    assert_eq!(built["items"].as_array().map(Vec::len), Some(2), "{built}");
    let refused = ["build", "--sync", "clusters/app.yaml", "--set", "a=b"];
    gitseal(&scene, &refused).await?.is(2, &["--set cannot be used with --sync"])?;
    let none = gitseal(&scene, &["build", "--sync", "charts/web/values.yaml"]).await?;
    ensure!(none.code != Some(0), "{}", none.out);
    Ok(())
}

#[tokio::test]
async fn diff_renders_a_chart_as_its_sync_does() -> Result<()> {
    let scene = Scene::new("chart-diff").await?;
    write_chart(&scene, &[("map", MAP), ("secret", SECRET)])?;
    scene.tree.write("secrets/values.yaml", sealed_file(&scene, "Of-The-Diff-1", "Of-The-Diff-2").await?)?;
    let first = scene.publish("a chart").await?;
    let values_from = json!([{"sealedSecret": "secrets/values.yaml", "path": "auth"}]);
    scene.sync("app", "./charts/web", json!({"helm": {"valuesFrom": values_from, "values": {"size": 1}}})).await?;
    scene.is_applied("app", &first).await?;
    let diff = ["diff", "charts/web", "--sync", "app"];
    gitseal(&scene, &diff).await?.is(0, &[])?;
    scene.tree.write("charts/web/values.yaml", "level: warn\n")?;
    let said = gitseal(&scene, &diff).await?.is(1, &["app-map"])?;
    ensure!(said.out.contains("warn") && !said.out.contains("app-db"), "{}", said.out);
    // Without the Sync, it is not known how the chart is rendered.
    let said = gitseal(&scene, &diff[..2]).await?.is(2, &[])?;
    ensure!(said.err.contains("--sync"), "{}", said.err);
    // Without a path, the folder of the Sync is compared.
    gitseal(&scene, &["diff", "--sync", "app"]).await?.is(1, &["app-map"])?;
    gitseal(&scene, &["diff"]).await?.is(2, &["<PATH>"])?;
    Ok(())
}

/// A file with a Sync that renders the chart.
fn sync_file(name: &str, helm: &serde_json::Value) -> String {
    let spec = json!({"repository": {"name": "repo"}, "path": "./charts/web", "helm": helm});
    let sync = json!({
        "apiVersion": "gitseal.dev/v1alpha1", "kind": "Sync", "metadata": {"name": name}, "spec": spec,
    });
    sync.to_string()
}

#[tokio::test]
async fn diff_shows_what_a_change_of_a_sync_changes() -> Result<()> {
    let scene = Scene::new("chart-diff-file").await?;
    write_chart(&scene, &[("map", MAP), ("more", &MAP.replace("-map", "-{{ .Values.more }}"))])?;
    let first = scene.publish("a chart").await?;
    let helm = |level: &str, more: &str| json!({"values": {"level": level, "more": more}});
    scene.sync("app", "./charts/web", json!({"helm": helm("warn", "old")})).await?;
    scene.is_applied("app", &first).await?;
    let diff = ["diff", "--sync", "clusters/app.yaml"];
    scene.tree.write("clusters/app.yaml", sync_file("app", &helm("warn", "old")))?;
    gitseal(&scene, &diff).await?.is(0, &["2 unchanged"])?;
    scene.tree.write("clusters/app.yaml", sync_file("app", &helm("debug", "new")))?;
    let told =
        ["-  value: warn", "+  value: debug", "would be created ConfigMap", "app-new", "would be pruned ConfigMap"];
    gitseal(&scene, &diff).await?.is(1, &told)?;

    // A Sync that is not in the cluster yet.
    scene.tree.write("clusters/app.yaml", sync_file("next", &helm("warn", "old")))?;
    let told = ["next is not in the cluster yet", "next-map", "next-old", "2 would be created"];
    let said = gitseal(&scene, &diff).await?.is(1, &told)?;
    ensure!(!said.out.contains("app-"), "{}", said.out);
    Ok(())
}

#[tokio::test]
async fn an_object_of_a_chart_is_traced_to_its_template() -> Result<()> {
    let scene = Scene::new("chart-trace").await?;
    write_chart(&scene, &[("map", MAP), ("secret", SECRET)])?;
    scene.tree.write("secrets/values.yaml", sealed_file(&scene, "Of-The-Trace-1", "Of-The-Trace-2").await?)?;
    let first = scene.publish("a chart").await?;
    let values_from = json!([{"sealedSecret": "secrets/values.yaml", "path": "auth"}]);
    scene.sync("app", "./charts/web", json!({"helm": {"valuesFrom": values_from}})).await?;
    scene.is_applied("app", &first).await?;
    let commit = first.rsplit(':').next().context("a commit")?;
    let map = ["trace", "cm/app-map"];
    gitseal(&scene, &map).await?.is(0, &["File:         charts/web/templates/map.yaml:1", commit])?;
    let secret = gitseal(&scene, &["trace", "secret/app-db"]).await?;
    let told = secret.is(0, &["File:         charts/web/templates/secret.yaml:1", commit])?;
    ensure!(!told.out.contains("Of-The-Trace"), "{}", told.out);
    // The commit counts, not the working copy, which is changed here.
    scene.tree.write("charts/web/templates/map.yaml", "not: a manifest\n")?;
    gitseal(&scene, &map).await?.is(0, &["File:         charts/web/templates/map.yaml:1"])?;
    Ok(())
}

#[tokio::test]
async fn library_charts_subcharts_and_schemas_count_and_no_release_is_stored() -> Result<()> {
    let scene = Scene::new("chart-parts").await?;
    let map = "{{ include \"lib.map\" (dict \"name\" \"own\" \"value\" .Values.level) }}\n";
    write_chart(&scene, &[("map", map)])?;
    scene
        .tree
        .write("charts/web/values.schema.json", "{\"properties\": {\"level\": {\"enum\": [\"info\", \"debug\"]}}}")?;
    scene.tree.write("charts/web/values.yaml", "level: info\nsub: {level: of-the-parent}\n")?;
    let part = |path: &str, text: &str| scene.tree.write(&format!("charts/web/charts/{path}"), text);
    part("lib/Chart.yaml", "apiVersion: v2\nname: lib\nversion: 1.0.0\ntype: library\n")?;
    let define = "{{ define \"lib.map\" }}apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .name }}}\ndata: {value: {{ .value }}}\n{{ end }}";
    part("lib/templates/_map.tpl", define)?;
    part("sub/Chart.yaml", "apiVersion: v2\nname: sub\nversion: 1.0.0\n")?;
    part("sub/values.yaml", "level: of-the-subchart\n")?;
    part("sub/templates/map.yaml", &map.replace("\"own\"", "\"of-sub\""))?;
    let first = scene.publish("a chart with parts").await?;
    scene.sync("app", "./charts/web", json!({"helm": {"values": {"level": "loud"}}})).await?;
    let told = scene.is_not_ready("app", "BuildFailed").await?;
    ensure!(told.contains("level") && told.contains("schema"), "{told}");
    ensure!(scene.get("v1", "ConfigMap", "of-sub").await?.is_none(), "a part was applied");

    scene.sync("app", "./charts/web", json!({"helm": {"values": {"level": "debug"}}})).await?;
    scene.is_applied("app", &first).await?;
    is_value(&scene, "own", "debug").await?;
    is_value(&scene, "of-sub", "of-the-parent").await?;
    let secrets = scene.api::<Secret>().list(&kube::api::ListParams::default()).await?;
    ensure!(secrets.items.iter().all(|secret| secret.type_.as_deref() != Some("helm.sh/release.v1")), "{secrets:?}");
    Ok(())
}

#[tokio::test]
async fn a_kind_that_is_installed_later_renders_the_charts_that_ask_for_it() -> Result<()> {
    let (plane, _controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "kinds-later", ServerOptions::default()).await?;
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: seen}\ndata:\n  \
        value: \"{{ .Capabilities.APIVersions.Has \"later.example/v1/Gadget\" }}\"\n";
    write_chart(&scene, &[("map", template)])?;
    scene.repository(json!({})).await?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"helm": {}, "interval": "10s"})).await?;
    scene.is_applied("app", &first).await?;
    is_value(&scene, "seen", "false").await?;
    let schema = json!({"openAPIV3Schema": {"type": "object"}});
    let definition = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "gadgets.later.example"},
        "spec": {
            "group": "later.example", "scope": "Namespaced",
            "names": {"kind": "Gadget", "plural": "gadgets"},
            "versions": [{"name": "v1", "served": true, "storage": true, "schema": schema}],
        },
    });
    let definition: CustomResourceDefinition = serde_json::from_value(definition)?;
    Api::all(scene.client.clone()).create(&kube::api::PostParams::default(), &definition).await?;
    is_value(&scene, "seen", "true").await
}

#[tokio::test]
async fn hooks_of_the_installation_do_not_run_in_an_upgrade() -> Result<()> {
    let scene = Scene::new("only-once").await?;
    let hook = |name: &str, event: &str| {
        format!(
            "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: {name}\n  annotations: {{helm.sh/hook: {event}}}\n\
             data: {{value: \"{{{{ .Values.level }}}}\"}}\n"
        )
    };
    let (first_only, later_only) = (hook("first-only", "pre-install,post-install"), hook("later-only", "pre-upgrade"));
    write_chart(&scene, &[("first", first_only.as_str()), ("later", later_only.as_str()), ("map", MAP)])?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"helm": {"values": {"level": "one"}}})).await?;
    scene.is_applied("app", &first).await?;
    is_value(&scene, "first-only", "one").await?;
    ensure!(scene.get("v1", "ConfigMap", "later-only").await?.is_none(), "a hook for upgrades ran in the installation");

    scene.sync("app", "./charts/web", json!({"helm": {"values": {"level": "two"}}})).await?;
    is_value(&scene, "later-only", "two").await?;
    is_value(&scene, "app-map", "two").await?;
    scene.is_ready("app").await?;
    is_value(&scene, "first-only", "one").await
}
