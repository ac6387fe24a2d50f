//! `managedFields`: who owns which field of an object, and how to change the owner. All functions are pure: they take
//! lists of entries and return lists of entries.
//!
//! The API server has one entry for each field manager, operation and subresource. The entry has the set of fields that
//! the manager last set with this operation in the object or the subresource. [`set`] describes the form of such a set.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod job;
mod left;
mod managers;
pub mod set;
mod take_over;
mod touched;
mod versions;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry;
use serde_json::Value;

pub use job::{Expired, expired_job};
pub use left::{leave_out, owned_by, without_ours};
pub use managers::Managers;
pub use take_over::{LeftToOthers, Taken, take_over};
pub use touched::{Touched, touched, touched_beside};
pub use versions::with_version;

/// Whether the entry is the one for gitseal's own applies.
pub fn is_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(crds::FIELD_MANAGER)
        && entry.operation.as_deref() == Some("Apply")
        && is_of_object(entry)
}

/// Whether the entry is about the object itself, and not about a subresource such as `status` or `scale`.
fn is_of_object(entry: &ManagedFieldsEntry) -> bool {
    entry.subresource.as_deref().unwrap_or_default().is_empty()
}

fn set_of(entry: &ManagedFieldsEntry) -> Option<&Value> {
    entry.fields_v1.as_ref().map(|fields| &fields.0)
}
