//! Charts of a chart repository with provenance files, made by the real `helm package --sign` with keys of the real `gpg`.

use std::{fs, path::Path, process::Command};

use anyhow::{Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{
    Plane, Scene, chart_repository::ChartServer, charts::package_with, git::ServerOptions, kubernetes, programs::run,
    registry::digest_of, web::Access,
};
use serde_json::json;

use crate::{objects::is_value, remote::is_fetched};

/// `gpg` with a home of its own.
struct Gpg(tempfile::TempDir);

impl Gpg {
    /// Makes a key of this person.
    fn with_key(who: &str) -> Result<Self> {
        let gpg = Self(tempfile::tempdir()?);
        gpg.run(&["--quick-generate-key", who, "rsa2048", "cert,sign", "0"])?;
        let ring = gpg.ring();
        gpg.run(&["--output", &ring, "--export-secret-keys", who])?;
        gpg.run(&["--armor", "--output", &format!("{ring}.asc"), "--export", who])?;
        Ok(gpg)
    }

    fn run(&self, arguments: &[&str]) -> Result<()> {
        let mut command = Command::new("gpg");
        command.env("GNUPGHOME", self.0.path());
        command
            .args(["--batch", "--quiet", "--yes", "--pinentry-mode", "loopback", "--passphrase", ""])
            .args(arguments);
        run(&mut command).map(drop)
    }

    /// The file with the private key, for Helm.
    fn ring(&self) -> String {
        self.0.path().join("ring.gpg").display().to_string()
    }

    fn public_key(&self) -> Result<Vec<u8>> {
        Ok(fs::read(format!("{}.asc", self.ring()))?)
    }

    /// Packages and signs a chart with one ConfigMap. Returns the revision that it becomes.
    fn add(&self, who: &str, into: &Path, version: &str, value: &str) -> Result<String> {
        let map = format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: settings}}\ndata: {{value: {value}}}\n");
        let signing = ["--sign", "--key", who, "--keyring", &self.ring()];
        let archive = package_with(into, "hello", version, &[("templates/map.yaml", &map)], &signing)?;
        Ok(format!("{version}@{}", digest_of(&fs::read(archive)?)))
    }
}

impl Drop for Gpg {
    /// Ends the agent that gpg started for this home.
    fn drop(&mut self) {
        let _ = Command::new("gpgconf").env("GNUPGHOME", self.0.path()).args(["--kill", "all"]).status();
    }
}

#[tokio::test]
async fn only_a_chart_that_a_trusted_key_signed_is_applied() -> Result<()> {
    const OWNER: &str = "owner@charts.example";
    const STRANGER: &str = "stranger@charts.example";
    if Command::new("gpg").arg("--version").output().is_err() {
        return harness::skip("there is no gpg");
    }
    let (owner, stranger) = (Gpg::with_key(OWNER)?, Gpg::with_key(STRANGER)?);
    let scene = Scene::on(Plane::shared().await?, "provenance", ServerOptions::default()).await?;
    let server = ChartServer::start(Access::Anonymous)?;
    let secret = async |name: &str, key: &str, content: &[u8]| -> Result<()> {
        let data = json!({key: STANDARD.encode(content)});
        let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": data});
        kubernetes::apply(&scene.client, &scene.namespace, secret).await.map(drop)
    };
    secret("charts", "ca.crt", server.certificate_authority().as_bytes()).await?;
    secret("signers", "owner.asc", &owner.public_key()?).await?;
    let first = owner.add(OWNER, server.folder(), "1.0.0", "one")?;
    server.publish(None)?;
    let spec = json!({
        "url": server.url(), "chart": "hello", "ref": {"branch": null, "semver": "1.x"}, "secretRef": {"name": "charts"},
        "verify": {"mode": "Provenance", "secretRef": {"name": "signers"}},
    });
    scene.repository(spec).await?;
    scene.sync("app", "./", json!({"helm": {}})).await?;
    scene.is_applied("app", &first).await?;
    is_value(&scene, "settings", "one").await?;

    // A stranger signs, and nobody signs.
    stranger.add(STRANGER, server.folder(), "1.1.0", "stranger")?;
    server.publish(None)?;
    scene.fetch().await?;
    let message = scene.repository_fails("SignatureUntrusted").await?;
    ensure!(message.contains("1.1.0@sha256:") && message.contains("no trusted key"), "{message}");
    fs::remove_file(server.folder().join("hello-1.1.0.tgz.prov"))?;
    scene.fetch().await?;
    let message = scene.repository_fails("Unsigned").await?;
    ensure!(message.contains("helm package --sign"), "{message}");

    // The index calls an older chart, which the owner signed, by a newer version.
    let prov = |version: &str| server.folder().join(format!("hello-{version}.tgz.prov"));
    fs::copy(server.folder().join("hello-1.0.0.tgz"), server.folder().join("hello-1.1.0.tgz"))?;
    fs::copy(prov("1.0.0"), prov("1.1.0"))?;
    let index = fs::read_to_string(server.index())?;
    let digest =
        |revision: &str| revision.rsplit_once("sha256:").map(|(_, digest)| digest.to_owned()).unwrap_or_default();
    let other = message.split("1.1.0@sha256:").nth(1).unwrap_or_default().get(..64).unwrap_or_default().to_owned();
    ensure!(index.contains(&other), "{other}: {index}");
    fs::write(server.index(), index.replace(&other, &digest(&first)))?;
    scene.fetch().await?;
    let message = scene.repository_fails("SignatureUntrusted").await?;
    ensure!(message.contains("does not list hello-1.1.0.tgz"), "{message}");
    is_value(&scene, "settings", "one").await?;

    let next = owner.add(OWNER, server.folder(), "1.2.0", "next")?;
    server.publish(None)?;
    scene.fetch().await?;
    is_fetched(&scene, &next).await?;
    scene.is_applied("app", &next).await?;
    is_value(&scene, "settings", "next").await?;

    // Other keys are trusted: what is applied stays.
    secret("signers", "owner.asc", b"no key").await?;
    scene.fetch().await?;
    scene.repository_fails("InvalidTrustedKeys").await?;
    is_value(&scene, "settings", "next").await
}
