//! HTTP requests of a fetch: one deadline for all of them, credentials for one host, and our own rules for redirects and trust.

use std::io;
use std::net::IpAddr;
use std::sync::atomic::{AtomicU8, AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use rustls::crypto::aws_lc_rs;
use ureq::config::Config;
use ureq::http::{HeaderValue, Method, Request, Response, Uri, header};
use ureq::tls::{Certificate, PemItem, RootCerts, TlsConfig};
use ureq::unversioned::resolver::{DefaultResolver, ResolvedSocketAddrs, Resolver};
use ureq::unversioned::transport::{DefaultConnector, NextTimeout};
use worker::Cancel;

use super::refusal;
use super::ssh::SshError;
use crate::FetchError;
use crate::error::Refusal;

/// How many redirects are followed at most.
const REDIRECTS: usize = 5;

/// How many requests nobody waits for may go on at the same time: those of fetches that were cancelled while they looked up a
/// name or connected. Each has threads of its own. Whoever edits Repositories again and again must not fill the process with them.
const MOST_LEFT: usize = 32;
/// How many there are.
static LEFT: AtomicUsize = AtomicUsize::new(0);

/// Whether somebody waits for a request.
#[derive(Default)]
struct Left(AtomicU8);

impl Left {
    const AWAITED: u8 = 0;
    const LEFT: u8 = 1;
    const ENDED: u8 = 2;

    /// Waits no longer for the request. Returns false if too many requests go on already.
    fn leave(&self) -> bool {
        if LEFT.fetch_add(1, Ordering::SeqCst) >= MOST_LEFT {
            LEFT.fetch_sub(1, Ordering::SeqCst);
            return false;
        }
        if self.0.compare_exchange(Self::AWAITED, Self::LEFT, Ordering::SeqCst, Ordering::SeqCst).is_err() {
            LEFT.fetch_sub(1, Ordering::SeqCst);
        }
        true
    }

    /// The request has ended.
    fn end(&self) {
        if self.0.swap(Self::ENDED, Ordering::SeqCst) == Self::LEFT {
            LEFT.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// Where a client may connect to, besides other machines.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub(crate) enum Reach {
    /// Nowhere.
    Others,
    /// To this machine, because the Repository names it.
    ThisMachine,
}

impl Reach {
    /// Why a server is not asked.
    pub(crate) const REFUSED: &str =
        "its address is local to this machine or link-local, and no requests are sent to such addresses";

    /// What a Repository with this URL may be answered by.
    pub(crate) fn of(url: &str) -> Self {
        url.parse::<Uri>().ok().and_then(|url| url.host().map(Self::of_host)).unwrap_or(Self::Others)
    }

    /// What a Repository on this host may be answered by.
    pub(crate) fn of_host(host: &str) -> Self {
        let host = host.to_ascii_lowercase();
        let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
        let is_local = address.map_or(host == "localhost" || host.ends_with(".localhost"), is_local);
        if is_local { Self::ThisMachine } else { Self::Others }
    }

    /// Servers answer with redirects, and the index of a chart repository with URLs. None of them may lead to what only this
    /// machine can reach: its own ports, and the services of its cloud that answer every program on it.
    pub(crate) fn includes(self, address: IpAddr) -> bool {
        let is_of_link = match address.to_canonical() {
            IpAddr::V4(address) => address.is_link_local() || address.is_broadcast(),
            IpAddr::V6(address) => address.is_unicast_link_local(),
        };
        !is_of_link && !address.is_multicast() && (self == Self::ThisMachine || !is_local(address))
    }
}

fn is_local(address: IpAddr) -> bool {
    let address = address.to_canonical();
    address.is_loopback() || address.is_unspecified()
}

/// Leaves out addresses that are not asked.
#[derive(Debug)]
struct Reachable {
    reach: Reach,
    all: DefaultResolver,
}

impl Resolver for Reachable {
    fn resolve(&self, url: &Uri, config: &Config, timeout: NextTimeout) -> Result<ResolvedSocketAddrs, ureq::Error> {
        let all = self.all.resolve(url, config, timeout)?;
        // Whoever runs the controller chose the proxy.
        if config.proxy().is_some_and(|proxy| proxy.uri() == url) {
            return Ok(all);
        }
        let mut reachable = self.empty();
        for address in all.iter().filter(|address| self.reach.includes(address.ip())) {
            reachable.push(*address);
        }
        if reachable.is_empty() {
            return Err(io::Error::other(Reach::REFUSED).into());
        }
        Ok(reachable)
    }
}

/// A client that trusts the system's certificate authorities and those in `pem`; it keeps connections open for reuse.
pub(crate) fn client(pem: &[u8], reach: Reach) -> Result<ureq::Agent, FetchError> {
    let mut trusted: Vec<Certificate<'static>> = rustls_native_certs::load_native_certs()
        .certs
        .iter()
        .map(|der| Certificate::from_der(der).to_owned())
        .collect();
    if !pem.is_empty() {
        let own = ureq::tls::parse_pem(pem)
            .filter_map(|item| match item {
                Ok(PemItem::Certificate(certificate)) => Some(Ok(certificate)),
                Ok(_) => None,
                Err(error) => Some(Err(error)),
            })
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| FetchError::InvalidCredentials(format!("ca.crt is not PEM: {error}")))?;
        if own.is_empty() {
            return Err(FetchError::InvalidCredentials("ca.crt holds no certificate".into()));
        }
        trusted.extend(own);
    }
    let tls = TlsConfig::builder()
        .root_certs(RootCerts::new_with_certs(&trusted))
        .unversioned_rustls_crypto_provider(Arc::new(aws_lc_rs::default_provider()))
        .build();
    let config = ureq::Agent::config_builder()
        .tls_config(tls)
        .http_status_as_error(false)
        .max_redirects(0)
        // A request that nobody waits for any more ends only after these steps, so they have short timeouts.
        .timeout_resolve(Some(Duration::from_secs(10)))
        .timeout_connect(Some(Duration::from_secs(10)))
        .build();
    let resolver = Reachable { reach, all: DefaultResolver::default() };
    Ok(ureq::Agent::with_parts(config, DefaultConnector::default(), resolver))
}

/// Why a request failed. The condition of the Repository says this.
#[derive(Clone, Debug)]
pub(crate) enum Fault {
    /// The status is not a success.
    Status(Refusal),
    /// The time is over.
    Timeout,
    /// There was no connection within this time, which is shorter than that of the fetch.
    Unconnected(Duration),
    /// A redirect that is not followed.
    Redirect(String),
    /// The server does not speak the protocol of the request.
    Protocol(String),
    /// The response is larger than allowed.
    TooLarge(u64),
    /// No connection, a broken connection, or an error of TLS.
    Connection(String),
    /// A login over SSH failed.
    Ssh(Box<SshError>),
    /// The command `git-upload-pack` on an SSH server failed.
    Command {
        /// The exit status, if it has one.
        status: Option<i64>,
        /// The beginning of what it wrote to standard error.
        said: String,
    },
}

impl Fault {
    /// What went wrong while a response was read.
    pub(crate) fn of_reading(error: io::Error) -> Self {
        Self::of(&ureq::Error::from(error))
    }

    pub(crate) fn of(error: &ureq::Error) -> Self {
        match error {
            ureq::Error::Timeout(_) => Self::Timeout,
            ureq::Error::BodyExceedsLimit(limit) => Self::TooLarge(*limit),
            ureq::Error::Io(io) => match io.get_ref().and_then(|inner| inner.downcast_ref::<ureq::Error>()) {
                Some(inner) => Self::of(inner),
                None if matches!(io.kind(), io::ErrorKind::TimedOut) => Self::Timeout,
                None => Self::Connection(io.to_string()),
            },
            other => Self::Connection(other.to_string()),
        }
    }
}

/// A response, and the URL that it came from after redirects.
pub(crate) type Answer = (Uri, Response<ureq::Body>);

/// The requests of one fetch.
#[derive(Clone)]
pub(crate) struct Session {
    agent: ureq::Agent,
    /// The credentials, which are sent only to `origin`.
    pub(crate) authorization: Option<HeaderValue>,
    deadline: Instant,
    cancel: Cancel,
    origin: Option<Origin>,
    /// What the paths of requests with credentials begin with; `None` if they may have any path.
    prefixes: Option<Vec<String>>,
}

impl Session {
    /// `url` is that of the Repository. Only its scheme, host and port count.
    pub(crate) fn new(
        agent: ureq::Agent,
        authorization: Option<HeaderValue>,
        (deadline, cancel): (Instant, Cancel),
        url: &str,
    ) -> Self {
        let origin = url.parse().ok().and_then(|url| Origin::of(&url));
        Self { agent, authorization, deadline, cancel, origin, prefixes: None }
    }

    /// Sends the credentials only with requests whose path begins with one of these texts.
    pub(crate) fn only_below(mut self, prefixes: Option<Vec<String>>) -> Self {
        self.prefixes = prefixes;
        self
    }

    /// A session for another server: with the same deadline, and with the credentials for that server.
    pub(crate) fn of(&self, url: &str, authorization: Option<HeaderValue>) -> Self {
        Self::new(self.agent.clone(), authorization, (self.deadline, self.cancel.clone()), url)
    }

    /// Whether the credentials are for this URL.
    pub(crate) fn is_own(&self, url: &Uri) -> bool {
        let is_below = |prefixes: &Vec<String>| is_below(url.path(), prefixes);
        self.origin.is_some() && Origin::of(url) == self.origin && self.prefixes.as_ref().is_none_or(is_below)
    }

    /// What the credentials are for, for people.
    pub(crate) fn own(&self, host: &str) -> String {
        let path = self.prefixes.as_ref().and_then(|prefixes| prefixes.first());
        path.map_or_else(|| host.to_owned(), |path| format!("{host}{path}"))
    }

    /// Sends one request. Whatever its status is, the response is returned.
    pub(crate) fn send(
        &self,
        method: Method,
        url: &Uri,
        headers: &[(String, String)],
        body: &[u8],
    ) -> Result<Response<ureq::Body>, Fault> {
        let remaining = self.deadline.saturating_duration_since(Instant::now());
        if remaining.is_zero() {
            return Err(Fault::Timeout);
        }
        let mut request = Request::builder().method(&method).uri(url);
        for (name, value) in headers {
            if let Ok(value) = HeaderValue::from_str(value) {
                request = request.header(name, value);
            }
        }
        if let Some(value) = self.authorization.as_ref().filter(|_| self.is_own(url)) {
            request = request.header(header::AUTHORIZATION, value);
        }
        let invalid = |error: ureq::http::Error| Fault::Connection(error.to_string());
        let agent = self.agent.clone();
        if method == Method::POST {
            let request = request.body(body.to_vec()).map_err(invalid)?;
            let request = self.agent.configure_request(request).timeout_global(Some(remaining)).build();
            unless_cancelled(&self.cancel, remaining, move || agent.run(request).map_err(|error| Fault::of(&error)))
        } else {
            let request = request.body(()).map_err(invalid)?;
            let request = self.agent.configure_request(request).timeout_global(Some(remaining)).build();
            unless_cancelled(&self.cancel, remaining, move || agent.run(request).map_err(|error| Fault::of(&error)))
        }
    }

    /// The response of `url`, if its status is a success.
    pub(crate) fn succeeded(&self, url: &Uri, response: Response<ureq::Body>) -> Result<Response<ureq::Body>, Fault> {
        if response.status().is_success() {
            return Ok(response);
        }
        Err(Fault::Status(refusal::read(response, self.authorization.as_ref(), self.is_own(url))))
    }

    /// Sends a GET request and follows redirects. `accepts` says whether a redirect to this URL may be followed, or why
    /// not. The answer is never a redirect.
    ///
    /// # Errors
    /// What went wrong, and at which URL.
    pub(crate) fn get(
        &self,
        url: &str,
        headers: &[(String, String)],
        accepts: impl Fn(&str) -> Result<(), &'static str>,
    ) -> Result<Answer, Box<(Option<Uri>, Fault)>> {
        let failed = |url, fault| Box::new((url, fault));
        let mut current: Uri =
            url.parse().map_err(|_| failed(None, Fault::Connection("the address is not a URL".into())))?;
        for _ in 0..=REDIRECTS {
            let response = match self.send(Method::GET, &current, headers, &[]) {
                Ok(response) => response,
                Err(fault) => return Err(failed(Some(current), fault)),
            };
            // The status 304 is among those of redirects, but only says that nothing has changed since the last
            // request.
            if !response.status().is_redirection() || response.status() == ureq::http::StatusCode::NOT_MODIFIED {
                return Ok((current, response));
            }
            match target(&current, &response).and_then(|(target, text)| accepts(&text).map(|()| target)) {
                Ok(target) => current = target,
                Err(why) => return Err(failed(Some(current), Fault::Redirect(why.to_owned()))),
            }
        }
        Err(failed(Some(current), Fault::Redirect(format!("more than {REDIRECTS} in a row"))))
    }
}

/// Runs something in a thread of its own, and waits for it, but not after a cancellation: looking up a name and connecting cannot
/// be interrupted.
pub(crate) fn unless_cancelled<T: Send + 'static>(
    cancel: &Cancel,
    remaining: Duration,
    run: impl FnOnce() -> Result<T, Fault> + Send + 'static,
) -> Result<T, Fault> {
    let (ended, end) = mpsc::channel();
    let cancelled = ended.clone();
    let _stop = cancel.on_cancel(move || drop(cancelled.send(None)));
    let left = Arc::new(Left::default());
    let work = {
        let left = left.clone();
        move || {
            let result = run();
            left.end();
            drop(ended.send(Some(result)));
        }
    };
    std::thread::Builder::new().spawn(work).map_err(|error| Fault::Connection(error.to_string()))?;
    let mut answer = end.recv_timeout(remaining);
    if matches!(answer, Ok(None)) && !left.leave() {
        // Too many requests are left to end by themselves.
        answer = end.recv_timeout(remaining);
    }
    match answer {
        Ok(Some(result)) => result,
        Ok(None) => Err(Fault::Connection("the fetch was cancelled".into())),
        Err(_) => Err(Fault::Timeout),
    }
}

/// Whether a path begins with one of these texts, whatever a server makes of dots and of encoded characters in it.
fn is_below(path: &str, prefixes: &[String]) -> bool {
    let lower = path.to_ascii_lowercase();
    let has_several_meanings = path.split('/').any(|name| matches!(name, "." | ".."))
        || path.contains(['\\', ';'])
        || ["%2e", "%2f", "%5c", "%3b", "%25"].iter().any(|encoded| lower.contains(encoded));
    !has_several_meanings && prefixes.iter().any(|prefix| path.starts_with(prefix.as_str()))
}

/// Where a redirect leads, if it may be followed at all.
fn target(from: &Uri, response: &Response<ureq::Body>) -> Result<(Uri, String), &'static str> {
    let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
    let location = location.ok_or("it names no location")?;
    let target = if location.starts_with('/') && !location.starts_with("//") {
        let authority = from.authority().map_or("", |authority| authority.as_str());
        format!("{}://{authority}{location}", from.scheme_str().unwrap_or("https"))
    } else {
        location.to_owned()
    };
    let uri = target.parse::<Uri>().map_err(|_| "its location is not a URL")?;
    may_follow(from, &uri)?;
    Ok((uri, target))
}

/// Whether a server may lead from one URL to another one, or why not.
pub(crate) fn may_follow(from: &Uri, to: &Uri) -> Result<(), &'static str> {
    if to.authority().is_some_and(|authority| authority.as_str().contains('@')) {
        return Err("it names a user");
    }
    match (from.scheme_str(), to.scheme_str()) {
        (_, Some("https")) | (Some("http"), Some("http")) => Ok(()),
        _ => Err("it leads away from https"),
    }
}

/// Scheme, host and port.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Origin(String, String, u16);

impl Origin {
    fn of(uri: &Uri) -> Option<Self> {
        let scheme = uri.scheme_str()?.to_ascii_lowercase();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some(Self(scheme, uri.host()?.to_ascii_lowercase(), port))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_other_machines_are_asked_unless_the_repository_names_this_one() {
        use Reach::{Others, ThisMachine};
        for (url, reach) in [
            ("https://git.example.com/a", Others),
            ("https://10.0.0.1/a", Others),
            ("https://localhost.example.com/a", Others),
            ("https://169.254.169.254/a", Others),
            ("oci://localhost:5000/a", ThisMachine),
            ("http://LOCALHOST/a", ThisMachine),
            ("https://git.localhost:8443/a", ThisMachine),
            ("https://127.1.2.3/a", ThisMachine),
            ("https://[::1]:8443/a", ThisMachine),
        ] {
            assert_eq!(Reach::of(url), reach, "{url}");
        }
        for (address, others, this_machine) in [
            ("192.0.2.1", true, true),
            ("10.0.0.1", true, true),
            ("2001:db8::1", true, true),
            ("fd00::1", true, true),
            ("127.0.0.1", false, true),
            ("127.8.0.1", false, true),
            ("0.0.0.0", false, true),
            ("::", false, true),
            ("::1", false, true),
            ("::ffff:127.0.0.1", false, true),
            ("169.254.169.254", false, false),
            ("::ffff:169.254.169.254", false, false),
            ("fe80::1", false, false),
            ("255.255.255.255", false, false),
            ("224.0.0.1", false, false),
        ] {
            let parsed = address.parse().unwrap();
            assert_eq!((Others.includes(parsed), ThisMachine.includes(parsed)), (others, this_machine), "{address}");
        }
    }

    #[test]
    fn credentials_of_a_remote_repository_are_for_what_its_entry_allows() {
        use crate::Credentials;
        use crate::url::Serves::{self, Artifacts, Charts, Git};

        let agent = client(&[], Reach::Others).unwrap();
        let is_own = |entry: &str, serves: Serves, url: &str| {
            let prefixes = Credentials::none().only_for(entry).prefixes(serves);
            let session =
                Session::new(agent.clone(), None, (Instant::now(), Cancel::new()), "https://host.example/team/app");
            session.only_below(prefixes).is_own(&url.parse().unwrap())
        };
        for (entry, serves, path, is) in [
            ("https://host.example/team/app", Git, "/team/app/info/refs?service=git-upload-pack", true),
            ("https://Host.example:443/team/app", Git, "/team/app/git-upload-pack", true),
            ("https://host.example/team/app", Git, "/team/app.git/info/refs", true),
            ("https://host.example/team/app.git", Git, "/team/app/info/refs", true),
            ("https://host.example/team/app", Git, "/team/app-private/info/refs", false),
            ("https://host.example/team/app", Git, "/team/private/info/refs", false),
            ("https://host.example/team/", Git, "/team/private/info/refs", true),
            ("https://host.example/team/", Git, "/other/app/info/refs", false),
            ("https://host.example/team/charts", Charts, "/team/charts/index.yaml", true),
            ("https://host.example/team/charts", Charts, "/team/charts/a/b-1.0.0%2Bx.tgz", true),
            ("https://host.example/team/charts", Charts, "/private/b-1.0.0.tgz", false),
            ("https://host.example/team/charts", Charts, "/team/charts.git/b-1.0.0.tgz", false),
            ("https://host.example/team/charts", Charts, "/team/charts/../../private/b.tgz", false),
            ("https://host.example/team/charts", Charts, "/team/charts/%2E%2e/%2e./private/b.tgz", false),
            ("https://host.example/team/charts", Charts, "/team/charts/..%2f..%2Fprivate/b.tgz", false),
            ("https://host.example/team/charts", Charts, "/team/charts/..;/..;/private/b.tgz", false),
            ("https://host.example", Charts, "/b.tgz", true),
            ("oci://host.example/team/", Artifacts, "/v2/team/cache/manifests/1.0.0", true),
            ("oci://host.example/team/cache", Artifacts, "/v2/team/cache/blobs/x", true),
            ("oci://host.example/team/cache", Artifacts, "/v2/team/cache-private/blobs/x", false),
            ("oci://host.example/team/", Artifacts, "/team/cache", false),
            ("not a url", Git, "/team/app/info/refs", false),
        ] {
            assert_eq!(is_own(entry, serves, &format!("https://host.example{path}")), is, "{entry} {path}");
        }
        assert!(!is_own("https://host.example/team/", Git, "https://other.example/team/app/info/refs"));
    }

    /// Names are looked up only when a request is sent, and an address may have several forms.
    #[test]
    fn what_is_not_reachable_is_not_asked() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let port = listener.local_addr().unwrap().port();
        let client = client(&[], Reach::Others).unwrap();
        for host in ["127.0.0.1", "localhost", "127.1", "2130706433", "0.0.0.0", "[::ffff:127.0.0.1]"] {
            let error = client.get(format!("http://{host}:{port}/")).call().unwrap_err();
            let told = Fault::of(&error);
            assert!(
                matches!(&told, Fault::Connection(why) if why.contains("no requests are sent")),
                "{host}: {told:?}"
            );
        }
        assert!(listener.accept().is_err(), "nobody has connected");
    }
}
