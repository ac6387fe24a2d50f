//! Addresses as Go programs take them.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// Not an address.
    #[error("{address:?} is not an address to listen on: write :PORT or HOST:PORT, for example :8080")]
    Address {
        /// What was given.
        address: String,
    },
    /// The system refuses.
    #[error("listening on {address} failed: {source}; is another program using the port?")]
    Bind {
        /// What was given.
        address: String,
        /// What the system said.
        source: io::Error,
    },
}

/// Listens on `address`; without a host on every interface, IPv6 included where there is any.
pub(super) async fn bind(address: &str) -> Result<(TcpListener, SocketAddr), ListenError> {
    let listener = match port_only(address)? {
        Some(port) => match TcpListener::bind((Ipv6Addr::UNSPECIFIED, port)).await {
            Ok(listener) => Ok(listener),
            Err(_) => TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).await,
        },
        None => TcpListener::bind(address).await,
    };
    let bound = listener.and_then(|listener| {
        let local = listener.local_addr()?;
        Ok((listener, local))
    });
    bound.map_err(|source| ListenError::Bind { address: address.into(), source })
}

/// The port of an address without a host.
fn port_only(address: &str) -> Result<Option<u16>, ListenError> {
    let wrong = || ListenError::Address { address: address.into() };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    Ok(host.is_empty().then_some(port))
}
