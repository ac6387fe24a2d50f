//! The comparison as text for people.

use std::fmt::Write;

use manifests::in_one_line;
use serde_json::Value;
use similar::TextDiff;

use super::{
    Entry,
    compare::{KeyChange, Outcome},
};
use crate::output::{self, BAD, FAINT, GOOD, Style, WARN, diff_line, styled};

/// A unified diff of two objects as YAML; empty if they are equal.
pub fn unified(live: &Value, applied: &Value) -> String {
    let yaml = |value: &Value| serde_saphyr::to_string(value).expect("JSON serialises to YAML");
    let (live, applied) = (yaml(live), yaml(applied));
    TextDiff::from_lines(&live, &applied).unified_diff().context_radius(3).to_string()
}

/// One paragraph for each object that would change, and a summary.
pub fn report(entries: &[Entry]) -> String {
    let mut text = String::new();
    for entry in entries {
        write_entry(&mut text, entry).expect("text grows");
    }
    let count =
        |wanted: fn(&Outcome) -> bool| entries.iter().filter(|entry| entry.outcome.as_ref().is_ok_and(wanted)).count();
    let counts = [
        (count(|o| matches!(o, Outcome::Created { .. })), "would be created"),
        (count(|o| matches!(o, Outcome::Changed { .. })), "would be changed"),
        (count(|o| matches!(o, Outcome::Unsealed)), "would be unsealed again"),
        (count(|o| matches!(o, Outcome::Replaced(_))), "would be replaced"),
        (count(|o| matches!(o, Outcome::Pruned)), "would be pruned"),
        (count(|o| matches!(o, Outcome::Unconfirmed)), "would be pruned after a confirmation"),
        (count(|o| matches!(o, Outcome::Moved(_))), "would be handed over"),
        (count(|o| matches!(o, Outcome::Held(_))), "held back"),
        (count(|o| matches!(o, Outcome::Kept(_))), "kept"),
        (count(|o| matches!(o, Outcome::Unchanged)), "unchanged"),
        (entries.iter().filter(|entry| entry.outcome.is_err()).count(), "failed"),
    ];
    let counts: Vec<_> =
        counts.iter().filter(|(count, _)| *count > 0).map(|(count, what)| format!("{count} {what}")).collect();
    text.push_str(&counts.join(", "));
    text.push('\n');
    text
}

fn write_entry(text: &mut String, entry: &Entry) -> std::fmt::Result {
    let origin = if entry.origin.is_empty() { String::new() } else { format!("  {}", styled(FAINT, &entry.origin)) };
    let mut heading = |style: Style, what: &str| writeln!(text, "{} {}{origin}", styled(style, what), entry.id);
    match &entry.outcome {
        Ok(Outcome::Unchanged) => Ok(()),
        Ok(Outcome::Pruned) => heading(BAD, "would be pruned"),
        Ok(Outcome::Unsealed) => heading(WARN, "would be unsealed again"),
        Ok(Outcome::Replaced(what)) => {
            heading(WARN, &format!("would be deleted and made again, because {what} cannot be changed in place:"))
        }
        Ok(Outcome::Unconfirmed) => heading(WARN, "would be pruned after somebody confirms it:"),
        Ok(Outcome::Moved(to)) => heading(WARN, &format!("would be handed over to Sync {to}:")),
        Ok(Outcome::Held(why)) => heading(BAD, &format!("held back, because {}:", in_one_line(why))),
        Ok(Outcome::Kept(why)) => heading(FAINT, &format!("kept, because {why}:")),
        Ok(Outcome::Created { keys }) => {
            heading(GOOD, "would be created")?;
            keys.iter().try_for_each(|key| write_key(text, key, KeyChange::Added))
        }
        Ok(Outcome::Changed { diff, keys }) => {
            heading(WARN, "would be changed")?;
            diff.lines().try_for_each(|line| writeln!(text, "{}", diff_line(line)))?;
            keys.iter().try_for_each(|(key, change)| write_key(text, key, *change))
        }
        Err(error) => {
            heading(BAD, "failed")?;
            writeln!(text, "  {}", in_one_line(&output::one_line(error)))
        }
    }
}

fn write_key(text: &mut String, key: &str, change: KeyChange) -> std::fmt::Result {
    let style = match change {
        KeyChange::Added => GOOD,
        KeyChange::Removed => BAD,
        KeyChange::Changed => WARN,
    };
    writeln!(text, "  {key}: {}", styled(style, change.name()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use manifests::ObjectId;
    use serde_json::json;
    use std::collections::BTreeMap;

    fn entry(name: &str, outcome: anyhow::Result<Outcome>) -> Entry {
        let id =
            ObjectId { group: String::new(), kind: "Secret".into(), namespace: Some("team".into()), name: name.into() };
        Entry { id, origin: format!("{name}.yaml:1"), outcome }
    }

    #[test]
    fn a_report_shows_what_differs_and_counts_the_rest() {
        let diff = unified(&json!({"a": 1, "b": 2}), &json!({"a": 1, "b": 3}));
        let keys = BTreeMap::from([("data.password".to_owned(), KeyChange::Changed)]);
        let text = report(&[
            entry("same", Ok(Outcome::Unchanged)),
            entry("new", Ok(Outcome::Created { keys: vec!["data.a".into()] })),
            entry("db", Ok(Outcome::Changed { diff, keys })),
            entry("bad", Err(anyhow::anyhow!("no").context("the dry run failed"))),
        ]);
        let expected = "\
would be created Secret team/new  new.yaml:1
  data.a: added
would be changed Secret team/db  db.yaml:1
@@ -1,2 +1,2 @@
 a: 1
-b: 2
+b: 3
  data.password: changed
failed Secret team/bad  bad.yaml:1
  the dry run failed: no
1 would be created, 1 would be changed, 1 unchanged, 1 failed
";
        assert_eq!(crate::output::plain(&text), expected);
    }
}
