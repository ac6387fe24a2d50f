//! Prevents needless restarts of workloads whose Pods are restarted when a value that they use changes. In the plan, a
//! Secret counts as changed if its SealedSecret was sealed again. Only the write of the Secret shows whether its values
//! are the same: if they are, the API server changes nothing.

use std::collections::HashMap;

use crds::ObjectKey;
use manifests::ObjectId;
use pipeline::plan::{Content, LiveView as _, Stamp, Step};

use super::Applier;
use crate::{cluster::LiveObject, sealed_secret::is_made_from, sync::prepare::values_digest};

/// The Secrets that this pass wrote without changing their values, each with the digest of the SealedSecret that first
/// had these values.
pub(super) type SameValues = HashMap<ObjectId, String>;

impl Applier<'_> {
    /// The digest of the SealedSecret that first had the values of a Secret. `before` is the state of the Secret before
    /// it is written. `None` if it is not certain which values the Secret has: after a crash, it may have been written
    /// without a record in the inventory.
    pub(super) fn values_of(&self, step: &Step, before: &LiveObject) -> Option<String> {
        let Content::Sealed(_) = &step.content else { return None };
        let known = self.before.get(&step.id)?;
        let digest = known.manifest.as_ref()?;
        let key = ObjectKey::new(step.id.namespace.as_deref().unwrap_or_default(), &step.id.name);
        is_made_from(self.pass.ctx, &key, before, digest).then(|| known.values.as_ref().unwrap_or(digest).clone())
    }

    /// Computes the digests of the workloads in `steps` again. For Secrets that have the `same` values as before, the
    /// digest of the SealedSecret that first had these values is used. If a workload is then the same as the one that
    /// was applied before, it is left out and counts as `unchanged`.
    pub(super) fn restamped(&self, steps: Vec<Step>, same: &SameValues, unchanged: &mut usize) -> Vec<Step> {
        let mut kept = Vec::with_capacity(steps.len());
        for mut step in steps {
            if let (Some(stamp), Content::Manifest(body)) = (&mut step.stamp, &mut step.content) {
                let mut of = stamp.of.clone();
                for (id, values) in &mut of {
                    if let Some(first) = same.get(id) {
                        values.clone_from(first);
                    }
                }
                if of != stamp.of {
                    *stamp = Stamp::new(of, &|parts| values_digest(&self.pass.ctx.keyring, parts));
                    stamp.write(body);
                    let is_known = self.before.get(&step.id).is_some_and(|applied| step.is_as(applied));
                    if is_known && self.live().is_untouched(&step.id) {
                        *unchanged += 1;
                        continue;
                    }
                }
            }
            kept.push(step);
        }
        kept
    }
}
