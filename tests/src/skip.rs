//! Skips tests that need something that this machine does not have.

use std::io::Write as _;

use anyhow::{Result, bail};

/// If this variable is set to `1`, a test fails instead of being skipped.
const REQUIRE_ALL: &str = "GITSEAL_REQUIRE_ALL";

/// Says that a test is skipped because the machine lacks something. The text is shown even if the output of tests that
/// pass is not.
///
/// # Errors
/// `GITSEAL_REQUIRE_ALL=1` is set.
pub fn skip(lacks: &str) -> Result<()> {
    skip_unless(lacks, std::env::var_os(REQUIRE_ALL).is_some_and(|value| value == "1"))
}

fn skip_unless(lacks: &str, is_required: bool) -> Result<()> {
    if is_required {
        bail!("{lacks}, and {REQUIRE_ALL}=1 is set, so this test must not be skipped");
    }
    let thread = std::thread::current();
    // The thread has the name of the test. What `eprintln` writes would not be shown if the test passes.
    writeln!(std::io::stderr(), "skipped: {}: {lacks}", thread.name().unwrap_or("a test"))?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_that_must_have_everything_skips_nothing() {
        skip_unless("it has no such thing", false).unwrap();
        let failed = skip_unless("it has no such thing", true).unwrap_err().to_string();
        assert!(failed.contains("it has no such thing") && failed.contains(REQUIRE_ALL), "{failed}");
    }
}
