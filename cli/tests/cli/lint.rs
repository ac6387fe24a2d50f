//! `gitseal lint` and `gitseal test`, without a cluster.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::Value;

use crate::{gitseal_in, stderr, stdout, workplace::write};

pub(crate) fn sync(name: &str, path: &str, rest: &str) -> String {
    format!(
        "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  repository: {{name: \
         fleet}}\n  path: {path}\n{rest}"
    )
}

pub(crate) const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  selector: \
    {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, image: web}]}\n";

/// A repository with an application in three ways: a kustomization with two overlays, a chart, and plain files.
pub(crate) fn fleet() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path();
    fs::create_dir(root.join(".git")).unwrap();
    write(root, "apps/base/kustomization.yaml", "resources: [web.yaml]\n");
    write(root, "apps/base/web.yaml", DEPLOYMENT);
    for cluster in ["staging", "production"] {
        let overlay = format!("resources: [../base]\nnameSuffix: -{cluster}\n");
        write(root, &format!("apps/{cluster}/kustomization.yaml"), &overlay);
        let path = format!("clusters/{cluster}/web.yaml");
        write(root, &path, &sync("web", &format!("apps/{cluster}"), ""));
    }
    write(root, "charts/cache/Chart.yaml", "apiVersion: v2\nname: cache\nversion: 1.0.0\n");
    write(root, "charts/cache/values.yaml", "size: 1\n");
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cache}\ndata: {size: {{ .Values.size | quote }}, kubernetes: {{ \
        .Capabilities.KubeVersion.Minor | quote }}}\n";
    write(root, "charts/cache/templates/map.yaml", template);
    write(root, "clusters/production/cache.yaml", &sync("cache", "charts/cache", "  helm: {values: {size: 3}}\n"));
    folder
}

/// The problems that `gitseal lint` found, as `file:line check field: message`.
pub(crate) fn problems(root: &Path, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let output = gitseal_in(root, &[&["lint", "-o", "json"], arguments].concat());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| panic!("{}", stderr(&output)));
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let lines = report["problems"].as_array().unwrap().iter().map(|one| {
        let [file, check, field, message] = ["file", "check", "field", "message"].map(|field| text(&one[field]));
        format!("{file}:{} {check} {field}: {message}", one["line"])
    });
    (output.status.code(), lines.collect())
}

#[test]
fn everything_that_syncs_apply_is_checked() {
    let folder = fleet();
    let root = folder.path();
    assert_eq!(problems(root, &[]), (Some(0), vec![]));
    let output = gitseal_in(root, &["lint", "--kubernetes", "1.35,1.36"]);
    assert_eq!((output.status.code(), stdout(&output)), (Some(0), String::new()));
    assert!(
        stderr(&output).contains("3 objects of 3 Syncs, Kubernetes 1.35, 1.36: 0 errors, 0 warnings"),
        "{}",
        stderr(&output)
    );

    // A mistake in the base is reported once, in the file of the base, although two overlays use it.
    write(root, "apps/base/web.yaml", &DEPLOYMENT.replace("replicas", "replica"));
    let mistake = "apps/base/web.yaml:1 unknown-field spec.replica: the kind has no such field; did you mean replicas?";
    assert_eq!(problems(root, &[]), (Some(1), vec![mistake.to_owned()]));
    assert_eq!(problems(root, &["clusters/production"]), (Some(1), vec![mistake.to_owned()]));
    write(root, "apps/base/web.yaml", DEPLOYMENT);

    // For an object of a chart, the problem names the template.
    write(
        root,
        "charts/cache/templates/old.yaml",
        "apiVersion: policy/v1beta1\nkind: PodDisruptionBudget\nmetadata: {name: a}\n",
    );
    let old = "charts/cache/templates/old.yaml:1 not-served : policy/v1beta1 PodDisruptionBudget is not served since Kubernetes \
        1.25; use policy/v1 PodDisruptionBudget";
    assert_eq!(problems(root, &[]), (Some(1), vec![old.to_owned()]));
    assert_eq!(problems(root, &["clusters/staging"]), (Some(0), vec![]));
    fs::remove_file(root.join("charts/cache/templates/old.yaml")).unwrap();

    // Three problems: an object that the controller refuses, a Sync with a mistake, and a folder that cannot be
    // rendered.
    write(
        root,
        "apps/plain/secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: hunter2}\n",
    );
    write(root, "clusters/staging/plain.yaml", &sync("plain", "apps/plain", "  prunes: true\n"));
    write(root, "clusters/staging/gone.yaml", &sync("gone", "apps/gone", ""));
    write(
        root,
        "clusters/staging/wrong.yaml",
        "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {name: wrong}\nspec: {path: a}\n",
    );
    let (code, found) = problems(root, &[]);
    assert_eq!(code, Some(1));
    let starts = [
        "apps/plain/secret.yaml:1 refused : Secret a is a plaintext Secret in Git",
        "clusters/staging/gone.yaml:1 not-rendered : cannot read ",
        "clusters/staging/plain.yaml:1 unknown-field spec.prunes: the kind has no such field; did you mean prune?",
        "clusters/staging/wrong.yaml:1 invalid-sync : the Sync is not valid: missing field `repository`",
    ];
    assert_eq!(found.len(), starts.len(), "{found:?}");
    for (line, start) in found.iter().zip(starts) {
        assert!(line.starts_with(start), "{line}");
        assert!(!line.contains("hunter2"), "{line}");
    }
}

#[test]
fn each_version_has_its_own_kinds_and_templates() {
    let folder = fleet();
    let root = folder.path();
    let object =
        "apiVersion: storage.k8s.io/v1beta1\nkind: VolumeAttributesClass\nmetadata: {name: fast}\ndriverName: a\n";
    write(root, "apps/plain/class.yaml", object);
    write(root, "clusters/production/plain.yaml", &sync("plain", "apps/plain", ""));
    let output = gitseal_in(root, &["lint", "--kubernetes", "1.33,1.36,1.37"]);
    let kind = "VolumeAttributesClass fast: storage.k8s.io/v1beta1 VolumeAttributesClass";
    let instead = "use storage.k8s.io/v1 VolumeAttributesClass";
    let expected = format!(
        "apps/plain/class.yaml:1: error: {kind} is not served since Kubernetes 1.37; {instead} (not-served; Kubernetes 1.37; Sync shop/plain)\n\
         apps/plain/class.yaml:1: warning: {kind} is deprecated since Kubernetes 1.34, and not served from 1.37 on; {instead} \
         (deprecated; Kubernetes 1.36; Sync shop/plain)\n"
    );
    assert_eq!((output.status.code(), String::from_utf8(output.stdout.clone()).unwrap()), (Some(1), expected));
    let older = gitseal_in(root, &["lint", "--kubernetes", "1.36"]);
    assert_eq!(older.status.code(), Some(0), "a warning is no error: {}", stderr(&older));
    // Templates see the version of Kubernetes that is checked.
    let template = "{{ if eq .Capabilities.KubeVersion.Minor \"36\" }}{{ fail \"not on 1.36\" }}{{ end }}\n";
    write(root, "charts/cache/templates/fail.yaml", template);
    let (_, found) = problems(root, &["--kubernetes", "1.35,1.36"]);
    assert!(found.iter().any(|line| line.contains("not-rendered") && line.contains("not on 1.36")), "{found:?}");
    assert_eq!(problems(root, &["--kubernetes", "1.35"]).0, Some(0));
    let unknown = gitseal_in(root, &["lint", "--kubernetes", "1.9"]);
    assert_eq!(unknown.status.code(), Some(2));
    assert!(stderr(&unknown).contains("the known versions are 1.31 to"), "{}", stderr(&unknown));
}

#[test]
fn definitions_in_the_repository_check_their_kinds() {
    let folder = fleet();
    let root = folder.path();
    write(
        root,
        "apps/plain/widget.yaml",
        "apiVersion: example.org/v1\nkind: Widget\nmetadata: {name: a}\nspec: {size: big}\n",
    );
    write(root, "clusters/production/plain.yaml", &sync("plain", "apps/plain", ""));
    let output = gitseal_in(root, &["lint"]);
    assert_eq!(output.status.code(), Some(0));
    let said = "apps/plain/widget.yaml:1: example.org/v1 Widget is not checked";
    assert!(stderr(&output).contains(said), "{}", stderr(&output));
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: widgets.example.org}\nspec: \
        {group: example.org, scope: Namespaced, names: {kind: Widget, plural: widgets}, versions: [{name: v1, served: true, storage: \
        true, schema: {openAPIV3Schema: {type: object, properties: {spec: {type: object, properties: {size: {type: integer}}}}}}}]}\n";
    // A CustomResourceDefinition may be anywhere in the repository, also in a folder that no Sync applies.
    write(root, "infrastructure/crds.yaml", definition);
    let wrong = "apps/plain/widget.yaml:1 wrong-value spec.size: the field must be a whole number, and is a text; write it without \
        quotes";
    assert_eq!(problems(root, &[]), (Some(1), vec![wrong.to_owned()]));
}

#[test]
fn each_cluster_may_have_its_own_definition_of_a_kind() {
    let folder = fleet();
    let root = folder.path();
    let definition = |size: &str| {
        format!(
            "# of one cluster\napiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {{name: \
             widgets.example.org}}\nspec: {{group: example.org, scope: Namespaced, names: {{kind: Widget, plural: widgets}}, \
             versions: [{{name: v1, served: true, storage: true, schema: {{openAPIV3Schema: {{type: object, properties: {{spec: \
             {{type: object, properties: {{size: {{type: {size}}}}}}}}}}}}}}}]}}\n"
        )
    };
    let widget = |size: &str| {
        format!("apiVersion: example.org/v1\nkind: Widget\nmetadata: {{name: a}}\nspec: {{size: {size}}}\n")
    };
    // One Sync applies the definition together with the object, the other one only a Sync beside it.
    write(root, "apps/widgets-staging/definition.yaml", &definition("integer"));
    write(root, "apps/widgets-staging/widget.yaml", &widget("3"));
    write(root, "clusters/staging/widgets.yaml", &sync("widgets", "apps/widgets-staging", ""));
    write(root, "crds/production/widgets.yaml", &definition("string"));
    write(root, "clusters/production/crds.yaml", &sync("crds", "crds/production", ""));
    write(root, "apps/widgets-production/widget.yaml", &widget("big"));
    write(root, "clusters/production/widgets.yaml", &sync("widgets", "apps/widgets-production", ""));
    assert_eq!(problems(root, &[]), (Some(0), vec![]));
    write(root, "apps/widgets-production/widget.yaml", &widget("3"));
    let wrong = "apps/widgets-production/widget.yaml:1 wrong-value spec.size: the field must be a text, and is a number; quote it";
    assert_eq!(problems(root, &[]), (Some(1), vec![wrong.to_owned()]));

    // If no Sync beside it applies a definition, what only some of them allow is a warning that names them.
    write(root, "edge/widgets.yaml", &sync("edge", "apps/edge", ""));
    write(root, "apps/widgets-production/widget.yaml", &widget("big"));
    write(root, "apps/edge/widget.yaml", &widget("big"));
    let (code, found) = problems(root, &[]);
    assert_eq!((code, found.len()), (Some(0), 1), "{found:?}");
    let start =
        "apps/edge/widget.yaml:1 several-definitions spec.size: the field must be a whole number, and is a text";
    assert!(found[0].starts_with(start), "{found:?}");
    for place in ["in apps/widgets-staging/definition.yaml:2", "but not by the one in crds/production/widgets.yaml:2"] {
        assert!(found[0].contains(place), "{found:?}");
    }
    write(root, "apps/edge/widget.yaml", &widget("[]"));
    let (code, found) = problems(root, &[]);
    assert_eq!(code, Some(1));
    assert!(found[0].starts_with("apps/edge/widget.yaml:1 wrong-value spec.size: "), "{found:?}");
}

#[test]
fn what_is_in_sealed_secrets_is_checked() {
    let folder = fleet();
    let root = folder.path();
    // As from a key of 2048 bits; nothing can be unsealed here.
    let sealed = STANDARD.encode([&[1, 0][..], &[7; 300]].concat());
    let secret = |annotation: &str, data: &str, rest: &str| {
        format!(
            "# the database\napiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata:\n  name: db\n  annotations:\n    \
             {annotation}: 'true'\nspec:\n  encryptedData:\n    password: {sealed}\n{data}{rest}"
        )
    };
    let wide = "sealedsecrets.bitnami.com/namespace-wide";
    write(root, "clusters/staging/db.yaml", &sync("db", "apps/db", "  targetNamespace: data\n"));
    let with = |text: &str| {
        write(root, "apps/db/db.yaml", text);
        problems(root, &[])
    };
    assert_eq!(with(&secret(wide, "", "")), (Some(0), vec![]));
    let cut = &sealed[..200];
    let cases = [
        (
            secret(wide, "    token: hunter2-plain\n", ""),
            11,
            "encryptedData.token: not base64: this is not a sealed value",
        ),
        (
            secret(wide, "    token: aHVudGVyMg==\n", ""),
            11,
            "encryptedData.token: base64, but neither an RSA nor an age",
        ),
        (secret(wide, &format!("    token: {cut}\n"), ""), 11, "encryptedData.token: cut off"),
        (secret(wide, &format!("    'a b': {sealed}\n"), ""), 11, "encryptedData has a key that"),
        (secret(wide, "", "").replace("'true'", "'yes'"), 7, "sealedsecrets.bitnami.com/namespace-wide is neither"),
        (
            secret(wide, "", "  template:\n    data:\n      url: '{{ .password | nothing }}'\n"),
            13,
            "template.data.url is a template",
        ),
        (
            secret(wide, "", "  template:\n    type: kubernetes.io/tls\n"),
            12,
            "a Secret of the type kubernetes.io/tls needs",
        ),
    ];
    for (text, line, said) in cases {
        let (code, found) = with(&text);
        let start = format!("apps/db/db.yaml:{line} sealed-secret : {said}");
        assert!(code == Some(1) && found[0].starts_with(&start), "{start}: {found:?}");
        assert!(!found[0].contains("hunter2"), "{found:?}");
    }

    // A kustomization that only renames it changes neither the problem nor its line. If a patch changes the values, the
    // problem has the place of the object.
    let plain = secret(wide, "    token: hunter2\n", "");
    write(root, "apps/db/db.yaml", &plain);
    write(root, "apps/db/kustomization.yaml", "resources: [db.yaml]\nnamePrefix: p-\n");
    let (_, found) = problems(root, &[]);
    assert!(
        found.len() == 1 && found[0].starts_with("apps/db/db.yaml:11 sealed-secret : encryptedData.token"),
        "{found:?}"
    );
    let patch = "patches: [{target: {kind: SealedSecret}, patch: '[{\"op\": \"add\", \"path\": \"/spec/encryptedData/other\", \
        \"value\": \"hunter2\"}]'}]\n";
    write(root, "apps/db/kustomization.yaml", &format!("resources: [db.yaml]\n{patch}"));
    let (_, found) = problems(root, &[]);
    let messages: Vec<_> = found.iter().map(|line| line.split(": not").next().unwrap()).collect();
    let at = |key: &str| format!("apps/db/db.yaml:2 sealed-secret : encryptedData.{key}");
    assert_eq!(messages, [at("other"), at("token")]);
}

#[test]
fn annotations_of_gitseal_are_known() {
    let folder = fleet();
    let root = folder.path();
    let object = |annotation: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, annotations: {{{annotation}}}}}\n")
    };
    write(root, "clusters/staging/map.yaml", &sync("map", "apps/map", ""));
    for known in ["substitute: disabled", "delete-when: healthy", "on-delete: before", "wave: '1'"] {
        write(root, "apps/map/map.yaml", &object(&format!("gitseal.dev/{known}")));
        assert_eq!(problems(root, &[]), (Some(0), vec![]), "{known}");
    }
    write(root, "apps/map/map.yaml", &object("gitseal.dev/substitute: nothing"));
    let (_, found) = problems(root, &[]);
    assert!(found[0].contains("the value has no effect; use \"disabled\""), "{found:?}");
}

#[test]
fn a_sync_that_another_sync_changes_counts_as_changed() {
    let folder = fleet();
    let root = folder.path();
    write(root, "clusters/base/app.yaml", &sync("app", "apps/nowhere", ""));
    write(root, "clusters/base/kustomization.yaml", "resources: [app.yaml]\n");
    let patch = "resources: [../base]\npatches: [{target: {kind: Sync}, patch: '[{\"op\": \"replace\", \"path\": \"/spec/path\", \"value\": \"apps/staging\"}]'}]\n";
    write(root, "clusters/patched/kustomization.yaml", patch);
    write(root, "root.yaml", &sync("root", "clusters/patched", ""));
    assert_eq!(problems(root, &[]), (Some(0), vec![]));
    assert_eq!(problems(root, &["--kubernetes", "1.35,1.36"]), (Some(0), vec![]));
}

#[test]
fn a_sync_of_a_registry_or_chart_repository_is_named_and_left_out() {
    let folder = fleet();
    let root = folder.path();
    let of_chart = sync("podinfo", "./", "  helm: {}\n").replace("name: fleet", "name: podinfo");
    let with = |spec: &str| {
        let head = "apiVersion: gitseal.dev/v1alpha1\nkind: Repository\nmetadata: {name: podinfo, namespace: shop}\n";
        write(root, "clusters/staging/podinfo.yaml", &format!("{head}spec: {spec}\n---\n{of_chart}"));
        gitseal_in(root, &["lint"])
    };
    for spec in [
        "{url: 'oci://registry.example/podinfo', ref: {tag: 1.0.0}}",
        "{url: 'https://charts.example/stable', chart: podinfo}",
    ] {
        let output = with(spec);
        assert_eq!((output.status.code(), stdout(&output)), (Some(0), String::new()));
        assert!(stderr(&output).contains("1 Sync was not rendered: shop/podinfo"), "{}", stderr(&output));
        let file = root.join("clusters/staging/podinfo.yaml");
        let built = gitseal_in(root, &["build", "--sync", file.to_str().unwrap()]);
        assert!(!built.status.success());
        let said = stderr(&built);
        assert!(said.contains("what Sync shop/podinfo applies is in ") && said.contains("helm pull "), "{said}");
        // Even if this is the only Sync, neither command says that there are no Syncs.
        for command in ["lint", "test"] {
            let output = gitseal_in(root, &[command, "clusters/staging/podinfo.yaml"]);
            assert!(!stderr(&output).contains("no files of Syncs"), "{command}: {}", stderr(&output));
        }
    }
    let output = with("{url: 'https://charts.example/stable', chart: ../podinfo}");
    assert_eq!(output.status.code(), Some(1), "{}", stderr(&output));
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(told.contains("spec.chart"), "{told}");
}

#[test]
fn a_folder_without_syncs_is_checked_as_it_is() {
    let folder = tempfile::tempdir().unwrap();
    write(folder.path(), "web.yaml", &DEPLOYMENT.replace("image: web", "image: 5"));
    let wrong = "spec.template.spec.containers[0].image: the field must be a text, and is a number; quote it";
    let (code, found) = problems(folder.path(), &[]);
    assert_eq!(code, Some(1));
    assert!(found[0].ends_with(wrong), "{found:?}");
    let output = gitseal_in(folder.path(), &["lint", "nowhere"]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn golden_files_show_what_a_change_does_to_each_sync() {
    let folder = fleet();
    let root = folder.path();
    let missing = gitseal_in(root, &["test"]);
    assert_eq!(missing.status.code(), Some(1));
    let text = String::from_utf8(missing.stdout.clone()).unwrap();
    assert!(text.contains(".gitseal/golden/clusters/production/shop.web.yaml"), "{text}");
    assert!(!root.join(".gitseal").exists(), "only --update writes");

    stdout(&gitseal_in(root, &["test", "--update"]));
    stdout(&gitseal_in(root, &["test"]));
    let golden = |path: &str| fs::read_to_string(root.join(".gitseal/golden").join(path)).unwrap();
    let built = stdout(&gitseal_in(root, &["build", "--sync", "clusters/production/web.yaml"]));
    assert_eq!(golden("clusters/production/shop.web.yaml"), built, "it is what gitseal build prints");
    assert!(
        golden("clusters/production/shop.cache.yaml").contains("size: \"3\""),
        "{}",
        golden("clusters/production/shop.cache.yaml")
    );

    write(root, "apps/base/web.yaml", &DEPLOYMENT.replace("replicas: 1", "replicas: 2"));
    let changed = gitseal_in(root, &["test"]);
    assert_eq!(changed.status.code(), Some(1));
    let text = String::from_utf8(changed.stdout.clone()).unwrap();
    assert!(text.contains("-  replicas: 1") && text.contains("+  replicas: 2"), "{text}");
    assert!(text.contains("staging/shop.web.yaml") && text.contains("production/shop.web.yaml"), "{text}");
    assert!(!text.contains("cache"), "{text}");
    // `gitseal test` can be run for a part of the repository.
    let part = gitseal_in(root, &["test", "clusters/staging", "--update"]);
    assert!(stderr(&part).contains("1 Sync in"), "{}", stderr(&part));
    assert!(golden("clusters/staging/shop.web.yaml").contains("replicas: 2"));
    assert!(golden("clusters/production/shop.web.yaml").contains("replicas: 1"));

    fs::remove_file(root.join("clusters/production/cache.yaml")).unwrap();
    let left = gitseal_in(root, &["test"]);
    let text = String::from_utf8(left.stdout.clone()).unwrap();
    assert!(text.contains("left over") && text.contains("shop.cache.yaml: no Sync applies it"), "{text}");
    stdout(&gitseal_in(root, &["test", "--update"]));
    assert!(!root.join(".gitseal/golden/clusters/production/shop.cache.yaml").exists());
    // `gitseal lint` does not read the golden files as manifests of the repository.
    assert_eq!(problems(root, &[]), (Some(0), vec![]));
    stdout(&gitseal_in(root, &["test"]));
}

#[test]
fn a_folder_that_would_be_refused_has_no_golden_file() {
    let folder = fleet();
    let root = folder.path();
    write(
        root,
        "apps/plain/secret.yaml",
        "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringData: {password: hunter2}\n",
    );
    write(root, "clusters/staging/plain.yaml", &sync("plain", "apps/plain", ""));
    let refused = gitseal_in(root, &["test", "--update"]);
    assert_eq!(refused.status.code(), Some(2));
    assert!(
        stderr(&refused).contains("plaintext Secret") && !stderr(&refused).contains("hunter2"),
        "{}",
        stderr(&refused)
    );
    assert!(!root.join(".gitseal").exists());
    let empty = tempfile::tempdir().unwrap();
    assert_eq!(gitseal_in(empty.path(), &["test"]).status.code(), Some(2));
}

#[test]
fn a_hostile_repository_leads_to_no_file_outside_of_it() {
    let outside = tempfile::tempdir().unwrap();
    write(outside.path(), "secret/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: outside}\n");
    let folder = fleet();
    let root = folder.path();
    let up = format!("../{}/secret", outside.path().file_name().unwrap().to_str().unwrap());
    for (link, path) in [(None, up.as_str()), (Some("apps/link"), "apps/link")] {
        if let Some(link) = link {
            std::os::unix::fs::symlink(outside.path().join("secret"), root.join(link)).unwrap();
        }
        write(root, "clusters/staging/evil.yaml", &sync("evil", path, ""));
        let (code, found) = problems(root, &["clusters/staging"]);
        assert_eq!(code, Some(1), "{path}");
        assert!(found.iter().any(|line| line.contains("leads out of the repository")), "{found:?}");
        let built = gitseal_in(root, &["build", "--sync", "clusters/staging/evil.yaml"]);
        assert!(!built.status.success() && built.stdout.is_empty(), "{path}");
        assert_eq!(gitseal_in(root, &["test", "--update"]).status.code(), Some(2));
    }
    fs::remove_file(root.join("clusters/staging/evil.yaml")).unwrap();
    fs::remove_file(root.join("apps/link")).unwrap();
    let precious = outside.path().join("precious.yaml");
    for link in
        [".gitseal", ".gitseal/golden", ".gitseal/golden/clusters", ".gitseal/golden/clusters/staging/shop.web.yaml"]
    {
        let _ = fs::remove_dir_all(root.join(".gitseal"));
        fs::create_dir_all(root.join(link).parent().unwrap()).unwrap();
        let target = if link.ends_with("shop.web.yaml") { precious.clone() } else { outside.path().to_owned() };
        fs::write(&precious, "precious").unwrap();
        std::os::unix::fs::symlink(target, root.join(link)).unwrap();
        let refused = gitseal_in(root, &["test", "--update"]);
        assert_eq!(refused.status.code(), Some(2), "{link}: {}", stderr(&refused));
        assert!(stderr(&refused).contains("is a symbolic link"), "{link}: {}", stderr(&refused));
        assert_eq!(fs::read_to_string(&precious).unwrap(), "precious", "{link}");
        fs::remove_file(root.join(link)).unwrap();
    }
    // Repositories are checked, too.
    write(
        root,
        "clusters/fleet.yaml",
        "apiVersion: gitseal.dev/v1alpha1\nkind: Repository\nmetadata: {name: fleet, namespace: shop}\nspec: {url: 'https://example.org/a', branch: main}\n",
    );
    let (_, found) = problems(root, &[]);
    assert_eq!(found, ["clusters/fleet.yaml:1 unknown-field spec.branch: the kind has no such field"]);
}

#[test]
fn a_file_with_syncs_that_cannot_be_read_is_an_error() {
    let folder = fleet();
    let root = folder.path();
    stdout(&gitseal_in(root, &["test", "--update"]));
    let good = fs::read_to_string(root.join("clusters/staging/web.yaml")).unwrap();
    let broken = good.replace("metadata: {", "metadata: {{");
    write(root, "clusters/staging/web.yaml", &broken);
    for path in [".", "clusters/staging"] {
        let (code, found) = problems(root, &[path]);
        assert_eq!((code, found.len()), (Some(1), 1), "{found:?}");
        assert!(found[0].starts_with("clusters/staging/web.yaml:") && found[0].contains(" not-read "), "{found:?}");
    }
    assert_eq!(problems(root, &["clusters/production"]), (Some(0), vec![]));
    let tested = gitseal_in(root, &["test"]);
    assert_eq!(tested.status.code(), Some(2));
    assert!(stderr(&tested).contains("clusters/staging/web.yaml:"), "{}", stderr(&tested));

    write(root, "clusters/staging/web.yaml", &good.replace("kind: Sync", "kind: Snyc"));
    let unknown =
        "clusters/staging/web.yaml:1 unknown-kind : gitseal.dev has no kind Snyc; did you mean Sync?".to_owned();
    assert_eq!(problems(root, &[]), (Some(1), vec![unknown]));
    assert_eq!(gitseal_in(root, &["test"]).status.code(), Some(2));

    // The other objects in a file with Syncs are checked, too.
    let namespace = "apiVersion: v1\nkind: Namespaze\nmetadata: {name: shop}\n---\n";
    write(root, "clusters/staging/web.yaml", &format!("{namespace}{good}"));
    let (code, found) = problems(root, &[]);
    assert_eq!(code, Some(1));
    let start = "clusters/staging/web.yaml:1 unknown-kind : Kubernetes has no v1 Namespaze";
    assert!(found.len() == 1 && found[0].starts_with(start), "{found:?}");

    // A template of a chart need not be a manifest, and neither need a file whose text does not contain `gitseal.dev`.
    write(root, "clusters/staging/web.yaml", &good);
    let template = "{{ range .Values.syncs }}\n---\napiVersion: gitseal.dev/v1alpha1\nkind: Sync\n{{ end }}\n";
    write(root, "charts/cache/templates/syncs.yaml", template);
    write(root, "notes.yaml", "{{ not a manifest }}");
    assert_eq!(problems(root, &[]), (Some(0), vec![]));
}

#[test]
fn syncs_in_golden_hidden_and_ignored_files_do_not_count() {
    let folder = fleet();
    let root = folder.path();
    write(root, "all.yaml", &sync("all", "clusters/staging", ""));
    stdout(&gitseal_in(root, &["test", "--update"]));
    assert!(root.join(".gitseal/golden/shop.all.yaml").exists());
    stdout(&gitseal_in(root, &["test"]));
    assert!(!root.join(".gitseal/golden/.gitseal").exists());
    stdout(&gitseal_in(root, &["test", "--update", "--golden", "golden"]));
    stdout(&gitseal_in(root, &["test", "--golden", "golden"]));
    fs::remove_dir_all(root.join("golden")).unwrap();

    for path in [".old/web.yaml", "scratch/web.yaml", "clusters/.draft/web.yaml"] {
        write(root, path, &sync("web", "apps/nowhere", ""));
    }
    write(root, ".gitignore", "/scratch/\n");
    assert_eq!(problems(root, &[]), (Some(0), vec![]));
    assert_eq!(problems(root, &["clusters"]), (Some(0), vec![]));
    stdout(&gitseal_in(root, &["test"]));
    // A hidden folder is read if it is named.
    let (code, found) = problems(root, &["clusters/.draft"]);
    assert!(code == Some(1) && found[0].contains("not-rendered"), "{found:?}");
}

#[test]
fn objects_have_the_namespaces_that_the_controller_gives_them() {
    let folder = fleet();
    let root = folder.path();
    fs::remove_dir_all(root.join("clusters")).unwrap();
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: place}\ndata: {namespace: {{ .Release.Namespace }}}\n";
    write(root, "charts/cache/templates/map.yaml", map);
    let objects = "apiVersion: v1\nkind: Namespace\nmetadata: {name: deep}\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a, \
        namespace: own}\n---\napiVersion: example.org/v1\nkind: Gadget\nmetadata: {name: b}\n";
    write(root, "apps/plain/objects.yaml", objects);
    write(root, "inner/cache.yaml", &sync("cache", "charts/cache", "  helm: {}\n"));
    write(root, "inner/plain.yaml", &sync("plain", "apps/plain", ""));
    write(root, "all.yaml", &sync("all", "inner", "  targetNamespace: deep\n"));
    let updated = gitseal_in(root, &["test", "--update"]);
    assert!(stderr(&updated).contains("objects of example.org/v1 Gadget are printed without a namespace"));
    let golden = |path: &str| fs::read_to_string(root.join(".gitseal/golden").join(path)).unwrap();
    let build = |path: &str| stdout(&gitseal_in(root, &["build", "--sync", path]));
    assert!(!root.join(".gitseal/golden/inner/shop.cache.yaml").exists());
    let cache = golden("inner/deep.cache.yaml");
    assert!(cache.contains("namespace: deep\ndata") || cache.matches("namespace: deep").count() == 2, "{cache}");
    let plain = golden("inner/deep.plain.yaml");
    assert!(plain.contains("namespace: own") && plain.matches("namespace:").count() == 1, "{plain}");
    assert!(golden("shop.all.yaml").matches("namespace: deep").count() >= 2, "{}", golden("shop.all.yaml"));
    for (file, path) in [("inner/deep.cache.yaml", "inner/cache.yaml"), ("inner/deep.plain.yaml", "inner/plain.yaml")] {
        assert_eq!(golden(file), build(path), "{path}");
    }
    let definition = "apiVersion: apiextensions.k8s.io/v1\nkind: CustomResourceDefinition\nmetadata: {name: gadgets.example.org}\nspec: \
        {group: example.org, scope: Namespaced, names: {kind: Gadget, plural: gadgets}, versions: [{name: v1, served: true, storage: true}]}\n";
    write(root, "infrastructure/crds.yaml", definition);
    assert_eq!(build("inner/plain.yaml").matches("namespace: deep").count(), 1, "{}", build("inner/plain.yaml"));
}

#[test]
fn one_sync_that_cannot_be_rendered_hides_no_difference() {
    let folder = fleet();
    let root = folder.path();
    stdout(&gitseal_in(root, &["test", "--update"]));
    write(root, "apps/staging/kustomization.yaml", "resources: [nowhere]\n");
    write(root, "clusters/production/cache.yaml", &sync("cache", "charts/cache", "  helm: {values: {size: 4}}\n"));
    let tested = gitseal_in(root, &["test"]);
    assert_eq!(tested.status.code(), Some(2));
    let text = String::from_utf8(tested.stdout.clone()).unwrap();
    assert!(text.contains("+  size: \"4\"") && !text.contains("left over"), "{text}");
    assert!(stderr(&tested).contains("Sync shop/web cannot be rendered"), "{}", stderr(&tested));

    fs::remove_file(root.join("clusters/production/cache.yaml")).unwrap();
    let part = gitseal_in(root, &["test", "clusters/production", "-o", "json"]);
    assert_eq!(part.status.code(), Some(1));
    let report: Value = serde_json::from_slice(&part.stdout).unwrap();
    assert_eq!(report["different"][0]["state"], "left over", "{report}");
    assert_eq!(report["different"][0]["file"], ".gitseal/golden/clusters/production/shop.cache.yaml");
    assert_eq!((&report["syncs"], &report["equal"]), (&1.into(), &1.into()), "{report}");
}

#[test]
fn what_the_controller_or_the_api_server_refuses_in_a_sync_is_an_error() {
    let folder = fleet();
    let root = folder.path();
    let health = |fields: &str| format!("  healthChecks: [{{apiVersion: example.org/v1, kind: Widget, {fields}}}]\n");
    let secret = "{apiVersion: v1, kind: Secret, name: a}".to_owned();
    for (rest, field, message) in [
        (health("current: 'statu.x == 1'"), "spec.healthChecks[0].current", "statu"),
        (
            "  dependsOn: [{apiVersion: v1, kind: Job, name: a, readyExpr: 'dep.data.open =='}]\n".to_owned(),
            "spec.dependsOn[0].readyExpr",
            "column",
        ),
        ("  dependsOn: [{name: new}]\n".to_owned(), "spec.dependsOn", "shop/new waits for shop/new"),
        ("  kubeConfig: {secretRef: {name: a}}\n".to_owned(), "spec.kubeConfig", "not supported yet"),
        ("  interval: 1s\n".to_owned(), "spec.interval", "at least 10s"),
        (format!("  dependsOn: [{secret}]\n"), "spec.dependsOn[0]", "a Secret cannot be waited for"),
        (
            "  ignoreDifferences: [{paths: [spec.replicas]}]\n".to_owned(),
            "spec.ignoreDifferences[0].paths[0]",
            "does not match",
        ),
    ] {
        write(root, "clusters/staging/new.yaml", &sync("new", "apps/staging", &rest));
        let (code, found) = problems(root, &[]);
        assert_eq!((code, found.len()), (Some(1), 1), "{rest}: {found:?}");
        let start = format!(
            "clusters/staging/new.yaml:1 {} {field}: ",
            if rest.contains("ignore") { "wrong-value" } else { "invalid-sync" }
        );
        assert!(found[0].starts_with(&start) && found[0].contains(message), "{rest}: {found:?}");
    }
    write(root, "clusters/staging/new.yaml", &sync("new", "apps/../apps/staging", ""));
    let (_, found) = problems(root, &[]);
    assert!(found.len() == 1 && found[0].contains("spec.path: the path must stay inside"), "{found:?}");

    // A cycle is reported once. The Sync of the same name in another folder is another Sync.
    write(root, "clusters/staging/new.yaml", &sync("new", "apps/staging", "  dependsOn: [{name: web}]\n"));
    write(root, "clusters/staging/web.yaml", &sync("web", "apps/staging", "  dependsOn: [{name: new}]\n"));
    write(
        root,
        "clusters/production/cache.yaml",
        &sync("cache", "charts/cache", "  helm: {}\n  dependsOn: [{name: web}]\n"),
    );
    let (_, found) = problems(root, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("shop/new waits for shop/web waits for shop/new"), "{found:?}");

    write(root, "clusters/staging/new.yaml", &sync("web", "apps/production", ""));
    write(root, "clusters/staging/web.yaml", &sync("web", "apps/staging", ""));
    let (_, found) = problems(root, &[]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert!(found[0].contains("the same Sync is already at clusters/staging/new.yaml:1"), "{found:?}");
}

#[test]
fn what_the_controller_or_the_api_server_refuses_in_objects_is_an_error() {
    let folder = fleet();
    let root = folder.path();
    let with = |objects: &str, rest: &str| {
        write(root, "apps/plain/objects.yaml", objects);
        write(root, "clusters/staging/plain.yaml", &sync("plain", "apps/plain", rest));
        problems(root, &["clusters/staging"]).1
    };
    let map = |metadata: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a, {metadata}}}\n");
    let namespace =
        "---\napiVersion: v1\nkind: Namespace\nmetadata: {name: deep, annotations: {gitseal.dev/wave: '2'}}\n";
    let late = with(&format!("{}{namespace}", map("namespace: deep, annotations: {gitseal.dev/wave: '1'}")), "");
    assert!(
        late.len() == 1 && late[0].starts_with("apps/plain/objects.yaml:1 refused") && late[0].contains("wave 2"),
        "{late:?}"
    );
    let names = with(&map("").replace("name: a", "name: Not_OK"), "");
    assert!(names.len() == 1 && names[0].contains("impossible-name metadata.name: 'Not_OK' cannot be"), "{names:?}");
    let prefix = with(&map(""), "  namePrefix: BLUE_\n");
    assert!(prefix.len() == 1 && prefix[0].contains("'BLUE_a' cannot be"), "{prefix:?}");
    let role = "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: 'team:Web'}\nrules: []\n";
    assert_eq!(with(role, ""), Vec::<String>::new());
    let misspelt = with("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\nstringdata: {password: hunter2}\n", "");
    assert_eq!(misspelt.len(), 2, "{misspelt:?}");
    assert!(misspelt.iter().any(|line| line.contains("plaintext Secret in Git")), "{misspelt:?}");
    let wrong = "annotations: {gitseal.dev/prune: 'false', gitseal.dev/replace: 'true', gitseal.dev/wav: '1', example.org/wav: '1'}";
    let annotations = with(&map(wrong), "");
    assert_eq!(annotations.len(), 3, "{annotations:?}");
    for (line, message) in
        annotations.iter().zip(["use \"disabled\"", "use \"allowed\"", "did you mean gitseal.dev/wave?"])
    {
        assert!(line.contains(message), "{line}");
    }
    assert_eq!(problems(root, &[]).0, Some(0), "they are warnings");
}

#[test]
fn a_problem_names_its_syncs_and_its_place_in_git() {
    let folder = fleet();
    let root = folder.path();
    write(root, "apps/base/web.yaml", &DEPLOYMENT.replace("replicas", "replica"));
    let output = gitseal_in(root, &["lint"]);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(text.ends_with("did you mean replicas? (unknown-field; Sync shop/web)\n"), "{text}");
    let output = gitseal_in(root, &["lint", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let files: Vec<_> = report["problems"][0]["syncs"].as_array().unwrap().iter().map(|sync| &sync["file"]).collect();
    assert_eq!(files, ["clusters/production/web.yaml", "clusters/staging/web.yaml"]);

    write(root, "apps/base/web.yaml", DEPLOYMENT);
    write(root, "apps/plain/a.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {a: {\n");
    write(root, "clusters/staging/plain.yaml", &sync("plain", "apps/plain", ""));
    write(root, "charts/cache/templates/fail.yaml", "a: 1\nb: {{ fail \"no\" }}\n");
    let (_, found) = problems(root, &[]);
    assert_eq!(found.len(), 2, "{found:?}");
    assert!(found[0].starts_with("apps/plain/a.yaml:") && found[0].contains(" not-rendered "), "{found:?}");
    assert!(found[1].starts_with("charts/cache/templates/fail.yaml:2 not-rendered "), "{found:?}");
    assert!(!found.iter().any(|line| line.contains(root.to_str().unwrap())), "{found:?}");
}

#[test]
fn kinds_without_a_schema_can_be_errors() {
    let folder = fleet();
    let root = folder.path();
    write(root, "apps/plain/web.yaml", &DEPLOYMENT.replace("apps/v1", "app/v1"));
    write(root, "clusters/staging/plain.yaml", &sync("plain", "apps/plain", ""));
    let output = gitseal_in(root, &["lint"]);
    assert_eq!(output.status.code(), Some(0));
    let said = "app/v1 Deployment is not checked: no CustomResourceDefinition of this kind is in the repository; did you mean apps/v1 \
        Deployment?";
    assert!(stderr(&output).contains(said), "{}", stderr(&output));
    let (code, found) = problems(root, &["--strict"]);
    assert!(
        code == Some(1) && found[0].starts_with("apps/plain/web.yaml:1 unknown-kind : app/v1 Deployment"),
        "{found:?}"
    );
}

#[test]
fn charts_and_empty_folders_without_syncs() {
    let folder = fleet();
    let root = folder.path();
    let output = gitseal_in(root, &["lint", "charts/cache"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(stderr(&output).contains("charts/cache is a chart") && stderr(&output).contains("1 object of"));
    write(root, "charts/cache/templates/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndat: {}\n");
    assert_eq!(problems(root, &["charts/cache"]).1.len(), 1);
    fs::create_dir(root.join("empty")).unwrap();
    let empty = gitseal_in(root, &["lint", "empty"]);
    assert_eq!(empty.status.code(), Some(2));
    assert!(stderr(&empty).contains("no Syncs and no manifests"), "{}", stderr(&empty));
}
