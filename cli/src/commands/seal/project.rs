//! `.gitseal.yaml`: which certificate and scope to use for which path, so that sealing needs neither flags nor a
//! cluster.

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use anyhow::Context;
use jiff::Timestamp;
use manifests::IgnoreRules;
use sealing::{Certificate, Scope};
use serde::Deserialize;

use crate::certificate::{self, CertificateTrust, Fingerprint};
use crate::edit;
use crate::global::Global;
use crate::output::Hint;

/// Name of the file with a repository's rules for sealing.
pub(super) const FILE: &str = ".gitseal.yaml";

/// How a file is sealed.
#[derive(Default)]
pub(in crate::commands) struct Rules {
    cert: WhichCert,
    pub(super) scope: Option<Scope>,
}

impl Rules {
    /// Whether `.gitseal.yaml` chose the certificate. Then somebody who can write to the repository chose it.
    pub(in crate::commands) fn chose_cert(&self) -> bool {
        self.cert.is_of_project
    }

    /// Where the certificate comes from, for messages; `None` means the controller.
    pub(in crate::commands) fn cert_place(&self) -> Option<&str> {
        self.cert.place.as_deref()
    }
}

/// Which certificate to seal with.
#[derive(Clone, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct WhichCert {
    /// A file or a URL; `None` means the controller.
    place: Option<String>,
    /// If set, no other certificate is accepted.
    fingerprint: Option<Fingerprint>,
    /// Whether `place` comes from `.gitseal.yaml`.
    is_of_project: bool,
}

/// The certificates in use. Each is fetched once.
pub(in crate::commands) struct Certificates<'g> {
    /// The certificate of the flag, which is used instead of that of any rule.
    flag: Option<String>,
    trust: CertificateTrust,
    global: &'g Global,
    now: Timestamp,
    project: Option<Project>,
    fetched: BTreeMap<WhichCert, Arc<Certificate>>,
}

impl<'g> Certificates<'g> {
    /// # Errors
    /// `.gitseal.yaml` cannot be read.
    pub(in crate::commands) fn new(
        flag: Option<String>,
        trust: CertificateTrust,
        global: &'g Global,
        now: Timestamp,
    ) -> anyhow::Result<Self> {
        let folder = std::env::current_dir().context("cannot find the working directory")?;
        Ok(Self { flag, trust, global, now, project: Project::find(&folder)?, fetched: BTreeMap::new() })
    }

    /// The rules for a file; `None` means standard input.
    ///
    /// # Errors
    /// `.gitseal.yaml` asks for something that is not supported yet.
    pub(in crate::commands) fn rules(&self, file: Option<&Path>) -> anyhow::Result<Rules> {
        let mut rules = match &self.project {
            Some(project) => project.rules(file, self.flag.is_none())?,
            None => Rules::default(),
        };
        if self.flag.is_some() {
            rules.cert = WhichCert { place: self.flag.clone(), ..WhichCert::default() };
        }
        if self.trust.cert_fingerprint.is_some() {
            rules.cert.fingerprint.clone_from(&self.trust.cert_fingerprint);
        }
        Ok(rules)
    }

    /// The certificate that the rules choose.
    ///
    /// # Errors
    /// The certificate cannot be fetched, or it has expired.
    pub(in crate::commands) async fn of(&mut self, rules: &Rules) -> anyhow::Result<Arc<Certificate>> {
        if !self.fetched.contains_key(&rules.cert) {
            let WhichCert { place, fingerprint, .. } = rules.cert.clone();
            let trust = CertificateTrust { cert_fingerprint: fingerprint, ..self.trust.clone() };
            let certificate = certificate::fetch(self.global, place.as_deref(), &trust).await?;
            if certificate.is_expired(self.now) {
                return Err(Hint::error(
                    format!("the sealing certificate expired at {}", certificate.not_after()),
                    "fetch the cluster's newest certificate: `gitseal cert`",
                ));
            }
            self.fetched.insert(rules.cert.clone(), Arc::new(certificate));
        }
        Ok(self.fetched[&rules.cert].clone())
    }
}

/// The folder and those above it, up to the root of its repository (the folder with `.git`). The list ends before a
/// folder of another owner, because anybody may have put a `.gitseal.yaml` into `/tmp`.
fn own_ancestors(folder: &Path) -> impl Iterator<Item = &Path> {
    let own = owner(folder);
    let root = folder.ancestors().find(|ancestor| ancestor.join(".git").exists());
    let is_own = move |ancestor: &&Path| root.is_none_or(|root| ancestor.starts_with(root)) && owner(ancestor) == own;
    folder.ancestors().take_while(is_own)
}

/// The owner of a file or a folder. For a link, this is the owner of the link itself.
#[cfg(unix)]
fn owner(path: &Path) -> Option<u32> {
    use std::os::unix::fs::MetadataExt;
    path.symlink_metadata().ok().map(|metadata| metadata.uid())
}

#[cfg(not(unix))]
fn owner(_: &Path) -> Option<u32> {
    None
}

/// A `.gitseal.yaml` and where it is.
struct Project {
    root: PathBuf,
    clusters: BTreeMap<String, Cluster>,
    rules: Vec<(IgnoreRules, Target)>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ProjectFile {
    #[serde(default)]
    clusters: BTreeMap<String, Cluster>,
    #[serde(default)]
    rules: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Cluster {
    cert: Option<String>,
    /// The fingerprint of the certificate. No other certificate is accepted.
    fingerprint: Option<Fingerprint>,
    #[serde(default)]
    recipients: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleEntry {
    path: String,
    seal: Target,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Target {
    #[serde(rename = "for", default)]
    clusters: Vec<String>,
    scope: Option<String>,
}

impl Project {
    /// The `.gitseal.yaml` in this folder, or in the nearest folder above it in the same repository.
    fn find(folder: &Path) -> anyhow::Result<Option<Self>> {
        let folder = folder.canonicalize().context("cannot find the working directory")?;
        let Some(root) = own_ancestors(&folder).find(|ancestor| ancestor.join(FILE).symlink_metadata().is_ok()) else {
            return Ok(None);
        };
        let path = root.join(FILE);
        if owner(&path) != owner(&folder) {
            return Err(Hint::error(
                format!("{} and the working directory have different owners", path.display()),
                "the author of that file could choose the certificate to seal with: give the file and the folder the \
                 same owner, or work in a folder of your own",
            ));
        }
        let text = edit::read_rules(&path)?.unwrap_or_default();
        Self::parse(root, &text).with_context(|| {
            Hint::new(
                format!("{} is not valid", path.display()),
                "write it in this form: `clusters: {NAME: {cert: FILE-OR-URL, fingerprint: SHA256}}` and `rules: [{path: GLOB, seal: {for: [NAME], scope: SCOPE}}]`",
            )
        }).map(Some)
    }

    fn parse(root: &Path, text: &str) -> anyhow::Result<Self> {
        let file: ProjectFile = serde_saphyr::from_str(text)?;
        let mut rules = Vec::new();
        for RuleEntry { path, seal } in file.rules {
            let mut glob = IgnoreRules::new();
            glob.add("", &path).map_err(|_| anyhow::anyhow!("{path:?} is not a gitignore pattern"))?;
            if let Some(unknown) = seal.clusters.iter().find(|name| !file.clusters.contains_key(*name)) {
                anyhow::bail!("the rule for {path:?} names the cluster {unknown:?}, which is not under `clusters`");
            }
            if let Some(scope) = &seal.scope {
                scope.parse::<Scope>().with_context(|| format!("the rule for {path:?} has an unknown scope"))?;
            }
            rules.push((glob, seal));
        }
        Ok(Self { root: root.to_owned(), clusters: file.clusters, rules })
    }

    /// How a file is sealed. The first rule that matches its path decides. If no rule matches, or the rule names no
    /// cluster, the file is sealed for the cluster in `.gitseal.yaml`, if there is exactly one.
    fn rules(&self, file: Option<&Path>, needs_cert: bool) -> anyhow::Result<Rules> {
        let path = file.and_then(|file| self.path_in_tree(file));
        let target = path.and_then(|path| {
            self.rules.iter().find(|(glob, _)| glob.is_ignored(&path, false)).map(|(_, target)| target)
        });
        let scope = target.and_then(|target| target.scope.as_ref()?.parse().ok());
        if !needs_cert {
            return Ok(Rules { cert: WhichCert::default(), scope });
        }
        let named = target.map(|target| target.clusters.as_slice()).unwrap_or_default();
        let cluster = match named {
            [] if self.clusters.len() == 1 => self.clusters.first_key_value(),
            [] => None,
            [name] => self.clusters.get_key_value(name),
            _ => {
                return Err(Hint::error(
                    format!(
                        "{FILE} asks to seal for several clusters ({}), which is not supported yet",
                        named.join(", ")
                    ),
                    "give each cluster a file and a rule of its own, or name one cluster's certificate with --cert",
                ));
            }
        };
        let cert = match cluster {
            Some((name, cluster)) => WhichCert {
                place: Some(self.certificate(name, cluster)?),
                fingerprint: cluster.fingerprint.clone(),
                is_of_project: true,
            },
            None => WhichCert::default(),
        };
        Ok(Rules { cert, scope })
    }

    fn certificate(&self, name: &str, cluster: &Cluster) -> anyhow::Result<String> {
        match &cluster.cert {
            Some(cert) if cert.contains("://") => Ok(cert.clone()),
            Some(cert) => Ok(self.root.join(cert).display().to_string()),
            None => Err(Hint::error(
                if cluster.recipients.is_empty() {
                    format!("the cluster {name} has no `cert` in {FILE}")
                } else {
                    format!("the cluster {name} has only `recipients` in {FILE}, and age is not supported yet")
                },
                "save the cluster's certificate with `gitseal cert`, and set `cert` to the path of that file",
            )),
        }
    }

    /// The file's path from the folder of `.gitseal.yaml`, with `/` between the parts; `None` if the file is not below
    /// this folder.
    fn path_in_tree(&self, file: &Path) -> Option<String> {
        let absolute = std::path::absolute(file).ok()?;
        // The file may not exist yet. If it is a link, the place of the link counts, not that of its target.
        let absolute = absolute.parent()?.canonicalize().ok()?.join(absolute.file_name()?);
        let parts = absolute.strip_prefix(&self.root).ok()?.components().map(|part| match part {
            Component::Normal(name) => name.to_str(),
            _ => None,
        });
        Some(parts.collect::<Option<Vec<_>>>()?.join("/"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(root: &Path) -> Project {
        let text = "clusters:\n  production: {cert: keys/production.pem}\n  staging: {cert: 'https://staging.example/cert.pem'}\n  \
            future: {recipients: [age1pq1x]}\nrules:\n- path: clusters/production/**\n  seal: {for: [production], scope: namespace-wide}\n\
            - path: '*.staging.yaml'\n  seal: {for: [staging]}\n- path: both/\n  seal: {for: [staging, production]}\n\
            - path: future/\n  seal: {for: [future]}\n";
        Project::parse(root, text).unwrap()
    }

    #[test]
    fn the_first_rule_that_fits_decides() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        let (project, deep) = (project(&root), root.join("clusters/production/db"));
        std::fs::create_dir_all(&deep).unwrap();
        let rules = |file: PathBuf| project.rules(Some(&file), true).unwrap();
        let production = rules(deep.join("a.yaml"));
        assert_eq!(production.cert.place.map(PathBuf::from), Some(root.join("keys/production.pem")));
        assert_eq!(production.scope, Some(Scope::NamespaceWide));
        let staging = rules(root.join("a.staging.yaml"));
        assert_eq!((staging.cert.place.as_deref(), staging.scope), (Some("https://staging.example/cert.pem"), None));
        assert_eq!(rules(root.join("other.yaml")).cert.place, None, "no rule, and more than one cluster");
        assert_eq!(project.rules(None, true).unwrap().cert.place, None);
    }

    #[test]
    fn what_cannot_be_done_yet_is_refused_with_a_reason() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        for part in ["both", "future"] {
            std::fs::create_dir(root.join(part)).unwrap();
            let file = root.join(part).join("a.yaml");
            let error = project(&root).rules(Some(&file), true).err().unwrap();
            assert!(error.to_string().contains("not supported yet"), "{error}");
            assert_eq!(project(&root).rules(Some(&file), false).unwrap().cert.place, None, "--cert decides");
        }
    }

    #[test]
    fn the_only_cluster_needs_no_rule() {
        let project = Project::parse(Path::new("/repo"), "clusters: {one: {cert: one.pem}}\n").unwrap();
        assert_eq!(project.rules(None, true).unwrap().cert.place.as_deref(), Some("/repo/one.pem"));
    }

    #[test]
    fn mistakes_are_found_when_it_is_read() {
        for text in [
            "cluster: {}\n",
            "rules:\n- path: a\n  seal: {for: [x]}\n",
            "rules:\n- path: a\n  seal: {scope: wide}\n",
            "rules: [{path: '[z-a]', seal: {}}]\n",
            "clusters: {a: {cert: a.pem, fingerprint: 'sha256:12'}}\n",
        ] {
            assert!(Project::parse(Path::new("/repo"), text).is_err(), "{text}");
        }
    }
}
