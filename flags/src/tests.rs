use clap::Parser as _;

use super::{values::*, *};

fn config(arguments: &[&str]) -> Config {
    Config::try_parse_from([&["gitseal-controller"], arguments].concat()).unwrap_or_else(|error| panic!("{error}"))
}

fn refused(arguments: &[&str]) -> String {
    Config::try_parse_from([&["gitseal-controller"], arguments].concat()).expect_err("it is refused").to_string()
}

/// Flags of the Sealed Secrets controller v0.36.6 that mean the same here, with the defaults that its `--help` shows,
/// and one flag of a later version.
const SEALED_SECRETS: [(&str, &str); 27] = [
    ("accept-deprecated-v1-data", "true"),
    ("additional-namespaces", ""),
    ("all-namespaces", "true"),
    ("key-cutoff-time", ""),
    ("key-order-priority", "CertNotBefore"),
    ("key-prefix", "sealed-secrets-key"),
    ("key-renew-period", "720h0m0s"),
    ("key-size", "4096"),
    ("key-ttl", "87600h0m0s"),
    ("label-selector", ""),
    ("listen-addr", ":8080"),
    ("listen-metrics-addr", ":8081"),
    ("log-format", "text"),
    ("log-info-stdout", "true"),
    ("log-level", "INFO"),
    ("metrics-omit-secret-labels", "false"),
    ("my-cn", ""),
    ("old-gc-behavior", "false"),
    ("privatekey-annotations", ""),
    ("privatekey-labels", ""),
    ("rate-limit", "2"),
    ("rate-limit-burst", "2"),
    ("read-timeout", "2m0s"),
    ("skip-recreate", "false"),
    ("update-status", "true"),
    ("watch-for-secrets", "false"),
    ("write-timeout", "2m0s"),
];
/// Flags that have no default in gitseal. If they are not given, there is no limit.
const UNLIMITED: [&str; 4] = ["kubeclient-burst", "kubeclient-qps", "max-unseal-retries", "rotate-period"];

#[test]
fn what_the_controller_would_refuse_is_refused_in_one_line() {
    let check = |arguments: &[&str]| check(&arguments.iter().map(|&text| text.to_owned()).collect::<Vec<_>>());
    assert_eq!(check(&["--memory-budget=512Mi", "--storage", "/data", "--leader-elect=false"]), Ok(()));
    let told = check(&["--memory-budget=abc"]).unwrap_err();
    assert!(told.contains("'abc'") && told.contains("--memory-budget") && told.contains("256Mi"), "{told}");
    let told = check(&["--memory-buget=1Gi"]).unwrap_err();
    assert!(told.contains("--memory-buget") && told.contains("'--memory-budget'") && !told.contains('\n'), "{told}");
    for wrong in ["word", "--help", "--version", "-h"] {
        assert!(check(&[wrong]).unwrap_err().contains(wrong));
    }
}

#[test]
fn the_command_line_is_sound() {
    Config::command().debug_assert();
}

#[test]
fn the_help_fits_a_terminal() {
    let mut command = Config::command();
    for help in [command.render_help(), command.render_long_help()] {
        let help = help.to_string();
        let wide: Vec<_> = help.lines().filter(|line| line.chars().count() > 80).collect();
        assert!(wide.is_empty() && help.contains("--key-renew-period"), "{wide:#?}");
        // As one word without spaces, this default would be too wide, so the help shows its names one by one.
        assert!(Managers::DEFAULT.split(',').all(|name| help.contains(&format!(" {name}"))), "{help}");
    }
}

#[test]
fn the_flags_of_sealed_secrets_have_its_names_defaults_and_variables() {
    let command = Config::command();
    let find = |name: &str| {
        command.get_arguments().find(|arg| arg.get_long() == Some(name)).unwrap_or_else(|| panic!("--{name}"))
    };
    for (name, default) in SEALED_SECRETS {
        let defaults: Vec<_> = find(name).get_default_values().iter().map(|value| value.to_str().unwrap()).collect();
        assert_eq!(defaults, [default], "--{name}");
    }
    for name in UNLIMITED {
        assert!(find(name).get_default_values().is_empty(), "--{name}");
    }
    for name in SEALED_SECRETS.iter().map(|(name, _)| *name).chain(UNLIMITED) {
        let variable = format!("SEALED_SECRETS_{}", name.to_uppercase().replace('-', "_"));
        assert_eq!(find(name).get_env().and_then(|name| name.to_str()), Some(variable.as_str()));
    }
}

#[test]
fn flags_are_spelled_as_pflag_takes_them() {
    assert!(config(&[]).sealed_secrets.update_status);
    for (argument, wanted) in [
        ("--update-status", true),
        ("--update-status=true", true),
        ("--update-status=false", false),
        ("--update-status=F", false),
        ("--update-status=0", false),
    ] {
        assert_eq!(config(&[argument]).sealed_secrets.update_status, wanted, "{argument}");
    }
    // The Sealed Secrets controller silently reads `false` as another argument. For gitseal it is an error.
    assert!(refused(&["--update-status", "false"]).contains("unexpected argument 'false'"));
    assert!(refused(&["--update-status=no"]).contains("true or false"));
    let chart = config(&["--key-renew-period", "24h", "--rate-limit", "5"]);
    assert_eq!(chart.keys.renew_period(), Some(Duration::from_secs(24 * 3600)));
    assert_eq!(chart.network.rate_limit, 5);
    assert_eq!(config(&["--key-size=2048", "--key-size=4096"]).keys.key_size, 4096, "the last one counts");
    assert!(config(&["--version"]).version);
}

#[test]
fn durations_are_those_of_go() {
    assert_eq!(duration("87600h0m0s"), Ok(Duration::from_secs(87600 * 3600)));
    assert_eq!(duration("1h30m"), Ok(Duration::from_secs(5400)));
    assert_eq!(duration("1.5s"), Ok(Duration::from_millis(1500)));
    assert_eq!(duration("250ms"), Ok(Duration::from_millis(250)));
    for (text, nanoseconds) in [
        ("0", 0),
        ("-0", 0),
        ("+5s", 5_000_000_000),
        (".5s", 500_000_000),
        ("5.s", 5_000_000_000),
        ("1us", 1_000),
        ("1µs", 1_000),
        ("1μs", 1_000),
        ("7ns", 7),
        ("0.9ns", 0),
        ("0.333333333333333333333h", 1_199_999_999_999),
        ("9223372036854775807ns", i64::MAX.unsigned_abs()),
    ] {
        assert_eq!(duration(text), Ok(Duration::from_nanos(nanoseconds)), "{text}");
    }
    for bad in
        ["", "-", "5", "m", ".", ".s", "1", "00", "5d", "5m x", "-5m", "1e3s", "9223372036854775808ns", "3000000h"]
    {
        assert!(duration(bad).is_err(), "{bad}");
    }
    assert_eq!(timeout("-5m"), Ok(Duration::ZERO), "no limit");
    assert_eq!(config(&["--read-timeout", "-1s"]).network.read_timeout, Duration::ZERO);
}

#[test]
fn renewal_can_be_turned_off_and_goes_by_two_names() {
    let period = |arguments: &[&str]| config(arguments).keys.renew_period().map(|period| period.as_secs());
    assert_eq!(period(&[]), Some(30 * 24 * 3600));
    assert_eq!(period(&["--key-renew-period=0"]), None);
    assert_eq!(period(&["--rotate-period=1h"]), Some(3600));
    assert_eq!(period(&["--key-renew-period=2h", "--rotate-period=1h"]), Some(3600));
    assert_eq!(period(&["--rotate-period=1h", "--key-renew-period=2h"]), Some(7200), "the last one counts");
    assert!(refused(&["--key-renew-period=-1h"]).contains("negative"));
}

#[test]
fn flags_of_keys_are_understood() {
    let keys = config(&[
        "--key-cutoff-time=Fri, 02 Jan 2026 15:04:05 -0700",
        "--key-order-priority=SecretCreationTimestamp",
        "--privatekey-annotations=a=1,b/c=x=y,a=2,",
        "--privatekey-labels",
        "team=platform",
    ])
    .keys;
    assert_eq!(keys.key_cutoff_time.unwrap().to_string(), "2026-01-02T22:04:05Z");
    assert_eq!(keys.key_order_priority, KeyOrder::SecretCreationTimestamp);
    let pairs: Vec<_> = keys.privatekey_annotations.iter().map(|(key, value)| format!("{key}:{value}")).collect();
    assert_eq!(pairs, ["a:2", "b/c:x=y"]);
    assert_eq!(keys.privatekey_labels["team"], "platform");
    for wrong in [
        "--key-cutoff-time=2026-01-02T15:04:05Z",
        "--key-order-priority=newest",
        "--privatekey-labels=team",
        "--key-size=1024",
        "--key-ttl=0",
        "--key-prefix=Sealed_Secrets",
        "--rate-limit=0",
    ] {
        refused(&[wrong]);
    }
}

#[test]
fn lists_and_numbers_are_understood() {
    let sealed = config(&["--additional-namespaces=a, b,a,", "--max-unseal-retries", "-1"]).sealed_secrets;
    assert_eq!(sealed.additional_namespaces, ["a", "b"]);
    assert_eq!(sealed.max_unseal_retries, Some(0));
    let defaults = config(&[]).sealed_secrets;
    assert!(defaults.additional_namespaces.is_empty() && defaults.max_unseal_retries.is_none());
    assert_eq!(config(&["--kubeclient-qps", "-1"]).network.kubeclient_qps, Some(-1.0));
}

#[test]
fn log_levels_are_those_of_go_or_filters() {
    for (given, filter) in [
        ("INFO", "info"),
        ("error", "error"),
        ("Debug", "debug"),
        ("WARN", "warn"),
        ("INFO+2", "warn"),
        ("ERROR-4", "warn"),
        ("DEBUG-4", "trace"),
        ("ERROR+8", "off"),
        ("info,controller::git=debug", "info,controller::git=debug"),
    ] {
        assert_eq!(config(&["--log-level", given]).logs.log_level, filter, "{given}");
    }
    assert!(refused(&["--log-level=controller=loud"]).contains("log-level"));
}
