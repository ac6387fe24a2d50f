//! Running the tests of charts again.

use anyhow::Context;
use crds::{Sync, names};

use super::{Session, plan::Plan};
use crate::{managed::Managed, output::Hint};

impl Session {
    /// Makes the request that follows run the tests of the Syncs in `plan`.
    ///
    /// # Errors
    /// One of the Syncs does not run tests.
    pub(super) async fn run_tests(&self, plan: &Plan) -> anyhow::Result<()> {
        let names = || plan.groups.iter().flat_map(|group| &group.syncs);
        for name in names() {
            let read = self.api::<Sync>(&name.namespace).get(&name.name).await;
            let sync = read.with_context(|| format!("cannot read sync/{}", name.name))?;
            if !sync.spec.helm.as_ref().is_some_and(|helm| helm.test) {
                return Err(Hint::wrong_usage(
                    format!("{} does not run the tests of a chart", sync.reference()),
                    "set spec.helm.test of the Sync to true; then its tests run for each revision, and with --test again",
                ));
            }
        }
        for name in names() {
            self.annotate::<Sync>(name, names::RUN_TESTS, &self.token)
                .await
                .with_context(|| format!("cannot set the annotation on sync/{} that runs the tests", name.name))?;
        }
        Ok(())
    }
}
