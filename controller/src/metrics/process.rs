//! Processor time, memory and file descriptors of this process, read from `/proc` at every scrape.
//!
//! Formats: proc_pid_stat(5), proc_pid_status(5). Where there is no `/proc`, the metrics are left out.

use std::{fmt, fs};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{counter::ConstCounter, gauge::ConstGauge},
};

/// The process metrics that all client libraries of Prometheus have.
#[derive(Debug)]
pub(super) struct Process;

/// USER_HZ, the unit of times in `/proc/self/stat`. It is the same on every Linux that runs containers.
const TICKS_PER_SECOND: f64 = 100.0;

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        if let Some(stat) = fs::read_to_string("/proc/self/stat").ok().as_deref().and_then(Stat::parse) {
            let seconds = ticks(stat.user + stat.system);
            let name = "process_cpu_seconds";
            counter(&mut encoder, name, "User and system processor time in seconds", seconds)?;
            gauge(&mut encoder, "process_threads", "Threads", stat.threads)?;
            if let Some(booted) = fs::read_to_string("/proc/stat").ok().as_deref().and_then(boot_time) {
                let started = booted + ticks(stat.started);
                let help = "When the process started, in seconds since 1970";
                gauge(&mut encoder, "process_start_time_seconds", help, started)?;
            }
        }
        if let Ok(status) = fs::read_to_string("/proc/self/status") {
            let sizes = [
                ("VmRSS:", "process_resident_memory_bytes", "Resident memory in bytes"),
                ("VmHWM:", "process_resident_memory_max_bytes", "Largest resident memory so far, in bytes"),
                ("VmSize:", "process_virtual_memory_bytes", "Virtual memory in bytes"),
            ];
            for (field, name, help) in sizes {
                if let Some(bytes) = size(&status, field) {
                    gauge(&mut encoder, name, help, bytes)?;
                }
            }
        }
        if let Ok(open) = fs::read_dir("/proc/self/fd") {
            // One of the entries is the directory that is being read.
            let count = u64::try_from(open.count().saturating_sub(1)).unwrap_or(u64::MAX);
            gauge(&mut encoder, "process_open_fds", "Open file descriptors", count)?;
        }
        if let Ok(limits) = fs::read_to_string("/proc/self/limits") {
            let all = [
                ("Max open files", "process_max_fds", "Limit of open file descriptors"),
                ("Max address space", "process_virtual_memory_max_bytes", "Limit of virtual memory in bytes"),
            ];
            for (field, name, help) in all {
                if let Some(limit) = limit(&limits, field) {
                    gauge(&mut encoder, name, help, limit)?;
                }
            }
        }
        if let Ok(netstat) = fs::read_to_string("/proc/self/net/netstat") {
            let octets = [
                ("InOctets", "process_network_receive_bytes", "Bytes received by the process"),
                ("OutOctets", "process_network_transmit_bytes", "Bytes sent by the process"),
            ];
            for (field, name, help) in octets {
                if let Some(bytes) = octets_of(&netstat, field) {
                    counter(&mut encoder, name, help, bytes)?;
                }
            }
        }
        Ok(())
    }
}

fn counter(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: f64) -> fmt::Result {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn gauge<N>(encoder: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: N) -> fmt::Result
where
    ConstGauge<N>: EncodeMetric,
{
    let metric = ConstGauge::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

/// The fields of `/proc/self/stat` that are shown as metrics. Times are in ticks.
#[derive(Debug, Eq, PartialEq)]
pub(super) struct Stat {
    pub(super) user: u64,
    pub(super) system: u64,
    pub(super) threads: u64,
    pub(super) started: u64,
}

impl Stat {
    pub(super) fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses, which may contain anything. So fields are counted from
        // the last parenthesis.
        let (_, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        // `fields[0]` is the field that the manual page proc_pid_stat(5) numbers 3.
        let field = |number: usize| fields.get(number - 3)?.parse().ok();
        Some(Self { user: field(14)?, system: field(15)?, threads: field(20)?, started: field(22)? })
    }
}

/// When the machine started, in seconds since 1970, from `/proc/stat`.
fn boot_time(text: &str) -> Option<f64> {
    text.lines().find_map(|line| line.strip_prefix("btime "))?.trim().parse().ok()
}

/// A size from `/proc/self/status` in bytes. The file has sizes in kibibytes.
pub(super) fn size(status: &str, field: &str) -> Option<u64> {
    let kibibytes = status.lines().find_map(|line| line.strip_prefix(field))?.trim().strip_suffix(" kB")?;
    kibibytes.trim().parse::<u64>().ok().map(|count| count * 1024)
}

/// A soft limit from `/proc/self/limits`. "Unlimited" becomes 2^64, as in the metrics of other programs.
pub(super) fn limit(limits: &str, field: &str) -> Option<f64> {
    let soft = limits.lines().find_map(|line| line.strip_prefix(field))?.split_ascii_whitespace().next()?;
    if soft == "unlimited" { Some(UNLIMITED) } else { soft.parse().ok() }
}

/// 2^64.
const UNLIMITED: f64 = 18_446_744_073_709_551_616.0;

/// A count from `/proc/self/net/netstat`, which has a line of names and, below it, a line of numbers.
pub(super) fn octets_of(netstat: &str, field: &str) -> Option<f64> {
    let mut lines = netstat.lines().filter_map(|line| line.strip_prefix("IpExt:"));
    let (names, numbers) = (lines.next()?, lines.next()?);
    let at = names.split_ascii_whitespace().position(|name| name == field)?;
    numbers.split_ascii_whitespace().nth(at)?.parse().ok()
}

// The conversion is exact up to 2^53 ticks, which are almost three million years.
#[allow(clippy::cast_precision_loss)]
fn ticks(count: u64) -> f64 {
    count as f64 / TICKS_PER_SECOND
}
