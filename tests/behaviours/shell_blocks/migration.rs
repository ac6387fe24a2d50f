//! A cluster with the Sealed Secrets controller, which is replaced by gitseal and then restored.

use anyhow::{Result, ensure};
use harness::{Plane, eventually};

use super::{IMAGE, desk::Desk, line, page::Page};

/// The page that this test works through.
pub(super) const PAGES: &[&str] = &["docs/migration.md"];

/// The other objects of the Sealed Secrets project's manifests, besides the CustomResourceDefinition and the rights.
const CONTROLLER: &str = "
apiVersion: v1
kind: Service
metadata: {name: sealed-secrets-controller, namespace: kube-system}
spec:
  selector: {name: sealed-secrets-controller}
  ports: [{port: 8080, targetPort: 8080}]
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: sealed-secrets-controller, namespace: kube-system}
spec:
  selector: {matchLabels: {name: sealed-secrets-controller}}
  template:
    metadata: {labels: {name: sealed-secrets-controller}}
    spec:
      serviceAccountName: sealed-secrets-controller
      containers:
        - name: sealed-secrets-controller
          image: registry.example/sealed-secrets-controller:0.36.6
          args: [--update-status, --key-prefix, sealed-secrets-key]
          ports: [{containerPort: 8080, name: http}]
---
apiVersion: v1
kind: ServiceAccount
metadata: {name: sealed-secrets-controller, namespace: kube-system}
";

/// Seals a value, applies it, and waits until its Secret is there.
async fn unseals(desk: &Desk, name: &str) -> Result<()> {
    let seal = format!(
        "kubectl create secret generic -n default {name} --from-literal=a=value --dry-run=client -o yaml | kubeseal | \
         kubectl apply -f -"
    );
    // For a moment after one controller was replaced by another, the Service leads to neither.
    eventually("a controller to seal", || async { desk.sh(&seal).await.map(drop) }).await?;
    eventually("the Secret", || async { desk.sh(&format!("kubectl get secret -n default {name}")).await.map(drop) })
        .await
}

pub(super) async fn live(_: &Plane, desk: &Desk) -> Result<()> {
    desk.tree.write("controller.yaml", CONTROLLER)?;
    desk.sh("kubectl apply -f controller.yaml").await?;
    desk.sh("kubectl rollout status -n kube-system deployment/sealed-secrets-controller").await?;
    unseals(desk, "before").await?;

    let mut page = Page::open(PAGES[0], desk)?;
    page.replace("age1…", &desk.recipient);
    page.run(&format!("IMAGE={IMAGE}")).await?;
    let said = page.run("gitseal keys backup").await?;
    ensure!(said.contains("--key-prefix"), "{said}");
    page.run("state | sort > before.txt").await?;
    page.run("kubectl set image").await?;
    let said = page.run("kubectl rollout status").await?;
    line(&said, "same key")?;
    let new: Vec<_> = said.lines().skip_while(|line| *line != "same key").skip(1).collect();
    ensure!(new.len() == 1 && new[0].contains("kube-system/gitseal-digest-key"), "{said}");
    unseals(desk, "with-gitseal").await?;

    page.run("kubectl set image").await?;
    desk.sh("kubectl rollout status -n kube-system deployment/sealed-secrets-controller").await?;
    unseals(desk, "back").await?;

    page.run("gitseal install").await?;
    unseals(desk, "from-git-as-well").await?;
    page.run("kubectl delete").await?;
    page.run("kubectl apply -f controller.yaml").await?;
    desk.sh("kubectl rollout status -n kube-system deployment/sealed-secrets-controller").await?;
    unseals(desk, "back-again").await?;
    page.close()
}
