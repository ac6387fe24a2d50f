//! Handles signals. The handlers are installed at the very start, because without a handler each of these signals ends
//! the process.

use std::sync::{Arc, OnceLock};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::keys::Keyring;

/// A token that SIGTERM and SIGINT cancel.
pub(super) fn asked_to_stop() -> CancellationToken {
    let mut terminate = signal(SignalKind::terminate()).expect("signal handlers can be installed");
    let mut interrupt = signal(SignalKind::interrupt()).expect("signal handlers can be installed");
    let stop = CancellationToken::new();
    let asked = stop.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        asked.cancel();
    });
    stop
}

/// Requests a new sealing key whenever the process gets SIGUSR1.
pub(super) fn renew_when_asked(keyring: Arc<OnceLock<Keyring>>) {
    let mut asked = signal(SignalKind::user_defined1()).expect("signal handlers can be installed");
    tokio::spawn(async move {
        while asked.recv().await.is_some() {
            if let Some(keyring) = keyring.get() {
                tracing::info!("SIGUSR1 asks for a new sealing key");
                keyring.renew_now();
            } else {
                tracing::warn!(
                    "SIGUSR1 asks for a new sealing key, but the keys are not loaded yet: send the signal again"
                );
            }
        }
    });
}
