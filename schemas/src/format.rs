//! What `format` in a schema says about numbers and texts.
//!
//! Of the formats that the API server knows, `email`, `hostname`, `uri`, `isbn`, `creditcard`, `ssn`, `rgbcolor` and those with the
//! prefix `k8s-` are not checked here.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::LazyLock,
};

use base64::{
    Engine as _,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use jsonschema::ValidationOptions;
use regex::Regex;
use serde_json::{Map, Value, json};

/// The format of bytes in objects of Kubernetes itself. CustomResourceDefinitions call it `byte`, and there, the text may neither be
/// empty nor have line breaks.
pub(crate) const BYTES: &str = "bytes";

/// A format of texts.
struct Format {
    name: &'static str,
    /// How messages call it.
    described: &'static str,
    rule: Rule,
}

enum Rule {
    /// The texts of the format match a regular expression.
    Matches(&'static str),
    Is(fn(&str) -> bool),
}

const fn format(name: &'static str, described: &'static str, rule: Rule) -> Format {
    Format { name, described, rule }
}

/// The formats as the API reference describes them (`JSONSchemaProps`), and as the API server's library reads them.
const OF_TEXTS: [Format; 14] = [
    format(BYTES, "base64", Rule::Is(is_base64)),
    format("byte", "base64", Rule::Is(|text| !text.is_empty() && !text.contains(['\r', '\n']) && is_base64(text))),
    format("cidr", "a network such as 10.0.0.0/8", Rule::Is(is_network)),
    format("date", "a date such as 2026-01-31", Rule::Is(is_date)),
    format("datetime", "a time such as 2026-01-31T12:00:00Z", Rule::Is(is_time)),
    format("duration", "a duration such as 5m", Rule::Matches(DURATION)),
    format("hexcolor", "a color such as #0a0b0c", Rule::Matches("^#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})$")),
    format("ipv4", "an IPv4 address", Rule::Is(|text| text.contains('.') && address(text).is_some())),
    format("ipv6", "an IPv6 address", Rule::Is(|text| text.parse::<Ipv6Addr>().is_ok())),
    format("mac", "a MAC address", Rule::Matches(MAC)),
    format("uuid", "a UUID", Rule::Matches("(?i)^[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}$")),
    format(
        "uuid3",
        "a UUID of version 3",
        Rule::Matches("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?3[0-9a-f]{3}-?[0-9a-f]{4}-?[0-9a-f]{12}$"),
    ),
    format(
        "uuid4",
        "a UUID of version 4",
        Rule::Matches("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?4[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
    ),
    format(
        "uuid5",
        "a UUID of version 5",
        Rule::Matches("(?i)^[0-9a-f]{8}-?[0-9a-f]{4}-?5[0-9a-f]{3}-?[89ab][0-9a-f]{3}-?[0-9a-f]{12}$"),
    ),
];

/// A duration of Go (`1h30m`), or a text in which a number has a unit of time (`30 minutes`).
const DURATION: &str = "^[-+]?(0|(([0-9]+[.]?[0-9]*|[.][0-9]+)(ns|us|µs|μs|ms|s|m|h))+)$\
    |(?i:[0-9]\\s*((ns|us|µs|ms|s|m|h|hr|d|w|wk)([^a-zµ]|$)|nano|micro|milli|sec|min|hour|day|week))";
/// 6, 8 or 20 bytes: pairs of hexadecimal digits with colons or hyphens between them, or groups of four with dots.
const MAC: &str = "(?i)^[0-9a-f]{2}((:[0-9a-f]{2}){5}|(:[0-9a-f]{2}){7}|(:[0-9a-f]{2}){19}|(-[0-9a-f]{2}){5}|(-[0-9a-f]{2}){7}\
    |(-[0-9a-f]{2}){19}|[0-9a-f]{2}(([.][0-9a-f]{4}){2}|([.][0-9a-f]{4}){3}|([.][0-9a-f]{4}){9}))$";
const TIME: &str = "^([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]+)?(z|[+-][0-9]{2}:[0-9]{2})$";

/// Every pattern with its regular expression.
static PATTERNS: LazyLock<HashMap<&str, Regex>> = LazyLock::new(|| {
    let of_formats = OF_TEXTS.iter().filter_map(|format| match format.rule {
        Rule::Matches(pattern) => Some(pattern),
        Rule::Is(_) => None,
    });
    let read = |pattern| (pattern, Regex::new(pattern).expect("a test reads all patterns"));
    of_formats.chain([TIME]).map(read).collect()
});

/// Adds the checks of all formats.
pub(crate) fn with_formats(options: ValidationOptions<'static>) -> ValidationOptions<'static> {
    let options = options.should_validate_formats(true);
    OF_TEXTS.iter().fold(options, |options, format| match format.rule {
        Rule::Is(has_format) => options.with_format(format.name, has_format),
        Rule::Matches(pattern) => options.with_format(format.name, move |text: &str| PATTERNS[pattern].is_match(text)),
    })
}

/// How messages call a format.
pub(crate) fn described(name: &str) -> &str {
    OF_TEXTS.iter().find(|format| format.name == name).map_or(name, |format| format.described)
}

/// Adds the rules that follow from the type and the format of a schema of a CustomResourceDefinition to `rules`. The API server
/// ignores formats that it does not know.
pub(crate) fn add_rules(schema: &Map<String, Value>, rules: &mut Map<String, Value>) {
    let text = |name: &str| schema.get(name).and_then(Value::as_str);
    // The API server also ignores hyphens in the names of formats.
    let format = text("format").unwrap_or_default().replace('-', "");
    match text("type") {
        Some("integer") if format == "int32" => limit(rules, i32::MIN.into(), i32::MAX.into()),
        Some("integer") => limit(rules, i64::MIN.into(), i64::MAX.into()),
        Some("number") if format == "float" => limit(rules, json!(-f64::from(f32::MAX)), json!(f64::from(f32::MAX))),
        None | Some("string") if format != BYTES && OF_TEXTS.iter().any(|of| of.name == format) => {
            rules.insert("format".to_owned(), format.into());
        }
        _ => {}
    }
}

/// Limits a number, unless the rules have a stricter limit already.
pub(crate) fn limit(rules: &mut Map<String, Value>, smallest: Value, largest: Value) {
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let is_stricter = |rules: &Map<String, Value>, names: [&str; 2], than: &dyn Fn(f64) -> bool| {
        names.iter().any(|name| rules.get(*name).is_some_and(|value| than(number(value))))
    };
    if !is_stricter(rules, ["minimum", "exclusiveMinimum"], &|value| value >= number(&smallest)) {
        rules.insert("minimum".to_owned(), smallest);
    }
    if !is_stricter(rules, ["maximum", "exclusiveMaximum"], &|value| value <= number(&largest)) {
        rules.insert("maximum".to_owned(), largest);
    }
}

/// Line breaks are ignored, and the last bits may be other than zero.
fn is_base64(text: &str) -> bool {
    const DECODER: GeneralPurpose =
        GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));
    DECODER.decode(text.replace(['\r', '\n'], "")).is_ok()
}

/// An IP address. The parts of an IPv4 address may have leading zeros.
fn address(text: &str) -> Option<IpAddr> {
    if text.contains(':') {
        return text.parse().ok().map(IpAddr::V6);
    }
    let parts: Vec<u8> = text.split('.').map(number).collect::<Option<_>>()?;
    let parts: [u8; 4] = parts.try_into().ok()?;
    Some(IpAddr::V4(Ipv4Addr::from(parts)))
}

fn number(digits: &str) -> Option<u8> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok()).flatten()
}

fn is_network(text: &str) -> bool {
    let Some((of, bits)) = text.split_once('/') else { return false };
    let longest = match address(of) {
        Some(IpAddr::V4(_)) => 32,
        Some(IpAddr::V6(_)) => 128,
        None => return false,
    };
    number(bits).is_some_and(|bits| bits <= longest)
}

fn is_date(text: &str) -> bool {
    let is_hyphen = |at: usize| text.as_bytes().get(at) == Some(&b'-');
    let has_form = text.len() == 10 && is_hyphen(4) && is_hyphen(7);
    has_form && text.parse::<jiff::civil::Date>().is_ok()
}

/// A date and a time with its offset from UTC, as in RFC 3339, but without leap seconds.
fn is_time(text: &str) -> bool {
    let text = text.to_lowercase();
    text.split_once('t').is_some_and(|(date, time)| is_date(date) && PATTERNS[TIME].is_match(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn has_format(name: &str, text: &str) -> bool {
        match OF_TEXTS.iter().find(|format| format.name == name).unwrap().rule {
            Rule::Is(has_format) => has_format(text),
            Rule::Matches(pattern) => PATTERNS[pattern].is_match(text),
        }
    }

    #[test]
    fn texts_have_their_formats() {
        let (uuid, mac) = ("0d7f1e9e-2a0e-4b3c-8f6e-000000000001", "00:00:5e:00:53:01");
        for (name, right, wrong) in [
            (BYTES, vec!["", "YQ==", "YW\nJj"], vec!["YQ", "?", "YQ=", "Y Q=="]),
            ("byte", vec!["YQ==", "YR==", "YWJj"], vec!["", "YQ", "YW\nJj"]),
            (
                "cidr",
                vec!["10.0.0.0/8", "::/0", "10.0.0.1/08"],
                vec!["10.0.0.1", "10.0.0.1/33", "::/129", "a/8", "10.0.0.1/+8"],
            ),
            ("date", vec!["2026-02-28"], vec!["2026-02-30", "2026-2-28", "20260228", ""]),
            (
                "datetime",
                vec!["2026-02-28T00:00:00Z", "2026-02-28t23:59:59.123+01:00"],
                vec![
                    "2026-02-28",
                    "2026-02-28T00:00:00",
                    "2026-02-28T24:00:00Z",
                    "2026-02-28T00:00:60Z",
                    "2026-02-30T00:00:00Z",
                ],
            ),
            (
                "duration",
                vec!["5s", "0", "-1.5h30m", ".5s", "5 seconds", "P1D", "1 hr", "1 d and 2 w"],
                vec!["", "x", "5", "5 x", "1 hrs", ".s"],
            ),
            ("hexcolor", vec!["#0a0b0c", "FFF"], vec!["#0a0b0", "red"]),
            (
                "ipv4",
                vec!["10.0.0.1", "010.0.0.1", "::ffff:1.2.3.4"],
                vec!["10.0.0", "10.0.0.256", "::1", "1.2.3.+4", ""],
            ),
            ("ipv6", vec!["::1", "::ffff:1.2.3.4"], vec!["10.0.0.1", "fe80::1%eth0", ""]),
            ("mac", vec![mac, "0000.5e00.5301", "00-00-5e-00-53-01"], vec!["00:00:5e:00:53", "00:00:5e:00:53-01", "x"]),
            (
                "uuid",
                vec![uuid, "0D7F1E9E2A0E4B3C8F6E000000000001"],
                vec!["x", "0d7f1e9e--2a0e-4b3c-8f6e-000000000001"],
            ),
            ("uuid3", vec!["0d7f1e9e-2a0e-3b3c-8f6e-000000000001"], vec![uuid]),
            ("uuid4", vec![uuid], vec!["0d7f1e9e-2a0e-4b3c-0f6e-000000000001"]),
            ("uuid5", vec!["0d7f1e9e-2a0e-5b3c-8f6e-000000000001"], vec![uuid]),
        ] {
            for text in right {
                assert!(has_format(name, text), "{name}: {text:?}");
            }
            for text in wrong {
                assert!(!has_format(name, text), "{name}: {text:?}");
            }
        }
    }

    #[test]
    fn numbers_keep_their_stricter_limits() {
        let rules = |schema: Value, mut rules: Value| {
            add_rules(schema.as_object().unwrap(), rules.as_object_mut().unwrap());
            rules
        };
        let (smallest, largest) = (i32::MIN, i32::MAX);
        let int32 = json!({"type": "integer", "format": "int32"});
        assert_eq!(rules(int32.clone(), json!({})), json!({"minimum": smallest, "maximum": largest}));
        let stricter = json!({"exclusiveMinimum": 0, "maximum": 9});
        assert_eq!(rules(int32.clone(), stricter.clone()), stricter);
        let wider = json!({"minimum": -1e20, "maximum": 1e20});
        assert_eq!(rules(int32, wider), json!({"minimum": smallest, "maximum": largest}));
        let integer = json!({"type": "integer", "format": "unknown"});
        assert_eq!(rules(integer, json!({})), json!({"minimum": i64::MIN, "maximum": i64::MAX}));
        assert_eq!(rules(json!({"type": "number", "format": "double"}), json!({})), json!({}));
        assert_eq!(rules(json!({"type": "string", "format": "date-time"}), json!({})), json!({"format": "datetime"}));
        assert_eq!(rules(json!({"type": "string", "format": "email"}), json!({})), json!({}));
    }
}
