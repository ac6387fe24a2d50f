//! sprig: regular expressions in Go's syntax.

use std::rc::Rc;

use regex::{Captures, Regex, RegexBuilder};

use super::{Failure, Function, Int, Memory, Outcome, Text, Value, function, int, text};
use crate::{
    go_regex,
    text::Text as Bytes,
    unicode,
    value::{Element, List},
};

pub(super) const FUNCTIONS: &[Function] = &[
    // Only in this function, not in `mustRegexMatch`, sprig treats an invalid expression as one that never matches.
    function("regexMatch", &[Text, Text], |memory, arguments| match matches(memory, arguments) {
        Err(Failure::Refused(_)) => Ok(Value::Bool(false)),
        matches => matches,
    }),
    function("mustRegexMatch", &[Text, Text], matches),
    function("regexFind", &[Text, Text], find),
    function("mustRegexFind", &[Text, Text], find),
    function("regexFindAll", &[Text, Text, Int], find_all),
    function("mustRegexFindAll", &[Text, Text, Int], find_all),
    function("regexReplaceAll", &[Text, Text, Text], |memory, arguments| replace(memory, arguments, expand)),
    function("mustRegexReplaceAll", &[Text, Text, Text], |memory, arguments| replace(memory, arguments, expand)),
    function("regexReplaceAllLiteral", &[Text, Text, Text], |memory, arguments| replace(memory, arguments, literal)),
    function("mustRegexReplaceAllLiteral", &[Text, Text, Text], |memory, arguments| {
        replace(memory, arguments, literal)
    }),
    function("regexSplit", &[Text, Text, Int], split),
    function("mustRegexSplit", &[Text, Text, Int], split),
    function("regexQuoteMeta", &[Text], quote_meta),
];

/// A compiled expression, and its length, from which the cost of a search is computed.
#[derive(Clone)]
pub(crate) struct Expression {
    regex: Regex,
    length: usize,
}

/// How many bytes a compiled expression may take.
const COMPILED: usize = 1 << 20;
/// How many bytes the text of an expression may have.
const LONGEST: usize = 4096;
/// How many steps the compilation of an expression counts as.
const STEPS: usize = 5_000;

impl Expression {
    /// Counts the steps of a search through this number of bytes. The time of a search is proportional to the number of
    /// bytes and to the size of the expression.
    fn searches(&self, memory: &mut Memory, bytes: usize) -> Result<(), Failure> {
        memory.budget.step(1 + bytes.saturating_mul(self.length) / 512)
    }
}

fn expression(memory: &mut Memory, pattern: &[u8]) -> Result<Rc<Expression>, Failure> {
    if let Some(known) = memory.expressions.get(pattern) {
        return Ok(Rc::clone(known));
    }
    memory.budget.step(STEPS)?;
    if pattern.len() > LONGEST {
        return Err("the regular expression is too long".into());
    }
    let translated = go_regex::translated(utf8(pattern)?)?;
    let regex = RegexBuilder::new(&translated)
        .size_limit(COMPILED)
        .nest_limit(100)
        .build()
        .map_err(|_| "the regular expression is malformed or too large")?;
    let expression = Rc::new(Expression { regex, length: 1 + pattern.len() });
    memory.expressions.insert(Bytes::copied(pattern), Rc::clone(&expression));
    Ok(expression)
}

fn utf8(bytes: &[u8]) -> Result<&str, Failure> {
    std::str::from_utf8(bytes).map_err(|_| "regular expressions work only on text in UTF-8".into())
}

fn matches(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let expression = expression(memory, text(arguments, 0))?;
    let given = utf8(text(arguments, 1))?;
    expression.searches(memory, given.len())?;
    Ok(Value::Bool(expression.regex.is_match(given)))
}

fn find(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let expression = expression(memory, text(arguments, 0))?;
    let given = utf8(text(arguments, 1))?;
    expression.searches(memory, given.len())?;
    memory.copied(expression.regex.find(given).map_or("", |found| found.as_str()).as_bytes())
}

/// The positions of the first `most` matches, or of all matches if `most` is negative.
fn places(
    memory: &mut Memory,
    expression: &Expression,
    given: &str,
    most: i64,
) -> Result<Vec<(usize, usize)>, Failure> {
    let most = usize::try_from(most).unwrap_or(usize::MAX);
    let mut places = Vec::new();
    let mut found = expression.regex.find_iter(given);
    let mut from = 0;
    while places.len() < most {
        expression.searches(memory, given.len() - from)?;
        let Some(found) = found.next() else { break };
        from = found.end();
        places.push((found.start(), found.end()));
    }
    Ok(places)
}

fn find_all(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let expression = expression(memory, text(arguments, 0))?;
    let given = utf8(text(arguments, 1))?;
    let places = places(memory, &expression, given, int(arguments, 2))?;
    if places.is_empty() {
        return Ok(Value::List(List::nil(Element::Text)));
    }
    let found: Vec<Value> =
        places.iter().map(|(start, end)| memory.copied(&given.as_bytes()[*start..*end])).collect::<Result<_, _>>()?;
    memory.list(Element::Text, found)
}

fn split(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let expression = expression(memory, text(arguments, 0))?;
    let (given, most) = (utf8(text(arguments, 1))?, int(arguments, 2));
    if most == 0 {
        return Ok(Value::List(List::nil(Element::Text)));
    }
    let mut parts = Vec::new();
    if given.is_empty() && !text(arguments, 0).is_empty() {
        parts.push(memory.copied(b"")?);
        return memory.list(Element::Text, parts);
    }
    let limit = usize::try_from(most).unwrap_or(usize::MAX);
    let (mut start, mut last) = (0, 0);
    for (found, end) in places(memory, &expression, given, most)? {
        if parts.len() + 1 == limit {
            break;
        }
        last = found;
        if end != 0 {
            parts.push(memory.copied(&given.as_bytes()[start..found])?);
        }
        start = end;
    }
    if last != given.len() {
        parts.push(memory.copied(&given.as_bytes()[start..])?);
    }
    memory.list(Element::Text, parts)
}

type Expand = fn(&mut crate::text::Buffer, &Captures<'_>, &str);

fn replace(memory: &mut Memory, arguments: &[Value], expand: Expand) -> Outcome {
    let expression = expression(memory, text(arguments, 0))?;
    let given = utf8(text(arguments, 1))?;
    let replacement = utf8(text(arguments, 2))?;
    let mut out = memory.buffer();
    let mut found = expression.regex.captures_iter(given);
    let mut from = 0;
    loop {
        expression.searches(memory, given.len() - from)?;
        let Some(captures) = found.next() else { break };
        let Some(whole) = captures.get(0) else { break };
        out.push(&given.as_bytes()[from..whole.start()]);
        expand(&mut out, &captures, replacement);
        memory.budget.step(replacement.len() / 64)?;
        from = whole.end();
    }
    out.push(&given.as_bytes()[from..]);
    memory.text(out)
}

fn literal(out: &mut crate::text::Buffer, _: &Captures<'_>, replacement: &str) {
    out.push(replacement.as_bytes());
}

/// Expands `$1`, `$name`, `${name}` and `$$`. A group that does not exist is empty, and any other dollar stays.
fn expand(out: &mut crate::text::Buffer, captures: &Captures<'_>, replacement: &str) {
    let mut rest = replacement;
    while let Some(dollar) = rest.find('$') {
        out.push(&rest.as_bytes()[..dollar]);
        rest = &rest[dollar + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push(b"$");
            rest = after;
            continue;
        }
        let word = |text: &str| text.find(|char| !unicode::is_word(char)).unwrap_or(text.len());
        let braced = rest.strip_prefix('{').and_then(|inner| {
            let length = word(inner);
            inner[length..].strip_prefix('}').map(|after| (&inner[..length], after))
        });
        let (name, after) = match braced {
            Some(braced) => braced,
            None if rest.starts_with('{') => ("", rest),
            None => rest.split_at(word(rest)),
        };
        if name.is_empty() {
            out.push(b"$");
            continue;
        }
        let group = match name.parse::<usize>() {
            Ok(index) if index.to_string() == name => captures.get(index),
            _ => captures.name(name),
        };
        out.push(group.map_or("", |group| group.as_str()).as_bytes());
        rest = after;
    }
    out.push(rest.as_bytes());
}

fn quote_meta(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut out = memory.buffer();
    for byte in text(arguments, 0) {
        if br"\.+*?()|[]{}^$".contains(byte) {
            out.push(b"\\");
        }
        out.push(&[*byte]);
    }
    memory.text(out)
}
