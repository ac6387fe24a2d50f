//! `gitseal lint` and `gitseal test`, without a cluster.

use std::{fs, path::Path};

use serde_json::Value;

use crate::{gitseal_in, stderr, stdout};

fn write(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn sync(name: &str, path: &str, rest: &str) -> String {
    format!(
        "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {{name: {name}, namespace: shop}}\nspec:\n  repository: {{name: \
         fleet}}\n  path: {path}\n{rest}"
    )
}

const DEPLOYMENT: &str = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: 1\n  selector: \
    {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: web, image: web}]}\n";

/// A repository with an application in three ways: a kustomization with two overlays, a chart, and plain files.
fn fleet() -> tempfile::TempDir {
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
fn problems(root: &Path, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
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
    let instead = "use storage.k8s.io/v1 VolumeAttributesClass in Kubernetes";
    let expected = format!(
        "apps/plain/class.yaml:1: error: {kind} is not served since Kubernetes 1.37; {instead} 1.37 (not-served)\n\
         apps/plain/class.yaml:1: warning: {kind} is deprecated since Kubernetes 1.34, and not served from 1.37 on; {instead} 1.36 \
         (deprecated)\n"
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
    // A definition may be anywhere in the repository, also in a folder that no Sync applies.
    write(root, "infrastructure/crds.yaml", definition);
    let wrong = "apps/plain/widget.yaml:1 wrong-value spec.size: the field must be a whole number, and is a text; write it without \
        quotes";
    assert_eq!(problems(root, &[]), (Some(1), vec![wrong.to_owned()]));
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
        assert!(stderr(&output).contains("Sync shop/podinfo is not checked"), "{}", stderr(&output));
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
