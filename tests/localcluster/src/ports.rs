//! Reserves ports, so that nobody else takes a port after it was chosen and before it is used.
//!
//! One could ask the system for any free port, and close it again. But then several control planes that start at the same
//! time may get the same port, or an outgoing connection may take it. The ports here are below the range that systems use
//! for outgoing connections. Each is reserved by a lock file until its owner ends.

use std::{
    fs::{File, Permissions},
    net::TcpListener,
    os::unix::fs::PermissionsExt,
    path::Path,
    sync::atomic::{AtomicU32, Ordering},
};

use crate::error::{At, Error, Result};

const FROM: u16 = 20_000;
const TO: u16 = 29_999;

/// A reserved port of 127.0.0.1. While this exists, no other `ReservedPort` on this machine has the same number.
#[derive(Debug)]
pub struct ReservedPort {
    number: u16,
    _lock: File,
}

impl ReservedPort {
    /// Reserves a free port.
    pub fn new() -> Result<Self> {
        let folder = std::env::temp_dir().join("localcluster-ports");
        std::fs::create_dir_all(&folder).at("cannot create the directory", &folder)?;
        // All users share the directory, because they share the ports. Only the user who created it can change its mode, so
        // an error is ignored.
        let _ = std::fs::set_permissions(&folder, Permissions::from_mode(0o1777));
        (0..=TO - FROM).find_map(|_| reserve(&folder, next())).ok_or(Error::NoFreePort { from: FROM, to: TO })
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// The next port to try. Each process starts at another number, so that processes seldom try the same port. A port that was
/// released is tried again only after all others. So a test can check that nobody listens on it any more.
fn next() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let tried = TRIED.fetch_add(1, Ordering::Relaxed);
    let place = std::process::id().wrapping_mul(61).wrapping_add(tried) % u32::from(TO - FROM + 1);
    FROM + u16::try_from(place).expect("the remainder is smaller than the range")
}

/// Returns `None` if the port is taken, and also if its lock file belongs to another user.
fn reserve(folder: &Path, number: u16) -> Option<ReservedPort> {
    let lock = File::options().create(true).append(true).open(folder.join(number.to_string())).ok()?;
    lock.try_lock().ok()?;
    TcpListener::bind(("127.0.0.1", number)).ok()?;
    Some(ReservedPort { number, _lock: lock })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ports_that_live_together_differ() {
        let mut numbers: Vec<u16> = Vec::new();
        let ports: Vec<_> = (0..20).map(|_| ReservedPort::new().unwrap()).collect();
        numbers.extend(ports.iter().map(ReservedPort::number));
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 20);
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let first = ReservedPort::new().unwrap();
        let number = first.number();
        let _server = TcpListener::bind(("127.0.0.1", number)).unwrap();
        drop(first);
        assert_ne!(ReservedPort::new().unwrap().number(), number);
    }
}
