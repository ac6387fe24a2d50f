//! Objects that an earlier installation made, and that an installation with the new settings does not need.

use std::fmt::{Display, Formatter, Result};

use anyhow::Context;
use k8s_openapi::api::{
    policy::v1::PodDisruptionBudget,
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{Api, Client, api::DeleteParams};

use super::{
    bundle::{CLUSTER_ADMIN_BINDING, DEPLOYMENT_NAME, WATCH},
    choices::Choices,
    live::Live,
};
use crate::found::or_gone;

/// An object of an earlier installation that is deleted, because the new settings do not need it.
pub enum Removal {
    ClusterRoleBinding(&'static str),
    ClusterRole(&'static str),
    /// The controller's PodDisruptionBudget, in this namespace.
    DisruptionBudget(String),
}

impl Display for Removal {
    fn fmt(&self, f: &mut Formatter<'_>) -> Result {
        match self {
            Self::ClusterRoleBinding(name) => write!(f, "ClusterRoleBinding {name}"),
            Self::ClusterRole(name) => write!(f, "ClusterRole {name}"),
            Self::DisruptionBudget(namespace) => write!(f, "PodDisruptionBudget {namespace}/{DEPLOYMENT_NAME}"),
        }
    }
}

impl Removal {
    /// The existing objects of an earlier installation that the new choices do not need.
    pub fn find(live: &Live, choices: &Choices) -> Vec<Self> {
        let had = live.tenancy.unwrap_or_default();
        let mut found = Vec::new();
        if had.cluster_admin && !choices.tenancy.cluster_admin {
            found.push(Self::ClusterRoleBinding(CLUSTER_ADMIN_BINDING));
        }
        if had.watch && !choices.tenancy.watch {
            found.extend([Self::ClusterRoleBinding(WATCH), Self::ClusterRole(WATCH)]);
        }
        if live.has_disruption_budget && !choices.has_disruption_budget() {
            found.push(Self::DisruptionBudget(live.namespace.clone()));
        }
        found
    }

    /// Deletes the object. It is no error if the object is gone already.
    pub async fn carry_out(&self, client: &Client) -> anyhow::Result<()> {
        let params = DeleteParams::background();
        let all = client.clone();
        let gone = match self {
            Self::ClusterRoleBinding(name) => or_gone(Api::<ClusterRoleBinding>::all(all).delete(name, &params).await),
            Self::ClusterRole(name) => or_gone(Api::<ClusterRole>::all(all).delete(name, &params).await),
            Self::DisruptionBudget(namespace) => {
                let budgets: Api<PodDisruptionBudget> = Api::namespaced(all, namespace);
                or_gone(budgets.delete(DEPLOYMENT_NAME, &params).await)
            }
        };
        gone.with_context(|| format!("cannot delete {self}; the new manifests are applied: run the command again"))
    }
}
