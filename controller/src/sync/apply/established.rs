//! Waits until the API server serves the kind of a CustomResourceDefinition.

use std::time::Duration;

use pipeline::plan::Step;
use serde_json::Value;

use super::{Applier, Because};
use crate::cluster::DiscoveryError;

/// How long it may take until the kind of a new CustomResourceDefinition is served.
pub(super) const ESTABLISHED_WITHIN: Duration = Duration::from_secs(30);

impl Applier<'_> {
    /// Waits until the condition `Established` is True and the kind is served, or until there is something newer to apply.
    pub(super) async fn wait_until_established(&self, step: &Step) -> Result<(), Because> {
        self.pass.unless_overtaken(self.established(step)).await?
    }

    /// Nothing tells the controller when the kind is served, so the API server is asked again and again.
    async fn established(&self, step: &Step) -> Result<(), Because> {
        let deadline = tokio::time::Instant::now() + ESTABLISHED_WITHIN;
        let mut pause = Duration::from_millis(20);
        loop {
            let crd = self.api.get(&step.resource, None, &step.id.name).await.map_err(Because::Unasked)?;
            let group = crd.pointer("/spec/group").and_then(Value::as_str).unwrap_or_default();
            let established = crd.pointer("/status/conditions").and_then(Value::as_array);
            if established.into_iter().flatten().any(|c| c["type"] == "Established" && c["status"] == "True") {
                self.pass.ctx.cluster.discovery.forget(group);
                let kind = crd.pointer("/spec/names/kind").and_then(Value::as_str).unwrap_or_default();
                if self.is_served(&crd, group, kind).await? {
                    return Ok(());
                }
            }
            if tokio::time::Instant::now() > deadline {
                return Err(Because::NotEstablished);
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Whether the kind is served. This is checked in addition to the condition `Established`, which becomes True a
    /// moment before the kind is served.
    async fn is_served(&self, crd: &Value, group: &str, kind: &str) -> Result<bool, Because> {
        let versions = crd.pointer("/spec/versions").and_then(Value::as_array);
        for version in versions.into_iter().flatten().filter(|version| version["served"] == true) {
            let Some(name) = version["name"].as_str() else {
                continue;
            };
            match self.pass.ctx.cluster.discovery.find(group, name, kind).await {
                Ok(_) => {}
                Err(DiscoveryError::UnknownKind { .. }) => {
                    self.pass.ctx.cluster.discovery.forget(group);
                    return Ok(false);
                }
                Err(DiscoveryError::Request { source, .. }) => return Err(Because::Unasked(source)),
            }
        }
        Ok(true)
    }
}
