//! Runs `gitseal` under the name kubeseal, and the real kubeseal, with the same arguments, and compares the results.

mod cluster;
mod invocations;
mod pair;

use anyhow::{Result, ensure};
use serde_json::{Value, json};

use self::invocations::{SECRET, invocations, key_list};
use self::pair::{Case, Like, Pair, Program};

/// Runs every invocation of the table with both programs.
#[test]
fn every_invocation_ends_as_kubeseal_s() -> Result<()> {
    let pair = Pair::new()?;
    let cases = invocations(&pair)?;
    assert!(cases.len() >= 100, "{} invocations", cases.len());
    let different: Vec<String> =
        cases.iter().filter_map(|case| pair.difference(case).err()).map(|e| format!("{e:#}")).collect();
    assert!(different.is_empty(), "{} of {} differ:\n{}", different.len(), cases.len(), different.join("\n"));
    Ok(())
}

/// Each program can read the other's output, merge into it, and read the result.
#[test]
fn each_reads_and_extends_what_the_other_wrote() -> Result<()> {
    let pair = Pair::new()?;
    for (writer, reader) in [(Program::Ours, Program::Theirs), (Program::Theirs, Program::Ours)] {
        for format in ["json", "yaml"] {
            for scope in ["strict", "namespace-wide", "cluster-wide"] {
                let seal = ["--cert=cert.pem", "--format", format, "--scope", scope];
                let sealed = pair.run(writer, &Case::new(&seal).stdin(SECRET))?.text()?;
                let recover = ["--recovery-unseal", "--recovery-private-key=key.pem", "--format", "json"];
                let secret: Value =
                    serde_json::from_str(&pair.run(reader, &Case::new(&recover).stdin(&sealed))?.text()?)?;
                let values = json!({"password": "aHVudGVyMg==", "user": "YWRtaW4="});
                ensure!(secret["data"] == values, "{scope} {format}: {}", secret["data"]);

                let more = "metadata: {name: x}\nstringData: {user: root, port: 5432}\n";
                let merge = [&seal[..], &["--merge-into=sealed", "-n", "shop"]].concat();
                let merged = pair.run(reader, &Case::new(&merge).stdin(more).file("sealed", &sealed))?;
                let merged = merged.file("sealed")?;
                let secret = pair.run(writer, &Case::new(&recover).stdin(&merged))?.text()?;
                let secret: Value = serde_json::from_str(&secret)?;
                let values = json!({"password": "aHVudGVyMg==", "user": "cm9vdA==", "port": "NTQzMg=="});
                ensure!(secret["data"] == values, "{scope} {format}: {}", secret["data"]);
            }
        }
    }
    Ok(())
}

/// A single value that one program sealed can be unsealed by the other as a part of a SealedSecret.
#[test]
fn each_opens_the_single_values_of_the_other() -> Result<()> {
    let pair = Pair::new()?;
    for (writer, reader) in [(Program::Ours, Program::Theirs), (Program::Theirs, Program::Ours)] {
        let raw = ["--raw", "--cert=cert.pem", "-n", "shop", "--name=db"];
        let value = pair.run(writer, &Case::new(&raw).stdin("hunter2\n"))?.text()?;
        let sealed = format!(
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: db, namespace: shop}}\n\
             spec: {{encryptedData: {{a: {value}}}}}\n"
        );
        let recover = ["--recovery-unseal", "--recovery-private-key=keys.json"];
        let case = Case::new(&recover).stdin(&sealed).file("keys.json", &key_list()?);
        let secret: Value = serde_json::from_str(&pair.run(reader, &case)?.text()?)?;
        ensure!(secret["data"] == json!({"a": "aHVudGVyMgo="}), "{}", secret["data"]);
    }
    Ok(())
}

/// Intended differences: cases in which kubeseal loses data, crashes, or prints incomplete output.
#[test]
fn what_kubeseal_breaks_is_not_broken() -> Result<()> {
    let pair = Pair::new()?;
    let sealed = pair.run(Program::Theirs, &Case::new(&["--cert=cert.pem", "-oyaml"]).stdin(SECRET))?.text()?;
    let two = format!("{sealed}{sealed}");
    let merge = Case::new(&["--cert=cert.pem", "-oyaml", "--merge-into=sealed.yaml"]);

    // kubeseal loses the second document. We refuse the file.
    let case = merge.clone().stdin(SECRET).file("sealed.yaml", &two);
    ensure!(pair.run(Program::Theirs, &case)?.file("sealed.yaml")?.matches("kind: SealedSecret").count() == 1);
    let ours = pair.run(Program::Ours, &case)?;
    ensure!(ours.code == 1 && ours.file("sealed.yaml")? == two, "{ours:?}");

    // kubeseal crashes at the first annotation of a template. We merge it.
    let annotated = SECRET.replace("{name: db,", "{annotations: {a: b}, name: db,");
    let case = merge.stdin(&annotated).file("sealed.yaml", &sealed);
    let theirs = pair.run(Program::Theirs, &case)?;
    ensure!(theirs.code == 2 && theirs.stderr.starts_with("panic: "), "{theirs:?}");
    let ours = pair.run(Program::Ours, &case)?;
    ensure!(ours.code == 0 && ours.file("sealed.yaml")?.contains("annotations:\n        a: b\n"), "{ours:?}");

    // kubeseal silently leaves out a broken document. We report an error.
    let case = Case::new(&["--cert=cert.pem"]).stdin(&format!("{SECRET}---\nkind: [\n"));
    ensure!(pair.run(Program::Theirs, &case)?.code == 0);
    let ours = pair.run(Program::Ours, &case)?;
    ensure!(ours.code == 1 && ours.stdout.is_empty() && ours.stderr.starts_with("error: "), "{ours:?}");

    // kubeseal prints half of the output before the error. We print nothing.
    let case = Case::new(&["--cert=cert.pem"]).stdin(&format!("{SECRET}---\nstringData: {{a: b}}\n"));
    let theirs = pair.run(Program::Theirs, &case)?;
    ensure!(theirs.code == 1 && !theirs.stdout.is_empty(), "{theirs:?}");
    let ours = pair.run(Program::Ours, &case)?;
    ensure!(ours.code == 1 && ours.stdout.is_empty() && ours.stderr == theirs.stderr, "{ours:?}");
    Ok(())
}

/// Strings that need quotes, folding or escapes, as keys and as values, are written exactly as kubeseal writes them.
#[test]
fn any_text_is_written_as_kubeseal_writes_it() -> Result<()> {
    let pair = Pair::new()?;
    for annotations in invocations::texts() {
        let secret = json!({
            "apiVersion": "v1", "kind": "Secret", "stringData": {"a": "b"},
            "metadata": {"name": "db", "namespace": "shop", "annotations": annotations},
        });
        for format in ["json", "yaml"] {
            let case = Case::new(&["--cert=cert.pem", "-o", format]).stdin(&secret.to_string()).like(Like::Same);
            pair.difference(&case)?;
        }
    }
    Ok(())
}
