//! Whether the identity of a Sync may still read what the Sync gets from the cluster. The watches, which show changes, are
//! made with the controller's own rights, so they do not show that somebody took a right away.

use tokio::time::Instant;

use super::Wanted;
use crate::{
    cluster::{Api, ApiError, Cluster, DiscoveryError},
    fair::Asker,
    sync::{MAY_PASS, Pass},
};

impl Pass<'_> {
    /// Whether the identity of the Sync may still read `all`, as far as is known. The API server is asked once per
    /// `spec.interval`, and never about the rights of the controller itself.
    pub(super) async fn may_still_read(&self, all: &[Wanted<'_>]) -> bool {
        let (inputs, api) = (&self.ctx.inputs, self.identity());
        if api.user().is_none() {
            return true;
        }
        let due = || inputs.rights_due(self.sync, self.interval());
        if due().is_none_or(|due| due > Instant::now()) {
            self.come_back(due());
            return true;
        }
        for one in all {
            match self.may_read(&api, one).await {
                Ok(true) => {}
                Ok(false) => return false,
                Err(error) => {
                    tracing::debug!(sync = %self.key, entry = %one.entry(), %error, "it is not known whether the Sync may still read this");
                    self.come_back(Some(Instant::now() + MAY_PASS));
                    return true;
                }
            }
        }
        inputs.is_allowed(self.key);
        self.come_back(due());
        true
    }

    /// Whether the identity of the Sync, which `api` is for, may read what this entry names.
    async fn may_read(&self, api: &Api, one: &Wanted<'_>) -> Result<bool, ApiError> {
        let Cluster { discovery, reviews, .. } = &self.ctx.cluster;
        let turns = (&self.ctx.health_reads, Asker::Namespace(&self.key.namespace));
        let looked = match one {
            Wanted::Map(map) => {
                let (namespace, name) = (Some(map.namespace), Some(map.name));
                return reviews.may_read(api, turns, &map.resource(), namespace, name).await;
            }
            Wanted::Looked(looked) => looked,
        };
        let (group, version) = looked.group_and_version();
        match discovery.find(group, version, looked.kind).await {
            Ok(resource) => {
                let namespace = looked.namespace.filter(|_| resource.namespaced);
                reviews.may_read(api, turns, &resource, namespace, looked.name).await
            }
            // The read that follows reports this.
            Err(DiscoveryError::UnknownKind { .. }) => Ok(false),
            Err(DiscoveryError::Request { source, .. }) => Err(source),
        }
    }
}
