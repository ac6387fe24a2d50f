//! What the URLs of remote bases and the entries of a `Chart.lock` mean.
//!
//! The URLs mean what they mean to Kustomize, or are refused with the form to write. A reference is a tag or a commit.

use crate::{
    Reference, RevisionId, is_commit_id,
    url::{CHARTS, OCI, chart_url, is_chart_name, redact},
};

/// The most bytes of the URL of a remote base.
const URL_BYTES: usize = 1024;
/// What is between the URL of a repository and the path of a folder in it.
const OF_REMOTE: &str = "//";

/// Another repository at one reference, which a kustomization names, or another chart at one version.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct RemoteRepository {
    /// Its URL, in one form for all that lead to the same server and path. For a chart of a chart repository, see [`chart_url`].
    pub url: String,
    /// A tag, the hash of a commit, or the version of a chart.
    pub reference: String,
}

impl RemoteRepository {
    /// The repository with this URL, or this chart of the chart repository with this URL.
    pub fn new(url: &str, chart: Option<&str>, reference: &str) -> Self {
        let url = chart.map_or_else(|| url.to_owned(), |chart| chart_url(url, chart));
        Self { url, reference: reference.to_owned() }
    }

    /// The URL for people, and the name of the chart if it is in a chart repository.
    pub fn place(&self) -> (&str, Option<&str>) {
        match self.url.strip_prefix(CHARTS).map(|url| url.rsplit_once('#').unwrap_or((url, ""))) {
            Some((url, chart)) => (url, Some(chart)),
            None => (&self.url, None),
        }
    }

    /// What names it in the paths of its files, and in messages.
    pub fn root(&self) -> String {
        format!("{}@{}", self.url.strip_prefix(CHARTS).unwrap_or(&self.url), self.reference)
    }

    /// The text that names it on a command line, without its folders: a URL with `?ref=` as in a kustomization,
    /// `oci://host/name:version`, or the URL of a chart's archive.
    pub fn text(&self) -> String {
        let reference = &self.reference;
        match self.place() {
            (url, Some(chart)) => format!("{}/{chart}-{reference}.tgz", url.trim_end_matches('/')),
            (url, None) if self.is_chart() => format!("{url}:{reference}"),
            (url, None) => {
                let short = format!("{url}?ref={reference}");
                let is_same = remote_base(&short).is_ok_and(|(one, folder)| one == *self && folder.is_empty());
                if is_same { short } else { format!("{url}{OF_REMOTE}?ref={reference}") }
            }
        }
    }

    /// The remote repository or chart that such a text names. A folder in the URL of a remote base does not matter.
    ///
    /// # Errors
    /// The text names nothing that is used, and why.
    pub fn of_text(text: &str) -> Result<Self, String> {
        let (above, last) = text.rsplit_once('/').unwrap_or((text, ""));
        let wrong = |why: &str| format!("'{}' {why}", redact(text));
        if text.starts_with(OCI) {
            let (_, version) = last
                .split_once(':')
                .filter(|(name, version)| !name.is_empty() && !version.is_empty())
                .ok_or_else(|| wrong("names no version: write it like oci://host/name:6.5.0"))?;
            let url = &text[..text.len() - version.len() - 1];
            return Ok(Self::new(&canonical(url).map_err(|why| wrong(&why))?, None, version));
        }
        let Some(name) = last.strip_suffix(".tgz") else { return remote_base(text).map(|(remote, _)| remote) };
        // Names of charts and versions may both have hyphens.
        let mut parts = name.match_indices('-').map(|(at, _)| (&name[..at], &name[at + 1..]));
        let chart = parts.find_map(|(chart, version)| remote_chart(above, chart, version).ok());
        chart.ok_or_else(|| wrong("is no URL of a chart: write it like https://host/charts/NAME-VERSION.tgz"))
    }

    /// Whether it is a chart, and not a Git repository.
    pub fn is_chart(&self) -> bool {
        self.place().1.is_some() || self.url.starts_with(OCI)
    }

    /// What to fetch.
    pub fn reference(&self) -> Reference {
        let reference = self.reference.clone();
        let is_commit = is_commit_id(&reference) && !self.is_chart();
        if is_commit { Reference::Commit(reference) } else { Reference::Tag(reference) }
    }

    /// What to fetch if it led to this before.
    pub fn pinned(&self, id: &RevisionId) -> Reference {
        match id {
            RevisionId::Commit(commit) => Reference::Commit(commit.clone()),
            RevisionId::Archive(digest) => Reference::Digest { tag: self.reference.clone(), digest: digest.clone() },
        }
    }

    /// The message if no entry of `spec.remotes` allows it.
    pub fn not_allowed(&self) -> String {
        format!(
            "{}: the Repository does not allow this: add the URL {} to spec.remotes of the Repository, or add the files to the repository",
            self.root(),
            self.place().0
        )
    }

    /// Whether an entry of `spec.remotes` with this URL allows it. A URL that ends with `/` allows all repositories below it.
    pub fn is_allowed_by(&self, allowed: &str) -> bool {
        let Ok(allowed) = canonical(allowed) else { return false };
        let of_git = |url: &str| url.strip_suffix(".git").unwrap_or(url).to_owned();
        match (allowed.strip_suffix('/'), self.place()) {
            // Other people write the URL of a chart repository with or without a slash at its end.
            (Some(above), (url, Some(_))) => url == above || url.starts_with(&allowed),
            (Some(_), (url, None)) => url.strip_prefix(&allowed).is_some_and(|rest| !rest.is_empty()),
            (None, (url, Some(_))) => url == allowed,
            (None, (url, None)) if self.is_chart() => url == allowed,
            (None, (url, None)) => of_git(url) == of_git(&allowed),
        }
    }
}

/// The remote repository that an entry of a kustomization names, and the folder in it.
///
/// # Errors
/// It is not used, and why.
pub fn remote_base(entry: &str) -> Result<(RemoteRepository, String), String> {
    parsed(entry).map_err(|why| format!("'{}' {why}", redact(entry)))
}

fn parsed(entry: &str) -> Result<(RemoteRepository, String), String> {
    let wrong = |why: &str| Err(format!("{why}; write it like https://host/team/repository//folder?ref=v1.2.3"));
    if entry.len() > URL_BYTES || !entry.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'\\') {
        return wrong("is not a usable URL: it is too long, or has other characters than those of a URL");
    }
    let (rest, query) = entry.split_once('?').unwrap_or((entry, ""));
    let lower = rest.to_ascii_lowercase();
    if lower.starts_with("git::") {
        return wrong("begins with git::, which is not supported");
    }
    let is_https = lower.starts_with("https://");
    let (scheme, rest) = match lower.find("://") {
        // As with Kustomize, whatever the scheme is.
        Some(end) if is_https || lower.starts_with("http://") => match lower[end + 3..].strip_prefix("github.com/") {
            Some(_) => ("https", &rest[end + 3..]),
            None => (if is_https { "https" } else { "http" }, &rest[end + 3..]),
        },
        Some(_) => return wrong("has a scheme that is not supported for remote bases: only https:// is"),
        None if lower.starts_with("github.com/") => ("https", rest),
        None => return wrong("is remote, and ssh is not supported for remote bases: only https:// is"),
    };
    let Some((host, path)) = rest.split_once('/') else { return wrong("has no path to a repository") };
    if query.is_empty() && [".yaml", ".yml", ".json"].iter().any(|end| lower.ends_with(end)) {
        return Err("is a remote file, and files are not fetched by URL: add it to the repository".to_owned());
    }
    let (repository, folder) = split(path)?;
    let url = canonical(&format!("{scheme}://{host}/{repository}"))?;
    if url.ends_with('/') {
        return wrong("has no path to a repository");
    }
    let names: Vec<_> = folder.split('/').filter(|name| !matches!(*name, "" | ".")).collect();
    if names.contains(&"..") {
        return wrong("has a folder with '..'");
    }
    Ok((RemoteRepository { url, reference: reference(query)? }, names.join("/")))
}

/// The chart that a chart depends on, as its `Chart.lock` names it.
///
/// # Errors
/// It is not used, and why.
pub fn remote_chart(repository: &str, name: &str, version: &str) -> Result<RemoteRepository, String> {
    let wrong = |why: &str| Err(format!("the chart {name:?} of the repository '{}' {why}", redact(repository)));
    let vendor = "run `helm dependency build`, and commit charts/";
    if repository.len() > URL_BYTES || !is_chart_name(name) {
        return wrong("has a name or a repository that cannot be used");
    }
    if crate::version(version).is_none() {
        return wrong("has no whole version in Chart.lock: run `helm dependency update`");
    }
    let lower = repository.to_ascii_lowercase();
    if !["https://", "http://", OCI].iter().any(|scheme| lower.starts_with(scheme)) {
        return wrong(&format!("is not in a chart repository (https://) or registry (oci://): {vendor}"));
    }
    let url = match canonical(repository.trim_end_matches('/')) {
        Ok(url) => url,
        Err(why) => return wrong(&format!("is not fetched, because the URL {why}: {vendor}")),
    };
    Ok(if url.starts_with(OCI) {
        RemoteRepository::new(&format!("{url}/{name}"), None, version)
    } else {
        RemoteRepository::new(&url, Some(name), version)
    })
}

/// Where Kustomize ends the path of a repository and begins that of a folder in it.
fn split(path: &str) -> Result<(String, &str), String> {
    const DEVOPS: &str = "_git/";
    if let Some(at) = path.find(DEVOPS) {
        let (above, below) = path.split_at(at + DEVOPS.len());
        let (name, folder) = below.split_once('/').unwrap_or((below, ""));
        return Ok((format!("{above}{name}"), folder));
    }
    if let Some((repository, folder)) = path.split_once(OF_REMOTE) {
        return Ok((repository.to_owned(), folder));
    }
    if let Some(at) = path.find(".git") {
        let (repository, folder) = path.split_at(at + ".git".len());
        if !folder.is_empty() && !folder.starts_with('/') {
            // Kustomize would end the repository in the middle of a name.
            return Err(
                "does not say where the repository ends: write // between the repository and the folder".to_owned()
            );
        }
        return Ok((repository.to_owned(), folder));
    }
    let second = path.match_indices('/').nth(1).map_or(path.len(), |(at, _)| at);
    let (repository, folder) = path.split_at(second);
    if !repository.contains('/') {
        return Err("does not say where the repository ends: write // between the repository and the folder".to_owned());
    }
    Ok((repository.to_owned(), folder))
}

/// The tag or commit in the query of a URL.
fn reference(query: &str) -> Result<String, String> {
    let mut found: Option<&str> = None;
    for part in query.split('&').filter(|part| !part.is_empty()) {
        let (name, value) = part.split_once('=').unwrap_or((part, ""));
        match name {
            "ref" | "version" if found.is_none() => found = Some(value),
            "ref" | "version" => return Err("names two references: keep one `ref`".to_owned()),
            // A fetch takes at most spec.timeout of the Repository.
            "timeout" => {}
            "submodules" if matches!(value, "false" | "0" | "f" | "F" | "False" | "FALSE") => {}
            "submodules" => return Err("asks for submodules, which are not fetched".to_owned()),
            _ => {
                let name: String = name.chars().take(20).collect();
                return Err(format!("has '{name}' in its query: only `ref` has a meaning here"));
            }
        }
    }
    let found = found.unwrap_or_default();
    if found.is_empty() {
        return Err(
            "names no version, so it could change at any time: add ?ref= with a tag or the full hash of a commit"
                .to_owned(),
        );
    }
    let is_usable = |byte: u8| byte.is_ascii_alphanumeric() || b"._-/".contains(&byte);
    if !found.bytes().all(is_usable)
        || found.starts_with(['-', '/', '.'])
        || found.contains("..")
        || found.contains(OF_REMOTE)
        || found.ends_with('/')
    {
        return Err("has a `ref` that is neither a tag nor the full hash of a commit, or with characters other than letters, digits, '.', '_', '-' and '/'".to_owned());
    }
    Ok(found.strip_prefix("refs/tags/").unwrap_or(found).to_owned())
}

/// The path of the URL of an entry of `spec.remotes`.
pub fn allowed_path(allowed: &str) -> Option<String> {
    let url = canonical(allowed).ok()?;
    let (_, rest) = url.split_once("://")?;
    Some(rest.find('/').map(|at| rest[at..].to_owned()).unwrap_or_default())
}

/// The one form of a URL: without a user, a default port and upper-case letters in the host. A slash at the end stays.
///
/// # Errors
/// The URL is refused, and why.
fn canonical(url: &str) -> Result<String, String> {
    let lower = url.to_ascii_lowercase();
    let (scheme, port) = match () {
        () if lower.starts_with(OCI) => ("oci", ":443"),
        () if lower.starts_with("https://") => ("https", ":443"),
        () if lower.starts_with("http://") => ("http", ":80"),
        () => return Err("is no https:// URL".to_owned()),
    };
    let rest = &url[scheme.len() + 3..];
    let (authority, path) = match rest.find('/') {
        Some(at) => rest.split_at(at),
        None => (rest, ""),
    };
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host).to_ascii_lowercase();
    if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains([':', '@'])) {
        return Err("has a password, which everybody can read who can read the repository: set secretRef in spec.remotes of the Repository".to_owned());
    }
    let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b"-.:[]".contains(&byte);
    if host.is_empty() || !host.bytes().all(is_of_host) {
        return Err("has a host that is not usable".to_owned());
    }
    let inner = path.strip_suffix('/').unwrap_or(path).strip_prefix('/').unwrap_or_default();
    let is_wrong = |name: &str| matches!(name, "" | "." | "..");
    if !inner.is_empty() && inner.split('/').any(is_wrong) || path.contains(['%', '\\', '?', '#', '@', ';']) {
        return Err("has a path with '.', '..', empty names, or one of % \\ # @ ;, which would have several meanings"
            .to_owned());
    }
    let host = host.strip_suffix(port).unwrap_or(&host);
    Ok(format!("{scheme}://{host}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn base(entry: &str) -> (String, String, String) {
        let (RemoteRepository { url, reference }, folder) =
            remote_base(entry).unwrap_or_else(|why| panic!("{entry} {why}"));
        (url, folder, reference)
    }

    #[test]
    fn urls_mean_what_they_mean_to_kustomize() {
        for (entry, url, folder) in [
            ("https://git.example/team/app//deploy/base?ref=v1", "https://git.example/team/app", "deploy/base"),
            ("https://git.example/team/app/deploy/base?ref=v1", "https://git.example/team/app", "deploy/base"),
            ("https://git.example/team/app?ref=v1", "https://git.example/team/app", ""),
            ("https://git.example/team/app.git?ref=v1", "https://git.example/team/app.git", ""),
            ("https://git.example/a/b/c/app.git/deploy?ref=v1", "https://git.example/a/b/c/app.git", "deploy"),
            ("https://git.example/a/b/c/app//deploy?ref=v1", "https://git.example/a/b/c/app", "deploy"),
            ("https://git.example/app//?ref=v1", "https://git.example/app", ""),
            ("https://me@dev.example/org/x/_git/app/deploy?ref=v1", "https://dev.example/org/x/_git/app", "deploy"),
            ("github.com/team/app/deploy?ref=v1", "https://github.com/team/app", "deploy"),
            ("http://GitHub.com/team/app//deploy?ref=v1", "https://github.com/team/app", "deploy"),
            (
                "HTTPS://Git.Example:443/Team/app//deploy/./?ref=v1&timeout=90s&submodules=false",
                "https://git.example/Team/app",
                "deploy",
            ),
            ("http://git.example:8080/team/app//deploy?version=v1", "http://git.example:8080/team/app", "deploy"),
            ("https://git.example/team/app//deploy?ref=refs/tags/v1", "https://git.example/team/app", "deploy"),
        ] {
            assert_eq!(base(entry), (url.to_owned(), folder.to_owned(), "v1".to_owned()), "{entry}");
        }
        let commit = "4f1c".repeat(10);
        let (remote, _) = remote_base(&format!("https://git.example/team/app?ref={commit}")).unwrap();
        assert_eq!(remote.reference(), Reference::Commit(commit));
        let (remote, _) = remote_base("https://git.example/team/app?ref=release/v1").unwrap();
        assert_eq!(
            (remote.reference(), remote.root().as_str()),
            (Reference::Tag("release/v1".into()), "https://git.example/team/app@release/v1")
        );
    }

    #[test]
    fn what_would_have_several_meanings_is_refused() {
        for (entry, why) in [
            ("https://git.example/team/app//deploy", "add ?ref="),
            ("https://git.example/team/app?ref=", "add ?ref="),
            ("https://git.example/team/app?ref=v1&ref=v2", "two references"),
            ("https://git.example/team/app?ref=v1&depth=1", "'depth'"),
            ("https://git.example/team/app?ref=v1&submodules=true", "submodules"),
            ("https://git.example/team/app?ref=v1%2E0", "`ref`"),
            ("https://git.example/team/app?ref=--upload-pack=x", "`ref`"),
            ("https://git.example/team/app?ref=a/../b", "`ref`"),
            ("https://git.example/team/app?ref=a//b", "`ref`"),
            ("https://git.example/team/app?ref=a@b", "`ref`"),
            ("https://git.example/team/app//../x?ref=v1", "'..'"),
            ("https://git.example/team/../app//x?ref=v1", "'..'"),
            ("https://git.example/team/%2e%2e/app//x?ref=v1", "one of %"),
            ("https://git.example//team/app?ref=v1", "empty names"),
            ("https://git.example/app?ref=v1", "write //"),
            ("https://git.example/team/my.github.io/deploy?ref=v1", "write //"),
            ("https://me:hunter2@git.example/team/app?ref=v1", "has a password"),
            ("https://git.example@evil.example@x/team/app?ref=v1", "has a password"),
            ("https://git.example\\@evil.example/team/app?ref=v1", "write"),
            ("https://git.example?ref=v1", "no path"),
            ("https:///team/app?ref=v1", "host"),
            ("https://git.example/all.yaml", "remote file"),
            ("https://files.example/team/app/all.yaml", "remote file"),
            ("ssh://git@git.example/team/app?ref=v1", "scheme"),
            ("file:///srv/app?ref=v1", "scheme"),
            ("git@github.com:team/app?ref=v1", "ssh"),
            ("github.com:team/app?ref=v1", "ssh"),
            ("git::https://git.example/team/app?ref=v1", "git::"),
            ("https://git.example/team/app#x?ref=v1", "# @"),
            ("https://git.example/team/äpp?ref=v1", "not a usable URL"),
        ] {
            let told = remote_base(entry).expect_err(entry);
            assert!(told.contains(why) && !told.contains("hunter2"), "{entry}: {told}");
        }
        assert!(remote_base(&format!("https://git.example/team/app//{}?ref=v1", "a".repeat(2000))).is_err());
    }

    #[test]
    fn only_what_a_repository_allows_is_allowed() {
        for (allowed, entry, is) in [
            ("https://git.example/team/app", "https://git.example/team/app//x?ref=v1", true),
            ("https://git.example/team/app", "https://git.example/team/app.git//x?ref=v1", true),
            ("https://git.example/team/app.git", "https://GIT.example:443/team/app//x?ref=v1", true),
            ("https://git.example/team/", "https://git.example/team/app//x?ref=v1", true),
            ("https://git.example/", "https://git.example/team/app//x?ref=v1", true),
            ("https://git.example/team/app", "https://git.example/team/App//x?ref=v1", false),
            ("https://git.example/team/app", "https://git.example/team/app2//x?ref=v1", false),
            ("https://git.example/team/app", "https://git.example/team/app/x//y?ref=v1", false),
            ("https://git.example/team/", "https://git.example/team2/app//x?ref=v1", false),
            ("https://git.example/team", "https://git.example/team/app//x?ref=v1", false),
            ("https://git.example/", "https://git.example:8443/team/app//x?ref=v1", false),
            ("https://git.example/", "http://git.example/team/app//x?ref=v1", false),
            ("https://git.example/", "https://git.example.evil.example/team/app//x?ref=v1", false),
            ("https://git.example/", "https://git.example@evil.example/team/app//x?ref=v1", false),
            ("https://git.example", "https://git.example/team/app//x?ref=v1", false),
            ("not a url", "https://git.example/team/app//x?ref=v1", false),
        ] {
            let (remote, _) = remote_base(entry).unwrap_or_else(|why| panic!("{entry} {why}"));
            assert_eq!(remote.is_allowed_by(allowed), is, "{allowed} {entry}");
        }
    }

    #[test]
    fn a_text_on_a_command_line_names_the_same_again() {
        for (text, url, reference) in [
            ("https://git.example/team/app?ref=v1", "https://git.example/team/app", "v1"),
            ("https://git.example/a/b/app//?ref=v1", "https://git.example/a/b/app", "v1"),
            ("https://git.example/app//?ref=v1", "https://git.example/app", "v1"),
            ("https://git.example/team/app.git?ref=v1", "https://git.example/team/app.git", "v1"),
            ("oci://registry.example:5000/team/cache:1.2.3", "oci://registry.example:5000/team/cache", "1.2.3"),
            ("oci://registry.example/cache:1.2.3", "oci://registry.example/cache", "1.2.3"),
            (
                "https://charts.example/stable/my-cache-2-1.2.3-rc.1.tgz",
                "charts+https://charts.example/stable#my-cache-2",
                "1.2.3-rc.1",
            ),
        ] {
            let remote = RemoteRepository::of_text(text).unwrap();
            assert_eq!((remote.url.as_str(), remote.reference.as_str()), (url, reference));
            assert_eq!(remote.text(), text);
        }
        // What a kustomization has can be given as it is written there.
        let (base, _) = remote_base("https://me@Git.example:443/team/app//deploy?ref=v1&timeout=9s").unwrap();
        assert_eq!(
            RemoteRepository::of_text("https://me@Git.example:443/team/app//deploy?ref=v1&timeout=9s"),
            Ok(base)
        );
        let chart = remote_chart("https://charts.example/stable/", "cache", "1.2.3").unwrap();
        assert_eq!(RemoteRepository::of_text(&chart.text()), Ok(chart));
        for (text, why) in [
            ("https://git.example/team/app", "add ?ref="),
            ("oci://registry.example/cache", "names no version"),
            ("oci://registry.example:5000/cache:", "names no version"),
            ("https://charts.example/cache.tgz", "NAME-VERSION.tgz"),
            ("https://charts.example/cache-latest.tgz", "NAME-VERSION.tgz"),
            ("https://me:hunter2@git.example/team/app?ref=v1", "has a password"),
            ("oci://me:hunter2@registry.example/cache:1", "has a password"),
            ("git@git.example:team/app?ref=v1", "ssh"),
        ] {
            let told = RemoteRepository::of_text(text).expect_err(text);
            assert!(told.contains(why) && !told.contains("hunter2"), "{text}: {told}");
        }
    }

    #[test]
    fn charts_are_named_as_in_a_lock() {
        let digest = RevisionId::Archive("4f1c".repeat(16));
        for (repository, root) in [
            ("https://Charts.example:443/stable/", "https://charts.example/stable#cache@1.2.3"),
            ("oci://registry.example:5000/team", "oci://registry.example:5000/team/cache@1.2.3"),
        ] {
            let chart = remote_chart(repository, "cache", "1.2.3").unwrap();
            assert_eq!(chart.root(), root);
            assert_eq!(chart.reference(), Reference::Tag("1.2.3".into()));
            assert!(matches!(chart.pinned(&digest), Reference::Digest { tag, .. } if tag == "1.2.3"));
            let (url, name) = chart.place();
            assert_eq!(RemoteRepository::new(url, name, "1.2.3"), chart);
        }
        let of = |repository: &str| remote_chart(repository, "cache", "1.2.3").unwrap();
        for (allowed, repository, is) in [
            ("https://charts.example/stable", "https://charts.example/stable/", true),
            ("https://charts.example/stable/", "https://charts.example/stable", true),
            ("https://charts.example/", "https://charts.example/stable", true),
            ("https://charts.example/stable", "https://charts.example/stable/more", false),
            ("https://charts.example/stable", "http://charts.example/stable", false),
            ("https://charts.example/stable", "oci://charts.example/stable", false),
            ("oci://charts.example/stable/", "oci://charts.example/stable", true),
            ("oci://charts.example/stable/cache", "oci://charts.example/stable", true),
            ("oci://charts.example/stable", "oci://charts.example/stable", false),
            ("oci://charts.example/stab", "oci://charts.example/stable", false),
        ] {
            assert_eq!(of(repository).is_allowed_by(allowed), is, "{allowed} {repository}");
        }
        for (repository, name, version) in [
            ("", "cache", "1.2.3"),
            ("file://../cache", "cache", "1.2.3"),
            ("@stable", "cache", "1.2.3"),
            ("https://me:hunter2@charts.example", "cache", "1.2.3"),
            ("https://charts.example/../x", "cache", "1.2.3"),
            ("https://charts.example", "../cache", "1.2.3"),
            ("https://charts.example", "cache", "1.x"),
            ("https://charts.example", "cache", "latest"),
        ] {
            let told = remote_chart(repository, name, version).expect_err(repository);
            assert!(!told.contains("hunter2"), "{told}");
        }
    }
}
