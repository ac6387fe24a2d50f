//! How the templates of a SealedSecret fail, for whoever has the private keys.

use anyhow::anyhow;
use unsealing::UnsealError;

/// Why there is no Secret. Unlike the controller, it tells every template that fails, with the key and the line of the
/// template and without a value.
pub fn exact(error: UnsealError) -> anyhow::Error {
    let UnsealError::Render(failure) = &error else { return error.into() };
    let failures: Vec<_> = failure.for_key_holders().iter().map(ToString::to_string).collect();
    anyhow!(failures.join("; "))
}
