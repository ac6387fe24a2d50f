//! The steps of the demo. Each checks its own result.

use std::{
    path::PathBuf,
    process::{Command, Stdio},
    time::Instant,
};

use anyhow::{Context, Result, bail, ensure};
use harness::{
    Plane, eventually,
    git::{GitServer, ServerOptions, WorkTree},
    kubernetes,
    programs::{self, Controller, ControllerOptions},
};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Secret},
};
use kube::{
    Api, Client,
    api::{Patch, PatchParams},
};
use localcluster::ClusterOptions;
use serde_json::json;

use crate::{app, narrator::Narrator};

/// This password protects nothing: it is an example, and the demo prints it.
const PASSWORD: &str = "correct-horse-battery-staple";

struct Demo {
    narrator: Narrator,
    plane: Plane,
    client: Client,
    server: GitServer,
    tree: WorkTree,
    certificate: PathBuf,
    controller: Controller,
}

/// Runs all steps. Without `once`, everything keeps running at the end.
pub(crate) async fn run(once: bool) -> Result<()> {
    let mut demo = Demo::prepare().await?;
    demo.seal_and_commit().await?;
    demo.edit_is_healed().await?;
    demo.revert_rolls_back().await?;
    demo.broken_seal_is_explained().await?;
    demo.second_terminal_is_told_everything()?;
    demo.narrator.heading("Everything did what it says.");
    if !once {
        demo.stay_up().await?;
    }
    Ok(())
}

impl Demo {
    async fn prepare() -> Result<Self> {
        let mut narrator = Narrator::new();
        narrator.step("A Kubernetes control plane, gitseal in it, and a Git repository");
        narrator
            .says("first, what is not built yet: gitseal from this workspace, the control plane from its Go modules");
        tokio::task::spawn_blocking(|| programs::folder().map(|_| ())).await??;
        let started = Instant::now();
        let plane = Plane::without_controller(ClusterOptions::default()).await?;
        let client = plane.cluster.client().await?;
        narrator.checked(&format!(
            "a real kube-apiserver at {} after {:.1} s",
            plane.cluster.url(),
            started.elapsed().as_secs_f64()
        ));
        let folder = plane.folder();
        let options = ControllerOptions::usual(plane.cluster.kubeconfig(), &folder);
        let mut controller = Controller::start(&options)?;
        controller.ready().await?;
        narrator.checked("the controller runs: it made its sealing key and serves the certificate");
        let server = tokio::task::spawn_blocking(|| GitServer::new(ServerOptions::default())).await??;
        let tree = server.create("shop")?;
        narrator.checked(&format!("a Git repository at {}", server.url("shop")));
        let certificate = folder.join("cluster.pem");
        std::fs::write(&certificate, controller.fetch("/v1/cert.pem").await?)?;
        Ok(Self { narrator, plane, client, server, tree, certificate, controller })
    }

    async fn seal_and_commit(&mut self) -> Result<()> {
        self.narrator.step("Seal a Secret and commit it beside the app");
        self.narrator.typed("gitseal seal --cert cluster.pem < db-secret.yaml > app/db.yaml");
        let sealed = self.seal(&app::secret(PASSWORD))?;
        ensure!(!sealed.contains(PASSWORD), "the sealed file holds the password");
        self.narrator.answer(&shortened(&sealed));
        self.narrator.checked("the file is safe to publish: only the cluster can unseal it");
        self.tree.write("app/db.yaml", &sealed)?;
        self.tree.write("app/web.yaml", app::WEB)?;
        self.tree.write("app/settings.yaml", app::SETTINGS)?;
        self.narrator.typed("git add app && git commit -m 'the shop' && git push");
        self.tree.publish("the shop")?;
        self.narrator.typed("kubectl apply -f repository-and-sync.yaml");
        for object in app::repository_and_sync(&self.server.url("shop")) {
            kubernetes::apply(&self.client, "default", object).await?;
        }
        self.gitseal(&["sync", "shop"])?;
        self.gitseal(&["status"])?;
        let secret = Api::<Secret>::namespaced(self.client.clone(), "default").get("db").await?;
        let password = secret.data.unwrap_or_default().remove("password").map(|bytes| bytes.0);
        ensure!(password.as_deref() == Some(PASSWORD.as_bytes()), "the Secret does not hold the password");
        self.narrator
            .checked("Secret db is there with its value, and so are the Deployment, the Service and the ConfigMap");
        Ok(())
    }

    async fn edit_is_healed(&mut self) -> Result<()> {
        self.narrator.step("Somebody edits a live object");
        self.narrator.typed("kubectl scale deployment web --replicas 7");
        let web = Api::<Deployment>::namespaced(self.client.clone(), "default");
        let patch = json!({"spec": {"replicas": 7}});
        let by_kubectl = PatchParams { field_manager: Some("kubectl".into()), ..PatchParams::default() };
        web.patch("web", &by_kubectl, &Patch::Merge(&patch)).await?;
        let started = Instant::now();
        eventually("the Deployment to be healed", || async {
            let replicas = web.get("web").await?.spec.and_then(|spec| spec.replicas);
            if replicas == Some(2) { Ok(()) } else { bail!("{replicas:?} replicas") }
        })
        .await?;
        self.narrator.checked(&format!("back at 2 replicas, as Git says, after {} ms", started.elapsed().as_millis()));
        self.narrator.typed("kubectl delete secret db");
        let secrets = Api::<Secret>::namespaced(self.client.clone(), "default");
        let old = secrets.get("db").await?.metadata.uid;
        secrets.delete("db", &kube::api::DeleteParams::default()).await?;
        let started = Instant::now();
        eventually("the Secret to come back", || async {
            match secrets.get("db").await?.metadata.uid {
                uid if uid == old => bail!("it is not deleted yet"),
                _ => Ok(()),
            }
        })
        .await?;
        self.narrator.checked(&format!("unsealed again after {} ms", started.elapsed().as_millis()));
        Ok(())
    }

    async fn revert_rolls_back(&mut self) -> Result<()> {
        self.narrator.step("A bad change, and git revert");
        self.narrator.typed("sed -i 's/blue/red/' app/settings.yaml && git commit -am 'red' && git push");
        self.tree.write("app/settings.yaml", app::SETTINGS.replace("blue", "red"))?;
        let commit = self.tree.publish("red")?;
        self.gitseal(&["sync", "shop"])?;
        ensure!(self.colour().await? == "red", "the change was not applied");
        self.narrator.checked("the ConfigMap says red");
        self.narrator.typed("git revert --no-edit HEAD && git push");
        self.tree.revert(&commit)?;
        self.tree.push()?;
        self.gitseal(&["sync", "shop"])?;
        ensure!(self.colour().await? == "blue", "the revert was not applied");
        self.narrator.checked("the ConfigMap says blue again");
        Ok(())
    }

    async fn broken_seal_is_explained(&mut self) -> Result<()> {
        self.narrator.step("A broken seal");
        self.narrator
            .says("somebody copies the sealed file to another name: a value is sealed for one name in one namespace");
        self.narrator.typed("sed 's/name: db/name: copied/' app/db.yaml > app/copied.yaml && git add app && git commit -m copy && git push");
        let sealed = std::fs::read_to_string(self.tree.path().join("app/db.yaml"))?;
        self.tree.write("app/copied.yaml", sealed.replace("name: db", "name: copied"))?;
        self.tree.write("app/settings.yaml", app::SETTINGS.replace("blue", "green"))?;
        let commit = self.tree.publish("copy, and green")?;
        let mut sync = programs::gitseal(self.plane.cluster.kubeconfig())?;
        self.narrator.typed("gitseal sync shop");
        let output = sync.args(["sync", "shop"]).output()?;
        ensure!(!output.status.success(), "a broken seal went unnoticed");
        self.narrator.answer(&String::from_utf8_lossy(&output.stderr));
        let status = self.gitseal(&["status"])?;
        ensure!(status.contains("app/copied.yaml"), "the status does not name the file");
        ensure!(self.colour().await? == "green", "the rest of the revision was not applied");
        self.narrator.checked("the status names the file, the key and what to do; the rest of the commit is applied");
        self.tree.revert(&commit)?;
        self.tree.push()?;
        self.gitseal(&["sync", "shop"])?;
        self.narrator.checked("reverted: everything is Ready again");
        Ok(())
    }

    /// Runs the commands that people are told to type in a second terminal. The shell has only the environment that the
    /// printed text sets, so this shows that the text is complete.
    fn second_terminal_is_told_everything(&mut self) -> Result<()> {
        self.narrator.step("In a second terminal");
        let mut typed = vec![format!("export PATH=\"{}:$PATH\"", programs::folder()?.display())];
        let variables = [
            ("KUBECONFIG", self.plane.cluster.kubeconfig().display().to_string()),
            // The controller runs outside of the cluster, so there is no Service that leads to it.
            ("GITSEAL_CONTROLLER_URL", format!("http://127.0.0.1:{}", self.controller.port)),
            ("SEALED_SECRETS_CERT", self.certificate.display().to_string()),
        ];
        typed.extend(variables.iter().map(|(name, value)| format!("export {name}=\"{value}\"")));
        for line in &typed {
            self.narrator.typed(line);
        }
        let folder = self.plane.folder();
        std::fs::write(folder.join("secret.yaml"), app::secret(PASSWORD))?;
        for (command, part) in [
            ("gitseal status", "sync/shop"),
            ("gitseal keys list", "sealed-secrets-key"),
            ("gitseal cert --show", "Fingerprint:"),
            ("gitseal seal < secret.yaml", "kind: SealedSecret"),
        ] {
            let mut shell = Command::new("sh");
            shell.arg("-ec").arg(format!("{}\n{command}", typed.join("\n"))).current_dir(&folder);
            shell.env_clear().env("PATH", "/usr/bin:/bin").env("HOME", &folder);
            self.narrator.typed(command);
            let output = programs::run(&mut shell)?;
            ensure!(output.contains(part), "{command} does not show {part}:\n{output}");
            let is_sealed = output.contains("kind: SealedSecret");
            self.narrator.answer(&if is_sealed { shortened(&output) } else { output });
        }
        Ok(())
    }

    async fn stay_up(&self) -> Result<()> {
        self.narrator.heading("It stays up until Ctrl-C. Look around in the second terminal:");
        self.narrator.typed("gitseal status -w            # or kubectl get syncs,repositories,sealedsecrets,secrets");
        self.narrator.typed(&format!("cd {}   # commit and `git push` here", self.tree.path().display()));
        self.narrator.typed("gitseal seal -i some-secret.yaml");
        tokio::signal::ctrl_c().await.context("waiting for Ctrl-C")?;
        Ok(())
    }

    /// Runs `gitseal` and shows its output.
    fn gitseal(&self, arguments: &[&str]) -> Result<String> {
        self.narrator.typed(&format!("gitseal {}", arguments.join(" ")));
        let output = programs::run(programs::gitseal(self.plane.cluster.kubeconfig())?.args(arguments))?;
        self.narrator.answer(&output);
        Ok(output)
    }

    fn seal(&self, secret: &str) -> Result<String> {
        use std::io::Write;
        let mut command: Command = programs::gitseal(self.plane.cluster.kubeconfig())?;
        command
            .arg("seal")
            .arg("--cert")
            .arg(&self.certificate)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        child.stdin.take().context("its input")?.write_all(secret.as_bytes())?;
        let output = child.wait_with_output()?;
        self.narrator.answer(&String::from_utf8_lossy(&output.stderr));
        ensure!(output.status.success(), "gitseal seal ended with {}", output.status);
        Ok(String::from_utf8(output.stdout)?)
    }

    async fn colour(&self) -> Result<String> {
        let settings = Api::<ConfigMap>::namespaced(self.client.clone(), "default").get("settings").await?;
        settings.data.unwrap_or_default().remove("colour").context("the ConfigMap has no colour")
    }
}

/// Shortens sealed values to their beginnings, because they are long.
fn shortened(yaml: &str) -> String {
    let line = |line: &str| match line.char_indices().nth(72) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    };
    yaml.lines().map(line).collect::<Vec<_>>().join("\n")
}
