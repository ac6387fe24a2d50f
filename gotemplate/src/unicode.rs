//! Classes of characters, as Go's package `unicode` has them.

use std::sync::LazyLock;

use regex::Regex;

macro_rules! classes {
    ($($(#[$doc:meta])* $name:ident: $pattern:literal;)*) => {
        $($(#[$doc])*
        pub(crate) fn $name(char: char) -> bool {
            static CLASS: LazyLock<Regex> =
                LazyLock::new(|| Regex::new(concat!("^", $pattern, "$")).expect("the pattern is valid"));
            CLASS.is_match(char.encode_utf8(&mut [0; 4]))
        })*
    };
}

classes! {
    letter: r"\pL";
    digit: r"\p{Nd}";
    number: r"\pN";
    punctuation: r"\pP";
    upper: r"\p{Lu}";
    lower: r"\p{Ll}";
    title: r"\p{Lt}";
    graphic: r"[\pL\pM\pN\pP\pS]";
}

/// Letters, digits and the underscore: the characters of names in templates.
pub(crate) fn is_word(char: char) -> bool {
    char == '_' || if char.is_ascii() { char.is_ascii_alphanumeric() } else { letter(char) || digit(char) }
}

/// `unicode.IsPrint`
pub(crate) fn is_print(char: char) -> bool {
    if char.is_ascii() { (' '..='~').contains(&char) } else { graphic(char) }
}

/// `unicode.IsSpace`
pub(crate) fn is_space(char: char) -> bool {
    char.is_whitespace()
}

/// `unicode.ToUpper`: the upper case of one character is always one character.
pub(crate) fn to_upper(char: char) -> char {
    single(char, char.to_uppercase())
}

/// `unicode.ToLower`
pub(crate) fn to_lower(char: char) -> char {
    if char == 'İ' { 'i' } else { single(char, char.to_lowercase()) }
}

/// `unicode.ToTitle`: upper case, except for four letters that have their own title case.
pub(crate) fn to_title(char: char) -> char {
    match char {
        'Ǆ'..='ǆ' => 'ǅ',
        'Ǉ'..='ǉ' => 'ǈ',
        'Ǌ'..='ǌ' => 'ǋ',
        'Ǳ'..='ǳ' => 'ǲ',
        _ => to_upper(char),
    }
}

fn single(char: char, mut mapped: impl Iterator<Item = char>) -> char {
    match (mapped.next(), mapped.next()) {
        (Some(mapped), None) => mapped,
        _ => char,
    }
}
