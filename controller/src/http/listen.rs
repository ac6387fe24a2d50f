//! Listens on addresses in the form that Go programs read, for example `:8080`.

use std::{
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::net::TcpListener;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The text is not an address.
    #[error("{address:?} is not an address to listen on: write :PORT or HOST:PORT, for example :8080")]
    Address {
        /// The address from the command line.
        address: String,
    },
    /// The operating system refuses to listen on the address.
    #[error("listening on {address} failed: {source}; is another program using the port?")]
    Bind {
        /// The address from the command line.
        address: String,
        /// The error of the operating system.
        source: io::Error,
    },
}

/// Listens on `address`. If `address` has no host, this listens on every interface, also with IPv6 if the machine has
/// IPv6.
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

/// The port of an address without a host; `None` if the address has a host.
fn port_only(address: &str) -> Result<Option<u16>, ListenError> {
    let wrong = || ListenError::Address { address: address.into() };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let port = port.parse().map_err(|_| wrong())?;
    Ok(host.is_empty().then_some(port))
}
