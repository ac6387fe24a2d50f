//! Works through most pages on one cluster, from the installation to the end.

use anyhow::{Context, Result, ensure};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use harness::{Plane, eventually};
use tokio::net::{TcpListener, TcpStream};

use super::{IMAGE, desk::Desk, line, page::Page};
use crate::objects::{config_map, deployment, sealed_secret};

/// The pages that this test works through, in this order.
pub(super) const PAGES: &[&str] = &[
    "README.md",
    "docs/installing.md",
    "docs/cli.md",
    "docs/kustomize.md",
    "docs/helm.md",
    "docs/lint.md",
    "docs/old-value.md",
    "docs/sync.md",
    "docs/operations.md",
    "docs/kubeseal.md",
    "docs/keys.md",
    "docs/uninstall.md",
];

pub(super) async fn live(_: &Plane, desk: &Desk) -> Result<()> {
    let mut pages = PAGES.iter();
    let mut open = || Page::open(pages.next().context("no page is left")?, desk);
    readme(open()?, desk).await?;
    installing(open()?).await?;
    shop(desk).await?;
    cli(open()?, desk).await?;
    kustomize(open()?, desk).await?;
    helm(open()?, desk).await?;
    lint(open()?, desk).await?;
    old_value(open()?).await?;
    sync(open()?, desk).await?;
    operations(open()?, desk).await?;
    kubeseal(open()?, desk).await?;
    keys(open()?, desk).await?;
    uninstall(open()?, desk).await
}

async fn readme(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    let password = STANDARD.encode("hunter2");
    desk.tree.write("clusters/production/settings.yaml", config_map("settings", "1"))?;
    desk.tree.publish("the first")?;
    page.replace("IMAGE", IMAGE);
    page.replace("https://git.example/fleet.git", desk.server.url("fleet"));
    page.run("gitseal install --apply").await?;

    let secret = format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: db}}\ndata: {{password: {password}}}\n");
    desk.tree.write("clusters/production/db.yaml", format!("{}---\n{secret}", config_map("beside", "1")))?;
    let said = page.run("gitseal cert").await?;
    let status = line(&said, "kube-system  sync/cluster ")?;
    let words: Vec<_> = status.split_whitespace().collect();
    ensure!(words[2] == "True" && words[3].starts_with("main@") && status.contains(" applied "), "{said}");
    let text = desk.read("clusters/production/db.yaml")?;
    ensure!(text.contains("kind: SealedSecret") && text.starts_with(&config_map("beside", "1")), "{text}");
    let value = desk.sh("kubectl get secret -n default db -o jsonpath='{.data.password}'").await?;
    ensure!(value == password, "{value}");
    page.close()
}

async fn installing(mut page: Page<'_>) -> Result<()> {
    page.run("gitseal install --apply --image").await?;
    page.run("gitseal install --crds | kubectl apply").await?;
    page.run("gitseal install --apply").await?;
    page.close()
}

/// Creates a namespace with a Repository, a Sync, a Deployment and a SealedSecret, with the names that the pages use.
async fn shop(desk: &Desk) -> Result<()> {
    desk.sh("kubectl create namespace shop").await?;
    let sealed = desk.sh("printf new-value | kubeseal --raw --namespace shop --name db").await?;
    let sealed = sealed_secret("db", &sealed).replace("{name: db}", "{name: db, namespace: shop}");
    desk.tree.write("apps/shop/db.yaml", sealed)?;
    desk.tree.write("apps/shop/deployment.yaml", deployment("web", 1))?;
    for number in 0..4 {
        desk.tree.write(&format!("apps/shop/{number}.yaml"), config_map(&format!("map-{number}"), "1"))?;
    }
    desk.tree.publish("the shop")?;
    desk.tree.write(
        "shop.yaml",
        format!(
            "apiVersion: gitseal.dev/v1alpha1\nkind: Repository\nmetadata: {{name: shop}}\nspec:\n  url: {}\n\
             ---\napiVersion: gitseal.dev/v1alpha1\nkind: Sync\nmetadata: {{name: shop}}\nspec:\n  repository: {{name: \
             shop}}\n  path: apps/shop\n  prune: true\n  pruneLimit: 25%\n",
            desk.server.url("fleet")
        ),
    )?;
    desk.sh("kubectl apply -n shop -f shop.yaml && gitseal sync shop -n shop").await.map(drop)
}

async fn cli(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    let pod = "kubectl get pod -n shop -l app=web -o jsonpath='{.items[*].metadata.name}'";
    page.replace("web-5d9c7b8f6d-x2x4k", desk.sh(pod).await?);
    desk.sh("kubectl config set-context --current --namespace shop").await?;
    let said = page.run("gitseal trace").await?;
    ensure!(line(&said, "File:")?.ends_with("apps/shop/deployment.yaml:1"), "{said}");
    desk.sh("kubectl config set-context --current --namespace default").await?;

    // `kubectl port-forward` needs a real node, so this test does without it.
    let endpoint =
        "kubectl get endpoints -n kube-system sealed-secrets-controller -o jsonpath='{.subsets[*].addresses[*].ip}'";
    let address = desk.sh(endpoint).await?;
    let listener = TcpListener::bind("127.0.0.1:8080").await?;
    let forward = async || -> Result<()> {
        loop {
            let (mut from, _) = listener.accept().await?;
            let mut to = TcpStream::connect((address.as_str(), 8080)).await?;
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut from, &mut to).await });
        }
    };
    tokio::select! {
        said = page.run("GITSEAL_CONTROLLER_URL=http://127.0.0.1:8080") => said?,
        broken = forward() => anyhow::bail!("{broken:?}"),
    };
    page.close()
}

async fn kustomize(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    let said = page.run("git init -q .").await?;
    ensure!(line(&said, "configmap/")? == "configmap/production-web", "{said}");
    ensure!(desk.read("rendered.yaml")?.contains("name: production-web"));
    page.run("gitseal kubeseal --raw").await?;
    ensure!(desk.read("shop/production/password.sealed")?.starts_with('A'));
    page.close()
}

async fn helm(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    page.run("kubectl create secret generic shop").await?;
    ensure!(desk.read("secrets/shop.yaml")?.contains("namespace-wide"));
    let said = page.run("mkdir -p charts/hello").await?;
    ensure!(line(&said, "configmap/")? == "configmap/hello-settings", "{said}");
    ensure!(desk.read("hello/hello.yaml")?.contains("level: \"debug\""));
    page.close()
}

async fn lint(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    page.run("mkdir -p checked").await?;
    let golden = desk.read("checked/.gitseal/golden/clusters/production/shop.web.yaml")?;
    ensure!(golden.contains("level: debug"), "{golden}");
    // The folder is a Git repository of its own, so git would not add its files to the repository around it.
    std::fs::remove_dir_all(desk.tree.path().join("checked"))?;
    page.close()
}

async fn old_value(mut page: Page<'_>) -> Result<()> {
    page.run("gitseal status repository/shop").await?;
    page.run("gitseal history shop").await?;
    let said = page.run("gitseal trace secret/db").await?;
    ensure!(line(&said, "File:")?.ends_with("apps/shop/db.yaml:1"), "{said}");
    page.run("kubectl rollout restart").await?;
    let said = page.run("kubectl get secret db").await?;
    // This is the digest of `new-value`.
    ensure!(said.starts_with("288167617f18"), "{said}");
    page.close()
}

async fn sync(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    desk.tree.remove("apps/shop/0.yaml")?;
    desk.tree.remove("apps/shop/1.yaml")?;
    desk.tree.remove("apps/shop/2.yaml")?;
    desk.tree.publish("three too many")?;
    let refused = desk.sh("gitseal sync shop -n shop 2>&1 || true").await?;
    ensure!(refused.contains("confirm"), "{refused}");
    let waits = "kubectl get sync shop -n shop -o jsonpath={.status.pruneConfirmation}";
    page.replace("main@sha1:4f1c…+9b2f…", desk.sh(waits).await?.trim().to_owned());
    page.run("gitseal sync -n shop shop").await?;
    eventually("the prune", || async {
        let left = desk.sh("kubectl get configmaps -n shop -o name").await?;
        ensure!(!left.contains("map-0"), "{left}");
        Ok(())
    })
    .await?;
    page.close()
}

async fn operations(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    page.replace("age1…", &desk.recipient);
    page.run("gitseal keys backup").await?;
    page.close()
}

async fn kubeseal(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    page.replace("/usr/local/bin", desk.in_home("bin"));
    page.run("ln -s gitseal").await?;
    let ours = desk.sh("kubeseal --help").await?;
    ensure!(ours.contains("Accepted for compatibility with kubeseal"), "{ours}");
    desk.sh("rm ~/bin/kubeseal").await?;
    page.close()
}

/// The names of the sealing keys, the oldest first.
async fn key_names(desk: &Desk) -> Result<Vec<String>> {
    let keys = "kubectl get secret -n kube-system -l sealedsecrets.bitnami.com/sealed-secrets-key \
                --sort-by=.metadata.creationTimestamp -o jsonpath='{.items[*].metadata.name}'";
    Ok(desk.sh(keys).await?.split_whitespace().map(str::to_owned).collect())
}

async fn keys(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    page.replace("age1…", &desk.recipient);
    page.replace("s3://…", "s3://bucket");
    let old = key_names(desk).await?.pop().context("a key")?;
    page.replace("sealed-secrets-keyq9dwl", &old);
    page.replace(" NAME ", format!(" {old} "));
    page.run("gitseal keys list").await?;

    page.run("gitseal keys rotate").await?;
    desk.sh("gitseal sync shop -n shop").await?;
    eventually("no value to need the old key", || async {
        let said = desk.sh("gitseal keys list").await?;
        let words: Vec<_> = line(&said, &old)?.split_whitespace().collect();
        ensure!(words[3] == "0", "{said}");
        Ok(())
    })
    .await?;
    page.run("gitseal keys retire").await?;

    // A backup is not overwritten, so the old one must be removed first.
    desk.sh("rm keys.age && gitseal keys backup keys.age --recipients-file team.txt").await?;
    page.run("gitseal reseal clusters/ --dry-run").await?;
    desk.sh("rm keys.age && cp clusters/production/db.yaml all.yaml").await?;
    page.answer(
        "--passphrase",
        &[("Passphrase for the backup:", "correct horse battery\r"), ("Once more:", "correct horse battery\r")],
    )
    .await?;
    page.run("| aws s3 cp").await?;
    desk.sh("age -d -i me.txt uploaded.age | grep -q sealed-secrets-key").await?;

    desk.sh("sed '1,/^---$/d' all.yaml > sealed.yaml").await?;
    let said = page.run("kubectl apply -f -").await?;
    ensure!(said.contains(&STANDARD.encode("hunter2")), "{said}");
    page.run("gitseal keys backup --check").await?;

    desk.sh(&format!("kubectl delete secret -n kube-system {old}")).await?;
    page.answer("gitseal keys restore", &[("[y/N] ", "y\n")]).await?;
    let before = key_names(desk).await?;
    ensure!(before.contains(&old), "{before:?}");

    desk.sh("gitseal uninstall --yes && kubectl delete secret -n kube-system -l sealedsecrets.bitnami.com/sealed-secrets-key").await?;
    // The command asks for two confirmations: that existing sealing keys will be used, and that existing Syncs will get
    // the rights of cluster-admin.
    page.answer("gitseal install --apply", &[("[y/N] ", "y\n"), ("[y/N] ", "y\n")]).await?;
    let after = key_names(desk).await?;
    ensure!(after.len() == before.len() && after.iter().all(|key| before.contains(key)), "{before:?} {after:?}");

    page.run("kubectl label secret").await?;
    page.run("gitseal validate").await?;
    page.close()
}

async fn uninstall(mut page: Page<'_>, desk: &Desk) -> Result<()> {
    page.answer("gitseal uninstall", &[("[y/N] ", "y\n")]).await?;
    ensure!(desk.sh("kubectl get deployment -n kube-system -o name").await?.is_empty());
    page.answer("gitseal install --apply", &[("[y/N] ", "y\n")]).await?;
    desk.sh("gitseal resume --all -n shop && gitseal sync --all -n shop").await?;
    page.run("kubectl delete secret").await?;
    page.close()
}
