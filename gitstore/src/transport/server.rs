//! The server of a fetch, and what its failures mean.

use std::time::Duration;

use ureq::http::Uri;

use super::http::{Fault, Session};
use super::presentable;
use crate::FetchError;
use crate::error::Refusal;
use crate::url::{RemoteUrl, Serves};

/// What the servers of forges, and Git itself, write when there is no such repository, or when the key may not read it.
const NOT_THERE: [&str; 7] = [
    "not found",
    "could not be found",
    "cannot find",
    "does not exist",
    "does not appear to be a git repository",
    "permission denied",
    "not authorized",
];

/// What messages say about the server of a fetch.
#[derive(Clone, Copy)]
pub(crate) struct Server<'a> {
    pub(crate) url: &'a RemoteUrl,
    pub(crate) with_credentials: bool,
    pub(crate) timeout: Duration,
}

impl Server<'_> {
    pub(crate) fn host(&self) -> String {
        self.url.host()
    }

    /// The server did not send what was requested.
    pub(crate) fn unusable(&self, detail: String) -> FetchError {
        FetchError::Transfer { host: self.host(), detail }
    }

    pub(crate) fn timed_out(&self) -> FetchError {
        self.timed_out_at(self.host())
    }

    fn timed_out_at(&self, host: String) -> FetchError {
        FetchError::Timeout { host, seconds: self.timeout.as_secs(), limit: "spec.timeout" }
    }

    pub(crate) fn explain(&self, fault: Fault) -> FetchError {
        self.explain_at(self.host(), fault)
    }

    /// Explains why a request to `at` failed; without `at`, a request to the Repository's own server. A redirect or an index may have
    /// led to another server, or to a path that the credentials are not for.
    pub(crate) fn explain_of(&self, session: &Session, at: Option<&Uri>, fault: Fault) -> FetchError {
        let Some(other) = at.filter(|at| !session.is_own(at)) else { return self.explain(fault) };
        let host = presentable(other.authority().map_or("", |authority| authority.as_str()));
        match fault {
            Fault::Status(Refusal { status: status @ (401 | 403), .. }) if self.with_credentials => {
                let own = session.own(&self.host());
                let detail = format!(
                    "the server answers with status {status}, and the credentials of spec.secretRef are sent only to {own}"
                );
                FetchError::Network { host, detail }
            }
            Fault::Status(refusal) if self.url.serves() != Serves::Git => FetchError::Refused { host, refusal },
            Fault::Timeout => self.timed_out_at(host),
            fault => self.explain_at(host, fault),
        }
    }

    /// The error for a failure at this host.
    pub(crate) fn explain_at(&self, host: String, fault: Fault) -> FetchError {
        let url = self.url.as_str().to_owned();
        match fault {
            Fault::Timeout => self.timed_out(),
            Fault::Unconnected(time) => {
                let seconds = (time + Duration::from_millis(500)).as_secs();
                FetchError::Timeout { host, seconds, limit: "the limit for a connection" }
            }
            Fault::Status(refusal) => match refusal.status {
                401 | 403 => {
                    FetchError::AuthenticationFailed { host, refusal, with_credentials: self.with_credentials }
                }
                404 | 410 => FetchError::RepositoryNotFound { url, with_credentials: self.with_credentials },
                _ => FetchError::Refused { host, refusal },
            },
            Fault::Redirect(why) => FetchError::Network { host, detail: format!("a redirect is not followed: {why}") },
            Fault::Protocol(detail) => FetchError::WrongServer { url, serves: self.url.serves(), detail },
            Fault::TooLarge(limit) => {
                let what = match self.url.serves() {
                    Serves::Git => "a single commit of it",
                    Serves::Artifacts | Serves::Charts => "its archive",
                };
                FetchError::TooLarge(format!("{what} takes more than {} MiB to transfer", limit >> 20))
            }
            Fault::Connection(detail) => FetchError::Network { host, detail: self.connection(&detail) },
            Fault::Ssh(error) => FetchError::Ssh(*error),
            Fault::Command { status, said } => {
                if let Some(status @ (126 | 127)) = status {
                    let detail = format!(
                        "the server has no git-upload-pack that the user of the URL may run (status {status}); it says {said:?}"
                    );
                    return FetchError::WrongServer { url, serves: self.url.serves(), detail };
                }
                let lower = said.to_lowercase();
                if NOT_THERE.iter().any(|words| lower.contains(words)) {
                    return FetchError::RepositoryNotFound { url, with_credentials: self.with_credentials };
                }
                let status =
                    status.map_or_else(|| "without a status".to_owned(), |status| format!("with status {status}"));
                self.unusable(format!("git-upload-pack ended {status}; it says {said:?}"))
            }
        }
    }

    /// What a failed connection means, and what to do.
    fn connection(&self, detail: &str) -> String {
        let mut detail = presentable(detail);
        if detail.contains("UnknownIssuer") {
            detail.push_str("; put its certificate authority into ca.crt of spec.secretRef");
        }
        if detail.contains("InvalidContentType") {
            let http = match self.url.serves() {
                Serves::Git | Serves::Charts => ", or use http:// if no credentials are needed",
                Serves::Artifacts => "; a registry without TLS is not supported",
            };
            return format!("the server does not speak TLS: correct the port{http}");
        }
        detail
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(fault: Fault) -> FetchError {
        let url = RemoteUrl::parse("ssh://git@git.example/team/app", false).unwrap();
        Server { url: &url, with_credentials: true, timeout: Duration::from_secs(60) }.explain(fault)
    }

    #[test]
    fn what_forges_say_of_a_repository_that_is_not_there_or_not_for_this_key() {
        for (said, reason) in [
            ("ERROR: Repository not found.", "RepositoryNotFound"),
            ("fatal: '/team/app' does not appear to be a git repository", "RepositoryNotFound"),
            ("Gitea: Cannot find repository: team/app", "RepositoryNotFound"),
            ("Public (Deploy) Key: 4:app is not authorized to read team/app.", "RepositoryNotFound"),
            ("out of memory", "TransferFailed"),
        ] {
            let error = told(Fault::Command { status: Some(1), said: said.to_owned() });
            assert_eq!(error.reason(), reason, "{error}");
        }
    }

    #[test]
    fn a_server_without_the_command_is_not_taken_for_one_without_the_repository() {
        for (status, said, reason) in [
            (127, "bash: line 1: git-upload-pack: command not found", "NotAGitServer"),
            (127, "sh: git-upload-pack: not found", "NotAGitServer"),
            (126, "sh: git-upload-pack: Permission denied", "NotAGitServer"),
            (128, "fatal: '/team/app' does not appear to be a git repository", "RepositoryNotFound"),
            (1, "ERROR: Repository not found.", "RepositoryNotFound"),
            (4_294_967_295, "out of order", "TransferFailed"),
        ] {
            let error = told(Fault::Command { status: Some(status), said: said.to_owned() });
            assert_eq!(error.reason(), reason, "{error}");
            let text = error.to_string();
            assert!(reason == "RepositoryNotFound" || text.contains(&format!("status {status}")), "{text}");
        }
    }

    #[test]
    fn a_timeout_names_its_limit() {
        let text = told(Fault::Timeout).to_string();
        assert_eq!(text, "no answer from git.example within 60 s (spec.timeout)");
        let text = told(Fault::Unconnected(Duration::from_millis(9_999))).to_string();
        assert_eq!(text, "no answer from git.example within 10 s (the limit for a connection)");
    }
}
