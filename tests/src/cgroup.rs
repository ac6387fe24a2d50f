//! A group of processes with a memory limit, like that of a Pod.

use std::{fs, path::PathBuf, thread::sleep, time::Duration};

use anyhow::{Context, Result};

/// A control group of the kernel, of version 2 or 1. When it is dropped and empty, it is deleted.
pub struct Cgroup {
    folder: PathBuf,
    kills: &'static str,
}

impl Cgroup {
    /// A group that may use this number of bytes of memory; `None` if this user may not create one.
    pub fn with_memory(bytes: u64) -> Result<Option<Self>> {
        let name = format!("gitseal-test-{}", std::process::id());
        let places = [
            ("/sys/fs/cgroup", "memory.max", "memory.events"),
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.oom_control"),
        ];
        for (root, limit, kills) in places {
            let folder = PathBuf::from(root).join(&name);
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            // If `root` is not in the file system of the control groups, the folder is an ordinary one, without the
            // file `limit`.
            let has_limit = folder.join(limit).exists();
            let group = Self { folder, kills };
            if has_limit && fs::write(group.folder.join(limit), bytes.to_string()).is_ok() {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// Moves the process into the group. Processes that it starts are in the group, too.
    pub fn add(&self, process: u32) -> Result<()> {
        fs::write(self.folder.join("cgroup.procs"), process.to_string()).context("cannot move the process")
    }

    /// How many processes the kernel killed because the group had no memory left.
    pub fn kills(&self) -> Result<u64> {
        let text = fs::read_to_string(self.folder.join(self.kills))?;
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill "));
        line.and_then(|count| count.trim().parse().ok()).context("no count of kills")
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        // The processes in the group may take a moment to end.
        for _ in 0..100 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            sleep(Duration::from_millis(50));
        }
    }
}
