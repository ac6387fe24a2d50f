//! Lists the objects that are left in the cluster after the controller and its rights were removed.

use std::collections::BTreeSet;

use crds::{Repository, SealedSecret, Sync, names};
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, Client, ResourceExt, api::ListParams};

use super::{all, prune};
use crate::{
    commands::install::live::Live,
    global::CONTROLLER_NAMESPACE,
    output::{self, counted},
};

/// The objects that were not deleted.
pub struct Left {
    /// How many of the objects that the Syncs applied are left.
    applied: usize,
    syncs: usize,
    repositories: usize,
    sealed_secrets: usize,
    /// Namespaces and names of the service accounts that the Syncs wrote as.
    accounts: BTreeSet<String>,
    /// How many sealing keys are in the controller's namespace.
    keys: usize,
    namespace: String,
}

impl Left {
    pub async fn read(client: &Client, live: &Live) -> anyhow::Result<Self> {
        let syncs = all::<Sync>(client).await?;
        let accounts = syncs.iter().filter_map(|sync| {
            let account = sync.spec.service_account_name.as_ref()?;
            Some(format!("{}/{account}", sync.namespace().unwrap_or_default()))
        });
        let secrets: Api<Secret> = Api::namespaced(client.clone(), &live.namespace);
        let keys = secrets.list_metadata(&ListParams::default().labels(names::SEALING_KEY)).await?;
        Ok(Self {
            applied: prune::applied(&syncs),
            accounts: accounts.collect(),
            syncs: syncs.len(),
            repositories: all::<Repository>(client).await?.len(),
            sealed_secrets: all::<SealedSecret>(client).await?.len(),
            keys: keys.items.len(),
            namespace: live.namespace.clone(),
        })
    }

    /// Prints what is left. `kinds` says whether the CustomResourceDefinitions are left, too.
    pub fn show(&self, kinds: bool) {
        let left = |what: &str| output::note(format_args!("left: {what}"));
        if self.applied > 0 {
            left(&format!(
                "{} that Syncs applied; gitseal no longer changes or deletes them",
                counted(self.applied, "object")
            ));
        }
        if kinds {
            let repositories = match self.repositories {
                1 => "1 Repository".to_owned(),
                count => format!("{count} Repositories"),
            };
            left(&format!(
                "{} (suspended), {repositories}, {}, and the CustomResourceDefinitions of these kinds",
                counted(self.syncs, "Sync"),
                counted(self.sealed_secrets, "SealedSecret"),
            ));
        }
        if !self.accounts.is_empty() {
            let all: Vec<_> = self.accounts.iter().map(String::as_str).collect();
            left(&format!("the service accounts that Syncs wrote as, with their rights: {}", all.join(", ")));
        }
        if self.keys > 0 {
            let which = "without which no SealedSecret can be unsealed";
            left(&format!("{} in {}, {which}", counted(self.keys, "sealing key"), self.namespace));
        }
        if self.namespace != CONTROLLER_NAMESPACE {
            left(&format!("the namespace {}", self.namespace));
        }
    }
}
