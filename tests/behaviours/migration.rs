//! Migrates from the Sealed Secrets controller to ours and back, with existing Secrets, as in docs/migration.md.

mod shop;

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use anyhow::{Result, ensure};
use harness::{
    Plane, eventually, kubernetes, network,
    programs::{self, SealedSecretsController},
    scene::contains,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::PostParams};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use self::shop::{NAMESPACE, Shop, data, same, secret};
use crate::{cli::Said, proxy::kubeseal};

const SEALED: &str = "bitnami.com/v1alpha1";
/// The user names of our controller and of the other controller.
const OURS: &str = "our-controller";
const THEIRS: &str = "system:serviceaccount:kube-system:sealed-secrets-controller";
/// If nothing was written for this long, nothing more will be written.
const QUIET: Duration = Duration::from_secs(3);

/// Creates Secrets by hand that a SealedSecret may take over or merge into.
async fn others(shop: &Shop) -> Result<()> {
    for (name, annotation) in [("managed", crds::names::MANAGED), ("merged", crds::names::PATCH)] {
        let metadata = json!({"metadata": {"annotations": {annotation: "true"}, "labels": {"theirs": "kept"}}});
        let object = secret(name, &[("theirs", "by-hand")], metadata);
        let secrets = Api::<Secret>::namespaced(shop.client.clone(), NAMESPACE);
        secrets.create(&PostParams::default(), &serde_json::from_value(object)?).await?;
    }
    Ok(())
}

/// Creates SealedSecrets with the older key, one for each case that a migration may meet: each scope, a Secret with
/// labels and annotations, an immutable Secret, a Secret without an owner, a template, and so on.
async fn first_generation(shop: &Shop) -> Result<()> {
    others(shop).await?;
    let labelled = json!({
        "type": "kubernetes.io/basic-auth",
        "metadata": {"labels": {"team": "a"}, "annotations": {"note": "kept"}},
    });
    let without_owner = json!({"metadata": {"annotations": {
        crds::names::SKIP_SET_OWNER_REFERENCES: "true", crds::names::MANAGED: "true",
    }}});
    for (name, scope, more) in [
        ("strict", "strict", labelled),
        ("wide", "namespace-wide", json!({})),
        ("everywhere", "cluster-wide", json!({})),
        ("managed", "strict", json!({"metadata": {"labels": {"ours": "x"}}})),
        ("merged", "strict", json!({"metadata": {"labels": {"ours": "x"}}})),
        ("ownerless", "strict", without_owner),
        ("immutable", "strict", json!({"immutable": true})),
        ("several", "strict", json!({})),
        ("templated", "strict", json!({})),
    ] {
        let values = [("username", "admin"), ("password", name)];
        let mut sealed = shop.seal(&secret(name, &values, more), scope)?;
        if name == "templated" {
            let config = "user: {{ .username }}\npassword: {{ .password | b64enc | quote }}\n";
            sealed["spec"]["template"]["data"] = json!({"config": config});
        }
        shop.apply(sealed).await?;
        shop.has(name, data(&values)).await?;
    }
    shop.has("templated", data(&[("config", "user: admin\npassword: \"dGVtcGxhdGVk\"\n")])).await?;
    shop.has("merged", data(&[("theirs", "by-hand")])).await
}

/// Seals with the newer key: one value of a SealedSecret whose other values are sealed with the older key, and a whole
/// SealedSecret.
async fn second_generation(shop: &Shop) -> Result<()> {
    let added = shop.seal(&secret("several", &[("token", "newer")], json!({})), "strict")?;
    let mut several = shop.get(SEALED, "SealedSecret", "several").await?;
    several["spec"]["encryptedData"]["token"] = added["spec"]["encryptedData"]["token"].clone();
    let object = json!({
        "apiVersion": SEALED, "kind": "SealedSecret", "metadata": {"name": "several"}, "spec": several["spec"],
    });
    shop.apply(object).await?;
    shop.has("several", data(&[("username", "admin"), ("password", "several"), ("token", "newer")])).await?;
    lives(shop, "newest").await
}

/// Checks that the running controller unseals a new SealedSecret, and applies a change of it to the same Secret.
async fn lives(shop: &Shop, name: &str) -> Result<()> {
    shop.apply(shop.seal(&secret(name, &[("a", "first"), ("b", "goes")], json!({})), "strict")?).await?;
    shop.has(name, data(&[("a", "first"), ("b", "goes")])).await?;
    let before = shop.get("v1", "Secret", name).await?;
    changes(shop, name, "second").await?;
    let after = shop.get("v1", "Secret", name).await?;
    assert_eq!(after["metadata"]["uid"], before["metadata"]["uid"], "{name} was made anew");
    assert!(after["data"]["b"].is_null(), "{name} keeps a value that was taken out");
    Ok(())
}

/// Seals another value for a SealedSecret, and waits until its Secret has it.
async fn changes(shop: &Shop, name: &str, value: &str) -> Result<()> {
    shop.apply(shop.seal(&secret(name, &[("a", value)], json!({})), "strict")?).await?;
    shop.has(name, data(&[("a", value)])).await
}

/// Starts the Sealed Secrets controller with an older and a newer key, and creates all SealedSecrets.
async fn with_sealed_secrets(shop: &Shop) -> Result<SealedSecretsController> {
    let theirs = shop.theirs(&[]).await?;
    first_generation(shop).await?;
    let older = theirs.certificate().to_owned();
    theirs.stop()?;
    // The order of the two keys shows only in the time at which each was made, which is in whole seconds.
    let made = sealing::Certificate::from_pem(older.as_bytes())?.not_before();
    eventually("the second to pass", || async {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs();
        ensure!(i64::try_from(now)? > made.as_second(), "{now}");
        Ok(())
    })
    .await?;
    // All existing keys are older than this date, so the controller makes a new key.
    let theirs = shop.theirs(&["--key-cutoff-time=Fri, 01 Jan 2100 00:00:00 +0000"]).await?;
    assert_ne!(theirs.certificate(), older);
    second_generation(shop).await?;
    shop.taken_over_by_theirs(&theirs).await?;
    Ok(theirs)
}

#[test]
fn from_sealed_secrets_to_gitseal_and_back_nothing_is_sealed_again_and_no_secret_goes() -> Result<()> {
    network::of_its_own(async || {
        let shop = Shop::of_sealed_secrets().await?;
        let theirs = with_sealed_secrets(&shop).await?;
        let before = shop.state().await?;
        assert_eq!(before["keys"].as_object().map(serde_json::Map::len), Some(2), "{before:#}");

        let certificate = theirs.certificate().trim().to_owned();
        theirs.stop()?;
        let ours = shop.ours().await?;
        shop.taken_over_by_ours().await?;
        same(&shop.state().await?, &before);
        let fetched = kubeseal(&shop.plane, &["--fetch-cert"], "")?.is(0, &[])?;
        assert_eq!(fetched.out.trim(), certificate, "it seals with the same key");
        lives(&shop, "made-with-ours").await?;
        changes(&shop, "newest", "changed-with-ours").await?;

        let before = shop.state().await?;
        ours.stop()?;
        let theirs = shop.theirs(&[]).await?;
        shop.taken_over_by_theirs(&theirs).await?;
        same(&shop.state().await?, &before);
        assert_eq!(theirs.certificate().trim(), certificate, "it seals with the same key");
        lives(&shop, "made-with-theirs").await?;
        changes(&shop, "made-with-ours", "changed-with-theirs").await?;

        assert_eq!(shop.deletions()?, []);
        Ok(())
    })
}

/// Waits until both controllers have stopped writing Secrets and statuses of SealedSecrets, and returns how often they have
/// written.
async fn writes_when_settled(shop: &Shop) -> Result<usize> {
    let last = Cell::new((usize::MAX, Instant::now()));
    eventually("the two controllers to leave each other alone", || async {
        let mut requests = shop.plane.cluster.requests()?;
        requests.retain(|request| {
            let is_write = ["create", "update", "patch"].contains(&request.verb.as_str());
            let is_either = [OURS, THEIRS].contains(&request.user.as_str());
            is_either && is_write && request.namespace == NAMESPACE && request.resource != "events"
        });
        let (count, since) = last.get();
        if requests.len() != count {
            last.set((requests.len(), Instant::now()));
        }
        let written: Vec<_> = requests.iter().rev().take(20).map(|r| (&r.user, &r.verb, &r.name, r.code)).collect();
        // `QUIET` is longer than the delay of a heal after a Secret was changed once or twice.
        ensure!(requests.len() == count && since.elapsed() > QUIET, "{written:#?}");
        Ok(count)
    })
    .await
}

#[test]
fn both_controllers_at_a_time_settle() -> Result<()> {
    network::of_its_own(async || {
        let shop = Shop::with_both().await?;
        let theirs = with_sealed_secrets(&shop).await?;
        let before = shop.state().await?;
        let start = writes_when_settled(&shop).await?;
        let ours = shop.ours().await?;
        shop.taken_over_by_ours().await?;
        let settled = writes_when_settled(&shop).await?;
        same(&shop.state().await?, &before);
        // At most four writes for each SealedSecret: one to take over the fields, one apply, one more apply if a change
        // was seen too late, and one status.
        let all = shop.names().await?.len();
        assert!(settled - start <= 4 * all, "{} writes for {all} SealedSecrets", settled - start);

        // The other controller removes the mark that our controller wrote into the status of every SealedSecret, and
        // our controller writes the mark again.
        theirs.stop()?;
        let theirs = shop.theirs(&[]).await?;
        shop.taken_over_by_theirs(&theirs).await?;
        let restarted = writes_when_settled(&shop).await?;
        shop.taken_over_by_ours().await?;
        same(&shop.state().await?, &before);
        assert!(restarted - settled <= 6 * all, "{} writes for {all} SealedSecrets", restarted - settled);

        // Both controllers apply a change.
        for value in ["one", "two", "three"] {
            changes(&shop, "newest", value).await?;
        }
        let changed = writes_when_settled(&shop).await?;
        shop.has("newest", data(&[("a", "three")])).await?;
        assert!(changed - restarted <= 3 * 10, "{} writes for 3 changes", changed - restarted);
        assert_eq!(shop.deletions()?, []);
        drop((ours, theirs));
        Ok(())
    })
}

/// A Service and a Deployment as in the manifests of the Sealed Secrets project, or as in its Helm chart for a release
/// with this name. The manifests and the chart differ in the labels, and only in the chart, the port has a name.
fn sealed_secrets_objects(name: &str, labels: &Value, port: &Value) -> [Value; 2] {
    let metadata = json!({"name": name, "namespace": "kube-system"});
    let container = json!({"name": "controller", "image": "sealed-secrets", "ports": [{"containerPort": 8080}]});
    [
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": metadata,
            "spec": {"selector": labels, "ports": [port]},
        }),
        json!({
            "apiVersion": "apps/v1", "kind": "Deployment", "metadata": metadata,
            "spec": {
                "selector": {"matchLabels": labels},
                "template": {"metadata": {"labels": labels}, "spec": {"containers": [container]}},
            },
        }),
    ]
}

#[tokio::test]
async fn an_installation_takes_the_service_over_and_leaves_the_rest() -> Result<()> {
    let options = ClusterOptions { controller_manager: false, ..ClusterOptions::default() };
    let plane = Plane::without_controller(options).await?;
    let client = plane.cluster.client().await?;
    let chart = json!({"app.kubernetes.io/name": "sealed-secrets", "app.kubernetes.io/instance": "sealed-secrets"});
    for (name, labels, port) in [
        ("sealed-secrets-controller", json!({"name": "sealed-secrets-controller"}), json!({"port": 8080})),
        ("sealed-secrets", chart, json!({"name": "http", "port": 8080, "targetPort": "http"})),
    ] {
        for object in sealed_secrets_objects(name, &labels, &port) {
            kubernetes::apply(&client, "kube-system", object).await?;
        }
        let deployments = kubernetes::objects(&client, "kube-system", "apps/v1", "Deployment");
        let before = deployments.get(name).await?;

        let mut install = programs::gitseal(plane.cluster.kubeconfig())?;
        install.args(["install", "--apply", "--no-wait", "--image", "a:1", "--controller-name", name]);
        let stop = format!("kubectl --namespace kube-system scale deployment {name} --replicas 0");
        Said::from(install.output()?).is(0, &[&stop])?;

        let services = kubernetes::objects(&client, "kube-system", "v1", "Service");
        let service = serde_json::to_value(services.get(name).await?)?;
        let ours = serde_json::to_value(deployments.get("gitseal-controller").await?)?;
        assert_eq!(service["spec"]["selector"], ours["spec"]["template"]["metadata"]["labels"], "{service:#}");
        let first = json!({"name": "http", "port": 8080, "targetPort": "http"});
        assert!(contains(&service["spec"]["ports"][0], &first), "{service:#}");
        assert_eq!(deployments.get(name).await?, before);
    }
    Ok(())
}
