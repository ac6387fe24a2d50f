use std::collections::HashSet;

use serde_json::{Map, Value};

/// Why `<<` cannot be applied.
pub(super) enum Merge {
    /// The value of `<<` is neither a mapping nor a sequence of mappings.
    NotMappings,
    /// The `<<` would change this key, which precedes it in the mapping.
    Overrides(String),
}

/// Applies `<<`: adds each key that the mapping itself does not have, with the value of the first source that has the
/// key.
pub(super) fn merge(map: &mut Map<String, Value>, merged: &mut HashSet<String>, source: Value) -> Result<(), Merge> {
    let sources = match source {
        Value::Object(source) => vec![Value::Object(source)],
        Value::Array(sources) => sources,
        _ => return Err(Merge::NotMappings),
    };
    for source in sources {
        let Value::Object(source) = source else {
            return Err(Merge::NotMappings);
        };
        for (key, value) in source {
            match map.get(&key) {
                None => {
                    merged.insert(key.clone());
                    map.insert(key, value);
                }
                Some(_) if merged.contains(&key) => {}
                Some(own) if *own == value => {}
                Some(_) => return Err(Merge::Overrides(key)),
            }
        }
    }
    Ok(())
}
