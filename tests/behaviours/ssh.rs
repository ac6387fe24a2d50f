//! Git over SSH: keys, known servers, and what a Repository says if a login fails.

mod forge;
mod hostile;
mod openssh;

use anyhow::{Context, Result, ensure};
use crds::{ConditionStatus, Repository};
use harness::{
    Scene, eventually,
    git::WorkTree,
    kubernetes,
    ssh::{KeyPair, SshOptions, SshServer},
};
use kube::Api;
use serde_json::{Value, json};

use crate::objects::config_map;

/// Writes the Secret `git-ssh`, and makes a Repository that uses it.
async fn repository(scene: &Scene, url: &str, identity: &str, hosts: &str, password: Option<&str>) -> Result<()> {
    let mut data = json!({"identity": identity, "known_hosts": hosts});
    if let Some(password) = password {
        data["password"] = password.into();
    }
    let secret = json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "git-ssh"}, "stringData": data});
    kubernetes::apply(&scene.client, &scene.namespace, secret).await?;
    scene.repository(json!({"url": url, "secretRef": {"name": "git-ssh"}})).await
}

/// Requests a fetch, and waits until the Repository has the newest commit of the work tree.
async fn fetches(scene: &Scene, tree: &WorkTree) -> Result<String> {
    let revision = format!("main@sha1:{}", tree.head()?);
    scene.fetch().await?;
    is_ready(scene, &revision).await?;
    Ok(revision)
}

async fn is_ready(scene: &Scene, revision: &str) -> Result<()> {
    let api: Api<Repository> = scene.api();
    eventually("the commit to be fetched", || async {
        let status = api.get("repo").await?.status.unwrap_or_default();
        ensure!(status.revision.as_deref() == Some(revision), "{status:?}");
        let ready = crds::find_condition(&status.conditions, "Ready").context("no condition")?;
        ensure!(ready.status == ConditionStatus::True, "{ready:?}");
        Ok(())
    })
    .await
}

/// A scene whose Repository is on an SSH server, with a commit that has the ConfigMap `from-git`.
struct Place {
    scene: Scene,
    server: SshServer,
    tree: WorkTree,
}

impl Place {
    async fn new(name: &str, options: SshOptions) -> Result<Self> {
        let (scene, server) = (Scene::new(name).await?, SshServer::start(options).await?);
        let tree = server.create("team/app")?;
        tree.write("app/a.yaml", config_map("from-git", "1"))?;
        tree.publish("the first commit")?;
        Ok(Self { scene, server, tree })
    }

    /// Lets the key read the repository, and no other key any more.
    fn authorize(&self, key: &KeyPair) -> Result<()> {
        self.server.authorize(&key.public, "team/app")
    }

    async fn secret(&self, identity: &str, hosts: &str, password: Option<&str>) -> Result<()> {
        repository(&self.scene, &self.server.url("team/app"), identity, hosts, password).await
    }

    async fn fetches(&self) -> Result<String> {
        fetches(&self.scene, &self.tree).await
    }
}

#[tokio::test]
async fn a_deploy_key_of_every_type_is_enough_and_can_be_exchanged() -> Result<()> {
    let place = Place::new("deploy-keys", SshOptions::default()).await?;
    let hosts = place.server.known_hosts()?;
    place.scene.sync("app", "./app", json!({})).await?;
    for (number, (arguments, passphrase)) in [
        (&["-t", "ed25519"][..], None),
        (&["-t", "ecdsa", "-b", "256"], None),
        (&["-t", "ecdsa", "-b", "521"], None),
        (&["-t", "rsa", "-b", "3072"], None),
        (&["-t", "rsa", "-b", "3072", "-m", "PEM"], None),
        (&["-t", "rsa", "-b", "3072", "-m", "PEM"], Some("words of a passphrase")),
        (&["-t", "ecdsa", "-b", "384", "-m", "PKCS8"], None),
        (&["-t", "ed25519", "-Z", "aes256-cbc"], Some("more words of a passphrase")),
    ]
    .into_iter()
    .enumerate()
    {
        let key = KeyPair::new(arguments, passphrase.unwrap_or_default())?;
        place.authorize(&key)?;
        if number > 0 {
            // The key of the Secret is the one before.
            place.scene.fetch().await?;
            let told = place.scene.repository_fails("AuthenticationFailed").await?;
            ensure!(told.contains("for the user git: add its public key as a deploy key"), "{told}");
        }
        let value = number.to_string();
        place.tree.write("app/a.yaml", config_map("from-git", &value))?;
        place.tree.publish(&value)?;
        place.secret(&key.private, &hosts, passphrase).await?;
        let revision = place.fetches().await.with_context(|| arguments.join(" "))?;
        place.scene.is_applied("app", &revision).await?;
        place.scene.has("v1", "ConfigMap", "from-git", json!({"data": {"value": value}})).await?;
    }
    Ok(())
}

#[tokio::test]
async fn tags_ranges_and_commits_are_found_over_ssh() -> Result<()> {
    let place = Place::new("references", SshOptions::default()).await?;
    let key = KeyPair::ed25519()?;
    place.authorize(&key)?;
    let first = place.tree.head()?;
    place.tree.tag("v1.2.0")?;
    place.tree.write("app/a.yaml", config_map("from-git", "2"))?;
    place.tree.publish("the second commit")?;
    place.tree.tag("v1.3.0")?;
    place.tree.push()?;
    let second = place.tree.head()?;
    place.secret(&key.private, &place.server.known_hosts()?, None).await?;
    let api: Api<Repository> = place.scene.api();
    let follow = async |reference: Value| {
        let mut all = json!({"branch": null, "tag": null, "semver": null, "commit": null, "digest": null});
        for (name, value) in reference.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        let patch = kube::api::Patch::Merge(json!({"spec": {"ref": all}}));
        api.patch("repo", &kube::api::PatchParams::default(), &patch).await
    };
    for (reference, revision) in [
        (json!({"tag": "v1.2.0"}), format!("v1.2.0@sha1:{first}")),
        (json!({"semver": "1.x"}), format!("v1.3.0@sha1:{second}")),
        (json!({"commit": first}), format!("sha1:{first}")),
        (json!({"branch": "main"}), format!("main@sha1:{second}")),
    ] {
        follow(reference.clone()).await?;
        is_ready(&place.scene, &revision).await.with_context(|| reference.to_string())?;
    }
    follow(json!({"branch": "mian"})).await?;
    let told = place.scene.repository_fails("ReferenceNotFound").await?;
    ensure!(told.contains("the branches are: main"), "{told}");
    // The question which branches there are came over the same connection.
    let (logins, commands) = (place.server.count("login")?, place.server.count("run")?);
    ensure!(commands > logins, "{logins} logins, and {commands} commands");
    Ok(())
}

#[tokio::test]
async fn an_unknown_server_is_told_with_the_line_that_makes_it_known() -> Result<()> {
    let place = Place::new("unknown-host", SshOptions::default()).await?;
    let key = KeyPair::ed25519()?;
    place.authorize(&key)?;
    let other = format!("other.example {}", key.public);
    place.secret(&key.private, &other, None).await?;
    let told = place.scene.repository_fails("HostKeyUnknown").await?;
    let (_, line) = told.split_once("add this line to known_hosts: ").context(told.clone())?;
    ensure!(line == place.server.known_hosts()?.trim(), "{told}");
    place.secret(&key.private, &format!("{other}{line}\n"), None).await?;
    place.fetches().await.map(drop)
}

#[tokio::test]
async fn a_server_with_another_key_gets_nothing_and_the_last_revision_stays() -> Result<()> {
    let place = Place::new("changed-host", SshOptions::default()).await?;
    let (own, strange) = (KeyPair::ed25519()?, KeyPair::ed25519()?);
    place.authorize(&own)?;
    let hosts = place.server.known_hosts()?;
    place.secret(&own.private, &hosts, None).await?;
    place.scene.sync("app", "./app", json!({})).await?;
    let revision = place.fetches().await?;
    place.scene.is_applied("app", &revision).await?;
    let logins = place.server.count("login")?;

    let names = hosts.split(' ').next().unwrap_or_default();
    place.tree.write("app/a.yaml", config_map("from-git", "2"))?;
    place.tree.publish("behind a changed key")?;
    place.secret(&own.private, &format!("# changed\n{names} {}", strange.public), None).await?;
    place.scene.fetch().await?;
    let told = place.scene.repository_fails("HostKeyChanged").await?;
    ensure!(told.contains("than line 2 of known_hosts") && told.contains("Nothing was sent"), "{told}");
    ensure!(told.contains(hosts.trim()), "{told}");
    place.secret(&own.private, &format!("{hosts}@revoked {hosts}"), None).await?;
    place.scene.fetch().await?;
    let told = place.scene.repository_fails("HostKeyRevoked").await?;
    ensure!(told.contains("line 2 of known_hosts"), "{told}");
    ensure!(place.server.count("login")? == logins && place.server.count("refused")? == 0, "it was sent a key");
    place.scene.has("v1", "ConfigMap", "from-git", json!({"data": {"value": "1"}})).await?;

    place.secret(&own.private, &hosts, None).await?;
    let revision = place.fetches().await?;
    place.scene.is_applied("app", &revision).await.map(drop)
}

#[tokio::test]
async fn a_certificate_of_a_server_is_as_good_as_its_authority() -> Result<()> {
    let key = KeyPair::ed25519()?;
    let good = Place::new("certificate", SshOptions { certified_for: Some("127.0.0.1"), ..Default::default() }).await?;
    good.authorize(&key)?;
    good.secret(&key.private, &good.server.authority()?, None).await?;
    good.fetches().await?;
    let bad = SshServer::start(SshOptions { certified_for: Some("git.example"), ..Default::default() }).await?;
    repository(&good.scene, &bad.url("team/app"), &key.private, &bad.authority()?, None).await?;
    let told = good.scene.repository_fails("HostCertificateRefused").await?;
    ensure!(told.contains("principal"), "{told}");
    Ok(())
}

#[tokio::test]
async fn keys_that_open_nothing_are_told_by_their_kind() -> Result<()> {
    let place = Place::new("wrong-keys", SshOptions::default()).await?;
    let hosts = place.server.known_hosts()?;
    let (own, locked) = (KeyPair::ed25519()?, KeyPair::new(&["-t", "ed25519"], "words of a passphrase")?);
    place.authorize(&locked)?;
    for (identity, known_hosts, password, reason, text) in [
        (own.private.as_str(), hosts.as_str(), None, "AuthenticationFailed", "add its public key as a deploy key"),
        (&locked.private, &hosts, None, "InvalidCredentials", "add the passphrase as password"),
        (&locked.private, &hosts, Some("one word"), "InvalidCredentials", "password is not the passphrase of identity"),
        (&own.public, &hosts, None, "InvalidCredentials", "identity is a public key"),
        (&own.private, "git.example ssh-ed25519\n", None, "InvalidCredentials", "line 1 of known_hosts"),
    ] {
        place.secret(identity, known_hosts, password).await?;
        place.scene.fetch().await?;
        let told = place.scene.repository_fails(reason).await?;
        ensure!(told.contains(text), "{told}");
    }
    // A key of this server that may not read this repository.
    place.server.authorize(&own.public, "team/other")?;
    place.secret(&own.private, &hosts, None).await?;
    place.scene.fetch().await?;
    let told = place.scene.repository_fails("RepositoryNotFound").await?;
    ensure!(told.contains("that the credentials may read it"), "{told}");
    Ok(())
}

#[tokio::test]
async fn an_edit_ends_a_fetch_over_ssh() -> Result<()> {
    let server = SshServer::start(SshOptions { trouble: "hangs at data", ..Default::default() }).await?;
    let (scene, key) = (Scene::new("edited-ssh").await?, KeyPair::ed25519()?);
    server.authorize(&key.public, "team/app")?;
    repository(&scene, &server.url("team/app"), &key.private, &server.known_hosts()?, None).await?;
    eventually("the fetch to hang", || async {
        ensure!(server.count("run")? > 0);
        Ok(())
    })
    .await?;
    scene.tree.write("app/a.yaml", config_map("from-git", "1"))?;
    let commit = scene.tree.publish("by another way")?;
    scene.repository(json!({"url": scene.server.url("repo"), "secretRef": null})).await?;
    is_ready(&scene, &format!("main@sha1:{commit}")).await?;
    eventually("the connection to end", || async {
        ensure!(server.count("closed")? == server.count("connected")?, "{}", server.log()?);
        Ok(())
    })
    .await
}

#[tokio::test]
async fn ssh_without_a_secret_is_refused_by_the_api_server() -> Result<()> {
    let scene = Scene::new("no-key").await?;
    for url in ["ssh://git@git.example/a", "git@git.example:a"] {
        let refused = scene.repository(json!({"url": url})).await.expect_err(url);
        ensure!(format!("{refused:#}").contains("needs a private key"), "{refused:#}");
    }
    Ok(())
}
