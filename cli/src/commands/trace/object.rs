//! Objects of any kind, named as kubectl names them.

use anyhow::Context;
use crds::conditions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, OwnerReference};
use kube::{
    Api, Client, ResourceExt,
    api::{DynamicObject, ListParams},
    core::discovery::{ApiResource, v2::APIGroupDiscoveryList},
};
use manifests::ObjectId;
use pipeline::health::{self, Health};
use serde_json::Value;

use crate::{global::Global, output::Hint};

/// A kind that the cluster serves.
#[derive(Clone, Debug)]
struct Kind {
    resource: ApiResource,
    namespaced: bool,
    /// All its names on a command line, in lower case.
    names: Vec<String>,
}

/// The kinds that the cluster serves. In each group, the preferred version comes first.
pub struct Kinds(Vec<Kind>);

impl Kinds {
    /// Asks the cluster.
    ///
    /// # Errors
    /// The cluster does not answer.
    pub async fn read(client: &Client) -> anyhow::Result<Self> {
        let lists = futures::try_join!(client.list_core_api_versions_aggregated(), client.list_api_groups_aggregated());
        let (core, groups) = lists.context("cannot ask the cluster which kinds it serves")?;
        Ok(Self(kinds(core).chain(kinds(groups)).collect()))
    }

    /// Finds a kind by a name such as `deployment`, `deploy`, `deployments.apps`, `deployments.v1.apps` or
    /// `Deployment`.
    fn by_name(&self, name: &str) -> anyhow::Result<&Kind> {
        let name = name.to_ascii_lowercase();
        let (plain, group) = name.split_once('.').map_or((name.as_str(), None), |(kind, group)| (kind, Some(group)));
        let fits = |kind: &&Kind| {
            // As in kubectl, the version may stand before the group.
            let is_of = |group: &str| {
                let of = &kind.resource;
                group == of.group
                    || group.strip_prefix(&*of.version).is_some_and(|rest| rest.trim_start_matches('.') == of.group)
            };
            let is_group = group.is_none_or(is_of);
            is_group && kind.names.iter().any(|known| known == plain)
        };
        self.0.iter().find(fits).ok_or_else(|| {
            let hint = "name the object as kubectl does: deployment/web, configmap/settings, deployments.apps/web";
            Hint::error(format!("the cluster serves no kind {name}"), hint)
        })
    }

    fn by_reference(&self, owner: &OwnerReference) -> Option<&Kind> {
        self.0.iter().find(|kind| kind.resource.api_version == owner.api_version && kind.resource.kind == owner.kind)
    }
}

/// Completions: `KIND/` if no `/` is typed yet, otherwise `KIND/NAME` for the objects of this kind in the namespace.
///
/// # Errors
/// The cluster does not answer, or has no such kind.
pub async fn names(client: &Client, global: &Global, typed: &str) -> anyhow::Result<Vec<String>> {
    let kinds = Kinds::read(client).await?;
    let Some((typed, _)) = typed.split_once('/') else {
        return Ok(kinds.0.iter().map(|kind| format!("{}/", kind.names[0])).collect());
    };
    let kind = kinds.by_name(typed)?;
    let api = kind.api(client, kind.namespaced.then(|| global.default_namespace()).as_deref());
    let found = api.list_metadata(&ListParams::default()).await?;
    Ok(found.items.iter().map(|object| format!("{typed}/{}", object.name_any())).collect())
}

impl Kind {
    /// The API for objects of this kind in a namespace, or in all namespaces.
    fn api(&self, client: &Client, namespace: Option<&str>) -> Api<DynamicObject> {
        match namespace {
            Some(namespace) => Api::namespaced_with(client.clone(), namespace, &self.resource),
            None => Api::all_with(client.clone(), &self.resource),
        }
    }
}

fn kinds(list: APIGroupDiscoveryList) -> impl Iterator<Item = Kind> {
    list.items.into_iter().flat_map(|group| {
        let name = group.metadata.and_then(|meta| meta.name).unwrap_or_default();
        group.versions.into_iter().flat_map(move |version| {
            let (group, version_name) = (name.clone(), version.version.unwrap_or_default());
            version.resources.into_iter().filter_map(move |served| {
                let (kind, plural) = (served.response_kind?.kind?, served.resource?);
                let api_version =
                    if group.is_empty() { version_name.clone() } else { format!("{group}/{version_name}") };
                let names = [kind.to_ascii_lowercase(), plural.clone(), served.singular_resource.unwrap_or_default()];
                Some(Kind {
                    names: names.into_iter().chain(served.short_names).filter(|name| !name.is_empty()).collect(),
                    namespaced: served.scope.as_deref() == Some("Namespaced"),
                    resource: ApiResource {
                        group: group.clone(),
                        version: version_name.clone(),
                        api_version,
                        kind,
                        plural,
                    },
                })
            })
        })
    })
}

/// An object in the cluster. For a Secret, only its metadata.
pub struct Object {
    pub id: ObjectId,
    pub api_version: String,
    body: Value,
    owners: Vec<OwnerReference>,
    managed_fields: Vec<ManagedFieldsEntry>,
}

impl Object {
    /// The object `name` of the kind `kind`.
    ///
    /// # Errors
    /// There is no such kind or object, or the user may not read it.
    pub async fn read(client: &Client, kinds: &Kinds, global: &Global, kind: &str, name: &str) -> anyhow::Result<Self> {
        let kind = kinds.by_name(kind)?;
        let namespace = kind.namespaced.then(|| global.default_namespace());
        let namespace = namespace.as_deref();
        let place = namespace.map(|_| format!(" in {}", global.told_namespace())).unwrap_or_default();
        match Self::get(client, kind, namespace, name).await {
            Ok(Some(object)) => Ok(object),
            Ok(None) => Err(Hint::error(
                format!("there is no {} {name}{place}", kind.resource.kind),
                "is it in another --namespace?",
            )),
            Err(error) => Err(error).with_context(|| format!("cannot read {} {name}{place}", kind.resource.kind)),
        }
    }

    /// The object that owns this one, if it exists.
    ///
    /// # Errors
    /// The user may not read the owner.
    pub async fn owner(&self, client: &Client, kinds: &Kinds) -> anyhow::Result<Option<Self>> {
        let controller = self.owners.iter().find(|owner| owner.controller == Some(true));
        let Some(owner) = controller.or(self.owners.first()) else { return Ok(None) };
        let Some(kind) = kinds.by_reference(owner) else { return Ok(None) };
        let namespace = kind.namespaced.then_some(self.id.namespace.as_deref()).flatten();
        let what = || format!("cannot read {} {}, which made the object", owner.kind, owner.name);
        Self::get(client, kind, namespace, &owner.name).await.with_context(what)
    }

    async fn get(client: &Client, kind: &Kind, namespace: Option<&str>, name: &str) -> kube::Result<Option<Self>> {
        let (resource, api) = (&kind.resource, kind.api(client, namespace));
        let id = ObjectId {
            group: resource.group.clone(),
            kind: resource.kind.clone(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        };
        // Of a Secret, only the metadata is read, because its values are not needed.
        let (metadata, data) = if id.is_secret() {
            let Some(found) = api.get_metadata_opt(name).await? else { return Ok(None) };
            (found.metadata, Value::Null)
        } else {
            let Some(found) = api.get_opt(name).await? else { return Ok(None) };
            (found.metadata, found.data)
        };
        let mut body = data;
        if let (Value::Object(body), Ok(metadata)) = (&mut body, serde_json::to_value(&metadata)) {
            body.insert("metadata".into(), metadata);
        }
        Ok(Some(Self {
            id,
            api_version: resource.api_version.clone(),
            body,
            owners: metadata.owner_references.unwrap_or_default(),
            managed_fields: metadata.managed_fields.unwrap_or_default(),
        }))
    }

    /// The value of a label.
    pub fn label(&self, name: &str) -> Option<&str> {
        // The name of a label contains a `/`, which would be a separator in a JSON pointer.
        self.body.get("metadata")?.get("labels")?.get(name)?.as_str()
    }

    /// The `managedFields` of the object.
    pub fn managed_fields(&self) -> &[ManagedFieldsEntry] {
        &self.managed_fields
    }

    /// The last writer of anything except the status, as far as Kubernetes recorded the time.
    pub fn last_writer(&self) -> Option<&ManagedFieldsEntry> {
        self.writers().filter(|entry| entry.time.is_some()).max_by_key(|entry| entry.time.as_ref().map(|time| time.0))
    }

    /// The writers without a recorded time, as for `scale`. Writers of the status are left out.
    pub fn undated_writers(&self) -> impl Iterator<Item = &ManagedFieldsEntry> {
        self.writers().filter(|entry| entry.time.is_none())
    }

    fn writers(&self) -> impl Iterator<Item = &ManagedFieldsEntry> {
        self.managed_fields.iter().filter(|entry| entry.subresource.as_deref() != Some("status"))
    }

    /// The object's health, by the same rules as in the controller.
    pub fn health(&self) -> Health {
        if self.id.is_sealed_secret() {
            return self.synced();
        }
        if health::is_born_healthy(&self.id) { Health::Current } else { health::assess(&self.id, &self.body) }
    }

    fn synced(&self) -> Health {
        let conditions = self.body.pointer("/status/conditions").and_then(Value::as_array);
        let synced = conditions.into_iter().flatten().find(|condition| condition["type"] == conditions::SYNCED);
        let message = synced.and_then(|synced| synced["message"].as_str()).unwrap_or("it has not been unsealed yet");
        match synced.and_then(|synced| synced["status"].as_str()) {
            Some("True") => Health::Current,
            Some("False") => Health::Failed(message.to_owned()),
            _ => Health::InProgress(message.to_owned()),
        }
    }
}
