//! `gitseal keys`, `reseal` and `validate` against a cluster, and backups that are exchanged with the program `age`.

use std::{
    fs,
    net::Ipv4Addr,
    path::PathBuf,
    process::{Command, Output, Stdio},
};

use anyhow::{Context, Result, ensure};
use harness::{
    Plane, eventually, kubernetes, network,
    programs::{self, Controller, ControllerOptions, SealedSecretsController},
    service,
};
use k8s_openapi::api::{core::v1::Secret, events::v1::Event};
use kube::{
    Api, ResourceExt,
    api::{DeleteParams, ListParams},
};
use localcluster::{ClusterOptions, parts};
use serde_json::{Value, json};
use tempfile::TempDir;

const LABEL: &str = "sealedsecrets.bitnami.com/sealed-secrets-key";

/// A cluster of its own for a test that changes the keys, and a folder to work in.
struct Desk {
    plane: Plane,
    /// The URL of the controller. With `None`, it is reached through the API server's proxy.
    url: Option<String>,
    folder: TempDir,
    secrets: Api<Secret>,
    /// A folder with the program `age`.
    age: PathBuf,
    /// The recipient of the identity in `me.txt`.
    recipient: String,
}

/// Starts our controller with a rate limit that tests do not reach.
async fn ours(plane: &Plane, address: Ipv4Addr) -> Result<Controller> {
    let folder = plane.folder();
    let mut options = ControllerOptions { address, ..ControllerOptions::new(plane.cluster.kubeconfig(), &folder) };
    options.arguments.extend(["--rate-limit=1000", "--rate-limit-burst=1000"].map(str::to_owned));
    let mut controller = Controller::start(&options)?;
    controller.ready().await?;
    Ok(controller)
}

impl Desk {
    async fn at(plane: Plane, url: Option<String>) -> Result<Self> {
        let secrets = Api::namespaced(plane.cluster.client().await?, "kube-system");
        let age = tokio::task::spawn_blocking(parts::age).await??;
        let folder = tempfile::tempdir()?;
        let identity = folder.path().join("me.txt");
        programs::run(Command::new(age.join("age-keygen")).arg("-o").arg(&identity))?;
        let recipient = programs::run(Command::new(age.join("age-keygen")).arg("-y").arg(&identity))?.trim().to_owned();
        let desk = Self { plane, url, folder, secrets, age, recipient };
        fs::write(desk.path("cert.pem"), desk.certificate()?)?;
        Ok(desk)
    }

    /// The current sealing certificate, PEM.
    fn certificate(&self) -> Result<String> {
        match &self.url {
            Some(url) => self.run(&["cert", "--allow-http-cert", "--cert", &format!("{url}/v1/cert.pem")]),
            None => self.run(&["cert"]),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Result<Command> {
        let mut command = programs::gitseal(self.plane.cluster.kubeconfig())?;
        command.args(arguments).current_dir(self.folder.path());
        command.envs(self.url.as_ref().map(|url| ("GITSEAL_CONTROLLER_URL", url)));
        Ok(command)
    }

    /// Standard output of a run that must succeed.
    fn run(&self, arguments: &[&str]) -> Result<String> {
        programs::run(&mut self.command(arguments)?)
    }

    fn json(&self, arguments: &[&str]) -> Result<Value> {
        Ok(serde_json::from_str(&self.run(&[arguments, &["-o", "json"]].concat())?)?)
    }

    /// Standard error of a run that must end with this exit code.
    fn fails(&self, arguments: &[&str], code: i32) -> Result<String> {
        let output = self.command(arguments)?.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.code() == Some(code), "{arguments:?}: {:?} {said}", output.status);
        Ok(said)
    }

    /// Runs a command at a terminal, and answers its question with `answer`. If `answer` is empty, the input ends. Returns
    /// the exit code and everything that was shown.
    fn at_terminal(&self, arguments: &[&str], answer: &str) -> Result<(Option<i32>, String)> {
        let command = self.command(arguments)?;
        programs::at_terminal(&command, "[y/N] ", answer)
    }

    fn age(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(self.age.join("age"));
        command.args(arguments).current_dir(self.folder.path()).env("PATH", &self.age);
        command
    }

    /// Names of all key Secrets.
    async fn keys(&self) -> Result<Vec<String>> {
        let keys = self.secrets.list(&ListParams::default().labels(LABEL)).await?;
        let mut names: Vec<String> = keys.iter().map(ResourceExt::name_any).collect();
        names.sort();
        Ok(names)
    }

    /// Waits until the controller counts this number of values for the key.
    async fn counted(&self, name: &str, values: usize) -> Result<()> {
        eventually(&format!("{values} values of {name}"), || async {
            let report = self.json(&["keys", "list"])?;
            let key = report["keys"].as_array().and_then(|keys| keys.iter().find(|key| key["name"] == name));
            ensure!(key.is_some_and(|key| key["values"] == values && report["undecryptable"] == 0), "{report:#}");
            Ok(())
        })
        .await
    }

    /// Seals a Secret `default/NAME` with `gitseal seal`, writes the SealedSecret into a file, and adds a comment.
    fn seal(&self, name: &str, file: &str, certificate: &str) -> Result<String> {
        let plain = json!({
            "apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": "default"},
            "stringData": {"password": format!("hunter2 of {name}")},
        });
        let mut command = self.command(&["seal", "--cert", certificate])?;
        let sealed = String::from_utf8(pipe(&mut command, plain.to_string().as_bytes())?.stdout)?;
        let sealed = format!("# {name}\n{}", yaml_of(&serde_json::from_str(&sealed)?));
        let path = self.path(file);
        fs::create_dir_all(path.parent().context("a file has a folder")?)?;
        fs::write(path, &sealed)?;
        Ok(sealed)
    }

    /// Applies the SealedSecret of a file.
    async fn apply(&self, file: &str) -> Result<()> {
        let object = self.object(file)?;
        kubernetes::apply(&self.plane.cluster.client().await?, "default", object).await.map(drop)
    }

    /// Parses the only SealedSecret in a file.
    fn object(&self, file: &str) -> Result<Value> {
        let text = fs::read_to_string(self.path(file))?;
        let value =
            text.split_once("password: ").context("no value")?.1.split_whitespace().next().context("no value")?;
        let name = text.lines().next().and_then(|line| line.strip_prefix("# ")).context("no name")?;
        Ok(json!({
            "apiVersion": "bitnami.com/v1alpha1", "kind": "SealedSecret",
            "metadata": {"name": name, "namespace": "default"}, "spec": {"encryptedData": {"password": value}},
        }))
    }
}

/// Writes the YAML by hand, so that only the value comes from the program.
fn yaml_of(sealed: &Value) -> String {
    format!(
        "apiVersion: bitnami.com/v1alpha1\nkind:   SealedSecret\nmetadata: {{name: {}, namespace: default}}\nspec:\n  encryptedData:\n    password: {}   # behind\n",
        sealed["metadata"]["name"].as_str().unwrap_or_default(),
        sealed["spec"]["encryptedData"]["password"].as_str().unwrap_or_default(),
    )
}

/// Runs a command with these bytes as standard input. It must succeed.
fn pipe(command: &mut Command, input: &[u8]) -> Result<Output> {
    use std::io::Write;
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("a pipe")?.write_all(input)?;
    let output = child.wait_with_output()?;
    ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output)
}

#[test]
fn a_key_is_rotated_the_repository_resealed_and_the_old_key_retired() -> Result<()> {
    network::of_its_own(async || {
        let plane = Plane::without_controller(ClusterOptions::default()).await?;
        let controller = ours(&plane, network::POD).await?;
        service::lead_to(&plane.cluster.client().await?, controller.port).await?;
        life_of_a_key(&Desk::at(plane, None).await?).await
    })
}

async fn life_of_a_key(desk: &Desk) -> Result<()> {
    let before = desk.keys().await?;
    let [old] = &before[..] else { anyhow::bail!("{before:?}") };
    desk.seal("db", "repo/db.yaml", "cert.pem")?;
    desk.apply("repo/db.yaml").await?;
    desk.counted(old, 1).await?;

    // Makes a new key that is in the backup before it is used.
    let made = desk.json(&["keys", "rotate", "--key-size=2048", "--backup=keys.age", "-r", &desk.recipient])?;
    let new = made["name"].as_str().context("a name")?.to_owned();
    let certificate = sealing::Certificate::from_pem(desk.certificate()?.as_bytes())?;
    // The fingerprint has the same form as in `keys list` and `keys restore`.
    ensure!(made["fingerprint"] == certificate.public_key().fingerprint() && made["seals"] == true, "{made:#}");
    ensure!(made["certificateFingerprint"] == certificate.fingerprint(), "{made:#}");
    let secret = desk.secrets.get(&new).await?;
    ensure!(secret.type_.as_deref() == Some("kubernetes.io/tls") && secret.labels()[LABEL] == "active", "{new}");
    ensure!(secret.metadata.generate_name.as_deref() == Some("sealed-secrets-key"), "{:?}", secret.metadata);
    let backup = programs::run(&mut desk.age(&["-d", "-i", "me.txt", "keys.age"]))?;
    ensure!([old, &new].iter().all(|name| backup.contains(&format!("name: {name}\n"))), "a key is not in the backup");
    let said = desk.fails(&["keys", "rotate", "--key-size=2048", "--backup=keys.age", "-r", &desk.recipient], 1)?;
    ensure!(said.contains("keys.age exists") && desk.keys().await?.len() == 2, "{said}");

    // `keys list` shows which SealedSecrets need which key.
    let report = desk.json(&["keys", "list"])?;
    let seals: Vec<_> =
        report["keys"].as_array().into_iter().flatten().map(|key| (&key["name"], &key["seals"])).collect();
    ensure!(seals == [(&json!(new), &json!(true)), (&json!(old), &json!(false))], "{report:#}");
    let table = desk.run(&["keys", "list"])?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().take(5).collect()).collect();
    ensure!(rows[0] == ["NAME", "STATE", "SEALS", "VALUES", "SEALEDSECRETS"] && rows.len() == 3, "{table}");
    ensure!(rows[1] == [&new, "active", "yes", "0", "0"] && rows[2] == [old, "active", "no", "1", "1"], "{table}");
    let table = desk.run(&["keys", "list", "--values", "-A"])?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(rows[1..] == [["default", "db", old, "password"]], "{table}");
    let values = desk.json(&["keys", "list", "--values", "-n", "default"])?;
    ensure!(values["items"][0]["values"]["password"]["key"] == **old, "{values:#}");
    let said = desk.fails(&["keys", "retire", &new], 1)?;
    ensure!(said.contains("is the key that new values are sealed with"), "{said}");
    let said = desk.fails(&["keys", "retire", old], 1)?;
    ensure!(said.contains("1 value in 1 SealedSecret of the cluster needs this key"), "{said}");

    // Only the value changes. Values that are already sealed for the new key stay.
    let written = fs::read_to_string(desk.path("repo/db.yaml"))?;
    let dry = desk.json(&["reseal", "repo", "--dry-run"])?;
    ensure!(dry["resealed"] == 1 && fs::read_to_string(desk.path("repo/db.yaml"))? == written, "{dry:#}");
    let done = desk.json(&["reseal", "repo"])?;
    ensure!((&done["resealed"], &done["newest"]) == (&json!(1), &json!(0)), "{done:#}");
    let resealed = fs::read_to_string(desk.path("repo/db.yaml"))?;
    let mask = |text: &str| {
        text.split("password: ")
            .map(|part| part.split_once(' ').map_or("", |(_, end)| end))
            .collect::<Vec<_>>()
            .join("|")
    };
    ensure!(resealed != written && mask(&resealed) == mask(&written), "{resealed}");
    let again = desk.json(&["reseal", "repo"])?;
    ensure!((&again["resealed"], &again["newest"]) == (&json!(0), &json!(1)), "{again:#}");
    ensure!(fs::read_to_string(desk.path("repo/db.yaml"))? == resealed, "a second run changed the file");
    desk.apply("repo/db.yaml").await?;
    desk.counted(&new, 1).await?;
    desk.counted(old, 0).await?;
    let client = desk.plane.cluster.client().await?;
    let live = Api::<Secret>::namespaced(client, "default");
    eventually("the Secret", || async {
        let data = live.get("db").await?.data.unwrap_or_default();
        ensure!(data.get("password").is_some_and(|value| value.0 == b"hunter2 of db"), "another value");
        Ok(())
    })
    .await?;

    // Values that are only in files count, too.
    desk.seal("other", "repo/other.yaml", "cert.pem")?;
    let said = desk.fails(&["keys", "retire", old, "--path", "repo"], 1)?;
    ensure!(said.contains("repo/other.yaml:2: SealedSecret default/other: 1 value needs it"), "{said}");
    fs::copy(desk.path("repo/other.yaml"), desk.path("old.yaml"))?;
    desk.run(&["reseal", "repo"])?;
    desk.run(&["validate", "repo", "old.yaml", "--cluster"]).err().context("a duplicate")?;
    let retired = desk.json(&["keys", "retire", old, "--path", "repo"])?;
    ensure!(desk.secrets.get(old).await?.labels()[LABEL] == "retired", "{retired:#}");
    let report = desk.json(&["keys", "list"])?;
    ensure!(report["keys"].as_array().is_some_and(|keys| keys.len() == 1), "{report:#}");
    let checked = desk.command(&["validate", "old.yaml", "--cluster"])?.output()?;
    let problems = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(checked.status.code() == Some(1), "{problems}");
    ensure!(
        problems.starts_with("old.yaml:7: error: SealedSecret default/other: encryptedData.password: no key"),
        "{problems}"
    );
    let failed = desk.fails(&["reseal", "old.yaml"], 1)?;
    ensure!(failed.contains("old.yaml:7: "), "{failed}");
    let said = desk.fails(&["keys", "retire", old], 1)?;
    ensure!(said.contains("its label says retired"), "{said}");

    // A value needs a key that is gone. `keys list` warns, and shows where the value is.
    desk.apply("old.yaml").await?;
    let warning = eventually("the warning", || async {
        let output = desk.command(&["keys", "list"])?.output()?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(output.status.success() && said.contains("cannot be unsealed"), "{:?} {said}", output.status);
        Ok(said)
    })
    .await?;
    ensure!(warning.contains("1 sealed value of the cluster cannot be unsealed with any of these keys"), "{warning}");
    ensure!(warning.contains("`gitseal keys list --values -A`"), "{warning}");
    let table = desk.run(&["keys", "list", "--values", "-A"])?;
    let rows: Vec<Vec<&str>> = table.lines().map(|line| line.split_whitespace().collect()).collect();
    ensure!(rows.contains(&vec!["default", "other", "none", "unseals", "it", "password"]), "{table}");
    ensure!(rows.contains(&vec!["default", "db", &new, "password"]), "{table}");

    // The output has a command that undoes the change.
    ensure!(
        retired["undo"] == format!("kubectl label secret -n kube-system {old} --overwrite {LABEL}=active"),
        "{retired:#}"
    );
    let undo = json!({"metadata": {"labels": {LABEL: "active"}}});
    desk.secrets.patch(old, &kube::api::PatchParams::default(), &kube::api::Patch::Merge(&undo)).await?;
    eventually("the old value to be unsealed again", || async { desk.run(&["validate", "old.yaml", "--cluster"]) })
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_backup_goes_to_age_and_kubeseal_and_comes_back() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let controller = ours(&plane, Ipv4Addr::LOCALHOST).await?;
    let desk = Desk::at(plane, Some(format!("http://127.0.0.1:{}", controller.port))).await?;
    desk.run(&["keys", "rotate", "--key-size=2048", "--common-name=rotated", "--valid-for=30d"])?;
    let names = desk.keys().await?;
    ensure!(names.len() == 2, "{names:?}");
    let sealed = desk.seal("db", "db.yaml", "cert.pem")?;

    // The program `age` reads our backups, for recipients and with a passphrase.
    fs::write(desk.path("team.txt"), format!("# the team\n{}\n", desk.recipient))?;
    desk.run(&["keys", "backup", "keys.age", "-R", "team.txt"])?;
    let armored = desk.run(&["keys", "backup", "-", "--armor", "-r", &desk.recipient])?;
    ensure!(armored.starts_with("-----BEGIN AGE ENCRYPTED FILE-----\n"), "{armored}");
    fs::write(desk.path("armored.age"), &armored)?;
    fs::write(desk.path("passphrase"), "correct horse battery staple\n")?;
    desk.run(&["keys", "backup", "pass.age", "--passphrase-file", "passphrase"])?;
    let plain = programs::run(&mut desk.age(&["-d", "-i", "me.txt", "keys.age"]))?;
    ensure!(programs::run(&mut desk.age(&["-d", "-i", "me.txt", "armored.age"]))? == plain, "another plaintext");
    let with_passphrase = |arguments: &[&str]| {
        let mut command = desk.age(arguments);
        command.env("AGE_PASSPHRASE", "correct horse battery staple");
        command
    };
    ensure!(programs::run(&mut with_passphrase(&["-d", "-j", "batchpass", "pass.age"]))? == plain, "another plaintext");
    for leak in ["uid", "resourceVersion", "managedFields", "creationTimestamp"] {
        ensure!(!plain.contains(leak), "{leak} is in the backup");
    }

    // The real kubeseal can use the backup for recovery, without any cluster.
    fs::write(desk.path("keys.yaml"), &plain)?;
    let kubeseal = tokio::task::spawn_blocking(parts::kubeseal).await??;
    let mut recover = Command::new(kubeseal);
    recover.args(["--recovery-unseal", "--recovery-private-key"]).arg(desk.path("keys.yaml"));
    let recovered: Value = serde_json::from_slice(&pipe(&mut recover, sealed.as_bytes())?.stdout)?;
    ensure!(recovered["data"]["password"] == "aHVudGVyMiBvZiBkYg==", "kubeseal recovered something else");

    // The cluster loses its keys and gets them back: from our backup, and from one that the program `age` encrypted.
    let before = desk.secrets.list(&ListParams::default().labels(LABEL)).await?.items;
    pipe(&mut desk.age(&["-r", &desk.recipient, "-o", "real.age"]), plain.as_bytes())?;
    pipe(&mut with_passphrase(&["-e", "-j", "batchpass", "-o", "real-pass.age"]), plain.as_bytes())?;
    for (file, decrypt) in [
        ("real.age", "--identity=me.txt"),
        ("real-pass.age", "--passphrase-file=passphrase"),
        ("keys.age", "--identity=me.txt"),
    ] {
        for name in desk.keys().await? {
            desk.secrets.delete(&name, &DeleteParams::default()).await?;
        }
        eventually("the keys to be gone", || async { desk.fails(&["validate", "db.yaml", "--cluster"], 1) }).await?;
        // The controller makes a new key, which may have the name of its first one.
        let made = eventually("a key of the controller's own", || async {
            let keys = desk.keys().await?;
            ensure!(keys.len() == 1, "{keys:?}");
            Ok(keys)
        })
        .await?;
        let dry = desk.json(&["keys", "restore", file, decrypt, "--rename", "--dry-run"])?;
        let plans = |report: &Value, plan: &str| {
            report["keys"].as_array().is_some_and(|keys| keys.len() == 2 && keys.iter().all(|key| key["plan"] == plan))
        };
        ensure!(plans(&dry, "create") && desk.keys().await? == made, "{dry:#}");
        // There is no terminal to ask, and `--yes` was not given.
        let asked = desk.fails(&["keys", "restore", file, decrypt, "--rename"], 1)?;
        for key in dry["keys"].as_array().into_iter().flatten().filter_map(|key| key["fingerprint"].as_str()) {
            ensure!(asked.contains(&format!("sha256:{key}")), "{key} is not shown: {asked}");
        }
        ensure!(asked.contains("new values are sealed with") && asked.contains("--yes"), "{asked}");
        ensure!(desk.keys().await? == made, "something was restored");
        let restore = ["keys", "restore", file, decrypt, "--rename"];
        if file == "keys.age" {
            for no in ["n\n", "\n", "yours\n", ""] {
                let (code, shown) = desk.at_terminal(&restore, no)?;
                ensure!(code == Some(1) && shown.contains("Restore these keys? [y/N]"), "{no:?}: {code:?} {shown}");
                ensure!(shown.contains("nothing was restored"), "{no:?}: {shown}");
                ensure!(desk.keys().await? == made, "something was restored after {no:?}");
            }
            let (code, shown) = desk.at_terminal(&restore, "y\n")?;
            ensure!(code == Some(0), "{code:?} {shown}");
            for key in dry["keys"].as_array().into_iter().flatten().filter_map(|key| key["fingerprint"].as_str()) {
                let (before, _) = shown.split_once("[y/N]").context("it did not ask")?;
                ensure!(before.contains(&format!("sha256:{key}")), "{key} is not shown: {shown}");
            }
        } else {
            desk.run(&[&restore[..], &["--yes"]].concat())?;
        }
        let restored = desk.secrets.list(&ListParams::default().labels(LABEL)).await?.items;
        for key in &before {
            let same = |found: &&Secret| found.data == key.data && found.type_ == key.type_;
            let found = restored.iter().find(same).with_context(|| format!("{file}: {} is lost", key.name_any()))?;
            ensure!(found.labels() == key.labels(), "{file}: {:?}", found.labels());
        }
        desk.run(&["validate", "db.yaml", "--cluster"])?;
        let again = desk.json(&["keys", "restore", file, decrypt, "--rename"])?;
        ensure!(plans(&again, "unchanged"), "{again:#}");
    }

    // If another key has the name of a key in the backup, nothing is restored.
    for name in desk.keys().await? {
        desk.secrets.delete(&name, &DeleteParams::default()).await?;
    }
    let mut taken = before[1].clone();
    taken.metadata = kube::api::ObjectMeta {
        name: Some(before[0].name_any()),
        labels: before[1].metadata.labels.clone(),
        ..kube::api::ObjectMeta::default()
    };
    // If this name is taken, the controller has already made a key of this name. That key, too, is not the one in the
    // backup.
    if let Err(error) = desk.secrets.create(&kube::api::PostParams::default(), &taken).await {
        ensure!(matches!(&error, kube::Error::Api(status) if status.reason == "AlreadyExists"), "{error}");
    }
    let said = desk.fails(&["keys", "restore", "keys.age", "-i", "me.txt"], 1)?;
    ensure!(
        said.contains(&format!("the Secret {} in namespace kube-system holds another key", before[0].name_any())),
        "{said}"
    );
    let left = desk.secrets.list(&ListParams::default().labels(LABEL)).await?.items;
    ensure!(left.iter().all(|key| key.data != before[0].data), "something was restored");
    Ok(())
}

/// Disaster recovery: the cluster is gone, but there is a backup of the keys. They are restored before the controller
/// starts.
#[tokio::test]
async fn keys_that_are_restored_before_the_controller_starts_stay_alone() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let controller = ours(&plane, Ipv4Addr::LOCALHOST).await?;
    let desk = Desk::at(plane, Some(format!("http://127.0.0.1:{}", controller.port))).await?;
    let before = desk.keys().await?;
    let events = Api::<Event>::namespaced(desk.plane.cluster.client().await?, "kube-system");
    let told = eventually("an event about the new key", || async {
        let all = events.list(&ListParams::default()).await?;
        all.into_iter().find(|event| event.reason.as_deref() == Some("SealingKeyMade")).context("none")
    })
    .await?;
    ensure!(told.note.as_deref().is_some_and(|note| note.contains("back it up")), "{told:?}");
    desk.run(&["keys", "backup", "keys.age", "-r", &desk.recipient])?;
    // A key has the same name and fingerprint in the backup as in the cluster.
    let in_file = desk.run(&["keys", "backup", "--check", "keys.age", "-i", "me.txt"])?;
    let in_cluster = desk.run(&["keys", "list"])?;
    let ends = |table: &str| -> Vec<(String, String)> {
        let cells = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
        cells.map(|cells| (cells[0].to_owned(), cells[cells.len() - 1].to_owned())).collect()
    };
    ensure!(ends(&in_file) == ends(&in_cluster) && in_file.contains("sha256:"), "{in_file}\n{in_cluster}");
    let names: String = before.iter().map(|name| format!("secret/{name}\n")).collect();
    ensure!(desk.run(&["keys", "list", "-o", "name"])? == names);
    drop(controller);
    for name in &before {
        desk.secrets.delete(name, &DeleteParams::default()).await?;
    }
    let elsewhere =
        ["keys", "restore", "keys.age", "-i", "me.txt", "--yes", "--no-wait", "--controller-namespace", "nope"];
    let said = desk.fails(&elsewhere, 1)?;
    ensure!(said.contains("there is no namespace nope") && said.contains("--controller-namespace"), "{said}");
    desk.run(&["keys", "restore", "keys.age", "-i", "me.txt", "--yes", "--no-wait"])?;
    let controller = ours(&desk.plane, Ipv4Addr::LOCALHOST).await?;
    ensure!(desk.keys().await? == before, "{before:?} and now {:?}", desk.keys().await?);
    drop(controller);
    // A key that was made after the backup is missing in the backup.
    desk.run(&["keys", "rotate", "--key-size=2048", "--no-wait"])?;
    let said = desk.fails(&["keys", "backup", "--check", "keys.age", "-i", "me.txt"], 1)?;
    ensure!(said.contains("keys.age lacks keys of the cluster: "), "{said}");
    Ok(())
}

#[tokio::test]
async fn the_sealed_secrets_controller_is_told_apart_and_used_as_far_as_it_goes() -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let arguments = ["--key-size=2048", "--rate-limit=1000", "--rate-limit-burst=1000"];
    let controller = SealedSecretsController::start_on(&plane, Ipv4Addr::LOCALHOST, &arguments).await?;
    let desk = Desk::at(plane, Some(format!("http://127.0.0.1:{}", controller.port()))).await?;
    desk.seal("db", "repo/db.yaml", "cert.pem")?;

    // The Sealed Secrets controller can say whether it can unseal a whole SealedSecret.
    desk.run(&["validate", "repo", "--cluster"])?;
    let moved = fs::read_to_string(desk.path("repo/db.yaml"))?.replace("name: db", "name: moved");
    fs::write(desk.path("repo/moved.yaml"), moved)?;
    let checked = desk.command(&["validate", "repo", "--cluster"])?.output()?;
    let problems = String::from_utf8_lossy(&checked.stdout).into_owned();
    ensure!(
        problems.starts_with("repo/moved.yaml:2: error: SealedSecret default/moved: at least one of its values"),
        "{problems}"
    );
    ensure!(checked.status.code() == Some(1) && problems.lines().count() == 1, "{problems}");
    fs::remove_file(desk.path("repo/moved.yaml"))?;

    // The Sealed Secrets controller cannot say which key a value needs. So no key can be retired and nothing can be
    // resealed through it.
    let old = desk.keys().await?.pop().context("a key")?;
    for arguments in [&["keys", "list"][..], &["keys", "retire", &old, "--force"], &["reseal", "repo"]] {
        let said = desk.fails(arguments, 1)?;
        ensure!(said.contains(" has no /v1/"), "{said}");
    }
    // The Sealed Secrets controller has to be restarted to use a new key, and the message says so.
    let said = desk.fails(&["keys", "rotate", "--key-size=2048", "--timeout=1s"], 1)?;
    ensure!(
        said.contains("the controller still seals with another certificate") && said.contains("restarted"),
        "{said}"
    );
    let both = desk.keys().await?;
    let new = both.iter().find(|name| **name != old).context("a new key")?;
    controller.stop()?;
    let controller = SealedSecretsController::start_on(&desk.plane, Ipv4Addr::LOCALHOST, &arguments).await?;
    let desk = Desk { url: Some(format!("http://127.0.0.1:{}", controller.port())), ..desk };
    let secret = desk.secrets.get(new).await?.data.unwrap_or_default();
    ensure!(desk.certificate()?.as_bytes() == secret["tls.crt"].0, "it does not seal with the key made here");

    // With the controller's keys from the backup, values can be resealed offline, and the controller can unseal them.
    desk.run(&["keys", "backup", "keys.age", "-r", &desk.recipient])?;
    fs::write(desk.path("keys.yaml"), programs::run(&mut desk.age(&["-d", "-i", "me.txt", "keys.age"]))?)?;
    fs::write(desk.path("new.pem"), desk.certificate()?)?;
    let offline = ["reseal", "repo", "--private-key", "keys.yaml", "--cert", "new.pem"];
    ensure!(desk.json(&offline)?["resealed"] == 1, "the old value was not resealed");
    ensure!(desk.json(&offline)?["newest"] == 1, "a second run resealed it again");
    desk.run(&["validate", "repo", "--cluster", "--cert", "new.pem"])?;
    Ok(())
}
