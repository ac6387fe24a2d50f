//! The Kubernetes API as the pipeline uses it: requests, kinds, and the objects in the cluster.

mod answer;
mod api;
mod capabilities;
mod discovery;
mod fields;
mod follow;
mod live;
mod namespaces;
mod recreate;
mod refusal;
mod replace;
mod reviews;
mod take_over;
mod verdict;

pub use answer::{ApiError, Written};
pub use api::Api;
pub use capabilities::Served;
pub use discovery::{Discovery, DiscoveryError};
pub(crate) use follow::{follow, is_refused};
pub use live::{AllOf, Change, Live, LiveObject, Named, Sight, WatchError};
pub use namespaces::Namespaces;
pub use pipeline::SecretFacts;
pub use recreate::Deleted;
pub use reviews::Reviews;
pub use take_over::AsInGit;
pub use verdict::{NoPlace, is_going, no_place};

/// A cluster that objects are applied to.
pub struct Cluster {
    /// The cluster's API server, with the controller's own rights.
    pub api: Api,
    /// The kinds that the API server serves.
    pub discovery: Discovery,
    /// The objects in the cluster, and which Sync each of them belongs to.
    pub live: Live,
    /// The rights that identities have in the cluster.
    pub reviews: Reviews,
}
