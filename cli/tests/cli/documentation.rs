//! Tests of the help, the manual, the version, and claims of the documentation.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::{gitseal, gitseal_in, stderr, stdout};

const COMMANDS: [&str; 19] = [
    "seal",
    "unseal",
    "reseal",
    "validate",
    "cert",
    "keys",
    "status",
    "trace",
    "history",
    "events",
    "sync",
    "suspend",
    "resume",
    "diff",
    "install",
    "uninstall",
    "completions",
    "man",
    "version",
];

#[test]
fn help_names_every_command() {
    let help = stdout(&gitseal(&["--help"]));
    for command in COMMANDS {
        assert!(help.contains(&format!("\n  {command}")), "{command} is missing:\n{help}");
        let own = stdout(&gitseal(&[command, "--help"]));
        assert!(own.contains(&format!("Usage: gitseal {command}")), "{own}");
    }
}

#[test]
fn the_version_is_the_package_s() {
    let version = env!("CARGO_PKG_VERSION");
    assert_eq!(stdout(&gitseal(&["version"])), format!("gitseal {version}\n"));
    assert_eq!(stdout(&gitseal(&["--version"])), format!("gitseal {version}\n"));
    assert_eq!(stdout(&gitseal(&["version", "-o", "yaml"])), format!("version: \"{version}\"\n"));
}

#[test]
fn a_wrong_option_is_a_usage_error() {
    let output = gitseal(&["status", "--no-such-option"]);
    assert_eq!(output.status.code(), Some(2));
    assert!(stderr(&output).starts_with("error: "), "{}", stderr(&output));
}

#[test]
fn the_manual_has_a_page_per_command() {
    let folder = tempfile::tempdir().expect("a temporary folder");
    stdout(&gitseal_in(folder.path(), &["man", "--dir", "man1"]));
    for command in COMMANDS {
        let page = folder.path().join(format!("man1/gitseal-{command}.1"));
        let text = std::fs::read_to_string(&page).unwrap_or_else(|error| panic!("{}: {error}", page.display()));
        assert!(text.contains(".TH"), "{command}: {text}");
    }
    assert!(stdout(&gitseal(&["man"])).contains(".TH gitseal"));
}

#[test]
fn without_a_cluster_the_error_says_what_to_do() {
    for command in [&["status"][..], &["sync", "web"], &["cert"]] {
        let output = gitseal(command);
        let text = stderr(&output);
        assert_eq!(output.status.code(), Some(1), "{text}");
        assert!(text.starts_with("error: "), "{text}");
        assert!(text.contains("\nhint: "), "{text}");
        assert!(!text.contains('\u{1b}'), "colours without a terminal: {text}");
    }
}

/// The folder of the repository.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the repository")
}

#[test]
fn the_security_page_names_files_that_are_there() {
    let page = fs::read_to_string(root().join("SECURITY.md")).expect("the page");
    let is_rust = |code: &str| Path::new(code).extension().is_some_and(|extension| extension == "rs");
    let named = page.split('`').skip(1).step_by(2).filter(|code| code.contains('/') && is_rust(code));
    let named: Vec<_> = named.collect();
    assert!(named.len() > 5, "{named:?}");
    for file in named {
        assert!(root().join(file).is_file(), "{file}");
    }
}

/// The lines with `unsafe` code, without comments and without the lint `unsafe_code`.
fn unsafe_lines(file: &Path) -> Vec<String> {
    let text = fs::read_to_string(file).expect("a source file");
    let code = text.lines().map(|line| line.split("//").next().unwrap_or_default().replace("unsafe_code", ""));
    code.filter(|line| line.split(|c: char| !c.is_alphanumeric() && c != '_').any(|word| word == "unsafe")).collect()
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("a folder").map(|entry| entry.expect("an entry").path());
    let all = entries.flat_map(|path| if path.is_dir() { sources(&path) } else { vec![path] });
    all.filter(|path| path.extension().is_some_and(|extension| extension == "rs")).collect()
}

#[test]
fn what_reads_hostile_files_has_no_unsafe_code() {
    let page = fs::read_to_string(root().join("SECURITY.md")).expect("the page");
    let (_, after) = page.split_once("key files (").expect("the crates are named");
    let named: Vec<_> = after.split(')').next().unwrap_or_default().split(',').map(str::trim).collect();
    assert!(named.contains(&"granit-parser") && named.len() == 5, "{named:?}");
    let mut cargo = Command::new(env!("CARGO"));
    // Crates that are needed only on other operating systems may not have been downloaded.
    let platform = format!("--filter-platform={}-unknown-linux-gnu", std::env::consts::ARCH);
    cargo.args(["metadata", "--format-version=1", "--offline", "--locked", &platform]).current_dir(root());
    let output = cargo.output().expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let packages = metadata["packages"].as_array().expect("packages");
    for name in named {
        let package = packages.iter().find(|package| package["name"] == name).expect(name);
        let manifest = Path::new(package["manifest_path"].as_str().expect("a path"));
        let files = sources(&manifest.with_file_name("src"));
        assert!(files.len() > 3, "{name}: {files:?}");
        for file in files {
            assert_eq!(unsafe_lines(&file), Vec::<String>::new(), "{}", file.display());
        }
    }
}

#[test]
fn no_crate_of_the_workspace_has_unsafe_code() {
    let workspace = fs::read_to_string(root().join("Cargo.toml")).expect("the workspace");
    assert!(workspace.contains("\nunsafe_code = \"forbid\"\n"));
    let members = workspace.split("members = [").nth(1).and_then(|rest| rest.split(']').next()).expect("members");
    let members: Vec<_> = members.split('"').skip(1).step_by(2).collect();
    assert!(members.contains(&"sealing") && members.contains(&"controller"), "{members:?}");
    for member in members {
        let manifest = fs::read_to_string(root().join(member).join("Cargo.toml")).expect(member);
        assert!(manifest.contains("[lints]\nworkspace = true\n"), "{member} has lints of its own");
    }
}
