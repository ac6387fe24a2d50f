//! Charts: the request to render one, and the result.

use std::fmt::{self, Write as _};

use manifests::Manifest;
use serde::{Deserialize, Serialize};

use crate::{
    Object,
    list::{OBJECTS, list},
    sealed::SealedValues,
    wrapped::ClusterSecret,
};

/// A chart that is rendered for the cluster, perhaps with sealed values.
#[derive(Clone, Debug, Default)]
pub struct Release {
    /// The chart and its options. Its field `values` is not used.
    pub chart: Chart,
    /// Values that replace those of the chart. Later ones win.
    pub values: Vec<ReleaseValues>,
    /// The namespace that every namespaced object is applied in, whatever its manifest says.
    pub target_namespace: Option<String>,
    /// Whether a Sync also applies the tests of the chart.
    pub tests: bool,
    /// Whether a Sync makes only those objects of `crds/` that do not exist, and changes none.
    pub only_new_crds: bool,
}

/// Values for a chart, plain or sealed.
#[derive(Clone, Debug)]
pub enum ReleaseValues {
    /// Values that templates see.
    Plain(Values),
    /// Values for which templates see placeholders.
    Sealed(SealedValues),
    /// The same, with values of a Secret of the cluster.
    Secret(ClusterSecret),
}

impl Release {
    /// The namespace that an object is applied in, if its kind is namespaced.
    pub(crate) fn namespace_of<'a>(&'a self, manifest: &'a Manifest) -> &'a str {
        let target = self.target_namespace.as_deref();
        target.or(manifest.id.namespace.as_deref()).unwrap_or(&self.chart.namespace)
    }
}

/// A chart in the repository, and the values and options to render it with.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chart {
    /// The chart's folder, or its archive (`.tgz`), relative to the repository's root.
    pub path: String,
    /// `.Release.Name`.
    pub release_name: String,
    /// `.Release.Namespace`.
    pub namespace: String,
    /// `.Capabilities.KubeVersion`. If it is not set, templates see the version that Helm was built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_version: Option<String>,
    /// Added to the built-in versions in `.Capabilities.APIVersions`: `group/version` or `group/version/Kind`.
    pub api_versions: Vec<String>,
    /// Whether templates see only `api_versions`, without the built-in versions.
    pub only_api_versions: bool,
    /// Values that replace those of the chart. Later ones win.
    pub values: Vec<Values>,
    /// Whether the objects in `crds/` are part of the result.
    pub include_crds: bool,
    /// True sets `.Release.IsUpgrade`, false sets `.Release.IsInstall`.
    pub is_upgrade: bool,
    /// What templates find in the cluster, as [`looked_up`](crate::looked_up) returns it; every other lookup fails. `None`:
    /// every lookup finds nothing, as with `helm template`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lookup: Option<Vec<String>>,
}

/// Values for a chart, in one of several forms.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Values {
    /// A file of the repository, by its path.
    File(String),
    /// YAML from outside of the repository, already read.
    Yaml {
        /// The name used in messages.
        name: String,
        /// The YAML text.
        text: String,
    },
    /// `path.of.key=value,…`, as for `helm --set`.
    Set(String),
    /// As for `helm --set-string`: every value is a string.
    SetString(String),
    /// As for `helm --set-json`.
    SetJson(String),
}

/// Leaves out the values themselves, which may be secret.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Yaml { name, .. } => f.debug_tuple("Yaml").field(name).finish(),
            Self::Set(_) | Self::SetString(_) | Self::SetJson(_) => f.write_str("Set"),
        }
    }
}

/// The result of rendering a chart.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RenderedChart {
    /// The objects, in the order of `helm template`: those of `crds/`, then those of templates sorted by kind, then hooks.
    #[serde(deserialize_with = "list::<_, _, OBJECTS>")]
    pub objects: Vec<ChartObject>,
    /// The text of the chart's `NOTES.txt`.
    pub notes: String,
    /// What templates looked up in the cluster, if [`Chart::lookup`] is `None`. Every lookup found nothing.
    #[serde(deserialize_with = "list::<_, _, 1000>")]
    pub lookups: Vec<Lookup>,
    /// Functions that templates called and that return a different value each time, sorted: `randAlphaNum`, `now`, … If
    /// there is one, the same files and values can give different objects next time.
    #[serde(deserialize_with = "list::<_, _, 1000>")]
    pub nondeterministic: Vec<String>,
    /// Helm's warnings.
    #[serde(deserialize_with = "list::<_, _, 1000>")]
    pub warnings: Vec<String>,
}

impl RenderedChart {
    /// The text that `helm template` prints.
    pub fn text(&self) -> String {
        let (hooks, others): (Vec<_>, Vec<_>) = self.objects.iter().partition(|object| object.hook.is_some());
        let mut text = String::new();
        let write = |text: &mut String, object: &ChartObject| {
            let _ = writeln!(text, "---\n# Source: {}\n{}", object.source, object.object.yaml);
        };
        for object in others {
            write(&mut text, object);
        }
        text = format!("{}\n", text.trim());
        for hook in hooks {
            write(&mut text, hook);
        }
        text
    }
}

/// One rendered document. It is usually one object, but a file in `crds/` stays one document even if it has several.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ChartObject {
    /// The document, and the path of its template in the repository. For a template in an archive, this is the path of the
    /// archive followed by the path in it.
    #[serde(flatten)]
    pub object: Object,
    /// Helm's name of the template: `chart/templates/web.yaml`.
    #[serde(default)]
    pub source: String,
    /// Whether the document comes from `crds/`.
    #[serde(default)]
    pub crd: bool,
    /// Set if the document is a hook.
    #[serde(default)]
    pub hook: Option<Hook>,
}

/// When a hook runs, and when it is deleted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// `pre-install`, `post-upgrade`, `test`, …
    #[serde(deserialize_with = "list::<_, _, 1000>")]
    pub events: Vec<String>,
    /// Hooks of one event run in the order of their weights.
    #[serde(default)]
    pub weight: i64,
    /// `before-hook-creation`, `hook-succeeded`, `hook-failed`.
    #[serde(default, deserialize_with = "list::<_, _, 1000>")]
    pub delete_policies: Vec<String>,
}

/// An object, or a list of objects, that a template looked up in the cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace. Empty for all namespaces, or for an object without a namespace.
    #[serde(default)]
    pub namespace: String,
    /// The name. Empty if all objects were listed.
    #[serde(default)]
    pub name: String,
}
