//! Writes YAML as kubeseal's library does (go-yaml 2.4 under `sigs.k8s.io/yaml`).
//!
//! People compare old output of kubeseal with new output, so the text is the same, byte for byte: block style, keys in
//! that library's order, lists not indented, lines folded after column 80, and the same quotes. No Rust library has
//! these rules. So these rules are implemented here; for strings, numbers, lists and mappings, there are only a few.

use std::cmp::Ordering;
use std::fmt::Write as _;

use serde_json::{Map, Value};

/// A text is folded at its first space after this column.
const WIDTH: usize = 80;

/// A key longer than this number of bytes is written after a question mark.
const LONGEST_SIMPLE_KEY: usize = 128;

/// Appends a mapping, with a newline at the end.
pub(super) fn write(out: &mut String, map: &Map<String, Value>) {
    if map.is_empty() {
        out.push_str("{}\n");
    } else {
        mapping(out, map, 0, false);
    }
}

/// `is_started`: the first key continues the current line (after a `- `).
fn mapping(out: &mut String, map: &Map<String, Value>, indent: usize, mut is_started: bool) {
    for (key, value) in sorted(map) {
        if !std::mem::take(&mut is_started) {
            push_indent(out, indent);
        }
        if key.len() > LONGEST_SIMPLE_KEY || key.contains(is_break) {
            out.push_str("? ");
            scalar(out, key, indent + 2, false);
            out.push('\n');
            push_indent(out, indent);
        } else {
            scalar(out, key, indent + 2, true);
        }
        out.push(':');
        node(out, value, indent);
    }
}

/// The entries in go-yaml's order. This is not always a total order: `a` may come before `b`, `b` before `c`, and `c`
/// before `a`. The standard library's sort may panic if an order is not total, so it is not used here.
fn sorted(map: &Map<String, Value>) -> Vec<(&String, &Value)> {
    let mut sorted: Vec<(&String, &Value)> = Vec::with_capacity(map.len());
    for entry in map {
        let at = sorted.partition_point(|(key, _)| compare_keys(key, entry.0).is_lt());
        sorted.insert(at, entry);
    }
    sorted
}

/// A value after the colon of its key.
fn node(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::Object(map) if map.is_empty() => out.push_str(" {}\n"),
        Value::Array(items) if items.is_empty() => out.push_str(" []\n"),
        Value::Object(map) => {
            out.push('\n');
            mapping(out, map, indent + 2, false);
        }
        Value::Array(items) => {
            out.push('\n');
            sequence(out, items, indent, false);
        }
        value => {
            out.push(' ');
            plain(out, value, indent + 2);
        }
    }
}

fn sequence(out: &mut String, items: &[Value], indent: usize, mut is_started: bool) {
    for item in items {
        if !std::mem::take(&mut is_started) {
            push_indent(out, indent);
        }
        out.push_str("- ");
        match item {
            Value::Object(map) if map.is_empty() => out.push_str("{}\n"),
            Value::Array(items) if items.is_empty() => out.push_str("[]\n"),
            Value::Object(map) => mapping(out, map, indent + 2, true),
            Value::Array(items) => sequence(out, items, indent + 2, true),
            value => plain(out, value, indent + 2),
        }
    }
}

/// A scalar and the end of its line.
fn plain(out: &mut String, value: &Value, indent: usize) {
    match value {
        Value::String(text) => scalar(out, text, indent, false),
        other => {
            let _ = write!(out, "{other}"); // writing to a String cannot fail
        }
    }
    if !out.ends_with('\n') || !matches!(value, Value::String(text) if text.contains('\n')) {
        out.push('\n');
    }
}

/// A string in the style that go-yaml chooses.
fn scalar(out: &mut String, text: &str, indent: usize, is_key: bool) {
    let traits = Traits::of(text);
    let is_multiline = text.contains('\n');
    if is_multiline && !is_key && traits.may_be_literal {
        return literal(out, text, indent);
    }
    let may_fold = !is_key;
    if is_multiline || !manifests::is_text(text) || is_base_60(text) || is_timestamp(text) {
        return folded(out, text, Quotes::Double, may_fold, indent);
    }
    let quotes = if traits.may_be_plain && !(is_key && text.is_empty()) {
        Quotes::None
    } else if traits.may_be_single_quoted {
        Quotes::Single
    } else {
        Quotes::Double
    };
    folded(out, text, quotes, may_fold, indent);
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Quotes {
    None,
    Single,
    Double,
}

/// A text with or without quotes, in as many lines as it needs.
fn folded(out: &mut String, text: &str, quotes: Quotes, may_fold: bool, indent: usize) {
    let quote = match quotes {
        Quotes::None => "",
        Quotes::Single => "'",
        Quotes::Double => "\"",
    };
    let mut column = out.rsplit('\n').next().unwrap_or_default().chars().count() + quote.len();
    out.push_str(quote);
    let mut chars = text.char_indices().peekable();
    let mut was_space = false;
    while let Some((at, c)) = chars.next() {
        let next = chars.peek().map(|&(_, next)| next);
        let is_inside = quotes == Quotes::None || (at > 0 && next.is_some());
        let is_last_space = quotes == Quotes::Double || next != Some(' ');
        if c == ' ' && may_fold && !was_space && column > WIDTH && is_inside && is_last_space {
            out.push('\n');
            push_indent(out, indent);
            column = indent;
            if next == Some(' ') {
                out.push('\\');
                column += 1;
            }
        } else {
            let before = out.len();
            push_char(out, c, quotes);
            column += out[before..].chars().count();
        }
        was_space = c == ' ';
    }
    out.push_str(quote);
}

fn push_char(out: &mut String, c: char, quotes: Quotes) {
    match quotes {
        Quotes::Single if c == '\'' => out.push_str("''"),
        Quotes::Double => push_escaped(out, c),
        _ => out.push(c),
    }
}

/// The styles that a text can have without changing its meaning.
#[derive(Clone, Copy)]
struct Traits {
    may_be_plain: bool,
    may_be_single_quoted: bool,
    may_be_literal: bool,
}

impl Traits {
    fn of(text: &str) -> Self {
        let chars: Vec<char> = text.chars().collect();
        let (Some(&first), Some(&last)) = (chars.first(), chars.last()) else {
            return Self { may_be_plain: true, may_be_single_quoted: true, may_be_literal: false };
        };
        let has_pair = |test: fn(char, char) -> bool| chars.windows(2).any(|pair| test(pair[0], pair[1]));
        let has_special = chars.iter().any(|&c| !is_printable(c));
        let has_break = chars.iter().copied().any(is_break);
        let space_before_break = has_pair(|a, b| a == ' ' && is_break(b));
        let is_edged = [first, last].into_iter().any(|c| c == ' ' || is_break(c));
        Self {
            may_be_plain: !(has_special || has_break || is_edged || has_indicator(text, &chars)),
            may_be_single_quoted: !(has_special || has_break),
            may_be_literal: !(has_special || space_before_break || last == ' '),
        }
    }
}

/// Whether the text has characters that could be read as YAML syntax if the text had no quotes.
fn has_indicator(text: &str, chars: &[char]) -> bool {
    if text.starts_with("---") || text.starts_with("...") {
        return true;
    }
    let ends_word = |at: usize| chars.get(at + 1).is_none_or(|&c| c == ' ' || c == '\t' || is_break(c));
    chars.iter().enumerate().any(|(at, &c)| match c {
        ',' | '[' | ']' | '{' | '}' | '&' | '*' | '!' | '|' | '>' | '\'' | '"' | '%' | '@' | '`' => at == 0,
        '#' => at == 0 || matches!(chars[at - 1], ' ' | '\t') || is_break(chars[at - 1]),
        '?' | '-' => at == 0 && ends_word(at),
        ':' => ends_word(at),
        _ => false,
    })
}

fn literal(out: &mut String, text: &str, indent: usize) {
    out.push('|');
    if text.starts_with([' ', '\n']) || text.starts_with(is_break) {
        out.push('2');
    }
    let mut from_end = text.chars().rev();
    match (from_end.next().is_some_and(is_break), from_end.next().is_none_or(is_break)) {
        (false, _) => out.push('-'),
        (true, true) => out.push('+'),
        (true, false) => {}
    }
    out.push('\n');
    let mut is_at_start = true;
    for c in text.chars() {
        if is_break(c) {
            out.push(c);
            is_at_start = true;
            continue;
        }
        if std::mem::take(&mut is_at_start) {
            push_indent(out, indent);
        }
        out.push(c);
    }
}

/// Appends a character as it is written between double quotes.
fn push_escaped(out: &mut String, c: char) {
    let escape = match c {
        '\0' => '0',
        '\u{7}' => 'a',
        '\u{8}' => 'b',
        '\t' => 't',
        '\n' => 'n',
        '\u{b}' => 'v',
        '\u{c}' => 'f',
        '\r' => 'r',
        '\u{1b}' => 'e',
        '"' | '\\' => c,
        '\u{85}' => 'N',
        '\u{a0}' => '_',
        '\u{2028}' => 'L',
        '\u{2029}' => 'P',
        c if is_printable(c) => return out.push(c),
        c => {
            let code = u32::from(c);
            let _ = match code {
                0..=0xff => write!(out, "\\x{code:02X}"),
                0x100..=0xffff => write!(out, "\\u{code:04X}"),
                _ => write!(out, "\\U{code:08X}"),
            }; // writing to a String cannot fail
            return;
        }
    };
    out.extend(['\\', escape]);
}

fn push_indent(out: &mut String, indent: usize) {
    out.extend(std::iter::repeat_n(' ', indent));
}

fn is_break(c: char) -> bool {
    matches!(c, '\n' | '\r' | '\u{85}' | '\u{2028}' | '\u{2029}')
}

/// Characters that go-yaml writes unchanged. For go-yaml, no character above U+FFFF is printable.
fn is_printable(c: char) -> bool {
    matches!(c, '\n' | '\u{20}'..='\u{7e}' | '\u{a0}'..='\u{d7ff}' | '\u{e000}'..='\u{fffd}') && c != '\u{feff}'
}

/// Times such as `12:30:45`, which YAML 1.1 reads as a number to the base of 60.
fn is_base_60(text: &str) -> bool {
    let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
    let mut parts = unsigned.split(':');
    let is_first = |part: &str| {
        part.starts_with(|c: char| c.is_ascii_digit()) && part.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_')
    };
    if !parts.next().is_some_and(is_first) {
        return false;
    }
    let mut rest: Vec<&str> = parts.collect();
    // The last part may have a fraction.
    if let Some(last) = rest.last_mut()
        && let Some((whole, fraction)) = last.split_once('.')
    {
        if !fraction.bytes().all(|byte| byte.is_ascii_digit() || byte == b'_') {
            return false;
        }
        *last = whole;
    }
    let is_sixtieth = |part: &&str| match part.as_bytes() {
        [digit] => digit.is_ascii_digit(),
        [tens, digit] => (b'0'..=b'5').contains(tens) && digit.is_ascii_digit(),
        _ => false,
    };
    !rest.is_empty() && rest.iter().all(is_sixtieth)
}

/// Dates and times of YAML 1.1: a date such as `2020-1-31`; a date, a space and a time; or a date, a `T`, a time and a
/// time zone.
fn is_timestamp(text: &str) -> bool {
    let (date, time) = match text.find([' ', 'T', 't']) {
        Some(at) => (&text[..at], Some((&text[at..=at], &text[at + 1..]))),
        None => (text, None),
    };
    let numbers =
        |text: &str, separator| -> Option<Vec<i16>> { text.split(separator).map(one_or_two_digits).collect() };
    let Some((year, month_and_day)) = date.split_once('-') else {
        return false;
    };
    let is_year = year.len() == 4 && year.bytes().all(|byte| byte.is_ascii_digit());
    let is_date = is_year
        && matches!((year.parse(), numbers(month_and_day, '-').as_deref()), (Ok(year), Some(&[month, day]))
            if is_day(year, month, day));
    let is_clock = |clock: &str| {
        let (clock, fraction) = clock.split_once(['.', ',']).unwrap_or((clock, "0"));
        let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
        is_fraction && matches!(numbers(clock, ':').as_deref(), Some(&[0..=23, 0..=59, 0..=59]))
    };
    is_date
        && match time {
            None => true,
            Some((" ", clock)) => is_clock(clock),
            Some((_, clock)) => without_zone(clock).is_some_and(is_clock),
        }
}

fn is_day(year: i16, month: i16, day: i16) -> bool {
    let (Ok(month), Ok(day)) = (i8::try_from(month), i8::try_from(day)) else {
        return false;
    };
    jiff::civil::Date::new(year, month, day).is_ok()
}

fn one_or_two_digits(text: &str) -> Option<i16> {
    let is_number = (1..=2).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

/// The time before `Z` or an offset such as `+01:00`.
fn without_zone(text: &str) -> Option<&str> {
    text.strip_suffix('Z').or_else(|| {
        let at = text.rfind(['+', '-'])?;
        let (hours, minutes) = text[at + 1..].split_once(':')?;
        let is_offset = hours.len() == 2 && minutes.len() == 2;
        let fits = matches!((one_or_two_digits(hours)?, one_or_two_digits(minutes)?), (0..=23, 0..=59));
        (is_offset && fits).then_some(&text[..at])
    })
}

/// The order of keys: letters after other characters, numbers by their value.
fn compare_keys(a: &str, b: &str) -> Ordering {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let Some(at) = a.iter().zip(&b).position(|(a, b)| a != b) else {
        return a.len().cmp(&b.len());
    };
    let (x, y) = (a[at], b[at]);
    match (x.is_alphabetic(), y.is_alphabetic()) {
        (true, true) => return x.cmp(&y),
        (true, false) => return Ordering::Greater,
        (false, true) => return Ordering::Less,
        (false, false) => {}
    }
    // A zero that follows other digits of a number is not a leading zero.
    let is_inside = (x == '0' || y == '0') && a[..at].iter().rev().take_while(|c| c.is_numeric()).any(|&c| c != '0');
    let number = |chars: &[char]| {
        let digits: Vec<u32> = chars[at..].iter().map_while(|c| c.to_digit(10)).collect();
        let start = i64::from(is_inside);
        let value = digits.iter().fold(start, |value, &digit| value.wrapping_mul(10).wrapping_add(digit.into()));
        (value, digits.len())
    };
    number(&a).cmp(&number(&b)).then(x.cmp(&y))
}

#[cfg(test)]
mod tests;
