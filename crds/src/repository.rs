//! `Repository`: where manifests and charts come from.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Condition, LocalReference};

/// Which Git repository to fetch, and which branch, tag or commit of it; or which chart of a chart repository, or chart or other
/// artifact of an OCI registry, and which version of it.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "gitseal.dev",
    version = "v1alpha1",
    kind = "Repository",
    plural = "repositories",
    shortname = "repo",
    category = "gitseal",
    namespaced,
    status = "RepositoryStatus",
    derive = "PartialEq",
    doc = "A source of manifests that gitseal applies: a Git repository, a chart of a chart repository, or a chart or another artifact of an OCI registry.",
    printcolumn(name = "URL", type_ = "string", json_path = ".spec.url"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type==\"Ready\")].status"),
    printcolumn(name = "Revision", type_ = "string", json_path = ".status.revision"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"Ready\")].message",
        priority = 1
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.url.startsWith('http://') || !has(self.secretRef)")
    .message("credentials are not sent over plain http: use https, or remove secretRef"))]
#[x_kube(validation = Rule::new("!self.url.startsWith('oci://') || has(self.ref) && !has(self.ref.branch) && !has(self.ref.commit)")
    .message("a registry has neither branches nor commits: set ref.tag, ref.semver or ref.digest"))]
#[x_kube(validation = Rule::new("has(self.secretRef) || !self.url.matches('^(ssh://|[^@/:]+@[^/:]+:)')")
    .message("Git over SSH needs a private key and known_hosts: name a Secret with them in secretRef"))]
#[x_kube(validation = Rule::new("!has(self.chart) || self.url.matches('^https?://')")
    .message("chart is only for https:// and http:// URLs of chart repositories; in a registry, the name of the chart is part of the URL"))]
#[x_kube(validation = Rule::new("!has(self.chart) || !has(self.ref) || !has(self.ref.branch) && !has(self.ref.commit)")
    .message("a chart has versions only: set ref.tag, ref.semver or ref.digest, or nothing for the newest version"))]
#[x_kube(validation = Rule::new("self.url.startsWith('oci://') || has(self.chart) || !has(self.ref) || !has(self.ref.digest)")
    .message("ref.digest is only for charts and for oci:// URLs; a Git repository has ref.commit"))]
pub struct RepositorySpec {
    /// URL of a Git repository: `https://…`, or `http://…` if there is no `secretRef`. `file:///…` is allowed only if the
    /// controller runs with `--allow-file-urls`. `ssh://user@host/path` or `user@host:path`, with a `secretRef`. Or `oci://host/name`: a
    /// chart or another artifact of an OCI registry. With `chart`: the `http(s)://` URL of a chart repository, as for `helm repo add`.
    #[schemars(
        length(min = 1, max = 2048),
        regex(pattern = r"^(https?://|oci://|ssh://|file:///|[^@/\s]+@[^:/\s]+:)\S+$")
    )]
    #[x_kube(validation = Rule::new("!self.matches('^[a-z]+://[^/@]*:[^/@]*@')")
        .message("a password in the URL would be stored in plain sight: use secretRef"))]
    pub url: String,
    /// The name of a chart. If it is set, `url` is the URL of a chart repository: of the folder with its `index.yaml`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 250), regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]*$"))]
    pub chart: Option<String>,
    /// The branch, tag, version or commit to apply. Default: the default branch of the Git server, or the newest version of a chart
    /// that is no pre-release. A registry has no default.
    #[serde(default, rename = "ref", skip_serializing_if = "Option::is_none")]
    pub reference: Option<GitReference>,
    /// How often the server is asked for a new commit or archive, for example `1m`. At least `1s`.
    #[serde(default = "default_interval")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s')").message("the interval must be at least 1s"))]
    pub interval: String,
    /// How long one fetch may take, from `1s` to `10m`.
    #[serde(default = "default_timeout")]
    #[schemars(length(max = 32), regex(pattern = r"^([0-9]+(\.[0-9]+)?(ms|s|m|h))+$"))]
    #[x_kube(validation = Rule::new("duration(self) >= duration('1s') && duration(self) <= duration('10m')")
        .message("the timeout must be between 1s and 10m: a fetch that hangs keeps others waiting"))]
    pub timeout: String,
    /// A Secret in the same namespace with the credentials for the server: `username` and `password`, or `bearerToken`; for a
    /// registry also `.dockerconfigjson`. It may also have `ca.crt`: certificate authorities to trust besides those of the system.
    /// For Git over SSH: `identity` (the private key), `known_hosts`, and `password` if the key has a passphrase.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
    /// Other repositories that renders may use: Git repositories for remote bases of kustomizations, for example
    /// `https://host/team/app//base?ref=v1.2.3`; chart repositories and registries for charts that other charts depend on and that
    /// their `Chart.lock` names. The controller fetches them. What has no entry is refused. `verify` does not hold for them: nobody
    /// checks their signatures.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub remotes: Vec<AllowedRemote>,
    /// Which artifacts and charts may be used: all (`mode: None`, the default), or only those that a trusted key signed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verification>,
    /// If true, nothing new is fetched. Applied objects stay, and changes that others make to them are still put back.
    #[serde(default)]
    pub suspend: bool,
}

/// Other repositories that renders may use.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!self.url.startsWith('http://') || !has(self.secretRef)")
    .message("credentials are not sent over plain http: use https, or remove secretRef"))]
pub struct AllowedRemote {
    /// URL of a Git repository or chart repository, `https://…`, or `http://…` if there is no `secretRef`; or of a chart in a
    /// registry, `oci://host/name`. If it ends with `/`, it allows everything below it.
    #[schemars(length(min = 1, max = 1024), regex(pattern = r"^(https?|oci)://[^@?#%;\\\s]+$"))]
    pub url: String,
    /// A Secret in the same namespace with the credentials for these repositories, with the same keys as in `spec.secretRef`.
    /// Credentials of the Repository itself are never sent to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

fn default_interval() -> String {
    "1m".into()
}

fn default_timeout() -> String {
    "60s".into()
}

/// The branch, tag, version or commit to apply. Exactly one field must be set, except that `tag` and `digest` may be
/// set together.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("[has(self.branch), has(self.tag), has(self.semver), has(self.commit), has(self.digest) && !has(self.tag)].filter(x, x).size() == 1")
    .message("set exactly one of branch, tag, semver, commit and digest; only tag and digest may be set together"))]
pub struct GitReference {
    /// Name of a branch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub branch: Option<String>,
    /// Name of a tag.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub tag: Option<String>,
    /// A range of versions, for example `>=1.2 <2`. The tag with the highest version in the range is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255))]
    pub semver: Option<String>,
    /// The hash of a commit, in full: 40 hexadecimal digits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^[0-9a-f]{40}$"))]
    pub commit: Option<String>,
    /// The digest of a manifest in a registry, as `helm push` prints it, or of an archive in a chart repository, as its index names
    /// it: `sha256:` and 64 hexadecimal digits. If the tag leads to
    /// another digest, nothing new is applied. With `tag`, it also accepts another digest for a version that was fetched before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^sha256:[0-9a-f]{64}$"))]
    pub digest: Option<String>,
}

/// Which commits may be applied.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("self.mode == 'None' || has(self.secretRef)")
    .message("the modes Head, Cosign and Provenance need secretRef: a Secret with the trusted keys"))]
pub struct Verification {
    /// `None`: whatever is fetched is applied. `Cosign`: an artifact of an OCI registry must have a valid signature of cosign by
    /// a trusted key. `Provenance`: a chart of a chart repository must have a provenance file (`.prov`) with a valid signature of
    /// OpenPGP by a trusted key. `Head`: the fetched commit must have a valid signature. `Head` is not supported yet: a Repository
    /// with it is refused.
    #[serde(default)]
    pub mode: VerificationMode,
    /// A Secret of the same namespace with the trusted keys. For `mode: Cosign`, these are all its entries whose name ends in
    /// `.pub`, for example `cosign.pub`: public keys in PEM. For `mode: Provenance`, all its entries whose name ends in `.asc` or
    /// `.gpg`: public keys of OpenPGP.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalReference>,
}

/// See [`Verification::mode`].
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
pub enum VerificationMode {
    /// Whatever is fetched is applied.
    #[default]
    None,
    /// The fetched commit must have a valid signature by a trusted key.
    Head,
    /// The fetched artifact must have a valid signature of cosign by a trusted key.
    Cosign,
    /// The fetched chart must have a provenance file that a trusted key signed.
    Provenance,
}

/// The result of the last fetch.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RepositoryStatus {
    /// The `metadata.generation` that the controller handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The last fetched commit, as `reference@sha1:hash`, for example `main@sha1:4f1c…`; or the last fetched archive, as
    /// `version@sha256:digest`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<String>,
    /// When `revision` was first fetched (RFC 3339).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fetched_at: Option<String>,
    /// The versions of the chart or artifact that were fetched, each with its digest. The same version with another digest is not
    /// used, unless `spec.ref.digest` names this digest. At most 32 versions; the one that was used last is the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<VersionDigest>,
    /// The remote bases and charts that were fetched, each with what its `ref` led to at that time. This is used from then on, even if
    /// the tag is moved, until somebody accepts what it leads to now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remotes: Vec<RemoteRevision>,
    /// The value of the annotation `gitseal.dev/reconcile-requested-at` that the controller handled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_handled_reconcile_at: Option<String>,
    /// `Ready`. During the first fetch and while a failed fetch is tried again, also `Reconciling`. While only a change
    /// by somebody can help, also `Stalled`.
    #[serde(default)]
    pub conditions: Vec<Condition>,
}

/// A version of a chart or another artifact that was fetched.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VersionDigest {
    /// URL of the chart repository, or of the chart or artifact in a registry.
    pub url: String,
    /// The name of the chart, if it is in a chart repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart: Option<String>,
    /// The version.
    pub version: String,
    /// `sha256:` and the digest of the archive or manifest.
    pub digest: String,
    /// When it was fetched first with this digest (RFC 3339).
    pub fetched_at: String,
}

/// A remote base that was fetched.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RemoteRevision {
    /// URL of the Git repository, the chart repository, or the chart in a registry.
    pub url: String,
    /// The name of the chart, if it is in a chart repository.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chart: Option<String>,
    /// The tag or commit that kustomizations name, or the version of the chart.
    #[serde(rename = "ref")]
    pub reference: String,
    /// What is used: `sha1:` and the hash of the commit, or `sha256:` and the digest of the archive or manifest.
    pub revision: String,
    /// What `ref` leads to now, if that is something else. It is used as soon as the Repository has the annotation
    /// `gitseal.dev/accept-moved` with this value.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub moved: Option<String>,
}
