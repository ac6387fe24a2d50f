//! Styles for text. A name or a message that is printed cannot forge these styles.
//!
//! A styled text is combined with texts of others before it is printed. If a style were a terminal command from the
//! start, it could not be distinguished from a command in a text of others. So a style is a mark with a random number
//! that each process chooses. The mark is replaced by the command only after everything else was escaped.

use std::{
    fmt,
    hash::{BuildHasher, RandomState},
    sync::LazyLock,
};

use anstyle::AnsiColor;
use manifests::in_lines;

/// How a text looks. It is used as `{style}text{style:#}`, or with [`styled`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Style {
    /// Like normal text.
    Plain,
    /// See [`BAD`].
    Bad,
    /// See [`GOOD`].
    Good,
    /// See [`WARN`].
    Warn,
    /// See [`STRONG`].
    Strong,
    /// See [`FAINT`].
    Faint,
}

/// Something is wrong.
pub const BAD: Style = Style::Bad;
/// Something is as it should be.
pub const GOOD: Style = Style::Good;
/// Something deserves a look.
pub const WARN: Style = Style::Warn;
/// A heading.
pub const STRONG: Style = Style::Strong;
/// Less important than the rest.
pub const FAINT: Style = Style::Faint;

const ALL: [(Style, char); 6] =
    [(Style::Plain, 'p'), (BAD, 'b'), (GOOD, 'g'), (WARN, 'w'), (STRONG, 's'), (FAINT, 'f')];
/// Ends any style.
const END: char = '-';

/// `text` in a style.
pub fn styled(style: Style, text: impl fmt::Display) -> String {
    format!("{style}{text}{style:#}")
}

/// A line of a unified diff, in the style that belongs to its first character.
pub fn diff_line(line: &str) -> String {
    let style = match line.as_bytes().first() {
        Some(b'+') => GOOD,
        Some(b'-') => BAD,
        Some(b'@') => FAINT,
        _ => Style::Plain,
    };
    styled(style, line)
}

/// The start of every mark: a character that is in no text, and a random number that others cannot know.
static MARK: LazyLock<String> = LazyLock::new(|| format!("\u{fdd0}{:016x}", RandomState::new().hash_one(())));

impl fmt::Display for Style {
    /// Writes the beginning of the style or, with `#`, its end.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let code = ALL.iter().find(|(style, _)| style == self).map_or(END, |(_, code)| *code);
        write!(f, "{}{}", *MARK, if f.alternate() { END } else { code })
    }
}

impl Style {
    fn command(self) -> anstyle::Style {
        match self {
            Self::Plain => anstyle::Style::new(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Strong => anstyle::Style::new().bold(),
            Self::Faint => anstyle::Style::new().dimmed(),
        }
    }
}

/// A text for a terminal: styles become commands, and all other commands are escaped.
pub(super) fn for_terminal(text: &str) -> String {
    rendered(text, |shown, style| match style {
        Some(style) => shown.push_str(&style.command().render().to_string()),
        None => shown.push_str(&anstyle::Reset.render().to_string()),
    })
}

/// A text without its styles, escaped.
pub fn plain(text: &str) -> String {
    rendered(text, |_, _| ())
}

/// Escapes everything except the marks, for each of which it calls `put`.
fn rendered(text: &str, put: impl Fn(&mut String, Option<Style>)) -> String {
    let mut parts = text.split(MARK.as_str());
    let mut shown = parts.next().map(in_lines).unwrap_or_default().into_owned();
    for part in parts {
        let mut rest = part.chars();
        let code = rest.next();
        put(&mut shown, ALL.iter().find(|(_, of_style)| Some(*of_style) == code).map(|(style, _)| *style));
        shown.push_str(&in_lines(rest.as_str()));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_own_styles_reach_the_terminal() {
        let hostile = "\u{1b}[31mred\u{1b}[2J\u{9b}2J\r\u{202e}\u{fdd0}0123456789abcdefb";
        let shown = for_terminal(&format!("{} {BAD}x{BAD:#}\n\ty", styled(GOOD, hostile)));
        assert_eq!(
            shown,
            "\u{1b}[32m\\u{1b}[31mred\\u{1b}[2J\\u{9b}2J\\r\\u{202e}\u{fdd0}0123456789abcdefb\u{1b}[0m \u{1b}[1m\u{1b}[31mx\u{1b}[0m\n\ty"
        );
        assert_eq!(plain(&styled(WARN, "a\u{1b}")), "a\\u{1b}");
    }
}
