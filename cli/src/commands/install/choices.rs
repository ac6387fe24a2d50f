//! The settings of an installation. Each comes from a flag, or from the cluster, or is the default.

use anyhow::bail;
use serde_json::Value;

use super::{
    InstallArgs, arguments,
    bundle::{self, DEPLOYMENT_NAME},
    image,
    live::Live,
};
use crate::{global::Global, output::Hint};

/// The choices of an installation.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Choices {
    pub namespace: String,
    /// Name of the Service.
    pub service: String,
    pub image: String,
    /// Arguments of the controller.
    pub arguments: Vec<String>,
    pub tenancy: Tenancy,
    pub storage: Storage,
    /// Number of replicas of the controller.
    pub replicas: i32,
    pub rollout: Rollout,
}

/// What the controller may apply with its own rights. Both fields are false if somebody gives the controller other
/// rights by hand.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Tenancy {
    /// The controller may apply everything.
    pub cluster_admin: bool,
    /// The controller has no right to apply anything, but may watch everything.
    pub watch: bool,
}

impl Tenancy {
    pub const SINGLE_OWNER: Self = Self { cluster_admin: true, watch: false };
    pub const MULTI_TENANT: Self = Self { cluster_admin: false, watch: true };
}

/// Where the Git store is.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Storage {
    /// On a volume of this size.
    Volume(String),
    /// In an emptyDir.
    Ephemeral,
    /// Another place that somebody chose by hand: the source of the Pod's volume.
    Other(Value),
}

impl Storage {
    /// On a volume of the usual size.
    pub fn volume() -> Self {
        Self::Volume(bundle::VOLUME_SIZE.to_owned())
    }
}

/// How the replicas of the controller are replaced by an update.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Rollout {
    /// The old replica ends before the new one starts.
    Recreate,
    /// The replicas are replaced one after another.
    Rolling,
}

impl Choices {
    /// Decides all settings. Those that no flag changes stay as they are in the cluster.
    pub fn decide(args: &InstallArgs, global: &Global, live: &Live) -> anyhow::Result<Self> {
        let multi_tenant = args.multi_tenant;
        let tenancy = match multi_tenant {
            Some(true) => Tenancy::MULTI_TENANT,
            Some(false) => Tenancy::SINGLE_OWNER,
            None => live.tenancy.unwrap_or(Tenancy::SINGLE_OWNER),
        };
        let replicas = args.replicas.map(i32::from).or_else(|| live.replicas()).unwrap_or(1);
        // If the number of replicas does not change, the rollout stays as well: somebody may have chosen it by hand.
        let rollout = match live.rollout() {
            Some(rollout) if live.replicas() == Some(replicas) => rollout,
            _ if replicas > 1 => Rollout::Rolling,
            _ => Rollout::Recreate,
        };
        let several = args.replicas.is_some_and(|replicas| replicas > 1);
        let storage = match args.ephemeral_storage {
            Some(true) => Storage::Ephemeral,
            Some(false) if replicas > 1 => bail!(Hint::error(
                format!(
                    "{replicas} controllers cannot share the volume of the Git store, which belongs to one Pod at a time"
                ),
                "leave --ephemeral-storage=false out, or choose --replicas 1",
            )),
            Some(false) if rollout == Rollout::Rolling => bail!(Hint::error(
                "the Deployment starts a new Pod before it stops the old one (RollingUpdate), but only one Pod at a \
                 time can use the volume: nothing was applied",
                format!(
                    "delete the Deployment, which nothing depends on, and run the command again: kubectl delete deployment -n {} \
                     {DEPLOYMENT_NAME}",
                    live.namespace
                ),
            )),
            Some(false) => Storage::Volume(live.claim_size().unwrap_or_else(|| bundle::VOLUME_SIZE.to_owned())),
            None => match live.storage() {
                Some(Storage::Volume(_)) | None if several => Storage::Ephemeral,
                Some(storage) => storage,
                None => Storage::volume(),
            },
        };
        let image = match (&args.image, live.image()) {
            (Some(image), _) => {
                image::check(image)?;
                image.clone()
            }
            (None, Some(image)) => image::of_this_version(image, live.version()).unwrap_or_else(|| image.to_owned()),
            (None, None) => bundle::image(),
        };
        let mut arguments = arguments::merge(live.arguments().unwrap_or_default(), bundle::arguments());
        arguments::set(&mut arguments, &args.arguments)?;
        match multi_tenant {
            Some(true) => arguments = arguments::merge(arguments, vec![arguments::DEFAULT_ACCOUNT.to_owned()]),
            // Only the argument that this command itself adds is removed.
            Some(false) => arguments.retain(|argument| argument != arguments::DEFAULT_ACCOUNT),
            None => {}
        }
        let service = global.chosen_controller_name().map(str::to_owned).or_else(|| live.service.clone());
        Ok(Self {
            namespace: live.namespace.clone(),
            service: service.unwrap_or_else(|| global.controller_name().to_owned()),
            image,
            arguments,
            tenancy,
            storage,
            replicas,
            rollout,
        })
    }

    /// Refuses an installation without an image, because the controller's image is in no public registry.
    pub fn refuse_without_image(args: &InstallArgs, live: &Live) -> anyhow::Result<()> {
        if args.image.is_some() || live.image().is_some() {
            return Ok(());
        }
        Err(Hint::error(
            "no image was named, and the controller's image is in no public registry: nothing was applied",
            format!(
                "build the image (deploy/README.md, \"Image\"), push it to a registry that the nodes can pull from, \
                and name it: --image registry.example/{0}. If every node has the image already, use --image {0}",
                bundle::image()
            ),
        ))
    }

    /// The warning if the image stays although this `gitseal` has another version.
    pub fn stale_image(&self, args: &InstallArgs, live: &Live) -> Option<String> {
        let version = live.version().filter(|version| *version != env!("CARGO_PKG_VERSION"))?;
        (args.image.is_none() && live.image() == Some(&self.image)).then(|| {
            format!(
                "the image stays {}: its tag is not the installed version {version}, so the tag of the new image \
                 cannot be derived from it; name the image of version {} with --image",
                self.image,
                env!("CARGO_PKG_VERSION")
            )
        })
    }

    /// Whether people with the role `edit` in a namespace may create Syncs there: never if a Sync can have the
    /// controller's own rights.
    pub fn people_edit_syncs(&self) -> bool {
        self.tenancy == Tenancy::MULTI_TENANT && arguments::has_default_account(&self.arguments)
    }

    /// Whether there is a PodDisruptionBudget, so that only one of several replicas is evicted at a time.
    pub fn has_disruption_budget(&self) -> bool {
        self.rollout == Rollout::Rolling && self.replicas != 1
    }

    /// How messages name the controller's Deployment.
    pub fn deployment(&self) -> String {
        format!("{}/{DEPLOYMENT_NAME}", self.namespace)
    }
}
