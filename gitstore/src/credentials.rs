//! Credentials with which the controller reads from a server.

mod docker;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest as _, Sha256};
use ureq::http::HeaderValue;
use zeroize::Zeroizing;

use super::FetchError;
use super::url::{RemoteUrl, SSH_PORT, Serves, SshUrl, is_of_registry};
use remotes::allowed_path;

/// Credentials for one Repository. They are sent only to the host of the Repository's URL, and only over TLS. For a remote
/// repository, they are sent only to [some paths](Self::only_for) of this host.
///
/// The type has no `Debug` and no `Serialize`; the credentials are wiped when they are dropped. The HTTP client's copy
/// of a request's header lives as long as the request and is not wiped.
#[derive(Default)]
pub struct Credentials {
    authentication: Authentication,
    certificate_authorities: Vec<u8>,
    /// The path of the only URL that they are for.
    only_for: Option<String>,
}

#[derive(Default)]
enum Authentication {
    #[default]
    None,
    Basic {
        username: String,
        password: Zeroizing<Vec<u8>>,
    },
    Bearer(Zeroizing<Vec<u8>>),
    /// For Git over SSH.
    Key(Key),
}

/// A private key for Git over SSH, and the keys of servers that are trusted.
pub(super) struct Key {
    /// The private key: a file in PEM form.
    pub(super) identity: Zeroizing<Vec<u8>>,
    /// The passphrase of the private key; empty if it has none.
    pub(super) passphrase: Zeroizing<Vec<u8>>,
    /// The content of a known_hosts file.
    pub(super) known_hosts: Vec<u8>,
}

/// The names under which Secrets have a private key: that of Flux, that of Argo CD, and that of the type `kubernetes.io/ssh-auth`.
const IDENTITIES: [&str; 3] = ["identity", "sshPrivateKey", "ssh-privatekey"];
/// The most bytes of a known_hosts file.
const KNOWN_HOSTS_BYTES: usize = 256 << 10;
/// The most bytes of a private key.
const IDENTITY_BYTES: usize = 64 << 10;
/// The most bytes of its passphrase.
const PASSPHRASE_BYTES: usize = 4 << 10;

impl Credentials {
    /// Anonymous.
    pub fn none() -> Self {
        Self::default()
    }

    /// Credentials of a user name and a password or access token.
    pub fn basic(username: impl Into<String>, password: Zeroizing<Vec<u8>>) -> Self {
        Self { authentication: Authentication::Basic { username: username.into(), password }, ..Self::default() }
    }

    /// Credentials of a token that is sent as `Authorization: Bearer …`.
    pub fn bearer(token: Zeroizing<Vec<u8>>) -> Self {
        Self { authentication: Authentication::Bearer(token), ..Self::default() }
    }

    /// Adds certificate authorities (PEM) to trust besides the system's.
    #[must_use]
    pub fn with_certificate_authorities(mut self, pem: Vec<u8>) -> Self {
        self.certificate_authorities = pem;
        self
    }

    /// Sends them only to what an entry of `spec.remotes` with this URL allows. Everything else on the same host is asked without
    /// them: whoever chooses the references or writes the index of a chart repository must not choose what they open.
    #[must_use]
    pub fn only_for(mut self, allowed: &str) -> Self {
        // Without a usable URL, nothing is allowed.
        self.only_for = Some(allowed_path(allowed).unwrap_or_else(|| "none".to_owned()));
        self
    }

    /// What the paths of requests begin with that they are sent with; `None` if they are for the whole host.
    pub(super) fn prefixes(&self, serves: Serves) -> Option<Vec<String>> {
        let path = self.only_for.as_ref()?;
        let api = if serves == Serves::Artifacts { "/v2" } else { "" };
        if path.ends_with('/') {
            return Some(vec![format!("{api}{path}")]);
        }
        let exact = match serves {
            // A server may redirect from one of the two names of a repository to the other one.
            Serves::Git => path.strip_suffix(".git").unwrap_or(path),
            Serves::Artifacts | Serves::Charts => path,
        };
        let with_git = (serves == Serves::Git).then(|| format!("{exact}.git/"));
        Some(std::iter::once(format!("{api}{exact}/")).chain(with_git).collect())
    }

    /// Reads credentials from the keys of a Secret that `spec.secretRef` names: `username` and `password`, or
    /// `bearerToken`; optionally `ca.crt`. If `url` (`spec.url`) leads to a registry, also from `.dockerconfigjson`. If it is that
    /// of Git over SSH, from `identity` and `known_hosts`, and `password` if the private key has a passphrase.
    ///
    /// # Errors
    /// [`FetchError::InvalidCredentials`] if the Secret has no usable combination of keys; the message says what is
    /// missing. If the URL cannot be used, the error says why, because the URL decides which keys are needed.
    pub fn from_secret<'a>(url: &str, value: impl Fn(&str) -> Option<&'a [u8]>) -> Result<Self, FetchError> {
        let invalid = |text: &str| Err(FetchError::InvalidCredentials(text.into()));
        let keys: Vec<_> = IDENTITIES.into_iter().filter(|name| value(name).is_some()).collect();
        if let Some(server) = RemoteUrl::parse(url, true)?.ssh() {
            return Self::key_from_secret(server, &keys, value);
        }
        let docker = || value(docker::KEY).filter(|_| is_of_registry(url));
        let secret = |bytes: &[u8]| Zeroizing::new(trim_line_end(bytes).to_vec());
        let credentials = match (value("bearerToken"), value("username"), value("password")) {
            (Some(token), None, None) => Self::bearer(secret(token)),
            (Some(_), ..) => {
                return invalid("the Secret has both bearerToken and username or password: keep one");
            }
            (None, Some(username), Some(password)) => match std::str::from_utf8(trim_line_end(username)) {
                Ok(username) => Self::basic(username, secret(password)),
                Err(_) => return invalid("the Secret's username is not UTF-8"),
            },
            (None, Some(_), None) => return invalid("the Secret has a username but no password"),
            (None, None, Some(_)) => return invalid("the Secret has a password but no username"),
            (None, None, None) if docker().is_some() => match docker::login(docker().unwrap_or_default(), url) {
                Ok(docker::Login { username, password }) => Self::basic(username, password),
                Err(why) => return invalid(&why),
            },
            (None, None, None) if value("ca.crt").is_some() => Self::none(),
            (None, None, None) if !keys.is_empty() => {
                return invalid(
                    "the Secret has a private key for Git over SSH, and spec.url is not an ssh:// or git@host:path URL: change \
                     spec.url, or add username and password, or bearerToken",
                );
            }
            (None, None, None) => {
                return invalid("the Secret has neither username and password nor bearerToken");
            }
        };
        Ok(credentials.with_certificate_authorities(value("ca.crt").unwrap_or_default().to_vec()))
    }

    fn key_from_secret<'a>(
        server: &SshUrl,
        keys: &[&str],
        value: impl Fn(&str) -> Option<&'a [u8]>,
    ) -> Result<Self, FetchError> {
        let invalid = |text: String| Err(FetchError::InvalidCredentials(text));
        let identity = match keys {
            [] => return invalid("the Secret has no private key: add it as identity".to_owned()),
            [one] => value(one).unwrap_or_default(),
            more => return invalid(format!("the Secret has {}: keep one", more.join(" and "))),
        };
        let Some(known_hosts) = value("known_hosts") else {
            let port = if server.port == SSH_PORT { String::new() } else { format!("-p {} ", server.port) };
            return invalid(format!(
                "the Secret has no known_hosts: add the lines that `ssh-keyscan {port}{}` prints, after you have compared the \
                 fingerprints with those that the operator of the server publishes",
                server.host
            ));
        };
        let password = trim_line_end(value("password").unwrap_or_default());
        for (name, bytes, most) in [
            (keys[0], identity, IDENTITY_BYTES),
            ("password", password, PASSPHRASE_BYTES),
            ("known_hosts", known_hosts, KNOWN_HOSTS_BYTES),
        ] {
            if bytes.len() > most {
                return invalid(format!("{name} of the Secret is larger than {} KiB", most >> 10));
            }
        }
        let passphrase = password.to_vec();
        let key = Key {
            identity: Zeroizing::new(identity.to_vec()),
            passphrase: Zeroizing::new(passphrase),
            known_hosts: known_hosts.to_vec(),
        };
        Ok(Self { authentication: Authentication::Key(key), ..Self::default() })
    }

    /// The private key for Git over SSH.
    pub(super) fn key(&self) -> Option<&Key> {
        match &self.authentication {
            Authentication::Key(key) => Some(key),
            _ => None,
        }
    }

    pub(super) fn is_anonymous(&self) -> bool {
        matches!(self.authentication, Authentication::None)
    }

    /// Whether this is a token, which is sent as it is.
    pub(super) fn is_token(&self) -> bool {
        matches!(self.authentication, Authentication::Bearer(_))
    }

    pub(super) fn certificate_authorities(&self) -> &[u8] {
        &self.certificate_authorities
    }

    /// Identifies a set of certificate authorities.
    pub(super) fn trust_digest(&self) -> [u8; 32] {
        Sha256::digest(&self.certificate_authorities).into()
    }

    /// The value of the `Authorization` header.
    pub(super) fn authorization(&self) -> Result<Option<HeaderValue>, FetchError> {
        let text = match &self.authentication {
            Authentication::None | Authentication::Key(_) => return Ok(None),
            Authentication::Basic { username, password } => {
                if username.contains(':') || username.chars().any(char::is_control) {
                    return Err(FetchError::InvalidCredentials(
                        "the username holds a colon or a control character".into(),
                    ));
                }
                let mut pair = Zeroizing::new(Vec::with_capacity(username.len() + 1 + password.len()));
                pair.extend_from_slice(username.as_bytes());
                pair.push(b':');
                pair.extend_from_slice(password);
                let encoded = Zeroizing::new(STANDARD.encode(&*pair));
                Zeroizing::new(format!("Basic {}", *encoded).into_bytes())
            }
            Authentication::Bearer(token) => {
                let mut text = Zeroizing::new(Vec::with_capacity(7 + token.len()));
                text.extend_from_slice(b"Bearer ");
                text.extend_from_slice(token);
                text
            }
        };
        let mut header = HeaderValue::from_bytes(&text).map_err(|_| {
            FetchError::InvalidCredentials("bearerToken holds a line break or a control character".into())
        })?;
        header.set_sensitive(true);
        Ok(Some(header))
    }
}

/// Values pasted into a Secret often end with a line break that the server would not accept.
fn trim_line_end(bytes: &[u8]) -> &[u8] {
    let end = bytes.iter().rposition(|b| !matches!(b, b'\n' | b'\r')).map_or(0, |last| last + 1);
    &bytes[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(pairs: &[(&str, &str)]) -> Result<Credentials, FetchError> {
        of("https://git.example.com/a", pairs)
    }

    fn of(url: &str, pairs: &[(&str, &str)]) -> Result<Credentials, FetchError> {
        let pairs: std::collections::BTreeMap<String, Vec<u8>> =
            pairs.iter().map(|(k, v)| ((*k).to_owned(), v.as_bytes().to_vec())).collect();
        Credentials::from_secret(url, |key| pairs.get(key).map(Vec::as_slice))
    }

    fn header(credentials: &Credentials) -> Option<String> {
        credentials.authorization().unwrap().map(|value| String::from_utf8(value.as_bytes().to_vec()).unwrap())
    }

    #[test]
    fn a_secret_becomes_a_header() {
        let basic = from(&[("username", "git"), ("password", "pass:word\n")]).unwrap();
        assert_eq!(header(&basic).as_deref(), Some("Basic Z2l0OnBhc3M6d29yZA=="));
        assert_eq!(header(&from(&[("bearerToken", "abc\r\n")]).unwrap()).as_deref(), Some("Bearer abc"));
        assert!(from(&[("ca.crt", "pem")]).unwrap().is_anonymous());
    }

    #[test]
    fn a_private_key_is_read_under_the_names_that_other_tools_give_it() {
        for name in IDENTITIES {
            for url in ["ssh://git@git.example.com/a", "git@git.example.com:a"] {
                let pairs = [(name, "key\n"), ("known_hosts", "host\n"), ("password", "two words\n")];
                let credentials = of(url, &pairs).unwrap();
                let key = credentials.key().unwrap();
                assert_eq!((&**key.identity, &**key.passphrase), (&b"key\n"[..], &b"two words"[..]));
                assert!(header(&credentials).is_none() && !credentials.is_anonymous());
            }
        }
    }

    #[test]
    fn a_url_that_cannot_be_used_is_told_before_the_keys() {
        for url in ["ssh://git@git.example.com:team/app.git", "ssh://git@-x/a", "git://git.example.com/a"] {
            for pairs in [&[("identity", "key"), ("known_hosts", "host")][..], &[]] {
                let error = of(url, pairs).err().expect("refused");
                let parsed = RemoteUrl::parse(url, true).expect_err("refused");
                assert_eq!((error.reason(), error.to_string()), (parsed.reason(), parsed.to_string()));
            }
        }
    }

    #[test]
    fn what_a_secret_for_ssh_lacks_or_has_too_much_of_is_told() {
        let told = |url: &str, pairs: &[(&str, &str)]| of(url, pairs).err().expect("refused").to_string();
        let without = [("identity", "key")];
        assert!(told("git@git.example.com:a", &without).contains("`ssh-keyscan git.example.com`"));
        let url = "ssh://git@git.example.com:2222/a";
        assert!(told(url, &without).contains("`ssh-keyscan -p 2222 git.example.com`"));
        let long = "x".repeat(64 << 10);
        let longer = format!("{long}x");
        let all = |identity, password| [("sshPrivateKey", identity), ("known_hosts", "host"), ("password", password)];
        assert!(of(url, &all(&long, &long[..4096])).is_ok());
        assert!(told(url, &all(&longer, "")).contains("sshPrivateKey of the Secret is larger than 64 KiB"));
        assert!(told(url, &all("key", &long[..4097])).contains("password of the Secret is larger than 4 KiB"));
    }

    #[test]
    fn a_secret_without_a_usable_combination_is_refused() {
        for pairs in [
            &[][..],
            &[("username", "git")],
            &[("password", "x")],
            &[("bearerToken", "x"), ("password", "x")],
            &[("identity", "key"), ("known_hosts", "host")],
            &[(".dockerconfigjson", r#"{"auths": {"git.example.com": {"auth": "bWU6aHVudGVyMg=="}}}"#)],
        ] {
            let error = from(pairs).err().expect("refused");
            assert_eq!(error.reason(), "InvalidCredentials", "{error}");
        }
        for pairs in [
            &[("username", "git"), ("password", "x")][..],
            &[("identity", "key")],
            &[("known_hosts", "host")],
            &[("identity", "key"), ("sshPrivateKey", "key"), ("known_hosts", "host")],
        ] {
            let error = of("git@git.example.com:a", pairs).err().expect("refused");
            assert_eq!(error.reason(), "InvalidCredentials", "{error}");
        }
        assert!(from(&[("bearerToken", "a\nb")]).unwrap().authorization().is_err());
        assert!(from(&[("username", "a:b"), ("password", "x")]).unwrap().authorization().is_err());
    }
}
