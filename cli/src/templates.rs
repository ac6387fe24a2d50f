//! Errors in the templates of a SealedSecret, for somebody who has the private keys.

use anyhow::anyhow;
use unsealing::UnsealError;

/// Why the Secret cannot be made. Unlike the controller, this names every template that fails, with the key and the
/// line in the template, and without a value.
pub fn exact(error: UnsealError) -> anyhow::Error {
    let UnsealError::Render(failure) = &error else { return error.into() };
    let failures: Vec<_> = failure.for_key_holders().iter().map(ToString::to_string).collect();
    anyhow!(failures.join("; "))
}
