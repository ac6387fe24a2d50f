//! What Kubernetes versions and CustomResourceDefinitions accept, without a cluster.
//!
//! [`Schemas`] checks objects as the API server of one version of Kubernetes decodes and validates them: kinds that it serves, unknown
//! fields, types, required fields, and for kinds of CustomResourceDefinitions also the other rules of their schema. It does not
//! know the rules that Kubernetes has only in its code, nor CEL rules. Messages name fields and never quote values, because a value
//! may be a secret.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod crd;
mod field;
mod format;
mod kubernetes;
mod problem;
mod validate;

pub use self::{
    crd::WrongDefinition,
    field::{Field, FieldType, METADATA},
    kubernetes::{KubernetesVersion, UnknownVersion, is_namespaced},
    problem::{Check, Problem, Severity},
    validate::{Checked, Schemas, nearest},
};
