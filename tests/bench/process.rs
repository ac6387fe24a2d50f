//! How much time and memory a process used, from /proc.

use std::{fs, time::Duration};

use anyhow::{Context, Result};
use localcluster::{Cluster, Program};

/// Processor time of a process since it began: user and system.
pub(crate) fn cpu(pid: u32) -> Result<Duration> {
    time(pid, 11)
}

/// Processor time of the processes that this one started and that have ended: user and system.
pub(crate) fn cpu_of_ended() -> Result<Duration> {
    cpu_of_children(std::process::id())
}

/// Processor time of the processes that `pid` started and that have ended: user and system.
pub(crate) fn cpu_of_children(pid: u32) -> Result<Duration> {
    time(pid, 13)
}

/// The sum of a field of `/proc/PID/stat` and the field after it. Fields are counted from the end of the program's name.
fn time(pid: u32, field: usize) -> Result<Duration> {
    // Linux counts in ticks of 1/100 s on every machine this runs on (USER_HZ).
    const TICKS: u64 = 100;
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let after_name = stat.rsplit_once(')').context("no process name")?.1;
    let fields: Vec<&str> = after_name.split_whitespace().collect();
    let ticks = fields[field].parse::<u64>()? + fields[field + 1].parse::<u64>()?;
    Ok(Duration::from_millis(ticks * 1000 / TICKS))
}

/// Processor time of API server, etcd and controller manager since they began.
pub(crate) fn plane_cpu(cluster: &Cluster) -> Result<Duration> {
    let programs = [Program::Etcd, Program::ApiServer, Program::ControllerManager];
    programs.into_iter().filter_map(|program| cluster.program(program)).map(|child| cpu(child.pid())).sum()
}

/// Waits until the control plane has nothing to do: it uses less than a tenth of a processor for two seconds.
pub(crate) async fn idle(cluster: &Cluster) -> Result<()> {
    quiet(Duration::from_secs(2), Duration::from_millis(200), || plane_cpu(cluster)).await
}

/// Waits until `cpu` grows by at most `most` in a time of `pause`.
pub(crate) async fn quiet(pause: Duration, most: Duration, cpu: impl Fn() -> Result<Duration>) -> Result<()> {
    let mut last = cpu()?;
    loop {
        tokio::time::sleep(pause).await;
        let now = cpu()?;
        if now.saturating_sub(last) <= most {
            return Ok(());
        }
        last = now;
    }
}

/// The model of the processor, because the speed of RSA depends on it.
pub(crate) fn processor() -> Result<String> {
    let info = fs::read_to_string("/proc/cpuinfo")?;
    let field =
        |name: &str| info.lines().find(|line| line.starts_with(name))?.split_once(':').map(|(_, text)| text.trim());
    let count = info.lines().filter(|line| line.starts_with("processor")).count();
    let has_ifma = field("flags").is_some_and(|flags| flags.split(' ').any(|flag| flag == "avx512ifma"));
    let model = field("model name").unwrap_or("unknown");
    Ok(format!("{count} × {model}, {} AVX-512 IFMA", if has_ifma { "with" } else { "without" }))
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
