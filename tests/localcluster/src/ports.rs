//! Ports that nobody else takes between choosing and using them.
//!
//! Asking the system for "any free port" and giving it back hands out the same number twice when several control planes
//! start side by side, and lets an outgoing connection take it. These ports lie below the range that systems use for
//! outgoing connections, and each is held by a lock file for as long as its owner lives.

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

/// A port of 127.0.0.1; no other `ReservedPort` on this machine has the same number while this one lives.
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
        // Shared by all users, like the ports; only the user who made the directory can and need open it.
        let _ = std::fs::set_permissions(&folder, Permissions::from_mode(0o1777));
        (0..=TO - FROM).find_map(|_| reserve(&folder, next())).ok_or(Error::NoFreePort { from: FROM, to: TO })
    }

    /// The port's number.
    pub fn number(&self) -> u16 {
        self.number
    }
}

/// The next port to try. Neighbouring processes start at different places, so that they seldom meet; and a port that was
/// given back is the last to be tried again, so that whoever checks that nobody listens there any more finds nobody.
fn next() -> u16 {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    let tried = TRIED.fetch_add(1, Ordering::Relaxed);
    let place = std::process::id().wrapping_mul(61).wrapping_add(tried) % u32::from(TO - FROM + 1);
    FROM + u16::try_from(place).expect("the remainder is smaller than the range")
}

/// None also when the lock file belongs to another user: that port is not ours to use.
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
