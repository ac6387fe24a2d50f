//! Heals drift from the last good revision while the newest revision cannot be applied.

use std::{collections::BTreeSet, sync::Arc};

use gitstore::Revision;
use pipeline::{
    Failure,
    plan::{LiveView as _, Scope},
    repository_of,
};

use super::{
    Pass, Record,
    carry_out::Outcome,
    source::{Sourced, source},
};
use crate::{
    context::InStore as _,
    inputs::Inputs,
    repository::{git_key, stored_url},
};

impl Pass<'_> {
    /// Puts back the objects that drifted, as they are in the last good revision. Objects that are not in this revision
    /// are neither created, changed nor pruned. Objects that cannot be put back wait for the next try.
    pub(super) async fn heal_from_last_good(&self, record: &mut Record) {
        let live = &self.ctx.cluster.live;
        let applied =
            record.inventory.iter().filter(|(id, known)| known.manifest.is_some() && !record.inventory.is_over(id));
        let mut drifted: BTreeSet<_> = applied.map(|(id, _)| id).filter(|id| !live.is_untouched(id)).cloned().collect();
        let later = self.put_off(record, &drifted);
        drifted.retain(|id| !later.contains(id));
        if drifted.is_empty() {
            return;
        }
        let Some(sourced) = self.last_good(record).await else { return };
        let revision = sourced.revision.to_string();
        let mut outcome = Outcome::default();
        if let Err(failure) = self.put_back(record, sourced, &drifted, &mut outcome).await {
            tracing::warn!(sync = %self.key, revision, stage = %failure.stage, "drift is not healed: {}", failure.message);
        }
        self.healed(&outcome);
        crate::sealed_secret::synced::tell(self.ctx, &outcome.applied, &self.key.namespace);
    }

    /// The last revision that was applied as a whole, if it is still stored.
    pub(super) async fn last_good(&self, record: &Record) -> Option<Sourced> {
        let revision: Revision = record.status.last_applied_revision.as_deref()?.parse().ok()?;
        let repository = repository_of(self.sync);
        let url = stored_url(&self.ctx.repositories.get(&repository.to_ref())?.spec);
        let git = self.ctx.git.clone();
        let key = git_key(&repository);
        let snapshot = tokio::task::spawn_blocking(move || git.snapshot(&key, &url, &revision).ok());
        let snapshot = snapshot.await.ok().flatten()?;
        let current = self.ctx.sources.snapshot(&repository);
        let remotes = current.map(|current| current.remotes().clone()).unwrap_or_default();
        let snapshot = Arc::new(snapshot.with_remotes(remotes));
        let now = source(self.ctx, self.sync).ok().map(|sourced| sourced.inputs);
        let inputs = Inputs::remembered(self.sync, record.status.applied_content.as_deref(), now);
        Some(Sourced { revision: snapshot.revision().clone(), snapshot, content: String::new(), inputs, notes: None })
    }

    async fn put_back(
        &self,
        record: &mut Record,
        mut sourced: Sourced,
        drifted: &BTreeSet<manifests::ObjectId>,
        outcome: &mut Outcome,
    ) -> Result<(), Failure> {
        let prepared = Box::pin(self.prepare(&mut sourced, &record.inventory, Scope::Drifted(drifted)));
        let plan = self.unless_overtaken(prepared).await??;
        let plan = plan.heal_only(&record.inventory);
        self.carry_out(record, plan, (&sourced.snapshot, &sourced.revision.to_string()), outcome).await
    }
}
