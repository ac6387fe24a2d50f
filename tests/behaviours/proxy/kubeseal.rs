//! Compares `gitseal` under the name kubeseal with the real kubeseal. Both get the same arguments and use the same
//! controller. Their output on both streams and their exit codes must be the same.

use std::{fs, os::unix::fs::symlink, path::Path, process::Command};

use anyhow::{Context, Result, ensure};
use harness::{network, programs, service};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{Proxied, UNLIMITED, said, secret};
use crate::cli::Said;

/// Both programs. Each has its own working directory, with the same files.
struct Both<'p, C> {
    proxied: &'p Proxied<C>,
    programs: [(Command, TempDir); 2],
}

impl<'p, C> Both<'p, C> {
    fn new(proxied: &'p Proxied<C>) -> Result<Self> {
        let program = |path: &Path| -> Result<(Command, TempDir)> {
            let folder = tempfile::tempdir()?;
            let link = folder.path().join("kubeseal");
            symlink(path, &link)?;
            Ok((Command::new(link), folder))
        };
        let real = program(&localcluster::parts::kubeseal()?)?;
        let ours = program(&programs::folder()?.join("gitseal"))?;
        Ok(Self { proxied, programs: [real, ours] })
    }

    /// Runs both programs, and checks that they print the same except for sealed values. Returns both outputs, that of
    /// the real kubeseal first.
    fn say(&self, arguments: &[&str], input: &str) -> Result<[Said; 2]> {
        let [real, ours] = self.ask(arguments, input)?;
        let seen = |said: &Said| (said.code, masked(&said.out), masked(&said.err));
        assert_eq!(seen(&ours), seen(&real), "kubeseal {}", arguments.join(" "));
        Ok([real, ours])
    }

    /// Runs both programs, and checks that both fail because of an error of the API server. Both messages must begin
    /// with `beginning`; the rest may differ.
    fn fail(&self, arguments: &[&str], input: &str, beginning: &str) -> Result<()> {
        for said in self.ask(arguments, input)? {
            ensure!(said.err.starts_with(beginning), "{}", said.err);
            let said = said.is(1, &[])?;
            assert_eq!((said.out.as_str(), said.err.lines().count()), ("", 1));
        }
        Ok(())
    }

    fn ask(&self, arguments: &[&str], input: &str) -> Result<[Said; 2]> {
        let run = |(program, folder): &(Command, TempDir)| {
            let mut command = Command::new(program.get_program());
            command.env("KUBECONFIG", self.proxied.plane.cluster.kubeconfig()).current_dir(folder.path());
            said(command.args(arguments), input)
        };
        let [real, ours] = &self.programs;
        Ok([run(real)?, run(ours)?])
    }

    /// Like [`Self::say`], and checks that both succeed.
    fn print(&self, arguments: &[&str], input: &str) -> Result<[String; 2]> {
        let [real, ours] = self.say(arguments, input)?;
        Ok([real.is(0, &[])?.out, ours.is(0, &[])?.out])
    }

    /// Puts a file into both working directories.
    fn write(&self, name: &str, content: &str) -> Result<()> {
        for (_, folder) in &self.programs {
            fs::write(folder.path().join(name), content)?;
        }
        Ok(())
    }

    /// Reads the file with this name from both directories, and checks that they are the same except for sealed values.
    fn read(&self, name: &str) -> Result<[String; 2]> {
        let [real, ours] = &self.programs;
        let read = |folder: &TempDir| fs::read_to_string(folder.path().join(name));
        let (real, ours) = (read(&real.1)?, read(&ours.1)?);
        assert_eq!(masked(&ours), masked(&real), "{name}");
        Ok([real, ours])
    }
}

/// The text with every sealed value replaced by its length, which depends only on the plaintext.
fn masked(text: &str) -> String {
    let is_sealed = |c: char| c.is_ascii_alphanumeric() || "+/=".contains(c);
    let mut masked = String::new();
    let mut rest = text;
    while let Some(start) = rest.find(is_sealed) {
        let end = rest[start..].find(|c| !is_sealed(c)).map_or(rest.len(), |length| start + length);
        let word = &rest[start..end];
        masked.push_str(&rest[..start]);
        if word.starts_with("AQ") && word.len() > 340 {
            masked.push_str(&format!("<{} sealed>", word.len()));
        } else {
            masked.push_str(word);
        }
        rest = &rest[end..];
    }
    masked + rest
}

/// Typical Secrets.
fn secrets() -> [String; 3] {
    let mut typed = secret("typed", &[("username", "admin"), ("password", "p\u{4e16} \"x\"\n")]);
    typed["type"] = json!("kubernetes.io/basic-auth");
    typed["metadata"]["labels"] = json!({"team": "a", "app.kubernetes.io/name": "db"});
    typed["metadata"]["annotations"] = json!({"note": "kept: as it is"});
    let mut immutable = secret("immutable", &[("empty", ""), ("long", &"x".repeat(3000))]);
    immutable["immutable"] = json!(true);
    [typed.to_string(), immutable.to_string(), secret("plain", &[("password", "one")]).to_string()]
}

fn certificates<C>(both: &Both<'_, C>) -> Result<()> {
    both.print(&["--fetch-cert"], "")?;
    both.print(&["--fetch-cert", "--controller-namespace=kube-system", "--controller-name", service::CONTROLLER], "")?;
    both.say(&["--fetch-cert", "--controller-name", "nobody"], "")?;
    both.say(&["--fetch-cert", "--controller-namespace", "nowhere"], "")?;
    Ok(())
}

/// In every scope and format, both programs print the same SealedSecrets, except for the sealed values.
fn sealing<C>(both: &Both<'_, C>) -> Result<()> {
    for plain in &secrets() {
        for scope in ["strict", "namespace-wide", "cluster-wide"] {
            for format in ["json", "yaml"] {
                let sealed = both.print(&["--scope", scope, "--format", format], plain)?;
                for sealed in &sealed {
                    both.print(&["--validate"], sealed)?;
                }
            }
        }
    }
    both.say(&["-o", "toml"], &secrets()[0])?;
    both.say(&[], "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n")?;
    both.say(&[], "")?;
    Ok(())
}

/// Each program validates and re-encrypts the values that the other one sealed.
fn again<C>(both: &Both<'_, C>) -> Result<()> {
    let [typed, ..] = secrets();
    let sealed = both.print(&["--format=yaml"], &typed)?;
    for sealed in &sealed {
        let again = both.print(&["--re-encrypt", "--format=yaml"], sealed)?;
        for again in &again {
            both.print(&["--validate"], again)?;
        }
        let moved = sealed.replace("name: typed", "name: moved");
        let [refused, _] = both.say(&["--validate"], &moved)?;
        refused.is(1, &["error: unable to decrypt sealed secret: moved"])?;
        both.fail(&["--re-encrypt"], &moved, "error: cannot re-encrypt secret: ")?;
    }
    both.say(&["--validate", "--controller-name", "nobody"], &sealed[0])?;
    Ok(())
}

/// Compares files into which SealedSecrets are merged, files that are written, and single values.
fn files<C>(both: &Both<'_, C>) -> Result<()> {
    let [typed, _, plain] = secrets();
    let more = plain.replace("\"plain\"", "\"typed\"").replace("password", "token");
    both.write("secret.json", &typed)?;
    both.print(&["--secret-file=secret.json", "--sealed-secret-file=sealed.yaml"], "")?;
    both.read("sealed.yaml")?;
    both.print(&["--merge-into=sealed.yaml", "--format=yaml"], &more)?;
    for merged in both.read("sealed.yaml")? {
        both.print(&["--validate"], &merged)?;
    }
    both.print(&["--re-encrypt", "--secret-file=sealed.yaml"], "")?;
    both.read("sealed.yaml")?;

    let raw = ["--raw", "--name=raw", "--namespace=default"];
    let values = both.print(&[&raw[..], &["--from-file=/dev/stdin"]].concat(), "one value")?;
    for value in &values {
        let sealed = json!({
            "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
            "metadata": {"name": "raw", "namespace": "default"}, "spec": {"encryptedData": {"a": value.trim()}},
        });
        both.print(&["--validate"], &sealed.to_string())?;
    }
    both.say(&["--raw", "--from-file=/dev/stdin"], "no name")?;
    Ok(())
}

/// The SealedSecrets of both programs are unsealed to the original Secrets.
async fn unsealed<C>(both: &Both<'_, C>) -> Result<()> {
    for (name, index) in [("by-theirs", 0), ("by-ours", 1)] {
        let plain = secret(name, &[("password", "sealed, and unsealed again")]).to_string();
        let sealed = &both.print(&["--format=json"], &plain)?[index];
        let parsed: Value = serde_json::from_str(sealed).context("JSON")?;
        ensure!(parsed["metadata"]["name"] == name);
        both.proxied.unseals(sealed, "sealed, and unsealed again").await?;
    }
    Ok(())
}

async fn alike<C>(proxied: &Proxied<C>) -> Result<()> {
    let both = Both::new(proxied)?;
    certificates(&both)?;
    sealing(&both)?;
    again(&both)?;
    files(&both)?;
    unsealed(&both).await
}

#[test]
fn kubeseal_by_name_is_kubeseal_to_our_controller() -> Result<()> {
    network::of_its_own(async || alike(&Proxied::ours(&UNLIMITED).await?).await)
}

#[test]
fn kubeseal_by_name_is_kubeseal_to_the_sealed_secrets_controller() -> Result<()> {
    network::of_its_own(async || alike(&Proxied::theirs(&UNLIMITED).await?).await)
}
