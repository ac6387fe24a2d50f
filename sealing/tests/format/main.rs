//! Tests the format of sealed values, keys and certificates, with test vectors of the real kubeseal and with property tests.

#![allow(clippy::unwrap_used)]

mod certificates;
mod hostile_input;
mod keys;
mod kubeseal_values;
mod round_trip;
mod tampering;
mod vectors;
