//! Builds the program that speaks SSH (`ssh/`) into the folder of the programs that start it, for example
//! `target/debug/gitseal-ssh`.
//!
//! Without Go, everything else is still built. Then a fetch over SSH fails and says that the program is missing.

use std::{env, path::PathBuf, process::Command};

fn main() {
    println!("cargo::rerun-if-changed=ssh");
    println!("cargo::rerun-if-changed=../worker/confine");
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR"));
    // target/debug/build/gitseal-gitstore-HASH/out
    let programs = out.ancestors().nth(3).expect("OUT_DIR has at least three folders above it");
    let built = Command::new("go")
        .args(["build", "-trimpath", "-ldflags=-s -w", "-o"])
        .arg(programs.join("gitseal-ssh"))
        .arg(".")
        .current_dir("ssh")
        .env("CGO_ENABLED", "0")
        .env_remove("GOFLAGS")
        .status();
    match built {
        Ok(status) if status.success() => {}
        Ok(status) => panic!("go build of gitstore/ssh ended with {status}"),
        Err(error) => println!(
            "cargo::warning=go could not be started ({error}): gitseal-ssh is not built, so nothing is fetched over SSH"
        ),
    }
}
