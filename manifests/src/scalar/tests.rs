use super::*;

/// How `sigs.k8s.io/yaml` 1.6 with go-yaml 2.4.3 reads `a: <text>`, as JSON. Recorded from a run of these libraries.
const ANSWERS: &[(&str, &str)] = &[
    ("y", "true"),
    ("Y", "true"),
    ("n", "false"),
    ("N", "false"),
    ("yes", "true"),
    ("yEs", r#""yEs""#),
    ("on", "true"),
    ("OFF", "false"),
    ("True", "true"),
    ("tRUE", r#""tRUE""#),
    ("o", r#""o""#),
    ("", "null"),
    ("~", "null"),
    ("null", "null"),
    ("Null", "null"),
    ("nULL", r#""nULL""#),
    ("0644", "420"),
    ("0o644", "420"),
    ("-0644", "-420"),
    ("0O17", "15"),
    ("0o8", r#""0o8""#),
    ("08", "8"),
    ("089", "89"),
    ("00009", "9"),
    ("00", "0"),
    ("01.5", "1.5"),
    ("0_7", "7"),
    ("0777_7", "4095"),
    ("0_", "0"),
    ("1_000", "1000"),
    ("1__0", "10"),
    ("1_", "1"),
    ("_1", r#""_1""#),
    ("-_1", "-1"),
    ("1_000.5", "1000.5"),
    ("0x1F", "31"),
    ("0X1f", "31"),
    ("-0x1F", "-31"),
    ("0x_1", "1"),
    ("0x", r#""0x""#),
    ("0x1G", r#""0x1G""#),
    ("0x1p4", r#""0x1p4""#),
    ("0x+1", r#""0x+1""#),
    ("0xffffffffffffffff", "18446744073709551615"),
    ("0xfffffffffffffffff", r#""0xfffffffffffffffff""#),
    ("0b101", "5"),
    ("0B101", "5"),
    ("-0b101", "-5"),
    ("0b1_0", "2"),
    ("0b102", r#""0b102""#),
    ("0b", r#""0b""#),
    ("+12", "12"),
    ("+0o7", "7"),
    ("+", r#""+""#),
    ("+-1", r#""+-1""#),
    ("-0", "0"),
    ("9223372036854775807", "9223372036854775807"),
    ("9223372036854775808", "9223372036854775808"),
    ("18446744073709551615", "18446744073709551615"),
    ("18446744073709551616", "1.8446744073709552e+19"),
    ("-9223372036854775808", "-9223372036854775808"),
    ("-9223372036854775809", "-9.223372036854776e+18"),
    ("+18446744073709551615", "1.8446744073709552e+19"),
    ("1.0", "1"),
    ("-0.0", "0"),
    ("1.5", "1.5"),
    ("+1.5", "1.5"),
    ("5.", "5"),
    ("1.e1", "10"),
    ("1e3", "1000"),
    ("12e03", "12000"),
    ("1E5", "100000"),
    ("-1e3", "-1000"),
    ("5.0e-1", "0.5"),
    ("1e-7", "1e-7"),
    ("1e20", "1e+20"),
    ("1e21", "1e+21"),
    ("1.0e18", "1000000000000000000"),
    ("123456789.123456789", "123456789.12345679"),
    ("1e999", r#""1e999""#),
    ("1e", r#""1e""#),
    ("1e+", r#""1e+""#),
    (".5", "0.5"),
    ("-.5", "-0.5"),
    ("+.5", "0.5"),
    (".5_0", "0.5"),
    ("._5", r#""._5""#),
    (".e1", r#"".e1""#),
    (".1e400", r#"".1e400""#),
    (".", r#"".""#),
    ("..5", r#""..5""#),
    (".infinity", r#"".infinity""#),
    ("inf", r#""inf""#),
    ("nan", r#""nan""#),
    ("1:30", r#""1:30""#),
    ("190:20:30", r#""190:20:30""#),
    ("1.2.3", r#""1.2.3""#),
    ("2001-01-01", r#""2001-01-01""#),
    ("2001-01-01T00:00:00Z", r#""2001-01-01T00:00:00Z""#),
    ("=", r#""=""#),
    ("<<", r#""<<""#),
];

#[test]
fn plain_scalars_are_read_as_kubernetes_reads_them() {
    for (text, json) in ANSWERS {
        let value = Scalar::plain(text).into_value(*text).unwrap();
        assert_eq!(value.to_string(), *json, "{text}");
    }
    for text in [".inf", "+.Inf", "-.INF", ".nan", ".NaN"] {
        assert_eq!(Scalar::plain(text).into_value(text), None, "{text}: not in JSON");
    }
}

#[test]
fn tags_decide_and_must_fit() {
    for (tag, text, expected) in [
        (Tag::Str, "123", Some(Scalar::Text)),
        (Tag::Str, "", Some(Scalar::Text)),
        (Tag::Int, "5", Some(Scalar::Int(5))),
        (Tag::Int, "1.5", None),
        (Tag::Int, "yes", None),
        (Tag::Float, "1", Some(Scalar::Int(1))),
        (Tag::Float, "x", None),
        (Tag::Bool, "yes", Some(Scalar::Bool(true))),
        (Tag::Bool, "1", None),
        (Tag::Null, "x", None),
        (Tag::Timestamp, "2001-01-01", Some(Scalar::Text)),
        (Tag::Binary, "aGVsbG8=", None),
    ] {
        assert_eq!(Scalar::tagged(tag, text), expected, "{tag:?} {text}");
    }
}

#[test]
fn keys_become_text() {
    for (text, key) in [
        ("1", Some("1")),
        ("0644", Some("420")),
        ("yes", Some("true")),
        ("1.5", Some("1.5")),
        ("1e3", Some("1000")),
        ("1e5", Some("100000")),
        ("1e6", Some("1e+06")),
        ("123456.5", Some("123456.5")),
        ("1234567.5", Some("1.2345675e+06")),
        ("0.0001", Some("0.0001")),
        ("0.00001", Some("1e-05")),
        ("1e22", Some("1e+22")),
        ("-0.0", Some("-0")),
        (".inf", Some(".inf")),
        ("1e40", Some(".inf")),
        ("app", Some("app")),
        ("null", None),
        ("", None),
        ("18446744073709551615", None),
    ] {
        assert_eq!(Scalar::plain(text).into_key(text).as_deref(), key, "{text}");
    }
}
