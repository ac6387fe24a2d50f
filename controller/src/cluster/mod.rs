//! The Kubernetes API as the pipeline uses it: verbs, kinds, and what is live.

mod api;
mod discovery;
mod fields;
mod live;
mod namespaces;
mod replace;
mod secret_facts;

pub use api::{Api, ApiError, Applied, Resource};
pub use discovery::{Discovery, DiscoveryError};
pub use fields::FieldsDigest;
pub use live::{Change, Live, LiveObject, WatchError, Writing};
pub use namespaces::Namespaces;
pub use secret_facts::SecretFacts;
