//! Sealing keys are renewed in time, and values that were sealed with older keys are still unsealed.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use harness::{
    Plane, eventually, kubernetes,
    programs::{self, Controller, ControllerOptions},
};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, ListParams, PostParams},
};
use localcluster::ClusterOptions;
use sealing::{Certificate, Scope};
use serde_json::{Value, json};

const NAMESPACE: &str = "kube-system";
const LABEL: &str = "sealedsecrets.bitnami.com/sealed-secrets-key";

/// A cluster for one test, whose controllers can be started with more arguments.
struct Keys {
    plane: Plane,
    client: Client,
}

impl Keys {
    async fn new() -> Result<Self> {
        let plane = Plane::without_controller(ClusterOptions::default()).await?;
        let client = plane.cluster.client().await?;
        Ok(Self { plane, client })
    }

    async fn controller(&self, arguments: &[&str]) -> Result<Controller> {
        let folder = self.plane.folder();
        let mut options = ControllerOptions::new(self.plane.cluster.kubeconfig(), &folder);
        options.arguments.extend(arguments.iter().map(|argument| (*argument).to_owned()));
        let mut controller = Controller::start(&options)?;
        controller.ready().await?;
        Ok(controller)
    }

    /// The Secrets of the sealing keys.
    async fn secrets(&self) -> Result<Vec<Secret>> {
        let labelled = ListParams::default().labels(LABEL);
        Ok(Api::namespaced(self.client.clone(), NAMESPACE).list(&labelled).await?.items)
    }

    /// Waits until the controller serves another certificate than `before`.
    async fn another(&self, controller: &Controller, before: &Certificate) -> Result<Certificate> {
        eventually("another certificate", || async {
            let now = certificate(controller).await?;
            ensure!(now != *before, "it is the same\n{}", controller.log());
            Ok(now)
        })
        .await
    }
}

async fn certificate(controller: &Controller) -> Result<Certificate> {
    Ok(Certificate::from_pem(controller.fetch("/v1/cert.pem").await?.as_bytes())?)
}

fn sealed_secret(name: &str, certificate: &Certificate, value: &str) -> Result<Value> {
    let binding = Scope::Strict.binding("default", name, "value");
    let value = sealing::seal(certificate, binding, harness::hunt::known(value.as_bytes()))?;
    Ok(json!({
        "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
        "metadata": {"name": name, "namespace": "default"}, "spec": {"encryptedData": {"value": value}},
    }))
}

fn fingerprint(certificate: &Certificate) -> String {
    certificate.public_key().fingerprint()
}

/// The current time, as `date -R` writes it and `--key-cutoff-time` reads it.
fn rfc_1123() -> Result<String> {
    Ok(programs::run(Command::new("date").env("LC_ALL", "C").arg("-R"))?.trim().to_owned())
}

#[tokio::test]
async fn a_new_key_seals_and_the_old_ones_unseal() -> Result<()> {
    let keys = Keys::new().await?;
    let settings = ["--key-prefix=team-key", "--privatekey-labels=team=a,tier=1", "--privatekey-annotations=why=test"];
    let mut controller = keys.controller(&settings).await?;
    let first = certificate(&controller).await?;
    // SIGUSR1 makes a new key.
    let pid = controller.process().pid().to_string();
    programs::run(Command::new("kill").args(["-USR1", &pid]))?;
    let second = keys.another(&controller, &first).await?;
    let secrets = keys.secrets().await?;
    assert_eq!(secrets.len(), 2);
    for secret in &secrets {
        assert!(secret.name_any().starts_with("team-key") && secret.name_any().len() == "team-key".len() + 8);
        assert_eq!(secret.metadata.generate_name.as_deref(), Some("team-key"));
        assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
        let labels = json!({LABEL: "active", "team": "a", "tier": "1"});
        assert_eq!(json!(secret.labels()), labels);
        assert_eq!(json!(secret.annotations()), json!({"why": "test"}));
    }

    // A value that was sealed with the first key is unsealed, counted, and sealed again with the second key.
    let sealed = sealed_secret("old", &first, "value")?;
    kubernetes::apply(&keys.client, "default", sealed.clone()).await?;
    let unsealed = Api::<Secret>::namespaced(keys.client.clone(), "default");
    eventually("the Secret", || async {
        let secret = unsealed.get("old").await?;
        let value = secret.data.as_ref().and_then(|data| data.get("value")).context("no value")?;
        ensure!(STANDARD.encode(&value.0) == STANDARD.encode("value"), "another value");
        Ok(())
    })
    .await?;
    let report: Value = serde_json::from_str(&controller.fetch("/v1/keys").await?)?;
    let counted: Vec<_> =
        report["keys"].as_array().context("keys")?.iter().map(|key| (&key["fingerprint"], &key["values"])).collect();
    assert_eq!(counted, [(&json!(fingerprint(&second)), &json!(0)), (&json!(fingerprint(&first)), &json!(1))]);
    let (status, body) = controller.post("/v1/rotate", &sealed).await?;
    assert_eq!(status, 200, "{body}");
    let rotated: Value = serde_json::from_str(&body)?;
    let (_, body) = controller.post("/v1/which", &rotated).await?;
    let which: Value = serde_json::from_str(&body)?;
    assert_eq!(which["items"][0]["values"]["value"], json!(fingerprint(&second)));
    assert_eq!(controller.post("/v1/verify", &rotated).await?.0, 200);
    drop(controller);

    // After a restart, no renewal is skipped, and no renewal is made twice.
    let controller = keys.controller(&settings).await?;
    assert_eq!(certificate(&controller).await?, second);
    drop(controller);

    // With a cutoff time, the controller makes one new key.
    eventually("another second", || async {
        ensure!(k8s_openapi::jiff::Timestamp::now().as_second() > second.not_before().as_second(), "not yet");
        Ok(())
    })
    .await?;
    let cutoff = format!("--key-cutoff-time={}", rfc_1123()?);
    let controller = keys.controller(&[&cutoff]).await?;
    let third = keys.another(&controller, &second).await?;
    drop(controller);
    let controller = keys.controller(&[&cutoff]).await?;
    assert_eq!(certificate(&controller).await?, third);
    assert_eq!(keys.secrets().await?.len(), 3);
    drop(controller);

    // With a renewal period, the controller makes a new key whenever the period is over.
    let controller = keys.controller(&["--key-renew-period=2s"]).await?;
    let fourth = keys.another(&controller, &third).await?;
    let fifth = keys.another(&controller, &fourth).await?;
    assert!(third.not_before() < fourth.not_before() && fourth.not_before() < fifth.not_before());
    assert_eq!(controller.post("/v1/verify", &sealed).await?.0, 200, "the first key still unseals");
    Ok(())
}

#[tokio::test]
async fn a_backup_overwrites_no_key_that_was_made_meanwhile() -> Result<()> {
    let keys = Keys::new().await?;
    let mut controller = keys.controller(&[]).await?;
    let first = certificate(&controller).await?;
    let pid = controller.process().pid().to_string();
    programs::run(Command::new("kill").args(["-USR1", &pid]))?;
    let second = keys.another(&controller, &first).await?;

    // The newest key is backed up, and its Secret is deleted. The other key is too old for sealing, so the controller
    // must make a new key.
    let is_second = |secret: &Secret| -> bool {
        let stored = secret.data.as_ref().and_then(|data| data.get("tls.crt"));
        stored.and_then(|pem| Certificate::from_pem(&pem.0).ok()).is_some_and(|stored| stored == second)
    };
    let backup = keys.secrets().await?.into_iter().find(is_second).context("the Secret of the second key")?;
    let api = Api::<Secret>::namespaced(keys.client.clone(), NAMESPACE);
    api.delete(&backup.name_any(), &DeleteParams::default()).await?;
    keys.another(&controller, &second).await?;
    programs::run(Command::new("kill").args(["-USR1", &pid]))?;
    let third = keys.another(&controller, &first).await?;
    let meanwhile = sealed_secret("meanwhile", &third, "value")?;

    let restored = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": backup.data,
        "metadata": {"name": backup.name_any(), "labels": backup.labels()},
    });
    kubernetes::apply(&keys.client, NAMESPACE, restored).await?;
    eventually("all three keys to be listed", || async {
        let report: Value = serde_json::from_str(&controller.fetch("/v1/keys").await?)?;
        ensure!(report["keys"].as_array().is_some_and(|keys| keys.len() == 3), "{report:#}");
        Ok(())
    })
    .await?;
    assert_eq!(controller.post("/v1/verify", &meanwhile).await?.0, 200, "what was sealed meanwhile is unsealed");
    assert_eq!(controller.post("/v1/verify", &sealed_secret("old", &second, "value")?).await?.0, 200);
    Ok(())
}

/// Waits until the controller counts this number of values that no key unseals.
async fn undecryptable(controller: &Controller, values: usize) -> Result<()> {
    eventually(&format!("{values} values that no key unseals"), || async {
        let counted = controller.metric("gitseal_undecryptable_values").await?;
        ensure!(counted == Some(values), "{counted:?}");
        Ok(())
    })
    .await
}

#[tokio::test]
async fn values_whose_key_is_gone_are_told_while_their_secret_is_there() -> Result<()> {
    let keys = Keys::new().await?;
    let mut controller = keys.controller(&[]).await?;
    let first = certificate(&controller).await?;
    kubernetes::apply(&keys.client, "default", sealed_secret("old", &first, "value")?).await?;
    let unsealed = Api::<Secret>::namespaced(keys.client.clone(), "default");
    eventually("the Secret", || async { unsealed.get_opt("old").await?.context("it is not there") }).await?;
    let backup = keys.secrets().await?.into_iter().next().context("a key")?;
    let pid = controller.process().pid().to_string();
    programs::run(Command::new("kill").args(["-USR1", &pid]))?;
    keys.another(&controller, &first).await?;
    let api = Api::<Secret>::namespaced(keys.client.clone(), NAMESPACE);
    api.delete(&backup.name_any(), &DeleteParams::default()).await?;

    // Without being asked, the controller reports the values whose sealing key is gone.
    let told = eventually("an event about the SealedSecret", || async {
        let all = Api::<k8s_openapi::api::core::v1::Event>::namespaced(keys.client.clone(), "default");
        let all = all.list(&ListParams::default()).await?.items;
        let told = all.into_iter().find(|event| event.reason.as_deref() == Some("SealingKeyMissing"));
        told.with_context(|| controller.log())
    })
    .await?;
    assert_eq!(told.involved_object.name.as_deref(), Some("old"));
    assert!(told.message.is_some_and(|message| message.contains("no sealing key unseals spec.encryptedData.value")));
    undecryptable(&controller, 1).await?;
    let report: Value = serde_json::from_str(&controller.fetch("/v1/keys").await?)?;
    assert_eq!(report["undecryptable"], 1);
    assert!(unsealed.get_opt("old").await?.is_some(), "the Secret stays");

    // A controller that starts after the key was lost notices this, too. It also notices when the key is back.
    drop(controller);
    let controller = keys.controller(&[]).await?;
    undecryptable(&controller, 1).await?;
    let restored = json!({
        "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "data": backup.data,
        "metadata": {"name": backup.name_any(), "labels": backup.labels()},
    });
    kubernetes::apply(&keys.client, NAMESPACE, restored).await?;
    undecryptable(&controller, 0).await
}

#[tokio::test]
async fn a_malformed_key_is_told_of_and_the_others_work() -> Result<()> {
    let keys = Keys::new().await?;
    let controller = keys.controller(&[]).await?;
    let before = certificate(&controller).await?;
    let secret: Secret = serde_json::from_value(json!({
        "metadata": {"name": "broken", "labels": {LABEL: "active"}}, "type": "kubernetes.io/tls",
        "stringData": {"tls.key": "no key", "tls.crt": ""},
    }))?;
    let api = Api::<Secret>::namespaced(keys.client.clone(), NAMESPACE);
    api.create(&PostParams::default(), &secret).await?;
    let events = Api::<Event>::namespaced(keys.client.clone(), NAMESPACE);
    let event = eventually("an event about the Secret", || async {
        let all = events.list(&ListParams::default()).await?.items;
        let about =
            |event: &Event| event.regarding.as_ref().is_some_and(|about| about.name.as_deref() == Some("broken"));
        all.into_iter().find(about).with_context(|| controller.log())
    })
    .await?;
    assert_eq!(event.reason.as_deref(), Some("MalformedKey"));
    assert_eq!(event.type_.as_deref(), Some("Warning"));
    assert_eq!(controller.metric::<u64>("gitseal_sealing_keys{state=\"malformed\"}").await?, Some(1));
    assert_eq!(certificate(&controller).await?, before);
    let report: Value = serde_json::from_str(&controller.fetch("/v1/keys").await?)?;
    assert_eq!(report["malformed"], json!(["broken"]));
    let sealed = sealed_secret("new", &before, "value")?;
    assert_eq!(controller.post("/v1/verify", &sealed).await?.0, 200);
    Ok(())
}
