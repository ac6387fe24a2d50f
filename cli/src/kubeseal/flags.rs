//! kubeseal's flags: the table, and the rules for reading them.
//!
//! The rules are those of kubeseal's flag library (pflag), which differ from clap's: `-n=shop` is `-n shop`,
//! `--raw=false` is allowed and `--raw false` is not, `-v` takes a value, arguments that are not flags are ignored.
//! Each flag can also be set in the environment, by `SEALED_SECRETS_` and its name; the command line wins.

mod help;
mod table;

use std::collections::BTreeMap;

pub(super) use self::help::help;
use self::table::{FLAGS, Flag, Kind};

/// Why a run ends after its command line was read.
#[derive(Debug, PartialEq)]
pub(super) enum Stop {
    /// `-h`.
    Help,
    /// A wrong flag or value, with the whole message for the user.
    Wrong(String),
}

/// The flags of one run.
#[derive(Debug, Default)]
pub(super) struct Flags {
    values: BTreeMap<&'static str, Vec<String>>,
    /// Notes about deprecated flags.
    pub(super) notes: Vec<String>,
}

impl Flags {
    /// Reads the environment and then the arguments, without the program's name.
    pub(super) fn read(
        arguments: impl IntoIterator<Item = String>,
        environment: impl Fn(&str) -> Option<String>,
    ) -> Result<Self, Stop> {
        let mut flags = Self::default();
        for flag in FLAGS.iter().filter(|flag| !flag.is_for_logs) {
            let name = format!("SEALED_SECRETS_{}", flag.name.to_ascii_uppercase().replace('-', "_"));
            if let Some(value) = environment(&name) {
                // As in kubeseal, a value in the environment that is not valid for its flag is ignored.
                let _ = flags.set(flag, &value);
            }
        }
        flags.notes.clear();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            if argument == "--" {
                break;
            } else if let Some(long) = argument.strip_prefix("--") {
                flags.read_long(long, &argument, &mut arguments)?;
            } else if let Some(shorts) = argument.strip_prefix('-').filter(|shorts| !shorts.is_empty()) {
                flags.read_shorts(shorts, &mut arguments)?;
            }
        }
        Ok(flags)
    }

    /// Whether a switch is on.
    pub(super) fn is_on(&self, name: &str) -> bool {
        self.text(name) == "true"
    }

    /// The value of a flag, or its default.
    pub(super) fn text(&self, name: &str) -> &str {
        let given = self.values.get(name).and_then(|values| values.last());
        given.map_or_else(|| table::default_of(name), String::as_str)
    }

    /// The value of a flag; `None` if the value is empty.
    pub(super) fn filled(&self, name: &str) -> Option<&str> {
        Some(self.text(name)).filter(|text| !text.is_empty())
    }

    /// All values of a flag that can be given several times.
    pub(super) fn list(&self, name: &str) -> &[String] {
        self.values.get(name).map(Vec::as_slice).unwrap_or_default()
    }

    fn read_long(&mut self, long: &str, argument: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), Stop> {
        if long.starts_with(['-', '=']) {
            return Err(Stop::Wrong(format!("bad flag syntax: {argument}")));
        }
        let (name, value) = match long.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (long, None),
        };
        let flag = FLAGS.iter().find(|flag| flag.name == name);
        let flag = flag.ok_or_else(|| Stop::Wrong(format!("unknown flag: --{name}")))?;
        let value = match value {
            Some(value) => value,
            None if flag.kind == Kind::Switch => "true".to_owned(),
            None => rest.next().ok_or_else(|| Stop::Wrong(format!("flag needs an argument: --{name}")))?,
        };
        self.set(flag, &value)
    }

    /// Reads one or several flags that are given by their letters. The last letter may be followed by its value.
    fn read_shorts(&mut self, shorts: &str, rest: &mut impl Iterator<Item = String>) -> Result<(), Stop> {
        let mut left = shorts;
        while let Some(letter) = left.chars().next() {
            let after = &left[letter.len_utf8()..];
            let Some(flag) = FLAGS.iter().find(|flag| flag.short == Some(letter)) else {
                return Err(match letter {
                    'h' => Stop::Help,
                    _ => Stop::Wrong(format!("unknown shorthand flag: {letter:?} in -{left}")),
                });
            };
            // No flag that has a letter is a switch, so each takes the text that follows as its value.
            let value = match after.strip_prefix('=').filter(|value| !value.is_empty()) {
                Some(value) => value.to_owned(),
                None if !after.is_empty() => after.to_owned(),
                None => {
                    let missing = || Stop::Wrong(format!("flag needs an argument: {letter:?} in -{left}"));
                    rest.next().ok_or_else(missing)?
                }
            };
            self.set(flag, &value)?;
            left = "";
        }
        Ok(())
    }

    fn set(&mut self, flag: &'static Flag, value: &str) -> Result<(), Stop> {
        let refuse = |why: String| {
            let name = match flag.short {
                Some(short) => format!("-{short}, --{}", flag.name),
                None => format!("--{}", flag.name),
            };
            Stop::Wrong(format!("invalid argument {value:?} for {name:?} flag: {why}"))
        };
        let read = flag.kind.read(value).map_err(refuse)?;
        if let Some(instead) = flag.deprecated_for {
            self.notes.push(format!("Flag --{} has been deprecated, please use --{instead} instead", flag.name));
        }
        let values = self.values.entry(flag.deprecated_for.unwrap_or(flag.name)).or_default();
        if !matches!(flag.kind, Kind::List | Kind::Repeated) {
            values.clear();
        }
        values.extend(read);
        Ok(())
    }
}

#[cfg(test)]
mod tests;
