//! The language of variables in texts: `${name}`, with a default or an operator, as in Flux and in shells.

use std::borrow::Cow;

/// What a variable stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Known<'v> {
    /// A text.
    Plain(&'v str),
    /// The placeholder of a sealed value, or of a value of a Secret. It must stay as it is, because the value is put in its place later.
    Sealed(&'v str),
}

/// A text in which variables were replaced.
#[derive(Debug, Eq, PartialEq)]
pub(crate) struct Expanded {
    /// The text.
    pub(crate) text: String,
    /// Whether there was a variable in it.
    pub(crate) had_variable: bool,
    /// Whether a variable was all of it.
    pub(crate) is_one_variable: bool,
    /// The first variable in it that stands for a sealed value.
    pub(crate) sealed: Option<String>,
}

/// Why the variables in a text cannot be replaced.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(crate) enum Mistake {
    /// A variable has no value and no default.
    #[error("the variable {0} is not set")]
    NotSet(String),
    /// The text after `${` is not understood.
    #[error("`{text}` is not understood: {why}")]
    Syntax {
        /// The beginning of this text.
        text: String,
        /// What is wrong.
        why: &'static str,
    },
    /// An operator would change a sealed value.
    #[error(
        "the variable {0} is secret: its value is put in its place only when the Secret is made; use it without an \
         operator, as ${{{0}}} or with a default"
    )]
    SealedChanged(String),
    /// The result is too long, or takes too long.
    #[error("the text becomes too long when its variables are replaced")]
    TooLong,
}

/// How much the variables of a folder may take: bytes of results, and steps to compute them.
#[derive(Debug)]
pub(crate) struct Budget {
    left: u64,
}

impl Budget {
    /// This many bytes and steps.
    pub(crate) fn new(left: u64) -> Self {
        Self { left }
    }

    /// A part of this budget, of at most `most` bytes and steps, which has to be [given back](Self::give_back).
    pub(crate) fn part(&mut self, most: u64) -> Self {
        let left = self.left.min(most);
        self.left -= left;
        Self { left }
    }

    /// Takes back what is left of a part.
    pub(crate) fn give_back(&mut self, part: Self) {
        self.left += part.left;
    }

    fn take(&mut self, steps: usize) -> Result<(), Mistake> {
        self.left = self.left.checked_sub(steps as u64).ok_or(Mistake::TooLong)?;
        Ok(())
    }
}

/// How deep defaults and patterns with variables can be inside each other.
const DEPTH: usize = 16;
/// The most bytes of a text that becomes longer. No object that Kubernetes stores is longer.
const LONGEST: usize = 3 << 20;
/// How many characters of a text that is not understood are shown.
const SHOWN: usize = 40;

/// Whether a text can have a variable or an escaped one.
pub(crate) fn may_have_variables(text: &str) -> bool {
    text.contains("${")
}

/// Whether a text can be the name of a variable: letters, digits and `_`, not beginning with a digit.
pub(crate) fn is_name(text: &str) -> bool {
    !text.is_empty() && name_in(text) == text
}

/// Replaces the variables of a text. `$${` becomes `${`, and any other `$` stays.
pub(crate) fn expand<'v>(
    text: &str,
    known: &dyn Fn(&str) -> Option<Known<'v>>,
    budget: &mut Budget,
) -> Result<Expanded, Mistake> {
    let parts = Parser { rest: text, depth: 0 }.parts(End::OfText)?;
    let is_one_variable = matches!(parts[..], [Part::Variable { .. }]);
    let had_variable = parts.iter().any(|part| matches!(part, Part::Variable { .. }));
    let mut writer = Writer { text: String::new(), sealed: None, known, budget };
    writer.parts(&parts)?;
    let Writer { text, sealed, .. } = writer;
    Ok(Expanded { text, had_variable, is_one_variable, sealed })
}

/// A part of a text.
#[derive(Debug)]
enum Part<'t> {
    Text(Cow<'t, str>),
    Variable { name: &'t str, operator: Operator<'t> },
}

#[derive(Debug)]
enum Operator<'t> {
    /// `${name}`
    None,
    /// `${name:=word}`, `${name:-word}`: if the variable is not set or empty. `${name=word}`: if it is not set.
    Default { word: Vec<Part<'t>>, also_if_empty: bool },
    /// `${#name}`
    Length,
    /// `${name:offset}`, `${name:offset:length}`
    Substring { offset: usize, length: Option<usize> },
    /// `${name^}`, `${name^^}`, `${name,}`, `${name,,}`
    Case { is_upper: bool, is_whole: bool },
    /// `${name/text/word}`, `${name//text/word}`, `${name/#text/word}`, `${name/%text/word}`
    Replace { which: Which, text: Vec<Part<'t>>, word: Vec<Part<'t>> },
    /// `${name#pattern}`, `${name##pattern}`, `${name%pattern}`, `${name%%pattern}`
    Remove { is_end: bool, is_longest: bool, pattern: Vec<Part<'t>> },
}

/// Which texts are replaced.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Which {
    First,
    All,
    AtStart,
    AtEnd,
}

/// Where a part of a text ends.
#[derive(Clone, Copy, Eq, PartialEq)]
enum End {
    OfText,
    Brace,
    /// Here and in [`End::BraceOfReplace`], a backslash before `/`, `}` or `\` is left out.
    Slash,
    BraceOfReplace,
}

struct Parser<'t> {
    rest: &'t str,
    depth: usize,
}

impl<'t> Parser<'t> {
    /// The parts before `end`. What follows `end` is left.
    fn parts(&mut self, end: End) -> Result<Vec<Part<'t>>, Mistake> {
        let begin = self.rest;
        let mut parts = Vec::new();
        loop {
            let at = self.rest.find(|one| match one {
                '$' => true,
                '}' => matches!(end, End::Brace | End::BraceOfReplace),
                '/' => end == End::Slash,
                '\\' => matches!(end, End::Slash | End::BraceOfReplace),
                _ => false,
            });
            let (before, rest) = self.rest.split_at(at.unwrap_or(self.rest.len()));
            push(&mut parts, before);
            self.rest = rest;
            let mut following = rest.chars();
            match (following.next(), following.next()) {
                (None, _) if end == End::OfText => return Ok(parts),
                (None, _) => return Err(unclear(begin, "a closing brace } is missing")),
                (Some('$'), _) if rest.starts_with("$${") => {
                    push(&mut parts, &rest[1..3]);
                    self.rest = &rest[3..];
                }
                (Some('$'), Some('{')) => parts.push(self.variable()?),
                (Some('\\'), Some('/' | '}' | '\\')) => {
                    push(&mut parts, &rest[1..2]);
                    self.rest = &rest[2..];
                }
                (Some(one @ ('$' | '\\')), _) => {
                    push(&mut parts, &rest[..one.len_utf8()]);
                    self.rest = &rest[one.len_utf8()..];
                }
                (Some(_), _) => {
                    self.rest = &rest[1..];
                    return Ok(parts);
                }
            }
        }
    }

    /// The variable that begins here with `${`.
    fn variable(&mut self) -> Result<Part<'t>, Mistake> {
        let begin = self.rest;
        let unclear = |why| unclear(begin, why);
        if self.depth == DEPTH {
            return Err(unclear("too many variables are inside each other"));
        }
        self.rest = &begin[2..];
        let is_length = self.skip("#");
        let name = name_in(self.rest);
        self.rest = &self.rest[name.len()..];
        if name.is_empty() {
            return Err(unclear(
                "after ${ comes the name of a variable, with letters, digits and _; write $${ for the text ${",
            ));
        }
        self.depth += 1;
        let operator = if is_length { Operator::Length } else { self.operator(begin)? };
        self.depth -= 1;
        let ends_itself =
            matches!(operator, Operator::Default { .. } | Operator::Replace { .. } | Operator::Remove { .. });
        if !ends_itself && !self.skip("}") {
            let is_name = self.rest.starts_with(['-', '.']);
            return Err(unclear(match (self.rest.is_empty(), is_name) {
                (true, _) => "a closing brace } is missing",
                (_, true) => {
                    "names of variables have only letters, digits and _; a default is written ${name:=default}"
                }
                (_, false) => "after the name comes }, or one of the operators := :- = : # % / , ^",
            }));
        }
        Ok(Part::Variable { name, operator })
    }

    fn operator(&mut self, begin: &'t str) -> Result<Operator<'t>, Mistake> {
        for (sign, also_if_empty) in [(":=", true), (":-", true), ("=", false)] {
            if self.skip(sign) {
                return Ok(Operator::Default { word: self.parts(End::Brace)?, also_if_empty });
            }
        }
        if [":+", ":?"].iter().any(|sign| self.rest.starts_with(sign)) {
            return Err(unclear(begin, "the operators :+ and :? are not supported"));
        }
        if self.skip(":") {
            let offset =
                self.number().ok_or_else(|| unclear(begin, "after ':' must come a number, or '=' and a default"))?;
            let length = if self.skip(":") {
                Some(self.number().ok_or_else(|| unclear(begin, "after the second ':' must come a number"))?)
            } else {
                None
            };
            return Ok(Operator::Substring { offset, length });
        }
        for (sign, is_upper, is_whole) in
            [("^^", true, true), ("^", true, false), (",,", false, true), (",", false, false)]
        {
            if self.skip(sign) {
                return Ok(Operator::Case { is_upper, is_whole });
            }
        }
        for (sign, which) in [("//", Which::All), ("/#", Which::AtStart), ("/%", Which::AtEnd), ("/", Which::First)] {
            if self.skip(sign) {
                let text = self.parts(End::Slash)?;
                return Ok(Operator::Replace { which, text, word: self.parts(End::BraceOfReplace)? });
            }
        }
        for (sign, is_end, is_longest) in
            [("##", false, true), ("#", false, false), ("%%", true, true), ("%", true, false)]
        {
            if self.skip(sign) {
                return Ok(Operator::Remove { is_end, is_longest, pattern: self.parts(End::Brace)? });
            }
        }
        Ok(Operator::None)
    }

    fn skip(&mut self, sign: &str) -> bool {
        let rest = self.rest.strip_prefix(sign);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    fn number(&mut self) -> Option<usize> {
        let end = self.rest.find(|one: char| !one.is_ascii_digit()).unwrap_or(self.rest.len());
        let (digits, rest) = self.rest.split_at(end);
        self.rest = rest;
        digits.parse().ok()
    }
}

fn push<'t>(parts: &mut Vec<Part<'t>>, text: &'t str) {
    match parts.last_mut() {
        _ if text.is_empty() => {}
        Some(Part::Text(before)) => before.to_mut().push_str(text),
        _ => parts.push(Part::Text(text.into())),
    }
}

fn name_in(text: &str) -> &str {
    let is_part = |one: char| one.is_ascii_alphanumeric() || one == '_';
    let end = text.find(|one| !is_part(one)).unwrap_or(text.len());
    if text.starts_with(|first: char| first.is_ascii_digit()) { "" } else { &text[..end] }
}

fn unclear(text: &str, why: &'static str) -> Mistake {
    let mut shown: String = text.chars().take_while(|one| *one != '\n').take(SHOWN).collect();
    if shown.len() < text.len() {
        shown.push('…');
    }
    Mistake::Syntax { text: shown, why }
}

/// Puts a text together.
struct Writer<'a, 'v> {
    text: String,
    sealed: Option<String>,
    known: &'a dyn Fn(&str) -> Option<Known<'v>>,
    budget: &'a mut Budget,
}

impl Writer<'_, '_> {
    fn parts(&mut self, parts: &[Part<'_>]) -> Result<(), Mistake> {
        for part in parts {
            match part {
                Part::Text(text) => self.push(text)?,
                Part::Variable { name, operator } => self.variable(name, operator)?,
            }
        }
        Ok(())
    }

    fn push(&mut self, text: &str) -> Result<(), Mistake> {
        self.budget.take(text.len() + 1)?;
        if self.text.len() + text.len() > LONGEST {
            return Err(Mistake::TooLong);
        }
        self.text.push_str(text);
        Ok(())
    }

    fn variable(&mut self, name: &str, operator: &Operator<'_>) -> Result<(), Mistake> {
        let found = (self.known)(name);
        if let Operator::Default { word, also_if_empty } = operator
            && (found.is_none() || *also_if_empty && found == Some(Known::Plain("")))
        {
            return self.parts(word);
        }
        let value = match found.ok_or_else(|| Mistake::NotSet(name.to_owned()))? {
            Known::Plain(value) => value,
            Known::Sealed(_) if !matches!(operator, Operator::None | Operator::Default { .. }) => {
                return Err(Mistake::SealedChanged(name.to_owned()));
            }
            Known::Sealed(placeholder) => {
                self.sealed.get_or_insert_with(|| name.to_owned());
                placeholder
            }
        };
        if !matches!(operator, Operator::None | Operator::Default { .. }) {
            self.budget.take(value.len())?;
        }
        match operator {
            Operator::None | Operator::Default { .. } => self.push(value),
            Operator::Length => self.push(&value.chars().count().to_string()),
            Operator::Substring { offset, length } => self.push(substring(value, *offset, *length)),
            Operator::Case { is_upper, is_whole } => {
                let first = value.chars().next().map_or(0, char::len_utf8);
                let (changed, kept) = value.split_at(if *is_whole { value.len() } else { first });
                let changed = if *is_upper { changed.to_uppercase() } else { changed.to_lowercase() };
                self.push(&changed)?;
                self.push(kept)
            }
            Operator::Replace { which, text, word } => {
                let (text, word) = (self.word(text)?, self.word(word)?);
                self.replace(value, *which, &text, &word)
            }
            Operator::Remove { is_end, is_longest, pattern } => {
                let pattern: Vec<char> = self.word(pattern)?.chars().collect();
                self.budget.take(value.len().saturating_mul(pattern.len()))?;
                let removed = if *is_end {
                    let pattern: Vec<char> = pattern.into_iter().rev().collect();
                    matching(value.chars().rev(), &pattern, *is_longest)
                } else {
                    matching(value.chars(), &pattern, *is_longest)
                };
                self.push(if *is_end { &value[..value.len() - removed] } else { &value[removed..] })
            }
        }
    }

    /// The text of a word inside of an operator.
    fn word(&mut self, parts: &[Part<'_>]) -> Result<String, Mistake> {
        let mut inner = Writer { text: String::new(), sealed: None, known: self.known, budget: &mut *self.budget };
        inner.parts(parts)?;
        match inner.sealed {
            Some(name) => Err(Mistake::SealedChanged(name)),
            None => Ok(inner.text),
        }
    }

    fn replace(&mut self, value: &str, which: Which, text: &str, word: &str) -> Result<(), Mistake> {
        let (before, after) = match which {
            Which::AtStart => ("", value.strip_prefix(text)),
            Which::AtEnd => (value.strip_suffix(text).unwrap_or_default(), value.ends_with(text).then_some("")),
            // As there is nothing to look for, there is nothing to replace.
            Which::First | Which::All if text.is_empty() => ("", None),
            Which::First => value.split_once(text).map_or(("", None), |(before, after)| (before, Some(after))),
            Which::All => {
                for (number, piece) in value.split(text).enumerate() {
                    if number > 0 {
                        self.push(word)?;
                    }
                    self.push(piece)?;
                }
                return Ok(());
            }
        };
        let Some(after) = after else { return self.push(value) };
        [before, word, after].into_iter().try_for_each(|piece| self.push(piece))
    }
}

/// The characters of a text from `offset` on, at most `length`.
fn substring(text: &str, offset: usize, length: Option<usize>) -> &str {
    let at = |text: &str, count| text.char_indices().nth(count).map_or(text.len(), |(at, _)| at);
    let rest = &text[at(text, offset)..];
    &rest[..length.map_or(rest.len(), |length| at(rest, length))]
}

/// How many bytes the shortest or the longest beginning of a text has that fits a pattern; 0 if none fits. In a pattern, `*`
/// stands for any characters, and `?` for one.
fn matching(text: impl Iterator<Item = char>, pattern: &[char], is_longest: bool) -> usize {
    // Which beginnings of the pattern fit the text so far.
    let mut fits = vec![false; pattern.len() + 1];
    fits[0] = true;
    skip_stars(&mut fits, pattern);
    let (mut bytes, mut found) = (0, None);
    if fits[pattern.len()] {
        found = Some(0);
    }
    for one in text {
        if found.is_some() && !is_longest || !fits.contains(&true) {
            break;
        }
        bytes += one.len_utf8();
        for at in (0..pattern.len()).rev() {
            let moves = fits[at] && (pattern[at] == '?' || pattern[at] == one);
            // At a star, the pattern also stays where it is.
            fits[at + 1] = pattern[at] != '*' && moves || pattern.get(at + 1) == Some(&'*') && fits[at + 1];
        }
        fits[0] = pattern.first() == Some(&'*');
        skip_stars(&mut fits, pattern);
        if fits[pattern.len()] {
            found = Some(bytes);
        }
    }
    found.unwrap_or(0)
}

/// A star may stand for nothing.
fn skip_stars(fits: &mut [bool], pattern: &[char]) {
    for (at, one) in pattern.iter().enumerate() {
        if *one == '*' && fits[at] {
            fits[at + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests;
