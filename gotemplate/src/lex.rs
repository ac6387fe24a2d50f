//! Splits the text of a template into tokens.

use crate::{
    error::{Error, ErrorKind, Name},
    literal::{self, Number},
    unicode,
};

/// One token and the line where it starts.
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) line: usize,
}

#[derive(Clone, PartialEq)]
pub(crate) enum Kind {
    Text(Vec<u8>),
    /// `{{`
    Open,
    /// `}}`
    Close,
    Space,
    Assign,
    Declare,
    Bar,
    Comma,
    LeftParen,
    RightParen,
    String(Vec<u8>),
    Number(Number),
    Bool(bool),
    Nil,
    Dot,
    /// `.name`, without the dot.
    Field(String),
    /// `$name`, with the dollar.
    Variable(String),
    Identifier(String),
    Keyword(Keyword),
    Other(char),
    End,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Keyword {
    Block,
    Break,
    Continue,
    Define,
    Else,
    End,
    If,
    Range,
    Template,
    With,
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

pub(crate) fn lex(text: &str) -> Result<Vec<Token>, Error> {
    let mut lexer = Lexer { text, at: 0, line: 1, tokens: Vec::new() };
    lexer.run()?;
    Ok(lexer.tokens)
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    line: usize,
    tokens: Vec<Token>,
}

impl<'t> Lexer<'t> {
    fn run(&mut self) -> Result<(), Error> {
        // Whether the previous action removed the spaces that follow it.
        let mut trim = false;
        loop {
            let rest = self.rest();
            let end = rest.find("{{").unwrap_or(rest.len());
            let mut literal = &rest[..end];
            if trim {
                literal = literal.trim_start_matches(SPACE);
            }
            let (dashed, comment) = opening(&rest[end..]);
            if dashed {
                literal = literal.trim_end_matches(SPACE);
            }
            if !literal.is_empty() {
                self.push(Kind::Text(literal.as_bytes().to_vec()));
            }
            self.skip(end);
            if self.rest().is_empty() {
                self.push(Kind::End);
                return Ok(());
            }
            let opened = if dashed { 4 } else { 2 };
            trim = if comment {
                self.skip(opened);
                self.comment()?
            } else {
                self.push(Kind::Open);
                self.skip(opened);
                self.action()?
            };
        }
    }

    /// Skips a comment, from `/*` to the end of the action. Returns whether the white space after the action is
    /// removed.
    fn comment(&mut self) -> Result<bool, Error> {
        let rest = self.rest();
        let end = rest.find("*/").ok_or_else(|| self.error("the comment has no end"))? + 2;
        let (closed, trims) = closing(&rest[end..]);
        if closed == 0 {
            return Err(self.error("the comment is not closed by */}}"));
        }
        self.skip(end + closed);
        Ok(trims)
    }

    /// Reads an action, from after `{{` to after `}}`. Returns whether the white space after the action is removed.
    fn action(&mut self) -> Result<bool, Error> {
        let opened = self.tokens.last().map_or(self.line, |token| token.line);
        let mut depth = 0_usize;
        loop {
            let rest = self.rest();
            let (closed, trims) = closing(rest);
            if closed > 0 {
                if depth > 0 {
                    return Err(self.error("a left parenthesis is not closed"));
                }
                self.push(Kind::Close);
                self.skip(closed);
                return Ok(trims);
            }
            let Some(first) = rest.chars().next() else {
                return Err(Error::new(opened, ErrorKind::Syntax, "the action is not closed by }}"));
            };
            match first {
                '(' => depth += 1,
                ')' => depth = depth.checked_sub(1).ok_or_else(|| self.error("unexpected right parenthesis"))?,
                _ => {}
            }
            self.token(first, rest)?;
        }
    }

    fn token(&mut self, first: char, rest: &'t str) -> Result<(), Error> {
        let (kind, length) = match first {
            ' ' | '\t' | '\r' | '\n' => {
                let mut length = rest.len() - rest.trim_start_matches(SPACE).len();
                // The last space may belong to ` -}}`.
                if rest[length..].starts_with("-}}") {
                    length -= 1;
                }
                (Kind::Space, length)
            }
            '=' => (Kind::Assign, 1),
            ':' if rest.starts_with(":=") => (Kind::Declare, 2),
            ':' => return Err(self.error("expected :=")),
            '|' => (Kind::Bar, 1),
            ',' => (Kind::Comma, 1),
            '(' => (Kind::LeftParen, 1),
            ')' => (Kind::RightParen, 1),
            '"' | '\'' | '`' => {
                let length = literal::quoted_length(rest).ok_or_else(|| self.error("a quoted text has no end"))?;
                let text = &rest[..length];
                let kind = if first == '\'' {
                    literal::char(text).map(Kind::Number)
                } else {
                    literal::unquote(text).map(Kind::String)
                };
                (kind.ok_or_else(|| self.error("a quoted text has a wrong escape"))?, length)
            }
            '.' if !rest[1..].starts_with(|next: char| next.is_ascii_digit()) => {
                let name = word(&rest[1..]);
                let kind = if name.is_empty() { Kind::Dot } else { Kind::Field(name.into()) };
                (kind, self.terminated(1 + name.len(), rest)?)
            }
            '$' => {
                let length = 1 + word(&rest[1..]).len();
                (Kind::Variable(rest[..length].into()), self.terminated(length, rest)?)
            }
            '.' | '+' | '-' | '0'..='9' => {
                let length = literal::number_length(rest);
                let number = literal::number(&rest[..length]).map_err(|reason| self.error(reason))?;
                if rest[length..].starts_with(unicode::is_word) {
                    return Err(self.error("a number is followed by letters"));
                }
                (Kind::Number(number), length)
            }
            _ if unicode::is_word(first) => {
                let name = word(rest);
                (identifier(name), self.terminated(name.len(), rest)?)
            }
            _ if first.is_ascii_graphic() => (Kind::Other(first), 1),
            _ => return Err(self.error(format!("unexpected character {}", Name(&first.to_string())))),
        };
        self.push(kind);
        self.skip(length);
        Ok(())
    }

    /// A word ends at a space, at punctuation that Go expects there, or at the end of the action.
    fn terminated(&self, length: usize, rest: &str) -> Result<usize, Error> {
        match rest[length..].chars().next() {
            None | Some(' ' | '\t' | '\r' | '\n' | '.' | ',' | '|' | ':' | ')' | '(') => Ok(length),
            Some(_) if rest[length..].starts_with("}}") => Ok(length),
            Some(char) => Err(self.error(format!("unexpected {} after a name", Name(&char.to_string())))),
        }
    }

    fn rest(&self) -> &'t str {
        &self.text[self.at..]
    }

    fn skip(&mut self, length: usize) {
        self.line += self.text[self.at..self.at + length].bytes().filter(|byte| *byte == b'\n').count();
        self.at += length;
    }

    fn push(&mut self, kind: Kind) {
        self.tokens.push(Token { kind, line: self.line });
    }

    fn error(&self, reason: impl Into<String>) -> Error {
        Error::new(self.line, ErrorKind::Syntax, reason)
    }
}

/// For an action that begins with `{{`: whether the white space before the action is removed, and whether the action is
/// a comment.
fn opening(text: &str) -> (bool, bool) {
    let after = text.get(2..).unwrap_or_default();
    match after.strip_prefix('-').filter(|after| after.starts_with(SPACE)) {
        Some(dashed) => (true, dashed[1..].starts_with("/*")),
        None => (false, after.starts_with("/*")),
    }
}

/// The length of the end of an action at this position (0 if there is none), and whether the white space after the
/// action is removed.
fn closing(text: &str) -> (usize, bool) {
    if text.starts_with("}}") {
        (2, false)
    } else if text.starts_with(SPACE) && text[1..].starts_with("-}}") {
        (4, true)
    } else {
        (0, false)
    }
}

fn word(text: &str) -> &str {
    &text[..text.find(|char| !unicode::is_word(char)).unwrap_or(text.len())]
}

fn identifier(name: &str) -> Kind {
    let keyword = match name {
        "true" => return Kind::Bool(true),
        "false" => return Kind::Bool(false),
        "nil" => return Kind::Nil,
        "block" => Keyword::Block,
        "break" => Keyword::Break,
        "continue" => Keyword::Continue,
        "define" => Keyword::Define,
        "else" => Keyword::Else,
        "end" => Keyword::End,
        "if" => Keyword::If,
        "range" => Keyword::Range,
        "template" => Keyword::Template,
        "with" => Keyword::With,
        _ => return Kind::Identifier(name.into()),
    };
    Kind::Keyword(keyword)
}
