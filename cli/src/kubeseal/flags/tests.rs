use super::*;

fn read(arguments: &[&str]) -> Result<Flags, Stop> {
    with_environment(arguments, &[])
}

fn with_environment(arguments: &[&str], environment: &[(&str, &str)]) -> Result<Flags, Stop> {
    let variable = |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Flags::read(arguments.iter().map(|argument| (*argument).to_owned()), variable)
}

fn wrong(arguments: &[&str]) -> String {
    match read(arguments) {
        Err(Stop::Wrong(message)) => message,
        other => panic!("{arguments:?}: {other:?}"),
    }
}

#[test]
fn values_are_given_in_every_way() {
    for arguments in [
        &["--format", "yaml"][..],
        &["--format=yaml"],
        &["-o", "yaml"],
        &["-oyaml"],
        &["-o=yaml"],
        &["x", "-", "-o", "yaml", "y"],
        &["-o", "json", "--format=yaml", "--", "-o", "json"],
    ] {
        assert_eq!(read(arguments).unwrap().text("format"), "yaml", "{arguments:?}");
    }
    assert_eq!(read(&["--name", "--raw"]).unwrap().text("name"), "--raw", "a value may look like a flag");
    assert_eq!(read(&["-o="]).unwrap().text("format"), "=", "as pflag has it");
}

#[test]
fn switches_take_a_value_behind_the_equals_sign_only() {
    assert!(read(&["--raw"]).unwrap().is_on("raw"));
    for off in ["--raw=false", "--raw=0", "--raw=F"] {
        assert!(!read(&["--raw", off]).unwrap().is_on("raw"), "{off}");
    }
    assert!(read(&["--raw", "false"]).unwrap().is_on("raw"));
    assert_eq!(
        wrong(&["--raw=yes"]),
        r#"invalid argument "yes" for "--raw" flag: strconv.ParseBool: parsing "yes": invalid syntax"#
    );
}

#[test]
fn a_wrong_command_line_is_said_as_kubeseal_says_it() {
    for (arguments, message) in [
        (&["--nope"][..], "unknown flag: --nope"),
        (&["--nope=1"], "unknown flag: --nope"),
        (&["---x"], "bad flag syntax: ---x"),
        (&["--=x"], "bad flag syntax: --=x"),
        (&["-Z"], "unknown shorthand flag: 'Z' in -Z"),
        (&["--cert"], "flag needs an argument: --cert"),
        (&["-n"], "flag needs an argument: 'n' in -n"),
        (
            &["--scope", "x"],
            r#"invalid argument "x" for "--scope" flag: must be one of: strict, namespace-wide, cluster-wide"#,
        ),
        (&["-v", "x"], r#"invalid argument "x" for "-v, --v" flag: strconv.ParseInt: parsing "x": invalid syntax"#),
    ] {
        assert_eq!(wrong(arguments), message);
    }
    assert_eq!(read(&["-h"]).unwrap_err(), Stop::Help);
    assert!(read(&["--help"]).unwrap().is_on("help"));
}

#[test]
fn lists_grow() {
    let flags = read(&["--recovery-private-key", "a,b", "--recovery-private-key=\"c,\"\"d\""]).unwrap();
    assert_eq!(flags.list("recovery-private-key"), ["a", "b", "c,\"d"]);
    assert_eq!(read(&["--from-file=a,"]).unwrap().list("from-file"), ["a", ""]);
    assert!(read(&["--from-file="]).unwrap().list("from-file").is_empty());
    assert_eq!(read(&["--as-group=a,b", "--as-group=c"]).unwrap().list("as-group"), ["a,b", "c"]);
    for value in ["a\"b", "\"a", "\"a\"b"] {
        assert!(wrong(&["--from-file", value]).starts_with("invalid argument "), "{value}");
    }
}

#[test]
fn the_environment_comes_first() {
    let environment = [
        ("SEALED_SECRETS_CONTROLLER_NAME", "sealed"),
        ("SEALED_SECRETS_SCOPE", "nonsense"),
        ("SEALED_SECRETS_RAW", "1"),
        ("SEALED_SECRETS_RECOVERY_PRIVATE_KEY", "a"),
        ("SEALED_SECRETS_FORMAT", "yaml"),
        ("SEALED_SECRETS_V", "x"),
        ("SEALED_SECRETS_CERT", ""),
        ("SEALED_SECRETS_ROTATE", "true"),
    ];
    let arguments = ["--format=json", "--recovery-private-key=b", "--raw=false"];
    let flags = with_environment(&arguments, &environment).unwrap();
    assert_eq!(flags.text("controller-name"), "sealed");
    assert_eq!(flags.text("controller-namespace"), "kube-system");
    assert_eq!(flags.text("scope"), "strict", "what does not fit is ignored");
    assert_eq!(flags.text("format"), "json", "the command line wins");
    assert!(!flags.is_on("raw"));
    assert_eq!(flags.list("recovery-private-key"), ["a", "b"]);
    assert_eq!(flags.filled("cert"), None);
    assert!(flags.is_on("re-encrypt") && flags.notes.is_empty());
}

#[test]
fn namespaces_may_have_their_kind_in_front() {
    for (given, namespace) in
        [("ns/a", "a"), ("Namespaces/a", "a"), ("namespace/a", "a"), ("ns/", "ns/"), ("é/a", "é/a")]
    {
        assert_eq!(read(&["-n", given]).unwrap().text("namespace"), namespace);
    }
}

#[test]
fn a_deprecated_flag_works_and_says_so() {
    let flags = read(&["--rotate"]).unwrap();
    assert!(flags.is_on("re-encrypt"));
    assert_eq!(flags.notes, ["Flag --rotate has been deprecated, please use --re-encrypt instead"]);
    assert!(!help().contains("--rotate"));
}

#[test]
fn every_flag_is_in_the_help_once() {
    let text = help();
    for flag in FLAGS.iter().filter(|flag| flag.deprecated_for.is_none()) {
        let name = format!("--{}", flag.name);
        let lines = text.lines().filter(|line| line.split_whitespace().take(2).any(|word| word == name)).count();
        assert_eq!(lines, 1, "{name}");
    }
    assert!(text.contains("  -o, --format string "), "{text}");
    let mut sorted: Vec<_> = FLAGS.iter().map(|flag| flag.name).collect();
    sorted.sort_unstable();
    assert!(FLAGS.iter().map(|flag| flag.name).eq(sorted), "the table is in order");
}
