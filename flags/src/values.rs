//! Values of flags, as Go programs accept them.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use ipnet::IpNet;

/// A duration as Go and Kubernetes write it: `300ms`, `1h30m`, `1.5h`, `0`. It must not be negative.
pub fn duration(text: &str) -> Result<Duration, String> {
    match signed_duration(text)? {
        (Sign::Negative, duration) if !duration.is_zero() => Err(format!("'{text}' is negative")),
        (_, duration) => Ok(duration),
    }
}

/// A timeout. Zero or less means no limit, as in Go's `net/http`.
pub(super) fn timeout(text: &str) -> Result<Duration, String> {
    match signed_duration(text)? {
        (Sign::Negative, _) => Ok(Duration::ZERO),
        (Sign::Positive, duration) => Ok(duration),
    }
}

/// The spellings of Go's `strconv.ParseBool`.
pub(super) fn bool_of_go(text: &str) -> Result<bool, String> {
    match text {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Ok(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Ok(false),
        _ => Err("true or false".into()),
    }
}

/// `a,b`: every name once, in the given order. An empty text gives an empty list.
#[expect(clippy::unnecessary_wraps, reason = "clap needs this return type; the API server checks the name")]
pub(super) fn names(text: &str) -> Result<Vec<String>, String> {
    let mut names: Vec<String> = Vec::new();
    for name in text.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        if !names.iter().any(|known| known == name) {
            names.push(name.into());
        }
    }
    Ok(names)
}

/// `a=1,b=2`. If a key is given twice, the last one counts. An empty text gives an empty map.
pub(super) fn pairs(text: &str) -> Result<BTreeMap<String, String>, String> {
    let pair = |part: &str| match part.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("'{part}' is not KEY=VALUE")),
    };
    text.split(',').map(str::trim).filter(|part| !part.is_empty()).map(pair).collect()
}

/// The proxies whose `X-Forwarded-For` is used.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum TrustedProxies {
    /// The addresses behind the Service `kubernetes`.
    OfTheService,
    /// These addresses and networks.
    Networks(Vec<IpNet>),
}

/// `auto`, `none`, or addresses and networks, separated by commas.
pub(super) fn trusted_proxies(text: &str) -> Result<TrustedProxies, String> {
    let network = |part: &str| {
        let address = part.parse::<IpAddr>().map(IpNet::from);
        address
            .or_else(|_| part.parse())
            .map_err(|_| format!("'{part}' is neither an address nor a network such as 10.0.0.0/24"))
    };
    match text {
        "auto" => Ok(TrustedProxies::OfTheService),
        "none" => Ok(TrustedProxies::Networks(Vec::new())),
        _ => names(text)?.iter().map(|part| network(part)).collect::<Result<_, _>>().map(TrustedProxies::Networks),
    }
}

/// The memory budget. It must be enough for the process that unpacks a fetched commit.
pub(super) fn budget(text: &str) -> Result<u64, String> {
    size(text, 128)
}

/// The memory of a process that renders. With less memory, Go's runtime in this process does not start.
pub(super) fn renderer_memory(text: &str) -> Result<u64, String> {
    size(text, 128)
}

/// A number of bytes, at least `least` MiB.
fn size(text: &str, least: u64) -> Result<u64, String> {
    match bytes(text) {
        Some(bytes) if bytes >= least << 20 => Ok(bytes),
        Some(_) => Err(format!("it must be at least {least}Mi")),
        None => Err(format!("'{text}' is not a size such as 256Mi or 1Gi")),
    }
}

/// A number of bytes as Kubernetes writes it: `256Mi`, `1Gi`, `268435456`. `None` for any other text.
pub fn bytes(text: &str) -> Option<u64> {
    let (number, unit) = match text.strip_suffix("Ki").map(|number| (number, 10)) {
        Some(found) => found,
        None => match (text.strip_suffix("Mi"), text.strip_suffix("Gi")) {
            (Some(number), _) => (number, 20),
            (_, Some(number)) => (number, 30),
            _ => (text, 0),
        },
    };
    number.parse::<u64>().ok().and_then(|number| number.checked_mul(1 << unit))
}

#[derive(Clone, Copy)]
enum Sign {
    Positive,
    Negative,
}

/// Parses what Go's `time.ParseDuration` parses: a sign, then numbers with units, or just 0; at most 292 years, as in
/// Go.
fn signed_duration(text: &str) -> Result<(Sign, Duration), String> {
    let invalid = || format!("'{text}' is not a duration such as 30s, 5m or 1h30m");
    let (sign, mut rest) = match text.as_bytes().first() {
        Some(b'-') => (Sign::Negative, &text[1..]),
        Some(b'+') => (Sign::Positive, &text[1..]),
        _ => (Sign::Positive, text),
    };
    if rest == "0" {
        return Ok((sign, Duration::ZERO));
    }
    if rest.is_empty() {
        return Err(invalid());
    }
    let mut total: u128 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(invalid)?;
        let (number, unit_on) = rest.split_at(number_end);
        let unit_end = unit_on.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(unit_on.len());
        let unit = nanoseconds(&unit_on[..unit_end]).ok_or_else(invalid)?;
        total = total.checked_add(times(number, unit).ok_or_else(invalid)?).ok_or_else(invalid)?;
        rest = &unit_on[unit_end..];
    }
    let nanoseconds = i64::try_from(total).map_err(|_| format!("'{text}' is longer than 292 years"))?;
    Ok((sign, Duration::from_nanos(nanoseconds.unsigned_abs())))
}

/// The number of nanoseconds in a unit.
fn nanoseconds(unit: &str) -> Option<u128> {
    Some(match unit {
        "ns" => 1,
        // The micro sign and the Greek letter mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    })
}

/// A decimal number times `unit`. Parts below a nanosecond are dropped.
fn times(number: &str, unit: u128) -> Option<u128> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u128>().ok() };
    // The 19th digit and those after it are less than a nanosecond, whatever the unit.
    let fraction = &fraction[..fraction.len().min(18)];
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    digits(whole)?.checked_mul(unit)?.checked_add(digits(fraction)? * unit / scale)
}
