//! Test harness.

pub mod git;
