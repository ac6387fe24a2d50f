//! `gitseal build` without a cluster.

use std::{fs, path::Path};

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{gitseal_in, workplace::write};

/// A repository with a kustomization that changes the name of its ConfigMap if it is rendered.
fn kustomized() -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| fs::write(folder.path().join(path), text).unwrap();
    for path in [".git", "app"] {
        fs::create_dir(folder.path().join(path)).unwrap();
    }
    write("app/kustomization.yaml", "namePrefix: rendered-\nresources: [map.yaml]\n");
    write("app/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings}\n");
    folder
}

fn built(folder: &Path, path: &str) -> String {
    let output = gitseal_in(folder, &["build", path]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_kustomization_that_is_ignored_is_not_rendered() {
    for (ignore_file, rule) in
        [("app/.gitsealignore", "kustomization.yaml"), (".gitsealignore", "app/kustomization.yaml")]
    {
        let folder = kustomized();
        fs::write(folder.path().join(ignore_file), format!("{rule}\n")).unwrap();
        let text = built(folder.path(), "app");
        assert!(text.contains("name: settings"), "{ignore_file}: {text}");
        // The same folder, given as the current folder.
        assert_eq!(built(&folder.path().join("app"), "."), text);
    }
}

#[test]
fn without_the_worker_beside_it_it_says_what_is_missing_and_plain_folders_are_built() {
    let folder = kustomized();
    let programs = tempfile::tempdir().unwrap();
    let alone = programs.path().join("gitseal");
    fs::copy(env!("CARGO_BIN_EXE_gitseal"), &alone).unwrap();
    let build = |path: &str| {
        std::process::Command::new(&alone)
            .args(["build", path])
            .current_dir(folder.path())
            .env_clear()
            .env("HOME", folder.path())
            .output()
            .unwrap()
    };
    let output = build("app");
    let told = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{told}");
    let program = programs.path().join("gitseal-renderer");
    let missing = format!("{} could not be started (No such file or directory", program.display());
    assert!(told.contains("cannot render app") && told.contains(&missing), "{told}");
    assert!(told.contains("it must be in the same folder as the program that starts it"), "{told}");

    fs::create_dir(folder.path().join("plain")).unwrap();
    fs::copy(folder.path().join("app/map.yaml"), folder.path().join("plain/map.yaml")).unwrap();
    let output = build("plain");
    assert!(output.status.success() && String::from_utf8(output.stdout).unwrap().contains("name: settings"));
}

/// A repository with a chart, and a Sync for it whose spec also has `more`.
fn chart_of_a_sync(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| write(folder.path(), path, text);
    fs::create_dir(folder.path().join(".git")).unwrap();
    write("charts/web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n");
    write("charts/web/templates/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: {{ .Release.Name }} }\n");
    let sync = "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {name: web, namespace: shop}\n";
    write("clusters/web.yaml", &format!("{sync}spec:\n  repository: {{name: fleet}}\n  path: charts/web\n{more}"));
    folder
}

fn refused(folder: &Path, arguments: &[&str]) -> String {
    let output = gitseal_in(folder, arguments);
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_sync_that_does_not_say_that_its_folder_is_a_chart_is_told_what_to_set() {
    let folder = chart_of_a_sync("");
    for arguments in [["build", "--sync", "clusters/web.yaml"].as_slice(), &["lint"]] {
        let told = refused(folder.path(), arguments);
        assert!(told.contains("Chart.yaml") && told.contains("set helm in the spec of the Sync"), "{told}");
        assert!(!told.contains("kind is missing"), "{told}");
    }
}

#[test]
fn values_that_the_api_server_would_refuse_are_refused_without_it() {
    let folder = chart_of_a_sync("  helm:\n    valuesFrom: [{sealedSecret: secrets/web.yaml, key: password}]\n");
    for arguments in [["build", "--sync", "clusters/web.yaml"].as_slice(), &["lint"]] {
        let told = refused(folder.path(), arguments);
        assert!(told.contains("spec.helm.valuesFrom[0]: path can only be set with secret or sealedSecret"), "{told}");
    }
}

#[test]
fn a_plaintext_secret_of_a_chart_is_not_to_be_sealed_in_the_template() {
    let folder = chart_of_a_sync("  helm: {}\n");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData: {password: hunter2}\n";
    fs::write(folder.path().join("charts/web/templates/db.yaml"), secret).unwrap();
    for arguments in [["build", "--sync", "clusters/web.yaml"].as_slice(), &["build", "charts/web"]] {
        let output = gitseal_in(folder.path(), arguments);
        let told = String::from_utf8(output.stderr).unwrap();
        assert!(told.contains("charts/web/templates/db.yaml:1") && told.contains("spec.helm.valuesFrom"), "{told}");
        assert!(!told.contains("seal -i"), "{told}");
    }
}

#[test]
fn a_folder_of_a_sync_that_does_not_exist_is_named_with_its_field() {
    let folder = chart_of_a_sync("  helm: {}\n");
    fs::remove_dir_all(folder.path().join("charts")).unwrap();
    let told = refused(folder.path(), &["build", "--sync", "clusters/web.yaml"]);
    assert!(told.contains("charts/web, which spec.path of the Sync names"), "{told}");
}

/// A clone of a Repository with values for charts.
fn clone_with(path: &str, text: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join(".git")).unwrap();
    write(folder.path(), path, text);
    folder
}

#[test]
fn values_of_another_repository_are_read_from_a_clone_that_is_named() {
    let entry = "  helm:\n    valuesFrom: [{repository: {name: config}, file: web/prod.yaml}]\n";
    let folder = chart_of_a_sync(entry);
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {level: {{ .Values.level }} }\n";
    fs::write(folder.path().join("charts/web/templates/map.yaml"), template).unwrap();
    let sync = ["build", "--sync", "clusters/web.yaml"];
    for arguments in [sync.as_slice(), &["lint", "--strict"]] {
        let told = refused(folder.path(), arguments);
        let said = "the file that spec.helm.valuesFrom[0] of the Sync names is in Repository shop/config";
        assert!(told.contains(said) && told.contains("--remote shop/config=PATH"), "{told}");
    }

    let clone = clone_with("web/prod.yaml", "level: debug\n");
    for name in ["config", "shop/config"] {
        let flag = format!("--remote={name}={}", clone.path().display());
        let output = gitseal_in(folder.path(), &[&sync[..], &[&flag]].concat());
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("level: debug"), "{text} {}", String::from_utf8_lossy(&output.stderr));
        let linted = gitseal_in(folder.path(), &["lint", &flag]);
        assert!(linted.status.success(), "{}", String::from_utf8_lossy(&linted.stdout));
    }
    // A clone of the Repository `other/config` does not help: the chart gets its values from `shop/config`.
    let flag = format!("--remote=other/config={}", clone.path().display());
    refused(folder.path(), &[&sync[..], &[&flag]].concat());
    let clone = clone_with("web/test.yaml", "level: debug\n");
    let flag = format!("--remote=config={}", clone.path().display());
    let told = refused(folder.path(), &[&sync[..], &[&flag]].concat());
    assert!(told.contains("Repository shop/config: web/prod.yaml: there is no such file in"), "{told}");
    let told = refused(folder.path(), &[&sync[..], &["--remote=config"]].concat());
    assert!(told.contains("it is not WHAT=PATH"), "{told}");
}

#[test]
fn values_of_the_repository_itself_need_no_clone() {
    let entry = "  helm:\n    valuesFrom: [{repository: {name: fleet}, file: web.yaml}]\n";
    let folder = chart_of_a_sync(entry);
    fs::write(folder.path().join("web.yaml"), "level: debug\n").unwrap();
    let output = gitseal_in(folder.path(), &["build", "--sync", "clusters/web.yaml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// A repository with plain manifests that have variables, and a Sync for them whose spec also has `more`.
fn with_variables(more: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let write = |path: &str, text: &str| write(folder.path(), path, text);
    fs::create_dir(folder.path().join(".git")).unwrap();
    write(
        "app/web.yaml",
        "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec:\n  replicas: ${replicas:=1}\n  selector: \
         {matchLabels: {app: web}}\n  template:\n    metadata: {labels: {app: web}}\n    spec: {containers: [{name: c, image: \
         'example.invalid/c:1'}]}\n",
    );
    write("app/map.yaml", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: map}\ndata: {cluster: '${cluster}'}\n");
    write(
        "app/role.yaml",
        "apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: role}\nrules: []\n",
    );
    write(
        "app/db.yaml",
        "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: db, annotations: \
         {sealedsecrets.bitnami.com/cluster-wide: 'true'}}\nspec: {encryptedData: {password: AgBsealed}}\n",
    );
    write("settings.env", "cluster=north\n");
    let sync = "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {name: web, namespace: shop}\n";
    write("sync.yaml", &format!("{sync}spec:\n  repository: {{name: fleet}}\n  path: app\n{more}"));
    folder
}

fn printed(folder: &Path, arguments: &[&str]) -> String {
    let output = gitseal_in(folder, arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn variables_of_a_sync_are_replaced_without_a_cluster() {
    let folder = with_variables("  substitute: {replicas: '3'}\n  substituteFrom: [{file: settings.env}]\n");
    let text = printed(folder.path(), &["build", "--sync", "sync.yaml"]);
    assert!(text.contains("replicas: 3\n") && text.contains("cluster: north\n"), "{text}");
    // Without the Sync, the variables stay as they are in the files.
    assert!(built(folder.path(), "app").contains("replicas: ${replicas:=1}"));

    let folder = with_variables("  substitute: {}\n");
    let told = refused(folder.path(), &["build", "--sync", "sync.yaml"]);
    assert!(told.contains("app/map.yaml:1: ConfigMap map: data.cluster: the variable cluster is not set"), "{told}");
    fs::remove_dir(folder.path().join(".git")).unwrap();
    let told = refused(folder.path(), &["build", "--sync", "sync.yaml"]);
    assert!(!told.contains("outside of a Git repository"), "{told}");

    let folder = with_variables("  substituteFrom: [{}]\n");
    let told = refused(folder.path(), &["build", "--sync", "sync.yaml"]);
    assert!(
        told.contains("spec.substituteFrom[0]: set exactly one of file, configMap, secret and sealedSecret"),
        "{told}"
    );
}

const CHANGES: &str = "  namePrefix: p-\n  commonLabels: {team: a}\n  images: [{name: example.invalid/c, newTag: '2'}]\n  \
    patches:\n  - {patch: '- {op: replace, path: /data/cluster, value: \"${cluster}-1\"}', target: {kind: ConfigMap}}\n  - {patch: \
    '- {op: remove, path: /metadata/labels}', target: {kind: ClusterRole}}\n  targetNamespace: other\n  substitute: {cluster: \
    north}\n";

#[test]
fn each_change_of_a_sync_is_explained() {
    let folder = with_variables(CHANGES);
    let text = printed(folder.path(), &["build", "--sync", "sync.yaml", "--explain"]);
    let is_step = |line: &&str| line.starts_with(|first: char| first.is_alphabetic()) && line.contains(": ");
    assert_eq!(
        text.lines().filter(is_step).collect::<Vec<_>>(),
        [
            "rendered: 4 objects",
            "namePrefix: 4 changed",
            "commonLabels: 4 changed",
            "images: 1 changed, 3 unchanged",
            "patches[0]: 1 changed, 3 unchanged",
            "patches[1]: 1 changed, 3 unchanged",
            "targetNamespace: 3 changed, 1 unchanged",
            "substitute: 2 changed, 2 unchanged",
        ],
        "{text}"
    );
    for part in [
        "changed Deployment shop/p-web  app/web.yaml:1\n",
        "-  name: web\n+  name: p-web\n",
        "image: example.invalid/c:2\n",
        "-  cluster: ${cluster}\n+  cluster: ${cluster}-1\n",
        "-  cluster: ${cluster}-1\n+  cluster: north-1\n",
        "changed Deployment other/p-web  app/web.yaml:1\n",
        "-  replicas: ${replicas:=1}\n+  replicas: 1\n",
        "-  namespace: shop\n+  namespace: other\n",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("AgBsealed"), "{text}");

    let json: serde_json::Value =
        serde_json::from_str(&printed(folder.path(), &["build", "--sync", "sync.yaml", "--explain", "-o", "json"]))
            .unwrap();
    assert_eq!(json["rendered"], 4);
    let images = &json["steps"][2];
    assert_eq!((&images["field"], &images["unchanged"]), (&"images".into(), &3.into()));
    let change = images["changes"][0].as_object().unwrap();
    let keys: Vec<_> = change.keys().map(String::as_str).collect();
    assert_eq!(keys, ["change", "apiVersion", "kind", "namespace", "name", "origin", "diff"]);
    assert_eq!(
        (&change["change"], &change["namespace"], &change["name"], &change["origin"]),
        (&"changed".into(), &"shop".into(), &"p-web".into(), &"app/web.yaml:1".into())
    );
    // An object that cannot have a namespace is named without one.
    assert!(text.contains("changed ClusterRole p-"), "{text}");
}

#[test]
fn a_change_that_fails_is_named_by_its_explanation() {
    let folder = with_variables(
        "  namePrefix: p-\n  patches: [{patch: '- {op: remove, path: /data/gone}', target: {kind: ConfigMap}}]\n",
    );
    let told = refused(folder.path(), &["build", "--sync", "sync.yaml", "--explain"]);
    assert!(told.contains("with patches[0]\n") && told.contains("data/gone"), "{told}");
    for arguments in [["build", "app", "--explain"].as_slice(), &["build", "--explain"]] {
        let told = refused(folder.path(), arguments);
        assert!(told.contains("--explain") || told.contains("--sync"), "{told}");
    }
    let folder = with_variables("");
    assert_eq!(
        printed(folder.path(), &["build", "--sync", "sync.yaml", "--explain"]),
        "rendered: 4 objects\nThe Sync changes nothing.\n"
    );
}

#[test]
fn values_of_secrets_are_not_in_an_explanation() {
    let folder =
        with_variables("  commonLabels: {team: a}\n  substitute: {cluster: north, password: Plain-Of-A-Secret}\n");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: plain}\nstringData: {a: '${password}', b: In-The-File-1}\ndata: {c: SW4tVGhlLUZpbGU=}\n";
    fs::write(folder.path().join("app/plain.yaml"), secret).unwrap();
    for format in [["--explain"].as_slice(), &["--explain", "-o", "json"], &["--explain", "-o", "yaml"]] {
        let text = printed(folder.path(), &[["build", "--sync", "sync.yaml"].as_slice(), format].concat());
        assert!(text.contains("(not shown, another value)"), "{text}");
        for value in ["Plain-Of-A-Secret", "In-The-File-1", "SW4tVGhlLUZpbGU", "AgBsealed"] {
            assert!(!text.contains(value), "{value}: {text}");
        }
    }
}

#[test]
fn values_of_a_config_map_are_in_a_file_of_the_repository_or_in_one_that_is_named() {
    let folder = chart_of_a_sync("  helm:\n    valuesFrom: [{configMap: settings, key: web.yaml}]\n");
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata: {level: {{ .Values.level }} }\n";
    fs::write(folder.path().join("charts/web/templates/map.yaml"), template).unwrap();
    let sync = ["build", "--sync", "clusters/web.yaml"];
    for arguments in [sync.as_slice(), &["lint"]] {
        let told = refused(folder.path(), arguments);
        let names =
            "spec.helm.valuesFrom[0] of the Sync names ConfigMap shop/settings, and no file of the repository has it";
        assert!(told.contains(names), "{told}");
    }
    let optional = chart_of_a_sync(
        "  helm:\n    values: {level: warn}\n    valuesFrom: [{configMap: settings, optional: true}]\n",
    );
    fs::write(optional.path().join("charts/web/templates/map.yaml"), template).unwrap();
    assert!(printed(optional.path(), &sync).contains("level: warn"));
    let map = |metadata: &str, text: &str| {
        format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings{metadata}}}\ndata: {{{text}}}\n")
    };
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("of-others.yaml", &map(", namespace: other", "web.yaml: 'level: other'"));
    assert!(refused(folder.path(), &sync).contains("no file of the repository has it"));
    write("settings.yaml", &map("", "prod.yaml: 'level: debug'"));
    let told = refused(folder.path(), &sync);
    assert!(told.contains("settings.yaml:1: ConfigMap shop/settings has no key web.yaml"), "{told}");
    write("settings.yaml", &map("", "web.yaml: 'level: debug'"));
    let built = |arguments: &[&str]| {
        let output = gitseal_in(folder.path(), &[&sync[..], arguments].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    };
    assert!(built(&[]).contains("level: debug"));
    assert!(gitseal_in(folder.path(), &["lint"]).status.success());

    // A file that `--values-config-map` names is used even if the repository has the ConfigMap more than once.
    write("again.yaml", &map(", namespace: shop", "web.yaml: 'level: warn'"));
    let told = refused(folder.path(), &sync);
    assert!(told.contains("ConfigMap shop/settings is in") && told.contains("--values-config-map FILE"), "{told}");
    assert!(built(&["--values-config-map", "again.yaml"]).contains("level: warn"));
}

#[test]
fn what_a_chart_looks_up_is_in_a_file_that_is_named() {
    let entries = "[{apiVersion: v1, kind: ConfigMap, name: cluster}, {apiVersion: v1, kind: Service}]";
    let folder = chart_of_a_sync(&format!("  helm:\n    lookup: {entries}\n"));
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata:\n  region: {{ lookup \"v1\" \"ConfigMap\" \
        .Release.Namespace \"cluster\" | dig \"data\" \"region\" \"none\" }}\n  services: \"{{ range (lookup \"v1\" \"Service\" \
        .Release.Namespace \"\").items }}{{ .metadata.name }},{{ end }}\"\n";
    fs::write(folder.path().join("charts/web/templates/map.yaml"), template).unwrap();
    let sync = ["build", "--sync", "clusters/web.yaml"];
    for arguments in [sync.as_slice(), &["lint"]] {
        let told = refused(folder.path(), arguments);
        assert!(told.contains("spec.helm.lookup[0] of the Sync names v1 ConfigMap shop/cluster"), "{told}");
    }
    let told = refused(folder.path(), &sync);
    let hint = "kubectl get ConfigMap cluster -n shop -o yaml > FILE, and --lookup FILE";
    assert!(told.contains(hint) && told.contains("--lookup /dev/null"), "{told}");

    let service = |name: &str, namespace: &str| {
        format!("{{apiVersion: v1, kind: Service, metadata: {{name: {name}, namespace: {namespace}}}, spec: {{}}}}")
    };
    let services = [service("b", "shop"), service("a", "shop"), service("c", "other")].join(", ");
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    write("services.yaml", &format!("apiVersion: v1\nkind: List\nitems: [{services}]\n"));
    write(
        "map.yaml",
        "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cluster, namespace: shop}\ndata: {region: north}\n",
    );
    let built = |files: &[&str]| {
        let flags = files.iter().flat_map(|file| ["--lookup", file]);
        let arguments: Vec<_> = sync.iter().copied().chain(flags).collect();
        printed(folder.path(), &arguments)
    };
    let text = built(&["map.yaml", "services.yaml"]);
    assert!(text.contains("region: north") && text.contains("services: a,b,\n"), "{text}");
    let text = built(&["/dev/null"]);
    assert!(text.contains("region: none") && text.contains("services: \"\"\n"), "{text}");
    let everywhere = chart_of_a_sync("  helm:\n    lookup: [{apiVersion: v1, kind: Service, allNamespaces: true}]\n");
    let of_all = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: web}\ndata:\n  all: \"{{ range (lookup \"v1\" \"Service\" \"\" \
        \"\").items }}{{ .metadata.name }},{{ end }}\"\n";
    fs::write(everywhere.path().join("charts/web/templates/map.yaml"), of_all).unwrap();
    let told = refused(everywhere.path(), &sync);
    assert!(
        told.contains("names all v1 Service in all namespaces") && told.contains("kubectl get Service -A -o yaml"),
        "{told}"
    );
    let file = folder.path().join("services.yaml").display().to_string();
    assert!(printed(everywhere.path(), &[&sync[..], &["--lookup", &file]].concat()).contains("all: c,a,b,\n"));

    // Without the Sync, the chart finds nothing, as with `helm template`.
    assert!(printed(folder.path(), &["build", "charts/web"]).contains("region: none"));

    let folder = chart_of_a_sync("  helm:\n    lookup: [{apiVersion: v1, kind: Secret, name: db}]\n");
    let told = refused(folder.path(), &sync);
    assert!(told.contains("spec.helm.lookup[0]: a Secret cannot be looked up"), "{told}");
}

#[test]
fn variables_of_a_config_map_are_in_a_file_of_the_repository() {
    let folder = with_variables(
        "  substituteFrom: [{configMap: cluster}, {configMap: extra, optional: true}]\n  substitute: {replicas: '3'}\n",
    );
    let sync = ["build", "--sync", "sync.yaml"];
    let told = refused(folder.path(), &sync);
    assert!(told.contains("spec.substituteFrom[0] of the Sync names ConfigMap shop/cluster, and no file"), "{told}");
    let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: cluster}\ndata: {cluster: north, tls.crt: x}\n";
    fs::write(folder.path().join("cluster.yaml"), map).unwrap();
    let text = printed(folder.path(), &sync);
    assert!(text.contains("cluster: north\n") && text.contains("replicas: 3\n"), "{text}");

    let folder = with_variables("  substituteFrom: [{repository: {name: config}, file: vars.env}]\n");
    let told = refused(folder.path(), &sync);
    assert!(
        told.contains("the file that spec.substituteFrom[0] of the Sync names is in Repository shop/config"),
        "{told}"
    );
    let clone = clone_with("vars.env", "cluster=south\n");
    let flag = format!("--remote=config={}", clone.path().display());
    assert!(printed(folder.path(), &[&sync[..], &[&flag]].concat()).contains("cluster: south\n"));
}

#[test]
fn a_policy_of_helm_may_be_a_variable() {
    let folder = chart_of_a_sync("  helm: {}\n  substitute: {policy: keep}\n");
    let template = "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: kept\n  annotations: {helm.sh/resource-policy: '${policy}'}\n";
    fs::write(folder.path().join("charts/web/templates/map.yaml"), template).unwrap();
    let text = printed(folder.path(), &["build", "--sync", "clusters/web.yaml"]);
    assert!(
        text.contains("helm.sh/resource-policy: keep\n") && text.contains("gitseal.dev/prune: disabled\n"),
        "{text}"
    );
}

#[test]
fn sealed_values_on_the_command_line_become_sealed_secrets() {
    let folder = tempfile::tempdir().unwrap();
    let put = |path: &str, text: &str| write(folder.path(), path, text);
    fs::create_dir(folder.path().join(".git")).unwrap();
    put("chart/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n");
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: db}\nstringData:\n  password: {{ .Values.auth.password | quote }}\n  url: \
        \"db://{{ .Values.auth.user }}:{{ .Values.auth.password }}@db\"\n";
    put("chart/templates/secret.yaml", secret);
    let sealed = |byte: u8| STANDARD.encode([&[1, 0][..], &[byte; 300]].concat());
    let (password, user) = (sealed(7), sealed(8));
    let file = |plain: &str| {
        format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: default}}\nspec:\n  encryptedData:\n    \
             password: {password}\n    user: {user}\n{plain}"
        )
    };
    put("secrets/db.yaml", &file(""));

    let one = ["build", "chart", "--set-sealed=auth.password=secrets/db.yaml:password", "--set=auth.user=joe"];
    let text = printed(folder.path(), &one);
    for part in ["kind: SealedSecret", &password, "url: db://joe:{{ index . \"password\" }}@db"] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert!(!text.contains("kind: Secret\n") && !text.contains(&user), "{text}");

    // Without a key, all keys of the SealedSecret are values.
    let json = printed(folder.path(), &["build", "chart", "--set-sealed=auth=secrets/db.yaml", "-o", "json"]);
    let list: serde_json::Value = serde_json::from_str(&json).unwrap();
    let spec = &list["items"][0]["spec"];
    assert_eq!(spec["encryptedData"], serde_json::json!({"password": password, "user": user}), "{json}");
    assert_eq!(spec["template"]["data"]["url"], "db://{{ index . \"user\" }}:{{ index . \"password\" }}@db", "{json}");
    // A sealed value wins over a plain one of the same name, and needs no file of values.
    let both = [&one[..], &["--set=auth.password=plain"]].concat();
    assert_eq!(printed(folder.path(), &both), text);

    put("secrets/plain.yaml", &file("    plain: hunter2-plain\n"));
    let outside = tempfile::NamedTempFile::new().unwrap();
    let outside = format!("auth={}", outside.path().display());
    for (value, said) in [
        ("auth", "it is not NAME=FILE"),
        ("=secrets/db.yaml", "it is not NAME=FILE"),
        ("auth=secrets/gone.yaml", "cannot read secrets/gone.yaml"),
        (outside.as_str(), "the file is not in the repository of the chart"),
        ("auth.a=secrets/db.yaml:gone", "secrets/db.yaml:1 has no sealed value gone: it has password, user"),
        ("auth=secrets/plain.yaml", "secrets/plain.yaml:1: plain is not a sealed value"),
    ] {
        let told = refused(folder.path(), &["build", "chart", "--set-sealed", value]);
        assert!(told.contains(said) && !told.contains("hunter2"), "{value}: {told}");
    }
    let told = refused(folder.path(), &["build", "secrets", "--set-sealed=a=secrets/db.yaml"]);
    assert!(told.contains("--set-sealed is only for charts, and secrets is not a chart"), "{told}");
}

/// A component that adds a ConfigMap and changes every Deployment.
const COMPONENT: &str = "apiVersion: kustomize.config.k8s.io/v1alpha1\nkind: Component\nconfigMapGenerator: [{name: made, literals: [a=b]}]\n\
    patches: [{patch: '[{\"op\": \"add\", \"path\": \"/spec/paused\", \"value\": true}]', target: {kind: Deployment}}]\n";

#[test]
fn the_changes_of_a_kustomization_and_of_a_chart_are_explained() {
    let changes = "  components: [../part]\n  nameSuffix: -s\n  commonAnnotations: {example.com/owner: shop}\n  patches:\n  - {patch: \
        '{apiVersion: v1, kind: ConfigMap, metadata: {name: map}, $patch: delete}'}\n";
    for (of, more, place) in [
        ("kustomization", "", "over/web.yaml:1"),
        ("chart", "  helm: {values: {cluster: north}}\n", "chart/templates/web.yaml:1"),
    ] {
        let folder = with_variables("");
        let root = folder.path();
        let deployment = "apiVersion: apps/v1\nkind: Deployment\nmetadata: {name: web}\nspec: {selector: {matchLabels: {app: web}}, template: \
            {metadata: {labels: {app: web}}}}\n";
        let map = |cluster: &str| {
            format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: map}}\ndata: {{cluster: {cluster}}}\n")
        };
        write(root, "over/kustomization.yaml", "namePrefix: o-\nresources: [web.yaml, map.yaml]\n");
        write(root, "over/web.yaml", deployment);
        write(root, "over/map.yaml", &map("north"));
        write(root, "chart/Chart.yaml", "apiVersion: v2\nname: shop\nversion: 1.0.0\n");
        write(root, "chart/templates/web.yaml", &deployment.replace("name: web}\nspec", "name: o-web}\nspec"));
        write(root, "chart/templates/map.yaml", &map("{{ .Values.cluster }}").replace("name: map", "name: o-map"));
        write(root, "part/kustomization.yaml", COMPONENT);
        let path = if of == "chart" { "chart" } else { "over" };
        // A patch has the name that the object has in its file, or in the output of the chart.
        let changes = if of == "chart" { changes.replace("name: map", "name: o-map") } else { changes.to_owned() };
        let sync = format!(
            "apiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {{name: shop, namespace: shop}}\nspec:\n  repository: {{name: \
             fleet}}\n  path: {path}\n{more}{changes}"
        );
        write(root, "of.yaml", &sync);
        let explain = ["build", "--sync", "of.yaml", "--explain"];
        let text = printed(root, &explain);
        let is_step = |line: &&str| line.starts_with(|first: char| first.is_alphabetic()) && line.contains(": ");
        assert_eq!(
            text.lines().filter(is_step).collect::<Vec<_>>(),
            [
                "rendered: 2 objects",
                "components: 1 added, 1 changed, 1 unchanged",
                "nameSuffix: 3 changed",
                "commonAnnotations: 3 changed",
                "patches[0]: 1 removed, 2 unchanged",
            ],
            "{of}: {text}"
        );
        for part in [
            "added ConfigMap shop/made-",
            "+  paused: true\n",
            "-  name: o-web\n+  name: o-web-s\n",
            "example.com/owner: shop\n",
            "removed ConfigMap shop/o-map-s",
            place,
        ] {
            assert!(text.contains(part), "{of}: {part}: {text}");
        }
        // After the last change, the objects are those that `gitseal build --sync` prints.
        let json: serde_json::Value =
            serde_json::from_str(&printed(root, &[&explain[..], &["-o", "json"]].concat())).unwrap();
        let names: Vec<_> = json["steps"][2]["changes"].as_array().unwrap().iter().map(|one| &one["name"]).collect();
        let built = printed(root, &["build", "--sync", "of.yaml"]);
        for name in names {
            let name = name.as_str().unwrap();
            assert_eq!(built.contains(&format!("name: {name}\n")), !name.starts_with("o-map"), "{name}: {built}");
        }
    }
}
