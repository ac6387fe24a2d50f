//! One line for each object. For an object that is not Ready, the whole reason is below it.

use std::fmt::Write;

use crds::{ConditionStatus, conditions, find_condition};
use jiff::Timestamp;
use kube::ResourceExt;

use super::{details::Details, drift::Drift};
use crate::{
    managed::{Managed, State, short_revision, with_short_revisions},
    output::{BAD, FAINT, GOOD, STRONG, Style, Table, WARN, styled},
    suspension::SuspendedBy,
    time,
};

/// The line of an object in the table.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Row {
    pub namespace: String,
    pub reference: String,
    ready: (&'static str, Style),
    revision: String,
    last_success: Option<(&'static str, String)>,
    message: String,
    suspended_by: Option<SuspendedBy>,
    /// Reason and message, if the object is not Ready.
    details: Option<String>,
    /// More about the object, if the user named it on the command line.
    about: String,
    /// The objects that were put back, newest first.
    drift: Vec<Drift>,
}

/// How many drifted objects of one Sync are shown.
const DRIFTS: usize = 5;

impl Row {
    pub fn of<K: Managed>(object: &K) -> Self {
        let ready = find_condition(object.conditions(), conditions::READY);
        let shown = match ready.map(|c| c.status) {
            Some(ConditionStatus::True) => ("True", GOOD),
            Some(ConditionStatus::False) => ("False", BAD),
            Some(ConditionStatus::Unknown) | None => ("Unknown", WARN),
        };
        let first_line = |text: &str| with_short_revisions(text.lines().next().unwrap_or_default());
        let (message, details) = match State::of(object) {
            State::Ready => (ready.map(|c| first_line(&c.message)).unwrap_or_default(), None),
            State::Suspended => match object.suspend_reason() {
                Some(reason) => (format!("suspended: {reason}"), None),
                None => ("suspended".into(), None),
            },
            State::Working { message } => (first_line(&message), None),
            State::Failed { reason, message, stalled } => {
                let next = if stalled { "waits until somebody corrects the cause" } else { "is tried again" };
                (format!("{reason}, {next}"), Some((reason, message)))
            }
        };
        Self {
            namespace: object.namespace().unwrap_or_default(),
            reference: object.reference(),
            ready: shown,
            revision: object.revision().map(short_revision).unwrap_or_default(),
            last_success: object.last_success().map(|(verb, at)| (verb, at.to_owned())),
            message,
            suspended_by: SuspendedBy::of(object),
            details: details.map(|(reason, message)| format!("{reason}: {}", message.trim_end())),
            about: String::new(),
            drift: Vec::new(),
        }
    }

    /// Also shows more about the object, because the user named it on the command line.
    pub fn with_details(mut self, details: &Details) -> Self {
        details.write(&mut self.about);
        self
    }

    /// Also shows the objects that drifted and were put back.
    pub fn with_drift(mut self, drift: &[Drift]) -> Self {
        self.drift = drift.to_vec();
        self
    }

    /// The line of an object that was deleted.
    pub fn deleted(mut self) -> Self {
        (self.ready, self.message, self.details) = (("-", FAINT), "deleted".into(), None);
        self.suspended_by = None;
        self
    }

    fn cells(&self, with_namespace: bool, now: Timestamp) -> Vec<String> {
        let last = self.last_success.as_ref().map_or_else(String::new, |(verb, at)| match at.parse::<Timestamp>() {
            Ok(at) => format!("{verb} {} ago", time::short(now.duration_since(at))),
            Err(_) => format!("{verb} {at}"),
        });
        let or_dash = |text: &str| {
            if text.is_empty() { styled(FAINT, "-") } else { text.to_owned() }
        };
        let mut cells = vec![
            self.reference.clone(),
            styled(self.ready.1, self.ready.0),
            or_dash(&self.revision),
            or_dash(&last),
            match &self.suspended_by {
                Some(by) => format!("{} ({})", self.message, by.told(now)),
                None => self.message.clone(),
            },
        ];
        if with_namespace {
            cells.insert(0, self.namespace.clone());
        }
        cells
    }

    fn write_details(&self, out: &mut String, now: Timestamp) {
        for line in self.details.iter().flat_map(|details| details.lines()) {
            writeln!(out, "    {}", styled(self.ready.1, line)).expect("text grows");
        }
        out.push_str(&self.about);
        for Drift { at, what } in self.drift.iter().take(DRIFTS) {
            let text = format!("drifted {} ago: {what}", time::short(now.duration_since(*at)));
            writeln!(out, "    {}", styled(WARN, &text)).expect("text grows");
        }
        if self.drift.len() > DRIFTS {
            let more = format!("and {} more, in the events of the Sync", self.drift.len() - DRIFTS);
            writeln!(out, "    {}", styled(WARN, &more)).expect("text grows");
        }
    }
}

/// Rows in aligned columns.
pub struct Rows {
    with_namespace: bool,
    all: Vec<Row>,
    table: Table,
}

impl Rows {
    pub fn new(with_namespace: bool, rows: impl IntoIterator<Item = Row>) -> Self {
        let mut rows: Vec<Row> = rows.into_iter().collect();
        // In a namespace, the Repositories come first ("repository/…" < "sync/…").
        rows.sort_by(|a, b| (&a.namespace, &a.reference).cmp(&(&b.namespace, &b.reference)));
        Self { with_namespace, all: rows, table: Table::default() }
    }

    /// Header and all rows.
    pub fn table(&mut self, now: Timestamp) -> String {
        let mut header: Vec<String> =
            ["NAME", "READY", "REVISION", "LAST", "MESSAGE"].map(|name| styled(STRONG, name)).into();
        if self.with_namespace {
            header.insert(0, styled(STRONG, "NAMESPACE"));
        }
        let cells: Vec<_> = self.all.iter().map(|row| row.cells(self.with_namespace, now)).collect();
        self.table.fit(std::iter::once(header.as_slice()).chain(cells.iter().map(Vec::as_slice)));
        let mut text = self.table.line(&header) + "\n";
        for (row, cells) in self.all.iter().zip(&cells) {
            text.push_str(&self.table.line(cells));
            text.push('\n');
            row.write_details(&mut text, now);
        }
        text
    }

    /// One more row of the same table. A column becomes wider if the row needs this.
    pub fn line(&mut self, row: &Row, now: Timestamp) -> String {
        let cells = row.cells(self.with_namespace, now);
        self.table.fit([cells.as_slice()]);
        let mut text = self.table.line(&cells) + "\n";
        row.write_details(&mut text, now);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crds::{Repository, Sync};
    use serde_json::json;

    fn plain(text: &str) -> String {
        crate::output::plain(text)
    }

    fn repository() -> Repository {
        serde_json::from_value(json!({
            "metadata": {"name": "fleet", "namespace": "team", "generation": 1},
            "spec": {"url": "https://git.example/fleet.git"},
            "status": {"observedGeneration": 1, "revision": "main@sha1:0123456789abcdef0123456789abcdef01234567",
                "fetchedAt": "2026-01-01T00:00:48Z",
                "conditions": [{"type": "Ready", "status": "True", "reason": "Fetched", "message": "fetched"}]},
        }))
        .unwrap()
    }

    fn sync(conditions: serde_json::Value) -> Sync {
        serde_json::from_value(json!({
            "metadata": {"name": "web", "namespace": "team", "generation": 1},
            "spec": {"repository": {"name": "fleet"}},
            "status": {"observedGeneration": 1, "conditions": conditions},
        }))
        .unwrap()
    }

    #[test]
    fn what_is_not_ready_says_why_in_full() {
        let sync = sync(json!([{"type": "Ready", "status": "False", "reason": "ApplyFailed",
            "message": "web.yaml:3: Deployment team/web: replicas: not a number\nfix it and push"}]));
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let text = Rows::new(false, [Row::of(&sync), Row::of(&repository())]).table(now);
        let expected = "\
NAME              READY  REVISION       LAST             MESSAGE
repository/fleet  True   main@01234567  fetched 12s ago  fetched
sync/web          False  -              -                ApplyFailed, is tried again
    ApplyFailed: web.yaml:3: Deployment team/web: replicas: not a number
    fix it and push
";
        assert_eq!(plain(&text), expected);
    }

    #[test]
    fn what_is_stalled_asks_for_help() {
        let row = Row::of(&sync(json!([
            {"type": "Ready", "status": "False", "reason": "PathNotFound", "message": "no folder ./web"},
            {"type": "Stalled", "status": "True", "reason": "PathNotFound", "message": "no folder ./web"},
        ])));
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let text = Rows::new(true, []).line(&row, now);
        assert_eq!(
            plain(&text),
            "team  sync/web  False  -  -  PathNotFound, waits until somebody corrects the cause\n    PathNotFound: \
            no folder ./web\n"
        );
    }

    #[test]
    fn what_drifted_is_shown_below_its_sync() {
        let (at, now) = ("2026-01-01T00:00:48Z".parse().unwrap(), "2026-01-01T00:01:00Z".parse().unwrap());
        let drift = |number: usize| Drift { at, what: format!("ConfigMap team/c{number} was changed (data.a by x)") };
        let drifts: Vec<_> = (0..7).map(drift).collect();
        let row = Row::of(&sync(json!([]))).with_drift(&drifts[..1]);
        let text = Rows::new(false, []).line(&row, now);
        let (_, below) = text.split_once('\n').unwrap();
        assert_eq!(plain(below), "    drifted 12s ago: ConfigMap team/c0 was changed (data.a by x)\n");
        let text = Rows::new(false, []).line(&row.with_drift(&drifts), now);
        assert_eq!(text.matches("drifted 12s ago").count(), 5);
        assert!(text.contains("and 2 more"), "{text}");
    }

    #[test]
    fn a_sync_that_nobody_looked_at_is_unknown() {
        let now = "2026-01-01T00:01:00Z".parse().unwrap();
        let mut sync = sync(json!([]));
        sync.status = None;
        let text = Rows::new(false, []).line(&Row::of(&sync), now);
        assert_eq!(plain(&text), "sync/web  Unknown  -  -  waiting for the controller\n");
    }
}
