//! Charts: what is asked for, and what comes back.

use std::fmt::{self, Write as _};

use serde::{Deserialize, Serialize};

use crate::Object;

/// A chart of the repository, and what it is rendered with.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Chart {
    /// The chart's folder, or its archive (`.tgz`), relative to the repository's root.
    pub path: String,
    /// `.Release.Name`.
    pub release_name: String,
    /// `.Release.Namespace`.
    pub namespace: String,
    /// `.Capabilities.KubeVersion`; without it, the version that Helm was built for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kube_version: Option<String>,
    /// What `.Capabilities.APIVersions` has beside the built-in versions: `group/version` or `group/version/Kind`.
    pub api_versions: Vec<String>,
    /// Values over those of the chart. Later ones win.
    pub values: Vec<Values>,
    /// Whether the objects in `crds/` are part of the result.
    pub include_crds: bool,
    /// Whether `.Release.IsUpgrade` is true, and not `.Release.IsInstall`.
    pub is_upgrade: bool,
}

/// Some values of a chart.
#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Values {
    /// A file of the repository, by its path.
    File(String),
    /// YAML that somebody else has read.
    Yaml {
        /// What messages call it.
        name: String,
        /// The YAML.
        text: String,
    },
    /// `path.of.key=value,…`, as after `helm --set`.
    Set(String),
    /// As after `helm --set-string`: every value is a string.
    SetString(String),
    /// As after `helm --set-json`.
    SetJson(String),
}

/// Without what they say.
impl fmt::Debug for Values {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Yaml { name, .. } => f.debug_tuple("Yaml").field(name).finish(),
            Self::Set(_) | Self::SetString(_) | Self::SetJson(_) => f.write_str("Set"),
        }
    }
}

/// What became of a chart.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct RenderedChart {
    /// The objects, in the order of `helm template`: those of `crds/`, then those of templates sorted by kind, then hooks.
    pub objects: Vec<ChartObject>,
    /// What the chart's `NOTES.txt` says.
    pub notes: String,
    /// What templates looked up in the cluster. They got nothing.
    pub lookups: Vec<Lookup>,
    /// Functions that templates called and that return something else each time, sorted: `randAlphaNum`, `now`, … The same files and
    /// values do not give the same objects again.
    pub nondeterministic: Vec<String>,
    /// What Helm warns of.
    pub warnings: Vec<String>,
}

impl RenderedChart {
    /// What `helm template` prints.
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

/// One document that a chart became: an object, as a rule. What a file of `crds/` contains stays together.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct ChartObject {
    /// The document, and the template in the repository. If that is in an archive, the path goes on inside the archive.
    #[serde(flatten)]
    pub object: Object,
    /// The template as Helm calls it: `chart/templates/web.yaml`.
    #[serde(default)]
    pub source: String,
    /// Whether it comes from `crds/`.
    #[serde(default)]
    pub crd: bool,
    /// What makes it a hook.
    #[serde(default)]
    pub hook: Option<Hook>,
}

/// When a hook runs, and when it is deleted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Hook {
    /// `pre-install`, `post-upgrade`, `test`, …
    pub events: Vec<String>,
    /// Hooks of one event run in the order of their weights.
    #[serde(default)]
    pub weight: i64,
    /// `before-hook-creation`, `hook-succeeded`, `hook-failed`.
    #[serde(default)]
    pub delete_policies: Vec<String>,
}

/// What a template looked up in the cluster.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq)]
#[serde(rename_all = "camelCase")]
pub struct Lookup {
    /// `v1`, `apps/v1`, …
    pub api_version: String,
    /// The kind.
    pub kind: String,
    /// The namespace; empty for all, or for an object that is in none.
    #[serde(default)]
    pub namespace: String,
    /// The name; empty for a list.
    #[serde(default)]
    pub name: String,
}
