//! Which client sent a request. Usually this is the peer of the connection. But if the peer is an API server that works
//! as a proxy, the client is the one that sent the request to this API server.
//!
//! An API server appends the address of its own client to `X-Forwarded-For`, after anything that the client wrote
//! there. So only the last address in the header comes from the API server, and only on a connection from an API
//! server. On any other connection, the header is ignored.

use std::{
    net::IpAddr,
    sync::{Arc, PoisonError, RwLock},
};

use axum::http::HeaderMap;
use ipnet::IpNet;

const FORWARDED_FOR: &str = "x-forwarded-for";

/// Addresses of proxies whose header `X-Forwarded-For` is used. Clones share the addresses.
#[derive(Clone, Debug, Default)]
pub struct Proxies(Arc<RwLock<Vec<IpNet>>>);

impl Proxies {
    /// Replaces the addresses.
    pub fn set(&self, networks: impl IntoIterator<Item = IpNet>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = networks.into_iter().collect();
    }

    /// Whether `peer` is one of the addresses.
    pub(crate) fn contains(&self, peer: IpAddr) -> bool {
        self.0.read().unwrap_or_else(PoisonError::into_inner).iter().any(|network| network.contains(&peer))
    }

    /// The address of the client of a request that came from `peer`. If `peer` is not one of the proxies, or if the
    /// header has no address that can be parsed, the result is `peer`.
    pub(super) fn client(&self, peer: IpAddr, headers: &HeaderMap) -> IpAddr {
        let peer = peer.to_canonical();
        if !self.contains(peer) {
            return peer;
        }
        let last = headers.get_all(FORWARDED_FOR).iter().next_back();
        let last = last.and_then(|value| value.to_str().ok()?.rsplit(',').next()?.trim().parse::<IpAddr>().ok());
        last.map_or(peer, |client| client.to_canonical())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(proxies: &[&str], peer: &str, forwarded_for: &[&str]) -> String {
        let all = Proxies::default();
        all.set(proxies.iter().map(|network| network.parse().unwrap()));
        let header = |value: &&str| (FORWARDED_FOR.parse().unwrap(), value.parse().unwrap());
        let mut headers = HeaderMap::new();
        headers.extend(
            forwarded_for.iter().map(header).map(|(name, value): (axum::http::HeaderName, _)| (Some(name), value)),
        );
        all.client(peer.parse().unwrap(), &headers).to_string()
    }

    #[test]
    fn only_the_api_server_s_own_word_counts() {
        let api_servers = ["10.0.0.0/30", "2001:db8::1/128"];
        assert_eq!(client(&api_servers, "10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(client(&api_servers, "::ffff:10.0.0.1", &["192.0.2.7"]), "192.0.2.7");
        assert_eq!(client(&api_servers, "2001:db8::1", &["192.0.2.7"]), "192.0.2.7");
        for invented in [&["1.1.1.1, 192.0.2.7"][..], &["1.1.1.1", "192.0.2.7"], &["nobody,192.0.2.7"]] {
            assert_eq!(client(&api_servers, "10.0.0.1", invented), "192.0.2.7", "{invented:?}");
        }
        for useless in [&[][..], &[""], &["192.0.2.7, nobody"]] {
            assert_eq!(client(&api_servers, "10.0.0.1", useless), "10.0.0.1", "{useless:?}");
        }
        assert_eq!(client(&api_servers, "10.0.0.4", &["192.0.2.7"]), "10.0.0.4", "a Pod is who it is");
        assert_eq!(client(&[], "10.0.0.1", &["192.0.2.7"]), "10.0.0.1");
    }
}
