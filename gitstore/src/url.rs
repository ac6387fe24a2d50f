//! URLs that may be fetched from.

use gix::url::Scheme;

use super::FetchError;

/// A URL that may be fetched from. It has no user part, so it can be shown.
#[derive(Clone, Debug)]
pub(super) struct RemoteUrl {
    url: gix::Url,
    text: String,
}

/// The host (and port) of a URL in lower case, by which fetches are limited; empty if the URL has no host.
pub fn host_of(url: &str) -> String {
    RemoteUrl::parse(url, true).map(|url| url.host().to_ascii_lowercase()).unwrap_or_default()
}

impl RemoteUrl {
    pub(super) fn parse(text: &str, allow_file_urls: bool) -> Result<Self, FetchError> {
        let invalid = |why: String| FetchError::InvalidUrl { url: redact(text), why };
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(invalid("it holds white space".into()));
        }
        let mut url = gix::url::parse(text).map_err(|_| invalid("it is not a URL".into()))?;
        match url.scheme {
            Scheme::Https | Scheme::Http => {}
            Scheme::File if !text.starts_with("file://") => {
                return Err(invalid("write https://host/path, or file:///path for a folder".into()));
            }
            Scheme::File if allow_file_urls => {}
            Scheme::File => return Err(FetchError::FileUrlNotAllowed),
            Scheme::Ssh if !text.starts_with("ssh://") => {
                return Err(FetchError::SchemeNotSupported { scheme: "git@host:path (ssh)".into() });
            }
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
        if url.port.is_some() && text.contains('@') && url.user().is_none() {
            let why = "the text before the @ may be a password: use spec.secretRef; an @ in the path is written %40";
            return Err(invalid(why.into()));
        }
        if text.contains(['?', '#']) {
            return Err(invalid("a query or fragment has no meaning to Git".into()));
        }
        if url.scheme != Scheme::File && url.host().is_none_or(str::is_empty) {
            return Err(invalid("the host is missing".into()));
        }
        url.set_user(None);
        let text = url.to_bstring().to_string();
        Ok(Self { url, text })
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

    /// Whether others on the network can read what is sent to this URL.
    pub(super) fn is_plain_http(&self) -> bool {
        self.url.scheme == Scheme::Http
    }

    /// Host and port, or the path of a `file://` URL.
    pub(super) fn host(&self) -> String {
        match (self.url.host(), self.url.port) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            (Some(host), None) => host.to_owned(),
            (None, _) => self.url.path.to_string(),
        }
    }
}

/// A text that is not a usable URL, in a form that can be shown: without anything that may be a password. A password may
/// contain any character, so everything up to the last `@` is removed. The query is removed, too, because it may have a
/// token.
fn redact(text: &str) -> String {
    let scheme = scheme_of(text).unwrap_or_default();
    let rest = text[scheme.len()..].trim_start_matches("://");
    let (hidden, rest) = rest.rsplit_once('@').map_or(("", rest), |(_, rest)| ("…@", rest));
    let (rest, query) = rest.split_once(['?', '#']).map_or((rest, ""), |(rest, _)| (rest, "?…"));
    let separator = if scheme.is_empty() { "" } else { "://" };
    format!("{scheme}{separator}{hidden}{rest}{query}")
}

/// The text before `://`, if it can be the name of a scheme.
fn scheme_of(text: &str) -> Option<&str> {
    let (scheme, _) = text.split_once("://")?;
    let is_name = scheme.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte));
    is_name.then_some(scheme)
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
        ] {
            let url = RemoteUrl::parse(text, true).unwrap();
            assert_eq!((url.as_str(), url.host().as_str()), (shown, host));
        }
    }

    #[test]
    fn what_is_refused_and_why() {
        for (text, reason) in [
            ("ssh://git@example.com/a", "SchemeNotSupported"),
            ("git@example.com:a/b", "SchemeNotSupported"),
            ("git://example.com/a", "SchemeNotSupported"),
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
            ("https:/me:hunter2@example.com/a", "SchemeNotSupported"),
            ("me:hunter2://ss@example.com/a", "InvalidUrl"),
            ("https://example.com/a?token=hunter2", "InvalidUrl"),
            ("https://example.com/a#hunter2", "InvalidUrl"),
            ("https:///a", "InvalidUrl"),
            ("https://example.com/a?x=1", "InvalidUrl"),
            ("https://example.com/a\nb", "InvalidUrl"),
            ("", "InvalidUrl"),
        ] {
            let error = RemoteUrl::parse(text, false).unwrap_err();
            assert_eq!(error.reason(), reason, "{text}: {error}");
            assert!(error.is_terminal());
            assert!(!error.to_string().contains("hunter2"), "{error}");
        }
    }

    #[test]
    fn of_what_is_no_url_that_is_shown_which_can_be_no_password() {
        for (text, shown) in [
            ("https://example.com:99999/a", "https://example.com:99999/a"),
            ("https://me:pa/ss@example.com/a", "https://…@example.com/a"),
            ("https://example.com/a?token=x", "https://example.com/a?…"),
            ("me:pa@example.com:a", "…@example.com:a"),
            ("me:pa://ss@example.com", "…@example.com"),
            ("", ""),
        ] {
            assert_eq!(redact(text), shown);
        }
    }
}
