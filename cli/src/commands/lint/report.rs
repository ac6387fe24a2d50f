//! The problems that were found, and how they are printed for people and programs.

use std::collections::{BTreeMap, BTreeSet};

use crds::ObjectKey;
use manifests::{Location, Manifest, ObjectId, in_one_line};
use schemas::{KubernetesVersion, Severity};
use serde_json::{Value, json};

use crate::{
    fleet::NotHere,
    global::Global,
    output::{self, BAD, WARN, counted, styled},
};

/// One problem in one version of Kubernetes.
#[derive(Clone, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Finding {
    pub(super) origin: Location,
    pub(super) severity: Severity,
    /// Name of the check, as docs/lint.md lists them.
    pub(super) check: &'static str,
    pub(super) object: Option<ObjectId>,
    /// The field of the object. Empty if the problem is not about a field.
    pub(super) field: String,
    pub(super) message: String,
    /// The version in which it is a problem. `None` if it is one in every version.
    pub(super) kubernetes: Option<KubernetesVersion>,
}

impl Finding {
    pub(super) fn error(check: &'static str, origin: &Location, object: Option<&ObjectId>, message: String) -> Self {
        Self {
            origin: origin.clone(),
            severity: Severity::Error,
            check,
            object: object.cloned(),
            field: String::new(),
            message,
            kubernetes: None,
        }
    }
}

/// What more is known about a problem.
#[derive(Default)]
struct Known {
    /// The first object that has the problem. Overlays make several objects of one manifest.
    object: Option<ObjectId>,
    /// The versions in which it is a problem; empty for all versions.
    versions: Vec<KubernetesVersion>,
    /// The Syncs that apply the object, and where they are.
    syncs: BTreeSet<Applier>,
}

/// A Sync and its place.
type Applier = (ObjectKey, Location);

/// All problems.
pub(super) struct Report {
    versions: Vec<KubernetesVersion>,
    pub(super) syncs: usize,
    pub(super) objects: usize,
    /// The Sync whose objects are checked. The problems that are added are problems of this Sync.
    pub(super) sync: Option<Applier>,
    /// The problems, and what more is known about each.
    found: BTreeMap<Finding, Known>,
    /// Whether a kind without a schema is an error.
    is_strict: bool,
    /// Kinds without a schema, with an object of each and the kind that was perhaps meant.
    unchecked: BTreeMap<String, (Location, Option<String>)>,
}

impl Report {
    pub(super) fn new(versions: Vec<KubernetesVersion>, is_strict: bool) -> Self {
        Self {
            versions,
            syncs: 0,
            objects: 0,
            sync: None,
            found: BTreeMap::new(),
            is_strict,
            unchecked: BTreeMap::new(),
        }
    }

    /// Adds a problem. If several Syncs apply the same file, its problems are reported once.
    pub(super) fn add(&mut self, mut finding: Finding) {
        let (version, object) = (finding.kubernetes.take(), finding.object.take());
        let known = self.found.entry(finding).or_default();
        known.object = known.object.take().or(object);
        known.syncs.extend(self.sync.clone());
        known.versions.extend(version.filter(|version| !known.versions.contains(version)));
    }

    /// Adds problems as [`Self::add`] does.
    pub(super) fn add_all(&mut self, findings: impl IntoIterator<Item = Finding>) {
        for finding in findings {
            self.add(finding);
        }
    }

    /// Records that there is no schema of the object's kind. That is an error with `--strict`, and always for gitseal's
    /// own group, whose kinds are all known.
    pub(super) fn unchecked(&mut self, object: &Manifest, meant: Option<String>) {
        let kind = format!("{} {}", object.api_version(), object.id.kind);
        if self.is_strict || object.id.group == "gitseal.dev" {
            let message = format!("{kind}: {NO_DEFINITION}{}", did_you_mean(meant.as_deref()));
            self.add(Finding::error("unknown-kind", &object.origin, Some(&object.id), message));
        }
        self.unchecked.entry(kind).or_insert_with(|| (object.origin.clone(), meant));
    }

    pub(super) fn errors(&self) -> usize {
        self.found.keys().filter(|finding| finding.severity == Severity::Error).count()
    }

    pub(super) fn print(&self, not_here: &[NotHere], global: &Global) -> anyhow::Result<()> {
        let (errors, warnings) = (self.errors(), self.found.len() - self.errors());
        if let Some(format) = global.output {
            return output::print(format.text(&json!({
                "kubernetes": texts(&self.versions),
                "syncs": self.syncs,
                "objects": self.objects,
                "errors": errors,
                "warnings": warnings,
                "notRendered": not_here.iter().map(NotHere::as_json).collect::<Vec<_>>(),
                "withoutSchema": self.unchecked.keys().collect::<Vec<_>>(),
                "problems": self.found.iter().map(|(finding, known)| self.as_json(finding, known)).collect::<Vec<_>>(),
            }))?);
        }
        let lines = self.found.iter().map(|(finding, known)| self.line(finding, known) + "\n");
        output::print(lines.collect::<String>())?;
        for (kind, (origin, meant)) in self.unchecked.iter().filter(|_| !self.is_strict) {
            let meant = did_you_mean(meant.as_deref());
            output::note(format_args!("{origin}: {kind} is not checked: {NO_DEFINITION}{meant}"));
        }
        output::note(format_args!(
            "{} of {}, Kubernetes {}: {}, {}",
            counted(self.objects, "object"),
            counted(self.syncs, "Sync"),
            texts(&self.versions).join(", "),
            counted(errors, "error"),
            counted(warnings, "warning"),
        ));
        Ok(())
    }

    fn line(&self, finding: &Finding, known: &Known) -> String {
        let word = match finding.severity {
            Severity::Error => styled(BAD, "error:"),
            Severity::Warning => styled(WARN, "warning:"),
        };
        let object = known.object.as_ref().map(|id| format!("{}: ", output::title(id))).unwrap_or_default();
        let field = if finding.field.is_empty() { String::new() } else { format!("{}: ", finding.field) };
        let at = &known.versions;
        let only = at.len() < self.versions.len() && !at.is_empty();
        let only = if only { format!("; Kubernetes {}", texts(at).join(", ")) } else { String::new() };
        let by = known.appliers().map(|syncs| format!("; {syncs}")).unwrap_or_default();
        let Finding { origin, message, check, .. } = finding;
        in_one_line(&format!("{origin}: {word} {object}{field}{message} ({check}{only}{by})")).into_owned()
    }

    fn as_json(&self, finding: &Finding, Known { object, versions: at, syncs }: &Known) -> Value {
        let Finding { origin, severity, check, field, message, .. } = finding;
        let syncs = syncs.iter().map(|(key, origin)| {
            json!({"namespace": key.namespace, "name": key.name, "file": origin.file.as_ref(), "line": origin.line})
        });
        let mut problem = json!({
            "severity": severity,
            "check": check,
            "file": origin.file.as_ref(),
            "line": origin.line,
            "message": message,
            "kubernetes": texts(if at.is_empty() { &self.versions } else { at }),
            "syncs": syncs.collect::<Vec<_>>(),
        });
        if let Some(id) = object {
            problem["object"] = output::title(id).into();
        }
        if !field.is_empty() {
            problem["field"] = field.clone().into();
        }
        problem
    }
}

impl Known {
    /// The names of some of the Syncs, as text for people. There may be very many Syncs.
    fn appliers(&self) -> Option<String> {
        /// How many Syncs are named.
        const SHOWN: usize = 3;
        let names: BTreeSet<_> = self.syncs.iter().map(|(key, _)| key.to_string()).collect();
        let shown: Vec<_> = names.iter().take(SHOWN).map(String::as_str).collect();
        let more = names.len() - shown.len();
        let more = if more > 0 { format!(" and {more} more") } else { String::new() };
        match shown.as_slice() {
            [] => None,
            [one] => Some(format!("Sync {one}")),
            several => Some(format!("Syncs {}{more}", several.join(", "))),
        }
    }
}

const NO_DEFINITION: &str = "no CustomResourceDefinition of this kind is in the repository";

fn did_you_mean(kind: Option<&str>) -> String {
    kind.map(|kind| format!("; did you mean {kind}?")).unwrap_or_default()
}

fn texts(versions: &[KubernetesVersion]) -> Vec<String> {
    versions.iter().map(KubernetesVersion::to_string).collect()
}
