//! Charts of Syncs: what is rendered for a Sync, and the objects that it applies.

use std::{collections::BTreeMap, sync::Arc};

use crds::{ChartCrds, Sync, ValuesFrom};
use manifests::{Manifest, in_lines};
use pipeline::{
    Entry, lookups, namespace_for, path_of,
    plan::{HOOKS_AFTER, HOOKS_BEFORE, Times, runs_once},
    release_name,
    render::NotRendered,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    BuiltRelease, Chart, ChartObject, ClusterSecret, Hook, NOT_REPRODUCIBLE, Release, ReleaseValues, SealedValues,
    Sealer, Values,
};

/// What templates see of the cluster.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Capabilities {
    /// The version of Kubernetes. `None` is the version that Helm was built for.
    pub kube_version: Option<String>,
    /// The versions that the API server serves, `group/version` and `group/version/Kind`, sorted.
    pub api_versions: Vec<String>,
}

impl Capabilities {
    /// The capabilities of an API server that answers with this version and these kinds.
    pub fn new(version: String, served: impl IntoIterator<Item = ServedKinds>) -> Self {
        let mut api_versions: Vec<_> = served.into_iter().flat_map(ServedKinds::api_versions).collect();
        api_versions.sort();
        api_versions.dedup();
        Self { kube_version: Some(version), api_versions }
    }
}

/// The groups of `/api` or `/apis` with their kinds: an `APIGroupDiscoveryList` of `apidiscovery.k8s.io/v2`.
#[derive(Deserialize)]
pub struct ServedKinds {
    /// An answer without this field is refused. Otherwise, a chart would see a cluster without kinds, and objects that depend
    /// on such a kind would be pruned.
    items: Vec<Group>,
}

#[derive(Deserialize)]
struct Group {
    #[serde(default)]
    metadata: Name,
    #[serde(default)]
    versions: Vec<Version>,
}

#[derive(Default, Deserialize)]
struct Name {
    /// Empty for the core group.
    #[serde(default)]
    name: String,
}

#[derive(Deserialize)]
struct Version {
    version: String,
    #[serde(default)]
    resources: Vec<Kind>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Kind {
    response_kind: Option<KindName>,
}

#[derive(Deserialize)]
struct KindName {
    kind: String,
}

impl ServedKinds {
    /// The header `Accept` of the request. API servers answer such a request since Kubernetes 1.30.
    pub const ACCEPT: &str = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList";

    /// `group/version`, and `group/version/Kind` of each kind.
    fn api_versions(self) -> impl Iterator<Item = String> {
        self.items.into_iter().flat_map(|Group { metadata: Name { name }, versions }| {
            versions.into_iter().flat_map(move |Version { version, resources }| {
                let version = if name.is_empty() { version } else { format!("{name}/{version}") };
                let kinds = resources.into_iter().filter_map(|resource| resource.response_kind);
                let kinds: Vec<_> = kinds.map(|kind| format!("{version}/{}", kind.kind)).collect();
                std::iter::once(version).chain(kinds)
            })
        })
    }
}

/// Why a folder with a chart is not applied by a Sync without the field `helm`.
pub const IS_CHART: &str =
    "the folder has a Chart.yaml: to render it as a chart, set helm in the spec of the Sync; `helm: {}` is enough";

/// Something that a Sync is rendered with and that is not in its repository: values, variables, or what its chart looks up.
#[derive(Clone)]
pub struct Input {
    /// The name in messages: where the values are.
    pub name: String,
    /// The content of the file with values or variables, or the result of [`variables_in`](crate::variables_in),
    /// [`looked_up`](crate::looked_up) or [`wrapped_values`](crate::wrapped_values).
    pub content: Arc<[u8]>,
    /// Seals the values, if they are those of a Secret of the cluster.
    pub sealer: Option<Arc<dyn Sealer>>,
}

impl Input {
    /// Something that is not secret.
    pub fn new(name: String, content: Arc<[u8]>) -> Self {
        Self { name, content, sealer: None }
    }
}

/// What a Sync is rendered with and is not in its repository, by the entries of the Sync that name it.
pub type Inputs = BTreeMap<Entry, Input>;

/// What is rendered for `sync`, if it renders a chart.
///
/// # Errors
/// `inputs` does not have what the Sync needs, or it is not text. A chart is never rendered without some of its values,
/// because objects that depend on them would be pruned.
pub fn release_of(sync: &Sync, capabilities: &Capabilities, inputs: &Inputs) -> Result<Option<Release>, NotRendered> {
    let Some(helm) = &sync.spec.helm else { return Ok(None) };
    let entries = helm.values_from.iter().enumerate();
    let values: Result<Vec<_>, _> = entries.map(|(index, from)| values_of(from, index, inputs)).collect();
    let mut values = values?;
    if !helm.values.is_empty() {
        // JSON is YAML.
        let text = Value::Object(helm.values.clone()).to_string();
        values.push(ReleaseValues::Plain(Values::Yaml { name: "spec.helm.values".to_owned(), text }));
    }
    let answers = lookups(sync).map(|looked| {
        let input = inputs.get(&looked.entry).ok_or_else(|| not_read(looked.entry))?;
        Ok(String::from_utf8_lossy(&input.content).into_owned())
    });
    let chart = Chart {
        path: path_of(sync).to_owned(),
        release_name: release_name(sync).to_owned(),
        namespace: namespace_for(sync, None).to_owned(),
        kube_version: capabilities.kube_version.clone(),
        api_versions: capabilities.api_versions.clone(),
        only_api_versions: !capabilities.api_versions.is_empty(),
        values: Vec::new(),
        include_crds: helm.crds != ChartCrds::Skip,
        is_upgrade: false,
        lookup: Some(answers.collect::<Result<_, _>>()?),
    };
    let target_namespace = sync.spec.target_namespace.clone();
    let only_new_crds = helm.crds == ChartCrds::Create;
    Ok(Some(Release { chart, values, target_namespace, tests: helm.test, only_new_crds }))
}

fn wrong(message: String) -> NotRendered {
    NotRendered { tool: "Helm", reason: "ValuesNotRead", message, is_terminal: true }
}

fn not_read(entry: Entry) -> NotRendered {
    wrong(format!("{entry} was not read"))
}

fn values_of(from: &ValuesFrom, index: usize, inputs: &Inputs) -> Result<ReleaseValues, NotRendered> {
    let entry = Entry::Values(index);
    let input = from.is_elsewhere().then(|| inputs.get(&entry).ok_or_else(|| not_read(entry))).transpose()?;
    let file = input.map_or_else(|| from.path_of_file().to_owned(), |input| input.name.clone());
    if from.secret.is_some() {
        let input = input.ok_or_else(|| not_read(entry))?;
        let values = ClusterSecret::of(input, from.key.as_deref(), from.path.as_deref());
        return values.map(ReleaseValues::Secret).ok_or_else(|| not_read(entry));
    }
    if from.sealed_secret.is_some() {
        return Ok(ReleaseValues::Sealed(SealedValues {
            file,
            content: input.map(|input| input.content.clone()),
            key: from.key.clone(),
            path: from.path.clone(),
        }));
    }
    Ok(ReleaseValues::Plain(match input {
        None => Values::File(file),
        Some(input) => {
            let text = str::from_utf8(&input.content).map_err(|_| wrong(format!("{file} is not text in UTF-8")))?;
            Values::Yaml { text: text.to_owned(), name: file }
        }
    }))
}

/// What a Sync applies of a folder.
#[derive(Default)]
pub struct Applied {
    /// The objects.
    pub objects: Vec<Manifest>,
    /// The notes of the chart, ready to be shown. `None` if there are none.
    pub notes: Option<String>,
}

impl From<Vec<Manifest>> for Applied {
    fn from(objects: Vec<Manifest>) -> Self {
        Self { objects, notes: None }
    }
}

/// The most bytes of the notes of a chart that are shown.
const NOTES_BYTES: usize = 4 << 10;
/// What stands where the end of long notes was.
const LEFT_OUT: &str = "\n…";

/// The notes of a chart in a form that may be shown: not too long, and without characters that control a terminal.
fn shown(notes: &str) -> Option<String> {
    // An escape is longer than what it stands for, so what is not shown anyway need not be escaped.
    let (start, _) = cut(notes.trim(), NOTES_BYTES + 1);
    let escaped = in_lines(start);
    let text = match cut(&escaped, NOTES_BYTES) {
        (all, false) => all.to_owned(),
        (_, true) => cut(&escaped, NOTES_BYTES - LEFT_OUT.len()).0.trim_end().to_owned() + LEFT_OUT,
    };
    (!text.is_empty()).then_some(text)
}

/// At most the first `most` bytes of a text, and whether that is less than the whole text.
fn cut(text: &str, most: usize) -> (&str, bool) {
    let end = (0..=most.min(text.len())).rev().find(|end| text.is_char_boundary(*end)).unwrap_or_default();
    (&text[..end], text.len() > most)
}

/// How much the weight of a hook can change the number of its wave.
const MOST_WEIGHT: i64 = 499;

impl BuiltRelease {
    /// The objects that a Sync applies, and the notes. Hooks become objects in waves of their own, which wait until the
    /// objects of the wave before are healthy; those with the delete policy `hook-succeeded` are deleted when all hooks that
    /// run at the same time are healthy, and those with `hook-failed` when they have failed. Hooks that run before the other objects and after them are made twice. Hooks for deletions are marked as such,
    /// and tests if they are wanted. Hooks for rollbacks are left out.
    /// What Helm would not delete is not pruned.
    ///
    /// # Errors
    /// The chart may give other objects at the next render.
    pub fn into_applied(self) -> Result<Applied, NotRendered> {
        if let Some(message) = self.unstable() {
            return Err(NotRendered { tool: "Helm", reason: NOT_REPRODUCIBLE, message, is_terminal: true });
        }
        let (mut objects, notes) = (Vec::new(), shown(&self.rendered.notes));
        for (ChartObject { hook, crd, .. }, mut manifests) in self.rendered.objects.iter().zip(self.manifests) {
            for manifest in manifests.iter_mut().filter(|manifest| *crd || is_kept_by_helm(manifest)) {
                annotate(manifest, &[(crds::names::PRUNE, crds::names::PRUNE_DISABLED)]);
            }
            for manifest in manifests.iter_mut().filter(|_| *crd && self.only_new_crds) {
                annotate(manifest, &[(crds::names::CHANGE, crds::names::CHANGE_DISABLED)]);
            }
            if let Some(hook) = hook {
                let is_test = self.tests && is_test(hook);
                let Some((wave, times)) = runs(hook, is_test) else { continue };
                let deleted = deleted_when(hook);
                for manifest in &mut manifests {
                    in_wave(manifest, wave);
                    if runs_twice(hook) && is_made_again(manifest, &deleted) {
                        let again = number(HOOKS_AFTER, hook).to_string();
                        annotate(manifest, &[(crds::names::WAVE_AGAIN, &again)]);
                    }
                    if times.is_on_delete() {
                        annotate(manifest, &[(crds::names::ON_DELETE, &on_delete(times))]);
                    }
                    if let Some(only) = only_on(hook).filter(|_| times.usual) {
                        annotate(manifest, &[(crds::names::ONLY_ON, only)]);
                    }
                    if is_test {
                        annotate(manifest, &[(crds::names::RUN_WHEN, crds::names::RUN_WHEN_HEALTHY)]);
                    }
                    if times.usual && !deleted.is_empty() && !manifest.id.is_sealed_secret() {
                        annotate(manifest, &[(crds::names::DELETE_WHEN, &deleted)]);
                    }
                }
            }
            objects.extend(manifests);
        }
        Ok(Applied { objects, notes })
    }

    /// Why the same files and values may give something else next time.
    fn unstable(&self) -> Option<String> {
        let functions = self.rendered.nondeterministic.as_slice();
        (!functions.is_empty()).then(|| {
            format!(
                "templates call {}, so each render gives other objects: set the values that the chart would generate, for \
                 example a password from a SealedSecret",
                functions.join(", ")
            )
        })
    }
}

/// The events before the other objects are applied, and those after them.
const PRE: [&str; 2] = ["pre-install", "pre-upgrade"];
const POST: [&str; 2] = ["post-install", "post-upgrade"];

fn is_any(hook: &Hook, names: &[&str]) -> bool {
    hook.events.iter().any(|event| names.contains(&event.as_str()))
}

/// Whether the hook is a test that runs at no other time beside a deletion. A hook for more times runs only at the others.
fn is_test(hook: &Hook) -> bool {
    is_any(hook, &["test", "test-success"]) && !is_any(hook, &PRE) && !is_any(hook, &POST)
}

/// The value of the annotation for a hook that is only for installations, or only for upgrades.
fn only_on(hook: &Hook) -> Option<&'static str> {
    match (is_any(hook, &[PRE[0], POST[0]]), is_any(hook, &[PRE[1], POST[1]])) {
        (true, false) => Some(crds::names::ONLY_ON_INSTALLATION),
        (false, true) => Some(crds::names::ONLY_ON_UPGRADE),
        _ => None,
    }
}

/// Whether Helm runs the hook twice in one installation or one upgrade: before the other objects and after them.
fn runs_twice(hook: &Hook) -> bool {
    (0..PRE.len()).any(|event| is_any(hook, &PRE[event..=event]) && is_any(hook, &POST[event..=event]))
}

/// Whether an object of a hook that runs twice is made again for the second time. Otherwise, the object of the first time is still there,
/// and does no work that would have to be done again.
fn is_made_again(manifest: &Manifest, deleted_when: &str) -> bool {
    let is_deleted = deleted_when.split(',').any(|when| when == crds::names::DELETE_WHEN_HEALTHY);
    !manifest.id.is_sealed_secret() && (runs_once(&manifest.id) || is_deleted)
}

/// The number of the wave in which a hook runs at a time whose hooks with the weight zero run in the wave `base`.
fn number(base: i32, hook: &Hook) -> i64 {
    i64::from(base) + hook.weight.clamp(-MOST_WEIGHT, MOST_WEIGHT)
}

/// The number of the wave that a hook runs in, and when it runs. `None` if it is not applied. The number is that of the first time.
fn runs(hook: &Hook, is_test: bool) -> Option<(i64, Times)> {
    let (pre, post) = (is_any(hook, &PRE), is_any(hook, &POST));
    let (before, after) = (is_any(hook, &["pre-delete"]), is_any(hook, &["post-delete"]));
    let times = Times { usual: pre || post || is_test, before, after };
    let base = if pre || before && !post {
        HOOKS_BEFORE
    } else if post || after {
        HOOKS_AFTER
    } else if is_test {
        0
    } else {
        return None;
    };
    Some((number(base, hook), times))
}

/// The value of the annotation for an object that is applied at these times.
fn on_delete(times: Times) -> String {
    use crds::names::{ON_DELETE_AFTER, ON_DELETE_ALSO, ON_DELETE_BEFORE};
    let all = [(times.usual, ON_DELETE_ALSO), (times.before, ON_DELETE_BEFORE), (times.after, ON_DELETE_AFTER)];
    all.into_iter().filter(|(is, _)| *is).map(|(_, name)| name).collect::<Vec<_>>().join(",")
}

/// The value of the annotation for the delete policies of a hook; empty if none of them deletes it.
fn deleted_when(hook: &Hook) -> String {
    use crds::names::{DELETE_WHEN_FAILED, DELETE_WHEN_HEALTHY};
    let all = [("hook-succeeded", DELETE_WHEN_HEALTHY), ("hook-failed", DELETE_WHEN_FAILED)];
    let has = |name: &str| hook.delete_policies.iter().any(|policy| policy == name);
    all.into_iter().filter(|(name, _)| has(name)).map(|(_, value)| value).collect::<Vec<_>>().join(",")
}

/// Gives a hook the annotations that put it into `wave`.
fn in_wave(manifest: &mut Manifest, wave: i64) {
    let wave = wave.to_string();
    let ours = [
        (crds::names::WAVE, wave.as_str()),
        (crds::names::WAIT, crds::names::WAIT_HEALTHY),
        (crds::names::REPLACE, crds::names::REPLACE_ALLOWED),
    ];
    annotate(manifest, &ours);
}

/// Objects that Helm would not delete are not pruned.
pub(crate) fn keep_what_helm_keeps(manifests: &mut [Manifest]) {
    for manifest in manifests.iter_mut().filter(|manifest| is_kept_by_helm(manifest)) {
        annotate(manifest, &[(crds::names::PRUNE, crds::names::PRUNE_DISABLED)]);
    }
}

/// Whether Helm would not delete the object. The annotations of a Secret with sealed values are in the template of its
/// SealedSecret.
fn is_kept_by_helm(Manifest { id, body, .. }: &Manifest) -> bool {
    let asks = |metadata: Option<&Value>| {
        let annotations = metadata.and_then(|metadata| metadata.get("annotations"));
        let policy = annotations.and_then(|all| all.get("helm.sh/resource-policy")).and_then(Value::as_str);
        policy.is_some_and(|policy| policy.trim().eq_ignore_ascii_case("keep"))
    };
    let template =
        || body.get("spec").and_then(|spec| spec.get("template")).and_then(|template| template.get("metadata"));
    asks(body.get("metadata")) || id.is_sealed_secret() && asks(template())
}

/// Adds annotations, except those that the template sets itself.
fn annotate(manifest: &mut Manifest, added: &[(&str, &str)]) {
    let metadata = manifest.body.entry("metadata").or_insert_with(|| json!({}));
    let Value::Object(metadata) = metadata else { return };
    let annotations = metadata.entry("annotations").or_insert_with(|| json!({}));
    if annotations.is_null() {
        *annotations = json!({});
    }
    let Value::Object(annotations) = annotations else { return };
    for (name, value) in added {
        annotations.entry(*name).or_insert((*value).into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::RenderedChart;

    fn built(rendered: RenderedChart, manifests: Vec<Manifest>) -> BuiltRelease {
        BuiltRelease::new(&Release::default(), rendered, vec![manifests])
    }

    /// The annotations of the objects that a Sync applies from the document `text`; `crd` says whether the document
    /// comes from `crds/`.
    fn annotations(text: &str, crd: bool) -> Vec<Value> {
        let manifests = manifests::parse("a.yaml", text.as_bytes(), &manifests::Limits::default()).unwrap();
        let object = crate::Object::default();
        let object = ChartObject { object, source: String::new(), crd, hook: None };
        let rendered = RenderedChart { objects: vec![object], ..RenderedChart::default() };
        let applied = built(rendered, manifests).into_applied().unwrap();
        applied.objects.into_iter().map(|manifest| manifest.body["metadata"]["annotations"].clone()).collect()
    }

    #[test]
    fn notes_have_a_limit_and_control_no_terminal() {
        assert_eq!(shown(" \n"), None);
        assert_eq!(
            shown("\nVisit:\n\thttps://\u{1b}[31mshop \n").as_deref(),
            Some("Visit:\n\thttps://\\u{1b}[31mshop")
        );
        for text in ["a".repeat(NOTES_BYTES), "é".repeat(NOTES_BYTES / 2)] {
            assert_eq!(shown(&text).as_deref(), Some(text.as_str()));
            let longer = shown(&format!("{text}b")).unwrap();
            assert!(longer.len() <= NOTES_BYTES && longer.ends_with(LEFT_OUT) && longer.starts_with(&text[..100]));
        }
        let longer = shown(&"\u{202e}".repeat(NOTES_BYTES)).unwrap();
        assert!(longer.len() <= NOTES_BYTES && longer.ends_with(LEFT_OUT) && !longer.contains('\u{202e}'), "{longer}");
    }

    #[test]
    fn hooks_run_at_their_events() {
        let hook_with = |events: &[&str], tests: bool| {
            let events = events.iter().map(|&event| event.to_owned()).collect();
            let hook = Hook { events, weight: 7, delete_policies: Vec::new() };
            let (number, times) = runs(&hook, is_test(&hook) && tests)?;
            Some((number, if times.is_on_delete() { on_delete(times) } else { String::new() }))
        };
        let hook = |events: &[&str]| hook_with(events, false);
        let at = |number: i64, times: &str| Some((number, times.to_owned()));
        assert_eq!(hook_with(&["test"], true), at(7, ""));
        assert_eq!(hook_with(&["test-success", "pre-delete"], true), at(-493, "also,before"));
        assert_eq!(hook_with(&["test", "post-install"], true), at(507, ""));
        assert_eq!(hook(&["pre-install", "post-install"]), at(-493, ""));
        assert_eq!(hook(&["post-upgrade"]), at(507, ""));
        assert_eq!(hook(&["pre-delete"]), at(-493, "before"));
        assert_eq!(hook(&["post-delete"]), at(507, "after"));
        assert_eq!(hook(&["post-delete", "pre-delete"]), at(-493, "before,after"));
        assert_eq!(hook(&["pre-install", "pre-delete"]), at(-493, "also,before"));
        assert_eq!(hook(&["post-install", "pre-delete"]), at(507, "also,before"));
        assert_eq!(hook(&["post-delete", "post-upgrade", "pre-delete"]), at(507, "also,before,after"));
        for left_out in ["test", "pre-rollback", "post-rollback"] {
            assert_eq!(hook(&[left_out]), None);
        }
    }

    #[test]
    fn a_hook_for_both_times_of_an_installation_runs_twice() {
        let runs_twice = |events: &[&str]| {
            let events = events.iter().map(|&event| event.to_owned()).collect();
            super::runs_twice(&Hook { events, weight: 0, delete_policies: Vec::new() })
        };
        assert!(runs_twice(&["pre-install", "post-install"]) && runs_twice(&["post-upgrade", "test", "pre-upgrade"]));
        // Helm never runs these two in the same operation.
        assert!(!runs_twice(&["pre-install", "post-upgrade"]) && !runs_twice(&["pre-install", "pre-upgrade"]));

        let again = |kind: &str, policies: &[&str]| {
            let text = format!("apiVersion: {kind}\nmetadata: {{name: a}}\n");
            let manifests = manifests::parse("a.yaml", text.as_bytes(), &manifests::Limits::default()).unwrap();
            let delete_policies = policies.iter().map(|&policy| policy.to_owned()).collect();
            let events = ["pre-install", "post-install"].map(str::to_owned).to_vec();
            let hook = Hook { events, weight: -5, delete_policies };
            let object =
                ChartObject { object: crate::Object::default(), source: String::new(), crd: false, hook: Some(hook) };
            let rendered = RenderedChart { objects: vec![object], ..RenderedChart::default() };
            let applied = built(rendered, manifests).into_applied().unwrap();
            let annotations = &applied.objects[0].body["metadata"]["annotations"];
            assert_eq!(annotations[crds::names::WAVE], "-505");
            annotations.get(crds::names::WAVE_AGAIN).cloned()
        };
        assert_eq!(again("batch/v1\nkind: Job", &[]), Some(json!("495")));
        assert_eq!(again("v1\nkind: ServiceAccount", &["hook-succeeded"]), Some(json!("495")));
        assert_eq!(again("v1\nkind: ServiceAccount", &["before-hook-creation"]), None, "it is still there");
    }

    #[test]
    fn a_hook_is_deleted_when_it_is_healthy_if_its_policy_says_so() {
        let hook = |text: &str, policies: &[&str]| {
            let manifests = manifests::parse("a.yaml", text.as_bytes(), &manifests::Limits::default()).unwrap();
            let delete_policies = policies.iter().map(|&policy| policy.to_owned()).collect();
            let hook = Hook { events: vec!["pre-install".to_owned()], weight: -5, delete_policies };
            let object =
                ChartObject { object: crate::Object::default(), source: String::new(), crd: false, hook: Some(hook) };
            let rendered = RenderedChart { objects: vec![object], ..RenderedChart::default() };
            let applied = built(rendered, manifests).into_applied().unwrap();
            let annotations = &applied.objects[0].body["metadata"]["annotations"];
            assert_eq!(annotations["gitseal.dev/wave"], "-505");
            annotations["gitseal.dev/delete-when"].as_str().map(str::to_owned)
        };
        let map = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n";
        let sealed =
            "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {name: a}\nspec: {encryptedData: {}}\n";
        assert_eq!(hook(map, &["before-hook-creation", "hook-succeeded"]).as_deref(), Some("healthy"));
        assert_eq!(hook(map, &["before-hook-creation"]), None);
        assert_eq!(hook(map, &["hook-failed"]).as_deref(), Some("failed"));
        assert_eq!(hook(map, &["hook-failed", "hook-succeeded"]).as_deref(), Some("healthy,failed"));
        assert_eq!(hook(sealed, &["hook-succeeded"]), None, "others use its Secret");
    }

    #[test]
    fn what_helm_would_not_delete_is_not_pruned() {
        let map = |annotations: &str| format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: a{annotations}}}\n");
        let sealed = |template: &str| {
            format!(
                "apiVersion: bitnami.com/v1alpha1\nkind: SealedSecret\nmetadata: {{name: a}}\nspec: {{encryptedData: {{}}, \
                 template: {template}}}\n"
            )
        };
        let keep = "{helm.sh/resource-policy: ' Keep'}";
        let disabled = json!("disabled");
        let kept = [
            annotations(&map(&format!(", annotations: {keep}")), false),
            annotations(&sealed(&format!("{{metadata: {{annotations: {keep}}}}}")), false),
            annotations(&map(", annotations: null"), true),
            annotations(&(map("") + "---\n" + &map("").replace("name: a", "name: b")), true),
        ];
        for of_document in kept {
            assert!(of_document.iter().all(|all| all["gitseal.dev/prune"] == disabled), "{of_document:?}");
        }
        for other in [map(""), map(", annotations: {helm.sh/resource-policy: delete}"), sealed("{}")] {
            assert_eq!(annotations(&other, false)[0]["gitseal.dev/prune"], json!(null), "{other}");
        }
    }
}
