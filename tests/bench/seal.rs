//! Measures `gitseal seal` and kubeseal, from the start of a process to its end.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use harness::{
    Plane, network,
    programs::{self, Controller, ControllerOptions},
    service,
};
use localcluster::{ClusterOptions, parts};

use crate::process;

/// Options of this benchmark.
#[derive(clap::Args)]
pub(crate) struct Options {
    /// How often each program seals one Secret. The programs take turns.
    #[arg(long, default_value_t = 20)]
    runs: usize,
    /// Number of files in the folder.
    #[arg(long, default_value_t = 500)]
    files: usize,
    /// How often each program seals the folder. The programs take turns.
    #[arg(long, default_value_t = 3)]
    folder_runs: usize,
}

/// The measured times of several runs of one program.
#[derive(Default)]
struct Runs {
    times: Vec<Duration>,
    cpu: Duration,
    count: u32,
}

impl Runs {
    fn measure(&mut self, run: impl FnOnce() -> Result<()>) -> Result<()> {
        let (cpu, start) = (process::cpu_of_ended()?, Instant::now());
        run()?;
        self.times.push(start.elapsed());
        self.count += 1;
        self.cpu += process::cpu_of_ended()?.saturating_sub(cpu);
        Ok(())
    }

    /// The median of the elapsed times, in milliseconds.
    fn median(&mut self) -> f64 {
        self.times.sort();
        let half = self.times.len() / 2;
        let median =
            if self.times.len() % 2 == 1 { self.times[half] } else { (self.times[half - 1] + self.times[half]) / 2 };
        1e3 * median.as_secs_f64()
    }

    /// The processor time of one run in milliseconds. It is the mean of all runs, because the kernel measures it only in
    /// steps of 10 ms.
    fn mean_cpu(&self) -> f64 {
        1e3 * (self.cpu / self.count.max(1)).as_secs_f64()
    }
}

/// Runs the benchmark and prints a Markdown table.
pub(crate) async fn run(options: &Options) -> Result<()> {
    let plane = Plane::without_controller(ClusterOptions::default()).await?;
    let folder = plane.folder();
    let mut controller =
        ControllerOptions { address: network::POD, ..ControllerOptions::usual(plane.cluster.kubeconfig(), &folder) };
    controller.arguments = ["--key-size=4096", "--namespace=kube-system"].map(str::to_owned).into();
    let mut controller = Controller::start(&controller)?;
    controller.ready().await?;
    service::lead_to(&plane.cluster.client().await?, controller.port).await?;
    let workplace = Workplace {
        folder: plane.folder().join("seal"),
        kubeconfig: plane.cluster.kubeconfig().to_owned(),
        kubeseal: parts::kubeseal()?,
    };
    workplace.fill(&controller.fetch("/v1/cert.pem").await?, options.files)?;
    process::idle(&plane.cluster).await?;

    println!(
        "| median of {} runs (one Secret) or {} runs (a folder) | gitseal | kubeseal v0.36.6 | ratio |",
        options.runs, options.folder_runs
    );
    println!("|---|---|---|---|");
    workplace.one("one Secret, the certificate from the cluster", &[], options.runs)?;
    workplace.one("one Secret, --cert", &["--cert", CERTIFICATE], options.runs)?;
    workplace.folder(options)
}

/// The folder and the settings with which both programs run.
struct Workplace {
    folder: PathBuf,
    kubeconfig: PathBuf,
    kubeseal: PathBuf,
}

const CERTIFICATE: &str = "cert.pem";
const SECRET: &str = "secret.yaml";
/// The name of the folder with many files.
const MANY: &str = "many";

impl Workplace {
    fn fill(&self, certificate: &str, files: usize) -> Result<()> {
        fs::create_dir_all(self.folder.join(MANY))?;
        fs::write(self.folder.join(CERTIFICATE), certificate)?;
        fs::write(self.folder.join(SECRET), secret(0))?;
        for number in 0..files {
            fs::write(self.folder.join(MANY).join(format!("secret-{number:04}.yaml")), secret(number))?;
        }
        Ok(())
    }

    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        command.env("KUBECONFIG", &self.kubeconfig).current_dir(&self.folder);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// Runs kubeseal from one file to another, as people use it.
    fn kubeseal(&self, arguments: &[&str], from: &Path, to: &Path) -> Result<()> {
        let mut command = self.command(&self.kubeseal);
        command.args(["--format", "yaml"]).args(arguments);
        finish(command.stdin(File::open(from)?).stdout(File::create(to)?))
    }

    /// Measures how long each program takes to seal one Secret from a file to another.
    fn one(&self, title: &str, arguments: &[&str], runs: usize) -> Result<()> {
        let (from, to) = (self.folder.join(SECRET), self.folder.join("sealed.yaml"));
        let (mut ours, mut theirs) = (Runs::default(), Runs::default());
        for _ in 0..runs {
            let mut command = self.command(gitseal()?);
            command.arg("seal").args(arguments).stdin(File::open(&from)?).stdout(File::create(&to)?);
            ours.measure(|| finish(&mut command))?;
            check(&to)?;
            theirs.measure(|| self.kubeseal(arguments, &from, &to))?;
            check(&to)?;
        }
        row(title, ours.median(), Some(theirs.median()));
        row("… processor time", ours.mean_cpu(), Some(theirs.mean_cpu()));
        Ok(())
    }

    /// Measures how long it takes to seal a folder: gitseal seals all files in place, and kubeseal is started once for each
    /// file.
    fn folder(&self, options: &Options) -> Result<()> {
        let (mut ours, mut alone, mut theirs) = (Runs::default(), Runs::default(), Runs::default());
        let arguments = ["seal", "--cert", CERTIFICATE, "run"];
        for _ in 0..options.folder_runs {
            let mut command = self.command(gitseal()?);
            command.args(arguments);
            self.all_files(|| ours.measure(|| finish(&mut command)))?;
            let mut command = self.command("taskset");
            command.args(["--cpu-list", "0"]).arg(gitseal()?).args(arguments);
            self.all_files(|| alone.measure(|| finish(&mut command)))?;
            self.all_files(|| {
                let files = files(&self.folder.join("run"))?;
                theirs.measure(|| {
                    for file in &files {
                        let sealed = file.with_extension("sealed");
                        self.kubeseal(&["--cert", CERTIFICATE], file, &sealed)?;
                        fs::rename(sealed, file)?;
                    }
                    Ok(())
                })
            })?;
        }
        let title = format!("a folder of {} files, --cert", options.files);
        let theirs_median = theirs.median();
        row(&title, ours.median(), Some(theirs_median));
        row("… on one processor", alone.median(), None);
        row("… processor time", ours.mean_cpu(), Some(theirs.mean_cpu()));
        Ok(())
    }

    /// Calls `seal` on a fresh copy of the folder, and checks that all its files are sealed afterwards.
    fn all_files(&self, seal: impl FnOnce() -> Result<()>) -> Result<()> {
        let copy = self.folder.join("run");
        fs::create_dir(&copy)?;
        for file in files(&self.folder.join(MANY))? {
            let name = file.file_name().context("a file has a name")?;
            fs::copy(&file, copy.join(name))?;
        }
        // Write the files to disk now, so that this does not slow down the next measurement.
        finish(&mut Command::new("sync"))?;
        seal()?;
        for file in files(&copy)? {
            check(&file)?;
        }
        Ok(fs::remove_dir_all(copy)?)
    }
}

fn gitseal() -> Result<PathBuf> {
    Ok(programs::folder()?.join("gitseal"))
}

fn secret(number: usize) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata:\n  name: sample-{number}\n  namespace: default\nstringData:\n  \
         username: somebody\n  password: secret {number}\n"
    )
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<Result<Vec<_>>>()?;
    files.sort();
    Ok(files)
}

/// Runs a command to its end, and fails if the command fails.
fn finish(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("{command:?}"))?;
    ensure!(status.success(), "{command:?} ended with {status}");
    Ok(())
}

fn check(sealed: &Path) -> Result<()> {
    let text = fs::read_to_string(sealed)?;
    ensure!(text.contains("kind: SealedSecret") && text.contains("password: Ag"), "not sealed:\n{text}");
    Ok(())
}

fn row(title: &str, ours: f64, theirs: Option<f64>) {
    let theirs = theirs.map(|theirs| (format!("{theirs:.1} ms"), format!("1/{:.1}", theirs / ours)));
    let (theirs, ratio) = theirs.unwrap_or_default();
    println!("| {title} | {ours:.1} ms | {theirs} | {ratio} |");
}
