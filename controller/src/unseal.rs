//! A SealedSecret → its Secret, with the keys of this cluster.

use manifests::printable;
use tokio::task::spawn_blocking;
use unsealing::{SealedInput, UnsealError, UnsealedSecret, assemble, sealed_texts};

use crate::keys::Keyring;
pub use pipeline::{digest_mark, may_write, was_merged};

/// Unseals every value of a SealedSecret and puts its Secret together.
///
/// # Assumptions
/// The API server has accepted exactly this SealedSecret, and whoever brought it may write its Secret: the caller made
/// sure of both, since what happens in here can be told from outside.
pub(crate) async fn unseal(keyring: &Keyring, sealed: &SealedInput<'_>) -> Result<UnsealedSecret, UnsealError> {
    if keyring.reserves(sealed.namespace, sealed.name) {
        return Err(UnsealError::ReservedName(printable(sealed.name)));
    }
    let unsealed = keyring.unseal(sealed_texts(sealed)?).await;
    let assembly = assemble(sealed, unsealed)?;
    if !assembly.has_templates() {
        return assembly.finish();
    }
    let turn = keyring.turn_to_render().await;
    let rendered = spawn_blocking(move || {
        let _turn = turn;
        assembly.finish()
    });
    // It does not panic; if it did, this SealedSecret must not take the controller along.
    rendered.await.unwrap_or(Err(UnsealError::Interrupted))
}
