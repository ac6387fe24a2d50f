//! What a process used, from /proc.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

/// Processor time of a process since it began: user and system.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    // Linux counts in ticks of 1/100 s on every machine this runs on (USER_HZ).
    const TICKS: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no process name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = fields[11].parse::<u64>()? + fields[12].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Peak resident memory in MiB.
pub(crate) fn peak_memory(pid: u32) -> Result<f64> {
    memory(pid, "VmHWM:")
}

fn memory(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with(field)).context("no memory figure")?;
    let kib: f64 = line.split_whitespace().nth(1).context("no figure")?.parse()?;
    Ok(kib / 1024.0)
}
