//! Secrets of the type `kubernetes.io/dockerconfigjson`, as Kubernetes reads them for `imagePullSecrets`.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD};
use serde::Deserialize;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::transport::presentable;
use crate::url::DOCKER_HUB;

/// The key of the Secret.
pub(super) const KEY: &str = ".dockerconfigjson";
/// How many registries an error lists.
const SHOWN: usize = 5;

/// The login for a registry.
pub(super) struct Login {
    pub(super) username: String,
    pub(super) password: Zeroizing<Vec<u8>>,
}

#[derive(Deserialize)]
struct Config {
    #[serde(default)]
    auths: BTreeMap<String, Entry>,
}

#[derive(Deserialize, Zeroize, ZeroizeOnDrop)]
struct Entry {
    /// Base64 of `username:password`.
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
}

/// The login for the repository of artifacts at `url`, or why there is none.
pub(super) fn login(json: &[u8], url: &str) -> Result<Login, String> {
    // The parser's error may quote the text, so the message has only the line.
    let config: Config = serde_json::from_slice(json)
        .map_err(|error| format!("the Secret's {KEY} is not valid: line {}", error.line()))?;
    let wanted = place(url);
    let fits = |registry: &str| {
        let registry = place(registry);
        wanted
            .strip_prefix(&registry)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            .then_some(registry.len())
    };
    let found = config.auths.iter().filter_map(|(registry, entry)| Some((fits(registry)?, registry, entry)));
    let Some((_, registry, entry)) = found.max_by_key(|(length, ..)| *length) else {
        let known: Vec<_> = config.auths.keys().take(SHOWN).map(|registry| presentable(&place(registry))).collect();
        let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
        let host = wanted.split('/').next().unwrap_or_default();
        return Err(format!("the Secret's {KEY} has no login for {host}; it has logins for: {known}"));
    };
    if entry.auth.is_empty() && !entry.username.is_empty() && !entry.password.is_empty() {
        let password = Zeroizing::new(entry.password.as_bytes().to_vec());
        return Ok(Login { username: entry.username.clone(), password });
    }
    let unusable =
        || format!("the Secret's {KEY} has no user name with a password for {}", presentable(&place(registry)));
    let engine = if entry.auth.ends_with('=') { &STANDARD } else { &STANDARD_NO_PAD };
    let pair = Zeroizing::new(engine.decode(&entry.auth).map_err(|_| unusable())?);
    let at = pair.iter().position(|byte| *byte == b':').ok_or_else(unusable)?;
    let username = std::str::from_utf8(&pair[..at]).ok().filter(|name| !name.is_empty()).ok_or_else(unusable)?;
    let password = Zeroizing::new(pair[at + 1..].to_vec());
    if password.is_empty() {
        return Err(unusable());
    }
    Ok(Login { username: username.to_owned(), password })
}

/// Host and path of a registry, without `/v1` or `/v2` at the end, which old programs write. All names of Docker Hub become the same one.
fn place(url: &str) -> String {
    let (_, rest) = url.split_once("://").unwrap_or(("", url));
    let rest = rest.trim_end_matches('/').to_ascii_lowercase();
    let rest = rest.trim_end_matches("/v1").trim_end_matches("/v2");
    let (host, path) = rest.split_once('/').map_or((rest, ""), |(host, _)| (host, &rest[host.len()..]));
    let host = match host {
        "index.docker.io" => DOCKER_HUB.0,
        host if host == DOCKER_HUB.1 => DOCKER_HUB.0,
        host => host,
    };
    format!("{host}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(config: &serde_json::Value, url: &str) -> Result<(String, String), String> {
        let Login { username, password } = login(config.to_string().as_bytes(), url)?;
        Ok((username, String::from_utf8(password.to_vec()).unwrap()))
    }

    #[test]
    fn the_login_of_the_registry_is_used() {
        let of = |pair: &str| serde_json::json!({"auth": STANDARD.encode(pair)});
        let config = serde_json::json!({"auths": {
            "registry.example.com": of("all:one"),
            "https://registry.example.com/team/": of("team:t:wo"),
            "registry.example.com:5000": {"username": "port", "password": "three"},
            "https://index.docker.io/v1/": {"auth": STANDARD_NO_PAD.encode("hub:four")},
            "broken.example.com": of("no colon"),
            "empty.example.com": {"identitytoken": "five"},
        }});
        for (url, username, password) in [
            ("oci://registry.example.com/charts/a", "all", "one"),
            ("oci://Registry.example.com/team/a", "team", "t:wo"),
            ("oci://registry.example.com/teams/a", "all", "one"),
            ("oci://registry.example.com:5000/a", "port", "three"),
            ("oci://docker.io/team/a", "hub", "four"),
            ("oci://registry-1.docker.io/team/a", "hub", "four"),
        ] {
            assert_eq!(found(&config, url), Ok((username.to_owned(), password.to_owned())), "{url}");
        }
        for (url, why) in [
            ("oci://other.example.com/a", "no login for other.example.com; it has logins for: broken.example.com"),
            ("oci://registry.example.com:5001/a", "no login for registry.example.com:5001"),
            ("oci://broken.example.com/a", "no user name with a password for broken.example.com"),
            ("oci://empty.example.com/a", "no user name with a password for empty.example.com"),
        ] {
            let told = found(&config, url).unwrap_err();
            assert!(told.contains(why), "{told}");
        }
        for config in [&b"{\"auths\": {\"a\": {\"auth\": 1}}}"[..], b"hunter2", b"{}"] {
            let told = login(config, "oci://a/b").err().unwrap();
            assert!(!told.contains("hunter2") && told.contains(KEY), "{told}");
        }
    }
}
