//! Where sealed values may be in a chart, with values and templates that make this hard.

use anyhow::{Context as _, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use crds::Sync;
use harness::Scene;
use k8s_openapi::api::core::v1::Secret;
use sealing::Scope;
use serde_json::{Value, json};

use super::synced::write_chart;

/// A file with these sealed values, each at the root of the chart's values.
async fn sealed(scene: &Scene, values: &[(&str, &str)]) -> Result<String> {
    let mut sealed = String::new();
    for (name, value) in values {
        let value = scene.seal_for(Scope::NamespaceWide, "any", value.as_bytes()).await?;
        sealed += &format!("    {name}: {value}\n");
    }
    Ok(format!(
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: values, annotations: \
         {{sealedsecrets.bitnami.com/namespace-wide: 'true'}}}}\nspec:\n  encryptedData:\n{sealed}"
    ))
}

fn spec() -> Value {
    json!({"helm": {"valuesFrom": [{"sealedSecret": "secrets/values.yaml"}]}})
}

#[tokio::test]
async fn a_refusal_names_the_line_of_the_field_in_the_template() -> Result<()> {
    const VALUE: &str = "Placed-Wrongly-1";
    let scene = Scene::new("refused-fields").await?;
    let workload = |container: &str| {
        format!(
            "apiVersion: apps/v1\nkind: Deployment\nmetadata: {{name: web}}\nspec:\n  selector: {{matchLabels: {{app: web}}}}\n  \
             template:\n    metadata: {{labels: {{app: web}}}}\n    spec:\n      containers:\n        - name: web\n          \
             image: example.invalid/web:1\n{container}"
        )
    };
    let env = workload(
        "          env:\n            - name: LEVEL\n              value: {{ .Values.level | quote }}\n            - name: PASSWORD\n              \
         value: {{ .Values.password | quote }}\n",
    );
    let told = "charts/web/templates/env.yaml:16: Deployment web: spec.template.spec.containers[0].env[1].value contains the sealed value \
        password";
    write_chart(&scene, &[("env", &env)])?;
    scene.tree.write("secrets/values.yaml", sealed(&scene, &[("password", VALUE)]).await?)?;
    scene.publish("a value in an environment variable").await?;
    scene.sync("env", "./charts/web", spec()).await?;
    let message = scene.is_not_ready("env", "SealedValue").await?;
    ensure!(message.contains(told) && message.contains("existingSecret"), "{message}");
    Ok(())
}

#[tokio::test]
async fn what_a_template_computes_from_a_sealed_value_is_refused() -> Result<()> {
    let scene = Scene::new("computed-values").await?;
    let cases = [
        ("htpasswd", "{{ htpasswd \"me\" .Values.password }}", "no Secret of the chart contains password"),
        ("bcrypt", "{{ bcrypt .Values.password }}", "no Secret of the chart contains password"),
        ("sha256", "{{ sha256sum .Values.password }}", "no Secret of the chart contains password"),
        ("part", "{{ trunc 8 .Values.password }}", "no Secret of the chart contains password"),
        ("start", "{{ trunc 20 .Values.password }}", "stringData.a contains a sealed value that a template changed"),
        ("upper", "{{ upper .Values.password }}", "stringData.a contains a sealed value that a template changed"),
        (
            "twice",
            "{{ .Values.password | b64enc | b64enc }}",
            "stringData.a contains a sealed value that a template changed",
        ),
        (
            "derived",
            // The password may contain characters that mean something in YAML.
            "{{ derivePassword 1 \"long\" .Values.password \"me\" \"example.com\" | quote }}",
            "no Secret of the chart contains password",
        ),
    ];
    for (name, expression, _) in cases {
        let secret =
            format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData:\n  a: {expression}\n");
        scene.tree.write(&format!("charts/{name}/Chart.yaml"), "apiVersion: v2\nname: web\nversion: 1.0.0\n")?;
        scene.tree.write(&format!("charts/{name}/templates/secret.yaml"), secret)?;
    }
    scene.tree.write("secrets/values.yaml", sealed(&scene, &[("password", "Not-Computed-On-1")]).await?)?;
    scene.publish("computed values").await?;
    for (name, _, told) in cases {
        scene.sync(name, &format!("./charts/{name}"), spec()).await?;
        let message = scene.is_not_ready(name, "SealedValue").await.with_context(|| name.to_owned())?;
        ensure!(message.contains(told) && message.contains("b64enc"), "{name}: '{told}' is not in: {message}");
        ensure!(scene.get("v1", "Secret", name).await?.is_none(), "{name} is applied");
    }
    Ok(())
}

/// Values that a template or a parser could take for something else.
const HARD: [(&str, &str); 8] = [
    ("quotes", "it's \"Hard-To-Quote\""),
    ("backslashes", r"C:\new\table\0-Hard"),
    ("lines", "-----BEGIN HARD-----\nfirst: line\n\n  last\n"),
    ("braces", "{{ .Values.level }} {{- hard }}"),
    ("unicode", "pässwörd-漢字-🔑"),
    ("zeros", "0012345678"),
    ("spaces", "  hard: #value  "),
    ("percent", "%s%%-$HOME-`hard`-&<>"),
];

#[tokio::test]
async fn hard_values_reach_the_secret_byte_for_byte() -> Result<()> {
    let scene = Scene::new("hard-values").await?;
    let mut template = "apiVersion: v1\nkind: Secret\nmetadata: {name: hard}\ndata:\n".to_owned();
    for (name, _) in HARD {
        template += &format!(
            "  {name}.b64enc: {{{{ .Values.{name} | b64enc }}}}\n  {name}.both: {{{{ printf \"me:%s\" .Values.{name} | b64enc | quote }}}}\n"
        );
    }
    template += "stringData:\n";
    for (name, _) in HARD {
        template += &format!(
            "  {name}.quote: {{{{ .Values.{name} | quote }}}}\n  {name}.squote: {{{{ .Values.{name} | squote }}}}\n  {name}.plain: {{{{ \
             .Values.{name} }}}}\n  {name}.url: \"db://me:{{{{ .Values.{name} }}}}@db/?q={{{{ .Values.{name} }}}}\"\n  {name}.block: \
             |\n    token={{{{ .Values.{name} }}}}\n  {name}.auth: Basic {{{{ printf \"%s:%s\" .Values.{name} \"x\" | b64enc }}}}\n  {name}.json: \
             '{{\"a\": [\"{{{{ .Values.{name} }}}}\", {{{{ printf \"<%s>\" .Values.{name} | toJson }}}}]}}'\n  {name}.yaml: |\n    \
             a: {{{{ .Values.{name} | toJson }}}}\n    b: \"<{{{{ .Values.{name} }}}}>\"\n"
        );
    }
    template += "  {{- range $name, $value := .Values.all }}\n  {{ dict (print $name \".toYaml\") $value | toYaml }}\n  {{- end }}\n";
    write_chart(&scene, &[("hard", &template)])?;
    let at_two_places: Vec<_> = HARD.iter().map(|(name, value)| (format!("all.{name}"), *value)).collect();
    let values: Vec<_> =
        HARD.into_iter().chain(at_two_places.iter().map(|(name, value)| (name.as_str(), *value))).collect();
    scene.tree.write("secrets/values.yaml", sealed(&scene, &values).await?)?;
    let first = scene.publish("hard values").await?;
    scene.sync("app", "./charts/web", spec()).await?;
    scene.is_applied("app", &first).await?;
    let secret = scene.api::<Secret>().get("hard").await?;
    let found = |key: String| -> Result<String> {
        let value = secret.data.as_ref().and_then(|data| data.get(&key)).with_context(|| format!("no {key}"))?;
        Ok(String::from_utf8(value.0.clone())?)
    };
    for (name, value) in HARD {
        for way in ["b64enc", "quote", "squote", "plain", "toYaml"] {
            assert_eq!(found(format!("{name}.{way}"))?, value, "{name} {way}");
        }
        assert_eq!(found(format!("{name}.both"))?, format!("me:{value}"), "{name}");
        assert_eq!(found(format!("{name}.url"))?, format!("db://me:{value}@db/?q={value}"), "{name}");
        assert_eq!(found(format!("{name}.block"))?, format!("token={value}\n"), "{name}");
        assert_eq!(
            found(format!("{name}.auth"))?,
            format!("Basic {}", STANDARD.encode(format!("{value}:x"))),
            "{name}"
        );
        let json: Value = serde_json::from_str(&found(format!("{name}.json"))?)?;
        assert_eq!(json, json!({"a": [value, format!("<{value}>")]}), "{name}");
        let yaml = found(format!("{name}.yaml"))?;
        let yaml =
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a}}\ndata:\n  {}", yaml.replace('\n', "\n  "));
        let parsed = manifests::parse("a.yaml", yaml.as_bytes(), &manifests::Limits::default())?;
        assert_eq!(parsed[0].body["data"], json!({"a": value, "b": format!("<{value}>")}), "{name}");
    }
    Ok(())
}

#[tokio::test]
async fn a_value_that_would_break_a_file_in_yaml_is_refused() -> Result<()> {
    let scene = Scene::new("breaks-yaml").await?;
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: settings}\nstringData:\n  config.yaml: |\n    password: {{ .Values.password }}\n    \
        url: db://me:{{ .Values.password }}@db\n  config.txt: \"password: {{ .Values.password }}\"\n";
    write_chart(&scene, &[("secret", secret)])?;
    let commit = async |password: &str| -> Result<String> {
        scene.tree.write("secrets/values.yaml", sealed(&scene, &[("password", password)]).await?)?;
        scene.publish("another password").await
    };
    let first = commit("Harmless!in#plain&YAML").await?;
    scene.sync("app", "./charts/web", spec()).await?;
    scene.is_applied("app", &first).await?;
    let config = async || -> Result<String> {
        let secret = scene.api::<Secret>().get("settings").await?;
        Ok(String::from_utf8(secret.data.context("data")?["config.yaml"].0.clone())?)
    };
    let expected = "password: Harmless!in#plain&YAML\nurl: db://me:Harmless!in#plain&YAML@db\n";
    assert_eq!(config().await?, expected);
    for wrong in ["its-a 'quote'", "two: parts of it", "007-Leading", "line-one\nline-two", "#-no-value"] {
        let revision = commit(wrong).await?;
        let tried = |sync: &Sync| sync.status.as_ref().and_then(|status| status.last_attempted_revision.clone());
        let fails = |sync: &Sync, ready: &crds::Condition| {
            ready.reason == "UnsealFailed" && tried(sync) == Some(revision.clone())
        };
        let sync = scene.sync_when("app", wrong, fails).await?;
        let status = sync.status.unwrap_or_default();
        let message =
            crds::find_condition(&status.conditions, "Ready").map(|ready| ready.message.clone()).unwrap_or_default();
        ensure!(message.contains("a template fails with the unsealed values"), "{message}");
        ensure!(message.contains("charts/web/templates/secret.yaml:1"), "{message}");
        assert_eq!(config().await?, expected, "{wrong}");
    }
    let last = commit("Harmless-Again-2").await?;
    scene.is_applied("app", &last).await.map(drop)
}
