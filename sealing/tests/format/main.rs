//! The sealed value format, keys and certificates, against test vectors of the real kubeseal and by properties.

#![allow(clippy::unwrap_used)]

mod certificates;
mod hostile_input;
mod keys;
mod kubeseal_values;
mod round_trip;
mod tampering;
mod vectors;
