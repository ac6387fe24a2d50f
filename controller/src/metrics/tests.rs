use super::{
    process::{Stat, limit, octets_of, size},
    *,
};
use crate::admission::Claim;

fn line<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.lines().find(|line| line.starts_with(start))
}

#[test]
fn names_and_labels_are_those_of_dashboards() {
    let metrics = Metrics::new("v1.2.3");
    metrics.unseal_request();
    metrics.unseal_error(UnsealFailure::Unmanaged, "team-a");
    metrics.sealed_secret_condition("team-a", "db", "shop", "Synced", ConditionStatus::False);
    metrics.http_request("/healthz", "GET", 200, Duration::from_millis(2));
    metrics.reconciled("Sync", "Applied");
    metrics.sync_ready(&ObjectKey::new("team-a", "apps"), ConditionStatus::Unknown, "Progressing");
    metrics.sync_ready(&ObjectKey::new("team-a", "apps"), ConditionStatus::True, "Applied");
    metrics.repository_ready(&ObjectKey::new("team-a", "fleet"), ConditionStatus::False, "AuthenticationFailed");
    metrics.health_failed("HealthCheckTimedOut");
    metrics.sealing_keys(KeyCounts { active: 2, compromised: 1, malformed: 0 });
    let text = metrics.encode();
    for expected in [
        r#"sealed_secrets_controller_build_info{revision="v1.2.3"} 1"#,
        "sealed_secrets_controller_unseal_requests_total 1",
        r#"sealed_secrets_controller_unseal_errors_total{reason="unmanaged",namespace="team-a"} 1"#,
        r#"sealed_secrets_controller_condition_info{namespace="team-a",name="db",condition="Synced",ss_app_kubernetes_io_instance="shop"} -1"#,
        r#"sealed_secrets_controller_http_requests_total{path="/healthz",code="200",method="GET"} 1"#,
        r#"gitseal_reconcile_total{kind="Sync",outcome="Applied"} 1"#,
        r#"gitseal_sync_ready{namespace="team-a",name="apps",reason="Applied"} 1"#,
        r#"gitseal_repository_ready{namespace="team-a",name="fleet",reason="AuthenticationFailed"} 0"#,
        r#"gitseal_health_failures_total{reason="HealthCheckTimedOut"} 1"#,
        r#"gitseal_sealing_keys{state="active"} 2"#,
    ] {
        assert_eq!(line(&text, expected), Some(expected), "in:\n{text}");
    }
    assert!(text.ends_with("# EOF\n"));
}

#[test]
fn a_deleted_object_leaves_no_series() {
    let metrics = Metrics::new("test");
    metrics.sync_ready(&ObjectKey::new("a", "b"), ConditionStatus::False, "ApplyFailed");
    metrics.sealed_secret_condition("a", "b", "", "Synced", ConditionStatus::True);
    metrics.forget_sync(&ObjectKey::new("a", "b"));
    metrics.forget_sealed_secret("a", "b", "", "Synced");
    let text = metrics.encode();
    assert_eq!(line(&text, "gitseal_sync_ready{"), None);
    assert_eq!(line(&text, "sealed_secrets_controller_condition_info{"), None);
}

#[test]
fn what_syncs_have_read_counts_as_memory() {
    let (metrics, gate, inputs) = (Metrics::new("test"), Gate::new(100), Arc::new(Texts::new(1000)));
    metrics.show_memory(gate.clone(), inputs.clone());
    let taken = || line(&metrics.encode(), "gitseal_memory_taken_bytes ").map(str::to_owned);
    assert_eq!(taken().as_deref(), Some("gitseal_memory_taken_bytes 0"));
    let claim = Claim { namespace: "team-a".into(), amount: 40, groups: Vec::new() };
    let _folder = gate.try_admit(claim).expect("room");
    let kept = inputs.keep("team-a", "digest".into(), "ten bytes.").expect("room");
    assert_eq!(taken().as_deref(), Some("gitseal_memory_taken_bytes 562"));
    drop(kept);
    assert_eq!(taken().as_deref(), Some("gitseal_memory_taken_bytes 40"));
}

#[test]
fn clones_count_together() {
    let metrics = Metrics::new("test");
    metrics.clone().api_request("PATCH");
    metrics.api_request("PATCH");
    assert!(metrics.encode().contains("gitseal_api_requests_total{verb=\"PATCH\"} 2\n"));
}

#[test]
fn a_programs_name_cannot_shift_the_fields() {
    let text =
        "42 (a) 1 (b)) S 1 42 42 0 -1 4194560 900 0 0 0 150 25 0 0 20 0 7 0 12345 1000000 300 18446744073709551615";
    assert_eq!(Stat::parse(text), Some(Stat { user: 150, system: 25, threads: 7, started: 12345 }));
    assert_eq!(Stat::parse("42 (short) S 1"), None);
}

#[test]
fn sizes_are_bytes() {
    assert_eq!(size("VmPeak:\t 9 kB\nVmRSS:\t    2048 kB\n", "VmRSS:"), Some(2_097_152));
    assert_eq!(size("VmPeak:\t 9 kB\n", "VmRSS:"), None);
}

#[test]
fn limits_and_traffic_are_read() {
    let limits = "Limit                     Soft Limit           Hard Limit           Units     \n\
                  Max open files            1024                 524288               files     \n\
                  Max address space         unlimited            unlimited            bytes     \n";
    assert_eq!(limit(limits, "Max open files"), Some(1024.0));
    assert_eq!(limit(limits, "Max address space"), Some(1.844_674_407_370_955_2e19));
    assert_eq!(limit(limits, "Max stack size"), None);
    let netstat = "TcpExt: A InOctets\nTcpExt: 1 2\nIpExt: InNoRoutes InOctets OutOctets\nIpExt: 0 700 30\n";
    assert_eq!((octets_of(netstat, "InOctets"), octets_of(netstat, "OutOctets")), (Some(700.0), Some(30.0)));
    assert_eq!(octets_of(netstat, "More"), None);
}

#[cfg(target_os = "linux")]
#[test]
fn the_process_is_measured() {
    let text = Metrics::new("test").encode();
    for name in ["process_cpu_seconds_total ", "process_resident_memory_bytes ", "process_open_fds "] {
        let value = line(&text, name).and_then(|line| line.rsplit(' ').next()).map(str::parse::<f64>);
        assert!(matches!(value, Some(Ok(value)) if value >= 0.0), "{name}: {value:?}");
    }
    let rss = line(&text, "process_resident_memory_bytes ").unwrap();
    assert_ne!(rss, "process_resident_memory_bytes 0");
}
