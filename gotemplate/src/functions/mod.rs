//! The functions that templates can call: Go's own and those of sprig, with the types that Go declares for them.

mod builtin;
mod cast;
mod defaults;
mod dicts;
mod digests;
mod encoding;
mod json;
mod lists;
mod numbers;
mod paths;
mod regexes;
mod strings;
mod words;

pub(crate) use self::regexes::Expression;
use crate::{
    error::Failure,
    value::{List, Map, Memory, Value},
};

/// A function and how it is called.
pub(crate) struct Function {
    pub(crate) name: &'static str,
    pub(crate) parameters: &'static [Parameter],
    /// The type of further arguments, if the function takes any number of them.
    pub(crate) rest: Option<Parameter>,
    pub(crate) special: Special,
    pub(crate) run: Run,
}

/// What a function does. The types of its arguments were checked before.
type Run = fn(&mut Memory, &[Value]) -> Outcome;
type Outcome = Result<Value, Failure>;

/// The type of an argument.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Parameter {
    /// `interface {}`
    Any,
    /// `reflect.Value`: any type. A missing value is passed on as missing, and does not become nil as for `Any`.
    Reflect,
    Text,
    /// `int`, no other integer type.
    Int,
    Float,
    Bool,
    /// `map[string]interface {}`
    Map,
}

impl Parameter {
    pub(crate) fn type_name(self) -> &'static str {
        match self {
            Self::Any | Self::Reflect => "value",
            Self::Text => "string",
            Self::Int => "int",
            Self::Float => "float64",
            Self::Bool => "bool",
            Self::Map => "map[string]interface {}",
        }
    }
}

/// Functions that the executor implements itself.
#[derive(Clone, Copy, Eq, PartialEq)]
pub(crate) enum Special {
    No,
    /// `or` (true) and `and` (false) evaluate no more arguments than they need.
    Or(bool),
    /// `fail`: the error shows its text only if the text is a literal in the template, which everybody can read.
    Fail,
}

use Parameter::{Any, Bool, Float, Int, Map as Dict, Reflect, Text};

const fn function(name: &'static str, parameters: &'static [Parameter], run: Run) -> Function {
    Function { name, parameters, rest: None, special: Special::No, run }
}

const fn variadic(name: &'static str, parameters: &'static [Parameter], rest: Parameter, run: Run) -> Function {
    Function { name, parameters, rest: Some(rest), special: Special::No, run }
}

/// What is known about the name of a function.
pub(crate) enum Known {
    Function(&'static Function),
    /// The function is not supported, for this reason.
    Unsupported(&'static str),
    No,
}

const ALL: &[&[Function]] = &[
    builtin::FUNCTIONS,
    defaults::FUNCTIONS,
    dicts::FUNCTIONS,
    digests::FUNCTIONS,
    encoding::FUNCTIONS,
    json::FUNCTIONS,
    lists::FUNCTIONS,
    numbers::FUNCTIONS,
    paths::FUNCTIONS,
    regexes::FUNCTIONS,
    strings::FUNCTIONS,
    words::FUNCTIONS,
];

const CHANGES: &str =
    "it gives another result each time, so the Secret would change again and again; create the value once and seal it";
const RARE: &str = "compute the value before it is sealed";

/// Functions of sprig that are not supported, and why.
const UNSUPPORTED: &[(&[&str], &str)] = &[
    (
        &[
            "ago",
            "genCA",
            "genCAWithKey",
            "genPrivateKey",
            "genSelfSignedCert",
            "genSelfSignedCertWithKey",
            "genSignedCert",
            "genSignedCertWithKey",
            "now",
            "randAlpha",
            "randAlphaNum",
            "randAscii",
            "randBytes",
            "randInt",
            "randNumeric",
            "shuffle",
            "uuidv4",
            "encryptAES",
        ],
        CHANGES,
    ),
    (
        &[
            "buildCustomCert",
            "date",
            "dateInZone",
            "dateModify",
            "date_in_zone",
            "date_modify",
            "decryptAES",
            "derivePassword",
            "duration",
            "durationRound",
            "hello",
            "htmlDate",
            "htmlDateInZone",
            "mustDateModify",
            "mustToDate",
            "must_date_modify",
            "semver",
            "semverCompare",
            "toDate",
            "unixEpoch",
            "urlJoin",
            "urlParse",
        ],
        RARE,
    ),
    (&["env", "expandenv", "getHostByName"], "Sealed Secrets does not offer it either"),
];

pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    ALL.iter().flat_map(|module| module.iter()).map(|function| function.name)
}

pub(crate) fn find(name: &str) -> Known {
    if let Some(function) = ALL.iter().flat_map(|module| module.iter()).find(|function| function.name == name) {
        return Known::Function(function);
    }
    match UNSUPPORTED.iter().find(|(names, _)| names.contains(&name)) {
        Some((_, why)) => Known::Unsupported(why),
        None => Known::No,
    }
}

const CHECKED: &str = "arguments have the declared types";

fn text(arguments: &[Value], at: usize) -> &[u8] {
    match &arguments[at] {
        Value::Text(text) => text,
        _ => unreachable!("{CHECKED}"),
    }
}

fn int(arguments: &[Value], at: usize) -> i64 {
    match &arguments[at] {
        Value::Int(_, int) => *int,
        _ => unreachable!("{CHECKED}"),
    }
}

fn dict(arguments: &[Value], at: usize) -> Map {
    match &arguments[at] {
        Value::Map(map) => *map,
        _ => unreachable!("{CHECKED}"),
    }
}

/// A list with any type of elements, because Go checks only that the argument is a list.
fn list(arguments: &[Value], at: usize) -> Result<&List, Failure> {
    match &arguments[at] {
        Value::List(list) => Ok(list),
        other => Err(format!("an argument is {}, not a list", other.type_name()).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_has_one_meaning() {
        let mut names: Vec<_> =
            names().chain(UNSUPPORTED.iter().flat_map(|(names, _)| names.iter().copied())).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
