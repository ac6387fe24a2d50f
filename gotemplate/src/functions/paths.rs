//! sprig: paths with slashes. On Linux, the functions whose names begin with `os` do the same.

use super::{Function, Memory, Outcome, Text, Value, function, text};

pub(super) const FUNCTIONS: &[Function] = &[
    function("base", &[Text], base),
    function("osBase", &[Text], base),
    function("dir", &[Text], dir),
    function("osDir", &[Text], dir),
    function("ext", &[Text], ext),
    function("osExt", &[Text], ext),
    function("clean", &[Text], |memory, arguments| memory.copied(&cleaned(text(arguments, 0)))),
    function("osClean", &[Text], |memory, arguments| memory.copied(&cleaned(text(arguments, 0)))),
    function("isAbs", &[Text], |_, arguments| Ok(Value::Bool(text(arguments, 0).starts_with(b"/")))),
    function("osIsAbs", &[Text], |_, arguments| Ok(Value::Bool(text(arguments, 0).starts_with(b"/")))),
];

fn base(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let path = text(arguments, 0);
    let end = path.iter().rposition(|byte| *byte != b'/').map_or(0, |last| last + 1);
    let start = path[..end].iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    memory.copied(match &path[start..end] {
        [] if path.is_empty() => b".",
        [] => b"/",
        name => name,
    })
}

fn dir(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let path = text(arguments, 0);
    let end = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    memory.copied(&cleaned(&path[..end]))
}

fn ext(memory: &mut Memory, arguments: &[Value]) -> Outcome {
    let path = text(arguments, 0);
    let name = path.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let dot = path[name..].iter().rposition(|byte| *byte == b'.').map_or(path.len(), |dot| name + dot);
    memory.copied(&path[dot..])
}

/// The path without `.`, `..` and double slashes. Only the text of the path is used, not the file system.
fn cleaned(path: &[u8]) -> zeroize::Zeroizing<Vec<u8>> {
    let rooted = path.starts_with(b"/");
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|byte| *byte == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => drop(parts.pop()),
            b".." if rooted => {}
            part => parts.push(part),
        }
    }
    // The result is never longer than the path, except for the dot of an empty path.
    let mut clean = zeroize::Zeroizing::new(Vec::with_capacity(path.len() + 1));
    clean.extend_from_slice(if rooted { b"/" } else { b"" });
    for (index, part) in parts.iter().enumerate() {
        clean.extend_from_slice(if index > 0 { b"/" } else { b"" });
        clean.extend_from_slice(part);
    }
    if clean.is_empty() {
        clean.push(b'.');
    }
    clean
}
