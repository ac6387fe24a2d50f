//! Defects of Flux and Argo CD that their users published, with a test for each. docs/compared.md lists them, with the
//! tests of other modules.

use anyhow::{Context as _, Result, ensure};
use harness::{
    Plane, Scene, eventually,
    git::ServerOptions,
    programs::{Controller, ControllerOptions},
};
use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration, apps::v1::Deployment, core::v1::Event,
};
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::{Value, json};

use crate::{
    cli::gitseal,
    jobs::completes,
    objects::{config_map, deployment, sealed_secret},
    traces::handled,
};

/// A chart's hook: a Job that no controller runs.
fn hook(name: &str, annotations: &str, container: &str) -> String {
    format!(
        "apiVersion: batch/v1\nkind: Job\nmetadata: {{name: {name}, annotations: {{{annotations}}}}}\nspec:\n  managedBy: \
         example.com/nobody\n  template: {{spec: {{restartPolicy: Never, containers: [{{name: c, {container}}}]}}}}\n"
    )
}

fn write_chart(scene: &Scene, templates: &[(&str, &str)]) -> Result<()> {
    scene.tree.write("charts/web/Chart.yaml", "apiVersion: v2\nname: web\nversion: 1.0.0\n")?;
    for (name, text) in templates {
        scene.tree.write(&format!("charts/web/templates/{name}.yaml"), text)?;
    }
    Ok(())
}

/// fluxcd/helm-controller 149 and 1101: after the controller ended in the middle of an upgrade, the release was pending for ever.
#[tokio::test]
async fn a_chart_goes_on_after_the_controller_was_killed_in_an_upgrade() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let options = ControllerOptions::new(plane.cluster.kubeconfig(), &folder);
    let mut controller = Controller::start(&options)?;
    let scene = Scene::on(&plane, "stuck", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    let migrate = |image: &str| {
        hook("migrate", "helm.sh/hook: 'pre-install,pre-upgrade'", &format!("image: 'example.invalid/{image}'"))
    };
    write_chart(&scene, &[("map", &config_map("app", "1")), ("migrate", &migrate("1"))])?;
    let first = scene.publish("a chart").await?;
    scene.sync("app", "./charts/web", json!({"helm": {}, "timeout": "1h"})).await?;
    scene.has("batch/v1", "Job", "migrate", json!({})).await?;
    completes(&scene, "migrate").await?;
    scene.is_applied("app", &first).await?;

    write_chart(&scene, &[("map", &config_map("app", "2")), ("migrate", &migrate("2"))])?;
    scene.publish("an upgrade").await?;
    let has_image = async |image: &str| {
        eventually("the hook of the upgrade", || async {
            let job = scene.get("batch/v1", "Job", "migrate").await?.context("no Job")?;
            let found = job.pointer("/spec/template/spec/containers/0/image");
            ensure!(found == Some(&json!(format!("example.invalid/{image}"))), "{found:?}");
            Ok(())
        })
        .await
    };
    has_image("2").await?;
    controller.kill()?;
    controller = Controller::start(&options)?;
    controller.ready().await?;
    completes(&scene, "migrate").await?;
    scene.has("v1", "ConfigMap", "app", json!({"data": {"value": "2"}})).await?;

    // The next upgrade replaces an upgrade that never ends.
    write_chart(&scene, &[("map", &config_map("app", "3")), ("migrate", &migrate("3"))])?;
    scene.publish("an upgrade that hangs").await?;
    has_image("3").await?;
    controller.kill()?;
    write_chart(&scene, &[("map", &config_map("app", "4")), ("migrate", &migrate("4"))])?;
    let fourth = format!("main@sha1:{}", scene.tree.publish("the next upgrade")?);
    controller = Controller::start(&options)?;
    controller.ready().await?;
    has_image("4").await?;
    completes(&scene, "migrate").await?;
    scene.is_applied("app", &fourth).await?;
    scene.has("v1", "ConfigMap", "app", json!({"data": {"value": "4"}})).await.map(drop)
}

/// fluxcd/flux2 1878, 2665 and 5076, and fluxcd/helm-controller 276: `dependsOn` counted only for the first
/// installation. In an upgrade, the dependent release began while the release that it depends on still had its old,
/// ready revision.
#[tokio::test]
async fn a_dependency_counts_in_every_upgrade_and_not_only_in_the_first() -> Result<()> {
    let scene = Scene::new("upgrades").await?;
    let write = |replicas: u32, value: &str| {
        scene.tree.write("base/web.yaml", deployment("web", replicas))?;
        scene.tree.write("app/map.yaml", config_map("app", value))
    };
    write(0, "1")?;
    let first = scene.publish("both").await?;
    // The dependent Sync is created first.
    scene.sync("app", "./app", json!({"dependsOn": [{"name": "base"}]})).await?;
    scene.sync("base", "./base", json!({"timeout": "1h"})).await?;
    scene.is_applied("app", &first).await?;

    // One commit changes both folders, and the base does not become healthy.
    write(1, "2")?;
    scene.publish("both again").await?;
    scene.sync_when("base", "it to wait", |_, ready| ready.reason == "WaitingForHealth").await?;
    scene.sync_when("app", "it to wait for the new base", |_, ready| ready.reason == "DependencyNotReady").await?;
    scene.has("v1", "ConfigMap", "app", json!({"data": {"value": "1"}})).await?;

    write(0, "3")?;
    let third = scene.publish("a base that becomes healthy").await?;
    scene.is_applied("app", &third).await?;
    scene.has("v1", "ConfigMap", "app", json!({"data": {"value": "3"}})).await.map(drop)
}

/// argoproj/argo-cd 10077: a hook that runs before the other objects could not use a Secret of the same revision.
/// argoproj/argo-cd 15146: a Sync waited without end for a SealedSecret that is a hook itself.
#[tokio::test]
async fn a_hook_has_its_secret_and_a_sealed_secret_may_be_a_hook() -> Result<()> {
    let scene = Scene::new("hook-secrets").await?;
    let uses = |secret: &str| format!("image: example.invalid/c, envFrom: [{{secretRef: {{name: {secret}}}}}]");
    let migrate = hook("migrate", "helm.sh/hook: pre-install", &uses("plain"));
    let check = hook("check", "helm.sh/hook: pre-install, helm.sh/hook-weight: '5'", &uses("hooked"));
    let plain = sealed_secret("plain", &scene.seal("plain", b"x").await?);
    let hooked = sealed_secret("hooked", &scene.seal("hooked", b"y").await?);
    let hooked = hooked.replace(
        "{name: hooked}",
        "{name: hooked, annotations: {helm.sh/hook: pre-install, helm.sh/hook-weight: '-5'}}",
    );
    let templates =
        [("map", config_map("app", "1")), ("migrate", migrate), ("check", check), ("plain", plain), ("hooked", hooked)];
    write_chart(&scene, &templates.each_ref().map(|(name, text)| (*name, text.as_str())))?;
    let revision = scene.publish("hooks with Secrets").await?;
    scene.sync("app", "./charts/web", json!({"helm": {}, "timeout": "1h"})).await?;
    let version = |object: Value| -> Result<u64> {
        Ok(object["metadata"]["resourceVersion"].as_str().context("no version")?.parse()?)
    };
    for (job, secret) in [("migrate", "plain"), ("check", "hooked")] {
        let job_made = version(scene.has("batch/v1", "Job", job, json!({})).await?)?;
        let secret_made =
            version(scene.get("v1", "Secret", secret).await?.with_context(|| format!("{job} has no Secret"))?)?;
        ensure!(secret_made < job_made, "{secret} was made after {job}");
        ensure!(scene.get("v1", "ConfigMap", "app").await?.is_none());
        completes(&scene, job).await?;
    }
    scene.is_applied("app", &revision).await?;
    scene.has("v1", "ConfigMap", "app", json!({"data": {"value": "1"}})).await.map(drop)
}

/// argoproj/argo-cd 4912 and 8970: `ignoreDifferences` had no effect on fields that another controller writes, or had an effect
/// only until the next commit was applied.
#[tokio::test]
async fn what_other_controllers_write_stays_after_every_commit() -> Result<()> {
    let scene = Scene::new("others").await?;
    let name = format!("published-{}", scene.namespace);
    let webhook = |path: &str| {
        format!(
            "apiVersion: admissionregistration.k8s.io/v1\nkind: ValidatingWebhookConfiguration\nmetadata: {{name: {name}}}\nwebhooks:\n- \
             name: a.example.org\n  admissionReviewVersions: [v1]\n  sideEffects: None\n  failurePolicy: Ignore\n  objectSelector: \
             {{matchLabels: {{nothing: here}}}}\n  clientConfig: {{service: {{name: a, namespace: b, path: {path}}}}}\n  rules: \
             [{{apiGroups: [a.example.org], apiVersions: [v1], operations: [CREATE], resources: [a]}}]\n"
        )
    };
    let write = |path: &str, minimum: u32| {
        scene.tree.write("app/hook.yaml", webhook(path))?;
        scene.tree.write("app/web.yaml", deployment("web", 0) + &format!("  minReadySeconds: {minimum}\n"))
    };
    write("/one", 1)?;
    let first = scene.publish("first").await?;
    let image = json!([{"target": {"kind": "Deployment"}, "paths": ["/spec/template/spec/containers/0/image"]}]);
    scene.sync("app", "./app", json!({"ignoreDifferences": image})).await?;
    // A Deployment cannot be made without an image, so it is made with the image in Git.
    scene.is_applied("app", &first).await?;

    let by = |manager: &str| PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let set_image = async |name: &str| -> Result<()> {
        let container = json!({"name": "c", "image": "example.invalid/new"});
        let updated = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        scene.api::<Deployment>().patch(name, &by("image-updater"), &Patch::Strategic(updated)).await?;
        Ok(())
    };
    set_image("web").await?;
    let hooks: Api<ValidatingWebhookConfiguration> = Api::all(scene.client.clone());
    let bundle = json!({"webhooks": [{"name": "a.example.org", "clientConfig": {"caBundle": "Y2E="}}]});
    hooks.patch(&name, &by("ca-injector"), &Patch::Strategic(bundle)).await?;

    write("/two", 2)?;
    let second = scene.publish("second").await?;
    scene.is_applied("app", &second).await?;
    let has_image = async |name: &str, seconds: u32, image: &str| -> Result<()> {
        let web = scene.has("apps/v1", "Deployment", name, json!({"spec": {"minReadySeconds": seconds}})).await?;
        assert_eq!(web.pointer("/spec/template/spec/containers/0/image"), Some(&json!(image)));
        Ok(())
    };
    has_image("web", 2, "example.invalid/new").await?;
    let hook = serde_json::to_value(hooks.get(&name).await?)?;
    assert_eq!(hook.pointer("/webhooks/0/clientConfig/caBundle"), Some(&json!("Y2E=")));
    assert_eq!(hook.pointer("/webhooks/0/clientConfig/service/path"), Some(&json!("/two")));

    // A deleted object is made again with the image in Git. A rule of `ignoreDifferences` that is added later keeps the
    // image that is in the cluster.
    scene.api::<Deployment>().delete("web", &DeleteParams::default()).await?;
    eventually("the Deployment of Git", || async {
        let web = scene.get("apps/v1", "Deployment", "web").await?.context("no Deployment")?;
        let found = web.pointer("/spec/template/spec/containers/0/image").cloned();
        ensure!(found == Some(json!("example.invalid/c")), "{found:?}");
        Ok(())
    })
    .await?;
    scene.sync("app", "./app", json!({})).await?;
    set_image("web").await?;
    scene.has("apps/v1", "Deployment", "web", json!({"spec": {"replicas": 0}})).await?;
    eventually("the image of Git", || async {
        let web = scene.get("apps/v1", "Deployment", "web").await?.context("no Deployment")?;
        let found = web.pointer("/spec/template/spec/containers/0/image").cloned();
        ensure!(found == Some(json!("example.invalid/c")), "{found:?}");
        Ok(())
    })
    .await?;
    scene.sync("app", "./app", json!({"ignoreDifferences": image})).await?;
    write("/two", 3)?;
    let third = scene.publish("third").await?;
    scene.is_applied("app", &third).await?;
    has_image("web", 3, "example.invalid/c").await?;
    set_image("web").await?;
    write("/two", 4)?;
    let fourth = scene.publish("fourth").await?;
    scene.is_applied("app", &fourth).await?;
    has_image("web", 4, "example.invalid/new").await
}

/// What the events about drift say.
async fn drifts(scene: &Scene) -> Result<Vec<String>> {
    let events = scene.api::<Event>().list(&ListParams::default()).await?.items;
    let drifts = events.into_iter().filter(|event| event.reason.as_deref() == Some("Drifted"));
    Ok(drifts.filter_map(|event| event.message).collect())
}

/// argoproj/argo-cd 9071 and 9696: fields were to be left alone because a named field manager owns them
/// (`managedFieldsManagers`), and were changed nevertheless.
#[tokio::test]
async fn what_a_named_manager_owns_stays_until_it_owns_it_no_more() -> Result<()> {
    let (plane, mut controller) = Plane::alone(ClusterOptions::default()).await?;
    let scene = Scene::on(&plane, "managers", ServerOptions::default()).await?;
    scene.repository(json!({})).await?;
    let write = |image: &str, replicas: u32, seconds: u32| {
        let web = deployment("web", replicas).replace("example.invalid/c", &format!("example.invalid/{image}"));
        scene.tree.write("app/web.yaml", web + &format!("  minReadySeconds: {seconds}\n"))
    };
    write("one", 1, 1)?;
    let first = scene.publish("first").await?;
    let differences = json!([{"target": {"kind": "Deployment"}, "managers": ["image-updater", "scaler"]}]);
    scene.sync("app", "./app", json!({"wait": false, "ignoreDifferences": differences})).await?;
    scene.is_applied("app", &first).await?;
    let by = |manager: &str| PatchParams { field_manager: Some(manager.to_owned()), ..PatchParams::default() };
    let deployments = scene.api::<Deployment>();
    let set_image = async |manager: &str, image: &str| -> Result<()> {
        let container = json!({"name": "c", "image": format!("example.invalid/{image}")});
        let updated = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        deployments.patch("web", &by(manager), &Patch::Strategic(updated)).await?;
        Ok(())
    };
    let has = async |image: &str, replicas: u32, seconds: u32| {
        eventually(&format!("the image {image}, {replicas} replicas and {seconds} s"), || async {
            let web = scene.get("apps/v1", "Deployment", "web").await?.context("no Deployment")?;
            let found = web.pointer("/spec/template/spec/containers/0/image");
            ensure!(found == Some(&json!(format!("example.invalid/{image}"))), "{found:?}");
            ensure!(web.pointer("/spec/replicas") == Some(&json!(replicas)), "{:?}", web["spec"]["replicas"]);
            ensure!(web["spec"]["minReadySeconds"] == json!(seconds), "{:?}", web["spec"]["minReadySeconds"]);
            Ok(())
        })
        .await
    };
    // Both managers write fields that are in Git: one with an update, the other to the subresource `scale`.
    set_image("image-updater", "theirs").await?;
    deployments.patch_scale("web", &by("scaler"), &Patch::Merge(json!({"spec": {"replicas": 5}}))).await?;
    // A commit that changes another field leaves them alone, and so does a commit that changes the same fields.
    write("one", 1, 2)?;
    let second = scene.publish("a field that nobody else writes").await?;
    scene.is_applied("app", &second).await?;
    has("theirs", 5, 2).await?;
    write("two", 2, 3)?;
    let third = scene.publish("the same fields, too").await?;
    scene.is_applied("app", &third).await?;
    has("theirs", 5, 3).await?;
    // Drift of other fields is put back.
    deployments.patch("web", &by("somebody"), &Patch::Merge(json!({"spec": {"minReadySeconds": 7}}))).await?;
    has("theirs", 5, 3).await?;
    // An event is written after what it tells of.
    eventually("the event about the drift", || async {
        let told = drifts(&scene).await?;
        ensure!(told.iter().any(|told| told.contains("minReadySeconds")), "{told:?}");
        Ok(())
    })
    .await?;

    controller.stop()?;
    controller = Controller::start(&plane.options())?;
    controller.ready().await?;
    handled(&scene, "app").await?;
    has("theirs", 5, 3).await?;
    let kubeconfig = plane.cluster.kubeconfig().to_str().context("a path")?;
    gitseal(&scene, &["diff", "app", "--sync", "app", "--kubeconfig", kubeconfig]).await?.is(0, &[])?;
    let told = drifts(&scene).await?;
    ensure!(told.iter().all(|told| !told.contains("image") && !told.contains("replicas")), "{told:?}");

    // As soon as another writer owns one of the fields, Git counts again for this field.
    set_image("somebody", "nobodys").await?;
    has("two", 5, 3).await?;
    set_image("image-updater", "theirs-again").await?;
    has("theirs-again", 5, 3).await?;
    // Without the rule, Git counts for all fields.
    scene.sync("app", "./app", json!({"wait": false, "ignoreDifferences": null})).await?;
    has("two", 2, 3).await
}

/// argoproj/argo-cd 8834 and many like it: an object was out of sync for ever, because the API server stores its fields in another
/// form than Git has.
#[tokio::test]
async fn fields_that_the_api_server_stores_in_another_form_are_no_drift() -> Result<()> {
    let scene = Scene::new("forms").await?;
    scene.tree.write(
        "app/all.yaml",
        "apiVersion: apps/v1
kind: Deployment
metadata: {name: web, creationTimestamp: null, annotations: {}}
spec:
  replicas: 0
  selector: {matchLabels: {app: web}}
  strategy: {}
  template:
    metadata: {labels: {app: web}, creationTimestamp: null}
    spec:
      containers:
      - name: c
        image: example.invalid/c
        command: []
        env: [{name: EMPTY, value: ''}, {name: TWICE, value: 'yes'}]
        resources: {limits: {cpu: 1000m, memory: 1024Mi}, requests: {cpu: 0.5, memory: '1073741824'}}
        ports: [{containerPort: 80}, {containerPort: 80, protocol: UDP}]
        livenessProbe: {httpGet: {port: 80}}
      volumes: []
status: {}
---
apiVersion: autoscaling/v2
kind: HorizontalPodAutoscaler
metadata: {name: web}
spec:
  maxReplicas: 3
  scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: web}
  metrics:
  - {type: Resource, resource: {name: memory, target: {type: AverageValue, averageValue: 1000m}}}
  - {type: Resource, resource: {name: cpu, target: {type: Utilization, averageUtilization: 50}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{port: 80}], selector: {app: web}}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web}
spec: {podSelector: {}, ingress: [{}], egress: []}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {name: web}
roleRef: {kind: Role, name: web}
subjects: [{kind: ServiceAccount, name: web}]
---
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: web}
spec: {accessModes: [ReadWriteOnce], storageClassName: '', resources: {requests: {storage: 1024Mi}}}
",
    )?;
    let revision = scene.publish("many forms").await?;
    scene.sync("app", "./app", json!({"wait": false})).await?;
    scene.is_applied("app", &revision).await?;
    let writes = async || -> Result<Vec<String>> {
        let requests = Plane::shared().await?.cluster.requests()?;
        let ours =
            requests.iter().filter(|one| one.namespace == scene.namespace && one.uri.contains("fieldManager=gitseal&"));
        Ok(ours.map(|one| format!("{} {}", one.resource, one.name)).collect())
    };
    let before = writes().await?;
    ensure!(before.len() >= 6, "{before:?}");
    for _ in 0..3 {
        let token = scene.request::<crds::Sync>("app").await?;
        scene
            .sync_when("app", "the request", |sync, ready| {
                let handled = sync.status.as_ref().and_then(|status| status.last_handled_reconcile_at.as_ref());
                handled == Some(&token) && ready.status == crds::ConditionStatus::True
            })
            .await?;
    }
    assert_eq!(writes().await?, before);
    Ok(())
}
