//! URLs that may be fetched from.

use std::fmt;

use gix::bstr::ByteSlice as _;
use gix::url::Scheme;
use remotes::{CHARTS, OCI, chart_url, is_chart_name, redact, scheme_of};

use super::FetchError;
use super::transport::presentable;

/// The name under which people know the registry of Docker Hub, and the host that serves it.
pub(super) const DOCKER_HUB: (&str, &str) = ("docker.io", "registry-1.docker.io");

/// A URL that may be fetched from. It has no password, and a user part only for SSH, so it can be shown.
#[derive(Clone, Debug)]
pub(super) struct RemoteUrl {
    url: gix::Url,
    text: String,
    serves: Serves,
    /// The name of the chart, if this is the URL of a chart repository.
    chart: Option<String>,
    /// The parts of the URL, if it is one of Git over SSH.
    ssh: Option<SshUrl>,
}

/// The parts of a URL of Git over SSH.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct SshUrl {
    pub(super) user: String,
    /// Name or address, without brackets, in lower case.
    pub(super) host: String,
    pub(super) port: u16,
    /// The path as the server gets it. It begins with `/`, unless it is relative to the home of the user.
    pub(super) path: String,
}

/// The port of SSH.
pub(super) const SSH_PORT: u16 = 22;
/// The user, if the URL has none.
const SSH_USER: &str = "git";
/// The most bytes of a user's name.
const USER_BYTES: usize = 128;

impl SshUrl {
    /// Takes a URL apart; an error says what is wrong.
    fn parse(url: &gix::Url) -> Result<Self, String> {
        let host = url.host().unwrap_or_default().trim_matches(['[', ']']).to_ascii_lowercase();
        let is_of_host = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
        if host.is_empty() || host.starts_with('-') || !host.bytes().all(is_of_host) {
            return Err("its host is not a name or an address".to_owned());
        }
        let user = url.user().unwrap_or(SSH_USER).to_owned();
        if user.is_empty() || user.len() > USER_BYTES || user.starts_with('-') || user.chars().any(char::is_control) {
            return Err("its user cannot be a user name".to_owned());
        }
        let Ok(path) = url.path.to_str() else { return Err("its path is not UTF-8".to_owned()) };
        if path.trim_matches('/').is_empty() || path.starts_with('-') || path.chars().any(char::is_control) {
            return Err("its path cannot be that of a repository".to_owned());
        }
        // A path of an ssh:// URL that begins with ~ is relative to a home.
        let path = path.strip_prefix("/~").map_or_else(|| path.to_owned(), |rest| format!("~{rest}"));
        Ok(Self { user, host, port: url.port.unwrap_or(SSH_PORT), path })
    }

    /// Host and port, for messages.
    pub(super) fn address(&self) -> String {
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        if self.port == SSH_PORT { host } else { format!("{host}:{}", self.port) }
    }

    /// The URL in the form that it was written in: `ssh://…`, or `user@host:path`.
    fn text(&self, is_short: bool) -> String {
        if is_short {
            return format!("{}@{}:{}", self.user, self.address(), self.path);
        }
        let slash = if self.path.starts_with('/') { "" } else { "/" };
        format!("ssh://{}@{}{slash}{}", self.user, self.address(), self.path)
    }
}

/// What is at a URL.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Serves {
    /// A Git repository.
    Git,
    /// A repository of artifacts in an OCI registry.
    Artifacts,
    /// A chart repository: an `index.yaml`, and archives.
    Charts,
}

impl Serves {
    /// The reason for the condition if the server turns out to serve something else.
    pub(super) fn denial(self) -> &'static str {
        match self {
            Self::Git => "NotAGitServer",
            Self::Artifacts => "NotARegistry",
            Self::Charts => "NotAChartRepository",
        }
    }
}

impl fmt::Display for Serves {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Git => "does not serve Git as gitseal needs it",
            Self::Artifacts => "is not served by an OCI registry",
            Self::Charts => "is not the index of a chart repository",
        })
    }
}

/// The host (and port) of a URL in lower case, by which fetches are limited; empty if the URL has no host.
pub fn host_of(url: &str) -> String {
    RemoteUrl::parse(url, true).map(|url| url.host().to_ascii_lowercase()).unwrap_or_default()
}

/// Whether a text has the short form of a URL of Git over SSH: `user@host:path`.
fn is_short(text: &str) -> bool {
    let before = text.split_once(':').map_or("", |(before, _)| before);
    before.split_once('@').is_some_and(|(user, host)| !user.is_empty() && !host.is_empty()) && !before.contains('/')
}

/// Whether a URL leads to a registry.
pub(super) fn is_of_registry(url: &str) -> bool {
    url.starts_with(OCI)
}

impl RemoteUrl {
    pub(super) fn parse(text: &str, allow_file_urls: bool) -> Result<Self, FetchError> {
        let invalid = |why: String| FetchError::InvalidUrl { url: redact(text), why };
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid("it holds white space".into()));
        }
        let (text, chart) = match text.strip_prefix(CHARTS).map(|rest| rest.rsplit_once('#').unwrap_or((rest, ""))) {
            Some((url, chart)) if is_chart_name(chart) => (url, Some(chart.to_owned())),
            Some((_, chart)) => {
                let why = format!("{:?} cannot be the name of a chart: set spec.chart", presentable(chart));
                return Err(invalid(why));
            }
            None => (text, None),
        };
        let invalid = |why: String| FetchError::InvalidUrl { url: redact(text), why };
        let of_registry = text.strip_prefix(OCI);
        let parsed = of_registry.map(|rest| format!("https://{rest}"));
        let mut url = gix::url::parse(parsed.as_deref().unwrap_or(text)).map_err(|_| {
            let is_mixed = text.strip_prefix("ssh://").is_some_and(|rest| {
                rest.split('/')
                    .next()
                    .and_then(|host| host.rsplit_once(':'))
                    .is_some_and(|(_, port)| port.parse::<u16>().is_err())
            });
            invalid(if is_mixed {
                "the text between the colon and the next slash is a port: write ssh://git@host/path, or git@host:path"
                    .into()
            } else {
                "it is not a URL".into()
            })
        })?;
        match url.scheme {
            Scheme::Https | Scheme::Http => {}
            Scheme::File if !text.starts_with("file://") => {
                return Err(invalid("write https://host/path, or file:///path for a folder".into()));
            }
            Scheme::File if allow_file_urls => {}
            Scheme::File => return Err(FetchError::FileUrlNotAllowed),
            // gix reads other names of the scheme, too, and takes much for a host.
            Scheme::Ssh if text.starts_with("ssh://") || is_short(text) => {}
            _ => match scheme_of(text) {
                Some(other) => return Err(FetchError::SchemeNotSupported { scheme: format!("{other}://") }),
                None => return Err(invalid("it is not a URL".into())),
            },
        }
        if url.password().is_some() {
            return Err(invalid("a password in the URL would be stored in plain sight: use spec.secretRef".into()));
        }
        // `https://me:123/45@host` would parse as the host `me` with the port 123, but it is a user name with a
        // password that has a slash.
        if url.scheme != Scheme::Ssh && url.port.is_some() && text.contains('@') && url.user().is_none() {
            let why = "the text before the @ may be a password: use spec.secretRef; an @ in the path is written %40";
            return Err(invalid(why.into()));
        }
        if text.contains(['?', '#']) {
            return Err(invalid("it has a query or a fragment, which has no meaning here".into()));
        }
        if url.scheme != Scheme::File && url.host().is_none_or(str::is_empty) {
            return Err(invalid("the host is missing".into()));
        }
        if url.scheme == Scheme::Ssh {
            if chart.is_some() {
                return Err(invalid("spec.chart is only for https:// and http:// URLs".into()));
            }
            let ssh = SshUrl::parse(&url).map_err(invalid)?;
            let text = ssh.text(!text.starts_with("ssh://"));
            return Ok(Self { url, text, serves: Serves::Git, chart: None, ssh: Some(ssh) });
        }
        url.set_user(None);
        let mut text = url.to_bstring().to_string();
        let mut serves = Serves::Git;
        if let Some(rest) = of_registry {
            let name = rest.split_once('/').map_or("", |(_, name)| name);
            check_name(name).map_err(|why| invalid(why.into()))?;
            text = text.replacen("https://", OCI, 1);
            serves = Serves::Artifacts;
        }
        if chart.is_some() {
            if serves != Serves::Git || url.scheme == Scheme::File {
                return Err(invalid("spec.chart is only for https:// and http:// URLs".into()));
            }
            serves = Serves::Charts;
            text.truncate(text.trim_end_matches('/').len());
        }
        Ok(Self { url, text, serves, chart, ssh: None })
    }

    /// What is expected there.
    pub(super) fn serves(&self) -> Serves {
        self.serves
    }

    /// The name of the chart, if this is the URL of a chart repository.
    pub(super) fn chart(&self) -> Option<&str> {
        self.chart.as_deref()
    }

    /// The text under which the store keeps what was fetched: the URL, and the chart if there is one.
    pub(super) fn identity(&self) -> String {
        self.chart.as_ref().map_or_else(|| self.text.clone(), |chart| chart_url(&self.text, chart))
    }

    /// The API of the registry for this repository of artifacts, without a slash at the end.
    pub(super) fn registry_api(&self) -> String {
        let host = match self.host() {
            host if host == DOCKER_HUB.0 => DOCKER_HUB.1.to_owned(),
            host => host,
        };
        format!("https://{host}/v2/{}", self.name())
    }

    /// The name of the repository in its registry.
    pub(super) fn name(&self) -> String {
        self.url.path.to_str_lossy().trim_matches('/').to_owned()
    }

    pub(super) fn as_str(&self) -> &str {
        &self.text
    }

    pub(super) fn as_gix(&self) -> &gix::Url {
        &self.url
    }

    pub(super) fn is_file(&self) -> bool {
        self.url.scheme == Scheme::File
    }

    /// The parts of the URL, if it is one of Git over SSH.
    pub(super) fn ssh(&self) -> Option<&SshUrl> {
        self.ssh.as_ref()
    }

    /// Whether others on the network can read what is sent to this URL.
    pub(super) fn is_plain_http(&self) -> bool {
        self.url.scheme == Scheme::Http
    }

    /// Host and port, or the path of a `file://` URL.
    pub(super) fn host(&self) -> String {
        if let Some(ssh) = &self.ssh {
            return ssh.address();
        }
        match (self.url.host(), self.url.port) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => self.url.path.to_string(),
        }
    }
}

/// Whether this can be the name of a repository in a registry, or why not.
fn check_name(name: &str) -> Result<(), &'static str> {
    if name.contains([':', '@']) {
        return Err("a tag or a digest is written in spec.ref, for example `ref: {tag: 6.5.0}`");
    }
    let is_part = |part: &str| {
        let is_inside = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
        let is_between = |byte: u8| is_inside(byte) || b"._-".contains(&byte);
        part.bytes().all(is_between) && part.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
    };
    if name.trim_end_matches('/').split('/').all(is_part) {
        return Ok(());
    }
    Err("it must have the form oci://host/name, and the name may have only lower-case letters, digits, '/', '.', '_' \
         and '-'")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_fetched_from() {
        for (text, shown, host) in [
            ("https://git.example.com/a/b.git", "https://git.example.com/a/b.git", "git.example.com"),
            ("https://me@git.example.com:8443/a", "https://git.example.com:8443/a", "git.example.com:8443"),
            ("http://git.example.com/a", "http://git.example.com/a", "git.example.com"),
            ("https://git.example.com/@team/a", "https://git.example.com/@team/a", "git.example.com"),
            (
                "https://git.example.com:8443/%40team/a",
                "https://git.example.com:8443/%40team/a",
                "git.example.com:8443",
            ),
            ("file:///srv/git/a.git", "file:///srv/git/a.git", "/srv/git/a.git"),
            (
                "oci://me@registry.example.com:5000/a/b-c",
                "oci://registry.example.com:5000/a/b-c",
                "registry.example.com:5000",
            ),
        ] {
            let url = RemoteUrl::parse(text, true).unwrap();
            assert_eq!((url.as_str(), url.host().as_str()), (shown, host));
            assert_eq!(url.ssh(), None);
        }
    }

    #[test]
    fn urls_of_git_over_ssh() {
        for (text, shown, host, user, port, path) in [
            (
                "ssh://git@git.example.com/a/b.git",
                "ssh://git@git.example.com/a/b.git",
                "git.example.com",
                "git",
                22,
                "/a/b.git",
            ),
            ("ssh://Git.Example.com/a", "ssh://git@git.example.com/a", "git.example.com", "git", 22, "/a"),
            ("ssh://me@git.example.com:22/a", "ssh://me@git.example.com/a", "git.example.com", "me", 22, "/a"),
            (
                "ssh://git@git.example.com:2222/a",
                "ssh://git@git.example.com:2222/a",
                "git.example.com:2222",
                "git",
                2222,
                "/a",
            ),
            ("ssh://git@[::1]:2222/a", "ssh://git@[::1]:2222/a", "[::1]:2222", "git", 2222, "/a"),
            (
                "ssh://git@git.example.com/~me/a",
                "ssh://git@git.example.com/~me/a",
                "git.example.com",
                "git",
                22,
                "~me/a",
            ),
            ("git@git.example.com:a/b.git", "git@git.example.com:a/b.git", "git.example.com", "git", 22, "a/b.git"),
            ("git@git.example.com:/srv/a", "git@git.example.com:/srv/a", "git.example.com", "git", 22, "/srv/a"),
            ("git@git.example.com:2222/a", "git@git.example.com:2222/a", "git.example.com", "git", 22, "2222/a"),
        ] {
            let url = RemoteUrl::parse(text, false).unwrap_or_else(|error| panic!("{text}: {error}"));
            assert_eq!((url.as_str(), url.host().as_str()), (shown, host), "{text}");
            let ssh = url.ssh().unwrap();
            assert_eq!((ssh.user.as_str(), ssh.port, ssh.path.as_str()), (user, port, path), "{text}");
            assert_eq!(url.serves(), Serves::Git, "{text}");
        }
        assert!(RemoteUrl::parse("https://git.example.com/a", false).unwrap().ssh().is_none());
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, reason) in [
            ("git://example.com/a", "SchemeNotSupported"),
            ("git+ssh://git@example.com/a", "SchemeNotSupported"),
            ("ssh://git:hunter2@example.com/a", "InvalidUrl"),
            ("git:hunter2@example.com:a", "InvalidUrl"),
            ("ssh://git@example.com:team/a", "InvalidUrl"),
            ("ssh://git@example.com", "InvalidUrl"),
            ("ssh://git@example.com/a?hunter2", "InvalidUrl"),
            ("ssh://git@-oProxyCommand=evil/a", "InvalidUrl"),
            ("ssh://-l@example.com/a", "InvalidUrl"),
            ("ssh://git@example.com/a%0ab", "InvalidUrl"),
            ("git@example.com:-upload-pack=evil", "InvalidUrl"),
            ("example.com:a/b", "InvalidUrl"),
            ("ext::sh -c evil", "InvalidUrl"),
            ("file:///srv/git", "FileUrlNotAllowed"),
            ("/srv/git", "InvalidUrl"),
            ("../git", "InvalidUrl"),
            ("https://me:hunter2@example.com/a", "InvalidUrl"),
            ("https://me:hunter2/ss@example.com/a", "InvalidUrl"),
            ("https://me:h/hunter2@ss@example.com/a", "InvalidUrl"),
            ("https://me:123/hunter2@example.com/a", "InvalidUrl"),
            ("https://me:hunter2?ss@example.com/a", "InvalidUrl"),
            ("https://me:hunter2#ss@example.com/a", "InvalidUrl"),
            ("https://me:pa hunter2@example.com/a", "InvalidUrl"),
            ("https:/me:hunter2@example.com/a", "InvalidUrl"),
            ("me:hunter2://ss@example.com/a", "InvalidUrl"),
            ("https://example.com/a?token=hunter2", "InvalidUrl"),
            ("https://example.com/a#hunter2", "InvalidUrl"),
            ("https:///a", "InvalidUrl"),
            ("https://example.com/a?x=1", "InvalidUrl"),
            ("https://example.com/a\nb", "InvalidUrl"),
            ("oci://me:hunter2@example.com/a", "InvalidUrl"),
            ("oci://example.com", "InvalidUrl"),
            ("oci://example.com/", "InvalidUrl"),
            ("oci:///a", "InvalidUrl"),
            ("oci://example.com/a:6.5.0", "InvalidUrl"),
            ("oci://example.com/a@sha256:4f1c", "InvalidUrl"),
            ("oci://example.com/A", "InvalidUrl"),
            ("oci://example.com/a/../b", "InvalidUrl"),
            ("oci://example.com/a%2fb", "InvalidUrl"),
            ("", "InvalidUrl"),
        ] {
            let error = RemoteUrl::parse(text, false).unwrap_err();
            assert_eq!(error.reason(), reason, "{text}: {error}");
            assert!(error.is_terminal());
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn a_chart_of_a_chart_repository_has_a_url_of_its_own() {
        let parse = |url: &str, chart: &str| RemoteUrl::parse(&chart_url(url, chart), true);
        let url = parse("https://me@charts.example.com:8443/stable/", "podinfo").unwrap();
        assert_eq!((url.as_str(), url.chart()), ("https://charts.example.com:8443/stable", Some("podinfo")));
        assert_eq!((url.serves(), url.host().as_str()), (Serves::Charts, "charts.example.com:8443"));
        let other = parse("https://charts.example.com:8443/stable", "other").unwrap();
        assert_ne!(url.identity(), other.identity());
        for (url, chart) in [
            ("https://example.com/a", ""),
            ("https://example.com/a", "a/b"),
            ("https://example.com/a", "..\\b"),
            ("https://example.com/a", ".."),
            ("https://example.com/a#b", "c"),
            ("https://example.com/a?token=hunter2", "c"),
            ("https://me:hunter2@example.com/a", "c"),
            ("oci://example.com/a", "c"),
            ("file:///srv/charts", "c"),
        ] {
            let error = parse(url, chart).unwrap_err();
            assert!(error.is_terminal() && error.reason() == "InvalidUrl", "{url} {chart}: {error}");
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn the_api_of_a_registry_is_asked_over_tls() {
        for (text, api) in [
            ("oci://registry.example.com:5000/charts/podinfo", "https://registry.example.com:5000/v2/charts/podinfo"),
            ("oci://ghcr.io/team/app/", "https://ghcr.io/v2/team/app"),
            ("oci://docker.io/team/app", "https://registry-1.docker.io/v2/team/app"),
        ] {
            assert_eq!(RemoteUrl::parse(text, false).unwrap().registry_api(), api);
        }
    }
}
