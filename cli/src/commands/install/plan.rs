//! What an installation would change: every part is tried in a dry run before the first one is applied.

use std::collections::BTreeSet;

use anyhow::Context;
use crds::FIELD_MANAGER;
use fields::{is_ours, set};
use k8s_openapi::{
    api::authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    apimachinery::pkg::apis::meta::v1::ManagedFieldsEntry,
};
use kube::{
    Api, Client,
    api::{DynamicObject, Patch, PatchParams, PostParams},
    core::{ApiResource, GroupVersionKind},
    discovery::{Scope, oneshot::pinned_kind},
};
use manifests::{Limits, Manifest, parse};
use serde_json::{Map, Value, json};

use super::changes;
use crate::output::Hint;

/// For objects of a namespace that does not exist yet, the dry run is done in this namespace.
const TRIED_IN: &str = "default";

/// One object, and what applying it changes.
pub struct Step {
    pub object: Manifest,
    pub change: Change,
    /// The object as it is in the cluster.
    pub live: Option<Value>,
    /// The object as it would be after the apply.
    pub after: Value,
    /// Fields that somebody edited and that stay as they are.
    pub edited: Vec<String>,
    /// A merge patch that must come first. It removes a field that the API server set, which no apply can remove.
    pub first: Option<Value>,
}

/// What applying an object changes.
#[derive(Debug, Eq, PartialEq)]
pub enum Change {
    Created,
    /// These fields change.
    Changed(Vec<String>),
    Unchanged,
}

/// Finds out, in order, what applying each object in the YAML `text` would change. Nothing is written: the applies are
/// dry runs.
///
/// # Errors
/// The API server would refuse an object.
pub async fn plan(client: &Client, text: &str) -> anyhow::Result<Vec<Step>> {
    let objects =
        parse("gitseal install", text.as_bytes(), &Limits::default()).context("cannot read the generated manifests")?;
    let made = |object: &Manifest| (object.id.kind == "Namespace").then(|| object.id.name.clone());
    let namespaces: BTreeSet<String> = objects.iter().filter_map(made).collect();
    let mut steps = Vec::with_capacity(objects.len());
    for object in objects {
        let id = object.id.clone();
        let step = try_one(client, object, &namespaces).await;
        steps.push(
            step.with_context(|| Hint::new(format!("the API server would refuse {id}: nothing was applied"), HINT))?,
        );
    }
    Ok(steps)
}

const HINT: &str = "you must be an administrator of the cluster; `gitseal install` prints what would be applied";

/// The API for the kind of a manifest; `None` if the cluster does not serve the kind yet.
pub async fn api(client: &Client, object: &Manifest) -> anyhow::Result<Option<Api<DynamicObject>>> {
    let kind = GroupVersionKind::gvk(&object.id.group, &object.version, &object.id.kind);
    match pinned_kind(client, &kind).await {
        Ok((resource, capabilities)) => {
            let namespace = object.id.namespace.as_deref().filter(|_| capabilities.scope == Scope::Namespaced);
            Ok(Some(api_of(client, &resource, namespace)))
        }
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(kube::Error::Discovery(_)) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn api_of(client: &Client, resource: &ApiResource, namespace: Option<&str>) -> Api<DynamicObject> {
    match namespace {
        Some(namespace) => Api::namespaced_with(client.clone(), namespace, resource),
        None => Api::all_with(client.clone(), resource),
    }
}

async fn try_one(client: &Client, mut object: Manifest, namespaces: &BTreeSet<String>) -> anyhow::Result<Step> {
    let created = |object: Manifest, after: Value| Step {
        object,
        change: Change::Created,
        live: None,
        after,
        edited: Vec::new(),
        first: None,
    };
    let Some(api) = api(client, &object).await? else {
        // The kind is part of this installation and not served yet. So only the right to create the object can be
        // checked.
        may_create(client, &object).await?;
        let after = Value::Object(object.body.clone());
        return Ok(created(object, after));
    };
    let params = PatchParams::apply(FIELD_MANAGER).force().dry_run();
    let Some(live) = api.get_opt(&object.id.name).await? else {
        let tried = match object.id.namespace.as_ref().filter(|namespace| namespaces.contains(*namespace)) {
            Some(_) if !exists(client, object.id.namespace.as_deref()).await? => {
                may_create(client, &object).await?;
                try_elsewhere(client, &object).await?
            }
            _ => api.patch(&object.id.name, &params, &Patch::Apply(&object.body)).await?,
        };
        return Ok(created(object, serde_json::to_value(tried)?));
    };
    let edited = edited(&live, &object.body);
    if !set::is_empty(&edited) {
        let mut body = Value::Object(object.body);
        set::take_out(&mut body, &edited);
        let Value::Object(body) = body else {
            anyhow::bail!("internal error: without the fields that were edited, the body is no object")
        };
        object.body = body;
    }
    let live = serde_json::to_value(live)?;
    let first = first(&live, &object.body);
    let mut body = object.body.clone();
    if let Some(first) = &first {
        let dry_run = PatchParams { dry_run: true, ..by_us() };
        api.patch(&object.id.name, &dry_run, &Patch::Merge(first)).await?;
        // A dry run cannot show the effect of two patches in a row. So the dry run of the apply leaves out the field
        // that the first patch removes.
        body.get_mut("spec").and_then(Value::as_object_mut).and_then(|spec| spec.remove("strategy"));
    }
    let mut after = serde_json::to_value(api.patch(&object.id.name, &params, &Patch::Apply(&body)).await?)?;
    if first.is_some() {
        after["spec"]["strategy"] = object.body["spec"]["strategy"].clone();
    }
    let fields = changes::fields(&live, &after);
    let change = if fields.is_empty() { Change::Unchanged } else { Change::Changed(fields) };
    Ok(Step { object, change, live: Some(live), after, edited: set::names(&edited), first })
}

/// The parameters for the merge patch [`Step::first`].
pub fn by_us() -> PatchParams {
    PatchParams { field_manager: Some(FIELD_MANAGER.into()), ..PatchParams::default() }
}

/// The patch for a Deployment whose strategy changes from RollingUpdate to Recreate. The API server refuses Recreate
/// together with `rollingUpdate`. If the API server set that field by default, nobody owns it, so no apply removes it.
fn first(live: &Value, ours: &Map<String, Value>) -> Option<Value> {
    live.pointer("/spec/strategy/rollingUpdate").filter(|update| !update.is_null())?;
    let strategy = ours.get("spec")?.get("strategy")?.get("type")?;
    (strategy == "Recreate").then(|| json!({"spec": {"strategy": {"type": strategy, "rollingUpdate": null}}}))
}

/// The fields that somebody changed by hand in an object that we applied, and that our manifest sets to other values. The
/// API server records who wrote a field last.
fn edited(live: &DynamicObject, ours: &Map<String, Value>) -> Value {
    let entries = live.metadata.managed_fields.as_deref().unwrap_or_default();
    // An object of others that we never applied is taken over completely.
    if !entries.iter().any(is_ours) {
        return json!({});
    }
    let mut edited = json!({});
    for entry in entries.iter().filter(|entry| is_edit(entry)) {
        if let Some(fields) = &entry.fields_v1 {
            set::unite(&mut edited, &fields.0);
        }
    }
    for entry in entries.iter().filter(|entry| is_ours(entry)) {
        if let Some(fields) = &entry.fields_v1 {
            edited = set::without(&edited, &fields.0);
        }
    }
    // `choices` takes the values of these fields from the cluster, unless a flag sets them. So if such a field differs,
    // a flag or the new version of gitseal changed it.
    for path in [
        &["f:spec", "f:replicas"][..],
        &["f:spec", "f:strategy"],
        &["f:spec", "f:template", "f:spec", "f:containers", "*", "f:image"],
        &["f:spec", "f:template", "f:spec", "f:containers", "*", "f:args"],
        &["f:spec", "f:template", "f:spec", "f:volumes"],
        &["f:metadata"],
    ] {
        set::remove(&mut edited, path);
    }
    // Of the edited fields, only those count that our manifest sets.
    let mut rest = Value::Object(ours.clone());
    set::take_out(&mut rest, &edited);
    if rest == Value::Object(ours.clone()) { json!({}) } else { edited }
}

fn is_edit(entry: &ManagedFieldsEntry) -> bool {
    // These field managers make objects from files, as we do.
    const FROM_FILES: [&str; 3] = [FIELD_MANAGER, "kubectl-client-side-apply", "kubectl-create"];
    let is_whole = entry.subresource.as_deref().unwrap_or_default().is_empty();
    let manager = entry.manager.as_deref().unwrap_or_default();
    is_whole && entry.operation.as_deref() == Some("Update") && !FROM_FILES.contains(&manager)
}

async fn exists(client: &Client, namespace: Option<&str>) -> anyhow::Result<bool> {
    let namespaces: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(client.clone());
    Ok(match namespace {
        Some(name) => namespaces.get_opt(name).await?.is_some(),
        None => true,
    })
}

/// A dry run in another namespace, which exists. An object that is valid there is valid in its own namespace, too.
async fn try_elsewhere(client: &Client, object: &Manifest) -> anyhow::Result<DynamicObject> {
    let kind = GroupVersionKind::gvk(&object.id.group, &object.version, &object.id.kind);
    let (resource, _) = pinned_kind(client, &kind).await?;
    let mut body = Value::Object(object.body.clone());
    body["metadata"]["namespace"] = TRIED_IN.into();
    let params = PatchParams::apply(FIELD_MANAGER).force().dry_run();
    Ok(api_of(client, &resource, Some(TRIED_IN)).patch(&object.id.name, &params, &Patch::Apply(&body)).await?)
}

async fn may_create(client: &Client, object: &Manifest) -> anyhow::Result<()> {
    let id = &object.id;
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(&id.group, &object.version, &id.kind)).plural;
    let attributes = ResourceAttributes {
        group: Some(id.group.clone()),
        resource: Some(resource.clone()),
        namespace: id.namespace.clone(),
        verb: Some("create".into()),
        ..ResourceAttributes::default()
    };
    let spec = SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
    let review = SelfSubjectAccessReview { spec, ..Default::default() };
    let answer = Api::all(client.clone()).create(&PostParams::default(), &review).await?;
    let allowed = answer
        .status
        .is_some_and(|status: k8s_openapi::api::authorization::v1::SubjectAccessReviewStatus| status.allowed);
    anyhow::ensure!(allowed, "you do not have the right to create {resource}");
    Ok(())
}
