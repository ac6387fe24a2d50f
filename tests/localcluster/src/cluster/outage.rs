//! Makes outages: ends programs and starts them again, and restores etcd from a backup.

use std::{
    fs,
    path::{Path, PathBuf},
    thread::sleep,
    time::{Duration, Instant},
};

use super::{Cluster, Program, ready};
use crate::{
    Signal,
    error::{At, Error, Result},
};

/// How long the API server may take to start again.
const READY_WITHIN: Duration = Duration::from_secs(120);

/// A backup of etcd. It is deleted with the cluster.
#[derive(Debug)]
pub struct Backup {
    folder: PathBuf,
}

impl Cluster {
    /// Kills a program, as a power cut would. Does nothing if the program does not run.
    pub fn cut(&mut self, program: Program) -> Result<()> {
        if let Some(index) = self.programs.iter().position(|(running, _)| *running == program) {
            self.programs.remove(index).1.kill()?;
        }
        Ok(())
    }

    /// Starts a program again with its first arguments, and waits until it answers requests. Does nothing if the
    /// program runs.
    pub fn start_again(&mut self, program: Program) -> Result<()> {
        if self.program(program).is_some() {
            return Ok(());
        }
        if let Some((_, path, flags)) = self.commands.iter().find(|(known, ..)| *known == program).cloned() {
            self.launch(program, &path, &flags)?;
        }
        if program == Program::ApiServer { ready::wait(self, READY_WITHIN) } else { Ok(()) }
    }

    /// Makes a backup of etcd. Meanwhile, etcd is stopped by SIGSTOP, so the copied files are those that a crash would
    /// leave.
    pub fn back_up(&mut self) -> Result<Backup> {
        let folder = self.file(&format!("backup-{}", self.backups));
        self.backups += 1;
        let etcd = self.program(Program::Etcd);
        if let Some(etcd) = etcd {
            etcd.signal(Signal::Stop)?;
            wait_until_stopped(etcd.pid())?;
        }
        let copied = copy(&self.file("etcd"), &folder);
        if let Some(etcd) = etcd {
            etcd.signal(Signal::Continue)?;
        }
        copied?;
        Ok(Backup { folder })
    }

    /// Restores etcd from a backup, with the old resource versions. The API server is started again, too, as Kubernetes'
    /// documentation recommends.
    pub fn restore(&mut self, backup: &Backup) -> Result<()> {
        self.cut(Program::ApiServer)?;
        self.cut(Program::Etcd)?;
        let data = self.file("etcd");
        fs::remove_dir_all(&data).at("cannot remove", &data)?;
        copy(&backup.folder, &data)?;
        self.start_again(Program::Etcd)?;
        self.start_again(Program::ApiServer)
    }
}

fn wait_until_stopped(pid: u32) -> Result<()> {
    let file = PathBuf::from(format!("/proc/{pid}/stat"));
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        let stat = fs::read_to_string(&file).at("cannot read", &file)?;
        // The format is `pid (name) state …`.
        if stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T')) {
            return Ok(());
        }
        if Instant::now() > until {
            let source = std::io::Error::other("it did not stop");
            return Err(Error::Io { action: "cannot stop", path: file, source });
        }
        sleep(Duration::from_millis(2));
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).at("cannot create", to)?;
    for entry in fs::read_dir(from).at("cannot read", from)? {
        let entry = entry.at("cannot read", from)?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        if entry.file_type().at("cannot read", &source)?.is_dir() {
            copy(&source, &target)?;
        } else {
            fs::copy(&source, &target).at("cannot copy", &source)?;
        }
    }
    Ok(())
}
