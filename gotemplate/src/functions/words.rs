//! sprig's functions that work on the words of a text. Where a result looks odd, it is what sprig gives.

use super::{Failure, Function, Int, Memory, Outcome, Text, Value, function, int, strings::mapped, text};
use crate::{text::Buffer, unicode};

pub(super) const FUNCTIONS: &[Function] = &[
    function("title", &[Text], title),
    function("untitle", &[Text], |memory, arguments| {
        let mut inside = false;
        mapped(memory, text(arguments, 0), |char| {
            let first = !inside && !unicode::is_space(char);
            inside = !unicode::is_space(char);
            if first { unicode::to_lower(char) } else { char }
        })
    }),
    function("swapcase", &[Text], swap_case),
    function("camelcase", &[Text], camel_case),
    function("snakecase", &[Text], |memory, arguments| lower_case(memory, text(arguments, 0), '_')),
    function("kebabcase", &[Text], |memory, arguments| lower_case(memory, text(arguments, 0), '-')),
    function("initials", &[Text], |memory, arguments| {
        let mut out = memory.buffer();
        let mut inside = false;
        for char in latin(text(arguments, 0)) {
            if !inside && !unicode::is_space(char) {
                out.push_char(char);
            }
            inside = !unicode::is_space(char);
        }
        memory.text(out)
    }),
    function("nospace", &[Text], |memory, arguments| {
        let given = text(arguments, 0);
        if !latin(given).any(unicode::is_space) {
            return memory.copied(given);
        }
        let mut out = memory.buffer();
        latin(given).filter(|char| !unicode::is_space(*char)).for_each(|char| out.push_char(char));
        memory.text(out)
    }),
    function("abbrev", &[Int, Text], |memory, arguments| abbreviated(memory, text(arguments, 1), 0, int(arguments, 0))),
    function("abbrevboth", &[Int, Int, Text], |memory, arguments| {
        let (left, right) = (int(arguments, 0), int(arguments, 1));
        if left > 0 && right < 7 {
            return Ok(arguments[2].clone());
        }
        abbreviated(memory, text(arguments, 2), left, right)
    }),
    function("wrap", &[Int, Text], |memory, arguments| {
        let mut out = memory.buffer();
        wrap(memory, &mut out, text(arguments, 1), int(arguments, 0), b"\n", false)?;
        memory.text(out)
    }),
    function("wrapWith", &[Int, Text, Text], |memory, arguments| {
        let line_end = if text(arguments, 1).is_empty() { b"\n" } else { text(arguments, 1) };
        let mut out = memory.buffer();
        wrap(memory, &mut out, text(arguments, 2), int(arguments, 0), line_end, true)?;
        memory.text(out)
    }),
];

/// Each byte as a character: some functions of sprig read a text in this way.
fn latin(text: &[u8]) -> impl Iterator<Item = char> + '_ {
    text.iter().copied().map(char::from)
}

fn title(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let separates = |char: char| {
        if char.is_ascii() { !unicode::is_word(char) } else { !unicode::is_word(char) && unicode::is_space(char) }
    };
    let mut before = ' ';
    mapped(memory, text(arguments, 0), |char| {
        let starts = separates(before);
        before = char;
        if starts { unicode::to_title(char) } else { char }
    })
}

fn swap_case(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut space = true;
    mapped(memory, text(arguments, 0), |char| {
        let lower = unicode::lower(char);
        if unicode::upper(char) || unicode::title(char) {
            space = false;
            unicode::to_lower(char)
        } else if lower && space {
            space = false;
            unicode::to_title(char)
        } else if lower {
            unicode::to_upper(char)
        } else {
            space = unicode::is_space(char);
            char
        }
    })
}

fn connects(char: char) -> bool {
    matches!(char, '-' | '_') || unicode::is_space(char)
}

/// Makes `SomeWords` of `some_words`. Connectors at the start stay. If several connectors are between two words, the
/// last one is removed and the others stay.
fn camel_case(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let mut out = memory.buffer();
    let mut rest = crate::text::chars(text(arguments, 0)).peekable();
    let mut last = None;
    while let Some(char) = rest.next_if(|char| connects(*char)) {
        out.push_char(char);
        last = Some(char);
    }
    let Some(first) = rest.next() else {
        if let Some(last) = last {
            out.push_char(last);
        }
        return memory.text(out);
    };
    let mut upper = unicode::upper(first);
    let mut pending = unicode::to_upper(first);
    for char in rest {
        let next = match (connects(pending), connects(char)) {
            (true, true) => {
                out.push_char(pending);
                char
            }
            (true, false) => {
                upper = unicode::upper(char);
                unicode::to_upper(char)
            }
            (false, _) => {
                out.push_char(pending);
                // Of a word in capitals, all letters but the first are written in lower case.
                upper &= unicode::upper(char);
                if upper { unicode::to_lower(char) } else { char }
            }
        };
        pending = next;
    }
    out.push_char(pending);
    memory.text(out)
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Kind {
    Number,
    Upper,
    Letters,
    Connector,
    Punctuation,
    Other,
}

/// Whether the letter forms words together with its neighbours, unlike a Chinese character.
fn alphabetic(char: char) -> bool {
    let chinese = matches!(char, '\u{4e00}'..='\u{9fcc}' | '\u{3400}'..='\u{4d85}' | '\u{20000}'..='\u{2b81d}');
    unicode::letter(char) && !chinese
}

/// The kind and the length of the word at the start of `text`.
fn word(text: &str) -> (Kind, usize) {
    let mut chars = text.chars();
    let Some(first) = chars.next() else { return (Kind::Other, 0) };
    let run = |test: &dyn Fn(char) -> bool| text.find(|char| !test(char)).unwrap_or(text.len());
    let small = |char: char| alphabetic(char) && !unicode::upper(char);
    if connects(first) {
        (Kind::Connector, run(&connects))
    } else if unicode::punctuation(first) {
        (Kind::Punctuation, run(&unicode::punctuation))
    } else if unicode::upper(first) {
        let capitals = run(&unicode::upper);
        if capitals > first.len_utf8() {
            // The last capital belongs to the next word: HTTPServer.
            let last = text[..capitals].chars().next_back().map_or(0, char::len_utf8);
            let followed = text[capitals..].starts_with(alphabetic);
            return (Kind::Upper, if followed { capitals - last } else { capitals });
        }
        let rest = &text[capitals..];
        (Kind::Upper, capitals + rest.find(|char| !small(char)).unwrap_or(rest.len()))
    } else if alphabetic(first) {
        (Kind::Letters, run(&small))
    } else if unicode::number(first) {
        (Kind::Number, run(&unicode::number))
    } else {
        let other =
            |char| !connects(char) && !alphabetic(char) && !unicode::number(char) && !unicode::punctuation(char);
        (
            Kind::Other,
            first.len_utf8()
                + text[first.len_utf8()..].find(|char| !other(char)).unwrap_or(text.len() - first.len_utf8()),
        )
    }
}

/// Makes `some_words` of `SomeWords`.
fn lower_case(memory: &mut Memory, given: &[u8], connector: char) -> Outcome {
    let mut rest = std::str::from_utf8(given).map_err(|_| Failure::from("the text is not UTF-8"))?;
    let mut words = Vec::new();
    while !rest.is_empty() {
        let (kind, length) = word(rest);
        words.push((kind, &rest[..length]));
        rest = &rest[length..];
    }
    let mut out = memory.buffer();
    let mut writer = Words { out: &mut out, connector, all: &words, at: 0 };
    while writer.at + 1 < words.len() {
        writer.step();
    }
    writer.write();
    memory.text(out)
}

struct Words<'a> {
    out: &'a mut Buffer,
    connector: char,
    all: &'a [(Kind, &'a str)],
    at: usize,
}

impl Words<'_> {
    /// Writes a word, and the connector before the next word.
    fn step(&mut self) {
        let kind = self.all[self.at].0;
        self.write();
        self.at += 1;
        match kind {
            Kind::Connector | Kind::Punctuation => {}
            Kind::Number => self.write_mixed(),
            _ if self.kind() != Some(Kind::Number) => self.connect(),
            // A number at the end belongs to the word before it.
            _ if self.at + 1 == self.all.len() => {}
            _ if self.all[self.at + 1].0 == Kind::Letters => {
                self.out.push_char(self.connector);
                self.write();
                self.at += 1;
                self.write_mixed();
            }
            _ => {
                self.write();
                self.at += 1;
                self.connect();
            }
        }
    }

    /// Lower-case letters and numbers after a number belong to the same word as the number: `2xx`.
    fn write_mixed(&mut self) {
        while matches!(self.kind(), Some(Kind::Letters | Kind::Number)) {
            self.write();
            self.at += 1;
        }
        self.connect();
    }

    /// Writes a connector, unless the next word is a connector itself.
    fn connect(&mut self) {
        if self.kind().is_some_and(|kind| !matches!(kind, Kind::Connector | Kind::Punctuation)) {
            self.out.push_char(self.connector);
        }
    }

    fn write(&mut self) {
        let Some((kind, word)) = self.all.get(self.at) else { return };
        for char in word.chars() {
            self.out.push_char(match kind {
                Kind::Connector => self.connector,
                Kind::Upper => unicode::to_lower(char),
                _ => char,
            });
        }
    }

    fn kind(&self) -> Option<Kind> {
        self.all.get(self.at).map(|(kind, _)| *kind)
    }
}

/// Shortens a text to at most `width` bytes. Dots stand for what is left out: at the end, and also at the start if
/// `offset` is large enough.
fn abbreviated(memory: &mut Memory, given: &[u8], offset: i64, width: i64) -> Outcome {
    let length = given.len();
    let Some(width) = usize::try_from(width).ok().filter(|width| (4..length).contains(width)) else {
        return memory.copied(given);
    };
    let shown = width - 3;
    let offset = usize::try_from(offset).unwrap_or(0).min(length.saturating_sub(shown));
    let mut out = memory.buffer();
    if offset <= 4 {
        out.push(&given[..shown]);
        out.push(b"...");
    } else if width < 7 {
        // With dots at both ends, there is no space for any part of the text between them.
    } else if offset + shown < length {
        out.push(b"...");
        out.push(&given[offset..offset + shown - 3]);
        out.push(b"...");
    } else {
        out.push(b"...");
        out.push(&given[length - shown..]);
    }
    memory.text(out)
}

/// Breaks a text at spaces into lines of at most `width` bytes. A longer word is broken only if `cut` is set.
fn wrap(
    memory: &mut Memory,
    out: &mut Buffer,
    given: &[u8],
    width: i64,
    line_end: &[u8],
    cut: bool,
) -> Result<(), Failure> {
    let width = usize::try_from(width.max(1)).unwrap_or(usize::MAX);
    let mut rest = given;
    while rest.len() > width {
        memory.budget.step(1)?;
        if rest[0] == b' ' {
            rest = &rest[1..];
            continue;
        }
        let before = memchr::memrchr(b' ', &rest[..=width]);
        let after = || memchr::memchr(b' ', &rest[width..]).map(|at| at + width);
        let (line, next) = match before {
            Some(space) => (space, space + 1),
            None if cut => (width, width),
            None => match after() {
                Some(space) => (space, space + 1),
                None => break,
            },
        };
        out.push(&rest[..line]);
        out.push(line_end);
        rest = &rest[next..];
    }
    out.push(rest);
    Ok(())
}
