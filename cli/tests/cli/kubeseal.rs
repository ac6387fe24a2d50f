//! `gitseal` under the name kubeseal, offline. The comparison with the real kubeseal is in `tests/behaviours/kubeseal.rs`.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::process::{Command, Output};

use serde_json::{Value, json};

use crate::workplace::{Workplace, certificate, run_as};
use crate::{gitseal, stderr, stdout};

const SECRET: &str =
    "apiVersion: v1\nkind: Secret\nmetadata: {name: db, namespace: shop}\nstringData: {password: hunter2}\n";

/// Runs `gitseal` as kubeseal in a workplace.
fn kubeseal(here: &Workplace, arguments: &[&str], input: &str) -> Output {
    let program = here.path("bin/kubeseal");
    if !program.exists() {
        fs::create_dir_all(here.path("bin")).unwrap();
        symlink(env!("CARGO_BIN_EXE_gitseal"), &program).unwrap();
    }
    run_as(&program, &here.path("."), arguments, input)
}

fn seal(here: &Workplace, arguments: &[&str], input: &str) -> String {
    stdout(&kubeseal(here, &[&["--cert", "cert.pem"], arguments].concat(), input))
}

fn recover(here: &Workplace, sealed: &str) -> Value {
    let output = kubeseal(here, &["--recovery-unseal", "--recovery-private-key", "key.pem"], sealed);
    serde_json::from_str(&stdout(&output)).unwrap()
}

#[test]
fn it_is_kubeseal_by_that_name_alone() {
    let here = Workplace::new();
    let version = "kubeseal version: 0.36.6\n";
    for name in ["kubeseal", "kubeseal.exe"] {
        let program = here.path(name);
        symlink(env!("CARGO_BIN_EXE_gitseal"), &program).unwrap();
        assert_eq!(stdout(&run_as(&program, &here.path("."), &["--version"], "")), version, "{name}");
    }
    assert_eq!(stdout(&gitseal(&["kubeseal", "--version"])), version);
    let lost = gitseal(&["--context", "x", "kubeseal", "--version"]);
    assert_eq!(lost.status.code(), Some(1));
    assert!(stderr(&lost).starts_with("error: flags cannot be given before kubeseal"), "{}", stderr(&lost));
    let other = here.path("seal-kube");
    symlink(env!("CARGO_BIN_EXE_gitseal"), &other).unwrap();
    assert!(stdout(&run_as(&other, &here.path("."), &["--version"], "")).starts_with("gitseal "));
}

#[test]
fn the_help_and_a_wrong_flag() {
    let here = Workplace::new();
    let help = stdout(&kubeseal(&here, &["--help"], ""));
    assert!(help.starts_with("Usage of kubeseal:\n") && help.contains("  -o, --format string  "), "{help}");
    assert_eq!(stdout(&kubeseal(&here, &["-h"], "")), help);
    let output = kubeseal(&here, &["--no-such-flag"], SECRET);
    assert_eq!((output.status.code(), output.stdout.len()), (Some(2), 0));
    assert!(stderr(&output).ends_with("\nunknown flag: --no-such-flag\n"), "{}", stderr(&output));
}

#[test]
fn what_is_sealed_is_recovered() {
    let here = Workplace::new();
    for arguments in [&[][..], &["-o", "yaml"], &["--scope", "cluster-wide"], &["--scope=namespace-wide", "-oyaml"]] {
        let sealed = seal(&here, arguments, SECRET);
        assert!(!sealed.contains("hunter2"), "{sealed}");
        let secret = recover(&here, &sealed);
        assert_eq!(secret["data"], json!({"password": "aHVudGVyMg=="}), "{arguments:?}");
        assert_eq!(here.unseal(&sealed)["data"], secret["data"], "gitseal reads it as well");
    }
}

#[test]
fn json_has_kubeseal_s_order_and_yaml_its_marker() {
    let here = Workplace::new();
    let sealed = seal(&here, &[], SECRET);
    let start = "{\n  \"kind\": \"SealedSecret\",\n  \"apiVersion\": \"bitnami.com/v1alpha1\",\n  \"metadata\": {\n    \"name\": \"db\",\n    \"namespace\": \"shop\"\n  },\n  \"spec\": {\n    \"template\": {\n      \"metadata\": {\n        \"name\": \"db\",\n        \"namespace\": \"shop\"\n      }\n    },\n    \"encryptedData\": {\n      \"password\": \"A";
    assert!(sealed.starts_with(start) && sealed.ends_with("\"\n    }\n  }\n}\n"), "{sealed}");
    let sealed = seal(&here, &["-o", "yaml"], &format!("{SECRET}---\n{SECRET}"));
    assert_eq!(sealed.matches("---\napiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\n").count(), 2, "{sealed}");
    assert!(sealed.ends_with("    metadata:\n      name: db\n      namespace: shop\n"), "{sealed}");
}

#[test]
fn a_single_value_has_no_newline() {
    let here = Workplace::new();
    let value = seal(&here, &["--raw", "-n", "shop", "--name", "db"], "hunter2");
    assert!(value.starts_with('A') && !value.ends_with('\n'), "{value}");
    let sealed = json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret", "metadata": {"name": "db", "namespace": "shop"},
        "spec": {"encryptedData": {"a": value}},
    });
    assert_eq!(recover(&here, &sealed.to_string())["data"], json!({"a": "aHVudGVyMg=="}));
}

#[test]
fn values_are_merged_into_a_file_at_once_or_not_at_all() {
    let here = Workplace::new();
    here.write("sealed.yaml", &seal(&here, &["-oyaml"], SECRET));
    fs::set_permissions(here.path("sealed.yaml"), fs::Permissions::from_mode(0o640)).unwrap();
    symlink("sealed.yaml", here.path("link.yaml")).unwrap();
    let more = "metadata: {name: other, namespace: shop}\nstringData: {user: admin}\n";
    assert_eq!(seal(&here, &["--merge-into", "link.yaml", "-oyaml"], more), "");
    let merged = here.read("sealed.yaml");
    let values = json!({"password": "aHVudGVyMg==", "user": "YWRtaW4="});
    assert_eq!(recover(&here, &merged)["data"], values);
    assert_eq!(fs::metadata(here.path("sealed.yaml")).unwrap().permissions().mode() & 0o777, 0o640);
    assert!(here.path("link.yaml").is_symlink());

    let refused = kubeseal(&here, &["--cert=cert.pem", "--merge-into=sealed.yaml", "-o", "xml"], more);
    assert_eq!(refused.status.code(), Some(1));
    assert_eq!(here.read("sealed.yaml"), merged);
    let names = here.list(".");
    assert!(names.iter().all(|name| !name.contains("tmp")), "{names:?}");
}

#[test]
fn a_merge_that_could_not_be_opened_is_warned_of() {
    let here = Workplace::new();
    here.write("sealed.json", &seal(&here, &["--scope=cluster-wide"], SECRET));
    let output = kubeseal(&here, &["--cert=cert.pem", "--merge-into=sealed.json"], SECRET);
    assert!(output.status.success());
    let warning = "warning: the SealedSecret in sealed.json is cluster-wide, but the new values were sealed strict: \
                   see --scope\n";
    assert_eq!(stderr(&output), warning);
}

#[test]
fn output_files_are_for_the_owner_and_their_name_chooses_the_format() {
    let here = Workplace::new();
    assert_eq!(seal(&here, &["-w", "out.yaml"], SECRET), "");
    assert!(here.read("out.yaml").starts_with("---\napiVersion: "));
    assert_eq!(fs::metadata(here.path("out.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    let sealed = here.read("out.yaml");
    here.write("secret.yaml", "before");
    let recover = ["--recovery-unseal", "--recovery-private-key=key.pem", "-w", "secret.yaml"];
    assert_eq!(stdout(&kubeseal(&here, &recover, &sealed)), "");
    assert!(here.read("secret.yaml").contains("password: aHVudGVyMg=="));
    assert_eq!(fs::metadata(here.path("secret.yaml")).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(stdout(&kubeseal(&here, &[&recover[..3], &["/dev/stdout"]].concat(), &sealed)).contains("aHVudGVyMg=="));
}

#[test]
fn errors_start_with_error_and_print_nothing_else() {
    let here = Workplace::new();
    here.write("old.pem", &certificate(-48, 24));
    let two = format!("{SECRET}---\nstringData: {{a: b}}\n");
    for (arguments, input, message) in [
        (&["--cert=cert.pem"][..], "", "no secrets found. Ensure the input is valid and UTF-8 encoded\n"),
        (&["--cert=cert.pem"], two.as_str(), "missing metadata.name in input Secret\n"),
        (&["--cert=old.pem"], SECRET, "failed to encrypt using an expired certificate on "),
        (&["--cert=missing.pem"], SECRET, "open missing.pem: no such file or directory\n"),
        (
            &["--cert=cert.pem", "-n", "other"],
            SECRET,
            "namespace mismatch: input secret is in namespace \"shop\" but \"other\" was specified\n",
        ),
        (&["--cert=cert.pem", "--raw"], SECRET, "invalid configuration: no configuration has been provided"),
        (&["--fetch-cert"], "", "invalid configuration: no configuration has been provided"),
        (&["--validate"], SECRET, "invalid configuration: no configuration has been provided"),
    ] {
        let output = kubeseal(&here, arguments, input);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{arguments:?}");
        let text = stderr(&output);
        assert!(text.starts_with(&format!("error: {message}")), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn a_pin_from_the_environment_is_heeded() {
    let here = Workplace::new();
    let own = stdout(&here.run(&["cert", "--cert", "cert.pem", "-o", "json"]));
    let own: Value = serde_json::from_str(&own).unwrap();
    let pinned = |pin: &str| {
        Command::new(env!("CARGO_BIN_EXE_gitseal"))
            .args(["kubeseal", "--fetch-cert", "--cert", "cert.pem"])
            .current_dir(here.path("."))
            .env_clear()
            .env("GITSEAL_CERT_FINGERPRINT", pin)
            .output()
            .unwrap()
    };
    assert_eq!(stdout(&pinned(own["fingerprint"].as_str().unwrap())), here.read("cert.pem"));
    for wrong in [format!("sha256:{}", "0".repeat(64)), "nonsense".to_owned()] {
        let output = pinned(&wrong);
        assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{wrong}");
        assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
    }
}
