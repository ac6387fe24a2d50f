//! Converts Go's regular expressions to the syntax of the crate `regex`.
//!
//! Both syntaxes are based on RE2. The differences: in Go, `\d`, `\w`, `\s` and `\b` are ASCII, brackets inside
//! brackets have no meaning, `{` without numbers is a character, and `\Q…\E` and octal escapes exist. In Go, classes of
//! characters cannot be subtracted or intersected.

use std::{iter::Peekable, str::Chars};

use crate::error::Failure;

pub(crate) fn translated(pattern: &str) -> Result<String, Failure> {
    let mut translator = Translator { rest: pattern.chars().peekable(), out: String::with_capacity(pattern.len() * 2) };
    translator.run()?;
    Ok(translator.out)
}

struct Translator<'p> {
    rest: Peekable<Chars<'p>>,
    out: String,
}

/// The highest count of repetitions, as in `a{1000}`. Go refuses higher counts, too.
const REPETITIONS: u32 = 1000;

const POSIX: [&str; 14] = [
    "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space", "upper", "word",
    "xdigit",
];

impl Translator<'_> {
    fn run(&mut self) -> Result<(), Failure> {
        let mut repeated = false;
        while let Some(char) = self.rest.next() {
            let operator = match char {
                '*' | '+' | '?' => Some(char.to_string()),
                '{' => self.repetition()?,
                _ => None,
            };
            if let Some(operator) = operator {
                if repeated {
                    return Err("a repetition is repeated".into());
                }
                self.out.push_str(&operator);
                if self.rest.next_if_eq(&'?').is_some() {
                    self.out.push('?');
                }
                repeated = true;
                continue;
            }
            repeated = false;
            match char {
                '{' => self.out.push_str(r"\{"),
                '}' => self.out.push_str(r"\}"),
                '[' => self.class()?,
                '(' => self.group()?,
                '\\' => self.escape()?,
                char => self.out.push(char),
            }
        }
        Ok(())
    }

    /// Reads `{2}`, `{2,}` or `{2,3}` after the opening brace; `None` for anything else, which is not a repetition.
    fn repetition(&mut self) -> Result<Option<String>, Failure> {
        let ahead: String = self.rest.clone().take_while(|char| *char != '}').take(12).collect();
        let closed = self.rest.clone().nth(ahead.chars().count()) == Some('}');
        let (least, most) = ahead.split_once(',').unwrap_or((&ahead, &ahead));
        let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !closed || !number(least) || !(most.is_empty() || number(most)) {
            return Ok(None);
        }
        let count = |text: &str| text.parse::<u32>().ok().filter(|count| *count <= REPETITIONS);
        let (Some(from), Some(to)) = (count(least), if most.is_empty() { Some(REPETITIONS) } else { count(most) })
        else {
            return Err("the count of a repetition is too large".into());
        };
        if from > to {
            return Err("the highest count of a repetition is below the lowest".into());
        }
        for _ in 0..=ahead.chars().count() {
            self.rest.next();
        }
        Ok(Some(format!("{{{ahead}}}")))
    }

    /// Converts the beginning of a group, after its `(`.
    fn group(&mut self) -> Result<(), Failure> {
        self.out.push('(');
        if self.rest.next_if_eq(&'?').is_none() {
            return Ok(());
        }
        self.out.push('?');
        match self.rest.peek() {
            Some('P' | '<') => {}
            _ => {
                while let Some(flag) = self.rest.next_if(|char| !matches!(char, ':' | ')')) {
                    if !"imsU-".contains(flag) {
                        return Err("a group has a flag that Go does not know".into());
                    }
                    self.out.push(flag);
                }
            }
        }
        Ok(())
    }

    /// Converts an escape outside of brackets, after its backslash.
    fn escape(&mut self) -> Result<(), Failure> {
        match self.rest.peek() {
            Some('Q') => {
                self.rest.next();
                while let Some(char) = self.rest.next() {
                    if char == '\\' && self.rest.next_if_eq(&'E').is_some() {
                        break;
                    }
                    self.literal(char);
                }
            }
            // The end of a quotation (`\E`) without its start (`\Q`) has no meaning.
            Some('E') => drop(self.rest.next()),
            Some('b') => {
                self.rest.next();
                self.out.push_str(r"(?-u:\b)");
            }
            Some('B') => return Err(r"\B is not supported".into()),
            Some('A' | 'z') => {
                self.out.push('\\');
                self.out.extend(self.rest.next());
            }
            _ => match self.class_escape()? {
                Escape::Class(class) => {
                    self.out.push('[');
                    self.out.push_str(&class);
                    self.out.push(']');
                }
                Escape::Char(char) => self.literal(char),
            },
        }
        Ok(())
    }

    /// Converts an escape that has the same meaning inside and outside of brackets, after its backslash.
    fn class_escape(&mut self) -> Result<Escape, Failure> {
        let char = self.rest.next().ok_or("the expression ends with a backslash")?;
        let class = |text: &str| Ok(Escape::Class(text.to_owned()));
        match char {
            'd' => class("0-9"),
            'D' => class("[^0-9]"),
            'w' => class("0-9A-Za-z_"),
            'W' => class("[^0-9A-Za-z_]"),
            's' => class(r"\t\n\x0c\r\x20"),
            'S' => class(r"[^\t\n\x0c\r\x20]"),
            'p' | 'P' => self.unicode_class(char).map(Escape::Class),
            'a' => Ok(Escape::Char('\u{7}')),
            'f' => Ok(Escape::Char('\u{c}')),
            'n' => Ok(Escape::Char('\n')),
            'r' => Ok(Escape::Char('\r')),
            't' => Ok(Escape::Char('\t')),
            'v' => Ok(Escape::Char('\u{b}')),
            'x' => self.hexadecimal().map(Escape::Char),
            '0'..='7' => self.octal(char).map(Escape::Char),
            _ if char.is_ascii() && !char.is_ascii_alphanumeric() => Ok(Escape::Char(char)),
            _ => Err("an escape is unknown".into()),
        }
    }

    fn unicode_class(&mut self, letter: char) -> Result<String, Failure> {
        let first = self.rest.next().ok_or("the name of a character class is missing")?;
        if first != '{' {
            return Ok(format!("\\{letter}{{{first}}}"));
        }
        let mut name = String::new();
        loop {
            match self.rest.next().ok_or("the name of a character class has no end")? {
                '}' => {
                    let Some(other) = name.strip_prefix('^') else { return Ok(format!("\\{letter}{{{name}}}")) };
                    let opposite = if letter == 'p' { 'P' } else { 'p' };
                    return Ok(format!("\\{opposite}{{{other}}}"));
                }
                char if char.is_ascii_alphanumeric() || char == '_' || char == '^' => name.push(char),
                _ => return Err("the name of a character class is malformed".into()),
            }
        }
    }

    fn hexadecimal(&mut self) -> Result<char, Failure> {
        let mut digits = String::new();
        if self.rest.next_if_eq(&'{').is_some() {
            while let Some(digit) = self.rest.next_if(char::is_ascii_hexdigit) {
                digits.push(digit);
            }
            self.rest.next_if_eq(&'}').ok_or("an escape is malformed")?;
        } else {
            digits.extend(self.rest.next());
            digits.extend(self.rest.next());
            if digits.chars().count() != 2 || !digits.chars().all(|digit| digit.is_ascii_hexdigit()) {
                return Err("an escape is malformed".into());
            }
        }
        let code = u32::from_str_radix(&digits, 16).ok().and_then(char::from_u32);
        code.ok_or_else(|| "an escape is malformed".into())
    }

    fn octal(&mut self, first: char) -> Result<char, Failure> {
        // A single digit would be a reference to a group, which is not supported.
        if first != '0' && !self.rest.peek().is_some_and(|next| next.is_digit(8)) {
            return Err("Go's regular expressions have no references to groups".into());
        }
        let mut code = first.to_digit(8).unwrap_or(0);
        for _ in 0..2 {
            if let Some(digit) = self.rest.next_if(|char| char.is_digit(8)) {
                code = code * 8 + digit.to_digit(8).unwrap_or(0);
            }
        }
        char::from_u32(code).ok_or_else(|| "an escape is malformed".into())
    }

    /// Converts a class in brackets, after its `[`.
    fn class(&mut self) -> Result<(), Failure> {
        self.out.push('[');
        if self.rest.next_if_eq(&'^').is_some() {
            self.out.push('^');
        }
        let mut first = true;
        loop {
            let char = self.rest.next().ok_or("a bracket is not closed")?;
            if char == ']' && !first {
                break;
            }
            first = false;
            if char == '['
                && self.rest.peek() == Some(&':')
                && let Some(class) = self.posix()?
            {
                self.out.push_str(&class);
                continue;
            }
            let low = match self.class_char(char)? {
                Escape::Class(class) => {
                    self.out.push_str(&class);
                    continue;
                }
                Escape::Char(char) => char,
            };
            self.literal(low);
            let mut ahead = self.rest.clone();
            if ahead.next() == Some('-') && ahead.next().is_some_and(|next| next != ']') {
                self.rest.next();
                let char = self.rest.next().ok_or("a bracket is not closed")?;
                let Escape::Char(high) = self.class_char(char)? else {
                    return Err("a range in brackets must end with a character, not with a class of characters".into());
                };
                if low > high {
                    return Err("a range ends before it starts".into());
                }
                self.out.push('-');
                self.literal(high);
            }
        }
        self.out.push(']');
        Ok(())
    }

    fn class_char(&mut self, char: char) -> Result<Escape, Failure> {
        if char == '\\' { self.class_escape() } else { Ok(Escape::Char(char)) }
    }

    /// Reads a class such as `[:alpha:]` after its first bracket; `None` if the text there is no such class.
    fn posix(&mut self) -> Result<Option<String>, Failure> {
        let ahead: String = self.rest.clone().skip(1).collect();
        let Some(end) = ahead.find(":]") else { return Ok(None) };
        let name = &ahead[..end];
        if !POSIX.contains(&name.strip_prefix('^').unwrap_or(name)) {
            return Err("the name of a class of characters (as in [:alpha:]) is unknown".into());
        }
        for _ in 0..end + 3 {
            self.rest.next();
        }
        Ok(Some(format!("[:{name}:]")))
    }

    /// Writes a character so that it has no special meaning anywhere.
    fn literal(&mut self, char: char) {
        self.out.push_str(&format!("\\x{{{:x}}}", u32::from(char)));
    }
}

enum Escape {
    /// The content of brackets.
    Class(String),
    Char(char),
}
