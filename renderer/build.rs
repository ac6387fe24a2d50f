//! Builds the worker process (`go/`) into the folder of the programs that start it, for example
//! `target/debug/gitseal-renderer`, and tells the crate which build it is.
//!
//! Without Go, everything else is still built. Then each command that needs the worker fails and says that the worker
//! is missing.

use std::{
    env,
    path::{Path, PathBuf},
    process::Command,
};

/// The release of Kustomize whose libraries are in go/go.mod. Kustomize writes it into a label if a kustomization has
/// `buildMetadata: [managedByLabel]`.
const KUSTOMIZE: &str = "v5.8.1";
const KUSTOMIZE_VERSION: &str = "-X sigs.k8s.io/kustomize/api/provenance.version";
/// The release of Helm whose libraries are in go/go.mod. Templates read it as `.Capabilities.HelmVersion`.
const HELM: &str = "v4.3.1";
const HELM_VERSION: &str = "-X helm.sh/helm/v4/internal/version.version";

fn main() {
    println!("cargo::rerun-if-changed=go");
    println!("cargo::rerun-if-changed=../worker/confine");
    println!("cargo::rustc-env=KUSTOMIZE={KUSTOMIZE}");
    println!("cargo::rustc-env=HELM={HELM}");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // target/debug/build/gitseal-renderer-HASH/out
    let programs = out.ancestors().nth(3).expect("OUT_DIR has at least three folders above it");
    let program = programs.join("gitseal-renderer");
    let built = Command::new("go")
        .args([
            "build",
            "-trimpath",
            &format!("-ldflags=-s -w {KUSTOMIZE_VERSION}={KUSTOMIZE} {HELM_VERSION}={HELM}"),
            "-o",
        ])
        .arg(&program)
        .arg(".")
        .current_dir("go")
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS")
        .status();
    match built {
        Ok(status) if status.success() => println!("cargo::rustc-env=WORKER={}", build_id(&program)),
        Ok(status) => panic!("go build of renderer/go ended with {status}"),
        Err(error) => {
            println!("cargo::rustc-env=WORKER=");
            println!(
                "cargo::warning=go could not be started ({error}): gitseal-renderer is not built, so nothing is rendered with Kustomize or Helm"
            );
        }
    }
}

/// What Go computes of everything that a program is made of: another source, library or compiler gives another text.
fn build_id(program: &Path) -> String {
    let output = Command::new("go").args(["tool", "buildid"]).arg(program).output().expect("go was just started");
    let id = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert!(output.status.success() && !id.is_empty(), "go tool buildid: {}", String::from_utf8_lossy(&output.stderr));
    id
}
