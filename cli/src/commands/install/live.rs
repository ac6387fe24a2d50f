//! Reads the existing installation from the cluster.

use k8s_openapi::{
    api::{
        apps::v1::Deployment,
        core::v1::{Container, PersistentVolumeClaim, PodSpec, Volume},
        policy::v1::PodDisruptionBudget,
        rbac::v1::{ClusterRole, ClusterRoleBinding, Role},
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::{Api, Client, ResourceExt};

use super::{
    arguments,
    bundle::{
        AGGREGATE_TO_EDIT, CLUSTER_ADMIN_BINDING, DEPLOYMENT_NAME, EDIT_ROLE, LABEL, PROXY_ROLE, VERSION_LABEL, WATCH,
    },
    choices::{Rollout, Storage, Tenancy},
};
use crate::{global::Global, output::Hint};

/// The existing installation. If nothing is installed, `deployment` and `tenancy` are `None`.
#[derive(Default)]
pub struct Live {
    /// Namespace of the controller.
    pub namespace: String,
    /// Name of the Service.
    pub service: Option<String>,
    /// What the controller may apply; `None` if no controller is installed.
    pub tenancy: Option<Tenancy>,
    /// Whether the binding to cluster-admin names the controller.
    pub is_cluster_admin: bool,
    /// Whether there is the PodDisruptionBudget that `gitseal install` makes if there are several controllers.
    pub has_disruption_budget: bool,
    /// Whether people with the role `edit` in a namespace may create Syncs there.
    people_edit_syncs: bool,
    deployment: Option<Deployment>,
    claim: Option<PersistentVolumeClaim>,
}

impl Live {
    /// The state of a cluster in which nothing is installed.
    pub fn nothing(global: &Global) -> Self {
        Self { namespace: global.controller_namespace().to_owned(), ..Self::default() }
    }

    /// Reads what is installed.
    ///
    /// # Errors
    /// The installation cannot be read, or the cluster's controller is in another namespace than the chosen one.
    pub async fn read(client: &Client, global: &Global) -> anyhow::Result<Self> {
        Self::find(client, global).await.map_err(|error| match error.downcast_ref::<Hint>() {
            Some(_) => error,
            None => error.context("cannot read what is installed: nothing was changed"),
        })
    }

    async fn find(client: &Client, global: &Global) -> anyhow::Result<Self> {
        let bindings: Api<ClusterRoleBinding> = Api::all(client.clone());
        let binding = bindings.get_opt(DEPLOYMENT_NAME).await?;
        let installed_in = binding.as_ref().and_then(|binding| binding.subjects.as_ref()?.first()?.namespace.clone());
        let namespace = match (global.chosen_controller_namespace(), installed_in) {
            (Some(chosen), Some(other)) if chosen != other && deployment(client, &other).await?.is_some() => {
                return Err(Hint::error(
                    format!(
                        "gitseal is already installed in the namespace {other}, and a cluster can have only one: nothing was changed"
                    ),
                    format!(
                        "upgrade it there (leave --controller-namespace {chosen} out), or run `gitseal uninstall` first"
                    ),
                ));
            }
            (Some(chosen), _) => chosen.to_owned(),
            (None, found) => found.unwrap_or_else(|| global.controller_namespace().to_owned()),
        };
        let roles: Api<Role> = Api::namespaced(client.clone(), &namespace);
        let service = roles.get_opt(PROXY_ROLE).await?.and_then(|role| service_of(&role));
        let admin = bindings.get_opt(CLUSTER_ADMIN_BINDING).await?;
        let watch = bindings.get_opt(WATCH).await?;
        let tenancy = Tenancy { cluster_admin: admin.is_some(), watch: watch.is_some() };
        let is_cluster_admin = admin.is_some_and(|binding| names_the_controller(&binding, &namespace));
        let edit = Api::<ClusterRole>::all(client.clone()).get_opt(EDIT_ROLE).await?;
        let people_edit_syncs = edit.and_then(|role| role.metadata.labels?.remove(AGGREGATE_TO_EDIT));
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), &namespace);
        let budget = budgets.get_metadata_opt(DEPLOYMENT_NAME).await?;
        let deployment = deployment(client, &namespace).await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), &namespace);
        let claim = claims.get_opt(DEPLOYMENT_NAME).await?;
        let is_installed = binding.is_some() || deployment.is_some();
        Ok(Self {
            namespace,
            service,
            tenancy: is_installed.then_some(tenancy),
            is_cluster_admin,
            has_disruption_budget: budget.is_some_and(|budget| is_of_an_installation(&budget)),
            people_edit_syncs: people_edit_syncs.as_deref() == Some("true"),
            deployment,
            claim,
        })
    }

    /// Whether anything is installed.
    pub fn is_installed(&self) -> bool {
        self.tenancy.is_some()
    }

    pub fn replicas(&self) -> Option<i32> {
        self.deployment.as_ref()?.spec.as_ref()?.replicas
    }

    pub fn rollout(&self) -> Option<Rollout> {
        let kind = self.deployment.as_ref()?.spec.as_ref()?.strategy.as_ref()?.type_.as_deref()?;
        Some(if kind == "Recreate" { Rollout::Recreate } else { Rollout::Rolling })
    }

    pub fn image(&self) -> Option<&str> {
        self.container()?.image.as_deref()
    }

    pub fn arguments(&self) -> Option<Vec<String>> {
        self.container()?.args.clone()
    }

    /// Whether people with the role `edit` in a namespace may create a Sync that has the controller's own rights.
    pub fn is_open(&self) -> bool {
        self.people_edit_syncs && !arguments::has_default_account(&self.arguments().unwrap_or_default())
    }

    /// Whether a Sync without a service account is applied with the controller's own rights.
    pub fn gives_own_rights(&self) -> bool {
        self.deployment.is_some() && !arguments::has_default_account(&self.arguments().unwrap_or_default())
    }

    /// Whether people may edit Syncs already, and no Sync is applied with the controller's own rights.
    pub fn is_widened(&self) -> bool {
        self.people_edit_syncs && !self.is_open()
    }

    /// Whether no controller of the Deployment applies a Sync with the controller's own rights. This is false until the
    /// rollout has ended, because old Pods may still do so.
    pub fn is_bound(&self) -> bool {
        let Some(deployment) = &self.deployment else { return true };
        arguments::has_default_account(&self.arguments().unwrap_or_default()) && is_rolled_out(deployment)
    }

    /// The version whose manifests are installed.
    pub fn version(&self) -> Option<&str> {
        self.deployment.as_ref()?.metadata.labels.as_ref()?.get(VERSION_LABEL).map(String::as_str)
    }

    /// Where the Git store is.
    pub fn storage(&self) -> Option<Storage> {
        let volumes = self.pod()?.volumes.as_ref()?;
        let volume = volumes.iter().find(|volume| volume.name == "storage")?;
        let is_ours = |volume: &Volume| {
            volume.persistent_volume_claim.as_ref().is_some_and(|claim| claim.claim_name == DEPLOYMENT_NAME)
        };
        Some(match volume {
            volume if is_ours(volume) => self.claim_size().map_or_else(Storage::volume, Storage::Volume),
            volume if volume.empty_dir.as_ref().is_some_and(|dir| dir.medium.is_none()) => Storage::Ephemeral,
            volume => {
                let mut source = serde_json::to_value(volume).unwrap_or_default();
                source.as_object_mut().map(|source| source.remove("name"));
                Storage::Other(source)
            }
        })
    }

    /// The requested size of the volume.
    pub fn claim_size(&self) -> Option<String> {
        let requests = self.claim.as_ref()?.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?;
        requests.get("storage").map(|Quantity(size)| size.clone())
    }

    fn pod(&self) -> Option<&PodSpec> {
        self.deployment.as_ref()?.spec.as_ref()?.template.spec.as_ref()
    }

    fn container(&self) -> Option<&Container> {
        self.pod()?.containers.iter().find(|container| container.name == "controller")
    }
}

/// Whether the Pods that run are exactly those that the Deployment describes. Its conditions are not used, because they
/// may be about an earlier version.
pub fn is_rolled_out(deployment: &Deployment) -> bool {
    let (Some(spec), Some(status)) = (&deployment.spec, &deployment.status) else { return false };
    let wanted = spec.replicas.unwrap_or(1);
    let updated = status.updated_replicas.unwrap_or(0);
    status.observed_generation >= deployment.metadata.generation
        && updated >= wanted
        && status.replicas.unwrap_or(0) == updated
        && status.available_replicas.unwrap_or(0) >= updated
}

fn names_the_controller(binding: &ClusterRoleBinding, namespace: &str) -> bool {
    binding.subjects.iter().flatten().any(|subject| {
        subject.kind == "ServiceAccount"
            && subject.name == DEPLOYMENT_NAME
            && subject.namespace.as_deref() == Some(namespace)
    })
}

/// Whether `gitseal install` made the object. An object of the same name may belong to somebody else.
pub fn is_of_an_installation<K: ResourceExt>(object: &K) -> bool {
    object.labels().get(LABEL.0).is_some_and(|value| value == LABEL.1)
}

async fn deployment(client: &Client, namespace: &str) -> kube::Result<Option<Deployment>> {
    Api::namespaced(client.clone(), namespace).get_opt(DEPLOYMENT_NAME).await
}

/// The name of the Service that was chosen when gitseal was installed. It is read from the Role that lets everybody
/// reach the Service through the API server's proxy.
fn service_of(role: &Role) -> Option<String> {
    let rules = role.rules.iter().flatten();
    let mut of_services = rules.filter(|rule| rule.resources.iter().flatten().any(|resource| resource == "services"));
    of_services.next()?.resource_names.as_ref()?.first().cloned()
}
