use std::fmt::Write as _;

use super::table::{FLAGS, Flag, Kind};

/// The list of flags, as kubeseal lays it out.
pub(in crate::kubeseal) fn help() -> String {
    let shown: Vec<(&Flag, String)> =
        FLAGS.iter().filter(|flag| flag.deprecated_for.is_none()).map(|flag| (flag, start(flag))).collect();
    let width = shown.iter().map(|(_, start)| start.len()).max().unwrap_or_default();
    let mut text = String::new();
    for (flag, start) in shown {
        let default = match flag.kind {
            _ if flag.default.is_empty() => String::new(),
            _ => format!(" (default {:?})", flag.default),
        };
        let _ = writeln!(text, "{start:width$}   {}{default}", flag.help); // writing to a String cannot fail
    }
    text
}

fn start(flag: &Flag) -> String {
    let short = flag.short.map_or_else(|| "      ".to_owned(), |short| format!("  -{short}, "));
    match flag.kind {
        Kind::Switch => format!("{short}--{}", flag.name),
        _ => format!("{short}--{} {}", flag.name, flag.value),
    }
}
