//! Git over SSH, with the SSH server of a real Gitea.

use anyhow::{Result, ensure};
use harness::{Scene, gitea::Gitea, ssh::KeyPair};

use super::{fetches, repository};
use crate::objects::config_map;

#[tokio::test]
#[ignore = "builds Gitea, which takes more than two minutes: for the night"]
async fn deploy_keys_of_a_real_forge_open_their_repository_only() -> Result<()> {
    let gitea = Gitea::start().await?;
    let scene = Scene::new("gitea").await?;
    let hosts = gitea.known_hosts()?;
    let (tree, other) = (gitea.create("app").await?, gitea.create("other").await?);
    for (number, arguments) in [&["-t", "ed25519"][..], &["-t", "ecdsa"], &["-t", "rsa"]].into_iter().enumerate() {
        let key = KeyPair::new(arguments, "words of a passphrase")?;
        let added = gitea.add_deploy_key("app", &key.public).await?;
        tree.write("app/a.yaml", config_map("from-git", &number.to_string()))?;
        tree.publish(&number.to_string())?;
        repository(&scene, &gitea.ssh_url("app"), &key.private, &hosts, Some("words of a passphrase")).await?;
        fetches(&scene, &tree).await?;
        if number > 0 {
            gitea.remove_deploy_key("app", added).await?;
            scene.fetch().await?;
            scene.repository_fails("AuthenticationFailed").await?;
        }
    }
    let key = KeyPair::ed25519()?;
    other.write("a.yaml", config_map("other", "1"))?;
    other.publish("another repository")?;
    gitea.add_deploy_key("other", &key.public).await?;
    repository(&scene, &gitea.ssh_url("app"), &key.private, &hosts, None).await?;
    scene.fetch().await?;
    let told = scene.repository_fails("RepositoryNotFound").await?;
    ensure!(told.contains("that the credentials may read it"), "{told}");
    Ok(())
}
