//! Makes the Secret of a SealedSecret, with the keys of this cluster.

use tokio::task::spawn_blocking;
use unsealing::{SealedInput, UnsealError, UnsealedSecret, assemble, sealed_texts};

use crate::keys::{Fingerprint, Keyring};

/// Unseals all values of a SealedSecret and makes its Secret. Also returns the sealing key, if a single key unsealed
/// all values.
///
/// # Assumptions
/// The API server has accepted exactly this SealedSecret, and the identity that created it may write its Secret. The
/// caller has checked both, because the effects of this function can be observed from outside.
pub(crate) async fn unseal(
    keyring: &Keyring,
    sealed: &SealedInput<'_>,
) -> Result<(UnsealedSecret, Option<Fingerprint>), UnsealError> {
    keyring.reserved().check(sealed)?;
    let unsealed = keyring.unseal(sealed_texts(sealed)?).await;
    let key = unsealed.key;
    let assembly = assemble(sealed, unsealed.values)?;
    if !assembly.has_templates() {
        return Ok((assembly.finish()?, key));
    }
    let turn = keyring.turn_to_render().await;
    let rendered = spawn_blocking(move || {
        let _turn = turn;
        assembly.finish()
    });
    // Rendering should not panic. If it does, only this SealedSecret fails, not the controller.
    Ok((rendered.await.unwrap_or(Err(UnsealError::Interrupted))?, key))
}
